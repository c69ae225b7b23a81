/* route/route_priv.h - what the files of this room share: a route taken apart. */
#ifndef SW_ROUTE_PRIV_H
#define SW_ROUTE_PRIV_H

#include "route/route.h"

enum sw_host_kind { SW_HOST_EXACT, SW_HOST_WILD, SW_HOST_ANY };
enum sw_path_kind { SW_PATH_EXACT, SW_PATH_TEMPLATE, SW_PATH_STAR };

#define SW_HOST_BYTES_MAX    256u
#define SW_SEGMENT_BYTES_MAX 1024u /* a pattern is no longer than that */

struct sw_segment {
    struct sw_slice text; /* normalised literal, or the name of a capture */
    bool capture;
};

/* A route as it is compared and compiled. */
struct sw_one {
    const struct sw_config_route *config;
    enum sw_host_kind host_kind;
    struct sw_slice host; /* lower case; of a wildcard what follows "*." */
    enum sw_path_kind path_kind;
    const struct sw_segment *segments; /* without the star */
    uint32_t segment_count, literals;
    uint64_t methods; /* bits by sw_routes.method_names; for Allow only */
    uint32_t next;    /* the next, less specific one that ends at the same node */
};

/* The name of a host as it is compared: lower case, no port, no dot at the end; into buf. ptr NULL:
 * too long to be in any table. */
struct sw_slice sw_pattern__host(struct sw_slice host, char buf[SW_HOST_BYTES_MAX]);
/* A segment as it is compared. It points into buf only where something had to change. ptr NULL: it
 * is longer than any pattern. */
struct sw_slice sw_pattern__segment(struct sw_slice segment, char buf[SW_SEGMENT_BYTES_MAX]);
/* Cuts the next segment off a path (the slash before it goes too); path must begin with "/". */
struct sw_slice sw_pattern__next(struct sw_slice *path);
/* Takes a route apart; false: arena is full. */
SW_MUST bool sw_pattern__one(const struct sw_config_route *config, struct sw_arena *arena,
                             struct sw_one *ret_one);
/* < 0: a is more specific. 0 only for one and the same route. */
int sw_pattern__order(const struct sw_one *a, const struct sw_one *b);

bool sw_pattern__host_matches(const struct sw_one *one, struct sw_slice normalised_host);
bool sw_pattern__path_matches(const struct sw_one *one, struct sw_slice path);
bool sw_pattern__method_matches(const struct sw_config_route *route, struct sw_slice method);
bool sw_pattern__headers_match(const struct sw_config_route *route, const struct sw_head *head);

struct sw_routes {
    uint32_t magic;
    void *memory;
    const struct sw_config *config;
    struct sw_one *ones; /* most specific first; the index is the rank */
    uint32_t one_count;

    /* A tree of segments for each host there is. Node 0 stands for "none". */
    struct sw_route_node *nodes;
    uint32_t node_count;
    /* (node, literal segment) -> node, open addressing, a power of two */
    struct sw_route_edge *edges;
    uint32_t edge_mask;
    /* host -> root node, likewise; "*." hosts by what follows */
    struct sw_route_host *hosts;
    uint32_t host_mask;
    bool has_host, has_wild; /* does any route name a host; with a star? */
    uint32_t any_root; /* 0: no route without host */

    struct sw_slice method_names[64];
    uint32_t method_count;
    struct sw_route_allow *allows; /* every union of method lists that can come up, to a bound */
    uint32_t allow_count;
};

#endif
