/* store/lmdb_priv.h - what the files of the embedded store share. Only these include lmdb.h.
 *
 *   lmdb_format.c   bytes of the file's records and entries (both formats; a table of them)
 *   lmdb_file.c     the file before LMDB sees it
 *   lmdb_env.c      LMDB's environment: opening it, again after a panic; transactions that write
 *   lmdb_index.c    a record and its entries in the indexes, within one transaction
 *   lmdb_room.c     how many pages are left, and how long the file must be
 *   lmdb_commit.c   queue, committer thread, group commit
 *   lmdb_expire.c   what expired or was cut off is taken away
 *   lmdb_read.c     readers: load, scans, what is due
 *   lmdb_upgrade.c  format 1 -> format 2
 *   lmdb_open.c     sw_store_open_lmdb, sw_store_close
 *   lmdb_child.c    work on a file that may be damaged, in a process of its own
 *   lmdb_check.c    sw_store_lmdb_check
 *   lmdb_copy.c     sw_store_lmdb_backup, sw_store_lmdb_compact
 *
 * Flow of a load: inline on the worker, by a read transaction the thread keeps and renews. Of a
 * commit: worker -> queue -> committer: one transaction and one sync for all that arrived during
 * the last one -> sw_loop_post to each asker.
 */
#ifndef SW_LMDB_PRIV_H
#define SW_LMDB_PRIV_H

#include "store/store_priv.h"

#include <endian.h>
#include <lmdb.h>
#include <pthread.h>
#include <time.h>

#include "base/rng.h"

#define LMDB_FORMAT       2u /* of the file */
#define LMDB_FORMAT_FIRST 1u
#define LMDB_HEAD_FIRST   64u /* bytes of a record's head in format 1 */
#define LMDB_HEAD         88u
#define LMDB_META_BYTES   40u
#define LMDB_DBS_MAX      8u
#define LMDB_MAP_DEFAULT  (64ull << 30)
#define LMDB_MAP_MIN      (1ull << 20)
#define LMDB_BATCH_MAX    1024u
#define LMDB_BATCH_BYTES_MAX                                                                       \
    (16u << 20) /* so that one large batch does not hold up small commits */

_Static_assert(sizeof(struct sw_store_key) == 32, "the format says 32");
_Static_assert(SW_SUBJECT_BYTES_MAX <= UINT8_MAX, "its length is one byte");
_Static_assert(SW_EXTRA_BYTES_MAX <= UINT16_MAX, "its length is two bytes");

struct lmdb_store;

/* A thread that reads. */
struct lmdb_reader {
    _Alignas(64) atomic_bool busy; /* it is using env and txn */
    _Atomic uint64_t loads;
    MDB_txn *txn; /* reset between loads; NULL: none yet, or the environment was opened anew */
    struct lmdb_store *store;
    struct sw_link link;
};

/* Where the collector is among the states of one subject. */
struct lmdb_sweep {
    size_t subject_len; /* 0: nowhere */
    char subject[SW_SUBJECT_BYTES_MAX];
    struct sw_store_key after;
};

struct lmdb_store {
    struct sw_store base;
    struct sw_store_options opt;
    char path[STORE_PATH_BYTES_MAX]; /* of data.mdb */
    int lock_fd;
    unsigned forks; /* fork generation at open */

    /* The committer's, and the readers' while they are busy. */
    MDB_env *env; /* NULL: could not be opened again */
    MDB_dbi meta, records, expiry, subjects, due, cutoffs;
    unsigned page_bytes;
    int data_fd; /* LMDB's */

    /* Readers. */
    pthread_key_t key;
    pthread_mutex_t readers_lock;
    struct sw_link readers;
    uint32_t reader_count;
    uint64_t loads_gone; /* of threads that ended */
    _Alignas(64) atomic_bool readers_stopped;
    _Atomic uint64_t cutoff_count; /* 0: nobody looks for one */

    /* Queue. */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct sw_store_commit *first, **last;
    uint32_t waiting;
    bool asleep, stop;

    /* The committer's own. */
    pthread_t thread;
    struct sw_store_commit *batch[LMDB_BATCH_MAX];
    struct sw_rng rng; /* epochs: unique, not secret */
    char *scratch;     /* a record being moved */
    size_t scratch_bytes;
    uint64_t file_bytes;
    uint64_t last_page; /* of the last committed transaction */
    bool unsynced;      /* everysec: since the last sync */
    bool overdue;       /* expired records may be left */
    uint32_t ticks;
    uint64_t tick_ns;

    /* Of the transaction that runs. */
    struct {
        uint64_t collected;
        uint64_t cutoffs; /* how many there are */
        bool due_moved;   /* the index of what is due changed */
        struct lmdb_sweep sweep;
    } now;
    struct lmdb_sweep sweep; /* as of the last committed transaction */

    /* Published for stats. */
    _Atomic uint64_t record_count, bytes_used;
};

/* An LMDB code, or an errno. */
enum sw_err sw_lmdb__err(int rc);
/* For SW_CLEANUP; takes NULL. */
void sw_lmdb__abort(MDB_txn **txn);
/* The store behind the interface; asserts that no fork lies between. */
struct lmdb_store *sw_lmdb__of(struct sw_store *store);

/* ---- lmdb_format.c --------------------------------------------------------------------------- */

static inline void put_u32(unsigned char *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}
static inline uint32_t get_u32(const unsigned char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}
static inline void put_u64(unsigned char *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof(v));
}
static inline uint64_t get_u64(const unsigned char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

/* A record as it was found. */
struct lmdb_found {
    bool there; /* perhaps expired */
    struct sw_record record;
    int64_t indexed; /* under which time it stands in `expiry`; 0: it does not */
    char subject[SW_SUBJECT_BYTES_MAX + 1]; /* record.subject points here */
};

size_t sw_lmdb__record_bytes(const struct sw_record *r);
void sw_lmdb__record_write(unsigned char *p, const struct sw_store_key *key,
                           const struct sw_record *r, int64_t indexed);
/* False: the bytes are no record of ours. Extra and value point into v, which ends with the next
 * write of the transaction; the subject is copied. The bytes of a value longer than
 * value_bytes_max are not looked at. */
SW_MUST bool sw_lmdb__record_read(MDB_val v, const struct sw_store_key *key, size_t value_bytes_max,
                                  struct lmdb_found *ret_found);
/* Writes the times of r, and `indexed`, into the len bytes of a record that was read before. */
void sw_lmdb__record_retime(unsigned char *p, size_t len, const struct sw_store_key *key,
                            const struct sw_record *r, int64_t indexed);

/* Does it stand in `expiry` where the collector finds it in time? */
bool sw_lmdb__indexed_ok(const struct lmdb_found *f);

/* A key of an index: at most LMDB's 511 bytes. */
struct lmdb_entry {
    size_t len;
    unsigned char bytes[8 + sizeof(struct sw_store_key) + 1 + SW_SUBJECT_BYTES_MAX];
};
/* In `expiry` and `due`: by time, then by key. */
struct lmdb_entry sw_lmdb__entry_at(int64_t time, const struct sw_store_key *key);
/* In `expiry`: a cut-off that the collector has to look at. */
struct lmdb_entry sw_lmdb__entry_cutoff(int64_t unix_s, struct sw_slice subject);
/* In `subjects`. */
struct lmdb_entry sw_lmdb__entry_subject(struct sw_slice subject, const struct sw_store_key *key);
/* Reads an entry of `expiry` or `due`. subject: empty when it is a record's. False: damaged. */
SW_MUST bool sw_lmdb__entry_read(MDB_val k, int64_t *ret_time, struct sw_store_key *ret_key,
                                 struct sw_slice *ret_subject);
/* Reads an entry of `subjects`. False: damaged. */
SW_MUST bool sw_lmdb__subject_read(MDB_val k, struct sw_slice *ret_subject,
                                   struct sw_store_key *ret_key);
static inline MDB_val entry_val(struct lmdb_entry *e)
{
    return (MDB_val){e->len, e->bytes};
}
static inline MDB_val key_val(const struct sw_store_key *key)
{
    return (MDB_val){sizeof(key->bytes),
                     (void *)(uintptr_t)key->bytes}; /* LMDB does not write it */
}
static inline MDB_val text_val(struct sw_slice s)
{
    return (MDB_val){s.len, (void *)(uintptr_t)s.ptr};
}

#define LMDB_CUTOFF_BYTES 32u
void sw_lmdb__cutoff_write(unsigned char p[LMDB_CUTOFF_BYTES], struct sw_slice subject,
                           const struct store_cutoff *c);
SW_MUST bool sw_lmdb__cutoff_read(MDB_val v, struct sw_slice subject,
                                  struct store_cutoff *ret_cutoff);

struct lmdb_meta {
    size_t bytes; /* of the record; 0: there is none */
    bool ours;
    uint32_t format;
    int64_t made_unix_s;
    uint8_t id[16];
    bool upgrading;           /* the upgrade was cut off, and goes on at: */
    struct sw_store_key from; /* the first record it has not looked at */
};
void sw_lmdb__meta_write(unsigned char p[LMDB_META_BYTES], const struct lmdb_meta *m);
/* m->bytes stays 0 when there is no such record. LMDB's code. */
int sw_lmdb__meta_read(MDB_txn *txn, MDB_dbi dbi, struct lmdb_meta *m);
int sw_lmdb__meta_put(MDB_txn *txn, MDB_dbi dbi, const struct lmdb_meta *m);

/* ---- lmdb_file.c ----------------------------------------------------------------------------- */

/* *ret_why: what was printed; returns err. */
/* Is this a whole file of LMDB's? SW_E_NOT_FOUND: there is no file yet. */
SW_MUST enum sw_err sw_lmdb__file_check(const char *path, const char **ret_why);
/* What the file says of itself is what this program can read. */
SW_MUST enum sw_err sw_lmdb__meta_check(const char *path, const struct lmdb_meta *m,
                                        const char **ret_why);

/* ---- lmdb_env.c ------------------------------------------------------------------------------ */

/* LMDB's codes. */
int sw_lmdb__env_open(struct lmdb_store *s, const char *path);
void sw_lmdb__env_close(struct lmdb_store *s);
/* Opens what a store of m->format has, and reads meta. */
int sw_lmdb__dbs_open(struct lmdb_store *s, struct lmdb_meta *m);
int sw_lmdb__dbs_open_in(struct lmdb_store *s, MDB_txn *txn, struct lmdb_meta *m);
/* Makes all of it, in an empty file; and what format 2 has more, in one of format 1. */
int sw_lmdb__dbs_make(struct lmdb_store *s, const struct lmdb_meta *m);
int sw_lmdb__dbs_make_in(struct lmdb_store *s, MDB_txn *txn, const struct lmdb_meta *m);
int sw_lmdb__dbs_add(struct lmdb_store *s, MDB_txn *txn);
/* Counts and times that readers go by, from what is committed. */
int sw_lmdb__publish(struct lmdb_store *s);
bool sw_lmdb__env_panics(struct lmdb_store *s);
void sw_lmdb__env_reopen(struct lmdb_store *s);
int sw_lmdb__txn_begin(struct lmdb_store *s, MDB_txn **ret_txn);
/* Frees txn even when it fails. */
int sw_lmdb__txn_commit(struct lmdb_store *s, MDB_txn *txn);
void sw_lmdb__usage_publish(struct lmdb_store *s);

/* ---- lmdb_index.c: LMDB's codes, MDB_CORRUPTED for a record that is none ----------------------
 */

int sw_lmdb__record_find(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                         size_t value_bytes_max, struct lmdb_found *f);
/* Puts r in place of old (there or not), with all its entries. */
int sw_lmdb__record_put(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                        const struct lmdb_found *old, const struct sw_record *r);
/* A record that stays as it is but for its times (and for not being due any more). */
int sw_lmdb__record_move(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                         const struct lmdb_found *old, const struct sw_record *r);
/* Takes it away with all its entries. */
int sw_lmdb__record_del(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                        const struct lmdb_found *old);
int sw_lmdb__entry_put(MDB_txn *txn, MDB_dbi dbi, struct lmdb_entry e);
int sw_lmdb__entry_del(MDB_txn *txn, MDB_dbi dbi, struct lmdb_entry e);
/* The first entry of an index by time; 0: there is none. */
int sw_lmdb__entry_first(MDB_txn *txn, MDB_dbi dbi, int64_t *ret_time);
/* *c is none when there is none. */
int sw_lmdb__cutoff_find(struct lmdb_store *s, MDB_txn *txn, struct sw_slice subject,
                         struct store_cutoff *c);
/* Puts c (there is one: in place of old), or takes old away when c is none. */
int sw_lmdb__cutoff_put(struct lmdb_store *s, MDB_txn *txn, struct sw_slice subject,
                        const struct store_cutoff *old, const struct store_cutoff *c);
/* Was this record cut off? cutoffs: how many there are; none costs nothing. */
int sw_lmdb__cut(struct lmdb_store *s, MDB_txn *txn, uint64_t cutoffs, const struct sw_record *r,
                 bool *ret_cut);

/* ---- lmdb_room.c ----------------------------------------------------------------------------- */

uint64_t sw_lmdb__map_reserve(uint64_t map_bytes_max);
int sw_lmdb__pages_free(struct lmdb_store *s, uint64_t *ret_pages, uint64_t *ret_usable);
uint64_t sw_lmdb__pages_needed(const struct lmdb_store *s, const struct sw_store_commit *op);
int sw_lmdb__pages_allowed(struct lmdb_store *s, uint64_t needed, uint64_t *ret_allowed);
void sw_lmdb__file_extend(struct lmdb_store *s, uint64_t pages);
bool sw_lmdb__disk_full(const struct lmdb_store *s, uint64_t pages);

/* ---- lmdb_commit.c, lmdb_expire.c, lmdb_upgrade.c, lmdb_read.c --------------------------------
 */

void *sw_lmdb__committer(void *store);
void sw_lmdb__commit(struct sw_store *store, struct sw_store_commit *op);

#define LMDB_COLLECT_IDLE_MAX 256u /* expired records a transaction when nobody writes */
#define LMDB_COLLECT_BUSY_MAX 32u  /* ... and beside a batch, whose sync it shares: */
#define LMDB_COLLECT_SHARE    16u  /* of its commits, and */
#define LMDB_COLLECT_BUSY_MIN 2u   /* these, so that it keeps pace with those who come one by one */
#define LMDB_COLLECT_QUIET_NS (100 * SW_NS_PER_MS) /* since the last batch: nobody writes */
/* At most max of them; clears `overdue` when no more are due. */
int sw_lmdb__collect(struct lmdb_store *s, MDB_txn *txn, size_t max, bool *ret_wrote);

/* Goes on where it was. LMDB's code. */
int sw_lmdb__upgrade(struct lmdb_store *s, struct lmdb_meta *m);

enum sw_step sw_lmdb__load(struct sw_store *store, struct sw_store_load *op);
enum sw_err sw_lmdb__scan(struct sw_store *store, const struct sw_store_key *after, size_t limit,
                          int64_t now_unix_s, sw_store_scan_fn *fn, void *arg);
enum sw_err sw_lmdb__scan_subject(struct sw_store *store, struct sw_slice subject,
                                  const struct sw_store_key *after, size_t limit,
                                  int64_t now_unix_s, sw_store_scan_fn *fn, void *arg);
enum sw_err sw_lmdb__due(struct sw_store *store, int64_t now_unix_ms, size_t limit,
                         sw_store_due_fn *fn, void *arg);
int64_t sw_lmdb__cutoff(struct sw_store *store, struct sw_slice subject);
/* A thread that read has ended: the destructor of its key. */
void sw_lmdb__reader_gone(void *reader);

/* ---- lmdb_child.c ---------------------------------------------------------------------------- */

/* The work of a child, and what it brings back: shared memory, so it outlives a crash. */
struct lmdb_child {
    enum sw_err err;
    bool done;
    uint32_t said; /* complaints */
    int pipe;      /* they go there */
    char why[1024];
    struct sw_store_checked checked;
};
typedef enum sw_err lmdb_child_fn(struct lmdb_child *c, void *arg, const char **ret_why);

/* Runs fn in a forked process, and passes on what it complains of. LMDB trusts its file: where that
 * is garbage the child may die, which is one more complaint, and SW_E_STORE_CORRUPT. */
SW_MUST enum sw_err sw_lmdb__in_child(lmdb_child_fn *fn, void *arg,
                                      void (*complain)(void *arg, const char *text),
                                      void *complain_arg, struct sw_store_checked *ret_checked,
                                      const char **ret_why);
#define LMDB_SAID_MAX 100u
void sw_lmdb__complain(struct lmdb_child *c, const char *fmt, ...) SW_PRINTF(2, 3);

/* A store's file, read beside a gateway that may have it open. */
struct lmdb_source {
    struct lmdb_store s; /* path, env, databases, page_bytes, last_page */
    struct lmdb_meta meta;
    MDB_txn *txn;        /* one moment of it */
    int file_fd;         /* a shared flock on data.mdb keeps `compact` away */
    uint64_t file_bytes; /* on the disk */
    uint64_t map_bytes;
};
/* For the child only. `alone`: the caller holds all locks, LMDB's are not needed. */
SW_MUST enum sw_err sw_lmdb__source_open(struct lmdb_source *x, struct sw_slice folder, bool alone,
                                         const char **ret_why);
void sw_lmdb__source_close(struct lmdb_source *x);
/* What is wrong with a read, and what to do, for people. */
enum sw_err sw_lmdb__source_failed(const struct lmdb_source *x, int rc, const char **ret_why);

#endif
