/* How large a header an app takes, in virtual time: servers on the simulated network that limit the
 * heads they read, each in its own way. */
#include "fake.h"

#define S_      SW_NS_PER_S
#define MS      SW_NS_PER_MS
#define HOSTS   4
#define STREAMS 8
#define BESIDE  (PROBE_OURS_BYTES + PROBE_CLIENT_BYTES)

/* What a server does with a head above its limit. */
enum habit {
    CLOSES,
    RESETS, /* closes with bytes unread */
    SILENT,
    GARBAGE,
    ANSWERS, /* with `status` */
};

struct host {
    enum habit habit;
    unsigned status;
    uint32_t head_max, line_max; /* whole head; one line */
    unsigned plain_status;       /* what fits gets */
    uint32_t sulks;              /* the first so many large heads get 503, whatever the limits */
    uint32_t asked, probes;      /* heads seen; those with Stateway-Probe in it */
    uint32_t largest;            /* value of Stateway-Probe */
    bool is_head;                /* the last probe was HEAD / */
    int fd;
    struct sw_listener *listener;
    struct host_stream {
        struct host *host;
        struct sw_stream *stream;
        uint32_t len;
        char head[40 * 1024];
    } streams[STREAMS];
};

static struct {
    struct fake_world world;
    struct fake_config conf;
    struct sw_apps *apps;
    struct sw_life *life;
    struct host hosts[HOSTS];
    struct sw_control queue[8]; /* STARTED and EXITED on their way to the gateway */
    uint32_t queue_count, started;
    struct sw_timer reads;
    uint32_t errors, raised, readies;
    char error[512];
} t;

/* ---- servers --------------------------------------------------------------------------------- */

static void host_drop(struct host_stream *h)
{
    if (h->stream != NULL) {
        sw_stream_close(sw_take(&h->stream));
    }
    h->len = 0;
}

static void host_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    (void)s;
    (void)err;
    host_drop(arg);
}

static void host_say(struct host_stream *h, const char *text)
{
    assert_int_equal(sw_stream_send(h->stream, NULL, sw_slice_cstr(text)), SW_OK);
}

static void host_answer(struct host_stream *h, unsigned status)
{
    struct sw_buf *buf = sw_buf_get(t.world.loop, 256);
    struct sw_out out;

    assert_non_null(buf);
    out = sw_out_init(buf->data, buf->cap);
    sw_out_printf(&out, "HTTP/1.1 %u X\r\nContent-Length: 0\r\n\r\n", status);
    assert_int_equal(sw_stream_send(h->stream, buf, sw_out_done(&out)), SW_OK);
    sw_buf_unref(buf);
}

/* The longest line of a head, its line end counted. */
static uint32_t longest_line(struct sw_slice head)
{
    size_t longest = 0;

    while (head.len > 0) {
        size_t n = sw_slice_find(head, '\n') + 1;

        longest = SW_MAX(longest, n);
        head = sw_slice_tail(head, n);
    }
    return (uint32_t)longest;
}

static void host_on_head(struct host_stream *h)
{
    struct host *host = h->host;
    struct sw_slice head = sw_slice_of(h->head, h->len), line;
    size_t at = sw_slice_find_slice(head, SW_S("\r\nStateway-Probe: "));
    bool is_probe = at < head.len;

    host->asked++;
    if (is_probe) {
        line = sw_slice_tail(head, at + sizeof "\r\nStateway-Probe: " - 1);
        line = sw_slice_head(line, sw_slice_find(line, '\r'));
        host->probes++;
        host->largest = SW_MAX(host->largest, (uint32_t)line.len);
        host->is_head = sw_slice_starts(head, SW_S("HEAD / HTTP/1.1\r\n"));
        if (host->sulks > 0) {
            host->sulks--;
            host_answer(h, 503);
            return;
        }
    }
    if (h->len <= host->head_max && longest_line(head) <= host->line_max) {
        host_answer(h, host->plain_status);
        return;
    }
    switch (host->habit) {
    case CLOSES:
    case RESETS: /* unless host_recv did it before */
        host_drop(h);
        break;
    case SILENT:
        break;
    case GARBAGE:
        host_say(h, "what?\r\n\r\n");
        break;
    case ANSWERS:
        host_answer(h, host->status);
        break;
    }
}

static void host_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct host_stream *h = arg;

    (void)s;
    (void)buf;
    assert_true(bytes.len <= sizeof h->head - h->len);
    memcpy(h->head + h->len, bytes.ptr, bytes.len);
    h->len += (uint32_t)bytes.len;
    if (sw_slice_ends(sw_slice_of(h->head, h->len), SW_S("\r\n\r\n"))) {
        host_on_head(h);
    } else if (h->host->habit == RESETS && h->len > h->host->head_max) {
        h->host->probes++;
        host_drop(h);
    }
}

static const struct sw_stream_events host_events = {.recv = host_recv, .end = host_end};

static void host_accept(struct sw_stream *s, void *arg)
{
    struct host *host = arg;

    for (int k = 0; k < STREAMS; k++) {
        if (host->streams[k].stream == NULL) {
            host->streams[k] = (struct host_stream){.host = host, .stream = s};
            sw_stream_attach(s, &host_events, &host->streams[k]);
            sw_stream_read_start(s);
            return;
        }
    }
    fail_msg("more than %d connections", STREAMS);
}

static void host_up(uint32_t k)
{
    struct host *host = &t.hosts[k];
    struct sw_addr addr;

    host->fd = fake_listen(&t.world, (uint16_t)(20000 + k), &addr);
    assert_int_equal(sw_listener_open(t.world.loop, host->fd, host_accept, host, &host->listener),
                     SW_OK);
}

static void host_down(uint32_t k)
{
    struct host *host = &t.hosts[k];

    if (host->listener == NULL) {
        return;
    }
    sw_listener_close(sw_take(&host->listener));
    fake_unlisten(&t.world, host->fd);
    for (int n = 0; n < STREAMS; n++) {
        host_drop(&host->streams[n]);
    }
}

/* ---- the supervisor of processes: they are hosts 0, 1, ... in the order of their starts -------
 */

static void sup_read(struct sw_timer *timer, void *arg)
{
    struct sw_control queue[SW_COUNTOF(t.queue)];
    uint32_t count = t.queue_count;

    (void)timer;
    (void)arg;
    memcpy(queue, t.queue, sizeof queue);
    t.queue_count = 0;
    for (uint32_t n = 0; n < count; n++) {
        sw_life_control(t.life, &queue[n]);
    }
}

static void on_send(void *arg, const struct sw_control *msg)
{
    struct sw_control answer = *msg;

    (void)arg;
    switch (msg->kind) {
    case SW_CONTROL_HELLO:
        answer.kind = SW_CONTROL_SYNCED;
        break;
    case SW_CONTROL_START:
        answer.kind = SW_CONTROL_STARTED;
        answer.pid = (int32_t)(1000 + t.started);
        (void)snprintf(answer.address, sizeof answer.address, "127.0.0.1:%u", 20000 + t.started);
        host_up(t.started++);
        break;
    default:
        answer.kind = SW_CONTROL_EXITED;
        if (msg->pid >= 1000) {
            host_down((uint32_t)msg->pid - 1000);
        }
        break;
    }
    assert_true(t.queue_count < SW_COUNTOF(t.queue));
    t.queue[t.queue_count++] = answer;
    if (!sw_timer_running(&t.reads)) {
        sw_timer_start(t.world.loop, &t.reads, fake_now(&t.world) + 1 * MS);
    }
}

static void on_log(void *arg, enum sw_log_level level, const char *text)
{
    (void)arg;
    if (level == SW_LOG_ERROR) {
        t.errors++;
        (void)snprintf(t.error, sizeof t.error, "%s", text);
    }
    t.raised += strstr(text, " in a header again") != NULL;
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
    sw_timer_stop(t.world.loop, &t.reads);
    t.queue_count = 0;
    sw_life_free(sw_take(&t.life));
    sw_apps_free(sw_take(&t.apps));
}

/* One session route to app 0, inline 4 KiB; hosts that take all. */
static void prepare(void)
{
    memset(&t, 0, sizeof t);
    fake_config_init(&t.conf);
    fake_world_init(&t.world, false);
    sw_timer_init(&t.reads, sup_read, NULL);
    t.conf.routes[0].placement = SW_PLACE_SESSION;
    t.conf.routes[0].session.inline_bytes = 4096;
    t.conf.config.side_addr = (struct sw_addr){.len = sizeof(struct sockaddr_in)};
    for (uint32_t k = 0; k < HOSTS; k++) {
        t.hosts[k].head_max = t.hosts[k].line_max = UINT32_MAX;
        t.hosts[k].plain_status = 200;
    }
}

static void prepare_servers(uint32_t count)
{
    prepare();
    fake_servers(&t.conf, "api", count, 20000)->health_path = SW_S("/healthz");
    for (uint32_t k = 0; k < count; k++) {
        host_up(k);
    }
}

static void finish(void)
{
    if (t.life != NULL) {
        gateway_end();
    }
    for (uint32_t k = 0; k < HOSTS; k++) {
        host_down(k);
    }
    fake_world_fini(&t.world);
}

static void run(uint64_t span_ns)
{
    fake_run(&t.world, span_ns);
}

static uint32_t takes(void)
{
    return sw_app_inline_bytes(t.apps, 0);
}

static struct sw_instance *instance(uint32_t slot)
{
    struct sw_instance *i = t.life->list[0].slots[slot - 1].current;

    assert_non_null(i);
    return i;
}

static void is_healthy(uint32_t slot)
{
    assert_string_equal(sw_instance_state_name(sw_instance__state(instance(slot))), "healthy");
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void takes_all(void **state)
{
    (void)state;
    prepare_servers(1);
    gateway_begin();
    assert_int_equal(takes(), UINT32_MAX); /* nothing is known: nothing is held back */
    run(60 * S_);
    assert_int_equal(takes(), UINT32_MAX);
    assert_int_equal(t.hosts[0].probes, 1);
    assert_int_equal(t.hosts[0].largest, 4096);
    assert_false(t.hosts[0].is_head);
    assert_int_equal(t.errors, 0);
    assert_int_equal(t.raised, 0);
    finish();
}

/* The largest route counts, other placements and other apps do not; no path: HEAD /. */
static void by_the_routes(void **state)
{
    static struct sw_config_route routes[4];

    (void)state;
    prepare();
    fake_servers(&t.conf, "api", 1, 20000);
    fake_servers(&t.conf, "other", 1, 20001);
    host_up(0);
    host_up(1);
    memset(routes, 0, sizeof routes);
    for (uint32_t k = 0; k < 4; k++) {
        routes[k].placement = k < 3 ? SW_PLACE_SESSION : SW_PLACE_STICKY;
        routes[k].session.inline_bytes = k == 1 ? 16384 : k == 3 ? 16000 : 100;
        routes[k].app = k == 3;
    }
    t.conf.config.routes = routes;
    t.conf.config.route_count = 4;
    gateway_begin();
    run(10 * S_);
    assert_int_equal(t.hosts[0].probes, 1);
    assert_int_equal(t.hosts[0].largest, 16384);
    assert_true(t.hosts[0].is_head);
    assert_int_equal(t.hosts[1].asked, 0); /* accepting was enough */
    assert_int_equal(sw_app_inline_bytes(t.apps, 1), UINT32_MAX);
    finish();
}

static const struct row {
    const char *name;
    enum habit habit;
    unsigned status;
    uint32_t head_max, line_max;
    unsigned plain;
    uint32_t takes, probes_max;
} rows[] = {
    {"uWSGI: closes above 3.9 KB", CLOSES, 0, 3900, UINT32_MAX, 200, 1024, 4},
    {"the same, bytes unread", RESETS, 0, 3900, UINT32_MAX, 200, 1024, 4},
    {"400 above 6 KB", ANSWERS, 400, 6000, UINT32_MAX, 200, 2048, 3},
    {"413", ANSWERS, 413, 6000, UINT32_MAX, 200, 2048, 3},
    {"431", ANSWERS, 431, 6000, UINT32_MAX, 200, 2048, 3},
    {"500", ANSWERS, 500, 6000, UINT32_MAX, 200, 2048, 3},
    {"502 of a proxy", ANSWERS, 502, 6000, UINT32_MAX, 200, 2048, 3},
    {"8 KB are enough", ANSWERS, 400, 8192, UINT32_MAX, 200, UINT32_MAX, 1},
    {"a line of 3 KB", ANSWERS, 400, UINT32_MAX, 3000, 200, 2048, 3},
    {"a line as long as the state's", ANSWERS, 400, UINT32_MAX, 4096 + 18, 200, UINT32_MAX, 1},
    {"a byte less", ANSWERS, 400, UINT32_MAX, 4096 + 17, 200, 2048, 3},
    {"less than the halvings reach", ANSWERS, 431, 600, UINT32_MAX, 200, 0, 6},
    {"closes, whatever fits not", CLOSES, 0, 600, UINT32_MAX, 200, 0, 6},
    {"302 is an answer", ANSWERS, 302, 600, UINT32_MAX, 200, UINT32_MAX, 1},
    {"404 is an answer", ANSWERS, 404, 600, UINT32_MAX, 200, UINT32_MAX, 1},
    {"429 is an answer", ANSWERS, 429, 600, UINT32_MAX, 200, UINT32_MAX, 1},
    {"silence is none", SILENT, 0, 600, UINT32_MAX, 200, UINT32_MAX, 3},
    {"nor what is no HTTP", GARBAGE, 0, 600, UINT32_MAX, 200, UINT32_MAX, 3},
};

/* Never a failure of the instance, never a delay, never many questions. */
static void limits_are_found(void **state)
{
    (void)state;
    for (size_t r = 0; r < SW_COUNTOF(rows); r++) {
        const struct row *row = &rows[r];
        bool is_limited = row->takes != UINT32_MAX;
        char text[64];

        prepare_servers(1);
        t.hosts[0].habit = row->habit;
        t.hosts[0].status = row->status;
        t.hosts[0].head_max = row->head_max;
        t.hosts[0].line_max = row->line_max;
        t.hosts[0].plain_status = row->plain;
        gateway_begin();
        run(50 * MS);
        is_healthy(1);
        assert_int_equal(t.readies, 1);
        run(60 * S_);
        is_healthy(1);
        if (takes() != row->takes || t.hosts[0].probes > row->probes_max ||
            t.errors != is_limited) {
            fail_msg("%s: %u bytes, %u probes, %u errors", row->name, takes(), t.hosts[0].probes,
                     t.errors);
        }
        assert_int_equal(instance(1)->failures, 0);
        assert_int_equal(instance(1)->failed_total, 0);
        assert_int_equal(instance(1)->life.bad_streak, 0);
        if (is_limited) {
            (void)snprintf(text, sizeof text, "states above %u bytes go by the side API",
                           row->takes);
            assert_non_null(strstr(t.error, "api: api/1 refuses"));
            assert_non_null(strstr(t.error, text));
            (void)snprintf(text, sizeof text, "(it answers %u)", row->status);
            assert_non_null(strstr(t.error, row->status > 0 ? text : "(it closes)"));
        }
        finish();
    }
}

/* A plain request is refused as well: it is not the size. */
static void not_the_size(void **state)
{
    static const unsigned statuses[] = {400, 431, 500, 503};

    (void)state;
    for (size_t k = 0; k < SW_COUNTOF(statuses); k++) {
        prepare();
        fake_servers(&t.conf, "api", 1, 20000);
        host_up(0);
        t.hosts[0].plain_status = statuses[k];
        gateway_begin();
        run(60 * S_);
        is_healthy(1);
        assert_int_equal(takes(), UINT32_MAX);
        assert_int_equal(t.hosts[0].asked, 2);
        assert_int_equal(t.errors, 0);
        finish();
    }
}

/* One 503 says nothing; where it comes each time it does. */
static void by_chance(void **state)
{
    (void)state;
    for (uint32_t sulks = 1; sulks <= 6; sulks++) {
        prepare_servers(1);
        t.hosts[0].sulks = sulks;
        gateway_begin();
        run(20 * S_);
        assert_int_equal(takes(), sulks < 6 ? UINT32_MAX : 0);
        assert_true(t.hosts[0].probes <= 2 + PROBE_HALVINGS);
        is_healthy(1);
        finish();
    }
}

/* Without a side API the text says what that means. */
static void no_side(void **state)
{
    (void)state;
    prepare_servers(1);
    t.conf.config.side_addr.len = 0;
    t.hosts[0].head_max = 5000;
    gateway_begin();
    run(1 * S_);
    assert_int_equal(takes(), 2048);
    assert_non_null(strstr(t.error, "states above 2048 bytes cannot be handed over"));
    finish();
}

/* The least of all that serve; who drained does not count; who came back from failed checks may
 * have been restarted with other settings. */
static void of_several(void **state)
{
    (void)state;
    prepare_servers(3);
    t.hosts[1].head_max = 5000;
    t.hosts[2].head_max = 3900;
    gateway_begin();
    run(1 * S_);
    assert_int_equal(takes(), 1024);
    assert_in_range(t.errors, 1, 2); /* each time it became less */
    t.errors = 0;
    host_down(2);
    run(10 * S_);
    assert_int_equal(takes(), 1024); /* it may come back */
    t.hosts[2].head_max = 6000;
    host_up(2);
    run(10 * S_);
    assert_int_equal(takes(), 2048);
    assert_int_equal(t.raised, 1);
    host_down(1);
    run(10 * S_);
    assert_int_equal(sw_life_drain(t.life, SW_S("api/2")), SW_OK);
    run(601 * S_);                   /* its deadline */
    assert_int_equal(takes(), 2048); /* host 2 */
    host_down(2);
    run(10 * S_);
    t.hosts[2].head_max = UINT32_MAX;
    host_up(2);
    run(10 * S_);
    assert_int_equal(takes(), UINT32_MAX);
    assert_int_equal(t.raised, 2);
    assert_int_equal(t.errors, 0);
    finish();
}

/* The one that takes less leaves: the others' limit holds from the next tick on. */
static void raised_when_it_leaves(void **state)
{
    (void)state;
    prepare_servers(2);
    t.conf.apps[0].drain_deadline_ns = 1 * S_;
    t.hosts[1].head_max = 3900;
    gateway_begin();
    run(1 * S_);
    assert_int_equal(takes(), 1024);
    assert_int_equal(sw_life_drain(t.life, SW_S("api/2")), SW_OK);
    run(500 * MS);
    assert_int_equal(takes(), 1024);
    run(2 * S_);
    assert_int_equal(takes(), UINT32_MAX);
    assert_int_equal(t.raised, 1);
    finish();
}

/* Processes: a crash leaves the limit, the next incarnation's own probe changes it. */
static void next_incarnation(void **state)
{
    struct sw_control msg = {.version = SW_CONTROL_VERSION, .kind = SW_CONTROL_EXITED};

    (void)state;
    prepare();
    fake_spawned(&t.conf, "shop", 1)->health_path = SW_S("/healthz");
    t.hosts[0].head_max = 3900;
    t.hosts[1].head_max = 3900;
    gateway_begin();
    run(1 * S_);
    is_healthy(1);
    assert_int_equal(takes(), 1024);
    assert_int_equal(t.errors, 1);
    for (uint32_t n = 1; n < 3; n++) { /* it crashes; the next one comes */
        msg.incarnation = instance(1)->incarnation;
        msg.status = 9;
        host_down(n - 1);
        sw_life_control(t.life, &msg);
        assert_int_equal(takes(), 1024);
        run(1 * S_);
        is_healthy(1);
        assert_int_equal(t.started, n + 1);
        assert_int_equal(takes(), n == 1 ? 1024 : UINT32_MAX);
    }
    assert_int_equal(t.errors, 1); /* the same limit is not told again */
    assert_int_equal(t.raised, 1);
    assert_int_equal(t.hosts[2].probes, 1);
    finish();
}

/* While old and new serve beside each other, the least holds. */
static void while_rolling(void **state)
{
    (void)state;
    prepare();
    fake_spawned(&t.conf, "shop", 2)->health_path = SW_S("/healthz");
    t.hosts[0].head_max = 3900;
    t.hosts[1].head_max = 3900;
    gateway_begin();
    run(1 * S_);
    assert_int_equal(takes(), 1024);
    assert_int_equal(sw_life_roll(t.life, SW_S("shop")), SW_OK);
    for (int n = 0; n < 1000 && t.started < 4; n++) {
        assert_int_equal(takes(), 1024);
        run(10 * MS);
    }
    run(2 * S_);
    assert_int_equal(t.started, 4);
    assert_int_equal(takes(), UINT32_MAX);
    assert_int_equal(t.errors, 1);
    finish();
}

/* The gateway ends at any moment of a probe. */
static void ends_meanwhile(void **state)
{
    (void)state;
    for (uint64_t us = 1; us < 60; us++) {
        prepare_servers(2);
        t.hosts[0].head_max = 3900;
        t.hosts[1].habit = SILENT;
        t.hosts[1].head_max = 600;
        gateway_begin();
        run(us * SW_NS_PER_US);
        gateway_end();
        run(3 * S_);
        finish();
    }
}

/* An instance that leaves in the middle takes its probe along. */
static void leaves_meanwhile(void **state)
{
    struct sw_control msg = {.version = SW_CONTROL_VERSION, .kind = SW_CONTROL_EXITED};

    (void)state;
    prepare();
    fake_spawned(&t.conf, "shop", 1)->health_path = SW_S("/healthz");
    t.hosts[0].habit = SILENT;
    t.hosts[0].head_max = 600;
    gateway_begin();
    run(500 * MS);
    is_healthy(1);
    assert_int_equal(t.hosts[0].probes, 1);
    msg.incarnation = instance(1)->incarnation;
    sw_life_control(t.life, &msg);
    host_down(0);
    run(60 * S_);
    is_healthy(1);
    assert_int_equal(t.hosts[1].probes, 1);
    assert_int_equal(takes(), UINT32_MAX);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_all),        cmocka_unit_test(by_the_routes),
        cmocka_unit_test(limits_are_found), cmocka_unit_test(not_the_size),
        cmocka_unit_test(by_chance),        cmocka_unit_test(no_side),
        cmocka_unit_test(of_several),       cmocka_unit_test(raised_when_it_leaves),
        cmocka_unit_test(next_incarnation), cmocka_unit_test(while_rolling),
        cmocka_unit_test(ends_meanwhile),   cmocka_unit_test(leaves_meanwhile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
