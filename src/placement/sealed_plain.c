/* placement/sealed_plain.c - what stands inside the seal of a sealed state, and whether it fits.
 *
 * Sizes in bytes, numbers big endian:
 *
 *   at  len  field
 *    0    1  1: this format
 *    1    8  counter: 1, 2, 3 ... of its versions
 *    9    1  which of the following are there: 1 subject, 2 end, 4 link; other bits are refused
 *         8  subject: since when the state is bound to it, unix milliseconds
 *         1  subject: its length, 1 to 255, and then as many bytes
 *         8  end: unix seconds, set by the app (Stateway-TTL); reading does not move it
 *        32  link: the key, in the store, of the state that this one was made of (move.c)
 *         8  link: when that ends by itself, unix seconds
 *         *  the state: compact ASCII JSON, an object
 *
 * Id, time of sealing and absolute end stand in the seal's header (crypto/jose.h). A cookie holds
 * 4096 bytes of name and value, and many servers cut a Cookie field at 8192: what would not come
 * back whole is refused, since a cookie that is ignored is a state that is lost.
 */
#include "placement/sealed_priv.h"

#include "base/json.h"
#include "placement/wire.h"

#define FORMAT      1
#define HAS_SUBJECT 1u
#define HAS_END     2u
#define HAS_LINK    4u

bool sw_sealed__plain_put(struct sw_out *out, const struct sw_sealed_plain *p)
{
    unsigned has = (p->subject.len > 0 ? HAS_SUBJECT : 0) | (p->end_unix_s > 0 ? HAS_END : 0) |
                   (p->linked ? HAS_LINK : 0);

    SW_ASSERT(p->counter > 0);
    SW_ASSERT(p->subject.len <= SW_SUBJECT_BYTES_MAX);
    sw_wire__put(out, FORMAT, 1);
    sw_wire__put(out, p->counter, 8);
    sw_wire__put(out, has, 1);
    if ((has & HAS_SUBJECT) != 0) {
        sw_wire__put(out, (uint64_t)p->bound_unix_ms, 8);
        sw_wire__put(out, p->subject.len, 1);
        sw_out_slice(out, p->subject);
    }
    if ((has & HAS_END) != 0) {
        sw_wire__put(out, (uint64_t)p->end_unix_s, 8);
    }
    if ((has & HAS_LINK) != 0) {
        sw_out_put(out, (const char *)p->link.bytes, sizeof(p->link.bytes));
        sw_wire__put(out, (uint64_t)p->link_end_unix_s, 8);
    }
    sw_out_slice(out, p->state);
    return !out->overflowed;
}

static int64_t read_time(struct sw_wire *w)
{
    uint64_t n = sw_wire__number(w, 8);

    w->bad = w->bad || n == 0 || n > INT64_MAX / 2;
    return w->bad ? 0 : (int64_t)n;
}

enum sw_err sw_sealed__plain_read(struct sw_slice text, struct sw_sealed_plain *ret_plain)
{
    struct sw_wire w = {.rest = text};
    struct sw_sealed_plain p = {0};
    uint64_t has;

    w.bad = sw_wire__number(&w, 1) != FORMAT;
    p.counter = sw_wire__number(&w, 8);
    has = sw_wire__number(&w, 1);
    w.bad = w.bad || p.counter == 0 || (has & ~(uint64_t)(HAS_SUBJECT | HAS_END | HAS_LINK)) != 0;
    if ((has & HAS_SUBJECT) != 0) {
        p.bound_unix_ms = read_time(&w);
        p.subject = sw_wire__take(&w, sw_wire__number(&w, 1));
        w.bad = w.bad || p.subject.len == 0;
    }
    if ((has & HAS_END) != 0) {
        p.end_unix_s = read_time(&w);
    }
    if ((has & HAS_LINK) != 0) {
        struct sw_slice key = sw_wire__take(&w, sizeof(p.link.bytes));

        p.linked = !w.bad;
        if (p.linked) {
            memcpy(p.link.bytes, key.ptr, key.len);
        }
        p.link_end_unix_s = read_time(&w);
    }
    p.state = w.rest;
    if (w.bad || p.state.len < 2 || p.state.ptr[0] != '{') {
        return SW_E_SEALED; /* sealed by us, so by a version to come: as if it were not there */
    }
    *ret_plain = p;
    return SW_OK;
}

struct sw_sealed_place sw_sealed__place(const struct sw_ask *ask)
{
    return (struct sw_sealed_place){
        .service = ask->env->config->apps[ask->routed->route->app].name,
        .cookie = ask->sealed.cookie_name,
    };
}

struct sw_version sw_sealed__version(const struct sw_store_key *key,
                                     const struct sw_sealed_plain *p)
{
    static const struct sw_mac_key name = {"stateway sealed version 1"};
    const struct sw_slice parts[] = {sw_slice_of(key->bytes, sizeof(key->bytes)), p->state};
    struct sw_version v = {.counter = p->counter};
    uint8_t hash[32];

    sw_hmac_sha256(&name, parts, SW_COUNTOF(parts), hash);
    memcpy(&v.epoch, hash, sizeof(v.epoch));
    return v;
}

/* ---- does it fit? ---------------------------------------------------------------------------- */

/* How long the client's Cookie field would be but for the cookie of that name. */
static size_t other_cookies_bytes(const struct sw_head *h, struct sw_slice name)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < h->field_count; i++) {
        struct sw_slice rest = h->fields[i].value, pair, key, value;

        if (h->fields[i].id != SW_FIELD_COOKIE) {
            continue;
        }
        while (rest.len > 0) {
            (void)sw_slice_cut(rest, ';', &pair, &rest);
            pair = sw_slice_trim(pair);
            if (sw_slice_cut(pair, '=', &key, &value) && sw_slice_eq(sw_slice_trim(key), name)) {
                continue;
            }
            bytes += pair.len + sizeof("; ") - 1;
        }
    }
    return bytes;
}

/* name=value, as the cookie's limit counts it. */
static enum sw_err too_large(struct sw_ask *ask, size_t bytes, size_t bytes_max)
{
    ask->sealed.needs_bytes = bytes;
    ask->sealed.needs_bytes_max = bytes_max;
    return SW_E_SEALED_LARGE;
}

/* The cookie lives as long as it can be used: whichever of the ends comes first. */
static int64_t cookie_age(const struct sw_ask *ask, const struct sw_sealed *seal,
                          const struct sw_sealed_plain *p)
{
    int64_t end =
        SW_MIN(seal->expires_unix_s, seal->issued_unix_s + ask->routed->route->sealed.idle_s);

    if (p->end_unix_s > 0) {
        end = SW_MIN(end, p->end_unix_s);
    }
    return SW_MIN(SW_MAX(end - seal->issued_unix_s, 1), (int64_t)SW_COOKIE_AGE_S_MAX);
}

enum sw_err sw_sealed__lines(struct sw_ask *ask, const struct sw_sealed *seal,
                             const struct sw_sealed_plain *p, struct sw_slice *ret_lines)
{
    const struct sw_config_cookie *cookie = &ask->routed->route->sealed.cookie;
    struct sw_sealed_place place = sw_sealed__place(ask);
    size_t cap = 64 + sizeof(p->link.bytes) + p->subject.len + p->state.len, whole, mark;
    struct sw_out value, plain;
    char *room;
    enum sw_err err;

    whole = place.cookie.len + sw_sealed_size(cap - 64); /* at most a few bytes too many */
    if (p->state.len > SW_SEALED_BYTES_MAX) {
        return too_large(ask, whole, SW_SEALED_BYTES_MAX);
    }
    room = sw_arena_bytes(ask->arena, SW_SEALED_BYTES_MAX);
    mark = sw_arena_mark(ask->arena);
    plain = sw_out_init(sw_arena_bytes(ask->arena, cap), cap);
    if (room == NULL || plain.ptr == NULL) {
        return SW_E_NO_MEMORY;
    }
    if (!sw_sealed__plain_put(&plain, p)) {
        SW_UNREACHABLE(); /* cap is the sum of its parts */
    }
    value = sw_out_init(room, SW_SEALED_BYTES_MAX);
    whole = place.cookie.len + sw_sealed_size(plain.len);
    err = sw_sealed_put(&value, ask->env->keys, &place, seal, sw_out_done(&plain));
    sw_arena_reset(ask->arena, mark);
    if (err != SW_OK) {
        return err == SW_E_SEALED_LARGE ? too_large(ask, whole, SW_SEALED_BYTES_MAX) : err;
    }
    whole = sizeof("Cookie: ") - 1 + other_cookies_bytes(ask->request, place.cookie) +
            place.cookie.len + 1 + value.len;
    if (whole > SW_COOKIE_FIELD_BYTES_MAX) {
        return too_large(ask, whole, SW_COOKIE_FIELD_BYTES_MAX);
    }
    return sw_place__cookie_lines(ask, cookie, place.cookie, sw_out_done(&value),
                                  cookie_age(ask, seal, p), ret_lines);
}
