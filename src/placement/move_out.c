/* placement/move_out.c - from a session to what the client carries (move.c).
 *
 * The session placement has answered, and its commit is durable. What the store has now is what is
 * given out, so it is read again.
 */
#include "placement/placement_priv.h"

static void session_read_begin(struct sw_ask *ask)
{
    const uint8_t *id = ask->session.has_at_id ? ask->session.at_id : NULL;
    struct sw_store_key key = ask->key;

    if (ask->session.new_id) {
        id = ask->session.fresh_id;
        sw_sha256(sw_slice_of(id, sizeof(ask->session.fresh_id)), key.bytes);
    }
    sw_place__read_begin(&ask->session.reading, &key, id, SW_READING_WHOLE, SW_SEALED_BYTES_MAX);
}

enum sw_step sw_place__move_out(struct sw_ask *ask)
{
    if (!ask->move.reading) {
        if (!ask->state_present || ask->verdict == SW_VERDICT_REVOKED || !sw_place__commits(ask)) {
            return SW_STEP_DONE;
        }
        session_read_begin(ask);
        ask->move.reading = true;
    }
    return sw_place__read(ask, &ask->session.reading);
}

bool sw_place__moved_out(struct sw_ask *ask)
{
    const struct sw_reading *r = &ask->session.reading;
    const struct sw_record *record = &r->record;

    if (!ask->move.reading || r->err != SW_OK || record->kind != SW_RECORD_STATE ||
        record->value.ptr == NULL) {
        return false;
    }
    ask->move.what = (struct sw_moved){
        .state = record->value,
        .subject = record->subject,
        .bound_unix_ms = record->bound_unix_ms,
        .end_unix_s = record->absolute_unix_s,
        .key = r->key,
        .key_end_unix_s = record->absolute_unix_s > 0
                              ? record->absolute_unix_s + SW_SEALED_SKEW_S
                              : ask->now_unix_s + ask->routed->route->session.absolute_s,
    };
    return true;
}

enum sw_err sw_place__session_beside(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    struct sw_cookie_found found;

    ask->session.cookie_name = sw_place__cookie_name(ask, &route->session.cookie);
    if (ask->session.cookie_name.ptr == NULL) {
        return SW_E_NO_MEMORY;
    }
    found = sw_cookie_find(ask->request, ask->session.cookie_name);
    ask->session.cookie_present = ask->move.beside = found.count > 0;
    ask->move.note_gone = found.count == 0 || sw_b64url_exact(found.value, ask->session.id,
                                                              sizeof(ask->session.id)) != SW_OK;
    if (!ask->move.note_gone) {
        sw_sha256(sw_slice_of(ask->session.id, sizeof(ask->session.id)), ask->move.what.key.bytes);
        ask->move.what.key_end_unix_s = ask->now_unix_s + route->session.absolute_s;
    }
    return SW_OK;
}
