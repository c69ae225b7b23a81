/* admin/conn.c - a connection of the admin listener: HTTP/1.1, one request after the other.
 *
 * Room       admin/. Main thread's loop.
 * Flow       accept -> HEAD -> (BODY) -> (WAIT) -> SEND -> HEAD ... -> linger.
 *
 *   HEAD  bytes are gathered in c->in until there is a whole head; then ask.c judges
 *   BODY  what comes is decoded and bounded; sessions.c gets it, or it is dropped
 *   WAIT  the store has commits of this request; reading is off. Back to BODY: an import goes on
 *   SEND  the answer goes out, at most ADMIN_QUEUED_MAX at a time; reading is off
 *
 * Memory: a slot of a pool, with the input; an answer is in the slot, in a page that admin.c lends,
 * or in the request's block. When all slots are in use, the one that waits longest for its next
 * request goes. A connection that ends while the store has commits of it keeps its slot, and what
 * they point to, until they are done.
 */
#include "admin/admin_priv.h"

/* Which state may follow which. */
static const uint32_t conn_arrows[] = {
    [ACONN_HEAD] = SW_BIT(ACONN_BODY) | SW_BIT(ACONN_WAIT) | SW_BIT(ACONN_SEND),
    [ACONN_BODY] = SW_BIT(ACONN_WAIT) | SW_BIT(ACONN_SEND),
    [ACONN_WAIT] = SW_BIT(ACONN_BODY) | SW_BIT(ACONN_SEND),
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

/* What the last answer was made of. */
static void answer_drop(struct sw_admin_conn *c)
{
    if (c->answer.page != NULL) {
        sw_admin__page_unref(sw_take(&c->answer.page), c->admin->page_bytes);
    }
    sw_admin__drop(c);
}

static void conn_release(struct sw_admin_conn *c)
{
    struct sw_admin *a = c->admin;

    SW_ASSERT(c->flights == 0);
    answer_drop(c);
    sw_link_remove(&c->link);
    c->magic = 0;
    sw_pool_put(&a->conns, c);
}

/* All but the stream. */
static void conn_free(struct sw_admin_conn *c)
{
    struct sw_admin *a = c->admin;

    SW_ASSERT(c->magic == ADMIN_CONN_MAGIC);
    SW_ASSERT(!c->gone);
    sw_timer_stop(a->loop, &c->timer);
    c->stream = NULL;
    if (c->flights > 0) {
        c->gone = true;
        sw_link_remove(&c->link);
        sw_list_push_back(&a->gone, &c->link);
        return;
    }
    conn_release(c);
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

void sw_admin__gone_drop(struct sw_admin *a)
{
    while (!sw_list_empty(&a->gone)) {
        struct sw_admin_conn *c = SW_CONTAINER(a->gone.next, struct sw_admin_conn, link);

        c->flights = 0;
        conn_release(c);
    }
}

/* ---- sending --------------------------------------------------------------------------------- */

/* The steps below say whether the connection is still there. */
enum conn_next { CONN_GONE, CONN_WAIT, CONN_GO };

static enum conn_next conn_gone(struct sw_admin_conn *c)
{
    sw_admin__conn_close(c);
    return CONN_GONE;
}

static struct sw_slice answer_body(const struct sw_admin_conn *c)
{
    const struct sw_admin_answer *answer = &c->answer;

    if (answer->page != NULL) {
        return (struct sw_slice){answer->page->text, answer->page->len};
    }
    return answer->large.ptr != NULL ? answer->large
                                     : (struct sw_slice){answer->text, answer->text_len};
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

        if (more > 0) {
            memcpy(to + n, answer_body(c).ptr + at, more);
        }
        c->sent += more;
        n += more;
    }
    return n;
}

static bool streams(const struct sw_admin_conn *c)
{
    return c->answer.stream && !c->head_only;
}

/* Is there something to put into a buffer? An export's next chunk is made here. */
static enum sw_admin_fill answer_more(struct sw_admin_conn *c)
{
    if (c->sent < c->head_len + c->body_len || c->chunk.len > 0) {
        return ADMIN_FILL_SOME;
    }
    return streams(c) ? sw_admin__export_fill(c, &c->chunk) : ADMIN_FILL_END;
}

static size_t buffer_fill(struct sw_admin_conn *c, char *to, size_t room)
{
    size_t n = answer_fill(c, to, room);
    size_t more = SW_MIN(room - n, c->chunk.len);

    if (more > 0) {
        memcpy(to + n, c->chunk.ptr, more);
        c->chunk = sw_slice_tail(c->chunk, more);
    }
    return n + more;
}

/* Soon again, unless `sent` comes anyway. */
static enum conn_next conn_starved(struct sw_admin_conn *c)
{
    if (sw_stream_queued(c->stream) == 0) {
        c->starved = true;
        conn_timer(c, ADMIN_STARVED_NS);
    }
    return CONN_WAIT;
}

/* GO: all was handed to the kernel. */
static enum conn_next conn_send(struct sw_admin_conn *c)
{
    enum sw_admin_fill fill;

    SW_ASSERT(c->state == ACONN_SEND);
    c->starved = false;
    while (sw_stream_queued(c->stream) < ADMIN_QUEUED_MAX) {
        struct sw_buf *buf;
        enum sw_err err;
        size_t n;

        fill = answer_more(c);
        if (fill == ADMIN_FILL_FAIL) {
            return conn_gone(c);
        }
        if (fill == ADMIN_FILL_LATER) {
            return conn_starved(c);
        }
        if (fill == ADMIN_FILL_END) {
            return sw_stream_queued(c->stream) == 0 ? CONN_GO : CONN_WAIT;
        }
        buf = sw_buf_get(c->admin->loop, SW_BUF_BYTES);
        if (buf == NULL) { /* others have them all */
            return conn_starved(c);
        }
        n = buffer_fill(c, buf->data, SW_MIN(SW_BUF_BYTES, buf->cap));
        SW_ASSERT(n > 0);
        err = sw_stream_send(c->stream, buf, sw_slice_of(buf->data, n));
        sw_buf_unref(buf);
        if (err != SW_OK) {
            return conn_gone(c);
        }
    }
    return CONN_WAIT;
}

/* Progress was made; the whole answer has an end too. */
static void send_timer(struct sw_admin_conn *c)
{
    uint64_t deadline_ns = sw_loop_now_ns(c->admin->loop) + ADMIN_SEND_NS;

    if (!streams(c)) {
        deadline_ns = SW_MIN(deadline_ns, c->answer_deadline_ns);
    }
    sw_timer_start(c->admin->loop, &c->timer, deadline_ns);
}

static void answer_head(struct sw_admin_conn *c, struct sw_out *out)
{
    const struct sw_admin_answer *answer = &c->answer;
    char date[29];

    sw_http_date(date, sw_loop_now_unix_s(c->admin->loop));
    sw_out_printf(out, "HTTP/1.1 %u ", answer->status);
    sw_out_slice(out, sw_http_reason(answer->status));
    sw_out_lit(out, "\r\nDate: ");
    sw_out_put(out, date, sizeof(date));
    if (answer->type != NULL) {
        sw_out_lit(out, "\r\nContent-Type: ");
        sw_out_cstr(out, answer->type);
    }
    if (answer->stream) {
        sw_out_lit(out, "\r\nTransfer-Encoding: chunked");
    } else if (answer->status != 204) { /* RFC 9110, 8.6 */
        sw_out_lit(out, "\r\nContent-Length: ");
        sw_out_u64(out, answer_body(c).len);
    }
    sw_out_lit(out, "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                    "Cross-Origin-Resource-Policy: same-origin\r\n");
    if (answer->lines != NULL) {
        sw_out_cstr(out, answer->lines);
    }
    if (!c->keep_alive) {
        sw_out_lit(out, "Connection: close\r\n");
    } else if (c->minor == 0) {
        sw_out_lit(out, "Connection: keep-alive\r\n");
    }
    sw_out_lit(out, "\r\n");
    SW_ASSERT(!out->overflowed);
}

/* Begins to send c->answer. */
static enum conn_next conn_answer(struct sw_admin_conn *c)
{
    struct sw_out out = sw_out_init(c->head, sizeof(c->head));

    conn_to(c, ACONN_SEND);
    if ((c->eof && c->in_len == 0) || sw_gateway_stopping(c->admin->gateway)) {
        c->keep_alive = false;
    }
    answer_head(c, &out);
    c->head_len = out.len;
    c->body_len = c->head_only || c->answer.stream ? 0 : answer_body(c).len;
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

    /* With commits that nobody waits for any more, its memory is not free for another request. */
    if (!c->keep_alive || c->flights > 0 ||
        (c->eof && c->in_len == 0)) { /* half-closed: what it sent before counts */
        conn_linger(c);
        return CONN_GONE;
    }
    answer_drop(c);
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

static enum conn_next conn_wait(struct sw_admin_conn *c)
{
    conn_to(c, ACONN_WAIT);
    sw_stream_read_stop(c->stream);
    conn_timer(c, ADMIN_STORE_NS);
    return CONN_WAIT;
}

/* The request is complete and allowed. */
static enum conn_next conn_act(struct sw_admin_conn *c)
{
    if (sw_admin__personal(c->endpoint)) {
        return sw_admin__act(c) == ADMIN_NEXT_WAIT ? conn_wait(c) : conn_answer(c);
    }
    sw_admin__answer(c->admin, c->endpoint, sw_slice_of(c->name, c->name_len), &c->answer);
    return conn_answer(c);
}

/* Refused without reading the body, which is then in the way of the next request. */
static enum conn_next conn_refuse(struct sw_admin_conn *c, bool body)
{
    c->keep_alive = c->keep_alive && !body;
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
    c->endpoint = routed.endpoint;
    if (verdict != ADMIN_ALLOWED) {
        conn_consume(c, head_bytes);
        sw_admin__refuse(verdict, routed.endpoint, &c->answer);
        return conn_refuse(c, body);
    }
    if (sw_admin__personal(routed.endpoint)) {
        const char *why = sw_admin__wish_read(h, routed, &c->wish);

        if (why != NULL) {
            conn_consume(c, head_bytes);
            sw_admin__fail(&c->answer, 400, why, sw_err_label(SW_E_SYNTAX));
            return conn_refuse(c, body);
        }
    } else {
        SW_ASSERT(routed.name.len <= sizeof(c->name));
        c->name_len = routed.name.len;
        if (routed.name.len > 0) {
            memcpy(c->name, routed.name.ptr, routed.name.len);
        }
    }
    if (h->framing == SW_FRAMING_LENGTH && h->length > sw_admin__body_max(c)) {
        conn_consume(c, head_bytes);
        return conn_fail(c, SW_E_BODY_LARGE);
    }
    sw_body_init(&c->body, h, sw_admin__body_max(c), false, NULL);
    conn_consume(c, head_bytes);
    if (sw_admin__personal(c->endpoint) && sw_admin__begin(c) == ADMIN_NEXT_ANSWER) {
        return conn_refuse(c, body);
    }
    if (!body) {
        return conn_act(c);
    }
    conn_to(c, ACONN_BODY);
    c->body_mark = 0;
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

/* A piece of the body for sessions.c. GO: read on. */
static enum conn_next body_take(struct sw_admin_conn *c, const struct sw_body_fed *fed)
{
    bool complete = fed->step == SW_STEP_DONE;

    if (!sw_admin__personal(c->endpoint)) {
        return CONN_GO;
    }
    switch (sw_admin__body_take(c, fed->data, complete, fed->consumed == c->in_len)) {
    case ADMIN_NEXT_READ:
        return CONN_GO;
    case ADMIN_NEXT_WAIT:
        return conn_wait(c);
    case ADMIN_NEXT_ANSWER:
        return conn_refuse(c, true);
    }
    SW_UNREACHABLE();
}

static enum conn_next conn_body(struct sw_admin_conn *c)
{
    for (;;) {
        size_t room = sw_admin__personal(c->endpoint) ? sw_admin__body_room(c) : c->in_len;
        struct sw_body_fed fed =
            sw_body_feed(&c->body, sw_slice_of(c->in, SW_MIN(c->in_len, room)));
        enum conn_next next;

        if (fed.step == SW_STEP_FAIL) {
            return conn_fail(c, fed.err);
        }
        if (c->body.total - c->body_mark >= ADMIN_BODY_STEP) {
            c->body_mark = c->body.total;
            conn_timer(c, ADMIN_BODY_NS);
        }
        next = body_take(c, &fed);
        conn_consume(c, fed.consumed);
        if (fed.step == SW_STEP_DONE) {
            SW_ASSERT(next == CONN_GO);
            return conn_act(c);
        }
        if (next != CONN_GO) {
            return next;
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
        case ACONN_WAIT:
            next = CONN_WAIT;
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
    if (next == CONN_WAIT && c->eof && (c->state == ACONN_HEAD || c->state == ACONN_BODY)) {
        sw_admin__conn_close(c);
    }
}

/* The store is done with all of them. */
static void conn_resume(struct sw_admin_conn *c)
{
    switch (sw_admin__resume(c)) {
    case ADMIN_NEXT_WAIT:
        conn_timer(c, ADMIN_STORE_NS);
        return;
    case ADMIN_NEXT_READ:
        conn_to(c, ACONN_BODY);
        conn_timer(c, ADMIN_BODY_NS);
        sw_stream_read_start(c->stream);
        break;
    case ADMIN_NEXT_ANSWER:
        if (conn_answer(c) != CONN_GO) {
            return;
        }
        break;
    }
    conn_run(c);
}

void sw_admin__committed(struct sw_store_commit *op)
{
    struct sw_admin_conn *c = op->arg;

    SW_ASSERT(c->magic == ADMIN_CONN_MAGIC);
    SW_ASSERT(c->flights > 0);
    c->flights--;
    if (c->flights > 0) {
        return;
    }
    if (c->gone) {
        conn_release(c);
    } else if (c->state == ACONN_WAIT) {
        conn_resume(c);
    } /* else it was answered that nobody knows; it ends with that answer */
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
    if (c->state == ACONN_HEAD || c->state == ACONN_BODY) {
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
    if (c->state == ACONN_HEAD || c->state == ACONN_BODY) {
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
    case ACONN_WAIT:
        c->keep_alive = false;
        sw_admin__fail(&c->answer, 503,
                       "the store has not answered in time; whether this was done is not known",
                       "store-slow");
        if (conn_answer(c) == CONN_GO) {
            conn_run(c);
        }
        return;
    case ACONN_SEND:
        if (c->starved && (streams(c) || sw_loop_now_ns(c->admin->loop) < c->answer_deadline_ns)) {
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
 * What was begun is not cut: it has its own times. */
static void conn_evict(struct sw_admin *a)
{
    struct sw_admin_conn *victim = NULL;

    for (struct sw_link *l = a->list.next; l != &a->list; l = l->next) {
        struct sw_admin_conn *c = SW_CONTAINER(l, struct sw_admin_conn, link);

        if (c->state == ACONN_HEAD && c->served && c->in_len == 0) {
            victim = c;
            break;
        }
        if ((c->state == ACONN_HEAD ||
             (c->state == ACONN_BODY && !sw_admin__personal(c->endpoint))) &&
            victim == NULL) {
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
