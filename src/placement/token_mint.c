/* placement/token_mint.c - the commit on routes that mint: what the answer asks for, as a new
 * token.
 *
 *   a change of the state     a token of the same jti
 *   Renew, another subject    a token of a new jti; the old one is ended in the store before the
 *                             answer leaves
 *   Delete                    no token; the old one is ended likewise
 *   nothing                   when the token is older than `renew`: the same once more, with new
 *                             times
 *
 * Logout wins. A token is ended by its jti, which its renewals keep: a copy that a slower request
 * made is dead from the beginning. A slower request learns it here: it asks the store again before
 * it makes one, and one that wants a new jti writes the end of the old one, which is refused when
 * somebody was first. So no request makes a living token from one that was ended.
 */
#include "placement/token_priv.h"

#include "base/json.h"

static enum sw_step minted(struct sw_ask *ask)
{
    struct sw_token_work *w = ask->token.work;

    ask->client_lines = w->lines;
    ask->sets_cookie = true; /* or a header that is as private */
    memcpy(ask->visitor, w->visitor, sizeof(ask->visitor));
    if (!w->renews_only) {
        ask->verdict = ask->move.taken && ask->update.kind == SW_UPDATE_NONE ? SW_VERDICT_MOVED
                                                                             : SW_VERDICT_UPDATED;
        ask->version = w->version;
    }
    sw_place__move_made(ask);
    return SW_STEP_DONE;
}

/* Nothing is minted. What the client brought and will never be good again is cleared. */
static enum sw_step clear(struct sw_ask *ask)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    enum sw_err err;

    if (t->mint.deliver != SW_DELIVER_COOKIE || !ask->token.cookie_present) {
        return SW_STEP_DONE;
    }
    err = sw_place__set_cookie(ask, &t->cookie, ask->token.cookie_name, SW_S(""), 0);
    return err == SW_OK ? SW_STEP_DONE : sw_place__fail(ask, err);
}

static enum sw_step unchanged(struct sw_ask *ask)
{
    return ask->token.ignored != SW_OK ? clear(ask) : SW_STEP_DONE;
}

/* ---- the store ------------------------------------------------------------------------------- */

static void on_committed(struct sw_store_commit *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

/* The last copy of it can have been made now, by a gateway with another `life`. */
int64_t sw_token__last_copy_unix_s(const struct sw_ask *ask)
{
    return SW_MIN(ask->token.end_unix_s, ask->now_unix_s + SW_MINT_LIFE_S_MAX) + SW_SKEW_S_MAX;
}

/* The token that came is ended, durably, before the answer leaves. */
static enum sw_step end_old(struct sw_ask *ask)
{
    bool ends = ask->update.kind == SW_UPDATE_DELETE;
    struct sw_token_work *w = ask->token.work;
    struct sw_store_commit *op = sw_arena_new(ask->arena, struct sw_store_commit);
    struct sw_store_key key;

    if (op == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    *op = (struct sw_store_commit){
        .now_unix_s = ask->now_unix_s,
        .loop = ask->env->loop,
        .done = on_committed,
        .arg = ask,
    };
    if (ask->token.valid) {
        sw_revoke_token_key(ask->token.claims.iss, ask->token.claims.jti, &key);
        sw_revoke_write(&key, sw_token__last_copy_unix_s(ask), &op->writes[op->count++]);
    }
    if (ends && ask->move.taken) { /* and the token that a request beside this one may have made */
        sw_place__moved_note(ask, &ask->move.what.key, &op->writes[op->count++]);
    }
    if (ends && (ask->move.taken || (ask->move.beside && !ask->move.note_gone))) {
        sw_revoke_write(&ask->move.what.key, ask->move.what.key_end_unix_s,
                        &op->writes[op->count++]);
    }
    w->join_at = SW_COMMIT_WRITES_MAX;
    SW_ASSERT(op->count > 0);
    if (ask->join != NULL) {
        w->join_at = op->count;
        op->writes[op->count++] = *ask->join;
        ask->joined = true;
    }
    w->commit = op;
    ask->token.phase = SW_TOKEN_COMMITTING;
    sw_store_commit(ask->env->store, op);
    return SW_STEP_MORE;
}

/* What was ended already: the others are still to be. False: there are none. */
static bool end_others(struct sw_ask *ask)
{
    struct sw_token_work *w = ask->token.work;
    struct sw_store_commit *op = w->commit;
    size_t at = op->failed;

    op->count--;
    memmove(&op->writes[at], &op->writes[at + 1], (op->count - at) * sizeof(op->writes[0]));
    if (w->join_at < SW_COMMIT_WRITES_MAX) {
        w->join_at--; /* it is the last */
    }
    if (op->count == 0 || w->join_at == 0) {
        return false;
    }
    sw_store_commit(ask->env->store, op);
    return true;
}

static enum sw_step end_answered(struct sw_ask *ask)
{
    const struct sw_token_work *w = ask->token.work;
    const struct sw_store_commit *op = w->commit;
    bool refused = op->err == SW_E_CONFLICT || op->err == SW_E_STATE_GONE;
    bool ends = ask->update.kind == SW_UPDATE_DELETE;

    ask->commit_ns = op->done_ns > op->queued_ns ? op->done_ns - op->queued_ns : 1;
    if (op->err == SW_OK) {
        ask->verdict = SW_VERDICT_REVOKED;
        if (ends) {
            sw_place__move_made(ask); /* what is ended does not stay where it was */
        }
        return ends ? clear(ask) : minted(ask);
    }
    if (refused && ask->joined && op->failed == w->join_at) {
        ask->joined = false;
        return sw_place__fail(ask, SW_E_IDEM_RUNNING);
    }
    if (ends && op->err == SW_E_STATE_GONE && end_others(ask)) {
        return SW_STEP_MORE;
    }
    ask->joined = false;
    if (!refused) {
        return sw_place__fail(ask, SW_E_COMMIT);
    }
    ask->verdict = SW_VERDICT_REVOKED;
    return ends ? clear(ask) : sw_place__fail(ask, SW_E_STATE_GONE); /* somebody was first */
}

/* ---- a new token ----------------------------------------------------------------------------- */

/* RFC 7396 in memory of its own: the tables of a merge may not fit the arena. */
static enum sw_err merge(struct sw_ask *ask, struct sw_slice patch, struct sw_out *out)
{
    size_t members = 0, bytes;
    struct sw_arena scratch;
    enum sw_err err;
    char *block;

    for (size_t i = 0; i < patch.len; i++) {
        members += patch.ptr[i] == ':';
    }
    bytes = 32 * SW_MIN(members, (size_t)SW_JSON_OPEN_MAX) + 64 * (SW_JSON_DEPTH_MAX + 1);
    block = sw_ask_large(ask, bytes);
    if (block == NULL) {
        return SW_E_LARGE_FULL;
    }
    sw_arena_init(&scratch, block, bytes);
    err = sw_json_merge(ask->state_present ? ask->state : (struct sw_slice){NULL, 0}, patch, out,
                        &scratch);
    sw_place__large_give(ask, block);
    return err == SW_E_LIMIT ? SW_E_MINT_LARGE : err;
}

static enum sw_err state_made(struct sw_ask *ask, struct sw_slice *ret_state)
{
    const struct sw_update *u = &ask->update;
    size_t mark = sw_arena_mark(ask->arena);
    struct sw_out out;
    enum sw_err err = SW_OK;
    char *room;

    if (u->kind == SW_UPDATE_NONE) {
        *ret_state = ask->state_present ? ask->state : SW_S("{}");
        return SW_OK;
    }
    room = sw_arena_bytes(ask->arena, SW_TOKEN_STATE_BYTES_MAX);
    if (room == NULL) {
        return SW_E_NO_MEMORY;
    }
    out = sw_out_init(room, SW_TOKEN_STATE_BYTES_MAX);
    if (u->kind == SW_UPDATE_PATCH) {
        err = merge(ask, u->value, &out);
    } else if (!sw_json_compact(u->value, &out)) {
        err = SW_E_MINT_LARGE;
    }
    sw_arena_reset(ask->arena, err == SW_OK ? mark + out.len : mark);
    *ret_state = sw_out_done(&out);
    return err;
}

/* It was asked once more whether the token that came stands: it may have been ended while the app
 * worked. */
static enum sw_step rechecked(struct sw_ask *ask)
{
    struct sw_token_work *w = ask->token.work;
    enum sw_err err = sw_token__ended(ask);
    struct sw_slice state = ask->state;

    if (err == SW_OK &&
        sw_revoke_cut_off(ask->env, ask->token.claims.sub, ask->token.bound_unix_ms)) {
        err = SW_E_TOKEN_REVOKED;
    }
    if (w->renews_only) { /* nobody asked for it */
        if (err == SW_OK && sw_token__build(ask, state, false) == SW_OK) {
            return minted(ask);
        }
        return SW_STEP_DONE;
    }
    if (err == SW_E_TOKEN_REVOKED) {
        ask->verdict = SW_VERDICT_REVOKED;
        err = SW_E_STATE_GONE;
    }
    if (err == SW_OK) {
        err = state_made(ask, &state);
    }
    if (err == SW_OK) {
        err = sw_token__build(ask, state, false);
    }
    return err == SW_OK ? minted(ask) : sw_place__fail(ask, err);
}

static enum sw_step mint_same(struct sw_ask *ask, bool renews_only)
{
    ask->token.work->renews_only = renews_only;
    ask->token.phase = SW_TOKEN_RECHECKING;
    return sw_token__ask_ended(ask) == SW_STEP_MORE ? SW_STEP_MORE : rechecked(ask);
}

static enum sw_step mint_fresh(struct sw_ask *ask)
{
    struct sw_slice state;
    enum sw_err err = state_made(ask, &state);

    if (err == SW_OK) {
        err = sw_token__build(ask, state, true);
    }
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    return ask->token.valid ? end_old(ask) : minted(ask);
}

/* Is it time for a new one, and would it live any longer? */
static bool renewal_due(const struct sw_ask *ask)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    const struct sw_claims *c = &ask->token.claims;

    return ask->token.valid && ask->now_unix_s >= c->iat_unix_s + t->mint.renew_s &&
           SW_MIN(ask->now_unix_s + t->mint.life_s, ask->token.end_unix_s) > c->exp_unix_s;
}

/* ---- the decision ---------------------------------------------------------------------------- */

static bool asks_for_something(const struct sw_update *u)
{
    return u->kind != SW_UPDATE_NONE || u->renew || u->has_subject || u->alarm_count > 0 ||
           u->ttl_s >= 0;
}

static bool subject_changes(const struct sw_ask *ask)
{
    struct sw_slice old = ask->token.valid ? ask->token.claims.sub : (struct sw_slice){NULL, 0};

    return ask->update.has_subject && !sw_slice_eq(ask->update.subject, old);
}

static enum sw_err check_update(const struct sw_ask *ask)
{
    const struct sw_update *u = &ask->update;
    struct sw_version none = {0, 0};

    if (!ask->routed->route->token.mint.on) {
        return asks_for_something(u) ? SW_E_UPDATE_READONLY : SW_OK;
    }
    if (u->alarm_count > 0) {
        return SW_E_UPDATE_ALARM; /* nobody but the client has the state */
    }
    for (size_t i = 0; i < u->subject.len; i++) {
        if (u->subject.ptr[i] < 0x20 || u->subject.ptr[i] > 0x7e) {
            return SW_E_UPDATE_ASCII; /* it must come back as it was said */
        }
    }
    if (u->has_expect && !sw_version_eq(u->expect, ask->state_present ? ask->version : none)) {
        return SW_E_CONFLICT;
    }
    return SW_OK;
}

static enum sw_step decide(struct sw_ask *ask)
{
    const struct sw_update *u = &ask->update;
    enum sw_err err = sw_place__update(ask);
    bool renews;

    ask->joined = false;
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    if (!sw_place__commits(ask)) {
        return SW_STEP_DONE; /* the app failed: its half-done update is not wanted */
    }
    err = check_update(ask);
    if (err != SW_OK) {
        ask->verdict = err == SW_E_CONFLICT ? SW_VERDICT_CONFLICTED : ask->verdict;
        return sw_place__fail(ask, err);
    }
    if (!ask->routed->route->token.mint.on) {
        return SW_STEP_DONE;
    }
    if (sw_token__work(ask) == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop); /* the app may have taken its time */
    if (ask->token.valid && ask->token.linked) {
        return sw_token__end_link(ask);
    }
    if (u->kind == SW_UPDATE_DELETE) {
        return ask->token.valid || ask->move.taken ? end_old(ask) : clear(ask);
    }
    renews = subject_changes(ask) || (u->renew && ask->token.valid);
    if (renews || ask->move.taken || (u->kind != SW_UPDATE_NONE && !ask->token.valid)) {
        return mint_fresh(ask);
    }
    if (u->kind != SW_UPDATE_NONE) {
        return mint_same(ask, false);
    }
    return renewal_due(ask) || ask->token.link_was ? mint_same(ask, true) : unchanged(ask);
}

static enum sw_step token_step(struct sw_ask *ask)
{
    enum sw_err err;

    switch (ask->token.phase) {
    case SW_TOKEN_FIND: /* the route has no `token` section to be looked at before */
    case SW_TOKEN_FOUND:
        return decide(ask);
    case SW_TOKEN_RECHECKING:
        return rechecked(ask);
    case SW_TOKEN_COMMITTING:
        return end_answered(ask);
    case SW_TOKEN_LINKING:
        err = sw_token__link_ended(ask);
        ask->token.phase = SW_TOKEN_FOUND;
        return err == SW_OK ? decide(ask) : sw_place__fail(ask, err);
    case SW_TOKEN_FETCHING:
    case SW_TOKEN_ASKING:
    case SW_TOKEN_MOVING:
        break;
    }
    SW_UNREACHABLE();
}

enum sw_step sw_token__commit(struct sw_ask *ask)
{
    enum sw_step step;
    enum sw_err err;

    if (ask->move.session) {
        return sw_token__session_commit(ask);
    }
    step = token_step(ask);
    if (step != SW_STEP_DONE || ask->move.taken) {
        return step; /* taken: the app failed, and the state stays where it is */
    }
    err = sw_place__move_clear(ask, ask->routed->route->moved_from);
    return err == SW_OK ? step : sw_place__fail(ask, err);
}
