/* store/journal_replay.c - the log read at start: the table is what it says.
 *
 * Room       store/. The opening thread, and helpers of its own for the time of the replay.
 *
 * The opening thread reads one segment after the other into memory and checks it; meanwhile the
 * helpers bring what the segment before it holds into the table, each for shards of its own: so
 * each record's frames are seen in their order, and no lock is needed.
 */
#include "store/journal_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define HELPERS_MAX 8u
#define HEAP_AHEAD  (96u << 10) /* below what malloc maps or gives back by itself */
#define HEAD_LINES  3u          /* of a record, without what it holds */
#define LOOK_AHEAD  12u         /* records that are fetched before they are looked at */
#define TELL_NS     (2 * SW_NS_PER_S)

struct replay {
    struct journal_store *s;
    pthread_mutex_t lock;
    pthread_cond_t go, done;
    uint32_t turn;  /* how many segments were handed out */
    size_t working; /* helpers that have not finished it */
    size_t helpers;
    bool finish; /* the last turn: expired records go, the indexes are made */
    bool stop;
    const struct journal_loaded *load;
    _Atomic bool no_memory;
    _Atomic uint64_t applied;
};

struct helper {
    struct replay *rp;
    size_t index;
    pthread_t thread;
    struct sw_rng rng;
    size_t heap_bytes; /* since heap_grow */
};

/* ---- the helpers ----------------------------------------------------------------------------- */

static bool mine(const struct helper *h, const struct sw_store_key *key)
{
    return key->bytes[0] % h->rp->helpers == h->index;
}

/* The heap of a thread that is not the first grows by one page at a time, and each time all cores
 * are interrupted: a fifth of a replay. What is taken and given back at once stays at its end, for
 * the records that follow. */
static void heap_grow(struct helper *h, size_t bytes)
{
    h->heap_bytes += bytes;
    if (h->heap_bytes >= HEAP_AHEAD) {
        void *volatile ahead = malloc(HEAP_AHEAD); /* volatile: else both calls are left out */

        free(ahead);
        h->heap_bytes = 0;
    }
}

static void entry_apply(struct helper *h, const struct journal_loaded *ld,
                        const struct journal_entry *e)
{
    struct journal_table *t = &h->rp->s->table;
    struct journal_shard *sh = shard_of(t, &e->key);
    uint64_t hash = sw_journal__hash(t, &e->key);
    struct journal_record *r;

    switch (e->type) {
    case JOURNAL_PUT:
        heap_grow(h, sw_journal__record_memory(&e->record));
        r = sw_journal__record_new(&e->key, &e->record, &h->rng);
        if (r == NULL || !sw_journal__shard_reserve(sh, 1)) {
            atomic_store(&h->rp->no_memory, true);
            if (r != NULL) {
                sw_journal__record_unref(r);
            }
            return;
        }
        r->segment = (uint32_t)ld->seg->header.number;
        r = sw_journal__replace_bare(sh, hash, r);
        if (r != NULL) {
            sw_journal__record_unref(r);
        }
        return;
    case JOURNAL_TOUCH:
        r = sw_journal__find(sh, hash, &e->key);
        /* if it is not there, a later copy has these times: see journal_sweep.c */
        if (r != NULL && sw_version_eq(r->version, e->record.version)) {
            r->touched_unix_s = e->record.touched_unix_s;
            r->expires_unix_s = e->record.expires_unix_s;
        }
        return;
    case JOURNAL_DROP:
        sw_journal__remove_bare(sh, hash, &e->key);
        return;
    case JOURNAL_CUTOFF:
    case JOURNAL_TRIM:
    case JOURNAL_END:
        return;
    }
}

static void cutoff_free(struct journal_node **n)
{
    sw_journal__cutoff_free(*n);
}

static void cutoff_apply(struct helper *h, const struct journal_loaded *ld,
                         const struct journal_entry *e)
{
    SW_CLEANUP(cutoff_free)
    struct journal_node *fresh = sw_journal__cutoff_new(e->record.subject, &h->rng);

    if (fresh == NULL) {
        atomic_store(&h->rp->no_memory, true);
        return;
    }
    sw_journal__cutoff_set(&h->rp->s->table, e->record.subject, &e->cutoff,
                           (uint32_t)ld->seg->header.number, &fresh);
}

/* All frames of the segment, for this helper's shards. */
static void segment_apply(struct helper *h, const struct journal_loaded *ld)
{
    size_t at = JOURNAL_HEADER_BYTES;
    uint64_t applied = 0;

    while (at < ld->end && !atomic_load_explicit(&h->rp->no_memory, memory_order_relaxed)) {
        struct journal_frame f;
        size_t in = at + JOURNAL_FRAME_HEAD;

        sw_journal__frame_head_read(ld->bytes + at, &f);
        for (uint32_t i = 0; i < f.count; i++) {
            struct journal_entry e;

            if (!sw_journal__entry_read(ld->bytes + in, at + f.bytes - in, &e)) {
                SW_UNREACHABLE(); /* it was checked */
            }
            if (e.type == JOURNAL_CUTOFF) {
                if (h->index == 0) {
                    cutoff_apply(h, ld, &e);
                }
            } else if (e.type < JOURNAL_CUTOFF && mine(h, &e.key)) {
                entry_apply(h, ld, &e);
                applied++;
            }
            in += e.bytes;
        }
        at += f.bytes;
    }
    atomic_fetch_add(&h->rp->applied, applied);
}

/* What is over goes, if that is asked for; the rest is counted and entered into the indexes. */
static void shards_finish(struct helper *h)
{
    struct journal_store *s = h->rp->s;
    int64_t now = (int64_t)(sw_store__clock_ns(CLOCK_REALTIME) / SW_NS_PER_S);

    for (size_t i = h->index; i < JOURNAL_SHARDS; i += h->rp->helpers) {
        struct journal_shard *sh = &s->table.shards[i];

        for (uint32_t slot = 0; slot < sh->slot_count;) {
            struct journal_record *r = sh->slots[slot].r;

            if (r != NULL && s->opt.expire && sw_store__expired(r->expires_unix_s, now)) {
                struct sw_store_key key = r->key;

                sw_journal__remove_bare(sh, sh->slots[slot].hash, &key);
                continue; /* another may be here now */
            }
            slot++;
        }
        for (uint32_t slot = 0; slot < sh->slot_count; slot++) {
            if (slot + LOOK_AHEAD < sh->slot_count && sh->slots[slot + LOOK_AHEAD].r != NULL) {
                sw_journal__prefetch(sh->slots[slot + LOOK_AHEAD].r, HEAD_LINES);
            }
            if (sh->slots[slot].r != NULL) {
                sw_journal__adopt(&s->table, sh->slots[slot].r);
            }
        }
    }
}

static void *helper(void *arg)
{
    struct helper *h = arg;
    struct replay *rp = h->rp;
    uint32_t seen = 0;

    pthread_mutex_lock(&rp->lock);
    while (!rp->stop) {
        if (rp->turn == seen) {
            pthread_cond_wait(&rp->go, &rp->lock);
            continue;
        }
        seen = rp->turn;
        pthread_mutex_unlock(&rp->lock);
        if (rp->finish) {
            shards_finish(h);
        } else {
            segment_apply(h, rp->load);
        }
        pthread_mutex_lock(&rp->lock);
        if (--rp->working == 0) {
            pthread_cond_signal(&rp->done);
        }
    }
    pthread_mutex_unlock(&rp->lock);
    return NULL;
}

static void helpers_wait(struct replay *rp)
{
    pthread_mutex_lock(&rp->lock);
    while (rp->working > 0) {
        pthread_cond_wait(&rp->done, &rp->lock);
    }
    pthread_mutex_unlock(&rp->lock);
}

/* ld: NULL for the last turn. They have finished the turn before. */
static void helpers_go(struct replay *rp, const struct journal_loaded *ld)
{
    pthread_mutex_lock(&rp->lock);
    rp->load = ld;
    rp->finish = ld == NULL;
    rp->working = rp->helpers;
    rp->turn++;
    pthread_cond_broadcast(&rp->go);
    pthread_mutex_unlock(&rp->lock);
}

/* ---- the replay ------------------------------------------------------------------------------ */

static enum sw_err segment_load(struct journal_store *s, const struct journal_segment *seg,
                                uint64_t limit, struct journal_loaded *ld, const char **ret_why)
{
    SW_CLEANUP(sw_store__fd_close) int fd = -1;
    enum sw_err err =
        sw_journal__segment_open(s->path, s->folder_fd, seg->header.number, &fd, ret_why);

    return err != SW_OK ? err : sw_journal__segment_load(s->path, fd, seg, limit, ld, ret_why);
}

static void tell(struct replay *rp, size_t read, size_t count, uint64_t *told_ns)
{
    struct journal_store *s = rp->s;
    uint64_t now_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
    char text[256];

    if (s->opt.tell == NULL || now_ns - *told_ns < TELL_NS) {
        return;
    }
    *told_ns = now_ns;
    (void)snprintf(text, sizeof(text), "store %.128s: %zu of %zu segments read, %llu records",
                   s->path, read, count,
                   (unsigned long long)atomic_load_explicit(&rp->applied, memory_order_relaxed));
    s->opt.tell(s->opt.tell_arg, text);
}

/* All segments in their order. `last` was loaded before. */
static enum sw_err segments_replay(struct replay *rp, struct journal_segment *segs, size_t count,
                                   size_t from, struct journal_loaded buffers[2],
                                   const char **ret_why)
{
    struct journal_store *s = rp->s;
    uint64_t told_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
    enum sw_err err = SW_OK;
    size_t turn = 0;

    for (size_t i = from; i < count && err == SW_OK; i++) {
        uint64_t limit = sw_journal__segments_limit(segs, count, i);
        struct journal_loaded *ld = &buffers[turn % 2];

        if (limit <= segs[i].header.first_seq) {
            segs[i].used = JOURNAL_HEADER_BYTES; /* all of it is void */
        } else {
            err = segment_load(s, &segs[i], limit, ld, ret_why);
            helpers_wait(rp);
            if (err == SW_OK) {
                segs[i].used = ld->end;
                s->log.seq_last = ld->seq;
                helpers_go(rp, ld);
                turn++;
            }
        }
        tell(rp, i + 1 - from, count - from, &told_ns);
    }
    helpers_wait(rp);
    if (err == SW_OK && !rp->no_memory) {
        helpers_go(rp, NULL);
        helpers_wait(rp);
    }
    return err;
}

static enum sw_err helpers_start(struct replay *rp, struct helper *helpers, size_t count,
                                 const char **ret_why)
{
    for (rp->helpers = 0; rp->helpers < count; rp->helpers++) {
        struct helper *h = &helpers[rp->helpers];

        *h = (struct helper){.rp = rp, .index = rp->helpers};
        sw_rng_seed(&h->rng, sw_rng_u64(&rp->s->rng));
        if (pthread_create(&h->thread, NULL, helper, h) != 0) {
            break;
        }
    }
    return rp->helpers > 0 ? SW_OK
                           : sw_store__refuse(SW_E_SYSTEM, ret_why, "store %s: no thread: %s",
                                              rp->s->path, strerror(errno));
}

static void helpers_stop(struct replay *rp, struct helper *helpers)
{
    pthread_mutex_lock(&rp->lock);
    rp->stop = true;
    pthread_cond_broadcast(&rp->go);
    pthread_mutex_unlock(&rp->lock);
    for (size_t i = 0; i < rp->helpers; i++) {
        pthread_join(helpers[i].thread, NULL);
    }
}

static enum sw_err segments_keep(struct journal_store *s, const struct journal_segment *segs,
                                 size_t from, size_t count)
{
    struct journal_log *l = &s->log;

    for (size_t i = from; i < count; i++) {
        if (sw_journal__log_add(l, &segs[i]) != 0) {
            return SW_E_NO_MEMORY;
        }
        l->bytes_before += i + 1 < count ? segs[i].used : 0;
    }
    l->at = log_segment(l)->used;
    memcpy(l->id, segs[count - 1].header.id, sizeof(l->id));
    if (segs[0].header.number < segs[from].header.number) {
        sw_journal__keeper_remove(&l->keeper, segs[0].header.number, segs[from].header.number);
    }
    return SW_OK;
}

enum sw_err sw_journal__replay(struct journal_store *s, bool *ret_last_empty, const char **ret_why)
{
    struct replay rp = {.s = s};
    struct helper helpers[HELPERS_MAX];
    struct journal_loaded buffers[2] = {{0}};
    struct journal_segment *segs = NULL;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t count = 0, from = 0, last_frames = 0;
    uint64_t oldest;
    enum sw_err err = sw_journal__segments_list(s->opt.path, s->folder_fd, &segs, &count, ret_why);

    *ret_last_empty = false;
    if (err != SW_OK || count == 0) {
        free(segs);
        return err;
    }
    pthread_mutex_init(&rp.lock, NULL);
    pthread_cond_init(&rp.go, NULL);
    pthread_cond_init(&rp.done, NULL);
    /* The last one first: it may hold a TRIM that says which are needed. */
    err = segs[count - 1].err != SW_OK
              ? sw_journal__damaged(s->path, segs[count - 1].header.number, 0,
                                    "the head is damaged", ret_why)
              : segment_load(s, &segs[count - 1], UINT64_MAX, &buffers[0], ret_why);
    if (err == SW_OK) {
        oldest = SW_MAX(segs[count - 1].header.oldest, buffers[0].trim);
        *ret_last_empty = !buffers[0].any;
        last_frames = (size_t)(buffers[0].seq + 1 - buffers[0].first);
        err = sw_journal__segments_check(s->path, segs, count, oldest, &from, ret_why);
    }
    if (err == SW_OK) {
        err = helpers_start(&rp, helpers, (size_t)SW_MIN(SW_MAX(cores, 1), (long)HELPERS_MAX),
                            ret_why);
    }
    if (err == SW_OK) {
        err = segments_replay(&rp, segs, count, from, buffers, ret_why);
        helpers_stop(&rp, helpers);
        if (err == SW_OK && rp.no_memory) {
            err = sw_store__refuse(SW_E_NO_MEMORY, ret_why,
                                   "store %s: no memory for the records it holds", s->path);
        }
    }
    if (err == SW_OK) {
        err = segments_keep(s, segs, from, count);
        if (*ret_last_empty) { /* an END in it is not followed by anything */
            s->log.seq_last -= last_frames;
        }
    }
    pthread_mutex_destroy(&rp.lock);
    pthread_cond_destroy(&rp.go);
    pthread_cond_destroy(&rp.done);
    sw_journal__loaded_fini(&buffers[0]);
    sw_journal__loaded_fini(&buffers[1]);
    free(segs);
    return err;
}
