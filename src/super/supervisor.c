/* super/supervisor.c - the loop: signals, the gateway process and its messages, the end. */
#include "super/super_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SUPER_MAGIC       0x53555052u
#define INSTANCE_GRACE_NS (5 * SW_NS_PER_S) /* SIGTERM to SIGKILL at our own end */
#define GATEWAY_LATE_NS   (1 * SW_NS_PER_S) /* beyond the stop timeout it was told */
#define STUCK_NS          (5 * SW_NS_PER_S) /* for a process to die after SIGKILL */
#define GATEWAY_YOUNG_NS  (1 * SW_NS_PER_S)
#define BACKOFF_FIRST_NS  (50 * SW_NS_PER_MS)
#define BACKOFF_MAX_NS    (2 * SW_NS_PER_S)
#define GUARD_RETRY_NS    (1 * SW_NS_PER_S)
#define LAST_ROUNDS       200
#define LAST_PAUSE_MS     10
#define LAST_WORDS_MS     500

enum source { SOURCE_SIGNAL, SOURCE_CONTROL, SOURCE_EXEC, SOURCE_OUT, SOURCE_ERR, SOURCE_SINK };

/* "exit 3", "signal 9 (Killed)" */
static const char *status_text(int status, char buf[64])
{
    if (WIFSIGNALED(status)) {
        snprintf(buf, 64, "signal %d (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)),
                 WCOREDUMP(status) ? ", core dumped" : "");
    } else {
        snprintf(buf, 64, "exit %d", WEXITSTATUS(status));
    }
    return buf;
}

static void phase_to(struct sw_super *s, enum sw_super_phase next)
{
    SW_ASSERT(next > s->phase);
    s->phase = next;
}

/* ---- the guard ------------------------------------------------------------------------------- */

void sw_super__guard_told(struct sw_super *s, bool heard)
{
    if (!heard && s->guard.pid != 0) {
        kill(s->guard.pid, SIGKILL); /* its end brings a new one, which is told everything */
    }
}

static void guard_start(struct sw_super *s)
{
    int error = sw_super__guard_start(&s->guard);
    bool heard = true;

    s->guard_retry_ns = 0;
    if (error != 0) {
        sw_log(SW_LOG_WARN, "cannot start the guard process: %s", strerror(error));
        s->guard_retry_ns = s->now_ns + GUARD_RETRY_NS;
        return;
    }
    if (s->gateway.pid != 0) {
        heard = sw_super__guard_add(&s->guard, s->gateway.pid);
    }
    for (size_t i = 0; i < s->apps.top; i++) {
        if (s->apps.list[i].state != SW_PROCESS_FREE) {
            heard = sw_super__guard_add(&s->guard, s->apps.list[i].pid) && heard;
        }
    }
    sw_super__guard_told(s, heard);
}

/* ---- the gateway process --------------------------------------------------------------------- */

/* Room for an order for every instance there may be; the kernel may give less. */
static void buffers_grow(const int pair[2])
{
    int bytes = 1024 * (int)SW_CONTROL_INSTANCES;

    for (size_t i = 0; i < 2; i++) {
        if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0) {
            setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
        }
    }
}

void sw_super__gateway_kill(struct sw_super *s)
{
    if (s->gateway.pid != 0) {
        s->gateway.killed = true;
        kill(-s->gateway.pid, SIGKILL);
    }
}

static void gateway_start(struct sw_super *s)
{
    struct sw_super_gateway *g = &s->gateway;
    int pair[2] = {-1, -1}, error = 0;

    SW_ASSERT(g->pid == 0);
    SW_ASSERT(g->control_fd == -1);
    g->restart_ns = 0;
    g->killed = false;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
        error = errno;
    } else {
        buffers_grow(pair);
        error = sw_super__spawn_gateway(
            &(struct sw_super_gateway_spawn){
                .program = s->opt->program != NULL ? s->opt->program : "/proc/self/exe",
                .name = s->opt->name,
                .args = s->opt->gateway_args,
                .cookie = s->cookie,
                .control_fd = pair[1],
                .config_fd = s->config_fd,
                .err_fd = s->err.fd,
                .listen = &s->listen,
            },
            &g->pid);
        close(pair[1]);
    }
    if (error != 0) {
        if (pair[0] >= 0) {
            close(pair[0]);
        }
        sw_log(SW_LOG_ERROR, "cannot start the gateway process: %s", strerror(error));
        g->restart_ns = s->now_ns + BACKOFF_MAX_NS;
        return;
    }
    g->control_fd = pair[0];
    g->started_ns = s->now_ns;
    sw_super__guard_told(s, sw_super__guard_add(&s->guard, g->pid));
}

static void stop_instances(struct sw_super *s)
{
    if (s->phase >= SW_PHASE_INSTANCES) {
        return;
    }
    phase_to(s, SW_PHASE_INSTANCES);
    s->gateway.restart_ns = 0;
    s->deadline_ns = s->now_ns + INSTANCE_GRACE_NS + STUCK_NS;
    for (size_t i = 0; i < s->apps.top; i++) {
        if (s->apps.list[i].state != SW_PROCESS_FREE) {
            sw_super__process_stop(&s->apps.list[i], s->now_ns + INSTANCE_GRACE_NS);
        }
    }
}

static void stop_gateway(struct sw_super *s)
{
    uint64_t stop_ms = s->config->timeouts.stop_ns / SW_NS_PER_MS;

    if (s->phase != SW_PHASE_RUN) {
        return;
    }
    phase_to(s, SW_PHASE_GATEWAY);
    s->gateway.restart_ns = 0;
    if (s->gateway.pid == 0) {
        stop_instances(s);
        return;
    }
    stop_ms = SW_MIN(stop_ms, SW_SUPER_GRACE_MS_MAX);
    s->deadline_ns = s->now_ns + stop_ms * SW_NS_PER_MS + GATEWAY_LATE_NS;
    sw_super__control_send(
        s, (struct sw_control){.kind = SW_CONTROL_SHUTDOWN, .grace_ms = (uint32_t)stop_ms});
}

/* A second SIGINT: the person at the keyboard does not want to wait. */
static void stop_now(struct sw_super *s)
{
    sw_super__gateway_kill(s);
    for (size_t i = 0; i < s->apps.top; i++) {
        if (s->apps.list[i].state != SW_PROCESS_FREE) {
            sw_super__process_signal(&s->apps.list[i], SIGKILL);
        }
    }
    if (s->gateway.pid == 0) {
        stop_instances(s);
    }
}

/* Immediately the first time; then 50 ms, doubling, while it does not live for a second. */
static void gateway_again(struct sw_super *s)
{
    struct sw_super_gateway *g = &s->gateway;
    uint64_t wait_ns = 0;

    if (s->now_ns - g->started_ns >= GATEWAY_YOUNG_NS) {
        g->young_deaths = 0;
    } else if (g->young_deaths++ > 0) {
        wait_ns =
            g->young_deaths == 2 ? BACKOFF_FIRST_NS : SW_MIN(g->backoff_ns * 2, BACKOFF_MAX_NS);
        g->backoff_ns = wait_ns;
    }
    g->restart_ns = s->now_ns + wait_ns;
}

static void gateway_ended(struct sw_super *s, int status)
{
    struct sw_super_gateway *g = &s->gateway;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    pid_t pid = g->pid;
    char text[64];

    g->pid = 0;
    sw_super__control_close(s);
    if (g->lost_ns == 0) {
        g->lost_ns = s->now_ns;
    }
    for (size_t i = 0; i < s->apps.top; i++) {
        s->apps.list[i].known = s->apps.list[i].answer = false;
    }
    status_text(status, text);
    if (s->phase == SW_PHASE_RUN) {
        if (!g->ever_ready && code >= SW_EXIT_FAILED && code <= SW_EXIT_START) {
            s->exit_code = code; /* it said why; trying again would not help */
            stop_gateway(s);
            return;
        }
        sw_log(SW_LOG_ERROR, "the gateway process (%d) ended: %s; starting it again", (int)pid,
               text);
        gateway_again(s);
        return;
    }
    if (code != 0) {
        sw_log(SW_LOG_WARN, "the gateway process (%d) ended: %s", (int)pid, text);
        s->exit_code = g->killed ? s->exit_code : SW_EXIT_FAILED;
    }
    stop_instances(s);
}

/* ---- children that ended --------------------------------------------------------------------- */

static void process_exec(struct sw_super *s, struct sw_super_process *p)
{
    struct sw_control m;
    int error;

    if (!sw_super__process_exec_event(&s->apps, p, &error) || !p->answer) {
        return;
    }
    p->answer = false;
    p->known = error == 0; /* an error is all there is to say about it */
    m = sw_super__message_about(s, p, SW_CONTROL_STARTED);
    m.status = error;
    m.pid = error == 0 ? m.pid : 0;
    sw_super__control_send(s, m);
}

static void process_ended(struct sw_super *s, struct sw_super_process *p, int status)
{
    struct sw_super_sinks sinks = {&s->out, &s->err};
    char text[64];

    if (p->state == SW_PROCESS_EXEC) {
        process_exec(s, p); /* the pipe's end and the child's came together */
    }
    sw_log(SW_LOG_DEBUG, "%s (%d) ended: %s", p->name, (int)p->pid, status_text(status, text));
    if (p->known) {
        struct sw_control m = sw_super__message_about(s, p, SW_CONTROL_EXITED);

        m.status = status;
        sw_super__control_send(s, m);
    }
    sw_super__process_ended(&s->apps, p, &sinks, s->now_ns);
}

/* A leader is looked at before it is reaped: until then its process group is surely the one we
 * made, so what it left behind can be killed, and the guard told, without hitting strangers. */
static void reap(struct sw_super *s)
{
    for (;;) {
        struct sw_super_process *p;
        siginfo_t info = {.si_pid = 0};
        int status = 0;
        pid_t pid;

        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) {
            return;
        }
        pid = info.si_pid;
        p = sw_super__process_of(&s->apps, pid);
        if (p != NULL || pid == s->gateway.pid) {
            kill(-pid, SIGKILL);
            sw_super__guard_told(s, sw_super__guard_remove(&s->guard, pid));
        }
        waitpid(pid, &status, 0);
        if (p != NULL) {
            process_ended(s, p, status);
        } else if (pid == s->gateway.pid) {
            gateway_ended(s, status);
        } else if (pid == s->guard.pid) {
            sw_log(SW_LOG_WARN, "the guard process ended: starting it again");
            guard_start(s);
        } /* else: the child of a child, which became ours when its parent ended */
    }
}

/* ---- signals, timers ------------------------------------------------------------------------- */

static void on_signal(struct sw_super *s, const struct signalfd_siginfo *info)
{
    int signo = (int)info->ssi_signo;

    if (signo == SIGCHLD) {
        return; /* reap looks in any case */
    }
    if (signo == SIGHUP && info->ssi_code != SI_KERNEL) {
        sw_log(SW_LOG_WARN, "SIGHUP: reload is not in this version; restart to use a new "
                            "configuration");
        return;
    }
    if (s->phase == SW_PHASE_RUN) { /* SIGHUP by the kernel: our terminal is gone */
        sw_log(SW_LOG_INFO, "SIG%s: stopping", sigabbrev_np(signo));
        stop_gateway(s);
    } else if (signo == SIGINT) {
        sw_log(SW_LOG_WARN, "SIGINT again: stopping at once");
        stop_now(s);
    }
}

static void signals_read(struct sw_super *s)
{
    struct signalfd_siginfo info;

    while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        on_signal(s, &info);
    }
}

static bool due(uint64_t at_ns, uint64_t now_ns)
{
    return at_ns != 0 && at_ns <= now_ns;
}

static void timers_run(struct sw_super *s)
{
    if (due(s->gateway.restart_ns, s->now_ns)) {
        gateway_start(s);
    }
    if (due(s->guard_retry_ns, s->now_ns)) {
        guard_start(s);
    }
    for (size_t i = 0; i < s->apps.top; i++) {
        struct sw_super_process *p = &s->apps.list[i];

        if (p->state != SW_PROCESS_FREE && due(p->kill_ns, s->now_ns)) {
            p->kill_ns = 0;
            sw_log(SW_LOG_WARN, "%s (%d) did not end in time: killing it", p->name, (int)p->pid);
            sw_super__process_signal(p, SIGKILL);
        }
    }
    if (s->phase == SW_PHASE_GATEWAY && due(s->deadline_ns, s->now_ns)) {
        sw_log(SW_LOG_WARN, "the gateway process did not end in time: killing it");
        s->deadline_ns = s->now_ns + STUCK_NS;
        if (s->gateway.killed) {
            stop_instances(s);
        }
        sw_super__gateway_kill(s);
    }
    if (s->phase == SW_PHASE_INSTANCES && (s->apps.count == 0 || due(s->deadline_ns, s->now_ns))) {
        phase_to(s, SW_PHASE_END);
    }
}

static void sooner(uint64_t *at_ns, uint64_t other_ns)
{
    if (other_ns != 0 && (*at_ns == 0 || other_ns < *at_ns)) {
        *at_ns = other_ns;
    }
}

/* Milliseconds until the next timer; -1: none. */
static int timers_next(const struct sw_super *s)
{
    uint64_t at_ns = 0, wait_ns;

    sooner(&at_ns, s->gateway.restart_ns);
    sooner(&at_ns, s->guard_retry_ns);
    sooner(&at_ns, s->deadline_ns);
    for (size_t i = 0; i < s->apps.top; i++) {
        if (s->apps.list[i].state != SW_PROCESS_FREE) {
            sooner(&at_ns, s->apps.list[i].kill_ns);
        }
    }
    if (sw_super__sink_holds(&s->out, s->now_ns)) {
        sooner(&at_ns, s->out.progress_ns + SW_SUPER_STALL_NS);
    }
    if (sw_super__sink_holds(&s->err, s->now_ns)) {
        sooner(&at_ns, s->err.progress_ns + SW_SUPER_STALL_NS);
    }
    if (at_ns == 0) {
        return -1;
    }
    wait_ns = at_ns > s->now_ns ? at_ns - s->now_ns : 0;
    return (int)SW_MIN((wait_ns + SW_NS_PER_MS - 1) / SW_NS_PER_MS, 60000);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void poll_add(struct sw_super *s, int fd, short events, enum source source, size_t process)
{
    if (fd < 0) {
        return;
    }
    SW_ASSERT(s->poll_count < SW_SUPER_POLL_MAX);
    s->polls[s->poll_count] = (struct pollfd){.fd = fd, .events = events};
    s->who[s->poll_count].source = (uint32_t)source;
    s->who[s->poll_count].process = (uint32_t)process;
    s->poll_count++;
}

static void poll_build(struct sw_super *s)
{
    bool read_out = !sw_super__sink_holds(&s->out, s->now_ns);
    bool read_err = !sw_super__sink_holds(&s->err, s->now_ns);

    s->poll_count = 0;
    poll_add(s, s->signal_fd, POLLIN, SOURCE_SIGNAL, 0);
    poll_add(s, s->gateway.control_fd, (short)(POLLIN | (s->gateway.queue_count > 0 ? POLLOUT : 0)),
             SOURCE_CONTROL, 0);
    if (s->out.len > 0) {
        poll_add(s, s->out.fd, POLLOUT, SOURCE_SINK, 0);
    }
    if (s->err.len > 0) {
        poll_add(s, s->err.fd, POLLOUT, SOURCE_SINK, 0);
    }
    for (size_t i = 0; i < s->apps.top; i++) {
        const struct sw_super_process *p = &s->apps.list[i];

        if (p->state == SW_PROCESS_FREE) {
            continue;
        }
        poll_add(s, p->exec_fd, POLLIN, SOURCE_EXEC, i);
        if (read_out) {
            poll_add(s, p->out.fd, POLLIN, SOURCE_OUT, i);
        }
        if (read_err) {
            poll_add(s, p->err.fd, POLLIN, SOURCE_ERR, i);
        }
    }
}

static void pipe_event(struct sw_super *s, struct sw_super_process *p, struct sw_super_pipe *pipe,
                       struct sw_super_sink *sink)
{
    if (pipe->fd >= 0 && !sw_super__pipe_read(pipe, p->name, sink, s->now_ns)) {
        sw_super__pipe_finish(pipe, p->name, sink, s->now_ns);
    }
}

/* Children are reaped after this, so no process vanishes under its event. */
static void poll_dispatch(struct sw_super *s)
{
    for (size_t i = 0; i < s->poll_count; i++) {
        struct sw_super_process *p = &s->apps.list[s->who[i].process];

        if (s->polls[i].revents == 0) {
            continue;
        }
        switch ((enum source)s->who[i].source) {
        case SOURCE_SIGNAL:
            signals_read(s);
            break;
        case SOURCE_CONTROL:
            sw_super__control_flush(s);
            sw_super__control_read(s);
            break;
        case SOURCE_EXEC:
            process_exec(s, p);
            break;
        case SOURCE_OUT:
            pipe_event(s, p, &p->out, &s->out);
            break;
        case SOURCE_ERR:
            pipe_event(s, p, &p->err, &s->err);
            break;
        case SOURCE_SINK:
            break; /* both are flushed each turn */
        }
    }
}

static void loop_run(struct sw_super *s)
{
    while (s->phase != SW_PHASE_END) {
        int n;

        poll_build(s);
        n = poll(s->polls, (nfds_t)s->poll_count, timers_next(s));
        SW_ASSERT(n >= 0 || errno == EINTR);
        s->now_ns = sw_super__now_ns();
        sw_super__sink_flush(&s->out, s->now_ns);
        sw_super__sink_flush(&s->err, s->now_ns);
        if (n > 0) {
            poll_dispatch(s);
        }
        reap(s);
        timers_run(s);
    }
}

/* ---- start and end --------------------------------------------------------------------------- */

static void fds_tidy(void)
{
    int fd;

    do { /* 0, 1 and 2 are taken, whatever we were started with */
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
    syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
}

static int signals_open(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* inherited as ignored it would take the exit status away */
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* What the gateway process parses is what we parsed, whatever happens to the file. */
static int config_memfd(struct sw_slice text)
{
    int fd = memfd_create("stateway-configuration", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    size_t done = 0;

    while (fd >= 0 && done < text.len) {
        ssize_t n = write(fd, text.ptr + done, text.len - done);

        if (n <= 0) {
            close(fd);
            return -1;
        }
        done += (size_t)n;
    }
    if (fd >= 0) {
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
    }
    return fd;
}

static bool sockets_wanted(const struct sw_config *c)
{
    for (size_t i = 0; i < c->app_count; i++) {
        if (c->apps[i].command != NULL && sw_super__wants(&c->apps[i]).socket) {
            return true;
        }
    }
    return false;
}

static bool folder_make(struct sw_super *s)
{
    const char *base = getenv("TMPDIR");
    int n;

    /* a long path leaves too little of the 107 bytes a Unix socket's path may have */
    if (base == NULL || base[0] != '/' || strlen(base) > 32) {
        base = "/tmp";
    }
    n = snprintf(s->folder, sizeof(s->folder), "%s/stateway-XXXXXX", base);
    SW_ASSERT(n > 0 && (size_t)n < sizeof(s->folder));
    if (mkdtemp(s->folder) == NULL) {
        sw_log(SW_LOG_ERROR,
               "cannot make a folder for sockets in %s: %s; set TMPDIR to a "
               "folder that is writable",
               base, strerror(errno));
        s->folder[0] = '\0';
        return false;
    }
    return true;
}

static void files_raise(struct sw_super *s)
{
    struct rlimit raised;

    if (getrlimit(RLIMIT_NOFILE, &s->apps.files) == 0) {
        raised = s->apps.files;
        raised.rlim_cur = raised.rlim_max;
        setrlimit(RLIMIT_NOFILE, &raised);
    }
}

static int super_start(struct sw_super *s)
{
    const struct sw_super_options *opt = s->opt;
    size_t workers = opt->config->workers;

    prctl(PR_SET_CHILD_SUBREAPER, 1);
    files_raise(s);
    s->signal_fd = signals_open();
    s->config_fd = config_memfd(opt->text);
    if (s->signal_fd < 0 || s->config_fd < 0) {
        sw_log(SW_LOG_ERROR, "cannot start: %s", strerror(errno));
        return SW_EXIT_START;
    }
    snprintf(s->cookie, sizeof(s->cookie), "%016llx%016llx", (unsigned long long)sw_super__random(),
             (unsigned long long)sw_super__random());
    if (sockets_wanted(opt->config) && !folder_make(s)) {
        return SW_EXIT_START;
    }
    s->apps.config = opt->config;
    s->apps.cookie = s->cookie;
    s->apps.folder = s->folder;
    s->guard.cookie = s->cookie;
    s->guard.log_json = opt->config->log_json;
    s->guard.err_fd = s->err.fd;
    s->guard.folders[0] = s->folder[0] != '\0' ? s->folder : NULL;
    s->guard.folders[1] = opt->scratch;
    guard_start(s);
    if (s->guard.pid == 0) {
        return SW_EXIT_START;
    }
    if (workers == 0) {
        workers = sw_super_workers_auto();
    }
    if (sw_super__listen_open(&s->listen, opt->config, workers) != SW_OK) {
        return SW_EXIT_START;
    }
    gateway_start(s);
    return s->gateway.pid == 0 ? SW_EXIT_START : SW_EXIT_OK;
}

static void reap_strangers(struct sw_super *s)
{
    pid_t pid;

    do {
        pid = waitpid(-1, NULL, WNOHANG);
        if (pid == s->guard.pid) {
            s->guard.pid = 0;
        }
    } while (pid > 0);
}

/* Grandchildren that left their group, daemons, whatever still runs because of us. What is killed
 * while it forks leaves a child: so until nobody is found. */
static void leave_nobody(struct sw_super *s)
{
    for (size_t round = 0; round < LAST_ROUNDS; round++) {
        size_t found = sw_super__sweep(s->cookie) + sw_super__kill_children(s->guard.pid);

        reap_strangers(s);
        if (found == 0) {
            return;
        }
        poll(NULL, 0, LAST_PAUSE_MS);
    }
}

static void last_words(struct sw_super_sink *sink)
{
    uint64_t deadline_ns = sw_super__now_ns() + LAST_WORDS_MS * SW_NS_PER_MS;

    for (;;) {
        struct pollfd p = {.fd = sink->fd, .events = POLLOUT};
        uint64_t now_ns = sw_super__now_ns();

        sw_super__sink_flush(sink, now_ns);
        if (sink->len == 0 || now_ns >= deadline_ns) {
            return;
        }
        poll(&p, 1, LAST_PAUSE_MS);
    }
}

static void super_end(struct sw_super *s)
{
    leave_nobody(s);
    sw_super__listen_close(&s->listen);
    if (s->folder[0] != '\0') {
        sw_super__remove_folder(s->folder);
    }
    if (s->opt->scratch != NULL) {
        sw_super__remove_folder(s->opt->scratch);
    }
    sw_super__guard_dismiss(&s->guard);
    last_words(&s->out);
    last_words(&s->err);
    sw_super__control_close(s);
    if (s->signal_fd >= 0) {
        close(s->signal_fd);
    }
    if (s->config_fd >= 0) {
        close(s->config_fd);
    }
}

int sw_super_run(const struct sw_super_options *opt)
{
    struct sw_super *s;
    int code;

    SW_ASSERT(opt->config != NULL);
    SW_ASSERT(opt->name != NULL);
    SW_ASSERT(opt->scratch == NULL || opt->scratch[0] == '/');
    s = (struct sw_super *)calloc(1, sizeof(*s)); /* once: pages are touched when first used */
    if (s == NULL) {
        sw_log(SW_LOG_ERROR, "cannot start: no memory");
        return SW_EXIT_START;
    }
    s->magic = SUPER_MAGIC;
    s->opt = opt;
    s->config = opt->config;
    s->signal_fd = s->config_fd = s->gateway.control_fd = s->guard.fd = s->listen.admin_fd = -1;
    s->now_ns = sw_super__now_ns();
    fds_tidy();
    sw_super__sink_open(&s->out, STDOUT_FILENO, "stdout");
    sw_super__sink_open(&s->err, STDERR_FILENO, "stderr");
    sw_log_setup(s->err.fd, opt->config->log_level, opt->config->log_json, "supervisor");
    code = super_start(s);
    if (code == SW_EXIT_OK) {
        loop_run(s);
        code = s->exit_code;
    }
    SW_ASSERT(s->magic == SUPER_MAGIC);
    super_end(s);
    sw_log_setup(STDERR_FILENO, opt->config->log_level, opt->config->log_json, "supervisor");
    sw_super__sink_close(&s->out);
    sw_super__sink_close(&s->err);
    free(s);
    return code;
}
