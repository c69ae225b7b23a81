/* super/super_priv.h - what the files of super/ share. */
#ifndef SW_SUPER_PRIV_H
#define SW_SUPER_PRIV_H

#include <limits.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "app/control.h"
#include "base/err.h"
#include "base/out.h"
#include "config/config.h"
#include "super/super.h"

#define SW_SUPER_NAME_BYTES 80 /* "shop/2" */

uint64_t sw_super__now_ns(void);
/* From the kernel; waits for its entropy at most once after boot. */
uint64_t sw_super__random(void);

/* ---- ports.c: addresses ---------------------------------------------------------------------- */

/* Outside the range of ephemeral ports, so that no outgoing connection takes one in between. */
#define SW_PORT_FIRST 20000u
#define SW_PORT_COUNT 10000u

struct sw_super_ports {
    uint8_t used[SW_PORT_COUNT];
};

/* A port that is in use neither by us nor, on any address, by others: tried by binding. 0: none. */
uint16_t sw_super__port_take(struct sw_super_ports *p);
void sw_super__port_give(struct sw_super_ports *p, uint16_t port);

/* The listening sockets of a configuration. They stay open as long as the supervisor lives, so that
 * a new gateway process goes on where the last one stopped. */
struct sw_super_listen {
    int *fds; /* [count][workers] */
    size_t count, workers;
    int admin_fd;                            /* -1: off */
    struct sw_addr bound[SW_LISTEN_MAX + 1]; /* as the kernel knows them; admin is the last */
};

/* Binds all. On failure: an error, after a line in the log that names the address and what to do.
 */
SW_MUST enum sw_err sw_super__listen_open(struct sw_super_listen *l, const struct sw_config *config,
                                          size_t workers);
/* Closes all and removes the files of Unix sockets. */
void sw_super__listen_close(struct sw_super_listen *l);

/* ---- output.c: what apps print --------------------------------------------------------------- */

/* With its prefix a line fits in PIPE_BUF: a pipe takes it whole, or not at all. */
#define SW_SUPER_LINE_BYTES 4000
#define SW_SUPER_SINK_BYTES ((size_t)256 * 1024)
#define SW_SUPER_STALL_NS   (1 * SW_NS_PER_S)
_Static_assert(SW_SUPER_LINE_BYTES + SW_SUPER_NAME_BYTES + 4 <= PIPE_BUF, "a line is one write");

/* Our stdout or stderr. Writing never blocks. A reader that is slow first slows the apps down; when
 * it took nothing for SW_SUPER_STALL_NS, lines are dropped and counted instead. */
struct sw_super_sink {
    int fd;
    bool own_fd;    /* our own, non-blocking file description: nobody shares the flag */
    bool is_socket; /* cannot be reopened */
    const char *what;
    size_t len;
    uint64_t progress_ns; /* when bytes left last, or the queue was empty */
    uint64_t dropped;
    char buf[SW_SUPER_SINK_BYTES];
};

void sw_super__sink_open(struct sw_super_sink *s, int fd, const char *what);
void sw_super__sink_close(struct sw_super_sink *s);
void sw_super__sink_flush(struct sw_super_sink *s, uint64_t now_ns);
/* Leave the apps' pipes unread for now? */
bool sw_super__sink_holds(const struct sw_super_sink *s, uint64_t now_ns);

/* One stream of one instance, cut into lines. */
struct sw_super_pipe {
    int fd; /* -1: closed */
    size_t len;
    char line[SW_SUPER_LINE_BYTES];
};

/* Reads a bounded piece and passes lines on. False: the app closed it. */
bool sw_super__pipe_read(struct sw_super_pipe *p, const char *name, struct sw_super_sink *sink,
                         uint64_t now_ns);
/* What is left, a last line without an end included; then closes. */
void sw_super__pipe_finish(struct sw_super_pipe *p, const char *name, struct sw_super_sink *sink,
                           uint64_t now_ns);

/* ---- spawn.c: processes ---------------------------------------------------------------------- */

#define SW_COOKIE_NAME  "STATEWAY_SUPERVISOR"
#define SW_COOKIE_BYTES 33 /* 128 random bits in hex, and the NUL */

/* What a child writes before it gives up; nothing when exec worked. */
struct sw_super_exec_error {
    int32_t in_folder; /* it was chdir that failed */
    int32_t error;     /* errno */
};

struct sw_super_spawned {
    int error; /* errno; the rest is valid when it is 0 */
    pid_t pid;
    int exec_fd; /* a struct sw_super_exec_error, or end of file; read end */
    int out_fd, err_fd;
};

struct sw_super_spawn {
    const struct sw_config_app *app;
    const char *name; /* "shop/2" */
    uint64_t incarnation;
    uint16_t port;      /* 0: none */
    const char *socket; /* path; NULL: none */
    const char *cookie;
    struct rlimit files; /* RLIMIT_NOFILE as it was before we raised it */
};

/* Does a command want a Unix socket ({socket}) or a port ({port}, or neither)? */
struct sw_super_wants {
    bool port, socket;
};
struct sw_super_wants sw_super__wants(const struct sw_config_app *app);

struct sw_super_spawned sw_super__spawn_app(const struct sw_super_spawn *s);

struct sw_super_gateway_spawn {
    const char *program, *name;
    const char *const *args;
    const char *cookie;
    int control_fd, config_fd;
    int err_fd; /* its stderr: ours, non-blocking where possible, so that no log line stops a worker
                 */
    const struct sw_super_listen *listen;
};
/* The gateway process; it keeps our stdout. errno or 0. */
SW_MUST int sw_super__spawn_gateway(const struct sw_super_gateway_spawn *s, pid_t *ret_pid);

/* ---- instances.c: the processes of apps ------------------------------------------------------ */

enum sw_process_state {
    SW_PROCESS_FREE,
    SW_PROCESS_EXEC, /* forked; exec has not answered yet */
    SW_PROCESS_RUNS,
    SW_PROCESS_FAILED, /* exec failed; the child is about to end */
    SW_PROCESS_STATE_COUNT,
};

struct sw_super_process {
    enum sw_process_state state;
    uint32_t app, slot;
    uint64_t incarnation;
    pid_t pid; /* and process group */
    uint16_t port;
    bool answer;      /* the gateway that runs now waits for STARTED */
    bool known;       /* the gateway that runs now has heard of it */
    bool stopping;    /* was told to end */
    uint64_t kill_ns; /* SIGKILL is due; 0: it is not */
    uint64_t started_ns;
    int exec_fd;
    char name[SW_SUPER_NAME_BYTES];
    char address[sizeof(((struct sw_control *)NULL)->address)];
    char socket[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    struct sw_super_pipe out, err;
};

struct sw_super_sinks {
    struct sw_super_sink *out, *err;
};

struct sw_super_apps {
    const struct sw_config *config;
    const char *cookie, *folder; /* folder: of Unix sockets */
    struct rlimit files;
    struct sw_super_ports ports;
    size_t count; /* that are not FREE */
    size_t top;   /* those from here on were never used */
    struct sw_super_process list[SW_CONTROL_INSTANCES];
};

/* NULL: no such process. */
struct sw_super_process *sw_super__process_find(struct sw_super_apps *a, uint64_t incarnation);
struct sw_super_process *sw_super__process_of(struct sw_super_apps *a, pid_t pid);
/* Forks. NULL: *ret_error is an errno, and it was logged. */
struct sw_super_process *sw_super__process_start(struct sw_super_apps *a, uint32_t app,
                                                 uint32_t slot, uint64_t incarnation,
                                                 int *ret_error);
/* exec_fd is readable. False: nothing yet. True: *ret_error is 0 when it runs, else errno, logged.
 */
bool sw_super__process_exec_event(struct sw_super_apps *a, struct sw_super_process *p,
                                  int *ret_error);
/* To its whole group. */
void sw_super__process_signal(const struct sw_super_process *p, int signo);
/* SIGTERM, once; SIGKILL is due at kill_ns, or earlier if that was asked for before. */
void sw_super__process_stop(struct sw_super_process *p, uint64_t kill_ns);
/* After waitpid: passes on its last words, gives back its address and its slot. */
void sw_super__process_ended(struct sw_super_apps *a, struct sw_super_process *p,
                             struct sw_super_sinks *sinks, uint64_t now_ns);

/* ---- guard.c: nobody is left behind ---------------------------------------------------------- */

#define SW_GUARD_GROUPS_MAX (SW_CONTROL_INSTANCES + 64)

/* A process of its own session that waits for our end and then kills what we ran. */
struct sw_super_guard {
    pid_t pid; /* 0: none */
    int fd;    /* write end; -1: none */
    bool log_json;
    int err_fd; /* non-blocking where possible: a reader that sleeps must not keep it alive */
    const char *cookie;
    const char *folders[2]; /* removed when we could not: absolute paths, or NULL */
};

/* fork()s. errno or 0. */
SW_MUST int sw_super__guard_start(struct sw_super_guard *g);
/* Tells it of a process group that now exists, or no longer. False: it does not listen any more. */
bool sw_super__guard_add(struct sw_super_guard *g, pid_t group);
bool sw_super__guard_remove(struct sw_super_guard *g, pid_t group);
/* All is done already: ends it, and waits for that. */
void sw_super__guard_dismiss(struct sw_super_guard *g);

/* SIGKILLs every process whose environment holds the cookie; returns how many there were. */
size_t sw_super__sweep(const char *cookie);
/* SIGKILLs every child of ours but `except`; returns how many there were. */
size_t sw_super__kill_children(pid_t except);
/* Removes a folder with all in it; symbolic links are removed, not followed. */
void sw_super__remove_folder(const char *path);

/* ---- supervisor.c, control.c: the whole ------------------------------------------------------ */

#define SW_SUPER_QUEUE_MAX    (4 * SW_CONTROL_INSTANCES)
#define SW_SUPER_POLL_MAX     (4 + 3 * SW_CONTROL_INSTANCES)
#define SW_SUPER_GRACE_MS_MAX (24u * 3600u * 1000u)

/* A life goes down this list and never back. */
enum sw_super_phase {
    SW_PHASE_RUN,
    SW_PHASE_GATEWAY,   /* the gateway finishes running exchanges */
    SW_PHASE_INSTANCES, /* then the apps end */
    SW_PHASE_END,
};

struct sw_super_gateway {
    pid_t pid; /* 0: does not run */
    int control_fd;
    bool ever_ready, killed;
    uint64_t started_ns, restart_ns; /* restart_ns 0: not due */
    uint64_t lost_ns;                /* when the last one ended */
    uint64_t backoff_ns;
    uint32_t young_deaths;
    struct sw_control queue[SW_SUPER_QUEUE_MAX]; /* for a gateway that is slow to read */
    size_t queue_first, queue_count;
};

struct sw_super {
    uint32_t magic;
    const struct sw_super_options *opt;
    const struct sw_config *config;
    enum sw_super_phase phase;
    int exit_code;
    uint64_t now_ns, deadline_ns; /* deadline of the phase; 0: none */
    int signal_fd, config_fd;
    uint64_t guard_retry_ns;
    char cookie[SW_COOKIE_BYTES];
    char folder[64]; /* of Unix sockets; "": none */
    struct sw_super_gateway gateway;
    struct sw_super_guard guard;
    struct sw_super_listen listen;
    struct sw_super_sink out, err;
    struct sw_super_apps apps;
    struct pollfd polls[SW_SUPER_POLL_MAX];
    struct {
        uint32_t source; /* supervisor.c: enum source */
        uint32_t process;
    } who[SW_SUPER_POLL_MAX];
    size_t poll_count;
};

/* control.c */
void sw_super__control_close(struct sw_super *s);
/* What the gateway is slow to read is queued, within limits. */
void sw_super__control_send(struct sw_super *s, struct sw_control m);
void sw_super__control_flush(struct sw_super *s);
void sw_super__control_read(struct sw_super *s);
struct sw_control sw_super__message_about(const struct sw_super *s,
                                          const struct sw_super_process *p,
                                          enum sw_control_kind kind);

/* supervisor.c */
void sw_super__gateway_kill(struct sw_super *s);
/* heard: what sw_super__guard_add or _remove answered; a deaf guard is replaced. */
void sw_super__guard_told(struct sw_super *s, bool heard);

#endif
