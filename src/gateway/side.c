/* gateway/side.c - the side API: an app reads and writes the state of the request it is busy with,
 * when that state is too large for a header.
 *
 *   GET PUT PATCH DELETE http://127.0.0.1:PORT/state/<capability>
 *
 * The capability is 132 random bits, made for one exchange and dead when the head of the app's
 * answer is here; who knows it may use it, nothing else is asked. It is text from the beginning,
 * and comes from a stock of the worker's that is filled from the kernel's generator: nobody can
 * guess one, whatever others he has seen, for no two have a bit in common. Each worker listens on a
 * port of its own, so that the call arrives where the exchange lives: no lock, no message.
 *
 * What is written is staged, and commits with the answer (placement/stage.c); with ?immediate=1 it
 * commits at once, and while it does so the exchange it belongs to stands still, as it does at its
 * own commit: both wait for the store, and neither can end before it has answered. Such calls are
 * exchanges too, which end in SIDE; they are not in the access log, for their path is a secret.
 * Source: the state protocol, 2.3.
 */
#include "gateway/gateway_priv.h"

#define PREFIX "/state/"

/* A body is checked and compacted: white space may make it longer than the state it becomes. */
#define BODY_FACTOR 2u

static struct sw_link *bucket_of(struct sw_worker *w, const char cap[SW_SIDE_CAP_CHARS])
{
    uint64_t word;

    _Static_assert(SW_SIDE_BUCKETS == 1u << 10, "the shift below");
    memcpy(&word, cap, sizeof(word));
    return &w->side_table[word * 0x9e3779b97f4a7c15u >> 54];
}

static const char *next_cap(struct sw_worker *w)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    _Static_assert(sizeof(letters) == 64 + 1, "6 bits of each byte choose one, all alike");
    if (w->side_caps_left == 0) {
        char *text = w->side_caps[0];

        sw_random(text, sizeof(w->side_caps));
        for (size_t i = 0; i < sizeof(w->side_caps); i++) {
            text[i] = letters[(unsigned char)text[i] & 63];
        }
        w->side_caps_left = SW_SIDE_CAPS;
    }
    return w->side_caps[--w->side_caps_left];
}

void sw_side__open(struct sw_exchange *x)
{
    struct sw_worker *w = x->worker;
    const struct sw_config_route *route = x->routed.route;
    size_t len = w->side_url.len + sizeof(x->side_cap);
    char *text;

    SW_ASSERT(!sw_link_linked(&x->side_link));
    if (w->side_url.len == 0 || (route->placement != SW_PLACE_SESSION && !x->ask.move.session) ||
        route->session.max_bytes <= route->session.inline_bytes) {
        return;
    }
    text = sw_arena_bytes(&x->arena, len);
    if (text == NULL) {
        return; /* a state above inline is then refused */
    }
    memcpy(x->side_cap, next_cap(w), sizeof(x->side_cap));
    memcpy(text, w->side_url.ptr, w->side_url.len);
    memcpy(text + w->side_url.len, x->side_cap, sizeof(x->side_cap));
    x->ask.ref_url = sw_slice_of(text, len);
    sw_list_push_back(bucket_of(w, x->side_cap), &x->side_link);
}

void sw_side__close(struct sw_exchange *x)
{
    if (sw_link_linked(&x->side_link)) {
        sw_link_remove(&x->side_link);
    }
}

void sw_side__again(struct sw_exchange *x)
{
    if (sw_link_linked(&x->side_link)) {
        sw_side__close(x);
        sw_stage_forget(&x->ask);
        x->ask.ref_url = (struct sw_slice){NULL, 0};
        sw_side__open(x);
    }
}

/* Takes the same time wherever they differ. */
static bool same(const char *a, const char *b, size_t len)
{
    unsigned diff = 0;

    for (size_t i = 0; i < len; i++) {
        diff |= (unsigned)(a[i] ^ b[i]);
    }
    return diff == 0;
}

/* The exchange that the path names, while its app is busy with it. */
static enum sw_err find(struct sw_exchange *x, struct sw_exchange **ret_target)
{
    struct sw_slice path = x->request.path, prefix = SW_S(PREFIX), cap;
    struct sw_link *head;

    cap = sw_slice_tail(path, prefix.len);
    if (!sw_slice_starts(path, prefix) || cap.len != sizeof(x->side_cap)) {
        return SW_E_NO_ROUTE;
    }
    head = bucket_of(x->worker, cap.ptr);
    for (struct sw_link *l = head->next; l != head; l = l->next) {
        struct sw_exchange *target = SW_CONTAINER(l, struct sw_exchange, side_link);

        SW_ASSERT(target->magic == SW_EXCHANGE_MAGIC);
        if (same(target->side_cap, cap.ptr, sizeof(target->side_cap))) {
            *ret_target = target;
            return target->state == EX_AWAIT ? SW_OK : SW_E_STAGE_GONE;
        }
    }
    return SW_E_STAGE_GONE;
}

static bool media_is(const struct sw_head *h, struct sw_slice type, bool may_be_absent)
{
    const struct sw_field *f = sw_head_find(h, SW_FIELD_CONTENT_TYPE);
    struct sw_slice value, parameters;

    if (f == NULL) {
        return may_be_absent;
    }
    (void)sw_slice_cut(f->value, ';', &value, &parameters);
    return sw_slice_eq_nocase(sw_slice_trim(value), type);
}

static enum sw_err read_method(struct sw_exchange *x, struct sw_stage_ask *in)
{
    const struct sw_head *h = &x->request;

    switch (h->method) {
    case SW_METHOD_GET:
    case SW_METHOD_HEAD:
        in->method = SW_STAGE_GET;
        return SW_OK;
    case SW_METHOD_PUT:
        in->method = SW_STAGE_PUT;
        return media_is(h, SW_S("application/json"), true) ? SW_OK : SW_E_STAGE_MEDIA;
    case SW_METHOD_PATCH:
        in->method = SW_STAGE_PATCH;
        return media_is(h, SW_S("application/merge-patch+json"), false) ? SW_OK : SW_E_STAGE_MEDIA;
    case SW_METHOD_DELETE:
        in->method = SW_STAGE_DELETE;
        return SW_OK;
    default:
        x->extra_lines = SW_S("Allow: GET, HEAD, PUT, PATCH, DELETE\r\n");
        return SW_E_NO_METHOD;
    }
}

static void read_condition(const struct sw_head *h, struct sw_slice name, bool *ret_has,
                           bool *ret_any, struct sw_slice *ret_tag)
{
    const struct sw_field *f = sw_head_find_name(h, name);

    *ret_has = f != NULL;
    *ret_any = f != NULL && sw_slice_eq(f->value, SW_S("*"));
    *ret_tag = f == NULL ? (struct sw_slice){NULL, 0} : f->value;
}

/* All of the body that is here. *ret_done: it is complete. */
static enum sw_err take_body(struct sw_exchange *x, size_t max, bool *ret_done)
{
    struct sw_conn *c = x->conn;
    enum sw_err err = SW_OK;

    *ret_done = x->body_in_done;
    if (*ret_done) {
        return SW_OK;
    }
    if (x->gather.whole == NULL) {
        bool known = x->request.framing == SW_FRAMING_LENGTH;

        if (known && x->request.length > max) {
            return SW_E_BODY_LARGE;
        }
        err = sw_gather__begin(&x->gather, x->worker,
                               known ? (size_t)x->request.length : (size_t)SW_BUF_BYTES, max);
        if (err == SW_OK && x->request.expect_continue) {
            err = sw_respond__continue(x);
        }
    }
    while (err == SW_OK && !x->body_in_done && c->in.first != NULL) {
        struct sw_body_fed fed =
            sw_body_feed(&x->request_body, sw_slice_head(c->in.first->bytes, SW_BUF_BYTES));

        if (fed.step == SW_STEP_FAIL) {
            return fed.err;
        }
        if (fed.data.len > 0) {
            err = sw_gather__add(&x->gather, x->worker, fed.data);
            err = err == SW_OK && x->gather.full ? SW_E_BODY_LARGE : err;
        }
        x->body_in_done = fed.step == SW_STEP_DONE;
        if (fed.consumed > 0) {
            sw_inq__drop(x->worker, &c->in, fed.consumed);
        }
    }
    if (err == SW_OK && !x->body_in_done) {
        sw_conn__read(c, true);
        sw_ex__timer(
            x, SW_MIN(sw_ex__now_ns(x) + x->worker->config->timeouts.body_ns, x->deadline_ns));
    }
    *ret_done = x->body_in_done;
    return err;
}

/* The same causes, but here it is the caller's mistake and not that of an answer. */
static unsigned status_of(enum sw_err err)
{
    switch (err) {
    case SW_E_UPDATE_JSON:
    case SW_E_UPDATE_TYPE:
        return 422;
    case SW_E_UPDATE_LARGE:
        return 413;
    default:
        return 0;
    }
}

static enum sw_ex_next fail(struct sw_exchange *x, enum sw_err err)
{
    x->status_instead = status_of(err);
    return sw_ex__fail(x, err);
}

static enum sw_ex_next answer(struct sw_exchange *x, const struct sw_stage_answer *a)
{
    char text[256];
    struct sw_out lines = sw_out_init(text, sizeof(text));
    enum sw_err err = SW_OK;

    if (a->etag.len > 0) {
        sw_out_lit(&lines, "ETag: ");
        sw_out_slice(&lines, a->etag);
        sw_out_lit(&lines, "\r\n");
    }
    sw_out_lit(&lines, "Cache-Control: no-store\r\n");
    if (a->status == 200) {
        sw_out_lit(&lines, "Content-Type: application/json\r\n");
    }
    sw_gather__drop(&x->gather); /* the request's: it is staged */
    if (a->body.len > 0) {       /* the other exchange may be over before all of it is sent */
        err = sw_gather__begin(&x->gather, x->worker, a->body.len, a->body.len);
        for (size_t at = 0; err == SW_OK && at < a->body.len; at += SW_BUF_BYTES) {
            err = sw_gather__add(&x->gather, x->worker,
                                 sw_slice_head(sw_slice_tail(a->body, at), SW_BUF_BYTES));
        }
    }
    if (err != SW_OK) {
        return fail(x, err);
    }
    sw_ex__to(x, EX_SEND);
    err = sw_respond__whole(x, a->status, SW_S(""), sw_out_done(&lines), sw_gather__buf(&x->gather),
                            sw_gather__bytes(&x->gather));
    return sw_ex__finish(x, x->keep_alive && err == SW_OK, err == SW_OK);
}

static enum sw_ex_next told(struct sw_exchange *x, const struct sw_stage_ask *in,
                            const struct sw_stage_answer *a)
{
    if (in->method != SW_STAGE_GET && a->err == SW_OK) {
        sw_count(&x->worker->stats->stages, 1);
    }
    return a->err == SW_OK ? answer(x, a) : fail(x, a->err);
}

/* The store has answered: the call is answered, and the exchange goes on. */
static void on_told(struct sw_ask *ask)
{
    struct sw_exchange *target = SW_CONTAINER(ask, struct sw_exchange, ask);
    struct sw_exchange *x = sw_take(&target->side_caller);

    SW_ASSERT(target->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT(target->ask_pending);
    SW_ASSERT(x->ask_pending);
    target->ask_pending = x->ask_pending = false;
    sw_ex__run(x);
    if (target->state == EX_AWAIT && sw_ex__nobody(target) && !target->body_in_done) {
        (void)sw_ex__finish(target, false, false); /* its client left in the middle of the body */
    }
    sw_ex__run(target);
}

static enum sw_ex_next at_once(struct sw_exchange *x, struct sw_exchange *target,
                               const struct sw_stage_ask *in)
{
    struct sw_stage_answer *a = sw_arena_new(&x->arena, struct sw_stage_answer);

    if (a == NULL) {
        return fail(x, SW_E_NO_MEMORY);
    }
    if (target->ask_pending) {
        return fail(x, SW_E_STAGE_BUSY);
    }
    if (sw_stage_now(&target->ask, in, a, on_told) == SW_STEP_DONE) {
        return told(x, in, a);
    }
    x->side_answer = a;
    target->side_caller = x;
    target->ask_pending = x->ask_pending = true;
    return EX_WAIT;
}

enum sw_ex_next sw_ex__side(struct sw_exchange *x)
{
    struct sw_stage_answer out = {0};
    struct sw_stage_ask in = {0};
    struct sw_exchange *target;
    bool done, now = sw_slice_eq(x->request.query, SW_S("immediate=1"));
    enum sw_err err;

    if (x->conn == NULL) {
        return sw_ex__finish(x, false, false);
    }
    if (x->side_answer != NULL) {
        in.method = SW_STAGE_PUT; /* any that writes */
        return told(x, &in, x->side_answer);
    }
    err = find(x, &target);
    if (err == SW_OK) {
        err = read_method(x, &in);
    }
    if (err == SW_OK && x->request.query.len > 0 && (!now || in.method == SW_STAGE_GET)) {
        err = SW_E_TARGET; /* nothing else is understood there */
    }
    if (err == SW_OK) {
        err = take_body(x, BODY_FACTOR * (size_t)target->routed.route->session.max_bytes, &done);
    }
    if (err != SW_OK) {
        return fail(x, err);
    }
    if (!done) {
        return EX_WAIT; /* looked up again then: the other exchange may be over */
    }
    sw_timer_stop(x->worker->loop, &x->timer);
    in.body = sw_gather__bytes(&x->gather);
    read_condition(&x->request, SW_S("If-Match"), &in.has_if_match, &in.if_match_any, &in.if_match);
    read_condition(&x->request, SW_S("If-None-Match"), &in.has_if_none_match, &in.if_none_match_any,
                   &in.if_none_match);
    if (now) {
        return at_once(x, target, &in);
    }
    sw_stage(&target->ask, &in, &out);
    return told(x, &in, &out);
}
