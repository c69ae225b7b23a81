/* crypto/jose_cache.c - tokens that were verified before: one worker's table of fixed size.
 *
 * A token's id is SHA-256 over (generation of the key set, length of typ, typ, token). Its first
 * bytes choose a set of eight entries, so a lookup is one hash and a few cache lines; of four, a
 * set overflows too often while the table is half empty. A client cannot fill the table: what goes
 * in was signed by somebody we trust.
 */
#include "crypto/jose_priv.h"

#include <openssl/crypto.h>

#include "base/json.h"

#define SETS     (SW_TOKEN_CACHE_ENTRIES / SW_TOKEN_CACHE_WAYS)
#define ID_BYTES 32

_Static_assert((SETS & (SETS - 1)) == 0, "sets are masked");
_Static_assert(SETS *SW_TOKEN_CACHE_WAYS == SW_TOKEN_CACHE_ENTRIES, "no entry is left over");

struct entry {
    uint8_t id[ID_BYTES];
    int64_t end_unix_s; /* not used at this time or after; 0: free */
    uint64_t used;      /* by the cache's count of lookups */
    size_t len;
    uint32_t ring_id; /* of the key that signed it */
};

struct counters { /* written by the cache's thread alone */
    _Atomic uint64_t hits, misses, evictions, too_long;
};

struct sw_token_cache {
    uint32_t magic;
    uint64_t lookups;
    struct counters counters;
    struct entry entries[SW_TOKEN_CACHE_ENTRIES];
    char claims[SW_TOKEN_CACHE_ENTRIES][SW_TOKEN_CACHE_CLAIMS_BYTES];
};
#define CACHE_MAGIC 0x544f4b43u

static void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

struct sw_token_cache *sw_token_cache_new(void)
{
    struct sw_token_cache *cache = calloc(1, sizeof(*cache));

    if (cache != NULL) {
        cache->magic = CACHE_MAGIC;
    }
    return cache;
}

void sw_token_cache_free(struct sw_token_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    SW_ASSERT(cache->magic == CACHE_MAGIC);
    OPENSSL_cleanse(cache, sizeof(*cache));
    free(cache);
}

struct sw_token_cache_stats sw_token_cache_stats(const struct sw_token_cache *cache)
{
    SW_ASSERT(cache->magic == CACHE_MAGIC);
    return (struct sw_token_cache_stats){
        .hits = atomic_load_explicit(&cache->counters.hits, memory_order_relaxed),
        .misses = atomic_load_explicit(&cache->counters.misses, memory_order_relaxed),
        .evictions = atomic_load_explicit(&cache->counters.evictions, memory_order_relaxed),
        .too_long = atomic_load_explicit(&cache->counters.too_long, memory_order_relaxed),
    };
}

static void id_of(const struct sw_jwks *set, struct sw_slice typ, struct sw_slice token,
                  uint8_t id[JOSE_HASH_BYTES_MAX])
{
    uint64_t typ_len = typ.len;
    struct sw_slice parts[JOSE_PARTS_MAX] = {
        sw_slice_of(&set->generation, sizeof(set->generation)),
        sw_slice_of(&typ_len, sizeof(typ_len)),
        typ,
        token,
    };

    (void)sw_jose__hash(JOSE_SHA256, parts, SW_COUNTOF(parts), id);
}

static struct entry *ways_of(struct sw_token_cache *cache, const uint8_t *id)
{
    uint32_t word;

    memcpy(&word, id, sizeof(word));
    return &cache->entries[(word & (SETS - 1)) * SW_TOKEN_CACHE_WAYS];
}

static char *claims_of(struct sw_token_cache *cache, const struct entry *e)
{
    return cache->claims[e - cache->entries];
}

static struct entry *find(struct sw_token_cache *cache, const uint8_t *id, int64_t now)
{
    struct entry *e = ways_of(cache, id);

    cache->lookups++;
    for (size_t i = 0; i < SW_TOKEN_CACHE_WAYS; i++, e++) {
        if (e->end_unix_s > now && memcmp(e->id, id, ID_BYTES) == 0) {
            e->used = cache->lookups;
            count(&cache->counters.hits);
            return e;
        }
    }
    count(&cache->counters.misses);
    return NULL;
}

/* Of a token that was verified and is not in. */
static void put(struct sw_token_cache *cache, const uint8_t *id, struct sw_slice payload,
                int64_t end, int64_t now, uint32_t ring_id)
{
    struct entry *e = ways_of(cache, id), *goes = e;

    if (end <= now) {
        return; /* only the skew keeps it alive */
    }
    if (payload.len > SW_TOKEN_CACHE_CLAIMS_BYTES) {
        count(&cache->counters.too_long);
        return;
    }
    for (size_t i = 0; i < SW_TOKEN_CACHE_WAYS; i++, e++) {
        if (e->end_unix_s <= now) {
            goes = e;
            break;
        }
        if (e->used < goes->used) {
            goes = e;
        }
    }
    if (goes->end_unix_s > now) {
        count(&cache->counters.evictions);
    }
    memcpy(goes->id, id, ID_BYTES);
    goes->end_unix_s = end;
    goes->used = cache->lookups;
    goes->len = payload.len;
    goes->ring_id = ring_id;
    memcpy(claims_of(cache, goes), payload.ptr, payload.len);
}

/* A copy: the entry may be another token's before the exchange ends. */
static enum sw_err known_check(struct sw_token_cache *cache, const struct entry *e,
                               const struct sw_claims_rules *rules, int64_t now,
                               struct sw_arena *arena, struct sw_claims *ret_claims)
{
    size_t mark = sw_arena_mark(arena);
    struct sw_slice payload = sw_arena_copy(arena, sw_slice_of(claims_of(cache, e), e->len));
    enum sw_err err = payload.ptr == NULL ? SW_E_NO_MEMORY
                                          : sw_jose__claims(payload, rules, now, arena, ret_claims);

    if (err != SW_OK) {
        sw_arena_reset(arena, mark);
        return err;
    }
    ret_claims->ring_id = e->ring_id;
    return SW_OK;
}

enum sw_err sw_token_check(struct sw_token_cache *cache, const struct sw_jwks *set,
                           struct sw_slice typ, const struct sw_claims_rules *rules,
                           struct sw_slice token, int64_t now_unix_s, struct sw_arena *arena,
                           struct sw_claims *ret_claims)
{
    uint8_t id[JOSE_HASH_BYTES_MAX];
    size_t mark = sw_arena_mark(arena);
    struct sw_jws jws;
    enum sw_err err;

    SW_ASSERT(cache == NULL || cache->magic == CACHE_MAGIC);
    if (token.len > SW_TOKEN_BYTES_MAX) {
        return SW_E_TOKEN_LARGE;
    }
    if (cache != NULL) {
        const struct entry *e;

        id_of(set, typ, token, id);
        e = find(cache, id, now_unix_s);
        if (e != NULL) {
            return known_check(cache, e, rules, now_unix_s, arena, ret_claims);
        }
    }
    err = sw_jws_verify(set, token, typ, arena, &jws);
    if (err == SW_OK) {
        err = sw_claims_check(jws.payload, rules, now_unix_s, arena, ret_claims);
    }
    if (err != SW_OK) {
        sw_arena_reset(arena, mark);
        return err;
    }
    if (cache != NULL) {
        put(cache, id, ret_claims->payload, ret_claims->exp_unix_s, now_unix_s, jws.key->ring_id);
    }
    ret_claims->ring_id = jws.key->ring_id;
    return SW_OK;
}
