/* placement/placement_priv.h - what the files of this room share. */
#ifndef SW_PLACEMENT_PRIV_H
#define SW_PLACEMENT_PRIV_H

#include "placement/placement.h"

extern const struct sw_placement sw_placement__none, sw_placement__sticky, sw_placement__session;

/* The cookie's name on the wire: with __Host- where Secure, Path=/ and no Domain allow it. */
struct sw_slice sw_place__cookie_name(struct sw_ask *ask, const struct sw_config_cookie *c);
bool sw_place__secure(const struct sw_ask *ask, const struct sw_config_cookie *c);
/* Adds a Set-Cookie line to what the client gets. max_age_s as in sw_set_cookie. */
SW_MUST enum sw_err sw_place__set_cookie(struct sw_ask *ask, const struct sw_config_cookie *c,
                                         struct sw_slice name, struct sw_slice value,
                                         int64_t max_age_s);
/* A healthy instance for whoever has no pin; fills instance or err. */
enum sw_step sw_place__pick_any(struct sw_ask *ask, bool newcomer);
/* 16 hex digits of a keyed hash: says "the same visitor" without saying who. */
void sw_place__visitor(struct sw_ask *ask, struct sw_slice secret);

static inline enum sw_step sw_place__fail(struct sw_ask *ask, enum sw_err err)
{
    SW_ASSERT(err != SW_OK);
    ask->err = err;
    return SW_STEP_FAIL;
}

#endif
