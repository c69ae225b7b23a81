/* gateway/relay.c - bodies: client to instance, instance to client.
 *
 * What arrives is decoded and framed anew; payload bytes are not copied, but for the first
 * replay-buffer bytes of a request, which are held until the answer's head so that the request can
 * be repeated on another instance. Pressure walks backwards: above SW_RELAY_HIGH_BYTES queued on
 * the slow side, the fast side is not read.
 */
#include "gateway/gateway_priv.h"

enum sw_err sw_relay__small(struct sw_exchange *x, struct sw_stream *to, struct sw_slice text)
{
    char *at;

    if (text.len == 0) {
        return SW_OK;
    }
    if (x->small != NULL && x->small->cap - x->small_used < text.len) {
        sw_buf_unref(sw_take(&x->small));
    }
    if (x->small == NULL) {
        x->small = sw_buf_get(x->worker->loop, SW_MAX(text.len, SW_BUF_BYTES));
        x->small_used = 0;
        if (x->small == NULL) {
            return SW_E_NO_BUFFERS;
        }
    }
    at = x->small->data + x->small_used;
    memcpy(at, text.ptr, text.len);
    x->small_used += text.len;
    return sw_stream_send(to, x->small, sw_slice_of(at, text.len));
}

/* A small chunk in one piece of bytes, which goes on where the last one ended: thousands that wait
 * for a slow reader must not take the loop's pieces, nor a buffer each. */
static enum sw_err send_small_chunk(struct sw_exchange *x, struct sw_stream *to,
                                    struct sw_slice data)
{
    char text[18 + SW_COPY_BYTES_MAX + 2];
    size_t len = sw_chunk_head(text, data.len);

    memcpy(text + len, data.ptr, data.len);
    memcpy(text + len + data.len, "\r\n", 2);
    return sw_relay__small(x, to, sw_slice_of(text, len + data.len + 2));
}

/* Payload in the framing of the outgoing message. */
static enum sw_err send_payload(struct sw_exchange *x, struct sw_stream *to,
                                enum sw_framing framing, struct sw_buf *buf, struct sw_slice data)
{
    char size[18];
    enum sw_err err = SW_OK;

    SW_ASSERT(data.len > 0);
    if (data.len <= SW_COPY_BYTES_MAX && framing == SW_FRAMING_CHUNKED) {
        return send_small_chunk(x, to, data);
    }
    if (data.len <= SW_COPY_BYTES_MAX && buf != x->held && sw_stream_queued(to) > 0 &&
        (to == x->upstream ||
         x->bytes_out > 0)) { /* it waits, and not only for the head before it */
        return sw_relay__small(x, to, data);
    }
    if (framing == SW_FRAMING_CHUNKED) {
        err = sw_relay__small(x, to, sw_slice_of(size, sw_chunk_head(size, data.len)));
    }
    if (err == SW_OK) {
        err = sw_stream_send(to, buf, data);
    }
    if (err == SW_OK && framing == SW_FRAMING_CHUNKED) {
        err = sw_stream_send(to, NULL, SW_S("\r\n"));
    }
    return err;
}

static enum sw_err send_end(struct sw_exchange *x, struct sw_stream *to, enum sw_framing framing,
                            const struct sw_body *body)
{
    enum sw_err err;

    if (framing != SW_FRAMING_CHUNKED) {
        return SW_OK;
    }
    err = sw_stream_send(to, NULL, SW_S("0\r\n"));
    if (err == SW_OK && body->trailer_out != NULL) {
        err = sw_relay__small(x, to, sw_body_trailers(body));
    }
    return err == SW_OK ? sw_stream_send(to, NULL, SW_S("\r\n")) : err;
}

/* ---- request --------------------------------------------------------------------------------- */

/* Keeps a copy for a repeat. False: no more fits. */
static bool hold(struct sw_exchange *x, struct sw_slice data)
{
    size_t max = x->worker->config->limits.replay_buffer_bytes;
    struct sw_buf *bigger;

    if (!x->body_held || data.len > max - SW_MIN(max, x->held_bytes)) {
        return false;
    }
    if (x->held == NULL || x->held->cap - x->held_bytes < data.len) {
        bigger = sw_buf_get(x->worker->loop, x->held == NULL ? data.len : max);
        if (bigger == NULL) {
            return false;
        }
        if (x->held_bytes > 0) {
            memcpy(bigger->data, x->held->data, x->held_bytes);
        }
        sw_buf_unref(x->held);
        x->held = bigger;
    }
    memcpy(x->held->data + x->held_bytes, data.ptr, data.len);
    x->held_bytes += data.len;
    return true;
}

/* The held bytes that this attempt has not sent yet. */
static enum sw_err flush_held(struct sw_exchange *x)
{
    struct sw_slice rest;
    enum sw_err err;

    if (x->upstream == NULL || !x->head_sent || x->held_sent == x->held_bytes) {
        return SW_OK;
    }
    SW_ASSERT(x->held != NULL);
    rest = sw_slice_of(x->held->data + x->held_sent, x->held_bytes - x->held_sent);
    err = send_payload(x, x->upstream, x->request.framing, x->held, rest);
    x->held_sent = x->held_bytes;
    return err;
}

/* One decoded piece: held, or streamed. *ret_blocked: neither is possible now. */
static enum sw_err take_payload(struct sw_exchange *x, struct sw_buf *buf, struct sw_slice data,
                                bool *ret_blocked)
{
    enum sw_err err;

    *ret_blocked = false;
    if (hold(x, data)) {
        return SW_OK;
    }
    if (x->upstream == NULL || !x->head_sent) {
        *ret_blocked = true;
        return SW_OK;
    }
    err = flush_held(x);
    if (err != SW_OK) {
        return err;
    }
    x->body_held = false; /* from here on it cannot be repeated */
    sw_buf_unref(sw_take(&x->held));
    x->held_bytes = x->held_sent = 0;
    return send_payload(x, x->upstream, x->request.framing, buf, data);
}

/* The decoder cannot go back, so what cannot be placed must not be fed: room is made sure of
 * before.
 */
static bool room_for_piece(const struct sw_exchange *x, size_t bytes)
{
    size_t max = x->worker->config->limits.replay_buffer_bytes;

    if (x->upstream != NULL && x->head_sent) {
        return sw_stream_queued(x->upstream) <= SW_RELAY_HIGH_BYTES;
    }
    return x->body_held && bytes <= max - SW_MIN(max, x->held_bytes);
}

/* What of the piece may be decoded now; empty: it waits. Behind the body in it may be the next
 * request, and chunked framing takes no room: only payload counts. */
static struct sw_slice may_feed(const struct sw_exchange *x, struct sw_slice piece)
{
    const struct sw_body *b = &x->request_body;
    size_t max = x->worker->config->limits.replay_buffer_bytes;
    size_t room = x->body_held ? max - SW_MIN(max, x->held_bytes) : 0;

    if (x->upstream != NULL && x->head_sent) {
        return sw_slice_head(piece,
                             sw_stream_queued(x->upstream) <= SW_RELAY_HIGH_BYTES ? piece.len : 0);
    }
    if (b->left > 0 && room == 0) {
        return sw_slice_head(piece, 0);
    }
    if (b->framing == SW_FRAMING_LENGTH) {
        return sw_slice_head(piece, SW_MIN(room, piece.len));
    }
    return sw_slice_head(piece, SW_MAX(SW_MIN(room, piece.len), (size_t)1));
}

static enum sw_err decode_request(struct sw_exchange *x)
{
    struct sw_conn *c = x->conn;

    while (!x->body_in_done && c->in.first != NULL) {
        struct sw_piece *p = c->in.first;
        struct sw_slice piece = may_feed(x, p->bytes);
        struct sw_body_fed fed;
        bool blocked;
        enum sw_err err;

        if (piece.len == 0) {
            return SW_OK;
        }
        fed = sw_body_feed(&x->request_body, piece);
        if (fed.step == SW_STEP_FAIL) {
            return fed.err;
        }
        x->bytes_in += fed.data.len;
        if (fed.data.len > 0) {
            err = take_payload(x, p->buf, fed.data, &blocked);
            if (err != SW_OK || blocked) {
                return err != SW_OK ? err : SW_E_NO_BUFFERS; /* no buffer to hold it */
            }
        }
        if (fed.step == SW_STEP_DONE) {
            x->body_in_done = true;
        } else {
            SW_ASSERT(fed.consumed > 0);
        }
        if (fed.consumed > 0) {
            sw_inq__drop(x->worker, &c->in, fed.consumed);
        }
    }
    return SW_OK;
}

enum sw_err sw_relay__request(struct sw_exchange *x)
{
    enum sw_err err = SW_OK;

    if (!x->body_in_done && x->conn != NULL) {
        err = decode_request(x);
    }
    if (err == SW_OK) {
        err = flush_held(x);
    }
    if (err == SW_OK && x->body_in_done && !x->body_out_done && x->upstream != NULL &&
        x->head_sent) {
        if (x->request.framing == SW_FRAMING_CHUNKED) {
            err = send_end(x, x->upstream, x->request.framing, &x->request_body);
        }
        x->body_out_done = true;
        x->sent_ns = sw_loop_now_ns(x->worker->loop);
    }
    if (err == SW_OK && x->conn != NULL && x->conn->eof && !x->body_in_done &&
        x->conn->in.bytes == 0) {
        err = SW_E_CLIENT_GONE; /* the end came while earlier bytes waited: RFC 9112, 8 */
    }
    if (x->conn != NULL && !x->body_in_done) {
        sw_conn__read(x->conn, x->conn->in.bytes <= SW_RELAY_HIGH_BYTES && room_for_piece(x, 1));
    }
    return err;
}

/* ---- answer ---------------------------------------------------------------------------------- */

/* What was gathered for the commit goes first; often it is all. */
static enum sw_err send_gathered(struct sw_exchange *x, struct sw_stream *to)
{
    struct sw_slice bytes = sw_gather__bytes(&x->gather);
    enum sw_err err = SW_OK;

    if (!x->gathering || x->gather_sent) {
        return SW_OK;
    }
    x->gather_sent = true;
    if (!x->gather.full && x->answer_framing == SW_FRAMING_NONE) {
        x->answer_done = true;
        return SW_OK;
    }
    if (bytes.len > 0) {
        err = send_payload(x, to, x->answer_framing, sw_gather__buf(&x->gather), bytes);
        x->bytes_out += bytes.len;
    }
    return err;
}

enum sw_err sw_relay__response(struct sw_exchange *x)
{
    struct sw_stream *to = x->conn->stream;
    enum sw_err err = send_gathered(x, to);

    if (err != SW_OK) {
        return err;
    }
    while (!x->answer_done && x->up_in.first != NULL) {
        struct sw_piece *p = x->up_in.first;
        struct sw_body_fed fed;

        if (sw_stream_queued(to) > SW_RELAY_HIGH_BYTES) {
            break;
        }
        fed = sw_body_feed(&x->response_body, p->bytes);
        if (fed.step == SW_STEP_FAIL) {
            return fed.err;
        }
        if (fed.data.len > 0) {
            err = send_payload(x, to, x->answer_framing, p->buf, fed.data);
            if (err != SW_OK) {
                return err;
            }
            x->bytes_out += fed.data.len;
        }
        x->answer_done = fed.step == SW_STEP_DONE;
        if (fed.consumed > 0) {
            sw_inq__drop(x->worker, &x->up_in, fed.consumed);
        }
        SW_ASSERT(fed.consumed > 0 || x->answer_done);
    }
    if (!x->answer_done && x->up_in.first == NULL && (x->up_eof || x->up_broken)) {
        err = x->up_broken ? SW_E_APP_BODY : sw_body_end(&x->response_body);
        if (err != SW_OK) {
            return err;
        }
        x->answer_done = true;
    }
    if (x->answer_done) {
        return send_end(x, to, x->answer_framing, &x->response_body);
    }
    if (!x->up_eof && x->upstream != NULL) {
        bool on = sw_stream_queued(to) <= SW_RELAY_HIGH_BYTES && x->up_in.bytes == 0;

        if (on != sw_stream_reading(x->upstream)) {
            if (on) {
                sw_stream_read_start(x->upstream);
            } else {
                sw_stream_read_stop(x->upstream);
            }
        }
    }
    return SW_OK;
}
