/* gateway/alarms.c - at its time an alarm becomes a POST to the app, with the state it belongs to.
 *
 * An alarm is part of its state's record, and the store keeps an index of what is due: so it is
 * set, moved by a renewal, and ended together with the state, in the same transactions. One worker
 * of the process looks whether something is due (one relaxed load, every TICK_NS), and runs an
 * exchange without a client for it: through the line of the key, with the state as it is then. The
 * commit of the app's answer removes the alarm in the same transaction; so it is delivered at least
 * once, and its effect on the state happens exactly once. What fails is tried again later, by a
 * new time in the record (placement/session.c): a restart forgets nothing.
 */
#include "gateway/gateway_priv.h"

#define TICK_NS    (50 * SW_NS_PER_MS)
#define AGAIN_NS   SW_NS_PER_MS /* something is due, but as many as may run do */
#define AT_ONCE    64u
#define STUCK_NS   (2 * SW_NS_PER_S) /* the store took no write: it will not at once */
#define LISTED_MAX (2 * AT_ONCE)     /* those that run are listed too */

struct sw_alarms {
    struct sw_worker *worker;
    struct sw_timer timer;
    bool stopped;
    uint64_t stuck_until_ns; /* nothing is begun before */
    size_t running_count, listed_count;
    struct sw_store_key running[AT_ONCE];
    struct sw_store_key listed[LISTED_MAX];
};

static bool is_running(const struct sw_alarms *a, const struct sw_store_key *key)
{
    for (size_t i = 0; i < a->running_count; i++) {
        if (memcmp(&a->running[i], key, sizeof(*key)) == 0) {
            return true;
        }
    }
    return false;
}

/* *ret_gone: the one that set it is not there any more. Then it is another one: by its rules the
 * failure is written, but its app is not asked, for the state is none of its business. */
static const struct sw_config_route *route_by_ident(const struct sw_config *c, uint64_t ident,
                                                    bool *ret_gone)
{
    const struct sw_config_route *any = NULL;

    *ret_gone = false;
    for (size_t i = 0; i < c->route_count; i++) {
        if (c->routes[i].placement == SW_PLACE_SESSION && c->routes[i].ident == ident &&
            c->routes[i].session.alarm.len > 0) {
            return &c->routes[i];
        }
        if (c->routes[i].placement == SW_PLACE_SESSION) {
            any = &c->routes[i];
        }
    }
    *ret_gone = true;
    return any;
}

/* The alarm of this record that is due; the earliest. *ret_unreadable: there is one, but what it
 * wanted cannot be read (of another version, or damaged): it must not stay in front of the others.
 */
static bool find_due(const struct sw_record *r, int64_t now_unix_ms, struct sw_alarm *ret_alarm,
                     bool *ret_unreadable)
{
    struct sw_alarm list[SW_ALARMS_MAX];
    size_t count = 0, best = 0;

    if (r->kind != SW_RECORD_STATE) {
        return false;
    }
    *ret_unreadable = sw_alarms_read(r->extra, list, &count) != SW_OK || count == 0;
    if (*ret_unreadable) {
        *ret_alarm = (struct sw_alarm){.id = SW_S("unreadable"),
                                       .due_unix_ms = r->due_unix_ms,
                                       .attempt = SW_ALARM_TRIES_MAX - 1};
        return r->due_unix_ms != 0 && r->due_unix_ms <= now_unix_ms;
    }
    for (size_t i = 1; i < count; i++) {
        if (list[i].due_unix_ms < list[best].due_unix_ms) {
            best = i;
        }
    }
    *ret_alarm = list[best];
    return ret_alarm->due_unix_ms <= now_unix_ms;
}

static void put_request(struct sw_exchange *x)
{
    struct sw_head *h = &x->request;
    struct sw_slice path = x->routed.route->session.alarm;

    h->method = SW_METHOD_POST;
    h->method_name = SW_S("POST");
    h->target = h->path = path;
    h->host = SW_S("localhost");
    h->minor = 1;
    h->keep_alive = true;
    h->framing = SW_FRAMING_LENGTH;
    h->length = 0;
    h->fields[0] = sw_field_make(SW_S("Host"), h->host);
    h->fields[1] = sw_field_make(SW_S("Content-Length"), SW_S("0"));
    h->field_count = 2;
}

/* False: no slot for it now. */
static bool deliver(struct sw_alarms *a, const struct sw_store_key *key)
{
    struct sw_worker *w = a->worker;
    struct sw_exchange *x = sw_exchange__new_alarm(w, a);
    bool unreadable = false, gone = false;
    struct sw_store_load op = {
        .key = *key,
        .now_unix_s = sw_loop_now_unix_s(w->loop),
        .value_bytes_max = 1,
        .loop = w->loop,
    };
    enum sw_step step;

    if (x == NULL) {
        return false;
    }
    op.arena = &x->arena;
    step = sw_store_load(w->env.store, &op);
    SW_ASSERT(step == SW_STEP_DONE); /* alarms are embedded stores' */
    if (op.err != SW_OK ||
        !find_due(&op.record, sw_loop_now_unix_ms(w->loop), &x->alarm, &unreadable)) {
        x->alarms = NULL; /* changed since it was listed */
        sw_exchange__drop(x);
        return true;
    }
    x->routed.route = route_by_ident(w->config, x->alarm.route_ident, &gone);
    if (x->routed.route == NULL) {
        x->alarms = NULL; /* no route keeps sessions any more */
        sw_exchange__drop(x);
        return true;
    }
    a->running[a->running_count++] = *key;
    x->alarm_key = *key;
    put_request(x);
    sw_ex__ask_init(x);
    if (unreadable || gone) { /* it fails by the same write as any other */
        (void)sw_ex__fail(x, unreadable ? SW_E_STORE_CORRUPT : SW_E_NO_ROUTE);
        sw_ex__run(x);
        return true;
    }
    sw_exchange__start_alarm(x);
    return true;
}

static void on_due(void *arg, const struct sw_store_key *key, int64_t due_unix_ms)
{
    struct sw_alarms *a = arg;

    (void)due_unix_ms;
    if (a->listed_count < LISTED_MAX && !is_running(a, key)) {
        a->listed[a->listed_count++] = *key;
    }
}

static void look(struct sw_alarms *a)
{
    struct sw_worker *w = a->worker;
    int64_t now = sw_loop_now_unix_ms(w->loop);
    int64_t next = sw_store_next_due_unix_ms(w->env.store);
    bool more = false;

    if (next > 0 && next <= now && sw_loop_now_ns(w->loop) >= a->stuck_until_ns) {
        a->listed_count = 0;
        if (sw_store_due(w->env.store, now, LISTED_MAX, on_due, a) != SW_OK) {
            a->listed_count = 0; /* what is wrong with the store, others say */
        }
        for (size_t i = 0; i < a->listed_count; i++) {
            if (a->running_count == AT_ONCE || !deliver(a, &a->listed[i])) {
                more = true;
                break;
            }
        }
    }
    sw_timer_start(w->loop, &a->timer,
                   sw_loop_now_ns(w->loop) +
                       (more && a->running_count < AT_ONCE ? AGAIN_NS : TICK_NS));
}

static void on_timer(struct sw_timer *t, void *arg)
{
    (void)t;
    look(arg);
}

void sw_alarms__done(struct sw_alarms *a, struct sw_exchange *x, bool delivered)
{
    struct sw_stats *s = a->worker->stats;
    bool last = x->alarm.attempt + 1 >= SW_ALARM_TRIES_MAX;
    bool known = x->alarm.route_ident == x->routed.route->ident;
    struct sw_slice path = known ? x->routed.route->path : SW_S("that is gone");

    for (size_t i = 0; i < a->running_count; i++) {
        if (memcmp(&a->running[i], &x->alarm_key, sizeof(x->alarm_key)) == 0) {
            a->running[i] = a->running[--a->running_count];
            break;
        }
    }
    if (delivered) {
        sw_count(&s->alarms_delivered, 1);
    } else {
        sw_count(last ? &s->alarms_dropped : &s->alarms_failed, 1);
        sw_log(last ? SW_LOG_ERROR : SW_LOG_WARN,
               "the alarm \"%.*s\" of %s %.*s was not taken (try %u of %u): %s; %s",
               SW_SARG(x->alarm.id), known ? "route" : "a route", SW_SARG(path),
               x->alarm.attempt + 1, SW_ALARM_TRIES_MAX, sw_err_text(x->err),
               last ? "it is given up" : "it is tried again later");
    }
    if (x->alarm_stuck) {
        a->stuck_until_ns = sw_loop_now_ns(a->worker->loop) + STUCK_NS;
    }
    if (!a->stopped) {
        sw_timer_start(a->worker->loop, &a->timer, sw_loop_now_ns(a->worker->loop) + AGAIN_NS);
    }
}

struct sw_alarms *sw_alarms__new(struct sw_worker *w)
{
    struct sw_alarms *a = calloc(1, sizeof(*a));

    if (a != NULL) {
        a->worker = w;
        sw_timer_init(&a->timer, on_timer, a);
        sw_timer_start(w->loop, &a->timer, sw_loop_now_ns(w->loop) + TICK_NS);
    }
    return a;
}

void sw_alarms__stop(struct sw_alarms *a)
{
    a->stopped = true;
    sw_timer_stop(a->worker->loop, &a->timer);
}

void sw_alarms__free(struct sw_alarms *a)
{
    if (a != NULL) {
        sw_timer_stop(a->worker->loop, &a->timer);
        free(a);
    }
}
