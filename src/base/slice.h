/* base/slice.h - borrowed bytes with their length.
 *
 * A slice owns nothing and is never NUL-terminated. Whoever keeps it past the call copies it into
 * an arena. An empty slice may have ptr NULL.
 */
#ifndef SW_SLICE_H
#define SW_SLICE_H

#include "base/base.h"

struct sw_slice {
    const char *ptr;
    size_t len;
};

/* A string literal as a slice; also usable in static tables. */
#define SW_S(lit) ((struct sw_slice){"" lit, sizeof(lit) - 1})
/* For printf's %.*s */
#define SW_SARG(s) (int)(s).len, (s).ptr

static inline struct sw_slice sw_slice_of(const void *ptr, size_t len)
{
    return (struct sw_slice){(const char *)ptr, len};
}

/* A NUL-terminated string as a slice; NULL gives the empty slice. Inline for the sake of literals.
 */
static inline struct sw_slice sw_slice_cstr(const char *str)
{
    return (struct sw_slice){str, str == NULL ? 0 : strlen(str)};
}

static inline bool sw_slice_eq(struct sw_slice a, struct sw_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ASCII case is ignored; bytes above 0x7f compare as they are. */
bool sw_slice_eq_nocase(struct sw_slice a, struct sw_slice b);
bool sw_slice_starts(struct sw_slice s, struct sw_slice prefix);
bool sw_slice_starts_nocase(struct sw_slice s, struct sw_slice prefix);
bool sw_slice_ends(struct sw_slice s, struct sw_slice suffix);

/* The first n bytes (or all), and what follows them. */
static inline struct sw_slice sw_slice_head(struct sw_slice s, size_t n)
{
    return (struct sw_slice){s.ptr, n < s.len ? n : s.len};
}

static inline struct sw_slice sw_slice_tail(struct sw_slice s, size_t n)
{
    return n < s.len ? (struct sw_slice){s.ptr + n, s.len - n} : (struct sw_slice){s.ptr, 0};
}

/* Position of the first c, or s.len. */
size_t sw_slice_find(struct sw_slice s, char c);
/* Position of the first needle, or s.len. */
size_t sw_slice_find_slice(struct sw_slice s, struct sw_slice needle);

/* Cuts at the first c: *ret_head before it, *ret_rest behind it. False when there is none; then
 * *ret_head is all of s and *ret_rest is empty. */
bool sw_slice_cut(struct sw_slice s, char c, struct sw_slice *ret_head, struct sw_slice *ret_rest);

/* Without SP and HTAB at both ends (OWS of RFC 9110, 5.6.3). */
struct sw_slice sw_slice_trim(struct sw_slice s);

/* Decimal digits only, no sign, no blank, at least one digit, no overflow. */
SW_MUST bool sw_slice_u64(struct sw_slice s, uint64_t *ret_value);
SW_MUST bool sw_slice_hex_u64(struct sw_slice s, uint64_t *ret_value);

/* A fast keyed hash for tables in memory (not for signatures): seed it per process, so that a
 * client cannot choose colliding keys. */
uint64_t sw_slice_hash(struct sw_slice s, uint64_t seed);

/* Compares without telling by time where the difference is. Lengths are not secret. */
bool sw_slice_eq_secret(struct sw_slice a, struct sw_slice b);

#endif
