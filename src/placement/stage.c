/* placement/stage.c - what an app does with the state of its running exchange, by the side API:
 * conditional HTTP on the state as it is for this exchange.
 *
 * Writes are kept with the exchange and commit with its answer, so that an app that fails half-way
 * leaves the old state. The tag of what is staged is the version it stands on and a count of the
 * writes: "3f2-17.1", "3f2-17.2", ...; of a state that did not exist, "0.1".
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
static enum sw_err stage_conditions(struct sw_ask *ask, const struct sw_stage_ask *in,
                                    struct sw_stage_answer *a)
{
    struct sw_slice tag = stage_tag(ask, a->tag, sizeof(a->tag));

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
    SW_ASSERT(ask->routed->route->placement == SW_PLACE_SESSION);
    *ret_answer = (struct sw_stage_answer){.status = 0};
    ret_answer->err = stage_do(ask, in, ret_answer);
    if (ret_answer->err != SW_OK) {
        ret_answer->status = 0;
        ret_answer->etag = ret_answer->body = (struct sw_slice){NULL, 0};
    }
}
