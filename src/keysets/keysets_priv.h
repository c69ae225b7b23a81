/* keysets/keysets_priv.h - what the files of the room share. */
#ifndef SW_KEYSETS_PRIV_H
#define SW_KEYSETS_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/rng.h"
#include "keysets/keysets.h"

#define KEYSET_WHY_BYTES  256
#define KEYSET_NAME_BYTES 256 /* of a source in texts; a longer one is cut */

/* A key that is in no set of now and still verifies. */
struct keyset_kept {
    struct sw_jwks *set; /* a reference */
    size_t index;
    uint64_t until_ns;
};

/* A key id that was asked for: only its hash, so that no client decides how much is kept. */
struct keyset_unknown {
    uint64_t hash;
    uint64_t until_ns; /* not there until then; 0: free */
    bool pending;      /* its fetch has not ended */
};

enum keyset_state {
    KEYSET_NEW, /* never tried */
    KEYSET_GOOD,
    KEYSET_FAILING,
};

struct sw_keyset {
    uint32_t magic;
    struct sw_keysets *room;
    char *source;                 /* as it is opened */
    char name[KEYSET_NAME_BYTES]; /* as people are told */
    bool url;
    struct sw_jwks_rules rules;
    _Atomic uint64_t generation; /* of shown; 0: none yet */

    pthread_mutex_t lock; /* of these */
    struct sw_jwks *shown;
    bool busy;   /* a fetch is ordered or under way */
    bool wanted; /* ordered by a token, not yet begun */
    uint64_t again_ns;
    struct sw_link waits;
    size_t wait_count;
    struct keyset_unknown unknown[SW_KEYSET_UNKNOWN_MAX];
    size_t unknown_at; /* the oldest */
    struct sw_keyset_stats stats;

    /* the thread's own */
    enum keyset_state state;
    struct sw_jwks *current;                   /* as it was read; NULL: never */
    uint8_t text_hash[32];                     /* of current */
    struct keyset_kept kept[SW_JWKS_KEYS_MAX]; /* the newest first */
    size_t kept_count;
    uint64_t due_ns;
    uint32_t retry_ms; /* of the last failure; 0: it was none */

    char why[KEYSET_WHY_BYTES]; /* of the last failure */

    /* under the room's lock */
    bool tried;
    char nothing_why[KEYSET_WHY_BYTES]; /* why there is still no set; empty: there is one */
};
#define KEYSET_MAGIC 0x4b534554u

struct keysets_fetcher;

struct sw_keysets {
    uint32_t magic;
    struct sw_keysets_options opt; /* times filled in */
    uint64_t seed;                 /* of hashes of key ids */
    struct sw_rng rng;             /* the thread's */
    struct keysets_fetcher *fetcher;
    pthread_t thread;
    pthread_mutex_t lock; /* of these */
    pthread_cond_t tried;
    bool stop;
    struct sw_keyset *list[SW_KEYSET_SOURCES_MAX];
    size_t count;
    char told[KEYSET_NAME_BYTES + KEYSET_WHY_BYTES + 128]; /* the main thread's: ret_why */
};
#define KEYSETS_MAGIC 0x4b535453u

/* ---- source.c: one source's life. Time is an argument; nothing here waits. --------------------
 */

SW_MUST enum sw_err sw_keysets__source_new(struct sw_keysets *room, struct sw_slice source,
                                           bool url, const struct sw_jwks_rules *rules,
                                           struct sw_keyset **ret_keyset);
void sw_keysets__source_free(struct sw_keyset *ks);
/* A source for people: of a URL no user part, query and fragment. */
void sw_keysets__name_put(struct sw_out *out, struct sw_slice source, bool url);

/* Another source has the same name, by what was left out: "#2" behind it. Once, before it is used.
 */
void sw_keysets__name_number(struct sw_keyset *ks, unsigned number);

/* Is it to be tried now? Marks it as busy then. Thread of the room, as are all below but want. */
SW_MUST bool sw_keysets__due(struct sw_keyset *ks, uint64_t now_ns);
/* When something is to be done: a try, or a kept key's end. */
uint64_t sw_keysets__next_ns(const struct sw_keyset *ks);
/* Keys whose time is over go. */
void sw_keysets__expire(struct sw_keyset *ks, uint64_t now_ns);
/* It was read. fresh_s: as its answer said; < 0: it did not. What is no key set is a failure. */
void sw_keysets__took(struct sw_keyset *ks, struct sw_slice text, int64_t fresh_s, uint64_t now_ns,
                      int64_t now_unix_s);
/* It could not be read. why: for people. */
void sw_keysets__failed(struct sw_keyset *ks, const char *why, uint64_t now_ns);
/* sw_keyset_want at a time. *ret_order: the thread must be woken. Any thread. */
SW_MUST enum sw_step sw_keysets__want(struct sw_keyset *ks, struct sw_slice kid,
                                      struct sw_key_wait *wait, uint64_t now_ns, bool *ret_order);

/* ---- file.c -----------------------------------------------------------------------------------
 */

/* Reads up to cap bytes of a regular file. False: *ret_why. A file that is longer is one. */
SW_MUST bool sw_keysets__file_read(const char *path, char *to, size_t cap, size_t *ret_len,
                                   const char **ret_why);

/* ---- fetch.c: libcurl -------------------------------------------------------------------------
 */

struct keysets_fetched {
    const char *why;      /* NULL: it was fetched */
    struct sw_slice text; /* until the call ends */
    int64_t fresh_s;      /* of Cache-Control, less Age; -1: none */
};
typedef void keysets_fetched_fn(struct sw_keyset *ks, const struct keysets_fetched *fetched);

/* SW_E_NO_MEMORY. Main thread; the others are the thread's, but wake. */
SW_MUST enum sw_err sw_keysets__fetcher_new(uint32_t fetch_ms, keysets_fetched_fn *fn,
                                            struct keysets_fetcher **ret_fetcher);
/* What is under way ends without fn. NULL is allowed. */
void sw_keysets__fetcher_free(struct keysets_fetcher *f);
/* fn follows in run. False: no memory; fn does not follow. */
SW_MUST bool sw_keysets__fetch(struct keysets_fetcher *f, struct sw_keyset *ks);
/* Goes on with all of them, then waits for events, a wake, or the time. */
void sw_keysets__fetcher_run(struct keysets_fetcher *f);
void sw_keysets__fetcher_wait(struct keysets_fetcher *f, uint64_t wait_ms);
void sw_keysets__fetcher_wake(struct keysets_fetcher *f); /* any thread */

/* How long a Cache-Control field says that an answer is fresh (RFC 9111, 5.2.2): max-age, 0 for
 * no-cache and no-store, -1 when it does not say. */
int64_t sw_keysets__max_age(struct sw_slice cache_control);

#endif
