/* fuzz/crypto_jws.c - signed tokens: any bytes, any header, any claims.
 *
 * The first byte says which: 'h' a header and 'c' claims, which are then rightly signed; everything
 * else is a token of somebody who has no key.
 */
#include "base/json.h"
#include "crypto/jose_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW 1760000000ll

static struct sw_jwks *sets[3]; /* HS256, ES256, Ed25519: with keys that no input knows */
static struct sw_token_cache *cache;
static char arena_room[1 << 16], token_room[1 << 15];

static void setup(void)
{
    static const enum sw_jose_alg algs[] = {SW_JOSE_HS256, SW_JOSE_ES256, SW_JOSE_ED25519};
    struct sw_keyring ring;

    sw_keyring_make(NOW, &ring);
    for (size_t i = 0; i < SW_COUNTOF(sets); i++) {
        SW_ASSERT(sw_jwks_derive(&ring, algs[i], &sets[i]) == SW_OK);
    }
    cache = sw_token_cache_new();
    SW_ASSERT(cache != NULL);
}

static void forged(struct sw_slice token)
{
    struct sw_arena arena;
    struct sw_jws jws;

    for (size_t i = 0; i < SW_COUNTOF(sets); i++) {
        sw_arena_init(&arena, arena_room, sizeof(arena_room));
        SW_ASSERT(sw_jws_verify(sets[i], token, SW_S(""), &arena, &jws) != SW_OK);
        SW_ASSERT(arena.used == 0);
    }
}

/* What is accepted has one alg, and it is the key's; no crit, no b64 but true. */
static void header(struct sw_slice text)
{
    struct sw_out out = sw_out_init(token_room, sizeof(token_room));
    struct sw_slice alg, inside, value;
    uint8_t sig[JOSE_SIG_BYTES_MAX];
    struct sw_arena arena;
    struct sw_jws jws;

    sw_b64url_put(&out, text.ptr, text.len);
    sw_out_lit(&out, ".e30");
    if (out.overflowed) {
        return;
    }
    SW_ASSERT(sw_jose__sign(sw_jwks_at(sets[0], 0), sw_out_done(&out), sig) == SW_OK);
    sw_out_char(&out, '.');
    sw_b64url_put(&out, sig, 32);
    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    if (out.overflowed ||
        sw_jws_verify(sets[0], sw_out_done(&out), SW_S(""), &arena, &jws) != SW_OK) {
        return;
    }
    SW_ASSERT(sw_slice_eq(jws.payload, SW_S("{}")));
    SW_ASSERT(sw_json_check(text).err == SW_OK);
    SW_ASSERT(sw_json_get(text, SW_S("alg"), &alg));
    SW_ASSERT(sw_jose__string(alg, &inside));
    SW_ASSERT(sw_json_name_is(inside, SW_S("HS256")));
    SW_ASSERT(!sw_json_get(text, SW_S("crit"), &value));
    SW_ASSERT(!sw_json_get(text, SW_S("b64"), &value) || sw_slice_eq(value, SW_S("true")));
}

/* The same answer with and without the cache, the first time and the second. */
static void claims(struct sw_slice payload)
{
    static const struct sw_slice words[] = {SW_S("shop"), SW_S("cart")};
    static const struct sw_claim_rule tenant[] = {{SW_S("tenant"), SW_S("acme")}};
    static const struct sw_claims_rules all[] = {
        {.skew_s = 0},
        {.skew_s = 30, .age_s_max = 3600, .jti = true, .sub = true},
        {.issuer = SW_S("i"), .audiences = words, .audience_count = 1},
        {.scopes = words, .scope_count = 2, .claims = tenant, .claim_count = 1},
    };
    struct sw_out out = sw_out_init(token_room, sizeof(token_room));

    if (sw_jws_sign(sw_jwks_signer(sets[0]), SW_S(""), payload, &out) != SW_OK) {
        return;
    }
    for (size_t i = 0; i < SW_COUNTOF(all); i++) {
        struct sw_claims plain = {0}, got = {0};
        struct sw_arena arena;
        enum sw_err err;

        sw_arena_init(&arena, arena_room, sizeof(arena_room));
        err = sw_token_check(NULL, sets[0], SW_S(""), &all[i], sw_out_done(&out), NOW, &arena,
                             &plain);
        SW_ASSERT(err != SW_OK || plain.exp_unix_s >= NOW - all[i].skew_s);
        for (size_t turn = 0; turn < 2; turn++) {
            SW_ASSERT(sw_token_check(cache, sets[0], SW_S(""), &all[i], sw_out_done(&out), NOW,
                                     &arena, &got) == err);
            SW_ASSERT(err != SW_OK ||
                      (sw_slice_eq(got.sub, plain.sub) && sw_slice_eq(got.jti, plain.jti) &&
                       sw_slice_eq(got.payload, payload)));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (cache == NULL) {
        setup();
    }
    if (size > 0 && data[0] == 'h') {
        header(sw_slice_of(data + 1, size - 1));
    } else if (size > 0 && data[0] == 'c') {
        claims(sw_slice_of(data + 1, size - 1));
    } else {
        forged(sw_slice_of(data, size));
    }
    return 0;
}
