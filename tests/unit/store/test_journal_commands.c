/* What `stateway store` asks of a journal: its figures, a copy of one moment beside a store that
 * works, damage that is found, a log made small.
 */
#include "test_journal.h"

#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/rng.h"

#define LARGE_BYTES (200u << 10)

static const struct sw_store_options quick = {.sync = SW_SYNC_NO};

struct said {
    size_t count;
    char last[512];
};

static void on_complaint(void *arg, const char *text)
{
    struct said *s = arg;

    s->count++;
    (void)snprintf(s->last, sizeof(s->last), "%s", text);
}

static enum sw_err check(const char *folder, struct sw_store_checked *c, struct said *said,
                         const char **ret_why)
{
    *said = (struct said){0};
    *ret_why = "";
    return sw_store_journal_check(sw_slice_cstr(folder), false, on_complaint, said, c, ret_why);
}

static void assert_check(const char *folder, struct sw_store_checked *c)
{
    struct said said;
    const char *why;
    enum sw_err err = check(folder, c, &said, &why);

    if (err != SW_OK || said.count != 0) {
        fail_msg("%s: %s; %s", folder, why, said.last);
    }
}

static void closed(struct world *w)
{
    sw_store_close(w->store);
    w->store = NULL;
}

static void opened(struct world *w)
{
    const char *why = "";

    if (w->maker->open(w, &why) != SW_OK) {
        fail_msg("%s", why);
    }
}

static const char *beside(const struct world *w, const char *suffix)
{
    static char path[128];

    (void)snprintf(path, sizeof(path), "%s%s", w->folder, suffix);
    return path;
}

static void folder_remove(const char *folder)
{
    folder_empty(folder);
    assert_int_equal(rmdir(folder), 0);
}

/* Each letter's, never changed: threads read them. */
static char texts[26][LARGE_BYTES];

static int texts_fill(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(texts); i++) {
        memset(texts[i], (int)('a' + i), LARGE_BYTES);
    }
    return 0;
}

static struct sw_slice text_of(uint64_t n)
{
    return sw_slice_of(texts[n % 26], n % 20 == 0 ? LARGE_BYTES : 30 + n % 200);
}

static struct sw_write nth(uint64_t n)
{
    struct sw_write p = put_of(n, text_of(n));

    p.subject = n % 3 == 0 ? SW_S("somebody") : SW_S("");
    p.due_unix_ms = n % 4 == 0 ? (int64_t)n + 1 : 0;
    p.expires_unix_s = n % 5 == 0 ? 0 : time(NULL) + 100000;
    return p;
}

/* ---- figures --------------------------------------------------------------------------------- */

static void figures_are_those_of_the_store(void **state)
{
    struct sw_store_checked c;
    struct sw_store_stats st;
    struct sw_write p;
    struct world w;

    (void)state;
    world_init(&w, &maker_journal, &quick);
    assert_check(w.folder, &c);
    assert_int_equal(c.records, 0);
    assert_int_equal(c.format, 1);
    for (uint64_t n = 0; n < 60; n++) {
        assert_int_equal(write_one(&w, nth(n), NOW, NULL), SW_OK);
    }
    for (uint64_t n = 0; n < 60; n += 2) { /* once more: the older ones are over */
        p = nth(n);
        p.expect = SW_EXPECT_ANY;
        assert_int_equal(write_one(&w, p, NOW, NULL), SW_OK);
    }
    for (uint64_t n = 51; n < 60; n++) {
        assert_int_equal(write_one(&w, delete_of(n, time(NULL) + 5000), NOW, NULL), SW_OK);
    }
    p = put_of(100, text_of(7));
    p.record = SW_RECORD_CLAIM;
    assert_int_equal(write_one(&w, p, NOW, NULL), SW_OK);
    p = put_of(101, SW_S("01234567890123456789012345678901"));
    p.record = SW_RECORD_ALIAS;
    assert_int_equal(write_one(&w, p, NOW, NULL), SW_OK);
    p = put_of(102, text_of(1)); /* over by now */
    p.expires_unix_s = NOW + 1000;
    assert_int_equal(write_one(&w, p, NOW, NULL), SW_OK);
    assert_int_equal(write_one(&w, cutoff_of(SW_S("nobody"), 5, 0), NOW, NULL), SW_OK);
    assert_int_equal(write_one(&w, cutoff_of(SW_S("nobody"), 6, 0), NOW, NULL), SW_OK);
    assert_int_equal(write_one(&w, cutoff_of(SW_S("another"), 6, NOW + 9), NOW, NULL), SW_OK);
    for (int open = 1; open >= 0; open--) {
        assert_check(w.folder, &c);
        assert_int_equal(c.states, 51);
        assert_int_equal(c.tombstones, 9);
        assert_int_equal(c.claims, 1);
        assert_int_equal(c.aliases, 1);
        assert_int_equal(c.records, 62);
        assert_int_equal(c.cutoffs, 1);
        assert_int_equal(c.subjects, 17);
        assert_int_equal(c.due, 13);
        assert_int_equal(c.bad_records, 0);
        assert_int_equal(c.oldest_unix_s, NOW);
        assert_int_equal(c.newest_unix_s, NOW);
        assert_true(c.segments > 1);
        assert_true(c.used_bytes > 3 * LARGE_BYTES && c.used_bytes < c.file_bytes);
        assert_int_equal(c.used_bytes + c.free_bytes, c.file_bytes);
        if (open == 1) {
            closed(&w);
        }
    }
    /* what it says of memory is what an open store counts */
    w.opt.expire = true;
    opened(&w);
    sw_store_stats(w.store, &st);
    assert_int_equal(st.records, c.records);
    assert_in_range(c.memory_bytes, st.bytes_used - 200, st.bytes_used); /* less a cut-off's end */
    world_fini(&w);
}

/* ---- one moment of a store that works -------------------------------------------------------- */

struct writer {
    struct world w;
    pthread_t thread;
    _Atomic uint64_t begun, acked;
    _Atomic bool stop;
};

/* Two keys in each commit, always of the same content; and one with a number of its own. Values
 * large enough that segments come and go. */
static void *write_on(void *arg)
{
    struct writer *wr = arg;
    struct timespec pause = {0, 300000};

    for (uint64_t n = 1; !wr->stop; n++) {
        struct sw_store_commit op = {.now_unix_s = NOW, .count = 3};

        op.writes[0] = put_of(1, text_of(n));
        op.writes[1] = put_of(2, text_of(n));
        op.writes[0].expect = op.writes[1].expect = SW_EXPECT_ANY;
        op.writes[2] = put_of(1000 + n, text_of(1));
        wr->begun = n;
        if (commit(&wr->w, &op) != SW_OK) {
            return (void *)"a commit failed";
        }
        wr->acked = n;
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void prefix_assert(const char *folder, uint64_t acked, uint64_t begun)
{
    struct world copy = {.maker = &maker_journal, .loop = loop_new(), .opt = quick};
    struct sw_record a, b;
    uint64_t n = 1;

    (void)snprintf(copy.folder, sizeof(copy.folder), "%.63s", folder);
    copy.block = malloc(1u << 20);
    opened(&copy);
    while (load(&copy, 1000 + n, NOW, &a) == SW_OK) {
        n++;
    }
    n--; /* the last one */
    assert_in_range(n, acked, begun);
    for (uint64_t later = n + 1; later <= begun; later++) {
        assert_int_equal(load(&copy, 1000 + later, NOW, &a), SW_E_NOT_FOUND);
    }
    if (n > 0) {
        char *of_a;

        assert_int_equal(load(&copy, 1, NOW, &a), SW_OK);
        assert_true(sw_slice_eq(a.value, text_of(n)));
        assert_int_equal(a.version.counter, n);
        of_a = malloc(a.value.len);
        memcpy(of_a, a.value.ptr, a.value.len);
        assert_int_equal(load(&copy, 2, NOW, &b), SW_OK);
        assert_true(sw_slice_eq(b.value, sw_slice_of(of_a, b.value.len)));
        free(of_a);
    }
    sw_store_close(copy.store);
    sw_loop_free(copy.loop);
    free(copy.block);
}

/* Whatever was acknowledged before a backup began is in it; it is a prefix of all that was written,
 * whole commits only. Segments are begun and removed meanwhile. */
static void a_backup_is_a_moment(void **state)
{
    static struct writer wr;
    struct sw_store_checked c;
    struct sw_store_stats st;
    void *failed;

    (void)state;
    memset(&wr, 0, sizeof(wr));
    world_init(&wr.w, &maker_journal, &quick);
    assert_int_equal(pthread_create(&wr.thread, NULL, write_on, &wr), 0);
    for (int i = 0; i < 10; i++) {
        const char *to = beside(&wr.w, ".copy"), *why = "";
        uint64_t acked = wr.acked;
        enum sw_err err =
            sw_store_journal_backup(sw_slice_cstr(wr.w.folder), sw_slice_cstr(to), &why);
        uint64_t begun = wr.begun;

        if (err != SW_OK) {
            fail_msg("%s", why);
        }
        assert_check(to, &c);
        assert_true(c.records >= 2 + acked || acked == 0);
        prefix_assert(to, acked, begun);
        folder_remove(to);
        assert_check(wr.w.folder, &c); /* beside the writer */
    }
    wr.stop = true;
    pthread_join(wr.thread, &failed);
    if (failed != NULL) {
        fail_msg("%s", (const char *)failed);
    }
    sw_store_stats(wr.w.store, &st);
    assert_true(st.commits == wr.acked && st.failures == 0);
    world_fini(&wr.w);
}

static void backup_refusals(void **state)
{
    struct sw_slice folder, to;
    const char *why = "";
    struct stat st;
    struct world w;
    char copy[128];

    (void)state;
    world_init(&w, &maker_journal, &quick);
    (void)snprintf(copy, sizeof(copy), "%s", beside(&w, ".copy"));
    folder = sw_slice_cstr(w.folder);
    to = sw_slice_cstr(copy);
    assert_int_equal(write_one(&w, nth(1), NOW, NULL), SW_OK);
    assert_int_equal(sw_store_journal_backup(folder, to, &why), SW_OK);
    assert_int_equal(stat(copy, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(sw_store_journal_backup(folder, to, &why), SW_E_STORE_IO);
    assert_non_null(strstr(why, "is there already"));
    folder_remove(copy);
    assert_int_equal(sw_store_journal_backup(folder, SW_S(""), &why), SW_E_LIMIT);
    assert_int_equal(sw_store_journal_backup(folder, SW_S("/tmp/no/such/copy"), &why),
                     SW_E_STORE_IO);
    assert_non_null(strstr(why, "make the folder above it first"));
    assert_int_equal(sw_store_journal_backup(SW_S("/tmp/no/such"), to, &why), SW_E_NOT_FOUND);
    world_fini(&w);
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* A backup speaks for its last frame too: every cut, and every bit, is found. */
static void all_damage_of_a_copy_is_found(void **state)
{
    struct sw_store_checked c;
    const char *why = "", *name = "0000000000000001.journal";
    struct bytes whole, bad;
    struct sw_rng rng;
    struct said said;
    struct world w;
    char copy[128];

    (void)state;
    sw_rng_seed(&rng, 5);
    world_init(&w, &maker_journal, &quick);
    for (uint64_t n = 1; n < 19; n++) {
        assert_int_equal(write_one(&w, nth(n), NOW, NULL), SW_OK);
    }
    (void)snprintf(copy, sizeof(copy), "%s", beside(&w, ".copy"));
    assert_int_equal(sw_store_journal_backup(sw_slice_cstr(w.folder), sw_slice_cstr(copy), &why),
                     SW_OK);
    whole = file_get(copy, name);
    bad.at = malloc(whole.len);
    for (size_t i = 0; i < 400; i++) {
        size_t at = i < 50 ? i : 4096 + sw_rng_below(&rng, whole.len - 4096);

        memcpy(bad.at, whole.at, whole.len);
        bad.len = whole.len;
        bad.at[at] ^= (unsigned char)(1u << sw_rng_below(&rng, 8));
        file_put(copy, name, bad);
        if (check(copy, &c, &said, &why) == SW_OK) {
            fail_msg("a bit of byte %zu of %zu was turned", at, whole.len);
        }
        assert_non_null(strstr(why, copy));
        bad.len = i < 100 ? whole.len - 1 - i : sw_rng_below(&rng, whole.len);
        file_put(copy, name, (struct bytes){whole.at, bad.len});
        if (check(copy, &c, &said, &why) == SW_OK) {
            fail_msg("cut to %zu of %zu", bad.len, whole.len);
        }
        assert_int_equal(sw_store_journal_backup(sw_slice_cstr(copy), SW_S("/tmp/never"), &why),
                         SW_E_STORE_CORRUPT);
    }
    file_put(copy, name, whole);
    assert_check(copy, &c);
    free(bad.at);
    free(whole.at);
    folder_remove(copy);
    world_fini(&w);
}

/* Of a damaged log is told what is damaged, and counted what can still be read. */
static void what_is_damaged_is_told(void **state)
{
    struct sw_store_checked c;
    const char *why;
    struct bytes first, second;
    struct said said;
    struct world w;

    (void)state;
    world_init(&w, &maker_journal, &quick);
    for (uint64_t n = 0; n < 260; n++) {
        assert_int_equal(write_one(&w, nth(n), NOW, NULL), SW_OK);
    }
    closed(&w);
    assert_check(w.folder, &c);
    assert_int_equal(c.records, 260);
    first = file_get(w.folder, "0000000000000001.journal");
    first.at[5000] ^= 1; /* in the first record: it is a long one */
    file_put(w.folder, "0000000000000001.journal", first);
    assert_int_equal(check(w.folder, &c, &said, &why), SW_E_STORE_CORRUPT);
    assert_int_equal(c.bad_records, 1);
    assert_int_equal(c.records, 259);
    assert_int_equal(said.count, 1);
    assert_non_null(strstr(said.last, "0000000000000001.journal: frames 1 to 1 are damaged"));
    assert_non_null(strstr(why, "restore the folder from a backup"));
    first.at[5000] ^= 1;
    /* its frames cannot be read at all */
    first.at[20] ^= 1;
    file_put(w.folder, "0000000000000001.journal", first);
    assert_int_equal(check(w.folder, &c, &said, &why), SW_E_STORE_CORRUPT);
    assert_non_null(strstr(said.last, "its head is damaged"));
    assert_true(c.records > 0 && c.records < 260);
    first.at[20] ^= 1;
    file_put(w.folder, "0000000000000001.journal", first);
    /* one is missing */
    second = file_get(w.folder, "0000000000000002.journal");
    assert_int_equal(unlink(world_file(&w, "0000000000000002.journal")), 0);
    assert_int_equal(check(w.folder, &c, &said, &why), SW_E_STORE_CORRUPT);
    assert_string_equal(said.last, "0000000000000002.journal: this segment is missing");
    file_put(w.folder, "0000000000000002.journal", second);
    assert_check(w.folder, &c);
    assert_int_equal(c.records, 260);
    free(first.at);
    free(second.at);
    opened(&w);
    world_fini(&w);
}

/* ---- compact --------------------------------------------------------------------------------- */

static void assert_all(struct world *w, uint64_t count)
{
    for (uint64_t n = 0; n < count; n++) {
        assert_value(w, n, NOW, text_of(n));
    }
}

static void compact_keeps_what_is_live(void **state)
{
    uint64_t before = 0, after = 0, again = 0;
    struct sw_store_checked c;
    const char *why = "";
    struct sw_write p;
    struct world w;

    (void)state;
    world_init(&w, &maker_journal, &quick);
    for (uint64_t n = 0; n < 100; n++) {
        for (int twice = 0; twice < 2; twice++) {
            p = nth(n);
            p.expect = SW_EXPECT_ANY;
            assert_int_equal(write_one(&w, p, NOW, NULL), SW_OK);
        }
    }
    for (uint64_t n = 100; n < 140; n++) { /* over by now */
        p = nth(n);
        p.expires_unix_s = NOW + 1000;
        assert_int_equal(write_one(&w, p, NOW, NULL), SW_OK);
    }
    p = put_of(500, SW_S("over")); /* nothing of it may come back */
    assert_int_equal(write_one(&w, p, NOW, NULL), SW_OK);
    assert_int_equal(write_one(&w, delete_of(500, time(NULL) + 5000), NOW, NULL), SW_OK);
    assert_int_equal(write_one(&w, cutoff_of(SW_S("nobody"), 5, 0), NOW, NULL), SW_OK);
    assert_int_equal(sw_store_journal_compact(sw_slice_cstr(w.folder), &before, &after, &why),
                     SW_E_STORE_LOCKED);
    closed(&w);
    if (sw_store_journal_compact(sw_slice_cstr(w.folder), &before, &after, &why) != SW_OK) {
        fail_msg("%s", why);
    }
    assert_true(after < before);
    assert_check(w.folder, &c);
    assert_int_equal(c.records, 101);
    assert_int_equal(c.states, 100);
    assert_int_equal(c.cutoffs, 1);
    /* nothing but heads, what is live, and the ends of segments */
    assert_true(c.file_bytes < c.used_bytes + c.segments * (LARGE_BYTES + 16384));
    assert_int_equal(access(world_file(&w, "spare"), F_OK), -1);
    assert_int_equal(sw_store_journal_compact(sw_slice_cstr(w.folder), &before, &again, &why),
                     SW_OK);
    assert_int_equal(before, after);
    opened(&w);
    assert_all(&w, 100);
    assert_int_equal(load(&w, 500, NOW, &(struct sw_record){0}), SW_OK); /* its tombstone */
    assert_int_equal(write_one(&w, put_of(500, SW_S("again")), NOW, NULL), SW_E_STATE_GONE);
    assert_int_equal(sw_store_cutoff_unix_ms(w.store, SW_S("nobody")), 5);
    world_fini(&w);
}

/* The disk takes no more: it says so, and nothing is lost. */
static void compact_without_room(void **state)
{
    uint64_t before = 0, after = 0;
    struct rlimit old, tight;
    const char *why = "";
    enum sw_err err;
    struct world w;

    (void)state;
    world_init(&w, &maker_journal, &quick);
    for (uint64_t n = 0; n < 100; n++) {
        assert_int_equal(write_one(&w, nth(n), NOW, NULL), SW_OK);
    }
    closed(&w);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    for (rlim_t limit = 100000; limit < 3000000; limit += 1200000) {
        tight = old;
        tight.rlim_cur = limit;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
        err = sw_store_journal_compact(sw_slice_cstr(w.folder), &before, &after, &why);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        if (err != SW_OK) { /* with a large enough limit it succeeds */
            assert_int_equal(err, SW_E_STORE_FULL);
            assert_non_null(strstr(why, "File too large"));
        }
        opened(&w);
        assert_all(&w, 100);
        closed(&w);
    }
    opened(&w);
    world_fini(&w);
}

/* Killed at any moment of it: all is there. */
static void compact_may_be_killed(void **state)
{
    struct sw_store_checked c;
    struct sw_rng rng;
    struct world w;
    int killed = 0;

    (void)state;
    sw_rng_seed(&rng, (uint64_t)time(NULL));
    world_init(&w, &maker_journal, &quick);
    for (uint64_t n = 0; n < 100; n++) {
        assert_int_equal(write_one(&w, nth(n), NOW, NULL), SW_OK);
    }
    closed(&w);
    for (int i = 0; i < 25; i++) {
        struct timespec pause = {0, (long)sw_rng_below(&rng, 20 * 1000000)};
        uint64_t before, after;
        const char *why;
        int status;
        pid_t pid = fork();

        if (pid == 0) {
            _exit(sw_store_journal_compact(sw_slice_cstr(w.folder), &before, &after, &why) !=
                  SW_OK);
        }
        assert_true(pid > 0);
        nanosleep(&pause, NULL);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        killed += WIFSIGNALED(status);
        assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
        assert_check(w.folder, &c);
        assert_int_equal(c.records, 100);
        if (i % 4 == 0) {
            opened(&w);
            assert_all(&w, 100);
            closed(&w);
        }
    }
    assert_true(killed > 0);
    opened(&w);
    assert_all(&w, 100);
    world_fini(&w);
}

/* ---- folders of the other kind --------------------------------------------------------------- */

static void each_leaves_the_others_folder_alone(void **state)
{
    struct sw_store_checked c;
    struct sw_store *store;
    uint64_t bytes[2];
    const char *why = "";
    struct said said;
    struct world journal, lmdb;
    struct sw_store_options opt = quick;

    (void)state;
    world_init(&journal, &maker_journal, &quick);
    closed(&journal);
    opt.path = sw_slice_cstr(journal.folder);
    assert_int_equal(sw_store_open_lmdb(&opt, &store, &why), SW_E_STORE_FORMAT);
    assert_non_null(strstr(why, "holds a journal store"));
    assert_non_null(strstr(why, "write journal:/tmp"));
    assert_int_equal(sw_store_lmdb_check(opt.path, true, on_complaint, &said, &c, &why),
                     SW_E_STORE_FORMAT);
    assert_int_equal(sw_store_lmdb_compact(opt.path, &bytes[0], &bytes[1], &why),
                     SW_E_STORE_FORMAT);
    assert_int_equal(access(world_file(&journal, "data.mdb"), F_OK), -1);
    opened(&journal);

    world_init(&lmdb, &maker_lmdb, &quick);
    opt.path = sw_slice_cstr(lmdb.folder);
    assert_int_equal(sw_store_open_journal(&opt, &store, &why), SW_E_STORE_FORMAT);
    assert_non_null(strstr(why, "write lmdb:/tmp"));
    assert_int_equal(check(lmdb.folder, &c, &said, &why), SW_E_STORE_FORMAT);
    assert_int_equal(sw_store_journal_compact(opt.path, &bytes[0], &bytes[1], &why),
                     SW_E_STORE_FORMAT);
    world_fini(&journal);
    world_fini(&lmdb);
}

static void nothing_there(void **state)
{
    char folder[] = "/tmp/sw-store-XXXXXX";
    struct sw_store_checked c;
    uint64_t bytes[2];
    const char *why = "";
    struct said said;

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(check(folder, &c, &said, &why), SW_E_NOT_FOUND);
    assert_non_null(strstr(why, "there is no journal in it"));
    assert_int_equal(sw_store_journal_compact(sw_slice_cstr(folder), &bytes[0], &bytes[1], &why),
                     SW_E_NOT_FOUND);
    assert_int_equal(rmdir(folder), 0); /* nothing was made */
    assert_int_equal(check(folder, &c, &said, &why), SW_E_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_those_of_the_store),
        cmocka_unit_test(a_backup_is_a_moment),
        cmocka_unit_test(backup_refusals),
        cmocka_unit_test(all_damage_of_a_copy_is_found),
        cmocka_unit_test(what_is_damaged_is_told),
        cmocka_unit_test(compact_keeps_what_is_live),
        cmocka_unit_test(compact_without_room),
        cmocka_unit_test(compact_may_be_killed),
        cmocka_unit_test(each_leaves_the_others_folder_alone),
        cmocka_unit_test(nothing_there),
    };

    return cmocka_run_group_tests(tests, texts_fill, NULL);
}
