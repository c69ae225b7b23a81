/* Composed heads: what goes in, what comes out, byte for byte. */
#include "test_http.h"

#define FWD(for_) "Forwarded: " for_ "\r\n"
/* What an untrusted peer 10.0.0.9 at host `h` adds. */
#define OURS(h)                                                                                    \
    "Via: 1.1 stateway\r\nForwarded: for=10.0.0.9;host=" h ";proto=https\r\n"                      \
    "X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: " h "\r\n"

static const struct sw_slice our_cookies[] = {{"sw", 2}, {"__Host-sw", 9}};

static const struct request_row {
    const char *name;
    const char *in;
    const char *out;
    const char *strip, *peer, *extra;
    bool trusted, upgrade;
} request_rows[] = {
    {"plain", "GET /a?b HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n",
     "GET /a?b HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n" OURS("h") "\r\n", .peer = NULL},
    {"host first", "GET / HTTP/1.1\r\nA: 1\r\nhost: h\r\nB:2\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\n" OURS("h") "\r\n", .peer = NULL},
    {"absolute", "GET http://H:80?q HTTP/1.1\r\nHost: h\r\n\r\n",
     "GET /?q HTTP/1.1\r\nHost: H:80\r\n"
     "Via: 1.1 stateway\r\nForwarded: for=10.0.0.9;host=\"H:80\";proto=https\r\n"
     "X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: H:80\r\n\r\n",
     .peer = NULL},
    {"options", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
     "OPTIONS * HTTP/1.1\r\nHost: h\r\n" OURS("h") "\r\n", .strip = "/cart"},
    {"1.0", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: \r\nVia: 1.0 stateway\r\nForwarded: for=10.0.0.9;proto=https\r\n"
     "X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: https\r\n\r\n", .peer = NULL},
    {"v6", "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 stateway\r\n"
     "Forwarded: for=\"[2001:db8::1]\";host=h;proto=https\r\nX-Forwarded-For: 2001:db8::1\r\n"
     "X-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n\r\n", .peer = "2001:db8::1"},
    {"strip", "GET /cart/x?y HTTP/1.1\r\nHost: h\r\n\r\n",
     "GET /x?y HTTP/1.1\r\nHost: h\r\n" OURS("h") "\r\n", .strip = "/cart"},
    {"strip all", "GET /cart?y HTTP/1.1\r\nHost: h\r\n\r\n",
     "GET /?y HTTP/1.1\r\nHost: h\r\n" OURS("h") "\r\n", .strip = "/cart"},
    {"strip, slash", "GET /cart/ HTTP/1.1\r\nHost: h\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\n" OURS("h") "\r\n", .strip = "/cart/"},
    {"strip, other segment", "GET /carts/x HTTP/1.1\r\nHost: h\r\n\r\n",
     "GET /carts/x HTTP/1.1\r\nHost: h\r\n" OURS("h") "\r\n", .strip = "/cart"},
    {"hop-by-hop",
     "GET / HTTP/1.1\r\nHost: h\r\nConnection: X-Hop, x-hop2, close\r\nX-Hop: 1\r\nX-HOP2: 1\r\n"
     "X-Hop3: 1\r\nKeep-Alive: 1\r\nProxy-Connection: a\r\nProxy-Authorization: a\r\n"
     "HTTP2-Settings: a\r\nUpgrade: a\r\nTrailer: a\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nX-Hop3: 1\r\n" OURS("h") "\r\n", .peer = NULL},
    {"names that stay",
     "GET / HTTP/1.1\r\nHost: h\r\nConnection: host, cookie, authorization, content-type, "
     "content-encoding, cache-control, via, x-forwarded-for, idempotency-key\r\nCookie: a=b\r\n"
     "Authorization: x\r\nContent-Type: t\r\nContent-Encoding: e\r\nCache-Control: c\r\n"
     "Via: v\r\nIdempotency-Key: k\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\nAuthorization: x\r\nContent-Type: t\r\n"
     "Content-Encoding: e\r\nCache-Control: c\r\nVia: v\r\nIdempotency-Key: k\r\n" OURS("h") "\r\n",
     .peer = NULL},
    {"ours are not the client's",
     "GET / HTTP/1.1\r\nHost: h\r\nStateway-Key: 1\r\nstateway_key: 1\r\nSTATEWAY-X: 1\r\n"
     "x_forwarded_for: 1\r\nX_Forwarded_Proto: 1\r\nforwarded_: 1\r\nvi_a: 1\r\nmy_name: 1\r\n"
     "X-Forwarded-Prefix: /a\r\nX-Forwarded-Port: 1\r\nForwarded: for=1\r\n"
     "X-Forwarded-For: 1\r\nX-Forwarded-Proto: 1\r\nX-Forwarded-Host: 1\r\n"
     "content_type: a\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nforwarded_: 1\r\nvi_a: 1\r\nmy_name: 1\r\n" OURS("h")
     "Stateway-Key: ours\r\n\r\n", .extra = "Stateway-Key: ours\r\n"},
    {"cookies",
     "GET / HTTP/1.1\r\nHost: h\r\nCookie: a=b; sw=1;c=d\r\nX: y\r\n"
     "cookie: __Host-sw=x ; ; e\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nCookie: a=b; c=d; e\r\nX: y\r\n" OURS("h") "\r\n",
     .peer = NULL},
    {"only our cookies", "GET / HTTP/1.1\r\nHost: h\r\nCookie: sw=1; sw=2\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\n" OURS("h") "\r\n", .peer = NULL},
    {"te", "GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nConnection: TE\r\nTE: trailers\r\n" OURS("h") "\r\n",
     .peer = NULL},
    {"upgrade", "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n"
     "Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: k\r\nConnection: Upgrade\r\n"
     "Upgrade: websocket\r\n" OURS("h") "\r\n", .upgrade = true},
    {"upgrade not asked", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\n" OURS("h") "\r\n", .upgrade = true},
    {"length", "POST / HTTP/1.1\r\nContent-Length: 7\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: h\r\n" OURS("h") "Content-Length: 7\r\n\r\n", .peer = NULL},
    {"chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\nHost: h\r\nTrailer: A\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: h\r\nTrailer: A\r\n" OURS("h") "Transfer-Encoding: chunked\r\n\r\n",
     .peer = NULL},

    {"trusted, says nothing", "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\n" OURS("h") "\r\n", .trusted = true},
    {"trusted, X-Forwarded",
     "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4, 2001:db8::2\r\n"
     "X-Forwarded-For: x\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: o\r\n"
     "X-Forwarded-Port: 80\r\nX-Forwarded-Prefix: /p\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Port: 80\r\nX-Forwarded-Prefix: /p\r\n"
     "Via: 1.1 stateway\r\nForwarded: for=1.2.3.4;host=o;proto=http, for=\"[2001:db8::2]\", "
     "for=unknown, for=10.0.0.9\r\nX-Forwarded-For: 1.2.3.4, 2001:db8::2, x, 10.0.0.9\r\n"
     "X-Forwarded-Proto: http\r\nX-Forwarded-Host: o\r\n\r\n", .trusted = true},
    {"trusted, Forwarded",
     "GET / HTTP/1.1\r\nHost: h\r\nForwarded: for=\"[2001:db8::2]:99\";Proto=http;host=\"o:1\", "
     "for=1.2.3.4:5\r\nForwarded: for=\"_x\"\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 stateway\r\n"
     "Forwarded: for=\"[2001:db8::2]:99\";Proto=http;host=\"o:1\", for=1.2.3.4:5, for=\"_x\", "
     "for=10.0.0.9\r\nX-Forwarded-For: 2001:db8::2, 1.2.3.4, 10.0.0.9\r\n"
     "X-Forwarded-Proto: http\r\nX-Forwarded-Host: o:1\r\n\r\n", .trusted = true},
    {"trusted, an open quote swallows nothing",
     "GET / HTTP/1.1\r\nHost: h\r\nForwarded: for=1.1.1.1, for=\"2.2.2.2, for=3.3.3.3\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 stateway\r\n"
     "Forwarded: for=1.1.1.1, for=unknown, for=10.0.0.9\r\n"
     "X-Forwarded-For: 1.1.1.1, 10.0.0.9\r\nX-Forwarded-Proto: https\r\n"
     "X-Forwarded-Host: h\r\n\r\n", .trusted = true},
};

static void requests(void **state)
{
    char buf[4096];

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(request_rows); i++) {
        const struct request_row *row = &request_rows[i];
        struct sw_field fields[32];
        struct sw_head h = {.fields = fields, .field_max = 32};
        struct sw_h1_limits limits = {4096, 1024};
        size_t scanned = 0;
        struct sw_parsed step =
            sw_h1_request(sw_slice_cstr(row->in), &scanned, &limits, &h);
        struct sw_forward_request f = {
            .head = &h,
            .strip = sw_slice_cstr(row->strip),
            .peer = row->peer != NULL ? sw_slice_cstr(row->peer) : SW_S("10.0.0.9"),
            .proto = SW_S("https"),
            .peer_trusted = row->trusted,
            .cookies_stripped = our_cookies,
            .cookies_stripped_count = SW_COUNTOF(our_cookies),
            .extra = sw_slice_cstr(row->extra),
            .framing = h.framing,
            .length = h.length,
            .keep_upgrade = row->upgrade,
        };
        struct sw_out out = sw_out_init(buf, sizeof(buf));

        if (step.step != SW_STEP_DONE) {
            fail_msg("%s: %s", row->name, sw_err_name(step.err));
        }
        assert_true(sw_forward_request_put(&out, &f));
        if (!sw_slice_eq(sw_out_done(&out), sw_slice_cstr(row->out))) {
            fail_msg("%s:\n%.*s\nis not\n%s", row->name, SW_SARG(sw_out_done(&out)), row->out);
        }
        /* Too little room anywhere is told, and nothing is written behind it. */
        for (size_t cap = 0, full = out.len; cap < full; cap++) {
            out = sw_out_init(buf, cap);
            assert_false(sw_forward_request_put(&out, &f));
            assert_true(out.len <= cap);
        }
    }
}

#define DATE "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
#define VIA  "Via: 1.1 stateway\r\n"

static const struct response_row {
    const char *name;
    const char *in, *out;
    enum sw_method method;
    struct sw_forward_response f; /* framing and length: from the head unless recoded */
    bool recoded;
} response_rows[] = {
    {"plain", "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nA: b\r\n\r\n",
     "HTTP/1.1 200 Fine\r\nA: b\r\n" VIA DATE "Content-Length: 3\r\n\r\n", 0,
     {.keep_alive = true, .client_minor = 1}, false},
    {"date stays, reason is ours, 1.0", "HTTP/1.0 404\r\nDate: x\r\nContent-Length: 0\r\n\r\n",
     "HTTP/1.1 404 Not Found\r\nDate: x\r\nVia: 1.0 stateway\r\nContent-Length: 0\r\n\r\n", 0,
     {.keep_alive = true, .client_minor = 1}, false},
    {"hop-by-hop and ours",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x, content-type, close\r\n"
     "X: 1\r\nContent-Type: t\r\nKeep-Alive: a\r\nStateway-Set: {}\r\nstateway_set: {}\r\n"
     "Proxy-Authenticate: a\r\nUpgrade: h2c\r\nTrailer: T\r\nSet-Cookie: a=b\r\n\r\n",
     "HTTP/1.1 200 OK\r\nContent-Type: t\r\nTrailer: T\r\nSet-Cookie: a=b\r\n" VIA DATE
     "Set-Cookie: sw=1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", 0,
     {.keep_alive = false, .client_minor = 1, .extra = {"Set-Cookie: sw=1\r\n", 18}}, false},
    {"until close", "HTTP/1.1 200 OK\r\n\r\n",
     "HTTP/1.1 200 OK\r\n" VIA DATE "Connection: close\r\n\r\n", 0, {.client_minor = 1}, false},
    {"1.0 client", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
     "HTTP/1.1 200 OK\r\n" VIA DATE "Content-Length: 3\r\nConnection: keep-alive\r\n\r\n", 0,
     {.keep_alive = true, .client_minor = 0}, false},
    {"head", "HTTP/1.1 200 OK\r\nContent-Length: 0003\r\n\r\n",
     "HTTP/1.1 200 OK\r\n" VIA DATE "Content-Length: 3\r\n\r\n", SW_METHOD_HEAD,
     {.keep_alive = true, .client_minor = 1, .head_request = true}, false},
    {"head without length", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n" VIA DATE "\r\n",
     SW_METHOD_HEAD, {.keep_alive = true, .client_minor = 1, .head_request = true}, false},
    {"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
     "HTTP/1.1 304 Not Modified\r\n" VIA DATE "Content-Length: 3\r\n\r\n", 0,
     {.keep_alive = true, .client_minor = 1}, false},
    {"204", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
     "HTTP/1.1 204 No Content\r\n" VIA DATE "\r\n", 0, {.keep_alive = true, .client_minor = 1},
     false},
    {"103", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n",
     "HTTP/1.1 103 Early Hints\r\nLink: a\r\n" VIA "\r\n", 0, {.client_minor = 1}, false},
    {"101", "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
     "HTTP/1.1 101 Switching\r\n" VIA "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 0,
     {.keep_alive = true, .client_minor = 1, .keep_upgrade = true}, false},
    {"a body taken away", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
     "HTTP/1.1 200 OK\r\n" VIA DATE "Content-Length: 0\r\n\r\n", 0,
     {.keep_alive = true, .client_minor = 1, .framing = SW_FRAMING_NONE}, true},

#define PRIVATE(in, out)                                                                           \
    {"private: " in, "HTTP/1.1 204 No Content\r\n" in "\r\n",                                      \
     "HTTP/1.1 204 No Content\r\n" out VIA DATE "\r\n", 0,                                         \
     {.keep_alive = true, .client_minor = 1, .private_cache = true}, false}
    PRIVATE("", "Cache-Control: private\r\n"),
    PRIVATE("Cache-Control: max-age=60\r\n", "Cache-Control: private, max-age=60\r\n"),
    PRIVATE("Cache-Control: Public, S-Maxage=9, max-age=60\r\n",
            "Cache-Control: private, max-age=60\r\n"),
    PRIVATE("Cache-Control: no-store\r\n", "Cache-Control: no-store\r\n"),
    PRIVATE("Cache-Control: no-store, must-understand\r\n",
            "Cache-Control: private, no-store, must-understand\r\n"),
    PRIVATE("Cache-Control: Private, max-age=1\r\n", "Cache-Control: Private, max-age=1\r\n"),
    PRIVATE("Cache-Control: private=\"a, b\", max-age=1\r\n",
            "Cache-Control: private, max-age=1\r\n"),
    PRIVATE("Cache-Control: no-cache\r\nA: b\r\ncache-control: public\r\n",
            "Cache-Control: private, no-cache\r\nA: b\r\n"),
    PRIVATE("Cache-Control: x=\"a, private, b\"\r\n",
            "Cache-Control: private, x=\"a, private, b\"\r\n"),
    PRIVATE("CDN-Cache-Control: max-age=9\r\nFoo-CDN-Cache-Control: a\r\nSurrogate-Control: b\r\n",
            "Cache-Control: private\r\n"),
};

static void responses(void **state)
{
    char buf[4096];

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(response_rows); i++) {
        const struct response_row *row = &response_rows[i];
        struct sw_field fields[32];
        struct sw_head h = {.fields = fields, .field_max = 32};
        struct sw_h1_limits limits = {4096, 1024};
        struct sw_forward_response f = row->f;
        struct sw_out out = sw_out_init(buf, sizeof(buf));
        struct sw_slice date = SW_S("Sun, 06 Nov 1994 08:49:37 GMT");
        size_t scanned = 0;
        struct sw_parsed step =
            sw_h1_response(sw_slice_cstr(row->in), &scanned, &limits, row->method, &h);

        if (step.step != SW_STEP_DONE) {
            fail_msg("%s: %s", row->name, sw_err_name(step.err));
        }
        f.head = &h;
        if (!row->recoded) {
            f.framing = h.framing;
            f.length = h.length;
        }
        assert_true(sw_forward_response_put(&out, &f, date));
        if (!sw_slice_eq(sw_out_done(&out), sw_slice_cstr(row->out))) {
            fail_msg("%s:\n%.*s\nis not\n%s", row->name, SW_SARG(sw_out_done(&out)), row->out);
        }
        for (size_t cap = 0, full = out.len; cap < full; cap++) {
            out = sw_out_init(buf, cap);
            assert_false(sw_forward_response_put(&out, &f, date));
            assert_true(out.len <= cap);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(requests), cmocka_unit_test(responses)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
