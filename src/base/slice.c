/* base/slice.c - see slice.h. */
#include "base/slice.h"

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool sw_slice_eq_nocase(struct sw_slice a, struct sw_slice b)
{
    return a.len == b.len && sw_slice_starts_nocase(a, b);
}

bool sw_slice_starts(struct sw_slice s, struct sw_slice prefix)
{
    return s.len >= prefix.len && sw_slice_eq(sw_slice_head(s, prefix.len), prefix);
}

bool sw_slice_starts_nocase(struct sw_slice s, struct sw_slice prefix)
{
    if (s.len < prefix.len) {
        return false;
    }
    for (size_t i = 0; i < prefix.len; i++) {
        if (lower(s.ptr[i]) != lower(prefix.ptr[i])) {
            return false;
        }
    }
    return true;
}

bool sw_slice_ends(struct sw_slice s, struct sw_slice suffix)
{
    return s.len >= suffix.len && sw_slice_eq(sw_slice_tail(s, s.len - suffix.len), suffix);
}

size_t sw_slice_find(struct sw_slice s, char c)
{
    const char *at = s.len > 0 ? memchr(s.ptr, c, s.len) : NULL;

    return at == NULL ? s.len : (size_t)(at - s.ptr);
}

size_t sw_slice_find_slice(struct sw_slice s, struct sw_slice needle)
{
    const char *at;

    if (needle.len == 0) {
        return 0;
    }
    at = s.len > 0 ? memmem(s.ptr, s.len, needle.ptr, needle.len) : NULL;
    return at == NULL ? s.len : (size_t)(at - s.ptr);
}

bool sw_slice_cut(struct sw_slice s, char c, struct sw_slice *ret_head, struct sw_slice *ret_rest)
{
    size_t at = sw_slice_find(s, c);

    *ret_head = sw_slice_head(s, at);
    *ret_rest = sw_slice_tail(s, at < s.len ? at + 1 : s.len);
    return at < s.len;
}

static bool blank(char c)
{
    return c == ' ' || c == '\t';
}

struct sw_slice sw_slice_trim(struct sw_slice s)
{
    while (s.len > 0 && blank(s.ptr[0])) {
        s = sw_slice_tail(s, 1);
    }
    while (s.len > 0 && blank(s.ptr[s.len - 1])) {
        s.len--;
    }
    return s;
}

bool sw_slice_u64(struct sw_slice s, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (s.len == 0) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(unsigned char)s.ptr[i] - '0';

        if (digit > 9 || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, digit, &value)) {
            return false;
        }
    }
    *ret_value = value;
    return true;
}

bool sw_slice_hex_u64(struct sw_slice s, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (s.len == 0 || s.len > 16) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = lower(s.ptr[i]);
        unsigned digit;

        if (c >= '0' && c <= '9') {
            digit = c - '0';
        } else if (c >= 'a' && c <= 'f') {
            digit = c - 'a' + 10;
        } else {
            return false;
        }
        value = value << 4 | digit;
    }
    *ret_value = value;
    return true;
}

uint64_t sw_slice_hash(struct sw_slice s, uint64_t seed)
{
    uint64_t h = seed ^ (s.len * 0x9e3779b97f4a7c15u), word;
    size_t i = 0;

    /* Multiply-fold of 8 bytes at a time; the secret seed enters each step's product. */
    for (; i < s.len; i += sizeof(word)) {
        __uint128_t product;
        size_t n = SW_MIN(sizeof(word), s.len - i);

        word = 0;
        memcpy(&word, s.ptr + i, n);
        product = (__uint128_t)(h ^ word ^ 0xa0761d6478bd642fu) * (seed | 0xe7037ed1a0b428dbu);
        h = (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ (h >> 32);
}

bool sw_slice_eq_secret(struct sw_slice a, struct sw_slice b)
{
    volatile unsigned char diff = 0;

    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        diff = (unsigned char)(diff | (a.ptr[i] ^ b.ptr[i]));
    }
    return diff == 0;
}
