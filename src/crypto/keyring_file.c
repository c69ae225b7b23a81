/* crypto/keyring_file.c - where the key ring lies: a file that is made once and replaced whole, or
 * the environment.
 */
#include "crypto/keyring_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATH_BYTES_MAX 4096
#define LOCK_LOOK_MS   20u /* between two tries */

static void fd_close(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

static enum sw_err sys_err(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
        return SW_E_PERMISSION;
    case ENOENT:
    case ENOTDIR:
        return SW_E_NOT_FOUND;
    default:
        return SW_E_SYSTEM;
    }
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* systemd hands over credentials below a folder of their own: read-only, and where the service has
 * a user of its own, with that user in an ACL, which looks like a mode of 0440. */
static bool is_credential(const char *path)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    size_t len = folder == NULL ? 0 : strlen(folder);

    return len > 0 && strncmp(path, folder, len) == 0 && path[len] == '/' &&
           strstr(path + len, "/../") == NULL;
}

static enum sw_err file_check(const char *path, int fd, const char **ret_why)
{
    mode_t others = 077;
    struct stat st;

    if (fstat(fd, &st) != 0) {
        return sw_keyring__refuse(SW_E_SYSTEM, ret_why, "key ring %s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return sw_keyring__refuse(SW_E_PERMISSION, ret_why, "key ring %s: no regular file", path);
    }
    if (st.st_uid == 0 && is_credential(path)) {
        others = 037;
    }
    if ((st.st_mode & others) != 0) {
        return sw_keyring__refuse(SW_E_PERMISSION, ret_why,
                                  "key ring %s: mode %03o lets others at the secrets; take it away "
                                  "with: chmod 600 %s",
                                  path, (unsigned)st.st_mode & 0777u, path);
    }
    if (st.st_uid != geteuid() && st.st_uid != 0) {
        return sw_keyring__refuse(SW_E_PERMISSION, ret_why,
                                  "key ring %s: belongs to user %u, stateway runs as %u", path,
                                  (unsigned)st.st_uid, (unsigned)geteuid());
    }
    return SW_OK;
}

/* A parser's complaint, with the place in front. */
static enum sw_err parse(const char *where, struct sw_slice text, struct sw_keyring *ret_ring,
                         const char **ret_why)
{
    char said[512];
    enum sw_err err = sw_keyring_parse(text, ret_ring, ret_why);

    if (err != SW_OK) {
        (void)snprintf(said, sizeof(said), "%s", *ret_why);
        err = sw_keyring__refuse(err, ret_why, "%s: %s", where, said);
    }
    return err;
}

static enum sw_err file_read(const char *path, int fd, struct sw_keyring *ret_ring,
                             const char **ret_why)
{
    char text[SW_KEYRING_BYTES_MAX + 1];
    size_t len = 0;
    enum sw_err err = file_check(path, fd, ret_why);

    if (err != SW_OK) {
        return err;
    }
    while (len < sizeof(text)) {
        ssize_t n = read(fd, text + len, sizeof(text) - len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            OPENSSL_cleanse(text, len);
            return sw_keyring__refuse(SW_E_SYSTEM, ret_why, "key ring %s: %s", path,
                                      strerror(errno));
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    if (len > SW_KEYRING_BYTES_MAX) {
        err = sw_keyring__refuse(SW_E_LIMIT, ret_why, "key ring %s: longer than %d bytes", path,
                                 SW_KEYRING_BYTES_MAX);
    } else {
        err = parse(path, sw_slice_of(text, len), ret_ring, ret_why);
    }
    OPENSSL_cleanse(text, len);
    return err;
}

static int file_open(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

static enum sw_err path_check(const char *path, const char **ret_why)
{
    return strlen(path) < PATH_BYTES_MAX
               ? SW_OK
               : sw_keyring__refuse(SW_E_LIMIT, ret_why, "key ring: the path is too long");
}

enum sw_err sw_keyring_read(const char *path, struct sw_keyring *ret_ring, const char **ret_why)
{
    SW_CLEANUP(fd_close) int fd = -1;
    enum sw_err err = path_check(path, ret_why);

    if (err != SW_OK) {
        return err;
    }
    fd = file_open(path);
    if (fd < 0) {
        return sw_keyring__refuse(sys_err(errno), ret_why, "key ring %s: %s", path,
                                  strerror(errno));
    }
    return file_read(path, fd, ret_ring, ret_why);
}

enum sw_err sw_keyring_from_env(struct sw_keyring *ret_ring, const char **ret_why)
{
    const char *text = getenv(SW_KEYS_ENV);

    if (text == NULL) {
        return sw_keyring__refuse(SW_E_NOT_FOUND, ret_why, "key ring: %s is not set", SW_KEYS_ENV);
    }
    return parse(SW_KEYS_ENV, sw_slice_cstr(text), ret_ring, ret_why);
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static bool write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        text += n;
        len -= (size_t)n;
    }
    return true;
}

/* The name must not be taken yet: whoever comes second uses the ring of the first. */
static bool rename_new(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
        return true;
    }
    if (errno != EINVAL && errno != ENOSYS) {
        return false;
    }
    /* file systems without that flag: a link never replaces either */
    return link(from, to) == 0 && unlink(from) == 0;
}

static bool folder_sync(const char *path)
{
    char folder[PATH_BYTES_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
    SW_CLEANUP(fd_close) int fd = -1;

    memcpy(folder, slash == NULL ? "." : path, len);
    folder[len] = '\0';
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0;
}

#define ASIDE_BYTES_MAX (PATH_BYTES_MAX + 32)

/* The ring beside path, on the disk. False: errno, and nothing is left of it. */
static bool write_aside(const char *path, const struct sw_keyring *ring, mode_t mode,
                        char ret_aside[ASIDE_BYTES_MAX])
{
    char text[SW_KEYRING_BYTES_MAX];
    struct sw_out out = sw_out_init(text, sizeof(text));
    SW_CLEANUP(fd_close) int fd = -1;
    uint64_t nonce;
    bool ok;
    int error;

    sw_random(&nonce, sizeof(nonce));
    (void)snprintf(ret_aside, ASIDE_BYTES_MAX, "%s.new-%016llx", path, (unsigned long long)nonce);
    fd = open(ret_aside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return false;
    }
    ok = sw_keyring_put(&out, ring);
    SW_ASSERT(ok);
    /* fchmod: a umask may have taken our own bits away too */
    ok = write_all(fd, out.ptr, out.len) && fchmod(fd, mode) == 0 && fsync(fd) == 0;
    error = errno;
    OPENSSL_cleanse(text, sizeof(text));
    if (!ok) {
        (void)unlink(ret_aside);
        errno = error;
    }
    return ok;
}

static enum sw_err file_make(const char *path, int64_t now_unix_s, const char **ret_why)
{
    char aside[ASIDE_BYTES_MAX];
    struct sw_keyring ring;
    bool ok;
    int error;

    sw_keyring_make(now_unix_s, &ring);
    ok = write_aside(path, &ring, 0600, aside);
    error = errno;
    OPENSSL_cleanse(&ring, sizeof(ring));
    if (!ok) {
        return sw_keyring__refuse(error == EACCES || error == EPERM ? SW_E_PERMISSION : SW_E_SYSTEM,
                                  ret_why,
                                  "key ring %s: cannot be made: %s; make the folder, writable for "
                                  "stateway",
                                  path, strerror(error));
    }
    if (rename_new(aside, path)) {
        (void)folder_sync(path); /* a lost name means a new ring after a crash: tolerable */
        return SW_OK;
    }
    error = errno;
    (void)unlink(aside);
    if (error == EEXIST) {
        return SW_OK; /* another process was first: its ring is read */
    }
    return sw_keyring__refuse(SW_E_SYSTEM, ret_why, "key ring %s: cannot be written: %s", path,
                              strerror(error));
}

enum sw_err sw_keyring_load(const char *path, int64_t now_unix_s, struct sw_keyring *ret_ring,
                            const char **ret_why)
{
    enum sw_err err = path_check(path, ret_why);

    if (err != SW_OK) {
        return err;
    }
    for (size_t turn = 0; turn < 3; turn++) {
        SW_CLEANUP(fd_close) int fd = file_open(path);

        if (fd >= 0) {
            return file_read(path, fd, ret_ring, ret_why);
        }
        if (errno != ENOENT) {
            return sw_keyring__refuse(errno == EACCES ? SW_E_PERMISSION : SW_E_SYSTEM, ret_why,
                                      "key ring %s: %s", path, strerror(errno));
        }
        err = file_make(path, now_unix_s, ret_why);
        if (err != SW_OK) {
            return err;
        }
    }
    return sw_keyring__refuse(SW_E_SYSTEM, ret_why, "key ring %s: somebody keeps removing it",
                              path);
}

/* ---- changing ---------------------------------------------------------------------------------
 */

static enum sw_err not_here(const char *path, int error, const char **ret_why)
{
    enum sw_err err = sys_err(error);

    if (err == SW_E_PERMISSION) {
        return sw_keyring__refuse(err, ret_why,
                                  "key ring %s: cannot be changed here: %s; what a service manager "
                                  "or a secret store hands over is changed where it comes from",
                                  path, strerror(error));
    }
    return sw_keyring__refuse(err, ret_why, "key ring %s: cannot be changed: %s", path,
                              strerror(error));
}

/* Ends with its process, so no lock is left behind by a crash; the file stays, empty. */
static enum sw_err lock_take(const char *path, uint32_t wait_ms, int *ret_fd, const char **ret_why)
{
    const struct timespec pause = {0, (long)LOCK_LOOK_MS * 1000000};
    char lock[PATH_BYTES_MAX + 8];
    int fd;

    (void)snprintf(lock, sizeof(lock), "%s.lock", path);
    fd = open(lock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return not_here(path, errno, ret_why);
    }
    for (uint32_t waited_ms = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited_ms += LOCK_LOOK_MS) {
        int error = errno;

        if (error != EWOULDBLOCK && error != EINTR) {
            close(fd);
            return not_here(path, error, ret_why);
        }
        if (waited_ms >= wait_ms) {
            close(fd);
            return sw_keyring__refuse(SW_E_CONFLICT, ret_why,
                                      "key ring %s: somebody else is changing it; try again", path);
        }
        (void)nanosleep(&pause, NULL);
    }
    *ret_fd = fd;
    return SW_OK;
}

static enum sw_err file_replace(const char *path, const struct sw_keyring *ring, mode_t mode,
                                const char **ret_why)
{
    char aside[ASIDE_BYTES_MAX];

    if (!write_aside(path, ring, mode, aside)) {
        return not_here(path, errno, ret_why);
    }
    if (rename(aside, path) != 0) {
        int error = errno;

        (void)unlink(aside);
        return not_here(path, error, ret_why);
    }
    /* A machine that crashes must not come back without a key that was used in between. */
    if (!folder_sync(path)) {
        return sw_keyring__refuse(
            SW_E_SYSTEM, ret_why,
            "key ring %s: it was changed, but its folder cannot be synced: %s", path,
            strerror(errno));
    }
    return SW_OK;
}

/* Files of version 1 do not tell when a key retired. Not later than now: that is on the safe side.
 */
static void times_fill(struct sw_keyring *ring, int64_t now_unix_s)
{
    for (size_t i = 0; i < ring->count; i++) {
        struct sw_key *key = &ring->keys[i];

        if (key->state == SW_KEY_RETIRED && key->retired_unix_s == 0) {
            key->retired_unix_s = SW_MAX(now_unix_s, 1);
        }
    }
}

/* Under the lock. */
static enum sw_err locked_change(const char *path, int64_t now_unix_s, sw_keyring_fn *fn, void *arg,
                                 struct sw_keyring *ring, const char **ret_why)
{
    SW_CLEANUP(fd_close) int fd = file_open(path);
    bool changed = false;
    struct stat st;
    enum sw_err err;

    if (fd < 0 || fstat(fd, &st) != 0) {
        return sw_keyring__refuse(sys_err(errno), ret_why, "key ring %s: %s", path,
                                  strerror(errno));
    }
    err = file_read(path, fd, ring, ret_why);
    if (err != SW_OK) {
        return err;
    }
    if (st.st_uid != geteuid()) {
        return not_here(path, EPERM, ret_why); /* the new file would be another user's */
    }
    times_fill(ring, now_unix_s);
    err = fn(arg, ring, &changed, ret_why);
    if (err == SW_OK && changed) {
        err = file_replace(path, ring, st.st_mode & 0700, ret_why);
    }
    return err;
}

enum sw_err sw_keyring_change(const char *path, uint32_t wait_ms, int64_t now_unix_s,
                              sw_keyring_fn *fn, void *arg, struct sw_keyring *ret_ring,
                              const char **ret_why)
{
    SW_CLEANUP(fd_close) int lock = -1;
    char real[PATH_MAX];
    struct sw_keyring ring = {.count = 0};
    enum sw_err err = path_check(path, ret_why);

    if (err != SW_OK) {
        return err;
    }
    if (realpath(path, real) == NULL) {
        return sw_keyring__refuse(sys_err(errno), ret_why, "key ring %s: %s", path,
                                  strerror(errno));
    }
    if (is_credential(path)) {
        return not_here(path, EROFS, ret_why);
    }
    err = lock_take(real, wait_ms, &lock, ret_why);
    if (err == SW_OK) {
        err = locked_change(real, now_unix_s, fn, arg, &ring, ret_why);
    }
    if (err == SW_OK) {
        *ret_ring = ring;
    }
    OPENSSL_cleanse(&ring, sizeof(ring));
    return err;
}
