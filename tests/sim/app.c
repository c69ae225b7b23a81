/* tests/sim/app.c - fake apps: HTTP servers on the simulated network, with every bad habit there
 * is.
 *
 * An app does what the query of the request says (enum act). State comes in Stateway-State and goes
 * back in Stateway-Set or -Patch; the body of a request is a pattern of its number, and is checked.
 * What a gateway must never send (a malformed head, a wrong body, its own cookies, a second request
 * before the answer to the first) is a broken promise.
 */
#include "world.h"

#define APP_FIELDS  128u
#define SLOW_MAX_MS 1200u

enum app_conn_state { AC_FREE, AC_HEAD, AC_BODY, AC_WAIT, AC_ANSWER, AC_TUNNEL, AC_ENDING };

struct app_conn {
    struct world *w;
    struct fake *fake;
    enum app_conn_state state;
    struct sw_stream *s;
    struct bytes in;
    struct pump out;
    size_t scanned;
    struct sw_body body;
    struct sw_timer timer; /* slow answers */
    /* the request */
    struct req *r;
    enum act act;
    bool alarm;     /* it is the delivery of an alarm; r is the request that set it */
    uint32_t stamp; /* of this execution */
    bool keep_alive, head_request, upgrade, eof;
    uint64_t body_got;
    bool state_present;
    struct list list;
    char version[SW_VERSION_TEXT_MAX];
    bool answered; /* early, while the body still comes */
    bool close_after;
    uint64_t tunnel_bytes;
};

static void conn_run(struct app_conn *c);

static struct app_conn *conns(struct world *w)
{
    if (w->app_conns == NULL) {
        w->app_conns = calloc(APP_CONNS_MAX, sizeof(struct app_conn));
        SW_ASSERT(w->app_conns != NULL);
    }
    return w->app_conns;
}

static void conn_close(struct app_conn *c)
{
    if (c->s != NULL) {
        sw_stream_close(sw_take(&c->s));
    }
    pump_reset(&c->out);
    sw_timer_stop(c->w->apps_loop, &c->timer);
    c->in.len = 0;
    c->state = AC_FREE;
}

static void conn_linger(struct app_conn *c)
{
    if (c->s != NULL) {
        sw_stream_linger(sw_take(&c->s), now_ns(c->w) + SW_NS_PER_S);
    }
    conn_close(c);
}

/* ---- the state ------------------------------------------------------------------------------- */

/* {"ids":[1,2]} or {"k1":1,"k2":1} */
static bool state_parse(struct sw_slice text, bool merge, struct list *ret_list)
{
    ret_list->n = 0;
    if (merge) {
        for (size_t at = 0; at + 1 < text.len; at++) {
            uint32_t value = 0;

            if (text.ptr[at] != '"' || text.ptr[at + 1] != 'k') {
                continue;
            }
            for (at += 2; at < text.len && text.ptr[at] >= '0' && text.ptr[at] <= '9'; at++) {
                value = value * 10 + (uint32_t)(text.ptr[at] - '0');
            }
            if (ret_list->n == LIST_MAX) {
                return false;
            }
            ret_list->ids[ret_list->n++] = value;
        }
        return true;
    }
    if (!sw_slice_starts(text, SW_S("{\"ids\":[")) || !sw_slice_ends(text, SW_S("]}"))) {
        return false;
    }
    return list_parse(sw_slice_head(sw_slice_tail(text, 8), text.len - 10), ret_list);
}

static void put_list(struct pump *p, const struct list *l)
{
    for (uint32_t i = 0; i < l->n; i++) {
        pump_printf(p, i == 0 ? "%u" : ",%u", l->ids[i]);
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

static void put_update(struct app_conn *c)
{
    struct pump *p = &c->out;
    uint32_t id = c->r->id;

    if (!routes_info[c->r->route].session) {
        return;
    }
    switch (c->act) {
    case ACT_ADD:
    case ACT_RENEW:
    case ACT_FAIL:
    case ACT_TWO:
    case ACT_SET:
    case ACT_CANCEL:
        if (c->r->route == ROUTE_MERGE) {
            pump_printf(p, "Stateway-Patch: {\"k%u\":1}\r\n", id);
        } else {
            if (c->list.n < LIST_MAX) {
                c->list.ids[c->list.n++] = id;
            }
            pump_printf(p, "Stateway-Set: {\"ids\":[");
            put_list(p, &c->list);
            pump_printf(p, "]}\r\n");
            c->state_present = true;
        }
        if (c->act == ACT_RENEW) {
            pump_printf(p, "Stateway-Renew: ?1\r\n");
        } else if (c->act == ACT_SET) {
            pump_printf(p, "Stateway-Alarm: in=%u;id=a%u;data=\"%u\"\r\n", c->r->alarm_ms,
                        c->r->alarm, id);
        } else if (c->act == ACT_CANCEL) {
            pump_printf(p, "Stateway-Alarm: cancel;id=a%u\r\n", c->r->alarm);
        }
        if (chance(c->w, 10)) {
            pump_printf(p, "Stateway-Expect: %s\r\n", c->version);
            c->r->expects = true;
        }
        if (c->act != ACT_FAIL && chance(c->w, 10)) {
            pump_printf(p, "Stateway-Commit: %s\r\n", chance(c->w, 50) ? "always" : "2xx");
        }
        if (!c->w->plan.expiry && chance(c->w, 10)) {
            pump_printf(p, "Stateway-TTL: %lu\r\n", 600 + pick(c->w, 1000));
        }
        if (c->act == ACT_TWO) {
            pump_printf(p, "stateway-delete: ?1\r\n");
        }
        break;
    case ACT_BADJSON:
        pump_printf(p, "Stateway-Set: {\"ids\":[%u}\r\n", id);
        break;
    case ACT_DEL:
        pump_printf(p, "Stateway-Delete: ?1\r\n");
        break;
    default:
        break;
    }
}

static void put_body(struct app_conn *c, uint32_t bytes)
{
    struct pump *p = &c->out;
    char *text = malloc(bytes + 1);

    SW_ASSERT(text != NULL);
    body_fill(c->stamp, true, 0, text, bytes);
    if (c->r->framing == 'c') {
        for (uint32_t at = 0; at < bytes;) {
            uint32_t n = 1 + (uint32_t)pick(c->w, bytes - at);

            pump_printf(p, "%x%s\r\n", n, chance(c->w, 10) ? ";ext=\"a;b\"" : "");
            pump_put(p, text + at, n);
            pump_printf(p, "\r\n");
            at += n;
        }
        pump_printf(p, "0\r\n%s\r\n", chance(c->w, 20) ? "X-Trailer: yes\r\n" : "");
    } else {
        pump_put(p, text, bytes);
    }
    free(text);
}

/* What the app says of the request's key. */
static void put_key_word(struct app_conn *c)
{
    struct req *r = c->r;

    if (r->claim == NULL || c->act != ACT_FAIL) {
        return;
    }
    if (r->fail_word != 0) {
        pump_printf(&c->out, "Stateway-Idempotency: %s\r\n",
                    r->fail_word == 's' ? "store" : "release");
    }
    if (r->fail_word == 'r' || (r->fail_word == 0 && routes_info[r->route].frees_5xx)) {
        r->claim->released++;
    }
}

static void put_answer(struct app_conn *c)
{
    struct pump *p = &c->out;
    struct req *r = c->r;
    unsigned status = c->act == ACT_FAIL ? 500 : c->act == ACT_EMPTY ? 204 : 200;

    if (c->act == ACT_INTERIM) {
        pump_printf(p, "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n");
    }
    pump_printf(p, "HTTP/1.1 %u Whatever\r\nX-Sim: %u\r\nX-Fake: %u\r\nX-Stamp: %u\r\n", status,
                r->id, c->fake->serial, c->stamp);
    if (chance(c->w, 10)) {
        pump_printf(p, "Set-Cookie: own=%u; Path=/\r\n", r->id);
    }
    if (chance(c->w, 10)) {
        pump_printf(p, "Connection: x-hop\r\nX-Hop: secret\r\n");
    }
    put_key_word(c);
    put_update(c);
    pump_printf(p, "X-State: %u\r\nX-List: ", c->state_present ? 1 : 0);
    put_list(p, &c->list);
    pump_printf(p, "\r\n");
    if (status != 204) {
        switch (r->framing) {
        case 'l':
            pump_printf(p, "Content-Length: %u\r\n", r->answer_bytes);
            break;
        case 'c':
            pump_printf(p, "Transfer-Encoding: chunked\r\n");
            break;
        default:
            pump_printf(p, "Connection: close\r\n");
            c->close_after = true;
            break;
        }
    }
    if ((chance(c->w, 10) || c->act == ACT_EXTRA) && r->framing != 'x') {
        pump_printf(p, "Connection: close\r\n");
        c->close_after = true;
    }
    pump_printf(p, "\r\n");
    if (status != 204 && !c->head_request) {
        size_t head = p->len;

        put_body(c, r->answer_bytes);
        if (c->act == ACT_MIDWAY &&
            p->len > head) { /* not all of it, though the framing promised */
            p->len = head + (size_t)pick(c->w, p->len - head);
            c->close_after = true;
        }
    } else if (c->act == ACT_MIDWAY) {
        p->len -= 1 + (size_t)pick(c->w, p->len - 1);
        c->close_after = true;
    }
    if (c->act == ACT_EXTRA && r->framing != 'x') {
        /* Only where the connection ends: on one that goes on, what comes later cannot be told from
         * the next answer, by anybody. */
        pump_printf(p, "HTTP/1.1 200 Nobody asked\r\nContent-Length: 3\r\n\r\nbad");
    }
}

static void put_big_head(struct app_conn *c)
{
    pump_printf(&c->out, "HTTP/1.1 200 OK\r\nX-Big: ");
    for (unsigned i = 0; i < 70; i++) {
        pump_printf(&c->out, "%0512u", i);
    }
    pump_printf(&c->out, "\r\nContent-Length: 0\r\n\r\n");
    c->close_after = true;
}

static void conn_answered(struct app_conn *c)
{
    bool more = !c->close_after && c->keep_alive;

    if (c->state == AC_ANSWER && !c->eof && more) {
        pump_reset(&c->out);
        c->out.s = c->s;
        c->state = AC_HEAD;
        c->r = NULL;
        conn_run(c);
        return;
    }
    if (chance(c->w, 20)) {
        sw_stream_shutdown(c->s); /* and waits for the other side, as some servers do */
        c->state = AC_ENDING;
        sw_timer_start(c->w->apps_loop, &c->timer, now_ns(c->w) + 3 * SW_NS_PER_S);
        return;
    }
    conn_linger(c);
}

static void conn_sent_some(struct app_conn *c)
{
    pump_run(&c->out);
    if ((c->state == AC_ANSWER || (c->state == AC_BODY && c->answered)) && pump_done(&c->out) &&
        sw_stream_queued(c->s) == 0) {
        if (c->state == AC_BODY) { /* answered early */
            if (c->close_after) {
                conn_linger(c);
            }
            return; /* else the rest of the request is still read */
        }
        conn_answered(c);
    }
}

/* An alarm: its number becomes part of the state, or the app fails in one of its ways. */
static void conn_execute_alarm(struct app_conn *c)
{
    struct pump *p = &c->out;

    if (!alarm_taken(c->w, c->r)) {
        switch (pick(c->w, 4)) {
        case 0:
            pump_printf(p, "HTTP/1.1 500 No\r\nContent-Length: 2\r\nStateway-Set: {\"ids\":[]}\r\n"
                           "\r\nno");
            break;
        case 1:
            pump_printf(p, "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n");
            break;
        case 2:
            conn_close(c);
            return;
        default:
            return; /* never */
        }
    } else {
        if (c->list.n < LIST_MAX) {
            c->list.ids[c->list.n++] = ALARM_BASE + c->r->number;
        }
        pump_printf(p, "HTTP/1.1 %s\r\nContent-Length: %u\r\nStateway-Set: {\"ids\":[",
                    chance(c->w, 50) ? "200 Taken" : "404 Strange", 5);
        put_list(p, &c->list);
        pump_printf(p, "]}\r\n\r\ntaken");
        crash_chance(c->w);
    }
    c->state = AC_ANSWER;
    conn_sent_some(c);
}

/* Does what was asked. */
static void conn_execute(struct app_conn *c)
{
    struct req *r = c->r;
    bool hello = c->act == ACT_UPGRADE && chance(c->w, 50);

    c->out.trickle = c->w->plan.aborts && chance(c->w, 10);
    if (c->alarm) {
        conn_execute_alarm(c);
        return;
    }
    if (r->claim != NULL) {
        crash_chance(c->w);
    }
    switch (c->act) {
    case ACT_NEVER:
        return;
    case ACT_CLOSE:
        if (chance(c->w, 50)) {
            conn_close(c);
        } else {
            conn_linger(c);
        }
        return;
    case ACT_GARBAGE:
        pump_printf(&c->out, chance(c->w, 50) ? "HTTP/1.1 OK 200\r\n\r\n"
                                              : "\x16\x03\x01 no HTTP at all\r\n\r\n");
        c->close_after = true;
        break;
    case ACT_BIGHEAD:
        put_big_head(c);
        break;
    case ACT_UPGRADE:
        if (c->upgrade) {
            pump_printf(
                &c->out,
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: sim\r\n"
                "X-Sim: %u\r\nX-Fake: %u\r\nX-Hello: %u\r\n\r\n",
                r->id, c->fake->serial, hello);
            if (hello) { /* it may arrive with the head */
                pump_printf(&c->out, TUNNEL_HELLO);
            }
            c->state = AC_TUNNEL;
            c->tunnel_bytes = 0;
            pump_run(&c->out);
            conn_run(c);
            return;
        }
        put_answer(c);
        break;
    default:
        put_answer(c);
        break;
    }
    if (c->state != AC_BODY) {
        c->state = AC_ANSWER;
    }
    conn_sent_some(c);
}

static void conn_slow_over(struct sw_timer *t, void *arg)
{
    struct app_conn *c = arg;

    (void)t;
    if (c->state == AC_ENDING) {
        conn_close(c);
        return;
    }
    if (c->fake->state == FAKE_FROZEN) {
        sw_timer_start(c->w->apps_loop, &c->timer, now_ns(c->w) + 20 * SW_NS_PER_MS);
        return;
    }
    conn_execute(c);
}

/* From here on it was done. */
static void conn_executes(struct app_conn *c)
{
    struct world *w = c->w;

    oracle_executed(w, c->r);
    if (w->stamp_count == STAMPS_MAX) {
        broken(w, "apps execute more than %u requests", STAMPS_MAX);
    }
    w->stamps[w->stamp_count++] = c->r->number;
    c->stamp = w->stamp_count;
}

static void conn_request_whole(struct app_conn *c)
{
    struct world *w = c->w;
    uint64_t delay_ms = 0;

    if (c->body_got != (c->alarm ? 0 : c->r->body_bytes) && c->act != ACT_EARLY) {
        broken(w, "request %u: the app got %lu bytes of body, %u were sent", c->r->id, c->body_got,
               c->r->body_bytes);
    }
    if (!c->alarm && (c->act != ACT_EARLY || !c->answered)) {
        conn_executes(c);
    }
    if (c->answered) { /* early: now the connection may go on */
        c->state = AC_ANSWER;
        conn_sent_some(c);
        return;
    }
    if (c->act == ACT_SLOW) {
        delay_ms = 1 + pick(w, w->plan.calm ? 200 : SLOW_MAX_MS);
    } else if (chance(w, 30)) {
        delay_ms = 1 + pick(w, 30);
    } else if ((c->alarm || c->r->claim != NULL) && !w->plan.calm && chance(w, 10)) {
        delay_ms = 1 + pick(w, SLOW_MAX_MS);
    }
    c->state = AC_WAIT;
    if (delay_ms > 0) {
        sw_timer_start(w->apps_loop, &c->timer, now_ns(w) + delay_ms * SW_NS_PER_MS);
        return;
    }
    conn_execute(c);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void check_forwarded(struct app_conn *c, const struct sw_head *h)
{
    struct world *w = c->w;
    unsigned versions = 0, states = 0, keys = 0, attempts = 0;

    if (h->minor != 1 || h->host.len == 0) {
        broken(w, "request %u: forwarded without Host or as 1.0", c->r->id);
    }
    for (uint32_t i = 0; i < h->field_count; i++) {
        const struct sw_field *f = &h->fields[i];

        if (sw_slice_eq_nocase(f->name, SW_S("Stateway-Version"))) {
            versions++;
            (void)snprintf(c->version, sizeof(c->version), "%.*s", SW_SARG(f->value));
        } else if (sw_slice_eq_nocase(f->name, SW_S("Stateway-State"))) {
            states++;
            if (!state_parse(f->value, c->r->route == ROUTE_MERGE, &c->list)) {
                broken(w, "request %u: the state is not what an app wrote: %.*s", c->r->id,
                       SW_SARG(f->value));
            }
            c->state_present = true;
        } else if (sw_slice_eq_nocase(f->name, SW_S("Idempotency-Key"))) {
            keys++;
        } else if (sw_slice_eq_nocase(f->name, SW_S("Stateway-Idempotency"))) {
            attempts++;
            if (!routes_info[c->r->route].retries && !sw_slice_eq(f->value, SW_S("attempt=1"))) {
                broken(w, "request %u: %.*s, where nothing is tried again", c->r->id,
                       SW_SARG(f->value));
            }
        } else if ((!c->alarm && sw_slice_eq_nocase(f->name, SW_S("Stateway-Alarm"))) ||
                   sw_slice_eq_nocase(f->name, SW_S("Stateway-Spoof")) ||
                   sw_slice_eq_nocase(f->name, SW_S("X-Hop"))) {
            broken(w, "request %u: %.*s came through", c->r->id, SW_SARG(f->name));
        }
    }
    if (versions != (routes_info[c->r->route].session ? 1u : 0u) || states > 1) {
        broken(w, "request %u: %u versions, %u states", c->r->id, versions, states);
    }
    if (keys != attempts || attempts != (c->r->claim != NULL ? 1u : 0u)) {
        broken(w, "request %u: %u keys, %u words of the gateway on it", c->r->id, keys, attempts);
    }
    for (unsigned i = 0; i < ROUTE_ID_COUNT; i++) {
        if (i == (unsigned)c->r->route && routes_info[i].cookie != NULL &&
            sw_cookie_find(h, sw_slice_cstr(routes_info[i].cookie)).count > 0) {
            broken(w, "request %u: our cookie came through", c->r->id);
        }
    }
}

static void conn_health(struct app_conn *c)
{
    c->act = ACT_OK;
    c->r = NULL;
    c->close_after = true;
    c->state = AC_ANSWER;
    if (c->fake->since_ns + 100 * SW_NS_PER_MS > now_ns(c->w) && c->w->plan.boot_trouble) {
        pump_printf(&c->out,
                    "HTTP/1.1 503 Not yet\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    } else {
        pump_printf(&c->out, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    }
    conn_sent_some(c);
}

/* In a quiet world even what failed for ever comes to an end, where it may be tried again. */
static enum act act_of(const struct world *w, const struct req *r, enum act act)
{
    bool again = r->claim != NULL && (routes_info[r->route].retries || r->fail_word == 'r');

    return w->quiet && again && !act_is_plain(act) ? ACT_OK : act;
}

static void alarm_begin(struct app_conn *c, const struct sw_head *h)
{
    const struct sw_field *alarm = sw_head_find_name(h, SW_S("Stateway-Alarm"));
    const struct sw_field *state = sw_head_find_name(h, SW_S("Stateway-State"));
    const struct sw_field *key = sw_head_find_name(h, SW_S("Stateway-Key"));
    struct world *w = c->w;
    char text[32];

    if (alarm == NULL || state == NULL || key == NULL || h->method != SW_METHOD_POST ||
        !state_parse(state->value, false, &c->list)) {
        broken(w, "an alarm without state, or no alarm");
    }
    c->alarm = true;
    c->act = ACT_ADD;
    c->r = alarm_delivered(w, alarm->value, &c->list, c->fake->ever_troubled);
    (void)snprintf(text, sizeof(text), "/alarm/%s", routes_info[c->r->route].name);
    if (!sw_slice_eq(h->path, sw_slice_cstr(text))) {
        broken(w, "the alarm of request %u comes to %.*s", c->r->number, SW_SARG(h->path));
    }
    (void)snprintf(text, sizeof(text), "bell:r%u", c->r->room);
    if (c->r->route == ROUTE_BELL && !sw_slice_eq(key->value, sw_slice_cstr(text))) {
        broken(w, "the alarm of request %u comes with the key %.*s", c->r->number,
               SW_SARG(key->value));
    }
}

static void request_begin(struct app_conn *c, const struct sw_head *h)
{
    struct world *w = c->w;
    uint32_t id;

    if (!query_u32(h->query, "id", &id) || (c->r = req_of(w, id)) == NULL ||
        !act_parse(query_text(h->query, "do"), &c->act)) {
        broken(w, "an app got a request nobody sent: %.*s", SW_SARG(h->target));
    }
    if (c->r->method != h->method || c->r->number != id) {
        broken(w, "request %u: another method arrived", id);
    }
    c->act = act_of(w, c->r, c->act);
    c->r->begun++;
    if (c->r->claim != NULL) {
        claim_begun(w, c->r);
    }
}

static void conn_begin(struct app_conn *c, const struct sw_head *h)
{
    const struct sw_field *agent;

    c->close_after = false;
    c->alarm = false;
    c->stamp = 0;
    c->answered = false;
    c->body_got = 0;
    c->list.n = 0;
    c->state_present = false;
    c->keep_alive = h->keep_alive;
    c->head_request = h->method == SW_METHOD_HEAD;
    c->upgrade = h->upgrade.len > 0;
    agent = sw_head_find_name(h, SW_S("User-Agent"));
    if (agent != NULL && sw_slice_eq(agent->value, SW_S("stateway-health"))) {
        conn_health(c);
        return;
    }
    if (sw_slice_starts(h->path, SW_S("/alarm/"))) {
        alarm_begin(c, h);
    } else {
        request_begin(c, h);
    }
    check_forwarded(c, h);
    sw_body_init(&c->body, h, UINT64_MAX, false, NULL);
    c->state = AC_BODY;
    if (h->expect_continue && c->act != ACT_EARLY) {
        pump_printf(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        pump_run(&c->out);
    }
    if (c->act == ACT_EARLY) {
        c->answered = true;
        conn_executes(c);
        if (chance(c->w, 50)) {
            c->close_after = true;
        }
        conn_execute(c);
    }
}

static bool conn_head(struct app_conn *c)
{
    static const struct sw_h1_limits limits = {64 * 1024, 16 * 1024};
    struct sw_field fields[APP_FIELDS];
    struct sw_head h = {.fields = fields, .field_max = APP_FIELDS};
    struct sw_parsed p = sw_h1_request(sw_slice_of(c->in.ptr, c->in.len), &c->scanned, &limits, &h);

    if (p.step == SW_STEP_MORE) {
        return false;
    }
    if (p.step == SW_STEP_FAIL) {
        broken(c->w, "an app got a malformed head (%s): %.*s", sw_err_name(p.err),
               (int)SW_MIN(c->in.len, 300u), c->in.ptr);
    }
    c->scanned = 0;
    conn_begin(c, &h);
    if (c->state != AC_FREE) {
        bytes_drop(&c->in, p.consumed);
    }
    return c->state == AC_BODY;
}

static bool conn_body(struct app_conn *c)
{
    struct sw_slice in = sw_slice_head(sw_slice_of(c->in.ptr, c->in.len), 65536);
    struct sw_body_fed fed = sw_body_feed(&c->body, in);
    size_t wrong;

    if (fed.step == SW_STEP_FAIL) {
        broken(c->w, "request %u: an app got a broken body (%s)", c->r->id, sw_err_name(fed.err));
    }
    wrong = body_differs(c->r->id, false, c->body_got, fed.data.ptr, fed.data.len);
    if (wrong < fed.data.len) {
        broken(c->w, "request %u: byte %lu of its body is another one", c->r->id,
               c->body_got + wrong);
    }
    c->body_got += fed.data.len;
    if (fed.step != SW_STEP_DONE && fed.consumed == 0) {
        return false;
    }
    bytes_drop(&c->in, fed.consumed);
    if (fed.step == SW_STEP_DONE) {
        conn_request_whole(c);
        return false;
    }
    return true;
}

static void conn_tunnel(struct app_conn *c)
{
    pump_put(&c->out, c->in.ptr, c->in.len);
    c->tunnel_bytes += c->in.len;
    c->in.len = 0;
    pump_run(&c->out);
    if (c->eof && pump_done(&c->out)) {
        conn_linger(c);
    }
}

static void conn_run(struct app_conn *c)
{
    bool more = true;

    if (c->state == AC_FREE || c->fake->state == FAKE_FROZEN) {
        return;
    }
    while (more) {
        switch (c->state) {
        case AC_HEAD:
            more = c->in.len > 0 && conn_head(c);
            break;
        case AC_BODY:
            more = conn_body(c);
            break;
        case AC_TUNNEL:
            conn_tunnel(c);
            return;
        case AC_WAIT:
        case AC_ANSWER:
            if (c->in.len > 0 && c->r != NULL) {
                broken(c->w, "an app got more before it had answered request %u", c->r->id);
            }
            return;
        case AC_ENDING:
            c->in.len = 0;
            return;
        case AC_FREE:
            return;
        }
    }
    if (c->eof && (c->state == AC_HEAD || c->state == AC_BODY)) {
        conn_close(c);
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

static void on_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct app_conn *c = arg;

    (void)s;
    (void)buf;
    bytes_add(&c->in, bytes);
    conn_run(c);
}

static void on_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct app_conn *c = arg;

    (void)s;
    if (err != SW_E_CLOSED) {
        conn_close(c);
        return;
    }
    c->eof = true;
    if (c->state == AC_ENDING) {
        conn_close(c);
        return;
    }
    conn_run(c);
}

static void on_sent(struct sw_stream *s, void *arg)
{
    struct app_conn *c = arg;

    (void)s;
    if (c->fake->state != FAKE_FROZEN) {
        conn_sent_some(c);
        if (c->state == AC_TUNNEL) {
            conn_tunnel(c);
        }
    }
}

static const struct sw_stream_events app_events = {NULL, on_recv, on_end, on_sent};

static void on_accept(struct sw_stream *s, void *arg)
{
    struct fake *f = arg;
    struct app_conn *list = conns(f->w);

    for (unsigned i = 0; i < APP_CONNS_MAX; i++) {
        struct app_conn *c = &list[i];

        if (c->state == AC_FREE) {
            struct bytes in = c->in;

            if (c->w == NULL) {
                pump_init(&c->out, f->w, f->w->apps_loop);
                sw_timer_init(&c->timer, conn_slow_over, c);
            }
            in.len = 0;
            c->w = f->w;
            c->fake = f;
            c->state = AC_HEAD;
            c->s = s;
            c->in = in;
            c->out.s = s;
            c->scanned = 0;
            c->eof = false;
            c->r = NULL;
            sw_stream_attach(s, &app_events, c);
            sw_stream_read_start(s);
            return;
        }
    }
    broken(f->w, "the gateway holds more than %u connections to apps", APP_CONNS_MAX);
}

/* ---- lives ----------------------------------------------------------------------------------- */

void app_listen(struct fake *f)
{
    struct world *w = f->w;

    SW_ASSERT(f->fd < 0);
    if (sw_sim_listen(w->sim, &f->addr, 64, &f->fd) != SW_OK ||
        sw_listener_open(w->apps_loop, f->fd, on_accept, f, &f->listener) != SW_OK) {
        broken(w, "no place for an app's socket");
    }
}

void app_vanish(struct fake *f)
{
    struct app_conn *list = conns(f->w);

    for (unsigned i = 0; i < APP_CONNS_MAX; i++) {
        if (list[i].state != AC_FREE && list[i].fake == f) {
            conn_close(&list[i]);
        }
    }
    if (f->listener != NULL) {
        sw_listener_close(sw_take(&f->listener));
    }
    if (f->fd >= 0) {
        sw_sim_unlisten(f->w->sim, f->fd);
        f->fd = -1;
    }
}

void app_freeze(struct fake *f, bool on)
{
    struct app_conn *list = conns(f->w);

    f->state = on ? FAKE_FROZEN : FAKE_UP;
    if (on) {
        sw_listener_close(sw_take(&f->listener)); /* the backlog goes on */
    } else if (sw_listener_open(f->w->apps_loop, f->fd, on_accept, f, &f->listener) != SW_OK) {
        broken(f->w, "an app cannot listen again");
    }
    for (unsigned i = 0; i < APP_CONNS_MAX; i++) {
        struct app_conn *c = &list[i];

        if (c->state == AC_FREE || c->fake != f) {
            continue;
        }
        if (on) {
            sw_stream_read_stop(c->s);
        } else {
            sw_stream_read_start(c->s);
            conn_run(c);
            if (c->state != AC_FREE) {
                conn_sent_some(c);
            }
        }
    }
}

void apps_fini(struct world *w)
{
    struct app_conn *list = conns(w);

    for (unsigned i = 0; i < APP_CONNS_MAX; i++) {
        if (list[i].w != NULL) {
            conn_close(&list[i]);
            pump_fini(&list[i].out);
            bytes_fini(&list[i].in);
        }
    }
    free(w->app_conns);
    w->app_conns = NULL;
}
