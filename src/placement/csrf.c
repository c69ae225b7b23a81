/* placement/csrf.c - a cookie is sent along by the browser whoever caused the request: a request
 * that may change something must come from this site.
 *
 * SameSite keeps most of it away; this is the check behind it (Fetch Metadata, and
 * Origin, RFC 6454, 7). What is no browser sends neither and is not concerned: it carries no
 * cookies that somebody else could use.
 */
#include "placement/placement_priv.h"

/* "https://shop.example:8443" -> "shop.example:8443"; empty for "null" and nonsense. */
static struct sw_slice origin_host(struct sw_slice origin)
{
    size_t at = sw_slice_find_slice(origin, SW_S("://"));

    return at < origin.len ? sw_slice_tail(origin, at + 3) : (struct sw_slice){NULL, 0};
}

static struct sw_slice public_host(const struct sw_ask *ask)
{
    const struct sw_field *forwarded =
        ask->trusted ? sw_head_find(ask->request, SW_FIELD_X_FORWARDED_HOST) : NULL;

    return forwarded == NULL ? ask->request->host : forwarded->value;
}

static bool carries_our_cookie(const struct sw_ask *ask)
{
    struct sw_slice names[SW_OWN_COOKIES_MAX];
    char text[SW_OWN_COOKIES_TEXT];
    size_t count = sw_place_own_cookies(ask->routed->route, names, text);

    for (size_t i = 0; i < count; i++) {
        if (sw_cookie_find(ask->request, names[i]).count > 0) {
            return true;
        }
    }
    return false;
}

bool sw_place_cross_site(const struct sw_ask *ask)
{
    const struct sw_field *site, *origin;

    if (!ask->routed->route->csrf ||
        (sw_method_safe(ask->request->method, ask->request->method_name) &&
         ask->request->upgrade.len == 0) || /* a WebSocket is no harmless read */
        !carries_our_cookie(ask)) {
        return false;
    }
    site = sw_head_find(ask->request, SW_FIELD_SEC_FETCH_SITE);
    if (site != NULL) {
        return !sw_slice_eq(site->value, SW_S("same-origin")) &&
               !sw_slice_eq(site->value, SW_S("none"));
    }
    origin = sw_head_find(ask->request, SW_FIELD_ORIGIN);
    return origin != NULL && !sw_slice_eq_nocase(origin_host(origin->value), public_host(ask));
}
