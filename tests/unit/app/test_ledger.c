/* Who is bound to whom: counts, moves, expiry, a full table, threads. */
#include <pthread.h>

#include "fake.h"

static struct fake_config conf;

static struct sw_apps *apps_of(uint32_t capacity)
{
    struct sw_apps *a;

    fake_config_init(&conf);
    fake_spawned(&conf, "shop", 4);
    a = sw_apps_new(&conf.config);
    assert_non_null(a);
    if (capacity > 0) {
        sw_ledger__free(a->ledger);
        a->ledger = sw_ledger__new(a, capacity);
        assert_non_null(a->ledger);
    }
    return a;
}

static void seen(struct sw_apps *a, struct sw_instance *i, uint64_t pin, int64_t now, int64_t idle)
{
    sw_instance_ref(i);
    sw_ledger_seen(a, i, pin, now, idle);
    sw_instance_unref(i);
}

static void sweep_all(struct sw_apps *a, int64_t now)
{
    for (uint32_t k = 0; k <= 64; k++) {
        sw_ledger__sweep(a, now, SW_LEDGER_MAX);
    }
}

static void counts(void **state)
{
    struct sw_apps *a = apps_of(0);
    struct sw_instance *x = fake_instance(a, 0, 1, 11), *y = fake_instance(a, 0, 2, 12);

    (void)state;
    for (uint64_t pin = 0; pin < 1000; pin++) {
        seen(a, x, pin, 1000, 60);
        seen(a, x, pin, 1010, 60);
    }
    assert_int_equal(x->sessions, 1000);
    assert_int_equal(sw_ledger__used(a), 1000);
    for (uint64_t pin = 0; pin < 300; pin++) { /* moved */
        seen(a, y, pin, 1020, 60);
    }
    assert_int_equal(x->sessions, 700);
    assert_int_equal(y->sessions, 300);
    sweep_all(a, 1069);
    assert_int_equal(sw_ledger__used(a), 1000);
    sweep_all(a, 1070);
    assert_int_equal(x->sessions, 0);
    assert_int_equal(y->sessions, 300);
    seen(a, y, 5, 1079, 60);
    sweep_all(a, 1080);
    assert_int_equal(y->sessions, 1);
    assert_int_equal(sw_ledger__used(a), 1);
    sw_apps_free(a);
}

static void small_steps(void **state)
{
    struct sw_apps *a = apps_of(0);
    struct sw_instance *x = fake_instance(a, 0, 1, 11);
    uint32_t steps = 0, before = 1000;

    (void)state;
    for (uint64_t pin = 0; pin < 1000; pin++) {
        seen(a, x, pin, 1000, 60);
    }
    while (x->sessions > 0) {
        sw_ledger__sweep(a, 2000, 16);
        assert_true(before - x->sessions <= 16);
        before = x->sessions;
        steps++;
    }
    assert_in_range(steps, 1000 / 16, 1000 / 16 * 2);
    sw_apps_free(a);
}

/* An incarnation ended: its entries go, and its successor in the entry inherits nothing. */
static void ended(void **state)
{
    struct sw_apps *a = apps_of(0);
    struct sw_instance *x = fake_instance(a, 0, 1, 11), *again;

    (void)state;
    for (uint64_t pin = 0; pin < 100; pin++) {
        seen(a, x, pin, 1000, 3600);
    }
    sw_instance__set(x, SW_INSTANCE_STOPPING);
    sw_instance__set(x, SW_INSTANCE_NONE);
    again = fake_instance(a, 0, 1, 21);
    assert_ptr_equal(x, again);
    assert_int_equal(again->sessions, 0);
    seen(a, again, 3, 1001, 3600); /* an old visitor, new on this one */
    seen(a, again, 1000, 1001, 3600);
    assert_int_equal(again->sessions, 2);
    sweep_all(a, 1002);
    assert_int_equal(again->sessions, 2);
    assert_int_equal(sw_ledger__used(a), 2);
    sw_apps_free(a);
}

static void saturates(void **state)
{
    struct sw_apps *a = apps_of(64 * 4);
    struct sw_instance *x = fake_instance(a, 0, 1, 11);

    (void)state;
    for (uint64_t pin = 0; pin < 10000; pin++) {
        seen(a, x, pin, 1000, 60);
    }
    assert_int_equal(sw_ledger__used(a), 64 * 4);
    assert_int_equal(x->sessions, 64 * 4);
    assert_int_equal(x->unlisted_until_unix_s, 1060); /* somebody is bound until then */
    sweep_all(a, 1060);
    assert_int_equal(x->sessions, 0);
    for (uint64_t pin = 0; pin < 100; pin++) {
        seen(a, x, pin, 2000, 60);
    }
    assert_int_not_equal(x->sessions, 0);
    sw_apps_free(a);
}

static struct sw_apps *crowd_apps;
static struct sw_instance *crowd[4];

static void *crowd_thread(void *arg)
{
    struct sw_rng rng;

    sw_rng_seed(&rng, (uint64_t)(uintptr_t)arg);
    for (int k = 0; k < 40000; k++) {
        seen(crowd_apps, crowd[sw_rng_below(&rng, 4)], sw_rng_below(&rng, 500), 1000 + k % 100, 50);
    }
    return NULL;
}

static void threads(void **state)
{
    pthread_t list[4];
    uint32_t sum = 0;

    (void)state;
    crowd_apps = apps_of(0);
    for (uint32_t k = 0; k < 4; k++) {
        crowd[k] = fake_instance(crowd_apps, 0, k + 1, 11 + k);
    }
    for (size_t k = 0; k < SW_COUNTOF(list); k++) {
        assert_int_equal(pthread_create(&list[k], NULL, crowd_thread, (void *)(k + 1)), 0);
    }
    for (int64_t k = 0; k < 2000; k++) {
        sw_ledger__sweep(crowd_apps, 1000 + k % 120, 100);
    }
    for (size_t k = 0; k < SW_COUNTOF(list); k++) {
        assert_int_equal(pthread_join(list[k], NULL), 0);
    }
    for (uint32_t k = 0; k < 4; k++) {
        sum += crowd[k]->sessions;
    }
    assert_int_equal(sum, sw_ledger__used(crowd_apps));
    sweep_all(crowd_apps, 5000);
    for (uint32_t k = 0; k < 4; k++) {
        assert_int_equal(crowd[k]->sessions, 0);
    }
    sw_apps_free(crowd_apps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),    cmocka_unit_test(small_steps), cmocka_unit_test(ended),
        cmocka_unit_test(saturates), cmocka_unit_test(threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
