/* store/store.h - states and versions: one asynchronous interface, several stores behind it.
 *
 * Room       store_lmdb.c (embedded, durable), store_mem.c (tests, simulation). One contract suite
 *            runs against each.
 * May touch  base/, io/ (to wake the asking worker). Not placement/, not HTTP.
 * Flow       placement/ loads and commits; a commit is durable before `done` is called.
 *
 * A store keeps records under 32-byte keys (hashes: the store never sees a visitor's id). Every
 * commit makes a new version; versions of a key never come back, not even after it was deleted and
 * made again (epoch). A record is replaced atomically with its expiry.
 */
#ifndef SW_STORE_H
#define SW_STORE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/out.h"

struct sw_loop;
struct sw_store;

struct sw_store_key {
    uint8_t bytes[32];
};

/* Strong tag of a state: "<epoch hex>-<counter>". {0, 0}: there is no state. */
struct sw_version {
    uint64_t epoch;   /* random, made with the record: a new one when a key is made again */
    uint64_t counter; /* 1, 2, 3 ... */
};
static inline bool sw_version_eq(struct sw_version a, struct sw_version b)
{
    return a.epoch == b.epoch && a.counter == b.counter;
}
static inline bool sw_version_none(struct sw_version v)
{
    return v.counter == 0;
}
/* With the quotes of an ETag: "3f2-17"; none is "0". */
void sw_version_put(struct sw_out *out, struct sw_version v);
/* Exactly what put makes, quotes included: each version has one text. SW_E_SYNTAX. */
SW_MUST enum sw_err sw_version_parse(struct sw_slice text, struct sw_version *ret_version);
#define SW_VERSION_TEXT_MAX 48

enum sw_record_kind {
    SW_RECORD_STATE = 1,
    SW_RECORD_TOMBSTONE = 2, /* ended: an update of this key is refused until it expires */
    SW_RECORD_ALIAS = 3,     /* an id that was renewed: value is the new key's 32 bytes */
};

/* What a record carries besides its value. Wall times in unix seconds. */
struct sw_record {
    enum sw_record_kind kind;
    struct sw_version version;
    int64_t created_unix_s;
    int64_t touched_unix_s;  /* last write, or last touch */
    int64_t expires_unix_s;  /* gone from here on: the earlier of idle and absolute; 0: never */
    int64_t absolute_unix_s; /* never later than this; 0: no such limit */
    struct sw_slice subject; /* whose state; may be empty; at most SW_SUBJECT_BYTES_MAX */
    struct sw_slice value;   /* compact JSON, ASCII; the 32 bytes of the new key for an alias */
};
#define SW_SUBJECT_BYTES_MAX     255
#define SW_STORE_VALUE_BYTES_MAX (64u << 20) /* routes set lower limits; SW_E_LIMIT */

/* ---- reading --------------------------------------------------------------------------------- */

struct sw_store_load;
typedef void sw_store_load_fn(struct sw_store_load *op);
struct sw_store_load {
    /* in */
    struct sw_store_key key;
    int64_t now_unix_s;     /* a record that expired by then is SW_E_NOT_FOUND */
    struct sw_arena *arena; /* value and subject are copied there */
    struct sw_loop *loop;   /* done is called on it, when load returned SW_STEP_MORE */
    sw_store_load_fn *done;
    void *arg;
    /* out */
    enum sw_err err; /* SW_OK, SW_E_NOT_FOUND, SW_E_STORE_*, SW_E_NO_MEMORY (arena) */
    struct sw_record record;
    void *store_private[8]; /* the store's while it works */
};
/* DONE: op is filled now (embedded stores: inline, no lock, no wait). MORE: done follows.
 * Any worker thread; at most readers_max threads (SW_E_STORE_BUSY for more). A tombstone or an
 * alias is SW_OK too: look at record.kind. */
SW_MUST enum sw_step sw_store_load(struct sw_store *store, struct sw_store_load *op);

/* ---- writing --------------------------------------------------------------------------------- */

enum sw_write_kind {
    SW_WRITE_PUT,    /* value, subject, expiry; makes the next version */
    SW_WRITE_DELETE, /* leaves a tombstone until expires_unix_s (0: until it no longer matters: the
                        end the record would have had, at least SW_TOMBSTONE_S_MIN from now). Of a
                        free key too, when the expectation allows it */
    SW_WRITE_TOUCH,  /* new expiry only, never beyond the record's absolute_unix_s; the version
                        stays; `expect` is not looked at; a missing record or a tombstone is no
                        error and stays as it is */
};
#define SW_TOMBSTONE_S_MIN 3600

enum sw_expect {
    SW_EXPECT_VERSION, /* exactly this version (none: the key must be free) */
    SW_EXPECT_EXISTS,  /* any live state: update-if-exists; SW_E_CONFLICT when there is
                          none, or an alias (the state lives on under another key) */
    SW_EXPECT_ANY,     /* also a free key; a tombstone still refuses */
};

struct sw_write {
    enum sw_write_kind kind;
    struct sw_store_key key;
    enum sw_record_kind record; /* for PUT: STATE or ALIAS */
    enum sw_expect expect;
    struct sw_version version;               /* for SW_EXPECT_VERSION */
    int64_t expires_unix_s, absolute_unix_s; /* 0: never */
    struct sw_slice subject, value;          /* borrowed until done */
    struct sw_version
        ret_version; /* out: the version made (TOUCH: the one there is); none on error */
};
#define SW_COMMIT_WRITES_MAX 4

struct sw_store_commit;
typedef void sw_store_commit_fn(struct sw_store_commit *op);
struct sw_store_commit {
    /* in; borrowed until done, the struct included. The keys of one commit differ. */
    struct sw_write writes[SW_COMMIT_WRITES_MAX];
    size_t count;
    int64_t now_unix_s;
    struct sw_loop *loop;
    sw_store_commit_fn *done;
    void *arg;
    /* out */
    enum sw_err err; /* SW_OK: all writes are durable. SW_E_CONFLICT: none was made, since an
                        expectation failed (`failed` tells which). SW_E_STATE_GONE: it met a
                        tombstone (`failed` again). SW_E_STORE_FULL, _IO, _BUSY, SW_E_LIMIT,
                        SW_E_NO_MEMORY: none was made. */
    size_t failed;
    uint64_t queued_ns, done_ns; /* for the commit histogram */
    void *store_private[8];
};
/* All writes or none, durable (by the store's sync mode), then done on op->loop; never inline.
 * Any worker thread. A full queue is told through done too (SW_E_STORE_BUSY). */
void sw_store_commit(struct sw_store *store, struct sw_store_commit *op);

/* ---- life ------------------------------------------------------------------------------------ */

enum sw_sync { SW_SYNC_ALWAYS, SW_SYNC_EVERYSEC, SW_SYNC_NO };

struct sw_store_options {
    struct sw_slice path; /* a folder; made (0700) when missing */
    enum sw_sync sync;
    uint64_t map_bytes_max; /* the data file grows up to this (then SW_E_STORE_FULL); address
                               space for it, and some for deletes when full, is taken at open.
                               0: 64 GiB (memory store: no limit) */
    uint32_t queue_max;     /* commits waiting; 0: 4096 */
    uint32_t readers_max;   /* threads that read; 0: 64 */
    bool expire;            /* collect expired records in the background, by the wall clock */
};

/* Opens or makes the store. On error, *ret_why (static or in a buffer of the store room, valid
 * until this thread's next call) says what is wrong and what to do, for people. A file that is not
 * ours, of another format, damaged or locked by another process is refused and never overwritten:
 * SW_E_STORE_ FORMAT, _CORRUPT, _LOCKED, _IO, _FULL, SW_E_PERMISSION, SW_E_UNSUPPORTED (a network
 * file system), SW_E_NO_MEMORY (address space). Blocks; start only. Not to be used in a forked
 * child. */
SW_MUST enum sw_err sw_store_open_lmdb(const struct sw_store_options *opt,
                                       struct sw_store **ret_store, const char **ret_why);
/* Commits what is queued, syncs, closes. No worker may use it any more, but their loops must still
 * exist: done is posted, and the committer may be waking them. Free loops afterwards. NULL is
 * allowed. */
void sw_store_close(struct sw_store *store);

/* In memory, lost at the end: for tests, simulation and `store: memory:`. Single process;
 * thread-safe. Commits are made and answered in a later turn of op->loop. opt may be NULL; path and
 * sync are not looked at. Its first commit on a sim loop seeds the epochs from that loop, so runs
 * repeat. */
SW_MUST enum sw_err sw_store_open_mem(const struct sw_store_options *opt,
                                      struct sw_store **ret_store);
/* Faults for simulation: decides the fate of each commit. NULL fn: none. delay_ns: answer that much
 * later; err != SW_OK: refuse with it; apply_then_fail: made durable, but reported as
 * SW_E_STORE_IO. */
struct sw_store_fault {
    uint64_t delay_ns;
    enum sw_err err;
    bool apply_then_fail;
};
typedef struct sw_store_fault sw_store_fault_fn(void *arg, const struct sw_store_commit *op);
void sw_store_mem_faults(struct sw_store *store, sw_store_fault_fn *fn, void *arg);
/* A crash of the gateway in simulation: commits not yet applied are forgotten, done is never
 * called. It touches neither the operations nor their loops; call it next to sw_loop_free of those
 * loops. */
void sw_store_mem_crash(struct sw_store *store);

#define SW_STORE_HIST_BUCKETS 24 /* bucket i: commits that took < 2^i * 10 us */
struct sw_store_stats {
    uint64_t records, bytes_used, bytes_map, bytes_file;
    uint64_t loads, commits, writes, conflicts, failures, expired, syncs;
    uint64_t commit_hist[SW_STORE_HIST_BUCKETS];
    uint64_t commit_ns_total;
    uint32_t queue;
};
void sw_store_stats(struct sw_store *store, struct sw_store_stats *ret_stats);
const char *sw_store_name(const struct sw_store *store); /* "lmdb", "memory" */

/* Visits live records in key order, from after `after` (NULL: the beginning), at most `limit`; for
 * tests, export and the admin API. Blocks; not on a worker. */
typedef void sw_store_scan_fn(void *arg, const struct sw_store_key *key, const struct sw_record *r);
SW_MUST enum sw_err sw_store_scan(struct sw_store *store, const struct sw_store_key *after,
                                  size_t limit, int64_t now_unix_s, sw_store_scan_fn *fn,
                                  void *arg);

#endif
