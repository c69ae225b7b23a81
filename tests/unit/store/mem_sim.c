/* store_mem.c in a simulation: faults, a crash, and runs that repeat. */
#include "contract.h"

#include "io/sim.h"

struct run {
    struct sw_sim *sim;
    struct sw_loop *loop;
    struct sw_store *store;
    struct sw_store_commit ops[8];
    uint64_t done_ns[8];
    size_t order[8], done;
    struct sw_store_fault faults[8];
    size_t asked;
};

static void run_open(struct run *r, uint64_t seed)
{
    struct sw_loop_options opt = {
        .streams_max = 4, .buffers_max = 4, .large_max = 1, .large_bytes = 65536};

    *r = (struct run){.sim = sw_sim_new(seed, NULL)};
    assert_non_null(r->sim);
    assert_int_equal(sw_loop_new_sim(r->sim, &opt, &r->loop), SW_OK);
    assert_int_equal(sw_store_open_mem(NULL, &r->store), SW_OK);
}

static void run_close(struct run *r)
{
    sw_loop_free(r->loop);
    sw_store_close(r->store);
    sw_sim_free(r->sim);
}

static void on_done(struct sw_store_commit *op)
{
    struct run *r = op->arg;
    size_t i = (size_t)(op - r->ops);

    r->done_ns[i] = sw_loop_now_ns(r->loop);
    r->order[r->done++] = i;
}

static void begin(struct run *r, size_t i, uint64_t key)
{
    r->ops[i] = (struct sw_store_commit){
        .count = 1, .now_unix_s = NOW, .loop = r->loop, .done = on_done, .arg = r};
    r->ops[i].writes[0] = put_of(key, SW_S("x"));
    sw_store_commit(r->store, &r->ops[i]);
}

static struct sw_store_fault on_fault(void *arg, const struct sw_store_commit *op)
{
    struct run *r = arg;

    (void)op;
    return r->faults[r->asked++];
}

static uint64_t counter_of(struct sw_store *store, uint64_t key)
{
    char block[64];
    struct sw_arena arena;
    struct sw_store_load op = {.key = key_of(key), .now_unix_s = NOW, .arena = &arena};

    sw_arena_init(&arena, block, sizeof(block));
    assert_int_equal(sw_store_load(store, &op), SW_STEP_DONE);
    return op.err == SW_OK ? op.record.version.counter : 0;
}

static void faults(void **state)
{
    struct run r;
    uint64_t start;

    (void)state;
    run_open(&r, 1);
    r.faults[1].delay_ns = 50 * SW_NS_PER_MS;
    r.faults[2].err = SW_E_STORE_FULL;
    r.faults[3].apply_then_fail = true;
    r.faults[4] = (struct sw_store_fault){10 * SW_NS_PER_MS, SW_E_STORE_IO, false};
    sw_store_mem_faults(r.store, on_fault, &r);
    start = sw_loop_now_ns(r.loop);
    for (size_t i = 0; i < 5; i++) {
        begin(&r, i, i);
    }
    assert_int_equal(r.done, 0);
    assert_int_equal(counter_of(r.store, 0), 0); /* made in the turn that answers */
    sw_sim_run(r.sim, start + 20 * SW_NS_PER_MS);
    assert_int_equal(r.done, 4);
    assert_int_equal(r.ops[0].err, SW_OK);
    assert_int_equal(r.ops[2].err, SW_E_STORE_FULL);
    assert_int_equal(r.ops[3].err, SW_E_STORE_IO);
    assert_int_equal(r.ops[4].err, SW_E_STORE_IO);
    assert_true(sw_version_none(r.ops[3].writes[0].ret_version));
    assert_int_equal(counter_of(r.store, 0), 1);
    assert_int_equal(counter_of(r.store, 1), 0); /* not yet */
    assert_int_equal(counter_of(r.store, 2), 0);
    assert_int_equal(counter_of(r.store, 3), 1); /* made, but told otherwise */
    assert_int_equal(counter_of(r.store, 4), 0);
    sw_sim_run(r.sim, start + 200 * SW_NS_PER_MS);
    assert_int_equal(r.done, 5);
    assert_int_equal(r.ops[1].err, SW_OK);
    assert_true(r.done_ns[1] >= start + 50 * SW_NS_PER_MS);
    assert_int_equal(r.ops[1].done_ns - r.ops[1].queued_ns,
                     r.done_ns[1] - start); /* virtual time */
    sw_store_mem_faults(r.store, NULL, NULL);
    begin(&r, 5, 1);
    sw_sim_run(r.sim, start + 300 * SW_NS_PER_MS);
    assert_int_equal(r.ops[5].err, SW_OK);
    assert_int_equal(counter_of(r.store, 1), 2);
    run_close(&r);
}

/* The gateway dies: what was not answered is forgotten; the store, the "disk", stays. */
static void crash(void **state)
{
    for (int before = 0; before < 2; before++) { /* the order of the two does not matter */
        struct sw_loop_options opt = {
            .streams_max = 4, .buffers_max = 4, .large_max = 1, .large_bytes = 65536};
        struct run r;
        uint64_t now;

        run_open(&r, 2);
        now = sw_loop_now_ns(r.loop);
        begin(&r, 0, 0);
        sw_sim_run(r.sim, now += SW_NS_PER_MS);
        assert_int_equal(r.done, 1);
        r.faults[1].delay_ns = SW_NS_PER_S;
        sw_store_mem_faults(r.store, on_fault, &r);
        begin(&r, 1, 0);
        begin(&r, 2, 0);
        begin(&r, 3, 5);
        if (before) {
            sw_store_mem_crash(r.store);
        }
        sw_loop_free(r.loop);
        memset(r.ops, 0xee, sizeof(r.ops)); /* its memory is gone */
        if (!before) {
            sw_store_mem_crash(r.store);
        }
        assert_int_equal(counter_of(r.store, 0), 1);
        assert_int_equal(counter_of(r.store, 5), 0);
        sw_store_mem_faults(r.store, NULL, NULL);
        assert_int_equal(sw_loop_new_sim(r.sim, &opt, &r.loop), SW_OK);
        begin(&r, 4, 0);
        sw_sim_run(r.sim, now + 5 * SW_NS_PER_S);
        assert_int_equal(r.done, 2);
        assert_int_equal(counter_of(r.store, 0), 2);
        run_close(&r);
    }
    (void)state;
}

static struct sw_version version_of_seed(uint64_t seed)
{
    struct sw_version v;
    struct run r;

    run_open(&r, seed);
    begin(&r, 0, 3);
    sw_sim_run(r.sim, sw_loop_now_ns(r.loop) + SW_NS_PER_MS);
    assert_int_equal(r.ops[0].err, SW_OK);
    v = r.ops[0].writes[0].ret_version;
    run_close(&r);
    return v;
}

static void repeats(void **state)
{
    (void)state;
    assert_true(sw_version_eq(version_of_seed(7), version_of_seed(7)));
    assert_false(sw_version_eq(version_of_seed(7), version_of_seed(8)));
}

/* Expired records go, a few after each commit. */
static void collects(void **state)
{
    struct sw_store_options opt = {.expire = true};
    struct sw_store_stats st;
    struct run r;
    uint64_t now;

    (void)state;
    run_open(&r, 3);
    now = sw_loop_now_ns(r.loop);
    sw_store_close(r.store);
    assert_int_equal(sw_store_open_mem(&opt, &r.store), SW_OK);
    for (uint64_t key = 0; key < 1000; key++) {
        r.ops[0] = (struct sw_store_commit){
            .count = 1, .now_unix_s = NOW, .loop = r.loop, .done = on_done, .arg = &r};
        r.ops[0].writes[0] = put_of(key, SW_S("x"));
        r.ops[0].writes[0].expires_unix_s = key % 2 == 0 ? NOW + 10 : 0;
        sw_store_commit(r.store, &r.ops[0]);
        r.done = 0;
        sw_sim_run(r.sim, now += SW_NS_PER_MS);
        assert_int_equal(r.done, 1);
        assert_int_equal(r.ops[0].err, SW_OK);
    }
    for (size_t i = 0; i < 600; i++) {
        r.ops[0] = (struct sw_store_commit){
            .count = 1, .now_unix_s = NOW + 10, .loop = r.loop, .done = on_done, .arg = &r};
        r.ops[0].writes[0] = put_of(1, SW_S("x"));
        sw_store_commit(r.store, &r.ops[0]);
        r.done = 0;
        sw_sim_run(r.sim, now += SW_NS_PER_MS);
        assert_int_equal(r.done, 1);
    }
    sw_store_stats(r.store, &st);
    assert_int_equal(st.records, 500);
    assert_int_equal(st.expired, 500);
    for (uint64_t key = 0; key < 1000; key++) { /* the table was closed up rightly */
        assert_int_equal(counter_of(r.store, key), key == 1 ? 601 : key % 2);
    }
    run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults),
        cmocka_unit_test(crash),
        cmocka_unit_test(repeats),
        cmocka_unit_test(collects),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
