/* placement/session_update.c - what the app's answer asks for, whichever way it says so: in its
 * headers, in its envelope, by the side API before it. Two of them are one too many. For every
 * placement that carries a state.
 */
#include "placement/session_priv.h"

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

bool sw_session__subject_changes(const struct sw_ask *ask)
{
    struct sw_slice old =
        ask->state_present ? ask->session.record.subject : (struct sw_slice){NULL, 0};

    return ask->update.has_subject &&
           !sw_place__same_subject(ask->env->keys, ask->update.subject, old);
}

/* A new id for the visitor: at the first write, at login, at a change of subject. */
bool sw_session__takes_new_id(const struct sw_ask *ask)
{
    return ask->session.from_cookie &&
           (!ask->state_present || ask->update.renew || sw_session__subject_changes(ask));
}
