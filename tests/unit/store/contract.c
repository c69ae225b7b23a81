/* tests/unit/store/contract.c - one suite for all stores. */
#include "contract.h"

#include <dirent.h>
#include <unistd.h>

#include "base/rng.h"

#define BLOCK_BYTES (4u << 20)

/* ---- the world ----------------------------------------------------------------------------------
 */

static enum sw_err open_lmdb(struct world *w, const char **ret_why)
{
    w->opt.path = sw_slice_cstr(w->folder);
    return sw_store_open_lmdb(&w->opt, &w->store, ret_why);
}

static enum sw_err open_mem(struct world *w, const char **ret_why)
{
    *ret_why = "no memory";
    return sw_store_open_mem(&w->opt, &w->store);
}

const struct maker maker_lmdb = {"lmdb", true, open_lmdb}, maker_mem = {"memory", false, open_mem};

struct sw_loop *loop_new(void)
{
    struct sw_loop_options opt = {
        .engine = SW_ENGINE_EPOLL,
        .streams_max = 4,
        .buffers_max = 4,
        .large_max = 1,
        .large_bytes = 65536,
    };
    struct sw_loop *loop;

    assert_int_equal(sw_loop_new(&opt, &loop), SW_OK);
    return loop;
}

static void world_open(struct world *w)
{
    const char *why = "";
    enum sw_err err = w->maker->open(w, &why);

    if (err != SW_OK) {
        fail_msg("%s: %s", sw_err_name(err), why);
    }
    assert_string_equal(sw_store_name(w->store), w->maker->name);
}

void world_init(struct world *w, const struct maker *maker, const struct sw_store_options *opt)
{
    *w = (struct world){.maker = maker, .loop = loop_new()};
    if (opt != NULL) {
        w->opt = *opt;
    }
    strncpy(w->folder, "/tmp/sw-store-XXXXXX", sizeof(w->folder) - 1);
    assert_non_null(mkdtemp(w->folder));
    w->block = malloc(BLOCK_BYTES);
    assert_non_null(w->block);
    world_open(w);
}

const char *world_file(const struct world *w, const char *name)
{
    static char path[512];

    (void)snprintf(path, sizeof(path), "%s/%s", w->folder, name);
    return path;
}

void world_fini(struct world *w)
{
    DIR *dir = opendir(w->folder);
    struct dirent *e;

    sw_store_close(w->store);
    sw_loop_free(w->loop);
    free(w->block);
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        (void)unlink(world_file(w, e->d_name));
    }
    closedir(dir);
    assert_int_equal(rmdir(w->folder), 0);
}

void world_reopen(struct world *w)
{
    sw_store_close(w->store);
    w->store = NULL;
    world_open(w);
}

struct sw_store_key key_of(uint64_t n)
{
    struct sw_store_key key;
    struct sw_rng rng;

    sw_rng_seed(&rng, n); /* keys are hashes: spread */
    for (size_t i = 0; i < sizeof(key.bytes); i += 8) {
        uint64_t word = sw_rng_u64(&rng);

        memcpy(key.bytes + i, &word, 8);
    }
    return key;
}

static void on_done(struct sw_store_commit *op)
{
    struct world *w = op->arg;

    w->done++;
    if (w->done == w->expect) {
        sw_loop_stop(w->loop);
    }
}

void commit_begin(struct world *w, struct sw_store_commit *op)
{
    size_t done = w->done;

    op->loop = w->loop;
    op->done = on_done;
    op->arg = w;
    w->expect++;
    sw_store_commit(w->store, op);
    assert_int_equal(w->done, done); /* never inline */
}

void world_wait(struct world *w)
{
    if (w->done < w->expect) {
        sw_loop_run(w->loop);
    }
    assert_int_equal(w->done, w->expect);
}

enum sw_err commit(struct world *w, struct sw_store_commit *op)
{
    commit_begin(w, op);
    world_wait(w);
    assert_true(op->done_ns >= op->queued_ns);
    if (op->err != SW_OK) {
        for (size_t i = 0; i < op->count; i++) {
            assert_true(sw_version_none(op->writes[i].ret_version));
        }
    }
    return op->err;
}

struct sw_write put_of(uint64_t key, struct sw_slice value)
{
    return (struct sw_write){
        .kind = SW_WRITE_PUT,
        .key = key_of(key),
        .record = SW_RECORD_STATE,
        .expect = SW_EXPECT_ANY,
        .value = value,
    };
}

struct sw_write put_at(uint64_t key, struct sw_slice value, struct sw_version expected)
{
    struct sw_write w = put_of(key, value);

    w.expect = SW_EXPECT_VERSION;
    w.version = expected;
    return w;
}

enum sw_err write_one(struct world *w, struct sw_write write, int64_t now,
                      struct sw_version *ret_version)
{
    struct sw_store_commit op = {.writes = {write}, .count = 1, .now_unix_s = now};
    enum sw_err err = commit(w, &op);

    if (ret_version != NULL) { /* none on error */
        *ret_version = op.writes[0].ret_version;
    }
    return err;
}

enum sw_err load(struct world *w, uint64_t key, int64_t now, struct sw_record *ret_record)
{
    struct sw_store_load op = {.key = key_of(key), .now_unix_s = now, .arena = &w->arena};

    op.loop = w->loop;
    sw_arena_init(&w->arena, w->block, BLOCK_BYTES);
    assert_int_equal(sw_store_load(w->store, &op), SW_STEP_DONE);
    if (ret_record != NULL) { /* empty on error */
        *ret_record = op.record;
    }
    return op.err;
}

void assert_value(struct world *w, uint64_t key, int64_t now, struct sw_slice value)
{
    struct sw_record r;
    enum sw_err err = load(w, key, now, &r);

    if (err != SW_OK) {
        fail_msg("key %lu: %s", (unsigned long)key, sw_err_name(err));
    }
    if (!sw_slice_eq(r.value, value)) {
        fail_msg("key %lu: %.*s, not %.*s", (unsigned long)key, SW_SARG(r.value), SW_SARG(value));
    }
}

struct sw_write cutoff_of(struct sw_slice subject, int64_t not_before_unix_ms, int64_t expires)
{
    return (struct sw_write){
        .kind = SW_WRITE_CUTOFF,
        .subject = subject,
        .not_before_unix_ms = not_before_unix_ms,
        .expires_unix_s = expires,
    };
}

static void visited_add(struct visited *v, const struct sw_store_key *key)
{
    assert_true(v->count < SW_COUNTOF(v->keys));
    v->keys[v->count++] = *key;
}

static void on_scanned(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    assert_true(r->kind >= SW_RECORD_STATE && r->kind <= SW_RECORD_CLAIM);
    visited_add(arg, key);
}

static void on_due(void *arg, const struct sw_store_key *key, int64_t due_unix_ms)
{
    assert_true(due_unix_ms > 0);
    visited_add(arg, key);
}

void visit(struct world *w, struct sw_slice subject, const struct sw_store_key *after, size_t limit,
           int64_t now, struct visited *ret)
{
    ret->count = 0;
    assert_int_equal(subject.len > 0 ? sw_store_scan_subject(w->store, subject, after, limit, now,
                                                             on_scanned, ret)
                                     : sw_store_scan(w->store, after, limit, now, on_scanned, ret),
                     SW_OK);
}

void visit_due(struct world *w, int64_t now_ms, size_t limit, struct visited *ret)
{
    ret->count = 0;
    assert_int_equal(sw_store_due(w->store, now_ms, limit, on_due, ret), SW_OK);
}

static void on_complaint(void *arg, const char *text)
{
    (void)arg;
    print_message("%s\n", text);
}

void assert_whole(struct world *w)
{
    struct sw_slice folder = sw_slice_cstr(w->folder);
    struct sw_store_checked c;
    const char *why = "";
    enum sw_err err = strcmp(w->maker->name, "journal") == 0
                          ? sw_store_journal_check(folder, false, on_complaint, NULL, &c, &why)
                          : sw_store_lmdb_check(folder, false, on_complaint, NULL, &c, &why);

    if (err != SW_OK) {
        fail_msg("%s", why);
    }
}

bool is_key(const struct sw_store_key *key, uint64_t n)
{
    struct sw_store_key want = key_of(n);

    return memcmp(key, &want, sizeof(want)) == 0;
}

static bool same(struct sw_version a, uint64_t epoch, uint64_t counter)
{
    return a.epoch == epoch && a.counter == counter;
}

/* ---- the contract
 * -------------------------------------------------------------------------------- */

static void put_and_load(void **state)
{
    struct world *w = *state;
    struct sw_write p = put_of(1, SW_S("{\"n\":1}"));
    struct sw_version v1, v2;
    struct sw_record r;

    assert_int_equal(load(w, 1, NOW, NULL), SW_E_NOT_FOUND);
    p.subject = SW_S("alice");
    p.expires_unix_s = NOW + 100;
    p.absolute_unix_s = NOW + 1000;
    assert_int_equal(write_one(w, p, NOW, &v1), SW_OK);
    assert_true(v1.epoch != 0);
    assert_int_equal(v1.counter, 1);
    assert_int_equal(load(w, 1, NOW + 1, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_STATE);
    assert_true(sw_version_eq(r.version, v1));
    assert_int_equal(r.created_unix_s, NOW);
    assert_int_equal(r.touched_unix_s, NOW);
    assert_int_equal(r.expires_unix_s, NOW + 100);
    assert_int_equal(r.absolute_unix_s, NOW + 1000);
    assert_true(sw_slice_eq(r.subject, SW_S("alice")));
    assert_true(sw_slice_eq(r.value, SW_S("{\"n\":1}")));

    p = put_at(1, SW_S("{\"n\":2}"), v1);
    p.absolute_unix_s = NOW + 50; /* earlier than the idle end */
    p.expires_unix_s = NOW + 500;
    assert_int_equal(write_one(w, p, NOW + 2, &v2), SW_OK);
    assert_true(same(v2, v1.epoch, 2));
    assert_int_equal(load(w, 1, NOW + 3, &r), SW_OK);
    assert_int_equal(r.created_unix_s, NOW);
    assert_int_equal(r.touched_unix_s, NOW + 2);
    assert_int_equal(r.expires_unix_s, NOW + 50);
    assert_int_equal(r.subject.len, 0);
    assert_true(sw_slice_eq(r.value, SW_S("{\"n\":2}")));
    assert_int_equal(load(w, 2, NOW, NULL), SW_E_NOT_FOUND);
}

static void expectations(void **state)
{
    struct world *w = *state;
    struct sw_version none = {0, 0}, v1, v2, other;
    struct sw_write p;

    /* a free key */
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), (struct sw_version){7, 1}), NOW, NULL),
                     SW_E_CONFLICT);
    p = put_of(1, SW_S("x"));
    p.expect = SW_EXPECT_EXISTS;
    assert_int_equal(write_one(w, p, NOW, NULL), SW_E_CONFLICT);
    assert_int_equal(load(w, 1, NOW, NULL), SW_E_NOT_FOUND);
    assert_int_equal(write_one(w, put_at(1, SW_S("a"), none), NOW, &v1), SW_OK);
    /* a live one */
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), none), NOW, NULL), SW_E_CONFLICT);
    other = (struct sw_version){v1.epoch, 2};
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), other), NOW, NULL), SW_E_CONFLICT);
    other = (struct sw_version){v1.epoch + 1, 1};
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), other), NOW, NULL), SW_E_CONFLICT);
    assert_value(w, 1, NOW, SW_S("a"));
    assert_int_equal(write_one(w, put_at(1, SW_S("b"), v1), NOW, &v2), SW_OK);
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), v1), NOW, NULL), SW_E_CONFLICT);
    p = put_of(1, SW_S("c"));
    p.expect = SW_EXPECT_EXISTS;
    assert_int_equal(write_one(w, p, NOW, &v2), SW_OK);
    assert_true(same(v2, v1.epoch, 3));
    assert_int_equal(write_one(w, put_of(1, SW_S("d")), NOW, &v2), SW_OK);
    assert_true(same(v2, v1.epoch, 4));
    assert_value(w, 1, NOW, SW_S("d"));
}

struct sw_write delete_of(uint64_t key, int64_t expires)
{
    return (struct sw_write){
        .kind = SW_WRITE_DELETE,
        .key = key_of(key),
        .expect = SW_EXPECT_ANY,
        .expires_unix_s = expires,
    };
}

static void tombstones(void **state)
{
    struct world *w = *state;
    struct sw_version v1, gone, again, none = {0, 0};
    struct sw_write p = put_of(1, SW_S("a"));
    struct sw_record r;

    p.subject = SW_S("alice");
    assert_int_equal(write_one(w, p, NOW, &v1), SW_OK);
    p = delete_of(1, NOW + 60);
    p.expect = SW_EXPECT_VERSION;
    p.version = (struct sw_version){v1.epoch, 9};
    assert_int_equal(write_one(w, p, NOW, NULL), SW_E_CONFLICT);
    p.version = v1;
    assert_int_equal(write_one(w, p, NOW, &gone), SW_OK);
    assert_true(same(gone, v1.epoch, 2));
    assert_int_equal(load(w, 1, NOW, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    assert_int_equal(r.value.len, 0);
    assert_int_equal(r.subject.len, 0); /* nothing of the visitor stays */
    assert_int_equal(r.expires_unix_s, NOW + 60);

    /* ended is ended, whatever is expected */
    assert_int_equal(write_one(w, put_of(1, SW_S("x")), NOW + 1, NULL), SW_E_STATE_GONE);
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), none), NOW + 1, NULL), SW_E_STATE_GONE);
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), v1), NOW + 1, NULL), SW_E_STATE_GONE);
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), gone), NOW + 1, NULL), SW_E_STATE_GONE);
    p = put_of(1, SW_S("x"));
    p.expect = SW_EXPECT_EXISTS;
    assert_int_equal(write_one(w, p, NOW + 1, NULL), SW_E_STATE_GONE);
    assert_int_equal(write_one(w, delete_of(1, 0), NOW + 1, NULL), SW_E_STATE_GONE);
    p = (struct sw_write){.kind = SW_WRITE_TOUCH, .key = key_of(1), .expires_unix_s = NOW + 9999};
    assert_int_equal(write_one(w, p, NOW + 1, NULL), SW_OK);
    assert_int_equal(load(w, 1, NOW + 59, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    assert_int_equal(r.expires_unix_s, NOW + 60);

    /* the key is free again: a new life, whose versions were never seen */
    assert_int_equal(load(w, 1, NOW + 60, NULL), SW_E_NOT_FOUND);
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), gone), NOW + 60, NULL), SW_E_CONFLICT);
    assert_int_equal(write_one(w, put_at(1, SW_S("b"), none), NOW + 60, &again), SW_OK);
    assert_int_equal(again.counter, 1);
    assert_true(again.epoch != v1.epoch);
    assert_int_equal(load(w, 1, NOW + 61, &r), SW_OK);
    assert_int_equal(r.created_unix_s, NOW + 60);
}

/* How long a tombstone stays when nobody says. */
static void tombstone_ends(void **state)
{
    static const struct {
        int64_t expires, absolute, end;
    } rows[] = {
        {0, 0, NOW + SW_TOMBSTONE_S_MIN},
        {NOW + 100, 0, NOW + SW_TOMBSTONE_S_MIN},
        {NOW + 9000, 0, NOW + 9000},
        {NOW + 100, NOW + 50000, NOW + 50000},
        {NOW + 100, NOW + 200, NOW + SW_TOMBSTONE_S_MIN},
    };
    struct world *w = *state;
    struct sw_record r;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_write p = put_of(i, SW_S("a"));

        p.expires_unix_s = rows[i].expires;
        p.absolute_unix_s = rows[i].absolute;
        assert_int_equal(write_one(w, p, NOW, NULL), SW_OK);
        assert_int_equal(write_one(w, delete_of(i, 0), NOW, NULL), SW_OK);
        assert_int_equal(load(w, i, NOW, &r), SW_OK);
        assert_int_equal(r.expires_unix_s, rows[i].end);
    }
    /* of a key that was never there: refuses what is still on its way */
    assert_int_equal(write_one(w, delete_of(99, 0), NOW, NULL), SW_OK);
    assert_int_equal(write_one(w, put_of(99, SW_S("x")), NOW, NULL), SW_E_STATE_GONE);
    {
        struct sw_write d = delete_of(98, 0);

        d.expect = SW_EXPECT_EXISTS;
        assert_int_equal(write_one(w, d, NOW, NULL), SW_E_CONFLICT);
        assert_int_equal(load(w, 98, NOW, NULL), SW_E_NOT_FOUND);
    }
}

static void touching(void **state)
{
    struct world *w = *state;
    struct sw_write p = put_of(1, SW_S("a")),
                    t = {.kind = SW_WRITE_TOUCH, .key = key_of(1), .expires_unix_s = NOW + 500};
    struct sw_version v, touched;
    struct sw_record r;

    assert_int_equal(write_one(w, t, NOW, &touched), SW_OK); /* nothing there: no error */
    assert_true(sw_version_none(touched));
    assert_int_equal(load(w, 1, NOW, NULL), SW_E_NOT_FOUND);
    p.subject = SW_S("bob");
    p.expires_unix_s = NOW + 100;
    p.absolute_unix_s = NOW + 1000;
    assert_int_equal(write_one(w, p, NOW, &v), SW_OK);
    assert_int_equal(write_one(w, t, NOW + 7, &touched), SW_OK);
    assert_true(sw_version_eq(v, touched));
    assert_int_equal(load(w, 1, NOW + 400, &r), SW_OK);
    assert_true(sw_version_eq(r.version, v));
    assert_int_equal(r.expires_unix_s, NOW + 500);
    assert_int_equal(r.touched_unix_s, NOW + 7);
    assert_int_equal(r.created_unix_s, NOW);
    assert_true(sw_slice_eq(r.value, SW_S("a")));
    assert_true(sw_slice_eq(r.subject, SW_S("bob")));
    t.expires_unix_s = NOW + 5000; /* never beyond the absolute end */
    assert_int_equal(write_one(w, t, NOW + 8, NULL), SW_OK);
    assert_int_equal(load(w, 1, NOW + 8, &r), SW_OK);
    assert_int_equal(r.expires_unix_s, NOW + 1000);
    t.expires_unix_s = 0; /* no idle end */
    assert_int_equal(write_one(w, t, NOW + 9, NULL), SW_OK);
    assert_int_equal(load(w, 1, NOW + 9, &r), SW_OK);
    assert_int_equal(r.expires_unix_s, NOW + 1000);
    t.expires_unix_s = NOW + 20; /* shorter is allowed */
    assert_int_equal(write_one(w, t, NOW + 10, NULL), SW_OK);
    assert_int_equal(load(w, 1, NOW + 19, NULL), SW_OK);
    assert_int_equal(load(w, 1, NOW + 20, NULL), SW_E_NOT_FOUND);
    t.expires_unix_s = NOW + 500; /* too late: it is no more */
    assert_int_equal(write_one(w, t, NOW + 20, NULL), SW_OK);
    assert_int_equal(load(w, 1, NOW + 20, NULL), SW_E_NOT_FOUND);
}

static void expiring(void **state)
{
    struct world *w = *state;
    struct sw_version none = {0, 0}, v1, v2;
    struct sw_write p = put_at(1, SW_S("a"), none);

    p.expires_unix_s = NOW + 10;
    assert_int_equal(write_one(w, p, NOW, &v1), SW_OK);
    assert_int_equal(load(w, 1, NOW + 9, NULL), SW_OK);
    assert_int_equal(load(w, 1, NOW + 10, NULL), SW_E_NOT_FOUND);
    /* what expired is not there for a commit either */
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), v1), NOW + 10, NULL), SW_E_CONFLICT);
    p = put_of(1, SW_S("x"));
    p.expect = SW_EXPECT_EXISTS;
    assert_int_equal(write_one(w, p, NOW + 10, NULL), SW_E_CONFLICT);
    assert_int_equal(write_one(w, put_at(1, SW_S("b"), none), NOW + 10, &v2), SW_OK);
    assert_true(v2.epoch != v1.epoch);
    assert_int_equal(v2.counter, 1);
    assert_int_equal(load(w, 1, NOW + 1000000000, NULL), SW_OK); /* 0: never */
}

static void renewing(void **state)
{
    struct world *w = *state;
    struct sw_store_key to = key_of(2);
    struct sw_version old, v;
    struct sw_record r;
    struct sw_store_commit op = {.count = 2, .now_unix_s = NOW + 1};
    struct sw_write p, d;

    assert_int_equal(write_one(w, put_of(1, SW_S("a")), NOW, &old), SW_OK);
    /* a new id at login: state under the new key, the old key leads there for a while */
    op.writes[0] = put_at(2, SW_S("b"), (struct sw_version){0, 0});
    op.writes[1] = put_at(1, sw_slice_of(to.bytes, sizeof(to.bytes)), old);
    op.writes[1].record = SW_RECORD_ALIAS;
    op.writes[1].expires_unix_s = NOW + 11;
    assert_int_equal(commit(w, &op), SW_OK);
    v = op.writes[1].ret_version;
    assert_true(same(v, old.epoch, 2));
    assert_int_equal(load(w, 1, NOW + 1, &r), SW_OK);
    assert_int_equal(r.kind, SW_RECORD_ALIAS);
    assert_int_equal(r.value.len, sizeof(to.bytes));
    assert_memory_equal(r.value.ptr, to.bytes, sizeof(to.bytes));
    assert_value(w, 2, NOW + 1, SW_S("b"));
    /* whoever still holds the old version loses */
    assert_int_equal(write_one(w, put_at(1, SW_S("x"), old), NOW + 2, NULL), SW_E_CONFLICT);
    /* and so does who does not care for versions: an alias is no state. A logout that only ended
     * the old name would leave the state to whoever holds the new one; a touch would keep the old
     * name. */
    p = put_of(1, SW_S("x"));
    p.expect = SW_EXPECT_EXISTS;
    assert_int_equal(write_one(w, p, NOW + 2, NULL), SW_E_CONFLICT);
    d = delete_of(1, 0);
    d.expect = SW_EXPECT_EXISTS;
    assert_int_equal(write_one(w, d, NOW + 2, NULL), SW_E_CONFLICT);
    d.kind = SW_WRITE_TOUCH;
    d.expires_unix_s = NOW + 1000;
    assert_int_equal(write_one(w, d, NOW + 2, NULL), SW_OK);
    assert_int_equal(load(w, 1, NOW + 11, NULL), SW_E_NOT_FOUND);
    assert_value(w, 2, NOW + 11, SW_S("b"));
}

static void all_or_none(void **state)
{
    struct world *w = *state;
    struct sw_version v;
    struct sw_record r;

    assert_int_equal(write_one(w, put_of(3, SW_S("three")), NOW, &v), SW_OK);
    assert_int_equal(write_one(w, delete_of(4, 0), NOW, NULL), SW_OK);
    for (size_t bad = 0; bad < 4; bad++) {
        for (int gone = 0; gone < 2; gone++) {
            struct sw_store_commit op = {.count = 4, .now_unix_s = NOW + 1};

            op.writes[0] = put_of(10, SW_S("x"));
            op.writes[1] = delete_of(11, 0);
            op.writes[2] = put_at(3, SW_S("x"), v);
            op.writes[3] = (struct sw_write){
                .kind = SW_WRITE_TOUCH, .key = key_of(12), .expires_unix_s = NOW + 5};
            op.writes[bad] =
                gone ? put_of(4, SW_S("x")) : put_at(13, SW_S("x"), (struct sw_version){9, 9});
            assert_int_equal(commit(w, &op), gone ? SW_E_STATE_GONE : SW_E_CONFLICT);
            assert_int_equal(op.failed, bad);
            assert_int_equal(load(w, 10, NOW + 1, NULL), SW_E_NOT_FOUND);
            assert_int_equal(load(w, 11, NOW + 1, NULL), SW_E_NOT_FOUND);
            assert_int_equal(load(w, 13, NOW + 1, NULL), SW_E_NOT_FOUND);
            assert_int_equal(load(w, 3, NOW + 1, &r), SW_OK);
            assert_true(sw_version_eq(r.version, v));
            assert_true(sw_slice_eq(r.value, SW_S("three")));
        }
    }
    {
        struct sw_store_commit op = {.count = 4, .now_unix_s = NOW + 1};

        op.writes[0] = put_of(10, SW_S("ten"));
        op.writes[1] = delete_of(11, 0);
        op.writes[2] = put_at(3, SW_S("THREE"), v);
        op.writes[3] = put_of(12, SW_S("twelve"));
        assert_int_equal(commit(w, &op), SW_OK);
        assert_value(w, 10, NOW + 1, SW_S("ten"));
        assert_value(w, 3, NOW + 1, SW_S("THREE"));
        assert_value(w, 12, NOW + 1, SW_S("twelve"));
        assert_int_equal(load(w, 11, NOW + 1, &r), SW_OK);
        assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
    }
}

/* Commits that wait together see each other in their order. */
static void batches(void **state)
{
    enum { COUNT = 50 };
    static struct sw_store_commit ops[COUNT];
    struct world *w = *state;
    struct sw_version v, next;
    size_t won = 0;

    assert_int_equal(write_one(w, put_of(1, SW_S("0")), NOW, &v), SW_OK);
    for (size_t i = 0; i < COUNT; i++) {
        ops[i] = (struct sw_store_commit){.count = 1, .now_unix_s = NOW};
        ops[i].writes[0] = put_at(1, SW_S("1"), v);
        commit_begin(w, &ops[i]);
    }
    world_wait(w);
    for (size_t i = 0; i < COUNT; i++) {
        won += ops[i].err == SW_OK;
        assert_true(ops[i].err == SW_OK || ops[i].err == SW_E_CONFLICT);
    }
    assert_int_equal(won, 1);
    assert_int_equal(ops[0].err, SW_OK);
    next = ops[0].writes[0].ret_version;
    for (size_t i = 0; i < COUNT; i++) {
        ops[i] = (struct sw_store_commit){.count = 1, .now_unix_s = NOW};
        ops[i].writes[0] = i == COUNT / 2 ? delete_of(1, 0) : put_of(1, SW_S("2"));
        commit_begin(w, &ops[i]);
    }
    world_wait(w);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(ops[i].err, i <= COUNT / 2 ? SW_OK : SW_E_STATE_GONE);
        assert_true(i > COUNT / 2 ||
                    same(ops[i].writes[0].ret_version, next.epoch, next.counter + i + 1));
    }
}

static void queue_full(void **state)
{
    enum { COUNT = 3000 };
    static struct sw_store_commit ops[COUNT];
    struct world *w = *state;
    struct sw_record r;
    size_t made = 0, busy = 0;

    for (size_t i = 0; i < COUNT; i++) {
        ops[i] = (struct sw_store_commit){.count = 1, .now_unix_s = NOW};
        ops[i].writes[0] = put_of(1, SW_S("x"));
        commit_begin(w, &ops[i]);
    }
    world_wait(w);
    for (size_t i = 0; i < COUNT; i++) {
        made += ops[i].err == SW_OK;
        busy += ops[i].err == SW_E_STORE_BUSY;
    }
    assert_int_equal(made + busy, COUNT);
    assert_true(busy > 0); /* queue_max is 8 here */
    assert_int_equal(load(w, 1, NOW, &r), SW_OK);
    assert_int_equal(r.version.counter, made);
}

static void large_values(void **state)
{
    struct world *w = *state;
    size_t max = 1 << 20;
    char *text = malloc(max);
    struct sw_rng rng;

    sw_rng_seed(&rng, 3);
    for (size_t i = 0; i < max; i++) {
        text[i] = (char)sw_rng_below(&rng, 256);
    }
    for (size_t len = 0; len <= max; len = len < 4 ? len + 1 : len * 3 / 2) {
        assert_int_equal(write_one(w, put_of(len, sw_slice_of(text, len)), NOW, NULL), SW_OK);
        assert_value(w, len, NOW, sw_slice_of(text, len));
        assert_int_equal(write_one(w, put_of(1000000007, sw_slice_of(text, len)), NOW, NULL),
                         SW_OK);
        assert_value(w, 1000000007, NOW, sw_slice_of(text, len));
    }
    assert_int_equal(write_one(w, put_of(5, sw_slice_of(text, max)), NOW, NULL), SW_OK);
    assert_value(w, 5, NOW, sw_slice_of(text, max));
    {
        struct sw_write t = {.kind = SW_WRITE_TOUCH, .key = key_of(5), .expires_unix_s = NOW + 5};

        assert_int_equal(write_one(w, t, NOW, NULL), SW_OK);
        assert_value(w, 5, NOW, sw_slice_of(text, max));
    }
    /* length only: the bytes are not looked at */
    assert_int_equal(
        write_one(w, put_of(6, sw_slice_of(text, SW_STORE_VALUE_BYTES_MAX + 1)), NOW, NULL),
        SW_E_LIMIT);
    {
        struct sw_write p = put_of(6, SW_S("x"));

        p.subject = sw_slice_of(text, SW_SUBJECT_BYTES_MAX + 1);
        assert_int_equal(write_one(w, p, NOW, NULL), SW_E_LIMIT);
        p.subject.len = SW_SUBJECT_BYTES_MAX;
        assert_int_equal(write_one(w, p, NOW, NULL), SW_OK);
    }
    free(text);
}

static void small_arena(void **state)
{
    struct world *w = *state;
    char block[16];
    struct sw_arena arena;
    struct sw_store_load op = {.key = key_of(1), .now_unix_s = NOW, .arena = &arena};

    sw_arena_init(&arena, block, sizeof(block));
    assert_int_equal(write_one(w, put_of(1, SW_S("0123456789abcdefg")), NOW, NULL), SW_OK);
    assert_int_equal(sw_store_load(w->store, &op), SW_STEP_DONE);
    assert_int_equal(op.err, SW_E_NO_MEMORY);
    assert_null(op.record.value.ptr);
    assert_int_equal(write_one(w, put_of(1, SW_S("0123456789abcdef")), NOW, NULL), SW_OK);
    sw_arena_init(&arena, block, sizeof(block));
    assert_int_equal(sw_store_load(w->store, &op), SW_STEP_DONE);
    assert_int_equal(op.err, SW_OK);
    assert_ptr_equal(op.record.value.ptr, block); /* a copy of the caller's */
}

struct visit {
    struct sw_store_key last;
    size_t count;
};

static void on_visit(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct visit *v = arg;

    assert_true(v->count == 0 || memcmp(&v->last, key, sizeof(*key)) < 0);
    assert_true(r->kind == SW_RECORD_STATE || r->kind == SW_RECORD_TOMBSTONE);
    assert_true(r->kind == SW_RECORD_TOMBSTONE || sw_slice_eq(r->value, SW_S("v")));
    v->last = *key;
    v->count++;
}

static void scanning(void **state)
{
    enum { COUNT = 100 };
    struct world *w = *state;
    struct visit v = {{{0}}, 0};
    size_t seen = 0, steps = 0;

    assert_int_equal(sw_store_scan(w->store, NULL, 10, NOW, on_visit, &v), SW_OK);
    assert_int_equal(v.count, 0);
    for (uint64_t i = 0; i < COUNT; i++) {
        struct sw_write p = put_of(i, SW_S("v"));

        p.expires_unix_s = i % 4 == 0 ? NOW + 5 : 0;
        assert_int_equal(write_one(w, p, NOW, NULL), SW_OK);
    }
    assert_int_equal(write_one(w, delete_of(1, 0), NOW, NULL), SW_OK);
    assert_int_equal(sw_store_scan(w->store, NULL, SIZE_MAX, NOW + 4, on_visit, &v), SW_OK);
    assert_int_equal(v.count, COUNT);
    v.count = 0;
    assert_int_equal(sw_store_scan(w->store, NULL, SIZE_MAX, NOW + 5, on_visit, &v), SW_OK);
    assert_int_equal(v.count, COUNT * 3 / 4);
    do {
        struct sw_store_key after = v.last;

        v.count = 0;
        assert_int_equal(
            sw_store_scan(w->store, steps == 0 ? NULL : &after, 7, NOW + 5, on_visit, &v), SW_OK);
        seen += v.count;
        steps++;
    } while (v.count == 7);
    assert_int_equal(seen, COUNT * 3 / 4);
    v.count = 0;
    assert_int_equal(sw_store_scan(w->store, NULL, 0, NOW, on_visit, &v), SW_OK);
    assert_int_equal(v.count, 0);
}

static void counting(void **state)
{
    struct world *w = *state;
    struct sw_store_stats st;
    struct sw_version v;
    uint64_t commits = 0;

    assert_int_equal(write_one(w, put_of(1, SW_S("a")), NOW, &v), SW_OK);
    assert_int_equal(write_one(w, put_at(1, SW_S("b"), v), NOW, NULL), SW_OK);
    assert_int_equal(write_one(w, put_at(1, SW_S("c"), v), NOW, NULL), SW_E_CONFLICT);
    assert_int_equal(load(w, 1, NOW, NULL), SW_OK);
    assert_int_equal(load(w, 2, NOW, NULL), SW_E_NOT_FOUND);
    sw_store_stats(w->store, &st);
    assert_int_equal(st.records, 1);
    assert_int_equal(st.loads, 2);
    assert_int_equal(st.commits, 3);
    assert_int_equal(st.writes, 2);
    assert_int_equal(st.conflicts, 1);
    assert_int_equal(st.failures, 0);
    assert_int_equal(st.queue, 0);
    for (size_t i = 0; i < SW_STORE_HIST_BUCKETS; i++) {
        commits += st.commit_hist[i];
    }
    assert_int_equal(commits, 3);
}

/* Many keys, overwritten and ended in random order: what is loaded is what was written last. */
static void many_keys(void **state)
{
    enum { KEYS = 300, STEPS = 3000 };
    static uint32_t last[KEYS]; /* 0: free */
    struct world *w = *state;
    struct sw_rng rng;
    char text[32];

    memset(last, 0, sizeof(last));
    sw_rng_seed(&rng, 11);
    for (uint32_t step = 1; step <= STEPS; step++) {
        uint64_t key = sw_rng_below(&rng, KEYS);
        int n = snprintf(text, sizeof(text), "{\"step\":%u}", step);

        if (sw_rng_below(&rng, 8) == 0) {
            /* a tombstone that is already over: the key is free at once */
            assert_int_equal(write_one(w, delete_of(key, NOW), NOW, NULL), SW_OK);
            last[key] = 0;
        } else {
            assert_int_equal(write_one(w, put_of(key, sw_slice_of(text, (size_t)n)), NOW, NULL),
                             SW_OK);
            last[key] = step;
        }
    }
    for (uint64_t key = 0; key < KEYS; key++) {
        int n = snprintf(text, sizeof(text), "{\"step\":%u}", last[key]);

        if (last[key] == 0) {
            assert_int_equal(load(w, key, NOW, NULL), SW_E_NOT_FOUND);
        } else {
            assert_value(w, key, NOW, sw_slice_of(text, (size_t)n));
        }
    }
}

/* What waits when the store is closed is made, and answered when the loop turns. */
static void closing(void **state)
{
    enum { COUNT = 20 };
    static struct sw_store_commit ops[COUNT];
    struct world *w = *state;

    for (size_t i = 0; i < COUNT; i++) {
        ops[i] = (struct sw_store_commit){.count = 1, .now_unix_s = NOW};
        ops[i].writes[0] = put_of(i, SW_S("kept"));
        commit_begin(w, &ops[i]);
    }
    world_reopen(w);
    world_wait(w);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(ops[i].err, SW_OK);
        if (w->maker->durable) {
            assert_value(w, i, NOW, SW_S("kept"));
        }
    }
}

const struct maker *suite_maker; /* cmocka's group has no room for it */

int suite_setup(void **state)
{
    static struct world w;
    /* sync: the contract is the same, and the tests are many */
    struct sw_store_options opt = {.sync = SW_SYNC_NO, .map_bytes_max = 256u << 20};

    world_init(&w, suite_maker, &opt);
    *state = &w;
    return 0;
}

static int setup_narrow(void **state)
{
    static struct world w;
    struct sw_store_options opt = {.sync = SW_SYNC_ALWAYS, .queue_max = 8};

    world_init(&w, suite_maker, &opt);
    *state = &w;
    return 0;
}

int suite_teardown(void **state)
{
    world_fini(*state);
    return 0;
}

int contract_run(const struct maker *maker)
{
#define ROW(name) cmocka_unit_test_setup_teardown(name, suite_setup, suite_teardown)
    const struct CMUnitTest tests[] = {
        ROW(put_and_load),
        ROW(expectations),
        ROW(tombstones),
        ROW(tombstone_ends),
        ROW(touching),
        ROW(expiring),
        ROW(renewing),
        ROW(all_or_none),
        ROW(batches),
        ROW(large_values),
        ROW(small_arena),
        ROW(scanning),
        ROW(counting),
        ROW(many_keys),
        ROW(closing),
        cmocka_unit_test_setup_teardown(queue_full, setup_narrow, suite_teardown),
    };

    suite_maker = maker;
    return cmocka_run_group_tests_name(maker->name, tests, NULL, NULL) + contract_index_run(maker);
}
