/* app/app_priv.h - what the files of the room app/ share. */
#ifndef SW_APP_PRIV_H
#define SW_APP_PRIV_H

#include <pthread.h>

#include "app/app.h"
#include "app/control.h"

#define APPS_MAGIC     0x61707073u
#define INSTANCE_MAGIC 0x696e7374u

/* Entries an app of processes gets: each slot twice (old and new while rolling), and some for old
 * ones that are still held, by an upgraded connection for instance, when the next one begins. */
#define APP_SPARE_ENTRIES 8
#define APP_INSTANCES_MAX (2 * SW_REPLICAS_MAX + APP_SPARE_ENTRIES)

#define RETRY_WINDOW_S 10
#define RETRY_AT_LEAST 10
#define RETRY_BUCKETS  16
_Static_assert(RETRY_BUCKETS > RETRY_WINDOW_S, "a bucket is not reused inside the window");

/* One second: the second in the upper half, the count in the lower. */
struct app_retry_bucket {
    _Atomic uint64_t earned, spent;
};

struct app_table {
    const struct sw_config_app *config;
    struct sw_instance *instances;
    uint32_t count;
    bool spawned;              /* processes of ours; else servers */
    bool weighted;             /* weights differ */
    _Atomic uint32_t used;     /* entries behind this were never used */
    _Atomic uint32_t turn;     /* round-robin */
    _Atomic bool known;        /* the table holds what there is: a pin not in it is gone */
    _Atomic uint32_t expected; /* slots that will start within a second */
    int64_t idle_s_max;        /* longest life of an idle pin, over the sticky routes to this app */
    uint32_t probe_bytes;      /* the largest inline state of its session routes; 0: none */
    _Atomic uint32_t inline_bytes; /* sw_app_inline_bytes; written by the main thread */
    struct app_retry_bucket retry[RETRY_BUCKETS];
};

struct sw_ledger;

/* A worker's place in the list of those to be woken; it outlives the worker's sw_upstream, because
 * a message to it may still be in the queue of its loop. */
struct app_seat {
    struct sw_upstream *upstream; /* under seats_lock, or on its own thread */
    struct sw_loop *loop;
    struct sw_post post;
    _Atomic bool posted;
};

struct sw_apps {
    uint32_t magic;
    const struct sw_config *config;
    struct sw_instance *instances; /* of all apps, one block */
    uint32_t instance_count;
    uint32_t app_count;
    struct app_table *tables;
    struct sw_ledger *ledger;
    pthread_mutex_t seats_lock; /* never on the path of an exchange that finds a connection */
    struct app_seat seats[SW_UPSTREAMS_MAX];
};

static inline struct app_table *sw_apps__table(struct sw_apps *a, uint32_t app)
{
    SW_ASSERT(a != NULL);
    SW_ASSERT(a->magic == APPS_MAGIC);
    SW_ASSERT(app < a->app_count);
    return &a->tables[app];
}

static inline enum sw_instance_state sw_instance__state(const struct sw_instance *i)
{
    return (enum sw_instance_state)atomic_load(&i->state);
}

static inline uint32_t sw_instance__index(const struct sw_apps *a, const struct sw_instance *i)
{
    SW_ASSERT(i->magic == INSTANCE_MAGIC);
    SW_ASSERT(i >= a->instances && i < a->instances + a->instance_count);
    return (uint32_t)(i - a->instances);
}

/* May bound visitors be served by it? */
static inline bool sw_instance__serves(enum sw_instance_state s)
{
    return s == SW_INSTANCE_HEALTHY || s == SW_INSTANCE_DRAINING;
}

/* finalizer of splitmix64: spreads every bit */
static inline uint64_t sw_app__mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* ---- instance.c ------------------------------------------------------------------------------ */

/* Main thread: the one place that sets a state; asserts the arrow. */
void sw_instance__set(struct sw_instance *i, enum sw_instance_state to);
/* Takes a reference and counts in_flight, if the instance still is that incarnation (0: any) and
 * still serves newcomers (or bound visitors, if `bound`). Any worker. */
bool sw_instance__take(struct sw_instance *i, uint64_t incarnation, bool bound);
/* Main thread: an entry nobody holds, in NONE, counters at 0, named; NULL: all are held. Its slot,
 * incarnation and name are set; the caller sets the rest, then the state. */
struct sw_instance *sw_instance__claim(struct sw_apps *a, uint32_t app, uint32_t slot,
                                       uint64_t incarnation);
/* Does nobody hold it? */
bool sw_instance__unheld(const struct sw_instance *i);
/* Main thread: by incarnation, any state but NONE; NULL: none. */
struct sw_instance *sw_apps__by_incarnation(struct sw_apps *a, uint32_t app, uint64_t incarnation);
/* The same id for the same server in every process: its pins hold over restarts of the gateway. */
uint64_t sw_apps__server_id(struct sw_slice app, struct sw_slice address);

/* ---- ledger.c -------------------------------------------------------------------------------- */

/* capacity: pins it can hold. NULL: no memory. */
struct sw_ledger *sw_ledger__new(struct sw_apps *a, uint32_t capacity);
void sw_ledger__free(struct sw_ledger *l);
/* Main thread: looks at up to `count` entries behind where it stopped, drops those that expired or
 * whose incarnation ended. */
void sw_ledger__sweep(struct sw_apps *a, int64_t now_unix_s, uint32_t count);
/* Entries in use. */
uint32_t sw_ledger__used(struct sw_apps *a);

/* ---- upstream.c ------------------------------------------------------------------------------ */

/* Any thread: every worker looks at its connections and waiters again, in a turn of its own. */
void sw_upstream__wake_all(struct sw_apps *a, const struct sw_upstream *but);

#endif
