/* admin/ask.c: paths, tokens and the guard. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "admin/admin_priv.h"

static const struct path_row {
    struct sw_slice path;
    enum sw_admin_endpoint endpoint;
    struct sw_slice name;
} path_rows[] = {
    {SW_S("/healthz"), ADMIN_HEALTHZ, SW_S("")},
    {SW_S("/readyz"), ADMIN_READYZ, SW_S("")},
    {SW_S("/metrics"), ADMIN_METRICS, SW_S("")},
    {SW_S("/v1/apps"), ADMIN_APPS, SW_S("")},
    {SW_S("/v1/status"), ADMIN_STATUS, SW_S("")},
    {SW_S("/v1/keys"), ADMIN_KEYS, SW_S("")},
    {SW_S("/v1/apps/shop/roll"), ADMIN_ROLL, SW_S("shop")},
    {SW_S("/v1/apps/a-0/roll"), ADMIN_ROLL, SW_S("a-0")},
    {SW_S("/v1/instances/shop/2/drain"), ADMIN_DRAIN, SW_S("shop/2")},
    {SW_S("/v1/instances/shop/2/undrain"), ADMIN_UNDRAIN, SW_S("shop/2")},
    {SW_S("/v1/instances/shop/10/kill"), ADMIN_KILL, SW_S("shop/10")},
    {SW_S("/v1/instances/s/4294967295/kill"), ADMIN_KILL, SW_S("s/4294967295")},
    {SW_S("/v1/apps/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/roll"),
     ADMIN_ROLL, SW_S("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")},
    {SW_S("/v1/sessions"), ADMIN_SESSIONS, SW_S("")},
    {SW_S("/v1/sessions/export"), ADMIN_EXPORT, SW_S("")},
    {SW_S("/v1/sessions/import"), ADMIN_IMPORT, SW_S("")},
    {SW_S("/v1/sessions/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), ADMIN_SESSION,
     SW_S("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")},
    {SW_S("/v1/sessions/-_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz0"), ADMIN_SESSION,
     SW_S("-_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz0")},
    {SW_S("/v1/subjects"), ADMIN_SUBJECT, SW_S("")},
    {SW_S("/v1/subjects/alice"), ADMIN_SUBJECT, SW_S("alice")},
    {SW_S("/v1/subjects/a%2Fb%00c"), ADMIN_SUBJECT, SW_S("a%2Fb%00c")},
    {SW_S("/v1/tokens"), ADMIN_TOKEN, SW_S("")},
    {SW_S("/v1/sealed/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), ADMIN_SEALED,
     SW_S("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")},
    {SW_S("/v1/pins/0123456789abcdef"), ADMIN_PIN, SW_S("0123456789abcdef")},
    /* no place */
    {SW_S("/v1/tokens/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/tokens/a"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/sealed"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/sealed/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/sealed/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/pins/0123456789ABCDEF"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/pins/0123456789abcde"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/pins/0123456789abcdef0"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/pins/0123456789abcdeg"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/sessions/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/sessions/exports"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/sessions/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/sessions/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/sessions/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/sessions/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/subjects/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/subjects/a/b"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/roll"),
     ADMIN_NOWHERE, SW_S("")},
    {SW_S(""), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("*"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/metrics/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/Metrics"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("//metrics"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/shop"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/shop/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps//roll"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/shop/roll/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/shop/roll/x"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/shop/drain"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/Shop/roll"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/sh%6fp/roll"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/../roll"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/apps/a\"b/roll"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/kill"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop//kill"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/0/kill"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/01/kill"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/+1/kill"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/-1/kill"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/4294967296/kill"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/99999999999/kill"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/1/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/1/killx"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/1/kill/"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop%2F1/kill"), ADMIN_NOWHERE, SW_S("")},
    {SW_S("/v1/instances/shop/1/2/kill"), ADMIN_NOWHERE, SW_S("")},
};

static void paths(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(path_rows); i++) {
        const struct path_row *row = &path_rows[i];
        struct sw_admin_routed r = sw_admin__route(row->path);

        if (r.endpoint != row->endpoint || !sw_slice_eq(r.name, row->name)) {
            fail_msg("%.*s: endpoint %d, name %.*s", SW_SARG(row->path), r.endpoint,
                     SW_SARG(r.name));
        }
        assert_true(sw_admin__personal(r.endpoint) || r.name.len <= SW_ADMIN_NAME_MAX);
        for (size_t cut = 1; cut < row->path.len && row->endpoint != ADMIN_NOWHERE;
             cut++) { /* a shorter path is never a longer one's (but a subject may have any name) */
            struct sw_admin_routed part = sw_admin__route(sw_slice_head(row->path, cut));

            assert_true(part.endpoint == ADMIN_NOWHERE || part.endpoint == ADMIN_APPS ||
                        part.endpoint == ADMIN_SESSIONS || part.endpoint == ADMIN_SUBJECT);
        }
    }
}

#define TOKEN SW_S("s3cret-token")
#define NONE  SW_S("")

static const struct judge_row {
    const char *name;
    enum sw_method method;
    struct sw_slice path, token, authorization;
    bool guard;
    struct sw_slice site;
    enum sw_admin_verdict verdict;
} judge_rows[] = {
    {"get", SW_METHOD_GET, SW_S("/metrics"), NONE, NONE, false, NONE, ADMIN_ALLOWED},
    {"head", SW_METHOD_HEAD, SW_S("/metrics"), NONE, NONE, false, NONE, ADMIN_ALLOWED},
    {"get needs no guard", SW_METHOD_GET, SW_S("/v1/apps"), NONE, NONE, false, SW_S("cross-site"),
     ADMIN_ALLOWED},
    {"nowhere", SW_METHOD_GET, SW_S("/x"), NONE, NONE, false, NONE, ADMIN_NO_PLACE},
    {"nowhere, post", SW_METHOD_POST, SW_S("/x"), NONE, NONE, false, NONE, ADMIN_NO_PLACE},
    {"post to a page", SW_METHOD_POST, SW_S("/metrics"), NONE, NONE, true, NONE, ADMIN_NO_METHOD},
    {"options", SW_METHOD_OPTIONS, SW_S("/v1/apps/shop/roll"), NONE, NONE, false, NONE,
     ADMIN_NO_METHOD},
    {"trace", SW_METHOD_TRACE, SW_S("/healthz"), NONE, NONE, false, NONE, ADMIN_NO_METHOD},
    {"other", SW_METHOD_OTHER, SW_S("/healthz"), NONE, NONE, false, NONE, ADMIN_NO_METHOD},
    {"get of a command", SW_METHOD_GET, SW_S("/v1/apps/shop/roll"), NONE, NONE, true, NONE,
     ADMIN_NO_METHOD},
    {"put of a command", SW_METHOD_PUT, SW_S("/v1/apps/shop/roll"), NONE, NONE, true, NONE,
     ADMIN_NO_METHOD},
    {"command", SW_METHOD_POST, SW_S("/v1/apps/shop/roll"), NONE, NONE, true, NONE, ADMIN_ALLOWED},
    {"same-origin", SW_METHOD_POST, SW_S("/v1/apps/shop/roll"), NONE, NONE, true,
     SW_S("same-origin"), ADMIN_ALLOWED},
    {"typed by the user", SW_METHOD_POST, SW_S("/v1/apps/shop/roll"), NONE, NONE, true,
     SW_S("none"), ADMIN_ALLOWED},
    {"cross-site", SW_METHOD_POST, SW_S("/v1/apps/shop/roll"), NONE, NONE, true, SW_S("cross-site"),
     ADMIN_CROSS},
    {"cross-site, shouted", SW_METHOD_POST, SW_S("/v1/apps/shop/roll"), NONE, NONE, true,
     SW_S("Cross-Site"), ADMIN_CROSS},
    {"no guard", SW_METHOD_POST, SW_S("/v1/instances/shop/1/kill"), NONE, NONE, false, NONE,
     ADMIN_NO_GUARD},
    {"no guard, same-origin", SW_METHOD_POST, SW_S("/v1/instances/shop/1/kill"), NONE, NONE, false,
     SW_S("same-origin"), ADMIN_NO_GUARD},

    {"end without guard", SW_METHOD_DELETE, SW_S("/v1/subjects/alice"), NONE, NONE, false, NONE,
     ADMIN_NO_GUARD},
    {"end", SW_METHOD_DELETE, SW_S("/v1/subjects/alice"), NONE, NONE, true, NONE, ADMIN_ALLOWED},
    {"put to a subject", SW_METHOD_PUT, SW_S("/v1/subjects/alice"), NONE, NONE, true, NONE,
     ADMIN_NO_METHOD},
    {"post to a subject", SW_METHOD_POST, SW_S("/v1/subjects/alice"), NONE, NONE, true, NONE,
     ADMIN_NO_METHOD},
    {"delete all", SW_METHOD_DELETE, SW_S("/v1/sessions"), NONE, NONE, true, NONE, ADMIN_NO_METHOD},
    {"import without guard", SW_METHOD_POST, SW_S("/v1/sessions/import"), NONE, NONE, false, NONE,
     ADMIN_NO_GUARD},
    {"get import", SW_METHOD_GET, SW_S("/v1/sessions/import"), NONE, NONE, true, NONE,
     ADMIN_NO_METHOD},
    {"sessions for another site", SW_METHOD_GET, SW_S("/v1/sessions"), NONE, NONE, true,
     SW_S("cross-site"), ADMIN_CROSS},
    {"sessions without the token", SW_METHOD_GET, SW_S("/v1/sessions/export"), TOKEN, NONE, true,
     NONE, ADMIN_NO_TOKEN},
    {"a subject without the token", SW_METHOD_GET, SW_S("/v1/subjects/alice"), TOKEN, NONE, true,
     NONE, ADMIN_NO_TOKEN},
    {"an export with the token", SW_METHOD_GET, SW_S("/v1/sessions/export"), TOKEN,
     SW_S("Bearer s3cret-token"), false, NONE, ADMIN_ALLOWED},

    {"token", SW_METHOD_GET, SW_S("/metrics"), TOKEN, SW_S("Bearer s3cret-token"), false, NONE,
     ADMIN_ALLOWED},
    {"scheme in any case", SW_METHOD_GET, SW_S("/metrics"), TOKEN, SW_S("bEARER s3cret-token"),
     false, NONE, ADMIN_ALLOWED},
    {"blanks", SW_METHOD_GET, SW_S("/metrics"), TOKEN, SW_S("Bearer   s3cret-token"), false, NONE,
     ADMIN_ALLOWED},
    {"no token", SW_METHOD_GET, SW_S("/metrics"), TOKEN, NONE, false, NONE, ADMIN_NO_TOKEN},
    {"empty token", SW_METHOD_GET, SW_S("/metrics"), TOKEN, SW_S("Bearer "), false, NONE,
     ADMIN_NO_TOKEN},
    {"shorter", SW_METHOD_GET, SW_S("/metrics"), TOKEN, SW_S("Bearer s3cret-toke"), false, NONE,
     ADMIN_NO_TOKEN},
    {"longer", SW_METHOD_GET, SW_S("/metrics"), TOKEN, SW_S("Bearer s3cret-tokenn"), false, NONE,
     ADMIN_NO_TOKEN},
    {"another case", SW_METHOD_GET, SW_S("/metrics"), TOKEN, SW_S("Bearer S3cret-token"), false,
     NONE, ADMIN_NO_TOKEN},
    {"scheme only", SW_METHOD_GET, SW_S("/metrics"), TOKEN, SW_S("Bearer"), false, NONE,
     ADMIN_NO_TOKEN},
    {"another scheme", SW_METHOD_GET, SW_S("/metrics"), TOKEN, SW_S("Basic s3cret-token"), false,
     NONE, ADMIN_NO_TOKEN},
    {"no scheme", SW_METHOD_GET, SW_S("/metrics"), TOKEN, TOKEN, false, NONE, ADMIN_NO_TOKEN},
    {"health is open", SW_METHOD_GET, SW_S("/healthz"), TOKEN, NONE, false, NONE, ADMIN_ALLOWED},
    {"readiness is open", SW_METHOD_HEAD, SW_S("/readyz"), TOKEN, NONE, false, NONE, ADMIN_ALLOWED},
    {"nowhere is not told", SW_METHOD_GET, SW_S("/x"), TOKEN, NONE, false, NONE, ADMIN_NO_TOKEN},
    {"nor methods", SW_METHOD_GET, SW_S("/v1/apps/shop/roll"), TOKEN, NONE, false, NONE,
     ADMIN_NO_TOKEN},
    {"the guard is no token", SW_METHOD_POST, SW_S("/v1/apps/shop/roll"), TOKEN, NONE, true, NONE,
     ADMIN_NO_TOKEN},
    {"the token is no guard", SW_METHOD_POST, SW_S("/v1/apps/shop/roll"), TOKEN,
     SW_S("Bearer s3cret-token"), false, NONE, ADMIN_NO_GUARD},
    {"both", SW_METHOD_POST, SW_S("/v1/apps/shop/roll"), TOKEN, SW_S("Bearer s3cret-token"), true,
     NONE, ADMIN_ALLOWED},
};

static void judged(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(judge_rows); i++) {
        const struct judge_row *row = &judge_rows[i];
        struct sw_admin_ask ask = {
            row->method, row->path, row->authorization,    row->guard, row->site,
            false,       false,     SW_S("127.0.0.1:9000")};
        struct sw_admin_routed r;
        enum sw_admin_verdict v = sw_admin__judge(&ask, row->token, &r);

        if (v != row->verdict) {
            fail_msg("%s: %d", row->name, v);
        }
    }
}

static const struct host_row {
    struct sw_slice host;
    bool origin, via, token;
    enum sw_admin_verdict verdict;
} host_rows[] = {
    {SW_S("127.0.0.1:9000"), true, false, false, ADMIN_ALLOWED},
    {SW_S("127.0.0.1"), true, false, false, ADMIN_ALLOWED},
    {SW_S("[::1]:9000"), true, false, false, ADMIN_ALLOWED},
    {SW_S("LocalHost:9000"), true, false, false, ADMIN_ALLOWED},
    {SW_S("evil.example:9000"), true, false, false, ADMIN_REBOUND},
    {SW_S("127.0.0.1.evil.example:9000"), true, false, false, ADMIN_REBOUND},
    {SW_S("localhost.evil.example"), true, false, false, ADMIN_REBOUND},
    {SW_S("0x7f.1"), true, false, false, ADMIN_REBOUND},
    {SW_S(""), true, false, false, ADMIN_REBOUND},
    {SW_S(":9000"), true, false, false, ADMIN_REBOUND},
    {SW_S("stateway"), false, false, false, ADMIN_ALLOWED},   /* no browser: the command line */
    {SW_S("shop.example"), true, true, false, ADMIN_ALLOWED}, /* through a gateway */
    {SW_S("shop.example"), true, false, true, ADMIN_ALLOWED}, /* who knows the token */
};

static void hosts(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(host_rows); i++) {
        const struct host_row *row = &host_rows[i];
        struct sw_admin_ask ask = {
            .method = SW_METHOD_POST,
            .path = SW_S("/v1/apps/shop/roll"),
            .has_guard = true,
            .authorization = row->token ? SW_S("Bearer s3cret-token") : NONE,
            .fetch_site = SW_S("same-origin"),
            .has_origin = row->origin,
            .has_via = row->via,
            .host = row->host,
        };
        struct sw_admin_routed r;
        enum sw_admin_verdict v = sw_admin__judge(&ask, row->token ? TOKEN : NONE, &r);

        if (v != row->verdict) {
            fail_msg("%.*s: %d", SW_SARG(row->host), v);
        }
        ask.method = SW_METHOD_GET; /* reading is not asked about */
        ask.path = SW_S("/v1/apps");
        assert_int_equal(sw_admin__judge(&ask, row->token ? TOKEN : NONE, &r), ADMIN_ALLOWED);
    }
}

/* What visitors left is asked about whoever asks, Origin or not, and stays on this side of a
 * gateway. */
static void personal_hosts(void **state)
{
    static const struct {
        struct sw_slice host;
        bool via, token;
        enum sw_admin_verdict verdict;
    } personal[] = {
        {SW_S("127.0.0.1:9000"), false, false, ADMIN_ALLOWED},
        {SW_S("localhost"), false, false, ADMIN_ALLOWED},
        {SW_S("[::1]:9000"), false, false, ADMIN_ALLOWED},
        {SW_S("evil.example:9000"), false, false, ADMIN_REBOUND},
        {SW_S(""), false, false, ADMIN_REBOUND},
        {SW_S("127.0.0.1:9000"), true, false, ADMIN_PROXIED},
        {SW_S("shop.example"), true, true, ADMIN_ALLOWED},
        {SW_S("shop.example"), false, true, ADMIN_ALLOWED},
    };
    static const struct sw_slice paths_of[] = {
        SW_S("/v1/sessions"), SW_S("/v1/sessions/export"), SW_S("/v1/subjects/alice"),
        SW_S("/v1/sessions/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(personal); i++) {
        for (size_t p = 0; p < SW_COUNTOF(paths_of); p++) {
            struct sw_admin_ask ask = {
                .method = SW_METHOD_GET,
                .path = paths_of[p],
                .authorization = personal[i].token ? SW_S("Bearer s3cret-token") : NONE,
                .has_via = personal[i].via,
                .host = personal[i].host,
            };
            struct sw_admin_routed r;
            enum sw_admin_verdict v = sw_admin__judge(&ask, personal[i].token ? TOKEN : NONE, &r);

            if (v != personal[i].verdict) {
                fail_msg("%.*s, %zu: %d", SW_SARG(personal[i].host), p, v);
            }
        }
    }
}

static void allowed(void **state)
{
    (void)state;
    assert_string_equal(sw_admin__allow_line(ADMIN_METRICS), "Allow: GET, HEAD\r\n");
    assert_string_equal(sw_admin__allow_line(ADMIN_ROLL), "Allow: POST\r\n");
    assert_string_equal(sw_admin__allow_line(ADMIN_SESSION), "Allow: GET, HEAD, PUT, DELETE\r\n");
    assert_string_equal(sw_admin__allow_line(ADMIN_SUBJECT), "Allow: GET, HEAD, DELETE\r\n");
    for (size_t e = ADMIN_NOWHERE + 1; e < ADMIN_ENDPOINT_COUNT; e++) { /* none was forgotten */
        struct sw_slice line = sw_slice_cstr(sw_admin__allow_line((enum sw_admin_endpoint)e));

        assert_true(sw_slice_starts(line, SW_S("Allow: ")));
        assert_true(sw_slice_ends(line, SW_S("\r\n")));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths),          cmocka_unit_test(judged),  cmocka_unit_test(hosts),
        cmocka_unit_test(personal_hosts), cmocka_unit_test(allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
