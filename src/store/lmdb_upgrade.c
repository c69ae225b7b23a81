/* store/lmdb_upgrade.c - a file of format 1 becomes one of format 2 (lmdb_format.c has both).
 *
 * Room       store/. At open, before anybody else uses the file.
 *
 * The first transaction says format 2 and makes the new databases, so that no older program writes
 * there meanwhile; each one says in meta where the next has to go on, and the last one takes that
 * away. So it may be killed at any moment, and goes on at the next open. Records stay as they are.
 * One that is damaged stays too, and has no entry: nobody can read it.
 */
#include "store/lmdb_priv.h"

#include <stdio.h>

#define PUTS_MAX  1024u  /* a transaction: bounds the pages it takes */
#define LOOKS_MAX 65536u /* records */
#define TELL_NS   (2 * SW_NS_PER_S)

struct upgrade {
    struct lmdb_store *s;
    struct lmdb_meta *m;
    uint64_t looked, indexed, told_ns;
    bool end;
};

/* From m->from on; m->from becomes the first one that was not looked at. */
static int some_records(struct upgrade *u, MDB_txn *txn)
{
    struct lmdb_store *s = u->s;
    MDB_val k = key_val(&u->m->from), v;
    MDB_cursor *cursor;
    size_t puts = 0;
    int rc = mdb_cursor_open(txn, s->records, &cursor);

    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    for (size_t i = 0; rc == 0; i++) {
        struct sw_store_key key;
        struct lmdb_found f;

        if (k.mv_size != sizeof(key.bytes)) {
            rc = MDB_CORRUPTED;
            break;
        }
        memcpy(key.bytes, k.mv_data, sizeof(key.bytes));
        if (i == LOOKS_MAX || puts == PUTS_MAX) {
            u->m->from = key;
            mdb_cursor_close(cursor);
            return 0;
        }
        u->looked++;
        if (sw_lmdb__record_read(v, &key, 0, &f) && sw_store__has_subject(&f.record)) {
            rc = sw_lmdb__entry_put(txn, s->subjects,
                                    sw_lmdb__entry_subject(f.record.subject, &key));
            puts++;
            u->indexed++;
        }
        if (rc == 0) {
            rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
        }
    }
    mdb_cursor_close(cursor);
    u->end = rc == MDB_NOTFOUND;
    return u->end ? 0 : rc;
}

static int one_step(struct upgrade *u)
{
    SW_CLEANUP(sw_lmdb__abort) MDB_txn *txn = NULL;
    struct lmdb_store *s = u->s;
    MDB_envinfo info;
    int rc;

    sw_lmdb__file_extend(s, (uint64_t)PUTS_MAX * 2);
    if ((rc = mdb_txn_begin(s->env, NULL, 0, &txn)) != 0) {
        return rc;
    }
    if (u->m->format != LMDB_FORMAT) {
        u->m->format = LMDB_FORMAT;
        rc = sw_lmdb__dbs_add(s, txn);
    }
    if (rc == 0) {
        rc = some_records(u, txn);
    }
    u->m->upgrading = !u->end;
    if (rc == 0) {
        rc = sw_lmdb__meta_put(txn, s->meta, u->m);
    }
    if (rc == 0) {
        rc = mdb_txn_commit(sw_take(&txn));
    }
    if (rc == 0 && mdb_env_info(s->env, &info) == 0) {
        s->last_page = info.me_last_pgno;
    }
    return rc;
}

static void tell(struct upgrade *u, uint64_t records)
{
    uint64_t now_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
    char text[256];

    if (u->s->opt.tell == NULL || now_ns - u->told_ns < TELL_NS) {
        return;
    }
    u->told_ns = now_ns;
    (void)snprintf(text, sizeof(text),
                   "the store's file is being brought to format 2: %llu of %llu records looked at",
                   (unsigned long long)u->looked, (unsigned long long)records);
    u->s->opt.tell(u->s->opt.tell_arg, text);
}

int sw_lmdb__upgrade(struct lmdb_store *s, struct lmdb_meta *m)
{
    struct upgrade u = {.s = s, .m = m, .told_ns = sw_store__clock_ns(CLOCK_MONOTONIC)};
    SW_CLEANUP(sw_lmdb__abort) MDB_txn *txn = NULL;
    MDB_stat stat;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0 || (rc = mdb_stat(txn, s->records, &stat)) != 0) {
        return rc;
    }
    mdb_txn_abort(sw_take(&txn));
    while (rc == 0 && !u.end) {
        rc = one_step(&u);
        tell(&u, stat.ms_entries);
    }
    if (rc == 0) {
        rc = mdb_env_sync(s->env, 1);
    }
    return rc;
}
