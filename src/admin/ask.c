/* admin/ask.c - may this request be answered, and by what?
 *
 * Room       admin/. Pure.
 * Flow       conn.c hands in what it read; admin.c answers, or tells the refusal.
 *
 * GET | HEAD  /healthz /readyz                         anybody
 * GET | HEAD  /metrics /v1/apps /v1/status /v1/keys    who has the token, if there is one
 * POST        /v1/apps/{app}/roll                      the same, and with the guard
 * POST        /v1/instances/{app}/{n}/drain|undrain|kill
 * GET | HEAD  /v1/sessions /v1/sessions/export         the same, and not from afar
 * POST        /v1/sessions/import
 * GET | HEAD | PUT | DELETE  /v1/sessions/{handle}
 * GET | HEAD | DELETE  /v1/subjects/{name} /v1/subjects?subject=
 * GET | HEAD | DELETE  /v1/tokens?issuer=&jti= /v1/sealed/{id} /v1/pins/{id}
 *
 * The guard is a header that no form and no image of a foreign page can send, and that a script of
 * one can send only after a CORS preflight, which is never granted here. There are two spellings
 * because a gateway strips Stateway-* from requests that come through it.
 *
 * A page whose name was rebound to this address (DNS rebinding) is same-origin to its browser, and
 * may send the guard. So a command from a browser (it has Origin) must name this listener by
 * address or as localhost. Not asked: with a token, which such a page does not know; with Via,
 * which scripts cannot set and a gateway in between does.
 *
 * What GET shows is no secret, but for sessions: those hold what visitors left. So there the Host
 * is asked of every request, and without a token nothing is answered through a gateway: whoever can
 * reach that one is not whoever can reach this listener.
 */
#include "admin/admin_priv.h"

#define READS (SW_BIT(SW_METHOD_GET) | SW_BIT(SW_METHOD_HEAD))

static const struct {
    uint32_t methods;
    const char *allow;
    bool personal;
} endpoints[ADMIN_ENDPOINT_COUNT] = {
    [ADMIN_NOWHERE] = {0, "", false},
    [ADMIN_HEALTHZ] = {READS, "Allow: GET, HEAD\r\n", false},
    [ADMIN_READYZ] = {READS, "Allow: GET, HEAD\r\n", false},
    [ADMIN_METRICS] = {READS, "Allow: GET, HEAD\r\n", false},
    [ADMIN_APPS] = {READS, "Allow: GET, HEAD\r\n", false},
    [ADMIN_STATUS] = {READS, "Allow: GET, HEAD\r\n", false},
    [ADMIN_KEYS] = {READS, "Allow: GET, HEAD\r\n", false},
    [ADMIN_SESSIONS] = {READS, "Allow: GET, HEAD\r\n", true},
    [ADMIN_SESSION] = {READS | SW_BIT(SW_METHOD_PUT) | SW_BIT(SW_METHOD_DELETE),
                       "Allow: GET, HEAD, PUT, DELETE\r\n", true},
    [ADMIN_EXPORT] = {READS, "Allow: GET, HEAD\r\n", true},
    [ADMIN_IMPORT] = {SW_BIT(SW_METHOD_POST), "Allow: POST\r\n", true},
    [ADMIN_SUBJECT] = {READS | SW_BIT(SW_METHOD_DELETE), "Allow: GET, HEAD, DELETE\r\n", true},
    [ADMIN_TOKEN] = {READS | SW_BIT(SW_METHOD_DELETE), "Allow: GET, HEAD, DELETE\r\n", true},
    [ADMIN_SEALED] = {READS | SW_BIT(SW_METHOD_DELETE), "Allow: GET, HEAD, DELETE\r\n", true},
    [ADMIN_PIN] = {READS | SW_BIT(SW_METHOD_DELETE), "Allow: GET, HEAD, DELETE\r\n", true},
    [ADMIN_ROLL] = {SW_BIT(SW_METHOD_POST), "Allow: POST\r\n", false},
    [ADMIN_DRAIN] = {SW_BIT(SW_METHOD_POST), "Allow: POST\r\n", false},
    [ADMIN_UNDRAIN] = {SW_BIT(SW_METHOD_POST), "Allow: POST\r\n", false},
    [ADMIN_KILL] = {SW_BIT(SW_METHOD_POST), "Allow: POST\r\n", false},
};
_Static_assert(SW_METHOD_COUNT <= 32, "methods are bits of one word");

static bool app_name(struct sw_slice s)
{
    if (s.len == 0 || s.len > 63) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) {
            return false;
        }
    }
    return true;
}

/* 1..4294967295 without leading zeros: "shop/01" names nothing. */
static bool slot_number(struct sw_slice s)
{
    uint64_t n;

    return s.len <= 10 && sw_slice_u64(s, &n) && s.ptr[0] != '0' && n <= UINT32_MAX;
}

static struct sw_admin_routed app_command(struct sw_slice rest)
{
    struct sw_slice app, command;

    if (sw_slice_cut(rest, '/', &app, &command) && app_name(app) &&
        sw_slice_eq(command, SW_S("roll"))) {
        return (struct sw_admin_routed){ADMIN_ROLL, app};
    }
    return (struct sw_admin_routed){ADMIN_NOWHERE, {NULL, 0}};
}

static struct sw_admin_routed instance_command(struct sw_slice rest)
{
    static const struct {
        struct sw_slice name;
        enum sw_admin_endpoint endpoint;
    } commands[] = {
        {SW_S("drain"), ADMIN_DRAIN},
        {SW_S("undrain"), ADMIN_UNDRAIN},
        {SW_S("kill"), ADMIN_KILL},
    };
    struct sw_slice app, slot, more, command;

    if (sw_slice_cut(rest, '/', &app, &more) && sw_slice_cut(more, '/', &slot, &command) &&
        app_name(app) && slot_number(slot)) {
        for (size_t i = 0; i < SW_COUNTOF(commands); i++) {
            if (sw_slice_eq(command, commands[i].name)) {
                return (struct sw_admin_routed){commands[i].endpoint,
                                                {rest.ptr, app.len + 1 + slot.len}};
            }
        }
    }
    return (struct sw_admin_routed){ADMIN_NOWHERE, {NULL, 0}};
}

static struct sw_admin_routed session_place(struct sw_slice rest)
{
    struct sw_store_key key;

    if (sw_slice_eq(rest, SW_S("export"))) {
        return (struct sw_admin_routed){ADMIN_EXPORT, {NULL, 0}};
    }
    if (sw_slice_eq(rest, SW_S("import"))) {
        return (struct sw_admin_routed){ADMIN_IMPORT, {NULL, 0}};
    }
    if (sw_admin__handle_read(rest, &key)) {
        return (struct sw_admin_routed){ADMIN_SESSION, rest};
    }
    return (struct sw_admin_routed){ADMIN_NOWHERE, {NULL, 0}};
}

static struct sw_admin_routed subject_place(struct sw_slice rest)
{
    if (rest.len > 0 && rest.len <= 3 * SW_SUBJECT_BYTES_MAX &&
        sw_slice_find(rest, '/') == rest.len) {
        return (struct sw_admin_routed){ADMIN_SUBJECT, rest};
    }
    return (struct sw_admin_routed){ADMIN_NOWHERE, {NULL, 0}};
}

static struct sw_admin_routed sealed_place(struct sw_slice rest)
{
    struct sw_store_key id;

    _Static_assert(sizeof(id.bytes) == SW_SEALED_ID_BYTES, "it is spelled as a handle is");
    if (sw_admin__handle_read(rest, &id)) {
        return (struct sw_admin_routed){ADMIN_SEALED, rest};
    }
    return (struct sw_admin_routed){ADMIN_NOWHERE, {NULL, 0}};
}

static struct sw_admin_routed pin_place(struct sw_slice rest)
{
    uint64_t id;

    if (sw_admin__pin_read(rest, &id)) {
        return (struct sw_admin_routed){ADMIN_PIN, rest};
    }
    return (struct sw_admin_routed){ADMIN_NOWHERE, {NULL, 0}};
}

struct sw_admin_routed sw_admin__route(struct sw_slice path)
{
    static const struct {
        struct sw_slice path;
        enum sw_admin_endpoint endpoint;
    } pages[] = {
        {SW_S("/healthz"), ADMIN_HEALTHZ},     {SW_S("/readyz"), ADMIN_READYZ},
        {SW_S("/metrics"), ADMIN_METRICS},     {SW_S("/v1/apps"), ADMIN_APPS},
        {SW_S("/v1/status"), ADMIN_STATUS},    {SW_S("/v1/sessions"), ADMIN_SESSIONS},
        {SW_S("/v1/subjects"), ADMIN_SUBJECT}, {SW_S("/v1/tokens"), ADMIN_TOKEN},
        {SW_S("/v1/keys"), ADMIN_KEYS},
    };
    static const struct {
        struct sw_slice prefix;
        struct sw_admin_routed (*place)(struct sw_slice rest);
    } folders[] = {
        {SW_S("/v1/apps/"), app_command},
        {SW_S("/v1/instances/"), instance_command},
        {SW_S("/v1/sessions/"), session_place},
        {SW_S("/v1/subjects/"), subject_place},
        {SW_S("/v1/sealed/"), sealed_place},
        {SW_S("/v1/pins/"), pin_place},
    };

    for (size_t i = 0; i < SW_COUNTOF(pages); i++) {
        if (sw_slice_eq(path, pages[i].path)) {
            return (struct sw_admin_routed){pages[i].endpoint, {NULL, 0}};
        }
    }
    for (size_t i = 0; i < SW_COUNTOF(folders); i++) {
        if (sw_slice_starts(path, folders[i].prefix)) {
            return folders[i].place(sw_slice_tail(path, folders[i].prefix.len));
        }
    }
    return (struct sw_admin_routed){ADMIN_NOWHERE, {NULL, 0}};
}

bool sw_admin__personal(enum sw_admin_endpoint endpoint)
{
    return endpoints[endpoint].personal;
}

const char *sw_admin__allow_line(enum sw_admin_endpoint endpoint)
{
    return endpoints[endpoint].allow;
}

/* RFC 6750, 2.1; the scheme's name in any case (RFC 9110, 11.1). */
static bool token_is(struct sw_slice authorization, struct sw_slice token)
{
    static const struct sw_slice scheme = SW_S("Bearer ");

    if (!sw_slice_starts_nocase(authorization, scheme)) {
        return false;
    }
    return sw_slice_eq_secret(sw_slice_trim(sw_slice_tail(authorization, scheme.len)), token);
}

/* 127.0.0.1:9000, [::1]:9000, localhost: what no name server answers for. No name in the DNS
 * consists of digits and dots. */
static bool host_is_address(struct sw_slice host)
{
    struct sw_slice name, port;

    if (host.len > 0 && host.ptr[0] == '[') {
        return true;
    }
    (void)sw_slice_cut(host, ':', &name, &port);
    if (sw_slice_eq_nocase(name, SW_S("localhost"))) {
        return true;
    }
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] != '.' && (name.ptr[i] < '0' || name.ptr[i] > '9')) {
            return false;
        }
    }
    return name.len > 0;
}

/* Whoever may have reached this listener without being allowed to. */
static enum sw_admin_verdict judge_sender(const struct sw_admin_ask *ask, bool token, bool personal,
                                          bool reads)
{
    if (!reads && !ask->has_guard) {
        return ADMIN_NO_GUARD;
    }
    if (sw_slice_eq_nocase(ask->fetch_site, SW_S("cross-site"))) {
        return ADMIN_CROSS;
    }
    if (token) {
        return ADMIN_ALLOWED;
    }
    if (personal && ask->has_via) {
        return ADMIN_PROXIED;
    }
    /* Browsers send no Origin with a GET of the same origin. */
    if ((personal || (ask->has_origin && !ask->has_via)) && !host_is_address(ask->host)) {
        return ADMIN_REBOUND;
    }
    return ADMIN_ALLOWED;
}

enum sw_admin_verdict sw_admin__judge(const struct sw_admin_ask *ask, struct sw_slice token,
                                      struct sw_admin_routed *ret_routed)
{
    struct sw_admin_routed r = sw_admin__route(ask->path);
    bool open = r.endpoint == ADMIN_HEALTHZ || r.endpoint == ADMIN_READYZ;
    bool reads = ask->method == SW_METHOD_GET || ask->method == SW_METHOD_HEAD;
    bool personal = endpoints[r.endpoint].personal;

    *ret_routed = r;
    if (!open && token.len > 0 && !token_is(ask->authorization, token)) {
        return ADMIN_NO_TOKEN;
    }
    if (r.endpoint == ADMIN_NOWHERE) {
        return ADMIN_NO_PLACE;
    }
    if ((endpoints[r.endpoint].methods & SW_BIT(ask->method)) == 0) {
        return ADMIN_NO_METHOD;
    }
    return reads && !personal ? ADMIN_ALLOWED : judge_sender(ask, token.len > 0, personal, reads);
}
