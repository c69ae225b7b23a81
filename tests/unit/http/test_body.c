/* Bodies: every row cut at every byte and fed byte by byte gives the same payload or the same error. */
#include "test_http.h"

#define A16  "aaaaaaaaaaaaaaaa"
#define A128 A16 A16 A16 A16 A16 A16 A16 A16

static const struct row {
    const char *name;
    struct sw_slice in;
    enum sw_err err;    /* SW_E_COUNT: not complete */
    const char *data;
    const char *trailers;
    size_t rest;        /* bytes behind the body */
} rows[] = {
    {"empty", SW_S("0\r\n\r\n"), SW_OK, "", "", 0},
    {"one", SW_S("3\r\nabc\r\n0\r\n\r\n"), SW_OK, "abc", "", 0},
    {"two", SW_S("3\r\nabc\r\n00a\r\n0123456789\r\n0\r\n\r\n"), SW_OK, "abc0123456789", "", 0},
    {"upper", SW_S("A\r\n0123456789\r\n0000\r\n\r\n"), SW_OK, "0123456789", "", 0},
    {"what follows", SW_S("1\r\na\r\n0\r\n\r\nGET"), SW_OK, "a", "", 3},
    {"extension, CR in quotes", SW_S("1;a;b=c;d=\"e \\\" ;\r\"\r\na\r\n0;x\r\n\r\n"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"extensions", SW_S("1;a;b=c;d=\"e \\\" ;\"\r\na\r\n0;x\r\n\r\n"), SW_OK, "a", "", 0},
    {"extension of 254", SW_S("1;" A128 A16 A16 A16 A16 A16 A16 A16 "aaaaaaaaaaaaaa\r\na\r\n"
                              "0\r\n\r\n"), SW_OK, "a", "", 0},
    {"extension of 255", SW_S("1;" A128 A16 A16 A16 A16 A16 A16 A16 "aaaaaaaaaaaaaaa\r\na\r\n"),
     SW_E_CHUNK_SYNTAX, "", "", 0},
    {"trailers", SW_S("0\r\nA: b\r\nX-Sum:c \t d \t\r\nE:\r\n\r\n"), SW_OK, "",
     "A: b\r\nX-Sum: c \t d\r\nE:\r\n", 0},
    {"forbidden trailers", SW_S("0\r\nContent-Length: 1\r\nhost: a\r\nStateway-Set: x\r\n"
                                "stateway_set: x\r\nSet-Cookie: a\r\nCookie: b\r\nA: 1\r\n"
                                "Authorization: x\r\ncontent_type: x\r\nX_Forwarded_Foo: 1\r\n"
                                "Transfer-Encoding: chunked\r\n\r\n"), SW_OK, "", "A: 1\r\n", 0},

    {"incomplete", SW_S("3\r\nabc\r\n0\r\n"), SW_E_COUNT, "abc", "", 0},
    {"incomplete data", SW_S("3\r\nab"), SW_E_COUNT, "ab", "", 0},

    {"bare LF", SW_S("1\na\r\n0\r\n\r\n"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"bare CR", SW_S("1\ra"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"sign", SW_S("+1\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"minus", SW_S("-1\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"0x", SW_S("0x1\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"blank before", SW_S(" 1\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"blank behind", SW_S("1 \r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"blank before extension", SW_S("1 ;a\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"blank in extension", SW_S("1; a\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"underscore", SW_S("1_0\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"empty size", SW_S("\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"only extension", SW_S(";a\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"empty extension", SW_S("1;\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"empty extension value", SW_S("1;a=\r\na"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"extension with LF", SW_S("1;a\na\r\n0\r\n\r\n"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"extension, open quote", SW_S("1;a=\"\r\n"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"extension, text behind the quote", SW_S("1;a=\"b\"c\r\n"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"data too long", SW_S("1\r\nab\r\n"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"data without CR", SW_S("1\r\na\n0\r\n\r\n"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"data, bare CR", SW_S("1\r\na\r0\r\n\r\n"), SW_E_CHUNK_SYNTAX, "", "", 0},
    {"largest", SW_S("10000000000000\r\n"), SW_E_BODY_LARGE, "", "", 0},
    {"one more", SW_S("10000000000001\r\n"), SW_E_CHUNK_SIZE, "", "", 0},
    {"64 bit", SW_S("10000000000000001\r\n"), SW_E_CHUNK_SIZE, "", "", 0},
    {"beyond the limit", SW_S("32\r\n" A16 A16 A16 "aa\r\nf\r\n"), SW_E_BODY_LARGE, "", "", 0},
    {"trailer, bare LF", SW_S("0\r\nA: b\n\r\n"), SW_E_TRAILER, "", "", 0},
    {"trailer, fold", SW_S("0\r\nA: b\r\n c\r\n\r\n"), SW_E_TRAILER, "", "", 0},
    {"trailer, no colon", SW_S("0\r\nA\r\n\r\n"), SW_E_TRAILER, "", "", 0},
    {"trailer, no name", SW_S("0\r\n: a\r\n\r\n"), SW_E_TRAILER, "", "", 0},
    {"trailer, blank before colon", SW_S("0\r\nA : b\r\n\r\n"), SW_E_TRAILER, "", "", 0},
    {"trailer, NUL", SW_S("0\r\nA: \0\r\n\r\n"), SW_E_TRAILER, "", "", 0},
    {"end, bare LF", SW_S("0\r\n\n"), SW_E_TRAILER, "", "", 0},
    {"end, bare CR", SW_S("0\r\n\ra"), SW_E_TRAILER, "", "", 0},
    {"trailers too large", SW_S("0\r\nA: " A128 "\r\nB: " A128 "\r\n\r\n"), SW_E_TRAILER, "", "", 0},
};

struct got {
    enum sw_err err;
    bool done;
    size_t rest;
    struct sw_slice data, trailers;
};

static struct got feed(struct guard *g, struct sw_body *b, struct sw_slice in, size_t cut,
                       size_t step, char *data_buf)
{
    struct got got = {.rest = in.len};
    size_t at = 0, end = cut, data_len = 0;

    for (;;) {
        struct sw_slice piece = guard_put(g, sw_slice_of(in.ptr + at, end - at));
        struct sw_body_fed fed = sw_body_feed(b, piece);

        if (fed.step == SW_STEP_FAIL) {
            got.err = fed.err;
            return got;
        }
        assert_true(fed.consumed <= piece.len);
        if (fed.data.len > 0) {
            assert_true(fed.data.ptr >= piece.ptr &&
                        fed.data.ptr + fed.data.len <= piece.ptr + fed.consumed);
            memcpy(data_buf + data_len, fed.data.ptr, fed.data.len);
            data_len += fed.data.len;
        }
        got.data = sw_slice_of(data_buf, data_len);
        at += fed.consumed;
        got.rest = in.len - at;
        if (fed.step == SW_STEP_DONE) {
            got.done = true;
            got.trailers = sw_body_trailers(b);
            return got;
        }
        if (at == end) {
            if (end == in.len) {
                return got;
            }
            end = SW_MIN(end + step, in.len);
        } else {
            assert_true(fed.consumed > 0);
        }
    }
}

static void chunk_rows(void **state)
{
    struct guard g = guard_new(8192);
    char data[1024], trailer_buf[200];

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        const struct row *row = &rows[i];

        for (size_t cut = 0; cut <= row->in.len; cut++) {
            for (unsigned variant = 0; variant < 4; variant++) {
                struct sw_out out = sw_out_init(trailer_buf, sizeof(trailer_buf));
                bool keeps = (variant & 2) == 0;
                struct sw_head h = {.framing = SW_FRAMING_CHUNKED};
                struct sw_body b;
                struct got got;

                if (!keeps && row->err == SW_E_TRAILER && row->in.len > 200) {
                    continue;
                }
                sw_body_init(&b, &h, 64, false, keeps ? &out : NULL);
                got = feed(&g, &b, row->in, cut, variant & 1 ? 1 : 10000, data);
                if ((row->err == SW_OK) != got.done ||
                    got.err != (row->err == SW_E_COUNT ? SW_OK : row->err)) {
                    fail_msg("%s, cut at %zu: %s", row->name, cut, sw_err_name(got.err));
                }
                if (row->err == SW_OK || row->err == SW_E_COUNT) {
                    assert_slice(got.data, sw_slice_cstr(row->data));
                    assert_int_equal(b.total, got.data.len);
                    assert_int_equal(got.rest, row->rest);
                    assert_int_equal(sw_body_end(&b), got.done ? SW_OK : SW_E_CLIENT_GONE);
                }
                if (row->err == SW_OK) {
                    assert_slice(got.trailers, sw_slice_cstr(keeps ? row->trailers : ""));
                }
            }
        }
    }
    guard_free(&g);
}

static void bounded_without_out(void **state)
{
    struct sw_head h = {.framing = SW_FRAMING_CHUNKED};
    struct sw_body b;
    struct sw_body_fed fed;
    size_t count = 0;

    (void)state;
    sw_body_init(&b, &h, 64, true, NULL);
    fed = sw_body_feed(&b, SW_S("0\r\n"));
    while (fed.step == SW_STEP_MORE && count++ < 5000) {
        fed = sw_body_feed(&b, SW_S("A: b\r\n"));
    }
    assert_int_equal(fed.step, SW_STEP_FAIL);
    assert_int_equal(fed.err, SW_E_APP_BODY);
    assert_int_equal(sw_body_end(&b), SW_E_APP_CLOSED);
}

static void other_framings(void **state)
{
    struct sw_head h = {.framing = SW_FRAMING_LENGTH, .length = 5};
    struct sw_body b;
    struct sw_body_fed fed;

    (void)state;
    sw_body_init(&b, &h, 5, false, NULL);
    fed = sw_body_feed(&b, SW_S("abc"));
    assert_int_equal(fed.step, SW_STEP_MORE);
    assert_slice(fed.data, SW_S("abc"));
    assert_int_equal(sw_body_end(&b), SW_E_CLIENT_GONE);
    fed = sw_body_feed(&b, SW_S("defg"));
    assert_int_equal(fed.step, SW_STEP_DONE);
    assert_int_equal(fed.consumed, 2);
    assert_int_equal(b.total, 5);
    assert_int_equal(sw_body_end(&b), SW_OK);

    sw_body_init(&b, &h, 4, false, NULL);
    fed = sw_body_feed(&b, SW_S(""));
    assert_int_equal(fed.err, SW_E_BODY_LARGE);

    h.length = 0;
    sw_body_init(&b, &h, 4, false, NULL);
    fed = sw_body_feed(&b, SW_S("GET"));
    assert_int_equal(fed.step, SW_STEP_DONE);
    assert_int_equal(fed.consumed, 0);

    h.framing = SW_FRAMING_NONE;
    sw_body_init(&b, &h, 0, false, NULL);
    assert_int_equal(sw_body_feed(&b, SW_S("GET")).step, SW_STEP_DONE);
    assert_int_equal(sw_body_end(&b), SW_OK);

    h.framing = SW_FRAMING_CLOSE;
    sw_body_init(&b, &h, UINT64_MAX, true, NULL);
    fed = sw_body_feed(&b, SW_S("abc"));
    assert_int_equal(fed.step, SW_STEP_MORE);
    assert_int_equal(fed.consumed, 3);
    assert_int_equal(sw_body_end(&b), SW_OK);
    sw_body_init(&b, &h, 2, true, NULL);
    assert_int_equal(sw_body_feed(&b, SW_S("abc")).err, SW_E_APP_BODY);
}

static void chunk_heads(void **state)
{
    char out[18];

    (void)state;
    assert_slice(sw_slice_of(out, sw_chunk_head(out, 0)), SW_S("0\r\n"));
    assert_slice(sw_slice_of(out, sw_chunk_head(out, 0x1a2b)), SW_S("1a2b\r\n"));
    assert_slice(sw_slice_of(out, sw_chunk_head(out, UINT64_MAX)), SW_S("ffffffffffffffff\r\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunk_rows),
        cmocka_unit_test(bounded_without_out),
        cmocka_unit_test(other_framings),
        cmocka_unit_test(chunk_heads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
