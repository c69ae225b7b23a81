/* store/journal_commit.c - queue, committer thread, group commit.
 *
 * Room       store/. sw_journal__commit runs on a worker; the rest is the committer's.
 *
 * A batch is what arrived during the last sync. Each of its commits is refused, or becomes one
 * frame (journal_stage.c). Then one write and, by the sync mode, one sync. Only then the table
 * shows it, and the askers are told. If the disk fails, the table was not touched: the batch is
 * forgotten, and its frames are void (journal_log.c).
 */
#include "store/journal_priv.h"

#include <errno.h>
#include <sys/prctl.h>

#define SYNC_EVERY_NS   SW_NS_PER_S
#define COMPACT_PACE_NS (5 * SW_NS_PER_MS) /* between two steps of compaction when nobody waits */

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

/* What an asker is told of an errno. */
static enum sw_err commit_err(int error)
{
    enum sw_err err = sw_store__errno(error);

    return err == SW_E_PERMISSION ? SW_E_STORE_IO : err;
}

/* ---- a batch --------------------------------------------------------------------------------- */

static uint64_t commit_bytes(const struct sw_store_commit *op)
{
    uint64_t bytes = JOURNAL_FRAME_HEAD;

    for (size_t i = 0; i < op->count; i++) {
        const struct sw_write *w = &op->writes[i];

        if (w->value.len <= SW_STORE_VALUE_BYTES_MAX) { /* else it is refused */
            bytes += JOURNAL_RECORD_HEAD + JOURNAL_ALIGN + SW_SUBJECT_BYTES_MAX + w->extra.len +
                     w->value.len;
        }
    }
    return bytes;
}

static int batch_write(struct journal_store *s, size_t count)
{
    struct journal_batch *b = &s->batch;
    int error = 0;

    for (size_t i = 0; i < count; i++) {
        error = sw_journal__commit_make(s, b->ops[i]);
        if (error != 0) {
            return error;
        }
    }
    if (b->stage_count == 0) {
        return 0;
    }
    error = sw_journal__log_flush(&s->log);
    if (error == 0 && s->opt.sync == SW_SYNC_ALWAYS) {
        error = sw_journal__log_sync(&s->log);
        if (error == 0) {
            sw_store__add(&s->base.syncs, 1);
        }
    }
    return error;
}

static int batch_try(struct journal_store *s, size_t count)
{
    struct journal_batch *b = &s->batch;
    uint64_t bytes = 0;
    int error = sw_journal__log_repair(&s->log);

    if (error != 0) {
        return error;
    }
    for (size_t i = 0; i < count; i++) {
        bytes += commit_bytes(b->ops[i]);
    }
    b->tight = sw_journal__log_prepare(&s->log, bytes, true);
    if (++b->number == 0) { /* all numbers were used: old ones must not be taken for new */
        memset(b->overlay, 0, sizeof(b->overlay));
        b->number = 1;
    }
    b->alone = count == 1;
    b->stage_count = 0;
    b->cutoff_count = 0;
    b->more = 0;
    b->written = 0;
    error = batch_write(s, count);
    if (error != 0) {
        sw_journal__stages_drop(s, 0);
        sw_journal__log_fail(&s->log);
        return error;
    }
    log_keep(&s->log);
    sw_journal__batch_show(s);
    return 0;
}

/* Those of one loop, in their order: one message, so that it wakes once and not for each of them.
 */
struct answers {
    struct sw_loop *loop;
    struct sw_store_commit *first, *last;
};
#define ANSWERS_MAX 16u /* loops; those of more are told in several messages */

static void answers_send(struct answers *a)
{
    struct sw_store_commit *first = sw_take(&a->first);

    if (first != NULL) {
        sw_loop_post(a->loop, &wait_of(first)->post); /* from here on they are not ours */
    }
}

static void answers_add(struct answers list[ANSWERS_MAX], struct sw_store_commit *op)
{
    struct answers *a = list;

    while (a->first != NULL && a->loop != op->loop && a < &list[ANSWERS_MAX - 1]) {
        a++;
    }
    if (a->first != NULL && a->loop != op->loop) {
        answers_send(a);
    }
    wait_of(op)->next = NULL;
    if (a->first == NULL) {
        *a = (struct answers){op->loop, op, op};
    } else {
        wait_of(a->last)->next = op;
        a->last = op;
    }
}

static void batch_commit(struct journal_store *s, size_t count)
{
    enum sw_err err = commit_err(batch_try(s, count));
    uint64_t now_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
    struct answers list[ANSWERS_MAX] = {{NULL, NULL, NULL}};

    for (size_t i = 0; i < count; i++) {
        struct sw_store_commit *op = s->batch.ops[i];

        if (err != SW_OK) { /* refusals too: they may rest on what another one would have written */
            op->err = err;
            op->failed = 0;
        }
        for (size_t w = 0; op->err != SW_OK && w < op->count; w++) {
            op->writes[w].ret_version = (struct sw_version){0, 0};
        }
        sw_store__count(&s->base, op, now_ns);
        answers_add(list, op);
    }
    for (size_t i = 0; i < ANSWERS_MAX; i++) {
        answers_send(&list[i]);
    }
}

/* ---- the queue ------------------------------------------------------------------------------- */

/* What arrived during the last sync, or the first that comes before `until_ns`. */
static size_t queue_take(struct journal_store *s, uint64_t until_ns, bool *ret_stop)
{
    struct timespec until = {(time_t)(until_ns / SW_NS_PER_S), (long)(until_ns % SW_NS_PER_S)};
    uint64_t bytes = 0;
    size_t count = 0;

    pthread_mutex_lock(&s->lock);
    while (s->first == NULL && !s->stop) {
        int rc;

        s->asleep = true;
        rc = pthread_cond_timedwait(&s->wake, &s->lock, &until);
        s->asleep = false;
        if (rc == ETIMEDOUT) {
            break;
        }
    }
    while (s->first != NULL && count < JOURNAL_BATCH_MAX && bytes < JOURNAL_BATCH_BYTES_MAX) {
        struct sw_store_commit *op = s->first;

        s->first = wait_of(op)->next;
        bytes += commit_bytes(op);
        s->batch.ops[count++] = op;
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

static void sync_if_due(struct journal_store *s, uint64_t now_ns)
{
    bool due = s->opt.sync == SW_SYNC_EVERYSEC && now_ns - s->sync_ns >= SYNC_EVERY_NS;

    /* what is not needed any more is removed only when that is durable */
    due |= s->log.trim != 0;
    if (due && s->log.health == JOURNAL_WELL && log_unsynced(&s->log)) {
        s->sync_ns = now_ns;
        if (sw_journal__log_sync(&s->log) == 0) {
            sw_store__add(&s->base.syncs, 1);
        }
    }
}

static void tick(struct journal_store *s, uint64_t now_ns)
{
    uint64_t live = atomic_load_explicit(&s->table.live, memory_order_relaxed);

    s->tick_ns = now_ns;
    if (sw_journal__log_repair(&s->log) != 0) {
        return; /* the next commit tries again, or the next tick */
    }
    sw_journal__log_grow(&s->log, live);
    sw_journal__collect(s);
    sync_if_due(s, now_ns);
    sw_journal__log_trim(&s->log);
    sw_journal__due_publish(s);
}

static bool nobody_waits(struct journal_store *s)
{
    bool nobody;

    pthread_mutex_lock(&s->lock);
    nobody = s->first == NULL;
    pthread_mutex_unlock(&s->lock);
    return nobody;
}

void *sw_journal__committer(void *arg)
{
    struct journal_store *s = arg;
    bool stop = false, compacting = false;

    prctl(PR_SET_NAME, "store");
    while (!stop) {
        uint64_t now_ns = sw_store__clock_ns(CLOCK_MONOTONIC), until_ns;
        size_t count;

        until_ns = s->tick_ns + JOURNAL_TICK_NS;
        if (compacting) {
            until_ns = SW_MIN(until_ns, now_ns + COMPACT_PACE_NS);
        }
        count = queue_take(s, until_ns, &stop);
        if (count > 0) {
            batch_commit(s, count);
            compacting = sw_journal__compact(s, s->batch.written, false);
            if (nobody_waits(s)) { /* else the next batch says it */
                sw_journal__log_mark(&s->log);
            }
            stop = false; /* until nothing is left */
        } else if (!stop) {
            compacting = sw_journal__compact(s, 0, true);
        }
        now_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
        if (now_ns - s->tick_ns >= JOURNAL_TICK_NS) {
            tick(s, now_ns);
            sw_journal__log_mark(&s->log); /* for what it has synced */
        }
    }
    (void)!sw_journal__log_repair(&s->log);
    return NULL;
}

/* ---- asking ---------------------------------------------------------------------------------- */

/* The first of those that are answered together. */
static void on_answer(struct sw_post *post, void *arg)
{
    struct sw_store_commit *op = arg;

    (void)post;
    while (op != NULL) {
        struct sw_store_commit *next = wait_of(op)->next; /* done gives op back */

        op->done(op);
        op = next;
    }
}

void sw_journal__commit(struct sw_store *store, struct sw_store_commit *op)
{
    struct journal_store *s = sw_journal__of(store);
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
