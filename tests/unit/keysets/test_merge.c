/* crypto/: a set with keys that were taken out of it, for every kind of key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "crypto/crypto.h"
#include "crypto/jose.h"

static enum sw_err verify(const struct sw_jwks *by, const struct sw_jwks *with)
{
    char token[SW_TOKEN_BYTES_MAX], room[64];
    struct sw_out out = sw_out_init(token, sizeof(token));
    struct sw_arena arena;
    struct sw_jws jws;

    assert_int_equal(sw_jws_sign(sw_jwks_signer(by), SW_S("JWT"), SW_S("{}"), &out), SW_OK);
    sw_arena_init(&arena, room, sizeof(room));
    return sw_jws_verify(with, sw_out_done(&out), SW_S("JWT"), &arena, &jws);
}

static struct sw_jwks *made(enum sw_jose_alg alg, uint32_t id)
{
    struct sw_keyring ring;
    struct sw_jwks *set;

    sw_keyring_make(1760000000, &ring);
    ring.keys[0].id = id; /* names secrets */
    assert_int_equal(sw_jwks_derive(&ring, alg, &set), SW_OK);
    return set;
}

/* The sets that it was made of are gone, and it goes on. */
static void copies_stand_alone(void **state)
{
    static const enum sw_jose_alg algs[] = {SW_JOSE_HS256, SW_JOSE_ES256, SW_JOSE_ED25519};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(algs); i++) {
        struct sw_jwks *now = made(algs[i], 1), *before = made(algs[i], 2),
                       *other = made(algs[i], 3);
        const struct sw_jwk *kept[] = {sw_jwks_at(before, 0), sw_jwks_at(before, 0),
                                       sw_jwks_at(now, 0)};
        char token[2][SW_TOKEN_BYTES_MAX], room[64];
        struct sw_out out[2];
        struct sw_jwks *merged;
        struct sw_arena arena;
        struct sw_jws jws;

        assert_int_equal(sw_jwks_merge(now, kept, SW_COUNTOF(kept), &merged), SW_OK);
        assert_int_equal(sw_jwks_count(merged), 2); /* each once */
        assert_null(sw_jwks_signer(merged));
        assert_int_equal(verify(other, merged), SW_E_TOKEN_KID);
        for (size_t t = 0; t < 2; t++) {
            out[t] = sw_out_init(token[t], sizeof(token[t]));
            assert_int_equal(sw_jws_sign(sw_jwks_signer(t == 0 ? now : before), SW_S("JWT"),
                                         SW_S("{}"), &out[t]),
                             SW_OK);
        }
        sw_jwks_unref(now);
        sw_jwks_unref(before);
        sw_jwks_unref(other);
        for (size_t t = 0; t < 2; t++) {
            sw_arena_init(&arena, room, sizeof(room));
            assert_int_equal(sw_jws_verify(merged, sw_out_done(&out[t]), SW_S("JWT"), &arena, &jws),
                             SW_OK);
        }
        sw_jwks_unref(merged);
    }
}

/* RFC 7515, A.2: a key of RSA, copied and copied again, still verifies. */
static void rsa(void **state)
{
    static const struct sw_slice key =
        SW_S("{\"kty\":\"RSA\",\"kid\":\"r\",\"alg\":\"RS256\",\"e\":\"AQAB\",\"n\":\""
             "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-"
             "4qPCJrcS2mJPMEzP1Pt0Bm4d4"
             "QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-"
             "bSf63kpaSHSXndS5z5rexMd"
             "bBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_"
             "I5IhlJH7aGhyxXFvUK"
             "-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\"}");
    static const struct sw_slice token = SW_S(
        "eyJhbGciOiJSUzI1NiJ9."
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmN"
        "vbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__"
        "dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHI"
        "m4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_"
        "nZLgrnbyTyWzO75vRK5h"
        "6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-"
        "eOkHWEsqtFZESc6BfI7noOPq"
        "vhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw");
    const struct sw_jwks_rules rules = {.algs = SW_JOSE_PUBLIC};
    struct sw_jwks *set, *ed = made(SW_JOSE_ED25519, 1), *once, *twice;
    const struct sw_jwk *kept;
    char room[256];
    struct sw_arena arena;
    struct sw_jws jws;

    (void)state;
    assert_int_equal(sw_jwks_new(key, &rules, &set, NULL), SW_OK);
    assert_int_equal(sw_jwks_merge(set, NULL, 0, &once), SW_OK);
    sw_jwks_unref(set);
    kept = sw_jwks_at(once, 0);
    assert_int_equal(sw_jwks_merge(ed, &kept, 1, &twice), SW_OK);
    sw_arena_init(&arena, room, sizeof(room));
    assert_int_equal(sw_jws_verify(once, token, SW_S(""), &arena, &jws), SW_OK);
    /* kept now, and this token does not name it */
    sw_arena_init(&arena, room, sizeof(room));
    assert_int_equal(sw_jws_verify(twice, token, SW_S(""), &arena, &jws), SW_E_TOKEN_ALG);
    assert_int_equal(sw_jwks_count(twice), 2);
    sw_jwks_unref(once);
    sw_jwks_unref(twice);
    sw_jwks_unref(ed);
}

static void kinds_are_not_mixed(void **state)
{
    struct sw_jwks *secret = made(SW_JOSE_HS256, 1), *public = made(SW_JOSE_ES256, 1), *merged;
    const struct sw_jwk *kept = sw_jwks_at(public, 0);
    char text[1024];
    struct sw_out out = sw_out_init(text, sizeof(text));

    (void)state;
    assert_int_equal(sw_jwks_merge(secret, &kept, 1, &merged), SW_OK);
    assert_int_equal(sw_jwks_count(merged), 1);
    sw_jwks_unref(merged);
    kept = sw_jwks_at(secret, 0);
    assert_int_equal(sw_jwks_merge(public, &kept, 1, &merged), SW_OK);
    assert_int_equal(sw_jwks_count(merged), 1);
    sw_jwks_unref(merged);
    sw_jwks_unref(secret);
    /* kept keys are not published: they are on their way out */
    secret = made(SW_JOSE_ED25519, 1);
    kept = sw_jwks_at(secret, 0);
    assert_int_equal(sw_jwks_merge(public, &kept, 1, &merged), SW_OK);
    assert_int_equal(sw_jwks_count(merged), 2);
    assert_true(sw_jwks_put_public(&out, merged));
    assert_int_equal(sw_slice_find_slice(sw_out_done(&out), sw_jwk_kid(kept)), out.len);
    sw_jwks_unref(merged);
    sw_jwks_unref(secret);
    sw_jwks_unref(public);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_stand_alone),
        cmocka_unit_test(rsa),
        cmocka_unit_test(kinds_are_not_mixed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
