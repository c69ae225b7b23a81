/* store/journal_list.c - an ordered set in memory: a skip list.
 *
 * Room       store/. One thread changes a list, under the lock of whoever owns it.
 *
 * Not a tree, since walking on from a place is one pointer, and taking something out moves nothing
 * else. The levels come from a seeded generator: who chooses what is put in cannot choose them.
 */
#include "store/journal_priv.h"

void sw_journal__list_init(struct journal_list *l, journal_compare_fn *compare)
{
    *l = (struct journal_list){.compare = compare};
}

void sw_journal__list_fini(struct journal_list *l)
{
    struct journal_node *n = l->first[0];

    while (n != NULL) {
        struct journal_node *next = n->next[0];

        free(n);
        n = next;
    }
    memset(l->first, 0, sizeof(l->first));
    l->count = 0;
}

struct journal_node *sw_journal__node_new(struct sw_rng *rng)
{
    uint64_t bits = sw_rng_u64(rng);
    uint32_t levels = 1;
    struct journal_node *n;

    while (levels < JOURNAL_LEVELS_MAX &&
           (bits & 3) == 0) { /* each level has a fourth of those below */
        levels++;
        bits >>= 2;
    }
    n = calloc(1, sizeof(*n) + levels * sizeof(struct journal_node *));
    if (n != NULL) {
        n->levels = levels;
    }
    return n;
}

/* On each level, the pointer that leads to the first one at or behind the place. */
static void paths(struct journal_list *l, const struct journal_place *place,
                  struct journal_node **at[JOURNAL_LEVELS_MAX])
{
    struct journal_node **next = l->first;

    for (size_t level = JOURNAL_LEVELS_MAX; level-- > 0;) {
        while (next[level] != NULL && l->compare(place, next[level]->item) > 0) {
            next = next[level]->next;
        }
        at[level] = &next[level];
    }
}

void sw_journal__list_put(struct journal_list *l, const struct journal_place *place,
                          struct journal_node *n)
{
    struct journal_node **at[JOURNAL_LEVELS_MAX];

    SW_ASSERT(n->item != NULL);
    paths(l, place, at);
    SW_ASSERT(*at[0] == NULL || l->compare(place, (*at[0])->item) != 0);
    for (size_t level = 0; level < n->levels; level++) {
        n->next[level] = *at[level];
        *at[level] = n;
    }
    l->count++;
}

struct journal_node *sw_journal__list_take(struct journal_list *l,
                                           const struct journal_place *place)
{
    struct journal_node **at[JOURNAL_LEVELS_MAX], *n;

    paths(l, place, at);
    n = *at[0];
    SW_ASSERT(n != NULL);
    SW_ASSERT(l->compare(place, n->item) == 0);
    for (size_t level = 0; level < n->levels; level++) {
        SW_ASSERT(*at[level] == n);
        *at[level] = n->next[level];
        n->next[level] = NULL;
    }
    l->count--;
    return n;
}

struct journal_node *sw_journal__list_seek(const struct journal_list *l,
                                           const struct journal_place *place)
{
    struct journal_node *const *next = l->first;

    for (size_t level = JOURNAL_LEVELS_MAX; level-- > 0;) {
        while (next[level] != NULL && l->compare(place, next[level]->item) > 0) {
            next = next[level]->next;
        }
    }
    return next[0];
}
