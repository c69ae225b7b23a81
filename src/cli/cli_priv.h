/* cli/cli_priv.h - the command line: flags, commands, and what they share.
 *
 * Room       main.c (dispatch, help), flags.c (the table of flags), load.c (file or flags to
 *            configuration), run.c, demo.c, check.c, print.c, client.c (the admin API and its short
 *            commands), sessions.c (sessions list, show, end, export, import), revoke.c, store.c
 *            (the file behind a store), keys.c (the life of keys), gateway.c (the entry of the
 *            gateway process).
 * May touch  every room: this is the top.
 * Flow       argv -> flags -> configuration -> sw_super_run; or -> admin API -> text.
 *
 * Text for people goes to stdout when it was asked for, to stderr when something is wrong.
 */
#ifndef SW_CLI_PRIV_H
#define SW_CLI_PRIV_H

#include "base/out.h"
#include "config/config.h"
#include "super/super.h"

/* ---- flags.c --------------------------------------------------------------------------------- */

enum sw_flag_id {
    FLAG_CONFIG,
    FLAG_STATE,
    FLAG_LISTEN,
    FLAG_ADMIN,
    FLAG_REPLICAS,
    FLAG_SERVER,
    FLAG_STORE,
    FLAG_ENGINE,
    FLAG_WORKERS,
    FLAG_LOG_LEVEL,
    FLAG_LOG_FORMAT,
    FLAG_ACCESS_LOG,
    FLAG_PRINT,
    FLAG_EXPLAIN,
    FLAG_TOKEN,
    FLAG_SUBJECT,
    FLAG_LIMIT,
    FLAG_OUTPUT,
    FLAG_REPLACE,
    FLAG_ENTITY,
    FLAG_FILE,
    FLAG_SEED,
    FLAG_FORCE,
    FLAG_ISSUER,
    FLAG_JTI,
    FLAG_SESSION,
    FLAG_SEALED,
    FLAG_PIN,
    FLAG_JSON,
    FLAG_HELP,
    /* of the gateway process */
    FLAG_CONTROL_FD,
    FLAG_CONFIG_FD,
    FLAG_LISTEN_FDS,
    FLAG_ADMIN_FD,
    FLAG_NAME,
    FLAG_COUNT,
};
_Static_assert(FLAG_COUNT <= 64, "a command's flags are bits of one word");
#define SW_FLAG(id) (1ull << (id))

struct sw_flag {
    const char *name;    /* without the dashes */
    char letter;         /* 0: none */
    const char *value;   /* what it takes, for help; NULL: nothing */
    const char *choices; /* "a|b|c": nothing else is taken; or NULL */
    bool many;           /* may come more than once */
    const char *text;    /* for help; NULL: not shown */
};
extern const struct sw_flag sw_cli__flags[FLAG_COUNT];

#define SW_FLAG_VALUES_MAX 64

struct sw_cli_args {
    const struct sw_command *command;
    const char *values[FLAG_COUNT]; /* "" for a flag without value; NULL: not there */
    const char *servers[SW_FLAG_VALUES_MAX];
    size_t server_count;
    const char *const *words; /* what is no flag */
    size_t word_count;
    const char *const *rest; /* behind "--", NULL-terminated; NULL: there was no "--" */
};

static inline bool sw_cli__has(const struct sw_cli_args *a, enum sw_flag_id id)
{
    return a->values[id] != NULL;
}

/* Sorts argv (from behind the command's name) into *ret_args; the words are gathered at argv's
 * front. False: a complaint was printed. */
SW_MUST bool sw_cli__flags_parse(const struct sw_command *command, int argc, char **argv,
                                 struct sw_cli_args *ret_args);
/* The word of the list that a slip of the hand turned into `word`; NULL: none is near. */
const char *sw_cli__nearest(const char *word, const char *const *list, size_t count);

/* ---- main.c ---------------------------------------------------------------------------------- */

typedef int sw_command_fn(const struct sw_cli_args *args);

struct sw_command {
    const char *name;
    const char *usage;                /* behind the name */
    const char *about;                /* one line */
    const char *more;                 /* for its own help; NULL: nothing */
    uint64_t flags;                   /* bits of enum sw_flag_id */
    bool (*is_word)(const char *arg); /* an argument that begins like a flag and is none; or NULL */
    sw_command_fn *run;
    bool hidden;
};

/* "stateway run: TEXT", and where help is. Returns SW_EXIT_USAGE. */
int sw_cli__usage_error(const struct sw_command *command, const char *fmt, ...) SW_PRINTF(2, 3);

sw_command_fn sw_cli__run, sw_cli__demo, sw_cli__check, sw_cli__status, sw_cli__roll, sw_cli__drain,
    sw_cli__undrain, sw_cli__kill, sw_cli__sessions, sw_cli__revoke, sw_cli__keys, sw_cli__store,
    sw_cli__gateway;

/* ---- load.c ---------------------------------------------------------------------------------- */

#define SW_CLI_FLAG_FLAGS                                                                          \
    (SW_FLAG(FLAG_LISTEN) | SW_FLAG(FLAG_ADMIN) | SW_FLAG(FLAG_STORE) | SW_FLAG(FLAG_ENGINE) |     \
     SW_FLAG(FLAG_WORKERS) | SW_FLAG(FLAG_LOG_LEVEL) | SW_FLAG(FLAG_LOG_FORMAT) |                  \
     SW_FLAG(FLAG_ACCESS_LOG))
#define SW_CLI_APP_FLAGS (SW_FLAG(FLAG_STATE) | SW_FLAG(FLAG_REPLICAS) | SW_FLAG(FLAG_SERVER))

/* A configuration: its text (a file's, or made of flags), and what it says. */
struct sw_loaded {
    struct sw_slice text; /* in block */
    const char *name;
    void *block;
    struct sw_config_override override;
    const char *gateway_args[32]; /* the override once more, for the gateway process */
    struct sw_config *config;
};

/* From -c FILE, or from flags alone. Complaints are printed; the answer is an enum sw_exit. */
SW_MUST int sw_cli__load(const struct sw_cli_args *args, struct sw_loaded *ret);
/* A text we made ourselves, with the flags' overrides. */
SW_MUST int sw_cli__load_text(const struct sw_cli_args *args, const char *name, struct sw_out *text,
                              struct sw_loaded *ret);
void sw_cli__loaded_fini(struct sw_loaded *l);
/* What flags say over the file. False: a complaint was printed. */
SW_MUST bool sw_cli__override(const struct sw_cli_args *args, struct sw_config_override *ret);

/* Appends a YAML text in double quotes: taken as it stands, ${...} included. */
void sw_cli__quote(struct sw_out *out, const char *text);

/* ---- client.c -------------------------------------------------------------------------------- */

/* Where the admin API is. */
struct sw_cli_target {
    struct sw_addr addr;
    char text[SW_ADDR_TEXT_MAX];
    char token[1024]; /* "": none */
};
/* --admin and --token, else what the file behind -c says, else the default. An enum sw_exit; what
 * is wrong was printed. */
SW_MUST int sw_cli__target_find(const struct sw_cli_args *args, struct sw_cli_target *t);

/* A piece of an answer's body. False: no more is wanted, and why was printed. */
typedef bool sw_cli_sink_fn(void *arg, struct sw_slice piece);
struct sw_cli_call {
    const char *method;
    const char *path;      /* as it stands in the request line */
    FILE *body;            /* sent to its end; NULL: none */
    const char *body_type; /* of body */
    sw_cli_sink_fn *sink;  /* gets the body of a 200; NULL: it is gathered, up to 72 MiB */
    void *arg;
    /* out */
    unsigned status;
    struct sw_slice answer; /* in block */
    char *block;
};
/* One request, one answer. False: a complaint was printed. On success free(call->block). */
SW_MUST bool sw_cli__call(const struct sw_cli_target *t, struct sw_cli_call *call);
/* Prints what a refusal says; returns SW_EXIT_FAILED. */
int sw_cli__refused(const struct sw_cli_call *call);

/* ---- sessions.c ------------------------------------------------------------------------------ */

/* 43 characters of base64url: some handles begin with a hyphen. */
bool sw_cli__is_handle(const char *arg);
/* name=VALUE of a query, percent-encoded. */
void sw_cli__query_put(struct sw_out *out, const char *name, const char *value);
/* The call is answered by 200 and a JSON object; on success free(call->block). An enum sw_exit;
 * what is wrong was printed. */
SW_MUST int sw_cli__ask_object(const struct sw_cli_target *t, struct sw_cli_call *call);
/* The member's text; empty when there is none, or it is null. */
struct sw_slice sw_cli__member(struct sw_slice object, const char *name);

/* ---- print.c --------------------------------------------------------------------------------- */

/* The whole configuration as a file would have it, defaults filled in, secrets left out. */
void sw_cli__print_config(const struct sw_config *c);

#endif
