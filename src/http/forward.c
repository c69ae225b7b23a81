/* http/forward.c - the head that goes on, composed from what was parsed.
 *
 * Room       http/. Re-encodes what was understood; no byte of the received head is copied that is
 *            not a method, path, query, field or reason the reader took apart.
 *
 * Who says where a request came from (RFC 7239, and the older X-Forwarded-*):
 *   peer not trusted   every Forwarded and X-Forwarded-* of its is dropped, ours are put
 *   peer trusted       lists of addresses are extended by the peer; proto and host stay when
 *                      present; what is there in one spelling only is put in the other too, so
 *                      that an app reads the same from both
 */
#include "http/http_priv.h"

/* ---- shared by requests and responses -------------------------------------------------------- */

struct nominated {
    struct sw_slice names[SW_CONNECTION_OPTIONS_MAX];
    size_t count;
};

/* The field names that Connection lists (RFC 9110, 7.6.1). */
static void nominate(const struct sw_head *h, struct nominated *ret_n)
{
    ret_n->count = 0;
    for (uint32_t i = 0; i < h->field_count; i++) {
        struct sw_slice rest = h->fields[i].value, element;

        if (h->fields[i].id != SW_FIELD_CONNECTION || sw_slice_eq(rest, SW_S("keep-alive"))) {
            continue;
        }
        while (sw_http__list_next(&rest, false, &element)) {
            if (sw_slice_eq_nocase(element, SW_S("close")) ||
                sw_slice_eq_nocase(element, SW_S("keep-alive"))) {
                continue;
            }
            if (ret_n->count < SW_COUNTOF(ret_n->names)) { /* the reader allows no more */
                ret_n->names[ret_n->count++] = element;
            }
        }
    }
}

/* Only names without an id can vanish that way: the others are either taken out anyway, or a
 * client could hide from the app what it must see (Cookie, Authorization, Forwarded, Via...). */
static bool is_nominated(const struct nominated *n, struct sw_slice name)
{
    if (SW_LIKELY(n->count == 0) || sw_slice_starts_nocase(name, SW_S("content-")) ||
        sw_http__is_x_forwarded(name)) {
        return false;
    }
    for (size_t i = 0; i < n->count; i++) {
        if (sw_slice_eq_nocase(n->names[i], name)) {
            return true;
        }
    }
    return false;
}

static void put_line(struct sw_out *out, struct sw_slice name, struct sw_slice value)
{
    const size_t size = name.len + 2 + value.len + 2;
    char *p;

    if (SW_UNLIKELY(size > out->cap - out->len || name.len == 0)) {
        sw_out_slice(out, name);
        sw_out_lit(out, ": ");
        sw_out_slice(out, value);
        sw_out_lit(out, "\r\n");
        return;
    }
    p = out->ptr + out->len; /* one check for the line */
    out->len += size;
    memcpy(p, name.ptr, name.len);
    p += name.len;
    memcpy(p, ": ", 2);
    p += 2;
    if (value.len > 0) {
        memcpy(p, value.ptr, value.len);
        p += value.len;
    }
    memcpy(p, "\r\n", 2);
}

static void put_length(struct sw_out *out, uint64_t length)
{
    sw_out_lit(out, "Content-Length: ");
    sw_out_u64(out, length);
    sw_out_lit(out, "\r\n");
}

/* RFC 9110, 7.6.3: appended behind those that came. */
static void put_via(struct sw_out *out, const struct sw_head *h)
{
    if (h->minor == 0) {
        sw_out_lit(out, "Via: 1.0 stateway\r\n");
    } else {
        sw_out_lit(out, "Via: 1.1 stateway\r\n");
    }
}

static void put_status(struct sw_out *out, uint16_t status)
{
    sw_out_char(out, (char)('0' + status / 100));
    sw_out_char(out, (char)('0' + status / 10 % 10));
    sw_out_char(out, (char)('0' + status % 10));
}

/* ---- cookies --------------------------------------------------------------------------------- */

static bool is_ours(const struct sw_forward_request *f, struct sw_slice pair)
{
    struct sw_slice name, value;

    (void)sw_slice_cut(pair, '=', &name, &value);
    name = sw_slice_trim(name);
    for (size_t i = 0; i < f->cookies_stripped_count; i++) {
        if (sw_slice_eq(name, f->cookies_stripped[i])) {
            return true;
        }
    }
    return false;
}

/* One Cookie line of all Cookie fields, without ours; none when nothing is left. */
static void put_cookies(struct sw_out *out, const struct sw_forward_request *f)
{
    bool any = false;

    for (uint32_t i = 0; i < f->head->field_count; i++) {
        struct sw_slice rest = f->head->fields[i].value, pair;

        if (f->head->fields[i].id != SW_FIELD_COOKIE) {
            continue;
        }
        while (rest.len > 0) {
            (void)sw_slice_cut(rest, ';', &pair, &rest);
            pair = sw_slice_trim(pair);
            if (pair.len == 0 || is_ours(f, pair)) {
                continue;
            }
            if (any) {
                sw_out_lit(out, "; ");
            } else {
                sw_out_lit(out, "Cookie: ");
            }
            sw_out_slice(out, pair);
            any = true;
        }
    }
    if (any) {
        sw_out_lit(out, "\r\n");
    }
}

/* ---- where it came from ---------------------------------------------------------------------- */

static bool is_proto(struct sw_slice s)
{
    return sw_slice_eq(s, SW_S("http")) || sw_slice_eq(s, SW_S("https"));
}

static bool is_host(struct sw_slice s)
{
    struct sw_slice host, port;

    return sw_http__authority(s, &host, &port);
}

/* An address, as far as its bytes go; ret_v6: it needs brackets. */
static bool is_address(struct sw_slice s, bool *ret_v6)
{
    *ret_v6 = sw_slice_find(s, ':') < s.len;
    for (size_t i = 0; i < s.len; i++) {
        if (!sw_http__is(s.ptr[i], *ret_v6 ? SW_CC_HEX : SW_CC_DIGIT) && s.ptr[i] != '.' &&
            s.ptr[i] != ':') {
            return false;
        }
    }
    return s.len > 0;
}

/* A parameter of one Forwarded element (RFC 7239, 4), without quotes; ptr NULL when missing. */
static struct sw_slice forwarded_param(struct sw_slice element, struct sw_slice name)
{
    size_t i = 0;

    while (i < element.len) {
        struct sw_slice key, value;
        size_t start = i;

        while (i < element.len && element.ptr[i] != '=' && element.ptr[i] != ';') {
            i++;
        }
        key = sw_slice_trim(sw_slice_of(element.ptr + start, i - start));
        if (i == element.len || element.ptr[i] == ';') {
            i++;
            continue;
        }
        start = ++i;
        if (i < element.len && element.ptr[i] == '"') {
            start = ++i;
            while (i < element.len && element.ptr[i] != '"') {
                i += element.ptr[i] == '\\' && i + 1 < element.len ? 2 : 1;
            }
            value = sw_slice_of(element.ptr + start, SW_MIN(i, element.len) - start);
            while (i < element.len && element.ptr[i] != ';') {
                i++;
            }
        } else {
            while (i < element.len && element.ptr[i] != ';') {
                i++;
            }
            value = sw_slice_trim(sw_slice_of(element.ptr + start, i - start));
        }
        i++;
        if (sw_slice_eq_nocase(key, name)) {
            return value;
        }
    }
    return (struct sw_slice){NULL, 0};
}

static bool quotes_closed(struct sw_slice s)
{
    bool quoted = false;

    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"') {
            quoted = !quoted;
        } else if (s.ptr[i] == '\\' && quoted) {
            i++;
        }
    }
    return !quoted;
}

/* RFC 7239, 6: an IPv6 address in brackets and quotes; what is no address is "unknown". */
static void put_node(struct sw_out *out, struct sw_slice address)
{
    bool v6;

    if (!is_address(address, &v6)) {
        sw_out_lit(out, "for=unknown");
    } else if (v6) {
        sw_out_lit(out, "for=\"[");
        sw_out_slice(out, address);
        sw_out_lit(out, "]\"");
    } else {
        sw_out_lit(out, "for=");
        sw_out_slice(out, address);
    }
}

static void put_host_proto(struct sw_out *out, struct sw_slice host, struct sw_slice proto)
{
    if (host.len > 0) {
        bool token = sw_http__token(host); /* a colon or bracket must be quoted: RFC 7239, 4 */

        sw_out_lit(out, ";host=");
        if (!token) {
            sw_out_char(out, '"');
        }
        sw_out_slice(out, host);
        if (!token) {
            sw_out_char(out, '"');
        }
    }
    if (proto.len > 0) {
        sw_out_lit(out, ";proto=");
        sw_out_slice(out, proto);
    }
}

/* Walks the elements of all fields with that id; *at begins with 0. */
struct walk {
    const struct sw_head *head;
    struct sw_slice rest;
    uint32_t at;
};

static bool walk_next(struct walk *w, enum sw_field_id id, struct sw_slice *ret_element)
{
    while (!sw_http__list_next(&w->rest, true, ret_element)) {
        while (w->at < w->head->field_count && w->head->fields[w->at].id != id) {
            w->at++;
        }
        if (w->at == w->head->field_count) {
            return false;
        }
        w->rest = w->head->fields[w->at++].value;
    }
    return true;
}

/* The three lines for a peer that nobody vouches for. */
static void put_origin(struct sw_out *out, const struct sw_forward_request *f)
{
    sw_out_lit(out, "Forwarded: ");
    put_node(out, f->peer);
    put_host_proto(out, f->head->host, f->proto);
    sw_out_lit(out, "\r\nX-Forwarded-For: ");
    sw_out_slice(out, f->peer);
    sw_out_lit(out, "\r\nX-Forwarded-Proto: ");
    sw_out_slice(out, f->proto);
    if (f->head->host.len > 0) {
        sw_out_lit(out, "\r\nX-Forwarded-Host: ");
        sw_out_slice(out, f->head->host);
    }
    sw_out_lit(out, "\r\n");
}

static void put_origin_trusted(struct sw_out *out, const struct sw_forward_request *f)
{
    const struct sw_head *h = f->head;
    const struct sw_field *x_proto = sw_head_find(h, SW_FIELD_X_FORWARDED_PROTO);
    const struct sw_field *x_host = sw_head_find(h, SW_FIELD_X_FORWARDED_HOST);
    struct sw_slice host = h->host, proto = f->proto, element, said;
    struct walk w = {.head = h};
    bool any = false;

    /* What the nearest-to-the-client element says, if it is something we can say again. */
    if (walk_next(&w, SW_FIELD_FORWARDED, &element)) {
        said = forwarded_param(element, SW_S("proto"));
        proto = is_proto(said) ? said : proto;
        said = forwarded_param(element, SW_S("host"));
        host = is_host(said) ? said : host;
    }
    if (x_proto != NULL && is_proto(x_proto->value)) {
        proto = x_proto->value;
    }
    if (x_host != NULL && is_host(x_host->value)) {
        host = x_host->value;
    }

    sw_out_lit(out, "Forwarded: ");
    w = (struct walk){.head = h};
    while (walk_next(&w, SW_FIELD_FORWARDED, &element)) {
        if (quotes_closed(element)) {
            sw_out_slice(out, element);
        } else {
            sw_out_lit(out, "for=unknown"); /* or it would swallow what is appended */
        }
        sw_out_lit(out, ", ");
        any = true;
    }
    if (!any) {
        w = (struct walk){.head = h};
        while (walk_next(&w, SW_FIELD_X_FORWARDED_FOR, &element)) {
            put_node(out, element);
            if (!any) {
                put_host_proto(out, host, proto);
            }
            sw_out_lit(out, ", ");
            any = true;
        }
    }
    put_node(out, f->peer);
    if (!any) {
        put_host_proto(out, host, proto);
    }

    sw_out_lit(out, "\r\nX-Forwarded-For: ");
    any = false;
    w = (struct walk){.head = h};
    while (walk_next(&w, SW_FIELD_X_FORWARDED_FOR, &element)) {
        sw_out_slice(out, element);
        sw_out_lit(out, ", ");
        any = true;
    }
    if (!any) {
        w = (struct walk){.head = h};
        while (walk_next(&w, SW_FIELD_FORWARDED, &element)) {
            struct sw_slice rest;
            bool v6;

            said = forwarded_param(element, SW_S("for"));
            if (said.len > 0 && said.ptr[0] == '[') {
                (void)sw_slice_cut(sw_slice_tail(said, 1), ']', &said, &rest);
            } else {
                (void)sw_slice_cut(said, ':', &said, &rest);
            }
            if (is_address(said, &v6)) {
                sw_out_slice(out, said);
                sw_out_lit(out, ", ");
            }
        }
    }
    sw_out_slice(out, f->peer);
    sw_out_lit(out, "\r\n");
    put_line(out, SW_S("X-Forwarded-Proto"), x_proto != NULL ? x_proto->value : proto);
    if (x_host != NULL || host.len > 0) {
        put_line(out, SW_S("X-Forwarded-Host"), x_host != NULL ? x_host->value : host);
    }
}

/* ---- requests -------------------------------------------------------------------------------- */

/* The path without the prefix; whole when the prefix does not end at a segment. */
static struct sw_slice strip_path(struct sw_slice path, struct sw_slice strip)
{
    while (strip.len > 0 && strip.ptr[strip.len - 1] == '/') {
        strip.len--;
    }
    if (strip.len == 0 || !sw_slice_starts(path, strip)) {
        return path;
    }
    if (path.len == strip.len) {
        return SW_S("/");
    }
    return path.ptr[strip.len] == '/' ? sw_slice_tail(path, strip.len) : path;
}

/* For an app that reads them as CGI variables these are one name. */
static bool same_variable(struct sw_slice a, struct sw_slice b)
{
    for (size_t i = 0; i < a.len && a.len == b.len; i++) {
        char one = a.ptr[i] == '_' ? '-' : a.ptr[i], other = b.ptr[i] == '_' ? '-' : b.ptr[i];

        if (!sw_slice_eq_nocase(sw_slice_of(&one, 1), sw_slice_of(&other, 1))) {
            return false;
        }
    }
    return a.len == b.len;
}

static bool name_stripped(const struct sw_forward_request *f, struct sw_slice name)
{
    for (size_t i = 0; i < f->names_stripped_count; i++) {
        if (same_variable(name, f->names_stripped[i])) {
            return true;
        }
    }
    return false;
}

/* Does a field of the request go on as it is? */
static bool request_field_passes(const struct sw_forward_request *f, const struct nominated *n,
                                 const struct sw_field *field)
{
    if (SW_UNLIKELY(f->names_stripped_count > 0) && name_stripped(f, field->name)) {
        return false;
    }
    switch (field->id) {
    case SW_FIELD_OTHER:
        if (is_nominated(n, field->name)) {
            return false;
        }
        if (sw_slice_find(field->name, '_') < field->name.len &&
            sw_http__field_id_folded(field->name) != SW_FIELD_OTHER) {
            return false; /* an app's CGI variable would be ours, or one we checked */
        }
        return f->peer_trusted || !sw_http__is_x_forwarded(field->name);
    case SW_FIELD_X_FORWARDED_PORT:
        return f->peer_trusted;
    case SW_FIELD_TRAILER:
        return f->framing == SW_FRAMING_CHUNKED;
    case SW_FIELD_HOST:      /* put first */
    case SW_FIELD_COOKIE:    /* joined */
    case SW_FIELD_FORWARDED: /* put anew */
    case SW_FIELD_X_FORWARDED_FOR:
    case SW_FIELD_X_FORWARDED_PROTO:
    case SW_FIELD_X_FORWARDED_HOST:
    case SW_FIELD_CONTENT_LENGTH: /* framing is put anew */
    case SW_FIELD_TRANSFER_ENCODING:
    case SW_FIELD_CONNECTION: /* this hop's: RFC 9110, 7.6.1 */
    case SW_FIELD_KEEP_ALIVE:
    case SW_FIELD_PROXY_CONNECTION:
    case SW_FIELD_PROXY_AUTHENTICATE:
    case SW_FIELD_PROXY_AUTHORIZATION:
    case SW_FIELD_TE:
    case SW_FIELD_UPGRADE:
    case SW_FIELD_HTTP2_SETTINGS:
    case SW_FIELD_EXPECT: /* answered by us: RFC 9110, 10.1.1 */
    case SW_FIELD_STATEWAY:
        return false;
    default:
        return true;
    }
}

bool sw_forward_request_put(struct sw_out *out, const struct sw_forward_request *f)
{
    const struct sw_head *h = f->head;
    const bool upgrade = f->keep_upgrade && h->upgrade.len > 0;
    bool cookies = false;
    struct nominated n;

    SW_ASSERT(f->framing != SW_FRAMING_CLOSE);
    SW_ASSERT(h->method_name.len > 0 && h->path.len > 0);

    sw_out_slice(out, h->method_name);
    sw_out_char(out, ' ');
    sw_out_slice(out, strip_path(h->path, f->strip));
    if (h->query.ptr != NULL) {
        sw_out_char(out, '?');
        sw_out_slice(out, h->query);
    }
    /* RFC 9110, 7.2: empty when the request has no authority (HTTP/1.0). */
    sw_out_lit(out, " HTTP/1.1\r\nHost: ");
    sw_out_slice(out, h->host);
    sw_out_lit(out, "\r\n");

    nominate(h, &n);
    for (uint32_t i = 0; i < h->field_count; i++) {
        if (request_field_passes(f, &n, &h->fields[i])) {
            put_line(out, h->fields[i].name, h->fields[i].value);
        } else if (h->fields[i].id == SW_FIELD_COOKIE && !cookies) {
            cookies = true;
            put_cookies(out, f);
        }
    }

    if (upgrade || h->te_trailers) {
        sw_out_cstr(out, !upgrade         ? "Connection: TE\r\n"
                         : h->te_trailers ? "Connection: Upgrade, TE\r\n"
                                          : "Connection: Upgrade\r\n");
        if (upgrade) {
            put_line(out, SW_S("Upgrade"), h->upgrade);
        }
        if (h->te_trailers) {
            sw_out_lit(out, "TE: trailers\r\n");
        }
    }
    put_via(out, h);
    if (f->peer_trusted) {
        put_origin_trusted(out, f);
    } else {
        put_origin(out, f);
    }
    sw_out_slice(out, f->extra);
    if (f->framing == SW_FRAMING_LENGTH) {
        put_length(out, f->length);
    } else if (f->framing == SW_FRAMING_CHUNKED) {
        sw_out_lit(out, "Transfer-Encoding: chunked\r\n");
    }
    sw_out_lit(out, "\r\n");
    return !out->overflowed;
}

/* ---- responses ------------------------------------------------------------------------------- */

static struct sw_slice directive_name(struct sw_slice directive)
{
    struct sw_slice name, value;

    (void)sw_slice_cut(directive, '=', &name, &value);
    return sw_slice_trim(name);
}

/* One Cache-Control line that lets no shared cache store the answer (RFC 9111, 3 and 5.2.2). Ours
 * comes first, where no unclosed quote of the app can swallow it. */
static void put_private(struct sw_out *out, const struct sw_head *h)
{
    bool private = false, no_store = false, understand = false, any;
    struct walk w = {.head = h};
    struct sw_slice element;

    while (walk_next(&w, SW_FIELD_CACHE_CONTROL, &element)) {
        private |= sw_slice_eq_nocase(element, SW_S("private"));
        no_store |= sw_slice_eq_nocase(element, SW_S("no-store"));
        /* 5.2.2.3: it tells caches to ignore no-store. */
        understand |= sw_slice_eq_nocase(element, SW_S("must-understand"));
    }
    sw_out_lit(out, "Cache-Control: ");
    any = !private && (!no_store || understand);
    if (any) {
        sw_out_lit(out, "private");
    }
    w = (struct walk){.head = h};
    while (walk_next(&w, SW_FIELD_CACHE_CONTROL, &element)) {
        struct sw_slice name = directive_name(element);

        if (sw_slice_eq_nocase(name, SW_S("public")) ||
            sw_slice_eq_nocase(name, SW_S("s-maxage")) ||
            (sw_slice_eq_nocase(name, SW_S("private")) && name.len != element.len)) {
            continue; /* 5.2.2.7: private="field" allows to store the rest */
        }
        if (any) {
            sw_out_lit(out, ", ");
        }
        sw_out_slice(out, element);
        any = true;
    }
    sw_out_lit(out, "\r\n");
}

/* Fields by which a cache outside is told to store although Cache-Control forbids it (RFC 9213). */
static bool targets_caches(struct sw_slice name)
{
    static const struct sw_slice suffix = {"cdn-cache-control", 17};

    return sw_slice_eq_nocase(name, SW_S("surrogate-control")) ||
           (name.len >= suffix.len &&
            sw_slice_eq_nocase(sw_slice_tail(name, name.len - suffix.len), suffix));
}

static bool response_field_passes(const struct sw_forward_response *f, const struct nominated *n,
                                  const struct sw_field *field)
{
    switch (field->id) {
    case SW_FIELD_OTHER:
        return !is_nominated(n, field->name) && !(f->private_cache && targets_caches(field->name));
    case SW_FIELD_CACHE_CONTROL:
        return !f->private_cache;
    case SW_FIELD_TRAILER:
        return f->framing == SW_FRAMING_CHUNKED;
    case SW_FIELD_CONTENT_LENGTH: /* framing is put anew */
    case SW_FIELD_TRANSFER_ENCODING:
    case SW_FIELD_CONNECTION: /* this hop's: RFC 9110, 7.6.1 */
    case SW_FIELD_KEEP_ALIVE:
    case SW_FIELD_PROXY_CONNECTION:
    case SW_FIELD_PROXY_AUTHENTICATE:
    case SW_FIELD_PROXY_AUTHORIZATION:
    case SW_FIELD_TE:
    case SW_FIELD_UPGRADE:
    case SW_FIELD_HTTP2_SETTINGS:
    case SW_FIELD_STATEWAY:
        return false;
    default:
        return true;
    }
}

static void put_response_framing(struct sw_out *out, const struct sw_forward_response *f)
{
    const struct sw_field *length;
    uint64_t value;

    if (f->head->status < 200 || f->head->status == 204) {
        return; /* RFC 9112, 6.1 and RFC 9110, 8.6: neither field */
    }
    if (f->head_request || f->head->status == 304) {
        /* RFC 9110, 8.6: what a GET would have had; no body follows. */
        length = sw_head_find(f->head, SW_FIELD_CONTENT_LENGTH);
        if (length != NULL && sw_slice_u64(length->value, &value)) {
            put_length(out, value);
        } else if (f->framing == SW_FRAMING_LENGTH) {
            put_length(out, f->length);
        }
        return;
    }
    switch (f->framing) {
    case SW_FRAMING_NONE:
        put_length(out, 0); /* without it the client would wait for the close */
        break;
    case SW_FRAMING_LENGTH:
        put_length(out, f->length);
        break;
    case SW_FRAMING_CHUNKED:
        SW_ASSERT(f->client_minor >= 1); /* 1.0 has no codings: the caller chooses CLOSE */
        sw_out_lit(out, "Transfer-Encoding: chunked\r\n");
        break;
    case SW_FRAMING_CLOSE:
        SW_ASSERT(!f->keep_alive);
        break;
    }
}

bool sw_forward_response_put(struct sw_out *out, const struct sw_forward_response *f,
                             struct sw_slice date)
{
    const struct sw_head *h = f->head;
    const struct sw_field *upgrade = NULL;
    bool dated = false, cache_control = false;
    struct nominated n;

    SW_ASSERT(h->status >= 100 && h->status <= 599);
    sw_out_lit(out, "HTTP/1.1 ");
    put_status(out, h->status);
    sw_out_char(out, ' ');
    sw_out_slice(out, h->reason.len > 0 ? h->reason : sw_http_reason(h->status));
    sw_out_lit(out, "\r\n");

    nominate(h, &n);
    for (uint32_t i = 0; i < h->field_count; i++) {
        const struct sw_field *field = &h->fields[i];

        if (response_field_passes(f, &n, field)) {
            put_line(out, field->name, field->value);
            dated |= field->id == SW_FIELD_DATE;
        } else if (field->id == SW_FIELD_CACHE_CONTROL && !cache_control) {
            cache_control = true;
            put_private(out, h);
        } else if (field->id == SW_FIELD_UPGRADE && upgrade == NULL) {
            upgrade = field;
        }
    }
    if (f->private_cache && !cache_control) {
        sw_out_lit(out, "Cache-Control: private\r\n");
    }
    put_via(out, h);
    if (!dated && h->status >= 200) {
        put_line(out, SW_S("Date"), date); /* RFC 9110, 6.6.1 */
    }
    sw_out_slice(out, f->extra);
    put_response_framing(out, f);
    if (f->keep_upgrade) {
        sw_out_lit(out, "Connection: Upgrade\r\n");
        if (upgrade != NULL) {
            put_line(out, SW_S("Upgrade"), upgrade->value);
        }
    } else if (h->status >= 200 && !f->keep_alive) {
        sw_out_lit(out, "Connection: close\r\n");
    } else if (h->status >= 200 && f->client_minor == 0) {
        sw_out_lit(out, "Connection: keep-alive\r\n");
    }
    sw_out_lit(out, "\r\n");
    return !out->overflowed;
}
