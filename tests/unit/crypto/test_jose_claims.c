/* crypto/: what a token says, held against what a route wants; and tokens that were seen before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "crypto/jose_priv.h"

#define NOW 1760000000ll

static char arena_room[1 << 15];

static enum sw_err check(struct sw_slice payload, const struct sw_claims_rules *rules, int64_t now,
                         struct sw_claims *ret_claims)
{
    char *exact = malloc(payload.len + (payload.len == 0));
    struct sw_arena arena;
    enum sw_err err;

    memcpy(exact, payload.ptr, payload.len);
    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    err = sw_claims_check(sw_slice_of(exact, payload.len), rules, now, &arena, ret_claims);
    assert_true(err == SW_OK || arena.used == 0);
    free(exact);
    return err;
}

/* ---- times -------------------------------------------------------------------------------------
 */

/* At NOW, with 30 s of skew and at most 3600 s of age. */
static const struct {
    const char *payload;
    enum sw_err err;
} time_rows[] = {
    {"{\"exp\":1760000001}", SW_E_TOKEN_MISSING}, /* iat, for the age */
    {"{\"iat\":1760000000}", SW_E_TOKEN_MISSING}, /* exp, always */
    {"{}", SW_E_TOKEN_MISSING},
    /* exp: "on or after which" (RFC 7519, 4.1.4), and the skew */
    {"{\"iat\":1760000000,\"exp\":1759999969}", SW_E_TOKEN_EXPIRED},
    {"{\"iat\":1760000000,\"exp\":1759999970}", SW_E_TOKEN_EXPIRED},
    {"{\"iat\":1760000000,\"exp\":1759999970.0}", SW_E_TOKEN_EXPIRED},
    {"{\"iat\":1760000000,\"exp\":1759999970.000000000000000000000000000001}", SW_OK},
    {"{\"iat\":1760000000,\"exp\":1759999969.999999999999999999999999999999}", SW_E_TOKEN_EXPIRED},
    {"{\"iat\":1760000000,\"exp\":1759999971}", SW_OK},
    {"{\"iat\":1760000000,\"exp\":0}", SW_E_TOKEN_EXPIRED},
    {"{\"iat\":1760000000,\"exp\":-0}", SW_E_TOKEN_EXPIRED},
    /* nbf */
    {"{\"iat\":1760000000,\"exp\":1760000001,\"nbf\":1760000030}", SW_OK},
    {"{\"iat\":1760000000,\"exp\":1760000001,\"nbf\":1760000030.5}", SW_E_TOKEN_EARLY},
    {"{\"iat\":1760000000,\"exp\":1760000001,\"nbf\":1760000031}", SW_E_TOKEN_EARLY},
    {"{\"iat\":1760000000,\"exp\":1760000001,\"nbf\":0}", SW_OK},
    /* iat */
    {"{\"iat\":1760000030,\"exp\":1760000099}", SW_OK},
    {"{\"iat\":1760000030.1,\"exp\":1760000099}", SW_E_TOKEN_EARLY},
    {"{\"iat\":1760000031,\"exp\":1760000099}", SW_E_TOKEN_EARLY},
    {"{\"iat\":1759996370,\"exp\":1760000099}", SW_OK},
    {"{\"iat\":1759996369.9,\"exp\":1760000099}", SW_E_TOKEN_OLD},
    {"{\"iat\":1759996369,\"exp\":1760000099}", SW_E_TOKEN_OLD},
    {"{\"iat\":0,\"exp\":1760000099}", SW_E_TOKEN_OLD},
    /* other spellings of numbers */
    {"{\"iat\":1.76e9,\"exp\":1.760000099e9}", SW_OK},
    {"{\"iat\":176E+7,\"exp\":17600000990e-1}", SW_OK},
    {"{\"iat\":1760000000,\"exp\":17600000990000000000e-10}", SW_OK},
    {"{\"iat\":1760000000,\"exp\":0.00000000000000001760000099e26}", SW_OK},
    {"{\"iat\":1760000000,\"exp\":0e999999999999999999999999999999999999}", SW_E_TOKEN_EXPIRED},
    {"{\"iat\":1760000000,\"exp\":1e-99999999999999999999999999999999999}", SW_E_TOKEN_EXPIRED},
    /* no times at all */
    {"{\"iat\":1760000000,\"exp\":253402300799}", SW_OK},
    {"{\"iat\":1760000000,\"exp\":253402300799.1}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":253402300800}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":1760000099000}", SW_E_TOKEN_CLAIMS}, /* milliseconds */
    {"{\"iat\":1760000000,\"exp\":9223372036854775808}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":18446744073709551616}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":18446744075469551715}",
     SW_E_TOKEN_CLAIMS}, /* 2^64 + a good one */
    {"{\"iat\":1760000000,\"exp\":1e400}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":1e99999999999999999999999999}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":-1}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":-0.5}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":\"1760000099\"}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":null}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":true}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":[1760000099]}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":\"now\",\"exp\":1760000099}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":1760000099,\"nbf\":{}}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":Infinity}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":01760000099}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":1760000099,\"exp\":1}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"exp\":1760000099,\"\\u0065xp\":1}", SW_E_TOKEN_CLAIMS},
    {"{\"iat\":1760000000,\"\\u0065xp\":1760000099}", SW_OK},
};

static void times(void **state)
{
    const struct sw_claims_rules rules = {.skew_s = 30, .age_s_max = 3600};
    struct sw_claims claims;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(time_rows); i++) {
        enum sw_err err = check(sw_slice_cstr(time_rows[i].payload), &rules, NOW, &claims);

        if (err != time_rows[i].err) {
            fail_msg("%s: %s", time_rows[i].payload, sw_err_name(err));
        }
    }
    assert_int_equal(
        check(SW_S("{\"iat\":1760000000.9,\"exp\":1760000099.9}"), &rules, NOW, &claims), SW_OK);
    assert_int_equal(claims.iat_unix_s, 1760000000); /* rounded down */
    assert_int_equal(claims.exp_unix_s, 1760000099);
}

/* Without skew, at the ends of time, and with numbers as long as a token can be. */
static void time_edges(void **state)
{
    const struct sw_claims_rules strict = {.skew_s = 0}, wide = {.skew_s = SW_SKEW_S_MAX};
    char *text = malloc(SW_TOKEN_BYTES_MAX + 1);
    struct sw_claims claims;
    struct sw_out out;

    (void)state;
    assert_int_equal(check(SW_S("{\"exp\":1}"), &strict, 0, &claims), SW_OK);
    assert_int_equal(check(SW_S("{\"exp\":0}"), &strict, 0, &claims), SW_E_TOKEN_EXPIRED);
    assert_int_equal(check(SW_S("{\"exp\":0}"), &wide, 0, &claims), SW_OK); /* by the skew */
    assert_int_equal(check(SW_S("{\"exp\":253402300799}"), &strict, SW_CLAIM_TIME_MAX, &claims),
                     SW_E_TOKEN_EXPIRED);
    assert_int_equal(check(SW_S("{\"exp\":253402300799,\"nbf\":253402300799}"), &wide,
                           SW_CLAIM_TIME_MAX, &claims),
                     SW_OK);
    for (size_t zeros = 7000; zeros < 8300; zeros += 600) {
        out = sw_out_init(text, SW_TOKEN_BYTES_MAX + 1);
        sw_out_lit(&out, "{\"exp\":0.");
        for (size_t i = 0; i < zeros; i++) {
            sw_out_char(&out, '0');
        }
        sw_out_printf(&out, "176e%zu}", zeros + 10); /* 1760000000 */
        if (!out.overflowed) {
            assert_int_equal(check(sw_out_done(&out), &strict, NOW - 1, &claims), SW_OK);
            assert_int_equal(check(sw_out_done(&out), &strict, NOW, &claims), SW_E_TOKEN_EXPIRED);
        }
    }
    /* too long to have come out of a token */
    memset(text, ' ', SW_TOKEN_BYTES_MAX + 1);
    memcpy(text, "{\"exp\":1}", 9);
    assert_int_equal(check(sw_slice_of(text, SW_TOKEN_BYTES_MAX), &strict, 0, &claims), SW_OK);
    assert_int_equal(check(sw_slice_of(text, SW_TOKEN_BYTES_MAX + 1), &strict, 0, &claims),
                     SW_E_TOKEN_CLAIMS);
    free(text);
}

/* Every number of digits and exponents against the same arithmetic done in integers. */
static void time_spellings(void **state)
{
    const struct sw_claims_rules rules = {.skew_s = 0};

    (void)state;
    for (int exponent = -12; exponent <= 12; exponent++) {
        for (size_t point = 1; point <= 10; point++) {
            static const char digits[] = "1760000099";
            char text[64];
            struct sw_claims claims;
            int whole = (int)point + exponent;
            int64_t want = 0;
            enum sw_err err;

            (void)snprintf(text, sizeof(text), "{\"exp\":%.*s%s%se%d}", (int)point, digits,
                           point < 10 ? "." : "", digits + point, exponent);
            for (int i = 0; i < whole && i < 13; i++) {
                want = 10 * want + (i < 10 ? digits[i] - '0' : 0);
            }
            err = check(sw_slice_cstr(text), &rules, 0, &claims);
            if (whole > 12 || want > SW_CLAIM_TIME_MAX) {
                assert_int_equal(err, SW_E_TOKEN_CLAIMS);
            } else {
                assert_int_equal(err, SW_OK); /* all of them are above 0 */
                assert_int_equal(claims.exp_unix_s, want);
            }
        }
    }
}

/* ---- who, for whom, what for -------------------------------------------------------------------
 */

static const struct sw_slice shop_audience[] = {SW_S("shop"), SW_S("https://shop.example/")};
static const struct sw_slice cart_scope[] = {SW_S("cart"), SW_S("pay")};
static const struct sw_claim_rule tenant_rules[] = {{SW_S("tenant"), SW_S("acme")},
                                                    {SW_S("level"), SW_S("3")}};
static const struct sw_claims_rules no_rules = {.skew_s = 0};
static const struct sw_claims_rules who_rules = {
    .issuer = SW_S("https://id.example"), .audiences = shop_audience, .audience_count = 2};
static const struct sw_claims_rules name_rules = {.sub = true, .jti = true};
static const struct sw_claims_rules scope_rules = {.scopes = cart_scope, .scope_count = 2};
static const struct sw_claims_rules claim_rules = {.claims = tenant_rules, .claim_count = 2};

#define E(more)   "{\"exp\":1760000001" more "}"
#define WHO(more) E(",\"iss\":\"https://id.example\"" more)

static const struct {
    const struct sw_claims_rules *rules;
    const char *payload;
    enum sw_err err;
} claim_rows[] = {
    {&no_rules, E(""), SW_OK},
    {&no_rules, E(",\"aud\":\"shop\""), SW_E_TOKEN_AUDIENCE}, /* meant for somebody, not us */
    {&no_rules, E(",\"aud\":[]"), SW_E_TOKEN_AUDIENCE},
    {&no_rules, E(",\"iss\":\"anybody\""), SW_OK},
    {&no_rules, E(",\"iss\":1"), SW_E_TOKEN_CLAIMS},
    {&no_rules, E(",\"sub\":{}"), SW_E_TOKEN_CLAIMS},
    {&no_rules, E(",\"jti\":null"), SW_E_TOKEN_CLAIMS},
    {&no_rules, E(",\"scope\":1"), SW_E_TOKEN_CLAIMS},
    {&no_rules, E(",\"scope\":[\"a\",1]"), SW_E_TOKEN_CLAIMS},
    {&no_rules, E(",\"aud\":[\"a\",null]"), SW_E_TOKEN_CLAIMS},
    {&no_rules, E(",\"aud\":{\"shop\":1}"), SW_E_TOKEN_CLAIMS},
    {&no_rules, "[" E("") "]", SW_E_TOKEN_CLAIMS},
    {&no_rules, "\"exp\"", SW_E_TOKEN_CLAIMS},
    {&no_rules, "", SW_E_TOKEN_CLAIMS},
    {&no_rules, E("") E(""), SW_E_TOKEN_CLAIMS},
    {&no_rules, "{\"exp\":1760000001,}", SW_E_TOKEN_CLAIMS},
    {&no_rules, E(",\"a\":\"\xff\""), SW_E_TOKEN_CLAIMS},
    {&no_rules, E(",\"a\":1,\"a\":2"), SW_E_TOKEN_CLAIMS},
    {&no_rules, E(",\"a\":{\"b\":1,\"b\":2}"), SW_E_TOKEN_CLAIMS},
    /* issuer and audience */
    {&who_rules, WHO(",\"aud\":\"shop\""), SW_OK},
    {&who_rules, WHO(",\"aud\":\"https://shop.example/\""), SW_OK},
    {&who_rules, WHO(",\"aud\":\"https:\\/\\/shop.example\\/\""), SW_OK},
    {&who_rules, WHO(",\"aud\":[\"shop\"]"), SW_OK},
    {&who_rules, WHO(",\"aud\":[\"other\",\"shop\"]"), SW_OK},
    {&who_rules, WHO(",\"aud\":[\"other\",\"third\"]"), SW_E_TOKEN_AUDIENCE},
    {&who_rules, WHO(",\"aud\":[[\"shop\"]]"), SW_E_TOKEN_CLAIMS},
    {&who_rules, WHO(",\"aud\":\"Shop\""), SW_E_TOKEN_AUDIENCE},
    {&who_rules, WHO(",\"aud\":\"shop other\""), SW_E_TOKEN_AUDIENCE},
    {&who_rules, WHO(",\"aud\":\"shop\\u0000\""), SW_E_TOKEN_AUDIENCE},
    {&who_rules, WHO(",\"aud\":\"\""), SW_E_TOKEN_AUDIENCE},
    {&who_rules, WHO(",\"aud\":[\"\"]"), SW_E_TOKEN_AUDIENCE},
    {&who_rules, WHO(""), SW_E_TOKEN_MISSING},
    {&who_rules, WHO(",\"azp\":\"shop\""), SW_E_TOKEN_MISSING},
    {&who_rules, E(",\"aud\":\"shop\""), SW_E_TOKEN_MISSING},
    {&who_rules, E(",\"aud\":\"shop\",\"iss\":\"https://id.example/\""), SW_E_TOKEN_ISSUER},
    {&who_rules, E(",\"aud\":\"shop\",\"iss\":\"https://id.exampl\""), SW_E_TOKEN_ISSUER},
    {&who_rules, E(",\"aud\":\"shop\",\"iss\":\"HTTPS://id.example\""), SW_E_TOKEN_ISSUER},
    {&who_rules, E(",\"aud\":\"shop\",\"iss\":\"\""), SW_E_TOKEN_ISSUER},
    {&who_rules, E(",\"aud\":\"shop\",\"iss\":[\"https://id.example\"]"), SW_E_TOKEN_CLAIMS},
    {&who_rules, E(",\"aud\":\"shop\",\"\\u0069ss\":\"https://id.exampl\\u0065\""), SW_OK},
    /* who it is about, and which one it is */
    {&name_rules, E(",\"sub\":\"a\",\"jti\":\"1\""), SW_OK},
    {&name_rules, E(",\"sub\":\"a\""), SW_E_TOKEN_MISSING},
    {&name_rules, E(",\"jti\":\"1\""), SW_E_TOKEN_MISSING},
    {&name_rules, E(",\"sub\":\"\",\"jti\":\"1\""), SW_E_TOKEN_MISSING},
    {&name_rules, E(",\"sub\":\"a\",\"jti\":\"\""), SW_E_TOKEN_MISSING},
    /* scope */
    {&scope_rules, E(",\"scope\":\"cart pay\""), SW_OK},
    {&scope_rules, E(",\"scope\":\"pay other cart\""), SW_OK},
    {&scope_rules, E(",\"scope\":\"p\\u0061y cart\""), SW_OK},
    {&scope_rules, E(",\"scope\":[\"cart\",\"pay\"]"), SW_OK},
    {&scope_rules, E(",\"scope\":[\"cart pay\"]"), SW_E_TOKEN_SCOPE},
    {&scope_rules, E(",\"scope\":\"cart\""), SW_E_TOKEN_SCOPE},
    {&scope_rules, E(",\"scope\":\"cart payment\""), SW_E_TOKEN_SCOPE},
    {&scope_rules, E(",\"scope\":\"cart\\tpay\""), SW_E_TOKEN_SCOPE},
    {&scope_rules, E(",\"scope\":\"cart,pay\""), SW_E_TOKEN_SCOPE},
    {&scope_rules, E(",\"scope\":\"\""), SW_E_TOKEN_SCOPE},
    {&scope_rules, E(",\"scope\":[]"), SW_E_TOKEN_SCOPE},
    {&scope_rules, E(""), SW_E_TOKEN_SCOPE},
    {&scope_rules, "{\"exp\":1,\"scope\":\"cart pay\"}", SW_E_TOKEN_EXPIRED}, /* first */
    /* other claims */
    {&claim_rules, E(",\"tenant\":\"acme\",\"level\":3"), SW_OK},
    {&claim_rules, E(",\"tenant\":[\"x\",\"acme\"],\"level\":\"3\""), SW_OK},
    {&claim_rules, E(",\"tenant\":\"\\u0061cme\",\"level\":[4,\"3\"]"), SW_OK},
    {&claim_rules, E(",\"tenant\":\"acme\""), SW_E_TOKEN_REQUIRED},
    {&claim_rules, E(",\"tenant\":\"acme\",\"level\":3.0"), SW_E_TOKEN_REQUIRED},
    {&claim_rules, E(",\"tenant\":\"acme\",\"level\":33"), SW_E_TOKEN_REQUIRED},
    {&claim_rules, E(",\"tenant\":\"acme\",\"level\":[3]"), SW_E_TOKEN_REQUIRED},
    {&claim_rules, E(",\"tenant\":\"acme\",\"level\":null"), SW_E_TOKEN_REQUIRED},
    {&claim_rules, E(",\"tenant\":\"acme2\",\"level\":3"), SW_E_TOKEN_REQUIRED},
    {&claim_rules, E(",\"tenant\":{\"acme\":1},\"level\":3"), SW_E_TOKEN_REQUIRED},
    {&claim_rules, E(",\"x\":{\"tenant\":\"acme\",\"level\":3}"), SW_E_TOKEN_REQUIRED},
};

static void claims_of_all_kinds(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(claim_rows); i++) {
        struct sw_claims claims;
        enum sw_err err =
            check(sw_slice_cstr(claim_rows[i].payload), claim_rows[i].rules, NOW, &claims);

        if (err != claim_rows[i].err) {
            fail_msg("row %zu, %s: %s", i, claim_rows[i].payload, sw_err_name(err));
        }
    }
}

/* "true" of a configuration file is the JSON word, and the string. */
static void words(void **state)
{
    static const struct sw_claim_rule admin[] = {{SW_S("admin"), SW_S("true")}};
    const struct sw_claims_rules rules = {.claims = admin, .claim_count = 1};
    struct sw_claims claims;

    (void)state;
    assert_int_equal(check(SW_S(E(",\"admin\":true")), &rules, NOW, &claims), SW_OK);
    assert_int_equal(check(SW_S(E(",\"admin\":\"true\"")), &rules, NOW, &claims), SW_OK);
    assert_int_equal(check(SW_S(E(",\"admin\":false")), &rules, NOW, &claims), SW_E_TOKEN_REQUIRED);
    assert_int_equal(check(SW_S(E(",\"admin\":1")), &rules, NOW, &claims), SW_E_TOKEN_REQUIRED);
}

static void texts(void **state)
{
    static const char payload[] =
        E(",\"iss\":\"i\",\"sub\":\"\\u00e9\\ud83d\\ude00\\u0000x\",\"jti\":\"a\\/b\"");
    struct sw_claims claims;
    struct sw_arena arena;
    size_t cap;

    (void)state;
    for (cap = 0;; cap++) {
        enum sw_err err;

        sw_arena_init(&arena, arena_room, cap);
        err = sw_claims_check(sw_slice_cstr(payload), &no_rules, NOW, &arena, &claims);
        if (err == SW_OK) {
            break;
        }
        assert_int_equal(err, SW_E_NO_MEMORY);
        assert_int_equal(arena.used, 0);
        assert_in_range(cap, 0, 60);
    }
    assert_true(sw_slice_eq(claims.payload, sw_slice_cstr(payload)));
    assert_true(sw_slice_eq(claims.iss, SW_S("i")));
    assert_true(sw_slice_eq(claims.sub, SW_S("\xc3\xa9\xf0\x9f\x98\x80\0x")));
    assert_true(sw_slice_eq(claims.jti, SW_S("a/b")));
    assert_int_equal(check(SW_S(E("")), &no_rules, NOW, &claims), SW_OK);
    assert_int_equal(claims.iss.len + claims.sub.len + claims.jti.len, 0);
    assert_int_equal(claims.iat_unix_s, 0);
}

static void depth(void **state)
{
    char *text = malloc(SW_TOKEN_BYTES_MAX);

    (void)state;
    for (size_t deep = 62; deep < 4000; deep += 1 + deep / 3) {
        struct sw_out out = sw_out_init(text, SW_TOKEN_BYTES_MAX);
        struct sw_claims claims;

        sw_out_lit(&out, "{\"exp\":1760000001,\"x\":");
        for (size_t i = 0; i < deep; i++) {
            sw_out_char(&out, '[');
        }
        for (size_t i = 0; i < deep; i++) {
            sw_out_char(&out, ']');
        }
        sw_out_char(&out, '}');
        assert_false(out.overflowed);
        assert_int_equal(check(sw_out_done(&out), &no_rules, NOW, &claims),
                         deep < 64 ? SW_OK : SW_E_TOKEN_CLAIMS);
    }
    free(text);
}

/* ---- the cache ---------------------------------------------------------------------------------
 */

static struct sw_jwks *keys_new(uint8_t secret)
{
    struct sw_keyring ring = {.count = 1, .active = 0};
    struct sw_jwks *set;

    ring.keys[0].id = 1;
    memset(ring.keys[0].secret, secret, 32);
    assert_int_equal(sw_jwks_derive(&ring, SW_JOSE_HS256, &set), SW_OK);
    return set;
}

static struct sw_slice token_of(const struct sw_jwks *set, const char *payload, char *room,
                                size_t cap)
{
    struct sw_out out = sw_out_init(room, cap);

    assert_int_equal(sw_jws_sign(sw_jwks_signer(set), SW_S("at+jwt"), sw_slice_cstr(payload), &out),
                     SW_OK);
    return sw_out_done(&out);
}

struct world {
    struct sw_token_cache *cache;
    struct sw_jwks *set;
};

static enum sw_err ask(const struct world *w, struct sw_slice typ,
                       const struct sw_claims_rules *rules, struct sw_slice token, int64_t now,
                       bool ret_hit[1])
{
    struct sw_token_cache_stats before = sw_token_cache_stats(w->cache), after;
    struct sw_claims claims = {0};
    struct sw_arena arena;
    enum sw_err err;

    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    err = sw_token_check(w->cache, w->set, typ, rules, token, now, &arena, &claims);
    after = sw_token_cache_stats(w->cache);
    *ret_hit = after.hits > before.hits;
    assert_int_equal(after.hits + after.misses, before.hits + before.misses + 1);
    assert_true(err == SW_OK || arena.used == 0);
    if (err == SW_OK) { /* nothing of the answer lies in the cache */
        assert_in_range((uintptr_t)claims.payload.ptr, (uintptr_t)arena_room,
                        (uintptr_t)arena_room + arena.used);
    }
    return err;
}

static void cached(void **state)
{
    struct world w = {sw_token_cache_new(), keys_new(1)};
    const struct sw_claims_rules skewed = {.skew_s = 30};
    char room[512], changed[512];
    struct sw_slice token = token_of(w.set, E(",\"sub\":\"a\",\"jti\":\"1\""), room, sizeof(room));
    struct sw_slice at_jwt = SW_S("at+jwt"), jwt = SW_S("JWT"), at_jwu = SW_S("at+jwu"),
                    any = {NULL, 0};
    struct sw_jwks *old = w.set;
    bool hit;

    (void)state;
    assert_non_null(w.cache);
    assert_int_equal(ask(&w, at_jwt, &no_rules, token, NOW, &hit), SW_OK);
    assert_false(hit);
    assert_int_equal(ask(&w, at_jwt, &no_rules, token, NOW, &hit), SW_OK);
    assert_true(hit);
    /* the type that was asked for is part of what was found out */
    assert_int_equal(ask(&w, jwt, &no_rules, token, NOW, &hit), SW_E_TOKEN_TYP);
    assert_false(hit);
    assert_int_equal(ask(&w, at_jwu, &no_rules, token, NOW, &hit), SW_E_TOKEN_TYP);
    assert_false(hit);
    assert_int_equal(ask(&w, any, &no_rules, token, NOW, &hit), SW_OK);
    assert_false(hit);
    /* claims are looked at each time */
    assert_int_equal(ask(&w, at_jwt, &scope_rules, token, NOW, &hit), SW_E_TOKEN_SCOPE);
    assert_true(hit);
    assert_int_equal(ask(&w, at_jwt, &name_rules, token, NOW, &hit), SW_OK);
    assert_true(hit);
    /* any other spelling is another token */
    for (size_t i = 0; i < token.len; i++) {
        memcpy(changed, token.ptr, token.len);
        changed[i] ^= 1;
        assert_int_not_equal(ask(&w, at_jwt, &no_rules, sw_slice_of(changed, token.len), NOW, &hit),
                             SW_OK);
        assert_false(hit);
        assert_int_not_equal(ask(&w, at_jwt, &no_rules, sw_slice_of(changed, token.len), NOW, &hit),
                             SW_OK); /* a refusal is not remembered as anything else */
        assert_false(hit);
    }
    /* at exp it ends, though the skew lets the token live on */
    assert_int_equal(ask(&w, at_jwt, &skewed, token, NOW + 1, &hit), SW_OK);
    assert_false(hit);
    assert_int_equal(ask(&w, at_jwt, &skewed, token, NOW + 1, &hit), SW_OK);
    assert_false(hit);
    assert_int_equal(ask(&w, at_jwt, &no_rules, token, NOW + 1, &hit), SW_E_TOKEN_EXPIRED);
    /* a new set with the same keys begins anew; one with other keys refuses */
    w.set = keys_new(1);
    assert_int_equal(ask(&w, at_jwt, &no_rules, token, NOW, &hit), SW_OK);
    assert_false(hit);
    sw_jwks_unref(w.set);
    w.set = keys_new(2);
    assert_int_equal(ask(&w, at_jwt, &no_rules, token, NOW, &hit), SW_E_TOKEN_SIGNATURE);
    assert_false(hit);
    sw_jwks_unref(w.set);
    w.set = old;
    assert_int_equal(ask(&w, at_jwt, &no_rules, token, NOW, &hit), SW_OK);
    assert_true(hit);
    sw_jwks_unref(w.set);
    sw_token_cache_free(w.cache);
    sw_token_cache_free(NULL);
}

static void no_cache(void **state)
{
    struct sw_jwks *set = keys_new(1);
    char room[512];
    struct sw_slice token = token_of(set, E(""), room, sizeof(room));
    struct sw_claims claims;
    struct sw_arena arena;

    (void)state;
    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    assert_int_equal(sw_token_check(NULL, set, SW_S(""), &no_rules, token, NOW, &arena, &claims),
                     SW_OK);
    assert_int_equal(sw_token_check(NULL, set, SW_S(""), &no_rules,
                                    sw_slice_of(arena_room, SW_TOKEN_BYTES_MAX + 1), NOW, &arena,
                                    &claims),
                     SW_E_TOKEN_LARGE);
    sw_jwks_unref(set);
}

/* A payload that fits to the byte, and one more. */
static void payload_sizes(void **state)
{
    struct world w = {sw_token_cache_new(), keys_new(1)};

    (void)state;
    for (size_t more = 0; more < 2; more++) {
        char payload[SW_TOKEN_CACHE_CLAIMS_BYTES + 2], room[2048];
        struct sw_slice token;
        bool hit;

        memset(payload, ' ', sizeof(payload));
        memcpy(payload, E(""), strlen(E("")));
        payload[SW_TOKEN_CACHE_CLAIMS_BYTES + more] = '\0';
        token = token_of(w.set, payload, room, sizeof(room));
        assert_int_equal(ask(&w, SW_S(""), &no_rules, token, NOW, &hit), SW_OK);
        assert_int_equal(ask(&w, SW_S(""), &no_rules, token, NOW, &hit), SW_OK);
        assert_int_equal(hit, more == 0);
        assert_int_equal(sw_token_cache_stats(w.cache).too_long, 2 * more);
    }
    sw_jwks_unref(w.set);
    sw_token_cache_free(w.cache);
}

/* More tokens than places: it stays as large as it is, the used ones stay in, and no answer is
 * another token's. */
static void full(void **state)
{
    enum { TOKENS = 3 * SW_TOKEN_CACHE_ENTRIES };
    struct world w = {sw_token_cache_new(), keys_new(1)};
    struct sw_token_cache_stats stats;
    char hot_room[512];
    struct sw_slice hot = token_of(w.set, E(",\"sub\":\"hot\""), hot_room, sizeof(hot_room));
    size_t hot_hits = 0;
    bool hit;

    (void)state;
    for (size_t i = 0; i < TOKENS; i++) {
        char payload[64], room[512], sub[16];
        struct sw_claims claims;
        struct sw_arena arena;
        struct sw_slice token;

        (void)snprintf(payload, sizeof(payload), E(",\"sub\":\"%zu\""), i);
        (void)snprintf(sub, sizeof(sub), "%zu", i);
        token = token_of(w.set, payload, room, sizeof(room));
        for (size_t turn = 0; turn < 2; turn++) {
            sw_arena_init(&arena, arena_room, sizeof(arena_room));
            assert_int_equal(
                sw_token_check(w.cache, w.set, SW_S(""), &no_rules, token, NOW, &arena, &claims),
                SW_OK);
            assert_true(sw_slice_eq(claims.sub, sw_slice_cstr(sub)));
        }
        assert_int_equal(ask(&w, SW_S(""), &no_rules, hot, NOW, &hit), SW_OK);
        hot_hits += hit ? 1 : 0;
    }
    stats = sw_token_cache_stats(w.cache);
    assert_int_equal(stats.hits, TOKENS + hot_hits);
    assert_int_equal(hot_hits, TOKENS - 1);
    assert_in_range(stats.evictions, TOKENS - SW_TOKEN_CACHE_ENTRIES, TOKENS);
    /* expired entries make room without being counted as pushed out */
    {
        char room[512];
        struct sw_slice token = token_of(w.set, "{\"exp\":1760009999}", room, sizeof(room));

        assert_int_equal(ask(&w, SW_S(""), &no_rules, token, NOW + 100, &hit), SW_OK);
        assert_int_equal(sw_token_cache_stats(w.cache).evictions, stats.evictions);
    }
    sw_jwks_unref(w.set);
    sw_token_cache_free(w.cache);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(times),          cmocka_unit_test(time_edges),
        cmocka_unit_test(time_spellings), cmocka_unit_test(claims_of_all_kinds),
        cmocka_unit_test(words),          cmocka_unit_test(texts),
        cmocka_unit_test(depth),          cmocka_unit_test(cached),
        cmocka_unit_test(no_cache),       cmocka_unit_test(payload_sizes),
        cmocka_unit_test(full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
