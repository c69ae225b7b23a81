/* crypto/keyring_life.c - the life of a key: seed, active, retired, gone; and how often it is used.
 *
 * Pure but for sw_random. A key that is promoted must be known to everybody who may get what is
 * made with it, and one that is taken out must be needed by nobody: the order of steps, and the
 * dates below, are all there is to a rotation that logs nobody out.
 */
#include "crypto/keyring_priv.h"

#include <openssl/crypto.h>

static size_t index_of(const struct sw_keyring *ring, uint32_t id)
{
    for (size_t i = 0; i < ring->count; i++) {
        if (ring->keys[i].id == id) {
            return i;
        }
    }
    return ring->count;
}

const struct sw_key *sw_keyring_find(const struct sw_keyring *ring, uint32_t id)
{
    size_t at = index_of(ring, id);

    return at < ring->count ? &ring->keys[at] : NULL;
}

const struct sw_key *sw_keyring_oldest(const struct sw_keyring *ring)
{
    const struct sw_key *best = &ring->keys[ring->active];

    for (size_t i = 0; i < ring->count; i++) {
        const struct sw_key *k = &ring->keys[i];

        if (k->state != SW_KEY_SEED &&
            (k->created_unix_s < best->created_unix_s ||
             (k->created_unix_s == best->created_unix_s && k->id < best->id))) {
            best = k;
        }
    }
    return best;
}

/* ---- changes ----------------------------------------------------------------------------------
 */

/* One above the largest: an id that was given is not given again while a later one is there. */
static uint32_t next_id(const struct sw_keyring *ring)
{
    uint32_t largest = 0, id = 1;

    for (size_t i = 0; i < ring->count; i++) {
        largest = SW_MAX(largest, ring->keys[i].id);
    }
    if (largest < UINT32_MAX) {
        return largest + 1;
    }
    while (sw_keyring_find(ring, id) != NULL) {
        id++; /* ends: there are SW_KEYS_MAX of them */
    }
    return id;
}

enum sw_err sw_keyring_add(struct sw_keyring *ring, int64_t now_unix_s, uint32_t *ret_id)
{
    struct sw_key *key;

    if (ring->count == SW_KEYS_MAX) {
        return SW_E_LIMIT;
    }
    key = &ring->keys[ring->count];
    *key = (struct sw_key){
        .id = next_id(ring),
        .state = SW_KEY_SEED,
        .created_unix_s = SW_MAX(now_unix_s, 0),
    };
    sw_random(key->secret, sizeof(key->secret));
    sw_keyring__derive(key);
    ring->count++;
    *ret_id = key->id;
    return SW_OK;
}

enum sw_err sw_keyring_promote(struct sw_keyring *ring, uint32_t id, int64_t now_unix_s)
{
    size_t at = index_of(ring, id);
    struct sw_key *old = &ring->keys[ring->active];

    if (at == ring->count) {
        return SW_E_NOT_FOUND;
    }
    if (at == ring->active) {
        return SW_E_CONFLICT;
    }
    SW_ASSERT(old->state == SW_KEY_ACTIVE);
    old->state = SW_KEY_RETIRED;
    old->retired_unix_s = SW_MAX(now_unix_s, 1);
    ring->keys[at].state = SW_KEY_ACTIVE;
    ring->keys[at].retired_unix_s = 0;
    ring->active = at;
    return SW_OK;
}

enum sw_err sw_keyring_remove(struct sw_keyring *ring, uint32_t id)
{
    size_t at = index_of(ring, id);

    if (at == ring->count) {
        return SW_E_NOT_FOUND;
    }
    if (at == ring->active) {
        return SW_E_CONFLICT;
    }
    ring->count--;
    for (size_t i = at; i < ring->count; i++) {
        ring->keys[i] = ring->keys[i + 1];
    }
    OPENSSL_cleanse(&ring->keys[ring->count], sizeof(ring->keys[0]));
    ring->active -= ring->active > at ? 1 : 0;
    return SW_OK;
}

/* ---- dates ------------------------------------------------------------------------------------
 */

int64_t sw_keyring_dead_unix_s(const struct sw_keyring *ring, const struct sw_key *key,
                               const struct sw_keys_rules *rules)
{
    int64_t more = rules->life_s + SW_KEYS_MARGIN_S;

    SW_ASSERT(rules->life_s >= 0 && rules->life_s < INT64_MAX / 2);
    if (key->state == SW_KEY_SEED) {
        return 0;
    }
    if (key->state == SW_KEY_ACTIVE || key->retired_unix_s == 0 ||
        (rules->names && key == sw_keyring_oldest(ring))) {
        return INT64_MAX;
    }
    return key->retired_unix_s > INT64_MAX - more ? INT64_MAX : key->retired_unix_s + more;
}

/* Since when the active key makes: since it was made itself, or the one before it retired. */
static int64_t active_since(const struct sw_keyring *ring)
{
    int64_t since = ring->keys[ring->active].created_unix_s;

    for (size_t i = 0; i < ring->count; i++) {
        since = SW_MAX(since, ring->keys[i].retired_unix_s);
    }
    return since;
}

struct sw_keys_due sw_keyring_due(const struct sw_keyring *ring, const struct sw_keys_rules *rules,
                                  int64_t now_unix_s)
{
    bool seeded = false;

    if (rules->rotate_s == 0) {
        return (struct sw_keys_due){SW_KEYS_KEEP, 0};
    }
    for (size_t i = 0; i < ring->count; i++) {
        const struct sw_key *key = &ring->keys[i];

        if (key->state == SW_KEY_RETIRED &&
            sw_keyring_dead_unix_s(ring, key, rules) <= now_unix_s) {
            return (struct sw_keys_due){SW_KEYS_REMOVE, key->id};
        }
    }
    if (now_unix_s - rules->rotate_s < active_since(ring)) {
        return (struct sw_keys_due){SW_KEYS_KEEP, 0};
    }
    for (size_t i = 0; i < ring->count; i++) {
        const struct sw_key *key = &ring->keys[i];

        if (key->state != SW_KEY_SEED) {
            continue;
        }
        if (now_unix_s - SW_KEYS_SEED_S >= key->created_unix_s) {
            return (struct sw_keys_due){SW_KEYS_PROMOTE, key->id};
        }
        seeded = true;
    }
    if (seeded) {
        return (struct sw_keys_due){SW_KEYS_KEEP, 0};
    }
    return (struct sw_keys_due){ring->count == SW_KEYS_MAX ? SW_KEYS_FULL : SW_KEYS_ADD, 0};
}

bool sw_keyring_bridge(const struct sw_keyring *from, const struct sw_keyring *to,
                       struct sw_keyring *ret_bridge)
{
    const struct sw_key *makes = &from->keys[from->active];
    size_t at = index_of(to, makes->id);

    if (at == to->count || at == to->active ||
        CRYPTO_memcmp(to->keys[at].secret, makes->secret, sizeof(makes->secret)) != 0) {
        return false;
    }
    *ret_bridge = *to;
    ret_bridge->keys[to->active].state = SW_KEY_SEED;
    ret_bridge->keys[at].state = SW_KEY_ACTIVE;
    ret_bridge->keys[at].retired_unix_s = 0;
    ret_bridge->active = at;
    return true;
}

/* ---- uses: relaxed, since one thread writes; a reader may be a moment behind -------------------
 */

void sw_keyring_used(const struct sw_keyring *ring, uint32_t id, enum sw_key_use use,
                     int64_t now_unix_s)
{
    struct sw_key_uses *uses = ring->uses;

    if (uses == NULL || id == 0) {
        return;
    }
    for (size_t i = 0; i < SW_KEYS_MAX; i++) {
        if (atomic_load_explicit(&uses->slots[i].id, memory_order_relaxed) == id) {
            _Atomic uint64_t *count =
                use == SW_KEY_MADE ? &uses->slots[i].made : &uses->slots[i].opened;

            atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
                                  memory_order_relaxed);
            atomic_store_explicit(&uses->slots[i].last_unix_s, now_unix_s, memory_order_relaxed);
            return;
        }
    }
}

static bool has_slot(const struct sw_key_uses *uses, uint32_t id)
{
    for (size_t i = 0; i < SW_KEYS_MAX; i++) {
        if (atomic_load_explicit(&uses->slots[i].id, memory_order_relaxed) == id) {
            return true;
        }
    }
    return false;
}

/* A reader sees the id only with the zeros below it: release here, acquire there. */
static void slot_take(struct sw_key_uses *uses, uint32_t id)
{
    for (size_t i = 0; i < SW_KEYS_MAX; i++) {
        if (atomic_load_explicit(&uses->slots[i].id, memory_order_relaxed) == 0) {
            atomic_store_explicit(&uses->slots[i].opened, 0, memory_order_relaxed);
            atomic_store_explicit(&uses->slots[i].made, 0, memory_order_relaxed);
            atomic_store_explicit(&uses->slots[i].last_unix_s, 0, memory_order_relaxed);
            atomic_store_explicit(&uses->slots[i].id, id, memory_order_release);
            return;
        }
    }
    SW_UNREACHABLE(); /* as many places as a ring has keys */
}

void sw_key_uses_follow(struct sw_key_uses *uses, const struct sw_keyring *ring)
{
    for (size_t i = 0; i < SW_KEYS_MAX; i++) {
        uint32_t id = atomic_load_explicit(&uses->slots[i].id, memory_order_relaxed);

        if (id != 0 && sw_keyring_find(ring, id) == NULL) {
            atomic_store_explicit(&uses->slots[i].id, 0, memory_order_relaxed);
        }
    }
    for (size_t i = 0; i < ring->count; i++) {
        if (!has_slot(uses, ring->keys[i].id)) {
            slot_take(uses, ring->keys[i].id);
        }
    }
}

struct sw_key_used sw_key_uses_read(const struct sw_key_uses *uses, uint32_t id)
{
    for (size_t i = 0; i < SW_KEYS_MAX; i++) {
        if (atomic_load_explicit(&uses->slots[i].id, memory_order_acquire) == id) {
            return (struct sw_key_used){
                .opened = atomic_load_explicit(&uses->slots[i].opened, memory_order_relaxed),
                .made = atomic_load_explicit(&uses->slots[i].made, memory_order_relaxed),
                .last_unix_s =
                    atomic_load_explicit(&uses->slots[i].last_unix_s, memory_order_relaxed),
            };
        }
    }
    return (struct sw_key_used){0, 0, 0};
}
