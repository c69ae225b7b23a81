/* app/life.c - the lives of instances: started, adopted, in rotation, drained, stopped, replaced.
 *
 * Room       app/, main thread only. Tells the supervisor by hooks->send; hears it by
 *            sw_life_control.
 * Flow       HELLO -> INSTANCE* -> SYNCED -> START what is missing -> STARTED -> checks -> healthy.
 *
 * A slot ("shop/2") wants one instance: `current`. `next` is one that was started to take its
 * place, and does so at the moment it is healthy; until then it is in nobody's way and may fail. An
 * instance that left its slot (drained, killed, exited) goes to its end by itself, in its entry of
 * the table.
 *
 * Events move what they can (EXITED takes an instance out of rotation and starts the next one in
 * the same turn). A tick of 100 ms does what no event tells: deadlines, counters of the workers,
 * entries that are no longer held, the ledger.
 *
 * Servers (addresses) have slots and states like processes, but nobody starts or stops them, and
 * their incarnation is a hash of the app's name and the address: we cannot see them restart. So
 * pins of servers name an address, and whoever restarts one in place loses its visitors' state
 * without a verdict `lost`.
 *
 * What a gateway that just began cannot know: who was bound to the instances that ran before it.
 * They are drained only when the idle time of the app's pins has passed since then.
 */
#include <errno.h>
#include <stdarg.h>
#include <sys/wait.h>

#include "app/life_priv.h"

void sw_life__log(struct sw_life *l, enum sw_log_level level, const char *fmt, ...)
{
    char text[512];
    va_list args;

    if (l->hooks.log == NULL) {
        return;
    }
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    l->hooks.log(l->hooks.arg, level, text);
}

static void life_send(struct sw_life *l, enum sw_control_kind kind, const struct sw_instance *i,
                      uint64_t grace_ns)
{
    struct sw_control msg;

    memset(&msg, 0, sizeof msg); /* padding too: it crosses a process border */
    msg.version = SW_CONTROL_VERSION;
    msg.kind = kind;
    msg.grace_ms = (uint32_t)SW_MIN(grace_ns / SW_NS_PER_MS, (uint64_t)UINT32_MAX);
    if (i != NULL) {
        msg.app = i->app;
        msg.slot = i->slot;
        msg.incarnation = i->incarnation;
        msg.pid = i->pid;
    }
    l->hooks.send(l->hooks.arg, &msg);
}

/* ---- states ---------------------------------------------------------------------------------- */

void sw_life__to(struct sw_life *l, struct sw_instance *i, enum sw_instance_state to)
{
    const struct life_app *a = sw_life__app(l, i);

    sw_instance__set(i, to);
    i->life.since_ns = sw_loop_now_ns(l->loop);
    switch (to) {
    case SW_INSTANCE_HEALTHY:
        if (i->life.healthy_ns == 0) {
            i->life.healthy_ns = i->life.since_ns;
        }
        break;
    case SW_INSTANCE_DRAINING:
        i->life.drain_deadline_ns = i->life.since_ns + a->table->config->drain_deadline_ns;
        i->life.drained = false;
        if (a->table->spawned) {
            sw_check__stop(i->life.check);
        }
        break;
    case SW_INSTANCE_STOPPING:
        i->life.stop_deadline_ns = i->life.since_ns + LIFE_STOP_WAIT_NS;
        sw_check__stop(i->life.check);
        sw_upstream__wake_all(l->apps, NULL); /* idle connections to it are closed now */
        break;
    case SW_INSTANCE_NONE:
    case SW_INSTANCE_STARTING:
    case SW_INSTANCE_UNHEALTHY:
        break;
    case SW_INSTANCE_STATE_COUNT:
        SW_UNREACHABLE();
    }
}

/* Takes an entry of the table and makes it an instance that is starting. */
static struct sw_instance *life_claim(struct sw_life *l, struct life_slot *s, uint64_t incarnation)
{
    struct sw_instance *i = sw_instance__claim(l->apps, s->app, s->slot, incarnation);

    if (i == NULL) {
        return NULL;
    }
    i->life.check = &l->checks[sw_instance__index(l->apps, i)];
    i->life.started_ns = sw_loop_now_ns(l->loop);
    return i;
}

/* Nobody knows yet who is bound to it. */
static void life_unlisted(struct sw_life *l, struct sw_instance *i)
{
    int64_t idle_s = sw_life__app(l, i)->table->idle_s_max;

    if (idle_s > 0) {
        atomic_store(&i->unlisted_until_unix_s, sw_loop_now_unix_s(l->loop) + idle_s);
    }
}

/* ---- slots ----------------------------------------------------------------------------------- */

static void slot_expect(struct life_slot *s, bool expected)
{
    struct app_table *t = s->life->list[s->app].table;

    if (s->expected != expected) {
        s->expected = expected;
        if (expected) {
            atomic_fetch_add(&t->expected, 1);
        } else {
            atomic_fetch_sub(&t->expected, 1);
        }
    }
}

static uint64_t life_incarnation(struct sw_life *l, uint32_t app)
{
    uint64_t id;

    do {
        id = sw_loop_random(l->loop);
    } while (id == 0 || sw_apps__by_incarnation(l->apps, app, id) != NULL);
    return id;
}

bool sw_life__start(struct sw_life *l, struct life_slot *s)
{
    struct sw_instance *i;

    SW_ASSERT(!l->stopping);
    SW_ASSERT(s->next == NULL);
    i = life_claim(l, s, life_incarnation(l, s->app));
    if (i == NULL) {
        return false;
    }
    i->life.start_deadline_ns = sw_loop_now_ns(l->loop) + l->config->apps[s->app].start_timeout_ns;
    sw_life__to(l, i, SW_INSTANCE_STARTING);
    if (s->current == NULL) {
        s->current = i;
    } else {
        s->next = i;
    }
    sw_timer_stop(l->loop, &s->restart);
    slot_expect(s, false);
    life_send(l, SW_CONTROL_START, i, 0);
    return true;
}

static void slot_restart_in(struct life_slot *s, uint64_t delay_ns)
{
    sw_timer_start(s->life->loop, &s->restart, sw_loop_now_ns(s->life->loop) + delay_ns);
    slot_expect(s, delay_ns <= SW_NS_PER_S);
}

/* Now, or in a second when all entries of the table are still held. */
static void slot_start(struct life_slot *s)
{
    if (!sw_life__start(s->life, s)) {
        sw_life__log(s->life, SW_LOG_WARN,
                     "%.*s/%u cannot start yet: too many old instances are still held",
                     SW_SARG(s->life->config->apps[s->app].name), s->slot);
        slot_restart_in(s, SW_NS_PER_S);
    }
}

static void slot_restart_due(struct sw_timer *timer, void *arg)
{
    struct life_slot *s = arg;

    (void)timer;
    if (!s->life->stopping && s->current == NULL) {
        slot_start(s);
    }
}

static void slot_hint(struct sw_life *l, const struct life_slot *s)
{
    const struct sw_config_app *c = &l->config->apps[s->app];

    sw_life__log(l, SW_LOG_ERROR,
                 "%.*s/%u ended %u times before it was healthy even once; look at the output of "
                 "`%s`, and whether it listens where PORT says%s%.*s",
                 SW_SARG(c->name), s->slot, s->stillborn, c->command[0],
                 c->health_path.len > 0 ? " and answers 2xx to GET " : "", SW_SARG(c->health_path));
}

/* The slot's instance is lost: the next one at once if it is the first loss of one that was
 * healthy, later and later if this goes on. */
static void slot_restart(struct life_slot *s, const struct sw_instance *lost)
{
    struct sw_life *l = s->life;
    uint64_t now_ns = sw_loop_now_ns(l->loop), delay_ns;

    if (lost->life.healthy_ns > 0) {
        s->stillborn = 0;
        if (now_ns - lost->life.healthy_ns >= LIFE_PROVEN_NS) {
            s->crashes = 0;
        }
    } else {
        s->stillborn++;
        s->crashes = SW_MAX(s->crashes, 1u);
        if (s->stillborn == LIFE_HINT_EXITS) {
            slot_hint(l, s);
        }
    }
    if (s->crashes == 0) {
        s->crashes = 1;
        slot_start(s);
        return;
    }
    if (lost->life.healthy_ns > 0) { /* it can serve: whoever kills it, the others need it back */
        delay_ns = SW_MIN(LIFE_BACKOFF_SERVED_NS << SW_MIN(s->crashes - 1, 16u),
                          LIFE_BACKOFF_SERVED_MAX_NS);
    } else {
        delay_ns = SW_MIN(LIFE_BACKOFF_NS << SW_MIN(s->crashes - 1, 16u), LIFE_BACKOFF_MAX_NS);
    }
    delay_ns = delay_ns - delay_ns / 4 + sw_loop_random(l->loop) % (delay_ns / 2 + 1);
    s->crashes++;
    slot_restart_in(s, delay_ns);
}

/* i is no longer in its slot, if it was: ended, or given up. */
static void slot_lost(struct sw_life *l, struct sw_instance *i)
{
    struct life_app *a = sw_life__app(l, i);
    struct life_slot *s = sw_life__slot(l, i);

    if (s->next == i) {
        s->next = NULL;
        sw_roll__failed(a, s);
        return;
    }
    if (s->current != i) {
        return;
    }
    s->current = NULL;
    if (s->next != NULL) {              /* it was about to be replaced anyway */
        s->current = sw_take(&s->next); /* a roll goes on when it is healthy */
        return;
    }
    if (l->stopping) {
        return;
    }
    slot_restart(s, i);
    if (i->life.healthy_ns == 0) {
        sw_roll__failed(a, s); /* a roll waited for it */
    }
}

/* ---- ways to the end ------------------------------------------------------------------------- */

void sw_life__drain(struct sw_life *l, struct sw_instance *i)
{
    sw_life__to(l, i, SW_INSTANCE_DRAINING);
    sw_life__log(l, SW_LOG_INFO, "%s drains: %u visitors are bound to it", i->name, i->sessions);
}

static void life_kill(struct sw_life *l, struct sw_instance *i)
{
    life_send(l, SW_CONTROL_KILL, i, 0);
    sw_life__to(l, i, SW_INSTANCE_STOPPING);
    i->life.stop_sent = true;
    i->life.stop_deadline_ns = sw_loop_now_ns(l->loop) + LIFE_STUCK_NS;
    slot_lost(l, i);
}

/* There is no process any more (or never was one). */
static void life_ended(struct sw_life *l, struct sw_instance *i)
{
    i->life.exited = true;
    if (sw_instance__state(i) != SW_INSTANCE_STOPPING) {
        sw_life__to(l, i, SW_INSTANCE_STOPPING);
    }
    slot_lost(l, i);
    if (sw_instance__unheld(i)) {
        sw_life__to(l, i, SW_INSTANCE_NONE);
    }
}

/* ---- taking its place ------------------------------------------------------------------------ */

static void life_ready(struct sw_life *l)
{
    uint64_t age_ns = sw_loop_now_ns(l->loop) - l->began_ns;
    bool all = true;

    if (l->ready_told || l->stopping) {
        return;
    }
    for (uint32_t k = 0; k < l->app_count; k++) {
        struct life_app *a = &l->list[k];
        uint32_t healthy = 0;

        for (uint32_t n = 0; n < a->slot_count; n++) {
            healthy += a->slots[n].current != NULL && a->slots[n].current->life.healthy_ns > 0;
        }
        a->ready = a->ready || healthy == a->slot_count ||
                   (healthy > 0 && age_ns >= a->table->config->start_timeout_ns);
        all = all && a->ready;
    }
    if (all) {
        l->ready_told = true;
        if (l->hooks.ready != NULL) {
            l->hooks.ready(l->hooks.arg);
        }
    }
}

void sw_life__passed(struct sw_life *l, struct sw_instance *i)
{
    struct life_app *a = sw_life__app(l, i);
    struct life_slot *s = sw_life__slot(l, i);
    bool is_first = i->life.healthy_ns == 0;
    uint64_t took_ns = sw_loop_now_ns(l->loop) - i->life.since_ns;

    sw_life__to(l, i, SW_INSTANCE_HEALTHY);
    sw_life__log(l, SW_LOG_INFO, "%s is healthy%s (%s, %llu ms)", i->name, is_first ? "" : " again",
                 i->address, (unsigned long long)(took_ns / SW_NS_PER_MS));
    if (i->weight == 0) {
        sw_life__drain(l, i); /* weight 0: those bound to it may stay, nobody else comes */
    }
    if (s->next == i) {
        struct sw_instance *old = s->current;

        s->current = i;
        s->next = NULL;
        sw_life__drain(l, old);
        sw_roll__replaced(a, s, old);
    } else if (is_first) {
        sw_roll__replaced(a, s, NULL);
    }
    life_ready(l);
}

/* ---- the supervisor's messages --------------------------------------------------------------- */

/* NUL-terminated text of a fixed field. */
static struct sw_slice control_address(const struct sw_control *msg)
{
    return sw_slice_of(msg->address, strnlen(msg->address, sizeof msg->address));
}

static bool life_address(struct sw_instance *i, const struct sw_control *msg)
{
    struct sw_slice text = control_address(msg);

    if (text.len >= sizeof i->address || sw_addr_parse(text, false, &i->addr) != SW_OK) {
        i->addr = (struct sw_addr){.len = 0};
        return false;
    }
    memcpy(i->address, text.ptr, text.len);
    i->address[text.len] = '\0';
    i->pid = msg->pid;
    return true;
}

static struct sw_instance *older(struct sw_instance *a, struct sw_instance *b)
{
    return a->life.started_ns <= b->life.started_ns ? a : b;
}

/* One that ran before this gateway did. Two of a slot: the last gateway was replacing the older by
 * the younger, and so do we. A third one was on its way out. */
static void slot_adopt(struct sw_life *l, struct life_slot *s, struct sw_instance *i)
{
    struct sw_instance *rest = NULL;

    if (s->current == NULL) {
        s->current = i;
        return;
    }
    if (s->next != NULL) {
        rest = older(older(s->current, s->next), i);
        if (rest == s->current) {
            s->current = sw_take(&s->next);
        } else if (rest == s->next) {
            s->next = NULL;
        }
        sw_life__drain(l, rest);
        if (rest == i) {
            return;
        }
    }
    if (older(s->current, i) == s->current) {
        s->next = i;
    } else {
        s->next = s->current;
        s->current = i;
    }
}

static void life_on_instance(struct sw_life *l, const struct sw_control *msg)
{
    uint64_t now_ns = sw_loop_now_ns(l->loop);
    uint64_t age_ns = msg->started_ms_ago * SW_NS_PER_MS;
    struct life_app *a = msg->app < l->app_count ? &l->list[msg->app] : NULL;
    struct sw_instance *i = NULL;

    if (l->synced || msg->incarnation == 0) {
        return;
    }
    if (a != NULL && a->table->spawned && msg->slot >= 1 && msg->slot <= a->slot_count) {
        if (sw_apps__by_incarnation(l->apps, msg->app, msg->incarnation) != NULL) {
            return;
        }
        i = life_claim(l, &a->slots[msg->slot - 1], msg->incarnation);
    }
    if (i == NULL || !life_address(i, msg)) {
        struct sw_control stop = *msg; /* not of this configuration: nobody will use it */

        sw_life__log(l, SW_LOG_WARN, "process %d is of no app of this configuration: stopping it",
                     (int)msg->pid);
        stop.kind = SW_CONTROL_STOP;
        stop.grace_ms =
            (uint32_t)SW_MIN(l->config->timeouts.stop_ns / SW_NS_PER_MS, (uint64_t)UINT32_MAX);
        l->hooks.send(l->hooks.arg, &stop);
        return;
    }
    i->life.adopted = true;
    i->life.started_ns = now_ns > age_ns ? now_ns - age_ns : 0;
    if (age_ns < a->table->config->start_timeout_ns) {
        i->life.start_deadline_ns = now_ns + a->table->config->start_timeout_ns - age_ns;
    } /* else it was up: when its checks fail now it is unhealthy, not a failed start */
    life_unlisted(l, i);
    sw_life__to(l, i, SW_INSTANCE_STARTING);
    slot_adopt(l, &a->slots[msg->slot - 1], i);
    if (sw_instance__state(i) == SW_INSTANCE_STARTING) {
        sw_health__begin(l, i);
    }
}

static void life_on_synced(struct sw_life *l)
{
    if (l->synced) {
        return;
    }
    l->synced = true;
    for (uint32_t k = 0; k < l->app_count; k++) {
        struct life_app *a = &l->list[k];

        for (uint32_t n = 0; n < a->slot_count && a->table->spawned; n++) {
            if (a->slots[n].current == NULL && !l->stopping) {
                slot_start(&a->slots[n]);
            }
        }
        atomic_store(&a->table->known, true);
    }
}

static struct sw_instance *life_named(struct sw_life *l, const struct sw_control *msg)
{
    if (msg->app >= l->app_count || !l->list[msg->app].table->spawned) {
        return NULL;
    }
    return sw_apps__by_incarnation(l->apps, msg->app, msg->incarnation);
}

static void life_on_started(struct sw_life *l, const struct sw_control *msg)
{
    struct sw_instance *i = life_named(l, msg);

    if (i == NULL || i->addr.len > 0 || i->life.exited) {
        return;
    }
    if (msg->status != 0) {
        sw_life__log(l, SW_LOG_ERROR, "%s cannot be started: %s", i->name,
                     strerror(msg->status)); /* main thread only */
        life_ended(l, i);
        return;
    }
    if (!life_address(i, msg)) {
        sw_life__log(l, SW_LOG_ERROR, "%s: the supervisor names no address", i->name);
        life_kill(l, i);
        return;
    }
    if (sw_instance__state(i) == SW_INSTANCE_STARTING) { /* else it was given up meanwhile */
        sw_health__begin(l, i);
    }
}

static void life_on_exited(struct sw_life *l, const struct sw_control *msg)
{
    struct sw_instance *i = life_named(l, msg);
    enum sw_log_level level;

    if (i == NULL || i->life.exited) {
        return;
    }
    level = i->life.stop_sent || l->stopping ? SW_LOG_INFO : SW_LOG_WARN;
    if (WIFSIGNALED(msg->status)) {
        sw_life__log(l, level, "%s (pid %d) was ended by signal %d%s%s", i->name, (int)i->pid,
                     WTERMSIG(msg->status), i->sessions > 0 ? ", with visitors bound to it" : "",
                     i->life.healthy_ns == 0 ? ", before it was healthy" : "");
    } else {
        sw_life__log(l, level, "%s (pid %d) ended with status %d%s%s", i->name, (int)i->pid,
                     WEXITSTATUS(msg->status), i->sessions > 0 ? ", with visitors bound to it" : "",
                     i->life.healthy_ns == 0 ? ", before it was healthy" : "");
    }
    life_ended(l, i);
}

void sw_life_control(struct sw_life *l, const struct sw_control *msg)
{
    SW_ASSERT(l->magic == LIFE_MAGIC);
    if (msg->version != SW_CONTROL_VERSION) {
        return;
    }
    switch (msg->kind) {
    case SW_CONTROL_INSTANCE:
        life_on_instance(l, msg);
        break;
    case SW_CONTROL_SYNCED:
        life_on_synced(l);
        break;
    case SW_CONTROL_STARTED:
        life_on_started(l, msg);
        break;
    case SW_CONTROL_EXITED:
        life_on_exited(l, msg);
        break;
    default: /* SHUTDOWN and RELOAD are the gateway's; others are not for us */
        break;
    }
}

/* ---- the tick -------------------------------------------------------------------------------- */

static void tick_starting(struct sw_life *l, struct sw_instance *i, uint64_t now_ns)
{
    if (i->life.start_deadline_ns == 0 || now_ns < i->life.start_deadline_ns || l->stopping) {
        return;
    }
    sw_life__log(l, SW_LOG_ERROR, "%s was not healthy within %llu s: ending it", i->name,
                 (unsigned long long)(l->config->apps[i->app].start_timeout_ns / SW_NS_PER_S));
    life_kill(l, i);
}

static void tick_draining(struct sw_life *l, struct sw_instance *i, uint64_t now_ns)
{
    bool is_over = now_ns >= i->life.drain_deadline_ns;
    bool is_empty = atomic_load(&i->sessions) == 0 && atomic_load(&i->in_flight) == 0 &&
                    sw_loop_now_unix_s(l->loop) >= atomic_load(&i->unlisted_until_unix_s);

    if (is_empty && !i->life.drained) {
        i->life.drained = true;
        sw_life__log(l, SW_LOG_INFO, "%s is drained: nobody is bound to it", i->name);
    }
    if (is_over && !is_empty) {
        sw_life__log(l, SW_LOG_WARN, "%s: the drain deadline has come; %u visitors are still bound",
                     i->name, i->sessions);
    }
    if (is_over || (is_empty && l->list[i->app].table->spawned)) {
        sw_life__to(l, i, SW_INSTANCE_STOPPING); /* a server waits there for undrain */
    }
}

static void tick_stopping(struct sw_life *l, struct sw_instance *i, uint64_t now_ns)
{
    if (!l->list[i->app].table->spawned) {
        return;
    }
    if (i->life.exited) {
        if (sw_instance__unheld(i)) {
            sw_life__to(l, i, SW_INSTANCE_NONE);
        }
        return;
    }
    if (!i->life.stop_sent) {
        if (atomic_load(&i->in_flight) == 0 || now_ns >= i->life.stop_deadline_ns) {
            uint64_t grace_ns = l->config->timeouts.stop_ns;

            i->life.stop_sent = true;
            i->life.stop_deadline_ns = now_ns + grace_ns + LIFE_STUCK_NS;
            life_send(l, SW_CONTROL_STOP, i, grace_ns);
        }
        return;
    }
    if (now_ns >= i->life.stop_deadline_ns) {
        i->life.stop_deadline_ns = now_ns + LIFE_STUCK_NS;
        if (i->pid == 0) { /* the supervisor never said it began, and now nothing ended */
            life_ended(l, i);
            return;
        }
        sw_life__log(l, SW_LOG_WARN, "%s (pid %d) does not end", i->name, (int)i->pid);
        life_send(l, SW_CONTROL_KILL, i, 0);
    }
}

static bool tick_instance(struct sw_life *l, struct sw_instance *i, uint64_t now_ns)
{
    switch (sw_instance__state(i)) {
    case SW_INSTANCE_NONE:
        break;
    case SW_INSTANCE_STARTING:
        tick_starting(l, i, now_ns);
        break;
    case SW_INSTANCE_HEALTHY:
    case SW_INSTANCE_UNHEALTHY:
        sw_health__tick(l, i);
        break;
    case SW_INSTANCE_DRAINING:
        tick_draining(l, i, now_ns);
        return true;
    case SW_INSTANCE_STOPPING:
        tick_stopping(l, i, now_ns);
        break;
    case SW_INSTANCE_STATE_COUNT:
        SW_UNREACHABLE();
    }
    return false;
}

static void life_tick(struct sw_timer *timer, void *arg)
{
    struct sw_life *l = arg;
    uint64_t now_ns = sw_loop_now_ns(l->loop);
    bool is_draining = false;

    SW_ASSERT(l->magic == LIFE_MAGIC);
    sw_timer_start(l->loop, timer, now_ns + LIFE_TICK_NS);
    for (uint32_t k = 0; k < l->app_count; k++) {
        struct app_table *t = l->list[k].table;

        for (uint32_t n = 0; n < t->used; n++) {
            is_draining |= tick_instance(l, &t->instances[n], now_ns);
        }
        sw_roll__tick(&l->list[k]);
    }
    /* while somebody waits for the count to fall: all of a full ledger in three seconds */
    sw_ledger__sweep(l->apps, sw_loop_now_unix_s(l->loop), is_draining ? 8192 : 1024);
    life_ready(l);
    if (!l->synced && !l->sync_warned && now_ns - l->began_ns >= LIFE_SYNC_WARN_NS) {
        l->sync_warned = true;
        sw_life__log(l, SW_LOG_ERROR, "the supervisor does not answer: no process can be started");
    }
}

/* ---- commands -------------------------------------------------------------------------------- */

static struct life_app *life_app_named(struct sw_life *l, struct sw_slice name)
{
    for (uint32_t k = 0; k < l->app_count; k++) {
        if (sw_slice_eq(l->list[k].table->config->name, name)) {
            return &l->list[k];
        }
    }
    return NULL;
}

/* "shop/2" */
static struct life_slot *life_slot_named(struct sw_life *l, struct sw_slice name)
{
    struct sw_slice app, number;
    struct life_app *a;
    uint64_t slot;

    if (!sw_slice_cut(name, '/', &app, &number) || !sw_slice_u64(number, &slot)) {
        return NULL;
    }
    a = life_app_named(l, app);
    return a != NULL && slot >= 1 && slot <= a->slot_count ? &a->slots[slot - 1] : NULL;
}

enum sw_err sw_life_roll(struct sw_life *l, struct sw_slice app)
{
    struct life_app *a;

    SW_ASSERT(l->magic == LIFE_MAGIC);
    a = life_app_named(l, app);
    if (a == NULL) {
        return SW_E_NOT_FOUND;
    }
    if (!a->table->spawned) {
        return SW_E_UNSUPPORTED;
    }
    if (l->stopping || !l->synced || a->roll.stage != ROLL_OFF) {
        return SW_E_CONFLICT;
    }
    sw_life__log(l, SW_LOG_INFO, "%.*s: rolling restart of %u instances", SW_SARG(app),
                 a->slot_count);
    sw_roll__begin(a, 1, a->slot_count);
    return SW_OK;
}

static bool life_has_other(const struct life_app *a, const struct sw_instance *i)
{
    for (uint32_t k = 0; k < a->table->count; k++) {
        if (&a->table->instances[k] != i &&
            sw_instance__state(&a->table->instances[k]) == SW_INSTANCE_HEALTHY) {
            return true;
        }
    }
    return false;
}

enum sw_err sw_life_drain(struct sw_life *l, struct sw_slice instance)
{
    struct life_slot *s;
    struct life_app *a;
    struct sw_instance *i;
    enum sw_instance_state state;

    SW_ASSERT(l->magic == LIFE_MAGIC);
    s = life_slot_named(l, instance);
    if (s == NULL) {
        return SW_E_NOT_FOUND;
    }
    a = &l->list[s->app];
    i = s->current;
    if (i == NULL || l->stopping) {
        return SW_E_CONFLICT;
    }
    state = sw_instance__state(i);
    if (!a->table->spawned) {
        if (state == SW_INSTANCE_DRAINING || state == SW_INSTANCE_STOPPING) {
            return SW_E_CONFLICT;
        }
        sw_life__drain(l, i);
        return SW_OK;
    }
    if (s->next != NULL || state == SW_INSTANCE_STARTING || a->roll.stage != ROLL_OFF) {
        return SW_E_CONFLICT;
    }
    if (!life_has_other(a, i)) { /* newcomers have nowhere else to go: the fresh one comes first */
        sw_roll__begin(a, s->slot, s->slot);
        return SW_OK;
    }
    sw_life__drain(l, i);
    s->current = NULL;
    slot_start(s);
    return SW_OK;
}

enum sw_err sw_life_undrain(struct sw_life *l, struct sw_slice instance)
{
    struct life_slot *s;
    struct sw_instance *i;

    SW_ASSERT(l->magic == LIFE_MAGIC);
    s = life_slot_named(l, instance);
    if (s == NULL) {
        return SW_E_NOT_FOUND;
    }
    i = s->current;
    if (l->list[s->app].table->spawned || i->weight == 0) {
        return SW_E_UNSUPPORTED;
    }
    switch (sw_instance__state(i)) {
    case SW_INSTANCE_DRAINING:
        sw_life__to(l, i,
                    i->life.failing || i->life.ejected || i->life.healthy_ns == 0
                        ? SW_INSTANCE_UNHEALTHY
                        : SW_INSTANCE_HEALTHY);
        break;
    case SW_INSTANCE_STOPPING:
        sw_life__to(l, i, SW_INSTANCE_STARTING);
        sw_health__begin(l, i);
        break;
    case SW_INSTANCE_NONE:
    case SW_INSTANCE_STARTING:
    case SW_INSTANCE_HEALTHY:
    case SW_INSTANCE_UNHEALTHY:
    case SW_INSTANCE_STATE_COUNT:
        return SW_E_CONFLICT;
    }
    sw_life__log(l, SW_LOG_INFO, "%s takes new visitors again", i->name);
    return SW_OK;
}

enum sw_err sw_life_kill(struct sw_life *l, struct sw_slice instance)
{
    struct life_slot *s;
    struct sw_instance *i;
    struct app_table *t;

    SW_ASSERT(l->magic == LIFE_MAGIC);
    s = life_slot_named(l, instance);
    if (s == NULL) {
        return SW_E_NOT_FOUND;
    }
    t = l->list[s->app].table;
    if (!t->spawned) {
        return SW_E_UNSUPPORTED;
    }
    i = s->current;
    for (uint32_t k = 0; k < t->used && i == NULL; k++) { /* none in the slot: an old one of it */
        struct sw_instance *o = &t->instances[k];

        if (o->slot == s->slot && sw_instance__state(o) != SW_INSTANCE_NONE && !o->life.exited) {
            i = o;
        }
    }
    if (i == NULL) {
        return SW_E_CONFLICT;
    }
    sw_life__log(l, SW_LOG_WARN, "%s (pid %d) is killed by command", i->name, (int)i->pid);
    life_send(l, SW_CONTROL_KILL, i, 0); /* EXITED does the rest, as for any crash */
    return SW_OK;
}

/* ---- begin and end --------------------------------------------------------------------------- */

static void life_servers(struct sw_life *l, struct life_app *a)
{
    const struct sw_config_app *c = a->table->config;

    for (uint32_t k = 0; k < a->slot_count; k++) {
        const struct sw_config_server *server = &c->servers[k];
        char text[SW_ADDR_TEXT_MAX];
        struct sw_slice address = sw_addr_text(&server->addr, text);
        struct sw_instance *i = life_claim(l, &a->slots[k], sw_apps__server_id(c->name, address));

        SW_ASSERT(i != NULL); /* a new table */
        i->addr = server->addr;
        address = sw_slice_head(address, sizeof i->address - 1);
        memcpy(i->address, address.ptr, address.len);
        i->address[address.len] = '\0';
        i->life.adopted = true;
        life_unlisted(l, i);
        sw_life__to(l, i, SW_INSTANCE_STARTING);
        a->slots[k].current = i;
        sw_health__begin(l, i);
    }
    atomic_store(&a->table->known, true);
}

struct sw_life *sw_life_new(struct sw_apps *a, struct sw_loop *loop, const struct sw_config *config,
                            const struct sw_life_hooks *hooks)
{
    struct sw_life *l;

    SW_ASSERT(a->magic == APPS_MAGIC);
    SW_ASSERT(config == a->config);
    SW_ASSERT(hooks->send != NULL);
    l = calloc(1, sizeof *l);
    if (l == NULL) {
        return NULL;
    }
    l->list = calloc(a->app_count + 1, sizeof *l->list);
    l->checks = calloc(a->instance_count + 1, sizeof *l->checks);
    if (l->list == NULL || l->checks == NULL) {
        free(l->list);
        free(l->checks);
        free(l);
        return NULL;
    }
    l->magic = LIFE_MAGIC;
    l->apps = a;
    l->loop = loop;
    l->config = config;
    l->hooks = *hooks;
    l->began_ns = sw_loop_now_ns(loop);
    l->app_count = a->app_count;
    for (uint32_t k = 0; k < a->instance_count; k++) {
        struct sw_instance *i = &a->instances[k];

        sw_check__init(&l->checks[k], loop, i, config->apps[i->app].health_path, sw_health__checked,
                       l);
    }
    for (uint32_t k = 0; k < l->app_count; k++) {
        struct life_app *la = &l->list[k];

        la->life = l;
        la->table = &a->tables[k];
        la->app = k;
        la->slot_count = la->table->spawned ? la->table->config->replicas : la->table->count;
        for (uint32_t n = 0; n < la->slot_count; n++) {
            la->slots[n].life = l;
            la->slots[n].app = k;
            la->slots[n].slot = n + 1;
            sw_timer_init(&la->slots[n].restart, slot_restart_due, &la->slots[n]);
        }
        if (!la->table->spawned) {
            life_servers(l, la);
        }
    }
    sw_timer_init(&l->tick, life_tick, l);
    sw_timer_start(loop, &l->tick, l->began_ns + LIFE_TICK_NS);
    life_send(l, SW_CONTROL_HELLO, NULL, 0);
    return l;
}

static void life_quiet(struct sw_life *l)
{
    for (uint32_t k = 0; k < l->app_count; k++) {
        for (uint32_t n = 0; n < l->list[k].slot_count; n++) {
            sw_timer_stop(l->loop, &l->list[k].slots[n].restart);
            slot_expect(&l->list[k].slots[n], false);
        }
        l->list[k].roll.stage = ROLL_OFF;
    }
}

void sw_life_stop(struct sw_life *l)
{
    SW_ASSERT(l->magic == LIFE_MAGIC);
    l->stopping = true;
    life_quiet(l);
}

void sw_life_free(struct sw_life *l)
{
    if (l == NULL) {
        return;
    }
    SW_ASSERT(l->magic == LIFE_MAGIC);
    life_quiet(l);
    sw_timer_stop(l->loop, &l->tick);
    for (uint32_t k = 0; k < l->apps->instance_count; k++) {
        sw_check__stop(&l->checks[k]);
    }
    free(l->list);
    free(l->checks);
    l->magic = 0;
    free(l);
}
