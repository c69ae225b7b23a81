/* world.h - a gateway that is only its accessors, for the tests of admin/. */
#ifndef SW_ADMIN_WORLD_H
#define SW_ADMIN_WORLD_H

#include "admin/admin_priv.h"

#define WORLD_INSTANCES 8
struct sw_gateway {
    struct sw_config config;
    struct sw_config_app apps[SW_APPS_MAX];
    struct sw_config_route routes[4];
    struct sw_instance instances[WORLD_INSTANCES];
    size_t instance_count;
    struct sw_stats stats[2];
    size_t workers;
    struct sw_loop *loop; /* every worker's */
    bool ready, stopping;
    struct sw_store *store; /* the test's; NULL: none */
    struct sw_budget large;
    struct sw_keyring keys; /* none: a subject has its own name only */
    struct sw_keys_rules rules;
    bool stale;
    enum sw_err command_err; /* what sw_life_* answer */
    char command[128];       /* the last one: "kill shop/2" */
    unsigned command_count;
};

/* shop (sticky, session) and blog (none), two instances of shop, one of blog. One world at a time.
 */
struct sw_gateway *world_new(void);
void world_free(struct sw_gateway *g);
uint64_t world_key(uint32_t app, enum sw_placement_kind placement, unsigned status,
                   enum sw_verdict verdict);

#endif
