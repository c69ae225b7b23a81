/* The table of instances: arrows, entries that are held, pins, and workers reading while it
 * changes. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake.h"

static struct fake_config conf;

static struct sw_apps *apps_of(uint32_t replicas)
{
    struct sw_apps *a;

    fake_config_init(&conf);
    fake_spawned(&conf, "shop", replicas);
    a = sw_apps_new(&conf.config);
    assert_non_null(a);
    atomic_store(&a->tables[0].known, true);
    return a;
}

#define N SW_INSTANCE_NONE
#define S SW_INSTANCE_STARTING
#define H SW_INSTANCE_HEALTHY
#define U SW_INSTANCE_UNHEALTHY
#define D SW_INSTANCE_DRAINING
#define X SW_INSTANCE_STOPPING

/* Every pair; what is not drawn in instance.c stops the process. */
static void arrows(void **state)
{
    static const bool legal[SW_INSTANCE_STATE_COUNT][SW_INSTANCE_STATE_COUNT] = {
        [N] = {[S] = true},
        [S] = {[H] = true, [U] = true, [D] = true, [X] = true},
        [H] = {[U] = true, [D] = true, [X] = true},
        [U] = {[H] = true, [D] = true, [X] = true},
        [D] = {[H] = true, [U] = true, [X] = true},
        [X] = {[N] = true, [S] = true},
    };
    struct sw_apps *a = apps_of(1);
    struct sw_instance *i = sw_instance__claim(a, 0, 1, 7);

    (void)state;
    for (unsigned from = 0; from < SW_INSTANCE_STATE_COUNT; from++) {
        for (unsigned to = 0; to < SW_INSTANCE_STATE_COUNT; to++) {
            int status;
            pid_t pid;

            atomic_store(&i->state, from);
            if (legal[from][to]) {
                sw_instance__set(i, (enum sw_instance_state)to);
                assert_int_equal(sw_instance__state(i), to);
                continue;
            }
            pid = fork();
            if (pid == 0) {
                close(2);
                sw_instance__set(i, (enum sw_instance_state)to);
                _exit(0);
            }
            assert_int_equal(waitpid(pid, &status, 0), pid);
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
                fail_msg("%u -> %u was let through", from, to);
            }
        }
    }
    atomic_store(&i->state, N);
    sw_apps_free(a);
}

static void held_entry_is_not_used_again(void **state)
{
    struct sw_apps *a = apps_of(1);
    struct sw_instance *first = fake_instance(a, 0, 1, 7), *second, *third;
    bool gone;

    (void)state;
    assert_string_equal(first->name, "shop/1");
    assert_ptr_equal(sw_app_find(a, 0, 7, &gone), first); /* an exchange holds it */
    sw_instance__set(first, SW_INSTANCE_STOPPING);
    sw_instance__set(first, SW_INSTANCE_NONE);
    second = fake_instance(a, 0, 1, 8);
    assert_ptr_not_equal(first, second);
    assert_null(sw_app_find(a, 0, 7, &gone));
    assert_true(gone);
    sw_instance_ref(first);
    sw_instance_done(first, true);
    third = fake_instance(a, 0, 1, 9);
    assert_ptr_not_equal(first, third);
    sw_instance_unref(first); /* the last one */
    assert_ptr_equal(fake_instance(a, 0, 1, 10), first);
    assert_int_equal(first->answered, 0);
    sw_apps_free(a);
}

static void all_entries_held(void **state)
{
    struct sw_apps *a = apps_of(1);
    uint32_t made = 0;

    (void)state;
    for (;; made++) {
        struct sw_instance *i = sw_instance__claim(a, 0, 1, made + 1);

        if (i == NULL) {
            break;
        }
        sw_instance_ref(i);
    }
    assert_int_equal(made, 2 + APP_SPARE_ENTRIES);
    sw_apps_free(a);
}

static void find_by_state(void **state)
{
    static const struct {
        enum sw_instance_state s;
        bool found, gone;
    } rows[] = {
        {S, false, false}, {H, true, false}, {U, false, false},
        {D, true, false},  {X, false, true}, {N, false, true},
    };
    struct sw_apps *a = apps_of(3);
    struct sw_instance *i;
    bool gone;

    (void)state;
    fake_instance(a, 0, 1, 5);
    i = fake_instance(a, 0, 2, 6);
    for (size_t k = 0; k < SW_COUNTOF(rows); k++) {
        struct sw_instance *found;

        atomic_store(&i->state, rows[k].s);
        gone = !rows[k].gone;
        found = sw_app_find(a, 0, 6, &gone);
        assert_int_equal(found != NULL, rows[k].found);
        if (found != NULL) {
            assert_ptr_equal(found, i);
            assert_int_equal(i->in_flight, 1);
            sw_instance_done_quiet(found);
        } else {
            assert_int_equal(gone, rows[k].gone);
        }
        assert_int_equal(i->in_flight, 0);
        assert_int_equal(i->refs, 0);
    }
    /* a gateway that does not know yet what runs must not say that a visitor's state is lost */
    atomic_store(&a->tables[0].known, false);
    assert_null(sw_app_find(a, 0, 99, &gone));
    assert_false(gone);
    sw_apps_free(a);
}

static void any_and_ready(void **state)
{
    struct sw_apps *a = apps_of(2);
    struct sw_instance *i;
    bool starting;

    (void)state;
    assert_false(sw_app_any(a, 0, &starting));
    assert_false(starting);
    atomic_store(&a->tables[0].expected, 1u);
    assert_false(sw_app_any(a, 0, &starting));
    assert_true(starting);
    atomic_store(&a->tables[0].expected, 0u);
    i = sw_instance__claim(a, 0, 1, 5);
    sw_instance__set(i, SW_INSTANCE_STARTING);
    assert_false(sw_app_any(a, 0, &starting));
    assert_true(starting);
    assert_false(sw_apps_ready(a));
    sw_instance__set(i, SW_INSTANCE_HEALTHY);
    assert_true(sw_app_any(a, 0, &starting));
    assert_true(sw_apps_ready(a));
    sw_instance__set(i, SW_INSTANCE_DRAINING);
    assert_false(sw_app_any(a, 0, &starting));
    assert_false(starting);
    sw_apps_free(a);
}

static void passive_failures(void **state)
{
    struct sw_apps *a = apps_of(1);
    struct sw_instance *i = fake_instance(a, 0, 1, 5);
    struct sw_rng rng;

    (void)state;
    sw_rng_seed(&rng, 1);
    for (int k = 0; k < 3; k++) {
        assert_ptr_equal(sw_app_pick(a, &(struct sw_pick){.app = 0}, &rng), i);
        sw_instance_done(i, false);
    }
    assert_int_equal(i->failures, 3);
    assert_ptr_equal(sw_app_pick(a, &(struct sw_pick){.app = 0}, &rng), i);
    sw_instance_done_quiet(i);
    assert_int_equal(i->failures, 3);
    assert_ptr_equal(sw_app_pick(a, &(struct sw_pick){.app = 0}, &rng), i);
    sw_instance_done(i, true);
    assert_int_equal(i->failures, 0);
    assert_int_equal(i->failed_total, 3);
    assert_int_equal(i->answered, 1);
    sw_apps_free(a);
}

static void server_ids(void **state)
{
    uint64_t id = sw_apps__server_id(SW_S("api"), SW_S("10.0.0.5:8000"));

    (void)state;
    /* the value itself: pins in browsers name it */
    assert_true(id == sw_apps__server_id(SW_S("api"), SW_S("10.0.0.5:8000")));
    assert_true(id == 0x83615535559f06c5ull);
    assert_true(id != sw_apps__server_id(SW_S("api"), SW_S("10.0.0.5:8001")));
    assert_true(id != sw_apps__server_id(SW_S("apj"), SW_S("10.0.0.5:8000")));
}

/* Workers pick and find while the main thread lets incarnations come and go in few entries. What a
 * worker holds is what it says it is: name, slot and incarnation belong together. */
#define ROUNDS 20000
static struct sw_apps *race_apps;
static _Atomic bool race_over;
static _Atomic uint64_t race_last; /* an incarnation that lived a moment ago */

static void race_check(struct sw_instance *i, uint64_t incarnation)
{
    char name[72];

    (void)snprintf(name, sizeof name, "shop/%u", (unsigned)i->slot);
    if (strcmp(name, i->name) != 0 || (uint64_t)i->pid != i->incarnation ||
        (incarnation != 0 && incarnation != i->incarnation)) {
        abort();
    }
}

static void *race_worker(void *arg)
{
    struct sw_rng rng;

    sw_rng_seed(&rng, (uint64_t)(uintptr_t)arg);
    while (!atomic_load(&race_over)) {
        uint64_t incarnation = atomic_load(&race_last);
        struct sw_instance *i = sw_app_pick(race_apps, &(struct sw_pick){.app = 0}, &rng);
        bool gone;

        if (i != NULL) {
            race_check(i, 0);
            sw_ledger_seen(race_apps, i, sw_rng_below(&rng, 1000), 1000, 60);
            sw_instance_done(i, true);
        }
        i = sw_app_find(race_apps, 0, incarnation, &gone);
        if (i != NULL) {
            race_check(i, incarnation);
            sw_instance_done(i, true);
        }
    }
    return NULL;
}

static void race(void **state)
{
    struct sw_apps *a = apps_of(2);
    struct sw_instance *live[3] = {NULL};
    pthread_t threads[3];

    (void)state;
    race_apps = a;
    for (size_t k = 0; k < SW_COUNTOF(threads); k++) {
        assert_int_equal(pthread_create(&threads[k], NULL, race_worker, (void *)(k + 1)), 0);
    }
    for (uint32_t n = 1; n <= ROUNDS; n++) {
        struct sw_instance **at = &live[n % SW_COUNTOF(live)];

        if (*at != NULL) {
            sw_instance__set(*at, SW_INSTANCE_DRAINING);
            sw_instance__set(*at, SW_INSTANCE_STOPPING);
            sw_instance__set(*at, SW_INSTANCE_NONE);
        }
        *at = sw_instance__claim(a, 0, 1 + n % 2, n);
        if (*at != NULL) {
            (*at)->pid = (int32_t)n;
            sw_instance__set(*at, SW_INSTANCE_STARTING);
            sw_instance__set(*at, SW_INSTANCE_HEALTHY);
            atomic_store(&race_last, n);
        }
        if (n % 16 == 0) {
            sw_ledger__sweep(a, 1000, 256);
        }
    }
    atomic_store(&race_over, true);
    for (size_t k = 0; k < SW_COUNTOF(threads); k++) {
        assert_int_equal(pthread_join(threads[k], NULL), 0);
    }
    for (uint32_t k = 0; k < a->instance_count; k++) {
        assert_int_equal(a->instances[k].refs, 0);
        assert_int_equal(a->instances[k].in_flight, 0);
    }
    for (int k = 0; k < 16; k++) {
        sw_ledger__sweep(a, 2000, SW_LEDGER_MAX);
    }
    assert_int_equal(sw_ledger__used(a), 0);
    for (uint32_t k = 0; k < a->instance_count; k++) {
        if (sw_instance__state(&a->instances[k]) != SW_INSTANCE_NONE) {
            assert_int_equal(a->instances[k].sessions, 0);
        }
    }
    sw_apps_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrows),           cmocka_unit_test(held_entry_is_not_used_again),
        cmocka_unit_test(all_entries_held), cmocka_unit_test(find_by_state),
        cmocka_unit_test(any_and_ready),    cmocka_unit_test(passive_failures),
        cmocka_unit_test(server_ids),       cmocka_unit_test(race),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
