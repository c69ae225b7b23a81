/* placement/handoff.c - what an instance is told: the Stateway lines of a request to it.
 *
 * Told apart are: a state inline, a state that is handed over by reference (too large, or the
 * instance takes no such header), no state. A state is never sent in part (the state
 * protocol, 2.1). They are added after hop-by-hop removal, so that no client can name them away in
 * Connection.
 */
#include "placement/placement_priv.h"

static inline void put_line(struct sw_out *out, const char *name, struct sw_slice value)
{
    sw_out_cstr(out, name);
    sw_out_lit(out, ": ");
    sw_out_slice(out, value);
    sw_out_lit(out, "\r\n");
}

static void put_info(struct sw_out *out, const struct sw_ask *ask, bool by_ref)
{
    sw_out_lit(out, "Stateway-State-Info: ");
    sw_out_cstr(out, by_ref ? "ref" : "inline");
    sw_out_lit(out, ";type=json;size=");
    sw_out_u64(out, ask->state.len);
    sw_out_lit(out, "\r\n");
}

static void put_state(struct sw_out *out, const struct sw_ask *ask, uint64_t deadline_ms)
{
    bool by_ref = ask->state_present && (ask->by_ref || ask->state.ptr == NULL);

    if (ask->key_text.len > 0) {
        put_line(out, "Stateway-Key", ask->key_text);
    }
    sw_out_lit(out, "Stateway-Version: ");
    sw_version_put(out, ask->state_present ? ask->version : (struct sw_version){0, 0});
    sw_out_lit(out, "\r\n");
    if (!ask->state_present) {
        sw_out_lit(out, "Stateway-State-Info: absent\r\n");
    } else {
        if (!by_ref) {
            put_line(out, "Stateway-State", ask->state);
        }
        put_info(out, ask, by_ref);
    }
    if (ask->ref_url.len > 0) {
        put_line(out, "Stateway-Ref", ask->ref_url);
    }
    put_line(out, "Stateway-Mode", ask->shared ? SW_S("shared") : SW_S("exclusive"));
    sw_out_lit(out, "Stateway-Deadline: ");
    sw_out_u64(out, deadline_ms);
    sw_out_lit(out, "\r\n");
}

/* A string of RFC 9651, 3.3.3: quote and backslash are escaped, nothing else is there to be. */
static void put_string(struct sw_out *out, struct sw_slice text)
{
    sw_out_char(out, '"');
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '"' || text.ptr[i] == '\\') {
            sw_out_char(out, '\\');
        }
        sw_out_char(out, text.ptr[i]);
    }
    sw_out_char(out, '"');
}

static void put_alarm(struct sw_out *out, const struct sw_alarm *a)
{
    sw_out_lit(out, "Stateway-Alarm: id=");
    sw_out_slice(out, a->id);
    sw_out_lit(out, ";attempt=");
    sw_out_u64(out, (uint64_t)a->attempt + 1);
    if (a->data.len > 0) {
        sw_out_lit(out, ";data=");
        put_string(out, a->data);
    }
    sw_out_lit(out, "\r\n");
}

bool sw_handoff_put(struct sw_out *out, const struct sw_ask *ask, uint64_t deadline_ms)
{
    enum sw_placement_kind placement = ask->routed->route->placement;

    SW_ASSERT(ask->instance != NULL);
    if (placement == SW_PLACE_SESSION || placement == SW_PLACE_TOKEN ||
        placement == SW_PLACE_SEALED) {
        put_state(out, ask, deadline_ms);
    }
    sw_out_slice(out, ask->token.lines); /* chosen claims; the client's own are taken out */
    put_line(out, "Stateway-Verdict", sw_slice_cstr(sw_verdict_name(ask->app_verdict)));
    if (ask->visitor[0] != '\0') {
        put_line(out, "Stateway-Visitor", sw_slice_cstr(ask->visitor));
    }
    put_line(out, "Stateway-Instance", sw_slice_cstr(ask->instance->name));
    if (ask->trace.len > 0) {
        put_line(out, "Stateway-Trace", ask->trace);
    }
    if (ask->claim_attempt > 0) {
        sw_out_lit(out, "Stateway-Idempotency: attempt=");
        sw_out_u64(out, ask->claim_attempt);
        sw_out_lit(out, "\r\n");
    }
    if (ask->alarm != NULL) {
        put_alarm(out, ask->alarm);
    }
    return !out->overflowed;
}
