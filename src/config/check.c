/* config/check.c - what the flags say, what follows from other keys, and what contradicts.
 *
 * A default gives way to a written key it depends on (an unwritten `idle` is never longer than a
 * written `absolute`); two written keys that contradict are an error. A node that was complained
 * about already is left alone.
 */
#include "config/check_priv.h"

/* The node of a key by its place: get(node, "session", "cookie"). */
static struct sw_node *get2(const struct sw_node *n, const char *a, const char *b)
{
    return sw_node__get(sw_node__get(n, a), b);
}

static struct sw_node *get3(const struct sw_node *n, const char *a, const char *b, const char *c)
{
    return sw_node__get(get2(n, a, b), c);
}

/* ---- flags
 * --------------------------------------------------------------------------------------- */

static void flags(struct sw_config_ctx *x, const struct sw_config_override *o)
{
    struct sw_config *c = x->config;
    struct sw_node n = {.kind = SW_NODE_TEXT};

    if (o->listen.len > 0) {
        struct sw_config_listen one = {.line = 0};

        if (sw_set__addr(x, &n, "--listen", o->listen, false, &one.addr)) {
            one.text = sw_schema__keep(x, o->listen);
            c->listen[0] = one;
            c->listen_count = 1;
        }
    }
    if (sw_slice_eq(o->admin, SW_S("off"))) {
        c->admin_addr = (struct sw_addr){.len = 0};
        c->admin_text = SW_S("off");
    } else if (o->admin.len > 0 &&
               sw_set__addr(x, &n, "--admin", o->admin, false, &c->admin_addr)) {
        c->admin_text = sw_schema__keep(x, o->admin);
    }
    if (o->store.len > 0) {
        (void)sw_set__store_text(x, &n, "--store", o->store);
    }
    if (o->access_log.len > 0) {
        const char *why = sw_set__check_path(o->access_log);

        if (why != NULL) {
            sw_config__error(x->errors, 0, 0, "--access-log %s", why);
        } else {
            c->access_log = sw_schema__keep(x, o->access_log);
        }
    }
    if (o->has_workers) {
        if (o->workers > 256) {
            sw_config__error(x->errors, 0, 0, "--workers needs 1 to 256 or auto, and this is %u",
                             o->workers);
        } else {
            c->workers = o->workers;
        }
    }
    if (o->has_engine) {
        c->engine = o->engine;
    }
    if (o->has_log_level) {
        c->log_level = o->log_level;
    }
}

/* ---- the service
 * --------------------------------------------------------------------------------- */

static bool addr_eq(const struct sw_addr *a, const struct sw_addr *b)
{
    if (a->len == 0 || b->len == 0 || a->sa.sa_family != b->sa.sa_family) {
        return false;
    }
    switch (a->sa.sa_family) {
    case AF_INET:
        return a->in.sin_port == b->in.sin_port && a->in.sin_port != 0 &&
               a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    case AF_INET6:
        return a->in6.sin6_port == b->in6.sin6_port && a->in6.sin6_port != 0 &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0;
    case AF_UNIX:
        return strncmp(a->un.sun_path, b->un.sun_path, sizeof(a->un.sun_path)) == 0;
    default:
        return false;
    }
}

/* Can only this machine reach it? */
static bool local(const struct sw_addr *a)
{
    switch (a->sa.sa_family) {
    case AF_INET:
        return (ntohl(a->in.sin_addr.s_addr) >> 24) == 127;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr) && a->in6.sin6_addr.s6_addr[12] == 127);
    default:
        return a->sa.sa_family == AF_UNIX;
    }
}

/* 0.0.0.0 and ::, to listen on but not to connect to. */
static bool unspecified(const struct sw_addr *a)
{
    return a->len > 0 &&
           ((a->sa.sa_family == AF_INET && a->in.sin_addr.s_addr == INADDR_ANY) ||
            (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr)));
}

static void check_listen(struct sw_config_ctx *x)
{
    struct sw_config *c = x->config;

    if (c->listen_count == 0) { /* none in the file, or none that could be read */
        struct sw_config_listen *l = &c->listen[0];
        enum sw_err err;

        l->text = SW_S("127.0.0.1:8080");
        err = sw_addr_parse(l->text, false, &l->addr);
        SW_ASSERT(err == SW_OK);
        c->listen_count = 1;
    }
    for (size_t j = 0; j < c->listen_count; j++) {
        const struct sw_node *list = sw_node__get(x->root, "listen"),
                             *item = list != NULL ? list->first : NULL;

        while (item != NULL && item->line != c->listen[j].line) {
            item = item->next;
        }
        for (size_t i = 0; i < j; i++) {
            if (addr_eq(&c->listen[i].addr, &c->listen[j].addr)) {
                sw_config__error(x->errors, c->listen[j].line, item != NULL ? item->column : 0,
                                 "`%.*s` is in `listen` twice; take one out",
                                 SW_QARG(c->listen[j].text));
                break;
            }
        }
        if (addr_eq(&c->listen[j].addr, &c->side_addr)) {
            sw_config__error(x->errors, c->listen[j].line, item != NULL ? item->column : 0,
                             "`%.*s` is the side API's address too; they need one each",
                             SW_QARG(c->listen[j].text));
        }
        if (addr_eq(&c->listen[j].addr, &c->admin_addr)) {
            sw_config__error(x->errors, c->listen[j].line, item != NULL ? item->column : 0,
                             "`%.*s` is the admin listener's address too; they need one each",
                             SW_QARG(c->listen[j].text));
        }
    }
}

static void check_admin(struct sw_config_ctx *x, const struct sw_config_override *o)
{
    const struct sw_config *c = x->config;
    struct sw_node *address = get2(x->root, "admin", "address");
    bool flag = o != NULL && o->admin.len > 0;

    if (c->admin_addr.len == 0 || local(&c->admin_addr) || c->admin_token.len > 0 ||
        broken(get2(x->root, "admin", "token"))) {
        return;
    }
    sw_config__error(
        x->errors, flag || address == NULL ? 0 : address->line,
        flag || address == NULL ? 0 : address->column,
        "%s can be reached by other machines, and there is no `admin.token`: anybody could "
        "drain and stop; write admin: { token: \"${ADMIN_TOKEN}\" }, or use 127.0.0.1",
        flag ? "the address of --admin" : "this address");
}

static void check_side(struct sw_config_ctx *x)
{
    const struct sw_config *c = x->config;
    struct sw_node *address = get2(x->root, "side", "address");

    if (!fine(address)) {
        return;
    }
    if (addr_eq(&c->side_addr, &c->admin_addr)) {
        sw_schema__bad(x, address, "this is the admin listener's address too; they need one each");
    } else if (unspecified(&c->side_addr)) {
        sw_schema__bad(
            x, address,
            "`address` of `side` is told to the apps, and `%.*s` names no machine; write "
            "one that they can reach",
            SW_SARG(sw_config__said(address)));
    }
}

static void check_service(struct sw_config_ctx *x)
{
    struct sw_config *c = x->config;
    struct sw_node *target = get2(x->root, "limits", "target");
    struct sw_node *head = get2(x->root, "limits", "head");
    struct sw_node *sync = sw_node__get(x->root, "sync");

    if (target == NULL) {
        c->limits.target_bytes = SW_MIN(c->limits.target_bytes, c->limits.head_bytes);
    } else if (fine(target) && !broken(head) && c->limits.target_bytes > c->limits.head_bytes) {
        sw_schema__bad(x, target,
                       "`target` is larger than `limits.head`, which the target is part of");
    }
    if (fine(sync) && sw_slice_eq(c->store_kind, SW_S("memory")) && c->sync == 0) {
        sw_schema__bad(x, sync, "`sync: always` cannot be had with `store: memory:`; take one out");
    }
    if (c->keys_file.len == 0) {
        c->keys_file = c->store_path.len == 0 ? SW_S("./state/keys.json")
                                              : sw_arena_printf(x->arena, "%.*s/keys.json%c",
                                                                SW_SARG(c->store_path), '\0');
        if (c->store_path.len > 0 && c->keys_file.len > 0) {
            c->keys_file.len--; /* the NUL stands behind it */
        }
    }
}

/* ---- apps
 * ---------------------------------------------------------------------------------------- */

static void check_app(struct sw_config_ctx *x, struct sw_config_app *app, const struct sw_node *n)
{
    static const char *const command_only[] = {"directory", "environment", "replicas",
                                               "start-timeout"};
    struct sw_node *command = sw_node__get(n, "command"), *servers = sw_node__get(n, "servers");
    struct sw_node *timeout = get2(n, "health", "timeout"),
                   *interval = get2(n, "health", "interval");
    struct sw_node *per_try = get2(n, "retry", "per-try");
    const char *name = app->name.ptr != NULL ? app->name.ptr : "";

    if (n->kind != SW_NODE_MAP) {
        return;
    }
    if (command != NULL && servers != NULL) {
        BAD_KEY(x, servers,
                "apps.%s has both `command` and `servers`; stateway runs an app or reaches it, "
                "make two apps of it",
                name);
    } else if (command == NULL && servers == NULL) {
        sw_config__error(
            x->errors, n->line, n->column,
            "apps.%s needs `command: [...]` (stateway runs it) or `servers: [...]` (it runs "
            "already)",
            name);
    } else if (servers != NULL) {
        for (size_t i = 0; i < SW_COUNTOF(command_only); i++) {
            struct sw_node *key = sw_node__get(n, command_only[i]);

            if (fine(key)) {
                BAD_KEY(x, key, "`%s` is for a `command`, and apps.%s has `servers`; take it out",
                        command_only[i], name);
            }
        }
        app->replicas = 0;
    }
    if (timeout == NULL) {
        app->health_timeout_ns = SW_MIN(app->health_timeout_ns, app->health_interval_ns);
    } else if (fine(timeout) && !broken(interval) &&
               app->health_timeout_ns > app->health_interval_ns) {
        sw_schema__bad(x, timeout, "`timeout` is longer than `interval`: checks would overlap");
    }
    if (fine(per_try) && !broken(get2(x->root, "timeouts", "response")) &&
        app->retry_per_try_ns > x->config->timeouts.response_ns) {
        sw_schema__bad(x, per_try,
                       "`per-try` is longer than `timeouts.response` and would never be reached");
    }
}

/* ---- routes
 * -------------------------------------------------------------------------------------- */

bool sw_check__covers(struct sw_slice prefix, struct sw_slice path)
{
    if (prefix.len == 1) {
        return true; /* "/" */
    }
    return sw_slice_starts(path, prefix) && (path.len == prefix.len || path.ptr[prefix.len] == '/');
}

struct sw_slice sw_check__literal(struct sw_slice pattern)
{
    size_t star = sw_slice_find(pattern, '*'), brace = sw_slice_find(pattern, '{');
    size_t end = SW_MIN(star, brace);

    if (end < pattern.len) {
        end--; /* the slash before it */
    }
    return sw_slice_head(pattern, end > 0 ? end : 1);
}

void sw_check__lives(struct sw_config_ctx *x, struct sw_node *map, int64_t *idle_s,
                      int64_t *absolute_s)
{
    struct sw_node *idle = sw_node__get(map, "idle"), *absolute = sw_node__get(map, "absolute");

    if (idle == NULL) {
        *idle_s = SW_MIN(*idle_s, *absolute_s);
    } else if (fine(idle) && !broken(absolute) && *idle_s > *absolute_s) {
        sw_schema__bad(x, idle, "`idle` is longer than `absolute`%s and would never be reached",
                       absolute == NULL ? " (its default)" : "");
    }
}

static bool captures(struct sw_slice path, struct sw_slice name)
{
    struct sw_slice rest = path, segment;

    while (rest.len > 0) {
        (void)sw_slice_cut(rest, '/', &segment, &rest);
        if (segment.len == name.len + 2 && segment.ptr[0] == '{' &&
            sw_slice_eq(sw_slice_of(segment.ptr + 1, name.len), name)) {
            return true;
        }
    }
    return false;
}

/* One state may take this part of `limits.large`: it is there twice while it changes. */
#define LARGE_SHARE 4

static void check_sizes(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *map)
{
    struct sw_node *max = sw_node__get(map, "max-size"), *inline_size = sw_node__get(map, "inline");
    bool side_off = x->config->side_addr.len == 0 && !broken(get2(x->root, "side", "address"));
    uint64_t share = x->config->limits.large_bytes / LARGE_SHARE;
    char text[SW_UNITS_TEXT_MAX];

    if (r->session.max_bytes < r->session.inline_bytes && fine(inline_size) && fine(max)) {
        sw_schema__bad(x, max, "`max-size` is below `inline` (%s)",
                       sw_units__size_text(r->session.inline_bytes, text));
    } else if (r->session.max_bytes < r->session.inline_bytes) {
        r->session.inline_bytes = r->session.max_bytes; /* a default gives way */
    }
    if (fine(max) && !broken(inline_size) && side_off &&
        r->session.max_bytes > r->session.inline_bytes) {
        sw_schema__bad(x, max,
                       "`max-size` is above `inline` (%s), and `side: { address: off }` leaves no "
                       "way to hand such a state to the app",
                       sw_units__size_text(r->session.inline_bytes, text));
    } else if (side_off) {
        r->session.max_bytes = SW_MIN(r->session.max_bytes, r->session.inline_bytes);
    }
    if (max == NULL) {
        r->session.max_bytes = (uint32_t)SW_MIN(r->session.max_bytes, share);
    } else if (fine(max) && !broken(get2(x->root, "limits", "large")) &&
               r->session.max_bytes > share) {
        sw_schema__bad(x, max, "`max-size` is more than a quarter of `limits.large` (%s)",
                       sw_units__size_text(x->config->limits.large_bytes, text));
    }
}

static void check_entity(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *map)
{
    struct sw_node *encrypt = sw_node__get(map, "encrypt"), *owner = sw_node__get(map, "owner");
    struct sw_node *alarm = sw_node__get(map, "alarm");

    if (r->session.encrypt && r->session.key_source != SW_KEY_COOKIE && fine(encrypt)) {
        BAD_KEY(x, encrypt,
                "`encrypt: on` needs `key: cookie`: its key is made of the visitor's id");
    }
    if (r->session.encrypt && r->session.alarm.len > 0 && fine(alarm)) {
        BAD_KEY(x, alarm,
                "`alarm` does not go with `encrypt: on`: without the visitor nobody can read the "
                "state");
    }
    if (r->session.owner_subject && r->session.key_source == SW_KEY_COOKIE && fine(owner)) {
        BAD_KEY(x, owner,
                "`owner: subject` is for entities: with `key: cookie` the state is the "
                "visitor's own");
    }
}

static void check_idempotency(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *n)
{
    struct sw_node *who = get2(n, "idempotency", "principal");
    struct sw_node *wait = get2(n, "idempotency", "wait");
    struct sw_node *answer = get2(n, "idempotency", "max-answer");
    char text[SW_UNITS_TEXT_MAX];
    bool visitor = r->placement == SW_PLACE_SEALED ||
                   (r->placement == SW_PLACE_SESSION && r->session.key_source == SW_KEY_COOKIE);

    if (r->idempotency.mode == SW_IDEM_OFF) {
        return;
    }
    if (fine(who)) {
        if (r->idempotency.principal == SW_IDEM_PRINCIPAL_VISITOR && !visitor) {
            BAD_KEY(x, who,
                    "`principal: visitor` needs `state: session` with `key: cookie`, or `state: "
                    "sealed`; write header.NAME or address");
        }
        if (r->idempotency.principal == SW_IDEM_PRINCIPAL_SUBJECT &&
            sw_node__get(n, "token") == NULL) {
            BAD_KEY(x, who,
                    "`principal: claim.sub` needs a `token` section: without one nobody's claims "
                    "are verified");
        }
    } else if (!visitor) {
        r->idempotency.principal = SW_IDEM_PRINCIPAL_HEADER;
        r->idempotency.principal_header = SW_S("Authorization");
    }
    if (fine(wait) && !broken(get2(x->root, "timeouts", "exchange")) &&
        r->idempotency.wait_ns > x->config->timeouts.exchange_ns) {
        sw_schema__bad(x, wait,
                       "`wait` is longer than `timeouts.exchange` and would never be reached");
    }
    if (fine(answer) && !broken(get2(x->root, "limits", "large")) &&
        r->idempotency.answer_bytes_max > x->config->limits.large_bytes / LARGE_SHARE) {
        sw_schema__bad(x, answer, "`max-answer` is more than a quarter of `limits.large` (%s)",
                       sw_units__size_text(x->config->limits.large_bytes, text));
    }
}

static void check_session(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *n)
{
    struct sw_node *map = sw_node__get(n, "session"), *key = sw_node__get(map, "key");
    struct sw_node *cookie = sw_node__get(map, "cookie");
    struct sw_node *wait = get3(n, "session", "queue", "wait");

    if (r->session.key_source == SW_KEY_PATH && fine(key) && fine(sw_node__get(n, "path")) &&
        !captures(r->path, r->session.key_name)) {
        sw_schema__bad(x, key, "`key: path.%.*s` names no {%.*s} of the route's path `%.*s`",
                       SW_QARG(r->session.key_name), SW_QARG(r->session.key_name),
                       SW_QARG(r->path));
    }
    if (r->session.key_source != SW_KEY_COOKIE && !r->session.owner_subject && fine(cookie) &&
        fine(key)) {
        BAD_KEY(x, cookie, "`cookie` is not used with `key: %.*s`; take one out",
                SW_QARG(key->text));
    } else {
        sw_check__cookie(x, r, &r->session.cookie, cookie, n);
    }
    sw_check__lives(x, map, &r->session.idle_s, &r->session.absolute_s);
    check_sizes(x, r, map);
    check_entity(x, r, map);
    if (fine(wait) && !broken(get2(x->root, "timeouts", "exchange")) &&
        r->session.queue_wait_ns > x->config->timeouts.exchange_ns) {
        sw_schema__bad(x, wait,
                       "`wait` is longer than `timeouts.exchange` and would never be reached");
    }
}

static uint64_t mixed(uint64_t h, struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        h = (h ^ (unsigned char)s.ptr[i]) * 0x100000001b3u;
    }
    return (h ^ 0xff) * 0x100000001b3u; /* no byte of UTF-8: the parts' ends count */
}

/* Not secret, only unlikely to be another's. */
static uint64_t route_ident(const struct sw_config_ctx *x, const struct sw_config_route *r)
{
    uint64_t h = 0xcbf29ce484222325u;

    h = mixed(h, r->host);
    h = mixed(h, r->path);
    h = mixed(h, r->app < x->config->app_count ? x->config->apps[r->app].name : SW_S(""));
    return h;
}

/* A cookie nobody named is named after its app. */
static void default_name(struct sw_config_ctx *x, const struct sw_config_route *r,
                         const char *prefix, struct sw_config_cookie *cookie)
{
    struct sw_slice name;

    if (cookie->name.len > 0) {
        return;
    }
    name = sw_arena_printf(x->arena, "%s%.*s%c", prefix, SW_SARG(x->config->apps[r->app].name),
                           '\0');
    if (name.len > 0) {
        cookie->name = sw_slice_head(name, name.len - 1);
    }
}

/* Are there states in the store by the `session` section, as what the route is or was? */
static bool keeps_session(const struct sw_config_route *r)
{
    return r->placement == SW_PLACE_SESSION || r->moved_from == SW_PLACE_SESSION ||
           (r->placement == SW_PLACE_SEALED && r->sealed.oversize == SW_OVERSIZE_SPILL);
}

static void check_route(struct sw_config_ctx *x, struct sw_config_route *r, struct sw_node *n)
{
    struct sw_node *path = sw_node__get(n, "path"), *strip = sw_node__get(n, "strip");
    struct sw_node *session = sw_node__get(n, "session"), *sticky = sw_node__get(n, "sticky");
    struct sw_node *sealed = sw_node__get(n, "sealed");

    if (fine(strip) && fine(path) && !sw_check__covers(r->strip, sw_check__literal(r->path))) {
        sw_schema__bad(x, strip,
                       "`strip: %.*s` is no beginning of the route's path `%.*s` (whole segments, "
                       "without {name} and *)",
                       SW_QARG(r->strip), SW_QARG(r->path));
    }
    if (fine(sw_node__get(n, "app"))) {
        default_name(x, r, "pin-", &r->sticky.cookie);
        default_name(x, r, "state-", &r->sealed.cookie);
    }
    if (!broken(sw_node__get(n, "state"))) {
        if (session != NULL && !keeps_session(r)) {
            BAD_KEY(x, session,
                    "`session` says nothing without `state: session`; add that or take it out");
        }
        if (sealed != NULL && r->placement != SW_PLACE_SEALED &&
            r->moved_from != SW_PLACE_SEALED) {
            BAD_KEY(x, sealed,
                    "`sealed` says nothing without `state: sealed`; add that or take it out");
        }
        if (sticky != NULL && r->placement != SW_PLACE_STICKY) {
            BAD_KEY(x, sticky,
                    "`sticky` says nothing without `state: sticky`; add that or take it out");
        }
    }
    check_session(x, r, n);
    check_idempotency(x, r, n);
    r->ident = route_ident(x, r);
    sw_check__cookie(x, r, &r->sticky.cookie, sw_node__get(sticky, "cookie"), n);
    sw_check__lives(x, sticky, &r->sticky.idle_s, &r->sticky.absolute_s);
    sw_check__token(x, r, n);
}

void sw_check__all(struct sw_config_ctx *x, const struct sw_config_override *override)
{
    struct sw_config *c = x->config;

    if (override != NULL) {
        flags(x, override);
    }
    check_listen(x);
    check_admin(x, override);
    check_side(x);
    check_service(x);
    for (size_t i = 0; i < c->app_count; i++) {
        check_app(x, &c->apps[i], x->app_nodes[i]);
    }
    for (size_t i = 0; i < c->route_count; i++) {
        check_route(x, &c->routes[i], x->route_nodes[i]);
    }
    sw_check__cookies(x);
}
