/* store/journal_table.c - records in memory.
 *
 * Room       store/. The committer changes it; any thread reads under the locks that journal_priv.h
 *            tells of.
 *
 * 256 tables of open addressing, by the first byte of the key (so a scan in the order of keys takes
 * one after the other), each with a seeded hash: keys are hashes themselves, but who names an
 * entity can look for names whose hashes begin alike. A slot that is freed is closed by moving back
 * what follows.
 */
#include "store/journal_priv.h"

#define SLOTS_MIN  16u
#define SLOT_SHARE 32u /* bytes of slots a record, about: they are 3/8 to 3/4 full */
/* Who finds a record reads its head and then its value. In a large table each line is a way to the
 * memory; asked for together they are one. */
#define FOUND_LINES 11u /* the head, and a value of half a KiB */

/* ---- records --------------------------------------------------------------------------------- */

struct sw_record sw_journal__record_view(const struct journal_record *r)
{
    const char *extra = r->bytes + r->subject_len;

    return (struct sw_record){
        .kind = (enum sw_record_kind)r->kind,
        .version = r->version,
        .created_unix_s = r->created_unix_s,
        .touched_unix_s = r->touched_unix_s,
        .expires_unix_s = r->expires_unix_s,
        .absolute_unix_s = r->absolute_unix_s,
        .bound_unix_ms = r->bound_unix_ms,
        .due_unix_ms = r->due_unix_ms,
        .sealed = r->sealed,
        .subject = {r->bytes, r->subject_len},
        .extra = {extra, r->extra_len},
        .value = {extra + r->extra_len, r->value_len},
    };
}

size_t sw_journal__record_memory(const struct sw_record *r)
{
    size_t bytes = sizeof(struct journal_record) + JOURNAL_ALLOCATION_BYTES + SLOT_SHARE +
                   r->subject.len + r->extra.len + r->value.len;

    return bytes + (sw_store__has_subject(r) ? JOURNAL_ENTRY_BYTES : 0) +
           (r->due_unix_ms != 0 ? JOURNAL_ENTRY_BYTES : 0);
}

static void record_free(struct journal_record *r)
{
    free(r->by_subject);
    free(r->by_due);
    free(r);
}

struct journal_record *sw_journal__record_new(const struct sw_store_key *key,
                                              const struct sw_record *from, struct sw_rng *rng)
{
    size_t bytes = from->subject.len + from->extra.len + from->value.len;
    struct journal_record *r = malloc(sizeof(*r) + bytes);
    struct sw_out out;

    if (r == NULL) {
        return NULL;
    }
    *r = (struct journal_record){
        .refs = 1,
        .key = *key,
        .version = from->version,
        .created_unix_s = from->created_unix_s,
        .touched_unix_s = from->touched_unix_s,
        .expires_unix_s = from->expires_unix_s,
        .absolute_unix_s = from->absolute_unix_s,
        .bound_unix_ms = from->bound_unix_ms,
        .due_unix_ms = from->due_unix_ms,
        .value_len = (uint32_t)from->value.len,
        .extra_len = (uint16_t)from->extra.len,
        .subject_len = (uint8_t)from->subject.len,
        .kind = (uint8_t)from->kind,
        .sealed = from->sealed,
    };
    out = sw_out_init(r->bytes, bytes);
    sw_out_slice(&out, from->subject);
    sw_out_slice(&out, from->extra);
    sw_out_slice(&out, from->value);
    SW_ASSERT(!out.overflowed);
    if (sw_store__has_subject(from)) {
        r->by_subject = sw_journal__node_new(rng);
    }
    if (from->due_unix_ms != 0) {
        r->by_due = sw_journal__node_new(rng);
    }
    if ((sw_store__has_subject(from) && r->by_subject == NULL) ||
        (from->due_unix_ms != 0 && r->by_due == NULL)) {
        record_free(r);
        return NULL;
    }
    return r;
}

void sw_journal__record_unref(struct journal_record *r)
{
    uint32_t before = atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel);

    SW_ASSERT(before > 0);
    if (before == 1) {
        record_free(r);
    }
}

/* ---- the shards ------------------------------------------------------------------------------ */

uint64_t sw_journal__hash(const struct journal_table *t, const struct sw_store_key *key)
{
    return sw_slice_hash(sw_slice_of(key->bytes, sizeof(key->bytes)), t->seed);
}

/* The key's slot, or the free one where it would be. There is a free one. */
static uint32_t slot_find(const struct journal_shard *sh, uint64_t hash,
                          const struct sw_store_key *key)
{
    uint32_t mask = sh->slot_count - 1, at = (uint32_t)hash & mask;

    for (; sh->slots[at].r != NULL; at = (at + 1) & mask) {
        if (sh->slots[at].hash == hash) {
            sw_journal__prefetch(sh->slots[at].r, FOUND_LINES);
            if (memcmp(&sh->slots[at].r->key, key, sizeof(*key)) == 0) {
                break;
            }
        }
    }
    return at;
}

struct journal_record *sw_journal__find(const struct journal_shard *sh, uint64_t hash,
                                        const struct sw_store_key *key)
{
    return sh->slot_count == 0 ? NULL : sh->slots[slot_find(sh, hash, key)].r;
}

void sw_journal__prefetch(const struct journal_record *r, size_t lines)
{
    for (size_t i = 0; i < lines; i++) { /* one that lies behind its end does no harm */
        __builtin_prefetch((const char *)r + 64 * i);
    }
}

bool sw_journal__shard_reserve(struct journal_shard *sh, uint32_t more)
{
    uint32_t count = SW_MAX(sh->slot_count, SLOTS_MIN);
    uint64_t want = (uint64_t)sh->used + more;
    struct journal_slot *slots, *old = sh->slots;

    while (want > (uint64_t)count / 4 * 3) {
        SW_ASSERT(count < SW_BIT(31));
        count *= 2;
    }
    if (count == sh->slot_count) {
        return true;
    }
    slots = calloc(count, sizeof(*slots));
    if (slots == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < sh->slot_count; i++) { /* readers go on in the old ones */
        if (old[i].r != NULL) {
            uint32_t at = (uint32_t)old[i].hash & (count - 1);

            while (slots[at].r != NULL) {
                at = (at + 1) & (count - 1);
            }
            slots[at] = old[i];
        }
    }
    pthread_mutex_lock(&sh->lock);
    sh->slots = slots;
    sh->slot_count = count;
    pthread_mutex_unlock(&sh->lock);
    sh->moves++;
    free(old);
    return true;
}

/* Closes the gap: what follows and may stand further ahead is moved back. */
static void slot_clear(struct journal_shard *sh, uint32_t at)
{
    uint32_t mask = sh->slot_count - 1, next = at;

    for (;;) {
        uint32_t home;

        sh->slots[at].r = NULL;
        do {
            next = (next + 1) & mask;
            if (sh->slots[next].r == NULL) {
                sh->used--;
                return;
            }
            home = (uint32_t)sh->slots[next].hash & mask;
        } while (((next - home) & mask) < ((next - at) & mask));
        sh->slots[at] = sh->slots[next];
        at = next;
    }
}

/* ---- changes --------------------------------------------------------------------------------- */

static void count_record(struct journal_table *t, const struct journal_record *r, bool in)
{
    struct sw_record view = sw_journal__record_view(r);
    uint64_t memory = sw_journal__record_memory(&view),
             live = JOURNAL_FRAME_HEAD + sw_journal__put_bytes(&view);

    if (in) {
        sw_store__add(&t->used, memory);
        sw_store__add(&t->live, live);
        sw_store__add(&t->records, 1);
    } else {
        sw_store__add(&t->used, 0 - memory);
        sw_store__add(&t->live, 0 - live);
        sw_store__add(&t->records, UINT64_MAX);
    }
}

struct journal_record *sw_journal__replace_bare(struct journal_shard *sh, uint64_t hash,
                                                struct journal_record *r)
{
    uint32_t at = slot_find(sh, hash, &r->key);
    struct journal_record *old = sh->slots[at].r;

    SW_ASSERT(old != NULL || sh->used < sh->slot_count / 4 * 3);
    sh->used += old == NULL;
    sh->slots[at] = (struct journal_slot){hash, r};
    return old;
}

struct journal_record *sw_journal__replace(struct journal_table *t, struct journal_shard *sh,
                                           uint64_t hash, struct journal_record *r)
{
    struct journal_record *old = sw_journal__replace_bare(sh, hash, r);

    sw_journal__indexes_follow(t, old, r);
    count_record(t, r, true);
    if (old != NULL) {
        count_record(t, old, false);
    }
    return old;
}

void sw_journal__adopt(struct journal_table *t, struct journal_record *r)
{
    sw_journal__indexes_follow(t, NULL, r);
    count_record(t, r, true);
}

void sw_journal__remove_bare(struct journal_shard *sh, uint64_t hash,
                             const struct sw_store_key *key)
{
    struct journal_record *r = sw_journal__find(sh, hash, key);

    if (r != NULL) {
        slot_clear(sh, slot_find(sh, hash, key));
        sw_journal__record_unref(r);
    }
}

void sw_journal__remove(struct journal_table *t, struct journal_shard *sh, uint32_t slot)
{
    struct journal_record *r = sh->slots[slot].r;

    SW_ASSERT(r != NULL);
    pthread_mutex_lock(&sh->lock);
    slot_clear(sh, slot);
    sw_journal__indexes_follow(t, r, NULL);
    pthread_mutex_unlock(&sh->lock);
    count_record(t, r, false);
    sw_journal__record_unref(r);
}

void sw_journal__remove_key(struct journal_table *t, const struct sw_store_key *key)
{
    struct journal_shard *sh = shard_of(t, key);
    uint32_t slot = slot_find(sh, sw_journal__hash(t, key), key);

    sw_journal__remove(t, sh, slot);
    sh->moves++;
}

/* ---- life ------------------------------------------------------------------------------------ */

void sw_journal__table_init(struct journal_table *t, uint64_t seed)
{
    t->seed = seed;
    sw_rng_seed(&t->rng, seed ^ UINT64_MAX);
    for (size_t i = 0; i < JOURNAL_SHARDS; i++) {
        pthread_mutex_init(&t->shards[i].lock, NULL);
    }
    sw_journal__indexes_init(t);
}

void sw_journal__table_fini(struct journal_table *t)
{
    for (size_t i = 0; i < JOURNAL_SHARDS; i++) {
        struct journal_shard *sh = &t->shards[i];

        for (uint32_t slot = 0; slot < sh->slot_count; slot++) {
            if (sh->slots[slot].r != NULL) {
                SW_ASSERT(atomic_load(&sh->slots[slot].r->refs) == 1); /* nobody reads any more */
                record_free(sh->slots[slot].r);                        /* its entries too */
            }
        }
        free(sh->slots);
        pthread_mutex_destroy(&sh->lock);
    }
    sw_journal__indexes_fini(t);
}
