/* tests/unit/io/test_engine.c - choosing the engine, signals, stop, loops on other threads. */
#include "world.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void named(void **state)
{
    struct world w;

    world_open(&w, ENGINE(state), NULL, FAMILY_NONE, NULL, NULL);
    assert_string_equal(sw_loop_engine(w.loop),
                        ENGINE(state) == SW_ENGINE_EPOLL ? "epoll" : "io_uring");
    world_close(&w);
}

/* As container runtimes do: one system call is refused. */
static bool refuse(unsigned nr, unsigned errnum)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errnum),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {SW_COUNTOF(code), code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

static void later_stop(struct sw_timer *t, void *arg)
{
    (void)t;
    sw_loop_stop(arg);
}

/* 0: as expected. */
static int child_fallback(unsigned nr, unsigned errnum)
{
    struct sw_loop_options opt = {.engine = SW_ENGINE_URING, .streams_max = 4, .buffers_max = 4};
    struct sw_loop *loop;
    struct sw_timer t;

    if (!refuse(nr, errnum)) {
        return 77;
    }
    if (nr != __NR_epoll_pwait2 && sw_loop_new(&opt, &loop) != SW_E_UNSUPPORTED) {
        return 1;
    }
    opt.engine = nr == __NR_epoll_pwait2 ? SW_ENGINE_EPOLL : SW_ENGINE_AUTO;
    if (sw_loop_new(&opt, &loop) != SW_OK) {
        return 2;
    }
    if (strcmp(sw_loop_engine(loop), "epoll") != 0) {
        return 3;
    }
    sw_timer_init(&t, later_stop, loop);
    sw_timer_start(loop, &t, sw_loop_now_ns(loop) + 5 * SW_NS_PER_MS);
    sw_loop_run(loop);
    sw_loop_free(loop);
    return 0;
}

static void falls_back(void **state)
{
    static const struct {
        unsigned nr, errnum;
    } cases[] = {
        {__NR_io_uring_setup, EPERM},    {__NR_io_uring_setup, ENOSYS},
        {__NR_io_uring_register, EPERM}, {__NR_io_uring_enter, EPERM},
        {__NR_epoll_pwait2, ENOSYS},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(cases); i++) {
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0) {
            _exit(child_fallback(cases[i].nr, cases[i].errnum));
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77) {
            skip(); /* no seccomp here */
        }
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

/* ---- signals --------------------------------------------------------------------------------- */

static int got[4];
static unsigned got_count;

static void on_signal(void *arg, int signo)
{
    got[got_count++] = signo;
    if (got_count == 2) {
        sw_loop_stop(arg);
    } else {
        kill(getpid(), SIGUSR2);
    }
}

static void raise_one(struct world *w)
{
    (void)w;
    kill(getpid(), SIGUSR1);
}

static void signals(void **state)
{
    static const int signos[] = {SIGUSR1, SIGUSR2};
    struct world w;
    sigset_t set, old;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &set, &old), 0);
    got_count = 0;
    world_open(&w, ENGINE(state), NULL, FAMILY_NONE, NULL, NULL);
    assert_int_equal(sw_loop_on_signal(w.loop, signos, 2, on_signal, w.loop), SW_OK);
    world_later(&w, 10, raise_one);
    world_run(&w);
    assert_int_equal(got[0], SIGUSR1);
    assert_int_equal(got[1], SIGUSR2);
    world_close(&w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* ---- threads --------------------------------------------------------------------------------- */

static struct peer srv, cli;

static void accept_echo(struct sw_stream *s, void *arg)
{
    (void)arg;
    peer_attach(&srv, s);
    sw_stream_read_start(s);
}

static void cli_up(struct peer *p)
{
    sw_stream_read_start(p->s);
    peer_pump(p);
}

static void cli_recv(struct peer *p, struct sw_buf *buf, struct sw_slice bytes)
{
    (void)buf;
    (void)bytes;
    if (p->received == p->to_send) {
        sw_loop_stop(p->w->loop);
    }
}

static void *run_loop(void *arg)
{
    sw_loop_run(arg);
    return NULL;
}

/* Made here, with listener and connect; run by another thread; freed here, with streams open. */
static void runs_elsewhere(void **state)
{
    struct world w;
    pthread_t thread;

    world_open(&w, ENGINE(state), NULL, FAMILY_TCP, accept_echo, NULL);
    srv = (struct peer){.w = &w, .echo = true};
    cli = (struct peer){.w = &w,
                        .to_send = 100000,
                        .check = true,
                        .on_connected = cli_up,
                        .on_recv = cli_recv,
                        .on_sent = peer_pump};
    peer_connect(&cli);
    assert_int_equal(pthread_create(&thread, NULL, run_loop, w.loop), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(cli.received, cli.to_send);
    world_close(&w);
}

static void stopped_before_run(void **state)
{
    struct world w;

    world_open(&w, ENGINE(state), NULL, FAMILY_NONE, NULL, NULL);
    sw_loop_stop(w.loop);
    world_run(&w);
    world_later(&w, 1, world_stop); /* and runs again */
    world_run(&w);
    world_close(&w);
}

static void sizes(void **state)
{
    (void)state;
    print_message("stream slot: %zu bytes, loop: %zu\n", sizeof(struct sw_stream),
                  sizeof(struct sw_loop));
    assert_true(sizeof(struct sw_stream) <= 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(named),          cmocka_unit_test(falls_back), ON_BOTH(signals),
        ON_BOTH(runs_elsewhere), ON_BOTH(stopped_before_run),  cmocka_unit_test(sizes),
    };

    return cmocka_run_group_tests_name("io/engine", tests, NULL, NULL);
}
