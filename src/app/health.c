/* app/health.c - who may answer: active checks, and ejection by what the workers saw. And how large
 * a header it takes.
 *
 * Room       app/, main thread.
 * Flow       check.c tells a result, the tick reads the workers' counters; states move.
 *
 * Two judges, and an instance serves when neither objects: `failing` (its checks, with thresholds)
 * and `ejected` (five exchanges in a row failed on it; for 10 s, doubling to 5 min). Checks that
 * fail take as many out as they concern: a refused connection is a fact. Ejection is a guess, and
 * takes out at most half of an app, whatever put the others there.
 *
 * The probe. Every server limits a request's head, few at the same size, and some close without an
 * answer: an app then works until a state has grown. So when an instance that gets states becomes
 * healthy, it is asked with a head as large as the largest one that a state may make. If that is
 * refused (400, 413, 431, 5xx, or closed) and a plain request is not, half of it is tried, and half
 * of that; and the full one once more, since a 503 may be chance. At most 2 + PROBE_TRIES +
 * PROBE_HALVINGS requests, beside checks and traffic; no state of the instance changes by it.
 *
 * One answer for an app: the least that its serving instances take. It rises again when those that
 * take less have left; where nothing is known of an instance it does not rise. A server may have
 * been restarted, with other settings, when it comes back from failed checks: it is probed again.
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
    i->life.check->header.stage = PROBE_NONE;
    i->life.check->header.asked = 0;
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

/* ---- the probe ------------------------------------------------------------------------------- */

static const char *limit_reason(const struct sw_check *c, char text[static 32])
{
    if (c->header.status == 0) {
        return "it closes";
    }
    (void)snprintf(text, 32, "it answers %u", c->header.status);
    return text;
}

static void limit_tell(struct sw_life *l, const struct app_table *t, const struct sw_check *c,
                       uint32_t limit)
{
    const char *rest = l->config->side_addr.len > 0
                           ? "go by the side API"
                           : "cannot be handed over (`side: { address: off }`)";
    char reason[32];

    if (c == NULL) {
        sw_life__log(l, SW_LOG_INFO, "%.*s takes states of %u bytes in a header again",
                     SW_SARG(t->config->name), SW_MIN(limit, t->probe_bytes));
        return;
    }
    sw_life__log(
        l, SW_LOG_ERROR,
        "%.*s: %s refuses requests with a state of %u bytes in a header (%s); states above "
        "%u bytes %s. Let its server accept larger heads, or lower `session.inline`",
        SW_SARG(t->config->name), c->instance->name, t->probe_bytes, limit_reason(c, reason), limit,
        rest);
}

/* Does it get states, or may it soon again? */
static bool limit_counts(const struct app_table *t, const struct sw_instance *i)
{
    switch (sw_instance__state(i)) {
    case SW_INSTANCE_HEALTHY:
    case SW_INSTANCE_UNHEALTHY:
        return i->life.healthy_ns > 0;
    case SW_INSTANCE_DRAINING:
        return !t->spawned; /* a server may be undrained */
    case SW_INSTANCE_NONE:
    case SW_INSTANCE_STARTING:
    case SW_INSTANCE_STOPPING:
    case SW_INSTANCE_STATE_COUNT:
        break;
    }
    return false;
}

/* What the app takes, by what is known of its instances now. */
static void limit_settle(struct sw_life *l, uint32_t app)
{
    struct app_table *t = l->list[app].table;
    uint32_t old = atomic_load(&t->inline_bytes), least = UINT32_MAX;
    const struct sw_check *by = NULL;
    bool any = false;

    for (uint32_t k = 0; k < t->used; k++) {
        const struct sw_check *c = t->instances[k].life.check;
        uint32_t takes;

        if (!limit_counts(t, &t->instances[k])) {
            continue;
        }
        if (c->header.stage == PROBE_DONE) {
            takes = c->header.takes;
            any = true;
        } else {
            takes = old;
        }
        if (takes < least) {
            least = takes;
            by = c;
        }
    }
    if (any && least != old) {
        atomic_store_explicit(&t->inline_bytes, least, memory_order_relaxed);
        limit_tell(l, t, least < old ? by : NULL, least);
    }
}

static bool probe_refused(enum check_end end, unsigned status)
{
    return end == CHECK_CLOSED || status == 400 || status == 413 || status == 431 || status >= 500;
}

static void probe_ask(struct sw_check *c, enum probe_stage stage, uint32_t bytes)
{
    c->header.stage = stage;
    c->header.asked++;
    sw_check__probe(c, bytes, c->life->config->apps[c->instance->app].health_timeout_ns);
}

static void probe_begin(struct sw_life *l, struct sw_instance *i)
{
    uint32_t bytes = sw_life__app(l, i)->table->probe_bytes;

    if (bytes == 0 || i->life.check->header.stage != PROBE_NONE) {
        return;
    }
    i->life.check->header.halvings = 0;
    probe_ask(i->life.check, PROBE_FULL, bytes);
}

static void probe_done(struct sw_check *c, uint32_t takes)
{
    c->header.stage = PROBE_DONE;
    c->header.takes = takes;
    limit_settle(c->life, c->instance->app);
}

void sw_health__probed(struct sw_check *c, enum check_end end, unsigned status)
{
    uint32_t full = sw_life__app(c->life, c->instance)->table->probe_bytes;
    bool is_refused = probe_refused(end, status);

    SW_ASSERT(c->life->magic == LIFE_MAGIC);
    if (end == CHECK_FAILED || end == CHECK_UNASKED) {
        /* busy with its start, perhaps: the next check that passes tries again */
        c->header.stage = c->header.asked < PROBE_TRIES ? PROBE_NONE : PROBE_OPEN;
        return;
    }
    switch (c->header.stage) {
    case PROBE_FULL:
        if (!is_refused) {
            probe_done(c, UINT32_MAX);
            return;
        }
        c->header.status = status;
        probe_ask(c, PROBE_PLAIN, 0);
        return;
    case PROBE_PLAIN:
        if (is_refused) {
            c->header.stage = PROBE_OPEN; /* it is not the size */
            return;
        }
        probe_ask(c, PROBE_HALF, full / 2);
        return;
    case PROBE_HALF:
        c->header.halvings++;
        if (is_refused && c->header.halvings < PROBE_HALVINGS) {
            probe_ask(c, PROBE_HALF, c->header.bytes / 2);
            return;
        }
        c->header.takes = is_refused ? 0 : c->header.bytes;
        probe_ask(c, PROBE_AGAIN, full);
        return;
    case PROBE_AGAIN:
        probe_done(c, is_refused ? c->header.takes : UINT32_MAX);
        return;
    case PROBE_NONE:
    case PROBE_DONE:
    case PROBE_OPEN:
        break;
    }
    SW_UNREACHABLE(); /* nothing was asked */
}

/* ---- the checks ------------------------------------------------------------------------------ */

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
        if (sw_instance__state(i) == SW_INSTANCE_HEALTHY) {
            probe_begin(l, i);
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
    if (i->life.check->header.stage >= PROBE_DONE && !l->list[i->app].table->spawned) {
        i->life.check->header.stage = PROBE_NONE;
        i->life.check->header.asked = 0;
    }
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

    if (sw_app_inline_bytes(l->apps, i->app) != UINT32_MAX) {
        limit_settle(l, i->app); /* those that take less may have left */
    }
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
