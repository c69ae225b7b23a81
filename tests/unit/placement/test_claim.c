/* unit/placement/test_claim.c - idempotency keys: their text, their owner, the record, the rules.
 */
#include "placement/placement.h"
#include "../guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define X51  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X255 X51 X51 X51 X51 X51

static const struct sw_h1_limits limits = {65536, 65536};

struct request {
    struct sw_field fields[32];
    struct sw_head head;
    char text[2048];
};

static void parse(struct request *r, const char *start_and_fields)
{
    size_t scanned = 0;
    int n = snprintf(r->text, sizeof(r->text), "%s\r\n", start_and_fields);

    assert_true(n > 0 && (size_t)n < sizeof(r->text));
    r->head = (struct sw_head){.fields = r->fields, .field_max = SW_COUNTOF(r->fields)};
    assert_int_equal(
        sw_h1_request(sw_slice_of(r->text, (size_t)n), &scanned, &limits, &r->head).step,
        SW_STEP_DONE);
}

/* ---- the key --------------------------------------------------------------------------------- */

static const struct key_row {
    const char *fields;
    enum sw_err err;
    const char *key;
} key_rows[] = {
    {"", SW_E_IDEM_MISSING, NULL},
    {"X-Idempotency-Key: a\r\n", SW_E_IDEM_MISSING, NULL},
    /* quoted and bare are the same key */
    {"Idempotency-Key: abc\r\n", SW_OK, "abc"},
    {"Idempotency-Key: \"abc\"\r\n", SW_OK, "abc"},
    {"idempotency-key:   \"abc\"  \r\n", SW_OK, "abc"},
    {"Idempotency-Key: \"8e03978e-40d5-43e8-bc93-6894a57f9324\"\r\n", SW_OK,
     "8e03978e-40d5-43e8-bc93-6894a57f9324"},
    {"Idempotency-Key: stripe-node-retry-8e03978e\r\n", SW_OK, "stripe-node-retry-8e03978e"},
    /* quoted: every printable byte, two escapes */
    {"Idempotency-Key: \" a, b;c \"\r\n", SW_OK, " a, b;c "},
    {"Idempotency-Key: \"a\\\"b\\\\c\"\r\n", SW_OK, "a\"b\\c"},
    {"Idempotency-Key: \"\\\\\"\r\n", SW_OK, "\\"},
    {"Idempotency-Key: \"a\\b\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"a\\\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"a\\\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"a\tb\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"caf\xc3\xa9\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: abc\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\"d\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\"\"d\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\" \"d\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    /* parameters are ignored, two keys are not */
    {"Idempotency-Key: \"abc\";v=1\r\n", SW_OK, "abc"},
    {"Idempotency-Key: \"abc\"; v=1;w=\"x,\\\"y\"\r\n", SW_OK, "abc"},
    {"Idempotency-Key: \"abc\";*a\r\n", SW_OK, "abc"},
    {"Idempotency-Key: \"abc\";\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\";;v\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\";V=1\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\";=1\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\" ;v=1\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\";v=\"x\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\";v=\"x\\y\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\";v=\xc3\xa9\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\", \"def\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"abc\";v, \"def\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    /* bare: '!' to '~' without , ; " */
    {"Idempotency-Key: !#$%&'()*+-./:<=>?@[\\]^_`{|}~\r\n", SW_OK,
     "!#$%&'()*+-./:<=>?@[\\]^_`{|}~"},
    {"Idempotency-Key: a,b\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: a;v=1\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: a\"b\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: a b\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: a\tb\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: caf\xc3\xa9\r\n", SW_E_IDEM_SYNTAX, NULL},
    /* lengths */
    {"Idempotency-Key:\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: a\r\n", SW_OK, "a"},
    {"Idempotency-Key: " X255 "\r\n", SW_OK, X255},
    {"Idempotency-Key: \"" X255 "\"\r\n", SW_OK, X255},
    {"Idempotency-Key: " X255 "x\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: \"" X255 "x\"\r\n", SW_E_IDEM_SYNTAX, NULL},
    /* two lines, also when they say the same */
    {"Idempotency-Key: a\r\nIdempotency-Key: a\r\n", SW_E_IDEM_SYNTAX, NULL},
    {"Idempotency-Key: a\r\nA: b\r\nidempotency-key: b\r\n", SW_E_IDEM_SYNTAX, NULL},
};

static void keys(void **state)
{
    struct request r;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(key_rows); i++) {
        char fields[1024], text[SW_CLAIM_KEY_BYTES_MAX];
        struct sw_slice key = {NULL, 7};
        enum sw_err err;

        (void)snprintf(fields, sizeof(fields), "POST / HTTP/1.1\r\nHost: a\r\n%s",
                       key_rows[i].fields);
        parse(&r, fields);
        err = sw_claim_key_read(&r.head, text, &key);
        if (err != key_rows[i].err ||
            (err == SW_OK && !sw_slice_eq(key, sw_slice_cstr(key_rows[i].key)))) {
            fail_msg("row %zu (%s): %s, %.*s", i, key_rows[i].fields, sw_err_name(err),
                     err == SW_OK ? (int)key.len : 0, key.ptr);
        }
        assert_true(err == SW_OK || key.len == 7);
    }
}

/* ---- whose it is ----------------------------------------------------------------------------- */

static enum sw_err principal(struct sw_config_route *route, struct request *r, bool visitor,
                             struct sw_slice peer, struct sw_slice *ret)
{
    static struct sw_ask ask; /* the answer points into it */
    struct sw_routed routed = {.route = route};

    ask = (struct sw_ask){.routed = &routed, .request = &r->head};
    if (visitor) {
        ask.has_key = true;
        ask.session.from_cookie = true;
        memset(ask.session.id, 'i', sizeof(ask.session.id));
    }
    return sw_claim_principal(&ask, peer, ret);
}

static void principals(void **state)
{
    struct sw_config_route route = {.placement = SW_PLACE_SESSION};
    struct sw_slice who = {NULL, 0};
    struct request r;

    (void)state;
    parse(&r, "POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nX-Api: k\r\n"
              "X_Two: a\r\nX-Two: b\r\nX-Empty:\r\n");

    route.idempotency.principal = SW_IDEM_PRINCIPAL_VISITOR;
    assert_int_equal(principal(&route, &r, true, SW_S("1.2.3.4"), &who), SW_OK);
    assert_int_equal(who.len, 32);
    assert_true(who.ptr[0] == 'i' && who.ptr[31] == 'i');
    assert_int_equal(principal(&route, &r, false, SW_S("1.2.3.4"), &who), SW_E_IDEM_PRINCIPAL);

    route.idempotency.principal = SW_IDEM_PRINCIPAL_SUBJECT; /* no token was verified */
    assert_int_equal(principal(&route, &r, true, SW_S("1.2.3.4"), &who), SW_E_IDEM_PRINCIPAL);

    route.idempotency.principal = SW_IDEM_PRINCIPAL_ADDRESS;
    assert_int_equal(principal(&route, &r, true, SW_S("1.2.3.4"), &who), SW_OK);
    assert_true(sw_slice_eq(who, SW_S("1.2.3.4")));
    assert_int_equal(principal(&route, &r, true, SW_S(""), &who), SW_E_IDEM_PRINCIPAL);

    route.idempotency.principal = SW_IDEM_PRINCIPAL_HEADER;
    route.idempotency.principal_header = SW_S("authorization");
    assert_int_equal(principal(&route, &r, true, SW_S("1.2.3.4"), &who), SW_OK);
    assert_true(sw_slice_eq(who, SW_S("Bearer x")));
    route.idempotency.principal_header = SW_S("X-API");
    assert_int_equal(principal(&route, &r, false, SW_S(""), &who), SW_OK);
    assert_true(sw_slice_eq(who, SW_S("k")));
    route.idempotency.principal_header = SW_S("X-Two"); /* an app may read either */
    assert_int_equal(principal(&route, &r, true, SW_S("1.2.3.4"), &who), SW_E_IDEM_PRINCIPAL);
    route.idempotency.principal_header = SW_S("X-Empty");
    assert_int_equal(principal(&route, &r, true, SW_S("1.2.3.4"), &who), SW_E_IDEM_PRINCIPAL);
    route.idempotency.principal_header = SW_S("X-None");
    assert_int_equal(principal(&route, &r, true, SW_S("1.2.3.4"), &who), SW_E_IDEM_PRINCIPAL);
}

/* A proxy's address is that of all its clients: what it says counts, and only what it says. */
static void addresses(void **state)
{
    static const struct {
        const char *fields, *peer;
        bool trusted;
        const char *who; /* NULL: nobody */
    } list[] = {
        {"", "192.0.2.7", false, "192.0.2.7"},
        {"", "2001:db8::7", false, "2001:db8::7"},
        {"X-Forwarded-For: 1.2.3.4\r\n", "192.0.2.7", false, "192.0.2.7"},
        {"", "unix", false, NULL},
        {"", "unknown", false, NULL},
        {"", "", false, NULL},
        {"", "/run/x", false, NULL},
        {"", "10.0.0.1", true, NULL},
        {"", "unix", true, NULL},
        {"X-Forwarded-For: 192.0.2.7\r\n", "10.0.0.1", true, "192.0.2.7"},
        {"X-Forwarded-For: 192.0.2.7\r\n", "unix", true, "192.0.2.7"},
        {"X-Forwarded-For: 2001:db8::7\r\n", "10.0.0.1", true, "2001:db8::7"},
        /* what stands before the first one that nobody believes is hearsay */
        {"X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n", "10.0.0.1", true, "192.0.2.7"},
        {"X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.9.9.9\r\n", "10.0.0.1", true, "192.0.2.7"},
        {"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7 ,10.9.9.9\r\n", "10.0.0.1", true,
         "192.0.2.7"},
        {"X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.1", true, "10.0.0.3"},
        {"X-Forwarded-For: 192.0.2.7, unknown\r\n", "10.0.0.1", true, NULL},
        {"X-Forwarded-For: unix, 10.0.0.2\r\n", "10.0.0.1", true, NULL},
        {"X-Forwarded-For: 192.0.2.7:99\r\n", "10.0.0.1", true, NULL},
        {"X-Forwarded-For: 192.0.2.7,\r\n", "10.0.0.1", true, NULL},
        {"X-Forwarded-For: ,\r\n", "10.0.0.1", true, NULL},
        {"X-Forwarded-For:\r\n", "10.0.0.1", true, NULL},
    };
    static const struct sw_config_net nets[] = {
        {{[10] = 0xff, [11] = 0xff, [12] = 10}, 104}}; /* 10.0.0.0/8 */
    struct sw_config config = {.nets = nets, .net_count = 1};
    struct sw_place_env env = {.config = &config};
    struct sw_config_route route = {.line = 1};
    struct sw_routed routed = {.route = &route};

    (void)state;
    route.idempotency.principal = SW_IDEM_PRINCIPAL_ADDRESS;
    for (size_t i = 0; i < SW_COUNTOF(list); i++) {
        struct request r;
        struct sw_ask ask = {.env = &env, .routed = &routed, .request = &r.head};
        struct sw_slice who = {NULL, 0};
        char text[512];
        enum sw_err err;

        (void)snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: a\r\n%s", list[i].fields);
        parse(&r, text);
        ask.trusted = list[i].trusted;
        err = sw_claim_principal(&ask, sw_slice_cstr(list[i].peer), &who);
        if (err != (list[i].who == NULL ? SW_E_IDEM_PRINCIPAL : SW_OK) ||
            (err == SW_OK && !sw_slice_eq(who, sw_slice_cstr(list[i].who)))) {
            fail_msg("row %zu (%s): %s, %.*s", i, list[i].fields, sw_err_name(err), SW_SARG(who));
        }
    }
}

/* ---- hashes ---------------------------------------------------------------------------------- */

/* Every part counts, and none can be moved into another. */
static void store_keys(void **state)
{
    static const struct {
        uint64_t ident;
        enum sw_idem_principal kind;
        struct sw_slice header, principal, key;
    } lists[] = {
        {1, SW_IDEM_PRINCIPAL_HEADER, {"A", 1}, {"bc", 2}, {"d", 1}},
        {2, SW_IDEM_PRINCIPAL_HEADER, {"A", 1}, {"bc", 2}, {"d", 1}},
        {1, SW_IDEM_PRINCIPAL_ADDRESS, {"A", 1}, {"bc", 2}, {"d", 1}},
        {1, SW_IDEM_PRINCIPAL_VISITOR, {"A", 1}, {"bc", 2}, {"d", 1}},
        {1, SW_IDEM_PRINCIPAL_HEADER, {"B", 1}, {"bc", 2}, {"d", 1}},
        {1, SW_IDEM_PRINCIPAL_HEADER, {"Ab", 2}, {"c", 1}, {"d", 1}},
        {1, SW_IDEM_PRINCIPAL_HEADER, {"A", 1}, {"b", 1}, {"cd", 2}},
        {1, SW_IDEM_PRINCIPAL_HEADER, {"A", 1}, {"bcd", 3}, {"d", 1}},
        {1, SW_IDEM_PRINCIPAL_HEADER, {"A", 1}, {"bc", 2}, {"e", 1}},
        {1, SW_IDEM_PRINCIPAL_HEADER, {"A", 1}, {"bc", 2}, {"D", 1}},
    };
    struct sw_store_key made[SW_COUNTOF(lists)], again;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(lists); i++) {
        struct sw_config_route route = {.ident = lists[i].ident};

        route.idempotency.principal = lists[i].kind;
        route.idempotency.principal_header = lists[i].header;
        sw_claim_store_key(&route, lists[i].principal, lists[i].key, &made[i]);
        sw_claim_store_key(&route, lists[i].principal, lists[i].key, &again);
        assert_memory_equal(made[i].bytes, again.bytes, sizeof(again.bytes));
        for (size_t k = 0; k < i; k++) {
            if (memcmp(made[i].bytes, made[k].bytes, sizeof(again.bytes)) == 0) {
                fail_msg("rows %zu and %zu are one", i, k);
            }
        }
    }
}

static void fingerprints(void **state)
{
    static const struct {
        const char *request, *body;
        int same_as; /* row; -1: none before */
    } list[] = {
        {"POST /pay?a=1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", "{\"n\":1}",
         -1},
        {"POST /pay?a=1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json; charset=x\r\n"
         "X-Retry: 2\r\nIdempotency-Key: k\r\nUser-Agent: b\r\n",
         "{\"n\":1}", 0},
        {"POST /pay?a=1 HTTP/1.1\r\nHost: h\r\nContent-Type: Application/JSON ;Charset=x\r\n",
         "{\"n\":1}", 0},
        {"PATCH /pay?a=1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", "{\"n\":1}",
         -1},
        {"POST /pay?a=1 HTTP/1.1\r\nHost: i\r\nContent-Type: application/json\r\n", "{\"n\":1}",
         -1},
        {"POST /pays?a=1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", "{\"n\":1}",
         -1},
        {"POST /pay?a=2 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", "{\"n\":1}",
         -1},
        {"POST /pay? HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", "{\"n\":1}", -1},
        {"POST /pay HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", "{\"n\":1}", -1},
        {"POST /pay?a=1 HTTP/1.1\r\nHost: h\r\nContent-Type: text/json\r\n", "{\"n\":1}", -1},
        {"POST /pay?a=1 HTTP/1.1\r\nHost: h\r\n", "{\"n\":1}", -1},
        {"POST /pay?a=1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", "{\"n\":2}",
         -1},
        {"POST /pay?a=1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", "{\"n\":1} ",
         -1},
        {"POST /pay?a=1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", "", -1},
    };
    uint8_t made[SW_COUNTOF(list)][32];
    struct request r;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(list); i++) {
        parse(&r, list[i].request);
        sw_claim_fingerprint(&r.head, sw_slice_cstr(list[i].body), made[i]);
        for (size_t k = 0; k < i; k++) {
            int as = list[k].same_as >= 0 ? list[k].same_as : (int)k;

            if ((memcmp(made[i], made[k], 32) == 0) != (list[i].same_as == as)) {
                fail_msg("rows %zu and %zu", i, k);
            }
        }
        if (list[i].same_as >= 0) {
            assert_memory_equal(made[i], made[list[i].same_as], 32);
        }
    }
    sw_claim_fingerprint(&r.head, (struct sw_slice){NULL, 0}, made[0]); /* no body: an empty one */
    assert_memory_equal(made[0], made[SW_COUNTOF(list) - 1], 32);
}

/* ---- the record ------------------------------------------------------------------------------ */

static struct sw_claim done_claim(void)
{
    struct sw_claim c = {
        .state = SW_CLAIM_DONE,
        .attempt = 2,
        .status = 201,
        .reason = SW_S("Created"),
        .headers = SW_S("Location: /orders/7\r\nX-Empty: \r\n"),
        .body = SW_S("\0any\xff\r\nbytes"),
    };

    memset(c.fingerprint, 0xf5, sizeof(c.fingerprint));
    return c;
}

static struct sw_slice bytes_of(char *block, size_t cap, const struct sw_claim *c)
{
    struct sw_out out = sw_out_init(block, cap);

    assert_true(sw_claim_put(&out, c));
    return sw_out_done(&out);
}

static void round_trip_of(const struct sw_claim *c)
{
    struct sw_claim back = {.attempt = 99};
    char block[512];

    assert_int_equal(sw_claim_read(bytes_of(block, sizeof(block), c), &back), SW_OK);
    assert_int_equal(back.state, c->state);
    assert_int_equal(back.attempt, c->attempt);
    assert_int_equal(back.too_large, c->too_large);
    assert_memory_equal(back.fingerprint, c->fingerprint, sizeof(c->fingerprint));
    if (c->state == SW_CLAIM_DONE) {
        assert_int_equal(back.status, c->status);
        assert_true(sw_slice_eq(back.reason, c->reason));
        assert_true(sw_slice_eq(back.headers, c->headers));
        assert_true(sw_slice_eq(back.body, c->body));
    } else {
        assert_int_equal(back.status, 0); /* an answer of one that has none is not kept */
        assert_int_equal(back.body.len, 0);
    }
}

static void round_trips(void **state)
{
    struct sw_claim c = done_claim();

    (void)state;
    round_trip_of(&c);
    c.attempt = UINT32_MAX;
    round_trip_of(&c);
    c.too_large = true;
    c.body = SW_S("");
    round_trip_of(&c);
    c.status = 101; /* a switch of protocols happened, and cannot be repeated */
    c.reason = c.headers = (struct sw_slice){NULL, 0};
    round_trip_of(&c);
    c.too_large = false;
    round_trip_of(&c);
    c.status = 599;
    round_trip_of(&c);
    c = done_claim();
    c.state = SW_CLAIM_RUNNING;
    round_trip_of(&c);
    c.state = SW_CLAIM_UNKNOWN;
    round_trip_of(&c);
}

static void no_room(void **state)
{
    struct sw_claim c = done_claim();
    char block[512];
    size_t whole = bytes_of(block, sizeof(block), &c).len;

    (void)state;
    for (size_t cap = 0; cap < whole; cap++) {
        struct sw_out out = sw_out_init(block, cap);

        assert_false(sw_claim_put(&out, &c));
    }
}

static void corrupt(void **state)
{
    static const struct {
        const char *name;
        size_t at;
        unsigned char byte;
    } bad[] = {
        {"another format", 0, 2},      {"no state", 1, 0},      {"a state to come", 1, 4},
        {"a flag to come", 2, 2},      {"body and flag", 2, 1}, {"no attempt", 6, 0},
        {"status 457 is fine", 39, 1}, {"status 713", 39, 2},
    };
    struct guard guard = guard_new(4096);
    struct sw_claim c = done_claim(), back;
    char block[512];
    struct sw_slice whole = bytes_of(block, sizeof(block), &c);

    (void)state;
    for (size_t len = 0; len < whole.len; len++) {
        assert_int_equal(sw_claim_read(guard_put(&guard, sw_slice_head(whole, len)), &back),
                         SW_E_STORE_CORRUPT);
    }
    block[whole.len] = 0;
    assert_int_equal(sw_claim_read(sw_slice_of(block, whole.len + 1), &back), SW_E_STORE_CORRUPT);
    for (size_t i = 0; i < SW_COUNTOF(bad); i++) {
        char was = block[bad[i].at];

        block[bad[i].at] = (char)bad[i].byte;
        if (sw_claim_read(whole, &back) != (i == 6 ? SW_OK : SW_E_STORE_CORRUPT)) {
            fail_msg("%s", bad[i].name);
        }
        block[bad[i].at] = was;
    }
    for (size_t at = 0; at < whole.len; at++) { /* any bit changed: an answer, never a fault */
        for (unsigned bit = 0; bit < 8; bit++) {
            enum sw_err err;

            block[at] = (char)(block[at] ^ (1 << bit));
            err = sw_claim_read(guard_put(&guard, whole), &back);
            assert_true(err == SW_OK || err == SW_E_STORE_CORRUPT);
            block[at] = (char)(block[at] ^ (1 << bit));
        }
    }
    c.state = SW_CLAIM_RUNNING; /* has no answer */
    whole = bytes_of(block, sizeof(block), &c);
    block[whole.len] = 0;
    assert_int_equal(sw_claim_read(sw_slice_of(block, whole.len + 1), &back), SW_E_STORE_CORRUPT);
    block[2] = 1;
    assert_int_equal(sw_claim_read(whole, &back), SW_E_STORE_CORRUPT);
    guard_free(&guard);
}

/* What a file says goes to clients: it must not end a head. */
static void corrupt_texts(void **state)
{
    static const struct {
        const char *reason, *headers;
        enum sw_err err;
    } bad[] = {
        {"", "", SW_OK},
        {"caf\xe9\tb", "A: b\r\nC:d\r\n", SW_OK},
        {"a\r\nb", "", SW_E_STORE_CORRUPT},
        {"a\x7f", "", SW_E_STORE_CORRUPT},
        {"", "A: b", SW_E_STORE_CORRUPT},
        {"", "A: b\n", SW_E_STORE_CORRUPT},
        {"", "A: b\r\n\r\n", SW_E_STORE_CORRUPT},
        {"", "\r\n", SW_E_STORE_CORRUPT},
        {"", "A b\r\n", SW_E_STORE_CORRUPT},
        {"", ": b\r\n", SW_E_STORE_CORRUPT},
        {"", " A: b\r\n", SW_E_STORE_CORRUPT},
        {"", "A : b\r\n", SW_E_STORE_CORRUPT},
        {"", "A: b\nC: d\r\n", SW_E_STORE_CORRUPT},
        {"", "A: b\rC: d\r\n", SW_E_STORE_CORRUPT},
        {"", "A: \x01\r\n", SW_E_STORE_CORRUPT},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(bad); i++) {
        struct sw_claim c = done_claim(), back;
        char block[512];

        c.reason = sw_slice_cstr(bad[i].reason);
        c.headers = sw_slice_cstr(bad[i].headers);
        if (sw_claim_read(bytes_of(block, sizeof(block), &c), &back) != bad[i].err) {
            fail_msg("row %zu (%s)", i, bad[i].headers);
        }
    }
}

/* ---- decisions ------------------------------------------------------------------------------- */

static void decisions(void **state)
{
    static const struct {
        enum sw_claim_state state; /* 0: no record */
        bool same, too_large;
        enum sw_idem_unknown unknown;
        enum sw_err err;
        bool replay;
        uint32_t attempt; /* of a record's 3 */
    } list[] = {
        {0, true, false, SW_IDEM_UNKNOWN_REJECT, SW_OK, false, 1},
        {SW_CLAIM_DONE, true, false, SW_IDEM_UNKNOWN_REJECT, SW_OK, true, 3},
        {SW_CLAIM_DONE, true, false, SW_IDEM_UNKNOWN_RETRY, SW_OK, true, 3},
        {SW_CLAIM_DONE, true, true, SW_IDEM_UNKNOWN_RETRY, SW_E_IDEM_TOO_LARGE, false, 3},
        {SW_CLAIM_UNKNOWN, true, false, SW_IDEM_UNKNOWN_REJECT, SW_E_IDEM_UNKNOWN, false, 3},
        {SW_CLAIM_UNKNOWN, true, false, SW_IDEM_UNKNOWN_RETRY, SW_OK, false, 4},
        {SW_CLAIM_RUNNING, true, false, SW_IDEM_UNKNOWN_REJECT, SW_E_IDEM_UNKNOWN, false, 3},
        {SW_CLAIM_RUNNING, true, false, SW_IDEM_UNKNOWN_RETRY, SW_OK, false, 4},
        /* another request: whatever the state */
        {SW_CLAIM_DONE, false, false, SW_IDEM_UNKNOWN_RETRY, SW_E_IDEM_REUSED, false, 3},
        {SW_CLAIM_DONE, false, true, SW_IDEM_UNKNOWN_RETRY, SW_E_IDEM_REUSED, false, 3},
        {SW_CLAIM_UNKNOWN, false, false, SW_IDEM_UNKNOWN_RETRY, SW_E_IDEM_REUSED, false, 3},
        {SW_CLAIM_RUNNING, false, false, SW_IDEM_UNKNOWN_REJECT, SW_E_IDEM_REUSED, false, 3},
    };
    struct sw_config_route route = {.line = 1};
    struct sw_claim c = done_claim();
    uint8_t fingerprint[32];

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(list); i++) {
        struct sw_claim_decision d;

        memcpy(fingerprint, c.fingerprint, sizeof(fingerprint));
        fingerprint[31] = (uint8_t)(fingerprint[31] ^ (list[i].same ? 0 : 1));
        c.state = list[i].state;
        c.too_large = list[i].too_large;
        c.attempt = 3;
        route.idempotency.unknown = list[i].unknown;
        d = sw_claim_decide(&route, list[i].state == 0 ? NULL : &c, fingerprint);
        if (d.err != list[i].err || d.replay != list[i].replay || d.attempt != list[i].attempt) {
            fail_msg("row %zu: %s, replay %d, attempt %u", i, sw_err_name(d.err), d.replay,
                     d.attempt);
        }
    }
    c.state = SW_CLAIM_DONE; /* it switched protocols: that cannot be repeated */
    c.too_large = false;
    c.status = 101;
    assert_int_equal(sw_claim_decide(&route, &c, c.fingerprint).err, SW_E_IDEM_TOO_LARGE);
    assert_false(sw_claim_decide(&route, &c, c.fingerprint).replay);
    c.state = SW_CLAIM_UNKNOWN;
    c.attempt = UINT32_MAX;
    assert_int_equal(sw_claim_decide(&route, &c, c.fingerprint).err, SW_E_IDEM_UNKNOWN);
    route.idempotency.unknown = SW_IDEM_UNKNOWN_RETRY;
    assert_int_equal(sw_claim_decide(&route, &c, c.fingerprint).attempt, UINT32_MAX);
}

/* Every status, by the table of the specification. */
static void ends(void **state)
{
    struct sw_config_route route = {.line = 1};
    struct sw_update by_status = {.idempotency = SW_IDEM_BY_STATUS};
    struct sw_update store = {.idempotency = SW_IDEM_STORE};
    struct sw_update release = {.idempotency = SW_IDEM_RELEASE};

    (void)state;
    for (unsigned status = 101; status <= 599; status++) {
        bool transient =
            status == 408 || status == 409 || status == 423 || status == 425 || status == 429;
        bool failed = status >= 500;

        route.idempotency.failed = SW_IDEM_FAILED_UNKNOWN;
        assert_int_equal(sw_claim_end_of(&route, &by_status, status), transient ? SW_CLAIM_RELEASE
                                                                      : failed  ? SW_CLAIM_DOUBT
                                                                                : SW_CLAIM_KEEP);
        assert_int_equal(sw_claim_end_of(&route, &store, status), SW_CLAIM_KEEP);
        assert_int_equal(sw_claim_end_of(&route, &release, status), SW_CLAIM_RELEASE);
        route.idempotency.failed = SW_IDEM_FAILED_STORE;
        assert_int_equal(sw_claim_end_of(&route, &by_status, status),
                         transient ? SW_CLAIM_RELEASE : SW_CLAIM_KEEP);
        route.idempotency.failed = SW_IDEM_FAILED_RELEASE;
        assert_int_equal(sw_claim_end_of(&route, &by_status, status),
                         transient || failed ? SW_CLAIM_RELEASE : SW_CLAIM_KEEP);
    }
}

/* ---- the stored headers ---------------------------------------------------------------------- */

static void headers(void **state)
{
    static const char *const out_of_it[] = {
        "Connection",
        "Content-Length",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "HTTP2-Settings",
        "Date",
        "date",
        "Set-Cookie",
        "SET-COOKIE",
        "Idempotent-Replayed",
        "Stateway-Set",
        "Stateway-Verdict",
        "stateway_x",
        "Grip-Hold",
        "Grip-Channel",
        "traceparent",
        "Tracestate",
        "baggage",
        "b3",
        "X-B3-TraceId",
        "X-Amzn-Trace-Id",
        "X-Cloud-Trace-Context",
        "Uber-Trace-Id",
        "X-Datadog-Trace-Id",
    };
    struct sw_field fields[SW_COUNTOF(out_of_it) + 8];
    struct sw_head head = {.fields = fields, .field_max = SW_COUNTOF(fields), .status = 200};
    char text[1024];
    struct sw_out out = sw_out_init(text, sizeof(text));
    static const struct sw_slice whole =
        SW_S("Content-Type: text/html\r\nLocation: /a\r\nETag: \"x\"\r\nX-Data: 1\r\nDates: 1\r\n"
             "Griped: 1\r\n");

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(out_of_it); i++) { /* ids are not looked at */
        fields[head.field_count++] =
            (struct sw_field){sw_slice_cstr(out_of_it[i]), SW_S("x-own"), SW_FIELD_OTHER};
    }
    fields[0].id = SW_FIELD_CONNECTION; /* names X-Own, which is then of this hop */
#define ADD(n, v) fields[head.field_count++] = (struct sw_field){SW_S(n), SW_S(v), SW_FIELD_OTHER}
    ADD("Content-Type", "text/html");
    ADD("Location", "/a");
    ADD("X-Own", "1");
    ADD("ETag", "\"x\"");
    ADD("X-Data", "1");
    ADD("Dates", "1");
    ADD("Griped", "1");
    assert_true(sw_claim_headers_put(&out, &head));
    if (!sw_slice_eq(sw_out_done(&out), whole)) {
        fail_msg("%.*s", SW_SARG(sw_out_done(&out)));
    }
    for (size_t cap = 0; cap < whole.len; cap++) {
        out = sw_out_init(text, cap);
        assert_false(sw_claim_headers_put(&out, &head));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),          cmocka_unit_test(principals),
        cmocka_unit_test(addresses),     cmocka_unit_test(store_keys),
        cmocka_unit_test(fingerprints),  cmocka_unit_test(round_trips),
        cmocka_unit_test(no_room),       cmocka_unit_test(corrupt),
        cmocka_unit_test(corrupt_texts), cmocka_unit_test(decisions),
        cmocka_unit_test(ends),          cmocka_unit_test(headers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
