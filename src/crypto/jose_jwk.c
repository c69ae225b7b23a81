/* crypto/jose_jwk.c - one key: read, checked, made ready (RFC 7517, 7518 section 6, 8037).
 *
 * The text is read member by member. What a key may be used for and with which algorithm is settled
 * first, then its numbers are read strictly, checked, and given to OpenSSL.
 */
#include "crypto/jose_priv.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/param_build.h>

#include "base/json.h"

#define COORDINATE_BYTES_MAX   66
#define POINT_BYTES_MAX        (1 + 2 * COORDINATE_BYTES_MAX)
#define RSA_BYTES_MAX          (SW_JWK_RSA_BITS_MAX / 8)
#define RSA_EXPONENT_BYTES_MAX 4

_Static_assert(RSA_BYTES_MAX == JOSE_SIG_BYTES_MAX, "a signature is as long as the modulus");

enum member { KTY, ALG, USE, KEY_OPS, KID, CRV, X, Y, D, N, E, K, MEMBER_COUNT };
static const struct sw_slice member_names[MEMBER_COUNT] = {
    [KTY] = SW_S("kty"), [ALG] = SW_S("alg"), [USE] = SW_S("use"), [KEY_OPS] = SW_S("key_ops"),
    [KID] = SW_S("kid"), [CRV] = SW_S("crv"), [X] = SW_S("x"),     [Y] = SW_S("y"),
    [D] = SW_S("d"),     [N] = SW_S("n"),     [E] = SW_S("e"),     [K] = SW_S("k"),
};

/* The insides of strings, and key_ops as it is; ptr NULL: not there. */
struct members {
    struct sw_slice of[MEMBER_COUNT];
};

bool sw_jose__string(struct sw_slice value, struct sw_slice *ret_inside)
{
    if (value.len < 2 || value.ptr[0] != '"') {
        return false;
    }
    *ret_inside = (struct sw_slice){value.ptr + 1, value.len - 2};
    return true;
}

/* Members we do not know are not looked at (RFC 7517, 4), certificates among them. */
static enum sw_err members_read(struct sw_slice text, struct members *m)
{
    struct sw_json_iter it = sw_json_iter(text);
    struct sw_slice name, value;

    if (sw_json_type_of(text) != SW_JSON_OBJECT) {
        return SW_E_JWK_SYNTAX;
    }
    while (sw_json_next(&it, &name, &value)) {
        for (size_t i = 0; i < MEMBER_COUNT; i++) {
            if (!sw_json_name_is(name, member_names[i])) {
                continue;
            }
            if (i == KEY_OPS) {
                m->of[i] = value;
            } else if (!sw_jose__string(value, &m->of[i])) {
                return SW_E_JWK_SYNTAX;
            }
            break;
        }
    }
    return m->of[KTY].ptr == NULL ? SW_E_JWK_SYNTAX : SW_OK;
}

/* ---- what for ----------------------------------------------------------------------------------
 */

/* RFC 7517, 4.3. */
static enum sw_err key_ops_read(struct sw_slice ops, struct sw_jwk *key)
{
    struct sw_json_iter it = sw_json_iter(ops);
    struct sw_slice name, value, op;

    if (sw_json_type_of(ops) != SW_JSON_ARRAY) {
        return SW_E_JWK_SYNTAX;
    }
    key->verifies = false;
    key->signs = false;
    while (sw_json_next(&it, &name, &value)) {
        bool *which;

        if (!sw_jose__string(value, &op)) {
            return SW_E_JWK_SYNTAX;
        }
        which = sw_json_name_is(op, SW_S("verify")) ? &key->verifies
                : sw_json_name_is(op, SW_S("sign")) ? &key->signs
                                                    : NULL;
        if (which != NULL && *which) {
            return SW_E_JWK_SYNTAX; /* "MUST NOT be present" twice */
        }
        if (which != NULL) {
            *which = true;
        }
    }
    return SW_OK;
}

static enum sw_err uses_read(const struct members *m, struct sw_jwk *key)
{
    enum sw_err err;

    key->verifies = true;
    key->signs = true;
    if (m->of[USE].ptr != NULL && !sw_json_name_is(m->of[USE], SW_S("sig"))) {
        return SW_E_JWK_USE;
    }
    if (m->of[KEY_OPS].ptr != NULL) {
        err = key_ops_read(m->of[KEY_OPS], key);
        if (err != SW_OK) {
            return err;
        }
    }
    return key->verifies || key->signs ? SW_OK : SW_E_JWK_USE;
}

/* Are the type and the curve those of the algorithm? */
static bool alg_fits(const struct members *m, const struct jose_alg *alg)
{
    static const struct sw_slice types[] = {
        [JOSE_OCT] = SW_S("oct"), [JOSE_RSA] = SW_S("RSA"), [JOSE_RSA_PSS] = SW_S("RSA"),
        [JOSE_EC] = SW_S("EC"),   [JOSE_OKP] = SW_S("OKP"),
    };

    return sw_json_name_is(m->of[KTY], types[alg->kind]) &&
           (alg->curve == NULL || sw_json_name_is(m->of[CRV], sw_slice_cstr(alg->curve)));
}

/* RFC 8725, 3.1: one key, one algorithm. */
static enum sw_err alg_settle(const struct members *m, uint32_t allowed, struct sw_jwk *key)
{
    bool possible = false;

    for (size_t i = 0; i < SW_JOSE_ALG_COUNT; i++) {
        bool named;

        if (!alg_fits(m, &sw_jose__algs[i])) {
            continue;
        }
        possible = true;
        named = m->of[ALG].ptr == NULL ||
                sw_json_name_is(m->of[ALG], sw_slice_cstr(sw_jose__algs[i].name));
        if (!named && i == SW_JOSE_ED25519 && sw_json_name_is(m->of[ALG], SW_S("EdDSA"))) {
            named = true;
            key->legacy = true;
        }
        if (named && (allowed & SW_BIT(i)) != 0) {
            key->alg = (enum sw_jose_alg)i;
            key->signs = key->signs && (SW_JOSE_SIGNING & SW_BIT(i)) != 0;
            return key->verifies || key->signs ? SW_OK : SW_E_JWK_USE;
        }
    }
    return possible ? SW_E_JWK_ALG : SW_E_JWK_KTY;
}

/* ---- names -------------------------------------------------------------------------------------
 */

/* The text of a public key's members, as RFC 7638, 3.2 orders them, and its hash. */
static enum sw_err name_public(struct sw_jwk *key, const struct jose_alg *alg,
                               struct sw_slice first, struct sw_slice second)
{
    size_t cap = 64 + SW_B64_LEN(first.len) + SW_B64_LEN(second.len);
    struct sw_slice parts[3] = {SW_S("{"), {NULL, 0}, SW_S("}")};
    uint8_t hash[JOSE_HASH_BYTES_MAX];
    struct sw_out out;

    key->text = malloc(cap);
    if (key->text == NULL) {
        return SW_E_NO_MEMORY;
    }
    out = sw_out_init(key->text, cap);
    if (alg->kind == JOSE_RSA || alg->kind == JOSE_RSA_PSS) {
        sw_out_lit(&out, "\"e\":\"");
        sw_b64url_put(&out, first.ptr, first.len);
        sw_out_lit(&out, "\",\"kty\":\"RSA\",\"n\":\"");
    } else {
        sw_out_lit(&out, "\"crv\":\"");
        sw_out_cstr(&out, alg->curve);
        sw_out_lit(&out, "\",\"kty\":\"");
        sw_out_cstr(&out, alg->kind == JOSE_EC ? "EC" : "OKP");
        sw_out_lit(&out, "\",\"x\":\"");
        sw_b64url_put(&out, first.ptr, first.len);
        if (alg->kind == JOSE_EC) {
            sw_out_lit(&out, "\",\"y\":\"");
        }
    }
    sw_b64url_put(&out, second.ptr, second.len);
    sw_out_char(&out, '"');
    SW_ASSERT(!out.overflowed);
    key->text_len = out.len;
    parts[1] = sw_out_done(&out);
    (void)sw_jose__hash(JOSE_SHA256, parts, SW_COUNTOF(parts), hash);
    memcpy(key->thumb, hash, sizeof(key->thumb));
    return SW_OK;
}

static void thumb_secret(struct sw_jwk *key, struct sw_slice secret)
{
    char text[SW_B64_LEN(SW_JWK_OCT_BYTES_MAX)];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_slice parts[3] = {SW_S("{\"k\":\""), {NULL, 0}, SW_S("\",\"kty\":\"oct\"}")};
    uint8_t hash[JOSE_HASH_BYTES_MAX];

    sw_b64url_put(&out, secret.ptr, secret.len);
    SW_ASSERT(!out.overflowed);
    parts[1] = sw_out_done(&out);
    (void)sw_jose__hash(JOSE_SHA256, parts, SW_COUNTOF(parts), hash);
    memcpy(key->thumb, hash, sizeof(key->thumb));
    OPENSSL_cleanse(text, sizeof(text));
}

/* Behind the key's material: a public key without a name is called by its thumbprint. A secret is
 * not: its hash would travel in every token. */
static enum sw_err kid_settle(const struct members *m, struct sw_jwk *key)
{
    struct sw_out out = sw_out_init(key->kid, sizeof(key->kid));

    if (m->of[KID].ptr != NULL) {
        struct sw_slice quoted = {m->of[KID].ptr - 1, m->of[KID].len + 2};

        if (!sw_json_unquote(quoted, &out) || out.len == 0) {
            return SW_E_JWK_SYNTAX;
        }
    } else if (sw_jose__algs[key->alg].kind != JOSE_OCT) {
        sw_b64url_put(&out, key->thumb, sizeof(key->thumb));
    }
    key->kid_len = out.len;
    return SW_OK;
}

/* ---- secrets -----------------------------------------------------------------------------------
 */

static enum sw_err material_secret(struct sw_jwk *key, struct sw_slice secret)
{
    if (secret.len < sw_jose__hash_bytes(sw_jose__algs[key->alg].hash)) {
        return SW_E_JWK_WEAK; /* RFC 7518, 3.2 */
    }
    sw_jose__ready_secret(key, secret);
    thumb_secret(key, secret);
    return SW_OK;
}

static enum sw_err oct_read(const struct members *m, struct sw_jwk *key)
{
    uint8_t secret[SW_JWK_OCT_BYTES_MAX];
    size_t len;
    enum sw_err err =
        m->of[K].ptr == NULL ? SW_E_SYNTAX : sw_b64url(m->of[K], secret, sizeof(secret), &len);

    if (err == SW_OK) {
        err = material_secret(key, sw_slice_of(secret, len));
    } else {
        err = err == SW_E_LIMIT ? SW_E_JWK_WEAK : SW_E_JWK_SYNTAX;
    }
    OPENSSL_cleanse(secret, sizeof(secret));
    return err;
}

/* ---- RSA ---------------------------------------------------------------------------------------
 */

/* Base64urlUInt (RFC 7518, 2): as few bytes as the number needs. */
static enum sw_err uint_read(struct sw_slice text, uint8_t *out, size_t cap, size_t *ret_len)
{
    enum sw_err err = text.ptr == NULL ? SW_E_SYNTAX : sw_b64url(text, out, cap, ret_len);

    if (err == SW_E_LIMIT) {
        return SW_E_JWK_WEAK;
    }
    return err != SW_OK || *ret_len == 0 || out[0] == 0 ? SW_E_JWK_SYNTAX : SW_OK;
}

static unsigned mod_small(const uint8_t *n, size_t len, unsigned prime)
{
    unsigned rest = 0;

    for (size_t i = 0; i < len; i++) {
        rest = (rest << 8 | n[i]) % prime;
    }
    return rest;
}

/* The fingerprint of keys made by a broken library (CVE-2017-15361, "ROCA"): modulo each of these
 * primes they are powers of 65537, as one in 2^27 sound ones is. */
static bool roca(const uint8_t *n, size_t len)
{
    static const uint8_t primes[] = {11, 13, 17,  19,  37,  53,  61,  71, 73,
                                     79, 97, 103, 107, 109, 127, 151, 157};

    for (size_t i = 0; i < SW_COUNTOF(primes); i++) {
        unsigned prime = primes[i], rest = mod_small(n, len, prime), power = 1;
        bool found = false;

        for (unsigned turn = 0; turn < prime; turn++) {
            found = found || power == rest;
            power = power * (65537 % prime) % prime;
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static EVP_PKEY *pkey_of(const char *type, int selection, OSSL_PARAM_BLD *build)
{
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *pkey = NULL;

    if (params != NULL && ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
        EVP_PKEY_fromdata(ctx, &pkey, selection, params) != 1) {
        pkey = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return pkey;
}

static enum sw_err rsa_read(const struct members *m, struct sw_jwk *key)
{
    uint8_t n[RSA_BYTES_MAX], e[RSA_EXPONENT_BYTES_MAX];
    size_t n_len = 0, e_len = 0, bits;
    enum sw_err err = uint_read(m->of[N], n, sizeof(n), &n_len);
    OSSL_PARAM_BLD *build = NULL;
    BIGNUM *n_bn = NULL, *e_bn = NULL;
    EVP_PKEY *pkey = NULL;

    if (err == SW_OK) {
        err = uint_read(m->of[E], e, sizeof(e), &e_len);
    }
    if (err != SW_OK) {
        return err;
    }
    bits = 8 * n_len - (size_t)(__builtin_clz(n[0]) - 24);
    if (bits < SW_JWK_RSA_BITS_MIN || n[n_len - 1] % 2 == 0 || roca(n, n_len) ||
        e[e_len - 1] % 2 == 0 || (e_len == 1 && e[0] == 1)) {
        return SW_E_JWK_WEAK;
    }
    err = name_public(key, &sw_jose__algs[key->alg], sw_slice_of(e, e_len), sw_slice_of(n, n_len));
    if (err != SW_OK) {
        return err;
    }
    build = OSSL_PARAM_BLD_new();
    n_bn = BN_bin2bn(n, (int)n_len, NULL);
    e_bn = BN_bin2bn(e, (int)e_len, NULL);
    if (build != NULL && n_bn != NULL && e_bn != NULL &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n_bn) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e_bn) == 1) {
        pkey = pkey_of("RSA", EVP_PKEY_PUBLIC_KEY, build);
    }
    err = pkey == NULL ? SW_E_JWK_INVALID : sw_jose__ready_pkey(key, pkey);
    EVP_PKEY_free(pkey);
    BN_free(n_bn);
    BN_free(e_bn);
    OSSL_PARAM_BLD_free(build);
    return err;
}

/* ---- curves ------------------------------------------------------------------------------------
 */

/* Below, d is NULL when the key does not sign. */

/* Is the point on the curve, and does the private half, if there is one, belong to it? */
static bool pkey_sound(EVP_PKEY *pkey, bool private_too)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
    bool ok =
        ctx != NULL && (private_too ? EVP_PKEY_check(ctx) == 1 : EVP_PKEY_public_check(ctx) == 1);

    EVP_PKEY_CTX_free(ctx);
    return ok;
}

static enum sw_err material_ec(struct sw_jwk *key, const uint8_t *x, const uint8_t *y,
                               const uint8_t *d)
{
    const struct jose_alg *alg = &sw_jose__algs[key->alg];
    size_t len = alg->coordinate_bytes;
    uint8_t point[POINT_BYTES_MAX];
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *d_bn = d == NULL ? NULL : BN_secure_new();
    EVP_PKEY *pkey = NULL;
    enum sw_err err;

    SW_ASSERT(alg->kind == JOSE_EC);
    SW_ASSERT(key->signs == (d != NULL));
    point[0] = POINT_CONVERSION_UNCOMPRESSED;
    memcpy(point + 1, x, len);
    memcpy(point + 1 + len, y, len);
    if (build != NULL &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, alg->group, 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * len) == 1 &&
        (d == NULL || (d_bn != NULL && BN_bin2bn(d, (int)len, d_bn) != NULL &&
                       OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, d_bn) == 1))) {
        pkey = pkey_of("EC", d == NULL ? EVP_PKEY_PUBLIC_KEY : EVP_PKEY_KEYPAIR, build);
    }
    err = pkey == NULL || !pkey_sound(pkey, d != NULL) ? SW_E_JWK_INVALID
                                                       : sw_jose__ready_pkey(key, pkey);
    EVP_PKEY_free(pkey);
    BN_clear_free(d_bn);
    OSSL_PARAM_BLD_free(build);
    return err != SW_OK ? err : name_public(key, alg, sw_slice_of(x, len), sw_slice_of(y, len));
}

/* Points whose multiples are few: with one of them as a key, anybody can sign (RFC 8032, 8.10
 * leaves it to us). The y of each, little endian, beside 0, 1 and p - 1; its sign bit does not
 * matter. */
static bool small_order(const uint8_t x[32])
{
    static const uint8_t order_8[2][32] = {
        {0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4,
         0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6,
         0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
        {0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b,
         0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39,
         0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
    };
    uint8_t y[32], middle_or = 0, middle_and = 0xff;

    memcpy(y, x, sizeof(y));
    y[31] &= 0x7f;
    for (size_t i = 1; i < 31; i++) {
        middle_or |= y[i];
        middle_and &= y[i];
    }
    if (middle_or == 0 && y[31] == 0 && y[0] <= 1) {
        return true;
    }
    if (middle_and == 0xff && y[31] == 0x7f && y[0] >= 0xec) {
        return true; /* p - 1, and what is not below p: no number of the field */
    }
    return memcmp(y, order_8[0], 32) == 0 || memcmp(y, order_8[1], 32) == 0;
}

/* x: NULL, if it is to follow from d. */
static enum sw_err material_ed25519(struct sw_jwk *key, const uint8_t *x, const uint8_t *d)
{
    uint8_t made[32];
    size_t len = sizeof(made);
    EVP_PKEY *pkey;
    enum sw_err err;

    SW_ASSERT(sw_jose__algs[key->alg].kind == JOSE_OKP);
    SW_ASSERT(key->signs == (d != NULL));
    if (x != NULL && small_order(x)) {
        return SW_E_JWK_WEAK;
    }
    pkey = d != NULL ? EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, d, 32)
                     : EVP_PKEY_new_raw_public_key_ex(NULL, "ED25519", NULL, x, 32);
    if (pkey == NULL || EVP_PKEY_get_raw_public_key(pkey, made, &len) != 1 ||
        (x != NULL && memcmp(made, x, sizeof(made)) != 0)) {
        EVP_PKEY_free(pkey);
        return SW_E_JWK_INVALID;
    }
    err = sw_jose__ready_pkey(key, pkey);
    EVP_PKEY_free(pkey);
    return err != SW_OK ? err
                        : name_public(key, &sw_jose__algs[key->alg], sw_slice_of(made, len),
                                      (struct sw_slice){NULL, 0});
}

/* RFC 7518, 6.2 and RFC 8037, 2: numbers of the curve's full length. */
static enum sw_err curve_read(const struct members *m, struct sw_jwk *key)
{
    const struct jose_alg *alg = &sw_jose__algs[key->alg];
    uint8_t x[COORDINATE_BYTES_MAX], y[COORDINATE_BYTES_MAX], d[COORDINATE_BYTES_MAX];
    size_t len = alg->coordinate_bytes;
    enum sw_err err = SW_E_JWK_SYNTAX;

    key->signs = key->signs && m->of[D].ptr != NULL;
    if (!key->verifies && !key->signs) {
        return SW_E_JWK_USE; /* key_ops: sign, and nothing to do it with */
    }
    if (m->of[X].ptr != NULL && sw_b64url_exact(m->of[X], x, len) == SW_OK &&
        (alg->kind == JOSE_OKP ||
         (m->of[Y].ptr != NULL && sw_b64url_exact(m->of[Y], y, len) == SW_OK)) &&
        (!key->signs || sw_b64url_exact(m->of[D], d, len) == SW_OK)) {
        err = alg->kind == JOSE_OKP ? material_ed25519(key, x, key->signs ? d : NULL)
                                    : material_ec(key, x, y, key->signs ? d : NULL);
    }
    OPENSSL_cleanse(d, sizeof(d));
    return err;
}

/* ---- from nothing but a seed -------------------------------------------------------------------
 */

/* FIPS 186-5, A.2.1: 512 bits modulo n - 1, plus 1: no number is likelier than another by more than
 * 2^-256. */
static bool ec_from_seed(const uint8_t seed[64], uint8_t x[32], uint8_t y[32], uint8_t d[32])
{
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    BN_CTX *ctx = BN_CTX_secure_new();
    BIGNUM *k = BN_secure_new(), *order = BN_new();
    EC_POINT *point = group == NULL ? NULL : EC_POINT_new(group);
    uint8_t bytes[65];
    bool ok = ctx != NULL && k != NULL && order != NULL && point != NULL &&
              EC_GROUP_get_order(group, order, ctx) == 1 && BN_sub_word(order, 1) == 1 &&
              BN_bin2bn(seed, 64, k) != NULL && BN_mod(k, k, order, ctx) == 1 &&
              BN_add_word(k, 1) == 1 && EC_POINT_mul(group, point, k, NULL, NULL, ctx) == 1 &&
              EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, bytes, sizeof(bytes),
                                 ctx) == sizeof(bytes) &&
              BN_bn2binpad(k, d, 32) == 32;

    if (ok) {
        memcpy(x, bytes + 1, 32);
        memcpy(y, bytes + 33, 32);
    }
    EC_POINT_free(point);
    EC_GROUP_free(group);
    BN_clear_free(k);
    BN_free(order);
    BN_CTX_free(ctx);
    return ok;
}

enum sw_err sw_jose__jwk_seed(struct sw_jwk *key, const uint8_t seed[64])
{
    const struct members none = {0};
    uint8_t x[32], y[32], d[32];
    enum sw_err err;

    (void)ERR_set_mark();
    switch (key->alg) {
    case SW_JOSE_HS256:
        err = material_secret(key, sw_slice_of(seed, 32));
        break;
    case SW_JOSE_ED25519:
        err = material_ed25519(key, NULL, seed);
        break;
    case SW_JOSE_ES256:
        err = ec_from_seed(seed, x, y, d) ? material_ec(key, x, y, d) : SW_E_NO_MEMORY;
        OPENSSL_cleanse(d, sizeof(d));
        break;
    default:
        SW_UNREACHABLE(); /* not one of SW_JOSE_SIGNING */
    }
    (void)ERR_pop_to_mark();
    return err != SW_OK ? err : kid_settle(&none, key);
}

/* ---- one key ------------------------------------------------------------------------------------
 */

enum sw_err sw_jose__jwk_read(struct sw_slice text, const struct sw_jwks_rules *rules,
                              struct sw_jwk *key)
{
    struct members m = {0};
    enum sw_err err = members_read(text, &m);

    if (err == SW_OK) {
        err = uses_read(&m, key);
    }
    if (err == SW_OK) {
        key->signs = key->signs && rules->signs;
        err = alg_settle(&m, rules->algs, key);
    }
    if (err != SW_OK) {
        return err;
    }
    (void)ERR_set_mark();
    switch (sw_jose__algs[key->alg].kind) {
    case JOSE_OCT:
        err = oct_read(&m, key);
        break;
    case JOSE_RSA:
    case JOSE_RSA_PSS:
        err = rsa_read(&m, key);
        break;
    case JOSE_EC:
    case JOSE_OKP:
        err = curve_read(&m, key);
        break;
    }
    (void)ERR_pop_to_mark();
    return err != SW_OK ? err : kid_settle(&m, key);
}
