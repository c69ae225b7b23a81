/* crypto/: keys and key sets: what is read, what is refused and why, what is published. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <cmocka.h>

#include "crypto/jose_priv.h"

#define ALL (SW_JOSE_SECRETS | SW_JOSE_PUBLIC)

/* RFC 7638, 3.1; its thumbprint below */
#define N                                                                                          \
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_"      \
    "BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-"              \
    "65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-"   \
    "bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
#define RSA(n, e, more) "{\"kty\":\"RSA\",\"n\":\"" n "\",\"e\":\"" e "\"" more "}"
/* RFC 7517, A.1 and A.2 */
#define EC_X "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"
#define EC_Y "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
#define EC_D "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"
#define EC(crv, x, y, more)                                                                        \
    "{\"kty\":\"EC\",\"crv\":\"" crv "\",\"x\":\"" x "\",\"y\":\"" y "\"" more "}"
/* RFC 8037, A */
#define ED_X              "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#define ED_D              "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
#define OKP(crv, x, more) "{\"kty\":\"OKP\",\"crv\":\"" crv "\",\"x\":\"" x "\"" more "}"
#define OCT(k, more)      "{\"kty\":\"oct\",\"k\":\"" k "\"" more "}"
#define A10               "AAAAAAAAAA"
#define K31               A10 A10 A10 A10 "AA"
#define K32               A10 A10 A10 A10 "AAA"
#define K64               A10 A10 A10 A10 A10 A10 A10 A10 "AAAAAA"

/* ---- single keys -------------------------------------------------------------------------------
 */

static const struct {
    const char *name, *text;
    uint32_t algs;
    enum sw_err err;
    enum sw_jose_alg alg; /* when SW_OK */
} key_rows[] = {
    {"RSA", RSA(N, "AQAB", ",\"alg\":\"PS384\""), ALL, SW_OK, SW_JOSE_PS384},
    {"RSA without alg", RSA(N, "AQAB", ""), ALL, SW_OK, SW_JOSE_RS256},
    {"RSA without alg, one allowed", RSA(N, "AQAB", ""), SW_BIT(SW_JOSE_PS512), SW_OK,
     SW_JOSE_PS512},
    {"RSA without alg, none allowed", RSA(N, "AQAB", ""), SW_BIT(SW_JOSE_ES256), SW_E_JWK_ALG, 0},
    {"alg not allowed", RSA(N, "AQAB", ",\"alg\":\"RS256\""), SW_BIT(SW_JOSE_PS256), SW_E_JWK_ALG,
     0},
    {"alg of another type", RSA(N, "AQAB", ",\"alg\":\"HS256\""), ALL, SW_E_JWK_ALG, 0},
    {"alg is for encryption", RSA(N, "AQAB", ",\"alg\":\"RSA-OAEP\""), ALL, SW_E_JWK_ALG, 0},
    {"alg in small letters", RSA(N, "AQAB", ",\"alg\":\"rs256\""), ALL, SW_E_JWK_ALG, 0},
    {"alg none", RSA(N, "AQAB", ",\"alg\":\"none\""), ALL, SW_E_JWK_ALG, 0},
    {"alg is no string", RSA(N, "AQAB", ",\"alg\":256"), ALL, SW_E_JWK_SYNTAX, 0},
    {"RSA, exponent 3", RSA(N, "Aw", ""), ALL, SW_OK, SW_JOSE_RS256},
    {"RSA, exponent 1", RSA(N, "AQ", ""), ALL, SW_E_JWK_WEAK, 0},
    {"RSA, exponent even", RSA(N, "AQAA", ""), ALL, SW_E_JWK_WEAK, 0},
    {"RSA, exponent 0", RSA(N, "AA", ""), ALL, SW_E_JWK_SYNTAX, 0},
    {"RSA, exponent empty", RSA(N, "", ""), ALL, SW_E_JWK_SYNTAX, 0},
    {"RSA, exponent with a leading zero", RSA(N, "AAEAAQ", ""), ALL, SW_E_JWK_SYNTAX, 0},
    {"RSA, exponent of five bytes", RSA(N, "AQAAAAE", ""), ALL, SW_E_JWK_WEAK, 0},
    {"RSA, 1024 bits", RSA(A10 "_w", "AQAB", ""), ALL, SW_E_JWK_SYNTAX, 0},
    {"RSA, 64 bits", RSA("_wAAAAAAAAE", "AQAB", ""), ALL, SW_E_JWK_WEAK, 0},
    {"RSA, modulus padded", RSA(N "=", "AQAB", ""), ALL, SW_E_JWK_SYNTAX, 0},
    {"RSA, modulus even", RSA(N "AA", "AQAB", ""), ALL, SW_E_JWK_WEAK, 0},
    {"RSA, no modulus", "{\"kty\":\"RSA\",\"e\":\"AQAB\"}", ALL, SW_E_JWK_SYNTAX, 0},
    {"RSA, no exponent", "{\"kty\":\"RSA\",\"n\":\"" N "\"}", ALL, SW_E_JWK_SYNTAX, 0},
    {"EC", EC("P-256", EC_X, EC_Y, ""), ALL, SW_OK, SW_JOSE_ES256},
    {"EC, named", EC("P-256", EC_X, EC_Y, ",\"alg\":\"ES256\""), ALL, SW_OK, SW_JOSE_ES256},
    {"EC, alg of another curve", EC("P-256", EC_X, EC_Y, ",\"alg\":\"ES384\""), ALL, SW_E_JWK_ALG,
     0},
    {"EC, another curve", EC("P-384", EC_X, EC_Y, ""), ALL, SW_E_JWK_SYNTAX, 0},
    {"EC, secp256k1", EC("secp256k1", EC_X, EC_Y, ""), ALL, SW_E_JWK_KTY, 0},
    {"EC, not on the curve", EC("P-256", EC_X, EC_X, ""), ALL, SW_E_JWK_INVALID, 0},
    {"EC, the point 0, 0", EC("P-256", K32, K32, ""), ALL, SW_E_JWK_INVALID, 0},
    {"EC, x above the field", EC("P-256", "__________________________________________8", EC_Y, ""),
     ALL, SW_E_JWK_INVALID, 0},
    {"EC, one byte short", EC("P-256", EC_X, K31, ""), ALL, SW_E_JWK_SYNTAX, 0},
    {"EC, loose last bits", EC("P-256", "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D5", EC_Y, ""),
     ALL, SW_E_JWK_SYNTAX, 0},
    {"EC, without y", "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\"}", ALL, SW_E_JWK_SYNTAX,
     0},
    {"EC, without crv", "{\"kty\":\"EC\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"}", ALL, SW_E_JWK_KTY,
     0},
    {"EC, private", EC("P-256", EC_X, EC_Y, ",\"d\":\"" EC_D "\""), ALL, SW_OK, SW_JOSE_ES256},
    {"EC, d of another point", EC("P-256", EC_X, EC_Y, ",\"d\":\"" EC_X "\""), ALL,
     SW_E_JWK_INVALID, 0},
    {"EC, d is 0", EC("P-256", EC_X, EC_Y, ",\"d\":\"" K32 "\""), ALL, SW_E_JWK_INVALID, 0},
    {"EC, d is the order", /* of the group: no private key */
     EC("P-256", EC_X, EC_Y, ",\"d\":\"_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE\""), ALL,
     SW_E_JWK_INVALID, 0},
    {"EC, d one byte short", EC("P-256", EC_X, EC_Y, ",\"d\":\"" K31 "\""), ALL, SW_E_JWK_SYNTAX,
     0},
    {"Ed25519", OKP("Ed25519", ED_X, ""), ALL, SW_OK, SW_JOSE_ED25519},
    {"Ed25519, named", OKP("Ed25519", ED_X, ",\"alg\":\"Ed25519\""), ALL, SW_OK, SW_JOSE_ED25519},
    {"Ed25519, old name", OKP("Ed25519", ED_X, ",\"alg\":\"EdDSA\""), ALL, SW_OK, SW_JOSE_ED25519},
    {"Ed25519, alg Ed448", OKP("Ed25519", ED_X, ",\"alg\":\"Ed448\""), ALL, SW_E_JWK_ALG, 0},
    {"X25519", OKP("X25519", ED_X, ""), ALL, SW_E_JWK_KTY, 0},
    {"Ed448", OKP("Ed448", ED_X, ",\"alg\":\"EdDSA\""), ALL, SW_E_JWK_KTY, 0},
    {"Ed25519, private", OKP("Ed25519", ED_X, ",\"d\":\"" ED_D "\""), ALL, SW_OK, SW_JOSE_ED25519},
    {"Ed25519, d of another key", OKP("Ed25519", ED_X, ",\"d\":\"" K32 "\""), ALL, SW_E_JWK_INVALID,
     0},
    {"Ed25519, one byte more", OKP("Ed25519", K32 "A", ""), ALL, SW_E_JWK_SYNTAX, 0},
    {"Ed25519, y is 0", OKP("Ed25519", K32, ""), ALL, SW_E_JWK_WEAK, 0},
    {"Ed25519, y is 1", OKP("Ed25519", "AQ" A10 A10 A10 A10 "A", ""), ALL, SW_E_JWK_WEAK, 0},
    {"Ed25519, y is 1, other sign", OKP("Ed25519", "AQ" A10 A10 A10 "AAAAAAAAAIA", ""), ALL,
     SW_E_JWK_WEAK, 0},
    {"Ed25519, y is p - 1", OKP("Ed25519", "7P_______________________________________38", ""), ALL,
     SW_E_JWK_WEAK, 0},
    {"Ed25519, y is p", OKP("Ed25519", "7f_______________________________________38", ""), ALL,
     SW_E_JWK_WEAK, 0},
    {"Ed25519, y above p", OKP("Ed25519", "__________________________________________8", ""), ALL,
     SW_E_JWK_WEAK, 0},
    {"Ed25519, order 8", OKP("Ed25519", "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU", ""), ALL,
     SW_E_JWK_WEAK, 0},
    {"Ed25519, order 8, other sign",
     OKP("Ed25519", "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_IU", ""), ALL, SW_E_JWK_WEAK, 0},
    {"Ed25519, order 8, the other one",
     OKP("Ed25519", "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o", ""), ALL, SW_E_JWK_WEAK, 0},
    {"secret", OCT(K32, ""), ALL, SW_OK, SW_JOSE_HS256},
    {"secret, HS512", OCT(K64, ",\"alg\":\"HS512\""), ALL, SW_OK, SW_JOSE_HS512},
    {"secret, one byte short", OCT(K31, ""), ALL, SW_E_JWK_WEAK, 0},
    {"secret, too short for its alg", OCT(K32, ",\"alg\":\"HS384\""), ALL, SW_E_JWK_WEAK, 0},
    {"secret, empty", OCT("", ""), ALL, SW_E_JWK_WEAK, 0},
    {"secret, not there", "{\"kty\":\"oct\"}", ALL, SW_E_JWK_SYNTAX, 0},
    {"secret, not allowed", OCT(K32, ""), SW_JOSE_PUBLIC, SW_E_JWK_ALG, 0},
    {"secret for encryption", OCT(K32, ",\"alg\":\"A256GCM\""), ALL, SW_E_JWK_ALG, 0},
    {"secret in base64", OCT("+" K31, ""), ALL, SW_E_JWK_SYNTAX, 0},
    {"use sig", OCT(K32, ",\"use\":\"sig\""), ALL, SW_OK, SW_JOSE_HS256},
    {"use enc", OCT(K32, ",\"use\":\"enc\""), ALL, SW_E_JWK_USE, 0},
    {"use something", OCT(K32, ",\"use\":\"\""), ALL, SW_E_JWK_USE, 0},
    {"key_ops verify", OCT(K32, ",\"key_ops\":[\"verify\"]"), ALL, SW_OK, SW_JOSE_HS256},
    {"key_ops with something new", OCT(K32, ",\"key_ops\":[\"x\",\"verify\"]"), ALL, SW_OK,
     SW_JOSE_HS256},
    {"key_ops encrypt", OCT(K32, ",\"key_ops\":[\"encrypt\",\"decrypt\"]"), ALL, SW_E_JWK_USE, 0},
    {"key_ops empty", OCT(K32, ",\"key_ops\":[]"), ALL, SW_E_JWK_USE, 0},
    {"key_ops twice the same", OCT(K32, ",\"key_ops\":[\"verify\",\"verify\"]"), ALL,
     SW_E_JWK_SYNTAX, 0},
    {"key_ops is no list", OCT(K32, ",\"key_ops\":\"verify\""), ALL, SW_E_JWK_SYNTAX, 0},
    {"key_ops of numbers", OCT(K32, ",\"key_ops\":[1]"), ALL, SW_E_JWK_SYNTAX, 0},
    {"key_ops sign without the private half", EC("P-256", EC_X, EC_Y, ",\"key_ops\":[\"sign\"]"),
     ALL, SW_E_JWK_USE, 0},
    {"use and key_ops disagree", OCT(K32, ",\"use\":\"enc\",\"key_ops\":[\"verify\"]"), ALL,
     SW_E_JWK_USE, 0},
    {"kid empty", OCT(K32, ",\"kid\":\"\""), ALL, SW_E_JWK_SYNTAX, 0},
    {"kid is a number", OCT(K32, ",\"kid\":1"), ALL, SW_E_JWK_SYNTAX, 0},
    {"members we do not know", OCT(K32, ",\"x5c\":[\"MII\"],\"ext\":true,\"oth\":{}"), ALL, SW_OK,
     SW_JOSE_HS256},
    {"kty we do not know", "{\"kty\":\"AKP\",\"pub\":\"AA\"}", ALL, SW_E_JWK_KTY, 0},
    {"kty in small letters", "{\"kty\":\"rsa\",\"n\":\"" N "\",\"e\":\"AQAB\"}", ALL, SW_E_JWK_KTY,
     0},
    {"kty is a number", "{\"kty\":1}", ALL, SW_E_JWK_SYNTAX, 0},
    {"no kty", "{\"k\":\"" K32 "\"}", ALL, SW_E_JWKS_SYNTAX, 0},
    {"a name twice", OCT(K32, ",\"k\":\"" K32 "\""), ALL, SW_E_JWKS_SYNTAX, 0},
    {"a name twice, one escaped", OCT(K32, ",\"\\u006b\":\"" K32 "\""), ALL, SW_E_JWKS_SYNTAX, 0},
    {"a list", "[]", ALL, SW_E_JWKS_SYNTAX, 0},
    {"nothing", "", ALL, SW_E_JWKS_SYNTAX, 0},
    {"text behind", OCT(K32, "") "x", ALL, SW_E_JWKS_SYNTAX, 0},
};

static enum sw_err make(const char *text, uint32_t algs, struct sw_jwks **ret_set)
{
    const struct sw_jwks_rules rules = {algs, true};
    size_t len = strlen(text);
    char *exact = malloc(len + 1); /* for the sanitizer to see a byte read behind it */
    enum sw_err err;

    memcpy(exact, text, len);
    err = sw_jwks_new(sw_slice_of(exact, len), &rules, ret_set, NULL);
    free(exact);
    return err;
}

static void single_keys(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(key_rows); i++) {
        struct sw_jwks *set = NULL;
        enum sw_err err = make(key_rows[i].text, key_rows[i].algs, &set);

        if (err != key_rows[i].err ||
            (err == SW_OK && sw_jwk_alg(sw_jwks_at(set, 0)) != key_rows[i].alg)) {
            fail_msg("%s: %s", key_rows[i].name, sw_err_name(err));
        }
        sw_jwks_unref(set);
    }
}

/* The numbers of a modulus's length, which would be long in a table. */
static void rsa_sizes(void **state)
{
    static const struct {
        size_t bits;
        enum sw_err err;
    } rows[] = {
        {2046, SW_E_JWK_WEAK}, {2047, SW_E_JWK_WEAK}, {2048, SW_OK},         {2049, SW_OK},
        {8192, SW_OK},         {8193, SW_E_JWK_WEAK}, {8200, SW_E_JWK_WEAK}, {16384, SW_E_JWK_WEAK},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        for (size_t even = 0; even < 2; even++) {
            uint8_t n[2048];
            size_t len = (rows[i].bits + 7) / 8;
            char text[4096];
            struct sw_out out = sw_out_init(text, sizeof(text) - 1);
            struct sw_jwks *set = NULL;

            memset(n, 0x5b, sizeof(n));
            n[0] = (uint8_t)(1u << (rows[i].bits - 1) % 8);
            n[len - 1] = (uint8_t)(1 - even);
            sw_out_lit(&out, "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"");
            sw_b64url_put(&out, n, len);
            sw_out_lit(&out, "\"}");
            text[out.len] = '\0';
            assert_int_equal(make(text, ALL, &set), even == 1 ? SW_E_JWK_WEAK : rows[i].err);
            sw_jwks_unref(set);
        }
    }
}

/* A modulus that is 1, the 0th power of 65537, modulo each prime of the fingerprint; and one that
 * is no power of it modulo the last prime only. */
static void rsa_fingerprint(void **state)
{
    static const struct {
        uint8_t tail[14]; /* behind 0x80 and zeros: 2048 bits */
        enum sw_err err;
    } rows[] = {
        {{0x00, 0x10, 0x4d, 0xd6, 0x85, 0xc5, 0x43, 0xe3, 0xcc, 0x7d, 0x37, 0x15, 0xa6, 0xcf},
         SW_E_JWK_WEAK},
        {{0x00, 0x10, 0xf1, 0x2f, 0xae, 0xd3, 0x31, 0xc7, 0x1b, 0xdb, 0xeb, 0x37, 0xfd, 0x99},
         SW_OK},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        uint8_t n[256] = {0x80};
        char text[512];
        struct sw_out out = sw_out_init(text, sizeof(text) - 1);
        struct sw_jwks *set = NULL;

        memcpy(n + sizeof(n) - sizeof(rows[i].tail), rows[i].tail, sizeof(rows[i].tail));
        sw_out_lit(&out, "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"");
        sw_b64url_put(&out, n, sizeof(n));
        sw_out_lit(&out, "\"}");
        text[out.len] = '\0';
        assert_int_equal(make(text, ALL, &set), rows[i].err);
        sw_jwks_unref(set);
    }
}

/* ---- names -------------------------------------------------------------------------------------
 */

static void thumbprints(void **state)
{
    static const struct {
        const char *text, *thumb, *kid;
    } rows[] = {
        /* RFC 7638, 3.1 */
        {RSA(N, "AQAB", ",\"alg\":\"RS256\",\"kid\":\"2011-04-29\""),
         "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "2011-04-29"},
        /* RFC 8037, A.3 */
        {OKP("Ed25519", ED_X, ""), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
         "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
        /* RFC 7517, A.1; from here on hashed with another implementation of SHA-256 */
        {EC("P-256", EC_X, EC_Y, ",\"d\":\"" EC_D "\""),
         "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",
         "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"},
        /* a secret stays without a name: its hash would be in every token */
        {OCT(K32, ""), "9nnxVaRYos6pwySYZALWRL64fgG5CMX9No3tAqd5urU", ""},
        {OCT(K32, ",\"kid\":\"\\u00e9\\n\""), "9nnxVaRYos6pwySYZALWRL64fgG5CMX9No3tAqd5urU",
         "\xc3\xa9\n"},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        char thumb[SW_JWK_THUMB_CHARS];
        struct sw_jwks *set;

        assert_int_equal(make(rows[i].text, ALL, &set), SW_OK);
        sw_jwk_thumbprint(sw_jwks_at(set, 0), thumb);
        if (memcmp(thumb, rows[i].thumb, sizeof(thumb)) != 0) {
            fail_msg("%s: %.43s", rows[i].text, thumb);
        }
        assert_true(sw_slice_eq(sw_jwk_kid(sw_jwks_at(set, 0)), sw_slice_cstr(rows[i].kid)));
        sw_jwks_unref(set);
    }
}

static void kid_lengths(void **state)
{
    (void)state;
    for (size_t len = SW_JWK_KID_BYTES_MAX - 1; len <= SW_JWK_KID_BYTES_MAX + 1; len++) {
        char text[1024], kid[SW_JWK_KID_BYTES_MAX + 2];
        struct sw_jwks *set = NULL;

        memset(kid, 'k', sizeof(kid));
        (void)snprintf(text, sizeof(text), "{\"kty\":\"oct\",\"k\":\"" K32 "\",\"kid\":\"%.*s\"}",
                       (int)len, kid);
        assert_int_equal(make(text, ALL, &set),
                         len <= SW_JWK_KID_BYTES_MAX ? SW_OK : SW_E_JWK_SYNTAX);
        sw_jwks_unref(set);
    }
}

/* ---- sets --------------------------------------------------------------------------------------
 */

#define SET(keys) "{\"keys\":[" keys "]}"
#define EC_KID(k) EC("P-256", EC_X, EC_Y, ",\"kid\":\"" k "\"")
#define ED_KID(k) OKP("Ed25519", ED_X, ",\"kid\":\"" k "\"")

static const struct {
    const char *name, *text;
    enum sw_err err;
    size_t count, skipped, skipped_first;
    enum sw_err skipped_by;
} set_rows[] = {
    {"two", SET(EC_KID("a") "," ED_KID("b")), SW_OK, 2, 0, 0, SW_OK},
    {"two without names", SET(EC("P-256", EC_X, EC_Y, "") "," OKP("Ed25519", ED_X, "")), SW_OK, 2,
     0, 0, SW_OK},
    {"two secrets without names", SET(OCT(K32, "") "," OCT(K64, "")), SW_OK, 2, 0, 0, SW_OK},
    {"other members", "{\"x\":1,\"keys\":[" EC_KID("a") "],\"y\":{}}", SW_OK, 1, 0, 0, SW_OK},
    {"an unusable one is skipped", SET(EC_KID("a") "," OKP("X25519", ED_X, "")), SW_OK, 1, 1, 1,
     SW_E_JWK_KTY},
    {"several are", SET("1,{}," EC_KID("a") "," RSA("_wAAAAAAAAE", "AQAB", "")), SW_OK, 1, 3, 0,
     SW_E_JWK_SYNTAX},
    {"none is left", SET("{\"kty\":\"AKP\"}"), SW_E_JWKS_EMPTY, 0, 1, 0, SW_E_JWK_KTY},
    {"empty", SET(""), SW_E_JWKS_EMPTY, 0, 0, 0, SW_OK},
    {"a name twice", SET(EC_KID("a") "," ED_KID("a")), SW_E_JWKS_KIDS, 0, 0, 0, SW_OK},
    {"a name twice, one escaped", SET(EC_KID("a") "," ED_KID("\\u0061")), SW_E_JWKS_KIDS, 0, 0, 0,
     SW_OK},
    {"the same key twice", SET(EC("P-256", EC_X, EC_Y, "") "," EC("P-256", EC_X, EC_Y, "")),
     SW_E_JWKS_KIDS, 0, 0, 0, SW_OK},
    {"a name also of a broken key", SET(EC("P-256", EC_X, EC_X, ",\"kid\":\"a\"") "," ED_KID("a")),
     SW_E_JWKS_KIDS, 0, 1, 0, SW_E_JWK_INVALID},
    {"a name also of a key for encryption",
     SET(EC("P-256", EC_X, EC_Y, ",\"use\":\"enc\",\"kid\":\"a\"") "," ED_KID("a")), SW_OK, 1, 1, 0,
     SW_E_JWK_USE},
    {"a secret beside a public key", SET(EC_KID("a") "," OCT(K32, ",\"kid\":\"b\"")),
     SW_E_JWKS_MIXED, 0, 0, 0, SW_OK},
    {"a secret beside a broken public key", SET("{\"kty\":\"EC\"}," OCT(K32, ",\"kid\":\"b\"")),
     SW_OK, 1, 1, 0, SW_E_JWK_KTY},
    {"keys is no list", "{\"keys\":" EC_KID("a") "}", SW_E_JWKS_SYNTAX, 0, 0, 0, SW_OK},
    {"keys twice", "{\"keys\":[" EC_KID("a") "],\"keys\":[]}", SW_E_JWKS_SYNTAX, 0, 0, 0, SW_OK},
    {"a name of a key twice", SET("{\"kty\":\"oct\",\"k\":\"" K32 "\",\"k\":\"" K64 "\"}"),
     SW_E_JWKS_SYNTAX, 0, 0, 0, SW_OK},
    {"nothing known", "{}", SW_E_JWKS_SYNTAX, 0, 0, 0, SW_OK},
    {"not JSON", "{\"keys\":[", SW_E_JWKS_SYNTAX, 0, 0, 0, SW_OK},
};

static void sets(void **state)
{
    const struct sw_jwks_rules rules = {ALL, false};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(set_rows); i++) {
        struct sw_jwks_report report;
        struct sw_jwks *set = NULL;
        enum sw_err err = sw_jwks_new(sw_slice_cstr(set_rows[i].text), &rules, &set, &report);

        if (err != set_rows[i].err || report.skipped != set_rows[i].skipped ||
            report.skipped_first != set_rows[i].skipped_first ||
            report.skipped_by != set_rows[i].skipped_by ||
            (err == SW_OK && sw_jwks_count(set) != set_rows[i].count)) {
            fail_msg("%s: %s, %zu skipped, the first %zu by %s", set_rows[i].name, sw_err_name(err),
                     report.skipped, report.skipped_first, sw_err_name(report.skipped_by));
        }
        sw_jwks_unref(set);
    }
}

static void set_limits(void **state)
{
    const struct sw_jwks_rules rules = {ALL, false};
    char *text = malloc(SW_JWKS_BYTES_MAX + 2);

    (void)state;
    for (size_t keys = SW_JWKS_KEYS_MAX - 1; keys <= SW_JWKS_KEYS_MAX + 1; keys++) {
        struct sw_out out = sw_out_init(text, SW_JWKS_BYTES_MAX);
        struct sw_jwks *set = NULL;

        sw_out_lit(&out, "{\"keys\":[");
        for (size_t i = 0; i < keys; i++) {
            sw_out_printf(&out, "%s{\"kty\":\"oct\",\"k\":\"" K32 "\",\"kid\":\"%zu\"}",
                          i == 0 ? "" : ",", i);
        }
        sw_out_lit(&out, "]}");
        assert_int_equal(sw_jwks_new(sw_out_done(&out), &rules, &set, NULL),
                         keys <= SW_JWKS_KEYS_MAX ? SW_OK : SW_E_JWKS_LARGE);
        sw_jwks_unref(set);
    }
    for (size_t len = SW_JWKS_BYTES_MAX; len <= SW_JWKS_BYTES_MAX + 1; len++) {
        struct sw_jwks *set = NULL;

        memset(text, ' ', len);
        memcpy(text, OCT(K32, ""), strlen(OCT(K32, "")));
        assert_int_equal(sw_jwks_new(sw_slice_of(text, len), &rules, &set, NULL),
                         len <= SW_JWKS_BYTES_MAX ? SW_OK : SW_E_JWKS_LARGE);
        sw_jwks_unref(set);
    }
    free(text);
}

/* ---- signing keys ------------------------------------------------------------------------------
 */

static void private_halves(void **state)
{
    static const struct {
        const char *text;
        bool signs;
    } rows[] = {
        {EC("P-256", EC_X, EC_Y, ",\"d\":\"" EC_D "\""), true},
        {EC("P-256", EC_X, EC_Y, ",\"d\":\"" EC_D "\",\"key_ops\":[\"sign\",\"verify\"]"), true},
        {EC("P-256", EC_X, EC_Y, ",\"d\":\"" EC_D "\",\"key_ops\":[\"verify\"]"), false},
        {EC("P-256", EC_X, EC_Y, ""), false},
        {OKP("Ed25519", ED_X, ",\"d\":\"" ED_D "\""), true},
        {OKP("Ed25519", ED_X, ""), false},
        {OCT(K32, ""), true},
        {OCT(K32, ",\"key_ops\":[\"verify\"]"), false},
        {OCT(K64, ",\"alg\":\"HS512\""), false}, /* not one of SW_JOSE_SIGNING */
        {RSA(N, "AQAB", ",\"d\":\"AQAB\""), false},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        const struct sw_jwks_rules never = {ALL, false};
        struct sw_jwks *set;

        assert_int_equal(make(rows[i].text, ALL, &set), SW_OK);
        assert_int_equal(sw_jwks_signer(set) != NULL, rows[i].signs);
        sw_jwks_unref(set);
        /* where private members are not read, a wrong one is no matter either */
        assert_int_equal(sw_jwks_new(sw_slice_cstr(rows[i].text), &never, &set, NULL), SW_OK);
        assert_null(sw_jwks_signer(set));
        sw_jwks_unref(set);
    }
}

static struct sw_slice published(const struct sw_jwks *set, char *room, size_t cap)
{
    struct sw_out out = sw_out_init(room, cap);

    assert_true(sw_jwks_put_public(&out, set));
    return sw_out_done(&out);
}

static void public_text(void **state)
{
    struct sw_jwks *set, *again;
    struct sw_slice text;
    char room[4096], twice[4096];

    (void)state;
    assert_int_equal(
        make(SET(RSA(N, "AQAB", ",\"alg\":\"PS256\",\"kid\":\"\\\"r\\u00e9\"") "," EC(
                 "P-256", EC_X, EC_Y,
                 ",\"d\":\"" EC_D
                 "\",\"kid\":\"e\"") "," OKP("Ed25519", ED_X, ",\"alg\":\"EdDSA\",\"kid\":\"o\"")),
             ALL, &set),
        SW_OK);
    text = published(set, room, sizeof(room));
    assert_true(
        sw_slice_eq(text, SW_S("{\"keys\":[{\"e\":\"AQAB\",\"kty\":\"RSA\",\"n\":\"" N
                               "\",\"kid\":\"\\\"r\\u00e9\",\"alg\":\"PS256\",\"use\":\"sig\"},"
                               "{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y
                               "\",\"kid\":\"e\",\"alg\":\"ES256\",\"use\":\"sig\"},"
                               "{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"" ED_X
                               "\",\"kid\":\"o\",\"alg\":\"EdDSA\",\"use\":\"sig\"}]}")));
    for (size_t cap = 0; cap < text.len; cap++) {
        struct sw_out out = sw_out_init(twice, cap);

        assert_false(sw_jwks_put_public(&out, set));
    }
    /* what is published is read again as the same keys */
    memcpy(twice, text.ptr, text.len);
    twice[text.len] = '\0';
    assert_int_equal(make(twice, ALL, &again), SW_OK);
    assert_int_equal(sw_jwks_count(again), 3);
    assert_null(sw_jwks_signer(again));
    assert_true(sw_slice_eq(published(again, twice, sizeof(twice)), text));
    sw_jwks_unref(again);
    sw_jwks_unref(set);
    /* a secret never leaves */
    assert_int_equal(make(OCT(K32, ",\"kid\":\"s\""), ALL, &set), SW_OK);
    assert_true(sw_slice_eq(published(set, room, sizeof(room)), SW_S("{\"keys\":[]}")));
    sw_jwks_unref(set);
}

static void derived(void **state)
{
    static const enum sw_jose_alg algs[] = {SW_JOSE_HS256, SW_JOSE_ES256, SW_JOSE_ED25519};
    struct sw_keyring ring = {.count = 3, .active = 1};

    (void)state;
    for (size_t i = 0; i < ring.count; i++) {
        ring.keys[i].id = (uint32_t)(10 + i);
        ring.keys[i].state = i == 1 ? SW_KEY_ACTIVE : SW_KEY_RETIRED;
        memset(ring.keys[i].secret, (int)(i + 1), 32);
    }
    for (size_t i = 0; i < SW_COUNTOF(algs); i++) {
        struct sw_jwks *set, *again, *apart;
        char room[4096], twice[4096];
        struct sw_slice text;

        assert_int_equal(sw_jwks_derive(&ring, algs[i], &set), SW_OK);
        assert_int_equal(sw_jwks_derive(&ring, algs[i], &again), SW_OK);
        assert_int_equal(sw_jwks_count(set), 3);
        assert_ptr_equal(sw_jwks_signer(set), sw_jwks_at(set, 1));
        text = published(set, room, sizeof(room));
        assert_true(sw_slice_eq(text, published(again, twice, sizeof(twice))));
        for (size_t k = 0; k < 3; k++) {
            const struct sw_jwk *a = sw_jwks_at(set, k), *b = sw_jwks_at(again, k);

            assert_memory_equal(a->thumb, b->thumb, 32);
            assert_memory_not_equal(a->thumb, sw_jwks_at(set, (k + 1) % 3)->thumb, 32);
            assert_int_equal(sw_jwk_alg(a), algs[i]);
        }
        if (algs[i] == SW_JOSE_HS256) {
            assert_true(sw_slice_eq(sw_jwk_kid(sw_jwks_at(set, 0)), SW_S("ring-10")));
        } else {
            memcpy(twice, text.ptr, text.len);
            twice[text.len] = '\0';
            assert_int_equal(make(twice, SW_JOSE_PUBLIC, &apart), SW_OK); /* sound keys */
            assert_int_equal(sw_jwks_count(apart), 3);
            sw_jwks_unref(apart);
        }
        assert_int_not_equal(set->generation, again->generation);
        sw_jwks_unref(again);
        sw_jwks_unref(set);
    }
}

/* ---- sharing -----------------------------------------------------------------------------------
 */

static void *hold(void *arg)
{
    struct sw_jwks *set = arg;

    for (size_t i = 0; i < 10000; i++) {
        sw_jwks_unref(sw_jwks_ref(set));
    }
    sw_jwks_unref(set);
    return NULL;
}

static void references(void **state)
{
    pthread_t threads[4];
    struct sw_jwks *set;

    (void)state;
    sw_jwks_unref(NULL);
    assert_int_equal(make(OCT(K32, ""), ALL, &set), SW_OK);
    for (size_t i = 0; i < SW_COUNTOF(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hold, sw_jwks_ref(set)), 0);
    }
    sw_jwks_unref(set);
    for (size_t i = 0; i < SW_COUNTOF(threads); i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_keys),     cmocka_unit_test(rsa_sizes),
        cmocka_unit_test(rsa_fingerprint), cmocka_unit_test(thumbprints),
        cmocka_unit_test(kid_lengths),     cmocka_unit_test(sets),
        cmocka_unit_test(set_limits),      cmocka_unit_test(public_text),
        cmocka_unit_test(private_halves),  cmocka_unit_test(derived),
        cmocka_unit_test(references),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
