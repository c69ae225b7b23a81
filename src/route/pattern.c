/* route/pattern.c - what a host and a path pattern mean, and which of two is more specific. */
#include "route/route_priv.h"

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

struct sw_slice sw_pattern__host(struct sw_slice host, char buf[SW_HOST_BYTES_MAX])
{
    size_t colon = host.len;

    /* The port: behind the last colon, but not one inside [::1]. */
    for (size_t i = host.len; i > 0 && host.ptr[i - 1] != ']'; i--) {
        if (host.ptr[i - 1] == ':') {
            colon = i - 1;
        }
    }
    host.len = colon;
    if (host.len > 1 && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    if (host.len > SW_HOST_BYTES_MAX) {
        return (struct sw_slice){NULL, 0};
    }
    for (size_t i = 0; i < host.len; i++) {
        buf[i] = lower(host.ptr[i]);
    }
    return sw_slice_of(buf, host.len);
}

static bool unreserved(unsigned c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

static int digit(char c)
{
    c = lower(c);
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 3986, 6.2.2.1 and 6.2.2.2: decode what needs no encoding, the rest with capital digits. */
struct sw_slice sw_pattern__segment(struct sw_slice segment, char buf[SW_SEGMENT_BYTES_MAX])
{
    static const char hex[] = "0123456789ABCDEF";
    size_t len = 0;

    if (segment.len == 0) {
        return SW_S("");
    }
    if (sw_slice_find(segment, '%') == segment.len) {
        return segment.len <= SW_SEGMENT_BYTES_MAX ? segment : (struct sw_slice){NULL, 0};
    }
    for (size_t i = 0; i < segment.len; i++) {
        int high = -1, low = -1;

        if (SW_SEGMENT_BYTES_MAX - len < 3) {
            return (struct sw_slice){NULL, 0};
        }
        if (segment.ptr[i] == '%' && segment.len - i > 2) {
            high = digit(segment.ptr[i + 1]);
            low = digit(segment.ptr[i + 2]);
        }
        if (high < 0 || low < 0) {
            buf[len++] = segment.ptr[i];
            continue;
        }
        i += 2;
        if (unreserved((unsigned)(high * 16 + low))) {
            buf[len++] = (char)(high * 16 + low);
        } else {
            buf[len++] = '%';
            buf[len++] = hex[high];
            buf[len++] = hex[low];
        }
    }
    return sw_slice_of(buf, len);
}

struct sw_slice sw_pattern__next(struct sw_slice *path)
{
    struct sw_slice rest = sw_slice_tail(*path, 1), segment;
    size_t end = sw_slice_find(rest, '/');

    SW_ASSERT(path->len > 0 && path->ptr[0] == '/');
    segment = sw_slice_head(rest, end);
    *path = sw_slice_tail(rest, end);
    return segment;
}

/* ---- taking apart
 * -------------------------------------------------------------------------------- */

static bool take_path(struct sw_slice path, struct sw_arena *arena, struct sw_one *one)
{
    struct sw_segment *segments;
    size_t count = 0;
    bool captures = false;

    for (size_t i = 0; i < path.len; i++) {
        count += path.ptr[i] == '/' ? 1 : 0;
    }
    segments = sw_arena_array(arena, count, struct sw_segment);
    if (segments == NULL) {
        return false;
    }
    one->path_kind = SW_PATH_EXACT;
    while (path.len > 0) {
        struct sw_slice raw = sw_pattern__next(&path);
        struct sw_segment *s = &segments[one->segment_count];
        char buf[SW_SEGMENT_BYTES_MAX];

        if (sw_slice_eq(raw, SW_S("*"))) {
            SW_ASSERT(path.len == 0); /* config/ refused it anywhere else */
            one->path_kind = SW_PATH_STAR;
            break;
        }
        SW_ASSERT(one->segment_count < SW_ROUTE_SEGMENTS_MAX); /* so a walk down the tree ends */
        if (raw.len > 2 && raw.ptr[0] == '{') {
            s->capture = true;
            s->text = sw_slice_of(raw.ptr + 1, raw.len - 2);
            captures = true;
        } else {
            s->text = sw_arena_copy(arena, sw_pattern__segment(raw, buf));
            one->literals++;
            if (s->text.ptr == NULL) {
                return false;
            }
        }
        one->segment_count++;
    }
    if (captures && one->path_kind == SW_PATH_EXACT) {
        one->path_kind = SW_PATH_TEMPLATE;
    }
    one->segments = segments;
    return true;
}

bool sw_pattern__one(const struct sw_config_route *config, struct sw_arena *arena,
                     struct sw_one *ret_one)
{
    struct sw_one one = {.config = config, .host_kind = SW_HOST_ANY};
    char buf[SW_HOST_BYTES_MAX];

    SW_ASSERT(config->path.len > 0 && config->path.ptr[0] == '/');
    if (config->host.len > 0) {
        bool wild = sw_slice_starts(config->host, SW_S("*."));
        struct sw_slice host = sw_pattern__host(sw_slice_tail(config->host, wild ? 2 : 0), buf);

        SW_ASSERT(host.ptr != NULL);
        one.host_kind = wild ? SW_HOST_WILD : SW_HOST_EXACT;
        one.host = sw_arena_copy(arena, host);
    }
    if (!take_path(config->path, arena, &one) || arena->overflowed) {
        return false;
    }
    *ret_one = one;
    return true;
}

/* ---- order
 * --------------------------------------------------------------------------------------- */

static int more_first(size_t a, size_t b)
{
    return a > b ? -1 : a < b ? 1 : 0;
}

static int bytes_order(struct sw_slice a, struct sw_slice b)
{
    size_t both = SW_MIN(a.len, b.len);
    int c = both > 0 ? memcmp(a.ptr, b.ptr, both) : 0;

    return c != 0 ? c : more_first(b.len, a.len);
}

static int path_order(const struct sw_one *a, const struct sw_one *b)
{
    int c;

    if (a->path_kind != b->path_kind) {
        return a->path_kind < b->path_kind ? -1 : 1;
    }
    c = more_first(a->literals, b->literals);
    if (c == 0) {
        c = more_first(a->segment_count, b->segment_count);
    }
    for (uint32_t i = 0; c == 0 && i < a->segment_count; i++) {
        c = more_first(!a->segments[i].capture, !b->segments[i].capture);
    }
    /* Equally specific and different, so no path matches both: any order, but always the same. */
    for (uint32_t i = 0; c == 0 && i < a->segment_count; i++) {
        if (!a->segments[i].capture) {
            c = bytes_order(a->segments[i].text, b->segments[i].text);
        }
    }
    return c;
}

int sw_pattern__order(const struct sw_one *a, const struct sw_one *b)
{
    int c;

    if (a->host_kind != b->host_kind) {
        return a->host_kind < b->host_kind ? -1 : 1;
    }
    c = more_first(a->host.len, b->host.len);
    if (c == 0) {
        c = bytes_order(a->host, b->host);
    }
    if (c == 0) {
        c = path_order(a, b);
    }
    if (c == 0) {
        c = more_first(a->config->method_count > 0, b->config->method_count > 0);
    }
    if (c == 0) {
        c = more_first(a->config->header_count, b->config->header_count);
    }
    return c != 0 ? c : more_first(b->config->index, a->config->index);
}

/* ---- one route against one request
 * ----------------------------------------------------------------- */

bool sw_pattern__host_matches(const struct sw_one *one, struct sw_slice host)
{
    switch (one->host_kind) {
    case SW_HOST_EXACT:
        return host.len > 0 && sw_slice_eq(one->host, host);
    case SW_HOST_WILD:
        return host.len > one->host.len + 1 && sw_slice_ends(host, one->host) &&
               host.ptr[host.len - one->host.len - 1] == '.';
    case SW_HOST_ANY:
        return true;
    }
    SW_UNREACHABLE();
}

bool sw_pattern__path_matches(const struct sw_one *one, struct sw_slice path)
{
    char buf[SW_SEGMENT_BYTES_MAX];

    if (path.len == 0 || path.ptr[0] != '/') {
        return false;
    }
    for (uint32_t i = 0; i < one->segment_count; i++) {
        struct sw_slice raw;

        if (path.len == 0) {
            return false;
        }
        raw = sw_pattern__next(&path);
        if (one->segments[i].capture
                ? raw.len == 0
                : !sw_slice_eq(sw_pattern__segment(raw, buf), one->segments[i].text)) {
            return false;
        }
    }
    return one->path_kind == SW_PATH_STAR || path.len == 0;
}

bool sw_pattern__method_matches(const struct sw_config_route *route, struct sw_slice method)
{
    for (size_t i = 0; i < route->method_count; i++) {
        if (sw_slice_eq(route->methods[i], method)) {
            return true;
        }
    }
    return route->method_count == 0;
}

bool sw_pattern__headers_match(const struct sw_config_route *route, const struct sw_head *head)
{
    for (size_t i = 0; i < route->header_count; i++) {
        bool found = false;

        for (uint32_t f = 0; f < head->field_count && !found; f++) {
            found = sw_slice_eq_nocase(head->fields[f].name, route->headers[i].name) &&
                    sw_slice_eq(head->fields[f].value, route->headers[i].value);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

struct sw_slice sw_route_strip(const struct sw_config_route *route, struct sw_slice path)
{
    struct sw_slice strip = route->strip, rest = path;

    while (strip.len > 0 && rest.len > 0 && rest.ptr[0] == '/') {
        (void)sw_pattern__next(&strip);
        (void)sw_pattern__next(&rest);
    }
    return sw_slice_head(path, path.len - rest.len);
}
