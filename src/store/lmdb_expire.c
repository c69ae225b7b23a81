/* store/lmdb_expire.c - the collector: what expired or was cut off is taken away.
 *
 * Room       store/. The committer's thread, a bounded piece at a time: alone when nobody waits,
 *            else beside a batch. By the wall clock.
 *
 * It takes the first entries of `expiry` whose time has come. A record's: see lmdb_format.c. A
 * cut-off's stands there for SW_TOMBSTONE_S_MIN after it was written: until then the states it
 * ended stay where they are and read as tombstones, as after a delete; then they are taken away,
 * and the entry moves to the cut-off's own end. At that end it looks once more (an import may have
 * brought older states back), and takes the cut-off away last: nothing rises again.
 */
#include "store/lmdb_priv.h"

#define DUE_LOOKED_MAX 64u
#define DUE_LATE_MS    10000 /* due so long: is its value whole? Nobody takes it otherwise */

static int collect_record(struct lmdb_store *s, MDB_txn *txn, int64_t at,
                          const struct sw_store_key *key, int64_t now)
{
    struct lmdb_found f;
    int rc = sw_lmdb__record_find(s, txn, key, 0, &f);

    if (rc == MDB_CORRUPTED || (rc == 0 && (!f.there || f.indexed != at))) {
        /* a damaged record is kept for people to look at */
        return sw_lmdb__entry_del(txn, s->expiry, sw_lmdb__entry_at(at, key));
    }
    if (rc != 0) {
        return rc;
    }
    if (sw_store__expired(f.record.expires_unix_s, now)) {
        s->now.collected++;
        return sw_lmdb__record_del(s, txn, key, &f);
    }
    rc = sw_lmdb__entry_del(txn, s->expiry, sw_lmdb__entry_at(at, key));
    f.indexed = 0;
    return rc != 0 ? rc : sw_lmdb__record_move(s, txn, key, &f, &f.record);
}

/* ---- cut-offs -------------------------------------------------------------------------------- */

/* The next entry of `subjects` for this subject, behind *after. False in *ret_there: no more. */
static int subject_next(struct lmdb_store *s, MDB_txn *txn, struct sw_slice subject,
                        const struct sw_store_key *after, struct sw_store_key *ret_key,
                        bool *ret_there)
{
    struct lmdb_entry e = sw_lmdb__entry_subject(subject, after);
    MDB_val k = entry_val(&e), v;
    struct sw_slice found;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, s->subjects, &cursor);

    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    if (rc == 0 && k.mv_size == e.len && memcmp(k.mv_data, e.bytes, e.len) == 0) {
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    if (rc == 0 && !sw_lmdb__subject_read(k, &found, ret_key)) {
        rc = MDB_CORRUPTED;
    }
    *ret_there = rc == 0 && sw_slice_eq(found, subject);
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int sweep_record(struct lmdb_store *s, MDB_txn *txn, struct sw_slice subject,
                        const struct sw_store_key *key, const struct store_cutoff *c)
{
    struct lmdb_found f;
    int rc = sw_lmdb__record_find(s, txn, key, 0, &f);

    if (rc == MDB_CORRUPTED) {
        return 0; /* as above */
    }
    if (rc == 0 && f.there && sw_store__cut(&f.record, c->not_before_unix_ms) &&
        sw_slice_eq(f.record.subject, subject)) {
        s->now.collected++;
        rc = sw_lmdb__record_del(s, txn, key, &f);
    }
    return rc;
}

/* All states of the subject were looked at. */
static int sweep_end(struct lmdb_store *s, MDB_txn *txn, struct sw_slice subject,
                     const struct store_cutoff *c, int64_t now)
{
    struct store_cutoff next = *c;

    if (sw_store__expired(c->expires_unix_s, now)) {
        next = (struct store_cutoff){0};
    } else {
        next.look_unix_s = c->expires_unix_s;
    }
    return sw_lmdb__cutoff_put(s, txn, subject, c, &next);
}

/* At most *budget states; goes on the next time when there are more. */
static int sweep(struct lmdb_store *s, MDB_txn *txn, struct sw_slice entry_subject, int64_t at,
                 int64_t now, size_t *budget)
{
    struct lmdb_sweep *x = &s->now.sweep;
    char text[SW_SUBJECT_BYTES_MAX];
    struct sw_slice subject = {text, entry_subject.len};
    struct store_cutoff c;
    bool there = true;
    int rc;

    memcpy(text, entry_subject.ptr, entry_subject.len); /* it lies in a page that may move */
    rc = sw_lmdb__cutoff_find(s, txn, subject, &c);
    if (rc == MDB_CORRUPTED || (rc == 0 && (c.not_before_unix_ms == 0 || c.look_unix_s != at))) {
        return sw_lmdb__entry_del(txn, s->expiry, sw_lmdb__entry_cutoff(at, subject));
    }
    if (rc != 0) {
        return rc;
    }
    if (!sw_slice_eq(subject, (struct sw_slice){x->subject, x->subject_len})) {
        memset(x, 0, sizeof(*x)); /* from the beginning */
        memcpy(x->subject, subject.ptr, subject.len);
        x->subject_len = subject.len;
    }
    while (*budget > 0) {
        struct sw_store_key key;

        rc = subject_next(s, txn, subject, &x->after, &key, &there);
        if (rc != 0 || !there) {
            break;
        }
        (*budget)--;
        x->after = key;
        rc = sweep_record(s, txn, subject, &key, &c);
        if (rc != 0) {
            return rc;
        }
    }
    if (rc == 0 && !there) {
        x->subject_len = 0;
        rc = sweep_end(s, txn, subject, &c, now);
    }
    return rc;
}

/* Of what is due, what must not stand in front of the rest. */
struct not_due {
    int64_t at;
    struct sw_store_key key;
    bool cut; /* else the entry has no record that is due then, or none that can be read */
};

static int entry_judge(struct lmdb_store *s, MDB_txn *txn, int64_t now_ms, struct not_due *d,
                       bool *ret_is)
{
    struct lmdb_found f;
    size_t value_bytes_max = d->at < now_ms - DUE_LATE_MS ? SIZE_MAX : 0;
    int rc = sw_lmdb__record_find(s, txn, &d->key, value_bytes_max, &f);

    d->cut = false;
    *ret_is = rc == MDB_CORRUPTED || (rc == 0 && (!f.there || f.record.due_unix_ms != d->at));
    if (rc == 0 && !*ret_is && s->now.cutoffs > 0) {
        rc = sw_lmdb__cut(s, txn, s->now.cutoffs, &f.record, &d->cut);
        *ret_is = d->cut;
    }
    return rc == MDB_CORRUPTED ? 0 : rc;
}

static int not_due_clear(struct lmdb_store *s, MDB_txn *txn, const struct not_due *d)
{
    struct lmdb_found f;
    struct sw_record r;
    int rc;

    if (!d->cut) {
        s->now.due_moved = true;
        return sw_lmdb__entry_del(txn, s->due, sw_lmdb__entry_at(d->at, &d->key));
    }
    rc = sw_lmdb__record_find(s, txn, &d->key, 0, &f);
    if (rc != 0) {
        return rc;
    }
    r = f.record;
    r.due_unix_ms = 0;
    return sw_lmdb__record_move(s, txn, &d->key, &f, &r);
}

/* States that were cut off are not due any more; otherwise they would stand in front of those that
 * are for SW_TOMBSTONE_S_MIN. Nor are records that cannot be read (they are kept, for people to
 * look at), and entries that mean nothing. */
static int due_clear(struct lmdb_store *s, MDB_txn *txn, int64_t now_ms, bool *ret_wrote)
{
    struct not_due list[DUE_LOOKED_MAX];
    MDB_cursor *cursor;
    MDB_val k, v;
    size_t count = 0;
    int64_t first = atomic_load_explicit(&s->base.next_due_unix_ms, memory_order_relaxed);
    int rc;

    if (first == 0 || first > now_ms) {
        return 0;
    }
    rc = mdb_cursor_open(txn, s->due, &cursor);
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < DUE_LOOKED_MAX && rc == 0; i++) {
        struct sw_slice none;
        bool is = false;

        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT); /* the first time: the first */
        if (rc == 0 && !sw_lmdb__entry_read(k, &list[count].at, &list[count].key, &none)) {
            rc = mdb_cursor_del(cursor, 0); /* stays before the one behind it */
            s->now.due_moved = *ret_wrote = true;
            continue;
        }
        if (rc != 0 || list[count].at > now_ms) {
            break;
        }
        rc = entry_judge(s, txn, now_ms, &list[count], &is);
        count += is;
    }
    mdb_cursor_close(cursor);
    rc = rc == MDB_NOTFOUND ? 0 : rc;
    for (size_t i = 0; i < count && rc == 0; i++) {
        *ret_wrote = true;
        rc = not_due_clear(s, txn, &list[i]);
    }
    return rc;
}

/* ---- the collector --------------------------------------------------------------------------- */

/* The first entry of `expiry`. *ret_at 0: there is none. subject points into a page. One that means
 * nothing is taken out: behind it nothing would ever be collected. */
static int entry_next(struct lmdb_store *s, MDB_txn *txn, int64_t *ret_at, struct sw_store_key *key,
                      struct sw_slice *ret_subject, bool *ret_wrote)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    /* A new cursor each time: what is deleted and put moves the tree under it. */
    int rc = mdb_cursor_open(txn, s->expiry, &cursor);

    *ret_at = 0;
    if (rc != 0) {
        return rc;
    }
    while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST)) == 0 &&
           !sw_lmdb__entry_read(k, ret_at, key, ret_subject)) {
        *ret_at = 0;
        *ret_wrote = true;
        rc = mdb_cursor_del(cursor, 0);
        if (rc != 0) {
            break;
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int sw_lmdb__collect(struct lmdb_store *s, MDB_txn *txn, size_t max, bool *ret_wrote)
{
    uint64_t now_ns = sw_store__clock_ns(CLOCK_REALTIME);
    int64_t now = (int64_t)(now_ns / SW_NS_PER_S);

    while (max > 0) {
        struct sw_store_key key;
        struct sw_slice subject;
        int64_t at;
        int rc = entry_next(s, txn, &at, &key, &subject, ret_wrote);

        if (rc != 0 || at == 0 || at > now) {
            s->overdue = false;
            return rc != 0 ? rc : due_clear(s, txn, (int64_t)(now_ns / SW_NS_PER_MS), ret_wrote);
        }
        *ret_wrote = true;
        max--;
        rc = subject.len == 0 ? collect_record(s, txn, at, &key, now)
                              : sweep(s, txn, subject, at, now, &max);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}
