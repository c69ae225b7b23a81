/* store/journal_open.c - the life of a journal store: opening, closing, its numbers.
 *
 * Room       store/. Blocks; the thread that starts and stops the gateway.
 */
#include "store/journal_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <unistd.h>

/* A fork leaves the child without the committer, and with descriptors that are the parent's: a
 * child that tries is stopped by an assertion. */
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

struct journal_store *sw_journal__of(struct sw_store *store)
{
    struct journal_store *s = (struct journal_store *)store;

    SW_ASSERT(s->forks == atomic_load_explicit(&fork_generation, memory_order_relaxed));
    return s;
}

static void journal_stats(struct sw_store *store, struct sw_store_stats *st)
{
    struct journal_store *s = sw_journal__of(store);

    st->records = atomic_load_explicit(&s->table.records, memory_order_relaxed);
    st->bytes_used = atomic_load_explicit(&s->table.used, memory_order_relaxed);
    st->bytes_map = s->opt.memory_bytes_max;
    st->bytes_file = atomic_load_explicit(&s->log.file_bytes, memory_order_relaxed);
    for (size_t i = 0; i < JOURNAL_SHARDS; i++) {
        pthread_mutex_lock(&s->table.shards[i].lock);
        st->loads += s->table.shards[i].loads;
        pthread_mutex_unlock(&s->table.shards[i].lock);
    }
    pthread_mutex_lock(&s->lock);
    st->queue = s->waiting;
    pthread_mutex_unlock(&s->lock);
}

/* ---- life ------------------------------------------------------------------------------------ */

void sw_journal__free(struct journal_store *s)
{
    sw_journal__log_close(&s->log);
    sw_journal__table_fini(&s->table);
    sw_store__fd_close(&s->folder_fd);
    sw_store__fd_close(&s->lock_fd); /* the lock goes with it */
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    s->base.magic = 0;
    free(s);
}

static void journal_close(struct sw_store *store)
{
    struct journal_store *s = sw_journal__of(store);
    int rc;

    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_mutex_unlock(&s->lock);
    pthread_cond_signal(&s->wake);
    rc = pthread_join(s->thread, NULL);
    SW_ASSERT(rc == 0);
    SW_ASSERT(s->first == NULL);
    sw_journal__free(s);
}

static const struct store_ops journal_ops = {
    .name = "journal",
    .load = sw_journal__load,
    .commit = sw_journal__commit,
    .stats = journal_stats,
    .scan = sw_journal__scan,
    .scan_subject = sw_journal__scan_subject,
    .due = sw_journal__due,
    .cutoff = sw_journal__cutoff,
    .close = journal_close,
};

/* What a killed process left to the kernel is durable before a new segment says so. */
static int last_sync(struct journal_store *s)
{
    char name[JOURNAL_NAME_BYTES];
    SW_CLEANUP(sw_store__fd_close) int fd = -1;

    sw_journal__segment_name(name, log_segment(&s->log)->header.number);
    fd = openat(s->folder_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 || fsync(fd) != 0 || fsync(s->folder_fd) != 0 ? errno : 0;
}

static enum sw_err log_open(struct journal_store *s, const char **ret_why)
{
    bool last_empty = false;
    enum sw_err err;
    int error;

    s->log.folder_fd = s->folder_fd;
    s->log.fd = -1;
    s->log.next_bytes = JOURNAL_SEGMENT_BYTES_MIN;
    sw_rng_seed(&s->log.rng, sw_rng_u64(&s->rng));
    for (size_t i = 0; i < sizeof(s->log.id); i++) { /* until one is read */
        s->log.id[i] = (uint8_t)sw_rng_below(&s->rng, 256);
    }
    s->log.buffer = malloc(JOURNAL_BUFFER_BYTES);
    if (s->log.buffer == NULL) {
        return sw_store__refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
    }
    error = sw_journal__keeper_start(&s->log.keeper, s->folder_fd);
    if (error != 0) {
        return sw_store__refuse(SW_E_SYSTEM, ret_why, "store %s: no thread: %s", s->path,
                                strerror(error));
    }
    err = sw_journal__replay(s, &last_empty, ret_why);
    if (err != SW_OK) {
        return err;
    }
    if (s->log.segment_count > 0) {
        error = last_sync(s);
    }
    if (error == 0) {
        error = sw_journal__log_start(&s->log, last_empty);
    }
    if (error != 0) {
        return sw_store__refuse(sw_store__errno(error), ret_why,
                                "store %s: no new segment can be made: %s; nothing was changed",
                                s->path, strerror(error));
    }
    s->table.due.moved = true;
    sw_journal__due_publish(s);
    return SW_OK;
}

static enum sw_err thread_start(struct journal_store *s, const char **ret_why)
{
    sigset_t all, old;
    int rc;

    s->last = &s->first;
    s->tick_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
    s->sync_ns = s->tick_ns;
    sigfillset(&all); /* no signal is handled there; SIGXFSZ becomes the error EFBIG */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&s->thread, NULL, sw_journal__committer, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0 ? SW_OK
                   : sw_store__refuse(SW_E_SYSTEM, ret_why, "store %s: no thread: %s", s->path,
                                      strerror(rc));
}

static struct journal_store *journal_new(const struct sw_store_options *opt, uint64_t seed)
{
    struct journal_store *s = aligned_alloc(64, (sizeof(*s) + 63) & ~(size_t)63);
    pthread_condattr_t attr;

    if (s == NULL) {
        return NULL;
    }
    memset(s, 0, sizeof(*s));
    s->folder_fd = -1;
    s->lock_fd = -1;
    s->log.fd = -1;
    s->opt = *opt;
    s->opt.memory_bytes_max = opt->memory_bytes_max == 0
                                  ? JOURNAL_MEMORY_DEFAULT
                                  : SW_MAX(opt->memory_bytes_max, JOURNAL_MEMORY_MIN);
    s->opt.queue_max = opt->queue_max == 0 ? 4096 : opt->queue_max;
    s->forks = atomic_load(&fork_generation);
    sw_rng_seed(&s->rng, seed);
    sw_store__init(&s->base, &journal_ops);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    sw_journal__table_init(&s->table, sw_rng_u64(&s->rng));
    (void)snprintf(s->path, sizeof(s->path), "%.*s", SW_SARG(opt->path));
    return s;
}

enum sw_err sw_journal__open_bare(const struct sw_store_options *opt, bool make,
                                  struct journal_store **ret_store, const char **ret_why)
{
    struct journal_store *s;
    uint64_t seed;
    ssize_t got = getrandom(&seed, sizeof(seed), 0);
    enum sw_err err;

    SW_ASSERT(got == sizeof(seed)); /* 8 bytes are never cut short */
    pthread_once(&fork_once, fork_watch);
    s = journal_new(opt, seed);
    if (s == NULL) {
        return sw_store__refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
    }
    err = sw_store__folder_open(opt->path, STORE_FILES_JOURNAL, make, &s->folder_fd, ret_why);
    if (err == SW_OK) {
        err = sw_store__lock_take(opt->path, s->folder_fd, &s->lock_fd, ret_why);
    }
    if (err == SW_OK) {
        err = log_open(s, ret_why);
    }
    if (err != SW_OK) {
        sw_journal__free(s);
        return err;
    }
    s->opt.path = (struct sw_slice){NULL, 0}; /* was the caller's */
    *ret_store = s;
    return SW_OK;
}

enum sw_err sw_store_open_journal(const struct sw_store_options *opt, struct sw_store **ret_store,
                                  const char **ret_why)
{
    struct journal_store *s;
    enum sw_err err = sw_journal__open_bare(opt, true, &s, ret_why);

    if (err != SW_OK) {
        return err;
    }
    err = thread_start(s, ret_why);
    if (err != SW_OK) {
        sw_journal__free(s);
        return err;
    }
    *ret_store = &s->base;
    return SW_OK;
}
