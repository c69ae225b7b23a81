/* placement/sealed_commit.c - the next version of a sealed state, or its end: sealed, noted, given
 * out.
 */
#include "placement/sealed_priv.h"

/* ---- the next version ------------------------------------------------------------------------ */

bool sw_sealed__subject_changes(const struct sw_ask *ask)
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
    if (sw_sealed__subject_changes(ask)) {
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
    work->new_id =
        !ask->state_present || (changes && (ask->update.renew || sw_sealed__subject_changes(ask)));
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

struct sw_store_commit *sw_sealed__op(struct sw_ask *ask)
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
void sw_sealed__op_guard(struct sw_ask *ask, struct sw_store_commit *op)
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
        return sw_sealed__refuse_old(ask);
    }
    ask->verdict = SW_VERDICT_REVOKED;
    return sw_place__fail(ask, SW_E_STATE_GONE);
}

/* The note was read again: what was ended while the app worked is not sealed anew. */
enum sw_step sw_sealed__checked(struct sw_ask *ask)
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

enum sw_step sw_sealed__write(struct sw_ask *ask, bool changes)
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
    op = sw_sealed__op(ask);
    if (work->new_id && ask->state_present) {
        op_renewed(ask, op);
    }
    if (guard) {
        sw_sealed__op_guard(ask, op);
    }
    op_link(ask, op);
    if (op->count > 0) {
        return sealed_submit(ask);
    }
    if (!ask->state_present) {
        return sealed_done(ask); /* nobody knows its id but us */
    }
    ask->sealed.phase = SW_SEALED_CHECKING;
    return sw_sealed__note_read(ask) == SW_STEP_MORE ? SW_STEP_MORE : sw_sealed__checked(ask);
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
enum sw_step sw_sealed__delete(struct sw_ask *ask)
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
    op = sw_sealed__op(ask);
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

/* The store has answered. */
enum sw_step sw_sealed__answered(struct sw_ask *ask)
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
        return deletes ? sw_sealed__delete(ask) : sw_sealed__write(ask, work->changes);
    }
    if (deletes && op->failed == ask->move.note_at) {
        ask->move.note_gone = true;
        return sw_sealed__delete(ask);
    }
    return deletes ? sealed_deleted(ask) : sealed_conflict(ask, op->err);
}
