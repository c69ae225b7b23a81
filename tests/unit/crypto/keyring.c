/* crypto/keyring.c: read strictly, made once, kept from others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "crypto/crypto.h"

#define S1 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define S2 "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8"
#define KEY(id, state, secret)                                                                     \
    "{\"id\":" id ",\"state\":\"" state "\",\"created\":1760000000,\"secret\":\"" secret "\"}"
#define OLD(id, state, retired)                                                                    \
    "{\"id\":" id ",\"state\":\"" state "\",\"created\":1760000000,\"retired\":" retired \
    ",\"secret\":\"" S2 "\"}"
#define RING2(keys) "{\"version\":2,\"keys\":[" keys "]}"
#define RING(keys) "{\"version\":1,\"keys\":[" keys "]}"

static const struct {
    const char *name, *text, *why; /* a part of the reason; NULL: accepted */
} rows[] = {
    {"one", RING(KEY("1", "active", S1)), NULL},
    {"three", RING(KEY("7", "retired", S1) "," KEY("1", "active", S1) " , " KEY("9", "seed", S2)),
     NULL},
    {"largest id", RING(KEY("4294967295", "active", S1)), NULL},
    {"escaped names", "{\"\\u0076ersion\":1,\"keys\":[" KEY("1", "\\u0061ctive", S1) "]}", NULL},
    {"nothing", "", "not JSON"},
    {"garbage", "hello", "not JSON"},
    {"list", "[]", "no JSON object"},
    {"no version", "{\"keys\":[" KEY("1", "active", S1) "]}", "\"version\" must be 1"},
    {"newer version", "{\"version\":3,\"keys\":[]}", "newer stateway"},
    {"version 0", "{\"version\":0,\"keys\":[]}", "\"version\" must be 1"},
    {"version 2", RING2(KEY("1", "active", S1) "," OLD("2", "retired", "1770000000")), NULL},
    {"version 2, time not known", RING2(KEY("1", "active", S1) "," OLD("2", "retired", "0")), NULL},
    {"version 1 has no such time", RING(KEY("1", "active", S1) "," OLD("2", "retired", "5")),
     "unknown member \"retired\""},
    {"version 2, time missing", RING2(KEY("1", "active", S1) "," KEY("2", "retired", S2)),
     "key 2: a retired key has"},
    {"version 2, a seed with it", RING2(KEY("1", "active", S1) "," OLD("2", "seed", "5")),
     "key 2: a retired key has"},
    {"version 2, time with a fraction",
     RING2(KEY("1", "active", S1) "," OLD("2", "retired", "5.5")), "\"retired\" of key 2"},
    {"version as a string", "{\"version\":\"1\",\"keys\":[]}", "\"version\" must be 1"},
    {"no keys", "{\"version\":1}", "\"keys\" is missing"},
    {"keys as an object", "{\"version\":1,\"keys\":{}}", "no list"},
    {"empty", RING(""), "exactly one key"},
    {"none active", RING(KEY("1", "seed", S1)), "exactly one key"},
    {"two active", RING(KEY("1", "active", S1) "," KEY("2", "active", S2)), "exactly one key"},
    {"same id", RING(KEY("1", "active", S1) "," KEY("1", "seed", S2)), "two keys have the id 1"},
    {"id 0", RING(KEY("0", "active", S1)), "\"id\" of key 1"},
    {"id too large", RING(KEY("4294967296", "active", S1)), "\"id\" of key 1"},
    {"id with a fraction", RING(KEY("1.0", "active", S1)), "\"id\" of key 1"},
    {"negative id", RING(KEY("-1", "active", S1)), "\"id\" of key 1"},
    {"other state", RING(KEY("1", "Active", S1)), "\"state\" of key 1"},
    {"short secret", RING(KEY("1", "active", "AAAA")), "\"secret\" of key 1"},
    {"padded secret", RING(KEY("1", "active", S1 "=")), "\"secret\" of key 1"},
    {"loose bits", RING(KEY("1", "active", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9")),
     "\"secret\" of key 1"},
    {"member missing", RING("{\"id\":1,\"state\":\"active\",\"created\":1}"), "lacks one of"},
    {"member unknown", RING("{\"id\":1,\"note\":\"x\"}"), "unknown member \"note\""},
    {"top member unknown", "{\"version\":1,\"keys\":[],\"x\":1}", "unknown member \"x\""},
    {"duplicate member", "{\"version\":1,\"version\":1,\"keys\":[]}", "duplicate name"},
    {"entry is a number", RING("1"), "entry 1 of \"keys\""},
};

static void parse_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_keyring ring = {.count = 77};
        const char *why = NULL;
        enum sw_err err = sw_keyring_parse(sw_slice_cstr(rows[i].text), &ring, &why);

        if (rows[i].why == NULL) {
            if (err != SW_OK) {
                fail_msg("%s: %s", rows[i].name, why);
            }
            assert_int_equal(ring.keys[ring.active].state, SW_KEY_ACTIVE);
        } else {
            assert_int_not_equal(err, SW_OK);
            assert_int_equal(ring.count, 77); /* written on success only */
            if (strstr(why, rows[i].why) == NULL) {
                fail_msg("%s: %s", rows[i].name, why);
            }
        }
    }
}

static void parse_values(void **state)
{
    struct sw_keyring ring;
    const char *why;
    uint8_t mac[32];

    (void)state;
    assert_int_equal(sw_keyring_parse(sw_slice_cstr(rows[1].text), &ring, &why), SW_OK);
    assert_int_equal(ring.count, 3);
    assert_int_equal(ring.active, 1);
    assert_ptr_equal(sw_keyring_find(&ring, 7), &ring.keys[0]);
    assert_null(sw_keyring_find(&ring, 2));
    assert_int_equal(ring.keys[2].state, SW_KEY_SEED);
    assert_int_equal(ring.keys[2].created_unix_s, 1760000000);
    assert_int_equal(ring.keys[2].secret[31], 0x3f);
    sw_hkdf(ring.keys[2].secret, SW_S("stateway pin v1"), mac);
    assert_memory_equal(mac, ring.keys[2].pin.bytes, 32);
    assert_memory_not_equal(ring.keys[2].visitor.bytes, ring.keys[2].pin.bytes, 32);
    /* the same secret derives the same keys */
    assert_memory_equal(ring.keys[0].pin.bytes, ring.keys[1].pin.bytes, 32);
}

static void put_and_parse(void **state)
{
    struct sw_keyring ring, again;
    const char *why;
    char text[4096];

    (void)state;
    sw_keyring_make(1760000000, &ring);
    assert_int_equal(ring.count, 1);
    assert_int_equal(ring.keys[0].id, 1);
    for (uint32_t i = 1; i < SW_KEYS_MAX; i++) {
        struct sw_keyring other;

        sw_keyring_make(1760000000 + i, &other);
        ring.keys[i] = other.keys[0];
        ring.keys[i].id = UINT32_MAX - i;
        ring.keys[i].state = i % 2 == 0 ? SW_KEY_SEED : SW_KEY_RETIRED;
        ring.count++;
    }
    for (size_t cap = 0; cap < sizeof(text); cap++) {
        struct sw_out out = sw_out_init(text, cap);

        if (sw_keyring_put(&out, &ring)) {
            assert_int_equal(sw_keyring_parse(sw_out_done(&out), &again, &why), SW_OK);
            assert_memory_equal(&again, &ring, sizeof(ring));
            return;
        }
    }
    fail_msg("16 keys need more than 4096 bytes");
}

static char folder[] = "/tmp/sw-keyring-XXXXXX";

static void path_of(char *path, size_t cap, const char *name)
{
    (void)snprintf(path, cap, "%s/%s", folder, name);
}

static void spit(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void load_makes(void **state)
{
    struct sw_keyring first, second;
    const char *why = "";
    char path[128];
    struct stat st;
    mode_t mask = umask(0777); /* the worst one */

    (void)state;
    path_of(path, sizeof(path), "made");
    assert_int_equal(sw_keyring_load(path, 1760000000, &first, &why), SW_OK);
    umask(mask);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(sw_keyring_load(path, 1770000000, &second, &why), SW_OK);
    assert_memory_equal(&first, &second, sizeof(first));
    unlink(path);
}

static void load_refuses(void **state)
{
    struct sw_keyring ring;
    const char *why = NULL;
    char path[128], big[9000];

    (void)state;
    path_of(path, sizeof(path), "ring");
    spit(path, RING(KEY("1", "active", S1)), 0640);
    assert_int_equal(sw_keyring_load(path, 0, &ring, &why), SW_E_PERMISSION);
    assert_non_null(strstr(why, "chmod 600"));
    spit(path, RING(KEY("1", "active", S1)), 0604);
    assert_int_equal(sw_keyring_load(path, 0, &ring, &why), SW_E_PERMISSION);
    spit(path, "", 0600); /* an empty file is no reason to make a new ring */
    assert_int_equal(sw_keyring_load(path, 0, &ring, &why), SW_E_SYNTAX);
    assert_non_null(strstr(why, path));
    assert_non_null(strstr(why, "not JSON"));
    memset(big, ' ', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    spit(path, big, 0600);
    assert_int_equal(sw_keyring_load(path, 0, &ring, &why), SW_E_LIMIT);
    spit(path, RING(KEY("1", "active", S1)), 0600);
    assert_int_equal(sw_keyring_load(path, 0, &ring, &why), SW_OK);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(sw_keyring_load(path, 0, &ring, &why), SW_E_PERMISSION);
    rmdir(path);
    path_of(path, sizeof(path), "no/such/folder");
    assert_int_equal(sw_keyring_load(path, 0, &ring, &why), SW_E_SYSTEM);
    assert_non_null(strstr(why, "make the folder"));
}

/* Many processes start at once: all of them have the same ring in the end. */
static void load_race(void **state)
{
    char path[128];
    int fds[2];
    struct sw_keyring ring, theirs;
    const char *why;

    (void)state;
    path_of(path, sizeof(path), "race");
    for (int turn = 0; turn < 10; turn++) {
        assert_int_equal(pipe(fds), 0);
        for (int i = 0; i < 8; i++) {
            pid_t pid = fork();

            assert_true(pid >= 0);
            if (pid == 0) {
                bool ok = sw_keyring_load(path, 1760000000, &ring, &why) == SW_OK &&
                          write(fds[1], &ring, sizeof(ring)) == sizeof(ring);
                _exit(ok ? 0 : 1);
            }
        }
        assert_int_equal(read(fds[0], &ring, sizeof(ring)), sizeof(ring));
        for (int i = 1; i < 8; i++) {
            assert_int_equal(read(fds[0], &theirs, sizeof(theirs)), sizeof(theirs));
            assert_memory_equal(&ring, &theirs, sizeof(ring));
        }
        for (int i = 0; i < 8; i++) {
            int status;

            assert_true(wait(&status) > 0);
            assert_int_equal(status, 0);
        }
        close(fds[0]);
        close(fds[1]);
        unlink(path);
    }
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(folder); /* fails when a file written aside was left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_table),   cmocka_unit_test(parse_values),
        cmocka_unit_test(put_and_parse), cmocka_unit_test(load_makes),
        cmocka_unit_test(load_refuses),  cmocka_unit_test(load_race),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
