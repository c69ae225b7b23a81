/* unit/super/test_output.c - lines of apps: cut, named, passed on; and ports for instances. */
#include "super/super_priv.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    struct sw_super_sink sink;
    struct sw_super_pipe pipe;
    int app, reader; /* the app's end, and where the sink's bytes come out */
    int sink_fd;
};

static int setup(void **state)
{
    struct world *w = (struct world *)calloc(1, sizeof(*w));
    int app[2], out[2];

    assert_non_null(w);
    assert_int_equal(pipe2(app, O_NONBLOCK), 0);
    assert_int_equal(pipe2(out, 0), 0);
    w->pipe.fd = app[0];
    w->app = app[1];
    w->reader = out[0];
    w->sink_fd = out[1];
    fcntl(w->reader, F_SETFL, O_NONBLOCK);
    sw_super__sink_open(&w->sink, out[1], "stdout");
    assert_true(w->sink.own_fd);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = (struct world *)*state;

    sw_super__sink_close(&w->sink);
    if (w->pipe.fd >= 0) {
        close(w->pipe.fd);
    }
    close(w->app);
    close(w->reader);
    close(w->sink_fd);
    free(w);
    return 0;
}

static void app_writes(struct world *w, const char *text, size_t len)
{
    assert_int_equal(write(w->app, text, len), (ssize_t)len);
}

static void reader_sees(struct world *w, const char *text)
{
    static char buf[256 * 1024];
    ssize_t n = read(w->reader, buf, sizeof(buf) - 1);

    buf[n < 0 ? 0 : n] = '\0';
    assert_string_equal(buf, text);
}

static void lines(void **state)
{
    struct world *w = (struct world *)*state;
    static const char text[] = "one\ntwo\n\nthr";

    app_writes(w, text, strlen(text));
    assert_true(sw_super__pipe_read(&w->pipe, "shop/2", &w->sink, 1));
    reader_sees(w, "shop/2 | one\nshop/2 | two\nshop/2 | \n");
    assert_true(sw_super__pipe_read(&w->pipe, "shop/2", &w->sink, 1)); /* nothing: not the end */
    app_writes(w, "ee", 2);
    sw_super__pipe_finish(&w->pipe, "shop/2", &w->sink, 1);
    reader_sees(w, "shop/2 | three\n");
    assert_int_equal(w->pipe.fd, -1);
}

/* Wherever the pieces are cut, the lines are the same. */
static void lines_cut_anywhere(void **state)
{
    struct world *w = (struct world *)*state;
    static const char text[] = "a\nbc\n\nd";

    for (size_t cut = 0; cut <= strlen(text); cut++) {
        app_writes(w, text, cut);
        assert_true(sw_super__pipe_read(&w->pipe, "x/1", &w->sink, 1));
        app_writes(w, text + cut, strlen(text) - cut);
        app_writes(w, "\n", 1);
        assert_true(sw_super__pipe_read(&w->pipe, "x/1", &w->sink, 1));
        reader_sees(w, "x/1 | a\nx/1 | bc\nx/1 | \nx/1 | d\n");
    }
}

static void long_line(void **state)
{
    struct world *w = (struct world *)*state;
    static char text[SW_SUPER_LINE_BYTES + 2], want[2 * SW_SUPER_LINE_BYTES];

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\n';
    snprintf(want, sizeof(want), "x/1 | %.*s\nx/1 | x\n", SW_SUPER_LINE_BYTES, text);
    app_writes(w, text, sizeof(text));
    while (w->sink.len == 0) {
        assert_true(sw_super__pipe_read(&w->pipe, "x/1", &w->sink, 1));
        if (w->sink.progress_ns != 0 && w->pipe.len == 0) {
            break;
        }
    }
    reader_sees(w, want);
    /* exactly as long as allowed: one line */
    text[SW_SUPER_LINE_BYTES] = '\n';
    snprintf(want, sizeof(want), "x/1 | %.*s\n", SW_SUPER_LINE_BYTES, text);
    app_writes(w, text, SW_SUPER_LINE_BYTES + 1);
    assert_true(sw_super__pipe_read(&w->pipe, "x/1", &w->sink, 1));
    reader_sees(w, want);
}

/* Nobody reads: first the app waits, then lines are dropped and counted, then that is told. */
static void nobody_reads(void **state)
{
    struct world *w = (struct world *)*state;
    static char line[1000], buf[64 * 1024];
    uint64_t now_ns = 5 * SW_NS_PER_S;
    char last[200] = "";
    size_t fed = 0;
    ssize_t n;

    memset(line, 'y', sizeof(line));
    line[sizeof(line) - 1] = '\n';
    sw_super__sink_flush(&w->sink, now_ns);
    while (!sw_super__sink_holds(&w->sink, now_ns)) {
        app_writes(w, line, sizeof(line));
        assert_true(sw_super__pipe_read(&w->pipe, "x/1", &w->sink, now_ns));
        fed++;
        assert_true(fed < 1000);
    }
    assert_int_equal(w->sink.dropped, 0);
    now_ns += SW_SUPER_STALL_NS - 1;
    assert_true(sw_super__sink_holds(&w->sink, now_ns));
    now_ns += 1;
    assert_false(sw_super__sink_holds(&w->sink, now_ns));
    for (size_t i = 0; i < 100; i++) {
        app_writes(w, line, sizeof(line));
        assert_true(sw_super__pipe_read(&w->pipe, "x/1", &w->sink, now_ns));
    }
    assert_true(w->sink.dropped > 0);
    assert_true(w->sink.len <= SW_SUPER_SINK_BYTES);
    while ((n = read(w->reader, buf, sizeof(buf))) > 0) {
        size_t keep = SW_MIN((size_t)n, sizeof(last) - 1);

        assert_int_equal(buf[n - 1], '\n'); /* never half a line */
        memcpy(last, buf + n - keep, keep);
        last[keep] = '\0';
        sw_super__sink_flush(&w->sink, now_ns);
    }
    assert_non_null(strstr(last, "supervisor | "));
    assert_non_null(strstr(last, " lines of apps were lost: nobody read our stdout\n"));
    assert_int_equal(w->sink.dropped, 0);
}

static void reader_gone(void **state)
{
    struct world *w = (struct world *)*state;

    close(w->reader);
    app_writes(w, "a\n", 2);
    assert_true(sw_super__pipe_read(&w->pipe, "x/1", &w->sink, 1)); /* SIGPIPE is ignored: main */
    assert_int_equal(w->sink.len, 0);
    w->reader = dup(w->app);
}

static void ports(void **state)
{
    static struct sw_super_ports p, busy;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint16_t port = sw_super__port_take(&p);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    (void)state;
    assert_in_range(port, SW_PORT_FIRST, SW_PORT_FIRST + SW_PORT_COUNT - 1);
    for (int i = 0; i < 50; i++) {
        assert_int_not_equal(sw_super__port_take(&p), port);
    }
    /* the only port left is taken by somebody who listens on one address only */
    memset(&busy, 1, sizeof(busy));
    busy.used[port - SW_PORT_FIRST] = 0;
    a.sin_port = htons(port);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(sw_super__port_take(&busy), 0);
    close(fd);
    assert_int_equal(sw_super__port_take(&busy), port);
    sw_super__port_give(&busy, port);
    assert_int_equal(sw_super__port_take(&busy), port);
    sw_super__port_give(&busy, 0); /* none: allowed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines, setup, teardown),
        cmocka_unit_test_setup_teardown(lines_cut_anywhere, setup, teardown),
        cmocka_unit_test_setup_teardown(long_line, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(reader_gone, setup, teardown),
        cmocka_unit_test(ports),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
