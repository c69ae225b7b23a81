/* http/http_priv.h - what the files of http/ share: byte classes, field ids, the field reader. */
#ifndef SW_HTTP_PRIV_H
#define SW_HTTP_PRIV_H

#include "http/http.h"

/* Classes of bytes: sw_http__class[byte] & SW_CC_x. */
enum {
    SW_CC_TOKEN = 1,   /* tchar, RFC 9110, 5.6.2 */
    SW_CC_VALUE = 2,   /* HTAB, SP, VCHAR, obs-text: RFC 9110, 5.5 */
    SW_CC_VISIBLE = 4, /* 0x21-0x7e */
    SW_CC_PATH = 8,    /* visible bytes of a path that need no closer look: all but / % \ # ? */
    SW_CC_HOST = 16,   /* unreserved, RFC 3986, 2.3 */
    SW_CC_HEX = 32,
    SW_CC_USCORE = 64, /* '_' */
    SW_CC_DIGIT = 128,
};
extern const uint8_t sw_http__class[256];

static inline unsigned sw_http__is(char c, unsigned classes)
{
    return sw_http__class[(uint8_t)c] & classes;
}

/* Value of a hex digit; only for bytes of SW_CC_HEX. */
static inline unsigned sw_http__hex(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : ((unsigned)c | 0x20u) - 'a' + 10;
}

/* More connection options than this are refused, so that forwarding stays linear. */
#define SW_CONNECTION_OPTIONS_MAX 32
/* A name longer than this folds to nothing we know. */
#define SW_FOLDED_BYTES_MAX 32
/* All trailer lines of one message. */
#define SW_TRAILER_BYTES_MAX 8192
/* A chunk's size line with its extensions, without CRLF. */
#define SW_CHUNK_LINE_MAX 256
#define SW_CHUNK_SIZE_MAX (1ull << 52)

/* The id of a field name, ASCII case ignored. */
enum sw_field_id sw_http__field_id(struct sw_slice name);
/* The id of a name with '_' read as '-', as CGI, WSGI and PHP read it. */
enum sw_field_id sw_http__field_id_folded(struct sw_slice name);
/* Is this name, read with '_' as '-', "x-forwarded-..."? */
bool sw_http__is_x_forwarded(struct sw_slice name);

/* Walks the elements of a comma-separated list (RFC 9110, 5.6.1), blanks trimmed, empty elements
 * skipped. quotes: commas in quoted strings do not separate; for lists of tokens only, like
 * Connection, a quote is no reason to miss an element. False at the end. */
bool sw_http__list_next(struct sw_slice *rest, bool quotes, struct sw_slice *ret_element);

/* First byte in [p, end) that cannot stand in a field value; end when there is none. */
const char *sw_http__value_end(const char *p, const char *end);

/* Is a non-empty slice made of token characters only? */
bool sw_http__token(struct sw_slice s);

struct sw_h1__lines {
    const char *p; /* in: behind the start line; out (DONE): behind the empty line */
    const char *end;
    bool uscore; /* out: a name holds '_' */
};

/* Reads field lines up to the empty line into h->fields. MORE: the input ended before. */
struct sw_parsed sw_h1__fields(struct sw_h1__lines *lines, struct sw_head *h);

/* The end of a line at p, which is no class the caller expects: CRLF or an error.
 * DONE: p stands at CRLF. `other` is the error for any other byte. */
struct sw_parsed sw_h1__eol(const char *p, const char *end, enum sw_err other);

/* May parsing wait for more? True when all that came since `scanned` continues a field's value.
 * Then no answer but MORE is possible. The first start_line_max bytes are always looked at. So a
 * value that drips in costs a look at each new byte, and a pass over what there is for each line.
 */
bool sw_h1__wait(struct sw_slice input, size_t scanned, size_t start_line_max);

/* What Content-Length, Transfer-Encoding, Connection, Upgrade and TE of a head say together. */
enum sw_err sw_h1__frame(struct sw_head *h);

static inline struct sw_parsed sw_h1__fail(enum sw_err err)
{
    return (struct sw_parsed){SW_STEP_FAIL, err, 0};
}

static inline struct sw_parsed sw_h1__more(void)
{
    return (struct sw_parsed){SW_STEP_MORE, SW_OK, 0};
}

/* Host's grammar: name or [IPv6], optional port; not empty. The parts when it is valid. */
bool sw_http__authority(struct sw_slice s, struct sw_slice *ret_host, struct sw_slice *ret_port);

/* Splits and checks h->target by form (RFC 9112, 3.2) and reconciles it with the Host field's
 * value (ptr NULL: there was none). */
enum sw_err sw_http__target(struct sw_head *h, const struct sw_field *host);

#endif
