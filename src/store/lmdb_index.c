/* store/lmdb_index.c - a record and its entries in the indexes, within one transaction.
 *
 * Room       store/. Every change of a record goes through here, so that its entries change with
 *            it: `expiry` (lazily: see lmdb_format.c), `subjects`, `due`. For a record that has
 *            neither a subject nor a time it is due this costs two comparisons.
 */
#include "store/lmdb_priv.h"

#include <errno.h>

int sw_lmdb__entry_put(MDB_txn *txn, MDB_dbi dbi, struct lmdb_entry e)
{
    MDB_val k = entry_val(&e), none = {0, NULL};

    return mdb_put(txn, dbi, &k, &none, 0);
}

int sw_lmdb__entry_del(MDB_txn *txn, MDB_dbi dbi, struct lmdb_entry e)
{
    MDB_val k = entry_val(&e);
    int rc = mdb_del(txn, dbi, &k, NULL);

    return rc == MDB_NOTFOUND ? 0 : rc;
}

int sw_lmdb__entry_first(MDB_txn *txn, MDB_dbi dbi, int64_t *ret_time)
{
    struct sw_store_key key;
    struct sw_slice subject;
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, dbi, &cursor);

    if (rc != 0) {
        return rc;
    }
    *ret_time = 0;
    do { /* what cannot be read stands in nobody's way: the collector takes it out */
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    } while (rc == 0 && !sw_lmdb__entry_read(k, ret_time, &key, &subject));
    *ret_time = rc == 0 ? *ret_time : 0;
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- entries that follow a record ------------------------------------------------------------ */

/* The entry for a record that now expires then, having stood under `indexed`. */
static int expiry_move(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                       int64_t indexed, int64_t expires, int64_t *ret_indexed)
{
    int rc = 0;

    if (indexed != 0 && expires != 0 && indexed <= expires) {
        *ret_indexed = indexed; /* early enough: the collector will move it */
        return 0;
    }
    if (indexed > 0) {
        rc = sw_lmdb__entry_del(txn, s->expiry, sw_lmdb__entry_at(indexed, key));
    }
    /* A time before 1970 is gone at once: it must not sort behind all others. */
    expires = expires < 0 ? 1 : expires;
    if (rc == 0 && expires != 0) {
        rc = sw_lmdb__entry_put(txn, s->expiry, sw_lmdb__entry_at(expires, key));
    }
    *ret_indexed = expires;
    return rc;
}

static int subject_move(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                        struct sw_slice old, struct sw_slice now)
{
    int rc = 0;

    if (sw_slice_eq(old, now)) {
        return 0;
    }
    if (old.len > 0) {
        rc = sw_lmdb__entry_del(txn, s->subjects, sw_lmdb__entry_subject(old, key));
    }
    if (rc == 0 && now.len > 0) {
        rc = sw_lmdb__entry_put(txn, s->subjects, sw_lmdb__entry_subject(now, key));
    }
    return rc;
}

static int due_move(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key, int64_t old,
                    int64_t now)
{
    int rc = 0;

    if (old == now) {
        return 0;
    }
    s->now.due_moved = true;
    if (old != 0) {
        rc = sw_lmdb__entry_del(txn, s->due, sw_lmdb__entry_at(old, key));
    }
    if (rc == 0 && now != 0) {
        rc = sw_lmdb__entry_put(txn, s->due, sw_lmdb__entry_at(now, key));
    }
    return rc;
}

static struct sw_slice subject_of(const struct sw_record *r)
{
    return sw_store__has_subject(r) ? r->subject : (struct sw_slice){NULL, 0};
}

/* r: NULL when the record is taken away. */
static int entries_move(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                        const struct lmdb_found *old, const struct sw_record *r)
{
    struct sw_slice was = old->there ? subject_of(&old->record) : (struct sw_slice){NULL, 0};
    struct sw_slice is = r != NULL ? subject_of(r) : (struct sw_slice){NULL, 0};
    int rc = subject_move(s, txn, key, was, is);

    if (rc == 0) {
        rc = due_move(s, txn, key, old->there ? old->record.due_unix_ms : 0,
                      r != NULL ? r->due_unix_ms : 0);
    }
    return rc;
}

/* ---- records --------------------------------------------------------------------------------- */

int sw_lmdb__record_find(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                         size_t value_bytes_max, struct lmdb_found *f)
{
    MDB_val k = key_val(key), v;
    int rc = mdb_get(txn, s->records, &k, &v);

    f->there = false;
    f->indexed = 0;
    if (rc == MDB_NOTFOUND) {
        return 0;
    }
    if (rc == 0 && !sw_lmdb__record_read(v, key, value_bytes_max, f)) {
        rc = MDB_CORRUPTED;
    }
    return rc;
}

int sw_lmdb__record_put(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                        const struct lmdb_found *old, const struct sw_record *r)
{
    MDB_val k = key_val(key), v = {sw_lmdb__record_bytes(r), NULL};
    int64_t indexed;
    int rc = expiry_move(s, txn, key, old->indexed, r->expires_unix_s, &indexed);

    if (rc == 0) {
        rc = entries_move(s, txn, key, old, r);
    }
    if (rc == 0 && r->kind == SW_RECORD_TOMBSTONE) {
        /* Only a delete lets LMDB join pages that have become empty; to write less over it does
         * not. */
        rc = mdb_del(txn, s->records, &k, NULL);
        rc = rc == MDB_NOTFOUND ? 0 : rc;
    }
    if (rc == 0) {
        rc = mdb_put(txn, s->records, &k, &v, MDB_RESERVE);
    }
    if (rc == 0) {
        sw_lmdb__record_write(v.mv_data, key, r, indexed);
    }
    return rc;
}

static int record_retime(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                         const struct sw_record *r, int64_t indexed)
{
    MDB_val k = key_val(key), v;
    int rc = mdb_get(txn, s->records, &k, &v);

    if (rc != 0) {
        return rc;
    }
    if (v.mv_size > s->scratch_bytes) {
        char *more = realloc(s->scratch, v.mv_size);

        if (more == NULL) {
            return ENOMEM;
        }
        s->scratch = more;
        s->scratch_bytes = v.mv_size;
    }
    memcpy(s->scratch, v.mv_data, v.mv_size); /* the page it is on may move */
    v.mv_data = s->scratch;
    sw_lmdb__record_retime(v.mv_data, v.mv_size, key, r, indexed);
    return mdb_put(txn, s->records, &k, &v, 0);
}

int sw_lmdb__record_move(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                         const struct lmdb_found *old, const struct sw_record *r)
{
    int64_t indexed;
    int rc = expiry_move(s, txn, key, old->indexed, r->expires_unix_s, &indexed);

    if (rc == 0) {
        rc = due_move(s, txn, key, old->record.due_unix_ms, r->due_unix_ms);
    }
    return rc != 0 ? rc : record_retime(s, txn, key, r, indexed);
}

int sw_lmdb__record_del(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                        const struct lmdb_found *old)
{
    MDB_val k = key_val(key);
    int rc = mdb_del(txn, s->records, &k, NULL);

    if (rc == 0 && old->indexed > 0) {
        rc = sw_lmdb__entry_del(txn, s->expiry, sw_lmdb__entry_at(old->indexed, key));
    }
    return rc != 0 ? rc : entries_move(s, txn, key, old, NULL);
}

/* ---- cut-offs -------------------------------------------------------------------------------- */

int sw_lmdb__cutoff_find(struct lmdb_store *s, MDB_txn *txn, struct sw_slice subject,
                         struct store_cutoff *c)
{
    MDB_val k = text_val(subject), v;
    int rc = mdb_get(txn, s->cutoffs, &k, &v);

    *c = (struct store_cutoff){0};
    if (rc == 0 && !sw_lmdb__cutoff_read(v, subject, c)) {
        rc = MDB_CORRUPTED;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int sw_lmdb__cutoff_put(struct lmdb_store *s, MDB_txn *txn, struct sw_slice subject,
                        const struct store_cutoff *old, const struct store_cutoff *c)
{
    unsigned char bytes[LMDB_CUTOFF_BYTES];
    MDB_val k = text_val(subject), v = {sizeof(bytes), bytes};
    int rc = 0;

    if (old->look_unix_s != 0) {
        rc = sw_lmdb__entry_del(txn, s->expiry, sw_lmdb__entry_cutoff(old->look_unix_s, subject));
    }
    if (rc == 0 && c->look_unix_s != 0) {
        rc = sw_lmdb__entry_put(txn, s->expiry, sw_lmdb__entry_cutoff(c->look_unix_s, subject));
    }
    if (rc != 0) {
        return rc;
    }
    if (c->not_before_unix_ms == 0) {
        SW_ASSERT(old->not_before_unix_ms != 0);
        SW_ASSERT(s->now.cutoffs > 0);
        s->now.cutoffs--;
        return mdb_del(txn, s->cutoffs, &k, NULL);
    }
    s->now.cutoffs += old->not_before_unix_ms == 0;
    sw_lmdb__cutoff_write(bytes, subject, c);
    return mdb_put(txn, s->cutoffs, &k, &v, 0);
}

int sw_lmdb__cut(struct lmdb_store *s, MDB_txn *txn, uint64_t cutoffs, const struct sw_record *r,
                 bool *ret_cut)
{
    struct store_cutoff c;
    int rc;

    *ret_cut = false;
    if (cutoffs == 0 || !sw_store__has_subject(r)) {
        return 0;
    }
    rc = sw_lmdb__cutoff_find(s, txn, r->subject, &c);
    *ret_cut = rc == 0 && sw_store__cut(r, c.not_before_unix_ms);
    return rc;
}
