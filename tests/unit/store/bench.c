/* store_bench: what a load and a put cost in the embedded store, 512-byte values.
 *
 * store_bench [records] [always|everysec|no]; the store lies in a folder under $TMPDIR or /tmp.
 */
#include "contract.h"

#include <sys/resource.h>
#include <time.h>

#include "base/rng.h"

enum { BATCH_MAX = 256, VALUE_BYTES = 512 };

static uint64_t wall_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SW_NS_PER_S + (uint64_t)ts.tv_nsec;
}

static double cpu_us(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u); /* all threads: the committer too */
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

int main(int argc, char **argv)
{
    static struct sw_store_commit ops[BATCH_MAX];
    static char value[VALUE_BYTES];
    static const size_t batches[] = {1, 16, 256};
    struct sw_store_options opt = {.sync = SW_SYNC_ALWAYS};
    uint64_t records = 100000, start;
    struct world w;
    struct sw_rng rng;
    double cpu;

    if (argc > 1 && !sw_slice_u64(sw_slice_cstr(argv[1]), &records)) {
        return 2;
    }
    if (argc > 2) {
        opt.sync = argv[2][0] == 'a'   ? SW_SYNC_ALWAYS
                   : argv[2][0] == 'e' ? SW_SYNC_EVERYSEC
                                       : SW_SYNC_NO;
    }
    memset(value, 'v', sizeof(value));
    sw_rng_seed(&rng, 1);
    world_init(&w, &maker_lmdb, &opt);
    for (uint64_t key = 0; key < records;) {
        size_t count = 0;

        for (; count < BATCH_MAX && key < records; count++, key++) {
            ops[count] = (struct sw_store_commit){.count = 1, .now_unix_s = NOW};
            ops[count].writes[0] = put_of(key, sw_slice_of(value, sizeof(value)));
            ops[count].writes[0].expires_unix_s = NOW + 1800;
            commit_begin(&w, &ops[count]);
        }
        world_wait(&w);
    }
    printf("%lu records of %d bytes\n", (unsigned long)records, VALUE_BYTES);

    start = wall_ns();
    cpu = cpu_us();
    for (size_t i = 0; i < 400000; i++) {
        (void)load(&w, sw_rng_below(&rng, records), NOW, NULL);
    }
    printf("load: %.0f/s, %.2f us CPU\n", 400000e9 / (double)(wall_ns() - start),
           (cpu_us() - cpu) / 400000);

    for (size_t b = 0; b < SW_COUNTOF(batches); b++) {
        size_t puts = batches[b] == 1 ? 2000 : batches[b] == 16 ? 16 * 500 : 256 * 60;
        struct sw_store_stats before, after;

        sw_store_stats(w.store, &before);
        start = wall_ns();
        cpu = cpu_us();
        for (size_t done = 0; done < puts; done += batches[b]) {
            for (size_t i = 0; i < batches[b]; i++) {
                ops[i] = (struct sw_store_commit){.count = 1, .now_unix_s = NOW + 1};
                ops[i].writes[0] =
                    put_of(sw_rng_below(&rng, records), sw_slice_of(value, sizeof(value)));
                ops[i].writes[0].expires_unix_s = NOW + 1801; /* sliding */
                commit_begin(&w, &ops[i]);
            }
            world_wait(&w);
        }
        sw_store_stats(w.store, &after);
        printf("put, %zu at once: %.0f/s, %.1f us CPU a put, %.2f puts a sync\n", batches[b],
               (double)puts * 1e9 / (double)(wall_ns() - start), (cpu_us() - cpu) / (double)puts,
               (double)puts / (double)SW_MAX(after.syncs - before.syncs, 1u));
    }
    world_fini(&w);
    return 0;
}
