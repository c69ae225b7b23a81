/* gateway/gateway.h - the gateway process: workers that run exchanges, and the thread that decides.
 *
 * Room       worker.c (one a thread), conn.c (a client's connection), exchange.c (the machine),
 *            relay.c (bodies), tunnel.c (upgraded connections), admit.c (the queue of a key),
 *            respond.c (our own answers), stats.c, access.c (the access log), main.c.
 * May touch  every room below: placement/, app/, store/, route/, http/, crypto/, config/, io/,
 * base/. Flow       listener -> connection -> exchange: route, admit, load, pick, await, commit,
 * send.
 */
#ifndef SW_GATEWAY_H
#define SW_GATEWAY_H

#include "placement/placement.h"

/* ---- the process ----------------------------------------------------------------------------- */

struct sw_admin_ops;

struct sw_gateway_start {
    int control_fd; /* to the supervisor: SOCK_SEQPACKET, app/control.h */
    const char *config_text;
    size_t config_len;
    const char *config_name; /* for messages */
    const struct sw_config_override *override;
    const int *listen_fds; /* [listen][worker]: each worker has its own socket of each address */
    size_t listen_count, workers;
    int admin_fd; /* -1: no admin listener */
};

/* Runs the gateway until the supervisor asks for the end. Returns the exit code (0: in order; 3:
 * could not start, and why was logged). Main thread of a fresh process. admin: the room above,
 * given as functions so that no arrow points up; NULL: none. */
int sw_gateway_main(const struct sw_gateway_start *start, const struct sw_admin_ops *admin);

/* ---- what the admin room reads, on the main thread ------------------------------------------- */

struct sw_gateway;
struct sw_keysets;
struct sw_stats;

struct sw_admin_ops {
    /* Begins to serve on fd with the main thread's loop; returns its handle, NULL: failed. */
    void *(*open)(struct sw_gateway *g, struct sw_loop *loop, int fd);
    void (*close)(void *admin);
};

const struct sw_config *sw_gateway_config(const struct sw_gateway *g);
struct sw_apps *sw_gateway_apps(const struct sw_gateway *g);
struct sw_life *sw_gateway_life(const struct sw_gateway *g);
struct sw_store *sw_gateway_store(const struct sw_gateway *g); /* NULL: none */
size_t sw_gateway_workers(const struct sw_gateway *g);
const struct sw_stats *sw_gateway_stats(const struct sw_gateway *g, size_t worker);
struct sw_loop *sw_gateway_worker_loop(const struct sw_gateway *g, size_t worker);
bool sw_gateway_ready(const struct sw_gateway *g);
const struct sw_budget *sw_gateway_large(const struct sw_gateway *g);
/* What is in use now; replaced when the file changes, so not to be kept beyond a callback. */
const struct sw_keyring *sw_gateway_keys(const struct sw_gateway *g);
const struct sw_keys_rules *sw_gateway_keys_in(const struct sw_gateway *g);
/* The file of keys has changed and cannot be read: those of before are in use. */
bool sw_gateway_keys_stale(const struct sw_gateway *g);
/* Of all workers. */
struct sw_key_used sw_gateway_key_used(const struct sw_gateway *g, uint32_t id);
bool sw_gateway_stopping(const struct sw_gateway *g);
uint64_t sw_gateway_log_dropped(const struct sw_gateway *g);
const struct sw_keysets *sw_gateway_keysets(const struct sw_gateway *g); /* NULL: none */
/* Of all workers; zeros when no route takes tokens. */
struct sw_token_cache_stats sw_gateway_tokens(const struct sw_gateway *g);

/* What a configuration asks of a key ring. Pure. */
void sw_gateway_keys_rules(const struct sw_config *config, struct sw_keys_rules *ret_rules);

/* ---- counters of one worker: written by it, read by anyone (relaxed) ------------------------- */

#define SW_STATS_ROWS      512 /* combinations of route app, placement, status and verdict */
#define SW_LATENCY_BUCKETS 14
extern const double
    sw_latency_bounds_s[SW_LATENCY_BUCKETS]; /* upper bounds, seconds; +Inf follows */

struct sw_stats_row {
    _Atomic uint64_t
        key; /* 0: free; else app, placement, status, verdict packed: sw_stats_unpack */
    _Atomic uint64_t count;
};
struct sw_latency {
    _Atomic uint64_t bucket[SW_LATENCY_BUCKETS + 1];
    _Atomic uint64_t sum_ns;
};
struct sw_stats {
    struct sw_stats_row rows[SW_STATS_ROWS];
    _Atomic uint64_t rows_lost; /* exchanges whose combination found no row */
    struct sw_latency latency[SW_APPS_MAX][SW_PLACE_COUNT]; /* head in -> answer complete */
    struct sw_latency gateway[SW_PLACE_COUNT];              /* our own share: without the app's */
    _Atomic uint64_t connections_open, connections_total, exchanges_open, tunnels_open;
    _Atomic uint64_t retries, retries_refused, reruns, queue_waits;
    _Atomic uint64_t bytes_in, bytes_out;
    _Atomic uint64_t errors[SW_E_COUNT];
    _Atomic uint64_t pins_lost, commits;
    _Atomic uint64_t claims_new,
        claims_replayed; /* Idempotency-Key: run, answered from the store */
    _Atomic uint64_t claims_running, claims_reused, claims_unknown; /* refused: 409, 422, 409 */
    _Atomic uint64_t claims_unkept; /* run although the store could not keep them */
    _Atomic uint64_t alarms_delivered, alarms_failed, alarms_dropped;
    _Atomic uint64_t reentries; /* 423 */
    _Atomic uint64_t by_ref;    /* states handed to the app by reference */
    _Atomic uint64_t stages;    /* writes by the side API */
};
struct sw_stats_key {
    uint32_t app; /* SW_APPS_MAX: no route */
    enum sw_placement_kind placement;
    unsigned status;
    enum sw_verdict verdict;
};
struct sw_stats_key sw_stats_unpack(uint64_t key);

/* ---- one worker: also the entry of simulations ----------------------------------------------- */

struct sw_worker;
struct sw_admit;  /* the queues of keys: shared by all workers of a process */
struct sw_access; /* the access log: may be NULL */
struct sw_trust;  /* keys of issuers: trust.c */

#define SW_FRESH_CLIENTS 16384u /* whose new sessions and keys are counted (fresh.c) */
struct sw_admit *sw_admit_new(void);
void sw_admit_free(struct sw_admit *a);

struct sw_worker_options {
    struct sw_loop *loop;
    struct sw_budget *large;  /* shared by the workers */
    int side_fd;              /* the side API's socket of this worker; -1: none */
    struct sw_slice side_url; /* "http://127.0.0.1:7070/state/"; lives as long as the worker */
    bool alarms;              /* this worker delivers the alarms: one of a process */
    const struct sw_config *config;
    const struct sw_routes *routes;
    struct sw_apps *apps;
    struct sw_store *store; /* NULL when no route keeps sessions */
    const struct sw_keyring *keys; /* copied; sw_worker_keys replaces it */
    const struct sw_mint *mint; /* NULL: no route mints tokens */
    const struct sw_trust *trust; /* keys of issuers; NULL: no route needs any */
    struct sw_admit *admit;
    struct sw_access *access;
    const int *listen_fds; /* this worker's sockets, one a listen address */
    size_t listen_count;
    uint64_t seed;
    size_t index;             /* which worker: its ring of the access log */
    uint32_t connections_max; /* of this worker */
    uint32_t exchanges_max;
};
/* On the thread that runs the loop, or before it runs. SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_worker_new(const struct sw_worker_options *opt,
                                  struct sw_worker **ret_worker);
/* What a loop for this configuration must hold. */
void sw_worker_loop_options(const struct sw_config *config, uint32_t connections_max,
                            struct sw_loop_options *ret_options);
/* Stops accepting; idle connections close; stopped(arg) on the loop when the last exchange ended or
 * the deadline came. */
void sw_worker_stop(struct sw_worker *w, uint64_t deadline_ns, void (*stopped)(void *arg),
                    void *arg);
/* Ends at once: as a crash does, but for the memory. The loop must not run any more. */
void sw_worker_free(struct sw_worker *w);
const struct sw_stats *sw_worker_stats(const struct sw_worker *w);
/* Other keys from now on: both are copied. On the worker's thread, between two turns; exchanges
 * that run go on with them. mint may be NULL. */
void sw_worker_keys(struct sw_worker *w, const struct sw_keyring *keys, const struct sw_mint *mint);
/* Any thread. */
struct sw_key_used sw_worker_key_used(const struct sw_worker *w, uint32_t id);
struct sw_token_cache_stats sw_worker_tokens(const struct sw_worker *w);

#endif
