/* fuzz/crypto_jwk.c - key sets: whatever is read can be used, and what is published is read again.
 */
#include "base/json.h"
#include "crypto/jose.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char published[1 << 18], again_room[1 << 18];

static struct sw_slice publish(const struct sw_jwks *set, char *room, size_t cap)
{
    struct sw_out out = sw_out_init(room, cap);

    SW_ASSERT(sw_jwks_put_public(&out, set));
    SW_ASSERT(sw_json_check(sw_out_done(&out)).err == SW_OK);
    return sw_out_done(&out);
}

static void sign_and_verify(const struct sw_jwks *set)
{
    char token[SW_TOKEN_BYTES_MAX], room[64];
    struct sw_out out = sw_out_init(token, sizeof(token));
    const struct sw_jwk *key = sw_jwks_signer(set);
    struct sw_arena arena;
    struct sw_jws jws;
    enum sw_err err;

    if (key == NULL) {
        return;
    }
    SW_ASSERT(sw_jws_sign(key, SW_S("JWT"), SW_S("{}"), &out) == SW_OK);
    sw_arena_init(&arena, room, sizeof(room));
    err = sw_jws_verify(set, sw_out_done(&out), SW_S("jwt"), &arena, &jws);
    if (err == SW_OK) {
        SW_ASSERT(jws.key == key);
    } else { /* key_ops without "verify"; or nameless among others of its kind */
        SW_ASSERT(err == SW_E_TOKEN_KID || err == SW_E_TOKEN_ALG || err == SW_E_TOKEN_SIGNATURE);
    }
}

/* With its own keys as kept ones nothing is added, nothing signs, and the same is published. */
static void merge(const struct sw_jwks *set, struct sw_slice text)
{
    const struct sw_jwk *kept[SW_JWKS_KEYS_MAX];
    struct sw_jwks *merged;

    for (size_t i = 0; i < sw_jwks_count(set); i++) {
        kept[i] = sw_jwks_at(set, i);
    }
    SW_ASSERT(sw_jwks_merge(set, kept, sw_jwks_count(set), &merged) == SW_OK);
    SW_ASSERT(sw_jwks_count(merged) == sw_jwks_count(set));
    SW_ASSERT(sw_jwks_signer(merged) == NULL);
    SW_ASSERT(sw_slice_eq(publish(merged, again_room, sizeof(again_room)), text));
    sw_jwks_unref(merged);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct sw_jwks_rules rules = {SW_JOSE_SECRETS | SW_JOSE_PUBLIC, true};
    struct sw_jwks_report report;
    struct sw_jwks *set, *again;
    size_t public_count = 0;
    struct sw_slice text;

    if (sw_jwks_new(sw_slice_of(data, size), &rules, &set, &report) != SW_OK) {
        return 0;
    }
    SW_ASSERT(sw_jwks_count(set) >= 1);
    SW_ASSERT(sw_jwks_count(set) + report.skipped <= SW_JWKS_KEYS_MAX);
    for (size_t i = 0; i < sw_jwks_count(set); i++) {
        enum sw_jose_alg alg = sw_jwk_alg(sw_jwks_at(set, i));

        public_count += (SW_JOSE_PUBLIC & SW_BIT(alg)) != 0 ? 1 : 0;
    }
    text = publish(set, published, sizeof(published));
    if (public_count > 0) {
        SW_ASSERT(sw_jwks_new(text, &rules, &again, &report) == SW_OK);
        SW_ASSERT(sw_jwks_count(again) == public_count && report.skipped == 0);
        SW_ASSERT(sw_slice_eq(publish(again, again_room, sizeof(again_room)), text));
        sw_jwks_unref(again);
    } else {
        SW_ASSERT(sw_slice_eq(text, SW_S("{\"keys\":[]}")));
    }
    merge(set, text);
    sign_and_verify(set);
    sw_jwks_unref(set);
    return 0;
}
