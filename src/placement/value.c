/* placement/value.c - the state as it will be: compact ASCII JSON, within the route's limit, in
 * memory where it can be sealed in place.
 *
 *   12 bytes for a nonce | the value | 16 bytes for a tag
 *
 * Values up to inline lie in the arena when there is room; larger ones in large memory, of which no
 * more is taken than the value can need.
 */
#include "placement/placement_priv.h"

#include "base/json.h"

#define ARENA_KEPT_BYTES 4096 /* for what follows: the commit, cookies, lines */

/* Of a route; a sealed value must still fit into a record. */
static size_t value_bytes_max(const struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;

    _Static_assert(SW_STORE_VALUE_BYTES_MAX > SW_SEAL_BYTES, "something can be sealed");
    if (route->placement == SW_PLACE_SEALED && !ask->move.session &&
        route->sealed.oversize == SW_OVERSIZE_REFUSE) {
        return SW_SEALED_BYTES_MAX; /* more fits into no cookie */
    }
    return SW_MIN((size_t)route->session.max_bytes,
                  (size_t)SW_STORE_VALUE_BYTES_MAX - (route->session.encrypt ? SW_SEAL_BYTES : 0));
}

static bool arena_has(const struct sw_ask *ask, size_t bytes)
{
    const struct sw_arena *a = ask->arena;

    return !a->overflowed && a->size - a->used >= ARENA_KEPT_BYTES &&
           a->size - a->used - ARENA_KEPT_BYTES >= bytes;
}

static size_t inline_bytes(const struct sw_config_route *route)
{
    return route->placement == SW_PLACE_SEALED ? SW_SEALED_BYTES_MAX : route->session.inline_bytes;
}

/* For a value of up to n bytes. NULL: SW_E_LARGE_FULL. */
static char *value_room(struct sw_ask *ask, size_t n, bool large)
{
    char *block;

    if (!large && n <= inline_bytes(ask->routed->route) &&
        arena_has(ask, n + SW_SEAL_BYTES)) {
        block = sw_arena_bytes(ask->arena, n + SW_SEAL_BYTES);
        SW_ASSERT(block != NULL);
    } else {
        block = sw_ask_large(ask, n + SW_SEAL_BYTES);
    }
    return block == NULL ? NULL : block + SW_SEAL_NONCE_BYTES;
}

void sw_place__value_give(struct sw_ask *ask, struct sw_slice value)
{
    if (value.ptr != NULL) {
        sw_place__large_give(ask, value.ptr - SW_SEAL_NONCE_BYTES);
    }
}

/* At most how long a text becomes when what is not printable ASCII is written as \uXXXX. */
static size_t escaped_bytes(struct sw_slice text)
{
    size_t bytes = 0;

    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];

        if (c < 0x7f) {
            bytes += 1;
        } else if (c == 0x7f || (c >= 0xc0 && c < 0xf0)) {
            bytes += 6;
        } else if (c >= 0xf0) {
            bytes += 12; /* a pair of surrogates */
        }                /* else: it continues the character before */
    }
    return bytes;
}

enum sw_err sw_place__compact(struct sw_ask *ask, struct sw_slice text, bool large,
                              struct sw_slice *ret_value)
{
    size_t cap = SW_MIN(escaped_bytes(text), value_bytes_max(ask));
    char *room = value_room(ask, cap, large);
    struct sw_out out;

    if (room == NULL) {
        return SW_E_LARGE_FULL;
    }
    out = sw_out_init(room, cap);
    *ret_value = sw_slice_of(room, 0);
    if (!sw_json_compact(text, &out)) {
        sw_place__value_give(ask, *ret_value);
        return SW_E_UPDATE_LARGE;
    }
    *ret_value = sw_out_done(&out);
    return SW_OK;
}

/* What sw_json_merge needs: a table of the patch's members, for each object on the way down. */
static size_t scratch_bytes(struct sw_slice patch)
{
    size_t members = 0;

    for (size_t i = 0; i < patch.len; i++) {
        members += patch.ptr[i] == ':';
    }
    /* 24 bytes each, at most 8 more for finding it, and what alignment takes at each depth */
    return 32 * SW_MIN(members, (size_t)SW_JSON_OPEN_MAX) + 64 * (SW_JSON_DEPTH_MAX + 1);
}

static enum sw_err merge_into(struct sw_ask *ask, struct sw_slice base, struct sw_slice patch,
                              struct sw_out *out)
{
    size_t bytes = scratch_bytes(patch);
    struct sw_arena scratch;
    char *block;
    enum sw_err err;

    if (arena_has(ask, bytes)) {
        err = sw_json_merge(base, patch, out, ask->arena);
    } else {
        block = sw_ask_large(ask, bytes);
        if (block == NULL) {
            return SW_E_LARGE_FULL;
        }
        sw_arena_init(&scratch, block, bytes);
        err = sw_json_merge(base, patch, out, &scratch);
        sw_place__large_give(ask, block);
    }
    return err == SW_E_LIMIT ? SW_E_UPDATE_LARGE : err;
}

enum sw_err sw_place__merge(struct sw_ask *ask, struct sw_slice base, struct sw_slice patch,
                            bool large, struct sw_slice *ret_value)
{
    size_t cap = SW_MIN(base.len + escaped_bytes(patch), value_bytes_max(ask));
    char *room = value_room(ask, cap, large);
    struct sw_out out;
    enum sw_err err;

    if (room == NULL) {
        return SW_E_LARGE_FULL;
    }
    out = sw_out_init(room, cap);
    *ret_value = sw_slice_of(room, 0);
    err = merge_into(ask, base, patch, &out);
    if (err != SW_OK) {
        sw_place__value_give(ask, *ret_value);
        return err;
    }
    *ret_value = sw_out_done(&out);
    return SW_OK;
}

enum sw_err sw_place__copy(struct sw_ask *ask, struct sw_slice value, struct sw_slice *ret_value)
{
    char *room = value_room(ask, value.len, false);

    if (room == NULL) {
        return SW_E_LARGE_FULL;
    }
    if (value.len > 0) {
        memcpy(room, value.ptr, value.len);
    }
    *ret_value = sw_slice_of(room, value.len);
    return SW_OK;
}
