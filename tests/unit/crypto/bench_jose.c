/* How long tokens take: verification for each algorithm, a token that was seen before, and a sealed
 * state against bare AES-256-GCM with base64. Beside it: openssl speed -seconds 1 ecdsap256 ed25519
 * rsa2048.
 */
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <time.h>

#include "crypto/jose_priv.h"

#define NOW    1760000000ll
#define TURNS  100u
#define RUN_NS (3 * SW_NS_PER_MS)

static char arena_room[1 << 15], token_room[SW_TOKEN_BYTES_MAX];
/* 420 bytes, as an identity provider writes them */
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

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SW_NS_PER_S + (uint64_t)ts.tv_nsec;
}

typedef void run_fn(void *arg);

/* The best of many short runs: others use the machine too. */
static double run_ns(run_fn *fn, void *arg)
{
    double best = 1e18;

    for (size_t turn = 0; turn < TURNS; turn++) {
        uint64_t from = now_ns(), count = 0, took;

        do {
            for (size_t i = 0; i < 16; i++) {
                fn(arg);
            }
            count += 16;
            took = now_ns() - from;
        } while (took < RUN_NS);
        best = SW_MIN(best, (double)took / (double)count);
    }
    return best;
}

struct verify {
    struct sw_token_cache *cache;
    struct sw_jwks *set;
    struct sw_slice token;
};

static void verify_run(void *arg)
{
    struct verify *v = arg;
    struct sw_arena arena;
    struct sw_jws jws;

    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    SW_ASSERT(sw_jws_verify(v->set, v->token, SW_S("at+jwt"), &arena, &jws) == SW_OK);
}

static void bare_run(void *arg)
{
    struct verify *v = arg;
    struct sw_slice head = {NULL, 0}, sig_text = {NULL, 0}, input;
    size_t dot = sw_slice_find(v->token, '.'), sig_len;
    uint8_t sig[JOSE_SIG_BYTES_MAX];

    (void)sw_slice_cut(sw_slice_tail(v->token, dot + 1), '.', &head, &sig_text);
    input = sw_slice_head(v->token, dot + 1 + head.len);
    SW_ASSERT(sw_b64url(sig_text, sig, sizeof(sig), &sig_len) == SW_OK);
    SW_ASSERT(sw_jose__verify(sw_jwks_at(v->set, 0), input, sw_slice_of(sig, sig_len)) == SW_OK);
}

static void check_run(void *arg)
{
    struct verify *v = arg;
    struct sw_claims claims;
    struct sw_arena arena;

    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    SW_ASSERT(sw_token_check(v->cache, v->set, SW_S("at+jwt"), &rules, v->token, NOW, &arena,
                             &claims) == SW_OK);
}

static void sign_run(void *arg)
{
    struct verify *v = arg;
    char room[SW_TOKEN_BYTES_MAX];
    struct sw_out out = sw_out_init(room, sizeof(room));

    SW_ASSERT(sw_jws_sign(sw_jwks_signer(v->set), SW_S("at+jwt"), sw_slice_cstr(payload), &out) ==
              SW_OK);
}

static void report(const char *name, struct verify *v)
{
    double verify = run_ns(verify_run, v), bare = run_ns(bare_run, v), hit;

    v->cache = sw_token_cache_new();
    SW_ASSERT(v->cache != NULL);
    check_run(v);
    hit = run_ns(check_run, v);
    sw_token_cache_free(v->cache);
    printf("%-8s verify %8.0f ns, of it the signature %8.0f ns; seen before, claims too %6.0f ns",
           name, verify, bare, hit);
    if (sw_jwks_signer(v->set) != NULL) {
        printf("; sign %8.0f ns", run_ns(sign_run, v));
    }
    putchar('\n');
}

static void bench_signing(enum sw_jose_alg alg)
{
    struct sw_keyring ring;
    struct sw_out out = sw_out_init(token_room, sizeof(token_room));
    struct verify v = {0};

    sw_keyring_make(NOW, &ring);
    SW_ASSERT(sw_jwks_derive(&ring, alg, &v.set) == SW_OK);
    SW_ASSERT(sw_jws_sign(sw_jwks_signer(v.set), SW_S("at+jwt"), sw_slice_cstr(payload), &out) ==
              SW_OK);
    v.token = sw_out_done(&out);
    report(sw_jose_alg_name(alg), &v);
    sw_jwks_unref(v.set);
}

/* We do not sign with RSA ourselves. */
static void bench_rsa(enum sw_jose_alg alg)
{
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const struct sw_jwks_rules any = {SW_BIT(alg), false};
    char jwk[1024];
    struct sw_out text = sw_out_init(jwk, sizeof(jwk)),
                  out = sw_out_init(token_room, sizeof(token_room));
    uint8_t n[256], sig[256];
    size_t sig_len = sizeof(sig);
    struct verify v = {0};
    EVP_PKEY_CTX *sign;
    BIGNUM *modulus = NULL;

    SW_ASSERT(pkey != NULL && EVP_PKEY_get_bn_param(pkey, "n", &modulus) == 1);
    SW_ASSERT(BN_bn2binpad(modulus, n, sizeof(n)) == sizeof(n));
    sw_out_lit(&text, "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"kid\":\"k\",\"n\":\"");
    sw_b64url_put(&text, n, sizeof(n));
    sw_out_lit(&text, "\"}");
    SW_ASSERT(sw_jwks_new(sw_out_done(&text), &any, &v.set, NULL) == SW_OK);
    text = sw_out_init(jwk, sizeof(jwk));
    sw_out_printf(&text, "{\"alg\":\"%s\",\"kid\":\"k\",\"typ\":\"at+jwt\"}",
                  sw_jose_alg_name(alg));
    sw_b64url_put(&out, text.ptr, text.len);
    sw_out_char(&out, '.');
    sw_b64url_put(&out, payload, strlen(payload));
    SW_ASSERT(EVP_DigestSignInit(ctx, &sign, EVP_sha256(), NULL, pkey) == 1);
    if (alg == SW_JOSE_PS256) {
        SW_ASSERT(EVP_PKEY_CTX_set_rsa_padding(sign, RSA_PKCS1_PSS_PADDING) == 1);
        SW_ASSERT(EVP_PKEY_CTX_set_rsa_pss_saltlen(sign, RSA_PSS_SALTLEN_DIGEST) == 1);
    }
    SW_ASSERT(EVP_DigestSign(ctx, sig, &sig_len, (uint8_t *)out.ptr, out.len) == 1);
    sw_out_char(&out, '.');
    sw_b64url_put(&out, sig, sig_len);
    v.token = sw_out_done(&out);
    report(sw_jose_alg_name(alg), &v);
    sw_jwks_unref(v.set);
    BN_free(modulus);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pkey);
}

/* ---- a sealed state of 1 KiB ------------------------------------------------------------------
 */

static struct sw_keyring seal_ring;
static char plain[1024];
static const struct sw_sealed_place place = {SW_S("shop"), SW_S("__Host-prefs")};

static void sealed_run(void *arg)
{
    struct sw_sealed s = {.issued_unix_s = NOW, .expires_unix_s = NOW + 1000}, got;
    char room[SW_SEALED_BYTES_MAX];
    struct sw_out out = sw_out_init(room, sizeof(room));
    struct sw_arena arena;
    struct sw_slice back;

    (void)arg;
    SW_ASSERT(sw_sealed_put(&out, &seal_ring, &place, &s, sw_slice_of(plain, sizeof(plain))) ==
              SW_OK);
    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    SW_ASSERT(sw_sealed_open(sw_out_done(&out), &seal_ring, &place, NOW, &arena, &got, &back) ==
              SW_OK);
}

static EVP_CIPHER_CTX *cipher;
static EVP_CIPHER *aes;

static void bare_seal_run(void *arg)
{
    static const uint8_t key[32] = {1}, iv[12] = {2}, aad[200] = {3};
    uint8_t text[1100], tag[16], back[1100], coded[1500];
    int len, rest;

    (void)arg;
    SW_ASSERT(EVP_EncryptInit_ex2(cipher, aes, key, iv, NULL) == 1);
    SW_ASSERT(EVP_EncryptUpdate(cipher, NULL, &len, aad, sizeof(aad)) == 1);
    SW_ASSERT(EVP_EncryptUpdate(cipher, text, &len, (uint8_t *)plain, sizeof(plain)) == 1);
    SW_ASSERT(EVP_EncryptFinal_ex(cipher, text + len, &rest) == 1);
    SW_ASSERT(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, 16, tag) == 1);
    len = EVP_EncodeBlock(coded, text, sizeof(plain));
    SW_ASSERT(EVP_DecodeBlock(back, coded, len) > 0);
    SW_ASSERT(EVP_DecryptInit_ex2(cipher, aes, key, iv, NULL) == 1);
    SW_ASSERT(EVP_DecryptUpdate(cipher, NULL, &len, aad, sizeof(aad)) == 1);
    SW_ASSERT(EVP_DecryptUpdate(cipher, text, &len, back, sizeof(plain)) == 1);
    SW_ASSERT(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, 16, tag) == 1);
    SW_ASSERT(EVP_DecryptFinal_ex(cipher, text + len, &rest) == 1);
}

int main(void)
{
    bench_signing(SW_JOSE_HS256);
    bench_rsa(SW_JOSE_RS256);
    bench_rsa(SW_JOSE_PS256);
    bench_signing(SW_JOSE_ES256);
    bench_signing(SW_JOSE_ED25519);
    sw_keyring_make(NOW, &seal_ring);
    cipher = EVP_CIPHER_CTX_new();
    aes = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    SW_ASSERT(cipher != NULL && aes != NULL);
    printf("1 KiB    seal and open %8.0f ns, bare AES-256-GCM and base64 %8.0f ns\n",
           run_ns(sealed_run, NULL), run_ns(bare_seal_run, NULL));
    EVP_CIPHER_CTX_free(cipher);
    EVP_CIPHER_free(aes);
    return 0;
}
