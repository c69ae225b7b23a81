/* admin/conn.c - a connection of the admin listener: HTTP/1.1, one request after the other.
 *
 * Room       admin/. Main thread's loop.
 * Flow       accept -> HEAD -> (BODY) -> SEND -> HEAD ... -> linger.
 *
 *   HEAD  bytes are gathered in c->in until there is a whole head; then ask.c judges
 *   BODY  no endpoint wants one: what comes is decoded, bounded and dropped
 *   SEND  the answer goes out, at most ADMIN_QUEUED_MAX at a time; reading is off
 *
 * Memory: a slot of a pool, with the input; an answer is in the slot or in a page that admin.c
 * lends. When all slots are in use, the one that waits longest for its next request goes.
 */
#include "admin/admin_priv.h"

/* Which state may follow which. */
static const uint32_t conn_arrows[] = {
    [ACONN_HEAD] = SW_BIT(ACONN_BODY) | SW_BIT(ACONN_SEND),
    [ACONN_BODY] = SW_BIT(ACONN_SEND),
    [ACONN_SEND] = SW_BIT(ACONN_HEAD),
};

static void conn_to(struct sw_admin_conn *c, enum sw_admin_conn_state to)
{
    SW_ASSERT(c->magic == ADMIN_CONN_MAGIC);
    SW_ASSERT(c->state < SW_COUNTOF(conn_arrows));
    SW_ASSERT((conn_arrows[c->state] & SW_BIT(to)) != 0);
    c->state = (uint8_t)to;
}

static void conn_timer(struct sw_admin_conn *c, uint64_t after_ns)
{
    sw_timer_start(c->admin->loop, &c->timer, sw_loop_now_ns(c->admin->loop) + after_ns);
}

/* ---- ends ------------------------------------------------------------------------------------ */

/* All but the stream. */
static void conn_free(struct sw_admin_conn *c)
{
    struct sw_admin *a = c->admin;

    SW_ASSERT(c->magic == ADMIN_CONN_MAGIC);
    sw_timer_stop(a->loop, &c->timer);
    sw_link_remove(&c->link);
    if (c->answer.page != NULL) {
        sw_admin__page_unref(sw_take(&c->answer.page), a->page_bytes);
    }
    c->magic = 0;
    sw_pool_put(&a->conns, c);
}

void sw_admin__conn_close(struct sw_admin_conn *c)
{
    struct sw_stream *s = c->stream;

    conn_free(c);
    sw_stream_close(s);
}

/* The answer was sent: what the client still sends is read and dropped, or a reset could overtake
 * it. */
static void conn_linger(struct sw_admin_conn *c)
{
    struct sw_stream *s = c->stream;
    uint64_t deadline_ns = sw_loop_now_ns(c->admin->loop) + ADMIN_LINGER_NS;

    conn_free(c);
    sw_stream_linger(s, deadline_ns);
}

/* ---- sending --------------------------------------------------------------------------------- */

/* The steps below say whether the connection is still there. */
enum conn_next { CONN_GONE, CONN_WAIT, CONN_GO };

static enum conn_next conn_gone(struct sw_admin_conn *c)
{
    sw_admin__conn_close(c);
    return CONN_GONE;
}

static const char *answer_body(const struct sw_admin_conn *c)
{
    return c->answer.page != NULL ? c->answer.page->text : c->answer.text;
}

/* The next bytes of head and body; returns how many. */
static size_t answer_fill(struct sw_admin_conn *c, char *to, size_t room)
{
    size_t n = 0;

    if (c->sent < c->head_len) {
        n = SW_MIN(room, c->head_len - c->sent);
        memcpy(to, c->head + c->sent, n);
        c->sent += n;
    }
    if (c->sent >= c->head_len && n < room) {
        size_t at = c->sent - c->head_len;
        size_t more = SW_MIN(room - n, c->body_len - at);

        memcpy(to + n, answer_body(c) + at, more);
        c->sent += more;
        n += more;
    }
    return n;
}

/* GO: all was handed to the kernel. */
static enum conn_next conn_send(struct sw_admin_conn *c)
{
    size_t all = c->head_len + c->body_len;

    SW_ASSERT(c->state == ACONN_SEND);
    c->starved = false;
    while (c->sent < all && sw_stream_queued(c->stream) < ADMIN_QUEUED_MAX) {
        struct sw_buf *buf = sw_buf_get(c->admin->loop, SW_BUF_BYTES);
        enum sw_err err;
        size_t n;

        if (buf == NULL) {
            /* Others have them all: soon again, unless `sent` comes anyway. */
            if (sw_stream_queued(c->stream) == 0) {
                c->starved = true;
                conn_timer(c, ADMIN_STARVED_NS);
            }
            return CONN_WAIT;
        }
        n = answer_fill(c, buf->data, SW_MIN(SW_BUF_BYTES, buf->cap));
        SW_ASSERT(n > 0);
        err = sw_stream_send(c->stream, buf, sw_slice_of(buf->data, n));
        sw_buf_unref(buf);
        if (err != SW_OK) {
            return conn_gone(c);
        }
    }
    return c->sent == all && sw_stream_queued(c->stream) == 0 ? CONN_GO : CONN_WAIT;
}

/* Progress was made; the whole answer has an end too. */
static void send_timer(struct sw_admin_conn *c)
{
    uint64_t deadline_ns = sw_loop_now_ns(c->admin->loop) + ADMIN_SEND_NS;

    sw_timer_start(c->admin->loop, &c->timer, SW_MIN(deadline_ns, c->answer_deadline_ns));
}

/* Begins to send c->answer. */
static enum conn_next conn_answer(struct sw_admin_conn *c)
{
    struct sw_out out = sw_out_init(c->head, sizeof(c->head));
    const struct sw_admin_answer *answer = &c->answer;
    size_t length = answer->page != NULL ? answer->page->len : answer->text_len;
    char date[29];

    conn_to(c, ACONN_SEND);
    if ((c->eof && c->in_len == 0) || sw_gateway_stopping(c->admin->gateway)) {
        c->keep_alive = false;
    }
    sw_http_date(date, sw_loop_now_unix_s(c->admin->loop));
    sw_out_printf(&out, "HTTP/1.1 %u ", answer->status);
    sw_out_slice(&out, sw_http_reason(answer->status));
    sw_out_lit(&out, "\r\nDate: ");
    sw_out_put(&out, date, sizeof(date));
    sw_out_lit(&out, "\r\nContent-Type: ");
    sw_out_cstr(&out, answer->type);
    sw_out_lit(&out, "\r\nContent-Length: ");
    sw_out_u64(&out, length);
    sw_out_lit(&out, "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
    if (answer->lines != NULL) {
        sw_out_cstr(&out, answer->lines);
    }
    if (!c->keep_alive) {
        sw_out_lit(&out, "Connection: close\r\n");
    } else if (c->minor == 0) {
        sw_out_lit(&out, "Connection: keep-alive\r\n");
    }
    sw_out_lit(&out, "\r\n");
    SW_ASSERT(!out.overflowed);
    c->head_len = out.len;
    c->body_len = c->head_only ? 0 : length;
    c->sent = 0;
    c->answer_deadline_ns = sw_loop_now_ns(c->admin->loop) + ADMIN_ANSWER_NS;
    sw_stream_read_stop(c->stream);
    send_timer(c);
    return conn_send(c);
}

static enum conn_next conn_fail(struct sw_admin_conn *c, enum sw_err err)
{
    unsigned status = sw_err_status(err);

    c->keep_alive = false; /* where the next request begins is not known */
    sw_admin__fail(&c->answer, status >= 400 ? status : 400, sw_err_text(err), sw_err_label(err));
    return conn_answer(c);
}

/* The answer is out. GO: on to the next request. */
static enum conn_next conn_answered(struct sw_admin_conn *c)
{
    struct sw_admin *a = c->admin;

    if (c->answer.page != NULL) {
        sw_admin__page_unref(sw_take(&c->answer.page), a->page_bytes);
    }
    if (!c->keep_alive ||
        (c->eof && c->in_len == 0)) { /* half-closed: what it sent before counts */
        conn_linger(c);
        return CONN_GONE;
    }
    conn_to(c, ACONN_HEAD);
    c->served = true;
    c->scanned = 0;
    sw_link_remove(&c->link);
    sw_list_push_back(&a->list, &c->link);
    conn_timer(c, c->in_len > 0 ? ADMIN_HEAD_NS : ADMIN_IDLE_NS);
    sw_stream_read_start(c->stream);
    return CONN_GO;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void conn_consume(struct sw_admin_conn *c, size_t n)
{
    SW_ASSERT(n <= c->in_len);
    c->in_len -= n;
    memmove(c->in, c->in + n, c->in_len);
}

static struct sw_admin_ask ask_of(const struct sw_head *h)
{
    const struct sw_field *authorization = sw_head_find(h, SW_FIELD_AUTHORIZATION);
    const struct sw_field *site = sw_head_find(h, SW_FIELD_SEC_FETCH_SITE);

    return (struct sw_admin_ask){
        .method = h->method,
        .path = h->path,
        .authorization = authorization != NULL ? authorization->value : SW_S(""),
        .has_guard = sw_head_find_name(h, SW_S("Stateway-Admin")) != NULL ||
                     sw_head_find_name(h, SW_S("X-Stateway-Admin")) != NULL,
        .fetch_site = site != NULL ? site->value : SW_S(""),
        .has_origin = sw_head_find(h, SW_FIELD_ORIGIN) != NULL,
        .has_via = sw_head_find(h, SW_FIELD_VIA) != NULL,
        .host = h->host,
    };
}

/* The request is complete and allowed. */
static enum conn_next conn_act(struct sw_admin_conn *c)
{
    sw_admin__answer(c->admin, c->endpoint, sw_slice_of(c->name, c->name_len), &c->answer);
    return conn_answer(c);
}

/* A whole head; its slices point into c->in, and are dead when this returns. */
static enum conn_next conn_request(struct sw_admin_conn *c, const struct sw_head *h,
                                   size_t head_bytes)
{
    struct sw_admin_ask ask = ask_of(h);
    struct sw_admin_routed routed;
    enum sw_admin_verdict verdict =
        sw_admin__judge(&ask, sw_gateway_config(c->admin->gateway)->admin_token, &routed);
    bool body =
        h->framing == SW_FRAMING_CHUNKED || (h->framing == SW_FRAMING_LENGTH && h->length > 0);

    c->minor = h->minor;
    c->head_only = h->method == SW_METHOD_HEAD;
    c->keep_alive = h->keep_alive;
    if (verdict != ADMIN_ALLOWED) {
        /* Without reading the body, which is then in the way of the next request. */
        c->keep_alive = h->keep_alive && !body;
        conn_consume(c, head_bytes);
        sw_admin__refuse(verdict, routed.endpoint, &c->answer);
        return conn_answer(c);
    }
    if (h->framing == SW_FRAMING_LENGTH && h->length > ADMIN_BODY_BYTES_MAX) {
        conn_consume(c, head_bytes);
        return conn_fail(c, SW_E_BODY_LARGE);
    }
    c->endpoint = routed.endpoint;
    SW_ASSERT(routed.name.len <= sizeof(c->name));
    c->name_len = routed.name.len;
    if (routed.name.len > 0) {
        memcpy(c->name, routed.name.ptr, routed.name.len);
    }
    sw_body_init(&c->body, h, ADMIN_BODY_BYTES_MAX, false, NULL);
    conn_consume(c, head_bytes);
    if (!body) {
        return conn_act(c);
    }
    conn_to(c, ACONN_BODY);
    conn_timer(c, ADMIN_BODY_NS);
    if (h->expect_continue && c->in_len == 0 &&
        sw_stream_send(c->stream, NULL, SW_S("HTTP/1.1 100 Continue\r\n\r\n")) != SW_OK) {
        return conn_gone(c);
    }
    return CONN_GO;
}

static enum conn_next conn_head(struct sw_admin_conn *c)
{
    static const struct sw_h1_limits limits = {ADMIN_HEAD_BYTES_MAX, ADMIN_TARGET_BYTES_MAX};
    struct sw_field fields[ADMIN_FIELDS_MAX];
    struct sw_head h = {.fields = fields, .field_max = ADMIN_FIELDS_MAX};
    struct sw_parsed p;

    if (c->in_len == 0) {
        return CONN_WAIT;
    }
    p = sw_h1_request(sw_slice_of(c->in, c->in_len), &c->scanned, &limits, &h);
    switch (p.step) {
    case SW_STEP_MORE:
        return CONN_WAIT;
    case SW_STEP_FAIL:
        c->head_only = false;
        return conn_fail(c, p.err);
    case SW_STEP_DONE:
        return conn_request(c, &h, p.consumed);
    }
    SW_UNREACHABLE();
}

static enum conn_next conn_body(struct sw_admin_conn *c)
{
    for (;;) {
        struct sw_body_fed fed = sw_body_feed(&c->body, sw_slice_of(c->in, c->in_len));

        if (fed.step == SW_STEP_FAIL) {
            return conn_fail(c, fed.err);
        }
        conn_consume(c, fed.consumed);
        if (fed.step == SW_STEP_DONE) {
            return conn_act(c);
        }
        if (fed.consumed == 0) {
            return CONN_WAIT;
        }
    }
}

/* Steps until nothing is left to do now. The connection may be gone after it. */
static void conn_run(struct sw_admin_conn *c)
{
    enum conn_next next = CONN_GO;

    while (next == CONN_GO) {
        switch ((enum sw_admin_conn_state)c->state) {
        case ACONN_HEAD:
            next = conn_head(c);
            break;
        case ACONN_BODY:
            next = conn_body(c);
            break;
        case ACONN_SEND:
            next = conn_send(c);
            if (next == CONN_GO) {
                next = conn_answered(c);
            }
            break;
        }
    }
    /* Half-closed, and what came is no request: nothing will complete it. */
    if (next == CONN_WAIT && c->eof && c->state != ACONN_SEND) {
        sw_admin__conn_close(c);
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

static void on_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct sw_admin_conn *c = arg;

    (void)s;
    (void)buf;
    SW_ASSERT(c->magic == ADMIN_CONN_MAGIC);
    if (bytes.len > sizeof(c->in) - c->in_len) {
        sw_admin__conn_close(c); /* sends on and on, and takes no answer */
        return;
    }
    if (c->state == ACONN_HEAD && c->in_len == 0) {
        conn_timer(c, ADMIN_HEAD_NS);
    }
    memcpy(c->in + c->in_len, bytes.ptr, bytes.len);
    c->in_len += bytes.len;
    if (c->state != ACONN_SEND) {
        conn_run(c);
    }
}

static void on_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct sw_admin_conn *c = arg;

    (void)s;
    SW_ASSERT(c->magic == ADMIN_CONN_MAGIC);
    if (err != SW_E_CLOSED) {
        sw_admin__conn_close(c);
        return;
    }
    c->eof = true;
    if (c->state != ACONN_SEND) {
        sw_admin__conn_close(c);
    }
}

static void on_sent(struct sw_stream *s, void *arg)
{
    struct sw_admin_conn *c = arg;

    (void)s;
    SW_ASSERT(c->magic == ADMIN_CONN_MAGIC);
    if (c->state != ACONN_SEND) {
        return; /* 100 Continue */
    }
    send_timer(c);
    conn_run(c);
}

static void on_timer(struct sw_timer *timer, void *arg)
{
    struct sw_admin_conn *c = arg;

    (void)timer;
    SW_ASSERT(c->magic == ADMIN_CONN_MAGIC);
    switch ((enum sw_admin_conn_state)c->state) {
    case ACONN_HEAD:
        if (c->in_len == 0) {
            sw_admin__conn_close(c);
            return;
        }
        c->head_only = false;
        if (conn_fail(c, SW_E_HEAD_SLOW) == CONN_GO) {
            conn_run(c);
        }
        return;
    case ACONN_BODY:
        if (conn_fail(c, SW_E_BODY_SLOW) == CONN_GO) {
            conn_run(c);
        }
        return;
    case ACONN_SEND:
        if (c->starved && sw_loop_now_ns(c->admin->loop) < c->answer_deadline_ns) {
            conn_run(c);
            return;
        }
        sw_admin__conn_close(c);
        return;
    }
    SW_UNREACHABLE();
}

static const struct sw_stream_events conn_events = {
    .recv = on_recv, .end = on_end, .sent = on_sent};

/* Makes room: who was served and is silent goes first, then who has not asked for the longest time.
 */
static void conn_evict(struct sw_admin *a)
{
    struct sw_admin_conn *victim = NULL;

    for (struct sw_link *l = a->list.next; l != &a->list; l = l->next) {
        struct sw_admin_conn *c = SW_CONTAINER(l, struct sw_admin_conn, link);

        if (c->state == ACONN_HEAD && c->served && c->in_len == 0) {
            victim = c;
            break;
        }
        if (c->state != ACONN_SEND && victim == NULL) {
            victim = c;
        }
    }
    if (victim != NULL) {
        sw_admin__conn_close(victim);
    }
}

void sw_admin__accept(struct sw_stream *s, void *admin)
{
    struct sw_admin *a = admin;
    struct sw_admin_conn *c;

    SW_ASSERT(a->magic == ADMIN_MAGIC);
    c = sw_pool_get(&a->conns);
    if (c == NULL) {
        conn_evict(a);
        c = sw_pool_get(&a->conns);
    }
    if (c == NULL) {
        sw_stream_close(s);
        return;
    }
    memset(c, 0, offsetof(struct sw_admin_conn, in));
    c->magic = ADMIN_CONN_MAGIC;
    c->admin = a;
    c->stream = s;
    sw_timer_init(&c->timer, on_timer, c);
    sw_list_push_back(&a->list, &c->link);
    conn_timer(c, ADMIN_IDLE_NS);
    sw_stream_attach(s, &conn_events, c);
    sw_stream_read_start(s);
}
