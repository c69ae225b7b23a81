/* fuzz_http.h - what the http_* targets share: exact-size copies, parsing whole and in pieces. */
#ifndef FUZZ_HTTP_H
#define FUZZ_HTTP_H

#include "http/http_priv.h"

#define FUZZ_FIELDS_MAX 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct sw_h1_limits fuzz_limits = {.head_bytes_max = 2048, .target_bytes_max = 256};

static inline struct sw_slice fuzz_copy(const void *data, size_t size)
{
    char *p = malloc(size + (size == 0));

    SW_ASSERT(p != NULL);
    if (size > 0) {
        memcpy(p, data, size);
    }
    return sw_slice_of(p, size);
}

static inline void fuzz_free(struct sw_slice s)
{
    free((void *)(uintptr_t)s.ptr);
}

static inline struct sw_parsed fuzz_parse(struct sw_slice in, bool response, enum sw_method method,
                                          const struct sw_h1_limits *limits, size_t *scanned,
                                          struct sw_head *head)
{
    return response ? sw_h1_response(in, scanned, limits, method, head)
                    : sw_h1_request(in, scanned, limits, head);
}

static inline void fuzz_within(struct sw_slice in, struct sw_slice s)
{
    SW_ASSERT(s.len == 0 || (s.ptr >= in.ptr && s.ptr + s.len <= in.ptr + in.len));
}

/* Whole and in pieces of `piece` bytes, each in its own exact-size block: the same answer. */
static inline void fuzz_pieces(struct sw_slice in, bool response, enum sw_method method,
                               size_t piece, struct sw_parsed whole)
{
    size_t scanned = 0;

    for (size_t len = SW_MIN(piece, in.len);; len = SW_MIN(len + piece, in.len)) {
        struct sw_field fields[FUZZ_FIELDS_MAX];
        struct sw_head h = {.fields = fields, .field_max = FUZZ_FIELDS_MAX};
        struct sw_slice part = fuzz_copy(in.ptr, len);
        struct sw_parsed step = fuzz_parse(part, response, method, &fuzz_limits, &scanned, &h);

        fuzz_free(part);
        if (step.step == SW_STEP_MORE && len < in.len) {
            continue;
        }
        SW_ASSERT(step.step == whole.step);
        SW_ASSERT(step.err == whole.err);
        SW_ASSERT(step.consumed == whole.consumed);
        return;
    }
}

static inline void fuzz_head(const uint8_t *data, size_t size, bool response,
                             enum sw_method method)
{
    struct sw_field fields[FUZZ_FIELDS_MAX];
    struct sw_head h = {.fields = fields, .field_max = FUZZ_FIELDS_MAX};
    struct sw_slice in = fuzz_copy(data, size);
    size_t scanned = 0;
    struct sw_parsed step = fuzz_parse(in, response, method, &fuzz_limits, &scanned, &h);

    if (step.step == SW_STEP_DONE) {
        SW_ASSERT(step.consumed <= in.len && step.consumed <= fuzz_limits.head_bytes_max);
        SW_ASSERT(h.field_count <= FUZZ_FIELDS_MAX);
        for (uint32_t i = 0; i < h.field_count; i++) {
            fuzz_within(in, fields[i].name);
            fuzz_within(in, fields[i].value);
            SW_ASSERT(sw_http__token(fields[i].name));
            SW_ASSERT(fields[i].id < SW_FIELD_COUNT);
        }
        if (!response) {
            SW_ASSERT(h.path.len > 0 && (h.path.ptr[0] == '/' || h.path.ptr[0] == '*'));
            SW_ASSERT(h.host.len > 0 || h.minor == 0);
            SW_ASSERT(h.framing != SW_FRAMING_CLOSE);
        }
    } else if (step.step == SW_STEP_MORE) {
        SW_ASSERT(in.len < fuzz_limits.head_bytes_max);
    } else {
        SW_ASSERT(step.err != SW_OK);
    }
    fuzz_pieces(in, response, method, 1, step);
    fuzz_pieces(in, response, method, 7, step);
    fuzz_free(in);
}

#endif
