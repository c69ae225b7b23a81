/* io/loop.c - making, running and ending a loop; one turn; clocks, stats, signals.
 *
 * Room       io/. See io_priv.h for the order of a turn.
 * Flow       sw_loop_run -> io__turn -> engine, ready, posts, timers, flush, reap.
 */
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "io/io_priv.h"

/* Slots beyond streams_max: of streams closed in this turn, of those io_uring still cancels, and of
 * connections the kernel accepted ahead of us. Address space, not memory. */
static size_t slots(const struct sw_loop_options *opt)
{
    return (size_t)opt->streams_max + opt->streams_max / 4 /* closed in this turn */
           + 4096;                                         /* accepted ahead */
}

static size_t pieces(const struct sw_loop_options *opt)
{
    return opt->pieces_max != 0 ? opt->pieces_max
                                : (size_t)opt->streams_max + opt->buffers_max + 64;
}

static void loop_fini(struct sw_loop *loop)
{
    buf__fini(loop);
    sw_pool_fini(&loop->stream_pool);
    sw_pool_fini(&loop->piece_pool);
    sw_pool_fini(&loop->listener_pool);
    loop->magic = 0;
    free(loop);
}

enum sw_err io__loop_new(const struct sw_loop_options *opt, const struct io_engine *engine,
                         void *engine_data, struct sw_loop **ret_loop)
{
    struct sw_loop *loop;
    enum sw_err err;

    SW_ASSERT(opt != NULL);
    SW_ASSERT(opt->streams_max > 0);
    SW_ASSERT(opt->buffers_max > 0);
    SW_ASSERT(opt->large_max == 0 || opt->large_bytes > SW_BUF_BYTES);
    loop = aligned_alloc(_Alignof(struct sw_loop), sizeof(*loop));
    if (loop == NULL) {
        return SW_E_NO_MEMORY;
    }
    memset(loop, 0, sizeof(*loop));
    loop->magic = IO_LOOP_MAGIC;
    loop->engine = engine;
    loop->engine_data = engine_data;
    loop->opt = *opt;
    loop->opt.pieces_max = (uint32_t)pieces(opt);
    sw_list_init(&loop->live);
    sw_list_init(&loop->dirty);
    sw_list_init(&loop->ready);
    sw_list_init(&loop->dead);
    sw_list_init(&loop->listeners);
    sw_list_init(&loop->waiting);
    sw_list_init(&loop->parked);
    sw_list_init(&loop->listeners_dead);
    loop->signals.fd = -1;
    if (!sw_pool_init(&loop->stream_pool, sizeof(struct sw_stream), slots(opt)) ||
        !sw_pool_init(&loop->piece_pool, sizeof(struct io_piece), pieces(opt)) ||
        !sw_pool_init(&loop->listener_pool, sizeof(struct sw_listener), IO_LISTENERS_MAX) ||
        buf__init(loop) != SW_OK) {
        loop_fini(loop);
        return SW_E_NO_MEMORY;
    }
    err = engine->init(loop);
    if (err != SW_OK) {
        loop_fini(loop);
        return err;
    }
    loop->now_ns = engine->clock(loop, &loop->now_unix_ns);
    wheel__init(&loop->wheel, loop->now_ns);
    *ret_loop = loop;
    return SW_OK;
}

enum sw_err sw_loop_new(const struct sw_loop_options *opt, struct sw_loop **ret_loop)
{
    enum sw_err err;

    SW_ASSERT(opt != NULL);
    switch (opt->engine) {
    case SW_ENGINE_URING:
        return io__loop_new(opt, &io__uring, NULL, ret_loop);
    case SW_ENGINE_EPOLL:
        return io__loop_new(opt, &io__epoll, NULL, ret_loop);
    case SW_ENGINE_AUTO:
        err = io__loop_new(opt, &io__uring, NULL, ret_loop);
        return err == SW_OK ? SW_OK : io__loop_new(opt, &io__epoll, NULL, ret_loop);
    }
    SW_UNREACHABLE();
}

void sw_loop_free(struct sw_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    io__check(loop);
    loop->freeing = true;
    for (struct sw_link *at = loop->listeners.next, *next; at != &loop->listeners; at = next) {
        struct sw_listener *l = SW_CONTAINER(at, struct sw_listener, link);

        next = at->next;
        if (l->state == LI_OPEN) {
            sw_listener_close(l);
        }
    }
    stream__free_all(loop);
    loop->engine->fini(loop);
    if (loop->signals.fd >= 0) {
        close(loop->signals.fd);
    }
    loop_fini(loop);
}

const char *sw_loop_engine(const struct sw_loop *loop)
{
    io__check(loop);
    return loop->engine->name;
}

bool io__idle(const struct sw_loop *loop)
{
    return sw_list_empty(&loop->dirty) && sw_list_empty(&loop->ready) &&
           sw_list_empty(&loop->dead) && sw_list_empty(&loop->listeners_dead);
}

void io__turn(struct sw_loop *loop, uint64_t deadline_ns)
{
    uint64_t timer_ns = wheel__next_ns(&loop->wheel);

    if (!io__idle(loop)) {
        deadline_ns = 0;
    }
    deadline_ns = SW_MIN(deadline_ns, timer_ns);
    if (deadline_ns > loop->now_ns) {
        atomic_store(&loop->sleeping, true); /* see post.c */
        if (post__pending(loop) || atomic_load(&loop->stop)) {
            deadline_ns = 0;
        }
    }
    loop->engine->wait(loop, deadline_ns);
    atomic_store_explicit(&loop->sleeping, false, memory_order_relaxed);
    loop->now_ns = loop->engine->clock(loop, &loop->now_unix_ns);
    io__count(&loop->counters.turns, 1);

    loop->engine->dispatch(loop);
    stream__run_ready(loop);
    post__run(loop);
    wheel__run(&loop->wheel, loop->now_ns);
    stream__flush(loop);
    stream__reap(loop);
    listener__resume(loop);
}

void sw_loop_run(struct sw_loop *loop)
{
    io__check(loop);
    SW_ASSERT(!loop->entered || pthread_equal(loop->thread, pthread_self()));
    loop->thread = pthread_self();
    loop->entered = true;
    if (loop->engine->enter != NULL) {
        loop->engine->enter(loop);
    }
    do {
        io__turn(loop, IO_NO_DEADLINE);
    } while (!atomic_load_explicit(&loop->stop, memory_order_acquire));
    atomic_store_explicit(&loop->stop, false, memory_order_relaxed);
}

void sw_loop_stop(struct sw_loop *loop)
{
    io__check(loop);
    atomic_store(&loop->stop, true);
    post__wake(loop);
}

/* ---- clocks, numbers ------------------------------------------------------------------------- */

uint64_t sw_loop_now_ns(const struct sw_loop *loop)
{
    io__check(loop);
    return loop->now_ns;
}

int64_t sw_loop_now_unix_s(const struct sw_loop *loop)
{
    io__check(loop);
    return loop->now_unix_ns / (int64_t)SW_NS_PER_S;
}

int64_t sw_loop_now_unix_ms(const struct sw_loop *loop)
{
    io__check(loop);
    return loop->now_unix_ns / (int64_t)SW_NS_PER_MS;
}

uint64_t sw_loop_clock_ns(struct sw_loop *loop)
{
    io__check(loop);
    return loop->engine->clock(loop, NULL);
}

uint64_t sw_loop_random(struct sw_loop *loop)
{
    io__check(loop);
    return loop->engine->random(loop);
}

void sw_loop_stats(const struct sw_loop *loop, struct sw_loop_stats *ret_stats)
{
    const struct io_counters *c = &loop->counters;

    io__check(loop);
    *ret_stats = (struct sw_loop_stats){
        .turns = io__gauge(&c->turns),
        .accepts = io__gauge(&c->accepts),
        .recvs = io__gauge(&c->recvs),
        .sends = io__gauge(&c->sends),
        .posts = io__gauge(&c->posts),
        .streams = io__gauge(&c->streams),
        .buffers = io__gauge(&c->buffers),
        .large = io__gauge(&c->large),
        .pieces = io__gauge(&c->pieces),
        .streams_max = loop->opt.streams_max,
        .buffers_max = loop->opt.buffers_max,
        .large_max = loop->opt.large_max,
        .pieces_max = loop->opt.pieces_max,
        .accept_waits = io__gauge(&c->accept_waits),
    };
}

/* ---- signals --------------------------------------------------------------------------------- */

static void signals_read(struct sw_loop *loop, struct io_watch *w)
{
    struct signalfd_siginfo info;

    while (read(w->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        loop->signal_fn(loop->signal_arg, (int)info.ssi_signo);
    }
}

enum sw_err sw_loop_on_signal(struct sw_loop *loop, const int *signos, size_t count,
                              sw_signal_fn *fn, void *arg)
{
    sigset_t set;
    enum sw_err err;
    int fd;

    io__check(loop);
    SW_ASSERT(fn != NULL);
    SW_ASSERT(loop->signals.fd < 0); /* once a loop */
    if (loop->engine->watch == NULL) {
        return SW_E_UNSUPPORTED;
    }
    sigemptyset(&set);
    for (size_t i = 0; i < count; i++) {
        sigaddset(&set, signos[i]);
    }
    fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0) {
        return SW_E_NO_FILES;
    }
    loop->signals = (struct io_watch){.fd = fd, .fn = signals_read};
    loop->signal_fn = fn;
    loop->signal_arg = arg;
    err = loop->engine->watch(loop, &loop->signals);
    if (err != SW_OK) {
        close(fd);
        loop->signals.fd = -1;
    }
    return err;
}
