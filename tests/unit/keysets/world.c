/* keysets/world.c - see world.h. */
#include "world.h"

#include "crypto/jose_priv.h"

void world_init(struct world *w)
{
    for (size_t i = 0; i < WORLD_KEYS; i++) {
        struct sw_keyring ring;
        enum sw_err err;

        sw_keyring_make(1760000000, &ring);
        err = sw_jwks_derive(&ring, SW_JOSE_ED25519, &w->keys[i]);
        SW_ASSERT(err == SW_OK);
    }
}

void world_fini(struct world *w)
{
    for (size_t i = 0; i < WORLD_KEYS; i++) {
        sw_jwks_unref(w->keys[i]);
    }
}

struct sw_slice world_set(const struct world *w, uint32_t which)
{
    static char text[4096];
    struct sw_out out = sw_out_init(text, sizeof(text));
    const char *between = "";

    sw_out_lit(&out, "{\"keys\":[");
    for (size_t i = 0; i < WORLD_KEYS; i++) {
        char one[512];
        struct sw_out o = sw_out_init(one, sizeof(one));

        if ((which & SW_BIT(i)) == 0) {
            continue;
        }
        SW_ASSERT(sw_jwks_put_public(&o, w->keys[i]));
        sw_out_cstr(&out, between);
        sw_out_put(&out, one + 9, o.len - 11); /* what is within {"keys":[ and ]} */
        between = ",";
    }
    sw_out_lit(&out, "]}");
    SW_ASSERT(!out.overflowed);
    return sw_out_done(&out);
}

struct sw_slice world_kid(const struct world *w, size_t key)
{
    return sw_jwk_kid(sw_jwks_at(w->keys[key], 0));
}

static void token_put(struct sw_out *out, const struct sw_jwk *key, bool named)
{
    char head[512];
    struct sw_out h = sw_out_init(head, sizeof(head));
    uint8_t sig[JOSE_SIG_BYTES_MAX];
    enum sw_err err;

    sw_out_lit(&h, "{\"alg\":\"Ed25519\"");
    if (named) {
        sw_out_lit(&h, ",\"kid\":\"");
        sw_out_slice(&h, sw_jwk_kid(key));
        sw_out_char(&h, '"');
    }
    sw_out_char(&h, '}');
    sw_b64url_put(out, h.ptr, h.len);
    sw_out_lit(out, ".e30");
    err = sw_jose__sign(key, sw_out_done(out), sig);
    SW_ASSERT(err == SW_OK);
    sw_out_char(out, '.');
    sw_b64url_put(out, sig, key->sig_bytes);
}

enum sw_err world_verify(const struct world *w, size_t key, bool named, const struct sw_jwks *set)
{
    char token[2048], room[64];
    struct sw_out out = sw_out_init(token, sizeof(token));
    struct sw_arena arena;
    struct sw_jws jws;

    token_put(&out, sw_jwks_signer(w->keys[key]), named);
    SW_ASSERT(!out.overflowed);
    sw_arena_init(&arena, room, sizeof(room));
    return sw_jws_verify(set, sw_out_done(&out), SW_S(""), &arena, &jws);
}
