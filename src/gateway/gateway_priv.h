/* gateway/gateway_priv.h - what the files of this room share: connection, exchange, tunnel. */
#ifndef SW_GATEWAY_PRIV_H
#define SW_GATEWAY_PRIV_H

#include "base/pool.h"
#include "gateway/gateway.h"
#include "keysets/keysets.h"

#define SW_WORKER_MAGIC   0x776f726bu
#define SW_CONN_MAGIC     0x636f6e6eu
#define SW_EXCHANGE_MAGIC 0x65786368u
#define SW_TUNNEL_MAGIC   0x74756e6eu

/* Above HIGH queued bytes the other side is not read any more; the loop tells when all is sent. */
#define SW_RELAY_HIGH_BYTES (64u * 1024u)
/* What is no longer than this is copied where it has to wait: each piece of its own would hold a
 * whole buffer, and a peer that sends bytes one by one could take all there are. */
#define SW_COPY_BYTES_MAX    1024u
#define SW_LINGER_NS         (2 * SW_NS_PER_S)
#define SW_TUNNEL_IDLE_NS    (3600 * SW_NS_PER_S)
#define SW_TRAILER_BYTES_MAX 4096u
#define SW_INTERIM_MAX       32u /* 1xx heads of one answer */

struct sw_exchange;
struct sw_tunnel;
struct sw_alarms;

/* ---- bytes that came and were not yet understood --------------------------------------------- */

struct sw_piece {
    struct sw_piece *next;
    struct sw_buf *buf;
    struct sw_slice bytes;
};
struct sw_inq { /* pieces in order of arrival; memory from the worker's pool */
    struct sw_piece *first, *last;
    size_t bytes;
};
/* Keeps bytes (a reference on buf). False: no piece left. */
SW_MUST bool sw_inq__push(struct sw_worker *w, struct sw_inq *q, struct sw_buf *buf,
                          struct sw_slice bytes);
/* Takes n bytes off the front; n at most the first piece's length. */
void sw_inq__drop(struct sw_worker *w, struct sw_inq *q, size_t n);
void sw_inq__clear(struct sw_worker *w, struct sw_inq *q);
/* Makes the first piece hold all there is, up to max bytes: for heads that arrive in parts. False:
 * no buffer. */
SW_MUST bool sw_inq__gather(struct sw_worker *w, struct sw_inq *q, size_t max);

/* ---- a client's connection ------------------------------------------------------------------- */

enum sw_conn_state {
    CONN_IDLE,     /* between exchanges: nothing of the next head is here */
    CONN_HEAD,     /* a part of a head is here */
    CONN_EXCHANGE, /* one exchange runs; what arrives is its body, or waits */
    CONN_CLOSED,
};

struct sw_conn {
    uint32_t magic;
    uint8_t state; /* enum sw_conn_state */
    bool eof;      /* the client sends no more */
    bool broken;   /* both ways */
    bool running;  /* conn_run is on the stack: it goes on, or frees */
    bool side;     /* it came by the side API's listener: an app, not a client */
    struct sw_worker *worker;
    struct sw_stream *stream;
    struct sw_exchange *exchange;
    struct sw_inq in;
    size_t scanned;
    struct sw_timer timer; /* head or idle */
    struct sw_link link;   /* the worker's list */
    uint64_t head_ns;      /* when the first byte of the head came */
    uint32_t requests;
};

/* The exchange is over: the connection goes on, or ends. */
void sw_conn__done(struct sw_conn *c, bool keep_alive, bool polite);
/* Takes the stream away from the connection (a tunnel begins); the slot is free after it. */
struct sw_stream *sw_conn__detach(struct sw_conn *c, struct sw_inq *ret_rest);
void sw_conn__accept(struct sw_stream *s, void *worker);
void sw_conn__accept_side(struct sw_stream *s, void *worker);
void sw_conn__close(struct sw_conn *c);
/* The worker stops: an idle connection ends, but what it was answered still goes out. */
void sw_conn__leave(struct sw_conn *c);
/* Reading follows need: while the exchange wants its body, or the next head may come. */
void sw_conn__read(struct sw_conn *c, bool on);

/* ---- the queue of a key ---------------------------------------------------------------------- */

struct sw_admit_wait;
typedef void sw_admit_fn(struct sw_admit_wait *w);
struct sw_admit_wait {
    struct sw_admit_wait *hash_next; /* holder: chain of the shard */
    struct sw_link link;             /* waiter: in the holder's queue */
    struct sw_link queue;            /* holder: its waiters */
    uint32_t queue_length;
    struct sw_store_key key;
    struct sw_loop *loop;
    struct sw_post post;
    sw_admit_fn *granted; /* on the waiter's loop */
    uint64_t trace; /* says who holds the key to whoever comes back through the app; 0: none */
    enum { ADMIT_NONE, ADMIT_WAITING, ADMIT_GRANTING, ADMIT_HELD } state;
};
enum sw_admitted { SW_ADMIT_HELD, SW_ADMIT_WAIT, SW_ADMIT_FULL, SW_ADMIT_REENTRY };
struct sw_admit_ask {
    struct sw_store_key key;
    uint32_t queue_max;
    struct sw_loop *loop;
    sw_admit_fn *granted;
    uint64_t trace;         /* of the asker */
    const uint64_t *traces; /* of those on whose behalf it asks: waiting for one of them would be
                               for ever (SW_ADMIT_REENTRY) */
    size_t trace_count;
};
enum sw_admitted sw_admit__enter(struct sw_admit *a, struct sw_admit_wait *w,
                                 const struct sw_admit_ask *ask);
/* Gives the key to the next in line. */
void sw_admit__leave(struct sw_admit *a, struct sw_admit_wait *w);
/* Out of the line. False: it was granted in this moment; `granted` will still be called and must
 * leave. */
SW_MUST bool sw_admit__cancel(struct sw_admit *a, struct sw_admit_wait *w);

/* ---- how much a client may make anew (fresh.c) ----------------------------------------------- */

struct sw_fresh;
struct sw_fresh *sw_fresh__new(void); /* NULL: no memory */
void sw_fresh__free(struct sw_fresh *f);
/* Takes `count` of what the client at that address may make in an hour (limit; 0: as much as it
 * likes). 0: taken, or it is not counted; else nothing was, and so long it must wait. owed: it was
 * made already, so this is not refused, but what follows. Any thread. */
uint64_t sw_fresh__take(struct sw_fresh *f, struct sw_slice address, uint32_t limit, uint64_t count,
                        bool owed, uint64_t now_ns);
/* That of a process: it lies beside the lines of its keys. */
struct sw_fresh *sw_admit__fresh(struct sw_admit *a);
bool sw_ex__fresh(struct sw_ask *ask); /* ask.fresh; false: extra_lines say when again */
void sw_ex__fresh_owe(struct sw_exchange *x, size_t bytes); /* so much of an answer is kept */

/* ---- bodies that must be here as a whole (whole.c) --------------------------------------------
 */

struct sw_whole; /* memory of the large budget that can be sent like a buffer; counted references */
struct sw_gather {
    struct sw_whole *whole;
    size_t len, max;
    bool full; /* there was more than max: what is here is the beginning */
};
/* Room for `expect` bytes at least; it grows up to max. SW_E_LARGE_FULL. */
SW_MUST enum sw_err sw_gather__begin(struct sw_gather *g, struct sw_worker *w, size_t expect,
                                     size_t max);
/* Makes sure that a piece of at most SW_BUF_BYTES fits. SW_E_LARGE_FULL: what is here stays. */
SW_MUST enum sw_err sw_gather__reserve(struct sw_gather *g, struct sw_worker *w, size_t bytes);
/* Adds such a piece as a whole; `full` is set when that makes it more than max: add no more then.
 * SW_E_LARGE_FULL. */
SW_MUST enum sw_err sw_gather__add(struct sw_gather *g, struct sw_worker *w, struct sw_slice data);
void sw_gather__drop(struct sw_gather *g);
struct sw_slice sw_gather__bytes(const struct sw_gather *g);
/* The same as a buffer, borrowed. */
struct sw_buf *sw_gather__buf(const struct sw_gather *g);

/* ---- the exchange ---------------------------------------------------------------------------- */

enum sw_ex_state {
    EX_ROUTE,   /* head -> route, placement, key */
    EX_SIDE,    /* the side API: an app asks for the state of another exchange */
    EX_TOKEN,   /* who comes: on routes with a `token` section */
    EX_CLAIM,   /* the idempotency key: new, running, done */
    EX_ADMIT,   /* in the queue of the key */
    EX_LOAD,    /* the state */
    EX_PICK,    /* an instance */
    EX_CONNECT, /* a connection to it */
    EX_AWAIT,   /* the request is on its way; the head of the answer is awaited */
    EX_GATHER,  /* the answer's body, where the commit needs it */
    EX_COMMIT,  /* the output gate: the update becomes durable */
    EX_SEND,    /* the answer goes to the client */
    EX_DONE,    /* over for the client; waits for what others still hold */
    EX_STATE_COUNT,
};

enum sw_ex_next { EX_GO, EX_WAIT };

#define SW_SIDE_CAP_CHARS 22 /* of base64url, each 6 random bits: 132 */

#define SW_TRACES_MAX 16 /* apps that call each other through the gateway, one in the other */

/* The idempotency key of an exchange (claim.c). */
struct sw_ex_claim {
    uint8_t phase; /* claim.c's */
    bool live;     /* the record says RUNNING, and it is this exchange that runs */
    bool pending;  /* the store works for it */
    bool waiting;  /* in the line of the claim's key */
    bool refused;  /* another one runs: only its fingerprint is of interest */
    bool ending;   /* its last write was submitted alone */
    struct sw_admit_wait wait;
    struct sw_store_key key;
    uint8_t fingerprint[32];
    uint32_t attempt;
    struct sw_version version; /* of the record */
    struct sw_store_load load;
    struct sw_store_commit *commit;
    struct sw_write write; /* how it ends: goes along with the state's commit, or alone */
    void *memory;          /* of the large budget: a stored answer, or one to be stored */
    struct sw_claim found;
};

struct sw_exchange {
    uint32_t magic;
    uint8_t state; /* enum sw_ex_state */
    bool running;  /* ex_run is on the stack: callbacks only record */
    struct sw_worker *worker;
    struct sw_conn *conn; /* NULL: the client is gone, the work goes on to its end */
    struct sw_link link;
    struct sw_arena arena;
    struct sw_ask ask;
    struct sw_routed routed;
    struct sw_head request, response;
    struct sw_buf *request_buf;  /* holds the request's head */
    struct sw_buf *response_buf; /* holds the answer's */
    char peer_text[64];
    struct sw_slice peer;

    /* request body: client -> instance */
    struct sw_body request_body;
    bool body_in_done;  /* all of it arrived */
    bool body_out_done; /* all of it was handed to the instance's connection */
    bool body_held;     /* `held` still has all of what arrived: the request can be repeated */
    struct sw_buf *held;
    size_t held_bytes;
    size_t held_sent;     /* of it, on the current attempt */
    struct sw_buf *small; /* chunk heads and other small texts are written here */
    size_t small_used;
    char *trailer_text;
    struct sw_out trailers;         /* the answer's */
    struct sw_out request_trailers; /* in the arena, below arena_mark: they outlive a rerun */
    size_t arena_mark;

    /* the attempt */
    struct sw_upstream_wait wait;
    struct sw_stream *upstream;
    struct sw_inq up_in;
    struct sw_gather gather; /* the answer's body, or of the side API the request's */
    bool gathering;          /* the commit needs the answer's body */
    bool enveloped;          /* that body is a commit envelope */
    bool gather_sent;
    struct sw_envelope *envelope; /* in the arena */
    void *envelope_memory;        /* of the large budget */
    struct sw_head unwrapped;     /* the envelope's response */
    struct sw_head *answer;       /* what goes to the client: the response, or unwrapped */
    size_t up_scanned;
    bool up_reused; /* an idle connection: it may have died unseen */
    bool up_eof, up_broken;
    enum sw_err up_err;
    bool head_sent;        /* the request's head was queued on this attempt */
    bool got_bytes;        /* the instance answered something on this attempt */
    bool answer_head_got;  /* a whole head of it */
    bool fresh_next;       /* the next try takes no idle connection */
    enum sw_err tried_err; /* why the last instance did not do */
    uint32_t attempts;
    uint64_t failed_ns; /* when the last attempt did */
    uint32_t interim;
    uint64_t sent_ns; /* when the request left: the app's time counts from here */
    uint64_t app_ns;  /* the app's share */

    /* the answer: instance -> client */
    struct sw_body response_body;
    bool answer_head_sent, answer_done;
    enum sw_framing answer_framing;
    bool own_answer;
    bool keep_alive;
    bool lone; /* GET or HEAD with a body: some readers take the body for the next
                  request, so neither connection is used again (RFC 9110, 9.3.1) */
    bool upgraded;
    enum sw_err err;         /* why it ended otherwise than in order */
    unsigned status;         /* what the client was told */
    unsigned status_instead; /* of an error, where the side API tells it otherwise; 0: its own */
    uint64_t bytes_in, bytes_out;

    /* waits of others: the slot is free when none is left */
    struct sw_admit_wait admit;
    struct sw_admit_wait line; /* of a commit that waits its turn (ask.line) */
    bool exclusive;            /* asked for the key */
    bool admit_pending, ask_pending, wait_pending;
    uint32_t reruns; /* a safe request that wrote met a conflict: once more, exclusively */
    bool logged;
    bool ever_sent; /* some instance may have begun with the request */
    bool ref_tried; /* an instance refused the state in a header: it got it by reference */

    /* Nobody to answer: an alarm is delivered (alarms.c). */
    struct sw_alarms *alarms;
    struct sw_alarm alarm;
    struct sw_store_key alarm_key;
    bool alarm_failing; /* the failure is being written */
    bool alarm_stuck;   /* it could not be */

    struct sw_ex_claim claim;

    /* Who waits for whom: on whose behalf this request comes, and its own token. */
    uint64_t traces[SW_TRACES_MAX];
    size_t trace_count;
    uint64_t trace;

    /* The side API: what the app may ask for while this runs; and is this such a call itself? */
    struct sw_link side_link; /* in the worker's table, by the capability */
    char side_cap[SW_SIDE_CAP_CHARS];
    bool side;
    struct sw_exchange *side_caller;     /* the call whose write commits at once for this one */
    struct sw_stage_answer *side_answer; /* of such a call: in the arena; NULL: not begun */

    struct sw_timer timer;
    uint64_t begin_ns, deadline_ns, wait_until_ns;
    struct sw_slice extra_lines; /* of our own answer: Allow, Retry-After */
    struct sw_field *fields;     /* two arrays behind this struct: request, response */
};

/* Begins: the head was parsed into x->request from buf. */
struct sw_exchange *sw_exchange__new(struct sw_conn *c); /* a slot to parse into; NULL: none */
void sw_exchange__put(struct sw_exchange *x);            /* back, unused */
void sw_exchange__start(struct sw_exchange *x, struct sw_buf *buf);
/* One without a client, for an alarm: the caller filled in what ROUTE finds. NULL: no slot. */
struct sw_exchange *sw_exchange__new_alarm(struct sw_worker *w, struct sw_alarms *alarms);
void sw_exchange__start_alarm(struct sw_exchange *x);
/* More body bytes are in conn->in, or the client ended. */
void sw_exchange__client(struct sw_exchange *x);
/* What was queued for the client is out. */
void sw_exchange__client_sent(struct sw_exchange *x);
/* The head could not be understood: an answer of ours on a connection that ends. */
void sw_exchange__refuse(struct sw_exchange *x, struct sw_buf *buf, enum sw_err err);
/* As at a crash: everything is let go, nobody is called. */
void sw_exchange__drop(struct sw_exchange *x);

/* ---- between the files of the exchange --------------------------------------------------------
 */

/* exchange.c: the machine */
enum sw_ex_next sw_ex__to(struct sw_exchange *x, enum sw_ex_state next);
void sw_ex__timer(struct sw_exchange *x, uint64_t deadline_ns);
/* Over. keep_alive: the connection takes the next request; polite: it ends, but the answer is
 * delivered first. */
enum sw_ex_next sw_ex__finish(struct sw_exchange *x, bool keep_alive, bool polite);
/* An answer of ours, or the end of the connection when the head is out already. */
enum sw_ex_next sw_ex__fail(struct sw_exchange *x, enum sw_err err);
/* The one loop that calls the steps. */
void sw_ex__run(struct sw_exchange *x);
void sw_ex__log(struct sw_exchange *x);
void sw_ex__leave_queue(struct sw_exchange *x);
/* Is there neither a client nor anybody else who waits for the outcome? */
static inline bool sw_ex__nobody(const struct sw_exchange *x)
{
    return x->conn == NULL && x->alarms == NULL;
}
/* What an attempt says about its instance. */
enum sw_ex_said { SAID_NOTHING, SAID_WELL, SAID_ILL };
/* Ends the attempt: the connection goes back or away, the instance is told how it went. */
void sw_ex__release_instance(struct sw_exchange *x, bool reusable, enum sw_ex_said said);

/* ex_before.c: ROUTE, TOKEN, ADMIT, LOAD, PICK */
enum sw_ex_next sw_ex__route(struct sw_exchange *x);
enum sw_ex_next sw_ex__token(struct sw_exchange *x);
enum sw_ex_next sw_ex__admit(struct sw_exchange *x);
enum sw_ex_next sw_ex__load(struct sw_exchange *x);
enum sw_ex_next sw_ex__pick(struct sw_exchange *x);
void sw_ex__ask_init(struct sw_exchange *x);
/* ex_app.c: CONNECT, AWAIT, GATHER */
enum sw_ex_next sw_ex__connect(struct sw_exchange *x);
enum sw_ex_next sw_ex__await(struct sw_exchange *x);
enum sw_ex_next sw_ex__gather(struct sw_exchange *x);
enum sw_ex_next sw_ex__attempt_failed(struct sw_exchange *x, enum sw_err err);
void sw_ex__await_timer(struct sw_exchange *x);
/* ex_after.c: COMMIT, SEND */
enum sw_ex_next sw_ex__commit(struct sw_exchange *x);
enum sw_step sw_ex__line(struct sw_ask *ask);     /* ask.line */
void sw_ex__line_abandon(struct sw_exchange *x); /* as at a crash: no callback comes any more */
enum sw_ex_next sw_ex__send(struct sw_exchange *x);
/* claim.c: CLAIM, and how a claim ends */
enum sw_ex_next sw_ex__claim(struct sw_exchange *x);
/* What the client is told of it, beside the app's answer: lines with their ends, or none. */
struct sw_slice sw_claim__lines(const struct sw_exchange *x);
/* Before the commit of an answer: how the claim ends, as a write in ask.join. */
SW_MUST enum sw_err sw_claim__answered(struct sw_exchange *x);
/* That answer is not wanted: the request runs again. */
void sw_claim__forget(struct sw_exchange *x);
/* The placement did not take the write along: alone. WAIT; then claim.ending, and __ended tells. */
enum sw_ex_next sw_claim__commit(struct sw_exchange *x);
SW_MUST enum sw_err sw_claim__ended(struct sw_exchange *x);
/* It is durable by the state's commit. */
void sw_claim__joined(struct sw_exchange *x);
/* The exchange ends otherwise: the claim is released or doubted. True: not yet, claim.pending. */
bool sw_claim__settle(struct sw_exchange *x);
void sw_claim__leave(struct sw_exchange *x);   /* the key goes to who waits for it */
void sw_claim__drop(struct sw_exchange *x);    /* its memory */
void sw_claim__abandon(struct sw_exchange *x); /* as at a crash: no callback comes any more */
/* side.c */
enum sw_ex_next sw_ex__side(struct sw_exchange *x);
void sw_side__open(struct sw_exchange *x);  /* fills ask.ref_url */
void sw_side__close(struct sw_exchange *x); /* the capability is dead */
/* For another attempt: what the one before staged, and may still send, is not of it. */
void sw_side__again(struct sw_exchange *x);

/* alarms.c: looks for what is due, and has it delivered. NULL: no memory. */
struct sw_alarms *sw_alarms__new(struct sw_worker *w);
void sw_alarms__free(struct sw_alarms *a);
void sw_alarms__stop(struct sw_alarms *a); /* begins nothing more */
/* Its exchange is over. */
void sw_alarms__done(struct sw_alarms *a, struct sw_exchange *x, bool delivered);

/* relay.c: bodies */
enum sw_err sw_relay__request(struct sw_exchange *x);  /* conn->in -> held -> upstream */
enum sw_err sw_relay__response(struct sw_exchange *x); /* up_in -> client */
SW_MUST enum sw_err sw_relay__small(struct sw_exchange *x, struct sw_stream *to,
                                    struct sw_slice text);

/* respond.c: our own answers, composed heads */
SW_MUST enum sw_err sw_respond__own(struct sw_exchange *x, enum sw_err err);
/* A complete answer of ours: lines with their ends, and a body in buf (NULL: none). reason: empty:
 * the usual one. */
SW_MUST enum sw_err sw_respond__whole(struct sw_exchange *x, unsigned status,
                                      struct sw_slice reason, struct sw_slice lines,
                                      struct sw_buf *buf, struct sw_slice body);
/* "HTTP/1.1 100 Continue": the gateway itself wants the body. */
SW_MUST enum sw_err sw_respond__continue(struct sw_exchange *x);
SW_MUST enum sw_err sw_respond__head(struct sw_exchange *x);
SW_MUST enum sw_err sw_respond__interim(struct sw_exchange *x);
SW_MUST enum sw_err sw_request__head(struct sw_exchange *x);
/* SW_JWKS_PATH, from the gateway itself. */
enum sw_ex_next sw_respond__jwks(struct sw_exchange *x);

/* ---- tunnels --------------------------------------------------------------------------------- */

struct sw_tunnel {
    uint32_t magic;
    struct sw_worker *worker;
    struct sw_link link;
    struct sw_instance *instance;
    struct sw_stream *side[2]; /* 0 the client's, 1 the instance's */
    bool ended[2];
    struct sw_buf *small[2]; /* small messages that wait for that side, end to end */
    size_t small_used[2];
    struct sw_timer timer;
    uint64_t last_ns;
};
/* Takes both streams and what already arrived on them; *_eof: that side already ended. False: no
 * room; nothing was taken. */
struct sw_tunnel_side {
    struct sw_stream *stream;
    struct sw_inq *rest;
    bool eof;
};
SW_MUST bool sw_tunnel__start(struct sw_worker *w, struct sw_tunnel_side client,
                              struct sw_tunnel_side upstream, struct sw_instance *i);
void sw_tunnel__close(struct sw_tunnel *t);

/* ---- the worker ------------------------------------------------------------------------------ */

#define SW_SIDE_BUCKETS 1024
#define SW_SIDE_CAPS    256 /* made at once: one call of the kernel's generator */
struct sw_worker {
    uint32_t magic;
    struct sw_loop *loop;
    const struct sw_config *config;
    const struct sw_routes *routes;
    struct sw_apps *apps;
    struct sw_admit *admit;
    struct sw_access *access;
    size_t index;
    struct sw_upstream *upstream;
    struct sw_place_env env;
    struct sw_keyring keys; /* env.keys */
    struct sw_mint mint;    /* env.mint, with references of its own */
    struct sw_key_uses key_uses;
    struct sw_rng rng;
    struct sw_pool conns, exchanges, pieces, tunnels;
    struct sw_link conn_list, exchange_list, tunnel_list;
    struct sw_listener *listeners[SW_LISTEN_MAX];
    size_t listener_count;
    size_t arena_bytes, slot_bytes;
    char date[29];
    int64_t date_unix_s;
    struct sw_listener *side_listener;
    struct sw_slice side_url;
    struct sw_link *side_table; /* SW_SIDE_BUCKETS lists of exchanges */
    char side_caps[SW_SIDE_CAPS][SW_SIDE_CAP_CHARS]; /* the first side_caps_left are not used yet */
    size_t side_caps_left;
    struct sw_alarms *alarms;   /* NULL: another worker's */
    bool stopping;
    struct sw_timer stop_timer;
    uint64_t stop_deadline_ns;
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct sw_stats *stats;
};
static inline uint64_t sw_ex__now_ns(const struct sw_exchange *x)
{
    return sw_loop_now_ns(x->worker->loop);
}
struct sw_slice sw_worker__date(struct sw_worker *w);
/* While stopping: is that the last one? */
void sw_worker__check_stopped(struct sw_worker *w);

/* ---- trust.c: keys of issuers -----------------------------------------------------------------
 */

struct sw_trust {
    struct sw_keysets *keysets; /* NULL: the configuration names none */
    struct sw_keyset *list[SW_KEYSETS_MAX]; /* by config->keysets */
};
/* Opens those of the configuration, and waits a little for them. SW_E_*, with *ret_why: a file that
 * cannot be read, or no memory; close it then too. Main thread. */
SW_MUST enum sw_err sw_trust__open(struct sw_trust *t, const struct sw_config *c,
                                   const char **ret_why);
/* Before the workers' memory goes: exchanges may wait for keys. */
void sw_trust__close(struct sw_trust *t);
/* A worker's own views, and its cache of verified tokens where a route takes any. t may be NULL.
 * False: no memory; end it then too. */
SW_MUST bool sw_trust__env_init(const struct sw_trust *t, struct sw_place_env *env);
void sw_trust__env_fini(struct sw_place_env *env);

/* ---- keys.c: the key ring, as it is and as it changes; main thread ----------------------------
 */

#define SW_WORKERS_MAX  256 /* as the configuration's `workers` */
#define SW_KEYS_LOOK_NS SW_NS_PER_S /* the file is looked at this often */

struct sw_keys;
/* Reads the ring: from the environment, else from the configuration's file, which it makes when it
 * is missing. *ret_why: for people. */
SW_MUST enum sw_err sw_keys__new(const struct sw_config *config, struct sw_loop *loop,
                                 struct sw_keys **ret_keys, const char **ret_why);
/* No loop of a member runs any more. NULL is allowed. */
void sw_keys__free(struct sw_keys *k);
/* In use now; valid until the loop's next turn. */
const struct sw_keyring *sw_keys__ring(const struct sw_keys *k);
const struct sw_mint *sw_keys__mint(const struct sw_keys *k);
const struct sw_keys_rules *sw_keys__rules(const struct sw_keys *k);
bool sw_keys__stale(const struct sw_keys *k);
/* This worker began with these keys and follows; before sw_keys__watch. */
void sw_keys__join(struct sw_keys *k, struct sw_loop *loop, struct sw_worker *worker);
/* Begins to follow the file, and to rotate by age where the configuration says so. */
void sw_keys__watch(struct sw_keys *k);
void sw_keys__stop(struct sw_keys *k);

/* ---- stats.c, access.c ----------------------------------------------------------------------- */

static inline void sw_count(_Atomic uint64_t *counter, uint64_t by)
{
    /* one writer a counter: no locked instruction needed */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
                          memory_order_relaxed);
}
void sw_stats__exchange(struct sw_stats *s, const struct sw_exchange *x, uint64_t now_ns);

/* One access record into the worker's ring; a full ring drops it and counts. */
void sw_access__exchange(struct sw_access *a, const struct sw_exchange *x, uint64_t now_ns);
/* NULL and SW_OK when the log is off. */
SW_MUST enum sw_err sw_access_open(const struct sw_config *config, size_t workers,
                                   struct sw_access **ret_access);
void sw_access_close(struct sw_access *a);
uint64_t sw_access_dropped(const struct sw_access *a);

#endif
