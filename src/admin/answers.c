/* admin/answers.c - the snapshot as JSON.
 *
 * Room       admin/. Pure: out has room (sw_admin__page_bytes) or is marked as overflowed.
 * Flow       gather.c -> here -> a page; errors go into the connection's own memory.
 */
#include "admin/admin_priv.h"
#include "base/json.h"

/* ,"name": - the first one without its comma. */
static void member(struct sw_out *o, bool first, const char *name)
{
    if (!first) {
        sw_out_char(o, ',');
    }
    sw_out_char(o, '"');
    sw_out_cstr(o, name); /* ours: nothing in it wants an escape */
    sw_out_lit(o, "\":");
}

static void text(struct sw_out *o, bool first, const char *name, const char *value)
{
    member(o, first, name);
    sw_json_quote(o, sw_slice_cstr(value));
}

static void number(struct sw_out *o, bool first, const char *name, uint64_t value)
{
    member(o, first, name);
    sw_out_u64(o, value);
}

static void truth(struct sw_out *o, bool first, const char *name, bool value)
{
    member(o, first, name);
    sw_out_cstr(o, value ? "true" : "false");
}

static void instance_put(struct sw_out *o, const struct sw_admin_snapshot *s,
                         const struct sw_admin_instance *i)
{
    sw_out_char(o, '{');
    text(o, true, "name", i->name);
    member(o, false, "incarnation");
    sw_out_char(o, '"');
    sw_out_hex(o, i->incarnation, 16);
    sw_out_char(o, '"');
    text(o, false, "state", s->states[i->state]);
    member(o, false, "pid");
    sw_out_i64(o, i->pid);
    number(o, false, "in_flight", i->in_flight);
    number(o, false, "waiting", i->waiting);
    number(o, false, "sessions", i->sessions);
    number(o, false, "connections", i->connections);
    text(o, false, "address", i->address);
    number(o, false, "answered", i->answered);
    number(o, false, "failed", i->failed);
    sw_out_char(o, '}');
}

void sw_admin__apps_put(struct sw_out *out, const struct sw_admin_snapshot *s)
{
    size_t k = 0;

    sw_out_lit(out, "{\"apps\":[");
    for (size_t a = 0; a < s->app_count; a++) {
        sw_out_cstr(out, a > 0 ? ",{" : "{");
        member(out, true, "name");
        sw_json_quote(out, s->apps[a].name);
        member(out, false, "instances");
        sw_out_char(out, '[');
        for (bool first = true; k < s->instance_count && s->instances[k].app == a; k++) {
            if (!first) {
                sw_out_char(out, ',');
            }
            instance_put(out, s, &s->instances[k]);
            first = false;
        }
        sw_out_lit(out, "]}");
    }
    sw_out_lit(out, "]}\n");
    SW_ASSERT(k == s->instance_count); /* sorted by app, and each has its app */
}

static void store_put(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    if (!s->has_store) {
        sw_out_lit(o, "null");
        return;
    }
    sw_out_char(o, '{');
    text(o, true, "kind", s->store_name);
    number(o, false, "records", s->store.records);
    number(o, false, "used_bytes", s->store.bytes_used);
    number(o, false, "file_bytes", s->store.bytes_file);
    number(o, false, "map_bytes", s->store.bytes_map);
    number(o, false, "queue", s->store.queue);
    number(o, false, "commits", s->store.commits);
    number(o, false, "failures", s->store.failures);
    sw_out_char(o, '}');
}

void sw_admin__status_put(struct sw_out *out, const struct sw_admin_snapshot *s)
{
    sw_out_char(out, '{');
    text(out, true, "version", s->version);
    number(out, false, "uptime_s", s->uptime_ns / SW_NS_PER_S);
    text(out, false, "engine", s->engine);
    number(out, false, "workers", s->workers);
    truth(out, false, "ready", s->ready);
    truth(out, false, "stopping", s->stopping);
    number(out, false, "connections", s->connections_open);
    number(out, false, "exchanges_in_progress", s->exchanges_open);
    number(out, false, "tunnels", s->tunnels_open);
    member(out, false, "store");
    store_put(out, s);
    sw_out_lit(out, "}\n");
}

void sw_admin__keys_put(struct sw_out *out, const struct sw_admin_snapshot *s)
{
    sw_out_char(out, '{');
    truth(out, true, "stale", s->keys_stale);
    member(out, false, "keys");
    sw_out_char(out, '[');
    for (size_t i = 0; i < s->key_count; i++) {
        const struct sw_admin_key *k = &s->keys[i];

        sw_out_cstr(out, i > 0 ? ",{" : "{");
        number(out, true, "id", k->id);
        text(out, false, "state", sw_key_state_name(k->state));
        number(out, false, "created", (uint64_t)k->created_unix_s);
        if (k->retired_unix_s > 0) {
            number(out, false, "retired", (uint64_t)k->retired_unix_s);
        }
        if (k->state == SW_KEY_RETIRED && k->dead_unix_s != INT64_MAX) {
            number(out, false, "dead", (uint64_t)k->dead_unix_s);
        }
        number(out, false, "made", k->used.made);
        number(out, false, "opened", k->used.opened);
        number(out, false, "last_used", (uint64_t)SW_MAX(k->used.last_unix_s, 0));
        sw_out_char(out, '}');
    }
    sw_out_lit(out, "]}\n");
}

void sw_admin__error_put(struct sw_out *out, const char *error, const char *label)
{
    sw_out_char(out, '{');
    text(out, true, "error", error);
    text(out, false, "reason", label);
    sw_out_lit(out, "}\n");
}
