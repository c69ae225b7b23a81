/* placement/session.c - state: session. The store holds the state; any instance may answer.
 *
 * load    session_load.c
 * pick    any instance.
 * commit  one compare-and-set against the version that was handed out, durable before the first
 *         byte of the answer leaves. Update-if-exists: an ended state stays ended (logout wins). A
 *         state is created at its first write, so visitors without state cost nothing.
 *
 * An end, a patch under `merge` and anything under `last` fit a newer version too: they are tried
 * again on that, wherever it lies by then (a renewal moves it). So that nobody loses such a race
 * for ever, they stand in the key's line from the first try to the commit, one after another, and
 * who waited there begins with the newest state.
 *
 * One commit writes all that belongs together: the state with its alarms and its expiry, the alias
 * of a renewed id, and what the exchange joins to it.
 */
#include "placement/session_priv.h"

#define TRIES_MAX 64 /* of an update that fits any version, in its turn */

_Static_assert(SW_COMMIT_WRITES_MAX >= 4,
               "a state, the alias that leads to it, the end of what it was, and what is joined");

static enum sw_step session_pick(struct sw_ask *ask)
{
    return sw_place__pick_any(ask, false);
}

/* ---- the commit ------------------------------------------------------------------------------ */

static void session_commit_done(struct sw_store_commit *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

static struct sw_store_commit *session_op(struct sw_ask *ask)
{
    struct sw_store_commit *op = ask->session.commit;

    if (op == NULL) {
        op = sw_arena_new(ask->arena, struct sw_store_commit);
        if (op == NULL) {
            return NULL;
        }
        ask->session.commit = op;
        ask->session.mark = sw_arena_mark(ask->arena);
        ask->session.large_mark = ask->large;
    }
    *op = (struct sw_store_commit){
        .now_unix_s = ask->now_unix_s,
        .loop = ask->env->loop,
        .done = session_commit_done,
        .arg = ask,
    };
    return op;
}

static enum sw_step session_submit(struct sw_ask *ask, struct sw_store_commit *op)
{
    ask->move.note_at = SW_COMMIT_WRITES_MAX;
    if (ask->session.phase == SW_SESSION_COMMITTING && sw_place__move_writes(ask)) {
        ask->move.note_at = op->count;
        sw_place__move_write(ask, &op->writes[op->count++]);
    }
    if (ask->join != NULL && ask->session.phase == SW_SESSION_COMMITTING) {
        SW_ASSERT(op->count < SW_COMMIT_WRITES_MAX);
        ask->session.join_at = op->count;
        op->writes[op->count++] = *ask->join;
        ask->joined = true;
    }
    SW_ASSERT(op->count > 0);
    SW_ASSERT(op->count <= SW_COMMIT_WRITES_MAX);
    sw_store_commit(ask->env->store, op);
    return SW_STEP_MORE;
}

/* All of the commit. The state's value is here, if it is needed. */
static enum sw_step session_write(struct sw_ask *ask)
{
    struct sw_store_commit *op = ask->session.commit;
    enum sw_err err = sw_session__put_state(ask, &op->writes[0]);

    op->count = 1;
    if (err == SW_OK && ask->session.new_id && ask->state_present) {
        err = sw_session__put_alias(ask, &op->writes[0], &op->writes[1]);
        op->count = 2;
    }
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    ask->session.phase = SW_SESSION_COMMITTING;
    return session_submit(ask, op);
}

static enum sw_step session_conflict(struct sw_ask *ask, enum sw_err err);

/* The value of a state above inline was read, to be written again with a change. */
static enum sw_step session_fetched(struct sw_ask *ask)
{
    const struct sw_reading *r = &ask->session.reading;

    if (r->err == SW_E_NOT_FOUND && r->unreadable) { /* found out only now: what was handed out as
                                                        a state is none */
        ask->verdict = SW_VERDICT_EXPIRED;
        return sw_place__fail(ask, SW_E_STATE_GONE);
    }
    if (r->err == SW_E_NOT_FOUND) {
        return session_conflict(ask, SW_E_CONFLICT);
    }
    if (r->err != SW_OK) {
        return r->err == SW_E_CONFLICT ? session_conflict(ask, r->err)
                                       : sw_place__fail(ask, r->err);
    }
    if (r->record.kind == SW_RECORD_TOMBSTONE) {
        return session_conflict(ask, SW_E_STATE_GONE);
    }
    if (!sw_version_eq(r->record.version, ask->version)) {
        return session_conflict(ask, SW_E_CONFLICT);
    }
    ask->session.whole.present = true;
    ask->session.whole.late = true;
    ask->session.whole.version = r->record.version;
    ask->session.whole.value = r->record.value;
    return session_write(ask);
}

/* Is the committed value needed, and not here? */
static bool must_fetch(const struct sw_ask *ask)
{
    return ask->state_present && ask->state.ptr == NULL &&
           (ask->update.kind == SW_UPDATE_PATCH || ask->update.kind == SW_UPDATE_NONE) &&
           !(ask->session.whole.present && sw_version_eq(ask->session.whole.version, ask->version));
}

static bool fits_any_version(const struct sw_ask *ask);

/* Would it be tried again after a conflict? Then it waits its turn instead. An overwriting one
 * meets none; one that makes a visitor's first state has a key that nobody else knows. */
static bool takes_turns(const struct sw_ask *ask)
{
    enum sw_concurrency c = ask->routed->route->session.concurrency;

    return (c == SW_CONC_MERGE || c == SW_CONC_LAST) && ask->line != NULL && ask->has_key &&
           fits_any_version(ask) && !sw_session__overwrites(ask) &&
           !(ask->session.from_cookie && !ask->state_present);
}

static enum sw_step session_put(struct sw_ask *ask)
{
    if (session_op(ask) == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    ask->session.new_id = sw_session__takes_new_id(ask);
    if (takes_turns(ask) && ask->line(ask) == SW_STEP_MORE) {
        ask->session.phase = SW_SESSION_LINING;
        return SW_STEP_MORE;
    }
    if (!must_fetch(ask)) {
        return session_write(ask);
    }
    sw_place__read_begin(&ask->session.reading, &ask->key,
                         ask->session.has_at_id ? ask->session.at_id : NULL, SW_READING_WHOLE,
                         ask->state.len);
    ask->session.phase = SW_SESSION_FETCHING;
    return sw_place__read(ask, &ask->session.reading) == SW_STEP_MORE ? SW_STEP_MORE
                                                                      : session_fetched(ask);
}

/* ---- delete, touch --------------------------------------------------------------------------- */

static enum sw_step session_delete(struct sw_ask *ask)
{
    struct sw_store_commit *op;
    enum sw_err err = sw_session__only_cancels(ask);

    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    if (!ask->state_present && !ask->session.unreadable) {
        return sw_session__clear_cookie(ask);
    }
    op = session_op(ask);
    if (op == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    op->writes[op->count++] = (struct sw_write){
        .kind = SW_WRITE_DELETE,
        .key = ask->key,
        /* logout wins over whoever writes meanwhile, without another try */
        .expect = ask->move.taken          ? SW_EXPECT_ANY
                  : ask->update.has_expect ? SW_EXPECT_VERSION
                                           : SW_EXPECT_EXISTS,
        .version = ask->session.record.version,
        /* a visitor's id is dead for good; an entity may be made again at once, with a new epoch */
        .expires_unix_s = visitors_own(ask) ? sw_session__absolute_end(ask) : ask->now_unix_s - 1,
    };
    if (sw_session__may_clear_cookie(ask)) {
        err = sw_place__cookie_lines(ask, &ask->routed->route->session.cookie,
                                     ask->session.cookie_name, SW_S(""), 0, &ask->session.lines);
    }
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    ask->session.phase = SW_SESSION_COMMITTING;
    return session_submit(ask, op);
}

/* Nobody waits for a touch to succeed: it only keeps an idle clock. */
static enum sw_step session_touch(struct sw_ask *ask)
{
    struct sw_store_commit *op = session_op(ask);

    if (op == NULL) {
        return SW_STEP_DONE;
    }
    op->writes[op->count++] = (struct sw_write){
        .kind = SW_WRITE_TOUCH,
        .key = ask->key,
        .expect = SW_EXPECT_EXISTS,
        .expires_unix_s = sw_session__idle_end(ask, ask->session.record.absolute_unix_s),
        .absolute_unix_s = ask->session.record.absolute_unix_s,
    };
    ask->session.phase = SW_SESSION_TOUCHING;
    return session_submit(ask, op);
}

/* ---- the decision ---------------------------------------------------------------------------- */

static enum sw_step session_unchanged(struct sw_ask *ask)
{
    const struct sw_update *u = &ask->update;
    bool renews = u->renew && ask->session.from_cookie;

    if (u->alarm_count > 0 || ask->alarm != NULL || ask->move.taken ||
        (ask->state_present && (renews || sw_session__subject_changes(ask)))) {
        return session_put(ask);
    }
    return ask->session.needs_touch ? session_touch(ask) : SW_STEP_DONE;
}

static enum sw_step session_decide(struct sw_ask *ask)
{
    enum sw_err err = sw_place__update(ask);
    const struct sw_update *u = &ask->update;

    ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop); /* the app may have taken its time */
    ask->joined = false;
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    if (!sw_place__commits(ask)) {
        return SW_STEP_DONE; /* the app failed: its half-done update is not wanted */
    }
    if (u->has_expect && !sw_version_eq(u->expect, sw_session__version(ask))) {
        ask->verdict = SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, SW_E_CONFLICT);
    }
    if (u->alarm_count > 0 && ask->routed->route->session.alarm.len == 0) {
        return sw_place__fail(ask, SW_E_UPDATE_ALARM);
    }
    if (ask->alarm != NULL && !ask->state_present) { /* a delivery makes no state */
        return sw_place__fail(ask, SW_E_STATE_GONE);
    }
    switch (u->kind) {
    case SW_UPDATE_DELETE:
        return session_delete(ask);
    case SW_UPDATE_SET:
    case SW_UPDATE_PATCH:
        return session_put(ask);
    case SW_UPDATE_NONE:
        return session_unchanged(ask);
    }
    SW_UNREACHABLE();
}

/* ---- afterwards ------------------------------------------------------------------------------ */

static enum sw_step session_committed(struct sw_ask *ask)
{
    const struct sw_write *w = &ask->session.commit->writes[0];
    bool ended = w->kind == SW_WRITE_DELETE;

    sw_place__move_made(ask);
    if (ask->session.new_id || (ended && sw_session__may_clear_cookie(ask))) {
        ask->client_lines = ask->session.lines;
        ask->sets_cookie = true;
    }
    if (ask->session.new_id) {
        sw_place__visitor(ask, &w->key);
    }
    if (ended) {
        ask->verdict = SW_VERDICT_REVOKED;
        return SW_STEP_DONE;
    }
    ask->verdict = ask->move.made && ask->update.kind == SW_UPDATE_NONE ? SW_VERDICT_MOVED
                                                                        : SW_VERDICT_UPDATED;
    ask->version = w->ret_version;
    return SW_STEP_DONE;
}

/* Does the update say the same of a newer version? */
static bool fits_any_version(const struct sw_ask *ask)
{
    const struct sw_update *u = &ask->update;

    if (u->has_expect) {
        return false;
    }
    if (ask->alarm != NULL && u->kind == SW_UPDATE_NONE && u->alarm_count == 0 && !u->has_subject) {
        return true; /* an alarm that was taken is taken out, whatever else was written */
    }
    switch (ask->routed->route->session.concurrency) {
    case SW_CONC_LAST:
        return true;
    case SW_CONC_MERGE:
        return u->kind != SW_UPDATE_SET;
    case SW_CONC_SERIAL:
    case SW_CONC_CAS:
        return u->kind == SW_UPDATE_DELETE; /* logout wins, whatever it meets */
    }
    SW_UNREACHABLE();
}

/* The newest state was read for another try. */
static enum sw_step session_reloaded(struct sw_ask *ask)
{
    if (ask->move.before.ptr != NULL && ask->state_present && !fits_any_version(ask) &&
        !sw_slice_eq(ask->move.before, ask->state)) {
        ask->verdict = SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, SW_E_CONFLICT);
    }
    if (!ask->session.had_state || ask->state_present) {
        ask->move.before = (struct sw_slice){NULL, 0};
        ask->session.phase = SW_SESSION_DECIDE;
        return session_decide(ask);
    }
    ask->verdict = SW_VERDICT_REVOKED; /* it was ended meanwhile, and nothing makes it rise again */
    return ask->update.kind == SW_UPDATE_DELETE ? sw_session__clear_cookie(ask)
                                                : sw_place__fail(ask, SW_E_STATE_GONE);
}

/* The same update on the newest state. */
static enum sw_step session_reload(struct sw_ask *ask)
{
    enum sw_step step;

    sw_arena_reset(ask->arena, ask->session.mark);
    sw_place__large_back(ask, ask->session.large_mark);
    if (ask->session.whole.late) {
        ask->session.whole.present = ask->session.whole.late = false;
    }
    ask->session.had_state = ask->state_present;
    ask->session.phase = SW_SESSION_RELOADING;
    step = sw_session__load(ask);
    return step == SW_STEP_DONE ? session_reloaded(ask) : step;
}

/* Until nobody came in between. */
static enum sw_step session_again(struct sw_ask *ask)
{
    if (++ask->session.tries > TRIES_MAX) {
        ask->verdict = SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, SW_E_CONFLICT);
    }
    return session_reload(ask);
}

static enum sw_step session_conflict(struct sw_ask *ask, enum sw_err err)
{
    if (err == SW_E_CONFLICT && ask->move.taken && !ask->update.has_expect) {
        ask->move.before = ask->state; /* another request brought it over: perhaps no more */
        return session_again(ask);
    }
    if (err == SW_E_CONFLICT && fits_any_version(ask)) {
        return session_again(ask);
    }
    ask->verdict = err == SW_E_STATE_GONE ? SW_VERDICT_REVOKED : SW_VERDICT_CONFLICTED;
    if (err == SW_E_STATE_GONE && ask->update.kind == SW_UPDATE_DELETE) {
        return sw_session__clear_cookie(ask); /* somebody else ended it first: it is ended */
    }
    return sw_place__fail(ask, err);
}

/* The store has answered. */
static enum sw_step session_answered(struct sw_ask *ask)
{
    const struct sw_store_commit *op = ask->session.commit;
    bool refused = op->err == SW_E_CONFLICT || op->err == SW_E_STATE_GONE;

    ask->commit_ns = op->done_ns > op->queued_ns ? op->done_ns - op->queued_ns : 1;
    if (op->err == SW_OK) {
        return session_committed(ask);
    }
    if (!refused) {
        return sw_place__fail(ask, SW_E_COMMIT);
    }
    if (ask->joined && op->failed == ask->session.join_at) {
        ask->joined = false;
        return sw_place__fail(ask, SW_E_IDEM_RUNNING);
    }
    ask->joined = false;
    if (op->failed == ask->move.note_at && !ask->move.taken) {
        ask->move.note_gone = true; /* what was to be ended is ended */
        return session_decide(ask);
    }
    if (op->failed == ask->move.note_at) {
        ask->verdict = op->err == SW_E_STATE_GONE ? SW_VERDICT_REVOKED : SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, op->err);
    }
    return session_conflict(ask, op->err);
}

static enum sw_step session_step(struct sw_ask *ask)
{
    enum sw_step step;

    switch (ask->session.phase) {
    case SW_SESSION_DECIDE:
        return session_decide(ask);
    case SW_SESSION_LINING:
        return session_reload(ask);
    case SW_SESSION_RELOADING:
        step = sw_session__load(ask);
        return step == SW_STEP_DONE ? session_reloaded(ask) : step;
    case SW_SESSION_FETCHING:
        step = sw_place__read(ask, &ask->session.reading);
        return step == SW_STEP_DONE ? session_fetched(ask) : step;
    case SW_SESSION_COMMITTING:
        return session_answered(ask);
    case SW_SESSION_TOUCHING:
        return SW_STEP_DONE;
    }
    SW_UNREACHABLE();
}

static enum sw_step session_commit(struct sw_ask *ask)
{
    enum sw_step step = session_step(ask);

    return step == SW_STEP_DONE ? sw_place__move_settle(ask) : step;
}

const struct sw_placement sw_placement__session = {"session", sw_session__load, session_pick,
                                                   session_commit};
