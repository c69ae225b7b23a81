/* store/journal_sweep.c - what the committer does beside commits: collecting and compacting.
 *
 * Room       store/. The committer's thread, a bounded piece at a time.
 *
 * Compaction. The log may be as long as twice what is live, and a few segments. When it is longer,
 * a round begins: the oldest quarter of the log is to go. A cursor walks over the whole table; each
 * record that lies in these segments is appended once more, as it is now; what is not in the table
 * is not appended, and is thereby forgotten. Behind the last one goes a TRIM; when that is durable,
 * the segments are removed.
 *
 * Why nothing is lost, and nothing rises again, wherever it stops:
 *  - The committer appends both commits and copies, so what a copy holds is newer than all that
 *    stands before it, and what comes behind it is newer still: to read the log in its order gives
 *    each record's last state. Until the TRIM is durable all old segments are there, and copies are
 *    only repetitions.
 *  - Segments go oldest first. A record that left the table without a word in the log (it expired)
 *    may stand in several segments; the newest of these, whose expiry says that it is over, goes
 *    last. So an older state of the key never stands there alone.
 *  - What was cut off leaves the table long before it expires, so that is written (DROP): a copy of
 *    it may be younger than the cut-off, which is forgotten at its own end. A TRIM that lets the
 *    cut-off go stands behind the DROP.
 */
#include "store/journal_priv.h"

#include <errno.h>

#define LIVE_FACTOR   2u /* the log: so many times what is live, */
#define SEGMENTS_FREE 4u /* ... and so many segments */
#define SEGMENT_COUNT_MAX                                                                          \
    64u                     /* and not many more files than the bytes need (restarts make files) */
#define ROUND_SHARE     4u  /* of the log goes in one round */
#define TIGHT_SHARE     8u  /* on a full disk already so little is worth a round */
#define SLOTS_MIN       64u /* looked at in one step */
#define SLOTS_IDLE      4096u        /* ... when nobody waits, and when collecting */
#define SLOTS_URGENT    65536u       /* ... when there is no room */
#define SLOTS_AHEAD     16u          /* whose records are on their way from memory meanwhile */
#define COPY_BYTES      (256u << 10) /* copied in one step, and as much as commits wrote */
#define COPY_BYTES_IDLE (1u << 20)
#define HURRY_FACTOR    4u   /* so many times faster when the log is half as long again */
#define DUE_LOOKED_MAX  256u /* entries of what is due */
#define CUTOFFS_LOOKED  256u /* cut-offs */
#define DROPS_MAX       256u /* states that were cut off */

/* ---- collecting from the table --------------------------------------------------------------- */

static int64_t wall_s(void)
{
    return (int64_t)(sw_store__clock_ns(CLOCK_REALTIME) / SW_NS_PER_S);
}

static bool is_over(const struct journal_store *s, const struct journal_record *r, int64_t now)
{
    return s->opt.expire && sw_store__expired(r->expires_unix_s, now);
}

/* The log failed: nothing was moved. */
static void moved_forget(struct journal_store *s)
{
    sw_journal__log_fail(&s->log);
    s->sweep.moved_count = 0;
    s->sweep.moved_bytes = 0;
    s->sweep.goal = 0; /* a later round begins anew */
}

/* Writes what was moved; only then it is taken to be there. False: the log failed. */
static bool moved_flush(struct journal_store *s)
{
    struct journal_sweep *sw = &s->sweep;

    if (s->log.health != JOURNAL_WELL) {
        return false;
    }
    if (s->log.seq_last == s->log.seq_good) {
        return true;
    }
    if (sw_journal__log_flush(&s->log) != 0) {
        moved_forget(s);
        return false;
    }
    log_keep(&s->log);
    for (size_t i = 0; i < sw->moved_count; i++) {
        if (sw->moved[i].record != NULL) {
            sw->moved[i].record->segment = sw->moved[i].segment;
        } else {
            sw->moved[i].cutoff->segment = sw->moved[i].segment;
        }
    }
    sw->moved_count = 0;
    sw->moved_bytes = 0;
    return true;
}

/* Appends one frame, if there is room for it. False: not now. */
static bool frame_move(struct journal_store *s, const struct journal_piece *piece,
                       uint32_t *ret_segment)
{
    struct journal_sweep *sw = &s->sweep;
    size_t bytes = sw_journal__frame_bytes(piece, 1);

    if (sw->moved_count == JOURNAL_MOVED_MAX) {
        return false;
    }
    if (sw_journal__log_prepare(&s->log, bytes, false) != 0) {
        sw->lacks_bytes = bytes;
        return false;
    }
    if (sw_journal__log_append(&s->log, piece, 1, ret_segment) != 0) {
        moved_forget(s);
        return false;
    }
    sw->moved_bytes += bytes;
    return true;
}

static bool record_move(struct journal_store *s, struct journal_record *r)
{
    struct journal_sweep *sw = &s->sweep;
    struct journal_piece piece;
    uint32_t segment;

    sw_journal__piece_put(&piece, r);
    if (!frame_move(s, &piece, &segment)) {
        return false;
    }
    sw->moved[sw->moved_count].record = r;
    sw->moved[sw->moved_count].cutoff = NULL;
    sw->moved[sw->moved_count++].segment = segment;
    return true;
}

static void cursor_set(struct journal_store *s, uint32_t shard)
{
    s->sweep.shard = shard;
    s->sweep.slot = 0;
    s->sweep.moves = s->table.shards[shard % JOURNAL_SHARDS].moves;
}

/* Walks on over the table. False: something cannot be copied now. True: `slots` were looked at, or
 * the table's end was reached (then sweep.shard says so), or enough was copied. */
static bool table_walk(struct journal_store *s, uint64_t slots, uint64_t copy_bytes)
{
    struct journal_sweep *sw = &s->sweep;
    int64_t now = wall_s();

    while (slots > 0 && sw->shard < JOURNAL_SHARDS && sw->moved_bytes < copy_bytes) {
        struct journal_shard *sh = &s->table.shards[sw->shard];
        struct journal_record *r;

        if (sw->moves != sh->moves) {
            cursor_set(s, sw->shard); /* records have other places: this shard once more */
        }
        if (sw->slot >= sh->slot_count) {
            cursor_set(s, sw->shard + 1);
            slots--;
            continue;
        }
        r = sh->slots[sw->slot].r;
        slots--;
        if (sw->slot + SLOTS_AHEAD < sh->slot_count) {
            sw_journal__prefetch(sh->slots[sw->slot + SLOTS_AHEAD].r, 2);
        }
        if (r != NULL && is_over(s, r, now)) {
            /* not while it waits to be written: a record in `moved` is not over */
            sw_journal__remove(&s->table, sh, sw->slot); /* another may be here now */
            sw_store__add(&s->base.expired, 1);
            continue;
        }
        if (r != NULL && r->segment < sw->goal && !record_move(s, r)) {
            return false;
        }
        sw->slot++;
    }
    return true;
}

/* ---- compaction ------------------------------------------------------------------------------ */

/* The next cut-off behind the cursor; NULL: no more in any shard. */
static struct journal_cutoff *cutoff_next(struct journal_table *t, struct journal_cursor *c)
{
    for (; c->shard < JOURNAL_SUBJECT_SHARDS; c->shard++, c->after_len = 0) {
        const struct journal_list *l = &t->subjects[c->shard].cutoffs;
        struct journal_place place = {.subject = {c->after, c->after_len}};
        struct journal_node *n = sw_journal__list_seek(l, &place);

        if (n != NULL && c->after_len > 0 && l->compare(&place, n->item) == 0) {
            n = n->next[0];
        }
        if (n != NULL) {
            return n->item;
        }
    }
    return NULL;
}

static void cursor_pass(struct journal_cursor *c, const struct journal_cutoff *cutoff)
{
    c->after_len = cutoff->subject_len;
    memcpy(c->after, cutoff->subject, cutoff->subject_len);
}

/* As table_walk. *ret_end: all were looked at. */
static bool cutoffs_walk(struct journal_store *s, uint64_t count, bool *ret_end)
{
    struct journal_sweep *sw = &s->sweep;

    *ret_end = false;
    for (; count > 0; count--) {
        struct journal_cutoff *c = cutoff_next(&s->table, &sw->cutoff);

        if (c == NULL) {
            *ret_end = true;
            return true;
        }
        if (c->segment < sw->goal) {
            struct journal_piece piece;
            uint32_t segment;

            sw_journal__piece_cutoff(&piece, (struct sw_slice){c->subject, c->subject_len}, &c->c);
            if (!frame_move(s, &piece, &segment)) {
                return false;
            }
            sw->moved[sw->moved_count].record = NULL;
            sw->moved[sw->moved_count].cutoff = c;
            sw->moved[sw->moved_count++].segment = segment;
        }
        cursor_pass(&sw->cutoff, c);
    }
    return true;
}

static uint64_t log_wanted(const struct journal_store *s)
{
    uint64_t live = atomic_load_explicit(&s->table.live, memory_order_relaxed);

    if (s->batch.tight != 0) {
        return live + live / TIGHT_SHARE + s->log.next_bytes;
    }
    return LIVE_FACTOR * live + SEGMENTS_FREE * s->log.next_bytes;
}

static void round_begin(struct journal_store *s)
{
    const struct journal_log *l = &s->log;
    uint64_t bytes = log_bytes(l), sum = 0;
    size_t count_max = SEGMENT_COUNT_MAX + (size_t)(2 * bytes / JOURNAL_SEGMENT_BYTES_MAX);
    size_t count = 0;

    if (l->segment_count > count_max) {
        count = l->segment_count / 2;
    } else if (bytes > log_wanted(s)) {
        while (count + 1 < l->segment_count && (count == 0 || sum < bytes / ROUND_SHARE)) {
            sum += l->segments[count++].used;
        }
    }
    if (count == 0 || l->segment_count < 2) {
        return;
    }
    s->sweep.goal = l->segments[count].header.number;
    s->sweep.cutoffs = false;
    cursor_set(s, 0);
}

/* All was copied: says so. */
static void round_end(struct journal_store *s)
{
    struct journal_sweep *sw = &s->sweep;
    struct journal_piece piece;
    uint32_t segment;

    sw_journal__piece_trim(&piece, sw->goal);
    if (!frame_move(s, &piece, &segment) || !moved_flush(s)) {
        return; /* the next step tries again, or a new round */
    }
    s->log.trim = sw->goal;
    s->log.trim_seq = s->log.seq_last;
    sw->goal = 0;
    cursor_set(s, 0);
}

static void round_step(struct journal_store *s, uint64_t slots, uint64_t copy_bytes)
{
    struct journal_sweep *sw = &s->sweep;
    bool end = false;

    if (!sw->cutoffs) {
        if (table_walk(s, slots, copy_bytes) && sw->shard == JOURNAL_SHARDS) {
            sw->cutoffs = true;
            sw->cutoff = (struct journal_cursor){0};
        }
    } else {
        (void)cutoffs_walk(s, slots, &end);
    }
    if (moved_flush(s) && end) {
        round_end(s);
    }
}

bool sw_journal__compact(struct journal_store *s, uint64_t written, bool idle)
{
    uint64_t live = atomic_load_explicit(&s->table.live, memory_order_relaxed) + 1;
    uint64_t slots = 2 * atomic_load_explicit(&s->table.records, memory_order_relaxed) + SLOTS_IDLE;
    uint64_t factor;

    if (s->log.health != JOURNAL_WELL) {
        return false;
    }
    if (s->sweep.goal == 0 && s->log.trim == 0) {
        round_begin(s);
    }
    if (s->sweep.goal == 0) {
        return false;
    }
    factor = log_bytes(&s->log) > log_wanted(s) / 2 * 3 ? HURRY_FACTOR : 1;
    if (idle) {
        round_step(s, SLOTS_IDLE * factor, COPY_BYTES_IDLE * factor);
    } else { /* once over the table while the log grows by a quarter of what is live */
        round_step(s,
                   (SLOTS_MIN + (uint64_t)((double)slots * 4.0 * (double)written / (double)live)) *
                       factor,
                   (COPY_BYTES + LIVE_FACTOR * written) * factor);
    }
    return s->sweep.goal != 0;
}

int sw_journal__compact_all(struct journal_store *s)
{
    int error = 0;

    s->sweep.goal = log_number(&s->log); /* begun by this start: nothing stands in it yet */
    s->sweep.cutoffs = false;
    cursor_set(s, 0);
    while (s->sweep.goal != 0 && error == 0) {
        s->sweep.lacks_bytes = 0;
        round_step(s, SLOTS_URGENT, COPY_BYTES_IDLE);
        if (s->log.health != JOURNAL_WELL) {
            return EIO;
        }
        if (s->sweep.lacks_bytes > 0) { /* until the keeper has made it, or cannot */
            error = sw_journal__log_prepare(&s->log, s->sweep.lacks_bytes, true);
        }
    }
    if (error == 0) {
        error = sw_journal__log_sync(&s->log);
    }
    if (error == 0) {
        sw_journal__log_trim(&s->log);
    }
    return error;
}

/* ---- what is due, and cut-offs --------------------------------------------------------------- */

/* Ended states must not stand in front of those that are due. */
static void due_clear(struct journal_store *s, int64_t now_ms)
{
    struct journal_record *dead[DUE_LOOKED_MAX];
    size_t looked = 0, count = 0;

    for (const struct journal_node *n = sw_journal__list_first(&s->table.due.list);
         n != NULL && looked < DUE_LOOKED_MAX; n = n->next[0], looked++) {
        struct journal_record *r = n->item;
        struct sw_record view = sw_journal__record_view(r);

        if (r->due_unix_ms > now_ms) {
            break;
        }
        if (is_over(s, r, now_ms / 1000) || sw_journal__cut(&s->table, &view)) {
            dead[count++] = r;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (is_over(s, dead[i], now_ms / 1000)) {
            struct sw_store_key key = dead[i]->key;

            sw_journal__remove_key(&s->table, &key);
            sw_store__add(&s->base.expired, 1);
        } else {
            sw_journal__undue(&s->table, dead[i]);
        }
    }
}

/* States of this subject behind look_key that were cut off: at most DROPS_MAX are written off and
 * taken away. True: there are no more. */
static bool states_drop(struct journal_store *s, const struct journal_cutoff *c)
{
    struct journal_sweep *sw = &s->sweep;
    struct sw_slice subject = {c->subject, c->subject_len};
    const struct journal_list *l = &sw_journal__subjects_of(&s->table, subject)->states;
    struct journal_place place = {.subject = subject, .key = sw->look_key};
    struct journal_record *dead[DROPS_MAX];
    size_t count = 0;
    const struct journal_node *n = sw_journal__list_seek(l, &place);
    bool stuck = false;

    for (size_t i = 0; i < DROPS_MAX && n != NULL; i++, n = n->next[0]) {
        struct journal_record *r = n->item;
        struct sw_record view = sw_journal__record_view(r);
        struct journal_piece piece;
        uint32_t segment;

        if (!sw_slice_eq(view.subject, subject)) {
            n = NULL;
            break;
        }
        if (sw_store__cut(&view, c->c.not_before_unix_ms)) {
            sw_journal__piece_drop(&piece, r);
            if (!frame_move(s, &piece, &segment)) {
                stuck = true;
                break;
            }
            dead[count++] = r;
        }
        sw->look_key = r->key;
    }
    if (!moved_flush(s)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        struct sw_store_key key = dead[i]->key;

        sw_journal__remove_key(&s->table, &key);
        sw_store__add(&s->base.expired, 1);
    }
    return n == NULL && !stuck;
}

/* As for LMDB (lmdb_expire.c): SW_TOMBSTONE_S_MIN after a cut-off its states go; at its own end it
 * goes too, after one more look. */
static void cutoffs_collect(struct journal_store *s, int64_t now)
{
    struct journal_sweep *sw = &s->sweep;

    for (size_t i = 0; i < CUTOFFS_LOOKED; i++) {
        struct journal_cutoff *c = cutoff_next(&s->table, &sw->look);
        struct sw_slice subject;
        struct store_cutoff next;

        if (c == NULL) {
            sw->look = (struct journal_cursor){0};
            return;
        }
        if (c->c.look_unix_s == 0 || c->c.look_unix_s > now) {
            cursor_pass(&sw->look, c);
            continue;
        }
        if (!sw->look_inside) {
            memset(&sw->look_key, 0, sizeof(sw->look_key));
            sw->look_inside = true;
        }
        if (!states_drop(s, c)) {
            return; /* goes on here the next time */
        }
        sw->look_inside = false;
        cursor_pass(&sw->look, c);
        subject = (struct sw_slice){sw->look.after, sw->look.after_len};
        next = c->c;
        next.look_unix_s = c->c.expires_unix_s;
        if (sw_store__expired(c->c.expires_unix_s, now)) {
            sw_journal__cutoff_remove(&s->table, subject);
        } else {
            sw_journal__cutoff_set(&s->table, subject, &next, c->segment, NULL);
        }
    }
}

void sw_journal__collect(struct journal_store *s)
{
    struct journal_sweep *sw = &s->sweep;
    uint64_t now_ns = sw_store__clock_ns(CLOCK_REALTIME);
    uint64_t slots = sw->urgent ? SLOTS_URGENT : SLOTS_IDLE;

    if (!s->opt.expire || s->log.health != JOURNAL_WELL) {
        return;
    }
    due_clear(s, (int64_t)(now_ns / SW_NS_PER_MS));
    if (sw->goal == 0) { /* a round collects as it goes */
        if (sw->shard >= JOURNAL_SHARDS) {
            cursor_set(s, 0);
        }
        (void)table_walk(s, slots, UINT64_MAX);
    }
    sw->urgent = false;
    cutoffs_collect(s, (int64_t)(now_ns / SW_NS_PER_S));
}
