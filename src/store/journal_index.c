/* store/journal_index.c - the indexes of subjects and of what is due, and the cut-offs.
 *
 * Room       store/. As journal_table.c. Ordered sets: 64 of states by subject and key, beside each
 * the cut-offs of its subjects; one of what is due, by time and key.
 *
 * They hold entries only for records that need them. An entry is made before the batch is written,
 * so that showing what is on disk cannot fail.
 */
#include "store/journal_priv.h"

/* ---- places ---------------------------------------------------------------------------------- */

static int slice_compare(struct sw_slice a, struct sw_slice b)
{
    size_t common = SW_MIN(a.len, b.len);
    int order = common > 0 ? memcmp(a.ptr, b.ptr, common) : 0;

    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static struct sw_slice subject_of(const struct journal_record *r)
{
    return (struct sw_slice){r->bytes, r->subject_len};
}

static int by_subject(const struct journal_place *place, const void *item)
{
    const struct journal_record *r = item;
    int order = slice_compare(place->subject, subject_of(r));

    return order != 0 ? order : memcmp(&place->key, &r->key, sizeof(r->key));
}

static int by_due(const struct journal_place *place, const void *item)
{
    const struct journal_record *r = item;

    if (place->time != r->due_unix_ms) {
        return place->time > r->due_unix_ms ? 1 : -1;
    }
    return memcmp(&place->key, &r->key, sizeof(r->key));
}

static int by_cutoff(const struct journal_place *place, const void *item)
{
    const struct journal_cutoff *c = item;

    return slice_compare(place->subject, (struct sw_slice){c->subject, c->subject_len});
}

static struct journal_place place_of(const struct journal_record *r)
{
    return (struct journal_place){subject_of(r), r->due_unix_ms, r->key};
}

/* ---- the indexes follow ---------------------------------------------------------------------- */

struct journal_subjects *sw_journal__subjects_of(struct journal_table *t, struct sw_slice subject)
{
    return &t->subjects[sw_slice_hash(subject, t->seed) % JOURNAL_SUBJECT_SHARDS];
}

static void subject_leave(struct journal_table *t, struct journal_record *r)
{
    struct journal_subjects *sub = sw_journal__subjects_of(t, subject_of(r));
    struct journal_place place = place_of(r);

    pthread_mutex_lock(&sub->lock);
    r->by_subject = sw_journal__list_take(&sub->states, &place);
    pthread_mutex_unlock(&sub->lock);
    free(sw_take(&r->by_subject));
}

static void subject_enter(struct journal_table *t, struct journal_record *r)
{
    struct journal_subjects *sub = sw_journal__subjects_of(t, subject_of(r));
    struct journal_place place = place_of(r);

    r->by_subject->item = r;
    pthread_mutex_lock(&sub->lock);
    sw_journal__list_put(&sub->states, &place, r->by_subject);
    pthread_mutex_unlock(&sub->lock);
}

/* r takes over the entry of old, in whose place it stands. */
static void subject_stay(struct journal_table *t, struct journal_record *old,
                         struct journal_record *r)
{
    struct journal_subjects *sub = sw_journal__subjects_of(t, subject_of(r));

    free(r->by_subject);
    r->by_subject = sw_take(&old->by_subject);
    pthread_mutex_lock(&sub->lock);
    r->by_subject->item = r;
    pthread_mutex_unlock(&sub->lock);
}

static void due_leave(struct journal_table *t, struct journal_record *r)
{
    struct journal_place place = place_of(r);

    pthread_mutex_lock(&t->due.lock);
    r->by_due = sw_journal__list_take(&t->due.list, &place);
    pthread_mutex_unlock(&t->due.lock);
    free(sw_take(&r->by_due));
    t->due.moved = true;
}

static void due_enter(struct journal_table *t, struct journal_record *r)
{
    struct journal_place place = place_of(r);

    r->by_due->item = r;
    pthread_mutex_lock(&t->due.lock);
    sw_journal__list_put(&t->due.list, &place, r->by_due);
    t->due.moved = true;
    pthread_mutex_unlock(&t->due.lock);
}

void sw_journal__indexes_follow(struct journal_table *t, struct journal_record *old,
                                struct journal_record *r)
{
    bool was = old != NULL && old->by_subject != NULL, is = r != NULL && r->by_subject != NULL;

    if (was && is && sw_slice_eq(subject_of(old), subject_of(r))) {
        subject_stay(t, old, r);
    } else {
        if (was) {
            subject_leave(t, old);
        }
        if (is) {
            subject_enter(t, r);
        }
    }
    if (old != NULL && old->by_due != NULL) {
        due_leave(t, old);
    }
    if (r != NULL && r->by_due != NULL) {
        due_enter(t, r);
    }
}

void sw_journal__undue(struct journal_table *t, struct journal_record *r)
{
    struct journal_shard *sh = shard_of(t, &r->key);

    SW_ASSERT(r->by_due != NULL);
    pthread_mutex_lock(&sh->lock);
    due_leave(t, r);
    r->due_unix_ms = 0;
    pthread_mutex_unlock(&sh->lock);
    sw_store__add(&t->used, 0 - (uint64_t)JOURNAL_ENTRY_BYTES);
}

void sw_journal__due_publish(struct journal_store *s)
{
    const struct journal_node *first;
    int64_t at = 0;

    if (!s->table.due.moved) {
        return;
    }
    s->table.due.moved = false;
    first = sw_journal__list_first(&s->table.due.list);
    if (first != NULL) {
        at = ((const struct journal_record *)first->item)->due_unix_ms;
    }
    atomic_store_explicit(&s->base.next_due_unix_ms, at, memory_order_relaxed);
}

/* ---- cut-offs -------------------------------------------------------------------------------- */

struct store_cutoff sw_journal__cutoff_find(struct journal_table *t, struct sw_slice subject)
{
    struct journal_place place = {.subject = subject};
    struct store_cutoff c = {0};
    struct journal_subjects *sub;
    const struct journal_node *n;

    if (atomic_load_explicit(&t->cutoff_count, memory_order_acquire) == 0) {
        return c;
    }
    sub = sw_journal__subjects_of(t, subject);
    pthread_mutex_lock(&sub->lock);
    n = sw_journal__list_seek(&sub->cutoffs, &place);
    if (n != NULL && by_cutoff(&place, n->item) == 0) {
        c = ((const struct journal_cutoff *)n->item)->c;
    }
    pthread_mutex_unlock(&sub->lock);
    return c;
}

bool sw_journal__cut(struct journal_table *t, const struct sw_record *r)
{
    return atomic_load_explicit(&t->cutoff_count, memory_order_acquire) != 0 &&
           sw_store__has_subject(r) &&
           sw_store__cut(r, sw_journal__cutoff_find(t, r->subject).not_before_unix_ms);
}

struct journal_node *sw_journal__cutoff_new(struct sw_slice subject, struct sw_rng *rng)
{
    struct journal_cutoff *c = calloc(1, sizeof(*c) + subject.len);
    struct journal_node *n = sw_journal__node_new(rng);

    if (c == NULL || n == NULL) {
        free(c);
        free(n);
        return NULL;
    }
    memcpy(c->subject, subject.ptr, subject.len);
    c->subject_len = (uint8_t)subject.len;
    n->item = c;
    return n;
}

void sw_journal__cutoff_free(struct journal_node *n)
{
    if (n != NULL) {
        free(n->item);
        free(n);
    }
}

static uint64_t cutoff_memory(struct sw_slice subject)
{
    return sizeof(struct journal_cutoff) + subject.len + JOURNAL_ENTRY_BYTES +
           JOURNAL_ALLOCATION_BYTES;
}

void sw_journal__cutoff_set(struct journal_table *t, struct sw_slice subject,
                            const struct store_cutoff *c, uint32_t segment,
                            struct journal_node **fresh)
{
    struct journal_place place = {.subject = subject};
    struct journal_subjects *sub = sw_journal__subjects_of(t, subject);
    struct journal_cutoff *item;
    struct journal_node *n;

    pthread_mutex_lock(&sub->lock);
    n = sw_journal__list_seek(&sub->cutoffs, &place);
    if (n == NULL || by_cutoff(&place, n->item) != 0) {
        n = sw_take(fresh);
        SW_ASSERT(n != NULL);
        sw_journal__list_put(&sub->cutoffs, &place, n);
        sw_store__add(&t->used, cutoff_memory(subject));
        sw_store__add(&t->live, JOURNAL_FRAME_HEAD + sw_journal__cutoff_bytes(subject));
        atomic_fetch_add(&t->cutoff_count, 1);
    }
    item = n->item;
    item->c = *c;
    item->segment = segment;
    pthread_mutex_unlock(&sub->lock);
}

void sw_journal__cutoff_remove(struct journal_table *t, struct sw_slice subject)
{
    struct journal_place place = {.subject = subject};
    struct journal_subjects *sub = sw_journal__subjects_of(t, subject);
    struct journal_node *n;

    pthread_mutex_lock(&sub->lock);
    n = sw_journal__list_take(&sub->cutoffs, &place);
    atomic_fetch_sub(&t->cutoff_count, 1);
    pthread_mutex_unlock(&sub->lock);
    sw_store__add(&t->used, 0 - cutoff_memory(subject));
    sw_store__add(&t->live, 0 - (JOURNAL_FRAME_HEAD + (uint64_t)sw_journal__cutoff_bytes(subject)));
    sw_journal__cutoff_free(n);
}

/* ---- life ------------------------------------------------------------------------------------ */

void sw_journal__indexes_init(struct journal_table *t)
{
    for (size_t i = 0; i < JOURNAL_SUBJECT_SHARDS; i++) {
        pthread_mutex_init(&t->subjects[i].lock, NULL);
        sw_journal__list_init(&t->subjects[i].states, by_subject);
        sw_journal__list_init(&t->subjects[i].cutoffs, by_cutoff);
    }
    pthread_mutex_init(&t->due.lock, NULL);
    sw_journal__list_init(&t->due.list, by_due);
}

void sw_journal__indexes_fini(struct journal_table *t)
{
    for (size_t i = 0; i < JOURNAL_SUBJECT_SHARDS; i++) {
        struct journal_list *cutoffs = &t->subjects[i].cutoffs;

        for (struct journal_node *n = sw_journal__list_first(cutoffs); n != NULL; n = n->next[0]) {
            free(n->item);
        }
        sw_journal__list_fini(cutoffs);
        pthread_mutex_destroy(&t->subjects[i].lock);
    }
    pthread_mutex_destroy(&t->due.lock);
}
