/* store/folder.c - the folder of an embedded store: whose it is, its lock, a new one for a backup.
 *
 * Room       store/, for every store that keeps files. Nothing here overwrites anything; what is
 *            wrong is said for people.
 */
#include "store/store_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static _Thread_local char why_text[1024];

enum sw_err sw_store__refuse(enum sw_err err, const char **ret_why, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(why_text, sizeof(why_text), fmt, ap);
    va_end(ap);
    *ret_why = why_text;
    return err;
}

enum sw_err sw_store__errno(int error)
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

uint64_t sw_store__clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * SW_NS_PER_S + (uint64_t)ts.tv_nsec;
}

void sw_store__fd_close(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

/* ---- the folder ------------------------------------------------------------------------------ */

void sw_store__path_join(char out[STORE_PATH_BYTES_MAX], struct sw_slice folder, const char *name)
{
    int n = snprintf(out, STORE_PATH_BYTES_MAX, "%.*s/%s", SW_SARG(folder), name);

    SW_ASSERT(n > 0 && n < STORE_PATH_BYTES_MAX); /* sw_store__path_ok looked at its length */
}

bool sw_store__path_ok(struct sw_slice folder)
{
    return folder.len > 0 && folder.len <= STORE_PATH_BYTES_MAX - STORE_NAME_BYTES_MAX;
}

static bool is_segment(const char *name)
{
    struct sw_slice all = sw_slice_cstr(name), suffix = SW_S(".journal");

    return all.len > suffix.len && sw_slice_eq(sw_slice_tail(all, all.len - suffix.len), suffix);
}

/* Is there a segment of a journal in it? */
static bool holds_journal(int folder_fd)
{
    int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    bool found = false;
    struct dirent *e;

    if (dir == NULL) {
        sw_store__fd_close(&fd);
        return false; /* who opens the store will be told why */
    }
    while (!found && (e = readdir(dir)) != NULL) {
        found = is_segment(e->d_name);
    }
    closedir(dir);
    return found;
}

enum sw_err sw_store__folder_kind(struct sw_slice folder, int folder_fd, enum store_files files,
                                  const char **ret_why)
{
    switch (files) {
    case STORE_FILES_LMDB:
        return !holds_journal(folder_fd)
                   ? SW_OK
                   : sw_store__refuse(SW_E_STORE_FORMAT, ret_why,
                                      "store %.*s: the folder holds a journal store; it was left "
                                      "as it is; write journal:%.*s, or name another folder",
                                      SW_SARG(folder), SW_SARG(folder));
    case STORE_FILES_JOURNAL:
        return faccessat(folder_fd, "data.mdb", F_OK, 0) != 0
                   ? SW_OK
                   : sw_store__refuse(SW_E_STORE_FORMAT, ret_why,
                                      "store %.*s: the folder holds an lmdb store (data.mdb); it "
                                      "was left as it is; write lmdb:%.*s, or name another folder",
                                      SW_SARG(folder), SW_SARG(folder));
    }
    SW_UNREACHABLE();
}

enum sw_err sw_store__folder_open(struct sw_slice folder, enum store_files files, bool make,
                                  int *ret_fd, const char **ret_why)
{
    char path[STORE_PATH_BYTES_MAX];
    struct statfs fs;
    enum sw_err err;
    int fd;

    if (!sw_store__path_ok(folder)) {
        return sw_store__refuse(SW_E_LIMIT, ret_why,
                                "store: the path of its folder is empty or too long");
    }
    (void)snprintf(path, sizeof(path), "%.*s", SW_SARG(folder));
    if (make && mkdir(path, 0700) != 0 && errno != EEXIST) {
        return sw_store__refuse(sw_store__errno(errno), ret_why,
                                "store %s: the folder cannot be made: %s%s", path, strerror(errno),
                                errno == ENOENT ? "; make the folder above it first" : "");
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return sw_store__refuse(errno == ENOENT ? SW_E_NOT_FOUND : sw_store__errno(errno), ret_why,
                                "store %s: %s", path, strerror(errno));
    }
    if (fstatfs(fd, &fs) == 0 &&
        (fs.f_type == 0x6969 || (uint32_t)fs.f_type == 0xff534d42u || fs.f_type == 0x517b ||
         (uint32_t)fs.f_type == 0xfe534d42u)) { /* NFS, CIFS, SMB, SMB2 */
        close(fd);
        return sw_store__refuse(
            SW_E_UNSUPPORTED, ret_why,
            "store %s: on a network file system, whose locks and maps cannot be relied on; "
            "name a folder on a local disk",
            path);
    }
    err = sw_store__folder_kind(folder, fd, files, ret_why);
    if (err != SW_OK) {
        close(fd);
        return err;
    }
    *ret_fd = fd;
    return SW_OK;
}

enum sw_err sw_store__lock_take(struct sw_slice folder, int folder_fd, int *ret_fd,
                                const char **ret_why)
{
    char pid[32] = "";
    int fd = openat(folder_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), n;

    if (fd < 0) {
        return sw_store__refuse(sw_store__errno(errno), ret_why, "store %.*s/lock: %s",
                                SW_SARG(folder), strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int error = errno;
        ssize_t got = pread(fd, pid, sizeof(pid) - 1, 0);

        pid[got > 0 ? strcspn(pid, "\n") : 0] = '\0';
        close(fd);
        if (error != EWOULDBLOCK) {
            return sw_store__refuse(SW_E_STORE_IO, ret_why, "store %.*s/lock: %s", SW_SARG(folder),
                                    strerror(error));
        }
        return sw_store__refuse(
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

/* ---- a new one for a backup ------------------------------------------------------------------ */

/* The files of a store, and the folder if nothing else is in it. */
static void part_remove(int fd, const char *path)
{
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    struct dirent *e;

    if (dir == NULL) {
        sw_store__fd_close(&again);
        return;
    }
    while ((e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, "data.mdb") == 0 || is_segment(e->d_name)) {
            (void)unlinkat(fd, e->d_name, 0);
        }
    }
    closedir(dir);
    (void)rmdir(path);
}

/* Of one that was killed, or of none: its lock is free. */
static void part_sweep(const char *path)
{
    SW_CLEANUP(sw_store__fd_close)
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        part_remove(fd, path);
    }
}

/* The folder above. */
static void above_of(const char *path, char ret_above[STORE_PATH_BYTES_MAX])
{
    char *slash;

    (void)snprintf(ret_above, STORE_PATH_BYTES_MAX, "%s", path);
    slash = strrchr(ret_above, '/');
    if (slash == NULL) {
        (void)snprintf(ret_above, STORE_PATH_BYTES_MAX, ".");
    } else {
        slash[slash == ret_above ? 1 : 0] = '\0';
    }
}

#define PART_SUFFIX ".part-"
#define PART_X      "XXXXXX"

/* "copy.part-a1B2c3" of "copy". */
static bool is_part_of(const char *name, const char *base)
{
    size_t len = strlen(base), suffix = sizeof(PART_SUFFIX) - 1;

    return strncmp(name, base, len) == 0 && strncmp(name + len, PART_SUFFIX, suffix) == 0 &&
           strlen(name + len + suffix) == sizeof(PART_X) - 1;
}

static void parts_sweep(const char *to)
{
    const char *slash = strrchr(to, '/'), *base = slash == NULL ? to : slash + 1;
    char above[STORE_PATH_BYTES_MAX], path[2 * STORE_PATH_BYTES_MAX];
    struct dirent *e;
    DIR *dir;

    above_of(to, above);
    dir = opendir(above);
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (is_part_of(e->d_name, base) &&
            snprintf(path, sizeof(path), "%s/%s", above, e->d_name) < (int)sizeof(path)) {
            part_sweep(path);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

/* Made, open and locked. 0, or an errno. */
static int part_begin(struct store_part *p)
{
    struct stat st;

    for (;;) {
        (void)snprintf(p->part, sizeof(p->part), "%.*s" PART_SUFFIX PART_X,
                       STORE_PATH_BYTES_MAX - STORE_NAME_BYTES_MAX, p->to);
        if (mkdtemp(p->part) == NULL) {
            return errno;
        }
        p->fd = open(p->part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (p->fd >= 0 && flock(p->fd, LOCK_EX | LOCK_NB) == 0 && fstat(p->fd, &st) == 0 &&
            st.st_nlink > 0) {
            return 0;
        }
        /* another one that begins took it for one that was killed, before it was locked */
        if (p->fd < 0 && errno != ENOENT) {
            return errno;
        }
        sw_store__fd_close(&p->fd);
    }
}

enum sw_err sw_store__part_make(struct sw_slice to, struct store_part *p, const char **ret_why)
{
    struct stat st;
    int error;

    while (to.len > 1 && to.ptr[to.len - 1] == '/') {
        to.len--;
    }
    if (!sw_store__path_ok(to)) {
        return sw_store__refuse(SW_E_LIMIT, ret_why,
                                "store: the path of the backup is empty or too long");
    }
    (void)snprintf(p->to, sizeof(p->to), "%.*s", SW_SARG(to));
    if (lstat(p->to, &st) == 0) {
        return sw_store__refuse(SW_E_STORE_IO, ret_why,
                                "store: %s is there already; a backup wants a folder that is not",
                                p->to);
    }
    parts_sweep(p->to);
    error = part_begin(p);
    if (error != 0) {
        return sw_store__refuse(sw_store__errno(error), ret_why, "store: %s cannot be made: %s%s",
                                p->to, strerror(error),
                                error == ENOENT ? "; make the folder above it first" : "");
    }
    return SW_OK;
}

/* The folder gets its name, unless that was taken meanwhile; the name is then made to last. */
static int folder_name(const char *part, const char *to)
{
    SW_CLEANUP(sw_store__fd_close) int fd = -1;
    char above[STORE_PATH_BYTES_MAX];

    if (renameat2(AT_FDCWD, part, AT_FDCWD, to, RENAME_NOREPLACE) != 0 &&
        (errno != EINVAL || access(to, F_OK) == 0 || rename(part, to) != 0)) {
        return errno == EINVAL ? EEXIST : errno;
    }
    above_of(to, above);
    fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) != 0 ? errno : 0;
}

enum sw_err sw_store__part_name(struct store_part *p, const char **ret_why)
{
    int error = folder_name(p->part, p->to);

    if (error != 0) {
        sw_store__part_drop(p);
        return sw_store__refuse(sw_store__errno(error), ret_why, "store: %s cannot be made: %s",
                                p->to, strerror(error));
    }
    sw_store__fd_close(&p->fd);
    return SW_OK;
}

void sw_store__part_drop(struct store_part *p)
{
    part_remove(p->fd, p->part);
    sw_store__fd_close(&p->fd);
}
