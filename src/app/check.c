/* app/check.c - one health check: connect, and if the app has a health path, GET it.
 *
 * Room       app/, main thread. io/ for the connection, http/ for the answer's head.
 * Flow       health.c -> sw_check__start -> (connected, answer | end | timeout) -> fn.
 *
 * Only the head is read: 2xx is healthy, whatever the body. The connection is closed after each
 * question, so that an instance with few connections is not kept busy by us.
 */
#include "app/life_priv.h"

static void check_end(struct sw_check *c, enum check_result result, const char *why)
{
    sw_timer_stop(c->loop, &c->timeout);
    if (c->stream != NULL) {
        sw_stream_close(sw_take(&c->stream));
    }
    c->fn(c, c->life, result, why);
}

static struct sw_check *check_of(void *arg, const struct sw_stream *s)
{
    struct sw_check *c = arg;

    SW_ASSERT(c->magic == CHECK_MAGIC);
    SW_ASSERT(c->stream == s);
    return c;
}

static void check_on_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    static const struct sw_h1_limits limits = {CHECK_BYTES, 0};
    struct sw_check *c = check_of(arg, s);
    size_t take = SW_MIN(bytes.len, sizeof c->answer - c->len);

    (void)buf;
    memcpy(c->answer + c->len, bytes.ptr, take);
    c->len += (uint32_t)take;
    for (;;) {
        struct sw_field fields[CHECK_FIELDS];
        struct sw_head head = {.fields = fields, .field_max = CHECK_FIELDS};
        struct sw_parsed p = sw_h1_response(sw_slice_of(c->answer, c->len), &c->scanned, &limits,
                                            SW_METHOD_GET, &head);

        if (p.step == SW_STEP_FAIL) {
            check_end(c, CHECK_BAD, sw_err_text(p.err));
            return;
        }
        if (p.step == SW_STEP_MORE) {
            if (c->len == sizeof c->answer) {
                check_end(c, CHECK_BAD, sw_err_text(SW_E_APP_HEAD_LARGE));
            }
            return;
        }
        if (head.status >= 200) {
            bool ok = head.status < 300;

            check_end(c, ok ? CHECK_OK : CHECK_BAD,
                      ok ? "" : "the health path answers, but not with 2xx");
            return;
        }
        SW_ASSERT(p.consumed <= c->len); /* 1xx: the answer is behind it */
        c->len -= (uint32_t)p.consumed;
        memmove(c->answer, c->answer + p.consumed, c->len);
        c->scanned = 0;
    }
}

static void check_on_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct sw_check *c = check_of(arg, s);

    (void)err;
    check_end(c, CHECK_BAD, "it closed before it answered the health path");
}

static void check_on_connected(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct sw_check *c = check_of(arg, s);
    struct sw_buf *buf;
    struct sw_out out;

    if (err != SW_OK) {
        check_end(c, CHECK_BAD, "it does not accept connections");
        return;
    }
    if (c->path.len == 0) {
        check_end(c, CHECK_OK, "");
        return;
    }
    buf = sw_buf_get(c->loop, SW_BUF_BYTES);
    if (buf == NULL) {
        check_end(c, CHECK_UNKNOWN, "no buffer for the health check");
        return;
    }
    out = sw_out_init(buf->data, buf->cap);
    sw_out_lit(&out, "GET ");
    sw_out_slice(&out, c->path);
    sw_out_lit(&out, " HTTP/1.1\r\nHost: ");
    if (c->instance->addr.sa.sa_family == AF_UNIX) {
        sw_out_lit(&out, "localhost");
    } else {
        sw_out_cstr(&out, c->instance->address);
    }
    sw_out_lit(&out, "\r\nUser-Agent: stateway-health\r\nConnection: close\r\n\r\n");
    SW_ASSERT(!out.overflowed); /* paths are bounded by the configuration */
    err = sw_stream_send(s, buf, sw_out_done(&out));
    sw_buf_unref(buf);
    if (err != SW_OK) {
        check_end(c, CHECK_UNKNOWN, "no room to send the health check");
        return;
    }
    sw_stream_read_start(s);
}

static const struct sw_stream_events check_events = {
    .connected = check_on_connected, .recv = check_on_recv, .end = check_on_end};

static void check_on_timeout(struct sw_timer *timer, void *arg)
{
    struct sw_check *c = arg;

    (void)timer;
    SW_ASSERT(c->magic == CHECK_MAGIC);
    if (c->stream == NULL) {
        check_end(c, CHECK_UNKNOWN, "no connection left for the health check");
    } else {
        check_end(c, CHECK_BAD, "it did not answer the health check in time");
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
    c->stream = NULL;
    sw_timer_init(&c->timeout, check_on_timeout, c);
    sw_timer_init(&c->next, sw_health__due, c);
}

void sw_check__start(struct sw_check *c, uint64_t timeout_ns)
{
    uint64_t now_ns = sw_loop_now_ns(c->loop);
    enum sw_err err;

    SW_ASSERT(c->magic == CHECK_MAGIC);
    SW_ASSERT(c->stream == NULL);
    SW_ASSERT(c->instance->addr.len > 0);
    c->len = 0;
    c->scanned = 0;
    err = sw_stream_connect(c->loop, &c->instance->addr, &check_events, c, &c->stream);
    if (err != SW_OK) {
        c->stream = NULL;
        timeout_ns = 0; /* told in the next turn */
    }
    sw_timer_start(c->loop, &c->timeout, now_ns + timeout_ns);
}

void sw_check__stop(struct sw_check *c)
{
    SW_ASSERT(c->magic == CHECK_MAGIC);
    sw_timer_stop(c->loop, &c->timeout);
    sw_timer_stop(c->loop, &c->next);
    if (c->stream != NULL) {
        sw_stream_close(sw_take(&c->stream));
    }
}
