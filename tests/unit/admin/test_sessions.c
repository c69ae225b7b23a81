/* admin/: sessions and subjects over the simulated network, with a real store behind them. */
#include "serve.h"

#include "base/json.h"
#include "crypto/crypto.h"

#define H     "\r\nHost: 127.0.0.1:9000\r\n"
#define G     H "Stateway-Admin: 1\r\n" /* with the guard */
#define CLOSE "Connection: close\r\n"

/* ---- states ---------------------------------------------------------------------------------- */

struct putting {
    struct sw_store_commit op;
    bool done;
};

static void put_done(struct sw_store_commit *op)
{
    struct putting *p = op->arg;

    p->done = true;
}

static struct sw_store_key key_of(unsigned n)
{
    struct sw_store_key key;
    char text[16];
    int len = snprintf(text, sizeof(text), "%u", n);

    sw_sha256(sw_slice_of(text, (size_t)len), key.bytes);
    return key;
}

/* 43 characters and NUL. */
static const char *handle_of(const struct sw_store_key *key)
{
    static char text[8][ADMIN_HANDLE_BYTES + 1];
    static unsigned turn;
    char *to = text[turn++ % 8];
    struct sw_out out = sw_out_init(to, ADMIN_HANDLE_BYTES);

    sw_admin__handle_put(&out, key);
    to[out.len] = '\0';
    return to;
}

static int64_t now_s(const struct serve *v)
{
    return sw_loop_now_unix_s(v->loop);
}

static enum sw_err write_one(struct serve *v, const struct sw_write *w, struct sw_version *ret)
{
    struct putting p = {.op = {.count = 1, .loop = v->loop, .done = put_done}};

    p.op.arg = &p;
    p.op.now_unix_s = now_s(v);
    p.op.writes[0] = *w;
    sw_store_commit(v->g->store, &p.op);
    for (int i = 0; i < 1000 && !p.done; i++) {
        run_s(v, 0.01);
    }
    assert_true(p.done);
    if (ret != NULL) {
        *ret = p.op.writes[0].ret_version;
    }
    return p.op.err;
}

static struct sw_write state_write(const struct serve *v, struct sw_store_key key,
                                   const char *subject, const char *value)
{
    return (struct sw_write){
        .kind = SW_WRITE_PUT,
        .key = key,
        .record = SW_RECORD_STATE,
        .expect = SW_EXPECT_VERSION,
        .expires_unix_s = now_s(v) + 1800,
        .absolute_unix_s = now_s(v) + 86400,
        .subject = sw_slice_cstr(subject),
        .value = sw_slice_cstr(value),
    };
}

static struct sw_store_key put_state(struct serve *v, unsigned n, const char *subject,
                                     const char *value)
{
    struct sw_store_key key = key_of(n);
    struct sw_write w = state_write(v, key, subject, value);

    assert_int_equal(write_one(v, &w, NULL), SW_OK);
    return key;
}

/* Many at once: of alice, bob, and nobody, by turns. */
static void put_many(struct serve *v, unsigned count)
{
    static const char *const subjects[] = {"alice", "bob", ""};
    struct putting *all = calloc(count, sizeof(*all));
    char(*values)[64] = calloc(count, sizeof(*values));

    assert_non_null(all);
    assert_non_null(values);
    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(values[i], sizeof(values[i]), "{\"n\":%u,\"cart\":[1,2,3]}", i);
        all[i].op = (struct sw_store_commit){
            .count = 1, .loop = v->loop, .done = put_done, .arg = &all[i], .now_unix_s = now_s(v)};
        all[i].op.writes[0] = state_write(v, key_of(i), subjects[i % 3], values[i]);
        sw_store_commit(v->g->store, &all[i].op);
    }
    run_s(v, 1);
    for (unsigned i = 0; i < count; i++) {
        assert_true(all[i].done);
        assert_int_equal(all[i].op.err, SW_OK);
    }
    free(all);
    free(values);
}

static void start(struct serve *v, uint64_t seed, const struct sw_sim_faults *faults)
{
    struct sw_store_options opt = {.queue_max = 65536};

    serve_init(v, seed, faults, 256);
    assert_int_equal(sw_store_open_mem(&opt, &v->g->store), SW_OK);
}

static struct sw_admin *admin_of(const struct serve *v)
{
    return v->admin;
}

/* Nothing is held for anybody. */
static void at_rest(const struct serve *v)
{
    assert_int_equal(admin_of(v)->large.used, 0);
    assert_int_equal(admin_of(v)->transfers, 0);
    assert_true(sw_list_empty(&admin_of(v)->list));
    assert_true(sw_list_empty(&admin_of(v)->gone));
}

static const char *body_of(const struct client *c)
{
    const char *end = strstr(c->got, "\r\n\r\n");

    if (end == NULL) {
        fail_msg("no whole head: %s", c->got);
    }
    return end + 4;
}

static bool begins(const struct client *c, const char *text)
{
    return strncmp(c->got, text, strlen(text)) == 0;
}

/* Asks and compares; `has` may be NULL. */
#define ASK(v, start_of, has_text, ...)                                                            \
    do {                                                                                           \
        struct client *c_ = client_ask((v), __VA_ARGS__);                                          \
        const char *has_ = (has_text);                                                             \
        run_s((v), 1);                                                                             \
        if (!begins(c_, (start_of)) || (has_ != NULL && strstr(c_->got, has_) == NULL)) {          \
            fail_msg("%s\nwanted %s, %s; got\n%s", c_->send, (start_of), has_, c_->got);           \
        }                                                                                          \
        client_free(c_);                                                                           \
        run_s((v), 0.01);                                                                          \
    } while (0)

/* The record as it is now. */
static enum sw_err load(struct serve *v, struct sw_store_key key, struct sw_record *ret,
                        char *block, size_t size)
{
    struct sw_arena arena;
    struct sw_store_load op = {.key = key, .now_unix_s = now_s(v), .loop = v->loop};

    sw_arena_init(&arena, block, size);
    op.arena = &arena;
    assert_int_equal(sw_store_load(v->g->store, &op), SW_STEP_DONE);
    *ret = op.record;
    return op.err;
}

/* ---- lists ----------------------------------------------------------------------------------- */

/* Walks all pages; every handle once, in order. Returns how many there were. */
static unsigned walk(struct serve *v, const char *query, unsigned limit)
{
    char last[ADMIN_HANDLE_BYTES + 1] = "", after[ADMIN_HANDLE_BYTES + 8] = "";
    struct sw_store_key last_key = {{0}};
    unsigned count = 0;

    for (;;) {
        struct client *c = client_ask(v, "GET /v1/sessions?limit=%u%s%s HTTP/1.1" H CLOSE "\r\n",
                                      limit, query, after);
        struct sw_slice page, list, entry, name, handle, next;
        struct sw_json_checked checked;
        struct sw_json_iter it;
        unsigned here = 0;

        run_s(v, 1);
        assert_true(begins(c, "HTTP/1.1 200 "));
        page = sw_slice_cstr(body_of(c));
        checked = sw_json_check(page);
        assert_int_equal(checked.err, SW_OK);
        assert_true(sw_json_get(page, SW_S("sessions"), &list));
        it = sw_json_iter(list);
        while (sw_json_next(&it, &name, &entry)) {
            struct sw_store_key key;

            assert_true(sw_json_get(entry, SW_S("handle"), &handle));
            handle = (struct sw_slice){handle.ptr + 1, handle.len - 2};
            assert_true(sw_admin__handle_read(handle, &key));
            assert_true(last[0] == '\0' || memcmp(&last_key, &key, sizeof(key)) < 0);
            last_key = key;
            (void)snprintf(last, sizeof(last), "%.*s", SW_SARG(handle));
            here++;
        }
        assert_true(here <= limit);
        count += here;
        assert_true(sw_json_get(page, SW_S("after"), &next));
        if (sw_json_type_of(next) == SW_JSON_NULL) {
            client_free(c);
            return count;
        }
        (void)snprintf(after, sizeof(after), "&after=%.*s", (int)next.len - 2, next.ptr + 1);
        client_free(c);
    }
}

static void lists(void **state)
{
    struct sw_write w;
    struct serve v;

    (void)state;
    start(&v, 1, NULL);
    assert_int_equal(walk(&v, "", 10), 0);
    put_many(&v, 10000);
    assert_int_equal(walk(&v, "", 1000), 10000);
    assert_int_equal(walk(&v, "&subject=alice", 1000), 3334);
    assert_int_equal(walk(&v, "&subject=bob", 777), 3333);
    assert_int_equal(walk(&v, "&subject=carol", 5), 0);
    assert_int_equal(walk(&v, "&subject=ali", 5), 0);
    /* what is no state is not listed */
    w = (struct sw_write){.kind = SW_WRITE_DELETE, .key = key_of(0), .expect = SW_EXPECT_EXISTS};
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    w = state_write(&v, key_of(20000), "", "\1\2");
    w.record = SW_RECORD_CLAIM;
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    assert_int_equal(walk(&v, "", 999), 9999);
    assert_int_equal(walk(&v, "&subject=alice", 1000), 3333);
    /* nor what has expired */
    sw_sim_wall_step(v.sim, 1801ll * 1000000000);
    run_s(&v, 1);
    assert_int_equal(walk(&v, "", 1000), 0);
    assert_int_equal(walk(&v, "&subject=bob", 1000), 0);
    run_s(&v, 100);
    at_rest(&v);
    serve_fini(&v);
}

static void list_entries(void **state)
{
    char extra[256];
    struct sw_out out = sw_out_init(extra, sizeof(extra));
    struct sw_alarm alarm = {SW_S("turn"), SW_S(""), 0, 0, 7, SW_S("room:42")};
    struct sw_write w;
    struct serve v;

    (void)state;
    start(&v, 1, NULL);
    alarm.due_unix_ms = (now_s(&v) + 30) * 1000;
    assert_true(sw_alarms_put(&out, &alarm, 1));
    w = state_write(&v, key_of(1), "zo\xc3\xab \"x\"", "{\"secret\":1}");
    w.extra = sw_out_done(&out);
    w.due_unix_ms = alarm.due_unix_ms;
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    ASK(&v, "HTTP/1.1 200 ", "\"subject\":\"zo\\u00eb \\\"x\\\"\",\"version\":\"",
        "GET /v1/sessions HTTP/1.1" H "\r\n");
    ASK(&v, "HTTP/1.1 200 ", "\"size\":12,\"sealed\":false,\"alarms\":1}",
        "GET /v1/sessions?subject=zo%%C3%%AB+%%22x%%22 HTTP/1.1" H "\r\n");
    {
        struct client *c = client_new(&v, "GET /v1/sessions HTTP/1.1" H CLOSE "\r\n");

        run_s(&v, 1);
        assert_null(strstr(c->got, "secret")); /* a list shows no values */
        assert_non_null(strstr(c->got, "Cache-Control: no-store\r\n"));
        client_free(c);
        c = client_new(&v, "HEAD /v1/sessions HTTP/1.1" H CLOSE "\r\n");
        run_s(&v, 1);
        assert_int_equal(*body_of(c), '\0');
        client_free(c);
    }
    serve_fini(&v);
}

static void no_store(void **state)
{
    static const char *const requests[] = {
        "GET /v1/sessions HTTP/1.1" H "\r\n",
        "GET /v1/sessions/export HTTP/1.1" H "\r\n",
        "POST /v1/sessions/import HTTP/1.1" G "Content-Length: 0\r\n\r\n",
        "GET /v1/subjects/a HTTP/1.1" H "\r\n",
        "DELETE /v1/subjects/a HTTP/1.1" G "\r\n",
        "GET /v1/sessions/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA HTTP/1.1" H "\r\n",
        "PUT /v1/sessions/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA HTTP/1.1" G
        "Content-Length: 2\r\n\r\n{}",
    };
    struct serve v;

    (void)state;
    serve_init(&v, 1, NULL, 256);
    for (size_t i = 0; i < SW_COUNTOF(requests); i++) {
        ASK(&v, "HTTP/1.1 503 ", "\"reason\":\"no-store\"", "%s", requests[i]);
    }
    serve_fini(&v);
}

/* ---- one ------------------------------------------------------------------------------------- */

static void shows(void **state)
{
    struct sw_store_key key, first = {{0}}, last;
    struct sw_write w;
    struct serve v;

    (void)state;
    memset(&last, 0xff, sizeof(last));
    start(&v, 1, NULL);
    key = put_state(&v, 1, "alice", "{\"n\":1.10}");
    ASK(&v, "HTTP/1.1 200 OK\r\n", "\"value\":{\"n\":1.10}}\n",
        "GET /v1/sessions/%s HTTP/1.1" H "\r\n", handle_of(&key));
    ASK(&v, "HTTP/1.1 200 OK\r\n", "\r\nETag: \"", "GET /v1/sessions/%s HTTP/1.1" H "\r\n",
        handle_of(&key));
    key = key_of(2);
    ASK(&v, "HTTP/1.1 404 ", "\"reason\":\"not-found\"", "GET /v1/sessions/%s HTTP/1.1" H "\r\n",
        handle_of(&key));
    /* the first and the last of all keys, with and without neighbours */
    ASK(&v, "HTTP/1.1 404 ", NULL, "GET /v1/sessions/%s HTTP/1.1" H "\r\n", handle_of(&first));
    ASK(&v, "HTTP/1.1 404 ", NULL, "GET /v1/sessions/%s HTTP/1.1" H "\r\n", handle_of(&last));
    w = state_write(&v, first, "", "{\"first\":1}");
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    w = state_write(&v, last, "", "{\"last\":1}");
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    ASK(&v, "HTTP/1.1 200 ", "{\"first\":1}", "GET /v1/sessions/%s HTTP/1.1" H "\r\n",
        handle_of(&first));
    ASK(&v, "HTTP/1.1 200 ", "{\"last\":1}", "GET /v1/sessions/%s HTTP/1.1" H "\r\n",
        handle_of(&last));
    first.bytes[30] = 1; /* a key whose neighbour differs in more than its last byte */
    w = state_write(&v, first, "", "{\"carry\":1}");
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    ASK(&v, "HTTP/1.1 200 ", "{\"carry\":1}", "GET /v1/sessions/%s HTTP/1.1" H "\r\n",
        handle_of(&first));
    /* what is sealed is not shown */
    w = state_write(&v, key_of(3), "", "CIPHER");
    w.sealed = true;
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    key = key_of(3);
    ASK(&v, "HTTP/1.1 200 ", "\"size\":6,\"sealed\":true,\"alarms\":0}\n",
        "GET /v1/sessions/%s HTTP/1.1" H "\r\n", handle_of(&key));
    /* what has ended is not there */
    w = (struct sw_write){.kind = SW_WRITE_DELETE, .key = key, .expect = SW_EXPECT_EXISTS};
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    ASK(&v, "HTTP/1.1 404 ", NULL, "GET /v1/sessions/%s HTTP/1.1" H "\r\n", handle_of(&key));
    run_s(&v, 100);
    at_rest(&v);
    serve_fini(&v);
}

/* ---- writing --------------------------------------------------------------------------------- */

#define PUT(lines, body)                                                                           \
    "PUT /v1/sessions/%s HTTP/1.1" G lines "Content-Length: %zu\r\n\r\n" body, handle_of(&key),    \
        sizeof(body) - 1
#define JSON "Content-Type: application/json\r\n"

static void replaces(void **state)
{
    char block[4096], etag[SW_VERSION_TEXT_MAX + 1];
    struct sw_out out;
    struct sw_store_key key;
    struct sw_record r;
    struct sw_write w;
    struct sw_version version;
    struct serve v;
    int64_t expires;

    (void)state;
    start(&v, 1, NULL);
    key = key_of(1);
    w = state_write(&v, key, "alice", "{\"n\":1}");
    assert_int_equal(write_one(&v, &w, &version), SW_OK);
    expires = w.expires_unix_s;
    out = sw_out_init(etag, sizeof(etag) - 1);
    sw_version_put(&out, version);
    etag[out.len] = '\0';

    ASK(&v, "HTTP/1.1 415 ", "\"media\"", PUT("", "{}"));
    ASK(&v, "HTTP/1.1 428 ", "\"condition\"", PUT(JSON, "{}"));
    ASK(&v, "HTTP/1.1 403 ", "\"guard\"",
        "PUT /v1/sessions/%s HTTP/1.1" H JSON "If-Match: *\r\nContent-Length: 2\r\n\r\n{}",
        handle_of(&key));
    ASK(&v, "HTTP/1.1 412 ", "\"stage-match\"", PUT(JSON "If-Match: \"1-1\"\r\n", "{}"));
    ASK(&v, "HTTP/1.1 412 ", "\"stage-match\"", PUT(JSON "If-None-Match: *\r\n", "{}"));
    ASK(&v, "HTTP/1.1 422 ", "\"json\"", PUT(JSON "If-Match: *\r\n", "[]"));
    ASK(&v, "HTTP/1.1 422 ", "\"json\"", PUT(JSON "If-Match: *\r\n", "{"));
    ASK(&v, "HTTP/1.1 422 ", "\"json\"", PUT(JSON "If-Match: *\r\n", "{\"a\":1,\"a\":2}"));
    ASK(&v, "HTTP/1.1 422 ", "\"json\"", PUT(JSON "If-Match: *\r\n", ""));
    assert_int_equal(load(&v, key, &r, block, sizeof(block)), SW_OK);
    assert_true(sw_slice_eq(r.value, SW_S("{\"n\":1}"))); /* none of these did anything */
    assert_true(sw_version_eq(r.version, version));

    run_s(&v, 5);
    ASK(&v, "HTTP/1.1 204 ", "ETag: \"",
        "PUT /v1/sessions/%s HTTP/1.1" G JSON
        "If-Match: %s\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{ \"n\r\n5\r\n\": 2 \r\n1\r\n}\r\n"
        "0\r\n\r\n",
        handle_of(&key), etag);
    assert_int_equal(load(&v, key, &r, block, sizeof(block)), SW_OK);
    assert_true(sw_slice_eq(r.value, SW_S("{\"n\":2}"))); /* compact */
    assert_int_equal(r.version.counter, version.counter + 1);
    assert_true(sw_slice_eq(r.subject, SW_S("alice"))); /* all else stays */
    assert_int_equal(r.expires_unix_s, expires);
    assert_int_equal(walk(&v, "&subject=alice", 10), 1);
    ASK(&v, "HTTP/1.1 412 ", NULL,
        "PUT /v1/sessions/%s HTTP/1.1" G JSON "If-Match: %s\r\nContent-Length: 2\r\n\r\n{}",
        handle_of(&key), etag); /* that version is gone */
    ASK(&v, "HTTP/1.1 204 ", NULL, PUT(JSON "If-Match: *\r\n", "{\"n\":3}"));

    key = key_of(2); /* a new one */
    ASK(&v, "HTTP/1.1 412 ", NULL, PUT(JSON "If-Match: *\r\n", "{\"n\":4}"));
    ASK(&v, "HTTP/1.1 204 ", NULL, PUT(JSON "If-None-Match: *\r\n", "{\"n\":4}"));
    assert_int_equal(load(&v, key, &r, block, sizeof(block)), SW_OK);
    assert_in_range(r.expires_unix_s - now_s(&v), 1790, 1800); /* the longest of the routes */
    assert_in_range(r.absolute_unix_s - now_s(&v), 86390, 86400);

    key = key_of(3); /* encrypted: not ours to write */
    w = state_write(&v, key, "", "CIPHER");
    w.sealed = true;
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    ASK(&v, "HTTP/1.1 409 ", "\"sealed\"", PUT(JSON "If-Match: *\r\n", "{\"n\":4}"));
    w = (struct sw_write){.kind = SW_WRITE_DELETE, .key = key, .expect = SW_EXPECT_EXISTS};
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    ASK(&v, "HTTP/1.1 412 ", NULL, PUT(JSON "If-Match: *\r\n", "{\"n\":4}"));
    ASK(&v, "HTTP/1.1 409 ", "\"state-gone\"", PUT(JSON "If-None-Match: *\r\n", "{\"n\":4}"));
    run_s(&v, 100);
    at_rest(&v);
    serve_fini(&v);
}

/* At the limit, above it, announced and not; what was too large leaves nothing behind. */
static void body_limits(void **state)
{
    static char large[70000];
    struct sw_store_key key = key_of(1);
    struct sw_record r;
    char *block = malloc(200000);
    struct serve v;

    (void)state;
    assert_non_null(block);
    start(&v, 1, NULL);
    for (size_t n = 65535; n <= 65538; n++) {
        const char *wanted = n <= 65536 ? "HTTP/1.1 204 " : "HTTP/1.1 413 ";

        memset(large, 'x', n);
        memcpy(large, "{\"a\":\"", 6);
        memcpy(large + n - 2, "\"}", 3);
        (void)put_state(&v, 1, "", "{}");
        ASK(&v, wanted, NULL,
            "PUT /v1/sessions/%s HTTP/1.1" G JSON "If-Match: *\r\nContent-Length: %zu\r\n\r\n%s",
            handle_of(&key), n, large);
        ASK(&v, wanted, NULL,
            "PUT /v1/sessions/%s HTTP/1.1" G JSON
            "If-Match: *\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n%s\r\n0\r\n\r\n",
            handle_of(&key), n, large);
        assert_int_equal(load(&v, key, &r, block, 200000), SW_OK);
        assert_int_equal(r.value.len, n <= 65536 ? n : 2);
        ASK(&v, "HTTP/1.1 204 ", NULL, "DELETE /v1/sessions/%s?entity=yes HTTP/1.1" G "\r\n",
            handle_of(&key));
    }
    /* 30000 letters of two bytes: within the limit as they came, above it as they are kept */
    memset(large, 0, sizeof(large));
    memcpy(large, "{\"a\":\"", 6);
    for (size_t i = 0; i < 30000; i++) {
        memcpy(large + 6 + 2 * i, "\xc3\xab", 2);
    }
    memcpy(large + 60006, "\"}", 3);
    (void)put_state(&v, 1, "", "{}");
    ASK(&v, "HTTP/1.1 413 ", "body-large",
        "PUT /v1/sessions/%s HTTP/1.1" G JSON "If-Match: *\r\nContent-Length: %zu\r\n\r\n%s",
        handle_of(&key), strlen(large), large);
    run_s(&v, 100);
    at_rest(&v);
    free(block);
    serve_fini(&v);
}

static void ends(void **state)
{
    char block[4096];
    struct sw_store_key key;
    struct sw_record r;
    struct sw_write w;
    struct sw_version version;
    struct serve v;

    (void)state;
    start(&v, 1, NULL);
    key = key_of(1);
    w = state_write(&v, key, "alice", "{\"n\":1}");
    assert_int_equal(write_one(&v, &w, &version), SW_OK);
    ASK(&v, "HTTP/1.1 403 ", "\"guard\"", "DELETE /v1/sessions/%s HTTP/1.1" H "\r\n",
        handle_of(&key));
    ASK(&v, "HTTP/1.1 412 ", NULL, "DELETE /v1/sessions/%s HTTP/1.1" G "If-Match: \"1-1\"\r\n\r\n",
        handle_of(&key));
    ASK(&v, "HTTP/1.1 204 ", NULL, "DELETE /v1/sessions/%s HTTP/1.1" G "\r\n", handle_of(&key));
    ASK(&v, "HTTP/1.1 404 ", NULL, "DELETE /v1/sessions/%s HTTP/1.1" G "\r\n", handle_of(&key));
    assert_int_equal(load(&v, key, &r, block, sizeof(block)), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    assert_true(r.expires_unix_s >= w.absolute_unix_s); /* as long as a cookie may still come */
    /* a request that ran meanwhile comes too late */
    w.version = version;
    assert_int_equal(write_one(&v, &w, NULL), SW_E_STATE_GONE);
    w.version = (struct sw_version){0, 0};
    assert_int_equal(write_one(&v, &w, NULL), SW_E_STATE_GONE);

    /* an entity: the running request comes too late as well, and a new one is a new one */
    key = key_of(2);
    w = state_write(&v, key, "", "{\"n\":1}");
    assert_int_equal(write_one(&v, &w, &version), SW_OK);
    ASK(&v, "HTTP/1.1 204 ", NULL, "DELETE /v1/sessions/%s?entity=yes HTTP/1.1" G "\r\n",
        handle_of(&key));
    w.version = version;
    assert_int_equal(write_one(&v, &w, NULL), SW_E_CONFLICT);
    w.version = (struct sw_version){0, 0};
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    serve_fini(&v);
}

/* ---- subjects -------------------------------------------------------------------------------- */

static void subjects(void **state)
{
    char block[4096];
    struct sw_store_key key;
    struct sw_record r;
    struct sw_write w;
    struct sw_version version;
    struct serve v;

    (void)state;
    start(&v, 1, NULL);
    (void)put_state(&v, 1, "alice", "{}");
    key = key_of(2);
    w = state_write(&v, key, "alice", "{}");
    assert_int_equal(write_one(&v, &w, &version), SW_OK);
    (void)put_state(&v, 3, "alic", "{}");
    (void)put_state(&v, 4, "alice2", "{}");
    (void)put_state(&v, 5, "", "{}");
    ASK(&v, "HTTP/1.1 200 ",
        "{\"subject\":\"alice\",\"sessions\":2,\"more\":false,\"not_before_ms\":null}\n",
        "GET /v1/subjects/alice HTTP/1.1" H "\r\n");
    ASK(&v, "HTTP/1.1 200 ", "\"ended\":2,\"more\":false,\"not_before_ms\":1",
        "DELETE /v1/subjects/alice HTTP/1.1" G "\r\n");
    ASK(&v, "HTTP/1.1 200 ", "\"sessions\":0,\"more\":false,\"not_before_ms\":1",
        "GET /v1/subjects?subject=alice HTTP/1.1" H "\r\n");
    ASK(&v, "HTTP/1.1 200 ", "\"ended\":0,", "DELETE /v1/subjects/alice HTTP/1.1" G "\r\n");
    assert_int_equal(walk(&v, "&subject=alice", 10), 0);
    assert_int_equal(walk(&v, "", 10), 3); /* nobody else */
    ASK(&v, "HTTP/1.1 404 ", NULL, "GET /v1/sessions/%s HTTP/1.1" H "\r\n", handle_of(&key));
    assert_int_equal(load(&v, key, &r, block, sizeof(block)), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    w.version = version; /* a request that ran meanwhile */
    assert_int_equal(write_one(&v, &w, NULL), SW_E_STATE_GONE);
    run_s(&v, 1);
    (void)put_state(&v, 6, "alice", "{}"); /* she logs in again */
    ASK(&v, "HTTP/1.1 200 ", "\"sessions\":1,", "GET /v1/subjects/alice HTTP/1.1" H "\r\n");

    w = state_write(&v, key_of(7), "", "{}"); /* any bytes */
    w.subject = SW_S("\0/\xff\r\n");
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    ASK(&v, "HTTP/1.1 200 ", "\"subject_b64\":\"AC__DQo\",\"ended\":1",
        "DELETE /v1/subjects?subject=%%00%%2f%%ff%%0d%%0a HTTP/1.1" G "\r\n");
    run_s(&v, 100);
    at_rest(&v);
    serve_fini(&v);
}

/* More than are counted: all of them end, and the answer says that it did not count them. */
static void crowded_subject(void **state)
{
    struct serve v;
    unsigned many = 3 * ADMIN_COUNT_MAX + 6;

    (void)state;
    start(&v, 1, NULL);
    put_many(&v, many);
    ASK(&v, "HTTP/1.1 200 ", "\"sessions\":10000,\"more\":true,",
        "GET /v1/subjects/alice HTTP/1.1" H "\r\n");
    ASK(&v, "HTTP/1.1 200 ", "\"ended\":10000,\"more\":true,",
        "DELETE /v1/subjects/alice HTTP/1.1" G "\r\n");
    ASK(&v, "HTTP/1.1 200 ", "\"sessions\":0,\"more\":false,",
        "GET /v1/subjects/alice HTTP/1.1" H "\r\n");
    serve_fini(&v);
}

/* ---- export and import ----------------------------------------------------------------------- */

/* The body of a chunked answer, decoded; false: it is not whole. */
static bool dechunk(const struct client *c, struct sw_slice *ret_body)
{
    char *to = (char *)(uintptr_t)body_of(c), *start_of = to;
    const char *at = to, *end = c->got + c->len;

    for (;;) {
        size_t digits = strspn(at, "0123456789abcdef");
        uint64_t n = 0;

        if (digits == 0 || (size_t)(end - at) < digits + 2) {
            return false;
        }
        assert_true(sw_slice_hex_u64(sw_slice_of(at, digits), &n));
        at += digits + 2;
        if (n > (size_t)(end - at)) {
            return false;
        }
        if (n == 0) {
            *ret_body = sw_slice_of(start_of, (size_t)(to - start_of));
            return (size_t)(end - at) >= 2;
        }
        memmove(to, at, n);
        to += n;
        at += n + 2;
    }
}

static size_t lines_of(struct sw_slice text)
{
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        n += text.ptr[i] == '\n';
    }
    return n;
}

/* A copy, NUL-terminated. */
static char *exported(struct serve *v, size_t *ret_lines)
{
    struct client *c = client_new(v, "GET /v1/sessions/export HTTP/1.1" H CLOSE "\r\n");
    struct sw_slice body = {NULL, 0};
    char *copy;

    run_s(v, 20);
    assert_true(begins(c, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(c->got, "Content-Type: application/x-ndjson\r\n"));
    assert_true(dechunk(c, &body));
    assert_true(c->ended);
    copy = malloc(body.len + 1);
    assert_non_null(copy);
    memcpy(copy, body.ptr, body.len);
    copy[body.len] = '\0';
    *ret_lines = lines_of(body);
    client_free(c);
    return copy;
}

#define IMPORT "POST /v1/sessions/import HTTP/1.1" G "Content-Type: application/x-ndjson\r\n"
#define IMPORT_OVER                                                                                \
    "POST /v1/sessions/import?mode=replace HTTP/1.1" G "Content-Type: application/x-ndjson\r\n"

static void import(struct serve *v, const char *lines, const char *status, const char *has)
{
    struct client *c = client_ask(v, IMPORT "Content-Length: %zu\r\n\r\n%s", strlen(lines), lines);

    run_s(v, 20);
    if (!begins(c, status) || strstr(c->got, has) == NULL) {
        fail_msg("wanted %s %s, got\n%s", status, has, c->got);
    }
    client_free(c);
    run_s(v, 0.1);
}

static void export_empty(void **state)
{
    struct serve v;
    size_t lines;

    (void)state;
    start(&v, 1, NULL);
    free(exported(&v, &lines));
    assert_int_equal(lines, 0);
    ASK(&v, "HTTP/1.1 505 ", NULL,
        "GET /v1/sessions/export HTTP/1.0\r\nHost: 127.0.0.1:9000\r\n\r\n");
    ASK(&v, "HTTP/1.1 200 ", "Transfer-Encoding: chunked\r\n",
        "HEAD /v1/sessions/export HTTP/1.1" H "\r\n");
    import(&v, "", "HTTP/1.1 200 ", "\"created\":0,\"replaced\":0,\"skipped\":0,\"failed\":0");
    import(&v, "\n\r\n \t \n", "HTTP/1.1 200 ",
           "\"created\":0,\"replaced\":0,\"skipped\":0,\"failed\":0");
    ASK(&v, "HTTP/1.1 415 ", "\"media\"",
        "POST /v1/sessions/import HTTP/1.1" G "Content-Length: 2\r\n\r\n{}");
    /* the connection goes on behind both */
    ASK(&v, "HTTP/1.1 200 ", "\r\n\r\nok\n",
        "GET /v1/sessions/export HTTP/1.1" H "\r\n" IMPORT
        "Content-Length: 0\r\n\r\nGET /healthz HTTP/1.1" H "\r\n");
    run_s(&v, 100);
    at_rest(&v);
    serve_fini(&v);
}

/* All kinds of records, and a large one, go to another store and are the same there. */
static void carried_over(void **state)
{
    static char large[65537];
    char extra[512], *before, *behind, *at_a, *at_b;
    struct sw_out out = sw_out_init(extra, sizeof(extra));
    struct sw_alarm alarm = {SW_S("turn"), SW_S("{}"), 0, 1, 7, SW_S("room:42")};
    struct sw_write w;
    struct serve v;
    size_t lines = 0, again = 0;

    (void)state;
    start(&v, 1, NULL);
    put_many(&v, 3000);
    alarm.due_unix_ms = (now_s(&v) + 300) * 1000;
    assert_true(sw_alarms_put(&out, &alarm, 1));
    w = state_write(&v, key_of(5001), "", "{\"room\":42}");
    w.extra = sw_out_done(&out);
    w.due_unix_ms = alarm.due_unix_ms;
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    w = state_write(&v, key_of(5002), "", "CIPHER\xff");
    w.sealed = true;
    w.subject = SW_S("\xff\0");
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    w = state_write(&v, key_of(5003), "", "\1\2\3");
    w.record = SW_RECORD_CLAIM;
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    w = (struct sw_write){.kind = SW_WRITE_DELETE, .key = key_of(7), .expect = SW_EXPECT_EXISTS};
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    memset(large, 'x', sizeof(large) - 1);
    memcpy(large, "{\"a\":\"", 6);
    memcpy(large + sizeof(large) - 3, "\"}", 3);
    (void)put_state(&v, 5004, "alice", large);
    before = exported(&v, &lines);
    assert_int_equal(lines, 3004);
    serve_fini(&v);

    start(&v, 2, NULL);
    import(&v, before, "HTTP/1.1 200 ",
           "\"created\":3004,\"replaced\":0,\"skipped\":0,\"failed\":0,\"errors\":[]");
    behind = exported(&v, &again);
    assert_int_equal(again, lines);
    at_a = before;
    at_b = behind;
    while (*at_a != '\0') { /* the same, but for version and touched */
        size_t len_a = strcspn(at_a, "\n"), len_b = strcspn(at_b, "\n");
        char *rest_a = memmem(at_a, len_a, "\"expires\"", 9);
        char *rest_b = memmem(at_b, len_b, "\"expires\"", 9);
        char *made_a = memmem(at_a, len_a, "\"created\"", 9);
        char *made_b = memmem(at_b, len_b, "\"created\"", 9);

        assert_non_null(rest_a);
        assert_non_null(rest_b);
        assert_int_equal(len_a - (size_t)(rest_a - at_a), len_b - (size_t)(rest_b - at_b));
        assert_memory_equal(rest_a, rest_b, len_a - (size_t)(rest_a - at_a));
        assert_memory_equal(at_a, at_b, 60); /* the handle */
        if (memmem(at_a, len_a, "tombstone", 9) == NULL) {
            assert_memory_equal(made_a, made_b, 20);
        }
        at_a += len_a + 1;
        at_b += len_b + 1;
    }
    assert_int_equal(walk(&v, "&subject=alice", 1000), 1001);
    assert_int_equal(sw_store_next_due_unix_ms(v.g->store), alarm.due_unix_ms);

    /* once more: nothing is overwritten, and every state says so */
    import(&v, before, "HTTP/1.1 200 ",
           "\"created\":0,\"replaced\":0,\"skipped\":1,\"failed\":3003");
    import(&v, before, "HTTP/1.1 200 ",
           "{\"line\":1,\"error\":\"there is something under this handle");
    {
        struct client *c =
            client_ask(&v, IMPORT_OVER "Content-Length: %zu\r\n\r\n%s", strlen(before), before);

        run_s(&v, 20);
        assert_non_null(
            strstr(c->got, "\"created\":0,\"replaced\":3003,\"skipped\":1,\"failed\":0"));
        client_free(c);
    }
    free(before);
    free(behind);
    run_s(&v, 100);
    at_rest(&v);
    serve_fini(&v);
}

#define LINE(n_key, more) "{\"handle\":\"%s\",\"kind\":\"state\"" more "}\n"

/* What was ended here stays ended, whatever an old export says. */
static void import_meets_the_end(void **state)
{
    struct sw_store_key key = key_of(1), other = key_of(2), third = key_of(3);
    struct sw_write w;
    struct serve v;
    struct client *c;
    char *text = NULL;
    int n;

    (void)state;
    start(&v, 1, NULL);
    (void)put_state(&v, 1, "", "{}");
    w = (struct sw_write){.kind = SW_WRITE_DELETE, .key = key, .expect = SW_EXPECT_EXISTS};
    assert_int_equal(write_one(&v, &w, NULL), SW_OK);
    ASK(&v, "HTTP/1.1 200 ", "\"ended\":0", "DELETE /v1/subjects/alice HTTP/1.1" G "\r\n");
    n = asprintf(&text,
                 LINE(1, ",\"value\":{}")
                     LINE(2, ",\"value\":{},\"subject\":\"alice\",\"bound_ms\":1000")
                         LINE(3, ",\"value\":{},\"expires\":1000"),
                 handle_of(&key), handle_of(&other), handle_of(&third));
    assert_true(n > 0);
    import(&v, text, "HTTP/1.1 200 ",
           "\"created\":0,\"replaced\":0,\"skipped\":2,\"failed\":1,\"errors\":[\n{\"line\":1,");
    import(&v, text, "HTTP/1.1 200 ", "\"reason\":\"state-gone\"");
    c = client_ask(&v, IMPORT_OVER "Content-Length: %zu\r\n\r\n%s", strlen(text), text);
    run_s(&v, 1);
    assert_non_null(strstr(c->got, "\"created\":0,\"replaced\":0,\"skipped\":2,\"failed\":1"));
    client_free(c);
    assert_int_equal(walk(&v, "", 10), 0);
    free(text);
    serve_fini(&v);
}

/* Good lines among garbage, wherever the network and the chunks cut them. */
static void garbage_lines(void **state)
{
    static const size_t cuts[] = {0, 1, 3, 17, 1000};
    static const size_t chunks[] = {1, 2, 5, 64, 100000};
    struct sw_store_key key[3] = {key_of(1), key_of(2), key_of(3)};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(cuts); i++) {
        for (size_t k = 0; k < SW_COUNTOF(chunks); k++) {
            char *text = NULL, *body;
            struct client *c;
            struct serve v;
            size_t at = 0, size;
            struct sw_out out;
            int len;

            start(&v, 1, NULL);
            len = asprintf(
                &text,
                LINE(1, ",\"value\":{\"a\":1}") "\n"
                                                "garbage\n"
                                                "\r\n" LINE(
                                                    2, ",\"value\":{\"b\":\"\xc3\xab\"},\"more\":1")
                                                    LINE(3,
                                                         ",\"value\":{\"c\":3}") "{\"handle\":"
                                                                                 "\n" LINE(
                                                                                     1,
                                                                                     ",\"value\":"
                                                                                     "{\"twice\":"
                                                                                     "1}") "{\"ha"
                                                                                           "ndle"
                                                                                           "\":"
                                                                                           "\"%"
                                                                                           "s\","
                                                                                           "\"kin"
                                                                                           "d\":"
                                                                                           "\"sta"
                                                                                           "te\","
                                                                                           "\"val"
                                                                                           "ue\":"
                                                                                           "{\"d"
                                                                                           "\":4}"
                                                                                           "}\r\n"
                                                                                           "the "
                                                                                           "last "
                                                                                           "one "
                                                                                           "has "
                                                                                           "no "
                                                                                           "end",
                handle_of(&key[0]), handle_of(&key[1]), handle_of(&key[2]), handle_of(&key[0]),
                handle_of(&key[1]));
            assert_true(len > 0);
            size = (size_t)len * 12 + 1024;
            body = malloc(size);
            out = sw_out_init(body, size - 1);
            sw_out_lit(&out, IMPORT "Transfer-Encoding: chunked\r\n\r\n");
            while (at < (size_t)len) {
                size_t n = SW_MIN(chunks[k], (size_t)len - at);

                sw_out_printf(&out, "%zx\r\n", n);
                sw_out_put(&out, text + at, n);
                sw_out_lit(&out, "\r\n");
                at += n;
            }
            sw_out_lit(&out, "0\r\n\r\n");
            assert_false(out.overflowed);
            body[out.len] = '\0';
            c = client_new(&v, body);
            c->send_cut = cuts[i];
            run_s(&v, 10);
            if (strstr(c->got, "\"created\":3,\"replaced\":0,\"skipped\":0,\"failed\":5") == NULL ||
                strstr(c->got, "\n{\"line\":3,\"error\":\"this line is no JSON object\"") == NULL ||
                strstr(c->got, "\n{\"line\":5,\"error\":\"the line has a member that is") == NULL ||
                strstr(c->got, "\n{\"line\":7,\"error\":\"this line is no JSON object\"") == NULL ||
                strstr(c->got, "\n{\"line\":8,\"error\":\"there is something under") == NULL ||
                strstr(c->got, "\n{\"line\":10,\"error\":\"this line is no JSON object\"") ==
                    NULL) {
                fail_msg("cut %zu, chunks %zu: %s", cuts[i], chunks[k], c->got);
            }
            assert_int_equal(walk(&v, "", 10), 3);
            client_free(c);
            free(text);
            free(body);
            serve_fini(&v);
        }
    }
}

/* The first twenty are told, in their order, whoever found them; all are counted. */
static void many_errors(void **state)
{
    struct sw_store_key key = key_of(1);
    char *text = malloc(100000);
    struct sw_out out;
    struct client *c;
    struct serve v;
    const char *at;

    (void)state;
    assert_non_null(text);
    start(&v, 1, NULL);
    (void)put_state(&v, 1, "", "{}");
    out = sw_out_init(text, 99999);
    for (unsigned i = 0; i < 300; i++) {
        if (i % 3 == 0) {
            sw_out_lit(&out, "garbage\n");
        } else {
            sw_out_printf(&out, LINE(1, ",\"value\":{\"a\":1}"), handle_of(&key));
        }
    }
    assert_false(out.overflowed);
    text[out.len] = '\0';
    c = client_ask(&v, IMPORT "Content-Length: %zu\r\n\r\n%s", strlen(text), text);
    run_s(&v, 5);
    assert_non_null(strstr(c->got, "\"created\":0,\"replaced\":0,\"skipped\":0,\"failed\":300,"));
    at = c->got;
    for (unsigned line = 1; line <= 20; line++) {
        char want[32];

        (void)snprintf(want, sizeof(want), "{\"line\":%u,", line);
        at = strstr(at, want);
        if (at == NULL) {
            fail_msg("line %u: %s", line, c->got);
        }
    }
    assert_null(strstr(at, "{\"line\":21,"));
    client_free(c);
    free(text);
    serve_fini(&v);
}

/* A line without end takes no more memory than there is, and costs one line. */
static void endless_lines(void **state)
{
    size_t long_line = 400000;
    struct sw_store_key key = key_of(1);
    char *text = malloc(3 * long_line + 1000);
    struct sw_out out;
    struct serve v;

    (void)state;
    assert_non_null(text);
    start(&v, 1, NULL);
    out = sw_out_init(text, 3 * long_line + 999);
    for (size_t i = 0; i < long_line; i++) {
        sw_out_char(&out, '{');
    }
    sw_out_char(&out, '\n');
    sw_out_printf(&out, LINE(1, ",\"value\":{\"a\":1}"), handle_of(&key));
    for (size_t i = 0; i < long_line; i++) {
        sw_out_char(&out, ' ');
    }
    sw_out_char(&out, '\n');
    for (size_t i = 0; i < long_line; i++) { /* the last one never ends */
        sw_out_char(&out, '[');
    }
    assert_false(out.overflowed);
    text[out.len] = '\0';
    import(&v, text, "HTTP/1.1 200 ", "\"created\":1,\"replaced\":0,\"skipped\":0,\"failed\":3,");
    import(&v, text, "HTTP/1.1 200 ", "{\"line\":1,\"error\":\"the line is longer than any route");
    import(&v, text, "HTTP/1.1 200 ", "{\"line\":3,\"error\":\"the line is longer than any route");
    import(&v, text, "HTTP/1.1 200 ", "{\"line\":4,\"error\":\"the line is longer than any route");
    /* a state above every route's limit, in a line that fits */
    out = sw_out_init(text, 3 * long_line);
    sw_out_printf(&out, "{\"handle\":\"%s\",\"kind\":\"state\",\"value\":{\"a\":\"",
                  handle_of(&key));
    for (size_t i = 0; i < 65530; i++) {
        sw_out_char(&out, 'x');
    }
    sw_out_lit(&out, "\"}}\n");
    text[out.len] = '\0';
    import(&v, text, "HTTP/1.1 200 ",
           "\"failed\":1,\"errors\":[\n{\"line\":1,\"error\":\"the value is larger");
    free(text);
    run_s(&v, 100);
    at_rest(&v);
    serve_fini(&v);
}

/* ---- slow and broken ------------------------------------------------------------------------- */

/* Readers who take nothing: they hold a bounded memory, others are served, and they end. */
static void deaf_exports(void **state)
{
    struct sw_sim_faults faults = {
        .delay_min_ns = 1000, .delay_max_ns = 2000, .pipe_bytes_min = 1000, .pipe_bytes_max = 2000};
    struct client *deaf[ADMIN_TRANSFERS_MAX], *c;
    struct sw_slice body = {NULL, 0};
    struct serve v;
    size_t used;

    (void)state;
    start(&v, 1, &faults);
    put_many(&v, 10000);
    for (size_t i = 0; i < SW_COUNTOF(deaf); i++) {
        deaf[i] = client_new(&v, "GET /v1/sessions/export HTTP/1.1" H "\r\n");
        deaf[i]->deaf = true;
    }
    run_s(&v, 1);
    used = admin_of(&v)->large.used;
    assert_in_range(used, 4 * 65536, 4 * 80000); /* a chunk each, of 3 MB in all */
    ASK(&v, "HTTP/1.1 503 ", "Retry-After: 1\r\n", "GET /v1/sessions/export HTTP/1.1" H "\r\n");
    ASK(&v, "HTTP/1.1 503 ", "\"overloaded\"", IMPORT "Content-Length: 0\r\n\r\n");
    ASK(&v, "HTTP/1.1 200 ", "\"ended\":3334", "DELETE /v1/subjects/alice HTTP/1.1" G "\r\n");
    ASK(&v, "HTTP/1.1 200 ", "\"sessions\":[", "GET /v1/sessions?limit=3 HTTP/1.1" H "\r\n");
    assert_int_equal(admin_of(&v)->large.used, used);
    run_s(&v, 20);
    for (size_t i = 0; i < SW_COUNTOF(deaf); i++) {
        sw_stream_read_start(deaf[i]->stream);
    }
    run_s(&v, 5);
    for (size_t i = 0; i < SW_COUNTOF(deaf); i++) {
        assert_true(deaf[i]->ended);
        assert_false(dechunk(deaf[i], &body)); /* cut off: nobody takes it for whole */
        client_free(deaf[i]);
    }
    assert_int_equal(admin_of(&v)->transfers, 0);
    /* a slow one is no deaf one: it takes minutes, and gets all */
    c = client_new(&v, "GET /v1/sessions/export HTTP/1.1" H CLOSE "\r\n");
    for (int i = 0; i < 300 && !c->ended; i++) {
        run_s(&v, 0.005);
        sw_stream_read_stop(c->stream);
        run_s(&v, 1);
        sw_stream_read_start(c->stream);
    }
    run_s(&v, 60);
    assert_true(c->ended);
    assert_true(dechunk(c, &body));
    assert_int_equal(lines_of(body), 6666);
    client_free(c);
    run_s(&v, 100);
    at_rest(&v);
    serve_fini(&v);
}

struct fate {
    struct sw_store_fault fault;
    unsigned after; /* commits that go well before */
};

static struct sw_store_fault fate_of(void *arg, const struct sw_store_commit *op)
{
    struct fate *f = arg;

    (void)op;
    if (f->after > 0) {
        f->after--;
        return (struct sw_store_fault){0, SW_OK, false};
    }
    return f->fault;
}

/* A full disk in the middle of an import: what was made is told, the rest is not tried. */
static void import_stops(void **state)
{
    struct fate fate = {.fault = {.err = SW_E_STORE_FULL}, .after = 40};
    struct sw_store_key key;
    struct sw_out out;
    char *text = malloc(200000);
    struct serve v;

    (void)state;
    assert_non_null(text);
    start(&v, 1, NULL);
    out = sw_out_init(text, 199999);
    for (unsigned i = 0; i < 1000; i++) {
        key = key_of(i);
        sw_out_printf(&out, LINE(i, ",\"value\":{\"a\":1}"), handle_of(&key));
    }
    assert_false(out.overflowed);
    text[out.len] = '\0';
    sw_store_mem_faults(v.g->store, fate_of, &fate);
    import(&v, text, "HTTP/1.1 503 ",
           "\"reason\":\"store-full\",\"created\":40,\"replaced\":0,\"skipped\":0,\"failed\":24,");
    sw_store_mem_faults(v.g->store, NULL, NULL);
    assert_int_equal(walk(&v, "", 100), 40);
    free(text);
    run_s(&v, 100);
    at_rest(&v);
    serve_fini(&v);
}

/* A store that does not answer: told after a while, and nothing of it is used before it does. */
static void store_hangs(void **state)
{
    struct fate fate = {.fault = {.delay_ns = 100 * SW_NS_PER_S}};
    struct sw_store_key key;
    struct client *c[4];
    struct serve v;

    (void)state;
    start(&v, 1, NULL);
    key = put_state(&v, 1, "alice", "{}");
    sw_store_mem_faults(v.g->store, fate_of, &fate);
    c[0] = client_ask(&v, "DELETE /v1/sessions/%s HTTP/1.1" G "\r\n", handle_of(&key));
    c[1] = client_new(&v, "DELETE /v1/subjects/alice HTTP/1.1" G "\r\n");
    c[2] = client_ask(&v, PUT(JSON "If-Match: *\r\n", "{\"n\":2}"));
    key = key_of(2);
    c[3] = client_ask(&v, IMPORT "Content-Length: 90\r\n\r\n" LINE(2, ",\"value\":{}    "),
                      handle_of(&key));
    run_s(&v, 29);
    for (size_t i = 0; i < SW_COUNTOF(c); i++) {
        assert_int_equal(c[i]->len, 0);
    }
    run_s(&v, 4);
    for (size_t i = 0; i < SW_COUNTOF(c); i++) {
        if (!begins(c[i], "HTTP/1.1 503 ") || strstr(c[i]->got, "\"store-slow\"") == NULL) {
            fail_msg("%zu: %s", i, c[i]->got);
        }
        client_free(c[i]);
    }
    ASK(&v, "HTTP/1.1 200 ", NULL, "GET /healthz HTTP/1.1" H "\r\n");
    assert_false(sw_list_empty(&admin_of(&v)->gone)); /* their memory is still the store's */
    sw_store_mem_faults(v.g->store, NULL, NULL);
    run_s(&v, 180);
    at_rest(&v);
    assert_int_equal(walk(&v, "", 10), 1); /* the import: only that one is there in the end */
    serve_fini(&v);
}

/* The room ends, or clients leave, while the store works. */
static void left_alone(void **state)
{
    (void)state;
    for (size_t steps = 0; steps < 80; steps++) {
        struct sw_store_key key = key_of(1), other = key_of(2);
        struct client *c[5];
        struct serve v;

        start(&v, steps, NULL);
        (void)put_state(&v, 1, "alice", "{}");
        c[0] = client_ask(&v, "DELETE /v1/sessions/%s HTTP/1.1" G "\r\n", handle_of(&key));
        c[1] = client_new(&v, "DELETE /v1/subjects/bob HTTP/1.1" G "\r\n");
        c[2] = client_ask(&v, IMPORT "Content-Length: 500\r\n\r\n" LINE(2, ",\"value\":{}"),
                          handle_of(&other));
        c[3] = client_ask(&v, PUT(JSON "If-Match: *\r\n", "{\"n\":2}"));
        c[4] = client_new(&v, "GET /v1/sessions/export HTTP/1.1" H "\r\n");
        for (size_t i = 0; i < steps; i++) {
            (void)sw_sim_step(v.sim, UINT64_MAX);
        }
        for (size_t i = 0; i < SW_COUNTOF(c); i++) {
            client_free(c[i]);
        }
        if (steps % 2 == 0) {
            run_s(&v, 100);
            at_rest(&v);
        }
        serve_fini(&v);
    }
}

/* Everything at once under a bad network: in the end all is quiet, and nothing is held. */
static void faults(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct sw_sim_faults f;
        struct client *c[24];
        struct sw_rng rng;
        struct serve v;

        sw_rng_seed(&rng, seed);
        f = sw_sim_faults_swarm(&rng, seed % 2 == 0);
        start(&v, seed, NULL);
        put_many(&v, 300);
        sw_sim_set_faults(v.sim, &f);
        for (size_t i = 0; i < SW_COUNTOF(c); i++) {
            struct sw_store_key key = key_of((unsigned)sw_rng_below(&rng, 400));

            switch (sw_rng_below(&rng, 6)) {
            case 0:
                c[i] = client_new(&v, "GET /v1/sessions/export HTTP/1.1" H CLOSE "\r\n");
                break;
            case 1:
                c[i] = client_ask(&v, IMPORT "Content-Length: 83\r\n\r\n" LINE(1, ",\"value\":{}"),
                                  handle_of(&key));
                break;
            case 2:
                c[i] = client_ask(&v, "DELETE /v1/sessions/%s HTTP/1.1" G "\r\n", handle_of(&key));
                break;
            case 3:
                c[i] = client_new(&v, "DELETE /v1/subjects/alice HTTP/1.1" G "\r\n");
                break;
            case 4:
                c[i] = client_ask(&v, PUT(JSON "If-Match: *\r\n", "{\"n\":2}"));
                break;
            default:
                c[i] = client_new(&v, "GET /v1/sessions?limit=1000 HTTP/1.1" H CLOSE "\r\n");
                break;
            }
            c[i]->deaf = sw_rng_below(&rng, 10) == 0;
            c[i]->send_cut = (size_t)sw_rng_below(&rng, 30);
            c[i]->half_close = sw_rng_below(&rng, 5) == 0;
            run_s(&v, 0.001 * (double)sw_rng_below(&rng, 3));
        }
        run_s(&v, 300);
        sw_sim_set_faults(v.sim, NULL);
        run_s(&v, 300);
        for (size_t i = 0; i < SW_COUNTOF(c); i++) {
            client_free(c[i]);
        }
        run_s(&v, 10);
        at_rest(&v);
        ASK(&v, "HTTP/1.1 200 ", NULL, "GET /v1/sessions?limit=1 HTTP/1.1" H "\r\n");
        serve_fini(&v);
    }
}

/* A body that stays away: the slot and its memory come back. */
static void slow_bodies(void **state)
{
    struct sw_store_key key = key_of(1);
    struct client *c[2];
    struct serve v;

    (void)state;
    start(&v, 1, NULL);
    c[0] = client_ask(
        &v, "PUT /v1/sessions/%s HTTP/1.1" G JSON "If-Match: *\r\nContent-Length: 100\r\n\r\n{",
        handle_of(&key));
    c[1] = client_new(&v, IMPORT "Content-Length: 100000\r\n\r\n{\"handle\"");
    run_s(&v, 8);
    assert_true(admin_of(&v)->large.used > 0);
    run_s(&v, 4);
    for (size_t i = 0; i < SW_COUNTOF(c); i++) {
        assert_true(begins(c[i], "HTTP/1.1 408 "));
        client_free(c[i]);
    }
    run_s(&v, 5);
    at_rest(&v);
    serve_fini(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(list_entries),
        cmocka_unit_test(no_store),
        cmocka_unit_test(shows),
        cmocka_unit_test(replaces),
        cmocka_unit_test(body_limits),
        cmocka_unit_test(ends),
        cmocka_unit_test(subjects),
        cmocka_unit_test(crowded_subject),
        cmocka_unit_test(export_empty),
        cmocka_unit_test(carried_over),
        cmocka_unit_test(import_meets_the_end),
        cmocka_unit_test(garbage_lines),
        cmocka_unit_test(many_errors),
        cmocka_unit_test(endless_lines),
        cmocka_unit_test(deaf_exports),
        cmocka_unit_test(import_stops),
        cmocka_unit_test(store_hangs),
        cmocka_unit_test(left_alone),
        cmocka_unit_test(faults),
        cmocka_unit_test(slow_bodies),
    };
    sw_log_setup(2, SW_LOG_ERROR, false, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
