/* Cookies. */
#include "test_http.h"

static void find(void **state)
{
    static const struct {
        const char *fields[2];
        const char *value; /* NULL: none */
        unsigned count;
    } rows[] = {
        {{"sw=1"}, "1", 1},
        {{"a=b; sw=1; c=d"}, "1", 1},
        {{"a=b;sw=1;c=d"}, "1", 1},
        {{" sw = 1 2 "}, "1 2", 1},
        {{"sw="}, "", 1},
        {{"sw=a=b"}, "a=b", 1},
        {{"sw=\"q\""}, "\"q\"", 1},
        {{"sw=1; sw=2"}, "1", 2},
        {{"a=1; sw=1", "sw=2"}, "1", 2},
        {{"SW=1"}, NULL, 0},
        {{"xsw=1; sw2=1"}, NULL, 0},
        {{"sw"}, NULL, 0},
        {{"a=\"x; sw=1\""}, "1\"", 1}, /* quotes mean nothing */
        {{";;; ;"}, NULL, 0},
        {{""}, NULL, 0},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_field fields[2];
        struct sw_head h = {.fields = fields};
        struct sw_cookie_found found;

        for (size_t k = 0; k < 2 && rows[i].fields[k] != NULL; k++) {
            fields[h.field_count++] = (struct sw_field){
                SW_S("Cookie"), sw_slice_cstr(rows[i].fields[k]), SW_FIELD_COOKIE};
        }
        found = sw_cookie_find(&h, SW_S("sw"));
        assert_int_equal(found.count, rows[i].count);
        assert_slice(found.value, sw_slice_cstr(rows[i].value));
    }
}

static void set(void **state)
{
    char buf[5000], big[4096];
    struct sw_out out = sw_out_init(buf, sizeof(buf));
    struct sw_set_cookie c = {.name = SW_S("__Host-sw"), .value = SW_S("v1"), .path = SW_S("/"),
                              .secure = true, .max_age_s = -1};

    (void)state;
    assert_true(sw_set_cookie_put(&out, &c));
    assert_slice(sw_out_done(&out),
                 SW_S("__Host-sw=v1; Path=/; HttpOnly; SameSite=Lax; Secure"));

    out = sw_out_init(buf, sizeof(buf));
    c = (struct sw_set_cookie){.name = SW_S("sw"), .same_site = SW_SAME_SITE_STRICT};
    assert_true(sw_set_cookie_put(&out, &c));
    assert_slice(sw_out_done(&out), SW_S("sw=; HttpOnly; SameSite=Strict; Max-Age=0"));

    memset(big, 'x', sizeof(big));
    out = sw_out_init(buf, sizeof(buf));
    c.value = sw_slice_of(big, 4094);
    assert_true(sw_set_cookie_put(&out, &c));
    out = sw_out_init(buf, sizeof(buf));
    c.value = sw_slice_of(big, 4095);
    assert_false(sw_set_cookie_put(&out, &c));

    out = sw_out_init(buf, 20);
    c.value = SW_S("abc");
    assert_false(sw_set_cookie_put(&out, &c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(find), cmocka_unit_test(set)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
