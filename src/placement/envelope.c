/* placement/envelope.c - the commit envelope: an answer whose body holds update and response.
 *
 *   {"state":    {"set": {...}} | {"patch": {...}} | {"delete": true},
 *    "response": {"status": 200, "headers": {"Name": "text" | ["text", ...]},
 *                 "body": "..." | "body-bin": "<base64>"},
 *    "alarms":   ["in=30000;id=turn", ...],
 *    "publish":  []}
 *
 * For updates that are too large for a header, in UTF-8 (the state protocol, 2.2). Every member may
 * be missing; one that is not listed here is refused, since a half-understood envelope would commit
 * something the app did not say. The state's own JSON stays text: nobody reads its numbers.
 *
 * Its headers go to the client like those of a head that was read: names are tokens, values are
 * printable ASCII, and what says where the message ends or belongs to this gateway is not the
 * app's to write.
 */
#include "placement/placement_priv.h"

#include "base/json.h"

#define STATUS_MIN 200 /* an interim answer has no body to commit */
#define STATUS_MAX 599

/* One envelope being read; what it says goes into memory, unescaped. */
struct reader {
    struct sw_envelope e;
    struct sw_out memory;
};

typedef enum sw_err member_fn(struct reader *r, struct sw_slice value);

struct member {
    struct sw_slice name;
    member_fn *read;
};

/* Reads an object by the table of its members. */
static enum sw_err read_members(struct reader *r, struct sw_slice object,
                                const struct member *members, size_t count)
{
    struct sw_json_iter it = sw_json_iter(object);
    struct sw_slice name, value;

    if (sw_json_type_of(object) != SW_JSON_OBJECT) {
        return SW_E_UPDATE_ENVELOPE;
    }
    while (sw_json_next(&it, &name, &value)) {
        enum sw_err err;
        size_t i = 0;

        while (i < count && !sw_json_name_is(name, members[i].name)) {
            i++;
        }
        err = i < count ? members[i].read(r, value) : SW_E_UPDATE_ENVELOPE;
        if (err != SW_OK) {
            return err;
        }
    }
    return SW_OK;
}

/* The characters of a string, in memory. They are never more than the text in the body, and no text
 * is unescaped twice, so there is room. */
static enum sw_err unescape(struct reader *r, struct sw_slice value, struct sw_slice *ret_text)
{
    size_t from = r->memory.len;

    if (sw_json_type_of(value) != SW_JSON_STRING) {
        return SW_E_UPDATE_ENVELOPE;
    }
    if (!sw_json_unquote(value, &r->memory)) {
        SW_UNREACHABLE();
    }
    *ret_text = sw_slice_of(r->memory.ptr + from, r->memory.len - from);
    return SW_OK;
}

/* ---- state ----------------------------------------------------------------------------------- */

static enum sw_err read_value(struct reader *r, struct sw_slice value, enum sw_update_kind kind)
{
    if (r->e.kind != SW_UPDATE_NONE) {
        return SW_E_UPDATE_MANY;
    }
    if (sw_json_type_of(value) != SW_JSON_OBJECT) {
        return SW_E_UPDATE_TYPE;
    }
    r->e.kind = kind;
    r->e.value = sw_slice_of(r->memory.ptr + r->memory.len, value.len);
    sw_out_slice(&r->memory, value); /* so that nothing of the body is needed any more */
    SW_ASSERT(!r->memory.overflowed);
    return SW_OK;
}

static enum sw_err read_set(struct reader *r, struct sw_slice value)
{
    return read_value(r, value, SW_UPDATE_SET);
}

static enum sw_err read_patch(struct reader *r, struct sw_slice value)
{
    return read_value(r, value, SW_UPDATE_PATCH);
}

static enum sw_err read_delete(struct reader *r, struct sw_slice value)
{
    if (sw_slice_eq(value, SW_S("false"))) {
        return SW_OK; /* as Stateway-Delete: ?0 */
    }
    if (!sw_slice_eq(value, SW_S("true"))) {
        return SW_E_UPDATE_ENVELOPE;
    }
    if (r->e.kind != SW_UPDATE_NONE) {
        return SW_E_UPDATE_MANY;
    }
    r->e.kind = SW_UPDATE_DELETE;
    return SW_OK;
}

static enum sw_err read_state(struct reader *r, struct sw_slice value)
{
    static const struct member members[] = {
        {SW_S("set"), read_set},
        {SW_S("patch"), read_patch},
        {SW_S("delete"), read_delete},
    };

    return read_members(r, value, members, SW_COUNTOF(members));
}

/* ---- headers --------------------------------------------------------------------------------- */

/* RFC 9110, 5.6.2 */
static bool token(struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) &&
            (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL)) {
            return false;
        }
    }
    return s.len > 0;
}

/* Framing and hop-by-hop fields (RFC 9110, 7.6.1; RFC 9112, 6), and ours. '_' counts as '-', as in
 * what clients send: somebody behind may read it so. */
static bool refused(struct sw_slice name)
{
    static const struct sw_slice names[] = {
        SW_S("connection"),
        SW_S("content-length"),
        SW_S("http2-settings"),
        SW_S("keep-alive"),
        SW_S("proxy-connection"),
        SW_S("proxy-authenticate"),
        SW_S("te"),
        SW_S("trailer"),
        SW_S("transfer-encoding"),
        SW_S("upgrade"),
        SW_S("proxy-authentication-info"),
        SW_S("proxy-authorization"),
    };
    char folded[32];

    if (name.len >= 9 && sw_slice_starts_nocase(name, SW_S("stateway")) &&
        (name.ptr[8] == '-' || name.ptr[8] == '_')) {
        return true;
    }
    if (name.len > sizeof(folded)) {
        return false; /* longer than any of them */
    }
    for (size_t i = 0; i < name.len; i++) {
        folded[i] = name.ptr[i] == '_' ? '-' : name.ptr[i];
    }
    for (size_t i = 0; i < SW_COUNTOF(names); i++) {
        if (sw_slice_eq_nocase(sw_slice_of(folded, name.len), names[i])) {
            return true;
        }
    }
    return false;
}

static enum sw_err add_header(struct reader *r, struct sw_slice name, struct sw_slice value)
{
    struct sw_slice text;
    enum sw_err err = unescape(r, value, &text);

    if (err != SW_OK) {
        return err;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < 0x20 || text.ptr[i] > 0x7e) {
            return SW_E_UPDATE_ENVELOPE; /* CR and LF would begin another header */
        }
    }
    if (r->e.header_count == SW_ENVELOPE_HEADERS) {
        return SW_E_UPDATE_ENVELOPE;
    }
    r->e.headers[r->e.header_count].name = name;
    r->e.headers[r->e.header_count].value = sw_slice_trim(text); /* RFC 9110, 5.5 */
    r->e.header_count++;
    return SW_OK;
}

static enum sw_err add_headers(struct reader *r, struct sw_slice name, struct sw_slice value)
{
    struct sw_json_iter it = sw_json_iter(value);
    struct sw_slice none, one;

    if (sw_json_type_of(value) != SW_JSON_ARRAY) {
        return add_header(r, name, value);
    }
    while (sw_json_next(&it, &none, &one)) {
        enum sw_err err = add_header(r, name, one);

        if (err != SW_OK) {
            return err;
        }
    }
    return SW_OK;
}

static enum sw_err read_headers(struct reader *r, struct sw_slice value)
{
    struct sw_json_iter it = sw_json_iter(value);
    struct sw_slice escaped, one;

    if (sw_json_type_of(value) != SW_JSON_OBJECT) {
        return SW_E_UPDATE_ENVELOPE;
    }
    while (sw_json_next(&it, &escaped, &one)) {
        struct sw_slice name;
        /* the quotes stand around it in the body */
        enum sw_err err = unescape(r, sw_slice_of(escaped.ptr - 1, escaped.len + 2), &name);

        if (err == SW_OK && (!token(name) || refused(name))) {
            err = SW_E_UPDATE_ENVELOPE;
        }
        for (size_t i = 0; err == SW_OK && i < r->e.header_count; i++) {
            if (sw_slice_eq_nocase(r->e.headers[i].name, name)) {
                err = SW_E_UPDATE_ENVELOPE; /* twice, in another spelling */
            }
        }
        if (err == SW_OK) {
            err = add_headers(r, name, one);
        }
        if (err != SW_OK) {
            return err;
        }
    }
    return SW_OK;
}

/* ---- the rest of the response ---------------------------------------------------------------- */

static enum sw_err read_status(struct reader *r, struct sw_slice value)
{
    uint64_t status;

    /* 200, and not 2e2 or 200.0: one spelling */
    if (value.len != 3 || !sw_slice_u64(value, &status) || status < STATUS_MIN ||
        status > STATUS_MAX) {
        return SW_E_UPDATE_ENVELOPE;
    }
    r->e.status = (unsigned)status;
    return SW_OK;
}

static enum sw_err read_body(struct reader *r, struct sw_slice value)
{
    if (r->e.body.ptr != NULL) {
        return SW_E_UPDATE_ENVELOPE; /* body-bin is there too */
    }
    return unescape(r, value, &r->e.body);
}

/* 0..63, or 64. */
static unsigned letter_value(char letter)
{
    unsigned c = (unsigned char)letter;

    if (c - 'A' < 26) {
        return c - 'A';
    }
    if (c - 'a' < 26) {
        return c - 'a' + 26;
    }
    if (c - '0' < 10) {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

/* RFC 4648, 4, with its padding; in place. False: anything else, loose last bits too (3.5). */
static bool base64(struct sw_slice *text, char *bytes)
{
    size_t letters = text->len, at = 0;
    uint32_t bits = 0;
    unsigned held = 0;

    if (letters % 4 != 0) {
        return false;
    }
    for (size_t pads = 0; pads < 2 && letters > 0 && text->ptr[letters - 1] == '='; pads++) {
        letters--;
    }
    for (size_t i = 0; i < letters; i++) {
        unsigned value = letter_value(text->ptr[i]);

        if (value > 63) {
            return false;
        }
        bits = bits << 6 | value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            bytes[at++] = (char)(bits >> held); /* at < i: already read */
            bits &= (1u << held) - 1;
        }
    }
    text->len = at;
    return bits == 0;
}

static enum sw_err read_body_bin(struct reader *r, struct sw_slice value)
{
    size_t from = r->memory.len;
    struct sw_slice text;
    enum sw_err err = r->e.body.ptr != NULL ? SW_E_UPDATE_ENVELOPE : unescape(r, value, &text);

    if (err != SW_OK) {
        return err;
    }
    if (!base64(&text, r->memory.ptr + from)) {
        return SW_E_UPDATE_ENVELOPE;
    }
    r->e.body = text;
    return SW_OK;
}

static enum sw_err read_response(struct reader *r, struct sw_slice value)
{
    static const struct member members[] = {
        {SW_S("status"), read_status},
        {SW_S("headers"), read_headers},
        {SW_S("body"), read_body},
        {SW_S("body-bin"), read_body_bin},
    };
    enum sw_err err = read_members(r, value, members, SW_COUNTOF(members));

    if (err == SW_OK && r->e.body.len > 0 &&
        (r->e.status == 204 || r->e.status == 205 || r->e.status == 304)) {
        return SW_E_UPDATE_ENVELOPE; /* RFC 9110, 15.3.5, 15.3.6, 15.4.5: these have no content */
    }
    return err;
}

/* ---- alarms, publish ------------------------------------------------------------------------- */

static enum sw_err read_alarms(struct reader *r, struct sw_slice value)
{
    struct sw_json_iter it = sw_json_iter(value);
    struct sw_slice none, one;

    if (sw_json_type_of(value) != SW_JSON_ARRAY) {
        return SW_E_UPDATE_ENVELOPE;
    }
    while (sw_json_next(&it, &none, &one)) {
        enum sw_err err = SW_E_UPDATE_ENVELOPE;

        if (r->e.alarm_count < SW_ALARM_CHANGES_MAX) {
            err = unescape(r, one, &r->e.alarms[r->e.alarm_count]);
        }
        if (err != SW_OK) {
            return err;
        }
        r->e.alarm_count++;
    }
    return SW_OK;
}

static enum sw_err read_publish(struct reader *r, struct sw_slice value)
{
    struct sw_json_iter it = sw_json_iter(value);
    struct sw_slice none, one;

    (void)r;
    if (sw_json_type_of(value) != SW_JSON_ARRAY) {
        return SW_E_UPDATE_ENVELOPE;
    }
    return sw_json_next(&it, &none, &one) ? SW_E_UPDATE_UNSUPPORTED : SW_OK;
}

enum sw_err sw_envelope_read(struct sw_slice body, char *memory, struct sw_envelope *ret_envelope)
{
    static const struct member members[] = {
        {SW_S("state"), read_state},
        {SW_S("response"), read_response},
        {SW_S("alarms"), read_alarms},
        {SW_S("publish"), read_publish},
    };
    struct sw_json_checked checked = sw_json_check(body);
    struct reader r = {.e = {.status = 200}, .memory = sw_out_init(memory, body.len)};
    enum sw_err err;

    if (checked.err != SW_OK) {
        return checked.err;
    }
    if (checked.type != SW_JSON_OBJECT) {
        return SW_E_UPDATE_ENVELOPE;
    }
    err = read_members(&r, body, members, SW_COUNTOF(members));
    if (err == SW_OK) {
        *ret_envelope = r.e;
    }
    return err;
}
