/* app/balance.c - which instance answers: one function a policy, over the healthy ones.
 *
 * Room       app/. Reads atomics of the table; any worker.
 * Flow       gateway/ and placement/ -> sw_app_pick -> an instance that is held and counted.
 *
 * The counters change while we look. A choice made on a number that is a moment old is still a good
 * choice (that is what the two random choices are for); only the taking at the end is exact.
 */
#include <math.h>

#include "app/app_priv.h"

/* Who may be chosen, with what was read of them once. */
struct pool {
    uint32_t count;
    uint64_t weight_sum, load_sum;
    struct candidate {
        struct sw_instance *instance;
        uint32_t load; /* exchanges on it */
        uint32_t weight;
    } list[APP_INSTANCES_MAX];
};

static bool pick_was_tried(const struct sw_pick *p, const struct sw_instance *i)
{
    for (uint32_t k = 0; k < p->tried_count; k++) {
        if (p->tried[k] == i && p->incarnations[k] == atomic_load(&i->incarnation)) {
            return true;
        }
    }
    return false;
}

/* The healthy and not yet tried; those with all their connections in use only when there are no
 * others (the exchange then waits in the queue). */
static void pool_fill(struct pool *pool, struct app_table *t, const struct sw_pick *p)
{
    uint32_t used = atomic_load(&t->used);
    uint32_t max = t->config->connections_max > 0 ? t->config->connections_max : UINT32_MAX;
    uint32_t open = 0;

    pool->count = 0;
    for (uint32_t k = 0; k < used; k++) {
        struct sw_instance *i = &t->instances[k];

        if (i->weight == 0 || sw_instance__state(i) != SW_INSTANCE_HEALTHY ||
            pick_was_tried(p, i)) {
            continue;
        }
        pool->list[pool->count++] = (struct candidate){
            i, atomic_load_explicit(&i->in_flight, memory_order_relaxed), i->weight};
        open += pool->list[pool->count - 1].load < max;
    }
    if (open > 0 && open < pool->count) {
        uint32_t kept = 0;

        for (uint32_t k = 0; k < pool->count; k++) {
            if (pool->list[k].load < max) {
                pool->list[kept++] = pool->list[k];
            }
        }
        pool->count = kept;
    }
    pool->weight_sum = 0;
    pool->load_sum = 0;
    for (uint32_t k = 0; k < pool->count; k++) {
        pool->weight_sum += pool->list[k].weight;
        pool->load_sum += pool->list[k].load;
    }
}

/* The candidate at `position` of the weights laid end to end, `skip` left out. */
static uint32_t pool_at(const struct pool *pool, uint64_t position, uint32_t skip)
{
    for (uint32_t k = 0; k < pool->count; k++) {
        if (k == skip) {
            continue;
        }
        if (position < pool->list[k].weight) {
            return k;
        }
        position -= pool->list[k].weight;
    }
    SW_UNREACHABLE();
}

/* Is a less loaded than b, each for its weight? */
static bool candidate_below(const struct candidate *a, const struct candidate *b)
{
    return (uint64_t)a->load * b->weight < (uint64_t)b->load * a->weight;
}

/* The less loaded of two drawn by weight (Mitzenmacher, "The power of two choices"): nearly as even
 * as looking for the least, without all workers running to the same one. */
static uint32_t pick_least(const struct pool *pool, struct sw_rng *rng)
{
    uint32_t first, second;

    if (pool->count == 1) {
        return 0;
    }
    first = pool_at(pool, sw_rng_below(rng, pool->weight_sum), UINT32_MAX);
    second = pool_at(pool, sw_rng_below(rng, pool->weight_sum - pool->list[first].weight), first);
    return candidate_below(&pool->list[second], &pool->list[first]) ? second : first;
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t r = a % b;

        a = b;
        b = r;
    }
    return a;
}

/* In turn. With weights the turns of one instance are strewn over the round by a stride near the
 * golden section that is coprime to its length, so that weight 5 is not five in a row. */
static uint32_t pick_round_robin(const struct pool *pool, struct app_table *t)
{
    uint64_t turn = atomic_fetch_add_explicit(&t->turn, 1, memory_order_relaxed);
    uint64_t stride = 1;

    if (t->weighted && pool->weight_sum > 2) {
        stride = pool->weight_sum * 618 / 1000;
        while (stride < 2 || gcd(stride, pool->weight_sum) != 1) {
            stride++;
        }
    }
    return pool_at(pool, turn % pool->weight_sum * stride % pool->weight_sum, UINT32_MAX);
}

/* Bounded-load rendezvous hashing: the key goes to the slot with the highest score that carries no
 * more than 1.25 times its share (arXiv 1608.01350); to the next highest otherwise. Scores are of
 * slots, so that a key comes back to its slot when that was started again. */
static uint32_t pick_hash(const struct pool *pool, const struct app_table *t, uint64_t hash)
{
    uint32_t best = UINT32_MAX, least = 0;
    double best_score = 0;

    for (uint32_t k = 0; k < pool->count; k++) {
        const struct candidate *c = &pool->list[k];
        uint64_t score = sw_app__mix(hash ^ sw_app__mix(0x9e3779b97f4a7c15ull * c->instance->slot));
        /* in (0, 1]; raised to 1/weight by way of its logarithm */
        double unit = ((double)(score >> 11) + 1.0) * 0x1p-53;
        double rank = t->weighted ? log(unit) / (double)c->weight : unit;
        /* ceil(1.25 * (all + this one) * weight / weights) */
        uint64_t bound = (5 * (pool->load_sum + 1) * c->weight + 4 * pool->weight_sum - 1) /
                         (4 * pool->weight_sum);

        if (candidate_below(c, &pool->list[least])) {
            least = k;
        }
        if (c->load < bound && (best == UINT32_MAX || rank > best_score)) {
            best = k;
            best_score = rank;
        }
    }
    return best != UINT32_MAX ? best : least;
}

/* A visitor who will stay: the fewest live sessions, then the fewest exchanges, each for its
 * weight; among equals any, evenly (of n equals the nth replaces the chosen one with a chance of
 * 1/n). */
static uint32_t pick_newcomer(const struct pool *pool, struct sw_rng *rng)
{
    uint32_t best = 0, equals = 1;
    uint64_t best_sessions = pool->list[0].instance->sessions;

    for (uint32_t k = 1; k < pool->count; k++) {
        const struct candidate *c = &pool->list[k], *b = &pool->list[best];
        uint64_t sessions = c->instance->sessions;
        uint64_t mine = sessions * b->weight, theirs = best_sessions * c->weight;

        if (mine > theirs || (mine == theirs && candidate_below(b, c))) {
            continue;
        }
        if (mine < theirs || candidate_below(c, b)) {
            equals = 1;
        } else if (sw_rng_below(rng, ++equals) != 0) {
            continue;
        }
        best = k;
        best_sessions = sessions;
    }
    return best;
}

struct sw_instance *sw_app_pick(struct sw_apps *a, const struct sw_pick *p, struct sw_rng *rng)
{
    struct app_table *t = sw_apps__table(a, p->app);
    struct pool pool;

    SW_ASSERT(p->tried_count <= SW_TRIED_MAX);
    SW_ASSERT(rng != NULL);
    /* Again when the chosen one stopped being healthy between looking and taking. */
    for (int round = 0; round < 4; round++) {
        uint32_t chosen = 0;

        pool_fill(&pool, t, p);
        if (pool.count == 0) {
            return NULL;
        }
        if (p->newcomer) {
            chosen = pick_newcomer(&pool, rng);
        } else {
            switch (t->config->balance) {
            case SW_BALANCE_LEAST:
                chosen = pick_least(&pool, rng);
                break;
            case SW_BALANCE_ROUND_ROBIN:
                chosen = pick_round_robin(&pool, t);
                break;
            case SW_BALANCE_HASH:
                chosen = pick_hash(&pool, t, p->hash);
                break;
            }
        }
        if (sw_instance__take(pool.list[chosen].instance, 0, false)) {
            return pool.list[chosen].instance;
        }
    }
    return NULL;
}
