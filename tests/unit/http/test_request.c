/* Request heads: what is accepted, and each refusal with its cause. */
#include "test_http.h"

#define H "Host: a.example\r\n"
#define GET(fields) "GET / HTTP/1.1\r\n" H fields "\r\n"
#define TARGET(t) "GET " t " HTTP/1.1\r\n" H "\r\n"
#define A10 "aaaaaaaaaa"
#define A50 A10 A10 A10 A10 A10
#define A250 A50 A50 A50 A50 A50

static const struct row {
    const char *name;
    struct sw_slice in;
    enum sw_err err; /* SW_E_COUNT: not complete */
    const char *path, *query, *host; /* of accepted ones; NULL: not looked at */
    enum sw_framing framing;
    uint64_t length;
} rows[] = {
    /* accepted */
    {"plain", SW_S(GET("")), SW_OK, "/", NULL, "a.example", 0, 0},
    {"empty line before", SW_S("\r\n" GET("")), SW_OK, "/", NULL, "a.example", 0, 0},
    {"1.0 without Host", SW_S("GET / HTTP/1.0\r\n\r\n"), SW_OK, "/", NULL, "", 0, 0},
    {"query", SW_S(TARGET("/a/b?c=d|[]{}^\"?x")), SW_OK, "/a/b", "c=d|[]{}^\"?x", NULL, 0, 0},
    {"empty query", SW_S(TARGET("/a?")), SW_OK, "/a", "", NULL, 0, 0},
    {"backslash in query", SW_S(TARGET("/a?\\..\\")), SW_OK, "/a", "\\..\\", NULL, 0, 0},
    {"escape", SW_S(TARGET("/a%20b%2Fc")), SW_OK, "/a%20b%2Fc", NULL, NULL, 0, 0},
    {"dots that are names", SW_S(TARGET("/.a/..b/.../a./a..")), SW_OK, NULL, NULL, NULL, 0, 0},
    {"options", SW_S("OPTIONS * HTTP/1.1\r\n" H "\r\n"), SW_OK, "*", NULL, NULL, 0, 0},
    {"absolute", SW_S(TARGET("http://a.example/x?y")), SW_OK, "/x", "y", "a.example", 0, 0},
    {"absolute, no path", SW_S(TARGET("http://a.example")), SW_OK, "/", NULL, "a.example", 0, 0},
    {"absolute, query only", SW_S(TARGET("http://a.example?y")), SW_OK, "/", "y", NULL, 0, 0},
    {"absolute, case and port", SW_S(TARGET("HTTP://A.Example:80/")), SW_OK, "/", NULL,
     "A.Example:80", 0, 0},
    {"absolute options", SW_S("OPTIONS http://a.example HTTP/1.1\r\n" H "\r\n"), SW_OK, "*", NULL,
     NULL, 0, 0},
    {"absolute 1.0", SW_S("GET http://b/ HTTP/1.0\r\n\r\n"), SW_OK, "/", NULL, "b", 0, 0},
    {"host with port", SW_S("GET / HTTP/1.1\r\nHost: a:8080\r\n\r\n"), SW_OK, NULL, NULL, "a:8080",
     0, 0},
    {"host v6", SW_S("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), SW_OK, NULL, NULL, "[::1]:80", 0,
     0},
    {"value blanks", SW_S("GET / HTTP/1.1\r\nHost:\t a \t \r\nX:\r\nY: \r\n\r\n"), SW_OK, NULL,
     NULL, "a", 0, 0},
    {"value obs-text", SW_S(GET("X: \x80\xff\ta\r\n")), SW_OK, NULL, NULL, NULL, 0, 0},
    {"long value", SW_S(GET("X: " A250 "\r\n")), SW_OK, NULL, NULL, NULL, 0, 0},
    {"length", SW_S(GET("Content-Length: 12\r\n")), SW_OK, NULL, NULL, NULL, SW_FRAMING_LENGTH, 12},
    {"length 0", SW_S(GET("content-length:0\r\n")), SW_OK, NULL, NULL, NULL, SW_FRAMING_LENGTH, 0},
    {"chunked", SW_S(GET("Transfer-Encoding: Chunked\r\n")), SW_OK, NULL, NULL, NULL,
     SW_FRAMING_CHUNKED, 0},
    {"underscore", SW_S(GET("my_field: 1\r\n")), SW_OK, NULL, NULL, NULL, 0, 0},
    {"underscore, ours", SW_S(GET("x_forwarded_for: 1\r\n")), SW_OK, NULL, NULL, NULL, 0, 0},
    {"method of 32", SW_S("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1\r\n" H "\r\n"), SW_OK, "/",
     NULL, NULL, 0, 0},
    {"15 fields", SW_S(GET("1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n7:\r\n8:\r\n9:\r\na:\r\nb:\r\n"
                           "c:\r\nd:\r\ne:\r\nf:\r\n")), SW_OK, NULL, NULL, NULL, 0, 0},

    /* incomplete */
    {"nothing", SW_S(""), SW_E_COUNT, NULL, NULL, NULL, 0, 0},
    {"no empty line", SW_S("GET / HTTP/1.1\r\n" H), SW_E_COUNT, NULL, NULL, NULL, 0, 0},
    {"half an empty line", SW_S("GET / HTTP/1.1\r\n" H "\r"), SW_E_COUNT, NULL, NULL, NULL, 0, 0},

    /* request line */
    {"two empty lines", SW_S("\r\n\r\n" GET("")), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"LF before", SW_S("\n" GET("")), SW_E_BARE_LF, NULL, NULL, NULL, 0, 0},
    {"CR before", SW_S("\rGET"), SW_E_BARE_LF, NULL, NULL, NULL, 0, 0},
    {"blank before", SW_S(" GET / HTTP/1.1\r\n"), SW_E_METHOD, NULL, NULL, NULL, 0, 0},
    {"TLS hello", SW_S("\x16\x03\x01"), SW_E_METHOD, NULL, NULL, NULL, 0, 0},
    {"method of 33", SW_S("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG"), SW_E_METHOD, NULL, NULL, NULL, 0,
     0},
    {"method no token", SW_S("GE(T / HTTP/1.1\r\n"), SW_E_METHOD, NULL, NULL, NULL, 0, 0},
    {"method only", SW_S("GET\r\n"), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"0.9", SW_S("GET /\r\n"), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"two blanks", SW_S("GET  / HTTP/1.1\r\n"), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"two blanks 2", SW_S("GET /  HTTP/1.1\r\n"), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"tab", SW_S("GET\t/ HTTP/1.1\r\n"), SW_E_METHOD, NULL, NULL, NULL, 0, 0},
    {"tab 2", SW_S("GET /\tHTTP/1.1\r\n"), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"line ends in LF", SW_S("GET / HTTP/1.1\n"), SW_E_BARE_LF, NULL, NULL, NULL, 0, 0},
    {"line ends in CR", SW_S("GET / HTTP/1.1\rH"), SW_E_BARE_LF, NULL, NULL, NULL, 0, 0},
    {"blank behind", SW_S("GET / HTTP/1.1 \r\n"), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"2.0", SW_S("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), SW_E_VERSION, NULL, NULL, NULL, 0, 0},
    {"1.2", SW_S("GET / HTTP/1.2\r\n"), SW_E_VERSION, NULL, NULL, NULL, 0, 0},
    {"0.9 named", SW_S("GET / HTTP/0.9\r\n"), SW_E_VERSION, NULL, NULL, NULL, 0, 0},
    {"2", SW_S("GET / HTTP/2\r\n"), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"1.10", SW_S("GET / HTTP/1.10\r\n"), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"lower case", SW_S("GET / http/1.1\r\n"), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"no version", SW_S("GET / FTP/1.1\r\n"), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},

    /* target */
    {"no slash", SW_S(TARGET("a")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"authority", SW_S(TARGET("a.example:80")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"connect", SW_S("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), SW_E_METHOD_REFUSED, NULL,
     NULL, NULL, 0, 0},
    {"get", SW_S("get / HTTP/1.1\r\n" H "\r\n"), SW_E_METHOD_REFUSED, NULL, NULL, NULL, 0, 0},
    {"Connect", SW_S("Connect a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), SW_E_METHOD_REFUSED, NULL,
     NULL, NULL, 0, 0},
    {"star with GET", SW_S(TARGET("*")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"star and more", SW_S("OPTIONS */ HTTP/1.1\r\n" H "\r\n"), SW_E_TARGET, NULL, NULL, NULL, 0,
     0},
    {"fragment", SW_S(TARGET("/a#b")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"fragment in query", SW_S(TARGET("/a?b#c")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"high byte", SW_S(TARGET("/\xc3\xa9")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"control", SW_S(TARGET("/\x01")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"DEL", SW_S(TARGET("/\x7f")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"NUL", SW_S(TARGET("/\0")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"escape cut", SW_S(TARGET("/%2")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"escape no hex", SW_S(TARGET("/%zz")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"escaped NUL", SW_S(TARGET("/a%00")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"escaped control", SW_S(TARGET("/a%0d%0ab")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"escaped LF alone", SW_S(TARGET("/%0a")), SW_OK, NULL, NULL, NULL, 0, 0},
    {"escaped DEL", SW_S(TARGET("/%7f")), SW_OK, NULL, NULL, NULL, 0, 0},
    {"escaped CR LF cut", SW_S(TARGET("/%0d%0")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"backslash", SW_S(TARGET("/a\\b")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dot", SW_S(TARGET("/./a")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dot at the end", SW_S(TARGET("/a/.")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dots", SW_S(TARGET("/a/../b")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dots before query", SW_S(TARGET("/a/..?b")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dots escaped", SW_S(TARGET("/a/%2e%2E/b")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dots mixed", SW_S(TARGET("/a/.%2e")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dots mixed 2", SW_S(TARGET("/a/%2e.")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dot escaped", SW_S(TARGET("/%2e")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dots, escaped slash", SW_S(TARGET("/..%2fb")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dots, escaped slash before", SW_S(TARGET("/a%2f..")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dots, escaped backslash", SW_S(TARGET("/a%5c..%5cb")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"dots, parameter", SW_S(TARGET("/a/..;x/b")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"userinfo", SW_S(TARGET("http://u@a.example/")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"scheme", SW_S(TARGET("ftp://a.example/")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"absolute, empty", SW_S(TARGET("http:///x")), SW_E_TARGET, NULL, NULL, NULL, 0, 0},
    {"absolute, other host", SW_S(TARGET("http://b.example/")), SW_E_HOST, NULL, NULL, NULL, 0, 0},
    {"absolute, other port", SW_S(TARGET("http://a.example:81/")), SW_E_HOST, NULL, NULL, NULL, 0,
     0},
    {"absolute, no Host", SW_S("GET http://b/ HTTP/1.1\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0,
     0},
    {"target long", SW_S("GET /" A50 A50 A50), SW_E_TARGET_LONG, NULL, NULL, NULL, 0, 0},

    /* Host */
    {"no Host", SW_S("GET / HTTP/1.1\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0, 0},
    {"two Hosts", SW_S(GET("Host: a.example\r\n")), SW_E_HOST, NULL, NULL, NULL, 0, 0},
    {"empty Host", SW_S("GET / HTTP/1.1\r\nHost:\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0, 0},
    {"Host userinfo", SW_S("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0,
     0},
    {"Host path", SW_S("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0, 0},
    {"Host blank", SW_S("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0, 0},
    {"Host list", SW_S("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0, 0},
    {"Host port", SW_S("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0, 0},
    {"Host no port", SW_S("GET / HTTP/1.1\r\nHost: a:\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0, 0},
    {"Host big port", SW_S("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL,
     0, 0},
    {"Host v6", SW_S("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0, 0},
    {"Host v6 zone", SW_S("GET / HTTP/1.1\r\nHost: [fe80::1%25a]\r\n\r\n"), SW_E_HOST, NULL, NULL,
     NULL, 0, 0},
    {"Host v6 bare", SW_S("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"), SW_E_HOST, NULL, NULL, NULL, 0,
     0},

    /* fields */
    {"blank before colon", SW_S(GET("X : 1\r\n")), SW_E_FIELD_NAME, NULL, NULL, NULL, 0, 0},
    {"no colon", SW_S(GET("X\r\n")), SW_E_HEAD_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"no name", SW_S(GET(": 1\r\n")), SW_E_FIELD_NAME, NULL, NULL, NULL, 0, 0},
    {"name no token", SW_S(GET("X(: 1\r\n")), SW_E_FIELD_NAME, NULL, NULL, NULL, 0, 0},
    {"name high byte", SW_S(GET("X\x80: 1\r\n")), SW_E_FIELD_NAME, NULL, NULL, NULL, 0, 0},
    {"fold", SW_S(GET("X: 1\r\n 2\r\n")), SW_E_OBS_FOLD, NULL, NULL, NULL, 0, 0},
    {"fold, tab", SW_S(GET("X: 1\r\n\t2\r\n")), SW_E_OBS_FOLD, NULL, NULL, NULL, 0, 0},
    {"blank first field", SW_S("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), SW_E_OBS_FOLD, NULL, NULL,
     NULL, 0, 0},
    {"LF in value", SW_S(GET("X: 1\nY: 2\r\n")), SW_E_BARE_LF, NULL, NULL, NULL, 0, 0},
    {"CR in value", SW_S(GET("X: 1\r2\r\n")), SW_E_BARE_LF, NULL, NULL, NULL, 0, 0},
    {"CR CR LF", SW_S(GET("X: 1\r\r\n")), SW_E_BARE_LF, NULL, NULL, NULL, 0, 0},
    {"NUL in value", SW_S(GET("X: a\0b\r\n")), SW_E_FIELD_VALUE, NULL, NULL, NULL, 0, 0},
    {"DEL in value", SW_S(GET("X: " A50 "\x7f\r\n")), SW_E_FIELD_VALUE, NULL, NULL, NULL, 0, 0},
    {"control in value", SW_S(GET("X: " A50 "\x0b\r\n")), SW_E_FIELD_VALUE, NULL, NULL, NULL, 0, 0},
    {"end by LF", SW_S("GET / HTTP/1.1\r\n" H "\n"), SW_E_BARE_LF, NULL, NULL, NULL, 0, 0},
    {"end by CR", SW_S("GET / HTTP/1.1\r\n" H "\rX"), SW_E_BARE_LF, NULL, NULL, NULL, 0, 0},
    {"17 fields", SW_S(GET("1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n7:\r\n8:\r\n9:\r\na:\r\nb:\r\n"
                           "c:\r\nd:\r\ne:\r\nf:\r\ng:\r\n")), SW_E_FIELDS_MANY, NULL, NULL, NULL,
     0, 0},
    {"large", SW_S(GET("X: " A250 A250 A250 A250)), SW_E_FIELDS_LARGE, NULL, NULL, NULL, 0, 0},
    {"large, but a bare LF first", SW_S(GET("X: 1\nY: " A250 A250 A250 A250)), SW_E_BARE_LF, NULL,
     NULL, NULL, 0, 0},

    /* framing */
    {"length sign", SW_S(GET("Content-Length: +1\r\n")), SW_E_LENGTH, NULL, NULL, NULL, 0, 0},
    {"length empty", SW_S(GET("Content-Length:\r\n")), SW_E_LENGTH, NULL, NULL, NULL, 0, 0},
    {"length zero first", SW_S(GET("Content-Length: 01\r\n")), SW_E_LENGTH, NULL, NULL, NULL, 0, 0},
    {"length zeros", SW_S(GET("Content-Length: 00\r\n")), SW_E_LENGTH, NULL, NULL, NULL, 0, 0},
    {"length, two SP", SW_S(GET("Content-Length:  1\r\n")), SW_E_LENGTH, NULL, NULL, NULL, 0, 0},
    {"length, TAB", SW_S(GET("Content-Length:\t1\r\n")), SW_E_LENGTH, NULL, NULL, NULL, 0, 0},
    {"length, SP behind", SW_S(GET("Content-Length: 1 \r\n")), SW_OK, NULL, NULL, NULL,
     SW_FRAMING_LENGTH, 1},
    {"length hex", SW_S(GET("Content-Length: 0x1\r\n")), SW_E_LENGTH, NULL, NULL, NULL, 0, 0},
    {"length list", SW_S(GET("Content-Length: 1, 1\r\n")), SW_E_LENGTH, NULL, NULL, NULL, 0, 0},
    {"length twice", SW_S(GET("Content-Length: 1\r\nContent-Length: 1\r\n")), SW_E_LENGTH, NULL,
     NULL, NULL, 0, 0},
    {"length huge", SW_S(GET("Content-Length: 9223372036854775808\r\n")), SW_E_LENGTH, NULL, NULL,
     NULL, 0, 0},
    {"both", SW_S(GET("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")), SW_E_FRAMING, NULL,
     NULL, NULL, 0, 0},
    {"chunked in 1.0", SW_S("POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n"),
     SW_E_FRAMING, NULL, NULL, NULL, 0, 0},
    {"gzip", SW_S(GET("Transfer-Encoding: gzip\r\n")), SW_E_CODING, NULL, NULL, NULL, 0, 0},
    {"gzip, chunked", SW_S(GET("Transfer-Encoding: gzip, chunked\r\n")), SW_E_CODING, NULL, NULL,
     NULL, 0, 0},
    {"identity", SW_S(GET("Transfer-Encoding: identity\r\n")), SW_E_CODING, NULL, NULL, NULL, 0, 0},
    {"xchunked", SW_S(GET("Transfer-Encoding: xchunked\r\n")), SW_E_CODING, NULL, NULL, NULL, 0, 0},
    {"chunked, gzip", SW_S(GET("Transfer-Encoding: chunked, gzip\r\n")), SW_E_CODING_SYNTAX, NULL,
     NULL, NULL, 0, 0},
    {"chunked, chunked", SW_S(GET("Transfer-Encoding: chunked, chunked\r\n")), SW_E_CODING_SYNTAX,
     NULL, NULL, NULL, 0, 0},
    {"chunked,", SW_S(GET("Transfer-Encoding: chunked,\r\n")), SW_E_CODING_SYNTAX, NULL, NULL, NULL,
     0, 0},
    {",chunked", SW_S(GET("Transfer-Encoding: , chunked\r\n")), SW_E_CODING_SYNTAX, NULL, NULL,
     NULL, 0, 0},
    {"chunked;a=b", SW_S(GET("Transfer-Encoding: chunked;a=b\r\n")), SW_E_CODING_SYNTAX, NULL, NULL,
     NULL, 0, 0},
    {"\"chunked\"", SW_S(GET("Transfer-Encoding: \"chunked\"\r\n")), SW_E_CODING_SYNTAX, NULL, NULL,
     NULL, 0, 0},
    {"no coding", SW_S(GET("Transfer-Encoding:\r\n")), SW_E_CODING_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"coding twice", SW_S(GET("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
     SW_E_CODING_SYNTAX, NULL, NULL, NULL, 0, 0},
    {"content_length", SW_S(GET("Content_Length: 1\r\n")), SW_E_FIELD_NAME, NULL, NULL, NULL, 0, 0},
    {"transfer_encoding", SW_S(GET("transfer_encoding: chunked\r\n")), SW_E_FIELD_NAME, NULL, NULL,
     NULL, 0, 0},
    {"transfer-encoding_", SW_S(GET("Transfer-Encoding_: chunked\r\n")), SW_E_FIELD_NAME, NULL,
     NULL, NULL, 0, 0},
    {"transfer--encoding", SW_S(GET("Transfer--Encoding: chunked\r\n")), SW_E_FIELD_NAME, NULL,
     NULL, NULL, 0, 0},
    {"!contentlength", SW_S(GET("!ContentLength: 1\r\n")), SW_E_FIELD_NAME, NULL, NULL, NULL, 0, 0},
    {"x_host", SW_S(GET("h_ost: a\r\nHost-: 1\r\nx-transfer-encoding: 1\r\n")), SW_OK, NULL, NULL,
     NULL, 0, 0},
    {"expect", SW_S(GET("Expect: 200-ok\r\n")), SW_E_EXPECT, NULL, NULL, NULL, 0, 0},
};

static void check(const struct row *row, size_t cut, bool drip, struct sw_parsed step,
                  const struct sw_head *h)
{
    if (row->err == SW_E_COUNT ? step.step != SW_STEP_MORE
                               : row->err != SW_OK ? step.step != SW_STEP_FAIL
                                                   : step.step != SW_STEP_DONE) {
        fail_msg("%s, cut at %zu%s: step %d, %s", row->name, cut, drip ? ", dripping" : "",
                 (int)step.step, sw_err_name(step.err));
    }
    if (row->err == SW_E_COUNT) {
        return;
    }
    if (step.err != row->err) {
        fail_msg("%s, cut at %zu: %s", row->name, cut, sw_err_name(step.err));
    }
    if (row->err != SW_OK) {
        return;
    }
    assert_int_equal(step.consumed, row->in.len);
    assert_int_equal(h->framing, row->framing);
    assert_int_equal(h->length, row->length);
    if (row->path != NULL) {
        assert_slice(h->path, sw_slice_cstr(row->path));
        assert_slice(h->query, sw_slice_cstr(row->query));
        assert_int_equal(h->query.ptr != NULL, row->query != NULL);
    }
    if (row->host != NULL) {
        assert_slice(h->host, sw_slice_cstr(row->host));
    }
}

static void request_rows(void **state)
{
    struct guard g = guard_new(4096);
    struct sw_field fields[FIELDS_MAX];
    struct sw_head h;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        for (size_t cut = 0; cut <= rows[i].in.len; cut++) {
            check(&rows[i], cut, false,
                  test_parse(&g, rows[i].in, cut, false, false, 0, &h, fields), &h);
        }
        check(&rows[i], 0, true, test_parse(&g, rows[i].in, 0, true, false, 0, &h, fields), &h);
    }
    guard_free(&g);
}

/* Errors are told with the first byte that makes them certain. */
static void early(void **state)
{
    static const struct {
        struct sw_slice in;
        enum sw_err err;
    } early_rows[] = {
        {SW_S("\x16"), SW_E_METHOD},
        {SW_S("\n"), SW_E_BARE_LF},
        {SW_S("GET / HTTP/2.0"), SW_E_VERSION},
        {SW_S("GET / X"), SW_E_HEAD_SYNTAX},
        {SW_S("GET / HTTP/1.1\r\nA: b\n"), SW_E_BARE_LF},
        {SW_S("GET / HTTP/1.1\r\nA: b\r\n "), SW_E_OBS_FOLD},
        {SW_S("GET / HTTP/1.1\r\nA "), SW_E_FIELD_NAME},
        {SW_S("GET / HTTP/1.1\r\nA: b\x01"), SW_E_FIELD_VALUE},
        /* Behind the bytes that are always looked at; found by fuzzing. */
        {SW_S("GET / HTTP/1.1\r\nA: " A250 "\r\nB/"), SW_E_FIELD_NAME},
        {SW_S("GET / HTTP/1.1\r\nA: " A250 "\r\n" A50 "/"), SW_E_FIELD_NAME},
        {SW_S("GET / HTTP/1.1\r\nA: " A250 "\x7f"), SW_E_FIELD_VALUE},
    };
    struct guard g = guard_new(4096);
    struct sw_field fields[FIELDS_MAX];
    struct sw_head h;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(early_rows); i++) {
        struct sw_slice in = early_rows[i].in;
        struct sw_parsed step = test_parse(&g, in, in.len, false, false, 0, &h, fields);

        assert_int_equal(step.step, SW_STEP_FAIL);
        assert_string_equal(sw_err_name(step.err), sw_err_name(early_rows[i].err));
        step = test_parse(&g, sw_slice_head(in, in.len - 1), 0, true, false, 0, &h, fields);
        assert_int_equal(step.step, SW_STEP_MORE);
    }
    guard_free(&g);
}

static void request_flags(void **state)
{
    static const struct {
        struct sw_slice in;
        bool keep_alive, expect, te;
        const char *upgrade;
    } flag_rows[] = {
        {SW_S(GET("")), true, false, false, ""},
        {SW_S(GET("Connection: a, CLOSE\r\n")), false, false, false, ""},
        {SW_S(GET("Connection: a\r\nConnection: close, keep-alive\r\n")), false, false, false, ""},
        {SW_S("GET / HTTP/1.0\r\n\r\n"), false, false, false, ""},
        {SW_S("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), true, false, false, ""},
        {SW_S("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), false, false, false,
         ""},
        {SW_S(GET("Connection: Upgrade\r\nUpgrade: websocket\r\n")), true, false, false,
         "websocket"},
        {SW_S(GET("Upgrade: websocket\r\n")), true, false, false, ""},
        {SW_S(GET("Connection: Upgrade\r\nUpgrade: web socket\r\n")), true, false, false, ""},
        {SW_S(GET("Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n")), true, false, false, ""},
        {SW_S(GET("Expect: 100-Continue\r\nContent-Length: 1\r\n")), true, true, false, ""},
        {SW_S(GET("Expect: 100-continue\r\n")), true, false, false, ""},
        {SW_S(GET("TE: gzip;q=0.5, trailers\r\n")), true, false, true, ""},
    };
    struct guard g = guard_new(4096);
    struct sw_field fields[FIELDS_MAX];
    struct sw_head h;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(flag_rows); i++) {
        struct sw_parsed step =
            test_parse(&g, flag_rows[i].in, 0, false, false, 0, &h, fields);

        assert_int_equal(step.step, SW_STEP_DONE);
        assert_int_equal(h.keep_alive, flag_rows[i].keep_alive);
        assert_int_equal(h.expect_continue, flag_rows[i].expect);
        assert_int_equal(h.te_trailers, flag_rows[i].te);
        assert_slice(h.upgrade, sw_slice_cstr(flag_rows[i].upgrade));
    }
    guard_free(&g);
}

/* What follows the head is not the head's; and the limit counts the head only. */
static void pipelined(void **state)
{
    static const struct sw_slice in = SW_S(GET("") "GET /2 HTTP/1.1\r\n" A250 A250 A250 A250);
    struct guard g = guard_new(4096);
    struct sw_field fields[FIELDS_MAX];
    struct sw_head h;
    struct sw_parsed step = test_parse(&g, in, in.len, false, false, 0, &h, fields);

    (void)state;
    assert_int_equal(step.step, SW_STEP_DONE);
    assert_int_equal(step.consumed, sizeof(GET("")) - 1);
    guard_free(&g);
}

/* The limits' edges: a head of exactly the limit is taken. */
static void limits(void **state)
{
    char text[1100];
    struct guard g = guard_new(4096);
    struct sw_field fields[FIELDS_MAX];
    struct sw_head h;

    (void)state;
    for (size_t len = 1023; len <= 1025; len++) {
        struct sw_out out = sw_out_init(text, sizeof(text));
        struct sw_parsed step;

        sw_out_lit(&out, "GET / HTTP/1.1\r\n" H "X: ");
        while (out.len < len - 4) {
            sw_out_char(&out, 'x');
        }
        sw_out_lit(&out, "\r\n\r\n");
        step = test_parse(&g, sw_out_done(&out), 0, true, false, 0, &h, fields);
        assert_int_equal(step.err, len <= 1024 ? SW_OK : SW_E_FIELDS_LARGE);
    }
    for (size_t len = 127; len <= 129; len++) {
        struct sw_out out = sw_out_init(text, sizeof(text));
        struct sw_parsed step;

        sw_out_lit(&out, "GET /");
        while (out.len < len + 4) {
            sw_out_char(&out, 'x');
        }
        sw_out_lit(&out, " HTTP/1.1\r\n" H "\r\n");
        step = test_parse(&g, sw_out_done(&out), 0, true, false, 0, &h, fields);
        assert_int_equal(step.err, len <= 128 ? SW_OK : SW_E_TARGET_LONG);
    }
    guard_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_rows),  cmocka_unit_test(early), cmocka_unit_test(request_flags),
        cmocka_unit_test(pipelined),     cmocka_unit_test(limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
