/* crypto/jose_jws.c - signed tokens in compact form (RFC 7515, 3.1).
 *
 *   BASE64URL(header) . BASE64URL(payload) . BASE64URL(signature)
 *
 * The first two with their dot are what is signed, as they came. The header is decoded to the
 * stack, the payload to the arena once the signature is right. One header member that is not
 * understood is no harm (RFC 7515, 4), unless crit says so: we understand no extension, so crit is
 * refused.
 */
#include "crypto/jose_priv.h"

#include "base/json.h"

struct header {
    enum sw_jose_alg alg;
    bool alg_known;
    struct sw_slice kid, typ; /* insides of strings; ptr NULL: not there */
};

/* An alg that is no string, or none of ours, is left for later: the answer is SW_E_TOKEN_ALG. */
static enum sw_err alg_read(struct sw_slice value, struct header *h)
{
    char name[16];
    struct sw_out out = sw_out_init(name, sizeof(name));

    if (sw_json_type_of(value) != SW_JSON_STRING) {
        return SW_E_TOKEN_HEADER;
    }
    h->alg_known = sw_json_unquote(value, &out) && sw_jose_alg_find(sw_out_done(&out), &h->alg);
    return SW_OK;
}

static enum sw_err member_read(struct sw_slice name, struct sw_slice value, struct header *h)
{
    if (sw_json_name_is(name, SW_S("alg"))) {
        return alg_read(value, h);
    }
    if (sw_json_name_is(name, SW_S("kid"))) {
        return sw_jose__string(value, &h->kid) ? SW_OK : SW_E_TOKEN_HEADER;
    }
    if (sw_json_name_is(name, SW_S("typ"))) {
        return sw_jose__string(value, &h->typ) ? SW_OK : SW_E_TOKEN_HEADER;
    }
    if (sw_json_name_is(name, SW_S("crit"))) {
        return SW_E_TOKEN_HEADER; /* RFC 7515, 4.1.11 */
    }
    if (sw_json_name_is(name, SW_S("b64")) && !sw_slice_eq(value, SW_S("true"))) {
        return SW_E_TOKEN_HEADER; /* RFC 7797, 6: without crit it means nothing, and invites two */
    }
    return SW_OK; /* jku, jwk, x5u, x5c among them: keys are not taken from tokens (RFC 8725, 3.10)
                   */
}

/* text borrows from `room`. */
static enum sw_err header_read(struct sw_slice part, char room[SW_JWS_HEADER_BYTES_MAX],
                               struct header *h)
{
    struct sw_json_checked checked;
    struct sw_slice text, name, value;
    struct sw_json_iter it;
    size_t len, members = 0;
    enum sw_err err = sw_b64url(part, room, SW_JWS_HEADER_BYTES_MAX, &len);

    if (err != SW_OK) {
        return err == SW_E_LIMIT ? SW_E_TOKEN_HEADER : SW_E_TOKEN_SYNTAX;
    }
    text = sw_slice_of(room, len);
    checked = sw_json_check(text);
    if (checked.err != SW_OK || checked.type != SW_JSON_OBJECT) {
        return SW_E_TOKEN_SYNTAX; /* a name twice among them (RFC 7515, 4) */
    }
    it = sw_json_iter(text);
    while (sw_json_next(&it, &name, &value)) {
        if (members++ == SW_JWS_HEADER_MEMBERS_MAX) {
            return SW_E_TOKEN_HEADER;
        }
        err = member_read(name, value, h);
        if (err != SW_OK) {
            return err;
        }
    }
    return h->alg_known ? SW_OK : SW_E_TOKEN_ALG;
}

#define TYP_BYTES_MAX 128

/* RFC 7515, 4.1.9: a media type whose "application/" may be left out; case does not count. */
static bool typ_is(struct sw_slice typ, struct sw_slice want)
{
    struct sw_slice prefix = SW_S("application/");
    char text[TYP_BYTES_MAX];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_slice got;

    if (typ.ptr == NULL || !sw_json_unquote((struct sw_slice){typ.ptr - 1, typ.len + 2}, &out)) {
        return false;
    }
    got = sw_out_done(&out);
    if (sw_slice_starts_nocase(got, prefix)) {
        got = sw_slice_tail(got, prefix.len);
    }
    return sw_slice_eq_nocase(got, want);
}

static enum sw_err payload_decode(struct sw_slice part, struct sw_arena *arena,
                                  struct sw_slice *ret_payload)
{
    size_t mark = sw_arena_mark(arena), cap = part.len / 4 * 3 + 3, len;
    char *room = sw_arena_bytes(arena, cap);

    if (room == NULL) {
        return SW_E_NO_MEMORY;
    }
    if (sw_b64url(part, room, cap, &len) != SW_OK) {
        sw_arena_reset(arena, mark);
        return SW_E_TOKEN_SYNTAX;
    }
    *ret_payload = sw_slice_of(room, len);
    return SW_OK;
}

enum sw_err sw_jws_verify(const struct sw_jwks *set, struct sw_slice token, struct sw_slice typ,
                          struct sw_arena *arena, struct sw_jws *ret_jws)
{
    struct sw_slice header_part, rest, payload_part, sig_part, input;
    char header_room[SW_JWS_HEADER_BYTES_MAX];
    uint8_t sig[JOSE_SIG_BYTES_MAX];
    struct header h = {0};
    struct sw_jws jws = {0};
    size_t sig_len;
    enum sw_err err;

    SW_ASSERT(typ.len <= TYP_BYTES_MAX);
    if (token.len > SW_TOKEN_BYTES_MAX) {
        return SW_E_TOKEN_LARGE;
    }
    if (!sw_slice_cut(token, '.', &header_part, &rest) ||
        !sw_slice_cut(rest, '.', &payload_part, &sig_part)) {
        return SW_E_TOKEN_SYNTAX; /* a third dot is no letter of base64url */
    }
    input = sw_slice_head(token, header_part.len + 1 + payload_part.len);
    err = header_read(header_part, header_room, &h);
    if (err != SW_OK) {
        return err;
    }
    err = sw_jose__find(set, h.kid, h.alg, &jws.key);
    if (err != SW_OK) {
        return err;
    }
    if (typ.len > 0 && !typ_is(h.typ, typ)) {
        return SW_E_TOKEN_TYP;
    }
    err = sw_b64url(sig_part, sig, sizeof(sig), &sig_len);
    if (err != SW_OK) {
        return err == SW_E_LIMIT ? SW_E_TOKEN_SIGNATURE : SW_E_TOKEN_SYNTAX;
    }
    err = sw_jose__verify(jws.key, input, sw_slice_of(sig, sig_len));
    if (err != SW_OK) {
        return err;
    }
    err = payload_decode(payload_part, arena, &jws.payload);
    if (err == SW_OK) {
        *ret_jws = jws;
    }
    return err;
}

enum sw_err sw_jws_sign(const struct sw_jwk *key, struct sw_slice typ, struct sw_slice payload,
                        struct sw_out *out)
{
    char header[SW_JWS_HEADER_BYTES_MAX], token[SW_TOKEN_BYTES_MAX];
    struct sw_out h = sw_out_init(header, sizeof(header)), t = sw_out_init(token, sizeof(token));
    uint8_t sig[JOSE_SIG_BYTES_MAX];
    enum sw_err err;

    SW_ASSERT(typ.len <= TYP_BYTES_MAX);
    if (!key->signs) {
        return SW_E_JWK_USE;
    }
    sw_out_lit(&h, "{\"alg\":\"");
    sw_out_cstr(&h, key->legacy ? "EdDSA" : sw_jose_alg_name(key->alg));
    sw_out_char(&h, '"');
    if (key->kid_len > 0) {
        sw_out_lit(&h, ",\"kid\":");
        sw_json_quote(&h, sw_jwk_kid(key));
    }
    if (typ.len > 0) {
        sw_out_lit(&h, ",\"typ\":");
        sw_json_quote(&h, typ);
    }
    sw_out_char(&h, '}');
    SW_ASSERT(!h.overflowed); /* kid: 256 bytes at most, quoted six times that; typ */
    sw_b64url_put(&t, h.ptr, h.len);
    sw_out_char(&t, '.');
    sw_b64url_put(&t, payload.ptr, payload.len);
    if (t.overflowed || t.len + 1 + SW_B64_LEN(key->sig_bytes) > sizeof(token)) {
        return SW_E_TOKEN_LARGE;
    }
    err = sw_jose__sign(key, sw_out_done(&t), sig);
    if (err != SW_OK) {
        return err;
    }
    sw_out_char(&t, '.');
    sw_b64url_put(&t, sig, key->sig_bytes);
    SW_ASSERT(!t.overflowed);
    sw_out_slice(out, sw_out_done(&t));
    return out->overflowed ? SW_E_LIMIT : SW_OK;
}
