/* http/h1_request.c - a request head (RFC 9112, 3).
 *
 * Room       http/. The first thing that sees a stranger's bytes.
 */
#include "http/http_priv.h"

#define METHOD_BYTES_MAX 32

static enum sw_method method_id(struct sw_slice s)
{
    switch (s.len) {
    case 3:
        return sw_slice_eq(s, SW_S("GET"))   ? SW_METHOD_GET
               : sw_slice_eq(s, SW_S("PUT")) ? SW_METHOD_PUT
                                             : SW_METHOD_OTHER;
    case 4:
        return sw_slice_eq(s, SW_S("POST"))   ? SW_METHOD_POST
               : sw_slice_eq(s, SW_S("HEAD")) ? SW_METHOD_HEAD
                                              : SW_METHOD_OTHER;
    case 5:
        return sw_slice_eq(s, SW_S("PATCH"))   ? SW_METHOD_PATCH
               : sw_slice_eq(s, SW_S("TRACE")) ? SW_METHOD_TRACE
                                               : SW_METHOD_OTHER;
    case 6:
        return sw_slice_eq(s, SW_S("DELETE")) ? SW_METHOD_DELETE : SW_METHOD_OTHER;
    case 7:
        return sw_slice_eq(s, SW_S("OPTIONS"))   ? SW_METHOD_OPTIONS
               : sw_slice_eq(s, SW_S("CONNECT")) ? SW_METHOD_CONNECT
                                                 : SW_METHOD_OTHER;
    default:
        return SW_METHOD_OTHER;
    }
}

/* Is it a known method in other letters? RFC 9110, 9.1: case counts, but there are apps that take
 * "get" for GET: routes, placements and csrf would judge another method than the app serves. */
static bool method_other_case(struct sw_slice s)
{
    static const struct sw_slice known[] = {
        SW_S("GET"),   SW_S("PUT"),    SW_S("POST"),    SW_S("HEAD"),    SW_S("PATCH"),
        SW_S("TRACE"), SW_S("DELETE"), SW_S("OPTIONS"), SW_S("CONNECT"),
    };

    for (size_t i = 0; i < SW_COUNTOF(known); i++) {
        if (sw_slice_eq_nocase(s, known[i])) {
            return true;
        }
    }
    return false;
}

/* "HTTP/1.1" or "HTTP/1.0" at p, and CRLF. DONE: 10 bytes. */
static struct sw_parsed version(const char *p, const char *end, struct sw_head *h)
{
    static const char shape[] = "HTTP/0.0"; /* 0: a digit */
    struct sw_parsed eol;

    for (size_t i = 0; i < sizeof(shape) - 1; i++) {
        bool fits;

        if (p + i == end) {
            return sw_h1__more();
        }
        fits = shape[i] == '0' ? sw_http__is(p[i], SW_CC_DIGIT) != 0 : p[i] == shape[i];
        if (!fits) {
            /* RFC 9112, 2.3: case matters, one digit each. An empty version is HTTP/0.9. */
            eol = sw_h1__eol(p + i, end, SW_E_HEAD_SYNTAX);
            return eol.step == SW_STEP_DONE ? sw_h1__fail(SW_E_HEAD_SYNTAX) : eol;
        }
    }
    if (p[5] != '1' || p[7] > '1') {
        return sw_h1__fail(SW_E_VERSION); /* RFC 9110, 15.6.6 */
    }
    h->minor = (uint8_t)(p[7] - '0');
    eol = sw_h1__eol(p + 8, end, SW_E_HEAD_SYNTAX);
    eol.consumed += 8;
    return eol;
}

static struct sw_parsed request_line(const char *p, const char *end, uint32_t target_max,
                                     struct sw_head *h)
{
    const char *const line = p, *start = p, *stop;
    struct sw_parsed step;

    while (p < end && sw_http__is(*p, SW_CC_TOKEN)) {
        p++;
    }
    if (p - start > METHOD_BYTES_MAX) {
        return sw_h1__fail(SW_E_METHOD);
    }
    if (p == end) {
        return sw_h1__more();
    }
    if (*p != ' ' || p == start) {
        step = sw_h1__eol(p, end, SW_E_METHOD); /* RFC 9112, 3.1 */
        return step.step == SW_STEP_DONE ? sw_h1__fail(SW_E_HEAD_SYNTAX) : step;
    }
    h->method_name = sw_slice_of(start, (size_t)(p - start));
    h->method = method_id(h->method_name);
    if (h->method == SW_METHOD_OTHER && method_other_case(h->method_name)) {
        return sw_h1__fail(SW_E_METHOD_REFUSED);
    }

    start = ++p;
    stop = (size_t)(end - p) > target_max ? p + target_max : end;
    while (p < stop && sw_http__is(*p, SW_CC_VISIBLE)) {
        p++;
    }
    if (p == end) {
        return sw_h1__more();
    }
    if (p == stop && sw_http__is(*p, SW_CC_VISIBLE)) {
        return sw_h1__fail(SW_E_TARGET_LONG);
    }
    if (*p != ' ') {
        step = sw_h1__eol(p, end, SW_E_TARGET);
        return step.step == SW_STEP_DONE ? sw_h1__fail(SW_E_HEAD_SYNTAX) : step;
    }
    if (p == start) {
        return sw_h1__fail(SW_E_HEAD_SYNTAX); /* RFC 9112, 3: exactly one SP between the parts */
    }
    h->target = sw_slice_of(start, (size_t)(p - start));
    p++;

    step = version(p, end, h);
    step.consumed += (size_t)(p - line);
    return step;
}

/* RFC 9110, 10.1.1 */
static enum sw_err expectation(struct sw_head *h)
{
    for (uint32_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].id != SW_FIELD_EXPECT) {
            continue;
        }
        if (!sw_slice_eq_nocase(h->fields[i].value, SW_S("100-continue"))) {
            return SW_E_EXPECT;
        }
        /* In 1.0 it is ignored; without a body there is nothing to wait for. */
        h->expect_continue = h->minor >= 1 && h->framing != SW_FRAMING_NONE;
    }
    return SW_OK;
}

/* Is this name, with everything but letters taken out, a framing field's? Readers that fold '_',
 * or skip what they do not expect, would frame by it. */
static bool like_framing(struct sw_slice name)
{
    char letters[20], first = (char)(name.ptr[0] | 0x20);
    size_t len = 0;

    if (name.len < 13 || (first >= 'a' && first <= 'z' && first != 't' && first != 'c')) {
        return false; /* nearly all names */
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = (char)(name.ptr[i] | 0x20);

        if (c < 'a' || c > 'z') {
            continue;
        }
        if (len == sizeof(letters)) {
            return false;
        }
        letters[len++] = c;
    }
    return sw_slice_eq(sw_slice_of(letters, len), SW_S("transferencoding")) ||
           sw_slice_eq(sw_slice_of(letters, len), SW_S("contentlength"));
}

/* Names that an app could take for a field that frames or routes. */
static enum sw_err lookalikes(const struct sw_head *h, bool uscore)
{
    for (uint32_t i = 0; i < h->field_count; i++) {
        struct sw_slice name = h->fields[i].name;

        if (h->fields[i].id != SW_FIELD_OTHER) {
            continue;
        }
        if (like_framing(name)) {
            return SW_E_FIELD_NAME; /* RFC 9112, 11.2 */
        }
        if (!uscore || sw_slice_find(name, '_') == name.len) {
            continue;
        }
        switch (sw_http__field_id_folded(name)) {
        case SW_FIELD_HOST:
        case SW_FIELD_CONNECTION:
        case SW_FIELD_UPGRADE:
            return SW_E_FIELD_NAME; /* RFC 3875, 4.1.18: both spellings become one variable */
        default:
            break; /* forward.c drops what we interpret or add */
        }
    }
    return SW_OK;
}

/* Is Content-Length written as everybody writes it: at most one SP before it, no leading zero?
 * RFC 9110, 5.6.3 and 8.6 allow more, and readers differ on it. */
static bool length_plain(const struct sw_head *h)
{
    const struct sw_field *f = sw_head_find(h, SW_FIELD_CONTENT_LENGTH);
    const char *colon;
    size_t blanks;

    if (f == NULL || f->value.len == 0) {
        return true; /* none, or an error that is told already */
    }
    colon = f->name.ptr + f->name.len;
    blanks = (size_t)(f->value.ptr - colon) - 1;
    return blanks <= 1 && (blanks == 0 || colon[1] == ' ') &&
           (f->value.len == 1 || f->value.ptr[0] != '0');
}

static enum sw_err request_check(struct sw_head *h, bool uscore)
{
    const struct sw_field *host = NULL;
    enum sw_err err;

    for (uint32_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].id == SW_FIELD_HOST) {
            if (host != NULL) {
                return SW_E_HOST; /* RFC 9112, 3.2 */
            }
            host = &h->fields[i];
        }
    }
    if (host == NULL && h->minor >= 1) {
        return SW_E_HOST; /* RFC 9112, 3.2 */
    }
    err = lookalikes(h, uscore);
    if (err == SW_OK) {
        err = sw_http__target(h, host);
    }
    if (err == SW_OK) {
        err = sw_h1__frame(h);
    }
    if (err == SW_OK && !length_plain(h)) {
        err = SW_E_LENGTH;
    }
    return err == SW_OK ? expectation(h) : err;
}

struct sw_parsed sw_h1_request(struct sw_slice input, size_t *scanned,
                               const struct sw_h1_limits *limits, struct sw_head *ret_head)
{
    const bool full = input.len >= limits->head_bytes_max;
    const size_t start_line_max = METHOD_BYTES_MAX + (size_t)limits->target_bytes_max + 16;
    const char *p = input.ptr, *const end = p + (full ? limits->head_bytes_max : input.len);
    struct sw_head h = {.fields = ret_head->fields, .field_max = ret_head->field_max};
    struct sw_parsed step = sw_h1__more();
    enum sw_err too_large = SW_E_TARGET_LONG; /* while the request line is read */

    if (!full && sw_h1__wait(input, *scanned, start_line_max)) {
        *scanned = input.len;
        return step;
    }

    if (p < end && *p == '\r') {
        step = sw_h1__eol(p, end, SW_E_HEAD_SYNTAX); /* RFC 9112, 2.2: one empty line is skipped */
        p += step.consumed;
    } else if (p < end) {
        step.step = SW_STEP_DONE;
    }
    if (step.step == SW_STEP_DONE) {
        step = request_line(p, end, limits->target_bytes_max, &h);
    }
    if (step.step == SW_STEP_DONE) {
        struct sw_h1__lines lines = {.p = p + step.consumed, .end = end};

        too_large = SW_E_FIELDS_LARGE;
        step = sw_h1__fields(&lines, &h);
        if (step.step == SW_STEP_DONE) {
            enum sw_err err = request_check(&h, lines.uscore);

            if (err != SW_OK) {
                return sw_h1__fail(err);
            }
            *ret_head = h;
            step.consumed = (size_t)(lines.p - input.ptr);
            return step;
        }
    }
    if (step.step == SW_STEP_MORE) {
        if (full) {
            return sw_h1__fail(too_large);
        }
        *scanned = input.len;
        return sw_h1__more();
    }
    return step;
}
