/* The embedded store: what a disk can do to it, and what it does to the disk. */
#include "contract.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"

static const struct sw_store_options quick = {.sync = SW_SYNC_NO, .map_bytes_max = 64u << 20};

static void sleep_ms(long ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&ts, NULL);
}

/* Opens the world's folder and expects a refusal that says `want`. */
static void refused(struct world *w, enum sw_err err, const char *want)
{
    struct sw_store *store = NULL;
    struct sw_store_options opt = w->opt;
    const char *why = NULL;
    enum sw_err got;

    opt.path = sw_slice_cstr(w->folder);
    got = sw_store_open_lmdb(&opt, &store, &why);
    if (got != err || strstr(why, want) == NULL) {
        fail_msg("%s: %s", sw_err_name(got), got == SW_OK ? "" : why);
    }
    assert_null(store);
}

static void closed(struct world *w)
{
    sw_store_close(w->store);
    w->store = NULL;
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void reopen_keeps(void **state)
{
    struct world w;
    struct sw_version v;
    struct sw_record r;
    struct stat st;

    (void)state;
    for (enum sw_sync sync = SW_SYNC_ALWAYS; sync <= SW_SYNC_NO; sync++) {
        struct sw_store_options opt = {.sync = sync};

        world_init(&w, &maker_lmdb, &opt);
        assert_int_equal(stat(w.folder, &st), 0);
        assert_int_equal(stat(world_file(&w, "data.mdb"), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_int_equal(stat(world_file(&w, "new.mdb"), &st), -1);
        assert_int_equal(write_one(&w, put_of(1, SW_S("a")), NOW, NULL), SW_OK);
        for (int i = 0; i < 5; i++) {
            struct sw_version next;

            world_reopen(&w);
            assert_int_equal(load(&w, 1, NOW, &r), SW_OK);
            v = r.version;
            assert_int_equal(write_one(&w, put_at(1, SW_S("b"), v), NOW, &next), SW_OK);
            assert_true(next.epoch == v.epoch && next.counter == v.counter + 1);
        }
        world_fini(&w);
    }
}

static void folder_rules(void **state)
{
    struct world w;
    struct sw_store_options opt = quick;
    struct sw_store *store;
    const char *why;
    char path[5000];
    struct stat st;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    (void)snprintf(path, sizeof(path), "%s/inner", w.folder);
    opt.path = sw_slice_cstr(path);
    assert_int_equal(sw_store_open_lmdb(&opt, &store, &why), SW_OK);
    sw_store_close(store);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    (void)snprintf(path, sizeof(path), "%s/inner/data.mdb", w.folder);
    unlink(path);
    opt.path = sw_slice_cstr(path); /* where a file was: a folder is made */
    assert_int_equal(sw_store_open_lmdb(&opt, &store, &why), SW_OK);
    sw_store_close(store);
    (void)snprintf(path, sizeof(path), "rm -r %s/inner", w.folder);
    assert_int_equal(system(path), 0);
    (void)snprintf(path, sizeof(path), "%s/no/such", w.folder);
    opt.path = sw_slice_cstr(path);
    assert_int_equal(sw_store_open_lmdb(&opt, &store, &why), SW_E_STORE_IO);
    assert_non_null(strstr(why, "make the folder above it first"));
    (void)snprintf(path, sizeof(path), "%s/lock", w.folder); /* a file */
    opt.path = sw_slice_cstr(path);
    assert_int_equal(sw_store_open_lmdb(&opt, &store, &why), SW_E_STORE_IO);
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    opt.path = sw_slice_cstr(path);
    assert_int_equal(sw_store_open_lmdb(&opt, &store, &why), SW_E_LIMIT);
    opt.path = SW_S("");
    assert_int_equal(sw_store_open_lmdb(&opt, &store, &why), SW_E_LIMIT);
    world_fini(&w);
}

static void locked(void **state)
{
    struct world w;
    char pid[32];
    pid_t child;
    int status;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    (void)snprintf(pid, sizeof(pid), "process %d has it open", (int)getpid());
    refused(&w, SW_E_STORE_LOCKED, pid); /* in this process */
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sw_store_options opt = quick;
        struct sw_store *store;
        const char *why = "";

        opt.path = sw_slice_cstr(w.folder);
        _exit(sw_store_open_lmdb(&opt, &store, &why) == SW_E_STORE_LOCKED &&
                      strstr(why, pid) != NULL
                  ? 0
                  : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(write_one(&w, put_of(1, SW_S("a")), NOW, NULL), SW_OK);
    world_reopen(&w);
    assert_value(&w, 1, NOW, SW_S("a"));
    world_fini(&w);
}

/* A forked child that touches the store is stopped, before it can damage anything. */
static void forked(void **state)
{
    struct world w;
    int status;
    pid_t child;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    assert_int_equal(load(&w, 1, NOW, NULL), SW_E_NOT_FOUND);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);

        dup2(null, STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        (void)load(&w, 1, NOW, NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_int_equal(write_one(&w, put_of(1, SW_S("a")), NOW, NULL), SW_OK);
    world_fini(&w);
}

struct thread_arg {
    struct world *w;
    enum sw_err err;
};

static void *load_thread(void *arg)
{
    struct thread_arg *t = arg;
    char block[256];
    struct sw_arena arena;
    struct sw_store_load op = {.key = key_of(1), .now_unix_s = NOW, .arena = &arena};

    sw_arena_init(&arena, block, sizeof(block));
    t->err = sw_store_load(t->w->store, &op) == SW_STEP_DONE ? op.err : SW_E_SYSTEM;
    return NULL;
}

static void readers_full(void **state)
{
    struct sw_store_options opt = quick;
    struct thread_arg arg;
    struct world w;
    pthread_t thread;
    struct sw_store_stats st;

    (void)state;
    opt.readers_max = 2;
    world_init(&w, &maker_lmdb, &opt);
    arg.w = &w;
    assert_int_equal(load(&w, 1, NOW, NULL), SW_E_NOT_FOUND);
    for (int i = 0; i < 50; i++) { /* a thread that ends gives its slot back */
        assert_int_equal(pthread_create(&thread, NULL, load_thread, &arg), 0);
        pthread_join(thread, NULL);
        assert_int_equal(arg.err, SW_E_NOT_FOUND);
    }
    sw_store_stats(w.store, &st);
    assert_int_equal(st.loads, 51);
    world_fini(&w);
    opt.readers_max = 1;
    world_init(&w, &maker_lmdb, &opt);
    assert_int_equal(load(&w, 1, NOW, NULL), SW_E_NOT_FOUND);
    assert_int_equal(pthread_create(&thread, NULL, load_thread, &arg), 0);
    pthread_join(thread, NULL);
    assert_int_equal(arg.err, SW_E_STORE_BUSY);
    world_fini(&w);
}

/* ---- files that are not ours, or no more --------------------------------------------------------
 */

static char *slurp(const char *path, size_t *ret_len)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    char *text;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    text = malloc((size_t)st.st_size + 1);
    assert_non_null(text);
    assert_int_equal(read(fd, text, (size_t)st.st_size), st.st_size);
    close(fd);
    *ret_len = (size_t)st.st_size;
    return text;
}

static void spit(const char *path, const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    close(fd);
}

static void foreign_files(void **state)
{
    struct world w;
    char *before, *after, garbage[100000];
    size_t len, again;
    struct sw_rng rng;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    assert_int_equal(write_one(&w, put_of(1, SW_S("a")), NOW, NULL), SW_OK);
    closed(&w);
    before = slurp(world_file(&w, "data.mdb"), &len);
    sw_rng_seed(&rng, 1);
    for (size_t i = 0; i < sizeof(garbage); i++) {
        garbage[i] = (char)sw_rng_u64(&rng);
    }
    for (size_t size = 1; size < sizeof(garbage); size = size * 5 + 3) {
        spit(world_file(&w, "data.mdb"), garbage, size);
        refused(&w, SW_E_STORE_FORMAT, "no LMDB file");
        after = slurp(world_file(&w, "data.mdb"), &again); /* never overwritten */
        assert_int_equal(again, size);
        assert_memory_equal(after, garbage, size);
        free(after);
    }
    spit(world_file(&w, "data.mdb"), "", 0);
    refused(&w, SW_E_STORE_CORRUPT, "is empty");
    /* LMDB of another version; a head that was damaged */
    before[20]++;
    spit(world_file(&w, "data.mdb"), before, len);
    refused(&w, SW_E_STORE_FORMAT, "another version of LMDB (2)");
    before[20]--;
    before[4096 + 16]++;
    spit(world_file(&w, "data.mdb"), before, len);
    refused(&w, SW_E_STORE_CORRUPT, "head of the file is damaged");
    before[4096 + 16]--;
    before[41] = 0x11; /* the page size */
    spit(world_file(&w, "data.mdb"), before, len);
    refused(&w, SW_E_STORE_CORRUPT, "head of the file is damaged");
    before[41] = 0x10;
    /* and as it was */
    spit(world_file(&w, "data.mdb"), before, len);
    world_reopen(&w);
    assert_value(&w, 1, NOW, SW_S("a"));
    free(before);
    world_fini(&w);
}

/* Writes into data.mdb as another program with LMDB would. */
static void with_lmdb(struct world *w, const char *dbname, const void *value, size_t len)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val k = {5, (void *)(uintptr_t) "store"}, v = {len, (void *)(uintptr_t)value};

    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 8), 0);
    assert_int_equal(mdb_env_open(env, world_file(w, "data.mdb"), MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, dbname, MDB_CREATE, &dbi), 0);
    if (value != NULL) {
        assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    } else {
        assert_int_equal(mdb_drop(txn, dbi, 1), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void foreign_lmdb(void **state)
{
    static const char newer[40] = "stateway\3", other[40] = "somebody\1", same[12] = "stateway\1";
    struct world w;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    assert_int_equal(write_one(&w, put_of(1, SW_S("a")), NOW, NULL), SW_OK);
    closed(&w);
    with_lmdb(&w, "meta", newer, sizeof(newer));
    refused(&w, SW_E_STORE_FORMAT, "format 3, this stateway knows formats 1 to 2");
    with_lmdb(&w, "meta", other, sizeof(other));
    refused(&w, SW_E_STORE_FORMAT, "not a store of stateway");
    with_lmdb(&w, "meta", same, 8);
    refused(&w, SW_E_STORE_FORMAT, "not a store of stateway");
    with_lmdb(&w, "meta", same, sizeof(same));
    refused(&w, SW_E_STORE_CORRUPT, "description is damaged");
    with_lmdb(&w, "meta", NULL, 0);
    refused(&w, SW_E_STORE_FORMAT, "not a store of stateway");
    unlink(world_file(&w, "data.mdb"));
    unlink(world_file(&w, "data.mdb-lock"));
    with_lmdb(&w, "records", other, sizeof(other));
    refused(&w, SW_E_STORE_FORMAT, "not a store of stateway");
    world_fini(&w);
    world_init(&w, &maker_lmdb, &quick);
    closed(&w);
    with_lmdb(&w, "expiry", NULL, 0);
    refused(&w, SW_E_STORE_CORRUPT, "a part of it is missing");
    world_fini(&w);
}

/* Cut anywhere it is refused, or nothing of it was lost. */
static void cut_files(void **state)
{
    struct world w;
    char value[3000], *whole;
    size_t len, page = 4096, opened = 0, refusals = 0;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    memset(value, 'v', sizeof(value));
    for (uint64_t i = 0; i < 60; i++) {
        assert_int_equal(write_one(&w, put_of(i, sw_slice_of(value, sizeof(value))), NOW, NULL),
                         SW_OK);
    }
    closed(&w);
    whole = slurp(world_file(&w, "data.mdb"), &len);
    assert_int_equal(len % page, 0);
    for (size_t size = page; size < len; size += size < 100 * page ? page : 97 * page) {
        struct sw_store *store;
        struct sw_store_options opt = quick;
        const char *why = "";
        enum sw_err err;

        spit(world_file(&w, "data.mdb"), whole, size - (size / page % 3)); /* also inside a page */
        opt.path = sw_slice_cstr(w.folder);
        err = sw_store_open_lmdb(&opt, &store, &why);
        if (err == SW_OK) {
            opened++;
            w.store = store;
            for (uint64_t i = 0; i < 60; i++) {
                assert_value(&w, i, NOW, sw_slice_of(value, sizeof(value)));
            }
            closed(&w);
        } else {
            refusals++;
            assert_int_equal(err, SW_E_STORE_CORRUPT);
            assert_true(strstr(why, "the file is cut") != NULL || strstr(why, "damaged") != NULL);
        }
    }
    assert_true(refusals >= 60);
    assert_true(opened > 0); /* the file is longer than its content, on purpose */
    free(whole);
    world_fini(&w);
}

/* A flipped bit in a record is told, not handed on. */
static void rotten_record(void **state)
{
    struct world w;
    char *whole, value[2000];
    size_t len, found = 0;
    struct sw_record r;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    memset(value, 'Q', sizeof(value));
    assert_int_equal(write_one(&w, put_of(1, sw_slice_of(value, sizeof(value))), NOW, NULL), SW_OK);
    assert_int_equal(write_one(&w, put_of(2, SW_S("fine")), NOW, NULL), SW_OK);
    closed(&w);
    whole = slurp(world_file(&w, "data.mdb"), &len);
    for (size_t i = 0; i + 100 < len; i++) {
        if (whole[i] == 'Q' && whole[i + 99] == 'Q') {
            whole[i + 50] ^= 1; /* in each copy that is left in the file */
            found++;
            i += sizeof(value);
        }
    }
    assert_true(found > 0);
    spit(world_file(&w, "data.mdb"), whole, len);
    free(whole);
    world_reopen(&w);
    assert_int_equal(load(&w, 1, NOW, &r), SW_E_STORE_CORRUPT);
    assert_int_equal(write_one(&w, put_of(1, SW_S("x")), NOW, NULL), SW_E_STORE_CORRUPT);
    assert_value(&w, 2, NOW, SW_S("fine"));
    assert_int_equal(write_one(&w, put_of(2, SW_S("better")), NOW, NULL), SW_OK);
    world_fini(&w);
}

/* ---- no room
 * ------------------------------------------------------------------------------------- */

static uint64_t records(struct world *w)
{
    struct sw_store_stats st;

    sw_store_stats(w->store, &st);
    return st.records;
}

static void wait_records(struct world *w, uint64_t want)
{
    for (int i = 0; i < 2000 && records(w) != want; i++) {
        sleep_ms(10);
    }
    assert_int_equal(records(w), want);
}

static size_t fill(struct world *w, uint64_t from, size_t value_bytes)
{
    char *value = malloc(value_bytes);
    size_t count = 0;
    enum sw_err err;

    memset(value, 'f', value_bytes);
    do {
        struct sw_write p = put_of(from + count, sw_slice_of(value, value_bytes));

        p.expires_unix_s = NOW + 1000;
        err = write_one(w, p, NOW, NULL);
        count += err == SW_OK;
    } while (err == SW_OK && count < 100000);
    assert_int_equal(err, SW_E_STORE_FULL);
    free(value);
    return count;
}

/* Tombstones of small records free no page: the collector does, and needs room for it too. */
static void map_full_collect(void **state)
{
    struct sw_store_options opt = {.sync = SW_SYNC_NO, .map_bytes_max = 4u << 20};
    struct world w;
    size_t count;

    (void)state;
    world_init(&w, &maker_lmdb, &opt);
    count = fill(&w, 0, 100);
    assert_true(count > 5000);
    for (uint64_t i = 0; i < count; i++) {
        assert_int_equal(write_one(&w, delete_of(i, NOW + 1001), NOW, NULL), SW_OK);
    }
    w.opt.expire = true; /* by the wall clock all of it has expired */
    world_reopen(&w);
    wait_records(&w, 0);
    w.opt.expire = false;
    world_reopen(&w);
    assert_true(fill(&w, 0, 100) >= count * 8 / 10);
    world_fini(&w);
}

static void map_full(void **state)
{
    static const size_t sizes[] = {1000, 3000, 60000};
    struct world w;
    struct stat st;

    (void)state;
    for (size_t s = 0; s < SW_COUNTOF(sizes); s++) {
        struct sw_store_options opt = {.sync = SW_SYNC_NO, .map_bytes_max = 4u << 20};
        uint64_t first = 0;
        size_t count, more;

        world_init(&w, &maker_lmdb, &opt);
        count = fill(&w, 0, sizes[s]);
        assert_true(count * (sizes[s] + 104) > (3u << 19)); /* LMDB leaves pages half empty */
        for (int turn = 0; turn < 3; turn++) {
            /* reads, touches and deletes go on, again and again */
            for (uint64_t i = 0; i < count; i++) {
                assert_int_equal(load(&w, first + i, NOW, NULL), SW_OK);
            }
            for (uint64_t i = 0; i < 200 && sizes[s] < 4000; i++) { /* see the top of lmdb_room.c */
                struct sw_write t = {.kind = SW_WRITE_TOUCH, .key = key_of(first + i % 10)};

                t.expires_unix_s = NOW + (i % 2 == 0 ? 1100 : 900);
                assert_int_equal(write_one(&w, t, NOW, NULL), SW_OK);
            }
            assert_true(fill(&w, 9999999, sizes[s]) < 20); /* refused again, soon */
            for (uint64_t i = 0; i < count; i++) {
                assert_int_equal(write_one(&w, delete_of(first + i, NOW + 1001), NOW, NULL), SW_OK);
            }
            /* room came back by itself */
            first += 100000;
            more = fill(&w, first, sizes[s]);
            assert_true(more >= count * 7 / 10); /* tombstones stay for now */
            count = more;
        }
        world_reopen(&w);
        for (uint64_t i = 0; i < count; i++) {
            assert_int_equal(load(&w, first + i, NOW, NULL), SW_OK);
        }
        assert_int_equal(stat(world_file(&w, "data.mdb"), &st), 0);
        assert_true(st.st_size <= (6 << 20));
        world_fini(&w);
    }
}

/* The same with entries in all indexes: puts are refused, deletes, cut-offs and the collector find
 * room, and the file is whole after each. */
static void map_full_indexed(void **state)
{
    struct sw_store_options opt = {.sync = SW_SYNC_NO, .map_bytes_max = 2u << 20};
    char name[SW_SUBJECT_BYTES_MAX];
    struct world w;
    size_t count[2] = {0, 0};

    (void)state;
    world_init(&w, &maker_lmdb, &opt);
    for (size_t turn = 0; turn < 2; turn++) {
        enum sw_err err = SW_OK;

        for (; err == SW_OK && count[turn] < 100000; count[turn]++) {
            struct sw_write p = put_of(turn * 1000000 + count[turn], SW_S("v"));

            memset(name, 'n', sizeof(name));
            (void)snprintf(name, sizeof(name), "%zu", count[turn] * 7919);
            p.subject = sw_slice_of(name, sizeof(name)); /* entries as large as they can be */
            p.bound_unix_ms = 5;
            p.due_unix_ms = 1 + (int64_t)(count[turn] * 7919 % 1000);
            p.expires_unix_s = NOW + 1000;
            err = write_one(&w, p, NOW, NULL);
        }
        count[turn]--;
        assert_int_equal(err, SW_E_STORE_FULL);
        assert_true(count[turn] > 500);
        assert_whole(&w);
        for (size_t i = 0; i < 20; i++) { /* a full store still ends sessions */
            memset(name, 'n', sizeof(name));
            (void)snprintf(name, sizeof(name), "%zu", i * 7919);
            assert_int_equal(
                write_one(&w, cutoff_of(sw_slice_of(name, sizeof(name)), 6, 0), NOW, NULL), SW_OK);
        }
        for (uint64_t i = 20; i < count[turn]; i++) {
            struct sw_write d = delete_of(turn * 1000000 + i, NOW + 1001);

            assert_int_equal(write_one(&w, d, NOW, NULL), SW_OK);
        }
        assert_whole(&w);
        w.opt.expire = true;
        world_reopen(&w);
        wait_records(&w, 0);
        w.opt.expire = false;
        world_reopen(&w);
        assert_whole(&w);
        assert_int_equal(sw_store_next_due_unix_ms(w.store), 0);
    }
    assert_true(count[1] > count[0] * 8 / 10);
    world_fini(&w);
}

static void on_complaint(void *arg, const char *text)
{
    (void)arg;
    (void)text;
    fail();
}

/* A map with no reserve left answers, and goes on. */
static void map_full_of_cutoffs(void **state)
{
    struct sw_store_options opt = {.sync = SW_SYNC_NO, .map_bytes_max = 1u << 20};
    char name[SW_SUBJECT_BYTES_MAX];
    enum sw_err err = SW_OK;
    struct world w;
    uint64_t count = 0;
    int64_t now = time(NULL);

    (void)state;
    world_init(&w, &maker_lmdb, &opt);
    assert_int_equal(write_one(&w, put_of(1, SW_S("a")), NOW, NULL), SW_OK);
    for (; err == SW_OK && count < 100000; count++) {
        memset(name, 'n', sizeof(name));
        (void)snprintf(name, sizeof(name), "%lu", (unsigned long)(count * 7919));
        err = write_one(&w, cutoff_of(sw_slice_of(name, sizeof(name)), 6, now - 10), now - 5000,
                        NULL);
    }
    assert_int_equal(err, SW_E_STORE_FULL);
    assert_true(count > 1000);
    assert_value(&w, 1, NOW, SW_S("a"));
    assert_whole(&w);
    w.opt.map_bytes_max = 4u << 20; /* room for the collector */
    w.opt.expire = true;
    world_reopen(&w);
    for (int i = 0; i < 2000; i++) {
        struct sw_store_checked c;
        const char *why = "";

        assert_int_equal(
            sw_store_lmdb_check(sw_slice_cstr(w.folder), true, on_complaint, NULL, &c, &why),
            SW_OK);
        if (c.cutoffs == 0) {
            break;
        }
        sleep_ms(10);
        assert_true(i < 1999);
    }
    assert_value(&w, 1, NOW, SW_S("a"));
    assert_whole(&w);
    world_fini(&w);
}

/* In a batch that does not fit as a whole, the small ones and the deletes are made. */
static void map_full_batch(void **state)
{
    enum { COUNT = 40 };
    static struct sw_store_commit ops[COUNT];
    struct sw_store_options opt = {.sync = SW_SYNC_ALWAYS, .map_bytes_max = 2u << 20};
    char *large = calloc(1, 3 << 20);
    struct world w;

    (void)state;
    world_init(&w, &maker_lmdb, &opt);
    assert_int_equal(write_one(&w, put_of(1, SW_S("a")), NOW, NULL), SW_OK);
    for (size_t i = 0; i < COUNT; i++) {
        ops[i] = (struct sw_store_commit){.count = 1, .now_unix_s = NOW};
        ops[i].writes[0] = i % 4 == 0   ? put_of(i + 100, sw_slice_of(large, 3 << 20))
                           : i % 4 == 1 ? put_of(i + 100, SW_S("small"))
                           : i % 4 == 2 ? put_of(i + 100, sw_slice_of(large, 20000))
                                        : delete_of(i + 100, NOW + 1001);
        commit_begin(&w, &ops[i]);
    }
    world_wait(&w);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(ops[i].err, i % 4 == 0 ? SW_E_STORE_FULL : SW_OK);
    }
    assert_value(&w, 1, NOW, SW_S("a"));
    free(large);
    world_fini(&w);
}

/* The size of files is limited for this process: as a full disk, without being root. */
static void disk_full_rlimit(void **state)
{
    struct rlimit old, tight;
    struct world w;
    size_t count;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 1 << 20;
    assert_int_equal(write_one(&w, put_of(1, SW_S("a")), NOW, NULL), SW_OK);
    closed(&w);
    assert_int_equal(truncate(world_file(&w, "data.mdb"), 1 << 18), 0); /* only slack is cut */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    world_reopen(&w);
    count = fill(&w, 10, 5000); /* SIGXFSZ would end the test here */
    assert_true(count > 50);
    for (uint64_t i = 0; i < count; i++) {
        assert_int_equal(load(&w, 10 + i, NOW, NULL), SW_OK);
    }
    assert_int_equal(load(&w, 10 + count, NOW, NULL), SW_E_NOT_FOUND);
    assert_int_equal(write_one(&w, put_at(1, SW_S("x"), (struct sw_version){1, 1}), NOW, NULL),
                     SW_E_CONFLICT); /* a refusal needs no room */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(write_one(&w, put_of(1, SW_S("b")), NOW, NULL), SW_OK);
    assert_int_equal(write_one(&w, put_of(9999, SW_S("c")), NOW, NULL), SW_OK);
    world_reopen(&w);
    assert_value(&w, 1, NOW, SW_S("b"));
    for (uint64_t i = 0; i < count; i++) {
        assert_int_equal(load(&w, 10 + i, NOW, NULL), SW_OK);
    }
    world_fini(&w);
}

/* A real ENOSPC: a small file system in memory. Needs root. */
static void disk_full_tmpfs(void **state)
{
    char folder[] = "/tmp/sw-store-disk-XXXXXX", big[64];
    struct world w = {.maker = &maker_lmdb};
    struct sw_store_options opt = {.sync = SW_SYNC_ALWAYS};
    size_t count;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    if (geteuid() != 0 || mount("none", folder, "tmpfs", 0, "size=3m") != 0) {
        rmdir(folder);
        skip();
    }
    strncpy(w.folder, folder, sizeof(w.folder) - 1);
    w.opt = opt;
    w.loop = loop_new();
    w.block = malloc(4 << 20);
    {
        const char *why = "";

        assert_int_equal(maker_lmdb.open(&w, &why), SW_OK);
    }
    assert_int_equal(write_one(&w, put_of(1, SW_S("a")), NOW, NULL), SW_OK);
    (void)snprintf(big, sizeof(big), "%s/big", folder);
    fd = open(big, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(posix_fallocate(fd, 0, 1 << 20), 0);
    close(fd);
    count = fill(&w, 10, 5000);
    assert_true(count > 50);
    for (int i = 0; i < 10; i++) { /* still full, still answering */
        assert_int_equal(fill(&w, 5000, 50000), 0);
        assert_value(&w, 1, NOW, SW_S("a"));
    }
    unlink(big); /* room: it goes on by itself */
    assert_int_equal(write_one(&w, put_of(5000, SW_S("x")), NOW, NULL), SW_OK);
    world_reopen(&w);
    for (uint64_t i = 0; i < count; i++) {
        assert_int_equal(load(&w, 10 + i, NOW, NULL), SW_OK);
    }
    sw_store_close(w.store);
    sw_loop_free(w.loop);
    free(w.block);
    assert_int_equal(umount(folder), 0);
    assert_int_equal(rmdir(folder), 0);
}

/* ---- the collector
 * ------------------------------------------------------------------------------- */

static void collector(void **state)
{
    enum { COUNT = 1000 };
    static struct sw_store_commit ops[COUNT];
    struct sw_store_options opt = quick;
    struct sw_store_stats st;
    struct world w;
    int64_t now = time(NULL);

    (void)state;
    world_init(&w, &maker_lmdb, &opt); /* does not collect */
    for (size_t i = 0; i < COUNT; i++) {
        ops[i] = (struct sw_store_commit){.count = 1, .now_unix_s = now - 100};
        ops[i].writes[0] = put_of(i, SW_S("value"));
        ops[i].writes[0].expires_unix_s = i % 10 == 0 ? 0 : i % 10 == 1 ? now + 1000 : now - 50;
        commit_begin(&w, &ops[i]);
    }
    /* a tombstone and an alias end too; what was touched or written on lives */
    world_wait(&w);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(ops[i].err, SW_OK);
    }
    ops[0].count = 4;
    ops[0].writes[0] = put_of(2, SW_S("on"));
    ops[0].writes[0].expires_unix_s = now + 1000;
    ops[0].writes[1] =
        (struct sw_write){.kind = SW_WRITE_TOUCH, .key = key_of(3), .expires_unix_s = now + 1000};
    ops[0].writes[2] = (struct sw_write){
        .kind = SW_WRITE_TOUCH, .key = key_of(1), .expires_unix_s = now - 60}; /* earlier */
    ops[0].writes[3] = delete_of(10, NOW + 1001);
    ops[0].writes[3].expires_unix_s = now - 10;
    assert_int_equal(commit(&w, &ops[0]), SW_OK);
    assert_int_equal(records(&w), COUNT);
    w.opt.expire = true;
    world_reopen(&w);
    wait_records(&w, COUNT * 2 / 10 + 2 - 2);
    assert_value(&w, 2, now, SW_S("on"));
    assert_value(&w, 3, now, SW_S("value"));
    assert_int_equal(load(&w, 1, now - 100, NULL), SW_E_NOT_FOUND); /* really gone */
    assert_int_equal(load(&w, 10, now - 100, NULL), SW_E_NOT_FOUND);
    assert_value(&w, 11, now, SW_S("value"));
    assert_value(&w, 20, now, SW_S("value"));
    sw_store_stats(w.store, &st);
    assert_int_equal(st.expired, COUNT - records(&w));
    /* what was moved in the index is still found when its time comes */
    {
        struct sw_write t = {.kind = SW_WRITE_TOUCH, .key = key_of(3), .expires_unix_s = now - 1};

        assert_int_equal(write_one(&w, t, now - 100, NULL), SW_OK);
        wait_records(&w, COUNT * 2 / 10 - 1);
    }
    world_fini(&w);
}

/* Beside a stream of commits the collector gets its turns too. */
static void collector_busy(void **state)
{
    struct sw_store_options opt = quick;
    struct world w;
    int64_t now = time(NULL);
    uint64_t key = 0;

    (void)state;
    opt.expire = true;
    world_init(&w, &maker_lmdb, &opt);
    for (; key < 500; key++) {
        struct sw_write p = put_of(key, SW_S("v"));

        p.expires_unix_s = now - 50;
        assert_int_equal(write_one(&w, p, now - 100, NULL), SW_OK);
    }
    for (int64_t end = time(NULL) + 10; time(NULL) < end && records(&w) > 1;) {
        assert_int_equal(write_one(&w, put_of(1000, SW_S("v")), now, NULL), SW_OK);
    }
    assert_int_equal(records(&w), 1);
    world_fini(&w);
}

static void syncing(void **state)
{
    struct sw_store_options opt = quick;
    struct sw_store_stats st;
    struct world w;

    (void)state;
    opt.sync = SW_SYNC_EVERYSEC;
    world_init(&w, &maker_lmdb, &opt);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(write_one(&w, put_of(1, SW_S("v")), NOW, NULL), SW_OK);
    }
    sw_store_stats(w.store, &st);
    assert_true(st.syncs <= 1);
    for (int i = 0; i < 300 && st.syncs == 0; i++) {
        sleep_ms(10);
        sw_store_stats(w.store, &st);
    }
    assert_int_equal(st.syncs, 1);
    sleep_ms(1200);
    sw_store_stats(w.store, &st);
    assert_int_equal(st.syncs, 1); /* nothing to sync */
    world_fini(&w);
    opt.sync = SW_SYNC_ALWAYS;
    world_init(&w, &maker_lmdb, &opt);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(write_one(&w, put_of(1, SW_S("v")), NOW, NULL), SW_OK);
    }
    sw_store_stats(w.store, &st);
    assert_int_equal(st.syncs, 5);
    assert_int_equal(write_one(&w, put_at(1, SW_S("v"), (struct sw_version){1, 1}), NOW, NULL),
                     SW_E_CONFLICT);
    sw_store_stats(w.store, &st);
    assert_int_equal(st.syncs, 5); /* a refusal costs none */
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reopen_keeps),
        cmocka_unit_test(folder_rules),
        cmocka_unit_test(locked),
        cmocka_unit_test(forked),
        cmocka_unit_test(readers_full),
        cmocka_unit_test(foreign_files),
        cmocka_unit_test(foreign_lmdb),
        cmocka_unit_test(cut_files),
        cmocka_unit_test(rotten_record),
        cmocka_unit_test(map_full),
        cmocka_unit_test(map_full_collect),
        cmocka_unit_test(map_full_indexed),
        cmocka_unit_test(map_full_of_cutoffs),
        cmocka_unit_test(map_full_batch),
        cmocka_unit_test(disk_full_rlimit),
        cmocka_unit_test(disk_full_tmpfs),
        cmocka_unit_test(collector),
        cmocka_unit_test(collector_busy),
        cmocka_unit_test(syncing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
