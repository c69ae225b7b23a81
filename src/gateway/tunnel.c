/* gateway/tunnel.c - an upgraded connection (WebSocket pass-through): bytes both ways, nothing
 * else.
 *
 * Begins after a 101 was agreed by both sides. Back-pressure in each direction; a side that ends is
 * half-closed towards the other; both ended, broken, or silent for an hour: over. The small record
 * replaces exchange and connection, so that an idle tunnel costs little.
 */
#include "gateway/gateway_priv.h"

void sw_tunnel__close(struct sw_tunnel *t)
{
    struct sw_worker *w = t->worker;

    SW_ASSERT(t->magic == SW_TUNNEL_MAGIC);
    sw_timer_stop(w->loop, &t->timer);
    for (int side = 0; side < 2; side++) { /* what is queued still goes out, to either side */
        uint64_t wait =
            sw_stream_queued(t->side[side]) > 0 ? w->config->timeouts.send_ns : SW_LINGER_NS;

        sw_stream_linger(t->side[side], sw_loop_now_ns(w->loop) + wait);
        sw_buf_unref(sw_take(&t->small[side]));
    }
    sw_upstream_forget(w->upstream, t->instance);
    sw_instance_done(t->instance, true);
    sw_link_remove(&t->link);
    t->magic = 0;
    sw_pool_put(&w->tunnels, t);
    atomic_store_explicit(&w->stats->tunnels_open, w->tunnels.used, memory_order_relaxed);
}

static int side_of(const struct sw_tunnel *t, const struct sw_stream *s)
{
    SW_ASSERT(s == t->side[0] || s == t->side[1]);
    return s == t->side[1];
}

/* To one side. A small message that waits behind others is copied behind them: see
 * SW_COPY_BYTES_MAX. */
static enum sw_err tunnel_send(struct sw_tunnel *t, int side, struct sw_buf *buf,
                               struct sw_slice bytes)
{
    struct sw_buf *small = t->small[side];
    char *at;

    if (bytes.len > SW_COPY_BYTES_MAX || sw_stream_queued(t->side[side]) == 0) {
        return sw_stream_send(t->side[side], buf, bytes);
    }
    if (small == NULL || small->cap - t->small_used[side] < bytes.len) {
        sw_buf_unref(small);
        small = t->small[side] = sw_buf_get(t->worker->loop, SW_BUF_BYTES);
        t->small_used[side] = 0;
        if (small == NULL) {
            return SW_E_NO_BUFFERS;
        }
    }
    at = small->data + t->small_used[side];
    memcpy(at, bytes.ptr, bytes.len);
    t->small_used[side] += bytes.len;
    return sw_stream_send(t->side[side], small, sw_slice_of(at, bytes.len));
}

static void tunnel_on_recv(struct sw_stream *s, void *arg, struct sw_buf *buf,
                           struct sw_slice bytes)
{
    struct sw_tunnel *t = arg;
    struct sw_stream *other;
    int to;

    SW_ASSERT(t->magic == SW_TUNNEL_MAGIC);
    to = !side_of(t, s);
    other = t->side[to];
    t->last_ns = sw_loop_now_ns(t->worker->loop);
    if (tunnel_send(t, to, buf, bytes) != SW_OK) {
        sw_count(&t->worker->stats->errors[SW_E_NO_BUFFERS], 1);
        sw_tunnel__close(t);
        return;
    }
    if (sw_stream_queued(other) > SW_RELAY_HIGH_BYTES) {
        sw_stream_read_stop(s);
    }
}

static void tunnel_on_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct sw_tunnel *t = arg;
    int side;

    SW_ASSERT(t->magic == SW_TUNNEL_MAGIC);
    side = side_of(t, s);
    t->ended[side] = true;
    if (err != SW_E_CLOSED || t->ended[!side]) {
        sw_tunnel__close(t);
        return;
    }
    sw_stream_shutdown(t->side[!side]);
}

static void tunnel_on_sent(struct sw_stream *s, void *arg)
{
    struct sw_tunnel *t = arg;
    int side;

    SW_ASSERT(t->magic == SW_TUNNEL_MAGIC);
    side = side_of(t, s);
    sw_buf_unref(sw_take(&t->small[side])); /* an idle tunnel holds none */
    if (!t->ended[!side] && !sw_stream_reading(t->side[!side])) {
        sw_stream_read_start(t->side[!side]);
    }
}

static void tunnel_on_timer(struct sw_timer *timer, void *arg)
{
    struct sw_tunnel *t = arg;
    uint64_t end = t->last_ns + SW_TUNNEL_IDLE_NS;

    if (sw_loop_now_ns(t->worker->loop) >= end) {
        sw_tunnel__close(t);
    } else {
        sw_timer_start(t->worker->loop, timer, end);
    }
}

static const struct sw_stream_events tunnel_events = {
    .recv = tunnel_on_recv,
    .end = tunnel_on_end,
    .sent = tunnel_on_sent,
};

/* What arrived before the tunnel began. */
static bool flush(struct sw_worker *w, struct sw_inq *q, struct sw_stream *to)
{
    while (q->first != NULL) {
        if (sw_stream_send(to, q->first->buf, q->first->bytes) != SW_OK) {
            return false;
        }
        sw_inq__drop(w, q, q->first->bytes.len);
    }
    return true;
}

bool sw_tunnel__start(struct sw_worker *w, struct sw_tunnel_side client,
                      struct sw_tunnel_side upstream, struct sw_instance *i)
{
    struct sw_tunnel *t = sw_pool_get(&w->tunnels);

    if (t == NULL) {
        return false;
    }
    memset(t, 0, sizeof(*t));
    t->magic = SW_TUNNEL_MAGIC;
    t->worker = w;
    t->instance = i;
    t->side[0] = client.stream;
    t->side[1] = upstream.stream;
    t->ended[0] = client.eof;
    t->ended[1] = upstream.eof;
    t->last_ns = sw_loop_now_ns(w->loop);
    sw_timer_init(&t->timer, tunnel_on_timer, t);
    sw_timer_start(w->loop, &t->timer, t->last_ns + SW_TUNNEL_IDLE_NS);
    sw_list_push_back(&w->tunnel_list, &t->link);
    atomic_store_explicit(&w->stats->tunnels_open, w->tunnels.used, memory_order_relaxed);
    for (int side = 0; side < 2; side++) {
        sw_stream_attach(t->side[side], &tunnel_events, t);
    }
    if (!flush(w, client.rest, upstream.stream) || !flush(w, upstream.rest, client.stream) ||
        (client.eof && upstream.eof)) {
        sw_inq__clear(w, client.rest);
        sw_inq__clear(w, upstream.rest);
        sw_tunnel__close(t);
        return true;
    }
    for (int side = 0; side < 2; side++) {
        if (t->ended[side]) {
            sw_stream_shutdown(t->side[!side]);
        } else if (!sw_stream_reading(t->side[side])) {
            sw_stream_read_start(t->side[side]);
        }
    }
    return true;
}
