/* unit/placement/test_csrf.c - requests that another site caused, and those that none did. */
#include "placement/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct row {
    const char *name, *request;
    bool trusted, cross;
} rows[] = {
    {"a read", "GET / HTTP/1.1\r\nCookie: sid=x\r\nSec-Fetch-Site: cross-site\r\n", false, false},
    {"no cookie of ours", "POST / HTTP/1.1\r\nSec-Fetch-Site: cross-site\r\n", false, false},
    {"another's cookie", "POST / HTTP/1.1\r\nCookie: a=b\r\nSec-Fetch-Site: cross-site\r\n", false,
     false},
    {"same origin", "POST / HTTP/1.1\r\nCookie: sid=x\r\nSec-Fetch-Site: same-origin\r\n", false,
     false},
    {"typed by the user", "POST / HTTP/1.1\r\nCookie: sid=x\r\nSec-Fetch-Site: none\r\n", false,
     false},
    {"another site", "POST / HTTP/1.1\r\nCookie: sid=x\r\nSec-Fetch-Site: cross-site\r\n", false,
     true},
    {"a neighbour", "POST / HTTP/1.1\r\nCookie: sid=x\r\nSec-Fetch-Site: same-site\r\n", false,
     true},
    {"our origin", "POST / HTTP/1.1\r\nCookie: sid=x\r\nOrigin: http://shop.example\r\n", false,
     false},
    {"our origin, other case",
     "POST / HTTP/1.1\r\nCookie: sid=x\r\nOrigin: http://SHOP.example\r\n", false, false},
    {"foreign origin", "POST / HTTP/1.1\r\nCookie: sid=x\r\nOrigin: http://evil.example\r\n", false,
     true},
    {"another port", "POST / HTTP/1.1\r\nCookie: sid=x\r\nOrigin: http://shop.example:81\r\n",
     false, true},
    {"opaque origin", "POST / HTTP/1.1\r\nCookie: sid=x\r\nOrigin: null\r\n", false, true},
    {"no browser", "POST / HTTP/1.1\r\nCookie: sid=x\r\n", false, false},
    {"the __Host- name", "POST / HTTP/1.1\r\nCookie: __Host-sid=x\r\nOrigin: null\r\n", false,
     true},
    {"a WebSocket",
     "GET / HTTP/1.1\r\nCookie: sid=x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
     "Origin: http://evil.example\r\n",
     false, true},
    {"behind a proxy that is believed",
     "POST / HTTP/1.1\r\nCookie: sid=x\r\nOrigin: https://public.example\r\n"
     "X-Forwarded-Host: public.example\r\n",
     true, false},
    {"a proxy that is not",
     "POST / HTTP/1.1\r\nCookie: sid=x\r\nOrigin: https://public.example\r\n"
     "X-Forwarded-Host: public.example\r\n",
     false, true},
};

static bool cross(const struct row *row, bool on)
{
    static const struct sw_h1_limits limits = {65536, 65536};
    struct sw_config_route route = {.placement = SW_PLACE_SESSION, .csrf = on};
    struct sw_routed routed = {.route = &route};
    struct sw_field array[32];
    struct sw_head head = {.fields = array, .field_max = SW_COUNTOF(array)};
    struct sw_ask ask = {.routed = &routed, .request = &head, .trusted = row->trusted};
    char text[1024];
    size_t scanned = 0;
    int n = snprintf(text, sizeof(text), "%sHost: shop.example\r\n\r\n", row->request);

    route.session.cookie.name = SW_S("sid");
    route.session.cookie.path = SW_S("/");
    assert_int_equal(sw_h1_request(sw_slice_of(text, (size_t)n), &scanned, &limits, &head).step,
                     SW_STEP_DONE);
    return sw_place_cross_site(&ask);
}

static void csrf_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        if (cross(&rows[i], true) != rows[i].cross) {
            fail_msg("%s", rows[i].name);
        }
        assert_false(cross(&rows[i], false));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(csrf_rows)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
