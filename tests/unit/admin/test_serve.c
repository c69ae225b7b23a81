/* admin/: served over the simulated network, under virtual time and faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "serve.h"

/* ---- answers --------------------------------------------------------------------------------- */

#define H "\r\nHost: x\r\n"
static const struct row {
    const char *name, *send, *begins, *has;
} rows[] = {
    {"healthz", "GET /healthz HTTP/1.1" H "\r\n", "HTTP/1.1 200 OK\r\n", "\r\n\r\nok\n"},
    {"with a query", "GET /healthz?x=1 HTTP/1.1" H "\r\n", "HTTP/1.1 200 OK\r\n", "\r\n\r\nok\n"},
    {"absolute form", "GET http://x/healthz HTTP/1.1" H "\r\n", "HTTP/1.1 200 OK\r\n", "ok\n"},
    {"an empty line first", "\r\nGET /healthz HTTP/1.1" H "\r\n", "HTTP/1.1 200 OK\r\n", "ok\n"},
    {"readyz", "GET /readyz HTTP/1.1" H "\r\n", "HTTP/1.1 200 OK\r\n", "\r\n\r\nready\n"},
    {"1.0", "GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n", "Connection: close\r\n"},
    {"1.0 kept", "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK\r\n",
     "Connection: keep-alive\r\n"},
    {"apps", "GET /v1/apps HTTP/1.1" H "\r\n", "HTTP/1.1 200 OK\r\n",
     "\"incarnation\":\"9f3c000000000001\",\"state\":\"healthy\",\"pid\":101,"},
    {"status", "GET /v1/status HTTP/1.1" H "\r\n", "HTTP/1.1 200 OK\r\n",
     "\"workers\":2,\"ready\":true"},
    {"metrics", "GET /metrics HTTP/1.1" H "\r\n", "HTTP/1.1 200 OK\r\n",
     "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"},
    {"nowhere", "GET /x HTTP/1.1" H "\r\n", "HTTP/1.1 404 Not Found\r\n",
     "\"reason\":\"not-found\"}\n"},
    {"method", "DELETE /metrics HTTP/1.1" H "\r\n", "HTTP/1.1 405 Method Not Allowed\r\n",
     "Allow: GET, HEAD\r\n"},
    {"method of a command", "GET /v1/apps/shop/roll HTTP/1.1" H "\r\n", "HTTP/1.1 405 ",
     "Allow: POST\r\n"},
    {"options", "OPTIONS * HTTP/1.1" H "\r\n", "HTTP/1.1 404 ", NULL},
    {"roll", "POST /v1/apps/shop/roll HTTP/1.1" H "Stateway-Admin: 1\r\n\r\n",
     "HTTP/1.1 202 Accepted\r\n", "{\"accepted\":\"roll\",\"app\":\"shop\"}\n"},
    {"roll with a body",
     "POST /v1/apps/shop/roll HTTP/1.1" H "X-Stateway-Admin: 1\r\nContent-Length: 2\r\n\r\n{}",
     "HTTP/1.1 202 Accepted\r\n", "\"accepted\""},
    {"chunked",
     "POST /v1/apps/shop/roll HTTP/1.1" H
     "X-Stateway-Admin: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
     "HTTP/1.1 202 Accepted\r\n", "\"accepted\""},
    {"kill", "POST /v1/instances/shop/2/kill HTTP/1.1" H "X-Stateway-Admin: 1\r\n\r\n",
     "HTTP/1.1 202 ", "{\"accepted\":\"kill\",\"instance\":\"shop/2\"}\n"},
    {"no guard", "POST /v1/instances/shop/2/kill HTTP/1.1" H "\r\n", "HTTP/1.1 403 Forbidden\r\n",
     "\"reason\":\"guard\""},
    {"cross-site",
     "POST /v1/instances/shop/2/kill HTTP/1.1" H
     "Stateway-Admin: 1\r\nSec-Fetch-Site: cross-site\r\n\r\n",
     "HTTP/1.1 403 Forbidden\r\n", "cross-site"},
    {"rebound",
     "POST /v1/instances/shop/2/kill HTTP/1.1" H "Stateway-Admin: 1\r\nOrigin: http://x\r\n\r\n",
     "HTTP/1.1 403 Forbidden\r\n", "\"reason\":\"host\""},
    {"garbage", "\x16\x03\x01\x02 nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n",
     "\"reason\":\""},
    {"no host", "GET /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "\"reason\":\"host\""},
    {"http 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 ", NULL},
    {"connect", "CONNECT x:1 HTTP/1.1" H "\r\n", "HTTP/1.1 501 ", NULL},
    {"both framings",
     "POST /v1/apps/shop/roll HTTP/1.1" H
     "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "HTTP/1.1 400 ", NULL},
    {"announced too much",
     "POST /v1/apps/shop/roll HTTP/1.1" H "Stateway-Admin: 1\r\nContent-Length: 16385\r\n\r\n",
     "HTTP/1.1 413 ", "Connection: close\r\n"},
    {"bad chunk",
     "POST /v1/apps/shop/roll HTTP/1.1" H
     "Stateway-Admin: 1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
     "HTTP/1.1 400 ", NULL},
    {"continue",
     "POST /v1/apps/shop/roll HTTP/1.1" H
     "Stateway-Admin: 1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
     "HTTP/1.1 100 Continue\r\n\r\n", NULL},
};

/* Wherever the network cuts the request. */
static void answers(void **state)
{
    static const size_t cuts[] = {0, 1, 7};
    struct serve v;

    (void)state;
    serve_init(&v, 1, NULL, 256);
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        for (size_t k = 0; k < SW_COUNTOF(cuts); k++) {
            expect(&v, rows[i].name, rows[i].send, cuts[k], rows[i].begins, rows[i].has);
        }
    }
    serve_fini(&v);
}

static void token(void **state)
{
    struct serve v;

    (void)state;
    serve_init(&v, 1, NULL, 256);
    v.g->config.admin_token = SW_S("0123456789");
    expect(&v, "without", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 401 Unauthorized\r\n",
           "WWW-Authenticate: Bearer realm=\"stateway admin\"\r\n");
    expect(&v, "wrong", "GET /metrics HTTP/1.1" H "Authorization: Bearer 0123456780\r\n\r\n", 0,
           "HTTP/1.1 401 ", NULL);
    expect(&v, "right", "GET /metrics HTTP/1.1" H "Authorization: Bearer 0123456789\r\n\r\n", 0,
           "HTTP/1.1 200 ", NULL);
    expect(&v, "open", "GET /healthz HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ", NULL);
    expect(&v, "hidden", "POST /v1/apps/shop/roll HTTP/1.1" H "Stateway-Admin: 1\r\n\r\n", 0,
           "HTTP/1.1 401 ", NULL);
    assert_int_equal(v.g->command_count, 0);
    serve_fini(&v);
}

static void readiness(void **state)
{
    struct serve v;

    (void)state;
    serve_init(&v, 1, NULL, 256);
    v.g->ready = false;
    expect(&v, "starting", "GET /readyz HTTP/1.1" H "\r\n", 0, "HTTP/1.1 503 ",
           "\r\n\r\nnot ready: the gateway is still starting\n");
    v.g->instances[3].state = SW_INSTANCE_UNHEALTHY;
    expect(&v, "an app", "GET /readyz HTTP/1.1" H "\r\n", 0, "HTTP/1.1 503 ",
           "\r\n\r\nnot ready: app blog has no healthy instance\n");
    v.g->ready = true;
    v.g->stopping = true;
    expect(&v, "stopping", "GET /readyz HTTP/1.1" H "\r\n", 0, "HTTP/1.1 503 ",
           "\r\n\r\nstopping: ");
    expect(&v, "still alive", "GET /healthz HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "Connection: close\r\n");
    serve_fini(&v);
}

static void commands(void **state)
{
    static const struct {
        const char *path, *command;
    } paths[] = {
        {"/v1/apps/shop/roll", "roll shop"},
        {"/v1/instances/shop/2/drain", "drain shop/2"},
        {"/v1/instances/shop/2/undrain", "undrain shop/2"},
        {"/v1/instances/shop/2/kill", "kill shop/2"},
    };
    static const struct {
        enum sw_err err;
        const char *begins, *has;
    } errors[] = {
        {SW_OK, "HTTP/1.1 202 ", "accepted"},
        {SW_E_NOT_FOUND, "HTTP/1.1 404 ", "\"reason\":\"not-found\""},
        {SW_E_CONFLICT, "HTTP/1.1 409 ", "\"reason\":\"conflict\""},
        {SW_E_UNSUPPORTED, "HTTP/1.1 501 ", "\"reason\":\"unsupported\""},
        {SW_E_NO_MEMORY, "HTTP/1.1 503 ", "\"reason\":\"no-memory\""},
        {SW_E_SYSTEM, "HTTP/1.1 500 ", "\"reason\":\"system\""},
    };
    struct serve v;

    (void)state;
    serve_init(&v, 1, NULL, 256);
    for (size_t i = 0; i < SW_COUNTOF(paths); i++) {
        for (size_t k = 0; k < SW_COUNTOF(errors); k++) {
            char send[256];
            unsigned before = v.g->command_count;

            v.g->command_err = errors[k].err;
            v.g->command[0] = '\0';
            (void)snprintf(send, sizeof(send), "POST %s HTTP/1.1" H "Stateway-Admin: 1\r\n\r\n",
                           paths[i].path);
            expect(&v, paths[i].path, send, 0, errors[k].begins, errors[k].has);
            assert_string_equal(v.g->command, paths[i].command);
            assert_int_equal(v.g->command_count, before + 1);
        }
    }
    serve_fini(&v);
}

/* ---- counters -------------------------------------------------------------------------------- */

static void counters(void **state)
{
    struct serve v;

    (void)state;
    serve_init(&v, 1, NULL, 256);
    for (size_t w = 0; w < 2; w++) { /* workers put their rows where they like */
        v.g->stats[w].rows[17 + w].key = world_key(0, SW_PLACE_SESSION, 200, SW_VERDICT_UPDATED);
        v.g->stats[w].rows[17 + w].count = 20 + w;
        v.g->stats[w].latency[0][SW_PLACE_SESSION].bucket[2] = 1;
        v.g->stats[w].latency[0][SW_PLACE_SESSION].sum_ns = 2000000;
        v.g->stats[w].errors[SW_E_APP_SLOW] = 3;
        v.g->stats[w].retries = 5;
    }
    v.g->stats[0].rows[3].key = world_key(SW_APPS_MAX, SW_PLACE_NONE, 404, SW_VERDICT_NONE);
    v.g->stats[0].rows[3].count = 9;
    assert_int_equal(sw_store_open_mem(NULL, &v.g->store), SW_OK);
    atomic_store(&v.g->stats[1].claims_replayed, 4);
    atomic_store(&v.g->stats[0].alarms_dropped, 1);
    v.g->large.used = 4711;
    expect(&v, "rows", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_exchanges_total{app=\"shop\",placement=\"session\",status=\"200\",verdict="
           "\"updated\"} 41\n");
    expect(&v, "no route", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_exchanges_total{app=\"\",placement=\"none\",status=\"404\",verdict=\"none\"} "
           "9\n");
    expect(
        &v, "latency", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
        "stateway_exchange_duration_seconds_sum{app=\"shop\",placement=\"session\"} 0.004000000\n");
    expect(&v, "configured", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_exchange_duration_seconds_count{app=\"shop\",placement=\"sticky\"} 0\n");
    expect(&v, "errors", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_errors_total{reason=\"app-slow\"} 6\n");
    expect(&v, "retries", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_retries_total 10\n");
    expect(&v, "store", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_store_records 0\n");
    expect(&v, "claims", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_idempotency_total{outcome=\"replayed\"} 4\n");
    expect(&v, "alarms", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_alarms_total{outcome=\"dropped\"} 1\n");
    expect(&v, "large", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_large_bytes{of=\"exchanges\"} 4711\n");
    expect(&v, "log", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_access_log_dropped_total 7\n");
    expect(&v, "instances", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ",
           "stateway_instance_sessions{app=\"shop\",instance=\"shop/1\"} 4\n");
    serve_fini(&v);
}

/* ---- connections ----------------------------------------------------------------------------- */

static size_t count(const char *text, const char *word)
{
    size_t n = 0;

    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word)) {
        n++;
    }
    return n;
}

static void head_requests(void **state)
{
    struct serve v;
    struct client *head, *get;
    const char *end;

    (void)state;
    serve_init(&v, 1, NULL, 256);
    head = client_new(&v, "HEAD /v1/apps HTTP/1.1" H "\r\nHEAD /x HTTP/1.1" H
                          "\r\nHEAD /healthz HTTP/1.1" H "Connection: close\r\n\r\n");
    get = client_new(&v, "GET /v1/apps HTTP/1.1" H "\r\n");
    run_s(&v, 1);
    assert_int_equal(count(head->got, "HTTP/1.1 "), 3);
    end = strstr(get->got, "\r\n\r\n");
    assert_non_null(end);
    assert_memory_equal(head->got, get->got, (size_t)(end - get->got)); /* same length told */
    assert_true(sw_slice_ends(sw_slice_cstr(head->got), SW_S("Connection: close\r\n\r\n")));
    assert_null(strstr(head->got, "{"));
    assert_true(head->ended);
    client_free(head);
    client_free(get);
    serve_fini(&v);
}

static void pipelined(void **state)
{
    struct serve v;
    struct client *c;

    (void)state;
    for (size_t cut = 0; cut < 70; cut++) {
        serve_init(&v, 1, NULL, 256);
        c = client_new(&v, "GET /healthz HTTP/1.1" H "\r\n"
                           "POST /v1/apps/shop/roll HTTP/1.1" H
                           "Stateway-Admin: 1\r\nContent-Length: 3\r\n\r\nabc"
                           "\r\nGET /metrics HTTP/1.1" H "\r\n"
                           "GET /v1/apps HTTP/1.1" H "\r\n"
                           "GET /healthz HTTP/1.1" H "\r\n");
        c->send_cut = cut;
        c->half_close = cut % 2 == 1; /* what was sent before the end is answered */
        run_s(&v, 1);
        assert_int_equal(count(c->got, "HTTP/1.1 200 OK"), 4);
        assert_int_equal(count(c->got, "HTTP/1.1 202 "), 1);
        assert_int_equal(v.g->command_count, 1);
        assert_int_equal(c->ended, c->half_close);
        client_free(c);
        serve_fini(&v);
    }
}

static void times_out(void **state)
{
    static const struct {
        const char *name, *send;
        double after_s;
        const char *begins;
    } slow[] = {
        {"idle", "", 75, ""},
        {"idle after an answer", "GET /healthz HTTP/1.1" H "\r\n", 75, "HTTP/1.1 200 "},
        {"half a head", "GET /hea", 10, "HTTP/1.1 408 "},
        {"half a body",
         "POST /v1/apps/shop/roll HTTP/1.1" H "Stateway-Admin: 1\r\nContent-Length: 3\r\n\r\na", 10,
         "HTTP/1.1 408 "},
    };
    struct serve v;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(slow); i++) {
        struct client *c;

        serve_init(&v, 1, NULL, 256);
        c = client_new(&v, slow[i].send);
        run_s(&v, slow[i].after_s - 1);
        assert_false(c->ended);
        run_s(&v, 2);
        assert_true(c->ended);
        assert_int_equal(strncmp(c->got, slow[i].begins, strlen(slow[i].begins)), 0);
        assert_int_equal(v.g->command_count, 0);
        client_free(c);
        run_s(&v, 3);
        assert_true(sw_sim_idle(v.sim));
        serve_fini(&v);
    }
}

/* Readers that never read hold pages, but not for long, and not those of others. */
static void deaf_readers(void **state)
{
    struct sw_sim_faults faults = {
        .delay_min_ns = 1000, .delay_max_ns = 2000, .pipe_bytes_min = 1000, .pipe_bytes_max = 2000};
    struct client *deaf[ADMIN_PAGES_MAX + 2], *c;
    struct serve v;

    (void)state;
    serve_init(&v, 1, &faults, 256);
    for (size_t i = 0; i < SW_COUNTOF(deaf); i++) {
        deaf[i] = client_new(&v, "GET /metrics HTTP/1.1" H "\r\n");
        deaf[i]->deaf = true;
    }
    run_s(&v, 1);
    c = client_new(&v, "GET /metrics HTTP/1.1" H "Connection: close\r\n\r\n");
    run_s(&v, 3);
    assert_int_equal(strncmp(c->got, "HTTP/1.1 200 ", 13), 0); /* a page of theirs, still new */
    assert_true(c->ended);
    client_free(c);
    c = client_new(&v, "GET /v1/apps HTTP/1.1" H "Connection: close\r\n\r\n");
    run_s(&v, 3);
    assert_int_equal(strncmp(c->got, "HTTP/1.1 503 ", 13), 0); /* nobody has such a page */
    assert_non_null(strstr(c->got, "Retry-After: 1\r\n"));
    client_free(c);
    expect(&v, "health", "GET /healthz HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ", NULL);
    run_s(&v, 15);
    expect(&v, "after", "GET /v1/apps HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ", NULL);
    run_s(&v, 80);
    for (size_t i = 0; i < SW_COUNTOF(deaf); i++) {
        client_free(deaf[i]);
    }
    run_s(&v, 3);
    assert_true(sw_list_empty(&((struct sw_admin *)v.admin)->list));
    serve_fini(&v);
}

/* All slots taken by the silent: who asks is served. */
static void crowd(void **state)
{
    struct client *quiet[SW_ADMIN_CONNECTIONS_MAX + 10];
    struct serve v;
    size_t ended = 0;

    (void)state;
    serve_init(&v, 1, NULL, 256);
    for (size_t i = 0; i < SW_COUNTOF(quiet); i++) {
        quiet[i] = client_new(&v, i == 7  ? "GET /healthz HTTP/1.1" H "\r\n"
                                  : i % 2 ? "GET /hea"
                                          : "");
        run_s(&v, 0.01);
    }
    assert_true(quiet[7]->ended); /* served and silent: the first to go */
    assert_non_null(strstr(quiet[7]->got, "ok\n"));
    expect(&v, "one more", "GET /metrics HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ", NULL);
    for (size_t i = 0; i < SW_COUNTOF(quiet); i++) {
        ended += quiet[i]->ended;
        client_free(quiet[i]);
    }
    assert_int_equal(ended, 11);
    serve_fini(&v);
}

/* Nearly no buffers: slower, not wrong. */
static void starved(void **state)
{
    struct client *c[20];
    struct serve v;

    (void)state;
    serve_init(&v, 1, NULL, 3);
    for (size_t i = 0; i < SW_COUNTOF(c); i++) {
        c[i] = client_new(&v, "GET /metrics HTTP/1.1" H "Connection: close\r\n\r\n");
    }
    run_s(&v, 30);
    for (size_t i = 0; i < SW_COUNTOF(c); i++) {
        assert_true(c[i]->ended);
        assert_int_equal(strncmp(c[i]->got, "HTTP/1.1 200 ", 13), 0);
        assert_true(sw_slice_ends(sw_slice_cstr(c[i]->got), SW_S("\n")));
        assert_non_null(strstr(c[i]->got, "process_start_time_seconds "));
        client_free(c[i]);
    }
    serve_fini(&v);
}

/* What is sent without end, with no answer taken, has an end. */
static void floods(void **state)
{
    static char flood[400000];
    struct client *c;
    struct serve v;

    (void)state;
    serve_init(&v, 1, NULL, 256);
    memset(flood, 'a', sizeof(flood) - 1);
    expect(&v, "endless line", flood, 0, "HTTP/1.1 4", NULL);
    memcpy(flood, "GET /x HTTP/1.1\r\nHost: x\r\nA: ", 29);
    expect(&v, "endless field", flood, 0, "HTTP/1.1 431 ", NULL);
    for (size_t i = 0; i + 1 < sizeof(flood);) {
        static const char request[] = "GET /v1/apps HTTP/1.1" H "\r\n";
        size_t n = SW_MIN(sizeof(request) - 1, sizeof(flood) - 1 - i);

        memcpy(flood + i, request, n);
        i += n;
    }
    c = client_new(&v, flood);
    c->deaf = true;
    run_s(&v, 60);
    sw_stream_read_start(c->stream);
    run_s(&v, 1);
    assert_true(c->ended);
    client_free(c);
    serve_fini(&v);
}

/* Answers in what came, each as long as it said; the last one may have been cut by the network, or
 * by our patience. */
static size_t whole_answers(const struct client *c)
{
    const char *at = c->got, *end = c->got + c->len;
    size_t whole = 0;

    while (at < end) {
        const char *head_end = strstr(at, "\r\n\r\n"), *length;
        uint64_t n = 0;
        size_t digits;

        if (head_end == NULL) {
            return whole;
        }
        assert_int_equal(strncmp(at, "HTTP/1.1 ", 9), 0);
        length = strstr(at, "Content-Length: ");
        assert_true(length != NULL && length < head_end);
        length += 16;
        digits = strspn(length, "0123456789");
        assert_true(sw_slice_u64(sw_slice_of(length, digits), &n));
        if (n > (size_t)(end - head_end) - 4) {
            return whole;
        }
        at = head_end + 4 + n;
        assert_int_equal(at[-1], '\n');
        whole++;
    }
    return whole;
}

/* Under faults: each answer that arrives whole is right, and in the end all is quiet. */
static void faults(void **state)
{
    size_t whole = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        static const char *const sends[] = {
            "GET /metrics HTTP/1.1" H "Connection: close\r\n\r\n",
            "GET /v1/apps HTTP/1.1" H "\r\nGET /v1/status HTTP/1.1" H "Connection: close\r\n\r\n",
            "POST /v1/apps/shop/roll HTTP/1.1" H "Stateway-Admin: 1\r\nContent-Length: 3\r\n\r\nabc"
            "GET /healthz HTTP/1.1" H "Connection: close\r\n\r\n",
            "nonsense\r\n\r\n",
        };
        struct sw_rng rng;
        struct sw_sim_faults f;
        struct client *c[40];
        struct serve v;

        sw_rng_seed(&rng, seed);
        f = sw_sim_faults_swarm(&rng, seed % 2 == 0);
        serve_init(&v, seed, &f, 40);
        for (size_t i = 0; i < SW_COUNTOF(c); i++) {
            c[i] = client_new(&v, sends[sw_rng_below(&rng, SW_COUNTOF(sends))]);
            c[i]->deaf = sw_rng_below(&rng, 10) == 0;
            c[i]->send_cut = (size_t)sw_rng_below(&rng, 30);
            c[i]->half_close = sw_rng_below(&rng, 5) == 0;
            run_s(&v, 0.001 * (double)sw_rng_below(&rng, 3));
        }
        run_s(&v, 300);
        sw_sim_set_faults(v.sim, NULL);
        run_s(&v, 300);
        for (size_t i = 0; i < SW_COUNTOF(c); i++) {
            whole += whole_answers(c[i]);
            client_free(c[i]);
        }
        run_s(&v, 10);
        assert_true(sw_list_empty(&((struct sw_admin *)v.admin)->list));
        expect(&v, "alive", "GET /healthz HTTP/1.1" H "\r\n", 0, "HTTP/1.1 200 ", NULL);
        serve_fini(&v);
    }
    assert_in_range(whole, 150 * 20, 150 * 80); /* most of them, for the faults are not that hard */
}

/* Closed while answers are on their way. */
static void closed_early(void **state)
{
    (void)state;
    for (size_t steps = 0; steps < 60; steps++) {
        struct client *c[3];
        struct serve v;

        serve_init(&v, 3, NULL, 256);
        c[0] = client_new(&v, "GET /metrics HTTP/1.1" H "\r\n");
        c[1] = client_new(&v, "POST /v1/apps/shop/roll HTTP/1.1" H
                              "Content-Length: 9\r\nStateway-Admin: 1\r\n\r\n");
        c[2] = client_new(&v, "GE");
        for (size_t i = 0; i < steps; i++) {
            (void)sw_sim_step(v.sim, UINT64_MAX);
        }
        for (size_t i = 0; i < SW_COUNTOF(c); i++) {
            client_free(c[i]);
        }
        serve_fini(&v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers),      cmocka_unit_test(token),
        cmocka_unit_test(readiness),    cmocka_unit_test(commands),
        cmocka_unit_test(counters),     cmocka_unit_test(head_requests),
        cmocka_unit_test(pipelined),    cmocka_unit_test(times_out),
        cmocka_unit_test(deaf_readers), cmocka_unit_test(crowd),
        cmocka_unit_test(starved),      cmocka_unit_test(floods),
        cmocka_unit_test(faults),       cmocka_unit_test(closed_early),
    };
    sw_log_setup(2, SW_LOG_ERROR, false, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
