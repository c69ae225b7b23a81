/* unit/placement/test_owner.c - entities with an owner (`owner: subject`), and subjects that were
 * cut off. */
#include "world.h"

#include <unistd.h>

/* What is bound in the same millisecond is cut off too: the next one begins. */
static void cut_off(struct world *w, const char *subject)
{
    write_raw(w,
              (struct sw_write){.kind = SW_WRITE_CUTOFF,
                                .subject = sw_slice_cstr(subject),
                                .not_before_unix_ms = sw_loop_now_unix_ms(w->loop)},
              sw_loop_now_unix_s(w->loop));
    usleep(2000);
}

static void owned_rooms(struct world *w)
{
    world_rooms(w);
    w->route.session.owner_subject = true;
}

/* A visitor's own session, made on a route of his. */
static void visitor_of(struct world *w, const char *subject, char id[64])
{
    struct sw_config_route rooms = w->route;
    char fields[128];

    w->route.session.key_source = SW_KEY_COOKIE;
    w->route.session.owner_subject = false;
    snprintf(fields, sizeof(fields), "Stateway-Set: {\"me\":1}\r\n%s%s%s",
             subject != NULL ? "Stateway-Subject: " : "", subject != NULL ? subject : "",
             subject != NULL ? "\r\n" : "");
    visitor_make(w, fields, id);
    w->route = rooms;
}

/* One more request on the visitor's own session. */
static void visitor_does(struct world *w, const char *id, const char *fields, char text[64])
{
    struct sw_config_route rooms = w->route;
    struct visit v;

    w->route.session.key_source = SW_KEY_COOKIE;
    w->route.session.owner_subject = false;
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, fields), SW_OK);
    (void)cookie_of(&v, text);
    w->route = rooms;
}

static void who_may(void **state)
{
    struct world *w = *state;
    struct visit v;
    char alice[64], phone[64], bob[64], nobody[64];
    struct kept *k;

    owned_rooms(w);
    visitor_of(w, "alice", alice);
    visitor_of(w, "alice", phone);
    visitor_of(w, "bob", bob);
    visitor_of(w, NULL, nobody);
    /* before it exists: whoever is somebody may make it */
    assert_int_equal(visit_try(w, &v, NULL), SW_E_NOT_OWNER);
    assert_int_equal(visit_try(w, &v, ID_A), SW_E_NOT_OWNER);
    assert_int_equal(visit_try(w, &v, "garbage"), SW_E_NOT_OWNER);
    assert_int_equal(visit_try(w, &v, nobody), SW_E_NOT_OWNER);
    visit_open(w, &v, alice);
    assert_int_equal(v.ask.verdict, SW_VERDICT_FRESH);
    assert_true(v.ask.visitor[0] != '\0');
    assert_true(sw_slice_eq(v.ask.key_text, SW_S("room:7")));
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    assert_true(v.ask.client_lines.len == 0); /* her cookie is none of this route's business */
    k = kept_get(w, &v.ask.key);
    assert_true(sw_slice_eq(k->record.subject, SW_S("alice")));
    free(k);
    /* it is hers, wherever she comes from */
    visit_open(w, &v, phone);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"m\":2}\r\n"), SW_OK);
    assert_int_equal(visit_try(w, &v, bob), SW_E_NOT_OWNER);
    assert_int_equal(visit_try(w, &v, nobody), SW_E_NOT_OWNER);
    assert_int_equal(visit_try(w, &v, NULL), SW_E_NOT_OWNER);
    state_is(w, alice, "{\"n\":1,\"m\":2}");
    /* gone, and another's */
    visit_open(w, &v, phone);
    assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_OK);
    assert_true(v.ask.client_lines.len == 0);
    visit_open(w, &v, bob);
    assert_int_equal(commit(&v, "Stateway-Set: {\"b\":1}\r\n"), SW_OK);
    assert_int_equal(visit_try(w, &v, alice), SW_E_NOT_OWNER);
}

/* His own session was renewed, or ended. */
static void by_renewed_ids(void **state)
{
    struct world *w = *state;
    struct visit v;
    char alice[64], renewed[64], text[64];

    owned_rooms(w);
    visitor_of(w, "alice", alice);
    visitor_does(w, alice, "Stateway-Renew: ?1\r\n", renewed);
    visit_open(w, &v, alice);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    state_is(w, renewed, "{\"n\":1}");
    visitor_does(w, renewed, "Stateway-Delete: ?1\r\n", text);
    assert_int_equal(visit_try(w, &v, renewed), SW_E_NOT_OWNER);
    assert_int_equal(visit_try(w, &v, alice), SW_E_NOT_OWNER);
}

/* An answer may name the owner, but not another. */
static void stays_his(void **state)
{
    static const struct row {
        const char *fields;
        enum sw_err err;
    } rows[] = {
        {"Stateway-Set: {\"n\":2}\r\nStateway-Subject: alice\r\n", SW_OK},
        {"Stateway-Set: {\"n\":3}\r\nStateway-Subject: bob\r\n", SW_E_UPDATE_SYNTAX},
        {"Stateway-Subject: bob\r\n", SW_E_UPDATE_SYNTAX},
        {"Stateway-Set: {\"n\":4}\r\nStateway-Subject: \r\n", SW_E_UPDATE_SYNTAX},
    };
    struct world *w = *state;
    char alice[64];

    owned_rooms(w);
    visitor_of(w, "alice", alice);
    for (int made = 0; made < 2; made++) {
        for (size_t i = SW_COUNTOF(rows); i-- > 0;) {
            struct visit v;
            struct kept *k;

            visit_open(w, &v, alice);
            assert_int_equal(commit(&v, rows[i].fields), rows[i].err);
            k = kept_get(w, &v.ask.key);
            assert_int_equal(k->err, made || i == 0 ? SW_OK : SW_E_NOT_FOUND);
            assert_true(k->err != SW_OK || sw_slice_eq(k->record.subject, SW_S("alice")));
            free(k);
        }
    }
}

/* Two make it at the same time: it is one's, and the other does not write into it. */
static void made_twice(void **state)
{
    static const enum sw_concurrency kinds[] = {SW_CONC_SERIAL, SW_CONC_MERGE, SW_CONC_LAST};
    struct world *w = *state;
    char alice[64], bob[64];

    owned_rooms(w);
    visitor_of(w, "alice", alice);
    visitor_of(w, "bob", bob);
    for (size_t i = 0; i < SW_COUNTOF(kinds); i++) {
        struct visit first, second, end;

        w->route.session.concurrency = kinds[i];
        visit_open(w, &first, alice);
        visit_open(w, &second, bob);
        assert_int_equal(commit(&first, "Stateway-Set: {\"a\":1}\r\n"), SW_OK);
        assert_int_equal(commit(&second, "Stateway-Patch: {\"b\":1}\r\n"),
                         kinds[i] == SW_CONC_SERIAL ? SW_E_CONFLICT : SW_E_NOT_OWNER);
        state_is(w, alice, "{\"a\":1}");
        visit_open(w, &end, alice);
        assert_int_equal(commit(&end, "Stateway-Delete: ?1\r\n"), SW_OK);
    }
}

/* Visitors' sessions are sealed, so their subjects have other names; the entity is theirs all the
 * same, also when that is switched on or off. */
static void of_hidden_subjects(void **state)
{
    struct world *w = *state;
    struct visit v;
    char plain[64], hidden[64], bob[64];

    owned_rooms(w);
    visitor_of(w, "alice", plain);
    w->route.session.encrypt = true;
    visitor_of(w, "alice", hidden);
    visitor_of(w, "bob", bob);
    w->route.session.encrypt = false;
    visit_open(w, &v, hidden);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    state_is(w, plain, "{\"n\":1}");
    assert_int_equal(visit_try(w, &v, bob), SW_E_NOT_OWNER);
    visit_open(w, &v, plain);
    assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_OK);
    visit_open(w, &v, plain);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    state_is(w, hidden, "{\"n\":2}");
    assert_int_equal(visit_try(w, &v, bob), SW_E_NOT_OWNER);
}

/* An alarm asks nobody who he is. */
static void delivered(void **state)
{
    struct world *w = *state;
    struct sw_alarm alarm = {.id = SW_S("turn"), .due_unix_ms = 5, .key_text = SW_S("room:7")};
    struct visit v, d;
    char alice[64];
    struct kept *k;

    owned_rooms(w);
    visitor_of(w, "alice", alice);
    visit_open(w, &v, alice);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    visit_deliver(w, &d, &v.ask.key, &alarm);
    assert_true(d.ask.state_present);
    assert_int_equal(commit(&d, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    visit_deliver(w, &d, &v.ask.key, &alarm);
    assert_int_equal(commit(&d, "Stateway-Set: {\"n\":3}\r\nStateway-Subject: bob\r\n"),
                     SW_E_UPDATE_SYNTAX);
    state_is(w, alice, "{\"n\":2}");
    k = kept_get(w, &v.ask.key);
    assert_true(sw_slice_eq(k->record.subject, SW_S("alice")));
    free(k);
}

/* ---- cut off --------------------------------------------------------------------------------- */

static void visitors_cut_off(void **state)
{
    struct world *w = *state;
    struct visit v, running;
    char one[64], two[64], other[64], fresh[64];

    visitor_make(w, "Stateway-Set: {\"n\":1}\r\nStateway-Subject: alice\r\n", one);
    visitor_make(w, "Stateway-Set: {\"n\":2}\r\nStateway-Subject: alice\r\n", two);
    visitor_make(w, "Stateway-Set: {\"n\":3}\r\nStateway-Subject: bob\r\n", other);
    visit_open(w, &running, one);
    cut_off(w, "alice");
    assert_int_equal(commit(&running, "Stateway-Set: {\"n\":9}\r\n"), SW_E_STATE_GONE);
    visit_open(w, &v, one);
    assert_false(v.ask.state_present);
    assert_int_equal(v.ask.verdict, SW_VERDICT_REVOKED);
    assert_int_equal(v.ask.app_verdict, SW_VERDICT_REVOKED);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":4}\r\nStateway-Subject: alice\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, fresh)); /* who logs in again is somebody new */
    assert_string_not_equal(fresh, one);
    state_is(w, one, NULL);
    state_is(w, two, NULL);
    state_is(w, other, "{\"n\":3}");
    state_is(w, fresh, "{\"n\":4}");
}

/* A renewal does not save a session from a cut-off of an earlier time. */
static void renewed_before_cut_off(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64], renewed[64];
    struct kept *before, *after;
    struct sw_store_key key;

    visitor_make(w, "Stateway-Set: {\"n\":1}\r\nStateway-Subject: alice\r\n", id);
    key = id_key(id);
    before = kept_get(w, &key);
    assert_true(before->record.bound_unix_ms > 0);
    usleep(3000);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, renewed));
    key = id_key(renewed);
    after = kept_get(w, &key);
    assert_true(after->record.bound_unix_ms == before->record.bound_unix_ms);
    free(before);
    free(after);
}

static void entities_cut_off(void **state)
{
    struct world *w = *state;
    struct visit v, running;

    world_rooms(w);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\nStateway-Subject: alice\r\n"), SW_OK);
    visit_open(w, &running, NULL);
    cut_off(w, "alice");
    assert_int_equal(commit(&running, "Stateway-Patch: {\"n\":9}\r\n"), SW_E_STATE_GONE);
    visit_open(w, &v, NULL);
    assert_int_equal(v.ask.verdict, SW_VERDICT_REVOKED);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK); /* made anew */
    assert_true(v.ask.version.counter >= 1);
    state_is(w, NULL, "{\"n\":2}");
}

static void owners_cut_off(void **state)
{
    struct world *w = *state;
    struct visit v;
    char alice[64], bob[64];

    owned_rooms(w);
    visitor_of(w, "alice", alice);
    visitor_of(w, "bob", bob);
    visit_open(w, &v, alice);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    cut_off(w, "alice");
    assert_int_equal(visit_try(w, &v, alice), SW_E_NOT_OWNER);
    visit_open(w, &v, bob); /* what was hers ended with her sessions */
    assert_int_equal(v.ask.verdict, SW_VERDICT_REVOKED);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    state_is(w, bob, "{\"n\":2}");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(who_may),          TEST(by_renewed_ids),         TEST(stays_his),
        TEST(made_twice),       TEST(of_hidden_subjects),     TEST(delivered),
        TEST(visitors_cut_off), TEST(renewed_before_cut_off), TEST(entities_cut_off),
        TEST(owners_cut_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
