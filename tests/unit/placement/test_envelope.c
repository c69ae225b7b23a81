/* unit/placement/test_envelope.c - the commit envelope: every member, every way to be refused. */
#include "placement/placement.h"
#include "../guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define H(json) "{\"response\":{\"headers\":" json "}}"
#define B(json) "{\"response\":{" json "}}"

static const struct row {
    const char *body;
    enum sw_err err;
    enum sw_update_kind kind;
    const char *value;   /* of the state; NULL: none */
    unsigned status;     /* 0: 200 */
    const char *content; /* NULL: empty */
    const char *headers; /* "name: value\n" each; NULL: none */
    const char *alarms;  /* "text\n" each; NULL: none */
} rows[] = {
    /* every member, and none */
    {"{}", SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {" { } ", SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{}}", SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"response\":{}}", SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"set\":{\"n\":1}}}", SW_OK, SW_UPDATE_SET, "{\"n\":1}", 0, NULL, NULL, NULL},
    {"{\"state\": {\"set\" : { \"n\" : 1.10 } } }", SW_OK, SW_UPDATE_SET, "{ \"n\" : 1.10 }", 0,
     NULL, NULL, NULL},
    {"{\"state\":{\"patch\":{\"n\":null}}}", SW_OK, SW_UPDATE_PATCH, "{\"n\":null}", 0, NULL, NULL,
     NULL},
    {"{\"state\":{\"delete\":true}}", SW_OK, SW_UPDATE_DELETE, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"delete\":false}}", SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"delete\":false,\"set\":{}}}", SW_OK, SW_UPDATE_SET, "{}", 0, NULL, NULL, NULL},
    {"{\"response\":{\"status\":303,\"headers\":{\"Location\":\"/cart\"},\"body\":\"see\"},"
     "\"alarms\":[\"in=5\",\"cancel;id=x\"],\"publish\":[],"
     "\"state\":{\"set\":{\"caf\xc3\xa9\":\"\\u00e9\"}}}",
     SW_OK, SW_UPDATE_SET, "{\"caf\xc3\xa9\":\"\\u00e9\"}", 303, "see", "Location: /cart\n",
     "in=5\ncancel;id=x\n"},
    {"{\"\\u0073tate\":{\"\\u0073et\":{}}}", SW_OK, SW_UPDATE_SET, "{}", 0, NULL, NULL, NULL},

    /* the whole */
    {"", SW_E_UPDATE_JSON, 0, NULL, 0, NULL, NULL, NULL},
    {"{", SW_E_UPDATE_JSON, 0, NULL, 0, NULL, NULL, NULL},
    {"{} {}", SW_E_UPDATE_JSON, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"set\":{\"n\":01}}}", SW_E_UPDATE_JSON, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"set\":{\"a\":1,\"a\":2}}}", SW_E_UPDATE_JSON, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{},\"state\":{}}", SW_E_UPDATE_JSON, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"response\":{\"body\":\"\xff\"}}", SW_E_UPDATE_JSON, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"response\":{\"body\":\"\\ud800\"}}", SW_E_UPDATE_JSON, 0, NULL, 0, NULL, NULL, NULL},
    {"\xef\xbb\xbf{}", SW_E_UPDATE_JSON, 0, NULL, 0, NULL, NULL, NULL},
    {"[]", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"null", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"\"state\"", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"stat\":{}}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"State\":{}}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"\":{}}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"set\":{}}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\\u0000\":{}}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},

    /* state */
    {"{\"state\":null}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":[]}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"put\":{}}}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"set\":{},\"patch\":{}}}", SW_E_UPDATE_MANY, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"set\":{},\"delete\":true}}", SW_E_UPDATE_MANY, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"delete\":true,\"patch\":{}}}", SW_E_UPDATE_MANY, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"set\":null}}", SW_E_UPDATE_TYPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"set\":[1]}}", SW_E_UPDATE_TYPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"set\":\"{}\"}}", SW_E_UPDATE_TYPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"patch\":5}}", SW_E_UPDATE_TYPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"delete\":1}}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"delete\":\"true\"}}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"state\":{\"delete\":null}}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},

    /* status */
    {B("\"status\":200"), SW_OK, 0, NULL, 200, NULL, NULL, NULL},
    {B("\"status\":599"), SW_OK, 0, NULL, 599, NULL, NULL, NULL},
    {B("\"status\":600"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":199"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":101"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":0"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":-20"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":2e2"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":200.0"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":2000"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":\"200\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":\"2\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":null"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":[2]"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"reason\":\"Fine\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"response\":null}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"response\":\"hello\"}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},

    /* body */
    {B("\"body\":\"\""), SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body\":\"a\\n\\u20ac\\ud83d\\ude00\\\"\""), SW_OK, 0, NULL, 0,
     "a\n\xe2\x82\xac\xf0\x9f\x98\x80\"", NULL, NULL},
    {B("\"body\":\"caf\xc3\xa9\""), SW_OK, 0, NULL, 0, "caf\xc3\xa9", NULL, NULL},
    {B("\"body\":null"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body\":{}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body\":7"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body\":\"a\",\"body-bin\":\"YQ==\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"YQ==\",\"body\":\"a\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body\":\"\",\"body-bin\":\"\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"status\":204"), SW_OK, 0, NULL, 204, NULL, NULL, NULL},
    {B("\"status\":204,\"body\":\"\""), SW_OK, 0, NULL, 204, NULL, NULL, NULL},
    {B("\"status\":204,\"body\":\"a\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body\":\"a\",\"status\":205"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"YQ==\",\"status\":304"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},

    /* base64: RFC 4648, 10, and what is not strict */
    {B("\"body-bin\":\"\""), SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"Zg==\""), SW_OK, 0, NULL, 0, "f", NULL, NULL},
    {B("\"body-bin\":\"Zm8=\""), SW_OK, 0, NULL, 0, "fo", NULL, NULL},
    {B("\"body-bin\":\"Zm9v\""), SW_OK, 0, NULL, 0, "foo", NULL, NULL},
    {B("\"body-bin\":\"Zm9vYg==\""), SW_OK, 0, NULL, 0, "foob", NULL, NULL},
    {B("\"body-bin\":\"Zm9vYmFy\""), SW_OK, 0, NULL, 0, "foobar", NULL, NULL},
    {B("\"body-bin\":\"+/+/\""), SW_OK, 0, NULL, 0, "\xfb\xff\xbf", NULL, NULL},
    {B("\"body-bin\":\"+\\/+\\/\""), SW_OK, 0, NULL, 0, "\xfb\xff\xbf", NULL, NULL},
    {B("\"body-bin\":\"Zg\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"Zg=\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"Z===\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"====\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"Zh==\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"Zm9=\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"Zg==Zg==\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"Zm9v\\n\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"Zm 9\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"-_-_\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":\"\xc3\xa9\xc3\xa9\""), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {B("\"body-bin\":null"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},

    /* headers */
    {H("{}"), SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Content-Type\":\"text/html; charset=utf-8\",\"Set-Cookie\":[\"a=1\",\"b=2\"],"
       "\"X-Empty\":\"\"}"),
     SW_OK, 0, NULL, 0, NULL,
     "Content-Type: text/html; charset=utf-8\nSet-Cookie: a=1\nSet-Cookie: b=2\nX-Empty: \n", NULL},
    {H("{\"X\":\" \\ta\\u0020b \"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":\"  a b \"}"), SW_OK, 0, NULL, 0, NULL, "X: a b\n", NULL},
    {H("{\"\\u0058-A\":\"\\u0041\"}"), SW_OK, 0, NULL, 0, NULL, "X-A: A\n", NULL},
    {H("{\"!#$%&'*+-.^_`|~09azAZ\":\"a\"}"), SW_OK, 0, NULL, 0, NULL, "!#$%&'*+-.^_`|~09azAZ: a\n",
     NULL},
    {H("{\"X\":[]}"), SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {H("[]"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("null"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":1}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":null}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":[[\"a\"]]}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":[\"a\",1]}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"\":\"a\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X Y\":\"a\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X:\":\"a\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\\r\\nY\":\"a\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\\u0000\":\"a\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"\xc3\xa9\":\"a\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":\"a\\r\\nSet-Cookie: b\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":\"a\\nb\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":\"a\\r\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":\"\\u0000\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":\"\\u007f\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":\"caf\xc3\xa9\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":\"\\u00e9\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"X\":\"a\",\"x\":\"b\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Set-Cookie\":[\"a\"],\"set-cookie\":\"b\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL,
     NULL, NULL},
    {H("{\"X\":\"a\",\"X\":\"b\"}"), SW_E_UPDATE_JSON, 0, NULL, 0, NULL, NULL, NULL},
    /* not the app's to write */
    {H("{\"Connection\":\"close\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"content-length\":\"3\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Content_Length\":\"3\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Transfer-Encoding\":\"chunked\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Keep-Alive\":\"5\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"TE\":\"trailers\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Trailer\":\"X\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Upgrade\":\"x\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Proxy-Connection\":\"x\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Proxy-Authenticate\":\"x\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Proxy-Authorization\":\"x\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Proxy-Authentication-Info\":\"x\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL,
     NULL},
    {H("{\"HTTP2-Settings\":\"x\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Stateway-Set\":\"{}\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"STATEWAY_Verdict\":\"x\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"stateway-anything-longer-than-thirty-two-bytes\":\"x\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL,
     0, NULL, NULL, NULL},
    {H("{\"\\u0053tateway-Set\":\"{}\"}"), SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {H("{\"Stateways\":\"x\"}"), SW_OK, 0, NULL, 0, NULL, "Stateways: x\n", NULL},
    {H("{\"X-Connection\":\"x\"}"), SW_OK, 0, NULL, 0, NULL, "X-Connection: x\n", NULL},

    /* alarms, publish */
    {"{\"alarms\":[]}", SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"alarms\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\"]}", SW_OK, 0, NULL, 0, NULL,
     NULL, "1\n2\n3\n4\n5\n6\n7\n8\n"},
    {"{\"alarms\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]}", SW_E_UPDATE_ENVELOPE,
     0, NULL, 0, NULL, NULL, NULL},
    {"{\"alarms\":[\"in=5;data=\\\"x\\\"\"]}", SW_OK, 0, NULL, 0, NULL, NULL, "in=5;data=\"x\"\n"},
    {"{\"alarms\":\"in=5\"}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"alarms\":[{\"in\":5}]}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"alarms\":[5]}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"alarms\":null}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"publish\":[]}", SW_OK, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"publish\":[{\"channel\":\"c\"}]}", SW_E_UPDATE_UNSUPPORTED, 0, NULL, 0, NULL, NULL, NULL},
    {"{\"publish\":{}}", SW_E_UPDATE_ENVELOPE, 0, NULL, 0, NULL, NULL, NULL},
};

static bool same(struct sw_slice s, const char *text)
{
    return text == NULL ? s.len == 0 : sw_slice_eq(s, sw_slice_cstr(text));
}

static bool as_said(const struct row *r, const struct sw_envelope *e)
{
    char headers[512], alarms[512];
    struct sw_out h = sw_out_init(headers, sizeof(headers));
    struct sw_out a = sw_out_init(alarms, sizeof(alarms));

    for (size_t i = 0; i < e->header_count; i++) {
        sw_out_slice(&h, e->headers[i].name);
        sw_out_lit(&h, ": ");
        sw_out_slice(&h, e->headers[i].value);
        sw_out_lit(&h, "\n");
    }
    for (size_t i = 0; i < e->alarm_count; i++) {
        sw_out_slice(&a, e->alarms[i]);
        sw_out_lit(&a, "\n");
    }
    return !h.overflowed && !a.overflowed && e->kind == r->kind && same(e->value, r->value) &&
           e->status == (r->status == 0 ? 200 : r->status) && same(e->body, r->content) &&
           same(sw_out_done(&h), r->headers) && same(sw_out_done(&a), r->alarms);
}

static void envelope_rows(void **state)
{
    struct guard in = guard_new(4096), memory = guard_new(4096);

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        const struct row *r = &rows[i];
        struct sw_slice body = sw_slice_cstr(r->body);
        struct sw_envelope e = {.status = 7};
        char *room = (char *)(uintptr_t)guard_put(&memory, body).ptr; /* exactly body.len bytes */
        enum sw_err err = sw_envelope_read(guard_put(&in, body), room, &e);

        memset(in.map, 'x', in.size); /* the body is not needed any more */
        if (err != r->err) {
            fail_msg("row %zu (%s): %s", i, r->body, sw_err_name(err));
        }
        if (err != SW_OK) {
            assert_int_equal(e.status, 7); /* outputs are written on success only */
        } else if (!as_said(r, &e)) {
            fail_msg("row %zu (%s): status %u, %zu headers, %zu alarms, body %.*s", i, r->body,
                     e.status, e.header_count, e.alarm_count, SW_SARG(e.body));
        }
    }
    guard_free(&in);
    guard_free(&memory);
}

/* Cut anywhere it is no JSON any more. */
static void cut_anywhere(void **state)
{
    static const struct sw_slice whole =
        SW_S("{\"state\":{\"set\":{\"n\":[1,{\"a\":\"\\u00e9\"}]}},\"response\":{\"status\":201,"
             "\"headers\":{\"A\":[\"b\",\"c\"]},\"body-bin\":\"Zm9v\"},\"alarms\":[\"in=5\"]}");
    struct guard in = guard_new(4096);
    char memory[256];
    struct sw_envelope e;

    (void)state;
    for (size_t len = 0; len < whole.len; len++) {
        assert_int_equal(sw_envelope_read(guard_put(&in, sw_slice_head(whole, len)), memory, &e),
                         SW_E_UPDATE_JSON);
    }
    assert_int_equal(sw_envelope_read(whole, memory, &e), SW_OK);
    guard_free(&in);
}

static void header_limit(void **state)
{
    for (unsigned count = SW_ENVELOPE_HEADERS - 1; count <= SW_ENVELOPE_HEADERS + 1; count++) {
        char text[4096], memory[4096];
        struct sw_out out = sw_out_init(text, sizeof(text));
        struct sw_envelope e;

        (void)state;
        sw_out_lit(&out, "{\"response\":{\"headers\":{\"Set-Cookie\":[\"a\",\"b\"]");
        for (unsigned i = 2; i < count; i++) {
            sw_out_printf(&out, ",\"X-%u\":\"v\"", i);
        }
        sw_out_lit(&out, "}}}");
        assert_false(out.overflowed);
        assert_int_equal(sw_envelope_read(sw_out_done(&out), memory, &e),
                         count <= SW_ENVELOPE_HEADERS ? SW_OK : SW_E_UPDATE_ENVELOPE);
    }
}

/* Every byte value survives as body-bin; as body, every character does. */
static void bodies_round_trip(void **state)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[8192], memory[8192];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_envelope e;

    (void)state;
    sw_out_lit(&out, "{\"response\":{\"body-bin\":\"");
    for (unsigned i = 0; i < 256; i++) { /* the bytes i, i ^ 0xa5, i ^ 0xff */
        unsigned bits = i << 16 | (i ^ 0xa5) << 8 | (i ^ 0xff);

        for (int shift = 18; shift >= 0; shift -= 6) {
            sw_out_char(&out, letters[bits >> shift & 63]);
        }
    }
    sw_out_lit(&out, "\"}}");
    assert_int_equal(sw_envelope_read(sw_out_done(&out), memory, &e), SW_OK);
    assert_int_equal(e.body.len, 3 * 256);
    for (unsigned i = 0; i < 256; i++) {
        assert_int_equal((unsigned char)e.body.ptr[3 * i], i);
        assert_int_equal((unsigned char)e.body.ptr[3 * i + 1], i ^ 0xa5);
        assert_int_equal((unsigned char)e.body.ptr[3 * i + 2], i ^ 0xff);
    }

    out = sw_out_init(text, sizeof(text));
    sw_out_lit(&out, "{\"response\":{\"body\":\"");
    for (unsigned i = 0; i < 0x80; i++) {
        sw_out_printf(&out, "\\u%04x", i);
    }
    sw_out_lit(&out, "\"}}");
    assert_int_equal(sw_envelope_read(sw_out_done(&out), memory, &e), SW_OK);
    assert_int_equal(e.body.len, 0x80);
    for (unsigned i = 0; i < 0x80; i++) {
        assert_int_equal((unsigned char)e.body.ptr[i], i);
    }
}

/* The state stands two levels deep in the envelope, which take part in the limit of levels. */
static void depth(void **state)
{
    for (unsigned levels = 61; levels <= 64; levels++) {
        char text[1024], memory[1024];
        struct sw_out out = sw_out_init(text, sizeof(text));
        struct sw_envelope e;

        (void)state;
        sw_out_lit(&out, "{\"state\":{\"set\":");
        for (unsigned i = 0; i < levels; i++) {
            sw_out_lit(&out, "{\"a\":");
        }
        sw_out_lit(&out, "1");
        for (unsigned i = 0; i < levels + 2; i++) {
            sw_out_lit(&out, "}");
        }
        assert_int_equal(sw_envelope_read(sw_out_done(&out), memory, &e),
                         levels + 2 <= 64 ? SW_OK : SW_E_UPDATE_JSON);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(envelope_rows), cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(header_limit),  cmocka_unit_test(bodies_round_trip),
        cmocka_unit_test(depth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
