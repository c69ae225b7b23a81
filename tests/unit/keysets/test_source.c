/* keysets/: one source through time: rotation, failures, floods. Nothing here waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "keysets/keysets_priv.h"
#include "world.h"

#define START_S 1000 /* of the monotonic clock */
#define UNIX_S  1760000000

static struct world world;

struct room {
    struct sw_keysets keysets;
    struct sw_keyset *ks;
    struct sw_keyset_view view;
    struct sw_loop *loop;
    uint64_t now_ns;
    unsigned told, done;
    enum sw_log_level level;
    char text[1024];
};

static void on_tell(void *arg, enum sw_log_level level, const char *text)
{
    struct room *r = arg;

    r->told++;
    r->level = level;
    (void)snprintf(r->text, sizeof(r->text), "%s", text);
}

static void room_open(struct room *r, const char *source, bool url)
{
    const struct sw_jwks_rules rules = {
        .algs = url ? SW_JOSE_PUBLIC : SW_JOSE_PUBLIC | SW_JOSE_SECRETS,
    };
    const struct sw_loop_options opt = {
        .engine = SW_ENGINE_EPOLL,
        .streams_max = 4,
        .buffers_max = 4,
        .large_max = 1,
        .large_bytes = 65536,
    };

    memset(r, 0, sizeof(*r));
    r->keysets.opt = (struct sw_keysets_options){
        .tell = on_tell,
        .arg = r,
        .times = {.fresh_ms = SW_KEYSET_FRESH_S * 1000,
                  .fresh_ms_min = SW_KEYSET_FRESH_S_MIN * 1000,
                  .fresh_ms_max = SW_KEYSET_FRESH_S_MAX * 1000,
                  .file_ms = SW_KEYSET_FILE_S * 1000,
                  .again_ms = SW_KEYSET_AGAIN_S * 1000,
                  .fetch_ms = SW_KEYSET_FETCH_MS,
                  .retry_ms = 1000,
                  .retry_ms_max = SW_KEYSET_RETRY_S_MAX * 1000,
                  .keep_ms = SW_KEYSET_KEEP_S * 1000},
    };
    sw_rng_seed(&r->keysets.rng, 7);
    r->now_ns = START_S * SW_NS_PER_S;
    assert_int_equal(sw_loop_new(&opt, &r->loop), SW_OK);
    assert_int_equal(
        sw_keysets__source_new(&r->keysets, sw_slice_cstr(source), url, &rules, &r->ks), SW_OK);
    r->view.keyset = r->ks;
}

static void room_close(struct room *r)
{
    sw_keyset_view_fini(&r->view);
    sw_keysets__source_free(r->ks);
    sw_loop_free(r->loop);
}

static void later(struct room *r, uint64_t s)
{
    r->now_ns += s * SW_NS_PER_S;
    sw_keysets__expire(r->ks, r->now_ns);
}

static void take(struct room *r, struct sw_slice text)
{
    sw_keysets__took(r->ks, text, -1, r->now_ns, UNIX_S);
}

static void take_keys(struct room *r, uint32_t which)
{
    take(r, world_set(&world, which));
}

static const struct sw_jwks *seen(struct room *r)
{
    return sw_keyset_view_get(&r->view);
}

#define FAILS(r, key) assert_int_equal(world_verify(&world, key, true, seen(r)), SW_E_TOKEN_KID)
#define GOES(r, key)  assert_int_equal(world_verify(&world, key, true, seen(r)), SW_OK)

static struct sw_keyset_stats stats(const struct room *r)
{
    return r->ks->stats; /* nobody else is there */
}

/* ---- rotation ---------------------------------------------------------------------------------
 */

static void nothing_yet(void **state)
{
    struct room r;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    assert_null(seen(&r));
    assert_true(sw_keysets__due(r.ks, r.now_ns));
    assert_false(sw_keysets__due(r.ks, r.now_ns)); /* it is under way */
    sw_keysets__failed(r.ks, "the name is not known", r.now_ns);
    assert_null(seen(&r));
    assert_int_equal(r.told, 1);
    assert_int_equal(r.level, SW_LOG_WARN);
    assert_non_null(strstr(r.text, "https://id.example/keys: the name is not known"));
    assert_non_null(strstr(r.text, "503"));
    take_keys(&r, SW_BIT(0));
    assert_int_equal(r.told, 2);
    GOES(&r, 0);
    assert_int_equal(stats(&r).good_unix_s, UNIX_S);
    assert_int_equal(stats(&r).failures, 1);
    room_close(&r);
}

static void the_same_set_is_the_same(void **state)
{
    struct room r;
    const struct sw_jwks *first;

    (void)state;
    room_open(&r, "/keys.json", false);
    take_keys(&r, SW_BIT(0));
    first = seen(&r);
    later(&r, 10);
    take_keys(&r, SW_BIT(0));
    assert_ptr_equal(seen(&r), first); /* else each worker would forget its verified tokens */
    assert_int_equal(r.told, 1);
    room_close(&r);
}

static void a_removed_key_is_kept_a_while(void **state)
{
    struct room r;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    take_keys(&r, SW_BIT(0) | SW_BIT(1));
    take_keys(&r, SW_BIT(1));
    GOES(&r, 0);
    GOES(&r, 1);
    assert_int_equal(stats(&r).keys, 1);
    assert_int_equal(stats(&r).kept, 1);
    later(&r, SW_KEYSET_KEEP_S - 1);
    GOES(&r, 0);
    assert_true(sw_keysets__next_ns(r.ks) <= r.now_ns + SW_NS_PER_S); /* the thread comes in time */
    later(&r, 1);
    FAILS(&r, 0);
    GOES(&r, 1);
    assert_int_equal(stats(&r).kept, 0);
    room_close(&r);
}

/* Each key has its own time, and a key that returns is none of the kept ones any more. */
static void removed_one_by_one(void **state)
{
    struct room r;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    take_keys(&r, SW_BIT(0));
    take_keys(&r, SW_BIT(1));
    later(&r, 100);
    take_keys(&r, SW_BIT(2));
    assert_int_equal(stats(&r).kept, 2);
    later(&r, 100);
    take_keys(&r, SW_BIT(0) | SW_BIT(2));
    assert_int_equal(stats(&r).kept, 1);
    later(&r, SW_KEYSET_KEEP_S - 100);
    GOES(&r, 0);
    FAILS(&r, 1);
    later(&r, SW_KEYSET_KEEP_S);
    GOES(&r, 0);
    GOES(&r, 2);
    room_close(&r);
}

/* Without a kid there must be one key to take, and that is one of the set. */
static void tokens_without_kid(void **state)
{
    struct room r;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    take_keys(&r, SW_BIT(0));
    assert_int_equal(world_verify(&world, 0, false, seen(&r)), SW_OK);
    take_keys(&r, SW_BIT(1));
    assert_int_equal(world_verify(&world, 1, false, seen(&r)), SW_OK);
    assert_int_equal(world_verify(&world, 0, false, seen(&r)), SW_E_TOKEN_SIGNATURE);
    GOES(&r, 0);
    room_close(&r);
}

/* The same id for another key: the new one is meant, and at once. */
static void a_clash_of_ids(void **state)
{
    static const char named[] =
        "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"k\",\"x\":"
        "\"%.*s\"}]}";
    struct sw_slice xs[2];
    char set[2][512], thumb[2][SW_JWK_THUMB_CHARS], got[SW_JWK_THUMB_CHARS];
    struct room r;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    for (size_t i = 0; i < 2; i++) {
        struct sw_slice text = world_set(&world, SW_BIT(i));
        size_t at = sw_slice_find_slice(text, SW_S("\"x\":\"")) + 5;

        xs[i] = sw_slice_tail(text, at);
        xs[i] = sw_slice_head(xs[i], sw_slice_find(xs[i], '"'));
        (void)snprintf(set[i], sizeof(set[i]), named, SW_SARG(xs[i]));
        sw_jwk_thumbprint(sw_jwks_at(world.keys[i], 0), thumb[i]);
    }
    take(&r, sw_slice_cstr(set[0]));
    take(&r, sw_slice_cstr(set[1]));
    assert_int_equal(sw_jwks_count(seen(&r)), 1);
    sw_jwk_thumbprint(sw_jwks_at(seen(&r), 0), got);
    assert_memory_equal(got, thumb[1], sizeof(got));
    room_close(&r);
}

/* A file that held a shared secret and now holds public keys: both together would be a set that is
 * refused in one piece. */
static void secrets_are_not_kept_beside_public_keys(void **state)
{
    static const struct sw_slice secret = SW_S(
        "{\"kty\":\"oct\",\"kid\":\"s\",\"k\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}");
    struct room r;

    (void)state;
    room_open(&r, "/keys.json", false);
    take(&r, secret);
    assert_int_equal(sw_jwks_count(seen(&r)), 1);
    take_keys(&r, SW_BIT(0));
    assert_int_equal(sw_jwks_count(seen(&r)), 1);
    GOES(&r, 0);
    room_close(&r);
    room_open(&r, "https://id.example/keys", true);
    take(&r, secret); /* whoever gives out a secret to the world has none */
    assert_null(seen(&r));
    assert_true(stats(&r).failing);
    room_close(&r);
}

/* An issuer that changes all its keys all the time costs no more than so many. */
static void rotation_without_end(void **state)
{
    char text[SW_JWKS_KEYS_MAX * 128];
    struct room r;

    (void)state;
    room_open(&r, "/keys.json", false);
    for (unsigned turn = 0; turn < 10; turn++) {
        struct sw_out out = sw_out_init(text, sizeof(text));

        sw_out_lit(&out, "{\"keys\":[");
        for (unsigned i = 0; i < SW_JWKS_KEYS_MAX; i++) {
            sw_out_printf(&out,
                          "%s{\"kty\":\"oct\",\"kid\":\"%u-%u\",\"k\":"
                          "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
                          i == 0 ? "" : ",", turn, i);
        }
        sw_out_lit(&out, "]}");
        take(&r, sw_out_done(&out));
        assert_int_equal(sw_jwks_count(seen(&r)), SW_JWKS_KEYS_MAX);
        assert_true(r.ks->kept_count <= SW_JWKS_KEYS_MAX);
    }
    take_keys(&r, SW_BIT(0));
    take(&r, SW_S("{\"keys\":[{\"kty\":\"oct\",\"kid\":\"n\",\"k\":"
                  "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}]}"));
    assert_true(sw_jwks_count(seen(&r)) <= SW_JWKS_KEYS_MAX);
    room_close(&r);
}

/* ---- failures ---------------------------------------------------------------------------------
 */

static const struct {
    const char *name, *text;
} bad_rows[] = {
    {"nothing", ""},
    {"half written", "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed255"},
    {"a page", "<!DOCTYPE html><html>404</html>"},
    {"an empty set", "{\"keys\":[]}"},
    {"no key that can be used", "{\"keys\":[{\"kty\":\"RSA\",\"use\":\"enc\"}]}"},
    {"another document", "{\"issuer\":\"https://id.example\"}"},
    {"not JSON at its end", "{\"keys\":[]}x"},
};

static void the_last_good_set_stands(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(bad_rows); i++) {
        const struct sw_jwks *before;
        struct room r;

        room_open(&r, "https://id.example/keys", true);
        take_keys(&r, SW_BIT(0));
        before = seen(&r);
        for (unsigned n = 0; n < 20; n++) {
            later(&r, 100);
            take(&r, sw_slice_cstr(bad_rows[i].text));
        }
        if (seen(&r) != before || r.told != 2 || r.level != SW_LOG_WARN ||
            stats(&r).failures != 20 || !stats(&r).failing) {
            fail_msg("%s: told %u: %s", bad_rows[i].name, r.told, r.text);
        }
        take_keys(&r, SW_BIT(0)); /* as it was before */
        if (seen(&r) != before || r.told != 3 || stats(&r).failing) {
            fail_msg("%s, and back: told %u: %s", bad_rows[i].name, r.told, r.text);
        }
        room_close(&r);
    }
}

static void one_line_for_each_change(void **state)
{
    struct room r;

    (void)state;
    room_open(&r, "https://user:secret@id.example/keys?token=secret#secret", true);
    for (unsigned i = 0; i < 5; i++) {
        sw_keysets__failed(r.ks, "no route", r.now_ns);
    }
    assert_int_equal(r.told, 1);
    assert_null(strstr(r.text, "secret"));
    assert_true(sw_slice_eq(stats(&r).source, SW_S("https://id.example/keys")));
    take_keys(&r, SW_BIT(0));
    take_keys(&r, SW_BIT(0));
    assert_int_equal(r.told, 2);
    take_keys(&r, SW_BIT(1));
    assert_int_equal(r.told, 3);
    assert_non_null(strstr(r.text, "changed: 1 key, and 1 of before for 300 s"));
    sw_keysets__failed(r.ks, "status 500", r.now_ns);
    sw_keysets__failed(r.ks, "status 502", r.now_ns);
    assert_int_equal(r.told, 4);
    take_keys(&r, SW_BIT(1) | SW_BIT(2));
    assert_int_equal(r.told, 5);
    assert_non_null(strstr(r.text, "again"));
    room_close(&r);
}

static void keys_that_are_not_used_are_told(void **state)
{
    struct room r;
    char text[1024];
    struct sw_slice set = world_set(&world, SW_BIT(0));

    (void)state;
    (void)snprintf(text, sizeof(text),
                   "%.*s,{\"kty\":\"RSA\",\"n\":\"_wAAAAAAAAE\",\"e\":\"AQAB\"}]}",
                   (int)set.len - 2, set.ptr);
    room_open(&r, "/keys.json", false);
    take(&r, sw_slice_cstr(text));
    assert_non_null(strstr(r.text, "1 key; 1 more is not used, the first (number 2 of the set)"));
    assert_null(strstr(r.text, "_wAAAAAAAAE"));
    room_close(&r);
}

/* 1 s, 2, 4 ... 60, a little earlier each; after a success from the beginning. */
static void failures_are_tried_again_ever_later(void **state)
{
    struct room r;
    uint64_t want_ms = 1000;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 12; i++) {
            assert_true(sw_keysets__due(r.ks, r.now_ns));
            sw_keysets__failed(r.ks, "no", r.now_ns);
            assert_false(
                sw_keysets__due(r.ks, r.now_ns + want_ms * 7 / 8 * SW_NS_PER_MS - 1000000));
            r.now_ns += want_ms * SW_NS_PER_MS;
            want_ms = SW_MIN(2 * want_ms, SW_KEYSET_RETRY_S_MAX * 1000ull);
        }
        assert_true(sw_keysets__due(r.ks, r.now_ns));
        take_keys(&r, SW_BIT(0));
        assert_false(sw_keysets__due(r.ks, r.now_ns + SW_KEYSET_FRESH_S * SW_NS_PER_S * 7 / 8 -
                                               SW_NS_PER_MS));
        r.now_ns += SW_KEYSET_FRESH_S * SW_NS_PER_S;
        want_ms = 1000;
    }
    room_close(&r);
}

static void freshness_has_bounds(void **state)
{
    static const struct {
        int64_t said_s;
        uint64_t kept_s;
    } rows[] = {
        {-1, SW_KEYSET_FRESH_S},
        {0, SW_KEYSET_FRESH_S_MIN},
        {59, SW_KEYSET_FRESH_S_MIN},
        {61, 61},
        {600, 600},
        {3601, SW_KEYSET_FRESH_S_MAX},
        {INT32_MAX, SW_KEYSET_FRESH_S_MAX},
    };
    struct room r;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        uint64_t ms;

        sw_keysets__took(r.ks, world_set(&world, 1), rows[i].said_s, r.now_ns, UNIX_S);
        ms = (sw_keysets__next_ns(r.ks) - r.now_ns) / SW_NS_PER_MS;
        if (ms > rows[i].kept_s * 1000 || ms < rows[i].kept_s * 1000 * 7 / 8) {
            fail_msg("said %lld: %llu ms", (long long)rows[i].said_s, (unsigned long long)ms);
        }
    }
    room_close(&r);
}

/* ---- tokens with unknown keys -----------------------------------------------------------------
 */

static void on_done(struct sw_key_wait *wait)
{
    struct room *r = wait->arg;

    r->done++;
}

static void on_turn(struct sw_post *post, void *arg)
{
    struct room *r = arg;

    (void)post;
    sw_loop_stop(r->loop);
}

static unsigned turn(struct room *r)
{
    struct sw_post post = {.fn = on_turn, .arg = r};

    r->done = 0;
    sw_loop_post(r->loop, &post);
    sw_loop_run(r->loop);
    return r->done;
}

static enum sw_step want(struct room *r, struct sw_slice kid, struct sw_key_wait *wait,
                         bool *ret_order)
{
    *wait = (struct sw_key_wait){.loop = r->loop, .done = on_done, .arg = r};
    return sw_keysets__want(r->ks, kid, wait, r->now_ns, ret_order);
}

static void one_fetch_for_all(void **state)
{
    struct sw_key_wait waits[3], late;
    struct room r;
    bool order;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    assert_true(sw_keysets__due(r.ks, r.now_ns));
    take_keys(&r, SW_BIT(0));
    later(&r, 30);
    assert_int_equal(want(&r, world_kid(&world, 1), &waits[0], &order), SW_STEP_MORE);
    assert_true(order);
    for (size_t i = 1; i < 3; i++) {
        assert_int_equal(want(&r, world_kid(&world, i), &waits[i], &order), SW_STEP_MORE);
        assert_false(order);
    }
    assert_true(sw_keysets__due(r.ks, r.now_ns));
    assert_false(sw_keysets__due(r.ks, r.now_ns));
    assert_int_equal(turn(&r), 0);
    take_keys(&r, SW_BIT(0) | SW_BIT(1));
    assert_int_equal(turn(&r), 3);
    GOES(&r, 1);
    assert_int_equal(stats(&r).fetches, 2);
    /* who looked before it came is told at once, and nothing is fetched */
    assert_int_equal(want(&r, world_kid(&world, 1), &late, &order), SW_STEP_MORE);
    assert_false(order);
    assert_int_equal(turn(&r), 1);
    /* and what was not there is not asked for again, as long as another fetch would be too soon */
    assert_int_equal(want(&r, world_kid(&world, 2), &late, &order), SW_STEP_DONE);
    later(&r, SW_KEYSET_AGAIN_S - 1);
    assert_int_equal(want(&r, world_kid(&world, 3), &late, &order), SW_STEP_DONE);
    later(&r, 1);
    assert_int_equal(want(&r, world_kid(&world, 2), &late, &order), SW_STEP_MORE);
    assert_true(order);
    assert_int_equal(stats(&r).refused, 2);
    sw_keysets__failed(r.ks, "no", r.now_ns);
    assert_int_equal(turn(&r), 1); /* also a failure ends the wait */
    GOES(&r, 0);
    room_close(&r);
}

/* A fetch that was due anyway is joined; what it did not bring is remembered. */
static void an_id_that_was_not_there(void **state)
{
    struct sw_key_wait wait;
    struct room r;
    bool order;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    assert_true(sw_keysets__due(r.ks, r.now_ns));
    assert_int_equal(want(&r, world_kid(&world, 1), &wait, &order), SW_STEP_MORE);
    assert_false(order);
    take_keys(&r, SW_BIT(0));
    assert_int_equal(turn(&r), 1);
    assert_int_equal(want(&r, world_kid(&world, 1), &wait, &order), SW_STEP_DONE);
    assert_int_equal(want(&r, world_kid(&world, 2), &wait, &order), SW_STEP_MORE);
    assert_true(order);
    assert_true(sw_keysets__due(r.ks, r.now_ns));
    take_keys(&r, SW_BIT(0));
    assert_int_equal(turn(&r), 1);
    room_close(&r);
}

static void files_are_not_asked_for(void **state)
{
    struct sw_key_wait wait;
    struct room r;
    bool order;

    (void)state;
    room_open(&r, "/keys.json", false);
    take_keys(&r, SW_BIT(0));
    assert_int_equal(want(&r, SW_S("other"), &wait, &order), SW_STEP_DONE);
    assert_int_equal(want(&r, SW_S(""), &wait, &order), SW_STEP_DONE);
    assert_false(order);
    room_close(&r);
}

/* 10,000 tokens within a minute, each with another id: some fetches, no memory. */
static void a_flood_of_unknown_ids(void **state)
{
    enum { TOKENS = 10000, SECONDS = 60 };
    static struct sw_key_wait waits[TOKENS];
    unsigned orders = 0, more = 0, answered = 0;
    struct room r;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    assert_true(sw_keysets__due(r.ks, r.now_ns));
    take_keys(&r, SW_BIT(0));
    for (unsigned i = 0; i < TOKENS; i++) {
        char kid[32];
        bool order;

        (void)snprintf(kid, sizeof(kid), "random-%u", i);
        more += want(&r, sw_slice_cstr(kid), &waits[i], &order) == SW_STEP_MORE ? 1 : 0;
        orders += order ? 1 : 0;
        if (order) {
            assert_true(sw_keysets__due(r.ks, r.now_ns));
        } else if (i % 50 == 0 && r.ks->busy) { /* a fetch takes 0.3 s */
            take_keys(&r, SW_BIT(0));
            answered += turn(&r);
        }
        r.now_ns += SECONDS * SW_NS_PER_S / TOKENS;
    }
    if (r.ks->busy) {
        take_keys(&r, SW_BIT(0));
        answered += turn(&r);
    }
    assert_int_equal(orders, SECONDS / SW_KEYSET_AGAIN_S);
    assert_int_equal(stats(&r).fetches, orders + 1);
    assert_int_equal(more, answered);
    assert_int_equal(stats(&r).refused, TOKENS - more);
    assert_true(more < 2000);
    assert_int_equal(r.told, 1);
    GOES(&r, 0);
    room_close(&r);
}

/* So many may wait for one fetch, and no more. */
static void a_crowd_waits(void **state)
{
    static struct sw_key_wait waits[SW_KEYSET_WAITS_MAX + 10];
    struct room r;
    bool order;

    (void)state;
    room_open(&r, "https://id.example/keys", true);
    for (size_t i = 0; i < SW_COUNTOF(waits); i++) {
        char kid[32];

        (void)snprintf(kid, sizeof(kid), "%zu", i);
        assert_int_equal(want(&r, sw_slice_cstr(kid), &waits[i], &order),
                         i < SW_KEYSET_WAITS_MAX ? SW_STEP_MORE : SW_STEP_DONE);
        assert_int_equal(order, i == 0);
    }
    assert_true(sw_keysets__due(r.ks, r.now_ns));
    take_keys(&r, SW_BIT(0));
    assert_int_equal(turn(&r), SW_KEYSET_WAITS_MAX);
    assert_int_equal(stats(&r).refused, 10);
    room_close(&r);
}

/* ---- texts ------------------------------------------------------------------------------------
 */

static void names_hide_what_may_be_secret(void **state)
{
    static const struct {
        const char *source;
        bool url;
        const char *name;
    } rows[] = {
        {"https://id.example/keys", true, "https://id.example/keys"},
        {"https://id.example", true, "https://id.example"},
        {"https://u:p@id.example/keys", true, "https://id.example/keys"},
        {"https://u:p@w@id.example/a@b", true, "https://id.example/a@b"},
        {"https://id.example?k=1", true, "https://id.example"},
        {"https://id.example/?k=u@v", true, "https://id.example/"},
        {"https://id.example#f?k", true, "https://id.example"},
        {"http://127.0.0.1:8080/k?x", true, "http://127.0.0.1:8080/k"},
        {"/etc/keys?x#y@z", false, "/etc/keys?x#y@z"},
        {"/etc/\nkeys\x7f", false, "/etc/?keys?"},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        char buf[256];
        struct sw_out out = sw_out_init(buf, sizeof(buf));

        sw_keysets__name_put(&out, sw_slice_cstr(rows[i].source), rows[i].url);
        if (!sw_slice_eq(sw_out_done(&out), sw_slice_cstr(rows[i].name))) {
            fail_msg("%s: %.*s", rows[i].source, (int)out.len, buf);
        }
    }
}

static void max_age_rows(void **state)
{
    static const struct {
        const char *field;
        int64_t fresh_s;
    } rows[] = {
        {"max-age=600", 600},
        {"public, max-age=21600, must-revalidate", 21600},
        {"Max-Age=\"60\" ,private", 60},
        {"max-age=0", 0},
        {"no-store", 0},
        {"max-age=600, no-cache", 0},
        {"no-cache=\"x\", max-age=600", 0},
        {"max-age=600, max-age=60", 60},
        {"", -1},
        {"public", -1},
        {"s-maxage=600", -1},
        {"max-age", -1},
        {"max-age=", -1},
        {"max-age=-5", -1},
        {"max-age=6e2", -1},
        {"xmax-age=5", -1},
        {"max-age=99999999999999", INT32_MAX},
        {"max-age=999999999999999999999999", -1},
        {",,,", -1},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        int64_t got = sw_keysets__max_age(sw_slice_cstr(rows[i].field));

        if (got != rows[i].fresh_s) {
            fail_msg("%s: %lld", rows[i].field, (long long)got);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_yet),
        cmocka_unit_test(the_same_set_is_the_same),
        cmocka_unit_test(a_removed_key_is_kept_a_while),
        cmocka_unit_test(removed_one_by_one),
        cmocka_unit_test(tokens_without_kid),
        cmocka_unit_test(a_clash_of_ids),
        cmocka_unit_test(secrets_are_not_kept_beside_public_keys),
        cmocka_unit_test(rotation_without_end),
        cmocka_unit_test(the_last_good_set_stands),
        cmocka_unit_test(one_line_for_each_change),
        cmocka_unit_test(keys_that_are_not_used_are_told),
        cmocka_unit_test(failures_are_tried_again_ever_later),
        cmocka_unit_test(freshness_has_bounds),
        cmocka_unit_test(one_fetch_for_all),
        cmocka_unit_test(an_id_that_was_not_there),
        cmocka_unit_test(files_are_not_asked_for),
        cmocka_unit_test(a_flood_of_unknown_ids),
        cmocka_unit_test(a_crowd_waits),
        cmocka_unit_test(names_hide_what_may_be_secret),
        cmocka_unit_test(max_age_rows),
    };
    int failed;

    world_init(&world);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    world_fini(&world);
    return failed;
}
