/* keysets/file.c - a key set in a file, read whole at each look.
 *
 * Whether a file is another one than before is not asked of its times and size: within one tick of
 * the file system's clock two writes look alike. Reading a few kilobytes costs less than that
 * doubt.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keysets/keysets_priv.h"

bool sw_keysets__file_read(const char *path, char *to, size_t cap, size_t *ret_len,
                           const char **ret_why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO must not hold us */
    struct stat st;
    size_t len = 0;

    if (fd < 0) {
        *ret_why = strerror(errno);
        return false;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        *ret_why = "it is no regular file";
        close(fd);
        return false;
    }
    while (len < cap) {
        ssize_t n = read(fd, to + len, cap - len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            *ret_why = strerror(errno);
            close(fd);
            return false;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    close(fd);
    *ret_len = len;
    return true;
}
