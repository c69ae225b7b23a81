/* gateway/exchange.c - one request and its answer: a machine that visits the rooms below.
 *
 *   ROUTE -> CLAIM -> ADMIT -> LOAD -> PICK -> CONNECT -> AWAIT -> GATHER -> COMMIT -> SEND -> DONE
 *     |                 ^        |       ^         |         |                  |
 *     v                 |        |       |         v         v                  |
 *   SIDE -> DONE        |        |       +--- another instance, if a            |
 *                       |        |            repeat is safe                    |
 *                       +--------+ an id that was renewed meanwhile: into the   |
 *                       |          line of the new one                          |
 *                       +--- a safe request that wrote and met a conflict ------+
 *   every state but DONE -> SEND: an answer of ours instead (SEND itself: the connection ends)
 *
 * CLAIM is passed through by requests without Idempotency-Key, GATHER by answers whose body the
 * commit does not need. On routes with a `token` section TOKEN stands before CLAIM, and before the
 * ADMIT of a rerun.
 *
 * The output gate is COMMIT: an app's answer has no other way to the client. Callbacks only record;
 * sw_ex__run steps. When the client leaves after its request was handed over, the exchange goes on
 * to its commit: what the app did is kept, though nobody reads the answer. An alarm's exchange has
 * no client from the beginning.
 *
 * Files: this one the machine, its beginning and its end; ex_before.c, ex_app.c and ex_after.c the
 * steps; claim.c the idempotency key; side.c the side API; alarms.c who calls without a client.
 */
#include "gateway/gateway_priv.h"

#define ONE(s) SW_BIT(s)

static const uint32_t ex_arrows[EX_STATE_COUNT] = {
    [EX_ROUTE] = ONE(EX_TOKEN) | ONE(EX_CLAIM) | ONE(EX_SIDE) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_TOKEN] = ONE(EX_CLAIM) | ONE(EX_ADMIT) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_SIDE] = ONE(EX_SEND) | ONE(EX_DONE),
    [EX_CLAIM] = ONE(EX_ADMIT) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_ADMIT] = ONE(EX_LOAD) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_LOAD] = ONE(EX_PICK) | ONE(EX_ADMIT) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_PICK] = ONE(EX_CONNECT) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_CONNECT] = ONE(EX_AWAIT) | ONE(EX_PICK) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_AWAIT] = ONE(EX_PICK) | ONE(EX_GATHER) | ONE(EX_COMMIT) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_GATHER] = ONE(EX_COMMIT) | ONE(EX_SEND) | ONE(EX_DONE),
    [EX_COMMIT] = ONE(EX_SEND) | ONE(EX_ADMIT) | ONE(EX_TOKEN) | ONE(EX_DONE),
    [EX_SEND] = ONE(EX_DONE),
    [EX_DONE] = 0,
};

enum sw_ex_next sw_ex__to(struct sw_exchange *x, enum sw_ex_state next)
{
    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT((ex_arrows[x->state] & SW_BIT(next)) != 0);
    x->state = (uint8_t)next;
    return EX_GO;
}

void sw_ex__timer(struct sw_exchange *x, uint64_t deadline_ns)
{
    sw_timer_start(x->worker->loop, &x->timer, deadline_ns);
}

/* ---- letting go ------------------------------------------------------------------------------ */

static bool ex_pending(const struct sw_exchange *x)
{
    return x->admit_pending || x->ask_pending || x->wait_pending || x->running ||
           x->claim.pending || x->claim.waiting;
}

static void ex_free(struct sw_exchange *x)
{
    struct sw_worker *w = x->worker;

    SW_ASSERT(x->conn == NULL);
    SW_ASSERT(x->upstream == NULL);
    SW_ASSERT(x->ask.instance == NULL);
    SW_ASSERT(!ex_pending(x));
    sw_timer_stop(w->loop, &x->timer);
    sw_side__close(x);
    sw_claim__drop(x);
    sw_ask_drop(&x->ask);
    sw_gather__drop(&x->gather);
    sw_budget_give(w->env.large, sw_take(&x->envelope_memory));
    sw_inq__clear(w, &x->up_in);
    sw_buf_unref(x->request_buf);
    sw_buf_unref(x->response_buf);
    sw_buf_unref(x->held);
    sw_buf_unref(x->small);
    sw_link_remove(&x->link);
    sw_exchange__put(x);
    sw_worker__check_stopped(w);
}

void sw_ex__leave_queue(struct sw_exchange *x)
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

void sw_ex__release_instance(struct sw_exchange *x, bool reusable, enum sw_ex_said said)
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

void sw_ex__log(struct sw_exchange *x)
{
    uint64_t now = sw_loop_clock_ns(x->worker->loop);

    SW_ASSERT(!x->logged);
    x->logged = true;
    sw_stats__exchange(x->worker->stats, x, now);
    if (x->worker->access != NULL) {
        sw_access__exchange(x->worker->access, x, now);
    }
}

/* What must still be written when everything else is over: how a claim ended, or that an alarm
 * failed. True: it takes until its callback. */
static bool ex_settle(struct sw_exchange *x)
{
    bool waits = sw_claim__settle(x);

    if (x->alarms != NULL && x->alarm_failing && !x->ask_pending) {
        enum sw_step step = sw_session_alarm_failed(&x->ask);

        x->ask_pending = x->alarm_failing = step == SW_STEP_MORE;
        x->alarm_stuck = step == SW_STEP_FAIL;
    }
    return waits || x->ask_pending;
}

/* Nothing is left to be written: the keys go to who waits for them. */
static void ex_settled(struct sw_exchange *x)
{
    sw_claim__leave(x);
    sw_ex__leave_queue(x);
    if (x->alarms != NULL) {
        sw_alarms__done(sw_take(&x->alarms), x, x->err == SW_OK);
    }
}

enum sw_ex_next sw_ex__finish(struct sw_exchange *x, bool keep_alive, bool polite)
{
    struct sw_conn *c = sw_take(&x->conn);
    bool reusable = x->answer_done && !x->own_answer && x->response.keep_alive && !x->lone &&
                    !x->up_eof && !x->up_broken && x->body_out_done && x->up_in.bytes == 0;
    enum sw_ex_said said = SAID_NOTHING;

    if (x->err == SW_E_APP_BODY || x->err == SW_E_APP_CLOSED || x->err == SW_E_APP_SLOW ||
        (x->err == SW_E_EXCHANGE_SLOW && x->state == EX_AWAIT)) {
        said = SAID_ILL;
    } else if (x->answer_head_got) {
        said = SAID_WELL;
    }
    if (!x->side) {
        sw_ex__log(x);
    }
    sw_timer_stop(x->worker->loop, &x->timer);
    sw_side__close(x);
    sw_ex__release_instance(x, reusable, said);
    sw_ex__to(x, EX_DONE);
    if (!ex_settle(x)) {
        ex_settled(x);
    }
    if (c != NULL) {
        sw_conn__done(c, keep_alive && x->body_in_done, polite);
    }
    return EX_WAIT;
}

/* An answer of ours, or the end of the connection when the head is out already. */
enum sw_ex_next sw_ex__fail(struct sw_exchange *x, enum sw_err err)
{
    SW_ASSERT(err != SW_OK);
    if (x->err == SW_OK) {
        x->err = err;
    }
    if (x->conn != NULL && x->answer_head_sent && x->answer_framing != SW_FRAMING_CLOSE &&
        (err == SW_E_APP_CLOSED || err == SW_E_APP_BODY)) {
        return sw_ex__finish(x, false, true); /* what came goes out: its framing shows the cut */
    }
    x->alarm_failing = x->alarms != NULL && x->err != SW_E_STATE_GONE;
    if (x->conn == NULL || x->answer_head_sent || sw_err_status(err) == 0) {
        return sw_ex__finish(x, false, false);
    }
    x->own_answer = true;
    if (x->state != EX_SEND) {
        sw_ex__to(x, EX_SEND);
    }
    if (sw_respond__own(x, err) != SW_OK) {
        return sw_ex__finish(x, false, false);
    }
    return sw_ex__finish(x, x->keep_alive, true);
}

/* Gives the slot back when it is over and nobody holds anything of it any more. */
static void ex_end(struct sw_exchange *x)
{
    if (x->state == EX_DONE && !ex_pending(x) && !ex_settle(x)) {
        ex_settled(x);
        if (!ex_pending(x)) {
            ex_free(x);
        }
    }
}

void sw_ex__run(struct sw_exchange *x)
{
    static enum sw_ex_next (*const steps[EX_STATE_COUNT])(struct sw_exchange *) = {
        [EX_ROUTE] = sw_ex__route,     [EX_SIDE] = sw_ex__side,   [EX_CLAIM] = sw_ex__claim,
        [EX_ADMIT] = sw_ex__admit,     [EX_LOAD] = sw_ex__load,   [EX_PICK] = sw_ex__pick,
        [EX_CONNECT] = sw_ex__connect, [EX_AWAIT] = sw_ex__await, [EX_GATHER] = sw_ex__gather,
        [EX_COMMIT] = sw_ex__commit,   [EX_SEND] = sw_ex__send,   [EX_TOKEN] = sw_ex__token,
    };

    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    if (x->running) {
        return;
    }
    x->running = true;
    while (x->state != EX_DONE && !x->ask_pending && !x->admit_pending && !x->wait_pending &&
           !x->claim.pending && !x->claim.waiting && steps[x->state](x) == EX_GO) {
    }
    x->running = false;
    ex_end(x);
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
            (void)sw_ex__finish(x, false, false);
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
    if (c->broken || (c->eof && (x->admit_pending || x->claim.waiting ||
                                 (!x->body_in_done && c->in.bytes == 0)))) {
        ex_client_gone(x);
        ex_end(x);
        return;
    }
    if (x->body_in_done) { /* the next request already: it waits, and only so much of it */
        if (c->in.bytes > SW_RELAY_HIGH_BYTES) {
            sw_conn__read(c, false);
        }
        return;
    }
    if (x->state == EX_AWAIT) {
        sw_ex__await_timer(x);
    }
    if (x->state == EX_AWAIT || x->state == EX_SEND || x->state == EX_CLAIM ||
        x->state == EX_SIDE) {
        sw_ex__run(x);
    } else if (c->in.bytes > SW_RELAY_HIGH_BYTES) {
        sw_conn__read(c, false);
    }
}

void sw_exchange__client_sent(struct sw_exchange *x)
{
    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    if (x->state == EX_SEND) {
        sw_buf_unref(sw_take(&x->small)); /* a stream that waits holds no buffer */
        sw_ex__run(x);
    }
}

/* The store does not answer (a disk that hangs): the client learns it, the exchange waits on, for
 * the operation lies in its memory and the key must stay taken until its outcome is known. */
static void ex_commit_slow(struct sw_exchange *x)
{
    /* An idempotency key that is not durable: the app was not asked. */
    enum sw_err err = x->state == EX_CLAIM ? SW_E_IDEM_STORE : SW_E_COMMIT_SLOW;
    bool told;

    SW_ASSERT(x->ask_pending || x->claim.pending);
    if (x->conn == NULL) {
        return;
    }
    x->err = err;
    x->own_answer = true;
    x->keep_alive = false;
    told = sw_respond__own(x, err) == SW_OK;
    sw_conn__done(sw_take(&x->conn), false, told);
}

static enum sw_err body_or_exchange_slow(const struct sw_exchange *x)
{
    return sw_ex__now_ns(x) >= x->deadline_ns ? SW_E_EXCHANGE_SLOW : SW_E_BODY_SLOW;
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
        next = sw_ex__fail(x, SW_E_QUEUE_WAIT);
        break;
    case EX_PICK:
        next = EX_GO;
        break;
    case EX_CONNECT:
        next = sw_ex__fail(x, SW_E_EXCHANGE_SLOW);
        break;
    case EX_AWAIT:
        if (!x->body_in_done && sw_stream_queued(x->upstream) == 0) {
            next = sw_ex__fail(x, SW_E_BODY_SLOW);
        } else if (sw_ex__now_ns(x) >= x->deadline_ns) {
            next = sw_ex__fail(x, SW_E_EXCHANGE_SLOW);
        } else {
            next = sw_ex__attempt_failed(x, SW_E_APP_SLOW);
        }
        break;
    case EX_SEND:
        next = sw_ex__fail(x, x->conn != NULL && sw_stream_queued(x->conn->stream) > 0
                                  ? SW_E_CLIENT_SLOW
                                  : SW_E_APP_SLOW);
        break;
    case EX_SIDE:
        next = sw_ex__fail(x, body_or_exchange_slow(x));
        break;
    case EX_CLAIM:
        if (x->claim.pending) {
            ex_commit_slow(x);
        } else if (!x->claim.waiting) {
            next = sw_ex__fail(x, body_or_exchange_slow(x));
        } else if (sw_admit__cancel(x->worker->admit, &x->claim.wait)) {
            x->claim.waiting = false;
            sw_count(&x->worker->stats->claims_running, 1);
            next = sw_ex__fail(x, SW_E_IDEM_RUNNING);
        } /* else it is being granted in this moment */
        break;
    case EX_GATHER:
        next = sw_ex__fail(x, SW_E_APP_SLOW);
        break;
    case EX_COMMIT:
        if (sw_admit__cancel(x->worker->admit, &x->line)) { /* its turn has not come: undone */
            x->ask_pending = false;
            next = sw_ex__fail(x, SW_E_EXCHANGE_SLOW);
        } else {
            ex_commit_slow(x);
        }
        break;
    case EX_ROUTE:
    case EX_TOKEN:
    case EX_LOAD:
    case EX_DONE:
    case EX_STATE_COUNT:
        break;
    }
    x->running = false;
    if (next == EX_GO || x->state == EX_DONE) {
        sw_ex__run(x);
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
    x->answer = &x->response;
    x->request_buf = buf;
    x->begin_ns = c != NULL ? c->head_ns : sw_ex__now_ns(x);
    x->deadline_ns = sw_ex__now_ns(x) + w->config->timeouts.exchange_ns;
    x->body_held = true;
    x->ask.env = &w->env;
    sw_arena_init(&x->arena, (char *)x + (w->slot_bytes - w->arena_bytes), w->arena_bytes);
    x->peer = c != NULL ? sw_addr_host(sw_stream_peer(c->stream), x->peer_text) : SW_S("unknown");
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
    sw_ex__run(x);
}

struct sw_exchange *sw_exchange__new_alarm(struct sw_worker *w, struct sw_alarms *alarms)
{
    struct sw_exchange *x = sw_pool_get(&w->exchanges);
    size_t fields_at = (sizeof(*x) + 15) / 16 * 16;

    if (x == NULL) {
        return NULL;
    }
    x->fields = (struct sw_field *)(void *)((char *)x + fields_at);
    x->worker = w;
    x->conn = NULL;
    x->request = (struct sw_head){.fields = x->fields, .field_max = w->config->limits.fields};
    ex_begin(x, NULL);
    x->alarms = alarms;
    x->body_in_done = true; /* there is none */
    x->state = EX_ADMIT;
    return x;
}

void sw_exchange__start_alarm(struct sw_exchange *x)
{
    SW_ASSERT(x->alarms != NULL);
    SW_ASSERT(x->ask.has_key);
    x->arena_mark = sw_arena_mark(&x->arena);
    sw_ex__run(x);
}

void sw_exchange__refuse(struct sw_exchange *x, struct sw_buf *buf, enum sw_err err)
{
    ex_begin(x, buf);
    x->request = (struct sw_head){.fields = x->fields, .minor = 1};
    x->keep_alive = false;
    x->running = true;
    (void)sw_ex__fail(x, err);
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
    sw_ex__release_instance(x, false, SAID_NOTHING);
    sw_ex__leave_queue(x);
    if (x->admit.state == ADMIT_GRANTING) { /* on_granted will not run any more: pass the key on */
        x->admit.state = ADMIT_HELD;
        sw_admit__leave(x->worker->admit, &x->admit);
    }
    sw_claim__abandon(x);
    sw_ex__line_abandon(x);
    x->alarms = NULL;
    x->running = x->ask_pending = x->admit_pending = x->wait_pending = false;
    ex_free(x);
}
