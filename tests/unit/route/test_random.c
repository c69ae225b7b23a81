/* Random tables and requests: the compiled matcher against a naive one that knows the order only as
 * route.h states it, and walks every route. A failure prints its seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "helper.h"

static const char *const hosts[] = {"", "a.x", "b.x", "*.x", "*.a.x", "*.b.a.x", "x"};
static const char *const asked_hosts[] = {"",      "a.x",     "A.X:80", "b.x.", "x",
                                          "c.a.x", "d.b.a.x", "b.a.x",  "y",    ".x"};
static const char *const segments[] = {"a", "b", "%61", "c%2Fd", "{p}", "{q}", "~", "%7E"};
static const char *const asked_segments[] = {"a", "b", "%61", "c%2fd", "z", "", "~", "%7e", "%zz"};
static const char *const methods[] = {"", "GET", "POST", "GET, POST", "PUT"};
static const char *const asked_methods[] = {"GET", "POST", "PUT", "HEAD"};
static const char *const headers[] = {"", "A: '1'", "A: '2'", "A: '1', B: '1'"};

#define PICK(rng, list) (list)[sw_rng_below((rng), SW_COUNTOF(list))]

static void put_route(struct sw_rng *rng, struct sw_out *out)
{
    const char *host = PICK(rng, hosts), *method = PICK(rng, methods), *header = PICK(rng, headers);
    uint64_t count = sw_rng_below(rng, 5);
    bool p = false, q = false;

    sw_out_lit(out, "- { app: a, path: '");
    for (uint64_t i = 0; i < count; i++) {
        const char *s = PICK(rng, segments);

        if ((strcmp(s, "{p}") == 0 && p) || (strcmp(s, "{q}") == 0 && q)) {
            s = "b";
        }
        p = p || strcmp(s, "{p}") == 0;
        q = q || strcmp(s, "{q}") == 0;
        sw_out_printf(out, "/%s", s);
    }
    sw_out_cstr(out, sw_rng_below(rng, 3) == 0                 ? "/*"
                     : count == 0 || sw_rng_below(rng, 6) == 0 ? "/"
                                                               : "");
    sw_out_char(out, '\'');
    if (host[0] != '\0') {
        sw_out_printf(out, ", host: '%s'", host);
    }
    if (method[0] != '\0') {
        sw_out_printf(out, ", methods: [%s]", method);
    }
    if (header[0] != '\0') {
        sw_out_printf(out, ", headers: { %s }", header);
    }
    sw_out_lit(out, " }\n");
}

/* ---- the naive one
 * -------------------------------------------------------------------------------- */

struct list {
    char items[40][40];
    size_t count;
};

/* "/a/b" -> a, b; decoded where that means nothing; a {name} is kept. */
static struct list split(struct sw_slice path)
{
    struct list l = {.count = 0};

    for (size_t i = 0; i < path.len; i++) {
        char *item;
        size_t len = 0;

        assert_int_equal(path.ptr[i], '/');
        item = l.items[l.count++];
        for (i++; i < path.len && path.ptr[i] != '/'; i++) {
            unsigned c;

            if (path.ptr[i] == '%' && i + 2 < path.len + 0 &&
                sscanf(path.ptr + i + 1, "%2x", &c) == 1) {
                len += (size_t)snprintf(item + len, 8, c == 'a' || c == '~' ? "%c" : "%%%02X", c);
                i += 2;
            } else {
                item[len++] = path.ptr[i];
            }
        }
        item[len] = '\0';
        i--;
    }
    return l;
}

static bool naive_host(struct sw_slice pattern, const char *asked)
{
    char name[64];
    size_t len = 0;

    for (; asked[len] != '\0' && asked[len] != ':'; len++) {
        name[len] = (char)(asked[len] >= 'A' && asked[len] <= 'Z' ? asked[len] + 32 : asked[len]);
    }
    if (len > 0 && name[len - 1] == '.') {
        len--;
    }
    if (pattern.len == 0) {
        return true;
    }
    if (pattern.ptr[0] == '*') {
        size_t tail = pattern.len - 1;

        return len > tail && memcmp(name + len - tail, pattern.ptr + 1, tail) == 0;
    }
    return len == pattern.len && memcmp(name, pattern.ptr, len) == 0;
}

static bool star(const struct list *l)
{
    return l->count > 0 && strcmp(l->items[l->count - 1], "*") == 0;
}

static bool naive_path(const struct list *pattern, const struct list *path)
{
    size_t count = star(pattern) ? pattern->count - 1 : pattern->count;

    if (path->count < count || (!star(pattern) && path->count != count)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (pattern->items[i][0] == '{' ? path->items[i][0] == '\0'
                                        : strcmp(pattern->items[i], path->items[i]) != 0) {
            return false;
        }
    }
    return true;
}

/* Larger is more specific; compared from the first number on. */
struct score {
    int64_t v[16];
};

static struct score naive_score(const struct sw_config_route *r)
{
    struct list l = split(r->path);
    size_t count = star(&l) ? l.count - 1 : l.count;
    struct score s = {{0}};

    s.v[0] = r->host.len == 0 ? 0 : r->host.ptr[0] == '*' ? 1 : 2;
    s.v[1] = (int64_t)r->host.len;
    for (size_t i = 0; i < count; i++) {
        s.v[3] += l.items[i][0] != '{';
        s.v[5 + i] = l.items[i][0] != '{';
    }
    s.v[2] = star(&l) ? 0 : s.v[3] == (int64_t)count ? 2 : 1;
    s.v[4] = (int64_t)count;
    s.v[13] = r->method_count > 0;
    s.v[14] = (int64_t)r->header_count;
    s.v[15] = -(int64_t)r->index;
    return s;
}

static int score_order(const struct score *a, const struct score *b)
{
    for (size_t i = 0; i < SW_COUNTOF(a->v); i++) {
        if (a->v[i] != b->v[i]) {
            return a->v[i] < b->v[i] ? -1 : 1;
        }
    }
    return 0;
}

static bool naive_method(const struct sw_config_route *r, struct sw_slice method)
{
    for (size_t i = 0; i < r->method_count; i++) {
        if (sw_slice_eq(r->methods[i], method)) {
            return true;
        }
    }
    return r->method_count == 0;
}

static struct sw_routed naive_match(const struct sw_config *c, const struct sw_head *h,
                                    const char *host)
{
    struct sw_routed m = {.err = SW_E_NO_ROUTE};
    struct list path = split(h->path);
    struct score best = {{0}};

    for (size_t i = 0; i < c->route_count; i++) {
        const struct sw_config_route *r = &c->routes[i];
        struct list pattern = split(r->path);
        struct score s = naive_score(r);
        bool fits = naive_host(r->host, host) && naive_path(&pattern, &path);

        for (size_t k = 0; k < r->header_count && fits; k++) {
            bool found = false;

            for (uint32_t f = 0; f < h->field_count; f++) {
                found = found || (sw_slice_eq(h->fields[f].name, r->headers[k].name) &&
                                  sw_slice_eq(h->fields[f].value, r->headers[k].value));
            }
            fits = found;
        }
        if (!fits) {
            continue;
        }
        if (!naive_method(r, h->method_name)) {
            m.err = m.err == SW_E_NO_ROUTE ? SW_E_NO_METHOD : m.err;
        } else if (m.route == NULL || score_order(&best, &s) < 0) {
            m.err = SW_OK;
            m.route = r;
            best = s;
        }
    }
    return m;
}

/* ---- one against the other
 * -------------------------------------------------------------------------- */

static void one_table(uint64_t seed)
{
    static char text[65536];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_rng rng;
    struct table t;
    uint64_t routes;

    sw_rng_seed(&rng, seed);
    sw_out_lit(&out, "apps: { a: { command: [x] } }\nroutes:\n");
    routes = 1 + sw_rng_below(&rng, seed % 7 == 0 ? 200 : 20);
    for (uint64_t i = 0; i < routes; i++) {
        put_route(&rng, &out);
    }
    assert_false(out.overflowed);
    t = table_of(sw_out_done(&out));
    for (unsigned i = 0; i < 200; i++) {
        static char a[] = "A", b[] = "B", one[] = "1", two[] = "2";
        struct sw_field fields[] = {{sw_slice_of(a, 1),
                                     sw_slice_of(sw_rng_below(&rng, 2) == 0 ? one : two, 1),
                                     SW_FIELD_OTHER},
                                    {sw_slice_of(b, 1), sw_slice_of(one, 1), SW_FIELD_OTHER}};
        const char *host = PICK(&rng, asked_hosts), *method = PICK(&rng, asked_methods);
        char path[256];
        struct sw_out p = sw_out_init(path, sizeof(path) - 1);
        uint64_t count = 1 + sw_rng_below(&rng, 5);
        struct sw_routed naive, compiled;
        struct sw_head h;

        for (uint64_t s = 0; s < count; s++) {
            sw_out_printf(&p, "/%s", PICK(&rng, asked_segments));
        }
        path[p.len] = '\0';
        h = head_of(method, host, path, fields, (uint32_t)sw_rng_below(&rng, 3));
        naive = naive_match(t.config, &h, host);
        compiled = sw_route_match(t.routes, &h);
        if (naive.err != compiled.err || naive.route != compiled.route ||
            (compiled.err == SW_E_NO_METHOD && compiled.allow.len == 0)) {
            fail_msg("seed %llu: %s %s%s: naive line %u %s, compiled line %u %s\n%.*s",
                     (unsigned long long)seed, method, host, path,
                     naive.route ? naive.route->line : 0, sw_err_name(naive.err),
                     compiled.route ? compiled.route->line : 0, sw_err_name(compiled.err),
                     SW_SARG(sw_out_done(&out)));
        }
    }
    table_free(&t);
}

static void random_tables(void **state)
{
    const char *seed = getenv("SW_SEED");

    (void)state;
    if (seed != NULL) {
        one_table(strtoull(seed, NULL, 10));
        return;
    }
    for (uint64_t i = 1; i <= 500; i++) {
        one_table(i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_tables)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
