/* base/rng.c - xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64. */
#include "base/rng.h"

void sw_rng_seed(struct sw_rng *r, uint64_t seed)
{
    for (size_t i = 0; i < SW_COUNTOF(r->s); i++) {
        uint64_t z = (seed += 0x9e3779b97f4a7c15u);

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        r->s[i] = z ^ (z >> 31);
    }
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t sw_rng_u64(struct sw_rng *r)
{
    uint64_t result = rotl(r->s[1] * 5, 7) * 9, t = r->s[1] << 17;

    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = rotl(r->s[3], 45);
    return result;
}

uint64_t sw_rng_below(struct sw_rng *r, uint64_t bound)
{
    SW_ASSERT(bound > 0);
    return (uint64_t)(((__uint128_t)sw_rng_u64(r) * bound) >> 64);
}
