/* Cookie field values, one a line: ours are found, and gone after forwarding; others stay. */
#include "fuzz_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct sw_slice ours[] = {{"sw", 2}, {"__Host-sw", 9}};
    struct sw_slice in = fuzz_copy(data, size), rest = in, line;
    struct sw_field fields[FUZZ_FIELDS_MAX], fields2[FUZZ_FIELDS_MAX];
    struct sw_head h = {
        .fields = fields,
        .field_max = FUZZ_FIELDS_MAX,
        .method_name = SW_S("GET"),
        .method = SW_METHOD_GET,
        .path = SW_S("/"),
        .host = SW_S("h"),
        .minor = 1,
    };
    struct sw_head again = {.fields = fields2, .field_max = FUZZ_FIELDS_MAX};
    struct sw_forward_request f = {
        .head = &h,
        .peer = SW_S("::1"),
        .proto = SW_S("http"),
        .cookies_stripped = ours,
        .cookies_stripped_count = SW_COUNTOF(ours),
    };
    size_t cap = 4 * size + 1024, scanned = 0;
    struct sw_h1_limits limits = {(uint32_t)SW_MIN(cap, UINT32_MAX), 256};
    char *buf = malloc(cap);
    struct sw_out out = sw_out_init(buf, cap);
    struct sw_cookie_found before, after;

    SW_ASSERT(buf != NULL);
    while (rest.len > 0 && h.field_count < FUZZ_FIELDS_MAX) {
        (void)sw_slice_cut(rest, '\n', &line, &rest);
        line = sw_slice_trim(line);
        if (sw_http__value_end(line.ptr, line.ptr + line.len) == line.ptr + line.len) {
            fields[h.field_count++] = (struct sw_field){SW_S("Cookie"), line, SW_FIELD_COOKIE};
        }
    }
    before = sw_cookie_find(&h, SW_S("a"));
    fuzz_within(in, before.value);
    SW_ASSERT(sw_forward_request_put(&out, &f));
    SW_ASSERT(sw_h1_request(sw_out_done(&out), &scanned, &limits, &again).step == SW_STEP_DONE);
    after = sw_cookie_find(&again, SW_S("a"));
    SW_ASSERT(after.count == before.count);
    SW_ASSERT(sw_slice_eq(after.value, before.value));
    SW_ASSERT(sw_cookie_find(&again, ours[0]).count == 0);
    SW_ASSERT(sw_cookie_find(&again, ours[1]).count == 0);
    free(buf);
    fuzz_free(in);
    return 0;
}
