/* route/route.c - compiles the routes into a tree and finds the most specific one in it.
 *
 * For each host there is, a tree of path segments: a node has literal children (one hash table for
 * all nodes), at most one child for {name}, and two lists of routes: those that end here and those
 * that end here with a star. Routes are sorted by specificity once; their index is their rank, and
 * a match is the lowest rank. A node knows the lowest rank below it, so most branches are not
 * entered. A request costs one look-up for each label of its host (only with wildcard hosts) and
 * about one for each segment of its path, however many routes there are.
 */
#include "route/route_priv.h"

#define MAGIC     0x73775274u /* "swRt" */
#define NONE      UINT32_MAX
#define SEED      0x9ae16a3b2f90404full /* hashes words of the configuration only */
#define ALLOW_MAX 256u

struct sw_route_node {
    uint32_t capture;     /* the child for {name}; 0: none */
    uint32_t ends, stars; /* lists of ranks; NONE: empty */
    uint32_t best;        /* the lowest rank here and below */
};

struct sw_route_edge {
    struct sw_slice segment;
    uint32_t from, to; /* to 0: a free slot */
};

struct sw_route_host {
    struct sw_slice name;
    uint32_t exact, wild; /* root nodes; 0: none */
};

struct sw_route_allow {
    uint64_t methods;
    struct sw_slice text;
};

/* ---- compiling
 * ----------------------------------------------------------------------------------- */

static uint32_t node_new(struct sw_routes *r, uint32_t rank)
{
    r->nodes[r->node_count] = (struct sw_route_node){0, NONE, NONE, rank};
    return r->node_count++;
}

static struct sw_route_edge *edge_slot(const struct sw_routes *r, uint32_t from,
                                       struct sw_slice segment)
{
    uint32_t at = (uint32_t)sw_slice_hash(segment, SEED + from) & r->edge_mask;

    while (r->edges[at].to != 0 &&
           !(r->edges[at].from == from && sw_slice_eq(r->edges[at].segment, segment))) {
        at = (at + 1) & r->edge_mask;
    }
    return &r->edges[at];
}

static struct sw_route_host *host_slot(const struct sw_routes *r, struct sw_slice name)
{
    uint32_t at = (uint32_t)sw_slice_hash(name, SEED) & r->host_mask;

    while (r->hosts[at].name.ptr != NULL && !sw_slice_eq(r->hosts[at].name, name)) {
        at = (at + 1) & r->host_mask;
    }
    return &r->hosts[at];
}

static uint32_t *root_of(struct sw_routes *r, const struct sw_one *one)
{
    struct sw_route_host *host;

    if (one->host_kind == SW_HOST_ANY) {
        return &r->any_root;
    }
    host = host_slot(r, one->host);
    host->name = one->host;
    r->has_host = true;
    r->has_wild = r->has_wild || one->host_kind == SW_HOST_WILD;
    return one->host_kind == SW_HOST_WILD ? &host->wild : &host->exact;
}

static uint32_t child(struct sw_routes *r, uint32_t from, const struct sw_segment *segment,
                      uint32_t rank)
{
    struct sw_route_edge *edge;

    if (segment->capture) {
        if (r->nodes[from].capture == 0) {
            r->nodes[from].capture = node_new(r, rank);
        }
        return r->nodes[from].capture;
    }
    edge = edge_slot(r, from, segment->text);
    if (edge->to == 0) {
        *edge = (struct sw_route_edge){segment->text, from, node_new(r, rank)};
    }
    return edge->to;
}

/* Ranks come in ascending order, so each list is sorted and a node's first rank is its best. */
static void insert(struct sw_routes *r, uint32_t rank)
{
    struct sw_one *one = &r->ones[rank];
    uint32_t *root = root_of(r, one), at, *list;

    if (*root == 0) {
        *root = node_new(r, rank);
    }
    at = *root;
    for (uint32_t i = 0; i < one->segment_count; i++) {
        at = child(r, at, &one->segments[i], rank);
    }
    list = one->path_kind == SW_PATH_STAR ? &r->nodes[at].stars : &r->nodes[at].ends;
    while (*list != NONE) {
        list = &r->ones[*list].next;
    }
    *list = rank;
    one->next = NONE;
}

static uint64_t method_bits(struct sw_routes *r, const struct sw_config_route *route)
{
    uint64_t bits = 0;

    for (size_t i = 0; i < route->method_count; i++) {
        uint32_t m = 0;

        while (m < r->method_count && !sw_slice_eq(r->method_names[m], route->methods[i])) {
            m++;
        }
        if (m == SW_COUNTOF(r->method_names)) {
            continue; /* nobody names so many; Allow is short of one */
        }
        if (m == r->method_count) {
            r->method_names[r->method_count++] = route->methods[i];
        }
        bits |= 1ull << m;
    }
    return bits;
}

static bool allow_known(const struct sw_routes *r, uint64_t methods)
{
    for (uint32_t i = 0; i < r->allow_count; i++) {
        if (r->allows[i].methods == methods) {
            return true;
        }
    }
    return false;
}

/* All unions of the routes' method lists, so that Allow needs no memory at a request. */
static void allow_unions(struct sw_routes *r)
{
    for (uint32_t i = 0; i < r->one_count && r->allow_count < ALLOW_MAX; i++) {
        uint64_t methods = r->ones[i].methods;

        if (methods != 0 && !allow_known(r, methods)) {
            r->allows[r->allow_count++].methods = methods;
        }
    }
    for (uint32_t i = 0; i < r->allow_count; i++) {
        for (uint32_t j = 0; j < i && r->allow_count < ALLOW_MAX; j++) {
            uint64_t both = r->allows[i].methods | r->allows[j].methods;

            if (!allow_known(r, both)) {
                r->allows[r->allow_count++].methods = both;
            }
        }
    }
}

static bool allow_texts(struct sw_routes *r, struct sw_arena *arena)
{
    for (uint32_t i = 0; i < r->allow_count; i++) {
        size_t bytes = 0;
        struct sw_out out;
        char *text;

        for (uint32_t m = 0; m < r->method_count; m++) {
            bytes += (r->allows[i].methods >> m & 1) != 0 ? r->method_names[m].len + 2 : 0;
        }
        text = sw_arena_bytes(arena, bytes);
        if (text == NULL) {
            return false;
        }
        out = sw_out_init(text, bytes);
        for (uint32_t m = 0; m < r->method_count; m++) {
            if ((r->allows[i].methods >> m & 1) != 0) {
                sw_out_cstr(&out, out.len > 0 ? ", " : "");
                sw_out_slice(&out, r->method_names[m]);
            }
        }
        SW_ASSERT(!out.overflowed);
        r->allows[i].text = sw_out_done(&out);
    }
    return true;
}

static int order(const void *a, const void *b)
{
    return sw_pattern__order(a, b);
}

static uint32_t power_above(size_t n)
{
    uint32_t p = 8;

    while (p < n) {
        p *= 2;
    }
    return p;
}

struct sizes {
    size_t nodes, bytes;
};

/* An upper bound from the texts alone. */
static struct sizes measure(const struct sw_config *config)
{
    struct sizes s = {.nodes = 2, .bytes = sizeof(struct sw_routes) + 1024};

    for (size_t i = 0; i < config->route_count; i++) {
        const struct sw_config_route *route = &config->routes[i];
        size_t methods = 0;

        for (size_t b = 0; b < route->path.len; b++) {
            s.nodes += route->path.ptr[b] == '/' ? 1 : 0;
        }
        s.nodes += 1; /* a root */
        for (size_t m = 0; m < route->method_count; m++) {
            methods += route->methods[m].len + 2;
        }
        s.bytes += route->path.len + route->host.len + sizeof(struct sw_one) + 64 + methods;
    }
    s.bytes += s.nodes * (sizeof(struct sw_route_node) + sizeof(struct sw_segment)) +
               power_above(s.nodes * 2) * sizeof(struct sw_route_edge) +
               power_above(config->route_count * 2 + 2) * sizeof(struct sw_route_host) +
               ALLOW_MAX * (sizeof(struct sw_route_allow) +
                            sizeof(((struct sw_routes *)0)->method_names) / 16 * 34);
    return s;
}

struct sw_routes *sw_routes_new(const struct sw_config *config)
{
    struct sizes sizes = measure(config);
    void *memory = malloc(sizes.bytes);
    struct sw_arena arena;
    struct sw_routes *r;

    if (memory == NULL) {
        return NULL;
    }
    sw_arena_init(&arena, memory, sizes.bytes);
    r = sw_arena_new(&arena, struct sw_routes);
    r->magic = MAGIC;
    r->memory = memory;
    r->config = config;
    r->one_count = (uint32_t)config->route_count;
    r->ones = sw_arena_array(&arena, r->one_count, struct sw_one);
    r->nodes = sw_arena_array(&arena, sizes.nodes, struct sw_route_node);
    r->edge_mask = power_above(sizes.nodes * 2) - 1;
    r->edges = sw_arena_array(&arena, (size_t)r->edge_mask + 1, struct sw_route_edge);
    r->host_mask = power_above(config->route_count * 2 + 2) - 1;
    r->hosts = sw_arena_array(&arena, (size_t)r->host_mask + 1, struct sw_route_host);
    r->allows = sw_arena_array(&arena, ALLOW_MAX, struct sw_route_allow);
    for (uint32_t i = 0; i < r->one_count; i++) {
        bool fits = sw_pattern__one(&config->routes[i], &arena, &r->ones[i]);

        SW_ASSERT(fits);
        r->ones[i].methods = method_bits(r, &config->routes[i]);
    }
    SW_ASSERT(!arena.overflowed);
    qsort(r->ones, r->one_count, sizeof(*r->ones), order);
    r->node_count = 1;
    for (uint32_t i = 0; i < r->one_count; i++) {
        insert(r, i);
    }
    SW_ASSERT(r->node_count <= sizes.nodes);
    allow_unions(r);
    if (!allow_texts(r, &arena)) {
        free(memory);
        return NULL;
    }
    return r;
}

void sw_routes_free(struct sw_routes *r)
{
    if (r != NULL) {
        SW_ASSERT(r->magic == MAGIC);
        r->magic = 0;
        free(r->memory);
    }
}

/* ---- matching
 * ------------------------------------------------------------------------------------- */

struct search {
    const struct sw_routes *r;
    const struct sw_head *head;
    struct sw_slice path; /* of the head; "/" for OPTIONS * */
    uint32_t best;        /* rank; NONE: nothing yet */
    uint64_t allowed;     /* of those that differ in the method only */
    uint64_t nearest;     /* of the most specific one of them */
    uint32_t near_rank;
};

static void try_list(struct search *s, uint32_t rank)
{
    for (; rank < s->best; rank = s->r->ones[rank].next) { /* NONE is above every rank */
        const struct sw_one *one = &s->r->ones[rank];

        if (one->config->header_count > 0 && !sw_pattern__headers_match(one->config, s->head)) {
            continue;
        }
        if (sw_pattern__method_matches(one->config, s->head->method_name)) {
            s->best = rank;
            return;
        }
        s->allowed |= one->methods;
        if (rank < s->near_rank) {
            s->near_rank = rank;
            s->nearest = one->methods;
        }
    }
}

/* A function of its own, so that the buffer is not on the stack once for each level. */
static uint32_t literal_child(const struct sw_routes *r, uint32_t at, struct sw_slice raw)
{
    char buf[SW_SEGMENT_BYTES_MAX];
    struct sw_slice segment = sw_pattern__segment(raw, buf);

    return segment.ptr != NULL ? edge_slot(r, at, segment)->to : 0;
}

/* rest: what of the path is left; empty, or it begins with "/". As deep as the longest pattern. */
static void descend(struct search *s, uint32_t at, struct sw_slice rest)
{
    const struct sw_route_node *node = &s->r->nodes[at];
    struct sw_slice raw;
    uint32_t to;

    if (node->best >= s->best) {
        return;
    }
    if (rest.len == 0) {
        try_list(s, node->ends);
    } else {
        raw = sw_pattern__next(&rest);
        to = literal_child(s->r, at, raw);
        if (to != 0) {
            descend(s, to, rest);
        }
        if (node->capture != 0 && raw.len > 0) {
            descend(s, node->capture, rest);
        }
    }
    try_list(s, node->stars);
}

/* Exact, then wildcards from the longest: the first host with a full match decides. */
static void by_host(struct search *s, struct sw_slice host)
{
    const struct sw_route_host *found;

    if (host.len > 0) {
        found = host_slot(s->r, host);
        if (found->exact != 0) {
            descend(s, found->exact, s->path);
        }
    }
    for (size_t i = 1; s->r->has_wild && s->best == NONE && i < host.len; i++) {
        if (host.ptr[i] == '.') {
            found = host_slot(s->r, sw_slice_tail(host, i + 1));
            if (found->wild != 0) {
                descend(s, found->wild, s->path);
            }
        }
    }
    if (s->best == NONE && s->r->any_root != 0) {
        descend(s, s->r->any_root, s->path);
    }
}

static void take_captures(const struct sw_one *one, struct sw_slice path, struct sw_routed *routed)
{
    for (uint32_t i = 0; i < one->segment_count; i++) {
        struct sw_slice raw = sw_pattern__next(&path);

        if (one->segments[i].capture) {
            SW_ASSERT(routed->capture_count < SW_ROUTE_CAPTURES_MAX);
            routed->captures[routed->capture_count++] =
                (struct sw_capture){one->segments[i].text, raw};
        }
    }
}

static struct sw_slice allow_text(const struct sw_routes *r, uint64_t methods)
{
    for (uint32_t i = 0; i < r->allow_count; i++) {
        if (r->allows[i].methods == methods) {
            return r->allows[i].text;
        }
    }
    return (struct sw_slice){NULL, 0};
}

struct sw_routed sw_route_match(const struct sw_routes *r, const struct sw_head *head)
{
    struct sw_routed routed = {.err = SW_E_NO_ROUTE};
    struct search s = {.r = r, .head = head, .path = head->path, .best = NONE, .near_rank = NONE};
    char buf[SW_HOST_BYTES_MAX];

    SW_ASSERT(r != NULL);
    SW_ASSERT(r->magic == MAGIC);
    if (sw_slice_eq(s.path, SW_S("*"))) {
        s.path = SW_S("/"); /* RFC 9112, 3.2.4: OPTIONS * asks the server behind as a whole */
    }
    if (s.path.len == 0 || s.path.ptr[0] != '/') {
        return routed;
    }
    by_host(&s, r->has_host ? sw_pattern__host(head->host, buf) : (struct sw_slice){NULL, 0});
    if (s.best != NONE) {
        routed.err = SW_OK;
        routed.route = r->ones[s.best].config;
        take_captures(&r->ones[s.best], s.path, &routed);
    } else if (s.near_rank != NONE) {
        routed.err = SW_E_NO_METHOD;
        routed.allow = allow_text(r, s.allowed);
        if (routed.allow.len ==
            0) { /* more unions than are kept: say what the nearest route takes */
            routed.allow = allow_text(r, s.nearest);
        }
    }
    return routed;
}

/* ---- ambiguity
 * ------------------------------------------------------------------------------------ */

static bool same_headers(const struct sw_config_route *a, const struct sw_config_route *b)
{
    if (a->header_count != b->header_count) {
        return false;
    }
    for (size_t i = 0; i < a->header_count; i++) {
        bool found = false;

        for (size_t j = 0; j < b->header_count && !found; j++) {
            found = sw_slice_eq_nocase(a->headers[i].name, b->headers[j].name) &&
                    sw_slice_eq(a->headers[i].value, b->headers[j].value);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static bool methods_meet(const struct sw_config_route *a, const struct sw_config_route *b)
{
    if (a->method_count == 0 || b->method_count == 0) {
        return a->method_count == b->method_count; /* a list before any: that decides */
    }
    for (size_t i = 0; i < a->method_count; i++) {
        if (sw_pattern__method_matches(b, a->methods[i])) {
            return true;
        }
    }
    return false;
}

static bool same_place(const struct sw_one *a, const struct sw_one *b)
{
    if (a->host_kind != b->host_kind || !sw_slice_eq(a->host, b->host) ||
        a->path_kind != b->path_kind || a->segment_count != b->segment_count) {
        return false;
    }
    for (uint32_t i = 0; i < a->segment_count; i++) {
        if (a->segments[i].capture != b->segments[i].capture ||
            (!a->segments[i].capture && !sw_slice_eq(a->segments[i].text, b->segments[i].text))) {
            return false;
        }
    }
    return true;
}

const char *sw_routes_ambiguous(const struct sw_routes *r, struct sw_arena *arena)
{
    SW_ASSERT(r->magic == MAGIC);
    for (uint32_t i = 0; i < r->one_count; i++) {
        /* Routes of one place stand side by side in the order. */
        for (uint32_t j = i + 1; j < r->one_count && same_place(&r->ones[i], &r->ones[j]); j++) {
            const struct sw_config_route *a = r->ones[i].config, *b = r->ones[j].config;
            struct sw_slice text;

            if (!methods_meet(a, b) || !same_headers(a, b)) {
                continue;
            }
            text = sw_arena_printf(
                arena,
                "the routes in line %u and line %u take the same requests (%.*s%s%.*s): give one "
                "another path, other methods or headers, or take it out%c",
                SW_MIN(a->line, b->line), SW_MAX(a->line, b->line), SW_SARG(a->host),
                a->host.len > 0 ? " " : "", SW_SARG(a->path), '\0');
            return text.ptr != NULL ? text.ptr : "two routes take the same requests";
        }
    }
    return NULL;
}
