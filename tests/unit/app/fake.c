/* tests/unit/app/fake.c - see fake.h. */
#include <arpa/inet.h>
#include <unistd.h>

#include "fake.h"

void fake_config_init(struct fake_config *f)
{
    memset(f, 0, sizeof *f);
    f->config.apps = f->apps;
    f->config.routes = f->routes;
    f->config.route_count = 1;
    f->routes[0].app = 0;
    f->routes[0].placement = SW_PLACE_STICKY;
    f->routes[0].sticky.idle_s = 60;
    f->config.timeouts.connect_ns = 2 * SW_NS_PER_S;
    f->config.timeouts.response_ns = 30 * SW_NS_PER_S;
    f->config.timeouts.stop_ns = 10 * SW_NS_PER_S;
}

static struct sw_config_app *fake_app(struct fake_config *f, const char *name)
{
    struct sw_config_app *c = &f->apps[f->config.app_count++];

    assert_in_range(f->config.app_count, 1, FAKE_APPS);
    c->name = sw_slice_cstr(name);
    c->health_interval_ns = 2 * SW_NS_PER_S;
    c->health_timeout_ns = 1 * SW_NS_PER_S;
    c->health_healthy = 1;
    c->health_unhealthy = 2;
    c->start_timeout_ns = 10 * SW_NS_PER_S;
    c->drain_deadline_ns = 600 * SW_NS_PER_S;
    c->connections_max = 1000;
    c->pending_max = 100;
    c->retry_budget_percent = 20;
    return c;
}

struct sw_config_app *fake_spawned(struct fake_config *f, const char *name, uint32_t replicas)
{
    static const char *const command[] = {"serve", NULL};
    struct sw_config_app *c = fake_app(f, name);

    c->command = command;
    c->replicas = replicas;
    return c;
}

static struct sw_addr fake_addr(uint16_t port)
{
    struct sw_addr addr = {.len = sizeof addr.in};

    addr.in.sin_family = AF_INET;
    addr.in.sin_port = htons(port);
    addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return addr;
}

struct sw_config_app *fake_servers(struct fake_config *f, const char *name, uint32_t count,
                                   uint16_t first_port)
{
    struct sw_config_server *list = f->servers[f->config.app_count];
    struct sw_config_app *c = fake_app(f, name);

    assert_in_range(count, 1, FAKE_SERVERS);
    for (uint32_t k = 0; k < count; k++) {
        list[k].addr = fake_addr((uint16_t)(first_port + k));
        list[k].weight = 1;
    }
    c->servers = list;
    c->server_count = count;
    return c;
}

struct sw_instance *fake_instance(struct sw_apps *a, uint32_t app, uint32_t slot,
                                  uint64_t incarnation)
{
    struct sw_instance *i = sw_instance__claim(a, app, slot, incarnation);

    assert_non_null(i);
    sw_instance__set(i, SW_INSTANCE_STARTING);
    sw_instance__set(i, SW_INSTANCE_HEALTHY);
    return i;
}

void fake_world_init(struct fake_world *w, bool real)
{
    struct sw_loop_options opt = {.engine = SW_ENGINE_EPOLL,
                                  .streams_max = 256,
                                  .buffers_max = 256,
                                  .large_max = 4,
                                  .large_bytes = 64 * 1024};

    w->sim = NULL;
    if (real) {
        assert_int_equal(sw_loop_new(&opt, &w->loop), SW_OK);
        return;
    }
    w->sim = sw_sim_new(1, NULL);
    assert_non_null(w->sim);
    assert_int_equal(sw_loop_new_sim(w->sim, &opt, &w->loop), SW_OK);
}

void fake_world_fini(struct fake_world *w)
{
    sw_loop_free(w->loop);
    sw_sim_free(w->sim);
}

uint64_t fake_now(const struct fake_world *w)
{
    return w->sim != NULL ? sw_sim_now_ns(w->sim) : sw_loop_clock_ns(w->loop);
}

struct real_run {
    struct fake_world *world;
    fake_cond *cond;
    void *arg;
    uint64_t until_ns;
    struct sw_timer timer;
    bool met;
};

static void real_look(struct sw_timer *timer, void *arg)
{
    struct real_run *r = arg;
    uint64_t now_ns = sw_loop_now_ns(r->world->loop);

    r->met = r->cond(r->arg);
    if (r->met || now_ns >= r->until_ns) {
        sw_loop_stop(r->world->loop);
    } else {
        sw_timer_start(r->world->loop, timer, now_ns + SW_NS_PER_MS);
    }
}

static bool run_until(struct fake_world *w, fake_cond *cond, void *arg, uint64_t span_ns)
{
    uint64_t until_ns = fake_now(w) + span_ns;

    if (w->sim != NULL) {
        while (!cond(arg)) {
            if (fake_now(w) >= until_ns) {
                return false;
            }
            if (!sw_sim_step(w->sim, until_ns)) {
                sw_sim_run(w->sim, until_ns); /* nothing will happen: only the clock moves */
            }
        }
        return true;
    }
    {
        struct real_run r = {.world = w, .cond = cond, .arg = arg, .until_ns = until_ns};

        sw_timer_init(&r.timer, real_look, &r);
        sw_timer_start(w->loop, &r.timer, 0);
        sw_loop_run(w->loop);
        return r.met;
    }
}

void fake_until(struct fake_world *w, fake_cond *cond, void *arg, uint64_t limit_ns)
{
    if (!run_until(w, cond, arg, limit_ns)) {
        fail_msg("the condition was not met in time");
    }
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

void fake_run(struct fake_world *w, uint64_t span_ns)
{
    (void)run_until(w, never, NULL, span_ns);
}

int fake_listen(struct fake_world *w, uint16_t port, struct sw_addr *ret_addr)
{
    struct sw_addr addr = fake_addr(port);
    int fd;

    if (w->sim != NULL) {
        assert_int_equal(sw_sim_listen(w->sim, &addr, 64, &fd), SW_OK);
    } else {
        socklen_t len = sizeof addr.in;

        assert_int_equal(sw_listen_socket(&addr, false, 64, &fd), SW_OK);
        assert_int_equal(getsockname(fd, &addr.sa, &len), 0);
    }
    *ret_addr = addr;
    return fd;
}

void fake_unlisten(struct fake_world *w, int fd)
{
    if (w->sim != NULL) {
        sw_sim_unlisten(w->sim, fd);
    } else {
        close(fd);
    }
}
