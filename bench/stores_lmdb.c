/* bench/stores_lmdb.c - LMDB alone: keys and values, a batch in one transaction, no index, no
 * version, no check of what was there. What our own records cost on top is the difference. */
#include "stores.h"

#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct bare {
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *reader;
};

static void must(int rc)
{
    if (rc != 0) {
        die("bare LMDB", mdb_strerror(rc));
    }
}

static void *bare_open(const char *path, bool sync)
{
    struct bare *b = calloc(1, sizeof(*b));
    MDB_txn *txn;

    if (b == NULL) {
        die(path, "no memory");
    }
    (void)mkdir(path, 0700);
    must(mdb_env_create(&b->env));
    must(mdb_env_set_mapsize(b->env, 64ull << 30));
    must(mdb_env_open(b->env, path, MDB_NORDAHEAD | (sync ? 0 : MDB_NOSYNC), 0600));
    must(mdb_txn_begin(b->env, NULL, 0, &txn));
    must(mdb_dbi_open(txn, NULL, 0, &b->dbi));
    must(mdb_txn_commit(txn));
    must(mdb_txn_begin(b->env, NULL, MDB_RDONLY, &b->reader));
    mdb_txn_reset(b->reader);
    return b;
}

static void bare_close(void *store)
{
    struct bare *b = store;

    mdb_txn_abort(b->reader);
    must(mdb_env_sync(b->env, 1));
    mdb_env_close(b->env);
    free(b);
}

static void put(struct bare *b, MDB_txn *txn, uint64_t session)
{
    unsigned char key[KEY_BYTES];
    MDB_val k = {sizeof(key), key}, v = {VALUE_BYTES, (void *)(uintptr_t)value_next()};

    key_of(session, key);
    must(mdb_put(txn, b->dbi, &k, &v, 0));
}

static uint64_t bare_puts(void *store, size_t batch, uint64_t until_ns, uint64_t *ret_syncs)
{
    struct bare *b = store;
    uint64_t done = 0, syncs = 0;
    MDB_txn *txn;

    do {
        must(mdb_txn_begin(b->env, NULL, 0, &txn));
        for (size_t i = 0; i < batch; i++) {
            put(b, txn, session_next());
        }
        must(mdb_txn_commit(txn));
        done += batch;
        syncs++;
    } while (clock_now() < until_ns);
    *ret_syncs = syncs;
    return done;
}

static void bare_fill(void *store, uint64_t count)
{
    struct bare *b = store;
    MDB_txn *txn;

    for (uint64_t at = 0; at < count;) {
        must(mdb_txn_begin(b->env, NULL, 0, &txn));
        for (size_t i = 0; i < 4096 && at < count; i++) {
            put(b, txn, session_at(at++));
        }
        must(mdb_txn_commit(txn));
    }
}

static void bare_get(void *store, uint64_t session, char value[VALUE_BYTES])
{
    struct bare *b = store;
    unsigned char key[KEY_BYTES];
    MDB_val k = {sizeof(key), key}, v;

    key_of(session, key);
    must(mdb_txn_renew(b->reader));
    must(mdb_get(b->reader, b->dbi, &k, &v));
    memcpy(value, v.mv_data, VALUE_BYTES);
    mdb_txn_reset(b->reader);
}

const struct engine engine_bare_lmdb = {
    "bare lmdb", bare_open, bare_close, bare_puts, bare_fill, bare_get,
};
