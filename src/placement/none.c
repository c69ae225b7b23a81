/* placement/none.c - state: none. Any instance may answer; nothing is handed over or kept. */
#include "placement/placement_priv.h"

static enum sw_step none_load(struct sw_ask *ask)
{
    ask->verdict = SW_VERDICT_NONE;
    ask->app_verdict = SW_VERDICT_NONE;
    return SW_STEP_DONE;
}

static enum sw_step none_pick(struct sw_ask *ask)
{
    return sw_place__pick_any(ask, false);
}

/* An update on a stateless route has nowhere to go: it is dropped with the other Stateway headers.
 */
static enum sw_step none_commit(struct sw_ask *ask)
{
    (void)ask;
    return SW_STEP_DONE;
}

const struct sw_placement sw_placement__none = {"none", none_load, none_pick, none_commit};
