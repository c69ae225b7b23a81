/* placement/token_build.c - a new token, and how it reaches the client.
 *
 * Payload, compact ASCII JSON:
 *   iss    the route's issuer          aud    the route's audience: a string, or a list of several
 *   sub    Stateway-Subject, if any    jti    128 random bits, the same through all renewals
 *   iat    when it was made            exp    iat + life, never after end
 *   end    absolute end, unix seconds: no renewal goes beyond
 *   bound  unix milliseconds since when it has its subject (0: it has none); a cut-off of the
 *          subject after that ends it, however often it was renewed
 *   state  the state, a JSON object
 *   link, link-end  what it was made of at another placement: token_move.c
 */
#include "placement/token_priv.h"

#include "base/json.h"

struct plan {
    struct sw_slice jti, sub, state;
    int64_t iat_unix_s, exp_unix_s, end_unix_s, bound_unix_ms;
    const struct sw_moved *link; /* NULL: none */
};

static void put_member(struct sw_out *out, const char *name, int64_t value)
{
    sw_out_printf(out, ",\"%s\":", name);
    sw_out_i64(out, value);
}

static void put_payload(struct sw_out *out, const struct sw_config_token *t, const struct plan *p)
{
    sw_out_lit(out, "{\"iss\":");
    sw_json_quote(out, t->issuer);
    sw_out_lit(out, ",\"aud\":");
    if (t->audience_count != 1) {
        sw_out_lit(out, "[");
    }
    for (size_t i = 0; i < t->audience_count; i++) {
        sw_out_slice(out, i > 0 ? SW_S(",") : SW_S(""));
        sw_json_quote(out, t->audiences[i]);
    }
    if (t->audience_count != 1) {
        sw_out_lit(out, "]");
    }
    if (p->sub.len > 0) {
        sw_out_lit(out, ",\"sub\":");
        sw_json_quote(out, p->sub);
    }
    sw_out_lit(out, ",\"jti\":");
    sw_json_quote(out, p->jti);
    put_member(out, "iat", p->iat_unix_s);
    put_member(out, "exp", p->exp_unix_s);
    put_member(out, "end", p->end_unix_s);
    put_member(out, "bound", p->bound_unix_ms);
    if (p->link != NULL) {
        sw_out_lit(out, ",\"link\":\"");
        sw_b64url_put(out, p->link->key.bytes, sizeof(p->link->key.bytes));
        sw_out_lit(out, "\"");
        put_member(out, "link-end", p->link->key_end_unix_s);
    }
    sw_out_lit(out, ",\"state\":");
    sw_out_slice(out, p->state);
    sw_out_lit(out, "}");
}

/* Signed, behind what is in out. */
static enum sw_err put_token(struct sw_ask *ask, const struct plan *p, struct sw_out *out)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    const struct sw_jwks *set = ask->env->mint->sets[t->mint.alg];
    const struct sw_jwk *key = set == NULL ? NULL : sw_jwks_signer(set);
    char text[SW_TOKEN_BYTES_MAX];
    struct sw_out payload = sw_out_init(text, sizeof(text));
    enum sw_err err;

    if (key == NULL) {
        return SW_E_TOKEN_KEYS;
    }
    put_payload(&payload, t, p);
    if (payload.overflowed) {
        return SW_E_MINT_LARGE;
    }
    err = sw_jws_sign(key, t->typ, sw_out_done(&payload), out);
    sw_keyring_used(ask->env->keys, ask->env->keys->keys[ask->env->keys->active].id, SW_KEY_MADE,
                    ask->now_unix_s);
    return err == SW_E_TOKEN_LARGE || err == SW_E_LIMIT ? SW_E_MINT_LARGE : err;
}

static enum sw_err put_line(struct sw_ask *ask, struct sw_slice token, struct sw_slice *ret_line)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    enum sw_err err;

    if (t->mint.deliver == SW_DELIVER_HEADER) {
        *ret_line = sw_arena_printf(ask->arena, "Authorization: Bearer %.*s\r\n", SW_SARG(token));
        return ret_line->ptr == NULL ? SW_E_NO_MEMORY : SW_OK;
    }
    err = sw_place__cookie_lines(ask, &t->cookie, ask->token.cookie_name, token, -1, ret_line);
    return err == SW_E_LIMIT ? SW_E_MINT_LARGE : err;
}

static void plan_make(struct sw_ask *ask, bool fresh, struct sw_slice fresh_jti, struct plan *p)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    const struct sw_update *u = &ask->update;
    int64_t now = ask->now_unix_s, life = t->mint.life_s;

    if (u->has_subject) {
        p->sub = u->subject;
    } else if (ask->token.valid) {
        p->sub = ask->token.claims.sub;
    }
    p->jti = fresh ? fresh_jti : ask->token.claims.jti;
    p->end_unix_s = fresh ? now + t->mint.absolute_s : ask->token.end_unix_s;
    if (!fresh) {
        p->bound_unix_ms = ask->token.bound_unix_ms;
    } else if (p->sub.len > 0 && u->has_subject) {
        p->bound_unix_ms = sw_loop_now_unix_ms(ask->env->loop);
    } else if (p->sub.len > 0) {
        p->bound_unix_ms = ask->token.bound_unix_ms; /* another name, but nobody logged in anew */
    }
    if (u->ttl_s >= 0) {
        p->end_unix_s = SW_MIN(p->end_unix_s, now + u->ttl_s);
    }
    p->iat_unix_s = now;
    p->exp_unix_s = SW_MIN(now + life, p->end_unix_s);
}

/* What comes from another placement keeps its subject, and its end where that is earlier. */
static void plan_moved(const struct sw_ask *ask, struct plan *p)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    const struct sw_moved *what = &ask->move.what;
    bool said = ask->move.taken && ask->update.has_subject; /* of a session it was done already */

    p->end_unix_s = ask->now_unix_s + t->mint.absolute_s;
    if (what->end_unix_s > 0) {
        p->end_unix_s = SW_MIN(p->end_unix_s, what->end_unix_s);
    }
    if (ask->move.taken && ask->update.ttl_s >= 0) {
        p->end_unix_s = SW_MIN(p->end_unix_s, ask->now_unix_s + ask->update.ttl_s);
    }
    p->exp_unix_s = SW_MIN(ask->now_unix_s + t->mint.life_s, p->end_unix_s);
    if (!said) {
        p->sub = what->subject;
    }
    if (!said || sw_slice_eq(p->sub, what->subject)) {
        p->bound_unix_ms = p->sub.len > 0 ? SW_MAX(what->bound_unix_ms, 1) : 0;
    }
    p->link = what;
}

/* Another id where it is asked for; else the one that every request which moves it finds. */
static bool moves_with_its_id(const struct sw_ask *ask)
{
    const struct sw_update *u = &ask->update;

    return ask->move.reading ||
           (ask->move.taken && !u->renew &&
            (!u->has_subject || sw_slice_eq(u->subject, ask->move.what.subject)));
}

static bool ascii(struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < 0x20 || s.ptr[i] > 0x7e) {
            return false;
        }
    }
    return true;
}

enum sw_err sw_token__build(struct sw_ask *ask, struct sw_slice state, bool fresh)
{
    struct sw_token_work *w = ask->token.work;
    size_t mark = sw_arena_mark(ask->arena);
    char id[SW_B64_LEN(16)], *text;
    struct plan p = {.state = state};
    struct sw_out jti = sw_out_init(id, sizeof(id)), out;
    struct sw_slice token;
    uint8_t random[16];
    enum sw_err err;

    SW_ASSERT(fresh || ask->token.valid);
    SW_ASSERT(ask->env->mint != NULL);
    sw_random(random, sizeof(random));
    sw_b64url_put(&jti, random, sizeof(random));
    plan_make(ask, fresh, sw_out_done(&jti), &p);
    if (ask->move.taken || ask->move.reading) {
        plan_moved(ask, &p);
        if (!ascii(p.sub)) {
            return SW_E_UPDATE_ASCII; /* it must come back as it was said */
        }
    }
    if (moves_with_its_id(ask)) {
        p.jti = sw_place__moved_jti(ask, &ask->move.what.key, id);
    }
    if (p.exp_unix_s <= ask->now_unix_s) {
        return SW_E_STATE_GONE;
    }
    text = sw_arena_bytes(ask->arena, SW_TOKEN_BYTES_MAX);
    if (text == NULL) {
        return SW_E_NO_MEMORY;
    }
    out = sw_out_init(text, SW_TOKEN_BYTES_MAX);
    err = put_token(ask, &p, &out);
    token = sw_out_done(&out);
    sw_arena_reset(ask->arena, err == SW_OK ? mark + out.len : mark);
    if (err == SW_OK) {
        err = put_line(ask, token, &w->lines);
    }
    if (err == SW_OK) {
        w->state = state;
        w->version = sw_token__version(p.jti, state);
        sw_token__visitor(ask->env, ask->routed->route->token.issuer, p.sub, p.jti, w->visitor);
    }
    return err;
}
