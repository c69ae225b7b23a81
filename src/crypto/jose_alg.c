/* crypto/jose_alg.c - the algorithms of RFC 7518, 8037 and 9864: hash, MAC, sign, verify.
 *
 * Setting up a context of OpenSSL 3 for a key costs more than hashing a token, so it is done once
 * for a key and copied for each use. Hashes are OpenSSL's functions on a plain struct, as in
 * hash.c. HMAC is written out over them (RFC 2104): what both pads make of the first block is kept
 * with the key, which is a third of the work for a short token.
 */
#include "crypto/jose_priv.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <pthread.h>

const struct jose_alg sw_jose__algs[SW_JOSE_ALG_COUNT] = {
    [SW_JOSE_HS256] = {"HS256", JOSE_OCT, JOSE_SHA256, NULL, NULL, 0},
    [SW_JOSE_HS384] = {"HS384", JOSE_OCT, JOSE_SHA384, NULL, NULL, 0},
    [SW_JOSE_HS512] = {"HS512", JOSE_OCT, JOSE_SHA512, NULL, NULL, 0},
    [SW_JOSE_RS256] = {"RS256", JOSE_RSA, JOSE_SHA256, NULL, NULL, 0},
    [SW_JOSE_RS384] = {"RS384", JOSE_RSA, JOSE_SHA384, NULL, NULL, 0},
    [SW_JOSE_RS512] = {"RS512", JOSE_RSA, JOSE_SHA512, NULL, NULL, 0},
    [SW_JOSE_PS256] = {"PS256", JOSE_RSA_PSS, JOSE_SHA256, NULL, NULL, 0},
    [SW_JOSE_PS384] = {"PS384", JOSE_RSA_PSS, JOSE_SHA384, NULL, NULL, 0},
    [SW_JOSE_PS512] = {"PS512", JOSE_RSA_PSS, JOSE_SHA512, NULL, NULL, 0},
    [SW_JOSE_ES256] = {"ES256", JOSE_EC, JOSE_SHA256, "P-256", "P-256", 32},
    [SW_JOSE_ES384] = {"ES384", JOSE_EC, JOSE_SHA384, "P-384", "P-384", 48},
    [SW_JOSE_ES512] = {"ES512", JOSE_EC, JOSE_SHA512, "P-521", "P-521", 66},
    [SW_JOSE_ED25519] = {"Ed25519", JOSE_OKP, JOSE_SHA512, "Ed25519", NULL, 32},
};

static const char *const hash_names[JOSE_HASH_COUNT] = {"SHA256", "SHA384", "SHA512"};
static const size_t hash_bytes[JOSE_HASH_COUNT] = {32, 48, 64};
static const size_t block_bytes[JOSE_HASH_COUNT] = {64, 128, 128};

const char *sw_jose_alg_name(enum sw_jose_alg alg)
{
    SW_ASSERT((unsigned)alg < SW_JOSE_ALG_COUNT);
    return sw_jose__algs[alg].name;
}

bool sw_jose_alg_find(struct sw_slice name, enum sw_jose_alg *ret_alg)
{
    for (size_t i = 0; i < SW_JOSE_ALG_COUNT; i++) {
        if (sw_slice_eq(name, sw_slice_cstr(sw_jose__algs[i].name))) {
            *ret_alg = (enum sw_jose_alg)i;
            return true;
        }
    }
    if (sw_slice_eq(name, SW_S("EdDSA"))) {
        *ret_alg =
            SW_JOSE_ED25519; /* the only curve we have for it: no key can take it otherwise */
        return true;
    }
    return false;
}

/* ---- hashes ------------------------------------------------------------------------------------
 */

static void state_begin(enum jose_hash hash, struct jose_state *st)
{
    int ok = 0;

    switch (hash) {
    case JOSE_SHA256:
        ok = SHA256_Init(&st->as.sha256);
        break;
    case JOSE_SHA384:
        ok = SHA384_Init(&st->as.sha512);
        break;
    case JOSE_SHA512:
        ok = SHA512_Init(&st->as.sha512);
        break;
    case JOSE_HASH_COUNT:
        SW_UNREACHABLE();
    }
    SW_ASSERT(ok == 1);
}

static void state_feed(enum jose_hash hash, struct jose_state *st, struct sw_slice part)
{
    int ok = part.len == 0         ? 1
             : hash == JOSE_SHA256 ? SHA256_Update(&st->as.sha256, part.ptr, part.len)
                                   : SHA512_Update(&st->as.sha512, part.ptr, part.len);

    SW_ASSERT(ok == 1);
}

static void state_end(enum jose_hash hash, struct jose_state *st, uint8_t out[JOSE_HASH_BYTES_MAX])
{
    int ok = hash == JOSE_SHA256 ? SHA256_Final(out, &st->as.sha256)
                                 : SHA512_Final(out, &st->as.sha512); /* of SHA-384 its 48 */

    SW_ASSERT(ok == 1);
}

size_t sw_jose__hash_bytes(enum jose_hash hash)
{
    return hash_bytes[hash];
}

size_t sw_jose__hash(enum jose_hash hash, const struct sw_slice *parts, size_t count,
                     uint8_t out[JOSE_HASH_BYTES_MAX])
{
    struct jose_state st;

    state_begin(hash, &st);
    for (size_t i = 0; i < count; i++) {
        state_feed(hash, &st, parts[i]);
    }
    state_end(hash, &st, out);
    return hash_bytes[hash];
}

/* ---- HMAC --------------------------------------------------------------------------------------
 */

void sw_jose__ready_secret(struct sw_jwk *key, struct sw_slice secret)
{
    enum jose_hash hash = sw_jose__algs[key->alg].hash;
    uint8_t short_secret[JOSE_HASH_BYTES_MAX], pad[JOSE_BLOCK_BYTES_MAX];
    struct sw_slice block = sw_slice_of(pad, block_bytes[hash]);

    SW_ASSERT(sw_jose__algs[key->alg].kind == JOSE_OCT);
    SW_ASSERT(secret.len >= hash_bytes[hash]);
    if (secret.len > block_bytes[hash]) {
        size_t len = sw_jose__hash(hash, &secret, 1, short_secret);

        secret = sw_slice_of(short_secret, len);
    }
    memset(pad, 0x36, sizeof(pad));
    for (size_t i = 0; i < secret.len; i++) {
        pad[i] ^= (uint8_t)secret.ptr[i];
    }
    state_begin(hash, &key->inner);
    state_feed(hash, &key->inner, block);
    for (size_t i = 0; i < sizeof(pad); i++) {
        pad[i] ^= 0x36 ^ 0x5c;
    }
    state_begin(hash, &key->outer);
    state_feed(hash, &key->outer, block);
    key->sig_bytes = hash_bytes[hash];
    OPENSSL_cleanse(pad, sizeof(pad));
    OPENSSL_cleanse(short_secret, sizeof(short_secret));
}

static void mac(const struct sw_jwk *key, struct sw_slice input, uint8_t out[JOSE_HASH_BYTES_MAX])
{
    enum jose_hash hash = sw_jose__algs[key->alg].hash;
    struct jose_state st = key->inner;

    SW_ASSERT(hash_bytes[hash] == key->sig_bytes);
    state_feed(hash, &st, input);
    state_end(hash, &st, out);
    st = key->outer;
    state_feed(hash, &st, sw_slice_of(out, key->sig_bytes));
    state_end(hash, &st, out);
    OPENSSL_cleanse(&st, sizeof(st)); /* of a forgery it is the right one */
}

/* ---- keys made ready ---------------------------------------------------------------------------
 */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *hashes[JOSE_HASH_COUNT]; /* fetched once; live as long as the process */

static void setup(void)
{
    for (size_t i = 0; i < JOSE_HASH_COUNT; i++) {
        hashes[i] = EVP_MD_fetch(NULL, hash_names[i], NULL);
        SW_ASSERT(hashes[i] != NULL); /* an OpenSSL without it cannot serve us */
    }
}

/* RFC 7518, 3.3 and 3.5: the padding, for PSS with the hash also in MGF1 and a salt of its size. */
static bool parameters(EVP_PKEY_CTX *ctx, const struct jose_alg *alg)
{
    const EVP_MD *hash = hashes[alg->hash];

    if (EVP_PKEY_CTX_set_signature_md(ctx, hash) != 1) {
        return false;
    }
    switch (alg->kind) {
    case JOSE_RSA:
        return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1;
    case JOSE_RSA_PSS:
        return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, hash) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
    case JOSE_EC:
        return true;
    case JOSE_OCT:
    case JOSE_OKP:
        break;
    }
    SW_UNREACHABLE();
}

static bool ready_ed25519(struct sw_jwk *key, EVP_PKEY *pkey)
{
    key->sig_bytes = 64;
    key->ed_verify = EVP_MD_CTX_new();
    if (key->ed_verify == NULL ||
        EVP_DigestVerifyInit_ex(key->ed_verify, NULL, NULL, NULL, NULL, pkey, NULL) != 1) {
        return false;
    }
    if (!key->signs) {
        return true;
    }
    key->ed_sign = EVP_MD_CTX_new();
    return key->ed_sign != NULL &&
           EVP_DigestSignInit_ex(key->ed_sign, NULL, NULL, NULL, NULL, pkey, NULL) == 1;
}

static bool ready_hashed(struct sw_jwk *key, EVP_PKEY *pkey)
{
    const struct jose_alg *alg = &sw_jose__algs[key->alg];

    key->sig_bytes =
        alg->kind == JOSE_EC ? 2 * alg->coordinate_bytes : (size_t)EVP_PKEY_get_size(pkey);
    key->verify = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
    if (key->verify == NULL || EVP_PKEY_verify_init(key->verify) != 1 ||
        !parameters(key->verify, alg)) {
        return false;
    }
    if (!key->signs) {
        return true;
    }
    key->sign = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
    return key->sign != NULL && EVP_PKEY_sign_init(key->sign) == 1 && parameters(key->sign, alg);
}

enum sw_err sw_jose__ready_pkey(struct sw_jwk *key, EVP_PKEY *pkey)
{
    bool ok;

    pthread_once(&once, setup);
    ok = sw_jose__algs[key->alg].kind == JOSE_OKP ? ready_ed25519(key, pkey)
                                                  : ready_hashed(key, pkey);
    if (!ok) {
        ERR_clear_error();
        return SW_E_NO_MEMORY; /* a checked key and a known algorithm: nothing else can fail */
    }
    SW_ASSERT(key->sig_bytes > 0);
    SW_ASSERT(key->sig_bytes <= JOSE_SIG_BYTES_MAX);
    return SW_OK;
}

void sw_jose__key_fini(struct sw_jwk *key)
{
    EVP_PKEY_CTX_free(key->verify);
    EVP_PKEY_CTX_free(key->sign);
    EVP_MD_CTX_free(key->ed_verify);
    EVP_MD_CTX_free(key->ed_sign);
    free(key->text);
    OPENSSL_cleanse(key, sizeof(*key));
}

enum sw_err sw_jose__key_copy(const struct sw_jwk *from, struct sw_jwk *key)
{
    bool ok = true;

    *key = *from;
    key->signs = false;
    key->text = NULL;
    key->verify = key->sign = NULL;
    key->ed_verify = key->ed_sign = NULL;
    if (from->text != NULL) {
        key->text = malloc(from->text_len);
        ok = key->text != NULL;
        if (ok) {
            memcpy(key->text, from->text, from->text_len);
        }
    }
    if (ok && from->verify != NULL) {
        key->verify = EVP_PKEY_CTX_dup(from->verify);
        ok = key->verify != NULL;
    }
    if (ok && from->ed_verify != NULL) {
        key->ed_verify = EVP_MD_CTX_new();
        ok = key->ed_verify != NULL && EVP_MD_CTX_copy_ex(key->ed_verify, from->ed_verify) == 1;
    }
    if (!ok) {
        ERR_clear_error();
        return SW_E_NO_MEMORY;
    }
    return SW_OK;
}

/* ---- ECDSA: r and s, each of the curve's length (RFC 7518, 3.4), but OpenSSL speaks DER --------
 */

#define DER_BYTES_MAX (3 + 2 * (3 + 66)) /* of P-521, the longest */

/* An INTEGER: no needless zeros in front, one if the top bit is set. */
static size_t der_integer(uint8_t *out, const uint8_t *number, size_t len)
{
    size_t zero;

    while (len > 1 && *number == 0) {
        number++;
        len--;
    }
    zero = *number >> 7;
    out[0] = 2;
    out[1] = (uint8_t)(len + zero);
    out[2] = 0;
    memcpy(out + 2 + zero, number, len);
    return 2 + zero + len;
}

static size_t der_of(const uint8_t *raw, size_t half, uint8_t out[DER_BYTES_MAX])
{
    uint8_t body[DER_BYTES_MAX];
    size_t len = der_integer(body, raw, half), at = 0;

    len += der_integer(body + len, raw + half, half);
    out[at++] = 0x30;
    if (len > 127) {
        out[at++] = 0x81;
    }
    out[at++] = (uint8_t)len;
    memcpy(out + at, body, len);
    return at + len;
}

static bool raw_of(const uint8_t *der, size_t der_len, size_t half, uint8_t *out)
{
    const unsigned char *p = der;
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &p, (long)der_len);
    bool ok = sig != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, (int)half) == (int)half &&
              BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + half, (int)half) == (int)half;

    ECDSA_SIG_free(sig);
    return ok;
}

/* ---- verify and sign ---------------------------------------------------------------------------
 */

static enum sw_err verify_ed25519(const struct sw_jwk *key, struct sw_slice input,
                                  const uint8_t *sig)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    enum sw_err err = SW_E_NO_MEMORY;

    if (ctx != NULL && EVP_MD_CTX_copy_ex(ctx, key->ed_verify) == 1) {
        err = EVP_DigestVerify(ctx, sig, key->sig_bytes, (const unsigned char *)input.ptr,
                               input.len) == 1
                  ? SW_OK
                  : SW_E_TOKEN_SIGNATURE;
    }
    EVP_MD_CTX_free(ctx);
    return err;
}

static enum sw_err verify_hashed(const struct sw_jwk *key, struct sw_slice input,
                                 const uint8_t *sig)
{
    const struct jose_alg *alg = &sw_jose__algs[key->alg];
    uint8_t hash[JOSE_HASH_BYTES_MAX], der[DER_BYTES_MAX];
    size_t hash_len = sw_jose__hash(alg->hash, &input, 1, hash), sig_len = key->sig_bytes;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_dup(key->verify);
    enum sw_err err;

    if (ctx == NULL) {
        return SW_E_NO_MEMORY;
    }
    if (alg->kind == JOSE_EC) {
        sig_len = der_of(sig, alg->coordinate_bytes, der);
        sig = der;
    }
    err = EVP_PKEY_verify(ctx, sig, sig_len, hash, hash_len) == 1 ? SW_OK : SW_E_TOKEN_SIGNATURE;
    EVP_PKEY_CTX_free(ctx);
    return err;
}

enum sw_err sw_jose__verify(const struct sw_jwk *key, struct sw_slice input, struct sw_slice sig)
{
    uint8_t want[JOSE_HASH_BYTES_MAX];
    enum sw_err err;

    SW_ASSERT(key->verifies);
    if (sig.len != key->sig_bytes) {
        return SW_E_TOKEN_SIGNATURE;
    }
    switch (sw_jose__algs[key->alg].kind) {
    case JOSE_OCT:
        mac(key, input, want);
        err = CRYPTO_memcmp(want, sig.ptr, sig.len) == 0 ? SW_OK : SW_E_TOKEN_SIGNATURE;
        OPENSSL_cleanse(want, sizeof(want)); /* of a forgery it is the right one */
        return err;
    case JOSE_OKP:
        (void)ERR_set_mark(); /* nothing of this stays in the thread's queue: TLS reads it */
        err = verify_ed25519(key, input, (const uint8_t *)sig.ptr);
        (void)ERR_pop_to_mark();
        return err;
    case JOSE_RSA:
    case JOSE_RSA_PSS:
    case JOSE_EC:
        (void)ERR_set_mark();
        err = verify_hashed(key, input, (const uint8_t *)sig.ptr);
        (void)ERR_pop_to_mark();
        return err;
    }
    SW_UNREACHABLE();
}

static enum sw_err sign_ed25519(const struct sw_jwk *key, struct sw_slice input, uint8_t *sig)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t len = key->sig_bytes;
    bool ok = ctx != NULL && EVP_MD_CTX_copy_ex(ctx, key->ed_sign) == 1 &&
              EVP_DigestSign(ctx, sig, &len, (const unsigned char *)input.ptr, input.len) == 1;

    EVP_MD_CTX_free(ctx);
    SW_ASSERT(!ok || len == key->sig_bytes);
    return ok ? SW_OK : SW_E_NO_MEMORY;
}

static enum sw_err sign_ec(const struct sw_jwk *key, struct sw_slice input, uint8_t *sig)
{
    const struct jose_alg *alg = &sw_jose__algs[key->alg];
    uint8_t hash[JOSE_HASH_BYTES_MAX], der[DER_BYTES_MAX];
    size_t hash_len = sw_jose__hash(alg->hash, &input, 1, hash), der_len = sizeof(der);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_dup(key->sign);
    bool ok = ctx != NULL && EVP_PKEY_sign(ctx, der, &der_len, hash, hash_len) == 1 &&
              raw_of(der, der_len, alg->coordinate_bytes, sig);

    EVP_PKEY_CTX_free(ctx);
    return ok ? SW_OK : SW_E_NO_MEMORY;
}

enum sw_err sw_jose__sign(const struct sw_jwk *key, struct sw_slice input,
                          uint8_t sig[JOSE_SIG_BYTES_MAX])
{
    enum sw_err err = SW_OK;

    SW_ASSERT(key->signs);
    (void)ERR_set_mark();
    switch (sw_jose__algs[key->alg].kind) {
    case JOSE_OCT:
        mac(key, input, sig);
        break;
    case JOSE_OKP:
        err = sign_ed25519(key, input, sig);
        break;
    case JOSE_EC:
        err = sign_ec(key, input, sig);
        break;
    case JOSE_RSA:
    case JOSE_RSA_PSS:
        SW_UNREACHABLE(); /* not one of SW_JOSE_SIGNING */
    }
    (void)ERR_pop_to_mark();
    return err;
}
