/* super/super.h - the parent process: listeners, the gateway process, the apps' processes.
 *
 * Room       supervisor.c (the loop, the messages), spawn.c (fork and exec), ports.c (listeners and
 *            addresses for instances), output.c (what apps print), guard.c (nobody is left behind).
 * May touch  app/control.h, config/, io/ for addresses and sw_listen_socket, base/.
 * Flow       cli/ parses and calls sw_super_run; the gateway process asks for instances by message.
 *
 * It parses no byte from the network and trusts no message of the gateway, which does. So a crash
 * of the gateway leaves listeners and apps alone. Single-threaded: poll() and a signalfd.
 */
#ifndef SW_SUPER_H
#define SW_SUPER_H

#include "base/slice.h"

struct sw_config;

/* What a process of stateway exits with. The gateway process uses the same: when it ends with
 * SW_EXIT_FAILED or SW_EXIT_START before it was ever ready, it is not started again. */
enum sw_exit {
    SW_EXIT_OK = 0,
    SW_EXIT_FAILED = 1, /* the configuration is wrong, or the command failed */
    SW_EXIT_USAGE = 2,
    SW_EXIT_START = 3, /* could not start: address in use, store locked, ... */
};

typedef void sw_super_ready_fn(void *arg);

struct sw_super_options {
    const char *program;             /* the gateway's executable; NULL: /proc/self/exe */
    const char *const *gateway_args; /* given to `program gateway`, NULL-terminated; may be NULL */
    struct sw_slice text;            /* the configuration: both processes read the same bytes */
    const char *name;                /* its name in messages */
    const struct sw_config *config;  /* text, parsed; outlives the call */
    const char *scratch;             /* absolute path; removed at the end with all in it; or NULL */
    sw_super_ready_fn *ready;        /* called once: the gateway answers; may be NULL */
    void *arg;
};

/* Runs until SIGTERM or SIGINT and returns an enum sw_exit. Changes the process: signal mask,
 * child subreaper, descriptors above 2 close on exec. What fails at start is logged.
 *
 * The gateway process is started as
 *     PROGRAM gateway --control-fd N --config-fd N --name NAME --workers N
 *             [--listen-fds 5,6;7,8] [--admin-fd N] GATEWAY_ARGS...
 * with one group of listening sockets an address of the configuration, in its order, and in it one
 * a worker: sockets of their own (SO_REUSEPORT), or N times the same for a Unix socket. */
SW_MUST int sw_super_run(const struct sw_super_options *opt);

/* Workers for `workers: auto`: the processors this process may use, at most SW_WORKERS_AUTO_MAX. */
#define SW_WORKERS_AUTO_MAX 64
unsigned sw_super_workers_auto(void);

#endif
