/* Field ids, lists, methods, dates, reasons. */
#include "test_http.h"

#include "http/http_priv.h"

#include <time.h>

static const struct {
    const char *name;
    enum sw_field_id id;
} names[] = {
    {"Connection", SW_FIELD_CONNECTION},
    {"Content-Length", SW_FIELD_CONTENT_LENGTH},
    {"Content-Type", SW_FIELD_CONTENT_TYPE},
    {"Transfer-Encoding", SW_FIELD_TRANSFER_ENCODING},
    {"TE", SW_FIELD_TE},
    {"Trailer", SW_FIELD_TRAILER},
    {"Upgrade", SW_FIELD_UPGRADE},
    {"Host", SW_FIELD_HOST},
    {"Expect", SW_FIELD_EXPECT},
    {"Cookie", SW_FIELD_COOKIE},
    {"Set-Cookie", SW_FIELD_SET_COOKIE},
    {"Keep-Alive", SW_FIELD_KEEP_ALIVE},
    {"Proxy-Connection", SW_FIELD_PROXY_CONNECTION},
    {"Proxy-Authenticate", SW_FIELD_PROXY_AUTHENTICATE},
    {"Proxy-Authorization", SW_FIELD_PROXY_AUTHORIZATION},
    {"HTTP2-Settings", SW_FIELD_HTTP2_SETTINGS},
    {"Forwarded", SW_FIELD_FORWARDED},
    {"X-Forwarded-For", SW_FIELD_X_FORWARDED_FOR},
    {"X-Forwarded-Proto", SW_FIELD_X_FORWARDED_PROTO},
    {"X-Forwarded-Host", SW_FIELD_X_FORWARDED_HOST},
    {"X-Forwarded-Port", SW_FIELD_X_FORWARDED_PORT},
    {"Via", SW_FIELD_VIA},
    {"Date", SW_FIELD_DATE},
    {"Server", SW_FIELD_SERVER},
    {"Cache-Control", SW_FIELD_CACHE_CONTROL},
    {"Origin", SW_FIELD_ORIGIN},
    {"Sec-Fetch-Site", SW_FIELD_SEC_FETCH_SITE},
    {"Authorization", SW_FIELD_AUTHORIZATION},
    {"Idempotency-Key", SW_FIELD_IDEMPOTENCY_KEY},
    {"Location", SW_FIELD_LOCATION},
    {"Stateway-Set", SW_FIELD_STATEWAY},
};

static void ids(void **state)
{
    struct guard g = guard_new(4096);
    bool seen[SW_FIELD_COUNT] = {[SW_FIELD_OTHER] = true};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(names); i++) {
        char text[64];
        size_t len = strlen(names[i].name);

        for (unsigned style = 0; style < 3; style++) {
            for (size_t k = 0; k < len; k++) {
                char c = names[i].name[k];
                bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';

                text[k] = (char)(!letter || style == 0 ? c : style == 1 ? c | 0x20 : c & ~0x20);
            }
            assert_int_equal(sw_http__field_id(guard_put(&g, sw_slice_of(text, len))),
                             names[i].id);
        }
        /* One byte changed is another name. */
        for (size_t k = 0; k < SW_MIN(len, 9); k++) {
            char kept = text[k];

            text[k] = '!';
            assert_int_equal(sw_http__field_id(sw_slice_of(text, len)), SW_FIELD_OTHER);
            text[k] = kept;
        }
        seen[names[i].id] = true;
    }
    for (size_t i = 0; i < SW_FIELD_COUNT; i++) {
        assert_true(seen[i]);
    }
    assert_int_equal(sw_http__field_id(SW_S("stateway_x")), SW_FIELD_STATEWAY);
    assert_int_equal(sw_http__field_id(SW_S("Stateway-")), SW_FIELD_STATEWAY);
    assert_int_equal(sw_http__field_id(SW_S("Stateway")), SW_FIELD_OTHER);
    assert_int_equal(sw_http__field_id(SW_S("x_forwarded_for")), SW_FIELD_OTHER);
    assert_int_equal(sw_http__field_id_folded(SW_S("x_Forwarded-for")), SW_FIELD_X_FORWARDED_FOR);
    assert_int_equal(
        sw_http__field_id_folded(SW_S("stateway_a_very_long_name_that_does_not_fold")),
        SW_FIELD_STATEWAY);
    assert_true(sw_http__is_x_forwarded(SW_S("X_forwarded-Anything")));
    assert_false(sw_http__is_x_forwarded(SW_S("X-Forwarded")));
    guard_free(&g);
}

static void value_ends(void **state)
{
    struct guard g = guard_new(4096);
    char text[80];

    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool fine = byte == '\t' || (byte >= 0x20 && byte != 0x7f);

        for (size_t len = 1; len <= sizeof(text); len += 7) {
            for (size_t at = 0; at < len; at++) {
                struct sw_slice s;

                memset(text, 'a', len);
                text[at] = (char)byte;
                s = guard_put(&g, sw_slice_of(text, len));
                assert_int_equal(sw_http__value_end(s.ptr, s.ptr + s.len) - s.ptr,
                                 fine ? len : at);
            }
        }
    }
    guard_free(&g);
}

static void lists(void **state)
{
    struct sw_field fields[] = {
        {SW_S("Connection"), SW_S(" , a,,\t b ,"), SW_FIELD_CONNECTION},
        {SW_S("X"), SW_S("no"), SW_FIELD_OTHER},
        {SW_S("connection"), SW_S("Close, \"x, y\""), SW_FIELD_CONNECTION},
    };
    struct sw_head h = {.fields = fields, .field_count = SW_COUNTOF(fields)};

    (void)state;
    assert_true(sw_head_lists(&h, SW_FIELD_CONNECTION, SW_S("A")));
    assert_true(sw_head_lists(&h, SW_FIELD_CONNECTION, SW_S("b")));
    assert_true(sw_head_lists(&h, SW_FIELD_CONNECTION, SW_S("close")));
    assert_true(sw_head_lists(&h, SW_FIELD_CONNECTION, SW_S("y\"")));
    assert_false(sw_head_lists(&h, SW_FIELD_CONNECTION, SW_S("no")));
    assert_false(sw_head_lists(&h, SW_FIELD_CONNECTION, SW_S("")));
    assert_ptr_equal(sw_head_find(&h, SW_FIELD_CONNECTION), &fields[0]);
    assert_null(sw_head_find(&h, SW_FIELD_HOST));
    assert_ptr_equal(sw_head_find_name(&h, SW_S("x")), &fields[1]);
    assert_null(sw_head_find_name(&h, SW_S("y")));
}

static void methods(void **state)
{
    (void)state;
    assert_true(sw_method_safe(SW_METHOD_GET, SW_S("GET")));
    assert_false(sw_method_safe(SW_METHOD_POST, SW_S("POST")));
    assert_false(sw_method_safe(SW_METHOD_PUT, SW_S("PUT")));
    assert_true(sw_method_safe(SW_METHOD_OTHER, SW_S("PROPFIND")));
    assert_false(sw_method_safe(SW_METHOD_OTHER, SW_S("propfind")));
    assert_true(sw_method_idempotent(SW_METHOD_DELETE, SW_S("DELETE")));
    assert_true(sw_method_idempotent(SW_METHOD_HEAD, SW_S("HEAD")));
    assert_false(sw_method_idempotent(SW_METHOD_PATCH, SW_S("PATCH")));
}

static void dates(void **state)
{
    static const int64_t times[] = {0, -1, 784111777, 951782400, 951868799, 4107542399,
                                    1709164800, 253402300799, -62167219200};
    char out[29], expected[64];

    (void)state;
    for (size_t i = 0; i < 20000; i++) {
        int64_t t = i < SW_COUNTOF(times) ? times[i] : (int64_t)i * 86399 * 7;
        struct tm tm;
        time_t when = (time_t)t;

        sw_http_date(out, t);
        assert_non_null(gmtime_r(&when, &tm));
        assert_true(strftime(expected, sizeof(expected), "%a, %d %b ", &tm) > 0);
        assert_memory_equal(out, expected, 12);
        (void)snprintf(expected, sizeof(expected), "%04d %02d:%02d:%02d GMT", tm.tm_year + 1900,
                       tm.tm_hour, tm.tm_min, tm.tm_sec);
        assert_memory_equal(out + 12, expected, 17);
    }
    sw_http_date(out, 784111777);
    assert_memory_equal(out, "Sun, 06 Nov 1994 08:49:37 GMT", 29);
    sw_http_date(out, INT64_MAX);
    assert_memory_equal(out, "Fri, 31 Dec 9999 23:59:59 GMT", 29);
    sw_http_date(out, INT64_MIN);
}

static void reasons(void **state)
{
    (void)state;
    assert_slice(sw_http_reason(404), SW_S("Not Found"));
    assert_slice(sw_http_reason(299), SW_S(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids),     cmocka_unit_test(value_ends), cmocka_unit_test(lists),
        cmocka_unit_test(methods), cmocka_unit_test(dates),      cmocka_unit_test(reasons),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
