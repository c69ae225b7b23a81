/* app/retry.c - how many second tries an app's exchanges may have: no storm on those that remain.
 *
 * Room       app/. Atomics only; any worker.
 *
 * First tries and second tries are counted in buckets of one second. A bucket is one 64-bit word,
 * the second above the count, so that starting it anew is one compare-and-swap.
 */
#include "app/app_priv.h"

#define BUCKET(second, count) ((uint64_t)(uint32_t)(second) << 32 | (uint32_t)(count))

static void bucket_add(_Atomic uint64_t *b, uint32_t second)
{
    uint64_t old = atomic_load_explicit(b, memory_order_relaxed);

    for (;;) {
        uint64_t new = (uint32_t)(old >> 32) == second ? old + 1 : BUCKET(second, 1);

        if (atomic_compare_exchange_weak(b, &old, new)) {
            return;
        }
    }
}

/* Takes one back, unless the bucket is another second's by now. */
static void bucket_take(_Atomic uint64_t *b, uint32_t second)
{
    uint64_t old = atomic_load_explicit(b, memory_order_relaxed);

    while ((uint32_t)(old >> 32) == second && (uint32_t)old > 0) {
        if (atomic_compare_exchange_weak(b, &old, old - 1)) {
            return;
        }
    }
}

static uint64_t bucket_count(const _Atomic uint64_t *b, uint32_t second)
{
    uint64_t v = atomic_load(b);

    return second - (uint32_t)(v >> 32) < RETRY_WINDOW_S ? (uint32_t)v : 0;
}

void sw_app_retry_earn(struct sw_apps *a, uint32_t app, uint64_t now_ns)
{
    struct app_table *t = sw_apps__table(a, app);
    uint32_t second = (uint32_t)(now_ns / SW_NS_PER_S);

    bucket_add(&t->retry[second % RETRY_BUCKETS].earned, second);
}

bool sw_app_retry_spend(struct sw_apps *a, uint32_t app, uint64_t now_ns)
{
    struct app_table *t = sw_apps__table(a, app);
    uint32_t second = (uint32_t)(now_ns / SW_NS_PER_S);
    _Atomic uint64_t *mine = &t->retry[second % RETRY_BUCKETS].spent;
    uint64_t earned = 0, spent = 0, allowed;

    bucket_add(mine, second); /* first spend, then look: two at once cannot both take the last */
    for (uint32_t k = 0; k < RETRY_BUCKETS; k++) {
        earned += bucket_count(&t->retry[k].earned, second);
        spent += bucket_count(&t->retry[k].spent, second);
    }
    allowed = SW_MAX(earned * t->config->retry_budget_percent / 100, (uint64_t)RETRY_AT_LEAST);
    if (spent <= allowed) {
        return true;
    }
    bucket_take(mine, second);
    return false;
}
