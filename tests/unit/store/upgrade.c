/* A file of format 1, written here by LMDB directly, becomes one of format 2: nothing is lost, also
 * when it is killed again and again on the way, and when there is no room.
 *
 * mdb_txn_commit is caught by defining it here: the dynamic linker binds the store to this one.
 */
#include "contract.h"

#include <dlfcn.h>
#include <lmdb.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* -1: as it is; n: the n-th commit from here kills this process before it does anything; -n: after
 * it was made. */
static int kill_at;
static bool kill_after;

int mdb_txn_commit(MDB_txn *txn)
{
    static int (*real)(MDB_txn *);
    int rc;

    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "mdb_txn_commit");
    }
    if (kill_at > 0 && --kill_at == 0 && !kill_after) {
        kill(getpid(), SIGKILL);
    }
    rc = real(txn);
    if (kill_at == 0 && kill_after) {
        kill(getpid(), SIGKILL);
    }
    return rc;
}

/* ---- format 1 -------------------------------------------------------------------------------- */

static void le(unsigned char *p, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        p[i] = (unsigned char)(v >> 8 * i);
    }
}

static uint64_t sum(uint64_t h, const unsigned char *p, size_t len)
{
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = 0;

        for (size_t i = 0; i < 8 && at + i < len; i++) {
            word |= (uint64_t)p[at + i] << 8 * i;
        }
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    return h;
}

struct first {
    unsigned char kind;
    const char *subject, *value;
    int64_t created, expires, absolute, indexed;
};

static size_t first_write(unsigned char *p, const struct sw_store_key *key, uint64_t epoch,
                          const struct first *r)
{
    size_t subject = strlen(r->subject), len = 64 + subject + strlen(r->value);
    uint64_t h;

    memset(p, 0, 64);
    p[0] = 1;
    p[1] = r->kind;
    p[2] = (unsigned char)subject;
    le(p + 8, epoch, 8);
    le(p + 16, 7, 8);
    le(p + 24, (uint64_t)r->created, 8);
    le(p + 32, (uint64_t)(r->created + 5), 8);
    le(p + 40, (uint64_t)r->expires, 8);
    le(p + 48, (uint64_t)r->absolute, 8);
    le(p + 56, (uint64_t)r->indexed, 8);
    memcpy(p + 64, r->subject, subject);
    memcpy(p + 64 + subject, r->value, strlen(r->value));
    h = sum(len, key->bytes, 32);
    h = sum(h, p, 4);
    h = sum(h, p + 8, len - 8);
    le(p + 4, (uint32_t)h, 4);
    return len;
}

static struct first first_of(uint64_t n)
{
    static char subject[32], value[600];
    bool alias = n % 10 == 3, tombstone = n % 10 == 4;

    (void)snprintf(subject, sizeof(subject), "user-%lu", (unsigned long)(n % 50));
    (void)snprintf(value, sizeof(value), "{\"n\":%lu,\"much\":\"%0*d\"}", (unsigned long)n,
                   (int)(n % 300), 0);
    return (struct first){
        .kind = alias       ? 3
                : tombstone ? 2
                            : 1,
        .subject = alias || tombstone || n % 10 == 5 ? "" : subject,
        .value = alias       ? "0123456789abcdef0123456789abcdef"
                 : tombstone ? ""
                             : value,
        .created = NOW - 100 + (int64_t)(n % 90),
        .expires = n % 7 == 0 ? 0 : NOW + 1000 + (int64_t)n,
        .absolute = n % 7 == 0 ? 0 : NOW + 500000,
        .indexed = n % 7 == 0 ? 0 : NOW + 900,
    };
}

static void put(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t key_len, const void *value,
                size_t len)
{
    MDB_val k = {key_len, (void *)(uintptr_t)key}, v = {len, (void *)(uintptr_t)value};

    assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
}

/* In place of the world's file, which was closed. */
static void first_file(struct world *w, uint64_t count)
{
    unsigned char meta[40] = "stateway\1", record[2000], entry[40];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi, records, expiry;

    (void)unlink(world_file(w, "data.mdb"));
    (void)unlink(world_file(w, "data.mdb-lock"));
    le(meta + 16, NOW - 5000, 8);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
    assert_int_equal(mdb_env_set_mapsize(env, 256u << 20), 0);
    assert_int_equal(mdb_env_open(env, world_file(w, "data.mdb"), MDB_NOSUBDIR | MDB_NOSYNC, 0600),
                     0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "meta", MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_dbi_open(txn, "records", MDB_CREATE, &records), 0);
    assert_int_equal(mdb_dbi_open(txn, "expiry", MDB_CREATE, &expiry), 0);
    put(txn, dbi, "store", 5, meta, sizeof(meta));
    for (uint64_t n = 0; n < count; n++) {
        struct first r = first_of(n);
        struct sw_store_key key = key_of(n);

        put(txn, records, key.bytes, 32, record, first_write(record, &key, n + 1, &r));
        if (r.indexed != 0) {
            for (size_t i = 0; i < 8; i++) {
                entry[i] = (unsigned char)((uint64_t)r.indexed >> 8 * (7 - i));
            }
            memcpy(entry + 8, key.bytes, 32);
            put(txn, expiry, entry, sizeof(entry), "", 0);
        }
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    /* as the store leaves it: longer than its last page */
    assert_int_equal(truncate(world_file(w, "data.mdb"), 64 << 20), 0);
}

/* ---- what must be there ---------------------------------------------------------------------- */

static void on_complaint(void *arg, const char *text)
{
    (void)arg;
    print_message("%s\n", text);
}

static void checked(struct world *w, uint32_t format, uint64_t records, uint64_t subjects)
{
    struct sw_store_checked c;
    const char *why = "";
    enum sw_err err =
        sw_store_lmdb_check(sw_slice_cstr(w->folder), false, on_complaint, NULL, &c, &why);

    if (err != SW_OK) {
        fail_msg("%s", why);
    }
    assert_int_equal(c.format, format);
    assert_int_equal(c.records, records);
    assert_int_equal(c.made_unix_s, NOW - 5000);
    if (subjects != UINT64_MAX) {
        assert_int_equal(c.subjects, subjects);
    }
}

static uint64_t owned_of(uint64_t count)
{
    uint64_t owned = 0;

    for (uint64_t n = 0; n < count; n++) {
        owned += first_of(n).subject[0] != '\0';
    }
    return owned;
}

static void all_there(struct world *w, uint64_t count)
{
    static struct visited v;
    uint64_t found = 0;

    for (uint64_t n = 0; n < count; n++) {
        struct first want = first_of(n);
        struct sw_record r;

        assert_int_equal(load(w, n, NOW, &r), SW_OK);
        assert_int_equal(r.kind, want.kind);
        assert_int_equal(r.version.epoch, n + 1);
        assert_int_equal(r.version.counter, 7);
        assert_int_equal(r.created_unix_s, want.created);
        assert_int_equal(r.touched_unix_s, want.created + 5);
        assert_int_equal(r.expires_unix_s, want.expires);
        assert_int_equal(r.absolute_unix_s, want.absolute);
        assert_int_equal(r.bound_unix_ms, want.subject[0] != '\0' ? want.created * 1000 : 0);
        assert_int_equal(r.due_unix_ms, 0);
        assert_int_equal(r.extra.len, 0);
        assert_false(r.sealed);
        assert_true(sw_slice_eq(r.subject, sw_slice_cstr(want.subject)));
        assert_true(sw_slice_eq(r.value, sw_slice_cstr(want.value)));
    }
    for (unsigned i = 0; i < 50; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "user-%u", i);
        visit(w, sw_slice_cstr(name), NULL, 512, NOW, &v);
        found += v.count;
    }
    assert_int_equal(found, owned_of(count));
}

static const struct sw_store_options quick = {.sync = SW_SYNC_NO, .map_bytes_max = 128u << 20};

static void begin(struct world *w, uint64_t count, const struct sw_store_options *opt)
{
    world_init(w, &maker_lmdb, opt);
    sw_store_close(w->store);
    w->store = NULL;
    first_file(w, count);
}

static void opened(struct world *w)
{
    const char *why = "";
    enum sw_err err = w->maker->open(w, &why);

    if (err != SW_OK) {
        fail_msg("%s: %s", sw_err_name(err), why);
    }
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void upgrades(void **state)
{
    static const uint64_t counts[] = {0, 1, 9, 1024, 5000};
    struct world w;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(counts); i++) {
        begin(&w, counts[i], &quick);
        checked(&w, 1, counts[i], 0); /* as it is, without an upgrade */
        checked(&w, 1, counts[i], 0);
        opened(&w);
        all_there(&w, counts[i]);
        checked(&w, 2, counts[i], owned_of(counts[i]));
        world_reopen(&w);
        all_there(&w, counts[i]);
        checked(&w, 2, counts[i], owned_of(counts[i]));
        world_fini(&w);
    }
}

/* Records of the old format live on in the new file as all others. */
static void old_records_live(void **state)
{
    static struct visited v;
    struct sw_record r;
    struct world w;
    struct sw_write p;

    (void)state;
    begin(&w, 200, &quick);
    opened(&w);
    p = (struct sw_write){.kind = SW_WRITE_TOUCH, .key = key_of(1), .expires_unix_s = NOW + 77777};
    assert_int_equal(write_one(&w, p, NOW + 1, NULL), SW_OK);
    assert_int_equal(load(&w, 1, NOW, &r), SW_OK);
    assert_int_equal(r.expires_unix_s, NOW + 77777);
    assert_int_equal(r.touched_unix_s, NOW + 1);
    assert_true(sw_slice_eq(r.value, sw_slice_cstr(first_of(1).value)));
    p = put_at(1, SW_S("v"), r.version);
    p.subject = SW_S("user-1");
    p.due_unix_ms = 5;
    p.extra = SW_S("e");
    assert_int_equal(write_one(&w, p, NOW + 2, NULL), SW_OK);
    assert_int_equal(load(&w, 1, NOW, &r), SW_OK);
    assert_int_equal(r.version.counter, 8);
    assert_int_equal(r.created_unix_s, first_of(1).created);
    assert_int_equal(r.bound_unix_ms, first_of(1).created * 1000); /* the same subject */
    assert_int_equal(sw_store_next_due_unix_ms(w.store), 5);
    p = (struct sw_write){.kind = SW_WRITE_DELETE, .key = key_of(2), .expect = SW_EXPECT_ANY};
    assert_int_equal(write_one(&w, p, NOW, NULL), SW_OK);
    visit(&w, SW_S("user-2"), NULL, 99, NOW, &v);
    assert_int_equal(v.count, 3); /* 52, 102, 152 */
    /* a cut-off now ends what was bound before it */
    assert_int_equal(write_one(&w, cutoff_of(SW_S("user-1"), NOW * 1000, 0), NOW, NULL), SW_OK);
    visit(&w, SW_S("user-1"), NULL, 99, NOW, &v);
    assert_int_equal(v.count, 0);
    assert_int_equal(load(&w, 51, NOW, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    checked(&w, 2, 200, owned_of(200) - 1);
    world_fini(&w);
}

static bool killed_while_opening(struct world *w, int at, bool after)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        const char *why = "";

        kill_at = at;
        kill_after = after;
        _exit(w->maker->open(w, &why) == SW_OK ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

static void killed_on_the_way(void **state)
{
    enum { COUNT = 6000 };
    struct world w;
    size_t kills = 0;

    (void)state;
    for (int after = 0; after < 2; after++) {
        /* at each commit of one upgrade */
        for (int at = 1;; at++) {
            bool killed;

            begin(&w, COUNT, &quick);
            killed = killed_while_opening(&w, at, after);
            kills += killed;
            checked(&w, killed && at <= 2 && !(after && at == 2) ? 1 : 2, COUNT, UINT64_MAX);
            opened(&w);
            all_there(&w, COUNT);
            checked(&w, 2, COUNT, owned_of(COUNT));
            world_fini(&w);
            if (!killed) {
                break;
            }
        }
        /* one more commit each time it is started */
        begin(&w, COUNT, &quick);
        for (int at = 2; killed_while_opening(&w, at, after); at = 3) {
            assert_true(kills++ < 100);
        }
        opened(&w);
        all_there(&w, COUNT);
        checked(&w, 2, COUNT, owned_of(COUNT));
        world_fini(&w);
    }
    assert_true(kills > 15);
}

static size_t told;

static void on_tell(void *arg, const char *text)
{
    assert_non_null(arg);
    assert_non_null(strstr(text, "format 2"));
    told++;
}

/* No room: refused, said why, untouched, and it goes on when there is room. */
static void no_room(void **state)
{
    enum { COUNT = 6000 };
    struct sw_store_options opt = quick;
    struct rlimit old, tight;
    struct sw_store *store = NULL;
    const char *why = "";
    struct world w;
    struct stat st;

    (void)state;
    opt.tell = on_tell;
    opt.tell_arg = &w;
    begin(&w, COUNT, &opt);
    assert_int_equal(stat(world_file(&w, "data.mdb"), &st), 0);
    assert_int_equal(truncate(world_file(&w, "data.mdb"), 3 << 20), 0); /* slack only is cut */
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 3 << 20;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    w.opt.path = sw_slice_cstr(w.folder);
    {
        enum sw_err err = sw_store_open_lmdb(&w.opt, &store, &why);

        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        if (err != SW_E_STORE_FULL && err != SW_E_STORE_IO) {
            fail_msg("%s %s", sw_err_name(err), why);
        }
        assert_non_null(strstr(why, "format 2"));
    }
    opened(&w);
    all_there(&w, COUNT);
    checked(&w, 2, COUNT, owned_of(COUNT));
    world_fini(&w);
    /* a map that is full */
    opt.map_bytes_max = 1 << 20;
    begin(&w, COUNT, &opt);
    w.opt.path = sw_slice_cstr(w.folder);
    assert_int_equal(sw_store_open_lmdb(&w.opt, &store, &why), SW_E_STORE_FULL);
    assert_non_null(strstr(why, "limits.store"));
    w.opt.map_bytes_max = 64 << 20;
    opened(&w);
    all_there(&w, COUNT);
    world_fini(&w);
    assert_int_equal(told, 0); /* it did not take long */
}

/* A damaged record stays, and hinders nobody. */
static void damaged_record(void **state)
{
    struct world w;
    struct sw_record r;
    char *whole;
    size_t len = 0;
    struct stat st;
    FILE *f;

    (void)state;
    begin(&w, 100, &quick);
    assert_int_equal(stat(world_file(&w, "data.mdb"), &st), 0);
    whole = malloc((size_t)st.st_size);
    f = fopen(world_file(&w, "data.mdb"), "r+e");
    assert_non_null(f);
    assert_int_equal(fread(whole, 1, (size_t)st.st_size, f), st.st_size);
    for (size_t i = 0; i + 10 < (size_t)st.st_size; i++) {
        if (memcmp(whole + i, "{\"n\":60,", 8) == 0) {
            whole[i + 5] = '7';
            len++;
        }
    }
    assert_true(len > 0);
    rewind(f);
    assert_int_equal(fwrite(whole, 1, (size_t)st.st_size, f), st.st_size);
    assert_int_equal(fclose(f), 0);
    free(whole);
    opened(&w);
    assert_int_equal(load(&w, 60, NOW, &r), SW_E_STORE_CORRUPT);
    assert_int_equal(load(&w, 61, NOW, &r), SW_OK);
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(upgrades),          cmocka_unit_test(old_records_live),
        cmocka_unit_test(killed_on_the_way), cmocka_unit_test(no_room),
        cmocka_unit_test(damaged_record),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
