/* store/lmdb_read.c - reading: inline on the worker, no lock, no wait.
 *
 * Room       store/. Any thread, by a read transaction that it keeps and renews; at most
 *            readers_max of them. What was cut off reads as ended: where there is no cut-off that
 *            costs nothing, else one lookup for a state with a subject.
 */
#include "store/lmdb_priv.h"

#include <sched.h>
#include <sys/stat.h>

/* A thread that read has ended. */
void sw_lmdb__reader_gone(void *arg)
{
    struct lmdb_reader *r = arg;
    struct lmdb_store *s = r->store;

    pthread_mutex_lock(&s->readers_lock);
    sw_link_remove(&r->link);
    s->reader_count--;
    s->loads_gone += atomic_load_explicit(&r->loads, memory_order_relaxed);
    mdb_txn_abort(sw_take(&r->txn));
    pthread_mutex_unlock(&s->readers_lock);
    free(r);
}

/* The calling thread's reader; NULL: there are too many threads. */
static struct lmdb_reader *reader_of(struct lmdb_store *s)
{
    struct lmdb_reader *r = pthread_getspecific(s->key);

    if (SW_LIKELY(r != NULL)) {
        return r;
    }
    r = aligned_alloc(64, sizeof(*r));
    if (r == NULL) {
        return NULL;
    }
    memset(r, 0, sizeof(*r));
    r->store = s;
    pthread_mutex_lock(&s->readers_lock);
    if (s->reader_count >= s->opt.readers_max || pthread_setspecific(s->key, r) != 0) {
        pthread_mutex_unlock(&s->readers_lock);
        free(r);
        return NULL;
    }
    sw_list_push_back(&s->readers, &r->link);
    s->reader_count++;
    pthread_mutex_unlock(&s->readers_lock);
    return r;
}

/* A read transaction takes the number N of the last published commit, and then copies the meta page
 * of the even or the odd numbers. If the thread is put to sleep between the two, a later commit, N
 * + 2, may be there that is not yet synced nor published: it must not be read. (Seen: with six
 * threads on two busy cores a reader went back by one version every few thousand commits.) */
static bool txn_current(struct lmdb_store *s, MDB_txn *txn)
{
    MDB_envinfo info;
    int rc = mdb_env_info(s->env, &info);

    return rc == 0 && info.me_last_txnid <= mdb_txn_id(txn) + 1;
}

/* From here to reader_leave the environment stays open. */
static enum sw_err reader_enter(struct lmdb_store *s, struct lmdb_reader **ret_reader)
{
    struct lmdb_reader *r = reader_of(s);
    int rc;

    if (r == NULL) {
        return SW_E_STORE_BUSY;
    }
    SW_ASSERT(!atomic_load_explicit(&r->busy, memory_order_relaxed));
    atomic_store(&r->busy, true);
    if (atomic_load(&s->readers_stopped)) { /* both sequentially consistent: see env_reopen */
        atomic_store_explicit(&r->busy, false, memory_order_release);
        return SW_E_STORE_IO;
    }
    do {
        if (r->txn != NULL) {
            mdb_txn_reset(r->txn); /* a second time does nothing */
            rc = mdb_txn_renew(r->txn);
        } else {
            rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &r->txn);
        }
        if (rc != 0) {
            mdb_txn_abort(sw_take(&r->txn));
            atomic_store_explicit(&r->busy, false, memory_order_release);
            return sw_lmdb__err(rc);
        }
    } while (!txn_current(s, r->txn));
    *ret_reader = r;
    return SW_OK;
}

static void reader_leave(struct lmdb_reader *r)
{
    mdb_txn_reset(r->txn);
    atomic_store_explicit(&r->busy, false, memory_order_release);
}

/* ---- one record ------------------------------------------------------------------------------ */

/* A live record, as it is answered. SW_E_NOT_FOUND: there is none. */
static enum sw_err find_live(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                             size_t value_bytes_max, int64_t now_unix_s, struct lmdb_found *f)
{
    bool cut;
    int rc = sw_lmdb__record_find(s, txn, key, value_bytes_max, f);

    if (rc != 0) {
        return sw_lmdb__err(rc);
    }
    if (!f->there || sw_store__expired(f->record.expires_unix_s, now_unix_s)) {
        return SW_E_NOT_FOUND;
    }
    rc = sw_lmdb__cut(s, txn, atomic_load(&s->cutoff_count), &f->record, &cut);
    if (cut) {
        f->record = sw_store__tombstone_of(&f->record);
    }
    return sw_lmdb__err(rc);
}

static enum sw_err load_by(struct lmdb_store *s, struct lmdb_reader *r, struct sw_store_load *op)
{
    struct lmdb_found f;
    size_t max = op->value_bytes_max == 0 ? SIZE_MAX : op->value_bytes_max;
    enum sw_err err = find_live(s, r->txn, &op->key, max, op->now_unix_s, &f);

    if (err != SW_OK) {
        return err;
    }
    f.record.subject = sw_arena_copy(op->arena, f.record.subject);
    f.record.extra = sw_arena_copy(op->arena, f.record.extra);
    if (f.record.value.len <= max) {
        f.record.value = sw_arena_copy(op->arena, f.record.value);
    } else {
        f.record.value.ptr = NULL;
    }
    if (op->arena->overflowed) {
        return SW_E_NO_MEMORY;
    }
    op->record = f.record;
    return SW_OK;
}

enum sw_step sw_lmdb__load(struct sw_store *store, struct sw_store_load *op)
{
    struct lmdb_store *s = sw_lmdb__of(store);
    struct lmdb_reader *r;

    op->err = reader_enter(s, &r);
    if (op->err == SW_OK) {
        op->err = load_by(s, r, op);
        /* relaxed load and store: only this thread writes it */
        atomic_store_explicit(&r->loads, atomic_load_explicit(&r->loads, memory_order_relaxed) + 1,
                              memory_order_relaxed);
        reader_leave(r);
    }
    return SW_STEP_DONE;
}

/* ---- many ------------------------------------------------------------------------------------ */

static enum sw_err scan_by(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *after,
                           size_t limit, int64_t now, sw_store_scan_fn *fn, void *arg)
{
    struct sw_store_key key = {{0}};
    MDB_cursor *cursor;
    MDB_val k = key_val(&key), v;
    int rc = mdb_cursor_open(txn, s->records, &cursor);

    if (rc != 0) {
        return sw_lmdb__err(rc);
    }
    if (after != NULL) {
        key = *after;
    }
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (rc == 0 && limit > 0) {
        struct lmdb_found f;
        bool cut;

        memcpy(key.bytes, k.mv_data, SW_MIN(k.mv_size, sizeof(key.bytes)));
        if (k.mv_size != sizeof(key.bytes) || !sw_lmdb__record_read(v, &key, SIZE_MAX, &f)) {
            rc = MDB_CORRUPTED;
            break;
        }
        if ((after == NULL || memcmp(&key, after, sizeof(key)) != 0) &&
            !sw_store__expired(f.record.expires_unix_s, now)) {
            rc = sw_lmdb__cut(s, txn, atomic_load(&s->cutoff_count), &f.record, &cut);
            if (rc != 0) {
                break;
            }
            if (!cut) {
                fn(arg, &key, &f.record);
                limit--;
            }
        }
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? SW_OK : sw_lmdb__err(rc);
}

enum sw_err sw_lmdb__scan(struct sw_store *store, const struct sw_store_key *after, size_t limit,
                          int64_t now_unix_s, sw_store_scan_fn *fn, void *arg)
{
    struct lmdb_store *s = sw_lmdb__of(store);
    struct lmdb_reader *r;
    enum sw_err err = reader_enter(s, &r);

    if (err == SW_OK) {
        err = scan_by(s, r->txn, after, limit, now_unix_s, fn, arg);
        reader_leave(r);
    }
    return err;
}

static enum sw_err scan_subject_by(struct lmdb_store *s, MDB_txn *txn, struct sw_slice subject,
                                   const struct sw_store_key *after, size_t limit, int64_t now,
                                   sw_store_scan_fn *fn, void *arg)
{
    static const struct sw_store_key zero;
    struct lmdb_entry e = sw_lmdb__entry_subject(subject, after != NULL ? after : &zero);
    MDB_cursor *cursor;
    MDB_val k = entry_val(&e), v;
    enum sw_err err = SW_OK;
    int rc = mdb_cursor_open(txn, s->subjects, &cursor);

    if (rc != 0) {
        return sw_lmdb__err(rc);
    }
    for (rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); rc == 0 && limit > 0;
         rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        struct sw_store_key key;
        struct sw_slice found;
        struct lmdb_found f;

        if (!sw_lmdb__subject_read(k, &found, &key)) {
            err = SW_E_STORE_CORRUPT;
            break;
        }
        if (!sw_slice_eq(found, subject)) {
            break;
        }
        if (after != NULL && memcmp(&key, after, sizeof(key)) == 0) {
            continue;
        }
        err = find_live(s, txn, &key, SIZE_MAX, now, &f);
        if (err == SW_OK && f.record.kind == SW_RECORD_STATE) {
            fn(arg, &key, &f.record);
            limit--;
        }
        if (err != SW_OK && err != SW_E_NOT_FOUND) {
            break;
        }
        err = SW_OK;
    }
    mdb_cursor_close(cursor);
    return err != SW_OK ? err : rc == 0 || rc == MDB_NOTFOUND ? SW_OK : sw_lmdb__err(rc);
}

enum sw_err sw_lmdb__scan_subject(struct sw_store *store, struct sw_slice subject,
                                  const struct sw_store_key *after, size_t limit,
                                  int64_t now_unix_s, sw_store_scan_fn *fn, void *arg)
{
    struct lmdb_store *s = sw_lmdb__of(store);
    struct lmdb_reader *r;
    enum sw_err err = reader_enter(s, &r);

    if (err == SW_OK) {
        err = scan_subject_by(s, r->txn, subject, after, limit, now_unix_s, fn, arg);
        reader_leave(r);
    }
    return err;
}

static enum sw_err due_by(struct lmdb_store *s, MDB_txn *txn, int64_t now_ms, size_t limit,
                          sw_store_due_fn *fn, void *arg)
{
    size_t dead_max = STORE_DUE_SKIP_MAX;
    enum sw_err err = SW_OK;
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, s->due, &cursor);

    if (rc != 0) {
        return sw_lmdb__err(rc);
    }
    while (limit > 0 && dead_max > 0 && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        struct sw_store_key key;
        struct sw_slice none;
        struct lmdb_found f;
        int64_t at;

        if (!sw_lmdb__entry_read(k, &at, &key, &none)) {
            dead_max--; /* damaged: the collector takes it out */
            continue;
        }
        if (at > now_ms) {
            break;
        }
        err = find_live(s, txn, &key, 0, now_ms / 1000, &f);
        if (err == SW_OK && f.record.due_unix_ms == at) {
            fn(arg, &key, at);
            limit--;
        } else { /* ended, or damaged: that keeps nobody else waiting */
            dead_max--;
        }
        err = SW_OK;
    }
    mdb_cursor_close(cursor);
    return err != SW_OK ? err : rc == 0 || rc == MDB_NOTFOUND ? SW_OK : sw_lmdb__err(rc);
}

enum sw_err sw_lmdb__due(struct sw_store *store, int64_t now_unix_ms, size_t limit,
                         sw_store_due_fn *fn, void *arg)
{
    struct lmdb_store *s = sw_lmdb__of(store);
    struct lmdb_reader *r;
    enum sw_err err = reader_enter(s, &r);

    if (err == SW_OK) {
        err = due_by(s, r->txn, now_unix_ms, limit, fn, arg);
        reader_leave(r);
    }
    return err;
}

int64_t sw_lmdb__cutoff(struct sw_store *store, struct sw_slice subject)
{
    struct lmdb_store *s = sw_lmdb__of(store);
    struct store_cutoff c = {0};
    struct lmdb_reader *r;

    if (atomic_load(&s->cutoff_count) == 0 || reader_enter(s, &r) != SW_OK) {
        return 0;
    }
    if (sw_lmdb__cutoff_find(s, r->txn, subject, &c) != 0) {
        c.not_before_unix_ms = 0;
    }
    reader_leave(r);
    return c.not_before_unix_ms;
}
