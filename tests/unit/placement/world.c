/* unit/placement/world.c - see world.h. */
#include "world.h"

int world_up(void **state)
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
    w->route.ident = 0x1234567812345678u;
    w->route.session.cookie.name = SW_S("sid");
    w->route.session.cookie.path = SW_S("/");
    w->route.session.idle_s = IDLE_S;
    w->route.session.absolute_s = 100 * IDLE_S;
    w->route.session.inline_bytes = INLINE;
    w->route.session.max_bytes = MAX_BYTES;
    w->route.session.concurrency = SW_CONC_SERIAL;
    w->routed.route = &w->route;
    sw_budget_init(&w->large, LARGE_BYTES);
    w->env = (struct sw_place_env){.loop = w->loop,
                                   .store = w->store,
                                   .keys = &w->keys,
                                   .config = &w->config,
                                   .large = &w->large};
    *state = w;
    return 0;
}

int world_down(void **state)
{
    struct world *w = *state;

    assert_int_equal(w->large.used, 0);
    sw_store_close(w->store);
    sw_loop_free(w->loop);
    free(w);
    return 0;
}

void world_rooms(struct world *w)
{
    w->route.session.key_source = SW_KEY_QUERY;
    w->route.session.key_name = SW_S("room");
}

static void on_wake(struct sw_ask *ask)
{
    sw_loop_stop(SW_CONTAINER(ask, struct visit, ask)->w->loop);
}

static void visit_begin(struct world *w, struct visit *v, const char *cookie)
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
    v->ask.placement = sw_placement_of(w->route.placement);
    v->ask.routed = &w->routed;
    v->ask.request = &v->request;
    v->ask.arena = &v->arena;
    v->ask.now_unix_s = sw_loop_now_unix_s(w->loop);
    v->ask.wake = on_wake;
}

enum sw_err visit_try(struct world *w, struct visit *v, const char *cookie)
{
    enum sw_step step;

    visit_begin(w, v, cookie);
    assert_int_equal(sw_place_key(&v->ask), SW_OK);
    while ((step = v->ask.placement->load(&v->ask)) == SW_STEP_MORE) {
        assert_true(w->env.store != w->store); /* the memory store never waits */
        sw_loop_run(w->loop);
    }
    return step == SW_STEP_DONE ? SW_OK : v->ask.err;
}

void visit_open(struct world *w, struct visit *v, const char *cookie)
{
    assert_int_equal(visit_try(w, v, cookie), SW_OK);
}

void visit_deliver(struct world *w, struct visit *v, const struct sw_store_key *key,
                   const struct sw_alarm *alarm)
{
    enum sw_step step;

    visit_begin(w, v, NULL);
    v->ask.alarm = alarm;
    v->ask.has_key = true;
    v->ask.key = *key;
    v->ask.key_text = alarm->key_text;
    assert_int_equal(sw_place_key(&v->ask), SW_OK);
    while ((step = v->ask.placement->load(&v->ask)) == SW_STEP_MORE) {
        sw_loop_run(w->loop);
    }
    assert_int_equal(step, SW_STEP_DONE);
}

void visit_close(struct visit *v)
{
    sw_ask_drop(&v->ask);
}

static void answer(struct visit *v, unsigned status, const char *fields)
{
    static const struct sw_h1_limits limits = {65536, 65536};
    size_t scanned = 0;
    int n = snprintf(v->response_text, sizeof(v->response_text), "HTTP/1.1 %u OK\r\n%s\r\n", status,
                     fields);

    v->response = (struct sw_head){.fields = v->response_fields, .field_max = 32};
    assert_true(n > 0 && (size_t)n < sizeof(v->response_text));
    assert_int_equal(sw_h1_response(sw_slice_of(v->response_text, (size_t)n), &scanned, &limits,
                                    SW_METHOD_POST, &v->response)
                         .step,
                     SW_STEP_DONE);
    v->ask.response = &v->response;
}

enum sw_err commit_status(struct visit *v, unsigned status, const char *fields)
{
    enum sw_step step;

    answer(v, status, fields);
    while ((step = v->ask.placement->commit(&v->ask)) == SW_STEP_MORE) {
        sw_loop_run(v->w->loop);
    }
    sw_ask_drop(&v->ask);
    return step == SW_STEP_DONE ? SW_OK : v->ask.err;
}

enum sw_err commit(struct visit *v, const char *fields)
{
    return commit_status(v, 200, fields);
}

const char *cookie_of(const struct visit *v, char text[64])
{
    struct sw_slice value;

    assert_int_equal(v->ask.sets_cookie, v->ask.client_lines.len > 0);
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

void visitor_make(struct world *w, const char *fields, char text[64])
{
    struct visit v;

    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, fields), SW_OK);
    assert_non_null(cookie_of(&v, text));
}

void state_is(struct world *w, const char *cookie, const char *want)
{
    struct sw_stage_ask get = {.method = SW_STAGE_GET};
    struct sw_stage_answer a;
    struct visit v;

    visit_open(w, &v, cookie);
    sw_stage(&v.ask, &get, &a);
    assert_int_equal(a.err, want != NULL ? SW_OK : SW_E_NOT_FOUND);
    assert_int_equal(v.ask.state_present, want != NULL);
    if (want != NULL && !sw_slice_eq(a.body, sw_slice_cstr(want))) {
        fail_msg("%.*s, not %s", SW_SARG(a.body), want);
    }
    visit_close(&v);
}

uint64_t commits_made(struct world *w)
{
    struct sw_store_stats stats;

    sw_store_stats(w->store, &stats);
    return stats.commits;
}

void id_bytes(const char *id, uint8_t bytes[32])
{
    assert_int_equal(sw_b64url_exact(sw_slice_cstr(id), bytes, 32), SW_OK);
}

struct sw_store_key id_key(const char *id)
{
    struct sw_store_key key;
    uint8_t bytes[32];

    id_bytes(id, bytes);
    sw_sha256(sw_slice_of(bytes, sizeof(bytes)), key.bytes);
    return key;
}

struct kept *kept_get(struct world *w, const struct sw_store_key *key)
{
    struct kept *k = calloc(1, sizeof(*k));
    struct sw_arena arena;
    struct sw_store_load op = {
        .key = *key, .now_unix_s = sw_loop_now_unix_s(w->loop), .arena = &arena, .loop = w->loop};

    assert_non_null(k);
    sw_arena_init(&arena, k->block, sizeof(k->block));
    assert_int_equal(sw_store_load(w->store, &op), SW_STEP_DONE);
    k->err = op.err;
    k->record = op.record;
    return k;
}

static void on_raw(struct sw_store_commit *op)
{
    sw_loop_stop(op->arg);
}

void write_raw(struct world *w, struct sw_write write, int64_t now_unix_s)
{
    struct sw_store_commit op = {
        .count = 1, .now_unix_s = now_unix_s, .loop = w->loop, .done = on_raw, .arg = w->loop};

    op.writes[0] = write;
    sw_store_commit(w->store, &op);
    sw_loop_run(w->loop);
    assert_int_equal(op.err, SW_OK);
}

struct sw_store_fault on_commit(void *arg, const struct sw_store_commit *op)
{
    struct fate *f = arg;

    (void)op;
    return f->asked++ < f->times ? f->fault : (struct sw_store_fault){0};
}

const char *state_of(size_t bytes)
{
    static char text[4 * MAX_BYTES];
    int n = snprintf(text, sizeof(text), "{\"much\":\"%0*d\"}", (int)bytes - 11, 0);

    assert_true(n == (int)bytes);
    return text;
}

const char *set_of(size_t bytes)
{
    static char text[4 * MAX_BYTES + 64];

    snprintf(text, sizeof(text), "Stateway-Set: %s\r\n", state_of(bytes));
    return text;
}
