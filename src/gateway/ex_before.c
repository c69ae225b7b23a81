/* gateway/ex_before.c - the exchange before an app has it: ROUTE, TOKEN, ADMIT, LOAD, PICK.
 */
#include "gateway/gateway_priv.h"

/* For the end of an instance that failed to become known here. */
#define LEARN_NS      (300 * SW_NS_PER_MS)
#define PICK_AGAIN_NS (10 * SW_NS_PER_MS) /* while an instance is starting */

static bool forwarded_https(const struct sw_head *h)
{
    const struct sw_field *f = sw_head_find(h, SW_FIELD_X_FORWARDED_PROTO);

    if (f != NULL) {
        return sw_slice_eq_nocase(f->value, SW_S("https"));
    }
    f = sw_head_find(h, SW_FIELD_FORWARDED);
    return f != NULL && sw_slice_find_slice(f->value, SW_S("proto=https")) < f->value.len;
}

static void on_wake(struct sw_ask *ask)
{
    struct sw_exchange *x = SW_CONTAINER(ask, struct sw_exchange, ask);

    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT(x->ask_pending);
    x->ask_pending = false;
    sw_ex__run(x);
}

void sw_ex__ask_init(struct sw_exchange *x)
{
    struct sw_worker *w = x->worker;

    memset(&x->ask, 0, sizeof(x->ask));
    x->ask.env = &w->env;
    x->ask.placement = sw_placement_of(x->routed.route->placement);
    x->ask.routed = &x->routed;
    x->ask.request = &x->request;
    x->ask.arena = &x->arena;
    x->ask.now_unix_s = sw_loop_now_unix_s(w->loop);
    x->ask.wake = on_wake;
    x->ask.line = sw_ex__line;
    x->ask.fresh = sw_ex__fresh;
    x->ask.claim_attempt = x->claim.live ? x->claim.attempt : 0;
    x->ask.client_lines = sw_claim__lines(x);
    if (x->conn != NULL) {
        x->ask.trusted = sw_config_trusted(w->config, sw_stream_peer(x->conn->stream));
        x->ask.secure = x->ask.trusted && forwarded_https(&x->request);
    }
    if (x->alarms != NULL) {
        x->ask.alarm = &x->alarm;
        x->ask.has_key = true;
        x->ask.key = x->alarm_key;
        x->ask.key_text = x->alarm.key_text;
    }
}

/* On whose behalf does it come? An app passes on what it was given: the tokens of the exchanges
 * that wait for it. What is not ours matches no holder. */
static enum sw_err read_traces(struct sw_exchange *x)
{
    for (uint32_t i = 0; i < x->request.field_count; i++) {
        struct sw_slice rest = x->request.fields[i].value, one;

        if (x->request.fields[i].id != SW_FIELD_STATEWAY ||
            !sw_slice_eq_nocase(x->request.fields[i].name, SW_S("Stateway-Trace"))) {
            continue;
        }
        while (rest.len > 0) {
            uint64_t trace;

            (void)sw_slice_cut(rest, ',', &one, &rest);
            one = sw_slice_trim(one);
            if (sw_b64url_exact(one, &trace, sizeof(trace)) != SW_OK || trace == 0) {
                continue;
            }
            if (x->trace_count == SW_TRACES_MAX) {
                return SW_E_REENTRY; /* so deep a chain has no end */
            }
            x->traces[x->trace_count++] = trace;
        }
    }
    return SW_OK;
}

/* Was it sent in TLS early data, as a proxy says, so that anybody may have recorded and sent it
 * again? What may change something waits for the handshake (RFC 8470, 5.2). */
static bool too_early(const struct sw_exchange *x)
{
    const struct sw_field *f;

    if (sw_method_safe(x->request.method, x->request.method_name)) {
        return false;
    }
    f = sw_head_find_name(&x->request, SW_S("Early-Data"));
    return f != NULL && sw_slice_eq(f->value, SW_S("1"));
}

/* Our public keys, unless a route of exactly this path is somebody's own. */
static bool jwks_wanted(const struct sw_exchange *x)
{
    const struct sw_config_route *route = x->routed.route;
    struct sw_slice path = SW_S(SW_JWKS_PATH);

    return x->worker->env.mint != NULL && sw_slice_eq(x->request.path, path) &&
           (x->routed.err != SW_OK || !sw_slice_eq(route->path, path));
}

enum sw_ex_next sw_ex__route(struct sw_exchange *x)
{
    struct sw_worker *w = x->worker;
    enum sw_err err;

    if (x->conn->side) {
        x->side = true;
        return sw_ex__to(x, EX_SIDE);
    }
    x->routed = sw_route_match(w->routes, &x->request);
    if (jwks_wanted(x)) {
        x->routed.route = NULL;
        return sw_respond__jwks(x);
    }
    if (x->routed.err != SW_OK) {
        if (x->routed.err == SW_E_NO_METHOD) {
            x->extra_lines =
                sw_arena_printf(&x->arena, "Allow: %.*s\r\n", SW_SARG(x->routed.allow));
        }
        x->routed.route = NULL;
        return sw_ex__fail(x, x->routed.err);
    }
    sw_ex__ask_init(x);
    if (x->request.framing == SW_FRAMING_LENGTH &&
        x->request.length > w->config->limits.body_bytes) {
        return sw_ex__fail(x, SW_E_BODY_LARGE);
    }
    if (sw_place_cross_site(&x->ask)) {
        return sw_ex__fail(x, SW_E_CROSS_SITE);
    }
    if (too_early(x)) {
        return sw_ex__fail(x, SW_E_EARLY);
    }
    err = read_traces(x);
    if (err != SW_OK) {
        return sw_ex__fail(x, err);
    }
    sw_app_retry_earn(w->apps, x->routed.route->app, sw_ex__now_ns(x));
    if (x->routed.route->token.on) {
        return sw_ex__to(x, EX_TOKEN);
    }
    err = sw_place_key(&x->ask);
    return err == SW_OK ? sw_ex__to(x, EX_CLAIM) : sw_ex__fail(x, err);
}

/* A refusal says what would be needed (RFC 9110, 11.6.1). */
static enum sw_ex_next ex_challenge(struct sw_exchange *x, enum sw_err err)
{
    x->extra_lines = x->ask.token.challenge;
    return sw_ex__fail(x, err);
}

enum sw_ex_next sw_ex__token(struct sw_exchange *x)
{
    enum sw_err err;

    if (sw_ex__nobody(x)) {
        return sw_ex__finish(x, false, false); /* the client left while keys were fetched */
    }
    switch (sw_place_token(&x->ask)) {
    case SW_STEP_MORE:
        x->ask_pending = true;
        return EX_WAIT;
    case SW_STEP_FAIL:
        return ex_challenge(x, x->ask.err);
    case SW_STEP_DONE:
        break;
    }
    if (x->routed.route->token.header_count > 0) {
        x->request_body.trailer_out = NULL; /* no client may say them behind our back */
    }
    err = sw_place_key(&x->ask);
    if (err != SW_OK) {
        return ex_challenge(x, err);
    }
    return sw_ex__to(x, x->reruns > 0 ? EX_ADMIT : EX_CLAIM);
}

static void on_granted(struct sw_admit_wait *wait)
{
    struct sw_exchange *x = SW_CONTAINER(wait, struct sw_exchange, admit);

    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT(x->admit_pending);
    x->admit_pending = false;
    if (x->state == EX_DONE) { /* gave up in the moment it was granted */
        sw_admit__leave(x->worker->admit, &x->admit);
    }
    sw_ex__run(x);
}

enum sw_ex_next sw_ex__admit(struct sw_exchange *x)
{
    const struct sw_config_route *route = x->routed.route;
    struct sw_worker *w = x->worker;
    bool safe = sw_method_safe(x->request.method, x->request.method_name);

    if (x->admit.state == ADMIT_HELD) {
        sw_timer_stop(x->worker->loop, &x->timer);
        return sw_ex__to(x, EX_LOAD);
    }
    x->ask.shared = safe && x->reruns == 0;
    if (!x->ask.has_key || x->ask.shared ||
        (route->session.concurrency != SW_CONC_SERIAL && x->reruns == 0)) {
        return sw_ex__to(x, EX_LOAD);
    }
    x->exclusive = true;
    if (x->trace == 0) {
        x->trace = sw_rng_u64(&w->rng) | 1;
    }
    switch (sw_admit__enter(w->admit, &x->admit,
                            &(struct sw_admit_ask){
                                .key = x->ask.key,
                                .queue_max = route->session.queue_length,
                                .loop = w->loop,
                                .granted = on_granted,
                                .trace = x->trace,
                                .traces = x->traces,
                                .trace_count = x->trace_count,
                            })) {
    case SW_ADMIT_HELD:
        return sw_ex__to(x, EX_LOAD);
    case SW_ADMIT_FULL:
        return sw_ex__fail(x, SW_E_QUEUE_FULL);
    case SW_ADMIT_REENTRY:
        sw_count(&w->stats->reentries, 1);
        return sw_ex__fail(x, SW_E_REENTRY);
    case SW_ADMIT_WAIT:
        x->admit_pending = true;
        sw_count(&w->stats->queue_waits, 1);
        sw_ex__timer(x, sw_ex__now_ns(x) + route->session.queue_wait_ns);
        return EX_WAIT;
    }
    SW_UNREACHABLE();
}

/* Stateway-Trace for the app: whoever it calls back through us must not wait for this exchange. */
static enum sw_err put_traces(struct sw_exchange *x)
{
    size_t cap = (SW_TRACES_MAX + 1) * (SW_B64_LEN(sizeof(x->trace)) + 2);
    struct sw_out out;
    char *text;

    if (x->trace_count == 0 && x->trace == 0) {
        return SW_OK;
    }
    text = sw_arena_bytes(&x->arena, cap);
    if (text == NULL) {
        return SW_E_NO_MEMORY;
    }
    out = sw_out_init(text, cap);
    for (size_t i = 0; i < x->trace_count; i++) {
        sw_b64url_put(&out, &x->traces[i], sizeof(x->traces[i]));
        sw_out_lit(&out, ", ");
    }
    if (x->trace != 0) {
        sw_b64url_put(&out, &x->trace, sizeof(x->trace));
    } else {
        out.len -= 2;
    }
    x->ask.trace = sw_out_done(&out);
    return SW_OK;
}

/* Is what is to be delivered still there? It may have been cancelled, or its state ended. */
static bool alarm_stands(const struct sw_exchange *x)
{
    struct sw_alarm list[SW_ALARMS_MAX];
    size_t count;

    if (!x->ask.state_present ||
        sw_alarms_read(x->ask.session.record.extra, list, &count) != SW_OK) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (sw_slice_eq(list[i].id, x->alarm.id)) {
            return list[i].due_unix_ms == x->alarm.due_unix_ms;
        }
    }
    return false;
}

enum sw_ex_next sw_ex__load(struct sw_exchange *x)
{
    enum sw_err err;

    switch (x->ask.placement->load(&x->ask)) {
    case SW_STEP_MORE:
        x->ask_pending = true;
        return EX_WAIT;
    case SW_STEP_FAIL:
        return sw_ex__fail(x, x->ask.err);
    case SW_STEP_DONE:
        if (x->exclusive && memcmp(&x->admit.key, &x->ask.key, sizeof(x->ask.key)) != 0) {
            sw_ex__leave_queue(x); /* a renewed id: one state, so one line, that of the new id */
            return sw_ex__to(x, EX_ADMIT);
        }
        if (x->alarms != NULL && !alarm_stands(x)) {
            return sw_ex__finish(x, false, false);
        }
        sw_side__open(x);
        err = put_traces(x);
        if (err != SW_OK) {
            return sw_ex__fail(x, err);
        }
        x->wait_until_ns = sw_ex__now_ns(x) + x->worker->config->timeouts.connect_ns;
        return sw_ex__to(x, EX_PICK);
    }
    SW_UNREACHABLE();
}

enum sw_ex_next sw_ex__pick(struct sw_exchange *x)
{
    bool starting = false, waiting, learning;

    SW_ASSERT(x->ask.instance == NULL);
    if (sw_ex__nobody(x)) {
        return sw_ex__finish(x, false, false); /* the client left: what was not sent need not be */
    }
    if (sw_ex__now_ns(x) >= x->deadline_ns) {
        return sw_ex__fail(x,
                           SW_E_EXCHANGE_SLOW); /* no app begins what nobody waits for any more */
    }
    waiting = sw_ex__now_ns(x) < x->wait_until_ns;
    learning = x->ask.tried.tried_count > 0 && sw_ex__now_ns(x) < x->failed_ns + LEARN_NS;
    x->ask.patience = waiting && (learning || x->ask.tried.tried_count == 0);
    x->ask.worth_waiting = false;
    switch (x->ask.placement->pick(&x->ask)) {
    case SW_STEP_MORE:
        SW_UNREACHABLE(); /* pick never waits */
    case SW_STEP_FAIL:
        if (x->ask.err == SW_E_NO_INSTANCE && waiting) {
            (void)sw_app_any(x->worker->apps, x->routed.route->app, &starting);
            if (starting || x->ask.worth_waiting || (learning && x->tried_err != SW_E_APP_SLOW)) {
                if (x->tried_err == SW_E_CONNECT) {
                    x->ask.tried.tried_count = 0; /* it never got the request */
                }
                sw_ex__timer(x, sw_ex__now_ns(x) + PICK_AGAIN_NS);
                return EX_WAIT;
            }
        }
        /* Nobody else is left: what went wrong with the last one tells more than that. */
        return sw_ex__fail(x, x->ask.err == SW_E_NO_INSTANCE && x->tried_err != SW_OK ? x->tried_err
                                                                                      : x->ask.err);
    case SW_STEP_DONE:
        return sw_ex__to(x, EX_CONNECT);
    }
    SW_UNREACHABLE();
}
