/* admin/records.c: records as lines and back; lines of all kinds of wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "admin/admin_priv.h"
#include "base/json.h"
#include "base/rng.h"

#define HANDLE "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

static struct sw_store_key key_of(uint8_t first)
{
    struct sw_store_key key;

    for (size_t i = 0; i < sizeof(key.bytes); i++) {
        key.bytes[i] = (uint8_t)(first + i);
    }
    return key;
}

static struct sw_slice extra_of(char *buf, size_t size)
{
    struct sw_out out = sw_out_init(buf, size);
    struct sw_alarm list[2] = {
        {SW_S("turn"), SW_S("x"), 1760000000123, 0, 7, SW_S("room:42")},
        {SW_S("end"), SW_S(""), 1760000005000, 2, 7, SW_S("room:42")},
    };

    assert_true(sw_alarms_put(&out, list, 2));
    return sw_out_done(&out);
}

/* Text in a block of exactly its size, so that reading behind it is seen. */
static struct sw_slice exact(const char *text, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);

    assert_non_null(copy);
    memcpy(copy, text, len);
    return (struct sw_slice){copy, len};
}

/* ---- there and back -------------------------------------------------------------------------- */

static void same(const struct sw_record *a, const struct sw_record *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->created_unix_s, b->created_unix_s);
    assert_int_equal(a->touched_unix_s, b->touched_unix_s);
    assert_int_equal(a->expires_unix_s, b->expires_unix_s);
    assert_int_equal(a->absolute_unix_s, b->absolute_unix_s);
    assert_int_equal(a->bound_unix_ms, b->bound_unix_ms);
    assert_int_equal(a->due_unix_ms, b->due_unix_ms);
    assert_int_equal(a->sealed, b->sealed);
    assert_true(sw_slice_eq(a->subject, b->subject));
    assert_true(sw_slice_eq(a->extra, b->extra));
    assert_true(sw_slice_eq(a->value, b->value));
}

/* A line in memory of exactly what was promised, read back. */
static void round_trip(const struct sw_record *r)
{
    struct sw_store_key key = key_of(0);
    size_t bytes = sw_admin__line_bytes(r->value.len);
    char *text = malloc(bytes), *scratch = malloc(bytes), *page = malloc(bytes);
    struct sw_out out = sw_out_init(text, bytes), back = sw_out_init(scratch, bytes);
    struct sw_out one = sw_out_init(page, bytes);
    struct sw_admin_line line;
    struct sw_json_checked checked;
    const char *why;

    sw_admin__line_put(&out, &key, r);
    assert_false(out.overflowed);
    assert_int_equal(out.ptr[out.len - 1], '\n');
    assert_null(memchr(out.ptr, '\n', out.len - 1));
    why = sw_admin__line_read((struct sw_slice){out.ptr, out.len - 1}, &back, &line);
    if (why != NULL) {
        fail_msg("%s: %.*s", why, SW_SARG(sw_out_done(&out)));
    }
    assert_memory_equal(&line.key, &key, sizeof(key));
    same(&line.record, r);

    sw_admin__one_put(&one, &key, r);
    assert_false(one.overflowed);
    checked = sw_json_check(sw_out_done(&one));
    assert_true(checked.err == SW_OK || strcmp(checked.why, "depth") == 0);
    one = sw_out_init(page, ADMIN_ENTRY_BYTES);
    sw_admin__entry_put(&one, &key, r);
    assert_false(one.overflowed);
    checked = sw_json_check(sw_out_done(&one));
    assert_int_equal(checked.err, SW_OK);
    free(text);
    free(scratch);
    free(page);
}

static void round_trips(void **state)
{
    char extra[1024], deep[2 * 64 + 8], bytes[256], everything[SW_SUBJECT_BYTES_MAX];
    struct sw_record r = {
        .kind = SW_RECORD_STATE,
        .version = {UINT64_MAX, UINT64_MAX},
        .created_unix_s = 1760000000,
        .touched_unix_s = 1760000001,
        .expires_unix_s = 1760001800,
        .absolute_unix_s = 1760086400,
        .bound_unix_ms = 1760000000123,
        .value = SW_S("{\"n\":1.10,\"big\":1e400,\"s\":\"zo\\u00eb\",\"a\":[1,2,{}]}"),
    };
    struct sw_out out = sw_out_init(deep, sizeof(deep));

    (void)state;
    round_trip(&r);
    r.extra = extra_of(extra, sizeof(extra));
    r.due_unix_ms = 1760000000123;
    r.subject = SW_S("alice \"\\ \t/ zo\xc3\xab");
    round_trip(&r);
    r.subject = SW_S("\xff\xfe\0x"); /* no text says this */
    round_trip(&r);
    r.subject = SW_S("\xef\xbf\xbd"); /* the character that stands for what no text says */
    round_trip(&r);
    for (size_t i = 0; i < sizeof(everything); i++) {
        everything[i] = (char)(i + 1);
    }
    r.subject = sw_slice_of(everything, sizeof(everything));
    round_trip(&r);
    memset(everything, 1, sizeof(everything)); /* each one is an escape of six */
    round_trip(&r);

    for (size_t i = 0; i < 63; i++) { /* as deep as a state can be: too deep inside of a line */
        sw_out_lit(&out, "[");
    }
    out.ptr[0] = '{';
    out.len = 1;
    sw_out_lit(&out, "\"a\":");
    for (size_t i = 0; i < 63; i++) {
        sw_out_char(&out, '[');
    }
    for (size_t i = 0; i < 63; i++) {
        sw_out_char(&out, ']');
    }
    sw_out_char(&out, '}');
    r.value = sw_out_done(&out);
    assert_int_equal(sw_json_check(r.value).err, SW_OK);
    round_trip(&r);

    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (char)i;
    }
    r.value = sw_slice_of(bytes, sizeof(bytes));
    r.extra = (struct sw_slice){NULL, 0};
    r.due_unix_ms = 0;
    r.sealed = true;
    round_trip(&r);
    r.sealed = false;
    r.kind = SW_RECORD_CLAIM;
    round_trip(&r);
    r = (struct sw_record){.kind = SW_RECORD_TOMBSTONE, .version = {1, 2}, .expires_unix_s = 9};
    round_trip(&r);
    r = (struct sw_record){.kind = SW_RECORD_STATE, .version = {1, 1}, .value = SW_S("{}")};
    round_trip(&r); /* never ends */
}

/* ---- lines ----------------------------------------------------------------------------------- */

#define L(more) "{\"handle\":\"" HANDLE "\",\"kind\":\"state\"" more "}"
static const struct {
    const char *line, *why; /* NULL: taken */
    const char *value;      /* then */
} rows[] = {
    {L(",\"value\":{}"), NULL, "{}"},
    {L(",\"value\":{ \"a\" : 1.0 }"), NULL, "{\"a\":1.0}"},
    {L(",\"value\":{\"a\":\"\xc3\xab\"}"), NULL, "{\"a\":\"\\u00eb\"}"},
    {L(",\"value_b64\":\"eyAgfQ\""), NULL, "{}"}, /* "{  }" */
    {L(",\"value\":{},\"subject\":null,\"extra\":null,\"expires\":null,\"sealed\":false"), NULL,
     "{}"},
    {" " L(",\"value\":{}"), NULL, "{}"},
    {"{\"value\":{},\"kind\":\"state\",\"handle\":\"" HANDLE "\"}", NULL, "{}"},
    {"{\"\\u0068andle\":\"" HANDLE "\",\"kind\":\"st\\u0061te\",\"value\":{}}", NULL, "{}"},
    {"", "no JSON object", NULL},
    {"x", "no JSON object", NULL},
    {"[]", "no JSON object", NULL},
    {"{}", "at least", NULL},
    {L(""), "no value", NULL},
    {L(",\"value\":{}") "x", "no JSON object", NULL},
    {L(",\"value\":{},\"value\":{}"), "no JSON object", NULL}, /* twice */
    {L(",\"value\":[]"), "JSON object", NULL},
    {L(",\"value\":null"), "JSON object", NULL},
    {L(",\"value\":\"{}\""), "JSON object", NULL},
    {L(",\"value\":{},\"value_b64\":\"e30\""), "do not go together", NULL},
    {L(",\"value_b64\":\"e30=\""), "base64url", NULL},
    {L(",\"value_b64\":\"e3\""), "base64url", NULL},
    {L(",\"value_b64\":\"ew\""), "not JSON", NULL},
    {L(",\"value_b64\":\"e3t9\""), "not JSON", NULL}, /* "{{}" */
    {L(",\"value_b64\":\"W10\""), "JSON object", NULL},
    {L(",\"value_b64\":{}"), "base64url", NULL},
    {L(",\"value_b64\":\"\""), "no value", NULL},
    {L(",\"value\":{},\"sealed\":true"), "sealed", NULL},
    {L(",\"value\":{},\"sealed\":1"), "`sealed`", NULL},
    {L(",\"value\":{},\"expires\":-1"), "whole number", NULL},
    {L(",\"value\":{},\"expires\":1.5"), "whole number", NULL},
    {L(",\"value\":{},\"expires\":\"1\""), "whole number", NULL},
    {L(",\"value\":{},\"expires\":99999999999999999999"), "whole number", NULL},
    {L(",\"value\":{},\"bound_ms\":9223372036854775807"), "whole number", NULL},
    {L(",\"value\":{},\"subject\":1"), "`subject`", NULL},
    {L(",\"value\":{},\"subject\":\"a\",\"subject_b64\":\"YQ\""), "do not go together", NULL},
    {L(",\"value\":{},\"version\":1"), "`version`", NULL},
    {L(",\"value\":{},\"extra\":\"AAAA\""), "alarms", NULL},
    {L(",\"value\":{},\"extra\":\"!\""), "base64url", NULL},
    {L(",\"value\":{},\"due_ms\":1000"), NULL, "{}"}, /* what is due, the alarms say */
    {L(",\"value_b64\":\"AAAA\",\"sealed\":true,\"extra\":\"AQ\""), "not sealed", NULL},
    {"{\"handle\":\"" HANDLE "\",\"kind\":\"tombstone\",\"extra\":\"AQ\"}", "alarms", NULL},
    {L(",\"value\":{},\"more\":1"), "not known", NULL},
    {"{\"handle\":\"" HANDLE "\",\"kind\":\"alias\",\"value_b64\":\"AAAA\"}", "`kind`", NULL},
    {"{\"handle\":\"" HANDLE "\",\"kind\":1,\"value\":{}}", "`kind`", NULL},
    {"{\"handle\":\"" HANDLE "\",\"kind\":\"tombstone\",\"value\":{}}", "has ended", NULL},
    {"{\"handle\":\"" HANDLE "\",\"kind\":\"tombstone\"}", NULL, ""},
    {"{\"handle\":\"" HANDLE "\",\"kind\":\"claim\",\"value\":{}}", "claim", NULL},
    {"{\"handle\":\"AAA\",\"kind\":\"state\",\"value\":{}}", "`handle`", NULL},
    {"{\"handle\":5,\"kind\":\"state\",\"value\":{}}", "`handle`", NULL},
    {"{\"kind\":\"state\",\"value\":{}}", "at least", NULL},
};

static void lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_slice text = exact(rows[i].line, strlen(rows[i].line));
        char scratch[4096];
        struct sw_out out = sw_out_init(scratch, sizeof(scratch));
        struct sw_admin_line line;
        const char *why = sw_admin__line_read(sw_slice_trim(text), &out, &line);

        if ((why == NULL) != (rows[i].why == NULL) ||
            (why != NULL && strstr(why, rows[i].why) == NULL)) {
            fail_msg("%s: %s", rows[i].line, why == NULL ? "taken" : why);
        }
        if (why == NULL && !sw_slice_eq(line.record.value, sw_slice_cstr(rows[i].value))) {
            fail_msg("%s: %.*s", rows[i].line, SW_SARG(line.record.value));
        }
        free((void *)(uintptr_t)text.ptr);
    }
}

/* Every cut of a line is refused, and every scratch that is too small says so. */
static void short_of(void **state)
{
    static const char whole[] = L(",\"subject\":\"alice\",\"value\":{\"a\":\"\xc3\xab\xc3\xab\"}");

    (void)state;
    for (size_t cut = 0; cut < sizeof(whole) - 1; cut++) {
        struct sw_slice text = exact(whole, cut);
        char scratch[1024];
        struct sw_out out = sw_out_init(scratch, sizeof(scratch));
        struct sw_admin_line line;

        assert_non_null(sw_admin__line_read(text, &out, &line));
        free((void *)(uintptr_t)text.ptr);
    }
    for (size_t room = 0; room < 64; room++) {
        char *scratch = malloc(room + 1);
        struct sw_out out = sw_out_init(scratch, room);
        struct sw_admin_line line;
        const char *why = sw_admin__line_read(sw_slice_of(whole, sizeof(whole) - 1), &out, &line);

        if (why == NULL) {
            assert_true(room >= 5 + strlen("{\"a\":\"\\u00eb\\u00eb\"}"));
        } else {
            assert_true(out.overflowed);
        }
        free(scratch);
    }
}

/* Random damage: refused or taken, never a crash, and what was taken can be written again. */
static void damaged(void **state)
{
    static const char *const wholes[] = {
        L(",\"version\":\"3f2-17\",\"created\":1760000000,\"expires\":1760001800,\"subject\":"
          "\"alice\",\"value\":{\"cart\":[1,2,3]}"),
        L(",\"sealed\":true,\"value_b64\":\"AAECAwQFBgcICQ\",\"subject_b64\":\"_w\""),
        "{\"handle\":\"" HANDLE "\",\"kind\":\"claim\",\"value_b64\":\"AAECAw\",\"expires\":9}",
    };
    struct sw_rng rng;

    (void)state;
    sw_rng_seed(&rng, 7);
    for (size_t n = 0; n < 60000; n++) {
        const char *whole = wholes[n % SW_COUNTOF(wholes)];
        char text[512], scratch[1024];
        size_t len = strlen(whole), hits = 1 + sw_rng_below(&rng, 3);
        struct sw_out out = sw_out_init(scratch, sizeof(scratch));
        struct sw_admin_line line;
        struct sw_slice copy;

        memcpy(text, whole, len);
        for (size_t h = 0; h < hits; h++) {
            static const char letters[] = "{}[]\":,\\0e-_ \x01\xff";
            size_t at = sw_rng_below(&rng, len);

            text[at] = letters[sw_rng_below(&rng, sizeof(letters))];
        }
        copy = exact(text, len);
        if (sw_admin__line_read(copy, &out, &line) == NULL) {
            assert_int_equal(line.record.due_unix_ms, 0); /* no alarm, nothing is due */
            round_trip(&line.record);
        }
        free((void *)(uintptr_t)copy.ptr);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(lines),
        cmocka_unit_test(short_of),
        cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
