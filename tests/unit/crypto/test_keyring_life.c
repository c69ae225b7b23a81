/* crypto/keyring_life.c and the changes of crypto/keyring_file.c: seed, active, retired, gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "crypto/crypto.h"

#define T0   1760000000
#define DAY  86400
#define LIFE (30 * DAY)

/* Never two active keys, never none, no id twice; what is written is read again as it was. */
static void sound(const struct sw_keyring *ring)
{
    char text[8192];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_keyring again;
    const char *why = "";
    size_t active = 0;

    assert_in_range(ring->count, 1, SW_KEYS_MAX);
    for (size_t i = 0; i < ring->count; i++) {
        active += ring->keys[i].state == SW_KEY_ACTIVE ? 1 : 0;
        assert_ptr_equal(sw_keyring_find(ring, ring->keys[i].id), &ring->keys[i]);
        if (ring->keys[i].state != SW_KEY_RETIRED) {
            assert_int_equal(ring->keys[i].retired_unix_s, 0);
        }
    }
    assert_int_equal(active, 1);
    assert_int_equal(ring->keys[ring->active].state, SW_KEY_ACTIVE);
    assert_true(sw_keyring_put(&out, ring));
    if (sw_keyring_parse(sw_out_done(&out), &again, &why) != SW_OK) {
        fail_msg("%s in %.*s", why, SW_SARG(sw_out_done(&out)));
    }
    assert_true(sw_keyring_same(ring, &again));
}

static void a_life(void **state)
{
    struct sw_keyring ring;
    uint8_t first[32];
    uint32_t id;

    (void)state;
    sw_keyring_make(T0, &ring);
    memcpy(first, ring.keys[0].secret, 32);
    assert_int_equal(sw_keyring_add(&ring, T0 + 10, &id), SW_OK);
    assert_int_equal(id, 2);
    assert_int_equal(ring.keys[ring.active].id, 1); /* a seed makes nothing */
    assert_memory_not_equal(sw_keyring_find(&ring, 2)->secret, first, 32);
    sound(&ring);
    assert_int_equal(sw_keyring_promote(&ring, 1, T0), SW_E_CONFLICT);
    assert_int_equal(sw_keyring_promote(&ring, 3, T0), SW_E_NOT_FOUND);
    assert_int_equal(sw_keyring_promote(&ring, 2, T0 + 20), SW_OK);
    assert_int_equal(ring.keys[ring.active].id, 2);
    assert_int_equal(sw_keyring_find(&ring, 1)->state, SW_KEY_RETIRED);
    assert_int_equal(sw_keyring_find(&ring, 1)->retired_unix_s, T0 + 20);
    assert_memory_equal(sw_keyring_find(&ring, 1)->secret, first, 32); /* still opens */
    sound(&ring);
    /* taken back, and forth */
    assert_int_equal(sw_keyring_promote(&ring, 1, T0 + 30), SW_OK);
    sound(&ring);
    assert_int_equal(sw_keyring_find(&ring, 2)->retired_unix_s, T0 + 30);
    assert_int_equal(sw_keyring_promote(&ring, 2, T0 + 40), SW_OK);
    assert_int_equal(sw_keyring_remove(&ring, 2), SW_E_CONFLICT);
    assert_int_equal(sw_keyring_remove(&ring, 9), SW_E_NOT_FOUND);
    assert_int_equal(sw_keyring_remove(&ring, 1), SW_OK);
    assert_int_equal(ring.count, 1);
    assert_int_equal(ring.keys[ring.active].id, 2);
    assert_memory_equal(&ring.keys[1], &(struct sw_key){0}, sizeof(struct sw_key)); /* wiped */
    sound(&ring);
}

/* Any order of steps leaves a ring that can be read, up to the most keys there may be. */
static void any_order(void **state)
{
    struct sw_keyring ring;
    unsigned seed = 7;
    uint32_t id;

    (void)state;
    sw_keyring_make(T0, &ring);
    for (int64_t i = 0; i < 5000; i++) {
        uint32_t which;

        seed = seed * 1103515245u + 12345u;
        which = ring.keys[(seed >> 16) % ring.count].id;
        switch ((seed >> 8) % 4) {
        case 0:
        case 1:
            assert_int_equal(sw_keyring_add(&ring, T0 + i, &id),
                             ring.count == SW_KEYS_MAX ? SW_E_LIMIT : SW_OK);
            break;
        case 2:
            (void)!sw_keyring_promote(&ring, which, T0 + i);
            break;
        default:
            (void)!sw_keyring_remove(&ring, which);
            break;
        }
        sound(&ring);
    }
}

static void ids(void **state)
{
    struct sw_keyring ring;
    uint32_t id;

    (void)state;
    sw_keyring_make(T0, &ring);
    ring.keys[0].id = UINT32_MAX;
    assert_int_equal(sw_keyring_add(&ring, T0, &id), SW_OK);
    assert_int_equal(id, 1);
    assert_int_equal(sw_keyring_add(&ring, T0, &id), SW_OK);
    assert_int_equal(id, 2);
    sound(&ring);
}

/* An older stateway reads what no change was made to. */
static void versions(void **state)
{
    char text[4096];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_keyring ring;
    uint32_t id;

    (void)state;
    sw_keyring_make(T0, &ring);
    assert_int_equal(sw_keyring_add(&ring, T0, &id), SW_OK);
    assert_true(sw_keyring_put(&out, &ring));
    assert_true(sw_slice_starts(sw_out_done(&out), SW_S("{\"version\":1,")));
    assert_int_equal(sw_keyring_promote(&ring, 2, T0 + 1), SW_OK);
    out = sw_out_init(text, sizeof(text));
    assert_true(sw_keyring_put(&out, &ring));
    assert_true(sw_slice_starts(sw_out_done(&out), SW_S("{\"version\":2,")));
}

static void dates(void **state)
{
    struct sw_keys_rules rules = {.life_s = LIFE};
    struct sw_keyring ring;
    uint32_t id;

    (void)state;
    sw_keyring_make(T0, &ring);
    assert_int_equal(sw_keyring_add(&ring, T0, &id), SW_OK);
    assert_true(sw_keyring_dead_unix_s(&ring, &ring.keys[0], &rules) == INT64_MAX); /* it makes */
    assert_true(sw_keyring_dead_unix_s(&ring, &ring.keys[1], &rules) == 0);
    assert_int_equal(sw_keyring_promote(&ring, 2, T0 + DAY), SW_OK);
    assert_true(sw_keyring_dead_unix_s(&ring, &ring.keys[0], &rules) ==
                T0 + DAY + LIFE + SW_KEYS_MARGIN_S);
    rules.names = true; /* the oldest names subjects; the others do not */
    assert_true(sw_keyring_dead_unix_s(&ring, &ring.keys[0], &rules) == INT64_MAX);
    assert_int_equal(sw_keyring_add(&ring, T0 + DAY, &id), SW_OK);
    assert_int_equal(sw_keyring_promote(&ring, 3, T0 + 2 * DAY), SW_OK);
    assert_true(sw_keyring_dead_unix_s(&ring, &ring.keys[1], &rules) ==
                T0 + 2 * DAY + LIFE + SW_KEYS_MARGIN_S);
    rules.names = false;
    ring.keys[0].retired_unix_s = 0; /* a file of version 1 */
    assert_true(sw_keyring_dead_unix_s(&ring, &ring.keys[0], &rules) == INT64_MAX);
    ring.keys[0].retired_unix_s = INT64_MAX - 5;
    assert_true(sw_keyring_dead_unix_s(&ring, &ring.keys[0], &rules) == INT64_MAX);
}

/* Years of a rotation by age, with a look each minute: when steps come, and what a ring holds. */
static void by_age(void **state)
{
    struct sw_keys_rules rules = {.life_s = LIFE, .rotate_s = 10 * DAY};
    struct sw_keyring ring;
    size_t promoted = 0, most = 0;
    int64_t seeded = 0, last = T0;

    (void)state;
    sw_keyring_make(T0, &ring);
    for (int64_t now = T0; now < T0 + 1000 * DAY; now += 60) {
        struct sw_keys_due due = sw_keyring_due(&ring, &rules, now);
        const struct sw_key *key = sw_keyring_find(&ring, due.id);

        switch (due.step) {
        case SW_KEYS_KEEP:
            break;
        case SW_KEYS_ADD:
            assert_true(now - last >= rules.rotate_s);
            assert_int_equal(sw_keyring_add(&ring, now, &due.id), SW_OK);
            seeded = now;
            break;
        case SW_KEYS_PROMOTE:
            assert_true(now - seeded >= SW_KEYS_SEED_S); /* all have read it */
            assert_true(now - seeded <= SW_KEYS_SEED_S + 60);
            assert_int_equal(sw_keyring_promote(&ring, due.id, now), SW_OK);
            last = now;
            promoted++;
            break;
        case SW_KEYS_REMOVE:
            assert_non_null(key);
            assert_true(now - key->retired_unix_s >= LIFE);
            assert_int_equal(sw_keyring_remove(&ring, due.id), SW_OK);
            break;
        case SW_KEYS_FULL:
            fail_msg("the ring fills up");
        }
        most = SW_MAX(most, ring.count);
    }
    sound(&ring);
    assert_in_range(promoted, 98, 100);
    assert_in_range(most, 4, 6); /* 30 days of life are three and a bit of 10 days */
    rules.rotate_s = 0;
    assert_int_equal(sw_keyring_due(&ring, &rules, INT64_MAX / 2).step, SW_KEYS_KEEP);
}

/* With subjects named by the oldest key that one stays, and nothing else does. */
static void by_age_named(void **state)
{
    struct sw_keys_rules rules = {.life_s = LIFE, .rotate_s = 10 * DAY, .names = true};
    struct sw_keyring ring;

    (void)state;
    sw_keyring_make(T0, &ring);
    for (int64_t now = T0; now < T0 + 1000 * DAY; now += 60) {
        struct sw_keys_due due = sw_keyring_due(&ring, &rules, now);
        enum sw_err err = due.step == SW_KEYS_ADD       ? sw_keyring_add(&ring, now, &due.id)
                          : due.step == SW_KEYS_PROMOTE ? sw_keyring_promote(&ring, due.id, now)
                          : due.step == SW_KEYS_REMOVE  ? sw_keyring_remove(&ring, due.id)
                                                        : SW_OK;

        assert_int_equal(err, SW_OK);
        assert_true(due.step != SW_KEYS_FULL);
        assert_int_equal(sw_keyring_oldest(&ring)->id, 1);
    }
}

/* Too short for what lives so long: it says so and makes nothing worse. */
static void by_age_full(void **state)
{
    struct sw_keys_rules rules = {.life_s = 400 * DAY, .rotate_s = DAY};
    struct sw_keyring ring;
    struct sw_keys_due due;
    int64_t now = T0;

    (void)state;
    sw_keyring_make(T0, &ring);
    for (;; now += 3600) {
        due = sw_keyring_due(&ring, &rules, now);
        if (due.step == SW_KEYS_FULL) {
            break;
        }
        assert_true(due.step != SW_KEYS_REMOVE);
        if (due.step == SW_KEYS_ADD) {
            assert_int_equal(sw_keyring_add(&ring, now, &due.id), SW_OK);
        } else if (due.step == SW_KEYS_PROMOTE) {
            assert_int_equal(sw_keyring_promote(&ring, due.id, now), SW_OK);
        }
        assert_true(now < T0 + 100 * DAY);
    }
    assert_int_equal(ring.count, SW_KEYS_MAX);
    assert_int_equal(sw_keyring_due(&ring, &rules, T0 + 402 * DAY).step, SW_KEYS_REMOVE);
}

static void bridges(void **state)
{
    struct sw_keyring from, to, bridge, other;
    uint32_t id;

    (void)state;
    sw_keyring_make(T0, &from);
    to = from;
    assert_int_equal(sw_keyring_add(&to, T0, &id), SW_OK);
    assert_false(sw_keyring_bridge(&from, &to, &bridge)); /* a seed changes nobody's cookies */
    assert_int_equal(sw_keyring_promote(&to, 2, T0 + 1), SW_OK);
    assert_true(sw_keyring_bridge(&from, &to, &bridge));
    sound(&bridge);
    assert_int_equal(bridge.keys[bridge.active].id, 1);
    assert_non_null(sw_keyring_find(&bridge, 2));
    assert_false(sw_keyring_bridge(&bridge, &bridge, &other));
    assert_true(sw_keyring_bridge(&bridge, &to, &other));
    sw_keyring_make(T0, &other); /* the same id, another secret: somebody made a new file */
    assert_int_equal(sw_keyring_add(&other, T0, &id), SW_OK);
    assert_int_equal(sw_keyring_promote(&other, 2, T0), SW_OK);
    assert_false(sw_keyring_bridge(&from, &other, &bridge));
    assert_int_equal(sw_keyring_remove(&to, 1), SW_OK);
    assert_false(sw_keyring_bridge(&from, &to, &bridge));
}

static void uses(void **state)
{
    static struct sw_key_uses counted;
    struct sw_keyring ring;
    uint32_t id;

    (void)state;
    sw_keyring_make(T0, &ring);
    sw_keyring_used(&ring, 1, SW_KEY_MADE, T0); /* counts nowhere */
    ring.uses = &counted;
    sw_key_uses_follow(&counted, &ring);
    sw_keyring_used(&ring, 1, SW_KEY_MADE, T0);
    sw_keyring_used(&ring, 1, SW_KEY_OPENED, T0 + 5);
    sw_keyring_used(&ring, 1, SW_KEY_OPENED, T0 + 6);
    sw_keyring_used(&ring, 2, SW_KEY_MADE, T0);
    sw_keyring_used(&ring, 0, SW_KEY_MADE, T0);
    assert_int_equal(sw_key_uses_read(&counted, 1).made, 1);
    assert_int_equal(sw_key_uses_read(&counted, 1).opened, 2);
    assert_int_equal(sw_key_uses_read(&counted, 1).last_unix_s, T0 + 6);
    assert_int_equal(sw_key_uses_read(&counted, 2).made, 0);
    /* through as many rings as it takes to use every place anew */
    for (int i = 0; i < 3 * SW_KEYS_MAX; i++) {
        assert_int_equal(sw_keyring_add(&ring, T0, &id), SW_OK);
        assert_int_equal(sw_keyring_promote(&ring, id, T0), SW_OK);
        if (ring.count > 3) {
            assert_int_equal(sw_keyring_remove(&ring, ring.keys[1].id), SW_OK);
        }
        sw_key_uses_follow(&counted, &ring);
        assert_int_equal(sw_key_uses_read(&counted, id).made, 0);
        sw_keyring_used(&ring, id, SW_KEY_MADE, T0);
        assert_int_equal(sw_key_uses_read(&counted, id).made, 1);
        assert_int_equal(sw_key_uses_read(&counted, 1).opened, 2); /* of those that stay: kept */
    }
}

/* ---- the file -------------------------------------------------------------------------------- */

static char folder[] = "/tmp/sw-keylife-XXXXXX";
static char path[64];

static enum sw_err add_one(void *arg, struct sw_keyring *ring, bool *ret_changed,
                           const char **ret_why)
{
    enum sw_err err = sw_keyring_add(ring, T0, arg);

    *ret_why = "full";
    *ret_changed = err == SW_OK;
    return err;
}

static enum sw_err look_only(void *arg, struct sw_keyring *ring, bool *ret_changed,
                             const char **ret_why)
{
    (void)arg;
    (void)ret_changed;
    (void)ret_why;
    ring->keys[0].state = SW_KEY_SEED; /* and it is dropped */
    return SW_OK;
}

static enum sw_err refuses(void *arg, struct sw_keyring *ring, bool *ret_changed,
                           const char **ret_why)
{
    (void)arg;
    (void)ring;
    *ret_changed = true;
    *ret_why = "because";
    return SW_E_CONFLICT;
}

static void fresh(struct sw_keyring *ring)
{
    const char *why;

    (void)unlink(path);
    assert_int_equal(sw_keyring_load(path, T0, ring, &why), SW_OK);
}

static void change_writes(void **state)
{
    struct sw_keyring ring, again;
    struct stat before, after;
    const char *why = "";
    char link_path[80];
    uint32_t id;

    (void)state;
    fresh(&ring);
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(sw_keyring_change(path, 0, T0, look_only, NULL, &again, &why), SW_OK);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(sw_keyring_change(path, 0, T0, refuses, NULL, &again, &why), SW_E_CONFLICT);
    assert_string_equal(why, "because");
    assert_int_equal(sw_keyring_change(path, 0, T0, add_one, &id, &ring, &why), SW_OK);
    assert_int_equal(stat(path, &after), 0);
    assert_int_not_equal(before.st_ino, after.st_ino);
    assert_int_equal(after.st_mode & 07777, 0400); /* as its owner wanted it */
    assert_int_equal(sw_keyring_read(path, &again, &why), SW_OK);
    assert_true(sw_keyring_same(&ring, &again));
    /* through a symbolic link: the file changes, the link stays */
    (void)snprintf(link_path, sizeof(link_path), "%s/link", folder);
    assert_int_equal(symlink("ring", link_path), 0);
    assert_int_equal(sw_keyring_change(link_path, 0, T0, add_one, &id, &ring, &why), SW_OK);
    assert_int_equal(lstat(link_path, &after), 0);
    assert_true(S_ISLNK(after.st_mode));
    assert_int_equal(sw_keyring_read(path, &again, &why), SW_OK);
    assert_int_equal(again.count, 3);
    unlink(link_path);
}

static void change_refuses(void **state)
{
    struct sw_keyring ring;
    const char *why = "";
    char lock[80];
    uint32_t id;
    int fd;

    (void)state;
    fresh(&ring);
    (void)snprintf(lock, sizeof(lock), "%s.lock", path);
    fd = open(lock, O_RDWR | O_CREAT, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(sw_keyring_change(path, 60, T0, add_one, &id, &ring, &why), SW_E_CONFLICT);
    assert_non_null(strstr(why, "somebody else"));
    close(fd);
    assert_int_equal(sw_keyring_change(path, 0, T0, add_one, &id, &ring, &why), SW_OK);
    unlink(path);
    assert_int_equal(sw_keyring_change(path, 0, T0, add_one, &id, &ring, &why), SW_E_NOT_FOUND);
    assert_int_equal(access(path, F_OK), -1); /* a change makes no ring */
    fresh(&ring);
    setenv("CREDENTIALS_DIRECTORY", folder, 1);
    assert_int_equal(sw_keyring_change(path, 0, T0, add_one, &id, &ring, &why), SW_E_PERMISSION);
    assert_non_null(strstr(why, "where it comes from"));
    if (geteuid() == 0) { /* what systemd's ACL looks like */
        assert_int_equal(chmod(path, 0440), 0);
        assert_int_equal(sw_keyring_read(path, &ring, &why), SW_OK);
        assert_int_equal(chmod(path, 0444), 0);
        assert_int_equal(sw_keyring_read(path, &ring, &why), SW_E_PERMISSION);
        assert_int_equal(chmod(path, 0440), 0);
    }
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_int_equal(chmod(path, 0440), 0);
    assert_int_equal(sw_keyring_read(path, &ring, &why), SW_E_PERMISSION);
}

/* Of changes at the same time none is lost, and no reader meets half a file. */
static void change_race(void **state)
{
    enum { PROCESSES = 5, EACH = 3 };
    struct sw_keyring ring;
    const char *why = "";
    pid_t pids[PROCESSES];
    uint32_t id;

    (void)state;
    fresh(&ring);
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            for (int n = 0; n < EACH; n++) {
                if (sw_keyring_change(path, 20000, T0, add_one, &id, &ring, &why) != SW_OK) {
                    fprintf(stderr, "%s\n", why);
                    _exit(1);
                }
            }
            _exit(0);
        }
    }
    for (int left = PROCESSES; left > 0;) {
        int status;

        assert_int_equal(sw_keyring_read(path, &ring, &why), SW_OK);
        if (waitpid(-1, &status, WNOHANG) > 0) {
            assert_int_equal(status, 0);
            left--;
        }
    }
    assert_int_equal(sw_keyring_read(path, &ring, &why), SW_OK);
    assert_int_equal(ring.count, 1 + PROCESSES * EACH);
    sound(&ring);
    assert_int_equal(ring.count, SW_KEYS_MAX);
    assert_int_equal(sw_keyring_change(path, 0, T0, add_one, &id, &ring, &why), SW_E_LIMIT);
}

static void environment(void **state)
{
    char text[1024];
    struct sw_out out = sw_out_init(text, sizeof(text) - 1);
    struct sw_keyring ring, again;
    const char *why = "";

    (void)state;
    unsetenv(SW_KEYS_ENV);
    assert_int_equal(sw_keyring_from_env(&again, &why), SW_E_NOT_FOUND);
    sw_keyring_make(T0, &ring);
    assert_true(sw_keyring_put(&out, &ring));
    text[out.len] = '\0';
    setenv(SW_KEYS_ENV, text, 1);
    assert_int_equal(sw_keyring_from_env(&again, &why), SW_OK);
    assert_true(sw_keyring_same(&ring, &again));
    setenv(SW_KEYS_ENV, "", 1);
    assert_int_equal(sw_keyring_from_env(&again, &why), SW_E_SYNTAX);
    assert_non_null(strstr(why, SW_KEYS_ENV));
    unsetenv(SW_KEYS_ENV);
}

static int setup(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    (void)snprintf(path, sizeof(path), "%s/ring", folder);
    return 0;
}

static int teardown(void **state)
{
    char lock[80];

    (void)state;
    (void)snprintf(lock, sizeof(lock), "%s.lock", path);
    (void)unlink(path);
    (void)unlink(lock);
    return rmdir(folder); /* fails when a file written aside was left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_life),        cmocka_unit_test(any_order),
        cmocka_unit_test(ids),           cmocka_unit_test(versions),
        cmocka_unit_test(dates),         cmocka_unit_test(by_age),
        cmocka_unit_test(by_age_named),  cmocka_unit_test(by_age_full),
        cmocka_unit_test(bridges),       cmocka_unit_test(uses),
        cmocka_unit_test(change_writes), cmocka_unit_test(change_refuses),
        cmocka_unit_test(change_race),   cmocka_unit_test(environment),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
