/* unit/placement/test_due.c - alarms and the state they belong to: set and kept in one write,
 * delivered, failed, and who else was there meanwhile. (Their texts and bytes: test_alarm.c.) */
#include "world.h"

static int due_up(void **state)
{
    int rc = world_up(state);

    ((struct world *)*state)->route.session.alarm = SW_S("/alarm");
    return rc;
}
#define DUE_TEST(f) cmocka_unit_test_setup_teardown(f, due_up, world_down)

/* The record's alarms as text: "a@5#0 b@7#1", due times relative to base, in the list's order. */
struct listed {
    struct sw_alarm list[SW_ALARMS_MAX];
    size_t count;
    struct kept *kept; /* what the list points into */
};

static struct listed listed_of(struct world *w, const struct sw_store_key *key)
{
    struct listed l = {.kept = kept_get(w, key)};

    assert_int_equal(l.kept->err, SW_OK);
    assert_int_equal(sw_alarms_read(l.kept->record.extra, l.list, &l.count), SW_OK);
    assert_true(l.kept->record.due_unix_ms == sw_alarms_due(l.list, l.count));
    return l;
}

static const struct sw_alarm *find(const struct listed *l, const char *id)
{
    for (size_t i = 0; i < l->count; i++) {
        if (sw_slice_eq(l->list[i].id, sw_slice_cstr(id))) {
            return &l->list[i];
        }
    }
    return NULL;
}

static void count_is(struct world *w, const struct sw_store_key *key, size_t count)
{
    struct listed l = listed_of(w, key);

    assert_int_equal(l.count, count);
    free(l.kept);
}

static int64_t now_ms(struct world *w)
{
    return sw_loop_now_unix_ms(w->loop);
}

/* A room with that state and alarms; its key. */
static struct sw_store_key room_make(struct world *w, const char *fields)
{
    struct visit v;

    world_rooms(w);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, fields), SW_OK);
    return v.ask.key;
}

/* The alarm as the gateway gets it for a delivery: a copy, from the record. */
struct due {
    struct sw_alarm alarm;
    char text[2048];
};

static void due_of(struct world *w, const struct sw_store_key *key, const char *id, struct due *d)
{
    struct listed l = listed_of(w, key);
    const struct sw_alarm *a = find(&l, id);
    struct sw_arena arena;

    assert_non_null(a);
    sw_arena_init(&arena, d->text, sizeof(d->text));
    d->alarm = *a;
    d->alarm.id = sw_arena_copy(&arena, a->id);
    d->alarm.data = sw_arena_copy(&arena, a->data);
    d->alarm.key_text = sw_arena_copy(&arena, a->key_text);
    assert_false(arena.overflowed);
    free(l.kept);
}

static enum sw_err failed(struct visit *v)
{
    enum sw_step step;

    while ((step = sw_session_alarm_failed(&v->ask)) == SW_STEP_MORE) {
        sw_loop_run(v->w->loop);
    }
    sw_ask_drop(&v->ask);
    return step == SW_STEP_DONE ? SW_OK : v->ask.err;
}

/* ---- set ------------------------------------------------------------------------------------- */

static void set_and_kept(void **state)
{
    struct world *w = *state;
    int64_t now = now_ms(w);
    struct sw_store_key key;
    struct listed l;
    struct visit v;

    key = room_make(w, "Stateway-Set: {\"n\":1}\r\n"
                       "Stateway-Alarm: in=60000;id=turn;data=\"next\"\r\n"
                       "Stateway-Alarm: in=30000;id=end\r\n");
    l = listed_of(w, &key);
    assert_int_equal(l.count, 2);
    assert_true(sw_slice_eq(find(&l, "turn")->data, SW_S("next")));
    assert_in_range(find(&l, "turn")->due_unix_ms, now + 60000, now_ms(w) + 60000);
    assert_true(l.kept->record.due_unix_ms == find(&l, "end")->due_unix_ms);
    assert_true(find(&l, "end")->route_ident == w->route.ident);
    assert_true(sw_slice_eq(find(&l, "end")->key_text, SW_S("room:7")));
    assert_int_equal(find(&l, "end")->attempt, 0);
    free(l.kept);
    /* a write without a word about them keeps them; a word about one keeps the other */
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    count_is(w, &key, 2);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Alarm: cancel;id=end\r\n"), SW_OK);
    assert_int_equal(v.ask.verdict, SW_VERDICT_UPDATED);
    state_is(w, NULL, "{\"n\":2}");
    l = listed_of(w, &key);
    assert_int_equal(l.count, 1);
    assert_non_null(find(&l, "turn"));
    free(l.kept);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Alarm: cancel;id=turn\r\n"), SW_OK);
    count_is(w, &key, 0);
    l.kept = kept_get(w, &key);
    assert_int_equal(l.kept->record.extra.len, 0);
    assert_true(l.kept->record.due_unix_ms == 0);
    free(l.kept);
}

/* Due is what the store's index says. */
static void on_due(void *arg, const struct sw_store_key *key, int64_t due_unix_ms)
{
    (void)key;
    *(int64_t *)arg = due_unix_ms;
}

static void in_the_index(void **state)
{
    struct world *w = *state;
    struct visit v;
    int64_t due = 0;

    (void)room_make(w, "Stateway-Alarm: at=5000;id=a\r\nStateway-Alarm: at=4000;id=b\r\n");
    assert_int_equal(sw_store_due(w->store, now_ms(w), 10, on_due, &due), SW_OK);
    assert_true(due == 4000);
    assert_true(sw_store_next_due_unix_ms(w->store) == 4000);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_OK);
    due = 0;
    assert_int_equal(sw_store_due(w->store, now_ms(w), 10, on_due, &due), SW_OK);
    assert_true(due == 0); /* an end takes them along */
}

/* Without a state an alarm makes an empty one. */
static void makes_a_state(void **state)
{
    struct world *w = *state;
    struct sw_store_key key;
    struct listed l;
    struct visit v;
    char id[64], want[32];

    visitor_make(w, "Stateway-Alarm: in=5\r\n", id);
    state_is(w, id, "{}");
    key = id_key(id);
    l = listed_of(w, &key);
    assert_int_equal(l.count, 1);
    visit_open(w, &v, id);
    snprintf(want, sizeof(want), "visitor:%s", v.ask.visitor);
    assert_true(sw_slice_eq(find(&l, "alarm")->key_text, sw_slice_cstr(want)));
    visit_close(&v);
    free(l.kept);
}

/* A renewed id takes the alarms along, under the name they will be delivered with. */
static void renewed(void **state)
{
    struct world *w = *state;
    struct sw_store_key key;
    struct listed l;
    struct visit v;
    char id[64], fresh[64], want[32];
    int64_t due = 0;

    visitor_make(w, "Stateway-Set: {}\r\nStateway-Alarm: at=5000;id=a\r\n", id);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\nStateway-Alarm: at=6000;id=b\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, fresh));
    key = id_key(fresh);
    l = listed_of(w, &key);
    assert_int_equal(l.count, 2);
    snprintf(want, sizeof(want), "visitor:%s", v.ask.visitor);
    assert_true(sw_slice_eq(find(&l, "a")->key_text, sw_slice_cstr(want)));
    assert_true(sw_slice_eq(find(&l, "b")->key_text, sw_slice_cstr(want)));
    free(l.kept);
    key = id_key(id);
    l.kept = kept_get(w, &key);
    assert_int_equal(l.kept->record.kind, SW_RECORD_ALIAS);
    assert_true(l.kept->record.due_unix_ms == 0); /* due once */
    free(l.kept);
    assert_int_equal(sw_store_due(w->store, now_ms(w), 1, on_due, &due), SW_OK);
    assert_true(due == 5000);
}

static void with_a_large_state(void **state)
{
    struct world *w = *state;
    struct sw_store_key key = room_make(w, set_of(MAX_BYTES));
    struct visit v;

    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Alarm: in=5\r\n"), SW_OK);
    state_is(w, NULL, state_of(MAX_BYTES));
    count_is(w, &key, 1);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"much\":null}\r\n"), SW_OK);
    count_is(w, &key, 1);
}

static void refused(void **state)
{
    static const struct row {
        const char *fields;
        enum sw_err err;
    } rows[] = {
        {"Stateway-Set: {\"n\":2}\r\nStateway-Alarm: in=\r\n", SW_E_UPDATE_ALARM},
        {"Stateway-Alarm: in=5;id=x\r\nStateway-Alarm: nonsense\r\n", SW_E_UPDATE_ALARM},
        {"Stateway-Delete: ?1\r\nStateway-Alarm: in=5\r\n", SW_E_UPDATE_ALARM},
        {"Stateway-Alarm: in=1;id=1\r\nStateway-Alarm: in=1;id=2\r\nStateway-Alarm: in=1;id=3\r\n"
         "Stateway-Alarm: in=1;id=4\r\nStateway-Alarm: in=1;id=5\r\nStateway-Alarm: in=1;id=6\r\n"
         "Stateway-Alarm: in=1;id=7\r\nStateway-Alarm: in=1;id=8\r\n",
         SW_E_UPDATE_ALARM}, /* with the one there is, nine */
    };
    struct world *w = *state;
    struct sw_store_key key = room_make(w, "Stateway-Set: {\"n\":1}\r\n"
                                           "Stateway-Alarm: in=5;id=one\r\n");
    struct visit v;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        visit_open(w, &v, NULL);
        if (commit(&v, rows[i].fields) != rows[i].err) {
            fail_msg("row %zu: %s", i, sw_err_name(v.ask.err));
        }
        state_is(w, NULL, "{\"n\":1}");
        count_is(w, &key, 1);
    }
    visit_open(w, &v, NULL); /* of one that failed nothing is wanted, and nothing is wrong */
    assert_int_equal(commit_status(&v, 500, rows[0].fields), SW_OK);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\nStateway-Alarm: cancel;id=one\r\n"), SW_OK);
    state_is(w, NULL, NULL);
    /* a route that delivers none */
    (void)room_make(w, "Stateway-Set: {\"n\":1}\r\nStateway-Alarm: in=5;id=one\r\n");
    w->route.session.alarm = (struct sw_slice){NULL, 0};
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Alarm: in=5\r\n"), SW_E_UPDATE_ALARM);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Alarm: cancel;id=one\r\n"), SW_E_UPDATE_ALARM);
    visit_open(w, &v, NULL); /* those that are there stay */
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    count_is(w, &key, 1);
}

/* A list that nobody can read: the state lives on, and the next change makes a new one. */
static void garbage(void **state)
{
    struct world *w = *state;
    struct sw_store_key key = room_make(w, "Stateway-Set: {\"n\":1}\r\n");
    struct due d = {.alarm = {.id = SW_S("a"), .due_unix_ms = 5000, .key_text = SW_S("room:7")}};
    struct kept *k;
    struct visit v;

    write_raw(w,
              (struct sw_write){.kind = SW_WRITE_PUT,
                                .key = key,
                                .record = SW_RECORD_STATE,
                                .expect = SW_EXPECT_ANY,
                                .value = SW_S("{\"n\":1}"),
                                .extra = SW_S("\x01\xff nonsense"),
                                .due_unix_ms = 5000},
              sw_loop_now_unix_s(w->loop));
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    visit_deliver(w, &v, &key, &d.alarm);
    assert_int_equal(failed(&v), SW_OK); /* there is nothing to be done about it */
    visit_deliver(w, &v, &key, &d.alarm);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":3}\r\n"), SW_OK);
    k = kept_get(w, &key);
    assert_true(k->record.due_unix_ms == 0);
    assert_int_equal(k->record.extra.len, 0);
    free(k);
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Alarm: in=5;id=b\r\n"), SW_OK);
    count_is(w, &key, 1);
}

static void no_memory(void **state)
{
    struct world *w = *state;
    struct sw_store_key key = room_make(w, "Stateway-Set: {\"n\":1}\r\n");
    struct visit v;

    w->large.bytes_max = 4096;
    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\nStateway-Alarm: in=5\r\n"),
                     SW_E_LARGE_FULL);
    state_is(w, NULL, "{\"n\":1}");
    count_is(w, &key, 0);
}

/* From an envelope. */
static void enveloped(void **state)
{
    struct sw_envelope e = {.kind = SW_UPDATE_NONE,
                            .status = 200,
                            .alarms = {SW_S("in=5;id=a"), SW_S("in=6;id=b")},
                            .alarm_count = 2};
    struct world *w = *state;
    struct sw_store_key key = room_make(w, "Stateway-Set: {\"n\":1}\r\n");
    struct visit v;

    visit_open(w, &v, NULL);
    v.ask.envelope = &e;
    assert_int_equal(commit(&v, ""), SW_OK);
    count_is(w, &key, 2);
    visit_open(w, &v, NULL);
    v.ask.envelope = &e;
    assert_int_equal(commit(&v, "Stateway-Alarm: cancel;id=a\r\n"), SW_E_UPDATE_MANY);
    count_is(w, &key, 2);
}

/* An alarm is a change like a patch: what conflicts under which rule. */
static void crossing(void **state)
{
    static const struct row {
        enum sw_concurrency concurrency;
        enum sw_err err;
    } rows[] = {
        {SW_CONC_SERIAL, SW_E_CONFLICT},
        {SW_CONC_CAS, SW_E_CONFLICT},
        {SW_CONC_MERGE, SW_OK},
        {SW_CONC_LAST, SW_OK},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_store_key key;
        struct visit first, second;

        key = room_make(w, "Stateway-Set: {\"n\":0}\r\nStateway-Alarm: cancel;id=a\r\n"
                           "Stateway-Alarm: cancel;id=b\r\n");
        w->route.session.concurrency = rows[i].concurrency;
        visit_open(w, &first, NULL);
        visit_open(w, &second, NULL);
        assert_int_equal(commit(&first, "Stateway-Set: {\"n\":1}\r\n"
                                        "Stateway-Alarm: in=5;id=a\r\n"),
                         SW_OK);
        assert_int_equal(commit(&second, "Stateway-Alarm: in=6;id=b\r\n"), rows[i].err);
        state_is(w, NULL, "{\"n\":1}");
        count_is(w, &key, rows[i].err == SW_OK ? 2 : 1); /* both, or the first one's */
    }
}

/* ---- delivered ------------------------------------------------------------------------------- */

#define TWO                                                                                        \
    "Stateway-Set: {\"n\":1}\r\n"                                                                  \
    "Stateway-Alarm: at=5000;id=a;data=\"x\"\r\nStateway-Alarm: at=6000;id=b\r\n"

static void deliveries(void **state)
{
    static const struct row {
        unsigned status;
        const char *fields;
        const char *after;
        bool a, b; /* stand afterwards */
        enum sw_err err;
    } rows[] = {
        {200, "", "{\"n\":1}", false, true, SW_OK},
        {404, "", "{\"n\":1}", false, true, SW_OK},
        {500, "", "{\"n\":1}", true, true, SW_OK},
        {500, "Stateway-Commit: always\r\n", "{\"n\":1}", false, true, SW_OK},
        {404, "Stateway-Commit: 2xx\r\n", "{\"n\":1}", true, true, SW_OK},
        {200, "Stateway-Patch: {\"m\":2}\r\n", "{\"n\":1,\"m\":2}", false, true, SW_OK},
        {200, "Stateway-Alarm: cancel;id=b\r\n", "{\"n\":1}", false, false, SW_OK},
        {200, "Stateway-Alarm: cancel;id=a\r\n", "{\"n\":1}", false, true, SW_OK},
        {200, "Stateway-Alarm: at=7000;id=a\r\n", "{\"n\":1}", true, true, SW_OK}, /* once more */
        {200, "Stateway-Alarm: at=5000;id=a\r\n", "{\"n\":1}", true, true, SW_OK},
        {200, "Stateway-Set: {\r\n", "{\"n\":1}", true, true, SW_E_UPDATE_JSON},
        {200, "Stateway-Renew: ?1\r\n", "{\"n\":1}", false, true, SW_OK},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_store_key key = room_make(w, TWO);
        struct listed l;
        struct due d;
        struct visit v;

        due_of(w, &key, "a", &d);
        visit_deliver(w, &v, &key, &d.alarm);
        if (commit_status(&v, rows[i].status, rows[i].fields) != rows[i].err) {
            fail_msg("row %zu: %s", i, sw_err_name(v.ask.err));
        }
        assert_true(v.ask.client_lines.len == 0);
        state_is(w, NULL, rows[i].after);
        l = listed_of(w, &key);
        if ((find(&l, "a") != NULL) != rows[i].a || (find(&l, "b") != NULL) != rows[i].b) {
            fail_msg("row %zu", i);
        }
        free(l.kept);
    }
    { /* an end takes all along */
        struct sw_store_key key = room_make(w, TWO);
        struct due d;
        struct visit v;

        due_of(w, &key, "a", &d);
        visit_deliver(w, &v, &key, &d.alarm);
        assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_OK);
        state_is(w, NULL, NULL);
        visit_deliver(w, &v, &key, &d.alarm); /* and nothing comes back by a late delivery */
        assert_false(v.ask.state_present);
        assert_int_equal(commit(&v, "Stateway-Set: {}\r\n"), SW_E_STATE_GONE);
        state_is(w, NULL, NULL);
    }
}

/* A visitor's: nobody is there to get a cookie, and his id stays his. */
static void delivered_to_a_visitor(void **state)
{
    static const char *const updates[] = {"", "Stateway-Set: {\"n\":2}\r\n",
                                          "Stateway-Renew: ?1\r\n", "Stateway-Subject: bob\r\n"};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(updates); i++) {
        struct sw_store_key key;
        struct due d;
        struct visit v, own;
        char id[64], text[64];

        visitor_make(w, TWO "Stateway-Subject: alice\r\n", id);
        key = id_key(id);
        due_of(w, &key, "a", &d);
        visit_open(w, &own, id);
        visit_deliver(w, &v, &key, &d.alarm);
        assert_string_equal(v.ask.visitor, own.ask.visitor);
        assert_true(sw_slice_eq(v.ask.key_text, own.ask.key_text));
        visit_close(&own);
        assert_int_equal(commit(&v, updates[i]), SW_OK);
        assert_null(cookie_of(&v, text));
        state_is(w, id, i == 1 ? "{\"n\":2}" : "{\"n\":1}");
        count_is(w, &key, 1);
        visit_deliver(w, &v, &key, &d.alarm);
        assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_OK);
        assert_null(cookie_of(&v, text));
        visit_open(w, &v, id);
        assert_int_equal(v.ask.verdict, SW_VERDICT_REVOKED); /* dead for good, as by a logout */
        visit_close(&v);
    }
}

/* He got a new id between the listing and the delivery. */
static void delivered_by_an_alias(void **state)
{
    struct world *w = *state;
    struct sw_store_key key;
    struct due d;
    struct visit v;
    char id[64], renewed_id[64];

    visitor_make(w, TWO, id);
    key = id_key(id);
    due_of(w, &key, "a", &d);
    visit_open(w, &v, id);
    assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
    assert_non_null(cookie_of(&v, renewed_id));
    visit_deliver(w, &v, &key, &d.alarm);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    state_is(w, renewed_id, "{\"n\":2}");
    key = id_key(renewed_id);
    count_is(w, &key, 1);
}

/* Nobody used it: it ends when it would have. A write of the visitor moves that. */
static void no_use(void **state)
{
    struct world *w = *state;
    struct sw_store_key key = room_make(w, TWO);
    int64_t now = sw_loop_now_unix_s(w->loop);
    struct listed l = listed_of(w, &key);
    struct kept *k;
    struct due d;
    struct visit v;

    write_raw(w,
              (struct sw_write){.kind = SW_WRITE_PUT,
                                .key = key,
                                .record = SW_RECORD_STATE,
                                .expect = SW_EXPECT_ANY,
                                .value = SW_S("{}"),
                                .extra = l.kept->record.extra,
                                .due_unix_ms = 5000,
                                .expires_unix_s = now + 50,
                                .absolute_unix_s = now + 5000},
              now - 40);
    free(l.kept);
    due_of(w, &key, "a", &d);
    visit_deliver(w, &v, &key, &d.alarm);
    assert_false(v.ask.session.needs_touch);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    k = kept_get(w, &key);
    assert_true(k->record.expires_unix_s == now + 50);
    assert_true(k->record.absolute_unix_s == now + 5000);
    free(k);
    visit_deliver(w, &v, &key, &d.alarm);
    assert_int_equal(commit_status(&v, 500, ""), SW_OK);
    k = kept_get(w, &key);
    assert_true(k->record.expires_unix_s == now + 50);
    free(k);
    visit_deliver(w, &v, &key, &d.alarm);
    assert_int_equal(commit(&v, "Stateway-Set: {}\r\nStateway-TTL: 70\r\n"), SW_OK); /* its word */
    k = kept_get(w, &key);
    assert_true(k->record.expires_unix_s >= now + 70);
    free(k);
}

/* It was set anew while it was delivered: the new one stays. */
static void set_anew_meanwhile(void **state)
{
    static const enum sw_concurrency kinds[] = {SW_CONC_SERIAL, SW_CONC_LAST};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(kinds); i++) {
        struct sw_store_key key = room_make(w, TWO);
        struct listed l;
        struct due d;
        struct visit v, other;

        w->route.session.concurrency = kinds[i];
        due_of(w, &key, "a", &d);
        visit_deliver(w, &v, &key, &d.alarm);
        visit_open(w, &other, NULL);
        assert_int_equal(commit(&other, "Stateway-Set: {\"o\":1}\r\n"
                                        "Stateway-Alarm: at=8000;id=a\r\n"),
                         SW_OK);
        assert_int_equal(commit(&v, ""), SW_OK); /* that it was taken is true of any version */
        l = listed_of(w, &key);
        assert_int_equal(l.count, 2);
        assert_true(find(&l, "a")->due_unix_ms == 8000);
        free(l.kept);
        state_is(w, NULL, "{\"o\":1}");
        /* the same when its failure is written */
        visit_deliver(w, &v, &key, &d.alarm);
        assert_int_equal(failed(&v), SW_OK);
        l = listed_of(w, &key);
        assert_true(find(&l, "a")->due_unix_ms == 8000);
        assert_int_equal(find(&l, "a")->attempt, 0);
        free(l.kept);
    }
}

static void taken_beside_a_write(void **state)
{
    struct world *w = *state;
    struct sw_store_key key = room_make(w, TWO);
    struct due d;
    struct visit v, other;

    due_of(w, &key, "a", &d);
    visit_deliver(w, &v, &key, &d.alarm);
    visit_open(w, &other, NULL);
    assert_int_equal(commit(&other, set_of(MAX_BYTES)), SW_OK); /* and large, suddenly */
    assert_int_equal(commit(&v, ""), SW_OK);
    count_is(w, &key, 1);
    state_is(w, NULL, state_of(MAX_BYTES));
    visit_deliver(w, &v, &key, &d.alarm);
    visit_open(w, &other, NULL);
    assert_int_equal(commit(&other, "Stateway-Delete: ?1\r\n"), SW_OK);
    assert_int_equal(commit(&v, ""), SW_E_STATE_GONE);
    state_is(w, NULL, NULL);
}

/* ---- failed ---------------------------------------------------------------------------------- */

static void fails_and_fails(void **state)
{
    static const size_t sizes[] = {20, MAX_BYTES};
    struct world *w = *state;

    for (size_t s = 0; s < SW_COUNTOF(sizes); s++) {
        struct sw_store_key key;
        char fields[2 * MAX_BYTES];
        int64_t wait_ms = SW_ALARM_RETRY_MS;
        struct kept *before, *after;

        snprintf(fields, sizeof(fields),
                 "%sStateway-Subject: alice\r\nStateway-Alarm: at=5000;id=a;data=\"x\"\r\n"
                 "Stateway-Alarm: in=3600000000;id=far\r\n",
                 set_of(sizes[s]));
        key = room_make(w, fields);
        before = kept_get(w, &key);
        for (uint32_t tries = 1; tries <= SW_ALARM_TRIES_MAX; tries++) {
            int64_t now = now_ms(w);
            struct listed l;
            struct due d;
            struct visit v;

            due_of(w, &key, "a", &d);
            assert_int_equal(d.alarm.attempt, tries - 1);
            visit_deliver(w, &v, &key, &d.alarm);
            assert_int_equal(commit_status(&v, 500, ""), SW_OK);
            assert_int_equal(failed(&v), SW_OK);
            l = listed_of(w, &key);
            if (tries < SW_ALARM_TRIES_MAX) {
                assert_int_equal(l.count, 2);
                assert_int_equal(find(&l, "a")->attempt, tries);
                assert_in_range(find(&l, "a")->due_unix_ms, now + wait_ms, now_ms(w) + wait_ms);
                assert_true(sw_slice_eq(find(&l, "a")->data, SW_S("x")));
            } else {
                assert_int_equal(l.count, 1); /* given up, and the others stay */
                assert_non_null(find(&l, "far"));
            }
            free(l.kept);
            wait_ms *= 2;
        }
        after = kept_get(w, &key);
        assert_true(after->record.expires_unix_s == before->record.expires_unix_s);
        assert_true(after->record.absolute_unix_s == before->record.absolute_unix_s);
        assert_true(after->record.bound_unix_ms == before->record.bound_unix_ms);
        assert_true(after->record.created_unix_s == before->record.created_unix_s);
        assert_true(sw_slice_eq(after->record.subject, SW_S("alice")));
        free(before);
        free(after);
        state_is(w, NULL, state_of(sizes[s]));
    }
}

/* A list that cannot be read (of a later version) is given up as a whole: due for ever, it would
 * stand in front of all others. The state stays. */
static void unreadable_is_given_up(void **state)
{
    struct world *w = *state;
    struct sw_alarm any = {.id = SW_S("unreadable"), .due_unix_ms = 5000, .attempt = 5};
    struct sw_store_key key = room_make(w, "Stateway-Set: {\"n\":1}\r\n"
                                           "Stateway-Alarm: at=5000;id=a\r\n");
    struct kept *k = kept_get(w, &key);
    struct sw_write p = {
        .kind = SW_WRITE_PUT,
        .record = SW_RECORD_STATE,
        .key = key,
        .expect = SW_EXPECT_VERSION,
        .version = k->record.version,
        .expires_unix_s = k->record.expires_unix_s,
        .absolute_unix_s = k->record.absolute_unix_s,
        .due_unix_ms = 5000,
        .extra = SW_S("\x7f of another format"),
        .value = k->record.value,
    };
    struct visit v;

    write_raw(w, p, sw_loop_now_unix_s(w->loop));
    visit_deliver(w, &v, &key, &any);
    assert_int_equal(failed(&v), SW_OK);
    free(k);
    k = kept_get(w, &key);
    assert_int_equal(k->record.extra.len, 0);
    assert_true(k->record.due_unix_ms == 0);
    free(k);
    state_is(w, NULL, "{\"n\":1}");
}

/* Somebody writes between the reading and the writing of a failure. */
static void fails_in_a_crowd(void **state)
{
    static const struct row {
        uint32_t conflicts;
        enum sw_err err;
    } rows[] = {{1, SW_OK}, {16, SW_OK}, {17, SW_E_CONFLICT}};
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct fate fate = {.fault = {.err = SW_E_CONFLICT}, .times = rows[i].conflicts};
        struct sw_store_key key = room_make(w, TWO);
        struct listed l;
        struct due d;
        struct visit v;

        w->large.bytes_max = 2 * SW_EXTRA_BYTES_MAX + 4096; /* of one try */
        due_of(w, &key, "a", &d);
        visit_deliver(w, &v, &key, &d.alarm);
        sw_store_mem_faults(w->store, on_commit, &fate);
        assert_int_equal(failed(&v), rows[i].err);
        sw_store_mem_faults(w->store, NULL, NULL);
        l = listed_of(w, &key);
        assert_int_equal(find(&l, "a")->attempt, rows[i].err == SW_OK ? 1 : 0);
        free(l.kept);
        w->large.bytes_max = LARGE_BYTES;
    }
}

static void failure_that_fails(void **state)
{
    struct fate fate = {.fault = {.err = SW_E_STORE_IO}, .times = 1};
    struct world *w = *state;
    struct sw_store_key key = room_make(w, TWO);
    struct due d;
    struct visit v;

    due_of(w, &key, "a", &d);
    visit_deliver(w, &v, &key, &d.alarm);
    sw_store_mem_faults(w->store, on_commit, &fate);
    assert_int_equal(failed(&v), SW_E_COMMIT);
    sw_store_mem_faults(w->store, NULL, NULL);
    count_is(w, &key, 2);
    for (size_t bytes = 0; bytes < 20000; bytes += 1000) {
        enum sw_err err;

        w->large.bytes_max = bytes;
        visit_deliver(w, &v, &key, &d.alarm);
        err = failed(&v);
        assert_true(err == SW_OK || err == SW_E_LARGE_FULL);
        assert_int_equal(w->large.used, 0);
        if (err == SW_OK) {
            break;
        }
        count_is(w, &key, 2);
    }
    due_of(w, &key, "a", &d);
    assert_int_equal(d.alarm.attempt, 1);
    w->large.bytes_max = LARGE_BYTES;
}

/* Before it could even be asked for (a full queue, no instance), and when there is nothing any
 * more. */
static void fails_early_or_late(void **state)
{
    struct world *w = *state;
    struct sw_store_key key = room_make(w, TWO);
    struct due d, late;
    struct visit v, end;
    uint64_t commits;

    due_of(w, &key, "a", &d);
    visit_deliver(w, &v, &key, &d.alarm);
    assert_int_equal(failed(&v), SW_OK);
    due_of(w, &key, "a", &late);
    assert_int_equal(late.alarm.attempt, 1);
    visit_deliver(w, &v, &key, &late.alarm);
    visit_open(w, &end, NULL);
    assert_int_equal(commit(&end, "Stateway-Delete: ?1\r\n"), SW_OK);
    commits = commits_made(w);
    assert_int_equal(failed(&v), SW_OK);
    assert_true(commits_made(w) == commits);
    state_is(w, NULL, NULL);
}

/* The garbage of a record must not count beyond every number. */
static void an_attempt_beyond_all(void **state)
{
    struct world *w = *state;
    struct sw_store_key key = room_make(w, "Stateway-Set: {}\r\n");
    struct sw_alarm a = {
        .id = SW_S("a"), .due_unix_ms = 5000, .attempt = UINT32_MAX, .key_text = SW_S("room:7")};
    char extra[256];
    struct sw_out out = sw_out_init(extra, sizeof(extra));
    struct visit v;

    assert_true(sw_alarms_put(&out, &a, 1));
    write_raw(w,
              (struct sw_write){.kind = SW_WRITE_PUT,
                                .key = key,
                                .record = SW_RECORD_STATE,
                                .expect = SW_EXPECT_ANY,
                                .value = SW_S("{}"),
                                .extra = sw_out_done(&out),
                                .due_unix_ms = 5000},
              sw_loop_now_unix_s(w->loop));
    visit_deliver(w, &v, &key, &a);
    assert_int_equal(failed(&v), SW_OK);
    count_is(w, &key, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        DUE_TEST(set_and_kept),
        DUE_TEST(in_the_index),
        DUE_TEST(makes_a_state),
        DUE_TEST(renewed),
        DUE_TEST(with_a_large_state),
        DUE_TEST(refused),
        DUE_TEST(garbage),
        DUE_TEST(no_memory),
        DUE_TEST(enveloped),
        DUE_TEST(crossing),
        DUE_TEST(deliveries),
        DUE_TEST(delivered_to_a_visitor),
        DUE_TEST(delivered_by_an_alias),
        DUE_TEST(no_use),
        DUE_TEST(set_anew_meanwhile),
        DUE_TEST(taken_beside_a_write),
        DUE_TEST(fails_and_fails),
        DUE_TEST(unreadable_is_given_up),
        DUE_TEST(fails_in_a_crowd),
        DUE_TEST(failure_that_fails),
        DUE_TEST(fails_early_or_late),
        DUE_TEST(an_attempt_beyond_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
