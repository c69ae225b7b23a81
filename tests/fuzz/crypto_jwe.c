/* fuzz/crypto_jwe.c - encrypted tokens and sealed states: any bytes, any header, any content.
 *
 * The first byte says which: 'h' a header, under which something is rightly sealed; 's' a state,
 * which is sealed, opened, and opened again with one byte changed; everything else comes from
 * somebody who has no key.
 */
#include "base/json.h"
#include "crypto/jose.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW 1760000000ll

static struct sw_keyring ring; /* of keys that no input knows */
static const struct sw_sealed_place place = {SW_S("shop"), SW_S("prefs")};
static char arena_room[1 << 15], token_room[1 << 15];

static enum sw_err open_sealed(struct sw_slice text, struct sw_sealed *ret_sealed,
                               struct sw_slice *ret_plain)
{
    struct sw_arena arena;
    enum sw_err err;

    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    err = sw_sealed_open(text, &ring, &place, NOW, &arena, ret_sealed, ret_plain);
    SW_ASSERT(err == SW_OK || arena.used == 0);
    return err;
}

static void forged(struct sw_slice token)
{
    struct sw_sealed sealed;
    struct sw_arena arena;
    struct sw_slice plain;

    SW_ASSERT(open_sealed(token, &sealed, &plain) == SW_E_SEALED);
    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    SW_ASSERT(sw_jwe_open(ring.keys[0].secret, token, &arena, &plain) == SW_E_SEALED);
}

/* What opens says dir and A256GCM, and nothing that would have to be obeyed. */
static void header(struct sw_slice text)
{
    static const struct sw_slice refused[] = {SW_S("zip"), SW_S("crit"), SW_S("epk"), SW_S("p2c"),
                                              SW_S("jwk"), SW_S("jku"),  SW_S("x5u"), SW_S("iv")};
    struct sw_out out = sw_out_init(token_room, sizeof(token_room));
    uint8_t sealed[3 + SW_SEAL_BYTES];
    struct sw_slice plain, value;
    struct sw_arena arena;

    sw_b64url_put(&out, text.ptr, text.len);
    if (out.overflowed) {
        return;
    }
    sw_seal(ring.keys[0].secret, sw_out_done(&out), SW_S("abc"), sealed);
    sw_out_lit(&out, "..");
    sw_b64url_put(&out, sealed, 12);
    sw_out_char(&out, '.');
    sw_b64url_put(&out, sealed + 12, 3);
    sw_out_char(&out, '.');
    sw_b64url_put(&out, sealed + 15, 16);
    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    if (out.overflowed ||
        sw_jwe_open(ring.keys[0].secret, sw_out_done(&out), &arena, &plain) != SW_OK) {
        return;
    }
    SW_ASSERT(sw_slice_eq(plain, SW_S("abc")));
    SW_ASSERT(sw_json_get(text, SW_S("alg"), &value));
    SW_ASSERT(sw_json_get(text, SW_S("enc"), &value));
    for (size_t i = 0; i < SW_COUNTOF(refused); i++) {
        SW_ASSERT(!sw_json_get(text, refused[i], &value));
    }
}

/* The first eight bytes choose the times, the id, and which byte is changed. */
static void state(const uint8_t *data, size_t size)
{
    struct sw_sealed s = {.issued_unix_s = NOW, .expires_unix_s = NOW + 1}, got;
    struct sw_out out = sw_out_init(token_room, sizeof(token_room));
    struct sw_slice plain, in = sw_slice_of(data + 8, size - 8);
    enum sw_err err;
    size_t at;

    s.issued_unix_s -= data[0];
    s.expires_unix_s += data[1] * 900000000ll;
    memset(s.id, data[2], sizeof(s.id));
    err = sw_sealed_put(&out, &ring, &place, &s, in);
    SW_ASSERT(err == SW_OK || (err == SW_E_SEALED_LARGE && in.len > 2000));
    if (err != SW_OK) {
        return;
    }
    SW_ASSERT(out.len <= sw_sealed_size(in.len));
    SW_ASSERT(open_sealed(sw_out_done(&out), &got, &plain) == SW_OK);
    SW_ASSERT(sw_slice_eq(plain, in));
    SW_ASSERT(got.issued_unix_s == s.issued_unix_s && got.expires_unix_s == s.expires_unix_s);
    SW_ASSERT(memcmp(got.id, s.id, sizeof(s.id)) == 0);
    at = ((size_t)data[3] << 8 | data[4]) % out.len;
    out.ptr[at] = (char)(out.ptr[at] ^ (data[5] == 0 ? 1 : data[5]));
    SW_ASSERT(open_sealed(sw_out_done(&out), &got, &plain) == SW_E_SEALED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (ring.count == 0) {
        sw_keyring_make(NOW, &ring);
    }
    if (size > 0 && data[0] == 'h') {
        header(sw_slice_of(data + 1, size - 1));
    } else if (size > 8 && data[0] == 's') {
        state(data + 1, size - 1);
    } else {
        forged(sw_slice_of(data, size));
    }
    return 0;
}
