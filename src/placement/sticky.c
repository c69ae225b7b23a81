/* placement/sticky.c - state: sticky. The state is in an instance's memory; the client carries a
 * pin to that incarnation.
 *
 * A pin that names an incarnation which ended is a loss: the route's on-loss chooses between a new
 * pin (repin), a new pin and telling the app (notify), and an honest 503 (fail). It is counted in
 * each case. The cookie is sent only when it changes: a new pin, or one whose `seen` time is older
 * than a tenth of the idle limit.
 *
 * A pin that was ended by an operator is as if it were not there, and told as `revoked`. The store
 * is asked only for pins that were made before the last one was ended.
 */
#include "placement/placement_priv.h"

#define SEEN_FRACTION 10

/* What a pin is worth something for: one app, and one cookie of it. */
static struct sw_slice sticky_service(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;

    return sw_arena_printf(ask->arena, "%.*s %.*s",
                           SW_SARG(ask->env->config->apps[route->app].name),
                           SW_SARG(route->sticky.cookie.name));
}

static enum sw_step sticky_judged(struct sw_ask *ask, enum sw_verdict verdict)
{
    ask->verdict = ask->app_verdict = verdict;
    return SW_STEP_DONE;
}

/* The store has answered whether there is a note that ends this pin. */
static enum sw_step sticky_noted(struct sw_ask *ask)
{
    const struct sw_store_load *note = ask->sticky.note;
    bool found = note->err == SW_OK && note->record.kind == SW_RECORD_TOMBSTONE;

    ask->sticky.note = NULL;
    if (note->err != SW_OK && note->err != SW_E_NOT_FOUND) {
        return sw_place__fail(ask, note->err); /* who is in doubt is not let in */
    }
    ask->sticky.valid = !found;
    return sticky_judged(ask, found ? SW_VERDICT_REVOKED : SW_VERDICT_KEPT);
}

static void sticky_wake(struct sw_store_load *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

static enum sw_step sticky_note_read(struct sw_ask *ask)
{
    struct sw_store_load *note = sw_arena_new(ask->arena, struct sw_store_load);

    if (note == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    *note = (struct sw_store_load){
        .now_unix_s = ask->now_unix_s,
        .arena = ask->arena,
        .loop = ask->env->loop,
        .done = sticky_wake,
        .arg = ask,
    };
    sw_revoke_pin_key(ask->sticky.pin_id, &note->key);
    ask->sticky.note = note;
    return sw_store_load(ask->env->store, note) == SW_STEP_MORE ? SW_STEP_MORE : sticky_noted(ask);
}

static enum sw_step sticky_load(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    enum sw_verdict verdict = SW_VERDICT_FRESH;
    struct sw_cookie_found found;
    struct sw_pin pin;

    if (ask->sticky.note != NULL) {
        return sticky_noted(ask);
    }
    ask->sticky.cookie_name = sw_place__cookie_name(ask, &route->sticky.cookie);
    ask->sticky.service = sticky_service(ask);
    if (ask->sticky.cookie_name.ptr == NULL || ask->sticky.service.ptr == NULL) {
        return sw_place__fail(ask, SW_E_NO_MEMORY);
    }
    found = sw_cookie_find(ask->request, ask->sticky.cookie_name);
    if (found.count > 0) {
        switch (sw_pin_read(found.value, ask->env->keys, ask->sticky.service, ask->now_unix_s,
                            route->sticky.idle_s, route->sticky.absolute_s, &pin)) {
        case SW_OK:
            ask->sticky.valid = true;
            ask->sticky.pin_id = pin.id;
            ask->sticky.key_id = pin.key_id;
            ask->sticky.incarnation = pin.incarnation;
            ask->sticky.issued_unix_s = pin.issued_unix_s;
            ask->sticky.seen_unix_s = pin.seen_unix_s;
            ask->sticky.epoch = pin.epoch;
            verdict = SW_VERDICT_KEPT;
            if (sw_revoke_pin_asked(ask->env, &pin)) {
                return sticky_note_read(ask);
            }
            break;
        case SW_E_PIN_EXPIRED:
            verdict = SW_VERDICT_EXPIRED;
            break;
        default: /* forged: as if there were none */
            break;
        }
    }
    return sticky_judged(ask, verdict);
}

/* The pinned incarnation cannot answer: the route says what that means. */
static enum sw_step sticky_lost(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;

    ask->sticky.lost = true;
    ask->verdict = SW_VERDICT_LOST;
    switch (route->sticky.on_loss) {
    case SW_ON_LOSS_FAIL:
        ask->app_verdict = SW_VERDICT_LOST;
        ask->drops_cookie = true; /* told once; the next visit begins anew */
        if (sw_place__set_cookie(ask, &route->sticky.cookie, ask->sticky.cookie_name, SW_S(""),
                                 0) != SW_OK) {
            return sw_place__fail(ask, SW_E_NO_MEMORY);
        }
        return sw_place__fail(ask, SW_E_STATE_LOST);
    case SW_ON_LOSS_REPIN:
        ask->app_verdict = SW_VERDICT_FRESH;
        break;
    case SW_ON_LOSS_NOTIFY:
        ask->app_verdict = SW_VERDICT_LOST;
        break;
    }
    return sw_place__pick_any(ask, true);
}

/* The pinned instance failed in this exchange: is it there all the same? */
static bool sticky_lives(const struct sw_ask *ask)
{
    bool gone = false;
    struct sw_instance *i =
        sw_app_find(ask->env->apps, ask->routed->route->app, ask->sticky.incarnation, &gone);

    if (i != NULL) {
        sw_instance_done_quiet(i);
    }
    return i != NULL || ask->tried_lives;
}

static enum sw_step sticky_pick(struct sw_ask *ask)
{
    bool gone = false;

    if (!ask->sticky.valid || ask->sticky.lost) {
        return sw_place__pick_any(ask, true);
    }
    if (ask->tried.tried_count == 0) { /* a first try: on the pinned one, or nowhere */
        ask->instance =
            sw_app_find(ask->env->apps, ask->routed->route->app, ask->sticky.incarnation, &gone);
        if (ask->instance != NULL) {
            return SW_STEP_DONE;
        }
        if (!gone && (ask->patience || ask->routed->route->sticky.on_loss == SW_ON_LOSS_FAIL)) {
            ask->worth_waiting = true; /* unhealthy for a moment, or a gateway that just began */
            return sw_place__fail(ask, SW_E_NO_INSTANCE);
        }
    } else if (sticky_lives(ask)) { /* its visitors' states are still there: no loss */
        ask->worth_waiting = !ask->tried_lives && ask->patience; /* or its end is not known yet */
        return sw_place__fail(ask, SW_E_NO_INSTANCE);
    }
    return sticky_lost(ask);
}

static enum sw_step sticky_commit(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    bool fresh = !ask->sticky.valid || ask->sticky.lost;
    struct sw_pin pin = {
        .epoch = ask->sticky.epoch + (ask->sticky.lost ? 1 : 0),
        .id = ask->sticky.pin_id,
        .incarnation = ask->instance->incarnation,
        .issued_unix_s = ask->sticky.issued_unix_s,
        .seen_unix_s = ask->now_unix_s,
    };
    char text[SW_PIN_TEXT_MAX];
    struct sw_out out = sw_out_init(text, sizeof(text));
    enum sw_err err;

    if (fresh) {
        sw_random(&pin.id, sizeof(pin.id));
        pin.issued_unix_s = ask->now_unix_s;
    }
    sw_ledger_seen(ask->env->apps, ask->instance, pin.id, ask->now_unix_s, route->sticky.idle_s);
    if (!fresh && ask->sticky.key_id == ask->env->keys->keys[ask->env->keys->active].id &&
        ask->now_unix_s - ask->sticky.seen_unix_s <
            SW_MAX(route->sticky.idle_s / SEEN_FRACTION, 1)) {
        return SW_STEP_DONE; /* unchanged: no Set-Cookie */
    }
    if (!sw_pin_put(&out, ask->env->keys, ask->sticky.service, &pin)) {
        SW_UNREACHABLE(); /* the text has the size of a pin */
    }
    err = sw_place__set_cookie(ask, &route->sticky.cookie, ask->sticky.cookie_name,
                               sw_out_done(&out), -1);
    return err == SW_OK ? SW_STEP_DONE : sw_place__fail(ask, err);
}

const struct sw_placement sw_placement__sticky = {"sticky", sticky_load, sticky_pick,
                                                  sticky_commit};
