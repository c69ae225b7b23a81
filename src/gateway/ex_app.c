/* gateway/ex_app.c - the exchange at an instance: CONNECT, AWAIT, GATHER; and another try.
 */
#include "gateway/gateway_priv.h"

/* Of an envelope: the state may be escaped (6 bytes for one) and stands beside an answer. */
#define ENVELOPE_FACTOR     2u
#define ENVELOPE_BASE_BYTES (1024u * 1024u)

/* May the request be given to an app once more? (RFC 9110, 9.2.2, and the route's word) */
static bool ex_repeatable(const struct sw_exchange *x)
{
    if (!x->body_held || x->got_bytes) {
        return false;
    }
    if (!x->head_sent) {
        return true;
    }
    switch (x->routed.route->replay) {
    case SW_REPLAY_NEVER:
        return false;
    case SW_REPLAY_SAFE:
        return true;
    case SW_REPLAY_IDEMPOTENT:
        return sw_method_idempotent(x->request.method, x->request.method_name);
    }
    SW_UNREACHABLE();
}

/* Was it we who lacked something, or is it only busy? That must not count against an instance. */
static bool says_nothing(enum sw_err err)
{
    return err == SW_E_CANCELED || err == SW_E_PENDING_FULL || err == SW_E_NO_INSTANCE ||
           err == SW_E_OVERLOADED || err == SW_E_NO_FILES || err == SW_E_NO_BUFFERS ||
           err == SW_E_NO_MEMORY;
}

/* The instance failed before its answer's head. Back to pick, on another one, if that is safe. */
enum sw_ex_next sw_ex__attempt_failed(struct sw_exchange *x, enum sw_err err)
{
    const struct sw_config_app *app = &x->worker->config->apps[x->routed.route->app];
    bool repeatable = ex_repeatable(x);
    bool stale = x->up_reused && repeatable && !x->fresh_next && err == SW_E_APP_CLOSED;
    struct sw_instance *i = x->ask.instance;

    SW_ASSERT(i != NULL);
    if (stale) { /* the idle connection had died, which says nothing of the instance */
        x->fresh_next = true;
    } else if (x->ask.tried.tried_count < SW_TRIED_MAX) {
        x->ask.tried.incarnations[x->ask.tried.tried_count] = i->incarnation;
        x->ask.tried.tried[x->ask.tried.tried_count++] = i;
        x->failed_ns = sw_ex__now_ns(x);
    }
    sw_ex__release_instance(x, false, stale || says_nothing(err) ? SAID_NOTHING : SAID_ILL);
    x->ask.tried_lives = err == SW_E_APP_SLOW || (says_nothing(err) && err != SW_E_NO_INSTANCE);
    x->up_reused = false;
    if (!repeatable) {
        return sw_ex__fail(x, err);
    }
    if (!stale) {
        x->fresh_next = false;
        x->tried_err = err;
        if (x->attempts >= app->retry_attempts || sw_ex__now_ns(x) >= x->deadline_ns ||
            !sw_app_retry_spend(x->worker->apps, x->routed.route->app, sw_ex__now_ns(x))) {
            sw_count(&x->worker->stats->retries_refused, 1);
            return sw_ex__fail(x, err);
        }
        x->attempts++;
        sw_count(&x->worker->stats->retries, 1);
    }
    sw_timer_stop(x->worker->loop, &x->timer);
    sw_side__again(x);
    return sw_ex__to(x, EX_PICK);
}

/* ---- the connection to the instance ---------------------------------------------------------- */

static void up_on_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct sw_exchange *x = arg;

    (void)s;
    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    if (x->up_broken) {
        return; /* bytes before these were dropped: nothing behind the gap may be read as an answer
                 */
    }
    x->got_bytes = true;
    if (!sw_inq__push(x->worker, &x->up_in, buf, bytes)) {
        x->up_broken = true;
        x->up_err = SW_E_NO_BUFFERS;
    }
    if (x->state == EX_COMMIT && x->up_in.bytes > SW_RELAY_HIGH_BYTES) {
        sw_stream_read_stop(x->upstream); /* its body waits behind the gate */
    }
    sw_ex__run(x);
}

static void up_on_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct sw_exchange *x = arg;

    (void)s;
    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    x->up_eof = true;
    if (err != SW_E_CLOSED) {
        x->up_broken = true;
    }
    sw_ex__run(x);
}

static void up_on_sent(struct sw_stream *s, void *arg)
{
    struct sw_exchange *x = arg;

    (void)s;
    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    if (!x->body_in_done || !x->body_out_done) {
        sw_ex__run(x);
    }
}

static const struct sw_stream_events up_events = {
    .recv = up_on_recv,
    .end = up_on_end,
    .sent = up_on_sent,
};

static void on_upstream(struct sw_upstream_wait *wait, enum sw_err err, struct sw_stream *s,
                        bool reused)
{
    struct sw_exchange *x = SW_CONTAINER(wait, struct sw_exchange, wait);

    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT(x->wait_pending);
    x->wait_pending = false;
    x->upstream = s;
    x->up_reused = reused;
    x->up_err = err;
    sw_ex__run(x);
}

void sw_ex__await_timer(struct sw_exchange *x)
{
    const struct sw_config *config = x->worker->config;
    const struct sw_config_app *app = &config->apps[x->routed.route->app];
    uint64_t response = config->timeouts.response_ns;

    if (!x->body_in_done) {
        sw_ex__timer(x, SW_MIN(sw_ex__now_ns(x) + config->timeouts.body_ns, x->deadline_ns));
        return;
    }
    if (app->retry_per_try_ns > 0) {
        response = SW_MIN(response, app->retry_per_try_ns);
    }
    sw_ex__timer(x, SW_MIN(sw_ex__now_ns(x) + response, x->deadline_ns));
}

enum sw_ex_next sw_ex__connect(struct sw_exchange *x)
{
    enum sw_err err = SW_OK;

    if (x->upstream == NULL && x->up_err == SW_OK) {
        switch (sw_upstream_get(x->worker->upstream, x->ask.instance, x->fresh_next, &x->wait,
                                on_upstream, x, &x->upstream, &err)) {
        case SW_STEP_MORE:
            x->wait_pending = true;
            sw_ex__timer(x, x->deadline_ns);
            return EX_WAIT;
        case SW_STEP_FAIL:
            return sw_ex__attempt_failed(x, err);
        case SW_STEP_DONE:
            x->up_reused = true;
            break;
        }
    }
    if (x->up_err != SW_OK) {
        err = x->up_err == SW_E_REFUSED || x->up_err == SW_E_RESET ? SW_E_CONNECT : x->up_err;
        return sw_ex__attempt_failed(x, sw_err_status(err) == 0 ? SW_E_CONNECT : err);
    }
    sw_stream_attach(x->upstream, &up_events, x);
    err = sw_request__head(x);
    if (err != SW_OK) {
        return sw_ex__fail(x, err);
    }
    x->head_sent = true;
    x->ever_sent = true;
    x->sent_ns = sw_loop_now_ns(x->worker->loop);
    if (!sw_stream_reading(x->upstream)) {
        sw_stream_read_start(x->upstream);
    }
    sw_ex__await_timer(x);
    return sw_ex__to(x, EX_AWAIT);
}

/* ---- the answer ------------------------------------------------------------------------------ */

/* What a broken connection to the instance means before the answer's head. */
static enum sw_ex_next ex_app_gone(struct sw_exchange *x)
{
    enum sw_err err = x->up_err != SW_OK ? x->up_err : SW_E_APP_CLOSED;

    return sw_ex__attempt_failed(x, err);
}

static enum sw_ex_next ex_interim(struct sw_exchange *x)
{
    enum sw_err err;

    if (++x->interim > SW_INTERIM_MAX) {
        return sw_ex__attempt_failed(x, SW_E_APP_HEAD);
    }
    if (x->request.minor == 0 || x->conn == NULL) {
        return EX_GO; /* RFC 9110, 15.2: no 1xx to a 1.0 client */
    }
    err = sw_respond__interim(x);
    return err == SW_OK ? EX_GO : sw_ex__fail(x, err);
}

/* One head, if it is all here. *ret_final: it was the answer's, not an interim one. */
static enum sw_ex_next ex_answer_head(struct sw_exchange *x, bool *ret_final)
{
    struct sw_worker *w = x->worker;
    const struct sw_h1_limits limits = {w->config->limits.head_bytes, UINT32_MAX};
    struct sw_parsed parsed;

    *ret_final = false;
    if (!sw_inq__gather(w, &x->up_in, (size_t)limits.head_bytes_max + 1)) {
        return sw_ex__fail(x, SW_E_NO_BUFFERS);
    }
    parsed = sw_h1_response(x->up_in.first->bytes, &x->up_scanned, &limits, x->request.method,
                            &x->response);
    switch (parsed.step) {
    case SW_STEP_MORE:
        return x->up_eof || x->up_broken ? ex_app_gone(x) : EX_WAIT;
    case SW_STEP_FAIL:
        return sw_ex__attempt_failed(x, parsed.err);
    case SW_STEP_DONE:
        break;
    }
    x->up_scanned = 0;
    sw_buf_unref(x->response_buf);
    x->response_buf = sw_buf_ref(x->up_in.first->buf);
    sw_inq__drop(w, &x->up_in, parsed.consumed);
    x->answer_head_got = true;
    x->upgraded = false; /* an answer before a rerun may have been */
    if (x->response.status == 101) {
        if (x->request.upgrade.len == 0 || x->response.upgrade.len == 0 || !x->body_in_done) {
            return sw_ex__attempt_failed(x, SW_E_APP_UPGRADE);
        }
        x->upgraded = true;
    } else if (x->response.status < 200) {
        return ex_interim(x);
    }
    *ret_final = true;
    return EX_GO;
}

/* The instance's server refused the head before the app saw it (431: RFC 6585, 5), so it may have
 * the request again: this time with the state's address instead of the state. */
static enum sw_ex_next by_reference(struct sw_exchange *x)
{
    x->ref_tried = true;
    x->ask.by_ref = true;
    sw_ex__release_instance(x, false, SAID_WELL);
    sw_timer_stop(x->worker->loop, &x->timer);
    return sw_ex__to(x, EX_PICK);
}

static bool content_type_is(const struct sw_head *h, struct sw_slice type)
{
    const struct sw_field *f = sw_head_find(h, SW_FIELD_CONTENT_TYPE);
    struct sw_slice value, parameters;

    if (f == NULL) {
        return false;
    }
    (void)sw_slice_cut(f->value, ';', &value, &parameters);
    return sw_slice_eq_nocase(sw_slice_trim(value), type);
}

/* Is the body part of what is committed? An envelope is; so is what an idempotency key keeps, but
 * not a stream, which may have no end. */
static bool gathers(struct sw_exchange *x, size_t *ret_max)
{
    const struct sw_config_route *route = x->routed.route;
    const struct sw_head *h = &x->response;

    bool empty = h->framing == SW_FRAMING_LENGTH && h->length == 0;

    if (x->upgraded || h->framing == SW_FRAMING_NONE) {
        return false;
    }
    if ((route->placement == SW_PLACE_SESSION || route->placement == SW_PLACE_SEALED ||
         route->placement == SW_PLACE_TOKEN) &&
        content_type_is(h, SW_S(SW_ENVELOPE_TYPE))) {
        x->enveloped = true;
        *ret_max = ENVELOPE_FACTOR * (size_t)route->session.max_bytes + ENVELOPE_BASE_BYTES;
        return true;
    }
    *ret_max = route->idempotency.answer_bytes_max;
    return x->claim.live && !empty && !content_type_is(h, SW_S("text/event-stream"));
}

/* The answer's head is here, the last word of the app on its status. */
static enum sw_ex_next answered(struct sw_exchange *x)
{
    size_t max = 0;
    enum sw_err err;

    if (x->response.status == 431 && x->ask.state_present && !x->ask.by_ref &&
        x->ask.state.ptr != NULL && x->ask.ref_url.len > 0 && x->body_held && !x->ref_tried) {
        return by_reference(x);
    }
    x->app_ns += sw_ex__now_ns(x) - x->sent_ns;
    sw_timer_stop(x->worker->loop, &x->timer);
    x->gathering = gathers(x, &max);
    if (!x->gathering) {
        return sw_ex__to(x, EX_COMMIT);
    }
    sw_body_init(&x->response_body, &x->response, UINT64_MAX, true, NULL);
    x->answer_done = x->response.framing == SW_FRAMING_LENGTH && x->response.length == 0;
    err = sw_gather__begin(&x->gather, x->worker,
                           x->response.framing == SW_FRAMING_LENGTH && x->response.length <= max
                               ? (size_t)x->response.length
                               : SW_BUF_BYTES,
                           max);
    if (err == SW_OK) {
        return sw_ex__to(x, EX_GATHER);
    }
    if (x->enveloped) {
        return sw_ex__fail(x, err);
    }
    x->gathering = x->answer_done = false; /* it streams, and is not kept */
    return sw_ex__to(x, EX_COMMIT);
}

enum sw_ex_next sw_ex__await(struct sw_exchange *x)
{
    bool final = false;
    bool was_in_done = x->body_in_done;
    enum sw_err err = x->conn != NULL || x->body_in_done ? sw_relay__request(x) : SW_OK;

    if (err != SW_OK) {
        return sw_ex__fail(x, err);
    }
    if (x->body_in_done && !was_in_done) {
        sw_ex__await_timer(x); /* now it is the app's turn */
    }
    while (!final && x->up_in.bytes > 0) {
        enum sw_ex_next next = ex_answer_head(x, &final);

        if (next == EX_WAIT || x->state != EX_AWAIT) {
            return next;
        }
    }
    if (final) {
        return answered(x);
    }
    if (x->up_eof || x->up_broken) {
        return ex_app_gone(x);
    }
    return EX_WAIT;
}

/* ---- its body, where the commit needs it ------------------------------------------------------
 */

/* One step of the decoder. *ret_over: the body is here, or more of it than can be kept. The app has
 * done its work, so lack of memory is no failure but for an envelope: the answer streams on, and is
 * not kept. */
static enum sw_err gather_piece(struct sw_exchange *x, bool *ret_over)
{
    struct sw_slice piece = sw_slice_head(x->up_in.first->bytes, SW_BUF_BYTES);
    struct sw_body_fed fed;
    enum sw_err err = sw_gather__reserve(&x->gather, x->worker, piece.len);

    if (err != SW_OK) {
        x->gather.full = *ret_over = !x->enveloped;
        return x->enveloped ? err : SW_OK;
    }
    fed = sw_body_feed(&x->response_body, piece);
    if (fed.step == SW_STEP_FAIL) {
        return fed.err;
    }
    if (fed.data.len > 0) {
        err = sw_gather__add(&x->gather, x->worker, fed.data);
        SW_ASSERT(err == SW_OK); /* there was room for all of the piece */
    }
    x->answer_done = fed.step == SW_STEP_DONE;
    *ret_over = x->answer_done || x->gather.full;
    SW_ASSERT(fed.consumed > 0 || x->answer_done);
    if (fed.consumed > 0) {
        sw_inq__drop(x->worker, &x->up_in, fed.consumed);
    }
    return SW_OK;
}

static enum sw_err read_envelope(struct sw_exchange *x)
{
    struct sw_slice body = sw_gather__bytes(&x->gather);
    uint32_t field_max = SW_MIN(x->request.field_max, (uint32_t)SW_ENVELOPE_HEADERS);
    size_t fields = field_max * sizeof(struct sw_field);
    char *memory = sw_budget_take(x->worker->env.large, fields + body.len);
    struct sw_envelope *e = sw_arena_new(&x->arena, struct sw_envelope);
    enum sw_err err;

    x->envelope_memory = memory;
    if (memory == NULL || e == NULL) {
        return memory == NULL ? SW_E_LARGE_FULL : SW_E_NO_MEMORY;
    }
    err = x->gather.full ? SW_E_UPDATE_LARGE : sw_envelope_read(body, memory + fields, e);
    if (err != SW_OK) {
        return err;
    }
    if (e->header_count > field_max) {
        return SW_E_UPDATE_ENVELOPE;
    }
    x->unwrapped = (struct sw_head){
        .fields = (struct sw_field *)(void *)memory,
        .field_max = field_max,
        .status = (uint16_t)e->status,
        .reason = sw_http_reason(e->status),
        .minor = 1,
        .framing = SW_FRAMING_LENGTH,
        .length = e->body.len,
        .keep_alive = true,
    };
    for (size_t i = 0; i < e->header_count; i++) {
        x->unwrapped.fields[x->unwrapped.field_count++] =
            sw_field_make(e->headers[i].name, e->headers[i].value);
    }
    if (e->status == 204 || e->status == 304) {
        x->unwrapped.framing = SW_FRAMING_NONE;
    }
    x->envelope = e;
    x->answer = &x->unwrapped;
    sw_gather__drop(&x->gather); /* the envelope was unescaped from it into memory of its own */
    err = sw_gather__begin(&x->gather, x->worker, e->body.len + 1, e->body.len);
    for (size_t at = 0; err == SW_OK && at < e->body.len; at += SW_BUF_BYTES) {
        err = sw_gather__add(&x->gather, x->worker,
                             sw_slice_head(sw_slice_tail(e->body, at), SW_BUF_BYTES));
    }
    return err;
}

enum sw_ex_next sw_ex__gather(struct sw_exchange *x)
{
    bool over = x->answer_done;
    enum sw_err err = SW_OK;

    while (!over && err == SW_OK && x->up_in.first != NULL) {
        err = gather_piece(x, &over);
    }
    if (err == SW_OK && !over && (x->up_eof || x->up_broken)) {
        err = x->up_broken ? SW_E_APP_BODY : sw_body_end(&x->response_body);
        over = x->answer_done = err == SW_OK;
    }
    if (err != SW_OK) {
        return sw_ex__fail(x, err);
    }
    if (!over) {
        if (!sw_stream_reading(x->upstream)) {
            sw_stream_read_start(x->upstream);
        }
        sw_ex__timer(x, x->deadline_ns);
        return EX_WAIT;
    }
    sw_timer_stop(x->worker->loop, &x->timer);
    if (x->enveloped) {
        err = read_envelope(x);
        if (err != SW_OK) {
            return sw_ex__fail(x, err);
        }
    }
    return sw_ex__to(x, EX_COMMIT);
}
