/* A compiled table from a file's text, and requests by hand. */
#ifndef TEST_ROUTE_HELPER_H
#define TEST_ROUTE_HELPER_H

#include "route/route_priv.h"

struct table {
    struct sw_config *config;
    struct sw_routes *routes;
};

static inline struct table table_of(struct sw_slice text)
{
    struct table t = {NULL, NULL};
    struct sw_config_errors e;

    if (sw_config_parse(text, SW_S("t.yaml"), NULL, &t.config, &e) != SW_OK) {
        for (size_t i = 0; i < e.count && i < SW_CONFIG_ERRORS_MAX; i++) {
            (void)fprintf(stderr, "t.yaml:%u:%u: %.*s\n", e.list[i].line, e.list[i].column,
                          SW_SARG(e.list[i].text));
        }
        abort();
    }
    sw_config_errors_fini(&e);
    t.routes = sw_routes_new(t.config);
    SW_ASSERT(t.routes != NULL);
    return t;
}

static inline void table_free(struct table *t)
{
    sw_routes_free(t->routes);
    sw_config_free(t->config);
}

/* target: path, or path?query. */
static inline struct sw_head head_of(const char *method, const char *host, const char *target,
                                     struct sw_field *fields, uint32_t field_count)
{
    struct sw_head h = {.fields = fields, .field_count = field_count, .field_max = field_count};

    h.method_name = sw_slice_cstr(method);
    h.host = sw_slice_cstr(host);
    h.target = sw_slice_cstr(target);
    if (sw_slice_cut(h.target, '?', &h.path, &h.query) == false) {
        h.query = (struct sw_slice){NULL, 0};
    }
    return h;
}

#endif
