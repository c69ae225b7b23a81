/* placement/failed.c - an alarm that was not taken: once more, later, or never.
 *
 * The record is read as it is kept (a sealed value stays sealed) and written back with the alarm's
 * next attempt and time. Whatever else was written meanwhile stays: it is read again on a conflict.
 */
#include "placement/placement_priv.h"

#define TRIES_MAX 16

_Static_assert(SW_ALARM_TRIES_MAX < 32, "the doubled time stays a small number");

static void on_committed(struct sw_store_commit *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

static enum sw_step failed_read(struct sw_ask *ask)
{
    sw_place__read_begin(&ask->session.reading, &ask->key, NULL, SW_READING_RAW,
                         ask->state_present ? ask->state.len : 0);
    ask->session.failed = SW_FAILED_READING;
    return sw_place__read(ask, &ask->session.reading);
}

static enum sw_step failed_fail(struct sw_ask *ask, enum sw_err err)
{
    ask->session.failed = SW_FAILED_NOT;
    return sw_place__fail(ask, err);
}

static enum sw_step failed_done(struct sw_ask *ask)
{
    ask->session.failed = SW_FAILED_NOT;
    return SW_STEP_DONE;
}

static struct sw_store_commit *failed_op(struct sw_ask *ask)
{
    struct sw_store_commit *op = ask->session.commit;

    if (op == NULL) { /* the arena may be what the exchange failed for */
        op = (struct sw_store_commit *)(void *)sw_ask_large(ask, sizeof(*op));
    }
    ask->session.commit = op;
    if (op != NULL) {
        *op = (struct sw_store_commit){
            .count = 1,
            .now_unix_s = sw_loop_now_unix_s(ask->env->loop),
            .loop = ask->env->loop,
            .done = on_committed,
            .arg = ask,
        };
    }
    return op;
}

/* The list after this failure. False: the alarm is not there any more. */
static bool list_after(struct sw_ask *ask, struct sw_alarm list[SW_ALARMS_MAX], size_t *count)
{
    struct sw_alarm *a = NULL;

    for (size_t i = 0; i < *count; i++) {
        if (list[i].due_unix_ms == ask->alarm->due_unix_ms &&
            sw_slice_eq(list[i].id, ask->alarm->id)) {
            a = &list[i];
        }
    }
    if (a == NULL) {
        return false;
    }
    if (a->attempt >= SW_ALARM_TRIES_MAX - 1) { /* this was the last */
        (void)sw_place__alarm_take(list, count, ask->alarm);
        return true;
    }
    a->due_unix_ms =
        sw_loop_now_unix_ms(ask->env->loop) + ((int64_t)SW_ALARM_RETRY_MS << a->attempt);
    a->attempt++;
    return true;
}

static enum sw_step failed_write(struct sw_ask *ask, const struct sw_record *r,
                                 struct sw_slice extra, int64_t due_unix_ms)
{
    struct sw_store_commit *op = failed_op(ask);

    if (op == NULL) {
        return failed_fail(ask, SW_E_LARGE_FULL);
    }
    op->writes[0] = (struct sw_write){
        .kind = SW_WRITE_PUT,
        .key = ask->session.reading.key,
        .record = SW_RECORD_STATE,
        .expect = SW_EXPECT_VERSION,
        .version = r->version,
        .expires_unix_s = r->expires_unix_s,
        .absolute_unix_s = r->absolute_unix_s,
        .due_unix_ms = due_unix_ms,
        .sealed = r->sealed,
        .subject = r->subject,
        .extra = extra,
        .value = r->value,
    };
    ask->session.failed = SW_FAILED_WRITING;
    sw_store_commit(ask->env->store, op);
    return SW_STEP_MORE;
}

static enum sw_step failed_loaded(struct sw_ask *ask)
{
    const struct sw_reading *r = &ask->session.reading;
    struct sw_alarm list[SW_ALARMS_MAX];
    size_t count;
    struct sw_out out;
    char *memory;

    if (r->err == SW_E_NOT_FOUND || (r->err == SW_OK && r->record.kind != SW_RECORD_STATE)) {
        return failed_done(ask);
    }
    if (r->err != SW_OK) {
        return failed_fail(ask, r->err);
    }
    if (sw_alarms_read(r->record.extra, list, &count) != SW_OK) {
        count = 0; /* what cannot be read cannot be delivered either: it must not stay due */
    } else if (!list_after(ask, list, &count)) {
        return failed_done(ask);
    }
    memory = sw_ask_large(ask, SW_EXTRA_BYTES_MAX);
    if (memory == NULL) {
        return failed_fail(ask, SW_E_LARGE_FULL);
    }
    out = sw_out_init(memory, SW_EXTRA_BYTES_MAX);
    if (!sw_alarms_put(&out, list, count)) {
        return failed_fail(ask, SW_E_STORE_CORRUPT); /* it came from as many bytes */
    }
    return failed_write(ask, &r->record, sw_out_done(&out), sw_alarms_due(list, count));
}

static enum sw_step failed_answered(struct sw_ask *ask)
{
    switch (ask->session.commit->err) {
    case SW_OK:
    case SW_E_STATE_GONE:
        return failed_done(ask);
    case SW_E_CONFLICT:
        if (++ask->session.tries > TRIES_MAX) {
            return failed_fail(ask, SW_E_CONFLICT);
        }
        sw_place__large_back(ask, ask->session.large_mark);
        return failed_read(ask) == SW_STEP_MORE ? SW_STEP_MORE : failed_loaded(ask);
    default:
        return failed_fail(ask, SW_E_COMMIT);
    }
}

enum sw_step sw_session_alarm_failed(struct sw_ask *ask)
{
    SW_ASSERT(ask->alarm != NULL);
    SW_ASSERT(ask->has_key);
    switch (ask->session.failed) {
    case SW_FAILED_NOT:
        ask->session.tries = 0;
        if (failed_op(ask) == NULL) {
            return failed_fail(ask, SW_E_LARGE_FULL);
        }
        ask->session.large_mark = ask->large;
        return failed_read(ask) == SW_STEP_MORE ? SW_STEP_MORE : failed_loaded(ask);
    case SW_FAILED_READING:
        return sw_place__read(ask, &ask->session.reading) == SW_STEP_MORE ? SW_STEP_MORE
                                                                          : failed_loaded(ask);
    case SW_FAILED_WRITING:
        return failed_answered(ask);
    }
    SW_UNREACHABLE();
}
