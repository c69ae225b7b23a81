/* app/upstream.c - one worker's connections to instances: kept, made, waited for.
 *
 * Room       app/. Speaks io/ only; what goes over a connection is the gateway's.
 * Flow       gateway/ -> sw_upstream_get -> (idle | connect | queue) -> exchange ->
 * sw_upstream_put.
 *
 * A connection counts in the instance's `connections` and holds a reference on it from the connect
 * to the close, whoever owns it meanwhile. So an entry of the table is never used again while there
 * is a connection to its old incarnation, and no connection outlives what it was made for.
 *
 * Idle connections keep reading armed: a peer that closes is noticed at once, and a peer that
 * speaks without being asked is closed (its bytes would be taken for the next answer).
 *
 * connections_max counts over all workers. A worker that waits while another one sits on idle
 * connections wakes it (sw_upstream__wake_all); that one then closes some, which wakes the first.
 */
#include "app/app_priv.h"
#include "base/pool.h"

#define UPSTREAM_MAGIC     0x75707374u
#define SWEEP_NS           SW_NS_PER_S
#define PENDING_DEFAULT_NS (30 * SW_NS_PER_S)

struct upstream_idle {
    struct sw_link link; /* upstream_side.idle, newest first */
    struct sw_upstream *upstream;
    struct upstream_side *side;
    struct sw_stream *stream;
    uint64_t since_ns;
};

/* This worker's side of one instance. */
struct upstream_side {
    struct sw_instance *instance;
    struct sw_link active;  /* sw_upstream.active while it has idle connections or waiters */
    struct sw_link idle;    /* struct upstream_idle */
    struct sw_link waiters; /* struct sw_upstream_wait, first come first */
    uint32_t idle_count, waiter_count;
};

struct sw_upstream {
    uint32_t magic;
    uint32_t seat;
    struct sw_apps *apps;
    struct sw_loop *loop;
    uint64_t connect_ns, pending_ns;
    struct sw_pool idles;
    struct upstream_side *sides; /* by the instance's index */
    struct sw_link active;
    struct sw_link connecting; /* struct sw_upstream_wait */
    struct sw_timer sweep;
    uint32_t idle_total;
    uint32_t pending[SW_APPS_MAX];
};

static void side_serve(struct sw_upstream *u, struct upstream_side *d);

/* ---- waking ---------------------------------------------------------------------------------- */

static void seat_post(struct app_seat *seat)
{
    if (!atomic_exchange(&seat->posted, true)) {
        sw_loop_post(seat->loop, &seat->post);
    }
}

void sw_upstream__wake_all(struct sw_apps *a, const struct sw_upstream *but)
{
    pthread_mutex_lock(&a->seats_lock);
    for (uint32_t k = 0; k < SW_UPSTREAMS_MAX; k++) {
        if (a->seats[k].upstream != NULL && a->seats[k].upstream != but) {
            seat_post(&a->seats[k]);
        }
    }
    pthread_mutex_unlock(&a->seats_lock);
}

static void upstream_wake_self(struct sw_upstream *u)
{
    seat_post(&u->apps->seats[u->seat]);
}

/* ---- connections ----------------------------------------------------------------------------- */

static struct upstream_side *upstream_side(struct sw_upstream *u, struct sw_instance *i)
{
    return &u->sides[sw_instance__index(u->apps, i)];
}

static void side_activity(struct sw_upstream *u, struct upstream_side *d)
{
    bool is_active = d->idle_count > 0 || d->waiter_count > 0;

    if (is_active && !sw_link_linked(&d->active)) {
        sw_list_push_back(&u->active, &d->active);
    } else if (!is_active) {
        sw_link_remove(&d->active);
    }
    if (is_active && !sw_timer_running(&u->sweep)) {
        sw_timer_start(u->loop, &u->sweep, sw_loop_now_ns(u->loop) + SWEEP_NS);
    }
}

/* One connection less. Whoever waits for its place, here or on another worker, gets a turn; only
 * others if it is given away. */
static void connection_count_down(struct sw_upstream *u, struct upstream_side *d, bool give_away)
{
    struct sw_instance *i = d->instance;
    uint32_t before = atomic_fetch_sub(&i->connections, 1);

    SW_ASSERT(before > 0);
    if (atomic_load(&i->waiting) > d->waiter_count) {
        sw_upstream__wake_all(u->apps, u);
    }
    if (d->waiter_count > 0 && !give_away) {
        upstream_wake_self(u);
    }
    sw_instance_unref(i);
}

static uint32_t side_connections_max(const struct sw_upstream *u, const struct upstream_side *d)
{
    uint32_t max = u->apps->tables[d->instance->app].config->connections_max;

    return max > 0 ? max : UINT32_MAX;
}

/* Takes a place for one more connection; false: all are in use. */
static bool connection_count_up(struct sw_upstream *u, struct upstream_side *d)
{
    struct sw_instance *i = d->instance;

    if (atomic_fetch_add(&i->connections, 1) >= side_connections_max(u, d)) {
        atomic_fetch_sub(&i->connections, 1);
        return false;
    }
    sw_instance_ref(i);
    return true;
}

/* ---- idle ones ------------------------------------------------------------------------------- */

/* Out of the idle list; the stream is the caller's. */
static struct sw_stream *idle_take(struct upstream_idle *n)
{
    struct sw_upstream *u = n->upstream;
    struct upstream_side *d = n->side;
    struct sw_stream *s = n->stream;

    sw_link_remove(&n->link);
    SW_ASSERT(d->idle_count > 0);
    SW_ASSERT(u->idle_total > 0);
    d->idle_count--;
    u->idle_total--;
    sw_pool_put(&u->idles, n);
    side_activity(u, d);
    return s;
}

static void idle_close(struct upstream_idle *n)
{
    struct sw_upstream *u = n->upstream;
    struct upstream_side *d = n->side;

    sw_stream_close(idle_take(n));
    connection_count_down(u, d, false);
}

/* Bytes nobody asked for. */
static void idle_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct upstream_idle *n = arg;

    (void)buf;
    (void)bytes;
    SW_ASSERT(n->stream == s);
    idle_close(n);
}

static void idle_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct upstream_idle *n = arg;

    (void)err;
    SW_ASSERT(n->stream == s);
    idle_close(n);
}

static const struct sw_stream_events idle_events = {.recv = idle_recv, .end = idle_end};

static struct upstream_idle *side_newest(struct upstream_side *d)
{
    return sw_list_empty(&d->idle) ? NULL : SW_CONTAINER(d->idle.next, struct upstream_idle, link);
}

static struct upstream_idle *side_oldest(struct upstream_side *d)
{
    return sw_list_empty(&d->idle) ? NULL : SW_CONTAINER(d->idle.prev, struct upstream_idle, link);
}

static bool upstream_keep(struct sw_upstream *u, struct upstream_side *d, struct sw_stream *s)
{
    enum sw_instance_state state = sw_instance__state(d->instance);
    struct upstream_idle *n;

    if (state == SW_INSTANCE_NONE || state == SW_INSTANCE_STOPPING ||
        d->idle_count >= SW_UPSTREAM_IDLE_INSTANCE_MAX || sw_stream_queued(s) > 0) {
        return false;
    }
    if (d->waiter_count == 0 && atomic_load(&d->instance->waiting) > 0) {
        return false; /* another worker needs the place */
    }
    n = sw_pool_get(&u->idles);
    if (n == NULL) {
        return false;
    }
    *n = (struct upstream_idle){{NULL, NULL}, u, d, s, sw_loop_now_ns(u->loop)};
    sw_list_push_front(&d->idle, &n->link);
    d->idle_count++;
    u->idle_total++;
    sw_stream_attach(s, &idle_events, n);
    sw_stream_read_start(s);
    side_activity(u, d);
    return true;
}

/* ---- new ones -------------------------------------------------------------------------------- */

/* Ends the wait and tells it; the last thing a caller does with w. */
static void wait_end(struct sw_upstream_wait *w, enum sw_err err, struct sw_stream *s, bool reused)
{
    SW_ASSERT(!w->pending);
    SW_ASSERT(w->connecting == NULL);
    sw_timer_stop(w->upstream->loop, &w->timer);
    w->fn(w, err, s, reused);
}

/* What became of a connect is told in the words of an app's failure. */
static enum sw_err connect_err(enum sw_err err)
{
    switch (err) {
    case SW_E_NO_FILES:
        return SW_E_NO_FILES;
    case SW_E_LIMIT: /* no slot on our own loop */
    case SW_E_NO_BUFFERS:
    case SW_E_NO_MEMORY:
        return SW_E_OVERLOADED;
    case SW_E_TIMEOUT:
        return SW_E_CONNECT_SLOW;
    default:
        return SW_E_CONNECT;
    }
}

static void connect_abort(struct sw_upstream_wait *w)
{
    struct sw_stream *s = sw_take(&w->connecting);

    sw_link_remove(&w->link);
    sw_timer_stop(w->upstream->loop, &w->timer);
    sw_stream_close(s);
    connection_count_down(w->upstream, upstream_side(w->upstream, w->instance), false);
}

static void connect_failed(struct sw_upstream_wait *w, enum sw_err err)
{
    connect_abort(w);
    wait_end(w, err, NULL, false);
}

static void connect_done(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct sw_upstream_wait *w = arg;

    SW_ASSERT(w->connecting == s);
    if (err != SW_OK) {
        connect_failed(w, connect_err(err));
        return;
    }
    sw_link_remove(&w->link);
    w->connecting = NULL;
    wait_end(w, SW_OK, s, false);
}

/* Before it is connected: a failure. Engines say so by connect_done; this is the second net. */
static void connect_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct sw_upstream_wait *w = arg;

    SW_ASSERT(w->connecting == s);
    connect_failed(w, connect_err(err));
}

static void connect_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)s;
    (void)arg;
    (void)buf;
    (void)bytes;
    SW_UNREACHABLE(); /* reading is off */
}

static const struct sw_stream_events connect_events = {
    .connected = connect_done, .recv = connect_recv, .end = connect_end};

static void connect_slow(struct sw_timer *timer, void *arg)
{
    (void)timer;
    connect_failed(arg, SW_E_CONNECT_SLOW);
}

/* The place was counted already. */
static enum sw_err wait_connect(struct sw_upstream_wait *w)
{
    struct sw_upstream *u = w->upstream;
    enum sw_err err;

    SW_ASSERT(w->connecting == NULL);
    err = sw_stream_connect(u->loop, &w->instance->addr, &connect_events, w, &w->connecting);
    if (err != SW_OK) {
        w->connecting = NULL;
        connection_count_down(u, upstream_side(u, w->instance), false);
        return connect_err(err);
    }
    sw_list_push_back(&u->connecting, &w->link);
    sw_timer_init(&w->timer, connect_slow, w);
    sw_timer_start(u->loop, &w->timer, sw_loop_now_ns(u->loop) + u->connect_ns);
    return SW_OK;
}

/* ---- the queue ------------------------------------------------------------------------------- */

static void pending_leave(struct sw_upstream_wait *w)
{
    struct sw_upstream *u = w->upstream;
    struct upstream_side *d = upstream_side(u, w->instance);

    SW_ASSERT(w->pending);
    SW_ASSERT(d->waiter_count > 0);
    SW_ASSERT(u->pending[w->instance->app] > 0);
    w->pending = false;
    sw_link_remove(&w->link);
    sw_timer_stop(u->loop, &w->timer);
    d->waiter_count--;
    u->pending[w->instance->app]--;
    atomic_fetch_sub(&w->instance->waiting, 1);
    side_activity(u, d);
}

static void pending_slow(struct sw_timer *timer, void *arg)
{
    struct sw_upstream_wait *w = arg;

    (void)timer;
    pending_leave(w);
    wait_end(w, SW_E_PENDING_FULL, NULL, false);
}

static enum sw_err pending_enter(struct sw_upstream_wait *w)
{
    struct sw_upstream *u = w->upstream;
    struct upstream_side *d = upstream_side(u, w->instance);
    uint32_t app = w->instance->app;

    if (u->pending[app] >= u->apps->tables[app].config->pending_max) {
        return SW_E_PENDING_FULL;
    }
    w->pending = true;
    sw_list_push_back(&d->waiters, &w->link);
    d->waiter_count++;
    u->pending[app]++;
    atomic_fetch_add(&w->instance->waiting, 1);
    sw_timer_init(&w->timer, pending_slow, w);
    sw_timer_start(u->loop, &w->timer, sw_loop_now_ns(u->loop) + u->pending_ns);
    side_activity(u, d);
    sw_upstream__wake_all(u->apps, u); /* those who sit on idle ones */
    if (atomic_load(&w->instance->connections) < side_connections_max(u, d)) {
        upstream_wake_self(u); /* one was given back since we looked, before it saw us waiting */
    }
    return SW_OK;
}

/* Gives the waiters what there is: idle connections, then new ones. */
static void side_serve(struct sw_upstream *u, struct upstream_side *d)
{
    while (!sw_list_empty(&d->waiters)) {
        struct sw_upstream_wait *w = SW_CONTAINER(d->waiters.next, struct sw_upstream_wait, link);
        enum sw_instance_state state = sw_instance__state(d->instance);
        struct upstream_idle *n = w->fresh ? NULL : side_newest(d);
        enum sw_err err;

        if (state == SW_INSTANCE_NONE || state == SW_INSTANCE_STOPPING) {
            pending_leave(w);
            wait_end(w, SW_E_NO_INSTANCE, NULL, false);
            continue;
        }
        if (n != NULL) {
            struct sw_stream *s = idle_take(n);

            pending_leave(w);
            wait_end(w, SW_OK, s, true);
            continue;
        }
        if (w->fresh && side_oldest(d) != NULL) {
            sw_stream_close(idle_take(side_oldest(d))); /* its place, not its connection */
        } else if (!connection_count_up(u, d)) {
            return;
        }
        pending_leave(w);
        err = wait_connect(w);
        if (err != SW_OK) {
            wait_end(w, err, NULL, false);
        }
    }
}

/* ---- turns of its own ------------------------------------------------------------------------ */

/* Looks at one instance: did it leave, do others need our places, is anything too old? */
static void side_sweep(struct sw_upstream *u, struct upstream_side *d, uint64_t now_ns)
{
    enum sw_instance_state state = sw_instance__state(d->instance);
    bool left = state == SW_INSTANCE_NONE || state == SW_INSTANCE_STOPPING;
    uint32_t wanted = atomic_load(&d->instance->waiting);
    struct upstream_idle *n;

    side_serve(u, d);
    wanted = wanted > d->waiter_count ? wanted - d->waiter_count : 0;
    if (d->waiter_count > 0) {
        wanted = 0;
    }
    while ((n = side_oldest(d)) != NULL &&
           (left || wanted > 0 || n->since_ns + SW_UPSTREAM_IDLE_NS <= now_ns)) {
        idle_close(n);
        wanted -= wanted > 0;
    }
}

static void upstream_look(struct sw_upstream *u)
{
    uint64_t now_ns = sw_loop_now_ns(u->loop);
    struct sw_link todo;

    /* The list is moved aside and filled again: callbacks of waiters change it while we walk. */
    sw_list_init(&todo);
    while (!sw_list_empty(&u->active)) {
        sw_list_push_back(&todo, sw_list_pop_front(&u->active));
    }
    while (!sw_list_empty(&todo)) {
        struct upstream_side *d =
            SW_CONTAINER(sw_list_pop_front(&todo), struct upstream_side, active);

        side_activity(u, d); /* back to u->active while it has something */
        side_sweep(u, d, now_ns);
    }
}

static void upstream_posted(struct sw_post *post, void *arg)
{
    struct app_seat *seat = arg;

    (void)post;
    atomic_store(&seat->posted, false); /* first: what happens from now on posts again */
    if (seat->upstream != NULL) {
        upstream_look(seat->upstream);
    }
}

static void upstream_swept(struct sw_timer *timer, void *arg)
{
    struct sw_upstream *u = arg;

    (void)timer;
    upstream_look(u);
    if (!sw_list_empty(&u->active) && !sw_timer_running(&u->sweep)) {
        sw_timer_start(u->loop, &u->sweep, sw_loop_now_ns(u->loop) + SWEEP_NS);
    }
}

/* ---- what the gateway calls ------------------------------------------------------------------ */

enum sw_step sw_upstream_get(struct sw_upstream *u, struct sw_instance *i, bool fresh,
                             struct sw_upstream_wait *w, sw_upstream_fn *fn, void *arg,
                             struct sw_stream **ret_stream, enum sw_err *ret_err)
{
    struct upstream_side *d;
    enum sw_err err;

    SW_ASSERT(u->magic == UPSTREAM_MAGIC);
    SW_ASSERT(!w->pending);
    SW_ASSERT(w->connecting == NULL);
    SW_ASSERT(atomic_load(&i->refs) > 0);
    d = upstream_side(u, i);
    w->instance = i;
    w->upstream = u;
    w->fn = fn;
    w->arg = arg;
    w->fresh = fresh;
    w->link = (struct sw_link){NULL, NULL};
    sw_timer_init(&w->timer, NULL, NULL);
    if (d->waiter_count == 0) { /* else behind those who came before */
        if (!fresh && d->idle_count > 0) {
            *ret_stream = idle_take(side_newest(d));
            return SW_STEP_DONE;
        }
        if (connection_count_up(u, d)) {
            err = wait_connect(w);
            *ret_err = err;
            return err == SW_OK ? SW_STEP_MORE : SW_STEP_FAIL;
        }
        if (d->idle_count > 0) { /* fresh, and an idle one has the place */
            sw_stream_close(idle_take(side_oldest(d)));
            err = wait_connect(w);
            *ret_err = err;
            return err == SW_OK ? SW_STEP_MORE : SW_STEP_FAIL;
        }
    }
    err = pending_enter(w);
    *ret_err = err;
    return err == SW_OK ? SW_STEP_MORE : SW_STEP_FAIL;
}

void sw_upstream_cancel(struct sw_upstream_wait *w)
{
    if (w->pending) {
        struct sw_upstream *u = w->upstream;
        struct upstream_side *d = upstream_side(u, w->instance);

        pending_leave(w);
        if (atomic_load(&d->instance->waiting) > 0 &&
            atomic_load(&d->instance->connections) < side_connections_max(u, d)) {
            sw_upstream__wake_all(u->apps, NULL); /* a place was perhaps meant for us */
        }
    } else if (w->connecting != NULL) {
        connect_abort(w);
    }
}

/* Others wait, too: this place is theirs as often as their share of all who wait. Else a worker
 * that always has a queue would keep its connections for ever. */
static bool upstream_gives_away(struct sw_upstream *u, const struct upstream_side *d)
{
    uint32_t all = atomic_load(&d->instance->waiting);

    return d->waiter_count > 0 && all > d->waiter_count &&
           sw_loop_random(u->loop) % all >= d->waiter_count;
}

void sw_upstream_put(struct sw_upstream *u, struct sw_instance *i, struct sw_stream *s,
                     bool reusable)
{
    struct upstream_side *d;
    bool give_away;

    SW_ASSERT(u->magic == UPSTREAM_MAGIC);
    d = upstream_side(u, i);
    give_away = upstream_gives_away(u, d);
    if (!reusable || give_away || !upstream_keep(u, d, s)) {
        sw_stream_close(s);
        connection_count_down(u, d, give_away);
    } else if (d->waiter_count > 0) {
        upstream_wake_self(u);
    }
}

void sw_upstream_forget(struct sw_upstream *u, struct sw_instance *i)
{
    SW_ASSERT(u->magic == UPSTREAM_MAGIC);
    connection_count_down(u, upstream_side(u, i), false);
}

uint32_t sw_upstream_idle(const struct sw_upstream *u)
{
    SW_ASSERT(u->magic == UPSTREAM_MAGIC);
    return u->idle_total;
}

/* ---- begin and end --------------------------------------------------------------------------- */

struct sw_upstream *sw_upstream_new(struct sw_apps *a, struct sw_loop *loop,
                                    const struct sw_config *config)
{
    struct sw_upstream *u;
    uint32_t seat;

    SW_ASSERT(a->magic == APPS_MAGIC);
    SW_ASSERT(config == a->config);
    u = calloc(1, sizeof *u);
    if (u == NULL) {
        return NULL;
    }
    u->sides = calloc(a->instance_count + 1, sizeof *u->sides);
    if (u->sides == NULL ||
        !sw_pool_init(&u->idles, sizeof(struct upstream_idle), SW_UPSTREAM_IDLE_MAX)) {
        free(u->sides);
        free(u);
        return NULL;
    }
    u->magic = UPSTREAM_MAGIC;
    u->apps = a;
    u->loop = loop;
    u->connect_ns = config->timeouts.connect_ns;
    u->pending_ns =
        config->timeouts.response_ns > 0 ? config->timeouts.response_ns : PENDING_DEFAULT_NS;
    sw_list_init(&u->active);
    sw_list_init(&u->connecting);
    sw_timer_init(&u->sweep, upstream_swept, u);
    for (uint32_t k = 0; k < a->instance_count; k++) {
        u->sides[k].instance = &a->instances[k];
        sw_list_init(&u->sides[k].idle);
        sw_list_init(&u->sides[k].waiters);
    }
    pthread_mutex_lock(&a->seats_lock);
    for (seat = 0; seat < SW_UPSTREAMS_MAX; seat++) {
        if (a->seats[seat].upstream == NULL && !atomic_load(&a->seats[seat].posted)) {
            a->seats[seat].upstream = u;
            a->seats[seat].loop = loop;
            a->seats[seat].post = (struct sw_post){NULL, upstream_posted, &a->seats[seat]};
            u->seat = seat;
            break;
        }
    }
    pthread_mutex_unlock(&a->seats_lock);
    if (seat == SW_UPSTREAMS_MAX) {
        sw_pool_fini(&u->idles);
        free(u->sides);
        free(u);
        return NULL;
    }
    return u;
}

void sw_upstream_free(struct sw_upstream *u)
{
    if (u == NULL) {
        return;
    }
    SW_ASSERT(u->magic == UPSTREAM_MAGIC);
    while (!sw_list_empty(&u->connecting)) {
        connect_abort(SW_CONTAINER(u->connecting.next, struct sw_upstream_wait, link));
    }
    for (uint32_t k = 0; k < u->apps->instance_count; k++) {
        struct upstream_side *d = &u->sides[k];

        while (!sw_list_empty(&d->waiters)) {
            pending_leave(SW_CONTAINER(d->waiters.next, struct sw_upstream_wait, link));
        }
        while (side_oldest(d) != NULL) {
            idle_close(side_oldest(d));
        }
    }
    sw_timer_stop(u->loop, &u->sweep);
    pthread_mutex_lock(&u->apps->seats_lock);
    u->apps->seats[u->seat].upstream = NULL;
    pthread_mutex_unlock(&u->apps->seats_lock);
    sw_pool_fini(&u->idles);
    free(u->sides);
    u->magic = 0;
    free(u);
}
