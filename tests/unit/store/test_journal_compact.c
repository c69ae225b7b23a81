/* Compaction and collection of the journal: beside the memory store as a model, with crashes in
 * between; what is over does not rise again.
 *
 * STATEWAY_MODEL_STEPS: how many commits (default 4000); the seed is printed.
 */
#include "test_journal.h"

#include <time.h>

#include "base/rng.h"

enum { KEYS = 150, SUBJECTS = 5, TEXT_MAX = 30000 };

static const char *const names[SUBJECTS] = {"alice", "bob", "carol", "dave", ""};

static int64_t wall_s(void)
{
    return (int64_t)time(NULL);
}

static uint64_t records_of(struct world *w)
{
    struct sw_store_stats st;

    sw_store_stats(w->store, &st);
    return st.records;
}

static void pause_ms(long ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&ts, NULL);
}

static size_t first_segment(const struct world *w)
{
    DIR *dir = opendir(w->folder);
    struct dirent *e;
    uint64_t first = UINT64_MAX, n;

    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL) {
        if (is_segment(e->d_name) &&
            sw_slice_hex_u64(sw_slice_head(sw_slice_cstr(e->d_name), 16), &n)) {
            first = SW_MIN(first, n);
        }
    }
    closedir(dir);
    return (size_t)first;
}

/* ---- beside the memory store ----------------------------------------------------------------- */

struct sum {
    size_t count;
    uint64_t hash;
};

static void on_record(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct sum *s = arg;
    uint64_t all[] = {
        (uint64_t)r->kind,
        r->version.counter,
        (uint64_t)r->created_unix_s,
        (uint64_t)r->touched_unix_s,
        (uint64_t)r->expires_unix_s,
        (uint64_t)r->absolute_unix_s,
        (uint64_t)r->bound_unix_ms,
        (uint64_t)r->due_unix_ms,
        r->sealed,
        sw_slice_hash(r->subject, 1),
        sw_slice_hash(r->extra, 2),
        sw_slice_hash(r->value, 3),
        sw_slice_hash(sw_slice_of(key, sizeof(*key)), 4),
    };

    s->count++;
    s->hash = s->hash * 31 + sw_slice_hash(sw_slice_of(all, sizeof(all)), 5);
}

static void on_due(void *arg, const struct sw_store_key *key, int64_t due)
{
    struct sum *s = arg;

    s->count++;
    s->hash = s->hash * 31 + sw_slice_hash(sw_slice_of(key, sizeof(*key)), (uint64_t)due);
}

/* All that a store can be asked. */
static struct sum sum_of(struct world *w, int64_t now)
{
    struct sum s = {0, 0};

    assert_int_equal(sw_store_scan(w->store, NULL, SIZE_MAX, now, on_record, &s), SW_OK);
    for (size_t i = 0; i < SUBJECTS; i++) {
        struct sw_slice name = sw_slice_cstr(names[i]);

        assert_int_equal(sw_store_scan_subject(w->store, name, NULL, SIZE_MAX, now, on_record, &s),
                         SW_OK);
        s.hash = s.hash * 31 + (uint64_t)sw_store_cutoff_unix_ms(w->store, name);
    }
    assert_int_equal(sw_store_due(w->store, now * 1000, SIZE_MAX, on_due, &s), SW_OK);
    return s;
}

static void same(struct world *a, struct world *b, int64_t now, const char *when)
{
    struct sum x = sum_of(a, now), y = sum_of(b, now);

    if (x.count != y.count || x.hash != y.hash) {
        fail_msg("%s: %zu and %zu entries, %016lx and %016lx", when, x.count, y.count,
                 (unsigned long)x.hash, (unsigned long)y.hash);
    }
}

static struct sw_write random_write(struct sw_rng *rng, uint64_t key, uint64_t step, int64_t now,
                                    char *text)
{
    uint64_t kind = sw_rng_below(rng, 20);
    size_t len = sw_rng_below(rng, sw_rng_below(rng, 3) == 0 ? TEXT_MAX : 300);
    struct sw_write w = put_of(key, sw_slice_of(text, len));

    memset(text, (int)('a' + sw_rng_below(rng, 26)), len);
    w.subject = sw_slice_cstr(names[sw_rng_below(rng, SUBJECTS)]);
    w.bound_unix_ms = 1 + (int64_t)(step + sw_rng_below(rng, 1000));
    if (kind < 5) { /* what was cut off is made anew */
        w.expect = SW_EXPECT_VERSION;
    }
    w.due_unix_ms = sw_rng_below(rng, 3) == 0 ? now * 1000 + (int64_t)sw_rng_below(rng, 9000) : 0;
    w.expires_unix_s = sw_rng_below(rng, 3) == 0 ? now + 1 + (int64_t)sw_rng_below(rng, 300) : 0;
    w.sealed = kind == 0;
    if (kind >= 17) {
        w = (struct sw_write){.kind = kind == 17 ? SW_WRITE_DELETE : SW_WRITE_TOUCH,
                              .key = w.key,
                              .expect = SW_EXPECT_ANY,
                              .expires_unix_s = now + 1 + (int64_t)sw_rng_below(rng, 30)};
    }
    return w;
}

/* True: it was made. */
static bool both(struct world *a, struct world *b, struct sw_store_commit op)
{
    struct sw_store_commit twin = op;
    enum sw_err err = commit(a, &op);

    assert_int_equal(commit(b, &twin), err);
    assert_int_equal(op.failed, twin.failed);
    return err == SW_OK;
}

static void beside_model(void **state)
{
    static char texts[3][TEXT_MAX];
    const char *steps_text = getenv("STATEWAY_MODEL_STEPS");
    uint64_t steps = 4000, seed = (uint64_t)time(NULL), crashes = 0, made = 0;
    struct world w, model;
    struct sw_rng rng;
    int64_t now = wall_s() + 1000000; /* nothing is over by the wall clock */

    (void)state;
    if (steps_text != NULL) {
        assert_true(sw_slice_u64(sw_slice_cstr(steps_text), &steps));
    }
    print_message("seed %lu\n", (unsigned long)seed);
    sw_rng_seed(&rng, seed);
    world_init(&w, &maker_journal, &(struct sw_store_options){.sync = SW_SYNC_NO});
    world_init(&model, &maker_mem, NULL);
    for (uint64_t step = 0; step < steps; step++) {
        struct sw_store_commit op = {.count = 1 + sw_rng_below(&rng, 3), .now_unix_s = now};
        uint64_t key = sw_rng_below(&rng, KEYS);

        for (size_t i = 0; i < op.count; i++) {
            op.writes[i] = random_write(&rng, (key + i * 7) % KEYS, step, now, texts[i]);
        }
        if (sw_rng_below(&rng, 60) == 0) {
            op.writes[op.count++] = cutoff_of(
                sw_slice_cstr(names[sw_rng_below(&rng, SUBJECTS - 1)]), 1 + (int64_t)step, 0);
        }
        made += both(&w, &model, op);
        now += sw_rng_below(&rng, 4) == 0;
        if (step % 100 == 50) {
            same(&w, &model, now, "running");
        }
        if (step % 700 == 699) {
            world_reopen(&w);
            same(&w, &model, now, "opened again");
        }
        if (sw_rng_below(&rng, 100) == 0) { /* a crash here and now */
            struct world copy = {.maker = &maker_journal, .loop = w.loop, .block = w.block};
            const char *why = "";

            crashes++;
            strncpy(copy.folder, "/tmp/sw-journal-XXXXXX", sizeof(copy.folder) - 1);
            assert_non_null(mkdtemp(copy.folder));
            do { /* a segment may go between two looks: a copy is no moment */
                folder_empty(copy.folder);
                key = first_segment(&w);
                folder_copy(w.folder, copy.folder);
            } while (key != first_segment(&w));
            if (maker_journal.open(&copy, &why) != SW_OK) {
                fail_msg("step %lu: %s", (unsigned long)step, why);
            }
            same(&copy, &model, now, "after a crash");
            sw_store_close(copy.store);
            folder_empty(copy.folder);
            assert_int_equal(rmdir(copy.folder), 0);
        }
    }
    assert_true(first_segment(&w) > 1 || steps < 4000); /* it did compact */
    print_message("%lu commits, %lu crashes, segments from %zu on\n", (unsigned long)made,
                  (unsigned long)crashes, first_segment(&w));
    world_fini(&w);
    world_fini(&model);
}

/* ---- what is over ---------------------------------------------------------------------------- */

/* Makes so much of the log that old segments go. */
static void churn(struct world *w, int64_t now)
{
    static char text[200000];
    size_t first = first_segment(w);

    memset(text, 'c', sizeof(text));
    for (uint64_t i = 0; first_segment(w) <= first + 1; i++) {
        assert_int_equal(write_one(w, put_of(5000, sw_slice_of(text, sizeof(text))), now, NULL),
                         SW_OK);
        if (i % 50 == 49) {
            pause_ms(100);
        }
        assert_true(i < 5000);
    }
}

static void until_records(struct world *w, uint64_t count)
{
    for (int i = 0; i < 1000 && records_of(w) > count; i++) {
        pause_ms(10);
    }
    assert_int_equal(records_of(w), count);
}

/* Expired records go without a word in the log; older states of their keys stay gone. */
static void expired_stay_gone(void **state)
{
    struct world w;
    struct visited seen;
    int64_t now = wall_s();

    (void)state;
    world_init(&w, &maker_journal, &(struct sw_store_options){.sync = SW_SYNC_NO, .expire = true});
    for (uint64_t i = 0; i < 300; i++) {
        assert_int_equal(write_one(&w, put_of(i, SW_S("for ever")), now, NULL), SW_OK);
    }
    churn(&w, now); /* the first states are copied forward */
    for (uint64_t i = 0; i < 300; i++) {
        struct sw_write p = put_of(i, SW_S("short"));

        p.expires_unix_s = now + (i % 2 == 0 ? 1 : 1000);
        p.subject = SW_S("alice");
        p.due_unix_ms = 1 + (int64_t)i;
        assert_int_equal(write_one(&w, p, now, NULL), SW_OK);
    }
    until_records(&w, 151);
    for (int turn = 0; turn < 3; turn++) {
        for (uint64_t i = 0; i < 300; i++) {
            enum sw_err err = load(&w, i, 0, NULL); /* 0: even if it were long over */

            assert_int_equal(err, i % 2 == 0 ? SW_E_NOT_FOUND : SW_OK);
        }
        visit(&w, SW_S("alice"), NULL, SIZE_MAX, 0, &seen);
        assert_int_equal(seen.count, 150);
        visit_due(&w, now * 1000, SIZE_MAX, &seen);
        assert_int_equal(seen.count, 150);
        assert_int_equal(sw_store_next_due_unix_ms(w.store), 2);
        if (turn == 0) {
            churn(&w, now);
        }
        world_reopen(&w);
    }
    world_fini(&w);
}

/* States that were cut off go, then the cut-off; they stay gone, also those that compaction copied
 * behind the cut-off. */
static void cut_off_stay_gone(void **state)
{
    struct world w;
    int64_t now = wall_s(), then = now - 2 * SW_TOMBSTONE_S_MIN;
    struct sw_store_options opt = {.sync = SW_SYNC_NO};

    (void)state;
    world_init(&w, &maker_journal, &opt); /* nothing is collected yet */
    for (uint64_t i = 0; i < 700; i++) {
        struct sw_write p = put_of(i, SW_S("v"));

        p.subject = i % 7 == 0 ? SW_S("bob") : SW_S("alice");
        p.bound_unix_ms = 5;
        p.due_unix_ms = 1;
        assert_int_equal(write_one(&w, p, then, NULL), SW_OK);
    }
    assert_int_equal(write_one(&w, cutoff_of(SW_S("alice"), 5, now - 1), then, NULL), SW_OK);
    churn(&w, then); /* copies of them stand behind it now */
    assert_int_equal(records_of(&w), 701);
    w.opt.expire = true;
    world_reopen(&w);
    until_records(&w, 101);
    for (int i = 0; i < 500 && sw_store_cutoff_unix_ms(w.store, SW_S("alice")) != 0; i++) {
        pause_ms(10);
    }
    assert_int_equal(sw_store_cutoff_unix_ms(w.store, SW_S("alice")), 0);
    for (int turn = 0; turn < 3; turn++) {
        for (uint64_t i = 0; i < 700; i++) {
            assert_int_equal(load(&w, i, now, NULL), i % 7 == 0 ? SW_OK : SW_E_NOT_FOUND);
        }
        w.opt.expire = turn == 1;
        world_reopen(&w);
        if (turn == 0) {
            churn(&w, now);
        }
    }
    world_fini(&w);
}

/* ---- the edge of memory ---------------------------------------------------------------------- */

static void memory_full(void **state)
{
    static char text[10000];
    struct world w;
    struct sw_store_stats st;
    struct sw_record r;
    enum sw_err err = SW_OK;
    uint64_t made = 0, ended = 0;

    (void)state;
    memset(text, 'm', sizeof(text));
    world_init(&w, &maker_journal,
               &(struct sw_store_options){.sync = SW_SYNC_NO, .memory_bytes_max = 1u << 20});
    while (err == SW_OK) {
        err = write_one(&w, put_of(made, sw_slice_of(text, sizeof(text))), NOW, NULL);
        made += err == SW_OK;
        assert_true(made < 1000);
    }
    assert_int_equal(err, SW_E_STORE_FULL);
    assert_true(made > 95);
    sw_store_stats(w.store, &st);
    assert_true(st.bytes_used <= st.bytes_map && st.bytes_used > st.bytes_map / 10 * 9);
    assert_int_equal(st.failures, 1);
    for (uint64_t i = 0; i < made; i++) {
        assert_value(&w, i, NOW, sw_slice_of(text, sizeof(text)));
    }
    /* what takes no more than there was goes on */
    assert_int_equal(write_one(&w, put_of(1, sw_slice_of(text, sizeof(text))), NOW, NULL), SW_OK);
    assert_int_equal(write_one(&w, put_of(made, sw_slice_of(text, sizeof(text))), NOW, NULL),
                     SW_E_STORE_FULL);
    /* to the last byte, and then deletes of keys that are free: the reserve is for them */
    for (size_t len = sizeof(text); len > 0; len /= 2) {
        (void)!write_one(&w, put_of(9000 + len, sw_slice_of(text, len)), NOW, NULL);
    }
    err = SW_OK;
    while (err == SW_OK) {
        err = write_one(&w, delete_of(100000 + ended, 0), NOW, NULL);
        ended += err == SW_OK;
        assert_true(ended < 1000);
    }
    assert_int_equal(err, SW_E_STORE_FULL);
    assert_true(ended > 30);
    /* a start with less than there is loads all of it */
    world_reopen(&w);
    for (uint64_t i = 0; i < made; i++) {
        assert_value(&w, i, NOW, sw_slice_of(text, sizeof(text)));
    }
    /* deletes make room */
    for (uint64_t i = 0; i < made; i++) {
        assert_int_equal(write_one(&w, delete_of(i, NOW + 10), NOW, NULL), SW_OK);
    }
    assert_int_equal(write_one(&w, put_of(made, sw_slice_of(text, sizeof(text))), NOW, NULL),
                     SW_OK);
    assert_int_equal(load(&w, 1, NOW, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    sw_store_stats(w.store, &st);
    assert_true(st.bytes_used < st.bytes_map / 4);
    world_fini(&w);
}

/* Values of the largest size that store.h allows. */
static void largest(void **state)
{
    size_t len = SW_STORE_VALUE_BYTES_MAX;
    char *text = malloc(len + 1);
    struct world w;

    (void)state;
    assert_non_null(text);
    memset(text, 'L', len + 1);
    world_init(&w, &maker_journal, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
    free(w.block);
    w.block = NULL;
    for (int turn = 0; turn < 2; turn++) {
        struct sw_store_commit op = {.count = 2, .now_unix_s = NOW};

        op.writes[0] = put_of(1, sw_slice_of(text, len));
        op.writes[1] = put_of(2, sw_slice_of(text, len - 1));
        op.writes[1].extra = SW_S("extra");
        assert_int_equal(commit(&w, &op), SW_OK);
        assert_int_equal(write_one(&w, put_of(3, sw_slice_of(text, len + 1)), NOW, NULL),
                         SW_E_LIMIT);
        world_reopen(&w);
        for (uint64_t k = 1; k <= 2; k++) {
            char *block = malloc(len + 64);
            struct sw_arena arena;
            struct sw_store_load load = {.key = key_of(k), .now_unix_s = NOW, .arena = &arena};

            sw_arena_init(&arena, block, len + 64);
            assert_int_equal(sw_store_load(w.store, &load), SW_STEP_DONE);
            assert_int_equal(load.err, SW_OK);
            assert_int_equal(load.record.value.len, len + 1 - k);
            assert_memory_equal(load.record.value.ptr, text, load.record.value.len);
            free(block);
        }
    }
    free(text);
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beside_model),      cmocka_unit_test(expired_stay_gone),
        cmocka_unit_test(cut_off_stay_gone), cmocka_unit_test(memory_full),
        cmocka_unit_test(largest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
