/* placement/token_find.c - where a request carries its token, and how a refusal says so.
 *
 * A route takes tokens from one place: the Authorization header (RFC 6750, 2.1) or a cookie. The
 * target is never looked at: it stands in logs and histories (RFC 6750, 5.3). A request that could
 * mean two tokens is refused, since an app might mean the other one.
 */
#include "placement/token_priv.h"

struct bearer {
    unsigned fields; /* Authorization headers of whatever scheme */
    bool found;
    struct sw_slice text;
};

/* RFC 9110, 11.4: a scheme in any case, blanks, the rest. */
static struct bearer find_bearer(const struct sw_head *h)
{
    static const struct sw_slice scheme = SW_S("Bearer");
    struct bearer b = {0};

    for (uint32_t i = 0; i < h->field_count; i++) {
        struct sw_slice value = h->fields[i].value;

        if (h->fields[i].id != SW_FIELD_AUTHORIZATION) {
            continue;
        }
        b.fields++;
        if (sw_slice_starts_nocase(value, scheme) &&
            (value.len == scheme.len || value.ptr[scheme.len] == ' ')) {
            b.found = true;
            b.text = sw_slice_trim(sw_slice_tail(value, scheme.len));
        }
    }
    return b;
}

struct sw_token_found sw_token__find(struct sw_ask *ask)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    struct bearer bearer = find_bearer(ask->request);
    struct sw_cookie_found cookie;

    if (sw_place__token_cookie(t)) {
        ask->token.cookie_name = sw_place__cookie_name(ask, &t->cookie);
        if (ask->token.cookie_name.ptr == NULL) {
            return (struct sw_token_found){.err = SW_E_NO_MEMORY};
        }
    }
    if (!t->from_cookie) {
        return (struct sw_token_found){
            .err = bearer.fields > 1 ? SW_E_TOKEN_TWICE : SW_OK,
            .found = bearer.found && bearer.fields == 1,
            .text = bearer.text,
        };
    }
    cookie = sw_cookie_find(ask->request, ask->token.cookie_name);
    ask->token.cookie_present = cookie.count > 0;
    if (cookie.count > 1 || (cookie.count > 0 && bearer.found)) {
        return (struct sw_token_found){.err = SW_E_TOKEN_TWICE};
    }
    return (struct sw_token_found){.found = cookie.value.len > 0, .text = cookie.value};
}

/* ---- refusing -------------------------------------------------------------------------------- */

/* RFC 6749, 3.3: what a scope is made of needs no escape between quotes. */
static bool plain(struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < 0x21 || s.ptr[i] > 0x7e || s.ptr[i] == '"' || s.ptr[i] == '\\') {
            return false;
        }
    }
    return true;
}

static void put_scopes(struct sw_out *out, const struct sw_config_token *t)
{
    sw_out_lit(out, ", scope=\"");
    for (size_t i = 0; i < t->scope_count; i++) {
        if (plain(t->scopes[i])) {
            sw_out_slice(out, i > 0 ? SW_S(" ") : SW_S(""));
            sw_out_slice(out, t->scopes[i]);
        }
    }
    sw_out_lit(out, "\"");
}

/* RFC 6750, 3.1. The description is one of ours: of the token nothing is said back. */
static void put_error(struct sw_out *out, const struct sw_config_token *t, enum sw_err err)
{
    const char *code = "invalid_token";

    if (err == SW_E_TOKEN_ABSENT) {
        return; /* who sends no token is told no error */
    }
    if (err == SW_E_TOKEN_TWICE) {
        code = "invalid_request";
    } else if (sw_err_status(err) == 403) {
        code = "insufficient_scope";
    }
    sw_out_printf(out, ", error=\"%s\", error_description=\"%s\"", code, sw_err_text(err));
    if (err == SW_E_TOKEN_SCOPE) {
        put_scopes(out, t);
    }
}

void sw_token__challenge(struct sw_ask *ask, enum sw_err err)
{
    const struct sw_config_route *route = ask->routed->route;
    struct sw_slice realm = ask->env->config->apps[route->app].name;
    size_t cap = 512 + realm.len;
    struct sw_out out;
    char *text;

    for (size_t i = 0; i < route->token.scope_count; i++) {
        cap += route->token.scopes[i].len + 1;
    }
    text = sw_arena_bytes(ask->arena, cap);
    if (text == NULL) {
        return; /* the refusal stands all the same */
    }
    out = sw_out_init(text, cap);
    sw_out_lit(&out, "WWW-Authenticate: Bearer realm=\"");
    sw_out_slice(&out, realm);
    sw_out_lit(&out, "\"");
    put_error(&out, &route->token, err);
    sw_out_lit(&out, "\r\n");
    SW_ASSERT(!out.overflowed);
    ask->token.challenge = sw_out_done(&out);
}

/* A cookie that we made, and nobody must have: a visitor who comes back late is a visitor without
 * one, and no page of his may be stuck. What somebody else sends must be in order. */
static bool may_ignore(const struct sw_config_route *route)
{
    return !route->token.required && (route->moved_from == SW_PLACE_TOKEN ||
                                      (route->token.from_cookie && route->token.mint.on));
}

enum sw_step sw_token__refuse(struct sw_ask *ask, enum sw_err err)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    unsigned status = sw_err_status(err);

    SW_ASSERT(!ask->token.valid);
    ask->token.phase = SW_TOKEN_FOUND;
    if (status == 401 && err != SW_E_TOKEN_ABSENT && may_ignore(ask->routed->route)) {
        ask->token.ignored = err;
        return SW_STEP_DONE;
    }
    if (status == 400 || status == 401 || status == 403) {
        sw_token__challenge(ask, err);
    }
    if (status == 401 && t->mint.on && ask->token.cookie_present &&
        sw_place__set_cookie(ask, &t->cookie, ask->token.cookie_name, SW_S(""), 0) == SW_OK) {
        ask->drops_cookie = true; /* it will never be good again */
    }
    return sw_place__fail(ask, err);
}
