/* store/journal_log.c - the end of the log.
 *
 * Room       store/. The committer; at start and at the end the thread that opens and closes.
 *
 * What holds at every moment, so that a crash there loses nothing that was acknowledged:
 *
 *  1. No byte of a segment is written twice. What stands before a torn or failed end is not
 * touched.
 *  2. A segment is synced before the next one begins, in every sync mode. The next one's header is
 *     written and synced before it gets its name, and the folder is synced before a frame is
 *     written: so the header of a segment with frames is whole.
 *  3. A header says with which sequence number its segment begins. Frames of earlier segments from
 *     that number on are void: a failed batch, or a torn end that an earlier start found. So what
 *     was answered as failed cannot come back behind what was acknowledged later.
 *  4. After an error nothing more is written to that segment. If a sync failed, the kernel may have
 *     dropped pages of all that was written since the last one that succeeded; in mode `always`
 *     that is only what was never acknowledged. In the other modes those frames are read back,
 *     their sums are compared, and they are written again into the next segment before it gets its
 *     name (carry). As long as that fails, all writes are refused. (What stood synced in a page
 *     that a failed sync wrote again is taken to be there: a sector holds its old or its new bytes,
 *     and both begin with the same.)
 *  5. An old segment is removed only when all that it holds and that is still true stands in later
 *     ones, and a frame that says so (TRIM) is durable: see journal_sweep.c. Each header repeats
 * what the TRIMs before it say, so a start knows from the last segment alone which ones it needs.
 */
#include "store/journal_priv.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define SEGMENT_ROUND 4096u

int sw_journal__log_add(struct journal_log *l, const struct journal_segment *segment)
{
    if (l->segment_count == l->segment_cap) {
        size_t cap = l->segment_cap == 0 ? 64 : 2 * l->segment_cap;
        struct journal_segment *more = realloc(l->segments, cap * sizeof(*more));

        if (more == NULL) {
            return ENOMEM;
        }
        l->segments = more;
        l->segment_cap = cap;
    }
    l->segments[l->segment_count++] = *segment;
    return 0;
}

/* For stats. */
static void file_bytes_publish(struct journal_log *l)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < l->segment_count; i++) {
        bytes += l->segments[i].file_bytes;
    }
    atomic_store_explicit(&l->file_bytes, bytes, memory_order_relaxed);
}

static void failed(struct journal_log *l, enum journal_health health)
{
    l->health = SW_MAX(l->health, health);
}

/* ---- a new segment --------------------------------------------------------------------------- */

/* Frames that the next segment begins with, since a sync failed. */
struct carry {
    char *bytes;
    size_t len;
};

static void carry_free(struct carry *c)
{
    free(c->bytes);
}

/* Header and carried frames, synced; then the name, synced. */
static int segment_name(struct journal_log *l, int fd, const struct journal_header *h,
                        const struct carry *carry)
{
    unsigned char head[JOURNAL_HEADER_BYTES];
    struct iovec iov[2] = {{head, sizeof(head)}, {carry->bytes, carry->len}};
    char name[JOURNAL_NAME_BYTES];
    int error;

    sw_journal__header_write(head, h);
    error = sw_journal__write_all(fd, iov, carry->len > 0 ? 2 : 1, 0);
    if (error != 0) {
        return error;
    }
    sw_journal__segment_name(name, h->number);
    return fdatasync(fd) != 0 ||
                   renameat(l->folder_fd, JOURNAL_SPARE_NAME, l->folder_fd, name) != 0 ||
                   fsync(l->folder_fd) != 0
               ? errno
               : 0;
}

static bool trim_durable(const struct journal_log *l)
{
    return l->trim != 0 && l->trim_seq <= l->seq_durable;
}

static struct journal_header header_next(struct journal_log *l, uint64_t number, uint64_t first_seq,
                                         uint64_t file_bytes)
{
    struct journal_header h = {
        .number = number,
        .first_seq = first_seq,
        .oldest = l->segment_count > 0 ? l->segments[0].header.number : number,
        .file_bytes = file_bytes,
        .made_unix_s = (int64_t)(sw_store__clock_ns(CLOCK_REALTIME) / SW_NS_PER_S),
        .mark = (uint32_t)sw_rng_u64(&l->rng) | 1,
    };

    if (trim_durable(l)) { /* it stands in an earlier segment, which a start may not read for it */
        h.oldest = l->trim;
    }
    memcpy(h.id, l->id, sizeof(h.id));
    return h;
}

static void mark_set(const struct carry *carry, uint32_t mark)
{
    struct journal_frame f;

    for (size_t at = 0; at < carry->len; at += f.bytes) {
        uint32_t old;

        memcpy(&old, carry->bytes + at, sizeof(old));
        if (!sw_journal__frame_read(carry->bytes + at, carry->len - at, le32toh(old), &f)) {
            SW_UNREACHABLE(); /* they were read before */
        }
        old = htole32(mark);
        memcpy(carry->bytes + at, &old, sizeof(old));
    }
}

/* Of a file that has room for so many bytes of frames. */
static uint64_t file_bytes_min(uint64_t bytes)
{
    return (JOURNAL_HEADER_BYTES + bytes + SEGMENT_ROUND - 1) & ~(uint64_t)(SEGMENT_ROUND - 1);
}

/* Everything up to first_seq - 1 is durable, or carried. */
static int segment_begin(struct journal_log *l, uint64_t first_seq, uint64_t bytes_min,
                         const struct carry *carry, bool replace)
{
    uint64_t now_ns = sw_store__clock_ns(CLOCK_MONOTONIC);
    struct journal_segment seg = {0};
    uint64_t file_bytes, number = 1;
    int error, fd;

    if (l->segment_count > 0) {
        number = log_segment(l)->header.number + !replace;
    }
    if (number > UINT32_MAX) {
        return EFBIG;
    }
    error = sw_journal__keeper_look(&l->keeper, file_bytes_min(bytes_min + carry->len),
                                    l->next_bytes, true);
    if (error != 0) {
        return error;
    }
    fd = sw_journal__keeper_take(&l->keeper, &file_bytes);
    seg.header = header_next(l, number, first_seq, file_bytes);
    mark_set(carry, seg.header.mark);
    seg.file_bytes = file_bytes;
    error = segment_name(l, fd, &seg.header, carry);
    if (error == 0 && !replace) {
        error = sw_journal__log_add(l, &seg);
    }
    if (error != 0) {
        /* perhaps it has its name: no frame may follow in the old one */
        failed(l, JOURNAL_UNWRITTEN);
        (void)unlinkat(l->folder_fd, JOURNAL_SPARE_NAME, 0);
        close(fd);
        return error;
    }
    if (replace) {
        *log_segment(l) = seg;
    } else if (l->segment_count > 1) {
        l->segments[l->segment_count - 2].used = l->at;
        l->bytes_before += l->at;
    }
    if (l->segment_ns != 0 && now_ns - l->segment_ns < JOURNAL_SEGMENT_NS_MIN &&
        l->next_bytes < JOURNAL_SEGMENT_BYTES_FAST) {
        l->next_bytes *= 2;
    }
    sw_store__fd_close(&l->fd);
    l->fd = fd;
    l->segment_ns = now_ns;
    l->said.durable = l->kept.durable = first_seq - 1; /* its header says so */
    l->at = JOURNAL_HEADER_BYTES + carry->len;
    l->flushed_at = l->at;
    l->durable_at = l->at;
    l->kept_at = 0;
    sw_journal__keeper_ask(&l->keeper, l->next_bytes);
    file_bytes_publish(l);
    return 0;
}

int sw_journal__log_start(struct journal_log *l, bool replace)
{
    static const struct carry none;
    int error = segment_begin(l, l->seq_last + 1, 0, &none, replace);

    if (error == 0) {
        l->seq_durable = l->seq_last;
        log_keep(l);
    }
    return error;
}

/* ---- appending ------------------------------------------------------------------------------- */

static void buffer_drop(struct journal_log *l)
{
    l->buffer_used = 0;
    l->iov_count = 0;
}

int sw_journal__log_flush(struct journal_log *l)
{
    int error;

    SW_ASSERT(l->health == JOURNAL_WELL);
    if (l->iov_count == 0) {
        return 0;
    }
    error = sw_journal__write_all(l->fd, l->iov, l->iov_count, l->flushed_at);
    buffer_drop(l);
    if (error != 0) {
        failed(l, JOURNAL_UNWRITTEN);
        return error;
    }
    l->flushed_at = l->at;
    return 0;
}

int sw_journal__log_sync(struct journal_log *l)
{
    SW_ASSERT(l->iov_count == 0);
    if (fdatasync(l->fd) != 0) {
        int error = errno;

        failed(l, JOURNAL_UNSYNCED);
        return error;
    }
    l->seq_durable = l->seq_last;
    l->durable_at = l->at;
    return 0;
}

/* The next segment, with room for so many bytes. */
static int turn(struct journal_log *l, uint64_t bytes)
{
    static const struct carry none;
    int error = sw_journal__log_flush(l);

    if (error == 0) {
        error = sw_journal__log_sync(l);
    }
    return error != 0 ? error : segment_begin(l, l->seq_last + 1, bytes, &none, false);
}

size_t sw_journal__frame_bytes(const struct journal_piece *pieces, size_t count)
{
    size_t bytes = JOURNAL_FRAME_HEAD;

    for (size_t i = 0; i < count; i++) {
        bytes += journal_padded(pieces[i].head_len + pieces[i].payload.len);
    }
    return bytes;
}

static bool is_inline(const struct journal_piece *p)
{
    return p->payload.len <= JOURNAL_INLINE_MAX;
}

static bool buffer_has_room(const struct journal_log *l, const struct journal_piece *pieces,
                            size_t count)
{
    size_t bytes = JOURNAL_FRAME_HEAD;
    int vectors = 1;

    for (size_t i = 0; i < count; i++) {
        bytes += pieces[i].head_len + JOURNAL_ALIGN +
                 (is_inline(&pieces[i]) ? pieces[i].payload.len : 0);
        vectors += is_inline(&pieces[i]) ? 0 : 2;
    }
    return bytes <= JOURNAL_BUFFER_BYTES - l->buffer_used &&
           l->iov_count + vectors <= JOURNAL_IOV_MAX;
}

/* Bytes that are written from where they are. */
static void vector_add(struct journal_log *l, const void *bytes, size_t len)
{
    if (l->iov_count > 0) {
        struct iovec *last = &l->iov[l->iov_count - 1];

        if ((const char *)last->iov_base + last->iov_len == bytes) {
            last->iov_len += len;
            return;
        }
    }
    SW_ASSERT(l->iov_count < JOURNAL_IOV_MAX);
    l->iov[l->iov_count++] = (struct iovec){(void *)(uintptr_t)bytes, len};
}

/* Bytes that are copied (NULL: zeros). */
static unsigned char *buffer_add(struct journal_log *l, const void *bytes, size_t len)
{
    unsigned char *at = l->buffer + l->buffer_used;

    SW_ASSERT(len <= JOURNAL_BUFFER_BYTES - l->buffer_used);
    if (bytes != NULL) {
        memcpy(at, bytes, len);
    } else {
        memset(at, 0, len);
    }
    l->buffer_used += len;
    if (len > 0) {
        vector_add(l, at, len);
    }
    return at;
}

int sw_journal__log_append(struct journal_log *l, const struct journal_piece *pieces, size_t count,
                           uint32_t *ret_segment)
{
    struct journal_frame f = {.count = (uint32_t)count, .durable = l->seq_durable};
    size_t bytes = sw_journal__frame_bytes(pieces, count);
    unsigned char *head;
    uint32_t crc;
    int error = 0;

    SW_ASSERT(l->health == JOURNAL_WELL);
    SW_ASSERT(bytes <= UINT32_MAX);
    if (bytes > log_room(l)) {
        error = turn(l, bytes);
        f.durable = l->seq_durable;
    }
    if (error == 0 && !buffer_has_room(l, pieces, count)) {
        error = sw_journal__log_flush(l);
    }
    if (error != 0) {
        return error;
    }
    SW_ASSERT(bytes <= log_room(l));
    f.bytes = (uint32_t)bytes;
    f.seq = ++l->seq_last;
    l->said.data = count > 0 ? f.seq : l->said.data;
    l->said.durable = SW_MAX(l->said.durable, f.durable);
    crc = sw_journal__frame_crc(&f);
    head = buffer_add(l, NULL, JOURNAL_FRAME_HEAD);
    for (size_t i = 0; i < count; i++) {
        const struct journal_piece *p = &pieces[i];
        size_t pad = journal_padded(p->head_len + p->payload.len) - p->head_len - p->payload.len;
        unsigned char *at = buffer_add(l, p->head, p->head_len);

        crc = sw_journal__crc(crc, at, p->head_len);
        crc = sw_journal__crc(crc, p->payload.ptr, p->payload.len);
        if (is_inline(p)) {
            (void)buffer_add(l, p->payload.ptr != NULL ? p->payload.ptr : "", p->payload.len);
        } else {
            vector_add(l, p->payload.ptr, p->payload.len);
        }
        at = buffer_add(l, NULL, pad);
        crc = sw_journal__crc(crc, at, pad);
    }
    sw_journal__frame_write(head, log_segment(l)->header.mark, crc, &f);
    l->at += bytes;
    *ret_segment = log_number(l);
    return 0;
}

void sw_journal__log_mark(struct journal_log *l)
{
    uint32_t segment;

    if (l->health != JOURNAL_WELL || l->seq_last != l->seq_good ||
        SW_MIN(l->kept.data, l->seq_durable) <= l->kept.durable ||
        log_room(l) < JOURNAL_FRAME_HEAD) {
        return;
    }
    SW_ASSERT(l->iov_count == 0);
    if (sw_journal__log_append(l, NULL, 0, &segment) != 0 || sw_journal__log_flush(l) != 0) {
        sw_journal__log_fail(l); /* what it was to speak for stands all the same */
        return;
    }
    log_keep(l);
}

int sw_journal__log_prepare(struct journal_log *l, uint64_t bytes, bool wait)
{
    return bytes <= log_room(l)
               ? 0
               : sw_journal__keeper_look(&l->keeper, file_bytes_min(bytes), l->next_bytes, wait);
}

void sw_journal__log_grow(struct journal_log *l, uint64_t live)
{
    while (l->next_bytes < JOURNAL_SEGMENT_BYTES_MAX &&
           l->next_bytes < live / JOURNAL_SEGMENT_SHARE) {
        l->next_bytes *= 2;
        sw_journal__keeper_ask(&l->keeper, l->next_bytes);
    }
}

/* ---- after an error -------------------------------------------------------------------------- */

void sw_journal__log_fail(struct journal_log *l)
{
    buffer_drop(l);
    l->seq_last = l->seq_good;
    l->said = l->kept;
    if (l->health == JOURNAL_WELL && l->flushed_at == l->kept_at) {
        l->at = l->kept_at; /* nothing of it was written */
        return;
    }
    failed(l, JOURNAL_UNWRITTEN);
}

/* The frames that stand, but were not synced: all of them lie in the last segment. */
static int carry_read(struct journal_log *l, struct carry *carry)
{
    size_t len;
    int error;

    if (l->seq_durable >= l->seq_good) {
        return 0;
    }
    SW_ASSERT(l->kept_at > l->durable_at);
    len = (size_t)(l->kept_at - l->durable_at);
    carry->bytes = malloc(len);
    if (carry->bytes == NULL) {
        return ENOMEM;
    }
    error = sw_journal__read_all(l->fd, carry->bytes, len, l->durable_at);
    for (uint64_t seq = l->seq_durable + 1; error == 0 && carry->len < len; seq++) {
        struct journal_frame f;

        if (!sw_journal__frame_read(carry->bytes + carry->len, len - carry->len,
                                    log_segment(l)->header.mark, &f) ||
            f.seq != seq) {
            return EIO; /* the kernel has dropped it */
        }
        carry->len += f.bytes;
    }
    return error;
}

int sw_journal__log_repair(struct journal_log *l)
{
    SW_CLEANUP(carry_free) struct carry carry = {NULL, 0};
    uint64_t first;
    int error = 0;

    if (l->health == JOURNAL_WELL) {
        return 0;
    }
    SW_ASSERT(l->iov_count == 0);
    SW_ASSERT(l->seq_last == l->seq_good);
    if (l->health == JOURNAL_UNWRITTEN) { /* what stands there must be durable before the next */
        if (fdatasync(l->fd) != 0) {
            failed(l, JOURNAL_UNSYNCED);
            return errno;
        }
        l->seq_durable = l->seq_good;
    }
    if (l->seq_durable < l->seq_good && !log_unsynced(l)) { /* marks: the next header says more */
        l->seq_last = l->seq_good = l->seq_durable;
        l->kept_at = l->durable_at;
    }
    first = SW_MIN(l->seq_durable, l->seq_good) + 1;
    error = carry_read(l, &carry);
    if (error == 0) {
        uint64_t at = l->at;

        l->at = l->kept_at != 0 ? l->kept_at : l->at; /* the rest is void */
        error = segment_begin(l, first, 0, &carry, false);
        l->at = error != 0 ? at : l->at;
    }
    if (error != 0) {
        return error;
    }
    l->seq_durable = l->seq_good;
    log_keep(l);
    l->health = JOURNAL_WELL;
    return 0;
}

/* ---- the other end --------------------------------------------------------------------------- */

void sw_journal__log_trim(struct journal_log *l)
{
    uint64_t from = l->segments[0].header.number;
    size_t count = 0;

    if (!trim_durable(l) || l->health != JOURNAL_WELL) {
        return;
    }
    while (l->segments[count].header.number < l->trim) {
        l->bytes_before -= l->segments[count++].used;
        SW_ASSERT(count < l->segment_count); /* never the last one */
    }
    memmove(l->segments, l->segments + count, (l->segment_count - count) * sizeof(*l->segments));
    l->segment_count -= count;
    sw_journal__keeper_remove(&l->keeper, from, l->trim);
    l->trim = 0;
    file_bytes_publish(l);
}

/* END, which says that all before it is durable. */
static int end_write(struct journal_log *l)
{
    struct journal_piece end;
    uint32_t segment;
    int error = l->seq_durable < l->seq_last ? sw_journal__log_sync(l) : 0;

    sw_journal__piece_end(&end);
    if (error != 0 || sw_journal__frame_bytes(&end, 1) > log_room(l)) {
        return error;
    }
    error = sw_journal__log_append(l, &end, 1, &segment);
    if (error == 0) {
        error = sw_journal__log_flush(l);
    }
    if (error == 0) {
        error = sw_journal__log_sync(l);
    }
    if (error == 0) {
        (void)!ftruncate(l->fd, (off_t)l->at); /* the zeros behind it are not needed */
    }
    return error;
}

void sw_journal__log_close(struct journal_log *l)
{
    if (l->fd >= 0 && l->health == JOURNAL_WELL) {
        (void)!end_write(l); /* what was acknowledged is there without it */
    } else if (l->fd >= 0 && l->health == JOURNAL_UNWRITTEN) {
        (void)!fdatasync(l->fd); /* a last attempt for what was acknowledged without a sync */
    }
    sw_journal__keeper_stop(&l->keeper);
    sw_store__fd_close(&l->fd);
    l->fd = -1;
    free(sw_take(&l->segments));
    free(sw_take(&l->buffer));
}
