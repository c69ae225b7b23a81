/* unit/placement/test_sealed.c - `encrypt: on`: what the store alone reveals, who can open what,
 * and what becomes of records that cannot be opened. */
#include "world.h"

#define SECRET "{\"card\":\"4111111111111111\"}"

static int sealed_up(void **state)
{
    int rc = world_up(state);

    ((struct world *)*state)->route.session.encrypt = true;
    return rc;
}
#define SEALED_TEST(f) cmocka_unit_test_setup_teardown(f, sealed_up, world_down)

static bool contains(struct sw_slice in, const char *what)
{
    return sw_slice_find_slice(in, sw_slice_cstr(what)) < in.len;
}

static struct kept *kept_of(struct world *w, const char *id)
{
    struct sw_store_key key = id_key(id);

    return kept_get(w, &key);
}

/* The record's value with something done to it, in its place. */
static void put_back(struct world *w, const char *id, const struct kept *k, struct sw_slice value,
                     bool sealed)
{
    int64_t now = sw_loop_now_unix_s(w->loop);

    write_raw(w,
              (struct sw_write){.kind = SW_WRITE_PUT,
                                .key = id_key(id),
                                .record = SW_RECORD_STATE,
                                .expect = SW_EXPECT_ANY,
                                .value = value,
                                .sealed = sealed,
                                .subject = k->record.subject,
                                .expires_unix_s = now + IDLE_S,
                                .absolute_unix_s = now + 10 * IDLE_S},
              now);
}

/* As if it were not there: no state, another id at the next write, and never a refusal. */
static void is_lost(struct world *w, const char *id)
{
    struct visit v;
    char fresh[64];

    visit_open(w, &v, id);
    assert_false(v.ask.state_present);
    assert_int_equal(v.ask.verdict, SW_VERDICT_EXPIRED);
    assert_int_equal(v.ask.app_verdict, SW_VERDICT_EXPIRED);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"n\":1}\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, fresh));
    assert_string_not_equal(fresh, id);
    state_is(w, fresh, "{\"n\":1}");
}

/* ---- at rest --------------------------------------------------------------------------------- */

static void reveals_nothing(void **state)
{
    static const size_t sizes[] = {0, INLINE - 1, INLINE, INLINE + 1, MAX_BYTES};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(sizes); i++) {
        struct visit v;
        struct kept *k;
        char id[64], fields[2 * MAX_BYTES], want[MAX_BYTES + 64];
        size_t len;

        snprintf(fields, sizeof(fields), "%sStateway-Subject: alice\r\n",
                 sizes[i] == 0 ? "Stateway-Set: " SECRET "\r\n" : set_of(sizes[i]));
        snprintf(want, sizeof(want), "%s", sizes[i] == 0 ? SECRET : state_of(sizes[i]));
        visitor_make(w, fields, id);
        k = kept_of(w, id);
        assert_true(k->record.sealed);
        assert_int_equal(k->record.value.len, strlen(want) + SW_SEAL_BYTES);
        assert_false(contains(k->record.value, "4111"));
        assert_false(contains(k->record.value, "0000000000000000"));
        assert_int_equal(k->record.subject.len, SW_SUBJECT_NAME_BYTES);
        assert_true(k->record.subject.ptr[0] == '~');
        assert_false(contains(k->record.subject, "alice"));
        free(k);
        visit_open(w, &v, id);
        assert_int_equal(v.ask.state.len, strlen(want)); /* the length that the app is told */
        assert_int_equal(v.ask.state.ptr != NULL, strlen(want) <= INLINE);
        visit_close(&v);
        state_is(w, id, want);
        visit_open(w, &v, id);
        if (strlen(want) + 6 > MAX_BYTES) {
            assert_int_equal(commit(&v, "Stateway-Patch: {\"x\":1}\r\n"), SW_E_UPDATE_LARGE);
            continue;
        }
        assert_int_equal(commit(&v, "Stateway-Patch: {\"x\":1}\r\n"), SW_OK);
        len = strlen(want);
        snprintf(want + len - 1, 16, ",\"x\":1}");
        state_is(w, id, want);
    }
}

/* The same text twice, even in one session: other bytes. */
static void never_the_same(void **state)
{
    struct world *w = *state;
    struct visit v;
    struct kept *first, *second;
    char id[64];

    visitor_make(w, "Stateway-Set: " SECRET "\r\n", id);
    first = kept_of(w, id);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Set: " SECRET "\r\n"), SW_OK);
    second = kept_of(w, id);
    assert_int_equal(first->record.value.len, second->record.value.len);
    assert_memory_not_equal(first->record.value.ptr, second->record.value.ptr,
                            first->record.value.len);
    free(first);
    free(second);
}

static void staged(void **state)
{
    struct sw_stage_ask put = {.method = SW_STAGE_PUT}, get = {.method = SW_STAGE_GET};
    struct sw_stage_answer a;
    struct world *w = *state;
    struct kept *k;
    struct visit v;
    char id[64];

    visitor_make(w, set_of(MAX_BYTES), id);
    visit_open(w, &v, id);
    put.body = SW_S("{\"staged\":\"4111\"}");
    sw_stage(&v.ask, &put, &a);
    assert_int_equal(a.err, SW_OK);
    sw_stage(&v.ask, &get, &a);
    assert_true(sw_slice_eq(a.body, put.body));
    assert_int_equal(commit(&v, ""), SW_OK);
    state_is(w, id, "{\"staged\":\"4111\"}");
    k = kept_of(w, id);
    assert_true(k->record.sealed);
    assert_false(contains(k->record.value, "4111"));
    free(k);
}

/* What is sealed for one try is not what the next one seals. */
static void staged_in_a_crowd(void **state)
{
    struct fate fate = {.fault = {.err = SW_E_CONFLICT}, .times = 3};
    struct sw_stage_ask put = {.method = SW_STAGE_PUT, .body = SW_S("{\"staged\":1}")};
    struct sw_stage_answer a;
    struct world *w = *state;
    struct visit v;
    char id[64];

    w->route.session.concurrency = SW_CONC_LAST;
    visitor_make(w, "Stateway-Set: " SECRET "\r\n", id);
    visit_open(w, &v, id);
    sw_stage(&v.ask, &put, &a);
    assert_int_equal(a.err, SW_OK);
    sw_store_mem_faults(w->store, on_commit, &fate);
    assert_int_equal(commit(&v, ""), SW_OK);
    sw_store_mem_faults(w->store, NULL, NULL);
    assert_int_equal(fate.asked, 4);
    state_is(w, id, "{\"staged\":1}");
}

/* ---- renewed ids ----------------------------------------------------------------------------- */

static void renewals(void **state)
{
    static const size_t sizes[] = {20, MAX_BYTES};
    struct world *w = *state;

    for (size_t s = 0; s < SW_COUNTOF(sizes); s++) {
        char first[64], id[64];
        struct visit v;
        struct kept *k;

        visitor_make(w, set_of(sizes[s]), first);
        memcpy(id, first, sizeof(id));
        for (int i = 0; i < 8; i++) {
            visit_open(w, &v, id);
            assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
            k = kept_of(w, id);
            assert_int_equal(k->record.kind, SW_RECORD_ALIAS);
            assert_int_equal(k->record.value.len, 32 + SW_SEAL_BYTES + 32);
            free(k);
            assert_non_null(cookie_of(&v, id));
            state_is(w, first, state_of(sizes[s])); /* the old id opens what lies under the new */
        }
        visit_open(w, &v, first); /* and may write it */
        assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
        state_is(w, id, "{\"n\":1}");
        visit_open(w, &v, first); /* and renew it */
        assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
        assert_non_null(cookie_of(&v, first));
        state_is(w, first, "{\"n\":1}");
        state_is(w, id, "{\"n\":1}");
    }
}

static void raced_renewal(void **state)
{
    struct world *w = *state;
    struct visit v, other;
    char id[64], renewed[64];

    w->route.session.concurrency = SW_CONC_MERGE;
    visitor_make(w, set_of(2000), id);
    visit_open(w, &v, id);
    visit_open(w, &other, id);
    assert_int_equal(commit(&other, "Stateway-Renew: ?1\r\n"), SW_OK);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"much\":null,\"b\":1}\r\n"), SW_OK);
    assert_non_null(cookie_of(&other, renewed));
    state_is(w, renewed, "{\"b\":1}");
    state_is(w, id, "{\"b\":1}");
}

/* An alias with garbage behind the key, or of a length that is none. */
static void bad_aliases(void **state)
{
    static const size_t lengths[] = {0, 31, 33, 91, 92, 93};
    struct world *w = *state;
    int64_t now = sw_loop_now_unix_s(w->loop);

    for (size_t i = 0; i < SW_COUNTOF(lengths); i++) {
        struct sw_store_key to;
        char id[64], value[128];
        struct visit v;

        visitor_make(w, "Stateway-Set: " SECRET "\r\n", id);
        to = id_key(id);
        memset(value, 0x5a, sizeof(value));
        memcpy(value, to.bytes, 32);
        if (lengths[i] < 32) {
            continue; /* the stores assert that there is a key */
        }
        write_raw(w,
                  (struct sw_write){.kind = SW_WRITE_PUT,
                                    .key = id_key(ID_A),
                                    .record = SW_RECORD_ALIAS,
                                    .expect = SW_EXPECT_ANY,
                                    .value = sw_slice_of(value, lengths[i]),
                                    .expires_unix_s = now + 10,
                                    .absolute_unix_s = now + 10},
                  now);
        visit_open(w, &v, ID_A);
        assert_false(v.ask.state_present);
        assert_int_equal(v.ask.verdict, SW_VERDICT_EXPIRED);
        visit_close(&v);
    }
}

/* ---- what does not open ---------------------------------------------------------------------- */

static void damaged(void **state)
{
    struct world *w = *state;
    struct kept *k;
    char id[64];
    size_t len;

    visitor_make(w, "Stateway-Set: " SECRET "\r\n", id);
    k = kept_of(w, id);
    len = k->record.value.len;
    for (size_t i = 0; i < len; i++) {
        char value[128];

        memcpy(value, k->record.value.ptr, len);
        value[i] ^= 1;
        put_back(w, id, k, sw_slice_of(value, len), true);
        is_lost(w, id);
    }
    for (size_t cut = 0; cut < len; cut++) {
        put_back(w, id, k, sw_slice_head(k->record.value, cut), true);
        is_lost(w, id);
    }
    put_back(w, id, k, k->record.value, true);
    state_is(w, id, SECRET);
    free(k);
}

/* Somebody who can write to the store puts one visitor's record under another's key. */
static void moved(void **state)
{
    static const size_t sizes[] = {20, INLINE};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(sizes); i++) {
        char alice[64], mallory[64];
        struct kept *k;

        visitor_make(w, set_of(sizes[i]), alice);
        visitor_make(w, "Stateway-Set: {}\r\n", mallory);
        k = kept_of(w, alice);
        put_back(w, mallory, k, k->record.value, true);
        is_lost(w, mallory);
        state_is(w, alice, state_of(sizes[i]));
        free(k);
    }
}

/* A large one is opened only when it is read: then it is none, and can be written anew. */
static void damaged_and_large(void **state)
{
    struct sw_stage_ask get = {.method = SW_STAGE_GET}, put = {.method = SW_STAGE_PATCH};
    struct sw_stage_answer a;
    struct world *w = *state;
    struct kept *k;
    struct visit v;
    char id[64];

    visitor_make(w, set_of(2000), id);
    k = kept_of(w, id);
    k->block[sizeof(k->block) - 1] = 0;
    ((char *)(uintptr_t)k->record.value.ptr)[1000] ^= 1;
    put_back(w, id, k, k->record.value, true);
    free(k);
    visit_open(w, &v, id);
    assert_int_equal(v.ask.state.len, 2000);
    sw_stage(&v.ask, &get, &a);
    assert_int_equal(a.err, SW_E_NOT_FOUND);
    assert_int_equal(w->large.used, 0);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"n\":1}\r\n"), SW_E_STATE_GONE);
    assert_int_equal(v.ask.verdict, SW_VERDICT_EXPIRED);
    visit_open(w, &v, id);
    put.body = SW_S("{\"n\":1}");
    sw_stage(&v.ask, &put, &a);
    assert_int_equal(a.err, SW_OK);
    assert_int_equal(commit(&v, ""), SW_OK);
    state_is(w, id, "{\"n\":1}");
}

/* A logout ends what nobody can read, too. */
static void damaged_and_ended(void **state)
{
    struct world *w = *state;
    struct kept *k;
    struct visit v;
    char id[64], text[64];

    visitor_make(w, "Stateway-Set: " SECRET "\r\n", id);
    k = kept_of(w, id);
    put_back(w, id, k, SW_S("nonsense"), true);
    free(k);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_OK);
    assert_string_equal(cookie_of(&v, text), "");
    k = kept_of(w, id);
    assert_int_equal(k->record.kind, SW_RECORD_TOMBSTONE);
    free(k);
}

/* A sealed record under an entity's key is nobody's; it must not block the key for ever. */
static void sealed_entity(void **state)
{
    struct world *w = *state;
    struct visit v;

    world_rooms(w);
    visit_open(w, &v, NULL);
    write_raw(w,
              (struct sw_write){.kind = SW_WRITE_PUT,
                                .key = v.ask.key,
                                .record = SW_RECORD_STATE,
                                .expect = SW_EXPECT_ANY,
                                .value = SW_S("nonsense"),
                                .sealed = true},
              sw_loop_now_unix_s(w->loop));
    visit_close(&v);
    visit_open(w, &v, NULL);
    assert_false(v.ask.state_present);
    assert_int_equal(v.ask.verdict, SW_VERDICT_EXPIRED);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":1}\r\n"), SW_OK);
    state_is(w, NULL, "{\"n\":1}");
}

/* ---- switched on and off --------------------------------------------------------------------- */

static void switched(void **state)
{
    static const size_t sizes[] = {20, 2000};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(sizes); i++) {
        struct kept *k;
        struct visit v;
        char id[64], fields[4096];

        w->route.session.encrypt = false;
        snprintf(fields, sizeof(fields), "%sStateway-Subject: alice\r\n", set_of(sizes[i]));
        visitor_make(w, fields, id);
        k = kept_of(w, id);
        assert_false(k->record.sealed);
        assert_true(sw_slice_eq(k->record.subject, SW_S("alice")));
        free(k);
        w->route.session.encrypt = true;
        state_is(w, id, state_of(sizes[i])); /* read as it is */
        {                                    /* only renewed: sealed all the same */
            char other[64], renewed[64];

            w->route.session.encrypt = false;
            visitor_make(w, set_of(sizes[i]), other);
            w->route.session.encrypt = true;
            visit_open(w, &v, other);
            assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
            assert_non_null(cookie_of(&v, renewed));
            k = kept_of(w, renewed);
            assert_true(k->record.sealed);
            free(k);
            state_is(w, renewed, state_of(sizes[i]));
            state_is(w, other, state_of(sizes[i]));
        }
        visit_open(w, &v, id);
        assert_int_equal(commit(&v, "Stateway-Patch: {\"x\":null}\r\n"), SW_OK);
        k = kept_of(w, id);
        assert_true(k->record.sealed);
        assert_true(k->record.subject.ptr[0] == '~'); /* so is what was plain */
        free(k);
        w->route.session.encrypt = false;
        state_is(w, id, state_of(sizes[i]));
        visit_open(w, &v, id);
        assert_int_equal(commit(&v, "Stateway-Patch: {\"x\":null}\r\n"), SW_OK);
        k = kept_of(w, id);
        assert_false(k->record.sealed);
        assert_true(k->record.subject.ptr[0] == '~'); /* nobody knows it any more */
        free(k);
        /* and the app, which knows, says the same again: no other id */
        visit_open(w, &v, id);
        assert_int_equal(commit(&v, "Stateway-Set: {}\r\nStateway-Subject: alice\r\n"), SW_OK);
        assert_null(cookie_of(&v, fields));
        w->route.session.encrypt = true;
    }
}

/* Nothing can be delivered from a sealed state: what was set before goes with the next write. */
static void alarms_end(void **state)
{
    struct world *w = *state;
    struct kept *k;
    struct visit v;
    char id[64];

    w->route.session.encrypt = false;
    w->route.session.alarm = SW_S("/alarm");
    visitor_make(w, "Stateway-Set: {}\r\nStateway-Alarm: at=5000\r\n", id);
    w->route.session.encrypt = true;
    w->route.session.alarm = (struct sw_slice){NULL, 0};
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Set: {}\r\n"), SW_OK);
    k = kept_of(w, id);
    assert_true(k->record.sealed);
    assert_int_equal(k->record.extra.len, 0);
    assert_true(k->record.due_unix_ms == 0);
    free(k);
}

/* An id that was renewed just before `encrypt: on`: its alias cannot open anything. Nothing breaks.
 */
static void switched_while_renewed(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64], renewed[64], text[64];
    struct kept *k;

    w->route.session.encrypt = false;
    visitor_make(w, "Stateway-Set: {\"n\":1}\r\n", id);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, renewed));
    w->route.session.encrypt = true;
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"),
                     SW_OK); /* not sealed: by whose id */
    k = kept_of(w, renewed);
    assert_false(k->record.sealed);
    free(k);
    visit_open(w, &v, renewed);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":3}\r\n"), SW_OK);
    k = kept_of(w, renewed);
    assert_true(k->record.sealed);
    free(k);
    visit_open(w, &v, id); /* the old one leads to what it cannot open */
    assert_int_equal(v.ask.verdict, SW_VERDICT_EXPIRED);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_null(cookie_of(&v, text));
    state_is(w, renewed, "{\"n\":3}");
}

/* ---- subjects -------------------------------------------------------------------------------- */

static bool named(const struct sw_subject_names *names, struct sw_slice name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (sw_slice_eq(names->list[i], name)) {
            return true;
        }
    }
    return false;
}

/* seed -> active -> retired, and at last out of the ring. */
static void rotation(void **state)
{
    struct world *w = *state;
    struct sw_keyring fresh;
    struct sw_subject_names names;
    struct kept *k;
    struct visit v;
    char id[64], text[64];

    visitor_make(w, "Stateway-Set: {}\r\nStateway-Subject: alice\r\n", id);
    k = kept_of(w, id);
    sw_place_subject_names(&w->keys, SW_S("alice"), &names);
    assert_int_equal(names.count, 2);
    assert_true(sw_slice_eq(names.list[0], SW_S("alice")));
    assert_true(named(&names, k->record.subject));
    sw_place_subject_names(&w->keys, SW_S("alicf"), &names);
    assert_false(named(&names, k->record.subject));

    visit_open(w, &v, id); /* a write without a word about it */
    assert_int_equal(commit(&v, "Stateway-Set: {}\r\n"), SW_OK);
    free(k);
    k = kept_of(w, id);
    sw_place_subject_names(&w->keys, SW_S("alice"), &names);
    assert_true(named(&names, k->record.subject));

    sw_keyring_make(w->keys.keys[0].created_unix_s + 100, &fresh);
    w->keys.keys[1] = fresh.keys[0];
    w->keys.keys[1].id = 2;
    w->keys.keys[0].state = SW_KEY_RETIRED;
    w->keys.count = 2;
    w->keys.active = 1;
    sw_place_subject_names(&w->keys, SW_S("alice"), &names);
    assert_int_equal(names.count, 3);
    assert_true(named(&names, k->record.subject));
    /* the same one is no change: he keeps his id */
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Set: {}\r\nStateway-Subject: alice\r\n"), SW_OK);
    assert_null(cookie_of(&v, text));
    free(k);
    k = kept_of(w, id);
    assert_true(named(&names, k->record.subject));
    /* another one is */
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Subject: bob\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, text));
    free(k);
    k = kept_of(w, text);
    assert_false(named(&names, k->record.subject));
    /* without the old key nobody can say whose it was; what is written now is known again */
    w->keys.keys[0] = w->keys.keys[1];
    w->keys.count = 1;
    w->keys.active = 0;
    sw_place_subject_names(&w->keys, SW_S("bob"), &names);
    assert_false(named(&names, k->record.subject));
    free(k);
    visit_open(w, &v, text);
    assert_int_equal(commit(&v, "Stateway-Subject: bob\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, text));
    k = kept_of(w, text);
    assert_true(named(&names, k->record.subject));
    free(k);
}

/* A key that was only announced makes no names yet, however old it is. */
static void seeds_make_none(void **state)
{
    struct world *w = *state;
    struct sw_keyring fresh;
    struct sw_subject_names names;
    struct kept *k;
    char id[64];

    sw_keyring_make(1, &fresh);
    w->keys.keys[1] = fresh.keys[0];
    w->keys.keys[1].id = 2;
    w->keys.keys[1].state = SW_KEY_SEED;
    w->keys.count = 2;
    visitor_make(w, "Stateway-Set: {}\r\nStateway-Subject: alice\r\n", id);
    k = kept_of(w, id);
    w->keys.count = 1;
    sw_place_subject_names(&w->keys, SW_S("alice"), &names);
    assert_true(named(&names, k->record.subject));
    free(k);
}

static void no_subject_is_none(void **state)
{
    struct world *w = *state;
    struct kept *k;
    struct visit v;
    char id[64], text[64];

    visitor_make(w, "Stateway-Set: {}\r\n", id);
    k = kept_of(w, id);
    assert_int_equal(k->record.subject.len, 0);
    free(k);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Subject: alice\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, id));
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Subject: \r\n"), SW_OK);
    assert_non_null(cookie_of(&v, text));
    k = kept_of(w, text);
    assert_int_equal(k->record.subject.len, 0);
    free(k);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        SEALED_TEST(reveals_nothing),
        SEALED_TEST(never_the_same),
        SEALED_TEST(staged),
        SEALED_TEST(staged_in_a_crowd),
        SEALED_TEST(alarms_end),
        SEALED_TEST(renewals),
        SEALED_TEST(raced_renewal),
        SEALED_TEST(bad_aliases),
        SEALED_TEST(damaged),
        SEALED_TEST(moved),
        SEALED_TEST(damaged_and_large),
        SEALED_TEST(damaged_and_ended),
        SEALED_TEST(sealed_entity),
        SEALED_TEST(switched),
        SEALED_TEST(switched_while_renewed),
        SEALED_TEST(rotation),
        SEALED_TEST(seeds_make_none),
        SEALED_TEST(no_subject_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
