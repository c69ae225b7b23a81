/* bench/stores.h - a store under test: ours, and those that others use for such data. */
#ifndef BENCH_STORES_H
#define BENCH_STORES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VALUE_BYTES 512u
#define KEY_BYTES   32u
#define BATCH_MAX   256u

/* Functions end the process when something fails: a number of half a run is worth nothing. */
struct engine {
    const char *name;
    /* sync: each put is on the disk before it counts. Without: to fill it. */
    void *(*open)(const char *path, bool sync);
    void (*close)(void *store);
    /* Puts sessions until the clock has that time, `batch` of them under way; returns how many.
     * *ret_syncs: how often the disk was waited for. */
    uint64_t (*puts)(void *store, size_t batch, uint64_t until_ns, uint64_t *ret_syncs);
    /* Puts as many sessions, in the order of session_at. */
    void (*fill)(void *store, uint64_t count);
    /* Copies the value out. */
    void (*get)(void *store, uint64_t session, char value[VALUE_BYTES]);
};

extern const struct engine engine_journal, engine_lmdb, engine_bare_lmdb;
#ifdef BENCH_ROCKSDB
extern const struct engine engine_rocksdb;
#endif

/* ---- stores.c -------------------------------------------------------------------------------- */

void die(const char *what, const char *why) __attribute__((noreturn));
uint64_t clock_now(void);
/* Spread over the whole tree, as keys are that are hashes. */
void key_of(uint64_t session, unsigned char key[KEY_BYTES]);
/* Bytes that cannot be compressed, other ones each time. */
const char *value_next(void);
/* The one to fill in as number i. */
uint64_t session_at(uint64_t i);
/* Some session of those there are. */
uint64_t session_next(void);

#endif
