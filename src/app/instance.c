/* app/instance.c - the table of instances: entries, states, references.
 *
 * Room       app/. Written by the main thread, read by all workers without a lock.
 * Flow       life.c claims an entry and moves its state; balance.c and sw_app_find take it.
 *
 * The states, and who moves them (life.c, through sw_instance__set):
 *
 *     NONE -> STARTING -> HEALTHY <-> UNHEALTHY
 *       ^        |   \       |  \        /  |
 *       |        |    \------|-> DRAINING --+     DRAINING -> HEALTHY, UNHEALTHY: undrain of a
 * server |        v           v      v             STOPPING -> STARTING: undrain of a server
 *       +---- STOPPING <-----+------+
 *
 * How an entry is used again while workers read: a worker adds its reference first and looks at the
 * state after; the main thread sets NONE first and looks at the references after (all sequentially
 * consistent). So either the worker sees a state that does not serve and lets go, or the main
 * thread sees the reference and takes another entry. Only who saw a serving state with a reference
 * in hand reads the plain fields; they were written before that state was stored.
 */
#include "app/app_priv.h"

static const uint32_t instance_arrows[SW_INSTANCE_STATE_COUNT] = {
    [SW_INSTANCE_NONE] = SW_BIT(SW_INSTANCE_STARTING),
    [SW_INSTANCE_STARTING] = SW_BIT(SW_INSTANCE_HEALTHY) | SW_BIT(SW_INSTANCE_UNHEALTHY) |
                             SW_BIT(SW_INSTANCE_DRAINING) | SW_BIT(SW_INSTANCE_STOPPING),
    [SW_INSTANCE_HEALTHY] =
        SW_BIT(SW_INSTANCE_UNHEALTHY) | SW_BIT(SW_INSTANCE_DRAINING) | SW_BIT(SW_INSTANCE_STOPPING),
    [SW_INSTANCE_UNHEALTHY] =
        SW_BIT(SW_INSTANCE_HEALTHY) | SW_BIT(SW_INSTANCE_DRAINING) | SW_BIT(SW_INSTANCE_STOPPING),
    [SW_INSTANCE_DRAINING] =
        SW_BIT(SW_INSTANCE_HEALTHY) | SW_BIT(SW_INSTANCE_UNHEALTHY) | SW_BIT(SW_INSTANCE_STOPPING),
    [SW_INSTANCE_STOPPING] = SW_BIT(SW_INSTANCE_NONE) | SW_BIT(SW_INSTANCE_STARTING),
};

static const char *const instance_names[SW_INSTANCE_STATE_COUNT] = {
    [SW_INSTANCE_NONE] = "none",         [SW_INSTANCE_STARTING] = "starting",
    [SW_INSTANCE_HEALTHY] = "healthy",   [SW_INSTANCE_UNHEALTHY] = "unhealthy",
    [SW_INSTANCE_DRAINING] = "draining", [SW_INSTANCE_STOPPING] = "stopping",
};

const char *sw_instance_state_name(enum sw_instance_state s)
{
    SW_ASSERT((unsigned)s < SW_INSTANCE_STATE_COUNT);
    return instance_names[s];
}

/* ---- the table ------------------------------------------------------------------------------- */

static uint32_t table_entries(const struct sw_config_app *c)
{
    return c->command != NULL ? 2 * c->replicas + APP_SPARE_ENTRIES : (uint32_t)c->server_count;
}

static void table_init(struct sw_apps *a, uint32_t app, struct sw_instance *first)
{
    struct app_table *t = &a->tables[app];
    const struct sw_config_app *c = &a->config->apps[app];

    t->config = c;
    t->instances = first;
    t->count = table_entries(c);
    t->spawned = c->command != NULL;
    atomic_store(&t->inline_bytes, UINT32_MAX);
    for (uint32_t k = 0; k < t->count; k++) {
        struct sw_instance *i = &first[k];

        i->magic = INSTANCE_MAGIC;
        i->app = app;
        i->weight = t->spawned ? 1 : c->servers[k].weight;
        if (k > 0 && i->weight != first[0].weight) {
            t->weighted = true;
        }
    }
    for (size_t r = 0; r < a->config->route_count; r++) {
        const struct sw_config_route *route = &a->config->routes[r];

        if (route->app == app && route->placement == SW_PLACE_STICKY &&
            route->sticky.idle_s > t->idle_s_max) {
            t->idle_s_max = route->sticky.idle_s;
        }
        if (route->app == app && route->placement == SW_PLACE_SESSION) {
            t->probe_bytes = SW_MAX(t->probe_bytes, route->session.inline_bytes);
        }
    }
}

struct sw_apps *sw_apps_new(const struct sw_config *config)
{
    struct sw_apps *a;
    size_t total = 0;
    uint32_t sticky = 0;

    SW_ASSERT(config != NULL);
    SW_ASSERT(config->app_count <= SW_APPS_MAX);
    for (size_t k = 0; k < config->app_count; k++) {
        SW_ASSERT(config->apps[k].replicas <= SW_REPLICAS_MAX);
        SW_ASSERT(config->apps[k].server_count <= SW_REPLICAS_MAX);
        total += table_entries(&config->apps[k]);
    }
    for (size_t r = 0; r < config->route_count; r++) {
        sticky += config->routes[r].placement == SW_PLACE_STICKY;
    }
    a = calloc(1, sizeof *a);
    if (a == NULL) {
        return NULL;
    }
    if (pthread_mutex_init(&a->seats_lock, NULL) != 0) {
        free(a);
        return NULL;
    }
    a->magic = APPS_MAGIC;
    a->config = config;
    a->instance_count = (uint32_t)total;
    a->app_count = (uint32_t)config->app_count;
    a->tables = calloc(config->app_count + 1, sizeof *a->tables);
    a->instances = aligned_alloc(_Alignof(struct sw_instance), (total + 1) * sizeof *a->instances);
    a->ledger = sw_ledger__new(a, sticky > 0 ? SW_LEDGER_MAX : 1);
    if (a->tables == NULL || a->instances == NULL || a->ledger == NULL) {
        sw_apps_free(a);
        return NULL;
    }
    memset((void *)a->instances, 0, (total + 1) * sizeof *a->instances);
    total = 0;
    for (uint32_t k = 0; k < a->app_count; k++) {
        table_init(a, k, a->instances + total);
        total += a->tables[k].count;
    }
    return a;
}

void sw_apps_free(struct sw_apps *a)
{
    if (a == NULL) {
        return;
    }
    SW_ASSERT(a->magic == APPS_MAGIC);
    sw_ledger__free(a->ledger);
    free(a->instances);
    free(a->tables);
    pthread_mutex_destroy(&a->seats_lock);
    a->magic = 0;
    free(a);
}

/* ---- the main thread's side ------------------------------------------------------------------ */

void sw_instance__set(struct sw_instance *i, enum sw_instance_state to)
{
    enum sw_instance_state from = sw_instance__state(i);

    SW_ASSERT(i->magic == INSTANCE_MAGIC);
    SW_ASSERT((unsigned)to < SW_INSTANCE_STATE_COUNT);
    SW_ASSERT((instance_arrows[from] & SW_BIT(to)) != 0);
    SW_ASSERT(to == SW_INSTANCE_NONE || i->incarnation != 0);
    atomic_store(&i->state, (uint32_t)to);
}

bool sw_instance__unheld(const struct sw_instance *i)
{
    return atomic_load(&i->refs) == 0 && atomic_load(&i->in_flight) == 0;
}

struct sw_instance *sw_instance__claim(struct sw_apps *a, uint32_t app, uint32_t slot,
                                       uint64_t incarnation)
{
    struct app_table *t = sw_apps__table(a, app);

    SW_ASSERT(incarnation != 0);
    SW_ASSERT(slot > 0);
    for (uint32_t k = 0; k < t->count; k++) {
        struct sw_instance *i = &t->instances[k];

        if (!t->spawned && k + 1 != slot) {
            continue; /* a server's entry is its own: weights belong to entries */
        }
        if (sw_instance__state(i) != SW_INSTANCE_NONE || !sw_instance__unheld(i)) {
            continue;
        }
        atomic_store(&i->slot, slot);
        atomic_store(&i->incarnation, incarnation);
        atomic_store(&i->sessions, 0u);
        atomic_store(&i->failures, 0u);
        atomic_store(&i->unlisted_until_unix_s, 0);
        atomic_store(&i->connections, 0u);
        atomic_store(&i->waiting, 0u);
        atomic_store(&i->answered, 0u);
        atomic_store(&i->failed_total, 0u);
        i->addr = (struct sw_addr){.len = 0};
        i->address[0] = '\0';
        i->pid = 0;
        memset(&i->life, 0, sizeof i->life);
        (void)snprintf(i->name, sizeof i->name, "%.*s/%u", SW_SARG(t->config->name), slot);
        if (k >= atomic_load(&t->used)) {
            atomic_store(&t->used, k + 1);
        }
        return i;
    }
    return NULL;
}

struct sw_instance *sw_apps__by_incarnation(struct sw_apps *a, uint32_t app, uint64_t incarnation)
{
    struct app_table *t = sw_apps__table(a, app);

    for (uint32_t k = 0; k < t->count; k++) {
        if (sw_instance__state(&t->instances[k]) != SW_INSTANCE_NONE &&
            t->instances[k].incarnation == incarnation) {
            return &t->instances[k];
        }
    }
    return NULL;
}

/* FNV-1a, then mixed. Nobody outside chooses the input, and a collision inside one app (2^-64 a
 * pair) would only send visitors of two servers to the first of them. */
uint64_t sw_apps__server_id(struct sw_slice app, struct sw_slice address)
{
    uint64_t h = 0xcbf29ce484222325ull;

    for (size_t k = 0; k < app.len; k++) {
        h = (h ^ (unsigned char)app.ptr[k]) * 0x100000001b3ull;
    }
    h = (h ^ '/') * 0x100000001b3ull;
    for (size_t k = 0; k < address.len; k++) {
        h = (h ^ (unsigned char)address.ptr[k]) * 0x100000001b3ull;
    }
    h = sw_app__mix(h);
    return h != 0 ? h : 1;
}

void sw_apps_visit(struct sw_apps *a, sw_instance_fn *fn, void *arg)
{
    SW_ASSERT(a->magic == APPS_MAGIC);
    for (uint32_t k = 0; k < a->instance_count; k++) {
        if (sw_instance__state(&a->instances[k]) != SW_INSTANCE_NONE) {
            fn(arg, &a->instances[k]);
        }
    }
}

/* ---- the workers' side ----------------------------------------------------------------------- */

void sw_instance_ref(struct sw_instance *i)
{
    SW_ASSERT(i->magic == INSTANCE_MAGIC);
    atomic_fetch_add(&i->refs, 1);
}

void sw_instance_unref(struct sw_instance *i)
{
    uint32_t before;

    SW_ASSERT(i->magic == INSTANCE_MAGIC);
    before = atomic_fetch_sub(&i->refs, 1);
    SW_ASSERT(before > 0);
}

bool sw_instance__take(struct sw_instance *i, uint64_t incarnation, bool bound)
{
    enum sw_instance_state s;

    SW_ASSERT(i->magic == INSTANCE_MAGIC);
    atomic_fetch_add(&i->refs, 1);
    atomic_fetch_add(&i->in_flight, 1);
    s = sw_instance__state(i);
    if ((bound ? sw_instance__serves(s) : s == SW_INSTANCE_HEALTHY) &&
        (incarnation == 0 || i->incarnation == incarnation)) {
        return true;
    }
    atomic_fetch_sub(&i->in_flight, 1);
    atomic_fetch_sub(&i->refs, 1);
    return false;
}

struct sw_instance *sw_app_find(struct sw_apps *a, uint32_t app, uint64_t incarnation,
                                bool *ret_gone)
{
    struct app_table *t = sw_apps__table(a, app);
    bool known =
        atomic_load(&t->known); /* before the search: what is adopted later is not missed */
    uint32_t used = atomic_load(&t->used);

    SW_ASSERT(ret_gone != NULL);
    for (uint32_t k = 0; k < used; k++) {
        struct sw_instance *i = &t->instances[k];
        enum sw_instance_state s;

        if (i->incarnation != incarnation) {
            continue;
        }
        if (sw_instance__take(i, incarnation, true)) {
            return i;
        }
        s = sw_instance__state(i);
        if (i->incarnation == incarnation &&
            (s == SW_INSTANCE_STARTING || s == SW_INSTANCE_UNHEALTHY || sw_instance__serves(s))) {
            *ret_gone = false; /* serving by now: the next try will find it */
            return NULL;
        }
        break;
    }
    *ret_gone = known;
    return NULL;
}

static void instance_release(struct sw_instance *i)
{
    uint32_t before = atomic_fetch_sub(&i->in_flight, 1);

    SW_ASSERT(before > 0);
    sw_instance_unref(i);
}

void sw_instance_done(struct sw_instance *i, bool ok)
{
    SW_ASSERT(i->magic == INSTANCE_MAGIC);
    if (ok) {
        atomic_fetch_add_explicit(&i->answered, 1, memory_order_relaxed);
        if (atomic_load_explicit(&i->failures, memory_order_relaxed) != 0) {
            atomic_store_explicit(&i->failures, 0u, memory_order_relaxed);
        }
    } else {
        atomic_fetch_add_explicit(&i->failed_total, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&i->failures, 1, memory_order_relaxed);
    }
    instance_release(i);
}

void sw_instance_done_quiet(struct sw_instance *i)
{
    SW_ASSERT(i->magic == INSTANCE_MAGIC);
    instance_release(i);
}

bool sw_app_any(struct sw_apps *a, uint32_t app, bool *ret_starting)
{
    struct app_table *t = sw_apps__table(a, app);
    uint32_t used = atomic_load(&t->used);
    bool starting = !atomic_load(&t->known) || atomic_load(&t->expected) > 0;

    SW_ASSERT(ret_starting != NULL);
    for (uint32_t k = 0; k < used; k++) {
        enum sw_instance_state s = sw_instance__state(&t->instances[k]);

        if (s == SW_INSTANCE_HEALTHY && t->instances[k].weight > 0) {
            *ret_starting = false;
            return true;
        }
        starting |= s == SW_INSTANCE_STARTING;
    }
    *ret_starting = starting;
    return false;
}

uint32_t sw_app_inline_bytes(const struct sw_apps *a, uint32_t app)
{
    SW_ASSERT(a->magic == APPS_MAGIC);
    SW_ASSERT(app < a->app_count);
    return atomic_load_explicit(&a->tables[app].inline_bytes, memory_order_relaxed);
}

bool sw_apps_ready(const struct sw_apps *a)
{
    SW_ASSERT(a->magic == APPS_MAGIC);
    for (uint32_t app = 0; app < a->app_count; app++) {
        const struct app_table *t = &a->tables[app];
        uint32_t used = atomic_load(&t->used);
        bool any = false;

        for (uint32_t k = 0; k < used && !any; k++) {
            any = sw_instance__state(&t->instances[k]) == SW_INSTANCE_HEALTHY;
        }
        if (!any) {
            return false;
        }
    }
    return true;
}
