/* config/check_priv.h - what the files check*.c share: what was written, complaints about it. */
#ifndef SW_CHECK_PRIV_H
#define SW_CHECK_PRIV_H

#include "config/config_priv.h"

/* A complaint about a key as such, not about its value. */
#define BAD_KEY(x, n, ...)                                                                         \
    do {                                                                                           \
        (n)->bad = true;                                                                           \
        sw_config__error((x)->errors, (n)->key_line, (n)->key_column, __VA_ARGS__);                \
    } while (0)

/* Written, and nobody complained about it. */
static inline bool fine(const struct sw_node *n)
{
    return n != NULL && !n->bad;
}

static inline bool broken(const struct sw_node *n)
{
    return n != NULL && n->bad;
}

/* Does a path prefix cover all of what lies at or below another? Both without the last slash. */
bool sw_check__covers(struct sw_slice prefix, struct sw_slice path);
/* The literal beginning of a pattern, whole segments: "/cart" of "/cart/{id}/". */
struct sw_slice sw_check__literal(struct sw_slice pattern);
/* An unwritten `idle` gives way to `absolute`; map: the section of both. */
void sw_check__lives(struct sw_config_ctx *x, struct sw_node *map, int64_t *idle_s,
                     int64_t *absolute_s);

/* check_cookies.c: one cookie, map: its section; and those of all routes together. */
void sw_check__cookie(struct sw_config_ctx *x, const struct sw_config_route *r,
                      const struct sw_config_cookie *cookie, const struct sw_node *map,
                      struct sw_node *route);
void sw_check__cookies(struct sw_config_ctx *x);

/* check_token.c: `token`, `sealed`, `moved-from`, phantom tokens of one route, n: its node. */
void sw_check__token(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *n);

#endif
