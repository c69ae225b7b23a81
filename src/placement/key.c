/* placement/key.c - whose state is it: a visitor (cookie), or an entity the request names.
 *
 * A visitor's id is 256 random bits, base64url in the cookie; the store sees its SHA-256 only. An
 * entity's key is a hash of app, kind and id, so that two apps never meet in one record. An entity
 * with an owner needs both: the cookie says who asks.
 */
#include "placement/token_priv.h"

#include "base/json.h"

#define ENTITY_ID_BYTES_MAX 512

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decoding (RFC 3986, 2.1); form: a plus is a blank, as in the query of a form. False: a
 * broken escape or too long. */
static bool decode(struct sw_slice in, bool form, struct sw_out *out)
{
    for (size_t i = 0; i < in.len; i++) {
        char c = in.ptr[i];

        if (c == '%') {
            int high, low;

            if (in.len - i < 3) {
                return false;
            }
            high = hex_digit(in.ptr[i + 1]);
            low = hex_digit(in.ptr[i + 2]);
            if (high < 0 || low < 0) {
                return false;
            }
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && form) {
            c = ' ';
        }
        sw_out_char(out, c);
    }
    return !out->overflowed;
}

static bool unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

/* The parameter's value. Empty when it is there twice, in whatever spelling of its name: apps
 * differ on which one counts, and would work on another state than the one they were handed. */
static struct sw_slice query_value(struct sw_slice query, struct sw_slice name)
{
    struct sw_slice found = {NULL, 0};
    unsigned count = 0;

    while (query.len > 0) {
        struct sw_slice pair, key, value;
        char text[256];
        struct sw_out decoded = sw_out_init(text, sizeof(text));

        sw_slice_cut(query, '&', &pair, &query);
        sw_slice_cut(pair, '=', &key, &value);
        if (decode(key, true, &decoded) && sw_slice_eq(sw_out_done(&decoded), name)) {
            found = value;
            count++;
        }
    }
    return count == 1 ? found : (struct sw_slice){NULL, 0};
}

/* For an app that reads them as CGI variables these are one name. */
static bool same_variable(struct sw_slice a, struct sw_slice b)
{
    for (size_t i = 0; i < a.len && a.len == b.len; i++) {
        char one = a.ptr[i] == '_' ? '-' : a.ptr[i], other = b.ptr[i] == '_' ? '-' : b.ptr[i];

        if (!sw_slice_eq_nocase(sw_slice_of(&one, 1), sw_slice_of(&other, 1))) {
            return false;
        }
    }
    return a.len == b.len;
}

/* The field's value; empty when there are two: see query_value. */
static struct sw_slice header_value(const struct sw_head *h, struct sw_slice name)
{
    struct sw_slice found = {NULL, 0};
    unsigned count = 0;

    for (uint32_t i = 0; i < h->field_count; i++) {
        if (same_variable(h->fields[i].name, name)) {
            found = h->fields[i].value;
            count++;
        }
    }
    return count == 1 ? found : (struct sw_slice){NULL, 0};
}

static struct sw_slice entity_raw(const struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;

    switch (route->session.key_source) {
    case SW_KEY_PATH:
        for (uint32_t i = 0; i < ask->routed->capture_count; i++) {
            if (sw_slice_eq(ask->routed->captures[i].name, route->session.key_name)) {
                return ask->routed->captures[i].value;
            }
        }
        break;
    case SW_KEY_HEADER:
        return header_value(ask->request, route->session.key_name);
    case SW_KEY_QUERY:
        return query_value(ask->request->query, route->session.key_name);
    case SW_KEY_CLAIM:
    case SW_KEY_COOKIE:
        break;
    }
    return (struct sw_slice){NULL, 0};
}

/* The characters of a claim that must be a text: RFC 7519 gives a number no one spelling. */
static enum sw_err claim_value(struct sw_ask *ask, struct sw_out *out)
{
    struct sw_slice value;

    if (!ask->token.valid) {
        return ask->token.ignored != SW_OK ? ask->token.ignored : SW_E_TOKEN_ABSENT;
    }
    if (!sw_json_get(ask->token.claims.payload, ask->routed->route->session.key_name, &value) ||
        !sw_json_unquote(value, out)) {
        return SW_E_TOKEN_REQUIRED;
    }
    return out->len > 0 && !out->overflowed ? SW_OK : SW_E_TOKEN_REQUIRED;
}

/* "room:42": kind, and the id with everything but unreserved characters percent-encoded. */
static struct sw_slice entity_text(struct sw_ask *ask, struct sw_slice kind, struct sw_slice id)
{
    size_t cap = kind.len + 1 + 3 * id.len;
    char *text = sw_arena_bytes(ask->arena, cap);
    struct sw_out out = sw_out_init(text, cap);

    if (text == NULL) {
        return (struct sw_slice){NULL, 0};
    }
    sw_out_slice(&out, kind);
    sw_out_char(&out, ':');
    for (size_t i = 0; i < id.len; i++) {
        unsigned char c = (unsigned char)id.ptr[i];

        if (unreserved(c)) {
            sw_out_char(&out, (char)c);
        } else {
            sw_out_char(&out, '%');
            sw_out_char(&out, "0123456789ABCDEF"[c >> 4]);
            sw_out_char(&out, "0123456789ABCDEF"[c & 15]);
        }
    }
    return sw_out_done(&out);
}

/* The id's bytes, as the request names it. */
static enum sw_err entity_id(struct sw_ask *ask, struct sw_out *out)
{
    enum sw_key_source source = ask->routed->route->session.key_source;
    struct sw_slice raw = entity_raw(ask);

    if (source == SW_KEY_CLAIM) {
        return claim_value(ask, out);
    }
    if (raw.len == 0) {
        return SW_E_KEY;
    }
    if (source == SW_KEY_HEADER) {
        sw_out_slice(out, raw);
    } else if (!decode(raw, source == SW_KEY_QUERY, out)) {
        return SW_E_KEY;
    }
    return out->overflowed || out->len == 0 ? SW_E_KEY : SW_OK;
}

static enum sw_err entity_key(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    struct sw_slice kind = route->session.key_name, issuer = route->token.issuer;
    struct sw_slice app = ask->env->config->apps[route->app].name;
    char id[ENTITY_ID_BYTES_MAX], text[ENTITY_ID_BYTES_MAX + 256];
    struct sw_out decoded = sw_out_init(id, sizeof(id)), out = sw_out_init(text, sizeof(text));
    enum sw_err err = entity_id(ask, &decoded);
    uint8_t by[32];

    if (err != SW_OK) {
        return err;
    }
    sw_out_printf(&out, "entity %zu:%.*s %zu:%.*s ", app.len, SW_SARG(app), kind.len,
                  SW_SARG(kind));
    if (route->session.key_source == SW_KEY_CLAIM) { /* two issuers may give one name to two */
        sw_sha256(issuer, by);
        sw_out_lit(&out, "by ");
        sw_out_put(&out, by, sizeof(by));
    }
    sw_out_slice(&out, sw_out_done(&decoded));
    if (out.overflowed) {
        return SW_E_KEY;
    }
    sw_sha256(sw_out_done(&out), ask->key.bytes);
    ask->key_text = entity_text(ask, kind, sw_out_done(&decoded));
    ask->has_key = true;
    return ask->key_text.ptr == NULL ? SW_E_NO_MEMORY : SW_OK;
}

/* The id in the route's cookie, when there is one of our shape: an id that is not ours is no id. */
static enum sw_err cookie_id(struct sw_ask *ask, struct sw_store_key *ret_key, bool *ret_found)
{
    struct sw_cookie_found found;

    ask->session.cookie_name = sw_place__cookie_name(ask, &ask->routed->route->session.cookie);
    if (ask->session.cookie_name.ptr == NULL) {
        return SW_E_NO_MEMORY;
    }
    found = sw_cookie_find(ask->request, ask->session.cookie_name);
    ask->session.cookie_present = found.count > 0;
    *ret_found = found.count > 0 &&
                 sw_b64url_exact(found.value, ask->session.id, sizeof(ask->session.id)) == SW_OK;
    if (*ret_found) {
        sw_sha256(sw_slice_of(ask->session.id, sizeof(ask->session.id)), ret_key->bytes);
        sw_place__visitor(ask, ret_key);
    }
    return SW_OK;
}

enum sw_err sw_place__visitor_key(struct sw_ask *ask)
{
    enum sw_err err = cookie_id(ask, &ask->key, &ask->has_key);

    ask->session.from_cookie = true;
    if (err == SW_OK && ask->has_key) {
        memcpy(ask->session.at_id, ask->session.id, sizeof(ask->session.at_id));
        ask->session.has_at_id = true;
        sw_place__visitor_key_text(ask);
    }
    return err == SW_OK && ask->routed->route->placement == SW_PLACE_SESSION
               ? sw_place__move_key(ask)
               : err;
}

enum sw_err sw_place_key(struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;
    enum sw_err err;

    if (route->placement == SW_PLACE_TOKEN && ask->token.valid && ask->visitor[0] != '\0') {
        sw_place__visitor_key_text(ask);
    }
    if (route->placement == SW_PLACE_TOKEN && route->moved_from != SW_PLACE_NONE) {
        return sw_token__key(ask);
    }
    if (route->placement == SW_PLACE_SEALED) {
        return sw_place__sealed_key(ask);
    }
    if (route->placement != SW_PLACE_SESSION) {
        return SW_OK;
    }
    if (ask->alarm != NULL) {
        SW_ASSERT(ask->has_key);
        return SW_OK;
    }
    if (route->session.key_source == SW_KEY_COOKIE) {
        return sw_place__visitor_key(ask);
    }
    err = entity_key(ask);
    if (sw_err_status(err) == 401 || sw_err_status(err) == 403) {
        sw_token__challenge(ask, err);
    }
    if (err == SW_OK && route->session.owner_subject) {
        err = cookie_id(ask, &ask->session.own, &ask->session.has_own);
    }
    return err;
}
