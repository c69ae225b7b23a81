/* Random commits against a simple model, for each store: after each step every record, both indexes
 * and each scan is what the model says, and after each reopening too; the file is checked there.
 *
 * STATEWAY_MODEL_STEPS: how many (default 2500); the seed is printed.
 */
#include "contract.h"
#include "test_journal.h"

#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"

enum { KEYS = 20, SUBJECTS = 4, NOBODY = SUBJECTS, BOUND_MAX = 100 };

static const char *const names[SUBJECTS + 1] = {"alice", "alic", "alicealicealicealicealicealicea",
                                                "\xff", ""};

struct model {
    struct {
        bool there; /* perhaps expired */
        enum sw_record_kind kind;
        struct sw_version version;
        size_t subject;
        int64_t created, touched, expires, absolute, bound, due;
        bool sealed;
        char value[40], extra[40];
        size_t value_len, extra_len;
    } of[KEYS];
    int64_t cutoff[SUBJECTS];
    int64_t now;
};

static int64_t wall_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static struct sw_slice name_of(size_t subject)
{
    return sw_slice_cstr(names[subject]);
}

static bool m_live(const struct model *m, size_t k)
{
    return m->of[k].there && (m->of[k].expires == 0 || m->of[k].expires > m->now);
}

static bool m_owned(const struct model *m, size_t k)
{
    return m->of[k].there && m->of[k].kind == SW_RECORD_STATE && m->of[k].subject != NOBODY;
}

static bool m_cut(const struct model *m, size_t k)
{
    return m_owned(m, k) && m->cutoff[m->of[k].subject] >= m->of[k].bound;
}

static bool m_visited(const struct model *m, size_t k)
{
    return m_live(m, k) && !m_cut(m, k);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a == 0 ? b : b == 0 ? a : SW_MIN(a, b);
}

/* What a write of key k (or a cut-off) should be answered. */
static enum sw_err m_refusal(const struct model *m, const struct sw_write *w, size_t k)
{
    bool there = m_live(m, k);

    if (w->kind == SW_WRITE_CUTOFF || w->kind == SW_WRITE_TOUCH) {
        return SW_OK;
    }
    if (there && m_cut(m, k)) {
        return w->expect == SW_EXPECT_VERSION && w->version.counter == 0 ? SW_OK : SW_E_STATE_GONE;
    }
    if (there && m->of[k].kind == SW_RECORD_TOMBSTONE) {
        return SW_E_STATE_GONE;
    }
    switch (w->expect) {
    case SW_EXPECT_ANY:
        return SW_OK;
    case SW_EXPECT_EXISTS:
        return there && m->of[k].kind == SW_RECORD_STATE ? SW_OK : SW_E_CONFLICT;
    case SW_EXPECT_VERSION:
        return (there ? sw_version_eq(w->version, m->of[k].version) : w->version.counter == 0)
                   ? SW_OK
                   : SW_E_CONFLICT;
    }
    return SW_E_SYSTEM;
}

static void m_put(struct model *m, const struct sw_write *w, size_t k, size_t subject, bool fresh,
                  int64_t began_ms, int64_t found_bound)
{
    bool kept = !fresh && m->of[k].kind == SW_RECORD_STATE && m->of[k].subject == subject;
    int64_t bound = 0;

    if (w->record == SW_RECORD_STATE && subject != NOBODY) {
        bound = w->bound_unix_ms != 0 ? w->bound_unix_ms : kept ? m->of[k].bound : found_bound;
        if (w->bound_unix_ms == 0 && !kept && found_bound != 0) { /* 0: expired at its birth */
            assert_true(found_bound >= began_ms - 1000 && found_bound <= wall_ms());
        }
    }
    m->of[k].created = w->created_unix_s != 0 ? w->created_unix_s
                       : fresh                ? m->now
                                              : m->of[k].created;
    m->of[k].touched = m->now;
    m->of[k].kind = w->record;
    m->of[k].subject = subject;
    m->of[k].expires = earlier(w->expires_unix_s, w->absolute_unix_s);
    m->of[k].absolute = w->absolute_unix_s;
    m->of[k].bound = bound;
    m->of[k].due = w->record == SW_RECORD_ALIAS ? 0 : w->due_unix_ms;
    m->of[k].sealed = w->sealed;
    m->of[k].value_len = w->value.len;
    m->of[k].extra_len = w->extra.len;
    memcpy(m->of[k].value, w->value.ptr, w->value.len);
    memcpy(m->of[k].extra, w->extra.ptr, w->extra.len);
}

static void m_delete(struct model *m, const struct sw_write *w, size_t k, bool fresh)
{
    int64_t end = fresh ? 0 : m->of[k].absolute != 0 ? m->of[k].absolute : m->of[k].expires;

    m->of[k].created = fresh ? m->now : m->of[k].created;
    m->of[k].touched = m->now;
    m->of[k].expires =
        w->expires_unix_s != 0 ? w->expires_unix_s : SW_MAX(end, m->now + SW_TOMBSTONE_S_MIN);
    m->of[k].kind = SW_RECORD_TOMBSTONE;
    m->of[k].absolute = m->of[k].bound = m->of[k].due = 0;
    m->of[k].sealed = false;
    m->of[k].subject = NOBODY;
    m->of[k].value_len = m->of[k].extra_len = 0;
}

static void m_apply(struct model *m, const struct sw_write *w, size_t k, size_t subject,
                    int64_t began_ms, int64_t found_bound)
{
    bool fresh = !m_visited(m, k);

    if (w->kind == SW_WRITE_CUTOFF) {
        m->cutoff[subject] = SW_MAX(m->cutoff[subject], w->not_before_unix_ms);
        assert_int_equal(w->ret_version.counter, 0);
        return;
    }
    if (w->kind == SW_WRITE_TOUCH) {
        if (!fresh && m->of[k].kind == SW_RECORD_STATE) {
            m->of[k].touched = m->now;
            m->of[k].expires = earlier(w->expires_unix_s, m->of[k].absolute);
            assert_true(sw_version_eq(w->ret_version, m->of[k].version));
        }
        return;
    }
    if (fresh) {
        assert_int_equal(w->ret_version.counter, 1);
        assert_true(w->ret_version.epoch != m->of[k].version.epoch);
    } else {
        assert_int_equal(w->ret_version.counter, m->of[k].version.counter + 1);
        assert_true(w->ret_version.epoch == m->of[k].version.epoch);
    }
    if (w->kind == SW_WRITE_PUT) {
        m_put(m, w, k, subject, fresh, began_ms, found_bound);
    } else {
        m_delete(m, w, k, fresh);
    }
    m->of[k].there = true;
    m->of[k].version = w->ret_version;
}

/* ---- what should be there -------------------------------------------------------------------- */

static void same_record(struct world *w, const struct model *m, size_t k)
{
    struct sw_record r;
    enum sw_err err = load(w, k, m->now, &r);

    assert_int_equal(err, m_live(m, k) ? SW_OK : SW_E_NOT_FOUND);
    if (err != SW_OK) {
        return;
    }
    assert_true(sw_version_eq(r.version, m->of[k].version));
    assert_int_equal(r.expires_unix_s, m->of[k].expires);
    assert_int_equal(r.created_unix_s, m->of[k].created);
    assert_int_equal(r.touched_unix_s, m->of[k].touched);
    assert_int_equal(r.absolute_unix_s, m->of[k].absolute);
    if (m_cut(m, k)) {
        assert_int_equal(r.kind, SW_RECORD_TOMBSTONE);
        assert_int_equal(r.subject.len + r.extra.len + r.value.len, 0);
        assert_int_equal(r.bound_unix_ms + r.due_unix_ms, 0);
        return;
    }
    assert_int_equal(r.kind, m->of[k].kind);
    assert_int_equal(r.bound_unix_ms, m->of[k].bound);
    assert_int_equal(r.due_unix_ms, m->of[k].due);
    assert_int_equal(r.sealed, m->of[k].sealed);
    assert_true(sw_slice_eq(r.subject, name_of(m->of[k].subject)));
    assert_true(sw_slice_eq(r.value, sw_slice_of(m->of[k].value, m->of[k].value_len)));
    assert_true(sw_slice_eq(r.extra, sw_slice_of(m->of[k].extra, m->of[k].extra_len)));
}

/* Model keys in the order of their hashes. */
static int by_hash(const void *a, const void *b)
{
    struct sw_store_key ka = key_of(*(const size_t *)a), kb = key_of(*(const size_t *)b);

    return memcmp(&ka, &kb, sizeof(ka));
}

static void same_scan(struct world *w, const struct model *m, const size_t order[KEYS],
                      size_t subject)
{
    static struct visited v;
    size_t want = 0;

    visit(w, name_of(subject), NULL, SIZE_MAX, m->now, &v);
    for (size_t i = 0; i < KEYS; i++) {
        size_t k = order[i];

        if (m_visited(m, k) &&
            (subject == NOBODY || (m_owned(m, k) && m->of[k].subject == subject))) {
            assert_true(want < v.count);
            assert_true(is_key(&v.keys[want], k));
            want++;
        }
    }
    assert_int_equal(v.count, want);
}

static void same_due(struct world *w, const struct model *m, const size_t order[KEYS], size_t limit,
                     int64_t ahead_ms)
{
    static struct visited v;
    int64_t at = m->now * 1000 + ahead_ms, last = 0, next = sw_store_next_due_unix_ms(w->store);
    int64_t first = 0;
    bool taken[KEYS] = {false};
    size_t count = 0;

    visit_due(w, at, limit, &v);
    for (size_t k = 0; k < KEYS; k++) {
        if (m_visited(m, k) && m->of[k].due != 0 && (first == 0 || m->of[k].due < first)) {
            first = m->of[k].due;
        }
    }
    assert_true(first == 0 || (next > 0 && next <= first));
    for (;; count++) { /* the earliest that is left */
        size_t best = KEYS;
        struct model later = *m;

        later.now = at / 1000; /* what has expired by then is not due */
        for (size_t i = 0; i < KEYS; i++) {
            size_t k = order[i];

            if (!taken[k] && m_visited(&later, k) && m->of[k].due != 0 && m->of[k].due <= at &&
                (best == KEYS || m->of[k].due < m->of[best].due)) {
                best = k;
            }
        }
        if (best == KEYS || count == limit) {
            break;
        }
        taken[best] = true;
        assert_true(count < v.count);
        assert_true(is_key(&v.keys[count], best));
        assert_true(m->of[best].due >= last);
        last = m->of[best].due;
    }
    assert_int_equal(v.count, count);
}

static void on_complaint(void *arg, const char *text)
{
    (void)arg;
    print_message("%s\n", text);
}

/* The file, by the command that looks at it. */
static void same_file(struct world *w, const struct model *m)
{
    struct sw_store_checked c;
    const char *why = "";
    uint64_t states = 0, subjects = 0, due = 0, records = 0, cutoffs = 0;

    if (sw_store_lmdb_check(sw_slice_cstr(w->folder), false, on_complaint, NULL, &c, &why) !=
        SW_OK) {
        fail_msg("%s", why);
    }
    for (size_t k = 0; k < KEYS; k++) {
        records += m->of[k].there;
        states += m->of[k].there && m->of[k].kind == SW_RECORD_STATE;
        subjects += m_owned(m, k);
        due += m->of[k].there && m->of[k].due != 0;
    }
    for (size_t i = 0; i < SUBJECTS; i++) {
        cutoffs += m->cutoff[i] != 0;
    }
    assert_int_equal(c.records, records);
    assert_int_equal(c.states, states);
    assert_int_equal(c.subjects, subjects);
    assert_int_equal(c.due, due);
    assert_int_equal(c.cutoffs, cutoffs);
    assert_int_equal(c.states + c.tombstones + c.aliases + c.claims, c.records);
}

static void compacted(struct world *w)
{
    uint64_t before, after;
    const char *why = "";

    if (sw_store_lmdb_compact(sw_slice_cstr(w->folder), &before, &after, &why) != SW_OK) {
        fail_msg("%s", why);
    }
    assert_true(after > 0);
}

/* ---- random steps ---------------------------------------------------------------------------- */

static struct sw_write random_write(struct sw_rng *rng, const struct model *m, size_t k,
                                    size_t subject, char *text)
{
    uint64_t kind = sw_rng_below(rng, 20), expect = sw_rng_below(rng, 6);
    struct sw_write w = {
        .kind = kind < 12   ? SW_WRITE_PUT
                : kind < 15 ? SW_WRITE_TOUCH
                : kind < 18 ? SW_WRITE_DELETE
                            : SW_WRITE_CUTOFF,
        .key = key_of(k),
        .record = kind < 9    ? SW_RECORD_STATE
                  : kind < 11 ? SW_RECORD_ALIAS
                              : SW_RECORD_CLAIM,
        .expect = expect < 3   ? SW_EXPECT_ANY
                  : expect < 4 ? SW_EXPECT_EXISTS
                               : SW_EXPECT_VERSION,
        .version = sw_rng_below(rng, 2) == 0 ? m->of[k].version : (struct sw_version){0, 0},
        .expires_unix_s =
            sw_rng_below(rng, 3) == 0 ? 0 : m->now + (int64_t)sw_rng_below(rng, 40) - 3,
        .absolute_unix_s = sw_rng_below(rng, 3) == 0 ? m->now + (int64_t)sw_rng_below(rng, 60) : 0,
        .due_unix_ms =
            sw_rng_below(rng, 2) == 0 ? 0 : m->now * 1000 + (int64_t)sw_rng_below(rng, 9) * 1000,
        .bound_unix_ms = (int64_t)sw_rng_below(rng, BOUND_MAX),
        .created_unix_s = sw_rng_below(rng, 5) == 0 ? m->now - 7 : 0,
        .sealed = sw_rng_below(rng, 2) == 0,
        .subject = name_of(subject),
        .not_before_unix_ms = 1 + (int64_t)sw_rng_below(rng, BOUND_MAX / 4),
    };

    memset(text, (int)('a' + sw_rng_below(rng, 26)), 80);
    w.extra = sw_slice_of(text, sw_rng_below(rng, 3) == 0 ? sw_rng_below(rng, 40) : 0);
    w.value = sw_slice_of(text + 40, w.record == SW_RECORD_ALIAS ? 32 : sw_rng_below(rng, 40));
    return w;
}

static void one_step(struct world *w, struct model *m, struct sw_rng *rng)
{
    static char texts[SW_COMMIT_WRITES_MAX][80];
    struct sw_store_commit op = {.count = 1 + sw_rng_below(rng, SW_COMMIT_WRITES_MAX),
                                 .now_unix_s = m->now};
    size_t keys[SW_COMMIT_WRITES_MAX], subjects[SW_COMMIT_WRITES_MAX], failed = 0;
    size_t first = sw_rng_below(rng, KEYS);
    enum sw_err want = SW_OK, err;
    int64_t began_ms = wall_ms(), bounds[SW_COMMIT_WRITES_MAX] = {0};
    bool cuts = false;

    for (size_t i = 0; i < op.count; i++) {
        keys[i] = (first + i * 3) % KEYS;
        subjects[i] = sw_rng_below(rng, SUBJECTS + 1);
        do {
            op.writes[i] = random_write(rng, m, keys[i], subjects[i], texts[i]);
        } while (op.writes[i].kind == SW_WRITE_CUTOFF && (cuts || subjects[i] == NOBODY));
        cuts |= op.writes[i].kind == SW_WRITE_CUTOFF;
        if (want == SW_OK) {
            want = m_refusal(m, &op.writes[i], keys[i]);
            failed = i;
        }
    }
    err = commit(w, &op);
    if (err != want || (err != SW_OK && op.failed != failed)) {
        fail_msg("%s (write %zu), not %s (write %zu)", sw_err_name(err), op.failed,
                 sw_err_name(want), failed);
    }
    if (err != SW_OK) {
        return;
    }
    for (size_t i = 0; i < op.count; i++) {
        struct sw_record r;

        if (op.writes[i].kind == SW_WRITE_PUT && load(w, keys[i], m->now, &r) == SW_OK) {
            bounds[i] = r.bound_unix_ms;
        }
    }
    for (size_t i = 0; i < op.count; i++) { /* what they met was looked at before: no cut-off yet */
        if (op.writes[i].kind != SW_WRITE_CUTOFF) {
            m_apply(m, &op.writes[i], keys[i], subjects[i], began_ms, bounds[i]);
        }
    }
    for (size_t i = 0; i < op.count; i++) {
        if (op.writes[i].kind == SW_WRITE_CUTOFF) {
            m_apply(m, &op.writes[i], keys[i], subjects[i], began_ms, bounds[i]);
        }
    }
}

static void against_model(const struct maker *maker)
{
    static struct model m;
    const char *steps_text = getenv("STATEWAY_MODEL_STEPS");
    uint64_t steps = 2500, seed = (uint64_t)time(NULL);
    struct sw_store_options opt = {.sync = SW_SYNC_NO, .map_bytes_max = 16u << 20};
    size_t order[KEYS];
    struct world w;
    struct sw_rng rng;

    if (steps_text != NULL) {
        assert_true(sw_slice_u64(sw_slice_cstr(steps_text), &steps));
    }
    print_message("seed %lu\n", (unsigned long)seed);
    sw_rng_seed(&rng, seed);
    memset(&m, 0, sizeof(m));
    m.now = time(NULL) + 1000000; /* nothing is over by the wall clock: compacting keeps it all */
    for (size_t i = 0; i < KEYS; i++) {
        order[i] = i;
    }
    qsort(order, KEYS, sizeof(order[0]), by_hash);
    world_init(&w, maker, &opt);
    for (uint64_t step = 0; step < steps; step++) {
        bool again = maker->durable && step % 100 == 99;

        one_step(&w, &m, &rng);
        for (int turn = 0; turn < (again ? 2 : 1); turn++) {
            for (size_t k = 0; k < KEYS; k++) {
                same_record(&w, &m, k);
            }
            for (size_t i = 0; i <= SUBJECTS; i++) {
                same_scan(&w, &m, order, i);
            }
            for (size_t i = 0; i < SUBJECTS; i++) {
                assert_int_equal(sw_store_cutoff_unix_ms(w.store, name_of(i)), m.cutoff[i]);
            }
            same_due(&w, &m, order, 1 + sw_rng_below(&rng, KEYS),
                     (int64_t)sw_rng_below(&rng, 12000));
            if (again && turn == 0) {
                if (maker == &maker_lmdb) {
                    same_file(&w, &m); /* open, and then closed */
                }
                sw_store_close(w.store);
                w.store = NULL;
                if (maker == &maker_lmdb) {
                    same_file(&w, &m);
                }
                if (maker == &maker_lmdb && step % 200 == 199) {
                    compacted(&w);
                    same_file(&w, &m);
                }
                assert_int_equal(maker->open(&w, &(const char *){""}), SW_OK);
            }
        }
        m.now += (int64_t)sw_rng_below(&rng, 3);
    }
    world_fini(&w);
}

static void lmdb(void **state)
{
    (void)state;
    against_model(&maker_lmdb);
}

static void memory(void **state)
{
    (void)state;
    against_model(&maker_mem);
}

static void journal(void **state)
{
    (void)state;
    against_model(&maker_journal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lmdb),
        cmocka_unit_test(memory),
        cmocka_unit_test(journal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
