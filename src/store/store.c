/* store/store.c - what all stores have in common: see store.h and store_priv.h. */
#include "store/store_priv.h"

/* ---- versions ---------------------------------------------------------------------------------
 */

void sw_version_put(struct sw_out *out, struct sw_version v)
{
    if (sw_version_none(v)) {
        sw_out_lit(out, "\"0\"");
        return;
    }
    sw_out_char(out, '"');
    sw_out_hex(out, v.epoch, 0);
    sw_out_char(out, '-');
    sw_out_u64(out, v.counter);
    sw_out_char(out, '"');
}

enum sw_err sw_version_parse(struct sw_slice text, struct sw_version *ret_version)
{
    struct sw_version v = {0, 0};
    struct sw_slice inside, epoch, counter;
    char again[SW_VERSION_TEXT_MAX];
    struct sw_out out = sw_out_init(again, sizeof(again));

    if (text.len < 3 || text.len > SW_VERSION_TEXT_MAX || text.ptr[0] != '"' ||
        text.ptr[text.len - 1] != '"') {
        return SW_E_SYNTAX;
    }
    inside = (struct sw_slice){text.ptr + 1, text.len - 2};
    if (sw_slice_eq(inside, SW_S("0"))) {
        *ret_version = v;
        return SW_OK;
    }
    if (!sw_slice_cut(inside, '-', &epoch, &counter) || !sw_slice_hex_u64(epoch, &v.epoch) ||
        !sw_slice_u64(counter, &v.counter) || sw_version_none(v)) {
        return SW_E_SYNTAX;
    }
    /* Leading zeros and capitals would be a second text of the same version. */
    sw_version_put(&out, v);
    if (!sw_slice_eq(sw_out_done(&out), text)) {
        return SW_E_SYNTAX;
    }
    *ret_version = v;
    return SW_OK;
}

/* ---- the rules --------------------------------------------------------------------------------
 */

static int64_t earlier(int64_t a, int64_t b)
{
    return a == 0 ? b : b == 0 ? a : SW_MIN(a, b);
}

static enum sw_err expectation(const struct sw_write *w, const struct sw_record *seen)
{
    if (seen != NULL && seen->kind == SW_RECORD_TOMBSTONE) {
        return SW_E_STATE_GONE; /* ended is ended, whatever was expected */
    }
    switch (w->expect) {
    case SW_EXPECT_VERSION:
        if (seen == NULL) {
            return sw_version_none(w->version) ? SW_OK : SW_E_CONFLICT;
        }
        return sw_version_eq(w->version, seen->version) ? SW_OK : SW_E_CONFLICT;
    case SW_EXPECT_EXISTS: /* an alias is no state: the state lives on under another key */
        return seen != NULL && seen->kind == SW_RECORD_STATE ? SW_OK : SW_E_CONFLICT;
    case SW_EXPECT_ANY:
        return SW_OK;
    }
    SW_UNREACHABLE();
}

/* How long a key must stay refused: as long as somebody may still hold what names it. */
static int64_t tombstone_end(const struct sw_write *w, const struct sw_record *seen, int64_t now)
{
    int64_t end = 0;

    if (w->expires_unix_s != 0) {
        return w->expires_unix_s;
    }
    if (seen != NULL) {
        end = seen->absolute_unix_s != 0 ? seen->absolute_unix_s : seen->expires_unix_s;
    }
    return SW_MAX(end, now + SW_TOMBSTONE_S_MIN);
}

struct sw_record sw_store__tombstone_of(const struct sw_record *r)
{
    return (struct sw_record){
        .kind = SW_RECORD_TOMBSTONE,
        .version = r->version,
        .created_unix_s = r->created_unix_s,
        .touched_unix_s = r->touched_unix_s,
        .expires_unix_s = r->expires_unix_s,
        .absolute_unix_s = r->absolute_unix_s,
    };
}

/* Since when the state is its subject's. */
static int64_t bound_at(const struct sw_write *w, const struct sw_record *seen, int64_t now_unix_ms)
{
    if (w->record != SW_RECORD_STATE || w->subject.len == 0) {
        return 0;
    }
    if (w->bound_unix_ms != 0) {
        return w->bound_unix_ms;
    }
    if (seen != NULL && sw_store__has_subject(seen) && sw_slice_eq(seen->subject, w->subject)) {
        return seen->bound_unix_ms;
    }
    return SW_MAX(now_unix_ms, 1); /* 0 would be none */
}

static bool within_limits(const struct sw_write *w)
{
    return w->value.len <= SW_STORE_VALUE_BYTES_MAX && w->subject.len <= SW_SUBJECT_BYTES_MAX &&
           w->extra.len <= SW_EXTRA_BYTES_MAX && w->due_unix_ms >= 0 && w->bound_unix_ms >= 0;
}

static void plan_put(struct sw_record *r, const struct sw_write *w, const struct sw_record *seen,
                     struct store_now now)
{
    SW_ASSERT(w->record == SW_RECORD_STATE || w->record == SW_RECORD_ALIAS ||
              w->record == SW_RECORD_CLAIM);
    SW_ASSERT(w->record != SW_RECORD_ALIAS || w->value.len >= sizeof(struct sw_store_key));
    r->kind = w->record;
    r->created_unix_s = w->created_unix_s != 0 ? w->created_unix_s : r->created_unix_s;
    r->expires_unix_s = earlier(w->expires_unix_s, w->absolute_unix_s);
    r->absolute_unix_s = w->absolute_unix_s;
    r->bound_unix_ms = bound_at(w, seen, now.unix_ms);
    r->due_unix_ms = w->record == SW_RECORD_ALIAS ? 0 : w->due_unix_ms;
    r->sealed = w->sealed;
    r->subject = w->subject;
    r->extra = w->extra;
    r->value = w->value;
}

struct store_plan sw_store__plan(const struct sw_write *w, const struct sw_record *seen, bool cut,
                                 struct store_now now, uint64_t fresh_epoch)
{
    struct store_plan plan = {.err = SW_OK, .act = STORE_KEEP};
    struct sw_record *r = &plan.record;

    SW_ASSERT(fresh_epoch != 0);
    SW_ASSERT(seen == NULL || !sw_version_none(seen->version));
    SW_ASSERT(!cut || (seen != NULL && seen->kind == SW_RECORD_STATE));
    if (w->kind == SW_WRITE_TOUCH) {
        if (seen == NULL || cut || seen->kind != SW_RECORD_STATE) {
            return plan;
        }
        *r = *seen;
        r->touched_unix_s = now.unix_s;
        r->expires_unix_s = earlier(w->expires_unix_s, seen->absolute_unix_s);
        plan.act = STORE_RETIME;
        return plan;
    }
    if (!within_limits(w)) {
        plan.err = SW_E_LIMIT;
        return plan;
    }
    if (cut) {
        if (w->expect != SW_EXPECT_VERSION || !sw_version_none(w->version)) {
            plan.err = SW_E_STATE_GONE;
            return plan;
        }
        seen = NULL; /* made anew, under versions never seen */
    }
    plan.err = expectation(w, seen);
    if (plan.err != SW_OK) {
        return plan;
    }
    plan.act = STORE_PUT;
    r->version = seen == NULL ? (struct sw_version){fresh_epoch, 1}
                              : (struct sw_version){seen->version.epoch, seen->version.counter + 1};
    r->created_unix_s = seen == NULL ? now.unix_s : seen->created_unix_s;
    r->touched_unix_s = now.unix_s;
    if (w->kind == SW_WRITE_DELETE) {
        r->kind = SW_RECORD_TOMBSTONE;
        r->expires_unix_s = tombstone_end(w, seen, now.unix_s);
        return plan;
    }
    SW_ASSERT(w->kind == SW_WRITE_PUT);
    plan_put(r, w, seen, now);
    return plan;
}

struct store_plan sw_store__plan_cutoff(const struct sw_write *w, const struct store_cutoff *seen,
                                        int64_t now_unix_s)
{
    struct store_plan plan = {.err = SW_OK, .act = STORE_KEEP};
    bool there = seen->not_before_unix_ms != 0;
    int64_t end = w->expires_unix_s;

    SW_ASSERT(w->kind == SW_WRITE_CUTOFF);
    if (w->subject.len == 0 || w->subject.len > SW_SUBJECT_BYTES_MAX ||
        w->not_before_unix_ms <= 0) {
        plan.err = SW_E_LIMIT;
        return plan;
    }
    if (there) { /* what the earlier one ended stays ended: it is kept as long as either wants */
        end = end == 0 || seen->expires_unix_s == 0 ? 0 : SW_MAX(end, seen->expires_unix_s);
    }
    if (there &&
        (w->not_before_unix_ms < seen->not_before_unix_ms ||
         (w->not_before_unix_ms == seen->not_before_unix_ms && end == seen->expires_unix_s))) {
        return plan;
    }
    plan.act = STORE_CUTOFF;
    plan.cutoff = (struct store_cutoff){
        .not_before_unix_ms = w->not_before_unix_ms,
        .expires_unix_s = end,
        .look_unix_s = SW_MAX(now_unix_s + SW_TOMBSTONE_S_MIN, 1),
    };
    return plan;
}

/* ---- dispatch ---------------------------------------------------------------------------------
 */

void sw_store__init(struct sw_store *s, const struct store_ops *ops)
{
    s->magic = STORE_MAGIC;
    s->ops = ops;
}

void sw_store__count(struct sw_store *s, struct sw_store_commit *op, uint64_t now_ns)
{
    uint64_t ns, bucket = 0;

    op->done_ns = now_ns;
    ns = op->done_ns - SW_MIN(op->queued_ns, op->done_ns);
    if (op->err == SW_E_CONFLICT || op->err == SW_E_STATE_GONE) {
        sw_store__add(&s->conflicts, 1);
    } else if (op->err != SW_OK) {
        sw_store__add(&s->failures, 1);
    } else {
        sw_store__add(&s->writes, op->count);
    }
    while (bucket + 1 < SW_STORE_HIST_BUCKETS && ns >= (10 * SW_NS_PER_US) << bucket) {
        bucket++;
    }
    sw_store__add(&s->commits, 1);
    sw_store__add(&s->commit_hist[bucket], 1);
    sw_store__add(&s->commit_ns_total, ns);
}

static struct sw_store *checked(struct sw_store *s)
{
    SW_ASSERT(s != NULL);
    SW_ASSERT(s->magic == STORE_MAGIC);
    return s;
}

/* Do two writes of one commit mean the same record? Cut-offs have no key, and are alone. */
static bool same_place(const struct sw_write *a, const struct sw_write *b)
{
    bool a_cuts = a->kind == SW_WRITE_CUTOFF, b_cuts = b->kind == SW_WRITE_CUTOFF;

    return a_cuts || b_cuts ? a_cuts && b_cuts : memcmp(&a->key, &b->key, sizeof(a->key)) == 0;
}

enum sw_step sw_store_load(struct sw_store *store, struct sw_store_load *op)
{
    SW_ASSERT(op->arena != NULL);
    op->record = (struct sw_record){0};
    return checked(store)->ops->load(store, op);
}

void sw_store_commit(struct sw_store *store, struct sw_store_commit *op)
{
    SW_ASSERT(op->count > 0);
    SW_ASSERT(op->count <= SW_COMMIT_WRITES_MAX);
    SW_ASSERT(op->loop != NULL);
    SW_ASSERT(op->done != NULL);
    for (size_t i = 0; i < op->count; i++) {
        op->writes[i].ret_version = (struct sw_version){0, 0};
        for (size_t j = 0; j < i; j++) {
            SW_ASSERT(!same_place(&op->writes[i], &op->writes[j]));
        }
    }
    op->err = SW_OK;
    op->failed = 0;
    op->queued_ns = 0;
    op->done_ns = 0;
    checked(store)->ops->commit(store, op);
}

void sw_store_close(struct sw_store *store)
{
    if (store != NULL) {
        checked(store)->ops->close(store);
    }
}

void sw_store_stats(struct sw_store *store, struct sw_store_stats *ret_stats)
{
    struct sw_store_stats st = {0};
    struct sw_store *s = checked(store);

    st.commits = atomic_load_explicit(&s->commits, memory_order_relaxed);
    st.writes = atomic_load_explicit(&s->writes, memory_order_relaxed);
    st.conflicts = atomic_load_explicit(&s->conflicts, memory_order_relaxed);
    st.failures = atomic_load_explicit(&s->failures, memory_order_relaxed);
    st.expired = atomic_load_explicit(&s->expired, memory_order_relaxed);
    st.syncs = atomic_load_explicit(&s->syncs, memory_order_relaxed);
    st.commit_ns_total = atomic_load_explicit(&s->commit_ns_total, memory_order_relaxed);
    for (size_t i = 0; i < SW_STORE_HIST_BUCKETS; i++) {
        st.commit_hist[i] = atomic_load_explicit(&s->commit_hist[i], memory_order_relaxed);
    }
    s->ops->stats(s, &st);
    *ret_stats = st;
}

const char *sw_store_name(const struct sw_store *store)
{
    SW_ASSERT(store->magic == STORE_MAGIC);
    return store->ops->name;
}

enum sw_err sw_store_scan(struct sw_store *store, const struct sw_store_key *after, size_t limit,
                          int64_t now_unix_s, sw_store_scan_fn *fn, void *arg)
{
    SW_ASSERT(fn != NULL);
    return checked(store)->ops->scan(store, after, limit, now_unix_s, fn, arg);
}

enum sw_err sw_store_scan_subject(struct sw_store *store, struct sw_slice subject,
                                  const struct sw_store_key *after, size_t limit,
                                  int64_t now_unix_s, sw_store_scan_fn *fn, void *arg)
{
    SW_ASSERT(fn != NULL);
    if (subject.len == 0 || subject.len > SW_SUBJECT_BYTES_MAX) {
        return SW_OK; /* nobody's: there are none */
    }
    return checked(store)->ops->scan_subject(store, subject, after, limit, now_unix_s, fn, arg);
}

enum sw_err sw_store_due(struct sw_store *store, int64_t now_unix_ms, size_t limit,
                         sw_store_due_fn *fn, void *arg)
{
    SW_ASSERT(fn != NULL);
    return checked(store)->ops->due(store, now_unix_ms, limit, fn, arg);
}

int64_t sw_store_next_due_unix_ms(const struct sw_store *store)
{
    SW_ASSERT(store->magic == STORE_MAGIC);
    return atomic_load_explicit(&store->next_due_unix_ms, memory_order_relaxed);
}

int64_t sw_store_cutoff_unix_ms(struct sw_store *store, struct sw_slice subject)
{
    if (subject.len == 0 || subject.len > SW_SUBJECT_BYTES_MAX) {
        return 0;
    }
    return checked(store)->ops->cutoff(store, subject);
}
