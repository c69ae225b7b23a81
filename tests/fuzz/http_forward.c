/* Parse, compose, parse again: the same meaning, whoever reads. "HTTP/..." is a response. */
#include "fuzz_http.h"

#define CAP 16384

static const struct sw_h1_limits wide = {CAP, CAP};

static unsigned count_id(const struct sw_head *h, enum sw_field_id id)
{
    unsigned count = 0;

    for (uint32_t i = 0; i < h->field_count; i++) {
        count += h->fields[i].id == id;
    }
    return count;
}

/* Every field of `b` that is not composed was a field of `a`. */
static void nothing_new(const struct sw_head *a, const struct sw_head *b)
{
    for (uint32_t i = 0; i < b->field_count; i++) {
        bool found = b->fields[i].id != SW_FIELD_OTHER;

        for (uint32_t k = 0; k < a->field_count && !found; k++) {
            found = sw_slice_eq(a->fields[k].name, b->fields[i].name) &&
                    sw_slice_eq(a->fields[k].value, b->fields[i].value);
        }
        SW_ASSERT(found);
    }
}

static void request(struct sw_slice in, bool trusted)
{
    struct sw_field fields[FUZZ_FIELDS_MAX], fields2[FUZZ_FIELDS_MAX + 16];
    struct sw_head h = {.fields = fields, .field_max = FUZZ_FIELDS_MAX};
    struct sw_head again = {.fields = fields2, .field_max = FUZZ_FIELDS_MAX + 16};
    static char buf[CAP];
    struct sw_out out = sw_out_init(buf, sizeof(buf));
    size_t scanned = 0;
    struct sw_parsed step = sw_h1_request(in, &scanned, &fuzz_limits, &h);
    struct sw_forward_request f = {
        .head = &h,
        .peer = SW_S("192.0.2.1"),
        .proto = SW_S("https"),
        .peer_trusted = trusted,
        .extra = SW_S("Stateway-Key: k\r\n"),
        .keep_upgrade = true,
    };

    if (step.step != SW_STEP_DONE || h.host.len == 0) {
        return;
    }
    f.framing = h.framing;
    f.length = h.length;
    SW_ASSERT(sw_forward_request_put(&out, &f));
    scanned = 0;
    step = sw_h1_request(sw_out_done(&out), &scanned, &wide, &again);
    SW_ASSERT(step.step == SW_STEP_DONE);
    SW_ASSERT(step.consumed == out.len);
    SW_ASSERT(sw_slice_eq(h.method_name, again.method_name));
    SW_ASSERT(sw_slice_eq(h.path, again.path));
    SW_ASSERT(sw_slice_eq(h.query, again.query));
    SW_ASSERT((h.query.ptr == NULL) == (again.query.ptr == NULL));
    SW_ASSERT(sw_slice_eq(h.host, again.host));
    SW_ASSERT(h.framing == again.framing);
    SW_ASSERT(h.length == again.length);
    SW_ASSERT(h.te_trailers == again.te_trailers);
    SW_ASSERT(sw_slice_eq(h.upgrade, again.upgrade));
    SW_ASSERT(again.minor == 1 && again.keep_alive && !again.expect_continue);
    SW_ASSERT(again.fields[0].id == SW_FIELD_HOST);
    SW_ASSERT(count_id(&again, SW_FIELD_STATEWAY) == 1);
    SW_ASSERT(count_id(&again, SW_FIELD_FORWARDED) == 1);
    SW_ASSERT(count_id(&again, SW_FIELD_X_FORWARDED_FOR) == 1);
    SW_ASSERT(count_id(&again, SW_FIELD_X_FORWARDED_PROTO) == 1);
    SW_ASSERT(count_id(&again, SW_FIELD_X_FORWARDED_HOST) == 1);
    SW_ASSERT(count_id(&again, SW_FIELD_COOKIE) <= 1);
    for (uint32_t i = 0; i < again.field_count; i++) {
        SW_ASSERT(again.fields[i].id != SW_FIELD_OTHER ||
                  sw_http__field_id_folded(again.fields[i].name) == SW_FIELD_OTHER);
    }
    nothing_new(&h, &again);
}

static void response(struct sw_slice in, enum sw_method method, bool private_cache)
{
    struct sw_field fields[FUZZ_FIELDS_MAX], fields2[FUZZ_FIELDS_MAX + 16];
    struct sw_head h = {.fields = fields, .field_max = FUZZ_FIELDS_MAX};
    struct sw_head again = {.fields = fields2, .field_max = FUZZ_FIELDS_MAX + 16};
    static char buf[CAP];
    struct sw_out out = sw_out_init(buf, sizeof(buf));
    size_t scanned = 0;
    struct sw_parsed step = sw_h1_response(in, &scanned, &fuzz_limits, method, &h);
    struct sw_forward_response f = {
        .head = &h,
        .private_cache = private_cache,
        .client_minor = 1,
        .head_request = method == SW_METHOD_HEAD,
    };

    if (step.step != SW_STEP_DONE) {
        return;
    }
    f.framing = h.framing;
    f.length = h.length;
    f.keep_alive = h.keep_alive;
    f.keep_upgrade = h.status == 101;
    SW_ASSERT(sw_forward_response_put(&out, &f, SW_S("Thu, 01 Jan 1970 00:00:00 GMT")));
    scanned = 0;
    step = sw_h1_response(sw_out_done(&out), &scanned, &wide, method, &again);
    SW_ASSERT(step.step == SW_STEP_DONE);
    SW_ASSERT(step.consumed == out.len);
    SW_ASSERT(h.status == again.status);
    SW_ASSERT(h.framing == again.framing);
    SW_ASSERT(h.framing != SW_FRAMING_LENGTH || h.length == again.length);
    SW_ASSERT(h.keep_alive == again.keep_alive || h.status < 200);
    SW_ASSERT(count_id(&again, SW_FIELD_STATEWAY) == 0);
    SW_ASSERT(h.status < 200 || count_id(&again, SW_FIELD_DATE) >= 1);
    if (private_cache) {
        SW_ASSERT(count_id(&again, SW_FIELD_CACHE_CONTROL) == 1);
        SW_ASSERT(sw_head_lists(&again, SW_FIELD_CACHE_CONTROL, SW_S("private")) ||
                  sw_head_lists(&again, SW_FIELD_CACHE_CONTROL, SW_S("no-store")));
    }
    nothing_new(&h, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sw_slice in = fuzz_copy(data, size);

    if (sw_slice_starts(in, SW_S("HTTP/"))) {
        response(in, SW_METHOD_GET, false);
        response(in, SW_METHOD_HEAD, true);
    } else {
        request(in, false);
        request(in, true);
    }
    fuzz_free(in);
    return 0;
}
