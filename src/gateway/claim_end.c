/* gateway/claim_end.c - the record of an idempotency key, written: RUNNING before the app is asked,
 * and how it ended before the client is answered.
 *
 * DONE goes along with the state's commit, where there is one (ask.join), else alone. What the
 * gateway refused before the app had it releases the key; what the app may have done although no
 * answer of it was committed is UNKNOWN, and so is a RUNNING whose writer is dead.
 */
#include "gateway/claim_priv.h"

/* ---- writes ---------------------------------------------------------------------------------- */

static void on_written(struct sw_store_commit *op)
{
    struct sw_exchange *x = op->arg;

    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT(x->claim.pending);
    x->claim.pending = false;
    sw_ex__run(x);
}

bool sw_claim__submit(struct sw_exchange *x, const struct sw_write *w)
{
    struct sw_store_commit *op = x->claim.commit;

    if (op == NULL) {
        op = x->claim.commit = sw_arena_new(&x->arena, struct sw_store_commit);
        if (op == NULL) {
            return false;
        }
    }
    *op = (struct sw_store_commit){
        .writes = {*w},
        .count = 1,
        .now_unix_s = sw_loop_now_unix_s(x->worker->loop),
        .loop = x->worker->loop,
        .done = on_written,
        .arg = x,
    };
    x->claim.pending = true;
    sw_store_commit(x->worker->env.store, op);
    return true;
}

/* A write of the record: in place of the version that is known. value ptr NULL: the key is free. */
struct sw_write sw_claim__record_write(const struct sw_exchange *x, struct sw_slice value)
{
    int64_t now = sw_loop_now_unix_s(x->worker->loop);
    int64_t end = now + route_of(x)->idempotency.retention_s;

    return (struct sw_write){
        .kind = value.ptr != NULL ? SW_WRITE_PUT : SW_WRITE_DELETE,
        .record = SW_RECORD_CLAIM,
        .key = x->claim.key,
        .expect = SW_EXPECT_VERSION,
        .version = x->claim.version,
        .value = value,
        /* a released key leaves no trace */
        .expires_unix_s = value.ptr != NULL ? end : now - 1,
        .absolute_unix_s = value.ptr != NULL ? end : 0,
    };
}

/* The record's text in the exchange's arena: without an answer it is short. */
struct sw_slice sw_claim__small_value(struct sw_exchange *x, enum sw_claim_state state)
{
    struct sw_claim c = {.state = state, .attempt = x->claim.attempt};
    char *text = sw_arena_bytes(&x->arena, CLAIM_SMALL_BYTES);
    struct sw_out out = sw_out_init(text, CLAIM_SMALL_BYTES);

    memcpy(c.fingerprint, x->claim.fingerprint, sizeof(c.fingerprint));
    if (text == NULL || !sw_claim_put(&out, &c)) {
        return (struct sw_slice){NULL, 0};
    }
    return sw_out_done(&out);
}

/* ---- how it ends ------------------------------------------------------------------------------
 */

/* DONE, with the answer: status, headers, and the body where it is here and not too long. */
static enum sw_err done_value(struct sw_exchange *x, struct sw_slice *ret_value)
{
    bool whole = !x->gathering || !x->gather.full;
    bool stream = x->answer->framing != SW_FRAMING_NONE && !x->gathering &&
                  !(x->answer->framing == SW_FRAMING_LENGTH && x->answer->length == 0);
    struct sw_claim c = {
        .state = SW_CLAIM_DONE,
        .attempt = x->claim.attempt,
        .status = x->answer->status,
        .reason = x->answer->reason,
        .too_large = !whole || stream || x->upgraded,
    };
    size_t cap = CLAIM_BASE_BYTES + x->answer->reason.len, headers = 0;
    struct sw_out out;
    char *text;

    SW_ASSERT(x->claim.memory == NULL);
    memcpy(c.fingerprint, x->claim.fingerprint, sizeof(c.fingerprint));
    if (whole && x->gathering) {
        c.body = sw_gather__bytes(&x->gather);
    }
    for (uint32_t i = 0; i < x->answer->field_count; i++) {
        headers += x->answer->fields[i].name.len + x->answer->fields[i].value.len + 4;
    }
    text = sw_budget_take(x->worker->env.large, headers + cap + headers + c.body.len);
    if (text == NULL) { /* the app has done its work: at least that is kept */
        c.too_large = c.too_large || c.body.len > 0;
        c.body = (struct sw_slice){NULL, 0};
        text = sw_budget_take(x->worker->env.large, headers + cap + headers);
    }
    if (text == NULL) {
        c.too_large = true;
        c.reason = (struct sw_slice){NULL, 0};
        text = sw_arena_bytes(&x->arena, CLAIM_SMALL_BYTES);
        out = sw_out_init(text, CLAIM_SMALL_BYTES);
        if (text == NULL || !sw_claim_put(&out, &c)) {
            return SW_E_NO_MEMORY;
        }
        *ret_value = sw_out_done(&out);
        return SW_OK;
    }
    x->claim.memory = text;
    out = sw_out_init(text, headers);
    if (!sw_claim_headers_put(&out, x->answer)) {
        return SW_E_LARGE_FULL;
    }
    c.headers = sw_out_done(&out);
    out = sw_out_init(text + headers, cap + headers + c.body.len);
    if (!sw_claim_put(&out, &c)) {
        return SW_E_LARGE_FULL;
    }
    *ret_value = sw_out_done(&out);
    return SW_OK;
}

enum sw_err sw_claim__answered(struct sw_exchange *x)
{
    struct sw_slice value = {NULL, 0};
    struct sw_update u = {0};
    enum sw_err err = SW_OK;

    SW_ASSERT(x->claim.live);
    sw_budget_give(x->worker->env.large, sw_take(&x->claim.memory));
    if (sw_update_read(&x->response, &u) != SW_OK) {
        u = (struct sw_update){0}; /* a placement that reads it refuses the answer */
    }
    switch (sw_claim_end_of(route_of(x), &u, x->answer->status)) {
    case SW_CLAIM_KEEP:
        err = done_value(x, &value);
        sw_ex__fresh_owe(x, value.len);
        break;
    case SW_CLAIM_DOUBT:
        value = sw_claim__small_value(x, SW_CLAIM_UNKNOWN);
        err = value.ptr == NULL ? SW_E_NO_MEMORY : SW_OK;
        break;
    case SW_CLAIM_RELEASE:
        break;
    }
    if (err == SW_OK) {
        x->claim.write = sw_claim__record_write(x, value);
        x->ask.join = &x->claim.write;
    }
    return err;
}

void sw_claim__forget(struct sw_exchange *x)
{
    sw_budget_give(x->worker->env.large, sw_take(&x->claim.memory));
}

enum sw_ex_next sw_claim__commit(struct sw_exchange *x)
{
    x->claim.ending = true;
    x->claim.phase = CLAIM_END;
    if (!sw_claim__submit(x, &x->claim.write)) {
        SW_UNREACHABLE(); /* the operation is there since the insert */
    }
    sw_ex__timer(x, x->deadline_ns);
    return EX_WAIT;
}

enum sw_err sw_claim__ended(struct sw_exchange *x)
{
    SW_ASSERT(!x->claim.pending);
    x->claim.ending = false;
    x->claim.phase = CLAIM_ENDED;
    x->claim.live = false; /* also when it failed: RUNNING without a runner is "unknown" */
    return x->claim.commit->err == SW_OK ? SW_OK : SW_E_IDEM_STORE;
}

void sw_claim__joined(struct sw_exchange *x)
{
    x->claim.live = false;
    x->claim.phase = CLAIM_ENDED;
}

bool sw_claim__settle(struct sw_exchange *x)
{
    struct sw_ex_claim *c = &x->claim;
    struct sw_slice value = {NULL, 0};

    if (c->pending || x->ask_pending) { /* what the store works on may lie in the arena */
        return true;
    }
    if (c->phase == CLAIM_INSERT && c->commit->err == SW_OK &&
        !c->live) { /* nobody waited for it */
        c->live = true;
        c->version = c->commit->writes[0].ret_version;
    }
    if (!c->live || c->phase == CLAIM_END) {
        c->live = false;
        return false;
    }
    c->phase = CLAIM_END;
    /* No answer of the app was committed. If it was asked at all, nobody knows what it did: also
     * one whose update lost a race may have charged a card. */
    if (x->ever_sent) {
        sw_arena_reset(&x->arena, x->arena_mark); /* nothing else needs it any more */
        value = sw_claim__small_value(x, SW_CLAIM_UNKNOWN);
        if (value.ptr == NULL) {
            c->live = false; /* RUNNING without a runner says the same */
            return false;
        }
    }
    c->write = sw_claim__record_write(x, value);
    return sw_claim__submit(x, &c->write);
}

void sw_claim__leave(struct sw_exchange *x)
{
    if (x->claim.waiting) {
        if (sw_admit__cancel(x->worker->admit, &x->claim.wait)) {
            x->claim.waiting = false;
        } /* else it is being granted: on_granted, and the end comes here again */
        return;
    }
    if (x->claim.wait.state == ADMIT_HELD) {
        sw_admit__leave(x->worker->admit, &x->claim.wait);
    }
}

void sw_claim__drop(struct sw_exchange *x)
{
    if (x->claim.memory != NULL) {
        sw_budget_give(x->worker->env.large, sw_take(&x->claim.memory));
    }
}

void sw_claim__abandon(struct sw_exchange *x)
{
    sw_claim__leave(x);
    if (x->claim.wait.state == ADMIT_GRANTING) { /* on_granted will not run any more */
        x->claim.wait.state = ADMIT_HELD;
        sw_admit__leave(x->worker->admit, &x->claim.wait);
    }
    x->claim.pending = x->claim.waiting = false;
}
