/* fuzz/state_update.c - the Stateway headers of an answer: whatever an app sends is read or
 * refused.
 *
 * What was read as an update must be a JSON object in ASCII, and only one kind of it.
 */
#include "base/json.h"
#include "placement/placement.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct sw_h1_limits limits = {65536, 65536};
    static struct sw_field fields[100];
    struct sw_head head = {.fields = fields, .field_max = SW_COUNTOF(fields)};
    struct sw_update u = {.kind = SW_UPDATE_NONE};
    size_t scanned = 0;
    char *copy = malloc(size > 0 ? size : 1); /* exact size: a byte too far faults */

    SW_ASSERT(copy != NULL);
    memcpy(copy, data, size);
    if (sw_h1_response(sw_slice_of(copy, size), &scanned, &limits, SW_METHOD_POST, &head).step ==
            SW_STEP_DONE &&
        sw_update_read(&head, &u) == SW_OK) {
        if (u.kind == SW_UPDATE_SET || u.kind == SW_UPDATE_PATCH) {
            struct sw_json_checked checked = sw_json_check(u.value);

            SW_ASSERT(checked.err == SW_OK);
            SW_ASSERT(checked.type == SW_JSON_OBJECT);
            for (size_t i = 0; i < u.value.len; i++) {
                SW_ASSERT(u.value.ptr[i] >= 0x20 && u.value.ptr[i] <= 0x7e);
            }
        }
        SW_ASSERT(u.ttl_s == -1 || u.ttl_s > 0);
        SW_ASSERT(u.subject.len <= SW_SUBJECT_BYTES_MAX);
    }
    free(copy);
    return 0;
}
