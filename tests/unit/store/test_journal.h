/* tests/unit/store/test_journal.h - a journal store in the world of the contract, and its files. */
#ifndef SW_TEST_JOURNAL_H
#define SW_TEST_JOURNAL_H

#include "contract.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

static inline enum sw_err open_journal(struct world *w, const char **ret_why)
{
    w->opt.path = sw_slice_cstr(w->folder);
    return sw_store_open_journal(&w->opt, &w->store, ret_why);
}

static const struct maker maker_journal __attribute__((unused)) = {"journal", true, open_journal};

/* A file in memory. */
struct bytes {
    unsigned char *at;
    size_t len;
};

static inline struct bytes file_get(const char *folder, const char *name)
{
    char path[512];
    struct bytes b = {NULL, 0};
    int fd;
    off_t end;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    end = lseek(fd, 0, SEEK_END);
    b.at = malloc((size_t)end + 1);
    assert_non_null(b.at);
    while (b.len < (size_t)end) {
        ssize_t n = pread(fd, b.at + b.len, (size_t)end - b.len, (off_t)b.len);

        if (n <= 0) { /* it was cut while we read */
            break;
        }
        b.len += (size_t)n;
    }
    close(fd);
    return b;
}

static inline void file_put(const char *folder, const char *name, struct bytes b)
{
    char path[512];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, b.at, b.len), b.len);
    close(fd);
}

static inline bool is_segment(const char *name)
{
    size_t len = strlen(name);

    return len > 8 && strcmp(name + len - 8, ".journal") == 0;
}

/* Takes away all files of a folder but those that begin with `keep`. */
static inline void folder_empty(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *e;

    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL) {
        char path[512];

        if (e->d_name[0] != '.') {
            (void)snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
            assert_int_equal(unlink(path), 0);
        }
    }
    closedir(dir);
}

/* The segments of `from` as they are now, in the empty folder `to`: what a crash leaves, if the
 * disk has all that the kernel has. A segment that goes while this runs is not needed. */
static inline void folder_copy(const char *from, const char *to)
{
    DIR *dir = opendir(from);
    struct dirent *e;

    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL) {
        char path[512];

        (void)snprintf(path, sizeof(path), "%s/%s", from, e->d_name);
        if (is_segment(e->d_name) && access(path, F_OK) == 0) {
            struct bytes b = file_get(from, e->d_name);

            file_put(to, e->d_name, b);
            free(b.at);
        }
    }
    closedir(dir);
}

#endif
