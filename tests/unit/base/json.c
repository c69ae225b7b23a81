/* base/json.c: what is accepted, where it is refused, and that no number is ever read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/rng.h"

/* ---- input flush against a page that may not be read ------------------------------------------
 */

struct guarded {
    char *block;
    size_t bytes;
};

static struct guarded guarded_new(size_t bytes)
{
    struct guarded g = {NULL, (bytes + 4095) & ~(size_t)4095};

    g.block =
        mmap(NULL, g.bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.block != MAP_FAILED);
    assert_int_equal(mprotect(g.block + g.bytes, 4096, PROT_NONE), 0);
    return g;
}

static struct sw_slice guarded_put(struct guarded g, struct sw_slice s)
{
    char *at = g.block + g.bytes - s.len;

    assert_true(s.len <= g.bytes);
    if (s.ptr == NULL) {
        return s;
    }
    memcpy(at, s.ptr, s.len);
    return sw_slice_of(at, s.len);
}

/* ---- check ------------------------------------------------------------------------------------
 */

static const struct check_row {
    const char *name;
    struct sw_slice in;
    const char *why; /* NULL: accepted */
    size_t offset;
} check_rows[] = {
    {"object", SW_S("{\"a\":1}"), NULL, 0},
    {"blanks", SW_S(" \t\r\n{ \"a\" : [ 1 , 2 ] } \n"), NULL, 0},
    {"empty object", SW_S("{}"), NULL, 0},
    {"empty array", SW_S("[ ]"), NULL, 0},
    {"string", SW_S("\"x\""), NULL, 0},
    {"zero", SW_S("0"), NULL, 0},
    {"minus zero", SW_S("-0"), NULL, 0},
    {"number beyond a double", SW_S("1e400"), NULL, 0},
    {"long number", SW_S("123456789012345678901234567890.00100E-0007"), NULL, 0},
    {"true", SW_S("true"), NULL, 0},
    {"false", SW_S("false"), NULL, 0},
    {"null", SW_S("null"), NULL, 0},
    {"NUL escape", SW_S("\"\\u0000\""), NULL, 0},
    {"all escapes", SW_S("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\""), NULL, 0},
    {"pair", SW_S("\"\\uD834\\udd1e\""), NULL, 0},
    {"UTF-8 of 2, 3, 4 bytes", SW_S("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""), NULL, 0},
    {"DEL", SW_S("\"\x7f\""), NULL, 0},
    {"empty name", SW_S("{\"\":1}"), NULL, 0},
    {"same name in different objects", SW_S("{\"a\":{\"a\":{\"a\":1}},\"b\":{\"a\":1}}"), NULL, 0},
    {"names of one prefix", SW_S("{\"a\":1,\"aa\":2,\"a\\u0000\":3}"), NULL, 0},

    {"nothing", SW_S(""), "unexpected end", 0},
    {"only blanks", SW_S("  "), "unexpected end", 2},
    {"two values", SW_S("1 2"), "bytes behind the value", 2},
    {"BOM", SW_S("\xef\xbb\xbf{}"), "unexpected byte", 0},
    {"trailing comma", SW_S("[1,]"), "unexpected byte", 3},
    {"trailing comma in an object", SW_S("{\"a\":1,}"), "unexpected byte", 7},
    {"no comma", SW_S("[1 2]"), "unexpected byte", 3},
    {"no colon", SW_S("{\"a\" 1}"), "unexpected byte", 5},
    {"no value", SW_S("{\"a\":}"), "unexpected byte", 5},
    {"bare name", SW_S("{a:1}"), "unexpected byte", 1},
    {"single quotes", SW_S("{'a':1}"), "unexpected byte", 1},
    {"wrong bracket", SW_S("[1}"), "unexpected byte", 2},
    {"wrong brace", SW_S("{\"a\":1]"), "unexpected byte", 6},
    {"open", SW_S("[[1]"), "unexpected end", 4},
    {"open name", SW_S("{\"a"), "unexpected end", 3},
    {"ends behind a name", SW_S("{\"a\""), "unexpected end", 4},
    {"ends behind a colon", SW_S("{\"a\":"), "unexpected end", 5},
    {"ends behind a comma", SW_S("{\"a\":1,"), "unexpected end", 7},
    {"closing only", SW_S("]"), "unexpected byte", 0},
    {"leading zero", SW_S("01"), "bytes behind the value", 1},
    {"plus", SW_S("+1"), "unexpected byte", 0},
    {"minus alone", SW_S("-"), "unexpected end", 1},
    {"minus and a letter", SW_S("-x"), "number", 1},
    {"no digit before the point", SW_S(".5"), "unexpected byte", 0},
    {"no digit behind the point", SW_S("[5.]"), "number", 3},
    {"no exponent", SW_S("[5e]"), "number", 3},
    {"signed nothing", SW_S("5e+"), "unexpected end", 3},
    {"hex", SW_S("0x1"), "bytes behind the value", 1},
    {"NaN", SW_S("NaN"), "unexpected byte", 0},
    {"Infinity", SW_S("-Infinity"), "number", 1},
    {"True", SW_S("True"), "unexpected byte", 0},
    {"tru", SW_S("tru"), "unexpected byte", 0},
    {"truex", SW_S("truex"), "bytes behind the value", 4},
    {"comment", SW_S("[1/*x*/]"), "unexpected byte", 2},
    {"control byte", SW_S("\"a\nb\""), "control byte in a string", 2},
    {"NUL byte in a string", SW_S("\"\0\""), "control byte in a string", 1},
    {"NUL byte behind", SW_S("1\0"), "bytes behind the value", 1},
    {"unknown escape", SW_S("\"a\\x\""), "escape", 2},
    {"short \\u", SW_S("\"\\u00g0\""), "escape", 1},
    {"cut \\u", SW_S("\"\\u00"), "escape", 1},
    {"cut escape", SW_S("\"\\"), "unexpected end", 2},
    {"high surrogate alone", SW_S("\"\\ud834\""), "lone surrogate", 1},
    {"low surrogate alone", SW_S("\"x\\udd1e\""), "lone surrogate", 2},
    {"two high surrogates", SW_S("\"\\ud834\\ud834\""), "lone surrogate", 1},
    {"high surrogate, other escape", SW_S("\"\\ud834\\nabcd\""), "lone surrogate", 1},
    {"high surrogate, bad hex", SW_S("\"\\ud834\\uzzzz\""), "lone surrogate", 1},
    {"surrogate in UTF-8", SW_S("\"\xed\xa0\x80\""), "invalid UTF-8", 1},
    {"overlong of 2", SW_S("\"\xc0\xaf\""), "invalid UTF-8", 1},
    {"overlong of 3", SW_S("\"\xe0\x80\xaf\""), "invalid UTF-8", 1},
    {"overlong of 4", SW_S("\"\xf0\x80\x80\xaf\""), "invalid UTF-8", 1},
    {"above U+10FFFF", SW_S("\"\xf4\x90\x80\x80\""), "invalid UTF-8", 1},
    {"continuation alone", SW_S("\"\x80\""), "invalid UTF-8", 1},
    {"cut UTF-8", SW_S("\"\xe2\x82\""), "invalid UTF-8", 1},
    {"cut UTF-8 at the end", SW_S("\"\xe2\x82"), "invalid UTF-8", 1},
    {"UTF-8 outside of a string", SW_S("\xc3\xa9"), "unexpected byte", 0},
    {"duplicate", SW_S("{\"a\":1,\"b\":2,\"a\":3}"), "duplicate name", 13},
    {"duplicate behind an inner object", SW_S("{\"a\":{\"x\":1},\"a\":3}"), "duplicate name", 13},
    {"duplicate inside", SW_S("[{\"b\":{\"a\":1,\"a\":3}}]"), "duplicate name", 13},
    {"duplicate by escape", SW_S("{\"a\":1,\"\\u0061\":3}"), "duplicate name", 7},
    {"duplicate by escaped slash", SW_S("{\"/\":1,\"\\/\":3}"), "duplicate name", 7},
    {"duplicate by UTF-8 and escape", SW_S("{\"\xc3\xa9\":1,\"\\u00E9\":3}"), "duplicate name", 8},
    {"duplicate by pair", SW_S("{\"\xf0\x9f\x98\x80\":1,\"\\ud83d\\uDE00\":3}"), "duplicate name",
     10},
    {"duplicate empty name", SW_S("{\"\":1,\"\":3}"), "duplicate name", 6},
};

static void check_table(void **state)
{
    struct guarded g = guarded_new(4096);

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(check_rows); i++) {
        const struct check_row *row = &check_rows[i];
        struct sw_json_checked c = sw_json_check(guarded_put(g, row->in));

        if (row->why == NULL ? c.err != SW_OK
                             : c.err != SW_E_UPDATE_JSON || c.offset != row->offset ||
                                   strcmp(c.why, row->why) != 0) {
            fail_msg("%s: %s at %zu", row->name, c.err == SW_OK ? "accepted" : c.why, c.offset);
        }
        /* No cut may read past the end (the guard page tells), and what is cut is refused or a
         * value by itself. */
        for (size_t cut = 0; cut < row->in.len; cut++) {
            c = sw_json_check(guarded_put(g, sw_slice_head(row->in, cut)));
            assert_true(c.err == SW_OK || c.offset <= cut);
        }
    }
    munmap(g.block, g.bytes + 4096);
}

static void check_types(void **state)
{
    (void)state;
    assert_int_equal(sw_json_check(SW_S(" {}")).type, SW_JSON_OBJECT);
    assert_int_equal(sw_json_check(SW_S("[]")).type, SW_JSON_ARRAY);
    assert_int_equal(sw_json_check(SW_S("\"\"")).type, SW_JSON_STRING);
    assert_int_equal(sw_json_check(SW_S("-1")).type, SW_JSON_NUMBER);
    assert_int_equal(sw_json_check(SW_S("true")).type, SW_JSON_BOOL);
    assert_int_equal(sw_json_check(SW_S("false")).type, SW_JSON_BOOL);
    assert_int_equal(sw_json_check(SW_S("null")).type, SW_JSON_NULL);
}

static void check_depth(void **state)
{
    char text[4 * SW_JSON_DEPTH_MAX + 64];

    (void)state;
    for (size_t depth = 1; depth <= SW_JSON_DEPTH_MAX + 2; depth++) {
        struct sw_out out = sw_out_init(text, sizeof(text));
        struct sw_json_checked c;

        for (size_t i = 0; i < depth; i++) {
            sw_out_char(&out, '[');
        }
        for (size_t i = 0; i < depth; i++) {
            sw_out_char(&out, ']');
        }
        c = sw_json_check(sw_out_done(&out));
        if (depth <= SW_JSON_DEPTH_MAX) {
            assert_int_equal(c.err, SW_OK);
        } else {
            assert_int_equal(c.err, SW_E_UPDATE_JSON);
            assert_string_equal(c.why, "depth");
            assert_int_equal(c.offset, SW_JSON_DEPTH_MAX);
        }
    }
}

/* {"k0":0,"k1":1,...}; `again`: the last name is the one of that index. */
static struct sw_slice many(char *text, size_t cap, size_t count, size_t again)
{
    struct sw_out out = sw_out_init(text, cap);

    sw_out_char(&out, '{');
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            sw_out_char(&out, ',');
        }
        sw_out_lit(&out, "\"k");
        sw_out_u64(&out, i + 1 == count && again < count ? again : i);
        sw_out_lit(&out, "\":0");
    }
    sw_out_char(&out, '}');
    assert_false(out.overflowed);
    return sw_out_done(&out);
}

static void check_members(void **state)
{
    size_t cap = 1 << 20;
    char *text = malloc(cap);

    (void)state;
    for (size_t count = 2; count <= SW_JSON_MEMBERS_MAX;
         count = count < 40 ? count + 1 : 2 * count) {
        assert_int_equal(sw_json_check(many(text, cap, count, SIZE_MAX)).err, SW_OK);
        for (size_t again = 0; again + 1 < count; again += 1 + count / 16) {
            struct sw_json_checked c = sw_json_check(many(text, cap, count, again));

            assert_int_equal(c.err, SW_E_UPDATE_JSON);
            assert_string_equal(c.why, "duplicate name");
        }
    }
    assert_int_equal(sw_json_check(many(text, cap, SW_JSON_MEMBERS_MAX, SIZE_MAX)).err, SW_OK);
    assert_string_equal(sw_json_check(many(text, cap, SW_JSON_MEMBERS_MAX + 1, SIZE_MAX)).why,
                        "too many members");
    free(text);
}

/* Large objects inside of large ones: the shared table must be as before when the inner one closes.
 */
static void check_nested_tables(void **state)
{
    size_t cap = 1 << 20;
    char *text = malloc(cap);

    (void)state;
    for (int dup = 0; dup < 2; dup++) {
        struct sw_out out = sw_out_init(text, cap);

        sw_out_lit(&out, "{");
        for (size_t i = 0; i < 60; i++) {
            sw_out_printf(&out, "%s\"k%zu\":{", i > 0 ? "," : "", i);
            for (size_t j = 0; j < 60; j++) {
                sw_out_printf(&out, "%s\"k%zu\":{\"k%zu\":[{\"k0\":1}]}", j > 0 ? "," : "", j, i);
            }
            sw_out_lit(&out, "}");
        }
        sw_out_cstr(&out, dup ? ",\"k7\":1}" : ",\"k60\":1}");
        assert_false(out.overflowed);
        assert_int_equal(sw_json_check(sw_out_done(&out)).err, dup ? SW_E_UPDATE_JSON : SW_OK);
    }
    free(text);
}

/* ---- compact ----------------------------------------------------------------------------------
 */

static const struct {
    struct sw_slice in, out;
} compact_rows[] = {
    {SW_S(" { \"a\" : [ 1 , 2.50 ] , \"b\":null } "), SW_S("{\"a\":[1,2.50],\"b\":null}")},
    {SW_S("\" a  b \""), SW_S("\" a  b \"")},
    {SW_S("\"\xc3\xa9\""), SW_S("\"\\u00e9\"")},
    {SW_S("\"\xe2\x82\xac\""), SW_S("\"\\u20ac\"")},
    {SW_S("\"\xf0\x9f\x98\x80!\""), SW_S("\"\\ud83d\\ude00!\"")},
    {SW_S("\"\x7f\""), SW_S("\"\\u007f\"")},
    {SW_S("\"\\/\\u0041\\n\\\\\""), SW_S("\"\\/\\u0041\\n\\\\\"")},
    {SW_S("{\"\xc3\xa9 x\": 1e+05}"), SW_S("{\"\\u00e9 x\":1e+05}")},
    {SW_S("-0.0"), SW_S("-0.0")},
};

static void compact_table(void **state)
{
    struct guarded g = guarded_new(4096);

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(compact_rows); i++) {
        char room[256];
        size_t want = compact_rows[i].out.len;

        for (size_t cap = 0; cap <= want; cap++) {
            struct sw_out out = sw_out_init(room, cap);
            bool ok = sw_json_compact(guarded_put(g, compact_rows[i].in), &out);

            assert_int_equal(ok, cap == want);
            assert_true(!ok || sw_slice_eq(sw_out_done(&out), compact_rows[i].out));
        }
    }
    munmap(g.block, g.bytes + 4096);
}

static void quote_table(void **state)
{
    static const struct {
        struct sw_slice in, out;
    } rows[] = {
        {SW_S(""), SW_S("\"\"")},
        {SW_S("plain"), SW_S("\"plain\"")},
        {SW_S("a\"b\\c\n\t\r\x01\x7f"), SW_S("\"a\\\"b\\\\c\\n\\t\\r\\u0001\\u007f\"")},
        {SW_S("\0"), SW_S("\"\\u0000\"")},
        {SW_S("\xc3\xa9"), SW_S("\"\\u00e9\"")},
        {SW_S("\xc3"), SW_S("\"\\ufffd\"")},
        {SW_S("\xed\xa0\x80"), SW_S("\"\\ufffd\\ufffd\\ufffd\"")},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        char room[128];
        struct sw_out out = sw_out_init(room, sizeof(room));

        sw_json_quote(&out, rows[i].in);
        if (!sw_slice_eq(sw_out_done(&out), rows[i].out)) {
            fail_msg("row %zu: %.*s", i, SW_SARG(sw_out_done(&out)));
        }
        assert_int_equal(sw_json_check(sw_out_done(&out)).err, SW_OK);
    }
}

/* ---- merge ------------------------------------------------------------------------------------
 */

static const struct {
    struct sw_slice target, patch, out;
} merge_rows[] = {
    /* RFC 7396, appendix A */
    {SW_S("{\"a\":\"b\"}"), SW_S("{\"a\":\"c\"}"), SW_S("{\"a\":\"c\"}")},
    {SW_S("{\"a\":\"b\"}"), SW_S("{\"b\":\"c\"}"), SW_S("{\"a\":\"b\",\"b\":\"c\"}")},
    {SW_S("{\"a\":\"b\"}"), SW_S("{\"a\":null}"), SW_S("{}")},
    {SW_S("{\"a\":\"b\",\"b\":\"c\"}"), SW_S("{\"a\":null}"), SW_S("{\"b\":\"c\"}")},
    {SW_S("{\"a\":[\"b\"]}"), SW_S("{\"a\":\"c\"}"), SW_S("{\"a\":\"c\"}")},
    {SW_S("{\"a\":\"c\"}"), SW_S("{\"a\":[\"b\"]}"), SW_S("{\"a\":[\"b\"]}")},
    {SW_S("{\"a\":{\"b\":\"c\"}}"), SW_S("{\"a\":{\"b\":\"d\",\"c\":null}}"),
     SW_S("{\"a\":{\"b\":\"d\"}}")},
    {SW_S("{\"a\":[{\"b\":\"c\"}]}"), SW_S("{\"a\":[1]}"), SW_S("{\"a\":[1]}")},
    {SW_S("[\"a\",\"b\"]"), SW_S("[\"c\",\"d\"]"), SW_S("[\"c\",\"d\"]")},
    {SW_S("{\"a\":\"b\"}"), SW_S("[\"c\"]"), SW_S("[\"c\"]")},
    {SW_S("{\"a\":\"foo\"}"), SW_S("null"), SW_S("null")},
    {SW_S("{\"a\":\"foo\"}"), SW_S("\"bar\""), SW_S("\"bar\"")},
    {SW_S("{\"e\":null}"), SW_S("{\"a\":1}"), SW_S("{\"e\":null,\"a\":1}")},
    {SW_S("[1,2]"), SW_S("{\"a\":\"b\",\"c\":null}"), SW_S("{\"a\":\"b\"}")},
    {SW_S("{}"), SW_S("{\"a\":{\"bb\":{\"ccc\":null}}}"), SW_S("{\"a\":{\"bb\":{}}}")},
    /* ours */
    {SW_S(""), SW_S("{\"a\":{\"x\":null,\"y\":1},\"b\":null}"), SW_S("{\"a\":{\"y\":1}}")},
    {{NULL, 0}, SW_S("{}"), SW_S("{}")},
    {SW_S(" {\"n\": 1.10 } "), SW_S(" { \"m\" : 1e400 } "), SW_S("{\"n\":1.10,\"m\":1e400}")},
    {SW_S("{\"a\":1,\"b\":2}"), SW_S("{\"\\u0062\":3}"), SW_S("{\"a\":1,\"b\":3}")},
    {SW_S("{\"a\":1}"), SW_S("{\"l\":[null,{\"x\":null}]}"),
     SW_S("{\"a\":1,\"l\":[null,{\"x\":null}]}")},
    {SW_S("{\"a\":{\"b\":{\"c\":1,\"d\":2}}}"), SW_S("{\"a\":{\"b\":{\"c\":null}}}"),
     SW_S("{\"a\":{\"b\":{\"d\":2}}}")},
    {SW_S("{\"a\":5}"), SW_S("{\"a\":{\"b\":null,\"c\":{\"d\":null}}}"),
     SW_S("{\"a\":{\"c\":{}}}")},
    {SW_S("{\"\xc3\xa9\":1}"), SW_S("{\"\xc3\xa9\":\"\xc3\xa9\"}"),
     SW_S("{\"\\u00e9\":\"\\u00e9\"}")},
};

static void merge_table(void **state)
{
    static char block[8192];
    struct guarded g1 = guarded_new(4096), g2 = guarded_new(4096);

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(merge_rows); i++) {
        size_t want = merge_rows[i].out.len;

        for (size_t cap = 0; cap <= want; cap++) {
            char room[256];
            struct sw_out out = sw_out_init(room, cap);
            struct sw_arena scratch;
            enum sw_err err;

            sw_arena_init(&scratch, block, sizeof(block));
            err = sw_json_merge(guarded_put(g1, merge_rows[i].target),
                                guarded_put(g2, merge_rows[i].patch), &out, &scratch);
            assert_int_equal(err, cap == want ? SW_OK : SW_E_LIMIT);
            assert_int_equal(scratch.used, 0);
            if (err == SW_OK && !sw_slice_eq(sw_out_done(&out), merge_rows[i].out)) {
                fail_msg("row %zu: %.*s", i, SW_SARG(sw_out_done(&out)));
            }
        }
    }
    munmap(g1.block, g1.bytes + 4096);
    munmap(g2.block, g2.bytes + 4096);
}

static void merge_many(void **state)
{
    size_t cap = 1 << 20;
    char *target = malloc(cap), *patch = malloc(cap), *room = malloc(cap), *block = malloc(cap);
    struct sw_out out = sw_out_init(patch, cap);
    struct sw_arena scratch;

    (void)state;
    /* k0 .. k4095, of which every second is taken away and the others are told anew */
    sw_out_char(&out, '{');
    for (size_t i = 0; i < SW_JSON_MEMBERS_MAX; i++) {
        sw_out_printf(&out, "%s\"k%zu\":%s", i > 0 ? "," : "", i, i % 2 == 0 ? "null" : "7");
    }
    sw_out_char(&out, '}');
    sw_arena_init(&scratch, block, cap);
    {
        struct sw_out merged = sw_out_init(room, cap);
        struct sw_json_iter it;
        struct sw_slice name, value;
        size_t count = 0;

        assert_int_equal(sw_json_merge(many(target, cap, SW_JSON_MEMBERS_MAX, SIZE_MAX),
                                       sw_out_done(&out), &merged, &scratch),
                         SW_OK);
        it = sw_json_iter(sw_out_done(&merged));
        while (sw_json_next(&it, &name, &value)) {
            char want[16];
            int n = snprintf(want, sizeof(want), "k%zu", 2 * count + 1);

            assert_true(sw_slice_eq(name, sw_slice_of(want, (size_t)n)));
            assert_true(sw_slice_eq(value, SW_S("7")));
            count++;
        }
        assert_int_equal(count, SW_JSON_MEMBERS_MAX / 2);
    }
    {
        struct sw_out merged = sw_out_init(room, cap);

        /* one more than check would accept on the way back */
        assert_int_equal(sw_json_merge(many(target, cap, SW_JSON_MEMBERS_MAX, SIZE_MAX),
                                       SW_S("{\"new\":1}"), &merged, &scratch),
                         SW_E_LIMIT);
    }
    {
        struct sw_out merged = sw_out_init(room, cap);

        sw_arena_init(&scratch, block, 64);
        assert_int_equal(sw_json_merge(SW_S("{\"a\":1}"), sw_out_done(&out), &merged, &scratch),
                         SW_E_NO_MEMORY);
        assert_int_equal(scratch.used, 0);
        assert_false(scratch.overflowed);
    }
    free(target);
    free(patch);
    free(room);
    free(block);
}

/* As deep as check allows: target and patch are walked together down to the end. */
static void merge_deep(void **state)
{
    static char target[1024], patch[1024], want[1024], room[1024], block[16384];
    struct sw_out t = sw_out_init(target, sizeof(target)), p = sw_out_init(patch, sizeof(patch)),
                  w = sw_out_init(want, sizeof(want)), out = sw_out_init(room, sizeof(room));
    struct sw_arena scratch;

    (void)state;
    sw_arena_init(&scratch, block, sizeof(block));
    for (size_t i = 0; i + 1 < SW_JSON_DEPTH_MAX; i++) {
        sw_out_lit(&t, "{\"a\":");
        sw_out_lit(&p, "{\"a\":");
        sw_out_lit(&w, "{\"a\":");
    }
    sw_out_lit(&t, "{\"x\":1,\"y\":2}");
    sw_out_lit(&p, "{\"x\":null,\"z\":3}");
    sw_out_lit(&w, "{\"y\":2,\"z\":3}");
    for (size_t i = 0; i + 1 < SW_JSON_DEPTH_MAX; i++) {
        sw_out_char(&t, '}');
        sw_out_char(&p, '}');
        sw_out_char(&w, '}');
    }
    assert_int_equal(sw_json_check(sw_out_done(&t)).err, SW_OK);
    assert_int_equal(sw_json_merge(sw_out_done(&t), sw_out_done(&p), &out, &scratch), SW_OK);
    assert_true(sw_slice_eq(sw_out_done(&out), sw_out_done(&w)));
    out = sw_out_init(room, sizeof(room));
    assert_int_equal(sw_json_merge(SW_S("{}"), sw_out_done(&p), &out, &scratch), SW_OK);
    assert_int_equal(sw_json_check(sw_out_done(&out)).err, SW_OK);
}

/* ---- looking inside ----------------------------------------------------------------------------
 */

static void iterate(void **state)
{
    struct sw_slice text = SW_S(
                        " { \"a\" : [1, {\"b\":\"]\"} , 3] ,\"\\u0062\":\"x\\ny\", \"c\":{} } "),
                    name, value;
    struct sw_json_iter it;
    char room[16];
    struct sw_out out = sw_out_init(room, sizeof(room));

    (void)state;
    assert_true(sw_json_get(text, SW_S("b"), &value));
    assert_true(sw_json_unquote(value, &out));
    assert_true(sw_slice_eq(sw_out_done(&out), SW_S("x\ny")));
    assert_true(sw_json_get(text, SW_S("c"), &value));
    assert_int_equal(sw_json_type_of(value), SW_JSON_OBJECT);
    assert_false(sw_json_get(text, SW_S("d"), &value));
    assert_false(sw_json_get(SW_S("[1]"), SW_S("a"), &value));
    assert_false(sw_json_unquote(SW_S("12"), &out));
    assert_true(sw_json_get(text, SW_S("a"), &value));
    it = sw_json_iter(value);
    assert_true(sw_json_next(&it, &name, &value));
    assert_true(sw_slice_eq(value, SW_S("1")));
    assert_true(sw_json_next(&it, &name, &value));
    assert_true(sw_slice_eq(value, SW_S("{\"b\":\"]\"}")));
    assert_true(sw_json_next(&it, &name, &value));
    assert_true(sw_slice_eq(value, SW_S("3")));
    assert_false(sw_json_next(&it, &name, &value));
    assert_false(sw_json_next(&it, &name, &value));
    it = sw_json_iter(SW_S("7"));
    assert_false(sw_json_next(&it, &name, &value));
    it = sw_json_iter((struct sw_slice){NULL, 0});
    assert_false(sw_json_next(&it, &name, &value));
    assert_true(sw_json_name_is(SW_S("a\\u0000\\u00e9"), SW_S("a\0\xc3\xa9")));
    assert_false(sw_json_name_is(SW_S("a\\u0000"), SW_S("a")));
    assert_false(sw_json_name_is(SW_S("\\u0061"), SW_S("ab")));
}

/* ---- random texts: what was built is accepted, and comes out the same
 * ---------------------------- */

static void build(struct sw_rng *rng, struct sw_out *out, size_t depth)
{
    static const char *const scalars[] = {"0",
                                          "-1.50",
                                          "1e+9",
                                          "true",
                                          "null",
                                          "\"\"",
                                          "\"x\"",
                                          "\"\\u00e9\"",
                                          "\"\xc3\xa9\"",
                                          "false",
                                          "12345678901234567890"};
    size_t count = sw_rng_below(rng, 5), kind = depth == 0 ? 2 : sw_rng_below(rng, 4);

    if (kind >= 2) {
        sw_out_cstr(out, scalars[sw_rng_below(rng, SW_COUNTOF(scalars))]);
        return;
    }
    sw_out_char(out, kind == 0 ? '{' : '[');
    for (size_t i = 0; i < count; i++) {
        sw_out_cstr(out, i > 0 ? " ," : "\t");
        if (kind == 0) {
            sw_out_printf(out, "\"%s%zu\" : ", sw_rng_below(rng, 2) ? "n" : "\\u006e", i);
        }
        build(rng, out, depth - 1);
    }
    sw_out_cstr(out, kind == 0 ? "\n}" : "\r]");
}

static void random_texts(void **state)
{
    static char a[1 << 16], b[1 << 16], c[1 << 16], d[1 << 16], block[1 << 16];
    struct sw_rng rng;

    (void)state;
    sw_rng_seed(&rng, 7);
    for (size_t i = 0; i < 2000; i++) {
        struct sw_out ta = sw_out_init(a, sizeof(a)), tb = sw_out_init(b, sizeof(b)),
                      tc = sw_out_init(c, sizeof(c)), td = sw_out_init(d, sizeof(d));
        struct sw_arena scratch;

        build(&rng, &ta, 6);
        build(&rng, &tb, 6);
        assert_int_equal(sw_json_check(sw_out_done(&ta)).err, SW_OK);
        assert_true(sw_json_compact(sw_out_done(&ta), &tc));
        assert_true(sw_json_compact(sw_out_done(&tc), &td));
        assert_true(sw_slice_eq(sw_out_done(&tc), sw_out_done(&td)));
        sw_arena_init(&scratch, block, sizeof(block));
        tc = sw_out_init(c, sizeof(c));
        td = sw_out_init(d, sizeof(d));
        assert_int_equal(sw_json_merge(sw_out_done(&ta), sw_out_done(&tb), &tc, &scratch), SW_OK);
        assert_int_equal(sw_json_check(sw_out_done(&tc)).err, SW_OK);
        /* applying a merge patch twice is applying it once */
        assert_int_equal(sw_json_merge(sw_out_done(&tc), sw_out_done(&tb), &td, &scratch), SW_OK);
        assert_true(sw_slice_eq(sw_out_done(&tc), sw_out_done(&td)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_table),
        cmocka_unit_test(check_types),
        cmocka_unit_test(check_depth),
        cmocka_unit_test(check_members),
        cmocka_unit_test(check_nested_tables),
        cmocka_unit_test(compact_table),
        cmocka_unit_test(quote_table),
        cmocka_unit_test(merge_table),
        cmocka_unit_test(merge_many),
        cmocka_unit_test(merge_deep),
        cmocka_unit_test(iterate),
        cmocka_unit_test(random_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
