/* apps/shop/memory.h - the shop's own memory: visitors' states by id, in this process and nowhere
 * else.
 *
 * What most web apps do by default, and what the placements are about: fast, easy, and gone when
 * the process ends. Bounded: the visitor who was longest away makes room for a new one.
 *
 * Thread   The caller holds the lock around everything it does with a state, from finding to
 * changing: that is what makes parallel requests exact.
 */
#ifndef APPS_SHOP_MEMORY_H
#define APPS_SHOP_MEMORY_H

#include "state.h"

#define MEMORY_ID_BYTES 32u /* hexadecimal digits, 128 random bits */
#define MEMORY_VISITORS 10000u

struct memory;

struct memory *memory_new(void);
void memory_free(struct memory *memory);
void memory_lock(struct memory *memory);
void memory_unlock(struct memory *memory);

/* NULL when this memory has never seen the id, or no longer remembers it. */
struct shop_state *memory_find(struct memory *memory, const char *id);
void memory_put(struct memory *memory, const char *id, const struct shop_state *state);
void memory_remove(struct memory *memory, const char *id);

/* Ids come back from clients: check before use. */
bool memory_id_valid(const char *id);
void memory_id_new(char ret_id[MEMORY_ID_BYTES + 1]);

#endif
