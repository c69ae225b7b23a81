/* placement/session_write.c - state: session. The records that a commit writes: the state as it
 * will be, with its end, its subject and its alarms; the alias of a renewed id; the cookie that
 * goes with them. Nothing is submitted here.
 *
 * A delivery (ask->alarm) is no use by the visitor: it moves no expiry. A commit of its answer
 * takes the alarm out of the state's list.
 */
#include "placement/session_priv.h"

#define ALIAS_S 10 /* how long an old id leads to the new one: parallel requests of a page */

/* When the record ends by idling; never later than its absolute end. */
int64_t sw_session__idle_end(const struct sw_ask *ask, int64_t absolute_unix_s)
{
    int64_t idle = ask->update.ttl_s >= 0 ? ask->update.ttl_s : ask->routed->route->session.idle_s;
    int64_t end = ask->now_unix_s + idle;

    return absolute_unix_s > 0 ? SW_MIN(end, absolute_unix_s) : end;
}

struct sw_version sw_session__version(const struct sw_ask *ask)
{
    return ask->state_present ? ask->version : (struct sw_version){0, 0};
}

/* Of the record, not of what the app was handed: a state that comes from another placement has none
 * here yet. */
static struct sw_version kept_version(const struct sw_ask *ask)
{
    return ask->move.taken ? (struct sw_version){0, 0} : sw_session__version(ask);
}

/* No state lives longer, used or not. Counted from its first write, by today's configuration. */
int64_t sw_session__absolute_end(const struct sw_ask *ask)
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
    w->expires_unix_s = sw_session__idle_end(ask, sw_session__absolute_end(ask));
    /* an end the app has set is one that reading does not move */
    w->absolute_unix_s = ask->update.ttl_s >= 0 ? w->expires_unix_s : sw_session__absolute_end(ask);
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
enum sw_err sw_session__only_cancels(struct sw_ask *ask)
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
enum sw_err sw_session__put_alias(struct sw_ask *ask, const struct sw_write *to, struct sw_write *w)
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
bool sw_session__overwrites(const struct sw_ask *ask)
{
    return ask->routed->route->session.concurrency == SW_CONC_LAST && ask->state_present &&
           ask->update.kind == SW_UPDATE_SET && !ask->update.has_expect && ask->alarm == NULL &&
           !ask->session.new_id && !ask->move.taken;
}

/* A state that was not there: one client must not fill the store with them. */
static bool may_make(struct sw_ask *ask)
{
    if (ask->state_present || ask->session.counted || ask->fresh == NULL) {
        return true;
    }
    ask->session.counted = ask->fresh(ask);
    return ask->session.counted;
}

enum sw_err sw_session__put_state(struct sw_ask *ask, struct sw_write *w)
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
    if (sw_session__overwrites(ask)) {
        w->expect = SW_EXPECT_EXISTS; /* whatever version: it is not looked at */
    }
    if (err == SW_OK && !may_make(ask)) {
        err = SW_E_FRESH;
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

/* ---- the cookie of a state that ends --------------------------------------------------------- */

bool sw_session__may_clear_cookie(const struct sw_ask *ask)
{
    return ask->session.from_cookie && ask->session.cookie_present;
}

enum sw_step sw_session__clear_cookie(struct sw_ask *ask)
{
    enum sw_err err;

    if (!sw_session__may_clear_cookie(ask) || ask->session.cleared) {
        return SW_STEP_DONE;
    }
    err = sw_place__set_cookie(ask, &ask->routed->route->session.cookie, ask->session.cookie_name,
                               SW_S(""), 0);
    return err == SW_OK ? SW_STEP_DONE : sw_place__fail(ask, err);
}

/* ---- at once, by the side API ---------------------------------------------------------------- */

enum sw_err sw_place__now_write(struct sw_ask *ask, bool ends, struct sw_write *w)
{
    enum sw_err err = SW_OK;

    if (!ends && !may_make(ask)) {
        return SW_E_FRESH;
    }
    ask->now_unix_s = sw_loop_now_unix_s(ask->env->loop);
    ask->update = (struct sw_update){.ttl_s = -1}; /* that of the answer is read anew */
    ask->session.new_id = false;
    *w = (struct sw_write){
        .kind = ends ? SW_WRITE_DELETE : SW_WRITE_PUT,
        .record = SW_RECORD_STATE,
        .key = ask->key,
        .expect = SW_EXPECT_VERSION,
        .version = ask->session.unreadable ? ask->session.record.version : sw_session__version(ask),
    };
    if (ends) {
        w->expires_unix_s = visitors_own(ask) ? sw_session__absolute_end(ask) : ask->now_unix_s - 1;
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
        if (sw_session__clear_cookie(ask) == SW_STEP_DONE && sw_session__may_clear_cookie(ask)) {
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
