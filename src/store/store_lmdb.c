/* store/store_lmdb.c - the embedded store: LMDB, one committer thread, group commit.
 *
 * Room       store/. The only file that includes lmdb.h.
 * Flow       load: inline on the worker, by a read transaction the thread keeps and renews.
 *            commit: worker -> queue -> committer: one transaction and one sync for all that
 * arrived during the last one -> sw_loop_post to each asker.
 *
 * The folder (0700) holds:
 *   data.mdb        the LMDB environment; made under another name and renamed when complete, so a
 *                   file of this name that is empty or short has been damaged, and is refused
 *   data.mdb-lock   LMDB's table of readers
 *   lock            flock()ed while the store is open; the holder's pid as text
 *
 * Three databases in it, all integers little-endian unless said otherwise:
 *
 *   meta      "store" -> 40 bytes
 *       0   8  "stateway"
 *       8   4  format, 1
 *      12   4  0
 *      16   8  unix time it was made
 *      24  16  random id of this store
 *
 *   records   key (32 bytes) -> record
 *       0   1  format of the record, 1
 *       1   1  kind: 1 state, 2 tombstone, 3 alias
 *       2   1  length of the subject, S
 *       3   1  0
 *       4   4  sum over the key and all other bytes (record_sum)
 *       8   8  version: epoch, not 0
 *      16   8  version: counter, from 1
 *      24   8  created, unix seconds
 *      32   8  touched
 *      40   8  expires, 0: never
 *      48   8  absolute end, 0: none
 *      56   8  indexed: the time under which the record stands in `expiry`, 0: it does not
 *      64   S  subject
 *   64 + S     value, to the end
 *
 *   expiry    time (8 bytes, big-endian: sorts) + key (32 bytes) -> nothing
 *      At most one entry a record, never later than the record's expiry. A session that is used
 *      again and again moves its expiry but not its entry; when the entry's time comes, the
 *      collector sees that the record lives on and moves the entry then. That saves two page
 *      writes in nearly every commit.
 *
 * Syncing. always: LMDB's own order, data pages, fdatasync, meta page with O_DSYNC: nothing that
 * was acknowledged is lost, whatever happens. everysec and no: MDB_NOSYNC; a killed process loses
 * nothing, but if the machine dies, up to a second (or what the kernel had not written) is lost,
 * and since pages may reach the disk in any order the file can be damaged and must then be
 * restored: lmdb.h says so, and it is why `always` is the default.
 *
 * A full map. LMDB needs fresh pages even to delete, so a map that is full to the last page is
 * stuck. The map is larger than map_bytes_max by a reserve: puts are refused from map_bytes_max on
 * unless free pages suffice; deletes, touches and the collector may use the reserve. (A touch
 * rewrites its record; one longer than a page needs pages in a row, and may be refused by a full
 * map.) The size of the map never changes while it is open, so no reader must be held up for it.
 *
 * A file that was cut. LMDB maps it and would die of SIGBUS, so open compares the last page number
 * with the file's size. LMDB may count a last page that it never wrote (taken and dropped within
 * one transaction); so the committer makes the file longer than it can become *before* each
 * transaction: a short file has lost something.
 *
 * A disk error while the meta page is written makes LMDB refuse everything, reads too, until the
 * environment is opened again (MDB_PANIC). The committer does that: it stops the readers for the
 * moment, by a flag each of them raises while it reads (a cache line of its own, no lock).
 */
#include "store/store_priv.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"

#define FORMAT           1u
#define RECORD_FORMAT    1u
#define RECORD_HEAD      64u
#define META_BYTES       40u
#define MAP_DEFAULT      (64ull << 30)
#define MAP_MIN          (1ull << 20)
#define BATCH_MAX        1024u
#define BATCH_BYTES_MAX  (16u << 20) /* so that one large batch does not hold up small commits */
#define COLLECT_IDLE_MAX 256u        /* expired records a transaction when nobody waits */
#define COLLECT_BUSY_MAX 32u         /* ... and beside a batch, whose sync it shares */
#define TICK_NS          SW_NS_PER_S
#define FILE_STEP_BYTES  (1ull << 20)
#define PAGES_BASE       16u
#define PAGES_KEPT       32u
#define SLACK_PAGES      1024u /* of the file's length; far more than tree and free list take */
#define PATH_BYTES_MAX   4096

_Static_assert(sizeof(struct sw_store_key) == 32, "the format says 32");
_Static_assert(SW_SUBJECT_BYTES_MAX <= UINT8_MAX, "its length is one byte");

struct lmdb_store;

/* A thread that reads. */
struct reader {
    _Alignas(64) atomic_bool busy; /* it is using env and txn */
    _Atomic uint64_t loads;
    MDB_txn *txn; /* reset between loads; NULL: none yet, or the environment was opened anew */
    struct lmdb_store *store;
    struct sw_link link;
};

struct lmdb_store {
    struct sw_store base;
    struct sw_store_options opt;
    char path[PATH_BYTES_MAX]; /* of data.mdb */
    int lock_fd;
    unsigned forks; /* fork_generation at open */

    /* The committer's, and the readers' while they are busy. */
    MDB_env *env; /* NULL: could not be opened again */
    MDB_dbi records, expiry;
    unsigned page_bytes;
    int data_fd; /* LMDB's */

    /* Readers. */
    pthread_key_t key;
    pthread_mutex_t readers_lock;
    struct sw_link readers;
    uint32_t reader_count;
    uint64_t loads_gone; /* of threads that ended */
    _Alignas(64) atomic_bool readers_stopped;

    /* Queue. */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct sw_store_commit *first, **last; /* linked by commit_wait.next */
    uint32_t waiting;
    bool asleep, stop;

    /* The committer's own. */
    pthread_t thread;
    struct sw_store_commit *batch[BATCH_MAX];
    struct sw_rng rng; /* epochs: unique, not secret */
    char *scratch;     /* a record being moved */
    size_t scratch_bytes;
    uint64_t file_bytes;
    uint64_t last_page; /* of the last committed transaction */
    bool unsynced;      /* everysec: since the last sync */
    bool overdue;       /* expired records may be left */
    uint64_t collected; /* in the transaction that runs */
    uint64_t tick_ns;

    /* Published for stats. */
    _Atomic uint64_t record_count, bytes_used;
};

/* store_private of a commit. */
struct commit_wait {
    struct sw_post post;
    struct sw_store_commit *next;
};
_Static_assert(sizeof(struct commit_wait) <= sizeof(((struct sw_store_commit *)0)->store_private),
               "a waiting commit fits");

static struct commit_wait *wait_of(struct sw_store_commit *op)
{
    return (struct commit_wait *)(void *)op->store_private;
}

/* LMDB must not be used across a fork: a child that tries is stopped by an assertion. */
static atomic_uint fork_generation;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void fork_child(void)
{
    atomic_fetch_add(&fork_generation, 1);
}

static void fork_watch(void)
{
    int rc = pthread_atfork(NULL, NULL, fork_child);

    SW_ASSERT(rc == 0);
}

static struct lmdb_store *lmdb_of(struct sw_store *store)
{
    struct lmdb_store *s = (struct lmdb_store *)store;

    SW_ASSERT(s->forks == atomic_load_explicit(&fork_generation, memory_order_relaxed));
    return s;
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * SW_NS_PER_S + (uint64_t)ts.tv_nsec;
}

static enum sw_err store_err(int rc)
{
    switch (rc) {
    case MDB_SUCCESS:
        return SW_OK;
    case MDB_NOTFOUND:
        return SW_E_NOT_FOUND;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return SW_E_STORE_FULL;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
        return SW_E_STORE_CORRUPT;
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
        return SW_E_STORE_FORMAT;
    case MDB_READERS_FULL:
        return SW_E_STORE_BUSY;
    case ENOMEM:
        return SW_E_NO_MEMORY;
    case EACCES:
    case EPERM:
    case EROFS:
        return SW_E_PERMISSION;
    default:
        return SW_E_STORE_IO;
    }
}

static void txn_abort(MDB_txn **txn)
{
    mdb_txn_abort(*txn); /* takes NULL */
}

/* ---- the record format -------------------------------------------------------------------------
 */

static void put_u32(unsigned char *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static uint32_t get_u32(const unsigned char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static void put_u64(unsigned char *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof(v));
}

static uint64_t get_u64(const unsigned char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

static uint64_t sum_words(uint64_t h, const unsigned char *p, size_t len)
{
    while (len > 0) {
        unsigned char word[8] = {0};
        size_t n = SW_MIN(len, sizeof(word));

        memcpy(word, p, n);
        h = (h ^ get_u64(word)) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
        p += n;
        len -= n;
    }
    return h;
}

/* Against rot and torn pages, not against people. Words of 8 bytes, the last one filled with zeros:
 * the key, bytes 0..3, bytes 8 to the end; start is the length; the lower half of the end. */
static uint32_t record_sum(const struct sw_store_key *key, const unsigned char *p, size_t len)
{
    uint64_t h = len;

    h = sum_words(h, key->bytes, sizeof(key->bytes));
    h = sum_words(h, p, 4);
    h = sum_words(h, p + 8, len - 8);
    return (uint32_t)h;
}

static size_t record_bytes(const struct sw_record *r)
{
    return RECORD_HEAD + r->subject.len + r->value.len;
}

static void record_times(unsigned char *p, const struct sw_record *r, int64_t indexed)
{
    put_u64(p + 32, (uint64_t)r->touched_unix_s);
    put_u64(p + 40, (uint64_t)r->expires_unix_s);
    put_u64(p + 56, (uint64_t)indexed);
}

static void record_write(unsigned char *p, const struct sw_store_key *key,
                         const struct sw_record *r, int64_t indexed)
{
    p[0] = RECORD_FORMAT;
    p[1] = (unsigned char)r->kind;
    p[2] = (unsigned char)r->subject.len;
    p[3] = 0;
    put_u64(p + 8, r->version.epoch);
    put_u64(p + 16, r->version.counter);
    put_u64(p + 24, (uint64_t)r->created_unix_s);
    record_times(p, r, indexed);
    put_u64(p + 48, (uint64_t)r->absolute_unix_s);
    if (r->subject.len > 0) {
        memcpy(p + RECORD_HEAD, r->subject.ptr, r->subject.len);
    }
    if (r->value.len > 0) {
        memcpy(p + RECORD_HEAD + r->subject.len, r->value.ptr, r->value.len);
    }
    put_u32(p + 4, record_sum(key, p, record_bytes(r)));
}

/* False: the bytes are no record of ours. Slices point into it. */
static bool record_read(MDB_val v, const struct sw_store_key *key, struct sw_record *ret_record,
                        int64_t *ret_indexed)
{
    const unsigned char *p = v.mv_data;
    struct sw_record r;

    if (v.mv_size < RECORD_HEAD || p[0] != RECORD_FORMAT || p[1] < SW_RECORD_STATE ||
        p[1] > SW_RECORD_ALIAS || p[3] != 0 || p[2] > v.mv_size - RECORD_HEAD ||
        get_u32(p + 4) != record_sum(key, p, v.mv_size)) {
        return false;
    }
    r.kind = (enum sw_record_kind)p[1];
    r.version = (struct sw_version){get_u64(p + 8), get_u64(p + 16)};
    r.created_unix_s = (int64_t)get_u64(p + 24);
    r.touched_unix_s = (int64_t)get_u64(p + 32);
    r.expires_unix_s = (int64_t)get_u64(p + 40);
    r.absolute_unix_s = (int64_t)get_u64(p + 48);
    r.subject = sw_slice_of(p + RECORD_HEAD, p[2]);
    r.value = sw_slice_of(p + RECORD_HEAD + p[2], v.mv_size - RECORD_HEAD - p[2]);
    if (sw_version_none(r.version)) {
        return false;
    }
    *ret_record = r;
    *ret_indexed = (int64_t)get_u64(p + 56);
    return true;
}

static MDB_val key_val(const struct sw_store_key *key)
{
    return (MDB_val){sizeof(key->bytes),
                     (void *)(uintptr_t)key->bytes}; /* LMDB does not write it */
}

/* ---- the expiry index --------------------------------------------------------------------------
 */

struct entry {
    unsigned char bytes[8 + sizeof(struct sw_store_key)];
};

static struct entry entry_of(int64_t unix_s, const struct sw_store_key *key)
{
    uint64_t be = htobe64((uint64_t)unix_s);
    struct entry e;

    memcpy(e.bytes, &be, sizeof(be));
    memcpy(e.bytes + sizeof(be), key->bytes, sizeof(key->bytes));
    return e;
}

static int entry_put(struct lmdb_store *s, MDB_txn *txn, int64_t unix_s,
                     const struct sw_store_key *key)
{
    struct entry e = entry_of(unix_s, key);
    MDB_val k = {sizeof(e.bytes), e.bytes}, none = {0, NULL};

    return mdb_put(txn, s->expiry, &k, &none, 0);
}

static int entry_del(struct lmdb_store *s, MDB_txn *txn, int64_t unix_s,
                     const struct sw_store_key *key)
{
    struct entry e = entry_of(unix_s, key);
    MDB_val k = {sizeof(e.bytes), e.bytes};
    int rc = mdb_del(txn, s->expiry, &k, NULL);

    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The entry for a record that now expires then, having stood under `indexed`. */
static int entry_move(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                      int64_t indexed, int64_t expires, int64_t *ret_indexed)
{
    int rc = 0;

    if (indexed != 0 && expires != 0 && indexed <= expires) {
        *ret_indexed = indexed; /* early enough: the collector will move it */
        return 0;
    }
    if (indexed != 0) {
        rc = entry_del(s, txn, indexed, key);
    }
    /* A time before 1970 is gone at once: it must not sort behind all others. */
    expires = expires < 0 ? 1 : expires;
    if (rc == 0 && expires != 0) {
        rc = entry_put(s, txn, expires, key);
    }
    *ret_indexed = expires;
    return rc;
}

/* ---- one commit within a transaction ------------------------------------------------------------
 */

struct found {
    bool there; /* perhaps expired */
    struct sw_record record;
    int64_t indexed;
};

static int record_find(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                       struct found *f)
{
    MDB_val k = key_val(key), v;
    int rc = mdb_get(txn, s->records, &k, &v);

    *f = (struct found){0};
    if (rc == MDB_NOTFOUND) {
        return 0;
    }
    if (rc == 0) {
        f->there = true;
        rc = record_read(v, key, &f->record, &f->indexed) ? 0 : MDB_CORRUPTED;
    }
    return rc;
}

/* A record that stays as it is but for its times. v is its place now. */
static int record_retime(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                         const struct sw_record *r, int64_t indexed)
{
    MDB_val k = key_val(key), v;
    unsigned char *p;
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
    p = (unsigned char *)s->scratch;
    record_times(p, r, indexed);
    put_u32(p + 4, record_sum(key, p, v.mv_size));
    v.mv_data = s->scratch;
    return mdb_put(txn, s->records, &k, &v, 0);
}

static int record_put(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *key,
                      const struct sw_record *r, int64_t indexed)
{
    MDB_val k = key_val(key), v = {record_bytes(r), NULL};
    int rc = 0;

    if (r->kind == SW_RECORD_TOMBSTONE) {
        /* Only a delete lets LMDB join pages that have become empty; to write less over it does
         * not. */
        rc = mdb_del(txn, s->records, &k, NULL);
        rc = rc == MDB_NOTFOUND ? 0 : rc;
    }
    if (rc == 0) {
        rc = mdb_put(txn, s->records, &k, &v, MDB_RESERVE);
    }
    if (rc == 0) {
        record_write(v.mv_data, key, r, indexed);
    }
    return rc;
}

static uint64_t epoch_new(struct lmdb_store *s)
{
    return sw_rng_u64(&s->rng) | 1;
}

/* Sets op->err when the commit is refused: then nothing of it is in txn. What it returns otherwise
 * than 0 spoils the transaction. All expectations are looked at before the first write, on the
 * transaction's view, so commits of one batch see each other and need no nested transactions. */
static int commit_apply(struct lmdb_store *s, MDB_txn *txn, struct sw_store_commit *op,
                        bool *ret_wrote)
{
    struct store_plan plans[SW_COMMIT_WRITES_MAX];
    struct found found[SW_COMMIT_WRITES_MAX];

    for (size_t i = 0; i < op->count; i++) {
        const struct sw_write *w = &op->writes[i];
        struct found *f = &found[i];
        bool live;
        int rc = record_find(s, txn, &w->key, f);

        if (rc != 0) {
            op->failed = i;
            op->err = store_err(rc);
            return 0;
        }
        live = f->there && !sw_store__expired(f->record.expires_unix_s, op->now_unix_s);
        plans[i] = sw_store__plan(w, live ? &f->record : NULL, op->now_unix_s, epoch_new(s));
        if (plans[i].err != SW_OK) {
            op->failed = i;
            op->err = plans[i].err;
            return 0;
        }
    }
    for (size_t i = 0; i < op->count; i++) {
        struct sw_write *w = &op->writes[i];
        int64_t indexed;
        int rc;

        w->ret_version = plans[i].record.version;
        if (plans[i].act == STORE_KEEP) {
            continue;
        }
        *ret_wrote = true;
        rc =
            entry_move(s, txn, &w->key, found[i].indexed, plans[i].record.expires_unix_s, &indexed);
        if (rc == 0) {
            rc = plans[i].act == STORE_PUT
                     ? record_put(s, txn, &w->key, &plans[i].record, indexed)
                     : record_retime(s, txn, &w->key, &plans[i].record, indexed);
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* ---- expired records ----------------------------------------------------------------------------
 */

static int collect_one(struct lmdb_store *s, MDB_txn *txn, int64_t at,
                       const struct sw_store_key *key, int64_t now)
{
    MDB_val k = key_val(key);
    struct found f;
    int64_t indexed;
    int rc = record_find(s, txn, key, &f);

    if (rc == MDB_CORRUPTED || (rc == 0 && (!f.there || f.indexed != at))) {
        return entry_del(s, txn, at, key); /* a damaged record is kept for people to look at */
    }
    if (rc != 0) {
        return rc;
    }
    if (sw_store__expired(f.record.expires_unix_s, now)) {
        rc = mdb_del(txn, s->records, &k, NULL);
        if (rc == 0) {
            s->collected++;
            rc = entry_del(s, txn, at, key);
        }
        return rc;
    }
    rc = entry_del(s, txn, at, key);
    if (rc == 0) {
        rc = entry_move(s, txn, key, 0, f.record.expires_unix_s, &indexed);
    }
    return rc != 0 ? rc : record_retime(s, txn, key, &f.record, indexed);
}

/* At most max of them; clears `overdue` when no more are due. */
static int collect(struct lmdb_store *s, MDB_txn *txn, size_t max, bool *ret_wrote)
{
    int64_t now = (int64_t)(clock_ns(CLOCK_REALTIME) / SW_NS_PER_S);
    MDB_cursor *cursor;
    int rc;

    for (size_t i = 0; i < max; i++) {
        struct sw_store_key key;
        MDB_val k, v;
        uint64_t be;
        int64_t at;

        /* A new cursor each time: what is deleted and put moves the tree under it. */
        rc = mdb_cursor_open(txn, s->expiry, &cursor);
        if (rc != 0) {
            return rc;
        }
        rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST);
        if (rc == 0 && k.mv_size != sizeof(struct entry)) {
            rc = MDB_CORRUPTED;
        }
        if (rc == 0) {
            memcpy(&be, k.mv_data, sizeof(be));
            memcpy(key.bytes, (const char *)k.mv_data + sizeof(be), sizeof(key.bytes));
        }
        mdb_cursor_close(cursor);
        if (rc != 0) {
            s->overdue = false;
            return rc == MDB_NOTFOUND ? 0 : rc;
        }
        at = (int64_t)be64toh(be);
        if (at > now) {
            s->overdue = false;
            return 0;
        }
        *ret_wrote = true;
        rc = collect_one(s, txn, at, &key, now);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* ---- room
 * ---------------------------------------------------------------------------------------- */

/* Pages that wait to be used again, and of those the ones the next transaction may take: not what
 * the last one dropped. One word is read of each entry of LMDB's free list (database 0, open to
 * read transactions only; its keys are transaction numbers): as many entries as transactions whose
 * pages still wait. */
static int free_pages(struct lmdb_store *s, uint64_t *ret_pages, uint64_t *ret_usable)
{
    SW_CLEANUP(txn_abort) MDB_txn *txn = NULL;
    MDB_cursor *cursor;
    MDB_val k, v;
    uint64_t pages = 0, usable = 0;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    if (rc == 0) {
        rc = mdb_cursor_open(txn, 0, &cursor);
    }
    if (rc != 0) {
        return rc;
    }
    while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        size_t count, number;

        memcpy(&count, v.mv_data, sizeof(count));
        memcpy(&number, k.mv_data, sizeof(number));
        pages += count;
        usable += number < mdb_txn_id(txn) ? count : 0;
    }
    mdb_cursor_close(cursor);
    *ret_pages = pages;
    *ret_usable = usable;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static uint64_t map_reserve(uint64_t map_bytes_max)
{
    return SW_MAX(map_bytes_max / 32, MAP_MIN);
}

/* What a commit's puts take at most: their values, a leaf of each tree, perhaps split, and their
 * share of the branches above. PAGES_BASE is for the rest, once a transaction. */
static uint64_t pages_needed(const struct lmdb_store *s, const struct sw_store_commit *op)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < op->count; i++) {
        const struct sw_write *w = &op->writes[i];

        if (w->kind == SW_WRITE_PUT) {
            pages += (RECORD_HEAD + w->subject.len + w->value.len) / s->page_bytes + 6;
        }
    }
    return pages;
}

/* How many pages puts may take in this transaction. */
static int pages_allowed(struct lmdb_store *s, uint64_t needed, uint64_t *ret_allowed)
{
    uint64_t limit = s->opt.map_bytes_max / s->page_bytes, used = s->last_page + 1, freed, usable;
    uint64_t room = limit > used + PAGES_BASE ? limit - used - PAGES_BASE : 0;
    int rc;

    if (needed <= room) {
        *ret_allowed = needed;
        return 0;
    }
    rc = free_pages(s, &freed, &usable);
    if (rc != 0) {
        return rc;
    }
    /* A long value needs pages in a row: where the free ones are scattered LMDB takes new ones
     * behind the limit, up to the end of the map. Some single pages are left for deletes then. */
    *ret_allowed = room + (usable > PAGES_KEPT ? usable - PAGES_KEPT : 0);
    return 0;
}

/* See the top: the file must be longer than what this transaction can make of it. An error shows
 * itself when pages are written. */
static void file_extend(struct lmdb_store *s, uint64_t pages)
{
    uint64_t want = (s->last_page + 1 + 2 * pages + SLACK_PAGES) * s->page_bytes;
    uint64_t most = s->opt.map_bytes_max + map_reserve(s->opt.map_bytes_max);

    want = (want + FILE_STEP_BYTES - 1) / FILE_STEP_BYTES * FILE_STEP_BYTES;
    want = SW_MIN(want, SW_MAX(most, s->file_bytes));
    if (want > s->file_bytes && ftruncate(s->data_fd, (off_t)want) == 0) {
        s->file_bytes = want;
    }
}

/* ---- opening the environment
 * --------------------------------------------------------------------- */

static _Thread_local char why_text[1024];

static enum sw_err SW_PRINTF(3, 4)
    refuse(enum sw_err err, const char **ret_why, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(why_text, sizeof(why_text), fmt, ap);
    va_end(ap);
    *ret_why = why_text;
    return err;
}

static void env_close(struct lmdb_store *s)
{
    if (s->env != NULL) {
        mdb_env_close(s->env);
        s->env = NULL;
    }
}

static int env_open(struct lmdb_store *s, const char *path)
{
    unsigned flags = MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD;
    uint64_t map = s->opt.map_bytes_max + map_reserve(s->opt.map_bytes_max);
    MDB_envinfo info;
    MDB_stat stat;
    struct stat st;
    int rc;

    if (s->opt.sync != SW_SYNC_ALWAYS) {
        flags |= MDB_NOSYNC;
    }
    rc = mdb_env_create(&s->env);
    if (rc != 0) {
        s->env = NULL;
        return rc;
    }
    if ((rc = mdb_env_set_mapsize(s->env, map)) != 0 || (rc = mdb_env_set_maxdbs(s->env, 4)) != 0 ||
        (rc = mdb_env_set_maxreaders(s->env, s->opt.readers_max + 4)) != 0 ||
        (rc = mdb_env_open(s->env, path, flags, 0600)) != 0 ||
        (rc = mdb_env_get_fd(s->env, &s->data_fd)) != 0 ||
        (rc = mdb_env_stat(s->env, &stat)) != 0 || (rc = mdb_env_info(s->env, &info)) != 0) {
        env_close(s);
        return rc;
    }
    if (fstat(s->data_fd, &st) != 0) {
        rc = errno;
        env_close(s);
        return rc;
    }
    s->page_bytes = stat.ms_psize;
    s->last_page = info.me_last_pgno;
    s->file_bytes = (uint64_t)st.st_size;
    return 0;
}

/* Opens the three databases and reads the meta record: exactly META_BYTES, or what is wrong. */
static int dbs_open(struct lmdb_store *s, unsigned char meta[META_BYTES], size_t *ret_meta_bytes)
{
    SW_CLEANUP(txn_abort) MDB_txn *txn = NULL;
    MDB_val k = {5, (void *)(uintptr_t) "store"}, v;
    MDB_dbi dbi;
    int rc;

    if ((rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn)) != 0 ||
        (rc = mdb_dbi_open(txn, "meta", 0, &dbi)) != 0 || (rc = mdb_get(txn, dbi, &k, &v)) != 0) {
        return rc;
    }
    *ret_meta_bytes = v.mv_size;
    memcpy(meta, v.mv_data, SW_MIN(v.mv_size, META_BYTES));
    if (v.mv_size < 12 || memcmp(meta, "stateway", 8) != 0 || get_u32(meta + 8) != FORMAT) {
        return 0; /* the caller says so */
    }
    if ((rc = mdb_dbi_open(txn, "records", 0, &s->records)) != 0 ||
        (rc = mdb_dbi_open(txn, "expiry", 0, &s->expiry)) != 0) {
        return rc;
    }
    return mdb_txn_commit(sw_take(&txn)); /* the handles stay */
}

static int dbs_make(struct lmdb_store *s)
{
    SW_CLEANUP(txn_abort) MDB_txn *txn = NULL;
    unsigned char meta[META_BYTES] = "stateway";
    MDB_val k = {5, (void *)(uintptr_t) "store"}, v = {sizeof(meta), meta};
    MDB_dbi dbi;
    int rc;

    put_u32(meta + 8, FORMAT);
    put_u64(meta + 16, clock_ns(CLOCK_REALTIME) / SW_NS_PER_S);
    for (size_t i = 0; i < 2; i++) {
        put_u64(meta + 24 + 8 * i, sw_rng_u64(&s->rng));
    }
    if ((rc = mdb_txn_begin(s->env, NULL, 0, &txn)) != 0 ||
        (rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &dbi)) != 0 ||
        (rc = mdb_put(txn, dbi, &k, &v, 0)) != 0 ||
        (rc = mdb_dbi_open(txn, "records", MDB_CREATE, &dbi)) != 0 ||
        (rc = mdb_dbi_open(txn, "expiry", MDB_CREATE, &dbi)) != 0) {
        return rc;
    }
    rc = mdb_txn_commit(sw_take(&txn));
    if (rc == 0) {
        file_extend(s, 0);
        rc = mdb_env_sync(s->env, 1);
    }
    return rc;
}

static enum sw_err meta_check(const char *path, const unsigned char *meta, size_t bytes,
                              const char **ret_why)
{
    if (bytes < 12 || memcmp(meta, "stateway", 8) != 0) {
        return refuse(SW_E_STORE_FORMAT, ret_why,
                      "store %s: an LMDB file, but not a store of stateway; name another folder",
                      path);
    }
    if (get_u32(meta + 8) != FORMAT) {
        return refuse(SW_E_STORE_FORMAT, ret_why,
                      "store %s: format %u, this stateway knows format %u; use the stateway that "
                      "wrote it, or name another folder",
                      path, get_u32(meta + 8), FORMAT);
    }
    if (bytes != META_BYTES) {
        return refuse(SW_E_STORE_CORRUPT, ret_why,
                      "store %s: its description is damaged; restore it from a backup, or name "
                      "another folder",
                      path);
    }
    return SW_OK;
}

/* ---- the committer
 * ------------------------------------------------------------------------------- */

/* The environment broke (MDB_PANIC): opens it anew. Readers get SW_E_STORE_IO meanwhile. */
static void env_reopen(struct lmdb_store *s)
{
    unsigned char meta[META_BYTES];
    size_t meta_bytes = 0;
    int rc;

    atomic_store(&s->readers_stopped, true);
    pthread_mutex_lock(&s->readers_lock);
    for (struct sw_link *l = s->readers.next; l != &s->readers; l = l->next) {
        struct reader *r = SW_CONTAINER(l, struct reader, link);

        while (atomic_load(&r->busy)) {
            sched_yield(); /* a load takes microseconds */
        }
        mdb_txn_abort(sw_take(&r->txn));
    }
    env_close(s);
    rc = env_open(s, s->path);
    if (rc == 0) {
        rc = dbs_open(s, meta, &meta_bytes);
        if (rc != 0 || meta_bytes != META_BYTES) {
            env_close(s);
        }
    }
    if (s->env != NULL) {
        atomic_store(&s->readers_stopped, false);
    }
    pthread_mutex_unlock(&s->readers_lock);
}

static bool env_panics(struct lmdb_store *s)
{
    MDB_txn *txn = NULL;
    int rc = s->env == NULL ? MDB_PANIC : mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    mdb_txn_abort(txn);
    return rc == MDB_PANIC;
}

static int txn_begin(struct lmdb_store *s, MDB_txn **ret_txn)
{
    int rc = s->env == NULL ? MDB_PANIC : mdb_txn_begin(s->env, NULL, 0, ret_txn);

    if (rc == MDB_PANIC) {
        env_reopen(s);
        rc = s->env == NULL ? EIO : mdb_txn_begin(s->env, NULL, 0, ret_txn);
    }
    s->collected = 0;
    return rc;
}

/* Frees txn even when it fails. */
static int txn_commit(struct lmdb_store *s, MDB_txn *txn)
{
    MDB_envinfo info;
    MDB_stat stat;
    bool counted = mdb_stat(txn, s->records, &stat) == 0;
    int rc = mdb_txn_commit(txn);

    if (rc != 0) {
        if (env_panics(s)) {
            env_reopen(s); /* now, so that readers do not wait for the next commit */
        }
        return rc;
    }
    sw_store__add(&s->base.expired, s->collected);
    if (counted) {
        atomic_store_explicit(&s->record_count, stat.ms_entries, memory_order_relaxed);
    }
    if (mdb_env_info(s->env, &info) == 0) {
        s->last_page = info.me_last_pgno;
    }
    if (s->opt.sync == SW_SYNC_ALWAYS) {
        sw_store__add(&s->base.syncs, 1);
    } else {
        s->unsynced = true;
    }
    return 0;
}

/* LMDB calls a write that was cut short an I/O error; mostly the disk, or what this process may
 * write, is full. */
static bool disk_full(const struct lmdb_store *s, uint64_t pages)
{
    uint64_t bytes = (pages + SLACK_PAGES) * s->page_bytes;
    struct rlimit limit;
    struct statfs fs;

    return (s->env != NULL && fstatfs(s->data_fd, &fs) == 0 &&
            (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize < bytes) ||
           (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
            (uint64_t)limit.rlim_cur < s->last_page * s->page_bytes + bytes);
}

/* A batch in one transaction and one sync. Returns other than 0 when nothing of it was made. */
static int batch_try(struct lmdb_store *s, struct sw_store_commit **ops, size_t count)
{
    SW_CLEANUP(txn_abort) MDB_txn *txn = NULL;
    uint64_t needed = 0, allowed;
    bool wrote = false;
    int rc = txn_begin(s, &txn);

    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        needed += pages_needed(s, ops[i]);
    }
    rc = pages_allowed(s, needed, &allowed);
    if (rc != 0) {
        return rc;
    }
    file_extend(s, needed);
    for (size_t i = 0; i < count; i++) {
        uint64_t pages = pages_needed(s, ops[i]);

        ops[i]->err = SW_OK;
        if (pages > allowed) {
            ops[i]->err = SW_E_STORE_FULL;
            continue;
        }
        rc = commit_apply(s, txn, ops[i], &wrote);
        if (rc != 0) {
            return rc;
        }
        if (ops[i]->err == SW_OK) {
            allowed -= pages;
        }
    }
    if (s->overdue) {
        rc = collect(s, txn, COLLECT_BUSY_MAX, &wrote);
        if (rc != 0) {
            return rc;
        }
    }
    rc = wrote ? txn_commit(s, sw_take(&txn)) : 0;
    return rc == EIO && disk_full(s, needed) ? ENOSPC : rc;
}

static void answer(struct lmdb_store *s, struct sw_store_commit *op, uint64_t now_ns)
{
    if (op->err != SW_OK) {
        for (size_t i = 0; i < op->count; i++) {
            op->writes[i].ret_version = (struct sw_version){0, 0};
        }
    }
    sw_store__count(&s->base, op, now_ns);
    sw_loop_post(op->loop, &wait_of(op)->post); /* from here on it is not ours */
}

static void batch_commit(struct lmdb_store *s, struct sw_store_commit **ops, size_t count)
{
    bool collecting = s->overdue;
    enum sw_err err = store_err(batch_try(s, ops, count));
    uint64_t now_ns;
    size_t again = 0;

    if (err != SW_OK && collecting) {
        s->overdue = false; /* the collector's trouble is not the askers' */
        err = store_err(batch_try(s, ops, count));
    }
    now_ns = clock_ns(CLOCK_MONOTONIC);
    for (size_t i = 0; i < count; i++) {
        if (err != SW_OK) {
            /* Refusals too: they may rest on what another commit of the batch would have written.
             */
            ops[i]->err = err;
            ops[i]->failed = 0;
        }
        if (ops[i]->err == SW_E_STORE_FULL && count > 1) {
            ops[again++] = ops[i];
        } else {
            answer(s, ops[i], now_ns);
        }
    }
    /* Not all fit together: one by one the small ones, and the deletes that make room, still may.
     */
    for (size_t i = 0; i < again; i++) {
        batch_commit(s, &ops[i], 1);
    }
}

static uint64_t commit_bytes(const struct sw_store_commit *op)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < op->count; i++) {
        bytes += op->writes[i].value.len;
    }
    return bytes;
}

/* What arrived during the last sync, or the first that comes before `until_ns`. */
static size_t queue_take(struct lmdb_store *s, uint64_t until_ns, bool *ret_stop)
{
    struct timespec until = {(time_t)(until_ns / SW_NS_PER_S), (long)(until_ns % SW_NS_PER_S)};
    uint64_t bytes = 0;
    size_t count = 0;

    pthread_mutex_lock(&s->lock);
    while (s->first == NULL && !s->stop && until_ns > 0) {
        int rc;

        s->asleep = true;
        rc = pthread_cond_timedwait(&s->wake, &s->lock, &until);
        s->asleep = false;
        if (rc == ETIMEDOUT) {
            break;
        }
    }
    while (s->first != NULL && count < BATCH_MAX && bytes < BATCH_BYTES_MAX) {
        struct sw_store_commit *op = s->first;

        s->first = wait_of(op)->next;
        bytes += commit_bytes(op);
        s->batch[count++] = op;
    }
    if (s->first == NULL) {
        s->last = &s->first;
    }
    s->waiting -= (uint32_t)count;
    *ret_stop = s->stop;
    pthread_mutex_unlock(&s->lock);
    return count;
}

static void collect_idle(struct lmdb_store *s)
{
    SW_CLEANUP(txn_abort) MDB_txn *txn = NULL;
    bool wrote = false;
    int rc = txn_begin(s, &txn);

    if (rc == 0) {
        file_extend(s, COLLECT_IDLE_MAX);
        rc = collect(s, txn, COLLECT_IDLE_MAX, &wrote);
    }
    if (rc == 0 && wrote) {
        rc = txn_commit(s, sw_take(&txn));
    }
    if (rc != 0) {
        s->overdue = false; /* the next tick tries again */
    }
}

static void usage_publish(struct lmdb_store *s)
{
    SW_CLEANUP(txn_abort) MDB_txn *txn = NULL;
    MDB_stat stat;
    uint64_t freed, usable;

    if (s->env == NULL || mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0) {
        return;
    }
    if (mdb_stat(txn, s->records, &stat) == 0) {
        atomic_store_explicit(&s->record_count, stat.ms_entries, memory_order_relaxed);
    }
    if (free_pages(s, &freed, &usable) == 0) {
        atomic_store_explicit(&s->bytes_used,
                              (s->last_page + 1 - SW_MIN(freed, s->last_page)) * s->page_bytes,
                              memory_order_relaxed);
    }
}

static void sync_now(struct lmdb_store *s)
{
    if (s->unsynced && s->env != NULL && mdb_env_sync(s->env, 1) == 0) {
        s->unsynced = false;
        sw_store__add(&s->base.syncs, 1);
    }
}

static void tick(struct lmdb_store *s)
{
    if (s->opt.sync == SW_SYNC_EVERYSEC) {
        sync_now(s);
    }
    if (env_panics(s)) {
        env_reopen(s);
    }
    s->overdue = s->opt.expire;
    usage_publish(s);
}

static void *committer(void *arg)
{
    struct lmdb_store *s = arg;
    bool stop = false;

    while (!stop) {
        size_t count = queue_take(s, s->overdue ? 0 : s->tick_ns + TICK_NS, &stop);
        uint64_t now_ns;

        if (count > 0) {
            batch_commit(s, s->batch, count);
            stop = false; /* until nothing is left */
        } else if (s->overdue && !stop) {
            collect_idle(s);
        }
        now_ns = clock_ns(CLOCK_MONOTONIC);
        if (now_ns - s->tick_ns >= TICK_NS) {
            s->tick_ns = now_ns;
            tick(s);
        }
    }
    sync_now(s);
    return NULL;
}

static void on_answer(struct sw_post *post, void *arg)
{
    struct sw_store_commit *op = arg;

    (void)post;
    op->done(op);
}

static void lmdb_commit(struct sw_store *store, struct sw_store_commit *op)
{
    struct lmdb_store *s = lmdb_of(store);
    struct commit_wait *w = wait_of(op);
    bool full, asleep = false;

    op->queued_ns = clock_ns(CLOCK_MONOTONIC);
    w->post = (struct sw_post){NULL, on_answer, op};
    w->next = NULL;
    pthread_mutex_lock(&s->lock);
    SW_ASSERT(!s->stop);
    full = s->waiting >= s->opt.queue_max;
    if (!full) {
        *s->last = op;
        s->last = &w->next;
        s->waiting++;
        asleep = s->asleep;
    }
    pthread_mutex_unlock(&s->lock);
    if (full) {
        op->err = SW_E_STORE_BUSY;
        sw_store__count(&s->base, op, op->queued_ns);
        sw_loop_post(op->loop, &w->post);
    } else if (asleep) {
        pthread_cond_signal(&s->wake);
    }
}

/* ---- reading
 * ------------------------------------------------------------------------------------- */

/* A thread that read has ended. */
static void reader_gone(void *arg)
{
    struct reader *r = arg;
    struct lmdb_store *s = r->store;

    pthread_mutex_lock(&s->readers_lock);
    sw_link_remove(&r->link);
    s->reader_count--;
    s->loads_gone += atomic_load_explicit(&r->loads, memory_order_relaxed);
    mdb_txn_abort(sw_take(&r->txn));
    pthread_mutex_unlock(&s->readers_lock);
    free(r);
}

/* The calling thread's reader; NULL: there are too many threads. */
static struct reader *reader_of(struct lmdb_store *s)
{
    struct reader *r = pthread_getspecific(s->key);

    if (SW_LIKELY(r != NULL)) {
        return r;
    }
    r = aligned_alloc(64, sizeof(*r));
    if (r == NULL) {
        return NULL;
    }
    memset(r, 0, sizeof(*r));
    r->store = s;
    pthread_mutex_lock(&s->readers_lock);
    if (s->reader_count >= s->opt.readers_max || pthread_setspecific(s->key, r) != 0) {
        pthread_mutex_unlock(&s->readers_lock);
        free(r);
        return NULL;
    }
    sw_list_push_back(&s->readers, &r->link);
    s->reader_count++;
    pthread_mutex_unlock(&s->readers_lock);
    return r;
}

/* A read transaction takes the number N of the last published commit, and then copies the meta page
 * of the even or the odd numbers. If the thread is put to sleep between the two, a later commit, N
 * + 2, may be there that is not yet synced nor published: it must not be read. (Seen: with six
 * threads on two busy cores a reader went back by one version every few thousand commits.) */
static bool txn_current(struct lmdb_store *s, MDB_txn *txn)
{
    MDB_envinfo info;
    int rc = mdb_env_info(s->env, &info);

    return rc == 0 && info.me_last_txnid <= mdb_txn_id(txn) + 1;
}

/* From here to reader_leave the environment stays open. */
static enum sw_err reader_enter(struct lmdb_store *s, struct reader **ret_reader)
{
    struct reader *r = reader_of(s);
    int rc;

    if (r == NULL) {
        return SW_E_STORE_BUSY;
    }
    SW_ASSERT(!atomic_load_explicit(&r->busy, memory_order_relaxed));
    atomic_store(&r->busy, true);
    if (atomic_load(&s->readers_stopped)) { /* both sequentially consistent: see env_reopen */
        atomic_store_explicit(&r->busy, false, memory_order_release);
        return SW_E_STORE_IO;
    }
    do {
        if (r->txn != NULL) {
            mdb_txn_reset(r->txn); /* a second time does nothing */
            rc = mdb_txn_renew(r->txn);
        } else {
            rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &r->txn);
        }
        if (rc != 0) {
            mdb_txn_abort(sw_take(&r->txn));
            atomic_store_explicit(&r->busy, false, memory_order_release);
            return store_err(rc);
        }
    } while (!txn_current(s, r->txn));
    *ret_reader = r;
    return SW_OK;
}

static void reader_leave(struct reader *r)
{
    mdb_txn_reset(r->txn);
    atomic_store_explicit(&r->busy, false, memory_order_release);
}

static enum sw_err load_by(struct lmdb_store *s, struct reader *r, struct sw_store_load *op)
{
    struct found f;
    int rc = record_find(s, r->txn, &op->key, &f);

    if (rc != 0) {
        return store_err(rc);
    }
    if (!f.there || sw_store__expired(f.record.expires_unix_s, op->now_unix_s)) {
        return SW_E_NOT_FOUND;
    }
    f.record.subject = sw_arena_copy(op->arena, f.record.subject);
    f.record.value = sw_arena_copy(op->arena, f.record.value);
    if (op->arena->overflowed) {
        return SW_E_NO_MEMORY;
    }
    op->record = f.record;
    return SW_OK;
}

static enum sw_step lmdb_load(struct sw_store *store, struct sw_store_load *op)
{
    struct lmdb_store *s = lmdb_of(store);
    struct reader *r;

    op->err = reader_enter(s, &r);
    if (op->err == SW_OK) {
        op->err = load_by(s, r, op);
        /* relaxed load and store: only this thread writes it */
        atomic_store_explicit(&r->loads, atomic_load_explicit(&r->loads, memory_order_relaxed) + 1,
                              memory_order_relaxed);
        reader_leave(r);
    }
    return SW_STEP_DONE;
}

static enum sw_err scan_by(struct lmdb_store *s, MDB_txn *txn, const struct sw_store_key *after,
                           size_t limit, int64_t now, sw_store_scan_fn *fn, void *arg)
{
    struct sw_store_key key = {{0}};
    MDB_cursor *cursor;
    MDB_val k = key_val(&key), v;
    enum sw_err err = SW_OK;
    int rc = mdb_cursor_open(txn, s->records, &cursor);

    if (rc != 0) {
        return store_err(rc);
    }
    if (after != NULL) {
        key = *after;
    }
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (rc == 0 && limit > 0 && err == SW_OK) {
        struct sw_record record;
        int64_t indexed;

        memcpy(key.bytes, k.mv_data, SW_MIN(k.mv_size, sizeof(key.bytes)));
        if (k.mv_size != sizeof(key.bytes) || !record_read(v, &key, &record, &indexed)) {
            err = SW_E_STORE_CORRUPT;
        } else if ((after == NULL || memcmp(&key, after, sizeof(key)) != 0) &&
                   !sw_store__expired(record.expires_unix_s, now)) {
            fn(arg, &key, &record);
            limit--;
        }
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return err != SW_OK ? err : rc == 0 || rc == MDB_NOTFOUND ? SW_OK : store_err(rc);
}

static enum sw_err lmdb_scan(struct sw_store *store, const struct sw_store_key *after, size_t limit,
                             int64_t now_unix_s, sw_store_scan_fn *fn, void *arg)
{
    struct lmdb_store *s = lmdb_of(store);
    struct reader *r;
    enum sw_err err = reader_enter(s, &r);

    if (err == SW_OK) {
        err = scan_by(s, r->txn, after, limit, now_unix_s, fn, arg);
        reader_leave(r);
    }
    return err;
}

static void lmdb_stats(struct sw_store *store, struct sw_store_stats *st)
{
    struct lmdb_store *s = lmdb_of(store);
    struct stat file;

    st->records = atomic_load_explicit(&s->record_count, memory_order_relaxed);
    st->bytes_used = atomic_load_explicit(&s->bytes_used, memory_order_relaxed);
    st->bytes_map = s->opt.map_bytes_max;
    if (stat(s->path, &file) == 0) {
        st->bytes_file = (uint64_t)file.st_blocks * 512; /* the file is sparse */
    }
    pthread_mutex_lock(&s->readers_lock);
    st->loads = s->loads_gone;
    for (struct sw_link *l = s->readers.next; l != &s->readers; l = l->next) {
        st->loads += atomic_load_explicit(&SW_CONTAINER(l, struct reader, link)->loads,
                                          memory_order_relaxed);
    }
    pthread_mutex_unlock(&s->readers_lock);
    pthread_mutex_lock(&s->lock);
    st->queue = s->waiting;
    pthread_mutex_unlock(&s->lock);
}

/* ---- the file, before LMDB sees it
 * ---------------------------------------------------------------- */

/* LMDB's own layout (mdb.c: MDB_page, MDB_meta), version 1, on a 64-bit machine: pages 0 and 1 are
 * the two meta pages. */
enum {
    LM_FLAGS = 10,      /* of the page: 8 is P_META */
    LM_MAGIC = 16,      /* 0xBEEFC0DE */
    LM_VERSION = 20,    /* 1 */
    LM_PAGE_BYTES = 40, /* kept in the free list's description */
    LM_LAST_PAGE = 136,
    LM_TXN = 144,
    LM_META_BYTES = 152,
};

static uint32_t host_u32(const unsigned char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v)); /* LMDB writes the machine's own byte order */
    return v;
}

static uint64_t host_u64(const unsigned char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static bool meta_page(const unsigned char *p)
{
    return (p[LM_FLAGS] & 8) != 0 && host_u32(p + LM_MAGIC) == 0xBEEFC0DEu;
}

static void fd_close(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

/* SW_E_NOT_FOUND: there is no file yet. */
static enum sw_err file_check(const char *path, const char **ret_why)
{
    unsigned char first[LM_META_BYTES], second[LM_META_BYTES];
    const unsigned char *newest;
    SW_CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    uint32_t page_bytes;
    uint64_t pages;
    struct stat st;

    if (fd < 0) {
        return errno == ENOENT
                   ? SW_E_NOT_FOUND
                   : refuse(store_err(errno), ret_why, "store %s: %s", path, strerror(errno));
    }
    if (fstat(fd, &st) != 0) {
        return refuse(SW_E_STORE_IO, ret_why, "store %s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return refuse(SW_E_STORE_FORMAT, ret_why, "store %s: no regular file", path);
    }
    if (st.st_size == 0) {
        return refuse(
            SW_E_STORE_CORRUPT, ret_why,
            "store %s: the file is empty, its content is lost; restore it from a backup, or "
            "remove it to begin with an empty store",
            path);
    }
    if (pread(fd, first, sizeof(first), 0) != sizeof(first) || !meta_page(first)) {
        return refuse(
            SW_E_STORE_FORMAT, ret_why,
            "store %s: not a store of stateway (no LMDB file); it was left as it is; name "
            "another folder",
            path);
    }
    if (host_u32(first + LM_VERSION) != 1) {
        return refuse(
            SW_E_STORE_FORMAT, ret_why,
            "store %s: written by another version of LMDB (%u); it was left as it is; name "
            "another folder",
            path, host_u32(first + LM_VERSION));
    }
    page_bytes = host_u32(first + LM_PAGE_BYTES);
    if (page_bytes < 512 || page_bytes > 65536 || (page_bytes & (page_bytes - 1)) != 0 ||
        pread(fd, second, sizeof(second), page_bytes) != sizeof(second) || !meta_page(second) ||
        host_u32(second + LM_VERSION) != 1) {
        return refuse(
            SW_E_STORE_CORRUPT, ret_why,
            "store %s: the head of the file is damaged; restore it from a backup, or move it "
            "away to begin with an empty store",
            path);
    }
    newest = host_u64(first + LM_TXN) > host_u64(second + LM_TXN) ? first : second;
    pages = host_u64(newest + LM_LAST_PAGE) + 1;
    if (pages > (uint64_t)st.st_size / page_bytes) {
        return refuse(
            SW_E_STORE_CORRUPT, ret_why,
            "store %s: the file is cut: %llu bytes, it had at least %llu; restore it from a "
            "backup, or move it away to begin with an empty store",
            path, (unsigned long long)st.st_size, (unsigned long long)pages * page_bytes);
    }
    return SW_OK;
}

static void path_join(char out[PATH_BYTES_MAX], struct sw_slice folder, const char *name)
{
    int n = snprintf(out, PATH_BYTES_MAX, "%.*s/%s", SW_SARG(folder), name);

    SW_ASSERT(n > 0 && n < PATH_BYTES_MAX); /* sw_store_open_lmdb looked at its length */
}

static enum sw_err folder_open(struct sw_slice folder, int *ret_fd, const char **ret_why)
{
    char path[PATH_BYTES_MAX];
    struct statfs fs;
    int fd;

    (void)snprintf(path, sizeof(path), "%.*s", SW_SARG(folder));
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return refuse(store_err(errno), ret_why, "store %s: the folder cannot be made: %s%s", path,
                      strerror(errno), errno == ENOENT ? "; make the folder above it first" : "");
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return refuse(store_err(errno), ret_why, "store %s: %s", path, strerror(errno));
    }
    if (fstatfs(fd, &fs) == 0 &&
        (fs.f_type == 0x6969 || (uint32_t)fs.f_type == 0xff534d42u || fs.f_type == 0x517b ||
         (uint32_t)fs.f_type == 0xfe534d42u)) { /* NFS, CIFS, SMB, SMB2 */
        close(fd);
        return refuse(
            SW_E_UNSUPPORTED, ret_why,
            "store %s: on a network file system, whose locks and maps cannot be relied on; "
            "name a folder on a local disk",
            path);
    }
    *ret_fd = fd;
    return SW_OK;
}

static enum sw_err lock_take(struct sw_slice folder, int *ret_fd, const char **ret_why)
{
    char path[PATH_BYTES_MAX], pid[32] = "";
    int fd, n;

    path_join(path, folder, "lock");
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return refuse(store_err(errno), ret_why, "store %s: %s", path, strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int error = errno;
        ssize_t got = pread(fd, pid, sizeof(pid) - 1, 0);

        pid[got > 0 ? strcspn(pid, "\n") : 0] = '\0';
        close(fd);
        if (error != EWOULDBLOCK) {
            return refuse(SW_E_STORE_IO, ret_why, "store %s: %s", path, strerror(error));
        }
        return refuse(SW_E_STORE_LOCKED, ret_why,
                      "store %.*s: process %s has it open; stop that one, or name another folder",
                      SW_SARG(folder), pid[0] != '\0' ? pid : "(unknown)");
    }
    n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    /* only a help for people: an error does not matter */
    if (ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)n, 0) != n && ftruncate(fd, 0) != 0) {
        errno = 0; /* half a number stays */
    }
    *ret_fd = fd;
    return SW_OK;
}

/* Complete or not at all: made aside, synced, renamed. */
static enum sw_err file_make(struct lmdb_store *s, int folder_fd, const char **ret_why)
{
    char aside[PATH_BYTES_MAX], aside_lock[PATH_BYTES_MAX], stale[PATH_BYTES_MAX];
    int rc;

    path_join(aside, s->opt.path, "new.mdb");
    path_join(aside_lock, s->opt.path, "new.mdb-lock");
    path_join(stale, s->opt.path, "data.mdb-lock");
    (void)unlink(aside); /* of a start that was cut off: we hold the lock */
    (void)unlink(aside_lock);
    (void)unlink(stale);
    rc = env_open(s, aside);
    if (rc == 0) {
        rc = dbs_make(s);
    }
    env_close(s);
    (void)unlink(aside_lock);
    if (rc == 0 && (rename(aside, s->path) != 0 || fsync(folder_fd) != 0)) {
        rc = errno;
    }
    if (rc != 0) {
        (void)unlink(aside);
        return refuse(store_err(rc), ret_why, "store %s: cannot be made: %s", s->path,
                      mdb_strerror(rc));
    }
    return SW_OK;
}

/* ---- life
 * ------------------------------------------------------------------------------------------ */

static void lmdb_free(struct lmdb_store *s)
{
    env_close(s);
    if (s->lock_fd >= 0) {
        close(s->lock_fd); /* the lock goes with it */
    }
    free(s->scratch);
    free(s);
}

static void lmdb_close(struct sw_store *store)
{
    struct lmdb_store *s = lmdb_of(store);
    int rc;

    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_mutex_unlock(&s->lock);
    pthread_cond_signal(&s->wake);
    rc = pthread_join(s->thread, NULL);
    SW_ASSERT(rc == 0);
    SW_ASSERT(s->first == NULL);
    pthread_key_delete(s->key);
    while (!sw_list_empty(&s->readers)) {
        struct reader *r = SW_CONTAINER(sw_list_pop_front(&s->readers), struct reader, link);

        SW_ASSERT(!atomic_load(&r->busy));
        mdb_txn_abort(r->txn);
        free(r);
    }
    pthread_mutex_destroy(&s->readers_lock);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    s->base.magic = 0;
    lmdb_free(s);
}

static const struct store_ops lmdb_ops = {
    .name = "lmdb",
    .load = lmdb_load,
    .commit = lmdb_commit,
    .stats = lmdb_stats,
    .scan = lmdb_scan,
    .close = lmdb_close,
};

static enum sw_err data_open(struct lmdb_store *s, int folder_fd, const char **ret_why)
{
    unsigned char meta[META_BYTES] = {0};
    size_t meta_bytes = 0;
    int rc, dead;
    enum sw_err err = file_check(s->path, ret_why);

    if (err == SW_E_NOT_FOUND) {
        err = file_make(s, folder_fd, ret_why);
    }
    if (err != SW_OK) {
        return err;
    }
    rc = env_open(s, s->path);
    if (rc == ENOMEM) {
        return refuse(SW_E_NO_MEMORY, ret_why,
                      "store %s: no address space for a map of %llu bytes; set a smaller limit",
                      s->path, (unsigned long long)s->opt.map_bytes_max);
    }
    if (rc != 0) {
        return refuse(store_err(rc), ret_why, "store %s: %s", s->path, mdb_strerror(rc));
    }
    rc = dbs_open(s, meta, &meta_bytes);
    if (rc != 0 && rc != MDB_NOTFOUND && rc != MDB_INCOMPATIBLE) {
        return refuse(store_err(rc), ret_why, "store %s: %s", s->path, mdb_strerror(rc));
    }
    err = meta_check(s->path, meta, meta_bytes, ret_why); /* no bytes: somebody else's file */
    if (err != SW_OK) {
        return err;
    }
    if (rc != 0) {
        return refuse(
            SW_E_STORE_CORRUPT, ret_why,
            "store %s: a part of it is missing; restore it from a backup, or name another "
            "folder",
            s->path);
    }
    (void)mdb_reader_check(s->env, &dead); /* slots of killed processes */
    return SW_OK;
}

static enum sw_err thread_start(struct lmdb_store *s, const char **ret_why)
{
    pthread_condattr_t attr;
    sigset_t all, old;
    int rc;

    s->last = &s->first;
    s->tick_ns = clock_ns(CLOCK_MONOTONIC);
    s->overdue = s->opt.expire;
    sw_list_init(&s->readers);
    pthread_mutex_init(&s->readers_lock, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    rc = pthread_key_create(&s->key, reader_gone);
    if (rc == 0) {
        /* No signal is handled there; SIGXFSZ becomes the error EFBIG. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        rc = pthread_create(&s->thread, NULL, committer, s);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (rc != 0) {
            pthread_key_delete(s->key);
        }
    }
    if (rc != 0) {
        return refuse(SW_E_SYSTEM, ret_why, "store %s: no thread: %s", s->path, strerror(rc));
    }
    return SW_OK;
}

enum sw_err sw_store_open_lmdb(const struct sw_store_options *opt, struct sw_store **ret_store,
                               const char **ret_why)
{
    SW_CLEANUP(fd_close) int folder_fd = -1;
    struct lmdb_store *s;
    uint64_t seed;
    ssize_t got = getrandom(&seed, sizeof(seed), 0);
    enum sw_err err;

    SW_ASSERT(got == sizeof(seed));
    if (opt->path.len == 0 || opt->path.len > PATH_BYTES_MAX - 32) {
        return refuse(SW_E_LIMIT, ret_why, "store: the path of its folder is empty or too long");
    }
    pthread_once(&fork_once, fork_watch);
    s = aligned_alloc(64, (sizeof(*s) + 63) & ~(size_t)63);
    if (s == NULL) {
        return refuse(SW_E_NO_MEMORY, ret_why, "store: no memory");
    }
    memset(s, 0, sizeof(*s));
    s->lock_fd = -1;
    s->opt = *opt;
    s->opt.map_bytes_max =
        opt->map_bytes_max == 0 ? MAP_DEFAULT : SW_MAX(opt->map_bytes_max, MAP_MIN);
    s->opt.map_bytes_max &= ~(uint64_t)0xffff;
    s->opt.queue_max = opt->queue_max == 0 ? 4096 : opt->queue_max;
    s->opt.readers_max = opt->readers_max == 0 ? 64 : opt->readers_max;
    s->forks = atomic_load(&fork_generation);
    sw_rng_seed(&s->rng, seed);
    sw_store__init(&s->base, &lmdb_ops);
    path_join(s->path, opt->path, "data.mdb");
    err = folder_open(opt->path, &folder_fd, ret_why);
    if (err == SW_OK) {
        err = lock_take(opt->path, &s->lock_fd, ret_why);
    }
    if (err == SW_OK) {
        err = data_open(s, folder_fd, ret_why);
    }
    if (err == SW_OK) {
        usage_publish(s);
        err = thread_start(s, ret_why);
    }
    if (err != SW_OK) {
        lmdb_free(s);
        return err;
    }
    s->opt.path = (struct sw_slice){NULL, 0}; /* was the caller's */
    *ret_store = &s->base;
    return SW_OK;
}
