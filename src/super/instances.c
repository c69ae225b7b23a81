/* super/instances.c - the processes of apps: started, told to end, and buried. */
#include "super/super_priv.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Which state may follow which. */
static const uint32_t process_arrows[SW_PROCESS_STATE_COUNT] = {
    [SW_PROCESS_FREE] = SW_BIT(SW_PROCESS_EXEC),
    [SW_PROCESS_EXEC] =
        SW_BIT(SW_PROCESS_RUNS) | SW_BIT(SW_PROCESS_FAILED) | SW_BIT(SW_PROCESS_FREE),
    [SW_PROCESS_RUNS] = SW_BIT(SW_PROCESS_FREE),
    [SW_PROCESS_FAILED] = SW_BIT(SW_PROCESS_FREE),
};

static void process_to(struct sw_super_process *p, enum sw_process_state next)
{
    SW_ASSERT((process_arrows[p->state] & SW_BIT(next)) != 0);
    p->state = next;
}

struct sw_super_process *sw_super__process_find(struct sw_super_apps *a, uint64_t incarnation)
{
    for (size_t i = 0; i < a->top; i++) {
        struct sw_super_process *p = &a->list[i];

        if (p->state != SW_PROCESS_FREE && p->incarnation == incarnation) {
            return p;
        }
    }
    return NULL;
}

struct sw_super_process *sw_super__process_of(struct sw_super_apps *a, pid_t pid)
{
    for (size_t i = 0; i < a->top; i++) {
        if (a->list[i].state != SW_PROCESS_FREE && a->list[i].pid == pid) {
            return &a->list[i];
        }
    }
    return NULL;
}

/* Where the new process is to listen. errno or 0. */
static int process_address(struct sw_super_apps *a, struct sw_super_process *p,
                           const struct sw_config_app *app)
{
    struct sw_super_wants wants = sw_super__wants(app);
    struct sw_out out = sw_out_init(p->address, sizeof(p->address) - 1);

    p->port = 0;
    p->socket[0] = '\0';
    memset(p->address, 0, sizeof(p->address));
    if (wants.port) {
        p->port = sw_super__port_take(&a->ports);
        if (p->port == 0) {
            return EADDRNOTAVAIL;
        }
        sw_out_printf(&out, "127.0.0.1:%u", p->port);
    }
    if (wants.socket) {
        int n = snprintf(p->socket, sizeof(p->socket), "%s/%.32s-%u-%08x", a->folder, app->name.ptr,
                         p->slot, (unsigned)(p->incarnation >> 32));

        if (n < 0 || (size_t)n >= sizeof(p->socket)) {
            return ENAMETOOLONG;
        }
        out.len = 0; /* the gateway takes the socket; the port is the app's to use */
        sw_out_printf(&out, "unix:%s", p->socket);
    }
    SW_ASSERT(!out.overflowed);
    p->address[out.len] = '\0';
    return 0;
}

static void process_clear(struct sw_super_apps *a, struct sw_super_process *p)
{
    sw_super__port_give(&a->ports, p->port);
    p->port = 0;
    if (p->socket[0] != '\0') {
        unlink(p->socket);
        p->socket[0] = '\0';
    }
    if (p->exec_fd >= 0) {
        close(p->exec_fd);
        p->exec_fd = -1;
    }
    SW_ASSERT(p->out.fd == -1);
    SW_ASSERT(p->err.fd == -1);
    if (p->state != SW_PROCESS_FREE) {
        process_to(p, SW_PROCESS_FREE);
        SW_ASSERT(a->count > 0);
        a->count--;
    }
}

struct sw_super_process *sw_super__process_start(struct sw_super_apps *a, uint32_t app,
                                                 uint32_t slot, uint64_t incarnation,
                                                 int *ret_error)
{
    const struct sw_config_app *c = &a->config->apps[app];
    struct sw_super_process *p = NULL;
    struct sw_super_spawned s = {.error = EAGAIN};

    SW_ASSERT(app < a->config->app_count);
    SW_ASSERT(incarnation != 0);
    for (size_t i = 0; p == NULL && i < SW_CONTROL_INSTANCES; i++) {
        if (a->list[i].state == SW_PROCESS_FREE) {
            p = &a->list[i];
            a->top = SW_MAX(a->top, i + 1);
        }
    }
    if (p == NULL) {
        *ret_error = EAGAIN;
        return NULL;
    }
    p->app = app;
    p->slot = slot;
    p->incarnation = incarnation;
    p->exec_fd = p->out.fd = p->err.fd = -1;
    p->out.len = p->err.len = 0;
    p->answer = p->known = p->stopping = false;
    p->kill_ns = 0;
    snprintf(p->name, sizeof(p->name), "%.*s/%u", SW_SARG(c->name), slot);
    s.error = process_address(a, p, c);
    if (s.error == 0) {
        s = sw_super__spawn_app(&(struct sw_super_spawn){
            .app = c,
            .name = p->name,
            .incarnation = incarnation,
            .port = p->port,
            .socket = p->socket[0] == '\0' ? NULL : p->socket,
            .cookie = a->cookie,
            .files = a->files,
        });
    }
    if (s.error != 0) {
        sw_log(SW_LOG_ERROR, "%s: cannot start a process: %s", p->name, strerror(s.error));
        process_clear(a, p);
        *ret_error = s.error;
        return NULL;
    }
    p->pid = s.pid;
    p->exec_fd = s.exec_fd;
    p->out.fd = s.out_fd;
    p->err.fd = s.err_fd;
    p->started_ns = sw_super__now_ns();
    process_to(p, SW_PROCESS_EXEC);
    a->count++;
    return p;
}

static void exec_failed(const struct sw_super_apps *a, const struct sw_super_process *p,
                        const struct sw_super_exec_error *e)
{
    const struct sw_config_app *c = &a->config->apps[p->app];

    if (e->in_folder != 0) {
        sw_log(SW_LOG_ERROR, "%s: cannot enter its folder %.*s: %s; see `directory` of app %.*s",
               p->name, SW_SARG(c->directory), strerror(e->error), SW_SARG(c->name));
        return;
    }
    sw_log(SW_LOG_ERROR, "%s: cannot run %s%s%.*s: %s; see `command` of app %.*s", p->name,
           c->command[0], c->directory.len > 0 ? " in folder " : "", SW_SARG(c->directory),
           e->error == ENOENT && strchr(c->command[0], '/') == NULL ? "not found in PATH"
                                                                    : strerror(e->error),
           SW_SARG(c->name));
}

bool sw_super__process_exec_event(struct sw_super_apps *a, struct sw_super_process *p,
                                  int *ret_error)
{
    struct sw_super_exec_error e;
    ssize_t n = read(p->exec_fd, &e, sizeof(e));

    SW_ASSERT(p->state == SW_PROCESS_EXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    close(p->exec_fd);
    p->exec_fd = -1;
    if (n != (ssize_t)sizeof(e)) { /* closed by exec, or by an early death: EXITED will tell */
        process_to(p, SW_PROCESS_RUNS);
        *ret_error = 0;
        return true;
    }
    exec_failed(a, p, &e);
    process_to(p, SW_PROCESS_FAILED);
    *ret_error = e.error == 0 ? EINVAL : e.error;
    return true;
}

void sw_super__process_signal(const struct sw_super_process *p, int signo)
{
    SW_ASSERT(p->state != SW_PROCESS_FREE);
    SW_ASSERT(p->pid > 1);
    kill(-p->pid, signo);
}

void sw_super__process_stop(struct sw_super_process *p, uint64_t kill_ns)
{
    if (!p->stopping) {
        p->stopping = true;
        p->kill_ns = kill_ns;
        sw_super__process_signal(p, SIGTERM);
        sw_super__process_signal(p, SIGCONT); /* one that is stopped must hear of it */
    } else if (kill_ns < p->kill_ns) {
        p->kill_ns = kill_ns;
    }
}

void sw_super__process_ended(struct sw_super_apps *a, struct sw_super_process *p,
                             struct sw_super_sinks *sinks, uint64_t now_ns)
{
    sw_super__pipe_finish(&p->out, p->name, sinks->out, now_ns);
    sw_super__pipe_finish(&p->err, p->name, sinks->err, now_ns);
    process_clear(a, p);
}
