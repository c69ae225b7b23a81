/* store/journal_priv.h - what the files of the journal store share: a table in memory, and a log.
 *
 *   journal_crc.c      CRC32C
 *   journal_format.c   bytes of the log: headers of segments, frames, records
 *   journal_file.c     which segments there are; reads and writes of many bytes
 *   journal_segment.c  a segment read and checked: where its frames end, and what is damage
 *   journal_list.c     an ordered set (the indexes are made of it)
 *   journal_table.c    records in memory, sharded
 *   journal_index.c    the indexes of subjects and of what is due, and the cut-offs
 *   journal_log.c      the end of the log: frames are appended, synced, carried over after an error
 *   journal_keeper.c   a thread that prepares the next segment and removes old ones
 *   journal_stage.c    the commits of a batch: planned, appended, shown
 *   journal_commit.c   queue, committer thread, group commit
 *   journal_sweep.c    the collector, and compaction
 *   journal_replay.c   the log read at start
 *   journal_read.c     load, scans, what is due
 *   journal_open.c     sw_store_open_journal, sw_store_close
 *   journal_source.c   one moment of a journal, for commands: beside a gateway too
 *   journal_check.c    sw_store_journal_check
 *   journal_copy.c     sw_store_journal_backup, sw_store_journal_compact
 *
 * Flow of a load: inline on the worker; a shard's lock, held for the look-up and a copy of at most
 * JOURNAL_COPY_MAX bytes. Of a commit: worker -> queue -> committer: planned against the table and
 * what the batch made so far, one frame each, one write and one sync for all that arrived during
 * the last one; then the table shows it, then sw_loop_post to each asker.
 *
 * Who may touch what. The committer alone changes the table, the indexes and the log, so it reads
 * them without a lock; it takes a lock to change what readers look at. Before it runs (replay) and
 * after it ended (close) the opening and the closing thread are in its place. The order of locks:
 * shards by their number, then a subject's or that of what is due.
 *
 * Why locks and no epochs: a lock here is held for less than a microsecond and never over a system
 * call; 256 of them hardly ever meet. Epochs would save readers some 20 ns and need a registry of
 * reading threads, and a reader that sleeps in its epoch would keep all memory freed meanwhile. A
 * large value is not copied under the lock: the reader takes a reference, and the record stays in
 * memory until it was copied, even if another one is in its place by then.
 */
#ifndef SW_JOURNAL_PRIV_H
#define SW_JOURNAL_PRIV_H

#include "store/store_priv.h"

#include <pthread.h>
#include <sys/uio.h>
#include <time.h>

#include "base/rng.h"
#include "store/journal_table.h"

#define JOURNAL_MEMORY_DEFAULT     (1ull << 30)
#define JOURNAL_MEMORY_MIN         (1ull << 20)
#define JOURNAL_RESERVE_SHARE      64u   /* of memory_bytes_max: for tombstones when it is full */
#define JOURNAL_COPY_MAX           4096u /* a longer value is copied without the lock */
#define JOURNAL_BATCH_MAX          1024u
#define JOURNAL_BATCH_BYTES_MAX    (16u << 20)
#define JOURNAL_STAGES_MAX         (JOURNAL_BATCH_MAX * SW_COMMIT_WRITES_MAX)
#define JOURNAL_OVERLAY_SLOTS      16384u
#define JOURNAL_SEGMENT_BYTES_MIN  (1ull << 20)
#define JOURNAL_SEGMENT_BYTES_MAX  (64ull << 20) /* one with a larger commit in it is larger */
#define JOURNAL_SEGMENT_SHARE      16u /* a segment is at least this part of what is live */
#define JOURNAL_SEGMENT_BYTES_FAST (16ull << 20)     /* ... unless that much of it is live */
#define JOURNAL_SEGMENT_NS_MIN     (2 * SW_NS_PER_S) /* filled sooner: the next is twice as large */
#define JOURNAL_SEGMENT_RESERVE    8u /* an eighth is for deletes, when there is no next one */
#define JOURNAL_BUFFER_BYTES       (1u << 20)
#define JOURNAL_IOV_MAX            256
#define JOURNAL_INLINE_MAX         16384u /* a longer payload is written from where it is */

_Static_assert(JOURNAL_OVERLAY_SLOTS >= 2 * JOURNAL_STAGES_MAX, "an open table must have room");
_Static_assert(JOURNAL_STAGES_MAX <= UINT16_MAX, "a stage's number is two bytes");
_Static_assert(SW_SUBJECT_BYTES_MAX <= UINT8_MAX, "its length is one byte");
_Static_assert(SW_EXTRA_BYTES_MAX <= UINT16_MAX, "its length is two bytes");

/* ---- journal_crc.c --------------------------------------------------------------------------- */

/* CRC-32C (Castagnoli) of what crc covers and these bytes behind it; 0 for a beginning. */
uint32_t sw_journal__crc(uint32_t crc, const void *bytes, size_t len);
/* The same by a table: for processors without the instruction, and to test the other. */
uint32_t sw_journal__crc_table(uint32_t crc, const void *bytes, size_t len);

/* ---- journal_format.c ------------------------------------------------------------------------ */

#define JOURNAL_FORMAT       1u
#define JOURNAL_HEADER_BYTES 4096u
#define JOURNAL_FRAME_HEAD   32u
#define JOURNAL_RECORD_HEAD  112u /* the longest */
#define JOURNAL_ALIGN        8u
#define JOURNAL_NAME_BYTES   32u

struct journal_header {
    uint8_t id[16]; /* of the store, random */
    uint64_t number, first_seq;
    uint64_t oldest; /* when it was made, the first segment that was still needed */
    uint64_t file_bytes;
    int64_t made_unix_s;
    uint32_t mark; /* random: each frame begins with it */
};
void sw_journal__header_write(unsigned char p[JOURNAL_HEADER_BYTES],
                              const struct journal_header *h);
/* SW_E_STORE_FORMAT: not ours, or of another format (*ret_format); SW_E_STORE_CORRUPT. */
SW_MUST enum sw_err sw_journal__header_read(const unsigned char p[JOURNAL_HEADER_BYTES],
                                            struct journal_header *h, uint32_t *ret_format);
/* "0000000000000001.journal" */
void sw_journal__segment_name(char out[JOURNAL_NAME_BYTES], uint64_t number);
SW_MUST bool sw_journal__segment_name_read(const char *name, uint64_t *ret_number);

enum journal_type {
    JOURNAL_PUT = 1,
    JOURNAL_TOUCH = 2,
    JOURNAL_DROP = 3, /* taken away: it was cut off */
    JOURNAL_CUTOFF = 4,
    JOURNAL_TRIM = 5, /* segments before this one are not needed */
    JOURNAL_END = 6,  /* the store was closed */
};
/* One record of a frame, to be written: its head, and what follows it. */
struct journal_piece {
    unsigned char head[JOURNAL_RECORD_HEAD];
    uint32_t head_len;
    struct sw_slice payload; /* borrowed until the log is flushed */
};
void sw_journal__piece_put(struct journal_piece *p, const struct journal_record *r);
void sw_journal__piece_touch(struct journal_piece *p, const struct sw_store_key *key,
                             const struct sw_record *r);
void sw_journal__piece_drop(struct journal_piece *p, const struct journal_record *r);
void sw_journal__piece_cutoff(struct journal_piece *p, struct sw_slice subject,
                              const struct store_cutoff *c);
void sw_journal__piece_trim(struct journal_piece *p, uint64_t oldest);
void sw_journal__piece_end(struct journal_piece *p);
/* Bytes of a record like this in a frame, its padding included. */
size_t sw_journal__put_bytes(const struct sw_record *r);
size_t sw_journal__cutoff_bytes(struct sw_slice subject);
static inline size_t journal_padded(size_t len)
{
    return (len + JOURNAL_ALIGN - 1) & ~(size_t)(JOURNAL_ALIGN - 1);
}

/* One record of a frame, as it was read. Slices point into the frame. */
struct journal_entry {
    enum journal_type type;
    struct sw_store_key key;
    struct sw_record record;    /* PUT: all; TOUCH: version and two times */
    struct store_cutoff cutoff; /* of record.subject */
    uint64_t oldest;            /* TRIM */
    size_t bytes;               /* to the next */
};
/* False: no record of ours. */
SW_MUST bool sw_journal__entry_read(const char *p, size_t len, struct journal_entry *ret_entry);

struct journal_frame {
    uint32_t bytes, count;
    uint64_t seq, durable;
};
void sw_journal__frame_write(unsigned char p[JOURNAL_FRAME_HEAD], uint32_t mark, uint32_t crc,
                             const struct journal_frame *f);
/* A whole frame whose sum is right, and whose records are. */
SW_MUST bool sw_journal__frame_read(const char *p, size_t len, uint32_t mark,
                                    struct journal_frame *ret_frame);
/* The head of a frame that was read before. */
void sw_journal__frame_head_read(const char *p, struct journal_frame *ret_frame);
/* The CRC of a frame's head, from which that of its records goes on. */
uint32_t sw_journal__frame_crc(const struct journal_frame *f);

/* ---- journal_file.c -------------------------------------------------------------------------- */

/* A segment that is there. */
struct journal_segment {
    struct journal_header header;
    uint64_t file_bytes; /* as it is */
    uint64_t used;       /* to the end of its last frame */
    enum sw_err err;     /* of its header */
};
/* All of the folder, in their order; *ret_segments is the caller's to free. */
SW_MUST enum sw_err sw_journal__segments_list(struct sw_slice folder, int folder_fd,
                                              struct journal_segment **ret_segments,
                                              size_t *ret_count, const char **ret_why);
/* A segment, to be read. */
SW_MUST enum sw_err sw_journal__segment_open(const char *folder, int folder_fd, uint64_t number,
                                             int *ret_fd, const char **ret_why);
/* All bytes or an errno. */
SW_MUST int sw_journal__write_all(int fd, struct iovec *iov, int count, uint64_t at);
SW_MUST int sw_journal__read_all(int fd, void *to, size_t len, uint64_t at);

/* ---- journal_segment.c ----------------------------------------------------------------------- */

/* A segment in memory; zeroed before its first use, and used again for others. */
struct journal_loaded {
    char *bytes;
    size_t cap;
    const struct journal_segment *seg;
    size_t end;          /* of its frames that count */
    uint64_t first, seq; /* of the first and the last one */
    uint64_t trim;       /* the largest TRIM in it; 0: none */
    bool any;            /* there are frames other than END */
    bool closed;         /* the last one is END */
};
void sw_journal__loaded_fini(struct journal_loaded *ld);
/* Reads a segment whose frames before number `limit` count (UINT64_MAX: it is the last one).
 * SW_E_STORE_CORRUPT: not all of them are whole; those up to ld->end are. */
SW_MUST enum sw_err sw_journal__segment_load(const char *folder, int fd,
                                             const struct journal_segment *seg, uint64_t limit,
                                             struct journal_loaded *ld, const char **ret_why);
/* The first whole frame from `at` on with a number above `seq`; false: there is none. */
SW_MUST bool sw_journal__segment_resume(const struct journal_loaded *ld, size_t at, uint64_t seq,
                                        size_t *ret_at, struct journal_frame *ret_frame);
/* Frames of segment i from here on are void. */
uint64_t sw_journal__segments_limit(const struct journal_segment *segs, size_t count, size_t i);
/* The segments from the oldest that is needed on: all there, of one store, with whole headers. */
SW_MUST enum sw_err sw_journal__segments_check(const char *folder,
                                               const struct journal_segment *segs, size_t count,
                                               uint64_t oldest, size_t *ret_from,
                                               const char **ret_why);
/* SW_E_STORE_CORRUPT, with the place and what to do. */
enum sw_err sw_journal__damaged(const char *folder, uint64_t number, uint64_t at, const char *what,
                                const char **ret_why);

/* ---- journal_keeper.c ------------------------------------------------------------------------ */

#define JOURNAL_SPARE_NAME "spare"
struct journal_keeper {
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake, ready;
    int folder_fd;
    /* under the lock */
    uint64_t want_bytes; /* 0: nothing is wanted */
    int fd;              /* of the spare that is ready; -1: none */
    uint64_t bytes;
    int error;                        /* why there is none */
    uint64_t remove_from, remove_end; /* segments to be removed */
    bool stop;
};
SW_MUST int sw_journal__keeper_start(struct journal_keeper *k, int folder_fd);
/* Waits for what it does, and removes the spare. */
void sw_journal__keeper_stop(struct journal_keeper *k);
/* A zero-filled, synced file of at least so many bytes will be wanted. */
void sw_journal__keeper_ask(struct journal_keeper *k, uint64_t bytes);
/* Is one of at least bytes_min there? If not, one of `bytes` is wanted; wait: until it is there or
 * cannot be. 0, or an errno (EAGAIN: not yet). */
SW_MUST int sw_journal__keeper_look(struct journal_keeper *k, uint64_t bytes_min, uint64_t bytes,
                                    bool wait);
/* Takes the spare that look found: the caller renames and closes it. */
int sw_journal__keeper_take(struct journal_keeper *k, uint64_t *ret_bytes);
/* Segments of these numbers are not needed any more. */
void sw_journal__keeper_remove(struct journal_keeper *k, uint64_t from, uint64_t end);

/* ---- journal_log.c --------------------------------------------------------------------------- */

enum journal_health {
    JOURNAL_WELL,
    JOURNAL_UNWRITTEN, /* a write failed: what is behind the last good frame is void */
    JOURNAL_UNSYNCED,  /* a sync failed: what was not synced before must be written again */
};
struct journal_log {
    struct journal_keeper keeper;
    int folder_fd;
    uint8_t id[16];
    struct journal_segment *segments; /* oldest first; the last one is written to */
    size_t segment_count, segment_cap;
    int fd;               /* of the last one */
    uint64_t at;          /* where its next frame begins */
    uint64_t kept_at;     /* where seq_good ends; 0: in a segment before the last one */
    uint64_t durable_at;  /* where seq_durable ends; at least the header's end */
    uint64_t segment_ns;  /* when it was begun */
    uint64_t next_bytes;  /* how large the next one will be */
    uint64_t seq_last;    /* appended */
    uint64_t seq_good;    /* stands: a later one is void until log_keep */
    uint64_t seq_durable; /* synced */
    struct journal_said {
        uint64_t data;       /* the last frame with records in it */
        uint64_t durable;    /* the last one of which a frame or a header says that it is durable */
    } said, kept;            /* of seq_last; of seq_good */
    uint64_t trim, trim_seq; /* a TRIM that was appended, and its frame; 0: none is under way */
    uint64_t bytes_before;   /* in the segments before the last one */
    _Atomic uint64_t file_bytes; /* on disk, published for stats */
    struct sw_rng rng;
    enum journal_health health;
    /* appended, and not yet written: */
    unsigned char *buffer;
    size_t buffer_used;
    struct iovec iov[JOURNAL_IOV_MAX];
    int iov_count;
    uint64_t flushed_at; /* where that begins */
};
static inline struct journal_segment *log_segment(struct journal_log *l)
{
    SW_ASSERT(l->segment_count > 0);
    return &l->segments[l->segment_count - 1];
}
static inline uint32_t log_number(struct journal_log *l)
{
    return (uint32_t)log_segment(l)->header.number;
}
static inline uint64_t log_room(struct journal_log *l)
{
    return log_segment(l)->header.file_bytes - l->at;
}
/* Bytes of frames in all segments. */
static inline uint64_t log_bytes(const struct journal_log *l)
{
    return l->bytes_before + l->at;
}
/* Takes one more segment's description into the list. 0, or ENOMEM. */
SW_MUST int sw_journal__log_add(struct journal_log *l, const struct journal_segment *segment);
/* A new segment at start; replace: in place of the last one, in which nothing stands. 0, or an
 * errno. */
SW_MUST int sw_journal__log_start(struct journal_log *l, bool replace);
/* One frame. It may begin the next segment. *ret_segment: where it is. 0, or an errno: then the
 * batch has failed (sw_journal__log_fail). */
SW_MUST int sw_journal__log_append(struct journal_log *l, const struct journal_piece *pieces,
                                   size_t count, uint32_t *ret_segment);
size_t sw_journal__frame_bytes(const struct journal_piece *pieces, size_t count);
SW_MUST int sw_journal__log_flush(struct journal_log *l);
/* After a flush. */
SW_MUST int sw_journal__log_sync(struct journal_log *l);
/* What was appended, and written, stands. */
static inline void log_keep(struct journal_log *l)
{
    l->seq_good = l->seq_last;
    l->kept_at = l->at;
    l->kept = l->said;
}
/* A frame without records behind what is durable, if no frame says so yet: so that damage to it is
 * no torn end. When nobody waits: frames that follow say it as well. Nothing is synced for it. */
void sw_journal__log_mark(struct journal_log *l);
/* Is there anything that a sync would make durable? Marks are not worth one. */
static inline bool log_unsynced(const struct journal_log *l)
{
    return l->seq_durable < l->kept.data;
}
/* What was appended since log_keep does not. */
void sw_journal__log_fail(struct journal_log *l);
/* Goes on in a new segment after an error. 0: the log is well. */
SW_MUST int sw_journal__log_repair(struct journal_log *l);
/* Can so many bytes be appended without waiting for the disk's room; else by the keeper's answer
 * an errno. wait: waits for a segment that is being made. */
SW_MUST int sw_journal__log_prepare(struct journal_log *l, uint64_t bytes, bool wait);
/* So much is live: the next segments are a good part of it. */
void sw_journal__log_grow(struct journal_log *l, uint64_t live);
/* The segments before the TRIM that is under way are removed, if it is durable by now. */
void sw_journal__log_trim(struct journal_log *l);
/* The last frame, synced, and the file cut behind it; then closes. */
void sw_journal__log_close(struct journal_log *l);

/* ---- journal_stage.c ------------------------------------------------------------------------- */

/* Plans and appends one commit. Sets op->err when it is refused: then nothing of it is in the
 * batch. Returns an errno when the log failed, and the batch with it. */
SW_MUST int sw_journal__commit_make(struct journal_store *s, struct sw_store_commit *op);
/* Forgets the writes of the batch from this one on. */
void sw_journal__stages_drop(struct journal_store *s, size_t from);
/* The batch is on disk: commit by commit, the table shows it. */
void sw_journal__batch_show(struct journal_store *s);

/* ---- journal_commit.c, journal_sweep.c ------------------------------------------------------- */

/* One write of the batch: planned, appended, and shown when the batch is on disk. */
struct journal_stage {
    const struct sw_write *write;
    enum store_act act;
    bool last;                      /* of its commit */
    uint32_t segment;               /* where its frame is */
    uint64_t hash;                  /* of the key; not for CUTOFF */
    struct sw_record seen;          /* what a later commit of the batch finds; not for CUTOFF */
    struct journal_record *record;  /* PUT: the new one, until it is shown */
    struct store_cutoff cutoff;     /* CUTOFF */
    struct journal_node *cutoff_at; /* CUTOFF: for a subject that has none, until it is shown */
};
struct journal_batch {
    struct sw_store_commit *ops[JOURNAL_BATCH_MAX];
    struct journal_stage stages[JOURNAL_STAGES_MAX];
    size_t stage_count, cutoff_count;
    struct {            /* the last stage of each key; open addressing */
        uint32_t batch; /* of another batch: free */
        uint16_t stage;
    } overlay[JOURNAL_OVERLAY_SLOTS];
    uint32_t number;
    bool alone;       /* one commit: nobody looks into the overlay */
    int64_t more;     /* bytes of memory it will take, by the rules of table.used */
    uint64_t written; /* bytes appended */
    int tight;        /* an errno: there is no next segment, only what fits into this one is made */
};

#define JOURNAL_MOVED_MAX 1024u /* records that are copied forward in one step */
struct journal_sweep {
    /* The round over the table, without an end: what expired goes, and what lies in segments
     * before `goal` is copied to the end of the log. */
    uint64_t goal; /* 0: nothing is copied */
    uint32_t shard, slot;
    uint64_t moves; /* of that shard, when the cursor was put there */
    /* The table is done, its cut-offs are next: */
    bool cutoffs;
    struct journal_cursor {
        uint32_t shard;
        uint8_t after_len; /* 0: at its beginning */
        char after[SW_SUBJECT_BYTES_MAX];
    } cutoff;
    struct {                           /* appended, and not yet written */
        struct journal_record *record; /* or */
        struct journal_cutoff *cutoff;
        uint32_t segment;
    } moved[JOURNAL_MOVED_MAX];
    size_t moved_count;
    uint64_t moved_bytes;
    size_t lacks_bytes; /* there was no segment to which a frame of so many bytes could go */
    /* Cut-offs whose states are to be taken away. */
    struct journal_cursor look;
    struct sw_store_key look_key; /* behind this state of the cut-off that comes next */
    bool look_inside;             /* it is one */
    bool urgent;                  /* a put was refused: more is looked through for what expired */
};

struct journal_store {
    struct sw_store base;
    struct sw_store_options opt;
    char path[STORE_PATH_BYTES_MAX]; /* of the folder */
    int folder_fd, lock_fd;
    unsigned forks; /* fork generation at open */
    struct journal_table table;

    /* Queue. */
    _Alignas(64) pthread_mutex_t lock;
    pthread_cond_t wake;
    struct sw_store_commit *first, **last;
    uint32_t waiting;
    bool asleep, stop;

    /* The committer's own. */
    _Alignas(64) pthread_t thread;
    struct sw_rng rng; /* epochs: unique, not secret */
    struct journal_log log;
    struct journal_batch batch;
    struct journal_sweep sweep;
    uint64_t tick_ns, sync_ns;
};

/* The store behind the interface; asserts that no fork lies between. */
struct journal_store *sw_journal__of(struct sw_store *store);

void *sw_journal__committer(void *store);
void sw_journal__commit(struct sw_store *store, struct sw_store_commit *op);

/* What the committer does beside commits, a bounded piece at a time. */

/* Copies forward, if the log is longer than it should be. written: bytes that commits appended
 * since the last time. Nothing is synced. True: there is more to do. */
bool sw_journal__compact(struct journal_store *s, uint64_t written, bool idle);
/* All of the log at once, waiting for the disk; for a store without a committer. 0, or an errno. */
SW_MUST int sw_journal__compact_all(struct journal_store *s);
/* What expired, and what was cut off long ago, goes. Every JOURNAL_TICK_NS. */
void sw_journal__collect(struct journal_store *s);
#define JOURNAL_TICK_NS (100 * SW_NS_PER_MS)

/* ---- journal_read.c, journal_replay.c, journal_open.c ---------------------------------------- */

enum sw_step sw_journal__load(struct sw_store *store, struct sw_store_load *op);
enum sw_err sw_journal__scan(struct sw_store *store, const struct sw_store_key *after, size_t limit,
                             int64_t now_unix_s, sw_store_scan_fn *fn, void *arg);
enum sw_err sw_journal__scan_subject(struct sw_store *store, struct sw_slice subject,
                                     const struct sw_store_key *after, size_t limit,
                                     int64_t now_unix_s, sw_store_scan_fn *fn, void *arg);
enum sw_err sw_journal__due(struct sw_store *store, int64_t now_unix_ms, size_t limit,
                            sw_store_due_fn *fn, void *arg);
int64_t sw_journal__cutoff(struct sw_store *store, struct sw_slice subject);

/* Fills the table and the log's list of segments. *ret_last_empty: nothing stands in the last
 * segment, it may be made anew. */
SW_MUST enum sw_err sw_journal__replay(struct journal_store *s, bool *ret_last_empty,
                                       const char **ret_why);

/* A store without its committer: the caller is in its place. make: the folder, when it is not
 * there. */
SW_MUST enum sw_err sw_journal__open_bare(const struct sw_store_options *opt, bool make,
                                          struct journal_store **ret_store, const char **ret_why);
/* Closes the log. No committer runs (any more). */
void sw_journal__free(struct journal_store *s);

/* ---- journal_source.c, for commands ---------------------------------------------------------- */

/* The segments as they were at one moment. */
struct journal_source {
    char path[STORE_PATH_BYTES_MAX];
    int folder_fd;
    struct journal_segment *segs; /* all that are there, oldest first */
    int *fds;
    size_t count;
    size_t from;                /* the first one that is needed; when nothing is damaged */
    uint64_t oldest;            /* its number, as the newest segment says */
    struct journal_loaded last; /* the newest one; its last frame is the moment */
    enum sw_err last_err;       /* SW_OK, or SW_E_STORE_CORRUPT */
    enum sw_err damage;         /* the same of all that was looked at: is a segment missing? */
    char damage_text[1024];
};
/* SW_E_NOT_FOUND: there is no journal. To be closed on errors too. */
SW_MUST enum sw_err sw_journal__source_open(struct journal_source *x, struct sw_slice folder,
                                            const char **ret_why);
void sw_journal__source_close(struct journal_source *x);
/* On the disk. */
uint64_t sw_journal__source_bytes(const struct journal_source *x);

#endif
