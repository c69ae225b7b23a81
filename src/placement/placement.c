/* placement/placement.c - the table of placements and what they share. */
#include "placement/placement_priv.h"

static const char *const verdict_names[SW_VERDICT_COUNT] = {
    [SW_VERDICT_NONE] = "none",
    [SW_VERDICT_FRESH] = "fresh",
    [SW_VERDICT_KEPT] = "kept",
    [SW_VERDICT_UPDATED] = "updated",
    [SW_VERDICT_MOVED] = "moved",
    [SW_VERDICT_RESTORED] = "restored",
    [SW_VERDICT_EXPIRED] = "expired",
    [SW_VERDICT_LOST] = "lost",
    [SW_VERDICT_CONFLICTED] = "conflicted",
    [SW_VERDICT_REVOKED] = "revoked",
};

const char *sw_verdict_name(enum sw_verdict v)
{
    SW_ASSERT(v < SW_VERDICT_COUNT);
    return verdict_names[v];
}

const struct sw_placement *sw_placement_of(enum sw_placement_kind kind)
{
    static const struct sw_placement *const table[SW_PLACE_COUNT] = {
        [SW_PLACE_NONE] = &sw_placement__none,
        [SW_PLACE_STICKY] = &sw_placement__sticky,
        [SW_PLACE_SESSION] = &sw_placement__session,
        [SW_PLACE_TOKEN] = &sw_placement__token,
        [SW_PLACE_SEALED] = &sw_placement__sealed,
    };

    SW_ASSERT(kind < SW_PLACE_COUNT);
    return table[kind];
}

bool sw_place__secure(const struct sw_ask *ask, const struct sw_config_cookie *c)
{
    return c->secure == SW_SECURE_YES || (c->secure == SW_SECURE_AUTO && ask->secure);
}

/* 6265bis, 4.1.3.2: __Host- demands Secure, Path=/ and no Domain; we never send a Domain. */
struct sw_slice sw_place__cookie_name(struct sw_ask *ask, const struct sw_config_cookie *c)
{
    if (sw_place__secure(ask, c) && sw_slice_eq(c->path, SW_S("/"))) {
        return sw_arena_printf(ask->arena, "__Host-%.*s", SW_SARG(c->name));
    }
    return c->name;
}

enum sw_err sw_place__cookie_lines(struct sw_ask *ask, const struct sw_config_cookie *c,
                                   struct sw_slice name, struct sw_slice value, int64_t max_age_s,
                                   struct sw_slice *ret_lines)
{
    struct sw_set_cookie cookie = {
        .name = name,
        .value = value,
        .path = c->path,
        .same_site = (enum sw_same_site)c->same_site,
        .secure = sw_place__secure(ask, c),
        .max_age_s = max_age_s,
    };
    size_t cap = ask->client_lines.len + name.len + value.len + c->path.len + 160;
    char *text = sw_arena_bytes(ask->arena, cap);
    struct sw_out out = sw_out_init(text, cap);

    if (text == NULL) {
        return SW_E_NO_MEMORY;
    }
    sw_out_slice(&out, ask->client_lines);
    sw_out_lit(&out, "Set-Cookie: ");
    if (!sw_set_cookie_put(&out, &cookie)) {
        return SW_E_LIMIT;
    }
    sw_out_lit(&out, "\r\n");
    SW_ASSERT(!out.overflowed);
    *ret_lines = sw_out_done(&out);
    return SW_OK;
}

enum sw_err sw_place__set_cookie(struct sw_ask *ask, const struct sw_config_cookie *c,
                                 struct sw_slice name, struct sw_slice value, int64_t max_age_s)
{
    enum sw_err err = sw_place__cookie_lines(ask, c, name, value, max_age_s, &ask->client_lines);

    if (err == SW_OK) {
        ask->sets_cookie = true;
    }
    return err;
}

enum sw_step sw_place__pick_any(struct sw_ask *ask, bool newcomer)
{
    struct sw_pick *p = &ask->tried;

    p->app = ask->routed->route->app;
    p->newcomer = newcomer;
    p->hash = ask->has_key ? sw_slice_hash(sw_slice_of(ask->key.bytes, sizeof(ask->key.bytes)), 0)
                           : sw_rng_u64(ask->env->rng);
    ask->instance = sw_app_pick(ask->env->apps, p, ask->env->rng);
    return ask->instance == NULL ? sw_place__fail(ask, SW_E_NO_INSTANCE) : SW_STEP_DONE;
}

static void visitor_hash(const struct sw_key *active, const struct sw_store_key *key,
                         char ret_text[16])
{
    struct sw_slice part = sw_slice_of(key->bytes, sizeof(key->bytes));
    struct sw_out out = sw_out_init(ret_text, 16);
    uint8_t mac[32];

    sw_hmac_sha256(&active->visitor, &part, 1, mac);
    for (size_t i = 0; i < 8; i++) {
        sw_out_hex(&out, mac[i], 2);
    }
    SW_ASSERT(out.len == 16);
}

void sw_place__visitor_text(const struct sw_place_env *env, const struct sw_store_key *key,
                            char ret_text[17])
{
    const struct sw_key *active = &env->keys->keys[env->keys->active];
    uint32_t word;

    ret_text[16] = '\0';
    if (env->visitors == NULL) {
        visitor_hash(active, key, ret_text);
        return;
    }
    memcpy(&word, key->bytes, sizeof(word)); /* the key is a hash: its own bytes spread it */
    word %= SW_VISITORS_MAX;
    if (env->visitors->at[word].text[0] == '\0' || env->visitors->at[word].key_id != active->id ||
        memcmp(&env->visitors->at[word].key, key, sizeof(*key)) != 0) {
        visitor_hash(active, key, env->visitors->at[word].text);
        env->visitors->at[word].key = *key;
        env->visitors->at[word].key_id = active->id;
    }
    memcpy(ret_text, env->visitors->at[word].text, 16);
}

void sw_place__visitor(struct sw_ask *ask, const struct sw_store_key *key)
{
    sw_place__visitor_text(ask->env, key, ask->visitor);
}

void sw_place__visitor_key_text(struct sw_ask *ask)
{
    struct sw_out out =
        sw_out_init(ask->session.visitor_text, sizeof(ask->session.visitor_text) - 1);

    sw_out_lit(&out, "visitor:");
    sw_out_cstr(&out, ask->visitor);
    SW_ASSERT(!out.overflowed);
    ask->key_text = sw_out_done(&out);
}

static size_t own_names(const struct sw_config_cookie *c, struct sw_slice *names,
                        struct sw_out *out)
{
    size_t at = out->len;

    sw_out_lit(out, "__Host-");
    sw_out_slice(out, c->name);
    names[0] = c->name;
    if (out->overflowed) {
        return 1;
    }
    names[1] = sw_slice_of(out->ptr + at, out->len - at);
    return 2;
}

size_t sw_place_own_cookies(const struct sw_config_route *route,
                            struct sw_slice ret_names[SW_OWN_COOKIES_MAX],
                            char text[SW_OWN_COOKIES_TEXT])
{
    struct sw_out out = sw_out_init(text, SW_OWN_COOKIES_TEXT);
    size_t count = 0;

    switch (route->placement) {
    case SW_PLACE_NONE:
    case SW_PLACE_COUNT:
        break;
    case SW_PLACE_STICKY:
        count = own_names(&route->sticky.cookie, ret_names, &out);
        break;
    case SW_PLACE_SESSION:
        count = own_names(&route->session.cookie, ret_names, &out);
        break;
    case SW_PLACE_TOKEN:
        break;
    case SW_PLACE_SEALED:
        count = own_names(&route->sealed.cookie, ret_names, &out);
        break;
    }
    if (route->placement == SW_PLACE_SEALED && (route->sealed.oversize == SW_OVERSIZE_SPILL ||
                                                route->moved_from == SW_PLACE_SESSION)) {
        count += own_names(&route->session.cookie, ret_names + count, &out);
    }
    if (route->placement != SW_PLACE_SEALED && route->moved_from == SW_PLACE_SEALED) {
        count += own_names(&route->sealed.cookie, ret_names + count, &out);
    }
    if (route->placement == SW_PLACE_TOKEN && route->moved_from == SW_PLACE_SESSION) {
        count += own_names(&route->session.cookie, ret_names + count, &out);
    }
    if (sw_place__token_cookie(&route->token)) {
        count += own_names(&route->token.cookie, ret_names + count, &out);
    }
    SW_ASSERT(count <= SW_OWN_COOKIES_MAX);
    return count;
}
