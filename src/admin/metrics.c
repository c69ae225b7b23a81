/* admin/metrics.c - the snapshot as Prometheus text, format 0.0.4.
 *
 * Room       admin/. Pure: out has room (sw_admin__page_bytes) or is marked as overflowed.
 * Flow       gather.c -> here -> a page.
 *
 * A family is HELP, TYPE and its samples, in one place; no series comes twice. Base units: seconds
 * and bytes. Names end in _total when they only grow. `promtool check metrics` finds nothing; the
 * names stand in docs/admin.md, and a test compares them.
 */
#include <inttypes.h>

#include "admin/admin_priv.h"

struct label {
    const char *name;
    struct sw_slice value;
};
#define LABELS(...)                                                                                \
    (const struct label[]){__VA_ARGS__}, SW_COUNTOF(((const struct label[]){__VA_ARGS__}))
#define NO_LABELS NULL, 0

static void family(struct sw_out *o, const char *name, const char *type, const char *help)
{
    sw_out_lit(o, "# HELP ");
    sw_out_cstr(o, name);
    sw_out_char(o, ' ');
    sw_out_cstr(o, help);
    sw_out_lit(o, "\n# TYPE ");
    sw_out_cstr(o, name);
    sw_out_char(o, ' ');
    sw_out_cstr(o, type);
    sw_out_char(o, '\n');
}

/* Backslash, quote and line end have escapes; nothing else has. */
static void label_value(struct sw_out *o, struct sw_slice value)
{
    for (size_t i = 0; i < value.len; i++) {
        switch (value.ptr[i]) {
        case '\\':
            sw_out_lit(o, "\\\\");
            break;
        case '"':
            sw_out_lit(o, "\\\"");
            break;
        case '\n':
            sw_out_lit(o, "\\n");
            break;
        default:
            sw_out_char(o, value.ptr[i]);
            break;
        }
    }
}

/* `name{a="x",b="y"} `: the value follows. le: of a histogram's bucket; NULL: none. */
static void series(struct sw_out *o, const char *name, const char *suffix,
                   const struct label *labels, size_t label_count, const char *le)
{
    const char *before = "{";

    sw_out_cstr(o, name);
    sw_out_cstr(o, suffix);
    for (size_t i = 0; i < label_count; i++) {
        sw_out_cstr(o, before);
        sw_out_cstr(o, labels[i].name);
        sw_out_lit(o, "=\"");
        label_value(o, labels[i].value);
        sw_out_char(o, '"');
        before = ",";
    }
    if (le != NULL) {
        sw_out_cstr(o, before);
        sw_out_lit(o, "le=\"");
        sw_out_cstr(o, le);
        sw_out_char(o, '"');
        before = ",";
    }
    if (*before == ',') {
        sw_out_char(o, '}');
    }
    sw_out_char(o, ' ');
}

static void sample(struct sw_out *o, const char *name, const struct label *labels,
                   size_t label_count, uint64_t value)
{
    series(o, name, "", labels, label_count, NULL);
    sw_out_u64(o, value);
    sw_out_char(o, '\n');
}

static void single(struct sw_out *o, const char *name, const char *type, const char *help,
                   uint64_t value)
{
    family(o, name, type, help);
    sample(o, name, NO_LABELS, value);
}

/* Decimal and exact: a double would lose nanoseconds after some weeks. */
static void seconds(struct sw_out *o, uint64_t ns)
{
    sw_out_printf(o, "%" PRIu64 ".%09" PRIu64 "\n", (uint64_t)(ns / SW_NS_PER_S),
                  (uint64_t)(ns % SW_NS_PER_S));
}

/* count buckets, of which the last one has no upper bound; bounds_s has one less. The counters are
 * read while others write them: the count is the sum of the buckets, so that they always agree. */
static void histogram(struct sw_out *o, const char *name, const struct label *labels,
                      size_t label_count, const uint64_t *buckets, const double *bounds_s,
                      size_t count, uint64_t sum_ns)
{
    uint64_t total = 0;

    SW_ASSERT(count > 0);
    for (size_t i = 0; i < count; i++) {
        char le[32] = "+Inf";

        total += buckets[i];
        if (i + 1 < count) {
            (void)snprintf(le, sizeof(le), "%.10g", bounds_s[i]);
        }
        series(o, name, "_bucket", labels, label_count, le);
        sw_out_u64(o, total);
        sw_out_char(o, '\n');
    }
    series(o, name, "_sum", labels, label_count, NULL);
    seconds(o, sum_ns);
    series(o, name, "_count", labels, label_count, NULL);
    sw_out_u64(o, total);
    sw_out_char(o, '\n');
}

/* ---- exchanges ------------------------------------------------------------------------------- */

static void exchanges(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    static const char total[] = "stateway_exchanges_total";
    static const char duration[] = "stateway_exchange_duration_seconds";
    static const char gateway[] = "stateway_gateway_duration_seconds";

    family(
        o, total, "counter",
        "Exchanges that ended, by app (empty: no route), placement, status (0: closed without an "
        "answer) and verdict on the state.");
    for (size_t i = 0; i < s->row_count; i++) {
        const struct sw_admin_row *r = &s->rows[i];
        char status[16];
        int n = snprintf(status, sizeof(status), "%u", r->status);

        SW_ASSERT(n > 0);
        sample(o, total,
               LABELS({"app", r->app}, {"placement", sw_slice_cstr(r->placement)},
                      {"status", sw_slice_of(status, (size_t)n)},
                      {"verdict", sw_slice_cstr(r->verdict)}),
               r->count);
    }
    single(o, "stateway_exchanges_unlabeled_total", "counter",
           "Exchanges that are missing in stateway_exchanges_total because its table was full.",
           s->rows_lost);
    single(o, "stateway_exchanges_in_progress", "gauge", "Exchanges that have begun and not ended.",
           s->exchanges_open);

    family(o, duration, "histogram", "From the request's complete head to the end of the answer.");
    for (size_t a = 0; a < s->app_count; a++) {
        for (size_t p = 0; p < SW_PLACE_COUNT; p++) {
            const struct sw_admin_latency *l = &s->apps[a].latency[p];

            if (l->shown) {
                histogram(o, duration,
                          LABELS({"app", s->apps[a].name},
                                 {"placement", sw_slice_cstr(s->placements[p])}),
                          l->bucket, s->latency_bounds_s, SW_COUNTOF(l->bucket), l->sum_ns);
            }
        }
    }
    family(o, gateway, "histogram",
           "The gateway's own share of an exchange: without the time the app took.");
    for (size_t p = 0; p < SW_PLACE_COUNT; p++) {
        const struct sw_admin_latency *l = &s->gateway[p];

        if (l->shown) {
            histogram(o, gateway, LABELS({"placement", sw_slice_cstr(s->placements[p])}), l->bucket,
                      s->latency_bounds_s, SW_COUNTOF(l->bucket), l->sum_ns);
        }
    }
}

/* Memory of varying size, under its limits. */
static void large(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    static const char used[] = "stateway_large_bytes";
    static const char max[] = "stateway_large_max_bytes";
    static const char refused[] = "stateway_large_refused_total";

    family(o, used, "gauge",
           "Memory in use for large states and held answers (of exchanges), and for bodies and "
           "exports (of the admin API).");
    sample(o, used, LABELS({"of", SW_S("exchanges")}), s->large_used);
    sample(o, used, LABELS({"of", SW_S("admin")}), s->admin_used);
    family(o, max, "gauge", "How much of it there may be: limits.large for exchanges.");
    sample(o, max, LABELS({"of", SW_S("exchanges")}), s->large_max);
    sample(o, max, LABELS({"of", SW_S("admin")}), s->admin_max);
    family(o, refused, "counter", "Times that there was none left.");
    sample(o, refused, LABELS({"of", SW_S("exchanges")}), s->large_refused);
    sample(o, refused, LABELS({"of", SW_S("admin")}), s->admin_refused);
}

/* What was promised for later: held answers and alarms. */
static void promises(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    static const char claims[] = "stateway_idempotency_total";
    static const char alarms[] = "stateway_alarms_total";

    family(o, claims, "counter",
           "Requests with an Idempotency-Key: run, answered from the store, or refused because the "
           "first one runs (409), asks for something else (422) or has an outcome nobody knows "
           "(409); or run without being kept, since the store could not.");
    sample(o, claims, LABELS({"outcome", SW_S("new")}), s->claims_new);
    sample(o, claims, LABELS({"outcome", SW_S("replayed")}), s->claims_replayed);
    sample(o, claims, LABELS({"outcome", SW_S("running")}), s->claims_running);
    sample(o, claims, LABELS({"outcome", SW_S("reused")}), s->claims_reused);
    sample(o, claims, LABELS({"outcome", SW_S("unknown")}), s->claims_unknown);
    sample(o, claims, LABELS({"outcome", SW_S("unkept")}), s->claims_unkept);
    family(o, alarms, "counter",
           "Deliveries of alarms: the app took it, it failed and is tried again, it was given up.");
    sample(o, alarms, LABELS({"outcome", SW_S("delivered")}), s->alarms_delivered);
    sample(o, alarms, LABELS({"outcome", SW_S("failed")}), s->alarms_failed);
    sample(o, alarms, LABELS({"outcome", SW_S("dropped")}), s->alarms_dropped);
}

static void ended(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    static const char name[] = "stateway_ended_total";
    static const struct sw_slice kinds[ADMIN_ENDED_COUNT] = {
        [ENDED_SUBJECT] = SW_S("subject"), [ENDED_SESSION] = SW_S("session"),
        [ENDED_TOKEN] = SW_S("token"),     [ENDED_SEALED] = SW_S("sealed"),
        [ENDED_PIN] = SW_S("pin"),
    };

    family(o, name, "counter", "What operators ended before its time, by kind.");
    for (size_t i = 0; i < ADMIN_ENDED_COUNT; i++) {
        sample(o, name, LABELS({"kind", kinds[i]}), s->ended[i]);
    }
}

static void traffic(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    static const char connections[] = "stateway_connections";
    static const char bytes[] = "stateway_bytes_total";
    static const char errors[] = "stateway_errors_total";

    family(o, connections, "gauge", "Connections of clients, by state.");
    sample(o, connections, LABELS({"state", SW_S("open")}), s->connections_open);
    single(o, "stateway_connections_total", "counter", "Connections of clients that were accepted.",
           s->connections_total);
    single(o, "stateway_tunnels", "gauge", "Upgraded connections (WebSockets) that are open.",
           s->tunnels_open);
    family(o, bytes, "counter", "Bytes on clients' connections, by direction as seen from here.");
    sample(o, bytes, LABELS({"direction", SW_S("in")}), s->bytes_in);
    sample(o, bytes, LABELS({"direction", SW_S("out")}), s->bytes_out);

    single(o, "stateway_retries_total", "counter",
           "Requests that were sent to another instance after one failed.", s->retries);
    single(o, "stateway_retries_refused_total", "counter",
           "Repeats that the retry budget did not allow.", s->retries_refused);
    single(o, "stateway_reruns_total", "counter",
           "Requests that were run again because another commit came first.", s->reruns);
    single(o, "stateway_key_queue_waits_total", "counter",
           "Exchanges that waited for an earlier one of the same key.", s->queue_waits);
    single(o, "stateway_pins_lost_total", "counter",
           "Visitors whose instance had ended, and their state with it.", s->pins_lost);
    single(o, "stateway_commits_total", "counter", "Updates of states that became durable.",
           s->commits);

    single(o, "stateway_reentries_total", "counter",
           "Requests for a state by an app that held that very state: 423.", s->reentries);
    single(o, "stateway_states_by_reference_total", "counter",
           "States handed to the app by reference, because a header could not hold them.",
           s->by_ref);
    single(o, "stateway_side_writes_total", "counter", "Writes of apps by the side API.",
           s->stages);
    large(o, s);
    promises(o, s);
    ended(o, s);

    family(o, errors, "counter",
           "Errors of exchanges and connections, by reason (docs/errors.md).");
    for (size_t e = 1; e < SW_E_COUNT; e++) { /* 0 is "no error" */
        sample(o, errors, LABELS({"reason", sw_slice_cstr(s->error_labels[e])}), s->errors[e]);
    }
    single(o, "stateway_access_log_dropped_total", "counter",
           "Lines of the access log that were dropped because its reader was too slow.",
           s->log_dropped);
}

/* ---- keys of issuers, tokens ------------------------------------------------------------------
 */

static void keyset_family(struct sw_out *o, const struct sw_admin_snapshot *s, const char *name,
                          const char *type, const char *help,
                          uint64_t (*value)(const struct sw_keyset_stats *k))
{
    family(o, name, type, help);
    for (size_t i = 0; i < s->keyset_count; i++) {
        sample(o, name, LABELS({"source", s->keysets[i].source}), value(&s->keysets[i]));
    }
}

static uint64_t keyset_fetches(const struct sw_keyset_stats *k)
{
    return k->fetches;
}

static uint64_t keyset_failures(const struct sw_keyset_stats *k)
{
    return k->failures;
}

static uint64_t keyset_refused(const struct sw_keyset_stats *k)
{
    return k->refused;
}

static uint64_t keyset_good(const struct sw_keyset_stats *k)
{
    return (uint64_t)k->good_unix_s;
}

static void keysets(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    static const char keys[] = "stateway_keyset_keys";

    if (s->keyset_count > 0) {
        keyset_family(o, s, "stateway_keyset_fetches_total", "counter",
                      "Times a key set was fetched, or its file was read.", keyset_fetches);
        keyset_family(o, s, "stateway_keyset_failures_total", "counter",
                      "Those that failed; the last good set stands.", keyset_failures);
        keyset_family(o, s, "stateway_keyset_refused_total", "counter",
                      "Tokens with an unknown key id for which nothing was fetched: too soon.",
                      keyset_refused);
        keyset_family(o, s, "stateway_keyset_good_time_seconds", "gauge",
                      "When a key set was last read well, in unix time; 0: never.", keyset_good);
        family(o, keys, "gauge", "Keys in use: of the set, and taken out of it but still kept.");
        for (size_t i = 0; i < s->keyset_count; i++) {
            const struct sw_keyset_stats *k = &s->keysets[i];

            sample(o, keys, LABELS({"source", k->source}, {"state", SW_S("current")}), k->keys);
            sample(o, keys, LABELS({"source", k->source}, {"state", SW_S("kept")}), k->kept);
        }
    }
    single(o, "stateway_token_cache_hits_total", "counter",
           "Tokens whose signature was verified before.", s->tokens.hits);
    single(o, "stateway_token_cache_misses_total", "counter",
           "Tokens whose signature had to be verified.", s->tokens.misses);
    single(o, "stateway_token_cache_evictions_total", "counter",
           "Verified tokens that were forgotten before they expired: there were too many.",
           s->tokens.evictions);
}

/* ---- instances ------------------------------------------------------------------------------- */

enum instance_value { IN_FLIGHT, SESSIONS, CONNECTIONS, WAITING, ANSWERED, FAILED };

static uint64_t instance_value(const struct sw_admin_instance *i, enum instance_value which)
{
    switch (which) {
    case IN_FLIGHT:
        return i->in_flight;
    case SESSIONS:
        return i->sessions;
    case CONNECTIONS:
        return i->connections;
    case WAITING:
        return i->waiting;
    case ANSWERED:
        return i->answered;
    case FAILED:
        return i->failed;
    }
    SW_UNREACHABLE();
}

/* While an instance is rolled, its slot has two incarnations, and both have its name: they are
 * added up. The incarnation is no label, so that a series goes on through a restart. */
static void per_instance(struct sw_out *o, const struct sw_admin_snapshot *s,
                         enum instance_value which, const char *name, const char *type,
                         const char *help)
{
    family(o, name, type, help);
    for (size_t k = 0; k < s->instance_count;) {
        const struct sw_admin_instance *i = &s->instances[k];
        uint64_t sum = 0;

        SW_ASSERT(i->app < s->app_count);
        for (; k < s->instance_count && s->instances[k].app == i->app &&
               s->instances[k].slot == i->slot;
             k++) {
            sum += instance_value(&s->instances[k], which);
        }
        sample(o, name, LABELS({"app", s->apps[i->app].name}, {"instance", sw_slice_cstr(i->name)}),
               sum);
    }
}

static void instances(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    static const char count[] = "stateway_instances";
    uint32_t states[SW_APPS_MAX][SW_INSTANCE_STATE_COUNT] = {{0}};

    for (size_t k = 0; k < s->instance_count; k++) {
        SW_ASSERT(s->instances[k].app < SW_APPS_MAX);
        SW_ASSERT(s->instances[k].state < SW_INSTANCE_STATE_COUNT);
        states[s->instances[k].app][s->instances[k].state]++;
    }
    family(o, count, "gauge", "Instances of an app, by state.");
    for (size_t a = 0; a < s->app_count; a++) {
        for (size_t n = SW_INSTANCE_NONE + 1; n < SW_INSTANCE_STATE_COUNT; n++) {
            sample(o, count,
                   LABELS({"app", s->apps[a].name}, {"state", sw_slice_cstr(s->states[n])}),
                   states[a][n]);
        }
    }
    per_instance(o, s, IN_FLIGHT, "stateway_instance_in_flight", "gauge",
                 "Exchanges that run on an instance.");
    per_instance(
        o, s, SESSIONS, "stateway_instance_sessions", "gauge",
        "Visitors who are pinned to an instance; at least so many when the ledger is full.");
    per_instance(o, s, CONNECTIONS, "stateway_instance_connections", "gauge",
                 "Connections to an instance, in use and idle.");
    per_instance(o, s, WAITING, "stateway_instance_waiting", "gauge",
                 "Exchanges that wait for a connection to an instance.");
    per_instance(o, s, ANSWERED, "stateway_instance_answers_total", "counter",
                 "Exchanges an instance answered in order; from 0 with each incarnation.");
    per_instance(o, s, FAILED, "stateway_instance_failures_total", "counter",
                 "Exchanges in which an instance failed; from 0 with each incarnation.");
}

/* ---- store ----------------------------------------------------------------------------------- */

/* Bucket i counts commits that took less than 2^i * 10 us. The last one also has those that took
 * longer, so its bound is not told. */
static void store_commits(struct sw_out *o, const struct sw_store_stats *t)
{
    static const char name[] = "stateway_store_commit_duration_seconds";
    double bounds_s[SW_STORE_HIST_BUCKETS - 1];

    for (size_t i = 0; i < SW_COUNTOF(bounds_s); i++) {
        bounds_s[i] = (double)(10ull << i) / 1e6;
    }
    family(o, name, "histogram", "From asking for a commit until it was durable.");
    histogram(o, name, NO_LABELS, t->commit_hist, bounds_s, SW_STORE_HIST_BUCKETS,
              t->commit_ns_total);
}

static void store(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    static const char due[] = "stateway_alarm_next_time_seconds";
    const struct sw_store_stats *t = &s->store;

    if (!s->has_store) {
        return;
    }
    single(o, "stateway_store_records", "gauge",
           "Records in the store: states, tombstones, aliases, idempotency keys.", t->records);
    single(o, "stateway_store_used_bytes", "gauge", "Of the store's file, what holds something.",
           t->bytes_used);
    single(o, "stateway_store_file_bytes", "gauge", "Size of the store's file.", t->bytes_file);
    single(o, "stateway_store_map_bytes", "gauge",
           "How large the store's file may grow (limits.store).", t->bytes_map);
    single(o, "stateway_store_queue", "gauge", "Commits that wait for the committer.", t->queue);
    single(o, "stateway_store_loads_total", "counter", "States that were looked up.", t->loads);
    single(o, "stateway_store_commits_total", "counter", "Commits the store made.", t->commits);
    single(o, "stateway_store_writes_total", "counter", "Records those commits wrote.", t->writes);
    single(o, "stateway_store_conflicts_total", "counter",
           "Commits refused because the state was not what they expected.", t->conflicts);
    single(o, "stateway_store_failures_total", "counter",
           "Commits that failed: disk full, disk error, queue full.", t->failures);
    single(o, "stateway_store_expired_total", "counter",
           "Records removed because their time was up.", t->expired);
    single(o, "stateway_store_syncs_total", "counter",
           "Times the file was made durable; fewer than commits, since one sync serves a batch.",
           t->syncs);
    store_commits(o, t);
    family(o, due, "gauge", "When the next alarm is due, in unix time; 0: none is set.");
    series(o, due, "", NO_LABELS, NULL);
    sw_out_printf(o, "%.3f\n", s->alarm_next_unix_s);
}

/* ---- the key ring ---------------------------------------------------------------------------- */

static void ring(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    static const char state[] = "stateway_keys";
    static const char uses[] = "stateway_key_uses_total";
    static const char last[] = "stateway_key_last_used_time_seconds";
    uint64_t states[SW_KEY_RETIRED + 1] = {0};
    char id[SW_KEYS_MAX][16];

    SW_ASSERT(s->key_count <= SW_KEYS_MAX);
    for (size_t i = 0; i < s->key_count; i++) {
        states[s->keys[i].state]++;
        (void)snprintf(id[i], sizeof(id[i]), "%" PRIu32, s->keys[i].id);
    }
    family(o, state, "gauge", "Keys of the ring, by state.");
    for (size_t n = 0; n < SW_COUNTOF(states); n++) {
        sample(o, state, LABELS({"state", sw_slice_cstr(sw_key_state_name((enum sw_key_state)n))}),
               states[n]);
    }
    family(o, uses, "counter",
           "Cookies and tokens that were made with a key, or opened: verified or decrypted.");
    for (size_t i = 0; i < s->key_count; i++) {
        sample(o, uses, LABELS({"key", sw_slice_cstr(id[i])}, {"use", SW_S("make")}),
               s->keys[i].used.made);
        sample(o, uses, LABELS({"key", sw_slice_cstr(id[i])}, {"use", SW_S("open")}),
               s->keys[i].used.opened);
    }
    family(o, last, "gauge", "When a key was used last, in unix time; 0: not since the start.");
    for (size_t i = 0; i < s->key_count; i++) {
        sample(o, last, LABELS({"key", sw_slice_cstr(id[i])}),
               (uint64_t)SW_MAX(s->keys[i].used.last_unix_s, 0));
    }
    single(o, "stateway_keys_stale", "gauge",
           "1: the file of keys has changed and cannot be read; those of before are in use.",
           s->keys_stale ? 1 : 0);
}

/* ---- loops and the process ------------------------------------------------------------------- */

static uint64_t loop_value(const struct sw_loop_stats *l, size_t at, bool wide)
{
    uint64_t v64;
    uint32_t v32;

    if (wide) {
        memcpy(&v64, (const char *)l + at, sizeof(v64));
        return v64;
    }
    memcpy(&v32, (const char *)l + at, sizeof(v32));
    return v32;
}

static void loops(struct sw_out *o, const struct sw_admin_snapshot *s)
{
#define WIDE(f)   offsetof(struct sw_loop_stats, f), true
#define NARROW(f) offsetof(struct sw_loop_stats, f), false
    static const struct {
        const char *name;
        size_t at;
        bool wide; /* uint64_t: these are counters; else uint32_t: gauges */
        const char *help;
    } values[] = {
        {"stateway_loop_turns_total", WIDE(turns), "Turns of an event loop."},
        {"stateway_loop_accepts_total", WIDE(accepts), "Connections it accepted."},
        {"stateway_loop_receives_total", WIDE(recvs), "Times it received bytes."},
        {"stateway_loop_sends_total", WIDE(sends), "Times it sent bytes."},
        {"stateway_loop_posts_total", WIDE(posts), "Messages it got from other threads."},
        {"stateway_loop_accept_waits_total", WIDE(accept_waits),
         "Times a listener waited for a free slot or a file descriptor."},
        {"stateway_loop_streams", NARROW(streams), "Connections of a loop, of both sides."},
        {"stateway_loop_streams_max", NARROW(streams_max), "Its budget of connections."},
        {"stateway_loop_buffers", NARROW(buffers), "Buffers in use, of 16 KiB."},
        {"stateway_loop_buffers_max", NARROW(buffers_max), "Its budget of buffers."},
        {"stateway_loop_large_buffers", NARROW(large), "Large buffers in use, for long heads."},
        {"stateway_loop_large_buffers_max", NARROW(large_max), "Its budget of large buffers."},
        {"stateway_loop_pieces", NARROW(pieces), "Pieces of bytes that wait to be sent."},
        {"stateway_loop_pieces_max", NARROW(pieces_max), "Its budget of pieces."},
    };
#undef WIDE
#undef NARROW

    for (size_t v = 0; v < SW_COUNTOF(values); v++) {
        family(o, values[v].name, values[v].wide ? "counter" : "gauge", values[v].help);
        for (size_t k = 0; k < s->loop_count; k++) {
            sample(o, values[v].name, LABELS({"worker", sw_slice_cstr(s->loops[k].worker)}),
                   loop_value(&s->loops[k].stats, values[v].at, values[v].wide));
        }
    }
}

static void process(struct sw_out *o, const struct sw_admin_snapshot *s)
{
    static const char info[] = "stateway_build_info";
    static const char cpu[] = "process_cpu_seconds_total";
    static const char start[] = "process_start_time_seconds";
    const struct sw_admin_process *p = &s->process;

    family(o, info, "gauge", "Always 1; the labels tell what runs.");
    sample(o, info,
           LABELS({"version", sw_slice_cstr(s->version)}, {"engine", sw_slice_cstr(s->engine)}), 1);
    single(o, "stateway_ready", "gauge", "1: /readyz says yes.", s->ready && !s->stopping ? 1 : 0);
    single(o, "stateway_workers", "gauge", "Worker threads.", s->workers);

    family(o, cpu, "counter", "User and system time of the gateway process.");
    series(o, cpu, "", NO_LABELS, NULL);
    sw_out_printf(o, "%" PRIu64 ".%06" PRIu64 "\n", p->cpu_us / 1000000u, p->cpu_us % 1000000u);
    single(o, "process_resident_memory_bytes", "gauge",
           "Memory of the gateway process that is in RAM.", p->resident_bytes);
    single(o, "process_virtual_memory_bytes", "gauge",
           "Its address space: budgets and the store's map, mostly untouched.", p->virtual_bytes);
    single(o, "process_open_fds", "gauge", "Open file descriptors.", p->fds_open);
    single(o, "process_max_fds", "gauge", "How many there may be.", p->fds_max);
    family(o, start, "gauge", "When the gateway process began, in unix time.");
    series(o, start, "", NO_LABELS, NULL);
    sw_out_printf(o, "%.3f\n", p->start_unix_s);
}

void sw_admin__metrics_put(struct sw_out *out, const struct sw_admin_snapshot *s)
{
    SW_ASSERT(s->app_count <= SW_APPS_MAX);
    exchanges(out, s);
    traffic(out, s);
    instances(out, s);
    store(out, s);
    ring(out, s);
    keysets(out, s);
    loops(out, s);
    process(out, s);
}

/* Lines as long as they can be: names of 64 bytes in two labels, numbers of 20 digits. */
#define LINE_BYTES          256u
#define HISTOGRAM_LINES     (SW_LATENCY_BUCKETS + 3u)
#define INSTANCE_LINES      6u
#define INSTANCE_JSON_BYTES 1280u /* an address of 128 bytes may be six times that when escaped */
#define LOOP_LINES          14u
#define KEYSET_LINES        6u
#define KEYSET_LINE_BYTES   768u /* a source of 256 bytes, which may all be escaped */

size_t sw_admin__page_bytes(size_t apps, size_t loop_count, size_t instance_count)
{
    return (size_t)KEYSET_LINE_BYTES * KEYSET_LINES * SW_KEYSETS_MAX +
           32u * 1024u                           /* HELP and TYPE, totals, store */
           + (size_t)LINE_BYTES * SW_E_COUNT     /* errors */
           + (size_t)LINE_BYTES * (4 + 3 * SW_KEYS_MAX) /* keys */
           + (size_t)LINE_BYTES * ADMIN_ROWS_MAX /* exchanges_total */
           + (size_t)LINE_BYTES * HISTOGRAM_LINES * SW_PLACE_COUNT * (apps + 1) /* durations */
           + (size_t)LINE_BYTES * SW_INSTANCE_STATE_COUNT * apps /* instances by state */
           + (size_t)LINE_BYTES * LOOP_LINES * loop_count +
           SW_MAX((size_t)LINE_BYTES * INSTANCE_LINES, (size_t)INSTANCE_JSON_BYTES) *
               instance_count +
           (size_t)LINE_BYTES * apps; /* JSON around the instances */
}
