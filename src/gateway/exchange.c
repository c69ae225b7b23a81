/* gateway/exchange.c - one request and its answer: a machine that visits the rooms below.
 *
 *   ROUTE -> ADMIT -> LOAD -> PICK -> CONNECT -> AWAIT -> COMMIT -> SEND -> DONE
 *                              ^         |         |        |
 *                              |         v         v        |
 *                              +--- another instance, if    |
 *                ^        |      a repeat is safe         |
 *                +--------+ an id that was renewed meanwhile: into the line of the new one
 *                +-- a shared request that wrote and met a conflict: once more, exclusively
 *   every state but DONE -> SEND: an answer of ours instead (SEND itself: the connection ends)
 *
 * The output gate is COMMIT: an app's answer has no other way to the client. Callbacks only record;
 * ex_run steps. When the client leaves after its request was handed over, the exchange goes on to
 * its commit: what the app did is kept, though nobody reads the answer.
 */
#include "gateway/gateway_priv.h"

#define ONE(s) SW_BIT(s)

static const uint32_t ex_arrows[EX_STATE_COUNT] = {
    [EX_ROUTE] = ONE(EX_ADMIT) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_ADMIT] = ONE(EX_LOAD) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_LOAD] = ONE(EX_PICK) | ONE(EX_ADMIT) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_PICK] = ONE(EX_CONNECT) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_CONNECT] = ONE(EX_AWAIT) | ONE(EX_PICK) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_AWAIT] = ONE(EX_PICK) | ONE(EX_COMMIT) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_COMMIT] = ONE(EX_SEND) | ONE(EX_ADMIT) | ONE(EX_DONE),
    [EX_SEND] = ONE(EX_DONE),
    [EX_DONE] = 0,
};

#define RERUNS_MAX 64
/* For the end of an instance that failed to become known here. */
#define LEARN_NS      (300 * SW_NS_PER_MS)
#define PICK_AGAIN_NS (10 * SW_NS_PER_MS) /* while an instance is starting */

static void ex_run(struct sw_exchange *x);

static uint64_t now_ns(const struct sw_exchange *x)
{
    return sw_loop_now_ns(x->worker->loop);
}

static enum sw_ex_next ex_to(struct sw_exchange *x, enum sw_ex_state next)
{
    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT((ex_arrows[x->state] & SW_BIT(next)) != 0);
    x->state = (uint8_t)next;
    return EX_GO;
}

static void ex_timer(struct sw_exchange *x, uint64_t deadline_ns)
{
    sw_timer_start(x->worker->loop, &x->timer, deadline_ns);
}

/* ---- letting go ------------------------------------------------------------------------------ */

static bool ex_pending(const struct sw_exchange *x)
{
    return x->admit_pending || x->ask_pending || x->wait_pending || x->running;
}

static void ex_free(struct sw_exchange *x)
{
    struct sw_worker *w = x->worker;

    SW_ASSERT(x->conn == NULL);
    SW_ASSERT(x->upstream == NULL);
    SW_ASSERT(x->ask.instance == NULL);
    SW_ASSERT(!ex_pending(x));
    sw_timer_stop(w->loop, &x->timer);
    sw_inq__clear(w, &x->up_in);
    sw_buf_unref(x->request_buf);
    sw_buf_unref(x->response_buf);
    sw_buf_unref(x->held);
    sw_buf_unref(x->small);
    sw_link_remove(&x->link);
    sw_exchange__put(x);
    sw_worker__check_stopped(w);
}

static void ex_leave_queue(struct sw_exchange *x)
{
    if (x->admit_pending) {
        if (sw_admit__cancel(x->worker->admit, &x->admit)) {
            x->admit_pending = false;
        } /* else it is being granted: on_granted leaves */
        return;
    }
    if (x->admit.state == ADMIT_HELD) {
        sw_admit__leave(x->worker->admit, &x->admit);
    }
}

/* What an attempt says about its instance. */
enum ex_said { SAID_NOTHING, SAID_WELL, SAID_ILL };

/* Ends the attempt: the connection goes back or away, the instance is told how it went. */
static void ex_release_instance(struct sw_exchange *x, bool reusable, enum ex_said said)
{
    if (x->wait_pending) {
        sw_upstream_cancel(&x->wait);
        x->wait_pending = false;
    }
    if (x->upstream != NULL) {
        sw_upstream_put(x->worker->upstream, x->ask.instance, sw_take(&x->upstream), reusable);
    }
    if (x->ask.instance != NULL && (said == SAID_NOTHING || x->err == SW_E_CLIENT_GONE)) {
        sw_instance_done_quiet(sw_take(&x->ask.instance));
    } else if (x->ask.instance != NULL) {
        sw_instance_done(sw_take(&x->ask.instance), said == SAID_WELL);
    }
    sw_inq__clear(x->worker, &x->up_in);
    sw_buf_unref(sw_take(&x->response_buf));
    x->up_scanned = 0;
    x->up_eof = false;
    x->up_broken = false;
    x->up_err = SW_OK;
    x->head_sent = false;
    x->got_bytes = false;
    x->answer_head_got = false;
    x->held_sent = 0;
    x->body_out_done = false;
}

static void ex_log(struct sw_exchange *x)
{
    uint64_t now = sw_loop_clock_ns(x->worker->loop);

    SW_ASSERT(!x->logged);
    x->logged = true;
    sw_stats__exchange(x->worker->stats, x, now);
    if (x->worker->access != NULL) {
        sw_access__exchange(x->worker->access, x, now);
    }
}

/* Over. keep_alive: the connection takes the next request; polite: it ends, but the answer is
 * delivered first. */
static enum sw_ex_next ex_finish(struct sw_exchange *x, bool keep_alive, bool polite)
{
    struct sw_conn *c = sw_take(&x->conn);
    bool reusable = x->answer_done && !x->own_answer && x->response.keep_alive && !x->lone &&
                    !x->up_eof && !x->up_broken && x->body_out_done && x->up_in.bytes == 0;
    enum ex_said said = SAID_NOTHING;

    if (x->err == SW_E_APP_BODY || x->err == SW_E_APP_CLOSED || x->err == SW_E_APP_SLOW ||
        (x->err == SW_E_EXCHANGE_SLOW && x->state == EX_AWAIT)) {
        said = SAID_ILL;
    } else if (x->answer_head_got) {
        said = SAID_WELL;
    }
    ex_log(x);
    sw_timer_stop(x->worker->loop, &x->timer);
    ex_release_instance(x, reusable, said);
    ex_leave_queue(x);
    ex_to(x, EX_DONE);
    if (c != NULL) {
        sw_conn__done(c, keep_alive && x->body_in_done, polite);
    }
    return EX_WAIT;
}

/* An answer of ours, or the end of the connection when the head is out already. */
static enum sw_ex_next ex_fail(struct sw_exchange *x, enum sw_err err)
{
    SW_ASSERT(err != SW_OK);
    if (x->err == SW_OK) {
        x->err = err;
    }
    if (x->conn != NULL && x->answer_head_sent && x->answer_framing != SW_FRAMING_CLOSE &&
        (err == SW_E_APP_CLOSED || err == SW_E_APP_BODY)) {
        return ex_finish(x, false, true); /* what came goes out: its framing shows the cut */
    }
    if (x->conn == NULL || x->answer_head_sent || sw_err_status(err) == 0) {
        return ex_finish(x, false, false);
    }
    x->own_answer = true;
    if (x->state != EX_SEND) {
        ex_to(x, EX_SEND);
    }
    if (sw_respond__own(x, err) != SW_OK) {
        return ex_finish(x, false, false);
    }
    return ex_finish(x, x->keep_alive, true);
}

/* ---- steps ----------------------------------------------------------------------------------- */

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
    ex_run(x);
}

static void ex_ask_init(struct sw_exchange *x)
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
    x->ask.trusted = sw_config_trusted(w->config, sw_stream_peer(x->conn->stream));
    x->ask.secure = x->ask.trusted && forwarded_https(&x->request);
}

static enum sw_ex_next ex_route(struct sw_exchange *x)
{
    struct sw_worker *w = x->worker;
    enum sw_err err;

    x->routed = sw_route_match(w->routes, &x->request);
    if (x->routed.err != SW_OK) {
        if (x->routed.err == SW_E_NO_METHOD) {
            x->extra_lines =
                sw_arena_printf(&x->arena, "Allow: %.*s\r\n", SW_SARG(x->routed.allow));
        }
        x->routed.route = NULL;
        return ex_fail(x, x->routed.err);
    }
    ex_ask_init(x);
    if (x->request.framing == SW_FRAMING_LENGTH &&
        x->request.length > w->config->limits.body_bytes) {
        return ex_fail(x, SW_E_BODY_LARGE);
    }
    if (sw_place_cross_site(&x->ask)) {
        return ex_fail(x, SW_E_CROSS_SITE);
    }
    err = sw_place_key(&x->ask);
    if (err != SW_OK) {
        return ex_fail(x, err);
    }
    sw_app_retry_earn(w->apps, x->routed.route->app, now_ns(x));
    return ex_to(x, EX_ADMIT);
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
    ex_run(x);
}

static enum sw_ex_next ex_admit(struct sw_exchange *x)
{
    const struct sw_config_route *route = x->routed.route;
    bool safe = sw_method_safe(x->request.method, x->request.method_name);

    if (x->admit.state == ADMIT_HELD) {
        sw_timer_stop(x->worker->loop, &x->timer);
        return ex_to(x, EX_LOAD);
    }
    x->ask.shared = safe && x->reruns == 0;
    if (!x->ask.has_key || x->ask.shared ||
        (route->session.concurrency != SW_CONC_SERIAL && x->reruns == 0)) {
        return ex_to(x, EX_LOAD);
    }
    x->exclusive = true;
    switch (sw_admit__enter(x->worker->admit, &x->admit, &x->ask.key, route->session.queue_length,
                            x->worker->loop, on_granted)) {
    case SW_ADMIT_HELD:
        return ex_to(x, EX_LOAD);
    case SW_ADMIT_FULL:
        return ex_fail(x, SW_E_QUEUE_FULL);
    case SW_ADMIT_WAIT:
        x->admit_pending = true;
        sw_count(&x->worker->stats->queue_waits, 1);
        ex_timer(x, now_ns(x) + route->session.queue_wait_ns);
        return EX_WAIT;
    }
    SW_UNREACHABLE();
}

static enum sw_ex_next ex_load(struct sw_exchange *x)
{
    switch (x->ask.placement->load(&x->ask)) {
    case SW_STEP_MORE:
        x->ask_pending = true;
        return EX_WAIT;
    case SW_STEP_FAIL:
        return ex_fail(x, x->ask.err);
    case SW_STEP_DONE:
        if (x->exclusive && memcmp(&x->admit.key, &x->ask.key, sizeof(x->ask.key)) != 0) {
            ex_leave_queue(x); /* a renewed id: one state, so one line, that of the new id */
            return ex_to(x, EX_ADMIT);
        }
        x->wait_until_ns = now_ns(x) + x->worker->config->timeouts.connect_ns;
        return ex_to(x, EX_PICK);
    }
    SW_UNREACHABLE();
}

static enum sw_ex_next ex_pick(struct sw_exchange *x)
{
    bool starting = false, waiting, learning;

    SW_ASSERT(x->ask.instance == NULL);
    if (x->conn == NULL) {
        return ex_finish(x, false, false); /* the client left: what was not sent need not be */
    }
    if (now_ns(x) >= x->deadline_ns) {
        return ex_fail(x, SW_E_EXCHANGE_SLOW); /* no app begins what nobody waits for any more */
    }
    waiting = now_ns(x) < x->wait_until_ns;
    learning = x->ask.tried.tried_count > 0 && now_ns(x) < x->failed_ns + LEARN_NS;
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
                ex_timer(x, now_ns(x) + PICK_AGAIN_NS);
                return EX_WAIT;
            }
        }
        /* Nobody else is left: what went wrong with the last one tells more than that. */
        return ex_fail(x, x->ask.err == SW_E_NO_INSTANCE && x->tried_err != SW_OK ? x->tried_err
                                                                                  : x->ask.err);
    case SW_STEP_DONE:
        return ex_to(x, EX_CONNECT);
    }
    SW_UNREACHABLE();
}

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
static enum sw_ex_next ex_attempt_failed(struct sw_exchange *x, enum sw_err err)
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
        x->failed_ns = now_ns(x);
    }
    ex_release_instance(x, false, stale || says_nothing(err) ? SAID_NOTHING : SAID_ILL);
    x->ask.tried_lives = err == SW_E_APP_SLOW || (says_nothing(err) && err != SW_E_NO_INSTANCE);
    x->up_reused = false;
    if (!repeatable) {
        return ex_fail(x, err);
    }
    if (!stale) {
        x->fresh_next = false;
        x->tried_err = err;
        if (x->attempts >= app->retry_attempts || now_ns(x) >= x->deadline_ns ||
            !sw_app_retry_spend(x->worker->apps, x->routed.route->app, now_ns(x))) {
            sw_count(&x->worker->stats->retries_refused, 1);
            return ex_fail(x, err);
        }
        x->attempts++;
        sw_count(&x->worker->stats->retries, 1);
    }
    sw_timer_stop(x->worker->loop, &x->timer);
    return ex_to(x, EX_PICK);
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
    ex_run(x);
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
    ex_run(x);
}

static void up_on_sent(struct sw_stream *s, void *arg)
{
    struct sw_exchange *x = arg;

    (void)s;
    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    if (!x->body_in_done || !x->body_out_done) {
        ex_run(x);
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
    ex_run(x);
}

static void ex_await_timer(struct sw_exchange *x)
{
    const struct sw_config *config = x->worker->config;
    const struct sw_config_app *app = &config->apps[x->routed.route->app];
    uint64_t response = config->timeouts.response_ns;

    if (!x->body_in_done) {
        ex_timer(x, SW_MIN(now_ns(x) + config->timeouts.body_ns, x->deadline_ns));
        return;
    }
    if (app->retry_per_try_ns > 0) {
        response = SW_MIN(response, app->retry_per_try_ns);
    }
    ex_timer(x, SW_MIN(now_ns(x) + response, x->deadline_ns));
}

static enum sw_ex_next ex_connect(struct sw_exchange *x)
{
    enum sw_err err = SW_OK;

    if (x->upstream == NULL && x->up_err == SW_OK) {
        switch (sw_upstream_get(x->worker->upstream, x->ask.instance, x->fresh_next, &x->wait,
                                on_upstream, x, &x->upstream, &err)) {
        case SW_STEP_MORE:
            x->wait_pending = true;
            ex_timer(x, x->deadline_ns);
            return EX_WAIT;
        case SW_STEP_FAIL:
            return ex_attempt_failed(x, err);
        case SW_STEP_DONE:
            x->up_reused = true;
            break;
        }
    }
    if (x->up_err != SW_OK) {
        err = x->up_err == SW_E_REFUSED || x->up_err == SW_E_RESET ? SW_E_CONNECT : x->up_err;
        return ex_attempt_failed(x, sw_err_status(err) == 0 ? SW_E_CONNECT : err);
    }
    sw_stream_attach(x->upstream, &up_events, x);
    err = sw_request__head(x);
    if (err != SW_OK) {
        return ex_fail(x, err);
    }
    x->head_sent = true;
    x->sent_ns = sw_loop_now_ns(x->worker->loop);
    if (!sw_stream_reading(x->upstream)) {
        sw_stream_read_start(x->upstream);
    }
    ex_await_timer(x);
    return ex_to(x, EX_AWAIT);
}

/* ---- the answer ------------------------------------------------------------------------------ */

/* What a broken connection to the instance means before the answer's head. */
static enum sw_ex_next ex_app_gone(struct sw_exchange *x)
{
    enum sw_err err = x->up_err != SW_OK ? x->up_err : SW_E_APP_CLOSED;

    return ex_attempt_failed(x, err);
}

static enum sw_ex_next ex_interim(struct sw_exchange *x)
{
    enum sw_err err;

    if (++x->interim > SW_INTERIM_MAX) {
        return ex_attempt_failed(x, SW_E_APP_HEAD);
    }
    if (x->request.minor == 0 || x->conn == NULL) {
        return EX_GO; /* RFC 9110, 15.2: no 1xx to a 1.0 client */
    }
    err = sw_respond__interim(x);
    return err == SW_OK ? EX_GO : ex_fail(x, err);
}

/* One head, if it is all here. *ret_final: it was the answer's, not an interim one. */
static enum sw_ex_next ex_answer_head(struct sw_exchange *x, bool *ret_final)
{
    struct sw_worker *w = x->worker;
    const struct sw_h1_limits limits = {w->config->limits.head_bytes, UINT32_MAX};
    struct sw_parsed parsed;

    *ret_final = false;
    if (!sw_inq__gather(w, &x->up_in, (size_t)limits.head_bytes_max + 1)) {
        return ex_fail(x, SW_E_NO_BUFFERS);
    }
    parsed = sw_h1_response(x->up_in.first->bytes, &x->up_scanned, &limits, x->request.method,
                            &x->response);
    switch (parsed.step) {
    case SW_STEP_MORE:
        return x->up_eof || x->up_broken ? ex_app_gone(x) : EX_WAIT;
    case SW_STEP_FAIL:
        return ex_attempt_failed(x, parsed.err);
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
            return ex_attempt_failed(x, SW_E_APP_UPGRADE);
        }
        x->upgraded = true;
    } else if (x->response.status < 200) {
        return ex_interim(x);
    }
    *ret_final = true;
    return EX_GO;
}

static enum sw_ex_next ex_await(struct sw_exchange *x)
{
    bool final = false;
    bool was_in_done = x->body_in_done;
    enum sw_err err = x->conn != NULL || x->body_in_done ? sw_relay__request(x) : SW_OK;

    if (err != SW_OK) {
        return ex_fail(x, err);
    }
    if (x->body_in_done && !was_in_done) {
        ex_await_timer(x); /* now it is the app's turn */
    }
    while (!final && x->up_in.bytes > 0) {
        enum sw_ex_next next = ex_answer_head(x, &final);

        if (next == EX_WAIT || x->state != EX_AWAIT) {
            return next;
        }
    }
    if (final) {
        x->app_ns += now_ns(x) - x->sent_ns;
        sw_timer_stop(x->worker->loop, &x->timer);
        return ex_to(x, EX_COMMIT);
    }
    if (x->up_eof || x->up_broken) {
        return ex_app_gone(x);
    }
    return EX_WAIT;
}

/* A request wrote, and somebody else was first: it may run again. Also a second time: in the queue
 * it still meets reads, which write without standing in it. */
static bool ex_may_rerun(const struct sw_exchange *x)
{
    return x->ask.err == SW_E_CONFLICT && x->body_held && x->ask.tried.tried_count < SW_TRIED_MAX &&
           x->reruns < RERUNS_MAX && !x->ask.update.has_expect &&
           (sw_method_safe(x->request.method, x->request.method_name) ||
            x->routed.route->replay == SW_REPLAY_SAFE);
}

static enum sw_ex_next ex_rerun(struct sw_exchange *x)
{
    enum sw_err err;

    sw_count(&x->worker->stats->reruns, 1);
    ex_release_instance(x, false, SAID_WELL);
    ex_leave_queue(x);
    x->reruns++;
    sw_arena_reset(&x->arena, x->arena_mark);
    if (x->conn == NULL) {
        return ex_finish(x, false, false);
    }
    ex_ask_init(x);
    err = sw_place_key(&x->ask);
    ex_to(x, EX_ADMIT);
    return err == SW_OK ? EX_GO : ex_fail(x, err);
}

static enum sw_ex_next ex_commit(struct sw_exchange *x)
{
    x->ask.response = &x->response;
    switch (x->ask.placement->commit(&x->ask)) {
    case SW_STEP_MORE:
        x->ask_pending = true; /* reading goes on: an end, or bytes too many, must not go unseen */
        ex_timer(x, x->deadline_ns);
        return EX_WAIT;
    case SW_STEP_FAIL:
        if (ex_may_rerun(x)) {
            return ex_rerun(x);
        }
        return ex_fail(x, x->ask.err);
    case SW_STEP_DONE:
        ex_leave_queue(x); /* a stream, a download, an upgrade never holds the key */
        return ex_to(x, EX_SEND);
    }
    SW_UNREACHABLE();
}

static enum sw_ex_next ex_tunnel(struct sw_exchange *x)
{
    struct sw_worker *w = x->worker;
    struct sw_conn *c = sw_take(&x->conn);
    struct sw_inq client_rest, up_rest = x->up_in;
    bool client_eof = c->eof;
    struct sw_stream *client = sw_conn__detach(c, &client_rest);
    struct sw_stream *up = x->upstream;
    struct sw_instance *i = x->ask.instance;

    ex_log(x);
    if (!x->up_broken &&
        sw_tunnel__start(w, (struct sw_tunnel_side){client, &client_rest, client_eof},
                         (struct sw_tunnel_side){up, &up_rest, x->up_eof}, i)) {
        x->upstream = NULL;
        x->ask.instance = NULL;
        x->up_in = (struct sw_inq){NULL, NULL, 0};
    } else {
        sw_inq__clear(w, &client_rest);
        sw_stream_close(client);
        ex_release_instance(x, false, SAID_WELL);
    }
    sw_timer_stop(w->loop, &x->timer);
    ex_to(x, EX_DONE);
    return EX_WAIT;
}

static enum sw_ex_next ex_send(struct sw_exchange *x)
{
    const struct sw_config *config = x->worker->config;
    enum sw_err err;

    if (x->conn == NULL) {
        return ex_finish(x, false, false); /* committed; nobody reads the answer */
    }
    if (!x->answer_head_sent) {
        err = sw_respond__head(x);
        if (err != SW_OK) {
            return ex_fail(x, err);
        }
        x->answer_head_sent = true;
        if (x->upgraded) {
            return ex_tunnel(x);
        }
        sw_buf_unref(sw_take(&x->response_buf)); /* a stream of hours needs no head */
    }
    if (!x->body_in_done || !x->body_out_done) {
        err = sw_relay__request(x);
        if (err != SW_OK) {
            return ex_fail(x, err);
        }
    }
    err = sw_relay__response(x);
    if (err != SW_OK) {
        return ex_fail(x, err);
    }
    if (x->answer_done) {
        return ex_finish(x, x->keep_alive, true);
    }
    ex_timer(x, now_ns(x) + (sw_stream_queued(x->conn->stream) > 0 ? config->timeouts.send_ns
                                                                   : config->timeouts.exchange_ns));
    return EX_WAIT;
}

/* The one loop that calls the steps. */
static void ex_run(struct sw_exchange *x)
{
    static enum sw_ex_next (*const steps[EX_STATE_COUNT])(struct sw_exchange *) = {
        [EX_ROUTE] = ex_route,   [EX_ADMIT] = ex_admit,     [EX_LOAD] = ex_load,
        [EX_PICK] = ex_pick,     [EX_CONNECT] = ex_connect, [EX_AWAIT] = ex_await,
        [EX_COMMIT] = ex_commit, [EX_SEND] = ex_send,
    };

    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    if (x->running) {
        return;
    }
    x->running = true;
    while (x->state != EX_DONE && !x->ask_pending && !x->admit_pending && !x->wait_pending &&
           steps[x->state](x) == EX_GO) {
    }
    x->running = false;
    if (x->state == EX_DONE && !ex_pending(x)) {
        ex_free(x);
    }
}

/* ---- events of the client -------------------------------------------------------------------- */

/* The client is gone. What an app has got whole goes on to its commit; the rest ends. */
static void ex_client_gone(struct sw_exchange *x)
{
    struct sw_conn *c = sw_take(&x->conn);

    x->err = SW_E_CLIENT_GONE;
    sw_conn__done(c, false, false);
    if (x->state == EX_SEND || !x->body_in_done || !x->head_sent) {
        if (!x->ask_pending) {
            (void)ex_finish(x, false, false);
        } /* else: when the store has answered, the step sees that nobody is there */
    }
}

void sw_exchange__client(struct sw_exchange *x)
{
    struct sw_conn *c = x->conn;

    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT(c != NULL);
    /* Who closes while he waits in line has gone: nobody half-closes to wait, and whoever reloads
     * a page would fill the line with requests that nobody reads. */
    if (c->broken || (c->eof && (x->admit_pending || (!x->body_in_done && c->in.bytes == 0)))) {
        ex_client_gone(x);
        if (x->state == EX_DONE && !ex_pending(x)) {
            ex_free(x);
        }
        return;
    }
    if (x->body_in_done) { /* the next request already: it waits, and only so much of it */
        if (c->in.bytes > SW_RELAY_HIGH_BYTES) {
            sw_conn__read(c, false);
        }
        return;
    }
    if (x->state == EX_AWAIT) {
        ex_await_timer(x);
    }
    if (x->state == EX_AWAIT || x->state == EX_SEND) {
        ex_run(x);
    } else if (c->in.bytes > SW_RELAY_HIGH_BYTES) {
        sw_conn__read(c, false);
    }
}

void sw_exchange__client_sent(struct sw_exchange *x)
{
    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    if (x->state == EX_SEND) {
        sw_buf_unref(sw_take(&x->small)); /* a stream that waits holds no buffer */
        ex_run(x);
    }
}

/* The store does not answer (a disk that hangs): the client learns it, the exchange waits on, for
 * the operation lies in its memory and the key must stay taken until its outcome is known. */
static void ex_commit_slow(struct sw_exchange *x)
{
    bool told;

    SW_ASSERT(x->ask_pending);
    if (x->conn == NULL) {
        return;
    }
    x->err = SW_E_COMMIT;
    x->own_answer = true;
    x->keep_alive = false;
    told = sw_respond__own(x, SW_E_COMMIT) == SW_OK;
    sw_conn__done(sw_take(&x->conn), false, told);
}

static void on_timer(struct sw_timer *t, void *arg)
{
    struct sw_exchange *x = arg;
    enum sw_ex_next next = EX_WAIT;

    (void)t;
    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    x->running = true;
    switch ((enum sw_ex_state)x->state) {
    case EX_ADMIT:
        next = ex_fail(x, SW_E_QUEUE_WAIT);
        break;
    case EX_PICK:
        next = EX_GO;
        break;
    case EX_CONNECT:
        next = ex_fail(x, SW_E_EXCHANGE_SLOW);
        break;
    case EX_AWAIT:
        if (!x->body_in_done && sw_stream_queued(x->upstream) == 0) {
            next = ex_fail(x, SW_E_BODY_SLOW);
        } else if (now_ns(x) >= x->deadline_ns) {
            next = ex_fail(x, SW_E_EXCHANGE_SLOW);
        } else {
            next = ex_attempt_failed(x, SW_E_APP_SLOW);
        }
        break;
    case EX_SEND:
        next =
            ex_fail(x, x->conn != NULL && sw_stream_queued(x->conn->stream) > 0 ? SW_E_CLIENT_SLOW
                                                                                : SW_E_APP_SLOW);
        break;
    case EX_COMMIT:
        ex_commit_slow(x);
        break;
    case EX_ROUTE:
    case EX_LOAD:
    case EX_DONE:
    case EX_STATE_COUNT:
        break;
    }
    x->running = false;
    if (next == EX_GO || x->state == EX_DONE) {
        ex_run(x);
    }
}

/* ---- beginning and end ----------------------------------------------------------------------- */

struct sw_exchange *sw_exchange__new(struct sw_conn *c)
{
    struct sw_worker *w = c->worker;
    struct sw_exchange *x = sw_pool_get(&w->exchanges);
    size_t fields_at = (sizeof(*x) + 15) / 16 * 16;

    if (x == NULL) {
        return NULL;
    }
    x->fields = (struct sw_field *)(void *)((char *)x + fields_at);
    x->worker = w;
    x->conn = c;
    x->request = (struct sw_head){.fields = x->fields, .field_max = w->config->limits.fields};
    return x;
}

void sw_exchange__put(struct sw_exchange *x)
{
    struct sw_worker *w = x->worker;

    x->magic = 0;
    sw_pool_put(&w->exchanges, x);
    atomic_store_explicit(&w->stats->exchanges_open, w->exchanges.used, memory_order_relaxed);
}

static void ex_begin(struct sw_exchange *x, struct sw_buf *buf)
{
    struct sw_worker *w = x->worker;
    struct sw_conn *c = x->conn;
    struct sw_head head = x->request;
    struct sw_field *fields = x->fields;
    uint32_t field_max = w->config->limits.fields;

    memset(x, 0, sizeof(*x));
    x->magic = SW_EXCHANGE_MAGIC;
    x->worker = w;
    x->conn = c;
    x->fields = fields;
    x->request = head;
    x->response = (struct sw_head){.fields = fields + field_max, .field_max = field_max};
    x->request_buf = buf;
    x->begin_ns = c->head_ns;
    x->deadline_ns = now_ns(x) + w->config->timeouts.exchange_ns;
    x->body_held = true;
    sw_arena_init(&x->arena, (char *)x + (w->slot_bytes - w->arena_bytes), w->arena_bytes);
    x->peer = sw_addr_host(sw_stream_peer(c->stream), x->peer_text);
    sw_timer_init(&x->timer, on_timer, x);
    sw_list_push_back(&w->exchange_list, &x->link);
    atomic_store_explicit(&w->stats->exchanges_open, w->exchanges.used, memory_order_relaxed);
}

/* Trailers of a chunked request go on with it. */
static struct sw_out *request_trailer_out(struct sw_exchange *x)
{
    char *text;

    if (x->request.framing != SW_FRAMING_CHUNKED) {
        return NULL;
    }
    text = sw_arena_bytes(&x->arena, SW_TRAILER_BYTES_MAX);
    if (text == NULL) {
        return NULL;
    }
    x->arena_mark = sw_arena_mark(&x->arena);
    x->request_trailers = sw_out_init(text, SW_TRAILER_BYTES_MAX);
    return &x->request_trailers;
}

void sw_exchange__start(struct sw_exchange *x, struct sw_buf *buf)
{
    ex_begin(x, buf);
    x->lone = (x->request.framing == SW_FRAMING_CHUNKED ||
               (x->request.framing == SW_FRAMING_LENGTH && x->request.length > 0)) &&
              (x->request.method == SW_METHOD_GET || x->request.method == SW_METHOD_HEAD);
    x->keep_alive = x->request.keep_alive && !x->lone;
    x->body_in_done = x->request.framing == SW_FRAMING_NONE;
    if (!x->body_in_done) {
        sw_body_init(&x->request_body, &x->request, x->worker->config->limits.body_bytes, false,
                     request_trailer_out(x));
        x->body_in_done = x->request.framing == SW_FRAMING_LENGTH && x->request.length == 0;
    }
    ex_run(x);
}

void sw_exchange__refuse(struct sw_exchange *x, struct sw_buf *buf, enum sw_err err)
{
    ex_begin(x, buf);
    x->request = (struct sw_head){.fields = x->fields, .minor = 1};
    x->keep_alive = false;
    x->running = true;
    (void)ex_fail(x, err);
    x->running = false;
    SW_ASSERT(x->state == EX_DONE);
    ex_free(x);
}

void sw_exchange__drop(struct sw_exchange *x)
{
    if (x->conn != NULL) {
        struct sw_conn *c = sw_take(&x->conn);

        c->exchange = NULL;
        sw_conn__close(c);
    }
    ex_release_instance(x, false, SAID_NOTHING);
    ex_leave_queue(x);
    if (x->admit.state == ADMIT_GRANTING) { /* on_granted will not run any more: pass the key on */
        x->admit.state = ADMIT_HELD;
        sw_admit__leave(x->worker->admit, &x->admit);
    }
    x->running = x->ask_pending = x->admit_pending = x->wait_pending = false;
    ex_free(x);
}
