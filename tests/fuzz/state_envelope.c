/* fuzz/state_envelope.c - the commit envelope: any body an app may send.
 *
 * What was read holds one JSON object at most, headers that cannot end a head, and everything that
 * was unescaped lies within the memory given.
 */
#include "base/json.h"
#include "placement/placement.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void within(struct sw_slice s, const char *memory, size_t size)
{
    SW_ASSERT(s.len == 0 ||
              (s.ptr >= memory && s.len <= size && (size_t)(s.ptr - memory) <= size - s.len));
}

static void check(const struct sw_envelope *e, struct sw_slice body, const char *memory)
{
    if (e->kind == SW_UPDATE_SET || e->kind == SW_UPDATE_PATCH) {
        struct sw_json_checked checked = sw_json_check(e->value);

        SW_ASSERT(checked.err == SW_OK);
        SW_ASSERT(checked.type == SW_JSON_OBJECT);
        within(e->value, memory, body.len);
    }
    SW_ASSERT(e->status >= 200 && e->status <= 599);
    SW_ASSERT(e->header_count <= SW_ENVELOPE_HEADERS);
    for (size_t i = 0; i < e->header_count; i++) {
        struct sw_slice name = e->headers[i].name, value = e->headers[i].value;

        within(name, memory, body.len);
        within(value, memory, body.len);
        SW_ASSERT(name.len > 0);
        SW_ASSERT(!sw_slice_starts_nocase(name, SW_S("stateway-")));
        SW_ASSERT(!sw_slice_eq_nocase(name, SW_S("content-length")));
        SW_ASSERT(!sw_slice_eq_nocase(name, SW_S("transfer-encoding")));
        for (size_t k = 0; k < name.len; k++) {
            SW_ASSERT(name.ptr[k] > 0x20 && name.ptr[k] < 0x7f && name.ptr[k] != ':');
        }
        for (size_t k = 0; k < value.len; k++) {
            SW_ASSERT(value.ptr[k] >= 0x20 && value.ptr[k] < 0x7f);
        }
    }
    within(e->body, memory, body.len);
    SW_ASSERT(e->alarm_count <= SW_ALARM_CHANGES_MAX);
    for (size_t i = 0; i < e->alarm_count; i++) {
        within(e->alarms[i], memory, body.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size > 0 ? size : 1); /* exact size: a byte too far faults */
    char *memory = malloc(size > 0 ? size : 1);
    struct sw_envelope e;

    SW_ASSERT(copy != NULL);
    SW_ASSERT(memory != NULL);
    memcpy(copy, data, size);
    if (sw_envelope_read(sw_slice_of(copy, size), memory, &e) == SW_OK) {
        check(&e, sw_slice_of(copy, size), memory);
    }
    free(memory);
    free(copy);
    return 0;
}
