/* app/life_priv.h - what the files of the main thread's side share: life.c roll.c health.c check.c.
 */
#ifndef SW_LIFE_PRIV_H
#define SW_LIFE_PRIV_H

#include "app/app_priv.h"
#include "http/http.h"

#define LIFE_MAGIC  0x6c696665u
#define CHECK_MAGIC 0x6368656bu

#define LIFE_TICK_NS               (100 * SW_NS_PER_MS) /* for what no event tells: deadlines */
#define LIFE_STARTING_NS           (25 * SW_NS_PER_MS)  /* between checks of a new process */
#define LIFE_STARTING_SLOW_NS      (100 * SW_NS_PER_MS) /* and after its first two seconds */
#define LIFE_SERVER_NS             (250 * SW_NS_PER_MS) /* between first checks of a server */
#define LIFE_STOP_WAIT_NS          (5 * SW_NS_PER_S)  /* for exchanges, before it is told to stop */
#define LIFE_STUCK_NS              (10 * SW_NS_PER_S) /* beyond the grace: killed again */
#define LIFE_BACKOFF_NS            (100 * SW_NS_PER_MS)
#define LIFE_BACKOFF_MAX_NS        (30 * SW_NS_PER_S)
#define LIFE_BACKOFF_SERVED_NS     (10 * SW_NS_PER_MS) /* of one that was healthy before */
#define LIFE_BACKOFF_SERVED_MAX_NS (250 * SW_NS_PER_MS)
#define LIFE_PROVEN_NS             (10 * SW_NS_PER_S) /* healthy so long: a first crash */
#define LIFE_HINT_EXITS            3                  /* in a row before it was ever healthy */
#define LIFE_SYNC_WARN_NS          (10 * SW_NS_PER_S)
#define EJECT_FAILURES             5
#define EJECT_NS                   (10 * SW_NS_PER_S)
#define EJECT_MAX_NS               (300 * SW_NS_PER_S)
#define CHECK_BYTES                4096 /* head of an answer to a health check */
#define CHECK_FIELDS               64
/* of a question, less path and filler */
#define CHECK_HEAD_BYTES (SW_ADDR_TEXT_MAX + 128)
/* What stands beside the state in a request to an app, when we try how large one may be: our other
 * lines (Stateway-Key, -Version, -State-Info, -Ref, -Trace ..., Forwarded, X-Forwarded-*, Via), and
 * those of an ordinary browser with a few cookies. */
#define PROBE_OURS_BYTES   1024
#define PROBE_CLIENT_BYTES 1536
#define PROBE_TRIES        3 /* questions until one is answered at all */
#define PROBE_HALVINGS     4 /* then a state in a header is given up: 0 */

/* ---- check.c: what is asked of one instance -------------------------------------------------- */

enum check_result {
    CHECK_OK,
    CHECK_BAD,
    CHECK_UNKNOWN, /* we could not ask: our own limits. Says nothing about the instance. */
};

/* why: static text. Called from a turn of the loop, never from sw_check__start. */
typedef void sw_check_fn(struct sw_check *c, void *arg, enum check_result result, const char *why);

/* How a question ended. */
enum check_end {
    CHECK_ANSWERED, /* with a status of 200 or more */
    CHECK_ACCEPTED, /* the connection; nothing was asked on it */
    CHECK_CLOSED,   /* without a whole answer */
    CHECK_FAILED,   /* not accepted, no answer in time, or one that is no HTTP */
    CHECK_UNASKED,  /* our own limits */
};

/* A question on a connection of its own. */
struct check_ask {
    struct sw_check *check;
    struct sw_stream *stream; /* NULL: not asking */
    struct sw_timer timeout;
    size_t scanned;
    uint32_t len; /* bytes of the answer so far */
    char answer[CHECK_BYTES];
};

/* How far an instance's probe came: health.c's. */
enum probe_stage {
    PROBE_NONE,  /* not begun */
    PROBE_FULL,  /* asks with the largest header a state may make */
    PROBE_PLAIN, /* that was refused: is a plain request refused too? */
    PROBE_HALF,  /* no: asks with half of it, and half of that ... */
    PROBE_AGAIN, /* the full one once more: was it chance? */
    PROBE_DONE,  /* `takes` is known */
    PROBE_OPEN,  /* nothing can be said */
};

struct sw_check {
    uint32_t magic;
    struct sw_loop *loop;
    struct sw_instance *instance;
    struct sw_slice path; /* empty: to accept is enough for health; a probe asks HEAD / */
    struct sw_life *life;
    sw_check_fn *fn;
    struct sw_timer next; /* health.c's: when to ask again */
    struct {
        enum probe_stage stage;
        uint32_t bytes;           /* asked with, of the state alone */
        uint32_t asked, halvings; /* so far */
        uint32_t takes;  /* PROBE_DONE: the largest that passed; UINT32_MAX: the full one did */
        unsigned status; /* of the answer that refused the full one; 0: it closed */
    } header;
    struct check_ask health, probe;
};

void sw_check__init(struct sw_check *c, struct sw_loop *loop, struct sw_instance *i,
                    struct sw_slice path, sw_check_fn *fn, struct sw_life *life);
/* Asks about its health; not while asking. */
void sw_check__start(struct sw_check *c, uint64_t timeout_ns);
/* Asks with a request whose head is as large as with a state of that many bytes (0: a plain one);
 * beside sw_check__start, not while such a question is under way. sw_health__probed is told. */
void sw_check__probe(struct sw_check *c, uint32_t bytes, uint64_t timeout_ns);
/* Forgets all questions and the next one. */
void sw_check__stop(struct sw_check *c);

/* ---- life.c ---------------------------------------------------------------------------------- */

struct life_slot {
    struct sw_life *life;
    uint32_t app, slot;          /* slot from 1 */
    struct sw_instance *current; /* NULL: one will be started */
    struct sw_instance *next;    /* started to take current's place */
    struct sw_timer restart;
    uint32_t crashes;   /* in a row, since one lived long: the backoff's exponent */
    uint32_t stillborn; /* in a row, never healthy */
    bool expected;      /* counted in app_table.expected */
};

enum roll_stage {
    ROLL_OFF,
    ROLL_NEW, /* waits for the new one of `slot` to be healthy */
    ROLL_OLD, /* waits for the old one to be gone */
};

struct life_roll {
    enum roll_stage stage;
    uint32_t slot, last; /* goes from slot to last */
    struct sw_instance *old;
    uint64_t old_incarnation, old_until_ns;
};

struct life_app {
    struct sw_life *life;
    struct app_table *table;
    uint32_t app, slot_count;
    bool ready;
    struct life_roll roll;
    struct life_slot slots[SW_REPLICAS_MAX];
};

struct sw_life {
    uint32_t magic;
    bool synced, stopping, ready_told, sync_warned;
    struct sw_apps *apps;
    struct sw_loop *loop;
    const struct sw_config *config;
    struct sw_life_hooks hooks;
    struct sw_timer tick;
    uint64_t began_ns;
    uint32_t app_count;
    struct life_app *list;
    struct sw_check *checks; /* by the instance's index */
};

void sw_life__log(struct sw_life *l, enum sw_log_level level, const char *fmt, ...) SW_PRINTF(3, 4);
static inline struct life_app *sw_life__app(struct sw_life *l, const struct sw_instance *i)
{
    return &l->list[i->app];
}
static inline struct life_slot *sw_life__slot(struct sw_life *l, const struct sw_instance *i)
{
    return &l->list[i->app].slots[i->slot - 1];
}
/* Sets the state, the moment, and what belongs to leaving one. */
void sw_life__to(struct sw_life *l, struct sw_instance *i, enum sw_instance_state to);
/* Starts a process for the slot, as current or, when there is one, as next. False: no entry free.
 */
bool sw_life__start(struct sw_life *l, struct life_slot *s);
/* The checks say it may serve (again): takes its place. */
void sw_life__passed(struct sw_life *l, struct sw_instance *i);
/* From now on bound visitors only. */
void sw_life__drain(struct sw_life *l, struct sw_instance *i);

/* ---- roll.c ---------------------------------------------------------------------------------- */

/* Replaces the slots first..last of the app, one after the other. No roll may be under way. */
void sw_roll__begin(struct life_app *a, uint32_t first, uint32_t last);
void sw_roll__tick(struct life_app *a);
/* A slot's new one is healthy and took the place of old (NULL: there was none). */
void sw_roll__replaced(struct life_app *a, struct life_slot *s, struct sw_instance *old);
/* A slot's new one ended or took too long. */
void sw_roll__failed(struct life_app *a, struct life_slot *s);

/* ---- health.c -------------------------------------------------------------------------------- */

/* Begins to ask: at once. */
void sw_health__begin(struct sw_life *l, struct sw_instance *i);
void sw_health__tick(struct sw_life *l, struct sw_instance *i);
sw_check_fn sw_health__checked;
/* A probe's question ended; status: with CHECK_ANSWERED. */
void sw_health__probed(struct sw_check *c, enum check_end end, unsigned status);
void sw_health__due(struct sw_timer *timer, void *arg);

#endif
