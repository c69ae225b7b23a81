/* http/target.c - the request target (RFC 9112, 3.2) and Host (RFC 9110, 7.2).
 *
 * Room       http/. Refuses what a router and an app could take for two different places.
 */
#include "http/http_priv.h"

#include <arpa/inet.h>

/* ---- authority ------------------------------------------------------------------------------- */

static bool port_valid(struct sw_slice s)
{
    uint64_t port;

    /* RFC 3986, 3.2.3 allows an empty port and any number; readers disagree on both. */
    return s.len <= 5 && sw_slice_u64(s, &port) && port <= 65535;
}

static bool ipv6_valid(struct sw_slice s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;

    if (s.len >= sizeof(text)) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        if (!sw_http__is(s.ptr[i], SW_CC_HEX) && s.ptr[i] != ':' && s.ptr[i] != '.') {
            return false; /* no zone: it has a meaning on one host only (RFC 6874) */
        }
        text[i] = s.ptr[i];
    }
    text[s.len] = '\0';
    return inet_pton(AF_INET6, text, &addr) == 1;
}

bool sw_http__authority(struct sw_slice s, struct sw_slice *ret_host, struct sw_slice *ret_port)
{
    struct sw_slice host, rest;
    size_t i = 0;

    if (s.len == 0) {
        return false;
    }
    if (s.ptr[0] == '[') {
        i = sw_slice_find(s, ']');
        if (i == s.len || !ipv6_valid(sw_slice_of(s.ptr + 1, i - 1))) {
            return false;
        }
        i++;
    } else {
        /* RFC 3986, 3.2.2 also has sub-delims and percent escapes in names: nobody uses them, and
         * a comma or an escape is read differently. */
        while (i < s.len && sw_http__is(s.ptr[i], SW_CC_HOST)) {
            i++;
        }
        if (i == 0) {
            return false;
        }
    }
    host = sw_slice_head(s, i);
    rest = sw_slice_tail(s, i);
    if (rest.len > 0 && (rest.ptr[0] != ':' || !port_valid(sw_slice_tail(rest, 1)))) {
        return false;
    }
    *ret_host = host;
    *ret_port = sw_slice_tail(rest, 1);
    return true;
}

/* ---- path ------------------------------------------------------------------------------------ */

/* The byte of an escape at p; -1 when it is malformed. */
static int escape(const char *p, const char *end)
{
    if (end - p < 3 || !sw_http__is(p[1], SW_CC_HEX) || !sw_http__is(p[2], SW_CC_HEX)) {
        return -1;
    }
    return (int)(sw_http__hex(p[1]) << 4 | sw_http__hex(p[2]));
}

/* Does a segment that begins at p consist of one or two dots, in any spelling? What ends it is not
 * only '/': some readers decode %2f and %5c first, and some cut parameters at ';' first. */
static bool dot_segment(const char *p, const char *end)
{
    unsigned dots = 0;

    while (p < end && dots < 3) {
        if (*p == '.') {
            p++;
        } else if (*p == '%' && escape(p, end) == '.') {
            p += 3;
        } else {
            break;
        }
        dots++;
    }
    if (dots == 0 || dots > 2) {
        return false;
    }
    if (p < end && *p == '%') {
        int c = escape(p, end);

        return c == '/' || c == '\\' || c == ';';
    }
    return p == end || *p == '/' || *p == ';' || *p == '?';
}

/* Checks path and query at p, which begins with '/' (or, in absolute form, '?' or nothing). */
static enum sw_err path_query(struct sw_head *h, const char *p, const char *end)
{
    const char *start = p;

    h->query = (struct sw_slice){NULL, 0};
    while (p < end) {
        int c;

        if (SW_LIKELY(sw_http__is(*p, SW_CC_PATH))) {
            p++;
            continue;
        }
        switch (*p) {
        case '/':
            p++;
            if (p < end && (*p == '.' || *p == '%') && dot_segment(p, end)) {
                return SW_E_TARGET; /* RFC 3986, 5.2.4: removed by some, a way out for others */
            }
            continue;
        case '%':
            c = escape(p, end);
            if (c <= 0 || (c == '\r' && end - p >= 6 && escape(p + 3, end) == '\n')) {
                return SW_E_TARGET; /* RFC 3986, 2.1; NUL ends a string, CR LF a header line */
            }
            p += 3;
            if ((c == '/' || c == '\\') && dot_segment(p, end)) {
                return SW_E_TARGET; /* as above, for those who decode first */
            }
            continue;
        case '?':
            h->query = sw_slice_of(p + 1, (size_t)(end - p - 1));
            if (sw_slice_find(h->query, '#') < h->query.len) {
                return SW_E_TARGET; /* RFC 9112, 3.2: a target has no fragment */
            }
            h->path = sw_slice_of(start, (size_t)(p - start));
            return SW_OK;
        default: /* '#' as above; '\', which some read as '/' */
            return SW_E_TARGET;
        }
    }
    h->path = sw_slice_of(start, (size_t)(p - start));
    return SW_OK;
}

/* ---- target ---------------------------------------------------------------------------------- */

/* RFC 9112, 3.2.2. Same place, with the scheme's default port or without it? */
static bool agree(struct sw_slice authority, struct sw_slice field, struct sw_slice default_port)
{
    struct sw_slice host_a, port_a, host_b, port_b;

    if (!sw_http__authority(authority, &host_a, &port_a) ||
        !sw_http__authority(field, &host_b, &port_b)) {
        return false;
    }
    port_a = port_a.len == 0 ? default_port : port_a;
    port_b = port_b.len == 0 ? default_port : port_b;
    return sw_slice_eq_nocase(host_a, host_b) && sw_slice_eq(port_a, port_b);
}

enum sw_err sw_http__target(struct sw_head *h, const struct sw_field *host)
{
    const char *p = h->target.ptr, *const end = p + h->target.len, *start;
    struct sw_slice authority, scheme_port, name, port;
    enum sw_err err;

    SW_ASSERT(h->target.len > 0);
    if (h->method == SW_METHOD_CONNECT) {
        return SW_E_METHOD_REFUSED; /* we are no tunnel: RFC 9110, 9.3.6 */
    }
    /* RFC 9112, 3.2: a Host that is not valid is refused, whatever the target says. */
    if (host != NULL && !sw_http__authority(host->value, &name, &port)) {
        return SW_E_HOST;
    }
    h->host = host != NULL ? host->value : SW_S("");

    if (*p == '/') {
        return path_query(h, p, end);
    }
    if (*p == '*') {
        /* RFC 9112, 3.2.4 */
        if (h->target.len != 1 || h->method != SW_METHOD_OPTIONS) {
            return SW_E_TARGET;
        }
        h->path = h->target;
        h->query = (struct sw_slice){NULL, 0};
        return SW_OK;
    }

    if (sw_slice_starts_nocase(h->target, SW_S("http://"))) {
        p += 7;
        scheme_port = SW_S("80");
    } else if (sw_slice_starts_nocase(h->target, SW_S("https://"))) {
        p += 8;
        scheme_port = SW_S("443");
    } else {
        return SW_E_TARGET; /* no form of RFC 9112, 3.2 that is served here */
    }
    start = p;
    while (p < end && *p != '/' && *p != '?') {
        p++;
    }
    authority = sw_slice_of(start, (size_t)(p - start));
    if (!sw_http__authority(authority, &name, &port)) {
        return SW_E_TARGET; /* also userinfo: RFC 9110, 4.2.4 */
    }
    if (host != NULL && !agree(authority, host->value, scheme_port)) {
        return SW_E_HOST; /* RFC 9112, 3.2.2: one routes by the target, another by Host */
    }
    h->host = authority;
    err = path_query(h, p, end);
    if (err == SW_OK && h->path.len == 0) {
        /* RFC 9112, 3.2.1 and 3.2.4 */
        h->path = h->method == SW_METHOD_OPTIONS && h->query.ptr == NULL ? SW_S("*") : SW_S("/");
    }
    return err;
}
