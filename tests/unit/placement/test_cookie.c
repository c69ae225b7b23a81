/* unit/placement/test_cookie.c - state: sealed. What stands inside the seal, cut and changed at
 * every byte; clocks that disagree; sizes at their edges; what the store says no to. */
#include "world.h"

#include "placement/sealed_priv.h"

#define COOKIE_BYTES 8192

static int cookie_up(void **state)
{
    int rc = world_up(state);
    struct world *w = *state;

    w->route.placement = SW_PLACE_SEALED;
    w->route.sealed.cookie.name = SW_S("sid");
    w->route.sealed.cookie.path = SW_S("/");
    w->route.sealed.idle_s = IDLE_S;
    w->route.sealed.absolute_s = 100 * IDLE_S;
    return rc;
}
#define COOKIE_TEST(f) cmocka_unit_test_setup_teardown(f, cookie_up, world_down)

/* The value that the client gets, "" when it is cleared; false: no Set-Cookie. */
static bool given(const struct visit *v, char text[COOKIE_BYTES])
{
    struct sw_slice value = v->ask.client_lines;

    assert_int_equal(v->ask.sets_cookie, value.len > 0);
    if (value.len == 0) {
        return false;
    }
    assert_true(sw_slice_starts(value, SW_S("Set-Cookie: sid=")));
    value = sw_slice_tail(value, 16);
    value = sw_slice_head(value, sw_slice_find_slice(value, SW_S(";")));
    snprintf(text, COOKIE_BYTES, "%.*s", SW_SARG(value));
    return true;
}

static void make(struct world *w, const char *fields, char text[COOKIE_BYTES])
{
    struct visit v;

    visit_open(w, &v, NULL);
    assert_int_equal(commit(&v, fields), SW_OK);
    assert_true(given(&v, text));
    assert_true(strlen(text) > 0);
}

/* As the gateway would have sealed it at another time. */
static void seal(struct world *w, const struct sw_sealed *s, const struct sw_sealed_plain *p,
                 char text[COOKIE_BYTES])
{
    const struct sw_sealed_place place = {.service = w->app.name, .cookie = SW_S("sid")};
    char room[4096];
    struct sw_out plain = sw_out_init(room, sizeof(room)),
                  out = sw_out_init(text, COOKIE_BYTES - 1);

    assert_true(sw_sealed__plain_put(&plain, p));
    assert_int_equal(sw_sealed_put(&out, &w->keys, &place, s, sw_out_done(&plain)), SW_OK);
    text[out.len] = '\0';
}

static void is_state(struct world *w, const char *cookie, const char *want)
{
    struct visit v;

    visit_open(w, &v, cookie);
    assert_int_equal(v.ask.state_present, want != NULL);
    if (want != NULL && !sw_slice_eq(v.ask.state, sw_slice_cstr(want))) {
        fail_msg("%.*s, not %s", SW_SARG(v.ask.state), want);
    }
    visit_close(&v);
}

/* ---- inside the seal ------------------------------------------------------------------------- */

static void plain_there_and_back(void **state)
{
    struct sw_sealed_plain rows[] = {
        {.counter = 1, .state = SW_S("{}")},
        {.counter = UINT64_MAX, .state = SW_S("{\"n\":1}"), .end_unix_s = 1},
        {.counter = 2, .state = SW_S("{}"), .subject = SW_S("a"), .bound_unix_ms = INT64_MAX / 2},
        {.counter = 3, .state = SW_S("{}"), .linked = true, .link_end_unix_s = 5},
        {.counter = 4,
         .state = SW_S("{}"),
         .subject = SW_S("alice"),
         .bound_unix_ms = 7,
         .end_unix_s = 8,
         .linked = true,
         .link_end_unix_s = 9},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        char text[512];
        struct sw_out out = sw_out_init(text, sizeof(text));
        struct sw_sealed_plain got;
        struct sw_slice whole;

        memset(rows[i].link.bytes, rows[i].linked ? 0xa5 : 0, sizeof(rows[i].link.bytes));
        assert_true(sw_sealed__plain_put(&out, &rows[i]));
        whole = sw_out_done(&out);
        assert_int_equal(sw_sealed__plain_read(whole, &got), SW_OK);
        assert_true(got.counter == rows[i].counter);
        assert_true(got.bound_unix_ms == rows[i].bound_unix_ms);
        assert_true(got.end_unix_s == rows[i].end_unix_s);
        assert_int_equal(got.linked, rows[i].linked);
        assert_memory_equal(&got.link, &rows[i].link, sizeof(got.link));
        assert_true(got.link_end_unix_s == rows[i].link_end_unix_s);
        assert_true(sw_slice_eq(got.subject, rows[i].subject));
        assert_true(sw_slice_eq(got.state, rows[i].state));
        for (size_t cut = 0; cut < whole.len; cut++) { /* in memory of exactly that size */
            char *piece = malloc(cut + (cut == 0));

            memcpy(piece, text, cut);
            if (sw_sealed__plain_read(sw_slice_of(piece, cut), &got) == SW_OK) {
                assert_true(cut >= whole.len - rows[i].state.len + 2); /* at least "{}" */
            }
            free(piece);
        }
        for (size_t at = 0; at < 10; at++) { /* another format, other flags */
            text[at] = (char)(text[at] ^ 0x80);
            if (at == 0 || at == 9) {
                assert_int_equal(sw_sealed__plain_read(whole, &got), SW_E_SEALED);
            } else { /* another number: it is not for the format to say */
                assert_int_equal(sw_sealed__plain_read(whole, &got), SW_OK);
            }
            text[at] = (char)(text[at] ^ 0x80);
        }
        assert_false(rows[i].counter == 0);
        memset(text + 1, 0, 8); /* no version has that number */
        assert_int_equal(sw_sealed__plain_read(whole, &got), SW_E_SEALED);
    }
}

/* ---- clocks ---------------------------------------------------------------------------------- */

static void clocks(void **state)
{
    static const struct {
        const char *name;
        int64_t issued, expires, end; /* from now; end 0: none */
        bool there;
    } rows[] = {
        {"now", 0, 1000, 0, true},
        {"from a gateway whose clock is ahead", SW_SEALED_SKEW_S - 2, 1000, 0, true},
        {"from the future", SW_SEALED_SKEW_S + 3, 1000, 0, false},
        {"just not idle", -IDLE_S + 3, 1000, 0, true},
        {"idle", -IDLE_S, 1000, 0, false},
        {"its last seconds", 0, 3, 0, true},
        {"over", -1, 0, 0, false},
        {"long over", -IDLE_S / 2, -IDLE_S / 4, 0, false},
        {"the app's end is near", -10, 1000, 3, true},
        {"the app's end has come", -10, 1000, -1, false},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        int64_t now = sw_loop_now_unix_s(w->loop);
        struct sw_sealed_plain p = {.counter = 1, .state = SW_S("{\"n\":1}")};
        struct sw_sealed s = {.issued_unix_s = now + rows[i].issued,
                              .expires_unix_s = now + rows[i].expires};
        char text[COOKIE_BYTES];
        struct visit v;

        p.end_unix_s = rows[i].end == 0 ? 0 : now + rows[i].end;
        sw_random(s.id, sizeof(s.id));
        seal(w, &s, &p, text);
        visit_open(w, &v, text);
        if (v.ask.state_present != rows[i].there) {
            fail_msg("%s", rows[i].name);
        }
        assert_int_equal(v.ask.verdict, rows[i].there ? SW_VERDICT_KEPT : SW_VERDICT_EXPIRED);
        assert_int_equal(commit(&v, ""), SW_OK);
        if (!rows[i].there) {
            assert_true(given(&v, text));
            assert_string_equal(text, "");
        }
        assert_true(commits_made(w) == 0);
    }
}

/* Sent again past a tenth of the idle time, and when another key is active; not before. */
static void sent_again(void **state)
{
    static const int64_t ages[] = {-20, 0, IDLE_S / 10 - 2, IDLE_S / 10, IDLE_S - 3};
    struct world *w = *state;
    struct sw_keyring fresh;

    for (size_t i = 0; i < SW_COUNTOF(ages); i++) {
        int64_t now = sw_loop_now_unix_s(w->loop);
        struct sw_sealed_plain p = {.counter = 7, .state = SW_S("{\"n\":1}")};
        struct sw_sealed s = {.issued_unix_s = now - ages[i], .expires_unix_s = now + 1000};
        struct sw_version version;
        char text[COOKIE_BYTES];
        struct visit v;

        sw_random(s.id, sizeof(s.id));
        seal(w, &s, &p, text);
        visit_open(w, &v, text);
        version = v.ask.version;
        assert_int_equal(commit(&v, ""), SW_OK);
        assert_int_equal(given(&v, text), ages[i] >= IDLE_S / 10);
        assert_int_equal(v.ask.verdict, SW_VERDICT_KEPT);
        assert_true(sw_version_eq(v.ask.version, version)); /* the same state */
        is_state(w, text, "{\"n\":1}");
        sw_keyring_make(now, &fresh);
        w->keys.keys[1] = fresh.keys[0];
        w->keys.keys[1].id = 2;
        w->keys.count = 2;
        w->keys.active = 1;
        visit_open(w, &v, text);
        assert_int_equal(commit(&v, ""), SW_OK);
        assert_true(given(&v, text));
        w->keys.keys[0] = w->keys.keys[1]; /* the other one may retire */
        w->keys.count = 1;
        w->keys.active = 0;
        w->keys.keys[0].id = 1;
        is_state(w, text, NULL); /* its id is part of what is sealed */
        w->keys.keys[0].id = 2;
        is_state(w, text, "{\"n\":1}");
        w->keys.keys[0].id = 1;
    }
    assert_true(commits_made(w) == 0);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static const char *set_text(size_t bytes)
{
    static char text[8192];
    size_t n = (size_t)snprintf(text, sizeof(text), "Stateway-Set: {\"m\":\"");

    memset(text + n, 'x', bytes);
    snprintf(text + n + bytes, sizeof(text) - n - bytes, "\"}\r\n");
    return text;
}

static void one_byte_too_many(void **state)
{
    struct world *w = *state;
    char text[COOKIE_BYTES], old[COOKIE_BYTES];
    struct visit v;
    size_t n;

    for (n = 2500; n < 3500; n++) {
        visit_open(w, &v, NULL);
        if (commit(&v, set_text(n)) != SW_OK) {
            break;
        }
        assert_true(given(&v, text));
        assert_true(strlen("sid") + strlen(text) <= SW_SEALED_BYTES_MAX);
    }
    assert_int_equal(v.ask.err, SW_E_SEALED_LARGE);
    assert_true(v.ask.sealed.needs_bytes > SW_SEALED_BYTES_MAX);
    assert_true(v.ask.sealed.needs_bytes_max == SW_SEALED_BYTES_MAX);
    assert_true(strlen("sid") + strlen(text) > SW_SEALED_BYTES_MAX - 4); /* no byte is given away */
    memcpy(old, text, sizeof(old));
    visit_open(w, &v, old);
    assert_int_equal(commit(&v, set_text(n)), SW_E_SEALED_LARGE);
    assert_false(given(&v, text));
    visit_open(w, &v, old);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"y\":1}\r\n"), SW_E_SEALED_LARGE);
    visit_open(w, &v, old);
    assert_int_equal(commit(&v, set_text(5000)), SW_E_SEALED_LARGE);
    visit_open(w, &v, old);
    assert_int_equal(commit(&v, "Stateway-Patch: {\"m\":null}\r\n"), SW_OK);
}

/* "Cookie: " and all of the client's cookies, with ours as it will be. */
static void the_whole_field(void **state)
{
    struct world *w = *state;
    char text[COOKIE_BYTES], with[2 * COOKIE_BYTES], out[COOKIE_BYTES];
    struct visit v;

    make(w, set_text(100), text);
    for (int more = -1; more <= 1; more++) {
        size_t ours = strlen("Cookie: sid=") + strlen(text) + strlen("; f=");
        int pad = (int)(SW_COOKIE_FIELD_BYTES_MAX - ours) + more;

        snprintf(with, sizeof(with), "%s; f=%0*d", text, pad, 0);
        visit_open(w, &v, with);
        assert_int_equal(commit(&v, set_text(100)), more > 0 ? SW_E_SEALED_LARGE : SW_OK);
        assert_int_equal(given(&v, out), more <= 0);
        if (more > 0) {
            assert_true(v.ask.sealed.needs_bytes == SW_COOKIE_FIELD_BYTES_MAX + 1);
            assert_true(v.ask.sealed.needs_bytes_max == SW_COOKIE_FIELD_BYTES_MAX);
        }
    }
}

/* ---- the store ------------------------------------------------------------------------------- */

static void guard(void **state)
{
    struct world *w = *state;
    char first[COOKIE_BYTES], second[COOKIE_BYTES], text[COOKIE_BYTES];
    struct visit v, late;

    w->route.sealed.replay_guard = true;
    make(w, "Stateway-Set: {\"n\":1}\r\n", first);
    assert_true(commits_made(w) == 1);
    visit_open(w, &v, first);
    visit_open(w, &late, first);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_OK);
    assert_true(given(&v, second));
    assert_int_equal(commit(&late, "Stateway-Set: {\"n\":3}\r\n"), SW_E_SEALED_OLD);
    assert_int_equal(late.ask.verdict, SW_VERDICT_CONFLICTED);
    assert_false(given(&late, text));
    assert_int_equal(visit_try(w, &v, first), SW_E_SEALED_OLD); /* a POST */
    visit_close(&v);
    visit_open(w, &v, second);
    visit_open(w, &late, second);
    assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_OK);
    assert_true(given(&v, text));
    assert_string_equal(text, "");
    assert_int_equal(commit(&late, "Stateway-Set: {\"n\":4}\r\n"), SW_E_STATE_GONE);
    assert_int_equal(late.ask.verdict, SW_VERDICT_REVOKED);
    visit_open(w, &v, second);
    assert_int_equal(v.ask.verdict, SW_VERDICT_REVOKED);
    visit_close(&v);
    visit_open(w, &v, first);
    assert_int_equal(v.ask.verdict, SW_VERDICT_REVOKED);
    visit_close(&v);
}

/* A store that was set back knows an older number: what was sealed later is ours all the same. */
static void guard_set_back(void **state)
{
    struct world *w = *state;
    int64_t now = sw_loop_now_unix_s(w->loop);
    struct sw_sealed_plain p = {.counter = 9, .state = SW_S("{\"n\":9}")};
    struct sw_sealed s = {.issued_unix_s = now, .expires_unix_s = now + 1000};
    struct sw_store_key key;
    char text[COOKIE_BYTES];
    struct visit v;

    w->route.sealed.replay_guard = true;
    sw_random(s.id, sizeof(s.id));
    sw_revoke_sealed_key(s.id, &key);
    write_raw(w,
              (struct sw_write){.kind = SW_WRITE_PUT,
                                .key = key,
                                .record = SW_RECORD_STATE,
                                .expect = SW_EXPECT_ANY,
                                .value = SW_S("5"),
                                .expires_unix_s = now + 1000},
              now);
    seal(w, &s, &p, text);
    is_state(w, text, "{\"n\":9}");
    visit_open(w, &v, text);
    assert_int_equal(commit(&v, "Stateway-Set: {\"n\":10}\r\n"), SW_OK);
    assert_int_equal(visit_try(w, &v, text), SW_E_SEALED_OLD);
    visit_close(&v);
}

static void store_says_no(void **state)
{
    static const enum sw_err errs[] = {SW_E_STORE_FULL, SW_E_STORE_IO, SW_E_STORE_BUSY};
    struct world *w = *state;

    w->route.sealed.replay_guard = true;
    for (size_t i = 0; i < SW_COUNTOF(errs); i++) {
        for (int applied = 0; applied < 2; applied++) {
            struct fate fate = {
                .fault = {.err = applied ? SW_OK : errs[i], .apply_then_fail = applied != 0},
                .times = 1};
            char text[COOKIE_BYTES], out[COOKIE_BYTES];
            struct visit v;

            make(w, "Stateway-Set: {\"n\":1}\r\n", text);
            visit_open(w, &v, text);
            sw_store_mem_faults(w->store, on_commit, &fate);
            assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_E_COMMIT);
            assert_false(given(&v, out)); /* a client that reads no success has no new state */
            sw_store_mem_faults(w->store, NULL, NULL);
            visit_open(w, &v, NULL);
            sw_store_mem_faults(w->store, on_commit, &fate);
            fate.asked = 0;
            fate.times = 1;
            assert_int_equal(commit(&v, "Stateway-Set: {\"n\":2}\r\n"), SW_E_COMMIT);
            assert_false(given(&v, out));
            sw_store_mem_faults(w->store, NULL, NULL);
        }
    }
}

/* A logout whose note could not be written is none: the cookie stays, and the client is told. */
static void logout_that_fails(void **state)
{
    struct fate fate = {.fault = {.err = SW_E_STORE_IO}, .times = 1};
    struct world *w = *state;
    char text[COOKIE_BYTES], out[COOKIE_BYTES];
    struct visit v;

    make(w, "Stateway-Set: {\"n\":1}\r\n", text);
    visit_open(w, &v, text);
    sw_store_mem_faults(w->store, on_commit, &fate);
    assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_E_COMMIT);
    sw_store_mem_faults(w->store, NULL, NULL);
    assert_false(given(&v, out));
    is_state(w, text, "{\"n\":1}");
}

/* However often the id was renewed: a logout by the first of them ends the last. */
static void logout_by_an_old_id(void **state)
{
    struct world *w = *state;
    char first[COOKIE_BYTES], text[COOKIE_BYTES], out[COOKIE_BYTES];
    struct visit v, slow;

    make(w, "Stateway-Set: {\"n\":1}\r\n", first);
    memcpy(text, first, sizeof(text));
    visit_open(w, &slow, first);
    for (int i = 0; i < 3; i++) {
        visit_open(w, &v, text);
        assert_int_equal(commit(&v, "Stateway-Renew: ?1\r\n"), SW_OK);
        assert_true(given(&v, text));
    }
    assert_int_equal(visit_try(w, &v, first), SW_E_SEALED_OLD);
    visit_close(&v);
    assert_int_equal(commit(&slow, "Stateway-Set: {\"n\":2}\r\n"), SW_E_SEALED_OLD);
    is_state(w, text, "{\"n\":1}");
    visit_open(w, &v, text);
    assert_int_equal(commit(&v, "Stateway-Delete: ?1\r\n"), SW_OK);
    assert_true(given(&v, out));
    is_state(w, first, NULL);
    is_state(w, text, NULL);
}

/* The link is followed once: with the state's return. */
static void link_ends(void **state)
{
    struct world *w = *state;
    int64_t now = sw_loop_now_unix_s(w->loop);
    struct sw_sealed_plain p = {
        .counter = 1, .state = SW_S("{\"n\":1}"), .linked = true, .link_end_unix_s = now + 1000};
    struct sw_sealed s = {.issued_unix_s = now, .expires_unix_s = now + 1000};
    char text[COOKIE_BYTES], out[COOKIE_BYTES];
    struct visit v, beside;
    struct kept *k;

    sw_random(s.id, sizeof(s.id));
    memset(p.link.bytes, 0x5a, sizeof(p.link.bytes));
    write_raw(w,
              (struct sw_write){.kind = SW_WRITE_PUT,
                                .key = p.link,
                                .record = SW_RECORD_STATE,
                                .expect = SW_EXPECT_ANY,
                                .value = SW_S("{}"),
                                .expires_unix_s = now + 1000},
              now);
    seal(w, &s, &p, text);
    visit_open(w, &v, text);
    visit_open(w, &beside, text);
    assert_int_equal(commit_status(&v, 500, ""), SW_OK); /* the app failed: nothing happens */
    k = kept_get(w, &p.link);
    assert_int_equal(k->record.kind, SW_RECORD_STATE);
    free(k);
    visit_open(w, &v, text);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_true(given(&v, out));
    k = kept_get(w, &p.link);
    assert_int_equal(k->record.kind, SW_RECORD_TOMBSTONE);
    free(k);
    assert_int_equal(commit(&beside, "Stateway-Set: {\"n\":2}\r\n"),
                     SW_OK); /* it is ended already */
    visit_open(w, &v, out);
    assert_false(v.ask.sealed.plain.linked);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_false(given(&v, out));
}

static void cut_off(void **state)
{
    struct world *w = *state;
    char text[COOKIE_BYTES], out[COOKIE_BYTES];
    struct visit v, slow;

    make(w, "Stateway-Set: {\"n\":1}\r\nStateway-Subject: alice\r\n", text);
    visit_open(w, &slow, text);
    write_raw(w,
              (struct sw_write){.kind = SW_WRITE_CUTOFF,
                                .subject = SW_S("alice"),
                                .not_before_unix_ms = sw_loop_now_unix_ms(w->loop) + 1},
              sw_loop_now_unix_s(w->loop));
    assert_int_equal(commit(&slow, "Stateway-Set: {\"n\":2}\r\n"), SW_E_STATE_GONE);
    assert_false(given(&slow, out));
    visit_open(w, &v, text);
    assert_int_equal(v.ask.verdict, SW_VERDICT_REVOKED);
    assert_int_equal(commit(&v, ""), SW_OK);
    assert_true(given(&v, out));
    assert_string_equal(out, "");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_there_and_back),
        COOKIE_TEST(clocks),
        COOKIE_TEST(sent_again),
        COOKIE_TEST(one_byte_too_many),
        COOKIE_TEST(the_whole_field),
        COOKIE_TEST(guard),
        COOKIE_TEST(guard_set_back),
        COOKIE_TEST(store_says_no),
        COOKIE_TEST(logout_that_fails),
        COOKIE_TEST(logout_by_an_old_id),
        COOKIE_TEST(link_ends),
        COOKIE_TEST(cut_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
