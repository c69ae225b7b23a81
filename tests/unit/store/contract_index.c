/* tests/unit/store/contract_index.c - one suite for all stores: what a record carries besides its
 * value, whose it is, when it is due, and what a cut-off ends. */
#include "contract.h"

#include <time.h>

#define NOW_MS (NOW * 1000)

static struct sw_write put_for(uint64_t key, struct sw_slice subject, int64_t bound_ms)
{
    struct sw_write w = put_of(key, SW_S("v"));

    w.subject = subject;
    w.bound_unix_ms = bound_ms;
    return w;
}

static struct sw_write put_due(uint64_t key, int64_t due_ms)
{
    struct sw_write w = put_of(key, SW_S("v"));

    w.due_unix_ms = due_ms;
    return w;
}

static struct sw_write alias_of(uint64_t key, uint64_t to)
{
    static struct sw_store_key keys[4];
    static size_t at;
    struct sw_store_key *k = &keys[at++ % SW_COUNTOF(keys)];
    struct sw_write w;

    *k = key_of(to);
    w = put_of(key, sw_slice_of(k->bytes, sizeof(k->bytes)));
    w.record = SW_RECORD_ALIAS;
    return w;
}

static void made(struct world *w, struct sw_write write, int64_t now)
{
    enum sw_err err = write_one(w, write, now, NULL);

    if (err != SW_OK) {
        fail_msg("%s", sw_err_name(err));
    }
}

static void touched(struct world *w, uint64_t key, int64_t expires, int64_t now)
{
    made(w,
         (struct sw_write){.kind = SW_WRITE_TOUCH, .key = key_of(key), .expires_unix_s = expires},
         now);
}

static int64_t wall_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- what a record carries ------------------------------------------------------------------- */

static void extra_sealed_due(void **state)
{
    static char large[SW_EXTRA_BYTES_MAX + 1];
    struct world *w = *state;
    struct sw_write p = put_of(1, SW_S("value"));
    struct sw_record r;

    memset(large, 'e', sizeof(large));
    p.extra = SW_S("extra");
    p.subject = SW_S("alice");
    p.sealed = true;
    p.due_unix_ms = NOW_MS + 7;
    p.created_unix_s = NOW - 500;
    p.bound_unix_ms = NOW_MS - 400;
    p.expires_unix_s = NOW + 50;
    made(w, p, NOW);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(load(w, 1, NOW, &r), SW_OK);
        assert_true(sw_slice_eq(r.extra, SW_S("extra")));
        assert_true(sw_slice_eq(r.value, SW_S("value")));
        assert_true(sw_slice_eq(r.subject, SW_S("alice")));
        assert_true(r.sealed);
        assert_int_equal(r.due_unix_ms, NOW_MS + 7);
        assert_int_equal(r.created_unix_s, NOW - 500);
        assert_int_equal(r.bound_unix_ms, NOW_MS - 400);
        touched(w, 1, NOW + 500, NOW + 1);
    }
    assert_int_equal(r.expires_unix_s, NOW + 500);
    made(w, put_of(1, SW_S("v2")), NOW + 2); /* none of it stays but the creation */
    assert_int_equal(load(w, 1, NOW + 2, &r), SW_OK);
    assert_int_equal(r.extra.len, 0);
    assert_int_equal(r.subject.len, 0);
    assert_false(r.sealed);
    assert_int_equal(r.due_unix_ms, 0);
    assert_int_equal(r.bound_unix_ms, 0);
    assert_int_equal(r.created_unix_s, NOW - 500);
    made(w, p, NOW);
    made(w, delete_of(1, NOW + 60), NOW);
    assert_int_equal(load(w, 1, NOW, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    assert_int_equal(r.extra.len + r.subject.len + r.value.len, 0);
    assert_false(r.sealed);
    assert_int_equal(r.due_unix_ms, 0);
    assert_int_equal(r.bound_unix_ms, 0);

    p = put_of(2, SW_S("v"));
    p.extra = sw_slice_of(large, sizeof(large));
    assert_int_equal(write_one(w, p, NOW, NULL), SW_E_LIMIT);
    p.extra.len--;
    made(w, p, NOW);
    assert_int_equal(load(w, 2, NOW, &r), SW_OK);
    assert_true(sw_slice_eq(r.extra, p.extra));
    p = put_due(3, -1);
    assert_int_equal(write_one(w, p, NOW, NULL), SW_E_LIMIT);
    p = put_for(3, SW_S("a"), -1);
    assert_int_equal(write_one(w, p, NOW, NULL), SW_E_LIMIT);
    assert_int_equal(load(w, 3, NOW, NULL), SW_E_NOT_FOUND);
}

static void large_values_stay(void **state)
{
    static const size_t maxima[] = {0, 1, 9, 10, 11, 100000, 200000};
    static const size_t lengths[] = {0, 1, 10, 100000};
    static char text[100000], block[200000];
    struct world *w = *state;
    struct sw_arena arena;

    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < SW_COUNTOF(lengths); i++) {
        struct sw_write p = put_of(i, sw_slice_of(text, lengths[i]));

        p.extra = SW_S("extra");
        p.subject = SW_S("alice");
        made(w, p, NOW);
        for (size_t m = 0; m < SW_COUNTOF(maxima); m++) {
            struct sw_store_load op = {
                .key = key_of(i), .now_unix_s = NOW, .arena = &arena, .value_bytes_max = maxima[m]};
            bool stays = maxima[m] != 0 && lengths[i] > maxima[m];

            sw_arena_init(&arena, block, stays ? 32 : sizeof(block)); /* no room for it */
            assert_int_equal(sw_store_load(w->store, &op), SW_STEP_DONE);
            assert_int_equal(op.err, SW_OK);
            assert_int_equal(op.record.value.len, lengths[i]);
            assert_true(sw_slice_eq(op.record.extra, SW_S("extra")));
            assert_true(sw_slice_eq(op.record.subject, SW_S("alice")));
            if (stays) {
                assert_null(op.record.value.ptr);
            } else if (lengths[i] > 0) {
                assert_non_null(op.record.value.ptr);
                assert_memory_equal(op.record.value.ptr, text, lengths[i]);
            }
        }
    }
}

static void claims(void **state)
{
    struct world *w = *state;
    struct sw_write c = put_at(1, SW_S("running"), (struct sw_version){0, 0});
    struct sw_version v, done;
    struct sw_record r;

    c.record = SW_RECORD_CLAIM;
    c.subject = SW_S("alice");
    c.expires_unix_s = NOW + 60;
    assert_int_equal(write_one(w, c, NOW, &v), SW_OK);
    assert_int_equal(write_one(w, c, NOW, NULL), SW_E_CONFLICT); /* one wins */
    c.version = v;
    c.value = SW_S("done");
    assert_int_equal(write_one(w, c, NOW, &done), SW_OK);
    assert_int_equal(load(w, 1, NOW, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_CLAIM);
    assert_int_equal(r.bound_unix_ms, 0);
    assert_true(sw_version_eq(r.version, done));
    assert_true(sw_slice_eq(r.value, SW_S("done")));
    c = put_of(1, SW_S("x"));
    c.expect = SW_EXPECT_EXISTS; /* it is no state */
    assert_int_equal(write_one(w, c, NOW, NULL), SW_E_CONFLICT);
    touched(w, 1, NOW + 500, NOW);
    assert_int_equal(load(w, 1, NOW + 60, NULL), SW_E_NOT_FOUND);
    {
        struct visited seen;

        visit(w, SW_S("alice"), NULL, 9, NOW, &seen);
        assert_int_equal(seen.count, 0);
        made(w, cutoff_of(SW_S("alice"), NOW_MS + 1000000, 0), NOW);
        assert_int_equal(load(w, 1, NOW, &r), SW_OK);
        assert_int_equal(r.kind, SW_RECORD_CLAIM); /* a cut-off ends states */
    }
    {
        struct sw_write d = delete_of(1, NOW - 1); /* released: free at once */

        made(w, d, NOW);
        assert_int_equal(load(w, 1, NOW, NULL), SW_E_NOT_FOUND);
    }
}

static void six_writes(void **state)
{
    struct world *w = *state;
    struct sw_store_commit op = {.count = SW_COMMIT_WRITES_MAX, .now_unix_s = NOW};
    struct sw_record r;

    made(w, put_of(3, SW_S("three")), NOW);
    made(w, put_of(4, SW_S("four")), NOW);
    assert_int_equal(SW_COMMIT_WRITES_MAX, 6);
    op.writes[0] = put_of(1, SW_S("one"));
    op.writes[1] = alias_of(2, 1);
    op.writes[2] = delete_of(3, 0);
    op.writes[3] =
        (struct sw_write){.kind = SW_WRITE_TOUCH, .key = key_of(4), .expires_unix_s = NOW + 5};
    op.writes[4] = put_of(5, SW_S("five"));
    op.writes[4].record = SW_RECORD_CLAIM;
    op.writes[5] = cutoff_of(SW_S("bob"), NOW_MS, 0);
    assert_int_equal(commit(w, &op), SW_OK);
    assert_value(w, 1, NOW, SW_S("one"));
    assert_int_equal(load(w, 2, NOW, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_ALIAS);
    assert_int_equal(load(w, 3, NOW, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    assert_int_equal(load(w, 4, NOW + 5, &r), SW_E_NOT_FOUND);
    assert_value(w, 5, NOW, SW_S("five"));
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("bob")), NOW_MS);
    assert_true(sw_version_none(op.writes[5].ret_version));

    /* none of it, when the last one is refused */
    op.writes[0] = put_of(1, SW_S("ONE"));
    op.writes[1] = put_for(12, SW_S("carol"), 1);
    op.writes[2] = cutoff_of(SW_S("carol"), 5, 0);
    op.writes[3] = put_due(13, 1);
    op.writes[4] = delete_of(4, 0);
    op.writes[5] = put_of(3, SW_S("x"));
    assert_int_equal(commit(w, &op), SW_E_STATE_GONE);
    assert_int_equal(op.failed, 5);
    assert_value(w, 1, NOW, SW_S("one"));
    assert_value(w, 4, NOW, SW_S("four"));
    assert_int_equal(load(w, 12, NOW, NULL), SW_E_NOT_FOUND);
    assert_int_equal(load(w, 13, NOW, NULL), SW_E_NOT_FOUND);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("carol")), 0);
    assert_int_equal(sw_store_next_due_unix_ms(w->store), 0);
}

static int64_t bound_of(struct world *w, uint64_t key)
{
    struct sw_record r;

    assert_int_equal(load(w, key, NOW, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_STATE);
    return r.bound_unix_ms;
}

static void binding(void **state)
{
    struct world *w = *state;
    int64_t before = wall_ms(), first, second;

    made(w, put_for(1, SW_S("alice"), 0), NOW);
    first = bound_of(w, 1);
    assert_true(first >= before - 1000 && first <= wall_ms()); /* a loop's clock may lag */
    while (wall_ms() <= first + 20) {
    }
    made(w, put_for(1, SW_S("alice"), 0), NOW + 5); /* the same: as it was */
    assert_int_equal(bound_of(w, 1), first);
    touched(w, 1, NOW + 100, NOW + 6);
    assert_int_equal(bound_of(w, 1), first);
    made(w, put_for(1, SW_S("bob"), 0), NOW + 7);
    second = bound_of(w, 1);
    assert_true(second > first);
    made(w, put_of(1, SW_S("v")), NOW + 8); /* nobody's */
    assert_int_equal(bound_of(w, 1), 0);
    made(w, put_for(1, SW_S("alice"), 0), NOW + 9); /* again: anew */
    assert_true(bound_of(w, 1) > first);
    /* a renewed id keeps it, an import too */
    made(w, put_for(2, SW_S("alice"), first), NOW + 9);
    assert_int_equal(bound_of(w, 2), first);
    made(w, alias_of(1, 2), NOW + 9);
    made(w, put_for(1, SW_S("alice"), 0), NOW + 10); /* an alias was nobody's */
    assert_true(bound_of(w, 1) > first);
    /* given: as given; without a subject there is none */
    made(w, put_for(2, SW_S("alice"), 77), NOW + 10);
    assert_int_equal(bound_of(w, 2), 77);
    made(w, put_for(2, SW_S(""), 77), NOW + 10);
    assert_int_equal(bound_of(w, 2), 0);
    /* what had expired was another life */
    {
        struct sw_write p = put_for(3, SW_S("alice"), 5);

        p.expires_unix_s = NOW + 5;
        made(w, p, NOW);
        made(w, put_for(3, SW_S("alice"), 0), NOW + 5);
        assert_true(bound_of(w, 3) >= before - 1000);
    }
}

/* ---- whose states ---------------------------------------------------------------------------- */

static size_t count_of(struct world *w, struct sw_slice subject, int64_t now)
{
    struct visited v;

    visit(w, subject, NULL, SIZE_MAX, now, &v);
    return v.count;
}

static void on_never(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    (void)arg;
    (void)key;
    (void)r;
    fail();
}

static void subjects(void **state)
{
    static char too_long[SW_SUBJECT_BYTES_MAX + 1];
    static char long_name[SW_SUBJECT_BYTES_MAX];
    struct world *w = *state;
    struct sw_slice names[] = {SW_S("a"),
                               SW_S("ab"),
                               SW_S("b"),
                               SW_S("a\0b"),
                               SW_S("\0"),
                               SW_S("\0\0"),
                               {long_name, sizeof(long_name)},
                               {long_name, sizeof(long_name) - 1},
                               {long_name, 31},
                               {long_name, 32},
                               {long_name, 33},
                               SW_S("\xff\xff")};
    struct visited all, part;
    uint64_t key = 0;

    memset(long_name, 'n', sizeof(long_name));
    for (size_t i = 0; i < SW_COUNTOF(names); i++) {
        for (size_t n = 0; n <= i; n++) {
            made(w, put_for(key++, names[i], 0), NOW);
        }
    }
    made(w, put_of(key++, SW_S("v")), NOW);
    for (size_t i = 0; i < SW_COUNTOF(names); i++) {
        struct sw_store_key after;
        size_t seen = 0;

        visit(w, names[i], NULL, SIZE_MAX, NOW, &all);
        assert_int_equal(all.count, i + 1);
        for (size_t n = 1; n < all.count; n++) {
            assert_true(memcmp(&all.keys[n - 1], &all.keys[n], sizeof(all.keys[n])) < 0);
        }
        do { /* in pieces the same */
            visit(w, names[i], seen > 0 ? &after : NULL, 3, NOW, &part);
            assert_memory_equal(part.keys, all.keys + seen, part.count * sizeof(part.keys[0]));
            seen += part.count;
            after = part.count > 0 ? part.keys[part.count - 1] : after;
        } while (part.count == 3);
        assert_int_equal(seen, all.count);
        visit(w, names[i], NULL, 0, NOW, &part);
        assert_int_equal(part.count, 0);
    }
    assert_int_equal(count_of(w, SW_S("nobody"), NOW), 0);
    visit(w, SW_S(""), NULL, SIZE_MAX, NOW, &all);
    assert_int_equal(all.count, key);
    /* nobody's and too long a name: there is nothing, and no complaint */
    assert_int_equal(sw_store_scan_subject(w->store, SW_S(""), NULL, 9, NOW, on_never, w), SW_OK);
    assert_int_equal(sw_store_scan_subject(w->store, sw_slice_of(too_long, sizeof(too_long)), NULL,
                                           9, NOW, on_never, w),
                     SW_OK);
}

static void subjects_follow(void **state)
{
    struct world *w = *state;
    struct sw_write p = put_for(1, SW_S("alice"), 0);
    struct visited v;

    p.expires_unix_s = NOW + 10;
    made(w, p, NOW);
    made(w, put_for(2, SW_S("alice"), 0), NOW);
    assert_int_equal(count_of(w, SW_S("alice"), NOW), 2);
    /* expired ones are not live; a touch keeps one */
    assert_int_equal(count_of(w, SW_S("alice"), NOW + 10), 1);
    touched(w, 1, NOW + 20, NOW + 5);
    assert_int_equal(count_of(w, SW_S("alice"), NOW + 10), 2);
    /* another subject, none, and back */
    made(w, put_for(1, SW_S("bob"), 0), NOW);
    assert_int_equal(count_of(w, SW_S("alice"), NOW), 1);
    assert_int_equal(count_of(w, SW_S("bob"), NOW), 1);
    made(w, put_of(1, SW_S("v")), NOW);
    assert_int_equal(count_of(w, SW_S("bob"), NOW), 0);
    made(w, put_for(1, SW_S("alice"), 0), NOW);
    assert_int_equal(count_of(w, SW_S("alice"), NOW), 2);
    /* a login renews the id: the alias leaves, the new record comes */
    {
        struct sw_store_commit op = {.count = 2, .now_unix_s = NOW};

        op.writes[0] = put_for(3, SW_S("alice"), 0);
        op.writes[1] = alias_of(1, 3);
        op.writes[1].subject = SW_S("alice");
        op.writes[1].due_unix_ms = NOW_MS;
        assert_int_equal(commit(w, &op), SW_OK);
        visit(w, SW_S("alice"), NULL, 9, NOW, &v);
        assert_int_equal(v.count, 2);
        assert_true(is_key(&v.keys[0], 2) || is_key(&v.keys[1], 2));
        assert_true(is_key(&v.keys[0], 3) || is_key(&v.keys[1], 3));
        visit_due(w, NOW_MS * 2, 9, &v);
        assert_int_equal(v.count, 0);
    }
    made(w, delete_of(2, 0), NOW);
    assert_int_equal(count_of(w, SW_S("alice"), NOW), 1);
    made(w, delete_of(3, NOW - 1), NOW);
    assert_int_equal(count_of(w, SW_S("alice"), NOW), 0);
    /* an expired record in the way is replaced with its entry */
    p = put_for(5, SW_S("alice"), 0);
    p.expires_unix_s = NOW + 1;
    made(w, p, NOW);
    made(w, put_for(5, SW_S("bob"), 0), NOW + 1);
    assert_int_equal(count_of(w, SW_S("alice"), NOW), 0);
    assert_int_equal(count_of(w, SW_S("bob"), NOW), 1);
}

/* ---- what is due ----------------------------------------------------------------------------- */

static void due(void **state)
{
    struct world *w = *state;
    struct visited v;
    struct sw_write p;

    assert_int_equal(sw_store_next_due_unix_ms(w->store), 0);
    visit_due(w, INT64_MAX, 9, &v);
    assert_int_equal(v.count, 0);
    made(w, put_due(1, NOW_MS + 300), NOW);
    made(w, put_due(2, NOW_MS + 100), NOW);
    made(w, put_due(3, NOW_MS + 200), NOW);
    made(w, put_of(4, SW_S("v")), NOW);
    assert_int_equal(sw_store_next_due_unix_ms(w->store), NOW_MS + 100);
    visit_due(w, NOW_MS + 99, 9, &v);
    assert_int_equal(v.count, 0);
    visit_due(w, NOW_MS + 100, 9, &v);
    assert_int_equal(v.count, 1);
    visit_due(w, NOW_MS + 1000, 9, &v);
    assert_int_equal(v.count, 3);
    assert_true(is_key(&v.keys[0], 2) && is_key(&v.keys[1], 3) && is_key(&v.keys[2], 1));
    visit_due(w, NOW_MS + 1000, 2, &v);
    assert_int_equal(v.count, 2);
    visit_due(w, NOW_MS + 1000, 0, &v);
    assert_int_equal(v.count, 0);
    /* later, earlier, no more */
    made(w, put_due(2, NOW_MS + 250), NOW);
    assert_int_equal(sw_store_next_due_unix_ms(w->store), NOW_MS + 200);
    made(w, put_due(1, 1), NOW);
    assert_int_equal(sw_store_next_due_unix_ms(w->store), 1);
    made(w, put_of(1, SW_S("v")), NOW);
    made(w, delete_of(3, 0), NOW);
    assert_int_equal(sw_store_next_due_unix_ms(w->store), NOW_MS + 250);
    touched(w, 2, NOW + 50, NOW);
    assert_int_equal(sw_store_next_due_unix_ms(w->store), NOW_MS + 250);
    visit_due(w, NOW_MS + 1000, 9, &v);
    assert_int_equal(v.count, 1);
    /* a record that ended is not due, whether it was collected or not */
    visit_due(w, (NOW + 50) * 1000, 9, &v);
    assert_int_equal(v.count, 0);
    made(w, alias_of(2, 1), NOW);
    assert_int_equal(sw_store_next_due_unix_ms(w->store), 0);
    /* the same moment: all of them, by key */
    for (uint64_t i = 10; i < 30; i++) {
        made(w, put_due(i, NOW_MS), NOW);
    }
    visit_due(w, NOW_MS, 99, &v);
    assert_int_equal(v.count, 20);
    for (size_t i = 1; i < v.count; i++) {
        assert_true(memcmp(&v.keys[i - 1], &v.keys[i], sizeof(v.keys[i])) < 0);
    }
    made(w, put_due(15, NOW_MS), NOW); /* as it was */
    visit_due(w, NOW_MS, 99, &v);
    assert_int_equal(v.count, 20);
    p = put_due(40, INT64_MAX);
    made(w, p, NOW);
    visit_due(w, INT64_MAX - 1, 99, &v);
    assert_int_equal(v.count, 20);
    if (w->maker->durable) {
        world_reopen(w);
        assert_int_equal(sw_store_next_due_unix_ms(w->store), NOW_MS);
        visit_due(w, INT64_MAX, 99, &v);
        assert_int_equal(v.count, 21);
        assert_true(is_key(&v.keys[20], 40));
    }
}

/* Many that ended stand in front of one that is due: it comes, or the collector's turn is next. */
static void due_behind_dead(void **state)
{
    struct world *w = *state;
    struct visited v;

    for (uint64_t i = 0; i < 200; i++) {
        struct sw_write p = put_due(i, NOW_MS + (int64_t)i);

        p.expires_unix_s = NOW + 1;
        made(w, p, NOW);
    }
    made(w, put_due(1000, NOW_MS + 500), NOW);
    visit_due(w, NOW_MS + 2000, 1, &v);
    assert_int_equal(v.count, 1);
    assert_true(is_key(&v.keys[0], 1000));
}

/* ---- cut-offs -------------------------------------------------------------------------------- */

static void ended(struct world *w, uint64_t key)
{
    struct sw_record r;

    assert_int_equal(load(w, key, NOW, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    assert_int_equal(r.subject.len + r.value.len + r.extra.len, 0);
    assert_int_equal(r.due_unix_ms, 0);
    assert_int_equal(r.bound_unix_ms, 0);
}

static void cutting_off(void **state)
{
    struct world *w = *state;
    struct sw_version v[4];
    struct sw_write p, d;
    struct visited seen;
    struct sw_record r;

    p = put_for(1, SW_S("alice"), NOW_MS);
    p.due_unix_ms = NOW_MS;
    p.extra = SW_S("alarm");
    p.expires_unix_s = NOW + 5000;
    assert_int_equal(write_one(w, p, NOW, &v[0]), SW_OK);
    assert_int_equal(write_one(w, put_for(2, SW_S("alice"), NOW_MS + 1), NOW, &v[1]), SW_OK);
    assert_int_equal(write_one(w, put_for(3, SW_S("alicea"), NOW_MS), NOW, &v[2]), SW_OK);
    assert_int_equal(write_one(w, put_of(4, SW_S("v")), NOW, &v[3]), SW_OK);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("alice")), 0);
    made(w, cutoff_of(SW_S("alice"), NOW_MS, 0), NOW);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("alice")), NOW_MS);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("alicea")), 0);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("")), 0);
    for (int turn = 0; turn < 2; turn++) {
        ended(w, 1);
        assert_int_equal(load(w, 1, NOW, &r), SW_OK);
        assert_true(sw_version_eq(r.version, v[0]));
        assert_int_equal(r.expires_unix_s, NOW + 5000);
        assert_value(w, 2, NOW, SW_S("v"));
        assert_value(w, 3, NOW, SW_S("v"));
        assert_value(w, 4, NOW, SW_S("v"));
        visit(w, SW_S(""), NULL, 99, NOW, &seen);
        assert_int_equal(seen.count, 3);
        visit(w, SW_S("alice"), NULL, 99, NOW, &seen);
        assert_int_equal(seen.count, 1);
        assert_true(is_key(&seen.keys[0], 2));
        visit_due(w, NOW_MS * 2, 99, &seen);
        assert_int_equal(seen.count, 0);
        /* whatever is expected, but the one that means an entity made anew */
        assert_int_equal(write_one(w, put_of(1, SW_S("x")), NOW, NULL), SW_E_STATE_GONE);
        assert_int_equal(write_one(w, put_at(1, SW_S("x"), v[0]), NOW, NULL), SW_E_STATE_GONE);
        assert_int_equal(write_one(w, delete_of(1, 0), NOW, NULL), SW_E_STATE_GONE);
        assert_int_equal(write_one(w, alias_of(1, 2), NOW, NULL), SW_E_STATE_GONE);
        p = put_of(1, SW_S("x"));
        p.expect = SW_EXPECT_EXISTS;
        assert_int_equal(write_one(w, p, NOW, NULL), SW_E_STATE_GONE);
        d = delete_of(1, 0);
        d.expect = SW_EXPECT_EXISTS;
        assert_int_equal(write_one(w, d, NOW, NULL), SW_E_STATE_GONE);
        touched(w, 1, NOW + 99999, NOW);
        assert_int_equal(load(w, 1, NOW, &r), SW_OK);
        assert_int_equal(r.expires_unix_s, NOW + 5000);
        assert_int_equal(load(w, 1, NOW + 5000, NULL), SW_E_NOT_FOUND);
        if (w->maker->durable) {
            world_reopen(w);
        }
    }
    p = put_at(1, SW_S("anew"), (struct sw_version){0, 0});
    p.subject = SW_S("alice");
    assert_int_equal(write_one(w, p, NOW + 1, &v[0]), SW_OK);
    assert_int_equal(v[0].counter, 1);
    assert_int_equal(load(w, 1, NOW + 1, &r), SW_OK);
    assert_true(sw_slice_eq(r.value, SW_S("anew")));
    assert_int_equal(r.created_unix_s, NOW + 1);
    assert_true(!sw_version_eq(r.version, v[1]));
    visit(w, SW_S("alice"), NULL, 99, NOW, &seen);
    assert_int_equal(seen.count, 2);
    assert_int_equal(sw_store_next_due_unix_ms(w->store), 0);
}

static void cutoffs_move_on(void **state)
{
    struct world *w = *state;
    char name[SW_SUBJECT_BYTES_MAX + 1];

    memset(name, 'n', sizeof(name));
    for (uint64_t i = 0; i < 5; i++) {
        made(w, put_for(i, SW_S("alice"), 100 + (int64_t)i * 10), NOW);
    }
    made(w, cutoff_of(SW_S("alice"), 110, NOW + 10), NOW);
    ended(w, 0);
    ended(w, 1);
    assert_value(w, 2, NOW, SW_S("v"));
    made(w, cutoff_of(SW_S("alice"), 105, 0), NOW); /* earlier: nothing changes */
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("alice")), 110);
    ended(w, 1);
    made(w, cutoff_of(SW_S("alice"), 110, NOW + 20), NOW);
    made(w, cutoff_of(SW_S("alice"), 130, NOW + 5), NOW);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("alice")), 130);
    ended(w, 3);
    assert_value(w, 4, NOW, SW_S("v"));
    /* a state born before it is ended too: an import of old ones brings nobody back */
    made(w, put_for(9, SW_S("alice"), 130), NOW);
    ended(w, 9);
    made(w, put_for(10, SW_S("alice"), 131), NOW);
    assert_value(w, 10, NOW, SW_S("v"));
    /* what it cannot be */
    assert_int_equal(write_one(w, cutoff_of(SW_S(""), 1, 0), NOW, NULL), SW_E_LIMIT);
    assert_int_equal(write_one(w, cutoff_of(sw_slice_of(name, sizeof(name)), 1, 0), NOW, NULL),
                     SW_E_LIMIT);
    assert_int_equal(write_one(w, cutoff_of(SW_S("bob"), 0, 0), NOW, NULL), SW_E_LIMIT);
    assert_int_equal(write_one(w, cutoff_of(SW_S("bob"), -5, 0), NOW, NULL), SW_E_LIMIT);
    made(w, cutoff_of(sw_slice_of(name, SW_SUBJECT_BYTES_MAX), 1, 0), NOW);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, sw_slice_of(name, SW_SUBJECT_BYTES_MAX)), 1);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, sw_slice_of(name, sizeof(name))), 0);
}

/* Together with other writes: what they expected is looked at before. */
static void cutoff_in_company(void **state)
{
    struct world *w = *state;
    struct sw_store_commit op = {.count = 2, .now_unix_s = NOW};
    struct sw_version v;
    struct visited seen;

    assert_int_equal(write_one(w, put_for(1, SW_S("alice"), 5), NOW, &v), SW_OK);
    made(w, put_for(2, SW_S("alice"), 6), NOW);
    /* "end my other sessions": this one is bound anew */
    op.writes[0] = put_at(1, SW_S("w"), v);
    op.writes[0].subject = SW_S("alice");
    op.writes[0].bound_unix_ms = 101;
    op.writes[1] = cutoff_of(SW_S("alice"), 100, 0);
    assert_int_equal(commit(w, &op), SW_OK);
    assert_value(w, 1, NOW, SW_S("w"));
    ended(w, 2);
    /* the only state goes, and the cut-off comes */
    made(w, put_for(3, SW_S("bob"), 5), NOW);
    op.writes[0] = delete_of(3, 0);
    op.writes[1] = cutoff_of(SW_S("bob"), 100, 0);
    assert_int_equal(commit(w, &op), SW_OK);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("bob")), 100);
    /* the cut-off first, then a state that is older: it is born ended */
    op.writes[0] = cutoff_of(SW_S("carol"), 100, 0);
    op.writes[1] = put_for(4, SW_S("carol"), 100);
    op.writes[1].due_unix_ms = 1;
    assert_int_equal(commit(w, &op), SW_OK);
    ended(w, 4);
    visit_due(w, NOW_MS, 9, &seen);
    assert_int_equal(seen.count, 0);
    /* a renewal of what was cut off meanwhile is refused as a whole */
    assert_int_equal(write_one(w, put_for(5, SW_S("dave"), 5), NOW, &v), SW_OK);
    made(w, cutoff_of(SW_S("dave"), 100, 0), NOW);
    op.writes[0] = put_at(6, SW_S("v"), (struct sw_version){0, 0});
    op.writes[0].subject = SW_S("dave");
    op.writes[0].bound_unix_ms = 5;
    op.writes[1] = alias_of(5, 6);
    op.writes[1].expect = SW_EXPECT_VERSION;
    op.writes[1].version = v;
    assert_int_equal(commit(w, &op), SW_E_STATE_GONE);
    assert_int_equal(op.failed, 1);
    assert_int_equal(load(w, 6, NOW, NULL), SW_E_NOT_FOUND);
    /* commits of one batch see each other's */
    {
        static struct sw_store_commit ops[3];

        made(w, put_for(7, SW_S("erin"), 5), NOW);
        for (size_t i = 0; i < 3; i++) {
            ops[i] = (struct sw_store_commit){.count = 1, .now_unix_s = NOW};
            ops[i].writes[0] =
                i == 1 ? cutoff_of(SW_S("erin"), 100, 0) : put_for(7, SW_S("erin"), 5);
            commit_begin(w, &ops[i]);
        }
        world_wait(w);
        assert_int_equal(ops[0].err, SW_OK);
        assert_int_equal(ops[1].err, SW_OK);
        assert_int_equal(ops[2].err, SW_E_STATE_GONE);
    }
}

/* ---- the collector --------------------------------------------------------------------------- */

static uint64_t records_of(struct world *w)
{
    struct sw_store_stats st;

    sw_store_stats(w->store, &st);
    return st.records;
}

/* Commits (a collector of commits needs them) until so many records are left. */
static void collected_to(struct world *w, uint64_t want, int64_t now)
{
    for (int i = 0; i < 4000 && records_of(w) != want; i++) {
        struct timespec pause = {0, 1000000};

        touched(w, 999999, 0, now);
        nanosleep(&pause, NULL);
    }
    assert_int_equal(records_of(w), want);
}

static void open_collecting(struct world *w)
{
    w->opt.expire = true;
    world_reopen(w);
}

/* What was cut off is taken away an hour later, and the cut-off at its end; nothing rises again. */
static void cutoffs_collected(void **state)
{
    enum { OLD = 700, YOUNG = 20 };
    struct world *w = *state;
    int64_t now = time(NULL), hour_ago = now - SW_TOMBSTONE_S_MIN - 5;
    struct visited v;

    open_collecting(w);
    for (uint64_t i = 0; i < OLD + YOUNG; i++) {
        struct sw_write p = put_for(i, SW_S("alice"), i < OLD ? 50 : 150);

        p.due_unix_ms = 1 + (int64_t)i;
        p.expires_unix_s = i % 2 == 0 ? 0 : now + 5000;
        made(w, p, hour_ago);
    }
    made(w, put_for(OLD + YOUNG, SW_S("bob"), 50), hour_ago);
    made(w, cutoff_of(SW_S("bob"), 100, 0), now); /* not yet */
    made(w, cutoff_of(SW_S("alice"), 100, time(NULL) + 4), hour_ago);
    collected_to(w, YOUNG + 1, now);
    assert_int_equal(load(w, 0, now, NULL), SW_E_NOT_FOUND);
    assert_int_equal(load(w, OLD + YOUNG, now, NULL), SW_OK); /* a tombstone */
    visit(w, SW_S("alice"), NULL, 512, now, &v);
    assert_int_equal(v.count, YOUNG);
    visit_due(w, now * 1000, 512, &v);
    assert_int_equal(v.count, YOUNG);
    assert_int_equal(sw_store_next_due_unix_ms(w->store), OLD + 1);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("alice")), 100);
    /* an old one comes back by an import: it does not outlive the cut-off */
    made(w, put_for(5, SW_S("alice"), 50), now);
    for (int i = 0; i < 4000 && sw_store_cutoff_unix_ms(w->store, SW_S("alice")) != 0; i++) {
        struct timespec pause = {0, 1000000};

        touched(w, 999999, 0, time(NULL));
        nanosleep(&pause, NULL);
    }
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("alice")), 0);
    assert_int_equal(load(w, 5, now, NULL), SW_E_NOT_FOUND);
    assert_int_equal(records_of(w), YOUNG + 1);
    assert_int_equal(sw_store_cutoff_unix_ms(w->store, SW_S("bob")), 100);
    for (uint64_t i = OLD; i < OLD + YOUNG; i++) {
        assert_value(w, i, now, SW_S("v"));
    }
}

/* Many subjects at once; also those of which nothing is left, and of which nothing ever was. */
static void many_cutoffs_collected(void **state)
{
    enum { SUBJECTS = 100, STATES = 5 };
    static char names[SUBJECTS][16];
    struct world *w = *state;
    int64_t now = time(NULL), hour_ago = now - SW_TOMBSTONE_S_MIN - 5;

    open_collecting(w);
    for (uint64_t i = 0; i < SUBJECTS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "user-%lu", (unsigned long)i);
        for (uint64_t n = 0; n < STATES && i % 10 != 0; n++) {
            made(w, put_for(i * STATES + n, sw_slice_cstr(names[i]), 50), hour_ago);
        }
        if (i % 10 == 1) {
            made(w, delete_of(i * STATES, hour_ago - 1), hour_ago);
        }
        made(w, cutoff_of(sw_slice_cstr(names[i]), 100, i % 3 == 0 ? now - 10 : now + 1000),
             hour_ago);
    }
    collected_to(w, 0, now);
    for (uint64_t i = 0; i < SUBJECTS; i++) {
        for (int turn = 0; turn < 4000 && i % 3 == 0 &&
                           sw_store_cutoff_unix_ms(w->store, sw_slice_cstr(names[i])) != 0;
             turn++) {
            touched(w, 999999, 0, now);
        }
        assert_int_equal(sw_store_cutoff_unix_ms(w->store, sw_slice_cstr(names[i])),
                         i % 3 == 0 ? 0 : 100);
    }
}

int contract_index_run(const struct maker *maker)
{
#define ROW(name) cmocka_unit_test_setup_teardown(name, suite_setup, suite_teardown)
    const struct CMUnitTest tests[] = {
        ROW(extra_sealed_due),
        ROW(large_values_stay),
        ROW(claims),
        ROW(six_writes),
        ROW(binding),
        ROW(subjects),
        ROW(subjects_follow),
        ROW(due),
        ROW(due_behind_dead),
        ROW(cutting_off),
        ROW(cutoffs_move_on),
        ROW(cutoff_in_company),
        ROW(cutoffs_collected),
        ROW(many_cutoffs_collected),
    };

    suite_maker = maker;
    return cmocka_run_group_tests_name(maker->name, tests, NULL, NULL);
}
