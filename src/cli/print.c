/* cli/print.c - `stateway check --print`: a snapshot as the file that would make it. */
#include "cli/cli_priv.h"

static const char *const placements[] = {"none", "sticky", "session", "token", "sealed"};
static const char *const balances[] = {"least", "round-robin", "hash"};
static const char *const losses[] = {"repin", "fail", "notify"};
static const char *const concurrencies[] = {"serial", "merge", "cas", "last"};
static const char *const replays[] = {"idempotent", "safe", "never"};
static const char *const engines[] = {"auto", "uring", "epoll"};
static const char *const syncs[] = {"always", "everysec", "no"};
static const char *const levels[] = {"error", "warn", "info", "debug"};
static const char *const same_sites[] = {"lax", "strict", "none"};
static const char *const secures[] = {"auto", "yes", "no"};
_Static_assert(SW_COUNTOF(placements) == SW_PLACE_COUNT, "one word a placement");

/* Texts of any length, as YAML in quotes. */
static void quoted(const char *before, struct sw_slice s, const char *after)
{
    char *copy = (char *)malloc(s.len + 1), *block;
    size_t bytes = 4 * s.len + 3;
    struct sw_out out;

    block = (char *)malloc(bytes);
    if (copy == NULL || block == NULL) {
        free(copy);
        free(block);
        return;
    }
    if (s.len > 0) {
        memcpy(copy, s.ptr, s.len);
    }
    copy[s.len] = '\0';
    out = sw_out_init(block, bytes);
    sw_cli__quote(&out, copy);
    printf("%s%.*s%s", before, SW_SARG(sw_out_done(&out)), after);
    free(copy);
    free(block);
}

static void duration(const char *before, uint64_t ns, const char *after)
{
    static const struct {
        uint64_t ns;
        const char *unit;
    } units[] = {
        {24 * 3600 * SW_NS_PER_S, "d"},
        {3600 * SW_NS_PER_S, "h"},
        {60 * SW_NS_PER_S, "m"},
        {SW_NS_PER_S, "s"},
    };

    for (size_t i = 0; i < SW_COUNTOF(units); i++) {
        if (ns > 0 && ns % units[i].ns == 0) {
            printf("%s%llu%s%s", before, (unsigned long long)(ns / units[i].ns), units[i].unit,
                   after);
            return;
        }
    }
    printf("%s%llums%s", before, (unsigned long long)(ns / SW_NS_PER_MS), after);
}

static void size(const char *before, uint64_t bytes, const char *after)
{
    static const struct {
        uint64_t bytes;
        const char *unit;
    } units[] = {{1u << 30, "GiB"}, {1u << 20, "MiB"}, {1u << 10, "KiB"}};

    for (size_t i = 0; i < SW_COUNTOF(units); i++) {
        if (bytes > 0 && bytes % units[i].bytes == 0) {
            printf("%s%llu%s%s", before, (unsigned long long)(bytes / units[i].bytes),
                   units[i].unit, after);
            return;
        }
    }
    printf("%s%llu%s", before, (unsigned long long)bytes, after);
}

static void print_global(const struct sw_config *c)
{
    printf("listen:\n");
    for (size_t i = 0; i < c->listen_count; i++) {
        quoted("  - address: ", c->listen[i].text, "\n");
    }
    printf("trusted: [");
    for (size_t i = 0; i < c->trusted_count; i++) {
        quoted(i > 0 ? ", " : "", c->trusted[i], "");
    }
    printf("]\n");
    if (c->admin_addr.len == 0) {
        printf("admin: off\n");
    } else {
        quoted("admin: { address: ", c->admin_text, " }");
        printf("%s\n", c->admin_token.len > 0 ? " # and a token" : "");
    }
    quoted("side: { address: ", c->side_text, " }\n");
    printf("store: %.*s:", SW_SARG(c->store_kind));
    printf("%.*s\n", SW_SARG(c->store_path));
    printf("sync: %s\n", syncs[c->sync]);
    quoted("keys: { file: ", c->keys_file, "");
    if (c->keys_rotate_s > 0) {
        duration(", rotate: ", (uint64_t)c->keys_rotate_s * SW_NS_PER_S, " }\n");
    } else {
        printf(", rotate: off }\n");
    }
    printf("engine: %s\n", engines[c->engine]);
    if (c->workers == 0) {
        printf("workers: auto # %u here\n", sw_super_workers_auto());
    } else {
        printf("workers: %u\n", c->workers);
    }
    printf("log: { level: %s, format: %s", levels[c->log_level], c->log_json ? "json" : "text");
    quoted(", access: ", c->access_log, " }\n");
    duration("timeouts:\n  head: ", c->timeouts.head_ns, "\n");
    duration("  idle: ", c->timeouts.idle_ns, "\n");
    duration("  body: ", c->timeouts.body_ns, "\n");
    duration("  send: ", c->timeouts.send_ns, "\n");
    duration("  connect: ", c->timeouts.connect_ns, "\n");
    duration("  response: ", c->timeouts.response_ns, "\n");
    duration("  exchange: ", c->timeouts.exchange_ns, "\n");
    duration("  stop: ", c->timeouts.stop_ns, "\n");
    printf("limits:\n  connections: %u\n", c->limits.connections);
    size("  head: ", c->limits.head_bytes, "\n");
    printf("  fields: %u\n", c->limits.fields);
    size("  target: ", c->limits.target_bytes, "\n");
    size("  body: ", c->limits.body_bytes, "\n");
    size("  replay-buffer: ", c->limits.replay_buffer_bytes, "\n");
    size("  large: ", c->limits.large_bytes, "\n");
    size("  store: ", c->store_map_bytes, "\n");
    size("  store-memory: ", c->store_memory_bytes, "\n");
}

static void print_command(const struct sw_config_app *a)
{
    printf("    command: [");
    for (size_t i = 0; a->command[i] != NULL; i++) {
        quoted(i > 0 ? ", " : "", sw_slice_cstr(a->command[i]), "");
    }
    printf("]\n");
    if (a->directory.len > 0) {
        quoted("    directory: ", a->directory, "\n");
    }
    printf("    environment: {");
    for (size_t i = 0; i < a->environment_count; i++) { /* values may be secrets: ${NAME} */
        quoted(i > 0 ? ", " : " ", a->environment[i].name, ": \"...\"");
    }
    printf("%s}\n", a->environment_count > 0 ? " " : "");
    printf("    replicas: %u\n", a->replicas);
    duration("    start-timeout: ", a->start_timeout_ns, "\n");
}

static void print_app(const struct sw_config_app *a)
{
    printf("  %.*s:\n", SW_SARG(a->name));
    if (a->command != NULL) {
        print_command(a);
    } else {
        printf("    servers:\n");
        for (size_t i = 0; i < a->server_count; i++) {
            quoted("      - { address: ", a->servers[i].text, "");
            printf(", weight: %u }\n", a->servers[i].weight);
        }
    }
    printf("    health:\n");
    if (a->health_path.len > 0) {
        quoted("      path: ", a->health_path, "\n");
    }
    duration("      interval: ", a->health_interval_ns, "\n");
    duration("      timeout: ", a->health_timeout_ns, "\n");
    printf("      healthy: %u\n      unhealthy: %u\n", a->health_healthy, a->health_unhealthy);
    printf("    balance: %s\n", balances[a->balance]);
    duration("    drain: { deadline: ", a->drain_deadline_ns, " }\n");
    printf("    limits: { connections: %u, pending: %u }\n", a->connections_max, a->pending_max);
    printf("    retry: { attempts: %u, budget: %u%%", a->retry_attempts, a->retry_budget_percent);
    if (a->retry_per_try_ns > 0) {
        duration(", per-try: ", a->retry_per_try_ns, "");
    }
    printf(" }\n");
}

static void print_cookie(const struct sw_config_cookie *k)
{
    quoted("      cookie: { name: ", k->name, "");
    quoted(", path: ", k->path, "");
    printf(", same-site: %s, secure: %s }\n", same_sites[k->same_site], secures[k->secure]);
}

static const char *algorithm(uint8_t alg)
{
    switch (alg) {
    case SW_CONFIG_ALG_ED25519:
        return "ed25519";
    case SW_CONFIG_ALG_ES256:
        return "es256";
    case SW_CONFIG_ALG_HS256:
        return "hs256";
    default:
        SW_UNREACHABLE();
    }
}

static void print_session(const struct sw_config_route *r)
{
    static const char *const sources[] = {"cookie", "path.", "header.", "query.", "claim."};

    printf("    session:\n      key: %s%.*s\n", sources[r->session.key_source],
           SW_SARG(r->session.key_name));
    if (r->session.key_source == SW_KEY_COOKIE || r->session.owner_subject) {
        print_cookie(&r->session.cookie);
    }
    duration("      idle: ", (uint64_t)r->session.idle_s * SW_NS_PER_S, "\n");
    duration("      absolute: ", (uint64_t)r->session.absolute_s * SW_NS_PER_S, "\n");
    printf("      concurrency: %s\n", concurrencies[r->session.concurrency]);
    printf("      queue: { length: %u", r->session.queue_length);
    duration(", wait: ", r->session.queue_wait_ns, " }\n");
    size("      inline: ", r->session.inline_bytes, "\n");
    size("      max-size: ", r->session.max_bytes, "\n");
    if (r->session.key_source == SW_KEY_COOKIE) {
        printf("      encrypt: %s\n", r->session.encrypt ? "on" : "off");
    } else {
        printf("      owner: %s\n", r->session.owner_subject ? "subject" : "any");
    }
    if (r->session.alarm.len > 0) {
        quoted("      alarm: ", r->session.alarm, "\n");
    }
    if (r->session.phantom.on) {
        quoted("      phantom: { issuer: ", r->session.phantom.issuer, "");
        quoted(", audience: ", r->session.phantom.audience, "");
        printf(", algorithm: %s", algorithm(r->session.phantom.alg));
        duration(", life: ", (uint64_t)r->session.phantom.life_s * SW_NS_PER_S, " }\n");
    }
}

static void print_texts(const char *before, const struct sw_slice *list, size_t count,
                        const char *after)
{
    printf("%s[", before);
    for (size_t i = 0; i < count; i++) {
        quoted(i > 0 ? ", " : "", list[i], "");
    }
    printf("]%s", after);
}

static void print_claims(const char *before, const struct sw_config_claim *list, size_t count,
                         const char *after)
{
    printf("%s{", before);
    for (size_t i = 0; i < count; i++) {
        quoted(i > 0 ? ", " : " ", list[i].name, ": ");
        quoted("", list[i].value, "");
    }
    printf("%s}%s", count > 0 ? " " : "", after);
}

static void print_mint(const struct sw_config_token *t)
{
    printf("      mint: { algorithm: %s", algorithm(t->mint.alg));
    duration(", life: ", (uint64_t)t->mint.life_s * SW_NS_PER_S, "");
    duration(", renew: ", (uint64_t)t->mint.renew_s * SW_NS_PER_S, "");
    duration(", absolute: ", (uint64_t)t->mint.absolute_s * SW_NS_PER_S, "");
    printf(", deliver: %s }\n", t->mint.deliver == SW_DELIVER_COOKIE ? "cookie" : "header");
}

static void print_token(const struct sw_config *c, const struct sw_config_token *t)
{
    printf("    token:\n      from: %s%.*s\n", t->from_cookie ? "cookie." : "bearer",
           t->from_cookie ? (int)t->cookie.name.len : 0, t->cookie.name.ptr);
    if (t->from_cookie) {
        quoted("      cookie: { path: ", t->cookie.path, "");
        printf(", same-site: %s, secure: %s }\n", same_sites[t->cookie.same_site],
               secures[t->cookie.secure]);
    }
    if (t->keyset < c->keyset_count) {
        quoted("      keys: ", c->keysets[t->keyset].source, "\n");
    }
    quoted("      issuer: ", t->issuer, "\n");
    print_texts("      audience: ", t->audiences, t->audience_count, "\n");
    if (t->typ.len > 0) {
        quoted("      type: ", t->typ, "\n");
    }
    print_texts("      require: { scope: ", t->scopes, t->scope_count, "");
    print_claims(", claims: ", t->claims, t->claim_count, " }\n");
    print_claims("      headers: ", t->headers, t->header_count, "\n");
    duration("      skew: ", (uint64_t)t->skew_s * SW_NS_PER_S, "\n");
    if (t->age_s_max > 0) {
        duration("      max-age: ", (uint64_t)t->age_s_max * SW_NS_PER_S, "\n");
    }
    printf("      required: %s\n", t->required ? "on" : "off");
    if (t->mint.on) {
        print_mint(t);
    }
}

static void print_sealed(const struct sw_config_route *r)
{
    printf("    sealed:\n");
    print_cookie(&r->sealed.cookie);
    duration("      idle: ", (uint64_t)r->sealed.idle_s * SW_NS_PER_S, "\n");
    duration("      absolute: ", (uint64_t)r->sealed.absolute_s * SW_NS_PER_S, "\n");
    printf("      oversize: %s\n      replay-guard: %s\n",
           r->sealed.oversize == SW_OVERSIZE_SPILL ? "spill" : "refuse",
           r->sealed.replay_guard ? "on" : "off");
}

static void print_idempotency(const struct sw_config_route *r)
{
    static const char *const modes[] = {"off", "optional", "required"};
    static const char *const unknowns[] = {"reject", "retry"};
    static const char *const failures[] = {"unknown", "store", "release"};
    static const char *const principals[] = {"visitor", "header.", "address"};

    if (r->idempotency.mode == SW_IDEM_OFF) {
        printf("    idempotency: off\n");
        return;
    }
    printf("    idempotency:\n      mode: %s\n", modes[r->idempotency.mode]);
    duration("      retention: ", (uint64_t)r->idempotency.retention_s * SW_NS_PER_S, "\n");
    printf("      unknown: %s\n      failed: %s\n", unknowns[r->idempotency.unknown],
           failures[r->idempotency.failed]);
    duration("      wait: ", r->idempotency.wait_ns, "\n");
    printf("      principal: %s%.*s\n", principals[r->idempotency.principal],
           SW_SARG(r->idempotency.principal_header));
    size("      max-answer: ", r->idempotency.answer_bytes_max, "\n");
}

static void print_route(const struct sw_config *c, const struct sw_config_route *r)
{
    quoted("  - path: ", r->path, "\n");
    if (r->host.len > 0) {
        quoted("    host: ", r->host, "\n");
    }
    for (size_t i = 0; i < r->method_count; i++) {
        printf("%s%.*s%s", i == 0 ? "    methods: [" : ", ", SW_SARG(r->methods[i]),
               i + 1 == r->method_count ? "]\n" : "");
    }
    for (size_t i = 0; i < r->header_count; i++) {
        quoted(i == 0 ? "    headers: { " : ", ", r->headers[i].name, ": ");
        quoted("", r->headers[i].value, i + 1 == r->header_count ? " }\n" : "");
    }
    printf("    app: %.*s\n", SW_SARG(c->apps[r->app].name));
    if (r->strip.len > 0) {
        quoted("    strip: ", r->strip, "\n");
    }
    printf("    state: %s\n", placements[r->placement]);
    if (r->moved_from != SW_PLACE_NONE) {
        printf("    moved-from: %s\n", placements[r->moved_from]);
    }
    if (r->placement == SW_PLACE_SESSION || r->moved_from == SW_PLACE_SESSION ||
        (r->placement == SW_PLACE_SEALED && r->sealed.oversize == SW_OVERSIZE_SPILL)) {
        print_session(r);
    }
    if (r->token.on) {
        print_token(c, &r->token);
    }
    if (r->placement == SW_PLACE_SEALED || r->moved_from == SW_PLACE_SEALED) {
        print_sealed(r);
    }
    if (r->placement == SW_PLACE_STICKY) {
        printf("    sticky:\n");
        print_cookie(&r->sticky.cookie);
        printf("      on-loss: %s\n", losses[r->sticky.on_loss]);
        duration("      idle: ", (uint64_t)r->sticky.idle_s * SW_NS_PER_S, "\n");
        duration("      absolute: ", (uint64_t)r->sticky.absolute_s * SW_NS_PER_S, "\n");
    }
    print_idempotency(r);
    printf("    replay: %s\n    csrf: %s\n", replays[r->replay], r->csrf ? "on" : "off");
    printf("    expose: [%s%s%s]\n", r->expose_verdict ? "verdict" : "",
           r->expose_verdict && r->expose_instance ? ", " : "",
           r->expose_instance ? "instance" : "");
}

void sw_cli__print_config(const struct sw_config *c)
{
    print_global(c);
    printf("apps:\n");
    for (size_t i = 0; i < c->app_count; i++) {
        print_app(&c->apps[i]);
    }
    printf("routes:\n");
    for (size_t i = 0; i < c->route_count; i++) {
        print_route(c, &c->routes[i]);
    }
}
