/* admin/ask.c - may this request be answered, and by what?
 *
 * Room       admin/. Pure.
 * Flow       conn.c hands in what it read; admin.c answers, or tells the refusal.
 *
 * GET | HEAD  /healthz /readyz                         anybody
 * GET | HEAD  /metrics /v1/apps /v1/status             who has the token, if there is one
 * POST        /v1/apps/{app}/roll                      the same, and with the guard
 * POST        /v1/instances/{app}/{n}/drain|undrain|kill
 *
 * The guard is a header that no form and no image of a foreign page can send, and that a script of
 * one can send only after a CORS preflight, which is never granted here. There are two spellings
 * because a gateway strips Stateway-* from requests that come through it.
 *
 * A page whose name was rebound to this address (DNS rebinding) is same-origin to its browser, and
 * may send the guard. So a command from a browser (it has Origin) must name this listener by
 * address or as localhost. Not asked: with a token, which such a page does not know; with Via,
 * which scripts cannot set and a gateway in between does. What GET shows is no secret.
 */
#include "admin/admin_priv.h"

static bool app_name(struct sw_slice s)
{
    if (s.len == 0 || s.len > 63) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) {
            return false;
        }
    }
    return true;
}

/* 1..4294967295 without leading zeros: "shop/01" names nothing. */
static bool slot_number(struct sw_slice s)
{
    uint64_t n;

    return s.len <= 10 && sw_slice_u64(s, &n) && s.ptr[0] != '0' && n <= UINT32_MAX;
}

static struct sw_admin_routed app_command(struct sw_slice rest)
{
    struct sw_slice app, command;

    if (sw_slice_cut(rest, '/', &app, &command) && app_name(app) &&
        sw_slice_eq(command, SW_S("roll"))) {
        return (struct sw_admin_routed){ADMIN_ROLL, app};
    }
    return (struct sw_admin_routed){ADMIN_NOWHERE, {NULL, 0}};
}

static struct sw_admin_routed instance_command(struct sw_slice rest)
{
    static const struct {
        struct sw_slice name;
        enum sw_admin_endpoint endpoint;
    } commands[] = {
        {SW_S("drain"), ADMIN_DRAIN},
        {SW_S("undrain"), ADMIN_UNDRAIN},
        {SW_S("kill"), ADMIN_KILL},
    };
    struct sw_slice app, slot, more, command;

    if (sw_slice_cut(rest, '/', &app, &more) && sw_slice_cut(more, '/', &slot, &command) &&
        app_name(app) && slot_number(slot)) {
        for (size_t i = 0; i < SW_COUNTOF(commands); i++) {
            if (sw_slice_eq(command, commands[i].name)) {
                return (struct sw_admin_routed){commands[i].endpoint,
                                                {rest.ptr, app.len + 1 + slot.len}};
            }
        }
    }
    return (struct sw_admin_routed){ADMIN_NOWHERE, {NULL, 0}};
}

struct sw_admin_routed sw_admin__route(struct sw_slice path)
{
    static const struct {
        struct sw_slice path;
        enum sw_admin_endpoint endpoint;
    } pages[] = {
        {SW_S("/healthz"), ADMIN_HEALTHZ},  {SW_S("/readyz"), ADMIN_READYZ},
        {SW_S("/metrics"), ADMIN_METRICS},  {SW_S("/v1/apps"), ADMIN_APPS},
        {SW_S("/v1/status"), ADMIN_STATUS},
    };
    static const struct sw_slice apps = SW_S("/v1/apps/"), instances = SW_S("/v1/instances/");

    for (size_t i = 0; i < SW_COUNTOF(pages); i++) {
        if (sw_slice_eq(path, pages[i].path)) {
            return (struct sw_admin_routed){pages[i].endpoint, {NULL, 0}};
        }
    }
    if (sw_slice_starts(path, apps)) {
        return app_command(sw_slice_tail(path, apps.len));
    }
    if (sw_slice_starts(path, instances)) {
        return instance_command(sw_slice_tail(path, instances.len));
    }
    return (struct sw_admin_routed){ADMIN_NOWHERE, {NULL, 0}};
}

static bool commands_something(enum sw_admin_endpoint endpoint)
{
    return endpoint >= ADMIN_ROLL;
}

const char *sw_admin__allow(enum sw_admin_endpoint endpoint)
{
    return commands_something(endpoint) ? "POST" : "GET, HEAD";
}

/* RFC 6750, 2.1; the scheme's name in any case (RFC 9110, 11.1). */
static bool token_is(struct sw_slice authorization, struct sw_slice token)
{
    static const struct sw_slice scheme = SW_S("Bearer ");

    if (!sw_slice_starts_nocase(authorization, scheme)) {
        return false;
    }
    return sw_slice_eq_secret(sw_slice_trim(sw_slice_tail(authorization, scheme.len)), token);
}

/* 127.0.0.1:9000, [::1]:9000, localhost: what no name server answers for. No name in the DNS
 * consists of digits and dots. */
static bool host_is_address(struct sw_slice host)
{
    struct sw_slice name, port;

    if (host.len > 0 && host.ptr[0] == '[') {
        return true;
    }
    (void)sw_slice_cut(host, ':', &name, &port);
    if (sw_slice_eq_nocase(name, SW_S("localhost"))) {
        return true;
    }
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] != '.' && (name.ptr[i] < '0' || name.ptr[i] > '9')) {
            return false;
        }
    }
    return name.len > 0;
}

enum sw_admin_verdict sw_admin__judge(const struct sw_admin_ask *ask, struct sw_slice token,
                                      struct sw_admin_routed *ret_routed)
{
    struct sw_admin_routed r = sw_admin__route(ask->path);
    bool open = r.endpoint == ADMIN_HEALTHZ || r.endpoint == ADMIN_READYZ;
    bool reads = ask->method == SW_METHOD_GET || ask->method == SW_METHOD_HEAD;

    *ret_routed = r;
    if (!open && token.len > 0 && !token_is(ask->authorization, token)) {
        return ADMIN_NO_TOKEN;
    }
    if (r.endpoint == ADMIN_NOWHERE) {
        return ADMIN_NO_PLACE;
    }
    if (commands_something(r.endpoint) ? ask->method != SW_METHOD_POST : !reads) {
        return ADMIN_NO_METHOD;
    }
    if (commands_something(r.endpoint)) {
        if (!ask->has_guard) {
            return ADMIN_NO_GUARD;
        }
        if (sw_slice_eq_nocase(ask->fetch_site, SW_S("cross-site"))) {
            return ADMIN_CROSS;
        }
        if (ask->has_origin && !ask->has_via && token.len == 0 && !host_is_address(ask->host)) {
            return ADMIN_REBOUND;
        }
    }
    return ADMIN_ALLOWED;
}
