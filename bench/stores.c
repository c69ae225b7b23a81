/* bench/stores.c - stores beside each other in one process, in turns: synced puts, gets; and how
 * fast a journal is read at start, beside reading the same files and summing them up.
 *
 *   stores compare FOLDER SESSIONS ROUNDS SLICE_MS [STORE]   journal, lmdb, bare lmdb, rocksdb
 *   stores fill FOLDER SESSIONS                              a journal to replay
 *   stores replay FOLDER ROUNDS                              ... in a process that did not fill it
 *
 * Each prints one JSON object. A round gives each store one slice of puts at 16 and at 256 under
 * way, and a slice of gets; every second round goes the other way round. Values are 512 bytes that
 * cannot be compressed, keys 32 random ones. CPU is that of the whole process, with the threads
 * that a store keeps in the background.
 */
#include "stores.h"

#include "crypto/crypto.h"
#include "store/journal_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define POOL_BYTES  (1u << 20)
#define ROUNDS_MAX  51u
#define GETS        20000u /* between two looks at the clock, 1000 */
#define ENGINES_MAX 4u
#define READ_BYTES  (1u << 20)

static char pool[POOL_BYTES + VALUE_BYTES];
static uint64_t sessions, seed = 1;

void die(const char *what, const char *why)
{
    fprintf(stderr, "stores: %s: %s\n", what, why);
    exit(1);
}

uint64_t clock_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* splitmix64 */
static uint64_t mix(uint64_t n)
{
    n += 0x9e3779b97f4a7c15u;
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9u;
    n = (n ^ n >> 27) * 0x94d049bb133111ebu;
    return n ^ n >> 31;
}

static uint64_t next(void)
{
    return mix(seed++);
}

void key_of(uint64_t session, unsigned char key[KEY_BYTES])
{
    for (size_t i = 0; i < KEY_BYTES; i += 8) {
        uint64_t word = mix(session * 4 + i / 8 + (1ull << 40));

        memcpy(key + i, &word, sizeof(word));
    }
}

const char *value_next(void)
{
    return pool + next() % POOL_BYTES;
}

uint64_t session_next(void)
{
    return next() % sessions;
}

/* Sessions by their key, so that trees are filled from one end to the other: many times as fast,
 * and the pages are full. NULL: in the order of their numbers. */
static uint64_t *order;

static int by_key(const void *a, const void *b)
{
    unsigned char x[KEY_BYTES], y[KEY_BYTES];

    key_of(*(const uint64_t *)a, x);
    key_of(*(const uint64_t *)b, y);
    return memcmp(x, y, sizeof(x));
}

static void order_make(void)
{
    order = calloc(sessions, sizeof(*order));
    if (order == NULL) {
        die("sessions", "no memory");
    }
    for (uint64_t i = 0; i < sessions; i++) {
        order[i] = i;
    }
    qsort(order, sessions, sizeof(*order), by_key);
}

uint64_t session_at(uint64_t i)
{
    return order == NULL ? i : order[i];
}

/* ---- puts and gets --------------------------------------------------------------------------- */

struct slice {
    double per_s, cpu_us, batch; /* batch: puts a sync */
};

static const size_t batches[] = {16, 256};
static const struct engine *const all[] = {
    &engine_journal,
    &engine_lmdb,
    &engine_bare_lmdb,
#ifdef BENCH_ROCKSDB
    &engine_rocksdb,
#endif
};
_Static_assert(SW_COUNTOF(all) <= ENGINES_MAX, "room for all");
static const struct engine *engines[ENGINES_MAX]; /* that take part */
static size_t engine_count;

static struct {
    struct slice puts[2][ENGINES_MAX][ROUNDS_MAX], reads[ENGINES_MAX][ROUNDS_MAX];
} results;

static double cpu_us(void)
{
    struct rusage r;

    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e6 +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

static struct slice puts_slice(const struct engine *e, void *store, size_t batch, uint64_t ns)
{
    uint64_t began = clock_now(), syncs, done;
    double cpu = cpu_us();

    done = e->puts(store, batch, began + ns, &syncs);
    return (struct slice){
        .per_s = (double)done * 1e9 / (double)(clock_now() - began),
        .cpu_us = (cpu_us() - cpu) / (double)done,
        .batch = (double)done / (double)SW_MAX(syncs, 1u),
    };
}

static struct slice reads_slice(const struct engine *e, void *store)
{
    uint64_t began = clock_now();
    char value[VALUE_BYTES];
    double cpu = cpu_us();

    for (size_t i = 0; i < GETS; i++) {
        e->get(store, session_next(), value);
    }
    return (struct slice){
        .per_s = GETS * 1e9 / (double)(clock_now() - began),
        .cpu_us = (cpu_us() - cpu) / GETS,
    };
}

/* Those of that name; all of them without a name. */
static void take_part(const char *name)
{
    for (size_t i = 0; i < SW_COUNTOF(all); i++) {
        if (name == NULL || strcmp(name, all[i]->name) == 0) {
            engines[engine_count++] = all[i];
        }
    }
    if (engine_count == 0) {
        die(name, "is no store");
    }
}

static void *prepare(const struct engine *e, const char *folder)
{
    char path[4096];
    void *store;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, e->name);
    store = e->open(path, false);
    e->fill(store, sessions);
    e->close(store);
    return e->open(path, true);
}

static void print_list(const char *name, const struct slice *list, size_t rounds, size_t offset)
{
    printf("\"%s\": [", name);
    for (size_t r = 0; r < rounds; r++) {
        double value;

        memcpy(&value, (const char *)&list[r] + offset, sizeof(value));
        printf("%s%.3f", r == 0 ? "" : ", ", value);
    }
    printf("]");
}

static void print_slices(const struct slice *list, size_t rounds)
{
    printf("{");
    print_list("per_s", list, rounds, offsetof(struct slice, per_s));
    printf(", ");
    print_list("cpu_us", list, rounds, offsetof(struct slice, cpu_us));
    printf(", ");
    print_list("batch", list, rounds, offsetof(struct slice, batch));
    printf("}");
}

static void compare(const char *folder, size_t rounds, uint64_t slice_ns)
{
    void *stores[ENGINES_MAX];

    order_make();
    for (size_t i = 0; i < engine_count; i++) {
        stores[i] = prepare(engines[i], folder);
    }
    for (size_t r = 0; r < rounds; r++) {
        for (size_t turn = 0; turn < engine_count; turn++) {
            size_t i = r % 2 == 0 ? turn : engine_count - 1 - turn;

            results.reads[i][r] = reads_slice(engines[i], stores[i]);
            for (size_t b = 0; b < SW_COUNTOF(batches); b++) {
                results.puts[b][i][r] = puts_slice(engines[i], stores[i], batches[b], slice_ns);
            }
        }
    }
    printf("{\"sessions\": %llu, \"value_bytes\": %u, \"stores\": [", (unsigned long long)sessions,
           VALUE_BYTES);
    for (size_t i = 0; i < engine_count; i++) {
        engines[i]->close(stores[i]);
        printf("%s\n {\"store\": \"%s\", \"reads\": ", i == 0 ? "" : ",", engines[i]->name);
        print_slices(results.reads[i], rounds);
        for (size_t b = 0; b < SW_COUNTOF(batches); b++) {
            printf(",\n  \"puts_%zu\": ", batches[b]);
            print_slices(results.puts[b][i], rounds);
        }
        printf("}");
    }
    printf("]}\n");
    free(order);
}

/* ---- replay ---------------------------------------------------------------------------------- */

enum pass { PASS_READ, PASS_SUM, PASS_FORGET };

/* Each file of the folder, from its beginning to its end. Returns the bytes. */
static uint64_t files_pass(const char *folder, enum pass pass, uint32_t *ret_sum)
{
    static char buffer[READ_BYTES];
    DIR *dir = opendir(folder);
    const struct dirent *e;
    uint64_t bytes = 0;

    if (dir == NULL) {
        die(folder, "cannot be read");
    }
    while ((e = readdir(dir)) != NULL) {
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        ssize_t n = 0;

        if (fd < 0 || e->d_name[0] == '.') {
            if (fd >= 0) {
                close(fd);
            }
            continue;
        }
        if (pass == PASS_FORGET) {
            (void)fdatasync(fd); /* what is not on the disk stays in the cache */
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        } else {
            while ((n = read(fd, buffer, sizeof(buffer))) > 0) {
                bytes += (uint64_t)n;
                if (pass == PASS_SUM) {
                    *ret_sum = sw_journal__crc(*ret_sum, buffer, (size_t)n);
                }
            }
        }
        close(fd);
    }
    closedir(dir);
    return bytes;
}

static uint64_t anonymous_bytes(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    unsigned long long kb = 0;
    char line[256];

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "RssAnon:", 8) == 0) {
            kb = strtoull(line + 8, NULL, 10);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return kb * 1024;
}

struct read_times {
    double read_s, sum_s, open_s, open_cpu_s;
};

static struct read_times replay_once(const char *folder, bool cold, uint64_t *ret_bytes,
                                     uint64_t *ret_memory, uint64_t *ret_records)
{
    const struct sw_store_options opt = {
        .path = sw_slice_cstr(folder), .sync = SW_SYNC_NO, .memory_bytes_max = 64ull << 30};
    uint64_t began, memory = anonymous_bytes();
    struct read_times t;
    struct sw_store_stats stats;
    struct sw_store *store;
    const char *why;
    uint32_t sum = 0;
    double cpu;

    if (cold) {
        (void)files_pass(folder, PASS_FORGET, &sum);
    }
    began = clock_now();
    *ret_bytes = files_pass(folder, PASS_READ, &sum);
    t.read_s = (double)(clock_now() - began) / 1e9;
    if (cold) {
        (void)files_pass(folder, PASS_FORGET, &sum);
    }
    began = clock_now();
    (void)files_pass(folder, PASS_SUM, &sum);
    t.sum_s = (double)(clock_now() - began) / 1e9;
    if (cold) {
        (void)files_pass(folder, PASS_FORGET, &sum);
    }
    began = clock_now();
    cpu = cpu_us();
    if (sw_store_open_journal(&opt, &store, &why) != SW_OK) {
        die(folder, why);
    }
    t.open_s = (double)(clock_now() - began) / 1e9;
    t.open_cpu_s = (cpu_us() - cpu) / 1e6;
    *ret_memory = anonymous_bytes() - memory;
    sw_store_stats(store, &stats);
    *ret_records = stats.records;
    sw_store_close(store);
    return t;
}

static void replay(const char *folder, size_t rounds)
{
    uint64_t bytes = 0, memory = 0, again, records = 0;

    printf("{\"passes\": [");
    for (size_t r = 0; r < 2 * rounds; r++) {
        bool cold = r % 2 == 0;
        struct read_times t =
            replay_once(folder, cold, &bytes, r == 0 ? &memory : &again, &records);

        printf("%s\n {\"cold\": %s, \"read_s\": %.4f, \"sum_s\": %.4f, \"open_s\": %.4f, "
               "\"open_cpu_s\": %.4f}",
               r == 0 ? "" : ",", cold ? "true" : "false", t.read_s, t.sum_s, t.open_s,
               t.open_cpu_s);
    }
    printf("],\n \"sessions\": %llu, \"bytes\": %llu, \"memory_bytes\": %llu, \"cores\": %ld}\n",
           (unsigned long long)records, (unsigned long long)bytes, (unsigned long long)memory,
           sysconf(_SC_NPROCESSORS_ONLN));
}

static void fill(const char *folder)
{
    void *store = engine_journal.open(folder, false);

    engine_journal.fill(store, sessions);
    engine_journal.close(store);
    printf("{\"sessions\": %llu}\n", (unsigned long long)sessions);
}

static size_t rounds_of(const char *text)
{
    return (size_t)SW_MIN(SW_MAX(strtoull(text, NULL, 10), 1ull), (unsigned long long)ROUNDS_MAX);
}

int main(int argc, char **argv)
{
    sw_random(pool, sizeof(pool));
    if (argc > 3 && strcmp(argv[1], "replay") != 0) {
        sessions = SW_MAX(strtoull(argv[3], NULL, 10), 1ull);
    }
    if ((argc == 6 || argc == 7) && strcmp(argv[1], "compare") == 0) {
        take_part(argv[6]);
        compare(argv[2], rounds_of(argv[4]), strtoull(argv[5], NULL, 10) * SW_NS_PER_MS);
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "fill") == 0) {
        fill(argv[2]);
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "replay") == 0) {
        replay(argv[2], rounds_of(argv[3]));
        return 0;
    }
    fprintf(stderr, "usage: stores compare FOLDER SESSIONS ROUNDS SLICE_MS [STORE]\n"
                    "       stores fill FOLDER SESSIONS\n"
                    "       stores replay FOLDER ROUNDS\n");
    return 2;
}
