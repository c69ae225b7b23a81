/* unit/placement/test_waits.c - a store whose loads take a turn of the loop: every question waits,
 * wakes, and goes on where it was. (What the answers are: the other tests.) */
#include "world.h"

#include "store/store_priv.h"

/* Passes on to the memory store; loads are answered in a later turn. */
struct slow {
    struct sw_store base;
    struct sw_store *behind;
    uint32_t loads;
};

static void on_turn(struct sw_post *post, void *arg)
{
    struct sw_store_load *op = arg;
    struct slow *s;
    struct sw_store *self;

    memcpy(&self, (char *)op->store_private + sizeof(*post), sizeof(self));
    s = (struct slow *)self;
    assert_int_equal(sw_store_load(s->behind, op), SW_STEP_DONE);
    op->done(op);
}

static enum sw_step slow_load(struct sw_store *self, struct sw_store_load *op)
{
    struct sw_post *post = (struct sw_post *)(void *)op->store_private;

    ((struct slow *)self)->loads++;
    *post = (struct sw_post){NULL, on_turn, op};
    memcpy((char *)op->store_private + sizeof(*post), &self, sizeof(self));
    sw_loop_post(op->loop, post);
    return SW_STEP_MORE;
}

static void slow_commit(struct sw_store *self, struct sw_store_commit *op)
{
    sw_store_commit(((struct slow *)self)->behind, op);
}

static const struct store_ops slow_ops = {.name = "slow", .load = slow_load, .commit = slow_commit};

static struct slow slow;

static int waits_up(void **state)
{
    int rc = world_up(state);
    struct world *w = *state;

    memset(&slow, 0, sizeof(slow));
    sw_store__init(&slow.base, &slow_ops);
    slow.behind = w->store;
    w->route.session.alarm = SW_S("/alarm");
    w->route.session.concurrency = SW_CONC_MERGE;
    return rc;
}
#define WAITS_TEST(f) cmocka_unit_test_setup_teardown(f, waits_up, world_down)

/* From here on a request meets the slow store; visits made before keep meeting it too. */
static void be_slow(struct world *w, bool on)
{
    w->env.store = on ? &slow.base : w->store;
}

static void a_state(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64];

    visitor_make(w, "Stateway-Set: {\"n\":1}\r\n", id);
    be_slow(w, true);
    visit_open(w, &v, id);
    assert_int_equal(slow.loads, 1);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"m\":1}\r\n"), SW_OK);
    assert_int_equal(slow.loads, 1);
    visit_open(w, &v, ID_A);
    assert_int_equal(v.ask.verdict, SW_VERDICT_EXPIRED);
    visit_close(&v);
    be_slow(w, false);
    state_is(w, id, "{\"n\":1,\"m\":1}");
}

/* By an alias, sealed, and large: its head, its new place, and its value at the commit. */
static void a_large_one_far_away(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64], renewed[64];

    w->route.session.encrypt = true;
    visitor_make(w, set_of(MAX_BYTES), id);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, renewed));
    be_slow(w, true);
    visit_open(w, &v, id);
    assert_int_equal(slow.loads, 2);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"much\":null,\"n\":1}\r\n"), SW_OK);
    assert_int_equal(slow.loads, 3);
    be_slow(w, false);
    state_is(w, renewed, "{\"n\":1}");
}

/* Others write while it waits: read again, and grown larger than was guessed. */
static void crossing(void **state)
{
    struct world *w = *state;
    struct visit v, other;
    char id[64];

    visitor_make(w, set_of(2000), id);
    be_slow(w, true);
    visit_open(w, &v, id);
    be_slow(w, false);
    visit_open(w, &other, id);
    assert_int_equal(commit(&other, set_of(6000)), SW_OK);
    w->large.bytes_max = 22000; /* of one reading, and what is made of it */
    be_slow(w, true);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"much\":null,\"n\":1}\r\n"), SW_OK);
    be_slow(w, false);
    state_is(w, id, "{\"n\":1}");
    visit_open(w, &v, id);
    visit_open(w, &other, id);
    assert_int_equal(commit(&other, "Stateway-Delete: ?1\r\n"), SW_OK);
    be_slow(w, true);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"n\":2}\r\n"), SW_E_STATE_GONE);
    be_slow(w, false);
    state_is(w, id, NULL);
}

static void an_owner(void **state)
{
    struct world *w = *state;
    struct visit v;
    char alice[64], bob[64];

    visitor_make(w, "Stateway-Set: {}\r\nStateway-Subject: alice\r\n", alice);
    visitor_make(w, "Stateway-Set: {}\r\nStateway-Subject: bob\r\n", bob);
    world_rooms(w);
    w->route.session.owner_subject = true;
    be_slow(w, true);
    visit_open(w, &v, alice);
    assert_int_equal(slow.loads, 2);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    assert_int_equal(visit_try(w, &v, bob), SW_E_NOT_OWNER);
    assert_int_equal(visit_try(w, &v, ID_A), SW_E_NOT_OWNER);
}

static void an_alarm(void **state)
{
    struct world *w = *state;
    struct sw_alarm alarm = {.id = SW_S("a"), .due_unix_ms = 5000, .key_text = SW_S("room:7")};
    struct sw_store_key key;
    struct kept *k;
    struct visit v;
    enum sw_step step;

    world_rooms(w);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\nStateway-Alarm: at=5000;id=a\r\n"),
                     SW_OK);
    key = v.ask.key;
    be_slow(w, true);
    visit_deliver(w, &v, &key, &alarm);
    assert_int_equal(commit_status(&v, 500, ""), SW_OK);
    while ((step = sw_session_alarm_failed(&v.ask)) == SW_STEP_MORE) {
        sw_loop_run(w->loop);
    }
    assert_int_equal(step, SW_STEP_DONE);
    visit_close(&v);
    be_slow(w, false);
    k = kept_get(w, &key);
    assert_true(k->record.due_unix_ms > 5000);
    alarm.due_unix_ms = k->record.due_unix_ms;
    free(k);
    be_slow(w, true);
    visit_deliver(w, &v, &key, &alarm);
    assert_int_equal(commit(&v, ""), SW_OK);
    be_slow(w, false);
    k = kept_get(w, &key);
    assert_true(k->record.due_unix_ms == 0);
    free(k);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        WAITS_TEST(a_state),  WAITS_TEST(a_large_one_far_away),
        WAITS_TEST(crossing), WAITS_TEST(an_owner),
        WAITS_TEST(an_alarm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
