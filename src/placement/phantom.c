/* placement/phantom.c - a token for the app: whose request is it, said under a signature.
 *
 * The client carries the opaque id of a session; the app, and whoever the app calls, gets a short
 * token that names the session's subject, and needs no shared store to believe it:
 *   iss, aud  the route's      sub  the subject of the visitor's session
 *   iat, exp  a short life     sid  Stateway-Visitor     jti  sid and iat
 * It is in the place of the client's Authorization, which never reaches such an app: without a
 * subject there is none.
 *
 * A signature costs as much as a small request, so a worker keeps those it has made, for half of
 * their life: a session that ended is not handed on, since its state is read first.
 */
#include "placement/placement_priv.h"

#include "base/json.h"

#include <inttypes.h>

struct sw_phantoms {
    struct {
        uint8_t id[32];
        int64_t until_unix_s; /* 0: free */
        uint32_t len;
        char text[SW_PHANTOM_BYTES_MAX];
    } at[SW_PHANTOMS_MAX];
};

struct sw_phantoms *sw_phantoms_new(void)
{
    return calloc(1, sizeof(struct sw_phantoms));
}

void sw_phantoms_free(struct sw_phantoms *p)
{
    free(p);
}

/* Comes a subject back as it was said? Bytes that are no UTF-8 do not, and two of them could become
 * one: such a one is named to nobody. */
static bool is_text(struct sw_slice subject)
{
    char quoted[6 * SW_SUBJECT_BYTES_MAX + 2], plain[3 * SW_SUBJECT_BYTES_MAX];
    struct sw_out out = sw_out_init(quoted, sizeof(quoted));
    struct sw_out back = sw_out_init(plain, sizeof(plain));

    sw_json_quote(&out, subject);
    return !out.overflowed && sw_json_unquote(sw_out_done(&out), &back) &&
           sw_slice_eq(sw_out_done(&back), subject);
}

/* Whose request it is. An entity's subject says that only where none but he may come. */
static struct sw_slice subject_of(const struct sw_ask *ask)
{
    const struct sw_config_route *route = ask->routed->route;

    if (!ask->state_present || ask->visitor[0] == '\0' ||
        (route->session.key_source != SW_KEY_COOKIE && !route->session.owner_subject)) {
        return (struct sw_slice){NULL, 0};
    }
    return is_text(ask->session.record.subject) ? ask->session.record.subject
                                                : (struct sw_slice){NULL, 0};
}

static void phantom_id(const struct sw_ask *ask, struct sw_slice subject, uint8_t id[32])
{
    const struct sw_config_route *route = ask->routed->route;
    struct sw_slice iss = route->session.phantom.issuer, aud = route->session.phantom.audience;
    char text[2048];
    struct sw_out out = sw_out_init(text, sizeof(text));
    uint8_t both[64];

    sw_sha256(iss, both);
    sw_sha256(aud, both + 32);
    sw_out_put(&out, both, sizeof(both));
    sw_out_printf(&out, "%u %" PRId64 " %s ", route->session.phantom.alg,
                  route->session.phantom.life_s, ask->visitor);
    sw_out_slice(&out, subject);
    SW_ASSERT(!out.overflowed); /* a subject has SW_SUBJECT_BYTES_MAX */
    sw_sha256(sw_out_done(&out), id);
}

static void put_payload(struct sw_out *out, const struct sw_ask *ask, struct sw_slice subject)
{
    const struct sw_config_route *route = ask->routed->route;

    sw_out_lit(out, "{\"iss\":");
    sw_json_quote(out, route->session.phantom.issuer);
    sw_out_lit(out, ",\"aud\":");
    sw_json_quote(out, route->session.phantom.audience);
    sw_out_lit(out, ",\"sub\":");
    sw_json_quote(out, subject);
    sw_out_printf(out, ",\"sid\":\"%s\",\"jti\":\"%s.%" PRIx64 "\",\"iat\":%" PRId64, ask->visitor,
                  ask->visitor, (uint64_t)ask->now_unix_s, ask->now_unix_s);
    sw_out_printf(out, ",\"exp\":%" PRId64 "}", ask->now_unix_s + route->session.phantom.life_s);
}

static enum sw_err sign(struct sw_ask *ask, struct sw_slice subject, struct sw_out *out)
{
    uint8_t alg = ask->routed->route->session.phantom.alg;
    const struct sw_jwks *set = ask->env->mint == NULL ? NULL : ask->env->mint->sets[alg];
    const struct sw_jwk *key = set == NULL ? NULL : sw_jwks_signer(set);
    char text[SW_TOKEN_BYTES_MAX];
    struct sw_out payload = sw_out_init(text, sizeof(text));
    enum sw_err err;

    if (key == NULL) {
        return SW_E_TOKEN_KEYS;
    }
    put_payload(&payload, ask, subject);
    if (payload.overflowed) {
        return SW_E_MINT_LARGE;
    }
    err = sw_jws_sign(key, SW_S("JWT"), sw_out_done(&payload), out);
    sw_keyring_used(ask->env->keys, ask->env->keys->keys[ask->env->keys->active].id, SW_KEY_MADE,
                    ask->now_unix_s);
    return err == SW_E_TOKEN_LARGE || err == SW_E_LIMIT ? SW_E_MINT_LARGE : err;
}

enum sw_err sw_place_phantom(struct sw_ask *ask, struct sw_slice *ret_line)
{
    const struct sw_config_route *route = ask->routed->route;
    struct sw_phantoms *p = ask->env->phantoms;
    struct sw_slice subject = subject_of(ask), token;
    char text[SW_TOKEN_BYTES_MAX];
    struct sw_out out = sw_out_init(text, sizeof(text));
    uint8_t id[32];
    uint32_t at;
    enum sw_err err;

    *ret_line = (struct sw_slice){NULL, 0};
    if (!sw_place_has_phantom(route) || subject.len == 0) {
        return SW_OK;
    }
    SW_ASSERT(p != NULL);
    phantom_id(ask, subject, id);
    memcpy(&at, id, sizeof(at));
    at %= SW_PHANTOMS_MAX;
    if (p->at[at].until_unix_s > ask->now_unix_s && memcmp(p->at[at].id, id, sizeof(id)) == 0) {
        token = sw_slice_of(p->at[at].text, p->at[at].len);
    } else {
        err = sign(ask, subject, &out);
        if (err != SW_OK) {
            return err;
        }
        token = sw_out_done(&out);
        if (token.len <= SW_PHANTOM_BYTES_MAX) {
            memcpy(p->at[at].id, id, sizeof(id));
            memcpy(p->at[at].text, token.ptr, token.len);
            p->at[at].len = (uint32_t)token.len;
            p->at[at].until_unix_s = ask->now_unix_s + route->session.phantom.life_s / 2;
        }
    }
    *ret_line = sw_arena_printf(ask->arena, "Authorization: Bearer %.*s\r\n", SW_SARG(token));
    return ret_line->ptr == NULL ? SW_E_NO_MEMORY : SW_OK;
}
