/* store/lmdb_open.c - the life of an embedded store: opening, closing, its numbers.
 *
 * Room       store/. Blocks; the thread that starts and stops the gateway.
 */
#include "store/lmdb_priv.h"

#include <errno.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* LMDB must not be used across a fork: a child that tries is stopped by an assertion. */
static atomic_uint fork_generation;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void fork_child(void)
{
    atomic_fetch_add(&fork_generation, 1);
}

static void fork_watch(void)
{
    int rc = pthread_atfork(NULL, NULL, fork_child);

    SW_ASSERT(rc == 0);
}

struct lmdb_store *sw_lmdb__of(struct sw_store *store)
{
    struct lmdb_store *s = (struct lmdb_store *)store;

    SW_ASSERT(s->forks == atomic_load_explicit(&fork_generation, memory_order_relaxed));
    return s;
}

/* Complete or not at all: made aside, synced, renamed. */
static enum sw_err file_make(struct lmdb_store *s, int folder_fd, const char **ret_why)
{
    char aside[STORE_PATH_BYTES_MAX], aside_lock[STORE_PATH_BYTES_MAX], stale[STORE_PATH_BYTES_MAX];
    struct lmdb_meta m = {
        .format = LMDB_FORMAT,
        .made_unix_s = (int64_t)(sw_store__clock_ns(CLOCK_REALTIME) / SW_NS_PER_S),
    };
    int rc;

    sw_store__path_join(aside, s->opt.path, "new.mdb");
    sw_store__path_join(aside_lock, s->opt.path, "new.mdb-lock");
    sw_store__path_join(stale, s->opt.path, "data.mdb-lock");
    (void)unlink(aside); /* of a start that was cut off: we hold the lock */
    (void)unlink(aside_lock);
    (void)unlink(stale);
    for (size_t i = 0; i < sizeof(m.id); i++) {
        m.id[i] = (uint8_t)sw_rng_below(&s->rng, 256);
    }
    rc = sw_lmdb__env_open(s, aside);
    if (rc == 0) {
        rc = sw_lmdb__dbs_make(s, &m);
    }
    sw_lmdb__env_close(s);
    (void)unlink(aside_lock);
    if (rc == 0 && (rename(aside, s->path) != 0 || fsync(folder_fd) != 0)) {
        rc = errno;
    }
    if (rc != 0) {
        (void)unlink(aside);
        return sw_store__refuse(sw_lmdb__err(rc), ret_why, "store %s: cannot be made: %s", s->path,
                                mdb_strerror(rc));
    }
    return SW_OK;
}

static void lmdb_stats(struct sw_store *store, struct sw_store_stats *st)
{
    struct lmdb_store *s = sw_lmdb__of(store);
    struct stat file;

    st->records = atomic_load_explicit(&s->record_count, memory_order_relaxed);
    st->bytes_used = atomic_load_explicit(&s->bytes_used, memory_order_relaxed);
    st->bytes_map = s->opt.map_bytes_max;
    if (stat(s->path, &file) == 0) {
        st->bytes_file = (uint64_t)file.st_blocks * 512; /* the file is sparse */
    }
    pthread_mutex_lock(&s->readers_lock);
    st->loads = s->loads_gone;
    for (struct sw_link *l = s->readers.next; l != &s->readers; l = l->next) {
        st->loads += atomic_load_explicit(&SW_CONTAINER(l, struct lmdb_reader, link)->loads,
                                          memory_order_relaxed);
    }
    pthread_mutex_unlock(&s->readers_lock);
    pthread_mutex_lock(&s->lock);
    st->queue = s->waiting;
    pthread_mutex_unlock(&s->lock);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void lmdb_free(struct lmdb_store *s)
{
    sw_lmdb__env_close(s);
    if (s->lock_fd >= 0) {
        close(s->lock_fd); /* the lock goes with it */
    }
    free(s->scratch);
    free(s);
}

static void lmdb_close(struct sw_store *store)
{
    struct lmdb_store *s = sw_lmdb__of(store);
    int rc;

    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_mutex_unlock(&s->lock);
    pthread_cond_signal(&s->wake);
    rc = pthread_join(s->thread, NULL);
    SW_ASSERT(rc == 0);
    SW_ASSERT(s->first == NULL);
    pthread_key_delete(s->key);
    while (!sw_list_empty(&s->readers)) {
        struct lmdb_reader *r =
            SW_CONTAINER(sw_list_pop_front(&s->readers), struct lmdb_reader, link);

        SW_ASSERT(!atomic_load(&r->busy));
        mdb_txn_abort(r->txn);
        free(r);
    }
    pthread_mutex_destroy(&s->readers_lock);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    s->base.magic = 0;
    lmdb_free(s);
}

static const struct store_ops lmdb_ops = {
    .name = "lmdb",
    .load = sw_lmdb__load,
    .commit = sw_lmdb__commit,
    .stats = lmdb_stats,
    .scan = sw_lmdb__scan,
    .scan_subject = sw_lmdb__scan_subject,
    .due = sw_lmdb__due,
    .cutoff = sw_lmdb__cutoff,
    .close = lmdb_close,
};

static enum sw_err upgrade(struct lmdb_store *s, struct lmdb_meta *m, const char **ret_why)
{
    int rc = sw_lmdb__upgrade(s, m);
    enum sw_err err = sw_lmdb__err(rc);

    if (err == SW_OK) {
        return err;
    }
    return sw_store__refuse(
        err, ret_why,
        err == SW_E_STORE_FULL
            ? "store %s: no room to bring it from format 1 to format 2 (%s); free "
              "disk space or raise limits.store, and start again: it goes on"
            : "store %s: it cannot be brought from format 1 to format 2: %s; "
              "nothing was lost; remove the cause and start again",
        s->path, mdb_strerror(rc));
}

static enum sw_err data_open(struct lmdb_store *s, int folder_fd, const char **ret_why)
{
    struct lmdb_meta meta;
    int rc, dead;
    enum sw_err err = sw_lmdb__file_check(s->path, ret_why);
    char aside[STORE_PATH_BYTES_MAX];

    sw_store__path_join(aside, s->opt.path, "new.mdb");
    (void)unlink(aside); /* of a compaction that was cut off: we hold the lock */
    if (err == SW_E_NOT_FOUND) {
        err = file_make(s, folder_fd, ret_why);
    }
    if (err != SW_OK) {
        return err;
    }
    rc = sw_lmdb__env_open(s, s->path);
    if (rc == ENOMEM) {
        return sw_store__refuse(
            SW_E_NO_MEMORY, ret_why,
            "store %s: no address space for a map of %llu bytes; set a smaller limit", s->path,
            (unsigned long long)s->opt.map_bytes_max);
    }
    if (rc != 0) {
        return sw_store__refuse(sw_lmdb__err(rc), ret_why, "store %s: %s", s->path,
                                mdb_strerror(rc));
    }
    rc = sw_lmdb__dbs_open(s, &meta);
    if (rc != 0 && rc != MDB_NOTFOUND && rc != MDB_INCOMPATIBLE) {
        return sw_store__refuse(sw_lmdb__err(rc), ret_why, "store %s: %s", s->path,
                                mdb_strerror(rc));
    }
    err = sw_lmdb__meta_check(s->path, &meta, ret_why); /* none: somebody else's file */
    if (err != SW_OK) {
        return err;
    }
    if (rc != 0) {
        return sw_store__refuse(
            SW_E_STORE_CORRUPT, ret_why,
            "store %s: a part of it is missing; restore it from a backup, or name another "
            "folder",
            s->path);
    }
    (void)mdb_reader_check(s->env, &dead); /* slots of killed processes */
    if (meta.format != LMDB_FORMAT || meta.upgrading) {
        err = upgrade(s, &meta, ret_why);
    }
    if (err == SW_OK && (rc = sw_lmdb__publish(s)) != 0) {
        err =
            sw_store__refuse(sw_lmdb__err(rc), ret_why, "store %s: %s", s->path, mdb_strerror(rc));
    }
    return err;
}

static enum sw_err thread_start(struct lmdb_store *s, const char **ret_why)
{
    pthread_condattr_t attr;
    sigset_t all, old;
    int rc;

    s->last = &s->first;
    s->tick_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
    s->overdue = s->opt.expire;
    sw_list_init(&s->readers);
    pthread_mutex_init(&s->readers_lock, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    rc = pthread_key_create(&s->key, sw_lmdb__reader_gone);
    if (rc == 0) {
        /* No signal is handled there; SIGXFSZ becomes the error EFBIG. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        rc = pthread_create(&s->thread, NULL, sw_lmdb__committer, s);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (rc != 0) {
            pthread_key_delete(s->key);
        }
    }
    if (rc != 0) {
        return sw_store__refuse(SW_E_SYSTEM, ret_why, "store %s: no thread: %s", s->path,
                                strerror(rc));
    }
    return SW_OK;
}

enum sw_err sw_store_open_lmdb(const struct sw_store_options *opt, struct sw_store **ret_store,
                               const char **ret_why)
{
    SW_CLEANUP(sw_store__fd_close) int folder_fd = -1;
    struct lmdb_store *s;
    uint64_t seed;
    ssize_t got = getrandom(&seed, sizeof(seed), 0);
    enum sw_err err;

    SW_ASSERT(got == sizeof(seed));
    if (!sw_store__path_ok(opt->path)) {
        return sw_store__refuse(SW_E_LIMIT, ret_why,
                                "store: the path of its folder is empty or too long");
    }
    pthread_once(&fork_once, fork_watch);
    s = aligned_alloc(64, (sizeof(*s) + 63) & ~(size_t)63);
    if (s == NULL) {
        return sw_store__refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
    }
    memset(s, 0, sizeof(*s));
    s->lock_fd = -1;
    s->opt = *opt;
    s->opt.map_bytes_max =
        opt->map_bytes_max == 0 ? LMDB_MAP_DEFAULT : SW_MAX(opt->map_bytes_max, LMDB_MAP_MIN);
    s->opt.map_bytes_max &= ~(uint64_t)0xffff;
    s->opt.queue_max = opt->queue_max == 0 ? 4096 : opt->queue_max;
    s->opt.readers_max = opt->readers_max == 0 ? 64 : opt->readers_max;
    s->forks = atomic_load(&fork_generation);
    sw_rng_seed(&s->rng, seed);
    sw_store__init(&s->base, &lmdb_ops);
    sw_store__path_join(s->path, opt->path, "data.mdb");
    err = sw_store__folder_open(opt->path, STORE_FILES_LMDB, true, &folder_fd, ret_why);
    if (err == SW_OK) {
        err = sw_store__lock_take(opt->path, folder_fd, &s->lock_fd, ret_why);
    }
    if (err == SW_OK) {
        err = data_open(s, folder_fd, ret_why);
    }
    if (err == SW_OK) {
        sw_lmdb__usage_publish(s);
        err = thread_start(s, ret_why);
    }
    if (err != SW_OK) {
        lmdb_free(s);
        return err;
    }
    s->opt.path = (struct sw_slice){NULL, 0}; /* was the caller's */
    s->opt.tell = NULL;
    *ret_store = &s->base;
    return SW_OK;
}
