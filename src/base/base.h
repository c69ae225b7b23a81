/* base/base.h - the words every room shares: assertions, steps, ownership.
 *
 * Room       libc only; knows nothing of HTTP, sockets or state.
 * May touch  nothing.
 */
#ifndef SW_BASE_H
#define SW_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SW_MUST         __attribute__((warn_unused_result))
#define SW_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define SW_NORETURN     __attribute__((noreturn))
#define SW_CLEANUP(f)   __attribute__((cleanup(f)))
#define SW_COUNTOF(a)   (sizeof(a) / sizeof((a)[0]))
#define SW_BIT(n)       (1u << (n))
#define SW_LIKELY(x)    __builtin_expect(!!(x), 1)
#define SW_UNLIKELY(x)  __builtin_expect(!!(x), 0)
#define SW_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define SW_MAX(a, b)    ((a) > (b) ? (a) : (b))

/* The struct that holds MEMBER at PTR. */
#define SW_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Hands ownership on: yields *p and leaves NULL behind. */
#define sw_take(p)                                                                                 \
    ({                                                                                             \
        __typeof__(*(p)) sw_taken_ = *(p);                                                         \
        *(p) = NULL;                                                                               \
        sw_taken_;                                                                                 \
    })

/* On in release: what we do wrong stops the process; what was acknowledged is safe. */
#define SW_ASSERT(cond)                                                                            \
    do {                                                                                           \
        if (SW_UNLIKELY(!(cond))) {                                                                \
            sw_assert_failed(#cond, __FILE__, __LINE__, __func__);                                 \
        }                                                                                          \
    } while (0)

/* For checks that walk lists: test builds only. */
#ifdef SW_ASSERT_SLOW_ON
#define SW_ASSERT_SLOW(cond) SW_ASSERT(cond)
#else
#define SW_ASSERT_SLOW(cond)                                                                       \
    do {                                                                                           \
        (void)sizeof(cond);                                                                        \
    } while (0)
#endif

#define SW_UNREACHABLE() sw_assert_failed("unreachable", __FILE__, __LINE__, __func__)

/* Prints what failed and what each registered room has to say, then aborts. */
SW_NORETURN void sw_assert_failed(const char *cond, const char *file, int line, const char *func);

/* A room's report for a failed assertion: writes plain text to fd; async-signal-safe calls only.
 * At most SW_PANIC_MAX are kept; called at start, before threads. */
typedef void sw_panic_fn(void *arg, int fd);
#define SW_PANIC_MAX 8
void sw_panic_add(sw_panic_fn *fn, void *arg);

/* What a step of a machine, or a parser, says. */
enum sw_step {
    SW_STEP_MORE, /* needs more input, or an event; not an error */
    SW_STEP_DONE,
    SW_STEP_FAIL,
};

#define SW_NS_PER_S  1000000000ull
#define SW_NS_PER_MS 1000000ull
#define SW_NS_PER_US 1000ull

/* Functions that lost too many memories: slices, builders and sw_slice_u64 take their place. */
#ifndef SW_NO_POISON
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#undef sprintf /* a macro of the fortified headers under clang */
#undef vsprintf
#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol atoll gets
#endif

#endif
