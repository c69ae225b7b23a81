/* crypto/jose_jwks.c - key sets: read, derived, shared, searched, published (RFC 7517, 5). */
#include "crypto/jose_priv.h"

#include <openssl/crypto.h>

#include "base/json.h"

static struct sw_jwks *set_new(void)
{
    struct sw_jwks *set = calloc(1, sizeof(*set));

    if (set != NULL) {
        set->magic = JWKS_MAGIC;
        atomic_init(&set->refs, 1);
        sw_random(&set->generation, sizeof(set->generation));
    }
    return set;
}

struct sw_jwks *sw_jwks_ref(struct sw_jwks *set)
{
    SW_ASSERT(set->magic == JWKS_MAGIC);
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void sw_jwks_unref(struct sw_jwks *set)
{
    if (set == NULL) {
        return;
    }
    SW_ASSERT(set->magic == JWKS_MAGIC);
    if (atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) > 1) {
        return;
    }
    for (size_t i = 0; i < set->count; i++) {
        sw_jose__key_fini(&set->keys[i]);
    }
    set->magic = 0;
    free(set);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static bool kid_eq(const struct sw_jwk *a, const struct sw_jwk *b)
{
    return sw_slice_eq(sw_jwk_kid(a), sw_jwk_kid(b));
}

/* What makes a set ambiguous: RFC 7517, 4.5 and the confusion of RFC 8725, 2.1. */
static enum sw_err set_check(const struct sw_jwks *set)
{
    size_t secrets = 0;

    for (size_t i = 0; i < set->count; i++) {
        secrets += sw_jose__algs[set->keys[i].alg].kind == JOSE_OCT ? 1 : 0;
        for (size_t j = 0; j < i; j++) {
            if (set->keys[i].kid_len > 0 && kid_eq(&set->keys[i], &set->keys[j])) {
                return SW_E_JWKS_KIDS;
            }
        }
    }
    if (secrets > 0 && secrets < set->count) {
        return SW_E_JWKS_MIXED;
    }
    return set->count == 0 ? SW_E_JWKS_EMPTY : SW_OK;
}

/* A key that is broken still claims its id: with two of one name nobody can tell which was meant.
 * Keys for something else (encryption, another algorithm) may share one. */
struct rivals {
    struct sw_slice kids[SW_JWKS_KEYS_MAX]; /* insides of strings */
    size_t count;
};

static void rival_add(struct rivals *r, struct sw_slice key, enum sw_err err)
{
    struct sw_slice kid;

    if (err != SW_E_JWK_KTY && err != SW_E_JWK_ALG && err != SW_E_JWK_USE &&
        sw_json_get(key, SW_S("kid"), &kid) && sw_jose__string(kid, &r->kids[r->count])) {
        r->count++;
    }
}

static bool rival_of(const struct rivals *r, const struct sw_jwks *set)
{
    for (size_t i = 0; i < set->count; i++) {
        for (size_t j = 0; j < r->count; j++) {
            if (sw_json_name_is(r->kids[j], sw_jwk_kid(&set->keys[i]))) {
                return true;
            }
        }
    }
    return false;
}

static enum sw_err keys_read(struct sw_jwks *set, struct sw_slice keys,
                             const struct sw_jwks_rules *rules, struct sw_jwks_report *report)
{
    struct sw_json_iter it = sw_json_iter(keys);
    struct sw_slice name, value;
    struct rivals rivals = {.count = 0};

    if (sw_json_type_of(keys) != SW_JSON_ARRAY) {
        return SW_E_JWKS_SYNTAX;
    }
    for (size_t index = 0; sw_json_next(&it, &name, &value); index++) {
        struct sw_jwk *key = &set->keys[set->count];
        enum sw_err err;

        if (index == SW_JWKS_KEYS_MAX) {
            return SW_E_JWKS_LARGE;
        }
        err = sw_jose__jwk_read(value, rules, key);
        if (err == SW_OK) {
            set->count++;
            continue;
        }
        sw_jose__key_fini(key); /* zeroed again */
        if (err == SW_E_NO_MEMORY) {
            return err;
        }
        rival_add(&rivals, value, err);
        if (report->skipped == 0) {
            report->skipped_first = index;
            report->skipped_by = err;
        }
        report->skipped++;
    }
    return rival_of(&rivals, set) ? SW_E_JWKS_KIDS : SW_OK;
}

static enum sw_err set_read(struct sw_jwks *set, struct sw_slice text,
                            const struct sw_jwks_rules *rules, struct sw_jwks_report *report)
{
    struct sw_json_checked checked;
    struct sw_slice member;
    enum sw_err err;

    if (text.len > SW_JWKS_BYTES_MAX) {
        return SW_E_JWKS_LARGE;
    }
    checked = sw_json_check(text);
    if (checked.err != SW_OK || checked.type != SW_JSON_OBJECT) {
        return SW_E_JWKS_SYNTAX;
    }
    if (sw_json_get(text, SW_S("keys"), &member)) {
        err = keys_read(set, member, rules, report);
    } else if (sw_json_get(text, SW_S("kty"), &member)) {
        set->count = 1; /* also half read it is ended with the set */
        err = sw_jose__jwk_read(text, rules, &set->keys[0]);
    } else {
        err = SW_E_JWKS_SYNTAX;
    }
    return err != SW_OK ? err : set_check(set);
}

enum sw_err sw_jwks_new(struct sw_slice text, const struct sw_jwks_rules *rules,
                        struct sw_jwks **ret_set, struct sw_jwks_report *ret_report)
{
    struct sw_jwks_report report = {0};
    struct sw_jwks *set = set_new();
    enum sw_err err = set == NULL ? SW_E_NO_MEMORY : set_read(set, text, rules, &report);

    if (ret_report != NULL) {
        *ret_report = report;
    }
    if (err != SW_OK) {
        sw_jwks_unref(set);
        return err;
    }
    while (set->signer < set->count && !set->keys[set->signer].signs) {
        set->signer++;
    }
    *ret_set = set;
    return SW_OK;
}

/* ---- with keys that were taken out of it -------------------------------------------------------
 */

static bool is_secret(const struct sw_jwk *key)
{
    return sw_jose__algs[key->alg].kind == JOSE_OCT;
}

/* A key without a name could only be tried, and one of a taken name would hide the other. */
static bool may_join(const struct sw_jwks *set, const struct sw_jwk *key)
{
    if (key->kid_len == 0 || !key->verifies || set->count == SW_JWKS_KEYS_MAX) {
        return false;
    }
    for (size_t i = 0; i < set->count; i++) {
        if (kid_eq(&set->keys[i], key) || is_secret(&set->keys[i]) != is_secret(key)) {
            return false;
        }
    }
    return true;
}

enum sw_err sw_jwks_merge(const struct sw_jwks *set, const struct sw_jwk *const *kept, size_t count,
                          struct sw_jwks **ret_set)
{
    struct sw_jwks *merged = set_new();
    enum sw_err err = merged == NULL ? SW_E_NO_MEMORY : SW_OK;

    SW_ASSERT(set->magic == JWKS_MAGIC);
    for (size_t i = 0; i < set->count && err == SW_OK; i++) {
        err = sw_jose__key_copy(&set->keys[i], &merged->keys[merged->count++]);
    }
    for (size_t i = 0; i < count && err == SW_OK; i++) {
        if (may_join(merged, kept[i])) {
            struct sw_jwk *key = &merged->keys[merged->count++];

            err = sw_jose__key_copy(kept[i], key);
            key->kept = true;
        }
    }
    if (err != SW_OK) {
        sw_jwks_unref(merged);
        return err;
    }
    merged->signer = merged->count; /* copies only verify */
    *ret_set = merged;
    return SW_OK;
}

/* ---- made from the key ring --------------------------------------------------------------------
 */

_Static_assert(SW_KEYS_MAX <= SW_JWKS_KEYS_MAX, "one key for each secret");

/* "stateway token ES256 v1 0" and "... 1": a key that an algorithm gets is no other one's. */
static void seed_derive(const struct sw_key *from, enum sw_jose_alg alg, uint8_t seed[64])
{
    for (size_t half = 0; half < 2; half++) {
        char info[64];
        int len =
            snprintf(info, sizeof(info), "stateway token %s v1 %zu", sw_jose_alg_name(alg), half);

        SW_ASSERT(len > 0 && (size_t)len < sizeof(info));
        sw_hkdf(from->secret, sw_slice_of(info, (size_t)len), seed + 32 * half);
    }
}

static enum sw_err key_derive(const struct sw_key *from, enum sw_jose_alg alg, struct sw_jwk *key)
{
    uint8_t seed[64];
    enum sw_err err;

    key->alg = alg;
    key->verifies = true;
    key->signs = true;
    key->ring_id = from->id;
    seed_derive(from, alg, seed);
    err = sw_jose__jwk_seed(key, seed);
    OPENSSL_cleanse(seed, sizeof(seed));
    if (err == SW_OK && alg == SW_JOSE_HS256) {
        struct sw_out out = sw_out_init(key->kid, sizeof(key->kid));

        sw_out_lit(&out, "ring-");
        sw_out_u64(&out, from->id);
        key->kid_len = out.len;
    }
    return err;
}

enum sw_err sw_jwks_derive(const struct sw_keyring *ring, enum sw_jose_alg alg,
                           struct sw_jwks **ret_set)
{
    struct sw_jwks *set = set_new();

    SW_ASSERT((unsigned)alg < SW_JOSE_ALG_COUNT);
    SW_ASSERT((SW_JOSE_SIGNING & SW_BIT(alg)) != 0);
    SW_ASSERT(ring->count > 0);
    SW_ASSERT(ring->active < ring->count);
    if (set == NULL) {
        return SW_E_NO_MEMORY;
    }
    for (size_t i = 0; i < ring->count; i++) {
        enum sw_err err = key_derive(&ring->keys[i], alg, &set->keys[set->count++]);

        if (err != SW_OK) {
            /* from a sound seed no bad key comes, but for chances of 2^-128 */
            sw_jwks_unref(set);
            return SW_E_NO_MEMORY;
        }
    }
    set->signer = ring->active;
    *ret_set = set;
    return SW_OK;
}

/* ---- asking ------------------------------------------------------------------------------------
 */

size_t sw_jwks_count(const struct sw_jwks *set)
{
    SW_ASSERT(set->magic == JWKS_MAGIC);
    return set->count;
}

const struct sw_jwk *sw_jwks_at(const struct sw_jwks *set, size_t index)
{
    SW_ASSERT(set->magic == JWKS_MAGIC);
    SW_ASSERT(index < set->count);
    return &set->keys[index];
}

const struct sw_jwk *sw_jwks_signer(const struct sw_jwks *set)
{
    SW_ASSERT(set->magic == JWKS_MAGIC);
    return set->signer < set->count ? &set->keys[set->signer] : NULL;
}

enum sw_jose_alg sw_jwk_alg(const struct sw_jwk *key)
{
    return key->alg;
}

struct sw_slice sw_jwk_kid(const struct sw_jwk *key)
{
    return sw_slice_of(key->kid, key->kid_len);
}

void sw_jwk_thumbprint(const struct sw_jwk *key, char out[SW_JWK_THUMB_CHARS])
{
    struct sw_out text = sw_out_init(out, SW_JWK_THUMB_CHARS);

    sw_b64url_put(&text, key->thumb, sizeof(key->thumb));
    SW_ASSERT(text.len == SW_JWK_THUMB_CHARS);
}

enum sw_err sw_jose__find(const struct sw_jwks *set, struct sw_slice kid, enum sw_jose_alg alg,
                          const struct sw_jwk **ret_key)
{
    const struct sw_jwk *found = NULL;

    SW_ASSERT(set->magic == JWKS_MAGIC);
    for (size_t i = 0; i < set->count; i++) {
        const struct sw_jwk *key = &set->keys[i];

        if (!key->verifies) {
            continue;
        }
        if (kid.ptr == NULL) {
            if (key->alg != alg || key->kept) {
                continue;
            }
            if (found != NULL) {
                return SW_E_TOKEN_KID; /* trying one after the other would let a client choose */
            }
            found = key;
        } else if (key->kid_len > 0 && sw_json_name_is(kid, sw_jwk_kid(key))) {
            found = key;
            break; /* there is no second one */
        }
    }
    if (found == NULL) {
        return kid.ptr == NULL ? SW_E_TOKEN_ALG : SW_E_TOKEN_KID;
    }
    if (found->alg != alg) {
        return SW_E_TOKEN_ALG; /* RFC 8725, 3.1: the key says what it is for, not the token */
    }
    *ret_key = found;
    return SW_OK;
}

bool sw_jwks_put_public(struct sw_out *out, const struct sw_jwks *set)
{
    bool first = true;

    SW_ASSERT(set->magic == JWKS_MAGIC);
    sw_out_lit(out, "{\"keys\":[");
    for (size_t i = 0; i < set->count; i++) {
        const struct sw_jwk *key = &set->keys[i];

        if (key->text == NULL || key->kept) {
            continue; /* a secret; or on its way out */
        }
        sw_out_cstr(out, first ? "{" : ",{");
        first = false;
        sw_out_put(out, key->text, key->text_len);
        sw_out_lit(out, ",\"kid\":");
        sw_json_quote(out, sw_jwk_kid(key));
        sw_out_lit(out, ",\"alg\":\"");
        sw_out_cstr(out, key->legacy ? "EdDSA" : sw_jose_alg_name(key->alg));
        sw_out_lit(out, "\",\"use\":\"sig\"}");
    }
    sw_out_lit(out, "]}");
    return !out->overflowed;
}
