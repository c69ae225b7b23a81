/* tests/sim/run.c - one run: the plan, the load, the quiet end, the last questions. */
#include "world.h"

#include <stdarg.h>
#include <unistd.h>

#define LOAD_NS  (60 * SW_NS_PER_S)
#define QUIET_NS (60 * SW_NS_PER_S)

#define ROUTES(sess, stick)                                                                        \
    "routes:\n"                                                                                    \
    "  - { path: /count/*, app: shop, state: session, session: { cookie: { name: c1 }" sess        \
    " } }\n"                                                                                       \
    "  - { path: /cas/*, app: shop, state: session, session: { concurrency: cas, cookie: { name: " \
    "c2 }" sess " } }\n"                                                                           \
    "  - { path: /merge/*, app: shop, state: session, session: { concurrency: merge, cookie: { "   \
    "name: c3 }" sess " } }\n"                                                                     \
    "  - { path: /last/*, app: shop, state: session, session: { concurrency: last, cookie: { "     \
    "name: c4 }" sess " } }\n"                                                                     \
    "  - { path: /safe/*, app: shop, replay: safe, state: session, session: { cookie: { name: c5 " \
    "}" sess " } }\n"                                                                              \
    "  - { path: '/room/{room}/*', app: shop, state: session, session: { key: path.room" sess      \
    " } }\n"                                                                                       \
    "  - { path: '/once/{once}/*', app: shop, state: session, session: { key: path.once" sess      \
    " }, idempotency: { mode: required, principal: address } }\n"                                  \
    "  - { path: '/again/{again}/*', app: shop, replay: safe, state: session, session: { key: "    \
    "path.again" sess " }, idempotency: { mode: required, unknown: retry, failed: release, wait: " \
    "700ms, principal: header.X-Who } }\n"                                                         \
    "  - { path: /pay/*, app: shop, idempotency: { mode: optional, failed: store, wait: 300ms, "   \
    "max-answer: 8KiB, principal: header.X-Who } }\n"                                              \
    "  - { path: /wake/*, app: shop, state: session, session: { alarm: /alarm/wake, cookie: { "    \
    "name: c6 }" sess " } }\n"                                                                     \
    "  - { path: '/bell/{bell}/*', app: shop, state: session, session: { alarm: /alarm/bell, "     \
    "key: path.bell" sess " } }\n"                                                                 \
    "  - { path: /plain/*, app: shop }\n"                                                          \
    "  - { path: /never/*, app: shop, replay: never }\n"                                           \
    "  - { path: /sticky/*, app: shop, state: sticky, sticky: { cookie: { name: p1 }" stick        \
    " } }\n"

#define HEAD                                                                                       \
    "listen: [ { address: 127.0.0.1:8080 } ]\n"                                                    \
    "store: 'memory:'\n"                                                                           \
    "log: { access: off }\n"

const char *const configs[] = {
    HEAD "timeouts: { head: 2s, idle: 3s, body: 2s, send: 2s, connect: 500ms, response: 2s, "
         "exchange: 8s, stop: 3s }\n"
         "limits: { connections: 64, head: 16KiB, fields: 60, target: 2KiB, body: 300KiB, "
         "replay-buffer: 8KiB }\n"
         "apps: { shop: { command: [app], replicas: 3, health: { path: /healthz, interval: 500ms, "
         "timeout: 300ms },\n"
         "                drain: { deadline: 2s }, limits: { connections: 16, pending: 32 } } "
         "}\n" ROUTES(", queue: { length: 16, wait: 4s }", ""),

    HEAD
    "timeouts: { head: 1s, idle: 2s, body: 1s, send: 1s, connect: 200ms, response: 1s, exchange: "
    "4s, stop: 2s }\n"
    "limits: { connections: 64, head: 4KiB, fields: 40, target: 1KiB, body: 40KiB, replay-buffer: "
    "1KiB }\n"
    "apps: { shop: { command: [app], replicas: 2, health: { path: /healthz, interval: 300ms, "
    "timeout: 200ms },\n"
    "                retry: { attempts: 1 }, drain: { deadline: 500ms }, limits: { connections: 2, "
    "pending: 3 } } }\n" ROUTES(", queue: { length: 2, wait: 300ms }", ", on-loss: fail"),

    HEAD "timeouts: { head: 2s, idle: 3s, body: 2s, send: 2s, connect: 500ms, response: 2s, "
         "exchange: 6s, stop: 3s }\n"
         "limits: { connections: 64, head: 16KiB, fields: 60, target: 2KiB, body: 300KiB, "
         "replay-buffer: 64KiB }\n"
         "apps: { shop: { servers: [ '127.0.0.1:7001', '127.0.0.1:7002', { address: "
         "'unix:/run/seven', weight: 2 } ],\n"
         "                health: { interval: 500ms, timeout: 300ms }, balance: hash,\n"
         "                drain: { deadline: 2s }, limits: { connections: 12, pending: 32 } } "
         "}\n" ROUTES(", queue: { length: 16, wait: 4s }", ", on-loss: notify"),

    HEAD "timeouts: { head: 2s, idle: 3s, body: 2s, send: 2s, connect: 500ms, response: 2s, "
         "exchange: 8s, stop: 3s }\n"
         "limits: { connections: 64, head: 16KiB, fields: 60, target: 2KiB, body: 20KiB, "
         "replay-buffer: 0 }\n"
         "apps: { shop: { command: [app], replicas: 1, health: { path: /healthz, interval: 500ms, "
         "timeout: 300ms },\n"
         "                balance: round-robin, retry: { attempts: 3, budget: 100%, per-try: 500ms "
         "} } }\n" ROUTES(", queue: { length: 8, wait: 1s }, inline: 1KiB", ", on-loss: fail"),

    HEAD "timeouts: { head: 2s, idle: 3s, body: 2s, send: 2s, connect: 500ms, response: 2s, "
         "exchange: 8s, stop: 3s }\n"
         "limits: { connections: 64, head: 16KiB, fields: 60, target: 2KiB, body: 300KiB, "
         "replay-buffer: 8KiB }\n"
         "apps: { shop: { command: [app], replicas: 3, health: { path: /healthz, interval: 500ms, "
         "timeout: 300ms },\n"
         "                drain: { deadline: 2s }, limits: { connections: 16, pending: 32 } } "
         "}\n" ROUTES(", queue: { length: 16, wait: 4s }, idle: 3s, absolute: 8s",
                      ", idle: 2s, absolute: 5s"),
};
const uint32_t config_count = SW_COUNTOF(configs);
struct run_total run_total;

/* ---- small things ------------------------------------------------------------------------------
 */

uint64_t pick(struct world *w, uint64_t bound)
{
    return sw_rng_below(&w->rng, bound);
}

bool chance(struct world *w, uint32_t percent)
{
    return sw_rng_below(&w->rng, 100) < percent;
}

uint64_t now_ns(const struct world *w)
{
    return sw_sim_now_ns(w->sim);
}

static double seconds(const struct world *w)
{
    return w->sim == NULL ? 0 : (double)(now_ns(w) - 5 * SW_NS_PER_S) / (double)SW_NS_PER_S;
}

void broken(const struct world *w, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void)fflush(stdout);
    fprintf(stderr, "BROKEN: seed %lu at %.6f: %s\n", w->seed, seconds(w), text);
    (void)fflush(stderr);
    _exit(3);
}

void note(const struct world *w, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (!w->verbose) {
        return;
    }
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    printf("%12.6f * %s\n", seconds(w), text);
}

static void trace(void *arg, const char *line)
{
    (void)arg;
    puts(line);
}

/* ---- the plan
 * ------------------------------------------------------------------------------------ */

static bool third(struct world *w)
{
    return pick(w, 3) == 0;
}

static void plan_make(struct world *w)
{
    struct plan *p = &w->plan;

    p->calm = pick(w, 5) == 0;
    p->variant = p->calm ? (uint32_t)pick(w, 2) * 2 : (uint32_t)pick(w, config_count);
    p->clients = 1 + (uint32_t)pick(w, 8);
    p->visitors = 1 + (uint32_t)pick(w, VISITORS_MAX);
    p->parallel = p->visitors < p->clients;
    p->requests_each = 2 + (uint32_t)pick(w, 10);
    p->workers = 1 + (uint32_t)pick(w, WORKERS_MAX);
    p->pipelining = third(w);
    p->claims = pick(w, 2) == 0;
    p->alarms = pick(w, 2) == 0;
    p->doomed = p->alarms && pick(w, 12) == 0;
    p->logins = pick(w, 4) == 0;
    p->breaking = !p->calm && third(w);
    p->faults = sw_sim_faults_swarm(&w->rng, p->breaking);
    p->trouble_every_ms = 50 + (uint32_t)pick(w, 1500);
    if (p->calm) {
        p->faults.delay_max_ns = 200 * SW_NS_PER_US;
        p->faults.delay_min_ns = 0;
        p->faults.spike_ppm = p->faults.stall_ppm = p->faults.no_files_ppm = 0;
        p->faults.pipe_bytes_min = p->faults.pipe_bytes_max = 0;
        return;
    }
    p->kills = third(w);
    p->freezes = third(w);
    p->crashes = third(w);
    p->restarts = pick(w, 4) == 0;
    p->rolls = pick(w, 4) == 0;
    p->boot_trouble = pick(w, 4) == 0;
    p->store_slow = third(w);
    p->store_fails = third(w);
    p->bad_apps = third(w);
    p->aborts = third(w);
    p->tight = pick(w, 5) == 0;
    p->bad_clients = third(w);
    p->expiry = p->variant == 4;
    p->bad_alarms = third(w);
    p->store_late = third(w);
    p->crash_points = third(w);
}

/* ---- driving
 * --------------------------------------------------------------------------------------- */

static void on_trouble(struct sw_timer *t, void *arg)
{
    struct world *w = arg;

    if (w->quiet) {
        return;
    }
    super_trouble(w);
    if (w->plan.expiry && chance(w, 20)) {
        int64_t ms = (int64_t)pick(w, 8000) - 4000;

        note(w, "the clock is set by %ld ms", ms);
        sw_sim_wall_step(w->sim, ms * (int64_t)SW_NS_PER_MS);
    }
    sw_timer_start(w->outside, t,
                   now_ns(w) + (1 + pick(w, w->plan.trouble_every_ms)) * SW_NS_PER_MS);
}

/* What may not happen inside a turn. */
static void between_turns(struct world *w)
{
    if (w->want_crash) {
        w->want_crash = false;
        if (w->gw.up) {
            gateway_crash(w);
            gateway_start(w);
        }
    }
    if (w->want_restart) {
        w->want_restart = false;
        if (w->gw.up && !w->gw.stopping) {
            w->restarts++;
            gateway_stop(w);
        }
    }
    if (w->gw.up && w->gw.stopping && gateway_stopped(w)) {
        gateway_end(w);
        gateway_start(w);
    }
}

typedef bool until_fn(struct world *w);

/* True: until came true in time. */
static bool drive(struct world *w, uint64_t for_ns, until_fn *until)
{
    uint64_t end_ns = now_ns(w) + for_ns, check_ns = now_ns(w) + SW_NS_PER_S;

    for (;;) {
        if (until != NULL && until(w)) {
            return true;
        }
        if (!sw_sim_step(w->sim, end_ns)) {
            return now_ns(w) >= end_ns ? false : until != NULL && until(w);
        }
        between_turns(w);
        if (now_ns(w) >= check_ns) {
            check_ns = now_ns(w) + SW_NS_PER_S;
            oracle_exchanges(w);
        }
    }
}

static bool until_ready(struct world *w)
{
    return w->gw.up && w->gw.ready;
}

static bool until_healthy(struct world *w)
{
    return w->gw.up && !w->gw.stopping && sw_apps_ready(w->gw.apps);
}

static bool until_clients(struct world *w)
{
    return clients_idle(w);
}

static bool until_no_alarms(struct world *w)
{
    return sw_store_next_due_unix_ms(w->store) == 0;
}

static bool until_stopped(struct world *w)
{
    return gateway_stopped(w);
}

/* ---- the last questions
 * ------------------------------------------------------------------------------ */

static void ask(struct world *w, struct session *s, struct cookie *k, uint32_t room)
{
    const struct list *list;
    bool present;
    unsigned status;

    if (w->req_count + 10 > REQS_MAX) {
        return;
    }
    client_ask(w, s, k, room);
    if (!drive(w, QUIET_NS, until_clients)) {
        broken(w, "in the quiet end a question takes for ever");
    }
    status = client_asked(w, &list, &present);
    if (status != 200) {
        broken(w, "in the quiet end session %u cannot be read: %u", s->serial, status);
    }
    oracle_final(w, s, list, present);
}

/* There is a last word on every request with a key: its answer once more, or that nobody knows, or
 * that another one has the key, or it runs now. */
static void ask_again(struct world *w)
{
    uint32_t count = w->req_count; /* without the questions */
    const struct list *list;
    bool present;

    for (uint32_t i = 0; i < count && w->req_count + 50 < REQS_MAX; i++) {
        const struct req *r = &w->reqs[i];

        if (r->claim == NULL || r->number != r->id) {
            continue;
        }
        client_ask_again(w, r);
        if (!drive(w, QUIET_NS, until_clients) || client_asked(w, &list, &present) == 0) {
            broken(w, "in the quiet end there is no last word on request %u", r->number);
        }
    }
}

static void last_questions(struct world *w)
{
    uint32_t asked = 0;

    for (unsigned route = 0; route < ROUTE_ID_COUNT; route++) {
        for (uint32_t i = 0; routes_info[route].by_path && i < ROOMS; i++) {
            if (w->rooms[route][i]->chain.n > 0) {
                ask(w, w->rooms[route][i], NULL, i);
            }
        }
    }
    for (uint32_t i = w->cookie_count; i > 0 && asked < 16; i--) {
        struct cookie *k = &w->cookies[i - 1];

        ask(w, k->session, k, 0);
        asked++;
    }
}

/* ---- a run
 * --------------------------------------------------------------------------------------------- */

static void config_of(struct world *w)
{
    static struct sw_config *parsed[SW_COUNTOF(configs)];
    static struct sw_routes *routes[SW_COUNTOF(configs)];
    uint32_t v = w->plan.variant;

    if (parsed[v] == NULL) {
        struct sw_config_errors errors = {0};

        if (sw_config_parse(sw_slice_cstr(configs[v]), SW_S("sim"), NULL, &parsed[v], &errors) !=
            SW_OK) {
            broken(w, "configuration %u, line %u: %.*s", v, errors.list[0].line,
                   SW_SARG(errors.list[0].text));
        }
        sw_config_errors_fini(&errors);
        routes[v] = sw_routes_new(parsed[v]);
        SW_ASSERT(routes[v] != NULL);
    }
    w->config = parsed[v];
    w->routes = routes[v];
}

static void world_open(struct world *w)
{
    struct sw_loop_options roomy = {
        .streams_max = 1024, .buffers_max = 2048, .large_max = 2, .large_bytes = 65536};
    struct sw_store_options store = {.queue_max = 64, .expire = true};

    config_of(w);
    sw_random_seed_for_tests(w->seed);
    w->sim = sw_sim_new(w->seed, &w->plan.faults);
    SW_ASSERT(w->sim != NULL);
    if (w->verbose) {
        sw_sim_set_trace(w->sim, trace, NULL);
    }
    w->ports = 20000;
    w->pids = 100;
    w->client_net_hurt = w->plan.faults.mute_ppm > 0 || w->plan.faults.hang_ppm > 0;
    sw_keyring_make(SW_SIM_UNIX_S, &w->keys);
    if (sw_loop_new_sim(w->sim, &roomy, &w->outside) != SW_OK ||
        sw_loop_new_sim(w->sim, &roomy, &w->apps_loop) != SW_OK ||
        sw_store_open_mem(&store, &w->store) != SW_OK) {
        broken(w, "no memory");
    }
    sw_store_mem_faults(w->store, crash_fault, w);
    w->listen_addr = w->config->listen[0].addr;
    for (uint32_t i = 0; i < w->plan.workers; i++) {
        if (sw_sim_listen(w->sim, &w->listen_addr, 64, &w->listen_fds[i]) != SW_OK) {
            broken(w, "no socket");
        }
    }
    for (unsigned route = 0; route < ROUTE_ID_COUNT; route++) {
        for (uint32_t i = 0; routes_info[route].by_path && i < ROOMS; i++) {
            w->rooms[route][i] = oracle_room(w, (enum route_id)route);
        }
    }
    sw_timer_init(&w->trouble, on_trouble, w);
    super_init(w);
    gateway_start(w);
}

static void world_close(struct world *w)
{
    clients_fini(w);
    super_fini(w);
    apps_fini(w);
    sw_loop_free(w->outside);
    sw_loop_free(w->apps_loop);
    sw_store_close(w->store);
    sw_sim_free(w->sim);
}

/* All troubles end; what is running may finish. */
static void go_quiet(struct world *w)
{
    static const struct sw_sim_faults mild = {.delay_max_ns = 100 * SW_NS_PER_US};

    note(w, "quiet from here");
    w->quiet = true;
    clients_finish(w);
    sw_sim_set_faults(w->sim, &mild);
    super_calm(w);
    if (!drive(w, 2 * QUIET_NS, until_clients)) {
        broken(w, "clients wait for ever");
    }
    if (!drive(w, 2 * QUIET_NS, until_healthy)) {
        broken(w, "no instance becomes healthy in a quiet world");
    }
}

/* Those that failed come again: the last try of one that is never taken after a minute. */
static void await_alarms(struct world *w)
{
    uint64_t most_ns = (w->doomed != 0 ? 90 : 45) * SW_NS_PER_S;

    if (!drive(w, most_ns, until_no_alarms) && !w->plan.expiry) {
        broken(w, "in the quiet end an alarm is neither delivered nor given up");
    }
}

static void come_to_rest(struct world *w)
{
    (void)drive(w, 10 * SW_NS_PER_S, NULL);
    oracle_at_rest(w);
    gateway_stop(w);
    for (uint64_t end_ns = now_ns(w) + w->config->timeouts.stop_ns + SW_NS_PER_S;
         !until_stopped(w);) {
        if (!sw_sim_step(w->sim, end_ns)) {
            broken(w, "the gateway does not stop");
        }
    }
    gateway_end(w);
}

uint64_t run_seed(uint64_t seed, bool verbose)
{
    struct world *w = calloc(1, sizeof(*w));
    uint64_t hash;

    SW_ASSERT(w != NULL);
    w->seed = seed;
    w->verbose = verbose;
    sw_rng_seed(&w->rng, seed);
    plan_make(w);
    world_open(w);
    if (verbose) {
        const struct plan *p = &w->plan;

        note(w,
             "plan: variant %u%s, %u clients, %u visitors, %u "
             "workers%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s",
             p->variant, p->calm ? ", calm" : "", p->clients, p->visitors, p->workers,
             p->breaking ? ", breaking" : "", p->kills ? ", kills" : "",
             p->freezes ? ", freezes" : "", p->crashes ? ", crashes" : "",
             p->restarts ? ", restarts" : "", p->rolls ? ", rolls" : "",
             p->boot_trouble ? ", boot trouble" : "", p->store_slow ? ", slow store" : "",
             p->store_fails ? ", failing store" : "", p->bad_apps ? ", bad apps" : "",
             p->aborts ? ", aborts" : "", p->pipelining ? ", pipelining" : "",
             p->tight ? ", tight" : "", p->claims ? ", claims" : "", p->alarms ? ", alarms" : "",
             p->doomed ? ", a doomed one" : "", p->bad_alarms ? ", bad alarms" : "",
             p->store_late ? ", late store" : "", p->crash_points ? ", crash points" : "");
    }
    if ((w->plan.calm || chance(w, 70)) && !drive(w, 5 * SW_NS_PER_S, until_ready) &&
        w->plan.calm) {
        broken(w, "not ready in a calm world");
    }
    clients_start(w);
    sw_timer_start(w->outside, &w->trouble, now_ns(w));
    (void)drive(w, LOAD_NS, until_clients);
    go_quiet(w);
    await_alarms(w);
    ask_again(w);
    last_questions(w);
    store_check(w, "at the end");
    come_to_rest(w);
    hash = sw_sim_hash(w->sim);
    run_total.requests += w->req_count;
    run_total.answered += w->answered;
    run_total.own += w->own;
    run_total.cut += w->cut;
    run_total.left += w->left;
    run_total.crashes += w->crashes;
    run_total.restarts += w->restarts;
    if (w->given_up > w->dropped) {
        broken(w, "an alarm was given up, and nobody says so");
    }
    run_total.virtual_s += seconds(w);
    run_total.claims += w->claim_count;
    run_total.replayed += w->replayed;
    run_total.alarms_delivered += w->delivered;
    run_total.alarms_given_up += w->given_up;
    run_total.crashed_before += w->crashed_before;
    run_total.crashed_within += w->crashed_within;
    run_total.crashed_after += w->crashed_after;
    run_total.crashed_in_flight += w->crashed_within || w->crashed_after;
    for (size_t i = 0; i < SW_COUNTOF(w->by_status); i++) {
        run_total.by_status[i] += w->by_status[i];
    }
    world_close(w);
    free(w);
    return hash;
}
