/* config/check_cookies.c - cookies: each of them for its route, and those of all routes together.
 */
#include "config/check_priv.h"

void sw_check__cookie(struct sw_config_ctx *x, const struct sw_config_route *r,
                      const struct sw_config_cookie *cookie, const struct sw_node *map,
                      struct sw_node *route)
{
    struct sw_node *path = sw_node__get(map, "path"), *same_site = sw_node__get(map, "same-site");

    if (fine(path) && fine(sw_node__get(route, "path")) &&
        !sw_check__covers(cookie->path, sw_check__literal(r->path))) {
        sw_schema__bad(
            x, path,
            "a browser would not send a cookie with the path `%.*s` to all of `%.*s`; write / or "
            "the beginning of the route's path",
            SW_QARG(cookie->path), SW_QARG(r->path));
    }
    if (fine(same_site) && cookie->same_site == 2 && cookie->secure != SW_SECURE_YES &&
        !broken(sw_node__get(map, "secure"))) {
        sw_schema__bad(x, same_site,
                       "`same-site: none` without HTTPS is thrown away by browsers; add `secure: "
                       "yes` (with HTTPS in front), or use lax");
    }
}

/* ---- cookies of several routes
 * ------------------------------------------------------------------- */

#define KEPT_MAX 4

/* A cookie that a route reads or sets, and the section that it belongs to. */
struct kept {
    const struct sw_config_cookie *cookie;
    enum sw_placement_kind kind;
};

static const char *section_of(enum sw_placement_kind kind)
{
    switch (kind) {
    case SW_PLACE_STICKY:
        return "sticky";
    case SW_PLACE_SESSION:
        return "session";
    case SW_PLACE_TOKEN:
        return "token";
    case SW_PLACE_SEALED:
        return "sealed";
    case SW_PLACE_NONE:
    case SW_PLACE_COUNT:
        break;
    }
    SW_UNREACHABLE();
}

static bool reads(const struct sw_config_route *r, enum sw_placement_kind kind)
{
    switch (kind) {
    case SW_PLACE_STICKY:
        return r->placement == kind;
    case SW_PLACE_SESSION:
        return r->moved_from == kind ||
               (r->placement == kind &&
                (r->session.key_source == SW_KEY_COOKIE || r->session.owner_subject)) ||
               (r->placement == SW_PLACE_SEALED && r->sealed.oversize == SW_OVERSIZE_SPILL);
    case SW_PLACE_TOKEN:
        return r->token.on && r->token.from_cookie;
    case SW_PLACE_SEALED:
        return r->placement == kind || r->moved_from == kind;
    case SW_PLACE_NONE:
    case SW_PLACE_COUNT:
        break;
    }
    return false;
}

static size_t cookies_of(const struct sw_config_route *r, struct kept ret_list[KEPT_MAX])
{
    const struct kept all[KEPT_MAX] = {
        {&r->sticky.cookie, SW_PLACE_STICKY},
        {&r->session.cookie, SW_PLACE_SESSION},
        {&r->token.cookie, SW_PLACE_TOKEN},
        {&r->sealed.cookie, SW_PLACE_SEALED},
    };
    size_t count = 0;

    for (size_t i = 0; i < KEPT_MAX; i++) {
        if (reads(r, all[i].kind) && all[i].cookie->name.len > 0) {
            ret_list[count++] = all[i];
        }
    }
    return count;
}

/* Is there a host that both match? */
static bool hosts_meet(struct sw_slice a, struct sw_slice b)
{
    bool wild_a = sw_slice_starts(a, SW_S("*.")), wild_b = sw_slice_starts(b, SW_S("*."));

    if (a.len == 0 || b.len == 0 || sw_slice_eq(a, b)) {
        return true;
    }
    return (wild_a && sw_slice_ends(b, sw_slice_tail(a, 1))) ||
           (wild_b && sw_slice_ends(a, sw_slice_tail(b, 1)));
}

/* Where the cookie got its name, in the file; else the route. */
static const struct sw_node *name_node(const struct sw_node *route, enum sw_placement_kind kind)
{
    const struct sw_node *section = sw_node__get(route, section_of(kind));
    const struct sw_node *at = kind == SW_PLACE_TOKEN
                                   ? sw_node__get(section, "from")
                                   : sw_node__get(sw_node__get(section, "cookie"), "name");

    return at != NULL ? at : route;
}

static void cookie_clash(struct sw_config_ctx *x, const struct sw_config_route *a,
                         const struct kept *ka, const struct sw_config_route *b,
                         const struct kept *kb, const struct sw_node *node)
{
    const struct sw_config_cookie *ca = ka->cookie, *cb = kb->cookie;
    const struct sw_node *at = name_node(node, kb->kind);
    bool token = kb->kind == SW_PLACE_TOKEN;

    if (a->app != b->app) {
        sw_config__error(
            x->errors, at->line, at->column,
            "two apps with one cookie name: `%.*s` is also that of app %.*s (line %u), and a "
            "browser sends one to both; write %s: { %s%.*s-id%s }",
            SW_QARG(cb->name), SW_QARG(x->config->apps[a->app].name), a->line, section_of(kb->kind),
            token ? "from: cookie." : "cookie: { name: ", SW_QARG(x->config->apps[b->app].name),
            token ? "" : " }");
    } else if (ka->kind != kb->kind) {
        sw_config__error(x->errors, at->line, at->column,
                         "one cookie name for two things: `%.*s` is also that of the route in line "
                         "%u, whose state "
                         "lives elsewhere; give it another name",
                         SW_QARG(cb->name), a->line);
    } else {
        sw_config__error(x->errors, at->line, at->column,
                         "the cookie `%.*s` has the path `%.*s` here and `%.*s` in line %u: a "
                         "browser would keep "
                         "two and send both; give them one path, or two names",
                         SW_QARG(cb->name), SW_QARG(cb->path), SW_QARG(ca->path), a->line);
    }
}

/* Two sections of one route under one name: each would read the other's value as its own. */
static bool own_clash(struct sw_config_ctx *x, const struct kept *list, size_t count,
                      const struct sw_node *node)
{
    for (size_t j = 1; j < count; j++) {
        for (size_t i = 0; i < j; i++) {
            const struct sw_node *at = name_node(node, list[j].kind);

            if (sw_slice_eq(list[i].cookie->name, list[j].cookie->name)) {
                sw_config__error(x->errors, at->line, at->column,
                                 "one cookie name for two things: `%.*s` is that of `%s` and of "
                                 "`%s`; give one of them another name",
                                 SW_QARG(list[j].cookie->name), section_of(list[i].kind),
                                 section_of(list[j].kind));
                return true;
            }
        }
    }
    return false;
}

/* Routes with one cookie have one state: what it is kept as cannot depend on who wrote last. */
static bool seal_clash(struct sw_config_ctx *x, const struct sw_config_route *a,
                       const struct sw_config_route *b, struct sw_node *node)
{
    const struct sw_node *at = sw_node__get(sw_node__get(node, "session"), "encrypt");

    if (a->session.encrypt == b->session.encrypt || a->session.key_source != SW_KEY_COOKIE ||
        b->session.key_source != SW_KEY_COOKIE) {
        return false;
    }
    at = at != NULL ? at : node;
    sw_config__error(x->errors, at->line, at->column,
                     "`encrypt` is %s here and %s in line %u, and both routes have one state by "
                     "the cookie `%.*s`; write the same, or give one another cookie name",
                     b->session.encrypt ? "on" : "off", a->session.encrypt ? "on" : "off", a->line,
                     SW_QARG(b->session.cookie.name));
    return true;
}

/* Do they disturb each other? True: it complained. */
static bool pair_clash(struct sw_config_ctx *x, const struct sw_config_route *a,
                       const struct kept *ka, const struct sw_config_route *b,
                       const struct kept *kb, struct sw_node *node)
{
    const struct sw_config_cookie *ca = ka->cookie, *cb = kb->cookie;

    if (!sw_slice_eq(ca->name, cb->name) ||
        (!sw_check__covers(ca->path, cb->path) && !sw_check__covers(cb->path, ca->path))) {
        return false;
    }
    if (ka->kind == SW_PLACE_TOKEN && kb->kind == SW_PLACE_TOKEN && !a->token.mint.on &&
        !b->token.mint.on) {
        return false; /* another's token, only read here: any number of apps may ask who comes */
    }
    if (a->app != b->app || ka->kind != kb->kind || !sw_slice_eq(ca->path, cb->path)) {
        cookie_clash(x, a, ka, b, kb, node);
        return true;
    }
    return ka->kind == SW_PLACE_SESSION && seal_clash(x, a, b, node);
}

static bool route_clash(struct sw_config_ctx *x, const struct sw_config_route *a,
                        const struct sw_config_route *b, const struct kept *kept_b, size_t count_b)
{
    struct kept kept_a[KEPT_MAX];
    size_t count_a = cookies_of(a, kept_a);

    for (size_t j = 0; j < count_b; j++) {
        for (size_t i = 0; i < count_a; i++) {
            if (pair_clash(x, a, &kept_a[i], b, &kept_b[j], x->route_nodes[b->index])) {
                return true;
            }
        }
    }
    return false;
}

void sw_check__cookies(struct sw_config_ctx *x)
{
    const struct sw_config *c = x->config;

    for (size_t j = 0; j < c->route_count; j++) {
        const struct sw_config_route *b = &c->routes[j];
        struct kept kept[KEPT_MAX];
        size_t count = cookies_of(b, kept);

        if (count == 0 || !fine(sw_node__get(x->route_nodes[j], "app")) ||
            own_clash(x, kept, count, x->route_nodes[j])) {
            continue;
        }
        for (size_t i = 0; i < j; i++) {
            const struct sw_config_route *a = &c->routes[i];

            if (fine(sw_node__get(x->route_nodes[i], "app")) && hosts_meet(a->host, b->host) &&
                route_clash(x, a, b, kept, count)) {
                break; /* one complaint a route */
            }
        }
    }
}
