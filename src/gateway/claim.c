/* gateway/claim.c - Idempotency-Key: a request with a known key is not done again, it is answered
 * again.
 *
 *   BODY -> (in line) -> READ -> INSERT -> the exchange runs -> its end is written
 *
 * Whoever runs holds the key's place in the same table as the queues of states (admit.c): so there
 * is one at a time, and whoever finds RUNNING in the record while it holds the place knows that the
 * one who wrote that is dead: its outcome is unknown. No lease, no clock. The record is durable
 * before the app is asked, and how it ended before the client is answered: in one transaction with
 * the state, where there is one.
 *
 * The claim comes before the line of the state's key, so that duplicates do not stand there.
 * Source: draft-ietf-httpapi-idempotency-key-header-07.
 */
#include "gateway/claim_priv.h"

#define WAITERS_MAX 64u /* duplicates that wait for one running request */
#define UNKEPT_LINE "Stateway-Idempotency: not-kept\r\n"

static enum sw_ex_next refuse(struct sw_exchange *x, enum sw_err err)
{
    struct sw_stats *s = x->worker->stats;

    if (err == SW_E_IDEM_RUNNING) {
        sw_count(&s->claims_running, 1);
    } else if (err == SW_E_IDEM_REUSED) {
        sw_count(&s->claims_reused, 1);
    } else if (err == SW_E_IDEM_UNKNOWN) {
        sw_count(&s->claims_unknown, 1);
    }
    return sw_ex__fail(x, err);
}

/* ---- the key, the body, the line --------------------------------------------------------------
 */

static enum sw_ex_next begin(struct sw_exchange *x)
{
    const struct sw_config_route *route = route_of(x);
    char text[SW_CLAIM_KEY_BYTES_MAX];
    struct sw_slice key, principal;
    enum sw_err err;

    if (route->idempotency.mode == SW_IDEM_OFF ||
        (x->request.method != SW_METHOD_POST && x->request.method != SW_METHOD_PATCH)) {
        return sw_ex__to(x, EX_ADMIT);
    }
    err = sw_claim_key_read(&x->request, text, &key);
    if (err == SW_E_IDEM_MISSING && route->idempotency.mode == SW_IDEM_OPTIONAL) {
        return sw_ex__to(x, EX_ADMIT);
    }
    if (err == SW_OK) {
        err = sw_claim_principal(&x->ask, x->peer, &principal);
    }
    if (err != SW_OK) {
        return refuse(x, err);
    }
    sw_claim_store_key(route, principal, key, &x->claim.key);
    x->claim.phase = CLAIM_BODY;
    if (x->request.expect_continue && !x->body_in_done) {
        err = sw_respond__continue(x);
        return err == SW_OK ? EX_GO : sw_ex__fail(x, err);
    }
    return EX_GO;
}

static void on_granted(struct sw_admit_wait *wait)
{
    struct sw_exchange *x = SW_CONTAINER(wait, struct sw_exchange, claim.wait);

    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT(x->claim.waiting);
    x->claim.waiting = false;
    sw_ex__run(x); /* over meanwhile: its end leaves the line */
}

static enum sw_ex_next enter(struct sw_exchange *x)
{
    struct sw_admit_ask ask = {
        .key = x->claim.key,
        .queue_max = route_of(x)->idempotency.wait_ns > 0 ? WAITERS_MAX : 0,
        .loop = x->worker->loop,
        .granted = on_granted,
    };

    x->claim.phase = CLAIM_READ;
    switch (sw_admit__enter(x->worker->admit, &x->claim.wait, &ask)) {
    case SW_ADMIT_HELD:
        return EX_GO;
    case SW_ADMIT_FULL:
        x->claim.refused = true;
        return EX_GO;
    case SW_ADMIT_WAIT:
        x->claim.waiting = true;
        sw_ex__timer(x,
                     SW_MIN(sw_ex__now_ns(x) + route_of(x)->idempotency.wait_ns, x->deadline_ns));
        return EX_WAIT;
    case SW_ADMIT_REENTRY: /* nobody has a token here */
        break;
    }
    SW_UNREACHABLE();
}

static enum sw_ex_next take_body(struct sw_exchange *x)
{
    const struct sw_config *config = x->worker->config;
    struct sw_slice body;
    enum sw_err err;

    if (x->request.framing == SW_FRAMING_LENGTH &&
        x->request.length > config->limits.replay_buffer_bytes) {
        return sw_ex__fail(x, SW_E_BODY_LARGE);
    }
    err = sw_relay__request(x);
    if (err != SW_OK) {
        return sw_ex__fail(x, err);
    }
    if (!x->body_in_done) {
        if (x->conn->in.bytes > 0) { /* it stands still: there is no more room to hold it */
            return sw_ex__fail(x, SW_E_BODY_LARGE);
        }
        sw_conn__read(x->conn, true); /* also when what is held is full: is there more? */
        sw_ex__timer(x, SW_MIN(sw_ex__now_ns(x) + config->timeouts.body_ns, x->deadline_ns));
        return EX_WAIT;
    }
    sw_timer_stop(x->worker->loop, &x->timer);
    body = x->held == NULL ? (struct sw_slice){NULL, 0} : sw_slice_of(x->held->data, x->held_bytes);
    sw_claim_fingerprint(&x->request, body, x->claim.fingerprint);
    return enter(x);
}

/* ---- what is known ----------------------------------------------------------------------------
 */

static void on_loaded(struct sw_store_load *op)
{
    struct sw_exchange *x = op->arg;

    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT(x->claim.pending);
    x->claim.pending = false;
    sw_ex__run(x);
}

/* Loads, small or whole. A stored answer does not fit the exchange's arena. */
static enum sw_err load_start(struct sw_exchange *x, size_t bytes)
{
    struct sw_ex_claim *c = &x->claim;
    struct sw_arena *arena = &x->arena;

    SW_ASSERT(c->memory == NULL);
    if (bytes > CLAIM_SMALL_BYTES) {
        size_t size = sizeof(*arena) + bytes + CLAIM_BASE_BYTES;

        c->memory = sw_budget_take(x->worker->env.large, size);
        if (c->memory == NULL) {
            return SW_E_LARGE_FULL;
        }
        arena = c->memory;
        sw_arena_init(arena, arena + 1, size - sizeof(*arena));
    }
    c->load = (struct sw_store_load){
        .key = c->key,
        .now_unix_s = sw_loop_now_unix_s(x->worker->loop),
        .arena = arena,
        .value_bytes_max = SW_MAX(bytes, (size_t)CLAIM_SMALL_BYTES),
        .loop = x->worker->loop,
        .done = on_loaded,
        .arg = x,
    };
    c->pending = sw_store_load(x->worker->env.store, &c->load) == SW_STEP_MORE;
    return SW_OK;
}

/* The header's line, with its end; empty: there is none. */
static struct sw_slice line_of(struct sw_slice lines, struct sw_slice name)
{
    struct sw_slice line, field, value;

    while (lines.len > 0) {
        (void)sw_slice_cut(lines, '\n', &line, &lines);
        (void)sw_slice_cut(line, ':', &field, &value);
        if (sw_slice_eq_nocase(field, name)) {
            return sw_slice_of(line.ptr, line.len + 1);
        }
    }
    return (struct sw_slice){NULL, 0};
}

static enum sw_ex_next replay(struct sw_exchange *x)
{
    const struct sw_claim *f = &x->claim.found;
    struct sw_slice mark = SW_S("Idempotent-Replayed: true\r\n");
    struct sw_slice stale = SW_S("Cache-Control: no-store\r\n");
    size_t cap = f->headers.len + mark.len + stale.len;
    char *text = sw_arena_bytes(&x->arena, cap);
    struct sw_out out = sw_out_init(text, cap);
    enum sw_err err = SW_OK;

    if (text == NULL) {
        return sw_ex__fail(x, SW_E_NO_MEMORY);
    }
    sw_out_slice(&out, f->headers);
    sw_out_slice(&out, mark);
    if (line_of(f->headers, SW_S("cache-control")).len == 0) {
        sw_out_slice(&out, stale);
    }
    if (f->body.len > 0) {
        err = sw_gather__begin(&x->gather, x->worker, f->body.len, f->body.len);
        for (size_t at = 0; err == SW_OK && at < f->body.len; at += SW_BUF_BYTES) {
            err = sw_gather__add(&x->gather, x->worker,
                                 sw_slice_head(sw_slice_tail(f->body, at), SW_BUF_BYTES));
        }
    }
    if (err != SW_OK) {
        return sw_ex__fail(x, err);
    }
    sw_count(&x->worker->stats->claims_replayed, 1);
    sw_ex__to(x, EX_SEND);
    err = sw_respond__whole(x, f->status, f->reason, sw_out_done(&out), sw_gather__buf(&x->gather),
                            sw_gather__bytes(&x->gather));
    return sw_ex__finish(x, x->keep_alive && err == SW_OK, err == SW_OK);
}

static enum sw_ex_next insert(struct sw_exchange *x, uint32_t attempt)
{
    struct sw_slice value;
    struct sw_write w;

    if (attempt == 1 && !sw_ex__fresh(&x->ask)) {
        return sw_ex__fail(x, SW_E_FRESH);
    }
    x->claim.attempt = attempt;
    value = sw_claim__small_value(x, SW_CLAIM_RUNNING);
    if (value.ptr == NULL) {
        return sw_ex__fail(x, SW_E_NO_MEMORY);
    }
    w = sw_claim__record_write(x, value);
    x->claim.phase = CLAIM_INSERT;
    if (!sw_claim__submit(x, &w)) {
        return sw_ex__fail(x, SW_E_NO_MEMORY);
    }
    sw_ex__timer(x, x->deadline_ns);
    return EX_WAIT;
}

/* The store neither says what is known of the key nor keeps it. On routes with `store-down: run`
 * the request is done all the same, one at a time in this gateway (its place in the line stays
 * taken), and without the promise. */
static enum sw_ex_next store_down(struct sw_exchange *x)
{
    if (x->claim.refused && route_of(x)->idempotency.store_down == SW_IDEM_DOWN_RUN) {
        return refuse(x, SW_E_IDEM_RUNNING);
    }
    if (route_of(x)->idempotency.store_down == SW_IDEM_DOWN_REFUSE) {
        return sw_ex__fail(x, SW_E_IDEM_STORE);
    }
    sw_count(&x->worker->stats->claims_unkept, 1);
    x->claim.phase = CLAIM_UNKEPT;
    x->ask.client_lines = SW_S(UNKEPT_LINE);
    return x->conn == NULL ? sw_ex__finish(x, false, false) : sw_ex__to(x, EX_ADMIT);
}

struct sw_slice sw_claim__lines(const struct sw_exchange *x)
{
    return x->claim.phase == CLAIM_UNKEPT ? SW_S(UNKEPT_LINE) : (struct sw_slice){NULL, 0};
}

/* The record, or that there is none, is here. */
static enum sw_ex_next known(struct sw_exchange *x)
{
    struct sw_ex_claim *c = &x->claim;
    const struct sw_record *r = &c->load.record;
    const struct sw_claim *found = NULL;
    struct sw_claim_decision d;

    if (c->load.err == SW_OK) {
        if (r->kind != SW_RECORD_CLAIM || sw_claim_read(r->value, &c->found) != SW_OK) {
            return sw_ex__fail(x, SW_E_IDEM_STORE);
        }
        found = &c->found;
        c->version = r->version;
    } else if (c->load.err == SW_E_STORE_CORRUPT) { /* perhaps it was done */
        return sw_ex__fail(x, SW_E_IDEM_STORE);
    } else if (c->load.err != SW_E_NOT_FOUND) {
        return store_down(x);
    }
    if (c->refused) { /* another one runs. What it runs may be another request, and stays so */
        return refuse(x, found != NULL && memcmp(found->fingerprint, c->fingerprint,
                                                 sizeof(c->fingerprint)) != 0
                             ? SW_E_IDEM_REUSED
                             : SW_E_IDEM_RUNNING);
    }
    d = sw_claim_decide(route_of(x), found, c->fingerprint);
    if (d.err == SW_E_IDEM_TOO_LARGE) { /* where its result is, may be known */
        x->extra_lines = line_of(found->headers, SW_S("location"));
    }
    if (d.err != SW_OK) {
        return refuse(x, d.err);
    }
    return d.replay ? replay(x) : insert(x, d.attempt);
}

static enum sw_ex_next look(struct sw_exchange *x)
{
    struct sw_ex_claim *c = &x->claim;
    enum sw_err err = SW_OK;

    sw_timer_stop(x->worker->loop, &x->timer);
    if (c->load.loop == NULL) { /* first the small ones: most keys are new */
        err = load_start(x, 0);
    } else if (c->load.err == SW_OK && c->load.record.value.ptr == NULL) {
        err = load_start(x, c->load.record.value.len);
    } else {
        return known(x);
    }
    if (err != SW_OK) {
        return sw_ex__fail(x, err);
    }
    return c->pending ? EX_WAIT : EX_GO;
}

static enum sw_ex_next inserted(struct sw_exchange *x)
{
    const struct sw_store_commit *op = x->claim.commit;

    sw_timer_stop(x->worker->loop, &x->timer);
    if (op->err == SW_E_CONFLICT) { /* by another gateway on the same store */
        return refuse(x, SW_E_IDEM_RUNNING);
    }
    if (op->err != SW_OK) {
        return store_down(x);
    }
    x->claim.live = true;
    x->claim.version = op->writes[0].ret_version;
    x->claim.phase = CLAIM_RUN;
    x->ask.claim_attempt = x->claim.attempt;
    x->arena_mark = sw_arena_mark(&x->arena); /* it outlives a rerun */
    sw_count(&x->worker->stats->claims_new, 1);
    if (x->conn == NULL) {
        return sw_ex__finish(x, false, false);
    }
    return sw_ex__to(x, EX_ADMIT);
}

enum sw_ex_next sw_ex__claim(struct sw_exchange *x)
{
    if (x->conn == NULL && x->claim.phase != CLAIM_INSERT) {
        return sw_ex__finish(x, false, false);
    }
    switch (x->claim.phase) {
    case CLAIM_BEGIN:
        return begin(x);
    case CLAIM_BODY:
        return take_body(x);
    case CLAIM_READ:
        return look(x);
    case CLAIM_INSERT:
        return inserted(x);
    default:
        SW_UNREACHABLE();
    }
}
