/* The text of a version: one for each. */
#include "contract.h"

static const struct {
    struct sw_slice text;
    struct sw_version v;
    enum sw_err err;
} rows[] = {
    {SW_S("\"0\""), {0, 0}, SW_OK},
    {SW_S("\"3f2-17\""), {0x3f2, 17}, SW_OK},
    {SW_S("\"ffffffffffffffff-18446744073709551615\""), {UINT64_MAX, UINT64_MAX}, SW_OK},
    {SW_S("\"0-1\""), {0, 1}, SW_OK},
    {SW_S(""), {0, 0}, SW_E_SYNTAX},
    {SW_S("0"), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("3f2-17"), {0, 0}, SW_E_SYNTAX},
    {SW_S("W/\"3f2-17\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"3F2-17\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"03f2-17\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"3f2-017\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"3f2-0\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"3f2-\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"-17\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"3f2-1-7\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"3f2-17\" "), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"3f2-18446744073709551616\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"10000000000000000-1\""), {0, 0}, SW_E_SYNTAX},
    {SW_S("\"3f2-17\",\"3f2-18\""), {0, 0}, SW_E_SYNTAX},
};

static void table(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_version v = {77, 77};
        enum sw_err err = sw_version_parse(rows[i].text, &v);

        if (err != rows[i].err) {
            fail_msg("%.*s: %s", SW_SARG(rows[i].text), sw_err_name(err));
        }
        if (err == SW_OK) {
            char room[SW_VERSION_TEXT_MAX];
            struct sw_out out = sw_out_init(room, sizeof(room));

            assert_true(sw_version_eq(v, rows[i].v));
            sw_version_put(&out, v);
            assert_true(sw_slice_eq(sw_out_done(&out), rows[i].text));
        } else {
            assert_int_equal(v.epoch, 77);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(table)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
