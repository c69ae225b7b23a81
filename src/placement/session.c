/* placement/session.c - state: session. The store holds the state; any instance may answer.
 *
 * load    reads the record of the key. An unknown or expired id is never adopted: the next write
 *         makes a new one (no fixation). A renewed id leads to the new record for a while (alias).
 *         A state above inline is not read, only its length. With `owner: subject` the visitor's
 * own session is read first: its subject must be that of the entity. commit  one compare-and-set
 * against the version that was handed out, durable before the first byte of the answer leaves.
 * Update-if-exists: an ended state stays ended (logout wins). A state is created at its first
 * write, so visitors without state cost nothing. An end, a patch under `merge` and anything under
 * `last` fit a newer version too: they are tried again on that, wherever it lies by then (a renewal
 * moves it). So that nobody loses such a race for ever, they stand in the key's line from the first
 * try to the commit, one after another, and who waited there begins with the newest state.
 *
 * One commit writes all that belongs together: the state with its alarms and its expiry, the alias
 * of a renewed id, and what the exchange joins to it. The update comes from the answer's headers,
 * from its envelope, or was staged by the side API; two of them are one too many.
 *
 * Reading writes nothing until a tenth of the idle time has passed since the last touch. A delivery
 * (ask->alarm) is no use by the visitor: it moves no expiry and gives no new id; a commit of its
 * answer takes the alarm out of the state's list.
 */
#include "placement/placement_priv.h"

#define TOUCH_FRACTION 10
#define ALIAS_S        10 /* how long an old id leads to the new one: parallel requests of a page */
#define TRIES_MAX      64 /* of an update that fits any version, in its turn */

_Static_assert(SW_COMMIT_WRITES_MAX >= 4,
               "a state, the alias that leads to it, the end of what it was, and what is joined");

/* Is the state a visitor's own, so that its id is dead once it ended? */
static bool visitors_own(const struct sw_ask *ask)
{
    return ask->routed->route->session.key_source == SW_KEY_COOKIE;
}

/* ---- load ------------------------------------------------------------------------------------ */

static enum sw_step session_absent(struct sw_ask *ask, enum sw_verdict verdict)
{
    ask->state_present = false;
    ask->state = (struct sw_slice){NULL, 0};
    ask->verdict = verdict;
    ask->app_verdict = verdict;
    return SW_STEP_DONE;
}

static enum sw_step session_found(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    const struct sw_record *r = &ask->session.record;

    if (route->session.owner_subject && ask->alarm == NULL &&
        !sw_place__same_subject(ask->env->keys, ask->session.owner, r->subject)) {
        return sw_place__fail(ask, SW_E_NOT_OWNER);
    }
    ask->state_present = true;
    ask->state = r->value;
    ask->version = r->version;
    ask->verdict = SW_VERDICT_KEPT;
    ask->app_verdict = SW_VERDICT_KEPT;
    ask->session.needs_touch =
        ask->alarm == NULL &&
        ask->now_unix_s - r->touched_unix_s >= SW_MAX(route->session.idle_s / TOUCH_FRACTION, 1) &&
        r->absolute_unix_s != r->expires_unix_s; /* at its absolute end nothing can be added */
    return SW_STEP_DONE;
}

/* The key is the one where something was found: what was read under the id that led there. */
static void session_at(struct sw_ask *ask, const struct sw_reading *r)
{
    ask->key = r->key;
    if (visitors_own(ask)) {
        memcpy(ask->session.at_id, r->id, sizeof(r->id));
        ask->session.has_at_id = r->has_id;
        sw_place__visitor(ask, &ask->key);
        sw_place__visitor_key_text(ask);
    }
}

/* The state at its place before the route became one of sessions. */
static enum sw_step session_load_old(struct sw_ask *ask)
{
    enum sw_step step = sw_place__move_load(ask);

    if (step != SW_STEP_MORE) {
        ask->session.loading = SW_LOADING_NOTHING;
    }
    return step;
}

/* The record was read: a state, an end, or nothing. */
static enum sw_step session_loaded(struct sw_ask *ask)
{
    const struct sw_reading *r = &ask->session.reading;

    ask->session.unreadable = false;
    if (r->err == SW_E_NOT_FOUND && !r->odd && ask->move.active) {
        ask->session.loading = SW_LOADING_OLD;
        return session_load_old(ask);
    }
    if (r->err == SW_E_NOT_FOUND) {
        if (r->unreadable) {
            session_at(ask, r);
            ask->session.record = r->record;
            ask->session.unreadable = true;
        }
        return session_absent(ask, ask->session.from_cookie || r->odd ? SW_VERDICT_EXPIRED
                                                                      : SW_VERDICT_FRESH);
    }
    if (r->err != SW_OK) {
        return sw_place__fail(ask, r->err);
    }
    session_at(ask, r);
    ask->session.record = r->record;
    return r->record.kind == SW_RECORD_STATE ? session_found(ask)
                                             : session_absent(ask, SW_VERDICT_REVOKED);
}

static void session_load_state(struct sw_ask *ask)
{
    sw_place__read_begin(&ask->session.reading, &ask->key,
                         ask->session.has_at_id ? ask->session.at_id : NULL, SW_READING_INLINE,
                         ask->routed->route->session.inline_bytes);
    ask->session.loading = SW_LOADING_STATE;
}

/* The visitor's own session was read: who asks. */
static enum sw_err session_owner(struct sw_ask *ask)
{
    const struct sw_reading *r = &ask->session.reading;

    if (r->err != SW_OK && r->err != SW_E_NOT_FOUND) {
        return r->err;
    }
    if (r->err != SW_OK || r->record.kind != SW_RECORD_STATE || r->record.subject.len == 0) {
        return SW_E_NOT_OWNER;
    }
    sw_place__visitor(ask, &r->key);
    ask->session.owner = r->record.subject;
    return SW_OK;
}

/* True: the owner is not known yet and must be. */
static bool owner_wanted(const struct sw_ask *ask)
{
    return ask->routed->route->session.owner_subject && ask->alarm == NULL &&
           ask->session.owner.len == 0;
}

static enum sw_step session_load(struct sw_ask *ask)
{
    struct sw_reading *r = &ask->session.reading;
    enum sw_err err;

    if (!ask->has_key) {
        return session_absent(ask, ask->sealed.cookie_present ? SW_VERDICT_EXPIRED
                                                              : SW_VERDICT_FRESH);
    }
    if (ask->session.loading == SW_LOADING_OLD) {
        return session_load_old(ask);
    }
    if (ask->session.loading == SW_LOADING_NOTHING) {
        ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop); /* it may have waited in a queue */
        if (!owner_wanted(ask)) {
            session_load_state(ask);
        } else if (ask->session.has_own) {
            sw_place__read_begin(r, &ask->session.own, NULL, SW_READING_HEAD, 0);
            ask->session.loading = SW_LOADING_OWN;
        } else {
            return sw_place__fail(ask, SW_E_NOT_OWNER);
        }
    }
    if (sw_place__read(ask, r) == SW_STEP_MORE) {
        return SW_STEP_MORE;
    }
    if (ask->session.loading == SW_LOADING_OWN) {
        ask->session.loading = SW_LOADING_NOTHING;
        err = session_owner(ask);
        if (err != SW_OK) {
            return sw_place__fail(ask, err);
        }
        session_load_state(ask);
        if (sw_place__read(ask, r) == SW_STEP_MORE) {
            return SW_STEP_MORE;
        }
    }
    ask->session.loading = SW_LOADING_NOTHING;
    return session_loaded(ask);
}

static enum sw_step session_pick(struct sw_ask *ask)
{
    return sw_place__pick_any(ask, false);
}

/* ---- what the answer asks for ---------------------------------------------------------------- */

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

bool sw_place__commits(const struct sw_ask *ask)
{
    return commits(&ask->update, ask->response->status) &&
           (ask->envelope == NULL || commits(&ask->update, ask->envelope->status));
}

static enum sw_err take_envelope(struct sw_update *u, const struct sw_envelope *e)
{
    if (u->kind != SW_UPDATE_NONE || u->alarm_count > 0) {
        return SW_E_UPDATE_MANY;
    }
    u->kind = e->kind;
    u->value = e->value;
    u->alarm_count = e->alarm_count;
    memcpy(u->alarms, e->alarms, e->alarm_count * sizeof(e->alarms[0]));
    return SW_OK;
}

static enum sw_err take_staged(struct sw_ask *ask)
{
    struct sw_update *u = &ask->update;

    if (u->kind != SW_UPDATE_NONE) {
        return SW_E_UPDATE_MANY;
    }
    u->kind = ask->staged.kind;
    u->value = ask->staged.value;
    ask->session.value_ready = true;
    return SW_OK;
}

/* An entity belongs to who made it; an answer may say so, but not otherwise. */
static enum sw_err keep_owner(struct sw_ask *ask)
{
    struct sw_update *u = &ask->update;
    struct sw_slice owner = ask->state_present ? ask->session.record.subject : ask->session.owner;

    if (u->has_subject && !sw_place__same_subject(ask->env->keys, u->subject, owner)) {
        return SW_E_UPDATE_SYNTAX;
    }
    u->has_subject = false;
    return SW_OK;
}

/* The one update that the answer's headers, its envelope and the side API make. */
enum sw_err sw_place__update(struct sw_ask *ask)
{
    enum sw_err err = sw_update_read(ask->response, &ask->update);

    ask->session.value_ready = false;
    if (err == SW_OK && ask->envelope != NULL) {
        err = take_envelope(&ask->update, ask->envelope);
    }
    if (err == SW_OK && ask->staged.kind != SW_UPDATE_NONE) {
        err = take_staged(ask);
    }
    if (err == SW_OK && ask->routed->route->session.owner_subject) {
        err = keep_owner(ask);
    }
    return err;
}

static bool subject_changes(const struct sw_ask *ask)
{
    struct sw_slice old =
        ask->state_present ? ask->session.record.subject : (struct sw_slice){NULL, 0};

    return ask->update.has_subject &&
           !sw_place__same_subject(ask->env->keys, ask->update.subject, old);
}

/* A new id for the visitor: at the first write, at login, at a change of subject. */
static bool takes_new_id(const struct sw_ask *ask)
{
    return ask->session.from_cookie &&
           (!ask->state_present || ask->update.renew || subject_changes(ask));
}

/* ---- the commit ------------------------------------------------------------------------------ */

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
        ask->session.large_mark = ask->large;
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
    ask->move.note_at = SW_COMMIT_WRITES_MAX;
    if (ask->session.phase == SW_SESSION_COMMITTING && sw_place__move_writes(ask)) {
        ask->move.note_at = op->count;
        sw_place__move_write(ask, &op->writes[op->count++]);
    }
    if (ask->join != NULL && ask->session.phase == SW_SESSION_COMMITTING) {
        SW_ASSERT(op->count < SW_COMMIT_WRITES_MAX);
        ask->session.join_at = op->count;
        op->writes[op->count++] = *ask->join;
        ask->joined = true;
    }
    SW_ASSERT(op->count > 0);
    SW_ASSERT(op->count <= SW_COMMIT_WRITES_MAX);
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

/* Of the record, not of what the app was handed: a state that comes from another placement has none
 * here yet. */
static struct sw_version kept_version(const struct sw_ask *ask)
{
    return ask->move.taken ? (struct sw_version){0, 0} : session_version(ask);
}

/* No state lives longer, used or not. Counted from its first write, by today's configuration. */
static int64_t absolute_end(const struct sw_ask *ask)
{
    int64_t from = ask->state_present && !ask->session.new_id ? ask->session.record.created_unix_s
                                                              : ask->now_unix_s;

    return from + ask->routed->route->session.absolute_s;
}

static void put_expiry(const struct sw_ask *ask, struct sw_write *w)
{
    if (ask->alarm != NULL && ask->update.ttl_s < 0) { /* nobody used it: it ends when it would */
        w->expires_unix_s = ask->session.record.expires_unix_s;
        w->absolute_unix_s = ask->session.record.absolute_unix_s;
        return;
    }
    w->expires_unix_s = idle_end(ask, absolute_end(ask));
    /* an end the app has set is one that reading does not move */
    w->absolute_unix_s = ask->update.ttl_s >= 0 ? w->expires_unix_s : absolute_end(ask);
}

static enum sw_err put_subject(struct sw_ask *ask, struct sw_write *w)
{
    const struct sw_config_route *route = ask->routed->route;

    if (ask->update.has_subject) {
        w->subject = ask->update.subject;
    } else if (ask->state_present) {
        w->subject = ask->session.record.subject;
        w->bound_unix_ms = ask->session.record.bound_unix_ms; /* also under a new id */
    } else if (route->session.owner_subject) {
        w->subject = ask->session.owner;
    }
    return route->session.encrypt ? sw_place__hide_subject(ask, w->subject, &w->subject) : SW_OK;
}

/* The value as it is kept. id: what w->key is the hash of; NULL: not sealed. */
static enum sw_err put_value(struct sw_ask *ask, const uint8_t *id, struct sw_write *w)
{
    const struct sw_update *u = &ask->update;
    struct sw_slice base = {NULL, 0};
    bool own = false; /* in memory where it can be sealed */
    enum sw_err err = SW_OK;

    if (ask->state_present) {
        base = ask->state.ptr != NULL ? ask->state : ask->session.whole.value;
    }
    if (u->kind == SW_UPDATE_PATCH) {
        err = sw_place__merge(ask, base, u->value, false, &w->value);
        own = true;
    } else if (u->kind == SW_UPDATE_SET && !ask->session.value_ready) {
        err = sw_place__compact(ask, u->value, false, &w->value);
        own = true;
    } else if (u->kind == SW_UPDATE_SET) {
        w->value = u->value;
    } else { /* renewed, or its alarms change: the state goes along as it is */
        w->value = ask->state_present ? base : SW_S("{}");
    }
    if (err == SW_OK && id != NULL && !own) {
        err = sw_place__copy(ask, w->value, &w->value);
    }
    if (err == SW_OK && id != NULL) {
        w->value = sw_place__seal(id, &w->key, w->value);
        w->sealed = true;
    }
    return err;
}

/* ---- alarms ---------------------------------------------------------------------------------- */

bool sw_place__alarm_take(struct sw_alarm *list, size_t *count, const struct sw_alarm *alarm)
{
    for (size_t i = 0; i < *count; i++) {
        if (list[i].due_unix_ms == alarm->due_unix_ms && sw_slice_eq(list[i].id, alarm->id)) {
            --*count;
            memmove(&list[i], &list[i + 1], (*count - i) * sizeof(*list));
            return true;
        }
    }
    return false;
}

/* What the changes unescape, and the list as it is kept. */
#define ALARM_TEXT_BYTES  (4 * SW_ALARM_DATA_BYTES_MAX) /* of one change: its id and its data */
#define ALARMS_WORK_BYTES (SW_ALARM_CHANGES_MAX * ALARM_TEXT_BYTES + SW_EXTRA_BYTES_MAX)

static enum sw_err alarms_apply(struct sw_ask *ask, struct sw_alarm *list, size_t *count,
                                struct sw_slice key_text, struct sw_arena *arena)
{
    int64_t now_unix_ms = sw_loop_now_unix_ms(ask->env->loop);
    struct sw_alarm_change change;
    enum sw_err err = SW_OK;

    for (size_t i = 0; i < ask->update.alarm_count && err == SW_OK; i++) {
        err = sw_alarm_parse(ask->update.alarms[i], now_unix_ms, arena, &change);
        if (err == SW_OK) {
            err = sw_alarms_change(list, count, &change, ask->routed->route->ident, key_text);
        }
    }
    return err;
}

/* The state's alarms as they will be. key_text: under which it will live. */
static enum sw_err put_alarms(struct sw_ask *ask, struct sw_slice key_text, struct sw_write *w)
{
    struct sw_alarm list[SW_ALARMS_MAX];
    size_t count = 0;
    struct sw_arena work;
    struct sw_out out;
    char *memory;
    enum sw_err err;

    if (w->sealed) {
        return SW_OK; /* nobody but the visitor can read it, so nothing can be delivered */
    }
    if (ask->state_present && ask->update.alarm_count == 0 && ask->alarm == NULL &&
        !ask->session.new_id) {
        w->extra = ask->session.record.extra;
        w->due_unix_ms = ask->session.record.due_unix_ms;
        return SW_OK;
    }
    if (ask->state_present && sw_alarms_read(ask->session.record.extra, list, &count) != SW_OK) {
        count = 0; /* what cannot be read is no alarm; the state does not suffer for it */
    }
    if (ask->alarm != NULL) {
        (void)sw_place__alarm_take(list, &count, ask->alarm);
    }
    if (count == 0 && ask->update.alarm_count == 0) {
        return SW_OK;
    }
    memory = sw_ask_large(ask, ALARMS_WORK_BYTES);
    if (memory == NULL) {
        return SW_E_LARGE_FULL;
    }
    sw_arena_init(&work, memory + SW_EXTRA_BYTES_MAX, ALARMS_WORK_BYTES - SW_EXTRA_BYTES_MAX);
    for (size_t i = 0; ask->session.new_id && i < count; i++) {
        list[i].key_text = key_text;
    }
    err = alarms_apply(ask, list, &count, key_text, &work);
    out = sw_out_init(memory, SW_EXTRA_BYTES_MAX);
    if (err == SW_OK && !sw_alarms_put(&out, list, count)) {
        err = SW_E_UPDATE_ALARM;
    }
    w->extra = sw_out_done(&out);
    w->due_unix_ms = sw_alarms_due(list, count);
    return err;
}

/* Of a state that ends, nothing can be due. */
static enum sw_err only_cancels(struct sw_ask *ask)
{
    size_t mark = sw_arena_mark(ask->arena);
    struct sw_alarm_change change;
    enum sw_err err = SW_OK;

    for (size_t i = 0; i < ask->update.alarm_count && err == SW_OK; i++) {
        err = sw_alarm_parse(ask->update.alarms[i], sw_loop_now_unix_ms(ask->env->loop), ask->arena,
                             &change);
        if (err == SW_OK && !change.cancel) {
            err = SW_E_UPDATE_ALARM;
        }
    }
    sw_arena_reset(ask->arena, mark);
    return err;
}

/* ---- put ------------------------------------------------------------------------------------- */

static enum sw_err put_new_id(struct sw_ask *ask, struct sw_write *w)
{
    char text[SW_B64_LEN(sizeof(ask->session.fresh_id))];
    struct sw_out out = sw_out_init(text, sizeof(text));

    if (ask->session.cleared) { /* the new one takes the place of the old */
        ask->client_lines = ask->session.uncleared;
    }
    sw_random(ask->session.fresh_id, sizeof(ask->session.fresh_id));
    sw_sha256(sw_slice_of(ask->session.fresh_id, sizeof(ask->session.fresh_id)), w->key.bytes);
    w->version = (struct sw_version){0, 0};
    sw_b64url_put(&out, ask->session.fresh_id, sizeof(ask->session.fresh_id));
    /* made before the commit: one that succeeded must not fail for want of room */
    return sw_place__cookie_lines(ask, &ask->routed->route->session.cookie,
                                  ask->session.cookie_name, sw_out_done(&out), -1,
                                  &ask->session.lines);
}

/* Rename and data are one compare-and-set: no fork. */
static enum sw_err put_alias(struct sw_ask *ask, const struct sw_write *to, struct sw_write *w)
{
    char *value = sw_arena_bytes(ask->arena, SW_ALIAS_SEALED_BYTES);

    if (value == NULL) {
        return SW_E_NO_MEMORY;
    }
    *w = (struct sw_write){
        .kind = SW_WRITE_PUT,
        .record = SW_RECORD_ALIAS,
        .key = ask->key,
        .expect = SW_EXPECT_VERSION,
        .version = kept_version(ask),
        .value = sw_place__alias(to->sealed && ask->session.has_at_id ? ask->session.at_id : NULL,
                                 &ask->key, ask->session.fresh_id, &to->key, value),
        .expires_unix_s = ask->now_unix_s + ALIAS_S,
        .absolute_unix_s = ask->now_unix_s + ALIAS_S,
    };
    return SW_OK;
}

/* Is it the whole of a living state, on a route that wants the last one to stand? */
static bool overwrites(const struct sw_ask *ask)
{
    return ask->routed->route->session.concurrency == SW_CONC_LAST && ask->state_present &&
           ask->update.kind == SW_UPDATE_SET && !ask->update.has_expect && ask->alarm == NULL &&
           !ask->session.new_id && !ask->move.taken;
}

static enum sw_err put_state(struct sw_ask *ask, struct sw_write *w)
{
    bool may_seal = ask->routed->route->session.encrypt && visitors_own(ask);
    const uint8_t *id = NULL;
    char visitor[17], key_text[sizeof(ask->session.visitor_text)];
    struct sw_slice lives_at = ask->key_text;
    enum sw_err err = SW_OK;

    *w = (struct sw_write){
        .kind = SW_WRITE_PUT,
        .record = SW_RECORD_STATE,
        .key = ask->key,
        .expect = SW_EXPECT_VERSION,
        /* what cannot be read is written over, so that no key is stuck for good */
        .version = ask->session.unreadable ? ask->session.record.version : kept_version(ask),
    };
    if (ask->session.new_id) {
        struct sw_out out = sw_out_init(key_text, sizeof(key_text));

        err = put_new_id(ask, w);
        sw_place__visitor_text(ask->env, &w->key, visitor);
        sw_out_lit(&out, "visitor:");
        sw_out_cstr(&out, visitor);
        lives_at = sw_out_done(&out);
    }
    if (ask->move.taken) {
        w->created_unix_s = ask->session.record.created_unix_s;
    }
    if (overwrites(ask)) {
        w->expect = SW_EXPECT_EXISTS; /* whatever version: it is not looked at */
    }
    if (may_seal && ask->session.new_id) {
        id = ask->session.fresh_id;
    } else if (may_seal && ask->session.has_at_id) {
        id = ask->session.at_id;
    } /* else: by an alias from before `encrypt: on`; sealed when he comes with the new id */
    if (err == SW_OK) {
        err = put_value(ask, id, w);
    }
    if (err == SW_OK) {
        err = put_subject(ask, w);
    }
    if (err == SW_OK) {
        err = put_alarms(ask, lives_at, w);
    }
    put_expiry(ask, w);
    return err;
}

/* All of the commit. The state's value is here, if it is needed. */
static enum sw_step session_write(struct sw_ask *ask)
{
    struct sw_store_commit *op = ask->session.commit;
    enum sw_err err = put_state(ask, &op->writes[0]);

    op->count = 1;
    if (err == SW_OK && ask->session.new_id && ask->state_present) {
        err = put_alias(ask, &op->writes[0], &op->writes[1]);
        op->count = 2;
    }
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    ask->session.phase = SW_SESSION_COMMITTING;
    return session_submit(ask, op);
}

static enum sw_step session_conflict(struct sw_ask *ask, enum sw_err err);

/* The value of a state above inline was read, to be written again with a change. */
static enum sw_step session_fetched(struct sw_ask *ask)
{
    const struct sw_reading *r = &ask->session.reading;

    if (r->err == SW_E_NOT_FOUND && r->unreadable) { /* found out only now: what was handed out as
                                                        a state is none */
        ask->verdict = SW_VERDICT_EXPIRED;
        return sw_place__fail(ask, SW_E_STATE_GONE);
    }
    if (r->err == SW_E_NOT_FOUND) {
        return session_conflict(ask, SW_E_CONFLICT);
    }
    if (r->err != SW_OK) {
        return r->err == SW_E_CONFLICT ? session_conflict(ask, r->err)
                                       : sw_place__fail(ask, r->err);
    }
    if (r->record.kind == SW_RECORD_TOMBSTONE) {
        return session_conflict(ask, SW_E_STATE_GONE);
    }
    if (!sw_version_eq(r->record.version, ask->version)) {
        return session_conflict(ask, SW_E_CONFLICT);
    }
    ask->session.whole.present = true;
    ask->session.whole.late = true;
    ask->session.whole.version = r->record.version;
    ask->session.whole.value = r->record.value;
    return session_write(ask);
}

/* Is the committed value needed, and not here? */
static bool must_fetch(const struct sw_ask *ask)
{
    return ask->state_present && ask->state.ptr == NULL &&
           (ask->update.kind == SW_UPDATE_PATCH || ask->update.kind == SW_UPDATE_NONE) &&
           !(ask->session.whole.present && sw_version_eq(ask->session.whole.version, ask->version));
}

static bool fits_any_version(const struct sw_ask *ask);

/* Would it be tried again after a conflict? Then it waits its turn instead. An overwriting one
 * meets none; one that makes a visitor's first state has a key that nobody else knows. */
static bool takes_turns(const struct sw_ask *ask)
{
    enum sw_concurrency c = ask->routed->route->session.concurrency;

    return (c == SW_CONC_MERGE || c == SW_CONC_LAST) && ask->line != NULL && ask->has_key &&
           fits_any_version(ask) && !overwrites(ask) &&
           !(ask->session.from_cookie && !ask->state_present);
}

static enum sw_step session_put(struct sw_ask *ask)
{
    if (session_op(ask) == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    ask->session.new_id = takes_new_id(ask);
    if (takes_turns(ask) && ask->line(ask) == SW_STEP_MORE) {
        ask->session.phase = SW_SESSION_LINING;
        return SW_STEP_MORE;
    }
    if (!must_fetch(ask)) {
        return session_write(ask);
    }
    sw_place__read_begin(&ask->session.reading, &ask->key,
                         ask->session.has_at_id ? ask->session.at_id : NULL, SW_READING_WHOLE,
                         ask->state.len);
    ask->session.phase = SW_SESSION_FETCHING;
    return sw_place__read(ask, &ask->session.reading) == SW_STEP_MORE ? SW_STEP_MORE
                                                                      : session_fetched(ask);
}

/* ---- delete, touch --------------------------------------------------------------------------- */

static bool may_clear_cookie(const struct sw_ask *ask)
{
    return ask->session.from_cookie && ask->session.cookie_present;
}

static enum sw_step clear_cookie(struct sw_ask *ask)
{
    enum sw_err err;

    if (!may_clear_cookie(ask) || ask->session.cleared) {
        return SW_STEP_DONE;
    }
    err = sw_place__set_cookie(ask, &ask->routed->route->session.cookie, ask->session.cookie_name,
                               SW_S(""), 0);
    return err == SW_OK ? SW_STEP_DONE : sw_place__fail(ask, err);
}

static enum sw_step session_delete(struct sw_ask *ask)
{
    struct sw_store_commit *op;
    enum sw_err err = only_cancels(ask);

    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    if (!ask->state_present && !ask->session.unreadable) {
        return clear_cookie(ask);
    }
    op = session_op(ask);
    if (op == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    op->writes[op->count++] = (struct sw_write){
        .kind = SW_WRITE_DELETE,
        .key = ask->key,
        /* logout wins over whoever writes meanwhile, without another try */
        .expect = ask->move.taken          ? SW_EXPECT_ANY
                  : ask->update.has_expect ? SW_EXPECT_VERSION
                                           : SW_EXPECT_EXISTS,
        .version = ask->session.record.version,
        /* a visitor's id is dead for good; an entity may be made again at once, with a new epoch */
        .expires_unix_s = visitors_own(ask) ? absolute_end(ask) : ask->now_unix_s - 1,
    };
    if (may_clear_cookie(ask)) {
        err = sw_place__cookie_lines(ask, &ask->routed->route->session.cookie,
                                     ask->session.cookie_name, SW_S(""), 0, &ask->session.lines);
    }
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
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

/* ---- at once, by the side API ---------------------------------------------------------------- */

enum sw_err sw_place__now_write(struct sw_ask *ask, bool ends, struct sw_write *w)
{
    enum sw_err err = SW_OK;

    ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop);
    ask->update = (struct sw_update){.ttl_s = -1}; /* that of the answer is read anew */
    ask->session.new_id = false;
    *w = (struct sw_write){
        .kind = ends ? SW_WRITE_DELETE : SW_WRITE_PUT,
        .record = SW_RECORD_STATE,
        .key = ask->key,
        .expect = SW_EXPECT_VERSION,
        .version = ask->session.unreadable ? ask->session.record.version : session_version(ask),
    };
    if (ends) {
        w->expires_unix_s = visitors_own(ask) ? absolute_end(ask) : ask->now_unix_s - 1;
        return SW_OK;
    }
    if (ask->state_present && sw_place__now_seal(ask) == NULL) {
        w->extra = ask->session.record.extra;
        w->due_unix_ms = ask->session.record.due_unix_ms;
    }
    err = put_subject(ask, w);
    put_expiry(ask, w);
    return err;
}

const uint8_t *sw_place__now_seal(const struct sw_ask *ask)
{
    return ask->routed->route->session.encrypt && visitors_own(ask) && ask->session.has_at_id
               ? ask->session.at_id
               : NULL;
}

void sw_place__now_done(struct sw_ask *ask, const struct sw_write *w, struct sw_slice value)
{
    struct sw_record *r = &ask->session.record;

    ask->session.unreadable = ask->session.needs_touch = false;
    ask->session.whole.present = false;
    if (w->kind == SW_WRITE_DELETE) {
        struct sw_slice before = ask->client_lines;

        ask->verdict = SW_VERDICT_REVOKED;
        ask->state_present = false;
        ask->state = (struct sw_slice){NULL, 0};
        if (clear_cookie(ask) == SW_STEP_DONE && may_clear_cookie(ask)) {
            ask->session.cleared = true;
            ask->session.uncleared = before;
        } /* else there is no room for a line: the client keeps an id that is dead */
        return;
    }
    if (!ask->state_present) {
        *r = (struct sw_record){.kind = SW_RECORD_STATE, .created_unix_s = ask->now_unix_s};
    }
    r->version = w->ret_version;
    r->touched_unix_s = ask->now_unix_s;
    r->expires_unix_s = w->expires_unix_s;
    r->absolute_unix_s = w->absolute_unix_s;
    r->due_unix_ms = w->due_unix_ms;
    r->extra = w->extra;
    r->subject = w->subject;
    r->sealed = w->sealed;
    r->value = value;
    ask->verdict = SW_VERDICT_UPDATED;
    ask->state_present = true;
    ask->version = w->ret_version;
    ask->state = value;
    if (value.len > ask->routed->route->session.inline_bytes) {
        ask->state.ptr = NULL;
        ask->session.whole.present = true;
        ask->session.whole.late = false;
        ask->session.whole.version = ask->version;
        ask->session.whole.value = value;
    }
}

/* ---- the decision ---------------------------------------------------------------------------- */

static enum sw_step session_unchanged(struct sw_ask *ask)
{
    const struct sw_update *u = &ask->update;
    bool renews = u->renew && ask->session.from_cookie;

    if (u->alarm_count > 0 || ask->alarm != NULL || ask->move.taken ||
        (ask->state_present && (renews || subject_changes(ask)))) {
        return session_put(ask);
    }
    return ask->session.needs_touch ? session_touch(ask) : SW_STEP_DONE;
}

static enum sw_step session_decide(struct sw_ask *ask)
{
    enum sw_err err = sw_place__update(ask);
    const struct sw_update *u = &ask->update;

    ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop); /* the app may have taken its time */
    ask->joined = false;
    if (err != SW_OK) {
        return sw_place__fail(ask, err);
    }
    if (!sw_place__commits(ask)) {
        return SW_STEP_DONE; /* the app failed: its half-done update is not wanted */
    }
    if (u->has_expect && !sw_version_eq(u->expect, session_version(ask))) {
        ask->verdict = SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, SW_E_CONFLICT);
    }
    if (u->alarm_count > 0 && ask->routed->route->session.alarm.len == 0) {
        return sw_place__fail(ask, SW_E_UPDATE_ALARM);
    }
    if (ask->alarm != NULL && !ask->state_present) { /* a delivery makes no state */
        return sw_place__fail(ask, SW_E_STATE_GONE);
    }
    switch (u->kind) {
    case SW_UPDATE_DELETE:
        return session_delete(ask);
    case SW_UPDATE_SET:
    case SW_UPDATE_PATCH:
        return session_put(ask);
    case SW_UPDATE_NONE:
        return session_unchanged(ask);
    }
    SW_UNREACHABLE();
}

/* ---- afterwards ------------------------------------------------------------------------------ */

static enum sw_step session_committed(struct sw_ask *ask)
{
    const struct sw_write *w = &ask->session.commit->writes[0];
    bool ended = w->kind == SW_WRITE_DELETE;

    sw_place__move_made(ask);
    if (ask->session.new_id || (ended && may_clear_cookie(ask))) {
        ask->client_lines = ask->session.lines;
        ask->sets_cookie = true;
    }
    if (ask->session.new_id) {
        sw_place__visitor(ask, &w->key);
    }
    if (ended) {
        ask->verdict = SW_VERDICT_REVOKED;
        return SW_STEP_DONE;
    }
    ask->verdict = ask->move.made && ask->update.kind == SW_UPDATE_NONE ? SW_VERDICT_MOVED
                                                                        : SW_VERDICT_UPDATED;
    ask->version = w->ret_version;
    return SW_STEP_DONE;
}

/* Does the update say the same of a newer version? */
static bool fits_any_version(const struct sw_ask *ask)
{
    const struct sw_update *u = &ask->update;

    if (u->has_expect) {
        return false;
    }
    if (ask->alarm != NULL && u->kind == SW_UPDATE_NONE && u->alarm_count == 0 && !u->has_subject) {
        return true; /* an alarm that was taken is taken out, whatever else was written */
    }
    switch (ask->routed->route->session.concurrency) {
    case SW_CONC_LAST:
        return true;
    case SW_CONC_MERGE:
        return u->kind != SW_UPDATE_SET;
    case SW_CONC_SERIAL:
    case SW_CONC_CAS:
        return u->kind == SW_UPDATE_DELETE; /* logout wins, whatever it meets */
    }
    SW_UNREACHABLE();
}

/* The newest state was read for another try. */
static enum sw_step session_reloaded(struct sw_ask *ask)
{
    if (ask->move.before.ptr != NULL && ask->state_present && !fits_any_version(ask) &&
        !sw_slice_eq(ask->move.before, ask->state)) {
        ask->verdict = SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, SW_E_CONFLICT);
    }
    if (!ask->session.had_state || ask->state_present) {
        ask->move.before = (struct sw_slice){NULL, 0};
        ask->session.phase = SW_SESSION_DECIDE;
        return session_decide(ask);
    }
    ask->verdict = SW_VERDICT_REVOKED; /* it was ended meanwhile, and nothing makes it rise again */
    return ask->update.kind == SW_UPDATE_DELETE ? clear_cookie(ask)
                                                : sw_place__fail(ask, SW_E_STATE_GONE);
}

/* The same update on the newest state. */
static enum sw_step session_reload(struct sw_ask *ask)
{
    enum sw_step step;

    sw_arena_reset(ask->arena, ask->session.mark);
    sw_place__large_back(ask, ask->session.large_mark);
    if (ask->session.whole.late) {
        ask->session.whole.present = ask->session.whole.late = false;
    }
    ask->session.had_state = ask->state_present;
    ask->session.phase = SW_SESSION_RELOADING;
    step = session_load(ask);
    return step == SW_STEP_DONE ? session_reloaded(ask) : step;
}

/* Until nobody came in between. */
static enum sw_step session_again(struct sw_ask *ask)
{
    if (++ask->session.tries > TRIES_MAX) {
        ask->verdict = SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, SW_E_CONFLICT);
    }
    return session_reload(ask);
}

static enum sw_step session_conflict(struct sw_ask *ask, enum sw_err err)
{
    if (err == SW_E_CONFLICT && ask->move.taken && !ask->update.has_expect) {
        ask->move.before = ask->state; /* another request brought it over: perhaps no more */
        return session_again(ask);
    }
    if (err == SW_E_CONFLICT && fits_any_version(ask)) {
        return session_again(ask);
    }
    ask->verdict = err == SW_E_STATE_GONE ? SW_VERDICT_REVOKED : SW_VERDICT_CONFLICTED;
    if (err == SW_E_STATE_GONE && ask->update.kind == SW_UPDATE_DELETE) {
        return clear_cookie(ask); /* somebody else ended it first: it is ended */
    }
    return sw_place__fail(ask, err);
}

/* The store has answered. */
static enum sw_step session_answered(struct sw_ask *ask)
{
    const struct sw_store_commit *op = ask->session.commit;
    bool refused = op->err == SW_E_CONFLICT || op->err == SW_E_STATE_GONE;

    ask->commit_ns = op->done_ns > op->queued_ns ? op->done_ns - op->queued_ns : 1;
    if (op->err == SW_OK) {
        return session_committed(ask);
    }
    if (!refused) {
        return sw_place__fail(ask, SW_E_COMMIT);
    }
    if (ask->joined && op->failed == ask->session.join_at) {
        ask->joined = false;
        return sw_place__fail(ask, SW_E_IDEM_RUNNING);
    }
    ask->joined = false;
    if (op->failed == ask->move.note_at && !ask->move.taken) {
        ask->move.note_gone = true; /* what was to be ended is ended */
        return session_decide(ask);
    }
    if (op->failed == ask->move.note_at) {
        ask->verdict = op->err == SW_E_STATE_GONE ? SW_VERDICT_REVOKED : SW_VERDICT_CONFLICTED;
        return sw_place__fail(ask, op->err);
    }
    return session_conflict(ask, op->err);
}

static enum sw_step session_step(struct sw_ask *ask)
{
    enum sw_step step;

    switch (ask->session.phase) {
    case SW_SESSION_DECIDE:
        return session_decide(ask);
    case SW_SESSION_LINING:
        return session_reload(ask);
    case SW_SESSION_RELOADING:
        step = session_load(ask);
        return step == SW_STEP_DONE ? session_reloaded(ask) : step;
    case SW_SESSION_FETCHING:
        step = sw_place__read(ask, &ask->session.reading);
        return step == SW_STEP_DONE ? session_fetched(ask) : step;
    case SW_SESSION_COMMITTING:
        return session_answered(ask);
    case SW_SESSION_TOUCHING:
        return SW_STEP_DONE;
    }
    SW_UNREACHABLE();
}

static enum sw_step session_commit(struct sw_ask *ask)
{
    enum sw_step step = session_step(ask);

    return step == SW_STEP_DONE ? sw_place__move_settle(ask) : step;
}

const struct sw_placement sw_placement__session = {"session", session_load, session_pick,
                                                   session_commit};
