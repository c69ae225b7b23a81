/* store/store_priv.h - what the stores share: dispatch, counters, folders, the rules of a write.
 *
 * The rules are here, in one pure function, so that no store can have its own: a store finds the
 * record, asks for a plan, and carries it out or refuses the commit.
 */
#ifndef SW_STORE_PRIV_H
#define SW_STORE_PRIV_H

#include <stdatomic.h>
#include <time.h>

#include "io/io.h"
#include "store/store.h"

#define STORE_MAGIC 0x53544f52u /* "STOR" */

struct store_ops {
    const char *name;
    enum sw_step (*load)(struct sw_store *s, struct sw_store_load *op);
    void (*commit)(struct sw_store *s, struct sw_store_commit *op);
    void (*stats)(struct sw_store *s, struct sw_store_stats *st); /* sizes, queue, loads */
    enum sw_err (*scan)(struct sw_store *s, const struct sw_store_key *after, size_t limit,
                        int64_t now_unix_s, sw_store_scan_fn *fn, void *arg);
    enum sw_err (*scan_subject)(struct sw_store *s, struct sw_slice subject,
                                const struct sw_store_key *after, size_t limit, int64_t now_unix_s,
                                sw_store_scan_fn *fn, void *arg);
    enum sw_err (*due)(struct sw_store *s, int64_t now_unix_ms, size_t limit, sw_store_due_fn *fn,
                       void *arg);
    int64_t (*cutoff)(struct sw_store *s, struct sw_slice subject);
    void (*close)(struct sw_store *s);
};

/* First member of each store. */
struct sw_store {
    uint32_t magic;
    const struct store_ops *ops;
    /* Written by one thread (under a lock, or the committer), read by any. */
    _Atomic uint64_t commits, writes, conflicts, failures, expired, syncs, commit_ns_total;
    _Atomic uint64_t commit_hist[SW_STORE_HIST_BUCKETS];
    _Atomic int64_t next_due_unix_ms; /* of the first entry in the index of what is due; 0: none */
};

void sw_store__init(struct sw_store *s, const struct store_ops *ops);
/* Counts an answered commit and fills done_ns. op->err and queued_ns are set. */
void sw_store__count(struct sw_store *s, struct sw_store_commit *op, uint64_t now_ns);
static inline void sw_store__add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- folder.c: what all stores that keep files share ----------------------------------------- */

#define STORE_PATH_BYTES_MAX 4096
#define STORE_NAME_BYTES_MAX 32 /* of a file in a store's folder, and what goes with it */

/* *ret_why: what was printed (valid until this thread's next call); returns err. */
enum sw_err sw_store__refuse(enum sw_err err, const char **ret_why, const char *fmt, ...)
    SW_PRINTF(3, 4);
/* Of an errno; 0: SW_OK. */
enum sw_err sw_store__errno(int error);
uint64_t sw_store__clock_ns(clockid_t id);
void sw_store__fd_close(int *fd);

SW_MUST bool sw_store__path_ok(struct sw_slice folder);
/* folder/name; sw_store__path_ok looked at the folder. */
void sw_store__path_join(char out[STORE_PATH_BYTES_MAX], struct sw_slice folder, const char *name);

enum store_files { STORE_FILES_LMDB, STORE_FILES_JOURNAL };
/* The folder's descriptor; made (0700) when it is not there and `make`. SW_E_NOT_FOUND,
 * SW_E_STORE_FORMAT: it holds a store of the other kind; SW_E_UNSUPPORTED, SW_E_LIMIT and others.
 */
SW_MUST enum sw_err sw_store__folder_open(struct sw_slice folder, enum store_files files, bool make,
                                          int *ret_fd, const char **ret_why);
/* Does it hold a store of the other kind? SW_E_STORE_FORMAT, with what to do. */
SW_MUST enum sw_err sw_store__folder_kind(struct sw_slice folder, int folder_fd,
                                          enum store_files files, const char **ret_why);
/* The lock of who writes; until *ret_fd is closed. SW_E_STORE_LOCKED. */
SW_MUST enum sw_err sw_store__lock_take(struct sw_slice folder, int folder_fd, int *ret_fd,
                                        const char **ret_why);

/* A folder that is made under another name ("to.part-XXXXXX"), and named when all in it is synced.
 * Whoever makes one holds its lock, so that the next one knows which of those that lie there were
 * killed. */
struct store_part {
    char to[STORE_PATH_BYTES_MAX], part[STORE_PATH_BYTES_MAX];
    int fd;
};
/* `to` must not exist; p->part was made (0700). Those that were killed on the way to `to` are
 * removed. */
SW_MUST enum sw_err sw_store__part_make(struct sw_slice to, struct store_part *p,
                                        const char **ret_why);
/* Names it; or, when that cannot be done, removes it. */
SW_MUST enum sw_err sw_store__part_name(struct store_part *p, const char **ret_why);
/* It was not finished: removes it. */
void sw_store__part_drop(struct store_part *p);

/* ---- the rules ------------------------------------------------------------------------------- */

enum store_act {
    STORE_KEEP,   /* nothing to write */
    STORE_PUT,    /* the record as planned, value and subject included */
    STORE_RETIME, /* touched_unix_s and expires_unix_s of the record that is there */
    STORE_CUTOFF, /* the cut-off as planned */
};

/* The end of a subject's states (SW_WRITE_CUTOFF). */
struct store_cutoff {
    int64_t not_before_unix_ms; /* 0: there is none */
    int64_t expires_unix_s;     /* 0: never */
    int64_t look_unix_s;        /* when the collector looks at it next; 0: never */
};

struct store_plan {
    enum sw_err err;
    enum store_act act;
    struct sw_record record; /* what is there afterwards; slices are the write's (RETIME: unset) */
    struct store_cutoff cutoff; /* CUTOFF */
};

/* Wall time of a commit. */
struct store_now {
    int64_t unix_s;  /* the asker's: what has expired */
    int64_t unix_ms; /* the store's, when it makes the commit: since when a subject is bound */
};

/* Is the record gone by then? */
static inline bool sw_store__expired(int64_t expires_unix_s, int64_t now_unix_s)
{
    return expires_unix_s != 0 && expires_unix_s <= now_unix_s;
}
/* Is it of those that a cut-off of its subject ends, and that stand in the index of subjects? */
static inline bool sw_store__has_subject(const struct sw_record *r)
{
    return r->kind == SW_RECORD_STATE && r->subject.len > 0;
}
/* Was it ended by this cut-off of its subject? */
static inline bool sw_store__cut(const struct sw_record *r, int64_t not_before_unix_ms)
{
    return not_before_unix_ms != 0 && sw_store__has_subject(r) &&
           r->bound_unix_ms <= not_before_unix_ms;
}
/* What is answered for a state that was cut off: nothing of its owner is left. */
struct sw_record sw_store__tombstone_of(const struct sw_record *r);

/* What becomes of a write that finds `seen` (NULL: no record, or an expired one), which was cut off
 * if `cut` is true. fresh_epoch is taken when the key is made (again): random, so that versions
 * never come back. Pure; not for SW_WRITE_CUTOFF. */
struct store_plan sw_store__plan(const struct sw_write *w, const struct sw_record *seen, bool cut,
                                 struct store_now now, uint64_t fresh_epoch);
/* What becomes of a SW_WRITE_CUTOFF that finds `seen`. Pure. */
struct store_plan sw_store__plan_cutoff(const struct sw_write *w, const struct store_cutoff *seen,
                                        int64_t now_unix_s);

/* Entries of the index of what is due that are passed over in one sw_store_due, because their
 * records have ended. The collector takes those away. */
#define STORE_DUE_SKIP_MAX 256

#endif
