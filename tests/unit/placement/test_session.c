/* unit/placement/test_session.c - session against the memory store, on a real loop: what is read,
 * what a commit becomes when others came first, and when the store fails. */
#include "world.h"

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

    world_rooms(w);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    before = v.ask.version;
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK); /* it has no id to renew */
    assert_true(commits_made(w) == 1);
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

/* The visitor's name for logs and apps is that of his state, whichever id led to it. */
static void one_name(void **state)
{
    struct world *w = *state;
    struct visit v;
    char first[64], id[64], fresh[17], text[17];

    visitor_make(w, "Stateway-Set: {\"n\":1}\r\n", first);
    visit_open(w, &v, first);
    memcpy(text, v.ask.visitor, sizeof(text));
    assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
    memcpy(fresh, v.ask.visitor, sizeof(fresh));
    assert_string_not_equal(fresh, text);
    assert_non_null(cookie_of(&v, id));
    visit_open(w, &v, id);
    assert_string_equal(v.ask.visitor, fresh);
    visit_open(w, &v, first);
    assert_string_equal(v.ask.visitor, fresh);
    assert_true(sw_slice_eq(sw_slice_tail(v.ask.key_text, 8), sw_slice_cstr(fresh)));
}

/* Writes a record as it would never be. */
static void raw_put(struct world *w, const char *id, enum sw_record_kind kind,
                    struct sw_slice value, int64_t written_unix_s, int64_t expires_unix_s,
                    int64_t absolute_unix_s)
{
    write_raw(w,
              (struct sw_write){.kind = SW_WRITE_PUT,
                                .key = id_key(id),
                                .record = kind,
                                .expect = SW_EXPECT_ANY,
                                .value = value,
                                .expires_unix_s = expires_unix_s,
                                .absolute_unix_s = absolute_unix_s},
              written_unix_s);
}

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
    } rows[] = {{1, SW_OK}, {64, SW_OK}, {65, SW_E_CONFLICT}, {1000, SW_E_CONFLICT}};
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

/* ---- joined ---------------------------------------------------------------------------------- */

static struct sw_write claim_write(uint8_t number, enum sw_expect expect)
{
    struct sw_write w = {
        .kind = SW_WRITE_PUT, .record = SW_RECORD_CLAIM, .expect = expect, .value = SW_S("done")};

    memset(w.key.bytes, number, sizeof(w.key.bytes));
    return w;
}

static bool claimed(struct world *w, uint8_t number)
{
    struct sw_write claim = claim_write(number, SW_EXPECT_ANY);
    struct kept *k = kept_get(w, &claim.key);
    bool there = k->err == SW_OK;

    assert_true(!there || k->record.kind == SW_RECORD_CLAIM);
    free(k);
    return there;
}

/* One more write goes with the state's, and with nothing else. */
static void joined(void **state)
{
    static const struct row {
        const char *fields;
        unsigned status;
        bool with; /* a state */
        bool joined;
    } rows[] = {
        {"Stateway-Set: {}\r\n", 200, true, true},      {"Stateway-Set: {}\r\n", 200, false, true},
        {"Stateway-Delete: ?1\r\n", 200, true, true},   {"Stateway-Renew: ?1\r\n", 200, true, true},
        {"Stateway-Delete: ?1\r\n", 200, false, false}, {"", 200, true, false},
        {"Stateway-Set: {}\r\n", 500, true, false},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_write claim = claim_write((uint8_t)(i + 1), SW_EXPECT_ANY);
        struct visit v;
        char id[64];

        visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
        visit_open(w, &v, rows[i].with ? id : NULL);
        v.ask.join = &claim;
        assert_int_equal(commit_status(&v, rows[i].status, rows[i].fields), SW_OK);
        if (v.ask.joined != rows[i].joined || claimed(w, (uint8_t)(i + 1)) != rows[i].joined) {
            fail_msg("row %zu", i);
        }
    }
    { /* not with a touch, which nobody waits for */
        struct sw_write claim = claim_write(100, SW_EXPECT_ANY);
        int64_t now = sw_loop_now_unix_s(w->loop);
        struct visit v;

        raw_put(w, ID_A, SW_RECORD_STATE, SW_S("{}"), now - 12, now + 50, now + 5000);
        visit_open(w, &v, ID_A);
        assert_true(v.ask.session.needs_touch);
        v.ask.join = &claim;
        assert_int_equal(commit(&v, ""), SW_OK);
        assert_false(v.ask.joined);
        assert_false(claimed(w, 100));
    }
}

/* A conflict that is tried again takes it along again; one that stands leaves both unwritten. */
static void joined_in_a_crowd(void **state)
{
    struct world *w = *state;

    for (uint8_t i = 1; i <= 2; i++) {
        struct sw_write claim = claim_write(i, SW_EXPECT_VERSION);
        struct visit v, other;
        char id[64];

        w->route.session.concurrency = i == 1 ? SW_CONC_MERGE : SW_CONC_SERIAL;
        visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
        visit_open(w, &v, id);
        visit_open(w, &other, id);
        assert_int_equal(commit(&other, "Stateway-Patch: {\"o\":1}\r\n"), SW_OK);
        v.ask.join = &claim;
        assert_int_equal(commit(&v, "Stateway-Patch: {\"m\":1}\r\n"),
                         i == 1 ? SW_OK : SW_E_CONFLICT);
        assert_true(v.ask.joined == (i == 1));
        assert_true(claimed(w, i) == (i == 1));
    }
}

/* Another has the claim: not a word of the state is written, and it is not tried again. */
static void claim_is_another_s(void **state)
{
    static const enum sw_concurrency kinds[] = {SW_CONC_SERIAL, SW_CONC_LAST};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(kinds); i++) {
        struct sw_write claim = claim_write((uint8_t)(i + 1), SW_EXPECT_VERSION);
        uint64_t commits;
        struct visit v;
        char id[64];

        w->route.session.concurrency = kinds[i];
        visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
        write_raw(w, claim, sw_loop_now_unix_s(w->loop));
        visit_open(w, &v, id);
        v.ask.join = &claim;
        commits = commits_made(w);
        assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_E_IDEM_RUNNING);
        assert_false(v.ask.joined);
        assert_true(v.ask.client_lines.len == 0);
        assert_true(commits_made(w) == commits + 1);
        state_is(w, id, "{\"n\":0}");
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
        TEST(first_write),
        TEST(ends),
        TEST(entity_again),
        TEST(renewals),
        TEST(one_name),
        TEST(aliases_that_lead_nowhere),
        TEST(crossing),
        TEST(store_failures),
        TEST(tries_are_bounded),
        TEST(ended_between_two_tries),
        TEST(joined),
        TEST(joined_in_a_crowd),
        TEST(claim_is_another_s),
        TEST(touches),
        TEST(ttl),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
