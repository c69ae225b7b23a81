/* store/journal_keeper.c - a thread for what the committer must not wait for.
 *
 * Room       store/. Prepares the next segment: a file filled with zeros and synced, so that a sync
 *            of what is written into it later changes no metadata (half the time of one that does).
 *            Removes segments that are not needed: that may take the file system a while.
 */
#include "store/journal_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#define FILL_BYTES (1u << 20) /* at a time */

/* 0 and *ret_fd, or an errno. */
static int spare_make(struct journal_keeper *k, uint64_t bytes, int *ret_fd)
{
    static const char zeros[FILL_BYTES];
    int fd = openat(k->folder_fd, JOURNAL_SPARE_NAME,
                    O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int error = fd < 0 ? errno : 0;

    /* tells of a full disk at once; not every file system has it, and the zeros are needed anyway
     */
    if (error == 0 && fallocate(fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP) {
        error = errno;
    }
    for (uint64_t at = 0; at < bytes && error == 0; at += FILL_BYTES) {
        struct iovec iov = {(void *)(uintptr_t)zeros, SW_MIN(bytes - at, FILL_BYTES)};

        error = sw_journal__write_all(fd, &iov, 1, at);
    }
    if (error == 0 && fsync(fd) != 0) {
        error = errno;
    }
    if (error != 0 && fd >= 0) {
        (void)unlinkat(k->folder_fd, JOURNAL_SPARE_NAME, 0); /* its room may be what is missing */
        close(fd);
    }
    *ret_fd = error == 0 ? fd : -1;
    return error;
}

/* Oldest first: a crash leaves no gap. */
static void segments_remove(struct journal_keeper *k, uint64_t from, uint64_t end)
{
    for (uint64_t number = from; number < end; number++) {
        char name[JOURNAL_NAME_BYTES];

        sw_journal__segment_name(name, number);
        (void)unlinkat(k->folder_fd, name, 0); /* what stays is removed at the next start */
    }
    (void)fsync(k->folder_fd);
}

static void *keeper(void *arg)
{
    struct journal_keeper *k = arg;

    prctl(PR_SET_NAME, "store-keeper");
    pthread_mutex_lock(&k->lock);
    while (!k->stop || k->remove_from < k->remove_end) {
        uint64_t from = k->remove_from, end = k->remove_end, bytes = k->want_bytes;

        if (from < end) { /* first: it makes room */
            pthread_mutex_unlock(&k->lock);
            segments_remove(k, from, end);
            pthread_mutex_lock(&k->lock);
            k->remove_from = end;
        } else if (bytes > 0) {
            int old = k->fd, fd, error;

            k->fd = -1;
            pthread_mutex_unlock(&k->lock);
            sw_store__fd_close(&old); /* it was too small */
            error = spare_make(k, bytes, &fd);
            pthread_mutex_lock(&k->lock);
            k->fd = fd;
            k->bytes = bytes;
            k->error = error;
            if (k->want_bytes == bytes) {
                k->want_bytes = 0;
            }
            pthread_cond_signal(&k->ready);
        } else {
            pthread_cond_wait(&k->wake, &k->lock);
        }
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

int sw_journal__keeper_start(struct journal_keeper *k, int folder_fd)
{
    sigset_t all, old;
    int rc;

    *k = (struct journal_keeper){.folder_fd = folder_fd, .fd = -1};
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->wake, NULL);
    pthread_cond_init(&k->ready, NULL);
    sigfillset(&all); /* no signal is handled there; SIGXFSZ becomes the error EFBIG */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&k->thread, NULL, keeper, k);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    k->started = rc == 0;
    return rc;
}

void sw_journal__keeper_stop(struct journal_keeper *k)
{
    if (!k->started) {
        return;
    }
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    k->want_bytes = 0;
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->thread, NULL);
    if (k->fd >= 0) {
        close(k->fd);
        (void)unlinkat(k->folder_fd, JOURNAL_SPARE_NAME, 0);
    }
    pthread_mutex_destroy(&k->lock);
    pthread_cond_destroy(&k->wake);
    pthread_cond_destroy(&k->ready);
    k->started = false;
}

void sw_journal__keeper_ask(struct journal_keeper *k, uint64_t bytes)
{
    pthread_mutex_lock(&k->lock);
    if (k->fd < 0 || k->bytes < bytes) {
        k->want_bytes = SW_MAX(k->want_bytes, bytes);
        pthread_cond_signal(&k->wake);
    }
    pthread_mutex_unlock(&k->lock);
}

static bool enough(const struct journal_keeper *k, uint64_t bytes)
{
    return k->fd >= 0 && k->bytes >= bytes;
}

int sw_journal__keeper_look(struct journal_keeper *k, uint64_t bytes_min, uint64_t bytes, bool wait)
{
    int error = 0;

    bytes = SW_MAX(bytes, bytes_min);
    pthread_mutex_lock(&k->lock);
    if (!enough(k, bytes_min) && k->want_bytes < bytes) {
        k->want_bytes = bytes;
        pthread_cond_signal(&k->wake);
    }
    while (wait && !enough(k, bytes_min) && k->want_bytes != 0) {
        pthread_cond_wait(&k->ready, &k->lock);
    }
    if (!enough(k, bytes_min)) {
        error = k->want_bytes != 0 || k->error == 0 ? EAGAIN : k->error;
    }
    pthread_mutex_unlock(&k->lock);
    return error;
}

int sw_journal__keeper_take(struct journal_keeper *k, uint64_t *ret_bytes)
{
    int fd;

    pthread_mutex_lock(&k->lock);
    fd = k->fd;
    *ret_bytes = k->bytes;
    k->fd = -1;
    pthread_mutex_unlock(&k->lock);
    SW_ASSERT(fd >= 0);
    return fd;
}

void sw_journal__keeper_remove(struct journal_keeper *k, uint64_t from, uint64_t end)
{
    pthread_mutex_lock(&k->lock);
    if (k->remove_from == k->remove_end) {
        k->remove_from = from;
    }
    k->remove_end = SW_MAX(k->remove_end, end);
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
}
