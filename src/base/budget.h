/* base/budget.h - memory of varying size under one limit: large states, answers that wait.
 *
 * What cannot be sized before (a state of up to a megabyte, now and then) comes from here and not
 * from pools: malloc, counted, and refused above the limit. Thread-safe.
 */
#ifndef SW_BUDGET_H
#define SW_BUDGET_H

#include "base/base.h"

#include <stdatomic.h>

struct sw_budget {
    _Atomic size_t used;
    size_t bytes_max;
    _Atomic uint64_t refused; /* times a caller got NULL */
};

static inline void sw_budget_init(struct sw_budget *b, size_t bytes_max)
{
    b->used = 0;
    b->bytes_max = bytes_max;
    b->refused = 0;
}
/* Not zeroed, aligned to 16. NULL: it would be above the limit, or there is no memory. Any thread.
 */
void *sw_budget_take(struct sw_budget *b, size_t bytes);
/* What take gave; NULL is allowed. Any thread. */
void sw_budget_give(struct sw_budget *b, void *memory);

#endif
