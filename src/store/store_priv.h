/* store/store_priv.h - what the stores share: dispatch, counters, and the rules of a write.
 *
 * The rules are here, in one pure function, so that no store can have its own: a store finds the
 * record, asks for a plan, and carries it out or refuses the commit.
 */
#ifndef SW_STORE_PRIV_H
#define SW_STORE_PRIV_H

#include <stdatomic.h>

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
    void (*close)(struct sw_store *s);
};

/* First member of each store. */
struct sw_store {
    uint32_t magic;
    const struct store_ops *ops;
    /* Written by one thread (under a lock, or the committer), read by any. */
    _Atomic uint64_t commits, writes, conflicts, failures, expired, syncs, commit_ns_total;
    _Atomic uint64_t commit_hist[SW_STORE_HIST_BUCKETS];
};

void sw_store__init(struct sw_store *s, const struct store_ops *ops);
/* Counts an answered commit and fills done_ns. op->err and queued_ns are set. */
void sw_store__count(struct sw_store *s, struct sw_store_commit *op, uint64_t now_ns);
static inline void sw_store__add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- the rules --------------------------------------------------------------------------------
 */

enum store_act {
    STORE_KEEP,   /* nothing to write */
    STORE_PUT,    /* the record as planned, value and subject included */
    STORE_RETIME, /* touched_unix_s and expires_unix_s of the record that is there */
};

struct store_plan {
    enum sw_err err;
    enum store_act act;
    struct sw_record record; /* what is there afterwards; slices are the write's (RETIME: unset) */
};

/* Is the record gone by then? */
static inline bool sw_store__expired(int64_t expires_unix_s, int64_t now_unix_s)
{
    return expires_unix_s != 0 && expires_unix_s <= now_unix_s;
}

/* What becomes of a write that finds `seen` (NULL: no record, or an expired one). fresh_epoch is
 * taken when the key is made (again): random, so that versions never come back. Pure. */
struct store_plan sw_store__plan(const struct sw_write *w, const struct sw_record *seen,
                                 int64_t now_unix_s, uint64_t fresh_epoch);

#endif
