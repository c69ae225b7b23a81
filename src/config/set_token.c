/* config/set_token.c - keys of the `token` section with a form of their own: where the token is,
 * where its keys come from, and what must hold.
 */
#include "config/config_priv.h"

#include <arpa/inet.h>

#define ISSUER_BYTES_MAX 1024u
#define TYPE_BYTES_MAX   128u /* sw_jws_verify's */
#define SCOPE_BYTES_MAX  256u
#define CLAIM_BYTES_MAX  256u
#define SOURCE_BYTES_MAX 2048u

/* ---- texts --------------------------------------------------------------------------------------
 */

/* It is compared letter by letter, and stands in tokens that we make: nothing that needs an escape.
 */
const char *sw_set__check_issuer(struct sw_slice text)
{
    if (text.len == 0) {
        return "must not be empty";
    }
    if (text.len > ISSUER_BYTES_MAX) {
        return "must not be longer than 1024 bytes";
    }
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];

        if (c <= 0x20 || c >= 0x7f || c == '"' || c == '\\') {
            return "must be a URL or a name: visible ASCII without blanks, \" and \\";
        }
    }
    return NULL;
}

const char *sw_set__check_type(struct sw_slice text)
{
    struct sw_slice sub = text;

    if (sw_slice_starts_nocase(text, SW_S("application/"))) {
        sub = sw_slice_tail(text, strlen("application/"));
    }
    return text.len <= TYPE_BYTES_MAX && sw_set__is_token(sub)
               ? NULL
               : "must be a media type such as at+jwt, at most 128 bytes";
}

/* RFC 6749, 3.3. */
static const char *scope_why(struct sw_slice text)
{
    if (text.len == 0 || text.len > SCOPE_BYTES_MAX) {
        return "must have 1 to 256 characters";
    }
    if (sw_slice_find(text, ' ') < text.len) {
        return "must be one word; write a list: [read, write]";
    }
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];

        if (c < 0x21 || c > 0x7e || c == '"' || c == '\\') {
            return "must be visible ASCII without \" and \\";
        }
    }
    return NULL;
}

static const char *claim_name_why(struct sw_slice name)
{
    if (name.len == 0 || name.len > CLAIM_BYTES_MAX || sw_set__has_control(name)) {
        return "is no name of a claim: 1 to 256 bytes without control characters";
    }
    return NULL;
}

/* ---- where it is --------------------------------------------------------------------------------
 */

void sw_set__token_from(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    struct sw_slice prefix = SW_S("cookie."), name;
    const char *why;

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "bearer or cookie.NAME")) {
        return;
    }
    if (sw_slice_eq(n->text, SW_S("bearer"))) {
        x->route->token.from_cookie = false;
        return;
    }
    if (!sw_slice_starts(n->text, prefix)) {
        sw_schema__bad(x, n, "`from` needs bearer or cookie.NAME, and this is `%.*s`",
                       SW_SARG(sw_config__said(n)));
        return;
    }
    name = sw_slice_tail(n->text, prefix.len);
    why = sw_set__check_cookie_name(name);
    if (why != NULL) {
        sw_schema__bad(x, n, "the name behind cookie. %s, and this is `%.*s`", why,
                       SW_SARG(sw_config__said(n)));
        return;
    }
    x->route->token.from_cookie = true;
    x->route->token.cookie.name = sw_schema__keep(x, name);
}

/* ---- its keys -----------------------------------------------------------------------------------
 */

static bool loopback(struct sw_slice host)
{
    char text[INET_ADDRSTRLEN];
    struct in_addr v4;

    if (sw_slice_eq_nocase(host, SW_S("localhost")) || sw_slice_eq(host, SW_S("[::1]"))) {
        return true;
    }
    if (host.len == 0 || host.len >= sizeof(text)) {
        return false;
    }
    memcpy(text, host.ptr, host.len);
    text[host.len] = '\0';
    return inet_pton(AF_INET, text, &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

static bool host_chars(struct sw_slice host)
{
    bool v6 = host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
    struct sw_slice rest = v6 ? sw_slice_of(host.ptr + 1, host.len - 2) : host;

    for (size_t i = 0; i < rest.len; i++) {
        char c = rest.ptr[i];
        bool hex = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';

        if (v6 ? !hex && c != ':' && c != '.' : !hex && !letter && c != '-' && c != '.') {
            return false;
        }
    }
    return rest.len > 0;
}

/* HOST or HOST:PORT. NULL: fine. */
static const char *authority_why(struct sw_slice authority, bool https)
{
    struct sw_slice host = authority, port = {NULL, 0};
    size_t bracket = sw_slice_find(authority, ']');
    size_t from = bracket < authority.len ? bracket : 0;
    size_t colon = from + sw_slice_find(sw_slice_tail(authority, from), ':');
    uint64_t number = 0;

    if (sw_slice_find(authority, '@') < authority.len) {
        return "has a user or a password in it, which would stand in logs; put keys where they "
               "can be read without, or into a file";
    }
    if (colon < authority.len) {
        host = sw_slice_head(authority, colon);
        port = sw_slice_tail(authority, colon + 1);
        if (!sw_slice_u64(port, &number) || number == 0 || number > UINT16_MAX) {
            return "has no number of a port behind its colon";
        }
    }
    if (!host_chars(host)) {
        return "names no host; write https://HOST/PATH";
    }
    if (!https && !loopback(host)) {
        return "is not encrypted: whoever is on the way could put own keys there; write https://";
    }
    return NULL;
}

static const char *url_why(struct sw_slice url)
{
    bool https = sw_slice_starts(url, SW_S("https://"));
    struct sw_slice rest, authority;
    size_t end = 0;

    if (!https && !sw_slice_starts(url, SW_S("http://"))) {
        return "must be a path or an https:// URL";
    }
    for (size_t i = 0; i < url.len; i++) {
        unsigned char c = (unsigned char)url.ptr[i];

        if (c <= 0x20 || c >= 0x7f || strchr("\"<>\\^`{|}", c) != NULL) {
            return "must be a URL: visible ASCII, others percent-encoded";
        }
    }
    if (sw_slice_find(url, '#') < url.len) {
        return "has a #, which is never sent to a server; take it out";
    }
    rest = sw_slice_tail(url, strlen(https ? "https://" : "http://"));
    while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?') {
        end++;
    }
    authority = sw_slice_head(rest, end);
    return authority_why(authority, https);
}

/* The index of the source in the configuration's list; SW_KEYSETS_MAX: there is no room. */
static uint32_t keyset_of(struct sw_config_ctx *x, struct sw_slice source, bool url)
{
    struct sw_config *c = x->config;

    if (x->keysets == NULL) {
        x->keysets = sw_arena_array(x->arena, SW_KEYSETS_MAX, struct sw_config_keyset);
        if (x->keysets == NULL) {
            return 0; /* the arena says so at the end */
        }
        c->keysets = x->keysets;
    }
    for (uint32_t i = 0; i < c->keyset_count; i++) {
        if (sw_slice_eq(x->keysets[i].source, source)) {
            return i;
        }
    }
    if (c->keyset_count == SW_KEYSETS_MAX) {
        return SW_KEYSETS_MAX;
    }
    x->keysets[c->keyset_count] = (struct sw_config_keyset){sw_schema__keep(x, source), url};
    return (uint32_t)c->keyset_count++;
}

void sw_set__token_keys(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    bool url;
    const char *why;

    if (!sw_schema__want(x, row, n, SW_NODE_TEXT, "the path of a JWK set, or its https:// URL")) {
        return;
    }
    url = sw_slice_find_slice(n->text, SW_S("://")) < n->text.len;
    if (n->text.len > SOURCE_BYTES_MAX) {
        why = "must not be longer than 2048 bytes";
    } else {
        why = url ? url_why(n->text) : sw_set__check_path(n->text);
    }
    if (why != NULL) {
        sw_schema__bad(x, n, "`keys` %s, and this is `%.*s`", why, SW_SARG(sw_config__said(n)));
        return;
    }
    x->route->token.keyset = keyset_of(x, n->text, url);
    if (x->route->token.keyset == SW_KEYSETS_MAX) {
        sw_schema__bad(x, n, "there are more than %u different `keys`; let routes share some",
                       SW_KEYSETS_MAX);
    }
}

/* ---- what must hold -----------------------------------------------------------------------------
 */

/* A list of different texts. */
static bool texts(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n,
                  size_t min, size_t max, sw_key_check_fn *check, const struct sw_slice **ret_list,
                  size_t *ret_count)
{
    const char *leaf = sw_schema__leaf(row->path);
    struct sw_slice *list;
    size_t count = 0;

    if (n->kind == SW_NODE_TEXT && !sw_node__empty(n)) {
        sw_schema__bad(x, n, "`%s` needs a list; write: [%.*s]", leaf, SW_SARG(sw_config__said(n)));
        return false;
    }
    if (!sw_schema__want(x, row, n, SW_NODE_LIST, "a list of texts")) {
        return false;
    }
    if (n->count < min || n->count > max) {
        sw_schema__bad(x, n, "`%s` needs %zu to %zu texts, these are %u", leaf, min, max, n->count);
        return false;
    }
    list = sw_arena_array(x->arena, n->count, struct sw_slice);
    if (list == NULL) {
        return false;
    }
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        const char *why;

        if (item->bad || !sw_schema__want(x, row, item, SW_NODE_TEXT, "texts in its list")) {
            n->bad = true;
            continue;
        }
        why = check(item->text);
        for (size_t i = 0; i < count && why == NULL; i++) {
            why = sw_slice_eq(list[i], item->text) ? "is here twice; take one out" : NULL;
        }
        if (why != NULL) {
            n->bad = true;
            sw_schema__bad(x, item, "`%s`: `%.*s` %s", leaf, SW_SARG(sw_config__said(item)), why);
            continue;
        }
        list[count++] = sw_schema__keep(x, item->text);
    }
    *ret_list = list;
    *ret_count = count;
    return true;
}

void sw_set__token_audience(struct sw_config_ctx *x, const struct sw_key_row *row,
                            struct sw_node *n)
{
    (void)texts(x, row, n, 1, SW_TOKEN_AUDIENCES_MAX, sw_set__check_issuer,
                &x->route->token.audiences, &x->route->token.audience_count);
}

void sw_set__token_scope(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    (void)texts(x, row, n, 0, SW_TOKEN_SCOPES_MAX, scope_why, &x->route->token.scopes,
                &x->route->token.scope_count);
}

/* NULL: any value may be asked for. */
static const char *required_why(struct sw_slice name)
{
    static const struct {
        const char *claim, *why;
    } others[] = {
        {"iss", "has a key of its own: `issuer`"},
        {"aud", "has a key of its own: `audience`"},
        {"scope", "has a key of its own: `require: { scope: [...] }`"},
        {"exp", "is a time, and looked at in every token"},
        {"nbf", "is a time, and looked at in every token"},
        {"iat", "is a time; `max-age` says how old a token may be"},
    };

    for (size_t i = 0; i < SW_COUNTOF(others); i++) {
        if (sw_slice_eq(name, sw_slice_cstr(others[i].claim))) {
            return others[i].why;
        }
    }
    return claim_name_why(name);
}

/* A map of texts, in `what`; names_why complains about a name, given those before it. */
static void pairs(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n,
                  size_t max, const char *example,
                  const char *(*name_why)(struct sw_slice name,
                                          const struct sw_config_claim *before, size_t count),
                  const char *(*value_why)(struct sw_slice value),
                  const struct sw_config_claim **ret_list, size_t *ret_count)
{
    const char *leaf = sw_schema__leaf(row->path);
    struct sw_config_claim *list;
    size_t count = 0;

    if (!sw_schema__want(x, row, n, SW_NODE_MAP, example)) {
        return;
    }
    if (n->count > max) {
        sw_schema__bad(x, n, "`%s` may have %zu, these are %u", leaf, max, n->count);
        return;
    }
    list = sw_arena_array(x->arena, n->count, struct sw_config_claim);
    if (list == NULL) {
        return;
    }
    for (struct sw_node *item = n->first; item != NULL; item = item->next) {
        const char *why = name_why(item->key, list, count);

        if (why != NULL) {
            sw_config__error(x->errors, item->key_line, item->key_column, "`%s`: `%.*s` %s", leaf,
                             SW_QARG(item->key), why);
            continue;
        }
        if (item->bad) {
            continue;
        }
        if (item->kind != SW_NODE_TEXT || sw_node__empty(item)) {
            sw_schema__bad(x, item, "`%.*s` in `%s` needs a text, this is %s", SW_QARG(item->key),
                           leaf, sw_node__what(item));
            continue;
        }
        why = value_why(item->text);
        if (why != NULL) {
            sw_schema__bad(x, item, "`%.*s` in `%s` %s", SW_QARG(item->key), leaf, why);
            continue;
        }
        list[count++] =
            (struct sw_config_claim){sw_schema__keep(x, item->key), sw_schema__keep(x, item->text)};
    }
    *ret_list = list;
    *ret_count = count;
}

static const char *claim_why(struct sw_slice name, const struct sw_config_claim *before,
                             size_t count)
{
    (void)before;
    (void)count; /* no name is in a map twice */
    return required_why(name);
}

static const char *claim_value_why(struct sw_slice value)
{
    return value.len <= ISSUER_BYTES_MAX && !sw_set__has_control(value)
               ? NULL
               : "must not be longer than 1024 bytes, nor hold control characters";
}

void sw_set__token_claims(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    pairs(x, row, n, SW_TOKEN_CLAIMS_MAX, "a map of texts: { tenant: acme }", claim_why,
          claim_value_why, &x->route->token.claims, &x->route->token.claim_count);
}

/* For an app that reads them as CGI variables, names with - and _ are one. */
static bool same_variable(struct sw_slice a, struct sw_slice b, bool prefix)
{
    if (prefix ? a.len < b.len : a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < b.len; i++) {
        char one = a.ptr[i] == '_' ? '-' : a.ptr[i], other = b.ptr[i] == '_' ? '-' : b.ptr[i];

        if (!sw_slice_eq_nocase(sw_slice_of(&one, 1), sw_slice_of(&other, 1))) {
            return false;
        }
    }
    return true;
}

static const char *header_why(struct sw_slice name, const struct sw_config_claim *before,
                              size_t count)
{
    static const struct {
        const char *name;
        bool prefix;
        const char *why;
    } taken[] = {
        {"stateway-", true, "is stateway's own"},
        {"grip-", true, "is stateway's own"},
        {"x-forwarded-", true, "says where a request came from, which stateway does"},
        {"forwarded", false, "says where a request came from, which stateway does"},
        {"via", false, "says where a request came from, which stateway does"},
        {"host", false, "says where a request goes to"},
        {"content-", true, "says what the body is"},
        {"transfer-encoding", false, "says what the body is"},
        {"trailer", false, "says what the body is"},
        {"expect", false, "is between two neighbours only (RFC 9110)"},
        {"connection", false, "is between two neighbours only (RFC 9110)"},
        {"keep-alive", false, "is between two neighbours only (RFC 9110)"},
        {"proxy-", true, "is between two neighbours only (RFC 9110)"},
        {"te", false, "is between two neighbours only (RFC 9110)"},
        {"upgrade", false, "is between two neighbours only (RFC 9110)"},
        {"cookie", false, "is the client's own; name another, such as X-User"},
        {"authorization", false, "is the client's own; name another, such as X-User"},
    };

    if (!sw_set__is_token(name) || name.len > 128) {
        return "is no name of a header";
    }
    for (size_t i = 0; i < SW_COUNTOF(taken); i++) {
        if (same_variable(name, sw_slice_cstr(taken[i].name), taken[i].prefix)) {
            return taken[i].why;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (same_variable(name, before[i].name, false)) {
            return "is here twice (capitals do not matter, and - is as good as _)";
        }
    }
    return NULL;
}

void sw_set__token_headers(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n)
{
    pairs(x, row, n, SW_TOKEN_HEADERS_MAX, "a map of headers to claims: { X-User: sub }",
          header_why, claim_name_why, &x->route->token.headers, &x->route->token.header_count);
}
