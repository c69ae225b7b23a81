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

static enum sw_step sealed_refuse_old(struct sw_ask *ask)
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
    return err == SW_OK ? sealed_refuse_old(ask) : sw_place__fail(ask, err);
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
            return sealed_refuse_old(ask);
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

/* ---- the next version ------------------------------------------------------------------------ */

static bool subject_changes(const struct sw_ask *ask)
{
    struct sw_slice old =
        ask->state_present ? ask->sealed.plain.subject : (struct sw_slice){NULL, 0};

    return ask->update.has_subject &&
           !sw_place__same_subject(ask->env->keys, ask->update.subject, old);
}

static enum sw_err next_state(struct sw_ask *ask, struct sw_slice *ret_state)
{
    const struct sw_update *u = &ask->update;
    struct sw_slice base = ask->state_present ? ask->state : (struct sw_slice){NULL, 0};

    if (u->kind == SW_UPDATE_PATCH) {
        return sw_place__merge(ask, base, u->value, false, ret_state);
    }
    if (u->kind == SW_UPDATE_SET && !ask->session.value_ready) {
        return sw_place__compact(ask, u->value, false, ret_state);
    }
    *ret_state = u->kind == SW_UPDATE_SET ? u->value : base;
    return SW_OK;
}

static void next_subject(const struct sw_ask *ask, struct sw_sealed_plain *p)
{
    if (ask->state_present) {
        p->subject = ask->sealed.plain.subject;
        p->bound_unix_ms = ask->sealed.plain.bound_unix_ms;
    }
    if (subject_changes(ask)) {
        p->subject = ask->update.subject;
        p->bound_unix_ms = p->subject.len > 0 ? sw_loop_now_unix_ms(ask->env->loop) : 0;
    }
}

static int64_t next_end(const struct sw_ask *ask, bool changes)
{
    if (changes) {
        return ask->update.ttl_s >= 0 ? ask->now_unix_s + ask->update.ttl_s : 0;
    }
    return ask->sealed.plain.end_unix_s;
}

/* Seals what the answer makes of the state. changes: else it is only sent again. */
static enum sw_err sealed_next(struct sw_ask *ask, bool changes)
{
    const struct sw_config_route *route = ask->routed->route;
    struct sw_sealed_work *work = ask->sealed.work;
    struct sw_sealed_plain *p = &work->plain;
    enum sw_err err;

    work->changes = changes;
    work->new_id = !ask->state_present || (changes && (ask->update.renew || subject_changes(ask)));
    *p = (struct sw_sealed_plain){.counter = 1, .end_unix_s = next_end(ask, changes)};
    if (work->new_id) {
        sw_random(work->seal.id, sizeof(work->seal.id));
        work->seal.expires_unix_s = ask->now_unix_s + route->sealed.absolute_s;
    } else {
        work->seal = ask->sealed.seal;
        /* With a guard each one that is sent counts: else one that was only sent again could arrive
         * after a newer one, and its visitor had an older one for good. */
        p->counter = ask->sealed.plain.counter + (changes || route->sealed.replay_guard ? 1 : 0);
    }
    if (ask->move
            .taken) { /* the client has it when it brings it back; until then the token stands */
        p->linked = true;
        p->link = ask->move.what.key;
        p->link_end_unix_s = ask->move.what.key_end_unix_s;
    }
    work->seal.issued_unix_s = ask->now_unix_s;
    sw_revoke_sealed_key(work->seal.id, &work->key);
    next_subject(ask, p);
    err = next_state(ask, &p->state);
    if (err == SW_OK) {
        work->version = sw_sealed__version(&work->key, p);
        err = sw_sealed__lines(ask, &work->seal, p, &work->lines);
    }
    return err;
}

/* ---- the commit ------------------------------------------------------------------------------ */

static void on_committed(struct sw_store_commit *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

static struct sw_store_commit *sealed_op(struct sw_ask *ask)
{
    struct sw_sealed_work *work = ask->sealed.work;

    work->note_at = work->link_at = work->join_at = SW_COMMIT_WRITES_MAX;
    work->commit = (struct sw_store_commit){
        .now_unix_s = ask->now_unix_s,
        .loop = ask->env->loop,
        .done = on_committed,
        .arg = ask,
    };
    return &work->commit;
}

static enum sw_step sealed_submit(struct sw_ask *ask)
{
    struct sw_sealed_work *work = ask->sealed.work;
    struct sw_store_commit *op = &work->commit;

    SW_ASSERT(op->count > 0);
    if (ask->join != NULL) {
        SW_ASSERT(op->count < SW_COMMIT_WRITES_MAX);
        work->join_at = op->count;
        op->writes[op->count++] = *ask->join;
        ask->joined = true;
    }
    ask->sealed.phase = SW_SEALED_COMMITTING;
    sw_store_commit(ask->env->store, op);
    return SW_STEP_MORE;
}

/* A clock that runs behind ours takes a cookie a little longer than it lives. */
static int64_t note_end(int64_t expires_unix_s)
{
    return expires_unix_s + SW_SEALED_SKEW_S;
}

/* The state that this one was made of ends, now that the client has brought this one back. */
static void op_link(struct sw_ask *ask, struct sw_store_commit *op)
{
    struct sw_sealed_work *work = ask->sealed.work;
    bool is_back = !ask->move.taken || ask->update.kind == SW_UPDATE_DELETE;

    if (ask->state_present && ask->sealed.plain.linked && is_back && !work->link_gone) {
        work->link_at = op->count;
        sw_revoke_write(&ask->sealed.plain.link, ask->sealed.plain.link_end_unix_s,
                        &op->writes[op->count++]);
    }
}

static struct sw_write *op_note(struct sw_ask *ask, struct sw_store_commit *op)
{
    struct sw_write *w = &op->writes[op->count];

    ask->sealed.work->note_at = op->count++;
    *w = (struct sw_write){
        .kind = SW_WRITE_PUT,
        .key = ask->sealed.key,
        .expect = SW_EXPECT_VERSION,
        .version = ask->sealed.note.version,
        .expires_unix_s = note_end(ask->sealed.seal.expires_unix_s),
        .absolute_unix_s = note_end(ask->sealed.seal.expires_unix_s),
    };
    return w;
}

/* The counter of what is given out; of an id that is new, or that there was. */
static void op_guard(struct sw_ask *ask, struct sw_store_commit *op)
{
    struct sw_sealed_work *work = ask->sealed.work;
    struct sw_out out = sw_out_init(work->counter, sizeof(work->counter));
    struct sw_write *w;

    sw_out_u64(&out, work->plain.counter);
    if (work->new_id) {
        w = &op->writes[op->count++];
        *w = (struct sw_write){
            .kind = SW_WRITE_PUT,
            .key = work->key,
            .expect = SW_EXPECT_VERSION,
            .expires_unix_s = note_end(work->seal.expires_unix_s),
            .absolute_unix_s = note_end(work->seal.expires_unix_s),
        };
    } else {
        w = op_note(ask, op);
    }
    w->record = SW_RECORD_STATE;
    w->value = sw_out_done(&out);
}

/* The id before leads to this one, and is no other way to the state. */
static void op_renewed(struct sw_ask *ask, struct sw_store_commit *op)
{
    struct sw_write *w = op_note(ask, op);

    w->record = SW_RECORD_ALIAS;
    w->value = sw_slice_of(ask->sealed.work->key.bytes, sizeof(ask->sealed.work->key.bytes));
}

static enum sw_step sealed_done(struct sw_ask *ask)
{
    const struct sw_sealed_work *work = ask->sealed.work;

    ask->client_lines = work->lines;
    ask->sets_cookie = true;
    if (work->new_id) {
        sw_place__visitor(ask, &work->key);
    }
    if (work->changes) {
        ask->verdict = SW_VERDICT_UPDATED;
    }
    sw_place__move_made(ask);
    ask->version = work->version;
    return SW_STEP_DONE;
}

/* What was read for this request is not what stands now. A cookie that was only to be sent again is
 * not; an update was not made. */
static enum sw_step sealed_conflict(struct sw_ask *ask, enum sw_err err)
{
    ask->joined = false;
    if (!ask->sealed.work->changes) {
        return SW_STEP_DONE;
    }
    if (err == SW_E_CONFLICT) {
        return sealed_refuse_old(ask);
    }
    ask->verdict = SW_VERDICT_REVOKED;
    return sw_place__fail(ask, SW_E_STATE_GONE);
}

/* The note was read again: what was ended while the app worked is not sealed anew. */
static enum sw_step sealed_checked(struct sw_ask *ask)
{
    if (ask->sealed.note.err != SW_OK) {
        return sw_place__fail(ask, ask->sealed.note.err);
    }
    switch (sw_sealed__standing(ask)) {
    case SW_SEALED_NEWEST:
        return sealed_done(ask);
    case SW_SEALED_OLDER:
    case SW_SEALED_TOO_OLD:
        return sealed_conflict(ask, SW_E_CONFLICT);
    case SW_SEALED_ENDED:
        return sealed_conflict(ask, SW_E_STATE_GONE);
    }
    SW_UNREACHABLE();
}

static enum sw_step sealed_spill(struct sw_ask *ask);

static enum sw_step sealed_write(struct sw_ask *ask, bool changes)
{
    bool guard = ask->routed->route->sealed.replay_guard;
    struct sw_sealed_work *work = sw_sealed__work(ask);
    struct sw_store_commit *op;
    enum sw_err err;

    if (work == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    if (work->arena_mark > 0) { /* once more: what was made for the first try */
        sw_arena_reset(ask->arena, work->arena_mark);
    }
    work->arena_mark = sw_arena_mark(ask->arena);
    err = sealed_next(ask, changes);
    if (err == SW_E_SEALED_LARGE && !changes) {
        return SW_STEP_DONE; /* the client's other cookies grew: this one stands as it is */
    }
    if ((err == SW_E_SEALED_LARGE || err == SW_E_UPDATE_LARGE) &&
        ask->routed->route->sealed.oversize == SW_OVERSIZE_SPILL) {
        return sealed_spill(ask);
    }
    if (err != SW_OK) {
        return sw_place__fail(ask, err == SW_E_UPDATE_LARGE ? SW_E_SEALED_LARGE : err);
    }
    if (ask->state_present &&
        sw_revoke_cut_off(ask->env, ask->sealed.plain.subject, ask->sealed.plain.bound_unix_ms)) {
        return sealed_conflict(ask, SW_E_STATE_GONE);
    }
    op = sealed_op(ask);
    if (work->new_id && ask->state_present) {
        op_renewed(ask, op);
    }
    if (guard) {
        op_guard(ask, op);
    }
    op_link(ask, op);
    if (op->count > 0) {
        return sealed_submit(ask);
    }
    if (!ask->state_present) {
        return sealed_done(ask); /* nobody knows its id but us */
    }
    ask->sealed.phase = SW_SEALED_CHECKING;
    return sw_sealed__note_read(ask) == SW_STEP_MORE ? SW_STEP_MORE : sealed_checked(ask);
}

/* ---- delete ---------------------------------------------------------------------------------- */

/* And out of what he still names at the old place: else he would come back with that. */
static void op_beside(struct sw_ask *ask, struct sw_store_commit *op)
{
    const struct sw_moved *what = &ask->move.what;

    ask->move.note_at = SW_COMMIT_WRITES_MAX;
    if (!ask->move.beside || ask->move.note_gone ||
        (ask->sealed.work->link_at < SW_COMMIT_WRITES_MAX &&
         memcmp(&what->key, &ask->sealed.plain.link, sizeof(what->key)) == 0)) {
        return;
    }
    ask->move.note_at = op->count;
    sw_revoke_write(&what->key, what->key_end_unix_s, &op->writes[op->count++]);
}

/* Logout wins: whatever version the client brought, and also by an id that was just renewed. */
static enum sw_step sealed_delete(struct sw_ask *ask)
{
    const struct sw_sealed_note *note = &ask->sealed.note;
    struct sw_sealed_work *work = ask->sealed.work;
    int64_t end = note_end(ask->sealed.seal.expires_unix_s);
    struct sw_store_commit *op;

    if (!ask->state_present) {
        return SW_STEP_DONE;
    }
    SW_ASSERT(work != NULL);
    if (ask->env->store == NULL) {
        return sw_place__fail(ask, SW_E_COMMIT); /* what cannot be noted does not end */
    }
    op = sealed_op(ask);
    work->changes = true;
    work->note_at = op->count;
    sw_revoke_write(&ask->sealed.key, end, &op->writes[op->count++]);
    if (note->kind == SW_NOTE_RENEWED) {
        end = SW_MAX(end, note_end(ask->now_unix_s + ask->routed->route->sealed.absolute_s));
        sw_revoke_write(&note->last_key, end, &op->writes[op->count++]);
    }
    op_link(ask, op);
    op_beside(ask, op);
    return sealed_submit(ask);
}

static enum sw_step sealed_deleted(struct sw_ask *ask)
{
    ask->state_present = false; /* its cookie goes too */
    ask->verdict = SW_VERDICT_REVOKED;
    return SW_STEP_DONE;
}

/* ---- spill ----------------------------------------------------------------------------------- */

/* As large as this it lives in the store from now on: the session placement makes the update, of
 * this state, under an id of its own; its commit ends the sealed one (move.c). */
static enum sw_step sealed_spill(struct sw_ask *ask)
{
    enum sw_err err = sw_place__move_spill(ask);

    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    ask->sealed.phase = SW_SEALED_DECIDE;
    return sw_placement__session.commit(ask);
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
    if (ask->state_present && (ask->update.renew || subject_changes(ask))) {
        return ask->sealed.old ? sealed_refuse_old(ask) : sealed_write(ask, true);
    }
    return ask->state_present && !ask->sealed.old && wants_touch(ask) ? sealed_write(ask, false)
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
        return sealed_delete(ask);
    case SW_UPDATE_SET:
    case SW_UPDATE_PATCH:
        return ask->sealed.old ? sealed_refuse_old(ask) : sealed_write(ask, true);
    case SW_UPDATE_NONE:
        return sealed_unchanged(ask);
    }
    SW_UNREACHABLE();
}

/* The store has answered. */
static enum sw_step sealed_answered(struct sw_ask *ask)
{
    struct sw_sealed_work *work = ask->sealed.work;
    const struct sw_store_commit *op = &work->commit;
    bool deletes = ask->update.kind == SW_UPDATE_DELETE;

    ask->commit_ns = op->done_ns > op->queued_ns ? op->done_ns - op->queued_ns : 1;
    if (op->err == SW_OK) {
        return deletes ? sealed_deleted(ask) : sealed_done(ask);
    }
    if (op->err != SW_E_CONFLICT && op->err != SW_E_STATE_GONE) {
        return sw_place__fail(ask, SW_E_COMMIT);
    }
    ask->joined = false;
    if (op->failed == work->join_at) {
        return sw_place__fail(ask, SW_E_IDEM_RUNNING);
    }
    if (op->failed == work->link_at) { /* a request beside this one was first */
        work->link_gone = true;
        return deletes ? sealed_delete(ask) : sealed_write(ask, work->changes);
    }
    if (deletes && op->failed == ask->move.note_at) {
        ask->move.note_gone = true;
        return sealed_delete(ask);
    }
    return deletes ? sealed_deleted(ask) : sealed_conflict(ask, op->err);
}

static enum sw_step sealed_step(struct sw_ask *ask)
{
    switch (ask->sealed.phase) {
    case SW_SEALED_DECIDE:
        return sealed_decide(ask);
    case SW_SEALED_CHECKING:
        return sw_sealed__note_read(ask) == SW_STEP_MORE ? SW_STEP_MORE : sealed_checked(ask);
    case SW_SEALED_COMMITTING:
        return sealed_answered(ask);
    case SW_SEALED_MOVING:
    case SW_SEALED_MOVING_NOTE:
    case SW_SEALED_MOVING_GUARD:
        break; /* of a session */
    }
    SW_UNREACHABLE();
}

/* ---- sessions -------------------------------------------------------------------------------- */

/* The sealed state goes out, and the session's cookie with it; until the client brings it back the
 * session is what counts (move.c). */
static enum sw_step moved_out(struct sw_ask *ask)
{
    ask->client_lines = ask->sealed.work->lines;
    ask->sets_cookie = true;
    if (ask->verdict == SW_VERDICT_KEPT) {
        ask->verdict = SW_VERDICT_MOVED;
    }
    return SW_STEP_DONE;
}

/* Both lines. Whatever is wrong with them, the session goes on as one. */
static enum sw_err move_lines(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    struct sw_sealed_work *work = ask->sealed.work;
    struct sw_slice before = ask->client_lines;
    enum sw_err err;

    ask->client_lines = (struct sw_slice){NULL, 0}; /* a new id of the session is not given out */
    err = sw_sealed__lines(ask, &work->seal, &work->plain, &ask->client_lines);
    if (err == SW_OK) {
        err = sw_place__cookie_lines(ask, &route->session.cookie, ask->session.cookie_name,
                                     SW_S(""), 0, &work->lines);
    }
    ask->client_lines = before;
    return err;
}

static enum sw_step move_noted(struct sw_ask *ask)
{
    const struct sw_sealed_note *note = &ask->sealed.note;
    struct sw_sealed_work *work = ask->sealed.work;

    if (note->err != SW_OK) {
        return SW_STEP_DONE;
    }
    work->new_id = note->kind == SW_NOTE_ENDED || note->kind == SW_NOTE_RENEWED;
    if (work->new_id) { /* that id is over; the session is not */
        sw_random(work->seal.id, sizeof(work->seal.id));
        sw_revoke_sealed_key(work->seal.id, &work->key);
    } else if (note->kind == SW_NOTE_COUNTER) {
        work->plain.counter = note->counter + 1;
    }
    if (move_lines(ask) != SW_OK) {
        return SW_STEP_DONE;
    }
    if (!ask->routed->route->sealed.replay_guard) {
        return moved_out(ask);
    }
    ask->sealed.seal = work->seal;
    op_guard(ask, sealed_op(ask));
    ask->sealed.phase = SW_SEALED_MOVING_GUARD;
    sw_store_commit(ask->env->store, &work->commit);
    return SW_STEP_MORE;
}

static enum sw_step move_note(struct sw_ask *ask)
{
    ask->sealed.phase = SW_SEALED_MOVING_NOTE;
    return sw_sealed__note_read(ask) == SW_STEP_MORE ? SW_STEP_MORE : move_noted(ask);
}

static enum sw_step move_session(struct sw_ask *ask)
{
    struct sw_sealed_work *work = sw_sealed__work(ask);

    ask->sealed.phase = SW_SEALED_MOVING;
    if (work == NULL || sw_place__move_out(ask) == SW_STEP_MORE) {
        return work == NULL ? SW_STEP_DONE : SW_STEP_MORE;
    }
    if (!sw_place__moved_out(ask)) {
        return SW_STEP_DONE;
    }
    sw_place__moved_seal(ask, &ask->move.what, &work->seal, &work->plain);
    sw_revoke_sealed_key(work->seal.id, &work->key);
    ask->sealed.key = work->key;
    return move_note(ask);
}

static enum sw_step session_step(struct sw_ask *ask)
{
    enum sw_step step;

    switch (ask->sealed.phase) {
    case SW_SEALED_DECIDE:
    case SW_SEALED_CHECKING:
    case SW_SEALED_COMMITTING:
        step = sw_placement__session.commit(ask);
        return step == SW_STEP_DONE && ask->routed->route->moved_from == SW_PLACE_SESSION &&
                       !ask->move.active
                   ? move_session(ask)
                   : step;
    case SW_SEALED_MOVING:
        return move_session(ask);
    case SW_SEALED_MOVING_NOTE:
        return move_note(ask);
    case SW_SEALED_MOVING_GUARD: /* refused: a request beside this one did it */
        return ask->sealed.work->commit.err == SW_OK ? moved_out(ask) : SW_STEP_DONE;
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
        return session_step(ask);
    }
    step = sealed_step(ask);
    return step == SW_STEP_DONE && !ask->move.session ? sealed_settle(ask) : step;
}

const struct sw_placement sw_placement__sealed = {"sealed", sealed_load, sealed_pick,
                                                  sealed_commit};
