/* crypto/: hashes against the RFCs' vectors, base64url with one text a value, random bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "crypto/crypto.h"

static struct sw_slice hex(const char *text, uint8_t *room)
{
    size_t len = 0;

    for (; *text != '\0'; text += 2) {
        uint64_t value;

        assert_true(sw_slice_hex_u64(sw_slice_of(text, 2), &value));
        room[len++] = (uint8_t)value;
    }
    return sw_slice_of(room, len);
}

static void assert_hex(const uint8_t *got, const char *want)
{
    uint8_t room[64];
    struct sw_slice bytes = hex(want, room);

    assert_memory_equal(got, bytes.ptr, bytes.len);
}

static void sha256_vectors(void **state)
{
    uint8_t out[32];
    char *million = malloc(1000000);

    (void)state;
    /* FIPS 180-2, appendix B */
    sw_sha256(SW_S(""), out);
    assert_hex(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sw_sha256(SW_S("abc"), out);
    assert_hex(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sw_sha256(SW_S("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), out);
    assert_hex(out, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    memset(million, 'a', 1000000);
    sw_sha256(sw_slice_of(million, 1000000), out);
    assert_hex(out, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

static void hmac_vectors(void **state)
{
    /* RFC 4231; its keys are shorter than ours and padded with zeros by HMAC itself. */
    static const struct {
        const char *key, *data, *mac;
    } rows[] = {
        {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265",
         "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        {"4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "dddddddddddddddddddddddddddddddddddddddddddddddddd"
         "dddddddddddddddddddddddddddddddddddddddddddddddddd",
         "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
        {"0102030405060708090a0b0c0d0e0f10111213141516171819",
         "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
         "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
         "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_mac_key key = {{0}};
        uint8_t data[64], out[32];
        struct sw_slice all;

        (void)hex(rows[i].key, key.bytes);
        all = hex(rows[i].data, data);
        /* in whatever pieces it comes */
        for (size_t cut = 0; cut <= all.len; cut++) {
            struct sw_slice parts[3] = {
                sw_slice_head(all, cut), {NULL, 0}, sw_slice_tail(all, cut)};

            sw_hmac_sha256(&key, parts, 3, out);
            assert_hex(out, rows[i].mac);
        }
    }
    /* In turns: what a thread remembers of one key must never answer for another. The second and
     * the third key begin alike where that is looked up. */
    for (size_t i = 0; i < 64; i++) {
        const size_t at = i * 7 % SW_COUNTOF(rows);
        struct sw_mac_key key = {{0}};
        uint8_t data[64], out[32];
        struct sw_slice all;

        (void)hex(rows[at].key, key.bytes);
        all = hex(rows[at].data, data);
        sw_hmac_sha256(&key, &all, 1, out);
        assert_hex(out, rows[at].mac);
        key.bytes[31] ^= 1; /* nearly the same key */
        sw_hmac_sha256(&key, &all, 1, out);
        key.bytes[31] ^= 1;
        sw_hmac_sha256(&key, &all, 1, out);
        assert_hex(out, rows[at].mac);
    }
}

static void hkdf_vectors(void **state)
{
    uint8_t secret[32], info[64], out[32];

    (void)state;
    /* OpenSSL 3: openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexkey:0001..1f
     * -kdfopt info:"stateway pin v1" HKDF (RFC 5869's own vectors have other lengths; its
     * algorithm is also held against wycheproof in tests/e2e/test_vectors_json.py) */
    for (size_t i = 0; i < sizeof(secret); i++) {
        secret[i] = (uint8_t)i;
    }
    sw_hkdf(secret, SW_S("stateway pin v1"), out);
    assert_hex(out, "e4cf2cab7d206fa6d7594a8fdffc602b5dea6e76e287afceddc0f5d737a139c5");
    sw_hkdf(secret, SW_S(""), out);
    assert_hex(out, "37ad29109f43265287804b674e2653d0a513718907f97fca97c95bded8104bbf");
    sw_hkdf(secret, hex("f0f1f2f3f4f5f6f7f8f9", info), out);
    assert_hex(out, "f1cfb5c6d871ec6f49570c7cd097cc2701d5c95d5854b7699ccab41fd82be713");
}

static void b64_table(void **state)
{
    static const struct {
        struct sw_slice bytes, text;
    } rows[] = {
        /* RFC 4648, 10 */
        {SW_S(""), SW_S("")},
        {SW_S("f"), SW_S("Zg")},
        {SW_S("fo"), SW_S("Zm8")},
        {SW_S("foo"), SW_S("Zm9v")},
        {SW_S("foob"), SW_S("Zm9vYg")},
        {SW_S("fooba"), SW_S("Zm9vYmE")},
        {SW_S("foobar"), SW_S("Zm9vYmFy")},
        {SW_S("\xfb\xff\xfe"), SW_S("-__-")},
        {SW_S("\x03\xec\xff\xe0\xc1"), SW_S("A-z_4ME")}, /* RFC 7515, appendix C */
        {SW_S("\0\0\0"), SW_S("AAAA")},
    };
    static const struct sw_slice bad[] = {
        SW_S("A"),     SW_S("AAAAA"),   SW_S("Zg=="), SW_S("Zg="),   SW_S("Zh"),
        SW_S("Zm9"),   SW_S("Zm+v"),    SW_S("Zm/v"), SW_S("Zm 9v"), SW_S("Zm9v\n"),
        SW_S("\0AAA"), SW_S("Zm9\xc3"), SW_S("=AAA"), SW_S(" Zm8"),
    };
    uint8_t bytes[16];
    char room[32];
    size_t len;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_out out = sw_out_init(room, sizeof(room));

        sw_b64url_put(&out, rows[i].bytes.ptr, rows[i].bytes.len);
        assert_true(sw_slice_eq(sw_out_done(&out), rows[i].text));
        assert_int_equal(out.len, SW_B64_LEN(rows[i].bytes.len));
        assert_int_equal(sw_b64url(rows[i].text, bytes, sizeof(bytes), &len), SW_OK);
        assert_true(sw_slice_eq(sw_slice_of(bytes, len), rows[i].bytes));
        assert_int_equal(sw_b64url_exact(rows[i].text, bytes, rows[i].bytes.len), SW_OK);
        assert_int_equal(sw_b64url_exact(rows[i].text, bytes, rows[i].bytes.len + 1), SW_E_SYNTAX);
        if (rows[i].bytes.len > 0) {
            assert_int_equal(sw_b64url_exact(rows[i].text, bytes, rows[i].bytes.len - 1),
                             SW_E_SYNTAX);
            assert_int_equal(sw_b64url(rows[i].text, bytes, rows[i].bytes.len - 1, &len),
                             SW_E_LIMIT);
        }
    }
    for (size_t i = 0; i < SW_COUNTOF(bad); i++) {
        if (sw_b64url(bad[i], bytes, sizeof(bytes), &len) != SW_E_SYNTAX) {
            fail_msg("accepted: %.*s", SW_SARG(bad[i]));
        }
    }
}

/* Each text that is accepted is the one text of its bytes. */
static void b64_exhaustive(void **state)
{
    (void)state;
    for (unsigned a = 0; a < 256; a++) {
        for (unsigned b = 0; b < 256; b++) {
            char text[2] = {(char)a, (char)b}, room[4];
            struct sw_out out = sw_out_init(room, sizeof(room));
            uint8_t byte;

            if (sw_b64url_exact(sw_slice_of(text, 2), &byte, 1) == SW_OK) {
                sw_b64url_put(&out, &byte, 1);
                assert_true(sw_slice_eq(sw_out_done(&out), sw_slice_of(text, 2)));
            }
        }
    }
}

static void random_fresh(void **state)
{
    static uint8_t seen[4096][32];
    uint8_t large[5000] = {0};
    unsigned ones = 0;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(seen); i++) {
        sw_random(seen[i], sizeof(seen[i]));
        for (size_t j = 0; j < sizeof(seen[i]); j++) {
            ones += (unsigned)__builtin_popcount(seen[i][j]);
        }
    }
    for (size_t i = 1; i < SW_COUNTOF(seen); i++) {
        assert_memory_not_equal(seen[i], seen[i - 1], 32);
    }
    /* 2^20 bits: half of them, by eight deviations of 512 */
    assert_in_range(ones, (1u << 19) - 4096, (1u << 19) + 4096);
    sw_random(large, sizeof(large));
    assert_memory_not_equal(large, large + 2500, 2500);
    sw_random(large, 0);
}

/* A child must not hand out what its parent does. */
static void random_fork(void **state)
{
    uint8_t mine[32], theirs[32];
    int fds[2], status;
    pid_t pid;

    (void)state;
    sw_random(mine, sizeof(mine)); /* the buffer is filled */
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        sw_random(theirs, sizeof(theirs));
        _exit(write(fds[1], theirs, sizeof(theirs)) == sizeof(theirs) ? 0 : 1);
    }
    sw_random(mine, sizeof(mine));
    assert_int_equal(read(fds[0], theirs, sizeof(theirs)), sizeof(theirs));
    assert_memory_not_equal(mine, theirs, sizeof(mine));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(fds[0]);
    close(fds[1]);
}

static void *hash_thread(void *arg)
{
    uint8_t out[32];

    for (size_t i = 0; i < 2000; i++) {
        sw_sha256(SW_S("abc"), out);
        assert_hex(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        sw_random(out, sizeof(out));
    }
    return arg;
}

static void threads_share(void **state)
{
    pthread_t threads[4];

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hash_thread, NULL), 0);
    }
    for (size_t i = 0; i < SW_COUNTOF(threads); i++) {
        pthread_join(threads[i], NULL);
    }
}

/* The last test: from here on the process is predictable. */
static void random_seeded(void **state)
{
    uint8_t a[40], b[40], c[40];

    (void)state;
    sw_random_seed_for_tests(5);
    sw_random(a, sizeof(a));
    sw_random(c, sizeof(c));
    sw_random_seed_for_tests(5);
    sw_random(b, sizeof(b));
    assert_memory_equal(a, b, sizeof(a));
    assert_memory_not_equal(a, c, sizeof(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_vectors), cmocka_unit_test(hmac_vectors),
        cmocka_unit_test(hkdf_vectors),   cmocka_unit_test(b64_table),
        cmocka_unit_test(b64_exhaustive), cmocka_unit_test(random_fresh),
        cmocka_unit_test(random_fork),    cmocka_unit_test(threads_share),
        cmocka_unit_test(random_seeded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
