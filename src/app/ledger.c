/* app/ledger.c - which pins live on which incarnation: who must still be waited for at a drain.
 *
 * Room       app/. Workers record, the main thread sweeps. Shards with a lock each, held for a few
 *            loads and stores; no system call inside.
 *
 * A shard is a hash table with chains over a fixed array of entries, linked by index (0: none).
 * An instance's `sessions` counts the entries that name its incarnation. Whoever takes an entry
 * away holds a reference on the table entry while it decrements, and looks whether it still is
 * that incarnation; so a new incarnation never inherits a decrement (see instance.c).
 */
#include "app/app_priv.h"

#define LEDGER_SHARDS 64u

struct ledger_entry {
    uint64_t pin_id;
    uint64_t incarnation; /* 0: free */
    int64_t expires_unix_s;
    uint32_t instance; /* index into the table of instances */
    uint32_t next;     /* in its chain, or in the free list */
};

struct ledger_shard {
    _Alignas(64) pthread_mutex_t lock;
    struct ledger_entry *entries; /* [1 .. capacity] */
    uint32_t *buckets;
    uint32_t free_list;
    uint32_t touched; /* entries behind this were never used */
    uint32_t used;
};

struct sw_ledger {
    struct sw_apps *apps;
    uint32_t capacity;    /* of a shard */
    uint32_t bucket_mask; /* of a shard */
    uint32_t sweep_shard, sweep_at;
    struct ledger_entry *entries;
    uint32_t *buckets;
    struct ledger_shard shards[LEDGER_SHARDS];
};

struct sw_ledger *sw_ledger__new(struct sw_apps *a, uint32_t capacity)
{
    struct sw_ledger *l =
        aligned_alloc(_Alignof(struct sw_ledger), sizeof *l); /* the shards' alignment */
    uint32_t buckets = 1;

    SW_ASSERT(capacity > 0);
    if (l == NULL) {
        return NULL;
    }
    memset((void *)l, 0, sizeof *l);
    l->apps = a;
    l->capacity = (capacity + LEDGER_SHARDS - 1) / LEDGER_SHARDS;
    while (buckets < l->capacity) {
        buckets *= 2;
    }
    l->bucket_mask = buckets - 1;
    l->entries = calloc((size_t)LEDGER_SHARDS * (l->capacity + 1), sizeof *l->entries);
    l->buckets = calloc((size_t)LEDGER_SHARDS * buckets, sizeof *l->buckets);
    if (l->entries == NULL || l->buckets == NULL) {
        free(l->entries);
        free(l->buckets);
        free(l);
        return NULL;
    }
    for (uint32_t k = 0; k < LEDGER_SHARDS; k++) {
        struct ledger_shard *s = &l->shards[k];
        int rc = pthread_mutex_init(&s->lock, NULL);

        SW_ASSERT(rc == 0); /* default attributes: cannot fail on Linux */
        s->entries = l->entries + (size_t)k * (l->capacity + 1);
        s->buckets = l->buckets + (size_t)k * buckets;
    }
    return l;
}

void sw_ledger__free(struct sw_ledger *l)
{
    if (l == NULL) {
        return;
    }
    for (uint32_t k = 0; k < LEDGER_SHARDS; k++) {
        pthread_mutex_destroy(&l->shards[k].lock);
    }
    free(l->entries);
    free(l->buckets);
    free(l);
}

/* One session less for that incarnation, if it still is there. */
static void ledger_uncount(struct sw_ledger *l, const struct ledger_entry *e)
{
    struct sw_instance *i = &l->apps->instances[e->instance];

    sw_instance_ref(i);
    if (sw_instance__state(i) != SW_INSTANCE_NONE && i->incarnation == e->incarnation) {
        uint32_t before = atomic_fetch_sub(&i->sessions, 1);

        SW_ASSERT(before > 0);
    }
    sw_instance_unref(i);
}

static uint32_t ledger_alloc(struct sw_ledger *l, struct ledger_shard *s)
{
    uint32_t at = s->free_list;

    if (at != 0) {
        s->free_list = s->entries[at].next;
    } else if (s->touched < l->capacity) {
        at = ++s->touched;
    } else {
        return 0;
    }
    s->used++;
    return at;
}

/* There is no entry for this pin: until its idle time is over nobody can say that all have left. */
static void ledger_unlisted(struct sw_instance *i, int64_t until_unix_s)
{
    int64_t old = atomic_load(&i->unlisted_until_unix_s);

    while (old < until_unix_s &&
           !atomic_compare_exchange_weak(&i->unlisted_until_unix_s, &old, until_unix_s)) {
    }
}

void sw_ledger_seen(struct sw_apps *a, struct sw_instance *i, uint64_t pin_id, int64_t now_unix_s,
                    int64_t idle_s)
{
    struct sw_ledger *l;
    struct ledger_shard *s;
    uint32_t *bucket, at;
    uint64_t h = sw_app__mix(pin_id);
    uint64_t incarnation;
    uint32_t index;

    SW_ASSERT(a->magic == APPS_MAGIC);
    SW_ASSERT(atomic_load(&i->refs) > 0); /* the caller's: the incarnation cannot change below */
    l = a->ledger;
    index = sw_instance__index(a, i);
    incarnation = i->incarnation;
    s = &l->shards[h % LEDGER_SHARDS];
    bucket = &s->buckets[(h / LEDGER_SHARDS) & l->bucket_mask];
    pthread_mutex_lock(&s->lock);
    for (at = *bucket; at != 0 && s->entries[at].pin_id != pin_id; at = s->entries[at].next) {
    }
    if (at == 0) {
        at = ledger_alloc(l, s);
        if (at == 0) {
            pthread_mutex_unlock(&s->lock);
            ledger_unlisted(i, now_unix_s + idle_s);
            return;
        }
        s->entries[at] = (struct ledger_entry){pin_id, incarnation, 0, index, *bucket};
        *bucket = at;
        atomic_fetch_add(&i->sessions, 1);
    } else if (s->entries[at].incarnation != incarnation || s->entries[at].instance != index) {
        ledger_uncount(l, &s->entries[at]); /* moved here */
        s->entries[at].incarnation = incarnation;
        s->entries[at].instance = index;
        atomic_fetch_add(&i->sessions, 1);
    }
    s->entries[at].expires_unix_s = now_unix_s + idle_s;
    pthread_mutex_unlock(&s->lock);
}

static void ledger_remove(struct sw_ledger *l, struct ledger_shard *s, uint32_t at)
{
    struct ledger_entry *e = &s->entries[at];
    uint32_t *link = &s->buckets[(sw_app__mix(e->pin_id) / LEDGER_SHARDS) & l->bucket_mask];

    while (*link != at) {
        SW_ASSERT(*link != 0);
        link = &s->entries[*link].next;
    }
    *link = e->next;
    ledger_uncount(l, e);
    *e = (struct ledger_entry){.next = s->free_list};
    s->free_list = at;
    s->used--;
}

static bool ledger_is_over(struct sw_ledger *l, const struct ledger_entry *e, int64_t now_unix_s)
{
    const struct sw_instance *i = &l->apps->instances[e->instance];

    return e->expires_unix_s <= now_unix_s || i->incarnation != e->incarnation ||
           sw_instance__state(i) == SW_INSTANCE_NONE;
}

void sw_ledger__sweep(struct sw_apps *a, int64_t now_unix_s, uint32_t count)
{
    struct sw_ledger *l = a->ledger;

    for (uint32_t shards = 0; count > 0 && shards <= LEDGER_SHARDS; shards++) {
        struct ledger_shard *s = &l->shards[l->sweep_shard];

        pthread_mutex_lock(&s->lock);
        if (s->used > 0) {
            for (; count > 0 && l->sweep_at < s->touched; count--) {
                uint32_t at = ++l->sweep_at;

                if (s->entries[at].incarnation != 0 &&
                    ledger_is_over(l, &s->entries[at], now_unix_s)) {
                    ledger_remove(l, s, at);
                }
            }
        }
        if (s->used == 0 || l->sweep_at >= s->touched) {
            l->sweep_shard = (l->sweep_shard + 1) % LEDGER_SHARDS;
            l->sweep_at = 0;
        }
        pthread_mutex_unlock(&s->lock);
    }
}

uint32_t sw_ledger__used(struct sw_apps *a)
{
    uint32_t used = 0;

    for (uint32_t k = 0; k < LEDGER_SHARDS; k++) {
        pthread_mutex_lock(&a->ledger->shards[k].lock);
        used += a->ledger->shards[k].used;
        pthread_mutex_unlock(&a->ledger->shards[k].lock);
    }
    return used;
}
