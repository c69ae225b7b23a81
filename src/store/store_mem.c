/* store/store_mem.c - records in a table in memory, for tests, simulation and `store: memory:`.
 *
 * A commit is applied in the turn that answers it, so a crash before that turn forgets it, as a
 * disk would. No thread of its own and no clock: with sim loops a run repeats. The waiting commits
 * lie in the operations themselves (store_private), so a commit allocates only its records.
 *
 * The table is open addressing with linear probing; a removed slot is closed by moving back what
 * follows, so there are no tombstones of the table (those of store.h are records as any other).
 */
#include "store/store_priv.h"

#include <pthread.h>
#include <sys/random.h>

#include "base/rng.h"

#define SLOTS_MIN     64
#define COLLECT_SLOTS 8 /* looked at after each commit */

struct mem_record {
    struct sw_store_key key;
    struct sw_record record; /* slices point behind this struct */
};

struct mem_store {
    struct sw_store base;
    pthread_mutex_t lock; /* everything below */
    struct mem_record **slots;
    size_t slot_count; /* a power of two */
    size_t used;
    size_t collect_at;
    uint64_t bytes, bytes_max, loads;
    uint64_t seed; /* of the table's hash */
    struct sw_rng epochs;
    bool epochs_seeded; /* by a sim loop, or found that it is none */
    bool expire;
    uint32_t queue, queue_max;
    struct sw_link pending; /* of mem_wait, oldest first */
    sw_store_fault_fn *fault;
    void *fault_arg;
};

/* store_private of a commit. */
struct mem_wait {
    union {
        struct sw_post post;
        struct sw_timer timer; /* with a delay */
    };
    struct sw_link link;     /* in pending */
    struct mem_store *store; /* NULL: closed meanwhile, and applied then */
};
_Static_assert(sizeof(struct mem_wait) <= sizeof(((struct sw_store_commit *)0)->store_private),
               "a waiting commit fits");

static struct mem_wait *wait_of(struct sw_store_commit *op)
{
    return (struct mem_wait *)(void *)op->store_private;
}

/* ---- the table --------------------------------------------------------------------------------
 */

static size_t home(const struct mem_store *s, const struct sw_store_key *key)
{
    return (size_t)sw_slice_hash(sw_slice_of(key->bytes, sizeof(key->bytes)), s->seed) &
           (s->slot_count - 1);
}

/* The key's slot, or the free one where it would be. */
static size_t slot_find(const struct mem_store *s, const struct sw_store_key *key)
{
    size_t at = home(s, key);

    while (s->slots[at] != NULL && memcmp(&s->slots[at]->key, key, sizeof(*key)) != 0) {
        at = (at + 1) & (s->slot_count - 1);
    }
    return at;
}

static size_t record_bytes(const struct mem_record *r)
{
    return sizeof(*r) + r->record.subject.len + r->record.value.len;
}

static void slot_remove(struct mem_store *s, size_t at)
{
    size_t mask = s->slot_count - 1, next = at;

    SW_ASSERT(s->slots[at] != NULL);
    s->bytes -= record_bytes(s->slots[at]);
    free(s->slots[at]);
    s->used--;
    for (;;) {
        size_t want;

        s->slots[at] = NULL;
        do {
            next = (next + 1) & mask;
            if (s->slots[next] == NULL) {
                return;
            }
            want = home(s, &s->slots[next]->key);
        } while (((next - want) & mask) < ((next - at) & mask));
        s->slots[at] = s->slots[next];
        at = next;
    }
}

static bool table_grow(struct mem_store *s)
{
    size_t old_count = s->slot_count;
    struct mem_record **old = s->slots,
                      **slots = calloc(old_count == 0 ? SLOTS_MIN : 2 * old_count, sizeof(*slots));

    if (slots == NULL) {
        return false;
    }
    s->slots = slots;
    s->slot_count = old_count == 0 ? SLOTS_MIN : 2 * old_count;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i] != NULL) {
            s->slots[slot_find(s, &old[i]->key)] = old[i];
        }
    }
    free(old);
    return true;
}

/* The live record, or NULL. */
static struct mem_record *seen_by(const struct mem_store *s, const struct sw_store_key *key,
                                  int64_t now)
{
    struct mem_record *r = s->slots[slot_find(s, key)];

    return r == NULL || sw_store__expired(r->record.expires_unix_s, now) ? NULL : r;
}

static struct mem_record *record_new(const struct sw_store_key *key, const struct sw_record *from)
{
    struct mem_record *r = malloc(sizeof(*r) + from->subject.len + from->value.len);
    char *at;

    if (r == NULL) {
        return NULL;
    }
    at = (char *)(r + 1);
    if (from->subject.len > 0) {
        memcpy(at, from->subject.ptr, from->subject.len);
    }
    if (from->value.len > 0) {
        memcpy(at + from->subject.len, from->value.ptr, from->value.len);
    }
    r->key = *key;
    r->record = *from;
    r->record.subject = (struct sw_slice){at, from->subject.len};
    r->record.value = (struct sw_slice){at + from->subject.len, from->value.len};
    return r;
}

/* ---- commits ----------------------------------------------------------------------------------
 */

static uint64_t epoch_new(struct mem_store *s)
{
    return sw_rng_u64(&s->epochs) | 1;
}

/* All or none. */
static enum sw_err commit_apply(struct mem_store *s, struct sw_store_commit *op)
{
    struct store_plan plans[SW_COMMIT_WRITES_MAX];
    struct mem_record *fresh[SW_COMMIT_WRITES_MAX] = {NULL};
    uint64_t more = 0;
    enum sw_err err = SW_OK;

    for (size_t i = 0; i < op->count; i++) {
        struct mem_record *seen = seen_by(s, &op->writes[i].key, op->now_unix_s);

        plans[i] = sw_store__plan(&op->writes[i], seen == NULL ? NULL : &seen->record,
                                  op->now_unix_s, epoch_new(s));
        if (plans[i].err != SW_OK) {
            op->failed = i;
            return plans[i].err;
        }
        if (plans[i].act == STORE_PUT && op->writes[i].kind == SW_WRITE_PUT) {
            more += sizeof(struct mem_record) + op->writes[i].subject.len + op->writes[i].value.len;
        }
    }
    if (s->bytes_max != 0 && more > 0 && s->bytes + more > s->bytes_max) {
        return SW_E_STORE_FULL;
    }
    while (s->used + op->count > s->slot_count / 2) {
        if (!table_grow(s)) {
            return SW_E_NO_MEMORY;
        }
    }
    for (size_t i = 0; i < op->count && err == SW_OK; i++) {
        if (plans[i].act == STORE_PUT) {
            fresh[i] = record_new(&op->writes[i].key, &plans[i].record);
            err = fresh[i] == NULL ? SW_E_NO_MEMORY : SW_OK;
        }
    }
    for (size_t i = 0; i < op->count; i++) {
        size_t at = slot_find(s, &op->writes[i].key);

        if (err != SW_OK) {
            free(fresh[i]);
            continue;
        }
        op->writes[i].ret_version = plans[i].record.version;
        if (plans[i].act == STORE_RETIME) {
            SW_ASSERT(s->slots[at] != NULL);
            s->slots[at]->record.touched_unix_s = plans[i].record.touched_unix_s;
            s->slots[at]->record.expires_unix_s = plans[i].record.expires_unix_s;
        } else if (plans[i].act == STORE_PUT) {
            if (s->slots[at] == NULL) {
                s->used++;
            } else {
                s->bytes -= record_bytes(s->slots[at]);
                free(s->slots[at]);
            }
            s->slots[at] = fresh[i];
            s->bytes += record_bytes(fresh[i]);
        }
    }
    return err;
}

/* A few slots after each commit: the whole table is seen again and again, at no moment's expense.
 */
static void collect(struct mem_store *s, int64_t now)
{
    for (size_t i = 0; i < COLLECT_SLOTS; i++) {
        size_t at = s->collect_at & (s->slot_count - 1);

        if (s->slots[at] != NULL && sw_store__expired(s->slots[at]->record.expires_unix_s, now)) {
            slot_remove(s, at); /* another may have moved here: look again */
            sw_store__add(&s->base.expired, 1);
        } else {
            s->collect_at++;
        }
    }
}

/* Under the lock: makes the commit, by its fate. */
static void wait_finish(struct mem_store *s, struct sw_store_commit *op, uint64_t now_ns)
{
    bool then_fail = op->failed == 1; /* the fate was kept there */

    op->failed = 0;
    sw_link_remove(&wait_of(op)->link);
    SW_ASSERT(s->queue > 0);
    s->queue--;
    if (op->err == SW_OK) {
        op->err = commit_apply(s, op);
        if (then_fail && op->err == SW_OK) {
            op->err = SW_E_STORE_IO;
            for (size_t i = 0; i < op->count; i++) {
                op->writes[i].ret_version = (struct sw_version){0, 0};
            }
        }
    }
    if (s->expire) {
        collect(s, op->now_unix_s);
    }
    sw_store__count(&s->base, op, now_ns);
}

static void wait_done(struct sw_store_commit *op)
{
    struct mem_store *s = wait_of(op)->store;

    if (s != NULL) {
        pthread_mutex_lock(&s->lock);
        wait_finish(s, op, sw_loop_now_ns(op->loop));
        pthread_mutex_unlock(&s->lock);
    }
    op->done(op);
}

static void on_post(struct sw_post *post, void *arg)
{
    (void)post;
    wait_done(arg);
}

static void on_timer(struct sw_timer *timer, void *arg)
{
    (void)timer;
    wait_done(arg);
}

static void epochs_seed(struct mem_store *s, struct sw_loop *loop)
{
    if (!s->epochs_seeded) {
        s->epochs_seeded = true;
        if (strcmp(sw_loop_engine(loop), "sim") == 0) {
            sw_rng_seed(&s->epochs, sw_loop_random(loop));
            s->seed = sw_rng_u64(&s->epochs); /* the table is still empty */
        }
    }
}

static void mem_commit(struct sw_store *store, struct sw_store_commit *op)
{
    struct mem_store *s = (struct mem_store *)store;
    struct mem_wait *w = wait_of(op);
    struct sw_store_fault fault = {0, SW_OK, false};

    op->queued_ns = sw_loop_now_ns(op->loop); /* virtual time in a simulation */
    pthread_mutex_lock(&s->lock);
    epochs_seed(s, op->loop);
    if (s->fault != NULL) {
        fault = s->fault(s->fault_arg, op);
    }
    if (s->queue >= s->queue_max) {
        fault = (struct sw_store_fault){0, SW_E_STORE_BUSY, false};
    }
    op->err = fault.err;
    op->failed = fault.apply_then_fail ? 1 : 0;
    *w = (struct mem_wait){.store = s};
    sw_list_push_back(&s->pending, &w->link);
    s->queue++;
    pthread_mutex_unlock(&s->lock);
    if (fault.delay_ns > 0) {
        sw_timer_init(&w->timer, on_timer, op);
        sw_timer_start(op->loop, &w->timer, sw_loop_now_ns(op->loop) + fault.delay_ns);
    } else {
        w->post = (struct sw_post){NULL, on_post, op};
        sw_loop_post(op->loop, &w->post);
    }
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static enum sw_step mem_load(struct sw_store *store, struct sw_store_load *op)
{
    struct mem_store *s = (struct mem_store *)store;
    struct mem_record *r;

    pthread_mutex_lock(&s->lock);
    s->loads++;
    r = seen_by(s, &op->key, op->now_unix_s);
    op->err = SW_E_NOT_FOUND;
    if (r != NULL) {
        op->err = SW_OK;
        op->record = r->record;
        op->record.subject = sw_arena_copy(op->arena, r->record.subject);
        op->record.value = sw_arena_copy(op->arena, r->record.value);
        if (op->arena->overflowed) {
            op->record = (struct sw_record){0};
            op->err = SW_E_NO_MEMORY;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return SW_STEP_DONE;
}

static int by_key(const void *a, const void *b)
{
    const struct mem_record *const *ra = a, *const *rb = b;

    return memcmp(&(*ra)->key, &(*rb)->key, sizeof((*ra)->key));
}

static enum sw_err mem_scan(struct sw_store *store, const struct sw_store_key *after, size_t limit,
                            int64_t now_unix_s, sw_store_scan_fn *fn, void *arg)
{
    struct mem_store *s = (struct mem_store *)store;
    struct mem_record **sorted;
    size_t count = 0;

    pthread_mutex_lock(&s->lock);
    sorted = calloc(s->used + 1, sizeof(struct mem_record *));
    if (sorted == NULL) {
        pthread_mutex_unlock(&s->lock);
        return SW_E_NO_MEMORY;
    }
    for (size_t i = 0; i < s->slot_count; i++) {
        struct mem_record *r = s->slots[i];

        if (r != NULL && !sw_store__expired(r->record.expires_unix_s, now_unix_s) &&
            (after == NULL || memcmp(&r->key, after, sizeof(*after)) > 0)) {
            sorted[count++] = r;
        }
    }
    qsort(sorted, count, sizeof(struct mem_record *), by_key);
    for (size_t i = 0; i < count && i < limit; i++) {
        fn(arg, &sorted[i]->key, &sorted[i]->record);
    }
    free(sorted);
    pthread_mutex_unlock(&s->lock);
    return SW_OK;
}

static void mem_stats(struct sw_store *store, struct sw_store_stats *st)
{
    struct mem_store *s = (struct mem_store *)store;

    pthread_mutex_lock(&s->lock);
    st->records = s->used;
    st->bytes_used = s->bytes;
    st->bytes_map = s->bytes_max;
    st->loads = s->loads;
    st->queue = s->queue;
    pthread_mutex_unlock(&s->lock);
}

/* ---- life -------------------------------------------------------------------------------------
 */

static void mem_close(struct sw_store *store)
{
    struct mem_store *s = (struct mem_store *)store;

    pthread_mutex_lock(&s->lock);
    while (!sw_list_empty(&s->pending)) {
        struct mem_wait *w = SW_CONTAINER(s->pending.next, struct mem_wait, link);

        struct sw_store_commit *op = SW_CONTAINER(w, struct sw_store_commit, store_private);

        wait_finish(s, op, op->queued_ns);
        w->store = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < s->slot_count; i++) {
        free(s->slots[i]);
    }
    free(s->slots);
    pthread_mutex_destroy(&s->lock);
    s->base.magic = 0;
    free(s);
}

static const struct store_ops mem_ops = {
    .name = "memory",
    .load = mem_load,
    .commit = mem_commit,
    .stats = mem_stats,
    .scan = mem_scan,
    .close = mem_close,
};

enum sw_err sw_store_open_mem(const struct sw_store_options *opt, struct sw_store **ret_store)
{
    struct mem_store *s = calloc(1, sizeof(*s));
    uint64_t seeds[2] = {0};
    ssize_t got = getrandom(seeds, sizeof(seeds), 0);

    SW_ASSERT(got == sizeof(seeds)); /* 16 bytes are never cut short */
    if (s == NULL || !table_grow(s)) {
        free(s);
        return SW_E_NO_MEMORY;
    }
    sw_store__init(&s->base, &mem_ops);
    pthread_mutex_init(&s->lock, NULL);
    sw_list_init(&s->pending);
    s->seed = seeds[0];
    sw_rng_seed(&s->epochs, seeds[1]);
    s->expire = opt != NULL && opt->expire;
    s->bytes_max = opt != NULL ? opt->map_bytes_max : 0;
    s->queue_max = opt != NULL && opt->queue_max > 0 ? opt->queue_max : 4096;
    *ret_store = &s->base;
    return SW_OK;
}

static struct mem_store *mem_of(struct sw_store *store)
{
    SW_ASSERT(store->magic == STORE_MAGIC);
    SW_ASSERT(store->ops == &mem_ops);
    return (struct mem_store *)store;
}

void sw_store_mem_faults(struct sw_store *store, sw_store_fault_fn *fn, void *arg)
{
    struct mem_store *s = mem_of(store);

    pthread_mutex_lock(&s->lock);
    s->fault = fn;
    s->fault_arg = arg;
    pthread_mutex_unlock(&s->lock);
}

void sw_store_mem_crash(struct sw_store *store)
{
    struct mem_store *s = mem_of(store);

    pthread_mutex_lock(&s->lock);
    sw_list_init(&s->pending); /* the operations may be gone already: not looked at */
    s->queue = 0;
    pthread_mutex_unlock(&s->lock);
}
