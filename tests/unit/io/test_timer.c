/* tests/unit/io/test_timer.c - the wheel against a sorted reference, and timers in a running loop.
 */
#include "world.h"

#define TIMERS 300

struct timed {
    struct sw_timer timer;
    bool running;
    uint64_t deadline_ns;
    uint64_t fired;
};

static struct {
    struct sw_loop *loop;
    struct timed t[TIMERS];
    struct sw_rng rng;
    uint64_t now_ns, last_tick;
    unsigned fired;
    bool meddle; /* callbacks start and stop others */
} wheel;

static uint64_t tick_of(uint64_t deadline_ns)
{
    return (deadline_ns + SW_NS_PER_MS - 1) / SW_NS_PER_MS;
}

static uint64_t random_delay(void)
{
    unsigned bits = (unsigned)sw_rng_below(&wheel.rng, 46);

    return sw_rng_u64(&wheel.rng) >> (63 - bits);
}

static void start(struct timed *t, uint64_t deadline_ns)
{
    t->running = true;
    t->deadline_ns = deadline_ns;
    sw_timer_start(wheel.loop, &t->timer, deadline_ns);
    assert_true(sw_timer_running(&t->timer));
}

static void stop(struct timed *t)
{
    t->running = false;
    sw_timer_stop(wheel.loop, &t->timer);
    assert_false(sw_timer_running(&t->timer));
}

static void fired(struct sw_timer *timer, void *arg)
{
    struct timed *t = arg;

    assert_ptr_equal(timer, &t->timer);
    assert_true(t->running);
    assert_false(sw_timer_running(timer));
    assert_true(t->deadline_ns <= wheel.now_ns); /* never early */
    t->running = false;
    t->fired++;
    wheel.fired++;
    if (wheel.meddle) {
        for (unsigned i = 0; i < 2; i++) {
            struct timed *other = &wheel.t[sw_rng_below(&wheel.rng, TIMERS)];

            switch (sw_rng_below(&wheel.rng, 4)) {
            case 0:
                stop(other);
                break;
            case 1:
                start(other, wheel.now_ns + random_delay());
                break;
            case 2: /* the past: the next turn, not this one without end */
                start(t, wheel.now_ns > 1000 ? wheel.now_ns - 1000 : 0);
                break;
            default:
                break;
            }
        }
    }
}

static uint64_t reference_next(void)
{
    uint64_t next = IO_NO_DEADLINE;

    for (unsigned i = 0; i < TIMERS; i++) {
        if (wheel.t[i].running) {
            next = SW_MIN(next, tick_of(wheel.t[i].deadline_ns) * SW_NS_PER_MS);
        }
    }
    return next;
}

static void against_reference(uint64_t seed, uint64_t start_ns, bool meddle)
{
    struct world w;

    world_open(&w, SW_ENGINE_EPOLL, NULL, FAMILY_NONE, NULL, NULL);
    memset(&wheel, 0, sizeof(wheel));
    wheel.loop = w.loop;
    wheel.now_ns = start_ns;
    wheel.meddle = meddle;
    sw_rng_seed(&wheel.rng, seed);
    wheel__init(&w.loop->wheel, start_ns);
    for (unsigned i = 0; i < TIMERS; i++) {
        sw_timer_init(&wheel.t[i].timer, fired, &wheel.t[i]);
    }
    for (unsigned step = 0; step < 3000; step++) {
        struct timed *t = &wheel.t[sw_rng_below(&wheel.rng, TIMERS)];
        uint64_t next, reference;

        if (sw_rng_below(&wheel.rng, 3) == 0) {
            stop(t);
        } else {
            start(t, wheel.now_ns + random_delay());
        }
        next = wheel__next_ns(&w.loop->wheel);
        reference = reference_next();
        assert_true(next <= reference); /* wakes in time; earlier only to move timers down */
        assert_true((next == IO_NO_DEADLINE) == (reference == IO_NO_DEADLINE));
        if (sw_rng_below(&wheel.rng, 4) == 0) {
            wheel.now_ns += random_delay() >> 4;
        } else if (next != IO_NO_DEADLINE && next > wheel.now_ns &&
                   sw_rng_below(&wheel.rng, 2) == 0) {
            wheel.now_ns = next; /* as a loop does */
        }
        wheel__run(&w.loop->wheel, wheel.now_ns);
        if (!meddle) {
            for (unsigned i = 0; i < TIMERS; i++) {
                bool due = wheel.t[i].running &&
                           tick_of(wheel.t[i].deadline_ns) <= wheel.now_ns / SW_NS_PER_MS;

                if (due) {
                    fail_msg("seed %llu: timer %u is due and did not fire",
                             (unsigned long long)seed, i);
                }
            }
        }
    }
    assert_true(wheel.fired > 100);
    for (unsigned i = 0; i < TIMERS; i++) {
        stop(&wheel.t[i]);
    }
    assert_int_equal(wheel__next_ns(&w.loop->wheel), IO_NO_DEADLINE);
    world_close(&w);
}

static void randomised(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        against_reference(seed, seed * 0x123456789abull, false);
        against_reference(seed, seed * 0x123456789abull, true);
    }
}

/* Waking exactly when told reaches a far deadline in few steps, and on time. */
static void few_wakes(void **state)
{
    static const uint64_t delays_ms[] = {1, 63, 64, 65, 4095, 4096, 4097, 1000000, 86400000};
    struct world w;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(delays_ms); i++) {
        unsigned wakes = 0;

        world_open(&w, SW_ENGINE_EPOLL, NULL, FAMILY_NONE, NULL, NULL);
        memset(&wheel, 0, sizeof(wheel));
        wheel.loop = w.loop;
        wheel.now_ns = 777777777;
        wheel__init(&w.loop->wheel, wheel.now_ns);
        sw_timer_init(&wheel.t[0].timer, fired, &wheel.t[0]);
        start(&wheel.t[0], wheel.now_ns + delays_ms[i] * SW_NS_PER_MS);
        while (wheel.fired == 0) {
            wheel.now_ns = wheel__next_ns(&w.loop->wheel);
            assert_true(wheel.now_ns != IO_NO_DEADLINE);
            wheel__run(&w.loop->wheel, wheel.now_ns);
            wakes++;
        }
        assert_true(wakes <= WHEEL_LEVELS);
        assert_int_equal(wheel.now_ns, tick_of(wheel.t[0].deadline_ns) * SW_NS_PER_MS);
        world_close(&w);
    }
}

static void extremes(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, SW_ENGINE_EPOLL, NULL, FAMILY_NONE, NULL, NULL);
    memset(&wheel, 0, sizeof(wheel));
    wheel.loop = w.loop;
    for (unsigned i = 0; i < 3; i++) {
        sw_timer_init(&wheel.t[i].timer, fired, &wheel.t[i]);
    }
    wheel.now_ns = w.loop->now_ns;
    start(&wheel.t[0], UINT64_MAX);
    assert_true(wheel__next_ns(&w.loop->wheel) > wheel.now_ns);
    start(&wheel.t[1], 0); /* the past */
    assert_int_equal(wheel__next_ns(&w.loop->wheel), 0);
    wheel__run(&w.loop->wheel, wheel.now_ns);
    assert_int_equal(wheel.t[1].fired, 1);
    assert_int_equal(wheel.t[0].fired, 0);
    wheel.now_ns = UINT64_MAX - SW_NS_PER_MS;
    wheel__run(&w.loop->wheel, wheel.now_ns);
    assert_int_equal(wheel.t[0].fired, 0);
    stop(&wheel.t[0]);
    stop(&wheel.t[0]); /* twice is fine */
    world_close(&w);
}

/* ---- in a loop ------------------------------------------------------------------------------- */

static struct {
    struct sw_loop *loop;
    struct sw_timer a, b, c;
    uint64_t deadline_ns, late_ns;
    unsigned a_count, b_count, c_count;
} run;

static void same_tick(struct sw_timer *t, void *arg)
{
    unsigned *count = arg;

    (void)t;
    ++*count;
    sw_timer_stop(run.loop, &run.a); /* whoever is first stops the others, due in this very tick */
    sw_timer_stop(run.loop, &run.b);
    sw_timer_start(run.loop, &run.c, sw_loop_now_ns(run.loop) + 2 * SW_NS_PER_MS);
}

static void repeat(struct sw_timer *t, void *arg)
{
    (void)arg;
    assert_true(sw_loop_now_ns(run.loop) >= run.deadline_ns);
    run.late_ns = SW_MAX(run.late_ns, sw_loop_now_ns(run.loop) - run.deadline_ns);
    run.c_count++;
    if (run.c_count == 20) {
        sw_loop_stop(run.loop);
        return;
    }
    run.deadline_ns = sw_loop_now_ns(run.loop) + run.c_count * 100 * SW_NS_PER_US;
    sw_timer_start(run.loop, t, run.deadline_ns);
}

static void in_a_loop(void **state)
{
    struct world w;

    world_open(&w, ENGINE(state), NULL, FAMILY_NONE, NULL, NULL);
    memset(&run, 0, sizeof(run));
    run.loop = w.loop;
    sw_timer_init(&run.a, same_tick, &run.a_count);
    sw_timer_init(&run.b, same_tick, &run.b_count);
    sw_timer_init(&run.c, repeat, NULL);
    sw_timer_start(w.loop, &run.a, sw_loop_now_ns(w.loop) + 5 * SW_NS_PER_MS);
    sw_timer_start(w.loop, &run.b, sw_loop_now_ns(w.loop) + 5 * SW_NS_PER_MS);
    world_run(&w);
    assert_int_equal(run.a_count + run.b_count, 1);
    assert_int_equal(run.c_count, 20);
    world_close(&w);
}

static void clocks(void **state)
{
    struct world w;
    uint64_t before, after;

    world_open(&w, ENGINE(state), NULL, FAMILY_NONE, NULL, NULL);
    before = sw_loop_clock_ns(w.loop);
    world_later(&w, 30, world_stop);
    world_run(&w);
    after = sw_loop_now_ns(w.loop);
    assert_true(after >= before + 30 * SW_NS_PER_MS);
    assert_true(sw_loop_now_unix_s(w.loop) > 1700000000);
    assert_int_equal(sw_loop_now_unix_ms(w.loop) / 1000, sw_loop_now_unix_s(w.loop));
    assert_true(sw_loop_random(w.loop) != sw_loop_random(w.loop));
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(randomised),
        cmocka_unit_test(few_wakes),
        cmocka_unit_test(extremes),
        ON_BOTH(in_a_loop),
        ON_BOTH(clocks),
    };

    return cmocka_run_group_tests_name("io/timer", tests, NULL, NULL);
}
