/* placement/placement_priv.h - what the files of this room share. */
#ifndef SW_PLACEMENT_PRIV_H
#define SW_PLACEMENT_PRIV_H

#include "placement/placement.h"

extern const struct sw_placement sw_placement__none, sw_placement__sticky, sw_placement__session,
    sw_placement__token, sw_placement__sealed;

/* The cookie's name on the wire: with __Host- where Secure, Path=/ and no Domain allow it. */
struct sw_slice sw_place__cookie_name(struct sw_ask *ask, const struct sw_config_cookie *c);
bool sw_place__secure(const struct sw_ask *ask, const struct sw_config_cookie *c);
/* What the client gets so far and a Set-Cookie line. max_age_s as in sw_set_cookie. */
SW_MUST enum sw_err sw_place__cookie_lines(struct sw_ask *ask, const struct sw_config_cookie *c,
                                           struct sw_slice name, struct sw_slice value,
                                           int64_t max_age_s, struct sw_slice *ret_lines);
/* Adds the line to what the client gets. */
SW_MUST enum sw_err sw_place__set_cookie(struct sw_ask *ask, const struct sw_config_cookie *c,
                                         struct sw_slice name, struct sw_slice value,
                                         int64_t max_age_s);
/* Does the route's token lie in a cookie? */
static inline bool sw_place__token_cookie(const struct sw_config_token *t)
{
    return t->on && (t->from_cookie || (t->mint.on && t->mint.deliver == SW_DELIVER_COOKIE));
}
/* A healthy instance for whoever has no pin; fills instance or err. */
enum sw_step sw_place__pick_any(struct sw_ask *ask, bool newcomer);
/* 16 hex digits of a keyed hash: says "the same visitor" without saying who. Made of the key of his
 * state, which a renewed id leads to as well; who has the store alone cannot make it. */
void sw_place__visitor_text(const struct sw_place_env *env, const struct sw_store_key *key,
                            char ret_text[17]);
void sw_place__visitor(struct sw_ask *ask, const struct sw_store_key *key);
/* key_text of a visitor: "visitor:" and that text. */
void sw_place__visitor_key_text(struct sw_ask *ask);

static inline enum sw_step sw_place__fail(struct sw_ask *ask, enum sw_err err)
{
    SW_ASSERT(err != SW_OK);
    ask->err = err;
    return SW_STEP_FAIL;
}

/* ---- key.c ----------------------------------------------------------------------------------- */

/* The visitor's key by the session cookie, or none. */
SW_MUST enum sw_err sw_place__visitor_key(struct sw_ask *ask);

/* ---- large.c --------------------------------------------------------------------------------- */

/* Gives one of sw_ask_large back. NULL, and what is not one of them, is allowed. */
void sw_place__large_give(struct sw_ask *ask, const char *memory);
/* Gives back all that was taken after ask->large was mark. */
void sw_place__large_back(struct sw_ask *ask, const struct sw_large *mark);

/* ---- record.c -------------------------------------------------------------------------------- */

#define SW_ALIASES_MAX 8 /* renewals within an alias's life which one old id still follows */
/* An alias's value: the new key, and behind it, where states are sealed, the new raw id under the
 * old one's key. */
#define SW_ALIAS_SEALED_BYTES (32 + SW_SEAL_BYTES + 32)

/* id: what key is the hash of; NULL: it is not known, or no visitor's. */
void sw_place__read_begin(struct sw_reading *r, const struct sw_store_key *key, const uint8_t *id,
                          enum sw_reading_mode mode, size_t value_bytes_max);
/* DONE: r->err and the answers. MORE: ask->wake follows, then call it again. */
SW_MUST enum sw_step sw_place__read(struct sw_ask *ask, struct sw_reading *r);
/* Seals a value in place: SW_SEAL_NONCE_BYTES in front of it and SW_SEAL_TAG_BYTES behind it are
 * its own. */
struct sw_slice sw_place__seal(const uint8_t id[32], const struct sw_store_key *key,
                               struct sw_slice value);
/* The value of the alias that leads from one key to another. from_id NULL: not sealed. out has room
 * for SW_ALIAS_SEALED_BYTES. */
struct sw_slice sw_place__alias(const uint8_t *from_id, const struct sw_store_key *from,
                                const uint8_t to_id[32], const struct sw_store_key *to, char *out);

/* ---- value.c --------------------------------------------------------------------------------- */

/* Text, checked JSON, made compact in memory that sw_place__seal may use; at most the route's
 * max-size. large: not in the arena. SW_E_UPDATE_LARGE, SW_E_LARGE_FULL. */
SW_MUST enum sw_err sw_place__compact(struct sw_ask *ask, struct sw_slice text, bool large,
                                      struct sw_slice *ret_value);
/* The same for base (empty: no state) with a patch, a checked object, merged into it. */
SW_MUST enum sw_err sw_place__merge(struct sw_ask *ask, struct sw_slice base, struct sw_slice patch,
                                    bool large, struct sw_slice *ret_value);
/* The same for a value that is compact already, whatever its length. SW_E_LARGE_FULL. */
SW_MUST enum sw_err sw_place__copy(struct sw_ask *ask, struct sw_slice value,
                                   struct sw_slice *ret_value);
/* Gives the memory of such a value back (to the arena: at its reset). */
void sw_place__value_give(struct sw_ask *ask, struct sw_slice value);

/* ---- session_update.c: what the answer asks for ---------------------------------------------- */

/* The one update that the answer's headers, its envelope and the side API make: into ask->update.
 * SW_E_UPDATE_*. Also for other placements that carry a state. */
SW_MUST enum sw_err sw_place__update(struct sw_ask *ask);
/* Does an answer of that status commit its update? */
bool sw_place__commits(const struct sw_ask *ask);

/* ---- sealed.c, for move.c too ---------------------------------------------------------------- */

/* Opens the request's sealed state into ask->sealed. SW_OK also when there is none that opens.
 * SW_E_NO_MEMORY. Pure. */
SW_MUST enum sw_err sw_place__sealed_open(struct sw_ask *ask);
/* sw_place_key of sealed routes. */
SW_MUST enum sw_err sw_place__sealed_key(struct sw_ask *ask);
/* Its state, or that there is none; ask->sealed.note was read. */
enum sw_step sw_place__sealed_judge(struct sw_ask *ask);

/* ---- move.c ---------------------------------------------------------------------------------- */

/* The id, at the place `to`, of the state that is kept or noted under `from` at its old one. */
void sw_place__move_id(const struct sw_ask *ask, const char *to, const struct sw_store_key *from,
                       uint8_t ret_id[32]);
#define SW_MOVED_JTI_CHARS SW_B64_LEN(16)
struct sw_slice sw_place__moved_jti(const struct sw_ask *ask, const struct sw_store_key *from,
                                    char text[SW_MOVED_JTI_CHARS]);
/* What a client carries still, at the place where the route's states were: into move.what; and the
 * key where it will be. After the new place was found to name a state, or none. */
SW_MUST enum sw_err sw_place__move_key(struct sw_ask *ask);
/* It is not at the new place yet: read at the old one, and seen as session.record. Like load. */
SW_MUST enum sw_step sw_place__move_load(struct sw_ask *ask);
/* From now on the session placement answers: the sealed state outgrew its cookie. */
SW_MUST enum sw_err sw_place__move_spill(struct sw_ask *ask);
/* As a sealed state, with a link. */
void sw_place__moved_seal(const struct sw_ask *ask, const struct sw_moved *what,
                          struct sw_sealed *ret_seal, struct sw_sealed_plain *ret_plain);
/* Does the session's commit end what is elsewhere? Then by this write. */
bool sw_place__move_writes(const struct sw_ask *ask);
void sw_place__move_write(struct sw_ask *ask, struct sw_write *w);
/* The end of what was made, or may have been, of the session under `from`. */
void sw_place__moved_note(const struct sw_ask *ask, const struct sw_store_key *from,
                          struct sw_write *w);
/* It was committed. */
void sw_place__move_made(struct sw_ask *ask);
/* Clears the cookie of that placement, if the client has it. */
SW_MUST enum sw_err sw_place__move_clear(struct sw_ask *ask, enum sw_placement_kind kind);
/* The last step of a session's commit: cookies of both places. */
SW_MUST enum sw_step sw_place__move_settle(struct sw_ask *ask);

/* ---- move_out.c ------------------------------------------------------------------------------ */

/* Reads the session after its commit; then moved_out tells what to give out, in move.what. False:
 * it stays a session. */
SW_MUST enum sw_step sw_place__move_out(struct sw_ask *ask);
bool sw_place__moved_out(struct sw_ask *ask);
/* The cookie of a session that was his, too: it goes when the state at the new place is there. */
SW_MUST enum sw_err sw_place__session_beside(struct sw_ask *ask);

/* ---- subject.c ------------------------------------------------------------------------------- */

/* Do these, plain or hashed, name the same subject? Two hashes under two keys: not to be known. */
bool sw_place__same_subject(const struct sw_keyring *keys, struct sw_slice a, struct sw_slice b);
/* The oldest key that is no seed: stays when another one is promoted. */
const struct sw_key *sw_place__oldest_key(const struct sw_keyring *keys);
/* As a route with `encrypt: on` keeps it. */
SW_MUST enum sw_err sw_place__hide_subject(struct sw_ask *ask, struct sw_slice subject,
                                           struct sw_slice *ret_hidden);

/* ---- session_write.c ------------------------------------------------------------------------- */

/* The write of a state, or of its end, that takes the place of the one ask stands on; all but its
 * value: what belongs to it stays as it is. */
SW_MUST enum sw_err sw_place__now_write(struct sw_ask *ask, bool ends, struct sw_write *w);
/* What a state is sealed with; NULL: it is not. */
const uint8_t *sw_place__now_seal(const struct sw_ask *ask);
/* That write is durable: ask stands on it. value: plain; of an end, nothing. */
void sw_place__now_done(struct sw_ask *ask, const struct sw_write *w, struct sw_slice value);

/* The list without that alarm, if it stands there with that very time. True: it did. */
bool sw_place__alarm_take(struct sw_alarm *list, size_t *count, const struct sw_alarm *alarm);

#endif
