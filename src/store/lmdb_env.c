/* store/lmdb_env.c - LMDB's environment, and transactions that write.
 *
 * Room       store/. The committer's thread; at open and close, the thread that does so.
 *
 * Syncing. always: LMDB's own order, data pages, fdatasync, meta page with O_DSYNC: nothing that
 * was acknowledged is lost, whatever happens. everysec and no: MDB_NOSYNC; a killed process loses
 * nothing, but if the machine dies, up to a second (or what the kernel had not written) is lost,
 * and since pages may reach the disk in any order the file can be damaged and must then be
 * restored: lmdb.h says so, and it is why `always` is the default.
 *
 * A disk error while the meta page is written makes LMDB refuse everything, reads too, until the
 * environment is opened again (MDB_PANIC). The committer does that: it stops the readers for the
 * moment, by a flag each of them raises while it reads (a cache line of its own, no lock).
 */
#include "store/lmdb_priv.h"

#include <errno.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

enum sw_err sw_lmdb__err(int rc)
{
    switch (rc) {
    case MDB_SUCCESS:
        return SW_OK;
    case MDB_NOTFOUND:
        return SW_E_NOT_FOUND;
    case MDB_MAP_FULL:
        return SW_E_STORE_FULL;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
        return SW_E_STORE_CORRUPT;
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
        return SW_E_STORE_FORMAT;
    case MDB_READERS_FULL:
        return SW_E_STORE_BUSY;
    default:
        return sw_store__errno(rc);
    }
}

void sw_lmdb__abort(MDB_txn **txn)
{
    mdb_txn_abort(*txn); /* takes NULL */
}

void sw_lmdb__env_close(struct lmdb_store *s)
{
    if (s->env != NULL) {
        mdb_env_close(s->env);
        s->env = NULL;
    }
}

int sw_lmdb__env_open(struct lmdb_store *s, const char *path)
{
    unsigned flags = MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD;
    uint64_t map = s->opt.map_bytes_max + sw_lmdb__map_reserve(s->opt.map_bytes_max);
    MDB_envinfo info;
    MDB_stat stat;
    struct stat st;
    int rc;

    if (s->opt.sync != SW_SYNC_ALWAYS) {
        flags |= MDB_NOSYNC;
    }
    rc = mdb_env_create(&s->env);
    if (rc != 0) {
        s->env = NULL;
        return rc;
    }
    if ((rc = mdb_env_set_mapsize(s->env, map)) != 0 ||
        (rc = mdb_env_set_maxdbs(s->env, LMDB_DBS_MAX)) != 0 ||
        (rc = mdb_env_set_maxreaders(s->env, s->opt.readers_max + 4)) != 0 ||
        (rc = mdb_env_open(s->env, path, flags, 0600)) != 0 ||
        (rc = mdb_env_get_fd(s->env, &s->data_fd)) != 0 ||
        (rc = mdb_env_stat(s->env, &stat)) != 0 || (rc = mdb_env_info(s->env, &info)) != 0) {
        sw_lmdb__env_close(s);
        return rc;
    }
    if (fstat(s->data_fd, &st) != 0) {
        rc = errno;
        sw_lmdb__env_close(s);
        return rc;
    }
    s->page_bytes = stat.ms_psize;
    s->last_page = info.me_last_pgno;
    s->file_bytes = (uint64_t)st.st_size;
    return 0;
}

static int dbs_open_all(struct lmdb_store *s, MDB_txn *txn, unsigned flags, uint32_t format)
{
    int rc;

    if ((rc = mdb_dbi_open(txn, "records", flags, &s->records)) != 0 ||
        (rc = mdb_dbi_open(txn, "expiry", flags, &s->expiry)) != 0 || format == LMDB_FORMAT_FIRST ||
        (rc = mdb_dbi_open(txn, "subjects", flags, &s->subjects)) != 0 ||
        (rc = mdb_dbi_open(txn, "due", flags, &s->due)) != 0) {
        return rc;
    }
    return mdb_dbi_open(txn, "cutoffs", flags, &s->cutoffs);
}

int sw_lmdb__dbs_open_in(struct lmdb_store *s, MDB_txn *txn, struct lmdb_meta *m)
{
    int rc;

    *m = (struct lmdb_meta){0};
    if ((rc = mdb_dbi_open(txn, "meta", 0, &s->meta)) != 0 ||
        (rc = sw_lmdb__meta_read(txn, s->meta, m)) != 0) {
        return rc;
    }
    if (!m->ours || m->format < LMDB_FORMAT_FIRST || m->format > LMDB_FORMAT) {
        return 0; /* sw_lmdb__meta_check says so */
    }
    return dbs_open_all(s, txn, 0, m->format);
}

int sw_lmdb__dbs_open(struct lmdb_store *s, struct lmdb_meta *m)
{
    SW_CLEANUP(sw_lmdb__abort) MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    *m = (struct lmdb_meta){0};
    if (rc == 0) {
        rc = sw_lmdb__dbs_open_in(s, txn, m);
    }
    return rc != 0 ? rc : mdb_txn_commit(sw_take(&txn)); /* the handles stay */
}

int sw_lmdb__dbs_make_in(struct lmdb_store *s, MDB_txn *txn, const struct lmdb_meta *m)
{
    int rc;

    if ((rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &s->meta)) != 0 ||
        (rc = sw_lmdb__meta_put(txn, s->meta, m)) != 0) {
        return rc;
    }
    return dbs_open_all(s, txn, MDB_CREATE, m->format);
}

int sw_lmdb__dbs_make(struct lmdb_store *s, const struct lmdb_meta *m)
{
    SW_CLEANUP(sw_lmdb__abort) MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn);

    if (rc == 0) {
        rc = sw_lmdb__dbs_make_in(s, txn, m);
    }
    if (rc == 0) {
        rc = mdb_txn_commit(sw_take(&txn));
    }
    if (rc == 0) {
        sw_lmdb__file_extend(s, 0);
        rc = mdb_env_sync(s->env, 1);
    }
    return rc;
}

int sw_lmdb__dbs_add(struct lmdb_store *s, MDB_txn *txn)
{
    return dbs_open_all(s, txn, MDB_CREATE, LMDB_FORMAT);
}

int sw_lmdb__publish(struct lmdb_store *s)
{
    SW_CLEANUP(sw_lmdb__abort) MDB_txn *txn = NULL;
    MDB_stat stat;
    int64_t due;
    int rc;

    if ((rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn)) != 0 ||
        (rc = sw_lmdb__entry_first(txn, s->due, &due)) != 0 ||
        (rc = mdb_stat(txn, s->cutoffs, &stat)) != 0) {
        return rc;
    }
    atomic_store(&s->cutoff_count, stat.ms_entries);
    atomic_store(&s->base.next_due_unix_ms, due);
    return 0;
}

/* ---- again, after a panic -------------------------------------------------------------------- */

/* The environment broke (MDB_PANIC): opens it anew. Readers get SW_E_STORE_IO meanwhile. */
void sw_lmdb__env_reopen(struct lmdb_store *s)
{
    struct lmdb_meta meta;
    int rc;

    atomic_store(&s->readers_stopped, true);
    pthread_mutex_lock(&s->readers_lock);
    for (struct sw_link *l = s->readers.next; l != &s->readers; l = l->next) {
        struct lmdb_reader *r = SW_CONTAINER(l, struct lmdb_reader, link);

        while (atomic_load(&r->busy)) {
            sched_yield(); /* a load takes microseconds */
        }
        mdb_txn_abort(sw_take(&r->txn));
    }
    sw_lmdb__env_close(s);
    rc = sw_lmdb__env_open(s, s->path);
    if (rc == 0) {
        rc = sw_lmdb__dbs_open(s, &meta);
        if (rc != 0 || meta.bytes != LMDB_META_BYTES || meta.format != LMDB_FORMAT ||
            sw_lmdb__publish(s) != 0) {
            sw_lmdb__env_close(s);
        }
    }
    if (s->env != NULL) {
        atomic_store(&s->readers_stopped, false);
    }
    pthread_mutex_unlock(&s->readers_lock);
}

bool sw_lmdb__env_panics(struct lmdb_store *s)
{
    MDB_txn *txn = NULL;
    int rc = s->env == NULL ? MDB_PANIC : mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    mdb_txn_abort(txn);
    return rc == MDB_PANIC;
}

/* ---- transactions that write ----------------------------------------------------------------- */

int sw_lmdb__txn_begin(struct lmdb_store *s, MDB_txn **ret_txn)
{
    int rc = s->env == NULL ? MDB_PANIC : mdb_txn_begin(s->env, NULL, 0, ret_txn);

    if (rc == MDB_PANIC) {
        sw_lmdb__env_reopen(s);
        rc = s->env == NULL ? EIO : mdb_txn_begin(s->env, NULL, 0, ret_txn);
    }
    s->now.collected = 0;
    s->now.cutoffs = atomic_load(&s->cutoff_count);
    s->now.due_moved = false;
    s->now.sweep = s->sweep;
    return rc;
}

int sw_lmdb__txn_commit(struct lmdb_store *s, MDB_txn *txn)
{
    uint64_t cutoffs = atomic_load(&s->cutoff_count);
    int64_t due = 0;
    MDB_envinfo info;
    MDB_stat stat;
    bool counted = mdb_stat(txn, s->records, &stat) == 0;
    int rc = s->now.due_moved ? sw_lmdb__entry_first(txn, s->due, &due) : 0;

    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    /* Who sees the first cut-off's transaction must also look for it. */
    atomic_store(&s->cutoff_count, SW_MAX(cutoffs, s->now.cutoffs));
    rc = mdb_txn_commit(txn);
    if (rc != 0) {
        atomic_store(&s->cutoff_count, cutoffs);
        if (sw_lmdb__env_panics(s)) {
            sw_lmdb__env_reopen(s); /* now, so that readers do not wait for the next commit */
        }
        return rc;
    }
    atomic_store(&s->cutoff_count, s->now.cutoffs);
    if (s->now.due_moved) {
        atomic_store_explicit(&s->base.next_due_unix_ms, due, memory_order_relaxed);
    }
    s->sweep = s->now.sweep;
    sw_store__add(&s->base.expired, s->now.collected);
    if (counted) {
        atomic_store_explicit(&s->record_count, stat.ms_entries, memory_order_relaxed);
    }
    if (mdb_env_info(s->env, &info) == 0) {
        s->last_page = info.me_last_pgno;
    }
    if (s->opt.sync == SW_SYNC_ALWAYS) {
        sw_store__add(&s->base.syncs, 1);
    } else {
        s->unsynced = true;
    }
    return 0;
}

void sw_lmdb__usage_publish(struct lmdb_store *s)
{
    SW_CLEANUP(sw_lmdb__abort) MDB_txn *txn = NULL;
    MDB_stat stat;
    uint64_t freed, usable;

    if (s->env == NULL || mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0) {
        return;
    }
    if (mdb_stat(txn, s->records, &stat) == 0) {
        atomic_store_explicit(&s->record_count, stat.ms_entries, memory_order_relaxed);
    }
    if (sw_lmdb__pages_free(s, &freed, &usable) == 0) {
        atomic_store_explicit(&s->bytes_used,
                              (s->last_page + 1 - SW_MIN(freed, s->last_page)) * s->page_bytes,
                              memory_order_relaxed);
    }
}
