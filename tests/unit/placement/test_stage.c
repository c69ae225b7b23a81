/* unit/placement/test_stage.c - the side API on the state of a running exchange: conditional HTTP,
 * nothing visible before the answer commits, and who wins against whom. */
#include "world.h"

static struct sw_stage_answer last;
static char tag_text[SW_VERSION_TEXT_MAX + 16];

/* Asks; the error, and the answer in last. match, none: NULL, "*", or a tag. */
static enum sw_err stage_if(struct visit *v, enum sw_stage_method method, const char *body,
                            const char *match, const char *none)
{
    struct sw_stage_ask in = {.method = method, .body = sw_slice_cstr(body)};

    if (match != NULL) {
        in.has_if_match = true;
        in.if_match_any = strcmp(match, "*") == 0;
        in.if_match = sw_slice_cstr(match);
    }
    if (none != NULL) {
        in.has_if_none_match = true;
        in.if_none_match_any = strcmp(none, "*") == 0;
        in.if_none_match = sw_slice_cstr(none);
    }
    sw_stage(&v->ask, &in, &last);
    assert_true(last.err == SW_OK ||
                (last.status == 0 && last.etag.len == 0 && last.body.len == 0));
    return last.err;
}

static enum sw_err stage(struct visit *v, enum sw_stage_method method, const char *body)
{
    return stage_if(v, method, body, NULL, NULL);
}

/* The tag of the last answer, kept. */
static const char *tag(void)
{
    snprintf(tag_text, sizeof(tag_text), "%.*s", SW_SARG(last.etag));
    return tag_text;
}

static void get_is(struct visit *v, const char *want)
{
    assert_int_equal(stage(v, SW_STAGE_GET, ""), want != NULL ? SW_OK : SW_E_NOT_FOUND);
    if (want != NULL) {
        assert_int_equal(last.status, 200);
        assert_true(last.etag.len > 2);
        if (!sw_slice_eq(last.body, sw_slice_cstr(want))) {
            fail_msg("%.*s, not %s", SW_SARG(last.body), want);
        }
    }
}

static const char *version_of(const struct visit *v, char text[SW_VERSION_TEXT_MAX + 1])
{
    struct sw_out out = sw_out_init(text, SW_VERSION_TEXT_MAX);

    sw_version_put(&out, v->ask.version);
    text[out.len] = '\0';
    return text;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void reads(void **state)
{
    static const size_t sizes[] = {20, INLINE, INLINE + 1, MAX_BYTES};
    struct world *w = *state;
    struct visit v;
    char id[64], version[SW_VERSION_TEXT_MAX + 1];

    visit_open(w, &v, NULL);
    get_is(&v, NULL);
    visit_close(&v);
    for (size_t i = 0; i < SW_COUNTOF(sizes); i++) {
        visitor_make(w, set_of(sizes[i]), id);
        visit_open(w, &v, id);
        v.ask.shared = i % 2 == 1; /* a reader may read */
        get_is(&v, state_of(sizes[i]));
        assert_string_equal(tag(), version_of(&v, version));
        get_is(&v, state_of(sizes[i])); /* and again */
        assert_int_equal(stage_if(&v, SW_STAGE_GET, "", NULL, version), SW_OK);
        assert_int_equal(last.status, 304);
        assert_true(last.body.len == 0);
        assert_string_equal(tag(), version);
        assert_int_equal(stage_if(&v, SW_STAGE_GET, "", NULL, "*"), SW_OK);
        assert_int_equal(last.status, 304);
        assert_int_equal(stage_if(&v, SW_STAGE_GET, "", NULL, "\"a-1\""), SW_OK);
        assert_int_equal(last.status, 200);
        assert_int_equal(stage_if(&v, SW_STAGE_GET, "", version, NULL), SW_OK);
        assert_int_equal(stage_if(&v, SW_STAGE_GET, "", "\"a-1\"", NULL), SW_E_STAGE_MATCH);
        visit_close(&v);
    }
}

/* A large state is read once, however often it is asked for. */
static void read_once(void **state)
{
    struct world *w = *state;
    struct visit v;
    size_t used;
    char id[64];

    visitor_make(w, set_of(MAX_BYTES), id);
    visit_open(w, &v, id);
    assert_int_equal(w->large.used, 0);
    get_is(&v, state_of(MAX_BYTES));
    used = w->large.used;
    for (int i = 0; i < 50; i++) {
        get_is(&v, state_of(MAX_BYTES));
    }
    assert_int_equal(w->large.used, used);
    visit_close(&v);
}

/* Somebody else wrote since the handoff: what is read is whole and says which one it is. */
static void newer_than_handed_out(void **state)
{
    struct world *w = *state;
    struct visit v, other;
    char id[64], version[SW_VERSION_TEXT_MAX + 1], newer[SW_VERSION_TEXT_MAX + 1];

    visitor_make(w, set_of(MAX_BYTES), id);
    visit_open(w, &v, id);
    visit_open(w, &other, id);
    version_of(&v, version);
    assert_int_equal(commit(&other, set_of(2000)), SW_OK);
    version_of(&other, newer);
    assert_int_equal(stage_if(&v, SW_STAGE_GET, "", version, NULL), SW_E_STAGE_MATCH);
    get_is(&v, state_of(2000));
    assert_string_equal(tag(), newer);
    assert_int_equal(stage(&v, SW_STAGE_PATCH, "{\"b\":1}"), SW_OK);
    assert_int_equal(commit(&v, ""), SW_E_CONFLICT); /* the app was told of another one */
    state_is(w, id, state_of(2000));
    /* and ended: */
    visit_open(w, &v, id);
    visit_open(w, &other, id);
    assert_int_equal(commit(&other, "Stateway-Delete: ?1\r\n"), SW_OK);
    get_is(&v, NULL);
    assert_int_equal(stage(&v, SW_STAGE_PATCH, "{\"b\":1}"), SW_OK);
    assert_int_equal(commit(&v, ""), SW_E_STATE_GONE);
    state_is(w, id, NULL);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void writes(void **state)
{
    static const size_t sizes[] = {20, MAX_BYTES};
    struct world *w = *state;
    struct visit v, seen;
    char id[64], version[SW_VERSION_TEXT_MAX + 1], want[SW_VERSION_TEXT_MAX + 16];

    for (size_t i = 0; i < SW_COUNTOF(sizes); i++) {
        visitor_make(w, set_of(sizes[i]), id);
        visit_open(w, &v, id);
        version_of(&v, version);
        assert_int_equal(stage_if(&v, SW_STAGE_PUT, " { \"a\" : \"\xc3\xa9\" } ", version, NULL),
                         SW_OK);
        assert_int_equal(last.status, 204);
        snprintf(want, sizeof(want), "%.*s.1\"", (int)strlen(version) - 1, version);
        assert_string_equal(tag(), want);
        get_is(&v, "{\"a\":\"\\u00e9\"}");
        state_is(w, id, state_of(sizes[i])); /* nobody else sees it */
        assert_int_equal(stage_if(&v, SW_STAGE_PATCH, "{\"b\":1}", version, NULL),
                         SW_E_STAGE_MATCH); /* it is not that any more */
        assert_int_equal(stage_if(&v, SW_STAGE_PATCH, "{\"a\":null,\"b\":1}", want, NULL), SW_OK);
        snprintf(want, sizeof(want), "%.*s.2\"", (int)strlen(version) - 1, version);
        assert_string_equal(tag(), want);
        get_is(&v, "{\"b\":1}");
        assert_int_equal(stage_if(&v, SW_STAGE_PUT, "{}", NULL, "*"), SW_E_STAGE_MATCH);
        assert_int_equal(stage_if(&v, SW_STAGE_DELETE, "", want, NULL), SW_OK);
        assert_int_equal(last.status, 204);
        assert_true(last.etag.len == 0);
        get_is(&v, NULL);
        assert_int_equal(stage_if(&v, SW_STAGE_PATCH, "{}", "*", NULL), SW_E_STAGE_MATCH);
        assert_int_equal(stage_if(&v, SW_STAGE_PUT, "{\"c\":1}", NULL, "*"), SW_OK);
        snprintf(want, sizeof(want), "%.*s.4\"", (int)strlen(version) - 1, version);
        assert_string_equal(tag(), want); /* no tag comes twice */
        visit_open(w, &seen, id);
        assert_int_equal(commit(&v, ""), SW_OK);
        assert_int_equal(v.ask.verdict, SW_VERDICT_UPDATED);
        state_is(w, id, "{\"c\":1}");
        assert_int_equal(commit(&seen, "Stateway-Set: {}\r\n"), SW_E_CONFLICT);
    }
}

static void makes_one(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64];

    visit_open(w, &v, NULL);
    assert_int_equal(stage_if(&v, SW_STAGE_PUT, "{}", "\"a-1\"", NULL), SW_E_STAGE_MATCH);
    assert_int_equal(stage_if(&v, SW_STAGE_PUT, "{}", "*", NULL), SW_E_STAGE_MATCH);
    assert_int_equal(stage_if(&v, SW_STAGE_PUT, "{}", "\"0\"", NULL), SW_OK); /* as it was told */
    assert_string_equal(tag(), "\"0.1\"");
    assert_int_equal(stage_if(&v, SW_STAGE_PATCH, "{\"a\":{\"b\":null,\"c\":1}}", "\"0.1\"", NULL),
                     SW_OK);
    assert_string_equal(tag(), "\"0.2\"");
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_non_null(cookie_of(&v, id));
    state_is(w, id, "{\"a\":{\"c\":1}}");
    /* staged and thrown away again */
    visit_open(w, &v, NULL);
    assert_int_equal(stage(&v, SW_STAGE_PUT, "{}"), SW_OK);
    assert_int_equal(stage(&v, SW_STAGE_DELETE, ""), SW_OK);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_null(cookie_of(&v, id));
}

static void refuses(void **state)
{
    static char much[MAX_BYTES + 64];
    struct world *w = *state;
    const struct row {
        enum sw_stage_method method;
        const char *body;
        enum sw_err err;
    } rows[] = {
        {SW_STAGE_PUT, "", SW_E_UPDATE_JSON},
        {SW_STAGE_PUT, "{", SW_E_UPDATE_JSON},
        {SW_STAGE_PUT, "{\"a\":1,\"a\":2}", SW_E_UPDATE_JSON},
        {SW_STAGE_PUT, "{\"a\":\"\xff\"}", SW_E_UPDATE_JSON},
        {SW_STAGE_PUT, "[]", SW_E_UPDATE_TYPE},
        {SW_STAGE_PUT, "1", SW_E_UPDATE_TYPE},
        {SW_STAGE_PATCH, "", SW_E_UPDATE_JSON},
        {SW_STAGE_PATCH, "null", SW_E_UPDATE_TYPE},
        {SW_STAGE_PATCH, "{}{}", SW_E_UPDATE_JSON},
        {SW_STAGE_PUT, much, SW_E_UPDATE_LARGE},
        {SW_STAGE_PATCH, much, SW_E_UPDATE_LARGE},
    };
    struct visit v;
    size_t used;
    char id[64];

    snprintf(much, sizeof(much), "%s", state_of(MAX_BYTES + 1));
    visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
    visit_open(w, &v, id);
    assert_int_equal(stage(&v, SW_STAGE_PUT, "{\"a\":1}"), SW_OK);
    used = w->large.used;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        if (stage(&v, rows[i].method, rows[i].body) != rows[i].err) {
            fail_msg("row %zu: %s", i, sw_err_name(last.err));
        }
        assert_int_equal(w->large.used, used);
        get_is(&v, "{\"a\":1}"); /* what was staged before stands */
    }
    snprintf(much, sizeof(much), "%s", state_of(MAX_BYTES));
    assert_int_equal(stage(&v, SW_STAGE_PUT, much), SW_OK); /* to the byte */
    assert_int_equal(stage(&v, SW_STAGE_PATCH, "{\"x\":1}"), SW_E_UPDATE_LARGE);
    assert_int_equal(commit(&v, ""), SW_OK);
    state_is(w, id, much);
}

static void who_may_not(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64];

    visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
    visit_open(w, &v, id);
    v.ask.shared = true;
    assert_int_equal(stage(&v, SW_STAGE_PUT, "{}"), SW_E_STAGE_SHARED);
    assert_int_equal(stage(&v, SW_STAGE_PATCH, "{}"), SW_E_STAGE_SHARED);
    assert_int_equal(stage(&v, SW_STAGE_DELETE, ""), SW_E_STAGE_SHARED);
    get_is(&v, "{\"n\":0}");
    assert_int_equal(commit(&v, ""), SW_OK);
    state_is(w, id, "{\"n\":0}");
    /* after its answer */
    assert_int_equal(stage(&v, SW_STAGE_GET, ""), SW_E_STAGE_GONE);
    v.ask.shared = false;
    assert_int_equal(stage(&v, SW_STAGE_PUT, "{}"), SW_E_STAGE_GONE);
    assert_int_equal(w->large.used, 0);
}

/* A hundred writes take the memory of one, and a budget that is used up changes nothing. */
static void memory(void **state)
{
    struct world *w = *state;
    struct visit v;
    size_t used;
    char id[64];

    visitor_make(w, set_of(MAX_BYTES), id);
    visit_open(w, &v, id);
    assert_int_equal(stage(&v, SW_STAGE_PUT, state_of(4000)), SW_OK);
    used = w->large.used;
    assert_in_range(used, 4000, 4200);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(stage(&v, SW_STAGE_PUT, state_of(4000)), SW_OK);
    }
    assert_int_equal(w->large.used, used);
    { /* merging takes a table, and gives it back */
        char patch[8192];
        struct sw_out out = sw_out_init(patch, sizeof(patch));

        sw_out_char(&out, '{');
        for (unsigned i = 0; i < 700; i++) {
            sw_out_printf(&out, "%s\"k%u\":1", i == 0 ? "" : ",", i);
        }
        sw_out_put(&out, "}", 2);
        assert_false(out.overflowed);
        assert_int_equal(stage(&v, SW_STAGE_PUT, "{}"), SW_OK);
        assert_int_equal(stage(&v, SW_STAGE_PATCH, patch), SW_OK);
        assert_in_range(w->large.used, strlen(patch), strlen(patch) + 200);
    }
    assert_int_equal(stage(&v, SW_STAGE_DELETE, ""), SW_OK);
    assert_int_equal(w->large.used, 0);
    visit_close(&v);

    visit_open(w, &v, id);
    assert_int_equal(stage(&v, SW_STAGE_PUT, state_of(4000)), SW_OK);
    used = w->large.used;
    w->large.bytes_max = used + 100;
    assert_int_equal(stage(&v, SW_STAGE_PUT, state_of(4001)), SW_E_LARGE_FULL);
    assert_int_equal(stage(&v, SW_STAGE_PATCH, "{\"x\":1}"), SW_E_LARGE_FULL);
    assert_int_equal(w->large.used, used);
    get_is(&v, state_of(4000));
    assert_int_equal(commit(&v, ""), SW_OK); /* it needs no more */
    w->large.bytes_max = 4096;               /* less than the state */
    visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, set_of(INLINE)), SW_OK); /* what is inline needs none of it */
    w->large.bytes_max = LARGE_BYTES;
    visitor_make(w, set_of(MAX_BYTES), id);
    w->large.bytes_max = 4096;
    visit_open(w, &v, id);
    assert_int_equal(stage(&v, SW_STAGE_GET, ""), SW_E_LARGE_FULL);
    assert_int_equal(stage(&v, SW_STAGE_PATCH, "{\"x\":1}"), SW_E_LARGE_FULL);
    visit_close(&v);
}

/* ---- the answer ------------------------------------------------------------------------------ */

static void answers(void **state)
{
    static const struct row {
        enum sw_stage_method method;
        unsigned status;
        const char *fields;
        const char *after;
        enum sw_err err;
    } rows[] = {
        {SW_STAGE_PUT, 200, "", "{\"s\":1}", SW_OK},
        {SW_STAGE_PUT, 404, "", "{\"s\":1}", SW_OK},
        {SW_STAGE_PUT, 500, "", "{\"n\":0}", SW_OK},
        {SW_STAGE_PUT, 500, "Stateway-Commit: always\r\n", "{\"s\":1}", SW_OK},
        {SW_STAGE_PUT, 404, "Stateway-Commit: 2xx\r\n", "{\"n\":0}", SW_OK},
        {SW_STAGE_PATCH, 200, "", "{\"n\":0,\"s\":1}", SW_OK},
        {SW_STAGE_DELETE, 200, "", NULL, SW_OK},
        {SW_STAGE_DELETE, 502, "", "{\"n\":0}", SW_OK},
        {SW_STAGE_PUT, 200, "Stateway-Renew: ?1\r\n", "{\"s\":1}", SW_OK},
        {SW_STAGE_PUT, 200, "Stateway-Expect: \"a-1\"\r\n", "{\"n\":0}", SW_E_CONFLICT},
        {SW_STAGE_PUT, 200, "Stateway-Set: {}\r\n", "{\"n\":0}", SW_E_UPDATE_MANY},
        {SW_STAGE_DELETE, 200, "Stateway-Patch: {}\r\n", "{\"n\":0}", SW_E_UPDATE_MANY},
        {SW_STAGE_PUT, 200, "Stateway-Delete: ?1\r\n", "{\"n\":0}", SW_E_UPDATE_MANY},
        {SW_STAGE_PUT, 200, "Stateway-Set: {\r\n", "{\"n\":0}", SW_E_UPDATE_JSON},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct visit v;
        char id[64];

        visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
        visit_open(w, &v, id);
        assert_int_equal(stage(&v, rows[i].method, "{\"s\":1}"), SW_OK);
        if (commit_status(&v, rows[i].status, rows[i].fields) != rows[i].err) {
            fail_msg("row %zu: %s", i, sw_err_name(v.ask.err));
        }
        state_is(w, id, rows[i].after);
    }
    { /* an envelope as well */
        struct sw_envelope e = {.kind = SW_UPDATE_SET, .value = SW_S("{}"), .status = 200};
        struct visit v;
        char id[64];

        visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
        visit_open(w, &v, id);
        assert_int_equal(stage(&v, SW_STAGE_PUT, "{\"s\":1}"), SW_OK);
        v.ask.envelope = &e;
        assert_int_equal(commit(&v, ""), SW_E_UPDATE_MANY);
        visit_open(w, &v, id);
        assert_int_equal(stage(&v, SW_STAGE_PUT, "{\"s\":1}"), SW_OK);
        e.kind = SW_UPDATE_NONE; /* a long body, and the state by the side */
        v.ask.envelope = &e;
        assert_int_equal(commit(&v, ""), SW_OK);
        state_is(w, id, "{\"s\":1}");
    }
}

/* Between staging and the answer, others were there. */
static void crossing(void **state)
{
    static const struct row {
        enum sw_concurrency concurrency;
        enum sw_stage_method method;
        const char *other, *after;
        enum sw_err err;
    } rows[] = {
        {SW_CONC_SERIAL, SW_STAGE_PUT, "Stateway-Set: {\"o\":1}\r\n", "{\"o\":1}", SW_E_CONFLICT},
        {SW_CONC_MERGE, SW_STAGE_PATCH, "Stateway-Set: {\"o\":1}\r\n", "{\"o\":1}",
         SW_E_CONFLICT}, /* what it stood on is gone */
        {SW_CONC_LAST, SW_STAGE_PUT, "Stateway-Set: {\"o\":1}\r\n", "{\"s\":1}", SW_OK},
        {SW_CONC_LAST, SW_STAGE_PUT, "Stateway-Renew: ?1\r\n", "{\"s\":1}", SW_OK},
        {SW_CONC_SERIAL, SW_STAGE_PUT, "Stateway-Renew: ?1\r\n", "{\"n\":0}", SW_E_CONFLICT},
        /* a logout wins over what is staged, and a staged logout over what was written */
        {SW_CONC_SERIAL, SW_STAGE_PUT, "Stateway-Delete: ?1\r\n", NULL, SW_E_STATE_GONE},
        {SW_CONC_LAST, SW_STAGE_PUT, "Stateway-Delete: ?1\r\n", NULL, SW_E_STATE_GONE},
        {SW_CONC_SERIAL, SW_STAGE_DELETE, "Stateway-Set: {\"o\":1}\r\n", NULL, SW_OK},
        {SW_CONC_SERIAL, SW_STAGE_DELETE, "Stateway-Renew: ?1\r\n", NULL, SW_OK},
        {SW_CONC_SERIAL, SW_STAGE_DELETE, "Stateway-Delete: ?1\r\n", NULL, SW_OK},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct visit v, other;
        char id[64], renewed[64];

        w->route.session.concurrency = rows[i].concurrency;
        visitor_make(w, "Stateway-Set: {\"n\":0}\r\n", id);
        visit_open(w, &v, id);
        assert_int_equal(stage(&v, rows[i].method, "{\"s\":1}"), SW_OK);
        visit_open(w, &other, id);
        assert_int_equal(commit(&other, rows[i].other), SW_OK);
        if (commit(&v, "") != rows[i].err) {
            fail_msg("row %zu: %s", i, sw_err_name(v.ask.err));
        }
        state_is(w, id, rows[i].after);
        if (cookie_of(&other, renewed) != NULL && renewed[0] != '\0') {
            state_is(w, renewed, rows[i].after);
        }
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(reads),     TEST(read_once), TEST(newer_than_handed_out), TEST(writes),
        TEST(makes_one), TEST(refuses),   TEST(who_may_not),           TEST(memory),
        TEST(answers),   TEST(crossing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
