/* keysets/keysets.c - the room's thread, and what workers and the main thread ask.
 *
 * Locks      room.lock: the list, who was tried, stop. keyset.lock: shown, waits, counters. Never
 *            both at once. A worker takes one only when the set changed, or a key is missing.
 */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include "keysets/keysets_priv.h"

#define WAIT_MS_MAX 60000u

_Static_assert(SW_KEYSET_FRESH_S_MIN <= SW_KEYSET_FRESH_S, "within its bounds");
_Static_assert(SW_KEYSET_FRESH_S <= SW_KEYSET_FRESH_S_MAX, "within its bounds");
_Static_assert(SW_KEYSET_KEEP_S >= SW_SKEW_S_MAX, "a token lives so long after its key is gone");
_Static_assert(SW_KEYSET_FETCH_MS < SW_KEYSET_AGAIN_S * 1000, "one fetch of tokens at a time");

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SW_NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- the thread -------------------------------------------------------------------------------
 */

static void was_tried(struct sw_keyset *ks)
{
    struct sw_keysets *k = ks->room;

    pthread_mutex_lock(&k->lock);
    (void)snprintf(ks->nothing_why, sizeof(ks->nothing_why), "%s",
                   ks->current == NULL ? ks->why : "");
    if (!ks->tried) {
        ks->tried = true;
        pthread_cond_broadcast(&k->tried);
    }
    pthread_mutex_unlock(&k->lock);
}

static void on_fetched(struct sw_keyset *ks, const struct keysets_fetched *fetched)
{
    if (fetched->why != NULL) {
        sw_keysets__failed(ks, fetched->why, now_ns());
    } else {
        sw_keysets__took(ks, fetched->text, fetched->fresh_s, now_ns(), time(NULL));
    }
    was_tried(ks);
}

static void file_try(struct sw_keyset *ks)
{
    size_t cap = SW_JWKS_BYTES_MAX + 1, len; /* one more: too long is seen */
    char *text = malloc(cap);
    const char *why = sw_err_text(SW_E_NO_MEMORY);

    if (text != NULL && sw_keysets__file_read(ks->source, text, cap, &len, &why)) {
        sw_keysets__took(ks, sw_slice_of(text, len), -1, now_ns(), time(NULL));
        explicit_bzero(text, len); /* files may hold secrets */
    } else {
        sw_keysets__failed(ks, why, now_ns());
    }
    free(text);
    was_tried(ks);
}

static void source_try(struct sw_keyset *ks)
{
    if (!ks->url) {
        file_try(ks);
        return;
    }
    ks->due_ns = UINT64_MAX; /* its end says when again */
    if (!sw_keysets__fetch(ks->room->fetcher, ks)) {
        sw_keysets__failed(ks, sw_err_text(SW_E_NO_MEMORY), now_ns());
        was_tried(ks);
    }
}

/* Tries what is due; how long nothing else will be, in ms. */
static uint64_t look(struct sw_keyset *const *list, size_t count)
{
    uint64_t next_ns = UINT64_MAX, now;

    for (size_t i = 0; i < count; i++) {
        now = now_ns();
        sw_keysets__expire(list[i], now);
        if (sw_keysets__due(list[i], now)) {
            source_try(list[i]);
        }
        next_ns = SW_MIN(next_ns, sw_keysets__next_ns(list[i]));
    }
    now = now_ns();
    if (next_ns <= now) {
        return 0;
    }
    return SW_MIN((next_ns - now) / SW_NS_PER_MS + 1, (uint64_t)WAIT_MS_MAX);
}

static void *thread_main(void *arg)
{
    struct sw_keysets *k = arg;
    struct sw_keyset *list[SW_KEYSET_SOURCES_MAX];

    prctl(PR_SET_NAME, "keysets");
    for (;;) {
        size_t count;
        bool stop;

        pthread_mutex_lock(&k->lock);
        stop = k->stop;
        count = k->count;
        memcpy(list, k->list, count * sizeof(*list));
        pthread_mutex_unlock(&k->lock);
        if (stop) {
            return NULL;
        }
        sw_keysets__fetcher_run(k->fetcher);
        sw_keysets__fetcher_wait(k->fetcher, look(list, count));
    }
}

/* ---- opened and closed ------------------------------------------------------------------------
 */

static void or_default(uint32_t *ms, uint32_t value)
{
    *ms = *ms == 0 ? value : *ms;
}

static void times_fill(struct sw_keyset_times *t)
{
    or_default(&t->fresh_ms, SW_KEYSET_FRESH_S * 1000);
    or_default(&t->fresh_ms_min, SW_KEYSET_FRESH_S_MIN * 1000);
    or_default(&t->fresh_ms_max, SW_KEYSET_FRESH_S_MAX * 1000);
    or_default(&t->file_ms, SW_KEYSET_FILE_S * 1000);
    or_default(&t->again_ms, SW_KEYSET_AGAIN_S * 1000);
    or_default(&t->fetch_ms, SW_KEYSET_FETCH_MS);
    or_default(&t->retry_ms, 1000);
    or_default(&t->retry_ms_max, SW_KEYSET_RETRY_S_MAX * 1000);
    or_default(&t->keep_ms, SW_KEYSET_KEEP_S * 1000);
}

static bool thread_start(struct sw_keysets *k)
{
    sigset_t all, old;
    int rc;

    sigfillset(&all); /* no signal is handled there */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&k->thread, NULL, thread_main, k);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0;
}

enum sw_err sw_keysets_new(const struct sw_keysets_options *opt, struct sw_keysets **ret_keysets)
{
    struct sw_keysets *k = calloc(1, sizeof(*k));
    pthread_condattr_t attr;
    uint64_t seed;

    if (k == NULL) {
        return SW_E_NO_MEMORY;
    }
    k->magic = KEYSETS_MAGIC;
    k->opt = *opt;
    times_fill(&k->opt.times);
    sw_random(&k->seed, sizeof(k->seed));
    sw_random(&seed, sizeof(seed));
    sw_rng_seed(&k->rng, seed);
    if (sw_keysets__fetcher_new(k->opt.times.fetch_ms, on_fetched, &k->fetcher) != SW_OK) {
        free(k);
        return SW_E_NO_MEMORY;
    }
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->tried, &attr);
    pthread_condattr_destroy(&attr);
    if (!thread_start(k)) {
        pthread_cond_destroy(&k->tried);
        pthread_mutex_destroy(&k->lock);
        sw_keysets__fetcher_free(k->fetcher);
        free(k);
        return SW_E_SYSTEM;
    }
    *ret_keysets = k;
    return SW_OK;
}

void sw_keysets_free(struct sw_keysets *k)
{
    if (k == NULL) {
        return;
    }
    SW_ASSERT(k->magic == KEYSETS_MAGIC);
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    pthread_mutex_unlock(&k->lock);
    sw_keysets__fetcher_wake(k->fetcher);
    pthread_join(k->thread, NULL);
    sw_keysets__fetcher_free(k->fetcher);
    for (size_t i = 0; i < k->count; i++) {
        sw_keysets__source_free(k->list[i]);
    }
    pthread_cond_destroy(&k->tried);
    pthread_mutex_destroy(&k->lock);
    k->magic = 0;
    free(k);
}

static struct sw_keyset *find(const struct sw_keysets *k, struct sw_slice source, bool url,
                              const struct sw_jwks_rules *rules)
{
    for (size_t i = 0; i < k->count; i++) {
        struct sw_keyset *ks = k->list[i];

        if (ks->url == url && ks->rules.algs == rules->algs && ks->rules.signs == rules->signs &&
            sw_slice_eq(sw_slice_cstr(ks->source), source)) {
            return ks;
        }
    }
    return NULL;
}

/* Names in logs and metrics differ, also where sources differ in what is not shown. */
static void name_apart(const struct sw_keysets *k, struct sw_keyset *ks)
{
    unsigned same = 1;

    for (size_t i = 0; i < k->count; i++) {
        struct sw_slice name = k->list[i]->stats.source; /* does not change */

        same += sw_slice_starts(name, ks->stats.source) &&
                        (name.len == ks->stats.source.len || name.ptr[ks->stats.source.len] == '#')
                    ? 1
                    : 0;
    }
    if (same > 1) {
        sw_keysets__name_number(ks, same);
    }
}

enum sw_err sw_keysets_add(struct sw_keysets *k, struct sw_slice source, bool url,
                           const struct sw_jwks_rules *rules, struct sw_keyset **ret_keyset)
{
    struct sw_keyset *ks = find(k, source, url, rules); /* only this thread changes the list */
    enum sw_err err;

    SW_ASSERT(k->magic == KEYSETS_MAGIC);
    if (ks != NULL) {
        *ret_keyset = ks;
        return SW_OK;
    }
    if (k->count == SW_KEYSET_SOURCES_MAX) {
        return SW_E_LIMIT;
    }
    err = sw_keysets__source_new(k, source, url, rules, &ks);
    if (err != SW_OK) {
        return err;
    }
    name_apart(k, ks);
    pthread_mutex_lock(&k->lock);
    k->list[k->count++] = ks;
    pthread_mutex_unlock(&k->lock);
    sw_keysets__fetcher_wake(k->fetcher);
    *ret_keyset = ks;
    return SW_OK;
}

/* Under the lock. */
static const struct sw_keyset *untried(const struct sw_keysets *k)
{
    for (size_t i = 0; i < k->count; i++) {
        if (!k->list[i]->tried) {
            return k->list[i];
        }
    }
    return NULL;
}

enum sw_err sw_keysets_ready(struct sw_keysets *k, uint32_t wait_ms, const char **ret_why)
{
    uint64_t until_ns = now_ns() + wait_ms * SW_NS_PER_MS;
    const struct timespec until = {(time_t)(until_ns / SW_NS_PER_S),
                                   (long)(until_ns % SW_NS_PER_S)};
    enum sw_err err = SW_OK;
    int rc = 0;

    SW_ASSERT(k->magic == KEYSETS_MAGIC);
    pthread_mutex_lock(&k->lock);
    while (untried(k) != NULL && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&k->tried, &k->lock, &until);
    }
    for (size_t i = 0; i < k->count && err == SW_OK; i++) {
        const struct sw_keyset *ks = k->list[i];

        if (!ks->url && (!ks->tried || ks->nothing_why[0] != '\0')) {
            err = SW_E_SYNTAX;
            (void)snprintf(k->told, sizeof(k->told),
                           "%.*s: %s; it must hold a JWK set ({\"keys\":[...]}) or one JWK",
                           SW_SARG(ks->stats.source),
                           ks->tried ? ks->nothing_why : "it could not be read in time");
            *ret_why = k->told;
        }
    }
    pthread_mutex_unlock(&k->lock);
    return err;
}

/* ---- asked by workers -------------------------------------------------------------------------
 */

const struct sw_jwks *sw_keyset_view_get(struct sw_keyset_view *v)
{
    struct sw_keyset *ks = v->keyset;
    struct sw_jwks *before = v->set;

    SW_ASSERT(ks->magic == KEYSET_MAGIC);
    if (SW_LIKELY(atomic_load_explicit(&ks->generation, memory_order_acquire) == v->generation)) {
        return before;
    }
    pthread_mutex_lock(&ks->lock);
    v->set = sw_jwks_ref(ks->shown);
    v->generation = atomic_load_explicit(&ks->generation, memory_order_relaxed);
    pthread_mutex_unlock(&ks->lock);
    sw_jwks_unref(before);
    return v->set;
}

void sw_keyset_view_fini(struct sw_keyset_view *v)
{
    sw_jwks_unref(v->set);
    *v = (struct sw_keyset_view){.keyset = NULL};
}

enum sw_step sw_keyset_want(struct sw_keyset *keyset, struct sw_slice kid, struct sw_key_wait *wait)
{
    enum sw_step step;
    bool order;

    SW_ASSERT(keyset->magic == KEYSET_MAGIC);
    SW_ASSERT(wait->loop != NULL);
    SW_ASSERT(wait->done != NULL);
    step = sw_keysets__want(keyset, kid, wait, now_ns(), &order);
    if (order) {
        sw_keysets__fetcher_wake(keyset->room->fetcher);
    }
    return step;
}

size_t sw_keysets_count(const struct sw_keysets *k)
{
    struct sw_keysets *room = (struct sw_keysets *)(uintptr_t)k; /* the lock is not the value */
    size_t count;

    pthread_mutex_lock(&room->lock);
    count = room->count;
    pthread_mutex_unlock(&room->lock);
    return count;
}

void sw_keysets_stats(const struct sw_keysets *k, size_t index, struct sw_keyset_stats *ret_stats)
{
    struct sw_keysets *room = (struct sw_keysets *)(uintptr_t)k;
    struct sw_keyset *ks;

    pthread_mutex_lock(&room->lock);
    SW_ASSERT(index < room->count);
    ks = room->list[index];
    pthread_mutex_unlock(&room->lock);
    pthread_mutex_lock(&ks->lock);
    *ret_stats = ks->stats;
    pthread_mutex_unlock(&ks->lock);
}
