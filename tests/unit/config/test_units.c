/* Durations, sizes, percents; nearest words. */
#include "world.h"

typedef const char *unit_fn(struct sw_slice s, uint64_t *ret_value);

static const struct row {
    unit_fn *parse;
    struct sw_slice in;
    uint64_t value;
    const char *why; /* part of the refusal; NULL: accepted */
} rows[] = {
    {sw_units__duration, SW_S("500ms"), 500 * SW_NS_PER_MS, NULL},
    {sw_units__duration, SW_S("30s"), 30 * SW_NS_PER_S, NULL},
    {sw_units__duration, SW_S("10m"), 600 * SW_NS_PER_S, NULL},
    {sw_units__duration, SW_S("2h"), 7200 * SW_NS_PER_S, NULL},
    {sw_units__duration, SW_S("30d"), 30 * 86400 * SW_NS_PER_S, NULL},
    {sw_units__duration, SW_S("0s"), 0, NULL},
    {sw_units__duration, SW_S("007s"), 7 * SW_NS_PER_S, NULL},
    {sw_units__duration, SW_S("106751d"), 106751ull * 86400 * SW_NS_PER_S, NULL},
    {sw_units__duration, SW_S("106752d"), 0, "too large"},
    {sw_units__duration, SW_S("18446744073709551616s"), 0, "too large"},
    {sw_units__duration, SW_S("18446744073709551615d"), 0, "too large"},
    {sw_units__duration, SW_S("30"), 0, "unit is missing"},
    {sw_units__duration, SW_S(""), 0, "number comes first"},
    {sw_units__duration, SW_S("s"), 0, "number comes first"},
    {sw_units__duration, SW_S("-1s"), 0, "number comes first"},
    {sw_units__duration, SW_S("+1s"), 0, "number comes first"},
    {sw_units__duration, SW_S(" 1s"), 0, "number comes first"},
    {sw_units__duration, SW_S("1 s"), 0, "ms, s, m, h or d"},
    {sw_units__duration, SW_S("1s "), 0, "ms, s, m, h or d"},
    {sw_units__duration, SW_S("1.5h"), 0, "smaller unit"},
    {sw_units__duration, SW_S("1h30m"), 0, "ms, s, m, h or d"},
    {sw_units__duration, SW_S("1S"), 0, "ms, s, m, h or d"},
    {sw_units__duration, SW_S("1w"), 0, "ms, s, m, h or d"},
    {sw_units__size, SW_S("512"), 512, NULL},
    {sw_units__size, SW_S("512B"), 512, NULL},
    {sw_units__size, SW_S("64KiB"), 65536, NULL},
    {sw_units__size, SW_S("1MiB"), 1048576, NULL},
    {sw_units__size, SW_S("2GiB"), 2147483648u, NULL},
    {sw_units__size, SW_S("0"), 0, NULL},
    {sw_units__size, SW_S("64KB"), 0, "KiB, MiB and GiB"},
    {sw_units__size, SW_S("64k"), 0, "KiB, MiB and GiB"},
    {sw_units__size, SW_S("64 KiB"), 0, "KiB, MiB and GiB"},
    {sw_units__size, SW_S("8589934592GiB"), 0, "too large"},
    {sw_units__size, SW_S("17179869184GiB"), 0, "too large"},
    {sw_units__size, SW_S("KiB"), 0, "number comes first"},
    {sw_units__percent, SW_S("20%"), 20, NULL},
    {sw_units__percent, SW_S("20"), 0, "percent sign"},
    {sw_units__percent, SW_S("%"), 0, "whole number"},
    {sw_units__percent, SW_S(""), 0, "percent sign"},
    {sw_units__percent, SW_S("2.5%"), 0, "whole number"},
    {sw_units__count, SW_S("3"), 3, NULL},
    {sw_units__count, SW_S("3.0"), 0, "digits"},
    {sw_units__count, SW_S("0x3"), 0, "digits"},
    {sw_units__count, SW_S(""), 0, "digits"},
};

static void unit_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        uint64_t value = 0;
        const char *why = rows[i].parse(rows[i].in, &value);

        if ((why == NULL) != (rows[i].why == NULL) ||
            (why != NULL && strstr(why, rows[i].why) == NULL) ||
            (why == NULL && value != rows[i].value)) {
            fail_msg("%.*s: %s, %llu", SW_SARG(rows[i].in), why != NULL ? why : "accepted",
                     (unsigned long long)value);
        }
    }
}

static void spelled_as_short_as_can_be(void **state)
{
    char buf[SW_UNITS_TEXT_MAX];

    (void)state;
    assert_string_equal(sw_units__duration_text(500 * SW_NS_PER_MS, buf), "500ms");
    assert_string_equal(sw_units__duration_text(90 * SW_NS_PER_S, buf), "90s");
    assert_string_equal(sw_units__duration_text(86400 * SW_NS_PER_S, buf), "1d");
    assert_string_equal(sw_units__duration_text(0, buf), "0ms");
    assert_string_equal(sw_units__size_text(65536, buf), "64KiB");
    assert_string_equal(sw_units__size_text(1000, buf), "1000B");
    assert_string_equal(sw_units__size_text(1ull << 31, buf), "2GiB");
}

static void distances(void **state)
{
    (void)state;
    assert_int_equal(sw_config__distance(SW_S("replicsa"), SW_S("replicas"), 3), 1);
    assert_int_equal(sw_config__distance(SW_S("replicas"), SW_S("replicas"), 3), 0);
    assert_int_equal(sw_config__distance(SW_S("start_timeout"), SW_S("start-timeout"), 3), 0);
    assert_int_equal(sw_config__distance(SW_S("Listen"), SW_S("listen"), 3), 0);
    assert_int_equal(sw_config__distance(SW_S("kitten"), SW_S("sitting"), 3), 3);
    assert_int_equal(sw_config__distance(SW_S("kitten"), SW_S("sitting"), 2), 3);
    assert_int_equal(sw_config__distance(SW_S(""), SW_S("abc"), 3), 3);
    assert_int_equal(sw_config__distance(SW_S("abcdefgh"), SW_S("a"), 3), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unit_rows),
        cmocka_unit_test(spelled_as_short_as_can_be),
        cmocka_unit_test(distances),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
