/* What a file becomes: defaults, every key, substitution, flags, trusted networks. */
#include "world.h"

#include <arpa/inet.h>
#include <unistd.h>

#define SHORTEST                                                                                   \
    "apps:   { shop: { command: [node, server.js] } }\n"                                           \
    "routes: [ { path: /*, app: shop, state: session } ]\n"

static struct sw_config *parsed(struct sw_slice text, const struct sw_config_override *override)
{
    struct sw_config_errors errors;
    struct sw_config *c = NULL;
    enum sw_err err = parse(text, override, &c, &errors);

    if (err != SW_OK) {
        print_errors(&errors);
    }
    assert_int_equal(err, SW_OK);
    assert_int_equal(errors.count, 0);
    sw_config_errors_fini(&errors);
    return c;
}

static char *slurp(const char *path, size_t *ret_len)
{
    static char buf[65536];
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    *ret_len = fread(buf, 1, sizeof(buf), f);
    assert_true(*ret_len < sizeof(buf));
    (void)fclose(f);
    return buf;
}

#define TEXT_IS(slice, str)                                                                        \
    do {                                                                                           \
        assert_int_equal((slice).len, strlen(str));                                                \
        assert_memory_equal((slice).ptr, str, strlen(str));                                        \
        assert_int_equal((slice).ptr[(slice).len], '\0');                                          \
    } while (0)

static void shortest_file(void **state)
{
    struct sw_config *c = parsed(SW_S(SHORTEST), NULL);
    const struct sw_config_app *a;
    const struct sw_config_route *r;

    (void)state;
    TEXT_IS(c->file, "t.yaml");
    assert_int_equal(c->listen_count, 1);
    TEXT_IS(c->listen[0].text, "127.0.0.1:8080");
    assert_int_equal(sw_addr_port(&c->listen[0].addr), 8080);
    assert_int_equal(sw_addr_port(&c->admin_addr), 9000);
    assert_int_equal(c->trusted_count, 0);
    TEXT_IS(c->store_kind, "lmdb");
    TEXT_IS(c->store_path, "./state");
    TEXT_IS(c->keys_file, "./state/keys.json");
    assert_int_equal(c->sync, 0);
    assert_int_equal(c->store_map_bytes, 16ull << 30);
    assert_int_equal(c->store_memory_bytes, 1ull << 30);
    assert_int_equal(c->engine, SW_ENGINE_AUTO);
    assert_int_equal(c->workers, 0);
    assert_int_equal(c->log_level, SW_LOG_INFO);
    assert_false(c->log_json);
    TEXT_IS(c->access_log, "stdout");
    assert_int_equal(c->timeouts.head_ns, 10 * SW_NS_PER_S);
    assert_int_equal(c->timeouts.idle_ns, 60 * SW_NS_PER_S);
    assert_int_equal(c->timeouts.body_ns, 30 * SW_NS_PER_S);
    assert_int_equal(c->timeouts.send_ns, 30 * SW_NS_PER_S);
    assert_int_equal(c->timeouts.connect_ns, 2 * SW_NS_PER_S);
    assert_int_equal(c->timeouts.response_ns, 30 * SW_NS_PER_S);
    assert_int_equal(c->timeouts.exchange_ns, 300 * SW_NS_PER_S);
    assert_int_equal(c->timeouts.stop_ns, 30 * SW_NS_PER_S);
    assert_int_equal(c->limits.connections, 100000);
    assert_int_equal(c->limits.head_bytes, 32768);
    assert_int_equal(c->limits.fields, 100);
    assert_int_equal(c->limits.target_bytes, 8192);
    assert_int_equal(c->limits.body_bytes, 16 << 20);
    assert_int_equal(c->limits.replay_buffer_bytes, 65536);
    assert_int_equal(c->limits.large_bytes, 64 << 20);
    TEXT_IS(c->side_text, "127.0.0.1:0");
    assert_int_equal(c->side_addr.sa.sa_family, AF_INET);
    assert_int_equal(c->side_addr.in.sin_port, 0);

    assert_int_equal(c->app_count, 1);
    a = &c->apps[0];
    TEXT_IS(a->name, "shop");
    assert_int_equal(a->line, 1);
    assert_string_equal(a->command[0], "node");
    assert_string_equal(a->command[1], "server.js");
    assert_null(a->command[2]);
    assert_int_equal(a->directory.len, 0);
    assert_int_equal(a->replicas, 3);
    assert_int_equal(a->server_count, 0);
    assert_int_equal(a->health_path.len, 0);
    assert_int_equal(a->health_interval_ns, 2 * SW_NS_PER_S);
    assert_int_equal(a->health_timeout_ns, SW_NS_PER_S);
    assert_int_equal(a->health_healthy, 1);
    assert_int_equal(a->health_unhealthy, 2);
    assert_int_equal(a->start_timeout_ns, 30 * SW_NS_PER_S);
    assert_int_equal(a->balance, SW_BALANCE_LEAST);
    assert_int_equal(a->drain_deadline_ns, 600 * SW_NS_PER_S);
    assert_int_equal(a->connections_max, 1000);
    assert_int_equal(a->pending_max, 100);
    assert_int_equal(a->retry_attempts, 2);
    assert_int_equal(a->retry_budget_percent, 20);
    assert_int_equal(a->retry_per_try_ns, 0);

    assert_int_equal(c->route_count, 1);
    r = &c->routes[0];
    assert_int_equal(r->line, 2);
    TEXT_IS(r->path, "/*");
    assert_int_equal(r->host.len, 0);
    assert_int_equal(r->method_count, 0);
    assert_int_equal(r->app, 0);
    assert_int_equal(r->placement, SW_PLACE_SESSION);
    assert_int_equal(r->replay, SW_REPLAY_IDEMPOTENT);
    assert_true(r->csrf);
    assert_false(r->expose_verdict);
    assert_int_equal(r->session.key_source, SW_KEY_COOKIE);
    TEXT_IS(r->session.cookie.name, "sid");
    TEXT_IS(r->session.cookie.path, "/");
    assert_int_equal(r->session.cookie.same_site, 0);
    assert_int_equal(r->session.cookie.secure, SW_SECURE_AUTO);
    assert_int_equal(r->session.idle_s, 1800);
    assert_int_equal(r->session.absolute_s, 30 * 86400);
    assert_int_equal(r->session.concurrency, SW_CONC_SERIAL);
    assert_int_equal(r->session.queue_length, 64);
    assert_int_equal(r->session.queue_wait_ns, 5 * SW_NS_PER_S);
    assert_int_equal(r->session.inline_bytes, 4096);
    assert_int_equal(r->session.max_bytes, 1 << 20);
    assert_false(r->session.encrypt);
    assert_false(r->session.owner_subject);
    assert_int_equal(r->session.alarm.len, 0);
    assert_int_equal(r->idempotency.mode, SW_IDEM_OFF);
    assert_int_equal(r->idempotency.retention_s, 86400);
    assert_int_equal(r->idempotency.unknown, SW_IDEM_UNKNOWN_REJECT);
    assert_int_equal(r->idempotency.failed, SW_IDEM_FAILED_UNKNOWN);
    assert_int_equal(r->idempotency.wait_ns, 0);
    assert_int_equal(r->idempotency.answer_bytes_max, 256 << 10);
    TEXT_IS(r->sticky.cookie.name, "pin-shop");
    assert_int_equal(r->sticky.on_loss, SW_ON_LOSS_REPIN);
    assert_int_equal(r->sticky.idle_s, 3600);
    assert_int_equal(r->sticky.absolute_s, 86400);
    sw_config_free(c);
}

static void full_tokens(const struct sw_config *c)
{
    const struct sw_config_token *t = &c->routes[3].token;

    assert_int_equal(c->keyset_count, 1); /* of two routes */
    TEXT_IS(c->keysets[0].source, "https://id.example/jwks.json");
    assert_true(c->keysets[0].url);
    assert_int_equal(c->routes[3].placement, SW_PLACE_NONE);
    assert_true(t->on);
    assert_true(t->from_cookie);
    TEXT_IS(t->cookie.name, "id");
    TEXT_IS(t->cookie.path, "/api");
    assert_int_equal(t->cookie.same_site, 1);
    assert_int_equal(t->cookie.secure, SW_SECURE_YES);
    assert_int_equal(t->keyset, 0);
    TEXT_IS(t->issuer, "https://id.example");
    TEXT_IS(t->typ, "at+jwt");
    assert_int_equal(t->audience_count, 2);
    TEXT_IS(t->audiences[1], "api");
    assert_int_equal(t->scope_count, 2);
    TEXT_IS(t->scopes[0], "read");
    assert_int_equal(t->claim_count, 2);
    TEXT_IS(t->claims[1].name, "admin");
    TEXT_IS(t->claims[1].value, "true");
    assert_int_equal(t->header_count, 2);
    TEXT_IS(t->headers[0].name, "X-User");
    TEXT_IS(t->headers[0].value, "sub");
    assert_int_equal(t->skew_s, 60);
    assert_int_equal(t->age_s_max, 12 * 3600);
    assert_false(t->required);
    assert_false(t->mint.on);

    t = &c->routes[4].token;
    assert_int_equal(c->routes[4].session.key_source, SW_KEY_CLAIM);
    TEXT_IS(c->routes[4].session.key_name, "tenant");
    assert_int_equal(t->keyset, 0);
    assert_false(t->from_cookie);
    assert_int_equal(t->typ.len, 0);
    assert_int_equal(t->skew_s, 30);
    assert_int_equal(t->age_s_max, 0);
    assert_true(t->required);

    t = &c->routes[5].token;
    assert_int_equal(c->routes[5].placement, SW_PLACE_TOKEN);
    assert_int_equal(t->keyset, SW_KEYSETS_MAX);
    assert_true(t->mint.on);
    assert_false(t->required);
    TEXT_IS(t->typ, "JWT");
    assert_int_equal(t->mint.alg, SW_CONFIG_ALG_ES256);
    assert_int_equal(t->mint.life_s, 300);
    assert_int_equal(t->mint.renew_s, 120);
    assert_int_equal(t->mint.absolute_s, 12 * 3600);
    assert_int_equal(t->mint.deliver, SW_DELIVER_COOKIE);
}

static void full_sealed(const struct sw_config_route *r)
{
    assert_int_equal(r->placement, SW_PLACE_SEALED);
    assert_int_equal(r->moved_from, SW_PLACE_SESSION);
    TEXT_IS(r->session.cookie.name, "old-prefs");
    TEXT_IS(r->sealed.cookie.name, "prefs");
    TEXT_IS(r->sealed.cookie.path, "/prefs");
    assert_int_equal(r->sealed.cookie.same_site, 1);
    assert_int_equal(r->sealed.cookie.secure, SW_SECURE_YES);
    assert_int_equal(r->sealed.idle_s, 20 * 86400);
    assert_int_equal(r->sealed.absolute_s, 60 * 86400);
    assert_int_equal(r->sealed.oversize, SW_OVERSIZE_SPILL);
    assert_true(r->sealed.replay_guard);
}

/* What the sections are when they are short: defaults, and those that give way. */
static void short_sections(void **state)
{
    struct sw_config *c = parsed(
        SW_S("apps: { shop: { command: [x] } }\n"
             "routes:\n"
             "- { path: /a/*, app: shop, state: sealed, sealed: { absolute: 1d } }\n"
             "- { path: /b/*, app: shop, state: token,\n"
             "    token: { issuer: i, audience: [a], mint: { absolute: 4m } } }\n"
             "- { path: /c/*, app: shop, state: session, moved-from: token,\n"
             "    token: { issuer: i, audience: [a], keys: k.json } }\n"
             "- { path: /d/*, app: shop, token: { issuer: i, audience: [a], keys: l.json } }\n"),
        NULL);
    const struct sw_config_route *r = &c->routes[0];

    (void)state;
    assert_int_equal(c->keys_rotate_s, 0);
    assert_int_equal(c->keyset_count, 2);
    assert_false(c->keysets[1].url);
    TEXT_IS(r->sealed.cookie.name, "state-shop");
    TEXT_IS(r->sealed.cookie.path, "/");
    assert_int_equal(r->sealed.idle_s, 86400);
    assert_int_equal(r->sealed.oversize, SW_OVERSIZE_REFUSE);
    assert_false(r->sealed.replay_guard);
    r = &c->routes[1];
    assert_int_equal(r->token.mint.alg, SW_CONFIG_ALG_ED25519);
    assert_int_equal(r->token.mint.life_s, 240);
    assert_int_equal(r->token.mint.renew_s, 120);
    assert_int_equal(r->token.mint.deliver, SW_DELIVER_HEADER);
    r = &c->routes[2];
    assert_false(r->token.required); /* who was brought over has none any more */
    assert_int_equal(r->token.keyset, 0);
    r = &c->routes[3];
    assert_true(r->token.required);
    assert_int_equal(r->token.keyset, 1);
    sw_config_free(c);
}

/* One source more than there is room for. */
static void too_many_keysets(void **state)
{
    static char text[32768];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_config_errors errors;
    struct sw_config *c = NULL;

    (void)state;
    sw_out_lit(&out, "apps: { a: { command: [x] } }\nroutes:\n");
    for (unsigned i = 0; i < SW_KEYSETS_MAX; i++) {
        sw_out_printf(&out,
                      "- { path: /%u, app: a, token: { issuer: i, audience: [a], keys: k%u } }\n",
                      i, i);
    }
    sw_config_free(parsed(sw_out_done(&out), NULL));
    sw_out_lit(&out, "- { path: /x, app: a, token: { issuer: i, audience: [a], keys: x } }\n");
    assert_int_equal(parse(sw_out_done(&out), NULL, &c, &errors), SW_E_SYNTAX);
    assert_int_equal(errors.count, 1);
    sw_config_errors_fini(&errors);
}

static void full_file(void **state)
{
    size_t len;
    char *text = slurp(SW_FULL_YAML, &len);
    struct sw_config *c = parsed(sw_slice_of(text, len), NULL);
    const struct sw_config_app *a;
    const struct sw_config_route *r;

    (void)state;
    assert_int_equal(c->listen_count, 3);
    TEXT_IS(c->listen[1].text, "[::1]:8443");
    assert_int_equal(c->listen[1].addr.sa.sa_family, AF_INET6);
    assert_int_equal(c->listen[2].addr.sa.sa_family, AF_UNIX);
    assert_int_equal(c->trusted_count, 4);
    assert_int_equal(c->net_count, 3);
    assert_true(c->trusted_unix);
    TEXT_IS(c->admin_text, "0.0.0.0:9001");
    TEXT_IS(c->admin_token, "correct-horse");
    TEXT_IS(c->store_path, "/var/lib/stateway");
    assert_int_equal(c->sync, 1);
    TEXT_IS(c->keys_file, "/etc/stateway/keys.json");
    assert_int_equal(c->keys_rotate_s, 7 * 86400);
    assert_int_equal(c->engine, SW_ENGINE_EPOLL);
    assert_int_equal(c->workers, 4);
    assert_int_equal(c->log_level, SW_LOG_DEBUG);
    assert_true(c->log_json);
    TEXT_IS(c->access_log, "/var/log/stateway.log");
    assert_int_equal(c->timeouts.connect_ns, 500 * SW_NS_PER_MS);
    assert_int_equal(c->timeouts.send_ns, 15 * SW_NS_PER_S);
    assert_int_equal(c->limits.body_bytes, 1 << 30);
    assert_int_equal(c->store_map_bytes, 1 << 30);
    assert_int_equal(c->store_memory_bytes, 512 << 20);
    assert_int_equal(c->limits.large_bytes, 128 << 20);
    TEXT_IS(c->side_text, "127.0.0.1:7070");

    assert_int_equal(c->app_count, 2);
    a = &c->apps[0];
    assert_string_equal(a->command[2], "--port={port}");
    TEXT_IS(a->directory, "./shop");
    assert_int_equal(a->environment_count, 3);
    TEXT_IS(a->environment[1].name, "PRICE");
    TEXT_IS(a->environment[1].value, "5$");
    TEXT_IS(a->environment[2].value, "hunter22");
    assert_int_equal(a->replicas, 5);
    TEXT_IS(a->health_path, "/healthz");
    assert_int_equal(a->balance, SW_BALANCE_ROUND_ROBIN);
    assert_int_equal(a->retry_budget_percent, 10);
    assert_int_equal(a->retry_per_try_ns, 5 * SW_NS_PER_S);
    a = &c->apps[1];
    assert_null(a->command);
    assert_int_equal(a->server_count, 3);
    assert_int_equal(a->servers[0].weight, 1);
    assert_int_equal(a->servers[1].addr.sa.sa_family, AF_UNIX);
    assert_int_equal(a->servers[2].weight, 2);
    TEXT_IS(a->servers[2].text, "10.0.0.6:8000");

    assert_int_equal(c->route_count, 8);
    r = &c->routes[0];
    TEXT_IS(r->host, "*.shop.example");
    assert_int_equal(r->method_count, 2);
    TEXT_IS(r->methods[1], "POST");
    TEXT_IS(r->headers[0].name, "X-Beta");
    TEXT_IS(r->headers[0].value, "1");
    TEXT_IS(r->strip, "/cart");
    TEXT_IS(r->session.cookie.name, "cart");
    assert_int_equal(r->session.cookie.same_site, 2);
    assert_int_equal(r->session.cookie.secure, SW_SECURE_YES);
    assert_int_equal(r->session.concurrency, SW_CONC_MERGE);
    assert_int_equal(r->session.inline_bytes, 8192);
    assert_int_equal(r->session.max_bytes, 2 << 20);
    assert_true(r->session.encrypt);
    assert_true(r->session.phantom.on);
    TEXT_IS(r->session.phantom.issuer, "https://shop.example");
    TEXT_IS(r->session.phantom.audience, "shop-app");
    assert_int_equal(r->session.phantom.alg, SW_CONFIG_ALG_HS256);
    assert_int_equal(r->session.phantom.life_s, 60);
    assert_int_equal(r->idempotency.mode, SW_IDEM_OPTIONAL);
    assert_int_equal(r->idempotency.retention_s, 3600);
    assert_int_equal(r->idempotency.unknown, SW_IDEM_UNKNOWN_RETRY);
    assert_int_equal(r->idempotency.failed, SW_IDEM_FAILED_RELEASE);
    assert_int_equal(r->idempotency.wait_ns, 2 * SW_NS_PER_S);
    assert_int_equal(r->idempotency.principal, SW_IDEM_PRINCIPAL_HEADER);
    TEXT_IS(r->idempotency.principal_header, "X-Api-Key");
    assert_int_equal(r->idempotency.answer_bytes_max, 1 << 20);
    assert_int_equal(r->replay, SW_REPLAY_SAFE);
    assert_false(r->csrf);
    assert_true(r->expose_verdict);
    assert_true(r->expose_instance);
    r = &c->routes[1];
    assert_int_equal(r->app, 1);
    assert_int_equal(r->session.key_source, SW_KEY_PATH);
    TEXT_IS(r->session.key_name, "room");
    assert_true(r->session.owner_subject);
    TEXT_IS(r->session.cookie.name, "sid");
    TEXT_IS(r->session.alarm, "/alarms");
    assert_int_equal(r->idempotency.mode, SW_IDEM_REQUIRED); /* the word alone */
    assert_int_equal(r->idempotency.principal, SW_IDEM_PRINCIPAL_HEADER);
    TEXT_IS(r->idempotency.principal_header, "Authorization");
    r = &c->routes[2];
    assert_int_equal(r->placement, SW_PLACE_STICKY);
    assert_int_equal(r->sticky.on_loss, SW_ON_LOSS_NOTIFY);
    TEXT_IS(r->sticky.cookie.name, "pin");
    TEXT_IS(r->sticky.cookie.path, "/legacy");
    assert_int_equal(r->sticky.cookie.same_site, 1);
    assert_int_equal(r->sticky.cookie.secure, SW_SECURE_NO);
    full_tokens(c);
    full_sealed(&c->routes[6]);
    assert_int_equal(c->routes[7].placement, SW_PLACE_NONE);
    assert_int_equal(c->routes[7].index, 7);
    assert_false(c->routes[7].token.on);
    assert_int_equal(c->routes[7].token.keyset, SW_KEYSETS_MAX);
    assert_int_equal(c->routes[7].moved_from, SW_PLACE_NONE);
    assert_true(c->routes[0].ident != c->routes[1].ident);
    assert_true(c->routes[1].ident != c->routes[7].ident);
    sw_config_free(c);
}

/* Accepted, or at least one complaint: never a crash, and never silence. */
static void whatever(struct sw_slice text)
{
    struct sw_config_errors errors;
    struct sw_config *c = NULL;
    enum sw_err err = parse(text, NULL, &c, &errors);

    assert_int_equal(err == SW_OK, c != NULL);
    assert_int_equal(err == SW_OK, errors.count == 0);
    for (size_t i = 0; i < errors.count && i < SW_CONFIG_ERRORS_MAX; i++) {
        assert_true(errors.list[i].text.len > 0);
        for (size_t b = 0; b < errors.list[i].text.len; b++) {
            assert_true((unsigned char)errors.list[i].text.ptr[b] >= 0x20);
        }
        if (i > 0) {
            assert_true(errors.list[i - 1].line <= errors.list[i].line);
        }
    }
    sw_config_errors_fini(&errors);
    sw_config_free(c);
}

/* The tree complains about what is twice before anybody sees that the file is no map. */
static void sorted_when_it_breaks_off(void **state)
{
    struct sw_config_errors errors;
    struct sw_config *c = NULL;
    enum sw_err err = parse(SW_S("- x: 1\n  x: 2\n"), NULL, &c, &errors);

    (void)state;
    assert_int_equal(err, SW_E_SYNTAX);
    assert_int_equal(errors.count, 2);
    assert_int_equal(errors.list[0].line, 1);
    assert_int_equal(errors.list[1].line, 2);
    sw_config_errors_fini(&errors);
}

static void every_prefix(void **state)
{
    size_t len;
    char *text = slurp(SW_FULL_YAML, &len);

    (void)state;
    for (size_t cut = 0; cut <= len; cut++) {
        whatever(sw_slice_of(text, cut));
    }
}

static void garbage(void **state)
{
    uint64_t seed = 42;
    size_t len;
    char *full = slurp(SW_FULL_YAML, &len), *text = malloc(len);
    static const char signs[] = "{}[]:,-*&!|>'\"%@`#?\t\n $0aZ\\\x01\xff~";

    (void)state;
    assert_non_null(text);
    for (unsigned round = 0; round < 3000; round++) {
        memcpy(text, full, len);
        for (unsigned i = 0; i < 1 + round % 4; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            text[(seed >> 33) % len] = signs[(seed >> 20) % (sizeof(signs) - 1)];
        }
        whatever(sw_slice_of(text, len));
    }
    free(text);
}

static void too_much(void **state)
{
    size_t len = 2u << 20;
    char *text = malloc(len);

    (void)state;
    assert_non_null(text);
    memset(text, '[', len);
    whatever(sw_slice_of(text, 1000));
    whatever(sw_slice_of(text, SW_CONFIG_TEXT_BYTES_MAX));
    whatever(sw_slice_of(text, SW_CONFIG_TEXT_BYTES_MAX + 1));
    memset(text, '\n', len);
    whatever(sw_slice_of(text, SW_CONFIG_TEXT_BYTES_MAX));
    for (size_t i = 0; i < len; i += 2) {
        memcpy(text + i, "?,", 2);
    }
    text[0] = '[';
    whatever(sw_slice_of(text, 100000)); /* two nodes in two bytes */
    for (size_t i = 0; i < len; i += 2) {
        memcpy(text + i, "-\n", 2);
    }
    whatever(sw_slice_of(text, SW_CONFIG_TEXT_BYTES_MAX));
    free(text);
}

/* 1024 routes, 64 apps with 64 servers each: what the snapshot's size is computed for. */
static void as_much_as_may_be(void **state)
{
    size_t cap = 1u << 20;
    char *text = malloc(cap);
    struct sw_out out = sw_out_init(text, cap);
    struct sw_config *c;

    (void)state;
    sw_out_lit(&out, "apps:\n");
    for (unsigned a = 0; a < SW_APPS_MAX; a++) {
        sw_out_printf(&out, "  a%u: { servers: [", a);
        for (unsigned s = 0; s < SW_REPLICAS_MAX; s++) {
            sw_out_printf(&out, "10.0.%u.%u:80%s", a, s, s + 1 < SW_REPLICAS_MAX ? "," : "");
        }
        sw_out_lit(&out, "] }\n");
    }
    sw_out_lit(&out, "routes:\n");
    for (unsigned r = 0; r < SW_ROUTES_MAX; r++) {
        sw_out_printf(&out, "- {path: /%u, app: a%u}\n", r, r % SW_APPS_MAX);
    }
    assert_false(out.overflowed);
    c = parsed(sw_out_done(&out), NULL);
    assert_int_equal(c->route_count, SW_ROUTES_MAX);
    assert_int_equal(c->apps[63].server_count, SW_REPLICAS_MAX);
    sw_config_free(c);
    sw_out_lit(&out, "- {path: /x, app: a1}\n");
    whatever(sw_out_done(&out));
    free(text);
}

static void defaults_give_way(void **state)
{
    struct sw_config *c =
        parsed(SW_S("apps: { a: { command: [x], health: { interval: 500ms } } }\n"
                    "limits: { head: 4KiB }\n"
                    "store: 'memory:'\n"
                    "admin: off\n"
                    "side: { address: off }\n"
                    "routes: [ { path: /*, app: a, state: session, session: { absolute: 10m, "
                    "inline: 1KiB } } ]\n"),
               NULL);

    (void)state;
    assert_int_equal(c->apps[0].health_timeout_ns, 500 * SW_NS_PER_MS);
    assert_int_equal(c->limits.target_bytes, 4096);
    assert_int_equal(c->routes[0].session.idle_s, 600);
    assert_int_equal(c->routes[0].session.max_bytes, 1024);
    assert_int_equal(c->admin_addr.len, 0);
    TEXT_IS(c->store_kind, "memory");
    assert_int_equal(c->store_path.len, 0);
    TEXT_IS(c->keys_file, "./state/keys.json");
    sw_config_free(c);
}

/* What is not written about large states and keys follows from what is. */
static void large_states_give_way(void **state)
{
    struct sw_config *c =
        parsed(SW_S("apps: { a: { command: [x] } }\nlimits: { large: 2MiB }\n"
                    "routes:\n"
                    "- { path: /a, app: a, state: session, idempotency: required }\n"
                    "- { path: /b, app: a, state: session, session: { max-size: 2KiB } }\n"
                    "- { path: /c, app: a, state: none, idempotency: { retention: 1m } }\n"
                    "- { path: /d, app: a, state: session, idempotency: { principal: address } }\n"
                    "- { path: '/e/{x}', app: a, state: session, session: { key: path.x }, "
                    "idempotency: optional }\n"),
               NULL);

    (void)state;
    assert_int_equal(c->routes[0].session.max_bytes, 512 << 10); /* a quarter of what there is */
    assert_int_equal(c->routes[0].idempotency.mode, SW_IDEM_REQUIRED);
    assert_int_equal(c->routes[0].idempotency.retention_s, 86400);
    assert_int_equal(c->routes[0].idempotency.principal, SW_IDEM_PRINCIPAL_VISITOR);
    assert_int_equal(c->routes[1].session.max_bytes, 2048);
    assert_int_equal(c->routes[1].session.inline_bytes, 2048);
    assert_int_equal(c->routes[2].idempotency.mode, SW_IDEM_REQUIRED); /* a map means it */
    assert_int_equal(c->routes[2].idempotency.retention_s, 60);
    assert_int_equal(c->routes[2].idempotency.principal, SW_IDEM_PRINCIPAL_HEADER);
    assert_int_equal(c->routes[3].idempotency.principal, SW_IDEM_PRINCIPAL_ADDRESS);
    assert_int_equal(c->routes[4].idempotency.mode, SW_IDEM_OPTIONAL);
    assert_int_equal(c->routes[4].idempotency.principal, SW_IDEM_PRINCIPAL_HEADER);
    TEXT_IS(c->routes[4].idempotency.principal_header, "Authorization");
    sw_config_free(c);
}

/* The ident of a route stays when the file around it changes, and is that of no other route. */
static void idents(void **state)
{
    struct sw_config *one =
        parsed(SW_S("apps: { a: { command: [x] }, b: { command: [y] } }\nroutes:\n"
                    "- { path: /x, app: a }\n- { path: /y, app: a }\n- { path: /z, app: b }\n"
                    "- { path: /x, host: h, app: a }\n"),
               NULL);
    struct sw_config *other =
        parsed(SW_S("apps: { b: { command: [y] }, c: { command: [z] }, a: { command: [x] } }\n"
                    "routes:\n- { path: /z, app: a }\n- { path: /y, app: a, state: session }\n"),
               NULL);

    (void)state;
    for (size_t i = 0; i < one->route_count; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_true(one->routes[i].ident != one->routes[k].ident);
        }
    }
    assert_true(other->routes[1].ident == one->routes[1].ident);
    assert_true(other->routes[0].ident != one->routes[2].ident); /* another app */
    sw_config_free(one);
    sw_config_free(other);
}

static void flags_win(void **state)
{
    const struct sw_config_override o = {.listen = SW_S("0.0.0.0:80"),
                                         .admin = SW_S("unix:/run/admin.sock"),
                                         .store = SW_S("lmdb:/data"),
                                         .access_log = SW_S("off"),
                                         .has_engine = true,
                                         .engine = SW_ENGINE_URING,
                                         .has_workers = true,
                                         .workers = 2,
                                         .has_log_level = true,
                                         .log_level = SW_LOG_WARN};
    const struct sw_config_override off = {.admin = SW_S("off")};
    struct sw_config *c = parsed(
        SW_S(SHORTEST
             "listen: [ { address: 127.0.0.1:1 }, { address: 127.0.0.1:2 } ]\nstore: 'memory:'\n"),
        &o);

    (void)state;
    assert_int_equal(c->listen_count, 1);
    TEXT_IS(c->listen[0].text, "0.0.0.0:80");
    assert_int_equal(c->admin_addr.sa.sa_family, AF_UNIX);
    TEXT_IS(c->store_path, "/data");
    TEXT_IS(c->keys_file, "/data/keys.json");
    TEXT_IS(c->access_log, "off");
    assert_int_equal(c->engine, SW_ENGINE_URING);
    assert_int_equal(c->workers, 2);
    assert_int_equal(c->log_level, SW_LOG_WARN);
    sw_config_free(c);
    c = parsed(SW_S(SHORTEST), &off);
    assert_int_equal(c->admin_addr.len, 0);
    sw_config_free(c);
}

static void filled_in(void **state)
{
    struct sw_config *c = parsed(SW_S("apps: { a: { command: [x, '${N}', 'a${N}b${N}', '$$', "
                                      "'$${N}', '${DOLLAR}', '${EMPTY}', "
                                      "'${file:secret.txt}!'], replicas: '${N}' } }\n"
                                      "routes: [ { path: /*, app: a } ]\n"),
                                 NULL);
    const char *const *argv = c->apps[0].command;

    (void)state;
    assert_string_equal(argv[1], "7");
    assert_string_equal(argv[2], "a7b7");
    assert_string_equal(argv[3], "$");
    assert_string_equal(argv[4], "${N}");
    assert_string_equal(argv[5], "${N}$$"); /* once and not again */
    assert_string_equal(argv[6], "");
    assert_string_equal(argv[7], "hunter22!");
    assert_int_equal(c->apps[0].replicas, 7);
    sw_config_free(c);
}

/* The real environment and a real file. */
static void filled_in_from_the_system(void **state)
{
    char path[] = "/tmp/sw-config-XXXXXX", text[512];
    int fd = mkstemp(path), n;
    struct sw_config_errors errors;
    struct sw_config *c = NULL;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "from-file\n", 10), 10);
    (void)close(fd);
    assert_int_equal(setenv("SW_TEST_CONFIG", "from-env", 1), 0);
    n = snprintf(text, sizeof(text),
                 "apps: { a: { command: ['${SW_TEST_CONFIG}', '${file:%s}'] } }\n"
                 "routes: [ { path: /*, app: a } ]\n",
                 path);
    assert_int_equal(sw_config_parse(sw_slice_of(text, (size_t)n), SW_S("t"), NULL, &c, &errors),
                     SW_OK);
    assert_string_equal(c->apps[0].command[0], "from-env");
    assert_string_equal(c->apps[0].command[1], "from-file");
    sw_config_free(c);
    sw_config_errors_fini(&errors);
    (void)unlink(path);
    assert_int_equal(sw_config_parse(sw_slice_of(text, (size_t)n), SW_S("t"), NULL, &c, &errors),
                     SW_E_SYNTAX);
    assert_int_equal(errors.count, 1);
    sw_config_errors_fini(&errors);
    n = snprintf(text, sizeof(text),
                 "apps: { a: { command: ['${file:/dev/zero}', '${file:/}'] } }\n");
    assert_int_equal(sw_config_parse(sw_slice_of(text, (size_t)n), SW_S("t"), NULL, &c, &errors),
                     SW_E_SYNTAX);
    assert_int_equal(errors.count, 3);
    sw_config_errors_fini(&errors);
}

static void trusted_peers(void **state)
{
    static const struct {
        const char *peer;
        bool trusted;
    } peers[] = {
        {"10.0.0.1", true},
        {"10.255.255.255", true},
        {"11.0.0.1", false},
        {"9.255.255.255", false},
        {"192.0.2.7", true},
        {"192.0.2.6", false},
        {"172.16.5.4", true},
        {"172.31.255.1", true},
        {"172.32.0.0", false},
        {"::ffff:10.1.2.3", true},
        {"::ffff:11.1.2.3", false},
        {"fd00::1", true},
        {"fdff::1", true},
        {"fe00::1", false},
        {"2001:db8::1", true},
        {"2001:db8::2", false},
        {"::1", false},
    };
    struct sw_config *c =
        parsed(SW_S(SHORTEST "trusted: [10.0.0.0/8, 192.0.2.7, 172.16.0.0/12, 'fd00::/8', "
                             "'2001:db8::1', '::/96']\n"),
               NULL);
    struct sw_addr peer = {.len = 0};

    (void)state;
    assert_false(sw_config_trusted(c, &peer));
    peer.un.sun_family = AF_UNIX;
    peer.len = sizeof(peer.un);
    assert_false(sw_config_trusted(c, &peer));
    for (size_t i = 0; i < SW_COUNTOF(peers); i++) {
        peer = (struct sw_addr){.len = 0};
        if (inet_pton(AF_INET, peers[i].peer, &peer.in.sin_addr) == 1) {
            peer.in.sin_family = AF_INET;
            peer.len = sizeof(peer.in);
        } else {
            assert_int_equal(inet_pton(AF_INET6, peers[i].peer, &peer.in6.sin6_addr), 1);
            peer.in6.sin6_family = AF_INET6;
            peer.len = sizeof(peer.in6);
        }
        if (strcmp(peers[i].peer, "::1") == 0) {
            assert_true(sw_config_trusted(c, &peer)); /* it is in ::/96 */
        } else if (sw_config_trusted(c, &peer) != peers[i].trusted) {
            fail_msg("%s", peers[i].peer);
        }
    }
    sw_config_free(c);

    /* All of IPv6 is not all of IPv4; each has its own /0. */
    c = parsed(SW_S(SHORTEST "trusted: ['::/0', unix]\n"), NULL);
    peer = (struct sw_addr){.in = {.sin_family = AF_INET}, .len = sizeof(peer.in)};
    assert_false(sw_config_trusted(c, &peer));
    peer = (struct sw_addr){.in6 = {.sin6_family = AF_INET6}, .len = sizeof(peer.in6)};
    assert_true(sw_config_trusted(c, &peer));
    peer = (struct sw_addr){.un = {.sun_family = AF_UNIX}, .len = sizeof(peer.un)};
    assert_true(sw_config_trusted(c, &peer));
    sw_config_free(c);
    c = parsed(SW_S(SHORTEST "trusted: [0.0.0.0/0]\n"), NULL);
    peer = (struct sw_addr){.in = {.sin_family = AF_INET}, .len = sizeof(peer.in)};
    assert_true(sw_config_trusted(c, &peer));
    peer = (struct sw_addr){.in6 = {.sin6_family = AF_INET6}, .len = sizeof(peer.in6)};
    assert_false(sw_config_trusted(c, &peer));
    sw_config_free(c);
}

static void key_docs(void **state)
{
    const struct sw_config_key_doc *docs;
    size_t count = sw_config_key_docs(&docs);

    (void)state;
    assert_true(count > 80);
    for (size_t i = 0; i < count; i++) {
        assert_non_null(docs[i].path);
        assert_non_null(docs[i].type);
        assert_true(strlen(docs[i].text) > 5);
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(docs[i].path, docs[j].path);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shortest_file),
        cmocka_unit_test(full_file),
        cmocka_unit_test(short_sections),
        cmocka_unit_test(too_many_keysets),
        cmocka_unit_test(sorted_when_it_breaks_off),
        cmocka_unit_test(every_prefix),
        cmocka_unit_test(garbage),
        cmocka_unit_test(too_much),
        cmocka_unit_test(as_much_as_may_be),
        cmocka_unit_test(defaults_give_way),
        cmocka_unit_test(large_states_give_way),
        cmocka_unit_test(idents),
        cmocka_unit_test(flags_win),
        cmocka_unit_test(filled_in),
        cmocka_unit_test(filled_in_from_the_system),
        cmocka_unit_test(trusted_peers),
        cmocka_unit_test(key_docs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
