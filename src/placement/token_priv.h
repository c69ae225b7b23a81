/* placement/token_priv.h - what the files of tokens share.
 *
 *   token.c         the placement: what the app is handed
 *   token_find.c    where a request carries its token, and how a refusal says so
 *   token_verify.c  sw_place_token: keys, signature, claims, and whether it was ended
 *   token_claims.c  claims for the app: as a state, as headers, as a name of the visitor
 *   token_mint.c    the commit on routes that mint
 *   token_build.c   a new token, and how it reaches the client
 *   token_keys.c    our own keys: signing sets, and what the world may see of them
 *   phantom.c       a token for the app, beside a session
 */
#ifndef SW_PLACEMENT_TOKEN_PRIV_H
#define SW_PLACEMENT_TOKEN_PRIV_H

#include "keysets/keysets.h"
#include "placement/placement_priv.h"

/* What waits for others lies in the ask's arena, until the exchange is over. */
struct sw_token_work {
    struct sw_key_wait wait;
    bool fetched; /* keys were asked for: once a request */
    struct sw_store_load load;
    struct sw_store_commit *commit;
    size_t join_at;
    /* the token that is being minted */
    struct sw_slice lines, state;
    struct sw_version version;
    char visitor[17];
    bool renews_only; /* nothing but its time changes: without it the answer is as good */
};

/* ---- token_find.c ---------------------------------------------------------------------------- */

struct sw_token_found {
    enum sw_err err; /* SW_OK, SW_E_TOKEN_TWICE, SW_E_NO_MEMORY */
    bool found;
    struct sw_slice text; /* borrowed from the request */
};
struct sw_token_found sw_token__find(struct sw_ask *ask);
/* FAIL with err, its challenge (RFC 6750, 3) and, where we set it, the end of the cookie. DONE: a
 * token in a cookie that nobody must have counts as none; token.ignored tells why. */
enum sw_step sw_token__refuse(struct sw_ask *ask, enum sw_err err);
/* token.challenge of a refusal. An arena that is full: none. */
void sw_token__challenge(struct sw_ask *ask, enum sw_err err);

/* ---- token_verify.c -------------------------------------------------------------------------- */

/* The request's memory for what waits. NULL: no memory. */
struct sw_token_work *sw_token__work(struct sw_ask *ask);
/* Asks the store whether the ask's token was ended; then sw_token__ended tells. */
SW_MUST enum sw_step sw_token__ask_ended(struct sw_ask *ask);
/* SW_OK: it was not. SW_E_TOKEN_REVOKED. SW_E_STORE_*: not to be known, so it is refused. */
SW_MUST enum sw_err sw_token__ended(const struct sw_ask *ask);

/* ---- token_claims.c -------------------------------------------------------------------------- */

/* What our own tokens say beside the registered claims: "state", "end", "bound".
 * SW_E_TOKEN_CLAIMS. */
SW_MUST enum sw_err sw_token__read_own(struct sw_ask *ask);
/* A JSON object as the app is handed it. SW_E_TOKEN_LARGE: longer than SW_TOKEN_STATE_BYTES_MAX. */
SW_MUST enum sw_err sw_token__compact(struct sw_ask *ask, struct sw_slice text,
                                      struct sw_slice *ret_value);
/* token.lines. SW_E_TOKEN_LARGE: longer than SW_TOKEN_LINES_BYTES_MAX. */
SW_MUST enum sw_err sw_token__put_lines(struct sw_ask *ask);
/* Says "the same visitor" without saying who: by issuer and subject, else by issuer and jti. */
void sw_token__visitor(const struct sw_place_env *env, struct sw_slice issuer, struct sw_slice sub,
                       struct sw_slice jti, char ret_text[17]);
/* A strong tag: of a state under a name, whatever token carries it. */
struct sw_version sw_token__version(struct sw_slice name, struct sw_slice state);

/* ---- token_move.c ---------------------------------------------------------------------------- */

/* sw_place_key of routes that mint and had another placement. */
SW_MUST enum sw_err sw_token__key(struct sw_ask *ask);
/* The commit of a visitor who still has a session; then he gets a token. */
SW_MUST enum sw_step sw_token__session_commit(struct sw_ask *ask);
/* Ends what the token was made of; it is MORE, and then link_ended tells. SW_E_COMMIT. */
SW_MUST enum sw_step sw_token__end_link(struct sw_ask *ask);
SW_MUST enum sw_err sw_token__link_ended(struct sw_ask *ask);

/* ---- token_mint.c, token_build.c ------------------------------------------------------------- */

enum sw_step sw_token__commit(struct sw_ask *ask);
/* Until when a note on the ask's token is needed. */
int64_t sw_token__last_copy_unix_s(const struct sw_ask *ask);
/* A token for that state into work->lines, ->version, ->visitor. fresh: with a new jti and a new
 * absolute end. SW_E_MINT_LARGE, SW_E_STATE_GONE (its absolute end has come), SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_token__build(struct sw_ask *ask, struct sw_slice state, bool fresh);

#endif
