/* http/http.h - the message: heads, framing, bodies, targets, cookies, forwarding.
 *
 * Room       Pure: bytes <-> messages. No fd, no clock, no allocation but the caller's arena.
 * May touch  base/.
 * Flow       gateway/ feeds received bytes; asks for composed heads.
 *
 * Slices in a head point into the input: they live as long as the caller keeps that buffer.
 */
#ifndef SW_HTTP_H
#define SW_HTTP_H

#include "base/arena.h"
#include "base/err.h"
#include "base/out.h"

/* ---- heads ----------------------------------------------------------------------------------- */

enum sw_method {
    SW_METHOD_OTHER, /* a token we do not know: forwarded as it is */
    SW_METHOD_GET,
    SW_METHOD_HEAD,
    SW_METHOD_POST,
    SW_METHOD_PUT,
    SW_METHOD_DELETE,
    SW_METHOD_PATCH,
    SW_METHOD_OPTIONS,
    SW_METHOD_TRACE,
    SW_METHOD_CONNECT,
    SW_METHOD_COUNT,
};

/* RFC 9110, 9.2.1 and 9.2.2, for the methods that RFC defines (and PROPFIND, REPORT, SEARCH). */
bool sw_method_safe(enum sw_method m, struct sw_slice name);
bool sw_method_idempotent(enum sw_method m, struct sw_slice name);

/* Fields that somebody looks at: found by length and first bytes, not by comparing with each. */
enum sw_field_id {
    SW_FIELD_OTHER,
    SW_FIELD_CONNECTION,
    SW_FIELD_CONTENT_LENGTH,
    SW_FIELD_CONTENT_TYPE,
    SW_FIELD_TRANSFER_ENCODING,
    SW_FIELD_TE,
    SW_FIELD_TRAILER,
    SW_FIELD_UPGRADE,
    SW_FIELD_HOST,
    SW_FIELD_EXPECT,
    SW_FIELD_COOKIE,
    SW_FIELD_SET_COOKIE,
    SW_FIELD_KEEP_ALIVE,
    SW_FIELD_PROXY_CONNECTION,
    SW_FIELD_PROXY_AUTHENTICATE,
    SW_FIELD_PROXY_AUTHORIZATION,
    SW_FIELD_HTTP2_SETTINGS,
    SW_FIELD_FORWARDED,
    SW_FIELD_X_FORWARDED_FOR,
    SW_FIELD_X_FORWARDED_PROTO,
    SW_FIELD_X_FORWARDED_HOST,
    SW_FIELD_X_FORWARDED_PORT,
    SW_FIELD_VIA,
    SW_FIELD_DATE,
    SW_FIELD_SERVER,
    SW_FIELD_CACHE_CONTROL,
    SW_FIELD_ORIGIN,
    SW_FIELD_SEC_FETCH_SITE,
    SW_FIELD_AUTHORIZATION,
    SW_FIELD_IDEMPOTENCY_KEY,
    SW_FIELD_LOCATION,
    SW_FIELD_STATEWAY, /* any name that begins with "stateway-" ('_' and '-' alike) */
    SW_FIELD_COUNT,
};

struct sw_field {
    struct sw_slice name, value; /* value without blanks around it */
    enum sw_field_id id;
};

enum sw_framing {
    SW_FRAMING_NONE, /* no body */
    SW_FRAMING_LENGTH,
    SW_FRAMING_CHUNKED,
    SW_FRAMING_CLOSE, /* responses only: until the peer closes */
};

struct sw_head {
    struct sw_field *fields; /* the caller's array */
    uint32_t field_count, field_max;

    enum sw_method method; /* requests */
    struct sw_slice method_name;
    struct sw_slice target; /* as it came */
    struct sw_slice path;   /* of the target, origin form ("/" when empty; "*" for OPTIONS *) */
    struct sw_slice query;  /* behind '?', without it; ptr NULL when there was no '?' */
    struct sw_slice host;   /* authority: from an absolute target, else from Host; "" in 1.0 */

    uint16_t status; /* responses */
    struct sw_slice reason;

    uint8_t minor; /* HTTP/1.minor */
    enum sw_framing framing;
    uint64_t length; /* valid for SW_FRAMING_LENGTH */
    bool keep_alive; /* what version and Connection say, and framing allows */
    bool expect_continue;
    bool te_trailers;        /* TE: trailers */
    struct sw_slice upgrade; /* Upgrade's value when Connection names it (1.1 only); else empty */
};

struct sw_h1_limits {
    uint32_t head_bytes_max; /* request line or status line and fields together */
    uint32_t target_bytes_max;
};

struct sw_parsed {
    enum sw_step step;
    enum sw_err err; /* when SW_STEP_FAIL */
    size_t consumed; /* when SW_STEP_DONE: the head's bytes; what follows is body or the next */
};

/* Parses a request head. input is all that came so far of it, contiguous; after SW_STEP_MORE call
 * again with more behind it (*scanned, 0 at first, keeps what need not be scanned again). Errors
 * are told as early as they are certain. Up to 1 empty line (CRLF) before the request line is
 * skipped (RFC 9112, 2.2) and counts as consumed. Everything in RFC 9112 that lets two readers
 * disagree is refused, the section named at each refusal. HTTP/1.0 and 1.1 only. */
SW_MUST struct sw_parsed sw_h1_request(struct sw_slice input, size_t *scanned,
                                       const struct sw_h1_limits *limits, struct sw_head *ret_head);

/* The same for a response to a request with that method. 1xx heads are returned like others, with
 * framing NONE. Errors: SW_E_APP_HEAD, SW_E_APP_HEAD_LARGE. */
SW_MUST struct sw_parsed sw_h1_response(struct sw_slice input, size_t *scanned,
                                        const struct sw_h1_limits *limits,
                                        enum sw_method request_method, struct sw_head *ret_head);

/* A field that did not come in a head: with the id of its name. Slices are borrowed. */
struct sw_field sw_field_make(struct sw_slice name, struct sw_slice value);
/* The first field with that id or name (ASCII case ignored); NULL when there is none. */
const struct sw_field *sw_head_find(const struct sw_head *h, enum sw_field_id id);
const struct sw_field *sw_head_find_name(const struct sw_head *h, struct sw_slice name);
/* Is `token` an element of the comma-separated lists of all fields with that id? */
bool sw_head_lists(const struct sw_head *h, enum sw_field_id id, struct sw_slice token);

/* ---- bodies ---------------------------------------------------------------------------------- */

/* Decodes one body as it comes, in pieces of the input (no copy). Trailers are gathered in
 * trailer_out (the caller's memory; bounded: SW_E_TRAILER). */
struct sw_body {
    enum sw_framing framing;
    uint64_t left;              /* of the length, or of the chunk */
    uint64_t total;             /* payload bytes so far */
    uint64_t max;               /* payload limit: SW_E_BODY_LARGE beyond; UINT64_MAX for none */
    uint32_t line;              /* bytes of the current chunk line */
    uint8_t state;              /* body.c's */
    bool is_response;           /* errors are SW_E_APP_BODY instead */
    struct sw_out *trailer_out; /* NULL: trailers are checked and dropped */
};

void sw_body_init(struct sw_body *b, const struct sw_head *head, uint64_t max, bool is_response,
                  struct sw_out *trailer_out);

struct sw_body_fed {
    enum sw_step step; /* DONE: the body is complete; MORE: feed on */
    enum sw_err err;
    size_t consumed;      /* may be less than given: call again with the rest while it is > 0 */
    struct sw_slice data; /* payload within the consumed bytes, maybe empty */
};
SW_MUST struct sw_body_fed sw_body_feed(struct sw_body *b, struct sw_slice input);
/* The peer closed: complete for SW_FRAMING_CLOSE (and NONE), an error for the others. */
SW_MUST enum sw_err sw_body_end(struct sw_body *b);
/* The gathered trailer lines ("name: value\r\n"...), already checked, with those that must not be
 * trailers taken out (framing, routing, authentication, Stateway-*, cookies; RFC 9110, 6.5.1). */
struct sw_slice sw_body_trailers(const struct sw_body *b);

/* Writes "SIZE\r\n" of a chunk: at most 18 bytes. */
size_t sw_chunk_head(char out[18], uint64_t size);

/* ---- cookies (draft-ietf-httpbis-rfc6265bis) --------------------------------------------------
 */

/* The cookie's value in any Cookie field of the head; count tells how many had the name. The first
 * is returned; with a __Host- name a second one cannot come from a subdomain. */
struct sw_cookie_found {
    struct sw_slice value;
    unsigned count;
};
struct sw_cookie_found sw_cookie_find(const struct sw_head *h, struct sw_slice name);

enum sw_same_site { SW_SAME_SITE_LAX, SW_SAME_SITE_STRICT, SW_SAME_SITE_NONE };
struct sw_set_cookie {
    struct sw_slice name, value; /* already cookie-safe */
    struct sw_slice path;
    enum sw_same_site same_site;
    bool secure;
    int64_t max_age_s; /* < 0: a cookie of the browser's session; 0: deletes */
};
/* The field value "name=value; Path=...; HttpOnly; SameSite=Lax[; Secure][; Max-Age=N]". False when
 * name and value exceed 4096 bytes or out has no room. */
SW_MUST bool sw_set_cookie_put(struct sw_out *out, const struct sw_set_cookie *c);

/* ---- forwarding ------------------------------------------------------------------------------ */

struct sw_forward_request {
    const struct sw_head *head;
    struct sw_slice strip; /* prefix cut from the path: "/cart" */
    struct sw_slice peer;  /* the client's address without port; IPv6 without brackets */
    struct sw_slice proto; /* "http" or "https" */
    bool peer_trusted;     /* what it says in Forwarded and X-Forwarded-* is kept and extended */
    const struct sw_slice *cookies_stripped; /* names of our cookies: taken out of Cookie */
    size_t cookies_stripped_count;
    const struct sw_slice *names_stripped; /* fields of the client that stay out: ours are in extra;
                                              '_' and '-' alike */
    size_t names_stripped_count;
    struct sw_slice extra;   /* lines to add ("name: value\r\n"...): Stateway-* */
    enum sw_framing framing; /* how the body goes on: NONE, LENGTH or CHUNKED */
    uint64_t length;
    bool keep_upgrade; /* forward Connection: Upgrade and Upgrade */
};
/* Composes the whole head for the instance, with the empty line: HTTP/1.1, Host first, hop-by-hop
 * fields out (RFC 9110, 7.6.1), client's Stateway-* out, Via, Forwarded,
 * X-Forwarded-For/-Proto/-Host in. Nothing is sent that was not understood. Overflow of out: false.
 */
SW_MUST bool sw_forward_request_put(struct sw_out *out, const struct sw_forward_request *f);

struct sw_forward_response {
    const struct sw_head *head;
    struct sw_slice extra; /* our lines: Set-Cookie, Cache-Control, exposed Stateway-* */
    bool private_cache;    /* we set a cookie: the answer must not enter a shared cache */
    enum sw_framing framing;
    uint64_t length;
    bool keep_alive;      /* else "Connection: close" */
    uint8_t client_minor; /* 0: an HTTP/1.0 client */
    bool keep_upgrade;    /* a 101 on its way */
    bool head_request;    /* HEAD or 304: Content-Length is forwarded but no body follows */
};
/* The answer's head for the client: hop-by-hop and Stateway-* out, Via in, Date added when missing
 * (date: the caller's current IMF-fixdate). */
SW_MUST bool sw_forward_response_put(struct sw_out *out, const struct sw_forward_response *f,
                                     struct sw_slice date);

/* IMF-fixdate (RFC 9110, 5.6.7) of a wall time; 29 bytes. */
void sw_http_date(char out[29], int64_t unix_s);
/* "Not Found"; "" when unknown. */
struct sw_slice sw_http_reason(unsigned status);

#endif
