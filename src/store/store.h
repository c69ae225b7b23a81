/* store/store.h - states and versions: one asynchronous interface, several stores behind it.
 *
 * Room       lmdb_*.c and journal_*.c (embedded, durable; the maps of their files are in
 *            lmdb_priv.h and journal_priv.h), store_mem.c (tests, simulation). One contract suite
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
    SW_RECORD_ALIAS = 3,     /* an id that was renewed: value is the new key's 32 bytes (and what
                                the placement put behind them) */
    SW_RECORD_CLAIM = 4,     /* an idempotency key: value is the gateway's */
};

/* What a record carries besides its value. Wall times in unix seconds. */
struct sw_record {
    enum sw_record_kind kind;
    struct sw_version version;
    int64_t created_unix_s;
    int64_t touched_unix_s;  /* last write, or last touch */
    int64_t expires_unix_s;  /* gone from here on: the earlier of idle and absolute; 0: never */
    int64_t absolute_unix_s; /* never later than this; 0: no such limit */
    int64_t bound_unix_ms;   /* when its subject was written: since then this subject; 0: none */
    int64_t due_unix_ms;     /* stands in the index of what is due; 0: it does not */
    bool sealed;             /* value is encrypted: its owner's business, the store only keeps it */
    struct sw_slice subject; /* whose state; may be empty; at most SW_SUBJECT_BYTES_MAX */
    struct sw_slice extra;   /* kept beside the value (alarms); at most SW_EXTRA_BYTES_MAX */
    struct sw_slice value;   /* compact JSON, ASCII; the 32 bytes of the new key for an alias. A
                                load with value_bytes_max may leave ptr NULL: only its length */
};
#define SW_SUBJECT_BYTES_MAX     255
#define SW_EXTRA_BYTES_MAX       8192
#define SW_STORE_VALUE_BYTES_MAX (64u << 20) /* routes set lower limits; SW_E_LIMIT */

/* ---- reading --------------------------------------------------------------------------------- */

struct sw_store_load;
typedef void sw_store_load_fn(struct sw_store_load *op);
struct sw_store_load {
    /* in */
    struct sw_store_key key;
    int64_t now_unix_s;     /* a record that expired by then is SW_E_NOT_FOUND */
    struct sw_arena *arena; /* value, extra and subject are copied there */
    size_t value_bytes_max; /* a longer value is not copied: record.value is {NULL, its length};
                               0: no limit */
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
 * alias is SW_OK too: look at record.kind. A state whose subject was cut off since it was bound
 * (SW_WRITE_CUTOFF) is answered as a tombstone. */
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
    SW_WRITE_CUTOFF, /* ends every state of `subject` that was bound to it at or before
                        not_before_unix_ms, in one small write: such states read as tombstones,
                        updates of them meet SW_E_STATE_GONE (with SW_EXPECT_VERSION none, an
                        entity may be made anew), and the collector removes them, not before
                        SW_TOMBSTONE_S_MIN have passed. Kept until expires_unix_s: when the last
                        state bound before it has met its absolute end; 0: for ever; in any case
                        until the collector has removed what it ended. A later cut-off replaces an
                        earlier one (and is kept as long as either wanted), never the other way.
                        key and expect are not looked at; no two in one commit; writes beside it
                        in its commit find what was there before it. SW_E_LIMIT: the subject is
                        empty or too long, or the time is not above 0 */
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
    enum sw_record_kind record; /* for PUT: STATE, ALIAS or CLAIM */
    enum sw_expect expect;
    struct sw_version version;               /* for SW_EXPECT_VERSION */
    int64_t expires_unix_s, absolute_unix_s; /* 0: never */
    int64_t not_before_unix_ms;              /* for CUTOFF */
    int64_t due_unix_ms;                     /* for PUT of a state or a claim; 0: not due */
    int64_t created_unix_s, bound_unix_ms;   /* for PUT by an import, and of a state under a new id:
                                                kept as given; 0: now, and for a subject that
                                                stays, as it was. bound is a state's that has a
                                                subject. Negative times: SW_E_LIMIT */
    bool sealed;                             /* for PUT: as in struct sw_record */
    struct sw_slice subject, extra, value;   /* borrowed until done */
    struct sw_version
        ret_version; /* out: the version made (TOUCH: the one there is); none on error */
};
#define SW_COMMIT_WRITES_MAX 6

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
    uint64_t map_bytes_max;    /* the data file grows up to this (then SW_E_STORE_FULL); address
                                  space for it, and some for deletes when full, is taken at open.
                                  0: 64 GiB (memory store: no limit) */
    uint64_t memory_bytes_max; /* journal: what its records and their indexes may take; at the edge
                                  puts are SW_E_STORE_FULL, reads and deletes go on. What is on disk
                                  is loaded even if it is more. 0: 1 GiB */
    uint32_t queue_max;        /* commits waiting; 0: 4096 */
    uint32_t readers_max;      /* threads that read; 0: 64 */
    bool expire;               /* collect expired records in the background, by the wall clock */
    /* Told what takes long while it opens, one line for people at a time (an upgrade of the file:
     * every few seconds); on the opening thread. NULL: nobody is. */
    void (*tell)(void *arg, const char *text);
    void *tell_arg;
};

/* Opens or makes the store. On error, *ret_why (static or in a buffer of the store room, valid
 * until this thread's next call) says what is wrong and what to do, for people. A file that is not
 * ours, of another format, damaged or locked by another process is refused and never overwritten:
 * SW_E_STORE_ FORMAT, _CORRUPT, _LOCKED, _IO, _FULL, SW_E_PERMISSION, SW_E_UNSUPPORTED (a network
 * file system), SW_E_NO_MEMORY (address space). Blocks; start only. Not to be used in a forked
 * child. */
SW_MUST enum sw_err sw_store_open_lmdb(const struct sw_store_options *opt,
                                       struct sw_store **ret_store, const char **ret_why);
/* The same with a table in memory and a log on disk (docs/journal-format.md): a synced put costs a
 * fraction of LMDB's, and all states must fit into memory_bytes_max. map_bytes_max is not looked at
 * (the log is kept near twice of what is live), readers_max neither: any number of threads may
 * read. tell hears of a long replay. */
SW_MUST enum sw_err sw_store_open_journal(const struct sw_store_options *opt,
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
const char *sw_store_name(const struct sw_store *store); /* "lmdb", "memory", "journal" */

/* Visits live records in key order, from after `after` (NULL: the beginning), at most `limit`; for
 * tests, export and the admin API. Blocks; not on a worker. The visitor's slices live for the call
 * only. Cut-off states are not visited. */
typedef void sw_store_scan_fn(void *arg, const struct sw_store_key *key, const struct sw_record *r);
SW_MUST enum sw_err sw_store_scan(struct sw_store *store, const struct sw_store_key *after,
                                  size_t limit, int64_t now_unix_s, sw_store_scan_fn *fn,
                                  void *arg);
/* The same for the live states of one subject (an index: work in proportion to what is visited). */
SW_MUST enum sw_err sw_store_scan_subject(struct sw_store *store, struct sw_slice subject,
                                          const struct sw_store_key *after, size_t limit,
                                          int64_t now_unix_s, sw_store_scan_fn *fn, void *arg);
/* Keys of live records that are due at now_unix_ms, the earliest first (at the same time by key),
 * at most `limit`, from the index. Any worker thread, bounded by limit and 256 records that ended
 * and were not collected yet; values are not read. fn must not call the store. */
typedef void sw_store_due_fn(void *arg, const struct sw_store_key *key, int64_t due_unix_ms);
SW_MUST enum sw_err sw_store_due(struct sw_store *store, int64_t now_unix_ms, size_t limit,
                                 sw_store_due_fn *fn, void *arg);
/* When the earliest record is due (it may be one that ended, until the collector comes by); 0: none
 * is. Any thread; one relaxed load. Right from open on. */
int64_t sw_store_next_due_unix_ms(const struct sw_store *store);
/* The cut-off of a subject; 0: none (or it cannot be read). Any worker thread. */
int64_t sw_store_cutoff_unix_ms(struct sw_store *store, struct sw_slice subject);

/* ---- the file, by commands ------------------------------------------------------------------- */

/* For `stateway store`: a store's folder, also while a gateway has it open (but compact). Each
 * blocks; not in a gateway. ret_why as in sw_store_open_lmdb. SW_E_STORE_FORMAT: the folder holds a
 * store of the other kind. */
struct sw_store_checked {
    uint64_t records, states, tombstones, aliases, claims, cutoffs;
    uint64_t value_bytes;
    uint64_t due, subjects; /* entries of the two indexes */
    uint64_t bad_records;   /* sum, lengths or kind are wrong; journal: frames */
    uint64_t bad_index;     /* index entries without their record, or records without their entry */
    uint64_t file_bytes;    /* on the disk: the file is sparse */
    uint64_t used_bytes, free_bytes; /* journal: of what is live, and of what is not (any more) */
    uint64_t memory_bytes;           /* journal: that it takes when it is open */
    uint32_t segments;               /* journal: files */
    uint32_t format;                 /* 0: the file could not be read that far */
    int64_t made_unix_s;             /* journal: its oldest segment */
    int64_t oldest_unix_s, newest_unix_s; /* the first creation, the last write */
};
/* Reads every record and every index entry. complain(arg, text) once for each thing found, at most
 * 100 times. SW_OK: it is whole; SW_E_STORE_CORRUPT: it is not. quick: counters of the file only
 * (records, cutoffs, due, subjects, bytes, format). *ret_checked is what was seen, on errors too.
 * Runs in a child process: garbage that ends LMDB with a signal is damage found. SW_E_NOT_FOUND:
 * there is no file. SW_E_STORE_LOCKED: it is being compacted. */
SW_MUST enum sw_err sw_store_lmdb_check(struct sw_slice path, bool quick,
                                        void (*complain)(void *arg, const char *text), void *arg,
                                        struct sw_store_checked *ret_checked, const char **ret_why);
/* A whole copy of what is committed now, in a folder that must not exist yet; while a gateway runs
 * too (a read transaction: the file grows by what is written meanwhile). Synced before it is named.
 * One that was killed leaves a folder `to`.part-XXXXXX, which the next one to the same place
 * removes. The file of keys is not in it. */
SW_MUST enum sw_err sw_store_lmdb_backup(struct sw_slice path, struct sw_slice to,
                                         const char **ret_why);
/* Writes the file anew without its free pages and without expired records, and puts it in the old
 * one's place (rename: at any moment one whole file is there). No gateway may have it open
 * (SW_E_STORE_LOCKED). Indexes are made to fit their records; a damaged record is not dropped in
 * silence: SW_E_STORE_CORRUPT, and the file stays as it is. */
SW_MUST enum sw_err sw_store_lmdb_compact(struct sw_slice path, uint64_t *ret_before_bytes,
                                          uint64_t *ret_after_bytes, const char **ret_why);

/* The same for a journal. check reads every frame, quick or not (the figures are nowhere else), of
 * one moment: what was acknowledged before it began is in it. A record that has expired is not
 * counted. It takes about 130 bytes of memory a record. */
SW_MUST enum sw_err sw_store_journal_check(struct sw_slice path, bool quick,
                                           void (*complain)(void *arg, const char *text), void *arg,
                                           struct sw_store_checked *ret_checked,
                                           const char **ret_why);
/* What was acknowledged before it began is in the copy; of what is committed meanwhile a part, in
 * its order. Damage is refused: SW_E_STORE_CORRUPT. */
SW_MUST enum sw_err sw_store_journal_backup(struct sw_slice path, struct sw_slice to,
                                            const char **ret_why);
/* Writes what is live to the end of the log, and then removes what stood before it: at any moment
 * the folder holds all of it, also when this is killed. Takes the memory that a gateway takes.
 * SW_E_STORE_FULL: the disk has no room for both. */
SW_MUST enum sw_err sw_store_journal_compact(struct sw_slice path, uint64_t *ret_before_bytes,
                                             uint64_t *ret_after_bytes, const char **ret_why);

#endif
