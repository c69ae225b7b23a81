/* One table, many requests: what matches, what wins, what is captured, stripped, explained. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "helper.h"

#define APPS "apps: { a: { command: [x] } }\nroutes:\n" /* so the first route is in line 3 */

static const char *const main_table = APPS
    "- { path: /*, app: a }\n"                                                              /* 3 */
    "- { path: /cart/*, app: a, strip: /cart }\n"                                           /* 4 */
    "- { path: /cart, app: a }\n"                                                           /* 5 */
    "- { path: '/rooms/{room}', app: a }\n"                                                 /* 6 */
    "- { path: '/rooms/{room}/*', app: a, strip: /rooms }\n"                                /* 7 */
    "- { path: /rooms/lobby, app: a }\n"                                                    /* 8 */
    "- { path: '/rooms/{room}/seats/{seat}', app: a }\n"                                    /* 9 */
    "- { path: /x, host: shop.example, app: a }\n"                                          /* 10 */
    "- { path: /*, host: '*.shop.example', app: a }\n"                                      /* 11 */
    "- { path: /*, host: '*.eu.shop.example', app: a }\n"                                   /* 12 */
    "- { path: /*, host: one.eu.shop.example, app: a }\n"                                   /* 13 */
    "- { path: /m, methods: [GET, POST], app: a }\n"                                        /* 14 */
    "- { path: /m, methods: [DELETE], headers: { X-A: '1' }, app: a }\n"                    /* 15 */
    "- { path: /h, app: a }\n"                                                              /* 16 */
    "- { path: /h, headers: { X-A: '1' }, app: a }\n"                                       /* 17 */
    "- { path: /h, headers: { X-A: '1', X-B: '2' }, app: a }\n"                             /* 18 */
    "- { path: /only, host: get.example, methods: [GET], app: a }\n"                        /* 19 */
    "- { path: /only, host: get.example, methods: [PUT], headers: { X-A: '1' }, app: a }\n" /* 20 */
    "- { path: '/t/{a}/{b}', app: a }\n"                                                    /* 21 */
    "- { path: '/t/{a}/c', app: a }\n"                                                      /* 22 */
    "- { path: '/t/b/{c}', app: a }\n"                                                      /* 23 */
    "- { path: /t/b/*, app: a }\n"                                                          /* 24 */
    "- { path: /a%20b, app: a }\n"                                                          /* 25 */
    "- { path: /~me/*, app: a, strip: /~me }\n"                                             /* 26 */
    "- { path: /slash/, app: a }\n"                                                         /* 27 */
    "- { path: /, host: root.example, app: a }\n"                                           /* 28 */
    "- { path: /*, host: '[::1]', app: a }\n"                                               /* 29 */
    "- { path: '/{v}/deep/er', host: cap.example, app: a }\n"                               /* 30 */
    "- { path: '/v1/{rest}', host: cap.example, app: a }\n"                                 /* 31 */
    "- { path: '/v1/{x}/*', host: cap.example, app: a }\n"                                  /* 32 */
    "- { path: '/{u}/{v}/*', host: cap.example, app: a }\n"                                 /* 33 */
    "- { path: /*, host: get.example, methods: [OPTIONS], app: a }\n";                      /* 34 */

static struct sw_field fields_ab[] = {{SW_S("x-a"), SW_S("1"), SW_FIELD_OTHER},
                                      {SW_S("X-B"), SW_S("2"), SW_FIELD_OTHER}};
static struct sw_field fields_twice[] = {{SW_S("X-A"), SW_S("0"), SW_FIELD_OTHER},
                                         {SW_S("X-A"), SW_S("1"), SW_FIELD_OTHER}};
static struct sw_field fields_near[] = {{SW_S("X-A"), SW_S("1 "), SW_FIELD_OTHER}};

static const struct row {
    const char *method, *host, *path;
    uint32_t line;        /* 0: 404 */
    const char *captures; /* "room=7 seat=3" */
    struct sw_field *fields;
    uint32_t field_count;
} rows[] = {
    {"GET", "any", "/", 3, "", NULL, 0},
    {"GET", "any", "/else", 3, "", NULL, 0},
    {"GET", "", "/else", 3, "", NULL, 0},
    {"GET", "any", "//", 3, "", NULL, 0},
    {"GET", "any", "/cart", 5, "", NULL, 0},
    {"GET", "any", "/cart/", 4, "", NULL, 0},
    {"GET", "any", "/cart/x/y", 4, "", NULL, 0},
    {"GET", "any", "/cartoon", 3, "", NULL, 0},
    {"GET", "any", "/Cart/x", 3, "", NULL, 0},
    {"GET", "any", "/c%61rt/x", 4, "", NULL, 0},
    {"GET", "any", "/%63%61%72%74", 5, "", NULL, 0},
    {"GET", "any", "/cart%2Fx", 3, "", NULL, 0},
    {"GET", "any", "/cart%2fx", 3, "", NULL, 0},
    {"GET", "any", "/cart%", 3, "", NULL, 0},
    {"GET", "any", "/cart%6", 3, "", NULL, 0},
    {"GET", "any", "/rooms/7", 6, "room=7", NULL, 0},
    {"GET", "any", "/rooms/a%2Fb", 6, "room=a%2Fb", NULL, 0},
    {"GET", "any", "/rooms/", 3, "", NULL, 0},
    {"GET", "any", "/rooms", 3, "", NULL, 0},
    {"GET", "any", "/rooms/lobby", 8, "", NULL, 0},
    {"GET", "any", "/rooms/lobby/", 7, "room=lobby", NULL, 0},
    {"GET", "any", "/rooms/lobby/x", 7, "room=lobby", NULL, 0},
    {"GET", "any", "/rooms/7/seats/3", 9, "room=7 seat=3", NULL, 0},
    {"GET", "any", "/rooms/7/seats/", 7, "room=7", NULL, 0},
    {"GET", "any", "/rooms//seats/3", 3, "", NULL, 0},
    {"GET", "shop.example", "/x", 10, "", NULL, 0},
    {"GET", "SHOP.Example:8080", "/x", 10, "", NULL, 0},
    {"GET", "shop.example.", "/x", 10, "", NULL, 0},
    {"GET", "shop.example.:80", "/x", 10, "", NULL, 0},
    {"GET", "shop.example", "/y", 3, "", NULL, 0},
    {"GET", "a.shop.example", "/x", 11, "", NULL, 0},
    {"GET", "a.b.shop.example", "/x", 11, "", NULL, 0},
    {"GET", "eu.shop.example", "/x", 11, "", NULL, 0},
    {"GET", "a.eu.shop.example", "/x", 12, "", NULL, 0},
    {"GET", "one.eu.shop.example", "/x", 13, "", NULL, 0},
    {"GET", "xshop.example", "/x", 3, "", NULL, 0},
    {"GET", ".shop.example", "/x", 3, "", NULL, 0},
    {"GET", "*.shop.example", "/x", 11, "", NULL, 0},
    {"GET", "any", "/m", 14, "", NULL, 0},
    {"POST", "any", "/m", 14, "", NULL, 0},
    {"PUT", "any", "/m", 3, "", NULL, 0},
    {"get", "any", "/m", 3, "", NULL, 0},
    {"DELETE", "any", "/m", 3, "", NULL, 0},
    {"DELETE", "any", "/m", 15, "", fields_ab, 2},
    {"GET", "any", "/h", 16, "", NULL, 0},
    {"GET", "any", "/h", 17, "", fields_ab, 1},
    {"GET", "any", "/h", 18, "", fields_ab, 2},
    {"GET", "any", "/h", 17, "", fields_twice, 2},
    {"GET", "any", "/h", 16, "", fields_near, 1},
    {"GET", "any", "/t/x/y", 21, "a=x b=y", NULL, 0},
    {"GET", "any", "/t/x/c", 22, "a=x", NULL, 0},
    {"GET", "any", "/t/b/x", 23, "c=x", NULL, 0},
    {"GET", "any", "/t/b/c", 23, "c=c", NULL, 0}, /* the earlier literal segment */
    {"GET", "any", "/t/b/", 24, "", NULL, 0},
    {"GET", "any", "/t/b/c/d", 24, "", NULL, 0},
    {"GET", "any", "/a%20b", 25, "", NULL, 0},
    {"GET", "any", "/a+b", 3, "", NULL, 0},
    {"GET", "any", "/~me/x", 26, "", NULL, 0},
    {"GET", "any", "/%7Eme/x", 26, "", NULL, 0},
    {"GET", "any", "/%7eme", 26, "", NULL, 0},
    {"GET", "any", "/slash/", 27, "", NULL, 0},
    {"GET", "any", "/slash", 3, "", NULL, 0},
    {"GET", "any", "/slash//", 3, "", NULL, 0},
    {"GET", "root.example", "/", 28, "", NULL, 0},
    {"GET", "root.example", "/x", 3, "", NULL, 0},
    {"GET", "[::1]:8080", "/x", 29, "", NULL, 0},
    {"GET", "[::1]", "/x", 29, "", NULL, 0},
    {"GET", "[::2]", "/x", 3, "", NULL, 0},
    {"GET", "cap.example", "/v1/deep/er", 30, "v=v1", NULL, 0},
    {"GET", "cap.example", "/v1/deep", 31, "rest=deep", NULL, 0},
    {"GET", "cap.example", "/v1/deep/x", 32, "x=deep", NULL, 0},
    {"GET", "cap.example", "/v2/deep/x", 33, "u=v2 v=deep", NULL, 0},
    {"GET", "cap.example", "/v2", 3, "", NULL, 0},
    {"GET", "get.example", "/only", 19, "", NULL, 0},
    {"PUT", "get.example", "/only", 20, "", fields_ab, 1},
    {"PUT", "get.example", "/only", 3, "", NULL, 0}, /* the any-host route takes it */
    {"OPTIONS", "get.example", "/only", 34, "", NULL, 0},
    {"OPTIONS", "any", "*", 3, "", NULL, 0}, /* as "/" */
    {"OPTIONS", "root.example", "*", 28, "", NULL, 0},
    {"GET", "any", "", 0, "", NULL, 0},
};

static void put_captures(struct sw_out *out, const struct sw_routed *m)
{
    for (uint32_t i = 0; i < m->capture_count; i++) {
        sw_out_printf(out, "%s%.*s=%.*s", i > 0 ? " " : "", SW_SARG(m->captures[i].name),
                      SW_SARG(m->captures[i].value));
    }
}

static void match_rows(void **state)
{
    struct table t = table_of(sw_slice_cstr(main_table));

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_head h = head_of(rows[i].method, rows[i].host, rows[i].path, rows[i].fields,
                                   rows[i].field_count);
        struct sw_routed m = sw_route_match(t.routes, &h);
        char text[256];
        struct sw_out out = sw_out_init(text, sizeof(text));
        uint32_t line = m.err == SW_OK ? m.route->line : 0;

        put_captures(&out, &m);
        if (line != rows[i].line ||
            !sw_slice_eq(sw_out_done(&out), sw_slice_cstr(rows[i].captures))) {
            fail_msg("%s %s%s: line %u (%.*s), not line %u (%s)", rows[i].method, rows[i].host,
                     rows[i].path, line, SW_SARG(sw_out_done(&out)), rows[i].line,
                     rows[i].captures);
        }
        assert_int_equal(m.err, rows[i].line != 0 ? SW_OK : SW_E_NO_ROUTE);
    }
    table_free(&t);
}

static void methods(void **state)
{
    struct table t =
        table_of(SW_S(APPS "- { path: /m/*, methods: [GET], app: a }\n"
                           "- { path: /m, methods: [POST, PUT], app: a }\n"
                           "- { path: /*, methods: [OPTIONS], app: a }\n"
                           "- { path: /x, methods: [BREW], app: a }\n"
                           "- { path: /m, methods: [PATCH], headers: { X-A: '1' }, app: a }\n"));
    static const struct {
        const char *path, *allow;
        struct sw_field *fields;
        uint32_t field_count;
    } rows405[] = {
        {"/m", "GET, POST, PUT, OPTIONS", NULL, 0},
        {"/m", "GET, POST, PUT, OPTIONS, PATCH", fields_ab, 2},
        {"/m/x", "GET, OPTIONS", NULL, 0},
        {"/x", "OPTIONS, BREW", NULL, 0},
        {"/y", "OPTIONS", NULL, 0},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows405); i++) {
        struct sw_head h =
            head_of("DELETE", "x", rows405[i].path, rows405[i].fields, rows405[i].field_count);
        struct sw_routed m = sw_route_match(t.routes, &h);

        assert_int_equal(m.err, SW_E_NO_METHOD);
        assert_null(m.route);
        if (!sw_slice_eq(m.allow, sw_slice_cstr(rows405[i].allow))) {
            fail_msg("%s: %.*s", rows405[i].path, SW_SARG(m.allow));
        }
    }
    table_free(&t);
}

/* More method lists than there is room for their unions: Allow says at least the nearest route's.
 */
static void many_methods(void **state)
{
    static char text[65536];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_head h = head_of("GET", "x", "/5/x", NULL, 0);
    struct sw_routed m;
    struct table t;

    (void)state;
    sw_out_cstr(&out, APPS);
    for (unsigned i = 0; i < 400; i++) {
        sw_out_printf(&out, "- { path: /%u/*, methods: [M%u], app: a }\n", i, i % 70);
    }
    sw_out_lit(&out, "- { path: /*, methods: [M69], app: a }\n");
    t = table_of(sw_out_done(&out));
    m = sw_route_match(t.routes, &h);
    assert_int_equal(m.err, SW_E_NO_METHOD);
    assert_true(sw_slice_starts(m.allow, SW_S("M5")));
    table_free(&t);
}

static void stripped(void **state)
{
    static const struct {
        const char *path, *cut;
    } paths[] = {
        {"/cart/x/y", "/cart"},
        {"/cart/", "/cart"},
        {"/c%61rt/x", "/c%61rt"},
        {"/~me/x", "/~me"},
        {"/%7Eme", "/%7Eme"},
        {"/rooms/7/x", "/rooms"},
        {"/cart", ""}, /* another route, without strip */
        {"/x", ""},
    };
    struct table t = table_of(sw_slice_cstr(main_table));

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(paths); i++) {
        struct sw_head h = head_of("GET", "any", paths[i].path, NULL, 0);
        struct sw_routed m = sw_route_match(t.routes, &h);
        struct sw_slice cut = sw_route_strip(m.route, h.path);

        if (!sw_slice_eq(cut, sw_slice_cstr(paths[i].cut))) {
            fail_msg("%s: %.*s", paths[i].path, SW_SARG(cut));
        }
    }
    table_free(&t);
}

static void ambiguous(void **state)
{
    static const struct {
        const char *text;
        const char *fragment; /* NULL: fine */
    } tables[] = {
        {APPS "- { path: /a, app: a }\n- { path: /a, app: a }\n", "line 3 and line 4"},
        {APPS "- { path: '/{x}', app: a }\n- { path: /a, app: a }\n- { path: '/{y}', app: a }\n",
         "line 3 and line 5"},
        {APPS "- { path: /a, app: a }\n- { path: /%61, app: a }\n", "line 3 and line 4"},
        {APPS "- { path: /a, host: X.y, app: a }\n- { path: /a, host: x.Y., app: a }\n",
         "line 3 and line 4"},
        {APPS "- { path: /a, methods: [GET, PUT], app: a }\n- { path: /a, methods: [POST, PUT], "
              "app: a }\n",
         "line 3 and line 4"},
        {APPS "- { path: /a, headers: { A: '1', B: '2' }, app: a }\n"
              "- { path: /a, headers: { b: '2', a: '1' }, app: a }\n",
         "line 3 and line 4"},
        {APPS "- { path: /a, methods: [GET], app: a }\n- { path: /a, methods: [POST], app: a }\n",
         NULL},
        {APPS "- { path: /a, methods: [GET], app: a }\n- { path: /a, app: a }\n", NULL},
        {APPS "- { path: /a, headers: { A: '1' }, app: a }\n- { path: /a, headers: { A: '2' }, "
              "app: a }\n",
         NULL},
        {APPS "- { path: /a, headers: { A: '1' }, app: a }\n- { path: /a, app: a }\n", NULL},
        {APPS "- { path: /a, app: a }\n- { path: /a/*, app: a }\n- { path: /a/, app: a }\n", NULL},
        {APPS "- { path: '/{x}/a', app: a }\n- { path: '/a/{x}', app: a }\n", NULL},
        {APPS "- { path: /a, host: x.y, app: a }\n- { path: /a, host: '*.x.y', app: a }\n- { path: "
              "/a, app: a }\n",
         NULL},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(tables); i++) {
        struct table t = table_of(sw_slice_cstr(tables[i].text));
        char block[1024];
        struct sw_arena arena;
        const char *text;

        sw_arena_init(&arena, block, sizeof(block));
        text = sw_routes_ambiguous(t.routes, &arena);
        if ((text == NULL) != (tables[i].fragment == NULL) ||
            (text != NULL && strstr(text, tables[i].fragment) == NULL)) {
            fail_msg("%s\n%s", tables[i].text, text != NULL ? text : "fine");
        }
        table_free(&t);
    }
}

static void explained(const struct table *t, const struct sw_head *h, const char *const *fragments)
{
    static char text[65536];
    struct sw_out out = sw_out_init(text, sizeof(text) - 1);

    sw_route_explain(t->routes, h, &out);
    assert_false(out.overflowed);
    text[out.len] = '\0';
    for (size_t i = 0; fragments[i] != NULL; i++) {
        if (strstr(text, fragments[i]) == NULL) {
            fail_msg("no \"%s\" in:\n%s", fragments[i], text);
        }
    }
}

static void explain(void **state)
{
    struct table t = table_of(sw_slice_cstr(main_table));
    struct table only_get = table_of(SW_S(APPS "- { path: /a, methods: [GET], app: a }\n"));
    struct sw_head h = head_of("GET", "any", "/rooms/7/seats/3?q=1", NULL, 0);
    static const char *const rooms[] = {
        "GET any/rooms/7/seats/3\n",
        "  line 9: /rooms/{room}/seats/{seat}\n    chosen: any host, the path by template (2 of 4 "
        "segments "
        "literal), any method\n",
        "  line 7: /rooms/{room}/*\n    matches, but is less specific: any host, the path by its "
        "first 2 segments",
        "another host",
        "and 9 more for other hosts or paths",
        "app a, state none, room = 7, seat = 3\nthe app sees GET /rooms/7/seats/3?q=1\n",
        NULL};
    static const char *const cart[] = {"/cart is cut off\nthe app sees GET /x\n", NULL};
    static const char *const none[] = {"no: its methods do not include DELETE", "405, Allow: GET",
                                       NULL};
    static const char *const lost[] = {"no: another path", "nobody answers: 404", NULL};
    static const char *const evil[] = {"GET any/?[2J\n", NULL};

    (void)state;
    explained(&t, &h, rooms);
    h = head_of("GET", "any", "/cart/x", NULL, 0);
    explained(&t, &h, cart);
    h = head_of("DELETE", "any", "/a", NULL, 0);
    explained(&only_get, &h, none);
    h = head_of("GET", "any", "/b", NULL, 0);
    explained(&only_get, &h, lost);
    h = head_of("GET", "any", "/\x1b[2J", NULL, 0);
    explained(&t, &h, evil);
    table_free(&t);
    table_free(&only_get);
}

/* A name longer than any host there can be, and a path of 8 KB: answered, not copied. */
static void long_requests(void **state)
{
    struct table t = table_of(sw_slice_cstr(main_table));
    static char host[5000], path[9000];
    struct sw_head h;

    (void)state;
    memset(host, 'a', sizeof(host) - 1);
    memset(path, '/', sizeof(path) - 1);
    h = head_of("GET", host, path, NULL, 0);
    assert_int_equal(sw_route_match(t.routes, &h).route->line, 3);
    memset(path + 1, 'x', sizeof(path) - 2);
    h = head_of("GET", host, path, NULL, 0);
    assert_int_equal(sw_route_match(t.routes, &h).route->line, 3);
    for (size_t i = 1; i + 3 < sizeof(path); i += 3) {
        memcpy(path + i, "%61", 3);
    }
    h = head_of("GET", host, path, NULL, 0);
    assert_int_equal(sw_route_match(t.routes, &h).route->line, 3);
    memcpy(path, "/rooms/", 7);
    h = head_of("GET", host, path, NULL, 0);
    assert_int_equal(sw_route_match(t.routes, &h).route->line, 6);
    table_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(match_rows),    cmocka_unit_test(methods),
        cmocka_unit_test(many_methods),  cmocka_unit_test(stripped),
        cmocka_unit_test(ambiguous),     cmocka_unit_test(explain),
        cmocka_unit_test(long_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
