/* placement/session.c - state: session. The store holds the state; any instance may answer.
 *
 * load    reads the record of the key. An unknown or expired id is never adopted: the next write
 *         makes a new one (no fixation). A renewed id leads to the new record for a while (alias).
 * commit  one compare-and-set against the version that was handed out, durable before the first
 *         byte of the answer leaves. Update-if-exists: an ended state stays ended (logout wins).
 *         A state is created at its first write, so visitors without state cost nothing. An end, a
 *         patch under `merge` and anything under `last` fit a newer version too: they are tried
 *         again on that, wherever it lies by then (a renewal moves it).
 *
 * Reading writes nothing until a tenth of the idle time has passed since the last touch.
 */
#include "placement/placement_priv.h"

#include "base/json.h"

#define TOUCH_FRACTION 10
#define ALIAS_S        10 /* how long an old id leads to the new one: parallel requests of a page */
#define ALIASES_MAX    8  /* renewals within that time which one old id still follows */
#define TRIES_MAX      16 /* of an update that fits any version */

static void session_load_done(struct sw_store_load *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

static enum sw_step session_absent(struct sw_ask *ask, enum sw_verdict verdict)
{
    ask->state_present = false;
    ask->verdict = verdict;
    ask->app_verdict = verdict;
    return SW_STEP_DONE;
}

static enum sw_step session_found(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    const struct sw_record *r = &ask->session.record;

    ask->state_present = true;
    ask->state = r->value;
    ask->version = r->version;
    ask->verdict = SW_VERDICT_KEPT;
    ask->app_verdict = SW_VERDICT_KEPT;
    ask->session.needs_touch =
        ask->now_unix_s - r->touched_unix_s >= SW_MAX(route->session.idle_s / TOUCH_FRACTION, 1) &&
        r->absolute_unix_s != r->expires_unix_s; /* at its absolute end nothing can be added */
    return SW_STEP_DONE;
}

static enum sw_step session_load_start(struct sw_ask *ask)
{
    struct sw_store_load *op = &ask->session.load;

    ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop); /* it may have waited in a queue */
    *op = (struct sw_store_load){
        .key = ask->key,
        .now_unix_s = ask->now_unix_s,
        .arena = ask->arena,
        .loop = ask->env->loop,
        .done = session_load_done,
        .arg = ask,
    };
    return sw_store_load(ask->env->store, op);
}

/* One record was read: a state, an end, a renewed id, or nothing. */
static enum sw_step session_loaded(struct sw_ask *ask, bool *ret_again)
{
    const struct sw_store_load *op = &ask->session.load;

    *ret_again = false;
    if (op->err == SW_E_NOT_FOUND) {
        return session_absent(ask,
                              ask->session.from_cookie ? SW_VERDICT_EXPIRED : SW_VERDICT_FRESH);
    }
    if (op->err != SW_OK) {
        return sw_place__fail(ask, op->err);
    }
    ask->session.record = op->record;
    switch (op->record.kind) {
    case SW_RECORD_STATE:
        return session_found(ask);
    case SW_RECORD_TOMBSTONE:
        return session_absent(ask, SW_VERDICT_REVOKED);
    case SW_RECORD_ALIAS:
        if (ask->session.followed == ALIASES_MAX ||
            op->record.value.len != sizeof(ask->key.bytes)) {
            return session_absent(ask, SW_VERDICT_EXPIRED);
        }
        ask->session.followed++;
        memcpy(ask->key.bytes, op->record.value.ptr, sizeof(ask->key.bytes));
        *ret_again = true;
        return SW_STEP_MORE;
    }
    return sw_place__fail(ask, SW_E_STORE_CORRUPT);
}

static enum sw_step session_load(struct sw_ask *ask)
{
    enum sw_step step;
    bool again;

    if (!ask->has_key) {
        return session_absent(ask, SW_VERDICT_FRESH);
    }
    do {
        if (!ask->session.waiting && session_load_start(ask) == SW_STEP_MORE) {
            ask->session.waiting = true;
            return SW_STEP_MORE;
        }
        ask->session.waiting = false;
        step = session_loaded(ask, &again);
    } while (again);
    return step;
}

static enum sw_step session_pick(struct sw_ask *ask)
{
    return sw_place__pick_any(ask, false);
}

/* ---- commit ---------------------------------------------------------------------------------- */

static bool commits(const struct sw_update *u, unsigned status)
{
    switch (u->commit) {
    case SW_COMMIT_ALWAYS:
        return true;
    case SW_COMMIT_2XX:
        return status >= 200 && status < 300;
    case SW_COMMIT_BELOW_500:
        return status < 500;
    }
    SW_UNREACHABLE();
}

/* The state as it will be: compact, ASCII, within the route's limit. */
static enum sw_err session_value(struct sw_ask *ask, struct sw_slice *ret_value)
{
    const struct sw_config_route *route = ask->routed->route;
    const struct sw_update *u = &ask->update;
    size_t cap = SW_MIN(route->session.max_bytes, route->session.inline_bytes);
    char *text;
    struct sw_out out;
    enum sw_err err = SW_OK;

    if (u->kind == SW_UPDATE_NONE) { /* renewed: the state goes along as it is */
        *ret_value = ask->state_present ? ask->state : SW_S("{}");
        return SW_OK;
    }
    text = sw_arena_bytes(ask->arena, cap);
    if (text == NULL) {
        return SW_E_NO_MEMORY;
    }
    out = sw_out_init(text, cap);
    if (u->kind == SW_UPDATE_SET) {
        err = sw_json_compact(u->value, &out) ? SW_OK : SW_E_UPDATE_LARGE;
    } else {
        err = sw_json_merge(ask->state_present ? ask->state : (struct sw_slice){NULL, 0}, u->value,
                            &out, ask->arena);
        err = err == SW_E_LIMIT ? SW_E_UPDATE_LARGE : err;
    }
    if (err == SW_OK) {
        *ret_value = sw_out_done(&out);
    }
    return err;
}

static void session_commit_done(struct sw_store_commit *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

static struct sw_store_commit *session_op(struct sw_ask *ask)
{
    struct sw_store_commit *op = ask->session.commit;

    if (op == NULL) {
        op = sw_arena_new(ask->arena, struct sw_store_commit);
        if (op == NULL) {
            return NULL;
        }
        ask->session.commit = op;
        ask->session.mark = sw_arena_mark(ask->arena);
    }
    *op = (struct sw_store_commit){
        .now_unix_s = ask->now_unix_s,
        .loop = ask->env->loop,
        .done = session_commit_done,
        .arg = ask,
    };
    return op;
}

static enum sw_step session_submit(struct sw_ask *ask, struct sw_store_commit *op)
{
    SW_ASSERT(op->count > 0);
    SW_ASSERT(op->count <= SW_COMMIT_WRITES_MAX);
    ask->session.waiting = true;
    sw_store_commit(ask->env->store, op);
    return SW_STEP_MORE;
}

/* When the record ends by idling; never later than its absolute end. */
static int64_t idle_end(const struct sw_ask *ask, int64_t absolute_unix_s)
{
    int64_t idle = ask->update.ttl_s >= 0 ? ask->update.ttl_s : ask->routed->route->session.idle_s;
    int64_t end = ask->now_unix_s + idle;

    return absolute_unix_s > 0 ? SW_MIN(end, absolute_unix_s) : end;
}

static struct sw_version session_version(const struct sw_ask *ask)
{
    return ask->state_present ? ask->version : (struct sw_version){0, 0};
}

/* No state lives longer, used or not. Counted from its first write, by today's configuration. */
static int64_t absolute_end(const struct sw_ask *ask)
{
    int64_t from = ask->state_present && !ask->session.new_id ? ask->session.record.created_unix_s
                                                              : ask->now_unix_s;

    return from + ask->routed->route->session.absolute_s;
}

static bool subject_changes(const struct sw_ask *ask)
{
    struct sw_slice old =
        ask->state_present ? ask->session.record.subject : (struct sw_slice){NULL, 0};

    return ask->update.has_subject && !sw_slice_eq(ask->update.subject, old);
}

/* A new id for the visitor: at the first write, at login, at a change of subject. */
static bool takes_new_id(const struct sw_ask *ask)
{
    return ask->session.from_cookie &&
           (!ask->state_present || ask->update.renew || subject_changes(ask));
}

static enum sw_step session_put(struct sw_ask *ask)
{
    struct sw_store_commit *op = session_op(ask);
    struct sw_write *w;
    struct sw_slice value;
    enum sw_err err;

    if (op == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    err = session_value(ask, &value);
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    w = &op->writes[op->count++];
    *w = (struct sw_write){
        .kind = SW_WRITE_PUT,
        .record = SW_RECORD_STATE,
        .key = ask->key,
        .expect = SW_EXPECT_VERSION,
        .version = session_version(ask),
        .value = value,
    };
    w->subject = ask->update.has_subject ? ask->update.subject
                 : ask->state_present    ? ask->session.record.subject
                                         : (struct sw_slice){NULL, 0};
    ask->session.new_id = takes_new_id(ask);
    if (ask->session.new_id) {
        sw_random(ask->session.id, sizeof(ask->session.id));
        sw_sha256(sw_slice_of(ask->session.id, sizeof(ask->session.id)), w->key.bytes);
        if (ask->state_present) { /* rename and data are one compare-and-set: no fork */
            op->writes[op->count++] = (struct sw_write){
                .kind = SW_WRITE_PUT,
                .record = SW_RECORD_ALIAS,
                .key = ask->key,
                .expect = SW_EXPECT_VERSION,
                .version = ask->version,
                .value = sw_slice_of(w->key.bytes, sizeof(w->key.bytes)),
                .expires_unix_s = ask->now_unix_s + ALIAS_S,
                .absolute_unix_s = ask->now_unix_s + ALIAS_S,
            };
        }
        w->version = (struct sw_version){0, 0};
    }
    w->expires_unix_s = idle_end(ask, absolute_end(ask));
    /* an end the app has set is one that reading does not move */
    w->absolute_unix_s = ask->update.ttl_s >= 0 ? w->expires_unix_s : absolute_end(ask);
    ask->session.phase = SW_SESSION_COMMITTING;
    return session_submit(ask, op);
}

static enum sw_step clear_cookie(struct sw_ask *ask)
{
    enum sw_err err;

    if (!ask->session.from_cookie || !ask->session.cookie_present) {
        return SW_STEP_DONE;
    }
    err = sw_place__set_cookie(ask, &ask->routed->route->session.cookie, ask->session.cookie_name,
                               SW_S(""), 0);
    return err == SW_OK ? SW_STEP_DONE : sw_place__fail(ask, err);
}

static enum sw_step session_delete(struct sw_ask *ask)
{
    struct sw_store_commit *op;

    if (!ask->state_present) {
        return clear_cookie(ask);
    }
    op = session_op(ask);
    if (op == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    op->writes[op->count++] = (struct sw_write){
        .kind = SW_WRITE_DELETE,
        .key = ask->key,
        .expect = SW_EXPECT_VERSION,
        .version = ask->version,
        /* a visitor's id is dead for good; an entity may be made again at once, with a new epoch */
        .expires_unix_s = ask->session.from_cookie ? absolute_end(ask) : ask->now_unix_s - 1,
    };
    ask->session.phase = SW_SESSION_COMMITTING;
    return session_submit(ask, op);
}

/* Nobody waits for a touch to succeed: it only keeps an idle clock. */
static enum sw_step session_touch(struct sw_ask *ask)
{
    struct sw_store_commit *op = session_op(ask);

    if (op == NULL) {
        return SW_STEP_DONE;
    }
    op->writes[op->count++] = (struct sw_write){
        .kind = SW_WRITE_TOUCH,
        .key = ask->key,
        .expect = SW_EXPECT_EXISTS,
        .expires_unix_s = idle_end(ask, ask->session.record.absolute_unix_s),
        .absolute_unix_s = ask->session.record.absolute_unix_s,
    };
    ask->session.phase = SW_SESSION_TOUCHING;
    return session_submit(ask, op);
}

static enum sw_step session_decide(struct sw_ask *ask)
{
    enum sw_err err = sw_update_read(ask->response, &ask->update);
    const struct sw_update *u = &ask->update;

    ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop); /* the app may have taken its time */
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    if (!commits(u, ask->response->status)) {
        return SW_STEP_DONE; /* the app failed: its half-done update is not wanted */
    }
    if (u->has_expect && !sw_version_eq(u->expect, session_version(ask))) {
        ask->verdict = SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, SW_E_CONFLICT);
    }
    switch (u->kind) {
    case SW_UPDATE_DELETE:
        return session_delete(ask);
    case SW_UPDATE_SET:
    case SW_UPDATE_PATCH:
        return session_put(ask);
    case SW_UPDATE_NONE:
        if (ask->state_present &&
            ((u->renew && ask->session.from_cookie) || subject_changes(ask))) {
            return session_put(ask);
        }
        return ask->session.needs_touch ? session_touch(ask) : SW_STEP_DONE;
    }
    SW_UNREACHABLE();
}

static enum sw_step session_committed(struct sw_ask *ask)
{
    char text[SW_B64_LEN(sizeof(ask->session.id))];
    struct sw_out out = sw_out_init(text, sizeof(text));
    enum sw_err err;

    if (ask->update.kind == SW_UPDATE_DELETE) {
        ask->verdict = SW_VERDICT_REVOKED;
        return clear_cookie(ask);
    }
    ask->verdict = SW_VERDICT_UPDATED;
    ask->version = ask->session.commit->writes[0].ret_version;
    if (!ask->session.new_id) {
        return SW_STEP_DONE;
    }
    sw_b64url_put(&out, ask->session.id, sizeof(ask->session.id));
    sw_place__visitor(ask, sw_slice_of(ask->session.id, sizeof(ask->session.id)));
    err = sw_place__set_cookie(ask, &ask->routed->route->session.cookie, ask->session.cookie_name,
                               sw_out_done(&out), -1);
    return err == SW_OK ? SW_STEP_DONE : sw_place__fail(ask, err);
}

/* Does the update say the same of a newer version? */
static bool fits_any_version(const struct sw_ask *ask)
{
    if (ask->update.has_expect) {
        return false;
    }
    switch (ask->routed->route->session.concurrency) {
    case SW_CONC_LAST:
        return true;
    case SW_CONC_MERGE:
        return ask->update.kind != SW_UPDATE_SET;
    case SW_CONC_SERIAL:
    case SW_CONC_CAS:
        return ask->update.kind == SW_UPDATE_DELETE; /* logout wins, whatever it meets */
    }
    SW_UNREACHABLE();
}

/* The newest state was read for another try. */
static enum sw_step session_reloaded(struct sw_ask *ask)
{
    if (!ask->session.had_state || ask->state_present) {
        return session_decide(ask);
    }
    ask->verdict = SW_VERDICT_REVOKED; /* it was ended meanwhile, and nothing makes it rise again */
    return ask->update.kind == SW_UPDATE_DELETE ? clear_cookie(ask)
                                                : sw_place__fail(ask, SW_E_STATE_GONE);
}

/* The same update on the newest state, until nobody came in between. */
static enum sw_step session_again(struct sw_ask *ask)
{
    enum sw_step step;

    if (++ask->session.tries > TRIES_MAX) {
        ask->verdict = SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, SW_E_CONFLICT);
    }
    sw_arena_reset(ask->arena, ask->session.mark);
    ask->session.had_state = ask->state_present;
    ask->session.phase = SW_SESSION_DECIDE;
    ask->session.followed = 0; /* it may have got a new id meanwhile */
    step = session_load(ask);
    return step == SW_STEP_DONE ? session_reloaded(ask) : step;
}

static enum sw_step session_conflict(struct sw_ask *ask, enum sw_err err)
{
    if (err == SW_E_CONFLICT && fits_any_version(ask)) {
        return session_again(ask);
    }
    ask->verdict = err == SW_E_STATE_GONE ? SW_VERDICT_REVOKED : SW_VERDICT_CONFLICTED;
    if (err == SW_E_STATE_GONE && ask->update.kind == SW_UPDATE_DELETE) {
        return clear_cookie(ask); /* somebody else ended it first: it is ended */
    }
    return sw_place__fail(ask, err);
}

static enum sw_step session_commit(struct sw_ask *ask)
{
    const struct sw_store_commit *op = ask->session.commit;
    enum sw_step step;

    if (!ask->session.waiting) {
        return session_decide(ask);
    }
    if (ask->session.phase == SW_SESSION_DECIDE) { /* the load of another try was answered */
        step = session_load(ask);
        return step == SW_STEP_DONE ? session_reloaded(ask) : step;
    }
    ask->session.waiting = false;
    if (ask->session.phase == SW_SESSION_TOUCHING) {
        return SW_STEP_DONE;
    }
    SW_ASSERT(op != NULL);
    ask->commit_ns = op->done_ns > op->queued_ns ? op->done_ns - op->queued_ns : 1;
    switch (op->err) {
    case SW_OK:
        return session_committed(ask);
    case SW_E_CONFLICT:
    case SW_E_STATE_GONE:
        return session_conflict(ask, op->err);
    default:
        return sw_place__fail(ask, SW_E_COMMIT);
    }
}

const struct sw_placement sw_placement__session = {"session", session_load, session_pick,
                                                   session_commit};
