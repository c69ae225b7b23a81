/* store/lmdb_commit.c - queue, committer thread, group commit.
 *
 * Room       store/. sw_lmdb__commit runs on a worker; the rest is the committer's.
 */
#include "store/lmdb_priv.h"

#include <sys/prctl.h>

#include <errno.h>
#include <unistd.h>

#define TICK_NS            SW_NS_PER_S
#define PAGES_A_COMMIT     8u /* what deletes, touches and index entries take of the file's slack */
#define READER_CHECK_TICKS 10u /* readers of other processes that were killed hold pages */

/* store_private of a commit. */
struct commit_wait {
    struct sw_post post;
    struct sw_store_commit *next;
};
_Static_assert(sizeof(struct commit_wait) <= sizeof(((struct sw_store_commit *)0)->store_private),
               "a waiting commit fits");

static struct commit_wait *wait_of(struct sw_store_commit *op)
{
    return (struct commit_wait *)(void *)op->store_private;
}
/* ---- one commit within a transaction --------------------------------------------------------- */

/* What a write finds, and what becomes of it. */
struct writing {
    struct store_plan plan;
    struct lmdb_found found;    /* not of a cut-off */
    struct store_cutoff cutoff; /* that was there */
};

static uint64_t epoch_new(struct lmdb_store *s)
{
    return sw_rng_u64(&s->rng) | 1;
}

static int write_plan(struct lmdb_store *s, MDB_txn *txn, const struct sw_write *w,
                      struct store_now now, struct writing *ret)
{
    bool live, cut = false;
    int rc;

    if (w->kind == SW_WRITE_CUTOFF) {
        ret->cutoff = (struct store_cutoff){0};
        rc = w->subject.len == 0 || w->subject.len > SW_SUBJECT_BYTES_MAX
                 ? 0 /* the plan refuses it */
                 : sw_lmdb__cutoff_find(s, txn, w->subject, &ret->cutoff);
        if (rc == 0) {
            ret->plan = sw_store__plan_cutoff(w, &ret->cutoff, now.unix_s);
        }
        return rc;
    }
    rc = sw_lmdb__record_find(s, txn, &w->key, SIZE_MAX, &ret->found);
    live = ret->found.there && !sw_store__expired(ret->found.record.expires_unix_s, now.unix_s);
    if (rc == 0 && live) {
        rc = sw_lmdb__cut(s, txn, s->now.cutoffs, &ret->found.record, &cut);
    }
    if (rc == 0) {
        ret->plan = sw_store__plan(w, live ? &ret->found.record : NULL, cut, now, epoch_new(s));
    }
    return rc;
}

static int write_make(struct lmdb_store *s, MDB_txn *txn, const struct sw_write *w,
                      const struct writing *x)
{
    switch (x->plan.act) {
    case STORE_KEEP:
        return 0;
    case STORE_PUT:
        return sw_lmdb__record_put(s, txn, &w->key, &x->found, &x->plan.record);
    case STORE_RETIME:
        return sw_lmdb__record_move(s, txn, &w->key, &x->found, &x->plan.record);
    case STORE_CUTOFF:
        return sw_lmdb__cutoff_put(s, txn, w->subject, &x->cutoff, &x->plan.cutoff);
    }
    SW_UNREACHABLE();
}

/* Sets op->err when the commit is refused: then nothing of it is in txn. What it returns otherwise
 * than 0 spoils the transaction. All expectations are looked at before the first write, on the
 * transaction's view, so commits of one batch see each other and need no nested transactions. */
static int commit_apply(struct lmdb_store *s, MDB_txn *txn, struct sw_store_commit *op,
                        bool *ret_wrote)
{
    struct store_now now = {op->now_unix_s,
                            (int64_t)(sw_store__clock_ns(CLOCK_REALTIME) / SW_NS_PER_MS)};
    struct writing writing[SW_COMMIT_WRITES_MAX];

    for (size_t i = 0; i < op->count; i++) {
        int rc = write_plan(s, txn, &op->writes[i], now, &writing[i]);
        enum sw_err err = rc != 0 ? sw_lmdb__err(rc) : writing[i].plan.err;

        if (err != SW_OK) {
            op->failed = i;
            op->err = err;
            return 0;
        }
    }
    for (size_t i = 0; i < op->count; i++) {
        int rc = write_make(s, txn, &op->writes[i], &writing[i]);

        if (rc != 0) {
            return rc;
        }
        op->writes[i].ret_version = writing[i].plan.record.version;
        *ret_wrote |= writing[i].plan.act != STORE_KEEP;
    }
    return 0;
}

/* ---- a batch --------------------------------------------------------------------------------- */

/* How many expired records are taken away beside a batch. Each is another page or two for the same
 * sync, so it is a small share of the batch; of a file that fills up it is as many as may be. */
static size_t collect_beside(const struct lmdb_store *s, size_t count)
{
    uint64_t used = atomic_load_explicit(&s->bytes_used, memory_order_relaxed);

    if (used > s->opt.map_bytes_max / 4 * 3) {
        return LMDB_COLLECT_BUSY_MAX;
    }
    return SW_MIN(LMDB_COLLECT_BUSY_MIN + count / LMDB_COLLECT_SHARE, LMDB_COLLECT_BUSY_MAX);
}

/* A batch in one transaction and one sync. Returns other than 0 when nothing of it was made. */
static int batch_try(struct lmdb_store *s, struct sw_store_commit **ops, size_t count)
{
    SW_CLEANUP(sw_lmdb__abort) MDB_txn *txn = NULL;
    uint64_t needed = 0, allowed;
    bool wrote = false;
    int rc = sw_lmdb__txn_begin(s, &txn);

    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        needed += sw_lmdb__pages_needed(s, ops[i]);
    }
    rc = sw_lmdb__pages_allowed(s, needed, &allowed);
    if (rc != 0) {
        return rc;
    }
    sw_lmdb__file_extend(s, needed + count * PAGES_A_COMMIT);
    for (size_t i = 0; i < count; i++) {
        uint64_t pages = sw_lmdb__pages_needed(s, ops[i]);

        ops[i]->err = SW_OK;
        if (pages > allowed) {
            ops[i]->err = SW_E_STORE_FULL;
            continue;
        }
        rc = commit_apply(s, txn, ops[i], &wrote);
        if (rc != 0) {
            return rc;
        }
        if (ops[i]->err == SW_OK) {
            allowed -= pages;
        }
    }
    if (s->overdue) {
        rc = sw_lmdb__collect(s, txn, collect_beside(s, count), &wrote);
        if (rc != 0) {
            return rc;
        }
    }
    rc = wrote ? sw_lmdb__txn_commit(s, sw_take(&txn)) : 0;
    return rc == EIO && sw_lmdb__disk_full(s, needed) ? ENOSPC : rc;
}

static void answer(struct lmdb_store *s, struct sw_store_commit *op, uint64_t now_ns)
{
    if (op->err != SW_OK) {
        for (size_t i = 0; i < op->count; i++) {
            op->writes[i].ret_version = (struct sw_version){0, 0};
        }
    }
    sw_store__count(&s->base, op, now_ns);
    sw_loop_post(op->loop, &wait_of(op)->post); /* from here on it is not ours */
}

static void batch_commit(struct lmdb_store *s, struct sw_store_commit **ops, size_t count)
{
    bool collecting = s->overdue;
    enum sw_err err = sw_lmdb__err(batch_try(s, ops, count));
    uint64_t now_ns;
    size_t again = 0;

    if (err != SW_OK && collecting) {
        s->overdue = false; /* the collector's trouble is not the askers' */
        err = sw_lmdb__err(batch_try(s, ops, count));
    }
    now_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
    for (size_t i = 0; i < count; i++) {
        if (err != SW_OK) {
            /* Refusals too: they may rest on what another commit of the batch would have written.
             */
            ops[i]->err = err;
            ops[i]->failed = 0;
        }
        if (ops[i]->err == SW_E_STORE_FULL && count > 1) {
            ops[again++] = ops[i];
        } else {
            answer(s, ops[i], now_ns);
        }
    }
    /* Not all fit together: one by one the small ones, and the deletes that make room, still may.
     */
    for (size_t i = 0; i < again; i++) {
        batch_commit(s, &ops[i], 1);
    }
}

/* ---- the queue ------------------------------------------------------------------------------- */

static uint64_t commit_bytes(const struct sw_store_commit *op)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < op->count; i++) {
        bytes += op->writes[i].value.len + op->writes[i].extra.len;
    }
    return bytes;
}

/* What arrived during the last sync, or the first that comes before `until_ns`. */
static size_t queue_take(struct lmdb_store *s, uint64_t until_ns, bool *ret_stop)
{
    struct timespec until = {(time_t)(until_ns / SW_NS_PER_S), (long)(until_ns % SW_NS_PER_S)};
    uint64_t bytes = 0;
    size_t count = 0;

    pthread_mutex_lock(&s->lock);
    while (s->first == NULL && !s->stop && until_ns > 0) {
        int rc;

        s->asleep = true;
        rc = pthread_cond_timedwait(&s->wake, &s->lock, &until);
        s->asleep = false;
        if (rc == ETIMEDOUT) {
            break;
        }
    }
    while (s->first != NULL && count < LMDB_BATCH_MAX && bytes < LMDB_BATCH_BYTES_MAX) {
        struct sw_store_commit *op = s->first;

        s->first = wait_of(op)->next;
        bytes += commit_bytes(op);
        s->batch[count++] = op;
    }
    if (s->first == NULL) {
        s->last = &s->first;
    }
    s->waiting -= (uint32_t)count;
    *ret_stop = s->stop;
    pthread_mutex_unlock(&s->lock);
    return count;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void collect_idle(struct lmdb_store *s)
{
    SW_CLEANUP(sw_lmdb__abort) MDB_txn *txn = NULL;
    bool wrote = false;
    int rc = sw_lmdb__txn_begin(s, &txn);

    if (rc == 0) {
        sw_lmdb__file_extend(s, (uint64_t)LMDB_COLLECT_IDLE_MAX * PAGES_A_COMMIT);
        rc = sw_lmdb__collect(s, txn, LMDB_COLLECT_IDLE_MAX, &wrote);
    }
    if (rc == 0 && wrote) {
        rc = sw_lmdb__txn_commit(s, sw_take(&txn));
    }
    if (rc != 0) {
        s->overdue = false; /* the next tick tries again */
    }
}

static void sync_now(struct lmdb_store *s)
{
    if (s->unsynced && s->env != NULL && mdb_env_sync(s->env, 1) == 0) {
        s->unsynced = false;
        sw_store__add(&s->base.syncs, 1);
    }
}

static void tick(struct lmdb_store *s)
{
    int dead;

    if (s->opt.sync == SW_SYNC_EVERYSEC) {
        sync_now(s);
    }
    if (sw_lmdb__env_panics(s)) {
        sw_lmdb__env_reopen(s);
    }
    if (++s->ticks % READER_CHECK_TICKS == 0 && s->env != NULL) {
        (void)mdb_reader_check(s->env, &dead);
    }
    s->overdue = s->opt.expire;
    sw_lmdb__usage_publish(s);
}

void *sw_lmdb__committer(void *arg)
{
    struct lmdb_store *s = arg;
    uint64_t batch_ns = 0; /* when the last one ended */
    bool stop = false;

    prctl(PR_SET_NAME, "store");
    while (!stop) {
        uint64_t quiet_ns = batch_ns + LMDB_COLLECT_QUIET_NS, tick_ns = s->tick_ns + TICK_NS;
        size_t count = queue_take(s, s->overdue ? SW_MIN(quiet_ns, tick_ns) : tick_ns, &stop);
        uint64_t now_ns;

        if (count > 0) {
            batch_commit(s, s->batch, count);
            stop = false; /* until nothing is left */
            batch_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
        } else if (s->overdue && !stop && sw_store__clock_ns(CLOCK_MONOTONIC) >= quiet_ns) {
            collect_idle(s);
        }
        now_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
        if (now_ns - s->tick_ns >= TICK_NS) {
            s->tick_ns = now_ns;
            tick(s);
        }
    }
    sync_now(s);
    return NULL;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void on_answer(struct sw_post *post, void *arg)
{
    struct sw_store_commit *op = arg;

    (void)post;
    op->done(op);
}

void sw_lmdb__commit(struct sw_store *store, struct sw_store_commit *op)
{
    struct lmdb_store *s = sw_lmdb__of(store);
    struct commit_wait *w = wait_of(op);
    bool full, asleep = false;

    op->queued_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
    w->post = (struct sw_post){NULL, on_answer, op};
    w->next = NULL;
    pthread_mutex_lock(&s->lock);
    SW_ASSERT(!s->stop);
    full = s->waiting >= s->opt.queue_max;
    if (!full) {
        *s->last = op;
        s->last = &w->next;
        s->waiting++;
        asleep = s->asleep;
    }
    pthread_mutex_unlock(&s->lock);
    if (full) {
        op->err = SW_E_STORE_BUSY;
        sw_store__count(&s->base, op, op->queued_ns);
        sw_loop_post(op->loop, &w->post);
    } else if (asleep) {
        pthread_cond_signal(&s->wake);
    }
}
