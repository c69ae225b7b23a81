/* tests/sim/world.h - a whole world around a gateway: network, clients, apps, a supervisor; and
 * what must be true of it.
 *
 * One run is one seed. `outside` is the loop of the clients and the supervisor, `apps_loop` that of
 * all app instances; the gateway process has a main loop and one a worker. What breaks, and how
 * badly, is drawn from the seed at first (struct plan): a run has few kinds of trouble, so that one
 * cannot hide another.
 *
 * Every request has a number. The client that sends it, the app that runs it and the state it
 * changes write the number down; oracle.c compares.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "app/control.h"
#include "gateway/gateway_priv.h"
#include "io/sim.h"

#define CLIENTS_MAX   12u
#define VISITORS_MAX  6u
#define REQS_MAX      1000u
#define LIST_MAX      400u
#define SESSIONS_MAX  256u
#define COOKIES_MAX   256u
#define FAKES_MAX     192u
#define APP_CONNS_MAX 256u
#define WORKERS_MAX   2u
#define ROOMS         3u
#define PIPELINE_MAX  4u
#define CLAIMS_MAX    160u
#define STAMPS_MAX    8192u
#define WHOS_MAX      3u /* principals, where a header names them */
#define ALARM_IDS     3u /* alarms of a state: a0, a1, a2 */
#define TRIES_MAX     14u
/* What the delivery of an alarm writes: this and the number of the request that set it. */
#define ALARM_BASE 2000u
_Static_assert(ALARM_BASE > REQS_MAX, "numbers of requests and of alarms differ");

/* ---- the routes of the test configurations --------------------------------------------------- */

enum route_id {
    ROUTE_COUNT, /* session, serial, by cookie */
    ROUTE_CAS,
    ROUTE_MERGE,
    ROUTE_LAST,
    ROUTE_SAFE,  /* session, serial, replay: safe */
    ROUTE_ROOM,  /* session, serial, by path */
    ROUTE_PLAIN, /* none */
    ROUTE_NEVER, /* none, replay: never */
    ROUTE_STICKY,
    ROUTE_ONCE,  /* session by path, Idempotency-Key required, unknown: reject */
    ROUTE_AGAIN, /* the same, unknown: retry, failed: release, wait, replay: safe */
    ROUTE_PAY,   /* none, Idempotency-Key optional, failed: store, wait, a small max-answer */
    ROUTE_WAKE,  /* session by cookie, with alarms */
    ROUTE_BELL,  /* session by path, with alarms */
    ROUTE_ID_COUNT,
};

struct route_info {
    const char *name, *cookie;
    bool session;
    bool list;   /* the state is a list of numbers in order of commits */
    bool replay; /* a POST may run more than once */
    bool by_path;
    bool alarms;
    enum { KEYS_NO, KEYS_OPTIONAL, KEYS_REQUIRED } keys; /* Idempotency-Key */
    bool who;                                            /* a header names the principal */
    bool retries;                                        /* unknown: retry */
    bool stores_5xx;
    bool frees_5xx;
    uint32_t kept_bytes_max; /* the longest answer that is kept */
};
extern const struct route_info routes_info[ROUTE_ID_COUNT];

/* What the client asks of the app. The order is that of the names in wire.c. */
enum act {
    ACT_OK,    /* answers, without touching the state */
    ACT_ADD,   /* appends its number to the state */
    ACT_DEL,   /* ends the session */
    ACT_RENEW, /* appends, and asks for a new id */
    ACT_SLOW,  /* answers after a while */
    ACT_NEVER,
    ACT_CLOSE,   /* closes instead of answering */
    ACT_MIDWAY,  /* closes in the middle of its answer's body */
    ACT_GARBAGE, /* answers something that is no HTTP */
    ACT_BADJSON, /* an update that is no JSON */
    ACT_TWO,     /* two updates at once */
    ACT_FAIL,    /* 500, with an update that must not be made */
    ACT_EARLY,   /* answers before it has read the request's body */
    ACT_INTERIM, /* 103, then the answer */
    ACT_BIGHEAD, /* a head larger than the limit */
    ACT_EMPTY,   /* 204 */
    ACT_EXTRA,   /* bytes behind the answer */
    ACT_UPGRADE, /* 101, then an echo */
    ACT_SET,     /* appends, and sets an alarm */
    ACT_CANCEL,  /* appends, and cancels one */
    ACT_COUNT,
};

/* The state must not show this request, whatever became of its answer. */
bool act_never_commits(enum act a);
/* A plain answer must come in a calm world. */
bool act_is_plain(enum act a);

/* ---- what is written down -------------------------------------------------------------------- */

struct list {
    uint32_t n;
    uint32_t ids[LIST_MAX];
};

enum outcome {
    OUT_PENDING,  /* sent, or about to be */
    OUT_ANSWERED, /* by the app, whole */
    OUT_OWN,      /* the gateway answered itself */
    OUT_CUT,      /* the connection ended first */
    OUT_LEFT,     /* the client went away first */
};

struct cookie;
struct session;

/* An Idempotency-Key: for one request and all its tries; now and then somebody uses it for another
 * request, which must not be taken for it. */
struct claim {
    enum route_id route;
    uint32_t who, serial; /* the key is "k<serial>" of principal "u<who>" */
    uint32_t main;        /* number of the request it was made for */
    uint32_t misused;     /* how many others came with it */
    uint32_t tries;
    uint32_t begun;    /* an app saw a head of it */
    uint32_t released; /* of those: what the app said it did not do */
    /* what clients were told: from then on it stays so */
    bool done;       /* an answer that is kept */
    uint32_t number; /* of the request that was done */
    uint32_t stamp;  /* of its execution */
    unsigned status;
    bool bytes_known;
    uint64_t bytes;
    bool has_list;
    struct list list;
    bool unknown; /* 409: nobody knows */
    bool large;   /* 409: the answer is too large */
};

struct req {
    uint32_t id, client;
    uint32_t number;     /* on the wire: of the first try of this request */
    struct claim *claim; /* NULL: it has no Idempotency-Key */
    bool misuse;         /* the key is another request's */
    char twist;       /* the request of that number, but: b another body, p another path; 0: no */
    char bad_key;     /* w: no principal, d: two keys, s: no key at all; 0: fine */
    char fail_word;   /* of ACT_FAIL, about its key: s store, r release; 0: none */
    bool done_before; /* the key had its answer when it was sent */
    enum route_id route;
    enum act act;
    enum sw_method method;
    bool idempotent, http10, upgrade;
    bool refused; /* the gateway itself must answer: malformed, or no route */
    char framing; /* of the answer: l, c, x */
    uint32_t room, body_bytes, answer_bytes;
    bool chunked;            /* its body */
    struct cookie *cookie;   /* it was sent with; NULL: none */
    struct session *session; /* of the cookie, or of the room */
    uint32_t acked_before;   /* length of the session's acknowledged list when it was sent */
    bool gone_before;        /* the session's end was acknowledged when it was sent */
    uint32_t renews_at;      /* of the session when it was sent, with this one */
    bool renews_open;        /* others were on their way */
    uint64_t sent_ns, done_ns;
    enum outcome outcome;
    unsigned status;
    char error[40];       /* Stateway-Error */
    bool expects;         /* the app insisted on the version it saw */
    uint32_t executed;    /* by apps, whole */
    uint32_t begun;       /* an app saw its head */
    uint64_t executed_ns; /* first */
    /* ACT_SET, ACT_CANCEL */
    uint32_t alarm, alarm_ms;
    bool doomed; /* no app ever takes it */
    uint32_t deliveries, attempt;
    uint64_t attempt_ns[SW_ALARM_TRIES_MAX + 1];
};

/* A state that clients know of. */
struct session {
    enum route_id route;
    uint32_t serial;
    struct list chain; /* the longest list seen */
    uint32_t acked;    /* of it, in acknowledged answers */
    struct list set;   /* ROUTE_MERGE: acknowledged members */
    uint64_t set_acked_ns[LIST_MAX];
    bool end_asked; /* somebody sent a logout */
    bool ended;     /* and it was acknowledged */
    uint64_t ended_ns;
    uint32_t renews_sent, renews_acked;
    uint64_t renew_ns; /* when the first was sent */
    bool moved;        /* a new id was asked for, or written beside the queue: conflicts may come */
};

struct cookie {
    char value[64];
    enum route_id route;
    struct session *session;
    bool renew_asked; /* it may be only an alias by now, or dead */
};

/* ---- bytes out, at the pace of this world ------------------------------------------------------
 */

#define TUNNEL_HELLO "hello from an app\n"

struct pump {
    struct world *w;
    struct sw_loop *loop;
    struct sw_stream *s;
    char *data;
    size_t len, off, cap;
    bool trickle;   /* small pieces, with pauses */
    size_t hold_at; /* stops there until released; SIZE_MAX: no */
    struct sw_timer timer;
};
void pump_init(struct pump *p, struct world *w, struct sw_loop *loop);
void pump_fini(struct pump *p);
void pump_reset(struct pump *p);
void pump_put(struct pump *p, const void *ptr, size_t len);
SW_PRINTF(2, 3) void pump_printf(struct pump *p, const char *fmt, ...);
/* Sends what may be sent now; again from `sent`. */
void pump_run(struct pump *p);
bool pump_done(const struct pump *p);

/* Bytes in. */
struct bytes {
    char *ptr;
    size_t len, cap;
};
void bytes_add(struct bytes *b, struct sw_slice s);
void bytes_drop(struct bytes *b, size_t n);
void bytes_fini(struct bytes *b);

/* Bytes at.. of the body of request id; answers have another one. */
void body_fill(uint32_t id, bool answer, uint64_t at, char *ptr, size_t n);
/* Where the first wrong byte is; n: none. */
size_t body_differs(uint32_t id, bool answer, uint64_t at, const char *ptr, size_t n);
const char *act_name(enum act a);
bool act_parse(struct sw_slice s, enum act *ret_act);
bool query_u32(struct sw_slice query, const char *name, uint32_t *ret_value);
struct sw_slice query_text(struct sw_slice query, const char *name);
/* "1,2,3" */
bool list_parse(struct sw_slice s, struct list *ret_list);
bool list_has(const struct list *l, uint32_t id);

/* ---- fake apps
 * ----------------------------------------------------------------------------------- */

enum fake_state {
    FAKE_NONE,
    FAKE_BOOTING, /* the process runs, and does not listen yet */
    FAKE_UP,
    FAKE_FROZEN, /* stopped, as by SIGSTOP or a long collection */
    FAKE_DEAD,   /* its EXITED is not told yet */
};

struct fake {
    struct world *w;
    enum fake_state state;
    uint32_t serial, app, slot;
    uint64_t incarnation, since_ns;
    int32_t pid, status;
    struct sw_addr addr;
    char address[112]; /* as in struct sw_control */
    int fd;            /* -1: not listening */
    struct sw_listener *listener;
    struct sw_timer timer; /* of its life: boot, death told, thaw */
    struct sw_timer term;  /* SIGTERM was sent: it dies then */
    bool server;           /* comes back at its address */
    bool ever_troubled;    /* frozen or killed once */
};

void app_listen(struct fake *f);
/* As the kernel does when the process ends. */
void app_vanish(struct fake *f);
void app_freeze(struct fake *f, bool on);
void apps_fini(struct world *w);

/* ---- clients
 * ------------------------------------------------------------------------------------- */

struct visitor {
    struct cookie *jar[ROUTE_ID_COUNT];
    uint32_t pinned; /* serial of the fake the pin was made by; 0: none */
    char pin[128];
};

struct client;
void clients_start(struct world *w);
/* No new requests; whoever waits for an answer waits. */
void clients_finish(struct world *w);
bool clients_idle(const struct world *w);
void clients_fini(struct world *w);
/* One GET for the state behind a cookie or a room, in a quiet world; until `clients_idle`. */
void client_ask(struct world *w, struct session *s, struct cookie *c, uint32_t room);
/* That request with a key once more, until a last word is spoken. */
void client_ask_again(struct world *w, const struct req *origin);
/* Its answer: 0 while there is none; list is valid for 200. */
unsigned client_asked(const struct world *w, const struct list **ret_list, bool *ret_present);

/* ---- the gateway process and its supervisor
 * -------------------------------------------------------- */

/* A commit on its way, or made and not told. */
#define FLYING_MAX 512u
struct flying {
    struct world *w;
    struct sw_store_commit *op; /* NULL: free */
    sw_store_commit_fn *done;
    void *arg;
    bool matters; /* it is of a claim or an alarm */
    bool applied, crash_then;
    uint64_t late_ns;
    struct sw_timer timer;
};

#define INBOX_MAX 512u
struct inbox {
    struct sw_control msgs[INBOX_MAX];
    uint32_t first, count;
    bool posted;
    struct sw_post post;
};

struct gateway {
    bool up, ready, stopping;
    unsigned stopped; /* workers */
    uint32_t worker_count;
    struct sw_loop *main, *loops[WORKERS_MAX];
    struct sw_apps *apps;
    struct sw_life *life;
    struct sw_admit *admit;
    struct sw_budget large;
    struct sw_worker *workers[WORKERS_MAX];
    struct inbox inbox;
    uint64_t began_ns;
};

void gateway_start(struct world *w);
/* Without grace: what was not durable is gone. Between turns only. */
void gateway_crash(struct world *w);
/* Begins; gateway_stopped tells. */
void gateway_stop(struct world *w);
bool gateway_stopped(const struct world *w);
void gateway_end(struct world *w); /* after gateway_stopped */

void super_init(struct world *w);
void super_fini(struct world *w);
/* A random instance is killed, frozen, ... */
void super_trouble(struct world *w);
void super_calm(struct world *w);

/* ---- the world
 * ------------------------------------------------------------------------------------- */

struct plan {
    uint32_t variant; /* of the configuration */
    uint32_t clients, visitors, requests_each, workers;
    bool breaking; /* the network breaks connections */
    bool calm;     /* nothing at all goes wrong: every plain request succeeds */
    bool kills, freezes, crashes, restarts, rolls, drains, boot_trouble;
    bool store_slow, store_fails;
    bool bad_apps; /* acts that fail */
    bool aborts;   /* clients leave, trickle, half-close */
    bool pipelining;
    bool parallel;     /* clients share visitors */
    bool tight;        /* few buffers and slots */
    bool bad_clients;  /* malformed requests, slow heads */
    bool logins;       /* many new ids and logouts */
    bool expiry;       /* states live for seconds, and somebody sets the clock */
    bool claims;       /* many requests with Idempotency-Key */
    bool alarms;       /* many alarms */
    bool doomed;       /* one of them is never taken */
    bool bad_alarms;   /* apps fail to take them now and then */
    bool store_late;   /* a commit is told long after it was made */
    bool crash_points; /* the gateway crashes where a commit hurts most */
    uint32_t trouble_every_ms;
    struct sw_sim_faults faults;
};

struct world {
    uint64_t seed;
    bool verbose;
    struct plan plan;
    struct sw_rng rng;
    struct sw_sim *sim;
    struct sw_loop *outside, *apps_loop;
    const struct sw_config *config;
    const struct sw_routes *routes;
    struct sw_keyring keys;
    struct sw_store *store;
    struct sw_addr listen_addr;
    int listen_fds[WORKERS_MAX];
    struct gateway gw;
    struct inbox super_inbox;
    struct fake fakes[FAKES_MAX];
    uint32_t fake_serials;
    int32_t pids;
    uint16_t ports;
    struct sw_timer trouble;
    bool quiet; /* nothing breaks any more */
    bool want_crash, want_restart;
    uint32_t crashes, restarts;
    bool crashed_before, crashed_within, crashed_after; /* of a commit that matters */
    struct flying flying[FLYING_MAX];
    void *app_conns; /* app.c */
    void *clients;   /* client.c */
    struct visitor visitors[VISITORS_MAX];
    struct req reqs[REQS_MAX];
    uint32_t req_count;
    struct session sessions[SESSIONS_MAX];
    uint32_t session_count;
    struct cookie cookies[COOKIES_MAX];
    uint32_t cookie_count;
    struct session *rooms[ROUTE_ID_COUNT][ROOMS];
    struct claim claims_list[CLAIMS_MAX];
    uint32_t claim_count;
    uint32_t stamps[STAMPS_MAX]; /* which request was executed; the first is 1 */
    uint32_t stamp_count;
    uint32_t doomed; /* number of the request that set the alarm nobody takes */
    uint64_t replayed, delivered, given_up;
    uint64_t dropped; /* alarms that gateways gave up, by their own count */
    uint32_t answered, own, cut, left, executed;
    uint32_t by_status[600];
    bool client_net_hurt; /* a client's connection may have gone mute */
};

uint64_t pick(struct world *w, uint64_t bound); /* 0 .. bound-1 */
bool chance(struct world *w, uint32_t percent);
uint64_t now_ns(const struct world *w);
/* A promise was broken: tells, and ends the process. */
SW_NORETURN SW_PRINTF(2, 3) void broken(const struct world *w, const char *fmt, ...);
SW_PRINTF(2, 3) void note(const struct world *w, const char *fmt, ...);

/* ---- oracle.c
 * ---------------------------------------------------------------------------------------- */

struct req *req_new(struct world *w);
struct req *req_of(struct world *w, uint32_t id);             /* NULL: no such number */
struct req *req_origin(struct world *w, const struct req *r); /* its first try */
bool req_writes(const struct req *r);
struct session *oracle_room(struct world *w, enum route_id route);
void oracle_sent(struct world *w, struct req *r);
/* An app has the whole request. seen: the state it was given. */
void oracle_executed(struct world *w, struct req *r);
struct answer {
    const struct list *list; /* what the app said of the state; NULL: nothing */
    bool state_present;
    struct sw_slice set_cookie; /* the value of our cookie, empty: cleared, ptr NULL: not set */
    uint32_t stamp;             /* of the execution it tells of */
    bool replayed;
    uint64_t bytes;
    bool bytes_sure; /* not ended by the end of a connection */
};
/* The client has the whole answer of an app. */
void oracle_answered(struct world *w, struct req *r, struct visitor *v, const struct answer *a);
void oracle_unanswered(struct world *w, struct req *r, enum outcome how);
/* At the end: asks for every state and compares. */
void oracle_final(struct world *w, struct session *s, const struct list *list, bool present);
void oracle_exchanges(struct world *w); /* none is older than it may be */
void oracle_at_rest(struct world *w);

/* All of l was seen as a state of s at some time. */
void oracle_chain(struct world *w, const struct req *r, struct session *s, const struct list *l);

/* ---- claims.c
 * ---------------------------------------------------------------------------------------- */

struct claim *claim_new(struct world *w, enum route_id route, uint32_t who);
/* An app sees the head of a request with a key. */
void claim_begun(struct world *w, struct req *origin);
void claim_answered(struct world *w, struct req *r, const struct answer *a);
/* Is that refusal allowed? */
void claim_refused(struct world *w, const struct req *r);
/* May a calm world refuse so? */
bool claim_may_refuse(const struct world *w, const struct req *r);
/* Does a client that got this try again? */
bool claim_again(struct world *w, const struct req *r);
/* Is the last word spoken? */
bool claim_settled(const struct req *r);
/* What the store keeps, in this moment: keys and states agree. */
void store_check(struct world *w, const char *when);

/* ---- alarms.c
 * ---------------------------------------------------------------------------------------- */

/* The alarms that stand after all of the list; 0 where there is none. */
void alarms_walk(struct world *w, const struct list *l, uint32_t ret_standing[ALARM_IDS]);
/* An app is given an alarm. value: Stateway-Alarm. The request that set it. */
struct req *alarm_delivered(struct world *w, struct sw_slice value, const struct list *list,
                            bool troubled);
/* Does the app take it? */
bool alarm_taken(struct world *w, const struct req *set);
void alarms_check(struct world *w, const struct list *l, struct sw_slice extra, const char *when);
/* At the end: is every one delivered? */
void alarms_final(struct world *w, const struct session *s, const struct list *l);

/* ---- crash.c
 * ----------------------------------------------------------------------------------------- */

struct sw_store_fault crash_fault(void *arg, const struct sw_store_commit *op);
/* An app has just done something with a claim or an alarm. */
void crash_chance(struct world *w);
/* The gateway is about to die: what is hit? */
void crash_count(struct world *w);
/* It died: nobody is told anything any more. */
void crash_forget(struct world *w);

/* ---- run.c
 * --------------------------------------------------------------------------------------------- */

/* Returns the hash of all that happened. */
uint64_t run_seed(uint64_t seed, bool verbose);

/* Over all runs of this process. */
struct run_total {
    uint64_t requests, answered, own, cut, left, crashes, restarts;
    uint64_t claims, replayed, alarms_delivered, alarms_given_up;
    uint64_t crashed_before, crashed_within, crashed_after, crashed_in_flight; /* runs */
    double virtual_s;
    uint64_t by_status[600];
};
extern struct run_total run_total;
extern const char *const configs[];
extern const uint32_t config_count;

#endif
