/* kill -9 at random moments: all that was acknowledged is there, nothing is torn.
 *
 * A child commits in a loop, several commits under way, pairs of keys written together, and tells
 * each acknowledged counter through a pipe. STATEWAY_KILL_TURNS: how often (default 20).
 */
#include "contract.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"

enum { LANES = 8, VALUE_BYTES = 3000 };

struct lane {
    struct world *w;
    struct sw_store_commit op;
    uint64_t number; /* of this lane's commit under way */
    char text[2][VALUE_BYTES];
    int fd;
};

struct told {
    uint32_t lane;
    uint32_t number;
};

/* The number, again and again, with a length that depends on it. */
static struct sw_slice value_of(char *room, uint64_t number, uint64_t lane)
{
    size_t len = 16 + (number * 7919 + lane * 13) % (VALUE_BYTES - 16);
    char word[40];

    (void)snprintf(word, sizeof(word), "%08lx%08lx", (unsigned long)number, (unsigned long)lane);
    for (size_t i = 0; i < len; i++) {
        room[i] = word[i % 16];
    }
    return sw_slice_of(room, len);
}

static void lane_next(struct lane *l, uint64_t lane);

static void lane_done(struct sw_store_commit *op)
{
    struct lane *l = op->arg;
    uint64_t lane = l->number & 0xff;
    struct told t = {(uint32_t)lane, (uint32_t)(l->number >> 8)};

    if (op->err != SW_OK || write(l->fd, &t, sizeof(t)) != sizeof(t)) {
        _exit(3);
    }
    l->number += 256;
    lane_next(l, lane);
}

static void lane_next(struct lane *l, uint64_t lane)
{
    uint64_t number = l->number >> 8;

    l->op = (struct sw_store_commit){.count = 2, .now_unix_s = NOW, .loop = l->w->loop, .arg = l};
    l->op.done = lane_done;
    for (size_t i = 0; i < 2; i++) {
        l->op.writes[i] = put_of(lane * 2 + i, value_of(l->text[i], number, lane));
        l->op.writes[i].expires_unix_s = NOW + (int64_t)number;
        l->op.writes[i].subject = number % 2 == 0 ? SW_S("even") : SW_S("odd");
        l->op.writes[i].due_unix_ms = number % 5 == 0 ? 0 : (int64_t)number;
    }
    sw_store_commit(l->w->store, &l->op);
}

static uint64_t number_of(struct world *w, uint64_t key, uint64_t lane)
{
    static char room[VALUE_BYTES];
    struct sw_record r;
    uint64_t number;
    enum sw_err err = load(w, key, 0, &r);

    if (err == SW_E_NOT_FOUND) {
        return 0;
    }
    assert_int_equal(err, SW_OK);
    assert_true(r.value.len >= 16);
    assert_true(sw_slice_hex_u64(sw_slice_head(r.value, 8), &number));
    assert_true(sw_slice_eq(r.value, value_of(room, number, lane))); /* not torn */
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
        lanes[i].number = (number_of(w, i * 2, i) + 1) << 8 | i;
        lane_next(&lanes[i], i);
    }
    sw_loop_run(w->loop);
    _exit(4);
}

static void kill_at_random(void **state)
{
    const char *turns_text = getenv("STATEWAY_KILL_TURNS");
    uint64_t turns = 20, acked[LANES] = {0}, total = 0;
    struct world w;
    struct sw_rng rng;

    (void)state;
    if (turns_text != NULL) {
        assert_true(sw_slice_u64(sw_slice_cstr(turns_text), &turns));
    }
    sw_rng_seed(&rng, (uint64_t)time(NULL));
    world_init(&w, &maker_lmdb, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
    for (uint64_t turn = 0; turn < turns; turn++) {
        struct timespec pause = {0, (long)sw_rng_below(&rng, 80) * 1000000 + 1000};
        struct told t;
        int fds[2], status;
        pid_t pid;

        sw_store_close(w.store);
        w.store = NULL;
        sw_loop_free(w.loop);
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
        nanosleep(&pause, NULL);
        kill(pid, SIGKILL);
        while (read(fds[0], &t, sizeof(t)) == sizeof(t)) {
            assert_true(t.lane < LANES);
            acked[t.lane] = SW_MAX(acked[t.lane], t.number);
            total++;
        }
        close(fds[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        w.loop = loop_new();
        {
            const char *why = "";

            if (w.maker->open(&w, &why) != SW_OK) {
                fail_msg("turn %lu: %s", (unsigned long)turn, why);
            }
        }
        for (uint64_t i = 0; i < LANES; i++) {
            uint64_t first = number_of(&w, i * 2, i), second = number_of(&w, i * 2 + 1, i);

            assert_int_equal(first, second); /* a commit is made whole */
            if (first < acked[i] || first > acked[i] + 1) {
                fail_msg("turn %lu, lane %lu: has %lu, acknowledged %lu", (unsigned long)turn,
                         (unsigned long)i, (unsigned long)first, (unsigned long)acked[i]);
            }
            acked[i] = first;
        }
        assert_whole(&w); /* the indexes too */
    }
    assert_true(total > turns);
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(kill_at_random)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
