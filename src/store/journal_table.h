/* store/journal_table.h - the journal store's table in memory: records in shards, their indexes.
 *
 *   journal_list.c   an ordered set (the indexes are made of it)
 *   journal_table.c  records, sharded
 *   journal_index.c  the indexes of subjects and of what is due, and the cut-offs
 *
 * Room       store/. Part of journal_priv.h, where it is said who may touch what.
 */
#ifndef SW_JOURNAL_TABLE_H
#define SW_JOURNAL_TABLE_H

#include "store/store_priv.h"

#include <pthread.h>

#include "base/rng.h"

#define JOURNAL_SHARDS         256u /* of the table: by the first byte of the key */
#define JOURNAL_SUBJECT_SHARDS 64u

struct journal_store;

/* ---- journal_list.c: an ordered set ---------------------------------------------------------- */

/* Where something stands in a list; each list orders by what it needs of it. */
struct journal_place {
    struct sw_slice subject;
    int64_t time;
    struct sw_store_key key;
};
struct journal_node {
    void *item;
    uint32_t levels;
    struct journal_node *next[];
};
#define JOURNAL_LEVELS_MAX 20u
typedef int journal_compare_fn(const struct journal_place *place, const void *item);
struct journal_list {
    journal_compare_fn *compare; /* of a place with that of an item */
    size_t count;
    struct journal_node *first[JOURNAL_LEVELS_MAX];
};
void sw_journal__list_init(struct journal_list *l, journal_compare_fn *compare);
/* Frees the nodes, not their items. */
void sw_journal__list_fini(struct journal_list *l);
/* Not in the list yet, so that putting it there cannot fail. NULL: no memory. */
struct journal_node *sw_journal__node_new(struct sw_rng *rng);
/* place: the item's; nothing else stands there. */
void sw_journal__list_put(struct journal_list *l, const struct journal_place *place,
                          struct journal_node *n);
/* Takes out the node that stands there, and gives it back. It must be there. */
struct journal_node *sw_journal__list_take(struct journal_list *l,
                                           const struct journal_place *place);
/* The first one at or behind the place; NULL: none. */
struct journal_node *sw_journal__list_seek(const struct journal_list *l,
                                           const struct journal_place *place);
static inline struct journal_node *sw_journal__list_first(const struct journal_list *l)
{
    return l->first[0];
}

/* ---- journal_table.c ------------------------------------------------------------------------- */

/* One allocation. What it holds never changes but for its times (under its shard's lock). */
struct journal_record {
    _Atomic uint32_t refs; /* the table's, and one of each reader that copies */
    uint32_t segment;      /* the newest one that holds all of it; the committer's */
    struct sw_store_key key;
    struct sw_version version;
    int64_t created_unix_s, touched_unix_s, expires_unix_s, absolute_unix_s;
    int64_t bound_unix_ms, due_unix_ms;
    struct journal_node *by_subject, *by_due; /* its entries in the indexes, or NULL */
    uint32_t value_len;
    uint16_t extra_len;
    uint8_t subject_len;
    uint8_t kind;
    bool sealed;
    char bytes[]; /* subject, extra, value */
};
struct journal_cutoff {
    struct store_cutoff c;
    uint32_t segment;
    uint8_t subject_len;
    char subject[];
};
struct journal_slot {
    uint64_t hash;
    struct journal_record *r; /* NULL: free */
};
struct journal_shard {
    _Alignas(64) pthread_mutex_t lock;
    struct journal_slot *slots; /* open addressing, linear probing */
    uint32_t slot_count;        /* a power of two, or 0 */
    uint32_t used;
    uint32_t staged; /* of the batch under way: at most so many more; the committer's */
    uint64_t moves;  /* slots were given other places; the committer's */
    uint64_t loads;
};
struct journal_subjects {
    _Alignas(64) pthread_mutex_t lock;
    struct journal_list states;  /* of journal_record, by subject and key */
    struct journal_list cutoffs; /* of journal_cutoff, by subject */
};
struct journal_table {
    struct journal_shard shards[JOURNAL_SHARDS];
    struct journal_subjects subjects[JOURNAL_SUBJECT_SHARDS];
    struct {
        _Alignas(64) pthread_mutex_t lock;
        struct journal_list list; /* of journal_record, by time and key */
        bool moved;               /* the committer's: next_due_unix_ms is to be looked at */
    } due;
    uint64_t seed;
    struct sw_rng rng;              /* the committer's */
    _Atomic uint64_t cutoff_count;  /* 0: nobody looks for one */
    _Atomic uint64_t records, used; /* bytes of memory */
    _Atomic uint64_t live;          /* bytes of the log, if it held nothing else */
};

void sw_journal__table_init(struct journal_table *t, uint64_t seed);
void sw_journal__table_fini(struct journal_table *t);
static inline struct journal_shard *shard_of(struct journal_table *t,
                                             const struct sw_store_key *key)
{
    return &t->shards[key->bytes[0]];
}
uint64_t sw_journal__hash(const struct journal_table *t, const struct sw_store_key *key);
/* A record of its own, with what the indexes will need. NULL: no memory. rng: the caller's. */
struct journal_record *sw_journal__record_new(const struct sw_store_key *key,
                                              const struct sw_record *from, struct sw_rng *rng);
/* Gives a reference back, and frees it (but not entries that stand in an index) with the last. */
void sw_journal__record_unref(struct journal_record *r);
/* Bytes of memory that a record like this takes. */
size_t sw_journal__record_memory(const struct sw_record *r);
/* The record as store.h has it; slices point into it. */
struct sw_record sw_journal__record_view(const struct journal_record *r);
/* What is in the table, or NULL. The committer, or under the shard's lock. */
struct journal_record *sw_journal__find(const struct journal_shard *sh, uint64_t hash,
                                        const struct sw_store_key *key);
/* Fetches the first `lines` cache lines of a record that will be read soon. */
void sw_journal__prefetch(const struct journal_record *r, size_t lines);
/* Room for `more` records that are new there. False: no memory. */
SW_MUST bool sw_journal__shard_reserve(struct journal_shard *sh, uint32_t more);
/* Under the shard's lock: puts r in place of the one with its key; that one, or NULL, is returned
 * and is the caller's to unref when the lock is free again. Indexes follow. */
struct journal_record *sw_journal__replace(struct journal_table *t, struct journal_shard *sh,
                                           uint64_t hash, struct journal_record *r);
/* The same without indexes and sums, for replay: sw_journal__adopt does those. */
struct journal_record *sw_journal__replace_bare(struct journal_shard *sh, uint64_t hash,
                                                struct journal_record *r);
/* Counts a record that stands in its slot, and enters it into the indexes. */
void sw_journal__adopt(struct journal_table *t, struct journal_record *r);
/* Takes the record in this slot away; another one may be in the slot then. Takes the lock. */
void sw_journal__remove(struct journal_table *t, struct journal_shard *sh, uint32_t slot);
/* The same by its key. */
void sw_journal__remove_key(struct journal_table *t, const struct sw_store_key *key);
/* Takes away a record that sw_journal__adopt never saw; none is no error. */
void sw_journal__remove_bare(struct journal_shard *sh, uint64_t hash,
                             const struct sw_store_key *key);

/* ---- journal_index.c ------------------------------------------------------------------------- */

#define JOURNAL_ENTRY_BYTES      48u /* of memory, an index entry, about */
#define JOURNAL_ALLOCATION_BYTES 16u /* malloc's own */
void sw_journal__indexes_init(struct journal_table *t);
/* Frees the cut-offs too; the entries of records go with these. */
void sw_journal__indexes_fini(struct journal_table *t);
/* r (or NULL) now stands where old (or NULL) stood. Under the shard's lock. */
void sw_journal__indexes_follow(struct journal_table *t, struct journal_record *old,
                                struct journal_record *r);
/* It is not due any more. Takes the lock. */
void sw_journal__undue(struct journal_table *t, struct journal_record *r);
/* Tells readers when the first is due, if that may have changed. */
void sw_journal__due_publish(struct journal_store *s);

struct journal_subjects *sw_journal__subjects_of(struct journal_table *t, struct sw_slice subject);
/* Any thread, also one that holds a shard's lock. None: not_before_unix_ms is 0. */
struct store_cutoff sw_journal__cutoff_find(struct journal_table *t, struct sw_slice subject);
/* Was this record cut off? */
bool sw_journal__cut(struct journal_table *t, const struct sw_record *r);
/* With its entry; NULL: no memory. */
struct journal_node *sw_journal__cutoff_new(struct sw_slice subject, struct sw_rng *rng);
void sw_journal__cutoff_free(struct journal_node *n);
/* Sets or makes (by *fresh, which it then takes) the cut-off of a subject. Takes the lock. */
void sw_journal__cutoff_set(struct journal_table *t, struct sw_slice subject,
                            const struct store_cutoff *c, uint32_t segment,
                            struct journal_node **fresh);
void sw_journal__cutoff_remove(struct journal_table *t, struct sw_slice subject);

#endif
