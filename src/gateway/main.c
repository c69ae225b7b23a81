/* gateway/main.c - the gateway process: reads the configuration, opens what it names, runs workers,
 * and keeps the thread that decides on instances, talks to the supervisor and serves the admin
 * room.
 */
#include "gateway/gateway_priv.h"

#include "app/control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAIN_STREAMS_MAX  2048
#define EXIT_START_FAILED 3
#define TELL_WAIT_MS      2000
#define SIDE_BACKLOG      1024

struct thread {
    struct sw_gateway *gateway;
    struct sw_loop *loop;
    struct sw_worker *worker;
    pthread_t id;
    bool running;
    struct sw_post stop, stopped;
    uint64_t stop_deadline_ns;
    int side_fd; /* -1: none */
    char side_url[SW_ADDR_TEXT_MAX + 32];
};

struct sw_gateway {
    struct sw_config *config;
    struct sw_routes *routes;
    struct sw_store *store;
    struct sw_keys *keys;
    struct sw_trust trust;
    struct sw_apps *apps;
    struct sw_life *life;
    struct sw_admit *admit;
    struct sw_budget large;
    struct sw_access *access;
    struct sw_loop *loop; /* main */
    struct sw_stream *control;
    int control_fd; /* the same socket: messages go out one by one, as records */
    const struct sw_admin_ops *admin_ops;
    void *admin;
    struct thread threads[SW_WORKERS_MAX];
    size_t thread_count, threads_stopped;
    bool ready, stopping;
};

/* ---- what the admin room reads --------------------------------------------------------------- */

const struct sw_config *sw_gateway_config(const struct sw_gateway *g)
{
    return g->config;
}

struct sw_apps *sw_gateway_apps(const struct sw_gateway *g)
{
    return g->apps;
}

struct sw_life *sw_gateway_life(const struct sw_gateway *g)
{
    return g->life;
}

struct sw_store *sw_gateway_store(const struct sw_gateway *g)
{
    return g->store;
}

size_t sw_gateway_workers(const struct sw_gateway *g)
{
    return g->thread_count;
}

const struct sw_stats *sw_gateway_stats(const struct sw_gateway *g, size_t worker)
{
    SW_ASSERT(worker < g->thread_count);
    return sw_worker_stats(g->threads[worker].worker);
}

struct sw_loop *sw_gateway_worker_loop(const struct sw_gateway *g, size_t worker)
{
    SW_ASSERT(worker < g->thread_count);
    return g->threads[worker].loop;
}

bool sw_gateway_ready(const struct sw_gateway *g)
{
    return g->ready && sw_apps_ready(g->apps);
}

const struct sw_budget *sw_gateway_large(const struct sw_gateway *g)
{
    return &g->large;
}

const struct sw_keyring *sw_gateway_keys(const struct sw_gateway *g)
{
    return sw_keys__ring(g->keys);
}

const struct sw_keys_rules *sw_gateway_keys_in(const struct sw_gateway *g)
{
    return sw_keys__rules(g->keys);
}

bool sw_gateway_keys_stale(const struct sw_gateway *g)
{
    return sw_keys__stale(g->keys);
}

struct sw_key_used sw_gateway_key_used(const struct sw_gateway *g, uint32_t id)
{
    struct sw_key_used sum = {0, 0, 0};

    for (size_t i = 0; i < g->thread_count; i++) {
        struct sw_key_used one = sw_worker_key_used(g->threads[i].worker, id);

        sum.opened += one.opened;
        sum.made += one.made;
        sum.last_unix_s = SW_MAX(sum.last_unix_s, one.last_unix_s);
    }
    return sum;
}

bool sw_gateway_stopping(const struct sw_gateway *g)
{
    return g->stopping;
}

uint64_t sw_gateway_log_dropped(const struct sw_gateway *g)
{
    return g->access == NULL ? 0 : sw_access_dropped(g->access);
}

const struct sw_keysets *sw_gateway_keysets(const struct sw_gateway *g)
{
    return g->trust.keysets;
}

struct sw_token_cache_stats sw_gateway_tokens(const struct sw_gateway *g)
{
    struct sw_token_cache_stats sum = {0};

    for (size_t i = 0; i < g->thread_count; i++) {
        struct sw_token_cache_stats one = sw_worker_tokens(g->threads[i].worker);

        sum.hits += one.hits;
        sum.misses += one.misses;
        sum.evictions += one.evictions;
        sum.too_long += one.too_long;
    }
    return sum;
}

/* ---- the supervisor -------------------------------------------------------------------------- */

static void tell(struct sw_gateway *g, const struct sw_control *msg)
{
    struct pollfd p = {.fd = g->control_fd, .events = POLLOUT};
    ssize_t n;

    SW_ASSERT(msg->version == SW_CONTROL_VERSION);
    do { /* the supervisor reads soon: it does nothing that takes long */
        n = send(g->control_fd, msg, sizeof(*msg), MSG_NOSIGNAL);
    } while (n < 0 && (errno == EINTR || (errno == EAGAIN && poll(&p, 1, TELL_WAIT_MS) == 1)));
    if (n != (ssize_t)sizeof(*msg)) {
        sw_log(SW_LOG_ERROR, "cannot reach the supervisor: %s", strerror(errno));
    }
}

static void life_send(void *arg, const struct sw_control *msg)
{
    tell(arg, msg);
}

static void life_log(void *arg, enum sw_log_level level, const char *text)
{
    (void)arg;
    sw_log(level, "%s", text);
}

static void life_ready(void *arg)
{
    struct sw_gateway *g = arg;
    struct sw_control msg = {.version = SW_CONTROL_VERSION, .kind = SW_CONTROL_READY};

    if (!g->ready) {
        g->ready = true;
        tell(g, &msg);
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

static void on_thread_stopped(struct sw_post *post, void *arg)
{
    struct thread *t = arg;
    struct sw_gateway *g = t->gateway;

    (void)post;
    sw_loop_stop(t->loop);
    if (++g->threads_stopped == g->thread_count) {
        sw_loop_stop(g->loop);
    }
}

/* On the worker's thread: its last exchange ended, or the deadline came. */
static void worker_stopped(void *arg)
{
    struct thread *t = arg;

    t->stopped.fn = on_thread_stopped;
    t->stopped.arg = t;
    sw_loop_post(t->gateway->loop, &t->stopped);
}

static void on_stop_worker(struct sw_post *post, void *arg)
{
    struct thread *t = arg;

    (void)post;
    sw_worker_stop(t->worker, t->stop_deadline_ns, worker_stopped, t);
}

static void begin_stop(struct sw_gateway *g, uint64_t grace_ns)
{
    if (g->stopping) {
        return;
    }
    g->stopping = true;
    sw_log(SW_LOG_INFO, "stopping: running exchanges have %.1f s",
           (double)grace_ns / (double)SW_NS_PER_S);
    sw_life_stop(g->life);
    for (size_t i = 0; i < g->thread_count; i++) {
        struct thread *t = &g->threads[i];

        t->stop.fn = on_stop_worker;
        t->stop.arg = t;
        t->stop_deadline_ns = sw_loop_clock_ns(g->loop) + grace_ns;
        sw_loop_post(t->loop, &t->stop);
    }
}

static void on_signal(void *arg, int signo)
{
    struct sw_gateway *g = arg;

    (void)signo;
    begin_stop(g, g->config->timeouts.stop_ns);
}

static void control_on_recv(struct sw_stream *s, void *arg, struct sw_buf *buf,
                            struct sw_slice bytes)
{
    struct sw_gateway *g = arg;
    struct sw_control msg;

    (void)s;
    (void)buf;
    while (bytes.len >= sizeof(msg)) {
        memcpy(&msg, bytes.ptr, sizeof(msg));
        bytes = sw_slice_tail(bytes, sizeof(msg));
        msg.address[sizeof(msg.address) - 1] = '\0';
        if (msg.version != SW_CONTROL_VERSION) {
            sw_log(SW_LOG_ERROR, "the supervisor speaks version %u of the control protocol, not %u",
                   msg.version, SW_CONTROL_VERSION);
            continue;
        }
        if (msg.kind == SW_CONTROL_SHUTDOWN) {
            begin_stop(g, (uint64_t)msg.grace_ms * SW_NS_PER_MS);
        } else {
            sw_life_control(g->life, &msg);
        }
    }
    SW_ASSERT(bytes.len == 0); /* records, never parts */
}

static void control_on_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    (void)s;
    (void)arg;
    (void)err;
    sw_log(SW_LOG_ERROR, "the supervisor is gone: ending");
    _exit(1); /* what was acknowledged is durable; the guard ends the instances */
}

static const struct sw_stream_events control_events = {
    .recv = control_on_recv,
    .end = control_on_end,
};

/* ---- the beginning --------------------------------------------------------------------------- */

/* config/ names the algorithms and does not see crypto/. */
_Static_assert(SW_CONFIG_ALG_HS256 == (int)SW_JOSE_HS256, "one number for one algorithm");
_Static_assert(SW_CONFIG_ALG_ES256 == (int)SW_JOSE_ES256, "likewise");
_Static_assert(SW_CONFIG_ALG_ED25519 == (int)SW_JOSE_ED25519, "likewise");

static bool uses(const struct sw_config *c, enum sw_placement_kind kind)
{
    for (size_t i = 0; i < c->route_count; i++) {
        if (c->routes[i].placement == kind) {
            return true;
        }
    }
    return false;
}

/* Idempotency keys are records too, whatever the placement. */
static bool keeps_claims(const struct sw_config *c)
{
    for (size_t i = 0; i < c->route_count; i++) {
        if (c->routes[i].idempotency.mode != SW_IDEM_OFF) {
            return true;
        }
    }
    return false;
}

/* What clients carry is ended by a note in the store; its keys must outlive the process too. */
static bool ends_things(const struct sw_config *c)
{
    for (size_t i = 0; i < c->route_count; i++) {
        if (c->routes[i].token.on || c->routes[i].placement == SW_PLACE_SEALED ||
            c->routes[i].placement == SW_PLACE_STICKY ||
            c->routes[i].moved_from != SW_PLACE_NONE) {
            return true;
        }
    }
    return false;
}

static bool keeps_large(const struct sw_config *c)
{
    for (size_t i = 0; i < c->route_count; i++) {
        bool sessions = c->routes[i].moved_from == SW_PLACE_SESSION ||
                        (c->routes[i].placement == SW_PLACE_SEALED &&
                         c->routes[i].sealed.oversize == SW_OVERSIZE_SPILL);

        if ((sessions || c->routes[i].placement == SW_PLACE_SESSION) &&
            c->routes[i].session.max_bytes > c->routes[i].session.inline_bytes) {
            return true;
        }
    }
    return false;
}

static int start_failed(const char *what, const char *why)
{
    sw_log(SW_LOG_ERROR, "%s: %s", what, why);
    return EXIT_START_FAILED;
}

static int open_config(struct sw_gateway *g, const struct sw_gateway_start *start)
{
    struct sw_config_errors *errors = calloc(1, sizeof(*errors));
    enum sw_err err;

    SW_ASSERT(errors != NULL);
    err = sw_config_parse(sw_slice_of(start->config_text, start->config_len),
                          sw_slice_cstr(start->config_name), start->override, &g->config, errors);
    for (size_t i = 0; i < errors->count && i < SW_CONFIG_ERRORS_MAX; i++) {
        sw_log(SW_LOG_ERROR, "%s:%u:%u: %.*s", start->config_name, errors->list[i].line,
               errors->list[i].column, SW_SARG(errors->list[i].text));
    }
    sw_config_errors_fini(errors);
    free(errors);
    if (err != SW_OK) {
        return start_failed(start->config_name, sw_err_text(err));
    }
    sw_log_setup(STDERR_FILENO, g->config->log_level, g->config->log_json, "gateway");
    g->routes = sw_routes_new(g->config);
    return g->routes == NULL ? start_failed("routes", "no memory") : 0;
}

/* A long upgrade or replay: so that nobody thinks it hangs. */
static void store_tells(void *arg, const char *text)
{
    (void)arg;
    sw_log(SW_LOG_INFO, "store: %s", text);
}

static int open_store(struct sw_gateway *g)
{
    const struct sw_config *c = g->config;
    struct sw_store_options opt = {
        .path = c->store_path,
        .sync = (enum sw_sync)c->sync,
        .map_bytes_max = c->store_map_bytes,
        .memory_bytes_max = c->store_memory_bytes,
        .queue_max = 65536,
        .readers_max = (uint32_t)(g->thread_count + 4),
        .expire = true,
        .tell = store_tells,
    };
    const char *why = "no memory";
    enum sw_err err;

    if (!uses(c, SW_PLACE_SESSION) && !keeps_claims(c) && !ends_things(c)) {
        return 0;
    }
    if (sw_slice_eq(c->store_kind, SW_S("memory"))) {
        err = sw_store_open_mem(&opt, &g->store);
    } else if (sw_slice_eq(c->store_kind, SW_S("journal"))) {
        err = sw_store_open_journal(&opt, &g->store, &why);
    } else {
        err = sw_store_open_lmdb(&opt, &g->store, &why);
    }
    return err == SW_OK ? 0 : start_failed("store", why);
}

static int open_keys(struct sw_gateway *g)
{
    const char *why = "no memory";

    return sw_keys__new(g->config, g->loop, &g->keys, &why) == SW_OK ? 0
                                                                     : start_failed("keys", why);
}

/* Last of what is opened: an issuer that does not answer is waited for a little. */
static int open_trust(struct sw_gateway *g)
{
    const char *why = "no memory";

    if (sw_trust__open(&g->trust, g->config, &why) != SW_OK) {
        return start_failed("keys of tokens", why);
    }
    return 0;
}

/* The side API's socket of one worker: each has a port of its own, so that a call arrives where its
 * exchange is. */
static int open_side(struct sw_gateway *g, struct thread *t, size_t index)
{
    struct sw_addr addr = g->config->side_addr;
    socklen_t len = sizeof(addr.in6);
    char text[SW_ADDR_TEXT_MAX];
    struct sw_out out = sw_out_init(t->side_url, sizeof(t->side_url));
    struct sw_slice shown;
    enum sw_err err;

    t->side_fd = -1;
    if (addr.len == 0 || !keeps_large(g->config)) {
        return 0;
    }
    if (sw_addr_port(&addr) > 0) {
        if (sw_addr_port(&addr) + index > UINT16_MAX) {
            return start_failed("side", "the workers need more ports than there are from this one");
        }
        sw_addr_set_port(&addr, (uint16_t)(sw_addr_port(&addr) + index));
    }
    shown = sw_addr_text(&addr, text);
    err = sw_listen_socket(&addr, false, SIDE_BACKLOG, &t->side_fd);
    if (err != SW_OK) {
        sw_log(SW_LOG_ERROR, "side: cannot listen on %.*s: %s; name another address in `side`",
               SW_SARG(shown), sw_err_text(err));
        return EXIT_START_FAILED;
    }
    if (getsockname(t->side_fd, &addr.sa, &len) != 0) {
        return start_failed("side", strerror(errno));
    }
    addr.len = len;
    sw_out_lit(&out, "http://");
    sw_out_slice(&out, sw_addr_text(&addr, text));
    sw_out_lit(&out, "/state/");
    t->side_url[out.len] = '\0';
    return 0;
}

static uint32_t share(uint32_t total, size_t parts)
{
    return (uint32_t)SW_MAX((total + parts - 1) / parts, (size_t)16);
}

static int open_worker(struct sw_gateway *g, size_t index, const struct sw_gateway_start *start)
{
    struct thread *t = &g->threads[index];
    uint32_t connections = share(g->config->limits.connections, start->workers);
    struct sw_loop_options loop_opt;
    int fds[SW_LISTEN_MAX];
    struct sw_worker_options opt = {
        .config = g->config,
        .routes = g->routes,
        .apps = g->apps,
        .store = g->store,
        .keys = sw_keys__ring(g->keys),
        .mint = sw_keys__mint(g->keys),
        .trust = &g->trust,
        .admit = g->admit,
        .access = g->access,
        .listen_fds = fds,
        .listen_count = start->listen_count,
        .index = index,
        .connections_max = connections,
        .exchanges_max = SW_MIN(connections, 16384u),
        .large = &g->large,
        .alarms = index == 0,
    };
    enum sw_err err;

    t->gateway = g;
    if (open_side(g, t, index) != 0) {
        return EXIT_START_FAILED;
    }
    opt.side_fd = t->side_fd;
    opt.side_url = sw_slice_cstr(t->side_url);
    sw_worker_loop_options(g->config, connections, &loop_opt);
    err = sw_loop_new(&loop_opt, &t->loop);
    if (err != SW_OK) {
        return start_failed("event loop", err == SW_E_UNSUPPORTED
                                              ? "the kernel refuses io_uring here; use engine: auto"
                                              : sw_err_text(err));
    }
    for (size_t i = 0; i < start->listen_count; i++) {
        fds[i] = start->listen_fds[i * start->workers + index];
    }
    sw_random(&opt.seed, sizeof(opt.seed));
    opt.loop = t->loop;
    err = sw_worker_new(&opt, &t->worker);
    if (err != SW_OK) {
        return start_failed("worker", sw_err_text(err));
    }
    sw_keys__join(g->keys, t->loop, t->worker);
    return 0;
}

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    char name[16];
    struct sw_out out = sw_out_init(name, sizeof(name) - 1);

    sw_out_printf(&out, "worker-%u", (unsigned)(t - t->gateway->threads));
    name[out.len] = '\0';
    prctl(PR_SET_NAME, name);
    sw_loop_run(t->loop);
    return NULL;
}

static int open_all(struct sw_gateway *g, const struct sw_gateway_start *start)
{
    static const int signals[] = {SIGTERM};
    const struct sw_life_hooks hooks = {life_send, life_log, life_ready, g};
    struct sw_loop_options opt = {.streams_max = MAIN_STREAMS_MAX,
                                  .buffers_max = 1024,
                                  .large_max = 8,
                                  .large_bytes = 256 * 1024};
    int failed = open_config(g, start);

    if (failed != 0) {
        return failed;
    }
    opt.engine = g->config->engine;
    sw_budget_init(&g->large, g->config->limits.large_bytes);
    if (sw_loop_new(&opt, &g->loop) != SW_OK) {
        return start_failed("event loop", "could not be made");
    }
    failed = open_keys(g);
    failed = failed != 0 ? failed : open_store(g);
    failed = failed != 0 ? failed : open_trust(g);
    if (failed != 0) {
        return failed;
    }
    g->admit = sw_admit_new();
    g->apps = sw_apps_new(g->config);
    if (g->admit == NULL || g->apps == NULL) {
        return start_failed("gateway", "no memory");
    }
    if (sw_access_open(g->config, start->workers, &g->access) != SW_OK) {
        return start_failed("access log", "the file cannot be opened for writing");
    }
    if (sw_loop_on_signal(g->loop, signals, SW_COUNTOF(signals), on_signal, g) != SW_OK ||
        sw_stream_adopt(g->loop, dup(start->control_fd), &control_events, g, &g->control) !=
            SW_OK) {
        return start_failed("control socket", strerror(errno));
    }
    sw_stream_read_start(g->control);
    for (size_t i = 0; i < start->workers; i++) {
        failed = open_worker(g, i, start);
        if (failed != 0) {
            return failed;
        }
        g->thread_count++;
    }
    g->life = sw_life_new(g->apps, g->loop, g->config, &hooks);
    if (g->life == NULL) {
        return start_failed("apps", "no memory");
    }
    if (start->admin_fd >= 0 && g->admin_ops != NULL) {
        g->admin = g->admin_ops->open(g, g->loop, start->admin_fd);
        if (g->admin == NULL) {
            return start_failed("admin", "the listener could not be opened");
        }
    }
    return 0;
}

static void close_all(struct sw_gateway *g)
{
    sw_access_close(g->access);
    /* The store first: exchanges that the stop deadline cut, and requests of the admin room, may
     * still have commits in its queue, and those lie in their memory. */
    if (g->store != NULL) {
        sw_store_close(g->store);
    }
    if (g->admin != NULL) {
        g->admin_ops->close(g->admin);
    }
    sw_trust__close(&g->trust); /* likewise: who waits for keys lies in the workers' memory */
    for (size_t i = 0; i < SW_COUNTOF(g->threads); i++) {
        if (g->threads[i].worker != NULL) {
            sw_worker_free(g->threads[i].worker);
        }
        if (g->threads[i].gateway != NULL && g->threads[i].side_fd >= 0) {
            close(g->threads[i].side_fd);
        }
    }
    if (g->life != NULL) {
        sw_life_free(g->life);
    }
    for (size_t i = 0; i < SW_COUNTOF(g->threads); i++) {
        if (g->threads[i].loop != NULL) {
            sw_loop_free(g->threads[i].loop);
        }
    }
    if (g->loop != NULL) {
        sw_loop_free(g->loop);
    }
    sw_keys__free(g->keys); /* after the loops: a message of it may never have come through */
    if (g->apps != NULL) {
        sw_apps_free(g->apps);
    }
    sw_admit_free(g->admit);
    if (g->routes != NULL) {
        sw_routes_free(g->routes);
    }
    if (g->config != NULL) {
        sw_config_free(g->config);
    }
}

int sw_gateway_main(const struct sw_gateway_start *start, const struct sw_admin_ops *admin)
{
    struct sw_gateway *g = calloc(1, sizeof(*g));
    sigset_t blocked;
    int code;

    SW_ASSERT(g != NULL);
    SW_ASSERT(start->workers > 0);
    SW_ASSERT(start->workers <= SW_WORKERS_MAX);
    SW_ASSERT(start->listen_count <= SW_LISTEN_MAX);
    /* Ctrl-C reaches the whole group: the supervisor decides what it means. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    sw_log_setup(STDERR_FILENO, SW_LOG_INFO, false, "gateway");
    g->control_fd = start->control_fd;
    g->admin_ops = admin;
    code = open_all(g, start);
    if (code == 0) {
        sw_log(SW_LOG_INFO, "%zu worker%s on %s", g->thread_count, g->thread_count == 1 ? "" : "s",
               sw_loop_engine(g->threads[0].loop));
        for (size_t i = 0; i < g->thread_count; i++) {
            int rc = pthread_create(&g->threads[i].id, NULL, thread_main, &g->threads[i]);

            SW_ASSERT(rc == 0); /* at start, where failing may be fatal */
            g->threads[i].running = true;
        }
        sw_keys__watch(g->keys);
        sw_loop_run(g->loop);
        sw_keys__stop(g->keys);
        for (size_t i = 0; i < g->thread_count; i++) {
            sw_loop_stop(g->threads[i].loop);
            pthread_join(g->threads[i].id, NULL);
        }
        sw_log(SW_LOG_INFO, "stopped");
    }
    close_all(g);
    free(g);
    return code;
}
