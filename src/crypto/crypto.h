/* crypto/crypto.h - random ids, hashes, MACs, seals, base64url, the key ring.
 *
 * Room       bytes + keys + wall time -> claims, or a named refusal. OpenSSL is included here (and
 *            later in io/tls.c) only. Pure but for sw_random.
 * May touch  base/.
 */
#ifndef SW_CRYPTO_H
#define SW_CRYPTO_H

#include "base/arena.h"
#include "base/err.h"
#include "base/out.h"

/* Bytes from the kernel's generator, buffered per thread; never fails (aborts when the system has
 * none). A forked child must not share a buffer (pthread_atfork). */
void sw_random(void *out, size_t len);
/* For simulation: all later sw_random of this process come from a seeded stream. Tests only. */
void sw_random_seed_for_tests(uint64_t seed);

void sw_sha256(struct sw_slice in, uint8_t out[32]);
struct sw_mac_key {
    uint8_t bytes[32];
};
/* HMAC-SHA-256 over the concatenation of parts. No allocation on the hot path (precomputed pads
 * where that pays). Thread-safe. */
void sw_hmac_sha256(const struct sw_mac_key *key, const struct sw_slice *parts, size_t count,
                    uint8_t out[32]);
/* HKDF-SHA-256 (RFC 5869) from a 32-byte secret: a key for one purpose. */
void sw_hkdf(const uint8_t secret[32], struct sw_slice info, uint8_t out[32]);

/* Encryption with AES-256-GCM under a key used for one purpose. aad is bound to it and not stored:
 * say where the bytes belong. Sealed bytes are SW_SEAL_BYTES longer than plain ones; their nonce is
 * random, so at most 2^32 seals with one key. Thread-safe. */
#define SW_SEAL_NONCE_BYTES 12 /* in front of the ciphertext */
#define SW_SEAL_TAG_BYTES   16 /* behind it */
#define SW_SEAL_BYTES       28
/* out: plain.len + SW_SEAL_BYTES. plain may lie at out + SW_SEAL_NONCE_BYTES (sealed in place), or
 * apart from it; below 2 GiB. */
void sw_seal(const uint8_t key[32], struct sw_slice aad, struct sw_slice plain, void *out);
/* out: sealed.len - SW_SEAL_BYTES; it may be where the ciphertext lies (opened in place), or apart.
 * False: not sealed with this key and aad, damaged, or too short; then out is wiped. */
SW_MUST bool sw_seal_open(const uint8_t key[32], struct sw_slice aad, struct sw_slice sealed,
                          void *out);

/* Strict base64url without padding (RFC 7515, 2): no blanks, no loose last bits. */
#define SW_B64_LEN(n) (((n)*4 + 2) / 3)
void sw_b64url_put(struct sw_out *out, const void *in, size_t len);
/* Exactly `len` bytes must come out. SW_E_SYNTAX. */
SW_MUST enum sw_err sw_b64url_exact(struct sw_slice text, void *out, size_t len);
/* At most cap bytes; *ret_len written on success. SW_E_SYNTAX, SW_E_LIMIT. */
SW_MUST enum sw_err sw_b64url(struct sw_slice text, void *out, size_t cap, size_t *ret_len);

/* ---- the key ring: secrets with ids; seed -> active -> retired --------------------------------
 *
 * The file (mode 0600, JSON):
 *   {"version":1,"keys":[{"id":1,"state":"active","created":1760000000,"secret":"<43 base64url>"}]}
 * state: "seed" (known, not used to make), "active" (exactly one), "retired" (still accepted).
 */
#define SW_KEYS_MAX 16
enum sw_key_state { SW_KEY_SEED, SW_KEY_ACTIVE, SW_KEY_RETIRED };
struct sw_key {
    uint32_t id;
    enum sw_key_state state;
    int64_t created_unix_s;
    struct sw_mac_key pin;     /* derived: MAC of pins */
    struct sw_mac_key visitor; /* derived: hash of visitor ids for logs and apps */
    uint8_t secret[32];
};
struct sw_keyring {
    struct sw_key keys[SW_KEYS_MAX];
    size_t count;
    size_t active; /* index */
};
/* From a file's text. *ret_why: for people. */
SW_MUST enum sw_err sw_keyring_parse(struct sw_slice text, struct sw_keyring *ret_ring,
                                     const char **ret_why);
/* One fresh active key with id 1. */
void sw_keyring_make(int64_t now_unix_s, struct sw_keyring *ret_ring);
/* The file's text; false: no room. */
SW_MUST bool sw_keyring_put(struct sw_out *out, const struct sw_keyring *ring);
/* Reads path, or makes it (0600, written aside, synced and renamed; two processes that race agree).
 * Refuses a file that others may read. Blocks: start only. */
SW_MUST enum sw_err sw_keyring_load(const char *path, int64_t now_unix_s,
                                    struct sw_keyring *ret_ring, const char **ret_why);
const struct sw_key *sw_keyring_find(const struct sw_keyring *ring, uint32_t id);

#endif
