/* store/journal_file.c - the folder, its lock, and which segments are there.
 *
 * Room       store/. Nothing here changes a segment; what is wrong is said for people.
 */
#include "store/journal_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static _Thread_local char why_text[1024];

enum sw_err sw_journal__refuse(enum sw_err err, const char **ret_why, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(why_text, sizeof(why_text), fmt, ap);
    va_end(ap);
    *ret_why = why_text;
    return err;
}

enum sw_err sw_journal__err(int error)
{
    switch (error) {
    case 0:
        return SW_OK;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return SW_E_STORE_FULL;
    case ENOMEM:
        return SW_E_NO_MEMORY;
    case EACCES:
    case EPERM:
    case EROFS:
        return SW_E_PERMISSION;
    default:
        return SW_E_STORE_IO;
    }
}

uint64_t sw_journal__clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * SW_NS_PER_S + (uint64_t)ts.tv_nsec;
}

void sw_journal__fd_close(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

int sw_journal__write_all(int fd, struct iovec *iov, int count, uint64_t at)
{
    while (count > 0) {
        ssize_t n = pwritev(fd, iov, count, (off_t)at);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? errno : EIO;
        }
        at += (uint64_t)n;
        while (count > 0 && (size_t)n >= iov->iov_len) {
            n -= (ssize_t)iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0) { /* the disk took a part of it: go on behind that */
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    return 0;
}

int sw_journal__read_all(int fd, void *to, size_t len, uint64_t at)
{
    size_t got = 0;

    while (got < len) {
        ssize_t n = pread(fd, (char *)to + got, len - got, (off_t)(at + got));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? errno : EIO; /* it became shorter while we read */
        }
        got += (size_t)n;
    }
    return 0;
}

/* ---- the folder ------------------------------------------------------------------------------ */

enum sw_err sw_journal__folder_open(struct sw_slice folder, int *ret_fd, const char **ret_why)
{
    char path[JOURNAL_PATH_BYTES_MAX];
    struct statfs fs;
    int fd;

    if (folder.len == 0 || folder.len >= sizeof(path)) {
        return sw_journal__refuse(SW_E_LIMIT, ret_why,
                                  "store: the path of its folder is empty or too long");
    }
    (void)snprintf(path, sizeof(path), "%.*s", SW_SARG(folder));
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return sw_journal__refuse(
            sw_journal__err(errno), ret_why, "store %s: the folder cannot be made: %s%s", path,
            strerror(errno), errno == ENOENT ? "; make the folder above it first" : "");
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return sw_journal__refuse(sw_journal__err(errno), ret_why, "store %s: %s", path,
                                  strerror(errno));
    }
    if (fstatfs(fd, &fs) == 0 &&
        (fs.f_type == 0x6969 || (uint32_t)fs.f_type == 0xff534d42u || fs.f_type == 0x517b ||
         (uint32_t)fs.f_type == 0xfe534d42u)) { /* NFS, CIFS, SMB, SMB2 */
        close(fd);
        return sw_journal__refuse(
            SW_E_UNSUPPORTED, ret_why,
            "store %s: on a network file system, whose locks cannot be relied on; name a folder "
            "on a local disk",
            path);
    }
    if (faccessat(fd, "data.mdb", F_OK, 0) == 0) {
        close(fd);
        return sw_journal__refuse(
            SW_E_STORE_FORMAT, ret_why,
            "store %s: the folder holds an lmdb store (data.mdb); it was left "
            "as it is; name another folder",
            path);
    }
    *ret_fd = fd;
    return SW_OK;
}

enum sw_err sw_journal__lock_take(struct sw_slice folder, int folder_fd, int *ret_fd,
                                  const char **ret_why)
{
    char pid[32] = "";
    int fd = openat(folder_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), n;

    if (fd < 0) {
        return sw_journal__refuse(sw_journal__err(errno), ret_why, "store %.*s/lock: %s",
                                  SW_SARG(folder), strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int error = errno;
        ssize_t got = pread(fd, pid, sizeof(pid) - 1, 0);

        pid[got > 0 ? strcspn(pid, "\n") : 0] = '\0';
        close(fd);
        if (error != EWOULDBLOCK) {
            return sw_journal__refuse(SW_E_STORE_IO, ret_why, "store %.*s/lock: %s",
                                      SW_SARG(folder), strerror(error));
        }
        return sw_journal__refuse(
            SW_E_STORE_LOCKED, ret_why,
            "store %.*s: process %s has it open; stop that one, or name another folder",
            SW_SARG(folder), pid[0] != '\0' ? pid : "(unknown)");
    }
    n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    /* only a help for people: an error does not matter */
    if (ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)n, 0) != n && ftruncate(fd, 0) != 0) {
        errno = 0; /* half a number stays */
    }
    *ret_fd = fd;
    return SW_OK;
}

/* ---- segments -------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    const struct journal_segment *sa = a, *sb = b;

    return (sa->header.number > sb->header.number) - (sa->header.number < sb->header.number);
}

static enum sw_err segment_head(struct sw_slice folder, int folder_fd, uint64_t number,
                                struct journal_segment *seg, const char **ret_why)
{
    unsigned char head[JOURNAL_HEADER_BYTES];
    char name[JOURNAL_NAME_BYTES];
    SW_CLEANUP(sw_journal__fd_close) int fd = -1;
    struct stat st;
    uint32_t format;
    int error;

    sw_journal__segment_name(name, number);
    fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        return sw_journal__refuse(sw_journal__err(errno), ret_why, "store %.*s/%s: %s",
                                  SW_SARG(folder), name, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return sw_journal__refuse(SW_E_STORE_FORMAT, ret_why, "store %.*s/%s: no regular file",
                                  SW_SARG(folder), name);
    }
    *seg = (struct journal_segment){.file_bytes = (uint64_t)st.st_size};
    seg->header.number = number; /* if it cannot be read */
    if (seg->file_bytes < sizeof(head)) {
        seg->err = SW_E_STORE_CORRUPT;
        return SW_OK;
    }
    error = sw_journal__read_all(fd, head, sizeof(head), 0);
    if (error != 0) {
        return sw_journal__refuse(sw_journal__err(error), ret_why, "store %.*s/%s: %s",
                                  SW_SARG(folder), name, strerror(error));
    }
    seg->err = sw_journal__header_read(head, &seg->header, &format);
    if (seg->err == SW_E_STORE_FORMAT && format != 0) {
        return sw_journal__refuse(
            SW_E_STORE_FORMAT, ret_why,
            "store %.*s/%s: format %u, this stateway knows format %u; use the stateway that wrote "
            "it, or name another folder",
            SW_SARG(folder), name, format, JOURNAL_FORMAT);
    }
    if (seg->err == SW_OK && seg->header.number != number) {
        seg->err = SW_E_STORE_CORRUPT; /* renamed by somebody */
    }
    seg->header.number = number;
    return SW_OK;
}

enum sw_err sw_journal__segments_list(struct sw_slice folder, int folder_fd,
                                      struct journal_segment **ret_segments, size_t *ret_count,
                                      const char **ret_why)
{
    struct journal_segment *all = NULL, *more;
    size_t count = 0, cap = 0;
    int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    enum sw_err err = SW_OK;
    struct dirent *e;

    if (dir == NULL) {
        err = sw_journal__refuse(sw_journal__err(errno), ret_why, "store %.*s: %s", SW_SARG(folder),
                                 strerror(errno));
        sw_journal__fd_close(&fd);
        return err;
    }
    while (err == SW_OK && (e = readdir(dir)) != NULL) {
        uint64_t number;

        if (!sw_journal__segment_name_read(e->d_name, &number)) {
            continue;
        }
        if (count == cap) {
            cap = cap == 0 ? 16 : 2 * cap;
            more = realloc(all, cap * sizeof(*all));
            if (more == NULL) {
                err = sw_journal__refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
                break;
            }
            all = more;
        }
        err = segment_head(folder, folder_fd, number, &all[count], ret_why);
        count++;
    }
    closedir(dir);
    if (err != SW_OK) {
        free(all);
        return err;
    }
    if (count > 0) {
        qsort(all, count, sizeof(*all), by_number);
    }
    *ret_segments = all;
    *ret_count = count;
    return SW_OK;
}
