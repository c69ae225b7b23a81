/* A failing disk under the journal: each call of the committer and the keeper fails once, in turn,
 * with each error. Nothing that was acknowledged is lost, what was refused does not come back,
 * readers go on, and the store recovers by itself.
 *
 * The system calls are caught by defining them here: the linker binds the store to these.
 */
#include "test_journal.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "base/rng.h"

static struct {
    pthread_t main_thread; /* is never hit */
    _Atomic int after;     /* so many calls succeed, the next one fails; -1: none fails */
    _Atomic int times;     /* so many fail then */
    _Atomic int error;     /* 0: a short write */
    _Atomic int hits;
    _Atomic bool disk_full; /* nothing can be allocated */
} fault = {.after = -1};

/* By their linker's names: with 64-bit offsets asked for, the headers add a 64. */
ssize_t caught_pwritev(int fd, const struct iovec *iov, int count, off_t at) __asm__("pwritev64");
int caught_fallocate(int fd, int mode, off_t at, off_t len) __asm__("fallocate64");
int fdatasync(int fd);
int fsync(int fd);
int renameat(int from_fd, const char *from, int to_fd, const char *to);

/* Does this call fail? */
static bool hit(void)
{
    int after = fault.after;

    if (after < 0 || pthread_equal(pthread_self(), fault.main_thread)) {
        return false;
    }
    if (after > 0) {
        fault.after = after - 1;
        return false;
    }
    if (fault.times == 0) {
        fault.after = -1;
        return false;
    }
    fault.times--;
    fault.hits++;
    return true;
}

ssize_t caught_pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
    if (hit()) {
        if (fault.error == 0) { /* half of the first one */
            struct iovec half = {iov->iov_base, (iov->iov_len + 1) / 2};

            return (ssize_t)syscall(SYS_pwritev, fd, &half, 1, at, 0);
        }
        errno = fault.error;
        return -1;
    }
    return (ssize_t)syscall(SYS_pwritev, fd, iov, count, at, 0);
}

int caught_fallocate(int fd, int mode, off_t at, off_t len)
{
    if (fault.disk_full || (fault.error != 0 && hit())) {
        errno = fault.disk_full ? ENOSPC : fault.error;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, at, len);
}

int fdatasync(int fd)
{
    if (fault.error != 0 && hit()) {
        errno = fault.error;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    if (fault.error != 0 && hit()) {
        errno = fault.error;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    if (fault.error != 0 && hit()) {
        errno = fault.error;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0);
}

static void fault_set(int after, int times, int error)
{
    fault.after = -1;
    fault.error = error;
    fault.times = times;
    fault.hits = 0;
    fault.after = after;
}

/* ---- what is written ------------------------------------------------------------------------- */

enum { TEXT_MAX = 200000 };

static struct sw_slice text_of(uint64_t number, size_t len)
{
    static char text[TEXT_MAX];

    assert_true(len <= sizeof(text));
    memset(text, (int)('a' + number % 26), len);
    return sw_slice_of(text, len);
}

static size_t len_of(uint64_t number)
{
    return 500 + number % 2500;
}

static enum sw_err put(struct world *w, uint64_t key, uint64_t number)
{
    struct sw_write p = put_of(key, text_of(number, len_of(number)));

    p.subject = number % 2 == 0 ? SW_S("even") : SW_S("odd");
    p.due_unix_ms = (int64_t)number;
    return write_one(w, p, NOW, NULL);
}

static void has(struct world *w, uint64_t key, uint64_t number)
{
    assert_value(w, key, NOW, text_of(number, len_of(number)));
}

/* What a crash at this moment would leave holds these. */
static void survives(const struct world *w, const uint64_t *keys, const uint64_t *numbers,
                     size_t count)
{
    struct world copy = {
        .maker = &maker_journal, .opt = w->opt, .block = w->block, .loop = w->loop};
    const char *why = "";

    strncpy(copy.folder, "/tmp/sw-journal-XXXXXX", sizeof(copy.folder) - 1);
    assert_non_null(mkdtemp(copy.folder));
    folder_copy(w->folder, copy.folder);
    if (maker_journal.open(&copy, &why) != SW_OK) {
        fail_msg("%s", why);
    }
    for (size_t i = 0; i < count; i++) {
        has(&copy, keys[i], numbers[i]);
    }
    sw_store_close(copy.store);
    folder_empty(copy.folder);
    assert_int_equal(rmdir(copy.folder), 0);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void one_fault(struct world *w, int after, int times, int error, int *ret_hits)
{
    static uint64_t number = 1;
    uint64_t old = ++number, next = ++number;
    struct visited seen;
    enum sw_err err;

    assert_int_equal(put(w, 1, old), SW_OK);
    assert_int_equal(put(w, 2, old), SW_OK);
    fault_set(after, times, error);
    err = put(w, 1, next);
    *ret_hits = fault.hits;
    has(w, 2, old); /* readers go on */
    fault_set(-1, 0, 0);
    if (err == SW_OK) {
        has(w, 1, next);
    } else {
        assert_true(err == SW_E_STORE_IO || err == SW_E_STORE_FULL);
        if (error == ENOSPC || error == EDQUOT) {
            assert_int_equal(err, SW_E_STORE_FULL);
        }
        has(w, 1, old);
    }
    /* it goes on by itself, and what failed does not come back */
    assert_int_equal(put(w, 3, ++number), SW_OK);
    survives(w, (uint64_t[]){1, 2, 3}, (uint64_t[]){err == SW_OK ? next : old, old, number}, 3);
    has(w, 1, err == SW_OK ? next : old);
    assert_int_equal(put(w, 1, ++number), SW_OK);
    world_reopen(w);
    has(w, 1, number);
    has(w, 2, old);
    visit_due(w, INT64_MAX, SIZE_MAX, &seen); /* 90 others */
    assert_int_equal(seen.count, 93);
}

static void each_call_fails(void **state)
{
    static const int errors[] = {EIO, ENOSPC, EDQUOT, 0};
    static const enum sw_sync syncs[] = {SW_SYNC_ALWAYS, SW_SYNC_NO};

    (void)state;
    for (size_t m = 0; m < SW_COUNTOF(syncs); m++) {
        struct world w;

        world_init(&w, &maker_journal, &(struct sw_store_options){.sync = syncs[m]});
        for (uint64_t i = 10; i < 100; i++) {
            assert_int_equal(put(&w, i, i), SW_OK);
        }
        for (size_t e = 0; e < SW_COUNTOF(errors); e++) {
            size_t failed = 0;
            int hits = 1;

            for (int after = 0; hits > 0; after++) {
                one_fault(&w, after, 1, errors[e], &hits);
                failed += hits > 0;
                assert_true(after < 50);
            }
            assert_true(failed >= 1);
        }
        for (uint64_t i = 10; i < 100; i++) {
            has(&w, i, i);
        }
        world_fini(&w);
    }
}

/* The same while the next segment is begun: its file, header, name and folder. */
static void a_turn_fails(void **state)
{
    static const int errors[] = {EIO, ENOSPC};

    (void)state;
    for (size_t e = 0; e < SW_COUNTOF(errors); e++) {
        for (int after = 0; after < 14; after++) {
            uint64_t acked[40] = {0}, keys[40];
            struct world w;
            size_t failed = 0;

            world_init(&w, &maker_journal, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
            fault_set(after, 1, errors[e]);
            for (uint64_t i = 0; i < 40; i++) { /* 1 MiB holds five of them */
                struct sw_write p = put_of(i % 8, text_of(i, TEXT_MAX));
                enum sw_err err;

                if (i == 4) {
                    fault_set(after, 1, errors[e]);
                }
                err = write_one(&w, p, NOW, NULL);
                failed += err != SW_OK;
                if (err == SW_OK) {
                    acked[i % 8] = i;
                }
            }
            fault_set(-1, 0, 0);
            assert_true(failed <= 2); /* before the fifth, and behind it */
            for (int turn = 0; turn < 2; turn++) {
                for (uint64_t i = 0; i < 8; i++) {
                    keys[i] = i;
                    assert_value(&w, keys[i], NOW, text_of(acked[i], TEXT_MAX));
                }
                world_reopen(&w);
            }
            world_fini(&w);
        }
    }
}

/* A segment that got its name, but not for certain, is not forgotten: what follows in the old one
 * would be void. Large puts make a new one necessary, small ones would still fit into the old. */
static void a_named_segment_counts(void **state)
{
    (void)state;
    for (int after = 0; after < 8; after++) {
        uint64_t keys[12], numbers[12];
        struct world w;

        world_init(&w, &maker_journal, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
        for (uint64_t i = 0; i < 12; i++) {
            enum sw_err err;

            if (i == 5) { /* 1 MiB is nearly full */
                fault_set(after, 1, EIO);
            }
            err = write_one(&w, put_of(100 + i, text_of(i, TEXT_MAX)), NOW, NULL);
            assert_true(err == SW_OK || (i >= 5 && err == SW_E_STORE_IO));
            while (put(&w, i, i) != SW_OK) {
            }
            keys[i] = i;
            numbers[i] = i;
        }
        fault_set(-1, 0, 0);
        survives(&w, keys, numbers, 12);
        world_fini(&w);
    }
}

/* Faults all the time, while the log is compacted. */
static void campaign(void **state)
{
    static const int errors[] = {EIO, ENOSPC, 0, EDQUOT};
    static const enum sw_sync syncs[] = {SW_SYNC_ALWAYS, SW_SYNC_EVERYSEC, SW_SYNC_NO};
    enum { KEYS = 40 };
    uint64_t seed = (uint64_t)time(NULL);
    struct sw_rng rng;

    (void)state;
    print_message("seed %lu\n", (unsigned long)seed);
    sw_rng_seed(&rng, seed);
    for (size_t m = 0; m < SW_COUNTOF(syncs); m++) {
        uint64_t has_number[KEYS] = {0}, failed = 0;
        struct sw_record r;
        struct world w;

        world_init(&w, &maker_journal, &(struct sw_store_options){.sync = syncs[m]});
        for (uint64_t i = 1; i < 1200; i++) {
            uint64_t key = sw_rng_below(&rng, KEYS);
            struct sw_store_commit op = {.count = 2, .now_unix_s = NOW};

            if (sw_rng_below(&rng, 12) == 0) {
                fault_set((int)sw_rng_below(&rng, 8), 1 + (int)sw_rng_below(&rng, 3),
                          errors[sw_rng_below(&rng, SW_COUNTOF(errors))]);
            }
            op.writes[0] = put_of(key, text_of(i, 100 + sw_rng_below(&rng, TEXT_MAX - 100)));
            op.writes[1] = put_of(KEYS + key, sw_slice_head(op.writes[0].value, 50));
            op.writes[1].subject = SW_S("alice");
            if (commit(&w, &op) == SW_OK) {
                has_number[key] = i;
            } else {
                assert_true(op.err == SW_E_STORE_IO || op.err == SW_E_STORE_FULL);
                failed++;
            }
            if (i % 100 == 0) {
                fault_set(-1, 0, 0);
                /* what was refused may be found as long as the disk fails; a put ends that */
                while (write_one(&w, put_of(1000, SW_S("v")), NOW, NULL) != SW_OK) {
                }
                if (i % 400 == 0) {
                    world_reopen(&w);
                }
                for (uint64_t k = 0; k < KEYS; k++) {
                    for (uint64_t part = 0; part < 2; part++) {
                        enum sw_err err = load(&w, part * KEYS + k, NOW, &r);

                        assert_int_equal(err, has_number[k] == 0 ? SW_E_NOT_FOUND : SW_OK);
                        assert_true(err != SW_OK ||
                                    r.value.ptr[0] == (char)('a' + has_number[k] % 26));
                    }
                }
            }
        }
        fault_set(-1, 0, 0);
        print_message("%lu failed\n", (unsigned long)failed);
        assert_true(failed > 10);
        assert_true(access(world_file(&w, "0000000000000001.journal"), F_OK) != 0);
        world_fini(&w);
    }
}

/* For a while nothing works. */
static void long_outage(void **state)
{
    static const int errors[] = {EIO, ENOSPC};
    struct world w;

    (void)state;
    world_init(&w, &maker_journal, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
    assert_int_equal(put(&w, 1, 7), SW_OK);
    for (size_t e = 0; e < SW_COUNTOF(errors); e++) {
        for (int after = 0; after < 4; after++) {
            fault_set(after, 1000000, errors[e]);
            for (int i = 0; i < 20; i++) {
                enum sw_err err = put(&w, 2, 8);

                assert_true(i < 4 || err == SW_E_STORE_IO || err == SW_E_STORE_FULL);
                has(&w, 1, 7);
            }
            fault_set(-1, 0, 0);
            assert_int_equal(put(&w, 2, 9), SW_OK);
            has(&w, 2, 9);
            survives(&w, (uint64_t[]){1, 2}, (uint64_t[]){7, 9}, 2);
        }
    }
    world_reopen(&w);
    has(&w, 1, 7);
    has(&w, 2, 9);
    world_fini(&w);
}

static uint64_t syncs_of(struct world *w)
{
    struct sw_store_stats st;

    sw_store_stats(w->store, &st);
    return st.syncs;
}

/* everysec: what was acknowledged before a sync that fails is written again, into a new segment:
 * the old one could be lost from there on. */
static void everysec_sync_fails(void **state)
{
    uint64_t keys[50], numbers[50];
    bool none_synced = false;
    struct world w;
    struct bytes b;

    (void)state;
    world_init(&w, &maker_journal, &(struct sw_store_options){.sync = SW_SYNC_EVERYSEC});
    for (int turn = 0; turn < 3; turn++) {
        uint64_t syncs = syncs_of(&w);

        for (uint64_t i = 0; i < 50; i++) {
            keys[i] = i;
            numbers[i] = i + (uint64_t)turn;
            assert_int_equal(put(&w, keys[i], numbers[i]), SW_OK);
        }
        fault_set(0, 1, EIO);
        for (int i = 0; i < 400 && fault.hits == 0 && syncs_of(&w) == syncs; i++) {
            struct timespec ts = {0, 10000000};

            nanosleep(&ts, NULL);
        }
        assert_int_equal(fault.hits, 1);
        fault_set(-1, 0, 0);
        none_synced |= turn == 0 && syncs == 0 && syncs_of(&w) == 0;
        assert_int_equal(put(&w, 60, 60), SW_OK); /* the new segment is there */
    }
    assert_true(none_synced); /* the first sync of all failed */
    /* the kernel dropped what it could not write: the first segment is empty */
    b = file_get(w.folder, "0000000000000001.journal");
    memset(b.at + 4096, 0, b.len - 4096);
    survives(&w, keys, numbers, 50);
    file_put(w.folder, "0000000000000001.journal", b);
    free(b.at);
    world_fini(&w);
}

/* The disk is full: puts are refused while there is still room for deletes. */
static void disk_full(void **state)
{
    struct world w;
    uint64_t made = 0;
    struct sw_record r;
    enum sw_err err = SW_OK;

    (void)state;
    world_init(&w, &maker_journal, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
    fault.disk_full = true;
    while (err == SW_OK) {
        err = write_one(&w, put_of(made, text_of(made, 100000)), NOW, NULL);
        made += err == SW_OK;
        assert_true(made < 1000);
    }
    assert_int_equal(err, SW_E_STORE_FULL);
    assert_true(made >= 8);
    for (uint64_t i = 0; i < made; i++) {
        assert_value(&w, i, NOW, text_of(i, 100000));
    }
    for (uint64_t i = 0; i < made; i++) {
        struct sw_write touch = {
            .kind = SW_WRITE_TOUCH, .key = key_of(i), .expires_unix_s = NOW + 10};

        assert_int_equal(write_one(&w, touch, NOW, NULL), SW_OK);
        assert_int_equal(write_one(&w, delete_of(i, 0), NOW, NULL), SW_OK);
    }
    fault.disk_full = false;
    assert_int_equal(write_one(&w, put_of(2000, text_of(1, 100000)), NOW, NULL), SW_OK);
    world_reopen(&w);
    for (uint64_t i = 0; i < made; i++) {
        assert_int_equal(load(&w, i, NOW, &r), SW_OK);
        assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    }
    assert_value(&w, 2000, NOW, text_of(1, 100000));
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_call_fails), cmocka_unit_test(a_turn_fails),
        cmocka_unit_test(long_outage),     cmocka_unit_test(everysec_sync_fails),
        cmocka_unit_test(disk_full),       cmocka_unit_test(a_named_segment_counts),
        cmocka_unit_test(campaign),
    };

    fault.main_thread = pthread_self();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
