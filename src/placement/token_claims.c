/* placement/token_claims.c - the claims of a verified token, for the app: as a state, as headers,
 * as a name that says "the same visitor".
 *
 * A claim in a header:
 *   a string of printable ASCII     as it is, unless it begins with " [ or {
 *   any other string                as JSON, in ASCII: "Jos\u00e9"
 *   a number, true, false           its JSON text
 *   a list, an object               as compact JSON, in ASCII
 *   null, or not there              no line
 * So an app can tell a list from a string that looks like one: what begins with " [ or { is JSON.
 */
#include "placement/token_priv.h"

#include "base/json.h"

/* What was taken of the arena for out, but not used, goes back. */
static struct sw_slice keep(struct sw_arena *arena, size_t mark, const struct sw_out *out)
{
    sw_arena_reset(arena, mark + out->len);
    return sw_out_done(out);
}

enum sw_err sw_token__compact(struct sw_ask *ask, struct sw_slice text, struct sw_slice *ret_value)
{
    size_t mark = sw_arena_mark(ask->arena);
    char *room = sw_arena_bytes(ask->arena, SW_TOKEN_STATE_BYTES_MAX);
    struct sw_out out = sw_out_init(room, SW_TOKEN_STATE_BYTES_MAX);

    if (room == NULL) {
        return SW_E_NO_MEMORY;
    }
    if (!sw_json_compact(text, &out)) {
        sw_arena_reset(ask->arena, mark);
        return SW_E_TOKEN_LARGE;
    }
    *ret_value = keep(ask->arena, mark, &out);
    return SW_OK;
}

/* A whole number in decimal digits. */
static bool number(struct sw_slice payload, struct sw_slice name, int64_t *ret_value)
{
    struct sw_slice text;
    uint64_t value;

    if (!sw_json_get(payload, name, &text) || !sw_slice_u64(text, &value) || value > INT64_MAX) {
        return false;
    }
    *ret_value = (int64_t)value;
    return true;
}

enum sw_err sw_token__read_own(struct sw_ask *ask)
{
    const struct sw_claims *c = &ask->token.claims;
    struct sw_slice state, link;

    if (!sw_json_get(c->payload, SW_S("state"), &state) ||
        sw_json_type_of(state) != SW_JSON_OBJECT ||
        !number(c->payload, SW_S("end"), &ask->token.end_unix_s) ||
        !number(c->payload, SW_S("bound"), &ask->token.bound_unix_ms) || c->iat_unix_s <= 0) {
        return SW_E_TOKEN_CLAIMS; /* signed with our key, but no token of this kind */
    }
    if (sw_json_get(c->payload, SW_S("link"), &link)) {
        ask->token.linked = link.len == 2 + SW_B64_LEN(sizeof(ask->token.link.bytes)) &&
                            sw_b64url_exact(sw_slice_of(link.ptr + 1, link.len - 2),
                                            ask->token.link.bytes,
                                            sizeof(ask->token.link.bytes)) == SW_OK &&
                            number(c->payload, SW_S("link-end"), &ask->token.link_end_unix_s);
        if (!ask->token.linked) {
            return SW_E_TOKEN_CLAIMS;
        }
    }
    return sw_token__compact(ask, state, &ask->token.state);
}

/* ---- headers --------------------------------------------------------------------------------- */

static bool as_it_is(struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < 0x20 || s.ptr[i] > 0x7e) {
            return false;
        }
    }
    return s.len > 0 && s.ptr[0] != '"' && s.ptr[0] != '[' && s.ptr[0] != '{' && s.ptr[0] != ' ' &&
           s.ptr[s.len - 1] != ' ';
}

static void put_value(struct sw_out *out, struct sw_slice value)
{
    size_t at = out->len;

    if (sw_json_type_of(value) == SW_JSON_STRING && sw_json_unquote(value, out) &&
        as_it_is(sw_slice_of(out->ptr + at, out->len - at))) {
        return;
    }
    if (out->overflowed) {
        return;
    }
    out->len = at;
    if (!sw_json_compact(value, out)) {
        out->overflowed = true;
    }
}

enum sw_err sw_token__put_lines(struct sw_ask *ask)
{
    const struct sw_config_token *t = &ask->routed->route->token;
    size_t mark = sw_arena_mark(ask->arena);
    struct sw_slice value;
    struct sw_out out;
    char *text;

    if (t->header_count == 0) {
        return SW_OK;
    }
    text = sw_arena_bytes(ask->arena, SW_TOKEN_LINES_BYTES_MAX);
    if (text == NULL) {
        return SW_E_NO_MEMORY;
    }
    out = sw_out_init(text, SW_TOKEN_LINES_BYTES_MAX);
    for (size_t i = 0; i < t->header_count; i++) {
        if (!sw_json_get(ask->token.claims.payload, t->headers[i].value, &value) ||
            sw_json_type_of(value) == SW_JSON_NULL) {
            continue;
        }
        sw_out_slice(&out, t->headers[i].name);
        sw_out_lit(&out, ": ");
        put_value(&out, value);
        sw_out_lit(&out, "\r\n");
    }
    if (out.overflowed) {
        return SW_E_TOKEN_LARGE;
    }
    ask->token.lines = keep(ask->arena, mark, &out);
    return SW_OK;
}

/* ---- names ----------------------------------------------------------------------------------- */

void sw_token__visitor(const struct sw_place_env *env, struct sw_slice issuer, struct sw_slice sub,
                       struct sw_slice jti, char ret_text[17])
{
    struct sw_slice who = sub.len > 0 ? sub : jti;
    char text[2 * SW_TOKEN_BYTES_MAX + 64];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_store_key key;

    if (who.len == 0) {
        ret_text[0] = '\0';
        return;
    }
    sw_out_printf(&out, "visitor %s %zu:", sub.len > 0 ? "sub" : "jti", issuer.len);
    sw_out_slice(&out, issuer);
    sw_out_lit(&out, " ");
    sw_out_slice(&out, who);
    SW_ASSERT(!out.overflowed); /* both are parts of one token */
    sw_sha256(sw_out_done(&out), key.bytes);
    sw_place__visitor_text(env, &key, ret_text);
}

struct sw_version sw_token__version(struct sw_slice name, struct sw_slice state)
{
    uint8_t first[32], both[32 + 32];
    struct sw_version v = {0, 1};

    sw_sha256(name, first);
    memcpy(both, first, 32);
    sw_sha256(state, both + 32);
    sw_sha256(sw_slice_of(both, sizeof(both)), first);
    memcpy(&v.epoch, first, sizeof(v.epoch));
    return v;
}
