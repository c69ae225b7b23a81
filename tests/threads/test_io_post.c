/* tests/threads/test_io_post.c - messages between threads; meant for -fsanitize=thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <time.h>

#include "io/io.h"

#define SENDERS 4
#define EACH    20000
#define WINDOW  64 /* messages a sender has on their way */

struct message {
    struct sw_post post;
    unsigned number; /* plain: the post must order it */
    _Atomic bool busy;
};

struct sender {
    struct sw_loop *loop;
    pthread_t thread;
    struct message messages[WINDOW];
    unsigned next; /* expected by the loop's thread */
    bool slow;     /* lets the loop sleep in between */
};

static struct sender senders[SENDERS];
static unsigned arrived; /* the loop's thread only */

static void got(struct sw_post *post, void *arg)
{
    struct sender *s = arg;
    struct message *m = SW_CONTAINER(post, struct message, post);

    if (m->number != s->next) {
        fail_msg("out of order: %u, not %u", m->number, s->next);
    }
    s->next++;
    arrived++;
    atomic_store_explicit(&m->busy, false, memory_order_release);
    if (arrived == SENDERS * EACH) {
        sw_loop_stop(s->loop);
    }
}

static void *send_all(void *arg)
{
    struct sender *s = arg;

    for (unsigned i = 0; i < EACH; i++) {
        struct message *m = &s->messages[i % WINDOW];

        while (atomic_load_explicit(&m->busy, memory_order_acquire)) {
            sched_yield();
        }
        m->number = i;
        m->post.fn = got;
        m->post.arg = s;
        atomic_store_explicit(&m->busy, true, memory_order_relaxed);
        sw_loop_post(s->loop, &m->post);
        if (s->slow && i % 100 == 0) {
            nanosleep(&(struct timespec){0, 200000}, NULL);
        }
    }
    return NULL;
}

static struct sw_loop *make(void **state)
{
    struct sw_loop_options opt = {
        .engine = (enum sw_engine)(uintptr_t)*state, .streams_max = 4, .buffers_max = 4};
    struct sw_loop *loop;
    enum sw_err err = sw_loop_new(&opt, &loop);

    if (err == SW_E_UNSUPPORTED) {
        skip();
    }
    assert_int_equal(err, SW_OK);
    return loop;
}

static void four_senders(void **state)
{
    struct sw_loop *loop = make(state);
    struct sw_loop_stats stats;

    arrived = 0;
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.loop = loop, .slow = i % 2 == 0};
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
    }
    sw_loop_run(loop);
    for (unsigned i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_join(senders[i].thread, NULL), 0);
        assert_int_equal(senders[i].next, EACH);
    }
    sw_loop_stats(loop, &stats);
    assert_int_equal(stats.posts, SENDERS * EACH);
    sw_loop_free(loop);
}

/* Each message finds the loop asleep: a lost wake hangs (meson's timeout tells). */
static struct {
    struct sw_loop *there;
    struct sw_post ping, pong;
    unsigned count;
    _Atomic bool answered;
} game;

static void pinged(struct sw_post *post, void *arg)
{
    (void)post;
    (void)arg;
    game.count++;
    atomic_store(&game.answered, true);
}

static void *run(void *arg)
{
    sw_loop_run(arg);
    return NULL;
}

static void wakes_each_time(void **state)
{
    pthread_t thread;

    game.there = make(state);
    game.count = 0;
    assert_int_equal(pthread_create(&thread, NULL, run, game.there), 0);
    for (unsigned i = 0; i < 3000; i++) {
        atomic_store(&game.answered, false);
        game.ping = (struct sw_post){NULL, pinged, NULL};
        sw_loop_post(game.there, &game.ping);
        while (!atomic_load(&game.answered)) {
            sched_yield();
        }
    }
    sw_loop_stop(game.there);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(game.count, 3000);
    sw_loop_free(game.there);
}

/* Two loops throw one message to and fro. */
static struct sw_loop *sides[2];
static unsigned throws;
static struct sw_post ball;

static void caught(struct sw_post *post, void *arg)
{
    size_t side = (size_t)(uintptr_t)arg;

    throws++; /* only who holds the ball counts */
    if (throws >= 5000) {
        sw_loop_stop(sides[0]);
        sw_loop_stop(sides[1]);
        return;
    }
    post->fn = caught;
    post->arg = (void *)(uintptr_t)(1 - side);
    sw_loop_post(sides[1 - side], post);
}

static void two_loops(void **state)
{
    pthread_t thread;

    sides[0] = make(state);
    sides[1] = make(state);
    throws = 0;
    ball = (struct sw_post){NULL, caught, (void *)(uintptr_t)1};
    assert_int_equal(pthread_create(&thread, NULL, run, sides[1]), 0);
    sw_loop_post(sides[1], &ball);
    sw_loop_run(sides[0]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(throws, 5000);
    sw_loop_free(sides[0]);
    sw_loop_free(sides[1]);
}

/* Stats are read by others while the loop works; stop comes from outside. */
static void stats_from_outside(void **state)
{
    struct sw_loop *loop = make(state);
    struct sw_loop_stats stats;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, run, loop), 0);
    game.ping = (struct sw_post){NULL, pinged, NULL};
    sw_loop_post(loop, &game.ping);
    do {
        sw_loop_stats(loop, &stats);
        sched_yield();
    } while (stats.posts < 1);
    assert_int_equal(stats.streams, 0);
    sw_loop_stop(loop);
    assert_int_equal(pthread_join(thread, NULL), 0);
    sw_loop_free(loop);
}

#define ON_BOTH(test)                                                                              \
    {#test " [epoll]", test, NULL, NULL, (void *)(uintptr_t)SW_ENGINE_EPOLL},                      \
    {                                                                                              \
#test " [io_uring]", test, NULL, NULL, (void *)(uintptr_t)SW_ENGINE_URING                  \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(four_senders),
        ON_BOTH(wakes_each_time),
        ON_BOTH(two_loops),
        ON_BOTH(stats_from_outside),
    };

    return cmocka_run_group_tests_name("threads/io_post", tests, NULL, NULL);
}
