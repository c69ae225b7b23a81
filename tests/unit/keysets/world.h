/* keysets/world.h - issuers for tests: keys that sign, and the sets they publish. */
#ifndef SW_TEST_KEYSETS_WORLD_H
#define SW_TEST_KEYSETS_WORLD_H

#include "crypto/jose.h"

#define WORLD_KEYS 8

/* Ed25519 keys; their ids are their thumbprints. */
struct world {
    struct sw_jwks *keys[WORLD_KEYS]; /* of one each; they sign */
};
void world_init(struct world *w);
void world_fini(struct world *w);

/* {"keys":[...]} of the keys that which names: SW_BIT(0) is the first one. Static memory. */
struct sw_slice world_set(const struct world *w, uint32_t which);
struct sw_slice world_kid(const struct world *w, size_t key);
/* SW_OK: a token that this key signed verifies with set. named: it says its kid. */
enum sw_err world_verify(const struct world *w, size_t key, bool named, const struct sw_jwks *set);

#endif
