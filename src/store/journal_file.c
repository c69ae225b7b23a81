/* store/journal_file.c - which segments are there; reads and writes of many bytes.
 *
 * Room       store/. Nothing here changes a segment; what is wrong is said for people.
 */
#include "store/journal_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* ---- segments -------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    const struct journal_segment *sa = a, *sb = b;

    return (sa->header.number > sb->header.number) - (sa->header.number < sb->header.number);
}

enum sw_err sw_journal__segment_open(const char *folder, int folder_fd, uint64_t number,
                                     int *ret_fd, const char **ret_why)
{
    char name[JOURNAL_NAME_BYTES];
    int fd;

    sw_journal__segment_name(name, number);
    fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return sw_store__refuse(sw_store__errno(errno), ret_why, "store %s/%s: %s", folder, name,
                                strerror(errno));
    }
    *ret_fd = fd;
    return SW_OK;
}

static enum sw_err segment_head(struct sw_slice folder, int folder_fd, uint64_t number,
                                struct journal_segment *seg, const char **ret_why)
{
    unsigned char head[JOURNAL_HEADER_BYTES];
    char name[JOURNAL_NAME_BYTES];
    SW_CLEANUP(sw_store__fd_close) int fd = -1;
    struct stat st;
    uint32_t format;
    int error;

    sw_journal__segment_name(name, number);
    fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        return sw_store__refuse(sw_store__errno(errno), ret_why, "store %.*s/%s: %s",
                                SW_SARG(folder), name, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return sw_store__refuse(SW_E_STORE_FORMAT, ret_why, "store %.*s/%s: no regular file",
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
        return sw_store__refuse(sw_store__errno(error), ret_why, "store %.*s/%s: %s",
                                SW_SARG(folder), name, strerror(error));
    }
    seg->err = sw_journal__header_read(head, &seg->header, &format);
    if (seg->err == SW_E_STORE_FORMAT && format != 0) {
        return sw_store__refuse(
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
        err = sw_store__refuse(sw_store__errno(errno), ret_why, "store %.*s: %s", SW_SARG(folder),
                               strerror(errno));
        sw_store__fd_close(&fd);
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
                err = sw_store__refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
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
