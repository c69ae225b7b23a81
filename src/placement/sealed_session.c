/* placement/sealed_session.c - visitors of a sealed route who have a session: one that was spilled,
 * or that is still to be moved (move.c).
 */
#include "placement/sealed_priv.h"

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
    sw_sealed__op_guard(ask, sw_sealed__op(ask));
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

enum sw_step sw_sealed__session_commit(struct sw_ask *ask)
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
