/* placement/wire.h - numbers and pieces of the records this room keeps: big endian, one check at
 * the end, for writing (struct sw_out) as for reading.
 */
#ifndef SW_PLACEMENT_WIRE_H
#define SW_PLACEMENT_WIRE_H

#include "base/out.h"

static inline void sw_wire__put(struct sw_out *out, uint64_t value, size_t bytes)
{
    char text[8];

    SW_ASSERT(bytes <= sizeof(text));
    for (size_t i = 0; i < bytes; i++) {
        text[i] = (char)(value >> (8 * (bytes - 1 - i)));
    }
    sw_out_put(out, text, bytes);
}

/* A record being read. What reaches beyond its end yields zeros and empty slices, and marks it. */
struct sw_wire {
    struct sw_slice rest;
    bool bad;
};

static inline struct sw_slice sw_wire__take(struct sw_wire *w, uint64_t len)
{
    struct sw_slice piece = {NULL, 0};

    if (w->bad || len > w->rest.len) {
        w->bad = true;
        return piece;
    }
    piece = sw_slice_head(w->rest, (size_t)len);
    w->rest = sw_slice_tail(w->rest, (size_t)len);
    return piece;
}

static inline uint64_t sw_wire__number(struct sw_wire *w, size_t bytes)
{
    struct sw_slice piece = sw_wire__take(w, bytes);
    uint64_t value = 0;

    SW_ASSERT(bytes <= sizeof(value));
    for (size_t i = 0; i < piece.len; i++) {
        value = value << 8 | (unsigned char)piece.ptr[i];
    }
    return value;
}

/* All of it was read, and nothing was missing. */
static inline bool sw_wire__whole(const struct sw_wire *w)
{
    return !w->bad && w->rest.len == 0;
}

#endif
