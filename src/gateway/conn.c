/* gateway/conn.c - a client's connection: heads in, exchanges one after another.
 *
 *   IDLE --bytes--> HEAD --complete--> EXCHANGE --answered--> IDLE (or HEAD: pipelined)
 *   any --end--> CLOSED
 *
 * An idle connection holds its record and nothing else. A head that arrives in parts is gathered in
 * one buffer, within the head limit and the head timeout. Pipelined requests wait as bytes; while
 * answers pile up unread, no further head is looked at.
 */
#include "gateway/gateway_priv.h"

static void conn_free(struct sw_conn *c)
{
    struct sw_worker *w = c->worker;

    SW_ASSERT(c->state == CONN_CLOSED);
    SW_ASSERT(c->exchange == NULL);
    sw_timer_stop(w->loop, &c->timer);
    sw_inq__clear(w, &c->in);
    sw_link_remove(&c->link);
    c->magic = 0;
    sw_pool_put(&w->conns, c);
    atomic_store_explicit(&w->stats->connections_open, w->conns.used, memory_order_relaxed);
    sw_worker__check_stopped(w);
}

static void conn_end(struct sw_conn *c)
{
    c->state = CONN_CLOSED;
    if (!c->running) {
        conn_free(c);
    }
}

void sw_conn__close(struct sw_conn *c)
{
    SW_ASSERT(c->magic == SW_CONN_MAGIC);
    if (c->state == CONN_CLOSED) {
        return;
    }
    sw_stream_close(c->stream);
    c->stream = NULL;
    conn_end(c);
}

void sw_conn__read(struct sw_conn *c, bool on)
{
    if (c->eof || c->broken || on == sw_stream_reading(c->stream)) {
        return;
    }
    if (on) {
        sw_stream_read_start(c->stream);
    } else {
        sw_stream_read_stop(c->stream);
    }
}

/* No room for another exchange: said in a fixed text, since there is nothing to compose it in. */
static void conn_overloaded(struct sw_conn *c)
{
    static const struct sw_slice text = SW_S(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 49\r\n"
        "Retry-After: 1\r\nStateway-Error: overloaded\r\nConnection: close\r\n\r\n"
        "stateway: too many exchanges are running; retry.\n");
    struct sw_stream *s = sw_take(&c->stream);

    sw_count(&c->worker->stats->errors[SW_E_OVERLOADED], 1);
    if (sw_stream_send(s, NULL, text) == SW_OK) {
        sw_stream_linger(s, sw_loop_now_ns(c->worker->loop) + SW_LINGER_NS);
    } else {
        sw_stream_close(s);
    }
    conn_end(c);
}

/* Looks for one head in what is here. False: not yet. */
static bool conn_parse(struct sw_conn *c)
{
    struct sw_worker *w = c->worker;
    const struct sw_h1_limits limits = {w->config->limits.head_bytes,
                                        w->config->limits.target_bytes};
    struct sw_exchange *x = sw_exchange__new(c);
    struct sw_parsed parsed;
    struct sw_buf *buf;

    if (x == NULL) {
        conn_overloaded(c);
        return true;
    }
    if (!sw_inq__gather(w, &c->in, (size_t)limits.head_bytes_max + 1)) {
        sw_exchange__put(x);
        conn_overloaded(c);
        return true;
    }
    parsed = sw_h1_request(c->in.first->bytes, &c->scanned, &limits, &x->request);
    if (parsed.step == SW_STEP_MORE) {
        sw_exchange__put(x);
        return false;
    }
    c->scanned = 0;
    c->state = CONN_EXCHANGE;
    c->exchange = x;
    c->requests++;
    sw_timer_stop(w->loop, &c->timer);
    buf = sw_buf_ref(c->in.first->buf);
    if (parsed.step == SW_STEP_FAIL) {
        sw_exchange__refuse(x, buf, parsed.err);
        return true;
    }
    SW_ASSERT(parsed.consumed > 0);
    sw_inq__drop(w, &c->in, parsed.consumed);
    sw_exchange__start(x, buf);
    return true;
}

/* Goes on while there are heads: a loop, since an exchange may be over before start returns. */
static void conn_run(struct sw_conn *c)
{
    struct sw_worker *w = c->worker;

    if (c->running) {
        return;
    }
    c->running = true;
    while ((c->state == CONN_IDLE || c->state == CONN_HEAD) && c->in.bytes > 0 &&
           sw_stream_queued(c->stream) < SW_RELAY_HIGH_BYTES) {
        if (c->state == CONN_IDLE) {
            c->state = CONN_HEAD;
            c->head_ns = sw_loop_now_ns(w->loop);
            sw_timer_start(w->loop, &c->timer, c->head_ns + w->config->timeouts.head_ns);
        }
        if (!conn_parse(c)) {
            break;
        }
    }
    c->running = false;
    if (c->state == CONN_CLOSED) {
        conn_free(c);
        return;
    }
    if (c->state != CONN_EXCHANGE) {
        bool waits = c->in.bytes > 0 && sw_stream_queued(c->stream) >= SW_RELAY_HIGH_BYTES;

        if (c->broken || (c->eof && !waits)) { /* half a head, and no more to come */
            if (sw_stream_queued(c->stream) > 0 && !c->broken) {
                sw_stream_linger(sw_take(&c->stream),
                                 sw_loop_now_ns(w->loop) + w->config->timeouts.send_ns);
                conn_end(c);
            } else {
                sw_conn__close(c);
            }
            return;
        }
        sw_conn__read(c, sw_stream_queued(c->stream) < SW_RELAY_HIGH_BYTES);
    }
}

void sw_conn__done(struct sw_conn *c, bool keep_alive, bool polite)
{
    struct sw_worker *w = c->worker;

    SW_ASSERT(c->magic == SW_CONN_MAGIC);
    SW_ASSERT(c->state == CONN_EXCHANGE);
    c->exchange = NULL;
    if (keep_alive && !c->broken && !w->stopping && !(c->eof && c->in.bytes == 0)) {
        c->state = CONN_IDLE;
        sw_timer_start(w->loop, &c->timer, sw_loop_now_ns(w->loop) + w->config->timeouts.idle_ns);
        conn_run(c);
        return;
    }
    if (polite && !c->broken) {
        uint64_t wait =
            sw_stream_queued(c->stream) > 0 ? w->config->timeouts.send_ns : SW_LINGER_NS;

        sw_stream_linger(sw_take(&c->stream), sw_loop_now_ns(w->loop) + wait);
        conn_end(c);
    } else {
        sw_conn__close(c);
    }
}

void sw_conn__leave(struct sw_conn *c)
{
    SW_ASSERT(c->state == CONN_IDLE);
    if (sw_stream_queued(c->stream) > 0 && !c->broken) {
        sw_stream_linger(sw_take(&c->stream),
                         sw_loop_now_ns(c->worker->loop) + c->worker->config->timeouts.send_ns);
        conn_end(c);
    } else {
        sw_conn__close(c);
    }
}

struct sw_stream *sw_conn__detach(struct sw_conn *c, struct sw_inq *ret_rest)
{
    struct sw_stream *s = sw_take(&c->stream);

    *ret_rest = c->in;
    c->in = (struct sw_inq){NULL, NULL, 0};
    c->exchange = NULL;
    conn_end(c);
    return s;
}

/* ---- events ---------------------------------------------------------------------------------- */

static void conn_on_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct sw_conn *c = arg;

    (void)s;
    SW_ASSERT(c->magic == SW_CONN_MAGIC);
    if (!sw_inq__push(c->worker, &c->in, buf, bytes)) {
        sw_count(&c->worker->stats->errors[SW_E_NO_BUFFERS], 1);
        c->broken = true; /* no room to keep what came: nothing on this connection can be trusted */
    }
    if (c->state == CONN_EXCHANGE) {
        sw_exchange__client(c->exchange);
        return;
    }
    conn_run(c);
}

static void conn_on_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct sw_conn *c = arg;

    (void)s;
    SW_ASSERT(c->magic == SW_CONN_MAGIC);
    c->eof = true;
    if (err != SW_E_CLOSED) {
        c->broken = true;
    }
    if (c->state == CONN_EXCHANGE) {
        sw_exchange__client(c->exchange);
        return;
    }
    conn_run(c);
}

static void conn_on_sent(struct sw_stream *s, void *arg)
{
    struct sw_conn *c = arg;

    (void)s;
    SW_ASSERT(c->magic == SW_CONN_MAGIC);
    if (c->state == CONN_EXCHANGE) {
        sw_exchange__client_sent(c->exchange);
        return;
    }
    conn_run(c);
}

static void conn_on_timer(struct sw_timer *t, void *arg)
{
    struct sw_conn *c = arg;
    struct sw_exchange *x;

    (void)t;
    SW_ASSERT(c->magic == SW_CONN_MAGIC);
    if (c->state == CONN_HEAD && c->in.bytes > 0 && (x = sw_exchange__new(c)) != NULL) {
        c->state = CONN_EXCHANGE;
        c->exchange = x;
        c->scanned = 0;
        sw_exchange__refuse(x, sw_buf_ref(c->in.first->buf), SW_E_HEAD_SLOW);
        return;
    }
    sw_count(&c->worker->stats->errors[SW_E_IDLE], 1);
    if (sw_stream_queued(c->stream) > 0) {
        sw_conn__close(c); /* it does not take its answers either */
        return;
    }
    sw_stream_linger(sw_take(&c->stream), sw_loop_now_ns(c->worker->loop) + SW_LINGER_NS);
    conn_end(c);
}

static const struct sw_stream_events conn_events = {
    .recv = conn_on_recv,
    .end = conn_on_end,
    .sent = conn_on_sent,
};

static void conn_accept(struct sw_worker *w, struct sw_stream *s, bool side)
{
    struct sw_conn *c = sw_pool_get(&w->conns);

    SW_ASSERT(w->magic == SW_WORKER_MAGIC);
    if (c == NULL) {
        sw_count(&w->stats->errors[SW_E_OVERLOADED], 1);
        sw_stream_close(s);
        return;
    }
    memset(c, 0, sizeof(*c));
    c->magic = SW_CONN_MAGIC;
    c->state = CONN_IDLE;
    c->worker = w;
    c->stream = s;
    c->side = side;
    sw_timer_init(&c->timer, conn_on_timer, c);
    sw_list_push_back(&w->conn_list, &c->link);
    sw_count(&w->stats->connections_total, 1);
    atomic_store_explicit(&w->stats->connections_open, w->conns.used, memory_order_relaxed);
    sw_stream_attach(s, &conn_events, c);
    /* until its first byte a new connection has the head's time, not the longer idle time */
    sw_timer_start(w->loop, &c->timer, sw_loop_now_ns(w->loop) + w->config->timeouts.head_ns);
    sw_stream_read_start(s);
}

void sw_conn__accept(struct sw_stream *s, void *arg)
{
    conn_accept(arg, s, false);
}

void sw_conn__accept_side(struct sw_stream *s, void *arg)
{
    conn_accept(arg, s, true);
}
