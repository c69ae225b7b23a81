/* base/budget.c - malloc under a limit. */
#include "base/budget.h"

#include <stdlib.h>

/* Before each block: its size, so that giving back needs no word about it. */
struct head {
    _Alignas(16) size_t bytes;
};

void *sw_budget_take(struct sw_budget *b, size_t bytes)
{
    size_t total = sizeof(struct head) + bytes, before;
    struct head *h;

    if (bytes > b->bytes_max || total > b->bytes_max) {
        atomic_fetch_add_explicit(&b->refused, 1, memory_order_relaxed);
        return NULL;
    }
    before = atomic_fetch_add_explicit(&b->used, total, memory_order_relaxed);
    h = before <= b->bytes_max - total ? malloc(total) : NULL;
    if (h == NULL) {
        atomic_fetch_sub_explicit(&b->used, total, memory_order_relaxed);
        atomic_fetch_add_explicit(&b->refused, 1, memory_order_relaxed);
        return NULL;
    }
    h->bytes = total;
    return h + 1;
}

void sw_budget_give(struct sw_budget *b, void *memory)
{
    struct head *h = memory;
    size_t before;

    if (h == NULL) {
        return;
    }
    h--;
    before = atomic_fetch_sub_explicit(&b->used, h->bytes, memory_order_relaxed);
    SW_ASSERT(before >= h->bytes);
    free(h);
}
