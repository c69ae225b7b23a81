/* crypto/hash.c - SHA-256, HMAC, HKDF.
 *
 * Each thread keeps one digest context of OpenSSL: making one costs more than hashing a pin, and
 * setting it up again with the same digest allocates nothing. HMAC is written out over it (RFC
 * 2104), since OpenSSL 3's own MAC objects allocate for each key.
 */
#include "crypto/crypto.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>

#define BLOCK_BYTES 64

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;         /* fetched once; lives as long as the process */
static pthread_key_t contexts; /* frees a thread's context when it ends */
static _Thread_local EVP_MD_CTX *context;

static void context_free(void *ctx)
{
    EVP_MD_CTX_free(ctx);
    context = NULL;
}

static void setup(void)
{
    int rc = pthread_key_create(&contexts, context_free);

    SW_ASSERT(rc == 0);
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    SW_ASSERT(sha256 != NULL); /* an OpenSSL without it cannot serve us */
}

static EVP_MD_CTX *begin(void)
{
    int ok;

    pthread_once(&once, setup);
    if (context == NULL) {
        context = EVP_MD_CTX_new();
        SW_ASSERT(context != NULL); /* a thread's first hash: at start */
        pthread_setspecific(contexts, context);
    }
    ok = EVP_DigestInit_ex2(context, sha256, NULL);
    SW_ASSERT(ok == 1);
    return context;
}

static void feed(EVP_MD_CTX *ctx, const void *bytes, size_t len)
{
    int ok = len == 0 ? 1 : EVP_DigestUpdate(ctx, bytes, len);

    SW_ASSERT(ok == 1);
}

static void finish(EVP_MD_CTX *ctx, uint8_t out[32])
{
    unsigned len = 0;
    int ok = EVP_DigestFinal_ex(ctx, out, &len);

    SW_ASSERT(ok == 1);
    SW_ASSERT(len == 32);
}

void sw_sha256(struct sw_slice in, uint8_t out[32])
{
    EVP_MD_CTX *ctx = begin();

    feed(ctx, in.ptr, in.len);
    finish(ctx, out);
}

void sw_hmac_sha256(const struct sw_mac_key *key, const struct sw_slice *parts, size_t count,
                    uint8_t out[32])
{
    uint8_t pad[BLOCK_BYTES], inner[32];
    EVP_MD_CTX *ctx = begin();

    memset(pad, 0x36, sizeof(pad));
    for (size_t i = 0; i < sizeof(key->bytes); i++) {
        pad[i] ^= key->bytes[i];
    }
    feed(ctx, pad, sizeof(pad));
    for (size_t i = 0; i < count; i++) {
        feed(ctx, parts[i].ptr, parts[i].len);
    }
    finish(ctx, inner);
    for (size_t i = 0; i < sizeof(pad); i++) {
        pad[i] ^= 0x36 ^ 0x5c;
    }
    ctx = begin();
    feed(ctx, pad, sizeof(pad));
    feed(ctx, inner, sizeof(inner));
    finish(ctx, out);
    OPENSSL_cleanse(pad, sizeof(pad));
}

void sw_hkdf(const uint8_t secret[32], struct sw_slice info, uint8_t out[32])
{
    static const struct sw_mac_key no_salt = {{0}}; /* RFC 5869, 2.2: HashLen zeros */
    struct sw_slice ikm = sw_slice_of(secret, 32);
    struct sw_slice block[2] = {info, SW_S("\x01")}; /* 2.3: T(1), and L is HashLen */
    struct sw_mac_key prk;

    sw_hmac_sha256(&no_salt, &ikm, 1, prk.bytes);
    sw_hmac_sha256(&prk, block, SW_COUNTOF(block), out);
    OPENSSL_cleanse(&prk, sizeof(prk));
}
