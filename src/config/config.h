/* config/config.h - the configuration: a file's text -> one validated, immutable snapshot.
 *
 * Room       YAML (libyaml) under a typed schema table; every error at once, with file, line, the
 *            nearest known key and a remedy.
 * May touch  base/, io/ for addresses. Opens no file but what ${file:PATH} names.
 * Files      schema.def (the table: every key), schema.c (walks it), set.c (keys with a form of
 *            their own), check.c (contradictions), units.c, subst.c, yaml_tree.c (libyaml).
 * Flow       cli/ and gateway/ parse; all rooms below the gateway read the snapshot.
 *
 * A snapshot is read by all threads and never changes. Strings in it are NUL-terminated too.
 */
#ifndef SW_CONFIG_H
#define SW_CONFIG_H

#include "base/arena.h"
#include "base/err.h"
#include "io/io.h"

#define SW_APPS_MAX           64
#define SW_ROUTES_MAX         1024
#define SW_LISTEN_MAX         16
#define SW_REPLICAS_MAX       64 /* instances stateway runs, or servers, of one app */
#define SW_ROUTE_SEGMENTS_MAX 64 /* of a path pattern */

enum sw_placement_kind {
    SW_PLACE_NONE,
    SW_PLACE_STICKY,
    SW_PLACE_SESSION,
    SW_PLACE_TOKEN,
    SW_PLACE_SEALED,
    SW_PLACE_COUNT,
};

struct sw_config_listen {
    struct sw_slice text; /* as written */
    struct sw_addr addr;
    uint32_t line;
};

struct sw_config_server {
    struct sw_slice text;
    struct sw_addr addr;
    uint32_t weight; /* 1..256; 0: drain */
};

struct sw_config_env {
    struct sw_slice name, value;
};

enum sw_balance { SW_BALANCE_LEAST, SW_BALANCE_ROUND_ROBIN, SW_BALANCE_HASH };
enum sw_on_loss { SW_ON_LOSS_REPIN, SW_ON_LOSS_FAIL, SW_ON_LOSS_NOTIFY };

struct sw_config_app {
    struct sw_slice name; /* [a-z0-9-]{1,63} */
    uint32_t line;
    const char *const *command; /* NULL-terminated argv; NULL: servers */
    struct sw_slice directory;  /* empty: the gateway's */
    const struct sw_config_env *environment;
    size_t environment_count;
    uint32_t replicas;
    const struct sw_config_server *servers;
    size_t server_count;
    struct sw_slice health_path; /* empty: a connection that is accepted is healthy */
    uint64_t health_interval_ns, health_timeout_ns;
    uint32_t health_healthy, health_unhealthy;
    uint64_t start_timeout_ns; /* a new instance must be ready by then */
    enum sw_balance balance;
    uint64_t drain_deadline_ns;
    uint32_t connections_max;      /* per instance, over all workers */
    uint32_t pending_max;          /* requests that wait for a connection, per worker */
    uint32_t retry_attempts;       /* besides the first try */
    uint32_t retry_budget_percent; /* of the exchanges of the last 10 s; at least 10 */
    uint64_t retry_per_try_ns;     /* 0: the response timeout */
    bool proxy_public;             /* reserved */
};

enum sw_key_source { SW_KEY_COOKIE, SW_KEY_PATH, SW_KEY_HEADER, SW_KEY_QUERY, SW_KEY_CLAIM };
enum sw_concurrency { SW_CONC_SERIAL, SW_CONC_MERGE, SW_CONC_CAS, SW_CONC_LAST };
enum sw_replay { SW_REPLAY_IDEMPOTENT, SW_REPLAY_SAFE, SW_REPLAY_NEVER };
enum sw_idempotency { SW_IDEM_OFF, SW_IDEM_OPTIONAL, SW_IDEM_REQUIRED };
enum sw_idem_unknown { SW_IDEM_UNKNOWN_REJECT, SW_IDEM_UNKNOWN_RETRY };
enum sw_idem_failed { SW_IDEM_FAILED_UNKNOWN, SW_IDEM_FAILED_STORE, SW_IDEM_FAILED_RELEASE };
enum sw_idem_down { SW_IDEM_DOWN_REFUSE, SW_IDEM_DOWN_RUN };
enum sw_idem_principal {
    SW_IDEM_PRINCIPAL_VISITOR, /* the visitor's id */
    SW_IDEM_PRINCIPAL_HEADER,
    SW_IDEM_PRINCIPAL_ADDRESS,
    SW_IDEM_PRINCIPAL_SUBJECT, /* of the verified token */
};
enum sw_secure { SW_SECURE_AUTO, SW_SECURE_YES, SW_SECURE_NO };

struct sw_config_cookie {
    struct sw_slice name; /* without __Host- */
    struct sw_slice path;
    uint8_t same_site; /* enum sw_same_site of http/: 0 lax, 1 strict, 2 none */
    enum sw_secure secure;
};

/* Where keys of an issuer come from; routes that name the same source share them. */
struct sw_config_keyset {
    struct sw_slice source; /* a path, or a URL */
    bool url;               /* https: public keys only; http: on loopback only */
};
#define SW_KEYSETS_MAX 64

struct sw_config_claim {
    struct sw_slice name, value;
};
#define SW_TOKEN_AUDIENCES_MAX 16
#define SW_TOKEN_SCOPES_MAX    16
#define SW_TOKEN_CLAIMS_MAX    16
#define SW_TOKEN_HEADERS_MAX   16
#define SW_MINT_LIFE_S_MAX     86400

/* The values of crypto/'s enum sw_jose_alg, a room that this one does not see. */
#define SW_CONFIG_ALG_HS256   0
#define SW_CONFIG_ALG_ES256   9
#define SW_CONFIG_ALG_ED25519 12

enum sw_deliver { SW_DELIVER_COOKIE, SW_DELIVER_HEADER };
enum sw_oversize { SW_OVERSIZE_REFUSE, SW_OVERSIZE_SPILL };

/* `token` of a route. It verifies (keys), or mints and verifies its own (mint). */
struct sw_config_token {
    bool on;          /* the route has this section: tokens are looked at */
    bool from_cookie; /* else the bearer header */
    struct sw_config_cookie cookie;
    uint32_t keyset; /* index into keysets; SW_KEYSETS_MAX: the gateway's own keys, or not on */
    struct sw_slice issuer, typ;
    const struct sw_slice *audiences;
    size_t audience_count;
    const struct sw_slice *scopes;
    size_t scope_count;
    const struct sw_config_claim *claims; /* that must hold */
    size_t claim_count;
    const struct sw_config_claim *headers; /* name: a header for the app, value: a claim */
    size_t header_count;
    int64_t skew_s, age_s_max; /* age 0: any */
    bool required;             /* without a token: 401; else the request goes on without */
    struct {
        bool on;
        uint8_t alg; /* enum sw_jose_alg: Ed25519, ES256, HS256 */
        int64_t life_s, renew_s, absolute_s;
        enum sw_deliver deliver;
    } mint;
};

struct sw_config_route {
    uint32_t line, index;
    /* match */
    struct sw_slice host; /* empty: any; "*.shop.example": one or more labels in front */
    struct sw_slice path; // "/cart/*", "/rooms/{room}/*", "/exact"
    const struct sw_slice *methods;
    size_t method_count; /* 0: any */
    const struct sw_config_env *headers;
    size_t header_count;
    /* act */
    uint32_t app; /* index into apps */
    struct sw_slice strip;
    enum sw_placement_kind placement;
    enum sw_replay replay;
    bool csrf;
    bool expose_verdict, expose_instance;
    struct {
        enum sw_key_source key_source;
        struct sw_slice key_name; /* of the path segment, header or query */
        struct sw_config_cookie cookie;
        int64_t idle_s, absolute_s;
        enum sw_concurrency concurrency;
        uint32_t queue_length;
        uint64_t queue_wait_ns;
        uint32_t inline_bytes, max_bytes;
        bool encrypt;          /* the value is encrypted with a key made of the visitor's id */
        bool owner_subject;    /* an entity belongs to the subject of who made it */
        struct sw_slice alarm; /* where alarms are delivered: a path; empty: none may be set */
        /* What the app gets beside the state: a token that says whose request it is (phantom). */
        struct {
            bool on;
            struct sw_slice issuer, audience;
            uint8_t alg; /* enum sw_jose_alg */
            int64_t life_s;
        } phantom;
    } session;
    struct sw_config_token token;
    struct {
        struct sw_config_cookie cookie;
        int64_t idle_s, absolute_s;
        enum sw_oversize oversize;
        bool replay_guard;
    } sealed;
    /* Where states of this route lived before (NONE: nowhere else): visitors who come with that are
     * brought over at their next request. Its section stands beside that of `state`. */
    enum sw_placement_kind moved_from;
    struct {
        enum sw_idempotency mode;
        int64_t retention_s;
        enum sw_idem_unknown unknown;
        enum sw_idem_failed failed; /* what a 5xx of the app means */
        enum sw_idem_down store_down; /* the store cannot keep the claim */
        uint64_t wait_ns; /* how long a duplicate waits for the first one; 0: 409 at once */
        enum sw_idem_principal principal;
        struct sw_slice principal_header;
        uint32_t answer_bytes_max; /* a longer body is not kept */
    } idempotency;
    uint64_t ident; /* of host, path and app: says "the same route" across restarts */
    struct {
        struct sw_config_cookie cookie;
        enum sw_on_loss on_loss;
        int64_t idle_s, absolute_s;
    } sticky;
};

/* A network of `trusted`, compiled: IPv4 stands as v4-mapped IPv6. */
struct sw_config_net {
    uint8_t addr[16];
    uint8_t bits; /* 0..128 */
};

struct sw_config {
    struct sw_slice file; /* name for messages */
    struct sw_config_listen listen[SW_LISTEN_MAX];
    size_t listen_count;
    const struct sw_slice *trusted; /* CIDR texts, checked; "unix": peers on Unix sockets */
    size_t trusted_count;
    const struct sw_config_net *nets; /* those of them that are networks */
    size_t net_count;
    bool trusted_unix;
    struct sw_addr admin_addr; /* len 0: off */
    struct sw_slice admin_text, admin_token;
    struct sw_addr side_addr; /* of the first worker's side API; len 0: off */
    struct sw_slice side_text;
    struct sw_slice store_kind; /* "lmdb", "journal" or "memory" */
    struct sw_slice store_path;
    uint8_t sync; /* enum sw_sync of store/: always, everysec, no */
    uint64_t store_map_bytes;    /* lmdb: of its file */
    uint64_t store_memory_bytes; /* journal: of its records */
    struct sw_slice keys_file;
    int64_t keys_rotate_s; /* a new key when the active one is that old; 0: by hand only */
    const struct sw_config_keyset *keysets;
    size_t keyset_count;
    enum sw_engine engine;
    uint32_t workers; /* 0: one a core */
    enum sw_log_level log_level;
    bool log_json;
    struct sw_slice access_log; /* "stdout", "off", or a path */
    struct {
        uint64_t head_ns, idle_ns, connect_ns, response_ns, exchange_ns, stop_ns, body_ns, send_ns;
    } timeouts;
    struct {
        uint32_t connections, head_bytes, fields, target_bytes, replay_buffer_bytes;
        uint32_t new_per_client; /* in an hour; 0: no limit */
        uint64_t body_bytes, large_bytes;
    } limits;
    struct sw_config_app *apps;
    size_t app_count;
    struct sw_config_route *routes;
    size_t route_count;
};

/* What the command line says over the file. Unset: empty slice, 0. Checked like the file; errors
 * name the flag: --listen (replaces the whole list), --admin (or "off"), --store, --access-log,
 * --workers. */
struct sw_config_override {
    struct sw_slice listen, admin, store, access_log;
    bool has_engine, has_workers, has_log_level;
    enum sw_engine engine;
    uint32_t workers;
    enum sw_log_level log_level;
};

/* One complaint. */
struct sw_config_error {
    uint32_t line, column; /* from 1; 0: the file as a whole */
    struct sw_slice text;  /* "unknown key `replicsa` in apps.shop; did you mean `replicas`?" */
};
#define SW_CONFIG_ERRORS_MAX 64

struct sw_config_errors {
    struct sw_config_error list[SW_CONFIG_ERRORS_MAX];
    size_t count; /* may be more than the list holds: the rest is only counted */
    void *memory; /* config/'s: the texts */
    size_t memory_used;
};

/* Parses text (the whole file). name is for messages; relative paths in the file are kept as
 * written. Everything lives in *ret_config's own memory; free it with sw_config_free. Environment
 * and ${file:...} are read here, names of servers are looked up. Blocks. override may be NULL.
 * *errors is overwritten, sorted by place, and not empty whenever the answer is not SW_OK; its
 * texts live until sw_config_errors_fini. SW_E_SYNTAX, SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_config_parse(struct sw_slice text, struct sw_slice name,
                                    const struct sw_config_override *override,
                                    struct sw_config **ret_config, struct sw_config_errors *errors);
void sw_config_free(struct sw_config *c);
void sw_config_errors_fini(struct sw_config_errors *errors);

/* Is what this peer says in Forwarded and X-Forwarded-* believed? Any thread. */
bool sw_config_trusted(const struct sw_config *c, const struct sw_addr *peer);

/* One row a limit, timeout and default, from the schema table: docs/limits.md and
 * docs/configuration.md are checked against it. */
struct sw_config_key_doc {
    const char *path; /* "routes[].session.idle" */
    const char *type; /* "duration", "size", "enum serial|merge|cas|last" */
    const char *dflt; /* as one would write it */
    const char *text; /* what it is, and what happens at the edge */
};
size_t sw_config_key_docs(const struct sw_config_key_doc **ret_docs);

#endif
