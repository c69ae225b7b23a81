/* unit/placement/test_handoff.c - the lines an instance is told, to the letter. */
#include "world.h"

#include "app/app.h"

static struct sw_instance instance = {.name = "shop/1"};

/* The lines, NUL-terminated; they fit into what placement.h says is enough. */
static const char *lines_of(struct visit *v)
{
    static char text[65536];
    size_t cap = SW_HANDOFF_BYTES + v->ask.key_text.len + v->ask.ref_url.len + v->ask.trace.len +
                 (v->ask.by_ref || v->ask.state.ptr == NULL ? 0 : v->ask.state.len);
    struct sw_out out;

    if (v->ask.alarm != NULL) {
        cap += v->ask.alarm->id.len + 2 * v->ask.alarm->data.len;
    }
    assert_true(cap < sizeof(text));
    out = sw_out_init(text, cap);
    v->ask.instance = &instance;
    assert_true(sw_handoff_put(&out, &v->ask, 4500));
    text[out.len] = '\0';
    return text;
}

static void has(struct visit *v, const char *line)
{
    const char *lines = lines_of(v);

    if (strstr(lines, line) == NULL) {
        fail_msg("no %s in\n%s", line, lines);
    }
}

static void has_not(struct visit *v, const char *name)
{
    const char *lines = lines_of(v);

    if (strstr(lines, name) != NULL) {
        fail_msg("%s in\n%s", name, lines);
    }
}

static void three_situations(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64], line[64];

    visit_open(w, &v, NULL);
    has(&v, "Stateway-State-Info: absent\r\n");
    has(&v, "Stateway-Version: \"0\"\r\n");
    has(&v, "Stateway-Mode: exclusive\r\nStateway-Deadline: 4500\r\n");
    has_not(&v, "Stateway-State:");
    has_not(&v, "Stateway-Ref:");
    has_not(&v, "Stateway-Key:");
    has_not(&v, "Stateway-Visitor:");
    has_not(&v, "Stateway-Trace:");
    has_not(&v, "Stateway-Idempotency:");
    has_not(&v, "Stateway-Alarm:");
    v.ask.ref_url = SW_S("http://127.0.0.1:7070/state/x"); /* it may still PUT one */
    has(&v, "Stateway-Ref: http://127.0.0.1:7070/state/x\r\n");
    visit_close(&v);

    visitor_make(w, "Stateway-Set: {\"n\":1}\r\n", id);
    visit_open(w, &v, id);
    has(&v, "Stateway-State: {\"n\":1}\r\nStateway-State-Info: inline;type=json;size=7\r\n");
    snprintf(line, sizeof(line), "Stateway-Key: visitor:%s\r\n", v.ask.visitor);
    has(&v, line);
    snprintf(line, sizeof(line), "Stateway-Visitor: %s\r\n", v.ask.visitor);
    has(&v, line);
    v.ask.ref_url = SW_S("http://127.0.0.1:7070/state/x");
    has(&v, "Stateway-Ref: http://127.0.0.1:7070/state/x\r\n");
    v.ask.by_ref = true; /* the instance said 431 */
    has(&v, "Stateway-State-Info: ref;type=json;size=7\r\n");
    has_not(&v, "Stateway-State:");
    v.ask.shared = true;
    has(&v, "Stateway-Mode: shared\r\n");
    visit_close(&v);
}

/* A state is handed over whole, or by reference; never a part of it. */
static void around_inline(void **state)
{
    struct world *w = *state;
    struct visit v;
    char id[64], line[INLINE + 64];

    for (size_t bytes = INLINE - 1; bytes <= INLINE + 1; bytes++) {
        visitor_make(w, set_of(bytes), id);
        visit_open(w, &v, id);
        v.ask.ref_url = SW_S("http://127.0.0.1:7070/state/x");
        assert_int_equal(v.ask.state.len, bytes);
        if (bytes <= INLINE) {
            snprintf(line, sizeof(line),
                     "Stateway-State: %s\r\nStateway-State-Info: inline;type=json;size=%zu\r\n",
                     state_of(bytes), bytes);
        } else {
            assert_null(v.ask.state.ptr);
            has_not(&v, "Stateway-State:");
            snprintf(line, sizeof(line), "Stateway-State-Info: ref;type=json;size=%zu\r\n", bytes);
        }
        has(&v, line);
        visit_close(&v);
    }
}

static void trace_claim_alarm(void **state)
{
    static const struct row {
        struct sw_alarm alarm;
        const char *line;
    } rows[] = {
        {{.id = SW_S("turn")}, "Stateway-Alarm: id=turn;attempt=1\r\n"},
        {{.id = SW_S("turn"), .attempt = 5}, "Stateway-Alarm: id=turn;attempt=6\r\n"},
        {{.id = SW_S("t"), .data = SW_S("next; please")},
         "Stateway-Alarm: id=t;attempt=1;data=\"next; please\"\r\n"},
        {{.id = SW_S("t"), .data = SW_S("a\"b\\c")},
         "Stateway-Alarm: id=t;attempt=1;data=\"a\\\"b\\\\c\"\r\n"},
        {{.id = SW_S("t"), .data = SW_S("\\\"\\")},
         "Stateway-Alarm: id=t;attempt=1;data=\"\\\\\\\"\\\\\"\r\n"},
    };
    struct world *w = *state;
    struct visit v;

    visit_open(w, &v, NULL);
    v.ask.trace = SW_S("abc, def");
    v.ask.claim_attempt = 2;
    has(&v, "Stateway-Trace: abc, def\r\n");
    has(&v, "Stateway-Idempotency: attempt=2\r\n");
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        v.ask.alarm = &rows[i].alarm;
        has(&v, rows[i].line);
    }
    visit_close(&v);
}

/* What placement.h says is enough room is enough for the longest of everything. */
static void room(void **state)
{
    struct world *w = *state;
    char data[SW_ALARM_DATA_BYTES_MAX] = {0}, id[SW_ALARM_ID_BYTES_MAX] = {0};
    struct sw_alarm alarm = {.id = sw_slice_of(id, sizeof(id)),
                             .data = sw_slice_of(data, sizeof(data)),
                             .attempt = UINT32_MAX};
    struct visit v;

    memset(data, '"', sizeof(data));
    memset(id, 'i', sizeof(id));
    visit_open(w, &v, NULL);
    memset(instance.name, 'n', sizeof(instance.name) - 1);
    memset(v.ask.visitor, 'f', 16);
    v.ask.key_text = SW_S("room:7");
    v.ask.state = SW_S("{\"n\":1}");
    v.ask.state_present = true;
    v.ask.version = (struct sw_version){UINT64_MAX, UINT64_MAX};
    v.ask.app_verdict = SW_VERDICT_CONFLICTED;
    v.ask.ref_url = SW_S("http://127.0.0.1:7070/state/x");
    v.ask.trace = SW_S("abc");
    v.ask.claim_attempt = UINT32_MAX;
    v.ask.alarm = &alarm;
    has(&v, "Stateway-Version: \"ffffffffffffffff-18446744073709551615\"\r\n");
    memset(instance.name, 0, sizeof(instance.name));
    memcpy(instance.name, "shop/1", 7);
    visit_close(&v);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(three_situations),
        TEST(around_inline),
        TEST(trace_claim_alarm),
        TEST(room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
