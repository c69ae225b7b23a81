/* apps/shop/state.c - the visitor's state as data: catalogue, actions, JSON (state.h). */
#include "state.h"

#include "../frame.h"

#include <stdlib.h>
#include <string.h>

const struct shop_item shop_items[SHOP_ITEM_COUNT] = {
    {"tea", "Green tea", 640},    {"coffee", "Café blend", 890},  {"honey", "Heather honey", 720},
    {"bread", "Rye bread", 480},  {"mug", "Stoneware mug", 1450}, {"lamp", "Reading lamp", 3900},
    {"kite", "Paper kite", 1250}, {"globe", "Small globe", 2600},
};

size_t shop_item_find(const char *id)
{
    size_t item = 0;

    while (item < SHOP_ITEM_COUNT && strcmp(shop_items[item].id, id) != 0) {
        item++;
    }
    return item;
}

bool shop_user_valid(const char *name)
{
    size_t bytes = strlen(name);
    json_t *text;

    if (bytes == 0 || bytes > SHOP_USER_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)name[i];

        if (c < 0x20 || c == 0x7f) {
            return false;
        }
    }
    text = json_string(name); /* refuses what is not UTF-8 */
    json_decref(text);
    return text != NULL;
}

static uint32_t cart_count(const struct shop_state *state)
{
    uint64_t count = 0;

    for (size_t i = 0; i < SHOP_ITEM_COUNT; i++) {
        count += state->quantity[i];
    }
    return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

const char *shop_apply(struct shop_state *state, const struct shop_order *order)
{
    switch (order->action) {
    case SHOP_LOOK:
    case SHOP_OPEN:
        return NULL;
    case SHOP_ADD:
        if (state->quantity[order->item] >= SHOP_QUANTITY_MAX) {
            return "the cart holds as many of these as it can";
        }
        state->quantity[order->item]++;
        return NULL;
    case SHOP_REMOVE:
        if (state->quantity[order->item] == 0) {
            return "that item is not in the cart";
        }
        state->quantity[order->item] = 0;
        return NULL;
    case SHOP_LOGIN:
        memcpy(state->user, order->user, strlen(order->user) + 1);
        return NULL;
    case SHOP_LOGOUT:
        memset(state, 0, sizeof(*state));
        return NULL;
    case SHOP_CHECKOUT:
        if (cart_count(state) == 0) {
            return "the cart is empty";
        }
        memset(state->quantity, 0, sizeof(state->quantity));
        state->orders += state->orders < UINT32_MAX;
        return NULL;
    }
    abort();
}

/* A whole number of 0 to max. An absent member is 0: a state may have been written before it was.
 */
static bool number_read(const json_t *value, uint32_t max, uint32_t *ret_number)
{
    json_int_t number = json_integer_value(value);

    if (value == NULL) {
        *ret_number = 0;
        return true;
    }
    if (!json_is_integer(value) || number < 0 || number > (json_int_t)max) {
        return false;
    }
    *ret_number = (uint32_t)number;
    return true;
}

static bool state_read(const json_t *root, struct shop_state *state)
{
    const json_t *cart = json_object_get(root, "cart");
    const json_t *user = json_object_get(root, "user");
    const char *name = json_string_value(user);

    if (!json_is_object(root) || (cart != NULL && !json_is_object(cart))) {
        return false;
    }
    /* Items that left the catalogue since then leave the cart as well. */
    for (size_t i = 0; i < SHOP_ITEM_COUNT; i++) {
        if (!number_read(json_object_get(cart, shop_items[i].id), SHOP_QUANTITY_MAX,
                         &state->quantity[i])) {
            return false;
        }
    }
    if (user != NULL && !json_is_null(user)) {
        if (name == NULL || !shop_user_valid(name)) {
            return false;
        }
        memcpy(state->user, name, strlen(name) + 1);
    }
    return number_read(json_object_get(root, "orders"), UINT32_MAX, &state->orders);
}

bool shop_state_read(const char *json, struct shop_state *ret_state)
{
    struct shop_state state = {.orders = 0};
    json_error_t error;
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, &error);
    bool good = state_read(root, &state);

    json_decref(root);
    if (good) {
        *ret_state = state;
    }
    return good;
}

char *shop_state_write(const struct shop_state *state)
{
    json_t *root = app_need(json_object());
    json_t *cart = app_need(json_object());
    char *text;

    for (size_t i = 0; i < SHOP_ITEM_COUNT; i++) {
        if (state->quantity[i] > 0) {
            json_object_set_new(cart, shop_items[i].id, json_integer(state->quantity[i]));
        }
    }
    json_object_set_new(root, "cart", cart);
    if (state->user[0] != '\0') {
        json_object_set_new(root, "user", json_string(state->user));
    }
    json_object_set_new(root, "orders", json_integer(state->orders));
    /* Header values are ASCII; \uXXXX carries the rest through every server and language. */
    text = json_dumps(root, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(root);
    return app_need(text);
}

json_t *shop_cart_json(const struct shop_state *state)
{
    json_t *items = app_need(json_array());
    uint64_t total_cents = 0;
    char *total;
    json_t *cart;

    for (size_t i = 0; i < SHOP_ITEM_COUNT; i++) {
        if (state->quantity[i] > 0) {
            total_cents += (uint64_t)state->quantity[i] * shop_items[i].price_cents;
            json_array_append_new(items, json_pack("{s:s, s:s, s:I, s:I}", "id", shop_items[i].id,
                                                   "name", shop_items[i].name, "quantity",
                                                   (json_int_t)state->quantity[i], "price_cents",
                                                   (json_int_t)shop_items[i].price_cents));
        }
    }
    total = app_format("%llu.%02u", (unsigned long long)(total_cents / 100),
                       (unsigned)(total_cents % 100));
    cart = json_pack("{s:o, s:I, s:s}", "items", items, "count", (json_int_t)cart_count(state),
                     "total", total);
    free(total);
    return app_need(cart);
}

json_t *shop_catalogue_json(void)
{
    json_t *items = app_need(json_array());

    for (size_t i = 0; i < SHOP_ITEM_COUNT; i++) {
        json_array_append_new(items, json_pack("{s:s, s:s, s:I}", "id", shop_items[i].id, "name",
                                               shop_items[i].name, "price_cents",
                                               (json_int_t)shop_items[i].price_cents));
    }
    return items;
}
