/* placement/placement.h - where state lives: the three questions every placement answers.
 *
 * Room       One file each: none.c sticky.c session.c; what they share: key.c (whose state),
 *            update.c (what the app's answer asks for), handoff.c (what the app is told), pin.c
 *            (the pin's bytes). Decides; moves no bytes.
 * May touch  app/, store/, http/, crypto/, config/, route/, base/. Not gateway/, not a socket.
 * Flow       gateway/ asks key, load, then pick, then commit. What must wait returns SW_STEP_MORE
 *            and wakes the exchange later.
 */
#ifndef SW_PLACEMENT_H
#define SW_PLACEMENT_H

#include "app/app.h"
#include "base/arena.h"
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
};

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

/* What a placement sees of an exchange; embedded in it, so no arrow points up. */
struct sw_ask {
    /* given by the exchange */
    const struct sw_place_env *env;
    const struct sw_placement *placement;
    const struct sw_routed *routed;
    const struct sw_head *request;
    struct sw_arena *arena;
    int64_t now_unix_s;
    bool secure;                      /* the client came by TLS, or a trusted proxy says so */
    bool trusted;                     /* the peer is a proxy whose X-Forwarded-* are believed */
    bool shared;                      /* runs beside writers, on the committed state */
    void (*wake)(struct sw_ask *ask); /* after SW_STEP_MORE: ask the same question again */
    const struct sw_head *response;   /* for commit */
    struct sw_update update;          /* of the response; read by sw_update_read */
    struct sw_pick tried;             /* instances that failed in this exchange */
    bool tried_lives;                 /* the last of them did so by being busy or slow, not gone */
    bool patience;                    /* pick: the exchange can still wait a little */

    /* answers */
    enum sw_err err;
    enum sw_verdict verdict;     /* so far; the last word is after commit */
    enum sw_verdict app_verdict; /* what the app is told */
    bool has_key;
    struct sw_store_key key;
    struct sw_slice key_text; /* Stateway-Key's value: "room:42"; for visitors their hash */
    char visitor[17];         /* keyed hash for logs and the app; "" when there is none */
    bool state_present;
    struct sw_slice state; /* compact ASCII JSON */
    struct sw_version version;
    struct sw_instance *instance;
    bool worth_waiting;           /* a refused pick may succeed soon: ask again */
    struct sw_slice client_lines; /* "Set-Cookie: ...\r\n" for the client; may be empty */
    bool sets_cookie;
    bool drops_cookie;  /* a refusal that also clears the client's cookie */
    uint64_t commit_ns; /* how long the store took; 0: no commit */

    /* the placement's own while it works */
    struct {
        struct sw_slice cookie_name; /* with __Host- where it applies */
        bool from_cookie, cookie_present, needs_touch, waiting;
        bool new_id;    /* this commit gives the visitor a new id */
        bool had_state; /* before it was read for another try */
        enum { SW_SESSION_DECIDE, SW_SESSION_COMMITTING, SW_SESSION_TOUCHING } phase;
        uint32_t followed; /* aliases, from the cookie's id to the record */
        uint32_t tries;    /* of an update that fits any version */
        size_t mark;       /* arena: what another try needs is below it */
        uint8_t id[32];
        struct sw_record record;
        struct sw_store_load load;
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

/* The table of placements, by enum sw_placement_kind. */
const struct sw_placement *sw_placement_of(enum sw_placement_kind kind);

/* Whose state is it? Fills has_key, key, key_text, visitor from the request. Pure. Entities that
 * name no key: SW_E_KEY. */
SW_MUST enum sw_err sw_place_key(struct sw_ask *ask);

/* Does this request change something with a cookie of ours, caused by another site? Pure. */
bool sw_place_cross_site(const struct sw_ask *ask);

/* Names of the cookies that belong to this gateway on that route: never forwarded to the app.
 * Both spellings (with __Host-). Returns the count, at most SW_OWN_COOKIES_MAX. */
#define SW_OWN_COOKIES_MAX 4
size_t sw_place_own_cookies(const struct sw_config_route *route,
                            struct sw_slice ret_names[SW_OWN_COOKIES_MAX], char text[256]);

/* The lines an instance is told: "Stateway-...: ...\r\n" (the state protocol, 2.1). False: no room.
 */
SW_MUST bool sw_handoff_put(struct sw_out *out, const struct sw_ask *ask, uint64_t deadline_ms);

/* Reads the Stateway headers of an answer. SW_E_UPDATE_*: the answer is replaced by 502. */
SW_MUST enum sw_err sw_update_read(const struct sw_head *response, struct sw_update *ret_update);

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
