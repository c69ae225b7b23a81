/* base/arena.h - memory with one lifetime: a fixed block, bumped, dropped whole.
 *
 * A full arena returns NULL and stays marked as overflowed, so that twenty appends need one check.
 * Not thread-safe: one owner.
 */
#ifndef SW_ARENA_H
#define SW_ARENA_H

#include "base/slice.h"

struct sw_arena {
    char *base;
    size_t size;
    size_t used;
    bool overflowed;
};

/* Takes the caller's block; it stays the caller's. */
void sw_arena_init(struct sw_arena *a, void *block, size_t size_bytes);

/* count * size bytes, zeroed, aligned to 16; NULL and sticky overflow when it does not fit. The
 * multiplication is checked here and nowhere else. */
void *sw_arena_alloc(struct sw_arena *a, size_t count, size_t size);
#define sw_arena_new(a, type)          ((type *)sw_arena_alloc((a), 1, sizeof(type)))
#define sw_arena_array(a, count, type) ((type *)sw_arena_alloc((a), (count), sizeof(type)))

/* Not zeroed and not aligned: for bytes. */
char *sw_arena_bytes(struct sw_arena *a, size_t len);

/* A copy that lives as long as the arena; ptr NULL on overflow. */
struct sw_slice sw_arena_copy(struct sw_arena *a, struct sw_slice s);
/* The same with a NUL behind it; NULL on overflow. */
char *sw_arena_cstr(struct sw_arena *a, struct sw_slice s);
/* printf into the arena; ptr NULL on overflow. */
struct sw_slice sw_arena_printf(struct sw_arena *a, const char *fmt, ...) SW_PRINTF(2, 3);

/* What was allocated after the mark is given back; overflow is cleared. */
static inline size_t sw_arena_mark(const struct sw_arena *a)
{
    return a->used;
}
void sw_arena_reset(struct sw_arena *a, size_t mark);

#endif
