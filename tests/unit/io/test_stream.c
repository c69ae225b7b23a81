/* tests/unit/io/test_stream.c - streams on each engine: bytes, ends, pressure, closing anywhere. */
#include "world.h"

#include <errno.h>
#include <unistd.h>

static struct peer server, client;

static void fresh(struct world *w)
{
    memset(&server, 0, sizeof(server));
    memset(&client, 0, sizeof(client));
    server.w = w;
    client.w = w;
}

static void stop_at_end(struct peer *p)
{
    sw_loop_stop(p->w->loop);
}

static void accept_server(struct sw_stream *s, void *arg)
{
    struct world *w = arg;

    assert_ptr_equal(w->loop, sw_stream_loop(s));
    peer_attach(&server, s);
    sw_stream_read_start(s);
}

static void accept_tiny(struct sw_stream *s, void *arg)
{
    accept_server(s, arg);
    peer_tiny(&server);
}

/* ---- echo ------------------------------------------------------------------------------------ */

static void echo_client_connected(struct peer *p)
{
    assert_int_equal(p->connect_err, SW_OK);
    sw_stream_read_start(p->s);
    peer_pump(p);
}

static void echo_client_recv(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)buf;
    (void)bytes;
    if (p->received == p->to_send) {
        sw_stream_shutdown(p->s);
    }
}

static void echo_server_end(struct peer *p)
{
    assert_int_equal(p->end_err, SW_E_CLOSED);
    sw_stream_close(p->s);
}

static void echo(void **state, enum family family, uint64_t bytes, bool tiny)
{
    struct world w;
    struct sw_loop_stats stats;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, family, tiny ? accept_tiny : accept_server, NULL);
    server.echo = true;
    server.check = true;
    server.on_end = echo_server_end;
    client.to_send = bytes;
    client.check = true;
    client.on_connected = echo_client_connected;
    client.on_recv = echo_client_recv;
    client.on_sent = peer_pump;
    client.on_end = stop_at_end;
    peer_connect(&client);
    if (tiny) {
        peer_tiny(&client);
    }
    world_run(&w);
    assert_int_equal(client.received, bytes);
    assert_int_equal(server.received, bytes);
    assert_int_equal(client.end_err, SW_E_CLOSED);
    assert_int_equal(client.ends, 1);
    assert_int_equal(server.ends, 1);
    assert_true(client.sents > 0);
    sw_stream_close(client.s);
    world_later(&w, 1, world_stop);
    world_run(&w);
    sw_loop_stats(w.loop, &stats);
    assert_int_equal(stats.streams, 0);
    assert_int_equal(stats.pieces, 0);
    assert_int_equal(stats.buffers, 0);
    assert_int_equal(stats.accepts, 1);
    world_close(&w);
}

static void echo_small(void **state)
{
    echo(state, FAMILY_TCP, 100, false);
}

static void echo_large(void **state)
{
    echo(state, FAMILY_TCP, 32 << 20, false);
}

static void echo_tiny_buffers(void **state)
{
    echo(state, FAMILY_TCP, 100000, true);
}

static void echo_tcp6(void **state)
{
    echo(state, FAMILY_TCP6, 1 << 20, false);
}

static void echo_unix(void **state)
{
    echo(state, FAMILY_UNIX, 8 << 20, false);
}

static void echo_unix_tiny_buffers(void **state)
{
    echo(state, FAMILY_UNIX, 500000, true);
}

/* ---- back-pressure --------------------------------------------------------------------------- */

static void stop_after_first(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)buf;
    (void)bytes;
    if (p->recvs == 1) {
        sw_stream_read_stop(p->s);
    }
    if (p->received == client.to_send) {
        sw_loop_stop(p->w->loop);
    }
}

static void pump_when_connected(struct peer *p)
{
    assert_int_equal(p->connect_err, SW_OK);
    peer_pump(p);
}

static void check_stopped(struct world *w)
{
    assert_int_equal(server.recvs, 1); /* not one call more */
    assert_true(sw_stream_queued(client.s) > 0);
    assert_true(client.sent < client.to_send);
    assert_false(sw_stream_reading(server.s));
    (void)w;
    sw_stream_read_start(server.s);
}

static void read_stop_stops(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_tiny, NULL);
    server.check = true;
    server.on_recv = stop_after_first;
    client.to_send = 300000;
    client.on_connected = pump_when_connected;
    client.on_sent = peer_pump;
    peer_connect(&client);
    peer_tiny(&client);
    world_later(&w, 100, check_stopped);
    world_run(&w);
    assert_int_equal(server.received, client.to_send);
    world_close(&w);
}

/* Stopping and starting at each message must lose and reorder nothing. */
static void toggle_recv(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)buf;
    (void)bytes;
    sw_stream_read_stop(p->s);
    if (p->received == client.to_send) {
        sw_loop_stop(p->w->loop);
        return;
    }
    if (p->recvs % 3 == 0) {
        sw_stream_read_start(p->s);
    }
}

static void toggle_tick(struct world *w)
{
    if (server.s != NULL && !sw_stream_reading(server.s)) {
        sw_stream_read_start(server.s);
    }
    world_later(w, 1, toggle_tick);
}

static void read_toggled(void **state)
{
    struct sw_loop_options opt = {.streams_max = 8, .buffers_max = 512};
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), &opt, FAMILY_TCP, accept_server, NULL);
    server.check = true;
    server.on_recv = toggle_recv;
    client.to_send = 2 << 20;
    client.on_connected = pump_when_connected;
    client.on_sent = peer_pump;
    peer_connect(&client);
    world_later(&w, 1, toggle_tick);
    world_run(&w);
    assert_int_equal(server.received, client.to_send);
    world_close(&w);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void hello_connected(struct peer *p)
{
    assert_int_equal(p->connect_err, SW_OK);
    sw_stream_read_start(p->s);
    peer_send_text(p, "hello");
    sw_stream_shutdown(p->s);
}

static void bye_at_end(struct peer *p)
{
    assert_int_equal(p->end_err, SW_E_CLOSED);
    assert_int_equal(p->received, 5);
    peer_send_text(p, "good ");
    peer_send_text(p, "bye");
    sw_stream_shutdown(p->s);
}

static void half_close(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_server, NULL);
    server.on_end = bye_at_end;
    client.on_connected = hello_connected;
    client.on_end = stop_at_end;
    peer_connect(&client);
    world_run(&w);
    assert_int_equal(client.received, 8);
    assert_int_equal(client.end_err, SW_E_CLOSED);
    assert_int_equal(client.ends, 1);
    sw_stream_close(client.s);
    sw_stream_close(server.s);
    world_close(&w);
}

/* EOF while stopped is told when reading starts, behind the bytes. */
static void accept_stopped(struct sw_stream *s, void *arg)
{
    (void)arg;
    peer_attach(&server, s);
}

static void start_server(struct world *w)
{
    (void)w;
    assert_int_equal(server.ends, 0);
    assert_int_equal(server.recvs, 0);
    sw_stream_read_start(server.s);
}

static void eof_waits_for_reader(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_stopped, NULL);
    server.on_end = stop_at_end;
    client.on_connected = hello_connected;
    peer_connect(&client);
    world_later(&w, 50, start_server);
    world_run(&w);
    assert_int_equal(server.received, 5);
    assert_int_equal(server.end_err, SW_E_CLOSED);
    assert_int_equal(server.ends, 1);
    world_close(&w);
}

static void reset_now(struct world *w)
{
    struct linger hard = {1, 0};

    (void)w;
    assert_int_equal(setsockopt(client.s->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
    sw_stream_close(client.s);
}

static void reset_tells(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_server, NULL);
    server.on_end = stop_at_end;
    peer_connect(&client);
    world_later(&w, 20, reset_now);
    world_run(&w);
    assert_int_equal(server.end_err, SW_E_RESET);
    assert_int_equal(server.ends, 1);
    peer_send_text(&server, "into the void"); /* swallowed */
    assert_int_equal(sw_stream_queued(server.s), 0);
    sw_stream_close(server.s);
    world_close(&w);
}

static void stop_server_then_reset(struct world *w)
{
    sw_stream_read_stop(server.s);
    world_later(w, 20, reset_now);
}

static void reset_tells_when_stopped(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_server, NULL);
    server.on_end = stop_at_end;
    peer_connect(&client);
    world_later(&w, 20, stop_server_then_reset);
    world_run(&w);
    assert_int_equal(server.end_err, SW_E_RESET);
    sw_stream_linger(server.s, sw_loop_now_ns(w.loop) + SW_NS_PER_S);
    world_close(&w);
}

static void reset_tells_when_never_started(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_stopped, NULL);
    server.on_end = stop_at_end;
    peer_connect(&client);
    world_later(&w, 20, reset_now);
    world_run(&w);
    assert_int_equal(server.end_err, SW_E_RESET);
    world_close(&w);
}

/* The server answers early and closes with the upload unread: the answer is read before the end. */
static void early_answer_connected(struct peer *p)
{
    sw_stream_read_start(p->s);
    p->to_send = 16 << 20;
    peer_pump(p);
}

static void early_answer(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)buf;
    (void)bytes;
    p->on_recv = NULL;
    peer_send_text(p, "413");
    sw_stream_read_stop(p->s);
}

static void close_server(struct peer *p)
{
    sw_stream_close(p->s);
}

static void early_answer_is_read(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_UNIX, accept_server, NULL);
    server.on_recv = early_answer;
    server.on_sent = close_server;
    client.on_connected = early_answer_connected;
    client.on_sent = peer_pump;
    client.on_end = stop_at_end;
    peer_connect(&client);
    world_run(&w);
    assert_int_equal(client.received, 3);
    assert_int_equal(client.ends, 1);
    assert_true(client.end_err == SW_E_RESET || client.end_err == SW_E_CLOSED);
    world_close(&w);
}

static void refused_connected(struct peer *p)
{
    assert_int_equal(p->connect_err, SW_E_REFUSED);
    sw_stream_close(p->s);
    sw_loop_stop(p->w->loop);
}

static void refused(void **state, enum family family)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, family, NULL, NULL);
    close(w.fd);
    if (family == FAMILY_UNIX) {
        unlink(w.addr.un.sun_path);
    }
    w.fd = -1;
    client.on_connected = refused_connected;
    peer_connect(&client);
    peer_send_text(&client, "nobody");    /* dropped with the stream */
    assert_int_equal(client.connects, 0); /* no callback inside a call */
    world_run(&w);
    assert_int_equal(client.connects, 1);
    assert_int_equal(client.ends, 0);
    world_close(&w);
}

static void refused_tcp(void **state)
{
    refused(state, FAMILY_TCP);
}

static void refused_unix(void **state)
{
    refused(state, FAMILY_UNIX);
}

/* A Unix socket with a full backlog: connect waits, as TCP does. */
static struct peer crowd[8];
static unsigned crowd_connected;

static void crowd_in(struct peer *p)
{
    assert_int_equal(p->connect_err, SW_OK);
    crowd_connected++;
    if (crowd_connected == SW_COUNTOF(crowd)) {
        sw_loop_stop(p->w->loop);
    }
}

static void accept_and_close(struct sw_stream *s, void *arg)
{
    (void)arg;
    sw_stream_close(s);
}

static void open_late(struct world *w)
{
    assert_true(crowd_connected < SW_COUNTOF(crowd));
    world_listen(w, accept_and_close);
}

static void unix_backlog_full(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_UNIX, NULL, NULL);
    assert_int_equal(listen(w.fd, 1), 0);
    crowd_connected = 0;
    for (size_t i = 0; i < SW_COUNTOF(crowd); i++) {
        crowd[i] = (struct peer){.w = &w, .on_connected = crowd_in};
        peer_connect(&crowd[i]);
    }
    world_later(&w, 30, open_late);
    world_run(&w);
    world_close(&w);
}

/* ---- closing inside callbacks ---------------------------------------------------------------- */

#define PAIRS 16

static struct {
    struct peer in[PAIRS], out[PAIRS];
    unsigned accepted, dead, connected;
} many;

static void many_accept(struct sw_stream *s, void *arg)
{
    struct peer *p;

    (void)arg;
    if (many.accepted == PAIRS) { /* of close_all_others */
        sw_stream_close(s);
        return;
    }
    p = &many.in[many.accepted++];
    p->w = many.out[0].w;
    peer_attach(p, s);
    sw_stream_read_start(s);
}

/* Closes everybody else, whose events of the same turn must vanish; and takes new slots at once. */
static void close_all_others(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)buf;
    (void)bytes;
    for (unsigned i = 0; i < PAIRS; i++) {
        if (many.in[i].s != NULL && &many.in[i] != p) {
            sw_stream_close(many.in[i].s);
            many.in[i].s = NULL; /* a later event fails in peer_recv */
        }
    }
    sw_stream_close(p->s);
    p->s = NULL;
    for (unsigned i = 0; i < PAIRS; i++) {
        crowd[i % SW_COUNTOF(crowd)] = (struct peer){.w = p->w};
        peer_connect(&crowd[i % SW_COUNTOF(crowd)]); /* no event for a foreign slot */
        sw_stream_close(crowd[i % SW_COUNTOF(crowd)].s);
    }
    world_later(p->w, 20, world_stop);
}

static void many_connected(struct peer *p)
{
    assert_int_equal(p->connect_err, SW_OK);
    many.connected++;
    if (many.connected == PAIRS) {
        for (unsigned i = 0; i < PAIRS; i++) {
            peer_send_text(&many.out[i], "x");
        }
    }
}

static void close_others_in_recv(void **state)
{
    struct world w;

    memset(&many, 0, sizeof(many));
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, many_accept, NULL);
    for (unsigned i = 0; i < PAIRS; i++) {
        many.out[i] = (struct peer){.w = &w, .on_connected = many_connected};
        many.in[i].on_recv = close_all_others;
        peer_connect(&many.out[i]);
    }
    world_run(&w);
    world_close(&w);
}

static void close_self(struct peer *p)
{
    sw_stream_close(p->s);
    p->s = NULL;
    world_later(p->w, 10, world_stop);
}

static void close_self_recv(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)buf;
    (void)bytes;
    close_self(p);
}

static void send_connected(struct peer *p)
{
    p->to_send = 200000;
    peer_pump(p);
}

static void close_self_anywhere(void **state)
{
    static const struct {
        void (*connected)(struct peer *p);
        void (*sent)(struct peer *p);
        void (*recv)(struct peer *p, struct sw_buf *buf, struct sw_slice bytes);
        void (*end)(struct peer *p);
    } rows[] = {
        {close_self, NULL, NULL, NULL},
        {send_connected, close_self, NULL, NULL},
        {send_connected, NULL, close_self_recv, NULL},
        {send_connected, close_self, close_self_recv, NULL},
        {close_self, NULL, NULL, close_self},
    };

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct world w;

        fresh(&w);
        world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_server, NULL);
        client.on_connected = rows[i].connected;
        client.on_sent = rows[i].sent;
        server.on_recv = rows[i].recv;
        server.on_end = rows[i].end;
        peer_connect(&client);
        world_run(&w);
        world_close(&w);
    }
}

/* What is open when the loop is freed is closed without events, buffers in flight included. */
static void free_in_the_middle(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_stopped, NULL);
    client.on_connected = pump_when_connected;
    client.to_send = 16 << 20;
    client.on_sent = peer_pump;
    peer_connect(&client);
    peer_tiny(&client);
    world_later(&w, 200, world_stop);
    world_run(&w);
    assert_true(sw_stream_queued(client.s) > 0);
    world_close(&w);
}

static void free_before_run(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_server, NULL);
    peer_connect(&client);
    peer_send_text(&client, "never");
    world_close(&w);
}

/* ---- linger ---------------------------------------------------------------------------------- */

#define ANSWER_BYTES (1u << 20)

/* Answers after the first bytes, and lingers at once, while the client goes on sending. */
static void answer_and_linger(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)buf;
    (void)bytes;
    p->to_send = ANSWER_BYTES;
    while (p->sent < p->to_send) {
        struct sw_buf *b = sw_buf_get(p->w->loop, SW_BUF_BYTES);

        assert_non_null(b);
        for (size_t i = 0; i < SW_BUF_BYTES; i++) {
            b->data[i] = pattern(p->sent + i);
        }
        assert_int_equal(sw_stream_send(p->s, b, sw_slice_of(b->data, SW_BUF_BYTES)), SW_OK);
        sw_buf_unref(b);
        p->sent += SW_BUF_BYTES;
    }
    sw_stream_linger(p->s, sw_loop_now_ns(p->w->loop) + 10 * SW_NS_PER_S);
    p->s = NULL;
}

static void accept_tiny_sends(struct sw_stream *s, void *arg)
{
    int bytes = 4096;

    accept_server(s, arg);
    assert_int_equal(setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
}

static void start_reading_late(struct world *w)
{
    (void)w;
    sw_stream_read_start(client.s);
}

static void linger_delivers(void **state)
{
    struct sw_loop_options opt = {.streams_max = 8, .buffers_max = 256};
    struct world w;
    struct sw_loop_stats stats;

    fresh(&w);
    world_open(&w, ENGINE(state), &opt, FAMILY_TCP, accept_tiny_sends, NULL);
    server.on_recv = answer_and_linger;
    client.to_send = 4 << 20;
    client.on_connected = pump_when_connected;
    client.on_sent = peer_pump;
    client.check = true;
    client.on_end = stop_at_end;
    peer_connect(&client);
    world_later(&w, 50, start_reading_late);
    world_run(&w);
    assert_int_equal(client.received, ANSWER_BYTES);
    assert_int_equal(client.end_err, SW_E_CLOSED);
    assert_int_equal(server.ends, 0);
    sw_stream_close(client.s);
    world_later(&w, 100, world_stop);
    world_run(&w);
    sw_loop_stats(w.loop, &stats);
    assert_int_equal(stats.streams, 0); /* the lingering one saw the end */
    assert_int_equal(stats.buffers, 0);
    world_close(&w);
}

static void linger_once(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)buf;
    (void)bytes;
    sw_stream_linger(p->s, sw_loop_now_ns(p->w->loop) + 50 * SW_NS_PER_MS);
}

static void say_hello(struct peer *p)
{
    peer_send_text(p, "hello");
}

static void linger_has_a_deadline(void **state)
{
    struct world w;
    struct sw_loop_stats stats;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_server, NULL);
    server.on_recv = linger_once;
    client.on_connected = say_hello; /* and never closes */
    peer_connect(&client);
    world_later(&w, 30, world_stop);
    world_run(&w);
    sw_loop_stats(w.loop, &stats);
    assert_int_equal(stats.streams, 2);
    world_later(&w, 60, world_stop);
    world_run(&w);
    sw_loop_stats(w.loop, &stats);
    assert_int_equal(stats.streams, 1);
    world_close(&w);
}

/* ---- budgets --------------------------------------------------------------------------------- */

static void keep_buffer(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)bytes;
    if (p->kept < SW_COUNTOF(p->keep)) {
        p->keep[p->kept++] = sw_buf_ref(buf);
    }
    if (p->received == client.to_send) {
        sw_loop_stop(p->w->loop);
    }
}

static uint64_t received_when_full;

static void release_kept(struct world *w)
{
    struct sw_loop_stats stats;

    (void)w;
    if (received_when_full == 0) {
        received_when_full = server.received;
        assert_true(server.received < client.to_send); /* the budget stopped it */
        sw_loop_stats(w->loop, &stats);
        assert_true(stats.buffers >= stats.buffers_max);
        assert_null(sw_buf_get(w->loop, 1));
    }
    while (server.kept > 0) {
        sw_buf_unref(server.keep[--server.kept]);
    }
    world_later(w, 5, release_kept);
}

static void free_client_source(struct peer *p)
{
    static char bytes[8 << 20];

    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = pattern(i);
    }
    p->to_send = sizeof(bytes);
    assert_int_equal(sw_stream_send(p->s, NULL, sw_slice_of(bytes, sizeof(bytes))), SW_OK);
}

static void buffers_run_out_and_recover(void **state)
{
    struct sw_loop_options opt = {.streams_max = 8, .buffers_max = 4};
    struct world w;
    struct sw_loop_stats stats;

    fresh(&w);
    received_when_full = 0;
    world_open(&w, ENGINE(state), &opt, FAMILY_TCP, accept_server, NULL);
    server.check = true;
    server.on_recv = keep_buffer;
    client.on_connected = free_client_source;
    peer_connect(&client);
    world_later(&w, 50, release_kept);
    world_run(&w);
    assert_int_equal(server.received, client.to_send);
    while (server.kept > 0) {
        sw_buf_unref(server.keep[--server.kept]);
    }
    sw_stream_close(server.s);
    world_later(&w, 10, world_stop);
    world_run(&w);
    sw_loop_stats(w.loop, &stats);
    assert_int_equal(stats.buffers, 0);
    world_close(&w);
}

static void pieces_run_out(void **state)
{
    struct sw_loop_options opt = {.streams_max = 8, .buffers_max = 16, .pieces_max = 4};
    struct world w;
    static const char text[] = "abcdefghij";
    enum sw_err err = SW_OK;
    unsigned queued = 0;

    fresh(&w);
    world_open(&w, ENGINE(state), &opt, FAMILY_TCP, accept_server, NULL);
    peer_connect(&client);
    while (queued < 10 && err == SW_OK) { /* every second byte, so that nothing joins up */
        err = sw_stream_send(client.s, NULL, sw_slice_of(text + queued % 5 * 2, 1));
        queued += err == SW_OK;
    }
    assert_int_equal(err, SW_E_NO_BUFFERS);
    assert_int_equal(queued, 4);
    assert_int_equal(sw_stream_queued(client.s), 4);
    world_later(&w, 20, world_stop);
    world_run(&w);
    assert_int_equal(server.received, 4);
    assert_int_equal(sw_stream_send(client.s, NULL, SW_S("again")), SW_OK);
    world_close(&w);
}

static void buffer_sizes(void **state)
{
    struct world w;
    struct sw_buf *a, *b, *large[4];
    struct sw_loop_stats stats;

    world_open(&w, ENGINE(state), NULL, FAMILY_NONE, NULL, NULL);
    a = sw_buf_get(w.loop, 0);
    b = sw_buf_get(w.loop, SW_BUF_BYTES);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(a->cap, SW_BUF_BYTES);
    for (size_t i = 0; i < SW_COUNTOF(large); i++) {
        large[i] = sw_buf_get(w.loop, SW_BUF_BYTES + 1);
        assert_non_null(large[i]);
        assert_int_equal(large[i]->cap, 65536);
        memset(large[i]->data, 1, large[i]->cap);
    }
    assert_null(sw_buf_get(w.loop, SW_BUF_BYTES + 1));
    assert_null(sw_buf_get(w.loop, 65537));
    sw_loop_stats(w.loop, &stats);
    assert_int_equal(stats.buffers, 2);
    assert_int_equal(stats.large, 4);
    for (size_t i = 0; i < SW_COUNTOF(large); i++) {
        sw_buf_unref(large[i]);
    }
    sw_buf_unref(a);
    sw_buf_unref(sw_buf_ref(b));
    sw_buf_unref(b);
    sw_buf_unref(NULL);
    sw_loop_stats(w.loop, &stats);
    assert_int_equal(stats.buffers, 0);
    assert_int_equal(stats.large, 0);
    world_close(&w);
}

static void streams_run_out(void **state)
{
    struct sw_loop_options opt = {.streams_max = 2, .buffers_max = 16};
    struct world w;
    struct sw_stream *s;

    fresh(&w);
    world_open(&w, ENGINE(state), &opt, FAMILY_TCP, NULL, NULL);
    peer_connect(&client);
    peer_connect(&server);
    assert_int_equal(sw_stream_connect(w.loop, &w.addr, &peer_events, &client, &s), SW_E_LIMIT);
    sw_stream_close(client.s);
    peer_connect(&client); /* a closed one makes room at once */
    world_close(&w);
}

/* ---- adopted sockets, addresses -------------------------------------------------------------- */

static void stop_when_all(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)buf;
    (void)bytes;
    if (p->received == client.to_send) {
        sw_loop_stop(p->w->loop);
    }
}

static void adopted(void **state)
{
    struct world w;
    int fds[2];

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_NONE, NULL, NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(sw_stream_adopt(w.loop, fds[0], &peer_events, &client, &client.s), SW_OK);
    assert_int_equal(sw_stream_adopt(w.loop, fds[1], &peer_events, &server, &server.s), SW_OK);
    sw_stream_read_start(server.s);
    server.check = true;
    server.on_recv = stop_when_all;
    client.to_send = 1 << 20;
    client.on_sent = peer_pump;
    peer_pump(&client);
    world_run(&w);
    assert_int_equal(server.received, client.to_send);
    world_close(&w);
}

static void addresses_known(struct peer *p)
{
    char text[SW_ADDR_TEXT_MAX];

    assert_true(sw_slice_eq(sw_addr_host(sw_stream_peer(p->s), text), SW_S("127.0.0.1")));
    assert_int_equal(sw_addr_port(sw_stream_peer(p->s)), sw_addr_port(&p->w->addr));
    assert_int_equal(sw_addr_port(sw_stream_local(p->s)), sw_addr_port(sw_stream_peer(server.s)));
    assert_int_equal(sw_addr_port(sw_stream_local(server.s)), sw_addr_port(&p->w->addr));
    sw_loop_stop(p->w->loop);
}

static void addresses_later(struct world *w)
{
    (void)w;
    addresses_known(&client);
}

static void addresses(void **state)
{
    struct world w;

    fresh(&w);
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_server, NULL);
    peer_connect(&client);
    world_later(&w, 20, addresses_later);
    world_run(&w);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(echo_small),
        ON_BOTH(echo_large),
        ON_BOTH(echo_tiny_buffers),
        ON_BOTH(echo_tcp6),
        ON_BOTH(echo_unix),
        ON_BOTH(echo_unix_tiny_buffers),
        ON_BOTH(read_stop_stops),
        ON_BOTH(read_toggled),
        ON_BOTH(half_close),
        ON_BOTH(eof_waits_for_reader),
        ON_BOTH(reset_tells),
        ON_BOTH(reset_tells_when_stopped),
        ON_BOTH(reset_tells_when_never_started),
        ON_BOTH(early_answer_is_read),
        ON_BOTH(refused_tcp),
        ON_BOTH(refused_unix),
        ON_BOTH(unix_backlog_full),
        ON_BOTH(close_others_in_recv),
        ON_BOTH(close_self_anywhere),
        ON_BOTH(free_in_the_middle),
        ON_BOTH(free_before_run),
        ON_BOTH(linger_delivers),
        ON_BOTH(linger_has_a_deadline),
        ON_BOTH(buffers_run_out_and_recover),
        ON_BOTH(pieces_run_out),
        ON_BOTH(buffer_sizes),
        ON_BOTH(streams_run_out),
        ON_BOTH(adopted),
        ON_BOTH(addresses),
    };

    return cmocka_run_group_tests_name("io/stream", tests, NULL, NULL);
}
