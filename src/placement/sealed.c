/* placement/sealed.c - state: sealed. The client carries the state, encrypted, in a cookie; any
 * instance may answer.
 *
 * key     opens the cookie. What does not open (changed, of another place, past its time, made by a
 *         key that is gone) is as if it were not there, and the answer takes it away.
 * load    asks the store whether the state was ended (logout, a new id, a cut-off), and with
 *         `replay-guard` whether a newer version was given out: then 409, but for reads of the
 *         first moments (sealed_note.c).
 * commit  seals the next version. It is sent only when something changed, when a tenth of the idle
 *         time has passed, or when the key of the ring that sealed it is not the active one.
 *
 * Without a guard the store is only read, and of two answers side by side the one that arrives last
 * stands. With it, the counter of the newest version is a compare-and-set, durable before the first
 * byte of the answer leaves; what an idempotency key keeps goes along in that commit. A logout is a
 * note in the store, durable likewise: who seals the same id anew looks for it first, and who comes
 * with any of its cookies finds it.
 *
 * What does not fit into a cookie is refused, or with `oversize: spill` becomes a session of this
 * visitor: from then on the session placement answers him.
 */
#include "placement/sealed_priv.h"

#define TOUCH_FRACTION 10

_Static_assert(SW_COMMIT_WRITES_MAX >= 5, "a guard, the note on the id before, the last id's, a "
                                          "link, and what is joined");

/* ---- what the request brought ---------------------------------------------------------------- */

static void sealed_visitor(struct sw_ask *ask, const struct sw_store_key *key)
{
    sw_place__visitor(ask, key);
    sw_place__visitor_key_text(ask);
}

enum sw_err sw_place__sealed_open(struct sw_ask *ask)
{
    struct sw_sealed_place place;
    struct sw_cookie_found found;
    struct sw_slice text;
    enum sw_err err;

    ask->sealed.cookie_name = sw_place__cookie_name(ask, &ask->routed->route->sealed.cookie);
    if (ask->sealed.cookie_name.ptr == NULL) {
        return SW_E_NO_MEMORY;
    }
    found = sw_cookie_find(ask->request, ask->sealed.cookie_name);
    ask->sealed.cookie_present = found.count > 0;
    if (found.count == 0) {
        return SW_OK;
    }
    place = sw_sealed__place(ask);
    err = sw_sealed_open(found.value, ask->env->keys, &place, ask->now_unix_s, ask->arena,
                         &ask->sealed.seal, &text);
    if (err == SW_OK) {
        err = sw_sealed__plain_read(text, &ask->sealed.plain);
    }
    ask->sealed.valid = err == SW_OK;
    if (ask->sealed.valid) {
        sw_revoke_sealed_key(ask->sealed.seal.id, &ask->sealed.key);
        sealed_visitor(ask, &ask->sealed.key);
    }
    return err == SW_E_NO_MEMORY ? err : SW_OK;
}

/* A visitor without a sealed state may have a session: one that was spilled, or that was his before
 * the route became this one. */
static bool may_have_session(const struct sw_config_route *route)
{
    return route->sealed.oversize == SW_OVERSIZE_SPILL || route->moved_from == SW_PLACE_SESSION;
}

enum sw_err sw_place__sealed_key(struct sw_ask *ask)
{
    enum sw_err err = sw_place__sealed_open(ask);

    if (err == SW_OK && ask->sealed.valid && ask->routed->route->moved_from == SW_PLACE_SESSION) {
        err = sw_place__session_beside(ask);
    }
    if (err == SW_OK && ask->routed->route->moved_from == SW_PLACE_TOKEN) {
        err = sw_place__move_key(ask);
    }
    if (err == SW_OK && !ask->sealed.valid && may_have_session(ask->routed->route)) {
        err = sw_place__visitor_key(ask);
        ask->move.session = err == SW_OK && ask->has_key;
    }
    return err;
}

static bool idle(const struct sw_ask *ask)
{
    int64_t idle_end = ask->sealed.seal.issued_unix_s + ask->routed->route->sealed.idle_s;
    int64_t end = ask->sealed.plain.end_unix_s;

    return ask->now_unix_s >= idle_end || (end > 0 && ask->now_unix_s >= end);
}

static enum sw_step sealed_absent(struct sw_ask *ask, enum sw_verdict verdict)
{
    ask->state_present = false;
    ask->state = (struct sw_slice){NULL, 0};
    ask->verdict = ask->app_verdict = verdict;
    return SW_STEP_DONE;
}

static enum sw_step sealed_found(struct sw_ask *ask)
{
    ask->state_present = true;
    ask->state = ask->sealed.plain.state;
    ask->version = sw_sealed__version(&ask->sealed.key, &ask->sealed.plain);
    ask->verdict = ask->app_verdict = SW_VERDICT_KEPT;
    return SW_STEP_DONE;
}

static enum sw_err clear_cookie(struct sw_ask *ask)
{
    return sw_place__set_cookie(ask, &ask->routed->route->sealed.cookie, ask->sealed.cookie_name,
                                SW_S(""), 0);
}

enum sw_step sw_sealed__refuse_old(struct sw_ask *ask)
{
    ask->verdict = SW_VERDICT_CONFLICTED;
    return sw_place__fail(ask, SW_E_SEALED_OLD);
}

/* A cookie that stays old is no use to anybody: without an end it would lock its visitor out, one
 * whose answer was lost on the way among them. */
static enum sw_step sealed_too_old(struct sw_ask *ask)
{
    enum sw_err err = clear_cookie(ask);

    ask->drops_cookie = err == SW_OK;
    return err == SW_OK ? sw_sealed__refuse_old(ask) : sw_place__fail(ask, err);
}

enum sw_step sw_place__sealed_judge(struct sw_ask *ask)
{
    bool safe = sw_method_safe(ask->request->method, ask->request->method_name);

    ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop);
    if (ask->sealed.note.err != SW_OK) {
        return sw_place__fail(ask, ask->sealed.note.err);
    }
    switch (sw_sealed__standing(ask)) {
    case SW_SEALED_ENDED:
        return sealed_absent(ask, SW_VERDICT_REVOKED);
    case SW_SEALED_TOO_OLD:
        return sealed_too_old(ask);
    case SW_SEALED_OLDER:
        if (!safe) {
            return sw_sealed__refuse_old(ask);
        }
        ask->sealed.old = true;
        break;
    case SW_SEALED_NEWEST:
        break;
    }
    return idle(ask) ? sealed_absent(ask, SW_VERDICT_EXPIRED) : sealed_found(ask);
}

/* What he has sealed is over. A cookie that was spilled may have been set again by a slower answer:
 * then the session beside it is what he has. */
static enum sw_step sealed_or_spilled(struct sw_ask *ask)
{
    enum sw_err err = SW_OK;

    if (ask->routed->route->sealed.oversize == SW_OVERSIZE_SPILL) {
        err = sw_place__visitor_key(ask);
    }
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    ask->move.session = ask->has_key;
    return ask->has_key ? sw_placement__session.load(ask) : SW_STEP_DONE;
}

static enum sw_step sealed_load(struct sw_ask *ask)
{
    enum sw_step step;

    if (ask->move.session) {
        return sw_placement__session.load(ask);
    }
    if (!ask->sealed.valid) {
        return sealed_absent(ask,
                             ask->sealed.cookie_present ? SW_VERDICT_EXPIRED : SW_VERDICT_FRESH);
    }
    if (sw_sealed__work(ask) == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    if (sw_sealed__note_read(ask) == SW_STEP_MORE) {
        return SW_STEP_MORE;
    }
    if (ask->move.active) { /* a token that moves, perhaps once more: its answer was lost */
        ask->sealed.plain.counter = SW_MAX(ask->sealed.note.counter, 1u);
    }
    step = sw_place__sealed_judge(ask);
    if (step == SW_STEP_DONE && ask->move.active && ask->state_present) {
        ask->move.taken = true;
        ask->verdict = ask->app_verdict = SW_VERDICT_MOVED;
    }
    return step == SW_STEP_DONE && !ask->state_present ? sealed_or_spilled(ask) : step;
}

static enum sw_step sealed_pick(struct sw_ask *ask)
{
    return sw_place__pick_any(ask, false);
}

/* ---- the decision ---------------------------------------------------------------------------- */

static bool wants_touch(const struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    const struct sw_sealed *seal = &ask->sealed.seal;

    return ask->now_unix_s - seal->issued_unix_s >=
               SW_MAX(route->sealed.idle_s / TOUCH_FRACTION, 1) ||
           seal->key_id != ask->env->keys->keys[ask->env->keys->active].id ||
           ask->sealed.plain.linked;
}

static enum sw_step sealed_unchanged(struct sw_ask *ask)
{
    if (ask->state_present && (ask->update.renew || sw_sealed__subject_changes(ask))) {
        return ask->sealed.old ? sw_sealed__refuse_old(ask) : sw_sealed__write(ask, true);
    }
    return ask->state_present && !ask->sealed.old && wants_touch(ask) ? sw_sealed__write(ask, false)
                                                                      : SW_STEP_DONE;
}

static enum sw_step sealed_decide(struct sw_ask *ask)
{
    const struct sw_update *u = &ask->update;
    enum sw_err err = sw_place__update(ask);

    ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop); /* the app may have taken its time */
    ask->joined = false;
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    if (!sw_place__commits(ask)) {
        return SW_STEP_DONE;
    }
    if (u->has_expect &&
        !sw_version_eq(u->expect, ask->state_present ? ask->version : (struct sw_version){0, 0})) {
        ask->verdict = SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, SW_E_CONFLICT);
    }
    if (u->alarm_count > 0) {
        return sw_place__fail(ask, SW_E_UPDATE_ALARM); /* nobody but the client has the state */
    }
    switch (u->kind) {
    case SW_UPDATE_DELETE:
        return sw_sealed__delete(ask);
    case SW_UPDATE_SET:
    case SW_UPDATE_PATCH:
        return ask->sealed.old ? sw_sealed__refuse_old(ask) : sw_sealed__write(ask, true);
    case SW_UPDATE_NONE:
        return sealed_unchanged(ask);
    }
    SW_UNREACHABLE();
}

static enum sw_step sealed_step(struct sw_ask *ask)
{
    switch (ask->sealed.phase) {
    case SW_SEALED_DECIDE:
        return sealed_decide(ask);
    case SW_SEALED_CHECKING:
        return sw_sealed__note_read(ask) == SW_STEP_MORE ? SW_STEP_MORE : sw_sealed__checked(ask);
    case SW_SEALED_COMMITTING:
        return sw_sealed__answered(ask);
    case SW_SEALED_MOVING:
    case SW_SEALED_MOVING_NOTE:
    case SW_SEALED_MOVING_GUARD:
        break; /* of a session */
    }
    SW_UNREACHABLE();
}

/* ---- the end --------------------------------------------------------------------------------- */

/* Whatever the answer made of it: a cookie that names no state is taken away. */
static enum sw_step sealed_settle(struct sw_ask *ask)
{
    enum sw_err err = SW_OK;

    bool ended = ask->verdict == SW_VERDICT_REVOKED && ask->update.kind == SW_UPDATE_DELETE;

    if (!ask->state_present && ask->sealed.cookie_present && !ask->sets_cookie) {
        err = clear_cookie(ask);
    }
    if (err == SW_OK && (ask->move.made || ended || (ask->move.beside && ask->state_present))) {
        err = sw_place__move_clear(ask, ask->routed->route->moved_from);
    }
    return err == SW_OK ? SW_STEP_DONE : sw_place__fail(ask, err);
}

static enum sw_step sealed_commit(struct sw_ask *ask)
{
    enum sw_step step;

    if (ask->move.session) {
        return sw_sealed__session_commit(ask);
    }
    step = sealed_step(ask);
    return step == SW_STEP_DONE && !ask->move.session ? sealed_settle(ask) : step;
}

const struct sw_placement sw_placement__sealed = {"sealed", sealed_load, sealed_pick,
                                                  sealed_commit};
