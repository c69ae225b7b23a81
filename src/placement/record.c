/* placement/record.c - a state's record, read: where it lives by now, and what its seal hides.
 *
 * A renewed id leads to the new one's record for a while (an alias; its value, sizes in bytes):
 *
 *   at  len  field
 *    0   32  the new key
 *   32   60  where states are sealed: the new raw id, sealed with the old id's key (aad: old key,
 * new key). Who comes with the old id could not open the new id's state without it
 *
 * A sealed value (`encrypt: on`) is AES-256-GCM of the JSON text, with a key made of the visitor's
 * raw id, which the store never sees, and the record's key as aad: under another key it does not
 * open. What does not open is as if it were not there.
 *
 * What is read goes to the ask's arena; what does not fit there, and values above inline, to large
 * memory.
 */
#include "placement/placement_priv.h"

#define SLACK_BYTES 64 /* for the alignment of what is copied */
#define GROWN_MAX   8

static void seal_key(const uint8_t id[32], uint8_t key[32])
{
    sw_hkdf(id, SW_S("stateway state at rest 1"), key);
}

static struct sw_slice key_slice(const struct sw_store_key *key)
{
    return sw_slice_of(key->bytes, sizeof(key->bytes));
}

struct sw_slice sw_place__seal(const uint8_t id[32], const struct sw_store_key *key,
                               struct sw_slice value)
{
    char *out = (char *)(uintptr_t)value.ptr - SW_SEAL_NONCE_BYTES;
    uint8_t secret[32];

    seal_key(id, secret);
    sw_seal(secret, key_slice(key), value, out);
    explicit_bzero(secret, sizeof(secret));
    return sw_slice_of(out, value.len + SW_SEAL_BYTES);
}

/* In place. */
static bool value_open(const struct sw_reading *r, struct sw_slice *value)
{
    char *text = (char *)(uintptr_t)value->ptr + SW_SEAL_NONCE_BYTES;
    uint8_t secret[32];
    bool ok;

    if (!r->has_id || value->len < SW_SEAL_BYTES) {
        return false;
    }
    seal_key(r->id, secret);
    ok = sw_seal_open(secret, key_slice(&r->key), *value, text);
    explicit_bzero(secret, sizeof(secret));
    *value = sw_slice_of(text, value->len - SW_SEAL_BYTES);
    return ok;
}

/* ---- aliases --------------------------------------------------------------------------------- */

static struct sw_slice alias_aad(const struct sw_store_key *from, const struct sw_store_key *to,
                                 uint8_t text[64])
{
    memcpy(text, from->bytes, 32);
    memcpy(text + 32, to->bytes, 32);
    return sw_slice_of(text, 64);
}

struct sw_slice sw_place__alias(const uint8_t *from_id, const struct sw_store_key *from,
                                const uint8_t to_id[32], const struct sw_store_key *to, char *out)
{
    uint8_t secret[32], aad[64];

    memcpy(out, to->bytes, 32);
    if (from_id == NULL) {
        return sw_slice_of(out, 32);
    }
    seal_key(from_id, secret);
    sw_seal(secret, alias_aad(from, to, aad), sw_slice_of(to_id, 32), out + 32);
    explicit_bzero(secret, sizeof(secret));
    return sw_slice_of(out, SW_ALIAS_SEALED_BYTES);
}

/* False: it is no alias of ours, or one too many. */
static bool alias_follow(struct sw_reading *r, struct sw_slice value)
{
    uint8_t secret[32], aad[64], id[32];
    struct sw_store_key to;
    bool opened = false;

    if (value.ptr == NULL || (value.len != 32 && value.len != SW_ALIAS_SEALED_BYTES) ||
        r->followed == SW_ALIASES_MAX) {
        return false;
    }
    memcpy(to.bytes, value.ptr, 32);
    if (r->has_id && value.len == SW_ALIAS_SEALED_BYTES) {
        seal_key(r->id, secret);
        opened = sw_seal_open(secret, alias_aad(&r->key, &to, aad), sw_slice_tail(value, 32), id);
        explicit_bzero(secret, sizeof(secret));
    }
    if (opened) {
        memcpy(r->id, id, sizeof(id));
    }
    r->has_id = opened;
    r->key = to;
    r->followed++;
    return true;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void on_loaded(struct sw_store_load *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

void sw_place__read_begin(struct sw_reading *r, const struct sw_store_key *key, const uint8_t *id,
                          enum sw_reading_mode mode, size_t value_bytes_max)
{
    *r = (struct sw_reading){.key = *key, .mode = mode, .value_bytes_max = value_bytes_max};
    if (id != NULL) {
        memcpy(r->id, id, sizeof(r->id));
        r->has_id = true;
    }
}

static bool whole(const struct sw_reading *r)
{
    return r->mode == SW_READING_WHOLE || r->mode == SW_READING_RAW;
}

/* As it is kept: sealed, perhaps; and an alias must not be too long. */
static size_t kept_bytes_max(const struct sw_reading *r)
{
    return SW_MAX(r->value_bytes_max + SW_SEAL_BYTES, (size_t)SW_ALIAS_SEALED_BYTES);
}

static enum sw_err read_start(struct sw_ask *ask, struct sw_reading *r, bool spilled)
{
    struct sw_arena *arena = ask->arena;

    if (whole(r) || spilled) {
        size_t bytes = kept_bytes_max(r) + SW_EXTRA_BYTES_MAX + SW_SUBJECT_BYTES_MAX + SLACK_BYTES;

        sw_place__large_give(ask, r->block);
        r->block = sw_ask_large(ask, bytes);
        if (r->block == NULL) {
            return SW_E_LARGE_FULL;
        }
        sw_arena_init(&r->large, r->block, bytes);
        arena = &r->large;
    } else {
        r->mark = sw_arena_mark(ask->arena);
    }
    r->load = (struct sw_store_load){
        .key = r->key,
        .now_unix_s = sw_loop_now_unix_s(ask->env->loop), /* it may have waited in a queue */
        .arena = arena,
        .value_bytes_max = kept_bytes_max(r),
        .loop = ask->env->loop,
        .done = on_loaded,
        .arg = ask,
    };
    return SW_OK;
}

static bool read_absent(struct sw_reading *r, bool unreadable)
{
    r->err = SW_E_NOT_FOUND;
    r->odd = true;
    r->unreadable = unreadable;
    return false;
}

/* A state is here. True: read it again. */
static bool read_state(struct sw_reading *r)
{
    struct sw_slice *value = &r->record.value;

    if (value->ptr == NULL && value->len > 0) { /* too long for this reading */
        if (whole(r)) {
            r->value_bytes_max = value->len;
            r->err = ++r->grown > GROWN_MAX ? SW_E_CONFLICT : SW_OK;
            return r->err == SW_OK;
        }
        if (r->record.sealed && r->mode == SW_READING_INLINE) {
            if (!r->has_id) {
                return read_absent(r, true);
            }
            value->len -= SW_MIN(value->len, (size_t)SW_SEAL_BYTES);
        }
        return false;
    }
    if (r->record.sealed && (r->mode == SW_READING_INLINE || r->mode == SW_READING_WHOLE) &&
        !value_open(r, value)) {
        return read_absent(r, true);
    }
    if (r->mode == SW_READING_INLINE && value->len > r->value_bytes_max) {
        value->ptr = NULL; /* the room was for the seal */
    }
    return false;
}

/* The store has answered. True: read again, from another place or with more room. */
static bool read_answered(struct sw_ask *ask, struct sw_reading *r, bool *spilled)
{
    r->err = r->load.err;
    if (r->err == SW_E_NO_MEMORY && r->load.arena == ask->arena) {
        sw_arena_reset(ask->arena, r->mark);
        *spilled = true;
        return true;
    }
    if (r->err != SW_OK) {
        return false;
    }
    r->record = r->load.record;
    switch (r->record.kind) {
    case SW_RECORD_STATE:
        return read_state(r);
    case SW_RECORD_TOMBSTONE:
        return false;
    case SW_RECORD_ALIAS:
        return alias_follow(r, r->record.value) ? true : read_absent(r, false);
    case SW_RECORD_CLAIM:
        break;
    }
    r->err = SW_E_STORE_CORRUPT; /* no key of a state is one of a claim */
    return false;
}

enum sw_step sw_place__read(struct sw_ask *ask, struct sw_reading *r)
{
    bool again, spilled = r->block != NULL && !whole(r);

    do {
        if (!r->waiting) {
            r->err = read_start(ask, r, spilled);
            if (r->err != SW_OK) {
                return SW_STEP_DONE;
            }
            if (sw_store_load(ask->env->store, &r->load) == SW_STEP_MORE) {
                r->waiting = true;
                return SW_STEP_MORE;
            }
        }
        r->waiting = false;
        again = read_answered(ask, r, &spilled);
    } while (again);
    return SW_STEP_DONE;
}
