/* unit/placement/test_session.c - session against the memory store, on a real loop: what is read,
 * what a commit becomes when others came first, and when the store fails. */
#include "placement/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define INLINE     1024
#define ARENA_SIZE ((size_t)(4 * INLINE + 4096)) /* as a worker's, by the route's inline */
#define IDLE_S     100

struct world {
    struct sw_loop *loop;
    struct sw_store *store;
    struct sw_keyring keys;
    struct sw_config_app app;
    struct sw_config config;
    struct sw_config_route route;
    struct sw_routed routed;
    struct sw_place_env env;
};

/* One request: its ask, and what that borrows. */
struct visit {
    struct sw_ask ask;
    struct world *w;
    struct sw_arena arena;
    struct sw_field request_fields[16], response_fields[16];
    struct sw_head request, response;
    char request_text[512], response_text[4096], block[ARENA_SIZE];
};

static int set_up(void **state)
{
    static const struct sw_loop_options options = {.engine = SW_ENGINE_EPOLL,
                                                   .streams_max = 4,
                                                   .buffers_max = 4,
                                                   .large_max = 1,
                                                   .large_bytes = 65536};
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    assert_int_equal(sw_loop_new(&options, &w->loop), SW_OK);
    assert_int_equal(sw_store_open_mem(NULL, &w->store), SW_OK);
    sw_keyring_make(sw_loop_now_unix_s(w->loop), &w->keys);
    w->app.name = SW_S("shop");
    w->config.apps = &w->app;
    w->config.app_count = 1;
    w->route.placement = SW_PLACE_SESSION;
    w->route.session.cookie.name = SW_S("sid");
    w->route.session.cookie.path = SW_S("/");
    w->route.session.idle_s = IDLE_S;
    w->route.session.absolute_s = 100 * IDLE_S;
    w->route.session.inline_bytes = w->route.session.max_bytes = INLINE;
    w->route.session.concurrency = SW_CONC_SERIAL;
    w->routed.route = &w->route;
    w->env = (struct sw_place_env){
        .loop = w->loop, .store = w->store, .keys = &w->keys, .config = &w->config};
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;

    sw_store_close(w->store);
    sw_loop_free(w->loop);
    free(w);
    return 0;
}

static void on_wake(struct sw_ask *ask)
{
    sw_loop_stop(SW_CONTAINER(ask, struct visit, ask)->w->loop);
}

/* The path is the entity's id, when the route's key is one. */
static void visit_open(struct world *w, struct visit *v, const char *cookie)
{
    static const struct sw_h1_limits limits = {65536, 65536};
    size_t scanned = 0;
    int n = snprintf(v->request_text, sizeof(v->request_text),
                     "POST /?room=7 HTTP/1.1\r\nHost: a\r\n%s%s%s\r\n",
                     cookie != NULL ? "Cookie: sid=" : "", cookie != NULL ? cookie : "",
                     cookie != NULL ? "\r\n" : "");

    memset(&v->ask, 0, sizeof(v->ask));
    v->w = w;
    v->request = (struct sw_head){.fields = v->request_fields, .field_max = 16};
    assert_int_equal(
        sw_h1_request(sw_slice_of(v->request_text, (size_t)n), &scanned, &limits, &v->request).step,
        SW_STEP_DONE);
    sw_arena_init(&v->arena, v->block, sizeof(v->block));
    v->ask.env = &w->env;
    v->ask.placement = sw_placement_of(SW_PLACE_SESSION);
    v->ask.routed = &w->routed;
    v->ask.request = &v->request;
    v->ask.arena = &v->arena;
    v->ask.now_unix_s = sw_loop_now_unix_s(w->loop);
    v->ask.wake = on_wake;
    assert_int_equal(sw_place_key(&v->ask), SW_OK);
    assert_int_equal(v->ask.placement->load(&v->ask),
                     SW_STEP_DONE); /* the memory store never waits */
}

static void answer(struct visit *v, unsigned status, const char *fields)
{
    static const struct sw_h1_limits limits = {65536, 65536};
    size_t scanned = 0;
    int n = snprintf(v->response_text, sizeof(v->response_text), "HTTP/1.1 %u OK\r\n%s\r\n", status,
                     fields);

    v->response = (struct sw_head){.fields = v->response_fields, .field_max = 16};
    assert_true(n > 0 && (size_t)n < sizeof(v->response_text));
    assert_int_equal(sw_h1_response(sw_slice_of(v->response_text, (size_t)n), &scanned, &limits,
                                    SW_METHOD_POST, &v->response)
                         .step,
                     SW_STEP_DONE);
    v->ask.response = &v->response;
}

static enum sw_err commit_status(struct visit *v, unsigned status, const char *fields)
{
    enum sw_step step;

    answer(v, status, fields);
    while ((step = v->ask.placement->commit(&v->ask)) == SW_STEP_MORE) {
        sw_loop_run(v->w->loop);
    }
    return step == SW_STEP_DONE ? SW_OK : v->ask.err;
}

static enum sw_err commit(struct visit *v, const char *fields)
{
    return commit_status(v, 200, fields);
}

/* The id in the cookie that the client gets; "" when it is cleared; NULL: no Set-Cookie. */
static const char *cookie_of(const struct visit *v, char text[64])
{
    struct sw_slice value;

    if (!sw_slice_starts(v->ask.client_lines, SW_S("Set-Cookie: sid="))) {
        assert_true(v->ask.client_lines.len == 0);
        return NULL;
    }
    value = sw_slice_tail(v->ask.client_lines, 16);
    value = sw_slice_head(value, sw_slice_find_slice(value, SW_S(";")));
    assert_true(value.len == 0 || value.len == 43);
    snprintf(text, 64, "%.*s", SW_SARG(value));
    return text;
}

/* A visitor with that state; his id in text. */
static void visitor_make(struct world *w, const char *fields, char text[64])
{
    struct visit v;

    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, fields), SW_OK);
    assert_non_null(cookie_of(&v, text));
}

/* NULL: there must be no state. */
static void state_is(struct world *w, const char *cookie, const char *want)
{
    struct visit v;

    visit_open(w, &v, cookie);
    assert_int_equal(v.ask.state_present, want != NULL);
    if (want != NULL && !sw_slice_eq(v.ask.state, sw_slice_cstr(want))) {
        fail_msg("%.*s, not %s", SW_SARG(v.ask.state), want);
    }
}

static uint64_t commits_made(struct world *w)
{
    struct sw_store_stats stats;

    sw_store_stats(w->store, &stats);
    return stats.commits;
}

/* ---- ordinary -------------------------------------------------------------------------------- */

static void first_write(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64], other[64];

    visit_open(w, &v, NULL);
    assert_int_equal(v.ask.verdict, SW_VERDICT_FRESH);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_null(cookie_of(&v, id));
    assert_true(commits_made(w) == 0);
    visitor_make(w, "Stateway-Set: {\"n\":1}\r\n", id);
    visit_open(w, &v, id);
    assert_int_equal(v.ask.verdict, SW_VERDICT_KEPT);
    assert_true(v.ask.version.counter == 1);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"m\":2}\r\n"), SW_OK);
    assert_int_equal(v.ask.verdict, SW_VERDICT_UPDATED);
    assert_null(cookie_of(&v, other)); /* once is enough */
    state_is(w, id, "{\"n\":1,\"m\":2}");
    visit_open(w, &v, id);
    assert_int_equal(commit_status(&v, 500, "Stateway-Set: {}\r\n"), SW_OK);
    assert_int_equal(v.ask.verdict, SW_VERDICT_KEPT);
    state_is(w, id, "{\"n\":1,\"m\":2}");
}

static void ends(void **state)
{
    struct world *w = *state;
    struct visit v, late, twice;
    char id[64], text[64];

    visitor_make(w, "Stateway-Set: {}\r\n", id);
    visit_open(w, &v, id);
    visit_open(w, &late, id);
    visit_open(w, &twice, id);
    assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_OK);
    assert_int_equal(v.ask.verdict, SW_VERDICT_REVOKED);
    assert_string_equal(cookie_of(&v, text), "");
    assert_int_equal(commit(&late, "Stateway-Set: {\"n\":2}\r\n"), SW_E_STATE_GONE);
    assert_int_equal(late.ask.verdict, SW_VERDICT_REVOKED);
    assert_int_equal(commit(&twice, "Stateway-Delete: ?1\r\n"), SW_OK); /* both are right */
    assert_string_equal(cookie_of(&twice, text), "");
    visit_open(w, &v, id);
    assert_int_equal(v.ask.app_verdict, SW_VERDICT_REVOKED);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":3}\r\n"), SW_OK);
    assert_string_not_equal(cookie_of(&v, text), id); /* under a new id only */
    state_is(w, id, NULL);
    state_is(w, text, "{\"n\":3}");
}

static void entity_again(void **state)
{
    struct world *w = *state;
    struct visit v;
    struct sw_version before;

    w->route.session.key_source = SW_KEY_QUERY;
    w->route.session.key_name = SW_S("room");
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    before = v.ask.version;
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_OK);
    state_is(w, NULL, NULL);
    visit_open(w, &v, NULL);
    assert_int_equal(v.ask.verdict, SW_VERDICT_FRESH);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    assert_true(v.ask.version.epoch != before.epoch);
    assert_true(v.ask.client_lines.len == 0);
    state_is(w, NULL, "{\"n\":2}");
}

/* ---- renewed ids ----------------------------------------------------------------------------- */

static void renewals(void **state)
{
    struct world *w = *state;
    struct visit v;
    char first[64], id[64];

    visitor_make(w, "Stateway-Set: {\"n\":1}\r\n", first);
    memcpy(id, first, sizeof(id));
    for (int i = 0; i < 8; i++) {
        visit_open(w, &v, id);
        assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
        assert_string_not_equal(cookie_of(&v, id), first);
        state_is(w, first, "{\"n\":1}"); /* however often it was renewed in that time */
    }
    visit_open(w, &v, first);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    state_is(w, id, "{\"n\":2}"); /* one state */
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
    state_is(w, first, NULL); /* one too many: nowhere, rather than for ever */
}

/* Writes a record as it would never be. */
static void on_raw(struct sw_store_commit *op)
{
    sw_loop_stop(op->arg);
}

static void raw_put(struct world *w, const char *id, enum sw_record_kind kind,
                    struct sw_slice value, int64_t written_unix_s, int64_t expires_unix_s,
                    int64_t absolute_unix_s)
{
    struct sw_store_commit op = {
        .count = 1, .now_unix_s = written_unix_s, .loop = w->loop, .done = on_raw, .arg = w->loop};
    uint8_t bytes[32];

    assert_int_equal(sw_b64url_exact(sw_slice_cstr(id), bytes, sizeof(bytes)), SW_OK);
    op.writes[0] = (struct sw_write){.kind = SW_WRITE_PUT,
                                     .record = kind,
                                     .expect = SW_EXPECT_ANY,
                                     .value = value,
                                     .expires_unix_s = expires_unix_s,
                                     .absolute_unix_s = absolute_unix_s};
    sw_sha256(sw_slice_of(bytes, sizeof(bytes)), op.writes[0].key.bytes);
    sw_store_commit(w->store, &op);
    sw_loop_run(w->loop);
    assert_int_equal(op.err, SW_OK);
}

#define ID_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define ID_B "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"

static void aliases_that_lead_nowhere(void **state)
{
    struct world *w = *state;
    int64_t now = sw_loop_now_unix_s(w->loop);
    uint8_t bytes[32], key_a[32], key_b[32];

    assert_int_equal(sw_b64url_exact(SW_S(ID_A), bytes, sizeof(bytes)), SW_OK);
    sw_sha256(sw_slice_of(bytes, sizeof(bytes)), key_a);
    assert_int_equal(sw_b64url_exact(SW_S(ID_B), bytes, sizeof(bytes)), SW_OK);
    sw_sha256(sw_slice_of(bytes, sizeof(bytes)), key_b);
    raw_put(w, ID_A, SW_RECORD_ALIAS, sw_slice_of(key_b, 32), now, now + 10, now + 10);
    state_is(w, ID_A, NULL); /* to nothing */
    raw_put(w, ID_B, SW_RECORD_ALIAS, sw_slice_of(key_a, 32), now, now + 10, now + 10);
    state_is(w, ID_A, NULL); /* a circle ends */
    raw_put(w, ID_B, SW_RECORD_STATE, SW_S("{}"), now, now + 10, now + 10);
    state_is(w, ID_A, "{}");
}

/* ---- others came first ----------------------------------------------------------------------- */

static void crossing(void **state)
{
    static const struct row {
        enum sw_concurrency concurrency;
        const char *first, *second, *after; /* updates; NULL after: there is no state */
        enum sw_err err;                    /* of the second */
    } rows[] = {
        {SW_CONC_SERIAL, "Stateway-Set: {\"a\":1}\r\n", "Stateway-Set: {\"b\":1}\r\n", "{\"a\":1}",
         SW_E_CONFLICT},
        {SW_CONC_CAS, "Stateway-Set: {\"a\":1}\r\n", "Stateway-Patch: {\"b\":1}\r\n", "{\"a\":1}",
         SW_E_CONFLICT},
        {SW_CONC_MERGE, "Stateway-Patch: {\"a\":1}\r\n", "Stateway-Patch: {\"b\":1}\r\n",
         "{\"n\":0,\"a\":1,\"b\":1}", SW_OK},
        {SW_CONC_MERGE, "Stateway-Set: {\"a\":1}\r\n", "Stateway-Set: {\"b\":1}\r\n", "{\"a\":1}",
         SW_E_CONFLICT},
        {SW_CONC_MERGE, "Stateway-Patch: {\"a\":1}\r\n", "Stateway-Renew: ?1\r\n",
         "{\"n\":0,\"a\":1}", SW_OK},
        {SW_CONC_LAST, "Stateway-Set: {\"a\":1}\r\n", "Stateway-Set: {\"b\":1}\r\n", "{\"b\":1}",
         SW_OK},
        {SW_CONC_LAST, "Stateway-Set: {\"a\":1}\r\n",
         "Stateway-Set: {\"b\":1}\r\nStateway-Expect: \"a-1\"\r\n", "{\"a\":1}", SW_E_CONFLICT},
        /* a logout wins */
        {SW_CONC_SERIAL, "Stateway-Set: {\"a\":1}\r\n", "Stateway-Delete: ?1\r\n", NULL, SW_OK},
        {SW_CONC_CAS, "Stateway-Renew: ?1\r\n", "Stateway-Delete: ?1\r\n", NULL, SW_OK},
        {SW_CONC_MERGE, "Stateway-Renew: ?1\r\n", "Stateway-Delete: ?1\r\n", NULL, SW_OK},
        {SW_CONC_LAST, "Stateway-Renew: ?1\r\n", "Stateway-Delete: ?1\r\n", NULL, SW_OK},
        {SW_CONC_LAST, "Stateway-Delete: ?1\r\n", "Stateway-Set: {\"b\":1}\r\n", NULL,
         SW_E_STATE_GONE},
        {SW_CONC_MERGE, "Stateway-Delete: ?1\r\n", "Stateway-Patch: {\"b\":1}\r\n", NULL,
         SW_E_STATE_GONE},
        /* a renewal and a write are one state, wherever it lies */
        {SW_CONC_LAST, "Stateway-Renew: ?1\r\n", "Stateway-Set: {\"b\":1}\r\n", "{\"b\":1}", SW_OK},
        {SW_CONC_MERGE, "Stateway-Renew: ?1\r\n", "Stateway-Patch: {\"b\":1}\r\n",
         "{\"n\":0,\"b\":1}", SW_OK},
        {SW_CONC_SERIAL, "Stateway-Renew: ?1\r\n", "Stateway-Set: {\"b\":1}\r\n", "{\"n\":0}",
         SW_E_CONFLICT},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct visit first, second;
        char id[64], renewed[64];
        enum sw_err err;

        w->route.session.concurrency = rows[i].concurrency;
        visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
        visit_open(w, &first, id);
        visit_open(w, &second, id);
        assert_int_equal(commit(&first, rows[i].first), SW_OK);
        err = commit(&second, rows[i].second);
        if (err != rows[i].err) {
            fail_msg("row %zu: %s", i, sw_err_name(err));
        }
        state_is(w, id, rows[i].after);
        if (cookie_of(&first, renewed) != NULL && renewed[0] != '\0') {
            state_is(w, renewed, rows[i].after);
        }
    }
}

/* ---- the store fails ------------------------------------------------------------------------- */

struct fate {
    struct sw_store_fault fault;
    uint32_t times, asked;
};

static struct sw_store_fault on_commit(void *arg, const struct sw_store_commit *op)
{
    struct fate *f = arg;

    (void)op;
    return f->asked++ < f->times ? f->fault : (struct sw_store_fault){0};
}

static void store_failures(void **state)
{
    static const enum sw_err errs[] = {SW_E_STORE_FULL, SW_E_STORE_IO, SW_E_STORE_BUSY,
                                       SW_E_NO_MEMORY, SW_E_LIMIT};
    struct world *w = *state;
    struct visit v;
    char id[64];

    visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
    for (size_t i = 0; i < SW_COUNTOF(errs); i++) {
        struct fate fate = {.fault = {.err = errs[i]}, .times = 1};

        sw_store_mem_faults(w->store, on_commit, &fate);
        visit_open(w, &v, id);
        assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\nStateway-Renew: ?1\r\n"),
                         SW_E_COMMIT);
        assert_true(v.ask.client_lines.len == 0);
        state_is(w, id, "{\"n\":0}");
    }
    {
        struct fate fate = {.fault = {.apply_then_fail = true}, .times = 1};

        sw_store_mem_faults(w->store, on_commit, &fate);
        visit_open(w, &v, id);
        assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_E_COMMIT);
        state_is(w, id,
                 "{\"n\":2}"); /* the client knows nothing, and next time sees what is true */
    }
    {
        struct fate fate = {.fault = {.delay_ns = 20 * SW_NS_PER_MS}, .times = 1};

        sw_store_mem_faults(w->store, on_commit, &fate);
        visit_open(w, &v, id);
        assert_int_equal(commit(&v, "Stateway-Set: {\"n\":3}\r\n"), SW_OK);
        assert_true(v.ask.commit_ns >= 15 * SW_NS_PER_MS);
        state_is(w, id, "{\"n\":3}");
    }
    sw_store_mem_faults(w->store, NULL, NULL);
}

/* Each try works with the same memory, however large the state is. */
static void tries_are_bounded(void **state)
{
    static const struct row {
        uint32_t conflicts;
        enum sw_err err;
    } rows[] = {{1, SW_OK}, {16, SW_OK}, {17, SW_E_CONFLICT}, {1000, SW_E_CONFLICT}};
    struct world *w = *state;
    char fields[INLINE + 64];

    w->route.session.concurrency = SW_CONC_MERGE;
    snprintf(fields, sizeof(fields), "Stateway-Set: {\"much\":\"%0*d\"}\r\n", INLINE - 40, 0);
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct fate fate = {.fault = {.err = SW_E_CONFLICT}, .times = rows[i].conflicts};
        struct visit v;
        char id[64];

        sw_store_mem_faults(w->store, NULL, NULL);
        visitor_make(w, fields, id);
        sw_store_mem_faults(w->store, on_commit, &fate);
        visit_open(w, &v, id);
        assert_int_equal(commit(&v, "Stateway-Patch: {\"n\":1}\r\n"), rows[i].err);
        assert_int_equal(v.ask.verdict,
                         rows[i].err == SW_OK ? SW_VERDICT_UPDATED : SW_VERDICT_CONFLICTED);
    }
    sw_store_mem_faults(w->store, NULL, NULL);
}

/* A conflict first, and when the patch looks again, the visitor has logged out: nothing rises. */
static void ended_between_two_tries(void **state)
{
    static const enum sw_concurrency kinds[] = {SW_CONC_MERGE, SW_CONC_LAST};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(kinds); i++) {
        struct fate fate = {.fault = {.err = SW_E_CONFLICT}, .times = 1};
        struct visit v, end, again;
        char id[64];

        w->route.session.concurrency = kinds[i];
        visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
        visit_open(w, &v, id);
        visit_open(w, &again, id);
        visit_open(w, &end, id);
        assert_int_equal(commit(&end, "Stateway-Delete: ?1\r\n"), SW_OK);
        sw_store_mem_faults(w->store, on_commit, &fate);
        assert_int_equal(commit(&v, "Stateway-Patch: {\"b\":1}\r\n"), SW_E_STATE_GONE);
        assert_true(v.ask.client_lines.len == 0);
        fate.asked = 0;
        assert_int_equal(commit(&again, "Stateway-Delete: ?1\r\n"), SW_OK);
        assert_int_equal(again.ask.verdict, SW_VERDICT_REVOKED);
        sw_store_mem_faults(w->store, NULL, NULL);
        state_is(w, id, NULL);
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

static int64_t expires_of(struct world *w, const char *id)
{
    struct visit v;

    visit_open(w, &v, id);
    assert_true(v.ask.state_present);
    return v.ask.session.record.expires_unix_s;
}

static void touches(void **state)
{
    struct world *w = *state;
    int64_t now = sw_loop_now_unix_s(w->loop), far = now + 1000 * IDLE_S;
    struct fate fate = {.fault = {.err = SW_E_STORE_IO}, .times = 1};
    struct visit v;
    uint64_t before;

    /* younger than a tenth of the idle time: nothing is written */
    raw_put(w, ID_A, SW_RECORD_STATE, SW_S("{}"), now - 8, now + 50, far);
    before = commits_made(w);
    visit_open(w, &v, ID_A);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_true(commits_made(w) == before);
    /* older: once, and it begins anew */
    raw_put(w, ID_A, SW_RECORD_STATE, SW_S("{}"), now - 12, now + 50, far);
    before = commits_made(w);
    visit_open(w, &v, ID_A);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_int_equal(v.ask.verdict, SW_VERDICT_KEPT);
    assert_true(commits_made(w) == before + 1);
    assert_true(expires_of(w, ID_A) >= now + IDLE_S);
    visit_open(w, &v, ID_A);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_true(commits_made(w) == before + 1);
    /* a touch that fails is nobody's loss */
    raw_put(w, ID_A, SW_RECORD_STATE, SW_S("{}"), now - 12, now + 50, far);
    sw_store_mem_faults(w->store, on_commit, &fate);
    visit_open(w, &v, ID_A);
    assert_int_equal(commit(&v, ""), SW_OK);
    sw_store_mem_faults(w->store, NULL, NULL);
    assert_true(expires_of(w, ID_A) == now + 50);
    /* never beyond the absolute end */
    raw_put(w, ID_A, SW_RECORD_STATE, SW_S("{}"), now - 12, now + 50, now + 60);
    visit_open(w, &v, ID_A);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_true(expires_of(w, ID_A) == now + 60);
}

static void ttl(void **state)
{
    struct world *w = *state;
    int64_t now = sw_loop_now_unix_s(w->loop);
    struct visit v;
    char id[64];

    visitor_make(w, "Stateway-Set: {}\r\nStateway-TTL: 5000\r\n", id);
    assert_true(expires_of(w, id) >= now + 5000);
    visit_open(w, &v, id);
    assert_false(v.ask.session.needs_touch);
    assert_true(v.ask.session.record.absolute_unix_s == v.ask.session.record.expires_unix_s);
    assert_int_equal(commit(&v, "Stateway-Set: {}\r\nStateway-TTL: 9000000\r\n"), SW_OK);
    assert_true(expires_of(w, id) <= sw_loop_now_unix_s(w->loop) + 100 * IDLE_S); /* absolute */
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Set: {}\r\n"), SW_OK); /* the route's word again */
    assert_true(expires_of(w, id) <= sw_loop_now_unix_s(w->loop) + IDLE_S);
    visit_open(w, &v, id);
    assert_true(v.ask.session.record.absolute_unix_s >= now + 100 * IDLE_S);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        TEST(first_write),
        TEST(ends),
        TEST(entity_again),
        TEST(renewals),
        TEST(aliases_that_lead_nowhere),
        TEST(crossing),
        TEST(store_failures),
        TEST(tries_are_bounded),
        TEST(ended_between_two_tries),
        TEST(touches),
        TEST(ttl),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
