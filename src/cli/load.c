/* cli/load.c - a configuration from a file, or from flags alone.
 *
 * Flags alone are turned into the text of a file and read like one, so that there is one way in:
 * `--state session -- node server.js` is what the shortest file says.
 */
#include "cli/cli_priv.h"

#include "base/arena.h"
#include "route/route.h"

#include <errno.h>

#define FILE_BYTES_MAX                                                                             \
    ((size_t)2 * 1024 * 1024) /* the parser's own limit is lower, and says so                      \
                               */

/* ---- quoting --------------------------------------------------------------------------------- */

void sw_cli__quote(struct sw_out *out, const char *text)
{
    sw_out_char(out, '"');
    for (const char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;

        if (c == '"' || c == '\\') {
            sw_out_char(out, '\\');
            sw_out_char(out, *p);
        } else if (c == '$') {
            sw_out_lit(out, "$$"); /* a shell's ${NAME} is the command's business */
        } else if (c < 0x20 || c == 0x7f) {
            sw_out_lit(out, "\\x");
            sw_out_hex(out, c, 2);
        } else {
            sw_out_char(out, *p);
        }
    }
    sw_out_char(out, '"');
}

/* ---- flags -> text --------------------------------------------------------------------------- */

static void text_line(struct sw_out *out, const char *key, const char *value)
{
    if (value != NULL) {
        sw_out_printf(out, "%s: ", key);
        sw_cli__quote(out, value);
        sw_out_char(out, '\n');
    }
}

static void text_list(struct sw_out *out, const char *key, const char *const *list, size_t count)
{
    sw_out_printf(out, "    %s: [", key);
    for (size_t i = 0; i < count; i++) {
        sw_out_cstr(out, i > 0 ? ", " : "");
        sw_cli__quote(out, list[i]);
    }
    sw_out_lit(out, "]\n");
}

static void text_log(struct sw_out *out, const struct sw_cli_args *a)
{
    static const struct {
        enum sw_flag_id id;
        const char *key;
    } rows[] = {
        {FLAG_LOG_LEVEL, "  level"}, {FLAG_LOG_FORMAT, "  format"}, {FLAG_ACCESS_LOG, "  access"}};
    bool any = false;

    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        if (sw_cli__has(a, rows[i].id)) {
            sw_out_cstr(out, any ? "" : "log:\n");
            text_line(out, rows[i].key, a->values[rows[i].id]);
            any = true;
        }
    }
}

static void text_of_flags(struct sw_out *out, const struct sw_cli_args *a)
{
    size_t argc = 0;

    if (sw_cli__has(a, FLAG_LISTEN)) {
        sw_out_lit(out, "listen:\n");
        text_line(out, "  - address", a->values[FLAG_LISTEN]);
    }
    if (sw_cli__has(a, FLAG_ADMIN)) {
        if (strcmp(a->values[FLAG_ADMIN], "off") == 0) {
            sw_out_lit(out, "admin: off\n");
        } else {
            sw_out_lit(out, "admin:\n");
            text_line(out, "  address", a->values[FLAG_ADMIN]);
        }
    }
    text_line(out, "store", a->values[FLAG_STORE]);
    text_line(out, "engine", a->values[FLAG_ENGINE]);
    if (sw_cli__has(a, FLAG_WORKERS)) {
        sw_out_printf(out, "workers: %s\n", a->values[FLAG_WORKERS]);
    }
    text_log(out, a);
    sw_out_lit(out, "apps:\n  app:\n");
    if (a->rest != NULL) {
        while (a->rest[argc] != NULL) {
            argc++;
        }
        text_list(out, "command", a->rest, argc);
    } else {
        text_list(out, "servers", a->servers, a->server_count);
    }
    if (sw_cli__has(a, FLAG_REPLICAS)) {
        sw_out_printf(out, "    replicas: %s\n", a->values[FLAG_REPLICAS]);
    }
    sw_out_printf(out, "routes:\n  - { path: \"/*\", app: app, state: %s }\n",
                  a->values[FLAG_STATE]);
}

/* ---- flags -> override ----------------------------------------------------------------------- */

static bool number_ok(const struct sw_cli_args *a, enum sw_flag_id id, uint64_t min, uint64_t max,
                      uint64_t *ret)
{
    if (!sw_slice_u64(sw_slice_cstr(a->values[id]), ret) || *ret < min || *ret > max) {
        (void)sw_cli__usage_error(a->command, "--%s takes a number from %llu to %llu%s, not \"%s\"",
                                  sw_cli__flags[id].name, (unsigned long long)min,
                                  (unsigned long long)max, id == FLAG_WORKERS ? " or auto" : "",
                                  a->values[id]);
        return false;
    }
    return true;
}

#define WORKERS_MAX 256

static bool workers_read(const struct sw_cli_args *a, uint32_t *ret)
{
    uint64_t n = 0;

    if (strcmp(a->values[FLAG_WORKERS], "auto") != 0 &&
        !number_ok(a, FLAG_WORKERS, 1, WORKERS_MAX, &n)) {
        return false;
    }
    *ret = (uint32_t)n;
    return true;
}

static size_t place_of(const char *word, const char *choices)
{
    struct sw_slice left = sw_slice_cstr(choices), one;
    size_t at = 0;

    while (left.len > 0) {
        sw_slice_cut(left, '|', &one, &left);
        if (sw_slice_eq(one, sw_slice_cstr(word))) {
            return at;
        }
        at++;
    }
    SW_UNREACHABLE(); /* flag_set let only the choices in */
}

bool sw_cli__override(const struct sw_cli_args *a, struct sw_config_override *ret)
{
    struct sw_config_override o = {
        .listen = sw_slice_cstr(a->values[FLAG_LISTEN]),
        .admin = sw_slice_cstr(a->values[FLAG_ADMIN]),
        .store = sw_slice_cstr(a->values[FLAG_STORE]),
        .access_log = sw_slice_cstr(a->values[FLAG_ACCESS_LOG]),
        .has_engine = sw_cli__has(a, FLAG_ENGINE),
        .has_workers = sw_cli__has(a, FLAG_WORKERS),
        .has_log_level = sw_cli__has(a, FLAG_LOG_LEVEL),
    };

    _Static_assert(SW_ENGINE_AUTO == 0 && SW_ENGINE_URING == 1 && SW_ENGINE_EPOLL == 2,
                   "the order of --engine's choices");
    _Static_assert(SW_LOG_ERROR == 0 && SW_LOG_DEBUG == 3, "the order of --log-level's choices");
    if (o.has_engine) {
        o.engine =
            (enum sw_engine)place_of(a->values[FLAG_ENGINE], sw_cli__flags[FLAG_ENGINE].choices);
    }
    if (o.has_log_level) {
        o.log_level = (enum sw_log_level)place_of(a->values[FLAG_LOG_LEVEL],
                                                  sw_cli__flags[FLAG_LOG_LEVEL].choices);
    }
    if (o.has_workers && !workers_read(a, &o.workers)) {
        return false;
    }
    *ret = o;
    return true;
}

/* What the gateway process needs to make the same override. Workers it learns from the sockets. */
static void gateway_args(const struct sw_cli_args *a, struct sw_loaded *l)
{
    static const enum sw_flag_id ids[] = {FLAG_LISTEN, FLAG_ADMIN,     FLAG_STORE,
                                          FLAG_ENGINE, FLAG_LOG_LEVEL, FLAG_ACCESS_LOG};
    static const char *const names[] = {"--listen", "--admin",     "--store",
                                        "--engine", "--log-level", "--access-log"};
    size_t count = 0;

    _Static_assert(SW_COUNTOF(ids) == SW_COUNTOF(names), "one name a flag");
    _Static_assert(2 * SW_COUNTOF(ids) < SW_COUNTOF(((struct sw_loaded *)NULL)->gateway_args),
                   "all of them and a NULL");
    for (size_t i = 0; i < SW_COUNTOF(ids); i++) {
        if (sw_cli__has(a, ids[i])) {
            l->gateway_args[count++] = names[i];
            l->gateway_args[count++] = a->values[ids[i]];
        }
    }
    l->gateway_args[count] = NULL;
}

/* ---- text -> configuration ------------------------------------------------------------------- */

/* Two routes no request can tell apart: one of them would never be used. */
static int loaded_ambiguous(const struct sw_loaded *l)
{
    char block[2048];
    struct sw_arena arena;
    struct sw_routes *routes = sw_routes_new(l->config);
    const char *text;

    if (routes == NULL) {
        fprintf(stderr, "stateway: no memory\n");
        return SW_EXIT_START;
    }
    sw_arena_init(&arena, block, sizeof(block));
    text = sw_routes_ambiguous(routes, &arena);
    if (text != NULL) {
        fprintf(stderr, "%s: %s\n", l->name, text);
    }
    sw_routes_free(routes);
    return text != NULL ? SW_EXIT_FAILED : SW_EXIT_OK;
}

static int loaded_parse(struct sw_loaded *l)
{
    struct sw_config_errors errors;
    enum sw_err err =
        sw_config_parse(l->text, sw_slice_cstr(l->name), &l->override, &l->config, &errors);
    int code;

    for (size_t i = 0; i < SW_MIN(errors.count, (size_t)SW_CONFIG_ERRORS_MAX); i++) {
        const struct sw_config_error *e = &errors.list[i];

        fprintf(stderr, "%s:", l->name);
        if (e->line > 0) {
            fprintf(stderr, "%u:%u:", e->line, e->column);
        }
        fprintf(stderr, " %.*s\n", SW_SARG(e->text));
    }
    if (errors.count > SW_CONFIG_ERRORS_MAX) {
        fprintf(stderr, "%s: and %zu more\n", l->name, errors.count - SW_CONFIG_ERRORS_MAX);
    }
    sw_config_errors_fini(&errors);
    code = err == SW_OK ? loaded_ambiguous(l) : SW_EXIT_FAILED;
    if (code != SW_EXIT_OK) {
        sw_cli__loaded_fini(l);
    }
    return code;
}

void sw_cli__loaded_fini(struct sw_loaded *l)
{
    sw_config_free(l->config);
    free(l->block);
    l->config = NULL;
    l->block = NULL;
}

static int text_load(struct sw_loaded *l, const char *name, struct sw_out *text)
{
    if (text->overflowed) {
        fprintf(stderr, "stateway: the arguments are too long\n");
        free(text->ptr);
        return SW_EXIT_USAGE;
    }
    l->name = name;
    l->block = text->ptr;
    l->text = sw_out_done(text);
    return loaded_parse(l);
}

int sw_cli__load_text(const struct sw_cli_args *args, const char *name, struct sw_out *text,
                      struct sw_loaded *ret)
{
    *ret = (struct sw_loaded){.name = name};
    if (!sw_cli__override(args, &ret->override)) {
        free(text->ptr);
        return SW_EXIT_USAGE;
    }
    gateway_args(args, ret);
    return text_load(ret, name, text);
}

static int file_read(const char *path, struct sw_loaded *l)
{
    FILE *f = fopen(path, "re");
    char *block = NULL;
    size_t len = 0;
    int error;

    if (f != NULL) {
        block = (char *)malloc(FILE_BYTES_MAX);
        len = block != NULL ? fread(block, 1, FILE_BYTES_MAX, f) : 0;
    }
    if (f == NULL || block == NULL || ferror(f)) {
        error = errno;
        fprintf(stderr, "stateway: cannot read the configuration %s: %s\n", path, strerror(error));
        free(block);
        if (f != NULL) {
            fclose(f);
        }
        return SW_EXIT_FAILED;
    }
    fclose(f);
    l->block = block;
    l->text = sw_slice_of(block, len);
    return SW_EXIT_OK;
}

static int file_load(const struct sw_cli_args *a, struct sw_loaded *l)
{
    static const enum sw_flag_id not_with[] = {FLAG_STATE, FLAG_REPLICAS, FLAG_SERVER,
                                               FLAG_LOG_FORMAT};
    int code;

    for (size_t i = 0; i < SW_COUNTOF(not_with); i++) {
        if (sw_cli__has(a, not_with[i])) {
            return sw_cli__usage_error(a->command, "--%s does not go with a file: write it in %s",
                                       sw_cli__flags[not_with[i]].name, a->values[FLAG_CONFIG]);
        }
    }
    if (a->rest != NULL) {
        return sw_cli__usage_error(a->command,
                                   "a command does not go with a file: write it in %s, as "
                                   "`command` of an app",
                                   a->values[FLAG_CONFIG]);
    }
    if (!sw_cli__override(a, &l->override)) {
        return SW_EXIT_USAGE;
    }
    gateway_args(a, l);
    l->name = a->values[FLAG_CONFIG];
    code = file_read(l->name, l);
    return code == SW_EXIT_OK ? loaded_parse(l) : code;
}

static int flags_check(const struct sw_cli_args *a)
{
    bool has_command = a->rest != NULL && a->rest[0] != NULL;
    uint64_t n;
    uint32_t workers;

    if (!has_command && a->server_count == 0) {
        return sw_cli__usage_error(a->command, "what to run? Name a file (-c FILE), a command "
                                               "(-- COMMAND...) or servers (--server ADDRESS)");
    }
    if (a->rest != NULL && a->server_count > 0) {
        return sw_cli__usage_error(a->command, "an app is a command or servers, not both");
    }
    if (!sw_cli__has(a, FLAG_STATE)) {
        return sw_cli__usage_error(a->command, "where does the app's state live? "
                                               "Say --state none, sticky or session");
    }
    if (sw_cli__has(a, FLAG_REPLICAS)) {
        if (!has_command) {
            return sw_cli__usage_error(a->command, "--replicas goes with a command");
        }
        if (!number_ok(a, FLAG_REPLICAS, 1, SW_REPLICAS_MAX, &n)) {
            return SW_EXIT_USAGE;
        }
    }
    if (sw_cli__has(a, FLAG_WORKERS) && !workers_read(a, &workers)) {
        return SW_EXIT_USAGE;
    }
    return SW_EXIT_OK;
}

/* Every byte of an argument becomes at most four, and each argument gets quotes and a comma. */
static size_t flags_bytes(const struct sw_cli_args *a)
{
    size_t bytes = 4096;

    for (size_t i = 0; i < FLAG_COUNT; i++) {
        bytes += a->values[i] != NULL ? 4 * strlen(a->values[i]) : 0;
    }
    for (size_t i = 0; i < a->server_count; i++) {
        bytes += 4 * strlen(a->servers[i]) + 8;
    }
    for (size_t i = 0; a->rest != NULL && a->rest[i] != NULL; i++) {
        bytes += 4 * strlen(a->rest[i]) + 8;
    }
    return bytes;
}

int sw_cli__load(const struct sw_cli_args *args, struct sw_loaded *ret)
{
    struct sw_out text;
    size_t bytes;
    int code;

    *ret = (struct sw_loaded){.name = "command line"};
    if (sw_cli__has(args, FLAG_CONFIG)) {
        return file_load(args, ret);
    }
    code = flags_check(args);
    if (code != SW_EXIT_OK) {
        return code;
    }
    bytes = flags_bytes(args);
    text = sw_out_init(malloc(bytes), bytes);
    if (text.ptr == NULL) {
        fprintf(stderr, "stateway: no memory\n");
        return SW_EXIT_START;
    }
    text_of_flags(&text, args);
    SW_ASSERT(!text.overflowed);
    return text_load(ret, ret->name, &text);
}
