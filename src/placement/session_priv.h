/* placement/session_priv.h - what the files of the session placement share.
 *
 *   session.c         the commit: what is decided, submitted, and tried again
 *   session_load.c    the record of the key, read
 *   session_update.c  what the answer asks for
 *   session_write.c   the records that a commit writes
 */
#ifndef SW_SESSION_PRIV_H
#define SW_SESSION_PRIV_H

#include "placement/placement_priv.h"

/* Is the state a visitor's own, so that its id is dead once it ended? */
static inline bool visitors_own(const struct sw_ask *ask)
{
    return ask->routed->route->session.key_source == SW_KEY_COOKIE;
}

/* session_load.c */
enum sw_step sw_session__load(struct sw_ask *ask);

/* session_update.c: of ask->update, which was read */
bool sw_session__subject_changes(const struct sw_ask *ask);
/* A new id for the visitor: at the first write, at login, at a change of subject. */
bool sw_session__takes_new_id(const struct sw_ask *ask);

/* session_write.c */
/* When the record ends by idling; never later than its absolute end. */
int64_t sw_session__idle_end(const struct sw_ask *ask, int64_t absolute_unix_s);
/* No state lives longer, used or not. */
int64_t sw_session__absolute_end(const struct sw_ask *ask);
/* Of what the app was handed; none, when there was no state. */
struct sw_version sw_session__version(const struct sw_ask *ask);
/* Is it the whole of a living state, on a route that wants the last one to stand? */
bool sw_session__overwrites(const struct sw_ask *ask);
/* The state as it will be. Errors of value.c; SW_E_UPDATE_ALARM, SW_E_FRESH, SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_session__put_state(struct sw_ask *ask, struct sw_write *w);
/* The old id leads to what `to` writes. SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_session__put_alias(struct sw_ask *ask, const struct sw_write *to,
                                          struct sw_write *w);
/* Of a state that ends, nothing can be due: SW_E_UPDATE_ALARM. */
SW_MUST enum sw_err sw_session__only_cancels(struct sw_ask *ask);
bool sw_session__may_clear_cookie(const struct sw_ask *ask);
/* DONE, or FAIL for want of room. */
enum sw_step sw_session__clear_cookie(struct sw_ask *ask);

#endif
