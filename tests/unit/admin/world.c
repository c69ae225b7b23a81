/* world.c - see world.h. It stands in for gateway/, and for what of app/ and placement/ would want
 * a whole gateway below it. The store is a real one. */
#include "world.h"

static struct sw_gateway *current;

const double sw_latency_bounds_s[SW_LATENCY_BUCKETS] = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
};

uint64_t world_key(uint32_t app, enum sw_placement_kind placement, unsigned status,
                   enum sw_verdict verdict)
{
    return 1u | (uint64_t)app << 8 | (uint64_t)placement << 24 | (uint64_t)status << 32 |
           (uint64_t)verdict << 48;
}

struct sw_stats_key sw_stats_unpack(uint64_t key)
{
    return (struct sw_stats_key){
        (uint32_t)(key >> 8) & 0xffffu, (enum sw_placement_kind)((key >> 24) & 0xffu),
        (unsigned)(key >> 32) & 0xffffu, (enum sw_verdict)((key >> 48) & 0xffu)};
}

static void instance_add(struct sw_gateway *g, uint32_t app, uint32_t slot,
                         enum sw_instance_state state)
{
    struct sw_instance *i = &g->instances[g->instance_count++];

    i->app = app;
    i->slot = slot;
    i->state = state;
    i->incarnation = 0x9f3c000000000000u + g->instance_count;
    i->pid = 100 + (int32_t)g->instance_count;
    i->in_flight = 1;
    i->sessions = 2;
    i->connections = 3;
    i->answered = 40;
    i->failed_total = 5;
    i->life.healthy_ns = state == SW_INSTANCE_STARTING ? 0 : g->instance_count;
    (void)snprintf(i->name, sizeof(i->name), "%.*s/%u", SW_SARG(g->apps[app].name), slot);
    (void)snprintf(i->address, sizeof(i->address), "127.0.0.1:%zu", 20000 + g->instance_count);
}

struct sw_gateway *world_new(void)
{
    struct sw_gateway *g = aligned_alloc(64, (sizeof(*g) + 63) & ~(size_t)63);

    SW_ASSERT(g != NULL);
    SW_ASSERT(current == NULL);
    memset(g, 0, sizeof(*g));
    current = g;
    g->config.apps = g->apps;
    g->config.app_count = 2;
    g->apps[0].name = SW_S("shop");
    g->apps[1].name = SW_S("blog");
    g->config.routes = g->routes;
    g->config.route_count = 3;
    g->routes[0].placement = SW_PLACE_STICKY;
    g->routes[1].placement = SW_PLACE_SESSION;
    g->routes[1].session.max_bytes = 65536;
    g->routes[1].session.idle_s = 1800;
    g->routes[1].session.absolute_s = 86400;
    g->routes[1].idempotency.mode = SW_IDEM_OPTIONAL;
    g->routes[1].idempotency.answer_bytes_max = 100000;
    sw_budget_init(&g->large, 1u << 20);
    g->routes[2].app = 1;
    g->workers = 2;
    g->ready = true;
    instance_add(g, 0, 2, SW_INSTANCE_HEALTHY);
    instance_add(g, 0, 1, SW_INSTANCE_DRAINING);
    instance_add(g, 0, 1, SW_INSTANCE_STARTING);
    instance_add(g, 1, 1, SW_INSTANCE_HEALTHY);
    return g;
}

void world_free(struct sw_gateway *g)
{
    SW_ASSERT(current == g);
    current = NULL;
    free(g);
}

const struct sw_config *sw_gateway_config(const struct sw_gateway *g)
{
    return &g->config;
}

struct sw_apps *sw_gateway_apps(const struct sw_gateway *g)
{
    return (struct sw_apps *)(uintptr_t)g;
}

struct sw_life *sw_gateway_life(const struct sw_gateway *g)
{
    return (struct sw_life *)(uintptr_t)g;
}

struct sw_store *sw_gateway_store(const struct sw_gateway *g)
{
    return g->store;
}

size_t sw_gateway_workers(const struct sw_gateway *g)
{
    return g->workers;
}

const struct sw_stats *sw_gateway_stats(const struct sw_gateway *g, size_t worker)
{
    return &g->stats[worker];
}

struct sw_loop *sw_gateway_worker_loop(const struct sw_gateway *g, size_t worker)
{
    SW_ASSERT(worker < g->workers);
    return g->loop;
}

bool sw_gateway_ready(const struct sw_gateway *g)
{
    return g->ready;
}

const struct sw_budget *sw_gateway_large(const struct sw_gateway *g)
{
    return &g->large;
}

const struct sw_keyring *sw_gateway_keys(const struct sw_gateway *g)
{
    return &g->keys;
}

const struct sw_keys_rules *sw_gateway_keys_in(const struct sw_gateway *g)
{
    return &g->rules;
}

bool sw_gateway_keys_stale(const struct sw_gateway *g)
{
    return g->stale;
}

struct sw_key_used sw_gateway_key_used(const struct sw_gateway *g, uint32_t id)
{
    (void)g;
    return (struct sw_key_used){10 * id, 20 * id, 1760000000};
}

bool sw_gateway_stopping(const struct sw_gateway *g)
{
    return g->stopping;
}

const struct sw_keysets *sw_gateway_keysets(const struct sw_gateway *g)
{
    (void)g;
    return NULL;
}

struct sw_token_cache_stats sw_gateway_tokens(const struct sw_gateway *g)
{
    (void)g;
    return (struct sw_token_cache_stats){.hits = 3, .misses = 2};
}

uint64_t sw_gateway_log_dropped(const struct sw_gateway *g)
{
    (void)g;
    return 7;
}

const char *sw_verdict_name(enum sw_verdict v)
{
    static const char *const names[SW_VERDICT_COUNT] = {
        "none",     "fresh",   "kept", "updated",    "moved",
        "restored", "expired", "lost", "conflicted", "revoked",
    };
    return names[v];
}

const struct sw_placement *sw_placement_of(enum sw_placement_kind kind)
{
    static const struct sw_placement table[SW_PLACE_COUNT] = {
        {.name = "none"},
        {.name = "sticky"},
        {.name = "session"},
    };
    return &table[kind];
}

void sw_apps_visit(struct sw_apps *a, sw_instance_fn *fn, void *arg)
{
    (void)a;
    for (size_t i = 0; i < current->instance_count; i++) {
        fn(arg, &current->instances[i]);
    }
}

const char *sw_instance_state_name(enum sw_instance_state s)
{
    static const char *const names[SW_INSTANCE_STATE_COUNT] = {
        "none", "starting", "healthy", "unhealthy", "draining", "stopping",
    };
    return names[s];
}

static enum sw_err command(const char *word, struct sw_slice name)
{
    (void)snprintf(current->command, sizeof(current->command), "%s %.*s", word, SW_SARG(name));
    current->command_count++;
    return current->command_err;
}

enum sw_err sw_life_roll(struct sw_life *l, struct sw_slice app)
{
    (void)l;
    return command("roll", app);
}

enum sw_err sw_life_drain(struct sw_life *l, struct sw_slice instance)
{
    (void)l;
    return command("drain", instance);
}

enum sw_err sw_life_undrain(struct sw_life *l, struct sw_slice instance)
{
    (void)l;
    return command("undrain", instance);
}

enum sw_err sw_life_kill(struct sw_life *l, struct sw_slice instance)
{
    (void)l;
    return command("kill", instance);
}
