/* crypto/b64.c - base64url (RFC 4648, 5) without padding, strict: one text for each value. */
#include "crypto/crypto.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void sw_b64url_put(struct sw_out *out, const void *in, size_t len)
{
    const uint8_t *p = in;
    char group[4];

    for (; len >= 3; len -= 3, p += 3) {
        group[0] = letters[p[0] >> 2];
        group[1] = letters[(p[0] << 4 | p[1] >> 4) & 63];
        group[2] = letters[(p[1] << 2 | p[2] >> 6) & 63];
        group[3] = letters[p[2] & 63];
        sw_out_put(out, group, 4);
    }
    if (len == 1) {
        group[0] = letters[p[0] >> 2];
        group[1] = letters[p[0] << 4 & 63];
        sw_out_put(out, group, 2);
    } else if (len == 2) {
        group[0] = letters[p[0] >> 2];
        group[1] = letters[(p[0] << 4 | p[1] >> 4) & 63];
        group[2] = letters[p[1] << 2 & 63];
        sw_out_put(out, group, 3);
    }
}

/* 0..63, or 64. */
static unsigned letter_value(char letter)
{
    unsigned c = (unsigned char)letter;

    if (c - 'A' < 26) {
        return c - 'A';
    }
    if (c - 'a' < 26) {
        return c - 'a' + 26;
    }
    if (c - '0' < 10) {
        return c - '0' + 52;
    }
    return c == '-' ? 62 : c == '_' ? 63 : 64;
}

enum sw_err sw_b64url(struct sw_slice text, void *out, size_t cap, size_t *ret_len)
{
    size_t rest = text.len % 4, len = text.len / 4 * 3 + (rest == 0 ? 0 : rest - 1), at = 0;
    uint8_t *to = out;
    uint32_t bits = 0;
    unsigned held = 0;

    if (rest == 1) {
        return SW_E_SYNTAX; /* six bits are no byte */
    }
    if (len > cap) {
        return SW_E_LIMIT;
    }
    for (size_t i = 0; i < text.len; i++) {
        unsigned value = letter_value(text.ptr[i]);

        if (value > 63) {
            return SW_E_SYNTAX;
        }
        bits = bits << 6 | value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            to[at++] = (uint8_t)(bits >> held);
            bits &= (1u << held) - 1;
        }
    }
    if (bits != 0) {
        return SW_E_SYNTAX; /* loose last bits: the same bytes would have several texts */
    }
    SW_ASSERT(at == len);
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
