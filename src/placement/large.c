/* placement/large.c - memory of an ask beyond its arena: states above inline, and what is made of
 * them.
 *
 * Blocks of env->large in a list, the newest first; sw_ask_drop gives all of them back, so nobody
 * can forget one.
 */
#include "placement/placement_priv.h"

struct sw_large {
    _Alignas(16) struct sw_large *next;
};

char *sw_ask_large(struct sw_ask *ask, size_t bytes)
{
    struct sw_large *block;

    SW_ASSERT(ask->env->large != NULL);
    if (bytes > SIZE_MAX - sizeof(*block)) {
        return NULL;
    }
    block = sw_budget_take(ask->env->large, sizeof(*block) + bytes);
    if (block == NULL) {
        return NULL;
    }
    block->next = ask->large;
    ask->large = block;
    return (char *)(block + 1);
}

void sw_place__large_give(struct sw_ask *ask, const char *memory)
{
    for (struct sw_large **at = &ask->large; *at != NULL; at = &(*at)->next) {
        struct sw_large *block = *at;

        if ((const char *)(block + 1) == memory) {
            *at = block->next;
            sw_budget_give(ask->env->large, block);
            return;
        }
    }
}

void sw_place__large_back(struct sw_ask *ask, const struct sw_large *mark)
{
    while (ask->large != mark) {
        struct sw_large *block = ask->large;

        SW_ASSERT(block != NULL); /* the mark is one of them, or their end */
        ask->large = block->next;
        sw_budget_give(ask->env->large, block);
    }
}

void sw_ask_drop(struct sw_ask *ask)
{
    sw_place__large_back(ask, NULL);
}
