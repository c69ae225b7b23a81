/* store/journal_stage.c - the commits of a batch, from their plan until the table shows them.
 *
 * Room       store/. The committer's.
 *
 * A commit is planned against the table and, before that, against what earlier commits of the batch
 * made (the overlay); it is refused, or it becomes one frame and its writes are staged: all memory
 * that showing them takes is there by then. The table shows all records of a commit at one moment:
 * their shards are locked together, so a reader that finds one of them finds all.
 */
#include "store/journal_priv.h"

/* ---- what the batch made so far -------------------------------------------------------------- */

/* The place of the key in the overlay: its own, or the free one where it would be. */
static size_t overlay_find(const struct journal_batch *b, uint64_t hash,
                           const struct sw_store_key *key)
{
    size_t at = hash % JOURNAL_OVERLAY_SLOTS;

    while (b->overlay[at].batch == b->number) {
        const struct journal_stage *st = &b->stages[b->overlay[at].stage];

        if (st->hash == hash && memcmp(&st->write->key, key, sizeof(*key)) == 0) {
            break;
        }
        at = (at + 1) % JOURNAL_OVERLAY_SLOTS;
    }
    return at;
}

/* The record that a write finds, expired or not. */
static bool record_see(struct journal_store *s, const struct sw_store_key *key, uint64_t hash,
                       struct sw_record *ret_record)
{
    const struct journal_batch *b = &s->batch;
    const struct journal_record *r;

    if (!b->alone) {
        size_t at = overlay_find(b, hash, key);

        if (b->overlay[at].batch == b->number) {
            *ret_record = b->stages[b->overlay[at].stage].seen;
            return true;
        }
    }
    r = sw_journal__find(shard_of(&s->table, key), hash, key);
    if (r != NULL) {
        *ret_record = sw_journal__record_view(r);
    }
    return r != NULL;
}

static struct store_cutoff cutoff_see(struct journal_store *s, struct sw_slice subject)
{
    const struct journal_batch *b = &s->batch;

    for (size_t i = b->stage_count; i-- > 0 && b->cutoff_count > 0;) {
        const struct journal_stage *st = &b->stages[i];

        if (st->act == STORE_CUTOFF && sw_slice_eq(st->write->subject, subject)) {
            return st->cutoff;
        }
    }
    return sw_journal__cutoff_find(&s->table, subject);
}

/* ---- one commit ------------------------------------------------------------------------------ */

/* What a write finds, and what becomes of it. */
struct writing {
    struct store_plan plan;
    uint64_t hash;
    bool there;
    struct sw_record found; /* its slices live until the batch is shown */
    bool cutoff_there;
};

static enum sw_err write_plan(struct journal_store *s, const struct sw_write *w,
                              struct store_now now, struct writing *x)
{
    bool live, cut;

    *x = (struct writing){0};
    if (w->kind == SW_WRITE_CUTOFF) {
        struct store_cutoff seen = {0};

        if (w->subject.len <= SW_SUBJECT_BYTES_MAX) { /* else the plan refuses it */
            seen = cutoff_see(s, w->subject);
        }
        x->cutoff_there = seen.not_before_unix_ms != 0;
        x->plan = sw_store__plan_cutoff(w, &seen, now.unix_s);
        return x->plan.err;
    }
    x->hash = sw_journal__hash(&s->table, &w->key);
    x->there = record_see(s, &w->key, x->hash, &x->found);
    live = x->there && !sw_store__expired(x->found.expires_unix_s, now.unix_s);
    cut = live && sw_store__has_subject(&x->found) &&
          sw_store__cut(&x->found, cutoff_see(s, x->found.subject).not_before_unix_ms);
    x->plan = sw_store__plan(w, live ? &x->found : NULL, cut, now, sw_rng_u64(&s->rng) | 1);
    return x->plan.err;
}

/* Memory that it takes more than what is there now. */
static int64_t write_more(const struct sw_write *w, const struct writing *x)
{
    int64_t more = 0;

    if (x->plan.act == STORE_PUT) {
        more = (int64_t)sw_journal__record_memory(&x->plan.record);
        more -= x->there ? (int64_t)sw_journal__record_memory(&x->found) : 0;
    } else if (x->plan.act == STORE_CUTOFF && !x->cutoff_there) {
        more =
            (int64_t)(sizeof(struct journal_cutoff) + sizeof(struct journal_node) + w->subject.len);
    }
    return more;
}

/* Is there memory for it? Deletes, touches and cut-offs may use the reserve. */
static bool memory_allows(struct journal_store *s, const struct sw_store_commit *op, int64_t more)
{
    uint64_t max = s->opt.memory_bytes_max;
    bool puts = false;

    if (more <= 0) {
        return true;
    }
    for (size_t i = 0; i < op->count; i++) {
        puts |= op->writes[i].kind == SW_WRITE_PUT;
    }
    if (!puts) {
        max += max / JOURNAL_RESERVE_SHARE;
    }
    return (int64_t)atomic_load_explicit(&s->table.used, memory_order_relaxed) + s->batch.more +
               more <=
           (int64_t)max;
}

static bool room_allows(struct journal_store *s, const struct sw_store_commit *op, size_t bytes)
{
    uint64_t room = log_room(&s->log);
    bool puts = false;

    if (s->batch.tight == 0) {
        return true;
    }
    for (size_t i = 0; i < op->count; i++) {
        puts |= op->writes[i].kind == SW_WRITE_PUT;
    }
    if (puts) {
        room -= SW_MIN(room, log_segment(&s->log)->header.file_bytes / JOURNAL_SEGMENT_RESERVE);
    }
    return bytes <= room;
}

void sw_journal__stages_drop(struct journal_store *s, size_t from)
{
    struct journal_batch *b = &s->batch;

    for (size_t i = from; i < b->stage_count; i++) {
        struct journal_stage *st = &b->stages[i];

        if (st->record != NULL) {
            sw_journal__record_unref(sw_take(&st->record));
        }
        sw_journal__cutoff_free(sw_take(&st->cutoff_at));
        if (st->act == STORE_PUT) {
            shard_of(&s->table, &st->write->key)->staged--;
        }
        b->cutoff_count -= st->act == STORE_CUTOFF;
    }
    b->stage_count = from;
}

/* What showing it will need is made here, where failing still refuses the commit. */
static bool stage_make(struct journal_store *s, const struct sw_write *w, const struct writing *x,
                       struct journal_piece *piece)
{
    struct journal_batch *b = &s->batch;
    struct journal_stage *st = &b->stages[b->stage_count++];

    *st = (struct journal_stage){
        .write = w, .act = x->plan.act, .hash = x->hash, .cutoff = x->plan.cutoff};
    switch (x->plan.act) {
    case STORE_KEEP:
        SW_UNREACHABLE();
    case STORE_PUT: {
        struct journal_shard *sh = shard_of(&s->table, &w->key);

        sh->staged++;
        st->record = sw_journal__record_new(&w->key, &x->plan.record, &s->table.rng);
        if (st->record == NULL || !sw_journal__shard_reserve(sh, sh->staged)) {
            return false;
        }
        st->seen = sw_journal__record_view(st->record);
        sw_journal__piece_put(piece, st->record);
        return true;
    }
    case STORE_RETIME:
        st->seen = x->plan.record;
        sw_journal__piece_touch(piece, &w->key, &x->plan.record);
        return true;
    case STORE_CUTOFF:
        b->cutoff_count++;
        if (!x->cutoff_there) {
            st->cutoff_at = sw_journal__cutoff_new(w->subject, &s->table.rng);
        }
        sw_journal__piece_cutoff(piece, w->subject, &x->plan.cutoff);
        return x->cutoff_there || st->cutoff_at != NULL;
    }
    SW_UNREACHABLE();
}

static void overlay_add(struct journal_batch *b, size_t from)
{
    for (size_t i = from; i < b->stage_count && !b->alone; i++) {
        const struct journal_stage *st = &b->stages[i];

        if (st->act != STORE_CUTOFF) {
            size_t at = overlay_find(b, st->hash, &st->write->key);

            b->overlay[at].batch = b->number;
            b->overlay[at].stage = (uint16_t)i;
        }
    }
}

int sw_journal__commit_make(struct journal_store *s, struct sw_store_commit *op)
{
    struct store_now now = {op->now_unix_s,
                            (int64_t)(sw_store__clock_ns(CLOCK_REALTIME) / SW_NS_PER_MS)};
    struct journal_piece pieces[SW_COMMIT_WRITES_MAX];
    struct writing writing[SW_COMMIT_WRITES_MAX];
    struct journal_batch *b = &s->batch;
    size_t from = b->stage_count, count = 0;
    int64_t more = 0;
    uint32_t segment;
    int error;

    op->err = SW_OK;
    for (size_t i = 0; i < op->count; i++) {
        op->err = write_plan(s, &op->writes[i], now, &writing[i]);
        if (op->err != SW_OK) {
            op->failed = i;
            return 0;
        }
        more += write_more(&op->writes[i], &writing[i]);
        op->writes[i].ret_version = writing[i].plan.record.version;
    }
    if (!memory_allows(s, op, more)) {
        s->sweep.urgent = s->opt.expire;
        op->err = SW_E_STORE_FULL;
        return 0;
    }
    for (size_t i = 0; i < op->count; i++) {
        if (writing[i].plan.act != STORE_KEEP &&
            !stage_make(s, &op->writes[i], &writing[i], &pieces[count++])) {
            op->err = SW_E_NO_MEMORY;
        }
    }
    if (op->err == SW_OK && count > 0 &&
        !room_allows(s, op, sw_journal__frame_bytes(pieces, count))) {
        op->err = SW_E_STORE_FULL;
    }
    if (op->err != SW_OK) {
        sw_journal__stages_drop(s, from);
        return 0;
    }
    if (count == 0) {
        return 0;
    }
    error = sw_journal__log_append(&s->log, pieces, count, &segment);
    if (error != 0) {
        return error;
    }
    for (size_t i = from; i < b->stage_count; i++) {
        b->stages[i].segment = segment;
    }
    b->stages[b->stage_count - 1].last = true;
    b->more += more;
    b->written += sw_journal__frame_bytes(pieces, count);
    overlay_add(b, from);
    return 0;
}

/* ---- the table shows it ---------------------------------------------------------------------- */

/* The shards of a commit's records, each once, in the order of locks. */
static size_t shards_of(struct journal_table *t, const struct journal_stage *st, size_t count,
                        struct journal_shard *ret_shards[SW_COMMIT_WRITES_MAX])
{
    size_t found = 0;

    for (size_t i = 0; i < count; i++) {
        struct journal_shard *sh = shard_of(t, &st[i].write->key);
        size_t at = 0;

        if (st[i].act == STORE_CUTOFF) {
            continue;
        }
        while (at < found && ret_shards[at] < sh) {
            at++;
        }
        if (at < found && ret_shards[at] == sh) {
            continue;
        }
        memmove(ret_shards + at + 1, ret_shards + at, (found - at) * sizeof(*ret_shards));
        ret_shards[at] = sh;
        found++;
    }
    return found;
}

/* A reader that finds one of its records finds all. */
static void commit_show(struct journal_store *s, struct journal_stage *st, size_t count)
{
    struct journal_shard *shards[SW_COMMIT_WRITES_MAX];
    struct journal_record *old[SW_COMMIT_WRITES_MAX] = {NULL};
    struct journal_table *t = &s->table;
    size_t locked = shards_of(t, st, count, shards);

    for (size_t i = 0; i < locked; i++) {
        pthread_mutex_lock(&shards[i]->lock);
    }
    for (size_t i = 0; i < count; i++) {
        const struct sw_write *w = st[i].write;

        if (st[i].act == STORE_PUT) {
            shard_of(t, &w->key)->staged--;
            st[i].record->segment = st[i].segment;
            old[i] =
                sw_journal__replace(t, shard_of(t, &w->key), st[i].hash, sw_take(&st[i].record));
        } else if (st[i].act == STORE_RETIME) {
            struct journal_record *r = sw_journal__find(shard_of(t, &w->key), st[i].hash, &w->key);

            SW_ASSERT(r != NULL);
            r->touched_unix_s = st[i].seen.touched_unix_s;
            r->expires_unix_s = st[i].seen.expires_unix_s;
        } else {
            sw_journal__cutoff_set(t, w->subject, &st[i].cutoff, st[i].segment, &st[i].cutoff_at);
        }
    }
    for (size_t i = 0; i < locked; i++) {
        pthread_mutex_unlock(&shards[i]->lock);
    }
    for (size_t i = 0; i < count; i++) {
        if (old[i] != NULL) {
            sw_journal__record_unref(old[i]);
        }
    }
}

void sw_journal__batch_show(struct journal_store *s)
{
    struct journal_batch *b = &s->batch;
    size_t from = 0;

    for (size_t i = 0; i < b->stage_count; i++) {
        if (b->stages[i].last) {
            commit_show(s, &b->stages[from], i + 1 - from);
            from = i + 1;
        }
    }
    SW_ASSERT(from == b->stage_count);
    sw_journal__due_publish(s);
}
