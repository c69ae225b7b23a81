/* gateway/trust.c - keys of issuers: opened for the process, seen by each worker.
 *
 * Room       gateway/. What a key may be used for depends on the way it came: from a URL public
 *            keys only, so that nobody can give out a shared secret to the world and have it taken;
 *            from a file, which belongs to whoever runs us, all of them. None of them signs.
 */
#include "gateway/gateway_priv.h"

#define TRUST_WAIT_MS 3000 /* a slower issuer is waited for by the tokens that need it */

_Static_assert(SW_KEYSETS_MAX <= SW_KEYSET_SOURCES_MAX, "those of a configuration");

static void trust_tells(void *arg, enum sw_log_level level, const char *text)
{
    (void)arg;
    sw_log(level, "%s", text);
}

static enum sw_err trust_add(struct sw_trust *t, const struct sw_config *c)
{
    enum sw_err err = SW_OK;

    for (size_t i = 0; i < c->keyset_count && err == SW_OK; i++) {
        bool url = c->keysets[i].url;
        const struct sw_jwks_rules rules = {
            .algs = url ? SW_JOSE_PUBLIC : SW_JOSE_PUBLIC | SW_JOSE_SECRETS,
        };

        err = sw_keysets_add(t->keysets, c->keysets[i].source, url, &rules, &t->list[i]);
    }
    return err;
}

enum sw_err sw_trust__open(struct sw_trust *t, const struct sw_config *c, const char **ret_why)
{
    const struct sw_keysets_options opt = {.tell = trust_tells};
    enum sw_err err;

    SW_ASSERT(c->keyset_count <= SW_KEYSETS_MAX);
    if (c->keyset_count == 0) {
        return SW_OK;
    }
    err = sw_keysets_new(&opt, &t->keysets);
    err = err == SW_OK ? trust_add(t, c) : err;
    if (err != SW_OK) {
        *ret_why = sw_err_text(err);
        return err;
    }
    return sw_keysets_ready(t->keysets, TRUST_WAIT_MS, ret_why);
}

void sw_trust__close(struct sw_trust *t)
{
    sw_keysets_free(t->keysets);
    t->keysets = NULL;
}

static bool takes_tokens(const struct sw_config *c)
{
    for (size_t i = 0; i < c->route_count; i++) {
        if (c->routes[i].token.on) {
            return true;
        }
    }
    return false;
}

bool sw_trust__env_init(const struct sw_trust *t, struct sw_place_env *env)
{
    const struct sw_config *c = env->config;

    if (takes_tokens(c)) {
        env->tokens = sw_token_cache_new();
        if (env->tokens == NULL) {
            return false;
        }
    }
    if (t == NULL || t->keysets == NULL) {
        return true;
    }
    env->trust = calloc(c->keyset_count, sizeof(*env->trust));
    for (size_t i = 0; env->trust != NULL && i < c->keyset_count; i++) {
        env->trust[i].keyset = t->list[i];
    }
    return env->trust != NULL;
}

void sw_trust__env_fini(struct sw_place_env *env)
{
    for (size_t i = 0; env->trust != NULL && i < env->config->keyset_count; i++) {
        sw_keyset_view_fini(&env->trust[i]);
    }
    free(env->trust);
    env->trust = NULL;
    sw_token_cache_free(env->tokens);
    env->tokens = NULL;
}
