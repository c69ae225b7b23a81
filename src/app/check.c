/* app/check.c - what is asked of one instance: is it well, and how large a header does it take?
 *
 * Room       app/, main thread. io/ for the connection, http/ for the answer's head.
 * Flow       health.c -> sw_check__start -> (connected, answer | end | timeout) -> fn.
 *            health.c -> sw_check__probe -> the same -> sw_health__probed.
 *
 * Health: connect, and if the app has a health path, GET it: 2xx is healthy. A probe asks the same
 * (without a health path HEAD /), with lines in its head that are as long as a state's would be.
 * Only the head of an answer is read, whatever the body. The connection is closed after each
 * question, so that an instance with few connections is not kept busy by us.
 *
 * A probe's head: a line of its own for the state (Stateway-Probe is as long a name as
 * Stateway-State), because servers limit single lines as well as the sum; and two that fill up.
 */
#include "app/life_priv.h"

static const char *const check_whys[] = {
    [CHECK_ANSWERED] = "the health path answers, but not with 2xx",
    [CHECK_CLOSED] = "it closed before it answered the health path",
    [CHECK_FAILED] = "its answer is no HTTP",
    [CHECK_UNASKED] = "no room for the health check",
};

/* why: NULL: as the table says. */
static void ask_end(struct check_ask *q, enum check_end end, unsigned status, const char *why)
{
    struct sw_check *c = q->check;
    enum check_result result = CHECK_BAD;

    sw_timer_stop(c->loop, &q->timeout);
    if (q->stream != NULL) {
        sw_stream_close(sw_take(&q->stream));
    }
    if (q == &c->probe) {
        sw_health__probed(c, end, status);
        return;
    }
    if (end == CHECK_ACCEPTED || (end == CHECK_ANSWERED && status < 300)) {
        result = CHECK_OK;
    } else if (end == CHECK_UNASKED) {
        result = CHECK_UNKNOWN;
    }
    c->fn(c, c->life, result, result == CHECK_OK ? "" : why != NULL ? why : check_whys[end]);
}

static struct check_ask *ask_of(void *arg, const struct sw_stream *s)
{
    struct check_ask *q = arg;

    SW_ASSERT(q->check->magic == CHECK_MAGIC);
    SW_ASSERT(q->stream == s);
    return q;
}

static enum sw_method ask_method(const struct check_ask *q)
{
    return q->check->path.len > 0 ? SW_METHOD_GET : SW_METHOD_HEAD;
}

static void ask_on_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    static const struct sw_h1_limits limits = {CHECK_BYTES, 0};
    struct check_ask *q = ask_of(arg, s);
    size_t take = SW_MIN(bytes.len, sizeof q->answer - q->len);

    (void)buf;
    memcpy(q->answer + q->len, bytes.ptr, take);
    q->len += (uint32_t)take;
    for (;;) {
        struct sw_field fields[CHECK_FIELDS];
        struct sw_head head = {.fields = fields, .field_max = CHECK_FIELDS};
        struct sw_parsed p = sw_h1_response(sw_slice_of(q->answer, q->len), &q->scanned, &limits,
                                            ask_method(q), &head);

        if (p.step == SW_STEP_FAIL) {
            ask_end(q, CHECK_FAILED, 0, sw_err_text(p.err));
            return;
        }
        if (p.step == SW_STEP_MORE) {
            if (q->len == sizeof q->answer) {
                ask_end(q, CHECK_FAILED, 0, sw_err_text(SW_E_APP_HEAD_LARGE));
            }
            return;
        }
        if (head.status >= 200) {
            ask_end(q, CHECK_ANSWERED, head.status, NULL);
            return;
        }
        SW_ASSERT(p.consumed <= q->len); /* 1xx: the answer is behind it */
        q->len -= (uint32_t)p.consumed;
        memmove(q->answer, q->answer + p.consumed, q->len);
        q->scanned = 0;
    }
}

static void ask_on_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    (void)err;
    ask_end(ask_of(arg, s), CHECK_CLOSED, 0, NULL);
}

/* "name: xxx...x" with its line end. */
static void put_filler(struct sw_out *out, const char *name, size_t value_bytes)
{
    static const char xs[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

    sw_out_cstr(out, name);
    sw_out_lit(out, ": ");
    while (value_bytes > 0) {
        size_t n = SW_MIN(value_bytes, sizeof xs - 1);

        sw_out_put(out, xs, n);
        value_bytes -= n;
    }
    sw_out_lit(out, "\r\n");
}

#define PROBE_STATE_NAME  "Stateway-Probe"
#define PROBE_OURS_NAME   "Stateway-Probe-Ours"
#define PROBE_CLIENT_NAME "Stateway-Probe-Client"
#define LINE_BYTES(name)  (sizeof(name) - 1 + 4) /* what ": " and the line end add */
_Static_assert(sizeof PROBE_STATE_NAME == sizeof "Stateway-State", "as long as the real one");

static void put_probe(struct sw_out *out, uint32_t bytes)
{
    put_filler(out, PROBE_STATE_NAME, bytes);
    put_filler(out, PROBE_OURS_NAME, PROBE_OURS_BYTES - LINE_BYTES(PROBE_OURS_NAME));
    put_filler(out, PROBE_CLIENT_NAME, PROBE_CLIENT_BYTES - LINE_BYTES(PROBE_CLIENT_NAME));
}

/* Composes the question and sends it. */
static enum sw_err ask_send(struct check_ask *q, uint32_t probe_bytes)
{
    const struct sw_check *c = q->check;
    struct sw_slice path = c->path.len > 0 ? c->path : SW_S("/");
    size_t fill = probe_bytes > 0 ? probe_bytes + PROBE_OURS_BYTES + PROBE_CLIENT_BYTES : 0;
    struct sw_buf *buf = sw_buf_get(c->loop, path.len + fill + CHECK_HEAD_BYTES);
    struct sw_out out;
    enum sw_err err;

    if (buf == NULL) {
        return SW_E_NO_BUFFERS;
    }
    out = sw_out_init(buf->data, buf->cap);
    if (ask_method(q) == SW_METHOD_GET) {
        sw_out_lit(&out, "GET ");
    } else {
        sw_out_lit(&out, "HEAD ");
    }
    sw_out_slice(&out, path);
    sw_out_lit(&out, " HTTP/1.1\r\nHost: ");
    if (c->instance->addr.sa.sa_family == AF_UNIX) {
        sw_out_lit(&out, "localhost");
    } else {
        sw_out_cstr(&out, c->instance->address);
    }
    sw_out_lit(&out, "\r\nUser-Agent: stateway-health\r\n");
    if (probe_bytes > 0) {
        put_probe(&out, probe_bytes);
    }
    sw_out_lit(&out, "Connection: close\r\n\r\n");
    SW_ASSERT(!out.overflowed); /* paths and states are bounded by the configuration */
    err = sw_stream_send(q->stream, buf, sw_out_done(&out));
    sw_buf_unref(buf);
    return err;
}

static void ask_on_connected(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct check_ask *q = ask_of(arg, s);
    struct sw_check *c = q->check;
    bool is_probe = q == &c->probe;

    if (err != SW_OK) {
        ask_end(q, CHECK_FAILED, 0, "it does not accept connections");
        return;
    }
    if (c->path.len == 0 && !is_probe) {
        ask_end(q, CHECK_ACCEPTED, 0, NULL);
        return;
    }
    if (ask_send(q, is_probe ? c->header.bytes : 0) != SW_OK) {
        ask_end(q, CHECK_UNASKED, 0, NULL);
        return;
    }
    sw_stream_read_start(s);
}

static const struct sw_stream_events ask_events = {
    .connected = ask_on_connected, .recv = ask_on_recv, .end = ask_on_end};

static void ask_on_timeout(struct sw_timer *timer, void *arg)
{
    struct check_ask *q = arg;

    (void)timer;
    SW_ASSERT(q->check->magic == CHECK_MAGIC);
    if (q->stream == NULL) {
        ask_end(q, CHECK_UNASKED, 0, "no connection left for the health check");
    } else {
        ask_end(q, CHECK_FAILED, 0, "it did not answer the health check in time");
    }
}

static void ask_init(struct check_ask *q, struct sw_check *c)
{
    q->check = c;
    q->stream = NULL;
    sw_timer_init(&q->timeout, ask_on_timeout, q);
}

static void ask_start(struct check_ask *q, uint64_t timeout_ns)
{
    struct sw_check *c = q->check;
    enum sw_err err;

    SW_ASSERT(c->magic == CHECK_MAGIC);
    SW_ASSERT(q->stream == NULL);
    SW_ASSERT(c->instance->addr.len > 0);
    q->len = 0;
    q->scanned = 0;
    err = sw_stream_connect(c->loop, &c->instance->addr, &ask_events, q, &q->stream);
    if (err != SW_OK) {
        q->stream = NULL;
        timeout_ns = 0; /* told in the next turn */
    }
    sw_timer_start(c->loop, &q->timeout, sw_loop_now_ns(c->loop) + timeout_ns);
}

static void ask_stop(struct check_ask *q)
{
    sw_timer_stop(q->check->loop, &q->timeout);
    if (q->stream != NULL) {
        sw_stream_close(sw_take(&q->stream));
    }
}

void sw_check__init(struct sw_check *c, struct sw_loop *loop, struct sw_instance *i,
                    struct sw_slice path, sw_check_fn *fn, struct sw_life *life)
{
    c->magic = CHECK_MAGIC;
    c->loop = loop;
    c->instance = i;
    c->path = path;
    c->fn = fn;
    c->life = life;
    c->header.stage = PROBE_NONE;
    ask_init(&c->health, c);
    ask_init(&c->probe, c);
    sw_timer_init(&c->next, sw_health__due, c);
}

void sw_check__start(struct sw_check *c, uint64_t timeout_ns)
{
    ask_start(&c->health, timeout_ns);
}

void sw_check__probe(struct sw_check *c, uint32_t bytes, uint64_t timeout_ns)
{
    c->header.bytes = bytes;
    ask_start(&c->probe, timeout_ns);
}

void sw_check__stop(struct sw_check *c)
{
    SW_ASSERT(c->magic == CHECK_MAGIC);
    ask_stop(&c->health);
    ask_stop(&c->probe);
    sw_timer_stop(c->loop, &c->next);
}
