/* store/journal_segment.c - a segment read and checked: where its frames end, and what is damage.
 *
 * Room       store/. At a start, and for commands. Nothing here changes a file.
 *
 * What is damage. A frame is whole if its mark, its length, its sum and its records are right, and
 * its number is the next. In a segment that has a later one all frames must be whole up to the one
 * with which the later one begins; what stands behind these is void. In the last segment the frames
 * end somewhere: there a crash may have torn what was being written, and nothing of that was
 * acknowledged as durable. But each frame tells which frame was known to be durable when it was
 * written. If a whole frame stands further behind and says that one was durable which cannot be
 * read, then it is no torn end but damage: SW_E_STORE_CORRUPT, with the place, and nothing is
 * changed. Behind what was synced stands a frame that says so, soon or at once (a mark: it has no
 * records; sw_journal__log_mark). It is not synced itself: only where the machine died within the
 * moment before it was written back, damage to the very last frames looks as a torn end does. After
 * an orderly close the last frame is END, and speaks for all.
 */
#include "store/journal_priv.h"

#define REMEDY "restore the folder from a backup, or move it away to begin with an empty store"

enum sw_err sw_journal__damaged(const char *folder, uint64_t number, uint64_t at, const char *what,
                                const char **ret_why)
{
    char name[JOURNAL_NAME_BYTES];

    sw_journal__segment_name(name, number);
    return sw_store__refuse(SW_E_STORE_CORRUPT, ret_why,
                            "store %s/%s: %s at byte %llu; nothing was changed; " REMEDY, folder,
                            name, what, (unsigned long long)at);
}

void sw_journal__loaded_fini(struct journal_loaded *ld)
{
    free(sw_take(&ld->bytes));
    ld->cap = 0;
}

bool sw_journal__segment_resume(const struct journal_loaded *ld, size_t at, uint64_t seq,
                                size_t *ret_at, struct journal_frame *ret_frame)
{
    size_t len = (size_t)ld->seg->file_bytes;

    for (at = journal_padded(at); at + JOURNAL_FRAME_HEAD <= len; at += JOURNAL_ALIGN) {
        uint32_t mark;

        memcpy(&mark, ld->bytes + at, sizeof(mark));
        /* zeros pass quickly; the mark is random, so that a value cannot hold many of it */
        if (mark != 0 &&
            sw_journal__frame_read(ld->bytes + at, len - at, ld->seg->header.mark, ret_frame) &&
            ret_frame->seq > seq) {
            *ret_at = at;
            return true;
        }
    }
    return false;
}

/* Does a whole frame behind `at` say that frame `seq` was durable? */
static bool was_durable(const struct journal_loaded *ld, size_t at, uint64_t seq)
{
    struct journal_frame f;

    for (; sw_journal__segment_resume(ld, at, seq, &at, &f); at += JOURNAL_ALIGN) {
        if (f.durable >= seq) {
            return true;
        }
    }
    return false;
}

/* The frames from the beginning that are whole, in order, and before `limit`. */
static void frames_walk(struct journal_loaded *ld, uint64_t limit)
{
    size_t len = (size_t)ld->seg->file_bytes, at = JOURNAL_HEADER_BYTES;

    ld->first = ld->seg->header.first_seq;
    ld->seq = ld->first - 1;
    ld->trim = 0;
    ld->any = false;
    ld->closed = false;
    while (ld->seq + 1 < limit) {
        struct journal_frame f;
        struct journal_entry e;
        size_t in = at + JOURNAL_FRAME_HEAD;

        if (!sw_journal__frame_read(ld->bytes + at, len - at, ld->seg->header.mark, &f) ||
            f.seq != ld->seq + 1) {
            break;
        }
        ld->closed = false;
        ld->any |= f.count == 0;
        for (uint32_t i = 0; i < f.count; i++, in += e.bytes) {
            if (!sw_journal__entry_read(ld->bytes + in, at + f.bytes - in, &e)) {
                SW_UNREACHABLE(); /* frame_read read them all */
            }
            ld->trim = e.type == JOURNAL_TRIM ? SW_MAX(ld->trim, e.oldest) : ld->trim;
            ld->any |= e.type != JOURNAL_END;
            ld->closed = e.type == JOURNAL_END;
        }
        ld->seq = f.seq;
        at += f.bytes;
    }
    ld->end = at;
}

enum sw_err sw_journal__segment_load(const char *folder, int fd, const struct journal_segment *seg,
                                     uint64_t limit, struct journal_loaded *ld,
                                     const char **ret_why)
{
    uint64_t number = seg->header.number;
    size_t len = (size_t)seg->file_bytes;
    char name[JOURNAL_NAME_BYTES];
    int error;

    SW_ASSERT(seg->err == SW_OK);
    if (len > ld->cap) {
        free(ld->bytes);
        ld->cap = 0;
        ld->bytes = malloc(len);
        if (ld->bytes == NULL) {
            return sw_store__refuse(SW_E_NO_MEMORY, ret_why, "store %s: no memory", folder);
        }
        ld->cap = len;
    }
    error = sw_journal__read_all(fd, ld->bytes, len, 0);
    if (error != 0) {
        sw_journal__segment_name(name, number);
        return sw_store__refuse(sw_store__errno(error), ret_why, "store %s/%s: %s", folder, name,
                                strerror(error));
    }
    ld->seg = seg;
    frames_walk(ld, limit);
    if (limit != UINT64_MAX) {
        return ld->seq + 1 == limit
                   ? SW_OK
                   : sw_journal__damaged(folder, number, ld->end, "damaged", ret_why);
    }
    if (was_durable(ld, ld->end, ld->seq + 1)) {
        return sw_journal__damaged(folder, number, ld->end, "damaged", ret_why);
    }
    if (len < seg->header.file_bytes && !ld->closed) {
        return sw_journal__damaged(folder, number, len, "the file is cut", ret_why);
    }
    return SW_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

uint64_t sw_journal__segments_limit(const struct journal_segment *segs, size_t count, size_t i)
{
    uint64_t limit = UINT64_MAX;

    for (size_t j = i + 1; j < count; j++) {
        if (segs[j].err == SW_OK) { /* else a start refuses it all */
            limit = SW_MIN(limit, segs[j].header.first_seq);
        }
    }
    return limit;
}

enum sw_err sw_journal__segments_check(const char *folder, const struct journal_segment *segs,
                                       size_t count, uint64_t oldest, size_t *ret_from,
                                       const char **ret_why)
{
    const struct journal_segment *last = &segs[count - 1];
    uint64_t expected = oldest;
    char name[JOURNAL_NAME_BYTES];
    size_t from = 0;

    while (from < count && segs[from].header.number < oldest) {
        from++; /* it was on its way out */
    }
    *ret_from = from;
    for (size_t i = from; i < count; i++, expected++) {
        sw_journal__segment_name(name, expected);
        if (segs[i].header.number != expected) {
            return sw_store__refuse(
                SW_E_STORE_CORRUPT, ret_why,
                "store %s/%s: this segment is missing; nothing was changed; " REMEDY, folder, name);
        }
        if (segs[i].err != SW_OK) {
            return sw_journal__damaged(folder, expected, 0, "the head is damaged", ret_why);
        }
        if (memcmp(segs[i].header.id, last->header.id, sizeof(last->header.id)) != 0) {
            return sw_store__refuse(SW_E_STORE_CORRUPT, ret_why,
                                    "store %s/%s: this segment is of another store; nothing was "
                                    "changed; " REMEDY,
                                    folder, name);
        }
    }
    return SW_OK;
}
