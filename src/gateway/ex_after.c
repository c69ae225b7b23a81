/* gateway/ex_after.c - the exchange after the app: COMMIT, the output gate, and SEND.
 */
#include "gateway/gateway_priv.h"

#define RERUNS_MAX 64

/* A request wrote, and somebody else was first: it may run again. Also a second time: in the queue
 * it still meets reads, which write without standing in it. */
static bool ex_may_rerun(const struct sw_exchange *x)
{
    return x->ask.err == SW_E_CONFLICT && x->body_held && x->ask.tried.tried_count < SW_TRIED_MAX &&
           x->reruns < RERUNS_MAX && !x->ask.update.has_expect &&
           (sw_method_safe(x->request.method, x->request.method_name) ||
            x->routed.route->replay == SW_REPLAY_SAFE);
}

static enum sw_ex_next ex_rerun(struct sw_exchange *x)
{
    enum sw_err err;

    sw_count(&x->worker->stats->reruns, 1);
    sw_ex__release_instance(x, false, SAID_WELL);
    sw_ex__leave_queue(x);
    x->reruns++;
    sw_side__close(x);
    sw_ask_drop(&x->ask);
    sw_gather__drop(&x->gather);
    sw_budget_give(x->worker->env.large, sw_take(&x->envelope_memory));
    x->envelope = NULL;
    x->answer = &x->response;
    x->answer_done = x->gathering = x->enveloped = false;
    sw_claim__forget(x); /* what would have been stored with that answer */
    sw_arena_reset(&x->arena, x->arena_mark);
    if (sw_ex__nobody(x)) {
        return sw_ex__finish(x, false, false);
    }
    sw_ex__ask_init(x);
    if (x->alarms == NULL && x->routed.route->token.on) {
        return sw_ex__to(x, EX_TOKEN); /* whose claims lay in the arena */
    }
    err = x->alarms != NULL ? SW_OK : sw_place_key(&x->ask);
    sw_ex__to(x, EX_ADMIT);
    return err == SW_OK ? EX_GO : sw_ex__fail(x, err);
}

/* ---- the line of a commit ---------------------------------------------------------------------
 */

static void on_turn(struct sw_admit_wait *line)
{
    struct sw_exchange *x = SW_CONTAINER(line, struct sw_exchange, line);

    SW_ASSERT(x->magic == SW_EXCHANGE_MAGIC);
    SW_ASSERT(x->ask_pending);
    x->ask_pending = false;
    sw_ex__run(x);
}

static void line_leave(struct sw_exchange *x)
{
    if (x->line.state == ADMIT_HELD) {
        sw_admit__leave(x->worker->admit, &x->line);
    }
}

static bool holds(const struct sw_admit_wait *place, const struct sw_store_key *key)
{
    return place->state == ADMIT_HELD && memcmp(&place->key, key, sizeof(*key)) == 0;
}

enum sw_step sw_ex__line(struct sw_ask *ask)
{
    struct sw_exchange *x = SW_CONTAINER(ask, struct sw_exchange, ask);

    if (holds(&x->admit, &ask->key) || holds(&x->line, &ask->key)) {
        return SW_STEP_DONE;
    }
    line_leave(x); /* a renewed id: the state lives elsewhere by now */
    switch (sw_admit__enter(x->worker->admit, &x->line,
                            &(struct sw_admit_ask){
                                .key = ask->key,
                                .queue_max = UINT32_MAX, /* no more than there are exchanges */
                                .loop = x->worker->loop,
                                .granted = on_turn,
                                .traces = x->traces,
                                .trace_count = x->trace_count,
                            })) {
    case SW_ADMIT_WAIT:
        sw_count(&x->worker->stats->queue_waits, 1);
        return SW_STEP_MORE;
    case SW_ADMIT_HELD:
    case SW_ADMIT_REENTRY: /* who holds it waits for this one: its commit takes its chances */
        return SW_STEP_DONE;
    case SW_ADMIT_FULL:
        break;
    }
    SW_UNREACHABLE();
}

void sw_ex__line_abandon(struct sw_exchange *x)
{
    switch (x->line.state) {
    case ADMIT_NONE:
        return;
    case ADMIT_WAITING:
        if (sw_admit__cancel(x->worker->admit, &x->line)) {
            return;
        }
        break; /* it is being granted */
    case ADMIT_GRANTING:
    case ADMIT_HELD:
        break;
    }
    x->line.state = ADMIT_HELD;
    line_leave(x);
}

/* ---- COMMIT -----------------------------------------------------------------------------------
 */

static enum sw_ex_next ex_committed(struct sw_exchange *x)
{
    sw_ex__leave_queue(x); /* a stream, a download, an upgrade never holds the key */
    return sw_ex__to(x, EX_SEND);
}

/* Whose state does not fit any more learns from the log how much it is. */
static void tell_large(const struct sw_exchange *x)
{
    sw_log(SW_LOG_WARN, "route %.*s: the sealed state needs %zu bytes of %s, at most %zu",
           SW_SARG(x->routed.route->path), x->ask.sealed.needs_bytes,
           x->ask.sealed.needs_bytes_max == SW_SEALED_BYTES_MAX ? "its cookie"
                                                                : "the client's Cookie field",
           x->ask.sealed.needs_bytes_max);
}

enum sw_ex_next sw_ex__commit(struct sw_exchange *x)
{
    enum sw_step step;
    enum sw_err err;

    if (x->claim.ending) { /* the state is committed, and now the claim is too, or could not be */
        err = sw_claim__ended(x);
        return err == SW_OK ? ex_committed(x) : sw_ex__fail(x, err);
    }
    x->ask.response = &x->response;
    x->ask.envelope = x->envelope;
    if (x->claim.live && x->ask.join == NULL) {
        err = sw_claim__answered(x);
        if (err != SW_OK) {
            return sw_ex__fail(x, err);
        }
    }
    step = x->ask.placement->commit(&x->ask);
    if (step != SW_STEP_MORE) {
        line_leave(x); /* before a rerun or an answer: its turn is over either way */
    }
    switch (step) {
    case SW_STEP_MORE:
        x->ask_pending = true; /* reading goes on: an end, or bytes too many, must not go unseen */
        sw_ex__timer(x, x->deadline_ns);
        return EX_WAIT;
    case SW_STEP_FAIL:
        if (ex_may_rerun(x)) {
            return ex_rerun(x);
        }
        if (x->ask.err == SW_E_SEALED_LARGE) {
            tell_large(x);
        }
        return sw_ex__fail(x, x->ask.err);
    case SW_STEP_DONE:
        if (x->claim.live && !x->ask.joined) {
            return sw_claim__commit(x);
        }
        if (x->claim.live) {
            sw_claim__joined(x);
        }
        return ex_committed(x);
    }
    SW_UNREACHABLE();
}

static enum sw_ex_next ex_tunnel(struct sw_exchange *x)
{
    struct sw_worker *w = x->worker;
    struct sw_conn *c = sw_take(&x->conn);
    struct sw_inq client_rest, up_rest = x->up_in;
    bool client_eof = c->eof;
    struct sw_stream *client = sw_conn__detach(c, &client_rest);
    struct sw_stream *up = x->upstream;
    struct sw_instance *i = x->ask.instance;

    sw_ex__log(x);
    if (!x->up_broken &&
        sw_tunnel__start(w, (struct sw_tunnel_side){client, &client_rest, client_eof},
                         (struct sw_tunnel_side){up, &up_rest, x->up_eof}, i)) {
        x->upstream = NULL;
        x->ask.instance = NULL;
        x->up_in = (struct sw_inq){NULL, NULL, 0};
    } else {
        sw_inq__clear(w, &client_rest);
        sw_stream_close(client);
        sw_ex__release_instance(x, false, SAID_WELL);
    }
    sw_timer_stop(w->loop, &x->timer);
    sw_ex__to(x, EX_DONE);
    return EX_WAIT;
}

enum sw_ex_next sw_ex__send(struct sw_exchange *x)
{
    const struct sw_config *config = x->worker->config;
    enum sw_err err;

    if (x->conn == NULL) {
        /* An alarm is delivered when its removal is committed: the app answered in order. */
        x->alarm_failing = x->alarms != NULL && x->ask.commit_ns == 0;
        if (x->alarm_failing) {
            x->err = SW_E_ALARM;
        }
        return sw_ex__finish(x, false, false); /* committed; nobody reads the answer */
    }
    if (!x->answer_head_sent) {
        err = sw_respond__head(x);
        if (err != SW_OK) {
            return sw_ex__fail(x, err);
        }
        x->answer_head_sent = true;
        if (x->upgraded) {
            return ex_tunnel(x);
        }
        sw_buf_unref(sw_take(&x->response_buf)); /* a stream of hours needs no head */
    }
    if (!x->body_in_done || !x->body_out_done) {
        err = sw_relay__request(x);
        if (err != SW_OK) {
            return sw_ex__fail(x, err);
        }
    }
    err = sw_relay__response(x);
    if (err != SW_OK) {
        return sw_ex__fail(x, err);
    }
    if (x->answer_done) {
        return sw_ex__finish(x, x->keep_alive, true);
    }
    sw_ex__timer(x, sw_ex__now_ns(x) + (sw_stream_queued(x->conn->stream) > 0
                                            ? config->timeouts.send_ns
                                            : config->timeouts.exchange_ns));
    return EX_WAIT;
}
