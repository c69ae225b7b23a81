/* tests/unit/io/test_addr.c - addresses as text and back. */
#include "world.h"

static const struct row {
    const char *name;
    struct sw_slice in;
    bool names;
    enum sw_err err;
    struct sw_slice text, host;
    uint16_t port;
} rows[] = {
    {"IPv4", SW_S("127.0.0.1:80"), false, SW_OK, SW_S("127.0.0.1:80"), SW_S("127.0.0.1"), 80},
    {"IPv6", SW_S("[::1]:8080"), false, SW_OK, SW_S("[::1]:8080"), SW_S("::1"), 8080},
    {"any port", SW_S("0.0.0.0:0"), false, SW_OK, SW_S("0.0.0.0:0"), SW_S("0.0.0.0"), 0},
    {"last port", SW_S("1.2.3.4:65535"), false, SW_OK, SW_S("1.2.3.4:65535"), SW_S("1.2.3.4"),
     65535},
    {"Unix", SW_S("unix:/run/a.sock"), false, SW_OK, SW_S("unix:/run/a.sock"), SW_S("unix"), 0},
    {"abstract", SW_S("unix:@name"), false, SW_OK, SW_S("unix:@name"), SW_S("unix"), 0},
    {"a name", SW_S("localhost:80"), true, SW_OK, {0}, {0}, 80},
    {"a name where none is allowed", SW_S("localhost:80"), false, SW_E_SYNTAX, {0}, {0}, 0},
    {"no such name", SW_S("no-such-host.invalid:80"), true, SW_E_NOT_FOUND, {0}, {0}, 0},
    {"no host", SW_S(":80"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"no port", SW_S("127.0.0.1"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"empty port", SW_S("127.0.0.1:"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"port too large", SW_S("127.0.0.1:65536"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"port with a sign", SW_S("127.0.0.1:+80"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"port too long", SW_S("127.0.0.1:000080"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"bare IPv6", SW_S("::1:80"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"unclosed", SW_S("[::1:80"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"no port behind ]", SW_S("[::1]"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"IPv4 in brackets", SW_S("[127.0.0.1]:80"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"a blank", SW_S("local host:80"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"a NUL", SW_S("127.0.0.1\0:80"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"Unix without path", SW_S("unix:"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"Unix, a NUL inside", SW_S("unix:/a\0b"), true, SW_E_SYNTAX, {0}, {0}, 0},
    {"empty", SW_S(""), true, SW_E_SYNTAX, {0}, {0}, 0},
};

static void parse_rows(void **state)
{
    char buf[SW_ADDR_TEXT_MAX], host[64];

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_addr a = {.len = 0};
        enum sw_err err = sw_addr_parse(rows[i].in, rows[i].names, &a);

        if (err != rows[i].err) {
            fail_msg("%s: %s", rows[i].name, sw_err_name(err));
        }
        if (err != SW_OK) {
            assert_int_equal(a.len, 0);
            continue;
        }
        assert_int_equal(sw_addr_port(&a), rows[i].port);
        if (rows[i].text.len > 0 && (!sw_slice_eq(sw_addr_text(&a, buf), rows[i].text) ||
                                     !sw_slice_eq(sw_addr_host(&a, host), rows[i].host))) {
            fail_msg("%s: %.*s", rows[i].name, SW_SARG(sw_addr_text(&a, buf)));
        }
    }
}

static void unix_length(void **state)
{
    char text[5 + 200] = "unix:";
    struct sw_addr a;
    char buf[SW_ADDR_TEXT_MAX];

    (void)state;
    memset(text + 5, 'x', 200);
    assert_int_equal(sw_addr_parse(sw_slice_of(text, 5 + 107), false, &a), SW_OK);
    assert_int_equal(sw_addr_text(&a, buf).len, 5 + 107);
    assert_int_equal(sw_addr_parse(sw_slice_of(text, 5 + 108), false, &a), SW_E_SYNTAX);
}

static void nothing(void **state)
{
    struct sw_addr a = {.len = 0};
    union io_small_addr small;
    char buf[SW_ADDR_TEXT_MAX];

    (void)state;
    assert_true(sw_slice_eq(sw_addr_text(&a, buf), SW_S("unknown")));
    assert_int_equal(sw_addr_port(&a), 0);
    io__small_addr_set(&small, &a);
    io__small_addr_get(&small, &a);
    assert_int_equal(a.len, 0);
    assert_int_equal(sizeof(small), 28);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_rows),
        cmocka_unit_test(unix_length),
        cmocka_unit_test(nothing),
    };

    return cmocka_run_group_tests_name("io/addr", tests, NULL, NULL);
}
