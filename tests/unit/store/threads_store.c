/* Several threads with a loop each: compare-and-set counts exactly, reads beside it see only whole
 * and ever newer states. Also part of the TSan build. */
#include "contract.h"
#include "test_journal.h"

#include <pthread.h>

enum { WRITERS = 4, READERS = 2, KEYS = 3, TURNS = 150 };

struct worker {
    struct sw_store *store;
    struct sw_loop *loop;
    struct sw_store_commit op;
    struct sw_arena arena;
    char block[1024], text[64];
    size_t left, conflicts;
    uint64_t key;
    _Atomic bool *over;
    bool failed;
};

/* "n n": twice the same number, so that a torn one would be seen. */
static bool parse(struct sw_slice value, uint64_t *ret_n)
{
    struct sw_slice a, b;

    return sw_slice_cut(value, ' ', &a, &b) && sw_slice_eq(a, b) && sw_slice_u64(a, ret_n);
}

static bool current(struct worker *w, uint64_t key, uint64_t *ret_n, struct sw_version *ret_version)
{
    struct sw_store_load op = {.key = key_of(key), .now_unix_s = NOW, .arena = &w->arena};

    sw_arena_init(&w->arena, w->block, sizeof(w->block));
    if (sw_store_load(w->store, &op) != SW_STEP_DONE) {
        return false;
    }
    *ret_n = 0;
    *ret_version = op.record.version;
    return op.err == SW_E_NOT_FOUND || (op.err == SW_OK && parse(op.record.value, ret_n));
}

static void answered(struct sw_store_commit *op);

static void next(struct worker *w)
{
    struct sw_version version;
    uint64_t n;
    int len;

    w->key = w->left % KEYS;
    if (!current(w, w->key, &n, &version)) {
        w->failed = true;
        sw_loop_stop(w->loop);
        return;
    }
    len = snprintf(w->text, sizeof(w->text), "%lu %lu", (unsigned long)n + 1, (unsigned long)n + 1);
    w->op = (struct sw_store_commit){.count = 1, .now_unix_s = NOW, .loop = w->loop};
    w->op.done = answered;
    w->op.arg = w;
    w->op.writes[0] = put_at(w->key, sw_slice_of(w->text, (size_t)len), version);
    sw_store_commit(w->store, &w->op);
}

static void answered(struct sw_store_commit *op)
{
    struct worker *w = op->arg;

    if (op->err == SW_OK) {
        w->left--;
    } else if (op->err == SW_E_CONFLICT) {
        w->conflicts++;
    } else {
        w->failed = true;
    }
    if (w->left == 0 || w->failed) {
        sw_loop_stop(w->loop);
    } else {
        next(w);
    }
}

static void *writer(void *arg)
{
    struct worker *w = arg;

    next(w);
    sw_loop_run(w->loop);
    return NULL;
}

static void *reader(void *arg)
{
    struct worker *w = arg;
    uint64_t seen[KEYS] = {0};

    while (!*w->over) {
        for (uint64_t key = 0; key < KEYS; key++) {
            struct sw_version version;
            uint64_t n = 0;

            if (!current(w, key, &n, &version) || n < seen[key]) {
                w->failed = true;
                return NULL;
            }
            seen[key] = n;
        }
    }
    return NULL;
}

static void count_exactly(const struct maker *maker, enum sw_sync sync)
{
    static struct worker workers[WRITERS + READERS];
    pthread_t threads[WRITERS + READERS];
    struct sw_store_options opt = {.sync = sync, .expire = true};
    static _Atomic bool over;
    struct world world;
    size_t conflicts = 0;
    struct sw_store_stats st;

    over = false;
    world_init(&world, maker, &opt);
    for (size_t i = 0; i < SW_COUNTOF(workers); i++) {
        memset(&workers[i], 0, sizeof(workers[i]));
        workers[i].store = world.store;
        workers[i].left = TURNS;
        workers[i].over = &over;
        workers[i].loop = i < WRITERS ? loop_new() : NULL;
    }
    for (size_t i = 0; i < SW_COUNTOF(workers); i++) {
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < WRITERS ? writer : reader, &workers[i]), 0);
    }
    for (size_t i = 0; i < SW_COUNTOF(workers); i++) {
        over = i >= WRITERS; /* the readers go on until the last writer is done */
        pthread_join(threads[i], NULL);
    }
    for (size_t i = 0; i < SW_COUNTOF(workers); i++) {
        assert_false(workers[i].failed);
        conflicts += workers[i].conflicts;
    }
    for (uint64_t key = 0; key < KEYS; key++) {
        struct sw_record r;
        uint64_t n;

        assert_int_equal(load(&world, key, NOW, &r), SW_OK);
        assert_true(parse(r.value, &n));
        assert_int_equal(n, WRITERS * TURNS / KEYS);
        assert_int_equal(r.version.counter, n);
    }
    sw_store_stats(world.store, &st);
    assert_int_equal(st.writes, WRITERS * TURNS);
    assert_int_equal(st.conflicts, conflicts);
    assert_int_equal(st.commits, WRITERS * TURNS + conflicts);
    world_fini(&world);
    for (size_t i = 0; i < WRITERS; i++) {
        sw_loop_free(workers[i].loop); /* after the store: its committer may still be waking them */
    }
}

static void lmdb_always(void **state)
{
    (void)state;
    count_exactly(&maker_lmdb, SW_SYNC_ALWAYS);
}

static void lmdb_no(void **state)
{
    (void)state;
    count_exactly(&maker_lmdb, SW_SYNC_NO);
}

static void memory(void **state)
{
    (void)state;
    count_exactly(&maker_mem, SW_SYNC_NO);
}

static void journal_always(void **state)
{
    (void)state;
    count_exactly(&maker_journal, SW_SYNC_ALWAYS);
}

static void journal_no(void **state)
{
    (void)state;
    count_exactly(&maker_journal, SW_SYNC_NO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lmdb_always),
        cmocka_unit_test(lmdb_no),
        cmocka_unit_test(memory),
        cmocka_unit_test(journal_always),
        cmocka_unit_test(journal_no),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
