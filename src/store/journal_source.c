/* store/journal_source.c - one moment of a journal, for commands: beside a gateway too.
 *
 * Room       store/. Takes no lock and changes nothing: a gateway may have it open, start and stop.
 *
 * The moment is a place in the log: the last whole frame that the newest segment has when it is
 * read. What was acknowledged before the command began stands before it, and a log up to any of
 * its frames is what a crash could have left, so it is always one that a start understands.
 *
 *  - Segments that are not needed any more are removed meanwhile. All are opened first; what is
 *    open stays.
 *  - The listing of a folder is no moment: a segment that was made or removed while it ran may be
 *    in it or not. If something does not fit, and the folder has changed since, it is read again.
 *  - The gateway writes frames while we read them, in their order. A frame that is torn here, with
 *    a whole one behind it that says it was durable, was written between our two reads of them:
 *    read again it is whole, or it is damage.
 *  - After an error the gateway goes on in a new segment, and what stands behind its last good
 *    frame in the old one is void. If a segment came behind the one that was the last, and begins
 *    before our place, all is read again.
 */
#include "store/journal_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES_MAX 64u /* of a folder that changes all the time */

/* What tells that a folder has changed. */
struct moment {
    uint64_t count, least, most;
    ino_t inode; /* of the newest */
    off_t bytes;
};

static struct moment moment_of(int folder_fd)
{
    struct moment m = {.least = UINT64_MAX};
    int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    char name[JOURNAL_NAME_BYTES];
    struct dirent *e;
    struct stat st;

    if (dir == NULL) {
        sw_store__fd_close(&fd);
        return m;
    }
    while ((e = readdir(dir)) != NULL) {
        uint64_t number;

        if (sw_journal__segment_name_read(e->d_name, &number)) {
            m.count++;
            m.least = SW_MIN(m.least, number);
            m.most = SW_MAX(m.most, number);
        }
    }
    closedir(dir);
    sw_journal__segment_name(name, m.most);
    if (fstatat(folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        m.inode = st.st_ino;
        m.bytes = st.st_size;
    }
    return m;
}

static bool moment_eq(const struct moment *a, const struct moment *b)
{
    return a->count == b->count && a->least == b->least && a->most == b->most &&
           a->inode == b->inode && a->bytes == b->bytes;
}

static void segments_drop(struct journal_source *x)
{
    for (size_t i = 0; x->fds != NULL && i < x->count; i++) {
        sw_store__fd_close(&x->fds[i]);
    }
    free(sw_take(&x->fds));
    free(sw_take(&x->segs));
    x->count = 0;
}

static enum sw_err segments_open(struct journal_source *x, const char **ret_why)
{
    enum sw_err err = sw_journal__segments_list(sw_slice_cstr(x->path), x->folder_fd, &x->segs,
                                                &x->count, ret_why);

    if (err != SW_OK || x->count == 0) {
        return err;
    }
    x->fds = malloc(x->count * sizeof(*x->fds));
    if (x->fds == NULL) {
        return sw_store__refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
    }
    for (size_t i = 0; i < x->count; i++) {
        x->fds[i] = -1;
    }
    for (size_t i = 0; i < x->count && err == SW_OK; i++) {
        err = sw_journal__segment_open(x->path, x->folder_fd, x->segs[i].header.number, &x->fds[i],
                                       ret_why);
    }
    return err;
}

/* The newest segment; again while what looked damaged turns out to be whole. */
static enum sw_err last_load(struct journal_source *x, const char **ret_why)
{
    const struct journal_segment *seg = &x->segs[x->count - 1];
    size_t end = 0;
    enum sw_err err;

    if (seg->err != SW_OK) {
        return sw_journal__damaged(x->path, seg->header.number, 0, "the head is damaged", ret_why);
    }
    do {
        end = x->last.end;
        err = sw_journal__segment_load(x->path, x->fds[x->count - 1], seg, UINT64_MAX, &x->last,
                                       ret_why);
    } while (err == SW_E_STORE_CORRUPT && x->last.end > end);
    return err;
}

/* Has a segment begun behind the last one that makes void what was read of it? */
static bool overtaken(const struct journal_source *x)
{
    const struct journal_segment *last = &x->segs[x->count - 1];
    SW_CLEANUP(sw_store__fd_close) int fd = -1;
    unsigned char head[JOURNAL_HEADER_BYTES];
    char name[JOURNAL_NAME_BYTES];
    struct journal_header h;
    uint32_t format;

    sw_journal__segment_name(name, last->header.number + 1);
    fd = openat(x->folder_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return fd >= 0 && sw_journal__read_all(fd, head, sizeof(head), 0) == 0 &&
           sw_journal__header_read(head, &h, &format) == SW_OK && h.first_seq <= x->last.seq;
}

/* One attempt. x->damage: what is wrong with the segments as they were seen. */
static enum sw_err source_read(struct journal_source *x, const char **ret_why)
{
    enum sw_err err = segments_open(x, ret_why);
    const struct journal_segment *last;

    x->damage = SW_OK;
    x->last.end = 0;
    if (err != SW_OK || x->count == 0) {
        return err;
    }
    last = &x->segs[x->count - 1];
    err = last_load(x, ret_why);
    x->last_err = err;
    x->oldest = SW_MAX(last->err == SW_OK ? last->header.oldest : x->segs[0].header.number,
                       x->last.end > 0 ? x->last.trim : 0);
    if (err == SW_OK) {
        err = sw_journal__segments_check(x->path, x->segs, x->count, x->oldest, &x->from, ret_why);
    }
    if (err == SW_E_STORE_CORRUPT) {
        x->damage = err;
        (void)snprintf(x->damage_text, sizeof(x->damage_text), "%s", *ret_why);
        err = SW_OK;
    }
    return err;
}

enum sw_err sw_journal__source_open(struct journal_source *x, struct sw_slice folder,
                                    const char **ret_why)
{
    struct rlimit files;
    enum sw_err err;

    memset(x, 0, sizeof(*x));
    x->folder_fd = -1;
    err = sw_store__folder_open(folder, STORE_FILES_JOURNAL, false, &x->folder_fd, ret_why);
    if (err != SW_OK) {
        return err;
    }
    (void)snprintf(x->path, sizeof(x->path), "%.*s", SW_SARG(folder));
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* a large log has many segments */
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    for (unsigned tries = 0;; tries++) {
        struct moment before = moment_of(x->folder_fd), after;

        err = source_read(x, ret_why);
        if (err == SW_OK && x->count == 0) {
            return sw_store__refuse(SW_E_NOT_FOUND, ret_why, "store %s: there is no journal in it",
                                    x->path);
        }
        after = moment_of(x->folder_fd);
        if (tries >= TRIES_MAX || (moment_eq(&before, &after) && !overtaken(x)) ||
            (err == SW_OK && x->damage == SW_OK && !overtaken(x))) {
            return err;
        }
        segments_drop(x);
    }
}

void sw_journal__source_close(struct journal_source *x)
{
    segments_drop(x);
    sw_journal__loaded_fini(&x->last);
    sw_store__fd_close(&x->folder_fd);
    x->folder_fd = -1;
}

uint64_t sw_journal__source_bytes(const struct journal_source *x)
{
    uint64_t bytes = 0;
    struct stat st;

    for (size_t i = 0; i < x->count; i++) {
        if (fstat(x->fds[i], &st) == 0) {
            bytes += (uint64_t)st.st_blocks * 512;
        }
    }
    return bytes;
}
