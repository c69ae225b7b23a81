/* Any text: a snapshot, or complaints that may be printed; never both, never neither. What was
 * accepted compiles to routes that answer requests, the way a walk over all routes would.
 * Files are refused, names are not looked up, the environment is one variable. */
#include "config/config_priv.h"
#include "route/route_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *fuzz_env(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "V") == 0 ? "v1" : NULL;
}

static const struct sw_config_world fuzz_world = {fuzz_env, NULL, NULL, false};

static void errors_are_printable(const struct sw_config_errors *e)
{
    for (size_t i = 0; i < e->count && i < SW_CONFIG_ERRORS_MAX; i++) {
        SW_ASSERT(e->list[i].text.len > 0);
        for (size_t b = 0; b < e->list[i].text.len; b++) {
            SW_ASSERT((unsigned char)e->list[i].text.ptr[b] >= 0x20);
        }
        SW_ASSERT(i == 0 || e->list[i - 1].line <= e->list[i].line);
    }
}

static const struct sw_config_route *walk(const struct sw_routes *r, const struct sw_head *h)
{
    char buf[SW_HOST_BYTES_MAX];
    struct sw_slice host = sw_pattern__host(h->host, buf);

    for (uint32_t i = 0; i < r->one_count; i++) {
        if (sw_pattern__host_matches(&r->ones[i], host) &&
            sw_pattern__path_matches(&r->ones[i], h->path) &&
            sw_pattern__headers_match(r->ones[i].config, h) &&
            sw_pattern__method_matches(r->ones[i].config, h->method_name)) {
            return r->ones[i].config;
        }
    }
    return NULL;
}

static void ask(const struct sw_routes *r, struct sw_slice host, struct sw_slice path)
{
    static char text[1u << 20];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_head h = {.method_name = SW_S("GET"), .host = host, .path = path, .target = path};
    struct sw_routed m = sw_route_match(r, &h);

    SW_ASSERT((m.err == SW_OK) == (m.route != NULL));
    if (sw_slice_eq(path, SW_S("*"))) {
        return; /* OPTIONS *: routed as "/" is, which another input asks */
    }
    SW_ASSERT(m.route == (path.len > 0 && path.ptr[0] == '/' ? walk(r, &h) : NULL));
    if (m.err == SW_OK) {
        struct sw_slice cut = sw_route_strip(m.route, path);

        SW_ASSERT(cut.len <= path.len);
        SW_ASSERT(cut.len == path.len || path.ptr[cut.len] == '/');
    }
    SW_ASSERT(m.err != SW_E_NO_METHOD || m.allow.len > 0);
    sw_route_explain(r, &h, &out);
}

static void use(const struct sw_config *c)
{
    struct sw_routes *r = sw_routes_new(c);
    char block[4096];
    struct sw_arena arena;
    struct sw_addr peer = {.in = {.sin_family = AF_INET}, .len = sizeof(peer.in)};

    SW_ASSERT(r != NULL);
    sw_arena_init(&arena, block, sizeof(block));
    (void)sw_routes_ambiguous(r, &arena);
    (void)sw_config_trusted(c, &peer);
    for (size_t i = 0; i < c->route_count && i < 16; i++) {
        ask(r, c->routes[i].host, c->routes[i].path); /* {name} as text is a segment too */
        ask(r, SW_S("a.b.example:80"), c->routes[i].path);
    }
    ask(r, SW_S(""), SW_S("/"));
    ask(r, SW_S("x"), SW_S("*"));
    sw_routes_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *in = malloc(size + (size == 0)); /* an exact-size block: one byte too far is seen */
    struct sw_config_errors e;
    struct sw_config *c = NULL;
    enum sw_err err;

    SW_ASSERT(in != NULL);
    if (size > 0) {
        memcpy(in, data, size);
    }
    err = sw_config__parse(sw_slice_of(in, size), SW_S("fuzz.yaml"), NULL, &fuzz_world, &c, &e);
    free(in); /* the snapshot borrows nothing */
    SW_ASSERT((err == SW_OK) == (c != NULL));
    SW_ASSERT((err == SW_OK) == (e.count == 0));
    errors_are_printable(&e);
    if (c != NULL) {
        use(c);
    }
    sw_config_errors_fini(&e);
    sw_config_free(c);
    return 0;
}
