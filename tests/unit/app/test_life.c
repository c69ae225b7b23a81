/* The lives of instances, in virtual time, with a supervisor of function calls and processes that
 * are listeners on the simulated network. */
#include <errno.h>

#include "fake.h"

#define S_      SW_NS_PER_S
#define MS      SW_NS_PER_MS
#define PROCS   256
#define STREAMS 8

struct proc {
    bool alive;
    struct sw_control info;
    uint64_t started_ns;
    struct sw_timer boot, end;
    int status;
    int fd;
    struct sw_listener *listener;
    struct sw_stream *streams[STREAMS];
};

/* One test's world: the gateway's life, the supervisor and its processes. */
static struct {
    struct fake_world world;
    struct fake_config conf;
    struct sw_apps *apps;
    struct sw_life *life;
    struct proc procs[PROCS];
    uint32_t proc_count;
    struct sw_control queue[64]; /* to the supervisor: it reads a millisecond later */
    uint32_t queue_count;
    struct sw_timer reads;
    bool mute; /* the supervisor reads nothing */
    /* how processes started from now on behave */
    uint64_t boot_ns;
    bool never_listens, dies;
    uint32_t mute_slot; /* never listens */
    int start_errno;
    unsigned http_status; /* what all answer to checks now */
    uint32_t sent[SW_CONTROL_RELOAD + 1], errors, hints, readies;
    uint64_t start_ns[PROCS]; /* when START number n was sent */
} t;

/* ---- the processes --------------------------------------------------------------------------- */

static void proc_stream_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct proc *p = arg;

    (void)err;
    for (int k = 0; k < STREAMS; k++) {
        if (p->streams[k] == s) {
            p->streams[k] = NULL;
        }
    }
    sw_stream_close(s);
}

static void proc_stream_recv(struct sw_stream *s, void *arg, struct sw_buf *in,
                             struct sw_slice bytes)
{
    struct sw_buf *buf;
    struct sw_out out;

    (void)arg;
    (void)in;
    if (!sw_slice_ends(bytes, SW_S("\r\n\r\n"))) {
        return;
    }
    assert_true(sw_slice_starts(bytes, SW_S("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:")));
    buf = sw_buf_get(t.world.loop, 256);
    assert_non_null(buf);
    out = sw_out_init(buf->data, buf->cap);
    sw_out_printf(&out, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 %u X\r\nContent-Length: 2\r\n\r\nok",
                  t.http_status);
    assert_int_equal(sw_stream_send(s, buf, sw_out_done(&out)), SW_OK);
    sw_buf_unref(buf);
}

static const struct sw_stream_events proc_events = {.recv = proc_stream_recv,
                                                    .end = proc_stream_end};

static void proc_accept(struct sw_stream *s, void *arg)
{
    struct proc *p = arg;

    for (int k = 0; k < STREAMS; k++) {
        if (p->streams[k] == NULL) {
            p->streams[k] = s;
            sw_stream_attach(s, &proc_events, p);
            sw_stream_read_start(s);
            return;
        }
    }
    sw_stream_close(s);
}

static void proc_boot(struct sw_timer *timer, void *arg)
{
    struct proc *p = arg;
    struct sw_addr addr;

    (void)timer;
    p->fd = fake_listen(&t.world, (uint16_t)(20000 + (p - t.procs)), &addr);
    assert_int_equal(sw_listener_open(t.world.loop, p->fd, proc_accept, p, &p->listener), SW_OK);
}

static void proc_close(struct proc *p)
{
    sw_timer_stop(t.world.loop, &p->boot);
    sw_timer_stop(t.world.loop, &p->end);
    if (p->listener != NULL) {
        sw_listener_close(sw_take(&p->listener));
        fake_unlisten(&t.world, p->fd);
    }
    for (int k = 0; k < STREAMS; k++) {
        if (p->streams[k] != NULL) {
            sw_stream_close(sw_take(&p->streams[k]));
        }
    }
    p->alive = false;
}

static void proc_exit(struct proc *p, int status)
{
    struct sw_control msg = p->info;

    assert_true(p->alive);
    proc_close(p);
    msg.kind = SW_CONTROL_EXITED;
    msg.status = status;
    if (t.life != NULL) {
        sw_life_control(t.life, &msg);
    }
}

static void proc_end_due(struct sw_timer *timer, void *arg)
{
    struct proc *p = arg;

    (void)timer;
    proc_exit(p, p->status);
}

static void proc_end_in(struct proc *p, int status, uint64_t delay_ns)
{
    p->status = status;
    sw_timer_start(t.world.loop, &p->end, fake_now(&t.world) + delay_ns);
}

/* The running process of a slot; the youngest, if there are two. */
static struct proc *proc_of(uint32_t slot)
{
    struct proc *found = NULL;

    for (uint32_t k = 0; k < t.proc_count; k++) {
        if (t.procs[k].alive && t.procs[k].info.slot == slot) {
            found = &t.procs[k];
        }
    }
    assert_non_null(found);
    return found;
}

static bool proc_is_dead(void *arg)
{
    return !((struct proc *)arg)->alive;
}

/* Ends it in a turn of its own, and stops right behind that turn. */
static void proc_kill(struct proc *p)
{
    proc_end_in(p, 9, 0);
    fake_until(&t.world, proc_is_dead, p, 10 * MS);
}

/* ---- the supervisor -------------------------------------------------------------------------- */

static void sup_start(const struct sw_control *msg)
{
    struct proc *p = &t.procs[t.proc_count++];
    struct sw_control answer = *msg;

    assert_true(t.proc_count < PROCS);
    answer.kind = SW_CONTROL_STARTED;
    answer.pid = (int32_t)(1000 + t.proc_count);
    answer.status = t.start_errno;
    (void)snprintf(answer.address, sizeof answer.address, "127.0.0.1:%u",
                   20000 + (unsigned)(p - t.procs));
    if (t.start_errno == 0) {
        p->alive = true;
        p->info = answer;
        p->started_ns = fake_now(&t.world);
        sw_timer_init(&p->boot, proc_boot, p);
        sw_timer_init(&p->end, proc_end_due, p);
        if (t.dies) {
            proc_end_in(p, 1 << 8, 5 * MS);
        } else if (!t.never_listens && msg->slot != t.mute_slot) {
            sw_timer_start(t.world.loop, &p->boot, fake_now(&t.world) + t.boot_ns);
        }
    }
    sw_life_control(t.life, &answer);
}

static void sup_hello(void)
{
    struct sw_control msg;

    for (uint32_t k = 0; k < t.proc_count; k++) {
        if (t.procs[k].alive) {
            msg = t.procs[k].info;
            msg.kind = SW_CONTROL_INSTANCE;
            msg.started_ms_ago =
                (uint32_t)((fake_now(&t.world) - t.procs[k].started_ns) / SW_NS_PER_MS);
            sw_life_control(t.life, &msg);
        }
    }
    msg = (struct sw_control){.version = SW_CONTROL_VERSION, .kind = SW_CONTROL_SYNCED};
    sw_life_control(t.life, &msg);
}

static void sup_read(struct sw_timer *timer, void *arg)
{
    struct sw_control queue[SW_COUNTOF(t.queue)];
    uint32_t count = t.queue_count;

    (void)timer;
    (void)arg;
    if (t.mute) {
        return;
    }
    memcpy(queue, t.queue, sizeof queue);
    t.queue_count = 0;
    for (uint32_t n = 0; n < count; n++) {
        const struct sw_control *msg = &queue[n];

        switch (msg->kind) {
        case SW_CONTROL_HELLO:
            sup_hello();
            break;
        case SW_CONTROL_START:
            sup_start(msg);
            break;
        case SW_CONTROL_STOP:
        case SW_CONTROL_KILL:
            for (uint32_t k = 0; k < t.proc_count; k++) {
                if (t.procs[k].alive && t.procs[k].info.incarnation == msg->incarnation) {
                    bool kill = msg->kind == SW_CONTROL_KILL;

                    proc_end_in(&t.procs[k], kill ? 9 : 0, kill ? 1 * MS : 20 * MS);
                }
            }
            break;
        default:
            fail_msg("message %u", msg->kind);
        }
    }
}

static void on_send(void *arg, const struct sw_control *msg)
{
    (void)arg;
    assert_int_equal(msg->version, SW_CONTROL_VERSION);
    if (msg->kind == SW_CONTROL_START) {
        t.start_ns[t.sent[SW_CONTROL_START]] = fake_now(&t.world);
    }
    t.sent[msg->kind]++;
    assert_true(t.queue_count < SW_COUNTOF(t.queue));
    t.queue[t.queue_count++] = *msg;
    if (!sw_timer_running(&t.reads)) {
        sw_timer_start(t.world.loop, &t.reads, fake_now(&t.world) + 1 * MS);
    }
}

static void on_log(void *arg, enum sw_log_level level, const char *text)
{
    (void)arg;
    t.errors += level == SW_LOG_ERROR;
    t.hints += strstr(text, "look at the output") != NULL;
    if (getenv("LIFE_LOG") != NULL) {
        print_message("%8llu ms %d %s\n", (unsigned long long)(fake_now(&t.world) / MS), (int)level,
                      text);
    }
}

static void on_ready(void *arg)
{
    (void)arg;
    t.readies++;
}

/* ---- the gateway ----------------------------------------------------------------------------- */

static void gateway_begin(void)
{
    static const struct sw_life_hooks hooks = {on_send, on_log, on_ready, NULL};

    t.apps = sw_apps_new(&t.conf.config);
    assert_non_null(t.apps);
    t.life = sw_life_new(t.apps, t.world.loop, &t.conf.config, &hooks);
    assert_non_null(t.life);
}

static void gateway_end(void)
{
    sw_life_free(sw_take(&t.life));
    sw_apps_free(sw_take(&t.apps));
}

static void prepare(void)
{
    memset(&t, 0, sizeof t);
    fake_config_init(&t.conf);
    fake_world_init(&t.world, false);
    sw_timer_init(&t.reads, sup_read, NULL);
    t.boot_ns = 40 * MS;
    t.http_status = 200;
}

static void prepare_shop(uint32_t replicas)
{
    prepare();
    fake_spawned(&t.conf, "shop", replicas)->health_path = SW_S("/healthz");
}

static void finish(void)
{
    gateway_end();
    for (uint32_t k = 0; k < t.proc_count; k++) {
        if (t.procs[k].alive) {
            proc_close(&t.procs[k]);
        }
    }
    fake_world_fini(&t.world);
}

static void run(uint64_t span_ns)
{
    fake_run(&t.world, span_ns);
}

static uint32_t in_state(enum sw_instance_state s)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < t.apps->instance_count; k++) {
        n += sw_instance__state(&t.apps->instances[k]) == s;
    }
    return n;
}

static struct life_slot *slot(uint32_t n)
{
    return &t.life->list[0].slots[n - 1];
}

static struct sw_instance *current(uint32_t n)
{
    assert_non_null(slot(n)->current);
    return slot(n)->current;
}

static void healthy(uint32_t n)
{
    if (in_state(SW_INSTANCE_HEALTHY) != n) {
        fail_msg("%u are healthy, not %u", in_state(SW_INSTANCE_HEALTHY), n);
    }
}

static void state_is(uint32_t n, enum sw_instance_state s)
{
    assert_string_equal(sw_instance_state_name(sw_instance__state(current(n))),
                        sw_instance_state_name(s));
}

static void visitor(struct sw_instance *i, uint64_t pin)
{
    sw_instance_ref(i);
    sw_ledger_seen(t.apps, i, pin, sw_loop_now_unix_s(t.world.loop), 60);
    sw_instance_unref(i);
}

/* ---- starting -------------------------------------------------------------------------------- */

static void starts(void **state)
{
    bool starting;

    (void)state;
    prepare_shop(3);
    gateway_begin();
    assert_false(sw_app_any(t.apps, 0, &starting)); /* worth waiting from the first moment */
    assert_true(starting);
    run(10 * MS);
    assert_int_equal(in_state(SW_INSTANCE_STARTING), 3);
    assert_int_equal(t.readies, 0);
    run(100 * MS);
    healthy(3);
    assert_int_equal(t.readies, 1);
    assert_int_equal(t.sent[SW_CONTROL_HELLO], 1);
    assert_int_equal(t.sent[SW_CONTROL_START], 3);
    assert_string_equal(current(2)->name, "shop/2");
    assert_string_equal(current(2)->address, proc_of(2)->info.address);
    assert_int_equal(current(2)->pid, proc_of(2)->info.pid);
    run(60 * S_);
    healthy(3);
    assert_int_equal(t.readies, 1);
    assert_int_equal(t.sent[SW_CONTROL_START], 3);
    finish();
}

static void accepting_is_enough(void **state)
{
    (void)state;
    prepare();
    fake_spawned(&t.conf, "shop", 2);
    gateway_begin();
    run(200 * MS);
    healthy(2);
    finish();
}

/* Ready with one of two, when the start timeout has passed. */
static void ready_with_some(void **state)
{
    (void)state;
    prepare_shop(2);
    t.mute_slot = 2;
    gateway_begin();
    run(9900 * MS);
    healthy(1);
    assert_int_equal(t.readies, 0);
    run(200 * MS);
    assert_int_equal(t.readies, 1);
    t.mute_slot = 0;
    run(20 * S_);
    healthy(2);
    assert_int_equal(t.readies, 1);
    finish();
}

static void start_fails(void **state)
{
    (void)state;
    prepare_shop(1);
    t.start_errno = ENOENT;
    gateway_begin();
    run(2 * S_);
    assert_int_equal(t.hints, 1);
    assert_in_range(t.sent[SW_CONTROL_START], 4, 6); /* 0.1, 0.2, 0.4, 0.8 ... */
    assert_int_equal(in_state(SW_INSTANCE_STARTING), 0);
    t.start_errno = 0;
    run(5 * S_);
    healthy(1);
    finish();
}

static void dies_early(void **state)
{
    (void)state;
    prepare_shop(1);
    t.dies = true;
    gateway_begin();
    run(300 * S_);
    assert_int_equal(t.hints, 1);
    /* doubling to 30 s, give or take a quarter */
    assert_in_range(t.sent[SW_CONTROL_START], 13, 22);
    for (uint32_t k = 10; k < t.sent[SW_CONTROL_START]; k++) {
        assert_in_range(t.start_ns[k] - t.start_ns[k - 1], 22 * S_, 38 * S_);
    }
    assert_int_equal(t.readies, 0);
    t.dies = false;
    run(40 * S_);
    healthy(1);
    assert_int_equal(t.readies, 1);
    finish();
}

static void start_timeout(void **state)
{
    (void)state;
    prepare_shop(1);
    t.never_listens = true;
    gateway_begin();
    run(9 * S_);
    state_is(1, SW_INSTANCE_STARTING);
    assert_int_equal(t.sent[SW_CONTROL_KILL], 0);
    t.never_listens = false;
    run(2 * S_);
    assert_int_equal(t.sent[SW_CONTROL_KILL], 1);
    healthy(1);
    assert_int_equal(in_state(SW_INSTANCE_STOPPING), 0);
    finish();
}

/* ---- crashes --------------------------------------------------------------------------------- */

static void crash(void **state)
{
    struct sw_instance *old;
    uint64_t incarnation, at_ns;
    uint32_t starts;
    bool gone;

    (void)state;
    prepare_shop(2);
    gateway_begin();
    run(15 * S_);
    healthy(2);
    old = current(1);
    incarnation = old->incarnation;
    starts = t.sent[SW_CONTROL_START];
    at_ns = fake_now(&t.world);
    proc_kill(proc_of(1));
    /* in the same turn: out of rotation, and the next one is ordered */
    healthy(1);
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_NONE);
    assert_null(sw_app_find(t.apps, 0, incarnation, &gone));
    assert_true(gone);
    assert_int_equal(t.sent[SW_CONTROL_START], starts + 1);
    assert_in_range(t.start_ns[starts] - at_ns, 0, 2 * MS);
    run(100 * MS);
    healthy(2);
    assert_true(current(1)->incarnation != incarnation);

    /* again at once: it did not live for long */
    at_ns = fake_now(&t.world);
    proc_kill(proc_of(1));
    assert_int_equal(t.sent[SW_CONTROL_START], starts + 1);
    run(200 * MS);
    assert_int_equal(t.sent[SW_CONTROL_START], starts + 2);
    /* give or take a quarter, and the turns around it */
    assert_in_range(t.start_ns[starts + 1] - at_ns, LIFE_BACKOFF_SERVED_NS * 3 / 4,
                    LIFE_BACKOFF_SERVED_NS * 5 / 4 + 5 * MS);
    healthy(2);

    /* after a long life the next crash is a first one */
    run(12 * S_);
    at_ns = fake_now(&t.world);
    proc_kill(proc_of(1));
    assert_in_range(t.start_ns[starts + 2] - at_ns, 0, 2 * MS);
    run(1 * S_);
    healthy(2);
    assert_int_equal(t.hints, 0);
    finish();
}

/* An exchange holds the dead one: its entry waits. */
static void crash_while_held(void **state)
{
    struct sw_instance *old;
    bool gone;

    (void)state;
    prepare_shop(1);
    gateway_begin();
    run(1 * S_);
    old = current(1);
    assert_ptr_equal(sw_app_find(t.apps, 0, old->incarnation, &gone), old);
    proc_kill(proc_of(1));
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_STOPPING);
    assert_null(sw_app_find(t.apps, 0, old->incarnation, &gone));
    assert_true(gone);
    run(1 * S_);
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_STOPPING);
    assert_ptr_not_equal(current(1), old);
    healthy(1);
    sw_instance_done(old, false);
    run(200 * MS);
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_NONE);
    finish();
}

static void kill_by_command(void **state)
{
    uint64_t incarnation;

    (void)state;
    prepare_shop(2);
    gateway_begin();
    run(15 * S_);
    incarnation = current(2)->incarnation;
    assert_int_equal(sw_life_kill(t.life, SW_S("shop/2")), SW_OK);
    run(200 * MS);
    healthy(2);
    assert_true(current(2)->incarnation != incarnation);
    assert_int_equal(sw_life_kill(t.life, SW_S("shop/3")), SW_E_NOT_FOUND);
    assert_int_equal(sw_life_kill(t.life, SW_S("shop")), SW_E_NOT_FOUND);
    assert_int_equal(sw_life_kill(t.life, SW_S("shop/0")), SW_E_NOT_FOUND);
    assert_int_equal(sw_life_roll(t.life, SW_S("shoq")), SW_E_NOT_FOUND);
    assert_int_equal(sw_life_undrain(t.life, SW_S("shop/1")), SW_E_UNSUPPORTED);
    finish();
}

/* ---- health ---------------------------------------------------------------------------------- */

static void flaps(void **state)
{
    (void)state;
    prepare_shop(2);
    gateway_begin();
    run(1 * S_);
    t.http_status = 503;
    run(1700 * MS);
    healthy(2); /* one bad answer is none */
    run(3 * S_);
    healthy(0);
    assert_int_equal(in_state(SW_INSTANCE_UNHEALTHY), 2); /* facts know no half */
    t.http_status = 204;
    run(2300 * MS);
    healthy(2);
    assert_int_equal(t.sent[SW_CONTROL_START], 2);
    finish();
}

static void ejects_half_at_most(void **state)
{
    (void)state;
    prepare_shop(4);
    gateway_begin();
    run(1 * S_);
    for (uint32_t n = 1; n <= 4; n++) {
        atomic_store(&current(n)->failures, EJECT_FAILURES - 1u);
    }
    run(200 * MS);
    healthy(4);
    for (uint32_t n = 1; n <= 4; n++) {
        atomic_store(&current(n)->failures, (uint32_t)EJECT_FAILURES);
    }
    run(200 * MS);
    healthy(2);
    state_is(1, SW_INSTANCE_UNHEALTHY);
    state_is(2, SW_INSTANCE_UNHEALTHY);
    atomic_store(&current(3)->failures, 0u);
    atomic_store(&current(4)->failures, 0u);
    run(9 * S_);
    healthy(2); /* its checks are fine; that is not enough */
    run(1 * S_);
    healthy(4);
    atomic_store(&current(1)->failures, (uint32_t)EJECT_FAILURES);
    run(19 * S_);
    state_is(1, SW_INSTANCE_UNHEALTHY); /* twice as long */
    run(2 * S_);
    healthy(4);
    finish();
}

static void the_only_one_stays(void **state)
{
    (void)state;
    prepare_shop(1);
    gateway_begin();
    run(1 * S_);
    atomic_store(&current(1)->failures, 100u);
    run(1 * S_);
    healthy(1);
    finish();
}

/* ---- a gateway crash ------------------------------------------------------------------------- */

static void adopts(void **state)
{
    uint64_t incarnations[3];
    struct sw_instance *i;
    uint32_t starts;
    bool gone;

    (void)state;
    prepare_shop(3);
    gateway_begin();
    run(30 * S_);
    for (uint32_t n = 0; n < 3; n++) {
        incarnations[n] = current(n + 1)->incarnation;
    }
    gateway_end();
    proc_kill(proc_of(3)); /* while nobody looked */
    starts = t.sent[SW_CONTROL_START];
    gateway_begin();
    assert_null(sw_app_find(t.apps, 0, incarnations[0], &gone));
    assert_false(gone); /* we do not know yet */
    run(20 * MS);
    for (uint32_t n = 0; n < 2; n++) {
        i = sw_app_find(t.apps, 0, incarnations[n], &gone);
        assert_non_null(i);
        assert_int_equal(i->slot, n + 1);
        sw_instance_done(i, true);
    }
    assert_null(sw_app_find(t.apps, 0, incarnations[2], &gone));
    assert_true(gone);
    assert_int_equal(t.sent[SW_CONTROL_START], starts + 1);
    run(1 * S_);
    healthy(3);
    assert_int_equal(t.readies, 2);

    /* the ledger knows nobody, but somebody may be bound: idle is 60 s */
    i = current(1);
    assert_int_equal(sw_life_drain(t.life, SW_S("shop/1")), SW_OK);
    run(50 * S_);
    assert_int_equal(sw_instance__state(i), SW_INSTANCE_DRAINING);
    run(15 * S_);
    assert_int_equal(sw_instance__state(i), SW_INSTANCE_NONE);
    finish();
}

/* The last gateway died while it replaced shop/1: two run. */
static void adopts_two_of_a_slot(void **state)
{
    uint64_t old, next;

    (void)state;
    prepare_shop(1);
    gateway_begin();
    run(30 * S_);
    old = current(1)->incarnation;
    t.boot_ns = 5 * S_;
    assert_int_equal(sw_life_roll(t.life, SW_S("shop")), SW_OK);
    run(1 * S_);
    next = slot(1)->next->incarnation;
    gateway_end();
    gateway_begin();
    run(1 * S_);
    assert_true(current(1)->incarnation == old);
    healthy(1);
    run(5 * S_);
    assert_true(current(1)->incarnation == next);
    healthy(1);
    assert_int_equal(in_state(SW_INSTANCE_DRAINING), 1);
    run(65 * S_);
    assert_int_equal(in_state(SW_INSTANCE_DRAINING), 0);
    assert_int_equal(t.sent[SW_CONTROL_STOP], 1);
    finish();
}

/* A process of an app that is no more, or of a slot that is no more. */
static void adopts_no_stranger(void **state)
{
    (void)state;
    prepare_shop(2);
    gateway_begin();
    run(1 * S_);
    gateway_end();
    t.conf.apps[0].replicas = 1;
    gateway_begin();
    run(1 * S_);
    healthy(1);
    assert_int_equal(t.sent[SW_CONTROL_STOP], 1);
    assert_int_equal(proc_of(1)->alive, true);
    finish();
}

/* ---- rolling --------------------------------------------------------------------------------- */

static bool roll_is_over(void *arg)
{
    (void)arg;
    if (in_state(SW_INSTANCE_HEALTHY) < t.life->list[0].slot_count) {
        fail_msg("fewer than all are healthy while rolling");
    }
    return t.life->list[0].roll.stage == ROLL_OFF;
}

static void rolls(void **state)
{
    uint64_t old[3];

    (void)state;
    prepare_shop(3);
    gateway_begin();
    run(1 * S_);
    for (uint32_t n = 0; n < 3; n++) {
        old[n] = current(n + 1)->incarnation;
    }
    assert_int_equal(sw_life_roll(t.life, SW_S("shop")), SW_OK);
    assert_int_equal(sw_life_roll(t.life, SW_S("shop")), SW_E_CONFLICT);
    assert_int_equal(sw_life_drain(t.life, SW_S("shop/3")), SW_E_CONFLICT);
    fake_until(&t.world, roll_is_over, NULL, 10 * S_);
    healthy(3);
    for (uint32_t n = 0; n < 3; n++) {
        assert_true(current(n + 1)->incarnation != old[n]);
        assert_int_equal(current(n + 1)->slot, n + 1);
    }
    assert_int_equal(t.sent[SW_CONTROL_STOP], 3);
    assert_int_equal(t.sent[SW_CONTROL_KILL], 0);
    assert_int_equal(t.errors, 0);
    run(200 * MS);
    for (uint32_t k = 0; k < t.apps->instance_count; k++) {
        assert_int_equal(t.apps->instances[k].refs, 0);
    }
    finish();
}

static void rolls_back(bool dies)
{
    uint64_t old[2];

    prepare_shop(2);
    gateway_begin();
    run(1 * S_);
    old[0] = current(1)->incarnation;
    old[1] = current(2)->incarnation;
    t.dies = dies;
    t.never_listens = !dies;
    assert_int_equal(sw_life_roll(t.life, SW_S("shop")), SW_OK);
    fake_until(&t.world, roll_is_over, NULL, 12 * S_);
    run(30 * S_);
    healthy(2);
    assert_true(current(1)->incarnation == old[0]);
    assert_true(current(2)->incarnation == old[1]);
    assert_int_equal(t.sent[SW_CONTROL_START], 3);
    assert_int_equal(t.sent[SW_CONTROL_STOP], 0);
    assert_int_equal(t.sent[SW_CONTROL_KILL], dies ? 0 : 1);
    assert_in_range(t.errors, 1, 2);
    t.dies = false;
    t.never_listens = false;
    assert_int_equal(sw_life_roll(t.life, SW_S("shop")), SW_OK);
    fake_until(&t.world, roll_is_over, NULL, 10 * S_);
    assert_true(current(1)->incarnation != old[0]);
    finish();
}

static void rolls_back_dead(void **state)
{
    (void)state;
    rolls_back(true);
}

static void rolls_back_mute(void **state)
{
    (void)state;
    rolls_back(false);
}

/* The old one crashes while the new one starts: that one takes the slot, the roll goes on. */
static void rolls_over_a_crash(void **state)
{
    (void)state;
    prepare_shop(2);
    gateway_begin();
    run(1 * S_);
    t.boot_ns = 1 * S_;
    assert_int_equal(sw_life_roll(t.life, SW_S("shop")), SW_OK);
    run(500 * MS);
    proc_kill(&t.procs[0]);
    run(10 * S_);
    assert_int_equal(t.life->list[0].roll.stage, ROLL_OFF);
    healthy(2);
    assert_int_equal(t.sent[SW_CONTROL_START], 4);
    assert_int_equal(t.sent[SW_CONTROL_STOP], 1);
    finish();
}

static void drains_until_idle(void **state)
{
    struct sw_instance *old;
    struct sw_rng rng;
    bool gone;

    (void)state;
    prepare_shop(1);
    gateway_begin();
    run(1 * S_);
    old = current(1);
    for (uint64_t pin = 1; pin <= 20; pin++) {
        visitor(old, pin);
    }
    assert_int_equal(sw_life_roll(t.life, SW_S("shop")), SW_OK);
    run(1 * S_);
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_DRAINING);
    sw_rng_seed(&rng, 1);
    for (int k = 0; k < 100; k++) { /* new visitors go elsewhere */
        struct sw_instance *i = sw_app_pick(t.apps, &(struct sw_pick){.app = 0}, &rng);

        assert_ptr_equal(i, current(1));
        sw_instance_done(i, true);
    }
    assert_ptr_equal(sw_app_find(t.apps, 0, old->incarnation, &gone), old); /* bound ones stay */
    visitor(old, 7);
    sw_instance_done(old, true);
    run(40 * S_);
    visitor(old, 7);
    run(30 * S_);
    assert_int_equal(old->sessions, 1);
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_DRAINING);
    run(40 * S_);
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_NONE);
    finish();
}

static void drain_deadline(void **state)
{
    struct sw_instance *old;
    uint64_t began_ns;
    bool gone;

    (void)state;
    prepare_shop(1);
    t.conf.apps[0].drain_deadline_ns = 100 * S_;
    gateway_begin();
    run(1 * S_);
    old = current(1);
    visitor(old, 7);
    assert_int_equal(sw_life_roll(t.life, SW_S("shop")), SW_OK);
    began_ns = fake_now(&t.world);
    run(90 * MS);
    assert_ptr_equal(sw_app_find(t.apps, 0, old->incarnation, &gone), old); /* a long exchange */
    for (int k = 0; k < 9; k++) {
        run(10 * S_);
        visitor(old, 7);
    }
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_DRAINING);
    run(10200 * MS);
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_STOPPING);
    assert_null(sw_app_find(t.apps, 0, old->incarnation, &gone));
    assert_true(gone);
    assert_int_equal(t.sent[SW_CONTROL_STOP], 0); /* the exchange has five seconds to end */
    run(6 * S_);
    assert_int_equal(t.sent[SW_CONTROL_STOP], 1);
    assert_in_range(fake_now(&t.world) - began_ns, 100 * S_, 110 * S_);
    sw_instance_done(old, true);
    run(1 * S_);
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_NONE);
    assert_int_equal(t.life->list[0].roll.stage, ROLL_OFF);
    finish();
}

static void drains_one(void **state)
{
    struct sw_instance *old;

    (void)state;
    prepare_shop(2);
    gateway_begin();
    run(1 * S_);
    old = current(2);
    visitor(old, 7);
    assert_int_equal(sw_life_drain(t.life, SW_S("shop/2")), SW_OK);
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_DRAINING); /* at once */
    assert_int_equal(sw_life_drain(t.life, SW_S("shop/2")), SW_E_CONFLICT);
    run(1 * S_);
    healthy(2);
    assert_ptr_not_equal(current(2), old);
    run(70 * S_);
    assert_int_equal(in_state(SW_INSTANCE_DRAINING), 0);
    assert_int_equal(t.sent[SW_CONTROL_STOP], 1);
    finish();
}

/* With nobody else to serve newcomers the fresh one comes first. */
static void drains_the_only_one(void **state)
{
    struct sw_instance *old;

    (void)state;
    prepare_shop(1);
    gateway_begin();
    run(1 * S_);
    old = current(1);
    assert_int_equal(sw_life_drain(t.life, SW_S("shop/1")), SW_OK);
    assert_int_equal(sw_instance__state(old), SW_INSTANCE_HEALTHY);
    fake_until(&t.world, roll_is_over, NULL, 10 * S_);
    assert_ptr_not_equal(current(1), old);
    finish();
}

static void stops(void **state)
{
    (void)state;
    prepare_shop(2);
    gateway_begin();
    run(1 * S_);
    sw_life_stop(t.life);
    proc_kill(proc_of(1));
    healthy(1);
    run(5 * S_);
    assert_int_equal(t.sent[SW_CONTROL_START], 2);
    assert_int_equal(sw_life_roll(t.life, SW_S("shop")), SW_E_CONFLICT);
    assert_int_equal(sw_life_drain(t.life, SW_S("shop/2")), SW_E_CONFLICT);
    finish();
}

static void mute_supervisor(void **state)
{
    (void)state;
    prepare_shop(1);
    t.mute = true;
    gateway_begin();
    run(20 * S_);
    assert_int_equal(t.errors, 1);
    assert_int_equal(t.sent[SW_CONTROL_START], 0);
    finish();
}

/* Messages that make no sense change nothing. */
static void odd_messages(void **state)
{
    (void)state;
    prepare_shop(1);
    gateway_begin();
    run(1 * S_);
    for (uint32_t kind = 0; kind < 20; kind++) {
        struct sw_control msg = {.version = SW_CONTROL_VERSION,
                                 .kind = kind,
                                 .app = kind % 3,
                                 .slot = kind,
                                 .incarnation = 99,
                                 .pid = 1};

        memset(msg.address, 'x', sizeof msg.address);
        sw_life_control(t.life, &msg);
        msg.version = 0;
        msg.incarnation = current(1)->incarnation;
        msg.app = 0;
        sw_life_control(t.life, &msg);
    }
    run(1 * S_);
    healthy(1);
    finish();
}

/* ---- servers --------------------------------------------------------------------------------- */

static struct proc *server_up(uint32_t n)
{
    struct proc *p = &t.procs[n];

    p->alive = true;
    sw_timer_init(&p->boot, proc_boot, p);
    sw_timer_init(&p->end, proc_end_due, p);
    proc_boot(NULL, p);
    t.proc_count = SW_MAX(t.proc_count, n + 1);
    return p;
}

static void prepare_api(void)
{
    prepare();
    fake_servers(&t.conf, "api", 2, 20000)->health_path = SW_S("/healthz");
    t.conf.config.route_count = 0;
    (void)server_up(0);
    (void)server_up(1);
}

static void servers(void **state)
{
    uint64_t incarnation;

    (void)state;
    prepare_api();
    gateway_begin();
    run(100 * MS);
    healthy(2);
    assert_int_equal(t.readies, 1);
    assert_int_equal(t.sent[SW_CONTROL_START], 0);
    assert_string_equal(current(1)->name, "api/1");
    assert_string_equal(current(1)->address, "127.0.0.1:20000");
    incarnation = current(1)->incarnation;
    proc_close(&t.procs[0]);
    run(5 * S_);
    healthy(1);
    state_is(1, SW_INSTANCE_UNHEALTHY);
    (void)server_up(0);
    run(3 * S_);
    healthy(2);
    assert_int_equal(sw_life_roll(t.life, SW_S("api")), SW_E_UNSUPPORTED);
    assert_int_equal(sw_life_kill(t.life, SW_S("api/1")), SW_E_UNSUPPORTED);
    gateway_end();
    proc_close(&t.procs[1]); /* one is away when the gateway begins */
    gateway_begin();
    assert_true(current(1)->incarnation == incarnation); /* pins hold */
    run(1 * S_);
    healthy(1);
    state_is(2, SW_INSTANCE_UNHEALTHY);
    assert_int_equal(t.readies, 1);
    run(10 * S_);
    assert_int_equal(t.readies, 2);
    (void)server_up(1);
    run(3 * S_);
    healthy(2);
    finish();
}

static void server_drain(void **state)
{
    (void)state;
    prepare_api();
    gateway_begin();
    run(1 * S_);
    assert_int_equal(sw_life_undrain(t.life, SW_S("api/2")), SW_E_CONFLICT);
    assert_int_equal(sw_life_drain(t.life, SW_S("api/2")), SW_OK);
    assert_int_equal(sw_life_drain(t.life, SW_S("api/2")), SW_E_CONFLICT);
    run(100 * S_);
    state_is(2, SW_INSTANCE_DRAINING);
    assert_true(current(2)->life.drained);
    assert_int_equal(sw_life_undrain(t.life, SW_S("api/2")), SW_OK);
    state_is(2, SW_INSTANCE_HEALTHY);
    assert_int_equal(sw_life_drain(t.life, SW_S("api/2")), SW_OK);
    run(601 * S_);
    state_is(2, SW_INSTANCE_STOPPING); /* nobody any more */
    run(601 * S_);
    state_is(2, SW_INSTANCE_STOPPING);
    assert_int_equal(sw_life_undrain(t.life, SW_S("api/2")), SW_OK);
    run(1 * S_);
    healthy(2);
    finish();
}

static void weight_zero_drains(void **state)
{
    bool gone;

    (void)state;
    prepare_api();
    t.conf.servers[0][1].weight = 0;
    gateway_begin();
    run(1 * S_);
    healthy(1);
    state_is(2, SW_INSTANCE_DRAINING);
    assert_non_null(sw_app_find(t.apps, 0, current(2)->incarnation, &gone));
    sw_instance_done(current(2), true);
    assert_int_equal(t.readies, 1);
    assert_int_equal(sw_life_undrain(t.life, SW_S("api/2")), SW_E_UNSUPPORTED);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts),
        cmocka_unit_test(accepting_is_enough),
        cmocka_unit_test(ready_with_some),
        cmocka_unit_test(start_fails),
        cmocka_unit_test(dies_early),
        cmocka_unit_test(start_timeout),
        cmocka_unit_test(crash),
        cmocka_unit_test(crash_while_held),
        cmocka_unit_test(kill_by_command),
        cmocka_unit_test(flaps),
        cmocka_unit_test(ejects_half_at_most),
        cmocka_unit_test(the_only_one_stays),
        cmocka_unit_test(adopts),
        cmocka_unit_test(adopts_two_of_a_slot),
        cmocka_unit_test(adopts_no_stranger),
        cmocka_unit_test(rolls),
        cmocka_unit_test(rolls_back_dead),
        cmocka_unit_test(rolls_back_mute),
        cmocka_unit_test(rolls_over_a_crash),
        cmocka_unit_test(drains_until_idle),
        cmocka_unit_test(drain_deadline),
        cmocka_unit_test(drains_one),
        cmocka_unit_test(drains_the_only_one),
        cmocka_unit_test(stops),
        cmocka_unit_test(mute_supervisor),
        cmocka_unit_test(odd_messages),
        cmocka_unit_test(servers),
        cmocka_unit_test(server_drain),
        cmocka_unit_test(weight_zero_drains),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
