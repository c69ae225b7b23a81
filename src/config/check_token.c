/* config/check_token.c - contradictions around what the client carries: `token`, `sealed`,
 * `moved-from`, and the tokens that are made.
 *
 * What is dangerous is an error and not a warning: a token whose issuer or audience nobody looks
 * at lets in whoever has any token of that issuer, or any key of that set.
 */
#include "config/check_priv.h"

/* A complaint about what is not there: it stands at the section. */
static void absent(struct sw_config_ctx *x, struct sw_node *section, const char *text)
{
    section->bad = true;
    sw_config__error(x->errors, section->key_line, section->key_column, "%s", text);
}

/* ---- token --------------------------------------------------------------------------------------
 */

static void check_lives_of_mint(struct sw_config_ctx *x, struct sw_config_token *t,
                                struct sw_node *mint)
{
    struct sw_node *life = sw_node__get(mint, "life"), *renew = sw_node__get(mint, "renew");
    struct sw_node *absolute = sw_node__get(mint, "absolute");

    if (life == NULL) {
        t->mint.life_s = SW_MIN(t->mint.life_s, t->mint.absolute_s);
    } else if (fine(life) && !broken(absolute) && t->mint.life_s > t->mint.absolute_s) {
        if (absolute != NULL) {
            sw_schema__bad(x, life, "`life` is longer than `absolute` and would never be reached");
        } else {
            t->mint.absolute_s = t->mint.life_s;
        }
    }
    if (renew == NULL) {
        t->mint.renew_s = SW_MIN(t->mint.renew_s, SW_MAX(t->mint.life_s / 2, 1));
    } else if (fine(renew) && !broken(life) && t->mint.renew_s >= t->mint.life_s) {
        char text[SW_UNITS_TEXT_MAX];

        sw_schema__bad(
            x, renew,
            "`renew` must be shorter than `life` (%s): a token must be renewed while it is valid",
            sw_units__duration_text((uint64_t)t->mint.life_s * SW_NS_PER_S, text));
    }
}

static void check_mint(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *route,
                       struct sw_node *mint)
{
    struct sw_config_token *t = &r->token;
    struct sw_node *deliver = sw_node__get(mint, "deliver");
    struct sw_node *from = sw_node__get(sw_node__get(route, "token"), "from");

    if (r->placement != SW_PLACE_TOKEN && r->moved_from != SW_PLACE_TOKEN &&
        !broken(sw_node__get(route, "state")) && !broken(sw_node__get(route, "moved-from"))) {
        BAD_KEY(x, mint,
                "`mint` makes tokens of the route's state, so it needs `state: token`; to let "
                "others' tokens in, write `keys`");
        return;
    }
    check_lives_of_mint(x, t, mint);
    if (deliver == NULL) {
        t->mint.deliver = t->from_cookie ? SW_DELIVER_COOKIE : SW_DELIVER_HEADER;
    } else if (fine(deliver) && !broken(from) &&
               t->from_cookie != (t->mint.deliver == SW_DELIVER_COOKIE)) {
        sw_schema__bad(x, deliver, "%s",
                       t->from_cookie
                           ? "`deliver: header` goes with `from: bearer`: tokens are looked for "
                             "in a cookie here, so clients would never be known again"
                           : "`deliver: cookie` needs `from: cookie.NAME`: tokens are looked for "
                             "in Authorization here, so clients would never be known again");
    }
}

static void check_token(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *route,
                        struct sw_node *map)
{
    struct sw_config_token *t = &r->token;
    struct sw_node *keys = sw_node__get(map, "keys"), *mint = sw_node__get(map, "mint");
    struct sw_node *cookie = sw_node__get(map, "cookie");

    t->on = true;
    t->mint.on = mint != NULL;
    if (keys == NULL) {
        t->keyset = SW_KEYSETS_MAX;
    }
    if (keys == NULL && mint == NULL) {
        absent(x, map,
               "`token` needs `keys` (the public keys of an issuer: a file or an https:// URL) or "
               "`mint` (stateway makes the tokens: mint: {})");
    } else if (keys != NULL && mint != NULL) {
        BAD_KEY(x, mint,
                "`keys` and `mint` are two things: a route takes tokens of another issuer, or "
                "makes its own; take one out");
    } else if (fine(mint)) {
        check_mint(x, r, route, mint);
    }
    if (sw_node__get(map, "issuer") == NULL) {
        absent(x, map,
               "`issuer` is missing in token: who made a token would not be looked at; write "
               "issuer: https://id.example, as the tokens' `iss` has it");
    }
    if (sw_node__get(map, "audience") == NULL) {
        absent(x, map,
               "`audience` is missing in token: a token that was made for another service would "
               "open this one; write audience: [shop], as the tokens' `aud` has it");
    }
    if (sw_node__get(map, "required") == NULL) {
        t->required = mint == NULL && r->moved_from != SW_PLACE_TOKEN;
    }
    if (mint != NULL && t->typ.len == 0) {
        t->typ = SW_S("JWT");
    }
    if (!t->from_cookie && fine(cookie) && !broken(sw_node__get(map, "from"))) {
        BAD_KEY(x, cookie,
                "`cookie` says nothing without `from: cookie.NAME`; add that or take it out");
    } else if (t->from_cookie) {
        sw_check__cookie(x, r, &t->cookie, cookie, route);
    }
}

/* ---- moved-from ---------------------------------------------------------------------------------
 */

static void check_moved(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *route)
{
    struct sw_node *from = sw_node__get(route, "moved-from");
    bool session = r->placement == SW_PLACE_SESSION || r->moved_from == SW_PLACE_SESSION;

    if (!fine(from) || broken(sw_node__get(route, "state"))) {
        return;
    }
    if (r->placement == r->moved_from) {
        sw_schema__bad(x, from, "`moved-from` names where the state is now; take it out");
    } else if (r->placement == SW_PLACE_NONE || r->placement == SW_PLACE_STICKY) {
        sw_schema__bad(x, from,
                       "`moved-from` needs `state` session, token or sealed: stateway can bring a "
                       "state only to where it keeps one");
    } else if (session && r->session.key_source != SW_KEY_COOKIE) {
        sw_schema__bad(x, from,
                       "`moved-from` needs `key: cookie`: what a client carries is its own and no "
                       "entity's");
    } else if (r->moved_from == SW_PLACE_TOKEN && sw_node__get(route, "token") == NULL) {
        sw_schema__bad(x, from,
                       "`moved-from: token` needs the `token` section that the tokens were made "
                       "by: who comes with one must be verified");
    }
}

/* ---- the rest -----------------------------------------------------------------------------------
 */

static void check_phantom(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *map)
{
    r->session.phantom.on = map != NULL;
    if (!fine(map)) {
        return;
    }
    if (r->placement != SW_PLACE_SESSION) {
        BAD_KEY(x, map, "`phantom` needs `state: session`: it stands for an opaque cookie");
        return;
    }
    if (sw_node__get(map, "issuer") == NULL) {
        absent(x, map,
               "`issuer` is missing in phantom: whoever verifies must know whom to trust; write "
               "the URL by which this gateway is known");
    }
    if (sw_node__get(map, "audience") == NULL) {
        absent(x, map,
               "`audience` is missing in phantom: a token that is for everybody can be used by "
               "whoever got it, elsewhere; write the name of the app");
    }
}

void sw_check__token(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *n)
{
    struct sw_node *map = sw_node__get(n, "token"), *state = sw_node__get(n, "state");
    struct sw_node *sealed = sw_node__get(n, "sealed"), *session = sw_node__get(n, "session");
    struct sw_node *key = sw_node__get(session, "key");

    if (map == NULL) {
        r->token.keyset = SW_KEYSETS_MAX;
    } else if (fine(map)) {
        check_token(x, r, n, map);
    }
    if (map == NULL && fine(state) && r->placement == SW_PLACE_TOKEN) {
        sw_schema__bad(x, state,
                       "`state: token` needs a `token` section; write token: { issuer: "
                       "https://shop.example, audience: [shop], mint: {} }");
    }
    if (map == NULL && fine(key) && r->session.key_source == SW_KEY_CLAIM) {
        sw_schema__bad(x, key,
                       "`key: %.*s` needs a `token` section on the route: a claim counts only in "
                       "a token that was verified",
                       SW_SARG(sw_config__said(key)));
    }
    if (r->placement == SW_PLACE_SEALED && r->sealed.oversize == SW_OVERSIZE_SPILL && fine(key) &&
        r->session.key_source != SW_KEY_COOKIE) {
        sw_schema__bad(x, key,
                       "`oversize: spill` needs `key: cookie`: what spills belongs to a visitor");
    }
    check_moved(x, r, n);
    check_phantom(x, r, sw_node__get(session, "phantom"));
    sw_check__cookie(x, r, &r->sealed.cookie, sw_node__get(sealed, "cookie"), n);
    sw_check__lives(x, sealed, &r->sealed.idle_s, &r->sealed.absolute_s);
}
