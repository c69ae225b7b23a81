/* Readers of every kind beside the committer, its compaction and its collector: what they see is
 * whole, and a commit is seen as one. Also part of the TSan build. */
#include "test_journal.h"

#include <pthread.h>
#include <time.h>

enum { READERS = 3, PAIRS = 24, LARGE = 30000, WINDOW = 16 };

struct shared {
    struct world w;
    _Atomic bool over;
    _Atomic uint64_t reads, failed;
    uint64_t number[PAIRS];
};

/* Both of a pair begin with the same number; the second leads to the first. */
static struct sw_slice text_of(char *room, uint64_t number, size_t len)
{
    (void)snprintf(room, 17, "%016lx", (unsigned long)number);
    memset(room + 16, (int)('a' + number % 26), len - 16);
    return sw_slice_of(room, len);
}

static bool number_of(struct sw_slice value, uint64_t *ret_number)
{
    if (!sw_slice_hex_u64(sw_slice_head(value, 16), ret_number)) {
        return false;
    }
    for (size_t i = 16; i < value.len; i++) {
        if (value.ptr[i] != (char)('a' + *ret_number % 26)) {
            return false;
        }
    }
    return true;
}

static void wrong(struct shared *sh)
{
    sh->failed++;
}

struct counted {
    struct shared *sh;
    size_t count;
};

static void on_record(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct counted *c = arg;
    struct sw_store_load op = {.key = *key, .now_unix_s = NOW};
    char block[64];
    struct sw_arena arena;
    uint64_t number;

    if (!number_of(r->value, &number)) {
        wrong(c->sh);
    }
    /* a visitor may ask the store itself */
    sw_arena_init(&arena, block, sizeof(block));
    op.arena = &arena;
    op.value_bytes_max = 1;
    if (sw_store_load(c->sh->w.store, &op) != SW_STEP_DONE ||
        (op.err != SW_OK && !sw_slice_eq(r->subject, SW_S("bob")))) { /* his may be collected */
        wrong(c->sh);
    }
    c->count++;
}

static void on_due(void *arg, const struct sw_store_key *key, int64_t due)
{
    struct counted *c = arg;

    (void)key;
    (void)due;
    c->count++;
}

static bool load_number(struct shared *sh, uint64_t key, char *block, uint64_t *ret_number)
{
    struct sw_arena arena;
    struct sw_store_load op = {.key = key_of(key), .now_unix_s = NOW, .arena = &arena};

    sw_arena_init(&arena, block, LARGE + 64);
    if (sw_store_load(sh->w.store, &op) != SW_STEP_DONE || op.err != SW_OK) {
        return false;
    }
    return number_of(op.record.value, ret_number);
}

static void *reader(void *arg)
{
    struct shared *sh = arg;
    char *block = malloc(LARGE + 64);
    uint64_t turn = 0;

    while (!sh->over) {
        uint64_t pair = turn++ % PAIRS, first = 0, second = 0, again = 0;

        /* Who has seen the newer one of a commit sees its other one too. */
        if (!load_number(sh, 2 * pair, block, &first) ||
            !load_number(sh, 2 * pair + 1, block, &second) ||
            !load_number(sh, 2 * pair, block, &again) || second < first || again < second) {
            wrong(sh);
        }
        if (turn % 64 == 0) {
            struct counted c = {sh, 0};
            struct sw_store_stats st;

            if (sw_store_scan_subject(sh->w.store, SW_S("alice"), NULL, 1000, NOW, on_record, &c) !=
                    SW_OK ||
                c.count != PAIRS) {
                wrong(sh);
            }
            c.count = 0;
            if (sw_store_scan(sh->w.store, NULL, 1000, NOW, on_record, &c) != SW_OK ||
                c.count < 2 * PAIRS) {
                wrong(sh);
            }
            (void)!sw_store_due(sh->w.store, INT64_MAX, 1000, on_due, &c);
            sw_store_stats(sh->w.store, &st);
            (void)sw_store_cutoff_unix_ms(sh->w.store, SW_S("bob"));
            (void)sw_store_next_due_unix_ms(sh->w.store);
        }
        sh->reads++;
    }
    free(block);
    return NULL;
}

static void pair_write(struct shared *sh, struct sw_store_commit *op, uint64_t pair, char *room)
{
    uint64_t number = ++sh->number[pair];
    struct sw_slice large = text_of(room, number, LARGE);

    *op = (struct sw_store_commit){.count = 3, .now_unix_s = NOW};
    op->writes[0] = put_of(2 * pair, large);
    op->writes[1] = put_of(2 * pair + 1, sw_slice_head(large, 16 + number % 3000));
    op->writes[1].subject = SW_S("alice");
    op->writes[1].bound_unix_ms = 1000;
    op->writes[1].due_unix_ms = (int64_t)(number * 7 + pair);
    op->writes[2] = (struct sw_write){.kind = SW_WRITE_TOUCH,
                                      .key = key_of((2 * pair + 7) % PAIRS),
                                      .expires_unix_s = NOW + (int64_t)number + 1000000000};
    if (number % 50 == 0) {
        op->writes[2] = cutoff_of(SW_S("bob"), (int64_t)number, 0);
    } else if (number % 50 == 1) { /* lives so long that the collector finds it */
        op->writes[2] = put_of(1000 + pair, sw_slice_head(large, 100));
        op->writes[2].subject = SW_S("bob");
        op->writes[2].expires_unix_s = NOW + 1;
    }
    commit_begin(&sh->w, op);
}

static void beside(enum sw_sync sync, uint64_t commits)
{
    static struct sw_store_commit ops[WINDOW];
    static struct shared sh;
    char *rooms = malloc((size_t)WINDOW * (LARGE + 1));
    pthread_t threads[READERS];

    memset(&sh, 0, sizeof(sh));
    world_init(&sh.w, &maker_journal, &(struct sw_store_options){.sync = sync, .expire = true});
    for (uint64_t pair = 0; pair < PAIRS; pair++) {
        pair_write(&sh, &ops[0], pair, rooms);
        world_wait(&sh.w);
    }
    for (size_t i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, reader, &sh), 0);
    }
    for (uint64_t turn = 0; turn < commits / WINDOW; turn++) {
        for (uint64_t i = 0; i < WINDOW; i++) {
            pair_write(&sh, &ops[i], (turn * WINDOW + i) % PAIRS, rooms + i * (LARGE + 1));
        }
        world_wait(&sh.w);
        for (uint64_t i = 0; i < WINDOW; i++) {
            assert_int_equal(ops[i].err, SW_OK);
        }
    }
    sh.over = true;
    for (size_t i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(sh.failed, 0);
    assert_true(sh.reads > 0);
    /* compaction took part, if there was enough to do */
    assert_true(commits < 6000 || access(world_file(&sh.w, "0000000000000001.journal"), F_OK) != 0);
    world_fini(&sh.w);
    free(rooms);
}

static void always(void **state)
{
    (void)state;
    beside(SW_SYNC_ALWAYS, 1200);
}

static void no(void **state)
{
    (void)state;
    beside(SW_SYNC_NO, 6000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(always), cmocka_unit_test(no)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
