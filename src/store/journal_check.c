/* store/journal_check.c - sw_store_journal_check: is every frame what it should be, and what do
 * they say?
 *
 * Room       store/. For commands; on one moment of the log (journal_source.c).
 *
 * All frames that count are read, in their order, and of each key is kept what the last one said:
 * not its value, so this takes about 130 bytes of memory a record, whatever its length. Nothing of
 * the log is mapped or trusted: reading goes through the same functions as a start. Behind damage
 * it goes on with the next whole frame, so that the figures tell what could still be read.
 */
#include "store/journal_priv.h"

#include <stdarg.h>

#define SAID_MAX    100u
#define SLOT_FREE   UINT32_MAX
#define SLOTS_LEAST 1024u

/* What the log says of a key. */
struct seen {
    struct sw_store_key key;
    struct sw_version version;
    int64_t created_unix_s, touched_unix_s, expires_unix_s;
    uint32_t value_bytes, log_bytes, memory_bytes;
    uint8_t kind; /* 0: it was taken away */
    bool subject, due;
};

struct check {
    const struct journal_source *x;
    struct sw_store_checked *n;
    void (*complain)(void *arg, const char *text);
    void *arg;
    unsigned said;
    bool bad;
    bool no_memory;
    struct seen *list;
    uint32_t count, cap;
    uint32_t *slots; /* of the list; open addressing, at most half of them used */
    uint32_t slot_count;
    struct journal_table cutoffs; /* only these of it */
};

static void complain(struct check *c, const char *fmt, ...) SW_PRINTF(2, 3);
static void complain(struct check *c, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    c->bad = true;
    if (c->said++ >= SAID_MAX) {
        return;
    }
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    c->complain(c->arg, text);
}

/* ---- what is seen ---------------------------------------------------------------------------- */

static uint32_t slot_of(const struct check *c, const struct sw_store_key *key)
{
    uint32_t mask = c->slot_count - 1;
    uint32_t at = (uint32_t)sw_journal__hash(&c->cutoffs, key) & mask;

    while (c->slots[at] != SLOT_FREE &&
           memcmp(&c->list[c->slots[at]].key, key, sizeof(*key)) != 0) {
        at = (at + 1) & mask;
    }
    return at;
}

static bool slots_grow(struct check *c)
{
    uint32_t count = SW_MAX(2 * c->slot_count, SLOTS_LEAST);
    uint32_t *slots = malloc(count * sizeof(*slots));

    if (slots == NULL || count < c->slot_count) {
        free(slots);
        return false;
    }
    memset(slots, 0xff, count * sizeof(*slots));
    free(c->slots);
    c->slots = slots;
    c->slot_count = count;
    for (uint32_t i = 0; i < c->count; i++) {
        c->slots[slot_of(c, &c->list[i].key)] = i;
    }
    return true;
}

static bool list_grow(struct check *c)
{
    uint32_t cap = SW_MAX(c->cap + c->cap / 2, SLOTS_LEAST);
    struct seen *list = cap < c->cap ? NULL : realloc(c->list, cap * sizeof(*list));

    if (list == NULL) {
        return false;
    }
    c->list = list;
    c->cap = cap;
    return true;
}

/* NULL: it was never seen, and `make` is false; or no memory. */
static struct seen *seen_find(struct check *c, const struct sw_store_key *key, bool make)
{
    uint32_t at;

    if (c->count >= c->slot_count / 2 && !slots_grow(c)) {
        c->no_memory = true;
        return NULL;
    }
    at = slot_of(c, key);
    if (c->slots[at] != SLOT_FREE) {
        return &c->list[c->slots[at]];
    }
    if (!make) {
        return NULL;
    }
    if (c->count == c->cap && !list_grow(c)) {
        c->no_memory = true;
        return NULL;
    }
    c->slots[at] = c->count;
    c->list[c->count] = (struct seen){.key = *key};
    return &c->list[c->count++];
}

static void put_seen(struct check *c, const struct journal_entry *e)
{
    struct seen *s = seen_find(c, &e->key, true);
    const struct sw_record *r = &e->record;

    if (s == NULL) {
        return;
    }
    *s = (struct seen){
        .key = e->key,
        .version = r->version,
        .created_unix_s = r->created_unix_s,
        .touched_unix_s = r->touched_unix_s,
        .expires_unix_s = r->expires_unix_s,
        .value_bytes = (uint32_t)r->value.len,
        .log_bytes = (uint32_t)(JOURNAL_FRAME_HEAD + sw_journal__put_bytes(r)),
        .memory_bytes = (uint32_t)sw_journal__record_memory(r),
        .kind = (uint8_t)r->kind,
        .subject = sw_store__has_subject(r),
        .due = r->due_unix_ms != 0,
    };
}

static void cutoff_seen(struct check *c, const struct journal_entry *e)
{
    struct journal_node *fresh = sw_journal__cutoff_new(e->record.subject, &c->cutoffs.rng);

    if (fresh == NULL) {
        c->no_memory = true;
        return;
    }
    sw_journal__cutoff_set(&c->cutoffs, e->record.subject, &e->cutoff, 0, &fresh);
    sw_journal__cutoff_free(fresh); /* NULL, if it was needed */
}

static void entry_seen(struct check *c, const struct journal_entry *e)
{
    struct seen *s;

    switch (e->type) {
    case JOURNAL_PUT:
        put_seen(c, e);
        return;
    case JOURNAL_TOUCH:
        s = seen_find(c, &e->key, false);
        if (s != NULL && sw_version_eq(s->version, e->record.version)) {
            s->touched_unix_s = e->record.touched_unix_s;
            s->expires_unix_s = e->record.expires_unix_s;
        }
        return;
    case JOURNAL_DROP:
        s = seen_find(c, &e->key, false);
        if (s != NULL) {
            s->kind = 0;
        }
        return;
    case JOURNAL_CUTOFF:
        cutoff_seen(c, e);
        return;
    case JOURNAL_TRIM:
    case JOURNAL_END:
        return;
    }
}

/* ---- the frames ------------------------------------------------------------------------------ */

static size_t frame_seen(struct check *c, const struct journal_loaded *ld, size_t at)
{
    size_t in = at + JOURNAL_FRAME_HEAD;
    struct journal_frame f;

    sw_journal__frame_head_read(ld->bytes + at, &f);
    for (uint32_t i = 0; i < f.count && !c->no_memory; i++) {
        struct journal_entry e;

        if (!sw_journal__entry_read(ld->bytes + in, at + f.bytes - in, &e)) {
            SW_UNREACHABLE(); /* it was checked */
        }
        entry_seen(c, &e);
        in += e.bytes;
    }
    return at + f.bytes;
}

static void frames_seen(struct check *c, const struct journal_loaded *ld)
{
    for (size_t at = JOURNAL_HEADER_BYTES; at < ld->end && !c->no_memory;) {
        at = frame_seen(c, ld, at);
    }
}

/* What still can be read behind the place where it is damaged. */
static void damaged_seen(struct check *c, const struct journal_loaded *ld, uint64_t limit)
{
    uint64_t seq = ld->seq;
    char name[JOURNAL_NAME_BYTES];
    struct journal_frame f;
    size_t at = ld->end, next;

    sw_journal__segment_name(name, ld->seg->header.number);
    while (seq + 1 < limit && sw_journal__segment_resume(ld, at, seq, &next, &f) && f.seq < limit &&
           !c->no_memory) {
        if (f.seq != seq + 1 || next != at) {
            complain(c, "%s: frames %llu to %llu are damaged (bytes %zu to %zu)", name,
                     (unsigned long long)(seq + 1), (unsigned long long)(f.seq - 1), at, next);
            c->n->bad_records += f.seq - 1 - seq;
        }
        at = frame_seen(c, ld, next);
        seq = f.seq;
    }
    if (limit != UINT64_MAX && seq + 1 < limit) {
        complain(c, "%s: frames %llu to %llu are damaged (from byte %zu on)", name,
                 (unsigned long long)(seq + 1), (unsigned long long)(limit - 1), at);
        c->n->bad_records += limit - 1 - seq;
    }
}

static enum sw_err segment_seen(struct check *c, size_t i, struct journal_loaded *room)
{
    const struct journal_source *x = c->x;
    const struct journal_segment *seg = &x->segs[i];
    uint64_t limit = sw_journal__segments_limit(x->segs, x->count, i);
    const struct journal_loaded *ld = &x->last;
    char name[JOURNAL_NAME_BYTES];
    const char *why = "";
    enum sw_err err;

    sw_journal__segment_name(name, seg->header.number);
    if (seg->err != SW_OK) {
        complain(c, "%s: its head is damaged; none of its frames can be read", name);
        c->n->bad_records++;
        return SW_OK;
    }
    if (memcmp(seg->header.id, x->segs[x->count - 1].header.id, sizeof(seg->header.id)) != 0) {
        complain(c, "%s: this segment is of another store", name);
        return SW_OK;
    }
    if (limit <= seg->header.first_seq) {
        return SW_OK; /* all of it is void */
    }
    err = x->last_err;
    if (i + 1 < x->count || x->last.end == 0) {
        err = sw_journal__segment_load(x->path, x->fds[i], seg, limit, room, &why);
        ld = room;
    }
    if (err != SW_OK && err != SW_E_STORE_CORRUPT) {
        complain(c, "%s: reading stopped: %s", name, why);
        return err;
    }
    frames_seen(c, ld);
    if (err == SW_E_STORE_CORRUPT) {
        damaged_seen(c, ld, limit);
    }
    return SW_OK;
}

static enum sw_err segments_seen(struct check *c)
{
    const struct journal_source *x = c->x;
    struct journal_loaded room = {0};
    uint64_t expected = x->oldest;
    enum sw_err err = SW_OK;

    for (size_t i = 0; i < x->count && err == SW_OK; i++) {
        uint64_t number = x->segs[i].header.number;

        if (number < x->oldest) {
            continue; /* on its way out */
        }
        if (number != expected) {
            char first[JOURNAL_NAME_BYTES];

            sw_journal__segment_name(first, expected);
            complain(c, "%s: this segment is missing%s", first,
                     number - expected > 1 ? ", and others behind it" : "");
        }
        expected = number + 1;
        err = segment_seen(c, i, &room);
    }
    sw_journal__loaded_fini(&room);
    return err;
}

/* ---- figures --------------------------------------------------------------------------------- */

static void seen_count(struct sw_store_checked *n, const struct seen *s)
{
    n->records++;
    n->states += s->kind == SW_RECORD_STATE;
    n->tombstones += s->kind == SW_RECORD_TOMBSTONE;
    n->aliases += s->kind == SW_RECORD_ALIAS;
    n->claims += s->kind == SW_RECORD_CLAIM;
    n->subjects += s->subject;
    n->due += s->due;
    n->value_bytes += s->value_bytes;
    n->used_bytes += s->log_bytes;
    n->memory_bytes += s->memory_bytes;
    n->oldest_unix_s =
        n->oldest_unix_s == 0 ? s->created_unix_s : SW_MIN(n->oldest_unix_s, s->created_unix_s);
    n->newest_unix_s = SW_MAX(n->newest_unix_s, s->touched_unix_s);
}

static void count_all(struct check *c, int64_t now_unix_s)
{
    struct sw_store_checked *n = c->n;

    for (uint32_t i = 0; i < c->count; i++) {
        const struct seen *s = &c->list[i];

        if (s->kind != 0 && !sw_store__expired(s->expires_unix_s, now_unix_s)) {
            seen_count(n, s);
        }
    }
    for (size_t i = 0; i < JOURNAL_SUBJECT_SHARDS; i++) {
        const struct journal_node *at = sw_journal__list_first(&c->cutoffs.subjects[i].cutoffs);

        for (; at != NULL; at = at->next[0]) {
            const struct journal_cutoff *cut = at->item;

            n->cutoffs += !sw_store__expired(cut->c.expires_unix_s, now_unix_s);
        }
    }
    n->used_bytes += atomic_load(&c->cutoffs.live);
    n->memory_bytes += atomic_load(&c->cutoffs.used);
    n->free_bytes = n->file_bytes - SW_MIN(n->file_bytes, n->used_bytes);
}

static enum sw_err check_run(struct check *c, const char **ret_why)
{
    const struct journal_source *x = c->x;
    enum sw_err err = segments_seen(c);

    c->n->segments = (uint32_t)x->count;
    c->n->file_bytes = sw_journal__source_bytes(x);
    c->n->format = JOURNAL_FORMAT;
    c->n->made_unix_s = x->segs[0].header.made_unix_s;
    count_all(c, (int64_t)(sw_store__clock_ns(CLOCK_REALTIME) / SW_NS_PER_S));
    if (c->no_memory) {
        return sw_store__refuse(SW_E_NO_MEMORY, ret_why,
                                "store %s: no memory for the keys of its records", x->path);
    }
    if (err != SW_OK) {
        return sw_store__refuse(err, ret_why, "store %s: it cannot be read to its end", x->path);
    }
    if (x->damage != SW_OK) {
        return sw_store__refuse(x->damage, ret_why, "%s", x->damage_text);
    }
    if (c->bad) {
        return sw_store__refuse(SW_E_STORE_CORRUPT, ret_why,
                                "store %s: it is damaged; restore the folder from a backup, or "
                                "move it away to begin with an empty store",
                                x->path);
    }
    return SW_OK;
}

enum sw_err sw_store_journal_check(struct sw_slice path, bool quick,
                                   void (*complain_fn)(void *arg, const char *text), void *arg,
                                   struct sw_store_checked *ret_checked, const char **ret_why)
{
    struct check *c = aligned_alloc(64, (sizeof(*c) + 63) & ~(size_t)63);
    struct journal_source *x = calloc(1, sizeof(*x));
    enum sw_err err;

    SW_ASSERT(complain_fn != NULL);
    (void)quick; /* what is in it, only a reading of all of it can tell */
    *ret_checked = (struct sw_store_checked){0};
    if (c == NULL || x == NULL) {
        free(c);
        free(x);
        return sw_store__refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
    }
    memset(c, 0, sizeof(*c)); /* of the table in it each shard has a cache line */
    c->x = x;
    c->n = ret_checked;
    c->complain = complain_fn;
    c->arg = arg;
    sw_journal__table_init(&c->cutoffs, sw_store__clock_ns(CLOCK_MONOTONIC));
    err = sw_journal__source_open(x, path, ret_why);
    if (err == SW_OK) {
        err = check_run(c, ret_why);
    }
    sw_journal__source_close(x);
    sw_journal__table_fini(&c->cutoffs);
    free(c->list);
    free(c->slots);
    free(c);
    free(x);
    return err;
}
