/* base/pool.c - see pool.h. */
#include "base/pool.h"

#include <sys/mman.h>

bool sw_pool_init(struct sw_pool *p, size_t slot_bytes, size_t count)
{
    size_t bytes;
    void *block;

    SW_ASSERT(slot_bytes >= sizeof(void *));
    SW_ASSERT(count > 0);
    slot_bytes = (slot_bytes + 15) & ~(size_t)15;
    if (__builtin_mul_overflow(slot_bytes, count, &bytes)) {
        return false;
    }
    block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
    if (block == MAP_FAILED) {
        return false;
    }
    *p = (struct sw_pool){block, slot_bytes, count, 0, 0, NULL};
    return true;
}

void sw_pool_fini(struct sw_pool *p)
{
    if (p->block != NULL) {
        munmap(p->block, p->slot_bytes * p->count);
    }
    *p = (struct sw_pool){0};
}

void *sw_pool_get(struct sw_pool *p)
{
    void *slot = p->free_list;

    SW_ASSERT(p->used <= p->count);
    if (slot != NULL) {
        memcpy(&p->free_list, slot, sizeof(void *));
    } else if (p->touched < p->count) {
        slot = p->block + p->slot_bytes * p->touched++;
    } else {
        return NULL;
    }
    p->used++;
    return slot;
}

void sw_pool_put(struct sw_pool *p, void *slot)
{
    size_t at = (size_t)((char *)slot - p->block);

    SW_ASSERT(p->used > 0);
    SW_ASSERT(at < p->slot_bytes * p->touched);
    SW_ASSERT(at % p->slot_bytes == 0);
    memcpy(slot, &p->free_list, sizeof(void *));
    p->free_list = slot;
    p->used--;
}
