/* http/body.c - bodies: a length, chunks (RFC 9112, 7.1), until close.
 *
 * Room       http/. Hands out payload as pieces of the input; keeps nothing but trailer lines.
 *
 *   chunk    = hex digits, extensions, CRLF, that many bytes, CRLF
 *   end      = 0, extensions, CRLF, trailer lines, CRLF
 */
#include "http/http_priv.h"

enum body_state {
    B_SIZE_FIRST, /* a hex digit must come */
    B_SIZE,
    B_EXT_NAME_FIRST, /* behind ';' */
    B_EXT_NAME,
    B_EXT_VALUE_FIRST, /* behind '=' */
    B_EXT_VALUE,
    B_EXT_QUOTED,
    B_EXT_ESCAPED,
    B_EXT_QUOTED_END,
    B_SIZE_LF,
    B_DATA,
    B_DATA_CR,
    B_DATA_LF,
    B_TRAILER_FIRST, /* a line begins: a name or the empty line */
    B_TRAILER_NAME,
    B_TRAILER_BLANK, /* between colon and value */
    B_TRAILER_VALUE,
    B_TRAILER_LF,
    B_END_LF,
    B_DONE,
};

void sw_body_init(struct sw_body *b, const struct sw_head *head, uint64_t max, bool is_response,
                  struct sw_out *trailer_out)
{
    *b = (struct sw_body){
        .framing = head->framing,
        .left = head->framing == SW_FRAMING_LENGTH ? head->length : 0,
        .max = max,
        .state = B_SIZE_FIRST,
        .is_response = is_response,
        .trailer_out = trailer_out,
    };
    if (head->framing == SW_FRAMING_NONE || (head->framing == SW_FRAMING_LENGTH && b->left == 0)) {
        b->state = B_DONE;
    }
}

static struct sw_body_fed fail(const struct sw_body *b, enum sw_err err)
{
    return (struct sw_body_fed){.step = SW_STEP_FAIL, .err = b->is_response ? SW_E_APP_BODY : err};
}

/* ---- trailers -------------------------------------------------------------------------------- */

/* RFC 9110, 6.5.1: what frames, routes, authenticates, or changes how the message is processed.
 * Every field with an id is one of these, or ours. */
static bool trailer_forbidden(struct sw_slice name)
{
    static const struct sw_slice names[] = {
        SW_S("age"),
        SW_S("allow"),
        SW_S("authentication-info"),
        SW_S("clear-site-data"),
        SW_S("content-encoding"),
        SW_S("content-language"),
        SW_S("content-location"),
        SW_S("content-range"),
        SW_S("content-security-policy"),
        SW_S("expires"),
        SW_S("if-match"),
        SW_S("if-modified-since"),
        SW_S("if-none-match"),
        SW_S("if-range"),
        SW_S("if-unmodified-since"),
        SW_S("max-forwards"),
        SW_S("pragma"),
        SW_S("proxy-status"),
        SW_S("range"),
        SW_S("retry-after"),
        SW_S("strict-transport-security"),
        SW_S("vary"),
        SW_S("warning"),
        SW_S("www-authenticate"),
        SW_S("x-real-ip"),
    };

    if (sw_http__field_id_folded(name) != SW_FIELD_OTHER || sw_http__is_x_forwarded(name)) {
        return true;
    }
    for (size_t i = 0; i < SW_COUNTOF(names); i++) {
        if (sw_slice_eq_nocase(name, names[i])) {
            return true;
        }
    }
    return false;
}

static void trailer_put(struct sw_body *b, char c)
{
    if (b->trailer_out != NULL) {
        sw_out_char(b->trailer_out, c);
    }
}

/* A trailer line is complete: keeps it as "name: value CRLF", or takes it out again. b->line is
 * where it began. False when there is no room. */
static bool trailer_line(struct sw_body *b)
{
    struct sw_out *out = b->trailer_out;
    struct sw_slice line;

    if (out == NULL) {
        return true;
    }
    if (out->overflowed) {
        return false;
    }
    SW_ASSERT(b->line < out->len);
    line = sw_slice_of(out->ptr + b->line, out->len - b->line);
    if (trailer_forbidden(sw_slice_head(line, sw_slice_find(line, ':')))) {
        out->len = b->line;
        return true;
    }
    while (out->ptr[out->len - 1] == ' ' || out->ptr[out->len - 1] == '\t') {
        out->len--;
    }
    sw_out_lit(out, "\r\n");
    return !out->overflowed;
}

/* One byte of the trailer section. False when it cannot stand there. */
static bool trailer_byte(struct sw_body *b, char c)
{
    if (++b->left > SW_TRAILER_BYTES_MAX) {
        return false;
    }
    switch ((enum body_state)b->state) {
    case B_TRAILER_FIRST:
        if (c == '\r') {
            b->state = B_END_LF;
            return true;
        }
        if (!sw_http__is(c, SW_CC_TOKEN)) {
            return false; /* RFC 9112, 5: no folding, no empty name, no bare LF */
        }
        b->line = b->trailer_out != NULL ? (uint32_t)b->trailer_out->len : 0;
        b->state = B_TRAILER_NAME;
        trailer_put(b, c);
        return true;
    case B_TRAILER_NAME:
        if (c == ':') {
            trailer_put(b, ':');
            trailer_put(b, ' ');
            b->state = B_TRAILER_BLANK;
            return true;
        }
        trailer_put(b, c);
        return sw_http__is(c, SW_CC_TOKEN) != 0; /* RFC 9112, 5.1 */
    case B_TRAILER_BLANK:
        if (c == ' ' || c == '\t') {
            return true;
        }
        b->state = B_TRAILER_VALUE;
        /* fall through */
    case B_TRAILER_VALUE:
        if (c == '\r') {
            b->state = B_TRAILER_LF;
            return true;
        }
        trailer_put(b, c);
        return sw_http__is(c, SW_CC_VALUE) != 0; /* RFC 9110, 5.5 */
    case B_TRAILER_LF:
        b->state = B_TRAILER_FIRST;
        return c == '\n' && trailer_line(b); /* RFC 9112, 2.2: no bare CR */
    case B_END_LF:
        b->state = B_DONE;
        return c == '\n';
    default:
        SW_UNREACHABLE();
    }
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static enum sw_err chunk_size_known(struct sw_body *b)
{
    b->line = 0;
    if (b->left == 0) {
        b->state = B_TRAILER_FIRST; /* from here on b->left counts the section's bytes */
        return SW_OK;
    }
    if (b->left > b->max - b->total) {
        return SW_E_BODY_LARGE;
    }
    b->state = B_DATA;
    return SW_OK;
}

/* One byte of a chunk's frame. RFC 9112, 7.1 and 7.1.1; BWS around ';' and '=' is refused, since
 * it is only there for old senders and readers differ on it. */
static enum sw_err chunk_byte(struct sw_body *b, char c)
{
    if (b->state <= B_EXT_QUOTED_END && c != '\r' && ++b->line > SW_CHUNK_LINE_MAX) {
        return SW_E_CHUNK_SYNTAX; /* RFC 9112, 7.1.1: bounded, or a body is made of extensions */
    }
    switch ((enum body_state)b->state) {
    case B_SIZE_FIRST:
        b->left = 0;
        if (!sw_http__is(c, SW_CC_HEX)) {
            return SW_E_CHUNK_SYNTAX; /* no sign, no blank, no "0x", no empty size */
        }
        b->state = B_SIZE;
        /* fall through */
    case B_SIZE:
        if (sw_http__is(c, SW_CC_HEX)) {
            b->left = b->left << 4 | sw_http__hex(c);
            /* RFC 9112, 7.1: readers overflow at different sizes */
            return b->left > SW_CHUNK_SIZE_MAX ? SW_E_CHUNK_SIZE : SW_OK;
        }
        break;
    case B_EXT_NAME_FIRST:
    case B_EXT_VALUE_FIRST:
        if (c == '"' && b->state == B_EXT_VALUE_FIRST) {
            b->state = B_EXT_QUOTED;
            return SW_OK;
        }
        b->state++;
        return sw_http__is(c, SW_CC_TOKEN) ? SW_OK : SW_E_CHUNK_SYNTAX;
    case B_EXT_NAME:
        if (c == '=') {
            b->state = B_EXT_VALUE_FIRST;
            return SW_OK;
        }
        /* fall through */
    case B_EXT_VALUE:
        if (sw_http__is(c, SW_CC_TOKEN)) {
            return SW_OK;
        }
        break;
    case B_EXT_QUOTED:
        if (c == '"') {
            b->state = B_EXT_QUOTED_END;
        } else if (c == '\\') {
            b->state = B_EXT_ESCAPED;
        }
        return sw_http__is(c, SW_CC_VALUE) ? SW_OK : SW_E_CHUNK_SYNTAX;
    case B_EXT_ESCAPED:
        b->state = B_EXT_QUOTED;
        return sw_http__is(c, SW_CC_VALUE) ? SW_OK : SW_E_CHUNK_SYNTAX;
    case B_EXT_QUOTED_END:
        break;
    case B_SIZE_LF:
        return c == '\n' ? chunk_size_known(b) : SW_E_CHUNK_SYNTAX;
    case B_DATA_CR:
        b->state = B_DATA_LF;
        return c == '\r' ? SW_OK : SW_E_CHUNK_SYNTAX; /* the data is as long as was said */
    case B_DATA_LF:
        b->state = B_SIZE_FIRST;
        return c == '\n' ? SW_OK : SW_E_CHUNK_SYNTAX;
    default:
        return trailer_byte(b, c) ? SW_OK : SW_E_TRAILER;
    }
    /* Behind a size, an extension's name or value. */
    if (c == ';') {
        b->state = B_EXT_NAME_FIRST;
        return SW_OK;
    }
    b->state = B_SIZE_LF;
    return c == '\r' ? SW_OK : SW_E_CHUNK_SYNTAX; /* RFC 9112, 2.2 does not extend to chunks */
}

static struct sw_body_fed feed_chunks(struct sw_body *b, struct sw_slice in)
{
    struct sw_body_fed fed = {.step = SW_STEP_MORE, .data = {in.ptr, 0}};
    size_t i = 0;

    while (i < in.len && b->state != B_DONE) {
        if (b->state == B_DATA) {
            size_t n = SW_MIN(in.len - i, b->left);

            if (fed.data.len > 0) {
                break; /* one piece a call */
            }
            fed.data = sw_slice_of(in.ptr + i, n);
            i += n;
            b->total += n;
            b->left -= n;
            if (b->left == 0) {
                b->state = B_DATA_CR;
            }
        } else {
            enum sw_err err = chunk_byte(b, in.ptr[i++]);

            if (err != SW_OK) {
                return fail(b, err);
            }
        }
    }
    fed.consumed = i;
    return fed;
}

/* ---- all framings ---------------------------------------------------------------------------- */

struct sw_body_fed sw_body_feed(struct sw_body *b, struct sw_slice input)
{
    struct sw_body_fed fed = {.step = SW_STEP_MORE, .data = {input.ptr, 0}};

    if (b->state == B_DONE) {
        fed.step = SW_STEP_DONE;
        return fed;
    }
    switch (b->framing) {
    case SW_FRAMING_NONE:
        break;
    case SW_FRAMING_LENGTH:
        if (b->left > b->max - b->total) {
            return fail(b, SW_E_BODY_LARGE);
        }
        fed.data = sw_slice_head(input, (size_t)SW_MIN((uint64_t)input.len, b->left));
        b->left -= fed.data.len;
        if (b->left == 0) {
            b->state = B_DONE;
        }
        fed.consumed = fed.data.len;
        b->total += fed.consumed;
        break;
    case SW_FRAMING_CLOSE:
        if (input.len > b->max - b->total) {
            return fail(b, SW_E_BODY_LARGE);
        }
        fed.data = input;
        fed.consumed = input.len;
        b->total += fed.consumed;
        break;
    case SW_FRAMING_CHUNKED:
        fed = feed_chunks(b, input);
        break;
    }
    if (fed.step == SW_STEP_MORE && b->state == B_DONE) {
        fed.step = SW_STEP_DONE;
    }
    return fed;
}

enum sw_err sw_body_end(struct sw_body *b)
{
    if (b->state == B_DONE || b->framing == SW_FRAMING_CLOSE || b->framing == SW_FRAMING_NONE) {
        return SW_OK;
    }
    /* RFC 9112, 8: incomplete */
    return b->is_response ? SW_E_APP_CLOSED : SW_E_CLIENT_GONE;
}

struct sw_slice sw_body_trailers(const struct sw_body *b)
{
    return b->trailer_out == NULL ? (struct sw_slice){NULL, 0} : sw_out_done(b->trailer_out);
}

size_t sw_chunk_head(char out[18], uint64_t size)
{
    struct sw_out o = sw_out_init(out, 18);

    sw_out_hex(&o, size, 0);
    sw_out_lit(&o, "\r\n");
    SW_ASSERT(!o.overflowed);
    return o.len;
}
