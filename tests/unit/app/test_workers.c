/* Several workers on threads of their own share the few connections of one instance: never more
 * than the limit, and nobody waits for ever. Real sockets; for TSan too. */
#include <pthread.h>
#include <unistd.h>

#include "fake.h"

#define WORKERS         3
#define CALLS           6   /* at a time, a worker */
#define ROUNDS          150 /* a call */
#define CONNECTIONS_MAX 4

static struct fake_config conf;
static struct sw_apps *apps;
static struct sw_instance *instance;
static _Atomic uint32_t held, completed, failed;

struct worker;
struct call {
    struct worker *worker;
    struct sw_upstream_wait wait;
    struct sw_stream *stream;
    struct sw_timer pause;
    uint32_t rounds;
};

struct worker {
    pthread_t thread;
    struct fake_world world;
    struct sw_upstream *up;
    struct sw_rng rng;
    struct call calls[CALLS];
    uint32_t running;
};

static void call_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)s;
    (void)arg;
    (void)buf;
    (void)bytes;
}

static void call_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    (void)s;
    (void)arg;
    (void)err;
}

static const struct sw_stream_events call_events = {.recv = call_recv, .end = call_end};

static void call_pause(struct call *c)
{
    sw_timer_start(c->worker->world.loop, &c->pause,
                   sw_loop_now_ns(c->worker->world.loop) +
                       sw_rng_below(&c->worker->rng, 2) * SW_NS_PER_MS);
}

static void call_has(struct call *c, struct sw_stream *s)
{
    if (atomic_fetch_add(&held, 1) >= CONNECTIONS_MAX) {
        abort();
    }
    c->stream = s;
    sw_stream_attach(s, &call_events, c);
    sw_stream_read_start(s);
    call_pause(c);
}

static void call_next(struct call *c);

static void call_done(struct sw_upstream_wait *w, enum sw_err err, struct sw_stream *s, bool reused)
{
    struct call *c = w->arg;

    (void)reused;
    if (err != SW_OK) {
        atomic_fetch_add(&failed, 1);
        c->rounds--;
        call_next(c);
        return;
    }
    call_has(c, s);
}

static void call_next(struct call *c)
{
    struct worker *w = c->worker;
    struct sw_stream *s;
    enum sw_err err;
    bool fresh = sw_rng_below(&w->rng, 8) == 0;

    if (c->rounds == 0) {
        w->running--;
        return;
    }
    switch (sw_upstream_get(w->up, instance, fresh, &c->wait, call_done, c, &s, &err)) {
    case SW_STEP_DONE:
        call_has(c, s);
        break;
    case SW_STEP_MORE:
        break;
    case SW_STEP_FAIL:
        abort();
    }
}

static void call_paused(struct sw_timer *timer, void *arg)
{
    struct call *c = arg;

    (void)timer;
    if (c->stream != NULL) {
        atomic_fetch_sub(&held, 1);
        sw_upstream_put(c->worker->up, instance, sw_take(&c->stream),
                        sw_rng_below(&c->worker->rng, 4) != 0);
        atomic_fetch_add(&completed, 1);
        c->rounds--;
    }
    call_next(c);
}

static bool worker_is_over(void *arg)
{
    return ((struct worker *)arg)->running == 0;
}

static void *worker_run(void *arg)
{
    struct worker *w = arg;

    w->running = CALLS;
    for (int k = 0; k < CALLS; k++) {
        struct call *c = &w->calls[k];

        c->worker = w;
        c->rounds = ROUNDS;
        sw_timer_init(&c->pause, call_paused, c);
        call_pause(c);
    }
    fake_until(&w->world, worker_is_over, w, 60 * SW_NS_PER_S);
    return NULL;
}

/* ---- the instance ---------------------------------------------------------------------------- */

static _Atomic bool server_over;

static void server_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    (void)arg;
    (void)err;
    sw_stream_close(s);
}

static const struct sw_stream_events server_events = {.recv = call_recv, .end = server_end};

static void server_accept(struct sw_stream *s, void *arg)
{
    sw_stream_attach(s, &server_events, arg);
    sw_stream_read_start(s);
}

static bool server_is_over(void *arg)
{
    (void)arg;
    return atomic_load(&server_over);
}

static void *server_run(void *arg)
{
    fake_until(arg, server_is_over, NULL, 120 * SW_NS_PER_S);
    return NULL;
}

static void share(void **state)
{
    static struct worker workers[WORKERS];
    struct fake_world server;
    struct sw_listener *listener;
    pthread_t server_thread;
    struct sw_addr addr;
    int fd;

    (void)state;
    fake_config_init(&conf);
    fake_spawned(&conf, "shop", 1)->connections_max = CONNECTIONS_MAX;
    apps = sw_apps_new(&conf.config);
    assert_non_null(apps);
    fake_world_init(&server, true);
    fd = fake_listen(&server, 0, &addr);
    assert_int_equal(sw_listener_open(server.loop, fd, server_accept, NULL, &listener), SW_OK);
    instance = sw_instance__claim(apps, 0, 1, 5);
    instance->addr = addr;
    sw_instance__set(instance, SW_INSTANCE_STARTING);
    sw_instance__set(instance, SW_INSTANCE_HEALTHY);
    sw_instance_ref(instance);
    for (uint32_t k = 0; k < WORKERS; k++) {
        fake_world_init(&workers[k].world, true);
        sw_rng_seed(&workers[k].rng, k);
        workers[k].up = sw_upstream_new(apps, workers[k].world.loop, &conf.config);
        assert_non_null(workers[k].up);
    }
    assert_int_equal(pthread_create(&server_thread, NULL, server_run, &server), 0);
    for (uint32_t k = 0; k < WORKERS; k++) {
        assert_int_equal(pthread_create(&workers[k].thread, NULL, worker_run, &workers[k]), 0);
    }
    for (int k = 0; k < 200; k++) { /* as the main thread does when any instance leaves */
        sw_upstream__wake_all(apps, NULL);
        usleep(1000);
    }
    for (uint32_t k = 0; k < WORKERS; k++) {
        assert_int_equal(pthread_join(workers[k].thread, NULL), 0);
    }
    assert_int_equal(failed, 0);
    assert_int_equal(completed, WORKERS * CALLS * ROUNDS);
    for (uint32_t k = 0; k < WORKERS; k++) {
        sw_upstream_free(workers[k].up);
    }
    assert_int_equal(instance->connections, 0);
    assert_int_equal(instance->waiting, 0);
    assert_int_equal(instance->refs, 1);
    for (uint32_t k = 0; k < WORKERS; k++) {
        fake_world_fini(&workers[k].world);
    }
    atomic_store(&server_over, true);
    assert_int_equal(pthread_join(server_thread, NULL), 0);
    sw_listener_close(listener);
    fake_unlisten(&server, fd);
    fake_world_fini(&server);
    sw_apps_free(apps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(share)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
