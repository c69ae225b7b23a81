/* How long a match takes: 1000 routes as a large service has them, against a walk over all of them.
 */
#include <time.h>

#include "base/rng.h"
#include "helper.h"

#define ROUTES  1000u
#define ROUNDS  2000000u
#define TARGETS 64u

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SW_NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint32_t walk(const struct sw_routes *r, const struct sw_head *h)
{
    char buf[SW_HOST_BYTES_MAX];
    struct sw_slice host = sw_pattern__host(h->host, buf);

    for (uint32_t i = 0; i < r->one_count; i++) {
        if (sw_pattern__host_matches(&r->ones[i], host) &&
            sw_pattern__path_matches(&r->ones[i], h->path) &&
            sw_pattern__headers_match(r->ones[i].config, h) &&
            sw_pattern__method_matches(r->ones[i].config, h->method_name)) {
            return r->ones[i].config->line;
        }
    }
    return 0;
}

int main(void)
{
    static char text[ROUTES * 128], paths[TARGETS][64];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_head heads[TARGETS];
    struct sw_rng rng;
    struct table t;
    uint64_t start, sum = 0, naive = 0;

    sw_rng_seed(&rng, 1);
    sw_out_lit(&out, "apps: { a: { command: [x] } }\nroutes:\n- { path: /*, app: a }\n");
    for (unsigned i = 1; i < ROUTES; i++) {
        sw_out_printf(&out, "- { path: '/api/v%u/things%u/{id}%s', host: '%s', app: a }\n", i % 3,
                      i, i % 2 == 0 ? "/*" : "", i % 5 == 0 ? "*.shop.example" : "api.example");
    }
    t = table_of(sw_out_done(&out));
    for (unsigned i = 0; i < TARGETS; i++) {
        unsigned route = (unsigned)sw_rng_below(&rng, ROUTES);

        (void)snprintf(paths[i], sizeof(paths[i]), "/api/v%u/things%u/42", route % 3, route);
        heads[i] =
            head_of("GET", route % 5 == 0 ? "www.shop.example" : "api.example", paths[i], NULL, 0);
    }
    start = now_ns();
    for (unsigned i = 0; i < ROUNDS; i++) {
        sum += sw_route_match(t.routes, &heads[i % TARGETS]).route->line;
    }
    printf("compiled: %.0f ns a match, %u routes\n", (double)(now_ns() - start) / ROUNDS, ROUTES);
    start = now_ns();
    for (unsigned i = 0; i < ROUNDS / 100; i++) {
        naive += walk(t.routes, &heads[i % TARGETS]);
    }
    printf("a walk:   %.0f ns a match\n", (double)(now_ns() - start) / (ROUNDS / 100));
    printf("(%llu %llu)\n", (unsigned long long)sum, (unsigned long long)naive);
    table_free(&t);
    return 0;
}
