/* fuzz/state_alarm.c - alarms: any text of an answer, any bytes of a record.
 *
 * The first byte says which. What was read as an alarm can be put into a record, and what was read
 * from a record comes out as it was when it is put and read again.
 */
#include "placement/placement.h"

#define NOW 1760000000000ll

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_and_read(const struct sw_alarm *list, size_t count)
{
    static char block[65536 * (SW_ALARMS_MAX + 1)];
    struct sw_out out = sw_out_init(block, sizeof(block));
    struct sw_alarm back[SW_ALARMS_MAX];
    size_t got;

    SW_ASSERT(sw_alarms_put(&out, list, count));
    SW_ASSERT(sw_alarms_read(sw_out_done(&out), back, &got) == SW_OK);
    SW_ASSERT(got == count);
    for (size_t i = 0; i < count; i++) {
        SW_ASSERT(sw_slice_eq(list[i].id, back[i].id));
        SW_ASSERT(sw_slice_eq(list[i].data, back[i].data));
        SW_ASSERT(sw_slice_eq(list[i].key_text, back[i].key_text));
        SW_ASSERT(list[i].due_unix_ms == back[i].due_unix_ms);
        SW_ASSERT(list[i].attempt == back[i].attempt);
        SW_ASSERT(list[i].route_ident == back[i].route_ident);
    }
    SW_ASSERT((count == 0) == (sw_alarms_due(list, count) == 0));
}

static void text(struct sw_slice in)
{
    char block[2048];
    struct sw_alarm list[SW_ALARMS_MAX];
    struct sw_alarm_change change;
    struct sw_arena arena;
    size_t count = 0;

    sw_arena_init(&arena, block, sizeof(block));
    if (sw_alarm_parse(in, NOW, &arena, &change) != SW_OK) {
        return;
    }
    SW_ASSERT(change.id.len >= 1 && change.id.len <= SW_ALARM_ID_BYTES_MAX);
    SW_ASSERT(change.data.len <= SW_ALARM_DATA_BYTES_MAX);
    SW_ASSERT(change.cancel == (change.due_unix_ms == 0));
    SW_ASSERT(change.due_unix_ms <= NOW + SW_ALARM_MS_MAX);
    SW_ASSERT(sw_alarms_change(list, &count, &change, 7, SW_S("room:42")) == SW_OK);
    SW_ASSERT(count == (change.cancel ? 0 : 1));
    put_and_read(list, count);
}

static void record(struct sw_slice in)
{
    struct sw_alarm list[SW_ALARMS_MAX];
    size_t count;

    if (sw_alarms_read(in, list, &count) == SW_OK) {
        SW_ASSERT(count <= SW_ALARMS_MAX);
        put_and_read(list, count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy;

    if (size == 0) {
        return 0;
    }
    copy = malloc(size > 1 ? size - 1 : 1); /* exact size: a byte too far faults */
    SW_ASSERT(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    if (data[0] == 'r') {
        record(sw_slice_of(copy, size - 1));
    } else {
        text(sw_slice_of(copy, size - 1));
    }
    free(copy);
    return 0;
}
