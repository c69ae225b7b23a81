/* placement/session_load.c - state: session. The record of the key, read: a state, an end, nothing.
 *
 * An unknown or expired id is never adopted: the next write makes a new one (no fixation). A
 * renewed id leads to the new record for a while (alias). A state above inline is not read, only
 * its length. With `owner: subject` the visitor's own session is read first: its subject must be
 * that of the entity. What a route of another placement kept before is found by move.c.
 *
 * Reading writes nothing until a tenth of the idle time has passed since the last touch.
 */
#include "placement/session_priv.h"

#define TOUCH_FRACTION 10

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
    /* On a session route ask->visitor is of ask->key: who was found where he was looked for is
     * hashed already. */
    bool known = ask->routed->route->placement == SW_PLACE_SESSION && ask->visitor[0] != '\0' &&
                 memcmp(&ask->key, &r->key, sizeof(r->key)) == 0;

    ask->key = r->key;
    if (visitors_own(ask)) {
        memcpy(ask->session.at_id, r->id, sizeof(r->id));
        ask->session.has_at_id = r->has_id;
        if (!known) {
            sw_place__visitor(ask, &ask->key);
            sw_place__visitor_key_text(ask);
        }
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

enum sw_step sw_session__load(struct sw_ask *ask)
{
    struct sw_reading *r = &ask->session.reading;
    enum sw_err err;

    if (!ask->has_key) {
        return session_absent(ask,
                              ask->sealed.cookie_present ? SW_VERDICT_EXPIRED : SW_VERDICT_FRESH);
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
