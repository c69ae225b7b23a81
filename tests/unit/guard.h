/* guard.h - input flush against a page that cannot be read, so that one byte too far is a fault.
 *
 * Tests only. A block holds `size` bytes; guard_put places a copy so that its last byte is the
 * last readable one. Not valid any more after the next guard_put of that block.
 */
#ifndef SW_GUARD_H
#define SW_GUARD_H

#include "base/slice.h"

#include <sys/mman.h>
#include <unistd.h>

struct guard {
    char *map;
    size_t size; /* readable bytes, whole pages */
};

static inline struct guard guard_new(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct guard g = {NULL, (size + page - 1) / page * page};

    g.map = mmap(NULL, g.size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SW_ASSERT(g.map != MAP_FAILED);
    SW_ASSERT(mprotect(g.map + g.size, page, PROT_NONE) == 0);
    return g;
}

static inline struct sw_slice guard_put(struct guard *g, struct sw_slice s)
{
    char *at = g->map + g->size - s.len;

    SW_ASSERT(s.len <= g->size);
    if (s.len > 0) {
        memcpy(at, s.ptr, s.len);
    }
    return sw_slice_of(at, s.len);
}

static inline void guard_free(struct guard *g)
{
    (void)munmap(g->map, g->size + (size_t)sysconf(_SC_PAGESIZE));
    g->map = NULL;
}

#endif
