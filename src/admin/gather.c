/* admin/gather.c - the gateway's counters -> one plain snapshot.
 *
 * Room       admin/. Main thread: instances belong to it; the counters of workers are read relaxed
 *            while they are written, so two numbers of one snapshot may be a moment apart.
 * Flow       gateway/'s accessors -> snapshot -> metrics.c, answers.c.
 */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "admin/admin_priv.h"

#ifndef SW_VERSION
#define SW_VERSION "unknown"
#endif

/* An app's slots twice (old and new while rolling), and some that are still held: as app/ has them.
 */
#define INSTANCES_OF_APP (2u * SW_REPLICAS_MAX + 8u)

static uint64_t peek(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* ---- sorting and finding: pure --------------------------------------------------------------- */

static bool instance_less(const struct sw_admin_instance *a, const struct sw_admin_instance *b)
{
    if (a->app != b->app) {
        return a->app < b->app;
    }
    if (a->slot != b->slot) {
        return a->slot < b->slot;
    }
    if (a->age_ns != b->age_ns) {
        return a->age_ns > b->age_ns;
    }
    return a->incarnation < b->incarnation; /* so that the order never depends on the table's */
}

static const size_t shell_gaps[] = {4193, 1577, 701, 301, 132, 57, 23, 10, 4, 1};

void sw_admin__sort_instances(struct sw_admin_instance *list, size_t count)
{
    for (size_t g = 0; g < SW_COUNTOF(shell_gaps); g++) {
        size_t gap = shell_gaps[g];

        for (size_t i = gap; i < count; i++) {
            struct sw_admin_instance x = list[i];
            size_t at = i;

            for (; at >= gap && instance_less(&x, &list[at - gap]); at -= gap) {
                list[at] = list[at - gap];
            }
            list[at] = x;
        }
    }
}

void sw_admin__sort_rows(struct sw_admin_row *list, size_t count)
{
    for (size_t g = 0; g < SW_COUNTOF(shell_gaps); g++) {
        size_t gap = shell_gaps[g];

        for (size_t i = gap; i < count; i++) {
            struct sw_admin_row x = list[i];
            size_t at = i;

            for (; at >= gap && x.key < list[at - gap].key; at -= gap) {
                list[at] = list[at - gap];
            }
            list[at] = x;
        }
    }
}

struct sw_admin_row *sw_admin__row(struct sw_admin_snapshot *s, uint64_t key)
{
    size_t at = (size_t)((key * 0x9e3779b97f4a7c15ull) >> 32) & (ADMIN_ROWS_INDEX - 1);

    SW_ASSERT(key != 0);
    for (; s->row_index[at] != 0; at = (at + 1) & (ADMIN_ROWS_INDEX - 1)) {
        struct sw_admin_row *r = &s->rows[s->row_index[at] - 1];

        if (r->key == key) {
            return r;
        }
    }
    if (s->row_count == ADMIN_ROWS_MAX) {
        return NULL;
    }
    s->rows[s->row_count] = (struct sw_admin_row){.key = key};
    s->row_count++;
    s->row_index[at] = (uint16_t)s->row_count;
    return &s->rows[s->row_count - 1];
}

/* ---- at open --------------------------------------------------------------------------------- */

/* Reads a small file of /proc whole; the length, 0: could not. */
static size_t proc_read(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0) {
        return 0;
    }
    n = read(fd, buf, size);
    close(fd);
    return n > 0 ? (size_t)n : 0;
}

/* proc(5): field 22 of stat, in ticks since boot; the program's name in (...) may hold anything. */
static double process_start_unix_s(void)
{
    struct timespec boot, wall;
    char buf[1024];
    struct sw_slice rest = {buf, proc_read("/proc/self/stat", buf, sizeof(buf))};
    struct sw_slice field = {NULL, 0};
    uint64_t ticks = 0;
    size_t name_end = 0;
    double now, up;

    for (size_t i = 0; i < rest.len; i++) {
        name_end = buf[i] == ')' ? i + 2 : name_end;
    }
    rest = sw_slice_tail(rest, name_end);
    for (int i = 3; i <= 22; i++) {
        (void)sw_slice_cut(rest, ' ', &field, &rest);
    }
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    now = (double)wall.tv_sec + (double)wall.tv_nsec / 1e9;
    up = (double)boot.tv_sec + (double)boot.tv_nsec / 1e9;
    if (!sw_slice_u64(field, &ticks)) {
        return now;
    }
    return now - up + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

bool sw_admin__snapshot_init(struct sw_admin *a)
{
    const struct sw_config *config = sw_gateway_config(a->gateway);
    struct sw_admin_snapshot *s = calloc(1, sizeof(*s));

    SW_ASSERT(a->snapshot == NULL);
    SW_ASSERT(config->app_count <= SW_APPS_MAX);
    if (s == NULL) {
        return false;
    }
    a->snapshot = s;
    s->workers = (uint32_t)sw_gateway_workers(a->gateway);
    s->loop_max = s->workers + 1;
    s->instance_max = config->app_count * INSTANCES_OF_APP;
    s->loops = calloc(s->loop_max, sizeof(*s->loops));
    s->instances = calloc(s->instance_max + 1, sizeof(*s->instances));
    if (s->loops == NULL || s->instances == NULL) {
        sw_admin__snapshot_fini(a);
        return false;
    }
    s->version = SW_VERSION;
    s->engine = sw_loop_engine(a->loop);
    s->latency_bounds_s = sw_latency_bounds_s;
    for (size_t p = 0; p < SW_PLACE_COUNT; p++) {
        s->placements[p] = sw_placement_of((enum sw_placement_kind)p)->name;
    }
    for (size_t n = 0; n < SW_INSTANCE_STATE_COUNT; n++) {
        s->states[n] = sw_instance_state_name((enum sw_instance_state)n);
    }
    for (size_t e = 0; e < SW_E_COUNT; e++) {
        s->error_labels[e] = sw_err_label((enum sw_err)e);
    }
    s->app_count = config->app_count;
    for (size_t i = 0; i < config->app_count; i++) {
        s->apps[i].name = config->apps[i].name;
    }
    s->process.start_unix_s = process_start_unix_s();
    return true;
}

void sw_admin__snapshot_fini(struct sw_admin *a)
{
    if (a->snapshot != NULL) {
        free(a->snapshot->loops);
        free(a->snapshot->instances);
        free(a->snapshot);
        a->snapshot = NULL;
    }
}

/* ---- apps ------------------------------------------------------------------------------------ */

static void instance_add(void *arg, const struct sw_instance *i)
{
    struct sw_admin *a = arg;
    struct sw_admin_snapshot *s = a->snapshot;
    struct sw_admin_instance *to;
    uint64_t now_ns = sw_loop_now_ns(a->loop);

    if (s->instance_count == s->instance_max || i->app >= s->app_count) {
        return; /* app/ holds no more; if it ever does, pages show fewer */
    }
    to = &s->instances[s->instance_count++];
    *to = (struct sw_admin_instance){
        .app = i->app,
        .slot = atomic_load_explicit(&i->slot, memory_order_relaxed),
        .state = (enum sw_instance_state)atomic_load_explicit(&i->state, memory_order_relaxed),
        .incarnation = peek(&i->incarnation),
        .age_ns =
            i->life.healthy_ns > 0 && now_ns > i->life.healthy_ns ? now_ns - i->life.healthy_ns : 0,
        .pid = i->pid,
        .in_flight = atomic_load_explicit(&i->in_flight, memory_order_relaxed),
        .sessions = atomic_load_explicit(&i->sessions, memory_order_relaxed),
        .connections = atomic_load_explicit(&i->connections, memory_order_relaxed),
        .waiting = atomic_load_explicit(&i->waiting, memory_order_relaxed),
        .answered = peek(&i->answered),
        .failed = peek(&i->failed_total),
    };
    SW_ASSERT(to->state < SW_INSTANCE_STATE_COUNT);
    (void)snprintf(to->name, sizeof(to->name), "%s", i->name);
    (void)snprintf(to->address, sizeof(to->address), "%s", i->address);
}

void sw_admin__gather_apps(struct sw_admin *a)
{
    struct sw_admin_snapshot *s = a->snapshot;

    s->instance_count = 0;
    sw_apps_visit(sw_gateway_apps(a->gateway), instance_add, a);
    sw_admin__sort_instances(s->instances, s->instance_count);
}

/* ---- counters of workers --------------------------------------------------------------------- */

static void latency_add(struct sw_admin_latency *to, const struct sw_latency *from)
{
    for (size_t i = 0; i < SW_COUNTOF(to->bucket); i++) {
        uint64_t n = peek(&from->bucket[i]);

        to->bucket[i] += n;
        to->shown |= n > 0;
    }
    to->sum_ns += peek(&from->sum_ns);
}

static void rows_add(struct sw_admin_snapshot *s, const struct sw_stats *from)
{
    for (size_t i = 0; i < SW_STATS_ROWS; i++) {
        uint64_t key = atomic_load_explicit(&from->rows[i].key, memory_order_acquire);
        uint64_t count = peek(&from->rows[i].count);
        struct sw_admin_row *r;

        if (key == 0) {
            continue; /* not "the end": whether rows are filled in order is the writer's business */
        }
        r = sw_admin__row(s, key);
        if (r == NULL) {
            s->rows_lost += count;
            continue;
        }
        if (r->placement == NULL) {
            struct sw_stats_key k = sw_stats_unpack(key);

            SW_ASSERT(k.placement < SW_PLACE_COUNT);
            r->app = k.app < s->app_count ? s->apps[k.app].name : SW_S("");
            r->placement = s->placements[k.placement];
            r->verdict = sw_verdict_name(k.verdict);
            r->status = k.status;
        }
        r->count += count;
    }
}

static void totals_clear(struct sw_admin_snapshot *s)
{
    s->connections_open = s->connections_total = s->exchanges_open = s->tunnels_open = 0;
    s->retries = s->retries_refused = s->reruns = s->queue_waits = 0;
    s->bytes_in = s->bytes_out = s->pins_lost = s->commits = s->rows_lost = 0;
    s->claims_new = s->claims_replayed = s->claims_running = s->claims_reused = 0;
    s->claims_unknown = s->alarms_delivered = s->alarms_failed = s->alarms_dropped = 0;
    s->reentries = s->by_ref = s->stages = s->claims_unkept = 0;
    memset(s->errors, 0, sizeof(s->errors));
}

static void totals_add(struct sw_admin_snapshot *s, const struct sw_stats *from)
{
    s->connections_open += peek(&from->connections_open);
    s->connections_total += peek(&from->connections_total);
    s->exchanges_open += peek(&from->exchanges_open);
    s->tunnels_open += peek(&from->tunnels_open);
    s->retries += peek(&from->retries);
    s->retries_refused += peek(&from->retries_refused);
    s->reruns += peek(&from->reruns);
    s->queue_waits += peek(&from->queue_waits);
    s->bytes_in += peek(&from->bytes_in);
    s->bytes_out += peek(&from->bytes_out);
    s->pins_lost += peek(&from->pins_lost);
    s->commits += peek(&from->commits);
    s->rows_lost += peek(&from->rows_lost);
    s->claims_new += peek(&from->claims_new);
    s->claims_replayed += peek(&from->claims_replayed);
    s->claims_running += peek(&from->claims_running);
    s->claims_reused += peek(&from->claims_reused);
    s->claims_unknown += peek(&from->claims_unknown);
    s->claims_unkept += peek(&from->claims_unkept);
    s->alarms_delivered += peek(&from->alarms_delivered);
    s->alarms_failed += peek(&from->alarms_failed);
    s->alarms_dropped += peek(&from->alarms_dropped);
    s->reentries += peek(&from->reentries);
    s->by_ref += peek(&from->by_ref);
    s->stages += peek(&from->stages);
    for (size_t e = 0; e < SW_E_COUNT; e++) {
        s->errors[e] += peek(&from->errors[e]);
    }
}

static void gather_large(struct sw_admin *a)
{
    const struct sw_budget *large = sw_gateway_large(a->gateway);
    struct sw_admin_snapshot *s = a->snapshot;

    s->large_used = large != NULL ? atomic_load_explicit(&large->used, memory_order_relaxed) : 0;
    s->large_max = large != NULL ? large->bytes_max : 0;
    s->large_refused = large != NULL ? peek(&large->refused) : 0;
    s->admin_used = atomic_load_explicit(&a->large.used, memory_order_relaxed);
    s->admin_max = a->large.bytes_max;
    s->admin_refused = peek(&a->large.refused);
    memcpy(s->ended, a->ended, sizeof(s->ended));
}

static void gather_keysets(struct sw_admin *a)
{
    const struct sw_keysets *keysets = sw_gateway_keysets(a->gateway);
    struct sw_admin_snapshot *s = a->snapshot;
    size_t count = keysets != NULL ? sw_keysets_count(keysets) : 0;

    s->tokens = sw_gateway_tokens(a->gateway);
    s->keyset_count = SW_MIN(count, SW_COUNTOF(s->keysets));
    for (size_t i = 0; i < s->keyset_count; i++) {
        sw_keysets_stats(keysets, i, &s->keysets[i]);
    }
}

void sw_admin__gather_keys(struct sw_admin *a)
{
    const struct sw_keyring *ring = sw_gateway_keys(a->gateway);
    const struct sw_keys_rules *rules = sw_gateway_keys_in(a->gateway);
    struct sw_admin_snapshot *s = a->snapshot;

    s->keys_stale = sw_gateway_keys_stale(a->gateway);
    s->key_count = ring->count;
    for (size_t i = 0; i < ring->count; i++) {
        const struct sw_key *key = &ring->keys[i];

        s->keys[i] = (struct sw_admin_key){
            .id = key->id,
            .state = key->state,
            .created_unix_s = key->created_unix_s,
            .retired_unix_s = key->retired_unix_s,
            .dead_unix_s = sw_keyring_dead_unix_s(ring, key, rules),
            .used = sw_gateway_key_used(a->gateway, key->id),
        };
    }
}

void sw_admin__gather_status(struct sw_admin *a)
{
    struct sw_admin_snapshot *s = a->snapshot;
    struct sw_store *store = sw_gateway_store(a->gateway);

    totals_clear(s);
    for (uint32_t w = 0; w < s->workers; w++) {
        totals_add(s, sw_gateway_stats(a->gateway, w));
    }
    if (s->workers > 0) {
        s->engine = sw_loop_engine(sw_gateway_worker_loop(a->gateway, 0));
    }
    s->uptime_ns = sw_loop_now_ns(a->loop) - a->opened_ns;
    s->ready = sw_gateway_ready(a->gateway);
    s->stopping = sw_gateway_stopping(a->gateway);
    s->log_dropped = sw_gateway_log_dropped(a->gateway);
    gather_large(a);
    gather_keysets(a);
    s->has_store = store != NULL;
    if (store != NULL) {
        s->alarm_next_unix_s = (double)sw_store_next_due_unix_ms(store) / 1e3;
        s->store_name = sw_store_name(store);
        sw_store_stats(store, &s->store);
    }
}

/* ---- the process ----------------------------------------------------------------------------- */

/* Entries of /proc/self/fd. Since Linux 6.2 its size says so; before that it is 0 and they are
 * counted, without opendir, which allocates. What is open for counting counts too, but for ".",
 * "..". */
static uint64_t fds_open(void)
{
    struct stat st;
    char buf[8192] __attribute__((aligned(8)));
    uint64_t count = 0;
    long n;
    int fd;

    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0) {
        return (uint64_t)st.st_size;
    }
    fd = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    while ((n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0) {
        for (long at = 0; at < n;) {
            unsigned short len; /* getdents64(2): ino 8, off 8, reclen 2, type 1, name */

            memcpy(&len, buf + at + 16, sizeof(len));
            count += buf[at + 19] != '.';
            at += len;
        }
    }
    close(fd);
    return count > 0 ? count - 1 : 0;
}

static void process_gather(struct sw_admin_process *p)
{
    char buf[128];
    struct sw_slice text = {buf, proc_read("/proc/self/statm", buf, sizeof(buf))};
    struct sw_slice size, resident, rest;
    uint64_t pages, page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    struct rusage usage;
    struct rlimit files;

    p->virtual_bytes = p->resident_bytes = 0;
    (void)sw_slice_cut(text, ' ', &size, &rest);
    (void)sw_slice_cut(rest, ' ', &resident, &rest);
    if (sw_slice_u64(size, &pages)) {
        p->virtual_bytes = pages * page_bytes;
    }
    if (sw_slice_u64(resident, &pages)) {
        p->resident_bytes = pages * page_bytes;
    }
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        p->cpu_us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
                    (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    }
    p->fds_max = getrlimit(RLIMIT_NOFILE, &files) == 0 ? (uint64_t)files.rlim_cur : 0;
    p->fds_open = fds_open();
}

/* ---- all ------------------------------------------------------------------------------------- */

static void latency_gather(struct sw_admin *a)
{
    const struct sw_config *config = sw_gateway_config(a->gateway);
    struct sw_admin_snapshot *s = a->snapshot;

    for (size_t i = 0; i < s->app_count; i++) {
        memset(s->apps[i].latency, 0, sizeof(s->apps[i].latency));
    }
    memset(s->gateway, 0, sizeof(s->gateway));
    for (size_t r = 0; r < config->route_count;
         r++) { /* those begin at 0, before the first exchange */
        const struct sw_config_route *route = &config->routes[r];

        SW_ASSERT(route->app < s->app_count);
        SW_ASSERT(route->placement < SW_PLACE_COUNT);
        s->apps[route->app].latency[route->placement].shown = true;
        s->gateway[route->placement].shown = true;
    }
    for (uint32_t w = 0; w < s->workers; w++) {
        const struct sw_stats *from = sw_gateway_stats(a->gateway, w);

        for (size_t p = 0; p < SW_PLACE_COUNT; p++) {
            for (size_t i = 0; i < s->app_count; i++) {
                latency_add(&s->apps[i].latency[p], &from->latency[i][p]);
            }
            latency_add(&s->gateway[p], &from->gateway[p]);
        }
    }
}

static void loops_gather(struct sw_admin *a)
{
    struct sw_admin_snapshot *s = a->snapshot;

    s->loop_count = 0;
    for (uint32_t w = 0; w < s->workers; w++) {
        struct sw_admin_loop *l = &s->loops[s->loop_count++];

        (void)snprintf(l->worker, sizeof(l->worker), "%u", w % 1000000u);
        sw_loop_stats(sw_gateway_worker_loop(a->gateway, w), &l->stats);
    }
    (void)snprintf(s->loops[s->loop_count].worker, sizeof(s->loops[0].worker), "main");
    sw_loop_stats(a->loop, &s->loops[s->loop_count].stats);
    s->loop_count++;
    SW_ASSERT(s->loop_count <= s->loop_max);
}

void sw_admin__gather_all(struct sw_admin *a)
{
    struct sw_admin_snapshot *s = a->snapshot;

    sw_admin__gather_status(a);
    sw_admin__gather_keys(a);
    sw_admin__gather_apps(a);
    latency_gather(a);
    s->row_count = 0;
    memset(s->row_index, 0, sizeof(s->row_index));
    for (uint32_t w = 0; w < s->workers; w++) {
        rows_add(s, sw_gateway_stats(a->gateway, w));
    }
    sw_admin__sort_rows(s->rows, s->row_count);
    loops_gather(a);
    process_gather(&s->process);
}
