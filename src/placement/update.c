/* placement/update.c - what an app's answer asks for: the Stateway headers, read strictly.
 *
 * A half-understood update would be committed as something the app did not say, so everything
 * doubtful replaces the answer by a 502 (the state protocol, 2.2).
 */
#include "placement/placement_priv.h"

#include "base/json.h"

enum header {
    H_SET,
    H_PATCH,
    H_DELETE,
    H_EXPECT,
    H_TTL,
    H_ALARM,
    H_COMMIT,
    H_RENEW,
    H_SUBJECT,
    H_UPDATE,
    H_IDEMPOTENCY,
    H_COUNT,
};

static const struct sw_slice header_names[H_COUNT] = {
    [H_SET] = SW_S("set"),
    [H_PATCH] = SW_S("patch"),
    [H_DELETE] = SW_S("delete"),
    [H_EXPECT] = SW_S("expect"),
    [H_TTL] = SW_S("ttl"),
    [H_ALARM] = SW_S("alarm"),
    [H_COMMIT] = SW_S("commit"),
    [H_RENEW] = SW_S("renew"),
    [H_SUBJECT] = SW_S("subject"),
    [H_UPDATE] = SW_S("update"),
    [H_IDEMPOTENCY] = SW_S("idempotency"),
};

#define TTL_S_MAX (400ll * 86400)

static bool ascii(struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.ptr[i] > 0x7e || (unsigned char)s.ptr[i] < 0x20) {
            return false;
        }
    }
    return true;
}

/* RFC 9651, 3.3.6 */
static enum sw_err sf_boolean(struct sw_slice s, bool *ret_value)
{
    if (sw_slice_eq(s, SW_S("?1"))) {
        *ret_value = true;
        return SW_OK;
    }
    if (sw_slice_eq(s, SW_S("?0"))) {
        *ret_value = false;
        return SW_OK;
    }
    return SW_E_UPDATE_SYNTAX;
}

static enum sw_err json_object(struct sw_slice s)
{
    struct sw_json_checked checked;

    if (!ascii(s)) {
        return SW_E_UPDATE_ASCII;
    }
    if (s.len > 0 && s.ptr[0] == ':') {
        return SW_E_UPDATE_TYPE; /* bytes in base64: a state is a JSON object here */
    }
    checked = sw_json_check(s);
    if (checked.err != SW_OK) {
        return checked.err;
    }
    return checked.type == SW_JSON_OBJECT ? SW_OK : SW_E_UPDATE_TYPE;
}

/* One line each; of Stateway-Alarm several, in the order in which they apply. */
static enum sw_err collect(const struct sw_head *response, const struct sw_field *found[H_COUNT],
                           struct sw_update *u)
{
    static const struct sw_slice prefix = SW_S("stateway-");

    for (uint32_t i = 0; i < response->field_count; i++) {
        const struct sw_field *field = &response->fields[i];

        if (field->id != SW_FIELD_STATEWAY || !sw_slice_starts_nocase(field->name, prefix)) {
            continue;
        }
        for (size_t h = 0; h < H_COUNT; h++) {
            if (!sw_slice_eq_nocase(sw_slice_tail(field->name, prefix.len), header_names[h])) {
                continue;
            }
            if (h == H_ALARM) {
                if (u->alarm_count == SW_ALARM_CHANGES_MAX) {
                    return SW_E_UPDATE_ALARM;
                }
                u->alarms[u->alarm_count++] = field->value;
            } else if (found[h] != NULL) {
                return SW_E_UPDATE_MANY;
            }
            found[h] = field;
        }
    }
    return SW_OK;
}

static enum sw_err read_kind(const struct sw_field *const found[H_COUNT], struct sw_update *u)
{
    bool set = found[H_SET] != NULL, patch = found[H_PATCH] != NULL, del = false;
    enum sw_err err;

    if (found[H_DELETE] != NULL) {
        err = sf_boolean(found[H_DELETE]->value, &del);
        if (err != SW_OK) {
            return err;
        }
    }
    if ((int)set + (int)patch + (int)del > 1) {
        return SW_E_UPDATE_MANY;
    }
    if (del) {
        u->kind = SW_UPDATE_DELETE;
    } else if (set || patch) {
        u->kind = set ? SW_UPDATE_SET : SW_UPDATE_PATCH;
        u->value = found[set ? H_SET : H_PATCH]->value;
        return json_object(u->value);
    }
    return SW_OK;
}

/* Some servers drop a header they find too long and answer 200 all the same; an app that announces
 * its update gets an error instead of a state that silently stayed old. */
static enum sw_err check_announced(const struct sw_field *announced, const struct sw_update *u)
{
    uint64_t bytes;

    if (announced == NULL) {
        return SW_OK;
    }
    if (!sw_slice_starts(announced->value, SW_S("bytes=")) ||
        !sw_slice_u64(sw_slice_tail(announced->value, 6), &bytes)) {
        return SW_E_UPDATE_SYNTAX;
    }
    return u->kind == SW_UPDATE_NONE || (u->kind != SW_UPDATE_DELETE && u->value.len != bytes)
               ? SW_E_UPDATE_LOST
               : SW_OK;
}

static enum sw_err read_details(const struct sw_field *const found[H_COUNT], struct sw_update *u)
{
    enum sw_err err = SW_OK;
    uint64_t ttl;

    if (found[H_RENEW] != NULL) {
        err = sf_boolean(found[H_RENEW]->value, &u->renew);
    }
    if (err == SW_OK && found[H_EXPECT] != NULL) {
        u->has_expect = true;
        err = sw_version_parse(found[H_EXPECT]->value, &u->expect) == SW_OK ? SW_OK
                                                                            : SW_E_UPDATE_SYNTAX;
    }
    if (err == SW_OK && found[H_TTL] != NULL) {
        if (!sw_slice_u64(found[H_TTL]->value, &ttl) || ttl < 1 || ttl > TTL_S_MAX) {
            return SW_E_UPDATE_SYNTAX;
        }
        u->ttl_s = (int64_t)ttl;
    }
    if (err == SW_OK && found[H_SUBJECT] != NULL) {
        u->has_subject = true;
        u->subject = found[H_SUBJECT]->value;
        if (u->subject.len > SW_SUBJECT_BYTES_MAX) {
            return SW_E_UPDATE_SYNTAX;
        }
    }
    if (err == SW_OK && found[H_COMMIT] != NULL) {
        if (sw_slice_eq(found[H_COMMIT]->value, SW_S("always"))) {
            u->commit = SW_COMMIT_ALWAYS;
        } else if (sw_slice_eq(found[H_COMMIT]->value, SW_S("2xx"))) {
            u->commit = SW_COMMIT_2XX;
        } else {
            return SW_E_UPDATE_SYNTAX;
        }
    }
    if (err == SW_OK && found[H_IDEMPOTENCY] != NULL) {
        if (sw_slice_eq(found[H_IDEMPOTENCY]->value, SW_S("store"))) {
            u->idempotency = SW_IDEM_STORE;
        } else if (sw_slice_eq(found[H_IDEMPOTENCY]->value, SW_S("release"))) {
            u->idempotency = SW_IDEM_RELEASE;
        } else {
            return SW_E_UPDATE_SYNTAX;
        }
    }
    return err;
}

enum sw_err sw_update_read(const struct sw_head *response, struct sw_update *ret_update)
{
    const struct sw_field *found[H_COUNT] = {NULL};
    struct sw_update u = {.ttl_s = -1};
    enum sw_err err = collect(response, found, &u);

    if (err == SW_OK) {
        err = read_kind(found, &u);
    }
    if (err == SW_OK) {
        err = read_details(found, &u);
    }
    if (err == SW_OK) {
        err = check_announced(found[H_UPDATE], &u);
    }
    if (err == SW_OK) {
        *ret_update = u;
    }
    return err;
}
