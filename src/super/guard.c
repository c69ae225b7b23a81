/* super/guard.c - nobody is left behind, not even when the supervisor is killed by SIGKILL.
 *
 * Children of ours die with us by PR_SET_PDEATHSIG. Their children do not: so a small process in a
 * session of its own holds a pipe from us, learns of every process group by messages of fixed size,
 * and at end of file kills them all; then whatever left its group but still has our cookie in its
 * environment. It opens, closes and understands nothing else.
 */
#include "super/super_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SWEEP_ROUNDS     200
#define SWEEP_PAUSE_US   10000
#define ENVIRON_BYTES    ((size_t)64 * 1024) /* the cookie is the first variable we set */
#define FOLDER_DEPTH_MAX 16

enum guard_kind { GUARD_ADD = 1, GUARD_REMOVE };

struct guard_msg { /* pipe records: below PIPE_BUF, so written whole or not at all */
    int32_t kind;
    int32_t group;
};

/* ---- finding processes ----------------------------------------------------------------------- */

static bool environ_has(pid_t pid, const char *cookie, char *buf)
{
    char path[40], want[sizeof(SW_COOKIE_NAME) + SW_COOKIE_BYTES + 1];
    struct sw_slice left;
    size_t len = 0;
    int fd;

    snprintf(want, sizeof(want), "%s=%s", SW_COOKIE_NAME, cookie);
    snprintf(path, sizeof(path), "/proc/%d/environ", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    while (len < ENVIRON_BYTES) {
        ssize_t n = read(fd, buf + len, ENVIRON_BYTES - len);

        if (n <= 0) {
            break;
        }
        len += (size_t)n;
    }
    close(fd);
    left = sw_slice_of(buf, len);
    while (left.len > 0) {
        struct sw_slice one;

        sw_slice_cut(left, '\0', &one, &left);
        if (sw_slice_eq(one, sw_slice_cstr(want))) {
            return true;
        }
    }
    return false;
}

/* The parent of a process; 0 when it is gone. "PID (NAME) STATE PPID ...": the name may hold
 * anything, so the fields are counted from its last parenthesis. */
static pid_t parent_of(pid_t pid)
{
    char path[40], buf[512];
    const char *end;
    ssize_t n;
    int fd, parent = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    n = read(fd, buf, sizeof(buf) - 1);
    close(fd);
    if (n <= 0) {
        return 0;
    }
    buf[n] = '\0';
    end = strrchr(buf, ')');
    if (end == NULL || sscanf(end, ") %*c %d", &parent) != 1) {
        return 0;
    }
    return (pid_t)parent;
}

typedef bool process_fn(pid_t pid, const void *arg, char *buf);

static size_t processes_kill(process_fn *wanted, const void *arg)
{
    char buf[ENVIRON_BYTES];
    DIR *proc = opendir("/proc");
    const struct dirent *entry;
    size_t count = 0;

    if (proc == NULL) {
        return 0;
    }
    while ((entry = readdir(proc)) != NULL) {
        uint64_t pid;

        if (sw_slice_u64(sw_slice_cstr(entry->d_name), &pid) && pid > 1 && pid <= INT_MAX &&
            (pid_t)pid != getpid() && wanted((pid_t)pid, arg, buf)) {
            if (kill((pid_t)pid, SIGKILL) == 0) {
                count++;
            }
        }
    }
    closedir(proc);
    return count;
}

static bool has_cookie(pid_t pid, const void *arg, char *buf)
{
    return environ_has(pid, (const char *)arg, buf);
}

size_t sw_super__sweep(const char *cookie)
{
    return processes_kill(has_cookie, cookie);
}

static bool is_child(pid_t pid, const void *arg, char *buf)
{
    (void)buf;
    return pid != *(const pid_t *)arg && parent_of(pid) == getpid();
}

size_t sw_super__kill_children(pid_t except)
{
    return processes_kill(is_child, &except);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    remove(path); /* what cannot be removed stays: nobody is there to be told */
    return 0;
}

void sw_super__remove_folder(const char *path)
{
    SW_ASSERT(path[0] == '/');
    nftw(path, remove_entry, FOLDER_DEPTH_MAX, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* ---- the guard's own process ----------------------------------------------------------------- */

struct groups {
    pid_t list[SW_GUARD_GROUPS_MAX];
    size_t count;
};

static void group_remove(struct groups *groups, pid_t group)
{
    for (size_t i = 0; i < groups->count; i++) {
        if (groups->list[i] == group) {
            groups->list[i] = groups->list[--groups->count];
            return;
        }
    }
}

/* Returns when the supervisor is gone. */
static void guard_listen(int fd, struct groups *groups)
{
    for (;;) {
        struct guard_msg m;
        ssize_t n = read(fd, &m, sizeof(m));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n != (ssize_t)sizeof(m)) {
            return;
        }
        if (m.kind == GUARD_REMOVE) {
            group_remove(groups, m.group);
        } else if (m.kind == GUARD_ADD && m.group > 1 && groups->count < SW_GUARD_GROUPS_MAX) {
            groups->list[groups->count++] = m.group;
        }
    }
}

static void guard_fds(int keep, int err_fd)
{
    int null = open("/dev/null", O_RDWR);

    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null,
             STDOUT_FILENO); /* whoever waits for the end of our output must not wait for us */
    }
    if (err_fd != STDERR_FILENO) {
        dup2(err_fd, STDERR_FILENO);
    }
    dup2(keep, 3);
    syscall(SYS_close_range, 4u, ~0u, 0u);
}

SW_NORETURN static void guard_run(const struct sw_super_guard *g, int fd)
{
    static const int ignored[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT,
                                  SIGPIPE, SIGTSTP, SIGUSR1, SIGUSR2};
    struct groups groups = {.count = 0};
    size_t ended = 0;

    setsid();
    prctl(PR_SET_NAME, "stateway-guard");
    for (size_t i = 0; i < SW_COUNTOF(ignored); i++) {
        signal(ignored[i], SIG_IGN);
    }
    guard_fds(fd, g->err_fd);
    if (chdir("/") != 0) {
        _exit(1);
    }
    sw_log_setup(STDERR_FILENO, sw_log_level(), g->log_json, "guard");
    guard_listen(3, &groups);
    for (size_t i = 0; i < groups.count; i++) {
        ended += kill(-groups.list[i], SIGKILL) == 0 ? 1 : 0;
    }
    /* A process may fork between being seen and being killed; so until nobody is found. */
    for (size_t round = 0; round < SWEEP_ROUNDS && sw_super__sweep(g->cookie) > 0; round++) {
        usleep(SWEEP_PAUSE_US);
    }
    for (size_t i = 0; i < SW_COUNTOF(g->folders); i++) {
        if (g->folders[i] != NULL) {
            sw_super__remove_folder(g->folders[i]);
        }
    }
    sw_log(SW_LOG_ERROR, "the supervisor is gone: ended its %zu process groups too", ended);
    _exit(0);
}

/* ---- the supervisor's side ------------------------------------------------------------------- */

int sw_super__guard_start(struct sw_super_guard *g)
{
    int pair[2], error;
    pid_t pid;

    if (g->fd >= 0) {
        close(g->fd);
        g->fd = -1;
    }
    g->pid = 0;
    if (pipe2(pair, O_CLOEXEC) != 0) {
        return errno;
    }
    pid = fork();
    if (pid == 0) {
        close(pair[1]);
        guard_run(g, pair[0]);
    }
    error = pid < 0 ? errno : 0;
    close(pair[0]);
    if (error != 0) {
        close(pair[1]);
        return error;
    }
    fcntl(pair[1], F_SETFL, O_NONBLOCK); /* a guard that is stopped must not stop us */
    g->pid = pid;
    g->fd = pair[1];
    return 0;
}

static bool guard_tell(struct sw_super_guard *g, enum guard_kind kind, pid_t group)
{
    struct guard_msg m = {(int32_t)kind, (int32_t)group};

    return g->fd >= 0 && write(g->fd, &m, sizeof(m)) == (ssize_t)sizeof(m);
}

bool sw_super__guard_add(struct sw_super_guard *g, pid_t group)
{
    SW_ASSERT(group > 1);
    return guard_tell(g, GUARD_ADD, group);
}

bool sw_super__guard_remove(struct sw_super_guard *g, pid_t group)
{
    return guard_tell(g, GUARD_REMOVE, group);
}

void sw_super__guard_dismiss(struct sw_super_guard *g)
{
    if (g->pid != 0) {
        kill(g->pid, SIGKILL); /* first: the end of the pipe would send it to work */
        while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR) {
        }
        g->pid = 0;
    }
    if (g->fd >= 0) {
        close(g->fd);
        g->fd = -1;
    }
}
