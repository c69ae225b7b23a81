/* tests/unit/io/world.c - see world.h. */
#include "world.h"

#include <unistd.h>

static void watchdog_fired(struct sw_timer *t, void *arg)
{
    struct world *w = arg;

    (void)t;
    w->timed_out = true;
    sw_loop_stop(w->loop);
}

static void later_fired(struct sw_timer *t, void *arg)
{
    struct world *w = arg;

    (void)t;
    w->later_fn(w);
}

void world_listen(struct world *w, sw_accept_fn *accept)
{
    assert_int_equal(sw_listener_open(w->loop, w->fd, accept, w, &w->listener), SW_OK);
}

void world_open(struct world *w, enum sw_engine engine, const struct sw_loop_options *opt,
                enum family family, sw_accept_fn *accept, void *user)
{
    struct sw_loop_options o = {
        .streams_max = 64, .buffers_max = 64, .large_max = 4, .large_bytes = 65536};
    char path[64];
    socklen_t len;
    enum sw_err err;

    memset(w, 0, sizeof(*w));
    w->fd = -1;
    w->user = user;
    if (opt != NULL) {
        o = *opt;
    }
    o.engine = engine;
    err = sw_loop_new(&o, &w->loop);
    if (err == SW_E_UNSUPPORTED) {
        skip();
    }
    assert_int_equal(err, SW_OK);
    sw_timer_init(&w->watchdog, watchdog_fired, w);
    sw_timer_init(&w->later, later_fired, w);
    switch (family) {
    case FAMILY_TCP:
        assert_int_equal(sw_addr_parse(SW_S("127.0.0.1:0"), false, &w->addr), SW_OK);
        break;
    case FAMILY_TCP6:
        assert_int_equal(sw_addr_parse(SW_S("[::1]:0"), false, &w->addr), SW_OK);
        break;
    case FAMILY_UNIX:
        snprintf(path, sizeof(path), "unix:/tmp/sw-io-test-%d", (int)getpid());
        assert_int_equal(sw_addr_parse(sw_slice_cstr(path), false, &w->addr), SW_OK);
        break;
    case FAMILY_NONE:
        return;
    }
    assert_int_equal(sw_listen_socket(&w->addr, false, 4096, &w->fd), SW_OK);
    if (family != FAMILY_UNIX) {
        len = sizeof(w->addr.un);
        assert_int_equal(getsockname(w->fd, &w->addr.sa, &len), 0);
        w->addr.len = len;
    }
    if (accept != NULL) {
        world_listen(w, accept);
    }
}

void world_run(struct world *w)
{
    sw_timer_start(w->loop, &w->watchdog, sw_loop_clock_ns(w->loop) + 20 * SW_NS_PER_S);
    sw_loop_run(w->loop);
    sw_timer_stop(w->loop, &w->watchdog);
    assert_false(w->timed_out);
}

void world_later(struct world *w, unsigned ms, void (*fn)(struct world *w))
{
    w->later_fn = fn;
    sw_timer_start(w->loop, &w->later, sw_loop_clock_ns(w->loop) + ms * SW_NS_PER_MS);
}

void world_stop(struct world *w)
{
    sw_loop_stop(w->loop);
}

void world_close(struct world *w)
{
    sw_loop_free(w->loop);
    if (w->fd >= 0) {
        close(w->fd);
        if (w->addr.sa.sa_family == AF_UNIX) {
            unlink(w->addr.un.sun_path);
        }
    }
}

/* ---- peers ----------------------------------------------------------------------------------- */

static void peer_connected(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct peer *p = arg;

    assert_ptr_equal(p->s, s);
    p->connects++;
    p->connect_err = err;
    if (p->on_connected != NULL) {
        p->on_connected(p);
    }
}

static void peer_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct peer *p = arg;

    assert_ptr_equal(p->s, s);
    assert_true(bytes.len > 0);
    assert_true(bytes.ptr >= buf->data && bytes.ptr + bytes.len <= buf->data + buf->cap);
    assert_int_equal(p->ends, 0);
    if (p->check) {
        for (size_t i = 0; i < bytes.len; i++) {
            if (bytes.ptr[i] != pattern(p->received + i)) {
                fail_msg("byte %llu is wrong", (unsigned long long)(p->received + i));
            }
        }
    }
    p->recvs++;
    p->received += bytes.len;
    if (p->echo) {
        assert_int_equal(sw_stream_send(s, buf, bytes), SW_OK);
        if (sw_stream_queued(s) > 64 * 1024) {
            sw_stream_read_stop(s);
        }
    }
    if (p->on_recv != NULL) {
        p->on_recv(p, buf, bytes);
    }
}

static void peer_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct peer *p = arg;

    assert_ptr_equal(p->s, s);
    p->ends++;
    p->end_err = err;
    if (p->on_end != NULL) {
        p->on_end(p);
    }
}

static void peer_sent(struct sw_stream *s, void *arg)
{
    struct peer *p = arg;

    assert_ptr_equal(p->s, s);
    assert_int_equal(sw_stream_queued(s), 0);
    p->sents++;
    if (p->echo) {
        sw_stream_read_start(s);
    }
    if (p->on_sent != NULL) {
        p->on_sent(p);
    }
}

const struct sw_stream_events peer_events = {peer_connected, peer_recv, peer_end, peer_sent};

void peer_connect(struct peer *p)
{
    assert_int_equal(sw_stream_connect(p->w->loop, &p->w->addr, &peer_events, p, &p->s), SW_OK);
}

void peer_attach(struct peer *p, struct sw_stream *s)
{
    p->s = s;
    sw_stream_attach(s, &peer_events, p);
}

void peer_pump(struct peer *p)
{
    while (p->sent < p->to_send && sw_stream_queued(p->s) < 64 * 1024) {
        struct sw_buf *b = sw_buf_get(p->w->loop, SW_BUF_BYTES);
        size_t n = (size_t)SW_MIN(p->to_send - p->sent, (uint64_t)SW_BUF_BYTES);

        assert_non_null(b);
        for (size_t i = 0; i < n; i++) {
            b->data[i] = pattern(p->sent + i);
        }
        assert_int_equal(sw_stream_send(p->s, b, sw_slice_of(b->data, n)), SW_OK);
        sw_buf_unref(b);
        p->sent += n;
    }
}

void peer_send_text(struct peer *p, const char *text)
{
    assert_int_equal(sw_stream_send(p->s, NULL, sw_slice_cstr(text)), SW_OK);
}

void peer_tiny(struct peer *p)
{
    int bytes = 4096;

    assert_int_equal(setsockopt(p->s->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
    assert_int_equal(setsockopt(p->s->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
}
