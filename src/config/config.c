/* config/config.c - the way from text to snapshot, and questions to a snapshot.
 *
 * A snapshot is one block with struct sw_config at its beginning, sized from the tree; so freeing
 * it is one free, and what the parser took for itself is gone when it returns.
 */
#include "config/config_priv.h"

/* What the snapshot can need: for each node its largest form (a server), for each text its copy. */
static size_t snapshot_bytes(const struct sw_tree *tree, struct sw_slice name)
{
    size_t node = sizeof(struct sw_config_server) + sizeof(struct sw_node *) + 64;
    size_t apps = SW_APPS_MAX * (sizeof(struct sw_config_app) + 128);
    const struct sw_node *routes = sw_node__get(tree->root, "routes");
    size_t route_count = routes != NULL ? SW_MIN(routes->count, (uint32_t)SW_ROUTES_MAX) : 0;

    /* A route's defaults are copied too: a few names and paths. */
    return sizeof(struct sw_config) + apps + route_count * (sizeof(struct sw_config_route) + 512) +
           tree->node_count * node + tree->text_bytes * 2 + name.len + 16384;
}

static enum sw_err fill(struct sw_tree *tree, struct sw_slice name,
                        const struct sw_config_override *override,
                        const struct sw_config_world *world, struct sw_config **ret_config,
                        struct sw_config_errors *errors)
{
    struct sw_config_ctx x = {.errors = errors, .world = world, .root = tree->root, .where = ""};
    size_t bytes = snapshot_bytes(tree, name);
    void *block = malloc(bytes);
    struct sw_arena arena;

    if (block == NULL) {
        return SW_E_NO_MEMORY;
    }
    sw_arena_init(&arena, block, bytes);
    x.arena = &arena;
    x.config = sw_arena_new(&arena, struct sw_config);
    SW_ASSERT((void *)x.config == block);
    x.config->file = sw_schema__keep(&x, name);
    sw_schema__walk(&x, "", tree->root);
    if (!arena.overflowed) {
        sw_check__all(&x, override);
    }
    if (arena.overflowed) {
        free(block);
        return SW_E_NO_MEMORY;
    }
    if (errors->count > 0) {
        free(block);
        return SW_E_SYNTAX;
    }
    *ret_config = x.config;
    return SW_OK;
}

enum sw_err sw_config__parse(struct sw_slice text, struct sw_slice name,
                             const struct sw_config_override *override,
                             const struct sw_config_world *world, struct sw_config **ret_config,
                             struct sw_config_errors *errors)
{
    struct sw_config *config = NULL;
    struct sw_tree tree;
    void *substituted = NULL;
    enum sw_err err;

    *errors = (struct sw_config_errors){0};
    err = sw_tree__parse(text, errors, &tree);
    if (err != SW_OK) {
        sw_config__errors_sort(errors);
        return err;
    }
    if (tree.root->kind != SW_NODE_MAP) {
        sw_config__error(errors, tree.root->line, tree.root->column,
                         "the file must be a map with `apps` and `routes`, this is %s",
                         sw_node__what(tree.root));
        sw_config__errors_sort(errors);
        sw_tree__fini(&tree);
        return SW_E_SYNTAX;
    }
    err = sw_subst__tree(&tree, world, errors, &substituted)
              ? fill(&tree, name, override, world, &config, errors)
              : SW_E_NO_MEMORY;
    if (err == SW_E_NO_MEMORY) {
        sw_config__error(errors, 0, 0, "no memory");
    }
    free(substituted);
    sw_tree__fini(&tree);
    sw_config__errors_sort(errors);
    if (err == SW_OK) {
        *ret_config = config;
    }
    return err;
}

enum sw_err sw_config_parse(struct sw_slice text, struct sw_slice name,
                            const struct sw_config_override *override,
                            struct sw_config **ret_config, struct sw_config_errors *errors)
{
    return sw_config__parse(text, name, override, &sw_config__world, ret_config, errors);
}

void sw_config_free(struct sw_config *c)
{
    free(c); /* the block it is the beginning of */
}

bool sw_config_trusted(const struct sw_config *c, const struct sw_addr *peer)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint8_t ip[16] = {[10] = 0xff, [11] = 0xff};
    bool v4;

    switch (peer->len == 0 ? AF_UNSPEC : peer->sa.sa_family) {
    case AF_INET:
        memcpy(ip + 12, &peer->in.sin_addr, 4);
        break;
    case AF_INET6:
        memcpy(ip, &peer->in6.sin6_addr, 16);
        break;
    case AF_UNIX:
        return c->trusted_unix;
    default:
        return false;
    }
    v4 = memcmp(ip, mapped, sizeof(mapped)) == 0; /* a dual-stack listener sees IPv4 peers so */
    for (size_t i = 0; i < c->net_count; i++) {
        const struct sw_config_net *net = &c->nets[i];
        size_t whole = net->bits / 8u;
        unsigned rest = net->bits % 8u;

        if ((!v4 || net->bits >= 96) && memcmp(ip, net->addr, whole) == 0 &&
            (rest == 0 || ((ip[whole] ^ net->addr[whole]) >> (8 - rest)) == 0)) {
            return true;
        }
    }
    return false;
}
