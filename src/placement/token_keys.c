/* placement/token_keys.c - our own keys: the sets that sign, made from the key ring, and what the
 * world may see of them.
 */
#include "placement/placement_priv.h"

uint32_t sw_mint_algs(const struct sw_config *config)
{
    uint32_t algs = 0;

    for (size_t i = 0; i < config->route_count; i++) {
        const struct sw_config_route *r = &config->routes[i];

        if (r->token.on && r->token.mint.on) {
            algs |= SW_BIT(r->token.mint.alg);
        }
        if (r->session.phantom.on) {
            algs |= SW_BIT(r->session.phantom.alg);
        }
    }
    return algs;
}

enum sw_err sw_mint_init(struct sw_mint *m, const struct sw_keyring *ring, uint32_t algs)
{
    enum sw_err err = SW_OK;

    SW_ASSERT((algs & ~SW_JOSE_SIGNING) == 0);
    *m = (struct sw_mint){0};
    for (unsigned alg = 0; alg < SW_JOSE_ALG_COUNT && err == SW_OK; alg++) {
        if ((algs & SW_BIT(alg)) != 0) {
            err = sw_jwks_derive(ring, (enum sw_jose_alg)alg, &m->sets[alg]);
        }
    }
    if (err != SW_OK) {
        sw_mint_fini(m);
    }
    return err;
}

void sw_mint_fini(struct sw_mint *m)
{
    for (size_t alg = 0; alg < SW_COUNTOF(m->sets); alg++) {
        sw_jwks_unref(sw_take(&m->sets[alg]));
    }
}

/* Each set as it writes itself, without the brackets around its keys. */
bool sw_mint_put_public(struct sw_out *out, const struct sw_mint *m)
{
    static const struct sw_slice head = SW_S("{\"keys\":["), tail = SW_S("]}");
    char text[SW_KEYS_MAX * 256 + 64];
    bool any = false;

    sw_out_slice(out, head);
    for (size_t alg = 0; alg < SW_COUNTOF(m->sets); alg++) {
        struct sw_out one = sw_out_init(text, sizeof(text));
        struct sw_slice keys;

        if (m->sets[alg] == NULL || (SW_BIT(alg) & SW_JOSE_PUBLIC) == 0) {
            continue; /* secrets have nothing to show */
        }
        if (!sw_jwks_put_public(&one, m->sets[alg])) {
            return false;
        }
        keys = sw_out_done(&one);
        SW_ASSERT(sw_slice_starts(keys, head));
        SW_ASSERT(sw_slice_ends(keys, tail));
        keys = sw_slice_of(keys.ptr + head.len, keys.len - head.len - tail.len);
        sw_out_slice(out, any && keys.len > 0 ? SW_S(",") : SW_S(""));
        sw_out_slice(out, keys);
        any = any || keys.len > 0;
    }
    sw_out_slice(out, tail);
    return !out->overflowed;
}
