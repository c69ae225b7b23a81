/* crypto/: encrypted tokens and sealed states: what opens, and that nothing else does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/err.h>
#include <cmocka.h>

#include "crypto/jose_priv.h"

#define NOW 1760000000ll

static char arena_room[1 << 15];

/* The token flush against the end of its memory. */
static enum sw_err jwe_open(const uint8_t key[32], struct sw_slice token,
                            struct sw_slice *ret_plain)
{
    char *exact = malloc(token.len + (token.len == 0));
    struct sw_arena arena;
    enum sw_err err;

    memcpy(exact, token.ptr, token.len);
    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    err = sw_jwe_open(key, sw_slice_of(exact, token.len), &arena, ret_plain);
    free(exact);
    assert_true(err == SW_OK || arena.used == 0);
    return err;
}

/* ---- any JWE of our one kind ------------------------------------------------------------------
 */

/* Made with the Python package cryptography (AESGCM) after RFC 7516, 5.1: key 00..1f, nonce a0..ab,
 * plaintext and header as decoded below. */
static void by_another(void **state)
{
    static const struct sw_slice token =
        SW_S("eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..oKGio6Slpqeoqaqr.nT"
             "ofTDe_IIU5VKvhK0mdow.upRG0ZOpqXHeDYBoP2EcZw");
    struct sw_slice plain;
    uint8_t key[32];

    (void)state;
    for (size_t i = 0; i < sizeof(key); i++) {
        key[i] = (uint8_t)i;
    }
    assert_int_equal(jwe_open(key, token, &plain), SW_OK);
    assert_true(sw_slice_eq(plain, SW_S("{\"cart\":[1,2,3]}")));
}

/* Headers of another kind, with content that is rightly sealed under them. */
static void headers(void **state)
{
    static const struct {
        struct sw_slice header;
        enum sw_err err;
    } rows[] = {
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\"}"), SW_OK},
        {SW_S("{\"enc\":\"A256GCM\",\"alg\":\"dir\"}"), SW_OK},
        {SW_S(
             "{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"kid\":\"1\",\"typ\":\"JWT\",\"cty\":\"JWT\"}"),
         SW_OK},
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"zip\":\"DEF\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"crit\":[\"exp\"],\"exp\":1}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"x\":\"y\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"kid\":1}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"jwk\":{}}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"jku\":\"https://x\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"p2c\":\"9\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A128GCM\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A256CBC-HS512\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"A256GCMKW\",\"enc\":\"A256GCM\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"A256KW\",\"enc\":\"A256GCM\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"RSA1_5\",\"enc\":\"A256GCM\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"PBES2-HS256+A128KW\",\"enc\":\"A256GCM\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"none\",\"enc\":\"A256GCM\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"DIR\",\"enc\":\"A256GCM\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"dir\"}"), SW_E_SEALED},
        {SW_S("{\"enc\":\"A256GCM\"}"), SW_E_SEALED},
        {SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"enc\":\"A256GCM\"}"), SW_E_SEALED},
        {SW_S("[]"), SW_E_SEALED},
        {SW_S(""), SW_E_SEALED},
    };
    const uint8_t key[32] = {7};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        char room[1024];
        uint8_t sealed[16 + SW_SEAL_BYTES];
        struct sw_out out = sw_out_init(room, sizeof(room));
        struct sw_slice plain;

        sw_b64url_put(&out, rows[i].header.ptr, rows[i].header.len);
        sw_seal(key, sw_out_done(&out), SW_S("sixteen letters!"), sealed);
        sw_out_lit(&out, "..");
        sw_b64url_put(&out, sealed, 12);
        sw_out_char(&out, '.');
        sw_b64url_put(&out, sealed + 12, 16);
        sw_out_char(&out, '.');
        sw_b64url_put(&out, sealed + 28, 16);
        if (jwe_open(key, sw_out_done(&out), &plain) != rows[i].err) {
            fail_msg("%.*s", SW_SARG(rows[i].header));
        }
        if (rows[i].err == SW_OK) { /* an encrypted key has no place in "dir" */
            char other[1024];
            size_t head = sw_slice_find(sw_out_done(&out), '.') + 1;

            memcpy(other, room, head);
            memcpy(other + head, "AAAA", 4);
            memcpy(other + head + 4, room + head, out.len - head);
            assert_int_equal(jwe_open(key, sw_slice_of(other, out.len + 4), &plain), SW_E_SEALED);
        }
    }
}

static void jwe_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 3, 1024, 6000};
    const uint8_t key[32] = {7}, other[32] = {8};
    char *plain = malloc(SW_TOKEN_BYTES_MAX), *room = malloc(SW_TOKEN_BYTES_MAX + 1);
    struct sw_slice got;
    struct sw_out out;

    (void)state;
    memset(plain, 'p', SW_TOKEN_BYTES_MAX);
    for (size_t i = 0; i < SW_COUNTOF(sizes); i++) {
        out = sw_out_init(room, SW_TOKEN_BYTES_MAX);
        assert_int_equal(sw_jwe_seal(key, SW_S("k"), sw_slice_of(plain, sizes[i]), &out), SW_OK);
        assert_int_equal(jwe_open(key, sw_out_done(&out), &got), SW_OK);
        assert_true(sw_slice_eq(got, sw_slice_of(plain, sizes[i])));
        assert_int_equal(jwe_open(other, sw_out_done(&out), &got), SW_E_SEALED);
    }
    out = sw_out_init(room, SW_TOKEN_BYTES_MAX);
    assert_int_equal(sw_jwe_seal(key, SW_S(""), sw_slice_of(plain, SW_TOKEN_BYTES_MAX), &out),
                     SW_E_TOKEN_LARGE);
    assert_int_equal(sw_jwe_seal(key, SW_S(""), sw_slice_of(plain, 6100), &out), SW_E_TOKEN_LARGE);
    for (size_t cap = 0; cap < 200; cap++) {
        struct sw_slice text = sw_slice_of(plain, 64);
        enum sw_err err;

        out = sw_out_init(room, cap);
        err = sw_jwe_seal(key, SW_S(""), text, &out);
        assert_true(err == SW_E_LIMIT || err == SW_OK);
        assert_true(err == SW_E_LIMIT || jwe_open(key, sw_out_done(&out), &got) == SW_OK);
    }
    memset(room, 'A', SW_TOKEN_BYTES_MAX + 1);
    assert_int_equal(jwe_open(key, sw_slice_of(room, SW_TOKEN_BYTES_MAX + 1), &got), SW_E_SEALED);
    free(plain);
    free(room);
}

/* ---- sealed states -----------------------------------------------------------------------------
 */

static struct sw_keyring ring;
static const struct sw_sealed_place place = {SW_S("shop"), SW_S("__Host-prefs")};

static struct sw_sealed sample(void)
{
    struct sw_sealed s = {.issued_unix_s = NOW, .expires_unix_s = NOW + 1000};

    for (size_t i = 0; i < sizeof(s.id); i++) {
        s.id[i] = (uint8_t)(0xe0 + i);
    }
    return s;
}

static int setup(void **state)
{
    (void)state;
    ring = (struct sw_keyring){.count = 3, .active = 1};
    for (size_t i = 0; i < ring.count; i++) {
        ring.keys[i].id = (uint32_t)i + 1;
        ring.keys[i].state = i == 0 ? SW_KEY_RETIRED : i == 1 ? SW_KEY_ACTIVE : SW_KEY_SEED;
        memset(ring.keys[i].secret, (int)(0x31 + i), 32);
    }
    return 0;
}

static enum sw_err open_at(struct sw_slice text, const struct sw_keyring *keys,
                           const struct sw_sealed_place *where, int64_t now,
                           struct sw_sealed *ret_sealed, struct sw_slice *ret_plain)
{
    char *exact = malloc(text.len + (text.len == 0));
    struct sw_arena arena;
    enum sw_err err;

    memcpy(exact, text.ptr, text.len);
    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    err = sw_sealed_open(sw_slice_of(exact, text.len), keys, where, now, &arena, ret_sealed,
                         ret_plain);
    free(exact);
    assert_true(err == SW_OK || arena.used == 0);
    assert_int_equal(ERR_peek_error(), 0);
    return err;
}

static enum sw_err open_sealed(struct sw_slice text, struct sw_sealed *ret_sealed,
                               struct sw_slice *ret_plain)
{
    return open_at(text, &ring, &place, NOW, ret_sealed, ret_plain);
}

static struct sw_slice seal(char *room, size_t cap, const char *plain)
{
    const struct sw_sealed s = sample();
    struct sw_out out = sw_out_init(room, cap);

    assert_int_equal(sw_sealed_put(&out, &ring, &place, &s, sw_slice_cstr(plain)), SW_OK);
    return sw_out_done(&out);
}

static void round_trip(void **state)
{
    char room[1024], again[1024], header[256];
    struct sw_slice text = seal(room, sizeof(room), "{\"theme\":\"dark\"}"), plain;
    const struct sw_sealed want = sample();
    struct sw_sealed got;
    size_t len;

    (void)state;
    assert_int_equal(open_sealed(text, &got, &plain), SW_OK);
    assert_true(sw_slice_eq(plain, SW_S("{\"theme\":\"dark\"}")));
    assert_memory_equal(got.id, want.id, sizeof(want.id));
    assert_int_equal(got.issued_unix_s, want.issued_unix_s);
    assert_int_equal(got.expires_unix_s, want.expires_unix_s);
    assert_int_equal(got.key_id, 2);
    /* the header as documented */
    assert_int_equal(
        sw_b64url(sw_slice_head(text, sw_slice_find(text, '.')), header, sizeof(header), &len),
        SW_OK);
    assert_true(
        sw_slice_eq(sw_slice_of(header, len),
                    SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"typ\":\"stateway1\",\"kid\":\"2\","
                         "\"iat\":1760000000,\"exp\":1760001000,"
                         "\"jti\":\"4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8\"}")));
    /* only letters that a cookie's value may have (draft rfc6265bis, 4.1.1) */
    for (size_t i = 0; i < text.len; i++) {
        assert_non_null(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.",
                               text.ptr[i]));
    }
    /* the same state sealed twice has nothing in common behind the header */
    assert_memory_not_equal(seal(again, sizeof(again), "{\"theme\":\"dark\"}").ptr + 200,
                            text.ptr + 200, text.len - 200);
}

/* Every bit, every cut, and every letter that means the same bits to a loose reader. */
static void every_bit(void **state)
{
    char room[1024], with[1025];
    struct sw_slice text = seal(room, sizeof(room), "{\"theme\":\"dark\"}"), plain;
    struct sw_sealed got;

    (void)state;
    for (size_t bit = 0; bit < 8 * text.len; bit++) {
        room[bit / 8] = (char)(room[bit / 8] ^ (1 << bit % 8));
        assert_int_equal(open_sealed(text, &got, &plain), SW_E_SEALED);
        room[bit / 8] = (char)(room[bit / 8] ^ (1 << bit % 8));
    }
    for (size_t at = 0; at < text.len; at++) {
        char was = room[at];

        for (const char *c = "ABab01-_.=+/ "; *c != '\0'; c++) {
            room[at] = *c;
            assert_true(*c == was || open_sealed(text, &got, &plain) == SW_E_SEALED);
        }
        room[at] = was;
    }
    for (size_t cut = 0; cut < text.len; cut++) {
        assert_int_equal(open_sealed(sw_slice_head(text, cut), &got, &plain), SW_E_SEALED);
        assert_int_equal(open_sealed(sw_slice_tail(text, cut + 1), &got, &plain), SW_E_SEALED);
        /* a byte taken out, and one put in */
        memcpy(with, room, cut);
        memcpy(with + cut, room + cut + 1, text.len - cut - 1);
        assert_int_equal(open_sealed(sw_slice_of(with, text.len - 1), &got, &plain), SW_E_SEALED);
        with[cut] = 'A';
        memcpy(with + cut + 1, room + cut, text.len - cut);
        assert_int_equal(open_sealed(sw_slice_of(with, text.len + 1), &got, &plain), SW_E_SEALED);
    }
    assert_int_equal(open_sealed(text, &got, &plain), SW_OK);
}

/* Cut and paste between services and cookies; their lengths are bound too. */
static void places(void **state)
{
    static const struct sw_sealed_place others[] = {
        {SW_S("shoq"), SW_S("__Host-prefs")},   {SW_S("shop"), SW_S("__Host-pref")},
        {SW_S("shop_"), SW_S("_Host-prefs")},   {SW_S("sho"), SW_S("p__Host-prefs")},
        {SW_S(""), SW_S("shop__Host-prefs")},   {SW_S("shop__Host-prefs"), SW_S("")},
        {SW_S("__Host-prefs"), SW_S("shop")},   {SW_S("Shop"), SW_S("__Host-prefs")},
        {SW_S("shop\0"), SW_S("__Host-prefs")},
    };
    char room[1024];
    struct sw_slice text = seal(room, sizeof(room), "{}"), plain;
    struct sw_sealed got;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(others); i++) {
        assert_int_equal(open_at(text, &ring, &others[i], NOW, &got, &plain), SW_E_SEALED);
    }
    assert_int_equal(open_at(text, &ring, &place, NOW, &got, &plain), SW_OK);
}

/* A header rewritten by its own rules: another end, another id, another key. */
static void rewritten(void **state)
{
    static const char *const changes[][2] = {
        {"1760001000", "1860001000"},
        {"1760000000", "1760000001"},
        {"\"2\"", "\"1\""},
        {"\"2\"", "\"3\""},
        {"4OHi", "4OHj"},
        {"\"2\"", "\"9\""},
        {"\"2\"", "\"02\""},
        {"stateway1", "stateway2"},
        {"\"2\"", "\"+2\""},
        {"1760000000", "01760000000"},
        {"\"iat\":1760000000,\"exp\":1760001000", "\"exp\":1760001000,\"iat\":1760000000"},
        {"dir\",", "dir\", "},
        {"}", ",\"x\":1}"},
        {"}", "} "},
        {"1760001000", "1760001000.0"},
        {"1760001000", "18446744073709551616"},
        {"1760001000", "253402300800"},
        {"1760001000", "-1"},
    };
    char room[1024];
    struct sw_slice text = seal(room, sizeof(room), "{}"), plain, rest = text;
    char header[512], changed[512], token[1024];
    struct sw_sealed got;
    size_t len;

    (void)state;
    assert_int_equal(
        sw_b64url(sw_slice_head(text, sw_slice_find(text, '.')), header, sizeof(header), &len),
        SW_OK);
    rest = sw_slice_tail(text, sw_slice_find(text, '.'));
    for (size_t i = 0; i < SW_COUNTOF(changes); i++) {
        struct sw_slice whole = sw_slice_of(header, len), from = sw_slice_cstr(changes[i][0]);
        size_t at = sw_slice_find_slice(whole, from);
        struct sw_out h = sw_out_init(changed, sizeof(changed)),
                      t = sw_out_init(token, sizeof(token));

        assert_in_range(at, 0, len - 1);
        sw_out_slice(&h, sw_slice_head(whole, at));
        sw_out_cstr(&h, changes[i][1]);
        sw_out_slice(&h, sw_slice_tail(whole, at + from.len));
        sw_b64url_put(&t, h.ptr, h.len);
        sw_out_slice(&t, rest);
        if (open_sealed(sw_out_done(&t), &got, &plain) != SW_E_SEALED) {
            fail_msg("%s -> %s", changes[i][0], changes[i][1]);
        }
    }
}

/* The format as crypto/jose.h documents it, written by hand: the one spelling opens, and no other
 * one that says the same, though both are rightly sealed. */
static void by_the_book(void **state)
{
    static const struct {
        struct sw_slice header;
        enum sw_err err;
    } rows[] = {
#define HEADER(kid, iat, exp)                                                                      \
    "{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"typ\":\"stateway1\",\"kid\":\"" kid "\",\"iat\":" iat  \
    ",\"exp\":" exp ",\"jti\":\"4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8\"}"
        {SW_S(HEADER("2", "1760000000", "1760001000")), SW_OK},
        {SW_S(HEADER("02", "1760000000", "1760001000")), SW_E_SEALED},
        {SW_S(HEADER("2", "01760000000", "1760001000")), SW_E_SEALED},
        {SW_S(HEADER("2", "1760000000", "001760001000")), SW_E_SEALED},
        {SW_S(HEADER("2", "1760000000", "253402300800")), SW_E_SEALED},
        {SW_S(HEADER("4294967298", "1760000000", "1760001000")), SW_E_SEALED},
        {SW_S(HEADER("2", "1760000000", "1760001000") " "), SW_E_SEALED},
        {SW_S(HEADER("2", "1760000000", "1760001000") "{}"), SW_E_SEALED},
        {SW_S(" " HEADER("2", "1760000000", "1760001000")), SW_E_SEALED},
#undef HEADER
    };
    const struct sw_sealed want = sample();
    char room[512];
    struct sw_out info = sw_out_init(room, sizeof(room));
    uint8_t key[32];

    (void)state;
    sw_out_lit(&info, "stateway sealed v1\0\0\0\x04shop\0\0\0\x0c__Host-prefs");
    sw_out_put(&info, want.id, sizeof(want.id));
    sw_hkdf(ring.keys[1].secret, sw_out_done(&info), key);
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        char token[1024];
        uint8_t sealed[2 + SW_SEAL_BYTES];
        struct sw_out out = sw_out_init(token, sizeof(token));
        struct sw_slice plain;
        struct sw_sealed got;
        enum sw_err err;

        sw_b64url_put(&out, rows[i].header.ptr, rows[i].header.len);
        sw_seal(key, sw_out_done(&out), SW_S("{}"), sealed);
        sw_out_lit(&out, "..");
        sw_b64url_put(&out, sealed, 12);
        sw_out_char(&out, '.');
        sw_b64url_put(&out, sealed + 12, 2);
        sw_out_char(&out, '.');
        sw_b64url_put(&out, sealed + 14, 16);
        err = open_sealed(sw_out_done(&out), &got, &plain);
        if (err != rows[i].err) {
            fail_msg("%.*s: %s", SW_SARG(rows[i].header), sw_err_name(err));
        }
    }
}

static void keys_of_the_ring(void **state)
{
    struct sw_keyring later = ring, gone = ring;
    char room[1024];
    struct sw_slice text = seal(room, sizeof(room), "{}"), plain;
    struct sw_sealed got;

    (void)state;
    /* retired: still opened, and the caller sees that it is not the active one */
    later.keys[1].state = SW_KEY_RETIRED;
    later.keys[2].state = SW_KEY_ACTIVE;
    later.active = 2;
    assert_int_equal(open_at(text, &later, &place, NOW, &got, &plain), SW_OK);
    assert_int_not_equal(got.key_id, later.keys[later.active].id);
    /* removed: not any more; nor another secret under its id */
    gone.keys[1] = gone.keys[2];
    gone.count = 2;
    assert_int_equal(open_at(text, &gone, &place, NOW, &got, &plain), SW_E_SEALED);
    gone = ring;
    gone.keys[1].secret[31] ^= 1;
    assert_int_equal(open_at(text, &gone, &place, NOW, &got, &plain), SW_E_SEALED);
}

static void times(void **state)
{
    static const struct {
        int64_t now;
        enum sw_err err;
    } rows[] = {
        {NOW, SW_OK},
        {NOW + 999, SW_OK},
        {NOW + 1000, SW_E_SEALED_EXPIRED},
        {NOW + 1001, SW_E_SEALED_EXPIRED},
        {SW_CLAIM_TIME_MAX, SW_E_SEALED_EXPIRED},
        {NOW - SW_SEALED_SKEW_S, SW_OK},
        {NOW - SW_SEALED_SKEW_S - 1, SW_E_SEALED},
        {0, SW_E_SEALED},
    };
    char room[1024];
    struct sw_slice text = seal(room, sizeof(room), "{}"), plain;
    struct sw_sealed got;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        assert_int_equal(open_at(text, &ring, &place, rows[i].now, &got, &plain), rows[i].err);
    }
    /* whose end has come is told apart only if it is ours */
    room[text.len - 1] ^= 4;
    assert_int_equal(open_at(text, &ring, &place, NOW + 1000, &got, &plain), SW_E_SEALED);
}

/* Name and value of the cookie fit to the byte, or the app is told. */
static void cookie_size(void **state)
{
    char *plain = malloc(SW_SEALED_BYTES_MAX + 1), *room = malloc(2 * SW_SEALED_BYTES_MAX);
    const struct sw_sealed s = sample();
    size_t fitting = 0;
    struct sw_out out;

    (void)state;
    memset(plain, 'p', SW_SEALED_BYTES_MAX + 1);
    for (size_t len = 0; len <= SW_SEALED_BYTES_MAX + 1; len++) {
        enum sw_err err;

        out = sw_out_init(room, 2 * SW_SEALED_BYTES_MAX);
        err = sw_sealed_put(&out, &ring, &place, &s, sw_slice_of(plain, len));
        if (err == SW_OK) {
            assert_int_equal(fitting, len); /* no shorter one was refused */
            fitting = len + 1;
            assert_in_range(out.len + place.cookie.len, 0, SW_SEALED_BYTES_MAX);
            assert_in_range(out.len, 1, sw_sealed_size(len));
        } else {
            assert_int_equal(err, SW_E_SEALED_LARGE);
            assert_int_equal(out.len, 0);
        }
    }
    print_message("the largest state in a cookie: %zu bytes\n", fitting - 1);
    assert_in_range(fitting, 2800, 2900);
    for (size_t cap = 0; cap < 300; cap++) {
        out = sw_out_init(room, cap);
        assert_int_equal(sw_sealed_put(&out, &ring, &place, &s, sw_slice_of(plain, 100)),
                         SW_E_LIMIT);
    }
    free(plain);
    free(room);
}

static void arena_full(void **state)
{
    char room[1024];
    struct sw_slice text = seal(room, sizeof(room), "{\"theme\":\"dark\"}"), plain;
    struct sw_sealed got;
    bool opened = false;

    (void)state;
    for (size_t cap = 0; cap < 64; cap++) {
        struct sw_arena arena;
        enum sw_err err;

        sw_arena_init(&arena, arena_room, cap);
        err = sw_sealed_open(text, &ring, &place, NOW, &arena, &got, &plain);
        assert_true(err == SW_OK || (err == SW_E_NO_MEMORY && !opened));
        opened = err == SW_OK;
    }
    assert_true(opened);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_another),       cmocka_unit_test(headers),
        cmocka_unit_test(jwe_sizes),        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_bit),        cmocka_unit_test(places),
        cmocka_unit_test(rewritten),        cmocka_unit_test(by_the_book),
        cmocka_unit_test(keys_of_the_ring), cmocka_unit_test(times),
        cmocka_unit_test(cookie_size),      cmocka_unit_test(arena_full),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
