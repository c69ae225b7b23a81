/* keysets/keysets.h - keys of other issuers: JWK sets from files and URLs, kept fresh.
 *
 * Room       Sources -> key sets that any worker verifies with. One thread reads and fetches
 *            (libcurl); workers never wait for it.
 * May touch  crypto/, io/ (to wake workers), base/, libcurl. Not config/, not placement/.
 * Flow       gateway/ opens it and adds each source; placement/ asks a worker's view of one.
 * Source     RFC 7517; OpenID Connect Core 1.0, 10.1.1 (rotation).
 *
 * A set is replaced as a whole. The last good one stands when a fetch fails, however long, and a
 * key that was taken out of the set still verifies for SW_KEYSET_KEEP_S.
 */
#ifndef SW_KEYSETS_H
#define SW_KEYSETS_H

#include "crypto/jose.h"
#include "io/io.h"

#define SW_KEYSET_FRESH_S       300  /* a URL is asked again after this, whatever tokens say; */
#define SW_KEYSET_FRESH_S_MIN   60   /* its answer's Cache-Control: max-age may say another time, */
#define SW_KEYSET_FRESH_S_MAX   3600 /* but within these two */
#define SW_KEYSET_FILE_S        2    /* a file is looked at this often */
#define SW_KEYSET_AGAIN_S       10   /* at least this long between two fetches that tokens cause */
#define SW_KEYSET_FETCH_MS      5000 /* names, connecting, TLS, all of the body; then it failed */
#define SW_KEYSET_REDIRECTS_MAX 3    /* to https only */
#define SW_KEYSET_RETRY_S_MAX   60   /* after failures: 1 s, doubled up to this */
#define SW_KEYSET_KEEP_S        300  /* see above: as long as any skew */
#define SW_KEYSET_UNKNOWN_MAX   256  /* key ids remembered, for SW_KEYSET_AGAIN_S, as not there */
#define SW_KEYSET_WAITS_MAX     1024 /* who waits for one fetch; more are told "not now" */
#define SW_KEYSET_SOURCES_MAX   256  /* a further one: SW_E_LIMIT */

struct sw_keysets;
struct sw_keyset;

/* The numbers above, in milliseconds; 0: the number above. For tests, which cannot wait. */
struct sw_keyset_times {
    uint32_t fresh_ms, fresh_ms_min, fresh_ms_max;
    uint32_t file_ms, again_ms, fetch_ms, retry_ms, retry_ms_max, keep_ms;
};
struct sw_keysets_options {
    /* One line when a source's state changes: read for the first time, failing, read again, other
     * keys; not for each failure. Never holds a key or what a URL's query or user part says. On the
     * thread of the room. May be NULL. */
    void (*tell)(void *arg, enum sw_log_level level, const char *text);
    void *arg;
    struct sw_keyset_times times;
};

/* Starts the thread. https trusts the authorities of the system, or those of SSL_CERT_FILE and
 * SSL_CERT_DIR, as OpenSSL reads them, and goes by the proxy of HTTPS_PROXY where there is one (it
 * sees no more than the host's name); http goes straight, and to this machine only. These variables
 * are read here and at each fetch. Main thread. SW_E_NO_MEMORY, SW_E_SYSTEM. */
SW_MUST enum sw_err sw_keysets_new(const struct sw_keysets_options *opt,
                                   struct sw_keysets **ret_keysets);
/* Ends the thread; who waits hears nothing any more. Of the views only sw_keyset_view_fini may be
 * called afterwards. Main thread. NULL is allowed. */
void sw_keysets_free(struct sw_keysets *k);

/* The same source and rules give the same one. Lives as long as k. source: a path, or a URL (https;
 * http on this machine only). It is read, or fetched, at once, and again from then on. Main thread.
 * SW_E_NO_MEMORY, SW_E_LIMIT. */
SW_MUST enum sw_err sw_keysets_add(struct sw_keysets *k, struct sw_slice source, bool url,
                                   const struct sw_jwks_rules *rules,
                                   struct sw_keyset **ret_keyset);
/* Waits until each source was read or fetched once, or failed, at most wait_ms. Main thread, at
 * start. A file that cannot be read is an error then, SW_E_SYNTAX (why tells which and what to do;
 * lives as long as k); a URL is not: tokens are answered with 503 until it can be fetched, and the
 * log says so. */
SW_MUST enum sw_err sw_keysets_ready(struct sw_keysets *k, uint32_t wait_ms, const char **ret_why);

/* ---- what a worker asks -----------------------------------------------------------------------
 */

/* A worker's own; zeroed but for keyset. */
struct sw_keyset_view {
    struct sw_keyset *keyset;
    uint64_t generation;
    struct sw_jwks *set; /* a reference of its own */
};
/* The keys of now; valid until the next call with this view. NULL: none could be got yet. One load
 * when nothing changed. Keys that were taken out of the set and are still kept are in it, for
 * tokens that name them (sw_jwks_merge). */
const struct sw_jwks *sw_keyset_view_get(struct sw_keyset_view *v);
void sw_keyset_view_fini(struct sw_keyset_view *v);

/* A token names a key (kid; may be empty) that the set does not have. */
struct sw_key_wait {
    struct sw_loop *loop;
    void (*done)(struct sw_key_wait *wait); /* on loop: the fetch ended, well or not */
    void *arg;
    struct sw_post post;
    struct sw_link link;
};
/* Asks for the keys to be fetched because of this token. Any thread; wait->loop, done, arg are set.
 * MORE: a fetch is under way (one for all), or the key came in the meantime; done follows within
 * SW_KEYSET_FETCH_MS and some, and wait stays where it is until then. DONE: not now (asked a moment
 * ago, this kid was not there then, too many wait, a file): refuse the token. */
SW_MUST enum sw_step sw_keyset_want(struct sw_keyset *keyset, struct sw_slice kid,
                                    struct sw_key_wait *wait);

struct sw_keyset_stats {
    struct sw_slice source;              /* without what may be secret in it; lives as long as k */
    uint64_t fetches, failures, refused; /* refused: sw_keyset_want said DONE */
    int64_t good_unix_s;                 /* the last time that it was read well; 0: never */
    uint32_t keys, kept;                 /* of now; taken out, and not yet gone */
    bool failing;                        /* the last time did not go well */
};
/* Any thread; index: in the order in which they were added. */
size_t sw_keysets_count(const struct sw_keysets *k);
void sw_keysets_stats(const struct sw_keysets *k, size_t index, struct sw_keyset_stats *ret_stats);

#endif
