/* apps/shop/state.h - a visitor's state, what may be done to it, and how it is written as JSON.
 *
 * Pure: the same input gives the same answer. Where the state is kept is not known here, and that
 * is why the shop runs unchanged under every placement.
 *
 *     {"cart":{"tea":2,"lamp":1},"user":"ada","orders":3}
 */
#ifndef APPS_SHOP_STATE_H
#define APPS_SHOP_STATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHOP_ITEM_COUNT     8
#define SHOP_USER_BYTES_MAX 64
#define SHOP_QUANTITY_MAX   1000000000u

struct shop_item {
    const char *id, *name;
    uint32_t price_cents;
};

extern const struct shop_item shop_items[SHOP_ITEM_COUNT];

struct shop_state {
    uint32_t quantity[SHOP_ITEM_COUNT]; /* in the order of shop_items */
    uint32_t orders;
    char user[SHOP_USER_BYTES_MAX + 1]; /* UTF-8; empty: not logged in */
};

enum shop_action {
    SHOP_LOOK, /* changes nothing; all others do */
    SHOP_OPEN, /* keep the cart, even an empty one: the visitor is known from then on */
    SHOP_ADD,
    SHOP_REMOVE,
    SHOP_LOGIN,
    SHOP_LOGOUT, /* ends the state, cart and all */
    SHOP_CHECKOUT,
};

struct shop_order {
    enum shop_action action;
    size_t item;      /* ADD, REMOVE: index into shop_items */
    const char *user; /* LOGIN */
};

/* Do it. NULL, or why it cannot be done; the state is as before then. */
const char *shop_apply(struct shop_state *state, const struct shop_order *order);

/* SHOP_ITEM_COUNT for an id that is not in the catalogue. */
size_t shop_item_find(const char *id);

/* One to SHOP_USER_BYTES_MAX bytes of UTF-8 without control characters. */
bool shop_user_valid(const char *name);

/* False for JSON that no shop has written: the caller must then leave the state alone. */
bool shop_state_read(const char *json, struct shop_state *ret_state);

/* For a header: one line, ASCII only. To be freed. */
char *shop_state_write(const struct shop_state *state);

/* For people and pages: items with names, quantities and prices, their count and total. */
json_t *shop_cart_json(const struct shop_state *state);
json_t *shop_catalogue_json(void);

#endif
