/* tests/sim/crash.c - what becomes of each commit, and crashes where they hurt most.
 *
 * Every commit is followed: it flies from its submission until its asker is told. The gateway may
 * die before a commit (an app has done its work, nothing is submitted), within it (submitted, not
 * made: it is forgotten), and after it (made, and nobody was told). The store's faults decide on
 * the first two; for the third the telling is held back here.
 */
#include "world.h"

#define CRASHES_MAX 4u

static bool matters(const struct sw_store_commit *op)
{
    for (size_t i = 0; i < op->count; i++) {
        const struct sw_write *w = &op->writes[i];

        if (w->record == SW_RECORD_CLAIM || w->due_unix_ms != 0 || w->extra.len > 0) {
            return true;
        }
    }
    return false;
}

static void tell(struct flying *f)
{
    struct sw_store_commit *op = sw_take(&f->op);

    op->done = f->done;
    op->arg = f->arg;
    op->done(op);
}

static void tell_late(struct sw_timer *t, void *arg)
{
    (void)t;
    tell(arg);
}

static void made(struct sw_store_commit *op)
{
    struct flying *f = op->arg;
    struct world *w = f->w;

    SW_ASSERT(f->op == op);
    f->applied = op->err == SW_OK || op->err == SW_E_STORE_IO;
    if (f->crash_then && op->err == SW_OK) {
        note(w, "a crash, for a commit is made and not told");
        w->want_crash = true;
        f->late_ns = SW_MAX(f->late_ns, SW_NS_PER_MS);
    }
    if (f->late_ns == 0 || w->quiet) {
        tell(f);
        return;
    }
    sw_timer_start(op->loop, &f->timer, sw_loop_now_ns(op->loop) + f->late_ns);
}

static struct flying *follow(struct world *w, struct sw_store_commit *op)
{
    for (size_t i = 0; i < FLYING_MAX; i++) {
        struct flying *f = &w->flying[i];

        if (f->op == NULL) {
            *f = (struct flying){
                .w = w, .op = op, .done = op->done, .arg = op->arg, .matters = matters(op)};
            sw_timer_init(&f->timer, tell_late, f);
            op->done = made;
            op->arg = f;
            return f;
        }
    }
    broken(w, "more than %u commits fly", FLYING_MAX);
}

static bool may_crash(const struct world *w)
{
    return w->plan.crash_points && !w->quiet && !w->want_crash && w->crashes < CRASHES_MAX;
}

static void fault_of(struct world *w, struct flying *f, struct sw_store_fault *fault)
{
    static const enum sw_err errs[] = {SW_E_STORE_IO, SW_E_STORE_FULL, SW_E_STORE_BUSY};

    if (w->plan.store_slow && chance(w, 60)) {
        fault->delay_ns = pick(w, chance(w, 10) ? 600 * SW_NS_PER_MS : 20 * SW_NS_PER_MS);
    }
    if (w->plan.store_late && chance(w, 40)) {
        f->late_ns = pick(w, chance(w, 10) ? 400 * SW_NS_PER_MS : 20 * SW_NS_PER_MS);
    }
    if (w->plan.store_fails && chance(w, 15)) {
        if (chance(w, 30)) {
            fault->apply_then_fail = true;
        } else {
            fault->err = errs[pick(w, SW_COUNTOF(errs))];
        }
    }
    if (f->matters && may_crash(w) && chance(w, 5)) {
        if (chance(w, 50)) {
            note(w, "a crash, for a commit is submitted");
            w->want_crash = true;
        } else {
            f->crash_then = true;
        }
    }
}

struct sw_store_fault crash_fault(void *arg, const struct sw_store_commit *op)
{
    struct world *w = arg;
    struct sw_store_fault fault = {0, SW_OK, false};
    /* The store's own word that it is const does not bind whoever follows it. */
    struct flying *f = follow(w, (struct sw_store_commit *)(uintptr_t)op);

    if (!w->quiet) {
        fault_of(w, f, &fault);
    }
    return fault;
}

void crash_chance(struct world *w)
{
    if (may_crash(w) && chance(w, 4)) {
        note(w, "a crash, for an app has done its work");
        w->want_crash = true;
    }
}

/* Claims that run and alarms that are delivered, with nothing submitted yet. */
static bool works_at_risk(const struct world *w)
{
    for (uint32_t i = 0; i < w->gw.worker_count; i++) {
        const struct sw_worker *k = w->gw.workers[i];

        for (struct sw_link *l = k->exchange_list.next; l != &k->exchange_list; l = l->next) {
            const struct sw_exchange *x = SW_CONTAINER(l, struct sw_exchange, link);

            if ((x->claim.live || x->alarms != NULL) && x->ever_sent && x->state < EX_COMMIT) {
                return true;
            }
        }
    }
    return false;
}

void crash_count(struct world *w)
{
    w->crashed_before |= works_at_risk(w);
    for (size_t i = 0; i < FLYING_MAX; i++) {
        const struct flying *f = &w->flying[i];

        if (f->op != NULL && f->matters) {
            w->crashed_after |= f->applied;
            w->crashed_within |= !f->applied;
        }
    }
}

void crash_forget(struct world *w)
{
    for (size_t i = 0; i < FLYING_MAX; i++) {
        w->flying[i].op = NULL; /* its timer went with its loop */
    }
}
