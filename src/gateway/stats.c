/* gateway/stats.c - counters of one worker: it alone writes them, anybody reads them. */
#include "gateway/gateway_priv.h"

const double sw_latency_bounds_s[SW_LATENCY_BUCKETS] = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
};

static uint64_t pack(struct sw_stats_key k)
{
    return 1u | (uint64_t)k.app << 8 | (uint64_t)k.placement << 24 | (uint64_t)k.status << 32 |
           (uint64_t)k.verdict << 48;
}

struct sw_stats_key sw_stats_unpack(uint64_t key)
{
    return (struct sw_stats_key){
        .app = (uint32_t)(key >> 8) & 0xffffu,
        .placement = (enum sw_placement_kind)((key >> 24) & 0xffu),
        .status = (unsigned)(key >> 32) & 0xffffu,
        .verdict = (enum sw_verdict)((key >> 48) & 0xffu),
    };
}

static void count_row(struct sw_stats *s, uint64_t key)
{
    size_t at = (size_t)((key * 0x9e3779b97f4a7c15u) >> 40) % SW_STATS_ROWS;

    for (size_t i = 0; i < SW_STATS_ROWS; i++) {
        struct sw_stats_row *row = &s->rows[(at + i) % SW_STATS_ROWS];
        uint64_t has = atomic_load_explicit(&row->key, memory_order_relaxed);

        if (has == 0) {
            atomic_store_explicit(&row->key, key, memory_order_relaxed);
            has = key;
        }
        if (has == key) {
            sw_count(&row->count, 1);
            return;
        }
    }
    sw_count(&s->rows_lost, 1);
}

static void count_latency(struct sw_latency *l, uint64_t ns)
{
    size_t i = 0;

    while (i < SW_LATENCY_BUCKETS && (double)ns > sw_latency_bounds_s[i] * 1e9) {
        i++;
    }
    sw_count(&l->bucket[i], 1);
    sw_count(&l->sum_ns, ns);
}

void sw_stats__exchange(struct sw_stats *s, const struct sw_exchange *x, uint64_t now_ns)
{
    const struct sw_config_route *route = x->routed.route;
    uint64_t total = now_ns > x->begin_ns ? now_ns - x->begin_ns : 0;
    struct sw_stats_key key = {
        .app = route == NULL ? SW_APPS_MAX : route->app,
        .placement = route == NULL ? SW_PLACE_NONE : route->placement,
        .status = x->status,
        .verdict = x->ask.verdict,
    };

    count_row(s, pack(key));
    if (route != NULL) {
        count_latency(&s->latency[route->app][route->placement], total);
        count_latency(&s->gateway[route->placement], total > x->app_ns ? total - x->app_ns : 0);
    }
    if (x->err != SW_OK) {
        sw_count(&s->errors[x->err], 1);
    }
    if (x->ask.commit_ns > 0) {
        sw_count(&s->commits, 1);
    }
    if (x->ask.verdict == SW_VERDICT_LOST) {
        sw_count(&s->pins_lost, 1);
    }
    sw_count(&s->bytes_in, x->bytes_in);
    sw_count(&s->bytes_out, x->bytes_out);
}
