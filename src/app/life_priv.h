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

/* ---- check.c: one question to one instance --------------------------------------------------- */

enum check_result {
    CHECK_OK,
    CHECK_BAD,
    CHECK_UNKNOWN, /* we could not ask: our own limits. Says nothing about the instance. */
};

/* why: static text. Called from a turn of the loop, never from sw_check__start. */
typedef void sw_check_fn(struct sw_check *c, void *arg, enum check_result result, const char *why);

struct sw_check {
    uint32_t magic;
    uint32_t len; /* bytes of the answer so far */
    struct sw_loop *loop;
    struct sw_instance *instance;
    struct sw_slice path;     /* empty: to accept is enough */
    struct sw_stream *stream; /* NULL: not asking */
    struct sw_timer timeout;  /* of the question */
    struct sw_timer next;     /* health.c's: when to ask again */
    struct sw_life *life;
    sw_check_fn *fn;
    size_t scanned;
    char answer[CHECK_BYTES];
};

void sw_check__init(struct sw_check *c, struct sw_loop *loop, struct sw_instance *i,
                    struct sw_slice path, sw_check_fn *fn, struct sw_life *life);
/* Asks; not while asking. */
void sw_check__start(struct sw_check *c, uint64_t timeout_ns);
/* Forgets the question and the next one. */
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
void sw_health__due(struct sw_timer *timer, void *arg);

#endif
