/* The store's file, by commands: what check finds, what a backup and a compaction keep, and what is
 * left of the file when they are cut off. */
#include "contract.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"

enum { RECORDS = 300, LARGE_BYTES = 9000 };

static const struct sw_store_options quick = {.sync = SW_SYNC_NO, .map_bytes_max = 64u << 20};

static void closed(struct world *w)
{
    sw_store_close(w->store);
    w->store = NULL;
}

static struct sw_slice value_of(uint64_t n)
{
    static char text[LARGE_BYTES];
    size_t len = n % 20 == 0 ? LARGE_BYTES : 30 + n % 200;

    for (size_t i = 0; i < len; i++) {
        text[i] = (char)('a' + (n * 31 + i * 7) % 26);
    }
    return sw_slice_of(text, len);
}

static struct sw_write nth(uint64_t n)
{
    static char subject[16];
    struct sw_write p = put_of(n, value_of(n));

    (void)snprintf(subject, sizeof(subject), "user-%lu", (unsigned long)(n % 30));
    p.subject = n % 3 == 0 ? sw_slice_cstr(subject) : SW_S("");
    p.bound_unix_ms = n % 3 == 0 ? (int64_t)n + 1000 : 0;
    p.due_unix_ms = n % 4 == 0 ? (int64_t)n + 1 : 0;
    p.extra = n % 4 == 0 ? SW_S("alarm") : SW_S("");
    p.expires_unix_s = n % 5 == 0 ? 0 : time(NULL) + 100000;
    return p;
}

static void fill(struct world *w)
{
    for (uint64_t n = 0; n < RECORDS; n++) {
        assert_int_equal(write_one(w, nth(n), NOW, NULL), SW_OK);
    }
    for (uint64_t n = 0; n < 20; n++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "gone-%lu", (unsigned long)n);
        assert_int_equal(write_one(w, cutoff_of(sw_slice_cstr(name), 5, 0), NOW, NULL), SW_OK);
    }
}

/* All that fill() wrote. */
static void filled(struct world *w)
{
    static struct visited v;
    size_t owned = 0;

    for (uint64_t n = 0; n < RECORDS; n++) {
        struct sw_write p = nth(n);
        struct sw_record r;

        assert_int_equal(load(w, n, NOW, &r), SW_OK);
        assert_int_equal(r.kind, SW_RECORD_STATE);
        assert_true(sw_slice_eq(r.value, value_of(n)));
        assert_true(sw_slice_eq(r.subject, p.subject));
        assert_true(sw_slice_eq(r.extra, p.extra));
        assert_int_equal(r.due_unix_ms, p.due_unix_ms);
        assert_int_equal(r.bound_unix_ms, p.bound_unix_ms);
    }
    for (uint64_t i = 0; i < 30; i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "user-%lu", (unsigned long)i);
        visit(w, sw_slice_cstr(name), NULL, 512, NOW, &v);
        owned += v.count;
    }
    assert_int_equal(owned, RECORDS / 3);
    visit_due(w, NOW * 1000, 512, &v);
    assert_int_equal(v.count, RECORDS / 4);
    for (uint64_t n = 0; n < 20; n++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "gone-%lu", (unsigned long)n);
        assert_int_equal(sw_store_cutoff_unix_ms(w->store, sw_slice_cstr(name)), 5);
    }
}

struct said {
    size_t count;
    char last[256];
};

static void on_complaint(void *arg, const char *text)
{
    struct said *s = arg;

    s->count++;
    (void)snprintf(s->last, sizeof(s->last), "%s", text);
}

static enum sw_err check(struct world *w, struct sw_store_checked *c, struct said *said,
                         const char **why)
{
    *said = (struct said){0};
    *why = "";
    return sw_store_lmdb_check(sw_slice_cstr(w->folder), false, on_complaint, said, c, why);
}

static void whole(struct world *w)
{
    struct sw_store_checked c;
    struct said said;
    const char *why;

    if (check(w, &c, &said, &why) != SW_OK) {
        fail_msg("%s; %s", why, said.last);
    }
    assert_int_equal(said.count, 0);
    assert_int_equal(c.records, RECORDS);
    assert_int_equal(c.cutoffs, 20);
    assert_int_equal(c.subjects, RECORDS / 3);
    assert_int_equal(c.due, RECORDS / 4);
}

static char *slurp(const char *path, size_t *ret_len)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    char *text;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    text = malloc((size_t)st.st_size);
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

/* ---- check ----------------------------------------------------------------------------------- */

static void check_counts(void **state)
{
    struct sw_store_checked c;
    struct said said;
    const char *why;
    struct world w;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    assert_int_equal(check(&w, &c, &said, &why), SW_OK);
    assert_int_equal(c.records + c.due + c.subjects + c.cutoffs, 0);
    fill(&w);
    whole(&w); /* while it is open */
    assert_int_equal(check(&w, &c, &said, &why), SW_OK);
    assert_int_equal(c.states, RECORDS);
    assert_int_equal(c.format, 2);
    assert_int_equal(c.oldest_unix_s, NOW);
    assert_int_equal(c.newest_unix_s, NOW);
    assert_true(c.used_bytes > RECORDS * 100 && c.file_bytes >= c.used_bytes / 2);
    assert_true(c.made_unix_s >= time(NULL) - 100);
    closed(&w);
    whole(&w);
    /* quick: the same counters of the file, and no more */
    {
        struct sw_store_checked q;

        assert_int_equal(
            sw_store_lmdb_check(sw_slice_cstr(w.folder), true, on_complaint, &said, &q, &why),
            SW_OK);
        assert_int_equal(q.records, c.records);
        assert_int_equal(q.subjects, c.subjects);
        assert_int_equal(q.due, c.due);
        assert_int_equal(q.cutoffs, c.cutoffs);
        assert_int_equal(q.format, c.format);
        assert_int_equal(q.states, 0);
    }
    /* no store, no file */
    assert_int_equal(
        sw_store_lmdb_check(SW_S("/tmp/no/such/store"), false, on_complaint, &said, &c, &why),
        SW_E_NOT_FOUND);
    assert_non_null(strstr(why, "no such file"));
    assert_int_equal(sw_store_lmdb_check(SW_S(""), false, on_complaint, &said, &c, &why),
                     SW_E_LIMIT);
    world_fini(&w);
}

/* Each page in turn becomes something else. Either the check says so, or nothing was lost. */
static void check_sees_pages(void **state)
{
    struct sw_store_checked c;
    struct said said;
    const char *why = "";
    struct world w;
    struct sw_rng rng;
    size_t len, page = 4096, pages, seen = 0, harmless = 0;
    char *good, *bad;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    fill(&w);
    assert_int_equal(check(&w, &c, &said, &why), SW_OK);
    closed(&w);
    good = slurp(world_file(&w, "data.mdb"), &len);
    bad = malloc(len);
    assert_non_null(bad);
    pages = (c.used_bytes + c.free_bytes) / page;
    assert_true(pages * page <= len);
    sw_rng_seed(&rng, 5);
    for (size_t i = 2; i < pages; i++) {
        for (int how = 0; how < 5; how++) {
            char *p = bad + i * page;
            enum sw_err err;

            memcpy(bad, good, len);
            switch (how) {
            case 0: /* lost */
                memset(p, 0, page);
                break;
            case 1: /* garbage */
                for (size_t b = 0; b < page; b++) {
                    p[b] = (char)sw_rng_u64(&rng);
                }
                break;
            case 2: /* another page: a write that went astray */
                memcpy(p, good + (2 + sw_rng_below(&rng, pages - 2)) * page, page);
                break;
            case 3: /* one byte of the head or of the table of nodes */
                p[sw_rng_below(&rng, 40)] ^= (char)(1 << sw_rng_below(&rng, 8));
                break;
            default: /* one byte anywhere */
                p[sw_rng_below(&rng, page)] ^= (char)(1 << sw_rng_below(&rng, 8));
                break;
            }
            if (memcmp(bad, good, len) == 0) {
                continue;
            }
            spit(world_file(&w, "data.mdb"), bad, len);
            err = check(&w, &c, &said, &why);
            if (err == SW_OK) {
                harmless++;
                assert_int_equal(w.maker->open(&w, &why), SW_OK);
                filled(&w);
                closed(&w);
            } else {
                seen++;
                /* FORMAT: nothing is left that says whose file it is */
                if (err != SW_E_STORE_CORRUPT && err != SW_E_STORE_FORMAT) {
                    fail_msg("page %zu, %d: %s: %s", i, how, sw_err_name(err), why);
                }
                assert_true(strlen(why) > 20);
            }
        }
    }
    print_message("%zu pages: damage was seen %zu times, was harmless %zu times\n", pages, seen,
                  harmless);
    assert_true(seen > pages);
    free(good);
    free(bad);
    world_fini(&w);
}

/* Deletes and puts as another program with LMDB would. */
static void with_lmdb(struct world *w, const char *dbname, bool first_only,
                      const struct sw_slice *put)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_dbi dbi;
    MDB_val k, v;

    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 8), 0);
    assert_int_equal(mdb_env_open(env, world_file(w, "data.mdb"), MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, dbname, 0, &dbi), 0);
    if (put != NULL) {
        k = (MDB_val){put->len, (void *)(uintptr_t)put->ptr};
        v = (MDB_val){0, NULL};
        assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    } else if (first_only) {
        assert_int_equal(mdb_cursor_open(txn, dbi, &cursor), 0);
        assert_int_equal(mdb_cursor_get(cursor, &k, &v, MDB_FIRST), 0);
        assert_int_equal(mdb_cursor_del(cursor, 0), 0);
        mdb_cursor_close(cursor);
    } else {
        assert_int_equal(mdb_drop(txn, dbi, 0), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void compacted(struct world *w)
{
    uint64_t before = 0, after = 0;
    const char *why = "";

    if (sw_store_lmdb_compact(sw_slice_cstr(w->folder), &before, &after, &why) != SW_OK) {
        fail_msg("%s", why);
    }
    assert_true(after > 0 && before > 0);
}

/* Indexes that do not fit: told, how many, and made anew by a compaction. */
static void check_sees_indexes(void **state)
{
    static const char *const dbs[] = {"expiry", "subjects", "due"};
    struct sw_store_checked c;
    struct said said;
    const char *why;
    struct world w;
    struct sw_store_key key = key_of(1); /* has no subject and is not due */
    char entry[64] = {0};
    struct sw_slice bogus = {entry, 40};

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    fill(&w);
    closed(&w);
    memcpy(entry + 8, key.bytes, sizeof(key.bytes));
    entry[7] = 9;
    for (size_t i = 0; i < SW_COUNTOF(dbs); i++) {
        with_lmdb(&w, dbs[i], true, NULL); /* one is missing */
        assert_int_equal(check(&w, &c, &said, &why), SW_E_STORE_CORRUPT);
        assert_int_equal(c.bad_index, 1);
        assert_int_equal(c.bad_records, 0);
        assert_int_equal(said.count, 1);
        assert_non_null(strstr(said.last, dbs[i]));
        assert_non_null(strstr(why, "stateway store compact"));
        compacted(&w);
        whole(&w);
        with_lmdb(&w, dbs[i], false, &bogus); /* one too many */
        assert_int_equal(check(&w, &c, &said, &why), SW_E_STORE_CORRUPT);
        assert_int_equal(c.bad_index, 1);
        compacted(&w);
        whole(&w);
        with_lmdb(&w, dbs[i], false, NULL); /* all are missing */
        assert_int_equal(check(&w, &c, &said, &why), SW_E_STORE_CORRUPT);
        assert_true(c.bad_index >= RECORDS / 4);
        assert_true(said.count <= 100);
        compacted(&w);
        whole(&w);
    }
    assert_int_equal(w.maker->open(&w, &why), SW_OK);
    filled(&w);
    world_fini(&w);
}

/* What cannot be read, in the indexes or behind them, stands in nobody's way: alarms behind it are
 * told, what expired is collected, commits go on. It leaves the index, and its record is kept. */
static void damage_in_front_of_the_queue(void **state)
{
    struct sw_store_options opt = {.sync = SW_SYNC_NO, .map_bytes_max = 64u << 20, .expire = true};
    const struct sw_slice garbage[] = {SW_S("x"), SW_S("\0\0\0\0\0\0\0\1 too short"),
                                       /* of no record, at a time long ago */
                                       SW_S("\0\0\0\0\0\0\0\2 and a key of just 32 bytes, he ")};
    int64_t now_ms = (int64_t)time(NULL) * 1000;
    struct sw_store_stats stats;
    struct sw_write p;
    struct visited seen;
    const char *why = "";
    struct world w;
    char *file;
    size_t len;

    (void)state;
    assert_int_equal(garbage[2].len, 40);
    world_init(&w, &maker_lmdb, &opt);
    for (uint64_t n = 0; n < 300; n++) { /* more than are passed over in one look */
        p = put_of(n, SW_S("a unique value"));
        p.due_unix_ms = (int64_t)n + 10;
        assert_int_equal(write_one(&w, p, time(NULL), NULL), SW_OK);
    }
    p = put_of(5000, SW_S("good"));
    p.due_unix_ms = now_ms - 1000;
    assert_int_equal(write_one(&w, p, time(NULL), NULL), SW_OK);
    p = put_of(5001, SW_S("over soon"));
    p.expires_unix_s = time(NULL) + 1;
    assert_int_equal(write_one(&w, p, time(NULL), NULL), SW_OK);
    closed(&w);
    for (size_t i = 0; i < SW_COUNTOF(garbage); i++) {
        with_lmdb(&w, "due", false, &garbage[i]);
        with_lmdb(&w, "expiry", false, &garbage[i]);
    }
    file = slurp(world_file(&w, "data.mdb"), &len);
    for (size_t i = 0; i + 8 < len; i++) {
        if (memcmp(file + i, "a unique", 8) == 0) {
            file[i + 3] ^= 1;
        }
    }
    spit(world_file(&w, "data.mdb"), file, len);
    free(file);
    if (w.maker->open(&w, &why) != SW_OK) {
        fail_msg("%s", why);
    }
    for (size_t i = 0; i < 300 && sw_store_next_due_unix_ms(w.store) != now_ms - 1000; i++) {
        nanosleep(&(struct timespec){0, 20000000}, NULL);
        p = put_of(6000 + i, SW_S("more"));
        p.due_unix_ms = now_ms + 1000000;
        assert_int_equal(write_one(&w, p, time(NULL), NULL), SW_OK);
    }
    assert_true(sw_store_next_due_unix_ms(w.store) == now_ms - 1000);
    visit_due(&w, now_ms, 99, &seen);
    assert_int_equal(seen.count, 1);
    for (size_t i = 0; i < 300; i++) {
        sw_store_stats(w.store, &stats);
        if (stats.expired > 0) {
            break;
        }
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    assert_int_equal(stats.expired, 1);
    assert_int_equal(load(&w, 7, NOW, NULL), SW_E_STORE_CORRUPT); /* for people to look at */
    world_fini(&w);
}

/* ---- backup ---------------------------------------------------------------------------------- */

static size_t names_in(const char *folder)
{
    DIR *dir = opendir(folder);
    size_t count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count - 2;
}

static void backup_remove(const char *to)
{
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/data.mdb", to);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(path, sizeof(path), "%s/data.mdb-lock", to);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s/lock", to);
    (void)unlink(path);
    assert_int_equal(rmdir(to), 0);
}

/* While commits of pairs go on: in the copy both of a pair are there, or none. */
static void backup_beside_commits(void **state)
{
    enum { COUNT = 3000 };
    static struct sw_store_commit ops[COUNT];
    struct world w, copy = {.maker = &maker_lmdb};
    char to[128];
    const char *why = "";
    size_t there = 0;
    struct stat st;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    fill(&w);
    for (size_t turn = 0; turn < 3; turn++) {
        (void)snprintf(to, sizeof(to), "%s/backup/", w.folder); /* a slash behind it is allowed */
        for (size_t i = 0; i < COUNT; i++) {
            ops[i] = (struct sw_store_commit){.count = 2, .now_unix_s = NOW};
            for (size_t n = 0; n < 2; n++) {
                ops[i].writes[n] = put_of(1000 + turn * 2 * COUNT + i * 2 + n, SW_S("pair"));
                ops[i].writes[n].subject = SW_S("pairs");
            }
            commit_begin(&w, &ops[i]);
        }
        if (sw_store_lmdb_backup(sw_slice_cstr(w.folder), sw_slice_cstr(to), &why) != SW_OK) {
            fail_msg("%s", why);
        }
        world_wait(&w);
        to[strlen(to) - 1] = '\0';
        assert_int_equal(stat(to, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
        assert_int_equal(names_in(to), 1);
        memcpy(copy.folder, to, sizeof(copy.folder));
        copy.block = w.block;
        copy.loop = w.loop;
        {
            struct sw_store_checked c;
            struct said said;

            assert_int_equal(check(&copy, &c, &said, &why), SW_OK);
            assert_true(c.records >= RECORDS + turn * 2 * COUNT);
        }
        assert_int_equal(maker_lmdb.open(&copy, &why), SW_OK);
        filled(&copy);
        for (size_t i = 0; i < COUNT; i++) {
            enum sw_err first = load(&copy, 1000 + turn * 2 * COUNT + i * 2, NOW, NULL);

            assert_int_equal(load(&copy, 1000 + turn * 2 * COUNT + i * 2 + 1, NOW, NULL), first);
            there += first == SW_OK;
        }
        sw_store_close(copy.store);
        backup_remove(to);
    }
    print_message("%zu of %d pairs were in time\n", there, 3 * COUNT);
    filled(&w);
    world_fini(&w);
}

static void backup_refusals(void **state)
{
    struct rlimit old, tight;
    struct world w;
    char to[128];
    const char *why = "";
    size_t names;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    fill(&w);
    names = names_in(w.folder);
    assert_int_equal(sw_store_lmdb_backup(sw_slice_cstr(w.folder), sw_slice_cstr(w.folder), &why),
                     SW_E_STORE_IO);
    assert_non_null(strstr(why, "is there already"));
    (void)snprintf(to, sizeof(to), "%s/no/such", w.folder);
    assert_int_equal(sw_store_lmdb_backup(sw_slice_cstr(w.folder), sw_slice_cstr(to), &why),
                     SW_E_STORE_IO);
    assert_non_null(strstr(why, "make the folder above it first"));
    assert_int_equal(sw_store_lmdb_backup(sw_slice_cstr(w.folder), SW_S(""), &why), SW_E_LIMIT);
    (void)snprintf(to, sizeof(to), "%s/copy", w.folder);
    assert_int_equal(sw_store_lmdb_backup(SW_S("/tmp/no/such"), sw_slice_cstr(to), &why),
                     SW_E_NOT_FOUND);
    /* no room on the disk: nothing is left of it */
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 30000;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    {
        enum sw_err err = sw_store_lmdb_backup(sw_slice_cstr(w.folder), sw_slice_cstr(to), &why);

        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_true(err == SW_E_STORE_FULL || err == SW_E_STORE_IO);
        assert_non_null(strstr(why, "no backup was made"));
    }
    assert_int_equal(names_in(w.folder), names);
    filled(&w);
    world_fini(&w);
}

/* ---- compact --------------------------------------------------------------------------------- */

static void compact_keeps(void **state)
{
    struct sw_store_checked before, after;
    uint64_t bytes[2];
    struct said said;
    const char *why = "";
    struct world w;
    struct sw_record r;
    struct stat st;
    int64_t now = time(NULL);

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    fill(&w);
    for (uint64_t n = 1000; n < 3000; n++) { /* over, or soon */
        struct sw_write p = put_of(n, value_of(n));

        p.subject = SW_S("over");
        p.due_unix_ms = 5;
        p.expires_unix_s = now - 10;
        assert_int_equal(write_one(&w, p, NOW, NULL), SW_OK);
    }
    for (uint64_t n = 0; n < 2; n++) { /* cut off long ago; just now */
        struct sw_slice name = n == 0 ? SW_S("long-ago") : SW_S("just-now");
        struct sw_write p = put_of(5000 + n, SW_S("v"));

        p.subject = name;
        p.bound_unix_ms = 5;
        assert_int_equal(write_one(&w, p, now, NULL), SW_OK);
        assert_int_equal(write_one(&w, cutoff_of(name, 10, n == 0 ? now - 1 : now + 1000),
                                   n == 0 ? now - 5000 : now, NULL),
                         SW_OK);
    }
    assert_int_equal(sw_store_lmdb_compact(sw_slice_cstr(w.folder), &bytes[0], &bytes[1], &why),
                     SW_E_STORE_LOCKED);
    assert_non_null(strstr(why, "has it open"));
    closed(&w);
    assert_int_equal(check(&w, &before, &said, &why), SW_OK);
    compacted(&w);
    assert_int_equal(stat(world_file(&w, "new.mdb"), &st), -1);
    assert_int_equal(stat(world_file(&w, "data.mdb"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(check(&w, &after, &said, &why), SW_OK);
    assert_int_equal(before.records, RECORDS + 2002);
    assert_int_equal(after.records, RECORDS + 1);
    assert_int_equal(after.cutoffs, 21);
    assert_int_equal(after.subjects, RECORDS / 3 + 1);
    assert_int_equal(after.due, RECORDS / 4);
    assert_int_equal(after.made_unix_s, before.made_unix_s);
    assert_int_equal(after.free_bytes, 0);
    assert_true(after.used_bytes < before.used_bytes / 3);
    assert_int_equal(w.maker->open(&w, &why), SW_OK);
    filled(&w);
    assert_int_equal(load(&w, 5000, now, NULL), SW_E_NOT_FOUND);
    assert_int_equal(sw_store_cutoff_unix_ms(w.store, SW_S("long-ago")), 0);
    assert_int_equal(load(&w, 5001, now, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    assert_int_equal(sw_store_next_due_unix_ms(w.store), 1);
    /* and it is a store like any other */
    assert_int_equal(write_one(&w, put_of(9000, SW_S("more")), NOW, NULL), SW_OK);
    world_reopen(&w);
    assert_value(&w, 9000, NOW, SW_S("more"));
    filled(&w);
    world_fini(&w);
}

static void compact_refusals(void **state)
{
    struct rlimit old, tight;
    struct world w;
    uint64_t bytes[2];
    const char *why = "";
    char *good, *again;
    size_t len, again_len;
    struct stat st;
    struct sw_store_checked c;
    struct said said;
    int fd;

    (void)state;
    world_init(&w, &maker_lmdb, &quick);
    fill(&w);
    assert_int_equal(write_one(&w, put_of(7777, SW_S("a unique value")), NOW, NULL), SW_OK);
    closed(&w);
    good = slurp(world_file(&w, "data.mdb"), &len);
    assert_int_equal(sw_store_lmdb_compact(SW_S("/tmp/no/such"), &bytes[0], &bytes[1], &why),
                     SW_E_NOT_FOUND);
    /* another command reads it; it is being compacted */
    fd = open(world_file(&w, "data.mdb"), O_RDONLY);
    assert_int_equal(flock(fd, LOCK_SH), 0);
    assert_int_equal(sw_store_lmdb_compact(sw_slice_cstr(w.folder), &bytes[0], &bytes[1], &why),
                     SW_E_STORE_LOCKED);
    assert_non_null(strstr(why, "another `stateway store` command"));
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(check(&w, &c, &said, &why), SW_E_STORE_LOCKED);
    close(fd);
    /* no room for the new file */
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 30000;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    {
        enum sw_err err =
            sw_store_lmdb_compact(sw_slice_cstr(w.folder), &bytes[0], &bytes[1], &why);

        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_true(err == SW_E_STORE_FULL || err == SW_E_STORE_IO);
        assert_non_null(strstr(why, "left as it is"));
    }
    assert_int_equal(stat(world_file(&w, "new.mdb"), &st), -1);
    /* a record that is damaged is not dropped in silence */
    for (size_t i = 0; i + 8 < len; i++) { /* in each copy that is left in the file */
        if (memcmp(good + i, "a unique", 8) == 0) {
            good[i + 3] ^= 1;
            i += 8;
        }
    }
    spit(world_file(&w, "data.mdb"), good, len);
    assert_int_equal(sw_store_lmdb_compact(sw_slice_cstr(w.folder), &bytes[0], &bytes[1], &why),
                     SW_E_STORE_CORRUPT);
    assert_non_null(strstr(why, "left as it is"));
    assert_int_equal(stat(world_file(&w, "new.mdb"), &st), -1);
    again = slurp(world_file(&w, "data.mdb"), &again_len);
    assert_int_equal(again_len, len);
    assert_memory_equal(again, good, len);
    assert_int_equal(check(&w, &c, &said, &why), SW_E_STORE_CORRUPT);
    assert_int_equal(c.bad_records, 1);
    free(good);
    free(again);
    world_fini(&w);
}

/* kill -9 at random moments of it: there is one whole file, always. */
static void compact_killed(void **state)
{
    struct world w;
    struct sw_rng rng;
    const char *why = "";
    size_t cut_off = 0;

    (void)state;
    sw_rng_seed(&rng, (uint64_t)time(NULL));
    world_init(&w, &maker_lmdb, &quick);
    fill(&w);
    for (int turn = 0; turn < 30; turn++) {
        struct timespec pause = {0, (long)sw_rng_below(&rng, 30) * 1000000};
        int status;
        pid_t pid;

        closed(&w);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            uint64_t before, after;

            _exit(sw_store_lmdb_compact(sw_slice_cstr(w.folder), &before, &after, &why) == SW_OK
                      ? 0
                      : 1);
        }
        nanosleep(&pause, NULL);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) || status == 0);
        cut_off += WIFSIGNALED(status);
        /* its child ends with it, and lets go of the lock */
        for (int i = 0;; i++) {
            enum sw_err err = w.maker->open(&w, &why);

            if (err == SW_OK) {
                break;
            }
            assert_int_equal(err, SW_E_STORE_LOCKED);
            assert_true(i < 500);
            nanosleep(&(struct timespec){0, 10000000}, NULL);
        }
        filled(&w);
        whole(&w);
    }
    assert_true(cut_off > 0);
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_counts),
        cmocka_unit_test(check_sees_pages),
        cmocka_unit_test(check_sees_indexes),
        cmocka_unit_test(backup_beside_commits),
        cmocka_unit_test(damage_in_front_of_the_queue),
        cmocka_unit_test(backup_refusals),
        cmocka_unit_test(compact_keeps),
        cmocka_unit_test(compact_refusals),
        cmocka_unit_test(compact_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
