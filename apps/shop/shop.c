/* apps/shop/shop.c - a small shop that does not care where its state lives.
 *
 * Every request goes the same way: what is asked (order_read), the visitor's state (visit_load),
 * the change (shop_apply, pure), and the state put back (visit_store). Only load and store know two
 * ways:
 *
 *   memory   the shop remembers by itself: cookie "shopid", a table, a lock. As most apps begin.
 *   handed   the gateway hands the state over in a request header, and takes the new one from a
 *            header of the answer (Stateway-Set). The shop remembers nothing, so that any instance
 *            may answer the next request.
 *
 * Which of the two is not configured: it is handed when Stateway-State-Info is there. A user may
 * log in under any name and without a password; this is a demonstration, not a shop.
 *
 *     GET    /                   the demo page; with ?json the list of endpoints
 *     GET    /catalogue          what there is to buy
 *     GET    /cart               the cart, the user, the number of orders
 *     POST   /cart               keep a cart, even an empty one
 *     POST   /cart/items         item=ID: put one in
 *     DELETE /cart/items/ID      take all of these out
 *     POST   /checkout           order what is in the cart
 *     POST   /login              user=NAME
 *     POST   /logout             forget everything about this visitor
 *     GET    /slow?ms=N          the cart, N milliseconds later
 *     GET    /carried            the cookies this request came with; only if allowed
 *     GET    /healthz
 *     POST   /crash              the process kills itself; only if allowed
 *
 * Arguments are taken from the query, a form or a JSON object, whichever is there.
 */
#include "../frame.h"
#include "memory.h"
#include "page_html.h" /* shop_page, shop_page_bytes: page.html, made by embed.py */
#include "state.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define COOKIE_NAME      "shopid"
#define PAGE_DATA_MARK   "\"SHOP-DATA\"" /* stands in page.html where the page's data goes */
#define SLOW_MS_MAX      60000u
#define ARGUMENT_BYTES   256u
#define PREFIX_BYTES_MAX 64u

struct shop {
    struct memory *memory;
    char *page;
    size_t page_bytes;
    bool allow_crash;
    bool show_cookies;
};

enum endpoint { AT_PAGE, AT_CATALOGUE, AT_STATE, AT_SLOW, AT_CARRIED, AT_HEALTH, AT_CRASH };

/* A path that ends in a slash has an item's id behind it. */
static const struct endpoint_row {
    const char *method, *path;
    enum endpoint endpoint;
    enum shop_action action;
    const char *about;
} endpoints[] = {
    {"GET", "/", AT_PAGE, SHOP_LOOK, "the demo page; with ?json this list"},
    {"GET", "/catalogue", AT_CATALOGUE, SHOP_LOOK, "what there is to buy"},
    {"GET", "/cart", AT_STATE, SHOP_LOOK, "the cart, the user, the number of orders"},
    {"POST", "/cart", AT_STATE, SHOP_OPEN, "keep a cart, even an empty one"},
    {"POST", "/cart/items", AT_STATE, SHOP_ADD, "item=ID: put one in"},
    {"DELETE", "/cart/items/", AT_STATE, SHOP_REMOVE, "take all of these out"},
    {"POST", "/checkout", AT_STATE, SHOP_CHECKOUT, "order what is in the cart"},
    {"POST", "/login", AT_STATE, SHOP_LOGIN, "user=NAME; no password, this is a demonstration"},
    {"POST", "/logout", AT_STATE, SHOP_LOGOUT, "forget everything about this visitor"},
    {"GET", "/slow", AT_SLOW, SHOP_LOOK, "ms=N: the cart, N milliseconds later"},
    {"GET", "/carried", AT_CARRIED, SHOP_LOOK, "the cookies of this request; only if allowed"},
    {"GET", "/healthz", AT_HEALTH, SHOP_LOOK, "whether this instance can answer"},
    {"POST", "/crash", AT_CRASH, SHOP_LOOK, "the process kills itself; only if allowed"},
};
#define ENDPOINT_COUNT (sizeof(endpoints) / sizeof(endpoints[0]))

/* One request's way through the shop. */
struct visit {
    const struct app_request *request;
    struct shop_order order;
    char user[ARGUMENT_BYTES]; /* what order.user points at */
    bool handed;               /* else the state is in our memory */
    struct shop_state state;
};

/* ---- answers ---- */

static json_t *answer_begin(const struct app_request *request)
{
    return app_need(json_pack(
        "{s:s, s:i, s:s, s:s?}", "instance", app_instance(request), "pid", (int)getpid(), "source",
        app_header(request, "Stateway-State-Info") != NULL ? "handed" : "memory", "verdict",
        app_header(request, "Stateway-Verdict")));
}

static void answer_json(struct app_answer *answer, unsigned status, json_t *root)
{
    char *text = app_need(json_dumps(root, JSON_INDENT(2)));

    json_decref(root);
    app_answer_text(answer, status, "%s\n", text);
    free(text);
    answer->type = "application/json";
    app_answer_header(answer, "Cache-Control", "no-store");
}

static void answer_error(const struct app_request *request, struct app_answer *answer,
                         unsigned status, const char *what)
{
    json_t *root = answer_begin(request);

    json_object_set_new(root, "error", json_string(what));
    answer_json(answer, status, root);
}

static json_t *answer_state(const struct visit *visit)
{
    json_t *root = answer_begin(visit->request);
    const char *user = visit->state.user;

    json_object_set_new(root, "user", user[0] != '\0' ? json_string(user) : json_null());
    json_object_set_new(root, "orders", json_integer(visit->state.orders));
    json_object_set_new(root, "cart", shop_cart_json(&visit->state));
    return root;
}

/* ---- what is asked ---- */

/* False when the argument is nowhere, or longer than any that makes sense. */
static bool argument(const struct app_request *request, const char *name,
                     char ret_value[ARGUMENT_BYTES])
{
    const char *value = app_query(request, name);
    const char *type = app_header(request, "Content-Type");
    json_error_t error;
    json_t *root;
    bool found;

    if (value == NULL && (type == NULL || strncasecmp(type, "application/json", 16) != 0)) {
        return app_form(request, name, ret_value, ARGUMENT_BYTES);
    }
    root = value == NULL ? json_loadb(request->body, request->body_bytes, 0, &error) : NULL;
    if (value == NULL) {
        value = json_string_value(json_object_get(root, name));
    }
    found = value != NULL && strlen(value) < ARGUMENT_BYTES;
    if (found) {
        memcpy(ret_value, value, strlen(value) + 1);
    }
    json_decref(root);
    return found;
}

/* True when the order can be tried; else the answer says what is wrong with it. */
static bool order_read(struct visit *visit, const struct endpoint_row *row,
                       struct app_answer *answer)
{
    const struct app_request *request = visit->request;
    char id[ARGUMENT_BYTES] = "";

    visit->order.action = row->action;
    if (request->body_too_large) {
        answer_error(request, answer, 413, "the body is larger than 8192 bytes");
        return false;
    }
    if (row->action == SHOP_LOGIN) {
        visit->order.user = visit->user;
        if (!argument(request, "user", visit->user) || !shop_user_valid(visit->user)) {
            answer_error(request, answer, 400,
                         "user=NAME is missing, or is not 1 to 64 bytes of printable UTF-8");
            return false;
        }
    }
    if (row->action == SHOP_ADD && !argument(request, "item", id)) {
        answer_error(request, answer, 400, "item=ID is missing; /catalogue has the ids");
        return false;
    }
    if (row->action == SHOP_ADD || row->action == SHOP_REMOVE) {
        const char *wanted = row->action == SHOP_ADD ? id : request->path + strlen(row->path);

        visit->order.item = shop_item_find(wanted);
        if (visit->order.item == SHOP_ITEM_COUNT) {
            answer_error(request, answer, 404, "there is no such item; /catalogue has the ids");
            return false;
        }
    }
    return true;
}

/* ---- handed: the state comes with the request and leaves with the answer ---- */

static void subject_write(struct app_answer *answer, const char *user)
{
    char subject[3 * SHOP_USER_BYTES_MAX + 1];
    size_t out = 0;

    for (; *user != '\0'; user++) {
        unsigned char c = (unsigned char)*user;

        if (c < 0x80 && (isalnum(c) || strchr("-._~@+", c) != NULL)) {
            subject[out++] = (char)c;
        } else {
            out += (size_t)snprintf(subject + out, sizeof(subject) - out, "%%%02X", c);
        }
    }
    subject[out] = '\0';
    app_answer_header(answer, "Stateway-Subject", subject);
}

static const char *handed_load(struct visit *visit)
{
    const char *json = NULL;

    switch (app_handed(visit->request, &json)) {
    case APP_HANDED_NOTHING:
        abort(); /* visit_load asks only when something is */
    case APP_HANDED_REF:
        return "the state handed over is larger than any cart of this shop";
    case APP_HANDED_ABSENT:
        return NULL; /* a new visitor, a new cart */
    case APP_HANDED_STATE:
        break;
    }
    return shop_state_read(json, &visit->state)
               ? NULL
               : "the state handed over was not written by this shop; it is left as it is";
}

static void handed_store(const struct visit *visit, struct app_answer *answer)
{
    char *json;

    if (visit->order.action == SHOP_LOGOUT) {
        app_answer_header(answer, "Stateway-Delete", "?1");
        return;
    }
    json = shop_state_write(&visit->state);
    app_answer_header(answer, "Stateway-Set", json);
    free(json);
    if (visit->order.action == SHOP_LOGIN) {
        /* A new id at login: whoever knew the old one does not become this user. */
        app_answer_header(answer, "Stateway-Renew", "?1");
        subject_write(answer, visit->state.user);
    }
}

/* ---- memory: a cookie and a table of our own ---- */

/* The path the visitor sees this shop under, so that two shops of one site keep two cookies.
 * Gateways that cut a prefix off tell it; the demo page, which knows its mounts, does as well. */
static void prefix_read(const struct app_request *request, char ret_prefix[PREFIX_BYTES_MAX + 1])
{
    const char *prefix = app_header(request, "X-Forwarded-Prefix");
    size_t bytes;

    if (prefix == NULL) {
        prefix = app_header(request, "Shop-Mount");
    }
    bytes = prefix != NULL ? strlen(prefix) : 0;
    while (bytes > 1 && prefix[bytes - 1] == '/') {
        bytes--;
    }
    memcpy(ret_prefix, "/", 2);
    if (bytes > 0 && bytes <= PREFIX_BYTES_MAX && prefix[0] == '/') {
        for (size_t i = 0; i < bytes; i++) {
            if (!isalnum((unsigned char)prefix[i]) && strchr("-._~/", prefix[i]) == NULL) {
                return;
            }
        }
        memcpy(ret_prefix, prefix, bytes);
        ret_prefix[bytes] = '\0';
    }
}

static void cookie_write(const struct app_request *request, struct app_answer *answer,
                         const char *id)
{
    char prefix[PREFIX_BYTES_MAX + 1];
    char *cookie;

    prefix_read(request, prefix);
    cookie = app_format(COOKIE_NAME "=%s; Path=%s; HttpOnly; SameSite=Lax%s", id, prefix,
                        id[0] == '\0' ? "; Max-Age=0" : "");
    app_answer_header(answer, "Set-Cookie", cookie);
    free(cookie);
}

/* With the memory locked. */
static void memory_store(struct memory *memory, const struct visit *visit, const char *id_known,
                         struct app_answer *answer)
{
    char id[MEMORY_ID_BYTES + 1] = "";

    switch (visit->order.action) {
    case SHOP_LOGOUT:
        memory_remove(memory, id_known);
        cookie_write(visit->request, answer, "");
        return;
    case SHOP_LOGIN: /* a new id, for the same reason as above */
        memory_remove(memory, id_known);
        memory_id_new(id);
        break;
    case SHOP_LOOK:
    case SHOP_OPEN:
    case SHOP_ADD:
    case SHOP_REMOVE:
    case SHOP_CHECKOUT:
        if (id_known[0] != '\0') {
            memcpy(id, id_known, sizeof(id));
        } else {
            memory_id_new(id);
        }
        break;
    }
    memory_put(memory, id, &visit->state);
    if (strcmp(id, id_known) != 0) {
        cookie_write(visit->request, answer, id);
    }
}

/* ---- one request ---- */

static unsigned refusal_status(enum shop_action action)
{
    return action == SHOP_REMOVE ? 404 : 409;
}

static const char *visit_handed(struct visit *visit, struct app_answer *answer,
                                unsigned *ret_status)
{
    const char *wrong = handed_load(visit);

    if (wrong != NULL) {
        *ret_status = 500;
        return wrong;
    }
    wrong = shop_apply(&visit->state, &visit->order);
    if (wrong != NULL) {
        *ret_status = refusal_status(visit->order.action);
    } else if (visit->order.action != SHOP_LOOK) {
        handed_store(visit, answer);
    }
    return wrong;
}

static const char *visit_memory(struct memory *memory, struct visit *visit,
                                struct app_answer *answer, unsigned *ret_status)
{
    char id[MEMORY_ID_BYTES + 1];
    const struct shop_state *known;
    const char *wrong;

    /* An id we do not know may come from another instance, or from our former self. We take it
     * over, so that each instance remembers its part of the visits; at login it changes anyway. */
    if (!app_cookie(visit->request, COOKIE_NAME, id, sizeof(id)) || !memory_id_valid(id)) {
        id[0] = '\0';
    }
    memory_lock(memory); /* from finding to storing, or two requests at once would lose one item */
    known = memory_find(memory, id);
    if (known != NULL) {
        visit->state = *known;
    }
    wrong = shop_apply(&visit->state, &visit->order);
    if (wrong != NULL) {
        *ret_status = refusal_status(visit->order.action);
    } else if (visit->order.action != SHOP_LOOK) {
        memory_store(memory, visit, id, answer);
    }
    memory_unlock(memory);
    return wrong;
}

static void answer_visit(struct shop *shop, const struct app_request *request,
                         const struct endpoint_row *row, struct app_answer *answer)
{
    struct visit visit = {.request = request};
    unsigned status = 200;
    const char *wrong;
    json_t *root;

    if (!order_read(&visit, row, answer)) {
        return;
    }
    visit.handed = app_header(request, "Stateway-State-Info") != NULL;
    wrong = visit.handed ? visit_handed(&visit, answer, &status)
                         : visit_memory(shop->memory, &visit, answer, &status);
    if (wrong != NULL) {
        answer_error(request, answer, status, wrong);
        return;
    }
    root = answer_state(&visit);
    if (row->endpoint == AT_CATALOGUE) {
        json_object_set_new(root, "catalogue", shop_catalogue_json());
    }
    answer_json(answer, status, root);
}

static bool slow_wait(const struct app_request *request)
{
    char text[ARGUMENT_BYTES];
    unsigned long ms = 1000;
    char *end = text;

    if (argument(request, "ms", text)) {
        ms = strtoul(text, &end, 10);
        if (!isdigit((unsigned char)text[0]) || *end != '\0' || ms > SLOW_MS_MAX) {
            return false;
        }
    }
    struct timespec pause = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&pause, &pause) != 0 && errno == EINTR) {
    }
    return true;
}

static void answer_page(const struct shop *shop, const struct app_request *request,
                        struct app_answer *answer)
{
    json_t *root;
    json_t *list;

    if (!app_query_has(request, "json")) {
        *answer = (struct app_answer){.status = 200,
                                      .type = "text/html; charset=utf-8",
                                      .body_shared = shop->page,
                                      .body_bytes = shop->page_bytes};
        app_answer_header(answer, "Cache-Control", "no-cache");
        app_answer_header(answer, "X-Content-Type-Options", "nosniff");
        app_answer_header(answer, "Content-Security-Policy",
                          "default-src 'none'; style-src 'unsafe-inline'; "
                          "script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
                          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
        return;
    }
    root = answer_begin(request);
    list = app_need(json_array());
    for (size_t i = 0; i < ENDPOINT_COUNT; i++) {
        const struct endpoint_row *row = &endpoints[i];
        size_t bytes = strlen(row->path);
        bool item = bytes > 1 && row->path[bytes - 1] == '/';

        json_array_append_new(list, json_pack("{s:s, s:s+, s:s}", "method", row->method, "path",
                                              row->path, item ? "ID" : "", "about", row->about));
    }
    json_object_set_new(root, "endpoints", list);
    answer_json(answer, 200, root);
}

/* What a browser's cookies hold, for the demo page to explain: a script cannot read those that are
 * HttpOnly, and a shop that is no demonstration must not help it to. */
static void answer_carried(const struct shop *shop, const struct app_request *request,
                           struct app_answer *answer)
{
    const char *header = app_header(request, "Cookie");
    json_t *root;

    if (!shop->show_cookies) {
        answer_error(request, answer, 403, "start the shop with SHOP_SHOW_COOKIES=1 for this");
        return;
    }
    root = answer_begin(request);
    json_object_set_new(root, "cookies", json_string(header != NULL ? header : ""));
    answer_json(answer, 200, root);
}

static bool path_matches(const struct endpoint_row *row, const char *path)
{
    size_t bytes = strlen(row->path);

    if (bytes > 1 && row->path[bytes - 1] == '/') {
        return strncmp(path, row->path, bytes) == 0 && path[bytes] != '\0';
    }
    return strcmp(path, row->path) == 0;
}

/* NULL after answering 404 or 405. */
static const struct endpoint_row *endpoint_find(const struct app_request *request,
                                                struct app_answer *answer)
{
    char allow[64] = "";

    for (size_t i = 0; i < ENDPOINT_COUNT; i++) {
        if (!path_matches(&endpoints[i], request->path)) {
            continue;
        }
        if (strcmp(endpoints[i].method, request->method) == 0) {
            return &endpoints[i];
        }
        size_t used = strlen(allow);

        snprintf(allow + used, sizeof(allow) - used, "%s%s%s", used > 0 ? ", " : "",
                 endpoints[i].method, strcmp(endpoints[i].method, "GET") == 0 ? ", HEAD" : "");
    }
    if (allow[0] == '\0') {
        answer_error(request, answer, 404, "there is nothing here; /?json lists what there is");
    } else {
        answer_error(request, answer, 405, "this path is not for that method; see Allow");
        app_answer_header(answer, "Allow", allow);
    }
    return NULL;
}

static void serve(void *context, const struct app_request *request, struct app_answer *answer)
{
    struct shop *shop = context;
    const struct endpoint_row *row = endpoint_find(request, answer);

    if (row == NULL) {
        return;
    }
    switch (row->endpoint) {
    case AT_PAGE:
        answer_page(shop, request, answer);
        return;
    case AT_CATALOGUE:
    case AT_STATE:
        answer_visit(shop, request, row, answer);
        return;
    case AT_SLOW:
        if (!slow_wait(request)) {
            answer_error(request, answer, 400, "ms=N is not a number from 0 to 60000");
            return;
        }
        answer_visit(shop, request, row, answer);
        return;
    case AT_CARRIED:
        answer_carried(shop, request, answer);
        return;
    case AT_HEALTH: {
        json_t *root = answer_begin(request);

        json_object_set_new(root, "status", json_string("ok"));
        answer_json(answer, 200, root);
        return;
    }
    case AT_CRASH:
        if (!shop->allow_crash) {
            answer_error(request, answer, 403, "start the shop with --allow-crash for this");
            return;
        }
        kill(getpid(), SIGKILL); /* what no handler can soften, as a crash is */
        return;
    }
}

/* ---- start ---- */

static bool mount_part_valid(const char *part, size_t bytes, const char *more)
{
    for (size_t i = 0; i < bytes; i++) {
        if (!isalnum((unsigned char)part[i]) && strchr(more, part[i]) == NULL) {
            return false;
        }
    }
    return bytes > 0;
}

/* SHOP_MOUNTS: "none=/none,session=/session": under which paths the gateway serves this shop, and
 * with which placement. NULL, after a message, when it is something else. */
static json_t *mounts_read(const char *text)
{
    json_t *mounts = app_need(json_array());

    while (text != NULL && *text != '\0') {
        size_t bytes = strcspn(text, ",");
        size_t name_bytes = strcspn(text, "=,");
        const char *base = text + name_bytes + 1;
        size_t base_bytes = bytes > name_bytes ? bytes - name_bytes - 1 : 0;

        if (!mount_part_valid(text, name_bytes, "-_") || base_bytes == 0 || base[0] != '/' ||
            !mount_part_valid(base, base_bytes, "-._~/")) {
            fprintf(stderr, "shop: SHOP_MOUNTS is a list such as none=/none,session=/session\n");
            json_decref(mounts);
            return NULL;
        }
        while (base_bytes > 0 && base[base_bytes - 1] == '/') {
            base_bytes--;
        }
        json_array_append_new(mounts, json_pack("{s:s%, s:s%}", "placement", text, name_bytes,
                                                "base", base, base_bytes));
        text += bytes;
        text += *text == ',';
    }
    return mounts;
}

/* The page with its data in it. What goes in was checked above, or is ours: none of it needs to be
 * escaped for HTML. */
static bool page_make(struct shop *shop, const char *mounts_text)
{
    const char *mark = memmem(shop_page, shop_page_bytes, PAGE_DATA_MARK, strlen(PAGE_DATA_MARK));
    size_t before = mark != NULL ? (size_t)(mark - (const char *)shop_page) : 0;
    size_t after = shop_page_bytes - before - strlen(PAGE_DATA_MARK);
    json_t *mounts = mounts_read(mounts_text);
    json_t *data;
    char *text;

    if (mark == NULL || mounts == NULL) {
        json_decref(mounts);
        return false;
    }
    data = json_pack("{s:o, s:o, s:b, s:b}", "mounts", mounts, "catalogue", shop_catalogue_json(),
                     "crash", (int)shop->allow_crash, "carried", (int)shop->show_cookies);
    text = app_need(json_dumps(app_need(data), JSON_COMPACT));
    json_decref(data);
    shop->page_bytes = before + strlen(text) + after;
    shop->page = app_need(malloc(shop->page_bytes));
    memcpy(shop->page, shop_page, before);
    memcpy(shop->page + before, text, strlen(text));
    memcpy(shop->page + before + strlen(text), mark + strlen(PAGE_DATA_MARK), after);
    free(text);
    return true;
}

static bool switched_on(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && strcmp(value, "1") == 0;
}

int main(int argc, char **argv)
{
    struct shop shop = {.allow_crash = switched_on("SHOP_ALLOW_CRASH"),
                        .show_cookies = switched_on("SHOP_SHOW_COOKIES")};
    struct app_options options;
    int code;

    if (!app_options_init(&options, "shop", 3000)) {
        return EXIT_FAILURE;
    }
    for (int i = 1; i < argc;) {
        int used = app_options_take(&options, argc, argv, i);

        if (used == 0 && strcmp(argv[i], "--allow-crash") == 0) {
            shop.allow_crash = true;
            used = 1;
        }
        if (used <= 0) {
            fputs(
                "usage: shop [--port N | --socket PATH] [--allow-crash]\n"
                "environment: PORT, SHOP_ALLOW_CRASH=1, SHOP_SHOW_COOKIES=1,\n"
                "             SHOP_MOUNTS=none=/none,session=/session\n",
                stderr);
            return EXIT_FAILURE;
        }
        i += used;
    }
    if (!page_make(&shop, getenv("SHOP_MOUNTS"))) {
        return EXIT_FAILURE;
    }
    shop.memory = memory_new();
    code = app_serve(&options, serve, &shop);
    memory_free(shop.memory);
    free(shop.page);
    return code;
}
