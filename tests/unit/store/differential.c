/* The same random commits to both stores: the same answers, the same records.
 *
 * Epochs differ, so versions are compared by their counters and by which of the known ones they
 * continue. STATEWAY_DIFF_STEPS: how many rounds (default 2000); the seed is printed on failure.
 */
#include "contract.h"

#include <time.h>

#include "base/rng.h"

enum { KEYS = 12, PARALLEL = 6 };

struct side {
    struct world w;
    struct sw_store_commit ops[PARALLEL];
    struct sw_version last[KEYS], older[KEYS]; /* versions this store told of */
};

static char texts[PARALLEL][SW_COMMIT_WRITES_MAX][9000];

static void write_random(struct sw_rng *rng, struct side *sides, size_t op, size_t i, uint64_t key,
                         int64_t now)
{
    uint64_t kind = sw_rng_below(rng, 10), expect = sw_rng_below(rng, 6),
             known = sw_rng_below(rng, 4);
    size_t len = sw_rng_below(rng, sw_rng_below(rng, 4) == 0 ? sizeof(texts[0][0]) : 100);
    int64_t expires = sw_rng_below(rng, 3) == 0 ? 0 : now + (int64_t)sw_rng_below(rng, 40) - 2,
            absolute = sw_rng_below(rng, 3) == 0 ? now + (int64_t)sw_rng_below(rng, 60) : 0;
    struct sw_slice subject = sw_rng_below(rng, 2) == 0 ? SW_S("somebody") : SW_S("");
    char *text = texts[op][i];

    memset(text, (int)('a' + sw_rng_below(rng, 26)), len);
    for (size_t s = 0; s < 2; s++) {
        struct sw_write *w = &sides[s].ops[op].writes[i];

        *w = (struct sw_write){
            .kind = kind < 6   ? SW_WRITE_PUT
                    : kind < 8 ? SW_WRITE_TOUCH
                               : SW_WRITE_DELETE,
            .key = key_of(key),
            .record = kind == 5 ? SW_RECORD_ALIAS : SW_RECORD_STATE,
            .expect = expect < 2   ? SW_EXPECT_ANY
                      : expect < 3 ? SW_EXPECT_EXISTS
                                   : SW_EXPECT_VERSION,
            .expires_unix_s = expires,
            .absolute_unix_s = absolute,
            .subject = subject,
            .value = sw_slice_of(text, kind == 5 ? 32 : len),
        };
        if (w->expect == SW_EXPECT_VERSION) {
            w->version = known == 0   ? (struct sw_version){0, 0}
                         : known == 1 ? sides[s].older[key]
                                      : sides[s].last[key];
        }
    }
}

static void load_both(struct side *sides, uint64_t key, int64_t now)
{
    struct sw_record a, b;
    enum sw_err err = load(&sides[0].w, key, now, &a);

    assert_int_equal(load(&sides[1].w, key, now, &b), err);
    if (err != SW_OK) {
        assert_int_equal(err, SW_E_NOT_FOUND);
        return;
    }
    assert_int_equal(a.kind, b.kind);
    assert_int_equal(a.version.counter, b.version.counter);
    assert_int_equal(sw_version_eq(a.version, sides[0].last[key]),
                     sw_version_eq(b.version, sides[1].last[key]));
    assert_int_equal(a.created_unix_s, b.created_unix_s);
    assert_int_equal(a.touched_unix_s, b.touched_unix_s);
    assert_int_equal(a.expires_unix_s, b.expires_unix_s);
    assert_int_equal(a.absolute_unix_s, b.absolute_unix_s);
    assert_true(sw_slice_eq(a.subject, b.subject));
    assert_true(sw_slice_eq(a.value, b.value));
    for (size_t s = 0; s < 2; s++) {
        struct sw_version now_is = s == 0 ? a.version : b.version;

        if (!sw_version_eq(sides[s].last[key], now_is)) {
            sides[s].older[key] = sides[s].last[key];
            sides[s].last[key] = now_is;
        }
    }
}

struct scanned {
    size_t count;
    uint64_t sum;
};

static void on_scan(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct scanned *s = arg;

    s->count++;
    s->sum = s->sum * 31 + sw_slice_hash(sw_slice_of(key, sizeof(*key)), 1) + r->version.counter +
             sw_slice_hash(r->value, 2) + (uint64_t)r->expires_unix_s;
}

static void same_answers(void **state)
{
    static struct side sides[2];
    const char *steps_text = getenv("STATEWAY_DIFF_STEPS");
    uint64_t steps = 2000, seed = (uint64_t)time(NULL);
    int64_t now = NOW;
    struct sw_rng rng;

    (void)state;
    if (steps_text != NULL) {
        assert_true(sw_slice_u64(sw_slice_cstr(steps_text), &steps));
    }
    print_message("seed %lu\n", (unsigned long)seed);
    sw_rng_seed(&rng, seed);
    world_init(&sides[0].w, &maker_lmdb, &(struct sw_store_options){.sync = SW_SYNC_NO});
    world_init(&sides[1].w, &maker_mem, &(struct sw_store_options){.expire = true});
    for (uint64_t step = 0; step < steps; step++) {
        size_t count = 1 + sw_rng_below(&rng, PARALLEL);

        for (size_t op = 0; op < count; op++) {
            size_t writes = 1 + sw_rng_below(&rng, sw_rng_below(&rng, 2) == 0 ? 1 : 4);
            uint64_t key = sw_rng_below(&rng, KEYS);

            for (size_t s = 0; s < 2; s++) {
                sides[s].ops[op] = (struct sw_store_commit){.count = writes, .now_unix_s = now};
            }
            for (size_t i = 0; i < writes; i++) {
                write_random(&rng, sides, op, i, (key + i * 5) % KEYS, now);
            }
            for (size_t s = 0; s < 2; s++) {
                commit_begin(&sides[s].w, &sides[s].ops[op]);
            }
        }
        for (size_t s = 0; s < 2; s++) {
            world_wait(&sides[s].w);
        }
        for (size_t op = 0; op < count; op++) {
            struct sw_store_commit *a = &sides[0].ops[op], *b = &sides[1].ops[op];

            if (a->err != b->err || a->failed != b->failed) {
                fail_msg("step %lu, commit %zu: %s (%zu), %s (%zu)", (unsigned long)step, op,
                         sw_err_name(a->err), a->failed, sw_err_name(b->err), b->failed);
            }
            for (size_t i = 0; i < a->count; i++) {
                assert_int_equal(a->writes[i].ret_version.counter,
                                 b->writes[i].ret_version.counter);
            }
        }
        for (uint64_t key = 0; key < KEYS; key++) {
            load_both(sides, key, now);
        }
        now += (int64_t)sw_rng_below(&rng, 4);
        if (step % 64 == 0) {
            struct scanned sum[2] = {{0, 0}, {0, 0}};
            struct sw_store_key after = key_of(sw_rng_below(&rng, KEYS));

            for (size_t s = 0; s < 2; s++) {
                assert_int_equal(sw_store_scan(sides[s].w.store, step % 128 == 0 ? NULL : &after, 5,
                                               now, on_scan, &sum[s]),
                                 SW_OK);
            }
            assert_int_equal(sum[0].count, sum[1].count);
            assert_int_equal(sum[0].sum, sum[1].sum);
        }
        if (step % 500 == 499) {
            world_reopen(&sides[0].w);
        }
    }
    world_fini(&sides[0].w);
    world_fini(&sides[1].w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_answers)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
