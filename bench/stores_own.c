/* bench/stores_own.c - the gateway's own stores, asked as it asks them: each put is a commit of its
 * own, from one loop, and the store groups what comes together. */
#include "io/io.h"
#include "store/store.h"

#include "stores.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

_Static_assert(KEY_BYTES == sizeof(struct sw_store_key), "one kind of key");

struct own {
    struct sw_loop *loop;
    struct sw_store *store;
    struct sw_store_commit ops[BATCH_MAX];
    uint64_t until_ns, done, next, end; /* next, end: sessions to fill */
    int64_t now_unix_s;                 /* as a gateway has it: read once a turn of its loop */
    size_t running;
    bool filling;
};

static void on_done(struct sw_store_commit *op);

static void submit(struct own *o, struct sw_store_commit *op)
{
    int64_t now = o->now_unix_s;

    *op = (struct sw_store_commit){
        .count = 1, .now_unix_s = now, .loop = o->loop, .done = on_done, .arg = o};
    op->writes[0] = (struct sw_write){
        .kind = SW_WRITE_PUT,
        .record = SW_RECORD_STATE,
        .expect = SW_EXPECT_ANY,
        .expires_unix_s = now + 86400,
        .absolute_unix_s = now + 86400,
        .value = sw_slice_of(value_next(), VALUE_BYTES),
    };
    key_of(o->filling ? session_at(o->next++) : session_next(), op->writes[0].key.bytes);
    o->running++;
    sw_store_commit(o->store, op);
}

static void on_done(struct sw_store_commit *op)
{
    struct own *o = op->arg;

    if (op->err != SW_OK) {
        die("commit", sw_err_text(op->err));
    }
    o->running--;
    o->done++;
    if (o->filling ? o->next < o->end : clock_now() < o->until_ns) {
        submit(o, op);
    } else if (o->running == 0) {
        sw_loop_stop(o->loop);
    }
}

static struct own *own_open(const char *path, bool sync,
                            enum sw_err (*open)(const struct sw_store_options *, struct sw_store **,
                                                const char **))
{
    const struct sw_loop_options loop = {
        .streams_max = 4, .buffers_max = 4, .large_max = 1, .large_bytes = 65536};
    const struct sw_store_options opt = {
        .path = sw_slice_cstr(path),
        .sync = sync ? SW_SYNC_ALWAYS : SW_SYNC_NO,
        .map_bytes_max = 64ull << 30,
        .memory_bytes_max = 64ull << 30,
        .expire = true,
    };
    struct own *o = calloc(1, sizeof(*o));
    const char *why = "no memory";

    if (o == NULL || sw_loop_new(&loop, &o->loop) != SW_OK ||
        open(&opt, &o->store, &why) != SW_OK) {
        die(path, why);
    }
    o->now_unix_s = (int64_t)time(NULL);
    return o;
}

static void *journal_open(const char *path, bool sync)
{
    return own_open(path, sync, sw_store_open_journal);
}

static void *lmdb_open(const char *path, bool sync)
{
    return own_open(path, sync, sw_store_open_lmdb);
}

static void own_close(void *store)
{
    struct own *o = store;

    sw_store_close(o->store);
    sw_loop_free(o->loop);
    free(o);
}

static uint64_t own_puts(void *store, size_t batch, uint64_t until_ns, uint64_t *ret_syncs)
{
    struct own *o = store;
    struct sw_store_stats before, after;

    sw_store_stats(o->store, &before);
    o->now_unix_s = (int64_t)time(NULL);
    o->filling = false;
    o->until_ns = until_ns;
    o->done = 0;
    for (size_t i = 0; i < batch; i++) {
        submit(o, &o->ops[i]);
    }
    sw_loop_run(o->loop);
    sw_store_stats(o->store, &after);
    *ret_syncs = after.syncs - before.syncs;
    return o->done;
}

static void own_fill(void *store, uint64_t count)
{
    struct own *o = store;

    o->filling = true;
    o->next = 0;
    o->end = count;
    for (size_t i = 0; i < BATCH_MAX && o->next < o->end; i++) {
        submit(o, &o->ops[i]);
    }
    sw_loop_run(o->loop);
}

static void own_get(void *store, uint64_t session, char value[VALUE_BYTES])
{
    struct own *o = store;
    struct sw_arena arena;
    struct sw_store_load op = {.now_unix_s = o->now_unix_s, .arena = &arena, .loop = o->loop};

    sw_arena_init(&arena, value, VALUE_BYTES); /* there is nothing but the value */
    key_of(session, op.key.bytes);
    if (sw_store_load(o->store, &op) != SW_STEP_DONE || op.err != SW_OK ||
        op.record.value.ptr != value || op.record.value.len != VALUE_BYTES) {
        die("load", sw_err_text(op.err));
    }
}

const struct engine engine_journal = {
    "journal", journal_open, own_close, own_puts, own_fill, own_get,
};
const struct engine engine_lmdb = {
    "lmdb", lmdb_open, own_close, own_puts, own_fill, own_get,
};
