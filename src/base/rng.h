/* base/rng.h - a seeded generator (xoshiro256**) for choices, never for secrets. */
#ifndef SW_RNG_H
#define SW_RNG_H

#include "base/base.h"

struct sw_rng {
    uint64_t s[4];
};

void sw_rng_seed(struct sw_rng *r, uint64_t seed);
uint64_t sw_rng_u64(struct sw_rng *r);
/* Evenly 0 .. bound-1; bound > 0. */
uint64_t sw_rng_below(struct sw_rng *r, uint64_t bound);

#endif
