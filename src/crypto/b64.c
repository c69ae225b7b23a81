/* crypto/b64.c - base64url (RFC 4648, 5) without padding, strict: one text for each value. */
#include "crypto/crypto.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void sw_b64url_put(struct sw_out *out, const void *in, size_t len)
{
    const uint8_t *p = in;
    size_t rest = len % 3, chars = SW_B64_LEN(len);
    char *to;

    if (chars > out->cap - out->len) {
        out->overflowed = true;
        out->cap = out->len; /* nothing more fits, as in sw_out_put */
        return;
    }
    to = out->ptr + out->len;
    out->len += chars;
    for (; len >= 3; len -= 3, p += 3, to += 4) {
        to[0] = letters[p[0] >> 2];
        to[1] = letters[(p[0] << 4 | p[1] >> 4) & 63];
        to[2] = letters[(p[1] << 2 | p[2] >> 6) & 63];
        to[3] = letters[p[2] & 63];
    }
    if (rest > 0) {
        to[0] = letters[p[0] >> 2];
        to[1] = letters[(p[0] << 4 | (rest == 2 ? p[1] >> 4 : 0)) & 63];
    }
    if (rest == 2) {
        to[2] = letters[p[1] << 2 & 63];
    }
}

/* The value of each byte as a letter, 0..63; 64: it is none. A table and not comparisons: of random
 * bytes a processor guesses every second branch wrong, which made decoding ten times as slow. */
// clang-format off
static const uint8_t values[256] = {
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 62, 64, 64,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 64, 64, 64, 64, 64, 64,
    64, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 64, 64, 64, 64, 63,
    64, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
    41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
};
// clang-format on

static unsigned letter_value(char letter)
{
    return values[(unsigned char)letter];
}

enum sw_err sw_b64url(struct sw_slice text, void *out, size_t cap, size_t *ret_len)
{
    size_t rest = text.len % 4, len = text.len / 4 * 3 + (rest == 0 ? 0 : rest - 1);
    size_t at = 0;     /* of text */
    unsigned seen = 0; /* bit 6: a byte that is no letter */
    uint8_t *to = out;

    if (rest == 1) {
        return SW_E_SYNTAX; /* six bits are no byte */
    }
    if (len > cap) {
        return SW_E_LIMIT;
    }
    for (; at + rest < text.len; at += 4, to += 3) {
        const char *p = text.ptr + at;
        unsigned a = letter_value(p[0]), b = letter_value(p[1]), c = letter_value(p[2]),
                 d = letter_value(p[3]);

        seen |= a | b | c | d;
        to[0] = (uint8_t)(a << 2 | b >> 4);
        to[1] = (uint8_t)(b << 4 | c >> 2);
        to[2] = (uint8_t)(c << 6 | d);
    }
    if (rest != 0) {
        const char *p = text.ptr + at;
        unsigned a = letter_value(p[0]), b = letter_value(p[1]),
                 c = rest == 3 ? letter_value(p[2]) : 0;

        seen |= a | b | c;
        if ((rest == 2 ? b & 15 : c & 3) != 0) {
            return SW_E_SYNTAX; /* loose last bits: the same bytes would have several texts */
        }
        to[0] = (uint8_t)(a << 2 | b >> 4);
        if (rest == 3) {
            to[1] = (uint8_t)(b << 4 | c >> 2);
        }
    }
    if ((seen & 64) != 0) {
        return SW_E_SYNTAX;
    }
    *ret_len = len;
    return SW_OK;
}

enum sw_err sw_b64url_exact(struct sw_slice text, void *out, size_t len)
{
    size_t got;

    if (text.len != SW_B64_LEN(len) || sw_b64url(text, out, len, &got) != SW_OK) {
        return SW_E_SYNTAX;
    }
    SW_ASSERT(got == len);
    return SW_OK;
}
