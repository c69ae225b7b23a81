/* The sim engine: what a network promises, under every fault; and one seed, one run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/sim.h"

#define CLIENTS 6u

static const struct sw_loop_options roomy = {
    .streams_max = 64, .buffers_max = 128, .large_max = 2, .large_bytes = 65536};

static struct sw_addr addr_of(const char *text)
{
    struct sw_addr a;

    assert_int_equal(sw_addr_parse(sw_slice_cstr(text), false, &a), SW_OK);
    return a;
}

static char pattern(uint64_t who, uint64_t i)
{
    return (char)(uint8_t)(who * 101 + i * 31 + (i >> 8) * 7);
}

/* ---- an echo server with back-pressure ------------------------------------------------------- */

struct echo_conn {
    struct sw_stream *s;
    bool over; /* the peer half-closed */
};

struct echo {
    struct sw_loop *loop;
    struct sw_listener *listener;
    struct echo_conn conns[64];
    uint32_t accepted, eofs, broken;
    bool deaf; /* accepts and does not read */
};

static void echo_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct echo_conn *c = arg;

    if (sw_stream_send(s, buf, bytes) != SW_OK) {
        sw_stream_close(s);
        c->s = NULL;
        return;
    }
    if (sw_stream_queued(s) > 3000) {
        sw_stream_read_stop(s);
    }
}

static void echo_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct echo_conn *c = arg;

    if (err == SW_E_CLOSED) {
        assert_false(c->over); /* told once */
        c->over = true;
        sw_stream_linger(s, sw_loop_now_ns(sw_stream_loop(s)) + 60 * SW_NS_PER_S);
    } else {
        sw_stream_close(s);
    }
    c->s = NULL;
}

static void echo_sent(struct sw_stream *s, void *arg)
{
    (void)arg;
    if (!sw_stream_reading(s)) {
        sw_stream_read_start(s);
    }
}

static const struct sw_stream_events echo_events = {NULL, echo_recv, echo_end, echo_sent};

static void echo_accept(struct sw_stream *s, void *arg)
{
    struct echo *e = arg;
    struct echo_conn *c = &e->conns[e->accepted++ % SW_COUNTOF(e->conns)];

    *c = (struct echo_conn){.s = s};
    sw_stream_attach(s, &echo_events, c);
    if (!e->deaf) {
        sw_stream_read_start(s);
    }
}

/* ---- clients --------------------------------------------------------------------------------- */

struct client {
    struct sw_loop *loop;
    struct sw_stream *s;
    struct sw_timer timer;
    uint64_t who, to_send, sent, received;
    uint32_t connects, ends;
    enum sw_err connect_err, end_err;
    bool done;
};

static void client_pump(struct client *c)
{
    while (c->sent < c->to_send && sw_stream_queued(c->s) < 30000) {
        struct sw_buf *b = sw_buf_get(c->loop, SW_BUF_BYTES);
        size_t n = (size_t)SW_MIN(c->to_send - c->sent, 5000u);

        if (b == NULL) {
            sw_timer_start(c->loop, &c->timer, sw_loop_now_ns(c->loop) + SW_NS_PER_MS);
            return;
        }
        for (size_t i = 0; i < n; i++) {
            b->data[i] = pattern(c->who, c->sent + i);
        }
        if (sw_stream_send(c->s, b, sw_slice_of(b->data, n)) != SW_OK) {
            sw_buf_unref(b);
            sw_timer_start(c->loop, &c->timer, sw_loop_now_ns(c->loop) + SW_NS_PER_MS);
            return;
        }
        sw_buf_unref(b);
        c->sent += n;
    }
    if (c->sent == c->to_send) {
        sw_stream_shutdown(c->s);
        c->to_send = 0; /* once */
    }
}

static void client_again(struct sw_timer *t, void *arg)
{
    struct client *c = arg;

    assert_ptr_equal(t, &c->timer);
    if (c->s != NULL && c->to_send != 0) {
        client_pump(c);
    }
}

static void client_close(struct client *c)
{
    sw_timer_stop(c->loop, &c->timer);
    if (c->s != NULL) {
        sw_stream_close(c->s);
        c->s = NULL;
    }
}

static void client_connected(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct client *c = arg;

    assert_ptr_equal(s, c->s);
    c->connects++;
    c->connect_err = err;
    if (err != SW_OK) {
        client_close(c);
        return;
    }
    sw_stream_read_start(s);
    client_pump(c);
}

static void client_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct client *c = arg;

    assert_ptr_equal(s, c->s);
    assert_true(bytes.ptr >= buf->data);
    assert_true(c->received + bytes.len <= c->sent);
    for (size_t i = 0; i < bytes.len; i++) {
        assert_int_equal(bytes.ptr[i], pattern(c->who, c->received + i));
    }
    c->received += bytes.len;
}

static void client_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct client *c = arg;

    assert_ptr_equal(s, c->s);
    c->ends++;
    c->end_err = err;
    c->done = err == SW_E_CLOSED && c->to_send == 0 && c->received == c->sent;
    client_close(c);
}

static void client_sent(struct sw_stream *s, void *arg)
{
    struct client *c = arg;

    (void)s;
    if (c->to_send != 0) {
        client_pump(c);
    }
}

static const struct sw_stream_events client_events = {client_connected, client_recv, client_end,
                                                      client_sent};

static enum sw_err client_start(struct client *c, struct sw_loop *loop, uint64_t who,
                                uint64_t to_send, const struct sw_addr *to)
{
    *c = (struct client){.loop = loop, .who = who, .to_send = to_send};
    sw_timer_init(&c->timer, client_again, c);
    return sw_stream_connect(loop, to, &client_events, c, &c->s);
}

/* ---- a world --------------------------------------------------------------------------------- */

struct outcome {
    uint64_t hash;
    uint32_t done;
    struct sw_sim_stats stats;
};

static void loop_at_rest(const struct sw_loop *loop)
{
    struct sw_loop_stats st;

    sw_loop_stats(loop, &st);
    assert_int_equal(st.streams, 0);
    assert_int_equal(st.buffers, 0);
    assert_int_equal(st.large, 0);
    assert_int_equal(st.pieces, 0);
}

static struct outcome run_echo(uint64_t seed, const struct sw_sim_faults *faults,
                               const struct sw_loop_options *opt, uint64_t bytes)
{
    struct sw_addr addr = addr_of("127.0.0.1:80");
    struct sw_sim *sim = sw_sim_new(seed, faults);
    struct sw_loop *loops[2];
    struct echo echo = {0};
    struct client clients[CLIENTS];
    struct outcome o = {0};
    int fd;

    assert_non_null(sim);
    assert_int_equal(sw_loop_new_sim(sim, opt, &echo.loop), SW_OK);
    assert_string_equal(sw_loop_engine(echo.loop), "sim");
    assert_int_equal(sw_sim_listen(sim, &addr, 16, &fd), SW_OK);
    assert_int_equal(sw_listener_open(echo.loop, fd, echo_accept, &echo, &echo.listener), SW_OK);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(sw_loop_new_sim(sim, opt, &loops[i]), SW_OK);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i].s = NULL;
        if (client_start(&clients[i], loops[i % 2], i, 1 + sw_sim_random(sim) % bytes, &addr) !=
            SW_OK) {
            assert_true(faults->no_files_ppm > 0);
            clients[i].s = NULL;
        }
    }
    sw_sim_run(sim, sw_sim_now_ns(sim) + 600 * SW_NS_PER_S);
    for (unsigned i = 0; i < CLIENTS; i++) {
        o.done += clients[i].done ? 1 : 0;
        client_close(&clients[i]); /* a mute connection says nothing, ever */
    }
    for (unsigned i = 0; i < SW_COUNTOF(echo.conns); i++) {
        if (echo.conns[i].s != NULL) {
            sw_stream_close(echo.conns[i].s);
        }
    }
    sw_sim_run(sim, sw_sim_now_ns(sim) + 400 * SW_NS_PER_S);
    assert_true(sw_sim_idle(sim));
    loop_at_rest(echo.loop);
    loop_at_rest(loops[0]);
    loop_at_rest(loops[1]);
    o.hash = sw_sim_hash(sim);
    sw_sim_stats(sim, &o.stats);
    assert_int_equal(o.stats.connections, 0);
    sw_loop_free(loops[1]);
    sw_loop_free(echo.loop);
    sw_loop_free(loops[0]);
    sw_sim_free(sim);
    return o;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static const struct row {
    const char *name;
    struct sw_sim_faults faults;
    bool all; /* every byte comes back */
} rows[] = {
    {"perfect", {0}, true},
    {"short", {.short_read_ppm = 900000, .short_write_ppm = 900000, .one_byte_ppm = 300000}, true},
    {"slow",
     {.delay_max_ns = 50 * SW_NS_PER_MS, .spike_ppm = 100000, .spike_ns = SW_NS_PER_S},
     true},
    {"narrow", {.pipe_bytes_min = 1, .pipe_bytes_max = 300}, true},
    {"lazy", {.lazy_ppm = 900000, .short_write_ppm = 300000}, true},
    {"overrun",
     {.overrun_ppm = 900000,
      .delay_max_ns = SW_NS_PER_MS,
      .pipe_bytes_min = 500,
      .pipe_bytes_max = 2000},
     true},
    {"stall", {.stall_ppm = 100000, .stall_ns = SW_NS_PER_S}, true},
    {"reset",
     {.reset_ppm = 500000, .reset_within_ns = 20 * SW_NS_PER_MS, .delay_max_ns = 2000000},
     false},
    {"reset by byte", {.reset_byte_ppm = 50000, .drop_unread_ppm = 500000}, false},
    {"lazy reset", {.reset_byte_ppm = 50000, .lazy_ppm = 500000, .short_read_ppm = 500000}, false},
    {"mute", {.mute_ppm = 500000, .reset_within_ns = SW_NS_PER_MS, .delay_max_ns = 100000}, false},
    {"refuse", {.refuse_ppm = 500000}, false},
    {"hang", {.hang_ppm = 500000}, false},
    {"no files", {.no_files_ppm = 200000}, false},
};

static void echo_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_sim_stats sum = {0};

        for (uint64_t seed = 1; seed <= 8; seed++) {
            struct outcome a = run_echo(seed, &rows[i].faults, &roomy, 30000);

            if (rows[i].all && a.done != CLIENTS) {
                fail_msg("%s, seed %lu: %u of %u", rows[i].name, seed, a.done, CLIENTS);
            }
            sum.short_reads += a.stats.short_reads;
            sum.short_writes += a.stats.short_writes;
            sum.blocked += a.stats.blocked;
            sum.resets += a.stats.resets;
            sum.mutes += a.stats.mutes;
            sum.refused += a.stats.refused;
            sum.hangs += a.stats.hangs;
            sum.no_files += a.stats.no_files;
            sum.overruns += a.stats.overruns;
            sum.stalls += a.stats.stalls;
            sum.lazy += a.stats.lazy;
        }
#define SEEN(fault, count) assert_true(rows[i].faults.fault == 0 || sum.count > 0)
        SEEN(short_read_ppm, short_reads);
        SEEN(short_write_ppm, short_writes);
        SEEN(pipe_bytes_max, blocked);
        SEEN(reset_ppm, resets);
        SEEN(reset_byte_ppm, resets);
        SEEN(mute_ppm, mutes);
        SEEN(refuse_ppm, refused);
        SEEN(hang_ppm, hangs);
        SEEN(no_files_ppm, no_files);
        SEEN(overrun_ppm, overruns);
        SEEN(stall_ppm, stalls);
        SEEN(lazy_ppm, lazy);
    }
}

static void echo_swarm(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct sw_rng rng;
        struct sw_sim_faults f;
        struct sw_loop_options opt = roomy;
        struct outcome a, b;
        bool breaking = seed % 2 == 0;

        sw_rng_seed(&rng, seed);
        f = sw_sim_faults_swarm(&rng, breaking);
        if (sw_rng_below(&rng, 3) == 0) {
            opt.buffers_max = 2 * CLIENTS;
        }
        a = run_echo(seed, &f, &opt, 6000);
        b = run_echo(seed, &f, &opt, 6000);
        assert_true(a.hash == b.hash);
        assert_memory_equal(&a.stats, &b.stats, sizeof(a.stats));
        if (!breaking && f.no_files_ppm == 0 && a.done != CLIENTS) {
            fail_msg("seed %lu: %u of %u", seed, a.done, CLIENTS);
        }
    }
}

static void seeds_differ(void **state)
{
    struct sw_sim_faults f = {.delay_max_ns = SW_NS_PER_MS};

    (void)state;
    assert_true(run_echo(1, &f, &roomy, 3000).hash != run_echo(2, &f, &roomy, 3000).hash);
}

struct small {
    struct sw_sim *sim;
    struct sw_loop *loop;
    struct echo echo;
    struct sw_addr addr;
    int fd;
};

static void small_open(struct small *w, const char *addr)
{
    *w = (struct small){.sim = sw_sim_new(7, NULL), .addr = addr_of(addr)};
    assert_int_equal(sw_loop_new_sim(w->sim, &roomy, &w->loop), SW_OK);
    assert_int_equal(sw_loop_new_sim(w->sim, &roomy, &w->echo.loop), SW_OK);
    assert_int_equal(sw_sim_listen(w->sim, &w->addr, 2, &w->fd), SW_OK);
}

static void small_accept(struct small *w)
{
    assert_int_equal(
        sw_listener_open(w->echo.loop, w->fd, echo_accept, &w->echo, &w->echo.listener), SW_OK);
}

static void small_run(struct small *w, uint64_t ms)
{
    sw_sim_run(w->sim, sw_sim_now_ns(w->sim) + ms * SW_NS_PER_MS);
}

static void small_close(struct small *w)
{
    sw_loop_free(w->loop);
    sw_loop_free(w->echo.loop);
    sw_sim_free(w->sim);
}

static void nobody_listens(void **state)
{
    struct small w;
    struct client c;
    struct sw_addr other = addr_of("127.0.0.1:81");

    (void)state;
    small_open(&w, "127.0.0.1:80");
    assert_int_equal(client_start(&c, w.loop, 0, 10, &other), SW_OK);
    assert_int_equal(c.connects, 0); /* never from inside */
    small_run(&w, 10);
    assert_int_equal(c.connects, 1);
    assert_int_equal(c.connect_err, SW_E_REFUSED);
    loop_at_rest(w.loop);
    small_close(&w);
}

static void unix_sockets(void **state)
{
    struct small w;
    struct client c;
    struct sw_addr other = addr_of("unix:/run/b");

    (void)state;
    small_open(&w, "unix:/run/a");
    small_accept(&w);
    assert_int_equal(client_start(&c, w.loop, 0, 10, &other), SW_OK);
    small_run(&w, 10);
    assert_int_equal(c.connect_err, SW_E_REFUSED);
    assert_int_equal(client_start(&c, w.loop, 0, 10, &w.addr), SW_OK);
    small_run(&w, 10);
    assert_true(c.done);
    small_close(&w);
}

/* The gateway dies and another one takes over the listening socket. */
static void backlog_survives(void **state)
{
    struct small w;
    struct client c[3];

    (void)state;
    small_open(&w, "127.0.0.1:80");
    small_accept(&w);
    sw_loop_free(w.echo.loop);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(client_start(&c[i], w.loop, i, 100, &w.addr), SW_OK);
    }
    small_run(&w, 100);
    assert_int_equal(c[2].connect_err == SW_E_REFUSED, true); /* backlog of 2 is full */
    assert_int_equal(c[0].connect_err, SW_OK);
    assert_int_equal(c[0].ends, 0);
    assert_int_equal(sw_loop_new_sim(w.sim, &roomy, &w.echo.loop), SW_OK);
    small_accept(&w);
    small_run(&w, 100);
    assert_true(c[0].done);
    assert_true(c[1].done);
    small_close(&w);
}

static void unlisten_resets(void **state)
{
    struct small w;
    struct client c;

    (void)state;
    small_open(&w, "127.0.0.1:80");
    assert_int_equal(client_start(&c, w.loop, 0, 100, &w.addr), SW_OK);
    small_run(&w, 10);
    assert_int_equal(c.connect_err, SW_OK);
    sw_sim_unlisten(w.sim, w.fd);
    small_run(&w, 10);
    assert_int_equal(c.ends, 1);
    assert_int_equal(c.end_err, SW_E_RESET);
    small_close(&w);
}

/* A process that dies with bytes unread resets; without, it ends in order. */
static void death_of_a_peer(void **state)
{
    for (unsigned deaf = 0; deaf < 2; deaf++) {
        struct small w;
        struct client c;

        (void)state;
        small_open(&w, "127.0.0.1:80");
        w.echo.deaf = deaf != 0;
        small_accept(&w);
        assert_int_equal(client_start(&c, w.loop, 0, 10000000, &w.addr), SW_OK);
        sw_sim_run(w.sim, sw_sim_now_ns(w.sim) + 200 * SW_NS_PER_US);
        assert_int_equal(c.connect_err, SW_OK);
        assert_int_equal(c.ends, 0);
        if (deaf) { /* back-pressure: what the pipe holds, and the client's own queue */
            small_run(&w, 1000);
            assert_true(c.sent < 64 * 1024 + 40000);
        }
        sw_loop_free(w.echo.loop);
        small_run(&w, 10);
        assert_int_equal(c.ends, 1);
        assert_int_equal(c.end_err, SW_E_RESET);
        loop_at_rest(w.loop);
        assert_int_equal(sw_loop_new_sim(w.sim, &roomy, &w.echo.loop), SW_OK);
        small_close(&w);
    }
}

struct alarm {
    struct sw_timer timer;
    uint64_t fired_ns;
    int64_t unix_s;
    struct sw_loop *loop;
};

static void alarm_fired(struct sw_timer *t, void *arg)
{
    struct alarm *a = arg;

    (void)t;
    a->fired_ns = sw_loop_now_ns(a->loop);
    a->unix_s = sw_loop_now_unix_s(a->loop);
}

static void clocks(void **state)
{
    struct small w;
    struct alarm a = {0};

    (void)state;
    small_open(&w, "127.0.0.1:80");
    a.loop = w.loop;
    sw_timer_init(&a.timer, alarm_fired, &a);
    sw_timer_start(w.loop, &a.timer, sw_sim_now_ns(w.sim) + 86400 * SW_NS_PER_S);
    sw_sim_wall_step(w.sim, -(int64_t)(3600 * SW_NS_PER_S)); /* timers do not care */
    small_run(&w, 86400ull * 1000 + 10);
    assert_true(a.fired_ns >= a.timer.deadline_ns);
    assert_true(a.fired_ns < a.timer.deadline_ns + 2 * SW_NS_PER_MS);
    assert_int_equal(a.unix_s, SW_SIM_UNIX_S + 86400 - 3600);
    assert_true(sw_sim_idle(w.sim));
    small_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_listens),   cmocka_unit_test(unix_sockets),
        cmocka_unit_test(backlog_survives), cmocka_unit_test(unlisten_resets),
        cmocka_unit_test(death_of_a_peer),  cmocka_unit_test(clocks),
        cmocka_unit_test(echo_rows),        cmocka_unit_test(echo_swarm),
        cmocka_unit_test(seeds_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
