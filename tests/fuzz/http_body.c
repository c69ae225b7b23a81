/* A chunked body, whole and in pieces: the same payload, trailers, end and error; and the trailers
 * are well-formed lines without a name that must not be there. */
#include "fuzz_http.h"

#define TRAILERS_MAX 512

struct got {
    enum sw_step step;
    enum sw_err err;
    size_t consumed;
    struct sw_out data, trailers;
};

static struct got decode(struct sw_slice in, size_t piece)
{
    struct got got = {
        .data = sw_out_init(malloc(in.len + 1), in.len),
        .trailers = sw_out_init(malloc(TRAILERS_MAX), TRAILERS_MAX),
    };
    struct sw_head h = {.framing = SW_FRAMING_CHUNKED};
    struct sw_body b;
    size_t end = SW_MIN(piece, in.len);

    SW_ASSERT(got.data.ptr != NULL && got.trailers.ptr != NULL);
    sw_body_init(&b, &h, 4096, false, &got.trailers);
    for (;;) {
        struct sw_slice part = fuzz_copy(in.ptr + got.consumed, end - got.consumed);
        struct sw_body_fed fed = sw_body_feed(&b, part);

        got.step = fed.step;
        got.err = fed.err;
        if (fed.step != SW_STEP_FAIL) {
            SW_ASSERT(fed.consumed <= part.len);
            fuzz_within(sw_slice_head(part, fed.consumed), fed.data);
            sw_out_slice(&got.data, fed.data);
            got.consumed += fed.consumed;
            SW_ASSERT(fed.step == SW_STEP_DONE || fed.consumed > 0 || part.len == 0);
        }
        fuzz_free(part);
        if (fed.step != SW_STEP_MORE || (got.consumed == end && end == in.len)) {
            break;
        }
        if (got.consumed == end) {
            end = SW_MIN(end + piece, in.len);
        }
    }
    SW_ASSERT(!got.data.overflowed);
    if (got.step != SW_STEP_FAIL) {
        SW_ASSERT(b.total == got.data.len);
        SW_ASSERT((sw_body_end(&b) == SW_OK) == (got.step == SW_STEP_DONE));
    }
    return got;
}

static void check_trailers(struct sw_slice lines)
{
    struct sw_field fields[FUZZ_FIELDS_MAX * 8];
    struct sw_head h = {.fields = fields, .field_max = SW_COUNTOF(fields)};
    char text[TRAILERS_MAX + 2];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_h1__lines reader;

    sw_out_slice(&out, lines);
    sw_out_lit(&out, "\r\n");
    reader = (struct sw_h1__lines){.p = text, .end = text + out.len};
    SW_ASSERT(sw_h1__fields(&reader, &h).step == SW_STEP_DONE);
    for (uint32_t i = 0; i < h.field_count; i++) {
        SW_ASSERT(sw_http__field_id_folded(fields[i].name) == SW_FIELD_OTHER);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sw_slice in = sw_slice_of(data, size);
    struct got whole = decode(in, size + 1);

    for (size_t piece = 1; piece <= 5; piece += 4) {
        struct got part = decode(in, piece);

        SW_ASSERT(part.step == whole.step);
        SW_ASSERT(part.err == whole.err);
        if (whole.step != SW_STEP_FAIL) {
            SW_ASSERT(part.consumed == whole.consumed);
            SW_ASSERT(sw_slice_eq(sw_out_done(&part.data), sw_out_done(&whole.data)));
        }
        if (whole.step == SW_STEP_DONE) {
            SW_ASSERT(sw_slice_eq(sw_out_done(&part.trailers), sw_out_done(&whole.trailers)));
            check_trailers(sw_out_done(&part.trailers));
        }
        free(part.data.ptr);
        free(part.trailers.ptr);
    }
    free(whole.data.ptr);
    free(whole.trailers.ptr);
    return 0;
}
