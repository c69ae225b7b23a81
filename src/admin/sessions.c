/* admin/sessions.c - sessions and subjects for operators: list, show, replace, end.
 *
 * Room       admin/. Main thread: reads the store by short scans, writes through its committer.
 * Flow       conn.c: begin -> (body_take) -> act -> (commits) -> resume -> the answer.
 *
 * A handle is the record's key, the SHA-256 of a visitor's id or of an entity's name: it names a
 * session to us and opens none. Whether it is a visitor's or an entity's cannot be told from it.
 *
 * Logged are the commands, never a subject nor a whole handle.
 */
#include "admin/admin_priv.h"
#include "base/json.h"

/* ---- memory ---------------------------------------------------------------------------------- */

bool sw_admin__block(struct sw_admin_conn *c, size_t bytes)
{
    SW_ASSERT(c->block == NULL);
    c->block = sw_budget_take(&c->admin->large, bytes);
    if (c->block == NULL) {
        sw_admin__fail(&c->answer, 503,
                       "other admin requests hold the memory for this one; try again",
                       "overloaded");
        c->answer.lines = "Retry-After: 1\r\n";
        return false;
    }
    return true;
}

void sw_admin__drop(struct sw_admin_conn *c)
{
    SW_ASSERT(c->flights == 0);
    sw_budget_give(&c->admin->large, c->block);
    c->block = NULL;
    c->answer.large = (struct sw_slice){NULL, 0};
    c->chunk = (struct sw_slice){NULL, 0};
    c->export_done = false;
    if (c->transfer) {
        SW_ASSERT(c->admin->transfers > 0);
        c->admin->transfers--;
        c->transfer = false;
    }
}

/* ---- the store ------------------------------------------------------------------------------- */

static struct sw_store *store_of(const struct sw_admin *a)
{
    return sw_gateway_store(a->gateway);
}

static int64_t now_s(const struct sw_admin *a)
{
    return sw_loop_now_unix_s(a->loop);
}

static void scan_visit(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct sw_admin_scan *s = arg;

    s->got++;
    if (s->full) {
        return;
    }
    if (!s->fn(s->arg, key, r)) {
        s->full = true;
        return;
    }
    s->at = *key;
    s->has_at = true;
}

enum sw_err sw_admin__scan(struct sw_admin *a, struct sw_admin_scan *s, uint64_t max_ns)
{
    uint64_t deadline_ns = sw_loop_clock_ns(a->loop) + max_ns;
    size_t batch = ADMIN_SCAN_RECORDS / 16;

    s->full = false;
    do {
        struct sw_store_key from = s->at;
        const struct sw_store_key *after = s->has_at ? &from : NULL;
        enum sw_err err;

        s->got = 0;
        err = s->subject.len > 0
                  ? sw_store_scan_subject(store_of(a), s->subject, after, batch, now_s(a),
                                          scan_visit, s)
                  : sw_store_scan(store_of(a), after, batch, now_s(a), scan_visit, s);
        if (err != SW_OK) {
            return err;
        }
        s->end = !s->full && s->got < batch;
        batch = SW_MIN(batch * 2, (size_t)ADMIN_SCAN_RECORDS);
    } while (!s->full && !s->end && sw_loop_clock_ns(a->loop) < deadline_ns);
    return SW_OK;
}

enum sw_err sw_admin__look(struct sw_admin *a, const struct sw_store_key *key, sw_store_scan_fn *fn,
                           void *arg)
{
    struct sw_store_key before = *key;
    size_t at = sizeof(before.bytes);

    while (at > 0 && before.bytes[at - 1]-- == 0) { /* the key before it, as a number */
        at--;
    }
    /* at 0: it was the first of all keys */
    return sw_store_scan(store_of(a), at > 0 ? &before : NULL, 1, now_s(a), fn, arg);
}

static bool is_it(const struct sw_admin_conn *c, const struct sw_store_key *key,
                  const struct sw_record *r)
{
    return r->kind == SW_RECORD_STATE && memcmp(key, &c->wish.key, sizeof(*key)) == 0;
}

void sw_admin__store_failed(struct sw_admin_conn *c, enum sw_err err)
{
    unsigned status = sw_err_status(err);

    sw_admin__fail(&c->answer, status >= 500 ? status : 500, sw_err_text(err), sw_err_label(err));
}

static void not_found(struct sw_admin_conn *c)
{
    sw_admin__fail(&c->answer, 404, "there is no live state under this handle",
                   sw_err_label(SW_E_NOT_FOUND));
}

static void no_match(struct sw_admin_conn *c)
{
    sw_admin__fail(&c->answer, 412, sw_err_text(SW_E_STAGE_MATCH), sw_err_label(SW_E_STAGE_MATCH));
}

/* Enough to find it again in a list, and not the whole. */
static void log_session(const struct sw_admin_conn *c, const char *what)
{
    char text[ADMIN_HANDLE_BYTES];
    struct sw_out out = sw_out_init(text, sizeof(text));

    sw_admin__handle_put(&out, &c->wish.key);
    sw_log(SW_LOG_INFO, "admin: %s session %.*s...", what, 8, text);
}

/* ---- lists ----------------------------------------------------------------------------------- */

struct listing {
    struct sw_out out;
    size_t count, limit;
};

static bool list_visit(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct listing *l = arg;

    if (r->kind != SW_RECORD_STATE) {
        return true;
    }
    if (l->count == l->limit) {
        return false;
    }
    sw_out_cstr(&l->out, l->count > 0 ? ",\n" : "\n");
    sw_admin__entry_put(&l->out, key, r);
    l->count++;
    return true;
}

/* Where the next page begins; null: this was the last one. */
static void list_cursor(struct sw_out *out, const struct sw_admin_scan *s, size_t name)
{
    sw_out_lit(out, "],\n\"after\":");
    if (s->end) {
        sw_out_lit(out, "null}\n");
        return;
    }
    sw_out_char(out, '"');
    if (name > 0) {
        sw_out_u64(out, name);
        sw_out_char(out, '.');
    }
    if (s->has_at) {
        sw_admin__handle_put(out, &s->at);
    }
    sw_out_lit(out, "\"}\n");
}

static enum sw_admin_next list(struct sw_admin_conn *c)
{
    const struct sw_admin_wish *w = &c->wish;
    struct listing l = {.limit = w->limit};
    size_t bytes = w->limit * ADMIN_ENTRY_BYTES + 256, name = w->after_name;
    struct sw_admin_scan s = {.has_at = w->has_after, .at = w->after, .fn = list_visit, .arg = &l};
    struct sw_subject_names names = {.count = 1}; /* no subject: all records */
    enum sw_err err = SW_OK;

    if (!sw_admin__block(c, bytes)) {
        return ADMIN_NEXT_ANSWER;
    }
    if (w->has_subject) {
        sw_place_subject_names(sw_gateway_keys(c->admin->gateway),
                               (struct sw_slice){w->subject, w->subject_len}, &names);
    }
    l.out = sw_out_init(c->block, bytes);
    sw_out_lit(&l.out, "{\"sessions\":[");
    s.end = true; /* a name that is not there any more */
    for (; name < names.count && err == SW_OK; name++) {
        s.subject = names.list[name];
        err = sw_admin__scan(c->admin, &s, ADMIN_LIST_NS);
        if (!s.end) {
            break;
        }
        s.has_at = false;
    }
    if (err != SW_OK) {
        sw_admin__store_failed(c, err);
        return ADMIN_NEXT_ANSWER;
    }
    list_cursor(&l.out, &s, name);
    SW_ASSERT(!l.out.overflowed);
    sw_admin__answer_init(&c->answer, 200, "application/json");
    c->answer.large = sw_out_done(&l.out);
    return ADMIN_NEXT_ANSWER;
}

/* ---- one ------------------------------------------------------------------------------------- */

static void etag(struct sw_admin_conn *c, struct sw_version version)
{
    struct sw_out out = sw_out_init(c->answer.more_lines, sizeof(c->answer.more_lines) - 1);

    sw_out_lit(&out, "ETag: ");
    sw_version_put(&out, version);
    sw_out_lit(&out, "\r\n");
    SW_ASSERT(!out.overflowed);
    c->answer.more_lines[out.len] = '\0';
    c->answer.lines = c->answer.more_lines;
}

struct showing {
    struct sw_admin_conn *c;
    bool found;
};

static void show_visit(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct showing *s = arg;
    size_t bytes = sw_admin__line_bytes(r->value.len);
    struct sw_out out;

    s->found = is_it(s->c, key, r);
    if (!s->found || !sw_admin__block(s->c, bytes)) {
        return;
    }
    out = sw_out_init(s->c->block, bytes);
    sw_admin__one_put(&out, key, r);
    SW_ASSERT(!out.overflowed);
    sw_admin__answer_init(&s->c->answer, 200, "application/json");
    s->c->answer.large = sw_out_done(&out);
    etag(s->c, r->version);
}

static enum sw_admin_next show(struct sw_admin_conn *c)
{
    struct showing s = {.c = c};
    enum sw_err err = sw_admin__look(c->admin, &c->wish.key, show_visit, &s);

    if (err != SW_OK) {
        sw_admin__store_failed(c, err);
    } else if (!s.found) {
        not_found(c);
    }
    return ADMIN_NEXT_ANSWER;
}

/* ---- writing --------------------------------------------------------------------------------- */

void sw_admin__submit(struct sw_admin_conn *c, struct sw_store_commit *op)
{
    c->flights++;
    sw_store_commit(store_of(c->admin), op);
}

static void commit_init(struct sw_admin_conn *c, struct sw_store_commit *op)
{
    *op = (struct sw_store_commit){.count = 1,
                                   .now_unix_s = now_s(c->admin),
                                   .loop = c->admin->loop,
                                   .done = sw_admin__committed,
                                   .arg = c};
}

static void submit_one(struct sw_admin_conn *c, const struct sw_write *w)
{
    commit_init(c, &c->op);
    c->op.writes[0] = *w;
    sw_admin__submit(c, &c->op);
}

/* What a PUT needs, in the connection's block. */
struct put {
    bool found;
    size_t len;
    struct sw_record record; /* as it stands */
    char subject[SW_SUBJECT_BYTES_MAX], extra[SW_EXTRA_BYTES_MAX];
    char text[]; /* state_bytes_max as it came, and as much compact */
};

static enum sw_admin_next put_begin(struct sw_admin_conn *c)
{
    if (c->wish.media != MEDIA_JSON) {
        sw_admin__fail(&c->answer, 415, "a state is sent as application/json", "media");
        return ADMIN_NEXT_ANSWER;
    }
    if (!c->wish.has_match && !c->wish.has_none_match) {
        sw_admin__fail(&c->answer, 428,
                       "say what it replaces: If-Match with the version that GET told, or "
                       "If-None-Match: * for a new one",
                       "condition");
        return ADMIN_NEXT_ANSWER;
    }
    if (!sw_admin__block(c, sizeof(struct put) + 2 * c->admin->state_bytes_max)) {
        return ADMIN_NEXT_ANSWER;
    }
    memset(c->block, 0, offsetof(struct put, subject));
    return ADMIN_NEXT_READ;
}

static void keep(struct sw_slice *slice, char *to, size_t size)
{
    SW_ASSERT(slice->len <= size);
    if (slice->len > 0) {
        memcpy(to, slice->ptr, slice->len);
    }
    slice->ptr = to;
}

struct finding {
    const struct sw_admin_conn *c;
    struct put *put; /* NULL: only the version is wanted */
    bool found;
    struct sw_version version;
};

static void find_visit(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct finding *f = arg;

    f->found = is_it(f->c, key, r);
    f->version = r->version;
    if (f->found && f->put != NULL) {
        f->put->record = *r;
        f->put->record.value = (struct sw_slice){NULL, 0};
        keep(&f->put->record.subject, f->put->subject, sizeof(f->put->subject));
        keep(&f->put->record.extra, f->put->extra, sizeof(f->put->extra));
    }
}

/* Is the body a state? Its compact text, or the answer. */
static bool put_value(struct sw_admin_conn *c, struct sw_slice *ret_value)
{
    struct put *p = c->block;
    struct sw_slice text = {p->text, p->len};
    struct sw_json_checked checked = sw_json_check(text);
    struct sw_out out = sw_out_init(p->text + c->admin->state_bytes_max, c->admin->state_bytes_max);

    if (checked.err != SW_OK || checked.type != SW_JSON_OBJECT) {
        sw_admin__fail(&c->answer, 422, "a state is one JSON object", "json");
        return false;
    }
    if (!sw_json_compact(text, &out)) {
        sw_admin__fail(&c->answer, 413, "the state is larger than any route's `max-size`",
                       sw_err_label(SW_E_BODY_LARGE));
        return false;
    }
    *ret_value = sw_out_done(&out);
    return true;
}

static enum sw_admin_next put_act(struct sw_admin_conn *c)
{
    struct put *p = c->block;
    const struct sw_admin *a = c->admin;
    struct finding f = {.c = c, .put = p};
    struct sw_write w = {.kind = SW_WRITE_PUT,
                         .key = c->wish.key,
                         .record = SW_RECORD_STATE,
                         .expect = SW_EXPECT_VERSION};
    enum sw_err err;

    if (!put_value(c, &w.value)) {
        return ADMIN_NEXT_ANSWER;
    }
    err = sw_admin__look(c->admin, &c->wish.key, find_visit, &f);
    if (err != SW_OK) {
        sw_admin__store_failed(c, err);
        return ADMIN_NEXT_ANSWER;
    }
    if (f.found ? !c->wish.has_match || !sw_admin__wish_matches(&c->wish, f.version)
                : !c->wish.has_none_match) {
        no_match(c);
        return ADMIN_NEXT_ANSWER;
    }
    if (f.found && p->record.sealed) {
        sw_admin__fail(&c->answer, 409,
                       "this state is encrypted for its visitor (`encrypt: on`): nobody else can "
                       "write it",
                       "sealed");
        return ADMIN_NEXT_ANSWER;
    }
    if (f.found) { /* all but the value stays */
        w.version = f.version;
        w.expires_unix_s = p->record.expires_unix_s;
        w.absolute_unix_s = p->record.absolute_unix_s;
        w.due_unix_ms = p->record.due_unix_ms;
        w.subject = p->record.subject;
        w.extra = p->record.extra;
    } else {
        w.expires_unix_s = now_s(a) + SW_MIN(a->idle_s, a->absolute_s);
        w.absolute_unix_s = now_s(a) + a->absolute_s;
    }
    submit_one(c, &w);
    return ADMIN_NEXT_WAIT;
}

static enum sw_admin_next end_act(struct sw_admin_conn *c)
{
    struct finding f = {.c = c};
    enum sw_err err = sw_admin__look(c->admin, &c->wish.key, find_visit, &f);
    struct sw_write w = {
        .kind = SW_WRITE_DELETE,
        .key = c->wish.key,
        .expect = c->wish.has_match ? SW_EXPECT_VERSION : SW_EXPECT_EXISTS,
        .version = f.version,
        /* 0: nobody uses the key while somebody may hold what it is made of */
        .expires_unix_s = c->wish.entity ? now_s(c->admin) - 1 : 0,
    };

    if (err != SW_OK) {
        sw_admin__store_failed(c, err);
        return ADMIN_NEXT_ANSWER;
    }
    if (!f.found) {
        not_found(c);
        return ADMIN_NEXT_ANSWER;
    }
    if (c->wish.has_match && !sw_admin__wish_matches(&c->wish, f.version)) {
        no_match(c);
        return ADMIN_NEXT_ANSWER;
    }
    submit_one(c, &w);
    return ADMIN_NEXT_WAIT;
}

static enum sw_admin_next written(struct sw_admin_conn *c)
{
    bool put = c->wish.method == SW_METHOD_PUT;

    switch ((int)c->op.err) {
    case SW_OK:
        sw_admin__answer_init(&c->answer, 204, NULL);
        if (put) {
            etag(c, c->op.writes[0].ret_version);
        }
        log_session(c, put ? "replaced the value of" : "ended");
        c->admin->ended[ENDED_SESSION] += !put;
        break;
    case SW_E_CONFLICT: /* somebody else wrote it meanwhile */
        if (put || c->wish.has_match) {
            no_match(c);
        } else {
            not_found(c);
        }
        break;
    case SW_E_STATE_GONE:
        if (put) {
            sw_admin__fail(&c->answer, 409, "this state was ended, and stays ended",
                           sw_err_label(SW_E_STATE_GONE));
        } else {
            sw_admin__answer_init(&c->answer, 204, NULL); /* by somebody else: it is ended */
        }
        break;
    default:
        sw_admin__store_failed(c, c->op.err);
        break;
    }
    return ADMIN_NEXT_ANSWER;
}

/* ---- subjects -------------------------------------------------------------------------------- */

/* In the connection's block: what a subject's requests need. */
struct subject {
    struct sw_subject_names names;
    size_t count;            /* live states */
    bool more;               /* that count is not complete */
    bool endless;            /* one of them has no absolute end */
    int64_t absolute_unix_s; /* the latest of them */
    int64_t not_before_unix_ms;
    char text[ADMIN_ENTRY_BYTES];
    struct sw_store_commit ops[1 + SW_KEYS_MAX]; /* a cut-off each: no two fit into one commit */
};

static bool count_visit(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct subject *x = arg;

    (void)key;
    if (x->count == ADMIN_COUNT_MAX) {
        return false;
    }
    x->count++;
    x->endless |= r->absolute_unix_s == 0;
    x->absolute_unix_s = SW_MAX(x->absolute_unix_s, r->absolute_unix_s);
    return true;
}

static enum sw_err subject_count(struct sw_admin *a, struct subject *x)
{
    enum sw_err err = SW_OK;

    for (size_t i = 0; i < x->names.count && err == SW_OK; i++) {
        struct sw_admin_scan s = {.subject = x->names.list[i], .fn = count_visit, .arg = x};

        err = sw_admin__scan(a, &s, ADMIN_LIST_NS);
        x->more |= !s.end;
        x->not_before_unix_ms =
            SW_MAX(x->not_before_unix_ms, sw_store_cutoff_unix_ms(store_of(a), x->names.list[i]));
    }
    return err;
}

static void subject_answer(struct sw_admin_conn *c, const char *counted)
{
    struct subject *x = c->block;
    struct sw_out out = sw_out_init(x->text, sizeof(x->text));

    sw_out_char(&out, '{');
    sw_admin__subject_put(&out, (struct sw_slice){c->wish.subject, c->wish.subject_len});
    sw_out_lit(&out, ",\"");
    sw_out_cstr(&out, counted);
    sw_out_lit(&out, "\":");
    sw_out_u64(&out, x->count);
    sw_out_cstr(&out, x->more ? ",\"more\":true,\"not_before_ms\":"
                              : ",\"more\":false,\"not_before_ms\":");
    if (x->not_before_unix_ms == 0) {
        sw_out_lit(&out, "null");
    } else {
        sw_out_i64(&out, x->not_before_unix_ms);
    }
    sw_out_lit(&out, "}\n");
    SW_ASSERT(!out.overflowed);
    sw_admin__answer_init(&c->answer, 200, "application/json");
    c->answer.large = sw_out_done(&out);
}

/* What a subject may have: states in the store, sealed ones, tokens. */
static int64_t longest_s(const struct sw_admin *a)
{
    return SW_MAX(a->absolute_s, SW_MAX(a->token_s, a->sealed_s));
}

static enum sw_admin_next subject_act(struct sw_admin_conn *c)
{
    struct sw_admin *a = c->admin;
    struct subject *x;
    enum sw_err err;

    if (!sw_admin__block(c, sizeof(*x))) {
        return ADMIN_NEXT_ANSWER;
    }
    x = c->block;
    memset(x, 0, offsetof(struct subject, text));
    sw_place_subject_names(sw_gateway_keys(a->gateway),
                           (struct sw_slice){c->wish.subject, c->wish.subject_len}, &x->names);
    err = subject_count(a, x);
    if (err != SW_OK) {
        sw_admin__store_failed(c, err);
        return ADMIN_NEXT_ANSWER;
    }
    if (c->wish.method != SW_METHOD_DELETE) {
        subject_answer(c, "sessions");
        return ADMIN_NEXT_ANSWER;
    }
    x->not_before_unix_ms = SW_MAX(x->not_before_unix_ms, sw_loop_now_unix_ms(a->loop));
    for (size_t i = 0; i < x->names.count; i++) {
        commit_init(c, &x->ops[i]);
        x->ops[i].writes[0] = (struct sw_write){
            .kind = SW_WRITE_CUTOFF,
            .subject = x->names.list[i],
            .not_before_unix_ms = x->not_before_unix_ms,
            /* As long as a state that it ends could live: by today's routes, or by yesterday's. Not
             * all of them seen: for ever. */
            .expires_unix_s =
                x->endless || x->more ? 0 : SW_MAX(now_s(a) + longest_s(a), x->absolute_unix_s),
        };
        sw_admin__submit(c, &x->ops[i]);
    }
    return ADMIN_NEXT_WAIT;
}

static enum sw_admin_next subject_ended(struct sw_admin_conn *c)
{
    const struct subject *x = c->block;

    for (size_t i = 0; i < x->names.count; i++) {
        if (x->ops[i].err != SW_OK) {
            sw_admin__store_failed(c, x->ops[i].err);
            return ADMIN_NEXT_ANSWER;
        }
    }
    sw_log(SW_LOG_INFO, "admin: ended %zu%s session%s of a subject", x->count,
           x->more ? " or more" : "", x->count == 1 && !x->more ? "" : "s");
    c->admin->ended[ENDED_SUBJECT]++;
    subject_answer(c, "ended");
    return ADMIN_NEXT_ANSWER;
}

/* ---- what conn.c calls ----------------------------------------------------------------------- */

static bool is_put(const struct sw_admin_conn *c)
{
    return c->endpoint == ADMIN_SESSION && c->wish.method == SW_METHOD_PUT;
}

uint64_t sw_admin__body_max(const struct sw_admin_conn *c)
{
    if (c->endpoint == ADMIN_IMPORT) {
        return UINT64_MAX;
    }
    return sw_admin__personal(c->endpoint) && is_put(c) ? c->admin->state_bytes_max
                                                        : ADMIN_BODY_BYTES_MAX;
}

enum sw_admin_next sw_admin__begin(struct sw_admin_conn *c)
{
    if (store_of(c->admin) == NULL) {
        sw_admin__fail(&c->answer, 503,
                       "there is no store: no route keeps anything in one",
                       "no-store");
        return ADMIN_NEXT_ANSWER;
    }
    if (c->endpoint == ADMIN_IMPORT) {
        return sw_admin__import_begin(c);
    }
    return is_put(c) ? put_begin(c) : ADMIN_NEXT_READ;
}

size_t sw_admin__body_room(const struct sw_admin_conn *c)
{
    return c->endpoint == ADMIN_IMPORT ? sw_admin__import_room(c) : ADMIN_INPUT_BYTES;
}

enum sw_admin_next sw_admin__body_take(struct sw_admin_conn *c, struct sw_slice bytes,
                                       bool complete, bool drained)
{
    struct put *p = c->block;

    if (c->endpoint == ADMIN_IMPORT) {
        return sw_admin__import_take(c, bytes, complete, drained);
    }
    if (is_put(c) && bytes.len > 0) {
        SW_ASSERT(bytes.len <= c->admin->state_bytes_max - p->len); /* the body's own limit */
        memcpy(p->text + p->len, bytes.ptr, bytes.len);
        p->len += bytes.len;
    }
    return ADMIN_NEXT_READ;
}

enum sw_admin_next sw_admin__act(struct sw_admin_conn *c)
{
    switch (c->endpoint) {
    case ADMIN_SESSIONS:
        return list(c);
    case ADMIN_SESSION:
        if (c->wish.method == SW_METHOD_DELETE) {
            return end_act(c);
        }
        return is_put(c) ? put_act(c) : show(c);
    case ADMIN_EXPORT:
        return sw_admin__export_begin(c);
    case ADMIN_IMPORT:
        return sw_admin__import_end(c);
    case ADMIN_SUBJECT:
        return subject_act(c);
    case ADMIN_TOKEN:
    case ADMIN_SEALED:
    case ADMIN_PIN:
        return sw_admin__note_act(c);
    case ADMIN_NOWHERE:
    case ADMIN_HEALTHZ:
    case ADMIN_READYZ:
    case ADMIN_METRICS:
    case ADMIN_APPS:
    case ADMIN_STATUS:
    case ADMIN_KEYS:
    case ADMIN_ROLL:
    case ADMIN_DRAIN:
    case ADMIN_UNDRAIN:
    case ADMIN_KILL:
    case ADMIN_ENDPOINT_COUNT:
        break;
    }
    SW_UNREACHABLE();
}

enum sw_admin_next sw_admin__resume(struct sw_admin_conn *c)
{
    SW_ASSERT(c->flights == 0);
    if (c->endpoint == ADMIN_IMPORT) {
        return sw_admin__import_resume(c);
    }
    if (c->endpoint == ADMIN_TOKEN || c->endpoint == ADMIN_SEALED || c->endpoint == ADMIN_PIN) {
        return sw_admin__note_written(c);
    }
    return c->endpoint == ADMIN_SUBJECT ? subject_ended(c) : written(c);
}
