/* store/lmdb_format.c - the file of the embedded store, byte by byte.
 *
 * Room       store/. Pure but for meta, which it reads and writes in a transaction of the caller's.
 *
 * The folder (0700) holds:
 *   data.mdb        the LMDB environment; made under another name and renamed when complete, so a
 *                   file of this name that is empty or short has been damaged, and is refused
 *   data.mdb-lock   LMDB's table of readers
 *   lock            flock()ed while the store is open; the holder's pid as text
 *
 * The databases in it, all integers little-endian unless said otherwise. Format 2:
 *
 *   meta      "store" -> 40 bytes
 *       0   8  "stateway"
 *       8   4  format, 2
 *      12   4  0
 *      16   8  unix time it was made
 *      24  16  random id of this store
 *
 *   meta      "upgrade" -> 32 bytes: only while a file of format 1 becomes one of format 2: the
 *             first key whose record was not looked at
 *
 *   records   key (32 bytes) -> record
 *       0   1  format of the record, 2
 *       1   1  kind: 1 state, 2 tombstone, 3 alias, 4 claim
 *       2   1  length of the subject, S
 *       3   1  1: sealed; other bits 0
 *       4   4  sum over the key, bytes 0..3, bytes 8..87, subject and extra (head_sum)
 *       8   8  version: epoch, not 0
 *      16   8  version: counter, from 1
 *      24   8  created, unix seconds
 *      32   8  touched
 *      40   8  expires, 0: never
 *      48   8  absolute end, 0: none
 *      56   8  indexed: the time under which the record stands in `expiry`, 0: it does not
 *      64   8  bound to its subject, unix milliseconds, 0: has none
 *      72   8  due, unix milliseconds, 0: it is not
 *      80   4  sum over the value
 *      84   2  length of extra, E
 *      86   2  0
 *      88   S  subject
 *    88 + S E  extra
 *  88+S+E      value, to the end
 *      Two sums, so that a load that does not want a large value need not read it.
 *
 *   expiry    time (unix seconds, 8 bytes, big-endian: sorts) + key (32 bytes) -> nothing
 *      At most one entry a record, never later than the record's expiry. A session that is used
 *      again and again moves its expiry but not its entry; when the entry's time comes, the
 *      collector sees that the record lives on and moves the entry then. That saves two page
 *      writes in nearly every commit.
 *             time (8 bytes, the same) + 32 zero bytes + subject -> nothing
 *      A cut-off that the collector has to look at then.
 *
 *   subjects  length of the subject (1 byte) + subject + key (32 bytes) -> nothing
 *      One entry for each record that is a state and has a subject; none for others.
 *
 *   due       due (unix milliseconds, 8 bytes, big-endian) + key (32 bytes) -> nothing
 *      One entry for each record whose `due` is not 0.
 *
 *   cutoffs   subject -> 32 bytes
 *       0   8  ends the states bound to it at or before this, unix milliseconds
 *       8   8  kept until, unix seconds, 0: for ever
 *      16   8  the time under which it stands in `expiry`, 0: it does not
 *      24   4  sum over the subject and bytes 0..23
 *      28   4  0
 *
 * Entries of indexes are written and taken away in the transaction that does so with their record.
 *
 * Format 1 had meta, records and expiry (without cut-offs) only. Its records:
 *       0   1  format of the record, 1
 *       1   1  kind: 1 to 3
 *       2   1  length of the subject, S
 *       3   1  0
 *       4   4  sum over the key, bytes 0..3, bytes 8 to the end
 *       8..63  as above
 *      64   S  subject
 *    64 + S    value, to the end
 *
 * The upgrade makes the new databases and fills `subjects`. It does not rewrite records: those of
 * format 1 stay readable in a file of format 2, and become format 2 when they are put again. Such a
 * state counts as bound to its subject since it was created: that is the earliest it can have been.
 */
#include "store/lmdb_priv.h"

/* ---- sums ------------------------------------------------------------------------------------ */

static uint64_t sum_word(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

static uint64_t sum_words(uint64_t h, const unsigned char *p, size_t len)
{
    unsigned char last[8] = {0};

    for (; len >= sizeof(last); p += sizeof(last), len -= sizeof(last)) {
        h = sum_word(h, get_u64(p));
    }
    if (len > 0) {
        memcpy(last, p, len);
        h = sum_word(h, get_u64(last));
    }
    return h;
}

/* Against rot and torn pages, not against people. Words of 8 bytes, the last one of each piece
 * filled with zeros: the key, bytes 0..3, bytes 8 to len; start is the record's length; the lower
 * half of the end. Format 1: len is the whole record. */
static uint32_t head_sum(const struct sw_store_key *key, const unsigned char *p, size_t len,
                         size_t record_bytes)
{
    uint64_t h = record_bytes;

    h = sum_words(h, key->bytes, sizeof(key->bytes));
    h = sum_words(h, p, 4);
    h = sum_words(h, p + 8, len - 8);
    return (uint32_t)h;
}

static uint32_t value_sum(const unsigned char *p, size_t len)
{
    return (uint32_t)sum_words(len, p, len);
}

/* ---- records --------------------------------------------------------------------------------- */

size_t sw_lmdb__record_bytes(const struct sw_record *r)
{
    return LMDB_HEAD + r->subject.len + r->extra.len + r->value.len;
}

static void copy_in(unsigned char *p, struct sw_slice s)
{
    if (s.len > 0) {
        memcpy(p, s.ptr, s.len);
    }
}

static void put_times(unsigned char *p, const struct sw_record *r, int64_t indexed)
{
    put_u64(p + 32, (uint64_t)r->touched_unix_s);
    put_u64(p + 40, (uint64_t)r->expires_unix_s);
    put_u64(p + 56, (uint64_t)indexed);
}

void sw_lmdb__record_write(unsigned char *p, const struct sw_store_key *key,
                           const struct sw_record *r, int64_t indexed)
{
    size_t front = LMDB_HEAD + r->subject.len + r->extra.len;

    SW_ASSERT(r->subject.len <= SW_SUBJECT_BYTES_MAX);
    SW_ASSERT(r->extra.len <= SW_EXTRA_BYTES_MAX);
    p[0] = LMDB_FORMAT;
    p[1] = (unsigned char)r->kind;
    p[2] = (unsigned char)r->subject.len;
    p[3] = r->sealed ? 1 : 0;
    put_u64(p + 8, r->version.epoch);
    put_u64(p + 16, r->version.counter);
    put_u64(p + 24, (uint64_t)r->created_unix_s);
    put_times(p, r, indexed);
    put_u64(p + 48, (uint64_t)r->absolute_unix_s);
    put_u64(p + 64, (uint64_t)r->bound_unix_ms);
    put_u64(p + 72, (uint64_t)r->due_unix_ms);
    put_u32(p + 84, (uint32_t)r->extra.len);
    copy_in(p + LMDB_HEAD, r->subject);
    copy_in(p + LMDB_HEAD + r->subject.len, r->extra);
    copy_in(p + front, r->value);
    put_u32(p + 80, value_sum(p + front, r->value.len));
    put_u32(p + 4, head_sum(key, p, front, front + r->value.len));
}

void sw_lmdb__record_retime(unsigned char *p, size_t len, const struct sw_store_key *key,
                            const struct sw_record *r, int64_t indexed)
{
    size_t front = len;

    put_times(p, r, indexed);
    if (p[0] != LMDB_FORMAT_FIRST) {
        put_u64(p + 72, (uint64_t)r->due_unix_ms);
        front = LMDB_HEAD + p[2] + get_u32(p + 84);
    }
    put_u32(p + 4, head_sum(key, p, front, len));
}

static void read_common(const unsigned char *p, struct lmdb_found *f)
{
    struct sw_record *r = &f->record;

    r->kind = (enum sw_record_kind)p[1];
    r->version = (struct sw_version){get_u64(p + 8), get_u64(p + 16)};
    r->created_unix_s = (int64_t)get_u64(p + 24);
    r->touched_unix_s = (int64_t)get_u64(p + 32);
    r->expires_unix_s = (int64_t)get_u64(p + 40);
    r->absolute_unix_s = (int64_t)get_u64(p + 48);
    f->indexed = (int64_t)get_u64(p + 56);
}

static void read_subject(const unsigned char *p, size_t len, struct lmdb_found *f)
{
    memcpy(f->subject, p, len);
    f->record.subject = (struct sw_slice){f->subject, len};
}

#define SECONDS_MAX (INT64_MAX / 1000)

static bool read_first(const unsigned char *p, size_t len, const struct sw_store_key *key,
                       struct lmdb_found *f)
{
    struct sw_record *r = &f->record;
    size_t front = LMDB_HEAD_FIRST + p[2];

    if (p[1] < SW_RECORD_STATE || p[1] > SW_RECORD_ALIAS || p[3] != 0 || front > len ||
        get_u32(p + 4) != head_sum(key, p, len, len)) {
        return false;
    }
    read_common(p, f);
    read_subject(p + LMDB_HEAD_FIRST, p[2], f);
    r->bound_unix_ms =
        sw_store__has_subject(r) ? SW_MIN(SW_MAX(r->created_unix_s, 1), SECONDS_MAX) * 1000 : 0;
    r->due_unix_ms = 0;
    r->sealed = false;
    r->extra = (struct sw_slice){NULL, 0};
    r->value = sw_slice_of(p + front, len - front);
    return true;
}

static bool read_second(const unsigned char *p, size_t len, const struct sw_store_key *key,
                        size_t value_bytes_max, struct lmdb_found *f)
{
    struct sw_record *r = &f->record;
    size_t extra_len, front, value_len;

    if (len < LMDB_HEAD || p[1] < SW_RECORD_STATE || p[1] > SW_RECORD_CLAIM || (p[3] & ~1) != 0) {
        return false;
    }
    extra_len = get_u32(p + 84); /* with the two zeros behind it */
    front = LMDB_HEAD + p[2] + extra_len;
    if (extra_len > SW_EXTRA_BYTES_MAX || front > len ||
        get_u32(p + 4) != head_sum(key, p, front, len)) {
        return false;
    }
    value_len = len - front;
    if (value_len <= value_bytes_max && get_u32(p + 80) != value_sum(p + front, value_len)) {
        return false;
    }
    read_common(p, f);
    read_subject(p + LMDB_HEAD, p[2], f);
    r->bound_unix_ms = (int64_t)get_u64(p + 64);
    r->due_unix_ms = (int64_t)get_u64(p + 72);
    r->sealed = p[3] == 1;
    r->extra = sw_slice_of(p + LMDB_HEAD + p[2], extra_len);
    r->value = sw_slice_of(p + front, value_len);
    return r->due_unix_ms >= 0;
}

bool sw_lmdb__record_read(MDB_val v, const struct sw_store_key *key, size_t value_bytes_max,
                          struct lmdb_found *ret_found)
{
    const unsigned char *p = v.mv_data;

    ret_found->there =
        v.mv_size >= LMDB_HEAD_FIRST &&
        (p[0] == LMDB_FORMAT_FIRST
             ? read_first(p, v.mv_size, key, ret_found)
             : p[0] == LMDB_FORMAT && read_second(p, v.mv_size, key, value_bytes_max, ret_found)) &&
        !sw_version_none(ret_found->record.version);
    return ret_found->there;
}

bool sw_lmdb__indexed_ok(const struct lmdb_found *f)
{
    int64_t expires = f->record.expires_unix_s;

    return expires == 0 ? f->indexed == 0 : f->indexed > 0 && f->indexed <= SW_MAX(expires, 1);
}

/* ---- indexes --------------------------------------------------------------------------------- */

static void entry_add(struct lmdb_entry *e, const void *bytes, size_t len)
{
    SW_ASSERT(e->len + len <= sizeof(e->bytes));
    memcpy(e->bytes + e->len, bytes, len);
    e->len += len;
}

static void entry_add_time(struct lmdb_entry *e, int64_t time)
{
    uint64_t be = htobe64((uint64_t)time);

    SW_ASSERT(time > 0); /* others would not sort */
    entry_add(e, &be, sizeof(be));
}

struct lmdb_entry sw_lmdb__entry_at(int64_t time, const struct sw_store_key *key)
{
    struct lmdb_entry e;

    e.len = 0;
    entry_add_time(&e, time);
    entry_add(&e, key->bytes, sizeof(key->bytes));
    return e;
}

struct lmdb_entry sw_lmdb__entry_cutoff(int64_t unix_s, struct sw_slice subject)
{
    static const struct sw_store_key zero;
    struct lmdb_entry e = sw_lmdb__entry_at(unix_s, &zero);

    SW_ASSERT(subject.len > 0);
    entry_add(&e, subject.ptr, subject.len);
    return e;
}

struct lmdb_entry sw_lmdb__entry_subject(struct sw_slice subject, const struct sw_store_key *key)
{
    unsigned char len = (unsigned char)subject.len;
    struct lmdb_entry e;

    SW_ASSERT(subject.len > 0);
    SW_ASSERT(subject.len <= SW_SUBJECT_BYTES_MAX);
    e.len = 0;
    entry_add(&e, &len, 1);
    entry_add(&e, subject.ptr, subject.len);
    entry_add(&e, key->bytes, sizeof(key->bytes));
    return e;
}

bool sw_lmdb__entry_read(MDB_val k, int64_t *ret_time, struct sw_store_key *ret_key,
                         struct sw_slice *ret_subject)
{
    const char *p = k.mv_data;
    uint64_t be;

    if (k.mv_size < 8 + sizeof(ret_key->bytes) ||
        k.mv_size > 8 + sizeof(ret_key->bytes) + SW_SUBJECT_BYTES_MAX) {
        return false;
    }
    memcpy(&be, p, sizeof(be));
    *ret_time = (int64_t)be64toh(be);
    memcpy(ret_key->bytes, p + 8, sizeof(ret_key->bytes));
    *ret_subject =
        sw_slice_of(p + 8 + sizeof(ret_key->bytes), k.mv_size - 8 - sizeof(ret_key->bytes));
    return *ret_time > 0;
}

bool sw_lmdb__subject_read(MDB_val k, struct sw_slice *ret_subject, struct sw_store_key *ret_key)
{
    const unsigned char *p = k.mv_data;

    if (k.mv_size < 2 + sizeof(ret_key->bytes) || p[0] == 0 ||
        k.mv_size != 1 + (size_t)p[0] + sizeof(ret_key->bytes)) {
        return false;
    }
    *ret_subject = sw_slice_of(p + 1, p[0]);
    memcpy(ret_key->bytes, p + 1 + p[0], sizeof(ret_key->bytes));
    return true;
}

/* ---- cut-offs -------------------------------------------------------------------------------- */

static uint32_t cutoff_sum(const unsigned char *p, struct sw_slice subject)
{
    uint64_t h = sum_words(subject.len, (const unsigned char *)subject.ptr, subject.len);

    return (uint32_t)sum_words(h, p, 24);
}

void sw_lmdb__cutoff_write(unsigned char p[LMDB_CUTOFF_BYTES], struct sw_slice subject,
                           const struct store_cutoff *c)
{
    memset(p, 0, LMDB_CUTOFF_BYTES);
    put_u64(p, (uint64_t)c->not_before_unix_ms);
    put_u64(p + 8, (uint64_t)c->expires_unix_s);
    put_u64(p + 16, (uint64_t)c->look_unix_s);
    put_u32(p + 24, cutoff_sum(p, subject));
}

bool sw_lmdb__cutoff_read(MDB_val v, struct sw_slice subject, struct store_cutoff *ret_cutoff)
{
    const unsigned char *p = v.mv_data;

    if (v.mv_size != LMDB_CUTOFF_BYTES || get_u32(p + 24) != cutoff_sum(p, subject) ||
        (int64_t)get_u64(p) <= 0 || (int64_t)get_u64(p + 16) < 0) {
        return false;
    }
    *ret_cutoff = (struct store_cutoff){(int64_t)get_u64(p), (int64_t)get_u64(p + 8),
                                        (int64_t)get_u64(p + 16)};
    return true;
}

/* ---- meta ------------------------------------------------------------------------------------ */

void sw_lmdb__meta_write(unsigned char p[LMDB_META_BYTES], const struct lmdb_meta *m)
{
    memset(p, 0, LMDB_META_BYTES);
    memcpy(p, "stateway", 8);
    put_u32(p + 8, m->format);
    put_u64(p + 16, (uint64_t)m->made_unix_s);
    memcpy(p + 24, m->id, sizeof(m->id));
}

int sw_lmdb__meta_read(MDB_txn *txn, MDB_dbi dbi, struct lmdb_meta *m)
{
    MDB_val k = text_val(SW_S("store")), v;
    unsigned char p[LMDB_META_BYTES] = {0};
    int rc = mdb_get(txn, dbi, &k, &v);

    *m = (struct lmdb_meta){0};
    if (rc != 0) {
        return rc == MDB_NOTFOUND ? 0 : rc;
    }
    m->bytes = v.mv_size;
    memcpy(p, v.mv_data, SW_MIN(v.mv_size, sizeof(p)));
    m->ours = v.mv_size >= 12 && memcmp(p, "stateway", 8) == 0;
    m->format = get_u32(p + 8);
    m->made_unix_s = (int64_t)get_u64(p + 16);
    memcpy(m->id, p + 24, sizeof(m->id));
    k = text_val(SW_S("upgrade"));
    rc = mdb_get(txn, dbi, &k, &v);
    if (rc == 0) {
        m->upgrading = true;
        memcpy(m->from.bytes, v.mv_data, SW_MIN(v.mv_size, sizeof(m->from.bytes)));
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int sw_lmdb__meta_put(MDB_txn *txn, MDB_dbi dbi, const struct lmdb_meta *m)
{
    unsigned char p[LMDB_META_BYTES];
    MDB_val k = text_val(SW_S("store")), v = {sizeof(p), p};
    int rc;

    sw_lmdb__meta_write(p, m);
    rc = mdb_put(txn, dbi, &k, &v, 0);
    if (rc != 0) {
        return rc;
    }
    k = text_val(SW_S("upgrade"));
    if (m->upgrading) {
        v = key_val(&m->from);
        return mdb_put(txn, dbi, &k, &v, 0);
    }
    rc = mdb_del(txn, dbi, &k, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}
