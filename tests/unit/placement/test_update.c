/* unit/placement/test_update.c - the Stateway headers of an app's answer, row by row. */
#include "placement/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define ALARM    "Stateway-Alarm: in=5\r\n"
#define ALARMS_8 ALARM ALARM ALARM ALARM ALARM ALARM ALARM ALARM

static const struct row {
    const char *head; /* fields of the answer */
    enum sw_err err;
    enum sw_update_kind kind;
} rows[] = {
    {"", SW_OK, SW_UPDATE_NONE},
    {"Content-Type: text/plain\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-Set: {\"n\":1}\r\n", SW_OK, SW_UPDATE_SET},
    {"stateway-set: {}\r\n", SW_OK, SW_UPDATE_SET},
    {"Stateway-Patch: {\"n\":null}\r\n", SW_OK, SW_UPDATE_PATCH},
    {"Stateway-Delete: ?1\r\n", SW_OK, SW_UPDATE_DELETE},
    {"Stateway-Delete: ?0\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-Delete: ?0\r\nStateway-Set: {}\r\n", SW_OK, SW_UPDATE_SET},
    {"Stateway-Delete: true\r\n", SW_E_UPDATE_SYNTAX, 0},
    {"Stateway-Delete: 1\r\n", SW_E_UPDATE_SYNTAX, 0},
    /* more than one */
    {"Stateway-Set: {}\r\nStateway-Patch: {}\r\n", SW_E_UPDATE_MANY, 0},
    {"Stateway-Set: {}\r\nStateway-Delete: ?1\r\n", SW_E_UPDATE_MANY, 0},
    {"Stateway-Patch: {}\r\nStateway-Delete: ?1\r\n", SW_E_UPDATE_MANY, 0},
    {"Stateway-Set: {}\r\nStateway-Set: {}\r\n", SW_E_UPDATE_MANY, 0},
    {"Stateway-TTL: 5\r\nStateway-TTL: 5\r\n", SW_E_UPDATE_MANY, 0},
    /* values */
    {"Stateway-Set: {\"n\":1\r\n", SW_E_UPDATE_JSON, 0},
    {"Stateway-Set: {\"n\":01}\r\n", SW_E_UPDATE_JSON, 0},
    {"Stateway-Set: {\"a\":1,\"a\":2}\r\n", SW_E_UPDATE_JSON, 0},
    {"Stateway-Set: {\"a\":1,\"\\u0061\":2}\r\n", SW_E_UPDATE_JSON, 0},
    {"Stateway-Set: {} {}\r\n", SW_E_UPDATE_JSON, 0},
    {"Stateway-Set:\r\n", SW_E_UPDATE_JSON, 0},
    {"Stateway-Set: null\r\n", SW_E_UPDATE_TYPE, 0},
    {"Stateway-Set: [1]\r\n", SW_E_UPDATE_TYPE, 0},
    {"Stateway-Set: \"x\"\r\n", SW_E_UPDATE_TYPE, 0},
    {"Stateway-Patch: 5\r\n", SW_E_UPDATE_TYPE, 0},
    {"Stateway-Set: :AAAA:\r\n", SW_E_UPDATE_TYPE, 0},
    {"Stateway-Set: {\"n\":\"caf\xc3\xa9\"}\r\n", SW_E_UPDATE_ASCII, 0},
    {"Stateway-Set: {\"n\":\"caf\xe9\"}\r\n", SW_E_UPDATE_ASCII, 0},
    {"Stateway-Set: {\"n\":\t1}\r\n", SW_E_UPDATE_ASCII, 0},
    {"Stateway-Set: {\"n\":\"caf\\u00e9\"}\r\n", SW_OK, SW_UPDATE_SET},
    /* the small ones */
    {"Stateway-TTL: 3600\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-TTL: 0\r\n", SW_E_UPDATE_SYNTAX, 0},
    {"Stateway-TTL: -1\r\n", SW_E_UPDATE_SYNTAX, 0},
    {"Stateway-TTL: 1h\r\n", SW_E_UPDATE_SYNTAX, 0},
    {"Stateway-TTL: 99999999999999\r\n", SW_E_UPDATE_SYNTAX, 0},
    {"Stateway-Expect: \"3f2-17\"\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-Expect: \"0\"\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-Expect: 3f2\r\n", SW_E_UPDATE_SYNTAX, 0},
    {"Stateway-Commit: always\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-Commit: 2xx\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-Commit: sometimes\r\n", SW_E_UPDATE_SYNTAX, 0},
    {"Stateway-Renew: ?1\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-Renew: yes\r\n", SW_E_UPDATE_SYNTAX, 0},
    /* alarms are kept as texts, whatever they say: sw_alarm_parse reads them */
    {"Stateway-Alarm: in=5\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-Alarm: nonsense\r\nStateway-Set: {}\r\n", SW_OK, SW_UPDATE_SET},
    {ALARMS_8, SW_OK, SW_UPDATE_NONE},
    {ALARMS_8 "Stateway-Alarm: in=9\r\n", SW_E_UPDATE_ALARM, 0},
    /* what becomes of the idempotency key */
    {"Stateway-Idempotency: store\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-Idempotency: release\r\n", SW_OK, SW_UPDATE_NONE},
    {"Stateway-Idempotency: Store\r\n", SW_E_UPDATE_SYNTAX, 0},
    {"Stateway-Idempotency: keep\r\n", SW_E_UPDATE_SYNTAX, 0},
    {"Stateway-Idempotency:\r\n", SW_E_UPDATE_SYNTAX, 0},
    {"Stateway-Idempotency: store\r\nStateway-Idempotency: release\r\n", SW_E_UPDATE_MANY, 0},
    /* an announced update that got lost on the way */
    {"Stateway-Update: bytes=2\r\nStateway-Set: {}\r\n", SW_OK, SW_UPDATE_SET},
    {"Stateway-Update: bytes=3\r\nStateway-Set: {}\r\n", SW_E_UPDATE_LOST, 0},
    {"Stateway-Update: bytes=2\r\n", SW_E_UPDATE_LOST, 0},
    {"Stateway-Update: 2\r\n", SW_E_UPDATE_SYNTAX, 0},
};

static enum sw_err read_row(const char *fields, struct sw_update *ret_update)
{
    static const struct sw_h1_limits limits = {65536, 65536};
    struct sw_field array[32];
    struct sw_head head = {.fields = array, .field_max = SW_COUNTOF(array)};
    char text[1024];
    size_t scanned = 0;
    int n = snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n%s\r\n", fields);
    struct sw_parsed parsed;

    assert_true(n > 0 && (size_t)n < sizeof(text));
    parsed = sw_h1_response(sw_slice_of(text, (size_t)n), &scanned, &limits, SW_METHOD_GET, &head);
    assert_int_equal(parsed.step, SW_STEP_DONE);
    return sw_update_read(&head, ret_update);
}

static void update_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_update u = {.kind = SW_UPDATE_NONE};
        enum sw_err err = read_row(rows[i].head, &u);

        if (err != rows[i].err || (err == SW_OK && u.kind != rows[i].kind)) {
            fail_msg("row %zu (%s): %s, kind %d", i, rows[i].head, sw_err_name(err), (int)u.kind);
        }
    }
}

static void values(void **state)
{
    struct sw_update u = {.kind = SW_UPDATE_NONE};

    (void)state;
    assert_int_equal(
        read_row("Stateway-Renew: ?1\r\nStateway-Subject: alice\r\nStateway-TTL: 60\r\n"
                 "Stateway-Expect: \"a-2\"\r\nStateway-Commit: always\r\n",
                 &u),
        SW_OK);
    assert_true(u.renew);
    assert_true(u.has_subject && sw_slice_eq(u.subject, SW_S("alice")));
    assert_true(u.ttl_s == 60);
    assert_true(u.has_expect && u.expect.epoch == 0xa && u.expect.counter == 2);
    assert_int_equal(u.commit, SW_COMMIT_ALWAYS);
    assert_int_equal(read_row("Stateway-Subject:\r\n", &u), SW_OK);
    assert_true(u.has_subject && u.subject.len == 0); /* "" removes it */
    assert_true(u.ttl_s < 0);
}

static void alarms(void **state)
{
    struct sw_update u = {.kind = SW_UPDATE_NONE};

    (void)state;
    assert_int_equal(read_row("Stateway-Set: {}\r\n", &u), SW_OK);
    assert_int_equal(u.alarm_count, 0);
    assert_int_equal(u.idempotency, SW_IDEM_BY_STATUS);
    assert_int_equal(read_row("Stateway-Alarm: in=5;id=a\r\nStateway-Idempotency: release\r\n"
                              "stateway-alarm: cancel;id=b\r\nStateway-Alarm:\r\n",
                              &u),
                     SW_OK);
    assert_int_equal(u.alarm_count, 3); /* in their order */
    assert_true(sw_slice_eq(u.alarms[0], SW_S("in=5;id=a")));
    assert_true(sw_slice_eq(u.alarms[1], SW_S("cancel;id=b")));
    assert_int_equal(u.alarms[2].len, 0);
    assert_int_equal(u.idempotency, SW_IDEM_RELEASE);
    assert_int_equal(read_row("Stateway-Idempotency: store\r\n", &u), SW_OK);
    assert_int_equal(u.idempotency, SW_IDEM_STORE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(update_rows),
        cmocka_unit_test(values),
        cmocka_unit_test(alarms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
