/* app/control.h - the messages between the gateway process and the supervisor.
 *
 * One Unix socket pair (SOCK_SEQPACKET: a message is a record), fixed structs of one build on both
 * sides. The supervisor checks every field: the gateway reads the network and may be taken over.
 */
#ifndef SW_CONTROL_H
#define SW_CONTROL_H

#include "base/base.h"

#define SW_CONTROL_VERSION   1
#define SW_CONTROL_INSTANCES 1024 /* processes the supervisor runs at most */

enum sw_control_kind {
    /* gateway -> supervisor */
    SW_CONTROL_HELLO = 1, /* the gateway is up; the supervisor answers with one INSTANCE for each
                             process it has, then SYNCED */
    SW_CONTROL_START,     /* start one: app, slot, incarnation */
    SW_CONTROL_STOP,      /* end one: SIGTERM now, SIGKILL to the group after grace_ms */
    SW_CONTROL_KILL,      /* SIGKILL its group now (demonstrations, stuck instances) */
    SW_CONTROL_READY,     /* the gateway listens and has what it needs: `stateway run` says so */
    /* supervisor -> gateway */
    SW_CONTROL_INSTANCE, /* one that runs: app, slot, incarnation, pid, address */
    SW_CONTROL_SYNCED,
    SW_CONTROL_STARTED,  /* answer to START: pid and address, or error (errno) */
    SW_CONTROL_EXITED,   /* one ended: status as of waitpid */
    SW_CONTROL_SHUTDOWN, /* finish running exchanges within grace_ms, then exit 0 */
    SW_CONTROL_RELOAD,   /* a new configuration was checked; the gateway is replaced (reserved) */
};

struct sw_control {
    uint32_t version; /* SW_CONTROL_VERSION */
    uint32_t kind;
    uint32_t app;         /* index in the configuration */
    uint32_t slot;        /* 1..replicas: the n of "shop/n" */
    uint64_t incarnation; /* random, made by the gateway; never 0 */
    int32_t pid;
    int32_t status; /* EXITED: as of waitpid; STARTED: errno when it failed */
    uint32_t grace_ms;
    uint32_t started_ms_ago; /* INSTANCE */
    char address[112];       /* NUL-terminated: "127.0.0.1:20001" or "unix:/path" */
};
_Static_assert(sizeof(struct sw_control) == 152, "one layout on both sides");

#endif
