/* fuzz/crypto_b64.c - base64url: one spelling for each string of bytes (RFC 7515, 2). */
#include "crypto/crypto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is read is written the same again, and fits exactly. */
static void decode(struct sw_slice text)
{
    size_t cap = text.len * 3 / 4 + 1, len = 0;
    char *bytes = malloc(cap), *again = malloc(text.len + 1);
    struct sw_out out = sw_out_init(again, text.len);
    enum sw_err err;

    SW_ASSERT(bytes != NULL && again != NULL);
    err = sw_b64url(text, bytes, cap, &len);
    SW_ASSERT(err == SW_OK || err == SW_E_SYNTAX);
    if (err == SW_OK) {
        SW_ASSERT(SW_B64_LEN(len) == text.len);
        sw_b64url_put(&out, bytes, len);
        SW_ASSERT(sw_slice_eq(sw_out_done(&out), text));
        SW_ASSERT(sw_b64url_exact(text, bytes, len) == SW_OK);
        SW_ASSERT(len == 0 || sw_b64url_exact(text, bytes, len - 1) != SW_OK);
        SW_ASSERT(len == 0 || sw_b64url(text, bytes, len - 1, &cap) == SW_E_LIMIT);
    }
    free(bytes);
    free(again);
}

/* What is written is read the same again, and not with one character more or less. */
static void encode(struct sw_slice bytes)
{
    size_t cap = SW_B64_LEN(bytes.len) + 1;
    char *text = malloc(cap), *again = malloc(bytes.len + 1);
    struct sw_out out = sw_out_init(text, cap);

    SW_ASSERT(text != NULL && again != NULL);
    sw_b64url_put(&out, bytes.ptr, bytes.len);
    SW_ASSERT(!out.overflowed && out.len == SW_B64_LEN(bytes.len));
    SW_ASSERT(sw_b64url_exact(sw_out_done(&out), again, bytes.len) == SW_OK);
    SW_ASSERT(sw_slice_eq(sw_slice_of(again, bytes.len), bytes));
    sw_out_char(&out, '=');
    SW_ASSERT(sw_b64url_exact(sw_out_done(&out), again, bytes.len) != SW_OK);
    free(text);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *exact = malloc(size + (size == 0));

    SW_ASSERT(exact != NULL);
    if (size > 0) {
        memcpy(exact, data, size); /* an exact-size block: one byte too far is seen */
    }
    decode(sw_slice_of(exact, size));
    encode(sw_slice_of(exact, size));
    free(exact);
    return 0;
}
