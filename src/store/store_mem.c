/* store/store_mem.c - records in a table in memory, for tests, simulation and `store: memory:`.
 *
 * A commit is applied in the turn that answers it, so a crash before that turn forgets it, as a
 * disk would. No thread of its own and no clock: with sim loops a run repeats. The waiting commits
 * lie in the operations themselves (store_private), so a commit allocates only its records.
 *
 * The table is open addressing with linear probing; a removed slot is closed by moving back what
 * follows, so there are no tombstones of the table (those of store.h are records as any other).
 * Subjects have a table of chains: each holds the list of its states, and its cut-off. What is due
 * stands in a sorted array.
 */
#include "store/store_priv.h"

#include <pthread.h>
#include <sys/random.h>

#include "base/rng.h"

#define SLOTS_MIN     64
#define COLLECT_SLOTS 8 /* looked at after each commit */

struct mem_subject {
    struct mem_subject *next; /* in its chain */
    struct sw_link records;   /* of mem_record.of_subject */
    struct store_cutoff cutoff;
    uint32_t wanted; /* by writes that are being made */
    size_t len;
    char text[];
};

struct mem_record {
    struct sw_store_key key;
    struct sw_record record;     /* slices point behind this struct */
    struct mem_subject *subject; /* of a state that has one */
    struct sw_link of_subject;
};

struct mem_store {
    struct sw_store base;
    pthread_mutex_t lock; /* everything below */
    struct mem_record **slots;
    size_t slot_count; /* a power of two */
    size_t used;
    size_t collect_at;
    struct mem_subject **chains;
    size_t chain_count; /* a power of two */
    size_t subject_count;
    size_t collect_chain_at;
    struct mem_record **due; /* by time, then by key */
    size_t due_count, due_room;
    uint64_t bytes, bytes_max, loads;
    uint64_t seed; /* of the tables' hash */
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

static size_t record_bytes(const struct sw_record *r)
{
    return sizeof(struct mem_record) + r->subject.len + r->extra.len + r->value.len;
}

/* ---- subjects -------------------------------------------------------------------------------- */

static struct mem_subject **chain_of(const struct mem_store *s, struct sw_slice subject)
{
    return &s->chains[(size_t)sw_slice_hash(subject, s->seed) & (s->chain_count - 1)];
}

static struct sw_slice subject_text(const struct mem_subject *x)
{
    return (struct sw_slice){x->text, x->len};
}

static struct mem_subject *subject_find(const struct mem_store *s, struct sw_slice subject)
{
    struct mem_subject *x = *chain_of(s, subject);

    while (x != NULL && !sw_slice_eq(subject_text(x), subject)) {
        x = x->next;
    }
    return x;
}

/* Without memory the chains become longer. */
static void chains_grow(struct mem_store *s)
{
    struct mem_subject **old = s->chains, **chains = calloc(2 * s->chain_count, sizeof(*chains));
    size_t old_count = s->chain_count;

    if (chains == NULL) {
        return;
    }
    s->chains = chains;
    s->chain_count = 2 * old_count;
    for (size_t i = 0; i < old_count; i++) {
        while (old[i] != NULL) {
            struct mem_subject *x = old[i], **chain = chain_of(s, subject_text(x));

            old[i] = x->next;
            x->next = *chain;
            *chain = x;
        }
    }
    free(old);
}

/* Found or made; wanted until subject_release. NULL: no memory. */
static struct mem_subject *subject_make(struct mem_store *s, struct sw_slice subject)
{
    struct mem_subject *x = subject_find(s, subject), **chain;

    if (x != NULL) {
        x->wanted++;
        return x;
    }
    x = malloc(sizeof(*x) + subject.len);
    if (x == NULL) {
        return NULL;
    }
    memset(x, 0, sizeof(*x));
    memcpy(x->text, subject.ptr, subject.len);
    x->len = subject.len;
    x->wanted = 1;
    sw_list_init(&x->records);
    if (s->subject_count >= s->chain_count) {
        chains_grow(s);
    }
    chain = chain_of(s, subject);
    x->next = *chain;
    *chain = x;
    s->subject_count++;
    s->bytes += sizeof(*x) + x->len;
    return x;
}

static void subject_drop_empty(struct mem_store *s, struct mem_subject *x)
{
    struct mem_subject **at;

    if (x->wanted > 0 || x->cutoff.not_before_unix_ms != 0 || !sw_list_empty(&x->records)) {
        return;
    }
    at = chain_of(s, subject_text(x));
    while (*at != x) {
        at = &(*at)->next;
    }
    *at = x->next;
    s->subject_count--;
    s->bytes -= sizeof(*x) + x->len;
    free(x);
}

static void subject_release(struct mem_store *s, struct mem_subject *x)
{
    if (x != NULL) {
        SW_ASSERT(x->wanted > 0);
        x->wanted--;
        subject_drop_empty(s, x);
    }
}

static bool is_cut(const struct mem_record *r)
{
    return r->subject != NULL && sw_store__cut(&r->record, r->subject->cutoff.not_before_unix_ms);
}

/* ---- what is due ----------------------------------------------------------------------------- */

static int due_order(const struct mem_record *a, const struct mem_record *b)
{
    if (a->record.due_unix_ms != b->record.due_unix_ms) {
        return a->record.due_unix_ms < b->record.due_unix_ms ? -1 : 1;
    }
    return memcmp(&a->key, &b->key, sizeof(a->key));
}

/* Where r is, or belongs. */
static size_t due_place(const struct mem_store *s, const struct mem_record *r)
{
    size_t low = 0, high = s->due_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (due_order(s->due[middle], r) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool due_reserve(struct mem_store *s, size_t more)
{
    struct mem_record **due;
    size_t room = SW_MAX(2 * s->due_room, SLOTS_MIN);

    if (s->due_count + more <= s->due_room) {
        return true;
    }
    due = realloc(s->due, room * sizeof(struct mem_record *));
    if (due == NULL) {
        return false;
    }
    s->due = due;
    s->due_room = room;
    return true;
}

static void due_add(struct mem_store *s, struct mem_record *r)
{
    size_t at = due_place(s, r);

    SW_ASSERT(s->due_count < s->due_room);
    memmove(s->due + at + 1, s->due + at, (s->due_count - at) * sizeof(struct mem_record *));
    s->due[at] = r;
    s->due_count++;
}

static void due_remove(struct mem_store *s, struct mem_record *r)
{
    size_t at = due_place(s, r);

    SW_ASSERT(at < s->due_count);
    SW_ASSERT(s->due[at] == r);
    s->due_count--;
    memmove(s->due + at, s->due + at + 1, (s->due_count - at) * sizeof(struct mem_record *));
    r->record.due_unix_ms = 0;
}

static void due_publish(struct mem_store *s)
{
    atomic_store_explicit(&s->base.next_due_unix_ms,
                          s->due_count > 0 ? s->due[0]->record.due_unix_ms : 0,
                          memory_order_relaxed);
}

/* ---- records --------------------------------------------------------------------------------- */

static void record_free(struct mem_store *s, struct mem_record *r)
{
    s->bytes -= record_bytes(&r->record);
    if (r->record.due_unix_ms != 0) {
        due_remove(s, r);
    }
    if (r->subject != NULL) {
        sw_link_remove(&r->of_subject);
        subject_drop_empty(s, r->subject);
    }
    free(r);
}

static void slot_remove(struct mem_store *s, size_t at)
{
    size_t mask = s->slot_count - 1, next = at;

    SW_ASSERT(s->slots[at] != NULL);
    record_free(s, s->slots[at]);
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

static struct sw_slice copy_to(char **at, struct sw_slice from)
{
    struct sw_slice s = {*at, from.len};

    if (from.len > 0) {
        memcpy(*at, from.ptr, from.len);
    }
    *at += from.len;
    return s;
}

static struct mem_record *record_new(struct mem_store *s, const struct sw_store_key *key,
                                     const struct sw_record *from)
{
    struct mem_record *r = malloc(record_bytes(from));
    char *at;

    if (r == NULL) {
        return NULL;
    }
    at = (char *)(r + 1);
    r->key = *key;
    r->record = *from;
    r->record.subject = copy_to(&at, from->subject);
    r->record.extra = copy_to(&at, from->extra);
    r->record.value = copy_to(&at, from->value);
    r->subject = NULL;
    r->of_subject = (struct sw_link){NULL, NULL};
    if (sw_store__has_subject(from)) {
        r->subject = subject_make(s, from->subject);
        if (r->subject == NULL) {
            free(r);
            return NULL;
        }
    }
    return r;
}

/* ---- commits ----------------------------------------------------------------------------------
 */

static uint64_t epoch_new(struct mem_store *s)
{
    return sw_rng_u64(&s->epochs) | 1;
}

/* What becomes of a write, and what it needs. */
struct writing {
    struct store_plan plan;
    struct mem_record *fresh;    /* PUT */
    struct mem_subject *subject; /* CUTOFF */
};

static void write_plan(struct mem_store *s, const struct sw_store_commit *op, size_t i,
                       struct writing *x)
{
    static const struct store_cutoff none;
    const struct sw_write *w = &op->writes[i];
    struct store_now now = {op->now_unix_s, sw_loop_now_unix_ms(op->loop)};
    struct mem_record *seen;

    *x = (struct writing){0};
    if (w->kind == SW_WRITE_CUTOFF) {
        struct mem_subject *subject = subject_find(s, w->subject);

        x->plan = sw_store__plan_cutoff(w, subject != NULL ? &subject->cutoff : &none, now.unix_s);
        return;
    }
    seen = seen_by(s, &w->key, now.unix_s);
    x->plan = sw_store__plan(w, seen == NULL ? NULL : &seen->record, seen != NULL && is_cut(seen),
                             now, epoch_new(s));
}

/* All memory that the commit needs. */
static enum sw_err writes_prepare(struct mem_store *s, const struct sw_store_commit *op,
                                  struct writing *list)
{
    while (s->used + op->count > s->slot_count / 2) {
        if (!table_grow(s)) {
            return SW_E_NO_MEMORY;
        }
    }
    if (!due_reserve(s, op->count)) {
        return SW_E_NO_MEMORY;
    }
    for (size_t i = 0; i < op->count; i++) {
        const struct sw_write *w = &op->writes[i];

        if (list[i].plan.act == STORE_PUT) {
            list[i].fresh = record_new(s, &w->key, &list[i].plan.record);
        } else if (list[i].plan.act == STORE_CUTOFF) {
            list[i].subject = subject_make(s, w->subject);
        } else {
            continue;
        }
        if (list[i].fresh == NULL && list[i].subject == NULL) {
            return SW_E_NO_MEMORY;
        }
    }
    return SW_OK;
}

static void writes_drop(struct mem_store *s, const struct sw_store_commit *op, struct writing *list)
{
    for (size_t i = 0; i < op->count; i++) {
        if (list[i].fresh != NULL) {
            subject_release(s, list[i].fresh->subject);
            free(list[i].fresh);
        }
        subject_release(s, list[i].subject);
    }
}

static void put_make(struct mem_store *s, struct mem_record *fresh)
{
    size_t at = slot_find(s, &fresh->key);

    if (s->slots[at] != NULL) {
        record_free(s, s->slots[at]);
        s->used--;
    }
    s->slots[at] = fresh;
    s->used++;
    s->bytes += record_bytes(&fresh->record);
    if (fresh->subject != NULL) {
        sw_list_push_back(&fresh->subject->records, &fresh->of_subject);
    }
    if (is_cut(fresh)) {
        fresh->record.due_unix_ms = 0;
    }
    if (fresh->record.due_unix_ms != 0) {
        due_add(s, fresh);
    }
    subject_release(s, fresh->subject);
}

/* Its states are not due any more. */
static void cutoff_make(struct mem_store *s, struct mem_subject *x, const struct store_cutoff *c)
{
    x->cutoff = *c;
    for (struct sw_link *l = x->records.next; l != &x->records; l = l->next) {
        struct mem_record *r = SW_CONTAINER(l, struct mem_record, of_subject);

        if (is_cut(r) && r->record.due_unix_ms != 0) {
            due_remove(s, r);
        }
    }
}

static void write_make(struct mem_store *s, struct sw_write *w, const struct writing *x)
{
    switch (x->plan.act) {
    case STORE_KEEP:
        break;
    case STORE_PUT:
        put_make(s, x->fresh);
        break;
    case STORE_RETIME: {
        struct mem_record *r = s->slots[slot_find(s, &w->key)];

        SW_ASSERT(r != NULL);
        r->record.touched_unix_s = x->plan.record.touched_unix_s;
        r->record.expires_unix_s = x->plan.record.expires_unix_s;
        break;
    }
    case STORE_CUTOFF:
        cutoff_make(s, x->subject, &x->plan.cutoff);
        subject_release(s, x->subject);
        break;
    }
    w->ret_version = x->plan.record.version;
}

/* All or none. */
static enum sw_err commit_apply(struct mem_store *s, struct sw_store_commit *op)
{
    struct writing list[SW_COMMIT_WRITES_MAX];
    uint64_t more = 0;
    enum sw_err err;

    for (size_t i = 0; i < op->count; i++) {
        write_plan(s, op, i, &list[i]);
        if (list[i].plan.err != SW_OK) {
            op->failed = i;
            return list[i].plan.err;
        }
        if (op->writes[i].kind == SW_WRITE_PUT) {
            more += record_bytes(&list[i].plan.record);
        }
    }
    if (s->bytes_max != 0 && more > 0 && s->bytes + more > s->bytes_max) {
        return SW_E_STORE_FULL;
    }
    err = writes_prepare(s, op, list);
    if (err != SW_OK) {
        writes_drop(s, op, list);
        return err;
    }
    for (size_t i = 0; i < op->count; i++) {
        write_make(s, &op->writes[i], &list[i]);
    }
    return SW_OK;
}

/* ---- the collector --------------------------------------------------------------------------- */

/* As lmdb_expire.c does: what was cut off stays for SW_TOMBSTONE_S_MIN; the cut-off goes last. */
static void sweep(struct mem_store *s, struct mem_subject *x, int64_t now)
{
    struct sw_link *l = x->records.next;

    while (l != &x->records) {
        struct mem_record *r = SW_CONTAINER(l, struct mem_record, of_subject);

        l = l->next;
        if (is_cut(r)) {
            slot_remove(s, slot_find(s, &r->key)); /* x stays: it has a cut-off */
            sw_store__add(&s->base.expired, 1);
        }
    }
    if (sw_store__expired(x->cutoff.expires_unix_s, now)) {
        x->cutoff = (struct store_cutoff){0};
        subject_drop_empty(s, x);
    } else {
        x->cutoff.look_unix_s = x->cutoff.expires_unix_s;
    }
}

static void collect_cutoffs(struct mem_store *s, int64_t now)
{
    struct mem_subject *x = s->chains[s->collect_chain_at++ & (s->chain_count - 1)];

    while (x != NULL) {
        struct mem_subject *next = x->next;

        if (sw_store__expired(x->cutoff.look_unix_s, now)) {
            sweep(s, x, now);
        }
        x = next;
    }
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
    collect_cutoffs(s, now);
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
    due_publish(s);
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
        struct sw_record *out = &op->record;

        op->err = SW_OK;
        *out = is_cut(r) ? sw_store__tombstone_of(&r->record) : r->record;
        out->subject = sw_arena_copy(op->arena, out->subject);
        out->extra = sw_arena_copy(op->arena, out->extra);
        if (op->value_bytes_max == 0 || out->value.len <= op->value_bytes_max) {
            out->value = sw_arena_copy(op->arena, out->value);
        } else {
            out->value.ptr = NULL;
        }
        if (op->arena->overflowed) {
            *out = (struct sw_record){0};
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

static bool is_visited(const struct mem_record *r, const struct sw_store_key *after, int64_t now)
{
    return !sw_store__expired(r->record.expires_unix_s, now) && !is_cut(r) &&
           (after == NULL || memcmp(&r->key, after, sizeof(*after)) > 0);
}

/* Frees the list. */
static void visit_sorted(struct mem_record **list, size_t count, size_t limit, sw_store_scan_fn *fn,
                         void *arg)
{
    qsort(list, count, sizeof(struct mem_record *), by_key);
    for (size_t i = 0; i < count && i < limit; i++) {
        fn(arg, &list[i]->key, &list[i]->record);
    }
    free(list);
}

static enum sw_err mem_scan(struct sw_store *store, const struct sw_store_key *after, size_t limit,
                            int64_t now_unix_s, sw_store_scan_fn *fn, void *arg)
{
    struct mem_store *s = (struct mem_store *)store;
    struct mem_record **list;
    enum sw_err err = SW_E_NO_MEMORY;
    size_t count = 0;

    pthread_mutex_lock(&s->lock);
    list = calloc(s->used + 1, sizeof(struct mem_record *));
    for (size_t i = 0; i < s->slot_count && list != NULL; i++) {
        if (s->slots[i] != NULL && is_visited(s->slots[i], after, now_unix_s)) {
            list[count++] = s->slots[i];
        }
    }
    if (list != NULL) {
        visit_sorted(list, count, limit, fn, arg);
        err = SW_OK;
    }
    pthread_mutex_unlock(&s->lock);
    return err;
}

static enum sw_err mem_scan_subject(struct sw_store *store, struct sw_slice subject,
                                    const struct sw_store_key *after, size_t limit,
                                    int64_t now_unix_s, sw_store_scan_fn *fn, void *arg)
{
    struct mem_store *s = (struct mem_store *)store;
    struct mem_record **list;
    struct mem_subject *x;
    enum sw_err err = SW_E_NO_MEMORY;
    size_t count = 0, all = 0;

    pthread_mutex_lock(&s->lock);
    x = subject_find(s, subject);
    for (struct sw_link *l = x != NULL ? x->records.next : NULL; x != NULL && l != &x->records;
         l = l->next) {
        all++;
    }
    list = calloc(all + 1, sizeof(struct mem_record *));
    for (struct sw_link *l = all > 0 ? x->records.next : NULL;
         list != NULL && all > 0 && l != &x->records; l = l->next) {
        struct mem_record *r = SW_CONTAINER(l, struct mem_record, of_subject);

        if (is_visited(r, after, now_unix_s)) {
            list[count++] = r;
        }
    }
    if (list != NULL) {
        visit_sorted(list, count, limit, fn, arg);
        err = SW_OK;
    }
    pthread_mutex_unlock(&s->lock);
    return err;
}

static enum sw_err mem_due(struct sw_store *store, int64_t now_unix_ms, size_t limit,
                           sw_store_due_fn *fn, void *arg)
{
    struct mem_store *s = (struct mem_store *)store;
    size_t dead = 0;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->due_count && limit > 0 && dead < STORE_DUE_SKIP_MAX; i++) {
        const struct mem_record *r = s->due[i];

        if (r->record.due_unix_ms > now_unix_ms) {
            break;
        }
        if (is_visited(r, NULL, now_unix_ms / 1000)) {
            fn(arg, &r->key, r->record.due_unix_ms);
            limit--;
        } else {
            dead++;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return SW_OK;
}

static int64_t mem_cutoff(struct sw_store *store, struct sw_slice subject)
{
    struct mem_store *s = (struct mem_store *)store;
    struct mem_subject *x;
    int64_t at;

    pthread_mutex_lock(&s->lock);
    x = subject_find(s, subject);
    at = x != NULL ? x->cutoff.not_before_unix_ms : 0;
    pthread_mutex_unlock(&s->lock);
    return at;
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
    for (size_t i = 0; i < s->chain_count; i++) {
        while (s->chains[i] != NULL) {
            struct mem_subject *next = s->chains[i]->next;

            free(s->chains[i]);
            s->chains[i] = next;
        }
    }
    free(s->chains);
    free(s->due);
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
    .scan_subject = mem_scan_subject,
    .due = mem_due,
    .cutoff = mem_cutoff,
    .close = mem_close,
};

enum sw_err sw_store_open_mem(const struct sw_store_options *opt, struct sw_store **ret_store)
{
    struct mem_store *s = calloc(1, sizeof(*s));
    uint64_t seeds[2] = {0};
    ssize_t got = getrandom(seeds, sizeof(seeds), 0);

    SW_ASSERT(got == sizeof(seeds)); /* 16 bytes are never cut short */
    if (s != NULL) {
        s->chain_count = SLOTS_MIN;
        s->chains = calloc(s->chain_count, sizeof(struct mem_subject *));
    }
    if (s == NULL || s->chains == NULL || !table_grow(s)) {
        free(s != NULL ? s->chains : NULL);
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
