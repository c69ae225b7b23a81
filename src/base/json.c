/* base/json.c - see json.h.
 *
 * check is one pass without recursion. The names of all open objects lie on one stack; an object
 * with more than LINEAR_MAX members also enters a hash table. Objects close in the reverse order of
 * their opening, so an open-addressing table shared by all of them is cleaned by undoing inserts
 * last to first: no tombstones, no second walk, and no allocation.
 *
 * Everything below check takes a checked text. It still never reads outside of the slice: on text
 * that nobody checked the result is rubbish, not a crash.
 */
#include "base/json.h"

#include "base/arena.h"

#define LINEAR_MAX  8                      /* up to here comparing hashes in a row is quicker */
#define TABLE_SLOTS (2 * SW_JSON_OPEN_MAX) /* never more than half full */
_Static_assert((TABLE_SLOTS & (TABLE_SLOTS - 1)) == 0, "slots are masked");
_Static_assert(SW_JSON_OPEN_MAX < UINT16_MAX, "slots hold index + 1 in 16 bits");
_Static_assert(SW_JSON_MEMBERS_MAX <= SW_JSON_OPEN_MAX, "one object must fit");
_Static_assert(SW_JSON_DEPTH_MAX <= 64, "one bit a level");

/* ---- bytes ------------------------------------------------------------------------------------
 */

/* A byte of a string that needs a look: control, quote, backslash, DEL, above ASCII. */
static bool special(unsigned char c)
{
    return c < 0x20 || c == '"' || c == '\\' || c >= 0x7f;
}

/* Skips what is no special byte, eight at a time. */
static const char *plain_end(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;

    while (end - p >= 8) {
        uint64_t w, quote, slash, del, hits;

        memcpy(&w, p, sizeof(w));
        quote = w ^ (ones * '"');
        slash = w ^ (ones * '\\');
        del = w ^ (ones * 0x7f);
        /* (x - 1) & ~x has its top bit set where a byte of x is zero; below 0x20 likewise */
        hits = ((w - ones * 0x20) & ~w) | w | ((quote - ones) & ~quote) |
               ((slash - ones) & ~slash) | ((del - ones) & ~del);
        if ((hits & tops) != 0) {
            break;
        }
        p += 8;
    }
    while (p < end && !special((unsigned char)*p)) {
        p++;
    }
    return p;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static const char *space_end(const char *p, const char *end)
{
    while (p < end && is_space(*p)) {
        p++;
    }
    return p;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Four hex digits; -1: they are not. */
static int hex4(const char *p, const char *end)
{
    unsigned value = 0;

    if (end - p < 4) {
        return -1;
    }
    for (size_t i = 0; i < 4; i++) {
        unsigned c = (unsigned char)p[i], lower = c | 0x20;

        if (c - '0' <= 9) {
            value = value << 4 | (c - '0');
        } else if (lower - 'a' <= 5) {
            value = value << 4 | (lower - 'a' + 10);
        } else {
            return -1;
        }
    }
    return (int)value;
}

/* One character of UTF-8 (RFC 3629: shortest form, no surrogates, at most U+10FFFF). Returns its
 * length, 0 when it is none. */
static size_t utf8_get(const char *at, const char *end, uint32_t *ret_cp)
{
    const unsigned char *p = (const unsigned char *)at;
    size_t left = (size_t)(end - at), len;
    uint32_t cp, least;

    if (left == 0) {
        return 0;
    }
    if (p[0] < 0x80) {
        *ret_cp = p[0];
        return 1;
    }
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        len = 2;
        cp = p[0] & 0x1fu;
        least = 0x80;
    } else if ((p[0] & 0xf0) == 0xe0) {
        len = 3;
        cp = p[0] & 0x0fu;
        least = 0x800;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        len = 4;
        cp = p[0] & 0x07u;
        least = 0x10000;
    } else {
        return 0;
    }
    if (left < len) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        cp = cp << 6 | (p[i] & 0x3fu);
    }
    if (cp < least || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) {
        return 0;
    }
    *ret_cp = cp;
    return len;
}

static size_t utf8_put(uint32_t cp, unsigned char buf[4])
{
    if (cp < 0x80) {
        buf[0] = (unsigned char)cp;
        return 1;
    }
    if (cp < 0x800) {
        buf[0] = (unsigned char)(0xc0 | cp >> 6);
        buf[1] = (unsigned char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        buf[0] = (unsigned char)(0xe0 | cp >> 12);
        buf[1] = (unsigned char)(0x80 | (cp >> 6 & 0x3f));
        buf[2] = (unsigned char)(0x80 | (cp & 0x3f));
        return 3;
    }
    buf[0] = (unsigned char)(0xf0 | cp >> 18);
    buf[1] = (unsigned char)(0x80 | (cp >> 12 & 0x3f));
    buf[2] = (unsigned char)(0x80 | (cp >> 6 & 0x3f));
    buf[3] = (unsigned char)(0x80 | (cp & 0x3f));
    return 4;
}

static void put_unit(struct sw_out *out, uint32_t unit)
{
    sw_out_lit(out, "\\u");
    sw_out_hex(out, unit, 4);
}

/* \uXXXX, or a surrogate pair (RFC 8259, 7). */
static void put_escaped(struct sw_out *out, uint32_t cp)
{
    if (cp < 0x10000) {
        put_unit(out, cp);
        return;
    }
    cp -= 0x10000;
    put_unit(out, 0xd800 + (cp >> 10));
    put_unit(out, 0xdc00 + (cp & 0x3ff));
}

/* ---- names: compared as characters, however they were written ----------------------------------
 */

/* The bytes of a string's inside, unescaped, one by one. */
struct chars {
    const char *p, *end; /* what is left between the quotes */
    unsigned char buf[4];
    size_t at, len;
};

static struct chars chars_of(struct sw_slice inside)
{
    return (struct chars){inside.ptr, inside.ptr + inside.len, {0}, 0, 0};
}

static uint32_t chars_escape(struct chars *c)
{
    int unit, low;

    if (c->end - c->p < 2) {
        c->p = c->end;
        return 0xfffd;
    }
    c->p += 2;
    switch (c->p[-1]) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'u':
        break;
    default:
        return (unsigned char)c->p[-1];
    }
    unit = hex4(c->p, c->end);
    if (unit < 0) {
        return 0xfffd;
    }
    c->p += 4;
    if (unit < 0xd800 || unit > 0xdfff) {
        return (uint32_t)unit;
    }
    low = c->end - c->p >= 2 ? hex4(c->p + 2, c->end) : -1;
    if (unit > 0xdbff || low < 0xdc00 || low > 0xdfff) {
        return 0xfffd; /* check refused this */
    }
    c->p += 6;
    return 0x10000 + (((uint32_t)unit & 0x3ff) << 10) + ((uint32_t)low & 0x3ff);
}

/* The next byte, or -1. */
static int chars_next(struct chars *c)
{
    if (c->at < c->len) {
        return c->buf[c->at++];
    }
    if (c->p >= c->end) {
        return -1;
    }
    if (*c->p != '\\') {
        return (unsigned char)*c->p++;
    }
    c->len = utf8_put(chars_escape(c), c->buf);
    c->at = 1;
    return c->buf[0];
}

static bool escaped(struct sw_slice inside)
{
    return inside.len > 0 && memchr(inside.ptr, '\\', inside.len) != NULL;
}

static bool names_equal(struct sw_slice a, struct sw_slice b)
{
    struct chars ca, cb;
    int c;

    if (!escaped(a) && !escaped(b)) {
        return sw_slice_eq(a, b);
    }
    ca = chars_of(a);
    cb = chars_of(b);
    do {
        c = chars_next(&ca);
        if (c != chars_next(&cb)) {
            return false;
        }
    } while (c >= 0);
    return true;
}

static uint32_t name_hash(struct sw_slice name, uint64_t seed)
{
    struct chars c = chars_of(name);
    uint64_t h = seed;
    int byte;

    while ((byte = chars_next(&c)) >= 0) {
        h = (h ^ (uint64_t)byte) * 0x100000001b3u; /* FNV-1a */
    }
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return (uint32_t)(h >> 32);
}

/* Names may come from visitors, who must not be able to choose colliding ones: where this process
 * keeps its stack is a seed good enough for that, and no answer depends on it. */
static uint64_t seed_here(const void *stack)
{
    return (uintptr_t)stack * 0x9e3779b97f4a7c15u ^ 0xcbf29ce484222325u;
}

/* From behind the opening quote: where the closing one is (or end). */
static const char *quote_at(const char *p, const char *end)
{
    for (;;) {
        p = plain_end(p, end);
        if (p >= end) {
            return end;
        }
        if (*p == '"') {
            return p;
        }
        if (*p == '\\') {
            p = end - p >= 2 ? p + 2 : end;
        } else {
            p++;
        }
    }
}

/* ---- check -------------------------------------------------------------------------------------
 */

struct open_name {
    uint32_t hash;
    uint32_t at; /* of the opening quote */
};

struct checker {
    const char *text, *p, *end;
    const char *why;
    size_t depth;
    uint64_t objects;  /* bit depth - 1: this level is an object */
    uint64_t tabled;   /* bit depth - 1: its names are in the table */
    bool table_clean;  /* slots were zeroed */
    size_t open_count; /* names on the stack */
    uint64_t seed;
    uint32_t first[SW_JSON_DEPTH_MAX]; /* of each level: its first name on the stack */
    struct open_name open[SW_JSON_OPEN_MAX];
    uint16_t slots[TABLE_SLOTS]; /* index + 1; 0: free */
};

static bool refuse(struct checker *c, const char *at, const char *why)
{
    c->p = at;
    c->why = why;
    return false;
}

static bool check_escape(struct checker *c)
{
    const char *p = c->p; /* at the backslash */
    int unit, low;

    if (c->end - p < 2) {
        return refuse(c, c->end, "unexpected end");
    }
    switch (p[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        c->p = p + 2;
        return true;
    case 'u':
        break;
    default:
        return refuse(c, p, "escape");
    }
    unit = hex4(p + 2, c->end);
    if (unit < 0) {
        return refuse(c, p, "escape");
    }
    c->p = p + 6;
    if (unit < 0xd800 || unit > 0xdfff) {
        return true;
    }
    if (unit > 0xdbff || c->end - c->p < 6 || c->p[0] != '\\' || c->p[1] != 'u') {
        return refuse(c, p, "lone surrogate");
    }
    low = hex4(c->p + 2, c->end);
    if (low < 0xdc00 || low > 0xdfff) {
        return refuse(c, p, "lone surrogate");
    }
    c->p += 6;
    return true;
}

/* At the opening quote; leaves p behind the closing one. */
static bool check_string(struct checker *c)
{
    uint32_t cp;
    size_t len;

    c->p++;
    for (;;) {
        c->p = plain_end(c->p, c->end);
        if (c->p == c->end) {
            return refuse(c, c->end, "unexpected end");
        }
        if (*c->p == '"') {
            c->p++;
            return true;
        }
        if (*c->p == '\\') {
            if (!check_escape(c)) {
                return false;
            }
            continue;
        }
        if ((unsigned char)*c->p < 0x20) {
            return refuse(c, c->p, "control byte in a string");
        }
        len = utf8_get(c->p, c->end, &cp);
        if (len == 0) {
            return refuse(c, c->p, "invalid UTF-8");
        }
        c->p += len;
    }
}

/* At least one digit. */
static bool check_digits(struct checker *c)
{
    const char *from = c->p;

    while (c->p < c->end && is_digit(*c->p)) {
        c->p++;
    }
    return c->p > from || refuse(c, c->p, c->p == c->end ? "unexpected end" : "number");
}

/* RFC 8259, 6. */
static bool check_number(struct checker *c)
{
    if (*c->p == '-') {
        c->p++;
    }
    if (c->p < c->end && *c->p == '0') {
        c->p++;
    } else if (!check_digits(c)) {
        return false;
    }
    if (c->p < c->end && *c->p == '.') {
        c->p++;
        if (!check_digits(c)) {
            return false;
        }
    }
    if (c->p < c->end && (*c->p == 'e' || *c->p == 'E')) {
        c->p++;
        if (c->p < c->end && (*c->p == '+' || *c->p == '-')) {
            c->p++;
        }
        return check_digits(c);
    }
    return true;
}

static bool check_word(struct checker *c, struct sw_slice word)
{
    if (!sw_slice_starts((struct sw_slice){c->p, (size_t)(c->end - c->p)}, word)) {
        return refuse(c, c->p, "unexpected byte");
    }
    c->p += word.len;
    return true;
}

static struct sw_slice open_text(const struct checker *c, const struct open_name *name)
{
    const char *from = c->text + name->at + 1;

    return (struct sw_slice){from, (size_t)(quote_at(from, c->end) - from)};
}

static size_t slot_home(const struct checker *c, uint32_t hash)
{
    return (hash ^ (uint32_t)c->depth * 0x9e3779b1u) & (TABLE_SLOTS - 1);
}

static void table_insert(struct checker *c, size_t index)
{
    size_t slot = slot_home(c, c->open[index].hash);

    while (c->slots[slot] != 0) {
        slot = (slot + 1) & (TABLE_SLOTS - 1);
    }
    c->slots[slot] = (uint16_t)(index + 1);
}

static bool same_name(const struct checker *c, size_t index, uint32_t hash, struct sw_slice name)
{
    return c->open[index].hash == hash && names_equal(open_text(c, &c->open[index]), name);
}

/* A name of the innermost object: at the quote `at`, with that text. */
static bool name_enter(struct checker *c, const char *at, struct sw_slice name)
{
    uint64_t level = 1ull << (c->depth - 1);
    size_t first = c->first[c->depth - 1], members = c->open_count - first;
    uint32_t hash = name_hash(name, c->seed);

    if (members == SW_JSON_MEMBERS_MAX || c->open_count == SW_JSON_OPEN_MAX) {
        return refuse(c, at, "too many members");
    }
    if ((c->tabled & level) != 0) {
        for (size_t slot = slot_home(c, hash); c->slots[slot] != 0;
             slot = (slot + 1) & (TABLE_SLOTS - 1)) {
            size_t index = c->slots[slot] - 1u;

            /* names from `first` on are this object's own; below are those around it */
            if (index >= first && same_name(c, index, hash, name)) {
                return refuse(c, at, "duplicate name");
            }
        }
    } else {
        for (size_t index = first; index < c->open_count; index++) {
            if (same_name(c, index, hash, name)) {
                return refuse(c, at, "duplicate name");
            }
        }
    }
    c->open[c->open_count] = (struct open_name){hash, (uint32_t)(at - c->text)};
    c->open_count++;
    if ((c->tabled & level) != 0) {
        table_insert(c, c->open_count - 1);
    } else if (members + 1 > LINEAR_MAX) {
        if (!c->table_clean) {
            memset(c->slots, 0, sizeof(c->slots));
            c->table_clean = true;
        }
        for (size_t index = first; index < c->open_count; index++) {
            table_insert(c, index);
        }
        c->tabled |= level;
    }
    return true;
}

/* Undoes the inserts of the innermost object, last first. */
static void names_leave(struct checker *c)
{
    uint64_t level = 1ull << (c->depth - 1);
    size_t first = c->first[c->depth - 1];

    if ((c->tabled & level) != 0) {
        for (size_t index = c->open_count; index-- > first;) {
            size_t slot = slot_home(c, c->open[index].hash);

            while (c->slots[slot] != index + 1) {
                SW_ASSERT(c->slots[slot] != 0);
                slot = (slot + 1) & (TABLE_SLOTS - 1);
            }
            c->slots[slot] = 0;
        }
        c->tabled &= ~level;
    }
    c->open_count = first;
}

static bool enter(struct checker *c, bool object)
{
    if (c->depth == SW_JSON_DEPTH_MAX) {
        return refuse(c, c->p, "depth");
    }
    c->p++;
    c->first[c->depth] = (uint32_t)c->open_count;
    if (object) {
        c->objects |= 1ull << c->depth;
    } else {
        c->objects &= ~(1ull << c->depth);
    }
    c->depth++;
    return true;
}

static bool in_object(const struct checker *c)
{
    return (c->objects >> (c->depth - 1) & 1) != 0;
}

static void leave(struct checker *c)
{
    SW_ASSERT(c->depth > 0);
    c->p++;
    if (in_object(c)) {
        names_leave(c);
    }
    c->depth--;
}

/* Name and colon; leaves p at the value. */
static bool check_name(struct checker *c)
{
    const char *at = c->p;
    struct sw_slice name;

    if (c->p == c->end) {
        return refuse(c, c->p, "unexpected end");
    }
    if (*c->p != '"') {
        return refuse(c, c->p, "unexpected byte");
    }
    if (!check_string(c)) {
        return false;
    }
    name = (struct sw_slice){at + 1, (size_t)(c->p - at) - 2};
    if (!name_enter(c, at, name)) {
        return false;
    }
    c->p = space_end(c->p, c->end);
    if (c->p == c->end) {
        return refuse(c, c->p, "unexpected end");
    }
    if (*c->p != ':') {
        return refuse(c, c->p, "unexpected byte");
    }
    c->p = space_end(c->p + 1, c->end);
    return true;
}

/* Behind a value: closes what closes here. *ret_done: the whole text is read; otherwise p is at the
 * next value. */
static bool check_behind(struct checker *c, bool *ret_done)
{
    for (;;) {
        c->p = space_end(c->p, c->end);
        if (c->depth == 0) {
            *ret_done = true;
            return c->p == c->end || refuse(c, c->p, "bytes behind the value");
        }
        if (c->p == c->end) {
            return refuse(c, c->p, "unexpected end");
        }
        if (*c->p == ',') {
            c->p = space_end(c->p + 1, c->end);
            *ret_done = false;
            return !in_object(c) || check_name(c);
        }
        if (*c->p != (in_object(c) ? '}' : ']')) {
            return refuse(c, c->p, "unexpected byte");
        }
        leave(c);
    }
}

/* The value at p, or the beginning of it when it is a container with something inside:
 * *ret_inside, and p is at its first value. */
static bool check_value(struct checker *c, bool *ret_inside)
{
    *ret_inside = false;
    if (c->p == c->end) {
        return refuse(c, c->p, "unexpected end");
    }
    switch (*c->p) {
    case '{':
    case '[':
        if (!enter(c, *c->p == '{')) {
            return false;
        }
        c->p = space_end(c->p, c->end);
        if (c->p < c->end && *c->p == (in_object(c) ? '}' : ']')) {
            leave(c);
            return true;
        }
        *ret_inside = true;
        return !in_object(c) || check_name(c);
    case '"':
        return check_string(c);
    case 't':
        return check_word(c, SW_S("true"));
    case 'f':
        return check_word(c, SW_S("false"));
    case 'n':
        return check_word(c, SW_S("null"));
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        return check_number(c);
    default:
        return refuse(c, c->p, "unexpected byte");
    }
}

static bool check_text(struct checker *c)
{
    bool done = false, inside;

    c->p = space_end(c->p, c->end);
    while (!done) {
        if (!check_value(c, &inside) || (!inside && !check_behind(c, &done))) {
            return false;
        }
    }
    return true;
}

struct sw_json_checked sw_json_check(struct sw_slice text)
{
    struct checker c; /* 100 KiB: only what is used is touched, so no initializer */

    if (text.len == 0 || text.len >= UINT32_MAX) {
        return (struct sw_json_checked){
            SW_E_UPDATE_JSON, 0, text.len == 0 ? "unexpected end" : "too long", SW_JSON_NULL};
    }
    c.text = text.ptr;
    c.p = text.ptr;
    c.end = text.ptr + text.len;
    c.why = NULL;
    c.depth = 0;
    c.objects = 0;
    c.tabled = 0;
    c.table_clean = false;
    c.open_count = 0;
    c.seed = seed_here(&c);
    if (!check_text(&c)) {
        SW_ASSERT(c.why != NULL);
        return (struct sw_json_checked){SW_E_UPDATE_JSON, (size_t)(c.p - text.ptr), c.why,
                                        SW_JSON_NULL};
    }
    SW_ASSERT(c.open_count == 0);
    SW_ASSERT(c.tabled == 0);
    return (struct sw_json_checked){SW_OK, 0, NULL, sw_json_type_of(text)};
}

/* ---- compact -----------------------------------------------------------------------------------
 */

/* A whole string at its opening quote; returns behind the closing one. */
static const char *compact_string(const char *p, const char *end, struct sw_out *out)
{
    const char *from = p;
    uint32_t cp;
    size_t len;

    p++;
    for (;;) {
        p = plain_end(p, end);
        if (p >= end) {
            break;
        }
        if (*p == '"') {
            p++;
            break;
        }
        if (*p == '\\') {
            p = end - p >= 2 ? p + 2 : end; /* escapes keep their spelling */
            continue;
        }
        sw_out_put(out, from, (size_t)(p - from));
        len = utf8_get(p, end, &cp);
        put_escaped(out, len == 0 ? 0xfffd : cp);
        p += len == 0 ? 1 : len;
        from = p;
    }
    sw_out_put(out, from, (size_t)(p - from));
    return p;
}

static void compact(const char *p, const char *end, struct sw_out *out)
{
    const char *from = p;

    while (p < end) {
        if (*p == '"') {
            sw_out_put(out, from, (size_t)(p - from));
            p = compact_string(p, end, out);
            from = p;
        } else if (is_space(*p)) {
            sw_out_put(out, from, (size_t)(p - from));
            p = space_end(p, end);
            from = p;
        } else {
            p++;
        }
    }
    sw_out_put(out, from, (size_t)(p - from));
}

bool sw_json_compact(struct sw_slice text, struct sw_out *out)
{
    if (text.len > 0) {
        compact(text.ptr, text.ptr + text.len, out);
    }
    return !out->overflowed;
}

void sw_json_quote(struct sw_out *out, struct sw_slice text)
{
    const char *p = text.ptr, *end = text.len > 0 ? text.ptr + text.len : text.ptr;
    uint32_t cp;
    size_t len;

    sw_out_char(out, '"');
    while (p < end) {
        const char *stop = plain_end(p, end);

        sw_out_put(out, p, (size_t)(stop - p));
        p = stop;
        if (p == end) {
            break;
        }
        switch (*p) {
        case '"':
            sw_out_lit(out, "\\\"");
            p++;
            break;
        case '\\':
            sw_out_lit(out, "\\\\");
            p++;
            break;
        case '\n':
            sw_out_lit(out, "\\n");
            p++;
            break;
        case '\t':
            sw_out_lit(out, "\\t");
            p++;
            break;
        case '\r':
            sw_out_lit(out, "\\r");
            p++;
            break;
        default:
            len = utf8_get(p, end, &cp);
            put_escaped(out, len == 0 ? 0xfffd : cp);
            p += len == 0 ? 1 : len;
        }
    }
    sw_out_char(out, '"');
}

/* ---- looking into checked text -----------------------------------------------------------------
 */

/* Behind the value at p. */
static const char *value_end(const char *p, const char *end)
{
    size_t depth = 0;

    if (p >= end) {
        return end;
    }
    if (*p == '"') {
        p = quote_at(p + 1, end);
        return p < end ? p + 1 : end;
    }
    if (*p != '{' && *p != '[') {
        while (p < end && *p != ',' && *p != '}' && *p != ']' && !is_space(*p)) {
            p++;
        }
        return p;
    }
    while (p < end) {
        switch (*p) {
        case '"':
            p = quote_at(p + 1, end);
            if (p == end) {
                return end;
            }
            break;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            depth--; /* the first byte made it 1 */
            if (depth == 0) {
                return p + 1;
            }
            break;
        default:
            break;
        }
        p++;
    }
    return end;
}

enum sw_json_type sw_json_type_of(struct sw_slice value)
{
    const char *end = value.ptr + value.len, *p = space_end(value.ptr, end);

    switch (p < end ? *p : '\0') {
    case '{':
        return SW_JSON_OBJECT;
    case '[':
        return SW_JSON_ARRAY;
    case '"':
        return SW_JSON_STRING;
    case 't':
    case 'f':
        return SW_JSON_BOOL;
    case 'n':
        return SW_JSON_NULL;
    default:
        return SW_JSON_NUMBER;
    }
}

struct sw_json_iter sw_json_iter(struct sw_slice value)
{
    const char *end, *p;

    if (value.len == 0) {
        return (struct sw_json_iter){NULL, NULL, false};
    }
    end = value.ptr + value.len;
    p = space_end(value.ptr, end);
    if (p == end || (*p != '{' && *p != '[')) {
        return (struct sw_json_iter){end, end, false};
    }
    return (struct sw_json_iter){p + 1, end, *p == '{'};
}

bool sw_json_next(struct sw_json_iter *it, struct sw_slice *ret_name, struct sw_slice *ret_value)
{
    const char *p = it->at, *end = it->end, *from, *stop;
    struct sw_slice name = {NULL, 0};

    while (p < end && (is_space(*p) || *p == ',')) {
        p++;
    }
    if (p >= end || *p == '}' || *p == ']') {
        it->at = end;
        return false;
    }
    if (it->object) {
        if (*p != '"') {
            it->at = end; /* never in checked text */
            return false;
        }
        from = p + 1;
        stop = quote_at(from, end);
        name = (struct sw_slice){from, (size_t)(stop - from)};
        p = stop < end ? stop + 1 : end;
        while (p < end && (is_space(*p) || *p == ':')) {
            p++;
        }
    }
    stop = value_end(p, end);
    *ret_name = name;
    *ret_value = (struct sw_slice){p, (size_t)(stop - p)};
    it->at = stop;
    return true;
}

bool sw_json_name_is(struct sw_slice name, struct sw_slice plain)
{
    struct chars c;
    size_t i = 0;
    int byte;

    if (!escaped(name)) {
        return sw_slice_eq(name, plain);
    }
    c = chars_of(name);
    while ((byte = chars_next(&c)) >= 0) {
        if (i == plain.len || (unsigned char)plain.ptr[i] != byte) {
            return false;
        }
        i++;
    }
    return i == plain.len;
}

bool sw_json_get(struct sw_slice value, struct sw_slice name, struct sw_slice *ret_value)
{
    struct sw_json_iter it = sw_json_iter(value);
    struct sw_slice have, found;

    while (it.object && sw_json_next(&it, &have, &found)) {
        if (sw_json_name_is(have, name)) {
            *ret_value = found;
            return true;
        }
    }
    return false;
}

bool sw_json_unquote(struct sw_slice value, struct sw_out *out)
{
    struct chars c;
    int byte;

    if (value.len < 2 || value.ptr[0] != '"' || value.ptr[value.len - 1] != '"') {
        return false;
    }
    c = chars_of((struct sw_slice){value.ptr + 1, value.len - 2});
    while ((byte = chars_next(&c)) >= 0) {
        sw_out_char(out, (char)byte);
    }
    return !out->overflowed;
}

/* ---- merge (RFC 7396) --------------------------------------------------------------------------
 */

struct patch_member {
    uint32_t hash;
    uint32_t name_at, name_len; /* in the patch's text */
    uint32_t value_at, value_len;
    uint32_t met; /* the target has this name */
};

struct merger {
    const char *patch; /* the whole text: offsets count from here */
    struct sw_out *out;
    struct sw_arena *scratch;
    uint64_t seed;
};

static bool is_object(struct sw_slice value)
{
    return value.len > 0 && value.ptr[0] == '{';
}

static bool is_null(struct sw_slice value)
{
    return value.len > 0 && value.ptr[0] == 'n';
}

static void put_name(struct sw_out *out, bool *first, struct sw_slice name)
{
    if (!*first) {
        sw_out_char(out, ',');
    }
    *first = false;
    /* the quotes stand around it in the text it came from */
    (void)compact_string(name.ptr - 1, name.ptr + name.len + 1, out);
    sw_out_char(out, ':');
}

/* merge({}, patch), in one walk: a copy without the members that are null. Returns behind the value
 * at p. Only objects inside objects are entered: null in an array stays. */
static const char *merge_fresh(const char *p, const char *end, struct sw_out *out)
{
    const char *stop;
    bool first = true;

    if (*p != '{') {
        stop = value_end(p, end);
        compact(p, stop, out);
        return stop;
    }
    sw_out_char(out, '{');
    p++;
    for (;;) {
        struct sw_slice name;

        while (p < end && (is_space(*p) || *p == ',')) {
            p++;
        }
        if (p >= end || *p != '"') {
            break; /* the closing brace */
        }
        stop = quote_at(p + 1, end);
        name = (struct sw_slice){p + 1, (size_t)(stop - p) - 1};
        p = stop < end ? stop + 1 : end;
        while (p < end && (is_space(*p) || *p == ':')) {
            p++;
        }
        if (p >= end) {
            break;
        }
        if (*p == 'n') {
            p = value_end(p, end);
            continue;
        }
        put_name(out, &first, name);
        p = merge_fresh(p, end, out);
    }
    sw_out_char(out, '}');
    return p < end ? p + 1 : end;
}

/* Hash table over the patch's members: index + 1, masked; NULL for few. */
struct patch_table {
    struct patch_member *members;
    size_t count;
    uint16_t *slots;
    size_t mask;
};

static struct sw_slice member_name(const struct merger *m, const struct patch_member *member)
{
    return (struct sw_slice){m->patch + member->name_at, member->name_len};
}

static struct sw_slice member_value(const struct merger *m, const struct patch_member *member)
{
    return (struct sw_slice){m->patch + member->value_at, member->value_len};
}

static bool table_read(struct merger *m, struct sw_slice patch, struct patch_table *ret_table)
{
    struct sw_json_iter it = sw_json_iter(patch);
    struct patch_table t = {NULL, 0, NULL, 0};
    struct sw_slice name, value;
    size_t count = 0;

    while (sw_json_next(&it, &name, &value)) {
        count++;
    }
    SW_ASSERT(count <= SW_JSON_MEMBERS_MAX); /* check saw to it */
    t.members = sw_arena_array(m->scratch, count, struct patch_member);
    if (count > LINEAR_MAX) {
        size_t slots = 16;

        while (slots < 2 * count) {
            slots *= 2;
        }
        t.slots = sw_arena_array(m->scratch, slots, uint16_t);
        t.mask = slots - 1;
    }
    if (m->scratch->overflowed) {
        return false;
    }
    it = sw_json_iter(patch);
    while (sw_json_next(&it, &name, &value)) {
        struct patch_member *member = &t.members[t.count];

        *member = (struct patch_member){
            .hash = name_hash(name, m->seed),
            .name_at = (uint32_t)(name.ptr - m->patch),
            .name_len = (uint32_t)name.len,
            .value_at = (uint32_t)(value.ptr - m->patch),
            .value_len = (uint32_t)value.len,
        };
        t.count++;
        if (t.slots != NULL) {
            size_t slot = member->hash & t.mask;

            while (t.slots[slot] != 0) {
                slot = (slot + 1) & t.mask;
            }
            t.slots[slot] = (uint16_t)t.count;
        }
    }
    SW_ASSERT(t.count == count);
    *ret_table = t;
    return true;
}

static struct patch_member *table_find(const struct merger *m, const struct patch_table *t,
                                       struct sw_slice name)
{
    uint32_t hash = name_hash(name, m->seed);

    if (t->slots == NULL) {
        for (size_t i = 0; i < t->count; i++) {
            if (t->members[i].hash == hash && names_equal(member_name(m, &t->members[i]), name)) {
                return &t->members[i];
            }
        }
        return NULL;
    }
    for (size_t slot = hash & t->mask; t->slots[slot] != 0; slot = (slot + 1) & t->mask) {
        struct patch_member *member = &t->members[t->slots[slot] - 1];

        if (member->hash == hash && names_equal(member_name(m, member), name)) {
            return member;
        }
    }
    return NULL;
}

/* Both are objects. Recursion is as deep as the texts, which check bounds. False: no scratch. */
static bool merge_objects(struct merger *m, struct sw_slice target, struct sw_slice patch,
                          size_t depth)
{
    size_t mark = sw_arena_mark(m->scratch);
    struct sw_json_iter it = sw_json_iter(target);
    struct sw_slice name, value;
    struct patch_table t;
    bool first = true;

    SW_ASSERT(depth < SW_JSON_DEPTH_MAX);
    if (!table_read(m, patch, &t)) {
        return false;
    }
    sw_out_char(m->out, '{');
    while (sw_json_next(&it, &name, &value)) {
        struct patch_member *member = table_find(m, &t, name);
        struct sw_slice change;

        if (member == NULL) {
            put_name(m->out, &first, name);
            compact(value.ptr, value.ptr + value.len, m->out);
            continue;
        }
        member->met = 1;
        change = member_value(m, member);
        if (is_null(change)) {
            continue;
        }
        put_name(m->out, &first, name);
        if (is_object(change) && is_object(value)) {
            if (!merge_objects(m, value, change, depth + 1)) {
                return false;
            }
        } else {
            (void)merge_fresh(change.ptr, change.ptr + change.len, m->out);
        }
    }
    for (size_t i = 0; i < t.count; i++) {
        struct sw_slice change = member_value(m, &t.members[i]);

        if (t.members[i].met == 0 && !is_null(change)) {
            put_name(m->out, &first, member_name(m, &t.members[i]));
            (void)merge_fresh(change.ptr, change.ptr + change.len, m->out);
        }
    }
    sw_out_char(m->out, '}');
    sw_arena_reset(m->scratch, mark);
    return true;
}

static struct sw_slice trimmed(struct sw_slice text)
{
    const char *end, *p;

    if (text.len == 0) {
        return text; /* ptr may be NULL */
    }
    end = text.ptr + text.len;
    p = space_end(text.ptr, end);
    while (end > p && is_space(end[-1])) {
        end--;
    }
    return (struct sw_slice){p, (size_t)(end - p)};
}

/* Two objects within the limits may be merged to one above them. A text without that many colons
 * cannot be: only then it is walked again. */
static bool within_limits(struct sw_slice text)
{
    size_t colons = 0;

    for (size_t i = 0; i < text.len; i++) {
        colons += text.ptr[i] == ':';
    }
    return colons <= SW_JSON_MEMBERS_MAX || sw_json_check(text).err == SW_OK;
}

enum sw_err sw_json_merge(struct sw_slice target, struct sw_slice patch, struct sw_out *out,
                          struct sw_arena *scratch)
{
    struct merger m = {NULL, out, scratch, 0};
    size_t mark = sw_arena_mark(scratch), from = out->len;

    if (scratch->overflowed) {
        return SW_E_NO_MEMORY;
    }
    target = trimmed(target);
    patch = trimmed(patch);
    SW_ASSERT(patch.len > 0);
    m.patch = patch.ptr;
    m.seed = seed_here(&m);
    if (is_object(target) && is_object(patch)) {
        if (!merge_objects(&m, target, patch, 0)) {
            sw_arena_reset(scratch, mark);
            return SW_E_NO_MEMORY;
        }
    } else {
        (void)merge_fresh(patch.ptr, patch.ptr + patch.len, out);
    }
    if (out->overflowed || !within_limits((struct sw_slice){out->ptr + from, out->len - from})) {
        return SW_E_LIMIT;
    }
    return SW_OK;
}
