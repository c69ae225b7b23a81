/* unit/placement/test_token.c - tokens of a request: found, refused, handed over, minted, ended;
 * with every size of memory and a store that fails.
 */
#include "placement/token_priv.h"
#include "base/json.h"
#include "world.h"

#define ARENA 65536

struct call {
    struct sw_ask ask;
    struct world *w;
    struct sw_arena arena;
    struct sw_field request_fields[16], response_fields[32];
    struct sw_head request, response;
    char request_text[16384], response_text[16384], block[ARENA];
};

static struct sw_mint mint;
static struct sw_slice audiences[] = {SW_S("shop"), SW_S("desk")};

/* A route that mints, in a world with keys. */
static int token_up(void **state)
{
    struct world *w;

    assert_int_equal(world_up(state), 0);
    w = *state;
    assert_int_equal(
        sw_mint_init(&mint, &w->keys,
                     SW_BIT(SW_JOSE_ES256) | SW_BIT(SW_JOSE_ED25519) | SW_BIT(SW_JOSE_HS256)),
        SW_OK);
    w->env.mint = &mint;
    w->route.placement = SW_PLACE_TOKEN;
    w->route.token = (struct sw_config_token){
        .on = true,
        .from_cookie = true,
        .cookie = {.name = SW_S("login"), .path = SW_S("/")},
        .keyset = SW_KEYSETS_MAX,
        .issuer = SW_S("https://shop.example"),
        .typ = SW_S("JWT"),
        .audiences = audiences,
        .audience_count = 2,
        .skew_s = 30,
        .mint = {.on = true,
                 .alg = SW_JOSE_HS256,
                 .life_s = 600,
                 .renew_s = 300,
                 .absolute_s = 86400 * 30,
                 .deliver = SW_DELIVER_COOKIE},
    };
    return 0;
}

static int token_down(void **state)
{
    sw_mint_fini(&mint);
    return world_down(state);
}
#define TOKEN_TEST(f) cmocka_unit_test_setup_teardown(f, token_up, token_down)

static void on_wake(struct sw_ask *ask)
{
    sw_loop_stop(SW_CONTAINER(ask, struct call, ask)->w->loop);
}

static void call_begin(struct world *w, struct call *c, const char *fields, size_t arena)
{
    static const struct sw_h1_limits limits = {65536, 65536};
    size_t scanned = 0;
    int n = snprintf(c->request_text, sizeof(c->request_text),
                     "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);

    assert_true(n > 0 && (size_t)n < sizeof(c->request_text));
    memset(&c->ask, 0, sizeof(c->ask));
    c->w = w;
    c->request = (struct sw_head){.fields = c->request_fields, .field_max = 16};
    assert_int_equal(
        sw_h1_request(sw_slice_of(c->request_text, (size_t)n), &scanned, &limits, &c->request).step,
        SW_STEP_DONE);
    sw_arena_init(&c->arena, c->block, arena);
    c->ask.env = &w->env;
    c->ask.placement = sw_placement_of(SW_PLACE_TOKEN);
    c->ask.routed = &w->routed;
    c->ask.request = &c->request;
    c->ask.arena = &c->arena;
    c->ask.now_unix_s = sw_loop_now_unix_s(w->loop);
    c->ask.wake = on_wake;
}

static enum sw_err call_load(struct call *c)
{
    enum sw_step step = sw_place_token(&c->ask);
    enum sw_err err;

    assert_int_not_equal(step, SW_STEP_MORE); /* own keys, and a store that answers at once */
    if (step == SW_STEP_FAIL) {
        return c->ask.err;
    }
    err = sw_place_key(&c->ask);
    if (err != SW_OK) {
        return err;
    }
    assert_int_equal(c->ask.placement->load(&c->ask), SW_STEP_DONE);
    return SW_OK;
}

static enum sw_err call_commit(struct call *c, const char *fields)
{
    static const struct sw_h1_limits limits = {65536, 65536};
    size_t scanned = 0;
    enum sw_step step;
    int n =
        snprintf(c->response_text, sizeof(c->response_text), "HTTP/1.1 200 OK\r\n%s\r\n", fields);

    assert_true(n > 0 && (size_t)n < sizeof(c->response_text));
    c->response = (struct sw_head){.fields = c->response_fields, .field_max = 32};
    assert_int_equal(sw_h1_response(sw_slice_of(c->response_text, (size_t)n), &scanned, &limits,
                                    SW_METHOD_POST, &c->response)
                         .step,
                     SW_STEP_DONE);
    c->ask.response = &c->response;
    while ((step = c->ask.placement->commit(&c->ask)) == SW_STEP_MORE) {
        sw_loop_run(c->w->loop);
    }
    sw_ask_drop(&c->ask);
    return step == SW_STEP_DONE ? SW_OK : c->ask.err;
}

/* The value of the cookie that the client gets, as a Cookie line. False: none, or it is cleared. */
static bool cookie_line(const struct call *c, char text[9000])
{
    struct sw_slice lines = c->ask.client_lines, head = SW_S("Set-Cookie: login="), value;

    if (!sw_slice_starts(lines, head)) {
        assert_int_equal(lines.len, 0);
        return false;
    }
    value = sw_slice_tail(lines, head.len);
    value = sw_slice_head(value, sw_slice_find(value, ';'));
    snprintf(text, 9000, "Cookie: login=%.*s\r\n", SW_SARG(value));
    return value.len > 0;
}

/* One exchange. */
static enum sw_err ask_once(struct world *w, struct call *c, const char *fields, const char *answer)
{
    enum sw_err err;

    call_begin(w, c, fields, ARENA);
    err = call_load(c);
    return err == SW_OK ? call_commit(c, answer) : err;
}

static void state_of_is(struct world *w, const char *fields, const char *want)
{
    struct call c;

    call_begin(w, &c, fields, ARENA);
    assert_int_equal(call_load(&c), SW_OK);
    assert_int_equal(c.ask.state_present, want != NULL);
    if (want != NULL && !sw_slice_eq(c.ask.state, sw_slice_cstr(want))) {
        fail_msg("%.*s, not %s", SW_SARG(c.ask.state), want);
    }
}

/* ---- finding --------------------------------------------------------------------------------- */

static const struct find_row {
    const char *name, *fields;
    bool from_cookie;
    enum sw_err err;
    const char *text; /* NULL: none is found */
} find_rows[] = {
    {"bearer", "Authorization: Bearer abc\r\n", false, SW_OK, "abc"},
    {"any case", "aUTHORIZATION: bEARER abc\r\n", false, SW_OK, "abc"},
    {"blanks", "Authorization: Bearer    abc  \r\n", false, SW_OK, "abc"},
    {"nothing behind the scheme", "Authorization: Bearer\r\n", false, SW_OK, ""},
    {"a scheme that begins alike", "Authorization: Bearers abc\r\n", false, SW_OK, NULL},
    {"a tab is no blank", "Authorization: Bearer\tabc\r\n", false, SW_OK, NULL},
    {"another scheme", "Authorization: Basic abc\r\n", false, SW_OK, NULL},
    {"none", "", false, SW_OK, NULL},
    {"two", "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n", false, SW_E_TOKEN_TWICE,
     NULL},
    {"two schemes", "Authorization: Basic a\r\nAuthorization: Bearer a\r\n", false,
     SW_E_TOKEN_TWICE, NULL},
    {"two of others", "Authorization: Basic a\r\nAuthorization: Digest a\r\n", false,
     SW_E_TOKEN_TWICE, NULL},
    {"a cookie is no header", "Cookie: login=abc\r\n", false, SW_OK, NULL},
    {"cookie", "Cookie: a=b; login=abc; c=d\r\n", true, SW_OK, "abc"},
    {"names have a case", "Cookie: Login=abc\r\n", true, SW_OK, NULL},
    {"a cleared cookie", "Cookie: login=\r\n", true, SW_OK, NULL},
    {"two cookies", "Cookie: login=a; login=a\r\n", true, SW_E_TOKEN_TWICE, NULL},
    {"in two lines", "Cookie: login=a\r\nCookie: login=b\r\n", true, SW_E_TOKEN_TWICE, NULL},
    {"a cleared one beside it", "Cookie: login=; login=a\r\n", true, SW_E_TOKEN_TWICE, NULL},
    {"both", "Cookie: login=a\r\nAuthorization: Bearer a\r\n", true, SW_E_TOKEN_TWICE, NULL},
    {"another scheme beside it", "Cookie: login=a\r\nAuthorization: Basic a\r\n", true, SW_OK, "a"},
    {"the header alone", "Authorization: Bearer a\r\n", true, SW_OK, NULL},
};

static void finds(void **state)
{
    struct world *w = *state;
    struct call c;

    for (size_t i = 0; i < SW_COUNTOF(find_rows); i++) {
        const struct find_row *r = &find_rows[i];
        struct sw_token_found f;

        w->route.token.from_cookie = r->from_cookie;
        call_begin(w, &c, r->fields, ARENA);
        f = sw_token__find(&c.ask);
        if (f.err != r->err || f.found != (r->text != NULL) ||
            (f.found && !sw_slice_eq(f.text, sw_slice_cstr(r->text)))) {
            fail_msg("%s: %s, %d, %.*s", r->name, sw_err_name(f.err), f.found, SW_SARG(f.text));
        }
    }
}

/* What every refusal says: one challenge, of our own words. */
static void challenges(void **state)
{
    struct world *w = *state;
    static struct sw_slice scopes[] = {SW_S("cart"), SW_S("ev\"il"), SW_S("read")};
    struct call c;

    w->route.token.required = true;
    w->route.token.scopes = scopes;
    w->route.token.scope_count = 3;
    for (int e = 1; e < SW_E_COUNT; e++) {
        enum sw_err err = (enum sw_err)e;
        struct sw_slice line;

        call_begin(w, &c, "Cookie: login=secret\r\n", ARENA);
        assert_true(sw_token__find(&c.ask).found);
        assert_int_equal(sw_token__refuse(&c.ask, err), SW_STEP_FAIL);
        assert_int_equal(c.ask.err, err);
        line = c.ask.token.challenge;
        assert_int_equal(line.len > 0, sw_err_status(err) == 400 || sw_err_status(err) == 401 ||
                                           sw_err_status(err) == 403);
        /* a bad one is cleared; one that is good elsewhere is not */
        assert_int_equal(c.ask.drops_cookie, sw_err_status(err) == 401);
        if (line.len == 0) {
            continue;
        }
        assert_true(sw_slice_starts(line, SW_S("WWW-Authenticate: Bearer realm=\"shop\"")));
        assert_int_equal(sw_slice_find_slice(line, SW_S("\r\n")), line.len - 2);
        assert_int_equal(sw_slice_find_slice(line, SW_S("secret")), line.len);
        assert_int_equal(sw_slice_find_slice(line, SW_S("\\")), line.len); /* RFC 6750, 3 */
        assert_int_equal(sw_slice_find_slice(line, SW_S("error=")) < line.len,
                         err != SW_E_TOKEN_ABSENT);
        assert_int_equal(sw_slice_find_slice(line, SW_S("scope=\"cart read\"")) < line.len,
                         err == SW_E_TOKEN_SCOPE);
    }
}

/* ---- claims as headers ----------------------------------------------------------------------- */

static const struct line_row {
    const char *claims, *lines; /* NULL: SW_E_TOKEN_LARGE */
} line_rows[] = {
    {"{}", ""},
    {"{\"sub\":null}", ""},
    {"{\"sub\":\"alice\"}", "X-Sub: alice\r\n"},
    {"{\"sub\":\"\"}", "X-Sub: \"\"\r\n"},
    {"{\"sub\":\" a\"}", "X-Sub: \" a\"\r\n"},
    {"{\"sub\":\"a b\"}", "X-Sub: a b\r\n"},
    {"{\"sub\":\"a\\u000d\\u000aX-Evil: 1\"}", "X-Sub: \"a\\u000d\\u000aX-Evil: 1\"\r\n"},
    {"{\"sub\":\"\\u0000\"}", "X-Sub: \"\\u0000\"\r\n"},
    {"{\"sub\":\"Jos\xc3\xa9\"}", "X-Sub: \"Jos\\u00e9\"\r\n"},
    {"{\"sub\":\"\\u0061\"}", "X-Sub: a\r\n"},
    {"{\"s\\u0075b\":\"a\"}", "X-Sub: a\r\n"},
    {"{\"sub\":\"[1]\"}", "X-Sub: \"[1]\"\r\n"},
    {"{\"sub\":\"{}\"}", "X-Sub: \"{}\"\r\n"},
    {"{\"sub\":\"\\\"a\\\"\"}", "X-Sub: \"\\\"a\\\"\"\r\n"},
    {"{\"sub\":[ \"a\" , 1.10 ]}", "X-Sub: [\"a\",1.10]\r\n"},
    {"{\"sub\":{\"a\":{}}}", "X-Sub: {\"a\":{}}\r\n"},
    {"{\"sub\":1e400}", "X-Sub: 1e400\r\n"},
    {"{\"sub\":false,\"tenant\":\"t\"}", "X-Sub: false\r\nX-Tenant: t\r\n"},
};

static void claims_in_lines(void **state)
{
    static const struct sw_config_claim headers[] = {{SW_S("X-Sub"), SW_S("sub")},
                                                     {SW_S("X-Tenant"), SW_S("tenant")}};
    static char text[SW_TOKEN_LINES_BYTES_MAX + 64];
    struct world *w = *state;
    struct call c;

    w->route.token.headers = headers;
    w->route.token.header_count = 2;
    for (size_t i = 0; i < SW_COUNTOF(line_rows); i++) {
        call_begin(w, &c, "", ARENA);
        c.ask.token.claims.payload = sw_slice_cstr(line_rows[i].claims);
        assert_int_equal(sw_json_check(c.ask.token.claims.payload).err, SW_OK);
        assert_int_equal(sw_token__put_lines(&c.ask), SW_OK);
        if (!sw_slice_eq(c.ask.token.lines, sw_slice_cstr(line_rows[i].lines))) {
            fail_msg("%s: %.*s", line_rows[i].claims, SW_SARG(c.ask.token.lines));
        }
    }
    for (size_t more = 0; more < 2; more++) { /* the longest, and one more */
        size_t len = SW_TOKEN_LINES_BYTES_MAX - strlen("X-Sub: \r\n") + more;
        int n = snprintf(text, sizeof(text), "{\"sub\":\"");

        memset(text + n, 'a', len);
        memcpy(text + n + len, "\"}", 3);
        call_begin(w, &c, "", ARENA);
        c.ask.token.claims.payload = sw_slice_cstr(text);
        assert_int_equal(sw_token__put_lines(&c.ask), more == 0 ? SW_OK : SW_E_TOKEN_LARGE);
    }
}

/* ---- minting --------------------------------------------------------------------------------- */

static void mints_and_changes(void **state)
{
    struct world *w = *state;
    char cookie[9000], next[9000];
    struct call c;

    for (uint8_t alg = 0; alg < SW_JOSE_ALG_COUNT; alg++) {
        if ((SW_BIT(alg) & SW_JOSE_SIGNING) == 0) {
            continue;
        }
        w->route.token.mint.alg = alg;
        assert_int_equal(ask_once(w, &c, "", ""), SW_OK);
        assert_false(cookie_line(&c, cookie)); /* nothing is made for nothing */
        assert_int_equal(
            ask_once(w, &c, "", "Stateway-Set: {\"n\": 1.10}\r\nStateway-Subject: al\\\"i\r\n"),
            SW_OK);
        assert_true(cookie_line(&c, cookie));
        assert_int_equal(c.ask.verdict, SW_VERDICT_UPDATED);
        state_of_is(w, cookie, "{\"n\":1.10}");
        call_begin(w, &c, cookie, ARENA);
        assert_int_equal(call_load(&c), SW_OK);
        assert_true(sw_slice_eq(c.ask.token.claims.sub, SW_S("al\\\"i"))); /* to the letter */
        assert_int_equal(call_commit(&c, "Stateway-Patch: {\"n\":null,\"m\":{\"a\":1}}\r\n"),
                         SW_OK);
        assert_true(cookie_line(&c, next));
        state_of_is(w, next, "{\"m\":{\"a\":1}}");
        state_of_is(w, cookie, "{\"n\":1.10}"); /* a client may go back: that is what tokens are */
        assert_int_equal(ask_once(w, &c, next, "Stateway-Delete: ?1\r\n"), SW_OK);
        assert_false(cookie_line(&c, cookie));
        assert_int_equal(c.ask.verdict, SW_VERDICT_REVOKED);
        state_of_is(w, next, NULL);
        assert_int_equal(ask_once(w, &c, next, ""), SW_OK);
        assert_int_equal(c.ask.verdict, SW_VERDICT_REVOKED);
        assert_true(c.ask.sets_cookie); /* cleared */
    }
}

/* The note of an end lives until the last copy has met its own: no shorter, and not for ever. */
static void notes_outlive_copies(void **state)
{
    struct world *w = *state;
    int64_t now = sw_loop_now_unix_s(w->loop);
    static const int64_t absolutes[] = {10, 3600, 86400, 86400 * 30};

    for (size_t i = 0; i < SW_COUNTOF(absolutes); i++) {
        int64_t end = now + SW_MIN(absolutes[i], SW_MINT_LIFE_S_MAX) + SW_SKEW_S_MAX;
        char cookie[9000];
        struct sw_store_key key;
        struct kept *kept;
        struct call c;

        w->route.token.mint.absolute_s = absolutes[i];
        w->route.token.mint.life_s = SW_MIN(600, absolutes[i]);
        assert_int_equal(ask_once(w, &c, "", "Stateway-Set: {}\r\n"), SW_OK);
        assert_true(cookie_line(&c, cookie));
        call_begin(w, &c, cookie, ARENA);
        assert_int_equal(call_load(&c), SW_OK);
        sw_revoke_token_key(c.ask.token.claims.iss, c.ask.token.claims.jti, &key);
        assert_int_equal(call_commit(&c, "Stateway-Delete: ?1\r\n"), SW_OK);
        kept = kept_get(w, &key);
        assert_int_equal(kept->err, SW_OK);
        assert_int_equal(kept->record.kind, SW_RECORD_TOMBSTONE);
        assert_in_range(kept->record.expires_unix_s, end, end + 3);
        free(kept);
    }
}

/* Two who were handed the same token: the first to end it, by whatever means, is the last. */
static void only_one_takes_its_place(void **state)
{
    static const char *const ends[] = {"Stateway-Delete: ?1\r\n", "Stateway-Renew: ?1\r\n",
                                       "Stateway-Subject: bob\r\n"};
    static const char *const changes[] = {"Stateway-Set: {\"n\":2}\r\n",
                                          "Stateway-Patch: {\"n\":2}\r\n", "Stateway-Renew: ?1\r\n",
                                          "Stateway-Subject: eve\r\nStateway-Set: {}\r\n"};
    struct world *w = *state;
    char cookie[9000], other[9000];
    struct call slow, fast;

    for (size_t e = 0; e < SW_COUNTOF(ends); e++) {
        for (size_t i = 0; i < SW_COUNTOF(changes); i++) {
            assert_int_equal(ask_once(w, &fast, "", "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
            assert_true(cookie_line(&fast, cookie));
            call_begin(w, &slow, cookie, ARENA);
            assert_int_equal(call_load(&slow), SW_OK);
            assert_int_equal(ask_once(w, &fast, cookie, ends[e]), SW_OK);
            assert_int_equal(call_commit(&slow, changes[i]), SW_E_STATE_GONE);
            assert_false(cookie_line(&slow, other));
            assert_int_equal(slow.ask.verdict, SW_VERDICT_REVOKED);
            state_of_is(w, cookie, NULL);
            if (e > 0) {
                assert_true(cookie_line(&fast, other));
                state_of_is(w, other, "{\"n\":1}");
            }
        }
        /* who ends what was ended is content; who changes nothing has nothing to lose */
        assert_int_equal(ask_once(w, &fast, "", "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
        assert_true(cookie_line(&fast, cookie));
        call_begin(w, &slow, cookie, ARENA);
        assert_int_equal(call_load(&slow), SW_OK);
        assert_int_equal(ask_once(w, &fast, cookie, ends[e]), SW_OK);
        assert_int_equal(call_commit(&slow, "Stateway-Delete: ?1\r\n"), SW_OK);
        w->route.token.mint.renew_s = 0; /* due at once */
        w->route.token.mint.life_s = 601;
        assert_int_equal(ask_once(w, &fast, "", "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
        assert_true(cookie_line(&fast, cookie));
        call_begin(w, &slow, cookie, ARENA);
        assert_int_equal(call_load(&slow), SW_OK);
        assert_int_equal(ask_once(w, &fast, cookie, ends[e]), SW_OK);
        w->route.token.mint.life_s = 700;
        assert_int_equal(call_commit(&slow, ""), SW_OK);
        assert_false(cookie_line(&slow, other));
        w->route.token.mint.renew_s = 300;
        w->route.token.mint.life_s = 600;
    }
}

/* A silent renewal: the same but for its times, and only when it lives longer by it. */
static void renews(void **state)
{
    struct world *w = *state;
    char cookie[9000], next[9000];
    struct call c;
    int64_t exp;

    assert_int_equal(ask_once(w, &c, "", "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    assert_true(cookie_line(&c, cookie));
    assert_int_equal(ask_once(w, &c, cookie, ""), SW_OK);
    assert_false(cookie_line(&c, next)); /* too young */
    w->route.token.mint.renew_s = 0;
    call_begin(w, &c, cookie, ARENA);
    assert_int_equal(call_load(&c), SW_OK);
    exp = c.ask.token.claims.exp_unix_s;
    w->route.token.mint.life_s = 900;
    assert_int_equal(call_commit(&c, ""), SW_OK);
    assert_true(cookie_line(&c, next));
    assert_int_equal(c.ask.verdict, SW_VERDICT_KEPT);
    call_begin(w, &c, next, ARENA);
    assert_int_equal(call_load(&c), SW_OK);
    assert_true(c.ask.token.claims.exp_unix_s >= exp + 300);
    state_of_is(w, next, "{\"n\":1}");
    w->route.token.mint.life_s = 100; /* shorter: what it has is better */
    assert_int_equal(ask_once(w, &c, next, ""), SW_OK);
    assert_false(cookie_line(&c, cookie));
    /* a TTL is an end that nothing moves */
    assert_int_equal(ask_once(w, &c, "", "Stateway-Set: {}\r\nStateway-TTL: 20\r\n"), SW_OK);
    assert_true(cookie_line(&c, cookie));
    call_begin(w, &c, cookie, ARENA);
    assert_int_equal(call_load(&c), SW_OK);
    assert_int_equal(c.ask.token.claims.exp_unix_s, c.ask.token.end_unix_s);
    assert_int_equal(call_commit(&c, ""), SW_OK);
    assert_false(cookie_line(&c, next));
}

/* The store says no: the client gets neither a token nor a success. */
static void a_store_that_fails(void **state)
{
    static const char *const needs[] = {"Stateway-Delete: ?1\r\n", "Stateway-Renew: ?1\r\n",
                                        "Stateway-Subject: bob\r\n"};
    struct world *w = *state;
    struct fate fate = {.fault = {.err = SW_E_STORE_IO}};
    char cookie[9000], other[9000];
    struct call c;

    for (size_t i = 0; i < SW_COUNTOF(needs); i++) {
        sw_store_mem_faults(w->store, NULL, NULL);
        assert_int_equal(ask_once(w, &c, "", "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
        assert_true(cookie_line(&c, cookie));
        fate.times = 1;
        fate.asked = 0;
        sw_store_mem_faults(w->store, on_commit, &fate);
        assert_int_equal(ask_once(w, &c, cookie, needs[i]), SW_E_COMMIT);
        assert_false(cookie_line(&c, other));
        assert_int_equal(fate.asked, 1);
        state_of_is(w, cookie, "{\"n\":1}"); /* the old state stands */
    }
    sw_store_mem_faults(w->store, NULL, NULL);
}

/* What the exchange joins goes along where there is a commit; its conflict is not the token's. */
static void joins(void **state)
{
    struct world *w = *state;
    char cookie[9000], other[9000];
    struct sw_write join = {.kind = SW_WRITE_PUT,
                            .record = SW_RECORD_CLAIM,
                            .key = {{1, 2, 3}},
                            .expect = SW_EXPECT_VERSION,
                            .value = SW_S("x"),
                            .expires_unix_s = sw_loop_now_unix_s(w->loop) + 100,
                            .absolute_unix_s = sw_loop_now_unix_s(w->loop) + 100};
    struct kept *kept;
    struct call c;

    call_begin(w, &c, "", ARENA);
    assert_int_equal(call_load(&c), SW_OK);
    c.ask.join = &join;
    assert_int_equal(call_commit(&c, "Stateway-Set: {}\r\n"), SW_OK);
    assert_false(c.ask.joined); /* nothing was written: the exchange writes it */
    assert_true(cookie_line(&c, cookie));
    call_begin(w, &c, cookie, ARENA);
    assert_int_equal(call_load(&c), SW_OK);
    c.ask.join = &join;
    assert_int_equal(call_commit(&c, "Stateway-Renew: ?1\r\n"), SW_OK);
    assert_true(c.ask.joined);
    assert_true(cookie_line(&c, cookie));
    kept = kept_get(w, &join.key);
    assert_int_equal(kept->err, SW_OK);
    free(kept);
    call_begin(w, &c, cookie, ARENA);
    assert_int_equal(call_load(&c), SW_OK);
    c.ask.join = &join; /* it is there already: somebody else has the claim */
    assert_int_equal(call_commit(&c, "Stateway-Renew: ?1\r\n"), SW_E_IDEM_RUNNING);
    assert_false(c.ask.joined);
    assert_false(cookie_line(&c, other));
    state_of_is(w, cookie, "{}"); /* none of it was done */
}

/* Each size of the arena: done in full, or refused; never half. */
static void too_little_memory(void **state)
{
    static const char *const answers[] = {"Stateway-Set: {\"n\":2}\r\n", "Stateway-Renew: ?1\r\n",
                                          "Stateway-Patch: {\"m\":2}\r\n",
                                          "Stateway-Delete: ?1\r\n"};
    struct world *w = *state;
    char cookie[9000], other[9000];
    size_t done = 0;
    struct call c;

    for (size_t a = 0; a < SW_COUNTOF(answers); a++) {
        bool alive = false;

        for (size_t arena = 0; arena <= ARENA; arena += 509) {
            enum sw_err err;

            if (!alive) {
                assert_int_equal(ask_once(w, &c, "", "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
                assert_true(cookie_line(&c, cookie));
                alive = true;
            }
            call_begin(w, &c, cookie, arena);
            err = call_load(&c);
            if (err == SW_OK) {
                err = call_commit(&c, answers[a]);
            }
            assert_true(err == SW_OK || err == SW_E_NO_MEMORY);
            if (err == SW_OK) {
                done++;
                alive = a == 0 || a == 2;
            } else if (c.ask.drops_cookie) {
                fail_msg("lack of memory is no reason to log somebody out");
            } else {
                assert_false(cookie_line(&c, other));
                state_of_is(w, cookie, "{\"n\":1}");
            }
        }
    }
    assert_true(done > 100);
}

/* A state that just fits, and one byte more. */
static void sizes(void **state)
{
    struct world *w = *state;
    char cookie[9000];
    static char text[16384];
    struct call c;

    for (unsigned deliver = 0; deliver < 2; deliver++) {
        size_t fits = 0;
        bool full = false;

        w->route.token.mint.deliver = deliver == 0 ? SW_DELIVER_COOKIE : SW_DELIVER_HEADER;
        w->route.token.from_cookie = deliver == 0;
        for (size_t n = 0; n <= 9000; n += n > 2000 ? 17 : 500) {
            enum sw_err err;

            snprintf(text, sizeof(text), "Stateway-Set: {\"a\":\"%0*d\"}\r\n", (int)n + 1, 0);
            err = ask_once(w, &c, "", text);
            if (err == SW_OK) {
                assert_false(full); /* what is larger does not fit either */
                fits = n;
                if (deliver == 0) {
                    assert_true(cookie_line(&c, cookie));
                } else {
                    struct sw_slice lines = c.ask.client_lines;

                    assert_true(sw_slice_starts(lines, SW_S("Authorization: Bearer ")));
                    assert_true(lines.len < sizeof(cookie));
                    snprintf(cookie, sizeof(cookie), "%.*s", SW_SARG(lines));
                }
                call_begin(w, &c, cookie, ARENA);
                assert_int_equal(call_load(&c), SW_OK);
                assert_int_equal(c.ask.state.len, n + 1 + 8);
            } else {
                full = true;
                assert_int_equal(err, SW_E_MINT_LARGE);
                assert_int_equal(c.ask.client_lines.len, 0);
            }
        }
        assert_in_range(fits, deliver == 0 ? 2500 : 5500, deliver == 0 ? 3000 : 6200);
    }
}

/* A token that our key signed, but that is none of these: never a state. */
static void other_tokens_of_our_key(void **state)
{
    static const char *const rows[] = {
        "",
        ",\"state\":{}",
        ",\"state\":{},\"end\":99999999999",
        ",\"state\":[],\"end\":99999999999,\"bound\":0",
        ",\"state\":{},\"end\":-1,\"bound\":0",
        ",\"state\":{},\"end\":\"9\",\"bound\":0",
        ",\"state\":\"{}\",\"end\":9999999999,\"bound\":0",
        ",\"state\":{},\"end\":1e9,\"bound\":0",
    };
    struct world *w = *state;
    int64_t now = sw_loop_now_unix_s(w->loop);
    char text[4096], cookie[9000], payload[1024];
    struct call c;

    w->route.token.required = true;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_out out = sw_out_init(text, sizeof(text));

        snprintf(payload, sizeof(payload),
                 "{\"iss\":\"https://shop.example\",\"aud\":\"shop\",\"jti\":\"j\",\"iat\":%lld,"
                 "\"exp\":%lld%s}",
                 (long long)now, (long long)now + 60, rows[i]);
        assert_int_equal(sw_jws_sign(sw_jwks_signer(mint.sets[SW_JOSE_HS256]), SW_S("JWT"),
                                     sw_slice_cstr(payload), &out),
                         SW_OK);
        snprintf(cookie, sizeof(cookie), "Cookie: login=%.*s\r\n", SW_SARG(sw_out_done(&out)));
        call_begin(w, &c, cookie, ARENA);
        assert_int_equal(call_load(&c), SW_E_TOKEN_CLAIMS);
    }
}

/* ---- our keys -------------------------------------------------------------------------------- */

/* The ring moves on: what an older key made is good as long as that key is known. */
static void keys_rotate(void **state)
{
    struct world *w = *state;
    struct sw_keyring next = w->keys;
    struct sw_mint second, third;
    char cookie[9000], newer[9000];
    struct call c;

    w->route.token.mint.alg = SW_JOSE_ED25519;
    assert_int_equal(ask_once(w, &c, "", "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    assert_true(cookie_line(&c, cookie));

    next.keys[1] = next.keys[0];
    next.keys[1].id = 2;
    sw_random(next.keys[1].secret, sizeof(next.keys[1].secret));
    next.keys[0].state = SW_KEY_RETIRED;
    next.count = 2;
    next.active = 1;
    assert_int_equal(sw_mint_init(&second, &next, SW_BIT(SW_JOSE_ED25519)), SW_OK);
    w->env.mint = &second;
    w->env.keys = &next;
    state_of_is(w, cookie, "{\"n\":1}");
    assert_int_equal(ask_once(w, &c, cookie, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    assert_true(cookie_line(&c, newer));

    next.keys[0] = next.keys[1];
    next.count = 1;
    next.active = 0;
    assert_int_equal(sw_mint_init(&third, &next, SW_BIT(SW_JOSE_ED25519)), SW_OK);
    w->env.mint = &third;
    state_of_is(w, cookie, NULL); /* its key is gone */
    state_of_is(w, newer, "{\"n\":2}");
    sw_mint_fini(&second);
    sw_mint_fini(&third);
}

/* ---- keys that the world may see ------------------------------------------------------------- */

static void public_keys(void **state)
{
    static const uint32_t sets[] = {0, SW_BIT(SW_JOSE_HS256), SW_BIT(SW_JOSE_ES256),
                                    SW_BIT(SW_JOSE_ES256) | SW_BIT(SW_JOSE_ED25519),
                                    SW_JOSE_SIGNING};
    static const size_t want[] = {0, 0, 1, 2, 2};
    static char text[SW_JWKS_TEXT_BYTES];
    struct world *w = *state;
    struct sw_keyring ring = w->keys;

    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < SW_COUNTOF(sets); i++) {
            struct sw_out out = sw_out_init(text, sizeof(text));
            struct sw_slice keys, key, name;
            struct sw_json_iter it;
            struct sw_mint m;
            size_t count = 0;

            assert_int_equal(sw_mint_init(&m, &ring, sets[i]), SW_OK);
            assert_true(sw_mint_put_public(&out, &m));
            assert_int_equal(sw_json_check(sw_out_done(&out)).err, SW_OK);
            assert_true(sw_json_get(sw_out_done(&out), SW_S("keys"), &keys));
            it = sw_json_iter(keys);
            while (sw_json_next(&it, &name, &key)) {
                struct sw_slice secret;

                assert_false(sw_json_get(key, SW_S("d"), &secret));
                assert_false(sw_json_get(key, SW_S("k"), &secret));
                assert_true(sw_json_get(key, SW_S("kid"), &secret));
                count++;
            }
            assert_int_equal(count, want[i] * ring.count);
            sw_mint_fini(&m);
        }
        while (ring.count < SW_KEYS_MAX) { /* and with a full ring */
            ring.keys[ring.count] = ring.keys[0];
            ring.keys[ring.count].id = (uint32_t)ring.count + 1;
            ring.keys[ring.count].state = SW_KEY_RETIRED;
            sw_random(ring.keys[ring.count].secret, 32);
            ring.count++;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOKEN_TEST(finds),
        TOKEN_TEST(challenges),
        TOKEN_TEST(claims_in_lines),
        TOKEN_TEST(mints_and_changes),
        TOKEN_TEST(notes_outlive_copies),
        TOKEN_TEST(only_one_takes_its_place),
        TOKEN_TEST(renews),
        TOKEN_TEST(a_store_that_fails),
        TOKEN_TEST(joins),
        TOKEN_TEST(too_little_memory),
        TOKEN_TEST(sizes),
        TOKEN_TEST(other_tokens_of_our_key),
        TOKEN_TEST(keys_rotate),
        TOKEN_TEST(public_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
