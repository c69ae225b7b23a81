/* tests/sim/alarms.c - what must be true of alarms.
 *
 * A request that sets an alarm writes its number into the state, in the same transaction; so does
 * the one that cancels, and the delivery (ALARM_BASE and the number of the request that set it). So
 * the list of a state tells which alarms stand at its end, and the record must keep exactly these.
 *
 *  - An alarm is delivered once in the list: not before its time, not after it was canceled or
 *    replaced, or its state ended; and in the end each is, or was given up after six failed tries.
 *  - Tries come later and later.
 */
#include "world.h"

#include "placement/placement.h"

/* What clocks of milliseconds may take away. */
#define CLOCK_NS (2 * SW_NS_PER_MS)
/* An app's request may have been on its way, when the end of a state was acknowledged. */
#define UNDER_WAY_NS (2 * SW_NS_PER_S)

static const struct req *set_of(struct world *w, uint32_t number)
{
    const struct req *o = req_of(w, number);

    if (o == NULL || o->act != ACT_SET || !routes_info[o->route].alarms) {
        broken(w, "an alarm of request %u, which set none", number);
    }
    return o;
}

void alarms_walk(struct world *w, const struct list *l, uint32_t ret_standing[ALARM_IDS])
{
    memset(ret_standing, 0, ALARM_IDS * sizeof(ret_standing[0]));
    for (uint32_t i = 0; i < l->n; i++) {
        bool fired = l->ids[i] >= ALARM_BASE;
        uint32_t number = fired ? l->ids[i] - ALARM_BASE : l->ids[i];
        const struct req *o = fired ? set_of(w, number) : req_of(w, number);
        uint32_t *at;

        if (o == NULL || (o->act != ACT_SET && o->act != ACT_CANCEL)) {
            continue;
        }
        at = &ret_standing[o->alarm];
        if (fired && *at != number) {
            broken(w, "the alarm of request %u fired, and a%u is %u then", number, o->alarm, *at);
        }
        *at = fired || o->act == ACT_CANCEL ? 0 : number;
    }
}

/* id=a1;attempt=2;data="17" */
static bool read_line(struct sw_slice text, uint32_t *ret_id, uint32_t *ret_attempt,
                      uint32_t *ret_number)
{
    unsigned id, attempt, number;
    char copy[64], data[8];
    int used = 0;

    if (text.len >= sizeof(copy)) {
        return false;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (sscanf(copy, "id=a%u;attempt=%u;data=\"%7[0-9]\"%n", &id, &attempt, data, &used) != 3 ||
        (size_t)used != text.len || sscanf(data, "%u", &number) != 1) {
        return false;
    }
    *ret_id = id;
    *ret_attempt = attempt;
    *ret_number = number;
    return true;
}

static void check_time(struct world *w, const struct req *o, uint32_t attempt)
{
    uint64_t now = now_ns(w);
    uint64_t due = o->executed_ns + o->alarm_ms * SW_NS_PER_MS;

    if (w->plan.expiry) { /* somebody sets the clock */
        return;
    }
    if (now + CLOCK_NS < due) {
        broken(w, "the alarm of request %u comes %lu ms too early", o->number,
               (unsigned long)((due - now) / SW_NS_PER_MS));
    }
    if (attempt > 1 && o->attempt_ns[attempt - 1] > 0) {
        due = o->attempt_ns[attempt - 1] +
              ((uint64_t)SW_ALARM_RETRY_MS << (attempt - 2)) * SW_NS_PER_MS;
        if (now + CLOCK_NS < due) {
            broken(w, "the alarm of request %u: try %u comes %lu ms too early", o->number, attempt,
                   (unsigned long)((due - now) / SW_NS_PER_MS));
        }
    }
}

/* Of that session, or of one that the request began anew where it found an end. */
static bool comes_after_end(const struct world *w, const struct session *s, const struct list *l)
{
    return s != NULL && s->ended && now_ns(w) > s->ended_ns + UNDER_WAY_NS && l->n > 0 &&
           s->chain.n > 0 && s->chain.ids[0] == l->ids[0];
}

struct req *alarm_delivered(struct world *w, struct sw_slice value, const struct list *list,
                            bool troubled)
{
    uint32_t id, attempt, number, standing[ALARM_IDS];
    struct req *o;

    if (!read_line(value, &id, &attempt, &number)) {
        broken(w, "an app was given the alarm %.*s", SW_SARG(value));
    }
    (void)set_of(w, number);
    o = req_of(w, number);
    if (o->alarm != id || attempt < 1 || attempt > SW_ALARM_TRIES_MAX) {
        broken(w, "an app was given the alarm %.*s, set was a%u", SW_SARG(value), o->alarm);
    }
    alarms_walk(w, list, standing);
    if (standing[id] != number) {
        broken(w, "the alarm of request %u comes with a state in which a%u is %u", number, id,
               standing[id]);
    }
    if (!troubled && comes_after_end(w, o->session, list)) {
        broken(w, "the alarm of request %u comes after its session %u ended", number,
               o->session->serial);
    }
    if (!troubled) {
        check_time(w, o, attempt);
    }
    if (attempt + 1 < o->attempt && !troubled) {
        broken(w, "the alarm of request %u: try %u comes after try %u", number, attempt,
               o->attempt);
    }
    o->deliveries++;
    o->attempt = SW_MAX(o->attempt, attempt);
    o->attempt_ns[attempt] = troubled ? 0 : now_ns(w); /* a frozen app reads what is long over */
    w->delivered++;
    sw_sim_note(w->sim, ALARM_BASE + number);
    note(w, "an app is given the alarm %.*s", SW_SARG(value));
    return o;
}

bool alarm_taken(struct world *w, const struct req *set)
{
    return !set->doomed && (w->quiet || !w->plan.bad_alarms || !chance(w, 40));
}

/* Is it right that a standing alarm is not in the record? */
static bool may_be_given_up(const struct req *o)
{
    return o->attempt == SW_ALARM_TRIES_MAX;
}

void alarms_check(struct world *w, const struct list *l, struct sw_slice extra, const char *when)
{
    uint32_t standing[ALARM_IDS];
    struct sw_alarm list[SW_ALARMS_MAX];
    size_t count;

    alarms_walk(w, l, standing);
    if (sw_alarms_read(extra, list, &count) != SW_OK) {
        broken(w, "%s: alarms cannot be read", when);
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t number = 0, id = 0;

        if (!sw_slice_u64(list[i].data, &number) || list[i].id.len != 2 ||
            !sw_slice_u64(sw_slice_tail(list[i].id, 1), &id) || id >= ALARM_IDS ||
            standing[id] != number) {
            broken(w, "%s: the record keeps alarm %.*s of request %lu, the state says %u", when,
                   SW_SARG(list[i].id), number, id < ALARM_IDS ? standing[id] : 0);
        }
        standing[id] = 0;
    }
    for (uint32_t id = 0; id < ALARM_IDS; id++) {
        if (standing[id] != 0 && !may_be_given_up(set_of(w, standing[id]))) {
            broken(w, "%s: the alarm of request %u is lost after %u tries", when, standing[id],
                   set_of(w, standing[id])->attempt);
        }
    }
}

void alarms_final(struct world *w, const struct session *s, const struct list *l)
{
    uint32_t standing[ALARM_IDS];

    if (!routes_info[s->route].alarms || w->plan.expiry) {
        return;
    }
    alarms_walk(w, l, standing);
    for (uint32_t id = 0; id < ALARM_IDS; id++) {
        const struct req *o;

        if (standing[id] == 0) {
            continue;
        }
        o = set_of(w, standing[id]);
        if (!o->doomed || o->attempt != SW_ALARM_TRIES_MAX) {
            broken(w, "the alarm of request %u was never taken: %u tries seen", o->number,
                   o->deliveries);
        }
        if (w->plan.calm && o->deliveries != SW_ALARM_TRIES_MAX) {
            broken(w, "the alarm of request %u was given up after %u tries", o->number,
                   o->deliveries);
        }
        w->given_up = 1; /* one is doomed; its state may be asked for twice */
    }
}
