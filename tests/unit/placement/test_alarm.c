/* unit/placement/test_alarm.c - alarms: the text of an answer row by row, the bytes of a record,
 * and the list between them. */
#include "placement/placement.h"
#include "../guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define NOW   1760000000000ll
#define ID_32 "abcdefghijklmnopqrstuvwxyz-_.019"
#define X64   "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X512  X64 X64 X64 X64 X64 X64 X64 X64

static const struct row {
    const char *text;
    enum sw_err err;
    bool cancel;
    int64_t due;
    const char *id, *data;
} rows[] = {
    {"in=30000;id=turn;data=\"next\"", SW_OK, false, NOW + 30000, "turn", "next"},
    {"in=5", SW_OK, false, NOW + 5, "alarm", ""},
    {"in=0", SW_OK, false, NOW, "alarm", ""},
    {"at=1760000000001", SW_OK, false, NOW + 1, "alarm", ""},
    {"at=1", SW_OK, false, 1, "alarm", ""}, /* passed: due now */
    {"cancel", SW_OK, true, 0, "alarm", ""},
    {"cancel;id=turn", SW_OK, true, 0, "turn", ""},
    /* any order, blanks behind the semicolons */
    {"id=turn;in=5", SW_OK, false, NOW + 5, "turn", ""},
    {"data=\"d\"; id=turn; in=5", SW_OK, false, NOW + 5, "turn", "d"},
    {"id=turn;cancel", SW_OK, true, 0, "turn", ""},
    {"  in=5 ; id=turn  ", SW_OK, false, NOW + 5, "turn", ""},
    /* strings */
    {"in=5;data=\"\"", SW_OK, false, NOW + 5, "alarm", ""},
    {"in=5;data=\"a;b=c, d\"", SW_OK, false, NOW + 5, "alarm", "a;b=c, d"},
    {"in=5;data=\"a\\\"b\\\\c\"", SW_OK, false, NOW + 5, "alarm", "a\"b\\c"},
    {"in=5;data=\"{\\\"n\\\":1}\";id=x", SW_OK, false, NOW + 5, "x", "{\"n\":1}"},
    {"in=5;id=\"turn\"", SW_OK, false, NOW + 5, "turn", ""},
    {"in=5;data=\"\\\\\"", SW_OK, false, NOW + 5, "alarm", "\\"},
    {"in=5;data=plain", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"a", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"a\\\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"a\\", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"a\\n\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"a\"b\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"a\"\"b\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"a\"b", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"a\tb\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"\x7f\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"caf\xc3\xa9\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    /* ids */
    {"in=5;id=" ID_32, SW_OK, false, NOW + 5, ID_32, ""},
    {"in=5;id=" ID_32 "a", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;id=\"" ID_32 "a\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;id=7", SW_OK, false, NOW + 5, "7", ""},
    {"in=5;id=", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;id=\"\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;id=a b", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;id=a/b", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;id=a,b", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;id=\xc3\xa9", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    /* times: ten years at most, and a number */
    {"in=315360000000", SW_OK, false, NOW + SW_ALARM_MS_MAX, "alarm", ""},
    {"in=315360000001", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"at=2075360000000", SW_OK, false, NOW + SW_ALARM_MS_MAX, "alarm", ""},
    {"at=2075360000001", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"at=0", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=-1", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=+1", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=1.5", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=30s", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=\"5\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"at=18446744073709551615", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=18446744073709551616", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=9223372036854775807", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    /* what is not one alarm */
    {"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {";", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {";in=5", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"id=turn", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;in=6", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;at=1760000000001", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;cancel", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"cancel;in=5", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"cancel;cancel", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"cancel=?1", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"cancel;data=\"x\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;id=a;id=b", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"a\";data=\"b\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5, in=6;id=b", SW_E_UPDATE_ALARM, false, 0, NULL, NULL}, /* two lines that were joined */
    {"in=5;every=60", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"IN=5", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in =5", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in= 5", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    /* lengths of data */
    {"in=5;data=\"" X512 "\"", SW_OK, false, NOW + 5, "alarm", X512},
    {"in=5;data=\"" X512 "x\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
    {"in=5;data=\"" X512 X512 "x\"", SW_E_UPDATE_ALARM, false, 0, NULL, NULL},
};

static void parse_rows(void **state)
{
    static char block[4096];
    struct guard guard = guard_new(4096);

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        const struct row *r = &rows[i];
        struct sw_alarm_change c = {.due_unix_ms = -1};
        struct sw_slice text = guard_put(&guard, sw_slice_cstr(r->text));
        struct sw_arena arena;
        enum sw_err err;

        sw_arena_init(&arena, block, sizeof(block));
        err = sw_alarm_parse(text, NOW, &arena, &c);
        if (err != r->err) {
            fail_msg("row %zu (%s): %s", i, r->text, sw_err_name(err));
        }
        if (err != SW_OK) {
            assert_true(c.due_unix_ms == -1); /* outputs are written on success only */
        } else if (c.cancel != r->cancel || c.due_unix_ms != r->due ||
                   !sw_slice_eq(c.id, sw_slice_cstr(r->id)) ||
                   !sw_slice_eq(c.data, sw_slice_cstr(r->data))) {
            fail_msg("row %zu (%s): due %lld, id %.*s, data %.*s", i, r->text,
                     (long long)c.due_unix_ms, SW_SARG(c.id), SW_SARG(c.data));
        }
    }
    guard_free(&guard);
}

/* What is cut short anywhere is refused or means what its words say; nothing is read behind it. */
static void cut_anywhere(void **state)
{
    static const struct sw_slice whole = SW_S("in=30000;id=turn;data=\"a\\\"b\"");
    struct guard guard = guard_new(4096);
    char block[256];

    (void)state;
    for (size_t len = 0; len <= whole.len; len++) {
        struct sw_arena arena;
        struct sw_alarm_change c;
        enum sw_err err;

        sw_arena_init(&arena, block, sizeof(block));
        err = sw_alarm_parse(guard_put(&guard, sw_slice_head(whole, len)), NOW, &arena, &c);
        assert_true(err == SW_OK || err == SW_E_UPDATE_ALARM);
        assert_true(err != SW_OK || len < 9 || c.due_unix_ms == NOW + 30000);
    }
    guard_free(&guard);
}

/* Escaped bytes count once: 1024 bytes of text are 512 of data. */
static void data_all_escaped(void **state)
{
    char text[2048], block[2048];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_arena arena;
    struct sw_alarm_change c;

    (void)state;
    sw_out_lit(&out, "in=5;data=\"");
    for (unsigned i = 0; i < SW_ALARM_DATA_BYTES_MAX; i++) {
        sw_out_lit(&out, "\\\"");
    }
    sw_out_lit(&out, "\"");
    sw_arena_init(&arena, block, sizeof(block));
    assert_int_equal(sw_alarm_parse(sw_out_done(&out), NOW, &arena, &c), SW_OK);
    assert_int_equal(c.data.len, SW_ALARM_DATA_BYTES_MAX);
    for (size_t i = 0; i < c.data.len; i++) {
        assert_true(c.data.ptr[i] == '"');
    }
}

static void arena_full(void **state)
{
    char block[64];
    struct sw_arena arena;
    struct sw_alarm_change c;

    (void)state;
    sw_arena_init(&arena, block, sizeof(block));
    assert_int_equal(sw_alarm_parse(SW_S("in=5;data=\"" X64 X64 "\""), NOW, &arena, &c),
                     SW_E_NO_MEMORY);
}

/* ---- the bytes ------------------------------------------------------------------------------- */

static struct sw_alarm alarm_of(const char *id, const char *data, int64_t due, const char *key)
{
    return (struct sw_alarm){
        .id = sw_slice_cstr(id),
        .data = sw_slice_cstr(data),
        .due_unix_ms = due,
        .attempt = 3,
        .route_ident = 0xfedcba9876543210u,
        .key_text = sw_slice_cstr(key),
    };
}

static void assert_same(const struct sw_alarm *a, const struct sw_alarm *b)
{
    assert_true(sw_slice_eq(a->id, b->id));
    assert_true(sw_slice_eq(a->data, b->data));
    assert_true(sw_slice_eq(a->key_text, b->key_text));
    assert_true(a->due_unix_ms == b->due_unix_ms);
    assert_int_equal(a->attempt, b->attempt);
    assert_true(a->route_ident == b->route_ident);
}

static struct sw_slice bytes_of(char *block, size_t cap, const struct sw_alarm *list, size_t count)
{
    struct sw_out out = sw_out_init(block, cap);

    assert_true(sw_alarms_put(&out, list, count));
    return sw_out_done(&out);
}

static void round_trip(void **state)
{
    struct sw_alarm list[] = {
        alarm_of("a", "", 1, "room:1"),
        alarm_of(ID_32, X512, INT64_MAX, "room:1"),
        alarm_of("b", "x\"\\", NOW, "visitor:0011"),
        alarm_of("c", "", NOW, ""),
    };
    struct sw_alarm back[SW_ALARMS_MAX];
    char block[SW_EXTRA_BYTES_MAX];

    (void)state;
    for (size_t count = 0; count <= SW_COUNTOF(list); count++) {
        size_t got = 99;
        struct sw_slice extra = bytes_of(block, sizeof(block), list, count);

        assert_true((count == 0) == (extra.len == 0)); /* an empty list is no bytes */
        assert_int_equal(sw_alarms_read(extra, back, &got), SW_OK);
        assert_int_equal(got, count);
        for (size_t i = 0; i < count; i++) {
            assert_same(&list[i], &back[i]);
        }
    }
}

/* The largest list of the longest key fits into what a record keeps beside its value. */
static void largest(void **state)
{
    static char key[64 + 1 + 3 * 512 + 1];
    static char names[SW_ALARMS_MAX][SW_ALARM_ID_BYTES_MAX + 1];
    struct sw_alarm list[SW_ALARMS_MAX], back[SW_ALARMS_MAX];
    char block[SW_EXTRA_BYTES_MAX];
    size_t got;

    (void)state;
    memset(key, 'k', sizeof(key) - 1);
    for (size_t i = 0; i < SW_ALARMS_MAX; i++) {
        memset(names[i], 'a' + (int)i, SW_ALARM_ID_BYTES_MAX);
        list[i] = alarm_of(names[i], X512, NOW, key);
    }
    assert_int_equal(
        sw_alarms_read(bytes_of(block, sizeof(block), list, SW_ALARMS_MAX), back, &got), SW_OK);
    assert_int_equal(got, SW_ALARMS_MAX);
    for (size_t i = 0; i < SW_ALARMS_MAX; i++) {
        assert_same(&list[i], &back[i]);
    }
}

static void no_room(void **state)
{
    struct sw_alarm list[] = {alarm_of("a", "data", NOW, "room:1"),
                              alarm_of("b", "data", NOW, "room:1")};
    char block[256];
    size_t whole = bytes_of(block, sizeof(block), list, 2).len;

    (void)state;
    for (size_t cap = 0; cap < whole; cap++) {
        struct sw_out out = sw_out_init(block, cap);

        assert_false(sw_alarms_put(&out, list, 2));
    }
}

/* A record that is damaged is told as such, wherever it is cut; one byte more is damage too. */
static void corrupt(void **state)
{
    struct sw_alarm list[] = {alarm_of("a", "data", NOW, "room:1"),
                              alarm_of("b", "data", NOW, "room:1")};
    struct guard guard = guard_new(4096);
    struct sw_alarm back[SW_ALARMS_MAX];
    char block[256];
    struct sw_slice whole = bytes_of(block, sizeof(block), list, 2);
    size_t got;

    (void)state;
    for (size_t len = 1; len < whole.len; len++) {
        assert_int_equal(sw_alarms_read(guard_put(&guard, sw_slice_head(whole, len)), back, &got),
                         SW_E_STORE_CORRUPT);
    }
    block[whole.len] = 0;
    assert_int_equal(sw_alarms_read(sw_slice_of(block, whole.len + 1), back, &got),
                     SW_E_STORE_CORRUPT);
    for (size_t at = 0; at < whole.len; at++) { /* any byte changed: an answer, never a fault */
        for (unsigned bit = 0; bit < 8; bit++) {
            enum sw_err err;

            block[at] = (char)(block[at] ^ (1 << bit));
            err = sw_alarms_read(guard_put(&guard, whole), back, &got);
            assert_true(err == SW_OK || err == SW_E_STORE_CORRUPT);
            block[at] = (char)(block[at] ^ (1 << bit));
        }
    }
    guard_free(&guard);
}

static void corrupt_rows(void **state)
{
#define FIXED(id, data, key) id "\0" data key "\0\0\0\1\0\0\0\0\0\0\0\5\1\2\3\4\5\6\7\10"
    static const struct {
        const char *name;
        struct sw_slice extra;
        enum sw_err err;
    } bad[] = {
        {"as it should be", SW_S("\1\1" FIXED("\1", "\0", "\0\1") "ak"), SW_OK},
        {"another format", SW_S("\2\1" FIXED("\1", "\0", "\0\1") "ak"), SW_E_STORE_CORRUPT},
        {"none of them", SW_S("\1\0"), SW_E_STORE_CORRUPT},
        {"nine of them", SW_S("\1\11" FIXED("\1", "\0", "\0\1") "ak"), SW_E_STORE_CORRUPT},
        {"no id", SW_S("\1\1" FIXED("\0", "\0", "\0\1") "k"), SW_E_STORE_CORRUPT},
        {"a blank as id", SW_S("\1\1" FIXED("\1", "\0", "\0\1") " k"), SW_E_STORE_CORRUPT},
        {"LF in data", SW_S("\1\1" FIXED("\1", "\1", "\0\1") "a\nk"), SW_E_STORE_CORRUPT},
        {"LF in the key", SW_S("\1\1" FIXED("\1", "\0", "\0\1") "a\n"), SW_E_STORE_CORRUPT},
        {"due at no time", SW_S("\1\1\1\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0\0\1\2\3\4\5\6\7\10ak"),
         SW_E_STORE_CORRUPT},
        {"due beyond time", SW_S("\1\1\1\0\0\0\1\0\0\0\1\377\0\0\0\0\0\0\0\1\2\3\4\5\6\7\10ak"),
         SW_E_STORE_CORRUPT},
        {"one id twice",
         SW_S("\1\2" FIXED("\1", "\0", "\0\1") "ak" FIXED("\1", "\0", "\377\377") "a"),
         SW_E_STORE_CORRUPT},
    };
    struct sw_alarm back[SW_ALARMS_MAX];
    size_t got;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(bad); i++) {
        if (sw_alarms_read(bad[i].extra, back, &got) != bad[i].err) {
            fail_msg("%s", bad[i].name);
        }
    }
}

/* ---- the list -------------------------------------------------------------------------------- */

static struct sw_alarm_change set(const char *id, int64_t due)
{
    return (struct sw_alarm_change){.id = sw_slice_cstr(id), .due_unix_ms = due};
}

static struct sw_alarm_change cancel(const char *id)
{
    return (struct sw_alarm_change){.cancel = true, .id = sw_slice_cstr(id)};
}

static void changes(void **state)
{
    static const char *const ids[] = {"0", "1", "2", "3", "4", "5", "6", "7"};
    struct sw_alarm list[SW_ALARMS_MAX] = {{.due_unix_ms = 0}};
    struct sw_alarm_change c;
    size_t count = 0;

    (void)state;
    assert_true(sw_alarms_due(list, 0) == 0);
    c = cancel("0"); /* nothing to cancel is no error */
    assert_int_equal(sw_alarms_change(list, &count, &c, 7, SW_S("room:1")), SW_OK);
    assert_int_equal(count, 0);
    for (size_t i = 0; i < SW_ALARMS_MAX; i++) {
        c = set(ids[i], NOW + 100 - (int64_t)i);
        assert_int_equal(sw_alarms_change(list, &count, &c, 7, SW_S("room:1")), SW_OK);
        assert_int_equal(count, i + 1);
        assert_true(sw_alarms_due(list, count) == NOW + 100 - (int64_t)i);
    }
    c = set("8", NOW);
    assert_int_equal(sw_alarms_change(list, &count, &c, 7, SW_S("room:1")), SW_E_UPDATE_ALARM);
    assert_int_equal(count, SW_ALARMS_MAX);

    /* a full list still takes one in another's place, which is then as new */
    list[3].attempt = 5;
    c = set("3", NOW + 1);
    c.data = SW_S("later");
    assert_int_equal(sw_alarms_change(list, &count, &c, 8, SW_S("room:2")), SW_OK);
    assert_int_equal(count, SW_ALARMS_MAX);
    assert_int_equal(list[3].attempt, 0);
    assert_true(list[3].route_ident == 8);
    assert_true(sw_slice_eq(list[3].key_text, SW_S("room:2")));
    assert_true(sw_slice_eq(list[3].data, SW_S("later")));
    assert_true(list[3].due_unix_ms == NOW + 1);
    assert_true(sw_alarms_due(list, count) == NOW + 1);

    /* from the middle, the end, the beginning; the others stay in their order */
    c = cancel("3");
    assert_int_equal(sw_alarms_change(list, &count, &c, 7, SW_S("room:1")), SW_OK);
    c = cancel("7");
    assert_int_equal(sw_alarms_change(list, &count, &c, 7, SW_S("room:1")), SW_OK);
    c = cancel("0");
    assert_int_equal(sw_alarms_change(list, &count, &c, 7, SW_S("room:1")), SW_OK);
    c = cancel("0");
    assert_int_equal(sw_alarms_change(list, &count, &c, 7, SW_S("room:1")), SW_OK);
    assert_int_equal(count, 5);
    for (size_t i = 0; i < count; i++) {
        static const char *const left[] = {"1", "2", "4", "5", "6"};

        assert_true(sw_slice_eq(list[i].id, sw_slice_cstr(left[i])));
    }
    assert_true(sw_alarms_due(list, count) == NOW + 94);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_rows),   cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(arena_full),   cmocka_unit_test(data_all_escaped),
        cmocka_unit_test(round_trip),   cmocka_unit_test(largest),
        cmocka_unit_test(no_room),      cmocka_unit_test(corrupt),
        cmocka_unit_test(corrupt_rows), cmocka_unit_test(changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
