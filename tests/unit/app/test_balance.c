/* Which instance, how often; and how many second tries. */
#include "fake.h"

static struct fake_config conf;
static struct sw_rng rng;

static struct sw_apps *servers_of(uint32_t count, enum sw_balance balance, const uint32_t *weights)
{
    struct sw_config_app *c;
    struct sw_apps *a;

    sw_rng_seed(&rng, 42);
    fake_config_init(&conf);
    c = fake_servers(&conf, "api", count, 8000);
    c->balance = balance;
    for (uint32_t k = 0; weights != NULL && k < count; k++) {
        conf.servers[0][k].weight = weights[k];
    }
    a = sw_apps_new(&conf.config);
    assert_non_null(a);
    for (uint32_t k = 0; k < count; k++) {
        fake_instance(a, 0, k + 1, 100 + k);
    }
    return a;
}

static uint32_t pick(struct sw_apps *a, struct sw_pick p, bool keep)
{
    struct sw_instance *i = sw_app_pick(a, &p, &rng);

    if (i == NULL) {
        return UINT32_MAX;
    }
    if (!keep) {
        sw_instance_done(i, true);
    }
    return i->slot - 1;
}

static void near(uint32_t count, uint32_t expected)
{
    assert_in_range(count, expected * 9 / 10, expected * 11 / 10);
}

static void least_is_even(void **state)
{
    struct sw_apps *a = servers_of(4, SW_BALANCE_LEAST, NULL);
    uint32_t counts[4] = {0};

    (void)state;
    for (int k = 0; k < 40000; k++) {
        counts[pick(a, (struct sw_pick){.app = 0}, false)]++;
    }
    for (int k = 0; k < 4; k++) {
        near(counts[k], 10000);
    }
    /* kept: the counters even it out far better than chance would */
    for (int k = 0; k < 400; k++) {
        (void)pick(a, (struct sw_pick){.app = 0}, true);
    }
    for (uint32_t k = 0; k < 4; k++) {
        assert_in_range(a->instances[k].in_flight, 96, 104);
    }
    sw_apps_free(a);
}

static void least_by_weight(void **state)
{
    static const uint32_t weights[3] = {1, 3, 0};
    struct sw_apps *a = servers_of(3, SW_BALANCE_LEAST, weights);
    uint32_t counts[3] = {0};

    (void)state;
    for (int k = 0; k < 40000; k++) {
        counts[pick(a, (struct sw_pick){.app = 0}, false)]++;
    }
    near(counts[0], 10000);
    near(counts[1], 30000);
    assert_int_equal(counts[2], 0);
    for (int k = 0; k < 400; k++) {
        (void)pick(a, (struct sw_pick){.app = 0}, true);
    }
    assert_in_range(a->instances[0].in_flight, 95, 105);
    sw_apps_free(a);
}

static void least_avoids_the_slow(void **state)
{
    struct sw_apps *a = servers_of(3, SW_BALANCE_LEAST, NULL);
    uint32_t counts[3] = {0};

    (void)state;
    a->instances[1].in_flight = 50;
    for (int k = 0; k < 30000; k++) {
        counts[pick(a, (struct sw_pick){.app = 0}, false)]++;
    }
    assert_int_equal(counts[1], 0); /* it loses against either other one */
    near(counts[0], 15000);
    a->instances[1].in_flight = 0;
    sw_apps_free(a);
}

static void round_robin(void **state)
{
    static const uint32_t weights[3] = {5, 1, 1};
    struct sw_apps *a = servers_of(3, SW_BALANCE_ROUND_ROBIN, NULL);
    uint32_t counts[3] = {0}, in_a_row = 0, longest = 0;

    (void)state;
    for (uint32_t k = 0; k < 9; k++) {
        assert_int_equal(pick(a, (struct sw_pick){.app = 0}, false), k % 3);
    }
    sw_apps_free(a);
    a = servers_of(3, SW_BALANCE_ROUND_ROBIN, weights);
    for (uint32_t k = 0; k < 70; k++) {
        uint32_t at = pick(a, (struct sw_pick){.app = 0}, false);

        counts[at]++;
        in_a_row = at == 0 ? in_a_row + 1 : 0;
        longest = SW_MAX(longest, in_a_row);
    }
    assert_int_equal(counts[0], 50);
    assert_int_equal(counts[1], 10);
    assert_int_equal(counts[2], 10);
    assert_in_range(longest, 1, 4);
    sw_apps_free(a);
}

static void hash(void **state)
{
    struct sw_apps *a = servers_of(4, SW_BALANCE_HASH, NULL);
    uint32_t home[1000], counts[4] = {0}, moved = 0;

    (void)state;
    for (uint32_t k = 0; k < 1000; k++) {
        home[k] = pick(a, (struct sw_pick){.app = 0, .hash = k}, false);
        counts[home[k]]++;
        assert_int_equal(pick(a, (struct sw_pick){.app = 0, .hash = k}, false), home[k]);
    }
    for (int k = 0; k < 4; k++) {
        assert_in_range(counts[k], 200, 300);
    }
    /* one leaves: only its keys move */
    sw_instance__set(&a->instances[2], SW_INSTANCE_UNHEALTHY);
    for (uint32_t k = 0; k < 1000; k++) {
        uint32_t at = pick(a, (struct sw_pick){.app = 0, .hash = k}, false);

        assert_true(at == home[k] || home[k] == 2);
        moved += at != home[k];
    }
    assert_int_equal(moved, counts[2]);
    sw_instance__set(&a->instances[2], SW_INSTANCE_HEALTHY);
    /* everybody wants the same key: no instance gets more than 1.25 of its share */
    for (uint32_t k = 0; k < 400; k++) {
        (void)pick(a, (struct sw_pick){.app = 0, .hash = 7}, true);
    }
    for (uint32_t k = 0; k < 4; k++) {
        assert_in_range(a->instances[k].in_flight, 0, 126);
    }
    assert_in_range(a->instances[home[7]].in_flight, 120, 126);
    sw_apps_free(a);
}

static void hash_by_weight(void **state)
{
    static const uint32_t weights[2] = {1, 3};
    struct sw_apps *a = servers_of(2, SW_BALANCE_HASH, weights);
    uint32_t counts[2] = {0};

    (void)state;
    for (uint32_t k = 0; k < 10000; k++) {
        counts[pick(a, (struct sw_pick){.app = 0, .hash = k}, false)]++;
    }
    near(counts[0], 2500);
    near(counts[1], 7500);
    sw_apps_free(a);
}

static void newcomers(void **state)
{
    struct sw_apps *a = servers_of(3, SW_BALANCE_HASH, NULL);
    struct sw_pick p = {.app = 0, .newcomer = true};
    uint32_t counts[3] = {0};

    (void)state;
    a->instances[0].sessions = 10;
    a->instances[1].sessions = 4;
    a->instances[2].sessions = 9;
    assert_int_equal(pick(a, p, false), 1);
    a->instances[0].sessions = 4;
    a->instances[1].in_flight = 2;
    a->instances[0].in_flight = 1;
    assert_int_equal(pick(a, p, false), 0);
    a->instances[0].in_flight = 2; /* equals take turns */
    for (int k = 0; k < 10000; k++) {
        counts[pick(a, p, false)]++;
    }
    near(counts[0], 5000);
    assert_int_equal(counts[2], 0);
    a->instances[0].in_flight = 0;
    a->instances[1].in_flight = 0;
    /* a crowd in one moment, before the ledger hears of anybody */
    for (int k = 0; k < 10; k++) {
        (void)pick(a, p, true);
    }
    assert_int_equal(a->instances[0].in_flight, 5);
    assert_int_equal(a->instances[1].in_flight, 5);
    sw_apps_free(a);
}

static void try_one(struct sw_pick *p, struct sw_instance *i)
{
    p->incarnations[p->tried_count] = atomic_load(&i->incarnation);
    p->tried[p->tried_count++] = i;
}

/* For every policy: never a tried one, never one that does not serve newcomers. What starts in the
 * place of a tried one is another one. */
static void never_these(void **state)
{
    (void)state;
    for (int mode = 0; mode < 4; mode++) {
        struct sw_apps *a =
            servers_of(4, mode < 3 ? (enum sw_balance)mode : SW_BALANCE_LEAST, NULL);
        struct sw_pick p = {.app = 0, .newcomer = mode == 3};

        sw_instance__set(&a->instances[0], SW_INSTANCE_DRAINING);
        try_one(&p, &a->instances[3]);
        for (uint32_t k = 0; k < 1000; k++) {
            uint32_t at;

            p.hash = k;
            at = pick(a, p, false);
            assert_true(at == 1 || at == 2);
        }
        sw_instance__set(&a->instances[1], SW_INSTANCE_STOPPING);
        try_one(&p, &a->instances[2]);
        assert_int_equal(pick(a, p, false), UINT32_MAX);
        p.incarnations[1]++; /* the one that was tried had another id */
        assert_int_equal(pick(a, p, false), 2);
        sw_apps_free(a);
    }
}

static void full_ones_last(void **state)
{
    (void)state;
    for (int mode = 0; mode < 4; mode++) {
        struct sw_apps *a =
            servers_of(3, mode < 3 ? (enum sw_balance)mode : SW_BALANCE_LEAST, NULL);
        struct sw_pick p = {.app = 0, .newcomer = mode == 3};

        conf.apps[0].connections_max = 5;
        a->instances[0].in_flight = 5;
        a->instances[1].in_flight = 5;
        a->instances[2].in_flight = 4;
        a->instances[2].sessions = 1000;
        for (uint32_t k = 0; k < 100; k++) {
            p.hash = k;
            assert_int_equal(pick(a, p, false), 2);
        }
        a->instances[2].in_flight = 5;
        assert_int_not_equal(pick(a, p, false), UINT32_MAX); /* all full: it waits somewhere */
        sw_apps_free(a);
    }
}

#define AT(ms) (100 * SW_NS_PER_S + (unsigned)(ms)*SW_NS_PER_MS)

static uint32_t spend_all(struct sw_apps *a, uint64_t now_ns)
{
    uint32_t n = 0;

    while (n < 100000 && sw_app_retry_spend(a, 0, now_ns)) {
        n++;
    }
    return n;
}

static void retry_budget(void **state)
{
    struct sw_apps *a = servers_of(1, SW_BALANCE_LEAST, NULL);

    (void)state;
    assert_int_equal(spend_all(a, AT(0)), RETRY_AT_LEAST); /* at least ten, with no traffic */
    assert_int_equal(spend_all(a, AT(9999)), 0);
    assert_int_equal(spend_all(a, AT(10000)), RETRY_AT_LEAST); /* the window has passed */
    for (int k = 0; k < 1000; k++) {
        sw_app_retry_earn(a, 0, AT(30000 + k));
    }
    assert_int_equal(spend_all(a, AT(31000)), 200); /* 20 % */
    assert_int_equal(spend_all(a, AT(39000)), 0);
    for (int k = 0; k < 100; k++) {
        sw_app_retry_earn(a, 0, AT(39000));
    }
    assert_int_equal(spend_all(a, AT(39500)), 20);
    assert_int_equal(spend_all(a, AT(100000)), RETRY_AT_LEAST);
    sw_apps_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(least_is_even),
        cmocka_unit_test(least_by_weight),
        cmocka_unit_test(least_avoids_the_slow),
        cmocka_unit_test(round_robin),
        cmocka_unit_test(hash),
        cmocka_unit_test(hash_by_weight),
        cmocka_unit_test(newcomers),
        cmocka_unit_test(never_these),
        cmocka_unit_test(full_ones_last),
        cmocka_unit_test(retry_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
