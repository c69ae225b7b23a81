/* config/schema.c - the table of keys, and the walk that fills a snapshot by it. */
#include "config/config_priv.h"

#include <stdarg.h>

/* ---- the words keys may have -------------------------------------------------------------------
 */

/* The values of store/'s enum sw_sync, a room that this one does not see. */
static const struct sw_key_name syncs[] = {
    {"always", 0, false}, {"everysec", 1, false}, {"no", 2, false}, {NULL, 0, false}};
static const struct sw_key_name engines[] = {{"auto", SW_ENGINE_AUTO, false},
                                             {"uring", SW_ENGINE_URING, false},
                                             {"epoll", SW_ENGINE_EPOLL, false},
                                             {NULL, 0, false}};
static const struct sw_key_name log_levels[] = {{"error", SW_LOG_ERROR, false},
                                                {"warn", SW_LOG_WARN, false},
                                                {"info", SW_LOG_INFO, false},
                                                {"debug", SW_LOG_DEBUG, false},
                                                {NULL, 0, false}};
static const struct sw_key_name log_formats[] = {
    {"text", 0, false}, {"json", 1, false}, {NULL, 0, false}};
static const struct sw_key_name balances[] = {{"least", SW_BALANCE_LEAST, false},
                                              {"round-robin", SW_BALANCE_ROUND_ROBIN, false},
                                              {"hash", SW_BALANCE_HASH, false},
                                              {NULL, 0, false}};
static const struct sw_key_name losses[] = {{"repin", SW_ON_LOSS_REPIN, false},
                                            {"fail", SW_ON_LOSS_FAIL, false},
                                            {"notify", SW_ON_LOSS_NOTIFY, false},
                                            {NULL, 0, false}};
static const struct sw_key_name placements[] = {{"none", SW_PLACE_NONE, false},
                                                {"sticky", SW_PLACE_STICKY, false},
                                                {"session", SW_PLACE_SESSION, false},
                                                {"token", SW_PLACE_TOKEN, false},
                                                {"sealed", SW_PLACE_SEALED, false},
                                                {NULL, 0, false}};
/* The values of http/'s enum sw_same_site. */
static const struct sw_key_name same_sites[] = {
    {"lax", 0, false}, {"strict", 1, false}, {"none", 2, false}, {NULL, 0, false}};
static const struct sw_key_name secures[] = {{"auto", SW_SECURE_AUTO, false},
                                             {"yes", SW_SECURE_YES, false},
                                             {"no", SW_SECURE_NO, false},
                                             {NULL, 0, false}};
static const struct sw_key_name concurrencies[] = {{"serial", SW_CONC_SERIAL, false},
                                                   {"merge", SW_CONC_MERGE, false},
                                                   {"cas", SW_CONC_CAS, false},
                                                   {"last", SW_CONC_LAST, false},
                                                   {NULL, 0, false}};
static const struct sw_key_name replays[] = {{"idempotent", SW_REPLAY_IDEMPOTENT, false},
                                             {"safe", SW_REPLAY_SAFE, false},
                                             {"never", SW_REPLAY_NEVER, false},
                                             {NULL, 0, false}};
static const struct sw_key_name movables[] = {{"session", SW_PLACE_SESSION, false},
                                              {"token", SW_PLACE_TOKEN, false},
                                              {"sealed", SW_PLACE_SEALED, false},
                                              {NULL, 0, false}};
static const struct sw_key_name algorithms[] = {{"ed25519", SW_CONFIG_ALG_ED25519, false},
                                                {"es256", SW_CONFIG_ALG_ES256, false},
                                                {"hs256", SW_CONFIG_ALG_HS256, false},
                                                {NULL, 0, false}};
static const struct sw_key_name delivers[] = {
    {"cookie", SW_DELIVER_COOKIE, false}, {"header", SW_DELIVER_HEADER, false}, {NULL, 0, false}};
static const struct sw_key_name oversizes[] = {
    {"refuse", SW_OVERSIZE_REFUSE, false}, {"spill", SW_OVERSIZE_SPILL, false}, {NULL, 0, false}};

static const struct sw_key_name owners[] = {
    {"any", false, false}, {"subject", true, false}, {NULL, 0, false}};
static const struct sw_key_name idempotencies[] = {{"off", SW_IDEM_OFF, false},
                                                   {"optional", SW_IDEM_OPTIONAL, false},
                                                   {"required", SW_IDEM_REQUIRED, false},
                                                   {NULL, 0, false}};
static const struct sw_key_name unknowns[] = {{"reject", SW_IDEM_UNKNOWN_REJECT, false},
                                              {"retry", SW_IDEM_UNKNOWN_RETRY, false},
                                              {NULL, 0, false}};
static const struct sw_key_name downs[] = {
    {"refuse", SW_IDEM_DOWN_REFUSE, false}, {"run", SW_IDEM_DOWN_RUN, false}, {NULL, 0, false}};
static const struct sw_key_name failures[] = {{"unknown", SW_IDEM_FAILED_UNKNOWN, false},
                                              {"store", SW_IDEM_FAILED_STORE, false},
                                              {"release", SW_IDEM_FAILED_RELEASE, false},
                                              {NULL, 0, false}};

/* ---- the table ----------------------------------------------------------------------------------
 */

#define MS(n)    ((n)*SW_NS_PER_MS)
#define HOURS(n) ((n)*3600ull * SW_NS_PER_S)
#define DAYS(n)  HOURS(24ull * (n))
#define KIB(n)   ((n)*1024ull)

#define FIELD(of, type, member)                                                                    \
    .scope = (of), .offset = offsetof(type, member), .width = sizeof(((type *)0)->member)
#define C(member) FIELD(SW_SCOPE_CONFIG, struct sw_config, member)
#define L(member) FIELD(SW_SCOPE_LISTEN, struct sw_config_listen, member)
#define A(member) FIELD(SW_SCOPE_APP, struct sw_config_app, member)
#define S(member) FIELD(SW_SCOPE_SERVER, struct sw_config_server, member)
#define R(member) FIELD(SW_SCOPE_ROUTE, struct sw_config_route, member)

static const struct sw_key_row rows[] = {
#define KEY(key_path, key_type, key_default, key_text, ...)                                        \
    {.path = (key_path),                                                                           \
     .type = (key_type),                                                                           \
     .dflt = (key_default),                                                                        \
     .text = (key_text),                                                                           \
     __VA_ARGS__},
#define LATER(key_path, key_text) {.path = (key_path), .text = (key_text), .kind = SW_KIND_LATER},
#include "config/schema.def"
#undef KEY
#undef LATER
};

static const struct sw_config_key_doc docs[] = {
#define KEY(key_path, key_type, key_default, key_text, ...)                                        \
    {(key_path), (key_type), (key_default), (key_text)},
#define LATER(key_path, key_text)
#include "config/schema.def"
#undef KEY
#undef LATER
};

_Static_assert(sizeof(struct sw_config) <= UINT16_MAX, "a row keeps its field's offset in 16 bits");
_Static_assert(sizeof(struct sw_config_route) <= UINT16_MAX, "likewise");

size_t sw_config_key_docs(const struct sw_config_key_doc **ret_docs)
{
    *ret_docs = docs;
    return SW_COUNTOF(docs);
}

const struct sw_key_row *sw_schema__rows(size_t *ret_count)
{
    *ret_count = SW_COUNTOF(rows);
    return rows;
}

const struct sw_key_row *sw_schema__row(const char *path)
{
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        if (strcmp(rows[i].path, path) == 0) {
            return &rows[i];
        }
    }
    SW_UNREACHABLE();
}

/* ---- paths --------------------------------------------------------------------------------------
 */

const char *sw_schema__leaf(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot == NULL ? path : dot + 1;
}

/* Is row a key of the section at path, and none of a deeper one? */
static bool child_of(const struct sw_key_row *row, const char *path)
{
    size_t len = strlen(path);
    const char *leaf = row->path;

    if (len > 0) {
        if (strncmp(row->path, path, len) != 0 || row->path[len] != '.') {
            return false;
        }
        leaf += len + 1;
    }
    /* "apps.*" is no key but the section each app is read by. */
    return strchr(leaf, '.') == NULL && strcmp(leaf, "*") != 0;
}

/* ---- complaints
 * ----------------------------------------------------------------------------------*/

void sw_schema__bad(struct sw_config_ctx *x, struct sw_node *n, const char *fmt, ...)
{
    char text[SW_CONFIG_ERROR_BYTES_MAX];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    n->bad = true;
    sw_config__error(x->errors, n->line, n->column, "%s", text);
}

bool sw_schema__want(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n,
                     enum sw_node_kind kind, const char *needs)
{
    if (n->kind == kind && !sw_node__empty(n)) {
        return true;
    }
    if (sw_node__empty(n)) {
        sw_schema__bad(x, n,
                       "`%s` needs %s, and nothing is written here; write it or take the key out",
                       sw_schema__leaf(row->path), needs);
    } else {
        sw_schema__bad(x, n, "`%s` needs %s, this is %s%s", sw_schema__leaf(row->path), needs,
                       sw_node__what(n),
                       kind == SW_NODE_TEXT && n->kind == SW_NODE_MAP && n->column > 1
                           ? " (a text that begins with { needs quotes)"
                           : "");
    }
    return false;
}

static const char *in(const struct sw_config_ctx *x)
{
    return x->where[0] == '\0' ? "at the top" : x->where;
}

struct near {
    const struct sw_key_row *row, *elsewhere;
    unsigned distance;
};

/* The key that was probably meant: nearest of this section, or the same word somewhere else. */
static struct near nearest(const char *path, struct sw_slice word)
{
    struct near best = {NULL, NULL, sw_config__slip(word) + 1};

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_slice leaf = sw_slice_cstr(sw_schema__leaf(rows[i].path));
        unsigned d;

        if (rows[i].kind == SW_KIND_LATER) {
            continue;
        }
        if (!child_of(&rows[i], path)) {
            if (best.elsewhere == NULL && sw_slice_eq(leaf, word)) {
                best.elsewhere = &rows[i];
            }
            continue;
        }
        d = sw_config__distance(word, leaf, best.distance);
        if (d < best.distance) {
            best.distance = d;
            best.row = &rows[i];
        }
    }
    return best;
}

static void unknown(struct sw_config_ctx *x, const char *path, struct sw_node *n)
{
    struct near best = nearest(path, n->key);
    const char *leaf = best.row != NULL ? sw_schema__leaf(best.row->path) : NULL;
    const char *at = best.elsewhere != NULL ? best.elsewhere->path : NULL;
    uint32_t line = n->key_line, column = n->key_column;

    if (at != NULL && (leaf == NULL || best.distance > 1)) {
        const char *end = strrchr(at, '.');

        if (end == NULL) {
            sw_config__error(x->errors, line, column,
                             "`%.*s` belongs to the top of the file and not in %s", SW_QARG(n->key),
                             in(x));
        } else {
            sw_config__error(x->errors, line, column,
                             "unknown key `%.*s` %s%s; there is one in %.*s", SW_QARG(n->key),
                             x->where[0] == '\0' ? "" : "in ", in(x), (int)(end - at), at);
        }
    } else if (leaf != NULL) {
        sw_config__error(x->errors, line, column, "unknown key `%.*s` %s%s; did you mean `%s`?",
                         SW_QARG(n->key), x->where[0] == '\0' ? "" : "in ", in(x), leaf);
    } else {
        char known[200] = "";
        size_t len = 0;

        for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
            if (rows[i].kind != SW_KIND_LATER && child_of(&rows[i], path) && len < sizeof(known)) {
                int put = snprintf(known + len, sizeof(known) - len, "%s%s", len > 0 ? ", " : "",
                                   sw_schema__leaf(rows[i].path));

                len += (size_t)SW_MAX(put, 0);
            }
        }
        sw_config__error(x->errors, line, column, "unknown key `%.*s` %s%s; known here: %s",
                         SW_QARG(n->key), x->where[0] == '\0' ? "" : "in ", in(x), known);
    }
}

/* ---- values -------------------------------------------------------------------------------------
 */

static void *target(struct sw_config_ctx *x, const struct sw_key_row *row)
{
    char *base = NULL;

    switch (row->scope) {
    case SW_SCOPE_CONFIG:
        base = (char *)x->config;
        break;
    case SW_SCOPE_LISTEN:
        base = (char *)x->listen;
        break;
    case SW_SCOPE_APP:
        base = (char *)x->app;
        break;
    case SW_SCOPE_SERVER:
        base = (char *)x->server;
        break;
    case SW_SCOPE_ROUTE:
        base = (char *)x->route;
        break;
    }
    SW_ASSERT(base != NULL);
    return base + row->offset;
}

static void put_uint(void *at, uint16_t width, uint64_t value)
{
    switch (width) {
    case 1:
        *(uint8_t *)at = (uint8_t)value;
        return;
    case 4:
        *(uint32_t *)at = (uint32_t)value;
        return;
    case 8:
        *(uint64_t *)at = value;
        return;
    default:
        SW_UNREACHABLE();
    }
}

struct sw_slice sw_schema__keep(struct sw_config_ctx *x, struct sw_slice s)
{
    char *text = sw_arena_cstr(x->arena, s);

    return text == NULL ? (struct sw_slice){NULL, 0} : sw_slice_of(text, s.len);
}

struct unit_kind {
    const char *needs, *such;
    const char *(*parse)(struct sw_slice s, uint64_t *ret_value);
};

static struct unit_kind unit_of(enum sw_key_kind kind)
{
    switch (kind) {
    case SW_KIND_NS:
    case SW_KIND_SECONDS:
        return (struct unit_kind){"a duration", "500ms, 30s, 10m, 2h or 30d", sw_units__duration};
    case SW_KIND_SIZE:
        return (struct unit_kind){"a size", "512, 64KiB or 1MiB", sw_units__size};
    case SW_KIND_PERCENT:
        return (struct unit_kind){"a percentage", "20%", sw_units__percent};
    case SW_KIND_COUNT:
        return (struct unit_kind){"a number", "3", sw_units__count};
    default:
        SW_UNREACHABLE();
    }
}

/* The bound as one would write it. */
static const char *bound(enum sw_key_kind kind, uint64_t value, char buf[SW_UNITS_TEXT_MAX])
{
    switch (kind) {
    case SW_KIND_NS:
        return sw_units__duration_text(value, buf);
    case SW_KIND_SECONDS:
        return sw_units__duration_text(value * SW_NS_PER_S, buf);
    case SW_KIND_SIZE:
        return sw_units__size_text(value, buf);
    default:
        (void)snprintf(buf, SW_UNITS_TEXT_MAX, "%llu%s", (unsigned long long)value,
                       kind == SW_KIND_PERCENT ? "%" : "");
        return buf;
    }
}

static bool quantity(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct unit_kind unit = unit_of(row->kind);
    const char *leaf = sw_schema__leaf(row->path), *why;
    char low[SW_UNITS_TEXT_MAX], high[SW_UNITS_TEXT_MAX];
    uint64_t value = 0;

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, unit.needs)) {
        return false;
    }
    why = unit.parse(n->text, &value);
    if (why != NULL) {
        if (row->kind == SW_KIND_COUNT) {
            sw_schema__bad(x, n, "`%s` needs a number, this is %s: `%.*s`", leaf, sw_node__what(n),
                           SW_SARG(sw_config__said(n)));
        } else {
            sw_schema__bad(x, n, "`%s` needs %s such as %s, and this is `%.*s`: %s", leaf,
                           unit.needs, unit.such, SW_SARG(sw_config__said(n)), why);
        }
        return false;
    }
    if (row->kind == SW_KIND_SECONDS) {
        if (value % SW_NS_PER_S != 0) {
            sw_schema__bad(x, n, "`%s` needs whole seconds, and this is `%.*s`", leaf,
                           SW_SARG(sw_config__said(n)));
            return false;
        }
        value /= SW_NS_PER_S;
    }
    if (value < row->min || (row->max > 0 && value > row->max)) {
        sw_schema__bad(x, n, "`%s` must be %s to %s, and this is `%.*s`", leaf,
                       bound(row->kind, row->min, low), bound(row->kind, row->max, high),
                       SW_SARG(sw_config__said(n)));
        return false;
    }
    put_uint(target(x, row), row->width, value);
    return true;
}

/* "a, b or c" of the words there are in this version. */
static void words_list(const struct sw_key_name *names, char *buf, size_t cap)
{
    struct sw_out out = sw_out_init(buf, cap - 1);

    for (size_t i = 0; names[i].text != NULL; i++) {
        bool last = names[i + 1].text == NULL || names[i + 1].later;

        if (names[i].later) {
            break; /* the later ones stand at the end */
        }
        sw_out_cstr(&out, i == 0 ? "" : last ? " or " : ", ");
        sw_out_cstr(&out, names[i].text);
    }
    buf[out.len] = '\0';
}

static const struct sw_key_name *word_near(const struct sw_key_name *names, struct sw_slice word)
{
    const struct sw_key_name *best = NULL;
    unsigned distance = sw_config__slip(word) + 1;

    for (size_t i = 0; names[i].text != NULL; i++) {
        unsigned d = sw_config__distance(word, sw_slice_cstr(names[i].text), distance);

        if (!names[i].later && d < distance && d < strlen(names[i].text)) {
            distance = d;
            best = &names[i];
        }
    }
    return best;
}

static bool word(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    const char *leaf = sw_schema__leaf(row->path);
    const struct sw_key_name *near;
    char list[128], needs[160];

    words_list(row->names, list, sizeof(list));
    (void)snprintf(needs, sizeof(needs), "one of %s", list);
    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, needs)) {
        return false;
    }
    for (size_t i = 0; row->names[i].text != NULL; i++) {
        if (!sw_slice_eq(n->text, sw_slice_cstr(row->names[i].text))) {
            continue;
        }
        if (row->names[i].later) {
            sw_schema__bad(x, n, "`%s: %s` is not in this version (0.1); it has %s", leaf,
                           row->names[i].text, list);
            return false;
        }
        put_uint(target(x, row), row->width, row->names[i].value);
        return true;
    }
    near = n->secret ? NULL : word_near(row->names, n->text);
    sw_schema__bad(x, n, "`%s` needs one of %s, and this is `%.*s`%s%s%s", leaf, list,
                   SW_SARG(sw_config__said(n)), near != NULL ? "; did you mean `" : "",
                   near != NULL ? near->text : "", near != NULL ? "`?" : "");
    return false;
}

static bool on_off(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    bool on;

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "on or off")) {
        return false;
    }
    on = sw_slice_eq(n->text, SW_S("on"));
    if (!on && !sw_slice_eq(n->text, SW_S("off"))) {
        sw_schema__bad(x, n, "`%s` needs on or off, and this is `%.*s`", sw_schema__leaf(row->path),
                       SW_SARG(sw_config__said(n)));
        return false;
    }
    *(bool *)target(x, row) = on;
    return true;
}

static bool text_value(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    const char *why;

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "a text")) {
        return false;
    }
    why = row->check != NULL ? row->check(n->text) : NULL;
    if (why != NULL) {
        sw_schema__bad(x, n, "`%s` %s, and this is `%.*s`", sw_schema__leaf(row->path), why,
                       SW_SARG(sw_config__said(n)));
        return false;
    }
    *(struct sw_slice *)target(x, row) = sw_schema__keep(x, n->text);
    return true;
}

static bool section(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    if (!sw_schema__want(x, row, n, SW_NODE_MAP, "a map of keys")) {
        sw_schema__walk(x, row->path, NULL);
        return false;
    }
    sw_schema__walk(x, row->path, n);
    return true;
}

bool sw_schema__value(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    if (n->bad) {
        return false; /* its ${...} was complained about */
    }
    switch (row->kind) {
    case SW_KIND_SECTION:
        return section(x, row, n);
    case SW_KIND_NS:
    case SW_KIND_SECONDS:
    case SW_KIND_SIZE:
    case SW_KIND_COUNT:
    case SW_KIND_PERCENT:
        return quantity(x, row, n);
    case SW_KIND_SWITCH:
        return on_off(x, row, n);
    case SW_KIND_NAME:
        return word(x, row, n);
    case SW_KIND_TEXT:
        return text_value(x, row, n);
    case SW_KIND_OWN:
        row->set(x, row, n);
        return !n->bad;
    case SW_KIND_LATER:
        break;
    }
    sw_config__error(x->errors, n->key_line, n->key_column,
                     "`%.*s` is not in this version (0.1)%s%s", SW_QARG(n->key),
                     row->text != NULL ? ": " : "", row->text != NULL ? row->text : "");
    n->bad = true;
    return false;
}

/* ---- the walk -----------------------------------------------------------------------------------
 */

/* The default goes the way of a written value, so the table cannot promise what is refused. */
static void set_default(struct sw_config_ctx *x, const struct sw_key_row *row)
{
    struct sw_node n = {.kind = SW_NODE_TEXT};
    size_t before = x->errors->count;
    bool taken;

    if (row->kind == SW_KIND_SECTION || row->set == sw_set__admin) {
        sw_schema__walk(x, row->path, NULL);
        return;
    }
    if (row->dflt == NULL || row->described || row->kind == SW_KIND_LATER) {
        return;
    }
    n.text = sw_slice_cstr(row->dflt);
    n.raw = n.text;
    taken = sw_schema__value(x, row, &n);
    SW_ASSERT(taken);
    SW_ASSERT(x->errors->count == before);
}

static void missing(struct sw_config_ctx *x, const struct sw_key_row *row,
                    const struct sw_node *node)
{
    const char *leaf = sw_schema__leaf(row->path);

    if (strcmp(row->path, "apps") == 0) {
        sw_config__error(x->errors, 0, 0,
                         "`apps` is missing; write: apps: { web: { command: [node, server.js] } }");
    } else if (strcmp(row->path, "routes") == 0) {
        const struct sw_config *c = x->config;
        struct sw_slice app = c->app_count > 0 ? c->apps[0].name : SW_S("web");

        sw_config__error(
            x->errors, 0, 0,
            "`routes` is missing; for all requests to go to one app write: routes: [ { path: "
            "/*, app: %.*s, state: none } ]",
            SW_SARG(app));
    } else if (node != NULL && node->kind == SW_NODE_MAP) {
        sw_config__error(x->errors, node->line, node->column, "`%s` is missing in %s", leaf, in(x));
    }
}

void sw_schema__walk(struct sw_config_ctx *x, const char *path, struct sw_node *node)
{
    const char *where = x->where;
    char deeper[160];

    SW_ASSERT(node == NULL || node->kind == SW_NODE_MAP);
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        const struct sw_key_row *row = &rows[i];
        struct sw_node *n;

        if (!child_of(row, path)) {
            continue;
        }
        n = sw_node__get(node, sw_schema__leaf(row->path));
        /* The default first: a refused value leaves something sane behind for the checks. */
        if (n == NULL || row->kind != SW_KIND_SECTION) {
            set_default(x, row);
        }
        if (n != NULL) {
            (void)snprintf(deeper, sizeof(deeper), "%s%s%s", where, where[0] == '\0' ? "" : ".",
                           sw_schema__leaf(row->path));
            if (row->kind == SW_KIND_SECTION || row->kind == SW_KIND_OWN) {
                x->where = deeper;
            }
            (void)sw_schema__value(x, row, n);
            x->where = where;
        } else if (row->required) {
            missing(x, row, node);
        }
    }
    for (struct sw_node *n = node != NULL ? node->first : NULL; n != NULL; n = n->next) {
        bool known = false;

        for (size_t i = 0; i < SW_COUNTOF(rows) && !known; i++) {
            known = child_of(&rows[i], path) &&
                    sw_slice_eq(n->key, sw_slice_cstr(sw_schema__leaf(rows[i].path)));
        }
        if (!known) {
            unknown(x, path, n);
        }
    }
}
