/* tests/sim/wire.c - bytes out and in, lists, numbers in queries: what apps and clients share. */
#include "world.h"

#include <stdarg.h>

const struct route_info routes_info[ROUTE_ID_COUNT] = {
    [ROUTE_COUNT] = {.name = "count", .cookie = "c1", .session = true, .list = true},
    [ROUTE_CAS] = {.name = "cas", .cookie = "c2", .session = true, .list = true},
    [ROUTE_MERGE] = {.name = "merge", .cookie = "c3", .session = true},
    [ROUTE_LAST] = {.name = "last", .cookie = "c4", .session = true},
    [ROUTE_SAFE] = {.name = "safe", .cookie = "c5", .session = true, .list = true, .replay = true},
    [ROUTE_ROOM] = {.name = "room", .session = true, .list = true, .by_path = true},
    [ROUTE_PLAIN] = {.name = "plain"},
    [ROUTE_NEVER] = {.name = "never"},
    [ROUTE_STICKY] = {.name = "sticky", .cookie = "p1"},
    [ROUTE_ONCE] = {.name = "once",
                    .session = true,
                    .list = true,
                    .by_path = true,
                    .keys = KEYS_REQUIRED,
                    .kept_bytes_max = 256 * 1024},
    [ROUTE_AGAIN] = {.name = "again",
                     .session = true,
                     .list = true,
                     .replay = true,
                     .by_path = true,
                     .keys = KEYS_REQUIRED,
                     .who = true,
                     .retries = true,
                     .frees_5xx = true,
                     .kept_bytes_max = 256 * 1024},
    [ROUTE_PAY] = {.name = "pay",
                   .keys = KEYS_OPTIONAL,
                   .who = true,
                   .stores_5xx = true,
                   .kept_bytes_max = 8 * 1024},
    [ROUTE_WAKE] = {.name = "wake", .cookie = "c6", .session = true, .list = true, .alarms = true},
    [ROUTE_BELL] = {.name = "bell", .session = true, .list = true, .by_path = true, .alarms = true},
};

static const char *const act_names[ACT_COUNT] = {
    "ok",  "add",  "del",   "renew",   "slow",    "never", "close", "midway",  "garbage", "badjson",
    "two", "fail", "early", "interim", "bighead", "empty", "extra", "upgrade", "set",     "cancel",
};

const char *act_name(enum act a)
{
    return act_names[a];
}

bool act_parse(struct sw_slice s, enum act *ret_act)
{
    for (unsigned i = 0; i < ACT_COUNT; i++) {
        if (sw_slice_eq(s, sw_slice_cstr(act_names[i]))) {
            *ret_act = (enum act)i;
            return true;
        }
    }
    return false;
}

bool act_never_commits(enum act a)
{
    return a == ACT_BADJSON || a == ACT_TWO || a == ACT_FAIL || a == ACT_GARBAGE ||
           a == ACT_NEVER || a == ACT_CLOSE || a == ACT_BIGHEAD;
}

bool act_is_plain(enum act a)
{
    switch (a) {
    case ACT_OK:
    case ACT_ADD:
    case ACT_DEL:
    case ACT_RENEW:
    case ACT_SLOW:
    case ACT_INTERIM:
    case ACT_EMPTY:
    case ACT_UPGRADE:
    case ACT_EXTRA:
    case ACT_SET:
    case ACT_CANCEL:
        return true;
    default:
        return false;
    }
}

/* Every body is a piece of one long random text, from a place of its own. */
#define TEXT_BYTES 65536u

static const char *body_text(uint32_t id, bool answer, uint64_t at)
{
    static char text[2 * TEXT_BYTES];

    if (text[0] == 0) {
        struct sw_rng rng;

        sw_rng_seed(&rng, 1);
        for (uint32_t i = 0; i < TEXT_BYTES; i++) {
            text[i] = text[i + TEXT_BYTES] = (char)('a' + sw_rng_below(&rng, 26));
        }
    }
    return text + (id * 7919u + (answer ? 31337u : 0u) + at) % TEXT_BYTES;
}

void body_fill(uint32_t id, bool answer, uint64_t at, char *ptr, size_t n)
{
    while (n > 0) {
        size_t run = SW_MIN(n, (size_t)TEXT_BYTES);

        memcpy(ptr, body_text(id, answer, at), run);
        ptr += run;
        at += run;
        n -= run;
    }
}

size_t body_differs(uint32_t id, bool answer, uint64_t at, const char *ptr, size_t n)
{
    size_t i = 0;

    SW_ASSERT(n <= TEXT_BYTES);
    if (n == 0 || memcmp(ptr, body_text(id, answer, at), n) == 0) {
        return n;
    }
    while (ptr[i] == body_text(id, answer, at)[i]) {
        i++;
    }
    return i;
}

struct sw_slice query_text(struct sw_slice query, const char *name)
{
    struct sw_slice want = sw_slice_cstr(name);

    while (query.len > 0) {
        struct sw_slice pair, key, value;

        sw_slice_cut(query, '&', &pair, &query);
        if (sw_slice_cut(pair, '=', &key, &value) && sw_slice_eq(key, want)) {
            return value;
        }
    }
    return (struct sw_slice){NULL, 0};
}

bool query_u32(struct sw_slice query, const char *name, uint32_t *ret_value)
{
    uint64_t value;

    if (!sw_slice_u64(query_text(query, name), &value) || value > UINT32_MAX) {
        return false;
    }
    *ret_value = (uint32_t)value;
    return true;
}

bool list_parse(struct sw_slice s, struct list *ret_list)
{
    ret_list->n = 0;
    while (s.len > 0) {
        struct sw_slice one;
        uint64_t value;

        sw_slice_cut(s, ',', &one, &s);
        if (!sw_slice_u64(one, &value) || value > UINT32_MAX || ret_list->n == LIST_MAX) {
            return false;
        }
        ret_list->ids[ret_list->n++] = (uint32_t)value;
    }
    return true;
}

bool list_has(const struct list *l, uint32_t id)
{
    for (uint32_t i = 0; i < l->n; i++) {
        if (l->ids[i] == id) {
            return true;
        }
    }
    return false;
}

/* ---- bytes in -------------------------------------------------------------------------------- */

void bytes_add(struct bytes *b, struct sw_slice s)
{
    if (b->cap - b->len < s.len) {
        b->cap = (b->len + s.len) * 2 + 512;
        b->ptr = realloc(b->ptr, b->cap);
        SW_ASSERT(b->ptr != NULL);
    }
    if (s.len > 0) {
        memcpy(b->ptr + b->len, s.ptr, s.len);
        b->len += s.len;
    }
}

void bytes_drop(struct bytes *b, size_t n)
{
    SW_ASSERT(n <= b->len);
    if (n > 0) {
        b->len -= n;
        memmove(b->ptr, b->ptr + n, b->len);
    }
}

void bytes_fini(struct bytes *b)
{
    free(b->ptr);
    *b = (struct bytes){NULL, 0, 0};
}

/* ---- bytes out ------------------------------------------------------------------------------- */

static void pump_again(struct sw_timer *t, void *arg)
{
    (void)t;
    pump_run(arg);
}

void pump_init(struct pump *p, struct world *w, struct sw_loop *loop)
{
    *p = (struct pump){.w = w, .loop = loop, .hold_at = SIZE_MAX};
    sw_timer_init(&p->timer, pump_again, p);
}

void pump_reset(struct pump *p)
{
    sw_timer_stop(p->loop, &p->timer);
    p->len = p->off = 0;
    p->hold_at = SIZE_MAX;
    p->s = NULL;
    p->trickle = false;
}

void pump_fini(struct pump *p)
{
    pump_reset(p);
    free(p->data);
    p->data = NULL;
    p->cap = 0;
}

void pump_put(struct pump *p, const void *ptr, size_t len)
{
    if (p->cap - p->len < len) {
        p->cap = (p->len + len) * 2 + 1024;
        p->data = realloc(p->data, p->cap);
        SW_ASSERT(p->data != NULL);
    }
    if (len > 0) {
        memcpy(p->data + p->len, ptr, len);
        p->len += len;
    }
}

void pump_printf(struct pump *p, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    SW_ASSERT(n >= 0);
    SW_ASSERT((size_t)n < sizeof(text));
    pump_put(p, text, (size_t)n);
}

void pump_run(struct pump *p)
{
    while (p->s != NULL && p->off < SW_MIN(p->len, p->hold_at) && !sw_timer_running(&p->timer) &&
           sw_stream_queued(p->s) < 40000) {
        size_t n = SW_MIN(SW_MIN(p->len, p->hold_at) - p->off, (size_t)SW_BUF_BYTES);
        struct sw_buf *b;

        if (p->trickle && n > 1) {
            n = 1 + (size_t)pick(p->w, chance(p->w, 50) ? SW_MIN(n, 8u) : n);
        }
        b = sw_buf_get(p->loop, n);
        if (b == NULL) {
            sw_timer_start(p->loop, &p->timer, now_ns(p->w) + SW_NS_PER_MS);
            return;
        }
        memcpy(b->data, p->data + p->off, n);
        if (sw_stream_send(p->s, b, sw_slice_of(b->data, n)) != SW_OK) {
            sw_buf_unref(b);
            sw_timer_start(p->loop, &p->timer, now_ns(p->w) + SW_NS_PER_MS);
            return;
        }
        sw_buf_unref(b);
        p->off += n;
        if (p->trickle && chance(p->w, 60)) {
            sw_timer_start(p->loop, &p->timer, now_ns(p->w) + (1 + pick(p->w, 20)) * SW_NS_PER_MS);
            return;
        }
    }
}

bool pump_done(const struct pump *p)
{
    return p->off == p->len;
}
