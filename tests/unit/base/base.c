/* base/: arena, out, pool, slice, rng, list, the table of errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/list.h"
#include "base/out.h"
#include "base/pool.h"
#include "base/rng.h"

/* ---- arena ------------------------------------------------------------------------------------
 */

static void arena_align(void **state)
{
    _Alignas(16) char block[256];
    struct sw_arena a;
    uint64_t *p;
    size_t mark;

    (void)state;
    memset(block, 0x55, sizeof(block));
    sw_arena_init(&a, block + 1, sizeof(block) - 1); /* wherever the block begins */
    (void)sw_arena_bytes(&a, 3);
    p = sw_arena_array(&a, 3, uint64_t);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 16, 0);
    assert_true(p[0] == 0 && p[1] == 0 && p[2] == 0);
    mark = sw_arena_mark(&a);
    memset(p, 0xff, 3 * sizeof(*p));
    (void)sw_arena_bytes(&a, 10);
    sw_arena_reset(&a, mark);
    assert_int_equal(a.used, mark);
    assert_non_null(sw_arena_alloc(&a, 0, 8)); /* nothing is something */
}

static void arena_overflow(void **state)
{
    _Alignas(16) char block[64];
    struct sw_arena a;

    (void)state;
    sw_arena_init(&a, block, sizeof(block));
    assert_non_null(sw_arena_bytes(&a, 64));
    assert_false(a.overflowed);
    assert_null(sw_arena_bytes(&a, 1));
    assert_true(a.overflowed);
    assert_null(sw_arena_bytes(&a, 0)); /* sticky, even for nothing */
    assert_null(sw_arena_copy(&a, SW_S("")).ptr);
    assert_null(sw_arena_cstr(&a, SW_S("")));
    assert_null(sw_arena_printf(&a, "%d", 1).ptr);
    sw_arena_reset(&a, 0);
    assert_null(sw_arena_alloc(&a, SIZE_MAX / 2, 4)); /* the product overflows */
    assert_true(a.overflowed);
    sw_arena_reset(&a, 0);
    assert_null(sw_arena_alloc(&a, 1, SIZE_MAX));
}

static void arena_text(void **state)
{
    char block[32];
    struct sw_arena a;
    struct sw_slice s;

    (void)state;
    sw_arena_init(&a, block, sizeof(block));
    s = sw_arena_copy(&a, SW_S("abc"));
    assert_true(sw_slice_eq(s, SW_S("abc")));
    assert_string_equal(sw_arena_cstr(&a, SW_S("def")), "def");
    s = sw_arena_printf(&a, "%s-%d", "x", 42);
    assert_true(sw_slice_eq(s, SW_S("x-42")));
    assert_int_equal(a.used, 3 + 4 + 4);
    assert_null(sw_arena_printf(&a, "%21s", "").ptr); /* 21 left, vsnprintf wants one for its NUL */
    assert_true(a.overflowed);
}

/* ---- out --------------------------------------------------------------------------------------
 */

static void out_numbers(void **state)
{
    char room[128];
    struct sw_out o = sw_out_init(room, sizeof(room));

    (void)state;
    sw_out_u64(&o, 0);
    sw_out_char(&o, ' ');
    sw_out_u64(&o, UINT64_MAX);
    sw_out_lit(&o, " ");
    sw_out_i64(&o, INT64_MIN);
    sw_out_char(&o, ' ');
    sw_out_i64(&o, -1);
    sw_out_char(&o, ' ');
    sw_out_hex(&o, 0, 0);
    sw_out_char(&o, ' ');
    sw_out_hex(&o, 0xabc, 6);
    sw_out_char(&o, ' ');
    sw_out_hex(&o, UINT64_MAX, 2);
    assert_true(
        sw_slice_eq(sw_out_done(&o), SW_S("0 18446744073709551615 -9223372036854775808 -1 0 000abc "
                                          "ffffffffffffffff")));
}

/* At every capacity: all of it, or a head of it and the mark. */
static void out_overflow(void **state)
{
    static const char want[] = "ab12cdef-7x";
    char room[32];

    (void)state;
    for (size_t cap = 0; cap <= sizeof(room); cap++) {
        struct sw_out o = sw_out_init(room, cap);

        memset(room, '#', sizeof(room));
        sw_out_lit(&o, "ab");
        sw_out_u64(&o, 12);
        sw_out_cstr(&o, "cd");
        sw_out_slice(&o, SW_S("ef"));
        sw_out_i64(&o, -7);
        sw_out_char(&o, 'x');
        assert_int_equal(o.overflowed, cap < sizeof(want) - 1);
        assert_true(o.len <= cap);
        assert_memory_equal(room, want, o.len);
        assert_true(o.overflowed || o.len == sizeof(want) - 1);
        for (size_t i = o.len; i < sizeof(room); i++) {
            assert_int_equal(room[i], '#');
        }
        if (o.overflowed) {
            size_t len = o.len;

            sw_out_put(&o, "", 0);
            sw_out_char(&o, 'y'); /* nothing more, even if it would fit */
            sw_out_printf(&o, "%s", "z");
            assert_int_equal(o.len, len);
        }
    }
}

static void out_printf(void **state)
{
    char room[8];
    struct sw_out o = sw_out_init(room, sizeof(room));

    (void)state;
    sw_out_printf(&o, "%d", 1234567); /* and the NUL of vsnprintf */
    assert_false(o.overflowed);
    assert_int_equal(o.len, 7);
    o = sw_out_init(room, sizeof(room));
    sw_out_printf(&o, "%d", 12345678);
    assert_true(o.overflowed);
    assert_int_equal(o.len, 0);
    o = sw_out_init(NULL, 0);
    sw_out_printf(&o, "%s", "");
    assert_int_equal(o.len, 0);
}

/* ---- pool -------------------------------------------------------------------------------------
 */

static void pool_all(void **state)
{
    enum { COUNT = 100 };
    void *slots[COUNT];
    struct sw_pool p;

    (void)state;
    assert_true(sw_pool_init(&p, 24, COUNT));
    for (int turn = 0; turn < 3; turn++) {
        for (size_t i = 0; i < COUNT; i++) {
            slots[i] = sw_pool_get(&p);
            assert_non_null(slots[i]);
            assert_int_equal((uintptr_t)slots[i] % 16, 0);
            memset(slots[i], (int)i, 24);
            assert_int_equal(p.used, i + 1);
        }
        assert_null(sw_pool_get(&p));
        for (size_t i = 0; i < COUNT; i++) {
            for (size_t j = 0; j < 24; j++) {
                assert_int_equal(((unsigned char *)slots[i])[j], i); /* no two overlap */
            }
        }
        for (size_t i = 0; i < COUNT; i++) {
            sw_pool_put(&p, slots[(i * 37) % COUNT]);
        }
        assert_int_equal(p.used, 0);
    }
    slots[0] = sw_pool_get(&p);
    sw_pool_put(&p, slots[0]);
    assert_ptr_equal(sw_pool_get(&p), slots[0]); /* the warm one */
    sw_pool_fini(&p);
    sw_pool_fini(&p);
    assert_false(sw_pool_init(&p, SIZE_MAX / 2, 4));
}

/* ---- slice ------------------------------------------------------------------------------------
 */

static void slice_compare(void **state)
{
    struct sw_slice none = {NULL, 0};

    (void)state;
    assert_true(sw_slice_eq(none, SW_S("")));
    assert_true(sw_slice_eq(SW_S("a\0b"), SW_S("a\0b")));
    assert_false(sw_slice_eq(SW_S("a\0b"), SW_S("a\0c")));
    assert_true(sw_slice_eq_nocase(SW_S("Content-LENGTH"), SW_S("content-length")));
    assert_false(sw_slice_eq_nocase(SW_S("[a"), SW_S("{a"))); /* 0x20 apart, but no letters */
    assert_false(sw_slice_eq_nocase(SW_S("@"), SW_S("`")));
    assert_false(sw_slice_eq_nocase(SW_S("\xc3\x89"), SW_S("\xc3\xa9")));
    assert_true(sw_slice_starts(SW_S("abc"), SW_S("ab")));
    assert_true(sw_slice_starts(SW_S("abc"), none));
    assert_false(sw_slice_starts(SW_S("a"), SW_S("ab")));
    assert_true(sw_slice_starts_nocase(SW_S("ABc"), SW_S("ab")));
    assert_true(sw_slice_ends(SW_S("abc"), SW_S("bc")));
    assert_true(sw_slice_ends(SW_S("abc"), SW_S("")));
    assert_false(sw_slice_ends(SW_S("c"), SW_S("bc")));
    assert_true(sw_slice_eq_secret(SW_S("abc"), SW_S("abc")));
    assert_false(sw_slice_eq_secret(SW_S("abc"), SW_S("abd")));
    assert_false(sw_slice_eq_secret(SW_S("abc"), SW_S("ab")));
    assert_true(sw_slice_eq_secret(none, SW_S("")));
    assert_int_equal(sw_slice_cstr(NULL).len, 0);
    assert_true(sw_slice_eq(sw_slice_cstr("xy"), SW_S("xy")));
}

static void slice_find(void **state)
{
    struct sw_slice head, rest, none = {NULL, 0};

    (void)state;
    assert_int_equal(sw_slice_find(SW_S("a=b=c"), '='), 1);
    assert_int_equal(sw_slice_find(SW_S("abc"), '='), 3);
    assert_int_equal(sw_slice_find(none, '='), 0);
    assert_int_equal(sw_slice_find_slice(SW_S("xxabyab"), SW_S("ab")), 2);
    assert_int_equal(sw_slice_find_slice(SW_S("xxa"), SW_S("ab")), 3);
    assert_int_equal(sw_slice_find_slice(SW_S("xx"), SW_S("")), 0);
    assert_int_equal(sw_slice_find_slice(none, SW_S("a")), 0);
    assert_true(sw_slice_cut(SW_S("a=b=c"), '=', &head, &rest));
    assert_true(sw_slice_eq(head, SW_S("a")));
    assert_true(sw_slice_eq(rest, SW_S("b=c")));
    assert_true(sw_slice_cut(SW_S("a="), '=', &head, &rest));
    assert_int_equal(rest.len, 0);
    assert_false(sw_slice_cut(SW_S("abc"), '=', &head, &rest));
    assert_true(sw_slice_eq(head, SW_S("abc")));
    assert_int_equal(rest.len, 0);
    assert_true(sw_slice_eq(sw_slice_head(SW_S("abc"), 9), SW_S("abc")));
    assert_true(sw_slice_eq(sw_slice_tail(SW_S("abc"), 1), SW_S("bc")));
    assert_int_equal(sw_slice_tail(SW_S("abc"), 9).len, 0);
    assert_true(sw_slice_eq(sw_slice_trim(SW_S(" \ta b\t ")), SW_S("a b")));
    assert_int_equal(sw_slice_trim(SW_S(" \t ")).len, 0);
    assert_true(sw_slice_eq(sw_slice_trim(SW_S("\na\r")), SW_S("\na\r"))); /* OWS only */
}

static void slice_numbers(void **state)
{
    static const struct {
        struct sw_slice in;
        bool dec_ok;
        uint64_t dec;
        bool hex_ok;
        uint64_t hex;
    } rows[] = {
        {SW_S("0"), true, 0, true, 0},
        {SW_S("007"), true, 7, true, 7},
        {SW_S("18446744073709551615"), true, UINT64_MAX, false, 0},
        {SW_S("18446744073709551616"), false, 0, false, 0},
        {SW_S("99999999999999999999"), false, 0, false, 0},
        {SW_S("ffffffffffffffff"), false, 0, true, UINT64_MAX},
        {SW_S("FfA0"), false, 0, true, 0xffa0},
        {SW_S("10000000000000000"), true, 10000000000000000u, false, 0},
        {SW_S(""), false, 0, false, 0},
        {SW_S("-1"), false, 0, false, 0},
        {SW_S("+1"), false, 0, false, 0},
        {SW_S(" 1"), false, 0, false, 0},
        {SW_S("1 "), false, 0, false, 0},
        {SW_S("0x1"), false, 0, false, 0},
        {SW_S("1_0"), false, 0, false, 0},
        {SW_S("g"), false, 0, false, 0},
        {SW_S("1\0"), false, 0, false, 0},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        uint64_t v = 77;

        assert_int_equal(sw_slice_u64(rows[i].in, &v), rows[i].dec_ok);
        assert_int_equal(v, rows[i].dec_ok ? rows[i].dec : 77);
        v = 77;
        assert_int_equal(sw_slice_hex_u64(rows[i].in, &v), rows[i].hex_ok);
        assert_int_equal(v, rows[i].hex_ok ? rows[i].hex : 77);
    }
}

/* Spread over buckets, whatever the length; other seeds give other hashes. */
static void slice_hash(void **state)
{
    enum { BUCKETS = 64, KEYS = 64000 };
    unsigned counts[BUCKETS] = {0};

    (void)state;
    for (unsigned i = 0; i < KEYS; i++) {
        char text[16];
        int n = snprintf(text, sizeof(text), "key%u", i);

        counts[sw_slice_hash(sw_slice_of(text, (size_t)n), 1) % BUCKETS]++;
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        assert_in_range(counts[i], KEYS / BUCKETS * 8 / 10, KEYS / BUCKETS * 12 / 10);
    }
    for (size_t a = 0; a < 20; a++) { /* zeros of different length are different */
        static const char zeros[20];

        for (size_t b = 0; b < a; b++) {
            assert_true(sw_slice_hash(sw_slice_of(zeros, a), 5) !=
                        sw_slice_hash(sw_slice_of(zeros, b), 5));
        }
    }
    assert_true(sw_slice_hash(SW_S("a"), 1) != sw_slice_hash(SW_S("a"), 2));
    assert_true(sw_slice_hash(SW_S("a"), 1) == sw_slice_hash(SW_S("a"), 1));
}

/* ---- rng --------------------------------------------------------------------------------------
 */

static void rng_stream(void **state)
{
    /* xoshiro256** from the state {1, 2, 3, 4}: the authors' reference code, xoshiro256starstar.c
     */
    static const uint64_t want[] = {11520, 0, 1509978240, 1215971899390074240};
    struct sw_rng r = {{1, 2, 3, 4}}, a, b;
    unsigned counts[10] = {0};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(want); i++) {
        assert_int_equal(sw_rng_u64(&r), want[i]);
    }
    sw_rng_seed(&a, 7);
    sw_rng_seed(&b, 7);
    assert_int_equal(sw_rng_u64(&a), sw_rng_u64(&b));
    sw_rng_seed(&b, 8);
    assert_true(sw_rng_u64(&a) != sw_rng_u64(&b));
    sw_rng_seed(&a, 0); /* splitmix64: no zero state */
    assert_true((a.s[0] | a.s[1] | a.s[2] | a.s[3]) != 0);
    for (size_t i = 0; i < 100000; i++) {
        uint64_t v = sw_rng_below(&a, 10);

        assert_true(v < 10);
        counts[v]++;
    }
    for (size_t i = 0; i < 10; i++) {
        assert_in_range(counts[i], 9500, 10500);
    }
    assert_int_equal(sw_rng_below(&a, 1), 0);
}

/* ---- list -------------------------------------------------------------------------------------
 */

struct item {
    int value;
    struct sw_link link;
};

static void list_all(void **state)
{
    struct item items[4] = {{1, {0}}, {2, {0}}, {3, {0}}, {4, {0}}};
    struct sw_link head;
    int order = 0;

    (void)state;
    sw_list_init(&head);
    assert_true(sw_list_empty(&head));
    assert_null(sw_list_pop_front(&head));
    sw_list_push_back(&head, &items[1].link);
    sw_list_push_back(&head, &items[2].link);
    sw_list_push_front(&head, &items[0].link);
    sw_list_push_back(&head, &items[3].link);
    assert_true(sw_link_linked(&items[2].link));
    sw_link_remove(&items[2].link);
    assert_false(sw_link_linked(&items[2].link));
    sw_link_remove(&items[2].link); /* twice is allowed */
    for (struct sw_link *l = head.next; l != &head; l = l->next) {
        order = order * 10 + SW_CONTAINER(l, struct item, link)->value;
    }
    assert_int_equal(order, 124);
    assert_ptr_equal(sw_list_pop_front(&head), &items[0].link);
    sw_list_push_back(&head, &items[0].link);
    assert_ptr_equal(head.prev, &items[0].link);
    while (sw_list_pop_front(&head) != NULL) {
    }
    assert_true(sw_list_empty(&head));
}

/* ---- the table of errors ------------------------------------------------------------------------
 */

static void errors_table(void **state)
{
    (void)state;
    assert_string_equal(sw_err_name(SW_OK), "SW_OK");
    assert_string_equal(sw_err_name(SW_E_STORE_FULL), "SW_E_STORE_FULL");
    assert_int_equal(SW_OK, 0);
    for (unsigned i = 0; i < SW_E_COUNT; i++) {
        enum sw_err err = (enum sw_err)i;
        const char *label = sw_err_label(err);
        unsigned status = sw_err_status(err);

        assert_true(status == 0 || (status >= 400 && status < 600));
        assert_true(sw_err_level(err) <= SW_LOG_DEBUG);
        assert_true(strlen(sw_err_text(err)) > 0);
        assert_true(sw_err_text(err)[strlen(sw_err_text(err)) - 1] != '.');
        assert_true(strlen(label) > 0 && strlen(label) <= 40);
        for (const char *p = label; *p != '\0'; p++) {
            assert_true((*p >= 'a' && *p <= 'z') || *p == '-'); /* safe in metrics and headers */
        }
        for (unsigned j = 0; j < i; j++) {
            assert_string_not_equal(label, sw_err_label((enum sw_err)j));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_align),  cmocka_unit_test(arena_overflow),
        cmocka_unit_test(arena_text),   cmocka_unit_test(out_numbers),
        cmocka_unit_test(out_overflow), cmocka_unit_test(out_printf),
        cmocka_unit_test(pool_all),     cmocka_unit_test(slice_compare),
        cmocka_unit_test(slice_find),   cmocka_unit_test(slice_numbers),
        cmocka_unit_test(slice_hash),   cmocka_unit_test(rng_stream),
        cmocka_unit_test(list_all),     cmocka_unit_test(errors_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
