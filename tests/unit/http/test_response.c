/* Response heads: an app may be old, but not ambiguous. */
#include "test_http.h"

#define OK(fields) "HTTP/1.1 200 OK\r\n" fields "\r\n"

static const struct row {
    const char *name;
    struct sw_slice in;
    enum sw_method method;
    enum sw_err err;
    unsigned status;
    const char *reason;
    enum sw_framing framing;
    uint64_t length;
    bool keep_alive;
} rows[] = {
    {"length", SW_S(OK("Content-Length: 3\r\n")), SW_METHOD_GET, SW_OK, 200, "OK",
     SW_FRAMING_LENGTH, 3, true},
    {"chunked", SW_S(OK("Transfer-Encoding: chunked\r\n")), SW_METHOD_GET, SW_OK, 200, "OK",
     SW_FRAMING_CHUNKED, 0, true},
    {"until close", SW_S(OK("")), SW_METHOD_GET, SW_OK, 200, "OK", SW_FRAMING_CLOSE, 0, false},
    {"1.0", SW_S("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n"), SW_METHOD_GET, SW_OK, 200, "OK",
     SW_FRAMING_LENGTH, 1, false},
    {"1.0 keep-alive",
     SW_S("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n"), SW_METHOD_GET,
     SW_OK, 200, "OK", SW_FRAMING_LENGTH, 1, true},
    {"head", SW_S(OK("Content-Length: 3\r\n")), SW_METHOD_HEAD, SW_OK, 200, "OK", SW_FRAMING_NONE,
     3, true},
    {"head, no length", SW_S(OK("")), SW_METHOD_HEAD, SW_OK, 200, "OK", SW_FRAMING_NONE, 0, true},
    {"100", SW_S("HTTP/1.1 100 Continue\r\n\r\n"), SW_METHOD_POST, SW_OK, 100, "Continue",
     SW_FRAMING_NONE, 0, true},
    {"204", SW_S("HTTP/1.1 204 No Content\r\n\r\n"), SW_METHOD_GET, SW_OK, 204, "No Content",
     SW_FRAMING_NONE, 0, true},
    {"304", SW_S("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"), SW_METHOD_GET, SW_OK,
     304, "Not Modified", SW_FRAMING_NONE, 9, true},
    {"empty reason", SW_S("HTTP/1.1 204 \r\n\r\n"), SW_METHOD_GET, SW_OK, 204, "", SW_FRAMING_NONE,
     0, true},
    {"no reason", SW_S("HTTP/1.1 204\r\n\r\n"), SW_METHOD_GET, SW_OK, 204, "", SW_FRAMING_NONE, 0,
     true},
    {"reason text", SW_S("HTTP/1.1 299 \xe9t\xe9 a\tb\r\nContent-Length: 0\r\n\r\n"), SW_METHOD_GET,
     SW_OK, 299, "\xe9t\xe9 a\tb", SW_FRAMING_LENGTH, 0, true},
    {"underscore", SW_S(OK("content_length: 1\r\nContent-Length: 0\r\n")), SW_METHOD_GET, SW_OK,
     200, "OK", SW_FRAMING_LENGTH, 0, true},

    {"two digits", SW_S("HTTP/1.1 20 OK\r\n\r\n"), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"four digits", SW_S("HTTP/1.1 2000 OK\r\n\r\n"), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"099", SW_S("HTTP/1.1 099 OK\r\n\r\n"), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"600", SW_S("HTTP/1.1 600 OK\r\n\r\n"), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"2.0", SW_S("HTTP/2.0 200 OK\r\n\r\n"), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"1.2", SW_S("HTTP/1.2 200 OK\r\n\r\n"), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"empty line before", SW_S("\r\n" OK("")), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"lower case", SW_S("http/1.1 200 OK\r\n\r\n"), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"bare LF", SW_S("HTTP/1.1 200 OK\n\n"), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"NUL in reason", SW_S("HTTP/1.1 200 O\0K\r\n\r\n"), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"fold", SW_S(OK("A: b\r\n c\r\n")), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"blank before colon", SW_S(OK("A : b\r\n")), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"two lengths", SW_S(OK("Content-Length: 1\r\nContent-Length: 1\r\n")), 0, SW_E_APP_HEAD, 0, "",
     0, 0, 0},
    {"both", SW_S(OK("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")), 0, SW_E_APP_HEAD, 0,
     "", 0, 0, 0},
    {"both for HEAD", SW_S(OK("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")),
     SW_METHOD_HEAD, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"gzip", SW_S(OK("Transfer-Encoding: gzip, chunked\r\n")), 0, SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"chunked in 1.0", SW_S("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), 0,
     SW_E_APP_HEAD, 0, "", 0, 0, 0},
    {"17 fields", SW_S(OK("1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n7:\r\n8:\r\n9:\r\na:\r\nb:\r\nc:\r\n"
                          "d:\r\ne:\r\nf:\r\ng:\r\nh:\r\n")), 0, SW_E_APP_HEAD_LARGE, 0, "", 0, 0,
     0},
};

static void response_rows(void **state)
{
    struct guard g = guard_new(4096);
    struct sw_field fields[FIELDS_MAX];
    struct sw_head h;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        const struct row *row = &rows[i];

        for (size_t cut = 0; cut <= row->in.len; cut++) {
            struct sw_parsed step =
                test_parse(&g, row->in, cut, cut % 2 == 1, true, row->method, &h, fields);

            if (step.step == SW_STEP_MORE || step.err != row->err) {
                fail_msg("%s, cut at %zu: %s", row->name, cut, sw_err_name(step.err));
            }
            if (row->err != SW_OK) {
                continue;
            }
            assert_int_equal(step.consumed, row->in.len);
            assert_int_equal(h.status, row->status);
            assert_slice(h.reason, sw_slice_cstr(row->reason));
            assert_int_equal(h.framing, row->framing);
            assert_int_equal(h.length, row->length);
            if (h.keep_alive != row->keep_alive) {
                fail_msg("%s: keep_alive", row->name);
            }
        }
    }
    guard_free(&g);
}

static void too_large(void **state)
{
    char text[1100];
    struct guard g = guard_new(4096);
    struct sw_field fields[FIELDS_MAX];
    struct sw_head h;
    struct sw_out out = sw_out_init(text, sizeof(text));

    (void)state;
    sw_out_lit(&out, "HTTP/1.1 200 OK\r\nX: ");
    while (out.len < sizeof(text)) {
        sw_out_char(&out, 'x');
    }
    assert_int_equal(test_parse(&g, sw_out_done(&out), 0, true, true, 0, &h, fields).err,
                     SW_E_APP_HEAD_LARGE);
    guard_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(response_rows),
        cmocka_unit_test(too_large),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
