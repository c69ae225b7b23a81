/* base/out.c - see out.h. */
#include "base/out.h"

#include <stdarg.h>

void sw_out_u64(struct sw_out *o, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    sw_out_put(o, digits + at, sizeof(digits) - at);
}

void sw_out_i64(struct sw_out *o, int64_t value)
{
    if (value < 0) {
        sw_out_char(o, '-');
        sw_out_u64(o, 0 - (uint64_t)value);
    } else {
        sw_out_u64(o, (uint64_t)value);
    }
}

void sw_out_hex(struct sw_out *o, uint64_t value, unsigned digits)
{
    unsigned needed = value == 0 ? 1 : (67u - (unsigned)__builtin_clzll(value)) / 4;
    unsigned count = SW_MAX(needed, digits);
    char text[16];

    SW_ASSERT(count <= sizeof(text));
    for (unsigned i = count; i > 0; value >>= 4) {
        text[--i] = "0123456789abcdef"[value & 15];
    }
    sw_out_put(o, text, count);
}

void sw_out_printf(struct sw_out *o, const char *fmt, ...)
{
    size_t left = o->cap - o->len;
    char *at = o->ptr == NULL ? NULL : o->ptr + o->len;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(left > 0 ? at : NULL, left, fmt, ap);
    va_end(ap);
    SW_ASSERT(n >= 0);
    if ((size_t)n > left || ((size_t)n == left && n > 0)) {
        /* vsnprintf wants a byte for its NUL: a text that fits exactly counts as too long */
        o->overflowed = true;
        o->cap = o->len;
        return;
    }
    o->len += (size_t)n;
}
