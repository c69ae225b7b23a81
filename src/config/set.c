/* config/set.c - keys with a form of their own: addresses, networks, apps, routes, patterns.
 *
 * Each function complains about what it refuses and leaves the default in place.
 */
#include "config/config_priv.h"

#include <arpa/inet.h>

#define TEXT_BYTES_MAX 4096u
#define HEADERS_MAX    16u
#define METHODS_MAX    32u
#define CAPTURES_MAX   8u /* route/'s SW_ROUTE_CAPTURES_MAX */

static const char *leaf(const struct sw_key_row *row)
{
    return sw_schema__leaf(row->path);
}

/* ---- characters ---------------------------------------------------------------------------------
 */

static bool alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool all(struct sw_slice s, const char *others)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!alnum(s.ptr[i]) && (s.ptr[i] == '\0' || strchr(others, s.ptr[i]) == NULL)) {
            return false;
        }
    }
    return true;
}

bool sw_set__is_token(struct sw_slice s)
{
    return s.len > 0 && all(s, "!#$%&'*+-.^_`|~");
}

bool sw_set__has_control(struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7f) {
            return true;
        }
    }
    return false;
}

/* A path of a URL as it may stand in a request (RFC 3986, 3.3), without query and dot segments. */
static const char *url_path(struct sw_slice s, const char *others)
{
    struct sw_slice rest = s, segment;

    if (s.len == 0 || s.ptr[0] != '/') {
        return "must begin with /";
    }
    if (s.len > 1024) {
        return "must not be longer than 1024 bytes";
    }
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (c == '%') {
            uint64_t ignored;

            if (i + 2 >= s.len || !sw_slice_hex_u64(sw_slice_of(s.ptr + i + 1, 2), &ignored)) {
                return "has a % without two hexadecimal digits behind it";
            }
            continue;
        }
        if (!alnum(c) &&
            (c == '\0' || (strchr("/-._~!$&'()+,;=:@", c) == NULL && strchr(others, c) == NULL))) {
            return "must be a path as it stands in a request (no blanks, ? or #; others "
                   "percent-encoded)";
        }
    }
    while (rest.len > 0) {
        (void)sw_slice_cut(rest, '/', &segment, &rest);
        if (sw_slice_eq(segment, SW_S(".")) || sw_slice_eq(segment, SW_S(".."))) {
            return "must have no . or .. segments";
        }
    }
    return sw_slice_ends(s, SW_S("/.")) || sw_slice_ends(s, SW_S("/.."))
               ? "must have no . or .. segments"
               : NULL;
}

const char *sw_set__check_path(struct sw_slice text)
{
    if (text.len == 0) {
        return "must not be empty";
    }
    return text.len < TEXT_BYTES_MAX && !sw_set__has_control(text) ? NULL
                                                                   : "must be the path of a file";
}

const char *sw_set__check_secret(struct sw_slice text)
{
    if (text.len < 8) {
        return "must have 8 bytes at least";
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] <= 0x20 || text.ptr[i] == 0x7f) {
            return "must be visible ASCII without blanks";
        }
    }
    return text.len <= 1024 ? NULL : "must not be longer than 1024 bytes";
}

const char *sw_set__check_url_path(struct sw_slice text)
{
    return url_path(text, "*?");
}

const char *sw_set__check_strip(struct sw_slice text)
{
    const char *why = url_path(text, "");

    if (why != NULL) {
        return why;
    }
    return text.len > 1 && text.ptr[text.len - 1] != '/' ? NULL
                                                         : "must name a segment and not end with /";
}

const char *sw_set__check_cookie_name(struct sw_slice text)
{
    if (!sw_set__is_token(text) || text.len > 128) {
        return "must be letters, digits and - _ . (a token), at most 128";
    }
    return sw_slice_starts_nocase(text, SW_S("__"))
               ? "gets its __Host- from stateway where that is allowed"
               : NULL;
}

const char *sw_set__check_cookie_path(struct sw_slice text)
{
    const char *why = url_path(text, "");

    if (why != NULL) {
        return why;
    }
    if (sw_slice_find(text, ';') < text.len) {
        return "must have no ;";
    }
    return text.len == 1 || text.ptr[text.len - 1] != '/' ? NULL
                                                          : "must not end with / (but / itself)";
}

/* ---- addresses ----------------------------------------------------------------------------------
 */

bool sw_set__addr(struct sw_config_ctx *x, struct sw_node *n, const char *who, struct sw_slice text,
                  bool names, struct sw_addr *ret_addr)
{
    bool look_up = (names || sw_slice_starts(text, SW_S("localhost:"))) && x->world->names;
    enum sw_err err = text.len < 512 ? sw_addr_parse(text, look_up, ret_addr) : SW_E_SYNTAX;
    struct sw_slice said = n->secret ? sw_config__said(n) : sw_config__short(text);
    uint64_t port;

    if (err == SW_OK) {
        return true;
    }
    if (err != SW_E_SYNTAX) {
        sw_schema__bad(
            x, n,
            "%s: the name in `%.*s` is not known here; write a numeric address, or start "
            "when the name can be looked up",
            who, SW_SARG(said));
    } else if (sw_slice_u64(text, &port)) {
        sw_schema__bad(x, n,
                       "%s needs HOST:PORT, [::]:PORT or unix:PATH, and this is a port; write "
                       "127.0.0.1:%.*s",
                       who, SW_SARG(said));
    } else if (sw_slice_starts(text, SW_S(":"))) {
        sw_schema__bad(x, n,
                       "%s needs HOST:PORT, and the host is missing; write 0.0.0.0%.*s for all "
                       "addresses of this machine",
                       who, SW_SARG(said));
    } else if (sw_slice_find(text, ':') == text.len) {
        sw_schema__bad(x, n, "%s needs HOST:PORT, [::]:PORT or unix:PATH, and `%.*s` has no port",
                       who, SW_SARG(said));
    } else {
        sw_schema__bad(x, n, "%s needs HOST:PORT%s, [::]:PORT or unix:PATH, and this is `%.*s`",
                       who, names ? "" : " with a numeric host", SW_SARG(said));
    }
    return false;
}

void sw_set__listen_address(struct sw_config_ctx *x, const struct sw_key_row *row,
                            struct sw_node *n)
{
    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "HOST:PORT, [::]:PORT or unix:PATH")) {
        return;
    }
    /* An address it is, or localhost: clients must not depend on who answers a look-up. */
    if (sw_set__addr(x, n, "`address`", n->text, false, &x->listen->addr)) {
        x->listen->text = sw_schema__keep(x, n->text);
    }
}

void sw_set__listen(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    const char *where = x->where;

    if (n->kind == SW_NODE_TEXT && !sw_node__empty(n)) {
        sw_schema__bad(x, n,
                       "`listen` needs a list of maps; write: listen: [ { address: \"%.*s\" } ]",
                       SW_SARG(sw_config__said(n)));
        return;
    }
    if (!sw_schema__want(x, row, n, SW_NODE_LIST,
                         "a list of maps: [ { address: 127.0.0.1:8080 } ]")) {
        return;
    }
    if (n->count == 0 || n->count > SW_LISTEN_MAX) {
        sw_schema__bad(x, n, "`listen` needs 1 to %u places, these are %u", SW_LISTEN_MAX,
                       n->count);
        return;
    }
    x->config->listen_count = 0;
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        if (item->bad) {
            continue;
        }
        if (item->kind != SW_NODE_MAP) {
            sw_schema__bad(x, item,
                           "`listen` needs maps in its list, this is %s; write: - address: "
                           "127.0.0.1:8080",
                           sw_node__what(item));
            continue;
        }
        x->listen = &x->config->listen[x->config->listen_count];
        *x->listen = (struct sw_config_listen){.line = item->line};
        x->where = "listen[]";
        sw_schema__walk(x, "listen[]", item);
        x->where = where;
        if (x->listen->addr.len != 0) {
            x->config->listen_count++;
        }
    }
    x->listen = NULL;
}

/* "10.0.0.0/8" -> net; NULL, or what is wrong. */
static const char *net_parse(struct sw_slice text, struct sw_config_net *net, bool *ret_loose)
{
    char host[INET6_ADDRSTRLEN + 1];
    struct sw_slice ip, bits_text;
    bool has_bits = sw_slice_cut(text, '/', &ip, &bits_text);
    uint64_t bits, bits_max;
    struct sw_config_net whole;

    if (ip.len == 0 || ip.len >= sizeof(host)) {
        return "needs networks such as 10.0.0.0/8, fd00::/8 or 192.0.2.7";
    }
    memcpy(host, ip.ptr, ip.len);
    host[ip.len] = '\0';
    *net = (struct sw_config_net){.addr = {[10] = 0xff, [11] = 0xff}};
    if (inet_pton(AF_INET, host, net->addr + 12) == 1) {
        bits_max = 32;
    } else if (inet_pton(AF_INET6, host, net->addr) == 1) {
        bits_max = 128;
    } else {
        return "needs networks such as 10.0.0.0/8, fd00::/8 or 192.0.2.7";
    }
    bits = bits_max;
    if (has_bits && (!sw_slice_u64(bits_text, &bits) || bits > bits_max)) {
        return bits_max == 32 ? "needs /0 to /32 behind the address"
                              : "needs /0 to /128 behind the address";
    }
    net->bits = (uint8_t)(bits_max == 32 ? bits + 96 : bits);
    whole = *net;
    for (unsigned bit = net->bits; bit < 128; bit++) {
        net->addr[bit / 8] &= (uint8_t) ~(0x80u >> (bit % 8));
    }
    *ret_loose = memcmp(whole.addr, net->addr, sizeof(whole.addr)) != 0;
    return NULL;
}

static void loose_net(struct sw_config_ctx *x, struct sw_node *n, const struct sw_config_net *net)
{
    char text[INET6_ADDRSTRLEN] = "";
    bool v4 = sw_slice_find(n->text, ':') == n->text.len;

    (void)inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? net->addr + 12 : net->addr, text, sizeof(text));
    sw_schema__bad(x, n,
                   "`%.*s` names a host and a network; write %s/%u for the network, or the address "
                   "without /",
                   SW_SARG(sw_config__said(n)), text, v4 ? net->bits - 96u : net->bits);
}

void sw_set__trusted(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_config *c = x->config;
    struct sw_slice *texts;
    struct sw_config_net *nets;

    if (!sw_schema__want(x, row, n, SW_NODE_LIST, "a list of networks: [10.0.0.0/8]")) {
        return;
    }
    texts = sw_arena_array(x->arena, n->count, struct sw_slice);
    nets = sw_arena_array(x->arena, n->count, struct sw_config_net);
    if (texts == NULL || nets == NULL) {
        return;
    }
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        const char *why;
        bool loose = false;

        if (item->bad || !sw_schema__want(x, row, item, SW_NODE_TEXT, "networks in its list")) {
            continue;
        }
        if (sw_slice_eq(item->text, SW_S("unix"))) {
            c->trusted_unix = true;
            texts[c->trusted_count++] = sw_schema__keep(x, item->text);
            continue;
        }
        why = net_parse(item->text, &nets[c->net_count], &loose);
        if (why != NULL) {
            sw_schema__bad(x, item, "`trusted` %s, and this is `%.*s`", why,
                           SW_SARG(sw_config__said(item)));
        } else if (loose) {
            loose_net(x, item, &nets[c->net_count]);
        } else {
            texts[c->trusted_count++] = sw_schema__keep(x, item->text);
            c->net_count++;
        }
    }
    c->trusted = texts;
    c->nets = nets;
}

void sw_set__admin(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    if (n->kind == SW_NODE_TEXT && sw_slice_eq(n->text, SW_S("off"))) {
        x->config->admin_addr = (struct sw_addr){.len = 0};
        x->config->admin_text = SW_S("off");
        return;
    }
    if (n->kind == SW_NODE_TEXT && !sw_node__empty(n)) {
        sw_schema__bad(x, n, "`admin` needs a map or off; write: admin: { address: \"%.*s\" }",
                       SW_SARG(sw_config__said(n)));
        return;
    }
    if (sw_schema__want(x, row, n, SW_NODE_MAP, "a map of keys, or off")) {
        sw_schema__walk(x, "admin", n);
    }
}

void sw_set__admin_address(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "HOST:PORT or unix:PATH")) {
        return;
    }
    if (sw_set__addr(x, n, "`address`", n->text, false, &x->config->admin_addr)) {
        x->config->admin_text = sw_schema__keep(x, n->text);
    }
}

void sw_set__side_address(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "HOST:PORT, or off")) {
        return;
    }
    if (sw_slice_eq(n->text, SW_S("off"))) {
        x->config->side_addr = (struct sw_addr){.len = 0};
        x->config->side_text = SW_S("off");
        return;
    }
    if (sw_slice_starts(n->text, SW_S("unix:"))) {
        sw_schema__bad(x, n, "`address` of `side` is HOST:PORT: apps reach it by a URL");
        return;
    }
    if (sw_set__addr(x, n, "`address`", n->text, false, &x->config->side_addr)) {
        x->config->side_text = sw_schema__keep(x, n->text);
    }
}

/* ---- store, workers
 * ------------------------------------------------------------------------------ */

bool sw_set__store_text(struct sw_config_ctx *x, struct sw_node *n, const char *who,
                        struct sw_slice text)
{
    static const char *const embedded[] = {"lmdb", "journal"};
    static const char *const later[] = {"redis:", "redis+sentinel:", "redis+cluster:", "rediss:"};
    struct sw_slice said = n->secret ? sw_config__said(n) : sw_config__short(text);

    if (sw_slice_eq(text, SW_S("memory:"))) {
        x->config->store_kind = SW_S("memory");
        x->config->store_path = SW_S("");
        return true;
    }
    for (size_t i = 0; i < SW_COUNTOF(embedded); i++) {
        struct sw_slice kind = sw_slice_cstr(embedded[i]);

        if (sw_slice_starts(text, kind) && text.len > kind.len && text.ptr[kind.len] == ':' &&
            sw_set__check_path(sw_slice_tail(text, kind.len + 1)) == NULL) {
            x->config->store_kind = kind;
            x->config->store_path = sw_schema__keep(x, sw_slice_tail(text, kind.len + 1));
            return true;
        }
    }
    for (size_t i = 0; i < SW_COUNTOF(later); i++) {
        if (sw_slice_starts(text, sw_slice_cstr(later[i]))) {
            sw_schema__bad(x, n,
                           "%s: `%s` is not in this version (0.1); it has lmdb:PATH, journal:PATH "
                           "and memory:",
                           who, later[i]);
            return false;
        }
    }
    sw_schema__bad(x, n,
                   "%s needs lmdb:PATH, journal:PATH or memory:, and this is `%.*s`; for a folder "
                   "write lmdb:./state",
                   who, SW_SARG(said));
    return false;
}

void sw_set__store(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    if (sw_schema__want(x, row, n, SW_NODE_TEXT, "lmdb:PATH, journal:PATH or memory:")) {
        (void)sw_set__store_text(x, n, "`store`", n->text);
    }
}

void sw_set__rotate(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_key_row duration = *row;

    if (n->kind == SW_NODE_TEXT && sw_slice_eq(n->text, SW_S("off"))) {
        x->config->keys_rotate_s = 0;
        return;
    }
    duration.kind = SW_KIND_SECONDS;
    (void)sw_schema__value(x, &duration, n);
}

void sw_set__workers(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    uint64_t value = 0;

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "a number or auto")) {
        return;
    }
    if (!sw_slice_eq(n->text, SW_S("auto")) &&
        (!sw_slice_u64(n->text, &value) || value < 1 || value > 256)) {
        sw_schema__bad(x, n, "`workers` needs 1 to 256 or auto, and this is `%.*s`",
                       SW_SARG(sw_config__said(n)));
        return;
    }
    x->config->workers = (uint32_t)value;
}

/* ---- apps
 * ---------------------------------------------------------------------------------------- */

static const char *app_name_why(struct sw_slice name)
{
    if (name.len == 0 || name.len > 63) {
        return "must have 1 to 63 characters";
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-') {
            return "may have small letters, digits and hyphens";
        }
    }
    return NULL;
}

void sw_set__apps(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_config *c = x->config;
    const char *where = x->where;

    if (n->kind == SW_NODE_LIST) {
        sw_schema__bad(x, n,
                       "`apps` needs a map, this is a list; write the name first: apps: { web: { "
                       "command: [...] } }");
        return;
    }
    if (!sw_schema__want(x, row, n, SW_NODE_MAP,
                         "a map of apps: { web: { command: [node, server.js] } }")) {
        return;
    }
    if (n->count == 0 || n->count > SW_APPS_MAX) {
        sw_schema__bad(x, n, "`apps` needs 1 to %u apps, these are %u", SW_APPS_MAX, n->count);
        return;
    }
    c->apps = sw_arena_array(x->arena, n->count, struct sw_config_app);
    x->app_nodes = sw_arena_array(x->arena, n->count, struct sw_node *);
    if (c->apps == NULL || x->app_nodes == NULL) {
        return;
    }
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        const char *why = app_name_why(item->key);
        char deeper[96];

        x->app = &c->apps[c->app_count];
        x->app->name = sw_schema__keep(x, item->key);
        x->app->line = item->key_line;
        x->app_nodes[c->app_count++] = item;
        (void)snprintf(deeper, sizeof(deeper), "apps.%.*s", SW_QARG(item->key));
        x->where = deeper;
        if (why != NULL) {
            sw_config__error(x->errors, item->key_line, item->key_column,
                             "the name of an app %s: `%.*s`", why, SW_QARG(item->key));
        }
        if (!item->bad && item->kind != SW_NODE_MAP) {
            sw_schema__bad(x, item, "%s needs a map with `command` or `servers`, this is %s",
                           deeper, sw_node__what(item));
        }
        sw_schema__walk(x, "apps.*", item->kind == SW_NODE_MAP ? item : NULL);
        x->where = where;
    }
    x->app = NULL;
}

void sw_set__command(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    const char **argv;
    size_t count = 0;

    if (n->kind == SW_NODE_TEXT && !sw_node__empty(n)) {
        sw_schema__bad(
            x, n,
            "`command` needs a list, one text an argument, this is a text; write: [node, "
            "server.js]");
        return;
    }
    if (!sw_schema__want(x, row, n, SW_NODE_LIST, "a list of texts")) {
        return;
    }
    argv = sw_arena_array(x->arena, (size_t)n->count + 1, const char *);
    if (argv == NULL) {
        return;
    }
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        if (item->bad) {
            n->bad = true;
        } else if (item->kind != SW_NODE_TEXT) {
            n->bad = true;
            sw_schema__bad(x, item, "`command` needs texts in its list, this is %s%s",
                           sw_node__what(item),
                           item->kind == SW_NODE_MAP ? "; put {port} and {socket} in quotes" : "");
        } else {
            argv[count++] = sw_schema__keep(x, item->text).ptr;
        }
    }
    if (n->count == 0 ||
        (n->first->kind == SW_NODE_TEXT && !n->first->bad && n->first->text.len == 0)) {
        sw_schema__bad(x, n, "`command` needs a program to run; write: [node, server.js]");
        return;
    }
    if (!n->bad) {
        x->app->command = argv;
    }
}

static bool env_name(struct sw_slice s)
{
    return s.len > 0 && s.len <= 255 && all(s, "_") && !(s.ptr[0] >= '0' && s.ptr[0] <= '9');
}

void sw_set__environment(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_config_env *env;
    size_t count = 0;

    if (!sw_schema__want(x, row, n, SW_NODE_MAP, "a map of texts: { NODE_ENV: production }")) {
        return;
    }
    env = sw_arena_array(x->arena, n->count, struct sw_config_env);
    if (env == NULL) {
        return;
    }
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        if (!env_name(item->key)) {
            sw_config__error(x->errors, item->key_line, item->key_column,
                             "the name of a variable may have letters, digits and _: `%.*s`",
                             SW_QARG(item->key));
        } else if (sw_slice_eq(item->key, SW_S("PORT"))) {
            sw_config__error(x->errors, item->key_line, item->key_column,
                             "`PORT` is what stateway tells the command; take it out");
        } else if (!item->bad && item->kind != SW_NODE_TEXT) {
            sw_schema__bad(x, item, "`%.*s` in `environment` needs a text, this is %s",
                           SW_QARG(item->key), sw_node__what(item));
        } else if (!item->bad) {
            env[count++] = (struct sw_config_env){sw_schema__keep(x, item->key),
                                                  sw_schema__keep(x, item->text)};
        }
    }
    x->app->environment = env;
    x->app->environment_count = count;
}

void sw_set__replicas(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_key_row number = *row;

    if (n->kind == SW_NODE_MAP) {
        sw_schema__bad(
            x, n,
            "`replicas` as a map (scaling by load) is not in this version (0.1); write a "
            "number");
        return;
    }
    number.kind = SW_KIND_COUNT;
    (void)sw_schema__value(x, &number, n);
}

void sw_set__server_address(struct sw_config_ctx *x, const struct sw_key_row *row,
                            struct sw_node *n)
{
    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "HOST:PORT or unix:PATH")) {
        return;
    }
    if (sw_set__addr(x, n, "`address`", n->text, true, &x->server->addr)) {
        x->server->text = sw_schema__keep(x, n->text);
    }
}

/* A server's short form is its address. */
static void server(struct sw_config_ctx *x, struct sw_node *item)
{
    if (item->kind == SW_NODE_MAP) {
        sw_schema__walk(x, "apps.*.servers[]", item);
        return;
    }
    sw_schema__walk(x, "apps.*.servers[]", NULL);
    if (item->kind == SW_NODE_LIST || sw_node__empty(item)) {
        sw_schema__bad(x, item, "`servers` needs addresses or maps in its list, this is %s",
                       sw_node__what(item));
    } else if (sw_set__addr(x, item, "`servers`", item->text, true, &x->server->addr)) {
        x->server->text = sw_schema__keep(x, item->text);
    }
}

void sw_set__servers(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    const char *where = x->where;
    struct sw_config_server *servers;
    size_t count = 0;

    if (!sw_schema__want(x, row, n, SW_NODE_LIST, "a list of addresses: [\"10.0.0.5:8000\"]")) {
        return;
    }
    if (n->count == 0 || n->count > SW_REPLICAS_MAX) {
        sw_schema__bad(x, n, "`servers` needs 1 to %u addresses, these are %u", SW_REPLICAS_MAX,
                       n->count);
        return;
    }
    servers = sw_arena_array(x->arena, n->count, struct sw_config_server);
    if (servers == NULL) {
        return;
    }
    x->where = "servers[]";
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        if (item->bad) {
            continue;
        }
        x->server = &servers[count];
        server(x, item);
        if (x->server->addr.len == 0) {
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            if (sw_slice_eq(servers[i].text, x->server->text)) {
                sw_schema__bad(x, item, "`%.*s` is in `servers` twice; give it a weight instead",
                               SW_SARG(sw_config__said(item->kind == SW_NODE_TEXT
                                                           ? item
                                                           : sw_node__get(item, "address"))));
            }
        }
        count++;
    }
    x->server = NULL;
    x->where = where;
    x->app->servers = servers;
    x->app->server_count = count;
}

/* ---- routes
 * -------------------------------------------------------------------------------------- */

void sw_set__routes(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_config *c = x->config;
    const char *where = x->where;

    if (!sw_schema__want(x, row, n, SW_NODE_LIST, "a list of maps: [ { path: /*, app: web } ]")) {
        return;
    }
    if (n->count == 0 || n->count > SW_ROUTES_MAX) {
        sw_schema__bad(x, n, "`routes` needs 1 to %u routes, these are %u", SW_ROUTES_MAX,
                       n->count);
        return;
    }
    c->routes = sw_arena_array(x->arena, n->count, struct sw_config_route);
    x->route_nodes = sw_arena_array(x->arena, n->count, struct sw_node *);
    if (c->routes == NULL || x->route_nodes == NULL) {
        return;
    }
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        if (item->bad) {
            continue;
        }
        if (item->kind != SW_NODE_MAP) {
            sw_schema__bad(x, item,
                           "`routes` needs maps in its list, this is %s; write: - path: /*",
                           sw_node__what(item));
            continue;
        }
        x->route = &c->routes[c->route_count];
        x->route->line = item->line;
        x->route->index = (uint32_t)c->route_count;
        x->route_nodes[c->route_count++] = item;
        x->where = "routes[]";
        sw_schema__walk(x, "routes[]", item);
        x->where = where;
    }
    x->route = NULL;
}

static const char *host_why(struct sw_slice host)
{
    struct sw_slice rest = host, label;

    if (host.len > 253) {
        return "must not be longer than 253 characters";
    }
    if (sw_slice_starts(host, SW_S("*."))) {
        rest = sw_slice_tail(host, 2);
    }
    if (rest.len > 2 && rest.ptr[0] == '[' && rest.ptr[rest.len - 1] == ']') {
        char text[INET6_ADDRSTRLEN + 1];
        uint8_t ignored[16];
        struct sw_slice ip = sw_slice_of(rest.ptr + 1, rest.len - 2);

        if (rest.len != host.len || ip.len >= sizeof(text)) {
            return "must be a host name, or \"*.\" and one";
        }
        memcpy(text, ip.ptr, ip.len);
        text[ip.len] = '\0';
        return inet_pton(AF_INET6, text, ignored) == 1 ? NULL
                                                       : "has brackets around no IPv6 address";
    }
    if (sw_slice_find(rest, ':') < rest.len) {
        return "is written without port";
    }
    if (sw_slice_find(rest, '*') < rest.len) {
        return "may have one *, as its whole first label: \"*.shop.example\"";
    }
    do {
        (void)sw_slice_cut(rest, '.', &label, &rest);
        if (label.len == 0 || label.len > 63 || !all(label, "-_")) {
            return "must be a host name: labels of letters, digits and hyphens with dots between "
                   "them";
        }
    } while (rest.len > 0);
    return NULL;
}

void sw_set__host(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_slice host = n->text;
    const char *why;
    char *text;

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "a host name")) {
        return;
    }
    if (sw_slice_ends(host, SW_S(".")) && host.len > 1) {
        host.len--;
    }
    why = host_why(host);
    if (why != NULL) {
        sw_schema__bad(x, n, "`host` %s, and this is `%.*s`", why, SW_SARG(sw_config__said(n)));
        return;
    }
    text = sw_arena_cstr(x->arena, host);
    if (text == NULL) {
        return;
    }
    for (size_t i = 0; i < host.len; i++) {
        text[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] + ('a' - 'A') : text[i]);
    }
    x->route->host = sw_slice_of(text, host.len);
}

/* A {name} segment: NULL, or what is wrong. */
static const char *capture_why(struct sw_slice segment, struct sw_slice *names, size_t *count)
{
    struct sw_slice name;

    if (segment.len < 3 || segment.ptr[0] != '{' || segment.ptr[segment.len - 1] != '}') {
        return "has a {name} that is no whole segment; write /{name}/";
    }
    name = sw_slice_of(segment.ptr + 1, segment.len - 2);
    if (name.len > 32 || !all(name, "_-")) {
        return "has a {name} that is not 1 to 32 letters, digits, - and _";
    }
    for (size_t i = 0; i < *count; i++) {
        if (sw_slice_eq(names[i], name)) {
            return "has one {name} twice";
        }
    }
    if (*count == CAPTURES_MAX) {
        return "has more than 8 {name} segments";
    }
    names[(*count)++] = name;
    return NULL;
}

static const char *pattern_why(struct sw_slice path)
{
    const char *why = url_path(path, "{}*");
    struct sw_slice names[CAPTURES_MAX], rest = path, segment;
    size_t count = 0, segments = 0;

    if (why != NULL) {
        return why;
    }
    rest = sw_slice_tail(rest, 1);
    while (rest.len > 0) {
        bool more = sw_slice_cut(rest, '/', &segment, &rest);

        if (++segments > SW_ROUTE_SEGMENTS_MAX) {
            return "has more than 64 segments";
        }
        if (sw_slice_find(segment, '*') < segment.len && (segment.len != 1 || more)) {
            return segment.len == 1
                       ? "has a * before its end; {name} stands for one segment"
                       : "has a * inside a segment; it stands alone, at the end: /cart/*";
        }
        if (sw_slice_find(segment, '{') < segment.len ||
            sw_slice_find(segment, '}') < segment.len) {
            why = capture_why(segment, names, &count);
            if (why != NULL) {
                return why;
            }
        }
    }
    return NULL;
}

void sw_set__path(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    const char *why;

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "a path such as /cart/*")) {
        return;
    }
    why = pattern_why(n->text);
    if (why != NULL) {
        sw_schema__bad(x, n, "`path` %s, and this is `%.*s`", why, SW_SARG(sw_config__said(n)));
        return;
    }
    x->route->path = sw_schema__keep(x, n->text);
}

static const char *method_why(struct sw_slice m, const struct sw_slice *before, size_t count)
{
    bool small = false;

    if (!sw_set__is_token(m) || m.len > 32) {
        return "is no method";
    }
    for (size_t i = 0; i < m.len; i++) {
        small = small || (m.ptr[i] >= 'a' && m.ptr[i] <= 'z');
    }
    if (small) {
        return "is no method there is: they are written in capitals";
    }
    if (sw_slice_eq(m, SW_S("CONNECT"))) {
        return "is not served";
    }
    for (size_t i = 0; i < count; i++) {
        if (sw_slice_eq(before[i], m)) {
            return "is here twice";
        }
    }
    return NULL;
}

void sw_set__methods(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_slice *methods;
    size_t count = 0;

    if (!sw_schema__want(x, row, n, SW_NODE_LIST, "a list of methods: [GET, POST]")) {
        return;
    }
    if (n->count == 0 || n->count > METHODS_MAX) {
        sw_schema__bad(
            x, n, "`methods` needs 1 to %u methods, these are %u; without the key all are taken",
            METHODS_MAX, n->count);
        return;
    }
    methods = sw_arena_array(x->arena, n->count, struct sw_slice);
    if (methods == NULL) {
        return;
    }
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        const char *why;

        if (item->bad || !sw_schema__want(x, row, item, SW_NODE_TEXT, "methods in its list")) {
            continue;
        }
        why = method_why(item->text, methods, count);
        if (why != NULL) {
            sw_schema__bad(x, item, "`methods`: `%.*s` %s", SW_SARG(sw_config__said(item)), why);
            continue;
        }
        methods[count++] = sw_schema__keep(x, item->text);
    }
    x->route->methods = methods;
    x->route->method_count = count;
}

static const char *header_name_why(struct sw_slice name, const struct sw_config_env *before,
                                   size_t count)
{
    if (!sw_set__is_token(name) || name.len > 128) {
        return "is no name of a header";
    }
    if (sw_slice_eq_nocase(name, SW_S("host"))) {
        return "has a key of its own: `host` of the route";
    }
    if (sw_slice_starts_nocase(name, SW_S("stateway-"))) {
        return "is taken out of what clients send, so nothing could match";
    }
    for (size_t i = 0; i < count; i++) {
        if (sw_slice_eq_nocase(before[i].name, name)) {
            return "is here twice (capitals do not matter)";
        }
    }
    return NULL;
}

void sw_set__headers(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_config_env *headers;
    size_t count = 0;

    if (!sw_schema__want(x, row, n, SW_NODE_MAP, "a map of texts: { X-Beta: \"1\" }")) {
        return;
    }
    if (n->count > HEADERS_MAX) {
        sw_schema__bad(x, n, "`headers` may have %u headers, these are %u", HEADERS_MAX, n->count);
        return;
    }
    headers = sw_arena_array(x->arena, n->count, struct sw_config_env);
    if (headers == NULL) {
        return;
    }
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        const char *why = header_name_why(item->key, headers, count);

        if (why != NULL) {
            sw_config__error(x->errors, item->key_line, item->key_column, "`headers`: `%.*s` %s",
                             SW_QARG(item->key), why);
        } else if (!item->bad && item->kind != SW_NODE_TEXT) {
            sw_schema__bad(x, item, "`%.*s` in `headers` needs a text, this is %s",
                           SW_QARG(item->key), sw_node__what(item));
        } else if (!item->bad && sw_set__has_control(item->text)) {
            sw_schema__bad(x, item, "`%.*s` in `headers` has a control character in its value",
                           SW_QARG(item->key));
        } else if (!item->bad) {
            headers[count++] = (struct sw_config_env){
                sw_schema__keep(x, item->key), sw_schema__keep(x, sw_slice_trim(item->text))};
        }
    }
    x->route->headers = headers;
    x->route->header_count = count;
}

void sw_set__app(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    const struct sw_config *c = x->config;
    struct sw_slice near = {NULL, 0};
    unsigned distance = sw_config__slip(n->text) + 1;

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "the name of an app")) {
        return;
    }
    for (size_t i = 0; i < c->app_count; i++) {
        unsigned d = sw_config__distance(n->text, c->apps[i].name, distance);

        if (sw_slice_eq(n->text, c->apps[i].name)) {
            x->route->app = (uint32_t)i;
            return;
        }
        if (d < distance) {
            distance = d;
            near = c->apps[i].name;
        }
    }
    if (c->app_count == 0) {
        n->bad = true; /* what is wrong with `apps` was said */
    } else if (near.len > 0) {
        sw_schema__bad(x, n, "there is no app `%.*s`; did you mean `%.*s`?",
                       SW_SARG(sw_config__said(n)), SW_QARG(near));
    } else {
        sw_schema__bad(x, n,
                       "there is no app `%.*s`; add it to `apps`, or name one that is there: %.*s",
                       SW_SARG(sw_config__said(n)), SW_QARG(c->apps[0].name));
    }
}

#define KEY_FORMS "cookie, path.NAME, header.NAME, query.NAME or claim.NAME"

void sw_set__key(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    static const struct {
        const char *prefix;
        enum sw_key_source source;
    } sources[] = {{"path.", SW_KEY_PATH},
                   {"header.", SW_KEY_HEADER},
                   {"query.", SW_KEY_QUERY},
                   {"claim.", SW_KEY_CLAIM}};

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, KEY_FORMS)) {
        return;
    }
    if (sw_slice_eq(n->text, SW_S("cookie"))) {
        x->route->session.key_source = SW_KEY_COOKIE;
        return;
    }
    if (sw_slice_starts(n->text, SW_S("tls."))) {
        sw_schema__bad(x, n, "`key: %.*s` is not in this version (0.1); it has " KEY_FORMS,
                       SW_SARG(sw_config__said(n)));
        return;
    }
    for (size_t i = 0; i < SW_COUNTOF(sources); i++) {
        struct sw_slice prefix = sw_slice_cstr(sources[i].prefix), name;

        if (!sw_slice_starts(n->text, prefix)) {
            continue;
        }
        name = sw_slice_tail(n->text, prefix.len);
        if (!sw_set__is_token(name) || name.len > 64) {
            sw_schema__bad(x, n, "`key` needs a name behind %s, and this is `%.*s`",
                           sources[i].prefix, SW_SARG(sw_config__said(n)));
            return;
        }
        x->route->session.key_source = sources[i].source;
        x->route->session.key_name = sw_schema__keep(x, name);
        return;
    }
    sw_schema__bad(x, n, "`%s` needs " KEY_FORMS ", and this is `%.*s`", leaf(row),
                   SW_SARG(sw_config__said(n)));
}

/* One word, or a map with the details. */
void sw_set__idempotency(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    const struct sw_key_row *mode = sw_schema__row("routes[].idempotency.mode");
    struct sw_key_row word = *mode;

    if (n->kind == SW_NODE_MAP) {
        sw_schema__walk(x, row->path, n);
        return;
    }
    sw_schema__walk(x, row->path, NULL); /* the details' defaults */
    word.path = row->path;
    (void)sw_schema__value(x, &word, n);
}

void sw_set__principal(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_slice header = SW_S("header."), name;

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "visitor, claim.sub, header.NAME or address")) {
        return;
    }
    if (sw_slice_eq(n->text, SW_S("visitor"))) {
        x->route->idempotency.principal = SW_IDEM_PRINCIPAL_VISITOR;
    } else if (sw_slice_eq(n->text, SW_S("address"))) {
        x->route->idempotency.principal = SW_IDEM_PRINCIPAL_ADDRESS;
    } else if (sw_slice_eq(n->text, SW_S("claim.sub"))) {
        x->route->idempotency.principal = SW_IDEM_PRINCIPAL_SUBJECT;
    } else if (sw_slice_starts(n->text, header) &&
               sw_set__is_token(name = sw_slice_tail(n->text, header.len)) && name.len <= 64) {
        x->route->idempotency.principal = SW_IDEM_PRINCIPAL_HEADER;
        x->route->idempotency.principal_header = sw_schema__keep(x, name);
    } else {
        sw_schema__bad(x, n,
                       "`principal` needs visitor, claim.sub, header.NAME or address, and this is "
                       "`%.*s`",
                       SW_SARG(sw_config__said(n)));
    }
}

void sw_set__expose(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    if (!sw_schema__want(x, row, n, SW_NODE_LIST, "a list of verdict, instance")) {
        return;
    }
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        if (item->bad ||
            !sw_schema__want(x, row, item, SW_NODE_TEXT, "verdict or instance in its list")) {
            continue;
        }
        if (sw_slice_eq(item->text, SW_S("verdict"))) {
            x->route->expose_verdict = true;
        } else if (sw_slice_eq(item->text, SW_S("instance"))) {
            x->route->expose_instance = true;
        } else {
            sw_schema__bad(x, item,
                           "`expose` needs verdict or instance in its list, and this is `%.*s`",
                           SW_SARG(sw_config__said(item)));
        }
    }
}
