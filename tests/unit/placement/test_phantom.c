/* unit/placement/test_phantom.c - the token that an app gets beside a session: whose it is, how
 * often it is signed, and that it never names the wrong one.
 */
#include "base/json.h"
#include "world.h"

static struct sw_mint mint;

static int phantom_up(void **state)
{
    struct world *w;

    assert_int_equal(world_up(state), 0);
    w = *state;
    assert_int_equal(sw_mint_init(&mint, &w->keys, SW_BIT(SW_JOSE_ES256)), SW_OK);
    w->env.mint = &mint;
    w->env.phantoms = sw_phantoms_new();
    assert_non_null(w->env.phantoms);
    w->route.session.phantom.on = true;
    w->route.session.phantom.issuer = SW_S("https://gw.example");
    w->route.session.phantom.audience = SW_S("shop");
    w->route.session.phantom.alg = SW_JOSE_ES256;
    w->route.session.phantom.life_s = 300;
    return 0;
}

static int phantom_down(void **state)
{
    struct world *w = *state;

    sw_phantoms_free(w->env.phantoms);
    sw_mint_fini(&mint);
    return world_down(state);
}
#define PHANTOM_TEST(f) cmocka_unit_test_setup_teardown(f, phantom_up, phantom_down)

/* The token of a visit; static memory, four of them in turn. "": none. */
static const char *token_of(struct visit *v)
{
    static char text[4][SW_TOKEN_BYTES_MAX];
    static unsigned turn;
    struct sw_slice line, head = SW_S("Authorization: Bearer ");
    char *out = text[turn++ % 4];

    assert_int_equal(sw_place_phantom(&v->ask, &line), SW_OK);
    if (line.len == 0) {
        return "";
    }
    assert_true(sw_slice_starts(line, head));
    assert_true(sw_slice_ends(line, SW_S("\r\n")));
    line = sw_slice_of(line.ptr + head.len, line.len - head.len - 2);
    snprintf(out, sizeof(text[0]), "%.*s", SW_SARG(line));
    return out;
}

/* It verifies, and says so. */
static void names(struct world *w, const char *token, struct sw_slice subject, int64_t iat)
{
    static struct sw_slice audience = SW_S("shop");
    const struct sw_claims_rules rules = {.issuer = SW_S("https://gw.example"),
                                          .audiences = &audience,
                                          .audience_count = 1,
                                          .jti = true,
                                          .sub = true};
    static char block[65536];
    struct sw_arena arena;
    struct sw_claims claims;
    struct sw_slice state;

    sw_arena_init(&arena, block, sizeof(block));
    assert_int_equal(sw_token_check(NULL, mint.sets[SW_JOSE_ES256], SW_S("JWT"), &rules,
                                    sw_slice_cstr(token), sw_loop_now_unix_s(w->loop) + 1, &arena,
                                    &claims),
                     SW_OK);
    assert_true(sw_slice_eq(claims.sub, subject));
    assert_int_equal(claims.iat_unix_s, iat);
    assert_int_equal(claims.exp_unix_s, iat + 300);
    assert_false(sw_json_get(claims.payload, SW_S("state"), &state)); /* who, and no more */
}

static void one_for_half_of_its_life(void **state)
{
    struct world *w = *state;
    char id[64], first[SW_TOKEN_BYTES_MAX];
    struct visit v;
    int64_t now;

    visitor_make(w, "Stateway-Set: {}\r\nStateway-Subject: alice\r\n", id);
    visit_open(w, &v, id);
    now = v.ask.now_unix_s;
    snprintf(first, sizeof(first), "%s", token_of(&v));
    names(w, first, SW_S("alice"), now);
    for (int64_t s = 0; s < 150;
         s += 10) { /* ES256 is random: the same text is the same signature */
        v.ask.now_unix_s = now + s;
        assert_string_equal(token_of(&v), first);
    }
    v.ask.now_unix_s = now + 150;
    assert_string_not_equal(token_of(&v), first);
    v.ask.now_unix_s = now;
    w->route.session.phantom.audience = SW_S("other"); /* what it says has changed */
    assert_string_not_equal(token_of(&v), first);
    visit_close(&v);
}

static void nobody_is_nobody(void **state)
{
    struct world *w = *state;
    char id[64];
    struct visit v;

    visit_open(w, &v, NULL);
    assert_string_equal(token_of(&v), ""); /* no session */
    visit_close(&v);
    visitor_make(w, "Stateway-Set: {}\r\n", id);
    visit_open(w, &v, id);
    assert_string_equal(token_of(&v), ""); /* nobody logged in */
    visit_close(&v);
    visitor_make(w, "Stateway-Set: {}\r\nStateway-Subject: alice\r\n", id);
    w->route.session.phantom.on = false;
    visit_open(w, &v, id);
    assert_string_equal(token_of(&v), "");
    visit_close(&v);
    /* an entity's subject is not who asks, unless none but he may come */
    w->route.session.phantom.on = true;
    visit_open(w, &v, id);
    assert_string_not_equal(token_of(&v), "");
    w->route.session.key_source = SW_KEY_QUERY;
    assert_string_equal(token_of(&v), "");
    w->route.session.owner_subject = true;
    assert_string_not_equal(token_of(&v), "");
    visit_close(&v);
}

/* Any subject: named to the letter, or not at all. */
static void odd_subjects(void **state)
{
    static char longest[SW_SUBJECT_BYTES_MAX + 1], quotes[SW_SUBJECT_BYTES_MAX + 1],
        zeros[SW_SUBJECT_BYTES_MAX];
    struct world *w = *state;
    const struct {
        struct sw_slice subject;
        bool named;
    } rows[] = {
        {SW_S("alice"), true},
        {SW_S("a\"b\\c"), true},
        {SW_S("Jos\xc3\xa9"), true},
        {SW_S("\xf0\x9f\x98\x80"), true},
        {SW_S("a\0b"), true},
        {SW_S("\xff"), false},
        {SW_S("\xfe"), false},
        {SW_S("\xef\xbf\xbd"), true}, /* what those would have become */
        {SW_S("\xed\xa0\x80"), false},
        {SW_S("\xc3"), false},
        {sw_slice_of(longest, SW_SUBJECT_BYTES_MAX), true},
        {sw_slice_of(quotes, SW_SUBJECT_BYTES_MAX), true},
        {sw_slice_of(zeros, SW_SUBJECT_BYTES_MAX), true},
    };
    char id[64];
    struct visit v;

    memset(longest, 'x', SW_SUBJECT_BYTES_MAX);
    memset(quotes, '"', SW_SUBJECT_BYTES_MAX);
    visitor_make(w, "Stateway-Set: {}\r\nStateway-Subject: alice\r\n", id);
    visit_open(w, &v, id);
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        const char *token;

        v.ask.session.record.subject = rows[i].subject;
        token = token_of(&v);
        assert_int_equal(token[0] != '\0', rows[i].named);
        if (rows[i].named) {
            names(w, token, rows[i].subject, v.ask.now_unix_s);
        }
        sw_arena_reset(&v.arena, 0);
    }
    visit_close(&v);
}

/* More visitors than places: everybody gets his own all the same. */
static void a_full_table(void **state)
{
    struct world *w = *state;
    char id[64];
    struct visit v;

    visitor_make(w, "Stateway-Set: {}\r\nStateway-Subject: alice\r\n", id);
    visit_open(w, &v, id);
    for (size_t i = 0; i < SW_PHANTOMS_MAX + 200; i++) {
        size_t mark = sw_arena_mark(&v.arena);
        char who[32];

        snprintf(who, sizeof(who), "user %zu", i);
        v.ask.session.record.subject = sw_slice_cstr(who);
        names(w, token_of(&v), sw_slice_cstr(who), v.ask.now_unix_s);
        sw_arena_reset(&v.arena, mark);
    }
    visit_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PHANTOM_TEST(one_for_half_of_its_life),
        PHANTOM_TEST(nobody_is_nobody),
        PHANTOM_TEST(odd_subjects),
        PHANTOM_TEST(a_full_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
