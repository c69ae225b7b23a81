/* placement/stage.c - what an app does with the state of its running exchange, by the side API:
 * conditional HTTP on the state as it is for this exchange.
 *
 * Writes are kept with the exchange and commit with its answer, so that an app that fails half-way
 * leaves the old state; or, where the app says so, they commit at once and alone. The tag of what
 * is staged is the version it stands on and a count of the writes: "3f2-17.1", "3f2-17.2", ...; of
 * a state that did not exist, "0.1".
 */
#include "placement/placement_priv.h"

#include "base/json.h"

/* Is there a state, as this exchange sees it? */
static bool stage_present(const struct sw_ask *ask)
{
    switch (ask->staged.kind) {
    case SW_UPDATE_SET:
        return true;
    case SW_UPDATE_DELETE:
        return false;
    case SW_UPDATE_NONE:
    case SW_UPDATE_PATCH: /* staged as what comes out of it */
        break;
    }
    return ask->state_present;
}

/* Of the state as it is now; empty: there is none. */
static struct sw_slice stage_tag(const struct sw_ask *ask, char *text, size_t cap)
{
    struct sw_out out = sw_out_init(text, cap);

    if (!stage_present(ask)) {
        return (struct sw_slice){NULL, 0};
    }
    if (ask->session.whole.present) {
        sw_version_put(&out, ask->session.whole.version);
    } else {
        sw_version_put(&out, ask->state_present ? ask->version : (struct sw_version){0, 0});
    }
    if (ask->staged.kind != SW_UPDATE_NONE) {
        out.len--; /* the count comes before the closing quote */
        sw_out_char(&out, '.');
        sw_out_u64(&out, ask->staged.count);
        sw_out_char(&out, '"');
    }
    SW_ASSERT(!out.overflowed);
    return sw_out_done(&out);
}

/* RFC 9110, 13.1.1 and 13.1.2. "0" is how an app that was told of no state names it. */
static enum sw_err conditions_on(struct sw_slice tag, const struct sw_stage_ask *in,
                                 struct sw_stage_answer *a)
{
    a->etag = tag;
    if (in->has_if_match &&
        (in->if_match_any ? tag.len == 0
                          : !sw_slice_eq(in->if_match, tag.len > 0 ? tag : SW_S("\"0\"")))) {
        return SW_E_STAGE_MATCH;
    }
    if (in->has_if_none_match && tag.len > 0 &&
        (in->if_none_match_any || sw_slice_eq(in->if_none_match, tag))) {
        a->status = 304;
        return in->method == SW_STAGE_GET ? SW_OK : SW_E_STAGE_MATCH;
    }
    return SW_OK;
}

static enum sw_err stage_conditions(struct sw_ask *ask, const struct sw_stage_ask *in,
                                    struct sw_stage_answer *a)
{
    return conditions_on(stage_tag(ask, a->tag, sizeof(a->tag)), in, a);
}

/* The committed value of a state above inline. It may be a newer one than was handed out: then the
 * commit will meet a conflict, and its tag says so. SW_E_NOT_FOUND: it ended meanwhile. */
static enum sw_err stage_fetch(struct sw_ask *ask)
{
    struct sw_reading r;
    enum sw_step step;

    sw_place__read_begin(&r, &ask->key, ask->session.has_at_id ? ask->session.at_id : NULL,
                         SW_READING_WHOLE, ask->state.len);
    step = sw_place__read(ask, &r);
    SW_ASSERT(step == SW_STEP_DONE); /* embedded stores answer at once */
    if (r.err == SW_OK && r.record.kind == SW_RECORD_STATE) {
        ask->session.whole.present = true;
        ask->session.whole.version = r.record.version;
        ask->session.whole.value = r.record.value;
        return SW_OK;
    }
    sw_place__large_give(ask, r.block);
    return r.err == SW_OK ? SW_E_NOT_FOUND : r.err;
}

/* The state's text as this exchange sees it; it is present. */
static enum sw_err stage_value(struct sw_ask *ask, struct sw_slice *ret_value)
{
    enum sw_err err = SW_OK;

    if (ask->staged.kind == SW_UPDATE_SET) {
        *ret_value = ask->staged.value;
        return SW_OK;
    }
    if (ask->state.ptr != NULL) {
        *ret_value = ask->state;
        return SW_OK;
    }
    if (!ask->session.whole.present) {
        err = stage_fetch(ask);
    }
    if (err == SW_OK) {
        *ret_value = ask->session.whole.value;
    }
    return err;
}

static enum sw_err stage_get(struct sw_ask *ask, const struct sw_stage_ask *in,
                             struct sw_stage_answer *a)
{
    enum sw_err err;

    if (a->status == 304) {
        return SW_OK;
    }
    if (!stage_present(ask)) {
        return SW_E_NOT_FOUND;
    }
    err = stage_value(ask, &a->body);
    if (err != SW_OK) {
        return err;
    }
    a->status = 200;
    err = stage_conditions(ask, in, a); /* what was read may be newer */
    if (err != SW_OK || a->status == 304) {
        a->body = (struct sw_slice){NULL, 0};
    }
    return err;
}

static void stage_keep(struct sw_ask *ask, enum sw_update_kind kind, struct sw_slice value,
                       struct sw_stage_answer *a)
{
    struct sw_slice before = ask->staged.value;

    ask->staged.kind = kind;
    ask->staged.value = value;
    ask->staged.count++;
    sw_place__value_give(ask, before);
    a->status = 204;
    a->etag = stage_tag(ask, a->tag, sizeof(a->tag));
}

void sw_stage_forget(struct sw_ask *ask)
{
    ask->staged.kind = SW_UPDATE_NONE;
    sw_place__value_give(ask, ask->staged.value);
    ask->staged.value = (struct sw_slice){NULL, 0};
}

static enum sw_err stage_check(struct sw_slice body)
{
    struct sw_json_checked checked = sw_json_check(body);

    if (checked.err != SW_OK) {
        return checked.err;
    }
    return checked.type == SW_JSON_OBJECT ? SW_OK : SW_E_UPDATE_TYPE;
}

static enum sw_err stage_put(struct sw_ask *ask, const struct sw_stage_ask *in,
                             struct sw_stage_answer *a)
{
    struct sw_slice value;
    enum sw_err err = stage_check(in->body);

    if (err == SW_OK) {
        err = sw_place__compact(ask, in->body, true, &value);
    }
    if (err == SW_OK) {
        stage_keep(ask, SW_UPDATE_SET, value, a);
    }
    return err;
}

static enum sw_err stage_patch(struct sw_ask *ask, const struct sw_stage_ask *in,
                               struct sw_stage_answer *a)
{
    struct sw_slice base = {NULL, 0}, value;
    enum sw_err err = stage_check(in->body);

    if (err == SW_OK && stage_present(ask)) {
        err = stage_value(ask, &base);
        /* It ended meanwhile: the commit is refused, unless it was only not to be opened. */
        err = err == SW_E_NOT_FOUND ? SW_OK : err;
    }
    if (err == SW_OK) {
        err = sw_place__merge(ask, base, in->body, true, &value);
    }
    if (err == SW_OK) {
        stage_keep(ask, SW_UPDATE_SET, value, a);
    }
    return err;
}

static enum sw_err stage_do(struct sw_ask *ask, const struct sw_stage_ask *in,
                            struct sw_stage_answer *a)
{
    enum sw_err err;

    if (ask->response != NULL) {
        return SW_E_STAGE_GONE; /* its commit has begun */
    }
    if (in->method != SW_STAGE_GET && ask->shared) {
        return SW_E_STAGE_SHARED;
    }
    err = stage_conditions(ask, in, a);
    if (err != SW_OK) {
        return err;
    }
    switch (in->method) {
    case SW_STAGE_GET:
        return stage_get(ask, in, a);
    case SW_STAGE_PUT:
        return stage_put(ask, in, a);
    case SW_STAGE_PATCH:
        return stage_patch(ask, in, a);
    case SW_STAGE_DELETE:
        stage_keep(ask, SW_UPDATE_DELETE, (struct sw_slice){NULL, 0}, a);
        return SW_OK;
    }
    SW_UNREACHABLE();
}

void sw_stage(struct sw_ask *ask, const struct sw_stage_ask *in, struct sw_stage_answer *ret_answer)
{
    SW_ASSERT(ask->routed->route->placement == SW_PLACE_SESSION || ask->move.session);
    *ret_answer = (struct sw_stage_answer){.status = 0};
    ret_answer->err = stage_do(ask, in, ret_answer);
    if (ret_answer->err != SW_OK) {
        ret_answer->status = 0;
        ret_answer->etag = ret_answer->body = (struct sw_slice){NULL, 0};
    }
}

/* ---- at once --------------------------------------------------------------------------------- */

/* Of the state that the exchange stands on; empty: there is none. */
static struct sw_slice now_tag(const struct sw_ask *ask, char *text, size_t cap)
{
    struct sw_out out = sw_out_init(text, cap);

    if (!ask->state_present) {
        return (struct sw_slice){NULL, 0};
    }
    sw_version_put(&out, ask->version);
    SW_ASSERT(!out.overflowed);
    return sw_out_done(&out);
}

/* Its text; it is present. A newer one is no base for a patch: the compare-and-set would fail. */
static enum sw_err now_base(struct sw_ask *ask, struct sw_slice *ret_base)
{
    enum sw_err err = SW_OK;

    if (ask->state.ptr != NULL) {
        *ret_base = ask->state;
        return SW_OK;
    }
    if (!ask->session.whole.present) {
        err = stage_fetch(ask);
    }
    if (err == SW_OK && !sw_version_eq(ask->session.whole.version, ask->version)) {
        err = SW_E_CONFLICT;
    }
    *ret_base = ask->session.whole.value;
    return err == SW_E_NOT_FOUND ? SW_E_STATE_GONE : err;
}

static enum sw_err now_value(struct sw_ask *ask, const struct sw_stage_ask *in,
                             struct sw_slice *ret_value)
{
    struct sw_slice base = {NULL, 0};
    enum sw_err err;

    *ret_value = (struct sw_slice){NULL, 0};
    if (in->method == SW_STAGE_DELETE) {
        return SW_OK;
    }
    err = stage_check(in->body);
    if (err == SW_OK && in->method == SW_STAGE_PUT) {
        return sw_place__compact(ask, in->body, true, ret_value);
    }
    if (err == SW_OK && ask->state_present) {
        err = now_base(ask, &base);
    }
    return err == SW_OK ? sw_place__merge(ask, base, in->body, true, ret_value) : err;
}

/* Memory of the write that is over, or did not begin. */
static void now_give(struct sw_ask *ask)
{
    sw_place__value_give(ask, ask->now.next);
    ask->now.next = (struct sw_slice){NULL, 0};
    if (ask->now.sealed != NULL) {
        sw_place__large_give(ask, sw_take(&ask->now.sealed));
    }
}

static enum sw_err now_refusal(const struct sw_ask *ask, enum sw_err err)
{
    bool first = err == SW_E_CONFLICT || err == SW_E_STATE_GONE; /* somebody was */

    return !first ? SW_E_COMMIT : ask->now.matched ? SW_E_STAGE_MATCH : err;
}

static void now_told(struct sw_store_commit *op)
{
    struct sw_ask *ask = op->arg;
    struct sw_stage_answer *a = sw_take(&ask->now.answer);

    SW_ASSERT(a != NULL);
    if (op->err == SW_OK) {
        struct sw_slice value = ask->now.next, before = ask->now.value;

        sw_place__now_done(ask, &op->writes[0], value);
        ask->now.value = value;
        ask->now.next = before; /* given back below */
        a->status = 204;
        a->etag = now_tag(ask, a->tag, sizeof(a->tag));
    } else {
        a->err = now_refusal(ask, op->err);
        a->etag = (struct sw_slice){NULL, 0};
    }
    now_give(ask);
    ask->now.told(ask);
}

/* Everything but the commit. */
static enum sw_err now_prepare(struct sw_ask *ask, const struct sw_stage_ask *in,
                               struct sw_stage_answer *a)
{
    bool ends = in->method == SW_STAGE_DELETE;
    struct sw_write *w;
    enum sw_err err;

    SW_ASSERT(in->method != SW_STAGE_GET);
    if (ask->response != NULL) {
        return SW_E_STAGE_GONE;
    }
    if (ask->shared) {
        return SW_E_STAGE_SHARED;
    }
    if (ask->now.answer != NULL) {
        return SW_E_STAGE_BUSY;
    }
    err = conditions_on(now_tag(ask, a->tag, sizeof(a->tag)), in, a);
    if (err == SW_OK && !ask->state_present && ask->session.from_cookie && !ends) {
        err = SW_E_STAGE_NEW;
    }
    if (err == SW_OK && ask->alarm != NULL && !ask->state_present) {
        err = SW_E_STATE_GONE; /* a delivery makes no state */
    }
    if (err == SW_OK) {
        err = now_value(ask, in, &ask->now.next);
    }
    if (err == SW_OK && ask->now.commit == NULL) {
        ask->now.commit = sw_arena_new(ask->arena, struct sw_store_commit);
        err = ask->now.commit == NULL ? SW_E_NO_MEMORY : SW_OK;
    }
    if (err != SW_OK) {
        return err;
    }
    w = &ask->now.commit->writes[0];
    err = sw_place__now_write(ask, ends, w);
    w->value = ask->now.next;
    if (err == SW_OK && !ends && sw_place__now_seal(ask) != NULL) {
        err = sw_place__compact(ask, ask->now.next, true, &w->value);
    }
    if (err == SW_OK && !ends && sw_place__now_seal(ask) != NULL) {
        w->value = sw_place__seal(sw_place__now_seal(ask), &w->key, w->value);
        w->sealed = true;
        ask->now.sealed = w->value.ptr;
    }
    return err;
}

enum sw_step sw_stage_now(struct sw_ask *ask, const struct sw_stage_ask *in,
                          struct sw_stage_answer *ret_answer, sw_stage_told_fn *told)
{
    struct sw_store_commit *op;

    SW_ASSERT(ask->routed->route->placement == SW_PLACE_SESSION || ask->move.session);
    *ret_answer = (struct sw_stage_answer){.status = 0};
    /* what is still at its old place (move.c) is written there by no commit but the answer's */
    ret_answer->err = ask->move.taken ? SW_E_CONFLICT : now_prepare(ask, in, ret_answer);
    if (ret_answer->err != SW_OK) {
        ret_answer->status = 0;
        ret_answer->etag = (struct sw_slice){NULL, 0};
        if (ask->now.answer == NULL) {
            now_give(ask);
        }
        return SW_STEP_DONE;
    }
    if (in->method == SW_STAGE_DELETE && !ask->state_present && !ask->session.unreadable) {
        ret_answer->status = 204; /* there is nothing to end */
        return SW_STEP_DONE;
    }
    op = ask->now.commit;
    op->count = 1;
    op->now_unix_s = ask->now_unix_s;
    op->loop = ask->env->loop;
    op->done = now_told;
    op->arg = ask;
    ask->now.answer = ret_answer;
    ask->now.told = told;
    ask->now.matched = in->has_if_match;
    sw_store_commit(ask->env->store, op);
    return SW_STEP_MORE;
}
