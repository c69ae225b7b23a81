/* crypto/: seals against the vectors of AES-256-GCM, and what must not open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <cmocka.h>

#include "crypto/crypto.h"

static size_t hex(const char *text, uint8_t *room)
{
    size_t len = 0;

    for (; *text != '\0'; text += 2) {
        uint64_t value;

        assert_true(sw_slice_hex_u64(sw_slice_of(text, 2), &value));
        room[len++] = (uint8_t)value;
    }
    return len;
}

/* McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13, 14 and 16. */
static void vectors(void **state)
{
    static const struct {
        const char *key, *nonce, *aad, *plain, *cipher, *tag;
    } rows[] = {
        {"0000000000000000000000000000000000000000000000000000000000000000",
         "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
        {"0000000000000000000000000000000000000000000000000000000000000000",
         "000000000000000000000000", "", "00000000000000000000000000000000",
         "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
        {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
         "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
         "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
         "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
         "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
         "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
         "76fc6ece0f4e1768cddf8853bb2d551b"},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        uint8_t key[32], aad[32], plain[64], sealed[128], out[64];
        size_t aad_len = hex(rows[i].aad, aad), plain_len = hex(rows[i].plain, plain), len;

        (void)hex(rows[i].key, key);
        len = hex(rows[i].nonce, sealed);
        len += hex(rows[i].cipher, sealed + len);
        len += hex(rows[i].tag, sealed + len);
        assert_true(sw_seal_open(key, sw_slice_of(aad, aad_len), sw_slice_of(sealed, len), out));
        assert_memory_equal(out, plain, plain_len);
        /* ours is another nonce each time, so it is compared by opening it */
        sw_seal(key, sw_slice_of(aad, aad_len), sw_slice_of(plain, plain_len), sealed);
        assert_true(sw_seal_open(key, sw_slice_of(aad, aad_len),
                                 sw_slice_of(sealed, plain_len + SW_SEAL_BYTES), out));
        assert_memory_equal(out, plain, plain_len);
    }
}

/* Every bit counts: nonce, ciphertext, tag, aad, key, and the length. */
static void not_opened(void **state)
{
    static const char plain[] = "{\"secret\":\"of 37 bytes, not 32\",\"n\":1}";
    const size_t plain_len = sizeof(plain) - 1, len = plain_len + SW_SEAL_BYTES;
    uint8_t key[32] = {1, 2, 3}, sealed[128], out[128], zeros[128] = {0};
    char aad[] = "a place";

    (void)state;
    sw_seal(key, SW_S("a place"), sw_slice_of(plain, plain_len), sealed);
    assert_true(sw_seal_open(key, SW_S("a place"), sw_slice_of(sealed, len), out));
    assert_memory_equal(out, plain, plain_len);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        memset(out, 0xa5, sizeof(out));
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(sw_seal_open(key, SW_S("a place"), sw_slice_of(sealed, len), out));
        assert_memory_equal(out, zeros, plain_len); /* no byte of it is left to be read */
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t i = 0; i < sizeof(aad) - 1; i++) {
        aad[i] ^= 1;
        assert_false(sw_seal_open(key, sw_slice_of(aad, 7), sw_slice_of(sealed, len), out));
        aad[i] ^= 1;
    }
    for (size_t i = 0; i < sizeof(key); i++) {
        key[i] ^= 0x80;
        assert_false(sw_seal_open(key, SW_S("a place"), sw_slice_of(sealed, len), out));
        key[i] ^= 0x80;
    }
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *exact = malloc(cut + 1); /* for the sanitizer to see a byte read behind it */

        memcpy(exact, sealed, cut);
        assert_false(sw_seal_open(key, SW_S("a place"), sw_slice_of(exact, cut), out));
        free(exact);
    }
    assert_false(sw_seal_open(key, SW_S("a place"), (struct sw_slice){NULL, 0}, out));
    assert_true(sw_seal_open(key, SW_S("a place"), sw_slice_of(sealed, len), out));
}

static void in_place(void **state)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, 4096, 1u << 20};
    const uint8_t key[32] = {7};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(sizes); i++) {
        size_t n = sizes[i];
        uint8_t *room = malloc(n + SW_SEAL_BYTES), *want = malloc(n + 1);
        uint8_t *text = room + SW_SEAL_NONCE_BYTES;

        for (size_t at = 0; at < n; at++) {
            want[at] = (uint8_t)(at * 7);
        }
        memcpy(text, want, n);
        sw_seal(key, SW_S("x"), sw_slice_of(text, n), room);
        assert_true(n < 15 || memcmp(text, want, n) != 0);
        assert_true(sw_seal_open(key, SW_S("x"), sw_slice_of(room, n + SW_SEAL_BYTES), text));
        assert_memory_equal(text, want, n);
        free(room);
        free(want);
    }
}

/* Two seals of one text have nothing in common. */
static void fresh_nonces(void **state)
{
    uint8_t seen[256][SW_SEAL_NONCE_BYTES], sealed[32 + SW_SEAL_BYTES];
    const uint8_t key[32] = {9}, plain[32] = {0};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(seen); i++) {
        sw_seal(key, SW_S(""), sw_slice_of(plain, sizeof(plain)), sealed);
        memcpy(seen[i], sealed, sizeof(seen[i]));
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(seen[i], seen[j], sizeof(seen[i]));
        }
    }
}

static void *many(void *arg)
{
    uint8_t key[32] = {0}, sealed[100 + SW_SEAL_BYTES], plain[100], out[100];

    memset(key, *(const int *)arg, sizeof(key));
    memset(plain, *(const int *)arg, sizeof(plain));
    for (size_t i = 0; i < 2000; i++) {
        sw_seal(key, SW_S("t"), sw_slice_of(plain, sizeof(plain)), sealed);
        if (!sw_seal_open(key, SW_S("t"), sw_slice_of(sealed, sizeof(sealed)), out) ||
            memcmp(out, plain, sizeof(plain)) != 0) {
            return arg;
        }
    }
    return NULL;
}

static void threads_apart(void **state)
{
    pthread_t threads[4];
    int numbers[4] = {1, 2, 3, 4};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, many, &numbers[i]), 0);
    }
    for (size_t i = 0; i < SW_COUNTOF(threads); i++) {
        void *failed;

        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),      cmocka_unit_test(not_opened),    cmocka_unit_test(in_place),
        cmocka_unit_test(fresh_nonces), cmocka_unit_test(threads_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
