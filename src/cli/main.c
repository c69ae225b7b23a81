/* cli/main.c - main(): which command, and help for it. */
#include "cli/cli_priv.h"

#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

static const struct sw_command commands[] = {
    {
        .name = "run",
        .usage = "-c FILE | --state none|sticky|session [-- COMMAND...]",
        .about = "run the gateway, and the apps it is told to run",
        .more =
            "Without a file, the flags make one: one app, one route for every path. The command\n"
            "is told its port in PORT, or where {port} or {socket} stand in its arguments.\n"
            "With a file, flags say otherwise for this run.\n"
            "\n"
            "    stateway run --state session -- node server.js\n"
            "    stateway run --state sticky --server 10.0.0.5:8000 --server 10.0.0.6:8000\n"
            "    stateway run -c stateway.yaml --listen 0.0.0.0:80\n",
        .flags = SW_FLAG(FLAG_CONFIG) | SW_CLI_APP_FLAGS | SW_CLI_FLAG_FLAGS,
        .run = sw_cli__run,
    },
    {
        .name = "check",
        .usage = "-c FILE [--explain [METHOD] URL] [--print]",
        .about = "read a configuration and tell everything that is wrong with it",
        .more =
            "Every complaint is a line FILE:LINE:COLUMN: text. Instead of a file it takes the\n"
            "flags of run; with --print they show the file they stand for.\n"
            "\n"
            "    stateway check -c stateway.yaml --explain POST http://shop.example/cart/items\n",
        .flags = SW_FLAG(FLAG_CONFIG) | SW_FLAG(FLAG_PRINT) | SW_FLAG(FLAG_EXPLAIN) |
                 SW_CLI_APP_FLAGS | SW_CLI_FLAG_FLAGS,
        .run = sw_cli__check,
    },
    {
        .name = "demo",
        .usage = "[--listen ADDRESS] [--admin ADDRESS] [--store FOLDER]",
        .about = "run the bundled shop under three placements, with a page to watch them",
        .more =
            "Two defaults differ here: the store is in a temporary folder that goes away with it,\n"
            "unless --store names a folder, and the access log is off. Ctrl-C ends everything.\n",
        .flags = SW_CLI_FLAG_FLAGS,
        .run = sw_cli__demo,
    },
    {
        .name = "status",
        .usage = "[APP]",
        .about = "the apps and their instances",
        .flags = SW_FLAG(FLAG_ADMIN) | SW_FLAG(FLAG_TOKEN) | SW_FLAG(FLAG_CONFIG),
        .run = sw_cli__status,
    },
    {
        .name = "roll",
        .usage = "APP",
        .about = "replace every instance of an app by a new one, one after the other",
        .flags = SW_FLAG(FLAG_ADMIN) | SW_FLAG(FLAG_TOKEN) | SW_FLAG(FLAG_CONFIG),
        .run = sw_cli__roll,
    },
    {
        .name = "drain",
        .usage = "APP/N",
        .about = "let an instance keep the visitors bound to it, and send new ones elsewhere",
        .flags = SW_FLAG(FLAG_ADMIN) | SW_FLAG(FLAG_TOKEN) | SW_FLAG(FLAG_CONFIG),
        .run = sw_cli__drain,
    },
    {
        .name = "undrain",
        .usage = "APP/N",
        .about = "take a drain back",
        .flags = SW_FLAG(FLAG_ADMIN) | SW_FLAG(FLAG_TOKEN) | SW_FLAG(FLAG_CONFIG),
        .run = sw_cli__undrain,
    },
    {
        .name = "kill",
        .usage = "APP/N",
        .about = "kill an instance, as a crash would",
        .flags = SW_FLAG(FLAG_ADMIN) | SW_FLAG(FLAG_TOKEN) | SW_FLAG(FLAG_CONFIG),
        .run = sw_cli__kill,
    },
    {
        .name = "sessions",
        .usage = "list | show HANDLE | end HANDLE | end --subject NAME | export | import FILE",
        .about = "look at the sessions that the store keeps, end them, carry them over",
        .more =
            "    stateway sessions list --subject alice       who is logged in where\n"
            "    stateway sessions show HANDLE                one, with its value\n"
            "    stateway sessions end HANDLE                 ends one\n"
            "    stateway sessions end --subject alice        ends all of a subject\n"
            "    stateway sessions export -o states.jsonl     every record, a line each\n"
            "    stateway sessions import states.jsonl        into another store\n"
            "\n"
            "A handle names a session and opens none. An import makes what is missing and leaves\n"
            "what is there; FILE may be -, stdin.\n",
        .flags = SW_FLAG(FLAG_ADMIN) | SW_FLAG(FLAG_TOKEN) | SW_FLAG(FLAG_CONFIG) |
                 SW_FLAG(FLAG_SUBJECT) | SW_FLAG(FLAG_LIMIT) | SW_FLAG(FLAG_OUTPUT) |
                 SW_FLAG(FLAG_REPLACE) | SW_FLAG(FLAG_ENTITY) | SW_FLAG(FLAG_JSON),
        .is_word = sw_cli__is_handle,
        .run = sw_cli__sessions,
    },
    {
        .name = "keys",
        .usage = "list | add | promote ID | retire ID [--force] | rotate [--seed]  [-c FILE]",
        .about = "the keys that cookies and tokens are made with: a new one, and out with the old",
        .more =
            "    stateway keys list -c stateway.yaml     what there is, and what is still used\n"
            "    stateway keys rotate -c stateway.yaml   a new key makes, the old one still opens\n"
            "    stateway keys retire 1 -c stateway.yaml    takes it out, when nothing needs it\n"
            "\n"
            "Where several gateways share the file, in two steps, so that all know the key before\n"
            "the first one makes something with it:\n"
            "\n"
            "    stateway keys add                       a seed: known, not used to make\n"
            "    stateway keys promote 2                 some seconds later\n"
            "\n"
            "It changes the file, and gateways follow within seconds: no restart, and nobody is\n"
            "logged out. A retired key takes a promotion back when it is promoted again.\n",
        .flags = SW_FLAG(FLAG_CONFIG) | SW_FLAG(FLAG_FILE) | SW_FLAG(FLAG_ADMIN) |
                 SW_FLAG(FLAG_TOKEN) | SW_FLAG(FLAG_SEED) | SW_FLAG(FLAG_FORCE) |
                 SW_FLAG(FLAG_JSON),
        .run = sw_cli__keys,
    },
    {
        .name = "revoke",
        .usage = "--subject NAME | --issuer ISSUER --jti JTI | --jti - | --session WHICH | "
                 "--sealed WHICH | --pin WHICH",
        .about = "end what clients carry, before its time",
        .more =
            "    stateway revoke --subject alice                 all that alice has: sessions,\n"
            "                                                    tokens, sealed states\n"
            "    stateway revoke --issuer https://id.example --jti 7f3a   one token\n"
            "    stateway revoke --jti -                         one, read whole from stdin\n"
            "    stateway revoke --session -                     one, by its cookie\n"
            "    stateway revoke --sealed -                      likewise\n"
            "    stateway revoke --pin -                         likewise\n"
            "\n"
            "It is durable when the command ends, holds from the next request on, and is kept for\n"
            "as long as what was ended could live. Write - for a cookie or a token: what stands\n"
            "on a command line can be read by everybody on the machine.\n",
        .flags = SW_FLAG(FLAG_ADMIN) | SW_FLAG(FLAG_TOKEN) | SW_FLAG(FLAG_CONFIG) |
                 SW_FLAG(FLAG_SUBJECT) | SW_FLAG(FLAG_ISSUER) | SW_FLAG(FLAG_JTI) |
                 SW_FLAG(FLAG_SESSION) | SW_FLAG(FLAG_SEALED) | SW_FLAG(FLAG_PIN) |
                 SW_FLAG(FLAG_JSON),
        .run = sw_cli__revoke,
    },
    {
        .name = "store",
        .usage = "stat | check | backup FOLDER | compact  [--store STORE | -c FILE]",
        .about = "look at the store's file, check it, copy it, make it small",
        .more =
            "    stateway store stat -c stateway.yaml    what is in it, and how large it is\n"
            "    stateway store check                    reads all of it: is it whole?\n"
            "    stateway store backup /backup/monday    a copy, in a new folder\n"
            "    stateway store compact                  without what is over\n"
            "\n"
            "STORE is lmdb:FOLDER or journal:FOLDER; without a flag it is lmdb:./state.\n"
            "All but compact work while a gateway runs on it.\n"
            "check ends with 1 when something is damaged, and says what to do.\n",
        .flags = SW_FLAG(FLAG_STORE) | SW_FLAG(FLAG_CONFIG),
        .run = sw_cli__store,
    },
    {
        .name = "gateway",
        .usage = "",
        .about = "the gateway process; started by the supervisor only",
        .flags = SW_FLAG(FLAG_CONTROL_FD) | SW_FLAG(FLAG_CONFIG_FD) | SW_FLAG(FLAG_LISTEN_FDS) |
                 SW_FLAG(FLAG_ADMIN_FD) | SW_FLAG(FLAG_NAME) | SW_CLI_FLAG_FLAGS,
        .run = sw_cli__gateway,
        .hidden = true,
    },
};

int sw_cli__usage_error(const struct sw_command *command, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fprintf(stderr, "stateway %s: %s\n(`stateway %s --help` lists what it takes)\n", command->name,
            text, command->name);
    return SW_EXIT_USAGE;
}

static void help_flags(const struct sw_command *command)
{
    for (size_t id = 0; id < FLAG_COUNT; id++) {
        const struct sw_flag *f = &sw_cli__flags[id];
        char left[48], letter[8] = "    ";

        if (((command->flags | SW_FLAG(FLAG_HELP)) & SW_FLAG(id)) == 0 || f->text == NULL) {
            continue;
        }
        if (f->letter != 0) {
            snprintf(letter, sizeof(letter), "-%c, ", f->letter);
        }
        snprintf(left, sizeof(left), "%s--%s%s%s", letter, f->name, f->value != NULL ? " " : "",
                 f->value != NULL ? f->value : "");
        printf("  %-26s %s\n", left, f->text);
    }
}

static int help_command(const struct sw_command *command)
{
    printf("usage: stateway %s %s\n\n%s\n\n", command->name, command->usage, command->about);
    help_flags(command);
    if (command->more != NULL) {
        printf("\n%s", command->more);
    }
    return SW_EXIT_OK;
}

static void help_all(FILE *to)
{
    fprintf(to, "usage: stateway COMMAND [FLAGS]\n\n"
                "A gateway that keeps your app's state, in the place you say.\n\n");
    for (size_t i = 0; i < SW_COUNTOF(commands); i++) {
        if (!commands[i].hidden) {
            fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].about);
        }
    }
    fprintf(to, "  %-9s %s\n", "version", "print the version");
    fprintf(to, "  %-9s %s\n", "help", "print this, or the flags of a command");
    fprintf(to,
            "\n`stateway COMMAND --help` tells more about one. Exit codes: 0 in order, 1 the\n"
            "configuration is wrong or the command failed, 2 wrong usage, 3 could not start.\n");
}

static int version(void)
{
    printf("stateway %s\n", SW_VERSION);
    return SW_EXIT_OK;
}

static const struct sw_command *command_find(const char *name)
{
    for (size_t i = 0; i < SW_COUNTOF(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static int command_unknown(const char *name)
{
    const char *names[SW_COUNTOF(commands)], *near;
    size_t count = 0;

    for (size_t i = 0; i < SW_COUNTOF(commands); i++) {
        if (!commands[i].hidden) {
            names[count++] = commands[i].name;
        }
    }
    near = sw_cli__nearest(name, names, count);
    if (near != NULL) {
        fprintf(stderr, "stateway: there is no command \"%s\"; did you mean \"%s\"?\n", name, near);
    } else {
        fprintf(stderr, "stateway: there is no command \"%s\"; `stateway --help` lists them\n",
                name);
    }
    return SW_EXIT_USAGE;
}

static int help(const char *name)
{
    const struct sw_command *command = name != NULL ? command_find(name) : NULL;

    if (name != NULL && command == NULL) {
        return command_unknown(name);
    }
    if (command != NULL) {
        return help_command(command);
    }
    help_all(stdout);
    return SW_EXIT_OK;
}

static bool is_one_of(const char *word, const char *a, const char *b, const char *c)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0;
}

int main(int argc, char **argv)
{
    const struct sw_command *command;
    struct sw_cli_args args;
    int code;

    if (argc < 2) {
        help_all(stderr);
        return SW_EXIT_USAGE;
    }
    if (is_one_of(argv[1], "help", "--help", "-h")) {
        code = help(argv[2]);
    } else if (is_one_of(argv[1], "version", "--version", "-V")) {
        code = version();
    } else {
        command = command_find(argv[1]);
        if (command == NULL) {
            return command_unknown(argv[1]);
        }
        for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++) {
            if (!command->hidden &&
                (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
                return help_command(command);
            }
        }
        if (!sw_cli__flags_parse(command, argc - 2, argv + 2, &args)) {
            return SW_EXIT_USAGE;
        }
        code = command->run(&args);
    }
    if (fflush(stdout) != 0 && code == SW_EXIT_OK) {
        return SW_EXIT_FAILED; /* what was asked for could not be written */
    }
    return code;
}
