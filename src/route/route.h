/* route/route.h - request head -> route: the most specific wins, whatever the order.
 *
 * Room       Pure. Compiled once from a snapshot; any thread reads it. pattern.c (what a host and a
 *            path pattern mean, and which is more specific), route.c (compiling, matching),
 *            explain.c (the same in words).
 * May touch  base/, http/, config/.
 *
 * Order of specificity, first difference decides:
 *   host     exact, longer wildcard, shorter wildcard, any;
 *   path     exact; then templates ({name}, no star) and then those with a star, each by more
 * literal segments, more segments, the earlier literal segment; methods  a list before any; headers
 * more before fewer; then the earlier line.
 *
 * Hosts compare without case, port and one dot at the end. Paths compare segment by segment, with
 * percent-encoded unreserved characters decoded (%61 is a; RFC 3986, 6.2.2) and case kept; %2F is
 * never a separator. "/cart/" is not "/cart", but "/cart/?" with a star for the ? is both. The "*"
 * of OPTIONS * is routed like "/".
 */
#ifndef SW_ROUTE_H
#define SW_ROUTE_H

#include "base/arena.h"
#include "config/config.h"
#include "http/http.h"

#define SW_ROUTE_CAPTURES_MAX 8

struct sw_routes; /* compiled */

struct sw_capture {
    struct sw_slice name, value; /* value: as it stands in the path, still percent-encoded */
};

struct sw_routed {
    enum sw_err err; /* SW_OK, SW_E_NO_ROUTE, SW_E_NO_METHOD */
    const struct sw_config_route *route;
    struct sw_capture captures[SW_ROUTE_CAPTURES_MAX];
    uint32_t capture_count;
    struct sw_slice allow; /* for SW_E_NO_METHOD: the value of Allow; lives in r */
};

/* NULL: no memory. The config must outlive it. */
struct sw_routes *sw_routes_new(const struct sw_config *config);
void sw_routes_free(struct sw_routes *r);
struct sw_routed sw_route_match(const struct sw_routes *r, const struct sw_head *head);

/* What the route's `strip` means in this path: the bytes at its front to cut, as they stand (they
 * may be percent-encoded otherwise than in the configuration). Empty: nothing. path must have been
 * matched by the route. This is what sw_forward_request.strip wants. */
struct sw_slice sw_route_strip(const struct sw_config_route *route, struct sw_slice path);

/* Two routes that no request can tell apart are an error of the configuration: NULL or a text in
 * arena (NUL-terminated) that names both lines. */
const char *sw_routes_ambiguous(const struct sw_routes *r, struct sw_arena *arena);

/* For `stateway check --explain`: every route whose host and path match, best first, with what is
 * decided about each; of the others the first few with the reason. Ends with who answers. */
void sw_route_explain(const struct sw_routes *r, const struct sw_head *head, struct sw_out *out);

#endif
