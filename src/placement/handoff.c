/* placement/handoff.c - what an instance is told: the Stateway lines of a request to it.
 *
 * Three situations are told apart: a state inline, no state, no key at all. A state is never sent
 * in part (the state protocol, 2.1). They are added after hop-by-hop removal, so that no client can
 * name them away in Connection.
 */
#include "placement/placement_priv.h"

static void put_line(struct sw_out *out, const char *name, struct sw_slice value)
{
    sw_out_cstr(out, name);
    sw_out_lit(out, ": ");
    sw_out_slice(out, value);
    sw_out_lit(out, "\r\n");
}

static void put_state(struct sw_out *out, const struct sw_ask *ask, uint64_t deadline_ms)
{
    if (ask->key_text.len > 0) {
        put_line(out, "Stateway-Key", ask->key_text);
    }
    sw_out_lit(out, "Stateway-Version: ");
    sw_version_put(out, ask->state_present ? ask->version : (struct sw_version){0, 0});
    sw_out_lit(out, "\r\n");
    if (ask->state_present) {
        put_line(out, "Stateway-State", ask->state);
        sw_out_lit(out, "Stateway-State-Info: inline;type=json;size=");
        sw_out_u64(out, ask->state.len);
        sw_out_lit(out, "\r\n");
    } else {
        sw_out_lit(out, "Stateway-State-Info: absent\r\n");
    }
    put_line(out, "Stateway-Mode", ask->shared ? SW_S("shared") : SW_S("exclusive"));
    sw_out_lit(out, "Stateway-Deadline: ");
    sw_out_u64(out, deadline_ms);
    sw_out_lit(out, "\r\n");
}

bool sw_handoff_put(struct sw_out *out, const struct sw_ask *ask, uint64_t deadline_ms)
{
    SW_ASSERT(ask->instance != NULL);
    if (ask->routed->route->placement == SW_PLACE_SESSION) {
        put_state(out, ask, deadline_ms);
    }
    put_line(out, "Stateway-Verdict", sw_slice_cstr(sw_verdict_name(ask->app_verdict)));
    if (ask->visitor[0] != '\0') {
        put_line(out, "Stateway-Visitor", sw_slice_cstr(ask->visitor));
    }
    put_line(out, "Stateway-Instance", sw_slice_cstr(ask->instance->name));
    return !out->overflowed;
}
