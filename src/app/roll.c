/* app/roll.c - the rolling restart of an app: one slot after the other, back if the new one fails.
 *
 * Room       app/, main thread.
 * Flow       sw_life_roll -> for each slot: NEW (start, wait for health) -> OLD (drain, stop) ->
 * next.
 *
 * life.c swaps the instances and drains the old one; here is only the order, and where it ends.
 */
#include "app/life_priv.h"

static void roll_over(struct life_app *a, bool ok)
{
    const struct life_roll *r = &a->roll;

    if (ok) {
        sw_life__log(a->life, SW_LOG_INFO, "%.*s: rolled", SW_SARG(a->table->config->name));
    } else {
        sw_life__log(a->life, SW_LOG_ERROR,
                     "%.*s/%u: the new instance did not become healthy; the roll ends here and "
                     "what ran before stays",
                     SW_SARG(a->table->config->name), r->slot);
    }
    a->roll = (struct life_roll){.stage = ROLL_OFF};
}

static void roll_slot(struct life_app *a)
{
    struct life_slot *s = &a->slots[a->roll.slot - 1];

    a->roll.stage = ROLL_NEW;
    a->roll.old = NULL;
    if (s->next == NULL && !sw_life__start(a->life, s)) {
        sw_life__log(a->life, SW_LOG_WARN,
                     "%.*s: too many old instances are still held by connections",
                     SW_SARG(a->table->config->name));
        roll_over(a, false);
    }
}

static void roll_advance(struct life_app *a)
{
    if (a->roll.slot == a->roll.last) {
        roll_over(a, true);
        return;
    }
    a->roll.slot++;
    roll_slot(a);
}

void sw_roll__begin(struct life_app *a, uint32_t first, uint32_t last)
{
    SW_ASSERT(a->roll.stage == ROLL_OFF);
    SW_ASSERT(first > 0);
    SW_ASSERT(first <= last && last <= a->slot_count);
    a->roll.slot = first;
    a->roll.last = last;
    roll_slot(a);
}

void sw_roll__replaced(struct life_app *a, struct life_slot *s, struct sw_instance *old)
{
    if (a->roll.stage != ROLL_NEW || a->roll.slot != s->slot) {
        return;
    }
    if (old == NULL) {
        roll_advance(a);
        return;
    }
    a->roll.stage = ROLL_OLD;
    a->roll.old = old;
    a->roll.old_incarnation = old->incarnation;
}

void sw_roll__failed(struct life_app *a, struct life_slot *s)
{
    if (a->roll.stage == ROLL_NEW && a->roll.slot == s->slot) {
        roll_over(a, false);
    }
}

void sw_roll__tick(struct life_app *a)
{
    const struct sw_instance *old = a->roll.old;

    if (a->roll.stage != ROLL_OLD) {
        return;
    }
    if (sw_instance__state(old) == SW_INSTANCE_NONE ||
        old->incarnation != a->roll.old_incarnation || old->life.exited ||
        (old->life.stop_sent &&
         sw_loop_now_ns(a->life->loop) >= old->life.stop_deadline_ns)) { /* stuck: go on */
        roll_advance(a);
    }
}
