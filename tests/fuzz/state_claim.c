/* fuzz/state_claim.c - idempotency keys: any request, any answer, any bytes of a record.
 *
 * The first byte says which: 'k' the head of a request, 'h' the head of an answer whose headers are
 * kept, everything else a record.
 */
#include "placement/placement.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct sw_h1_limits limits = {65536, 65536};
static struct sw_field fields[100];

static void key(struct sw_slice in)
{
    struct sw_head head = {.fields = fields, .field_max = SW_COUNTOF(fields)};
    char text[SW_CLAIM_KEY_BYTES_MAX];
    struct sw_slice found;
    uint8_t one[32], other[32];
    size_t scanned = 0;

    if (sw_h1_request(in, &scanned, &limits, &head).step != SW_STEP_DONE) {
        return;
    }
    if (sw_claim_key_read(&head, text, &found) == SW_OK) {
        SW_ASSERT(found.len >= 1 && found.len <= SW_CLAIM_KEY_BYTES_MAX);
        for (size_t i = 0; i < found.len; i++) {
            SW_ASSERT(found.ptr[i] >= 0x20 && found.ptr[i] <= 0x7e);
        }
    }
    sw_claim_fingerprint(&head, SW_S("a"), one);
    sw_claim_fingerprint(&head, SW_S("b"), other);
    SW_ASSERT(memcmp(one, other, sizeof(one)) != 0);
}

static void put_and_read(const struct sw_claim *c, size_t cap)
{
    char *block = malloc(cap);
    struct sw_out out = sw_out_init(block, cap);
    struct sw_claim back;

    SW_ASSERT(block != NULL);
    SW_ASSERT(sw_claim_put(&out, c));
    SW_ASSERT(sw_claim_read(sw_out_done(&out), &back) == SW_OK);
    SW_ASSERT(back.state == c->state);
    SW_ASSERT(back.attempt == c->attempt);
    SW_ASSERT(back.status == c->status);
    SW_ASSERT(sw_slice_eq(back.reason, c->reason));
    SW_ASSERT(sw_slice_eq(back.headers, c->headers));
    SW_ASSERT(sw_slice_eq(back.body, c->body));
    free(block);
}

/* What is kept of an answer must be readable when it comes back. */
static void headers(struct sw_slice in)
{
    struct sw_head head = {.fields = fields, .field_max = SW_COUNTOF(fields)};
    struct sw_claim c = {.state = SW_CLAIM_DONE, .attempt = 1, .status = 200};
    size_t scanned = 0, cap = 2 * in.len + 64;
    char *block;
    struct sw_out out;

    if (sw_h1_response(in, &scanned, &limits, SW_METHOD_POST, &head).step != SW_STEP_DONE) {
        return;
    }
    block = malloc(cap);
    SW_ASSERT(block != NULL);
    out = sw_out_init(block, cap);
    SW_ASSERT(sw_claim_headers_put(&out, &head));
    c.headers = sw_out_done(&out);
    c.reason = head.reason;
    put_and_read(&c, 3 * in.len + 256);
    free(block);
}

static void record(struct sw_slice in)
{
    static const struct sw_config_route route = {.line = 1};
    struct sw_claim c;

    if (sw_claim_read(in, &c) == SW_OK) {
        SW_ASSERT(sw_claim_decide(&route, &c, c.fingerprint).attempt == c.attempt);
        put_and_read(&c, in.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sw_slice in;
    char *copy;

    if (size == 0) {
        return 0;
    }
    copy = malloc(size > 1 ? size - 1 : 1); /* exact size: a byte too far faults */
    SW_ASSERT(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    in = sw_slice_of(copy, size - 1);
    switch (data[0]) {
    case 'k':
        key(in);
        break;
    case 'h':
        headers(in);
        break;
    default:
        record(in);
        break;
    }
    free(copy);
    return 0;
}
