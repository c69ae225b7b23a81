/* unit/placement/test_now.c - writes of the side API that commit at once: durable when told, and
 * the exchange goes on with what was written; and the turns that commits of one key take. */
#include "world.h"

static struct visit *told_by;
static struct sw_stage_answer last;

static void on_told(struct sw_ask *ask)
{
    told_by = SW_CONTAINER(ask, struct visit, ask);
    sw_loop_stop(told_by->w->loop);
}

/* The error, and the answer in last. match: NULL, or a tag. */
static enum sw_err now_if(struct visit *v, enum sw_stage_method method, const char *body,
                          const char *match)
{
    struct sw_stage_ask in = {.method = method, .body = sw_slice_cstr(body)};

    if (match != NULL) {
        in.has_if_match = true;
        in.if_match = sw_slice_cstr(match);
    }
    told_by = NULL;
    if (sw_stage_now(&v->ask, &in, &last, on_told) == SW_STEP_MORE) {
        assert_int_equal(last.err, SW_OK);
        sw_loop_run(v->w->loop);
        assert_ptr_equal(told_by, v);
    }
    assert_true(last.err == SW_OK ? last.status == 204 : last.status == 0 && last.etag.len == 0);
    return last.err;
}

static enum sw_err now(struct visit *v, enum sw_stage_method method, const char *body)
{
    return now_if(v, method, body, NULL);
}

static void stage(struct visit *v, enum sw_stage_method method, const char *body)
{
    struct sw_stage_ask in = {.method = method, .body = sw_slice_cstr(body)};
    struct sw_stage_answer a;

    sw_stage(&v->ask, &in, &a);
    assert_int_equal(a.err, SW_OK);
}

static void sees(struct visit *v, const char *want)
{
    struct sw_stage_ask in = {.method = SW_STAGE_GET};
    struct sw_stage_answer a;

    sw_stage(&v->ask, &in, &a);
    assert_int_equal(a.err, SW_OK);
    assert_true(sw_slice_eq(a.body, sw_slice_cstr(want)));
}

/* ---- at once --------------------------------------------------------------------------------- */

/* Of every size: others see it, the exchange stands on it, an answer that fails takes nothing
 * back, and each write gives the memory of the one before. */
static void stands(void **state)
{
    static const size_t sizes[] = {20, INLINE, INLINE + 1, MAX_BYTES};
    struct world *w = *state;
    struct visit v;
    char id[64];

    for (int sealed = 0; sealed < 2; sealed++) {
        w->route.session.encrypt = sealed == 1;
        for (size_t i = 0; i < SW_COUNTOF(sizes); i++) {
            size_t used = 0;

            visitor_make(w, "Stateway-Set: {\"old\":1}\r\n", id);
            visit_open(w, &v, id);
            for (int k = 0; k < 50; k++) {
                assert_int_equal(now(&v, SW_STAGE_PUT, state_of(sizes[i])), SW_OK);
                assert_true(k < 2 || v.ask.env->large->used == used);
                used = v.ask.env->large->used;
            }
            sees(&v, state_of(sizes[i]));
            assert_int_equal(v.ask.state.ptr == NULL, sizes[i] > INLINE);
            assert_int_equal(v.ask.state.len, sizes[i]);
            state_is(w, id, state_of(sizes[i]));
            assert_int_equal(commit_status(&v, 500, ""), SW_OK);
            state_is(w, id, state_of(sizes[i]));
        }
    }
}

static void goes_along(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64], fields[128];
    uint64_t commits;

    visitor_make(w, "Stateway-Set: {\"a\":1}\r\n", id);
    visit_open(w, &v, id);
    assert_int_equal(now(&v, SW_STAGE_PATCH, "{\"b\":2}"), SW_OK);
    assert_int_equal(now(&v, SW_STAGE_PATCH, "{\"a\":null}"), SW_OK);
    snprintf(fields, sizeof(fields), "Stateway-Patch: {\"c\":3}\r\nStateway-Expect: %.*s\r\n",
             SW_SARG(last.etag));
    commits = commits_made(w);
    assert_int_equal(commit(&v, fields), SW_OK);
    assert_int_equal(commits_made(w), commits + 1); /* at the first try */
    state_is(w, id, "{\"b\":2,\"c\":3}");

    visit_open(w, &v, id); /* a renewal takes along what was written */
    assert_int_equal(now(&v, SW_STAGE_PUT, "{\"d\":4}"), SW_OK);
    assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, id));
    state_is(w, id, "{\"d\":4}");
}

static void staged_stays(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64];

    visitor_make(w, "Stateway-Set: {\"a\":1}\r\n", id);
    visit_open(w, &v, id);
    stage(&v, SW_STAGE_PUT, "{\"staged\":1}");
    assert_int_equal(now(&v, SW_STAGE_PATCH, "{\"b\":2}"), SW_OK);
    sees(&v, "{\"staged\":1}");
    state_is(w, id, "{\"a\":1,\"b\":2}");
    assert_int_equal(commit(&v, ""), SW_OK);
    state_is(w, id, "{\"staged\":1}");
}

static void refusals(void **state)
{
    struct world *w = *state;
    struct sw_stage_ask in = {.method = SW_STAGE_PUT, .body = SW_S("{\"one\":1}")};
    struct sw_stage_answer one, two;
    struct visit v, other;
    char id[64];

    visit_open(w, &v, NULL);
    assert_int_equal(now(&v, SW_STAGE_PUT, "{}"), SW_E_STAGE_NEW);
    assert_int_equal(now(&v, SW_STAGE_DELETE, ""), SW_OK); /* there is nothing */
    assert_null(told_by);
    visit_close(&v);

    visitor_make(w, "Stateway-Set: {\"a\":1}\r\n", id);
    visit_open(w, &v, id);
    assert_int_equal(now(&v, SW_STAGE_PUT, "[]"), SW_E_UPDATE_TYPE);
    assert_int_equal(now(&v, SW_STAGE_PATCH, "{"), SW_E_UPDATE_JSON);
    assert_int_equal(now(&v, SW_STAGE_PUT, state_of(MAX_BYTES + 1)), SW_E_UPDATE_LARGE);
    assert_int_equal(now_if(&v, SW_STAGE_PUT, "{}", "\"0\""), SW_E_STAGE_MATCH);
    v.ask.shared = true;
    assert_int_equal(now(&v, SW_STAGE_DELETE, ""), SW_E_STAGE_SHARED);
    v.ask.shared = false;

    assert_int_equal(sw_stage_now(&v.ask, &in, &one, on_told), SW_STEP_MORE);
    assert_int_equal(sw_stage_now(&v.ask, &in, &two, on_told), SW_STEP_DONE);
    assert_int_equal(two.err, SW_E_STAGE_BUSY);
    sw_loop_run(w->loop);
    assert_int_equal(one.err, SW_OK);
    visit_close(&v);
    state_is(w, id, "{\"one\":1}");

    visit_open(w, &v, id); /* somebody is first */
    visit_open(w, &other, id);
    assert_int_equal(commit(&other, "Stateway-Set: {\"b\":2}\r\n"), SW_OK);
    assert_int_equal(now(&v, SW_STAGE_PUT, "{}"), SW_E_CONFLICT);
    assert_int_equal(now(&v, SW_STAGE_DELETE, ""), SW_E_CONFLICT);
    visit_open(w, &other, id);
    assert_int_equal(commit(&other, "Stateway-Delete: ?1\r\n"), SW_OK);
    assert_int_equal(now(&v, SW_STAGE_PUT, "{}"), SW_E_STATE_GONE);
    visit_close(&v);
    state_is(w, id, NULL);
}

static void store_fails(void **state)
{
    struct world *w = *state;
    struct fate fate = {.fault = {.err = SW_E_STORE_IO}, .times = 1};
    struct visit v;
    char id[64];

    visitor_make(w, "Stateway-Set: {\"a\":1}\r\n", id);
    visit_open(w, &v, id);
    sw_store_mem_faults(w->store, on_commit, &fate);
    assert_int_equal(now(&v, SW_STAGE_PUT, "{\"b\":2}"), SW_E_COMMIT);
    sees(&v, "{\"a\":1}");
    assert_int_equal(now(&v, SW_STAGE_PATCH, "{\"c\":3}"), SW_OK);
    sw_store_mem_faults(w->store, NULL, NULL);
    visit_close(&v);
    state_is(w, id, "{\"a\":1,\"c\":3}");
}

static void ends_and_begins(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64], fresh[64];

    visitor_make(w, "Stateway-Set: {\"a\":1}\r\n", id);
    visit_open(w, &v, id);
    assert_int_equal(now(&v, SW_STAGE_DELETE, ""), SW_OK);
    state_is(w, id, NULL);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_string_equal(cookie_of(&v, fresh), ""); /* cleared */

    visitor_make(w, "Stateway-Set: {\"a\":1}\r\n", id);
    visit_open(w, &v, id);
    assert_int_equal(now(&v, SW_STAGE_DELETE, ""), SW_OK);
    assert_int_equal(commit(&v, "Stateway-Set: {\"b\":2}\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, fresh));
    assert_int_equal(strlen(fresh), 43);
    state_is(w, id, NULL);
    state_is(w, fresh, "{\"b\":2}");

    world_rooms(w);
    visit_open(w, &v, NULL); /* an entity: its key is known before it is there */
    assert_int_equal(now(&v, SW_STAGE_PATCH, "{\"n\":1}"), SW_OK);
    assert_int_equal(now(&v, SW_STAGE_DELETE, ""), SW_OK);
    assert_int_equal(now(&v, SW_STAGE_PUT, "{\"n\":2}"), SW_OK);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"m\":3}\r\n"), SW_OK);
    state_is(w, NULL, "{\"n\":2,\"m\":3}");
}

/* What belongs to the state and was not written stays: its subject, its ends. */
static void keeps(void **state)
{
    struct world *w = *state;
    struct sw_record before, after;
    struct sw_store_key key;
    struct kept *k;
    struct visit v;
    char id[64];

    visitor_make(w, "Stateway-Set: {\"a\":1}\r\nStateway-Subject: ada\r\n", id);
    key = id_key(id);
    k = kept_get(w, &key);
    before = k->record;
    free(k);
    visit_open(w, &v, id);
    assert_int_equal(now(&v, SW_STAGE_PUT, "{\"b\":2}"), SW_OK);
    assert_true(sw_slice_eq(v.ask.session.record.subject, SW_S("ada")));
    visit_close(&v);
    k = kept_get(w, &key);
    after = k->record;
    assert_int_equal(after.created_unix_s, before.created_unix_s);
    assert_int_equal(after.absolute_unix_s, before.absolute_unix_s);
    assert_int_equal(after.bound_unix_ms, before.bound_unix_ms);
    assert_true(sw_slice_eq(after.subject, SW_S("ada")));
    free(k);
}

/* ---- turns ----------------------------------------------------------------------------------- */

static unsigned lined;
static bool must_wait;

static enum sw_step line(struct sw_ask *ask)
{
    (void)ask;
    lined++;
    return must_wait && lined == 1 ? SW_STEP_MORE : SW_STEP_DONE;
}

static void turns(void **state)
{
    static const struct {
        enum sw_concurrency concurrency;
        const char *fields;
        bool takes;
    } rows[] = {
        {SW_CONC_SERIAL, "Stateway-Patch: {\"b\":1}\r\n", false},
        {SW_CONC_CAS, "Stateway-Patch: {\"b\":1}\r\n", false},
        {SW_CONC_MERGE, "Stateway-Patch: {\"b\":1}\r\n", true},
        {SW_CONC_MERGE, "Stateway-Set: {\"b\":1}\r\n", false},
        {SW_CONC_MERGE, "Stateway-Patch: {\"b\":1}\r\nStateway-Renew: ?1\r\n", true},
        {SW_CONC_MERGE, "Stateway-Delete: ?1\r\n", false},
        {SW_CONC_MERGE, "", false},
        {SW_CONC_LAST, "Stateway-Patch: {\"b\":1}\r\n", true},
        {SW_CONC_LAST, "Stateway-Set: {\"b\":1}\r\n", false},
        {SW_CONC_LAST, "Stateway-Set: {\"b\":1}\r\nStateway-Renew: ?1\r\n", true},
    };
    struct world *w = *state;
    struct visit v;
    char id[64];

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        visitor_make(w, "Stateway-Set: {\"a\":1}\r\n", id);
        w->route.session.concurrency = rows[i].concurrency;
        visit_open(w, &v, id);
        v.ask.line = line;
        lined = 0;
        must_wait = false;
        assert_int_equal(commit(&v, rows[i].fields), SW_OK);
        if ((lined > 0) != rows[i].takes) {
            fail_msg("row %zu: %u", i, lined);
        }
    }
}

/* Who waited begins with the newest state: one commit, no conflict. */
static void waited(void **state)
{
    struct world *w = *state;
    struct visit v, other;
    struct sw_store_stats before, after;
    char id[64];

    w->route.session.concurrency = SW_CONC_MERGE;
    visitor_make(w, "Stateway-Set: {\"a\":1}\r\n", id);
    visit_open(w, &v, id);
    v.ask.line = line;
    visit_open(w, &other, id);
    assert_int_equal(commit(&other, "Stateway-Patch: {\"b\":2}\r\n"), SW_OK);
    sw_store_stats(w->store, &before);
    lined = 0;
    must_wait = true;
    {
        static const struct sw_h1_limits limits = {65536, 65536};
        size_t scanned = 0;

        v.response = (struct sw_head){.fields = v.response_fields, .field_max = 32};
        assert_int_equal(
            sw_h1_response(SW_S("HTTP/1.1 200 OK\r\nStateway-Patch: {\"c\":3}\r\n\r\n"), &scanned,
                           &limits, SW_METHOD_POST, &v.response)
                .step,
            SW_STEP_DONE);
        v.ask.response = &v.response;
    }
    assert_int_equal(v.ask.placement->commit(&v.ask), SW_STEP_MORE); /* in the line */
    assert_int_equal(v.ask.placement->commit(&v.ask), SW_STEP_MORE); /* its turn: at the store */
    sw_loop_run(w->loop);
    assert_int_equal(v.ask.placement->commit(&v.ask), SW_STEP_DONE);
    visit_close(&v);
    sw_store_stats(w->store, &after);
    assert_int_equal(after.commits, before.commits + 1);
    assert_int_equal(after.conflicts, before.conflicts);
    state_is(w, id, "{\"a\":1,\"b\":2,\"c\":3}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stands),   TEST(goes_along),  TEST(staged_stays),
        TEST(refusals), TEST(store_fails), TEST(ends_and_begins),
        TEST(keeps),    TEST(turns),       TEST(waited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
