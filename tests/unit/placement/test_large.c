/* unit/placement/test_large.c - states above inline: sizes at the edges, where their bytes lie, and
 * what happens when there is no memory for them. */
#include "world.h"

/* ---- sizes ----------------------------------------------------------------------------------- */

static void around_the_limit(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64];

    for (size_t bytes = MAX_BYTES - 1; bytes <= MAX_BYTES; bytes++) {
        visitor_make(w, set_of(bytes), id);
        state_is(w, id, state_of(bytes));
    }
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, set_of(MAX_BYTES + 1)), SW_E_UPDATE_LARGE);
    assert_int_equal(v.ask.verdict, SW_VERDICT_KEPT);
    state_is(w, id, state_of(MAX_BYTES)); /* the old one stands */
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, set_of(MAX_BYTES + 1)), SW_E_UPDATE_LARGE);
    assert_true(v.ask.client_lines.len == 0);
}

/* {"much":"0..."} and {"x":1} are one member more: 6 bytes. */
static void patched_to_the_limit(void **state)
{
    static const struct row {
        size_t before;
        enum sw_err err;
    } rows[] = {{INLINE - 7, SW_OK},
                {INLINE - 6, SW_OK},
                {INLINE - 5, SW_OK},
                {INLINE + 1, SW_OK},
                {MAX_BYTES - 7, SW_OK},
                {MAX_BYTES - 6, SW_OK},
                {MAX_BYTES - 5, SW_E_UPDATE_LARGE},
                {MAX_BYTES, SW_E_UPDATE_LARGE}};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        char id[64], want[MAX_BYTES + 64];
        struct visit v;

        visitor_make(w, set_of(rows[i].before), id);
        visit_open(w, &v, id);
        if (commit(&v, "Stateway-Patch: {\"x\":1}\r\n") != rows[i].err) {
            fail_msg("%zu bytes: %s", rows[i].before, sw_err_name(v.ask.err));
        }
        snprintf(want, sizeof(want), "%s", state_of(rows[i].before));
        if (rows[i].err == SW_OK) {
            snprintf(want + rows[i].before - 1, 16, ",\"x\":1}");
        }
        state_is(w, id, want);
    }
}

/* A large state that shrinks is handed over inline again. */
static void shrinks(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64];

    visitor_make(w, set_of(MAX_BYTES), id);
    visit_open(w, &v, id);
    assert_null(v.ask.state.ptr);
    assert_int_equal(v.ask.state.len, MAX_BYTES);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"much\":null,\"n\":1}\r\n"), SW_OK);
    visit_open(w, &v, id);
    assert_true(sw_slice_eq(v.ask.state, SW_S("{\"n\":1}")));
    visit_close(&v);
}

/* From an envelope comes UTF-8, which grows to \uXXXX: counted as it is kept. */
static void grows_when_escaped(void **state)
{
    static const struct row {
        const char *character;
        size_t escaped;
    } rows[] = {{"\x7f", 6}, {"\xc3\xa9", 6}, {"\xe2\x82\xac", 6}, {"\xf0\x9f\x98\x80", 12}};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        size_t most = (MAX_BYTES - 8) / rows[i].escaped; /* {"s":""} */

        for (size_t count = most; count <= most + 1; count++) {
            struct sw_envelope e = {.kind = SW_UPDATE_SET, .status = 200};
            static char text[4 * MAX_BYTES];
            struct sw_out out = sw_out_init(text, sizeof(text));
            struct visit v;

            sw_out_lit(&out, " {\n\"s\" : \"");
            for (size_t n = 0; n < count; n++) {
                sw_out_cstr(&out, rows[i].character);
            }
            sw_out_lit(&out, "\" } ");
            e.value = sw_out_done(&out);
            visit_open(w, &v, NULL);
            v.ask.envelope = &e;
            assert_int_equal(commit(&v, ""), count == most ? SW_OK : SW_E_UPDATE_LARGE);
        }
    }
}

/* ---- what is written with them --------------------------------------------------------------- */

/* A new id, a new subject: the state goes along whole, though the app never had it in its hands. */
static void goes_along(void **state)
{
    static const char *const updates[] = {"Stateway-Renew: ?1\r\n", "Stateway-Subject: alice\r\n"};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(updates); i++) {
        struct visit v;
        char id[64], renewed[64];

        visitor_make(w, set_of(MAX_BYTES), id);
        visit_open(w, &v, id);
        assert_int_equal(commit(&v, updates[i]), SW_OK);
        assert_non_null(cookie_of(&v, renewed));
        state_is(w, renewed, state_of(MAX_BYTES));
        state_is(w, id, state_of(MAX_BYTES));
    }
}

static void crossing(void **state)
{
    static const struct row {
        enum sw_concurrency concurrency;
        const char *second;
        enum sw_err err;
        size_t after; /* of the second: at least so many bytes */
    } rows[] = {
        {SW_CONC_SERIAL, "Stateway-Patch: {\"b\":1}\r\n", SW_E_CONFLICT, 2000},
        {SW_CONC_CAS, "Stateway-Renew: ?1\r\n", SW_E_CONFLICT, 2000},
        {SW_CONC_MERGE, "Stateway-Patch: {\"b\":1}\r\n", SW_OK, 2006},
        {SW_CONC_MERGE, "Stateway-Renew: ?1\r\n", SW_OK, 2000},
        {SW_CONC_LAST, "Stateway-Patch: {\"b\":1}\r\n", SW_OK, 2006},
        {SW_CONC_LAST, "Stateway-Set: {\"b\":1}\r\n", SW_OK, 7},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct visit first, second, after;
        char id[64];

        w->route.session.concurrency = rows[i].concurrency;
        visitor_make(w, set_of(MAX_BYTES), id);
        visit_open(w, &first, id);
        visit_open(w, &second, id);
        assert_int_equal(commit(&first, set_of(2000)), SW_OK);
        if (commit(&second, rows[i].second) != rows[i].err) {
            fail_msg("row %zu: %s", i, sw_err_name(second.ask.err));
        }
        visit_open(w, &after, id);
        assert_int_equal(after.ask.state.len, rows[i].after);
        visit_close(&after);
    }
}

/* Ended between the handoff and the answer, when the value is to be read again. */
static void ended_before_it_was_read(void **state)
{
    struct world *w = *state;
    struct visit v, end;
    char id[64];

    for (int merge = 0; merge < 2; merge++) {
        w->route.session.concurrency = merge ? SW_CONC_MERGE : SW_CONC_SERIAL;
        visitor_make(w, set_of(MAX_BYTES), id);
        visit_open(w, &v, id);
        visit_open(w, &end, id);
        assert_int_equal(commit(&end, "Stateway-Delete: ?1\r\n"), SW_OK);
        assert_int_equal(commit(&v, "Stateway-Patch: {\"b\":1}\r\n"), SW_E_STATE_GONE);
        assert_int_equal(v.ask.verdict, SW_VERDICT_REVOKED);
        state_is(w, id, NULL);
    }
}

/* ---- the budget ------------------------------------------------------------------------------ */

/* One byte short of what is needed: refused, and nothing was written. */
static void used_up(void **state)
{
    static const char *const updates[] = {"Stateway-Patch: {\"b\":1}\r\n", "Stateway-Renew: ?1\r\n",
                                          NULL /* a large Set */};
    struct world *w = *state;
    char id[64], before[MAX_BYTES + 1];

    visitor_make(w, set_of(MAX_BYTES - 20), id);
    snprintf(before, sizeof(before), "%s", state_of(MAX_BYTES - 20));
    for (size_t i = 0; i < SW_COUNTOF(updates); i++) {
        size_t bytes;
        uint64_t commits = commits_made(w);

        for (bytes = 0; bytes < LARGE_BYTES; bytes += 512) {
            struct visit v;
            enum sw_err err;

            sw_budget_init(&w->large, bytes);
            visit_open(w, &v, id);
            err = commit(&v, updates[i] != NULL ? updates[i] : set_of(MAX_BYTES - 20));
            assert_int_equal(w->large.used, 0);
            if (err == SW_OK) {
                break;
            }
            assert_int_equal(err, SW_E_LARGE_FULL);
            assert_true(v.ask.client_lines.len == 0);
            assert_true(commits_made(w) == commits);
            sw_budget_init(&w->large, LARGE_BYTES);
            state_is(w, id, before);
        }
        /* at last it fits, and not by taking a multiple of what it needs */
        assert_in_range(bytes, MAX_BYTES - 20, 3 * MAX_BYTES + 20000);
        sw_budget_init(&w->large, LARGE_BYTES);
        visitor_make(w, set_of(MAX_BYTES - 20), id);
    }
}

/* However often it is tried, the memory is that of one try. */
static void tries_take_no_more(void **state)
{
    struct fate fate = {.fault = {.err = SW_E_CONFLICT}, .times = 16};
    struct world *w = *state;
    struct visit v;
    char id[64];

    w->route.session.concurrency = SW_CONC_MERGE;
    visitor_make(w, set_of(MAX_BYTES - 20), id);
    sw_store_mem_faults(w->store, on_commit, &fate);
    sw_budget_init(&w->large, 3 * MAX_BYTES + 20000);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"b\":1}\r\n"), SW_OK);
    assert_int_equal(fate.asked, 17);
    assert_int_equal(w->large.refused, 0);
    sw_store_mem_faults(w->store, NULL, NULL);
}

/* An arena that is too small for what a record holds besides: read elsewhere, not refused. */
static void no_room_in_the_arena(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64];

    visitor_make(w, "Stateway-Set: {\"n\":1}\r\nStateway-Subject: alice\r\n", id);
    for (size_t size = 0; size < 400; size++) {
        sw_arena_init(&v.arena, v.block, sizeof(v.block));
        visit_open(w, &v, id);
        visit_close(&v);
        v.ask.large = NULL;
        v.ask.state_present = false;
        sw_arena_init(&v.arena, v.block, size);
        assert_int_equal(v.ask.placement->load(&v.ask), SW_STEP_DONE);
        assert_true(sw_slice_eq(v.ask.state, SW_S("{\"n\":1}")));
        assert_false(v.arena.overflowed);
        visit_close(&v);
    }
}

/* A patch of many members, which needs a table larger than an arena. */
static void patch_of_many_members(void **state)
{
    static char fields[16384], want[16384];
    struct world *w = *state;
    struct sw_out out = sw_out_init(fields, sizeof(fields)), all = sw_out_init(want, sizeof(want));
    struct visit v;
    char id[64];

    w->route.session.max_bytes = 16000;
    visitor_make(w, "Stateway-Set: {\"k0\":0}\r\n", id);
    sw_out_lit(&out, "Stateway-Patch: {");
    sw_out_lit(&all, "{\"k0\":0");
    for (unsigned i = 1; i < 1500; i++) {
        sw_out_printf(&out, "%s\"k%u\":1", i == 1 ? "" : ",", i);
        sw_out_printf(&all, ",\"k%u\":1", i);
    }
    sw_out_put(&out, "}\r\n", 4);
    sw_out_put(&all, "}", 2);
    assert_false(out.overflowed || all.overflowed);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, fields), SW_OK);
    state_is(w, id, want);
}

/* ---- envelopes ------------------------------------------------------------------------------- */

static void envelopes(void **state)
{
    static const struct row {
        enum sw_update_kind kind;
        const char *value;
        unsigned status, said; /* of the answer, and in the envelope */
        const char *fields;
        const char *after;
        enum sw_err err;
    } rows[] = {
        {SW_UPDATE_SET, "{ \"a\" : 1 }", 200, 200, "", "{\"a\":1}", SW_OK},
        {SW_UPDATE_PATCH, "{\"a\":1}", 200, 200, "", "{\"n\":0,\"a\":1}", SW_OK},
        {SW_UPDATE_DELETE, "", 200, 200, "", NULL, SW_OK},
        {SW_UPDATE_NONE, "", 200, 200, "", "{\"n\":0}", SW_OK},
        {SW_UPDATE_SET, "{\"a\":1}", 200, 404, "", "{\"a\":1}", SW_OK},
        {SW_UPDATE_SET, "{\"a\":1}", 200, 500, "", "{\"n\":0}", SW_OK},
        {SW_UPDATE_SET, "{\"a\":1}", 500, 200, "", "{\"n\":0}", SW_OK},
        {SW_UPDATE_SET, "{\"a\":1}", 200, 500, "Stateway-Commit: always\r\n", "{\"a\":1}", SW_OK},
        {SW_UPDATE_SET, "{\"a\":1}", 200, 404, "Stateway-Commit: 2xx\r\n", "{\"n\":0}", SW_OK},
        {SW_UPDATE_SET, "{\"a\":1}", 200, 200, "Stateway-Renew: ?1\r\n", "{\"a\":1}", SW_OK},
        {SW_UPDATE_SET, "{\"a\":1}", 200, 200, "Stateway-Set: {}\r\n", "{\"n\":0}",
         SW_E_UPDATE_MANY},
        {SW_UPDATE_NONE, "", 200, 200, "Stateway-Set: {}\r\n", "{\"n\":0}", SW_E_UPDATE_MANY},
        {SW_UPDATE_SET, "{\"a\":1}", 200, 200, "Stateway-Delete: ?1\r\n", "{\"n\":0}",
         SW_E_UPDATE_MANY},
        {SW_UPDATE_SET, "{\"a\":1}", 200, 200, "Stateway-Alarm: in=5\r\n", "{\"n\":0}",
         SW_E_UPDATE_MANY},
        {SW_UPDATE_SET, "{\"a\":1}", 200, 200, "Stateway-Expect: \"a-1\"\r\n", "{\"n\":0}",
         SW_E_CONFLICT},
    };
    struct world *w = *state;

    w->route.session.alarm = SW_S("/alarm");
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_envelope e = {
            .kind = rows[i].kind, .value = sw_slice_cstr(rows[i].value), .status = rows[i].said};
        struct visit v;
        char id[64];

        visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
        visit_open(w, &v, id);
        v.ask.envelope = &e;
        if (commit_status(&v, rows[i].status, rows[i].fields) != rows[i].err) {
            fail_msg("row %zu: %s", i, sw_err_name(v.ask.err));
        }
        state_is(w, id, rows[i].after);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(around_the_limit),
        TEST(patched_to_the_limit),
        TEST(shrinks),
        TEST(grows_when_escaped),
        TEST(goes_along),
        TEST(crossing),
        TEST(ended_before_it_was_read),
        TEST(used_up),
        TEST(tries_take_no_more),
        TEST(no_room_in_the_arena),
        TEST(patch_of_many_members),
        TEST(envelopes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
