/* kill -9 at random moments, compaction and new segments under way: all that was acknowledged is
 * there, nothing is torn, in every sync mode (the kernel lives on).
 *
 * A child commits in a loop, several commits under way. Each is three writes with the same number:
 * a state, a second state of the lane's subject, and the claim of an idempotency key; every ninth
 * ends the second state for a moment. It tells each acknowledged number through a pipe.
 * STATEWAY_KILL_TURNS: how often (default 24).
 */
#include "test_journal.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "base/rng.h"

enum { LANES = 6, VALUE_BYTES = 40000, PARTS = 3 };

struct lane {
    struct world *w;
    struct sw_store_commit op;
    uint64_t number; /* of the commit under way */
    uint64_t lane;
    char text[PARTS][VALUE_BYTES];
    int fd;
};

struct told {
    uint32_t lane, number;
};

/* The number, again and again, with a length that depends on it. */
static struct sw_slice value_of(char *room, uint64_t number, uint64_t lane, size_t part)
{
    size_t max = number % 5 == 0 ? VALUE_BYTES : 900;
    size_t len = 16 + (number * 7919 + lane * 13 + part * 101) % (max - 16);
    char word[40];

    (void)snprintf(word, sizeof(word), "%08lx%08lx", (unsigned long)number, (unsigned long)lane);
    for (size_t i = 0; i < len; i++) {
        room[i] = word[i % 16];
    }
    return sw_slice_of(room, len);
}

static bool ends(uint64_t number)
{
    return number % 9 == 0;
}

static void lane_next(struct lane *l);

static void lane_done(struct sw_store_commit *op)
{
    struct lane *l = op->arg;
    struct told t = {(uint32_t)l->lane, (uint32_t)l->number};

    if (op->err != SW_OK || write(l->fd, &t, sizeof(t)) != sizeof(t)) {
        _exit(3);
    }
    l->number++;
    lane_next(l);
}

static void lane_next(struct lane *l)
{
    l->op = (struct sw_store_commit){
        .count = PARTS, .now_unix_s = NOW + (int64_t)l->number * 2, .arg = l};
    l->op.loop = l->w->loop;
    l->op.done = lane_done;
    for (size_t i = 0; i < PARTS; i++) {
        l->op.writes[i] = put_of(l->lane * PARTS + i, value_of(l->text[i], l->number, l->lane, i));
        l->op.writes[i].due_unix_ms = i == 0 ? (int64_t)l->number : 0;
    }
    if (ends(l->number)) { /* over by the next commit's clock */
        l->op.writes[1] = delete_of(l->lane * PARTS + 1, l->op.now_unix_s + 1);
    } else {
        l->op.writes[1].subject = SW_S("alice");
    }
    l->op.writes[2].record = SW_RECORD_CLAIM;
    sw_store_commit(l->w->store, &l->op);
}

/* What the lane's records say, all of them the same; 0: there are none. */
static uint64_t number_of(struct world *w, uint64_t lane)
{
    static char room[VALUE_BYTES];
    uint64_t number = 0;

    for (size_t i = 0; i < PARTS; i++) {
        struct sw_record r;
        enum sw_err err = load(w, lane * PARTS + i, 0, &r);

        if (i == 0 && err == SW_OK) {
            assert_true(sw_slice_hex_u64(sw_slice_head(r.value, 8), &number));
        }
        assert_int_equal(err, number == 0 ? SW_E_NOT_FOUND : SW_OK);
        if (number == 0) {
            continue;
        }
        if (i == 1 && ends(number)) {
            assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
            continue;
        }
        assert_int_equal(r.kind, i == 2 ? SW_RECORD_CLAIM : SW_RECORD_STATE);
        assert_true(sw_slice_eq(r.value, value_of(room, number, lane, i))); /* not torn */
    }
    return number;
}

static void child(struct world *w, int fd)
{
    static struct lane lanes[LANES];
    const char *why;

    w->loop = loop_new();
    if (w->maker->open(w, &why) != SW_OK) {
        (void)!write(STDERR_FILENO, why, strlen(why));
        _exit(2);
    }
    for (uint64_t i = 0; i < LANES; i++) {
        lanes[i].w = w;
        lanes[i].fd = fd;
        lanes[i].lane = i;
        lanes[i].number = number_of(w, i) + 1;
        lane_next(&lanes[i]);
    }
    sw_loop_run(w->loop);
    _exit(4);
}

static void check(struct world *w, uint64_t turn, uint64_t acked[LANES])
{
    struct visited seen;
    size_t alice = 0, due = 0;

    for (uint64_t i = 0; i < LANES; i++) {
        uint64_t number = number_of(w, i);

        if (number < acked[i] || number > acked[i] + 1) {
            fail_msg("turn %lu, lane %lu: has %lu, acknowledged %lu", (unsigned long)turn,
                     (unsigned long)i, (unsigned long)number, (unsigned long)acked[i]);
        }
        acked[i] = number;
        due += number > 0;
        alice += number > 0 && !ends(number);
    }
    visit(w, SW_S("alice"), NULL, SIZE_MAX, 0, &seen);
    assert_int_equal(seen.count, alice);
    visit_due(w, INT64_MAX, SIZE_MAX, &seen);
    assert_int_equal(seen.count, due);
}

static void kill_at_random(void **state)
{
    static const enum sw_sync syncs[] = {SW_SYNC_ALWAYS, SW_SYNC_NO, SW_SYNC_EVERYSEC};
    const char *turns_text = getenv("STATEWAY_KILL_TURNS");
    uint64_t turns = 24, acked[LANES] = {0}, total = 0, seed = (uint64_t)time(NULL);
    struct world w;
    struct sw_rng rng;

    (void)state;
    if (turns_text != NULL) {
        assert_true(sw_slice_u64(sw_slice_cstr(turns_text), &turns));
    }
    print_message("seed %lu\n", (unsigned long)seed);
    sw_rng_seed(&rng, seed);
    world_init(&w, &maker_journal, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
    for (uint64_t turn = 0; turn < turns; turn++) {
        struct timespec pause = {0, (long)sw_rng_below(&rng, 200) * 1000000 + 1000};
        const char *why = "";
        struct told t;
        int fds[2], status;
        pid_t pid;

        sw_store_close(w.store);
        w.store = NULL;
        sw_loop_free(w.loop);
        w.opt.sync = syncs[turn % SW_COUNTOF(syncs)];
        assert_int_equal(pipe(fds), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(fds[0]);
            child(&w, fds[1]);
        }
        close(fds[1]);
        if (turn % 4 != 0) { /* once it is working; every fourth time perhaps while it opens */
            assert_int_equal(read(fds[0], &t, sizeof(t)), sizeof(t));
            acked[t.lane] = SW_MAX(acked[t.lane], t.number);
        }
        /* what it tells is taken all the time: it must not wait for us */
        assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
        for (long left = pause.tv_nsec; left > 0; left -= 1000000) {
            struct timespec ms = {0, 1000000};

            nanosleep(&ms, NULL);
            while (read(fds[0], &t, sizeof(t)) == sizeof(t)) {
                assert_true(t.lane < LANES);
                acked[t.lane] = SW_MAX(acked[t.lane], t.number);
                total++;
            }
        }
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        while (read(fds[0], &t, sizeof(t)) == sizeof(t)) {
            acked[t.lane] = SW_MAX(acked[t.lane], t.number);
            total++;
        }
        close(fds[0]);
        w.loop = loop_new();
        if (turn % 5 == 4) { /* two crashes, one upon the other */
            struct world copy = w;

            strncpy(copy.folder, "/tmp/sw-journal-XXXXXX", sizeof(copy.folder) - 1);
            assert_non_null(mkdtemp(copy.folder));
            folder_copy(w.folder, copy.folder);
            assert_int_equal(maker_journal.open(&copy, &why), SW_OK);
            check(&copy, turn, acked);
            sw_store_close(copy.store);
            folder_empty(copy.folder);
            assert_int_equal(rmdir(copy.folder), 0);
        }
        if (maker_journal.open(&w, &why) != SW_OK) {
            fail_msg("turn %lu: %s", (unsigned long)turn, why);
        }
        check(&w, turn, acked);
    }
    print_message("%lu commits told\n", (unsigned long)total);
    assert_true(total > turns);
    assert_true(access(world_file(&w, "0000000000000001.journal"), F_OK) != 0 || turns < 20);
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(kill_at_random)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
