/* io/timer.c - the timer wheel: eight levels of 64 slots, 1 ms, O(1) to start and to stop.
 *
 * Room       io/. Pure but for the callbacks: time comes as an argument.
 * Flow       loop.c asks wheel__next_ns before it sleeps and calls wheel__run after it woke.
 *
 * A timer lies on the level of the highest group of six bits in which its tick differs from the
 * wheel's tick, in the slot that group names. So every timer of a lower level is due before every
 * one of a higher level, no slot ever wraps, and the earliest slot is the lowest bit of the lowest
 * level that has one. When the wheel reaches a slot of a higher level, its timers move down.
 */
#include "io/io_priv.h"

void wheel__init(struct io_wheel *w, uint64_t now_ns)
{
    w->tick = now_ns / SW_NS_PER_MS;
    sw_list_init(&w->due);
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        w->pending[level] = 0;
        for (unsigned i = 0; i < WHEEL_SLOTS; i++) {
            sw_list_init(&w->slot[level][i]);
        }
    }
}

/* Rounded up: a timer may be late, never early. */
static uint64_t wheel_tick_of(uint64_t deadline_ns)
{
    return deadline_ns / SW_NS_PER_MS + (deadline_ns % SW_NS_PER_MS != 0);
}

static void wheel_place(struct io_wheel *w, struct sw_timer *t)
{
    uint64_t tick = wheel_tick_of(t->deadline_ns), differs = tick ^ w->tick;
    unsigned level, slot;

    if (tick <= w->tick) {
        sw_list_push_back(&w->due, &t->link);
        return;
    }
    level = (63u - (unsigned)__builtin_clzll(differs)) / WHEEL_BITS;
    SW_ASSERT(level < WHEEL_LEVELS);
    slot = (unsigned)(tick >> (level * WHEEL_BITS)) & (WHEEL_SLOTS - 1);
    w->pending[level] |= 1ull << slot;
    sw_list_push_back(&w->slot[level][slot], &t->link);
}

/* The earliest slot that holds a timer; false: none does. *ret_tick is where it begins. */
static bool wheel_first(struct io_wheel *w, unsigned *ret_level, unsigned *ret_slot,
                        uint64_t *ret_tick)
{
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        while (w->pending[level] != 0) {
            unsigned slot = (unsigned)__builtin_ctzll(w->pending[level]);
            unsigned shift = level * WHEEL_BITS;

            if (sw_list_empty(&w->slot[level][slot])) { /* all stopped since */
                w->pending[level] &= w->pending[level] - 1;
                continue;
            }
            *ret_level = level;
            *ret_slot = slot;
            *ret_tick = (w->tick >> (shift + WHEEL_BITS) << (shift + WHEEL_BITS)) |
                        ((uint64_t)slot << shift);
            return true;
        }
    }
    return false;
}

uint64_t wheel__next_ns(struct io_wheel *w)
{
    unsigned level, slot;
    uint64_t tick;

    if (!sw_list_empty(&w->due)) {
        return 0;
    }
    if (!wheel_first(w, &level, &slot, &tick)) {
        return IO_NO_DEADLINE;
    }
    return tick > IO_NO_DEADLINE / SW_NS_PER_MS ? IO_NO_DEADLINE - 1 : tick * SW_NS_PER_MS;
}

/* Moves the wheel to now; what is due is in w->due then, in the order of its ticks. */
static void wheel_turn(struct io_wheel *w, uint64_t now_tick)
{
    unsigned level, slot;
    uint64_t tick;

    while (wheel_first(w, &level, &slot, &tick) && tick <= now_tick) {
        struct sw_link *list = &w->slot[level][slot], *l;

        SW_ASSERT(tick >= w->tick);
        w->tick = tick;
        w->pending[level] &= ~(1ull << slot);
        while ((l = sw_list_pop_front(list)) != NULL) {
            wheel_place(w, SW_CONTAINER(l, struct sw_timer, link)); /* lower, or due */
        }
    }
    if (now_tick > w->tick) {
        w->tick = now_tick;
    }
}

void wheel__run(struct io_wheel *w, uint64_t now_ns)
{
    struct sw_link batch, *l;

    wheel_turn(w, now_ns / SW_NS_PER_MS);
    if (sw_list_empty(&w->due)) {
        return;
    }
    /* A callback may stop any timer of the batch, and what it starts for a time that has passed
     * waits in w->due for the next turn: so this ends. */
    batch = w->due;
    batch.next->prev = &batch;
    batch.prev->next = &batch;
    sw_list_init(&w->due);
    while ((l = sw_list_pop_front(&batch)) != NULL) {
        struct sw_timer *t = SW_CONTAINER(l, struct sw_timer, link);

        SW_ASSERT(t->fn != NULL);
        t->fn(t, t->arg);
    }
}

void sw_timer_start(struct sw_loop *loop, struct sw_timer *t, uint64_t deadline_ns)
{
    io__check(loop);
    SW_ASSERT(t != NULL);
    SW_ASSERT(t->fn != NULL);
    sw_link_remove(&t->link);
    t->deadline_ns = deadline_ns;
    wheel_place(&loop->wheel, t);
}

void sw_timer_stop(struct sw_loop *loop, struct sw_timer *t)
{
    io__check(loop);
    SW_ASSERT(t != NULL);
    sw_link_remove(&t->link);
}
