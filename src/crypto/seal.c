/* crypto/seal.c - AES-256-GCM (NIST SP 800-38D): bytes that only who has the key can read, and that
 * nobody can change or put elsewhere unseen.
 *
 *   at        len  field
 *    0         12  nonce       random: at most 2^32 seals with one key
 *   12          n  ciphertext
 *   12 + n     16  tag         over nonce, ciphertext and the caller's aad
 *
 * Each thread keeps one cipher context of OpenSSL. Its cipher is set once: naming it again, be it
 * the same one, would free and allocate what is behind the context each time.
 */
#include "crypto/crypto.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>

_Static_assert(SW_SEAL_BYTES == SW_SEAL_NONCE_BYTES + SW_SEAL_TAG_BYTES, "nonce and tag");

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_CIPHER *aes;        /* fetched once; lives as long as the process */
static pthread_key_t contexts; /* frees a thread's context when it ends */
static _Thread_local EVP_CIPHER_CTX *context;

static void context_free(void *ctx)
{
    EVP_CIPHER_CTX_free(ctx);
    context = NULL;
}

static void setup(void)
{
    int rc = pthread_key_create(&contexts, context_free);

    SW_ASSERT(rc == 0);
    aes = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    SW_ASSERT(aes != NULL); /* an OpenSSL without it cannot serve us */
}

static EVP_CIPHER_CTX *begin(const uint8_t key[32], const uint8_t *nonce, struct sw_slice aad,
                             bool seals)
{
    int ok, len = 0;

    pthread_once(&once, setup);
    if (context == NULL) {
        context = EVP_CIPHER_CTX_new();
        SW_ASSERT(context != NULL); /* a thread's first seal */
        pthread_setspecific(contexts, context);
        ok = EVP_CipherInit_ex2(context, aes, NULL, NULL, 1, NULL);
        SW_ASSERT(ok == 1);
    }
    /* 96 bits of nonce are the cipher's default */
    ok = EVP_CipherInit_ex2(context, NULL, key, nonce, seals ? 1 : 0, NULL);
    SW_ASSERT(ok == 1);
    SW_ASSERT(aad.len <= INT_MAX);
    ok = aad.len == 0
             ? 1
             : EVP_CipherUpdate(context, NULL, &len, (const unsigned char *)aad.ptr, (int)aad.len);
    SW_ASSERT(ok == 1);
    return context;
}

static void run(EVP_CIPHER_CTX *ctx, const uint8_t *in, size_t in_len, uint8_t *out)
{
    int len = 0, ok;

    SW_ASSERT(in_len <= INT_MAX);
    ok = in_len == 0 ? 1 : EVP_CipherUpdate(ctx, out, &len, in, (int)in_len);
    SW_ASSERT(ok == 1);
    SW_ASSERT((size_t)len == in_len); /* a stream: nothing is held back */
}

/* A key must not lie in the context until the thread's next seal: another takes its place. A reset
 * would do it too, and allocate again each time. */
static void end(EVP_CIPHER_CTX *ctx)
{
    static const uint8_t nothing[32] = {0};
    int ok = EVP_CipherInit_ex2(ctx, NULL, nothing, nothing, 1, NULL);

    SW_ASSERT(ok == 1);
}

void sw_seal(const uint8_t key[32], struct sw_slice aad, struct sw_slice plain, void *out)
{
    uint8_t *nonce = out, *text = nonce + SW_SEAL_NONCE_BYTES, *tag = text + plain.len;
    EVP_CIPHER_CTX *ctx;
    int len = 0, ok;

    sw_random(nonce, SW_SEAL_NONCE_BYTES);
    ctx = begin(key, nonce, aad, true);
    run(ctx, (const uint8_t *)plain.ptr, plain.len, text);
    ok = EVP_CipherFinal_ex(ctx, tag, &len);
    SW_ASSERT(ok == 1);
    SW_ASSERT(len == 0);
    ok = EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, SW_SEAL_TAG_BYTES, tag);
    SW_ASSERT(ok == 1);
    end(ctx);
}

bool sw_seal_open(const uint8_t key[32], struct sw_slice aad, struct sw_slice sealed, void *out)
{
    const uint8_t *nonce = (const uint8_t *)sealed.ptr;
    uint8_t tag[SW_SEAL_TAG_BYTES], rest[16];
    size_t plain_len;
    EVP_CIPHER_CTX *ctx;
    int len = 0, ok;

    if (sealed.len < SW_SEAL_BYTES) {
        return false;
    }
    plain_len = sealed.len - SW_SEAL_BYTES;
    memcpy(tag, nonce + SW_SEAL_NONCE_BYTES + plain_len, sizeof(tag));
    ctx = begin(key, nonce, aad, false);
    run(ctx, nonce + SW_SEAL_NONCE_BYTES, plain_len, out);
    ok = EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, SW_SEAL_TAG_BYTES, tag);
    SW_ASSERT(ok == 1);
    ok = EVP_CipherFinal_ex(ctx, rest, &len);
    end(ctx);
    if (ok != 1 && plain_len > 0) {
        OPENSSL_cleanse(out, plain_len); /* what is not authentic is nobody's to read */
    }
    return ok == 1;
}
