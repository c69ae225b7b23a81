/* admin/admin_priv.h - what the files of this room share: ask, snapshot, pages, connections. */
#ifndef SW_ADMIN_PRIV_H
#define SW_ADMIN_PRIV_H

#include "admin/admin.h"
#include "base/pool.h"

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
    ADMIN_ROLL,
    ADMIN_DRAIN,
    ADMIN_UNDRAIN,
    ADMIN_KILL,
    ADMIN_ENDPOINT_COUNT,
};
struct sw_admin_routed {
    enum sw_admin_endpoint endpoint;
    struct sw_slice name; /* "shop" of a roll, "shop/2" of the others; borrowed from the path */
};
#define SW_ADMIN_NAME_MAX 80
_Static_assert(SW_ADMIN_NAME_MAX > 63 + 1 + 10, "an app's name, a slash, a slot");

/* Only paths in their one spelling: no escapes, no empty segments, names as the configuration
 * allows them. Anything else is ADMIN_NOWHERE. */
struct sw_admin_routed sw_admin__route(struct sw_slice path);
/* Of the Allow header: "GET, HEAD" or "POST". */
const char *sw_admin__allow(enum sw_admin_endpoint endpoint);

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
    ADMIN_VERDICT_COUNT,
};
/* token: empty: none is asked for. The token is asked before anything else is told. */
enum sw_admin_verdict sw_admin__judge(const struct sw_admin_ask *ask, struct sw_slice token,
                                      struct sw_admin_routed *ret_routed);

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
    uint64_t log_dropped;

    bool has_store;
    const char *store_name;
    struct sw_store_stats store;

    struct sw_admin_loop *loops; /* workers and main */
    size_t loop_count, loop_max;
    struct sw_admin_instance *instances; /* sorted by app, slot, age: the oldest first */
    size_t instance_count, instance_max;
    struct sw_admin_process process;
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
void sw_admin__gather_all(struct sw_admin *a);

/* ---- admin.c: endpoints ---------------------------------------------------------------------- */

enum sw_admin_kind { PAGE_METRICS, PAGE_APPS, PAGE_STATUS, PAGE_KIND_COUNT };
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
    struct sw_admin_snapshot *snapshot;
    uint64_t opened_ns;
    struct sw_admin_page pages[ADMIN_PAGES_MAX];
    size_t page_bytes;
};

#define ADMIN_TEXT_MAX 768
struct sw_admin_answer {
    unsigned status;
    const char *type;           /* Content-Type */
    const char *lines;          /* further lines with their ends; NULL: none */
    struct sw_admin_page *page; /* the body, with a reference; NULL: text */
    char text[ADMIN_TEXT_MAX];
    size_t text_len;
};
/* Answers what was allowed; name: of routed, still valid. */
void sw_admin__answer(struct sw_admin *a, enum sw_admin_endpoint endpoint, struct sw_slice name,
                      struct sw_admin_answer *ret_answer);
void sw_admin__refuse(enum sw_admin_verdict verdict, enum sw_admin_endpoint endpoint,
                      struct sw_admin_answer *ret_answer);
void sw_admin__fail(struct sw_admin_answer *ret_answer, unsigned status, const char *text,
                    const char *label);
void sw_admin__page_unref(struct sw_admin_page *page, size_t page_bytes);

/* ---- conn.c ---------------------------------------------------------------------------------- */

#define ADMIN_HEAD_BYTES_MAX   (8u * 1024u)
#define ADMIN_TARGET_BYTES_MAX 1024u
#define ADMIN_FIELDS_MAX       64
#define ADMIN_BODY_BYTES_MAX   (16u * 1024u)
/* What came and was not yet understood. Reading stops while an answer is sent, but an engine may
 * still deliver a few buffers; a client that pipelines more than this is closed. */
#define ADMIN_INPUT_BYTES ((size_t)5 * SW_BUF_BYTES)
_Static_assert(ADMIN_INPUT_BYTES >= ADMIN_HEAD_BYTES_MAX + 2 * SW_BUF_BYTES,
               "a head, and what is behind it");

#define ADMIN_IDLE_NS    (75 * SW_NS_PER_S) /* above the usual scrape interval */
#define ADMIN_HEAD_NS    (10 * SW_NS_PER_S)
#define ADMIN_BODY_NS    (10 * SW_NS_PER_S)
#define ADMIN_SEND_NS    (15 * SW_NS_PER_S) /* without progress */
#define ADMIN_ANSWER_NS  (60 * SW_NS_PER_S) /* for a whole answer */
#define ADMIN_STARVED_NS (10 * SW_NS_PER_MS)
#define ADMIN_LINGER_NS  (2 * SW_NS_PER_S)
#define ADMIN_QUEUED_MAX ((size_t)2 * SW_BUF_BYTES)

enum sw_admin_conn_state {
    ACONN_HEAD, /* between requests, or a part of a head is here */
    ACONN_BODY, /* a body is read, and dropped: no endpoint wants one */
    ACONN_SEND, /* an answer is on its way */
};
struct sw_admin_conn {
    uint32_t magic;
    uint8_t state; /* enum sw_admin_conn_state */
    bool keep_alive, eof, head_only, starved, served;
    uint8_t minor;
    struct sw_admin *admin;
    struct sw_stream *stream;
    struct sw_link link;
    struct sw_timer timer; /* of the state */
    size_t in_len, scanned;
    struct sw_body body;
    enum sw_admin_endpoint endpoint;
    size_t name_len;
    char name[SW_ADMIN_NAME_MAX];
    uint64_t answer_deadline_ns;
    size_t head_len, body_len, sent; /* sent: of both */
    char head[640];
    struct sw_admin_answer answer;
    char in[ADMIN_INPUT_BYTES]; /* last: mostly untouched pages */
};

void sw_admin__accept(struct sw_stream *s, void *admin);
/* Ends at once. */
void sw_admin__conn_close(struct sw_admin_conn *c);

#endif
