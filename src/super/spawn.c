/* super/spawn.c - starts processes: the gateway, and instances of apps.
 *
 * All that needs memory is prepared before fork; a child makes system calls only. Every child is
 * the leader of a process group of its own (signals of a terminal reach the supervisor alone), dies
 * with the supervisor (PR_SET_PDEATHSIG; the supervisor has one thread, so "parent" is the
 * process), and carries the cookie by which the guard finds what left its group.
 */
#include "super/super_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

/* ---- in the child ---------------------------------------------------------------------------- */

SW_NORETURN static void child_fail(int exec_fd, int in_folder)
{
    struct sw_super_exec_error e = {in_folder, errno};
    ssize_t ignored = write(exec_fd, &e, sizeof(e));

    (void)ignored;
    _exit(127);
}

static void child_setup(pid_t parent)
{
    sigset_t none;
    int null;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(127); /* it ended before we asked to be told */
    }
    for (int signo = 1; signo < NSIG; signo++) {
        if (signo != SIGKILL && signo != SIGSTOP) {
            signal(signo, SIG_DFL);
        }
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    null = open("/dev/null", O_RDONLY);
    if (null > STDIN_FILENO) {
        dup2(null, STDIN_FILENO);
        close(null);
    }
}

/* ---- arguments and environment of an app ----------------------------------------------------- */

#define PLACE_PORT   SW_S("{port}")
#define PLACE_SOCKET SW_S("{socket}")

struct sw_super_wants sw_super__wants(const struct sw_config_app *app)
{
    struct sw_super_wants w = {false, false};

    SW_ASSERT(app->command != NULL);
    for (size_t i = 0; app->command[i] != NULL; i++) {
        struct sw_slice arg = sw_slice_cstr(app->command[i]);

        w.port = w.port || sw_slice_find_slice(arg, PLACE_PORT) < arg.len;
        w.socket = w.socket || sw_slice_find_slice(arg, PLACE_SOCKET) < arg.len;
    }
    if (!w.socket) {
        w.port = true;
    }
    return w;
}

static void argument_expand(struct sw_out *out, struct sw_slice arg, const struct sw_super_spawn *s)
{
    char port[8];

    snprintf(port, sizeof(port), "%u", s->port);
    while (arg.len > 0) {
        if (s->port != 0 && sw_slice_starts(arg, PLACE_PORT)) {
            sw_out_cstr(out, port);
            arg = sw_slice_tail(arg, PLACE_PORT.len);
        } else if (s->socket != NULL && sw_slice_starts(arg, PLACE_SOCKET)) {
            sw_out_cstr(out, s->socket);
            arg = sw_slice_tail(arg, PLACE_SOCKET.len);
        } else {
            sw_out_char(out, *arg.ptr);
            arg = sw_slice_tail(arg, 1);
        }
    }
    sw_out_char(out, '\0');
}

/* An environment under construction: pointers into `text`, or to our own environ. */
struct env {
    char **list;
    size_t count, max;
    struct sw_out text;
};

static void env_put(struct env *e, struct sw_slice name, struct sw_slice value)
{
    char *at = e->text.ptr + e->text.len;

    sw_out_slice(&e->text, name);
    sw_out_char(&e->text, '=');
    sw_out_slice(&e->text, value);
    sw_out_char(&e->text, '\0');
    SW_ASSERT(e->count < e->max);
    e->list[e->count++] = at;
}

static bool env_has(const struct env *e, size_t count, struct sw_slice name)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(e->list[i], name.ptr, name.len) == 0 && e->list[i][name.len] == '=') {
            return true;
        }
    }
    return false;
}

/* What a service manager told the supervisor is not meant for its children. */
static bool env_private(struct sw_slice name)
{
    static const struct sw_slice names[] = {
        {"NOTIFY_SOCKET", 13},  {"LISTEN_FDS", 10},    {"LISTEN_PID", 10},
        {"LISTEN_FDNAMES", 14}, {"WATCHDOG_USEC", 13}, {"WATCHDOG_PID", 12},
    };

    for (size_t i = 0; i < SW_COUNTOF(names); i++) {
        if (sw_slice_eq(name, names[i])) {
            return true;
        }
    }
    return false;
}

/* Ours first (the guard looks for the cookie), then the app's, then what we inherited. withheld: a
 * name that is not for this child; or empty. */
static void env_inherit(struct env *e, struct sw_slice withheld)
{
    size_t ours = e->count;

    for (char **p = environ; *p != NULL; p++) {
        struct sw_slice name = sw_slice_cstr(*p);

        name = sw_slice_head(name, sw_slice_find(name, '='));
        if (!env_private(name) && !sw_slice_eq(name, withheld) && !env_has(e, ours, name)) {
            SW_ASSERT(e->count < e->max);
            e->list[e->count++] = *p;
        }
    }
    SW_ASSERT(e->count < e->max);
    e->list[e->count] = NULL;
}

static size_t environ_count(void)
{
    size_t n = 0;

    while (environ[n] != NULL) {
        n++;
    }
    return n;
}

/* One block for all: argv, envp and their texts. */
struct prepared {
    void *block;
    char **argv, **envp;
};

static size_t prepared_text_bytes(const struct sw_super_spawn *s, size_t argc)
{
    /* a placeholder is at least 6 bytes long and becomes a path of at most SW_ADDR_TEXT_MAX */
    size_t bytes = 1024;

    for (size_t i = 0; i < argc; i++) {
        size_t len = strlen(s->app->command[i]);

        bytes += len + 1 + (len / PLACE_PORT.len) * SW_ADDR_TEXT_MAX;
    }
    for (size_t i = 0; i < s->app->environment_count; i++) {
        bytes += s->app->environment[i].name.len + s->app->environment[i].value.len + 2;
    }
    return bytes;
}

static void prepare_env(struct env *e, const struct sw_super_spawn *s)
{
    char number[24];
    struct sw_out n;

    env_put(e, SW_S(SW_COOKIE_NAME), sw_slice_cstr(s->cookie));
    env_put(e, SW_S("STATEWAY_INSTANCE"), sw_slice_cstr(s->name));
    n = sw_out_init(number, sizeof(number));
    sw_out_hex(&n, s->incarnation, 16);
    env_put(e, SW_S("STATEWAY_INCARNATION"), sw_out_done(&n));
    if (s->port != 0) {
        n = sw_out_init(number, sizeof(number));
        sw_out_u64(&n, s->port);
        env_put(e, SW_S("PORT"), sw_out_done(&n));
    }
    for (size_t i = 0; i < s->app->environment_count; i++) {
        const struct sw_config_env *v = &s->app->environment[i];

        if (!env_has(e, e->count, v->name)) { /* ours stand: the gateway goes where PORT says */
            env_put(e, v->name, v->value);
        }
    }
    env_inherit(e, SW_S("STATEWAY_KEYS")); /* the secrets of cookies: apps need none of them */
}

static bool prepare(const struct sw_super_spawn *s, struct prepared *ret)
{
    size_t argc = 0, envc = environ_count() + s->app->environment_count + 8, text_bytes;
    struct sw_out text;
    struct env env;

    while (s->app->command[argc] != NULL) {
        argc++;
    }
    text_bytes = prepared_text_bytes(s, argc);
    ret->block = malloc((argc + 1 + envc) * sizeof(char *) + text_bytes);
    if (ret->block == NULL) {
        return false;
    }
    ret->argv = (char **)ret->block;
    ret->envp = ret->argv + argc + 1;
    text = sw_out_init(ret->envp + envc, text_bytes);
    for (size_t i = 0; i < argc; i++) {
        ret->argv[i] = text.ptr + text.len;
        argument_expand(&text, sw_slice_cstr(s->app->command[i]), s);
    }
    ret->argv[argc] = NULL;
    env = (struct env){ret->envp, 0, envc, text};
    prepare_env(&env, s);
    SW_ASSERT(!env.text.overflowed);
    return true;
}

/* ---- an instance ----------------------------------------------------------------------------- */

struct pipes {
    int exec[2], out[2], err[2];
};

static void pair_close(int pair[2])
{
    for (size_t i = 0; i < 2; i++) {
        if (pair[i] >= 0) {
            close(pair[i]);
            pair[i] = -1;
        }
    }
}

static int pipes_open(struct pipes *p)
{
    *p = (struct pipes){{-1, -1}, {-1, -1}, {-1, -1}};
    if (pipe2(p->exec, O_CLOEXEC) != 0 || pipe2(p->out, O_CLOEXEC) != 0 ||
        pipe2(p->err, O_CLOEXEC) != 0) {
        int error = errno;

        pair_close(p->exec);
        pair_close(p->out);
        pair_close(p->err);
        return error;
    }
    return 0;
}

SW_NORETURN static void app_child(const struct sw_super_spawn *s, const struct prepared *pre,
                                  const struct pipes *p, pid_t parent)
{
    child_setup(parent);
    dup2(p->out[1], STDOUT_FILENO);
    dup2(p->err[1], STDERR_FILENO);
    /* All else closes on exec: ours by its flag, and what we may have inherited by this. */
    syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
    setrlimit(RLIMIT_NOFILE, &s->files);
    if (s->app->directory.len > 0 && chdir(s->app->directory.ptr) != 0) {
        child_fail(p->exec[1], 1);
    }
    environ = pre->envp; /* execvp looks the command up in the PATH of the app */
    execvp(pre->argv[0], pre->argv);
    child_fail(p->exec[1], 0);
}

struct sw_super_spawned sw_super__spawn_app(const struct sw_super_spawn *s)
{
    struct sw_super_spawned r = {.error = 0, .pid = 0, .exec_fd = -1, .out_fd = -1, .err_fd = -1};
    struct prepared pre;
    struct pipes p;
    pid_t parent = getpid();

    SW_ASSERT(s->app->command != NULL);
    SW_ASSERT(s->port != 0 || s->socket != NULL);
    r.error = pipes_open(&p);
    if (r.error != 0) {
        return r;
    }
    if (!prepare(s, &pre)) {
        r.error = ENOMEM;
    } else {
        r.pid = fork();
        if (r.pid == 0) {
            app_child(s, &pre, &p, parent);
        }
        r.error = r.pid < 0 ? errno : 0;
        free(pre.block);
    }
    if (r.error == 0) {
        setpgid(r.pid, r.pid); /* the child does so too: whoever is first */
        r.exec_fd = p.exec[0];
        r.out_fd = p.out[0];
        r.err_fd = p.err[0];
        p.exec[0] = p.out[0] = p.err[0] = -1;
        fcntl(r.exec_fd, F_SETFL, O_NONBLOCK);
        fcntl(r.out_fd, F_SETFL, O_NONBLOCK);
        fcntl(r.err_fd, F_SETFL, O_NONBLOCK);
    }
    pair_close(p.exec);
    pair_close(p.out);
    pair_close(p.err);
    return r;
}

/* ---- the gateway process --------------------------------------------------------------------- */

#define GATEWAY_ARGS_MAX 64

static void fds_put(struct sw_out *out, const struct sw_super_listen *l)
{
    for (size_t i = 0; i < l->count; i++) {
        for (size_t w = 0; w < l->workers; w++) {
            if (i + w > 0) {
                sw_out_char(out, w == 0 ? ';' : ',');
            }
            sw_out_u64(out, (uint64_t)l->fds[i * l->workers + w]);
        }
    }
    sw_out_char(out, '\0');
}

static void fd_keep(int fd)
{
    if (fd >= 0) {
        fcntl(fd, F_SETFD, 0);
    }
}

SW_NORETURN static void gateway_child(const struct sw_super_gateway_spawn *s, char **argv,
                                      char **envp, pid_t parent)
{
    int error;

    child_setup(parent);
    fd_keep(s->control_fd);
    fd_keep(s->config_fd);
    fd_keep(s->listen->admin_fd);
    if (s->err_fd != STDERR_FILENO) {
        dup2(s->err_fd, STDERR_FILENO);
    }
    for (size_t i = 0; i < s->listen->count * s->listen->workers; i++) {
        fd_keep(s->listen->fds[i]);
    }
    execve(s->program, argv, envp);
    error = errno;
    sw_log(SW_LOG_ERROR, "cannot execute %s: %s", s->program, strerror(error));
    _exit(SW_EXIT_START);
}

int sw_super__spawn_gateway(const struct sw_super_gateway_spawn *s, pid_t *ret_pid)
{
    size_t fds_bytes = SW_LISTEN_MAX * s->listen->workers * 12 + 1, env_max = environ_count() + 4;
    char control[12], config[12], admin[12], workers[24], cookie[64];
    char name0[] = "stateway", name1[] = "gateway";
    const char *argv[GATEWAY_ARGS_MAX];
    size_t argc = 0;
    pid_t pid, parent = getpid();
    struct env env;
    struct sw_out fds;
    char *block;

    block = (char *)malloc(env_max * sizeof(char *) + fds_bytes);
    if (block == NULL) {
        return ENOMEM;
    }
    fds = sw_out_init(block + env_max * sizeof(char *), fds_bytes);
    fds_put(&fds, s->listen);
    SW_ASSERT(!fds.overflowed);
    env = (struct env){(char **)(void *)block, 0, env_max, sw_out_init(cookie, sizeof(cookie))};
    env_put(&env, SW_S(SW_COOKIE_NAME), sw_slice_cstr(s->cookie));
    env_inherit(&env, (struct sw_slice){NULL, 0});

    snprintf(control, sizeof(control), "%d", s->control_fd);
    snprintf(config, sizeof(config), "%d", s->config_fd);
    snprintf(admin, sizeof(admin), "%d", s->listen->admin_fd);
    snprintf(workers, sizeof(workers), "%zu", s->listen->workers);
    argv[argc++] = name0;
    argv[argc++] = name1;
    argv[argc++] = "--control-fd";
    argv[argc++] = control;
    argv[argc++] = "--config-fd";
    argv[argc++] = config;
    argv[argc++] = "--name";
    argv[argc++] = s->name;
    argv[argc++] = "--workers";
    argv[argc++] = workers;
    if (s->listen->count > 0) {
        argv[argc++] = "--listen-fds";
        argv[argc++] = fds.ptr;
    }
    if (s->listen->admin_fd >= 0) {
        argv[argc++] = "--admin-fd";
        argv[argc++] = admin;
    }
    for (size_t i = 0; s->args != NULL && s->args[i] != NULL; i++) {
        SW_ASSERT(argc + 1 < GATEWAY_ARGS_MAX);
        argv[argc++] = s->args[i];
    }
    argv[argc] = NULL;

    pid = fork();
    if (pid == 0) {
        gateway_child(s, (char **)(uintptr_t)argv, env.list, parent);
    }
    if (pid < 0) {
        int error = errno;

        free(block);
        return error;
    }
    setpgid(pid, pid);
    free(block);
    *ret_pid = pid;
    return 0;
}
