/* crypto/keyring.c - the text of the file of secrets; see crypto.h for its format.
 *
 * Read strictly: a member this version does not know is refused rather than dropped, since the next
 * writer of the file would lose it.
 */
#include "crypto/keyring_priv.h"

#include <openssl/crypto.h>
#include <stdarg.h>

#include "base/json.h"

static const struct sw_slice state_names[] = {
    [SW_KEY_SEED] = SW_S("seed"),
    [SW_KEY_ACTIVE] = SW_S("active"),
    [SW_KEY_RETIRED] = SW_S("retired"),
};

/* Text for people, valid until this thread's next failure. */
static _Thread_local char why_text[512];

enum sw_err sw_keyring__refuse(enum sw_err err, const char **ret_why, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(why_text, sizeof(why_text), fmt, ap);
    va_end(ap);
    *ret_why = why_text;
    return err;
}

void sw_keyring__derive(struct sw_key *key)
{
    sw_hkdf(key->secret, SW_S("stateway pin v1"), key->pin.bytes);
    sw_hkdf(key->secret, SW_S("stateway visitor v1"), key->visitor.bytes);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static bool read_state(struct sw_slice value, enum sw_key_state *ret_state)
{
    if (value.len < 2 || value.ptr[0] != '"') {
        return false;
    }
    value = (struct sw_slice){value.ptr + 1, value.len - 2};
    for (size_t i = 0; i < SW_COUNTOF(state_names); i++) {
        if (sw_json_name_is(value, state_names[i])) {
            *ret_state = (enum sw_key_state)i;
            return true;
        }
    }
    return false;
}

static bool read_secret(struct sw_slice value, uint8_t secret[32])
{
    return value.len >= 2 && value.ptr[0] == '"' &&
           sw_b64url_exact((struct sw_slice){value.ptr + 1, value.len - 2}, secret, 32) == SW_OK;
}

static enum sw_err read_key(struct sw_slice text, size_t number, uint64_t version,
                            struct sw_key *key, const char **ret_why)
{
    enum { ID = 1, STATE = 2, CREATED = 4, SECRET = 8, ALL = 15, RETIRED = 16 };
    struct sw_json_iter it = sw_json_iter(text);
    struct sw_slice name, value;
    unsigned seen = 0;
    uint64_t n;

    if (sw_json_type_of(text) != SW_JSON_OBJECT) {
        return sw_keyring__refuse(SW_E_SYNTAX, ret_why,
                                  "key ring: entry %zu of \"keys\" is no object", number);
    }
    while (sw_json_next(&it, &name, &value)) {
        if (sw_json_name_is(name, SW_S("id"))) {
            seen |= ID;
            if (!sw_slice_u64(value, &n) || n == 0 || n > UINT32_MAX) {
                return sw_keyring__refuse(
                    SW_E_SYNTAX, ret_why,
                    "key ring: \"id\" of key %zu must be a number from 1 to 4294967295", number);
            }
            key->id = (uint32_t)n;
        } else if (sw_json_name_is(name, SW_S("state"))) {
            seen |= STATE;
            if (!read_state(value, &key->state)) {
                return sw_keyring__refuse(
                    SW_E_SYNTAX, ret_why,
                    "key ring: \"state\" of key %zu must be \"seed\", \"active\" or "
                    "\"retired\"",
                    number);
            }
        } else if (sw_json_name_is(name, SW_S("created"))) {
            seen |= CREATED;
            if (!sw_slice_u64(value, &n) || n > INT64_MAX) {
                return sw_keyring__refuse(
                    SW_E_SYNTAX, ret_why,
                    "key ring: \"created\" of key %zu must be a unix time in seconds", number);
            }
            key->created_unix_s = (int64_t)n;
        } else if (version >= 2 && sw_json_name_is(name, SW_S("retired"))) {
            seen |= RETIRED;
            if (!sw_slice_u64(value, &n) || n > INT64_MAX) {
                return sw_keyring__refuse(
                    SW_E_SYNTAX, ret_why,
                    "key ring: \"retired\" of key %zu must be a unix time in seconds", number);
            }
            key->retired_unix_s = (int64_t)n;
        } else if (sw_json_name_is(name, SW_S("secret"))) {
            seen |= SECRET;
            if (!read_secret(value, key->secret)) {
                return sw_keyring__refuse(
                    SW_E_SYNTAX, ret_why,
                    "key ring: \"secret\" of key %zu must be 32 bytes as 43 characters of "
                    "base64url without padding",
                    number);
            }
        } else {
            return sw_keyring__refuse(SW_E_SYNTAX, ret_why,
                                      "key ring: key %zu has the unknown member \"%.*s\"", number,
                                      (int)SW_MIN(name.len, 40u), name.ptr);
        }
    }
    if ((seen & ALL) != ALL) {
        return sw_keyring__refuse(
            SW_E_SYNTAX, ret_why,
            "key ring: key %zu lacks one of \"id\", \"state\", \"created\", \"secret\"", number);
    }
    if (version >= 2 && ((seen & RETIRED) != 0) != (key->state == SW_KEY_RETIRED)) {
        return sw_keyring__refuse(
            SW_E_SYNTAX, ret_why,
            "key ring: key %zu: a retired key has \"retired\", others have not", number);
    }
    sw_keyring__derive(key);
    return SW_OK;
}

static enum sw_err read_keys(struct sw_slice text, uint64_t version, struct sw_keyring *ring,
                             const char **ret_why)
{
    struct sw_json_iter it = sw_json_iter(text);
    struct sw_slice name, value;
    size_t active = 0;

    if (sw_json_type_of(text) != SW_JSON_ARRAY) {
        return sw_keyring__refuse(SW_E_SYNTAX, ret_why, "key ring: \"keys\" is no list");
    }
    while (sw_json_next(&it, &name, &value)) {
        struct sw_key *key = &ring->keys[ring->count];
        enum sw_err err;

        if (ring->count == SW_KEYS_MAX) {
            return sw_keyring__refuse(SW_E_LIMIT, ret_why,
                                      "key ring: more than %d keys; remove the oldest retired ones",
                                      SW_KEYS_MAX);
        }
        err = read_key(value, ring->count + 1, version, key, ret_why);
        if (err != SW_OK) {
            return err;
        }
        if (sw_keyring_find(ring, key->id) != NULL) {
            return sw_keyring__refuse(SW_E_SYNTAX, ret_why, "key ring: two keys have the id %u",
                                      key->id);
        }
        if (key->state == SW_KEY_ACTIVE) {
            ring->active = ring->count;
            active++;
        }
        ring->count++;
    }
    if (active != 1) {
        return sw_keyring__refuse(SW_E_SYNTAX, ret_why,
                                  "key ring: exactly one key must be \"active\", there are %zu",
                                  active);
    }
    return SW_OK;
}

static enum sw_err read_ring(struct sw_slice text, struct sw_keyring *ring, const char **ret_why)
{
    struct sw_json_checked checked = sw_json_check(text);
    struct sw_slice name, value, keys = {NULL, 0}, version = {NULL, 0};
    struct sw_json_iter it;
    uint64_t n;

    if (checked.err != SW_OK) {
        return sw_keyring__refuse(SW_E_SYNTAX, ret_why, "key ring: not JSON: %s at byte %zu",
                                  checked.why, checked.offset);
    }
    if (checked.type != SW_JSON_OBJECT) {
        return sw_keyring__refuse(SW_E_SYNTAX, ret_why, "key ring: the file holds no JSON object");
    }
    it = sw_json_iter(text);
    while (sw_json_next(&it, &name, &value)) {
        if (sw_json_name_is(name, SW_S("version"))) {
            version = value;
        } else if (sw_json_name_is(name, SW_S("keys"))) {
            keys = value;
        } else {
            return sw_keyring__refuse(SW_E_SYNTAX, ret_why, "key ring: unknown member \"%.*s\"",
                                      (int)SW_MIN(name.len, 40u), name.ptr);
        }
    }
    if (!sw_slice_u64(version, &n) || n < 1 || n > 2) {
        return sw_keyring__refuse(SW_E_SYNTAX, ret_why,
                                  "key ring: \"version\" must be 1 or 2; a file of a newer "
                                  "stateway needs that stateway");
    }
    if (keys.len == 0) {
        return sw_keyring__refuse(SW_E_SYNTAX, ret_why, "key ring: \"keys\" is missing");
    }
    return read_keys(keys, n, ring, ret_why);
}

enum sw_err sw_keyring_parse(struct sw_slice text, struct sw_keyring *ret_ring,
                             const char **ret_why)
{
    struct sw_keyring ring = {0};
    enum sw_err err = read_ring(text, &ring, ret_why);

    if (err == SW_OK) {
        *ret_ring = ring;
    }
    OPENSSL_cleanse(&ring, sizeof(ring));
    return err;
}

/* ---- making -----------------------------------------------------------------------------------
 */

void sw_keyring_make(int64_t now_unix_s, struct sw_keyring *ret_ring)
{
    *ret_ring = (struct sw_keyring){.count = 1};
    ret_ring->keys[0] = (struct sw_key){
        .id = 1,
        .state = SW_KEY_ACTIVE,
        .created_unix_s = SW_MAX(now_unix_s, 0),
    };
    sw_random(ret_ring->keys[0].secret, sizeof(ret_ring->keys[0].secret));
    sw_keyring__derive(&ret_ring->keys[0]);
}

/* A file that nobody had to write anew stays one that an older stateway reads. */
static bool needs_times(const struct sw_keyring *ring)
{
    for (size_t i = 0; i < ring->count; i++) {
        if (ring->keys[i].retired_unix_s != 0) {
            return true;
        }
    }
    return false;
}

bool sw_keyring_put(struct sw_out *out, const struct sw_keyring *ring)
{
    bool times = needs_times(ring);

    SW_ASSERT(ring->count > 0);
    SW_ASSERT(ring->count <= SW_KEYS_MAX);
    sw_out_cstr(out, times ? "{\"version\":2,\"keys\":[" : "{\"version\":1,\"keys\":[");
    for (size_t i = 0; i < ring->count; i++) {
        const struct sw_key *key = &ring->keys[i];

        sw_out_cstr(out, i > 0 ? ",\n  {\"id\":" : "\n  {\"id\":");
        sw_out_u64(out, key->id);
        sw_out_lit(out, ",\"state\":\"");
        sw_out_slice(out, state_names[key->state]);
        sw_out_lit(out, "\",\"created\":");
        sw_out_i64(out, key->created_unix_s);
        if (times && key->state == SW_KEY_RETIRED) {
            sw_out_lit(out, ",\"retired\":");
            sw_out_i64(out, key->retired_unix_s);
        }
        sw_out_lit(out, ",\"secret\":\"");
        sw_b64url_put(out, key->secret, sizeof(key->secret));
        sw_out_lit(out, "\"}");
    }
    sw_out_lit(out, "\n]}\n");
    return !out->overflowed;
}

bool sw_keyring_same(const struct sw_keyring *a, const struct sw_keyring *b)
{
    if (a->count != b->count || a->active != b->active) {
        return false;
    }
    for (size_t i = 0; i < a->count; i++) {
        const struct sw_key *x = &a->keys[i], *y = &b->keys[i];

        if (x->id != y->id || x->state != y->state || x->created_unix_s != y->created_unix_s ||
            x->retired_unix_s != y->retired_unix_s ||
            CRYPTO_memcmp(x->secret, y->secret, sizeof(x->secret)) != 0) {
            return false;
        }
    }
    return true;
}

const char *sw_key_state_name(enum sw_key_state state)
{
    SW_ASSERT((size_t)state < SW_COUNTOF(state_names));
    return state_names[state].ptr;
}
