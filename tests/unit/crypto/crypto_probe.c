/* crypto/ behind a pipe, for the wycheproof vectors in tests/e2e/test_vectors_json.py.
 *
 * A line "hmac KEY MESSAGE" or "hkdf SECRET INFO", in hex, "-" for nothing; the answer is a line of
 * hex. Keys have 32 bytes.
 */
#include "crypto/crypto.h"

static size_t unhex(const char *text, uint8_t *out, size_t cap)
{
    size_t len = 0;

    if (strcmp(text, "-") == 0) {
        return 0;
    }
    for (; text[0] != '\0' && text[1] != '\0'; text += 2) {
        uint64_t value;

        if (len == cap || !sw_slice_hex_u64(sw_slice_of(text, 2), &value)) {
            exit(2);
        }
        out[len++] = (uint8_t)value;
    }
    return len;
}

int main(void)
{
    static char line[1 << 16], op[8], a[256], b[1 << 16];
    static uint8_t bytes[1 << 15];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        struct sw_mac_key key;
        struct sw_slice message;
        uint8_t out[32];

        if (sscanf(line, "%7s %255s %65535s", op, a, b) != 3 || unhex(a, key.bytes, 32) != 32) {
            return 2;
        }
        message = sw_slice_of(bytes, unhex(b, bytes, sizeof(bytes)));
        if (strcmp(op, "hmac") == 0) {
            sw_hmac_sha256(&key, &message, 1, out);
        } else {
            sw_hkdf(key.bytes, message, out);
        }
        for (size_t i = 0; i < sizeof(out); i++) {
            printf("%02x", out[i]);
        }
        putchar('\n');
    }
    return 0;
}
