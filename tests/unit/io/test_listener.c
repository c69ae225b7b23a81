/* tests/unit/io/test_listener.c - accepting: many, with too few slots or descriptors, and stopping.
 */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- thousands of connections ---------------------------------------------------------------- */

#define WAVE  50
#define TOTAL 3000

static struct peer clients[WAVE], servers[2 * WAVE];
static unsigned started, finished, accepted;

static void client_next(struct peer *p);

static void client_up(struct peer *p)
{
    assert_int_equal(p->connect_err, SW_OK);
    sw_stream_read_start(p->s);
    peer_send_text(p, "ping");
}

static void client_end(struct peer *p)
{
    assert_int_equal(p->end_err, SW_E_CLOSED);
    assert_int_equal(p->received, 4);
    sw_stream_close(p->s);
    finished++;
    if (finished == TOTAL) {
        sw_loop_stop(p->w->loop);
    } else if (started < TOTAL) {
        client_next(p);
    }
}

static void client_next(struct peer *p)
{
    started++;
    *p = (struct peer){.w = p->w, .on_connected = client_up, .on_end = client_end};
    peer_connect(p);
}

static void answer(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    assert_int_equal(bytes.len, 4);
    assert_int_equal(sw_stream_send(p->s, buf, bytes), SW_OK);
    sw_stream_linger(p->s, sw_loop_now_ns(p->w->loop) + SW_NS_PER_S);
    p->s = NULL;
}

static void accept_answerer(struct sw_stream *s, void *arg)
{
    accepted++;
    for (unsigned i = 0; i < SW_COUNTOF(servers); i++) {
        if (servers[i].s == NULL) {
            servers[i] = (struct peer){.w = arg, .on_recv = answer};
            peer_attach(&servers[i], s);
            sw_stream_read_start(s);
            return;
        }
    }
    fail_msg("more streams than slots");
}

static void thousands(void **state)
{
    /* All clients fit, but only some of the server's ends: the listener waits again and again. */
    struct sw_loop_options opt = {.streams_max = WAVE + 20, .buffers_max = 64};
    struct world w;
    struct sw_loop_stats stats;

    memset(clients, 0, sizeof(clients));
    memset(servers, 0, sizeof(servers));
    started = finished = accepted = 0;
    world_open(&w, ENGINE(state), &opt, FAMILY_TCP, accept_answerer, NULL);
    for (unsigned i = 0; i < WAVE; i++) {
        clients[i].w = &w;
        client_next(&clients[i]);
    }
    world_run(&w);
    assert_int_equal(accepted, TOTAL);
    world_later(&w, 50, world_stop);
    world_run(&w);
    sw_loop_stats(w.loop, &stats);
    assert_int_equal(stats.streams, 0);
    assert_int_equal(stats.accepts, TOTAL);
    assert_true(stats.accept_waits > 0);
    assert_int_equal(stats.pieces, 0);
    assert_int_equal(stats.buffers, 0);
    world_close(&w);
}

/* ---- slots ----------------------------------------------------------------------------------- */

static struct sw_stream *held[16];
static unsigned held_count;

static void hold(struct sw_stream *s, void *arg)
{
    struct world *w = arg;
    struct sw_loop_stats stats;

    sw_loop_stats(w->loop, &stats);
    assert_true(stats.streams <= stats.streams_max);
    held[held_count++] = s;
}

static int plain_client(const struct world *w)
{
    int fd = socket(w->addr.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_true(connect(fd, &w->addr.sa, w->addr.len) == 0 || errno == EINPROGRESS);
    return fd;
}

static void free_two(struct world *w)
{
    assert_int_equal(held_count, 4);
    sw_stream_close(held[0]);
    sw_stream_close(held[1]);
    world_later(w, 50, world_stop);
}

static void slots_run_out(void **state)
{
    struct sw_loop_options opt = {.streams_max = 4, .buffers_max = 16};
    struct world w;
    struct sw_loop_stats stats;
    int fds[10];

    held_count = 0;
    world_open(&w, ENGINE(state), &opt, FAMILY_TCP, hold, NULL);
    for (size_t i = 0; i < SW_COUNTOF(fds); i++) {
        fds[i] = plain_client(&w);
    }
    world_later(&w, 50, free_two);
    world_run(&w);
    assert_int_equal(held_count, 6);
    sw_loop_stats(w.loop, &stats);
    assert_true(stats.accept_waits > 0);
    assert_int_equal(stats.streams, 4);
    sw_listener_close(w.listener); /* with connections waiting */
    world_later(&w, 20, world_stop);
    world_run(&w);
    assert_int_equal(held_count, 6);
    world_close(&w);
    for (size_t i = 0; i < SW_COUNTOF(fds); i++) {
        close(fds[i]);
    }
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static struct rlimit before;

static void more_files(struct world *w)
{
    struct sw_loop_stats stats;

    assert_int_equal(held_count, 2); /* as many as there were descriptors for */
    sw_loop_stats(w->loop, &stats);
    assert_true(stats.accept_waits > 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    world_later(w, 200, world_stop);
}

static void files_run_out(void **state)
{
    struct world w;
    struct rlimit few;
    int fds[6], next;

    held_count = 0;
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, hold, NULL);
    for (size_t i = 0; i < SW_COUNTOF(fds); i++) {
        fds[i] = plain_client(&w);
    }
    next = dup(0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = (rlim_t)next + 2;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    world_later(&w, 120, more_files);
    world_run(&w);
    assert_int_equal(held_count, SW_COUNTOF(fds)); /* nobody was dropped */
    world_close(&w);
    for (size_t i = 0; i < SW_COUNTOF(fds); i++) {
        close(fds[i]);
    }
}

static void no_file_to_connect(void **state)
{
    struct world w;
    struct rlimit few;
    struct sw_stream *s;
    int next;

    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, hold, NULL);
    next = dup(0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = (rlim_t)next;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(sw_stream_connect(w.loop, &w.addr, &peer_events, NULL, &s), SW_E_NO_FILES);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    world_close(&w);
}

/* ---- closing --------------------------------------------------------------------------------- */

static void close_listener_too(struct sw_stream *s, void *arg)
{
    struct world *w = arg;

    sw_stream_close(s);
    sw_listener_close(w->listener);
    held_count++;
    world_later(w, 20, world_stop);
}

static void closed_in_its_callback(void **state)
{
    struct world w;
    int fds[6];

    held_count = 0;
    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, close_listener_too, NULL);
    for (size_t i = 0; i < 5; i++) {
        fds[i] = plain_client(&w);
    }
    world_run(&w);
    assert_int_equal(held_count, 1);
    fds[5] = plain_client(&w);
    world_listen(&w, hold); /* the socket is borrowed: others may go on with it */
    world_later(&w, 20, world_stop);
    world_run(&w);
    assert_true(held_count > 1);
    world_close(&w);
    for (size_t i = 0; i < SW_COUNTOF(fds); i++) {
        close(fds[i]);
    }
}

static void closed_before_run(void **state)
{
    struct world w;
    struct sw_listener *l;

    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, NULL, NULL);
    world_listen(&w, hold);
    sw_listener_close(w.listener);
    world_later(&w, 5, world_stop);
    world_run(&w);
    for (unsigned i = 0; i < IO_LISTENERS_MAX; i++) {
        world_listen(&w, hold);
    }
    assert_int_equal(sw_listener_open(w.loop, w.fd, hold, &w, &l), SW_E_LIMIT);
    world_close(&w);
}

/* ---- sw_listen_socket ------------------------------------------------------------------------ */

static void stale_unix_socket_is_replaced(void **state)
{
    struct sw_addr a;
    char path[64];
    int first, second;

    (void)state;
    snprintf(path, sizeof(path), "unix:/tmp/sw-io-stale-%d", (int)getpid());
    assert_int_equal(sw_addr_parse(sw_slice_cstr(path), false, &a), SW_OK);
    assert_int_equal(sw_listen_socket(&a, false, 8, &first), SW_OK);
    assert_int_equal(sw_listen_socket(&a, false, 8, &second), SW_E_ADDRESS_IN_USE);
    close(first); /* the file stays, nobody answers */
    assert_int_equal(sw_listen_socket(&a, false, 8, &second), SW_OK);
    close(second);
    unlink(a.un.sun_path);
    first = open(a.un.sun_path, O_CREAT | O_WRONLY, 0600);
    assert_true(first >= 0);
    close(first);
    assert_int_equal(sw_listen_socket(&a, false, 8, &second), SW_E_ADDRESS_IN_USE); /* no socket */
    unlink(a.un.sun_path);
}

static void reuseport(void **state)
{
    struct sw_addr a;
    socklen_t len = sizeof(a.un);
    int first, second;

    (void)state;
    assert_int_equal(sw_addr_parse(SW_S("127.0.0.1:0"), false, &a), SW_OK);
    assert_int_equal(sw_listen_socket(&a, true, 8, &first), SW_OK);
    assert_int_equal(getsockname(first, &a.sa, &len), 0);
    a.len = len;
    assert_int_equal(sw_listen_socket(&a, true, 8, &second), SW_OK);
    close(second);
    assert_int_equal(sw_listen_socket(&a, false, 8, &second), SW_E_ADDRESS_IN_USE);
    close(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(thousands),
        ON_BOTH(slots_run_out),
        ON_BOTH(files_run_out),
        ON_BOTH(no_file_to_connect),
        ON_BOTH(closed_in_its_callback),
        ON_BOTH(closed_before_run),
        cmocka_unit_test(stale_unix_socket_is_replaced),
        cmocka_unit_test(reuseport),
    };

    return cmocka_run_group_tests_name("io/listener", tests, NULL, NULL);
}
