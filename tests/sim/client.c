/* tests/sim/client.c - fake clients: browsers with a cookie jar, on the simulated network.
 *
 * A client asks, reads, checks, thinks, and asks again; some pipeline, trickle, half-close, read
 * slowly, or leave. One client more (the examiner) asks at the end for every state.
 */
#include "world.h"

#define CLIENT_FIELDS 128u
#define PATIENCE_NS   (40 * SW_NS_PER_S) /* longer than any exchange may take in this world */

enum client_state { CL_THINKING, CL_CONNECTING, CL_BUSY, CL_FINISHED };

struct client {
    struct world *w;
    uint32_t index;
    bool examiner;
    enum client_state state;
    struct visitor *v;
    struct sw_stream *s;
    struct pump out;
    struct bytes in;
    uint32_t left; /* requests to send */
    struct req *flight[PIPELINE_MAX];
    uint32_t flight_count;
    uint32_t again; /* number of the request that it sends again; 0: none */
    uint32_t sent_on_conn;
    bool last_on_conn; /* after this the client closes */
    bool eof;
    bool half_closed;
    bool one_at_a_time; /* of this connection */
    /* the answer being read */
    size_t scanned;
    bool in_body, continue_held;
    struct sw_body body;
    uint64_t body_got;
    bool from_app, keep_alive, state_present, has_list;
    struct list list;
    char cookie[64];
    bool cookie_set, pin_set;
    char pin[128];
    uint32_t fake, stamp;
    bool replayed;
    bool tunnel;
    uint64_t tunnel_sent, tunnel_got;
    bool tunnel_greeted;
    struct sw_timer think, patience, leave, slow;
    /* the examiner's */
    struct cookie *ask_cookie;
    struct session *ask_session;
    const struct req *ask_again; /* NULL: it asks for a state */
    uint32_t ask_room, ask_tries;
    unsigned ask_status;
    bool asking;
};

static struct client *list_of(const struct world *w)
{
    return w->clients;
}

/* How often the examiner asks: exchanges without clients may still run, and hold a key. */
static uint32_t ask_tries_max(const struct client *c)
{
    return c->ask_again != NULL ? 40 : 8;
}

static void client_next(struct client *c);
static void client_answer_whole(struct client *c);

/* ---- ends ------------------------------------------------------------------------------------ */

static void client_hang_up(struct client *c, bool polite)
{
    sw_timer_stop(c->w->outside, &c->patience);
    sw_timer_stop(c->w->outside, &c->leave);
    sw_timer_stop(c->w->outside, &c->slow);
    if (c->s != NULL) {
        if (polite) {
            sw_stream_linger(sw_take(&c->s), now_ns(c->w) + SW_NS_PER_S);
        } else {
            sw_stream_close(sw_take(&c->s));
        }
    }
    pump_reset(&c->out);
    c->in.len = 0;
    c->scanned = 0;
    c->in_body = c->eof = c->half_closed = c->tunnel = c->last_on_conn = false;
    c->continue_held = false;
    c->sent_on_conn = 0;
}

static void client_think(struct client *c)
{
    c->state = CL_THINKING;
    if (c->examiner && !c->asking) {
        c->state = CL_FINISHED;
        return;
    }
    sw_timer_start(c->w->outside, &c->think,
                   now_ns(c->w) + (c->examiner ? 500 : pick(c->w, 60)) * SW_NS_PER_MS);
}

/* This one will be sent again, perhaps. */
static void client_may_again(struct client *c, const struct req *r)
{
    if (!c->examiner && claim_again(c->w, r)) {
        c->again = r->number;
    }
}

/* All that is in flight got no answer. */
static void client_over(struct client *c, enum outcome how, bool polite)
{
    for (uint32_t i = 0; i < c->flight_count; i++) {
        oracle_unanswered(c->w, c->flight[i], how);
        client_may_again(c, c->flight[i]);
    }
    if (c->examiner && c->flight_count > 0 && c->ask_tries >= ask_tries_max(c)) {
        broken(c->w, "in the quiet end request %u got no answer", c->flight[0]->id);
    }
    c->flight_count = 0;
    client_hang_up(c, polite);
    client_think(c);
}

/* ---- what is asked --------------------------------------------------------------------------- */

static enum act choose_alarm_act(struct world *w, enum route_id route)
{
    uint64_t at = pick(w, 20);

    if (at < 2 && !routes_info[route].by_path) {
        return at == 0 ? ACT_DEL : ACT_RENEW;
    }
    return at < 9 ? ACT_SET : at < 13 ? ACT_CANCEL : at < 16 ? ACT_ADD : ACT_OK;
}

static enum act choose_act(struct client *c, enum route_id route)
{
    static const enum act bad[] = {ACT_CLOSE, ACT_MIDWAY,  ACT_GARBAGE, ACT_BADJSON,
                                   ACT_TWO,   ACT_BIGHEAD, ACT_EXTRA,   ACT_EARLY,
                                   ACT_FAIL,  ACT_SLOW,    ACT_SLOW,    ACT_NEVER};
    struct world *w = c->w;

    if (c->examiner) {
        return ACT_OK;
    }
    if (routes_info[route].alarms && !(w->plan.bad_apps && chance(w, 10))) {
        return choose_alarm_act(w, route);
    }
    if (route == ROUTE_AGAIN && w->plan.bad_apps && chance(w, 30)) {
        static const enum act failing[] = {ACT_CLOSE, ACT_NEVER, ACT_FAIL, ACT_GARBAGE,
                                           ACT_BADJSON};

        return failing[pick(w, SW_COUNTOF(failing))];
    }
    if (route != ROUTE_AGAIN && w->plan.bad_apps && chance(w, 25)) {
        return bad[pick(w, SW_COUNTOF(bad))];
    }
    if (!routes_info[route].session) {
        static const enum act plain[] = {ACT_OK,    ACT_OK,      ACT_INTERIM,
                                         ACT_EMPTY, ACT_UPGRADE, ACT_SLOW};

        return plain[pick(w, SW_COUNTOF(plain))];
    }
    switch (pick(w, w->plan.logins ? 6 : 20)) {
    case 0:
        return routes_info[route].by_path ? ACT_ADD : ACT_DEL;
    case 1:
        return routes_info[route].by_path ? ACT_ADD : ACT_RENEW;
    case 2:
    case 3:
    case 4:
        return ACT_OK;
    default:
        return ACT_ADD;
    }
}

static enum sw_method choose_method(struct client *c, enum route_id route, enum act act)
{
    struct world *w = c->w;

    if (c->examiner) { /* POST: the key must be free, too */
        return c->ask_tries % 2 == 0 || routes_info[route].keys == KEYS_REQUIRED ? SW_METHOD_GET
                                                                                 : SW_METHOD_POST;
    }
    if (act == ACT_UPGRADE) {
        return SW_METHOD_GET;
    }
    switch (act) {
    case ACT_ADD:
    case ACT_DEL:
    case ACT_RENEW:
    case ACT_SET:
    case ACT_CANCEL:
        return chance(w, w->plan.logins ? 25 : 5) ? SW_METHOD_GET
               : chance(w, 10)                    ? SW_METHOD_PUT
                                                  : SW_METHOD_POST;
    default:
        switch (pick(w, 8)) {
        case 0:
        case 1:
        case 2:
            return SW_METHOD_POST;
        case 3:
            return SW_METHOD_HEAD;
        case 4:
            return SW_METHOD_PUT;
        case 5:
            return SW_METHOD_DELETE;
        default:
            return SW_METHOD_GET;
        }
    }
}

static const char *method_text(enum sw_method m)
{
    switch (m) {
    case SW_METHOD_GET:
        return "GET";
    case SW_METHOD_HEAD:
        return "HEAD";
    case SW_METHOD_PUT:
        return "PUT";
    case SW_METHOD_DELETE:
        return "DELETE";
    default:
        return "POST";
    }
}

static uint32_t choose_bytes(struct world *w)
{
    switch (pick(w, 12)) {
    case 0:
    case 1:
        return 0;
    case 2:
        return 1;
    case 3:
        return 17000 + (uint32_t)pick(w, 30000);
    case 4:
        return w->plan.faults.pipe_bytes_max > 0 || !chance(w, 25)
                   ? 100
                   : 100000 + (uint32_t)pick(w, 90000);
    case 5:
    case 6:
        return 4000 + (uint32_t)pick(w, 9000);
    default:
        return (uint32_t)pick(w, 900);
    }
}

static enum route_id choose_route(struct world *w)
{
    static const enum route_id keyed[] = {ROUTE_ONCE, ROUTE_ONCE, ROUTE_AGAIN, ROUTE_PAY};
    static const enum route_id alarms[] = {ROUTE_WAKE, ROUTE_BELL};
    uint64_t at;

    if (w->plan.claims && chance(w, 50)) {
        return keyed[pick(w, SW_COUNTOF(keyed))];
    }
    if (w->plan.alarms && chance(w, 40)) {
        return alarms[pick(w, SW_COUNTOF(alarms))];
    }
    at = pick(w, 32);
    return at < 12 ? ROUTE_COUNT : at < 18 ? ROUTE_ROOM : (enum route_id)(at % ROUTE_ID_COUNT);
}

/* One more try of that request: the same in all that goes over the wire. */
static struct req *choose_again(struct client *c, const struct req *origin)
{
    struct req *r = req_new(c->w);

    r->client = c->index;
    r->number = origin->number;
    r->claim = origin->claim;
    r->misuse = origin->misuse;
    r->route = origin->route;
    r->act = origin->act;
    r->method = origin->method;
    r->http10 = origin->http10;
    r->framing = origin->framing;
    r->fail_word = origin->fail_word;
    r->room = origin->room;
    r->body_bytes = origin->body_bytes;
    r->answer_bytes = origin->answer_bytes;
    r->chunked = origin->chunked;
    r->session = origin->session;
    return r;
}

/* Once its answer is known, the same key and number come with something else in the request. */
static void twist(struct world *w, struct req *r)
{
    if (r->claim->done && r->claim->number == r->number && chance(w, 15)) {
        r->twist = r->body_bytes > 16 && chance(w, 50) ? 'b' : 'p';
    }
}

/* Somebody else's request that is repeated here, at the same time perhaps; 0: none. */
static uint32_t choose_duplicate(struct world *w)
{
    const struct claim *k;

    if (w->claim_count == 0 || !chance(w, 15)) {
        return 0;
    }
    k = &w->claims_list[w->claim_count - 1 - pick(w, SW_MIN(w->claim_count, 6u))];
    return k->tries < TRIES_MAX ? k->main : 0;
}

static struct claim *choose_misused(struct world *w, enum route_id route)
{
    struct claim *k;

    if (w->claim_count == 0 || !chance(w, 8)) {
        return NULL;
    }
    k = &w->claims_list[pick(w, w->claim_count)];
    return k->route == route ? k : NULL;
}

/* The key of a new request. */
static void choose_key(struct client *c, struct req *r)
{
    const struct route_info *info = &routes_info[r->route];
    struct world *w = c->w;

    if (info->keys == KEYS_NO || c->examiner || r->method != SW_METHOD_POST) {
        return;
    }
    if (chance(w, 4)) {
        r->bad_key = info->who && chance(w, 50) ? 'w' : "sd"[pick(w, 2)];
        r->refused = r->bad_key != 's' || info->keys == KEYS_REQUIRED;
        return;
    }
    r->claim = choose_misused(w, r->route);
    if (r->claim != NULL) {
        r->misuse = true;
        r->claim->misused++;
        return;
    }
    r->claim = claim_new(w, r->route, info->who ? (uint32_t)pick(w, WHOS_MAX) : 0);
    if (r->claim == NULL) { /* as many as there may be: without one */
        r->bad_key = 's';
        r->refused = info->keys == KEYS_REQUIRED;
        return;
    }
    r->claim->main = r->number;
}

static struct req *choose(struct client *c)
{
    struct world *w = c->w;
    struct req *r;
    uint32_t again;

    if (c->examiner && c->ask_again != NULL) {
        return choose_again(c, c->ask_again);
    }
    again = c->again != 0 ? c->again : c->examiner ? 0 : choose_duplicate(w);
    c->again = 0;
    if (again != 0) {
        r = choose_again(c, req_of(w, again));
        twist(w, r);
        return r;
    }
    r = req_new(w);
    r->client = c->index;
    r->route = c->examiner ? c->ask_session->route : choose_route(w);
    r->act = choose_act(c, r->route);
    r->method = choose_method(c, r->route, r->act);
    if (routes_info[r->route].keys != KEYS_NO && !c->examiner) {
        r->act = r->act == ACT_UPGRADE ? ACT_OK : r->act;
        r->method = r->act == ACT_OK && chance(w, 50) ? SW_METHOD_GET : SW_METHOD_POST;
    }
    if (r->act == ACT_SET || r->act == ACT_CANCEL) {
        r->alarm = (uint32_t)pick(w, ALARM_IDS);
        r->alarm_ms = 50 + (uint32_t)pick(w, chance(w, 60) ? 500 : 4950);
        r->doomed = r->act == ACT_SET && w->plan.doomed && w->doomed == 0;
        w->doomed = r->doomed ? r->number : w->doomed;
    }
    if (r->act == ACT_FAIL && routes_info[r->route].keys != KEYS_NO) {
        r->fail_word = "\0\0sr"[pick(w, 4)];
    }
    r->idempotent = r->method != SW_METHOD_POST;
    r->upgrade = r->act == ACT_UPGRADE;
    r->http10 = !r->upgrade && !c->examiner && chance(w, 4);
    r->framing = "lcx"[pick(w, r->act == ACT_MIDWAY ? 2 : 3)];
    r->room = c->examiner ? c->ask_room : (uint32_t)pick(w, ROOMS);
    r->answer_bytes = c->examiner ? 10 : choose_bytes(w);
    if (r->method == SW_METHOD_POST || r->method == SW_METHOD_PUT) {
        r->body_bytes = c->examiner ? 0 : choose_bytes(w);
        r->chunked = !r->http10 && chance(w, 40);
    }
    r->cookie = c->examiner ? c->ask_cookie : c->v->jar[r->route];
    r->session = routes_info[r->route].by_path ? w->rooms[r->route][r->room]
                 : r->cookie != NULL           ? r->cookie->session
                                               : NULL;
    choose_key(c, r);
    if (r->claim != NULL && chance(w, 85)) { /* longer ones must be refused */
        r->body_bytes %= 1 + SW_MIN(w->config->limits.replay_buffer_bytes, 900u);
    }
    return r;
}

static void put_cookies(struct client *c, const struct req *r)
{
    struct pump *p = &c->out;
    bool first = true;

    for (unsigned i = 0; i < ROUTE_ID_COUNT; i++) {
        const struct cookie *k = i == (unsigned)r->route ? r->cookie : c->v->jar[i];

        if (k != NULL && routes_info[i].cookie != NULL) {
            pump_printf(p, "%s%s=%s", first ? "Cookie: " : "; ", routes_info[i].cookie, k->value);
            first = false;
        }
    }
    if (c->v->pin[0] != '\0') {
        pump_printf(p, "%sp1=%s", first ? "Cookie: " : "; ", c->v->pin);
        first = false;
    }
    if (!first) {
        pump_printf(p, "; own=mine\r\n");
    }
}

static void put_key(struct client *c, const struct req *r)
{
    struct pump *p = &c->out;
    bool who = routes_info[r->route].who;

    if (r->claim == NULL && r->bad_key == 0) {
        return;
    }
    if (who && r->bad_key != 'w') {
        pump_printf(p, "X-Who: u%u\r\n", r->claim == NULL ? 0 : r->claim->who);
    }
    if (r->bad_key == 'd') {
        pump_printf(p, "Idempotency-Key: one\r\nIdempotency-Key: two\r\n");
    } else if (r->bad_key == 'w') {
        pump_printf(p, "Idempotency-Key: \"of nobody\"\r\n");
    } else if (r->claim != NULL) { /* in quotes or not, it is the same key */
        pump_printf(p,
                    chance(c->w, 50) ? "Idempotency-Key: \"k%u\"\r\n" : "idempotency-key: k%u\r\n",
                    r->claim->serial);
    }
}

static void put_request(struct client *c, const struct req *r)
{
    struct world *w = c->w;
    struct pump *p = &c->out;
    bool expect = !r->http10 && r->body_bytes > 0 && c->flight_count == 1 && chance(w, 8);
    char last = r->twist == 'p' ? 'y' : 'x';

    if (routes_info[r->route].by_path) {
        pump_printf(p, "%s /%s/r%u/%c", method_text(r->method), routes_info[r->route].name, r->room,
                    last);
    } else {
        pump_printf(p, "%s /%s/%c", method_text(r->method), routes_info[r->route].name, last);
    }
    pump_printf(p, "?id=%u&do=%s HTTP/1.%d\r\n", r->number, act_name(r->act), r->http10 ? 0 : 1);
    pump_printf(p, "Host: sim.example\r\n");
    put_cookies(c, r);
    put_key(c, r);
    if (chance(w, 15)) {
        pump_printf(p, "Stateway-Spoof: 1\r\nstateway_state: {\"ids\":[666]}\r\n"
                       "Connection: x-hop, Stateway-State\r\nX-Hop: 1\r\n");
    }
    if (r->upgrade) {
        pump_printf(p, "Connection: Upgrade\r\nUpgrade: sim\r\n");
    }
    if (c->last_on_conn && !r->http10) {
        pump_printf(p, "Connection: close\r\n");
    }
    if (r->method == SW_METHOD_POST || r->method == SW_METHOD_PUT) {
        if (r->chunked) {
            pump_printf(p, "Transfer-Encoding: chunked\r\n");
        } else {
            pump_printf(p, "Content-Length: %u\r\n", r->body_bytes);
        }
    }
    if (expect) {
        pump_printf(p, "Expect: 100-continue\r\n");
    }
    pump_printf(p, "\r\n");
    if (expect) {
        p->hold_at = p->len;
        c->continue_held = true;
    }
    for (uint32_t at = 0; at < r->body_bytes;) {
        char text[4096];
        uint32_t n = (uint32_t)SW_MIN(r->body_bytes - at, sizeof(text));

        if (r->chunked) {
            n = 1 + (uint32_t)pick(w, n);
            pump_printf(p, "%X%s\r\n", n, chance(w, 5) ? ";x" : "");
        }
        body_fill(r->number + (r->twist == 'b' ? 1 : 0), false, at, text, n);
        pump_put(p, text, n);
        if (r->chunked) {
            pump_printf(p, "\r\n");
        }
        at += n;
    }
    if (r->chunked) {
        pump_printf(p, "0\r\n%s\r\n", chance(w, 20) ? "X-Trail: er\r\n" : "");
    }
}

/* What must never reach an app. */
static void put_bad_request(struct client *c)
{
    static const char *const bad[] = {
        "GET /plain/x HTTP/1.1\r\n\r\n",
        "GET /plain/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /plain/x HTTP/1.1\nHost: a\n\n",
        "GET /plain/x  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /plain/x HTTP/2.0\r\nHost: a\r\n\r\n",
        ("POST /plain/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: "
         "chunked\r\n\r\n0\r\n\r\n"),
        "POST /plain/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabc",
        "POST /plain/x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\nabc",
        "POST /plain/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "GET /plain/x HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET /plain/x HTTP/1.1\r\nHost: a\r\nX-Sl", /* and no more comes: 408 */
        "GET",
    };
    struct req *r = req_new(c->w);
    struct pump *p = &c->out;
    uint64_t at = pick(c->w, SW_COUNTOF(bad) + 2);

    r->client = c->index;
    r->route = ROUTE_PLAIN;
    r->act = ACT_OK;
    r->refused = true;
    r->framing = 'l';
    r->method = SW_METHOD_GET;
    c->flight[c->flight_count++] = r;
    oracle_sent(c->w, r);
    c->left--;
    if (at < SW_COUNTOF(bad)) {
        pump_printf(p, "%s", bad[at]);
    } else if (at == SW_COUNTOF(bad)) {
        pump_printf(p, "GET /plain/x HTTP/1.1\r\nHost: a\r\n");
        for (unsigned i = 0; i < 200; i++) {
            pump_printf(p, "X-Many-%u: %u\r\n", i, i);
        }
        pump_printf(p, "\r\n");
    } else {
        pump_printf(p, "GET /plain/x HTTP/1.1\r\nHost: a\r\nX-Big: ");
        for (unsigned i = 0; i < 100; i++) {
            pump_printf(p, "%0500u", i);
        }
        pump_printf(p, "\r\n\r\n");
    }
}

static void client_send(struct client *c)
{
    struct world *w = c->w;
    uint32_t count = 1;

    SW_ASSERT(c->flight_count == 0);
    if (pump_done(&c->out)) {
        c->out.len = c->out.off = 0;
        c->out.hold_at = SIZE_MAX;
    }
    c->last_on_conn = chance(w, 10);
    if (w->plan.pipelining && !c->examiner && chance(w, 40)) {
        count = 1 + (uint32_t)pick(w, PIPELINE_MAX);
    }
    c->out.trickle = w->plan.aborts && !c->examiner && chance(w, 15);
    if (w->plan.bad_clients && !c->examiner && c->left > 0 && chance(w, 25)) {
        put_bad_request(c);
        count = 0;
    }
    while (c->flight_count < count && w->req_count < REQS_MAX) {
        struct req *r = choose(c);

        c->flight[c->flight_count++] = r;
        oracle_sent(w, r);
        put_request(c, r);
        c->left -= c->left > 0 ? 1 : 0;
        if (r->http10 || r->upgrade || c->continue_held) {
            break;
        }
    }
    c->sent_on_conn += c->flight_count;
    c->state = CL_BUSY;
    sw_timer_start(w->outside, &c->patience, now_ns(w) + PATIENCE_NS);
    if (w->plan.aborts && !c->examiner) {
        if (chance(w, 8)) {
            sw_timer_start(w->outside, &c->leave, now_ns(w) + pick(w, 100 * SW_NS_PER_MS));
        }
        if (chance(w, 10)) {
            sw_stream_read_stop(c->s);
            sw_timer_start(w->outside, &c->slow, now_ns(w) + pick(w, 1500 * SW_NS_PER_MS));
        }
        if (chance(w, 8) && !c->flight[c->flight_count - 1]->upgrade) {
            c->half_closed = true;
        }
    }
    pump_run(&c->out); /* a half-close follows in on_sent */
}

/* ---- answers --------------------------------------------------------------------------------- */

static void take_cookie(struct client *c, const struct req *r, struct sw_slice value)
{
    struct sw_slice pair, name, rest;

    sw_slice_cut(value, ';', &pair, &rest);
    sw_slice_cut(pair, '=', &name, &pair);
    if (sw_slice_eq(name, SW_S("own"))) {
        return;
    }
    if (routes_info[r->route].cookie == NULL ||
        !sw_slice_eq(name, sw_slice_cstr(routes_info[r->route].cookie))) {
        broken(c->w, "request %u: a cookie of another route: %.*s", r->id, SW_SARG(name));
    }
    if (r->route == ROUTE_STICKY) {
        SW_ASSERT(pair.len < sizeof(c->pin));
        memcpy(c->pin, pair.ptr, pair.len);
        c->pin[pair.len] = '\0';
        c->pin_set = true;
        return;
    }
    SW_ASSERT(pair.len < sizeof(c->cookie));
    memcpy(c->cookie, pair.ptr, pair.len);
    c->cookie[pair.len] = '\0';
    c->cookie_set = true;
}

static uint32_t field_u32(const struct sw_field *f)
{
    uint64_t value = 0;

    return sw_slice_u64(f->value, &value) && value <= UINT32_MAX ? (uint32_t)value : 0;
}

static void take_head(struct client *c, const struct sw_head *h)
{
    struct world *w = c->w;
    struct req *r = c->flight[0];
    const struct sw_field *f = sw_head_find_name(h, SW_S("X-Sim"));
    uint64_t id = 0;

    r->status = h->status;
    c->keep_alive = h->keep_alive;
    c->from_app = f != NULL;
    c->cookie_set = c->pin_set = c->has_list = c->state_present = false;
    c->fake = c->stamp = 0;
    c->replayed = false;
    c->list.n = 0;
    c->body_got = 0;
    if (c->from_app && (!sw_slice_u64(f->value, &id) || id != r->number)) {
        broken(w, "request %u got the answer to %.*s", r->id, SW_SARG(f->value));
    }
    f = sw_head_find_name(h, SW_S("Stateway-Error"));
    r->error[0] = '\0';
    if (f != NULL) {
        (void)snprintf(r->error, sizeof(r->error), "%.*s", SW_SARG(f->value));
    }
    if (c->from_app == (f != NULL)) {
        broken(w, "request %u: status %u, of nobody or of two", r->id, h->status);
    }
    for (uint32_t i = 0; i < h->field_count; i++) {
        const struct sw_field *field = &h->fields[i];

        if (field->id == SW_FIELD_SET_COOKIE) {
            take_cookie(c, r, field->value);
        } else if (sw_slice_eq_nocase(field->name, SW_S("X-List"))) {
            c->has_list = list_parse(field->value, &c->list);
        } else if (sw_slice_eq_nocase(field->name, SW_S("X-State"))) {
            c->state_present = sw_slice_eq(field->value, SW_S("1"));
        } else if (sw_slice_eq_nocase(field->name, SW_S("X-Fake"))) {
            c->fake = field_u32(field);
        } else if (sw_slice_eq_nocase(field->name, SW_S("X-Stamp"))) {
            c->stamp = field_u32(field);
        } else if (sw_slice_eq_nocase(field->name, SW_S("Idempotent-Replayed"))) {
            c->replayed = sw_slice_eq(field->value, SW_S("true"));
        } else if (sw_slice_eq_nocase(field->name, SW_S("X-Hop")) ||
                   sw_slice_eq_nocase(field->name, SW_S("Stateway-Set")) ||
                   sw_slice_eq_nocase(field->name, SW_S("Stateway-Patch")) ||
                   sw_slice_eq_nocase(field->name, SW_S("Stateway-Alarm")) ||
                   sw_slice_eq_nocase(field->name, SW_S("Stateway-Idempotency")) ||
                   sw_slice_eq_nocase(field->name, SW_S("Stateway-Delete"))) {
            broken(w, "request %u: %.*s came through", r->id, SW_SARG(field->name));
        }
    }
}

static bool app_greets(const struct sw_head *h)
{
    const struct sw_field *f = sw_head_find_name(h, SW_S("X-Hello"));

    return f != NULL && sw_slice_eq(f->value, SW_S("1"));
}

static bool client_head(struct client *c)
{
    static const struct sw_h1_limits limits = {64 * 1024, UINT32_MAX};
    struct sw_field fields[CLIENT_FIELDS];
    struct sw_head h = {.fields = fields, .field_max = CLIENT_FIELDS};
    struct world *w = c->w;
    struct sw_parsed p;
    char text[4096];

    if (c->flight_count == 0) {
        broken(w, "client %u got bytes it did not ask for: %.*s", c->index,
               (int)SW_MIN(c->in.len, 200u), c->in.ptr);
    }
    p = sw_h1_response(sw_slice_of(c->in.ptr, c->in.len), &c->scanned, &limits,
                       c->flight[0]->method, &h);
    if (p.step == SW_STEP_MORE) {
        return false;
    }
    if (p.step == SW_STEP_FAIL) {
        broken(w, "request %u: a malformed answer (%s): %.*s", c->flight[0]->id, sw_err_name(p.err),
               (int)SW_MIN(c->in.len, 300u), c->in.ptr);
    }
    c->scanned = 0;
    if (h.status == 101) {
        if (!c->flight[0]->upgrade) {
            broken(w, "request %u: 101 nobody asked for", c->flight[0]->id);
        }
        c->tunnel = true;
        c->tunnel_sent = 1 + c->flight[0]->answer_bytes;
        c->tunnel_got = 0;
        c->tunnel_greeted = !app_greets(&h);
        c->flight[0]->status = 101;
        bytes_drop(&c->in, p.consumed);
        for (uint64_t at = 0; at < c->tunnel_sent; at += sizeof(text)) {
            body_fill(c->flight[0]->id, true, at, text, sizeof(text));
            pump_put(&c->out, text, SW_MIN(sizeof(text), c->tunnel_sent - at));
        }
        pump_run(&c->out);
        return true;
    }
    if (h.status < 200) {
        if (c->flight[0]->http10) {
            broken(w, "request %u: an interim answer to a 1.0 client", c->flight[0]->id);
        }
        if (h.status == 100 && !c->continue_held) {
            broken(w, "request %u: a 100 nobody waits for", c->flight[0]->id);
        }
        if (h.status == 100) {
            c->out.hold_at = SIZE_MAX;
            c->continue_held = false;
            pump_run(&c->out);
        }
        bytes_drop(&c->in, p.consumed);
        return true;
    }
    take_head(c, &h);
    sw_body_init(&c->body, &h, UINT64_MAX, true, NULL);
    bytes_drop(&c->in, p.consumed);
    c->in_body = true;
    return true;
}

static bool client_body(struct client *c)
{
    struct req *r = c->flight[0];
    struct sw_slice in = sw_slice_head(sw_slice_of(c->in.ptr, c->in.len), 65536);
    struct sw_body_fed fed = sw_body_feed(&c->body, in);
    size_t wrong;
    if (fed.step == SW_STEP_FAIL) {
        broken(c->w, "request %u: the answer's body is malformed (%s)", r->id,
               sw_err_name(fed.err));
    }
    wrong = body_differs(c->stamp, true, c->body_got, fed.data.ptr, fed.data.len);
    if (c->from_app && wrong < fed.data.len) {
        broken(c->w, "request %u: byte %lu of the answer is another one", r->id,
               c->body_got + wrong);
    }
    c->body_got += fed.data.len;
    bytes_drop(&c->in, fed.consumed);
    if (fed.step == SW_STEP_DONE) {
        client_answer_whole(c);
        return c->s != NULL;
    }
    return fed.consumed > 0;
}

static void client_tunnel(struct client *c)
{
    static const struct sw_slice hello = SW_S(TUNNEL_HELLO);

    if (!c->tunnel_greeted) {
        if (c->in.len < hello.len) {
            return;
        }
        if (memcmp(c->in.ptr, hello.ptr, hello.len) != 0) {
            broken(c->w, "request %u: the tunnel lost what the app said first", c->flight[0]->id);
        }
        bytes_drop(&c->in, hello.len);
        c->tunnel_greeted = true;
    }
    if (c->tunnel_got + c->in.len > c->tunnel_sent ||
        body_differs(c->flight[0]->id, true, c->tunnel_got, c->in.ptr, c->in.len) < c->in.len) {
        broken(c->w, "request %u: the tunnel gives other bytes than it got", c->flight[0]->id);
    }
    c->tunnel_got += c->in.len;
    c->in.len = 0;
    if (c->tunnel_got == c->tunnel_sent) {
        struct req *r = c->flight[0];

        r->outcome = OUT_ANSWERED;
        r->done_ns = now_ns(c->w);
        c->w->answered++;
        c->flight_count = 0;
        client_hang_up(c, chance(c->w, 50));
        client_think(c);
    }
}

static void check_pin(struct client *c, struct req *r)
{
    struct world *w = c->w;

    if (r->route != ROUTE_STICKY || c->fake == 0) {
        return;
    }
    if (w->plan.calm && !w->plan.parallel && !w->plan.pipelining && c->v->pinned != 0 &&
        c->v->pinned != c->fake) {
        broken(w, "request %u: pinned to fake %u, answered by %u", r->id, c->v->pinned, c->fake);
    }
    if (c->pin_set) {
        memcpy(c->v->pin, c->pin, sizeof(c->pin));
        c->v->pinned = c->fake;
    }
}

/* One answer is complete. */
static void client_answer_whole(struct client *c)
{
    struct world *w = c->w;
    struct req *r = c->flight[0];
    struct sw_slice cookie = {NULL, 0}; /* Where only the end of the connection ends a body, a dying
                                         * app's cannot be told from a whole one (RFC 9112, 8). */
    bool by_close = r->framing == 'x' || (r->http10 && r->framing == 'c');

    c->in_body = false;
    if (c->from_app && r->act == ACT_MIDWAY && r->answer_bytes > 0 && !r->http10 &&
        r->method != SW_METHOD_HEAD) {
        broken(w, "request %u: the app broke off, and the client was told a whole answer", r->id);
    }
    if (c->from_app && r->status != 204 && r->status != 304 && r->method != SW_METHOD_HEAD &&
        c->body_got != r->answer_bytes && !by_close) {
        broken(w, "request %u: %lu bytes of %u in a whole answer", r->id, c->body_got,
               r->answer_bytes);
    }
    if (c->from_app && c->fake == 0) {
        broken(w, "request %u: an answer of an unknown app", r->id);
    }
    if (c->cookie_set) {
        cookie = sw_slice_cstr(c->cookie);
        cookie.ptr = c->cookie;
    }
    note(w, "client %u: request %u is answered %u %s", c->index, r->id, r->status, r->error);
    if (c->from_app) {
        check_pin(c, r);
        oracle_answered(w, r, c->examiner ? NULL : c->v,
                        &(struct answer){
                            .list = c->has_list ? &c->list : NULL,
                            .state_present = c->state_present,
                            .set_cookie = cookie,
                            .stamp = c->stamp,
                            .replayed = c->replayed,
                            .bytes = c->body_got,
                            .bytes_sure = !by_close && r->status != 204,
                        });
    } else {
        oracle_unanswered(w, r, OUT_OWN);
    }
    if (c->examiner) {
        bool over = c->ask_again != NULL ? claim_settled(r) : c->from_app;

        c->asking = !over && c->ask_tries < ask_tries_max(c);
        c->ask_status = over || c->ask_again == NULL ? r->status : 0;
    }
    client_may_again(c, r);
    c->flight_count--;
    memmove(&c->flight[0], &c->flight[1], c->flight_count * sizeof(c->flight[0]));
    if (!c->keep_alive || (c->flight_count == 0 && (c->last_on_conn || c->half_closed)) ||
        (c->flight_count == 0 && !pump_done(&c->out))) {
        client_over(c, OUT_CUT, chance(w, 50));
    } else if (c->flight_count == 0) {
        sw_timer_stop(w->outside, &c->patience);
        sw_timer_stop(w->outside, &c->leave);
        client_think(c);
    } else {
        sw_timer_start(w->outside, &c->patience, now_ns(w) + PATIENCE_NS);
    }
}

static void client_run(struct client *c)
{
    bool more = true;

    while (more && c->s != NULL) {
        if (c->tunnel) {
            client_tunnel(c);
            return;
        }
        if (c->in_body) {
            more = client_body(c);
        } else {
            more = c->in.len > 0 && client_head(c);
        }
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

/* Something moved: waits on. */
static void client_patience(struct client *c)
{
    if (c->state == CL_BUSY) {
        sw_timer_start(c->w->outside, &c->patience, now_ns(c->w) + PATIENCE_NS);
    }
}
static void on_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct client *c = arg;
    (void)s;
    (void)buf;
    bytes_add(&c->in, bytes);
    client_patience(c);
    client_run(c);
}

static void on_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct client *c = arg;

    (void)s;
    c->eof = true;
    if (err == SW_E_CLOSED && c->in_body && sw_body_end(&c->body) == SW_OK) {
        c->keep_alive = false;
        client_answer_whole(c);
        return;
    }
    note(c->w, "client %u: the connection ended (%s), %u in flight", c->index, sw_err_name(err),
         c->flight_count);
    if (c->w->plan.calm && c->flight_count > 0 && c->sent_on_conn == c->flight_count &&
        !c->in_body && !c->tunnel && !c->w->quiet) {
        broken(c->w, "request %u: closed without an answer in a calm world", c->flight[0]->id);
    }
    client_over(c, OUT_CUT, false);
}

static void on_sent(struct sw_stream *s, void *arg)
{
    struct client *c = arg;
    (void)s;
    client_patience(c);
    pump_run(&c->out);
    if (c->half_closed && pump_done(&c->out) && c->s != NULL && !c->eof) {
        sw_stream_shutdown(c->s);
        c->half_closed = false; /* once */
        c->last_on_conn = true;
    }
}

static void on_connected(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct client *c = arg;

    (void)s;
    if (err != SW_OK) {
        client_over(c, OUT_CUT, false);
        return;
    }
    sw_stream_read_start(c->s);
    client_send(c);
}

static const struct sw_stream_events client_events = {on_connected, on_recv, on_end, on_sent};

static void on_patience(struct sw_timer *t, void *arg)
{
    struct client *c = arg;

    (void)t;
    if (c->state == CL_BUSY && !c->w->client_net_hurt && !sw_timer_running(&c->slow)) {
        broken(c->w, "request %u: no answer and no end in %llu s", c->flight[0]->id,
               PATIENCE_NS / SW_NS_PER_S);
    }
    client_over(c, OUT_LEFT, false);
}

static void on_leave(struct sw_timer *t, void *arg)
{
    struct client *c = arg;

    (void)t;
    note(c->w, "client %u leaves", c->index);
    client_over(c, OUT_LEFT, chance(c->w, 30));
}

static void on_slow(struct sw_timer *t, void *arg)
{
    struct client *c = arg;

    (void)t;
    if (c->s != NULL) {
        sw_stream_read_start(c->s);
    }
}

static void on_think(struct sw_timer *t, void *arg)
{
    (void)t;
    client_next(arg);
}

static void client_next(struct client *c)
{
    struct world *w = c->w;

    if (w->quiet) {
        c->again = 0;
    }
    if ((c->left == 0 && c->again == 0 && !c->asking) || w->req_count >= REQS_MAX) {
        client_hang_up(c, true);
        c->state = CL_FINISHED;
        return;
    }
    if (c->s != NULL && chance(w, 10)) {
        client_hang_up(c, chance(w, 50));
    }
    c->ask_tries += c->asking ? 1 : 0;
    if (c->s != NULL) {
        client_send(c);
        return;
    }
    c->state = CL_CONNECTING;
    if (sw_stream_connect(w->outside, &w->listen_addr, &client_events, c, &c->s) != SW_OK) {
        c->s = NULL;
        client_think(c);
        return;
    }
    c->out.s = c->s;
    sw_timer_start(w->outside, &c->patience, now_ns(w) + PATIENCE_NS);
}

/* ---- all of them ----------------------------------------------------------------------------- */

void clients_start(struct world *w)
{
    struct client *list = calloc(CLIENTS_MAX + 1, sizeof(*list));

    SW_ASSERT(list != NULL);
    w->clients = list;
    for (uint32_t i = 0; i <= CLIENTS_MAX; i++) {
        struct client *c = &list[i];

        c->w = w;
        c->index = i;
        c->examiner = i == CLIENTS_MAX;
        c->v = &w->visitors[i % SW_MAX(w->plan.visitors, 1u)];
        pump_init(&c->out, w, w->outside);
        sw_timer_init(&c->think, on_think, c);
        sw_timer_init(&c->patience, on_patience, c);
        sw_timer_init(&c->leave, on_leave, c);
        sw_timer_init(&c->slow, on_slow, c);
        c->state = CL_FINISHED;
        if (i < w->plan.clients) {
            c->left = w->plan.requests_each;
            client_think(c);
        }
    }
}

void clients_finish(struct world *w)
{
    for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
        list_of(w)[i].left = 0;
    }
}

bool clients_idle(const struct world *w)
{
    for (uint32_t i = 0; i <= CLIENTS_MAX; i++) {
        if (list_of(w)[i].state != CL_FINISHED) {
            return false;
        }
    }
    return true;
}

void clients_fini(struct world *w)
{
    for (uint32_t i = 0; w->clients != NULL && i <= CLIENTS_MAX; i++) {
        struct client *c = &list_of(w)[i];

        client_hang_up(c, false);
        sw_timer_stop(w->outside, &c->think);
        pump_fini(&c->out);
        bytes_fini(&c->in);
    }
    free(w->clients);
    w->clients = NULL;
}

void client_ask(struct world *w, struct session *s, struct cookie *k, uint32_t room)
{
    struct client *c = &list_of(w)[CLIENTS_MAX];

    SW_ASSERT(c->state == CL_FINISHED);
    c->ask_session = s;
    c->ask_cookie = k;
    c->ask_room = room;
    c->ask_again = NULL;
    c->ask_tries = (uint32_t)pick(w, 2);
    c->ask_status = 0;
    c->asking = true;
    c->state = CL_THINKING;
    client_next(c);
}

void client_ask_again(struct world *w, const struct req *origin)
{
    struct client *c = &list_of(w)[CLIENTS_MAX];

    SW_ASSERT(c->state == CL_FINISHED);
    c->ask_again = origin;
    c->ask_tries = 0;
    c->ask_status = 0;
    c->asking = true;
    c->state = CL_THINKING;
    client_next(c);
}

unsigned client_asked(const struct world *w, const struct list **ret_list, bool *ret_present)
{
    const struct client *c = &list_of(w)[CLIENTS_MAX];

    *ret_list = c->has_list ? &c->list : NULL;
    *ret_present = c->state_present;
    return c->ask_status;
}
