/* placement/move.c - a route's placement was changed (`moved-from`): its visitors' states come
 * along, each with the visitor's next request. And states that outgrow their cookie (`oversize:
 * spill`).
 *
 * To a session, from what the client carries. The session's id is a keyed hash of the old state's,
 * so requests side by side have one key: they stand in one line, find one record, and whoever comes
 * second meets the compare-and-set of the first. The same commit notes the old state as ended; who
 * comes once more with the old one, since the answer was lost, is led to that record.
 *
 * To what the client carries. Nobody knows whether an answer arrives until the client comes back,
 * so the old state stands until then. A session takes the update first and stays what counts; the
 * answer carries the same state, sealed or in a token, with a link to the old one inside, and
 * clears the old cookie. Whoever brings the new one back has it for good: that request's commit
 * ends the old one and makes the new one without the link. Ids are keyed hashes here too, so that
 * who moves twice has one state.
 *
 * Subject, since when it is bound, and the absolute end go along. Alarms do not: nobody but the
 * client has the state then.
 *
 * Files: this one what to move and to a session; move_out.c from a session.
 */
#include "placement/sealed_priv.h"
#include "placement/token_priv.h"

void sw_place__move_id(const struct sw_ask *ask, const char *to, const struct sw_store_key *from,
                       uint8_t ret_id[32])
{
    const struct sw_slice parts[] = {sw_slice_cstr(to), SW_S(" "),
                                     sw_slice_of(from->bytes, sizeof(from->bytes))};
    struct sw_mac_key secret;

    /* the oldest key, which stays when another is promoted: both of two requests have it */
    sw_hkdf(sw_place__oldest_key(ask->env->keys)->secret, SW_S("stateway moved state 1"),
            secret.bytes);
    sw_hmac_sha256(&secret, parts, SW_COUNTOF(parts), ret_id);
    explicit_bzero(&secret, sizeof(secret));
}

/* ---- what the client still carries ----------------------------------------------------------- */

static void sealed_what(struct sw_ask *ask)
{
    ask->move.what = (struct sw_moved){
        .state = ask->sealed.plain.state,
        .subject = ask->sealed.plain.subject,
        .bound_unix_ms = ask->sealed.plain.bound_unix_ms,
        .end_unix_s = ask->sealed.seal.expires_unix_s,
        .key = ask->sealed.key,
        .key_end_unix_s = ask->sealed.seal.expires_unix_s + SW_SEALED_SKEW_S,
    };
}

/* One of our own. Also one that was ended: it may be what moved a moment ago. */
static bool token_what(struct sw_ask *ask)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    const struct sw_claims *c = &ask->token.claims;

    if (!t->on || t->keyset != SW_KEYSETS_MAX || c->jti.len == 0 ||
        (!ask->token.valid && ask->token.ignored != SW_E_TOKEN_REVOKED)) {
        return false;
    }
    ask->move.what = (struct sw_moved){
        .state = ask->token.state,
        .subject = c->sub,
        .bound_unix_ms = c->sub.len > 0 ? SW_MAX(ask->token.bound_unix_ms, 1) : 0,
        .end_unix_s = ask->token.end_unix_s,
        .key_end_unix_s = sw_token__last_copy_unix_s(ask),
    };
    sw_revoke_token_key(c->iss, c->jti, &ask->move.what.key);
    return true;
}

static enum sw_err find_old(struct sw_ask *ask, bool *ret_there)
{
    enum sw_err err = SW_OK;

    *ret_there = false;
    switch (ask->routed->route->moved_from) {
    case SW_PLACE_SEALED:
        err = sw_place__sealed_open(ask);
        *ret_there = err == SW_OK && ask->sealed.valid;
        if (*ret_there) {
            sealed_what(ask);
        }
        break;
    case SW_PLACE_TOKEN:
        *ret_there = token_what(ask);
        break;
    case SW_PLACE_NONE:
    case SW_PLACE_STICKY:
    case SW_PLACE_SESSION:
    case SW_PLACE_COUNT:
        break;
    }
    return err;
}

static void visitor_is(struct sw_ask *ask, const struct sw_store_key *key)
{
    sw_place__visitor(ask, key);
    sw_place__visitor_key_text(ask);
}

static void session_id_is(struct sw_ask *ask, const uint8_t id[32])
{
    memcpy(ask->session.id, id, sizeof(ask->session.id));
    memcpy(ask->session.at_id, id, sizeof(ask->session.at_id));
    ask->session.has_at_id = true;
    ask->has_key = true;
    sw_sha256(sw_slice_of(ask->session.id, sizeof(ask->session.id)), ask->key.bytes);
    visitor_is(ask, &ask->key);
}

/* Of a session route: the key may be that of what is still at its old place. */
static void key_of_session(struct sw_ask *ask)
{
    uint8_t id[32];

    if (ask->has_key) {
        ask->move.beside = true;
        visitor_is(ask, &ask->key);
        return;
    }
    ask->move.active = true;
    sw_place__move_id(ask, "session", &ask->move.what.key, id);
    session_id_is(ask, id);
}

/* Of a sealed route: the token is seen as the sealed state that it will be. */
static void key_of_sealed(struct sw_ask *ask)
{
    const struct sw_moved *what = &ask->move.what;

    if (ask->sealed.valid || !ask->token.valid) {
        ask->move.beside = ask->sealed.valid;
        return;
    }
    ask->move.active = true;
    sw_place__moved_seal(ask, what, &ask->sealed.seal, &ask->sealed.plain);
    sw_revoke_sealed_key(ask->sealed.seal.id, &ask->sealed.key);
    ask->sealed.valid = true;
    visitor_is(ask, &ask->sealed.key);
}

enum sw_err sw_place__move_key(struct sw_ask *ask)
{
    bool there;
    enum sw_err err = find_old(ask, &there);

    if (err != SW_OK || !there) {
        return err;
    }
    switch (ask->routed->route->placement) {
    case SW_PLACE_SESSION:
        key_of_session(ask);
        break;
    case SW_PLACE_SEALED:
        key_of_sealed(ask);
        break;
    case SW_PLACE_TOKEN:
        ask->move.active = !ask->token.valid;
        ask->move.beside = ask->token.valid;
        break;
    case SW_PLACE_NONE:
    case SW_PLACE_STICKY:
    case SW_PLACE_COUNT:
        break;
    }
    return SW_OK;
}

void sw_place__moved_seal(const struct sw_ask *ask, const struct sw_moved *what,
                          struct sw_sealed *ret_seal, struct sw_sealed_plain *ret_plain)
{
    int64_t end = ask->now_unix_s + ask->routed->route->sealed.absolute_s;

    *ret_seal = (struct sw_sealed){
        .issued_unix_s = ask->now_unix_s,
        .expires_unix_s = what->end_unix_s > 0 ? SW_MIN(end, what->end_unix_s) : end,
    };
    sw_place__move_id(ask, "sealed", &what->key, ret_seal->id);
    *ret_plain = (struct sw_sealed_plain){
        .counter = 1,
        .linked = true,
        .link = what->key,
        .link_end_unix_s = what->key_end_unix_s,
        .subject = what->subject,
        .bound_unix_ms = what->subject.len > 0 ? SW_MAX(what->bound_unix_ms, 1) : 0,
        .state = what->state,
    };
}

/* ---- to a session ---------------------------------------------------------------------------- */

/* The state as the session that it will be. */
static void take(struct sw_ask *ask)
{
    const struct sw_moved *what = &ask->move.what;
    int64_t absolute_s = ask->routed->route->session.absolute_s;

    ask->session.record = (struct sw_record){
        .kind = SW_RECORD_STATE,
        /* so that it ends when it would have ended, or earlier where the route says so */
        .created_unix_s = SW_MAX(SW_MIN(ask->now_unix_s, what->end_unix_s - absolute_s), 1),
        .touched_unix_s = ask->now_unix_s,
        .subject = what->subject,
        .bound_unix_ms = what->bound_unix_ms,
        .value = what->state,
    };
    ask->move.taken = true;
    ask->session.needs_touch = false;
}

static enum sw_step load_token(struct sw_ask *ask)
{
    ask->state_present = ask->token.valid;
    ask->state = ask->token.valid ? ask->move.what.state : (struct sw_slice){NULL, 0};
    ask->verdict = ask->app_verdict = SW_VERDICT_REVOKED; /* it had moved, and what it was ended */
    if (ask->token.valid) {
        ask->version = sw_token__version(ask->token.claims.jti, ask->state);
    }
    return SW_STEP_DONE;
}

static enum sw_step load_sealed(struct sw_ask *ask)
{
    enum sw_step step;

    if (sw_sealed__work(ask) == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    if (sw_sealed__note_read(ask) == SW_STEP_MORE) {
        return SW_STEP_MORE;
    }
    step = sw_place__sealed_judge(ask);
    return step == SW_STEP_DONE && ask->sealed.old
               ? sw_place__fail(ask, SW_E_SEALED_OLD) /* what is not the newest does not move */
               : step;
}

enum sw_step sw_place__move_load(struct sw_ask *ask)
{
    enum sw_step step;

    SW_ASSERT(ask->move.active);
    ask->move.taken = false;
    step = ask->routed->route->moved_from == SW_PLACE_TOKEN ? load_token(ask) : load_sealed(ask);
    if (step == SW_STEP_DONE && ask->state_present) {
        take(ask);
        ask->verdict = ask->app_verdict = SW_VERDICT_MOVED;
    }
    return step;
}

enum sw_err sw_place__move_spill(struct sw_ask *ask)
{
    uint8_t id[32];

    ask->session.cookie_name = sw_place__cookie_name(ask, &ask->routed->route->session.cookie);
    if (ask->session.cookie_name.ptr == NULL) {
        return SW_E_NO_MEMORY;
    }
    ask->session.cookie_present = sw_cookie_find(ask->request, ask->session.cookie_name).count > 0;
    ask->session.from_cookie = true;
    ask->session.phase = SW_SESSION_DECIDE;
    if (ask->state_present) {
        if (!ask->move.active) { /* else it is a token that has never been sealed */
            sealed_what(ask);
        }
        sw_random(id, sizeof(id));
        session_id_is(ask, id);
        take(ask);
    }
    ask->move.active = true;
    ask->move.session = true;
    return SW_OK;
}

/* ---- the end of what was --------------------------------------------------------------------- */

/* A visitor logs out of a session that may have been given to him already as what he carries. */
static bool ends_copy(const struct sw_ask *ask)
{
    return ask->move.session && ask->routed->route->moved_from == SW_PLACE_SESSION &&
           !ask->move.active;
}

bool sw_place__move_writes(const struct sw_ask *ask)
{
    return ask->move.taken || (ask->update.kind == SW_UPDATE_DELETE && !ask->move.note_gone &&
                               (ask->move.beside || ends_copy(ask)));
}

void sw_place__move_write(struct sw_ask *ask, struct sw_write *w)
{
    const struct sw_config_route *route = ask->routed->route;
    const struct sw_moved *what = &ask->move.what;

    if (!ask->move.taken && ends_copy(ask)) {
        sw_place__moved_note(ask, &ask->key, w);
        return;
    }
    sw_revoke_write(&what->key, what->key_end_unix_s, w);
    if (ask->move.taken && ask->sealed.valid && route->sealed.replay_guard &&
        memcmp(&what->key, &ask->sealed.key, sizeof(what->key)) == 0) {
        w->expect = SW_EXPECT_VERSION; /* nobody was given a newer one meanwhile */
        w->version = ask->sealed.note.version;
    }
}

void sw_place__moved_note(const struct sw_ask *ask, const struct sw_store_key *from,
                          struct sw_write *w)
{
    const struct sw_config_route *route = ask->routed->route;
    char text[SW_MOVED_JTI_CHARS];
    struct sw_store_key key;
    int64_t life_s = route->sealed.absolute_s + SW_SEALED_SKEW_S;
    uint8_t id[32];

    if (route->placement == SW_PLACE_TOKEN) {
        sw_revoke_token_key(route->token.issuer, sw_place__moved_jti(ask, from, text), &key);
        life_s = SW_MINT_LIFE_S_MAX + SW_SKEW_S_MAX;
    } else {
        sw_place__move_id(ask, "sealed", from, id);
        sw_revoke_sealed_key(id, &key);
    }
    sw_revoke_write(&key, ask->now_unix_s + life_s, w);
}

struct sw_slice sw_place__moved_jti(const struct sw_ask *ask, const struct sw_store_key *from,
                                    char text[SW_MOVED_JTI_CHARS])
{
    struct sw_out out = sw_out_init(text, SW_MOVED_JTI_CHARS);
    uint8_t id[32];

    sw_place__move_id(ask, "token", from, id);
    sw_b64url_put(&out, id, 16);
    SW_ASSERT(!out.overflowed);
    return sw_out_done(&out);
}

void sw_place__move_made(struct sw_ask *ask)
{
    ask->move.made = ask->move.made || ask->move.taken;
    ask->move.taken = false;
}

/* ---- cookies --------------------------------------------------------------------------------- */

enum sw_err sw_place__move_clear(struct sw_ask *ask, enum sw_placement_kind kind)
{
    const struct sw_config_route *route = ask->routed->route;

    switch (kind) {
    case SW_PLACE_SEALED:
        return ask->sealed.cookie_present
                   ? sw_place__set_cookie(ask, &route->sealed.cookie, ask->sealed.cookie_name,
                                          SW_S(""), 0)
                   : SW_OK;
    case SW_PLACE_TOKEN:
        return ask->token.cookie_present ? sw_place__set_cookie(ask, &route->token.cookie,
                                                                ask->token.cookie_name, SW_S(""), 0)
                                         : SW_OK;
    case SW_PLACE_SESSION:
        return ask->session.cookie_present
                   ? sw_place__set_cookie(ask, &route->session.cookie, ask->session.cookie_name,
                                          SW_S(""), 0)
                   : SW_OK;
    case SW_PLACE_NONE:
    case SW_PLACE_STICKY:
    case SW_PLACE_COUNT:
        return SW_OK;
    }
    SW_UNREACHABLE();
}

enum sw_step sw_place__move_settle(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    char text[SW_B64_LEN(sizeof(ask->session.id))];
    struct sw_out out = sw_out_init(text, sizeof(text));
    enum sw_err err = SW_OK;

    if (ask->move.taken) {
        return SW_STEP_DONE; /* the app failed: it stays where it is */
    }
    if (ask->move.active && ask->state_present && ask->verdict != SW_VERDICT_REVOKED &&
        !ask->session.new_id) {
        sw_b64url_put(&out, ask->session.id, sizeof(ask->session.id));
        err = sw_place__set_cookie(ask, &route->session.cookie, ask->session.cookie_name,
                                   sw_out_done(&out), -1);
    }
    if (err == SW_OK &&
        (route->placement == SW_PLACE_SEALED || route->moved_from == SW_PLACE_SEALED)) {
        err = sw_place__move_clear(ask, SW_PLACE_SEALED);
    }
    if (err == SW_OK && route->moved_from == SW_PLACE_TOKEN) {
        err = sw_place__move_clear(ask, SW_PLACE_TOKEN);
    }
    return err == SW_OK ? SW_STEP_DONE : sw_place__fail(ask, err);
}
