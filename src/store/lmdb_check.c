/* store/lmdb_check.c - sw_store_lmdb_check: is every page, record and index entry what it should
 * be?
 *
 * Room       store/. In a child process (lmdb_child.c), on one moment of the file.
 *
 * LMDB keeps no sums of its pages. What can be seen by reading them all:
 *   - leaf and overflow pages carry their own number and kind: a page that is another one's, or one
 *     that stands in the list of free pages, is found;
 *   - branch pages only lead: keys must come in order, as many as are counted, and each must be
 *     found again from the root;
 *   - records and cut-offs carry sums;
 *   - an index has an entry for each record that should have one, and none more.
 */
#include "store/lmdb_priv.h"

#include <errno.h>
#include <unistd.h>

/* LMDB's page head (mdb.c: MDB_page): its number, flags at 10; data of an overflow page at 16. */
enum { LM_PAGE_FLAGS = 10, LM_PAGE_HEAD = 16, LM_P_LEAF = 2, LM_P_OVERFLOW = 4 };

struct check {
    struct lmdb_child *child;
    struct lmdb_source x;
    struct sw_store_checked *n;
    unsigned char *free; /* a bit a page */
    uint64_t free_pages;
    uintptr_t base;  /* of the map; 0: no page was seen yet */
    bool sees_pages; /* the map begins where a page of this size may */
    bool bad;        /* something that no counter has */
};

struct hex {
    char text[20];
};

static struct hex hex_of(const struct sw_store_key *key)
{
    struct hex h;

    (void)snprintf(h.text, sizeof(h.text), "%02x%02x%02x%02x%02x%02x%02x%02x", key->bytes[0],
                   key->bytes[1], key->bytes[2], key->bytes[3], key->bytes[4], key->bytes[5],
                   key->bytes[6], key->bytes[7]);
    return h;
}

/* ---- pages ----------------------------------------------------------------------------------- */

static bool is_free(const struct check *c, uint64_t page)
{
    return (c->free[page / 8] & 1u << page % 8) != 0;
}

/* One entry of LMDB's free list: a count, and so many page numbers, falling. */
static bool free_entry(struct check *c, MDB_val v)
{
    size_t count, last = SIZE_MAX;

    if (v.mv_size < sizeof(count)) {
        return false;
    }
    memcpy(&count, v.mv_data, sizeof(count));
    if (count > v.mv_size / sizeof(count) - 1) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        size_t page;

        memcpy(&page, (const char *)v.mv_data + (i + 1) * sizeof(page), sizeof(page));
        if (page < 2 || page > c->x.s.last_page || page >= last || is_free(c, page)) {
            return false;
        }
        c->free[page / 8] |= (unsigned char)(1u << page % 8);
        last = page;
    }
    c->free_pages += count;
    return true;
}

static int free_list(struct check *c)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(c->x.txn, 0, &cursor);

    if (rc != 0) {
        return rc;
    }
    while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        if (!free_entry(c, v)) {
            sw_lmdb__complain(c->child, "the list of free pages is damaged");
            c->bad = true;
            break;
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The page at p must be the one it says, of this kind, and not free. */
static bool page_ok(struct check *c, uintptr_t p, unsigned flag)
{
    uint64_t number;
    uint16_t flags;
    uintptr_t base;

    memcpy(&number, (const void *)p, sizeof(number)); /* mapped: LMDB just read there */
    memcpy(&flags, (const char *)p + LM_PAGE_FLAGS, sizeof(flags));
    if (number < 2 || number > c->x.s.last_page || (flags & flag) == 0 || is_free(c, number)) {
        return false;
    }
    base = p - number * c->x.s.page_bytes;
    if (c->base == 0) {
        c->base = base;
    }
    return base == c->base;
}

/* The pages on which an entry lies. */
static bool pages_ok(struct check *c, MDB_val k, MDB_val v)
{
    uintptr_t mask = c->x.s.page_bytes - 1, key = (uintptr_t)k.mv_data, data = (uintptr_t)v.mv_data;

    if (!c->sees_pages) {
        return true;
    }
    if (!page_ok(c, key & ~mask, LM_P_LEAF)) {
        return false;
    }
    return v.mv_size == 0 || (data & ~mask) == (key & ~mask) ||
           ((data & mask) == LM_PAGE_HEAD && page_ok(c, data & ~mask, LM_P_OVERFLOW));
}

/* ---- walking a database ---------------------------------------------------------------------- */

/* Looks at one entry; returns LMDB's code when reading itself failed. */
typedef int entry_fn(struct check *c, MDB_val k, MDB_val v);

/* Is k where a search from the root looks for it? */
static bool found_again(struct check *c, MDB_dbi dbi, MDB_val k, MDB_val v)
{
    MDB_val again;

    return mdb_get(c->x.txn, dbi, &k, &again) == 0 && again.mv_size == v.mv_size &&
           (v.mv_size == 0 || again.mv_data == v.mv_data);
}

static int walk_entries(struct check *c, MDB_dbi dbi, const char *name, MDB_cursor *cursor,
                        entry_fn *fn, uint64_t expected)
{
    struct lmdb_entry last = {0};
    MDB_val k, v;
    uint64_t count = 0;
    int rc;

    while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        size_t len = SW_MIN(k.mv_size, last.len);
        int order = memcmp(last.bytes, k.mv_data, len);

        if (k.mv_size > sizeof(last.bytes) || (count > 0 && order > 0) ||
            (count > 0 && order == 0 && last.len >= k.mv_size) || count == expected) {
            sw_lmdb__complain(c->child, "%s: keys are not in order", name);
            c->bad = true;
            return 0; /* there may be no end to it */
        }
        if (!pages_ok(c, k, v) || !found_again(c, dbi, k, v)) {
            sw_lmdb__complain(c->child, "%s: a page is not where it should be", name);
            c->bad = true;
        }
        last.len = k.mv_size;
        memcpy(last.bytes, k.mv_data, k.mv_size);
        count++;
        rc = fn(c, k, v);
        if (rc != 0) {
            return rc;
        }
    }
    if (rc == MDB_NOTFOUND && count != expected) {
        sw_lmdb__complain(c->child, "%s: %llu entries, it should have %llu", name,
                          (unsigned long long)count, (unsigned long long)expected);
        c->bad = true;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static void walk(struct check *c, MDB_dbi dbi, const char *name, entry_fn *fn)
{
    MDB_cursor *cursor;
    MDB_stat stat;
    int rc = mdb_stat(c->x.txn, dbi, &stat);

    if (rc == 0 && (rc = mdb_cursor_open(c->x.txn, dbi, &cursor)) == 0) {
        rc = walk_entries(c, dbi, name, cursor, fn, stat.ms_entries);
        mdb_cursor_close(cursor);
    }
    if (rc != 0) {
        sw_lmdb__complain(c->child, "%s: reading stopped: %s", name, mdb_strerror(rc));
        c->bad = true;
    }
}

/* ---- records --------------------------------------------------------------------------------- */

static bool has_entry(struct check *c, MDB_dbi dbi, struct lmdb_entry e)
{
    MDB_val k = entry_val(&e), v;

    return mdb_get(c->x.txn, dbi, &k, &v) == 0;
}

static void entry_wanted(struct check *c, bool there, const struct sw_store_key *key,
                         const char *index)
{
    if (!there) {
        c->n->bad_index++;
        sw_lmdb__complain(c->child, "record %s has no entry in %s", hex_of(key).text, index);
    }
}

/* While an upgrade is not done, the index of subjects ends there. */
static bool is_upgraded(const struct check *c, const struct sw_store_key *key)
{
    return !c->x.meta.upgrading || memcmp(key, &c->x.meta.from, sizeof(*key)) < 0;
}

static void record_count(struct sw_store_checked *n, const struct sw_record *r)
{
    switch (r->kind) {
    case SW_RECORD_STATE:
        n->states++;
        break;
    case SW_RECORD_TOMBSTONE:
        n->tombstones++;
        break;
    case SW_RECORD_ALIAS:
        n->aliases++;
        break;
    case SW_RECORD_CLAIM:
        n->claims++;
        break;
    }
    n->value_bytes += r->value.len;
    n->oldest_unix_s =
        n->oldest_unix_s == 0 ? r->created_unix_s : SW_MIN(n->oldest_unix_s, r->created_unix_s);
    n->newest_unix_s = SW_MAX(n->newest_unix_s, r->touched_unix_s);
}

static int check_record(struct check *c, MDB_val k, MDB_val v)
{
    const struct lmdb_store *s = &c->x.s;
    struct sw_store_key key = {{0}};
    struct lmdb_found f;

    memcpy(key.bytes, k.mv_data, SW_MIN(k.mv_size, sizeof(key.bytes)));
    if (k.mv_size != sizeof(key.bytes) || !sw_lmdb__record_read(v, &key, SIZE_MAX, &f)) {
        c->n->bad_records++;
        sw_lmdb__complain(c->child, "record %s is damaged (%zu bytes)", hex_of(&key).text,
                          v.mv_size);
        return 0;
    }
    record_count(c->n, &f.record);
    if (!sw_lmdb__indexed_ok(&f)) {
        entry_wanted(c, false, &key, "expiry");
    } else if (f.indexed > 0) {
        entry_wanted(c, has_entry(c, s->expiry, sw_lmdb__entry_at(f.indexed, &key)), &key,
                     "expiry");
    }
    if (c->x.meta.format == LMDB_FORMAT_FIRST) {
        return 0;
    }
    if (sw_store__has_subject(&f.record) && is_upgraded(c, &key)) {
        entry_wanted(c, has_entry(c, s->subjects, sw_lmdb__entry_subject(f.record.subject, &key)),
                     &key, "subjects");
    }
    if (f.record.due_unix_ms > 0) {
        entry_wanted(c, has_entry(c, s->due, sw_lmdb__entry_at(f.record.due_unix_ms, &key)), &key,
                     "due");
    }
    return 0;
}

/* ---- indexes --------------------------------------------------------------------------------- */

static void entry_bad(struct check *c, const char *index, const struct sw_store_key *key)
{
    c->n->bad_index++;
    sw_lmdb__complain(c->child, "an entry in %s has no record (%s)", index, hex_of(key).text);
}

/* The record of an entry. *ret_skip: it is damaged, which was told. */
static int entry_record(struct check *c, const struct sw_store_key *key, struct lmdb_found *f,
                        bool *ret_skip)
{
    int rc = sw_lmdb__record_find(&c->x.s, c->x.txn, key, 0, f);

    *ret_skip = rc == MDB_CORRUPTED;
    return *ret_skip ? 0 : rc;
}

static int check_expiry(struct check *c, MDB_val k, MDB_val v)
{
    struct store_cutoff cut = {0};
    struct sw_store_key key = {{0}};
    struct sw_slice subject;
    struct lmdb_found f;
    bool skip = false;
    int64_t at;
    int rc = 0;

    (void)v;
    if (!sw_lmdb__entry_read(k, &at, &key, &subject)) {
        entry_bad(c, "expiry", &key);
        return 0;
    }
    if (subject.len > 0) {
        if (c->x.meta.format != LMDB_FORMAT_FIRST) {
            rc = sw_lmdb__cutoff_find(&c->x.s, c->x.txn, subject, &cut);
        }
        if (rc == 0 && cut.look_unix_s != at) {
            entry_bad(c, "expiry", &key);
        }
        return rc == MDB_CORRUPTED ? 0 : rc;
    }
    rc = entry_record(c, &key, &f, &skip);
    if (rc == 0 && !skip && (!f.there || f.indexed != at)) {
        entry_bad(c, "expiry", &key);
    }
    return rc;
}

static int check_subject(struct check *c, MDB_val k, MDB_val v)
{
    struct sw_store_key key = {{0}};
    struct sw_slice subject;
    struct lmdb_found f;
    bool skip;
    int rc;

    (void)v;
    if (!sw_lmdb__subject_read(k, &subject, &key)) {
        entry_bad(c, "subjects", &key);
        return 0;
    }
    rc = entry_record(c, &key, &f, &skip);
    if (rc == 0 && !skip &&
        (!f.there || !sw_store__has_subject(&f.record) ||
         !sw_slice_eq(f.record.subject, subject))) {
        entry_bad(c, "subjects", &key);
    }
    return rc;
}

static int check_due(struct check *c, MDB_val k, MDB_val v)
{
    struct sw_store_key key = {{0}};
    struct sw_slice subject = {NULL, 0};
    struct lmdb_found f;
    int64_t at;
    bool skip;
    int rc;

    (void)v;
    if (!sw_lmdb__entry_read(k, &at, &key, &subject) || subject.len > 0) {
        entry_bad(c, "due", &key);
        return 0;
    }
    rc = entry_record(c, &key, &f, &skip);
    if (rc == 0 && !skip && (!f.there || f.record.due_unix_ms != at)) {
        entry_bad(c, "due", &key);
    }
    return rc;
}

static int check_cutoff(struct check *c, MDB_val k, MDB_val v)
{
    struct sw_slice subject = sw_slice_of(k.mv_data, k.mv_size);
    struct store_cutoff cut;

    if (subject.len == 0 || subject.len > SW_SUBJECT_BYTES_MAX ||
        !sw_lmdb__cutoff_read(v, subject, &cut)) {
        c->n->bad_records++;
        sw_lmdb__complain(c->child, "a cut-off is damaged");
        return 0;
    }
    if (cut.look_unix_s > 0 &&
        !has_entry(c, c->x.s.expiry, sw_lmdb__entry_cutoff(cut.look_unix_s, subject))) {
        c->n->bad_index++;
        sw_lmdb__complain(c->child, "a cut-off has no entry in expiry");
    }
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------- */

struct check_ask {
    struct sw_slice path;
    bool quick;
};

static int count_entries(struct check *c)
{
    bool second = c->x.meta.format != LMDB_FORMAT_FIRST;
    struct {
        bool there;
        MDB_dbi dbi;
        uint64_t *count;
    } rows[] = {
        {true, c->x.s.records, &c->n->records},
        {second, c->x.s.subjects, &c->n->subjects},
        {second, c->x.s.due, &c->n->due},
        {second, c->x.s.cutoffs, &c->n->cutoffs},
    };

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        MDB_stat stat;
        int rc = rows[i].there ? mdb_stat(c->x.txn, rows[i].dbi, &stat) : 0;

        if (rc != 0) {
            return rc;
        }
        *rows[i].count = rows[i].there ? stat.ms_entries : 0;
    }
    return 0;
}

static void check_all(struct check *c)
{
    walk(c, c->x.s.records, "records", check_record);
    walk(c, c->x.s.expiry, "expiry", check_expiry);
    if (c->x.meta.format != LMDB_FORMAT_FIRST) {
        walk(c, c->x.s.subjects, "subjects", check_subject);
        walk(c, c->x.s.due, "due", check_due);
        walk(c, c->x.s.cutoffs, "cutoffs", check_cutoff);
    }
}

static enum sw_err check_run(struct lmdb_child *child, void *arg, const char **ret_why)
{
    const struct check_ask *ask = arg;
    struct check c = {.child = child, .n = &child->checked};
    enum sw_err err = sw_lmdb__source_open(&c.x, ask->path, false, ret_why);
    int rc;

    if (err != SW_OK) {
        return err;
    }
    c.n->format = c.x.meta.format;
    c.n->made_unix_s = c.x.meta.made_unix_s;
    c.n->file_bytes = c.x.file_bytes;
    c.sees_pages = (long)c.x.s.page_bytes <= sysconf(_SC_PAGESIZE);
    c.free = calloc(c.x.s.last_page / 8 + 1, 1);
    rc = c.free == NULL ? ENOMEM : free_list(&c);
    if (rc == 0) {
        c.n->free_bytes = c.free_pages * c.x.s.page_bytes;
        c.n->used_bytes = (c.x.s.last_page + 1 - c.free_pages) * c.x.s.page_bytes;
        rc = count_entries(&c);
    }
    if (rc != 0) {
        err = sw_lmdb__source_failed(&c.x, rc, ret_why);
    } else if (!ask->quick) {
        check_all(&c);
    }
    if (err == SW_OK && (c.bad || c.n->bad_records > 0 || c.n->bad_index > 0)) {
        err = sw_store__refuse(
            SW_E_STORE_CORRUPT, ret_why, "store %s: %s", c.x.s.path,
            !c.bad && c.n->bad_records == 0
                ? "its indexes do not fit its records; stop the gateway and run `stateway store "
                  "compact`, which makes them anew"
                : "it is damaged; restore it from a backup, or go on without what is damaged");
    }
    free(c.free);
    sw_lmdb__source_close(&c.x);
    return err;
}

enum sw_err sw_store_lmdb_check(struct sw_slice path, bool quick,
                                void (*complain)(void *arg, const char *text), void *arg,
                                struct sw_store_checked *ret_checked, const char **ret_why)
{
    struct check_ask ask = {path, quick};

    SW_ASSERT(complain != NULL);
    return sw_lmdb__in_child(check_run, &ask, complain, arg, ret_checked, ret_why);
}
