/* crypto/hash.c - SHA-256, HMAC, HKDF.
 *
 * The hash is OpenSSL's, by its functions on a plain struct: with digest contexts each hash
 * allocates and frees once, and finding the implementation costs more than hashing a pin. OpenSSL 3
 * calls these functions deprecated; the code behind them is the same. HMAC is written out over it
 * (RFC 2104). Each thread remembers what a key's pads make of the first block for the last keys
 * it used, which is half the work of a short MAC.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "crypto/crypto.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#define BLOCK_BYTES SHA256_CBLOCK
#define PADS_MAX    4 /* keys a thread remembers; a power of two */

struct pads { /* a key's beginning of both hashes */
    struct sw_mac_key key;
    SHA256_CTX inner, outer;
    bool set;
};

static _Thread_local struct pads remembered[PADS_MAX];

static void begin(SHA256_CTX *ctx)
{
    int ok = SHA256_Init(ctx);

    SW_ASSERT(ok == 1);
}

static void feed(SHA256_CTX *ctx, const void *bytes, size_t len)
{
    int ok = len == 0 ? 1 : SHA256_Update(ctx, bytes, len);

    SW_ASSERT(ok == 1);
}

static void finish(SHA256_CTX *ctx, uint8_t out[32])
{
    int ok = SHA256_Final(out, ctx); /* wipes ctx */

    SW_ASSERT(ok == 1);
}

void sw_sha256(struct sw_slice in, uint8_t out[32])
{
    SHA256_CTX ctx;

    begin(&ctx);
    feed(&ctx, in.ptr, in.len);
    finish(&ctx, out);
}

static void pads_make(const struct sw_mac_key *key, struct pads *ret_pads)
{
    uint8_t pad[BLOCK_BYTES];

    memset(pad, 0x36, sizeof(pad));
    for (size_t i = 0; i < sizeof(key->bytes); i++) {
        pad[i] ^= key->bytes[i];
    }
    begin(&ret_pads->inner);
    feed(&ret_pads->inner, pad, sizeof(pad));
    for (size_t i = 0; i < sizeof(pad); i++) {
        pad[i] ^= 0x36 ^ 0x5c;
    }
    begin(&ret_pads->outer);
    feed(&ret_pads->outer, pad, sizeof(pad));
    OPENSSL_cleanse(pad, sizeof(pad));
    ret_pads->key = *key;
    ret_pads->set = true;
}

static void mac(const struct pads *pads, const struct sw_slice *parts, size_t count,
                uint8_t out[32])
{
    SHA256_CTX ctx = pads->inner;
    uint8_t inner[32];

    for (size_t i = 0; i < count; i++) {
        feed(&ctx, parts[i].ptr, parts[i].len);
    }
    finish(&ctx, inner);
    ctx = pads->outer;
    feed(&ctx, inner, sizeof(inner));
    finish(&ctx, out);
}

void sw_hmac_sha256(const struct sw_mac_key *key, const struct sw_slice *parts, size_t count,
                    uint8_t out[32])
{
    struct pads *p = &remembered[key->bytes[0] % PADS_MAX];

    if (!p->set || memcmp(&p->key, key, sizeof(*key)) != 0) {
        pads_make(key, p);
    }
    mac(p, parts, count, out);
}

/* With a key that is used once, and is to be found nowhere afterwards. */
static void hmac_once(const struct sw_mac_key *key, const struct sw_slice *parts, size_t count,
                      uint8_t out[32])
{
    struct pads pads;

    pads_make(key, &pads);
    mac(&pads, parts, count, out);
    OPENSSL_cleanse(&pads, sizeof(pads));
}

void sw_hkdf(const uint8_t secret[32], struct sw_slice info, uint8_t out[32])
{
    static const struct sw_mac_key no_salt = {{0}}; /* RFC 5869, 2.2: HashLen zeros */
    struct sw_slice ikm = sw_slice_of(secret, 32);
    struct sw_slice block[2] = {info, SW_S("\x01")}; /* 2.3: T(1), and L is HashLen */
    struct sw_mac_key prk;

    hmac_once(&no_salt, &ikm, 1, prk.bytes);
    hmac_once(&prk, block, SW_COUNTOF(block), out);
    OPENSSL_cleanse(&prk, sizeof(prk));
}
