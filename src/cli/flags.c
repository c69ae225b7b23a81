/* cli/flags.c - one table of all flags; a command says which of them it takes. */
#include "cli/cli_priv.h"

const struct sw_flag sw_cli__flags[FLAG_COUNT] = {
    [FLAG_CONFIG] = {"config", 'c', "FILE", NULL, false, "the configuration file"},
    [FLAG_STATE] = {"state", 0, "PLACE", "none|sticky|session", false,
                    "where the app's state lives: none, sticky or session"},
    [FLAG_LISTEN] = {"listen", 0, "ADDRESS", NULL, false,
                     "HOST:PORT or unix:PATH for clients (127.0.0.1:8080)"},
    [FLAG_ADMIN] = {"admin", 0, "ADDRESS", NULL, false,
                    "the admin API: HOST:PORT, unix:PATH or off (127.0.0.1:9000)"},
    [FLAG_REPLICAS] = {"replicas", 0, "N", NULL, false, "instances of the command (3)"},
    [FLAG_SERVER] = {"server", 0, "ADDRESS", NULL, true,
                     "an instance that runs already, instead of a command; repeatable"},
    [FLAG_STORE] = {"store", 0, "STORE", NULL, false,
                    "where session keeps states: lmdb:FOLDER or memory: (lmdb:./state)"},
    [FLAG_ENGINE] = {"engine", 0, "ENGINE", "auto|uring|epoll", false,
                     "the event loop: auto, uring or epoll (auto)"},
    [FLAG_WORKERS] = {"workers", 0, "N", NULL, false, "worker threads, or auto: one a processor"},
    [FLAG_LOG_LEVEL] = {"log-level", 0, "LEVEL", "error|warn|info|debug", false,
                        "error, warn, info or debug (info)"},
    [FLAG_LOG_FORMAT] = {"log-format", 0, "FORMAT", "text|json", false, "text or json (text)"},
    [FLAG_ACCESS_LOG] = {"access-log", 0, "WHERE", NULL, false,
                         "stdout, off, or a path: one line an exchange (stdout)"},
    [FLAG_PRINT] = {"print", 0, NULL, NULL, false, "print all that is in force, defaults included"},
    [FLAG_EXPLAIN] = {"explain", 0, NULL, NULL, false,
                      "tell which route a request takes, and why: [METHOD] URL"},
    [FLAG_TOKEN] = {"token", 0, "TOKEN", NULL, false,
                    "the admin API's token (or STATEWAY_ADMIN_TOKEN in the environment)"},
    [FLAG_SUBJECT] = {"subject", 0, "NAME", NULL, false,
                      "that subject, as the app or the issuer named it"},
    [FLAG_LIMIT] = {"limit", 0, "N", NULL, false, "how many sessions are listed (100)"},
    [FLAG_OUTPUT] = {"output", 'o', "FILE", NULL, false, "write there instead of to stdout"},
    [FLAG_REPLACE] = {"replace", 0, NULL, NULL, false,
                      "import over what is there, instead of refusing to"},
    [FLAG_ENTITY] = {"entity", 0, NULL, NULL, false,
                     "what is ended is an entity, and may be made anew at once"},
    [FLAG_FILE] = {"file", 0, "FILE", NULL, false, "the file of keys (./state/keys.json)"},
    [FLAG_SEED] = {"seed", 0, NULL, NULL, false,
                   "only the first step: several gateways share the file"},
    [FLAG_FORCE] = {"force", 0, NULL, NULL, false,
                    "although something made with the key may be alive"},
    [FLAG_ISSUER] = {"issuer", 0, "ISSUER", NULL, false, "who made that token: its claim iss"},
    [FLAG_JTI] = {"jti", 0, "JTI", NULL, false,
                  "the token of that id; -: the whole token is read from stdin"},
    [FLAG_SESSION] = {"session", 0, "WHICH", NULL, false,
                      "a session: its handle, or the cookie; -: read from stdin"},
    [FLAG_SEALED] = {"sealed", 0, "WHICH", NULL, false,
                     "a sealed state: its id, or the cookie; -: read from stdin"},
    [FLAG_PIN] = {"pin", 0, "WHICH", NULL, false,
                  "a sticky visitor: the pin's id, or the cookie; -: read from stdin"},
    [FLAG_JSON] = {"json", 0, NULL, NULL, false, "print JSON, for programs"},
    [FLAG_HELP] = {"help", 'h', NULL, NULL, false, "this text"},
    [FLAG_CONTROL_FD] = {"control-fd", 0, "N", NULL, false, NULL},
    [FLAG_CONFIG_FD] = {"config-fd", 0, "N", NULL, false, NULL},
    [FLAG_LISTEN_FDS] = {"listen-fds", 0, "N,N;N,N", NULL, false, NULL},
    [FLAG_ADMIN_FD] = {"admin-fd", 0, "N", NULL, false, NULL},
    [FLAG_NAME] = {"name", 0, "FILE", NULL, false, NULL},
};

/* ---- the nearest word ------------------------------------------------------------------------ */

#define WORD_MAX 24u

/* How many letters to add, drop or change; WORD_MAX when either is longer than that. */
static size_t distance(const char *a, const char *b)
{
    size_t row[WORD_MAX + 1], b_len = strlen(b);

    if (strlen(a) > WORD_MAX || b_len > WORD_MAX) {
        return WORD_MAX;
    }
    for (size_t j = 0; j <= b_len; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t corner = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t change = corner + (a[i - 1] == b[j - 1] ? 0 : 1);

            corner = row[j];
            row[j] = SW_MIN(change, SW_MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_len];
}

const char *sw_cli__nearest(const char *word, const char *const *list, size_t count)
{
    size_t best = SW_MIN((strlen(word) + 1) / 2, 3) + 1;
    const char *found = NULL;

    for (size_t i = 0; i < count; i++) {
        size_t d = distance(word, list[i]);

        if (d < best) {
            best = d;
            found = list[i];
        }
    }
    return found;
}

/* ---- parsing --------------------------------------------------------------------------------- */

static bool takes(const struct sw_command *command, size_t id)
{
    return (command->flags & SW_FLAG(id)) != 0;
}

static bool unknown(const struct sw_command *command, const char *arg, size_t name_len)
{
    const char *names[FLAG_COUNT], *near;
    size_t count = 0;
    char word[64];

    for (size_t id = 0; id < FLAG_COUNT; id++) {
        if (takes(command, id)) {
            names[count++] = sw_cli__flags[id].name;
        }
    }
    snprintf(word, sizeof(word), "%.*s", (int)SW_MIN(name_len, sizeof(word) - 1), arg + 2);
    near = arg[1] == '-' ? sw_cli__nearest(word, names, count) : NULL;
    if (near != NULL) {
        (void)sw_cli__usage_error(command, "there is no flag --%s; did you mean --%s?", word, near);
    } else {
        (void)sw_cli__usage_error(command, "there is no flag %s", arg);
    }
    return false;
}

static bool chosen(const char *choices, const char *value)
{
    struct sw_slice left = sw_slice_cstr(choices), one;

    while (left.len > 0) {
        sw_slice_cut(left, '|', &one, &left);
        if (sw_slice_eq(one, sw_slice_cstr(value))) {
            return true;
        }
    }
    return false;
}

static bool flag_set(struct sw_cli_args *a, size_t id, const char *value)
{
    const struct sw_flag *f = &sw_cli__flags[id];

    if (f->choices != NULL && !chosen(f->choices, value)) {
        (void)sw_cli__usage_error(a->command, "--%s takes %s, not \"%s\"", f->name, f->choices,
                                  value);
        return false;
    }
    if (f->many) {
        SW_ASSERT(id == FLAG_SERVER);
        if (a->server_count == SW_FLAG_VALUES_MAX) {
            (void)sw_cli__usage_error(a->command, "--%s: more than %d", f->name,
                                      SW_FLAG_VALUES_MAX);
            return false;
        }
        a->servers[a->server_count++] = value;
    } else if (a->values[id] != NULL && f->value != NULL) {
        (void)sw_cli__usage_error(a->command, "--%s is there twice", f->name);
        return false;
    }
    a->values[id] = value;
    return true;
}

/* "--name", "--name=value" or "-n"; FLAG_COUNT: none of this command. */
static size_t flag_find(const struct sw_command *command, const char *arg, size_t name_len)
{
    for (size_t id = 0; id < FLAG_COUNT; id++) {
        const struct sw_flag *f = &sw_cli__flags[id];

        if (!takes(command, id)) {
            continue;
        }
        if (arg[1] == '-') {
            if (strlen(f->name) == name_len && memcmp(f->name, arg + 2, name_len) == 0) {
                return id;
            }
        } else if (f->letter != 0 && arg[1] == f->letter && arg[2] == '\0') {
            return id;
        }
    }
    return FLAG_COUNT;
}

bool sw_cli__flags_parse(const struct sw_command *command, int argc, char **argv,
                         struct sw_cli_args *ret_args)
{
    struct sw_cli_args a = {.command = command, .words = (const char *const *)argv};
    size_t words = 0;

    for (int i = 0; i < argc; i++) {
        char *arg = argv[i], *equals;
        size_t id, name_len;
        const char *value = "";

        if (strcmp(arg, "--") == 0) {
            a.rest = (const char *const *)argv + i + 1;
            break;
        }
        if (arg[0] != '-' || arg[1] == '\0' ||
            (command->is_word != NULL && command->is_word(arg))) {
            argv[words++] = arg;
            continue;
        }
        equals = arg[1] == '-' ? strchr(arg, '=') : NULL;
        name_len = equals != NULL ? (size_t)(equals - arg) - 2 : SW_MAX(strlen(arg), 2) - 2;
        id = flag_find(command, arg, name_len);
        if (id == FLAG_COUNT) {
            return unknown(command, arg, name_len);
        }
        if (sw_cli__flags[id].value == NULL) {
            if (equals != NULL) {
                (void)sw_cli__usage_error(command, "--%s takes no value", sw_cli__flags[id].name);
                return false;
            }
        } else if (equals != NULL) {
            value = equals + 1;
        } else if (i + 1 < argc && strcmp(argv[i + 1], "--") != 0) {
            value = argv[++i];
        } else {
            (void)sw_cli__usage_error(command, "--%s needs a value: %s", sw_cli__flags[id].name,
                                      sw_cli__flags[id].value);
            return false;
        }
        if (!flag_set(&a, id, value)) {
            return false;
        }
    }
    a.word_count = words;
    *ret_args = a;
    return true;
}
