/* store/journal_copy.c - sw_store_journal_backup and sw_store_journal_compact.
 *
 * Room       store/. For commands; not in a gateway.
 *
 * A backup is the log up to one moment (journal_source.c): the segments that are needed, each to
 * the end of its frames that count, and behind the last one an END. So a backup that is cut or
 * damaged later, also at its very end, is refused by a start and found by a check.
 *
 * Compacting opens the store as a gateway does, and makes one round of compaction over all of it
 * (journal_sweep.c): what holds for a gateway that is killed while it compacts, holds here.
 */
#include "store/journal_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* ---- backup ---------------------------------------------------------------------------------- */

/* Says that the frame before it was the last one, and durable. */
static size_t end_frame(unsigned char p[JOURNAL_FRAME_HEAD + JOURNAL_RECORD_HEAD], uint32_t mark,
                        uint64_t seq)
{
    struct journal_frame f = {.count = 1, .seq = seq + 1, .durable = seq};
    struct journal_piece end;

    sw_journal__piece_end(&end);
    f.bytes = (uint32_t)sw_journal__frame_bytes(&end, 1);
    SW_ASSERT(f.bytes == JOURNAL_FRAME_HEAD + end.head_len); /* no padding */
    memcpy(p + JOURNAL_FRAME_HEAD, end.head, end.head_len);
    sw_journal__frame_write(p, mark,
                            sw_journal__crc(sw_journal__frame_crc(&f), end.head, end.head_len), &f);
    return f.bytes;
}

/* Head and frames of a segment, synced. 0, or an errno. */
static int segment_copy(int folder_fd, const struct journal_loaded *ld, size_t len, bool last)
{
    unsigned char end[JOURNAL_FRAME_HEAD + JOURNAL_RECORD_HEAD];
    struct iovec iov[2] = {{ld->bytes, len}, {end, 0}};
    char name[JOURNAL_NAME_BYTES];
    SW_CLEANUP(sw_store__fd_close) int fd = -1;
    int error;

    sw_journal__segment_name(name, ld->seg->header.number);
    if (last && !ld->closed) {
        iov[1].iov_len = end_frame(end, ld->seg->header.mark, ld->seq);
    }
    fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return errno;
    }
    error = sw_journal__write_all(fd, iov, iov[1].iov_len > 0 ? 2 : 1, 0);
    return error == 0 && fsync(fd) != 0 ? errno : error;
}

static enum sw_err segments_copy(const struct journal_source *x, const char *part,
                                 const char **ret_why)
{
    SW_CLEANUP(sw_journal__loaded_fini) struct journal_loaded room = {0};
    SW_CLEANUP(sw_store__fd_close) int fd = open(part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 ? errno : 0;

    for (size_t i = x->from; i < x->count && error == 0; i++) {
        uint64_t limit = sw_journal__segments_limit(x->segs, x->count, i);
        const struct journal_loaded *ld = &x->last;
        size_t len = JOURNAL_HEADER_BYTES; /* of one whose frames are all void */

        if (i + 1 < x->count) {
            /* a segment that is void from its first frame on is read only for its head */
            enum sw_err err = sw_journal__segment_load(x->path, x->fds[i], &x->segs[i],
                                                       SW_MAX(limit, x->segs[i].header.first_seq),
                                                       &room, ret_why);

            if (err != SW_OK) {
                return err;
            }
            ld = &room;
        }
        if (limit > x->segs[i].header.first_seq) {
            len = ld->end;
        }
        error = segment_copy(fd, ld, len, i + 1 == x->count);
    }
    if (error == 0 && fsync(fd) != 0) {
        error = errno;
    }
    return error == 0 ? SW_OK
                      : sw_store__refuse(sw_store__errno(error), ret_why,
                                         "store %s: no backup was made: %s", part, strerror(error));
}

static enum sw_err backup(const struct journal_source *x, struct sw_slice to, const char **ret_why)
{
    struct store_part p;
    enum sw_err err;

    if (x->damage != SW_OK) {
        return sw_store__refuse(x->damage, ret_why, "no backup was made: %s", x->damage_text);
    }
    err = sw_store__part_make(to, &p, ret_why);
    if (err != SW_OK) {
        return err;
    }
    err = segments_copy(x, p.part, ret_why);
    if (err != SW_OK) {
        sw_store__part_drop(&p);
        return err;
    }
    return sw_store__part_name(&p, ret_why);
}

enum sw_err sw_store_journal_backup(struct sw_slice path, struct sw_slice to, const char **ret_why)
{
    struct journal_source *x = malloc(sizeof(*x));
    enum sw_err err;

    if (x == NULL) {
        return sw_store__refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
    }
    err = sw_journal__source_open(x, path, ret_why);
    if (err == SW_OK) {
        err = backup(x, to, ret_why);
    }
    sw_journal__source_close(x);
    free(x);
    return err;
}

/* ---- compact --------------------------------------------------------------------------------- */

/* What its segments take on the disk; 0: there are none. */
static uint64_t disk_bytes(struct sw_slice path, int folder_fd)
{
    struct journal_segment *segs = NULL;
    const char *why;
    uint64_t bytes = 0;
    size_t count = 0;

    if (sw_journal__segments_list(path, folder_fd, &segs, &count, &why) != SW_OK) {
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        char name[JOURNAL_NAME_BYTES];
        struct stat st;

        sw_journal__segment_name(name, segs[i].header.number);
        if (fstatat(folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            bytes += (uint64_t)st.st_blocks * 512;
        }
    }
    free(segs);
    return bytes;
}

/* The old log goes when the new one is whole: both must have room. */
static enum sw_err room_check(struct journal_store *s, const char **ret_why)
{
    uint64_t need = atomic_load(&s->table.live) + 2 * s->log.next_bytes, room;
    struct statvfs fs;

    if (fstatvfs(s->folder_fd, &fs) != 0) {
        return SW_OK; /* writing will tell */
    }
    room = (uint64_t)fs.f_bavail * fs.f_frsize;
    return need <= room
               ? SW_OK
               : sw_store__refuse(SW_E_STORE_FULL, ret_why,
                                  "store %s: not compacted: it needs %llu MiB beside the old "
                                  "files, and the disk has %llu MiB; nothing was lost",
                                  s->path, (unsigned long long)(need >> 20),
                                  (unsigned long long)(room >> 20));
}

static enum sw_err compact(struct journal_store *s, const char **ret_why)
{
    enum sw_err err;
    int error;

    sw_journal__log_grow(&s->log, atomic_load(&s->table.live));
    err = room_check(s, ret_why);
    if (err != SW_OK) {
        return err;
    }
    error = sw_journal__compact_all(s);
    return error == 0 ? SW_OK
                      : sw_store__refuse(sw_store__errno(error), ret_why,
                                         "store %s: not compacted: %s; nothing was lost", s->path,
                                         strerror(error));
}

enum sw_err sw_store_journal_compact(struct sw_slice path, uint64_t *ret_before_bytes,
                                     uint64_t *ret_after_bytes, const char **ret_why)
{
    struct sw_store_options opt = {
        .path = path, .sync = SW_SYNC_ALWAYS, .memory_bytes_max = UINT64_MAX, .expire = true};
    SW_CLEANUP(sw_store__fd_close) int folder_fd = -1;
    struct journal_store *s;
    uint64_t before;
    enum sw_err err = sw_store__folder_open(path, STORE_FILES_JOURNAL, false, &folder_fd, ret_why);

    if (err != SW_OK) {
        return err;
    }
    before = disk_bytes(path, folder_fd);
    if (before == 0) {
        return sw_store__refuse(SW_E_NOT_FOUND, ret_why, "store %.*s: there is no journal in it",
                                SW_SARG(path));
    }
    err = sw_journal__open_bare(&opt, false, &s, ret_why);
    if (err != SW_OK) {
        return err;
    }
    err = compact(s, ret_why);
    sw_journal__free(s);
    if (err != SW_OK) {
        return err;
    }
    *ret_before_bytes = before;
    *ret_after_bytes = disk_bytes(path, folder_fd);
    return SW_OK;
}
