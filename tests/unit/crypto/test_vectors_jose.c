/* crypto/: tokens, keys and signatures against what others collected: wycheproof and the JOSE
 * cookbook.
 *
 * STATEWAY_VECTORS  the folder of vectors (default: <repo>/../shared/vectors; never copied here).
 *                   Without it the tests are skipped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/json.h"
#include "crypto/jose_priv.h"

static char text_room[1 << 20], out_room[1 << 17], key_room[1 << 14];
static char arena_room[1 << 16];

/* A file's text, checked JSON; ptr NULL: there are no vectors. */
static struct sw_slice vectors(const char *name)
{
    const char *folder = getenv("STATEWAY_VECTORS");
    char path[4096];
    FILE *file;
    size_t len;

    assert_true((size_t)snprintf(path, sizeof(path), "%s/%s",
                                 folder != NULL ? folder : SW_TEST_VECTORS, name) < sizeof(path));
    file = fopen(path, "rb");
    if (file == NULL) {
        print_message("no vectors at %s: set STATEWAY_VECTORS\n", path);
        return (struct sw_slice){NULL, 0};
    }
    len = fread(text_room, 1, sizeof(text_room), file);
    (void)fclose(file);
    assert_in_range(len, 2, sizeof(text_room) - 1);
    assert_int_equal(sw_json_check(sw_slice_of(text_room, len)).err, SW_OK);
    return sw_slice_of(text_room, len);
}

static struct sw_slice get(struct sw_slice value, const char *name)
{
    struct sw_slice member = {NULL, 0};

    return sw_json_get(value, sw_slice_cstr(name), &member) ? member : (struct sw_slice){NULL, 0};
}

/* Member by member of a path like "output.compact". */
static struct sw_slice at(struct sw_slice value, const char *path)
{
    struct sw_slice rest = sw_slice_cstr(path), head;

    while (rest.len > 0 && value.ptr != NULL) {
        char name[64];

        (void)sw_slice_cut(rest, '.', &head, &rest);
        assert_in_range(head.len, 1, sizeof(name) - 1);
        memcpy(name, head.ptr, head.len);
        name[head.len] = '\0';
        value = get(value, name);
    }
    return value;
}

/* The characters of a string, in `room`. */
static struct sw_slice characters(struct sw_slice value, char *room, size_t cap)
{
    struct sw_out out = sw_out_init(room, cap);

    assert_true(sw_json_unquote(value, &out));
    return sw_out_done(&out);
}

static struct sw_slice hex(struct sw_slice value, char *room, size_t cap)
{
    struct sw_slice inside = {value.ptr + 1, value.len - 2};

    assert_in_range(inside.len / 2, 0, cap);
    for (size_t i = 0; i < inside.len; i += 2) {
        uint64_t byte;

        assert_true(sw_slice_hex_u64(sw_slice_of(inside.ptr + i, 2), &byte));
        room[i / 2] = (char)byte;
    }
    return sw_slice_of(room, inside.len / 2);
}

static uint64_t number(struct sw_slice value)
{
    uint64_t n = 0;

    assert_true(sw_slice_u64(value, &n));
    return n;
}

static const struct sw_jwks_rules every_alg = {SW_JOSE_SECRETS | SW_JOSE_PUBLIC, false};

static bool accepted(const struct sw_jwks *set, struct sw_slice token)
{
    struct sw_arena arena;
    struct sw_jws jws;

    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    return set != NULL &&
           sw_jws_verify(set, token, (struct sw_slice){NULL, 0}, &arena, &jws) == SW_OK;
}

struct counted {
    size_t valid, refused;
};

/* Every signature of a file, under the group's public keys if it names some. Of `others` we say the
 * opposite of what the file does. */
static struct counted signatures(struct sw_slice file, const uint64_t *others, size_t other_count)
{
    struct sw_json_iter groups = sw_json_iter(get(file, "testGroups")), tests;
    struct sw_slice name, group, test;
    struct counted counted = {0, 0};

    while (sw_json_next(&groups, &name, &group)) {
        struct sw_slice key = get(group, "public");
        struct sw_jwks *set = NULL;

        key = key.ptr != NULL ? key : get(group, "private");
        if (sw_jwks_new(key, &every_alg, &set, NULL) != SW_OK) {
            set = NULL;
        }
        tests = sw_json_iter(get(group, "tests"));
        while (sw_json_next(&tests, &name, &test)) {
            uint64_t id = number(get(test, "tcId"));
            bool valid = sw_slice_eq(get(test, "result"), SW_S("\"valid\"")), yes;

            for (size_t i = 0; i < other_count; i++) {
                valid = valid != (others[i] == id);
            }
            yes = accepted(set, characters(get(test, "jws"), out_room, sizeof(out_room)));
            if (yes != valid) {
                fail_msg("case %u: %s", (unsigned)id, yes ? "accepted" : "refused");
            }
            counted.valid += yes ? 1 : 0;
            counted.refused += yes ? 0 : 1;
        }
        sw_jwks_unref(set);
    }
    return counted;
}

static struct sw_slice jws_of(struct sw_slice file, uint64_t id)
{
    struct sw_json_iter groups = sw_json_iter(get(file, "testGroups")), tests;
    struct sw_slice name, group, test;

    while (sw_json_next(&groups, &name, &group)) {
        tests = sw_json_iter(get(group, "tests"));
        while (sw_json_next(&tests, &name, &test)) {
            if (number(get(test, "tcId")) == id) {
                return get(test, "jws");
            }
        }
    }
    fail_msg("no case %u", (unsigned)id);
    return (struct sw_slice){NULL, 0};
}

static void json_web_signature(void **state)
{
    /* Refused. 346, 350: the key says PS256, the token PS384. 347, 351: the key says ES521, which
     * is no algorithm. 372, 373: a letter that base64url does not have, inside of a signed part.
     * Accepted. 367, 370: their padding was lost when the file was made, and what is left is 357,
     * byte for byte, which is valid. */
    static const uint64_t others[] = {346, 347, 350, 351, 372, 373, 367, 370};
    struct sw_slice file = vectors("wycheproof/testvectors_v1/json_web_signature_test.json");
    struct counted counted;

    (void)state;
    if (file.ptr == NULL) {
        skip();
    }
    counted = signatures(file, others, SW_COUNTOF(others));
    assert_int_equal(counted.valid + counted.refused, 401);
    assert_int_equal(counted.valid, 46 - 6 + 2);
    assert_true(sw_slice_eq(jws_of(file, 357), jws_of(file, 367)));
    assert_true(sw_slice_eq(jws_of(file, 357), jws_of(file, 370)));
}

static void json_web_key(void **state)
{
    struct sw_slice file = vectors("wycheproof/testvectors_v1/json_web_key_test.json");
    struct counted counted;

    (void)state;
    if (file.ptr == NULL) {
        skip();
    }
    counted = signatures(file, NULL, 0);
    assert_int_equal(counted.valid + counted.refused, 26);
    assert_int_equal(counted.valid, 5);
}

/* None of them is what we do (dir with A256GCM): all are refused, whatever the key. */
static void json_web_encryption(void **state)
{
    struct sw_slice file = vectors("wycheproof/testvectors_v1/json_web_encryption_test.json");
    struct sw_json_iter groups, tests;
    struct sw_slice name, group, test;
    size_t count = 0;

    (void)state;
    if (file.ptr == NULL) {
        skip();
    }
    groups = sw_json_iter(get(file, "testGroups"));
    while (sw_json_next(&groups, &name, &group)) {
        struct sw_slice k = at(group, "private.k");
        uint8_t key[32] = {0};
        size_t len;

        if (k.ptr != NULL) {
            assert_int_equal(sw_b64url(sw_slice_of(k.ptr + 1, k.len - 2), key, sizeof(key), &len),
                             SW_OK);
        }
        tests = sw_json_iter(get(group, "tests"));
        while (sw_json_next(&tests, &name, &test)) {
            struct sw_arena arena;
            struct sw_slice plain;

            sw_arena_init(&arena, arena_room, sizeof(arena_room));
            assert_int_equal(sw_jwe_open(key,
                                         characters(get(test, "jwe"), out_room, sizeof(out_room)),
                                         &arena, &plain),
                             SW_E_SEALED);
            assert_int_equal(arena.used, 0);
            count++;
        }
    }
    assert_int_equal(count, 139);
}

/* ---- the primitives below, with the same checks of length and form ----------------------------
 */

static void primitive(const char *path, enum sw_jose_alg alg, size_t least)
{
    const struct sw_jwks_rules rules = {SW_BIT(alg), false};
    struct sw_slice file = vectors(path), name, group, test;
    struct sw_json_iter groups, tests;
    size_t valid_count = 0, tested = 0;

    if (file.ptr == NULL) {
        skip();
    }
    groups = sw_json_iter(get(file, "testGroups"));
    while (sw_json_next(&groups, &name, &group)) {
        struct sw_slice jwk = get(group, "publicKeyJwk");
        struct sw_jwks *set = NULL;

        jwk = jwk.ptr != NULL ? jwk : get(group, "keyJwk");
        if (jwk.ptr == NULL || sw_jwks_new(jwk, &rules, &set, NULL) != SW_OK) {
            set = NULL; /* then no signature of the group may be one that counts as valid below */
        }
        tests = sw_json_iter(get(group, "tests"));
        while (jwk.ptr != NULL && sw_json_next(&tests, &name, &test)) {
            bool valid = sw_slice_eq(get(test, "result"), SW_S("\"valid\"")), yes;
            struct sw_slice message = hex(get(test, "msg"), out_room, sizeof(out_room));
            struct sw_slice sig = hex(get(test, "sig"), key_room, sizeof(key_room));

            yes = set != NULL && sw_jose__verify(sw_jwks_at(set, 0), message, sig) == SW_OK;
            if (yes != valid) {
                fail_msg("%s, case %u: %s", path, (unsigned)number(get(test, "tcId")),
                         yes ? "accepted" : "refused");
            }
            valid_count += valid ? 1 : 0;
            tested++;
        }
        sw_jwks_unref(set);
    }
    assert_in_range(valid_count, least, tested - 1);
}

#define V1 "wycheproof/testvectors_v1/"

static void ecdsa(void **state)
{
    (void)state;
    primitive(V1 "ecdsa_secp256r1_sha256_p1363_test.json", SW_JOSE_ES256, 150);
    primitive(V1 "ecdsa_secp384r1_sha384_p1363_test.json", SW_JOSE_ES384, 150);
    primitive(V1 "ecdsa_secp521r1_sha512_p1363_test.json", SW_JOSE_ES512, 150);
}

static void eddsa(void **state)
{
    (void)state;
    primitive(V1 "ed25519_test.json", SW_JOSE_ED25519, 80);
}

static void rsa(void **state)
{
    (void)state;
    primitive(V1 "rsa_signature_2048_sha256_test.json", SW_JOSE_RS256, 7);
    primitive(V1 "rsa_pss_2048_sha256_mgf1_32_test.json", SW_JOSE_PS256, 60);
}

static void hmac(const char *path, enum sw_jose_alg alg)
{
    const struct sw_jwks_rules rules = {SW_BIT(alg), false};
    size_t bits = 8 * sw_jose__hash_bytes(sw_jose__algs[alg].hash), tested = 0;
    struct sw_slice file = vectors(path), name, group, test;
    struct sw_json_iter groups, tests;

    if (file.ptr == NULL) {
        skip();
    }
    groups = sw_json_iter(get(file, "testGroups"));
    while (sw_json_next(&groups, &name, &group)) {
        tests = sw_json_iter(get(group, "tests"));
        while (sw_json_next(&tests, &name, &test)) {
            bool valid = sw_slice_eq(get(test, "result"), SW_S("\"valid\""));
            bool ours = number(get(group, "keySize")) >= bits;
            struct sw_slice key = hex(get(test, "key"), out_room, sizeof(out_room));
            struct sw_out jwk = sw_out_init(key_room, sizeof(key_room));
            struct sw_jwks *set = NULL;
            enum sw_err err;

            sw_out_lit(&jwk, "{\"kty\":\"oct\",\"k\":\"");
            sw_b64url_put(&jwk, key.ptr, key.len);
            sw_out_lit(&jwk, "\"}");
            err = sw_jwks_new(sw_out_done(&jwk), &rules, &set, NULL);
            assert_int_equal(err, ours ? SW_OK : SW_E_JWK_WEAK);
            if (ours) {
                struct sw_slice message = hex(get(test, "msg"), out_room, sizeof(out_room));
                struct sw_slice tag = hex(get(test, "tag"), key_room, sizeof(key_room));

                /* a cut tag is none (RFC 7518, 3.2) */
                assert_int_equal(sw_jose__verify(sw_jwks_at(set, 0), message, tag) == SW_OK,
                                 valid && number(get(group, "tagSize")) == bits);
                tested++;
                sw_jwks_unref(set);
            }
        }
    }
    assert_in_range(tested, 100, 174);
}

static void macs(void **state)
{
    (void)state;
    hmac(V1 "hmac_sha256_test.json", SW_JOSE_HS256);
    hmac(V1 "hmac_sha384_test.json", SW_JOSE_HS384);
    hmac(V1 "hmac_sha512_test.json", SW_JOSE_HS512);
}

/* ---- cookbook (RFC 7520, 8037) ----------------------------------------------------------------
 */

static const struct {
    const char *path;
    enum sw_jose_alg alg;
    bool again; /* signing gives the same token */
} cookbook_rows[] = {
    {"jose-cookbook/jws/4_1.rsa_v15_signature.json", SW_JOSE_RS256, false},
    {"jose-cookbook/jws/4_2.rsa-pss_signature.json", SW_JOSE_PS384, false},
    {"jose-cookbook/jws/4_3.ecdsa_signature.json", SW_JOSE_ES512, false},
    {"jose-cookbook/jws/4_4.hmac-sha2_integrity_protection.json", SW_JOSE_HS256, true},
    {"jose-cookbook/curve25519/jws.json", SW_JOSE_ED25519, false},
};

static void cookbook_signatures(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(cookbook_rows); i++) {
        const struct sw_jwks_rules rules = {SW_BIT(cookbook_rows[i].alg), true};
        const struct sw_jwks_rules no_rules = {every_alg.algs & ~rules.algs, true};
        struct sw_slice file = vectors(cookbook_rows[i].path), payload, token;
        struct sw_jwks *set, *none;
        struct sw_arena arena;
        struct sw_jws jws;

        if (file.ptr == NULL) {
            skip();
        }
        assert_int_equal(sw_jwks_new(at(file, "input.key"), &rules, &set, NULL), SW_OK);
        payload = characters(at(file, "input.payload"), key_room, sizeof(key_room));
        token = characters(at(file, "output.compact"), out_room, sizeof(out_room));
        sw_arena_init(&arena, arena_room, sizeof(arena_room));
        assert_int_equal(sw_jws_verify(set, token, SW_S(""), &arena, &jws), SW_OK);
        assert_true(sw_slice_eq(jws.payload, payload));
        /* the same key for another algorithm of its type does not take the token */
        if (sw_jwks_new(at(file, "input.key"), &no_rules, &none, NULL) == SW_OK) {
            assert_int_equal(sw_jws_verify(none, token, SW_S(""), &arena, &jws), SW_E_TOKEN_ALG);
            sw_jwks_unref(none);
        }
        if (sw_jwks_signer(set) != NULL) {
            char made[SW_TOKEN_BYTES_MAX];
            struct sw_out out = sw_out_init(made, sizeof(made));

            assert_int_equal(sw_jws_sign(sw_jwks_signer(set), SW_S(""), payload, &out), SW_OK);
            assert_true(accepted(set, sw_out_done(&out)));
            assert_true(!cookbook_rows[i].again || sw_slice_eq(sw_out_done(&out), token));
        }
        sw_jwks_unref(set);
    }
}

/* What has no compact form of its own, or one that must be refused. */
static void cookbook_refused(void **state)
{
    static const char *const rows[][2] = {
        {"jose-cookbook/jws/4_5.signature_with_detached_content.json", "output.json_flat"},
        {"jose-cookbook/jws/4_6.protecting_specific_header_fields.json", "output.json_flat"},
        {"jose-cookbook/jws/4_7.protecting_content_only.json", "output.json_flat"},
        {"jose-cookbook/jws/4_8.multiple_signatures.json", "output.json"},
        {"jose-cookbook/rfc7797/hmac-sha2_b64_false.json", "output.json_flat"},
        {"jose-cookbook/jws/4_5.signature_with_detached_content.json", "output.compact"},
        {"jose-cookbook/rfc7797/hmac-sha2_b64_false.json", "output.compact"},
        {"jose-cookbook/rfc7797/4.2.hmac-sha2_b64_false.json", "output.compact"},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_slice file = vectors(rows[i][0]), token, key;
        struct sw_jwks *set;

        if (file.ptr == NULL) {
            skip();
        }
        token = at(file, rows[i][1]);
        key = at(file, "input.key");
        if (token.ptr == NULL || key.ptr == NULL) {
            continue;
        }
        if (token.ptr[0] == '"') {
            token = characters(token, out_room, sizeof(out_room));
        }
        if (sw_jwks_new(key, &every_alg, &set, NULL) == SW_OK) {
            assert_false(accepted(set, token));
            sw_jwks_unref(set);
        }
    }
}

static void cookbook_keys(void **state)
{
    static const struct {
        const char *path;
        enum sw_err err;
        bool signs;
    } rows[] = {
        {"jose-cookbook/jwk/3_1.ec_public_key.json", SW_OK, false},
        {"jose-cookbook/jwk/3_2.ec_private_key.json", SW_OK, false}, /* P-521: we sign with P-256 */
        {"jose-cookbook/jwk/3_3.rsa_public_key.json", SW_OK, false},
        {"jose-cookbook/jwk/3_4.rsa_private_key.json", SW_OK, false},
        {"jose-cookbook/jwk/3_5.symmetric_key_mac_computation.json", SW_OK, true},
        {"jose-cookbook/jwk/3_6.symmetric_key_encryption.json", SW_E_JWK_USE, false},
    };
    const struct sw_jwks_rules rules = {every_alg.algs, true};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_slice file = vectors(rows[i].path);
        struct sw_jwks *set;

        if (file.ptr == NULL) {
            skip();
        }
        assert_int_equal(sw_jwks_new(file, &rules, &set, NULL), rows[i].err);
        if (rows[i].err == SW_OK) {
            assert_int_equal(sw_jwks_signer(set) != NULL, rows[i].signs);
            sw_jwks_unref(set);
        }
    }
}

/* Every encryption of the cookbook, in compact form: none is ours, none opens. */
static void cookbook_encryption(void **state)
{
    static const char *const rows[] = {
        "5_1.key_encryption_using_rsa_v15_and_aes-hmac-sha2.json",
        "5_2.key_encryption_using_rsa-oaep_with_aes-gcm.json",
        "5_3.key_wrap_using_pbes2-aes-keywrap_with-aes-cbc-hmac-sha2.json",
        "5_4.key_agreement_with_key_wrapping_using_ecdh-es_and_aes-keywrap_with_aes-gcm.json",
        "5_5.key_agreement_using_ecdh-es_with_aes-cbc-hmac-sha2.json",
        "5_6.direct_encryption_using_aes-gcm.json",
        "5_7.key_wrap_using_aes-gcm_keywrap_with_aes-cbc-hmac-sha2.json",
        "5_8.key_wrap_using_aes-keywrap_with_aes-gcm.json",
        "5_9.compressed_content.json",
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        char path[256];
        struct sw_slice file, plain, cek;
        struct sw_arena arena;
        uint8_t key[32] = {0};

        (void)snprintf(path, sizeof(path), "jose-cookbook/jwe/%s", rows[i]);
        file = vectors(path);
        if (file.ptr == NULL) {
            skip();
        }
        cek = at(file, "generated.cek"); /* 5.2: even the right key of 32 bytes */
        if (cek.ptr != NULL && cek.len == 45) {
            assert_int_equal(sw_b64url_exact(sw_slice_of(cek.ptr + 1, 43), key, 32), SW_OK);
        }
        sw_arena_init(&arena, arena_room, sizeof(arena_room));
        assert_int_equal(
            sw_jwe_open(key, characters(at(file, "output.compact"), out_room, sizeof(out_room)),
                        &arena, &plain),
            SW_E_SEALED);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_web_signature),
        cmocka_unit_test(json_web_key),
        cmocka_unit_test(json_web_encryption),
        cmocka_unit_test(ecdsa),
        cmocka_unit_test(eddsa),
        cmocka_unit_test(rsa),
        cmocka_unit_test(macs),
        cmocka_unit_test(cookbook_signatures),
        cmocka_unit_test(cookbook_refused),
        cmocka_unit_test(cookbook_keys),
        cmocka_unit_test(cookbook_encryption),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
