/* placement/token.c - state: token. The client carries the state, signed; any instance may answer.
 *
 * load    the token was verified before (sw_place_token). On routes that mint, the state is what
 *         the app has put into it; on others it is the claims, and cannot be changed.
 * commit  a change makes a new token (token_mint.c). Nothing is kept here but notes of tokens that
 *         were ended before their time.
 */
#include "placement/token_priv.h"

static enum sw_step token_load(struct sw_ask *ask)
{
    const struct sw_claims *c = &ask->token.claims;

    if (ask->move.session) {
        return sw_placement__session.load(ask);
    }
    if (ask->move.active) {
        return sw_place__move_load(ask);
    }
    if (!ask->token.valid) {
        ask->verdict = SW_VERDICT_FRESH;
        if (ask->token.ignored != SW_OK) {
            ask->verdict =
                ask->token.ignored == SW_E_TOKEN_REVOKED ? SW_VERDICT_REVOKED : SW_VERDICT_EXPIRED;
        }
        ask->app_verdict = ask->verdict;
        return SW_STEP_DONE;
    }
    ask->state = ask->token.state;
    ask->version =
        sw_token__version(ask->routed->route->token.mint.on ? c->jti : c->iss, ask->state);
    ask->state_present = true;
    ask->verdict = ask->app_verdict = SW_VERDICT_KEPT;
    return SW_STEP_DONE;
}

static enum sw_step token_pick(struct sw_ask *ask)
{
    return sw_place__pick_any(ask, false);
}

const struct sw_placement sw_placement__token = {"token", token_load, token_pick, sw_token__commit};
