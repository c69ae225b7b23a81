/* bench/store_scale.c - what a store costs when it is large: ten thousand sessions beside ten
 * million, commits and loads taken in turns within one run; and what collecting expired sessions
 * does to the commits beside it.
 *
 *   store_scale KIND FOLDER SMALL LARGE ROUNDS      prints one JSON object; KIND: lmdb, journal
 *
 * The stores are filled without syncs and then opened as users have them (sync: always). A round
 * loads LOADS random sessions and commits for SLICE_S, WINDOW at a time, from each store. Then, in
 * turns, the large one is opened with and without its collector, EXPIRING of its sessions reach
 * their end together, and commits are timed. How long the large one takes to open is told too: a
 * journal is read.
 */
#include "crypto/crypto.h"
#include "io/io.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define VALUE_BYTES 300u
#define WINDOW      64u
#define LOADS       50000u
#define SLICE_S     2.0
#define EXPIRING    100000u
#define TURNS       5u  /* with and without the collector */
#define TURN_S      5.0 /* commits of a turn */
#define EXPIRING_S  3   /* until what a turn put is over */
#define SAMPLES_MAX (1u << 20)
#define ROUNDS_MAX  64u

struct samples {
    uint32_t us[SAMPLES_MAX];
    size_t count;
};

struct bench {
    struct sw_loop *loop;
    struct sw_store *store;
    struct sw_store_commit ops[WINDOW];
    uint64_t began_ns[WINDOW];
    char value[VALUE_BYTES];
    char path[4096];
    uint64_t keys, from; /* random keys in [from, keys) */
    uint64_t seed, until_ns, committed, failed;
    size_t running;
    struct samples *samples;
};

struct cost {
    double cpu_us, written_bytes; /* of one commit */
};

static struct cost used(void)
{
    struct rusage r;

    getrusage(RUSAGE_SELF, &r);
    return (struct cost){
        .cpu_us = (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e6 +
                  (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec),
        .written_bytes = (double)r.ru_oublock * 512,
    };
}

static uint64_t clock_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t next(struct bench *b)
{
    b->seed = b->seed * 6364136223846793005u + 1442695040888963407u;
    return b->seed >> 20;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "store_scale: %s: %s\n", what, why);
    exit(1);
}

/* Keys are hashes of visitors' ids: spread over the whole tree. */
static struct sw_store_key key_of(uint64_t n)
{
    struct sw_store_key key;

    sw_sha256(sw_slice_of((const char *)&n, sizeof(n)), key.bytes);
    return key;
}

static void on_done(struct sw_store_commit *op);

static void submit(struct bench *b, size_t slot, uint64_t n, int64_t expires)
{
    struct sw_store_commit *op = &b->ops[slot];

    *op = (struct sw_store_commit){
        .count = 1,
        .now_unix_s = (int64_t)time(NULL),
        .loop = b->loop,
        .done = on_done,
        .arg = b,
    };
    op->writes[0] = (struct sw_write){
        .kind = SW_WRITE_PUT,
        .record = SW_RECORD_STATE,
        .key = key_of(n),
        .expect = SW_EXPECT_ANY,
        .expires_unix_s = expires,
        .absolute_unix_s = expires,
        .value = sw_slice_of(b->value, VALUE_BYTES),
    };
    b->began_ns[slot] = clock_now();
    b->running++;
    sw_store_commit(b->store, op);
}

static void on_done(struct sw_store_commit *op)
{
    struct bench *b = op->arg;
    size_t slot = (size_t)(op - b->ops);
    uint64_t now = clock_now();

    b->running--;
    b->failed += op->err != SW_OK;
    b->committed++;
    if (b->samples != NULL && b->samples->count < SAMPLES_MAX) {
        b->samples->us[b->samples->count++] = (uint32_t)((now - b->began_ns[slot]) / 1000);
    }
    if (now < b->until_ns) {
        submit(b, slot, b->from + next(b) % (b->keys - b->from), (int64_t)time(NULL) + 86400);
    } else if (b->running == 0) {
        sw_loop_stop(b->loop);
    }
}

/* Commits for that long; returns commits a second. */
static double commits(struct bench *b, double seconds, struct samples *samples,
                      struct cost *ret_cost)
{
    uint64_t begin = clock_now();
    struct cost before = used(), after;

    b->samples = samples;
    b->committed = 0;
    b->until_ns = begin + (uint64_t)(seconds * 1e9);
    for (size_t slot = 0; slot < WINDOW; slot++) {
        submit(b, slot, b->from + next(b) % (b->keys - b->from), (int64_t)time(NULL) + 86400);
    }
    sw_loop_run(b->loop);
    after = used();
    *ret_cost = (struct cost){(after.cpu_us - before.cpu_us) / (double)b->committed,
                              (after.written_bytes - before.written_bytes) / (double)b->committed};
    return (double)b->committed / ((double)(clock_now() - begin) / 1e9);
}

static double load_ns(struct bench *b)
{
    static char block[4096];
    struct sw_arena arena;
    uint64_t begin = clock_now();

    for (size_t i = 0; i < LOADS; i++) {
        struct sw_store_load op = {
            .key = key_of(b->from + next(b) % (b->keys - b->from)),
            .now_unix_s = (int64_t)time(NULL),
            .arena = &arena,
            .loop = b->loop,
        };

        sw_arena_init(&arena, block, sizeof(block));
        if (sw_store_load(b->store, &op) != SW_STEP_DONE || op.err != SW_OK) {
            die("load", sw_err_text(op.err));
        }
    }
    return (double)(clock_now() - begin) / LOADS;
}

typedef enum sw_err open_fn(const struct sw_store_options *opt, struct sw_store **ret_store,
                            const char **ret_why);

static struct sw_store *open_store(open_fn *open, const char *path, enum sw_sync sync, bool expire)
{
    struct sw_store_options opt = {
        .path = sw_slice_cstr(path),
        .sync = sync,
        .map_bytes_max = 64ull << 30,
        .memory_bytes_max = 64ull << 30,
        .expire = expire,
    };
    struct sw_store *store;
    const char *why;

    if (open(&opt, &store, &why) != SW_OK) {
        die(path, why);
    }
    return store;
}

/* Keys number `from` to `end`, in this order, which is none in the tree. */
static void fill(struct bench *b, uint64_t from, uint64_t end, int64_t expires)
{
    b->samples = NULL;
    b->until_ns = 0;
    while (from < end) {
        size_t batch = SW_MIN((uint64_t)WINDOW, end - from);

        for (size_t slot = 0; slot < batch; slot++, from++) {
            submit(b, slot, from, expires);
        }
        sw_loop_run(b->loop);
        if (from % (1u << 20) < WINDOW) {
            fprintf(stderr, "store_scale: %llu sessions\n", (unsigned long long)from);
        }
    }
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *list, size_t count)
{
    qsort(list, count, sizeof(*list), by_value);
    return list[count / 2];
}

static uint32_t percentile(struct samples *s, double p)
{
    qsort(s->us, s->count, sizeof(s->us[0]), by_size);
    return s->count == 0 ? 0 : s->us[(size_t)((double)(s->count - 1) * p)];
}

static uint64_t resident_bytes(const char *field)
{
    FILE *f = fopen("/proc/self/status", "r");
    unsigned long long kb = 0;
    char line[256];

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, field, strlen(field)) == 0) {
            kb = strtoull(line + strlen(field) + 1, NULL, 10);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return kb * 1024;
}

/* Returns how long the full store took to open. */
static double prepare(struct bench *b, open_fn *open, const char *folder, const char *name,
                      uint64_t count)
{
    struct sw_loop_options opt = {.streams_max = 4, .buffers_max = 4, .large_max = 1};
    uint64_t began;

    (void)snprintf(b->path, sizeof(b->path), "%s/%s", folder, name);
    opt.large_bytes = 65536;
    if (sw_loop_new(&opt, &b->loop) != SW_OK) {
        die("loop", "could not be made");
    }
    memset(b->value, 'x', sizeof(b->value));
    b->seed = count;
    b->store = open_store(open, b->path, SW_SYNC_NO, false);
    fill(b, 0, count, (int64_t)time(NULL) + 30 * 86400);
    b->keys = count;
    sw_store_close(b->store);
    began = clock_now();
    b->store = open_store(open, b->path, SW_SYNC_ALWAYS, true);
    return (double)(clock_now() - began) / 1e9;
}

/* Commits while EXPIRING sessions are over, with or without the one who collects them. */
static void turn(struct bench *b, open_fn *open, bool collect, struct samples *samples,
                 uint64_t *ret_collected)
{
    struct sw_store_stats before, after;
    int64_t expires;
    struct cost cost;

    sw_store_close(b->store);
    b->store = open_store(open, b->path, SW_SYNC_ALWAYS, collect);
    expires = (int64_t)time(NULL) + EXPIRING_S;
    fill(b, 0, b->from, expires);
    while (time(NULL) <= expires) {
        usleep(10000);
    }
    sw_store_stats(b->store, &before);
    samples->count = 0;
    (void)commits(b, TURN_S, samples, &cost);
    sw_store_stats(b->store, &after);
    *ret_collected += after.expired - before.expired;
}

int main(int argc, char **argv)
{
    static struct bench small, large;
    static struct samples samples;
    double put[2][ROUNDS_MAX], get[2][ROUNDS_MAX], put_ratio[ROUNDS_MAX], get_ratio[ROUNDS_MAX];
    double cpu[2][ROUNDS_MAX], written[2][ROUNDS_MAX], cpu_ratio[ROUNDS_MAX];
    double p50[2][TURNS], p99[2][TURNS], p99_ratio[TURNS];
    struct cost cost;
    struct sw_store_stats stats;
    size_t rounds;
    double fill_s, open_s;
    uint64_t began = clock_now(), memory[4], collected = 0, bytes_used;
    const char *folder;
    open_fn *open;

    if (argc != 6 || (strcmp(argv[1], "lmdb") != 0 && strcmp(argv[1], "journal") != 0)) {
        fprintf(stderr, "usage: store_scale lmdb|journal FOLDER SMALL LARGE ROUNDS\n");
        return 2;
    }
    open = strcmp(argv[1], "lmdb") == 0 ? sw_store_open_lmdb : sw_store_open_journal;
    folder = argv[2];
    rounds = SW_MIN(strtoull(argv[5], NULL, 10), (unsigned long long)ROUNDS_MAX);
    memory[0] = resident_bytes("RssAnon:");
    (void)prepare(&small, open, folder, "small", strtoull(argv[3], NULL, 10));
    memory[1] = resident_bytes("RssAnon:");
    open_s = prepare(&large, open, folder, "large", strtoull(argv[4], NULL, 10));
    memory[2] = resident_bytes("RssAnon:");
    fill_s = (double)(clock_now() - began) / 1e9;
    for (size_t r = 0; r < rounds; r++) {
        struct bench *order[2] = {r % 2 == 0 ? &small : &large, r % 2 == 0 ? &large : &small};

        for (size_t i = 0; i < 2; i++) {
            size_t which = order[i] == &large;

            put[which][r] = 1e6 / commits(order[i], SLICE_S, NULL, &cost);
            cpu[which][r] = cost.cpu_us;
            written[which][r] = cost.written_bytes;
            get[which][r] = load_ns(order[i]);
        }
        put_ratio[r] = put[1][r] / put[0][r];
        cpu_ratio[r] = cpu[1][r] / cpu[0][r];
        get_ratio[r] = get[1][r] / get[0][r];
    }
    sw_store_stats(large.store, &stats);
    bytes_used = stats.bytes_used;
    memory[3] = resident_bytes("VmRSS:");
    large.from = SW_MIN(large.keys / 4, (uint64_t)EXPIRING);
    for (size_t t = 0; t < TURNS; t++) {
        for (size_t i = 0; i < 2; i++) {
            bool collect = (t + i) % 2 == 1;

            turn(&large, open, collect, &samples, &collected);
            p50[collect][t] = percentile(&samples, 0.5);
            p99[collect][t] = percentile(&samples, 0.99);
        }
        p99_ratio[t] = p99[1][t] / p99[0][t];
    }
    sw_store_stats(large.store, &stats);
    printf("{\"store\": \"%s\", \"open_s\": %.2f, \"memory_a_session\": [%.0f, %.0f],\n", argv[1],
           open_s, (double)(memory[1] - memory[0]) / (double)small.keys,
           (double)(memory[2] - memory[1]) / (double)large.keys);
    printf(" \"small\": %llu, \"large\": %llu, \"value_bytes\": %u, \"window\": %u, \"fill_s\": "
           "%.0f,\n"
           " \"commit_us\": [%.2f, %.2f], \"commit_ratio\": %.2f,\n"
           " \"cpu_us\": [%.2f, %.2f], \"cpu_ratio\": %.2f, \"written_bytes\": [%.0f, %.0f],\n"
           " \"load_ns\": [%.0f, %.0f], \"load_ratio\": %.2f,\n"
           " \"file_bytes\": %llu, \"used_bytes\": %llu, \"bytes_a_session\": %.0f,\n"
           " \"resident_bytes\": %llu,\n",
           (unsigned long long)small.keys, (unsigned long long)large.keys, VALUE_BYTES, WINDOW,
           fill_s, median(put[0], rounds), median(put[1], rounds), median(put_ratio, rounds),
           median(cpu[0], rounds), median(cpu[1], rounds), median(cpu_ratio, rounds),
           median(written[0], rounds), median(written[1], rounds), median(get[0], rounds),
           median(get[1], rounds), median(get_ratio, rounds), (unsigned long long)stats.bytes_file,
           (unsigned long long)bytes_used, (double)bytes_used / (double)large.keys,
           (unsigned long long)memory[3]);
    printf(" \"quiet\": {\"p50_us\": %.0f, \"p99_us\": %.0f},\n"
           " \"collecting\": {\"p50_us\": %.0f, \"p99_us\": %.0f, \"collected\": %llu},\n"
           " \"collecting_p99_ratio\": %.2f, \"failed\": %llu}\n",
           median(p50[0], TURNS), median(p99[0], TURNS), median(p50[1], TURNS),
           median(p99[1], TURNS), (unsigned long long)collected, median(p99_ratio, TURNS),
           (unsigned long long)(small.failed + large.failed));
    sw_store_close(small.store);
    sw_store_close(large.store);
    sw_loop_free(small.loop);
    sw_loop_free(large.loop);
    return 0;
}
