/* placement/alarm.c - alarms: what an app's answer says about them, and their bytes in a record.
 *
 * The text (the state protocol, 2.2), parameters in any order, each at most once:
 *
 *   in=30000;id=turn;data="next"     in that many milliseconds
 *   at=1760000000000;id=turn         at that wall time, unix milliseconds; one that passed is due
 * now cancel;id=turn
 *
 * The bytes (`extra` of a state's record), numbers big endian; no alarms are no bytes:
 *
 *   at  len  field
 *    0    1  format: 1
 *    1    1  count: 1 to SW_ALARMS_MAX
 *   then for each alarm
 *    0    1  length of id
 *    1    2  length of data
 *    3    2  length of the key's text; 0xffff: the text is the one of the alarm before
 *    5    4  attempt
 *    9    8  due                 unix milliseconds
 *   17    8  route's ident
 *   25       id, data, the key's text
 *
 * All alarms of a state have the same key as a rule, and a key's text may be long: it is kept once.
 */
#include "placement/placement_priv.h"

#include "placement/wire.h"

#define ALARM_FORMAT  1
#define ALARM_FIXED   25
#define KEY_AS_BEFORE 0xffffu
/* An entity's key: "room:42", with the kind of a header's name and each byte of the id escaped. */
#define KEY_TEXT_BYTES_MAX (64 + 1 + 3 * 512)

_Static_assert(2 + SW_ALARMS_MAX * (ALARM_FIXED + SW_ALARM_ID_BYTES_MAX + SW_ALARM_DATA_BYTES_MAX) +
                       KEY_TEXT_BYTES_MAX <=
                   SW_EXTRA_BYTES_MAX,
               "a full list of the largest alarms of one key fits into a record");

static bool id_valid(struct sw_slice id)
{
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_' || c == '.')) {
            return false;
        }
    }
    return id.len >= 1 && id.len <= SW_ALARM_ID_BYTES_MAX;
}

static bool printable(struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < 0x20 || s.ptr[i] > 0x7e) {
            return false;
        }
    }
    return true;
}

/* ---- the text --------------------------------------------------------------------------------
 */

/* Cuts off the next parameter: up to a semicolon outside of quotes. False: quotes stay open. */
static bool next_param(struct sw_slice *rest, struct sw_slice *ret_param)
{
    bool quoted = false;
    size_t i;

    for (i = 0; i < rest->len && (quoted || rest->ptr[i] != ';'); i++) {
        if (rest->ptr[i] == '"') {
            quoted = !quoted;
        } else if (rest->ptr[i] == '\\' && quoted) {
            i++; /* the one behind it is no end of the string */
        }
    }
    if (quoted || i > rest->len) {
        return false;
    }
    *ret_param = sw_slice_trim(sw_slice_head(*rest, i));
    /* ptr NULL tells "nothing behind" from an empty parameter at the end */
    *rest = i < rest->len ? sw_slice_tail(*rest, i + 1) : (struct sw_slice){NULL, 0};
    return true;
}

/* A string of RFC 9651, 3.3.3, unescaped into the arena. */
static enum sw_err unquote(struct sw_slice s, struct sw_arena *arena, struct sw_slice *ret_text)
{
    struct sw_slice inside = sw_slice_head(sw_slice_tail(s, 1), s.len < 2 ? 0 : s.len - 2);
    struct sw_out out;
    char *text;

    if (s.len < 2 || s.ptr[0] != '"' || s.ptr[s.len - 1] != '"' || !printable(s)) {
        return SW_E_UPDATE_ALARM;
    }
    if (inside.len > 2 * SW_ALARM_DATA_BYTES_MAX) {
        return SW_E_UPDATE_ALARM; /* too long even if every byte is escaped */
    }
    text = sw_arena_bytes(arena, inside.len);
    if (text == NULL) {
        return SW_E_NO_MEMORY;
    }
    out = sw_out_init(text, inside.len);
    for (size_t i = 0; i < inside.len; i++) {
        char c = inside.ptr[i];

        if (c == '"') {
            return SW_E_UPDATE_ALARM; /* the string ended before its end */
        }
        if (c == '\\') {
            i++;
            if (i == inside.len || (inside.ptr[i] != '"' && inside.ptr[i] != '\\')) {
                return SW_E_UPDATE_ALARM;
            }
            c = inside.ptr[i];
        }
        sw_out_char(&out, c);
    }
    SW_ASSERT(!out.overflowed);
    *ret_text = sw_out_done(&out);
    return SW_OK;
}

static bool read_when(struct sw_slice value, bool in, int64_t now_unix_ms, int64_t *ret_due)
{
    uint64_t number, most = (uint64_t)SW_ALARM_MS_MAX + (in ? 0 : (uint64_t)now_unix_ms);

    if (!sw_slice_u64(value, &number) || number > most) {
        return false;
    }
    *ret_due = (in ? now_unix_ms : 0) + (int64_t)number;
    return *ret_due > 0; /* 0 stands for "no alarm" elsewhere */
}

/* What was met so far: nothing may be there twice. */
struct seen {
    bool what, id, data;
};

static enum sw_err read_param(struct sw_slice param, int64_t now_unix_ms, struct sw_arena *arena,
                              struct seen *seen, struct sw_alarm_change *c)
{
    struct sw_slice name, value;
    bool has_value = sw_slice_cut(param, '=', &name, &value), in = sw_slice_eq(name, SW_S("in"));

    if (!has_value) {
        if (!sw_slice_eq(name, SW_S("cancel")) || seen->what) {
            return SW_E_UPDATE_ALARM;
        }
        seen->what = true;
        c->cancel = true;
        return SW_OK;
    }
    if (in || sw_slice_eq(name, SW_S("at"))) {
        if (seen->what || !read_when(value, in, now_unix_ms, &c->due_unix_ms)) {
            return SW_E_UPDATE_ALARM;
        }
        seen->what = true;
        return SW_OK;
    }
    if (sw_slice_eq(name, SW_S("id")) && !seen->id) {
        enum sw_err err = SW_OK;

        seen->id = true;
        c->id = value;
        if (value.len > 0 && value.ptr[0] == '"') { /* libraries write any text as a string */
            err = unquote(value, arena, &c->id);
        }
        return err != SW_OK ? err : id_valid(c->id) ? SW_OK : SW_E_UPDATE_ALARM;
    }
    if (sw_slice_eq(name, SW_S("data")) && !seen->data) {
        enum sw_err err = unquote(value, arena, &c->data);

        seen->data = true;
        return err != SW_OK                             ? err
               : c->data.len <= SW_ALARM_DATA_BYTES_MAX ? SW_OK
                                                        : SW_E_UPDATE_ALARM;
    }
    return SW_E_UPDATE_ALARM;
}

enum sw_err sw_alarm_parse(struct sw_slice text, int64_t now_unix_ms, struct sw_arena *arena,
                           struct sw_alarm_change *ret_change)
{
    struct sw_alarm_change c = {.id = SW_S("alarm"), .data = SW_S("")};
    struct seen seen = {false, false, false};
    struct sw_slice rest = text, param;

    SW_ASSERT(now_unix_ms >= 0);
    SW_ASSERT(now_unix_ms < INT64_MAX - SW_ALARM_MS_MAX);
    do {
        enum sw_err err = SW_E_UPDATE_ALARM;

        if (next_param(&rest, &param)) {
            err = read_param(param, now_unix_ms, arena, &seen, &c);
        }
        if (err != SW_OK) {
            return err;
        }
    } while (rest.ptr != NULL);
    if (!seen.what || (c.cancel && seen.data)) {
        return SW_E_UPDATE_ALARM;
    }
    *ret_change = c;
    return SW_OK;
}

/* ---- the bytes -------------------------------------------------------------------------------
 */

static struct sw_alarm *find(struct sw_alarm *list, size_t count, struct sw_slice id)
{
    for (size_t i = 0; i < count; i++) {
        if (sw_slice_eq(list[i].id, id)) {
            return &list[i];
        }
    }
    return NULL;
}

static bool read_one(struct sw_wire *w, struct sw_slice key_before, struct sw_alarm *ret_alarm)
{
    uint64_t id_len = sw_wire__number(w, 1), data_len = sw_wire__number(w, 2);
    uint64_t key_len = sw_wire__number(w, 2), due;
    struct sw_alarm a;

    a.attempt = (uint32_t)sw_wire__number(w, 4);
    due = sw_wire__number(w, 8);
    a.due_unix_ms = (int64_t)due;
    a.route_ident = sw_wire__number(w, 8);
    a.id = sw_wire__take(w, id_len);
    a.data = sw_wire__take(w, data_len);
    a.key_text = key_len == KEY_AS_BEFORE ? key_before : sw_wire__take(w, key_len);
    if (w->bad || due == 0 || due > INT64_MAX || !id_valid(a.id) || !printable(a.data) ||
        data_len > SW_ALARM_DATA_BYTES_MAX || !printable(a.key_text)) {
        return false;
    }
    *ret_alarm = a;
    return true;
}

enum sw_err sw_alarms_read(struct sw_slice extra, struct sw_alarm ret_list[SW_ALARMS_MAX],
                           size_t *ret_count)
{
    struct sw_wire w = {extra, false};
    struct sw_slice key_before = {NULL, 0};
    size_t count;

    if (extra.len == 0) {
        *ret_count = 0;
        return SW_OK;
    }
    if (sw_wire__number(&w, 1) != ALARM_FORMAT) {
        return SW_E_STORE_CORRUPT;
    }
    count = (size_t)sw_wire__number(&w, 1);
    if (count == 0 || count > SW_ALARMS_MAX) {
        return SW_E_STORE_CORRUPT;
    }
    for (size_t i = 0; i < count; i++) {
        if (!read_one(&w, key_before, &ret_list[i]) || find(ret_list, i, ret_list[i].id) != NULL) {
            return SW_E_STORE_CORRUPT;
        }
        key_before = ret_list[i].key_text;
    }
    if (!sw_wire__whole(&w)) {
        return SW_E_STORE_CORRUPT;
    }
    *ret_count = count;
    return SW_OK;
}

bool sw_alarms_put(struct sw_out *out, const struct sw_alarm *list, size_t count)
{
    struct sw_slice key_before = {NULL, 0};

    SW_ASSERT(count <= SW_ALARMS_MAX);
    if (count == 0) {
        return !out->overflowed;
    }
    sw_wire__put(out, ALARM_FORMAT, 1);
    sw_wire__put(out, count, 1);
    for (size_t i = 0; i < count; i++) {
        const struct sw_alarm *a = &list[i];
        bool same_key = i > 0 && sw_slice_eq(a->key_text, key_before);

        SW_ASSERT(id_valid(a->id));
        SW_ASSERT(a->data.len <= SW_ALARM_DATA_BYTES_MAX);
        SW_ASSERT(a->due_unix_ms > 0);
        SW_ASSERT(a->key_text.len < KEY_AS_BEFORE);
        sw_wire__put(out, a->id.len, 1);
        sw_wire__put(out, a->data.len, 2);
        sw_wire__put(out, same_key ? KEY_AS_BEFORE : a->key_text.len, 2);
        sw_wire__put(out, a->attempt, 4);
        sw_wire__put(out, (uint64_t)a->due_unix_ms, 8);
        sw_wire__put(out, a->route_ident, 8);
        sw_out_slice(out, a->id);
        sw_out_slice(out, a->data);
        if (!same_key) {
            sw_out_slice(out, a->key_text);
        }
        key_before = a->key_text;
    }
    return !out->overflowed;
}

enum sw_err sw_alarms_change(struct sw_alarm *list, size_t *count,
                             const struct sw_alarm_change *change, uint64_t route_ident,
                             struct sw_slice key_text)
{
    struct sw_alarm *a = find(list, *count, change->id);

    SW_ASSERT(*count <= SW_ALARMS_MAX);
    if (change->cancel) {
        if (a != NULL) { /* one that is not there is canceled already: it may just have fired */
            size_t behind = *count - (size_t)(a - list) - 1;

            memmove(a, a + 1, behind * sizeof(*a));
            --*count;
        }
        return SW_OK;
    }
    if (a == NULL) {
        if (*count == SW_ALARMS_MAX) {
            return SW_E_UPDATE_ALARM;
        }
        a = &list[(*count)++];
    }
    *a = (struct sw_alarm){
        .id = change->id,
        .data = change->data,
        .due_unix_ms = change->due_unix_ms,
        .route_ident = route_ident,
        .key_text = key_text,
    };
    return SW_OK;
}

int64_t sw_alarms_due(const struct sw_alarm *list, size_t count)
{
    int64_t due = 0;

    for (size_t i = 0; i < count; i++) {
        SW_ASSERT(list[i].due_unix_ms > 0);
        if (due == 0 || list[i].due_unix_ms < due) {
            due = list[i].due_unix_ms;
        }
    }
    return due;
}
