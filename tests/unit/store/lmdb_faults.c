/* A failing disk: each write and sync of a commit fails once, in turn, with each error. Nothing
 * that was acknowledged is lost, readers go on, and the committer recovers by itself.
 *
 * LMDB's system calls are caught by defining them here: the dynamic linker binds liblmdb to these.
 */
#include "contract.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct {
    pthread_t main_thread; /* is never hit */
    _Atomic int after;     /* so many calls succeed, the next one fails; -1: none fails */
    _Atomic int times;     /* so many fail then */
    _Atomic int error;     /* 0: a short write */
    _Atomic int hits;
} fault = {.after = -1};

/* By its linker's name: with 64-bit offsets asked for, the headers call it pwrite64. */
ssize_t caught_pwrite(int fd, const void *buf, size_t n, off_t at) __asm__("pwrite");
ssize_t writev(int fd, const struct iovec *iov, int count);
int fdatasync(int fd);
int fsync(int fd);

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

ssize_t caught_pwrite(int fd, const void *buf, size_t n, off_t at)
{
    if (hit()) {
        if (fault.error == 0) {
            return (ssize_t)syscall(SYS_pwrite64, fd, buf, n / 2, at);
        }
        errno = fault.error;
        return -1;
    }
    return (ssize_t)syscall(SYS_pwrite64, fd, buf, n, at);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
    if (hit()) {
        if (fault.error == 0) {
            return (ssize_t)syscall(SYS_writev, fd, iov, 1);
        }
        errno = fault.error;
        return -1;
    }
    return (ssize_t)syscall(SYS_writev, fd, iov, count);
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

static void fault_set(int after, int times, int error)
{
    fault.after = -1;
    fault.error = error;
    fault.times = times;
    fault.hits = 0;
    fault.after = after;
}

static enum sw_err put(struct world *w, uint64_t key, uint64_t number)
{
    char text[3000];
    struct sw_write p;

    memset(text, (int)('a' + number % 26), sizeof(text));
    p = put_of(key, sw_slice_of(text, 500 + number % 2500));
    p.expires_unix_s = NOW + (int64_t)number;
    p.subject = number % 3 == 0 ? SW_S("alice") : number % 3 == 1 ? SW_S("bob") : SW_S("");
    p.due_unix_ms = (int64_t)number; /* every put moves entries in each index */
    return write_one(w, p, NOW, NULL);
}

static void has(struct world *w, uint64_t key, uint64_t number)
{
    char text[3000];

    struct sw_record r;

    memset(text, (int)('a' + number % 26), sizeof(text));
    assert_value(w, key, 0, sw_slice_of(text, 500 + number % 2500));
    assert_int_equal(load(w, key, 0, &r), SW_OK);
    assert_int_equal(r.due_unix_ms, (int64_t)number);
}

/* The moment of the earliest is right, whether the commit that moved it was made or not. */
static void next_is(struct world *w, uint64_t number)
{
    assert_int_equal(sw_store_next_due_unix_ms(w->store), (int64_t)number);
}

static void one_fault(struct world *w, int after, int times, int error, int *ret_hits)
{
    static uint64_t number = 1;
    struct sw_record r;
    uint64_t old = ++number, next = ++number;
    enum sw_err err;

    assert_int_equal(put(w, 1, old), SW_OK);
    assert_int_equal(put(w, 2, old), SW_OK);
    fault_set(after, times, error);
    err = put(w, 1, next);
    *ret_hits = fault.hits;
    /* readers go on (a panic of LMDB costs them the moment of opening it again) */
    assert_int_equal(load(w, 2, 0, &r), SW_OK);
    has(w, 2, old);
    fault_set(-1, 0, 0);
    if (err == SW_OK) {
        has(w, 1, next);
    } else {
        assert_true(err == SW_E_STORE_IO || err == SW_E_STORE_FULL);
        if (error == ENOSPC || error == EDQUOT) {
            assert_int_equal(err, SW_E_STORE_FULL);
        }
        has(w, 1, old);               /* not acknowledged, and LMDB keeps such a commit out */
        next_is(w, SW_MIN(old, 10u)); /* 10: of the pages to work on */
    }
    /* it goes on by itself */
    assert_int_equal(put(w, 1, ++number), SW_OK);
    has(w, 1, number);
    has(w, 2, old);
    world_reopen(w);
    has(w, 1, number);
    has(w, 2, old);
    assert_whole(w);
}

/* A cut-off that was not acknowledged ends nobody; one that was ends all. */
static void cutoff_fails(void **state)
{
    static const int errors[] = {EIO, ENOSPC, 0};
    struct world w;
    int64_t at = 100;

    (void)state;
    world_init(&w, &maker_lmdb, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
    for (size_t e = 0; e < SW_COUNTOF(errors); e++) {
        int hits = 1;

        for (int after = 0; hits > 0; after++) {
            struct sw_write p = put_of(1, SW_S("v"));
            struct sw_record r;
            enum sw_err err;

            at += 10;
            p.expect = SW_EXPECT_VERSION; /* made anew when it was cut off, else it is there */
            p.subject = SW_S("alice");
            p.bound_unix_ms = at;
            err = write_one(&w, p, NOW, NULL);
            if (err != SW_OK) {
                p.expect = SW_EXPECT_ANY;
                assert_int_equal(write_one(&w, p, NOW, NULL), SW_OK);
            }
            fault_set(after, 1, errors[e]);
            err = write_one(&w, cutoff_of(SW_S("alice"), at + 1, 0), NOW, NULL);
            hits = fault.hits;
            fault_set(-1, 0, 0);
            for (int turn = 0; turn < 2; turn++) {
                assert_int_equal(load(&w, 1, NOW, &r), SW_OK);
                assert_int_equal(r.kind, err == SW_OK ? SW_RECORD_TOMBSTONE : SW_RECORD_STATE);
                assert_int_equal(sw_store_cutoff_unix_ms(w.store, SW_S("alice")) == at + 1,
                                 err == SW_OK);
                world_reopen(&w);
            }
            assert_whole(&w);
            assert_true(after < 50);
        }
    }
    world_fini(&w);
}

static void each_call_fails(void **state)
{
    static const int errors[] = {EIO, ENOSPC, EDQUOT, 0};
    struct world w;

    (void)state;
    world_init(&w, &maker_lmdb, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
    for (uint64_t i = 10; i < 100; i++) { /* some pages to work on */
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
        assert_true(failed >= 2);
    }
    for (uint64_t i = 10; i < 100; i++) {
        has(&w, i, i);
    }
    world_fini(&w);
}

/* For a while nothing works. */
static void long_outage(void **state)
{
    static const int errors[] = {EIO, ENOSPC};
    struct world w;

    (void)state;
    world_init(&w, &maker_lmdb, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
    assert_int_equal(put(&w, 1, 7), SW_OK);
    for (size_t e = 0; e < SW_COUNTOF(errors); e++) {
        for (int after = 0; after < 4; after++) {
            fault_set(after, 1000000, errors[e]);
            for (int i = 0; i < 20; i++) {
                enum sw_err err = put(&w, 2, 8);

                assert_true(i == 0 || err == SW_E_STORE_IO || err == SW_E_STORE_FULL);
                has(&w, 1, 7);
            }
            fault_set(-1, 0, 0);
            assert_int_equal(put(&w, 2, 9), SW_OK);
            has(&w, 2, 9);
        }
    }
    world_reopen(&w);
    has(&w, 1, 7);
    has(&w, 2, 9);
    world_fini(&w);
}

/* everysec: a sync that fails is tried again, and the process goes on. */
static void everysec_sync_fails(void **state)
{
    struct sw_store_stats st = {0};
    struct world w;

    (void)state;
    world_init(&w, &maker_lmdb, &(struct sw_store_options){.sync = SW_SYNC_EVERYSEC});
    assert_int_equal(put(&w, 1, 7), SW_OK);
    fault_set(0, 1, EIO);
    for (int i = 0; i < 400 && st.syncs == 0; i++) {
        struct timespec ts = {0, 10000000};

        nanosleep(&ts, NULL);
        sw_store_stats(w.store, &st);
    }
    assert_int_equal(fault.hits, 1);
    assert_int_equal(st.syncs, 1);
    fault_set(-1, 0, 0);
    assert_int_equal(put(&w, 1, 8), SW_OK);
    has(&w, 1, 8);
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_call_fails),
        cmocka_unit_test(long_outage),
        cmocka_unit_test(cutoff_fails),
        cmocka_unit_test(everysec_sync_fails),
    };

    fault.main_thread = pthread_self();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
