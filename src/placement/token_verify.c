/* placement/token_verify.c - who comes? The token of a request: verified, and not ended.
 *
 *   FIND -> (verify) -> ASKING the store -> FOUND
 *              |  ^
 *              v  |
 *            FETCHING keys, once: the token names one that the set does not have
 *
 * The signature is remembered by the worker's cache; claims, cut-offs and the denylist are looked
 * at with each request.
 */
#include "placement/token_priv.h"

#include "base/json.h"

struct sw_token_work *sw_token__work(struct sw_ask *ask)
{
    if (ask->token.work == NULL) {
        ask->token.work = sw_arena_new(ask->arena, struct sw_token_work);
    }
    return ask->token.work;
}

/* ---- keys ------------------------------------------------------------------------------------ */

static bool own_keys(const struct sw_config_token *t)
{
    return t->keyset == SW_KEYSETS_MAX;
}

static const struct sw_jwks *keys_of(const struct sw_ask *ask)
{
    const struct sw_config_token *t = &ask->routed->route->token;

    if (own_keys(t)) {
        return ask->env->mint == NULL ? NULL : ask->env->mint->sets[t->mint.alg];
    }
    SW_ASSERT(ask->env->trust != NULL);
    SW_ASSERT(t->keyset < ask->env->config->keyset_count);
    return sw_keyset_view_get(&ask->env->trust[t->keyset]);
}

/* The key id in the header of a token whose header was found to be in order. Empty: none. */
static struct sw_slice kid_of(struct sw_ask *ask)
{
    struct sw_slice head, rest, value;
    char *json = sw_arena_bytes(ask->arena, SW_JWS_HEADER_BYTES_MAX);
    char *kid = sw_arena_bytes(ask->arena, SW_JWK_KID_BYTES_MAX);
    struct sw_out out = sw_out_init(kid, SW_JWK_KID_BYTES_MAX);
    size_t len;

    (void)sw_slice_cut(ask->token.text, '.', &head, &rest);
    if (json == NULL || kid == NULL ||
        sw_b64url(head, json, SW_JWS_HEADER_BYTES_MAX, &len) != SW_OK ||
        sw_json_check(sw_slice_of(json, len)).err != SW_OK ||
        !sw_json_get(sw_slice_of(json, len), SW_S("kid"), &value) ||
        !sw_json_unquote(value, &out)) {
        return (struct sw_slice){NULL, 0};
    }
    return sw_out_done(&out);
}

static void on_keys(struct sw_key_wait *wait)
{
    struct sw_ask *ask = wait->arg;

    ask->wake(ask);
}

/* DONE: the token stays refused. MORE: another look when the keys are here. */
static enum sw_step want_keys(struct sw_ask *ask)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    struct sw_token_work *w = sw_token__work(ask);
    size_t mark = sw_arena_mark(ask->arena);
    enum sw_step step;

    if (w == NULL || own_keys(t) || w->fetched) {
        return SW_STEP_DONE;
    }
    w->fetched = true;
    w->wait = (struct sw_key_wait){.loop = ask->env->loop, .done = on_keys, .arg = ask};
    step = sw_keyset_want(ask->env->trust[t->keyset].keyset, kid_of(ask), &w->wait);
    sw_arena_reset(ask->arena, mark);
    return step;
}

/* ---- was it ended? --------------------------------------------------------------------------- */

static void on_loaded(struct sw_store_load *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

enum sw_step sw_token__ask_ended(struct sw_ask *ask)
{
    struct sw_token_work *w = sw_token__work(ask);

    SW_ASSERT(w != NULL);
    SW_ASSERT(ask->token.claims.jti.len > 0);
    w->load = (struct sw_store_load){
        .now_unix_s = ask->now_unix_s,
        .arena = ask->arena,
        .value_bytes_max = 1, /* a note has none */
        .loop = ask->env->loop,
        .done = on_loaded,
        .arg = ask,
    };
    sw_revoke_token_key(ask->token.claims.iss, ask->token.claims.jti, &w->load.key);
    return sw_store_load(ask->env->store, &w->load);
}

enum sw_err sw_token__ended(const struct sw_ask *ask)
{
    const struct sw_token_work *w = ask->token.work;

    if (w->load.err == SW_E_NOT_FOUND) {
        return SW_OK;
    }
    if (w->load.err != SW_OK) {
        return w->load.err;
    }
    return w->load.record.kind == SW_RECORD_TOMBSTONE ? SW_E_TOKEN_REVOKED : SW_E_STORE_CORRUPT;
}

/* ---- the steps ------------------------------------------------------------------------------- */

static enum sw_step token_good(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    const struct sw_claims *c = &ask->token.claims;
    enum sw_err err = sw_token__put_lines(ask);

    if (err == SW_OK && route->placement == SW_PLACE_TOKEN && !own_keys(&route->token)) {
        err = sw_token__compact(ask, c->payload, &ask->token.state);
    }
    if (err != SW_OK) {
        return sw_token__refuse(ask, err);
    }
    ask->token.phase = SW_TOKEN_FOUND;
    ask->token.valid = true;
    if (route->placement != SW_PLACE_SESSION || route->session.key_source != SW_KEY_COOKIE) {
        sw_token__visitor(ask->env, c->iss, c->sub, c->jti, ask->visitor);
    }
    return SW_STEP_DONE;
}

static enum sw_step token_asked(struct sw_ask *ask)
{
    enum sw_err err = sw_token__ended(ask);

    return err == SW_OK ? token_good(ask) : sw_token__refuse(ask, err);
}

/* The claims are in order: of a token that we minted ours too. Was it ended? */
static enum sw_step token_verified(struct sw_ask *ask)
{
    const struct sw_claims *c = &ask->token.claims;
    bool own = own_keys(&ask->routed->route->token);
    enum sw_err err = own ? sw_token__read_own(ask) : SW_OK;

    if (err != SW_OK) {
        return sw_token__refuse(ask, err);
    }
    /* without iat its time is not known, and a cut-off ends it; its own says when it was bound */
    if (sw_revoke_cut_off(ask->env, c->sub,
                          own ? ask->token.bound_unix_ms : c->iat_unix_s * 1000)) {
        return sw_token__refuse(ask, SW_E_TOKEN_REVOKED);
    }
    if (c->jti.len == 0 || ask->env->store == NULL) {
        return token_good(ask);
    }
    if (sw_token__work(ask) == NULL) {
        return sw_token__refuse(ask, SW_E_NO_MEMORY);
    }
    if (sw_token__ask_ended(ask) == SW_STEP_MORE) {
        ask->token.phase = SW_TOKEN_ASKING;
        return SW_STEP_MORE;
    }
    return token_asked(ask);
}

static enum sw_step token_verify(struct sw_ask *ask)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    const struct sw_jwks *set = keys_of(ask);
    struct sw_claim_rule claims[SW_TOKEN_CLAIMS_MAX];
    struct sw_claims_rules rules = {
        .issuer = t->issuer,
        .audiences = t->audiences,
        .audience_count = t->audience_count,
        .scopes = t->scopes,
        .scope_count = t->scope_count,
        .claims = claims,
        .claim_count = t->claim_count,
        .skew_s = t->skew_s,
        .age_s_max = t->age_s_max,
        .jti = own_keys(t),
    };
    enum sw_err err;

    if (set == NULL) {
        return sw_token__refuse(ask, SW_E_TOKEN_KEYS);
    }
    SW_ASSERT(t->claim_count <= SW_TOKEN_CLAIMS_MAX);
    for (size_t i = 0; i < t->claim_count; i++) {
        claims[i] = (struct sw_claim_rule){t->claims[i].name, t->claims[i].value};
    }
    err = sw_token_check(ask->env->tokens, set, t->typ, &rules, ask->token.text, ask->now_unix_s,
                         ask->arena, &ask->token.claims);
    if (err == SW_E_TOKEN_KID && want_keys(ask) == SW_STEP_MORE) {
        ask->token.phase = SW_TOKEN_FETCHING;
        return SW_STEP_MORE;
    }
    if (err != SW_OK) {
        return sw_token__refuse(ask, err);
    }
    sw_keyring_used(ask->env->keys, ask->token.claims.ring_id, SW_KEY_OPENED, ask->now_unix_s);
    return token_verified(ask);
}

static enum sw_step token_find(struct sw_ask *ask)
{
    struct sw_token_found found = sw_token__find(ask);

    if (found.err != SW_OK) {
        return sw_token__refuse(ask, found.err);
    }
    if (found.found) {
        ask->token.text = found.text;
        return token_verify(ask);
    }
    ask->token.phase = SW_TOKEN_FOUND;
    return ask->routed->route->token.required ? sw_token__refuse(ask, SW_E_TOKEN_ABSENT)
                                              : SW_STEP_DONE;
}

enum sw_step sw_place_token(struct sw_ask *ask)
{
    if (!ask->routed->route->token.on) {
        return SW_STEP_DONE;
    }
    switch (ask->token.phase) {
    case SW_TOKEN_FIND:
        return token_find(ask);
    case SW_TOKEN_FETCHING:
        ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop);
        return token_verify(ask);
    case SW_TOKEN_ASKING:
        return token_asked(ask);
    case SW_TOKEN_FOUND:
    case SW_TOKEN_RECHECKING:
    case SW_TOKEN_COMMITTING:
    case SW_TOKEN_LINKING:
    case SW_TOKEN_MOVING:
        break;
    }
    SW_UNREACHABLE();
}
