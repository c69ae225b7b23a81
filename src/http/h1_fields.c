/* http/h1_fields.c - the field lines of a head, and what they say about framing.
 *
 * Room       http/. One pass over the bytes, no copies.
 * Flow       h1_request.c and h1_response.c read the start line and leave the rest to this file.
 */
#include "http/http_priv.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

static inline __attribute__((always_inline)) const char *value_end(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i low = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t'), del = _mm_set1_epi8(0x7f);

    while (end - p >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(v, low), v);
        __m128i bad =
            _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(v, tab), control), _mm_cmpeq_epi8(v, del));
        unsigned mask = (unsigned)_mm_movemask_epi8(bad);

        if (mask != 0) {
            return p + __builtin_ctz(mask);
        }
        p += 16;
    }
#endif
    while (p < end && sw_http__is(*p, SW_CC_VALUE)) {
        p++;
    }
    return p;
}

const char *sw_http__value_end(const char *p, const char *end)
{
    return value_end(p, end);
}

struct sw_parsed sw_h1__eol(const char *p, const char *end, enum sw_err other)
{
    if (p == end) {
        return sw_h1__more();
    }
    if (*p == '\n') {
        return sw_h1__fail(SW_E_BARE_LF); /* RFC 9112, 2.2: a lone LF may be taken as a line end */
    }
    if (*p != '\r') {
        return sw_h1__fail(other);
    }
    if (p + 1 == end) {
        return sw_h1__more();
    }
    if (p[1] != '\n') {
        return sw_h1__fail(SW_E_BARE_LF); /* RFC 9112, 2.2: a bare CR is invalid */
    }
    return (struct sw_parsed){SW_STEP_DONE, SW_OK, 2};
}

bool sw_h1__wait(struct sw_slice input, size_t scanned, size_t start_line_max)
{
    const char *end = input.ptr + input.len, *line, *colon;

    if (scanned <= start_line_max || scanned > input.len) {
        return false;
    }
    /* From one byte before: it may be the CR of a CRLF. */
    if (sw_http__value_end(input.ptr + scanned - 1, end) != end) {
        return false;
    }
    line = memrchr(input.ptr, '\n', scanned);
    line = line == NULL ? input.ptr : line + 1;
    colon = memchr(line, ':', (size_t)(input.ptr + scanned - line));
    return colon != NULL;
}

struct sw_parsed sw_h1__fields(struct sw_h1__lines *lines, struct sw_head *h)
{
    const char *p = lines->p, *const end = lines->end;
    unsigned seen = 0;

    for (;;) {
        struct sw_field *f;
        const char *start, *stop;
        struct sw_parsed eol;
        unsigned classes;

        if (p == end) {
            return sw_h1__more();
        }
        if (SW_UNLIKELY(*p == '\r' || *p == '\n')) {
            eol = sw_h1__eol(p, end, SW_E_HEAD_SYNTAX);
            if (eol.step == SW_STEP_DONE) {
                lines->p = p + 2;
                lines->uscore = (seen & SW_CC_USCORE) != 0;
            }
            return eol;
        }
        if (SW_UNLIKELY(*p == ' ' || *p == '\t')) {
            /* RFC 9112, 5.2: obsolete folding; and 2.2: blanks before the first field. */
            return sw_h1__fail(SW_E_OBS_FOLD);
        }

        start = p;
        while (p < end && ((classes = sw_http__class[(uint8_t)*p]) & SW_CC_TOKEN)) {
            seen |= classes;
            p++;
        }
        if (SW_UNLIKELY(p == end)) {
            return sw_h1__more();
        }
        if (SW_UNLIKELY(*p != ':')) {
            /* RFC 9112, 5.1: a name is a token and the colon follows without a blank. */
            eol = sw_h1__eol(p, end, SW_E_FIELD_NAME);
            return eol.step == SW_STEP_DONE ? sw_h1__fail(SW_E_HEAD_SYNTAX) : eol;
        }
        if (SW_UNLIKELY(p == start)) {
            return sw_h1__fail(SW_E_FIELD_NAME); /* RFC 9112, 5: a name has at least one byte */
        }
        if (SW_UNLIKELY(h->field_count == h->field_max)) {
            return sw_h1__fail(SW_E_FIELDS_MANY);
        }
        f = &h->fields[h->field_count];
        f->name = sw_slice_of(start, (size_t)(p - start));

        p++;
        while (p < end && (*p == ' ' || *p == '\t')) {
            p++;
        }
        start = p;
        p = value_end(p, end);
        if (SW_UNLIKELY(end - p < 2 || p[0] != '\r' || p[1] != '\n')) {
            /* RFC 9110, 5.5: CR, LF, NUL and other controls */
            return sw_h1__eol(p, end, SW_E_FIELD_VALUE);
        }
        stop = p;
        while (stop > start && (stop[-1] == ' ' || stop[-1] == '\t')) {
            stop--;
        }
        p += 2;
        f->value = sw_slice_of(start, (size_t)(stop - start));
        f->id = sw_http__field_id(f->name);
        h->field_count++;
    }
}

/* ---- framing --------------------------------------------------------------------------------- */

/* Why a Transfer-Encoding is not exactly "chunked": a coding we do not have, or malformed. */
static enum sw_err coding_err(struct sw_slice value)
{
    struct sw_slice rest = value, element;
    bool had_chunked = false, any = false;

    while (sw_http__list_next(&rest, false, &element)) {
        struct sw_slice name, params;

        if (had_chunked) {
            return SW_E_CODING_SYNTAX; /* RFC 9112, 6.3: chunked must come last, and once (7.1) */
        }
        (void)sw_slice_cut(element, ';', &name, &params);
        name = sw_slice_trim(name);
        if (!sw_http__token(name)) {
            return SW_E_CODING_SYNTAX; /* RFC 9112, 7 */
        }
        if (sw_slice_eq_nocase(name, SW_S("chunked"))) {
            if (name.len != element.len) {
                return SW_E_CODING_SYNTAX; /* RFC 9112, 7.1: chunked has no parameters */
            }
            had_chunked = true;
        }
        any = true;
    }
    /* "chunked" alone but with a comma is a list that some read and some do not. */
    if (!any || (had_chunked && sw_slice_find(value, ',') + 1 >= value.len) ||
        value.ptr[0] == ',' || value.ptr[value.len - 1] == ',') {
        return SW_E_CODING_SYNTAX;
    }
    return SW_E_CODING;
}

/* RFC 9110, 7.8: protocol-name ["/" protocol-version], a list of them. Not h2c: an app that took it
 * would be asked past every route (RFC 9113, 3.1 has ended it). */
static bool upgrade_valid(struct sw_slice value)
{
    struct sw_slice rest = value, element, name, version;
    bool any = false;

    while (sw_http__list_next(&rest, false, &element)) {
        bool has_version = sw_slice_cut(element, '/', &name, &version);

        if (!sw_http__token(name) || (has_version && !sw_http__token(version)) ||
            sw_slice_eq_nocase(name, SW_S("h2c"))) {
            return false;
        }
        any = true;
    }
    return any;
}

enum sw_err sw_h1__frame(struct sw_head *h)
{
    const struct sw_field *length = NULL, *coding = NULL, *upgrade = NULL;
    bool closes = false, keeps = false, upgrades = false, te_trailers = false;
    unsigned upgrade_count = 0, option_count = 0;
    struct sw_slice rest, element;

    for (uint32_t i = 0; i < h->field_count; i++) {
        const struct sw_field *f = &h->fields[i];

        switch (f->id) {
        case SW_FIELD_CONTENT_LENGTH:
            if (length != NULL) {
                /* RFC 9112, 6.3 (5): even equal ones are refused; readers take first or last. */
                return SW_E_LENGTH;
            }
            length = f;
            break;
        case SW_FIELD_TRANSFER_ENCODING:
            if (coding != NULL) {
                return SW_E_CODING_SYNTAX; /* RFC 9112, 6.1: readers join them, or take one */
            }
            coding = f;
            break;
        case SW_FIELD_CONNECTION:
            if (sw_slice_eq(f->value, SW_S("keep-alive"))) {
                keeps = true; /* what browsers send */
                option_count++;
                break;
            }
            rest = f->value;
            while (sw_http__list_next(&rest, false, &element)) {
                if (++option_count > SW_CONNECTION_OPTIONS_MAX) {
                    return SW_E_FIELDS_MANY;
                }
                closes |= sw_slice_eq_nocase(element, SW_S("close"));
                keeps |= sw_slice_eq_nocase(element, SW_S("keep-alive"));
                upgrades |= sw_slice_eq_nocase(element, SW_S("upgrade"));
            }
            break;
        case SW_FIELD_UPGRADE:
            upgrade = f;
            upgrade_count++;
            break;
        case SW_FIELD_TE:
            rest = f->value;
            while (sw_http__list_next(&rest, false, &element)) {
                te_trailers |= sw_slice_eq_nocase(element, SW_S("trailers"));
            }
            break;
        default:
            break;
        }
    }

    h->keep_alive = !closes && (h->minor >= 1 || keeps); /* RFC 9112, 9.3 */
    h->te_trailers = te_trailers && h->minor >= 1;
    h->upgrade = (struct sw_slice){NULL, 0};
    /* RFC 9110, 7.8: ignored in 1.0 and when Connection does not name it. An Upgrade may always be
     * ignored, so one that is malformed or doubled is. */
    if (h->minor >= 1 && upgrades && upgrade_count == 1 && upgrade_valid(upgrade->value)) {
        h->upgrade = upgrade->value;
    }

    h->framing = SW_FRAMING_NONE;
    h->length = 0;
    if (coding != NULL) {
        if (length != NULL) {
            return SW_E_FRAMING; /* RFC 9112, 6.1 and 6.3 (3): a sign of smuggling */
        }
        if (h->minor == 0) {
            return SW_E_FRAMING; /* RFC 9112, 6.1: 1.0 has no transfer codings; faulty framing */
        }
        if (!sw_slice_eq_nocase(coding->value, SW_S("chunked"))) {
            return coding_err(coding->value);
        }
        h->framing = SW_FRAMING_CHUNKED;
    } else if (length != NULL) {
        /* RFC 9110, 8.6: digits only; beyond a signed 64-bit number readers overflow. */
        if (!sw_slice_u64(length->value, &h->length) || h->length > INT64_MAX) {
            return SW_E_LENGTH;
        }
        h->framing = SW_FRAMING_LENGTH;
    }
    return SW_OK;
}
