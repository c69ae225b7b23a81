/* admin/transfer.c - export and import: the store's records as lines of JSON, one after the other.
 *
 * Room       admin/. Main thread.
 * Flow       export: conn.c asks for the next piece when the client took the one before; a short
 *            scan of the store fills it. import: conn.c hands in pieces of the body; whole lines
 *            become commits, IMPORT_FLIGHTS at a time, and nothing is read while they are under
 * way.
 *
 * Memory is one block a transfer, whatever the number of records: a chunk (and the largest record),
 * or a line and its parts. At most ADMIN_TRANSFERS_MAX run at once.
 *
 * An export is no snapshot: a record that is written meanwhile is in it as it was, or as it is, and
 * a session whose id is renewed meanwhile may be missed. `stateway store backup` makes a whole
 * copy. An export that fails is cut off: its last chunk never comes.
 */
#include "admin/admin_priv.h"
#include "base/json.h"

/* ---- export ---------------------------------------------------------------------------------- */

#define CHUNK_BYTES ((size_t)64 * 1024)
#define CHUNK_HEAD  18u /* "SIZE\r\n" */
#define CHUNK_TAIL  7u  /* "\r\n", and "0\r\n\r\n" behind the last one */

struct export
{
    struct sw_admin_scan scan;
    size_t cap;    /* of the records in text */
    size_t wanted; /* a record needs more than there is; 0: no */
    struct sw_out out;
    char text[]; /* CHUNK_HEAD, cap, CHUNK_TAIL */
};

static size_t export_bytes(size_t cap)
{
    return sizeof(struct export) + CHUNK_HEAD + cap + CHUNK_TAIL;
}

static bool export_visit(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct export *x = arg;
    size_t bytes = sw_admin__line_bytes(r->value.len);

    if (r->kind == SW_RECORD_ALIAS) {
        return true;
    }
    if (bytes > x->out.cap - x->out.len) {
        x->wanted = x->out.len == 0 ? bytes : 0;
        return false;
    }
    sw_admin__line_put(&x->out, key, r);
    SW_ASSERT(!x->out.overflowed);
    return true;
}

static void export_init(struct export *x, size_t cap, const struct sw_admin_scan *scan)
{
    x->scan = *scan;
    x->scan.fn = export_visit;
    x->scan.arg = x;
    x->cap = cap;
    x->wanted = 0;
}

static bool transfer_begin(struct sw_admin_conn *c, size_t bytes)
{
    if (c->admin->transfers == ADMIN_TRANSFERS_MAX) {
        sw_admin__fail(&c->answer, 503,
                       "other exports and imports run; one of them must end before", "overloaded");
        c->answer.lines = "Retry-After: 1\r\n";
        return false;
    }
    if (!sw_admin__block(c, bytes)) {
        return false;
    }
    c->transfer = true;
    c->admin->transfers++;
    return true;
}

enum sw_admin_next sw_admin__export_begin(struct sw_admin_conn *c)
{
    struct sw_admin_scan scan = {.has_at = c->wish.has_after, .at = c->wish.after};

    if (c->minor == 0) {
        sw_admin__fail(&c->answer, 505,
                       "an export needs HTTP/1.1: in 1.0 nobody could tell whether it is whole",
                       sw_err_label(SW_E_VERSION));
        return ADMIN_NEXT_ANSWER;
    }
    if (!c->head_only) {
        if (!transfer_begin(c, export_bytes(CHUNK_BYTES))) {
            return ADMIN_NEXT_ANSWER;
        }
        export_init(c->block, CHUNK_BYTES, &scan);
        sw_log(SW_LOG_INFO, "admin: an export begins");
    }
    sw_admin__answer_init(&c->answer, 200, "application/x-ndjson");
    c->answer.stream = true;
    return ADMIN_NEXT_ANSWER;
}

/* A record larger than the chunk: a block in which it fits, in place of the other one. */
static bool export_grow(struct sw_admin_conn *c)
{
    struct export *x = c->block;
    struct sw_admin_scan scan = x->scan;
    size_t cap = x->wanted;

    SW_ASSERT(cap > x->cap);
    sw_budget_give(&c->admin->large, c->block);
    c->block = sw_budget_take(&c->admin->large, export_bytes(cap));
    if (c->block == NULL) {
        return false;
    }
    export_init(c->block, cap, &scan);
    return true;
}

static enum sw_err export_scan(struct sw_admin_conn *c)
{
    struct export *x = c->block;

    x->out = sw_out_init(x->text + CHUNK_HEAD, x->cap);
    x->wanted = 0;
    return sw_admin__scan(c->admin, &x->scan, ADMIN_SCAN_NS);
}

/* The size in front, the ends behind. */
static struct sw_slice export_frame(struct export *x, bool end)
{
    struct sw_out tail = sw_out_init(x->out.ptr + x->out.len, CHUNK_TAIL);
    char head[CHUNK_HEAD];
    char *begin = x->out.ptr;

    if (x->out.len > 0) {
        size_t n = sw_chunk_head(head, x->out.len);

        begin -= n;
        memcpy(begin, head, n);
        sw_out_lit(&tail, "\r\n");
    }
    if (end) {
        sw_out_lit(&tail, "0\r\n\r\n");
    }
    SW_ASSERT(!tail.overflowed);
    return sw_slice_of(begin, (size_t)(tail.ptr + tail.len - begin));
}

enum sw_admin_fill sw_admin__export_fill(struct sw_admin_conn *c, struct sw_slice *ret_bytes)
{
    struct export *x = c->block;
    enum sw_err err;

    if (c->export_done) {
        return ADMIN_FILL_END;
    }
    err = export_scan(c);
    if (err == SW_OK && x->wanted > 0) {
        err = export_grow(c) ? export_scan(c) : SW_E_NO_MEMORY;
        x = c->block;
    }
    if (err != SW_OK) {
        sw_log(SW_LOG_ERROR, "admin: an export was cut off: %s", sw_err_text(err));
        return ADMIN_FILL_FAIL;
    }
    if (x->out.len == 0 && !x->scan.end) {
        return ADMIN_FILL_LATER;
    }
    c->export_done = x->scan.end;
    *ret_bytes = export_frame(x, x->scan.end);
    return ADMIN_FILL_SOME;
}

/* ---- import ---------------------------------------------------------------------------------- */

#define IMPORT_FLIGHTS 32
#define IMPORT_ERRORS  20 /* told in the answer; the others are only counted */
#define IMPORT_AHEAD   ((size_t)64 * 1024)
/* An encrypted value is a little longer than what the route allows. */
#define SEALED_MORE 256

struct import_error {
    uint64_t line;
    const char *text, *label;
};
struct import_flight {
    struct sw_store_commit op;
    uint64_t line;
};

struct import {
    size_t cap, len; /* of text */
    size_t at;       /* what is before is done */
    uint64_t line;   /* lines begun before `at` */
    bool dropping;   /* within a line that was too long */
    bool ended;      /* the body is complete */
    enum sw_err stopped;
    uint64_t created, replaced, skipped, failed;
    size_t error_count;
    struct import_error errors[IMPORT_ERRORS];
    size_t flight_count;
    struct import_flight flights[IMPORT_FLIGHTS];
    size_t scratch_cap;
    char *scratch;
    char text[];
};
/* The answer is written into text, when all lines are done. */
_Static_assert(IMPORT_AHEAD > IMPORT_ERRORS * 512 + 1024, "errors fit");

enum sw_admin_next sw_admin__import_begin(struct sw_admin_conn *c)
{
    size_t cap = sw_admin__line_bytes(c->admin->value_bytes_max) + IMPORT_AHEAD;
    struct import *m;

    if (c->wish.media != MEDIA_LINES) {
        sw_admin__fail(&c->answer, 415, "lines are sent as application/x-ndjson", "media");
        return ADMIN_NEXT_ANSWER;
    }
    if (!transfer_begin(c, sizeof(*m) + 2 * cap)) {
        return ADMIN_NEXT_ANSWER;
    }
    m = c->block;
    memset(m, 0, sizeof(*m));
    m->cap = cap;
    m->scratch_cap = cap;
    m->scratch = m->text + cap;
    sw_log(SW_LOG_INFO, "admin: an import begins%s", c->wish.replace ? ", over what is there" : "");
    return ADMIN_NEXT_READ;
}

size_t sw_admin__import_room(const struct sw_admin_conn *c)
{
    const struct import *m = c->block;

    SW_ASSERT(m->len < m->cap);
    return m->cap - m->len;
}

/* The first lines are kept, in their order: what a commit says comes after what reading said. */
static void import_failed(struct import *m, uint64_t line, const char *text, const char *label)
{
    size_t at = m->error_count;

    m->failed++;
    while (at > 0 && m->errors[at - 1].line > line) {
        at--;
    }
    if (at == IMPORT_ERRORS) {
        return;
    }
    m->error_count = SW_MIN(m->error_count + 1, (size_t)IMPORT_ERRORS);
    memmove(&m->errors[at + 1], &m->errors[at],
            (m->error_count - at - 1) * sizeof(struct import_error));
    m->errors[at] = (struct import_error){line, text, label};
}

/* Why this line is not written, although nothing is wrong with it. */
static bool import_skips(const struct sw_admin_conn *c, const struct sw_record *r)
{
    int64_t now = sw_loop_now_unix_s(c->admin->loop);

    if (r->expires_unix_s != 0 && r->expires_unix_s <= now) {
        return true;
    }
    /* Its subject's sessions were ended here since: logout wins. */
    return r->kind == SW_RECORD_STATE && r->subject.len > 0 && r->bound_unix_ms > 0 &&
           sw_store_cutoff_unix_ms(sw_gateway_store(c->admin->gateway), r->subject) >=
               r->bound_unix_ms;
}

static struct sw_write import_write(const struct sw_admin_conn *c, const struct sw_admin_line *l)
{
    const struct sw_record *r = &l->record;
    struct sw_write w = {
        .kind = SW_WRITE_PUT,
        .key = l->key,
        .record = r->kind,
        /* VERSION none: the key must be free. ANY: not an ended one */
        .expect = c->wish.replace ? SW_EXPECT_ANY : SW_EXPECT_VERSION,
        .expires_unix_s = r->expires_unix_s,
        .absolute_unix_s = r->absolute_unix_s,
        .due_unix_ms = r->due_unix_ms,
        .created_unix_s = r->created_unix_s,
        .bound_unix_ms = r->bound_unix_ms,
        .sealed = r->sealed,
        .subject = r->subject,
        .extra = r->extra,
        .value = r->value,
    };

    if (r->kind == SW_RECORD_TOMBSTONE) {
        w = (struct sw_write){.kind = SW_WRITE_DELETE,
                              .key = l->key,
                              .expect = w.expect,
                              .expires_unix_s = r->expires_unix_s};
    }
    return w;
}

static const char *import_too_large(const struct sw_admin *a, const struct sw_record *r)
{
    size_t max = r->kind == SW_RECORD_STATE ? a->state_bytes_max + (r->sealed ? SEALED_MORE : 0)
                                            : a->value_bytes_max;

    return r->value.len > max ? "the value is larger than any route allows" : NULL;
}

/* One line. False: there is no room for its parts beside those of the lines before. */
static bool import_line(struct sw_admin_conn *c, struct sw_slice text, struct sw_out *scratch)
{
    struct import *m = c->block;
    struct sw_admin_line line;
    struct import_flight *f;
    const char *why;

    if (text.len > 0 && text.ptr[text.len - 1] == '\r') {
        text.len--;
    }
    text = sw_slice_trim(text);
    if (text.len == 0) {
        return true;
    }
    why = sw_admin__line_read(text, scratch, &line);
    if (scratch->overflowed && m->flight_count > 0) {
        return false;
    }
    if (why == NULL) {
        why = import_too_large(c->admin, &line.record);
    }
    if (why != NULL) {
        import_failed(m, m->line + 1, why, sw_err_label(SW_E_SYNTAX));
        return true;
    }
    if (import_skips(c, &line.record)) {
        m->skipped++;
        return true;
    }
    f = &m->flights[m->flight_count++];
    f->line = m->line + 1;
    f->op = (struct sw_store_commit){.count = 1,
                                     .now_unix_s = sw_loop_now_unix_s(c->admin->loop),
                                     .loop = c->admin->loop,
                                     .done = sw_admin__committed,
                                     .arg = c};
    f->op.writes[0] = import_write(c, &line);
    return true;
}

/* The next whole line, without its end. False: there is none. */
static bool import_next(const struct import *m, struct sw_slice *ret_line, size_t *ret_bytes)
{
    struct sw_slice rest = {m->text + m->at, m->len - m->at};
    size_t end = sw_slice_find(rest, '\n');

    if (end == rest.len && (!m->ended || rest.len == 0)) {
        return false;
    }
    *ret_line = sw_slice_head(rest, end);
    *ret_bytes = SW_MIN(end + 1, rest.len);
    return true;
}

/* Lines into commits, until IMPORT_FLIGHTS are under way or no whole line is left. */
static enum sw_admin_next import_run(struct sw_admin_conn *c)
{
    struct import *m = c->block;
    struct sw_out scratch;
    struct sw_slice line;
    size_t bytes;

    SW_ASSERT(m->flight_count == 0);
    while (m->flight_count < IMPORT_FLIGHTS && import_next(m, &line, &bytes)) {
        if (m->flight_count == 0) { /* what is there belongs to nobody */
            scratch = sw_out_init(m->scratch, m->scratch_cap);
        }
        if (!import_line(c, line, &scratch)) {
            break;
        }
        m->at += bytes;
        m->line++;
    }
    if (m->flight_count > 0) {
        for (size_t i = 0; i < m->flight_count; i++) {
            sw_admin__submit(c, &m->flights[i].op);
        }
        return ADMIN_NEXT_WAIT;
    }
    m->len -= m->at;
    memmove(m->text, m->text + m->at, m->len);
    m->at = 0;
    if (m->len == m->cap) {
        import_failed(m, m->line + 1, "the line is longer than any route allows",
                      sw_err_label(SW_E_BODY_LARGE));
        m->dropping = true;
        m->len = 0;
    }
    return ADMIN_NEXT_READ;
}

static enum sw_admin_next import_answer(struct sw_admin_conn *c)
{
    struct import *m = c->block;
    struct sw_out out = sw_out_init(m->text, m->cap);
    unsigned status = 200;

    sw_out_char(&out, '{');
    if (m->stopped != SW_OK) {
        status = sw_err_status(m->stopped) >= 500 ? sw_err_status(m->stopped) : 500;
        sw_out_lit(&out, "\"error\":");
        sw_json_quote(&out, sw_slice_cstr(sw_err_text(m->stopped)));
        sw_out_printf(&out, ",\"reason\":\"%s\",", sw_err_label(m->stopped));
        c->keep_alive = false; /* what is still to come is not read */
    }
    sw_out_lit(&out, "\"created\":");
    sw_out_u64(&out, m->created);
    sw_out_lit(&out, ",\"replaced\":");
    sw_out_u64(&out, m->replaced);
    sw_out_lit(&out, ",\"skipped\":");
    sw_out_u64(&out, m->skipped);
    sw_out_lit(&out, ",\"failed\":");
    sw_out_u64(&out, m->failed);
    sw_out_lit(&out, ",\"errors\":[");
    for (size_t i = 0; i < m->error_count; i++) {
        sw_out_cstr(&out, i > 0 ? ",\n{\"line\":" : "\n{\"line\":");
        sw_out_u64(&out, m->errors[i].line);
        sw_out_lit(&out, ",\"error\":");
        sw_json_quote(&out, sw_slice_cstr(m->errors[i].text));
        sw_out_printf(&out, ",\"reason\":\"%s\"}", m->errors[i].label);
    }
    sw_out_lit(&out, "]}\n");
    SW_ASSERT(!out.overflowed);
    sw_log(SW_LOG_INFO, "admin: an import made %llu records and failed at %llu lines",
           (unsigned long long)(m->created + m->replaced), (unsigned long long)m->failed);
    sw_admin__answer_init(&c->answer, status, "application/json");
    c->answer.large = sw_out_done(&out);
    return ADMIN_NEXT_ANSWER;
}

static enum sw_admin_next import_go(struct sw_admin_conn *c)
{
    const struct import *m = c->block;
    enum sw_admin_next next = import_run(c);

    return next == ADMIN_NEXT_READ && m->ended ? import_answer(c) : next;
}

enum sw_admin_next sw_admin__import_take(struct sw_admin_conn *c, struct sw_slice bytes,
                                         bool complete, bool drained)
{
    struct import *m = c->block;

    if (m->dropping) {
        size_t end = sw_slice_find(bytes, '\n');

        if (end == bytes.len) {
            return ADMIN_NEXT_READ;
        }
        m->dropping = false;
        m->line++;
        bytes = sw_slice_tail(bytes, end + 1);
    }
    SW_ASSERT(bytes.len <= m->cap - m->len);
    if (bytes.len > 0) {
        memcpy(m->text + m->len, bytes.ptr, bytes.len);
        m->len += bytes.len;
    }
    if (complete) {
        return ADMIN_NEXT_READ; /* import_end follows */
    }
    return drained || m->len == m->cap ? import_run(c) : ADMIN_NEXT_READ;
}

enum sw_admin_next sw_admin__import_end(struct sw_admin_conn *c)
{
    struct import *m = c->block;

    m->ended = true;
    return import_go(c);
}

/* What became of a line. */
static void import_done(struct import *m, const struct import_flight *f)
{
    const struct sw_write *w = &f->op.writes[0];

    switch ((int)f->op.err) {
    case SW_OK:
        if (w->ret_version.counter == 1) {
            m->created++;
        } else {
            m->replaced++;
        }
        break;
    case SW_E_CONFLICT:
        import_failed(m, f->line, "there is something under this handle, and it stays as it is",
                      "exists");
        break;
    case SW_E_STATE_GONE:
        if (w->kind == SW_WRITE_DELETE) {
            m->skipped++;
        } else {
            import_failed(m, f->line, "this state was ended here, and stays ended",
                          sw_err_label(SW_E_STATE_GONE));
        }
        break;
    case SW_E_LIMIT:
        import_failed(m, f->line, "this is more than a record can hold", sw_err_label(SW_E_LIMIT));
        break;
    default: /* a full disk: the lines behind it would fail as well */
        import_failed(m, f->line, sw_err_text(f->op.err), sw_err_label(f->op.err));
        m->stopped = f->op.err;
        break;
    }
}

enum sw_admin_next sw_admin__import_resume(struct sw_admin_conn *c)
{
    struct import *m = c->block;

    for (size_t i = 0; i < m->flight_count; i++) {
        import_done(m, &m->flights[i]);
    }
    m->flight_count = 0;
    return m->stopped != SW_OK ? import_answer(c) : import_go(c);
}
