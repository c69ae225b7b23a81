/* admin/admin_priv.h - what the files of this room share: ask, snapshot, pages, connections. */
#ifndef SW_ADMIN_PRIV_H
#define SW_ADMIN_PRIV_H

#include "admin/admin.h"
#include "base/pool.h"
#include "keysets/keysets.h"

#define ADMIN_MAGIC      0x61646d6eu
#define ADMIN_CONN_MAGIC 0x61636f6eu

/* ---- ask.c: may this request be answered? Pure. ---------------------------------------------- */

enum sw_admin_endpoint {
    ADMIN_NOWHERE,
    ADMIN_HEALTHZ,
    ADMIN_READYZ,
    ADMIN_METRICS,
    ADMIN_APPS,
    ADMIN_STATUS,
    ADMIN_KEYS,
    ADMIN_SESSIONS, /* these five: what visitors left */
    ADMIN_SESSION,
    ADMIN_EXPORT,
    ADMIN_IMPORT,
    ADMIN_SUBJECT,
    ADMIN_TOKEN, /* these three: what clients carry */
    ADMIN_SEALED,
    ADMIN_PIN,
    ADMIN_ROLL,
    ADMIN_DRAIN,
    ADMIN_UNDRAIN,
    ADMIN_KILL,
    ADMIN_ENDPOINT_COUNT,
};
struct sw_admin_routed {
    enum sw_admin_endpoint endpoint;
    struct sw_slice name; /* "shop" of a roll, "shop/2" of the others; a handle, an id; a subject as
                             it is spelled, or empty: the query has it. Borrowed from the path */
};
#define SW_ADMIN_NAME_MAX 80
_Static_assert(SW_ADMIN_NAME_MAX > 63 + 1 + 10, "an app's name, a slash, a slot");

/* Only paths in their one spelling: no escapes (but in a subject), no empty segments, names as the
 * configuration allows them. Anything else is ADMIN_NOWHERE. */
struct sw_admin_routed sw_admin__route(struct sw_slice path);
/* The whole line: "Allow: GET, HEAD\r\n". */
const char *sw_admin__allow_line(enum sw_admin_endpoint endpoint);
/* Is it about sessions: answered by sessions.c, by sw_admin_wish? */
bool sw_admin__personal(enum sw_admin_endpoint endpoint);

/* What is looked at of a request. */
struct sw_admin_ask {
    enum sw_method method;
    struct sw_slice path;
    struct sw_slice authorization; /* empty: none */
    bool has_guard;                /* Stateway-Admin or X-Stateway-Admin is there */
    struct sw_slice fetch_site;    /* Sec-Fetch-Site; empty: none */
    bool has_origin, has_via;
    struct sw_slice host;
};
enum sw_admin_verdict {
    ADMIN_ALLOWED,
    ADMIN_NO_TOKEN,  /* 401 */
    ADMIN_NO_PLACE,  /* 404 */
    ADMIN_NO_METHOD, /* 405 */
    ADMIN_NO_GUARD,  /* 403 */
    ADMIN_CROSS,     /* 403 */
    ADMIN_REBOUND,   /* 403 */
    ADMIN_PROXIED,   /* 403 */
    ADMIN_VERDICT_COUNT,
};
/* token: empty: none is asked for. The token is asked before anything else is told. */
enum sw_admin_verdict sw_admin__judge(const struct sw_admin_ask *ask, struct sw_slice token,
                                      struct sw_admin_routed *ret_routed);

/* ---- wish.c: what a request about sessions wants, copied out of its head. Pure. -------------- */

#define ADMIN_LIST_MAX  1000 /* entries of one page */
#define ADMIN_LIST      100  /* when the request does not say */
#define ADMIN_MATCH_MAX 256  /* of If-Match */
#define ADMIN_NAME_MAX  1024 /* of an issuer, of a token's jti; longer: 400 */

enum sw_admin_media { MEDIA_NONE, MEDIA_JSON, MEDIA_LINES, MEDIA_OTHER };

struct sw_admin_wish {
    enum sw_method method;
    bool has_key, has_after, has_subject;
    struct sw_store_key key, after;
    size_t after_name; /* of a subject's names: `after` is "2.HANDLE", "2." or a handle alone */
    size_t limit;
    bool replace; /* import over what is there */
    bool entity;  /* end: the key may be used again at once */
    enum sw_admin_media media;
    bool has_match, has_none_match;
    size_t match_len; /* If-Match; If-None-Match is taken as * only */
    char match[ADMIN_MATCH_MAX];
    size_t subject_len;
    char subject[SW_SUBJECT_BYTES_MAX];
    size_t issuer_len, jti_len; /* of a token; 0: not said */
    char issuer[ADMIN_NAME_MAX], jti[ADMIN_NAME_MAX];
    uint8_t sealed_id[SW_SEALED_ID_BYTES];
    uint64_t pin_id;
};
/* NULL, or why not: for the 400 (static). */
SW_MUST const char *sw_admin__wish_read(const struct sw_head *h, struct sw_admin_routed routed,
                                        struct sw_admin_wish *ret_wish);
/* Does If-Match name this version? RFC 9110, 13.1.1: a list of strong tags, or *. */
bool sw_admin__wish_matches(const struct sw_admin_wish *w, struct sw_version version);

/* ---- records.c: a record as JSON, and back. Pure. -------------------------------------------- */

/* The longest parts of a line beside value and extra: names, handle, version, numbers, a subject of
 * escapes. */
#define ADMIN_ENTRY_BYTES 3072u
_Static_assert(ADMIN_ENTRY_BYTES > 6 * SW_SUBJECT_BYTES_MAX + 600, "a subject may be all escapes");
#define ADMIN_HANDLE_BYTES SW_B64_LEN(sizeof(struct sw_store_key))

void sw_admin__handle_put(struct sw_out *out, const struct sw_store_key *key);
SW_MUST bool sw_admin__handle_read(struct sw_slice text, struct sw_store_key *ret_key);
/* 16 digits of lower-case hexadecimal. */
#define ADMIN_PIN_CHARS 16
SW_MUST bool sw_admin__pin_read(struct sw_slice text, uint64_t *ret_pin_id);
/* "subject":TEXT; with "subject_b64" behind it when the text cannot say all of it. */
void sw_admin__subject_put(struct sw_out *out, struct sw_slice subject);
/* {...} of a list: all but the value; at most ADMIN_ENTRY_BYTES. */
void sw_admin__entry_put(struct sw_out *out, const struct sw_store_key *key,
                         const struct sw_record *r);
/* The same with the value, and a line end. sw_admin__line_bytes are enough. */
void sw_admin__one_put(struct sw_out *out, const struct sw_store_key *key,
                       const struct sw_record *r);
/* A line of an export, with its end; sw_admin__line_bytes are enough. */
void sw_admin__line_put(struct sw_out *out, const struct sw_store_key *key,
                        const struct sw_record *r);
/* For a value of so many bytes, in whatever shape. */
size_t sw_admin__line_bytes(size_t value_bytes);
/* A line of an import, without its end and without blanks around it. Slices lie in scratch. */
struct sw_admin_line {
    struct sw_store_key key;
    struct sw_record record; /* version, touched: as the line says, for nobody */
};
/* NULL, or why not (static). scratch->overflowed: it had no room, and the answer is not NULL. */
SW_MUST const char *sw_admin__line_read(struct sw_slice line, struct sw_out *scratch,
                                        struct sw_admin_line *ret_line);

/* What operators ended, as metrics count it. */
enum sw_admin_ended {
    ENDED_SUBJECT,
    ENDED_SESSION,
    ENDED_TOKEN,
    ENDED_SEALED,
    ENDED_PIN,
    ADMIN_ENDED_COUNT,
};

/* ---- the snapshot: what pages are made of ---------------------------------------------------- */

#define ADMIN_ROWS_MAX   2048 /* combinations of exchanges_total, over all workers */
#define ADMIN_ROWS_INDEX 4096 /* twice that: the hash index is never more than half full */
_Static_assert((ADMIN_ROWS_INDEX & (ADMIN_ROWS_INDEX - 1)) == 0, "masked");

struct sw_admin_row {
    uint64_t key, count;
    struct sw_slice app; /* empty: no route */
    const char *placement, *verdict;
    unsigned status;
};
struct sw_admin_latency {
    bool shown; /* configured, or not empty */
    uint64_t bucket[SW_LATENCY_BUCKETS + 1], sum_ns;
};
struct sw_admin_app {
    struct sw_slice name;
    struct sw_admin_latency latency[SW_PLACE_COUNT];
};
struct sw_admin_instance {
    uint32_t app, slot;
    enum sw_instance_state state;
    uint64_t incarnation;
    uint64_t age_ns; /* for the order only: since it was first healthy, or 0 */
    int32_t pid;
    uint32_t in_flight, sessions, connections, waiting;
    uint64_t answered, failed;
    char name[72];
    char address[SW_ADDR_TEXT_MAX];
};
struct sw_admin_loop {
    char worker[8]; /* "0", "1", ... or "main" */
    struct sw_loop_stats stats;
};
struct sw_admin_key { /* nothing of its secret */
    uint32_t id;
    enum sw_key_state state;
    int64_t created_unix_s, retired_unix_s; /* retired 0: not, or not known */
    int64_t dead_unix_s;                    /* as sw_keyring_dead_unix_s */
    struct sw_key_used used;
};
struct sw_admin_process {
    uint64_t resident_bytes, virtual_bytes, cpu_us, fds_open, fds_max;
    double start_unix_s;
};

struct sw_admin_snapshot {
    const char *version, *engine;
    uint64_t uptime_ns;
    uint32_t workers;
    bool ready, stopping;

    const char *placements[SW_PLACE_COUNT];
    const char *states[SW_INSTANCE_STATE_COUNT]; /* of instances */
    const char *error_labels[SW_E_COUNT];
    const double *latency_bounds_s; /* SW_LATENCY_BUCKETS */

    struct sw_admin_app apps[SW_APPS_MAX];
    size_t app_count;
    struct sw_admin_latency gateway[SW_PLACE_COUNT];
    struct sw_admin_row rows[ADMIN_ROWS_MAX]; /* sorted by key */
    size_t row_count;
    uint16_t row_index[ADMIN_ROWS_INDEX]; /* gather.c's: row + 1; 0: free */
    uint64_t rows_lost;

    uint64_t connections_open, connections_total, exchanges_open, tunnels_open;
    uint64_t retries, retries_refused, reruns, queue_waits, bytes_in, bytes_out, pins_lost, commits;
    uint64_t errors[SW_E_COUNT];
    uint64_t claims_new, claims_replayed, claims_running, claims_reused, claims_unknown;
    uint64_t claims_unkept;
    uint64_t alarms_delivered, alarms_failed, alarms_dropped, reentries, by_ref, stages;
    uint64_t log_dropped;
    uint64_t ended[ADMIN_ENDED_COUNT]; /* by operators, since the process began */
    uint64_t large_used, large_max, large_refused;
    uint64_t admin_used, admin_max, admin_refused; /* this room's own */

    struct sw_admin_key keys[SW_KEYS_MAX];
    size_t key_count;
    bool keys_stale; /* the file cannot be read: these are from before */

    bool has_store;
    double alarm_next_unix_s; /* 0: none */
    const char *store_name;
    struct sw_store_stats store;

    struct sw_admin_loop *loops; /* workers and main */
    size_t loop_count, loop_max;
    struct sw_admin_instance *instances; /* sorted by app, slot, age: the oldest first */
    size_t instance_count, instance_max;
    struct sw_admin_process process;
    struct sw_keyset_stats keysets[SW_KEYSETS_MAX]; /* keys of issuers */
    size_t keyset_count;
    struct sw_token_cache_stats tokens; /* of all workers */
};

/* Any order -> the order of less; in place, no memory (qsort allocates). */
void sw_admin__sort_instances(struct sw_admin_instance *list, size_t count);
void sw_admin__sort_rows(struct sw_admin_row *list, size_t count);
/* Adds to the row with that key, or makes it; the caller fills in a new one (count was 0). NULL:
 * the table is full. Before sorting only. */
struct sw_admin_row *sw_admin__row(struct sw_admin_snapshot *s, uint64_t key);

/* ---- metrics.c, answers.c: snapshot -> text. Pure. ------------------------------------------- */

/* Prometheus text format 0.0.4. */
void sw_admin__metrics_put(struct sw_out *out, const struct sw_admin_snapshot *s);
void sw_admin__apps_put(struct sw_out *out, const struct sw_admin_snapshot *s);
void sw_admin__status_put(struct sw_out *out, const struct sw_admin_snapshot *s);
void sw_admin__keys_put(struct sw_out *out, const struct sw_admin_snapshot *s);
/* {"error": text, "reason": label} and a line end. */
void sw_admin__error_put(struct sw_out *out, const char *text, const char *label);
/* What the largest of these texts can be: the sum of what is in it. */
size_t sw_admin__page_bytes(size_t apps, size_t loops, size_t instances);

/* ---- gather.c: the gateway's counters -> snapshot. Main thread. ------------------------------ */

struct sw_admin;
/* Memory for the lists and what never changes. False: no memory. */
SW_MUST bool sw_admin__snapshot_init(struct sw_admin *a);
void sw_admin__snapshot_fini(struct sw_admin *a);
void sw_admin__gather_apps(struct sw_admin *a);   /* apps and instances */
void sw_admin__gather_status(struct sw_admin *a); /* totals and store */
void sw_admin__gather_keys(struct sw_admin *a);
void sw_admin__gather_all(struct sw_admin *a);

/* ---- admin.c: endpoints ---------------------------------------------------------------------- */

enum sw_admin_kind { PAGE_METRICS, PAGE_APPS, PAGE_STATUS, PAGE_KEYS, PAGE_KIND_COUNT };
/* A large answer's text. Several connections may read one. */
struct sw_admin_page {
    char *text; /* page_bytes; pages behind what is in use are given back to the system */
    size_t len;
    uint32_t refs; /* 0: free */
    enum sw_admin_kind kind;
    uint64_t made_ns;
};
/* When all are being read by slow clients, a new reader gets one that is not older than
 * PAGE_SHARE_NS, or 503. */
#define ADMIN_PAGES_MAX 8
#define PAGE_SHARE_NS   (5 * SW_NS_PER_S)

struct sw_admin {
    uint32_t magic;
    struct sw_gateway *gateway;
    struct sw_loop *loop;
    struct sw_listener *listener;
    struct sw_pool conns;
    struct sw_link list; /* of connections: who was active last is last */
    struct sw_link gone; /* connections that nobody reads any more, with commits under way */
    struct sw_budget large;
    unsigned transfers;     /* exports and imports that run */
    size_t value_bytes_max; /* of states and held answers: the largest route's */
    size_t state_bytes_max;
    int64_t idle_s, absolute_s; /* the longest of the routes with states in the store */
    int64_t token_s, sealed_s, pin_s; /* how long one may live at most; 0: no route has any */
    uint64_t ended[ADMIN_ENDED_COUNT];
    struct sw_admin_snapshot *snapshot;
    uint64_t opened_ns;
    struct sw_admin_page pages[ADMIN_PAGES_MAX];
    size_t page_bytes;
};

#define ADMIN_TEXT_MAX 768
struct sw_admin_answer {
    unsigned status;
    const char *type;           /* Content-Type; NULL: no body */
    const char *lines;          /* further lines with their ends; NULL: none */
    struct sw_admin_page *page; /* the body, with a reference; NULL: block or text */
    struct sw_slice large;      /* the body, in the connection's block; ptr NULL: text */
    bool stream;                /* the body comes from sw_admin__export_fill */
    char text[ADMIN_TEXT_MAX];
    size_t text_len;
    char more_lines[96]; /* for lines */
};
/* Answers what was allowed; name: of routed, still valid. */
void sw_admin__answer(struct sw_admin *a, enum sw_admin_endpoint endpoint, struct sw_slice name,
                      struct sw_admin_answer *ret_answer);
void sw_admin__refuse(enum sw_admin_verdict verdict, enum sw_admin_endpoint endpoint,
                      struct sw_admin_answer *ret_answer);
void sw_admin__fail(struct sw_admin_answer *ret_answer, unsigned status, const char *text,
                    const char *label);
void sw_admin__page_unref(struct sw_admin_page *page, size_t page_bytes);

/* Begins an answer: nothing of an earlier one is left. */
void sw_admin__answer_init(struct sw_admin_answer *answer, unsigned status, const char *type);

/* ---- sessions.c, transfer.c: what visitors left ---------------------------------------------- */

/* Bodies, pages of sessions, exports and imports take memory from sw_admin.large: one block a
 * request. */
#define ADMIN_LARGE_BYTES_MAX ((size_t)256 * 1024 * 1024)
#define ADMIN_TRANSFERS_MAX   4
/* A scan goes on for so long in one turn of the loop, by so many records at a time. */
#define ADMIN_SCAN_NS      (5 * SW_NS_PER_MS)
#define ADMIN_SCAN_RECORDS 128
/* A list, or a count, ends here even when it is not complete; it says so. */
#define ADMIN_LIST_NS   (20 * SW_NS_PER_MS)
#define ADMIN_COUNT_MAX 10000
/* Then the answer is that nobody knows. */
#define ADMIN_STORE_NS (30 * SW_NS_PER_S)

/* What comes next for the connection. */
enum sw_admin_next {
    ADMIN_NEXT_READ,   /* more of the body */
    ADMIN_NEXT_WAIT,   /* a commit is under way; sw_admin__resume follows */
    ADMIN_NEXT_ANSWER, /* c->answer is there */
};
struct sw_admin_conn;
/* The head is understood and allowed, c->wish is read. READ: sw_admin__body_room and
 * sw_admin__body_take get the body, sw_admin__act is called at its end. */
SW_MUST enum sw_admin_next sw_admin__begin(struct sw_admin_conn *c);
uint64_t sw_admin__body_max(const struct sw_admin_conn *c);
/* How many bytes take can have now; never 0. */
size_t sw_admin__body_room(const struct sw_admin_conn *c);
/* complete: that was all of it. drained: no more is at hand now. */
SW_MUST enum sw_admin_next sw_admin__body_take(struct sw_admin_conn *c, struct sw_slice bytes,
                                               bool complete, bool drained);
/* The request is complete. */
SW_MUST enum sw_admin_next sw_admin__act(struct sw_admin_conn *c);
/* All commits that were under way are done. READ: an import wants more. */
SW_MUST enum sw_admin_next sw_admin__resume(struct sw_admin_conn *c);
/* The connection ends, or its answer is out: gives the memory back. No commit is under way. */
void sw_admin__drop(struct sw_admin_conn *c);

/* Visits records from behind `at`, or a subject's, by many small scans: none is long, and the
 * store's readers are not held up. */
struct sw_admin_scan {
    struct sw_slice subject; /* empty: all records */
    bool has_at;
    struct sw_store_key at; /* the last one that was taken */
    bool end;               /* there was nothing behind it */
    bool full;              /* fn did not take one; cleared by the next run */
    /* False: it is not taken, and enough for this run. */
    bool (*fn)(void *arg, const struct sw_store_key *key, const struct sw_record *r);
    void *arg;
    size_t got;
};
/* Until the end, or fn has enough, or the time is up. */
SW_MUST enum sw_err sw_admin__scan(struct sw_admin *a, struct sw_admin_scan *s, uint64_t max_ns);
void sw_admin__store_failed(struct sw_admin_conn *c, enum sw_err err);

/* Hands a commit of c's to the store: c->flights counts it. Its done is sw_admin__committed, its
 * arg c. */
void sw_admin__submit(struct sw_admin_conn *c, struct sw_store_commit *op);
/* One block a request; false: c->answer says 503. */
SW_MUST bool sw_admin__block(struct sw_admin_conn *c, size_t bytes);

/* The live record of that key: fn gets it, or one behind it, or is not called. */
SW_MUST enum sw_err sw_admin__look(struct sw_admin *a, const struct sw_store_key *key,
                                   sw_store_scan_fn *fn, void *arg);

/* revoke.c: tokens, sealed states and pins */

/* A token of another issuer, when no route says `max-age`: nobody knows how long such live. */
#define ADMIN_TOKEN_S_UNKNOWN (400ll * 86400)
/* How long what clients carry may live, by the routes. */
void sw_admin__lives_of(struct sw_admin *a, const struct sw_config *config);
SW_MUST enum sw_admin_next sw_admin__note_act(struct sw_admin_conn *c);
SW_MUST enum sw_admin_next sw_admin__note_written(struct sw_admin_conn *c);

/* transfer.c */
SW_MUST enum sw_admin_next sw_admin__export_begin(struct sw_admin_conn *c);
SW_MUST enum sw_admin_next sw_admin__import_begin(struct sw_admin_conn *c);
SW_MUST enum sw_admin_next sw_admin__import_take(struct sw_admin_conn *c, struct sw_slice bytes,
                                                 bool complete, bool drained);
SW_MUST enum sw_admin_next sw_admin__import_end(struct sw_admin_conn *c);
SW_MUST enum sw_admin_next sw_admin__import_resume(struct sw_admin_conn *c);
size_t sw_admin__import_room(const struct sw_admin_conn *c);
enum sw_admin_fill {
    ADMIN_FILL_SOME,  /* *ret_bytes: to be sent; valid until the next call */
    ADMIN_FILL_LATER, /* nothing was found in this turn's time */
    ADMIN_FILL_END,
    ADMIN_FILL_FAIL, /* the store failed: cut the connection, so that nobody takes it for whole */
};
/* The next piece of an export, framed as a chunk. */
enum sw_admin_fill sw_admin__export_fill(struct sw_admin_conn *c, struct sw_slice *ret_bytes);

/* ---- conn.c ---------------------------------------------------------------------------------- */

#define ADMIN_HEAD_BYTES_MAX   (8u * 1024u)
#define ADMIN_TARGET_BYTES_MAX 4096u
#define ADMIN_FIELDS_MAX       64
#define ADMIN_BODY_BYTES_MAX   (16u * 1024u) /* where no endpoint wants one */
/* What came and was not yet understood. Reading stops while an answer is sent, but an engine may
 * still deliver a few buffers; a client that pipelines more than this is closed. */
#define ADMIN_INPUT_BYTES ((size_t)5 * SW_BUF_BYTES)
_Static_assert(ADMIN_INPUT_BYTES >= ADMIN_HEAD_BYTES_MAX + 2 * SW_BUF_BYTES,
               "a head, and what is behind it");

#define ADMIN_IDLE_NS    (75 * SW_NS_PER_S) /* above the usual scrape interval */
#define ADMIN_HEAD_NS    (10 * SW_NS_PER_S)
#define ADMIN_BODY_NS    (10 * SW_NS_PER_S) /* for each ADMIN_BODY_STEP bytes */
#define ADMIN_BODY_STEP  (16u * 1024u)
#define ADMIN_SEND_NS    (15 * SW_NS_PER_S) /* without progress */
#define ADMIN_ANSWER_NS  (60 * SW_NS_PER_S) /* for a whole answer; an export has no such end */
#define ADMIN_STARVED_NS (10 * SW_NS_PER_MS)
#define ADMIN_LINGER_NS  (2 * SW_NS_PER_S)
#define ADMIN_QUEUED_MAX ((size_t)2 * SW_BUF_BYTES)

enum sw_admin_conn_state {
    ACONN_HEAD, /* between requests, or a part of a head is here */
    ACONN_BODY, /* a body is read: for sessions.c, or dropped where no endpoint wants one */
    ACONN_WAIT, /* the store has commits of it */
    ACONN_SEND, /* an answer is on its way */
};
struct sw_admin_conn {
    uint32_t magic;
    uint8_t state; /* enum sw_admin_conn_state */
    bool keep_alive, eof, head_only, starved, served;
    bool gone; /* nobody is there: stays until flights is 0 */
    uint8_t minor;
    struct sw_admin *admin;
    struct sw_stream *stream;
    struct sw_link link;
    struct sw_timer timer; /* of the state */
    size_t in_len, scanned;
    struct sw_body body;
    uint64_t body_mark; /* of body.total, when the timer was started */
    enum sw_admin_endpoint endpoint;
    struct sw_admin_wish wish;
    void *block;                /* of this request: sw_admin__block */
    struct sw_store_commit op;  /* of one command */
    unsigned flights;           /* commits the store has */
    struct sw_slice chunk;      /* of an export: not yet sent */
    bool transfer, export_done; /* counted in sw_admin.transfers; all of it was filled in */
    size_t name_len;
    char name[SW_ADMIN_NAME_MAX];
    uint64_t answer_deadline_ns;
    size_t head_len, body_len, sent; /* sent: of both */
    char head[640];
    struct sw_admin_answer answer;
    char in[ADMIN_INPUT_BYTES]; /* last: mostly untouched pages */
};

void sw_admin__accept(struct sw_stream *s, void *admin);
sw_store_commit_fn sw_admin__committed;
/* At the end of the room: the store is closed, so nobody points into them any more. */
void sw_admin__gone_drop(struct sw_admin *a);
/* Ends at once. */
void sw_admin__conn_close(struct sw_admin_conn *c);

#endif
