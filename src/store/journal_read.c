/* store/journal_read.c - reading: inline on the worker, never behind a sync.
 *
 * Room       store/. Any thread. A shard's lock is held for a look-up and a copy of at most
 *            JOURNAL_COPY_MAX bytes; a longer value is copied without it. What many records are
 *            asked for is looked up one by one, so that no lock is held while a visitor runs: it
 *            may ask this store itself.
 */
#include "store/journal_priv.h"

#define PAGE_KEYS 64u /* taken from an index at once */

/* ---- one record ------------------------------------------------------------------------------ */

/* Under the shard's lock: the live record, and how it is answered. NULL: there is none. */
static struct journal_record *find_live(struct journal_store *s, const struct sw_store_key *key,
                                        int64_t now_unix_s, struct sw_record *ret_view)
{
    struct journal_record *r =
        sw_journal__find(shard_of(&s->table, key), sw_journal__hash(&s->table, key), key);

    if (r == NULL || sw_store__expired(r->expires_unix_s, now_unix_s)) {
        return NULL;
    }
    *ret_view = sw_journal__record_view(r);
    if (sw_journal__cut(&s->table, ret_view)) {
        *ret_view = sw_store__tombstone_of(ret_view);
    }
    return r;
}

static void reference(struct journal_record *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
}

static bool copy_out(struct sw_store_load *op, struct sw_record view)
{
    view.subject = sw_arena_copy(op->arena, view.subject);
    view.extra = sw_arena_copy(op->arena, view.extra);
    if (op->value_bytes_max == 0 || view.value.len <= op->value_bytes_max) {
        view.value = sw_arena_copy(op->arena, view.value);
    } else {
        view.value.ptr = NULL;
    }
    if (op->arena->overflowed) {
        return false;
    }
    op->record = view;
    return true;
}

enum sw_step sw_journal__load(struct sw_store *store, struct sw_store_load *op)
{
    struct journal_store *s = sw_journal__of(store);
    struct journal_shard *sh = shard_of(&s->table, &op->key);
    struct journal_record *r;
    struct sw_record view;
    bool whole = true, large = false;

    pthread_mutex_lock(&sh->lock);
    sh->loads++;
    r = find_live(s, &op->key, op->now_unix_s, &view);
    if (r != NULL) {
        large = view.value.len > JOURNAL_COPY_MAX;
        if (large) {
            reference(r);
        } else {
            whole = copy_out(op, view);
        }
    }
    pthread_mutex_unlock(&sh->lock);
    if (large) {
        whole = copy_out(op, view);
        sw_journal__record_unref(r);
    }
    op->err = r == NULL ? SW_E_NOT_FOUND : whole ? SW_OK : SW_E_NO_MEMORY;
    return SW_STEP_DONE;
}

/* ---- many ------------------------------------------------------------------------------------ */

/* What a visitor wants to see of a key that an index named. */
struct wanted {
    int64_t now_unix_s;
    bool states_only;
    struct sw_slice subject; /* of the state; empty: anybody's */
};

/* True: it was visited. */
static bool visit(struct journal_store *s, const struct sw_store_key *key,
                  const struct wanted *want, sw_store_scan_fn *fn, void *arg)
{
    struct journal_shard *sh = shard_of(&s->table, key);
    struct journal_record *r;
    struct sw_record view;

    pthread_mutex_lock(&sh->lock);
    r = find_live(s, key, want->now_unix_s, &view);
    if (r != NULL && view.kind == SW_RECORD_TOMBSTONE && r->kind != SW_RECORD_TOMBSTONE) {
        r = NULL; /* it was cut off */
    }
    if (r != NULL && want->states_only &&
        (view.kind != SW_RECORD_STATE || !sw_slice_eq(view.subject, want->subject))) {
        r = NULL;
    }
    if (r != NULL) {
        reference(r);
    }
    pthread_mutex_unlock(&sh->lock);
    if (r != NULL) {
        fn(arg, key, &view);
        sw_journal__record_unref(r);
    }
    return r != NULL;
}

static int by_key(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct sw_store_key));
}

/* The keys of a shard behind `after`, in their order; the caller frees them. */
static enum sw_err shard_keys(struct journal_shard *sh, const struct sw_store_key *after,
                              struct sw_store_key **ret_keys, size_t *ret_count)
{
    struct sw_store_key *keys;
    size_t count = 0;

    pthread_mutex_lock(&sh->lock);
    keys = malloc((sh->used + 1) * sizeof(*keys));
    for (uint32_t i = 0; keys != NULL && i < sh->slot_count; i++) {
        const struct journal_record *r = sh->slots[i].r;

        if (r != NULL && (after == NULL || memcmp(&r->key, after, sizeof(*after)) > 0)) {
            keys[count++] = r->key;
        }
    }
    pthread_mutex_unlock(&sh->lock);
    if (keys == NULL) {
        return SW_E_NO_MEMORY;
    }
    qsort(keys, count, sizeof(*keys), by_key);
    *ret_keys = keys;
    *ret_count = count;
    return SW_OK;
}

enum sw_err sw_journal__scan(struct sw_store *store, const struct sw_store_key *after, size_t limit,
                             int64_t now_unix_s, sw_store_scan_fn *fn, void *arg)
{
    struct journal_store *s = sw_journal__of(store);
    struct wanted want = {.now_unix_s = now_unix_s};

    /* The shards are by the first byte of the key. */
    for (size_t i = after != NULL ? after->bytes[0] : 0; i < JOURNAL_SHARDS && limit > 0; i++) {
        struct sw_store_key *keys;
        size_t count;
        enum sw_err err = shard_keys(&s->table.shards[i], after, &keys, &count);

        if (err != SW_OK) {
            return err;
        }
        for (size_t k = 0; k < count && limit > 0; k++) {
            limit -= visit(s, &keys[k], &want, fn, arg);
        }
        free(keys);
    }
    return SW_OK;
}

enum sw_err sw_journal__scan_subject(struct sw_store *store, struct sw_slice subject,
                                     const struct sw_store_key *after, size_t limit,
                                     int64_t now_unix_s, sw_store_scan_fn *fn, void *arg)
{
    struct journal_store *s = sw_journal__of(store);
    struct journal_subjects *sub = sw_journal__subjects_of(&s->table, subject);
    struct wanted want = {now_unix_s, true, subject};
    struct journal_place place = {.subject = subject};
    bool behind = after != NULL;
    size_t count;

    if (after != NULL) {
        place.key = *after;
    }
    do {
        struct sw_store_key keys[PAGE_KEYS];
        const struct journal_node *n;

        count = 0;
        pthread_mutex_lock(&sub->lock);
        n = sw_journal__list_seek(&sub->states, &place);
        if (n != NULL && behind && sub->states.compare(&place, n->item) == 0) {
            n = n->next[0];
        }
        for (; n != NULL && count < PAGE_KEYS; n = n->next[0]) {
            const struct journal_record *r = n->item;

            if (!sw_slice_eq((struct sw_slice){r->bytes, r->subject_len}, subject)) {
                break;
            }
            keys[count++] = r->key;
        }
        pthread_mutex_unlock(&sub->lock);
        for (size_t i = 0; i < count && limit > 0; i++) {
            limit -= visit(s, &keys[i], &want, fn, arg);
            place.key = keys[i];
        }
        behind = true;
    } while (count == PAGE_KEYS && limit > 0);
    return SW_OK;
}

/* ---- what is due ----------------------------------------------------------------------------- */

/* Is this key's record still due then? */
static bool is_due(struct journal_store *s, const struct journal_place *at, int64_t now_unix_s)
{
    struct journal_shard *sh = shard_of(&s->table, &at->key);
    struct journal_record *r;
    struct sw_record view;

    pthread_mutex_lock(&sh->lock);
    r = find_live(s, &at->key, now_unix_s, &view);
    pthread_mutex_unlock(&sh->lock);
    return r != NULL && view.due_unix_ms == at->time; /* a tombstone is not due */
}

enum sw_err sw_journal__due(struct sw_store *store, int64_t now_unix_ms, size_t limit,
                            sw_store_due_fn *fn, void *arg)
{
    struct journal_store *s = sw_journal__of(store);
    struct journal_place last = {.time = 0};
    size_t dead_max = STORE_DUE_SKIP_MAX, count;

    do {
        struct journal_place page[PAGE_KEYS];
        const struct journal_node *n;

        count = 0;
        pthread_mutex_lock(&s->table.due.lock);
        n = sw_journal__list_seek(&s->table.due.list, &last);
        if (n != NULL && last.time != 0 && s->table.due.list.compare(&last, n->item) == 0) {
            n = n->next[0];
        }
        for (; n != NULL && count < PAGE_KEYS; n = n->next[0]) {
            const struct journal_record *r = n->item;

            if (r->due_unix_ms > now_unix_ms) {
                break;
            }
            page[count++] = (struct journal_place){.time = r->due_unix_ms, .key = r->key};
        }
        pthread_mutex_unlock(&s->table.due.lock);
        for (size_t i = 0; i < count && limit > 0 && dead_max > 0; i++) {
            if (is_due(s, &page[i], now_unix_ms / 1000)) {
                fn(arg, &page[i].key, page[i].time);
                limit--;
            } else { /* ended: that keeps nobody else waiting */
                dead_max--;
            }
            last = page[i];
        }
    } while (count == PAGE_KEYS && limit > 0 && dead_max > 0);
    return SW_OK;
}

int64_t sw_journal__cutoff(struct sw_store *store, struct sw_slice subject)
{
    struct journal_store *s = sw_journal__of(store);

    return sw_journal__cutoff_find(&s->table, subject).not_before_unix_ms;
}
