/* crypto/crypto.h - random ids, hashes, MACs, seals, base64url, the key ring.
 *
 * Room       bytes + keys + wall time -> claims, or a named refusal. OpenSSL is included here (and
 *            later in io/tls.c) only. Pure but for sw_random.
 * May touch  base/.
 */
#ifndef SW_CRYPTO_H
#define SW_CRYPTO_H

#include <stdatomic.h>

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
 * The file (JSON, mode 0600 or 0400; docs/keys.md):
 *   {"version":2,"keys":[{"id":1,"state":"retired","created":1760000000,"retired":1762592000,
 *                         "secret":"<43 base64url>"}, ...]}
 * state: "seed" (accepted, not used to make), "active" (exactly one: makes), "retired" (still
 * accepted). retired: when it stopped being active, unix seconds; of retired keys only, 0: nobody
 * knows. Version 1 is the same without that member; it is read, and written while no key needs it.
 */
#define SW_KEYS_MAX 16 /* of a ring; a file with more is refused, and so is one more */
enum sw_key_state { SW_KEY_SEED, SW_KEY_ACTIVE, SW_KEY_RETIRED };
struct sw_key {
    uint32_t id;
    enum sw_key_state state;
    int64_t created_unix_s;
    int64_t retired_unix_s;    /* of RETIRED; 0: not known */
    struct sw_mac_key pin;     /* derived: MAC of pins */
    struct sw_mac_key visitor; /* derived: hash of visitor ids for logs and apps */
    uint8_t secret[32];
};
struct sw_key_uses;
struct sw_keyring {
    struct sw_key keys[SW_KEYS_MAX];
    size_t count;
    size_t active;            /* index */
    struct sw_key_uses *uses; /* where this holder of the ring counts; NULL: nowhere */
};
/* From a file's text. *ret_why: for people. */
SW_MUST enum sw_err sw_keyring_parse(struct sw_slice text, struct sw_keyring *ret_ring,
                                     const char **ret_why);
/* One fresh active key with id 1. */
void sw_keyring_make(int64_t now_unix_s, struct sw_keyring *ret_ring);
/* The file's text; false: no room. */
SW_MUST bool sw_keyring_put(struct sw_out *out, const struct sw_keyring *ring);
const struct sw_key *sw_keyring_find(const struct sw_keyring *ring, uint32_t id);
/* Are they the same keys in the same states? uses is not looked at. */
bool sw_keyring_same(const struct sw_keyring *a, const struct sw_keyring *b);
/* The oldest key that is no seed: under it, subjects of `encrypt: on` routes have their names. */
const struct sw_key *sw_keyring_oldest(const struct sw_keyring *ring);
/* "seed", "active", "retired" */
const char *sw_key_state_name(enum sw_key_state state);

/* ---- its changes (keyring_life.c): pure but for sw_random ---- */

/* A fresh seed. SW_E_LIMIT: there are SW_KEYS_MAX already. */
SW_MUST enum sw_err sw_keyring_add(struct sw_keyring *ring, int64_t now_unix_s, uint32_t *ret_id);
/* That one makes from now on, the active one retires. A retired key too: that takes a promotion
 * back. SW_E_NOT_FOUND: there is no such key. SW_E_CONFLICT: it is the active one. */
SW_MUST enum sw_err sw_keyring_promote(struct sw_keyring *ring, uint32_t id, int64_t now_unix_s);
/* Takes a key out for good. SW_E_NOT_FOUND. SW_E_CONFLICT: it is the active one. */
SW_MUST enum sw_err sw_keyring_remove(struct sw_keyring *ring, uint32_t id);

/* What decides when a key is out of use, and when the next one comes. */
struct sw_keys_rules {
    int64_t life_s;   /* the longest life of anything that is made with a key */
    bool names;       /* the oldest key names subjects: it is needed for as long as they are */
    int64_t rotate_s; /* a new key when the active one is that old; 0: by hand only */
};
#define SW_KEYS_SEED_S   120 /* a seed is that old before it is promoted: every gateway read it */
#define SW_KEYS_MARGIN_S 300 /* clocks differ, and a gateway reads the file somewhat later */
/* From then on nothing that was made with the key can be alive. 0: nothing was ever made with it.
 * INT64_MAX: never, or nobody knows when. By the lifetimes of today's configuration. */
int64_t sw_keyring_dead_unix_s(const struct sw_keyring *ring, const struct sw_key *key,
                               const struct sw_keys_rules *rules);
enum sw_keys_step { SW_KEYS_KEEP, SW_KEYS_ADD, SW_KEYS_PROMOTE, SW_KEYS_REMOVE, SW_KEYS_FULL };
struct sw_keys_due {
    enum sw_keys_step step;
    uint32_t id; /* of PROMOTE, REMOVE */
};
/* The next step of a rotation by age. FULL: a new key is due and there is no room for it. */
struct sw_keys_due sw_keyring_due(const struct sw_keyring *ring, const struct sw_keys_rules *rules,
                                  int64_t now_unix_s);
/* Between two rings, for those who cannot change all at once: knows the keys of `to`, and makes
 * with the active one of `from`. False: none is needed (the same key makes), or there cannot be
 * one (that key is not in `to`). */
SW_MUST bool sw_keyring_bridge(const struct sw_keyring *from, const struct sw_keyring *to,
                               struct sw_keyring *ret_bridge);

/* ---- how often keys are used: one writer, any reader ---- */

enum sw_key_use { SW_KEY_OPENED, SW_KEY_MADE };
struct sw_key_used {
    uint64_t opened, made;
    int64_t last_unix_s; /* 0: never */
};
struct sw_key_uses {
    struct {
        _Atomic uint32_t id; /* 0: free */
        _Atomic uint64_t opened, made;
        _Atomic int64_t last_unix_s;
    } slots[SW_KEYS_MAX];
};
/* Counts, if the ring counts and has that key (0: none). On the thread of its holder. */
void sw_keyring_used(const struct sw_keyring *ring, uint32_t id, enum sw_key_use use,
                     int64_t now_unix_s);
/* Has a place for each key of the ring; what was counted of those that stay is kept. Writer. */
void sw_key_uses_follow(struct sw_key_uses *uses, const struct sw_keyring *ring);
/* Any thread. */
struct sw_key_used sw_key_uses_read(const struct sw_key_uses *uses, uint32_t id);

/* ---- where it lies (keyring_file.c): these block ---- */

#define SW_KEYS_ENV "STATEWAY_KEYS" /* the file's text in the environment: then there is no file */

/* Reads path, or makes it (0600, written aside, synced and renamed; two processes that race agree).
 * Refuses a file that others may read, but for a credential of systemd's (below
 * $CREDENTIALS_DIRECTORY), which may carry its reader in an ACL. */
SW_MUST enum sw_err sw_keyring_load(const char *path, int64_t now_unix_s,
                                    struct sw_keyring *ret_ring, const char **ret_why);
/* The same, and never makes it. SW_E_NOT_FOUND. */
SW_MUST enum sw_err sw_keyring_read(const char *path, struct sw_keyring *ret_ring,
                                    const char **ret_why);
/* From SW_KEYS_ENV. SW_E_NOT_FOUND: it is not set. */
SW_MUST enum sw_err sw_keyring_from_env(struct sw_keyring *ret_ring, const char **ret_why);

/* What to change. An error refuses, and *ret_why tells people why; *ret_changed false: nothing is
 * written. */
typedef enum sw_err sw_keyring_fn(void *arg, struct sw_keyring *ring, bool *ret_changed,
                                  const char **ret_why);
/* Change the file: read, changed and replaced under a lock (PATH.lock, kept), so that of two at
 * once none is lost. Written aside, synced, renamed; owner and mode stay. A symbolic link is
 * followed, not replaced.
 *
 * wait_ms  for the lock. SW_E_CONFLICT: somebody else held it for longer.
 * Errors   of fn; of sw_keyring_read; SW_E_PERMISSION: it cannot be changed here; SW_E_SYSTEM.
 */
SW_MUST enum sw_err sw_keyring_change(const char *path, uint32_t wait_ms, int64_t now_unix_s,
                                      sw_keyring_fn *fn, void *arg, struct sw_keyring *ret_ring,
                                      const char **ret_why);

#endif
