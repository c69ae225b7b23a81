/* base/out.h - builds a text into the caller's memory, once.
 *
 * Appends after an overflow are swallowed; one check of `overflowed` at the end is enough.
 */
#ifndef SW_OUT_H
#define SW_OUT_H

#include "base/slice.h"

struct sw_out {
    char *ptr;
    size_t cap;
    size_t len;
    bool overflowed;
};

static inline struct sw_out sw_out_init(void *ptr, size_t cap)
{
    return (struct sw_out){(char *)ptr, cap, 0, false};
}

static inline void sw_out_put(struct sw_out *o, const void *ptr, size_t len)
{
    if (SW_UNLIKELY(len > o->cap - o->len)) {
        o->overflowed = true;
        o->cap = o->len; /* nothing more fits, not even something shorter */
        return;
    }
    if (len > 0) {
        memcpy(o->ptr + o->len, ptr, len);
        o->len += len;
    }
}

static inline void sw_out_slice(struct sw_out *o, struct sw_slice s)
{
    sw_out_put(o, s.ptr, s.len);
}

#define sw_out_lit(o, lit) sw_out_put((o), "" lit, sizeof(lit) - 1)

static inline void sw_out_char(struct sw_out *o, char c)
{
    sw_out_put(o, &c, 1);
}

/* Inline, so that the length of a literal is known. */
static inline void sw_out_cstr(struct sw_out *o, const char *str)
{
    sw_out_put(o, str, strlen(str));
}

void sw_out_u64(struct sw_out *o, uint64_t value);
void sw_out_i64(struct sw_out *o, int64_t value);
/* Lower-case hex without leading zeros; `digits` pads with zeros (0: none). */
void sw_out_hex(struct sw_out *o, uint64_t value, unsigned digits);
void sw_out_printf(struct sw_out *o, const char *fmt, ...) SW_PRINTF(2, 3);

static inline struct sw_slice sw_out_done(const struct sw_out *o)
{
    return (struct sw_slice){o->ptr, o->len};
}

#endif
