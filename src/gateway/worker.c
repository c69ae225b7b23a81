/* gateway/worker.c - one thread's gateway: its pools, listeners, and its end. */
#include "gateway/gateway_priv.h"

/* What an exchange's arena must hold besides states: cookie lines, key texts, the store operation,
 * the merge's member tables; trailers both ways. */
#define ARENA_BASE_BYTES (20u * 1024u + 2 * SW_TRAILER_BYTES_MAX)

#define STOP_LOOK_NS (10 * SW_NS_PER_MS) /* are all answers out? */

struct sw_slice sw_worker__date(struct sw_worker *w)
{
    int64_t now = sw_loop_now_unix_s(w->loop);

    if (now != w->date_unix_s) {
        sw_http_date(w->date, now);
        w->date_unix_s = now;
    }
    return sw_slice_of(w->date, sizeof(w->date));
}

/* Tokens are decoded, verified, handed over and made anew in the arena; what comes of one lies
 * there to the end. */
#define ARENA_TOKEN_BYTES (5u * SW_TOKEN_BYTES_MAX)

static bool takes_tokens(const struct sw_config *config)
{
    for (size_t i = 0; i < config->route_count; i++) {
        if (config->routes[i].token.on) {
            return true;
        }
    }
    return false;
}

static bool has_phantoms(const struct sw_config *config)
{
    for (size_t i = 0; i < config->route_count; i++) {
        if (sw_place_has_phantom(&config->routes[i])) {
            return true;
        }
    }
    return false;
}

/* Of a state in a header; a sealed one may have become a session, or come from one. */
static size_t inline_bytes(const struct sw_config_route *route)
{
    bool sealed = route->placement == SW_PLACE_SEALED || route->moved_from == SW_PLACE_SEALED;
    size_t bytes = sealed ? SW_SEALED_BYTES_MAX : 0;

    return route->placement == SW_PLACE_SESSION || route->moved_from == SW_PLACE_SESSION || sealed
               ? SW_MAX(bytes, (size_t)route->session.inline_bytes)
               : 0;
}

static size_t arena_bytes(const struct sw_config *config)
{
    size_t inline_max = 0;

    for (size_t i = 0; i < config->route_count; i++) {
        inline_max = SW_MAX(inline_max, inline_bytes(&config->routes[i]));
    }
    /* the state, what is merged into it, the result; once more for each of a few merge rounds; the
     * alarms, as they were and as they will be, and what an envelope says */
    return ARENA_BASE_BYTES + 4 * inline_max + 3 * SW_EXTRA_BYTES_MAX + sizeof(struct sw_envelope) +
           (takes_tokens(config) ? ARENA_TOKEN_BYTES : 0);
}

static size_t head_bytes_max(const struct sw_config *config)
{
    size_t inline_max = 0;

    for (size_t i = 0; i < config->route_count; i++) {
        inline_max = SW_MAX(inline_max, inline_bytes(&config->routes[i]));
    }
    if (takes_tokens(config)) {
        inline_max = SW_MAX(inline_max, (size_t)SW_TOKEN_STATE_BYTES_MAX);
        inline_max += SW_TOKEN_LINES_BYTES_MAX;
    }
    if (has_phantoms(config)) {
        inline_max += SW_TOKEN_BYTES_MAX;
    }
    /* the client's head, our lines (Stateway-State, an alarm's data), trailers */
    return config->limits.head_bytes + inline_max + 8192;
}

void sw_worker_loop_options(const struct sw_config *config, uint32_t connections_max,
                            struct sw_loop_options *ret_options)
{
    size_t large = SW_MAX(head_bytes_max(config), (size_t)config->limits.replay_buffer_bytes);

    large = SW_MAX(large, (size_t)SW_BUF_BYTES + 1); /* small limits: a large one is still larger */
    *ret_options = (struct sw_loop_options){
        .engine = config->engine,
        .streams_max = 2 * connections_max /* clients, and an instance for each */
                       + 1024,             /* idle connections to instances */
        .buffers_max = SW_MAX(1024u, SW_MIN(2 * connections_max, 8192u)),
        .large_max = SW_MAX(256u, SW_MIN(connections_max / 4, 2048u)),
        .large_bytes = (uint32_t)((large + 4095) & ~(size_t)4095),
    };
}

static void worker_stopped(struct sw_worker *w)
{
    void (*stopped)(void *) = w->stopped;

    w->stopped = NULL;
    sw_timer_stop(w->loop, &w->stop_timer);
    if (stopped != NULL) {
        stopped(w->stopped_arg);
    }
}

static void on_stop_timer(struct sw_timer *t, void *arg)
{
    struct sw_worker *w = arg;

    (void)t;
    if (sw_loop_now_ns(w->loop) >= w->stop_deadline_ns) {
        worker_stopped(w);
    } else {
        sw_worker__check_stopped(w);
    }
}

static void mint_drop(struct sw_worker *w)
{
    for (size_t i = 0; i < SW_JOSE_ALG_COUNT; i++) {
        sw_jwks_unref(w->mint.sets[i]);
        w->mint.sets[i] = NULL;
    }
}

void sw_worker_keys(struct sw_worker *w, const struct sw_keyring *keys, const struct sw_mint *mint)
{
    SW_ASSERT(w->magic == SW_WORKER_MAGIC);
    mint_drop(w);
    w->env.mint = NULL;
    for (size_t i = 0; mint != NULL && i < SW_JOSE_ALG_COUNT; i++) {
        if (mint->sets[i] != NULL) {
            w->mint.sets[i] = sw_jwks_ref(mint->sets[i]);
            w->env.mint = &w->mint;
        }
    }
    w->keys = *keys;
    w->keys.uses = &w->key_uses;
    sw_key_uses_follow(&w->key_uses, &w->keys);
    w->env.keys = &w->keys;
    if (w->env.visitors != NULL) { /* it goes by the key's id, which another file may give anew */
        memset(w->env.visitors, 0, sizeof(*w->env.visitors));
    }
}

struct sw_key_used sw_worker_key_used(const struct sw_worker *w, uint32_t id)
{
    return sw_key_uses_read(&w->key_uses, id);
}

enum sw_err sw_worker_new(const struct sw_worker_options *opt, struct sw_worker **ret_worker)
{
    struct sw_worker *w = calloc(1, sizeof(*w));
    size_t fields = 2 * (size_t)opt->config->limits.fields * sizeof(struct sw_field);
    enum sw_err err = SW_E_NO_MEMORY;

    SW_ASSERT(opt->listen_count <= SW_LISTEN_MAX);
    if (w == NULL) {
        return SW_E_NO_MEMORY;
    }
    w->magic = SW_WORKER_MAGIC;
    w->loop = opt->loop;
    w->config = opt->config;
    w->routes = opt->routes;
    w->apps = opt->apps;
    w->admit = opt->admit;
    w->access = opt->access;
    w->index = opt->index;
    sw_rng_seed(&w->rng, opt->seed);
    w->env = (struct sw_place_env){
        .loop = opt->loop,
        .store = opt->store,
        .apps = opt->apps,
        .rng = &w->rng,
        .config = opt->config,
        .large = opt->large,
    };
    w->side_url = opt->side_url;
    sw_worker_keys(w, opt->keys, opt->mint);
    sw_list_init(&w->conn_list);
    sw_list_init(&w->exchange_list);
    sw_list_init(&w->tunnel_list);
    sw_timer_init(&w->stop_timer, on_stop_timer, w);
    w->arena_bytes = arena_bytes(opt->config);
    w->slot_bytes = (sizeof(struct sw_exchange) + 15) / 16 * 16 + fields + w->arena_bytes;
    w->stats = calloc(1, sizeof(*w->stats));
    w->side_table = calloc(SW_SIDE_BUCKETS, sizeof(*w->side_table));
    w->env.visitors = calloc(1, sizeof(*w->env.visitors));
    if (has_phantoms(opt->config)) {
        w->env.phantoms = sw_phantoms_new();
    }
    for (size_t i = 0; w->side_table != NULL && i < SW_SIDE_BUCKETS; i++) {
        sw_list_init(&w->side_table[i]);
    }
    if (w->stats == NULL || w->side_table == NULL || w->env.visitors == NULL ||
        (has_phantoms(opt->config) && w->env.phantoms == NULL) ||
        !sw_trust__env_init(opt->trust, &w->env) ||
        !sw_pool_init(&w->conns, sizeof(struct sw_conn), opt->connections_max) ||
        !sw_pool_init(&w->exchanges, w->slot_bytes, opt->exchanges_max) ||
        !sw_pool_init(&w->tunnels, sizeof(struct sw_tunnel), opt->connections_max) ||
        !sw_pool_init(&w->pieces, sizeof(struct sw_piece),
                      16384 + 2 * (size_t)opt->connections_max)) {
        sw_worker_free(w);
        return SW_E_NO_MEMORY;
    }
    w->upstream = sw_upstream_new(opt->apps, opt->loop, opt->config);
    if (w->upstream == NULL) {
        sw_worker_free(w);
        return SW_E_NO_MEMORY;
    }
    for (size_t i = 0; i < opt->listen_count; i++) {
        err = sw_listener_open(opt->loop, opt->listen_fds[i], sw_conn__accept, w, &w->listeners[i]);
        if (err != SW_OK) {
            sw_worker_free(w);
            return err;
        }
        w->listener_count++;
    }
    if (opt->side_fd >= 0) {
        err = sw_listener_open(opt->loop, opt->side_fd, sw_conn__accept_side, w, &w->side_listener);
        if (err != SW_OK) {
            sw_worker_free(w);
            return err;
        }
    }
    if (opt->alarms && opt->store != NULL) {
        w->alarms = sw_alarms__new(w);
        if (w->alarms == NULL) {
            sw_worker_free(w);
            return SW_E_NO_MEMORY;
        }
    }
    *ret_worker = w;
    return SW_OK;
}

/* Answers that linger belong to nobody here any more, but they must go out: pieces tells. */
void sw_worker__check_stopped(struct sw_worker *w)
{
    struct sw_loop_stats stats;

    if (!w->stopping || w->stopped == NULL || !sw_list_empty(&w->exchange_list)) {
        return;
    }
    for (struct sw_link *l = w->conn_list.next; l != &w->conn_list; l = l->next) {
        if (!SW_CONTAINER(l, struct sw_conn, link)->side) {
            return;
        }
    } /* the apps' own connections end with the worker */
    sw_loop_stats(w->loop, &stats);
    if (stats.pieces == 0) {
        worker_stopped(w);
    } else {
        sw_timer_start(w->loop, &w->stop_timer,
                       SW_MIN(sw_loop_now_ns(w->loop) + STOP_LOOK_NS, w->stop_deadline_ns));
    }
}

void sw_worker_stop(struct sw_worker *w, uint64_t deadline_ns, void (*stopped)(void *arg),
                    void *arg)
{
    struct sw_link *l, *next;

    SW_ASSERT(w->magic == SW_WORKER_MAGIC);
    SW_ASSERT(!w->stopping);
    w->stopping = true;
    w->stopped = stopped;
    w->stopped_arg = arg;
    w->stop_deadline_ns = deadline_ns;
    sw_timer_start(w->loop, &w->stop_timer, deadline_ns);
    for (size_t i = 0; i < w->listener_count; i++) {
        sw_listener_close(w->listeners[i]);
    }
    w->listener_count = 0;
    if (w->alarms != NULL) {
        sw_alarms__stop(w->alarms);
    } /* the side API goes on: running exchanges may need it to their end */
    for (l = w->conn_list.next; l != &w->conn_list; l = next) {
        struct sw_conn *c = SW_CONTAINER(l, struct sw_conn, link);

        next = l->next;
        if (c->state == CONN_IDLE && !c->side) {
            sw_conn__leave(c);
        }
    }
    for (l = w->tunnel_list.next; l != &w->tunnel_list; l = next) {
        next = l->next;
        sw_tunnel__close(SW_CONTAINER(l, struct sw_tunnel, link));
    }
    sw_worker__check_stopped(w);
}

void sw_worker_free(struct sw_worker *w)
{
    struct sw_link *l;

    if (w == NULL) {
        return;
    }
    SW_ASSERT(w->magic == SW_WORKER_MAGIC);
    w->stopping = true;
    w->stopped = NULL;
    sw_timer_stop(w->loop, &w->stop_timer);
    for (size_t i = 0; i < w->listener_count; i++) {
        sw_listener_close(w->listeners[i]);
    }
    if (w->side_listener != NULL) {
        sw_listener_close(w->side_listener);
    }
    while (!sw_list_empty(&w->exchange_list)) {
        l = w->exchange_list.next;
        sw_exchange__drop(SW_CONTAINER(l, struct sw_exchange, link));
    }
    while (!sw_list_empty(&w->conn_list)) {
        l = w->conn_list.next;
        sw_conn__close(SW_CONTAINER(l, struct sw_conn, link));
    }
    while (!sw_list_empty(&w->tunnel_list)) {
        l = w->tunnel_list.next;
        sw_tunnel__close(SW_CONTAINER(l, struct sw_tunnel, link));
    }
    if (w->upstream != NULL) {
        sw_upstream_free(w->upstream);
    }
    sw_pool_fini(&w->conns);
    sw_pool_fini(&w->exchanges);
    sw_pool_fini(&w->tunnels);
    sw_pool_fini(&w->pieces);
    sw_alarms__free(w->alarms);
    free(w->side_table);
    sw_trust__env_fini(&w->env);
    free(w->env.visitors);
    sw_phantoms_free(w->env.phantoms);
    free(w->stats);
    mint_drop(w);
    explicit_bzero(&w->keys, sizeof(w->keys));
    w->magic = 0;
    free(w);
}

const struct sw_stats *sw_worker_stats(const struct sw_worker *w)
{
    return w->stats;
}

struct sw_token_cache_stats sw_worker_tokens(const struct sw_worker *w)
{
    if (w->env.tokens == NULL) {
        return (struct sw_token_cache_stats){0};
    }
    return sw_token_cache_stats(w->env.tokens);
}
