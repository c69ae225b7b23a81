/* store/lmdb_room.c - how many pages are left, and how long the file must be.
 *
 * Room       store/. The committer's thread.
 *
 * A full map. LMDB needs fresh pages even to delete, so a map that is full to the last page is
 * stuck. The map is larger than map_bytes_max by a reserve: puts are refused from map_bytes_max on
 * unless free pages suffice; deletes, touches, cut-offs and the collector may use the reserve. (A
 * touch rewrites its record; one longer than a page needs pages in a row, and may be refused by a
 * full map. A command that reads the whole file keeps the pages of its moment from being used
 * again: then a full map is full until it ends.) The size of the map never changes while it is
 * open, so no reader must be held up for it.
 */
#include "store/lmdb_priv.h"

#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FILE_STEP_BYTES (1ull << 20)
#define PAGES_BASE      16u
#define PAGES_KEPT      32u
/* A leaf of each of two trees, perhaps split, and of the branches above. */
#define PAGES_A_PUT 6u
/* The same for an entry that leaves one place of an index for another. */
#define PAGES_AN_ENTRY 4u
#define SLACK_PAGES    1024u /* of the file's length; far more than tree and free list take */

/* Pages that wait to be used again, and of those the ones the next transaction may take: not what
 * the last one dropped. One word is read of each entry of LMDB's free list (database 0, open to
 * read transactions only; its keys are transaction numbers): as many entries as transactions whose
 * pages still wait. */
int sw_lmdb__pages_free(struct lmdb_store *s, uint64_t *ret_pages, uint64_t *ret_usable)
{
    SW_CLEANUP(sw_lmdb__abort) MDB_txn *txn = NULL;
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

uint64_t sw_lmdb__map_reserve(uint64_t map_bytes_max)
{
    return SW_MAX(map_bytes_max / 32, LMDB_MAP_MIN);
}

/* What a commit's puts take at most: their values, a leaf of each tree, perhaps split, and their
 * share of the branches above. PAGES_BASE is for the rest, once a transaction. */
uint64_t sw_lmdb__pages_needed(const struct lmdb_store *s, const struct sw_store_commit *op)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < op->count; i++) {
        const struct sw_write *w = &op->writes[i];

        if (w->kind == SW_WRITE_PUT) {
            pages += (LMDB_HEAD + w->subject.len + w->extra.len + w->value.len) / s->page_bytes +
                     PAGES_A_PUT;
            pages += w->subject.len > 0 ? PAGES_AN_ENTRY : 0;
            pages += w->due_unix_ms != 0 ? PAGES_AN_ENTRY : 0;
        }
    }
    return pages;
}

/* How many pages puts may take in this transaction. */
int sw_lmdb__pages_allowed(struct lmdb_store *s, uint64_t needed, uint64_t *ret_allowed)
{
    uint64_t limit = s->opt.map_bytes_max / s->page_bytes, used = s->last_page + 1, freed, usable;
    uint64_t room = limit > used + PAGES_BASE ? limit - used - PAGES_BASE : 0;
    int rc;

    if (needed <= room) {
        *ret_allowed = needed;
        return 0;
    }
    rc = sw_lmdb__pages_free(s, &freed, &usable);
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
void sw_lmdb__file_extend(struct lmdb_store *s, uint64_t pages)
{
    uint64_t want = (s->last_page + 1 + 2 * pages + SLACK_PAGES) * s->page_bytes;
    uint64_t most = s->opt.map_bytes_max + sw_lmdb__map_reserve(s->opt.map_bytes_max);

    want = (want + FILE_STEP_BYTES - 1) / FILE_STEP_BYTES * FILE_STEP_BYTES;
    want = SW_MIN(want, SW_MAX(most, s->file_bytes));
    if (want > s->file_bytes && ftruncate(s->data_fd, (off_t)want) == 0) {
        s->file_bytes = want;
    }
}

/* LMDB calls a write that was cut short an I/O error; mostly the disk, or what this process may
 * write, is full. */
bool sw_lmdb__disk_full(const struct lmdb_store *s, uint64_t pages)
{
    uint64_t bytes = (pages + SLACK_PAGES) * s->page_bytes;
    struct rlimit limit;
    struct statfs fs;

    return (s->env != NULL && fstatfs(s->data_fd, &fs) == 0 &&
            (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize < bytes) ||
           (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
            (uint64_t)limit.rlim_cur < s->last_page * s->page_bytes + bytes);
}
