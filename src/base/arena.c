/* base/arena.c - see arena.h. */
#include "base/arena.h"

#include <stdarg.h>

void sw_arena_init(struct sw_arena *a, void *block, size_t size_bytes)
{
    SW_ASSERT(block != NULL || size_bytes == 0);
    *a = (struct sw_arena){block, size_bytes, 0, false};
}

static void *arena_take(struct sw_arena *a, size_t bytes, size_t align)
{
    size_t pad = (align - (((uintptr_t)a->base + a->used) & (align - 1))) & (align - 1);
    size_t left = a->size - a->used;
    char *at;

    SW_ASSERT(a->used <= a->size);
    if (a->overflowed || pad > left || bytes > left - pad) {
        a->overflowed = true;
        return NULL;
    }
    if (a->base == NULL) {
        return NULL; /* an arena of nothing: zero bytes are not an overflow */
    }
    at = a->base + a->used + pad;
    a->used += pad + bytes;
    return at;
}

void *sw_arena_alloc(struct sw_arena *a, size_t count, size_t size)
{
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        a->overflowed = true;
        return NULL;
    }
    p = arena_take(a, bytes, 16);
    if (p != NULL && bytes > 0) {
        memset(p, 0, bytes);
    }
    return p;
}

char *sw_arena_bytes(struct sw_arena *a, size_t len)
{
    return arena_take(a, len, 1);
}

struct sw_slice sw_arena_copy(struct sw_arena *a, struct sw_slice s)
{
    char *p = sw_arena_bytes(a, s.len);

    if (p == NULL) {
        return (struct sw_slice){NULL, 0};
    }
    if (s.len > 0) {
        memcpy(p, s.ptr, s.len);
    }
    return (struct sw_slice){p, s.len};
}

char *sw_arena_cstr(struct sw_arena *a, struct sw_slice s)
{
    char *p;

    SW_ASSERT(s.len < SIZE_MAX);
    p = sw_arena_bytes(a, s.len + 1);
    if (p == NULL) {
        return NULL;
    }
    if (s.len > 0) {
        memcpy(p, s.ptr, s.len);
    }
    p[s.len] = '\0';
    return p;
}

struct sw_slice sw_arena_printf(struct sw_arena *a, const char *fmt, ...)
{
    size_t left = a->overflowed ? 0 : a->size - a->used;
    char *at = a->base + a->used;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(left > 0 ? at : NULL, left, fmt, ap);
    va_end(ap);
    SW_ASSERT(n >= 0);
    if ((size_t)n >= left) {
        a->overflowed = true;
        return (struct sw_slice){NULL, 0};
    }
    a->used += (size_t)n;
    return (struct sw_slice){at, (size_t)n};
}

void sw_arena_reset(struct sw_arena *a, size_t mark)
{
    SW_ASSERT(mark <= a->used);
    a->used = mark;
    a->overflowed = false;
}
