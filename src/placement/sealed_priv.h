/* placement/sealed_priv.h - what the files of sealed states share.
 *
 *   sealed.c          the placement: what the request brought, and what its answer asks for
 *   sealed_commit.c   the next version, or the end: written and given out
 *   sealed_session.c  visitors who have a session
 *   sealed_plain.c    what stands inside the seal, byte by byte; whether it fits into a cookie
 *   sealed_note.c     what the store knows of a sealed state: its newest version, its end
 */
#ifndef SW_PLACEMENT_SEALED_PRIV_H
#define SW_PLACEMENT_SEALED_PRIV_H

#include "placement/placement_priv.h"

/* What waits for the store, in the ask's arena. */
struct sw_sealed_work {
    struct sw_store_load load;
    bool loading;
    uint32_t followed;
    size_t mark; /* of the arena: before what was loaded */
    struct sw_store_commit commit;
    size_t note_at, link_at, join_at; /* places in the commit; SW_COMMIT_WRITES_MAX: not there */
    size_t arena_mark;
    bool link_gone;   /* what the link names is ended already */
    char counter[24]; /* the note's value */
    /* the next version, sealed */
    bool changes, new_id;
    struct sw_sealed seal;
    struct sw_sealed_plain plain;
    struct sw_store_key key;
    struct sw_slice lines;
    struct sw_version version;
};

/* ---- sealed_plain.c -------------------------------------------------------------------------- */

/* False: no room. */
SW_MUST bool sw_sealed__plain_put(struct sw_out *out, const struct sw_sealed_plain *p);
/* Slices point into text. SW_E_SEALED: not in this format. */
SW_MUST enum sw_err sw_sealed__plain_read(struct sw_slice text, struct sw_sealed_plain *ret_plain);
struct sw_sealed_place sw_sealed__place(const struct sw_ask *ask);
/* Strong tag of a state: of the id, the counter and the text, since without a guard two answers may
 * make two states of the same number. */
struct sw_version sw_sealed__version(const struct sw_store_key *key,
                                     const struct sw_sealed_plain *p);
/* Seals it and makes the line that sets the cookie. SW_E_SEALED_LARGE (cookie_bytes tells how large
 * it would be), SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_sealed__lines(struct sw_ask *ask, const struct sw_sealed *seal,
                                     const struct sw_sealed_plain *p, struct sw_slice *ret_lines);

/* ---- sealed_note.c --------------------------------------------------------------------------- */

/* The request's memory for what waits. NULL: no memory. */
struct sw_sealed_work *sw_sealed__work(struct sw_ask *ask);
/* Reads what the store knows of ask->sealed.key into ask->sealed.note. DONE: note.err; MORE: wake
 * follows, call it again. Without a store nothing is known. */
SW_MUST enum sw_step sw_sealed__note_read(struct sw_ask *ask);
/* What the note says of the state that the request brought. */
enum sw_sealed_standing {
    SW_SEALED_NEWEST,  /* it may be read and written */
    SW_SEALED_OLDER,   /* a newer one was given out a moment ago: it may be read */
    SW_SEALED_TOO_OLD, /* and longer ago than that */
    SW_SEALED_ENDED,
};
enum sw_sealed_standing sw_sealed__standing(const struct sw_ask *ask);

/* ---- sealed.c -------------------------------------------------------------------------------- */

/* 409: what the client brought is not the newest. */
enum sw_step sw_sealed__refuse_old(struct sw_ask *ask);

/* ---- sealed_commit.c ------------------------------------------------------------------------- */

bool sw_sealed__subject_changes(const struct sw_ask *ask);
/* Seals the next version and gives it out, when the store agrees. changes: else it is the same once
 * more, and what stands in its way is no error. */
enum sw_step sw_sealed__write(struct sw_ask *ask, bool changes);
enum sw_step sw_sealed__delete(struct sw_ask *ask);
/* The note was read again; the commit was answered. */
enum sw_step sw_sealed__checked(struct sw_ask *ask);
enum sw_step sw_sealed__answered(struct sw_ask *ask);
/* A commit without writes yet; and the write of work->plain's counter, for the same id (by the
 * note that was read) or a new one. */
struct sw_store_commit *sw_sealed__op(struct sw_ask *ask);
void sw_sealed__op_guard(struct sw_ask *ask, struct sw_store_commit *op);

/* ---- sealed_session.c ------------------------------------------------------------------------ */

enum sw_step sw_sealed__session_commit(struct sw_ask *ask);

#endif
