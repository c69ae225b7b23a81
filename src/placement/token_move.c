/* placement/token_move.c - routes that mint, whose visitors had sessions or sealed states (move.c).
 *
 * The token carries a link to the old state: "link", the key of the session or of the note that
 * ends the sealed state, base64url, and "link-end", until when that note is needed. The first
 * request that brings it back ends the old state, and then the token is made anew without the link.
 */
#include "placement/token_priv.h"

enum sw_err sw_token__key(struct sw_ask *ask)
{
    enum sw_err err;

    if (!ask->routed->route->token.mint.on) {
        return SW_OK;
    }
    if (ask->routed->route->moved_from != SW_PLACE_SESSION) {
        return sw_place__move_key(ask);
    }
    if (ask->token.valid) {
        return sw_place__session_beside(ask);
    }
    err = sw_place__visitor_key(ask);
    ask->move.session = err == SW_OK && ask->has_key;
    return err;
}

/* A session has been answered, and now goes out as a token. */
static enum sw_step moved(struct sw_ask *ask)
{
    struct sw_slice before = ask->client_lines;
    enum sw_err err;

    if (!sw_place__moved_out(ask) || sw_token__work(ask) == NULL) {
        return SW_STEP_DONE;
    }
    ask->client_lines = (struct sw_slice){NULL, 0}; /* a new id of the session is not given out */
    err = sw_token__build(ask, ask->move.what.state, true);
    if (err != SW_OK) {
        ask->client_lines = before; /* what fits into no token stays a session */
        return SW_STEP_DONE;
    }
    ask->client_lines = ask->token.work->lines;
    ask->sets_cookie = true;
    err = sw_place__move_clear(ask, SW_PLACE_SESSION);
    if (ask->verdict == SW_VERDICT_KEPT) {
        ask->verdict = SW_VERDICT_MOVED;
    }
    return err == SW_OK ? SW_STEP_DONE : sw_place__fail(ask, err);
}

enum sw_step sw_token__session_commit(struct sw_ask *ask)
{
    enum sw_step step;

    if (ask->token.phase != SW_TOKEN_MOVING) {
        step = sw_placement__session.commit(ask);
        if (step != SW_STEP_DONE) {
            return step;
        }
        ask->token.phase = SW_TOKEN_MOVING;
    }
    return sw_place__move_out(ask) == SW_STEP_MORE ? SW_STEP_MORE : moved(ask);
}

static void on_committed(struct sw_store_commit *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

enum sw_step sw_token__end_link(struct sw_ask *ask)
{
    struct sw_store_commit *op = sw_arena_new(ask->arena, struct sw_store_commit);

    if (op == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    *op = (struct sw_store_commit){
        .count = 1,
        .now_unix_s = ask->now_unix_s,
        .loop = ask->env->loop,
        .done = on_committed,
        .arg = ask,
    };
    sw_revoke_write(&ask->token.link, ask->token.link_end_unix_s, &op->writes[0]);
    ask->token.work->commit = op;
    ask->token.phase = SW_TOKEN_LINKING;
    sw_store_commit(ask->env->store, op);
    return SW_STEP_MORE;
}

enum sw_err sw_token__link_ended(struct sw_ask *ask)
{
    enum sw_err err = ask->token.work->commit->err;

    if (err != SW_OK && err != SW_E_STATE_GONE) { /* gone: a request beside this one was first */
        return SW_E_COMMIT;
    }
    ask->token.linked = false;
    ask->token.link_was = true;
    return SW_OK;
}
