/* crypto/jose_jwe.c - encrypted tokens in compact form (RFC 7516), for one way only: a key used
 * directly, with A256GCM.
 *
 *   BASE64URL(header) . . BASE64URL(nonce) . BASE64URL(ciphertext) . BASE64URL(tag)
 *
 * The first part as it stands is the AAD (RFC 7516, 5.1); the second, an encrypted key, is empty
 * (RFC 7518, 4.5). Whatever is wrong, the answer is one: a client that tries learns nothing.
 */
#include "crypto/jose_priv.h"

#include <openssl/crypto.h>

#include "base/json.h"

/* ---- the parts ---------------------------------------------------------------------------------
 */

struct parts {
    struct sw_slice header, nonce, text, tag; /* base64url */
};

static bool split(struct sw_slice token, struct parts *p)
{
    struct sw_slice rest, encrypted_key;

    /* a fifth dot is no letter of base64url */
    return sw_slice_cut(token, '.', &p->header, &rest) &&
           sw_slice_cut(rest, '.', &encrypted_key, &rest) && encrypted_key.len == 0 &&
           sw_slice_cut(rest, '.', &p->nonce, &rest) && sw_slice_cut(rest, '.', &p->text, &p->tag);
}

static size_t token_bytes(size_t header_bytes, size_t plain_bytes)
{
    return SW_B64_LEN(header_bytes) + 2 + SW_B64_LEN(SW_SEAL_NONCE_BYTES) + 1 +
           SW_B64_LEN(plain_bytes) + 1 + SW_B64_LEN(SW_SEAL_TAG_BYTES);
}

static enum sw_err content_open(const uint8_t key[32], const struct parts *p,
                                struct sw_arena *arena, struct sw_slice *ret_plain)
{
    size_t mark = sw_arena_mark(arena), cap = p->text.len / 4 * 3 + 3, len;
    char *room = sw_arena_bytes(arena, cap + SW_SEAL_BYTES), *text;

    if (room == NULL) {
        return SW_E_NO_MEMORY;
    }
    text = room + SW_SEAL_NONCE_BYTES;
    if (sw_b64url_exact(p->nonce, room, SW_SEAL_NONCE_BYTES) != SW_OK ||
        sw_b64url(p->text, text, cap, &len) != SW_OK ||
        sw_b64url_exact(p->tag, text + len, SW_SEAL_TAG_BYTES) != SW_OK ||
        !sw_seal_open(key, p->header, sw_slice_of(room, len + SW_SEAL_BYTES), text)) {
        sw_arena_reset(arena, mark);
        return SW_E_SEALED;
    }
    *ret_plain = sw_slice_of(text, len);
    return SW_OK;
}

/* The token is at most SW_TOKEN_BYTES_MAX long. False: no room in out. */
static bool content_put(const uint8_t key[32], struct sw_slice header, struct sw_slice plain,
                        struct sw_out *out)
{
    uint8_t sealed[SW_TOKEN_BYTES_MAX];
    size_t from = out->len;

    SW_ASSERT(plain.len + SW_SEAL_BYTES <= sizeof(sealed));
    sw_b64url_put(out, header.ptr, header.len);
    if (out->overflowed) {
        return false;
    }
    sw_seal(key, sw_slice_of(out->ptr + from, out->len - from), plain, sealed);
    sw_out_lit(out, "..");
    sw_b64url_put(out, sealed, SW_SEAL_NONCE_BYTES);
    sw_out_char(out, '.');
    sw_b64url_put(out, sealed + SW_SEAL_NONCE_BYTES, plain.len);
    sw_out_char(out, '.');
    sw_b64url_put(out, sealed + SW_SEAL_NONCE_BYTES + plain.len, SW_SEAL_TAG_BYTES);
    return !out->overflowed;
}

/* ---- any header of the one way -----------------------------------------------------------------
 */

static bool header_fits(struct sw_slice text)
{
    struct sw_json_checked checked = sw_json_check(text);
    struct sw_json_iter it;
    struct sw_slice name, value, inside;
    bool alg = false, enc = false;

    if (checked.err != SW_OK || checked.type != SW_JSON_OBJECT) {
        return false;
    }
    it = sw_json_iter(text);
    while (sw_json_next(&it, &name, &value)) {
        if (!sw_jose__string(value, &inside)) {
            return false;
        }
        if (sw_json_name_is(name, SW_S("alg"))) {
            alg = sw_json_name_is(inside, SW_S("dir"));
        } else if (sw_json_name_is(name, SW_S("enc"))) {
            enc = sw_json_name_is(inside, SW_S("A256GCM"));
        } else if (!sw_json_name_is(name, SW_S("kid")) && !sw_json_name_is(name, SW_S("typ")) &&
                   !sw_json_name_is(name, SW_S("cty"))) {
            return false;
        }
    }
    return alg && enc;
}

enum sw_err sw_jwe_open(const uint8_t key[32], struct sw_slice token, struct sw_arena *arena,
                        struct sw_slice *ret_plain)
{
    char header[SW_JWS_HEADER_BYTES_MAX];
    struct parts p;
    size_t len;

    if (token.len > SW_TOKEN_BYTES_MAX || !split(token, &p) ||
        sw_b64url(p.header, header, sizeof(header), &len) != SW_OK ||
        !header_fits(sw_slice_of(header, len))) {
        return SW_E_SEALED;
    }
    return content_open(key, &p, arena, ret_plain);
}

enum sw_err sw_jwe_seal(const uint8_t key[32], struct sw_slice kid, struct sw_slice plain,
                        struct sw_out *out)
{
    char header[SW_JWS_HEADER_BYTES_MAX];
    struct sw_out h = sw_out_init(header, sizeof(header));

    sw_out_lit(&h, "{\"alg\":\"dir\",\"enc\":\"A256GCM\"");
    if (kid.len > 0) {
        sw_out_lit(&h, ",\"kid\":\"");
        sw_out_slice(&h, kid);
        sw_out_char(&h, '"');
    }
    sw_out_char(&h, '}');
    if (h.overflowed || plain.len > SW_TOKEN_BYTES_MAX ||
        token_bytes(h.len, plain.len) > SW_TOKEN_BYTES_MAX) {
        return SW_E_TOKEN_LARGE;
    }
    SW_ASSERT(header_fits(sw_out_done(&h)));
    return content_put(key, sw_out_done(&h), plain, out) ? SW_OK : SW_E_LIMIT;
}

/* ---- sealed states -----------------------------------------------------------------------------
 */

/* The one spelling of a header: whoever reads writes it again and compares. */
static struct sw_slice sealed_header(const struct sw_sealed *s, char room[SW_SEALED_HEADER_MAX])
{
    struct sw_out h = sw_out_init(room, SW_SEALED_HEADER_MAX);

    SW_ASSERT(s->issued_unix_s >= 0 && s->issued_unix_s <= SW_CLAIM_TIME_MAX);
    SW_ASSERT(s->expires_unix_s >= 0 && s->expires_unix_s <= SW_CLAIM_TIME_MAX);
    sw_out_lit(&h, "{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"typ\":\"stateway1\",\"kid\":\"");
    sw_out_u64(&h, s->key_id);
    sw_out_lit(&h, "\",\"iat\":");
    sw_out_i64(&h, s->issued_unix_s);
    sw_out_lit(&h, ",\"exp\":");
    sw_out_i64(&h, s->expires_unix_s);
    sw_out_lit(&h, ",\"jti\":\"");
    sw_b64url_put(&h, s->id, sizeof(s->id));
    sw_out_lit(&h, "\"}");
    SW_ASSERT(!h.overflowed);
    return sw_out_done(&h);
}

static bool time_read(struct sw_slice text, int64_t *ret_unix_s)
{
    uint64_t n;

    if (!sw_slice_u64(text, &n) || n > SW_CLAIM_TIME_MAX) {
        return false;
    }
    *ret_unix_s = (int64_t)n;
    return true;
}

/* The text between two literals, which is cut off *rest with them. */
static bool between(struct sw_slice *rest, struct sw_slice before, char end,
                    struct sw_slice *ret_text)
{
    if (!sw_slice_starts(*rest, before)) {
        return false;
    }
    return sw_slice_cut(sw_slice_tail(*rest, before.len), end, ret_text, rest);
}

static bool sealed_header_read(struct sw_slice part, struct sw_sealed *s)
{
    char room[SW_SEALED_HEADER_MAX], again[SW_SEALED_HEADER_MAX];
    struct sw_slice rest, kid, iat, exp, id;
    uint64_t key_id;
    size_t len;

    if (sw_b64url(part, room, sizeof(room), &len) != SW_OK) {
        return false;
    }
    rest = sw_slice_of(room, len);
    if (!between(&rest,
                 SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"typ\":\"stateway1\",\"kid\":\""), '"',
                 &kid) ||
        !between(&rest, SW_S(",\"iat\":"), ',', &iat) ||
        !between(&rest, SW_S("\"exp\":"), ',', &exp) ||
        !between(&rest, SW_S("\"jti\":\""), '"', &id) || !sw_slice_u64(kid, &key_id) ||
        key_id > UINT32_MAX || !time_read(iat, &s->issued_unix_s) ||
        !time_read(exp, &s->expires_unix_s) || sw_b64url_exact(id, s->id, sizeof(s->id)) != SW_OK) {
        return false;
    }
    s->key_id = (uint32_t)key_id;
    return sw_slice_eq(sw_slice_of(room, len), sealed_header(s, again));
}

#define PLACE_BYTES_MAX 512 /* service and cookie name together */

static void sealed_key(const struct sw_key *from, const struct sw_sealed_place *place,
                       const uint8_t id[SW_SEALED_ID_BYTES], uint8_t key[32])
{
    char room[64 + PLACE_BYTES_MAX];
    struct sw_out info = sw_out_init(room, sizeof(room));
    const struct sw_slice texts[] = {place->service, place->cookie};

    sw_out_lit(&info, "stateway sealed v1");
    for (size_t i = 0; i < SW_COUNTOF(texts); i++) {
        size_t len = texts[i].len;
        uint8_t be[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                         (uint8_t)len};

        sw_out_put(&info, be, sizeof(be));
        sw_out_slice(&info, texts[i]);
    }
    sw_out_put(&info, id, SW_SEALED_ID_BYTES);
    SW_ASSERT(!info.overflowed); /* names of the configuration, which are short */
    sw_hkdf(from->secret, sw_out_done(&info), key);
}

size_t sw_sealed_size(size_t plain_bytes)
{
    const struct sw_sealed largest = {
        .issued_unix_s = SW_CLAIM_TIME_MAX,
        .expires_unix_s = SW_CLAIM_TIME_MAX,
        .key_id = UINT32_MAX,
    };
    char room[SW_SEALED_HEADER_MAX];

    return token_bytes(sealed_header(&largest, room).len, plain_bytes);
}

enum sw_err sw_sealed_put(struct sw_out *out, const struct sw_keyring *ring,
                          const struct sw_sealed_place *place, const struct sw_sealed *s,
                          struct sw_slice plain)
{
    const struct sw_key *from = &ring->keys[ring->active];
    struct sw_sealed mine = *s;
    char room[SW_SEALED_HEADER_MAX];
    struct sw_slice header;
    uint8_t key[32];
    bool ok;

    SW_ASSERT(ring->active < ring->count);
    mine.key_id = from->id;
    header = sealed_header(&mine, room);
    if (plain.len > SW_SEALED_BYTES_MAX || place->cookie.len > SW_SEALED_BYTES_MAX ||
        place->cookie.len + token_bytes(header.len, plain.len) > SW_SEALED_BYTES_MAX) {
        return SW_E_SEALED_LARGE;
    }
    sealed_key(from, place, mine.id, key);
    ok = content_put(key, header, plain, out);
    OPENSSL_cleanse(key, sizeof(key));
    sw_keyring_used(ring, from->id, SW_KEY_MADE, mine.issued_unix_s);
    return ok ? SW_OK : SW_E_LIMIT;
}

enum sw_err sw_sealed_open(struct sw_slice text, const struct sw_keyring *ring,
                           const struct sw_sealed_place *place, int64_t now_unix_s,
                           struct sw_arena *arena, struct sw_sealed *ret_sealed,
                           struct sw_slice *ret_plain)
{
    size_t mark = sw_arena_mark(arena);
    const struct sw_key *from;
    struct sw_sealed s = {0};
    struct sw_slice plain;
    struct parts p;
    uint8_t key[32];
    enum sw_err err;

    SW_ASSERT(now_unix_s >= 0 && now_unix_s <= SW_CLAIM_TIME_MAX);
    if (text.len > SW_SEALED_BYTES_MAX || !split(text, &p) || !sealed_header_read(p.header, &s)) {
        return SW_E_SEALED;
    }
    from = sw_keyring_find(ring, s.key_id);
    if (from == NULL) {
        return SW_E_SEALED;
    }
    sealed_key(from, place, s.id, key);
    err = content_open(key, &p, arena, &plain);
    OPENSSL_cleanse(key, sizeof(key));
    if (err == SW_OK) {
        sw_keyring_used(ring, from->id, SW_KEY_OPENED, now_unix_s);
    }
    if (err == SW_OK && s.issued_unix_s > now_unix_s + SW_SEALED_SKEW_S) {
        err = SW_E_SEALED;
    } else if (err == SW_OK && s.expires_unix_s <= now_unix_s) {
        err = SW_E_SEALED_EXPIRED; /* told apart only of what we made ourselves */
    }
    if (err != SW_OK) {
        sw_arena_reset(arena, mark);
        return err;
    }
    *ret_sealed = s;
    *ret_plain = plain;
    return SW_OK;
}
