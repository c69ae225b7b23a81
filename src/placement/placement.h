/* placement/placement.h - where state lives: the three questions every placement answers.
 *
 * Room       One file each: none.c sticky.c session.c; what they share: key.c (whose state),
 *            record.c (a record read: renewed ids, seals), value.c (the state as it will be),
 *            subject.c (whose it is, without saying who), update.c and envelope.c (what the app's
 *            answer asks for), handoff.c (what the app is told), stage.c (updates that come by the
 *            side API), alarm.c, pin.c, claim.c (their bytes and rules), failed.c (an alarm that
 *            nobody took), large.c (memory beyond the arena). Decides; moves no bytes.
 * May touch  app/, store/, http/, crypto/, config/, route/, base/. Not gateway/, not a socket.
 * Flow       gateway/ asks key, load, then pick, then commit. What must wait returns SW_STEP_MORE
 *            and wakes the exchange later.
 */
#ifndef SW_PLACEMENT_H
#define SW_PLACEMENT_H

#include "app/app.h"
#include "base/arena.h"
#include "base/budget.h"
#include "crypto/crypto.h"
#include "http/http.h"
#include "route/route.h"
#include "store/store.h"

/* What happened to the state in an exchange: for the app, the log, the metrics. */
enum sw_verdict {
    SW_VERDICT_NONE,       /* no state is kept on this route */
    SW_VERDICT_FRESH,      /* a visitor without state */
    SW_VERDICT_KEPT,       /* there was a state and it stands */
    SW_VERDICT_UPDATED,    /* a new version was committed */
    SW_VERDICT_MOVED,      /* re-pinned, and the state went along */
    SW_VERDICT_RESTORED,   /* read back from a copy */
    SW_VERDICT_EXPIRED,    /* the client named a state that is past its time, or unknown */
    SW_VERDICT_LOST,       /* the instance that held it is gone */
    SW_VERDICT_CONFLICTED, /* another request changed it first; this update was not made */
    SW_VERDICT_REVOKED,    /* it was ended (logout) */
    SW_VERDICT_COUNT,
};
const char *sw_verdict_name(enum sw_verdict v);

/* What a worker hands to every ask of its own. */
struct sw_place_env {
    struct sw_loop *loop;
    struct sw_store *store; /* NULL when no route keeps sessions */
    const struct sw_keyring *keys;
    struct sw_apps *apps;
    struct sw_rng *rng;
    const struct sw_config *config;
    struct sw_budget *large; /* states above inline, and answers that wait for their commit */
};

/* ---- alarms ---------------------------------------------------------------------------------- */

#define SW_ALARMS_MAX           8 /* of one state */
#define SW_ALARM_CHANGES_MAX    8 /* of one answer */
#define SW_ALARM_ID_BYTES_MAX   32
#define SW_ALARM_DATA_BYTES_MAX 512
#define SW_ALARM_TRIES_MAX      6    /* then it is given up, with an error in the log */
#define SW_ALARM_RETRY_MS       2000 /* doubled with each try */
#define SW_ALARM_MS_MAX         (3650ll * 86400 * 1000) /* into the future */

/* One alarm of a state, as its record keeps it (`extra`). */
struct sw_alarm {
    struct sw_slice id;   /* 1 to 32 of A-Z a-z 0-9 - _ . */
    struct sw_slice data; /* printable ASCII, as the app gave it; may be empty */
    int64_t due_unix_ms;
    uint32_t attempt;     /* deliveries that failed so far; the app is told one more */
    uint64_t route_ident; /* of the route that set it: sw_config_route.ident */
    struct sw_slice key_text;
};
/* What an answer wants with one: set (in place of the one with that id), or cancel. */
struct sw_alarm_change {
    bool cancel;
    struct sw_slice id, data;
    int64_t due_unix_ms;
};
/* "in=30000;id=turn;data=\"...\"" | "at=<unix ms>;..." | "cancel;id=turn"; id defaults to
 * "alarm". SW_E_UPDATE_ALARM; SW_E_NO_MEMORY: the arena is full. data is unescaped into arena. */
SW_MUST enum sw_err sw_alarm_parse(struct sw_slice text, int64_t now_unix_ms,
                                   struct sw_arena *arena, struct sw_alarm_change *ret_change);
/* The list in `extra`: at most SW_ALARMS_MAX; slices point into text. SW_E_STORE_CORRUPT. */
SW_MUST enum sw_err sw_alarms_read(struct sw_slice extra, struct sw_alarm ret_list[SW_ALARMS_MAX],
                                   size_t *ret_count);
/* Format in alarm.c. False: no room. Nothing for an empty list. */
SW_MUST bool sw_alarms_put(struct sw_out *out, const struct sw_alarm *list, size_t count);
/* Applies a change. SW_E_UPDATE_ALARM: the list is full. */
SW_MUST enum sw_err sw_alarms_change(struct sw_alarm *list, size_t *count,
                                     const struct sw_alarm_change *change, uint64_t route_ident,
                                     struct sw_slice key_text);
/* The earliest; 0: none. */
int64_t sw_alarms_due(const struct sw_alarm *list, size_t count);

enum sw_update_kind { SW_UPDATE_NONE, SW_UPDATE_SET, SW_UPDATE_PATCH, SW_UPDATE_DELETE };

/* The Stateway headers of an app's answer, understood (the state protocol, 2.2). */
struct sw_update {
    enum sw_update_kind kind;
    struct sw_slice value; /* Set, Patch: the JSON text as it came */
    bool renew;
    bool has_subject;
    struct sw_slice subject;
    bool has_expect;
    struct sw_version expect;
    int64_t ttl_s; /* < 0: none given */
    enum { SW_COMMIT_BELOW_500, SW_COMMIT_ALWAYS, SW_COMMIT_2XX } commit;
    struct sw_slice alarms[SW_ALARM_CHANGES_MAX]; /* the texts; sw_alarm_parse reads them */
    size_t alarm_count;
    enum { SW_IDEM_BY_STATUS, SW_IDEM_STORE, SW_IDEM_RELEASE } idempotency;
};

struct sw_ask;
typedef enum sw_step sw_ask_fn(struct sw_ask *ask);

struct sw_placement {
    const char *name; /* as configuration and logs spell it */
    /* The state to hand to the app, or a refusal in ask->err. */
    sw_ask_fn *load;
    /* ask->instance: the one that may answer, with its reference; or a refusal. Never waits. Asked
     * again when an attempt failed; ask->tried holds those. */
    sw_ask_fn *pick;
    /* The update in ask->response made durable, and the lines the client gets; or a refusal. */
    sw_ask_fn *commit;
};

enum sw_reading_mode {
    SW_READING_HEAD,   /* its subject; the value does not matter */
    SW_READING_INLINE, /* a value above value_bytes_max: its length only */
    SW_READING_WHOLE,  /* in large memory */
    SW_READING_RAW,    /* the same as it is kept, not opened */
};
/* A record on its way (record.c): renewed ids are followed, seals are opened. */
struct sw_reading {
    struct sw_store_load load;
    struct sw_store_key key; /* where it is looked for, and then where it was found */
    uint8_t id[32];          /* what key is the hash of, when has_id: opens the seal */
    bool has_id;
    enum sw_reading_mode mode;
    size_t value_bytes_max; /* of the plain text; WHOLE and RAW: a guess */
    uint32_t followed;      /* renewals */
    uint32_t grown;         /* the guess was too small */
    bool waiting;
    struct sw_arena large; /* where it is read to, when that is not the ask's arena */
    char *block;
    size_t mark; /* of the ask's arena */
    /* answers */
    enum sw_err err;         /* SW_OK; SW_E_NOT_FOUND: no state of ours; SW_E_LARGE_FULL,
                                SW_E_STORE_*; SW_E_CONFLICT: it grows faster than it is read */
    bool odd;                /* NOT_FOUND, but something is there */
    bool unreadable;         /* odd: a sealed state of another id, or a damaged one */
    struct sw_record record; /* a state, its value opened; or a tombstone */
};

/* What a placement sees of an exchange; embedded in it, so no arrow points up. */
struct sw_ask {
    /* given by the exchange */
    const struct sw_place_env *env;
    const struct sw_placement *placement;
    const struct sw_routed *routed;
    const struct sw_head *request;
    struct sw_arena *arena;
    int64_t now_unix_s;
    bool secure;                        /* the client came by TLS, or a trusted proxy says so */
    bool trusted;                       /* the peer is a proxy whose X-Forwarded-* are believed */
    bool shared;                        /* runs beside writers, on the committed state */
    void (*wake)(struct sw_ask *ask);   /* after SW_STEP_MORE: ask the same question again */
    const struct sw_head *response;     /* for commit */
    struct sw_update update;            /* of the response; read by sw_update_read */
    const struct sw_envelope *envelope; /* for commit: what the answer's body said, instead of its
                                           headers; NULL: it was no envelope */
    struct sw_slice ref_url;            /* of the side API for this exchange; empty: it is off */
    bool by_ref;                        /* the instance cannot take the state in a header */
    struct sw_slice trace;              /* Stateway-Trace's value for the app; may be empty */
    uint32_t claim_attempt;             /* of an idempotency key: 1, 2 ...; 0: none */
    const struct sw_alarm *alarm; /* what is being delivered; NULL: this is a client's request.
                                     Then has_key, key and key_text are given, not found */
    /* One more write for the transaction of the commit (an idempotency record). A placement that
     * commits takes it along and says so; the exchange writes it alone when it was not. When its
     * own expectation fails, nothing is written: SW_E_IDEM_RUNNING, somebody else has the claim. */
    const struct sw_write *join;
    bool joined;
    struct sw_pick tried; /* instances that failed in this exchange */
    bool tried_lives;     /* the last of them did so by being busy or slow, not gone */
    bool patience;        /* pick: the exchange can still wait a little */

    /* answers */
    enum sw_err err;
    enum sw_verdict verdict;     /* so far; the last word is after commit */
    enum sw_verdict app_verdict; /* what the app is told */
    bool has_key;
    struct sw_store_key key;
    struct sw_slice key_text; /* Stateway-Key's value: "room:42"; for visitors their hash */
    char visitor[17];         /* keyed hash for logs and the app; "" when there is none */
    bool state_present;
    struct sw_slice state; /* compact ASCII JSON; ptr NULL: it is above inline, only its length is
                              known, and the app gets it by reference */
    struct sw_version version;
    struct sw_instance *instance;
    bool worth_waiting;           /* a refused pick may succeed soon: ask again */
    struct sw_slice client_lines; /* "Set-Cookie: ...\r\n" for the client; may be empty */
    bool sets_cookie;
    bool drops_cookie;  /* a refusal that also clears the client's cookie */
    uint64_t commit_ns; /* how long the store took; 0: no commit */

    /* What the app staged by the side API (stage.c); committed with the answer. */
    struct {
        enum sw_update_kind kind; /* NONE, SET or DELETE */
        struct sw_slice value;    /* compact, checked; in large memory */
        uint32_t count;           /* writes so far: the tag of what is staged */
    } staged;
    struct sw_large *large; /* memory of this ask from env->large: sw_ask_large, sw_ask_drop */

    /* the placement's own while it works */
    struct {
        struct sw_slice cookie_name;      /* with __Host- where it applies */
        bool from_cookie, cookie_present; /* the client can be given another id */
        bool needs_touch;
        bool has_own;     /* owner: the cookie names a session of the visitor's own */
        bool has_at_id;   /* at_id is what key is the hash of */
        bool unreadable;  /* a record is there that cannot be opened: as if there were none */
        bool new_id;      /* this commit gives the visitor a new id */
        bool had_state;   /* before it was read for another try */
        bool value_ready; /* update.value is compact and checked: it was staged */
        enum { SW_LOADING_NOTHING, SW_LOADING_OWN, SW_LOADING_STATE } loading;
        enum {
            SW_SESSION_DECIDE,
            SW_SESSION_RELOADING,
            SW_SESSION_FETCHING,
            SW_SESSION_COMMITTING,
            SW_SESSION_TOUCHING,
        } phase;
        enum { SW_FAILED_NOT, SW_FAILED_READING, SW_FAILED_WRITING } failed; /* of failed.c */
        uint32_t tries; /* of an update that fits any version */
        size_t mark;    /* arena: what another try needs is below it */
        struct sw_large *large_mark;
        size_t join_at;          /* its place in the commit */
        uint8_t id[32];          /* the cookie's */
        uint8_t at_id[32];       /* where its state lives: it may have been renewed */
        uint8_t fresh_id[32];    /* of new_id */
        char visitor_text[25];   /* "visitor:" and the hash: key_text of visitors */
        struct sw_store_key own; /* of has_own */
        struct sw_slice owner;   /* subject of the visitor's own session */
        struct sw_slice lines;   /* client_lines once it is committed */
        struct sw_record record;
        struct sw_reading reading;
        struct { /* the committed value of a state above inline, once it was read */
            bool present;
            bool late; /* read by the commit, above large_mark */
            struct sw_version version;
            struct sw_slice value;
        } whole;
        struct sw_store_commit *commit;
    } session;
    struct {
        struct sw_slice cookie_name, service;
        uint64_t pin_id, incarnation;
        int64_t issued_unix_s, seen_unix_s;
        uint32_t epoch;
        bool valid, lost, emit;
    } sticky;
};

/* Memory beyond the arena, from env->large, until sw_ask_drop. NULL: the budget is used up (then
 * SW_E_LARGE_FULL is the answer, before anything was done). */
char *sw_ask_large(struct sw_ask *ask, size_t bytes);
/* Gives all of it back. The exchange's, at its end and before a rerun; no commit is running. */
void sw_ask_drop(struct sw_ask *ask);

/* The table of placements, by enum sw_placement_kind. */
const struct sw_placement *sw_placement_of(enum sw_placement_kind kind);

/* Whose state is it? Fills has_key, key, key_text, visitor from the request. Pure. Entities that
 * name no key: SW_E_KEY. For a delivery (ask->alarm) these are given and stay. */
SW_MUST enum sw_err sw_place_key(struct sw_ask *ask);

/* Does this request change something with a cookie of ours, caused by another site? Pure. */
bool sw_place_cross_site(const struct sw_ask *ask);

/* Names of the cookies that belong to this gateway on that route: never forwarded to the app.
 * Both spellings (with __Host-). Returns the count, at most SW_OWN_COOKIES_MAX. */
#define SW_OWN_COOKIES_MAX 4
size_t sw_place_own_cookies(const struct sw_config_route *route,
                            struct sw_slice ret_names[SW_OWN_COOKIES_MAX], char text[256]);

/* The delivery of ask->alarm failed: one attempt more, and later (SW_ALARM_RETRY_MS, doubled with
 * each try), or after SW_ALARM_TRIES_MAX of them it is taken out. In one commit of the state's
 * record, whose value stays. An alarm that is not there any more, or was set anew, is left alone.
 * Waits and wakes like commit; call it again then. FAIL: ask->err, nothing was written. */
SW_MUST enum sw_step sw_session_alarm_failed(struct sw_ask *ask);

/* Names under which the store may know a subject: as it is, and as routes with `encrypt: on` keep
 * it, "~" and a hash under a key of the ring, one for each key (subject.c). To list or to cut off a
 * subject, all of them are asked. Slices point into the struct and at the subject. */
#define SW_SUBJECT_NAME_BYTES (1 + SW_B64_LEN(16))
struct sw_subject_names {
    struct sw_slice list[1 + SW_KEYS_MAX];
    size_t count;
    char text[SW_KEYS_MAX][SW_SUBJECT_NAME_BYTES];
};
void sw_place_subject_names(const struct sw_keyring *keys, struct sw_slice subject,
                            struct sw_subject_names *ret_names);

/* The lines an instance is told: "Stateway-...: ...\r\n" (the state protocol, 2.1). False: no room;
 * enough are state (when it goes inline), key_text, ref_url and trace, for a delivery what its
 * alarm's id and twice its data take, and SW_HANDOFF_BYTES. */
#define SW_HANDOFF_BYTES 768
SW_MUST bool sw_handoff_put(struct sw_out *out, const struct sw_ask *ask, uint64_t deadline_ms);

/* Reads the Stateway headers of an answer. SW_E_UPDATE_*: the answer is replaced by 502. */
SW_MUST enum sw_err sw_update_read(const struct sw_head *response, struct sw_update *ret_update);

/* ---- the commit envelope (the state protocol, 2.2) ------------------------------------------- */

#define SW_ENVELOPE_TYPE    "application/stateway-commit+json"
#define SW_ENVELOPE_HEADERS 64
struct sw_envelope {
    enum sw_update_kind kind;
    struct sw_slice value; /* the JSON text of set or patch, as it came */
    unsigned status;       /* 200 when the response does not say */
    struct {
        struct sw_slice name, value;
    } headers[SW_ENVELOPE_HEADERS]; /* unescaped into memory */
    size_t header_count;
    struct sw_slice body;                         /* unescaped, or decoded from base64 */
    struct sw_slice alarms[SW_ALARM_CHANGES_MAX]; /* texts as of the Stateway-Alarm header */
    size_t alarm_count;
};
/* body: the whole body of the answer; not needed any more afterwards. memory: body.len bytes are
 * enough; all slices point there. SW_E_UPDATE_ENVELOPE (not that shape, or more than the limits),
 * SW_E_UPDATE_JSON, SW_E_UPDATE_MANY, SW_E_UPDATE_TYPE, SW_E_UPDATE_UNSUPPORTED (publish). Framing
 * and hop-by-hop headers, and any Stateway-* are refused among its headers. Pure. */
SW_MUST enum sw_err sw_envelope_read(struct sw_slice body, char *memory,
                                     struct sw_envelope *ret_envelope);

/* ---- the side API: what an app does with the state of its running exchange ------------------- */

enum sw_stage_method { SW_STAGE_GET, SW_STAGE_PUT, SW_STAGE_PATCH, SW_STAGE_DELETE };
struct sw_stage_ask {
    enum sw_stage_method method;
    struct sw_slice body; /* PUT: JSON; PATCH: a merge patch */
    bool has_if_match, if_match_any;
    struct sw_slice if_match; /* one tag with its quotes */
    bool has_if_none_match, if_none_match_any;
    struct sw_slice if_none_match;
};
struct sw_stage_answer {
    enum sw_err err;      /* SW_OK; SW_E_NOT_FOUND (404), SW_E_STAGE_MATCH (412), SW_E_UPDATE_JSON
                             and SW_E_UPDATE_TYPE (422 here), SW_E_UPDATE_LARGE (413 here),
                             SW_E_LARGE_FULL, SW_E_STORE_*, SW_E_STAGE_SHARED (a shared request
                             may read only: 409), SW_E_STAGE_GONE: its answer is here already */
    unsigned status;      /* when SW_OK: 200, 204, 304 */
    struct sw_slice etag; /* in tag; empty: there is no state */
    struct sw_slice body; /* of GET: in the ask's large memory, or the arena; until the next write
                             that is staged, the commit, or sw_ask_drop */
    char tag[SW_VERSION_TEXT_MAX + 16];
};
/* Reads or stages; nothing is visible to others before the app's answer commits. What is read is
 * the state that was handed out, or (above inline, when it was changed since) a newer one: its tag
 * says so, and the commit meets a conflict. "0", the version of no state, is a tag of none too.
 * Worker thread of the exchange. Never waits: embedded stores only. */
void sw_stage(struct sw_ask *ask, const struct sw_stage_ask *in,
              struct sw_stage_answer *ret_answer);

/* ---- Idempotency-Key (specs: idempotency) ---------------------------------------------------- */

#define SW_CLAIM_KEY_BYTES_MAX 255
enum sw_claim_state { SW_CLAIM_RUNNING = 1, SW_CLAIM_DONE = 2, SW_CLAIM_UNKNOWN = 3 };
struct sw_claim {
    enum sw_claim_state state;
    uint8_t fingerprint[32];
    uint32_t attempt;                      /* 1, 2 ... */
    bool too_large;                        /* DONE: the body was above the limit and is not here */
    unsigned status;                       /* DONE */
    struct sw_slice reason, headers, body; /* DONE; headers as lines "Name: value\r\n" */
};
/* The key of a request: quoted (a Structured Field string, parameters ignored) or bare.
 * SW_E_IDEM_MISSING when there is none; SW_E_IDEM_SYNTAX: twice, empty, too long, malformed.
 * Unescaped into text. */
SW_MUST enum sw_err sw_claim_key_read(const struct sw_head *request,
                                      char text[SW_CLAIM_KEY_BYTES_MAX], struct sw_slice *ret_key);
/* Who asks, by the route's `principal`. peer: the text of the connection's address; where ask says
 * that it is trusted, X-Forwarded-For names the client. SW_E_IDEM_PRINCIPAL: nobody is named. The
 * part that is hashed; valid while the request is. */
SW_MUST enum sw_err sw_claim_principal(const struct sw_ask *ask, struct sw_slice peer,
                                       struct sw_slice *ret_principal);
/* The record's key: a hash (HMAC-SHA-256 with a public key) of length-prefixed route, kind of
 * principal, principal, key. */
void sw_claim_store_key(const struct sw_config_route *route, struct sw_slice principal,
                        struct sw_slice key, struct sw_store_key *ret_key);
/* A hash (as above) of length-prefixed method, authority, path, query, content type without
 * parameters, body. */
void sw_claim_fingerprint(const struct sw_head *request, struct sw_slice body, uint8_t out[32]);
/* The record's value; the table is in claim.c. put: false: no room. read: SW_E_STORE_CORRUPT. */
SW_MUST bool sw_claim_put(struct sw_out *out, const struct sw_claim *c);
SW_MUST enum sw_err sw_claim_read(struct sw_slice value, struct sw_claim *ret_claim);
/* What to do with a request that found this record while nobody runs it (NULL: no record):
 * SW_OK: run it (attempt says which); SW_E_IDEM_REUSED; SW_E_IDEM_UNKNOWN; or *ret_replay: answer
 * from the record; SW_E_IDEM_TOO_LARGE. */
struct sw_claim_decision {
    enum sw_err err;
    bool replay;
    uint32_t attempt;
};
SW_MUST struct sw_claim_decision sw_claim_decide(const struct sw_config_route *route,
                                                 const struct sw_claim *found,
                                                 const uint8_t fingerprint[32]);
/* What becomes of the claim when an app answered with that status. */
enum sw_claim_end { SW_CLAIM_KEEP, SW_CLAIM_RELEASE, SW_CLAIM_DOUBT };
enum sw_claim_end sw_claim_end_of(const struct sw_config_route *route,
                                  const struct sw_update *update, unsigned status);
/* The answer's headers that are stored, as lines; leaves out hop-by-hop, framing, Date, Set-Cookie,
 * Stateway-*, Grip-*, trace headers. Goes by names: fields need no id. False: no room. */
SW_MUST bool sw_claim_headers_put(struct sw_out *out, const struct sw_head *response);

/* ---- pins (sticky) --------------------------------------------------------------------------- */

struct sw_pin {
    uint32_t key_id;
    uint32_t epoch; /* one more at each re-pin */
    uint64_t id;    /* random: the visitor in the ledger */
    uint64_t incarnation;
    int64_t issued_unix_s, seen_unix_s;
};
#define SW_PIN_BYTES    57 /* 41 of fields, 16 of MAC: the table in pin.c */
#define SW_PIN_TEXT_MAX SW_B64_LEN(SW_PIN_BYTES)

/* service: what the pin is bound to (app and cookie name). ok: out has room. */
SW_MUST bool sw_pin_put(struct sw_out *out, const struct sw_keyring *keys, struct sw_slice service,
                        const struct sw_pin *pin);
/* SW_E_PIN_FORGED: not made by this service (or by a key that is gone). SW_E_PIN_EXPIRED: idle or
 * absolute time is up. Wall time: a pin outlives the process that wrote it. */
SW_MUST enum sw_err sw_pin_read(struct sw_slice text, const struct sw_keyring *keys,
                                struct sw_slice service, int64_t now_unix_s, int64_t idle_s,
                                int64_t absolute_s, struct sw_pin *ret_pin);

#endif
