/* tests/sim/sim_main.c - runs seeds.
 *
 *   sim --seed N            one run, with every event on stdout
 *   sim --quiet-seed N      one run, without them
 *   sim --seeds FROM COUNT  many; each that fails is named with the command that replays it
 *   sim --here FROM COUNT   many in this process, until one fails (for coverage and profilers)
 *
 * Many runs happen in child processes of some hundred seeds each: a failed assertion ends the
 * child, the parent tells the seed and goes on behind it.
 */
#include "world.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHUNK        250u
#define FAILURES_MAX 20u
#define ENOUGH_SEEDS 1000u /* every kind of crash must have happened */
#define TWICE_EVERY  50u   /* each such seed runs twice: the same hash must come out */

struct shared {
    uint64_t seed; /* that is running */
    struct run_total total;
};

static uint64_t number(const char *text)
{
    uint64_t value;

    if (text == NULL || !sw_slice_u64(sw_slice_cstr(text), &value)) {
        fprintf(stderr,
                "usage: sim --seed N | --quiet-seed N | --seeds FROM COUNT | --here FROM COUNT\n");
        exit(2);
    }
    return value;
}

static void logs_off(void)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

    SW_ASSERT(fd >= 0);
    sw_log_setup(fd, SW_LOG_ERROR, false, "sim");
}

static void run_chunk(struct shared *sh, uint64_t from, uint64_t count)
{
    for (uint64_t seed = from; seed < from + count; seed++) {
        uint64_t hash;

        sh->seed = seed;
        (void)alarm(60); /* of real time: a loop without end */
        hash = run_seed(seed, false);
        if (seed % TWICE_EVERY == 0 && run_seed(seed, false) != hash) {
            fprintf(stderr, "BROKEN: seed %lu: two runs differ\n", seed);
            _exit(3);
        }
        sh->total = run_total;
    }
}

static void add(struct run_total *sum, const struct run_total *one)
{
    sum->requests += one->requests;
    sum->answered += one->answered;
    sum->own += one->own;
    sum->cut += one->cut;
    sum->left += one->left;
    sum->crashes += one->crashes;
    sum->restarts += one->restarts;
    sum->virtual_s += one->virtual_s;
    sum->claims += one->claims;
    sum->replayed += one->replayed;
    sum->alarms_delivered += one->alarms_delivered;
    sum->alarms_given_up += one->alarms_given_up;
    sum->crashed_before += one->crashed_before;
    sum->crashed_within += one->crashed_within;
    sum->crashed_after += one->crashed_after;
    sum->crashed_in_flight += one->crashed_in_flight;
    for (size_t i = 0; i < SW_COUNTOF(sum->by_status); i++) {
        sum->by_status[i] += one->by_status[i];
    }
}

static int run_many(const char *self, uint64_t from, uint64_t count)
{
    struct shared *sh =
        mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct run_total sum = {0};
    unsigned failures = 0;
    uint64_t end = from + count;
    struct timespec t0, t1;

    SW_ASSERT(sh != MAP_FAILED);
    clock_gettime(CLOCK_MONOTONIC, &t0);
    while (from < end && failures < FAILURES_MAX) {
        uint64_t n = SW_MIN(end - from, (uint64_t)CHUNK);
        pid_t pid;
        int status;

        memset(sh, 0, sizeof(*sh));
        (void)fflush(NULL);
        pid = fork();
        if (pid == 0) {
            run_chunk(sh, from, n);
            (void)fflush(NULL);
            _exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid) {
            fprintf(stderr, "sim: cannot run a child\n");
            return 2;
        }
        add(&sum, &sh->total);
        if (status == 0) {
            from += n;
            continue;
        }
        failures++;
        fprintf(stderr, "FAILED: seed %lu (%s %d); replay: %s --seed %lu\n", sh->seed,
                WIFSIGNALED(status) ? "signal" : "exit",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), self, sh->seed);
        from = sh->seed + 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    printf(
        "%lu seeds, %u failed, %.1f s; %lu requests: %lu answered, %lu refused, %lu cut, %lu left; "
        "%lu crashes, %lu restarts; %.0f s of virtual time\n",
        count - (end - from), failures,
        (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9, sum.requests,
        sum.answered, sum.own, sum.cut, sum.left, sum.crashes, sum.restarts, sum.virtual_s);
    printf("%lu idempotency keys, %lu answers repeated; %lu alarms given to apps, %lu given up\n"
           "runs with a crash before a commit of these: %lu, within: %lu, after: %lu; in flight: "
           "%lu\n",
           sum.claims, sum.replayed, sum.alarms_delivered, sum.alarms_given_up, sum.crashed_before,
           sum.crashed_within, sum.crashed_after, sum.crashed_in_flight);
    for (size_t i = 0; i < SW_COUNTOF(sum.by_status); i++) {
        if (sum.by_status[i] > 0) {
            printf("  %zu: %lu", i, sum.by_status[i]);
        }
    }
    printf("\n");
    if (failures == 0 && count >= ENOUGH_SEEDS &&
        (sum.crashed_before == 0 || sum.crashed_within == 0 || sum.crashed_after == 0)) {
        fprintf(stderr, "sim: so many seeds, and no crash of each kind\n");
        return 1;
    }
    return failures == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--seed") == 0) {
        sw_log_setup(STDOUT_FILENO, SW_LOG_DEBUG, false, "sim");
        printf("hash %016lx\n", run_seed(number(argv[2]), true));
        return 0;
    }
    logs_off();
    if (argc == 3 && strcmp(argv[1], "--quiet-seed") == 0) {
        printf("hash %016lx\n", run_seed(number(argv[2]), false));
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "--seeds") == 0) {
        return run_many(argv[0], number(argv[2]), number(argv[3]));
    }
    if (argc == 4 && strcmp(argv[1], "--here") == 0) {
        uint64_t from = number(argv[2]), count = number(argv[3]);

        for (uint64_t seed = from; seed < from + count; seed++) {
            (void)run_seed(seed, false);
        }
        return 0;
    }
    (void)number(NULL);
}
