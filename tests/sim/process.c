/* tests/sim/process.c - the gateway process (a main loop, workers), and a supervisor that is no
 * process: it "starts" fake apps, "kills" them, and speaks app/control.h with a gateway that comes
 * and goes.
 */
#include "world.h"

#include <signal.h>

#include "io/io_priv.h"

/* ---- mail between loops ------------------------------------------------------------------------
 */

static void inbox_put(struct inbox *b, struct sw_loop *loop, const struct sw_control *msg)
{
    SW_ASSERT(b->count < INBOX_MAX);
    b->msgs[(b->first + b->count++) % INBOX_MAX] = *msg;
    if (!b->posted) {
        b->posted = true;
        sw_loop_post(loop, &b->post);
    }
}

static bool inbox_take(struct inbox *b, struct sw_control *ret_msg)
{
    if (b->count == 0) {
        return false;
    }
    *ret_msg = b->msgs[b->first];
    b->first = (b->first + 1) % INBOX_MAX;
    b->count--;
    return true;
}

/* ---- the supervisor ----------------------------------------------------------------------------
 */

static void tell(struct world *w, const struct sw_control *msg)
{
    if (w->gw.up) {
        inbox_put(&w->gw.inbox, w->gw.main, msg);
    }
}

static struct sw_control control_of(const struct fake *f, enum sw_control_kind kind)
{
    struct sw_control msg;

    memset(&msg, 0, sizeof(msg));
    msg.version = SW_CONTROL_VERSION;
    msg.kind = kind;
    msg.app = f->app;
    msg.slot = f->slot;
    msg.incarnation = f->incarnation;
    msg.pid = f->pid;
    msg.started_ms_ago = (uint32_t)((now_ns(f->w) - f->since_ns) / SW_NS_PER_MS);
    (void)snprintf(msg.address, sizeof(msg.address), "%s", f->address);
    return msg;
}

static void fake_die(struct fake *f, int32_t status)
{
    struct world *w = f->w;

    if (f->state == FAKE_NONE || f->state == FAKE_DEAD) {
        return;
    }
    note(w, "fake %u (%u/%u) ends", f->serial, f->app, f->slot);
    app_vanish(f);
    sw_timer_stop(w->outside, &f->term);
    f->state = FAKE_DEAD;
    f->status = status;
    f->ever_troubled = true;
    sw_timer_start(w->outside, &f->timer,
                   now_ns(w) + (f->server ? 1 + pick(w, 2000) : pick(w, 4)) * SW_NS_PER_MS);
}

static void fake_timer(struct sw_timer *t, void *arg)
{
    struct fake *f = arg;
    struct world *w = f->w;
    struct sw_control msg;

    (void)t;
    switch (f->state) {
    case FAKE_BOOTING:
        if (w->plan.boot_trouble && !w->quiet && chance(w, 10)) {
            fake_die(f, 1 << 8);
            return;
        }
        f->state = FAKE_UP;
        f->since_ns = now_ns(w);
        app_listen(f);
        note(w, "fake %u (%u/%u) listens on %s", f->serial, f->app, f->slot, f->address);
        break;
    case FAKE_DEAD:
        if (f->server) { /* somebody starts it again */
            f->state = FAKE_BOOTING;
            f->serial = ++w->fake_serials;
            sw_timer_start(w->outside, &f->timer, now_ns(w) + SW_NS_PER_MS);
            return;
        }
        msg = control_of(f, SW_CONTROL_EXITED);
        msg.status = f->status;
        f->state = FAKE_NONE;
        tell(w, &msg);
        break;
    case FAKE_FROZEN:
        app_freeze(f, false);
        break;
    case FAKE_NONE:
    case FAKE_UP:
        break;
    }
}

static void fake_term(struct sw_timer *t, void *arg)
{
    (void)t;
    fake_die(arg, 0);
}

static struct fake *fake_new(struct world *w, uint32_t app, uint32_t slot)
{
    for (unsigned i = 0; i < FAKES_MAX; i++) {
        struct fake *f = &w->fakes[i];

        if (f->state == FAKE_NONE) {
            *f = (struct fake){.w = w,
                               .state = FAKE_BOOTING,
                               .serial = ++w->fake_serials,
                               .app = app,
                               .slot = slot,
                               .since_ns = now_ns(w),
                               .pid = ++w->pids,
                               .fd = -1};
            sw_timer_init(&f->timer, fake_timer, f);
            sw_timer_init(&f->term, fake_term, f);
            return f;
        }
    }
    broken(w, "the gateway runs more than %u processes", FAKES_MAX);
}

static void fake_place(struct fake *f, struct sw_slice address)
{
    if (sw_addr_parse(address, false, &f->addr) != SW_OK) {
        broken(f->w, "no address: %.*s", SW_SARG(address));
    }
    (void)snprintf(f->address, sizeof(f->address), "%.*s", SW_SARG(address));
}

static struct fake *fake_of(struct world *w, const struct sw_control *msg)
{
    for (unsigned i = 0; i < FAKES_MAX; i++) {
        struct fake *f = &w->fakes[i];

        if (f->state != FAKE_NONE && !f->server && f->app == msg->app && f->slot == msg->slot &&
            f->incarnation == msg->incarnation) {
            return f;
        }
    }
    return NULL;
}

static void super_start(struct world *w, const struct sw_control *in)
{
    struct sw_control msg;
    struct fake *f;
    char address[64];

    if (in->incarnation == 0 || in->slot == 0 || fake_of(w, in) != NULL) {
        broken(w, "a START that makes no sense");
    }
    if (w->plan.boot_trouble && !w->quiet && chance(w, 5)) {
        msg = *in;
        msg.kind = SW_CONTROL_STARTED;
        msg.status = 2; /* ENOENT */
        tell(w, &msg);
        return;
    }
    f = fake_new(w, in->app, in->slot);
    f->incarnation = in->incarnation;
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", ++w->ports);
    fake_place(f, sw_slice_cstr(address));
    msg = control_of(f, SW_CONTROL_STARTED);
    tell(w, &msg);
    sw_timer_start(w->outside, &f->timer, now_ns(w) + pick(w, 80) * SW_NS_PER_MS);
}

static void super_hello(struct world *w)
{
    struct sw_control msg;

    for (unsigned i = 0; i < FAKES_MAX; i++) {
        struct fake *f = &w->fakes[i];

        if (!f->server && f->state != FAKE_NONE && f->state != FAKE_DEAD) {
            msg = control_of(f, SW_CONTROL_INSTANCE);
            tell(w, &msg);
        }
    }
    memset(&msg, 0, sizeof(msg));
    msg.version = SW_CONTROL_VERSION;
    msg.kind = SW_CONTROL_SYNCED;
    tell(w, &msg);
}

static void super_read(struct sw_post *post, void *arg)
{
    struct world *w = arg;
    struct sw_control msg;
    struct fake *f;

    (void)post;
    w->super_inbox.posted = false;
    while (inbox_take(&w->super_inbox, &msg)) {
        f = fake_of(w, &msg);
        switch ((enum sw_control_kind)msg.kind) {
        case SW_CONTROL_HELLO:
            super_hello(w);
            break;
        case SW_CONTROL_START:
            super_start(w, &msg);
            break;
        case SW_CONTROL_STOP:
            if (f != NULL && f->state != FAKE_DEAD && !sw_timer_running(&f->term)) {
                uint64_t ms = chance(w, 20) ? msg.grace_ms : pick(w, 100);

                sw_timer_start(w->outside, &f->term, now_ns(w) + ms * SW_NS_PER_MS);
            }
            break;
        case SW_CONTROL_KILL:
            if (f != NULL) {
                fake_die(f, SIGKILL);
            }
            break;
        case SW_CONTROL_READY:
            break;
        default:
            broken(w, "the gateway sent control %u", msg.kind);
        }
    }
}

void super_init(struct world *w)
{
    w->super_inbox.post = (struct sw_post){NULL, super_read, w};
    for (size_t a = 0; a < w->config->app_count; a++) {
        const struct sw_config_app *app = &w->config->apps[a];

        for (size_t i = 0; i < app->server_count; i++) {
            struct fake *f = fake_new(w, (uint32_t)a, (uint32_t)i + 1);

            f->server = true;
            fake_place(f, app->servers[i].text);
            sw_timer_start(w->outside, &f->timer, now_ns(w) + pick(w, 20) * SW_NS_PER_MS);
        }
    }
}

void super_fini(struct world *w)
{
    for (unsigned i = 0; i < FAKES_MAX; i++) {
        struct fake *f = &w->fakes[i];

        if (f->state != FAKE_NONE) {
            app_vanish(f);
            sw_timer_stop(w->outside, &f->timer);
            sw_timer_stop(w->outside, &f->term);
            f->state = FAKE_NONE;
        }
    }
}

static struct fake *fake_any(struct world *w)
{
    struct fake *found = NULL;
    uint64_t count = 0;

    for (unsigned i = 0; i < FAKES_MAX; i++) {
        if (w->fakes[i].state == FAKE_UP && pick(w, ++count) == 0) {
            found = &w->fakes[i];
        }
    }
    return found;
}

void super_trouble(struct world *w)
{
    struct fake *f = fake_any(w);

    switch (pick(w, 6)) {
    case 0:
    case 1:
        if (w->plan.kills && f != NULL) {
            fake_die(f, SIGSEGV);
        }
        break;
    case 2:
        if (w->plan.freezes && f != NULL) {
            note(w, "fake %u freezes", f->serial);
            f->ever_troubled = true;
            app_freeze(f, true);
            sw_timer_start(w->outside, &f->timer, now_ns(w) + pick(w, 4 * SW_NS_PER_S));
        }
        break;
    case 3:
        w->want_crash = w->plan.crashes && w->crashes < 2;
        break;
    case 4:
        w->want_restart = w->plan.restarts && w->restarts < 2;
        break;
    case 5:
        if (w->gw.up && w->plan.rolls) {
            enum sw_err err = chance(w, 50) ? sw_life_roll(w->gw.life, w->config->apps[0].name)
                                            : sw_life_drain(w->gw.life, SW_S("shop/1"));

            note(w, "roll or drain: %s", sw_err_name(err));
        }
        break;
    }
}

void super_calm(struct world *w)
{
    for (unsigned i = 0; i < FAKES_MAX; i++) {
        if (w->fakes[i].state == FAKE_FROZEN) {
            sw_timer_stop(w->outside, &w->fakes[i].timer);
            app_freeze(&w->fakes[i], false);
        }
    }
}

/* ---- the gateway
 * --------------------------------------------------------------------------------- */

static void gateway_read(struct sw_post *post, void *arg)
{
    struct world *w = arg;
    struct sw_control msg;

    (void)post;
    w->gw.inbox.posted = false;
    while (inbox_take(&w->gw.inbox, &msg)) {
        sw_life_control(w->gw.life, &msg);
    }
}

static void hook_send(void *arg, const struct sw_control *msg)
{
    struct world *w = arg;

    inbox_put(&w->super_inbox, w->outside, msg);
}

static void hook_log(void *arg, enum sw_log_level level, const char *text)
{
    (void)level;
    note(arg, "life: %s", text);
}

static void hook_ready(void *arg)
{
    struct world *w = arg;

    w->gw.ready = true;
    note(w, "the gateway is ready");
}

static struct sw_loop *loop_new(struct world *w, const struct sw_loop_options *opt)
{
    struct sw_loop *loop;

    if (sw_loop_new_sim(w->sim, opt, &loop) != SW_OK) {
        broken(w, "no loop");
    }
    return loop;
}

void gateway_start(struct world *w)
{
    struct gateway *g = &w->gw;
    struct sw_loop_options main_options = {
        .streams_max = 256, .buffers_max = 256, .large_max = 4, .large_bytes = 65536};
    struct sw_loop_options options;
    struct sw_life_hooks hooks = {hook_send, hook_log, hook_ready, w};
    uint32_t connections = w->plan.tight ? 6 : 64;

    SW_ASSERT(!g->up);
    memset(g, 0, sizeof(*g));
    g->worker_count = w->plan.workers;
    g->began_ns = now_ns(w);
    g->inbox.post = (struct sw_post){NULL, gateway_read, w};
    g->main = loop_new(w, &main_options);
    g->apps = sw_apps_new(w->config);
    g->admit = sw_admit_new();
    sw_budget_init(&g->large, w->plan.tight ? 64u * 1024u : 4u * 1024u * 1024u);
    SW_ASSERT(g->apps != NULL);
    SW_ASSERT(g->admit != NULL);
    sw_worker_loop_options(w->config, connections, &options);
    if (w->plan.tight) {
        options.streams_max = 14;
        options.buffers_max = 24;
        options.large_max = 6;
    }
    for (uint32_t i = 0; i < g->worker_count; i++) {
        struct sw_worker_options opt = {
            .config = w->config,
            .routes = w->routes,
            .apps = g->apps,
            .store = w->store,
            .keys = &w->keys,
            .admit = g->admit,
            .large = &g->large,
            .side_fd = -1,
            .alarms = i == 0,
            .listen_fds = &w->listen_fds[i],
            .listen_count = 1,
            .seed = sw_sim_random(w->sim),
            .connections_max = connections,
            .exchanges_max = w->plan.tight ? 5 : connections,
        };

        opt.loop = g->loops[i] = loop_new(w, &options);
        if (sw_worker_new(&opt, &g->workers[i]) != SW_OK) {
            broken(w, "no worker");
        }
    }
    g->up = true;
    g->life = sw_life_new(g->apps, g->main, w->config, &hooks);
    SW_ASSERT(g->life != NULL);
    note(w, "a gateway starts");
}

/* A process that dies takes its timers along; here some (of commits the store has forgotten) would
 * stay in the wheel while the memory they lie in is freed. */
static void timers_forget(struct sw_loop *loop)
{
    while (sw_list_pop_front(&loop->wheel.due) != NULL) {
    }
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        for (unsigned slot = 0; slot < WHEEL_SLOTS; slot++) {
            while (sw_list_pop_front(&loop->wheel.slot[level][slot]) != NULL) {
            }
        }
    }
}

static void gateway_free(struct world *w)
{
    struct gateway *g = &w->gw;

    sw_store_mem_crash(w->store);
    crash_forget(w);
    for (uint32_t i = 0; i < g->worker_count; i++) {
        timers_forget(g->loops[i]);
    }

    sw_life_free(g->life);
    for (uint32_t i = 0; i < g->worker_count; i++) {
        w->dropped += sw_worker_stats(g->workers[i])->alarms_dropped;
        sw_worker_free(g->workers[i]);
    }
    for (uint32_t i = 0; i < g->worker_count; i++) {
        sw_loop_free(g->loops[i]);
    }
    sw_loop_free(g->main);
    sw_admit_free(g->admit);
    sw_apps_free(g->apps);
    g->up = false;
    if (g->large.used != 0) {
        broken(w, "%zu bytes of large memory belong to nobody", (size_t)g->large.used);
    }
}

void gateway_crash(struct world *w)
{
    note(w, "the gateway crashes");
    w->crashes++;
    crash_count(w);
    gateway_free(w);
    store_check(w, "after a crash");
}

static void worker_stopped(void *arg)
{
    struct world *w = arg;

    w->gw.stopped++;
}

void gateway_stop(struct world *w)
{
    note(w, "the gateway stops");
    w->gw.stopping = true;
    sw_life_stop(w->gw.life);
    for (uint32_t i = 0; i < w->gw.worker_count; i++) {
        sw_worker_stop(w->gw.workers[i], now_ns(w) + w->config->timeouts.stop_ns, worker_stopped,
                       w);
    }
}

bool gateway_stopped(const struct world *w)
{
    return w->gw.stopped == w->gw.worker_count;
}

void gateway_end(struct world *w)
{
    SW_ASSERT(gateway_stopped(w));
    gateway_free(w); /* a deadline may have cut exchanges that still wait for the store */
    store_check(w, "after a stop");
}
