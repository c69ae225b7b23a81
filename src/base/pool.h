/* base/pool.h - slots of one size from one block: allocated at start, never more.
 *
 * The free list is last-in first-out, so that a warm slot is used again. One owner thread.
 */
#ifndef SW_POOL_H
#define SW_POOL_H

#include "base/base.h"

struct sw_pool {
    char *block;
    size_t slot_bytes;
    size_t count;   /* slots there are */
    size_t used;    /* slots handed out */
    size_t touched; /* slots ever handed out: the rest of the block was never written */
    void *free_list;
};

/* Allocates address space for all slots; pages are touched when first used. False: no memory. */
SW_MUST bool sw_pool_init(struct sw_pool *p, size_t slot_bytes, size_t count);
void sw_pool_fini(struct sw_pool *p);
/* NULL when all slots are in use: the caller refuses or waits. Content is unspecified. */
void *sw_pool_get(struct sw_pool *p);
void sw_pool_put(struct sw_pool *p, void *slot);

#endif
