/* placement/placement.h - where state lives: the three questions every placement answers.
 *
 * Room       none.c, sticky.c, session*.c, token*.c, sealed*.c; move*.c between them; what was
 *            ended: revoke.c; what they share: key.c (whose state),
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
#include "crypto/jose.h"
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

/* Keys that sign tokens, made from the key ring: one set for each algorithm that a route names. */
struct sw_mint {
    struct sw_jwks *sets[SW_JOSE_ALG_COUNT]; /* NULL: not asked for */
};
/* The algorithms that routes mint tokens with, or phantoms: SW_BIT(SW_JOSE_...). */
uint32_t sw_mint_algs(const struct sw_config *config);
/* All the sets for these, or none. SW_E_NO_MEMORY. Allocates: at start and when the ring changed,
 * main thread. */
SW_MUST enum sw_err sw_mint_init(struct sw_mint *m, const struct sw_keyring *ring, uint32_t algs);
/* No worker may use it any more. */
void sw_mint_fini(struct sw_mint *m);
/* The public keys of all sets as one JWK set, for SW_JWKS_PATH. False: no room. */
SW_MUST bool sw_mint_put_public(struct sw_out *out, const struct sw_mint *m);
#define SW_JWKS_PATH       "/.well-known/jwks.json"
#define SW_JWKS_TEXT_BYTES (3u * SW_KEYS_MAX * 256u) /* room enough for it */

/* Keyed hashes of the visitors a worker met last: who comes again is hashed once. By the key of his
 * state, which is a hash itself; a later one takes an earlier one's place. Zeroed, it is empty. */
#define SW_VISITORS_MAX 1024
struct sw_visitors {
    struct {
        struct sw_store_key key;
        uint32_t key_id; /* of the ring's key that text was made with */
        char text[16];   /* text[0] 0: empty */
    } at[SW_VISITORS_MAX];
};

/* What a worker hands to every ask of its own. */
struct sw_place_env {
    struct sw_loop *loop;
    struct sw_store *store; /* NULL: no route keeps sessions, and none ends tokens or seals */
    const struct sw_keyring *keys; /* replaced between two turns of the loop: do not keep it */
    const struct sw_mint *mint;    /* likewise; NULL: no route mints tokens */
    struct sw_token_cache *tokens; /* NULL: no route takes tokens */
    struct sw_keyset_view *trust;  /* by config->keysets; NULL likewise */
    struct sw_phantoms *phantoms;  /* NULL: no route has phantom tokens */
    struct sw_apps *apps;
    struct sw_rng *rng;
    const struct sw_config *config;
    struct sw_budget *large; /* states above inline, and answers that wait for their commit */
    struct sw_visitors *visitors; /* the worker's; NULL: none are remembered */
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
struct sw_stage_answer;
typedef enum sw_step sw_ask_fn(struct sw_ask *ask);
typedef void sw_stage_told_fn(struct sw_ask *ask);

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

/* ---- sealed states --------------------------------------------------------------------------- */

#define SW_SEALED_GRACE_S         10 /* how long what was just replaced may still be read */
#define SW_COOKIE_FIELD_BYTES_MAX 8192 /* "Cookie: " and all the client's: servers cut it */
#define SW_COOKIE_AGE_S_MAX       (400ll * 86400) /* rfc6265bis, 5.5: browsers keep none longer */

/* What stands inside the seal; its bytes are in sealed_plain.c. */
struct sw_sealed_plain {
    uint64_t counter;
    int64_t bound_unix_ms;   /* since when it is its subject's */
    int64_t end_unix_s;      /* set by the app; 0: none */
    bool linked;             /* made of a state elsewhere, which ends when this one is back */
    struct sw_store_key link; /* of that state, or of the note that ends it */
    int64_t link_end_unix_s;
    struct sw_slice subject, state;
};
/* A state on its way from one placement to another (move.c). */
struct sw_moved {
    struct sw_slice state, subject;
    int64_t bound_unix_ms;
    int64_t end_unix_s;      /* absolute; 0: as the new place has it */
    struct sw_store_key key; /* of the session, or of the note that ends what the client carries */
    int64_t key_end_unix_s;  /* until when that note is needed */
};
/* What the store knows of one (sealed_note.c). */
struct sw_sealed_note {
    enum sw_err err; /* SW_OK, SW_E_STORE_*: nothing is known */
    enum { SW_NOTE_NONE, SW_NOTE_COUNTER, SW_NOTE_RENEWED, SW_NOTE_ENDED } kind;
    struct sw_version version; /* of the record */
    uint64_t counter;
    int64_t at_unix_s; /* when it was written */
    struct sw_store_key last;
    struct sw_store_key last_key; /* at the end of renewals; without: the state's own */
    bool last_ended;
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
    /* For a commit that others of the same key would meet: a place in the line of ask->key, until
     * the commit is over. DONE: it is taken, or was already, or nobody is to be waited for. MORE:
     * wake follows, then it is taken; what was read before may be old. NULL: there is no line. */
    sw_ask_fn *line;
    /* Something that is not in the store yet is to be put there for this client: may it be? Asked
     * once for each. False: SW_E_FRESH. NULL: as much as it likes. */
    bool (*fresh)(struct sw_ask *ask);
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
    struct { /* a write that commits at once (stage.c) */
        struct sw_store_commit *commit;
        struct sw_stage_answer *answer; /* NULL: none is on its way */
        sw_stage_told_fn *told;
        bool matched;          /* it had an If-Match that held */
        struct sw_slice value; /* the last one's, plain; in large memory */
        struct sw_slice next;  /* the same of the one on its way */
        const char *sealed;    /* its sealed copy; NULL: there is none */
    } now;
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
        bool counted;     /* ask.fresh has let it be made; asked once, not for each try */
        enum { SW_LOADING_NOTHING, SW_LOADING_OWN, SW_LOADING_STATE, SW_LOADING_OLD } loading;
        enum {
            SW_SESSION_DECIDE,
            SW_SESSION_LINING, /* other commits of this key come first */
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
        bool cleared;            /* client_lines clear the cookie: an end was committed at once */
        struct sw_slice uncleared; /* client_lines before that */
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
    /* The token that the request came with (token.c), verified by sw_place_token. */
    struct {
        bool valid;
        struct sw_claims claims;   /* of valid */
        struct sw_slice challenge; /* of a refusal: "WWW-Authenticate: ...\r\n" */
        struct sw_slice lines;     /* for the app: chosen claims as headers, with their ends */
        struct sw_slice cookie_name;
        bool cookie_present;
        enum sw_err ignored; /* why a token in a cookie counts as none; SW_OK: it does not */
        enum {
            SW_TOKEN_FIND,
            SW_TOKEN_FETCHING, /* keys */
            SW_TOKEN_ASKING,   /* the store, whether it was ended */
            SW_TOKEN_FOUND,    /* there is nothing more to learn of the request's token */
            SW_TOKEN_RECHECKING,
            SW_TOKEN_COMMITTING,
            SW_TOKEN_LINKING, /* the state that it was made of ends */
            SW_TOKEN_MOVING,  /* a session was answered, and becomes a token */
        } phase;
        struct sw_slice text;       /* the token as it came */
        struct sw_slice state;      /* the claims, or of one that we minted its state; compact */
        int64_t end_unix_s;         /* of one that we minted: its absolute end */
        int64_t bound_unix_ms;      /* and since when it is its subject's */
        struct sw_token_work *work; /* what waits: token_priv.h */
        bool linked;                /* it was made of a state elsewhere, which ends now */
        bool link_was;              /* it has ended: the next one is without the link */
        struct sw_store_key link;
        int64_t link_end_unix_s;
    } token;
    /* The sealed state that the request came with (sealed.c). */
    struct {
        struct sw_slice cookie_name;
        bool cookie_present;
        bool valid;   /* it opened: what follows */
        bool old;     /* a newer one was given out a moment ago: it may be read */
        struct sw_sealed seal;
        struct sw_sealed_plain plain;
        struct sw_store_key key;    /* of the note on its id */
        struct sw_sealed_note note; /* as the load found it */
        enum {
            SW_SEALED_DECIDE,
            SW_SEALED_CHECKING, /* whether it was ended meanwhile */
            SW_SEALED_COMMITTING,
            SW_SEALED_MOVING, /* a session: read, then its note, then its guard is written */
            SW_SEALED_MOVING_NOTE,
            SW_SEALED_MOVING_GUARD,
        } phase;
        struct sw_sealed_work *work; /* what waits: sealed_priv.h */
        size_t needs_bytes;          /* of SW_E_SEALED_LARGE, for the log */
        size_t needs_bytes_max;
    } sealed;
    /* A state that comes from another placement (move.c). */
    struct {
        bool session;   /* the session placement answers: it was spilled, or is not moved yet */
        bool active;    /* the client named it at its old place only */
        bool taken;     /* ask->state was read there and is not written at the new one yet */
        bool made;      /* now it is */
        bool beside;    /* the client still names one there, beside that of the new place */
        bool note_gone; /* which is noted as ended already */
        bool reading;   /* a session, after its commit */
        size_t note_at; /* place of that note in the session's commit */
        struct sw_moved what;
        struct sw_slice before; /* the state that was taken, for another try */
    } move;
    struct {
        struct sw_slice cookie_name, service;
        struct sw_store_load *note; /* that is being read; NULL: none */
        uint64_t pin_id, incarnation;
        uint32_t key_id; /* that the pin was made with; another than the active one: made anew */
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

#define SW_TOKEN_STATE_BYTES_MAX 8192u /* for the app, in ASCII; longer: SW_E_TOKEN_LARGE */
#define SW_TOKEN_LINES_BYTES_MAX 4096u /* chosen claims as headers; longer: the same */

/* Who comes? On routes with a `token` section: finds the token, verifies it, asks whether it was
 * ended (denylist by issuer and jti, cut-off of its subject). DONE: ask->token is filled, or there
 * is no token and none is required. MORE: keys are being fetched, or the store waits; wake follows,
 * call it again. FAIL: err (400, 401, 403, 503) and token.challenge. */
SW_MUST enum sw_step sw_place_token(struct sw_ask *ask);

/* ---- phantom tokens (phantom.c) ---------------------------------------------------------------
 */

#define SW_PHANTOMS_MAX      1024u /* that a worker keeps; the next one takes another's place */
#define SW_PHANTOM_BYTES_MAX 1024u /* a longer one is made for each request */
/* A worker's own, about 1.1 MB. NULL: no memory. */
struct sw_phantoms *sw_phantoms_new(void);
void sw_phantoms_free(struct sw_phantoms *p);
/* Has the app of this route such tokens? Then the client's Authorization does not reach it. */
static inline bool sw_place_has_phantom(const struct sw_config_route *route)
{
    return route->placement == SW_PLACE_SESSION && route->session.phantom.on;
}
/* After load: the line "Authorization: Bearer ...\r\n" for the app, in the arena; empty: the state
 * has no subject, or the route no phantoms. SW_E_TOKEN_KEYS, SW_E_MINT_LARGE, SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_place_phantom(struct sw_ask *ask, struct sw_slice *ret_line);

/* Whose state is it? Fills has_key, key, key_text, visitor from the request. Pure. Entities that
 * name no key: SW_E_KEY. Those that a claim names, without it: SW_E_TOKEN_ABSENT (no token) or
 * SW_E_TOKEN_REQUIRED, and token.challenge. For a delivery (ask->alarm) these are given, and
 * stay. */
SW_MUST enum sw_err sw_place_key(struct sw_ask *ask);

/* Does this request change something with a cookie of ours, caused by another site? Pure. */
bool sw_place_cross_site(const struct sw_ask *ask);

/* Names of the cookies that belong to this gateway on that route: never forwarded to the app.
 * Both spellings (with __Host-). Returns the count, at most SW_OWN_COOKIES_MAX. */
#define SW_OWN_COOKIES_MAX  6
#define SW_OWN_COOKIES_TEXT 512 /* three names of 128 bytes, with __Host- */
size_t sw_place_own_cookies(const struct sw_config_route *route,
                            struct sw_slice ret_names[SW_OWN_COOKIES_MAX],
                            char text[SW_OWN_COOKIES_TEXT]);

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
/* What was staged is not wanted: the instance that did it failed, and another one is asked. */
void sw_stage_forget(struct sw_ask *ask);
/* A write that does not wait for the app's answer: one compare-and-set on the state that was handed
 * out (or by the last such write left behind), durable when it is told. What was staged stays so,
 * and is not what conditions and patches look at; alarms, subject and id stay as they are. The ask
 * goes on with what was written, so its own commit meets no conflict by it.
 *
 * DONE: ret_answer is filled, nothing was written. MORE: it is filled when told is called, on the
 * worker's loop; until then ask may not commit nor be dropped, and ret_answer stays.
 * Errors   as of sw_stage; SW_E_STAGE_BUSY: the one before is still on its way; SW_E_STAGE_NEW: a
 *          visitor without a state has no id yet, and only the answer can bring him one;
 *          SW_E_CONFLICT, SW_E_STATE_GONE: somebody was first (SW_E_STAGE_MATCH, when there was an
 *          If-Match); SW_E_COMMIT. */
SW_MUST enum sw_step sw_stage_now(struct sw_ask *ask, const struct sw_stage_ask *in,
                                  struct sw_stage_answer *ret_answer, sw_stage_told_fn *told);

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
/* Who sent the request, as far as somebody believed says so; peer as above. The text of an address;
 * empty: nobody knows. */
struct sw_slice sw_place_client_address(const struct sw_ask *ask, struct sw_slice peer);
/* The record's key: a hash (HMAC-SHA-256 with a public key) of length-prefixed route, kind of
 * principal, principal, key. */
void sw_claim_store_key(const struct sw_config_route *route, struct sw_slice principal,
                        struct sw_slice key, struct sw_store_key *ret_key);
/* A hash (as above) of length-prefixed method, authority, path, query, content type without
 * parameters and in lower case, body. */
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

/* ---- ended before their time (revoke.c) -------------------------------------------------------
 *
 * What a client carries cannot be deleted, so the store keeps a small note of each that was ended,
 * until it would have ended by itself: a tombstone under one of these keys. All that a subject has
 * ends by one cut-off (SW_WRITE_CUTOFF of each of sw_place_subject_names).
 */

/* Tokens go by (issuer, jti), never by their text: signatures of ECDSA can be rewritten. A minted
 * token keeps its jti through its renewals, so one note ends all of them. */
void sw_revoke_token_key(struct sw_slice issuer, struct sw_slice jti, struct sw_store_key *ret_key);
/* Sealed states go by their id, the same through all versions. */
void sw_revoke_sealed_key(const uint8_t id[SW_SEALED_ID_BYTES], struct sw_store_key *ret_key);
/* Pins by theirs. */
void sw_revoke_pin_key(uint64_t pin_id, struct sw_store_key *ret_key);
/* That pins were ended, for the commit of a pin's note: without it nobody looks for the note. */
void sw_revoke_pins_mark(int64_t now_unix_ms, int64_t expires_unix_s, struct sw_write *ret_write);
#define SW_REVOKE_SKEW_MS 60000 /* clocks of two gateways that make pins may differ by this much */
struct sw_pin;
/* May there be a note of this pin? Not, when it was made after the last one was ended. */
bool sw_revoke_pin_asked(const struct sw_place_env *env, const struct sw_pin *pin);
/* The note itself, for a commit. expires_unix_s: when the thing would end by itself. */
void sw_revoke_write(const struct sw_store_key *key, int64_t expires_unix_s,
                     struct sw_write *ret_write);
/* Was a thing of this subject that was issued then cut off? All names of the subject are asked. A
 * time in whole seconds counts as the beginning of its second: who is in doubt is cut off. */
bool sw_revoke_cut_off(const struct sw_place_env *env, struct sw_slice subject,
                       int64_t issued_unix_ms);

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
/* Of the bytes of a pin that nobody looked at: for a command that ends it. */
uint64_t sw_pin_id(const uint8_t bytes[SW_PIN_BYTES]);

/* service: what the pin is bound to (app and cookie name). ok: out has room. */
SW_MUST bool sw_pin_put(struct sw_out *out, const struct sw_keyring *keys, struct sw_slice service,
                        const struct sw_pin *pin);
/* SW_E_PIN_FORGED: not made by this service (or by a key that is gone). SW_E_PIN_EXPIRED: idle or
 * absolute time is up. Wall time: a pin outlives the process that wrote it. */
SW_MUST enum sw_err sw_pin_read(struct sw_slice text, const struct sw_keyring *keys,
                                struct sw_slice service, int64_t now_unix_s, int64_t idle_s,
                                int64_t absolute_s, struct sw_pin *ret_pin);

#endif
