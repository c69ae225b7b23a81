/* http/field.c - names of fields and methods, byte classes, lists.
 *
 * Room       http/. Tables and lookups; no state.
 * Flow       h1_fields.c asks an id for every field; forward.c and route/ ask what a head holds.
 */
#include "http/http_priv.h"

/* ---- classes --------------------------------------------------------------------------------- */

#define TOK  (SW_CC_TOKEN | SW_CC_VALUE | SW_CC_VISIBLE | SW_CC_PATH)
#define VIS  (SW_CC_VALUE | SW_CC_VISIBLE | SW_CC_PATH)
#define SPEC (SW_CC_VALUE | SW_CC_VISIBLE) /* visible, but a path needs a closer look */
#define UNR  (TOK | SW_CC_HOST)
#define HEXA (UNR | SW_CC_HEX)
#define DIG  (HEXA | SW_CC_DIGIT)

const uint8_t sw_http__class[256] = {
    ['\t'] = SW_CC_VALUE,
    [' '] = SW_CC_VALUE,
    ['!'] = TOK,
    ['"'] = VIS,
    ['#'] = SPEC | SW_CC_TOKEN,
    ['$'] = TOK,
    ['%'] = SPEC | SW_CC_TOKEN,
    ['&'] = TOK,
    ['\''] = TOK,
    ['('] = VIS,
    [')'] = VIS,
    ['*'] = TOK,
    ['+'] = TOK,
    [','] = VIS,
    ['-'] = UNR,
    ['.'] = UNR,
    ['/'] = SPEC,
    ['0' ... '9'] = DIG,
    [':'] = VIS,
    [';'] = VIS,
    ['<'] = VIS,
    ['='] = VIS,
    ['>'] = VIS,
    ['?'] = SPEC,
    ['@'] = VIS,
    ['A' ... 'F'] = HEXA,
    ['G' ... 'Z'] = UNR,
    ['['] = VIS,
    ['\\'] = SPEC,
    [']'] = VIS,
    ['^'] = TOK,
    ['_'] = UNR | SW_CC_USCORE,
    ['`'] = TOK,
    ['a' ... 'f'] = HEXA,
    ['g' ... 'z'] = UNR,
    ['{'] = VIS,
    ['|'] = TOK,
    ['}'] = VIS,
    ['~'] = UNR,
    [0x80 ... 0xff] = SW_CC_VALUE,
};

bool sw_http__token(struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!sw_http__is(s.ptr[i], SW_CC_TOKEN)) {
            return false;
        }
    }
    return s.len > 0;
}

/* ---- ids ------------------------------------------------------------------------------------- */

static inline uint64_t load8(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* Case ignored by setting bit 5: exact for letters, digits and '-', which is all that `lit` holds;
 * no other token character maps to one of them. */
static inline __attribute__((always_inline)) bool same(const char *p, const char *lit, size_t len)
{
    const uint64_t low = 0x2020202020202020ull;

    if (len >= 8) {
        for (size_t i = 0; i + 8 <= len; i += 8) {
            if ((load8(p + i) | low) != (load8(lit + i) | low)) {
                return false;
            }
        }
        return (load8(p + len - 8) | low) == (load8(lit + len - 8) | low);
    }
    for (size_t i = 0; i < len; i++) {
        if (((unsigned char)p[i] | 0x20) != (unsigned char)lit[i]) {
            return false;
        }
    }
    return true;
}

#define SAME(lit, id)                                                                              \
    if (same(p, lit, sizeof(lit) - 1)) {                                                           \
        return id;                                                                                 \
    }

enum sw_field_id sw_http__field_id(struct sw_slice name)
{
    const char *p = name.ptr;

    switch (name.len) {
    case 2:
        SAME("te", SW_FIELD_TE)
        break;
    case 3:
        SAME("via", SW_FIELD_VIA)
        break;
    case 4:
        SAME("host", SW_FIELD_HOST)
        SAME("date", SW_FIELD_DATE)
        break;
    case 6:
        SAME("cookie", SW_FIELD_COOKIE)
        SAME("origin", SW_FIELD_ORIGIN)
        SAME("expect", SW_FIELD_EXPECT)
        SAME("server", SW_FIELD_SERVER)
        break;
    case 7:
        SAME("upgrade", SW_FIELD_UPGRADE)
        SAME("trailer", SW_FIELD_TRAILER)
        break;
    case 8:
        SAME("location", SW_FIELD_LOCATION)
        break;
    case 9:
        SAME("forwarded", SW_FIELD_FORWARDED)
        break;
    case 10:
        SAME("connection", SW_FIELD_CONNECTION)
        SAME("set-cookie", SW_FIELD_SET_COOKIE)
        SAME("keep-alive", SW_FIELD_KEEP_ALIVE)
        break;
    case 12:
        SAME("content-type", SW_FIELD_CONTENT_TYPE)
        break;
    case 13:
        SAME("cache-control", SW_FIELD_CACHE_CONTROL)
        SAME("authorization", SW_FIELD_AUTHORIZATION)
        break;
    case 14:
        SAME("content-length", SW_FIELD_CONTENT_LENGTH)
        SAME("sec-fetch-site", SW_FIELD_SEC_FETCH_SITE)
        SAME("http2-settings", SW_FIELD_HTTP2_SETTINGS)
        break;
    case 15:
        SAME("x-forwarded-for", SW_FIELD_X_FORWARDED_FOR)
        SAME("idempotency-key", SW_FIELD_IDEMPOTENCY_KEY)
        break;
    case 16:
        SAME("x-forwarded-host", SW_FIELD_X_FORWARDED_HOST)
        SAME("x-forwarded-port", SW_FIELD_X_FORWARDED_PORT)
        SAME("proxy-connection", SW_FIELD_PROXY_CONNECTION)
        break;
    case 17:
        SAME("transfer-encoding", SW_FIELD_TRANSFER_ENCODING)
        SAME("x-forwarded-proto", SW_FIELD_X_FORWARDED_PROTO)
        break;
    case 18:
        SAME("proxy-authenticate", SW_FIELD_PROXY_AUTHENTICATE)
        break;
    case 19:
        SAME("proxy-authorization", SW_FIELD_PROXY_AUTHORIZATION)
        break;
    default:
        break;
    }
    if (name.len >= 9 && (p[8] == '-' || p[8] == '_') && same(p, "stateway", 8)) {
        return SW_FIELD_STATEWAY;
    }
    return SW_FIELD_OTHER;
}

/* The name with '_' as '-'; false when it is longer than any name we know. */
static bool fold(struct sw_slice name, char buf[SW_FOLDED_BYTES_MAX])
{
    if (name.len > SW_FOLDED_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        buf[i] = name.ptr[i] == '_' ? '-' : name.ptr[i];
    }
    return true;
}

enum sw_field_id sw_http__field_id_folded(struct sw_slice name)
{
    char buf[SW_FOLDED_BYTES_MAX];

    if (!fold(name, buf)) {
        return sw_http__field_id(name); /* "stateway_..." may be long */
    }
    return sw_http__field_id(sw_slice_of(buf, name.len));
}

bool sw_http__is_x_forwarded(struct sw_slice name)
{
    char buf[SW_FOLDED_BYTES_MAX];

    if (name.len < 12 || (name.ptr[0] | 0x20) != 'x') {
        return false;
    }
    name.len = 12;
    return fold(name, buf) && same(buf, "x-forwarded-", 12);
}

/* ---- lists and lookups ----------------------------------------------------------------------- */

bool sw_http__list_next(struct sw_slice *rest, bool quotes, struct sw_slice *ret_element)
{
    while (rest->len > 0) {
        struct sw_slice element;
        bool quoted = false;
        size_t i;

        for (i = 0; i < rest->len; i++) {
            char c = rest->ptr[i];

            if (c == '"' && quotes) {
                quoted = !quoted;
            } else if (c == '\\' && quoted && i + 1 < rest->len) {
                i++;
            } else if (c == ',' && !quoted) {
                break;
            }
        }
        element = sw_slice_trim(sw_slice_head(*rest, i));
        *rest = sw_slice_tail(*rest, i + 1);
        if (element.len > 0) {
            *ret_element = element;
            return true;
        }
    }
    return false;
}

struct sw_field sw_field_make(struct sw_slice name, struct sw_slice value)
{
    return (struct sw_field){name, value, sw_http__field_id(name)};
}

const struct sw_field *sw_head_find(const struct sw_head *h, enum sw_field_id id)
{
    for (uint32_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].id == id) {
            return &h->fields[i];
        }
    }
    return NULL;
}

const struct sw_field *sw_head_find_name(const struct sw_head *h, struct sw_slice name)
{
    for (uint32_t i = 0; i < h->field_count; i++) {
        if (sw_slice_eq_nocase(h->fields[i].name, name)) {
            return &h->fields[i];
        }
    }
    return NULL;
}

bool sw_head_lists(const struct sw_head *h, enum sw_field_id id, struct sw_slice token)
{
    for (uint32_t i = 0; i < h->field_count; i++) {
        struct sw_slice rest, element;

        if (h->fields[i].id != id) {
            continue;
        }
        rest = h->fields[i].value;
        while (sw_http__list_next(&rest, false, &element)) {
            if (sw_slice_eq_nocase(element, token)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- methods --------------------------------------------------------------------------------- */

bool sw_method_safe(enum sw_method m, struct sw_slice name)
{
    switch (m) {
    case SW_METHOD_GET:
    case SW_METHOD_HEAD:
    case SW_METHOD_OPTIONS:
    case SW_METHOD_TRACE:
        return true; /* RFC 9110, 9.2.1 */
    case SW_METHOD_OTHER:
        return sw_slice_eq(name, SW_S("PROPFIND")) || /* RFC 4918, 9.1 */
               sw_slice_eq(name, SW_S("REPORT")) ||   /* RFC 3253, 3.6 */
               sw_slice_eq(name, SW_S("SEARCH"));     /* RFC 5323, 2 */
    case SW_METHOD_POST:
    case SW_METHOD_PUT:
    case SW_METHOD_DELETE:
    case SW_METHOD_PATCH:
    case SW_METHOD_CONNECT:
    case SW_METHOD_COUNT:
        break;
    }
    return false;
}

bool sw_method_idempotent(enum sw_method m, struct sw_slice name)
{
    /* RFC 9110, 9.2.2 */
    return m == SW_METHOD_PUT || m == SW_METHOD_DELETE || sw_method_safe(m, name);
}
