/* app/app.h - apps and their instances: which exist, which may answer, and the way to them.
 *
 * Room       instance.c (the table), life.c (main thread: starts, health, drain, rolling restart),
 *            check.c (one health check), balance.c (which one), retry.c (how many more),
 *            upstream.c (connections of one worker), ledger.c (who is bound).
 * May touch  config/, http/, io/, base/. Not placement/, not gateway/. Tells the supervisor through
 *            messages (control.h) over a stream handed to it.
 * Flow       main thread decides; workers read atomics of the table and pick.
 *
 * An instance is a slot of an app ("shop/2") in one incarnation (a random id: every start is a new
 * one). starting -> healthy -> draining -> stopped, or failed. The table has fixed slots that are
 * never freed, so a worker may hold a pointer as long as it holds a reference (sw_instance_ref).
 */
#ifndef SW_APP_H
#define SW_APP_H

#include <stdatomic.h>

#include "base/rng.h"
#include "config/config.h"
#include "io/io.h"

struct sw_apps;  /* the table: one a gateway process */
struct sw_check; /* life.c's */

enum sw_instance_state {
    SW_INSTANCE_NONE, /* a free slot of the table */
    SW_INSTANCE_STARTING,
    SW_INSTANCE_HEALTHY,
    SW_INSTANCE_UNHEALTHY, /* failed its health checks, or ejected for a while */
    SW_INSTANCE_DRAINING,  /* bound visitors only */
    SW_INSTANCE_STOPPING,  /* nobody any more; the process is being ended */
    SW_INSTANCE_STATE_COUNT,
};

/* Read-mostly fields first, the counters every exchange writes on a cache line of their own: a pick
 * looks at the states of all instances and must not wait for each one's counters. */
struct sw_instance {
    uint32_t magic;
    uint32_t app, weight;         /* of this entry of the table, for ever; weight 0: never picked */
    _Atomic uint32_t state;       /* enum sw_instance_state; written by the main thread */
    _Atomic uint32_t slot;        /* the n of "shop/n" */
    _Atomic uint64_t incarnation; /* fixed while state != NONE */
    _Atomic uint32_t sessions;    /* live pins, from the ledger; a floor when that is full */
    _Atomic uint32_t failures;    /* consecutive, passive: sw_instance_done(i, false) */
    _Atomic int64_t unlisted_until_unix_s; /* pins the ledger does not know may live till then */

    _Alignas(64) _Atomic uint32_t refs; /* exchanges and connections that hold it */
    _Atomic uint32_t in_flight;         /* exchanges running on it, over all workers */
    _Atomic uint32_t connections;       /* open or opening connections, over all workers */
    _Atomic uint32_t waiting;           /* exchanges that wait for one of them, over all workers */
    _Atomic uint64_t answered, failed_total;

    /* Readable with a reference, or on the main thread. */
    _Alignas(64) struct sw_addr addr; /* len 0: not known yet (STARTING) */
    char name[72];                    /* "shop/2" */
    char address[SW_ADDR_TEXT_MAX];
    int32_t pid; /* 0: not ours, or not known yet */

    /* The rest belongs to life.c (main thread). */
    struct {
        uint64_t since_ns;   /* when this state began */
        uint64_t started_ns; /* when the process did, or we first saw it */
        uint64_t healthy_ns; /* first time healthy; 0: never yet */
        uint64_t start_deadline_ns, drain_deadline_ns, stop_deadline_ns, eject_until_ns;
        uint32_t ok_streak, bad_streak;
        uint32_t ejections; /* in a row: the next one lasts twice as long */
        bool ejected;       /* by passive failures, until eject_until_ns */
        bool failing;       /* by its health checks */
        bool adopted;       /* ran before this gateway process did */
        bool stop_sent, exited, drained;
        struct sw_check *check;
    } life;
};

/* One more holder: for who keeps the pointer beyond sw_instance_done. Only while holding one. */
void sw_instance_ref(struct sw_instance *i);
void sw_instance_unref(struct sw_instance *i);

/* Main thread, at start. config is borrowed and must outlive the table. NULL: no memory. Free it
 * last: after life, every sw_upstream and every loop they ran on. */
struct sw_apps *sw_apps_new(const struct sw_config *config);
void sw_apps_free(struct sw_apps *a);

/* ---- workers: picking ------------------------------------------------------------------------ */

#define SW_TRIED_MAX 8
struct sw_pick {
    uint32_t app;
    struct sw_instance *tried[SW_TRIED_MAX]; /* never again in this exchange, */
    uint64_t incarnations[SW_TRIED_MAX];     /* but what starts in its place may be asked */
    uint32_t tried_count;
    bool newcomer; /* a sticky visitor without pin: fewest live sessions */
    uint64_t hash; /* for balance: hash */
};
/* A healthy instance by the app's policy, with a reference and in_flight counted; NULL: none that
 * was not tried. One with all its connections in use is taken only when all are so. Any worker. */
struct sw_instance *sw_app_pick(struct sw_apps *a, const struct sw_pick *p, struct sw_rng *rng);
/* The instance with that incarnation, when it may still serve bound visitors (healthy or draining);
 * with reference and in_flight counted. NULL: *ret_gone tells whether it ended for good; false: it
 * is unhealthy or starting, or the table is not filled yet (a gateway that just began). Any
 * worker. */
struct sw_instance *sw_app_find(struct sw_apps *a, uint32_t app, uint64_t incarnation,
                                bool *ret_gone);
/* The exchange on it is over: gives back what pick or find took. ok: it answered in order (resets
 * the passive failure count); else counts one failure. After sw_ledger_seen, not before. */
void sw_instance_done(struct sw_instance *i, bool ok);
/* The same when the exchange says nothing about the instance (the client went away). */
void sw_instance_done_quiet(struct sw_instance *i);
/* Is any instance healthy? When none is, *ret_starting: one is about to be (worth waiting for). */
bool sw_app_any(struct sw_apps *a, uint32_t app, bool *ret_starting);

/* The largest state, in bytes of the header's value, that every serving instance of the app was
 * seen to take: found out with a dummy header when an instance becomes healthy (health.c).
 * UINT32_MAX: never found wanting, or not tried: no route to it has `state: session`. 0: none. Any
 * thread; one relaxed load. */
uint32_t sw_app_inline_bytes(const struct sw_apps *a, uint32_t app);

/* Spends one retry of the app's budget (a share of its recent exchanges); false: refused. */
bool sw_app_retry_spend(struct sw_apps *a, uint32_t app, uint64_t now_ns);
/* Every first try adds to the budget. */
void sw_app_retry_earn(struct sw_apps *a, uint32_t app, uint64_t now_ns);

/* ---- the ledger of sticky visitors ----------------------------------------------------------- */

/* A pin (random 64-bit id) was seen on an instance, which the caller holds. Bounded table
 * (SW_LEDGER_MAX); when it is full, visitors are served all the same, sessions is only a floor, and
 * a drain of the instance waits for the idle time instead. Any worker. */
#define SW_LEDGER_MAX (256u * 1024u)
void sw_ledger_seen(struct sw_apps *a, struct sw_instance *i, uint64_t pin_id, int64_t now_unix_s,
                    int64_t idle_s);

/* ---- workers: connections to instances ------------------------------------------------------- */

struct sw_upstream;      /* one a worker */
struct sw_upstream_wait; /* embedded by the caller below; zero it before its first use */

typedef void sw_upstream_fn(struct sw_upstream_wait *w, enum sw_err err, struct sw_stream *s,
                            bool reused);
struct sw_upstream_wait {
    struct sw_link link;
    struct sw_instance *instance;
    struct sw_upstream *upstream;
    struct sw_stream *connecting;
    struct sw_timer timer;
    sw_upstream_fn *fn;
    void *arg;
    bool pending; /* in the queue */
    bool fresh;
};

/* Bounds, a worker. */
#define SW_UPSTREAM_IDLE_MAX 4096 /* idle connections, all instances */
#define SW_UPSTREAM_IDLE_INSTANCE_MAX                                                              \
    1024                                       /* of one instance: fewer, and many busy            \
                                                  clients make it a constant reconnecting */
#define SW_UPSTREAM_IDLE_NS (55 * SW_NS_PER_S) /* below the 60 s many servers choose */
#define SW_UPSTREAMS_MAX    256                /* workers there can be */

/* On the worker's thread or before it runs. NULL: no memory, or more than SW_UPSTREAMS_MAX. */
struct sw_upstream *sw_upstream_new(struct sw_apps *a, struct sw_loop *loop,
                                    const struct sw_config *config);
/* Closes idle connections and those being made; who still waits hears nothing. On the worker's
 * thread or after it ended; before its loop is freed. */
void sw_upstream_free(struct sw_upstream *u);

/* A connection to an instance the caller holds.
 *
 * fresh  do not take an idle one (after a reused one turned out dead).
 * DONE   *ret_stream is an idle connection: attach your events before you return to the loop.
 * MORE   a new one is being made, or all are in use and the caller is in the app's queue (FIFO;
 *        bounded by pending_max and by timeouts.response_ns); fn follows exactly once, from a turn
 *        of the loop, unless canceled. fn attaches its events, or puts the stream back.
 * FAIL   *ret_err: SW_E_PENDING_FULL, SW_E_OVERLOADED, SW_E_NO_FILES, SW_E_CONNECT.
 * fn     SW_OK; SW_E_CONNECT, SW_E_CONNECT_SLOW (timeouts.connect_ns), SW_E_NO_INSTANCE (it left
 *        while the caller was in the queue), SW_E_PENDING_FULL (waited too long), SW_E_OVERLOADED.
 * Reading is on for idle ones and off for new ones: call sw_stream_read_start in both cases. */
SW_MUST enum sw_step sw_upstream_get(struct sw_upstream *u, struct sw_instance *i, bool fresh,
                                     struct sw_upstream_wait *w, sw_upstream_fn *fn, void *arg,
                                     struct sw_stream **ret_stream, enum sw_err *ret_err);
/* No fn any more; nothing when w waits for nothing. */
void sw_upstream_cancel(struct sw_upstream_wait *w);
/* Gives a connection back, always, exactly once: reusable (kept idle, bounded; closed when the peer
 * closes or speaks unasked, when the idle time is up, when the instance leaves) or not (closed).
 * The caller's events are detached. Wakes a waiter in a later turn. */
void sw_upstream_put(struct sw_upstream *u, struct sw_instance *i, struct sw_stream *s,
                     bool reusable);
/* The stream was closed by the caller itself (lingering, or handed on): only counts. */
void sw_upstream_forget(struct sw_upstream *u, struct sw_instance *i);
uint32_t sw_upstream_idle(const struct sw_upstream *u);

/* ---- main thread: life ----------------------------------------------------------------------- */

struct sw_life;
typedef void sw_life_log_fn(void *arg, enum sw_log_level level, const char *text);

struct sw_control;
struct sw_life_hooks {
    /* Tells the supervisor. */
    void (*send)(void *arg, const struct sw_control *msg);
    /* One line for the log. */
    sw_life_log_fn *log;
    /* Once: every app has all its instances healthy, or one and its start timeout is over. */
    void (*ready)(void *arg);
    void *arg;
};
/* Main thread: begins to run apps: asks the supervisor (HELLO) what there is, starts what is
 * missing, checks health, ejects (never more than half of an app), restarts what ended with
 * exponential backoff, drains, rolls. hooks is copied; send is called from in here (HELLO), ready
 * never is. */
struct sw_life *sw_life_new(struct sw_apps *a, struct sw_loop *loop, const struct sw_config *config,
                            const struct sw_life_hooks *hooks);
void sw_life_free(struct sw_life *l);
/* A message of the supervisor. */
void sw_life_control(struct sw_life *l, const struct sw_control *msg);
/* No more starts: the gateway is stopping (instances are the supervisor's to end). */
void sw_life_stop(struct sw_life *l);

/* Commands of the admin API; instance: "shop/2". SW_E_NOT_FOUND, SW_E_CONFLICT (already under way,
 * or the gateway is stopping), SW_E_UNSUPPORTED (roll and kill: servers; undrain: processes).
 *
 * roll   one slot after the other: a new instance first, then the old one drained and stopped.
 *        A new one that does not become healthy ends the roll; the old one stays.
 * drain  of a process: a fresh one takes its slot; bound visitors stay until nobody is left or
 *        the deadline has come, then it is stopped. Of a server: bound visitors only, and
 *        after the deadline nobody, until undrain.
 * kill   SIGKILL at once; its slot is filled again.
 */
SW_MUST enum sw_err sw_life_roll(struct sw_life *l, struct sw_slice app);
SW_MUST enum sw_err sw_life_drain(struct sw_life *l, struct sw_slice instance);
SW_MUST enum sw_err sw_life_undrain(struct sw_life *l, struct sw_slice instance);
SW_MUST enum sw_err sw_life_kill(struct sw_life *l, struct sw_slice instance);

/* For admin and metrics: visits every instance that is not SW_INSTANCE_NONE. Main thread. */
typedef void sw_instance_fn(void *arg, const struct sw_instance *i);
void sw_apps_visit(struct sw_apps *a, sw_instance_fn *fn, void *arg);
const char *sw_instance_state_name(enum sw_instance_state s);
bool sw_apps_ready(const struct sw_apps *a); /* every app has at least one healthy instance */

#endif
