/* store/journal_format.c - the bytes of the journal. docs/journal-format.md is this table in words.
 *
 * Room       store/. Pure: bytes to structs and back. All numbers are little-endian.
 *
 * A segment:  header, 4096 bytes; frames, one behind the other, each at a multiple of 8; zeros.
 *
 *   header   0 "stateway journal"   16 u32 format, 1        20 u32 bytes of the header, 4096
 *           24 16 bytes store id    40 u64 number           48 u64 first sequence number
 *           56 u64 oldest segment   64 u64 bytes of the file 72 i64 made, unix s
 *           80 u32 mark             84 zeros                4092 u32 CRC-32C of bytes 0 .. 4091
 *   frame    0 u32 the segment's mark  4 u32 CRC-32C of bytes 8 .. end
 *            8 u32 bytes, head included  12 u32 count of records (0: a mark, for bytes 24 .. 31)
 *           16 u64 sequence number  24 u64 the last frame that was known to be durable
 *   record   0 u32 bytes, padding included   4 u8 type   5 u8 kind   6 u8 flags (1: sealed)
 *            7 u8 bytes of subject   8 u16 of extra   10 u16 zero   12 u32 of value
 *   put     16 key  48 u64 epoch  56 u64 counter  64 i64 created  72 touched  80 expires
 *           88 absolute  96 bound, ms  104 due, ms  112 subject, extra, value, zeros to 8
 *   touch   16 key  48 u64 epoch  56 u64 counter  64 i64 touched  72 expires
 *   drop    16 key  48 u64 epoch  56 u64 counter
 *   cutoff  16 i64 not before, ms  24 i64 expires  32 i64 to be looked at  40 subject, zeros to 8
 *   trim    16 u64 the oldest segment that is needed
 *   end     16 nothing
 */
#include "store/journal_priv.h"

#include <endian.h>

static const char magic[16] = {'s', 't', 'a', 't', 'e', 'w', 'a', 'y',
                               ' ', 'j', 'o', 'u', 'r', 'n', 'a', 'l'};

enum { /* places in a header */
       H_FORMAT = 16,
       H_BYTES = 20,
       H_ID = 24,
       H_NUMBER = 40,
       H_FIRST = 48,
       H_OLDEST = 56,
       H_FILE = 64,
       H_MADE = 72,
       H_MARK = 80,
       H_CRC = JOURNAL_HEADER_BYTES - 4,
};
enum { /* places in a frame's head */
       F_MARK = 0,
       F_CRC = 4,
       F_BYTES = 8,
       F_COUNT = 12,
       F_SEQ = 16,
       F_DURABLE = 24,
};
enum { /* places in a record */
       R_BYTES = 0,
       R_TYPE = 4,
       R_KIND = 5,
       R_FLAGS = 6,
       R_SUBJECT = 7,
       R_EXTRA = 8,
       R_ZERO = 10,
       R_VALUE = 12,
       R_COMMON = 16, /* bytes that all have */
       R_KEY = 16,
       R_EPOCH = 48,
       R_COUNTER = 56,
       R_DROP_END = 64,
       R_CREATED = 64,
       R_TOUCHED = 72,
       R_EXPIRES = 80,
       R_ABSOLUTE = 88,
       R_BOUND = 96,
       R_DUE = 104,
       R_PUT_END = JOURNAL_RECORD_HEAD,
       R_TOUCH_TOUCHED = 64,
       R_TOUCH_EXPIRES = 72,
       R_TOUCH_END = 80,
       R_CUT_NOT_BEFORE = 16,
       R_CUT_EXPIRES = 24,
       R_CUT_LOOK = 32,
       R_CUT_END = 40,
       R_TRIM_OLDEST = 16,
       R_TRIM_END = 24,
};
#define FLAG_SEALED 1u

/* ---- numbers --------------------------------------------------------------------------------- */

static void put_u16(unsigned char *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, sizeof(v));
}

static void put_u32(unsigned char *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static void put_u64(unsigned char *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof(v));
}

static void put_i64(unsigned char *p, int64_t v)
{
    put_u64(p, (uint64_t)v);
}

static uint16_t get_u16(const void *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return le16toh(v);
}

static uint32_t get_u32(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static uint64_t get_u64(const void *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

static int64_t get_i64(const void *p)
{
    return (int64_t)get_u64(p);
}

/* ---- segments -------------------------------------------------------------------------------- */

void sw_journal__header_write(unsigned char p[JOURNAL_HEADER_BYTES], const struct journal_header *h)
{
    memset(p, 0, JOURNAL_HEADER_BYTES);
    memcpy(p, magic, sizeof(magic));
    put_u32(p + H_FORMAT, JOURNAL_FORMAT);
    put_u32(p + H_BYTES, JOURNAL_HEADER_BYTES);
    memcpy(p + H_ID, h->id, sizeof(h->id));
    put_u64(p + H_NUMBER, h->number);
    put_u64(p + H_FIRST, h->first_seq);
    put_u64(p + H_OLDEST, h->oldest);
    put_u64(p + H_FILE, h->file_bytes);
    put_i64(p + H_MADE, h->made_unix_s);
    put_u32(p + H_MARK, h->mark);
    put_u32(p + H_CRC, sw_journal__crc(0, p, H_CRC));
}

enum sw_err sw_journal__header_read(const unsigned char p[JOURNAL_HEADER_BYTES],
                                    struct journal_header *h, uint32_t *ret_format)
{
    *ret_format = 0;
    if (memcmp(p, magic, sizeof(magic)) != 0) {
        return SW_E_STORE_FORMAT;
    }
    *ret_format = get_u32(p + H_FORMAT);
    if (get_u32(p + H_CRC) != sw_journal__crc(0, p, H_CRC)) {
        return SW_E_STORE_CORRUPT;
    }
    if (*ret_format != JOURNAL_FORMAT || get_u32(p + H_BYTES) != JOURNAL_HEADER_BYTES) {
        return SW_E_STORE_FORMAT;
    }
    memcpy(h->id, p + H_ID, sizeof(h->id));
    h->number = get_u64(p + H_NUMBER);
    h->first_seq = get_u64(p + H_FIRST);
    h->oldest = get_u64(p + H_OLDEST);
    h->file_bytes = get_u64(p + H_FILE);
    h->made_unix_s = get_i64(p + H_MADE);
    h->mark = get_u32(p + H_MARK);
    return h->number != 0 && h->number <= UINT32_MAX && h->oldest <= h->number &&
                   h->first_seq != 0 && h->file_bytes > JOURNAL_HEADER_BYTES && h->mark != 0
               ? SW_OK
               : SW_E_STORE_CORRUPT;
}

#define NAME_DIGITS 16u
#define NAME_SUFFIX ".journal"

void sw_journal__segment_name(char out[JOURNAL_NAME_BYTES], uint64_t number)
{
    (void)snprintf(out, JOURNAL_NAME_BYTES, "%016llx" NAME_SUFFIX, (unsigned long long)number);
}

bool sw_journal__segment_name_read(const char *name, uint64_t *ret_number)
{
    struct sw_slice all = sw_slice_cstr(name);
    char again[JOURNAL_NAME_BYTES];

    if (all.len != NAME_DIGITS + sizeof(NAME_SUFFIX) - 1 ||
        !sw_slice_hex_u64(sw_slice_head(all, NAME_DIGITS), ret_number)) {
        return false;
    }
    sw_journal__segment_name(again, *ret_number);
    return sw_slice_eq(all, sw_slice_cstr(again)) && *ret_number != 0;
}

/* ---- records, to be written ------------------------------------------------------------------ */

static void common_write(struct journal_piece *p, enum journal_type type, uint32_t head_len,
                         struct sw_slice payload)
{
    memset(p->head, 0, sizeof(p->head));
    p->head_len = head_len;
    p->payload = payload;
    put_u32(p->head + R_BYTES, (uint32_t)journal_padded(head_len + payload.len));
    p->head[R_TYPE] = (unsigned char)type;
}

static void key_write(struct journal_piece *p, const struct sw_store_key *key,
                      struct sw_version version)
{
    memcpy(p->head + R_KEY, key->bytes, sizeof(key->bytes));
    put_u64(p->head + R_EPOCH, version.epoch);
    put_u64(p->head + R_COUNTER, version.counter);
}

size_t sw_journal__put_bytes(const struct sw_record *r)
{
    return journal_padded(R_PUT_END + r->subject.len + r->extra.len + r->value.len);
}

size_t sw_journal__cutoff_bytes(struct sw_slice subject)
{
    return journal_padded(R_CUT_END + subject.len);
}

void sw_journal__piece_put(struct journal_piece *p, const struct journal_record *r)
{
    size_t payload = (size_t)r->subject_len + r->extra_len + r->value_len;

    common_write(p, JOURNAL_PUT, R_PUT_END, (struct sw_slice){r->bytes, payload});
    key_write(p, &r->key, r->version);
    p->head[R_KIND] = r->kind;
    p->head[R_FLAGS] = r->sealed ? FLAG_SEALED : 0;
    p->head[R_SUBJECT] = r->subject_len;
    put_u16(p->head + R_EXTRA, r->extra_len);
    put_u32(p->head + R_VALUE, r->value_len);
    put_i64(p->head + R_CREATED, r->created_unix_s);
    put_i64(p->head + R_TOUCHED, r->touched_unix_s);
    put_i64(p->head + R_EXPIRES, r->expires_unix_s);
    put_i64(p->head + R_ABSOLUTE, r->absolute_unix_s);
    put_i64(p->head + R_BOUND, r->bound_unix_ms);
    put_i64(p->head + R_DUE, r->due_unix_ms);
}

void sw_journal__piece_touch(struct journal_piece *p, const struct sw_store_key *key,
                             const struct sw_record *r)
{
    common_write(p, JOURNAL_TOUCH, R_TOUCH_END, (struct sw_slice){NULL, 0});
    key_write(p, key, r->version);
    put_i64(p->head + R_TOUCH_TOUCHED, r->touched_unix_s);
    put_i64(p->head + R_TOUCH_EXPIRES, r->expires_unix_s);
}

void sw_journal__piece_drop(struct journal_piece *p, const struct journal_record *r)
{
    common_write(p, JOURNAL_DROP, R_DROP_END, (struct sw_slice){NULL, 0});
    key_write(p, &r->key, r->version);
}

void sw_journal__piece_cutoff(struct journal_piece *p, struct sw_slice subject,
                              const struct store_cutoff *c)
{
    common_write(p, JOURNAL_CUTOFF, R_CUT_END, subject);
    p->head[R_SUBJECT] = (unsigned char)subject.len;
    put_i64(p->head + R_CUT_NOT_BEFORE, c->not_before_unix_ms);
    put_i64(p->head + R_CUT_EXPIRES, c->expires_unix_s);
    put_i64(p->head + R_CUT_LOOK, c->look_unix_s);
}

void sw_journal__piece_trim(struct journal_piece *p, uint64_t oldest)
{
    common_write(p, JOURNAL_TRIM, R_TRIM_END, (struct sw_slice){NULL, 0});
    put_u64(p->head + R_TRIM_OLDEST, oldest);
}

void sw_journal__piece_end(struct journal_piece *p)
{
    common_write(p, JOURNAL_END, R_COMMON, (struct sw_slice){NULL, 0});
}

/* ---- records, read --------------------------------------------------------------------------- */

static void key_read(const char *p, struct journal_entry *e)
{
    memcpy(e->key.bytes, p + R_KEY, sizeof(e->key.bytes));
    e->record.version = (struct sw_version){get_u64(p + R_EPOCH), get_u64(p + R_COUNTER)};
}

static bool put_read(const char *p, struct journal_entry *e)
{
    struct sw_record *r = &e->record;
    uint32_t value = get_u32(p + R_VALUE);
    uint16_t extra = get_u16(p + R_EXTRA);
    uint8_t subject = (uint8_t)p[R_SUBJECT];

    if (value > SW_STORE_VALUE_BYTES_MAX || extra > SW_EXTRA_BYTES_MAX ||
        e->bytes != journal_padded(R_PUT_END + (size_t)subject + extra + value)) {
        return false;
    }
    key_read(p, e);
    r->kind = (enum sw_record_kind)p[R_KIND];
    r->sealed = ((unsigned char)p[R_FLAGS] & FLAG_SEALED) != 0;
    r->created_unix_s = get_i64(p + R_CREATED);
    r->touched_unix_s = get_i64(p + R_TOUCHED);
    r->expires_unix_s = get_i64(p + R_EXPIRES);
    r->absolute_unix_s = get_i64(p + R_ABSOLUTE);
    r->bound_unix_ms = get_i64(p + R_BOUND);
    r->due_unix_ms = get_i64(p + R_DUE);
    r->subject = (struct sw_slice){p + R_PUT_END, subject};
    r->extra = (struct sw_slice){p + R_PUT_END + subject, extra};
    r->value = (struct sw_slice){p + R_PUT_END + subject + extra, value};
    return r->kind >= SW_RECORD_STATE && r->kind <= SW_RECORD_CLAIM && r->due_unix_ms >= 0 &&
           !sw_version_none(r->version);
}

static bool cutoff_read(const char *p, struct journal_entry *e)
{
    uint8_t subject = (uint8_t)p[R_SUBJECT];

    if (subject == 0 || e->bytes != journal_padded(R_CUT_END + (size_t)subject)) {
        return false;
    }
    e->record.subject = (struct sw_slice){p + R_CUT_END, subject};
    e->cutoff = (struct store_cutoff){
        .not_before_unix_ms = get_i64(p + R_CUT_NOT_BEFORE),
        .expires_unix_s = get_i64(p + R_CUT_EXPIRES),
        .look_unix_s = get_i64(p + R_CUT_LOOK),
    };
    return e->cutoff.not_before_unix_ms > 0;
}

bool sw_journal__entry_read(const char *p, size_t len, struct journal_entry *e)
{
    if (len < R_COMMON) {
        return false;
    }
    memset(e, 0, sizeof(*e));
    e->type = (enum journal_type)p[R_TYPE];
    e->bytes = get_u32(p + R_BYTES);
    if (e->bytes < R_COMMON || e->bytes > len || e->bytes % JOURNAL_ALIGN != 0) {
        return false;
    }
    switch (e->type) {
    case JOURNAL_PUT:
        return e->bytes >= R_PUT_END && put_read(p, e);
    case JOURNAL_TOUCH:
        if (e->bytes != R_TOUCH_END) {
            return false;
        }
        key_read(p, e);
        e->record.touched_unix_s = get_i64(p + R_TOUCH_TOUCHED);
        e->record.expires_unix_s = get_i64(p + R_TOUCH_EXPIRES);
        return true;
    case JOURNAL_DROP:
        if (e->bytes != R_DROP_END) {
            return false;
        }
        key_read(p, e);
        return true;
    case JOURNAL_CUTOFF:
        return e->bytes >= R_CUT_END && cutoff_read(p, e);
    case JOURNAL_TRIM:
        e->oldest = e->bytes == R_TRIM_END ? get_u64(p + R_TRIM_OLDEST) : 0;
        return e->oldest != 0;
    case JOURNAL_END:
        return e->bytes == R_COMMON;
    }
    return false; /* of a type that this program does not know */
}

/* ---- frames ---------------------------------------------------------------------------------- */

static void frame_head(unsigned char p[JOURNAL_FRAME_HEAD], const struct journal_frame *f)
{
    put_u32(p + F_BYTES, f->bytes);
    put_u32(p + F_COUNT, f->count);
    put_u64(p + F_SEQ, f->seq);
    put_u64(p + F_DURABLE, f->durable);
}

uint32_t sw_journal__frame_crc(const struct journal_frame *f)
{
    unsigned char p[JOURNAL_FRAME_HEAD];

    frame_head(p, f);
    return sw_journal__crc(0, p + F_BYTES, JOURNAL_FRAME_HEAD - F_BYTES);
}

void sw_journal__frame_write(unsigned char p[JOURNAL_FRAME_HEAD], uint32_t mark, uint32_t crc,
                             const struct journal_frame *f)
{
    put_u32(p + F_MARK, mark);
    put_u32(p + F_CRC, crc);
    frame_head(p, f);
}

void sw_journal__frame_head_read(const char *p, struct journal_frame *f)
{
    f->bytes = get_u32(p + F_BYTES);
    f->count = get_u32(p + F_COUNT);
    f->seq = get_u64(p + F_SEQ);
    f->durable = get_u64(p + F_DURABLE);
}

bool sw_journal__frame_read(const char *p, size_t len, uint32_t mark, struct journal_frame *f)
{
    size_t at = JOURNAL_FRAME_HEAD;

    if (len < JOURNAL_FRAME_HEAD || get_u32(p + F_MARK) != mark) {
        return false;
    }
    sw_journal__frame_head_read(p, f);
    if (f->bytes < JOURNAL_FRAME_HEAD || f->bytes > len || f->bytes % JOURNAL_ALIGN != 0 ||
        get_u32(p + F_CRC) != sw_journal__crc(0, p + F_BYTES, f->bytes - F_BYTES)) {
        return false;
    }
    for (uint32_t i = 0; i < f->count; i++) {
        struct journal_entry e;

        if (!sw_journal__entry_read(p + at, f->bytes - at, &e)) {
            return false;
        }
        at += e.bytes;
    }
    return at == f->bytes;
}
