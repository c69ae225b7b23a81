/* store/lmdb_copy.c - sw_store_lmdb_backup and sw_store_lmdb_compact: the file once more.
 *
 * Room       store/. Each in a child process (lmdb_child.c), on one moment of the file.
 *
 * A backup is a copy page by page. Compacting reads every record and writes those that live into a
 * new file, in the order of their keys, with the indexes behind it: as dense as it can be, in the
 * newest format, and with indexes that fit even when the old ones did not. The old file is not
 * written to; the new one takes its name when it is whole and synced.
 */
#include "store/lmdb_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TXN_BYTES   (32ull << 20) /* of records, and then it is committed */
#define TXN_ENTRIES 65536u

static void no_complaints(void *arg, const char *text)
{
    (void)arg;
    (void)text;
}

/* ---- backup ---------------------------------------------------------------------------------- */

struct backup_ask {
    struct sw_slice path;
    const char *part; /* the folder it is made in */
};

static enum sw_err backup_run(struct lmdb_child *child, void *arg, const char **ret_why)
{
    const struct backup_ask *ask = arg;
    char path[STORE_PATH_BYTES_MAX];
    struct lmdb_source x;
    SW_CLEANUP(sw_store__fd_close) int fd = -1;
    SW_CLEANUP(sw_store__fd_close) int folder_fd = -1;
    enum sw_err err = sw_lmdb__source_open(&x, ask->path, false, ret_why);
    struct stat st;
    int rc = 0;

    (void)child;
    if (err != SW_OK) {
        return err;
    }
    mdb_txn_abort(sw_take(&x.txn)); /* the copy has its own */
    sw_store__path_join(path, sw_slice_cstr(ask->part), "data.mdb");
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    folder_fd = open(ask->part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || folder_fd < 0) {
        rc = errno;
    }
    if (rc == 0) {
        rc = mdb_env_copyfd(x.s.env, fd);
    }
    if (rc == 0 && (fsync(fd) != 0 || fsync(folder_fd) != 0 || fstat(fd, &st) != 0)) {
        rc = errno;
    }
    if (rc != 0) {
        return sw_store__refuse(sw_lmdb__err(rc), ret_why, "store %s: no backup was made: %s", path,
                                mdb_strerror(rc));
    }
    err = sw_lmdb__file_check(path, ret_why); /* what was written is what can be opened */
    sw_lmdb__source_close(&x);
    return err;
}

enum sw_err sw_store_lmdb_backup(struct sw_slice path, struct sw_slice to, const char **ret_why)
{
    struct store_part p;
    struct backup_ask ask = {path, p.part};
    enum sw_err err = sw_store__part_make(to, &p, ret_why);

    if (err != SW_OK) {
        return err;
    }
    err = sw_lmdb__in_child(backup_run, &ask, no_complaints, NULL, NULL, ret_why);
    if (err != SW_OK) {
        sw_store__part_drop(&p);
        return err;
    }
    return sw_store__part_name(&p, ret_why);
}

/* ---- compact --------------------------------------------------------------------------------- */

struct compact {
    struct lmdb_source x;
    struct lmdb_store to;
    MDB_txn *txn;
    size_t entries;
    uint64_t bytes; /* in txn */
    int64_t now_unix_s;
    uint64_t expiring, subjects, due; /* entries that the new records should have */
};

static int txn_next(struct compact *c)
{
    int rc = c->txn != NULL ? mdb_txn_commit(sw_take(&c->txn)) : 0;

    c->entries = 0;
    c->bytes = 0;
    return rc != 0 ? rc : mdb_txn_begin(c->to.env, NULL, 0, &c->txn);
}

static int put_next(struct compact *c, MDB_dbi dbi, MDB_val *k, MDB_val *v, unsigned flags)
{
    int rc = c->entries >= TXN_ENTRIES || c->bytes >= TXN_BYTES ? txn_next(c) : 0;

    c->entries++;
    c->bytes += k->mv_size + v->mv_size;
    return rc != 0 ? rc : mdb_put(c->txn, dbi, k, v, flags);
}

/* Has it expired, or was it cut off so long ago that the collector would take it? */
static int is_over(struct compact *c, const struct sw_record *r, bool *ret_over)
{
    struct store_cutoff cut = {0};
    int rc = 0;

    *ret_over = sw_store__expired(r->expires_unix_s, c->now_unix_s);
    if (!*ret_over && sw_store__has_subject(r) && c->x.meta.format != LMDB_FORMAT_FIRST) {
        rc = sw_lmdb__cutoff_find(&c->x.s, c->x.txn, r->subject, &cut);
        *ret_over = sw_store__cut(r, cut.not_before_unix_ms) &&
                    sw_store__expired(cut.look_unix_s, c->now_unix_s);
    }
    return rc;
}

static int copy_record(struct compact *c, const struct sw_store_key *key, struct lmdb_found *f)
{
    MDB_val k = key_val(key), v = {sw_lmdb__record_bytes(&f->record), NULL};
    bool over;
    int rc = is_over(c, &f->record, &over);

    if (rc != 0 || over) {
        return rc;
    }
    if (!sw_lmdb__indexed_ok(f)) {
        f->indexed = f->record.expires_unix_s; /* as if it were put now */
    }
    rc = put_next(c, c->to.records, &k, &v, MDB_RESERVE | MDB_APPEND);
    if (rc == 0) {
        sw_lmdb__record_write(v.mv_data, key, &f->record, f->indexed);
        c->expiring += f->indexed != 0;
        c->subjects += sw_store__has_subject(&f->record);
        c->due += f->record.due_unix_ms != 0;
    }
    return rc;
}

static enum sw_err copy_records(struct compact *c, const char **ret_why)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    enum sw_err err = SW_OK;
    int rc = mdb_cursor_open(c->x.txn, c->x.s.records, &cursor);

    if (rc != 0) {
        return sw_lmdb__source_failed(&c->x, rc, ret_why);
    }
    while (err == SW_OK && rc == 0 && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        struct sw_store_key key = {{0}};
        struct lmdb_found f;

        memcpy(key.bytes, k.mv_data, SW_MIN(k.mv_size, sizeof(key.bytes)));
        if (k.mv_size != sizeof(key.bytes) || !sw_lmdb__record_read(v, &key, SIZE_MAX, &f)) {
            err = sw_store__refuse(SW_E_STORE_CORRUPT, ret_why,
                                   "store %s: a record is damaged, and compacting would lose it; "
                                   "`stateway store check` tells which; the file was left as it is",
                                   c->x.s.path);
        } else {
            rc = copy_record(c, &key, &f);
        }
    }
    mdb_cursor_close(cursor);
    if (err == SW_OK && rc != MDB_NOTFOUND) {
        err = sw_lmdb__source_failed(&c->x, rc, ret_why);
    }
    return err;
}

static int copy_cutoffs(struct compact *c)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(c->x.txn, c->x.s.cutoffs, &cursor);

    if (rc != 0) {
        return rc;
    }
    while (rc == 0 && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        struct store_cutoff cut;

        if (!sw_lmdb__cutoff_read(v, sw_slice_of(k.mv_data, k.mv_size), &cut)) {
            rc = MDB_CORRUPTED;
        } else if (!sw_store__expired(cut.look_unix_s, c->now_unix_s) ||
                   !sw_store__expired(cut.expires_unix_s, c->now_unix_s)) {
            c->expiring += cut.look_unix_s != 0;
            rc = put_next(c, c->to.cutoffs, &k, &v, MDB_APPEND);
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- indexes --------------------------------------------------------------------------------- */

/* Is this an entry of what is in the new file? */
typedef int entry_fits_fn(struct compact *c, MDB_val k, bool *ret_fits);

static int expiry_fits(struct compact *c, MDB_val k, bool *ret_fits)
{
    struct store_cutoff cut;
    struct sw_store_key key;
    struct sw_slice subject;
    struct lmdb_found f;
    int64_t at;
    int rc;

    *ret_fits = false;
    if (!sw_lmdb__entry_read(k, &at, &key, &subject)) {
        return 0;
    }
    if (subject.len > 0) {
        rc = sw_lmdb__cutoff_find(&c->to, c->txn, subject, &cut);
        *ret_fits = cut.look_unix_s == at;
        return rc;
    }
    rc = sw_lmdb__record_find(&c->to, c->txn, &key, 0, &f);
    *ret_fits = f.there && f.indexed == at;
    return rc;
}

static int subject_fits(struct compact *c, MDB_val k, bool *ret_fits)
{
    struct sw_store_key key;
    struct sw_slice subject;
    struct lmdb_found f;
    int rc;

    *ret_fits = false;
    if (!sw_lmdb__subject_read(k, &subject, &key)) {
        return 0;
    }
    rc = sw_lmdb__record_find(&c->to, c->txn, &key, 0, &f);
    *ret_fits =
        f.there && sw_store__has_subject(&f.record) && sw_slice_eq(f.record.subject, subject);
    return rc;
}

static int due_fits(struct compact *c, MDB_val k, bool *ret_fits)
{
    struct sw_store_key key;
    struct sw_slice subject;
    struct lmdb_found f;
    int64_t at;
    int rc;

    *ret_fits = false;
    if (!sw_lmdb__entry_read(k, &at, &key, &subject) || subject.len > 0) {
        return 0;
    }
    rc = sw_lmdb__record_find(&c->to, c->txn, &key, 0, &f);
    *ret_fits = f.there && f.record.due_unix_ms == at;
    return rc;
}

/* Those of the old index that fit, in their order. *ret_count: how many. */
static int copy_index(struct compact *c, MDB_dbi from, MDB_dbi to, entry_fits_fn *fits,
                      uint64_t *ret_count)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(c->x.txn, from, &cursor);

    *ret_count = 0;
    if (rc != 0) {
        return rc;
    }
    while (rc == 0 && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        MDB_val none = {0, NULL};
        bool fit;

        rc = fits(c, k, &fit);
        if (rc == 0 && fit) {
            rc = put_next(c, to, &k, &none, MDB_APPEND);
            ++*ret_count;
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The entries of one record. */
static int make_entries(struct compact *c, const struct sw_store_key *key,
                        const struct lmdb_found *f)
{
    MDB_val none = {0, NULL};
    struct {
        bool wanted;
        MDB_dbi dbi;
        struct lmdb_entry e;
    } rows[3] = {
        {.wanted = f->indexed > 0, .dbi = c->to.expiry},
        {.wanted = sw_store__has_subject(&f->record), .dbi = c->to.subjects},
        {.wanted = f->record.due_unix_ms > 0, .dbi = c->to.due},
    };
    int rc = 0;

    if (rows[0].wanted) {
        rows[0].e = sw_lmdb__entry_at(f->indexed, key);
    }
    if (rows[1].wanted) {
        rows[1].e = sw_lmdb__entry_subject(f->record.subject, key);
    }
    if (rows[2].wanted) {
        rows[2].e = sw_lmdb__entry_at(f->record.due_unix_ms, key);
    }
    for (size_t i = 0; i < SW_COUNTOF(rows) && rc == 0; i++) {
        MDB_val k = entry_val(&rows[i].e);

        rc = rows[i].wanted ? put_next(c, rows[i].dbi, &k, &none, 0) : 0;
    }
    return rc;
}

static int make_cutoff_entry(struct compact *c, struct sw_slice subject, MDB_val v)
{
    struct store_cutoff cut;
    struct lmdb_entry e;
    MDB_val k, none = {0, NULL};

    if (!sw_lmdb__cutoff_read(v, subject, &cut)) {
        return MDB_CORRUPTED;
    }
    if (cut.look_unix_s == 0) {
        return 0;
    }
    e = sw_lmdb__entry_cutoff(cut.look_unix_s, subject);
    k = entry_val(&e);
    return put_next(c, c->to.expiry, &k, &none, 0);
}

static int make_all(struct compact *c, MDB_cursor *records, MDB_cursor *cutoffs)
{
    MDB_val k, v;
    int rc = 0;

    while (rc == 0 && (rc = mdb_cursor_get(records, &k, &v, MDB_NEXT)) == 0) {
        struct sw_store_key key;
        struct lmdb_found f;

        memcpy(key.bytes, k.mv_data, sizeof(key.bytes));
        rc = sw_lmdb__record_read(v, &key, 0, &f) ? make_entries(c, &key, &f) : MDB_CORRUPTED;
    }
    rc = rc == MDB_NOTFOUND ? 0 : rc;
    while (rc == 0 && (rc = mdb_cursor_get(cutoffs, &k, &v, MDB_NEXT)) == 0) {
        rc = make_cutoff_entry(c, sw_slice_of(k.mv_data, k.mv_size), v);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* All indexes from the records, for a file whose own do not fit them. The reader's databases are
 * not written to, and it has found them both before the first write: without LMDB's locks the
 * writer does not know of it. */
static int make_indexes(struct compact *c)
{
    SW_CLEANUP(sw_lmdb__abort) MDB_txn *reading = NULL;
    MDB_cursor *records = NULL, *cutoffs = NULL;
    int rc;

    if ((rc = mdb_drop(c->txn, c->to.expiry, 0)) != 0 ||
        (rc = mdb_drop(c->txn, c->to.subjects, 0)) != 0 ||
        (rc = mdb_drop(c->txn, c->to.due, 0)) != 0 || (rc = txn_next(c)) != 0 ||
        (rc = mdb_txn_begin(c->to.env, NULL, MDB_RDONLY, &reading)) != 0) {
        return rc;
    }
    rc = mdb_cursor_open(reading, c->to.records, &records);
    if (rc == 0) {
        rc = mdb_cursor_open(reading, c->to.cutoffs, &cutoffs);
    }
    if (rc == 0) {
        rc = make_all(c, records, cutoffs);
    }
    if (records != NULL) {
        mdb_cursor_close(records);
    }
    if (cutoffs != NULL) {
        mdb_cursor_close(cutoffs);
    }
    return rc;
}

static int copy_indexes(struct compact *c)
{
    uint64_t expiring = 0, subjects = 0, due = 0;
    bool whole = c->x.meta.format != LMDB_FORMAT_FIRST && !c->x.meta.upgrading;
    int rc = whole ? copy_index(c, c->x.s.expiry, c->to.expiry, expiry_fits, &expiring) : 0;

    if (whole && rc == 0) {
        rc = copy_index(c, c->x.s.subjects, c->to.subjects, subject_fits, &subjects);
    }
    if (whole && rc == 0) {
        rc = copy_index(c, c->x.s.due, c->to.due, due_fits, &due);
    }
    /* MDB_KEYEXIST: the old index is not in order */
    if (rc == MDB_KEYEXIST || (rc == 0 && (!whole || expiring != c->expiring ||
                                           subjects != c->subjects || due != c->due))) {
        rc = make_indexes(c);
    }
    return rc;
}

/* ---- the new file ---------------------------------------------------------------------------- */

static int to_open(struct compact *c, const char *path)
{
    struct lmdb_meta m = c->x.meta;
    uint64_t used = (c->x.s.last_page + 1) * c->x.s.page_bytes;
    int rc = mdb_env_create(&c->to.env);

    if (rc != 0) {
        c->to.env = NULL;
        return rc;
    }
    m.format = LMDB_FORMAT;
    m.upgrading = false;
    if ((rc = mdb_env_set_mapsize(c->to.env, SW_MAX(c->x.map_bytes, 2 * used + LMDB_MAP_MIN))) !=
            0 ||
        (rc = mdb_env_set_maxdbs(c->to.env, LMDB_DBS_MAX)) != 0 ||
        (rc = mdb_env_open(c->to.env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC | MDB_NOTLS,
                           0600)) != 0 ||
        (rc = mdb_env_get_fd(c->to.env, &c->to.data_fd)) != 0 || (rc = txn_next(c)) != 0) {
        return rc;
    }
    return sw_lmdb__dbs_make_in(&c->to, c->txn, &m);
}

/* Committed, as long as its last page says (see lmdb_file.c), and on the disk. */
static int to_finish(struct compact *c)
{
    MDB_envinfo info;
    struct stat st;
    off_t want;
    int rc = mdb_txn_commit(sw_take(&c->txn));

    if (rc != 0 || (rc = mdb_env_info(c->to.env, &info)) != 0) {
        return rc;
    }
    want = (off_t)((info.me_last_pgno + 1) * c->x.s.page_bytes);
    if (fstat(c->to.data_fd, &st) != 0 ||
        (st.st_size < want && ftruncate(c->to.data_fd, want) != 0)) {
        return errno;
    }
    rc = mdb_env_sync(c->to.env, 1);
    return rc == 0 && fsync(c->to.data_fd) != 0 ? errno : rc;
}

struct compact_ask {
    struct sw_slice path;
    const char *aside;
};

static enum sw_err compact_run(struct lmdb_child *child, void *arg, const char **ret_why)
{
    const struct compact_ask *ask = arg;
    struct compact *c = aligned_alloc(64, (sizeof(*c) + 63) & ~(size_t)63);
    enum sw_err err;
    int rc;

    (void)child;
    if (c == NULL) {
        return sw_store__refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
    }
    memset(c, 0, sizeof(*c));
    c->now_unix_s = (int64_t)(sw_store__clock_ns(CLOCK_REALTIME) / SW_NS_PER_S);
    err = sw_lmdb__source_open(&c->x, ask->path, true, ret_why);
    if (err != SW_OK) {
        return err;
    }
    rc = to_open(c, ask->aside);
    if (rc == 0) {
        err = copy_records(c, ret_why);
        if (err != SW_OK) {
            return err;
        }
        rc = c->x.meta.format != LMDB_FORMAT_FIRST ? copy_cutoffs(c) : 0;
    }
    rc = rc != 0 ? rc : copy_indexes(c);
    rc = rc != 0 ? rc : to_finish(c);
    if (rc != 0) {
        return sw_store__refuse(sw_lmdb__err(rc), ret_why,
                                "store %s: not compacted: %s; the file was left as it is",
                                c->x.s.path, mdb_strerror(rc));
    }
    sw_lmdb__env_close(&c->to);
    sw_lmdb__source_close(&c->x);
    return sw_lmdb__file_check(ask->aside, ret_why);
}

static uint64_t bytes_of(int fd, const char *path)
{
    struct stat st;

    return (path != NULL ? stat(path, &st) : fstat(fd, &st)) == 0 ? (uint64_t)st.st_blocks * 512
                                                                  : 0;
}

/* Nobody else has it open, and nobody reads it. */
static enum sw_err file_alone(const char *path, int *ret_fd, const char **ret_why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return errno == ENOENT ? sw_store__refuse(SW_E_NOT_FOUND, ret_why,
                                                  "store %s: there is no such file", path)
                               : sw_store__refuse(sw_lmdb__err(errno), ret_why, "store %s: %s",
                                                  path, strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return sw_store__refuse(SW_E_STORE_LOCKED, ret_why,
                                "store %s: another `stateway store` command reads it; wait until "
                                "that has ended",
                                path);
    }
    *ret_fd = fd;
    return SW_OK;
}

/* Who reads the new file must not meet LMDB's lock file of the old one, whose numbers differ: so
 * nobody may read it before that is gone. */
static int files_swap(const char *aside, const char *path, const char *lock, int folder_fd)
{
    SW_CLEANUP(sw_store__fd_close) int fd = open(aside, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0 || rename(aside, path) != 0) {
        return errno;
    }
    (void)unlink(lock);
    return fsync(folder_fd) != 0 ? errno : 0;
}

enum sw_err sw_store_lmdb_compact(struct sw_slice path, uint64_t *ret_before_bytes,
                                  uint64_t *ret_after_bytes, const char **ret_why)
{
    char data[STORE_PATH_BYTES_MAX], aside[STORE_PATH_BYTES_MAX], lock[STORE_PATH_BYTES_MAX];
    struct compact_ask ask = {path, aside};
    SW_CLEANUP(sw_store__fd_close) int folder_fd = -1;
    SW_CLEANUP(sw_store__fd_close) int lock_fd = -1;
    SW_CLEANUP(sw_store__fd_close) int data_fd = -1;
    uint64_t before;
    enum sw_err err;
    int rc;

    if (!sw_store__path_ok(path)) {
        return sw_store__refuse(SW_E_LIMIT, ret_why,
                                "store: the path of its folder is empty or too long");
    }
    sw_store__path_join(data, path, "data.mdb");
    sw_store__path_join(aside, path, "new.mdb");
    sw_store__path_join(lock, path, "data.mdb-lock");
    err = sw_store__folder_open(path, STORE_FILES_LMDB, false, &folder_fd, ret_why);
    if (err == SW_OK) {
        err = file_alone(data, &data_fd, ret_why);
    }
    if (err == SW_OK) {
        err = sw_store__lock_take(path, folder_fd, &lock_fd, ret_why);
    }
    if (err != SW_OK) {
        return err;
    }
    before = bytes_of(data_fd, NULL);
    (void)unlink(aside); /* of one that was cut off: we hold the lock */
    err = sw_lmdb__in_child(compact_run, &ask, no_complaints, NULL, NULL, ret_why);
    if (err == SW_OK) {
        rc = files_swap(aside, data, lock, folder_fd);
        err = rc == 0
                  ? SW_OK
                  : sw_store__refuse(sw_lmdb__err(rc), ret_why, "store %s: %s", data, strerror(rc));
    }
    if (err != SW_OK) {
        (void)unlink(aside);
        return err;
    }
    *ret_before_bytes = before;
    *ret_after_bytes = bytes_of(-1, data);
    return SW_OK;
}
