/* admin/records.c - a record as JSON, and back.
 *
 * Room       admin/. Pure: out has room or is marked as overflowed.
 * Flow       sessions.c and transfer.c scan the store -> here -> a page, or a line of an export;
 *            a line of an import -> here -> a write.
 *
 * A line of an export is one JSON object and a line end:
 *
 *   handle                       the record's key: 43 characters of base64url
 *   kind                         "state", "tombstone" (ended), "claim" (an idempotency key)
 *   version                      as it was; an import makes new ones
 *   created touched expires absolute   unix seconds; null: never
 *   bound_ms due_ms              unix milliseconds; null: not bound to a subject, no alarm
 *   subject | subject_b64        text, or base64url when the text cannot say it; null: none
 *   sealed                       whether the value is encrypted
 *   extra                        base64url: the alarms; they say when the record is due
 *   value | value_b64            JSON, or base64url when it is sealed or binary
 *
 * What is left out counts as null, false or empty. An alias, which leads from a renewed id to the
 * new one for some seconds, is not exported.
 */
#include "admin/admin_priv.h"
#include "base/json.h"

static const struct {
    struct sw_slice name;
    enum sw_record_kind kind;
} kinds[] = {
    {SW_S("state"), SW_RECORD_STATE},
    {SW_S("tombstone"), SW_RECORD_TOMBSTONE},
    {SW_S("claim"), SW_RECORD_CLAIM},
};

/* ---- handles --------------------------------------------------------------------------------- */

void sw_admin__handle_put(struct sw_out *out, const struct sw_store_key *key)
{
    sw_b64url_put(out, key->bytes, sizeof(key->bytes));
}

bool sw_admin__handle_read(struct sw_slice text, struct sw_store_key *ret_key)
{
    return text.len == ADMIN_HANDLE_BYTES &&
           sw_b64url_exact(text, ret_key->bytes, sizeof(ret_key->bytes)) == SW_OK;
}

bool sw_admin__pin_read(struct sw_slice text, uint64_t *ret_pin_id)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] >= 'A' && text.ptr[i] <= 'F') {
            return false; /* one spelling */
        }
    }
    return text.len == ADMIN_PIN_CHARS && sw_slice_hex_u64(text, ret_pin_id);
}

/* ---- a record as text ------------------------------------------------------------------------ */

static void member(struct sw_out *o, const char *name)
{
    sw_out_lit(o, ",\"");
    sw_out_cstr(o, name);
    sw_out_lit(o, "\":");
}

/* 0 is "never". */
static void moment(struct sw_out *o, const char *name, int64_t value)
{
    member(o, name);
    if (value == 0) {
        sw_out_lit(o, "null");
    } else {
        sw_out_i64(o, value);
    }
}

static void base64(struct sw_out *o, const char *name, struct sw_slice bytes)
{
    member(o, name);
    sw_out_char(o, '"');
    sw_b64url_put(o, bytes.ptr, bytes.len);
    sw_out_char(o, '"');
}

/* Does JSON text bring exactly these bytes back? (Not when they are no UTF-8.) */
static bool text_says_it(struct sw_slice bytes)
{
    char quoted[6 * SW_SUBJECT_BYTES_MAX + 2], back[SW_SUBJECT_BYTES_MAX * 3];
    struct sw_out q = sw_out_init(quoted, sizeof(quoted)), b = sw_out_init(back, sizeof(back));

    sw_json_quote(&q, bytes);
    return !q.overflowed && sw_json_unquote(sw_out_done(&q), &b) &&
           sw_slice_eq(sw_out_done(&b), bytes);
}

void sw_admin__subject_put(struct sw_out *out, struct sw_slice subject)
{
    sw_out_lit(out, "\"subject\":");
    if (subject.len == 0) {
        sw_out_lit(out, "null");
        return;
    }
    sw_json_quote(out, subject);
    if (!text_says_it(subject)) {
        base64(out, "subject_b64", subject);
    }
}

static void times_put(struct sw_out *o, const struct sw_record *r)
{
    member(o, "version");
    sw_version_put(o, r->version); /* with its quotes */
    moment(o, "created", r->created_unix_s);
    moment(o, "touched", r->touched_unix_s);
    moment(o, "expires", r->expires_unix_s);
    moment(o, "absolute", r->absolute_unix_s);
    moment(o, "bound_ms", r->bound_unix_ms);
    moment(o, "due_ms", r->due_unix_ms);
}

/* All but the closing brace. */
static void entry_open(struct sw_out *o, const struct sw_store_key *key, const struct sw_record *r)
{
    struct sw_alarm alarms[SW_ALARMS_MAX];
    size_t alarm_count = 0;

    sw_out_lit(o, "{\"handle\":\"");
    sw_admin__handle_put(o, key);
    sw_out_lit(o, "\",");
    sw_admin__subject_put(o, r->subject);
    times_put(o, r);
    member(o, "size");
    sw_out_u64(o, r->value.len);
    member(o, "sealed");
    sw_out_cstr(o, r->sealed ? "true" : "false");
    member(o, "alarms");
    if (sw_alarms_read(r->extra, alarms, &alarm_count) == SW_OK) {
        sw_out_u64(o, alarm_count);
    } else {
        sw_out_lit(o, "null");
    }
}

void sw_admin__entry_put(struct sw_out *out, const struct sw_store_key *key,
                         const struct sw_record *r)
{
    entry_open(out, key, r);
    sw_out_char(out, '}');
}

static bool is_json(struct sw_slice text)
{
    struct sw_json_checked checked = sw_json_check(text);

    return checked.err == SW_OK;
}

void sw_admin__one_put(struct sw_out *out, const struct sw_store_key *key,
                       const struct sw_record *r)
{
    entry_open(out, key, r);
    if (!r->sealed && is_json(r->value)) {
        member(out, "value");
        sw_out_slice(out, r->value);
    }
    sw_out_lit(out, "}\n");
}

static void line_put(struct sw_out *o, const struct sw_store_key *key, const struct sw_record *r,
                     bool as_json)
{
    sw_out_lit(o, "{\"handle\":\"");
    sw_admin__handle_put(o, key);
    sw_out_lit(o, "\",\"kind\":\"");
    for (size_t i = 0; i < SW_COUNTOF(kinds); i++) {
        if (kinds[i].kind == r->kind) {
            sw_out_slice(o, kinds[i].name);
        }
    }
    sw_out_char(o, '"');
    times_put(o, r);
    if (r->subject.len > 0) {
        if (text_says_it(r->subject)) {
            member(o, "subject");
            sw_json_quote(o, r->subject);
        } else {
            base64(o, "subject_b64", r->subject);
        }
    }
    if (r->sealed) {
        member(o, "sealed");
        sw_out_lit(o, "true");
    }
    if (r->extra.len > 0) {
        base64(o, "extra", r->extra);
    }
    if (as_json) {
        member(o, "value");
        sw_out_slice(o, r->value);
    } else if (r->value.len > 0) {
        base64(o, "value_b64", r->value);
    }
    sw_out_lit(o, "}\n");
}

void sw_admin__line_put(struct sw_out *out, const struct sw_store_key *key,
                        const struct sw_record *r)
{
    size_t before = out->len;
    bool as_json = r->kind == SW_RECORD_STATE && !r->sealed;

    line_put(out, key, r, as_json);
    /* The line is what must be readable: a value that is JSON may still nest too deep inside it. */
    if (as_json && !out->overflowed &&
        !is_json((struct sw_slice){out->ptr + before, out->len - before - 1})) {
        out->len = before;
        line_put(out, key, r, false);
    }
}

size_t sw_admin__line_bytes(size_t value_bytes)
{
    return ADMIN_ENTRY_BYTES + SW_B64_LEN(SW_EXTRA_BYTES_MAX) + SW_B64_LEN(value_bytes);
}

/* ---- and back -------------------------------------------------------------------------------- */

struct reading {
    struct sw_out *scratch;
    struct sw_admin_line *line;
    bool has_handle, has_kind, has_subject, has_value;
    bool bytes; /* the value came as base64url */
};

#define NO_ROOM "the line is longer than any route allows"

/* What out has got since `before`. */
static struct sw_slice since(const struct sw_out *out, size_t before)
{
    return (struct sw_slice){out->ptr + before, out->len - before};
}

static bool is_null(struct sw_slice value)
{
    return sw_json_type_of(value) == SW_JSON_NULL;
}

/* The inside of a string of base64url, into scratch. */
static const char *read_base64(struct reading *x, struct sw_slice value, size_t bytes_max,
                               struct sw_slice *ret_bytes)
{
    struct sw_out *s = x->scratch;
    size_t room = SW_MIN(s->cap - s->len, bytes_max), len = 0;
    struct sw_slice inside;
    enum sw_err err;

    if (sw_json_type_of(value) != SW_JSON_STRING) {
        return "base64url stands in a string";
    }
    inside = (struct sw_slice){value.ptr + 1, value.len - 2};
    err = sw_b64url(inside, s->ptr + s->len, room, &len);
    if (err == SW_E_LIMIT) {
        s->overflowed = s->overflowed || room < bytes_max;
        return NO_ROOM;
    }
    if (err != SW_OK) {
        return "this is no base64url without padding";
    }
    *ret_bytes = (struct sw_slice){s->ptr + s->len, len};
    s->len += len;
    return NULL;
}

static const char *read_handle(struct reading *x, struct sw_slice value)
{
    x->has_handle =
        sw_json_type_of(value) == SW_JSON_STRING &&
        sw_admin__handle_read((struct sw_slice){value.ptr + 1, value.len - 2}, &x->line->key);
    return x->has_handle ? NULL : "`handle` is no handle: 43 characters of base64url";
}

static const char *read_kind(struct reading *x, struct sw_slice value)
{
    for (size_t i = 0; i < SW_COUNTOF(kinds); i++) {
        if (sw_json_type_of(value) == SW_JSON_STRING &&
            sw_json_name_is((struct sw_slice){value.ptr + 1, value.len - 2}, kinds[i].name)) {
            x->line->record.kind = kinds[i].kind;
            x->has_kind = true;
        }
    }
    return x->has_kind ? NULL : "`kind` is state, tombstone or claim";
}

static const char *read_moment(struct sw_slice value, int64_t *ret_value)
{
    uint64_t n = 0;

    if (!is_null(value) && (!sw_slice_u64(value, &n) || n > INT64_MAX / 1000)) {
        return "a time is a whole number, or null";
    }
    *ret_value = (int64_t)n;
    return NULL;
}

static const char *read_created(struct reading *x, struct sw_slice value)
{
    return read_moment(value, &x->line->record.created_unix_s);
}

static const char *read_touched(struct reading *x, struct sw_slice value)
{
    return read_moment(value, &x->line->record.touched_unix_s);
}

static const char *read_expires(struct reading *x, struct sw_slice value)
{
    return read_moment(value, &x->line->record.expires_unix_s);
}

static const char *read_absolute(struct reading *x, struct sw_slice value)
{
    return read_moment(value, &x->line->record.absolute_unix_s);
}

static const char *read_bound(struct reading *x, struct sw_slice value)
{
    return read_moment(value, &x->line->record.bound_unix_ms);
}

static const char *read_due(struct reading *x, struct sw_slice value)
{
    return read_moment(value, &x->line->record.due_unix_ms);
}

static const char *read_version(struct reading *x, struct sw_slice value)
{
    (void)x;
    return sw_json_type_of(value) == SW_JSON_STRING || is_null(value) ? NULL
                                                                      : "`version` is a text";
}

static const char *subject_checked(struct reading *x, struct sw_slice subject)
{
    if (x->has_subject) {
        return "`subject` and `subject_b64` do not go together";
    }
    if (subject.len > SW_SUBJECT_BYTES_MAX) {
        return "a subject has at most 255 bytes";
    }
    x->has_subject = true;
    x->line->record.subject = subject;
    return NULL;
}

static const char *read_subject(struct reading *x, struct sw_slice value)
{
    size_t before = x->scratch->len;

    if (is_null(value)) {
        return NULL;
    }
    if (sw_json_type_of(value) != SW_JSON_STRING) {
        return "`subject` is a text, or null";
    }
    if (!sw_json_unquote(value, x->scratch)) {
        return NO_ROOM;
    }
    return subject_checked(x, since(x->scratch, before));
}

static const char *read_subject_b64(struct reading *x, struct sw_slice value)
{
    struct sw_slice bytes = {NULL, 0};
    const char *why = read_base64(x, value, SW_SUBJECT_BYTES_MAX, &bytes);

    return why != NULL ? why : subject_checked(x, bytes);
}

static const char *read_sealed(struct reading *x, struct sw_slice value)
{
    if (sw_json_type_of(value) != SW_JSON_BOOL) {
        return "`sealed` is true or false";
    }
    x->line->record.sealed = sw_slice_eq(value, SW_S("true"));
    return NULL;
}

static const char *read_extra(struct reading *x, struct sw_slice value)
{
    return is_null(value) ? NULL
                          : read_base64(x, value, SW_EXTRA_BYTES_MAX, &x->line->record.extra);
}

/* JSON as the store keeps it: compact, ASCII. */
static const char *read_value(struct reading *x, struct sw_slice value)
{
    size_t before = x->scratch->len;

    if (x->has_value) {
        return "`value` and `value_b64` do not go together";
    }
    x->has_value = true;
    if (!sw_json_compact(value, x->scratch)) {
        x->scratch->overflowed = true;
        return NO_ROOM;
    }
    x->line->record.value = since(x->scratch, before);
    return NULL;
}

static const char *read_value_b64(struct reading *x, struct sw_slice value)
{
    if (x->has_value) {
        return "`value` and `value_b64` do not go together";
    }
    x->has_value = true;
    x->bytes = true;
    return read_base64(x, value, SW_STORE_VALUE_BYTES_MAX, &x->line->record.value);
}

static const struct {
    struct sw_slice name;
    const char *(*read)(struct reading *x, struct sw_slice value);
} members[] = {
    {SW_S("handle"), read_handle},
    {SW_S("kind"), read_kind},
    {SW_S("version"), read_version},
    {SW_S("created"), read_created},
    {SW_S("touched"), read_touched},
    {SW_S("expires"), read_expires},
    {SW_S("absolute"), read_absolute},
    {SW_S("bound_ms"), read_bound},
    {SW_S("due_ms"), read_due},
    {SW_S("subject"), read_subject},
    {SW_S("subject_b64"), read_subject_b64},
    {SW_S("sealed"), read_sealed},
    {SW_S("extra"), read_extra},
    {SW_S("value"), read_value},
    {SW_S("value_b64"), read_value_b64},
};

static const char *read_member(struct reading *x, struct sw_slice name, struct sw_slice value)
{
    for (size_t i = 0; i < SW_COUNTOF(members); i++) {
        if (sw_json_name_is(name, members[i].name)) {
            return members[i].read(x, value);
        }
    }
    return "the line has a member that is not known here";
}

/* A state's value, as the store keeps it. */
static const char *state_value(struct reading *x)
{
    struct sw_record *r = &x->line->record;
    size_t before = x->scratch->len;

    if (r->sealed) {
        return x->bytes ? NULL : "a sealed value is `value_b64`";
    }
    if (x->bytes) { /* what a line said as `value` was checked with the line, and is compact */
        if (!is_json(r->value)) {
            return "the value is not JSON that a state can be";
        }
        if (!sw_json_compact(r->value, x->scratch)) {
            x->scratch->overflowed = true;
            return NO_ROOM;
        }
        r->value = since(x->scratch, before);
    }
    return sw_json_type_of(r->value) == SW_JSON_OBJECT ? NULL : "a state is a JSON object";
}

/* When a record is due is what its alarms say, whatever the line said: what is due and has no alarm
 * would be looked at for ever. */
static const char *alarms_whole(struct sw_record *r)
{
    struct sw_alarm alarms[SW_ALARMS_MAX];
    size_t count = 0;

    r->due_unix_ms = 0;
    if (r->extra.len == 0) {
        return NULL;
    }
    if (r->kind != SW_RECORD_STATE || r->sealed) {
        return "only a state that is not sealed has alarms (`extra`)";
    }
    if (sw_alarms_read(r->extra, alarms, &count) != SW_OK) {
        return "`extra` holds no list of alarms";
    }
    r->due_unix_ms = sw_alarms_due(alarms, count);
    return NULL;
}

/* What the parts must be together. */
static const char *line_whole(struct reading *x)
{
    struct sw_record *r = &x->line->record;
    const char *why;

    if (!x->has_handle || !x->has_kind) {
        return "a line has at least `handle` and `kind`";
    }
    why = alarms_whole(r);
    if (why != NULL) {
        return why;
    }
    if (r->kind == SW_RECORD_TOMBSTONE) {
        return !x->has_value && !r->sealed ? NULL : "what has ended has no value";
    }
    if (!x->has_value || r->value.len == 0) {
        return "the line has no value";
    }
    if (r->kind == SW_RECORD_STATE) {
        return state_value(x);
    }
    return x->bytes && !r->sealed ? NULL : "the value of a claim is `value_b64`, not sealed";
}

const char *sw_admin__line_read(struct sw_slice line, struct sw_out *scratch,
                                struct sw_admin_line *ret_line)
{
    struct reading x = {.scratch = scratch, .line = ret_line};
    struct sw_json_checked checked = sw_json_check(line);
    struct sw_json_iter it;
    struct sw_slice name, value;
    const char *why = NULL;

    memset(ret_line, 0, sizeof(*ret_line));
    if (checked.err != SW_OK || checked.type != SW_JSON_OBJECT) {
        return "this line is no JSON object";
    }
    it = sw_json_iter(line);
    while (why == NULL && sw_json_next(&it, &name, &value)) {
        why = read_member(&x, name, value);
    }
    return why != NULL ? why : line_whole(&x);
}
