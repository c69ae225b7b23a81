/* bench/speeds.c - how fast our cryptography is beside bare OpenSSL, in one process and one run.
 *
 *   speeds ROUNDS SLICE_MS      prints one JSON object; times are CPU nanoseconds of this thread
 *
 * Each round gives every measure one slice, one after the other, and every second round goes the
 * other way round; a ratio is the median over the rounds of what two slices of one round took.
 *
 * Bare is what `openssl speed` measures: contexts set up once and used again and again, with the
 * hash over the token in front of those algorithms that take one. A token is the 420 bytes of
 * claims of an identity provider.
 *   bare        OpenSSL alone
 *   signature   sw_jose__verify: the same answer by our code
 *   verify      sw_jws_verify: header parsed, key found, base64url, payload decoded
 *   token       sw_token_check: and the claims looked at; what a request pays for a new token
 *   seen        sw_token_check of a token that is in the worker's cache
 */
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/opensslv.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "crypto/jose_priv.h"

#define NOW         1760000000ll
#define ROUNDS_MAX  101u
#define STEPS_MAX   64u
#define PLAIN_BYTES 1024u
#define AAD_BYTES   186u /* a sealed state's header in base64url is about that long */

static const char payload[] =
    "{\"iss\":\"https://id.example.com/realms/"
    "shop\",\"sub\":\"f3b1c6a2-1f1e-4c57-9a8e-0d5b7c0f4e21\","
    "\"aud\":[\"shop\",\"account\"],\"exp\":1760000600,\"iat\":1760000000,\"nbf\":1760000000,"
    "\"jti\":\"5c1d0f4e-8a7b-4e0e-9f0a-2b6c1d3e4f5a\",\"azp\":\"web\",\"scope\":\"openid profile "
    "cart\","
    "\"tenant\":\"acme\",\"name\":\"A. Visitor\",\"email\":\"visitor@example.com\","
    "\"roles\":[\"customer\",\"newsletter\"],\"sid\":\"d1f7c1f0-5e0f-4f27-8f6b-7d2c7f1f0a11\"}";

static const struct sw_slice audiences[] = {SW_S("shop")};
static const struct sw_slice scopes[] = {SW_S("cart")};
static const struct sw_claims_rules rules = {
    .issuer = SW_S("https://id.example.com/realms/shop"),
    .audiences = audiences,
    .audience_count = 1,
    .scopes = scopes,
    .scope_count = 1,
    .skew_s = 30,
};

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "speeds: %s failed\n", what);
        exit(1);
    }
}

/* ---- slices ---------------------------------------------------------------------------------- */

typedef void step_fn(void *arg);
struct step {
    const char *group, *name;
    step_fn *fn;
    void *arg;
    uint64_t turns; /* of a slice */
    double ns[ROUNDS_MAX];
};
static struct step steps[STEPS_MAX];
static size_t step_count;

static void step_add(const char *group, const char *name, step_fn *fn, void *arg)
{
    SW_ASSERT(step_count < STEPS_MAX);
    steps[step_count++] = (struct step){.group = group, .name = name, .fn = fn, .arg = arg};
}

static uint64_t cpu_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * SW_NS_PER_S + (uint64_t)ts.tv_nsec;
}

static double slice_ns(const struct step *s)
{
    uint64_t from = cpu_ns();

    for (uint64_t i = 0; i < s->turns; i++) {
        s->fn(s->arg);
    }
    return (double)(cpu_ns() - from) / (double)s->turns;
}

/* So many turns that a slice takes about that long. Warms the caches up, too. */
static void calibrate(struct step *s, uint64_t want_ns)
{
    double each;

    s->turns = 1;
    while ((each = slice_ns(s)) * (double)s->turns < (double)want_ns / 4) {
        s->turns *= 2;
    }
    s->turns = SW_MAX((uint64_t)((double)want_ns / each), 1u);
}

/* ---- keys and tokens ------------------------------------------------------------------------- */

struct alg {
    enum sw_jose_alg alg;
    const char *key; /* of OpenSSL; NULL: a secret */
    const char *label;
    /* ours */
    struct sw_jwks *set;
    struct sw_token_cache *cache;
    char token_room[SW_TOKEN_BYTES_MAX];
    struct sw_slice token, input, sig; /* sig: decoded, as it stands in the token */
    uint8_t sig_room[JOSE_SIG_BYTES_MAX];
    /* bare */
    EVP_PKEY *pkey;
    uint8_t secret[64];
    EVP_MD *hash;
    EVP_MD_CTX *hash_ctx, *ed_ctx;
    EVP_PKEY_CTX *ctx;
    EVP_MAC *mac;
    EVP_MAC_CTX *mac_ctx;
    uint8_t bare_sig[JOSE_SIG_BYTES_MAX]; /* as OpenSSL takes it */
    size_t bare_sig_len;
};

static struct alg algs[] = {
    {.alg = SW_JOSE_HS256, .label = "HS256"},
    {.alg = SW_JOSE_HS384, .label = "HS384"},
    {.alg = SW_JOSE_HS512, .label = "HS512"},
    {.alg = SW_JOSE_RS256, .label = "RS256", .key = "RSA"},
    {.alg = SW_JOSE_PS256, .label = "PS256", .key = "RSA"},
    {.alg = SW_JOSE_ES256, .label = "ES256", .key = "EC"},
    {.alg = SW_JOSE_ES384, .label = "ES384", .key = "EC"},
    {.alg = SW_JOSE_ES512, .label = "ES512", .key = "EC"},
    {.alg = SW_JOSE_ED25519, .label = "EdDSA", .key = "ED25519"},
};

static const char *const hash_names[JOSE_HASH_COUNT] = {"SHA256", "SHA384", "SHA512"};

static const struct jose_alg *meaning(const struct alg *a)
{
    return &sw_jose__algs[a->alg];
}

static void put_number(struct sw_out *out, const char *name, EVP_PKEY *pkey, const char *param,
                       size_t bytes)
{
    uint8_t room[512];
    BIGNUM *n = NULL;

    must(bytes <= sizeof(room) && EVP_PKEY_get_bn_param(pkey, param, &n) == 1 &&
             BN_bn2binpad(n, room, (int)bytes) == (int)bytes,
         "reading a public key");
    sw_out_lit(out, ",\"");
    sw_out_cstr(out, name);
    sw_out_lit(out, "\":\"");
    sw_b64url_put(out, room, bytes);
    sw_out_char(out, '"');
    BN_free(n);
}

static void put_bytes(struct sw_out *out, const char *name, const void *bytes, size_t len)
{
    sw_out_lit(out, ",\"");
    sw_out_cstr(out, name);
    sw_out_lit(out, "\":\"");
    sw_b64url_put(out, bytes, len);
    sw_out_char(out, '"');
}

/* A key, and our set of it as an issuer would publish it. */
static void key_make(struct alg *a)
{
    const struct sw_jwks_rules any = {SW_BIT(a->alg), false};
    const struct jose_alg *m = meaning(a);
    char room[2048];
    struct sw_out jwk = sw_out_init(room, sizeof(room));
    uint8_t raw[32];
    size_t raw_len = sizeof(raw);

    sw_out_lit(&jwk, "{\"kid\":\"k\",\"kty\":\"");
    switch (m->kind) {
    case JOSE_OCT:
        sw_random(a->secret, sizeof(a->secret));
        sw_out_lit(&jwk, "oct\"");
        put_bytes(&jwk, "k", a->secret, sizeof(a->secret));
        break;
    case JOSE_RSA:
    case JOSE_RSA_PSS:
        a->pkey = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
        must(a->pkey != NULL, "an RSA key");
        sw_out_lit(&jwk, "RSA\",\"e\":\"AQAB\"");
        put_number(&jwk, "n", a->pkey, OSSL_PKEY_PARAM_RSA_N, 256);
        break;
    case JOSE_EC:
        a->pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", m->group);
        must(a->pkey != NULL, "an EC key");
        sw_out_lit(&jwk, "EC\",\"crv\":\"");
        sw_out_cstr(&jwk, m->curve);
        sw_out_char(&jwk, '"');
        put_number(&jwk, "x", a->pkey, OSSL_PKEY_PARAM_EC_PUB_X, m->coordinate_bytes);
        put_number(&jwk, "y", a->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, m->coordinate_bytes);
        break;
    case JOSE_OKP:
        a->pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
        must(a->pkey != NULL && EVP_PKEY_get_raw_public_key(a->pkey, raw, &raw_len) == 1,
             "an Ed25519 key");
        sw_out_lit(&jwk, "OKP\",\"crv\":\"Ed25519\"");
        put_bytes(&jwk, "x", raw, raw_len);
        break;
    }
    sw_out_char(&jwk, '}');
    must(!jwk.overflowed && sw_jwks_new(sw_out_done(&jwk), &any, &a->set, NULL) == SW_OK,
         "a key set");
}

/* Contexts as one would keep them: nothing is fetched, allocated or parsed later. */
static void bare_make(struct alg *a)
{
    const struct jose_alg *m = meaning(a);
    OSSL_PARAM params[2] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)hash_names[m->hash], 0),
        OSSL_PARAM_construct_end(),
    };
    bool ok = true;

    a->hash = EVP_MD_fetch(NULL, hash_names[m->hash], NULL);
    a->hash_ctx = EVP_MD_CTX_new();
    must(a->hash != NULL && a->hash_ctx != NULL, "a hash");
    switch (m->kind) {
    case JOSE_OCT:
        a->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
        a->mac_ctx = EVP_MAC_CTX_new(a->mac);
        ok = EVP_MAC_init(a->mac_ctx, a->secret, sizeof(a->secret), params) == 1;
        break;
    case JOSE_OKP:
        a->ed_ctx = EVP_MD_CTX_new();
        ok = EVP_DigestVerifyInit_ex(a->ed_ctx, NULL, NULL, NULL, NULL, a->pkey, NULL) == 1;
        break;
    case JOSE_RSA:
    case JOSE_RSA_PSS:
    case JOSE_EC:
        a->ctx = EVP_PKEY_CTX_new_from_pkey(NULL, a->pkey, NULL);
        ok = EVP_PKEY_verify_init(a->ctx) == 1 &&
             EVP_PKEY_CTX_set_signature_md(a->ctx, a->hash) == 1;
        if (m->kind == JOSE_RSA_PSS) {
            ok = ok && EVP_PKEY_CTX_set_rsa_padding(a->ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
                 EVP_PKEY_CTX_set_rsa_pss_saltlen(a->ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
        }
        break;
    }
    must(ok, "setting up OpenSSL");
}

/* Signs with OpenSSL what stands in a->input, into bare_sig. */
static void bare_sign(struct alg *a)
{
    const struct jose_alg *m = meaning(a);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *how = NULL;
    bool ok = ctx != NULL;

    a->bare_sig_len = sizeof(a->bare_sig);
    if (m->kind == JOSE_OCT) {
        ok = EVP_MAC_init(a->mac_ctx, NULL, 0, NULL) == 1 &&
             EVP_MAC_update(a->mac_ctx, (const uint8_t *)a->input.ptr, a->input.len) == 1 &&
             EVP_MAC_final(a->mac_ctx, a->bare_sig, &a->bare_sig_len, sizeof(a->bare_sig)) == 1;
    } else {
        ok =
            ok && EVP_DigestSignInit_ex(ctx, &how, m->kind == JOSE_OKP ? NULL : hash_names[m->hash],
                                        NULL, NULL, a->pkey, NULL) == 1;
        if (m->kind == JOSE_RSA_PSS) {
            ok = ok && EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING) == 1 &&
                 EVP_PKEY_CTX_set_rsa_pss_saltlen(how, RSA_PSS_SALTLEN_DIGEST) == 1;
        }
        ok = ok && EVP_DigestSign(ctx, a->bare_sig, &a->bare_sig_len, (const uint8_t *)a->input.ptr,
                                  a->input.len) == 1;
    }
    must(ok, "signing");
    EVP_MD_CTX_free(ctx);
}

/* The signature as a token has it: of ECDSA r and s (RFC 7518, 3.4). */
static void sig_make(struct alg *a)
{
    const struct jose_alg *m = meaning(a);
    const unsigned char *p = a->bare_sig;
    int half = (int)m->coordinate_bytes;
    ECDSA_SIG *sig;

    if (m->kind != JOSE_EC) {
        memcpy(a->sig_room, a->bare_sig, a->bare_sig_len);
        a->sig = sw_slice_of(a->sig_room, a->bare_sig_len);
        return;
    }
    sig = d2i_ECDSA_SIG(NULL, &p, (long)a->bare_sig_len);
    must(sig != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(sig), a->sig_room, half) == half &&
             BN_bn2binpad(ECDSA_SIG_get0_s(sig), a->sig_room + half, half) == half,
         "reading a signature");
    ECDSA_SIG_free(sig);
    a->sig = sw_slice_of(a->sig_room, 2 * (size_t)half);
}

static void token_make(struct alg *a)
{
    char header[128];
    struct sw_out h = sw_out_init(header, sizeof(header));
    struct sw_out out = sw_out_init(a->token_room, sizeof(a->token_room));

    sw_out_printf(&h, "{\"alg\":\"%s\",\"kid\":\"k\",\"typ\":\"at+jwt\"}", a->label);
    sw_b64url_put(&out, h.ptr, h.len);
    sw_out_char(&out, '.');
    sw_b64url_put(&out, payload, sizeof(payload) - 1);
    a->input = sw_out_done(&out);
    bare_sign(a);
    sig_make(a);
    sw_out_char(&out, '.');
    sw_b64url_put(&out, a->sig.ptr, a->sig.len);
    must(!out.overflowed, "making a token");
    a->token = sw_out_done(&out);
}

static void alg_free(struct alg *a)
{
    sw_jwks_unref(a->set);
    sw_token_cache_free(a->cache);
    EVP_PKEY_CTX_free(a->ctx);
    EVP_MD_CTX_free(a->hash_ctx);
    EVP_MD_CTX_free(a->ed_ctx);
    EVP_MAC_CTX_free(a->mac_ctx);
    EVP_MAC_free(a->mac);
    EVP_MD_free(a->hash);
    EVP_PKEY_free(a->pkey);
}

/* ---- verification ---------------------------------------------------------------------------- */

static char arena_room[1u << 15];

static void bare_mac(void *arg)
{
    struct alg *a = arg;
    uint8_t mac[JOSE_HASH_BYTES_MAX];
    size_t len;

    must(EVP_MAC_init(a->mac_ctx, NULL, 0, NULL) == 1 &&
             EVP_MAC_update(a->mac_ctx, (const uint8_t *)a->input.ptr, a->input.len) == 1 &&
             EVP_MAC_final(a->mac_ctx, mac, &len, sizeof(mac)) == 1 &&
             CRYPTO_memcmp(mac, a->bare_sig, len) == 0,
         "HMAC");
}

static void bare_hashed(void *arg)
{
    struct alg *a = arg;
    uint8_t hash[JOSE_HASH_BYTES_MAX];
    unsigned len;

    must(EVP_DigestInit_ex2(a->hash_ctx, a->hash, NULL) == 1 &&
             EVP_DigestUpdate(a->hash_ctx, a->input.ptr, a->input.len) == 1 &&
             EVP_DigestFinal_ex(a->hash_ctx, hash, &len) == 1 &&
             EVP_PKEY_verify(a->ctx, a->bare_sig, a->bare_sig_len, hash, len) == 1,
         "EVP_PKEY_verify");
}

static void bare_ed25519(void *arg)
{
    struct alg *a = arg;

    must(EVP_DigestVerify(a->ed_ctx, a->bare_sig, a->bare_sig_len, (const uint8_t *)a->input.ptr,
                          a->input.len) == 1,
         "EVP_DigestVerify");
}

static void our_signature(void *arg)
{
    struct alg *a = arg;

    must(sw_jose__verify(sw_jwks_at(a->set, 0), a->input, a->sig) == SW_OK, "sw_jose__verify");
}

static void our_verify(void *arg)
{
    struct alg *a = arg;
    struct sw_arena arena;
    struct sw_jws jws;

    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    must(sw_jws_verify(a->set, a->token, SW_S("at+jwt"), &arena, &jws) == SW_OK, "sw_jws_verify");
}

static void check(struct alg *a, struct sw_token_cache *cache)
{
    struct sw_claims claims;
    struct sw_arena arena;

    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    must(sw_token_check(cache, a->set, SW_S("at+jwt"), &rules, a->token, NOW, &arena, &claims) ==
             SW_OK,
         "sw_token_check");
}

static void our_token(void *arg)
{
    check(arg, NULL);
}

static void our_seen(void *arg)
{
    struct alg *a = arg;

    check(a, a->cache);
}

static step_fn *bare_of(const struct alg *a)
{
    switch (meaning(a)->kind) {
    case JOSE_OCT:
        return bare_mac;
    case JOSE_OKP:
        return bare_ed25519;
    case JOSE_RSA:
    case JOSE_RSA_PSS:
    case JOSE_EC:
        break;
    }
    return bare_hashed;
}

static void alg_add(struct alg *a)
{
    key_make(a);
    bare_make(a);
    token_make(a);
    a->cache = sw_token_cache_new();
    must(a->cache != NULL, "a token cache");
    check(a, a->cache);
    step_add(a->label, "bare", bare_of(a), a);
    step_add(a->label, "signature", our_signature, a);
    step_add(a->label, "verify", our_verify, a);
    step_add(a->label, "token", our_token, a);
    if (a->alg == SW_JOSE_ES256) {
        step_add(a->label, "seen", our_seen, a);
    }
}

/* ---- a sealed state of 1 KiB, to the client and back ----------------------------------------- */

static struct sw_keyring ring;
static char plain[PLAIN_BYTES];
static EVP_CIPHER *aes;
static EVP_CIPHER_CTX *sealer, *opener; /* keyed once */
static const struct sw_sealed_place place = {SW_S("shop"), SW_S("__Host-prefs")};

static void our_seal(void *arg)
{
    struct sw_sealed s = {.issued_unix_s = NOW, .expires_unix_s = NOW + 1000}, got;
    char room[SW_SEALED_BYTES_MAX];
    struct sw_out out = sw_out_init(room, sizeof(room));
    struct sw_arena arena;
    struct sw_slice back;

    (void)arg;
    must(sw_sealed_put(&out, &ring, &place, &s, sw_slice_of(plain, sizeof(plain))) == SW_OK,
         "sw_sealed_put");
    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    must(sw_sealed_open(sw_out_done(&out), &ring, &place, NOW, &arena, &got, &back) == SW_OK &&
             back.len == sizeof(plain),
         "sw_sealed_open");
}

/* Seal, base64, base64 back, open. key: NULL: the contexts have it already. */
static void bare_both_ways(const uint8_t *key)
{
    static const uint8_t nonce[12] = {2}, aad[AAD_BYTES] = {3};
    /* EVP_DecodeBlock knows no rest of a group */
    uint8_t text[SW_SEAL_TAG_BYTES + PLAIN_BYTES], coded[2 * PLAIN_BYTES], back[2 * PLAIN_BYTES];
    uint8_t opened[PLAIN_BYTES];
    int len, rest, coded_len;

    must(EVP_EncryptInit_ex2(sealer, NULL, key, nonce, NULL) == 1 &&
             EVP_EncryptUpdate(sealer, NULL, &len, aad, sizeof(aad)) == 1 &&
             EVP_EncryptUpdate(sealer, text, &len, (uint8_t *)plain, sizeof(plain)) == 1 &&
             EVP_EncryptFinal_ex(sealer, text + len, &rest) == 1 &&
             EVP_CIPHER_CTX_ctrl(sealer, EVP_CTRL_AEAD_GET_TAG, SW_SEAL_TAG_BYTES, text + len) == 1,
         "EVP_Encrypt");
    coded_len = EVP_EncodeBlock(coded, text, sizeof(text));
    must(EVP_DecodeBlock(back, coded, coded_len) >= (int)sizeof(text), "EVP_DecodeBlock");
    must(EVP_DecryptInit_ex2(opener, NULL, key, nonce, NULL) == 1 &&
             EVP_DecryptUpdate(opener, NULL, &len, aad, sizeof(aad)) == 1 &&
             EVP_DecryptUpdate(opener, opened, &len, back, sizeof(plain)) == 1 &&
             EVP_CIPHER_CTX_ctrl(opener, EVP_CTRL_AEAD_SET_TAG, SW_SEAL_TAG_BYTES,
                                 back + sizeof(plain)) == 1 &&
             EVP_DecryptFinal_ex(opener, opened + len, &rest) == 1,
         "EVP_Decrypt");
}

static void bare_keyed(void *arg)
{
    bare_both_ways(arg);
}

static void bare_ready(void *arg)
{
    (void)arg;
    bare_both_ways(NULL);
}

static void seal_add(void)
{
    static uint8_t key[32] = {1};

    sw_keyring_make(NOW, &ring);
    sw_random(plain, sizeof(plain));
    aes = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    sealer = EVP_CIPHER_CTX_new();
    opener = EVP_CIPHER_CTX_new();
    must(aes != NULL && sealer != NULL && opener != NULL &&
             EVP_EncryptInit_ex2(sealer, aes, key, key, NULL) == 1 &&
             EVP_DecryptInit_ex2(opener, aes, key, key, NULL) == 1,
         "AES-256-GCM");
    step_add("seal", "ready", bare_ready, NULL);
    step_add("seal", "bare", bare_keyed, key);
    step_add("seal", "ours", our_seal, NULL);
}

static void seal_free(void)
{
    EVP_CIPHER_CTX_free(sealer);
    EVP_CIPHER_CTX_free(opener);
    EVP_CIPHER_free(aes);
}

/* ---- the run --------------------------------------------------------------------------------- */

static void print(size_t rounds)
{
    printf("{\"openssl\": \"%s\", \"rounds\": %zu, \"token_bytes\": %zu, \"steps\": [",
           OpenSSL_version(OPENSSL_VERSION_STRING), rounds, algs[5].token.len);
    for (size_t i = 0; i < step_count; i++) {
        printf("%s\n {\"group\": \"%s\", \"name\": \"%s\", \"ns\": [", i == 0 ? "" : ",",
               steps[i].group, steps[i].name);
        for (size_t r = 0; r < rounds; r++) {
            printf("%s%.1f", r == 0 ? "" : ", ", steps[i].ns[r]);
        }
        printf("]}");
    }
    printf("]}\n");
}

int main(int argc, char **argv)
{
    uint64_t rounds, slice;

    if (argc != 3) {
        fprintf(stderr, "usage: speeds ROUNDS SLICE_MS\n");
        return 2;
    }
    rounds = SW_MIN(SW_MAX(strtoull(argv[1], NULL, 10), 1ull), (unsigned long long)ROUNDS_MAX);
    slice = SW_MAX(strtoull(argv[2], NULL, 10), 1ull) * SW_NS_PER_MS;
    for (size_t i = 0; i < SW_COUNTOF(algs); i++) {
        alg_add(&algs[i]);
    }
    seal_add();
    for (size_t i = 0; i < step_count; i++) {
        calibrate(&steps[i], slice);
    }
    for (uint64_t r = 0; r < rounds; r++) {
        for (size_t i = 0; i < step_count; i++) {
            struct step *s = &steps[r % 2 == 0 ? i : step_count - 1 - i];

            s->ns[r] = slice_ns(s);
        }
    }
    print(rounds);
    seal_free();
    for (size_t i = 0; i < SW_COUNTOF(algs); i++) {
        alg_free(&algs[i]);
    }
    return 0;
}
