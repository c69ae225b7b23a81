/* A worker's connections: reuse, dead idle ones, limits, the queue, time-outs. Each row runs on the
 * simulated network and on real loopback sockets under epoll. */
#include "fake.h"

#define SERVER_MAX 64

/* A server that answers nothing by itself: it counts, and closes when told. */
struct server {
    struct fake_world *world;
    struct sw_addr addr;
    int fd;
    struct sw_listener *listener;
    struct sw_stream *streams[SERVER_MAX];
    uint32_t open, accepted;
};

static void server_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct server *v = arg;

    (void)err;
    for (int k = 0; k < SERVER_MAX; k++) {
        if (v->streams[k] == s) {
            v->streams[k] = NULL;
            v->open--;
        }
    }
    sw_stream_close(s);
}

static void server_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)s;
    (void)arg;
    (void)buf;
    (void)bytes;
}

static const struct sw_stream_events server_events = {.recv = server_recv, .end = server_end};

static void server_accept(struct sw_stream *s, void *arg)
{
    struct server *v = arg;

    for (int k = 0; k < SERVER_MAX; k++) {
        if (v->streams[k] == NULL) {
            v->streams[k] = s;
            v->open++;
            v->accepted++;
            sw_stream_attach(s, &server_events, v);
            sw_stream_read_start(s);
            return;
        }
    }
    sw_stream_close(s);
}

static void server_open(struct server *v, struct fake_world *w)
{
    *v = (struct server){.world = w};
    v->fd = fake_listen(w, w->sim != NULL ? 9000 : 0, &v->addr);
    assert_int_equal(sw_listener_open(w->loop, v->fd, server_accept, v, &v->listener), SW_OK);
}

static void server_close(struct server *v)
{
    sw_listener_close(v->listener);
    fake_unlisten(v->world, v->fd);
    for (int k = 0; k < SERVER_MAX; k++) {
        if (v->streams[k] != NULL) {
            sw_stream_close(v->streams[k]);
        }
    }
}

/* One call of sw_upstream_get and what came of it. */
struct call {
    struct sw_upstream_wait wait;
    struct sw_stream *stream;
    enum sw_err err;
    bool done, reused;
    uint32_t order;
};

struct bench {
    struct fake_world world;
    struct fake_config conf;
    struct server server;
    struct sw_apps *apps;
    struct sw_upstream *up;
    struct sw_instance *instance;
    uint32_t order;
};
static struct bench b;

static void caller_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)s;
    (void)arg;
    (void)buf;
    (void)bytes;
}

static void caller_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    (void)s;
    (void)arg;
    (void)err;
}

static const struct sw_stream_events caller_events = {.recv = caller_recv, .end = caller_end};

static void call_done(struct sw_upstream_wait *w, enum sw_err err, struct sw_stream *s, bool reused)
{
    struct call *c = w->arg;

    assert_false(c->done);
    c->done = true;
    c->err = err;
    c->stream = s;
    c->reused = reused;
    c->order = ++b.order;
    if (s != NULL) {
        sw_stream_attach(s, &caller_events, c);
        sw_stream_read_start(s);
    }
}

static enum sw_step get_from(struct sw_upstream *up, struct call *c, bool fresh)
{
    enum sw_step step;

    memset(c, 0, sizeof *c);
    step = sw_upstream_get(up, b.instance, fresh, &c->wait, call_done, c, &c->stream, &c->err);
    if (step != SW_STEP_MORE) {
        c->done = true;
        c->reused = step == SW_STEP_DONE;
        c->order = ++b.order;
    }
    if (step == SW_STEP_DONE) {
        sw_stream_attach(c->stream, &caller_events, c);
        c->err = SW_OK;
    }
    return step;
}

static enum sw_step get(struct call *c, bool fresh)
{
    return get_from(b.up, c, fresh);
}

static bool is_done(void *arg)
{
    return ((struct call *)arg)->done;
}

static void settle(struct call *c)
{
    fake_until(&b.world, is_done, c, 5 * SW_NS_PER_S);
}

static void put(struct call *c, bool reusable)
{
    sw_upstream_put(b.up, b.instance, sw_take(&c->stream), reusable);
}

static bool idle_is(void *arg)
{
    return sw_upstream_idle(b.up) == *(uint32_t *)arg;
}

static void await_idle(uint32_t n)
{
    fake_until(&b.world, idle_is, &n, 5 * SW_NS_PER_S);
}

static bool server_open_is(void *arg)
{
    return b.server.open == *(uint32_t *)arg;
}

static void await_server_open(uint32_t n)
{
    fake_until(&b.world, server_open_is, &n, 5 * SW_NS_PER_S);
}

static void bench_init(bool real)
{
    memset(&b, 0, sizeof b);
    fake_config_init(&b.conf);
    fake_spawned(&b.conf, "shop", 1);
    fake_world_init(&b.world, real);
    server_open(&b.server, &b.world);
    b.apps = sw_apps_new(&b.conf.config);
    assert_non_null(b.apps);
    b.instance = sw_instance__claim(b.apps, 0, 1, 5);
    b.instance->addr = b.server.addr;
    sw_instance__set(b.instance, SW_INSTANCE_STARTING);
    sw_instance__set(b.instance, SW_INSTANCE_HEALTHY);
    sw_instance_ref(b.instance);
    b.up = sw_upstream_new(b.apps, b.world.loop, &b.conf.config);
    assert_non_null(b.up);
}

static void bench_fini(void)
{
    sw_upstream_free(b.up);
    assert_int_equal(b.instance->connections, 0);
    assert_int_equal(b.instance->waiting, 0);
    assert_int_equal(b.instance->refs, 1);
    server_close(&b.server);
    fake_world_fini(&b.world);
    sw_apps_free(b.apps);
}

static void reuse(bool real)
{
    struct call one, two, three;
    struct sw_stream *first, *second;

    bench_init(real);
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    assert_false(one.done);
    settle(&one);
    assert_int_equal(one.err, SW_OK);
    assert_false(one.reused);
    assert_int_equal(get(&two, false), SW_STEP_MORE);
    settle(&two);
    first = one.stream;
    second = two.stream;
    assert_int_equal(b.instance->connections, 2);
    put(&one, true);
    put(&two, true);
    assert_int_equal(sw_upstream_idle(b.up), 2);
    assert_int_equal(get(&one, false), SW_STEP_DONE); /* the warmest */
    assert_ptr_equal(one.stream, second);
    assert_int_equal(get(&two, false), SW_STEP_DONE);
    assert_ptr_equal(two.stream, first);
    put(&two, true);
    assert_int_equal(get(&three, true), SW_STEP_MORE); /* fresh: not the idle one */
    settle(&three);
    assert_false(three.reused);
    assert_int_equal(sw_upstream_idle(b.up), 1);
    assert_int_equal(b.instance->connections, 3);
    put(&one, false);
    assert_int_equal(b.instance->connections, 2);
    put(&three, true);
    await_server_open(2);
    assert_int_equal(b.server.accepted, 3);
    bench_fini();
}

static void dead_idle(bool real)
{
    struct call one, two;

    bench_init(real);
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    assert_int_equal(get(&two, false), SW_STEP_MORE);
    settle(&one);
    settle(&two);
    put(&one, true);
    put(&two, true);
    await_server_open(2);
    for (int k = 0; k < SERVER_MAX; k++) { /* the server's idle time is shorter than ours */
        if (b.server.streams[k] != NULL) {
            server_end(b.server.streams[k], &b.server, SW_E_CLOSED);
            break;
        }
    }
    await_idle(1);
    assert_int_equal(b.instance->connections, 1);
    for (int k = 0; k < SERVER_MAX; k++) { /* this one speaks unasked */
        if (b.server.streams[k] != NULL) {
            assert_int_equal(sw_stream_send(b.server.streams[k], NULL, SW_S("HTTP/1.1 200")),
                             SW_OK);
        }
    }
    await_idle(0);
    assert_int_equal(b.instance->connections, 0);
    assert_int_equal(b.instance->refs, 1);
    await_server_open(0);
    bench_fini();
}

static void limit_and_queue(bool real)
{
    struct call a, c, d, e, f;

    bench_init(real);
    b.conf.apps[0].connections_max = 2;
    b.conf.apps[0].pending_max = 2;
    assert_int_equal(get(&a, false), SW_STEP_MORE);
    assert_int_equal(get(&c, false), SW_STEP_MORE);
    settle(&a);
    settle(&c);
    assert_int_equal(get(&d, false), SW_STEP_MORE);
    assert_int_equal(get(&e, false), SW_STEP_MORE);
    assert_int_equal(get(&f, false), SW_STEP_FAIL);
    assert_int_equal(f.err, SW_E_PENDING_FULL);
    assert_int_equal(b.instance->waiting, 2);
    b.conf.apps[0].pending_max = 3;
    fake_run(&b.world, 20 * SW_NS_PER_MS);
    assert_false(d.done);
    assert_false(e.done);
    put(&a, true);
    assert_false(d.done);                           /* not inside put */
    assert_int_equal(get(&f, false), SW_STEP_MORE); /* nor does a late comer take it */
    settle(&d);
    assert_true(d.reused);
    assert_false(e.done);
    put(&c, false); /* closed: the next waiter gets a new one in its place */
    settle(&e);
    assert_false(e.reused);
    assert_int_equal(b.instance->connections, 2);
    assert_false(f.done);
    sw_upstream_cancel(&f.wait);
    assert_int_equal(b.instance->waiting, 0);
    put(&d, true);
    put(&e, true);
    fake_run(&b.world, 20 * SW_NS_PER_MS);
    assert_false(f.done);
    assert_true(d.order < e.order);
    assert_int_equal(sw_upstream_idle(b.up), 2);
    /* all places are taken by idle ones: a fresh connection takes the place of the oldest */
    assert_int_equal(get(&f, true), SW_STEP_MORE);
    settle(&f);
    assert_false(f.reused);
    assert_int_equal(b.instance->connections, 2);
    assert_int_equal(sw_upstream_idle(b.up), 1);
    put(&f, false);
    bench_fini();
}

/* One worker sits on the only connection, idle; another one waits for it. */
static void across_workers(bool real)
{
    struct sw_upstream *other;
    struct call one, two;

    bench_init(real);
    b.conf.apps[0].connections_max = 1;
    other = sw_upstream_new(b.apps, b.world.loop, &b.conf.config);
    assert_non_null(other);
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    settle(&one);
    put(&one, true);
    assert_int_equal(get_from(other, &two, false), SW_STEP_MORE);
    settle(&two);
    assert_int_equal(two.err, SW_OK);
    assert_int_equal(sw_upstream_idle(b.up), 0);
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    fake_run(&b.world, 20 * SW_NS_PER_MS);
    assert_false(one.done);
    sw_upstream_put(other, b.instance, two.stream, true); /* busy when asked, given up when put */
    assert_int_equal(sw_upstream_idle(other), 0);
    settle(&one);
    assert_int_equal(one.err, SW_OK);
    assert_int_equal(b.instance->connections, 1);
    put(&one, false);
    sw_upstream_free(other);
    bench_fini();
}

/* A worker whose queue is never empty does not keep the only connection for ever. */
static void fair_to_workers(bool real)
{
    struct sw_upstream *other;
    struct call calls[3], theirs;
    uint32_t rounds = 0;

    bench_init(real);
    b.conf.apps[0].connections_max = 1;
    other = sw_upstream_new(b.apps, b.world.loop, &b.conf.config);
    assert_non_null(other);
    for (uint32_t k = 0; k < 3; k++) {
        assert_int_equal(get(&calls[k], false), SW_STEP_MORE);
    }
    assert_int_equal(get_from(other, &theirs, false), SW_STEP_MORE);
    for (uint32_t k = 0; !theirs.done; k = (k + 1) % 3, rounds++) {
        assert_in_range(rounds, 0, 100);
        fake_run(&b.world, 10 * SW_NS_PER_MS);
        if (calls[k].done) {
            put(&calls[k], true);
            assert_int_equal(get(&calls[k], false), SW_STEP_MORE);
        }
    }
    assert_int_equal(theirs.err, SW_OK);
    sw_upstream_put(other, b.instance, theirs.stream, true);
    for (uint32_t k = 0, left = 3; left > 0; k = (k + 1) % 3, rounds++) {
        assert_in_range(rounds, 0, 200);
        fake_run(&b.world, 10 * SW_NS_PER_MS);
        if (calls[k].stream != NULL) {
            put(&calls[k], true);
            left--;
        }
    }
    sw_upstream_free(other);
    bench_fini();
}

static void refused(bool real)
{
    struct call one, two;
    struct sw_addr addr;
    int fd;

    bench_init(real);
    fd = fake_listen(&b.world, real ? 0 : 9001, &addr);
    fake_unlisten(&b.world, fd); /* nobody there now */
    b.instance->addr = addr;
    b.conf.apps[0].connections_max = 1;
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    assert_int_equal(get(&two, false), SW_STEP_MORE);
    settle(&one);
    assert_int_equal(one.err, SW_E_CONNECT);
    settle(&two); /* its turn comes when the first one failed */
    assert_int_equal(two.err, SW_E_CONNECT);
    bench_fini();
}

static void leaves(bool real)
{
    struct call one, two, three;

    bench_init(real);
    b.conf.apps[0].connections_max = 2;
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    assert_int_equal(get(&two, false), SW_STEP_MORE);
    settle(&one);
    settle(&two);
    put(&two, true);
    assert_int_equal(get(&two, false), SW_STEP_DONE);
    assert_int_equal(get(&three, false), SW_STEP_MORE);
    sw_instance__set(b.instance, SW_INSTANCE_STOPPING);
    sw_upstream__wake_all(b.apps, NULL);
    settle(&three);
    assert_int_equal(three.err, SW_E_NO_INSTANCE);
    put(&one, true); /* it is not kept */
    assert_int_equal(sw_upstream_idle(b.up), 0);
    assert_int_equal(b.instance->connections, 1);
    put(&two, false);
    bench_fini();
}

static void leaves_with_idle(bool real)
{
    struct call one;

    bench_init(real);
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    settle(&one);
    put(&one, true);
    sw_instance__set(b.instance, SW_INSTANCE_STOPPING);
    sw_upstream__wake_all(b.apps, NULL);
    await_idle(0);
    assert_int_equal(b.instance->refs, 1);
    bench_fini();
}

static void cancel(bool real)
{
    struct call one;

    bench_init(real);
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    sw_upstream_cancel(&one.wait);
    sw_upstream_cancel(&one.wait);
    assert_int_equal(b.instance->connections, 0);
    fake_run(&b.world, 20 * SW_NS_PER_MS);
    assert_false(one.done);
    assert_int_equal(get(&one, false), SW_STEP_MORE); /* left to sw_upstream_free */
    bench_fini();
}

/* More come back than may be idle. */
static void idle_bound(bool real)
{
    enum { N = SERVER_MAX };
    static struct call calls[N];

    bench_init(real);
    for (int k = 0; k < N; k++) {
        assert_int_equal(get(&calls[k], false), SW_STEP_MORE);
    }
    for (int k = 0; k < N; k++) {
        settle(&calls[k]);
        put(&calls[k], true);
    }
    assert_int_equal(sw_upstream_idle(b.up), N);
    await_server_open(N);
    bench_fini();
}

/* ---- what takes long: simulated only --------------------------------------------------------- */

static void idle_time(void **state)
{
    struct call one, two;

    (void)state;
    bench_init(false);
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    assert_int_equal(get(&two, false), SW_STEP_MORE);
    settle(&one);
    settle(&two);
    put(&one, true);
    fake_run(&b.world, 30 * SW_NS_PER_S);
    put(&two, true);
    fake_run(&b.world, 24 * SW_NS_PER_S);
    assert_int_equal(sw_upstream_idle(b.up), 2);
    fake_run(&b.world, 3 * SW_NS_PER_S);
    assert_int_equal(sw_upstream_idle(b.up), 1);
    fake_run(&b.world, 30 * SW_NS_PER_S);
    assert_int_equal(sw_upstream_idle(b.up), 0);
    assert_int_equal(b.server.open, 0);
    bench_fini();
}

static void connect_time(void **state)
{
    static const struct sw_sim_faults hang = {.hang_ppm = 1000000};
    struct call one;
    uint64_t began_ns;

    (void)state;
    bench_init(false);
    sw_sim_set_faults(b.world.sim, &hang);
    began_ns = fake_now(&b.world);
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    settle(&one);
    assert_int_equal(one.err, SW_E_CONNECT_SLOW);
    assert_in_range(fake_now(&b.world) - began_ns, 2 * SW_NS_PER_S, 21 * SW_NS_PER_S / 10);
    assert_int_equal(b.instance->connections, 0);
    bench_fini();
}

static void pending_time(void **state)
{
    struct call one, two;

    (void)state;
    bench_init(false);
    b.conf.apps[0].connections_max = 1;
    assert_int_equal(get(&one, false), SW_STEP_MORE);
    settle(&one);
    assert_int_equal(get(&two, false), SW_STEP_MORE);
    fake_run(&b.world, 29 * SW_NS_PER_S);
    assert_false(two.done);
    fake_run(&b.world, 2 * SW_NS_PER_S);
    assert_true(two.done);
    assert_int_equal(two.err, SW_E_PENDING_FULL);
    put(&one, true);
    bench_fini();
}

#define BOTH(name)                                                                                 \
    static void name##_sim(void **state)                                                           \
    {                                                                                              \
        (void)state;                                                                               \
        name(false);                                                                               \
    }                                                                                              \
    static void name##_epoll(void **state)                                                         \
    {                                                                                              \
        (void)state;                                                                               \
        name(true);                                                                                \
    }
BOTH(reuse)
BOTH(dead_idle)
BOTH(limit_and_queue)
BOTH(across_workers)
BOTH(fair_to_workers)
BOTH(refused)
BOTH(leaves)
BOTH(leaves_with_idle)
BOTH(cancel)
BOTH(idle_bound)
#define TESTS(name) cmocka_unit_test(name##_sim), cmocka_unit_test(name##_epoll)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TESTS(reuse),
        TESTS(dead_idle),
        TESTS(limit_and_queue),
        TESTS(across_workers),
        TESTS(fair_to_workers),
        TESTS(refused),
        TESTS(leaves),
        TESTS(leaves_with_idle),
        TESTS(cancel),
        TESTS(idle_bound),
        cmocka_unit_test(idle_time),
        cmocka_unit_test(connect_time),
        cmocka_unit_test(pending_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
