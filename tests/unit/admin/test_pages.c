/* admin/metrics.c, answers.c, and the pure parts of gather.c: the texts made from a snapshot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <unistd.h>

#include "admin/admin_priv.h"
#include "base/json.h"
#include "base/rng.h"

static const double bounds_s[SW_LATENCY_BUCKETS] = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
};
static const char *const state_names[SW_INSTANCE_STATE_COUNT] = {
    "none", "starting", "healthy", "unhealthy", "draining", "stopping",
};

static struct sw_admin_snapshot *snapshot_new(size_t loops, size_t instances)
{
    struct sw_admin_snapshot *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    s->version = "0.1.0";
    s->engine = "io_uring";
    s->placements[SW_PLACE_NONE] = "none";
    s->placements[SW_PLACE_STICKY] = "sticky";
    s->placements[SW_PLACE_SESSION] = "session";
    s->placements[SW_PLACE_TOKEN] = "token";
    s->placements[SW_PLACE_SEALED] = "sealed";
    memcpy(s->states, state_names, sizeof(state_names));
    for (size_t e = 0; e < SW_E_COUNT; e++) {
        s->error_labels[e] = sw_err_label((enum sw_err)e);
    }
    s->latency_bounds_s = bounds_s;
    s->loops = calloc(loops + 1, sizeof(*s->loops));
    s->instances = calloc(instances + 1, sizeof(*s->instances));
    assert_non_null(s->loops);
    assert_non_null(s->instances);
    s->loop_max = loops;
    s->instance_max = instances;
    return s;
}

static void snapshot_free(struct sw_admin_snapshot *s)
{
    free(s->loops);
    free(s->instances);
    free(s);
}

static struct sw_admin_snapshot *example(void)
{
    struct sw_admin_snapshot *s = snapshot_new(3, 8);
    struct sw_admin_row *r;

    s->uptime_ns = 61 * SW_NS_PER_S;
    s->workers = 2;
    s->ready = true;
    s->app_count = 2;
    s->apps[0].name = SW_S("shop");
    s->apps[1].name = SW_S("blog");
    s->apps[0].latency[SW_PLACE_SESSION] =
        (struct sw_admin_latency){true, {1, 2, [14] = 3}, 1500000001};
    s->gateway[SW_PLACE_SESSION].shown = true;
    r = sw_admin__row(s, 11);
    *r = (struct sw_admin_row){11, 5, SW_S("shop"), "session", "updated", 200};
    r = sw_admin__row(s, 7);
    *r = (struct sw_admin_row){7, 1, SW_S(""), "none", "none", 404};
    sw_admin__sort_rows(s->rows, s->row_count);
    s->connections_open = 4;
    s->bytes_in = UINT64_MAX;
    s->errors[SW_E_NO_ROUTE] = 1;
    s->has_store = true;
    s->store_name = "lmdb";
    s->store.commit_hist[0] = 2;
    s->store.commit_hist[SW_STORE_HIST_BUCKETS - 1] = 1;
    s->store.commit_ns_total = 5;
    s->loop_count = 3;
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(s->loops[i].worker, sizeof(s->loops[i].worker), i < 2 ? "%zu" : "main", i);
        s->loops[i].stats = (struct sw_loop_stats){.turns = 10 + i, .buffers = 3, .pieces_max = 9};
    }
    s->instance_count = 4;
    s->instances[0] = (struct sw_admin_instance){.app = 1,
                                                 .slot = 1,
                                                 .state = SW_INSTANCE_HEALTHY,
                                                 .incarnation = 1,
                                                 .name = "blog/1",
                                                 .in_flight = 9};
    s->instances[1] = (struct sw_admin_instance){.app = 0,
                                                 .slot = 2,
                                                 .state = SW_INSTANCE_HEALTHY,
                                                 .incarnation = 2,
                                                 .name = "shop/2",
                                                 .pid = 123,
                                                 .address = "127.0.0.1:20002",
                                                 .sessions = 4};
    s->instances[2] = (struct sw_admin_instance){.app = 0,
                                                 .slot = 1,
                                                 .state = SW_INSTANCE_STARTING,
                                                 .incarnation = 3,
                                                 .name = "shop/1",
                                                 .in_flight = 1};
    s->instances[3] = (struct sw_admin_instance){.app = 0,
                                                 .slot = 1,
                                                 .state = SW_INSTANCE_DRAINING,
                                                 .age_ns = 5,
                                                 .incarnation = 0x9f3c,
                                                 .name = "shop/1",
                                                 .in_flight = 2,
                                                 .answered = 8};
    sw_admin__sort_instances(s->instances, s->instance_count);
    s->process = (struct sw_admin_process){4096, 8192, 1234567, 12, 1024, 1760000000.25};
    return s;
}

static char *metrics_text(const struct sw_admin_snapshot *s, size_t *ret_len)
{
    size_t size = sw_admin__page_bytes(s->app_count, s->loop_max, s->instance_max);
    char *text = malloc(size + 1);
    struct sw_out out;

    assert_non_null(text);
    out = sw_out_init(text, size);
    sw_admin__metrics_put(&out, s);
    assert_false(out.overflowed);
    text[out.len] = '\0';
    *ret_len = out.len;
    return text;
}

static void has_line(const char *text, const char *line)
{
    char want[512];

    (void)snprintf(want, sizeof(want), "\n%s\n", line);
    if (strstr(text, want) == NULL) {
        fail_msg("no line: %s", line);
    }
}

/* ---- what every metrics text must be --------------------------------------------------------- */

#define SEEN_MAX 65536
struct seen {
    uint64_t hash[SEEN_MAX];
    size_t count;
};

static bool seen_before(struct seen *seen, struct sw_slice s)
{
    uint64_t h = sw_slice_hash(s, 1) | 1;
    size_t at = h % SEEN_MAX;

    for (; seen->hash[at] != 0; at = (at + 1) % SEEN_MAX) {
        if (seen->hash[at] == h) {
            return true;
        }
    }
    seen->hash[at] = h;
    seen->count++;
    assert_true(seen->count < SEEN_MAX / 2);
    return false;
}

/* Each family once: HELP, TYPE, then its series and nobody else's; no series twice. */
static void well_formed(struct sw_slice text)
{
    struct seen *series = calloc(1, sizeof(*series)), *families = calloc(1, sizeof(*families));
    struct sw_slice line, name = {NULL, 0}, rest = text;

    assert_non_null(series);
    assert_non_null(families);
    assert_true(sw_slice_ends(text, SW_S("\n")));
    while (rest.len > 0) {
        assert_true(sw_slice_cut(rest, '\n', &line, &rest));
        if (sw_slice_starts(line, SW_S("# HELP "))) {
            struct sw_slice type;

            name = sw_slice_tail(line, 7);
            name = sw_slice_head(name, sw_slice_find(name, ' '));
            assert_false(seen_before(families, name));
            assert_true(sw_slice_cut(rest, '\n', &type, &rest));
            assert_true(sw_slice_starts(type, SW_S("# TYPE ")));
            assert_true(sw_slice_starts(sw_slice_tail(type, 7), name));
        } else {
            size_t blank = line.len;

            while (blank > 0 && line.ptr[blank - 1] != ' ') {
                blank--;
            }
            assert_true(blank > 1);
            assert_true(blank < line.len);
            assert_true(name.len > 0 && sw_slice_starts(line, name));
            if (seen_before(series, sw_slice_head(line, blank))) {
                fail_msg("twice: %.*s", SW_SARG(line));
            }
        }
    }
    free(series);
    free(families);
}

/* Debian: the package prometheus. */
static void promtool(struct sw_slice text)
{
    FILE *p;

    if (access("/usr/bin/promtool", X_OK) != 0) {
        return;
    }
    p = popen("/usr/bin/promtool check metrics 1>&2", "w");
    assert_non_null(p);
    assert_int_equal(fwrite(text.ptr, 1, text.len, p), text.len);
    assert_int_equal(pclose(p), 0);
}

/* ---- metrics --------------------------------------------------------------------------------- */

static void metrics(void **state)
{
    struct sw_admin_snapshot *s = example();
    size_t len;
    char *text = metrics_text(s, &len);

    (void)state;
    well_formed(sw_slice_of(text, len));
    promtool(sw_slice_of(text, len));
    has_line(text, "stateway_exchanges_total{app=\"shop\",placement=\"session\",status=\"200\","
                   "verdict=\"updated\"} 5");
    has_line(
        text,
        "stateway_exchanges_total{app=\"\",placement=\"none\",status=\"404\",verdict=\"none\"} 1");
    has_line(text, "stateway_exchange_duration_seconds_bucket{app=\"shop\",placement=\"session\","
                   "le=\"0.0005\"} 1");
    has_line(text, "stateway_exchange_duration_seconds_bucket{app=\"shop\",placement=\"session\","
                   "le=\"10\"} 3");
    has_line(text, "stateway_exchange_duration_seconds_bucket{app=\"shop\",placement=\"session\","
                   "le=\"+Inf\"} 6");
    has_line(
        text,
        "stateway_exchange_duration_seconds_sum{app=\"shop\",placement=\"session\"} 1.500000001");
    has_line(text,
             "stateway_exchange_duration_seconds_count{app=\"shop\",placement=\"session\"} 6");
    has_line(text, "stateway_gateway_duration_seconds_count{placement=\"session\"} 0");
    assert_null(strstr(text, "placement=\"sticky\"")); /* not configured, never seen */
    has_line(text, "stateway_connections{state=\"open\"} 4");
    has_line(text, "stateway_bytes_total{direction=\"in\"} 18446744073709551615");
    has_line(text, "stateway_errors_total{reason=\"no-route\"} 1");
    assert_null(strstr(text, "reason=\"ok\""));
    has_line(text, "stateway_instances{app=\"shop\",state=\"healthy\"} 1");
    has_line(text, "stateway_instances{app=\"blog\",state=\"draining\"} 0");
    has_line(text,
             "stateway_instance_in_flight{app=\"shop\",instance=\"shop/1\"} 3"); /* old and new */
    has_line(text, "stateway_instance_in_flight{app=\"blog\",instance=\"blog/1\"} 9");
    has_line(text, "stateway_instance_sessions{app=\"shop\",instance=\"shop/2\"} 4");
    has_line(text, "stateway_store_commit_duration_seconds_bucket{le=\"1e-05\"} 2");
    has_line(text, "stateway_store_commit_duration_seconds_bucket{le=\"41.94304\"} 2");
    has_line(text, "stateway_store_commit_duration_seconds_bucket{le=\"+Inf\"} 3");
    has_line(text, "stateway_loop_turns_total{worker=\"1\"} 11");
    has_line(text, "stateway_loop_buffers{worker=\"main\"} 3");
    has_line(text, "stateway_loop_pieces_max{worker=\"0\"} 9");
    has_line(text, "stateway_build_info{version=\"0.1.0\",engine=\"io_uring\"} 1");
    has_line(text, "process_cpu_seconds_total 1.234567");
    has_line(text, "process_start_time_seconds 1760000000.250");
    free(text);
    s->has_store = false;
    text = metrics_text(s, &len);
    assert_null(strstr(text, "stateway_store_"));
    promtool(sw_slice_of(text, len));
    free(text);
    snapshot_free(s);
}

static void labels_are_escaped(void **state)
{
    struct sw_admin_snapshot *s = example();
    size_t len;
    char *text;

    (void)state;
    s->version = "a\"b\\c\nd";
    text = metrics_text(s, &len);
    has_line(text, "stateway_build_info{version=\"a\\\"b\\\\c\\nd\",engine=\"io_uring\"} 1");
    promtool(sw_slice_of(text, len));
    free(text);
    snapshot_free(s);
}

/* Everything at its limit, with names as long as they can be: it fits. And cut short: no harm. */
static void largest(void **state)
{
    static char names[SW_APPS_MAX][64], sources[SW_KEYSETS_MAX][256];
    const size_t instances = 40, loops = 257;
    struct sw_admin_snapshot *s = snapshot_new(loops, SW_APPS_MAX * instances);
    size_t len;
    char *text;
    struct sw_out out;

    (void)state;
    s->app_count = SW_APPS_MAX;
    for (size_t a = 0; a < SW_APPS_MAX; a++) {
        (void)snprintf(names[a], sizeof(names[a]), "a%02zu%060d", a, 0);
        s->apps[a].name = sw_slice_cstr(names[a]);
        for (size_t p = 0; p < SW_PLACE_COUNT; p++) {
            s->apps[a].latency[p].shown = true;
            s->apps[a].latency[p].sum_ns = UINT64_MAX;
            s->apps[a].latency[p].bucket[0] = UINT64_MAX;
        }
        for (size_t n = 0; n < instances; n++) {
            struct sw_admin_instance *i = &s->instances[s->instance_count++];

            *i = (struct sw_admin_instance){(uint32_t)a,
                                            1000000 + (uint32_t)n,
                                            SW_INSTANCE_UNHEALTHY,
                                            UINT64_MAX,
                                            0,
                                            INT32_MIN,
                                            UINT32_MAX,
                                            UINT32_MAX,
                                            UINT32_MAX,
                                            UINT32_MAX,
                                            UINT64_MAX,
                                            UINT64_MAX,
                                            "",
                                            ""};
            (void)snprintf(i->name, sizeof(i->name), "%s/%u", names[a], i->slot);
            memset(i->address, 0xff, sizeof(i->address) - 1);
        }
    }
    for (size_t r = 0; r < ADMIN_ROWS_MAX; r++) {
        struct sw_admin_row *row = sw_admin__row(s, 1 + r);

        assert_non_null(row);
        *row = (struct sw_admin_row){1 + r,     UINT64_MAX,   s->apps[r % 64].name,
                                     "session", "conflicted", 60000 + (unsigned)r};
    }
    assert_null(sw_admin__row(s, UINT64_MAX)); /* full */
    assert_ptr_equal(sw_admin__row(s, 5), &s->rows[4]);
    s->has_store = true;
    s->store_name = "lmdb";
    memset(&s->store, 0xff, sizeof(s->store));
    s->keyset_count = SW_KEYSETS_MAX;
    for (size_t i = 0; i < SW_KEYSETS_MAX; i++) {
        memset(sources[i], '"', sizeof(sources[i])); /* each has an escape */
        (void)snprintf(sources[i] + 240, 16, "#%02zu", i);
        s->keysets[i] = (struct sw_keyset_stats){{sources[i], 256}, UINT64_MAX, UINT64_MAX,
                                                 UINT64_MAX,        INT64_MAX,  UINT32_MAX,
                                                 UINT32_MAX,        true};
        memset(sources[i] + 243, 'x', 13);
    }
    memset(&s->tokens, 0xff, sizeof(s->tokens));
    s->loop_count = loops;
    for (size_t i = 0; i < loops; i++) {
        (void)snprintf(s->loops[i].worker, sizeof(s->loops[i].worker), "%zu", i);
        memset(&s->loops[i].stats, 0xff, sizeof(s->loops[i].stats));
    }
    text = metrics_text(s, &len);
    well_formed(sw_slice_of(text, len));
    promtool(sw_slice_of(text, len));
    out = sw_out_init(text, sw_admin__page_bytes(s->app_count, s->loop_max, s->instance_max));
    sw_admin__apps_put(&out, s);
    assert_false(out.overflowed);
    assert_int_equal(sw_json_check(sw_out_done(&out)).err, SW_OK);
    for (size_t cut = 0; cut < len; cut += len / 9) {
        out = sw_out_init(text, cut);
        sw_admin__metrics_put(&out, s);
        assert_true(out.overflowed);
        assert_true(out.len <= cut);
        out = sw_out_init(text, cut / 64);
        sw_admin__apps_put(&out, s);
        assert_true(out.overflowed);
    }
    free(text);
    snapshot_free(s);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void apps_json(void **state)
{
    struct sw_admin_snapshot *s = example();
    char text[4096];
    struct sw_out out = sw_out_init(text, sizeof(text));
    static const char want[] =
        "{\"apps\":[{\"name\":\"shop\",\"instances\":["
        "{\"name\":\"shop/"
        "1\",\"incarnation\":\"0000000000009f3c\",\"state\":\"draining\",\"pid\":0,"
        "\"in_flight\":2,\"waiting\":0,\"sessions\":0,\"connections\":0,\"address\":\"\","
        "\"answered\":8,"
        "\"failed\":0},"
        "{\"name\":\"shop/"
        "1\",\"incarnation\":\"0000000000000003\",\"state\":\"starting\",\"pid\":0,"
        "\"in_flight\":1,\"waiting\":0,\"sessions\":0,\"connections\":0,\"address\":\"\","
        "\"answered\":0,"
        "\"failed\":0},"
        "{\"name\":\"shop/"
        "2\",\"incarnation\":\"0000000000000002\",\"state\":\"healthy\",\"pid\":123,"
        "\"in_flight\":0,\"waiting\":0,\"sessions\":4,\"connections\":0,\"address\":\"127.0.0.1:"
        "20002\","
        "\"answered\":0,\"failed\":0}]},"
        "{\"name\":\"blog\",\"instances\":["
        "{\"name\":\"blog/1\",\"incarnation\":\"0000000000000001\",\"state\":\"healthy\",\"pid\":0,"
        "\"in_flight\":9,\"waiting\":0,\"sessions\":0,\"connections\":0,\"address\":\"\","
        "\"answered\":0,"
        "\"failed\":0}]}]}\n";

    (void)state;
    sw_admin__apps_put(&out, s);
    assert_false(out.overflowed);
    sw_out_char(&out, '\0');
    assert_string_equal(text, want);
    s->instance_count = 0;
    out = sw_out_init(text, sizeof(text));
    sw_admin__apps_put(&out, s);
    sw_out_char(&out, '\0');
    assert_string_equal(
        text,
        "{\"apps\":[{\"name\":\"shop\",\"instances\":[]},{\"name\":\"blog\",\"instances\":[]}]}\n");
    snapshot_free(s);
}

static void status_json(void **state)
{
    struct sw_admin_snapshot *s = example();
    char text[2048];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_slice store;

    (void)state;
    sw_admin__status_put(&out, s);
    assert_false(out.overflowed);
    assert_int_equal(sw_json_check(sw_out_done(&out)).err, SW_OK);
    assert_true(sw_json_get(sw_out_done(&out), SW_S("store"), &store));
    assert_int_equal(sw_json_type_of(store), SW_JSON_OBJECT);
    assert_true(sw_slice_starts(sw_out_done(&out),
                                SW_S("{\"version\":\"0.1.0\",\"uptime_s\":61,\"engine\":")));
    s->has_store = false;
    out = sw_out_init(text, sizeof(text));
    sw_admin__status_put(&out, s);
    assert_true(sw_slice_ends(sw_out_done(&out), SW_S("\"store\":null}\n")));
    out = sw_out_init(text, sizeof(text));
    sw_admin__error_put(&out, "a \"b\" \n", "x");
    assert_true(
        sw_slice_eq(sw_out_done(&out), SW_S("{\"error\":\"a \\\"b\\\" \\n\",\"reason\":\"x\"}\n")));
    snapshot_free(s);
}

static void keys_json(void **state)
{
    struct sw_admin_snapshot *s = example();
    char text[8192];
    struct sw_out out = sw_out_init(text, sizeof(text));

    (void)state;
    s->key_count = 2;
    s->keys[0] = (struct sw_admin_key){1, SW_KEY_RETIRED, 5, 6, 7, {8, 9, 10}};
    s->keys[1] = (struct sw_admin_key){2, SW_KEY_ACTIVE, 6, 0, INT64_MAX, {0, 0, 0}};
    sw_admin__keys_put(&out, s);
    sw_out_char(&out, '\0');
    assert_string_equal(
        text, "{\"stale\":false,\"keys\":[{\"id\":1,\"state\":\"retired\",\"created\":5,\"retired\":6,"
              "\"dead\":7,\"made\":9,\"opened\":8,\"last_used\":10},{\"id\":2,\"state\":\"active\","
              "\"created\":6,\"made\":0,\"opened\":0,\"last_used\":0}]}\n");
    s->key_count = SW_KEYS_MAX; /* as long as they can be */
    for (size_t i = 0; i < SW_KEYS_MAX; i++) {
        s->keys[i] = (struct sw_admin_key){
            UINT32_MAX, SW_KEY_RETIRED, INT64_MAX, INT64_MAX, INT64_MAX - 1,
            {UINT64_MAX, UINT64_MAX, INT64_MAX}};
    }
    s->keys_stale = true;
    out = sw_out_init(text, sizeof(text));
    sw_admin__keys_put(&out, s);
    assert_false(out.overflowed);
    assert_int_equal(sw_json_check(sw_out_done(&out)).err, SW_OK);
    snapshot_free(s);
}

/* ---- order ----------------------------------------------------------------------------------- */

static void sorted(void **state)
{
    struct sw_admin_snapshot *s = snapshot_new(1, 3000);
    struct sw_rng rng;

    (void)state;
    sw_rng_seed(&rng, 1);
    for (size_t n = 0; n < 3000; n = n * 3 + 1) {
        for (size_t i = 0; i < n; i++) {
            s->instances[i] = (struct sw_admin_instance){.app = (uint32_t)sw_rng_below(&rng, 3),
                                                         .slot = (uint32_t)sw_rng_below(&rng, 9),
                                                         .age_ns = sw_rng_below(&rng, 4),
                                                         .incarnation = sw_rng_below(&rng, 4)};
        }
        sw_admin__sort_instances(s->instances, n);
        for (size_t i = 1; i < n; i++) {
            const struct sw_admin_instance *a = &s->instances[i - 1], *b = &s->instances[i];

            assert_true(a->app < b->app ||
                        (a->app == b->app &&
                         (a->slot < b->slot ||
                          (a->slot == b->slot &&
                           (a->age_ns > b->age_ns ||
                            (a->age_ns == b->age_ns && a->incarnation <= b->incarnation))))));
        }
    }
    for (size_t i = 0; i < 5000; i++) {
        struct sw_admin_row *r = sw_admin__row(s, 1 + sw_rng_below(&rng, 900));

        assert_non_null(r);
        r->count++;
    }
    sw_admin__sort_rows(s->rows, s->row_count);
    {
        uint64_t sum = s->rows[0].count;

        for (size_t i = 1; i < s->row_count; i++) {
            assert_true(s->rows[i - 1].key < s->rows[i].key);
            sum += s->rows[i].count;
        }
        assert_int_equal(sum, 5000);
    }
    snapshot_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics),     cmocka_unit_test(labels_are_escaped),
        cmocka_unit_test(largest),     cmocka_unit_test(apps_json),
        cmocka_unit_test(status_json), cmocka_unit_test(keys_json), cmocka_unit_test(sorted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
