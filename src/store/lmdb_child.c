/* store/lmdb_child.c - work on a file that may be damaged, in a process of its own.
 *
 * Room       store/. For commands; not in a gateway.
 *
 * LMDB maps the file and follows what it finds there: a wrong page number or length ends the
 * process. So who looks at a file that may be damaged does so in a child, and a child that died of
 * it has found something out. A process must not open an LMDB file twice: that is the other reason.
 */
#include "store/lmdb_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_BYTES_MAX 512

void sw_lmdb__complain(struct lmdb_child *c, const char *fmt, ...)
{
    char line[LINE_BYTES_MAX];
    va_list ap;
    int n;

    if (c->said++ >= LMDB_SAID_MAX) {
        return;
    }
    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
    va_end(ap);
    n = SW_MIN(SW_MAX(n, 0), (int)sizeof(line) - 2);
    line[n] = '\n';
    if (write(c->pipe, line, (size_t)n + 1) < 0) {
        _exit(1); /* nobody listens any more */
    }
}

static void child_run(struct lmdb_child *c, lmdb_child_fn *fn, void *arg)
{
    static const int ends[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGTRAP};
    const char *why = "";

    for (size_t i = 0; i < SW_COUNTOF(ends); i++) {
        (void)signal(ends[i], SIG_DFL);
    }
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    c->err = fn(c, arg, &why);
    (void)snprintf(c->why, sizeof(c->why), "%s", why);
    c->done = true;
    _exit(0);
}

/* Lines from the pipe, until the child has closed it. */
static void listen_to(int fd, void (*complain)(void *arg, const char *text), void *arg)
{
    char text[LINE_BYTES_MAX * 2];
    size_t len = 0;

    for (;;) {
        ssize_t got = read(fd, text + len, sizeof(text) - len);
        char *end;

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return;
        }
        len += (size_t)got;
        while ((end = memchr(text, '\n', len)) != NULL) {
            *end = '\0';
            complain(arg, text);
            len -= (size_t)(end + 1 - text);
            memmove(text, end + 1, len);
        }
        SW_ASSERT(len < sizeof(text)); /* no line is longer */
    }
}

/* How the child ended, when it did not say so itself. */
static enum sw_err child_died(int status, uint32_t said,
                              void (*complain)(void *arg, const char *text), void *arg,
                              const char **ret_why)
{
    char text[160];
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

    if (sig != SIGSEGV && sig != SIGBUS && sig != SIGABRT && sig != SIGILL && sig != SIGFPE &&
        sig != SIGTRAP) {
        return sw_store__refuse(SW_E_SYSTEM, ret_why, "store: the reading process was ended (%s)",
                                sig != 0 ? strsignal(sig) : "it exited");
    }
    (void)snprintf(text, sizeof(text),
                   "reading it ended in a crash (%s): a page holds what no page can hold",
                   strsignal(sig));
    if (said < LMDB_SAID_MAX) {
        complain(arg, text);
    }
    return sw_store__refuse(SW_E_STORE_CORRUPT, ret_why,
                            "store: %s; restore it from a backup, or move it away to begin with an "
                            "empty store",
                            text);
}

enum sw_err sw_lmdb__in_child(lmdb_child_fn *fn, void *arg,
                              void (*complain)(void *arg, const char *text), void *complain_arg,
                              struct sw_store_checked *ret_checked, const char **ret_why)
{
    struct lmdb_child *c =
        mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    enum sw_err err;
    int fds[2], status = 0;
    pid_t pid;

    if (c == MAP_FAILED) {
        return sw_store__refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
    }
    if (pipe2(fds, O_CLOEXEC) != 0) {
        munmap(c, sizeof(*c));
        return sw_store__refuse(SW_E_SYSTEM, ret_why, "store: no pipe: %s", strerror(errno));
    }
    c->pipe = fds[1];
    pid = fork();
    if (pid == 0) {
        child_run(c, fn, arg);
    }
    close(fds[1]);
    if (pid < 0) {
        err = sw_store__refuse(SW_E_SYSTEM, ret_why, "store: no process: %s", strerror(errno));
    } else {
        listen_to(fds[0], complain, complain_arg);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        err = c->done ? c->err : child_died(status, c->said, complain, complain_arg, ret_why);
        if (c->done && err != SW_OK) {
            (void)sw_store__refuse(err, ret_why, "%s", c->why);
        }
        if (ret_checked != NULL) {
            *ret_checked = c->checked;
        }
    }
    close(fds[0]);
    munmap(c, sizeof(*c));
    return err;
}

/* ---- the file -------------------------------------------------------------------------------- */

enum sw_err sw_lmdb__source_failed(const struct lmdb_source *x, int rc, const char **ret_why)
{
    enum sw_err err = sw_lmdb__err(rc);

    SW_ASSERT(rc != 0);
    return sw_store__refuse(err, ret_why, "store %s: %s%s", x->s.path, mdb_strerror(rc),
                            err == SW_E_STORE_CORRUPT ? "; restore it from a backup"
                            : err == SW_E_STORE_BUSY
                                ? "; too many commands read it at once: try again"
                            : err == SW_E_PERMISSION ? "; run it as the user that runs the gateway"
                                                     : "");
}

/* Our own descriptor and flock; data.mdb may be replaced (`compact`) until we have it. */
static enum sw_err file_hold(struct lmdb_source *x, bool alone, const char **ret_why)
{
    struct stat ours, named;

    for (;;) {
        x->file_fd = open(x->s.path, O_RDONLY | O_CLOEXEC);
        if (x->file_fd < 0) {
            return sw_lmdb__source_failed(x, errno, ret_why);
        }
        if (!alone && flock(x->file_fd, LOCK_SH | LOCK_NB) != 0) {
            return sw_store__refuse(SW_E_STORE_LOCKED, ret_why,
                                    "store %s: `stateway store compact` is at work on it; wait "
                                    "until that has ended",
                                    x->s.path);
        }
        if (fstat(x->file_fd, &ours) != 0 || stat(x->s.path, &named) != 0) {
            return sw_lmdb__source_failed(x, errno, ret_why);
        }
        if (ours.st_ino == named.st_ino) {
            break;
        }
        close(x->file_fd);
    }
    x->file_bytes = (uint64_t)ours.st_blocks * 512; /* it is sparse */
    return SW_OK;
}

/* Who makes LMDB's lock file as root gives it to the owner of the store, who needs it too. */
static void lock_file_give(const struct lmdb_source *x, const char *path)
{
    struct stat st;

    if (geteuid() == 0 && fstat(x->file_fd, &st) == 0 && st.st_uid != 0) {
        (void)!lchown(path, st.st_uid, st.st_gid);
    }
}

/* LMDB would tell the terminal. */
static void on_assert(MDB_env *env, const char *text)
{
    (void)env;
    (void)text;
    abort();
}

static int env_start(struct lmdb_source *x, bool alone)
{
    struct lmdb_store *s = &x->s;
    char lock[STORE_PATH_BYTES_MAX + 8];
    MDB_envinfo info;
    MDB_stat stat;
    bool had_lock;
    int rc, dead;

    (void)snprintf(lock, sizeof(lock), "%s-lock", s->path);
    had_lock = access(lock, F_OK) == 0;
    rc = mdb_env_create(&s->env);
    if (rc != 0) {
        s->env = NULL;
        return rc;
    }
    if ((rc = mdb_env_set_assert(s->env, on_assert)) != 0 ||
        (rc = mdb_env_set_maxdbs(s->env, LMDB_DBS_MAX)) != 0 ||
        (rc = mdb_env_open(s->env, s->path,
                           MDB_NOSUBDIR | MDB_NOTLS | MDB_RDONLY | (alone ? MDB_NOLOCK : 0u),
                           0600)) != 0) {
        return rc;
    }
    if (!alone && !had_lock) {
        lock_file_give(x, lock);
    }
    (void)mdb_reader_check(s->env, &dead); /* slots of killed processes */
    rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &x->txn);
    if (rc == MDB_MAP_RESIZED) { /* it grew while we opened it */
        rc = mdb_env_set_mapsize(s->env, 0);
        rc = rc != 0 ? rc : mdb_txn_begin(s->env, NULL, MDB_RDONLY, &x->txn);
    }
    if (rc != 0 || (rc = mdb_env_info(s->env, &info)) != 0 ||
        (rc = mdb_env_stat(s->env, &stat)) != 0) {
        return rc;
    }
    s->page_bytes = stat.ms_psize;
    s->last_page = info.me_last_pgno;
    x->map_bytes = info.me_mapsize;
    return 0;
}

/* Perhaps the folder is another store's. */
static enum sw_err file_missing(const char *path, struct sw_slice folder, const char **ret_why)
{
    SW_CLEANUP(sw_store__fd_close) int fd = -1;
    enum sw_err err = sw_store__folder_open(folder, STORE_FILES_LMDB, false, &fd, ret_why);

    return err == SW_E_STORE_FORMAT
               ? err
               : sw_store__refuse(SW_E_NOT_FOUND, ret_why, "store %s: there is no such file", path);
}

enum sw_err sw_lmdb__source_open(struct lmdb_source *x, struct sw_slice folder, bool alone,
                                 const char **ret_why)
{
    struct lmdb_store *s = &x->s;
    enum sw_err err;
    int rc;

    memset(x, 0, sizeof(*x));
    x->file_fd = -1;
    if (!sw_store__path_ok(folder)) {
        return sw_store__refuse(SW_E_LIMIT, ret_why,
                                "store: the path of its folder is empty or too long");
    }
    sw_store__path_join(s->path, folder, "data.mdb");
    err = sw_lmdb__file_check(s->path, ret_why);
    if (err == SW_E_NOT_FOUND) {
        return file_missing(s->path, folder, ret_why);
    }
    if (err == SW_OK) {
        err = file_hold(x, alone, ret_why);
    }
    if (err != SW_OK) {
        return err;
    }
    rc = env_start(x, alone);
    if (rc != 0) {
        return sw_lmdb__source_failed(x, rc, ret_why);
    }
    rc = sw_lmdb__dbs_open_in(s, x->txn, &x->meta);
    if (rc != 0 && rc != MDB_NOTFOUND && rc != MDB_INCOMPATIBLE) {
        return sw_lmdb__source_failed(x, rc, ret_why);
    }
    err = sw_lmdb__meta_check(s->path, &x->meta, ret_why);
    if (err == SW_OK && rc != 0) {
        err = sw_store__refuse(SW_E_STORE_CORRUPT, ret_why,
                               "store %s: a part of it is missing; restore it from a backup",
                               s->path);
    }
    return err;
}

void sw_lmdb__source_close(struct lmdb_source *x)
{
    mdb_txn_abort(sw_take(&x->txn));
    sw_lmdb__env_close(&x->s);
    sw_store__fd_close(&x->file_fd);
}
