/* bench/stores_rocksdb.c - RocksDB as it comes, by its C interface: a batch is one WriteBatch, with
 * its log synced. Built only where the library is there; nothing else links it. */
#include "stores.h"

#include <rocksdb/c.h>
#include <stdlib.h>
#include <string.h>

struct rocks {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_writeoptions_t *write;
    rocksdb_readoptions_t *read;
    rocksdb_writebatch_t *batch;
};

static void must(const char *error)
{
    if (error != NULL) {
        die("RocksDB", error);
    }
}

static void *rocks_open(const char *path, bool sync)
{
    struct rocks *r = calloc(1, sizeof(*r));
    char *error = NULL;

    if (r == NULL) {
        die(path, "no memory");
    }
    r->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(r->options, 1);
    r->db = rocksdb_open(r->options, path, &error);
    must(error);
    r->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(r->write, sync);
    rocksdb_writeoptions_disable_WAL(r->write, !sync);
    r->read = rocksdb_readoptions_create();
    r->batch = rocksdb_writebatch_create();
    return r;
}

static void rocks_close(void *store)
{
    struct rocks *r = store;
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    char *error = NULL;

    rocksdb_flush(r->db, flush, &error);
    must(error);
    rocksdb_flushoptions_destroy(flush);
    rocksdb_writebatch_destroy(r->batch);
    rocksdb_readoptions_destroy(r->read);
    rocksdb_writeoptions_destroy(r->write);
    rocksdb_close(r->db);
    rocksdb_options_destroy(r->options);
    free(r);
}

static void put(struct rocks *r, uint64_t session)
{
    unsigned char key[KEY_BYTES];

    key_of(session, key);
    rocksdb_writebatch_put(r->batch, (const char *)key, sizeof(key), value_next(), VALUE_BYTES);
}

static void write_out(struct rocks *r)
{
    char *error = NULL;

    rocksdb_write(r->db, r->write, r->batch, &error);
    must(error);
    rocksdb_writebatch_clear(r->batch);
}

static uint64_t rocks_puts(void *store, size_t batch, uint64_t until_ns, uint64_t *ret_syncs)
{
    struct rocks *r = store;
    uint64_t done = 0, syncs = 0;

    do {
        for (size_t i = 0; i < batch; i++) {
            put(r, session_next());
        }
        write_out(r);
        done += batch;
        syncs++;
    } while (clock_now() < until_ns);
    *ret_syncs = syncs;
    return done;
}

static void rocks_fill(void *store, uint64_t count)
{
    for (uint64_t at = 0; at < count;) {
        for (size_t i = 0; i < 1024 && at < count; i++) {
            put(store, session_at(at++));
        }
        write_out(store);
    }
}

static void rocks_get(void *store, uint64_t session, char value[VALUE_BYTES])
{
    struct rocks *r = store;
    unsigned char key[KEY_BYTES];
    char *error = NULL, *got;
    size_t len;

    key_of(session, key);
    got = rocksdb_get(r->db, r->read, (const char *)key, sizeof(key), &len, &error);
    must(error);
    if (got == NULL || len != VALUE_BYTES) {
        die("RocksDB", "a session is missing");
    }
    memcpy(value, got, VALUE_BYTES);
    rocksdb_free(got);
}

const struct engine engine_rocksdb = {
    "rocksdb", rocks_open, rocks_close, rocks_puts, rocks_fill, rocks_get,
};
