/* app/health.c - who may answer: active checks, and ejection by what the workers saw.
 *
 * Room       app/, main thread.
 * Flow       check.c tells a result, the tick reads the workers' counters; states move.
 *
 * Two judges, and an instance serves when neither objects: `failing` (its checks, with thresholds)
 * and `ejected` (five exchanges in a row failed on it; for 10 s, doubling to 5 min). Checks that
 * fail take as many out as they concern: a refused connection is a fact. Ejection is a guess, and
 * takes out at most half of an app, whatever put the others there.
 */
#include "app/life_priv.h"

static uint64_t check_interval_ns(struct sw_life *l, const struct sw_instance *i)
{
    const struct app_table *t = sw_life__app(l, i)->table;
    uint64_t interval_ns = t->config->health_interval_ns;

    if (sw_instance__state(i) == SW_INSTANCE_STARTING) {
        uint64_t age_ns = sw_loop_now_ns(l->loop) - i->life.since_ns;

        if (!t->spawned) {
            return SW_MIN(interval_ns, LIFE_SERVER_NS);
        }
        return SW_MIN(interval_ns,
                      age_ns < 2 * SW_NS_PER_S ? LIFE_STARTING_NS : LIFE_STARTING_SLOW_NS);
    }
    /* a tenth earlier or later, so that the checks of many do not fall together */
    return interval_ns - interval_ns / 10 + sw_loop_random(l->loop) % (interval_ns / 5 + 1);
}

static bool health_is_checked(const struct sw_life *l, const struct sw_instance *i)
{
    switch (sw_instance__state(i)) {
    case SW_INSTANCE_STARTING:
    case SW_INSTANCE_HEALTHY:
    case SW_INSTANCE_UNHEALTHY:
        return i->addr.len > 0;
    case SW_INSTANCE_DRAINING: /* a server may be undrained; a process will not come back */
        return !l->list[i->app].table->spawned;
    case SW_INSTANCE_NONE:
    case SW_INSTANCE_STOPPING:
    case SW_INSTANCE_STATE_COUNT:
        break;
    }
    return false;
}

void sw_health__begin(struct sw_life *l, struct sw_instance *i)
{
    i->life.ok_streak = 0;
    i->life.bad_streak = 0;
    sw_check__stop(i->life.check);
    sw_check__start(i->life.check, l->config->apps[i->app].health_timeout_ns);
}

void sw_health__due(struct sw_timer *timer, void *arg)
{
    struct sw_check *c = arg;

    (void)timer;
    if (health_is_checked(c->life, c->instance)) {
        sw_check__start(c, c->life->config->apps[c->instance->app].health_timeout_ns);
    }
}

static void health_passed(struct sw_life *l, struct sw_instance *i)
{
    i->life.bad_streak = 0;
    i->life.ok_streak++;
    if (i->life.ok_streak >= l->config->apps[i->app].health_healthy) {
        i->life.failing = false;
        if (!i->life.ejected && (sw_instance__state(i) == SW_INSTANCE_STARTING ||
                                 sw_instance__state(i) == SW_INSTANCE_UNHEALTHY)) {
            sw_life__passed(l, i);
        }
    }
}

static void health_failed(struct sw_life *l, struct sw_instance *i, const char *why)
{
    enum sw_instance_state state = sw_instance__state(i);

    i->life.ok_streak = 0;
    i->life.bad_streak++;
    if (i->life.bad_streak < l->config->apps[i->app].health_unhealthy) {
        return;
    }
    if (state == SW_INSTANCE_STARTING && l->list[i->app].table->spawned) {
        return; /* it has until its start deadline */
    }
    i->life.failing = true;
    if (state == SW_INSTANCE_STARTING || state == SW_INSTANCE_HEALTHY) {
        sw_life__log(l, SW_LOG_WARN, "%s is unhealthy: %s", i->name, why);
        sw_life__to(l, i, SW_INSTANCE_UNHEALTHY);
    }
}

void sw_health__checked(struct sw_check *c, void *arg, enum check_result result, const char *why)
{
    struct sw_life *l = arg;
    struct sw_instance *i = c->instance;

    SW_ASSERT(l->magic == LIFE_MAGIC);
    SW_ASSERT(health_is_checked(l, i)); /* else the check had been stopped */
    switch (result) {
    case CHECK_OK:
        health_passed(l, i);
        break;
    case CHECK_BAD:
        health_failed(l, i, why);
        break;
    case CHECK_UNKNOWN:
        break;
    }
    if (health_is_checked(l, i)) {
        sw_timer_start(l->loop, &c->next, sw_loop_now_ns(l->loop) + check_interval_ns(l, i));
    }
}

/* May one more be out? Counted are those that could serve newcomers; half of them must remain. */
static bool eject_is_allowed(const struct app_table *t)
{
    uint32_t all = 0, out = 0;

    for (uint32_t k = 0; k < t->count; k++) {
        enum sw_instance_state s = sw_instance__state(&t->instances[k]);

        all += s == SW_INSTANCE_HEALTHY || s == SW_INSTANCE_UNHEALTHY;
        out += s == SW_INSTANCE_UNHEALTHY;
    }
    return (out + 1) * 2 <= all;
}

void sw_health__tick(struct sw_life *l, struct sw_instance *i)
{
    uint64_t now_ns = sw_loop_now_ns(l->loop);
    enum sw_instance_state state = sw_instance__state(i);
    uint32_t failures = atomic_load(&i->failures);

    if (state == SW_INSTANCE_HEALTHY && failures >= EJECT_FAILURES &&
        eject_is_allowed(sw_life__app(l, i)->table)) {
        uint64_t span_ns = EJECT_NS << SW_MIN(i->life.ejections, 5u);

        span_ns = SW_MIN(span_ns, EJECT_MAX_NS);
        i->life.ejected = true;
        i->life.ejections++;
        i->life.eject_until_ns = now_ns + span_ns;
        sw_life__log(l, SW_LOG_WARN, "%s is out for %llu s: %u exchanges in a row failed on it",
                     i->name, (unsigned long long)(span_ns / SW_NS_PER_S), failures);
        sw_life__to(l, i, SW_INSTANCE_UNHEALTHY);
    } else if (i->life.ejected && now_ns >= i->life.eject_until_ns) {
        i->life.ejected = false;
        atomic_store(&i->failures, 0u);
        if (state == SW_INSTANCE_UNHEALTHY && !i->life.failing) {
            sw_life__passed(l, i);
        }
    } else if (state == SW_INSTANCE_HEALTHY && i->life.ejections > 0 &&
               now_ns - i->life.since_ns > EJECT_MAX_NS) {
        i->life.ejections = 0;
    }
}
