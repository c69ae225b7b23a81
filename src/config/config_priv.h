/* config/config_priv.h - what the files of this room share: the tree, complaints, the schema's
 * rows.
 *
 * Flow  text --yaml_tree.c--> nodes --subst.c--> texts filled in --schema.c, set.c--> struct
 *       sw_config --check.c--> contradictions. Every stage complains into one list and goes on.
 */
#ifndef SW_CONFIG_PRIV_H
#define SW_CONFIG_PRIV_H

#include "base/out.h"
#include "config/config.h"

#define SW_CONFIG_TEXT_BYTES_MAX  1048576u /* a file */
#define SW_CONFIG_DEPTH_MAX       16u
#define SW_CONFIG_NODES_MAX       65536u
#define SW_CONFIG_CHILDREN_MAX    4096u /* of one list or map: duplicates are looked for by pairs */
#define SW_CONFIG_SUBST_BYTES_MAX 65536u   /* one variable or file */
#define SW_CONFIG_SUBST_TOTAL_MAX 1048576u /* all texts that hold one, filled in */
#define SW_CONFIG_ERROR_BYTES_MAX 480u     /* one complaint */

/* ---- yaml_tree.c ------------------------------------------------------------------------------
 */

enum sw_node_kind { SW_NODE_TEXT, SW_NODE_LIST, SW_NODE_MAP };

struct sw_node {
    enum sw_node_kind kind;
    bool plain;            /* a text without quotes */
    bool secret;           /* its text came from outside the file: never printed */
    bool bad;              /* somebody complained: later checks stay silent about it */
    uint32_t line, column; /* from 1 */
    uint32_t key_line, key_column;
    struct sw_slice key;  /* of a map's child; NUL-terminated */
    struct sw_slice raw;  /* a text as the file has it */
    struct sw_slice text; /* filled in; NUL-terminated */
    struct sw_node *first, *last, *next;
    uint32_t count; /* children */
};

struct sw_tree {
    void *memory; /* one block, the tree's */
    struct sw_node *root;
    size_t node_count;
    size_t text_bytes; /* of all texts and keys */
};

/* Complains and returns SW_E_SYNTAX, or fills *ret_tree, to be given to sw_tree__fini. */
SW_MUST enum sw_err sw_tree__parse(struct sw_slice text, struct sw_config_errors *errors,
                                   struct sw_tree *ret_tree);
void sw_tree__fini(struct sw_tree *tree);

/* The child with that key; NULL: none, or node is no map (or NULL). */
struct sw_node *sw_node__get(const struct sw_node *node, const char *key);
/* "a text", "a number", "a list", "a map", "empty" */
const char *sw_node__what(const struct sw_node *node);
/* Nothing was written behind the colon. */
bool sw_node__empty(const struct sw_node *node);

/* ---- subst.c -----------------------------------------------------------------------------------
 */

/* Where ${...} comes from, and whether names may be looked up. Tests and fuzzing bring their own.
 */
struct sw_config_world {
    /* NULL: there is no such variable. */
    const char *(*env)(void *arg, const char *name);
    /* Reads a whole file into buf; SW_E_LIMIT when it is larger than cap. NULL: files are refused.
     */
    enum sw_err (*file)(void *arg, const char *path, char *buf, size_t cap, size_t *ret_len);
    void *arg;
    bool names; /* host names of servers are looked up */
};
extern const struct sw_config_world sw_config__world; /* the process's environment and files */

/* Fills in all texts of the tree. *ret_memory holds them (free). False: no memory. */
SW_MUST bool sw_subst__tree(struct sw_tree *tree, const struct sw_config_world *world,
                            struct sw_config_errors *errors, void **ret_memory);

/* ---- units.c -----------------------------------------------------------------------------------
 */

/* NULL: *ret_value is written. Else what is wrong, to stand behind "needs a duration; ". */
SW_MUST const char *sw_units__duration(struct sw_slice s, uint64_t *ret_ns);
SW_MUST const char *sw_units__size(struct sw_slice s, uint64_t *ret_bytes);
SW_MUST const char *sw_units__percent(struct sw_slice s, uint64_t *ret_percent);
SW_MUST const char *sw_units__count(struct sw_slice s, uint64_t *ret_count);
/* The shortest spelling: "90s", "64KiB". */
#define SW_UNITS_TEXT_MAX 32
const char *sw_units__duration_text(uint64_t ns, char buf[SW_UNITS_TEXT_MAX]);
const char *sw_units__size_text(uint64_t bytes, char buf[SW_UNITS_TEXT_MAX]);

/* ---- errors.c ----------------------------------------------------------------------------------
 */

void sw_config__error(struct sw_config_errors *e, uint32_t line, uint32_t column, const char *fmt,
                      ...) SW_PRINTF(4, 5);
/* Part of a text for a complaint: at most 60 bytes, cut between characters. Use with %.*s. */
struct sw_slice sw_config__short(struct sw_slice s);
#define SW_QARG(s) SW_SARG(sw_config__short(s))
/* What a node says, for a complaint: as the file has it, never a secret. */
struct sw_slice sw_config__said(const struct sw_node *n);
void sw_config__errors_sort(struct sw_config_errors *e);
/* How many letters to add, drop, change or swap; at most max, else max + 1. Case counts as none. */
unsigned sw_config__distance(struct sw_slice a, struct sw_slice b, unsigned max);
/* The distance up to which a word is taken for a slip of another. */
unsigned sw_config__slip(struct sw_slice word);

/* ---- schema.c ----------------------------------------------------------------------------------
 */

struct sw_config_ctx {
    struct sw_config *config;
    struct sw_arena *arena; /* the snapshot's */
    struct sw_config_errors *errors;
    const struct sw_config_world *world;
    struct sw_node *root;
    /* what is being filled */
    struct sw_config_listen *listen;
    struct sw_config_app *app;
    struct sw_config_server *server;
    struct sw_config_route *route;
    const char *where; /* for people: "apps.shop"; empty: the top */
    /* for check.c: what stood in the file */
    struct sw_node **app_nodes, **route_nodes;
    struct sw_config_keyset *keysets; /* config->keysets, while it grows */
};

enum sw_key_kind {
    SW_KIND_SECTION,
    SW_KIND_NS,      /* duration -> uint64_t ns */
    SW_KIND_SECONDS, /* duration -> int64_t whole seconds */
    SW_KIND_SIZE,
    SW_KIND_COUNT,
    SW_KIND_PERCENT,
    SW_KIND_SWITCH, /* on | off -> bool */
    SW_KIND_NAME,   /* one of names */
    SW_KIND_TEXT,
    SW_KIND_OWN,   /* set */
    SW_KIND_LATER, /* known, but not in this version */
};

enum sw_key_scope {
    SW_SCOPE_CONFIG,
    SW_SCOPE_LISTEN,
    SW_SCOPE_APP,
    SW_SCOPE_SERVER,
    SW_SCOPE_ROUTE,
};

/* A word a key may have. later: it has one, but in a later version. */
struct sw_key_name {
    const char *text;
    uint32_t value;
    bool later;
};

struct sw_key_row;
/* n is never NULL: an absent key keeps its default (or zero, where dflt is not a value). */
typedef void sw_key_set_fn(struct sw_config_ctx *x, const struct sw_key_row *row,
                           struct sw_node *n);
/* NULL: fine. Else what is wrong with the text. */
typedef const char *sw_key_check_fn(struct sw_slice text);

struct sw_key_row {
    const char *path;
    const char *dflt;
    const char *text; /* SW_KIND_LATER: a remedy, or NULL */
    const char *type;
    enum sw_key_kind kind;
    enum sw_key_scope scope;
    uint16_t offset, width; /* of the field in its scope */
    bool required;
    bool described;                  /* the default is a description and not a value */
    uint64_t min, max;               /* max 0: unbounded */
    const struct sw_key_name *names; /* ends with text NULL */
    sw_key_set_fn *set;
    sw_key_check_fn *check;
};

const struct sw_key_row *sw_schema__rows(size_t *ret_count);
/* The row of that path, which must be in the table. */
const struct sw_key_row *sw_schema__row(const char *path);
/* Fills the keys below path (a schema path: "apps.*", "" for the top) from node. NULL: defaults. */
void sw_schema__walk(struct sw_config_ctx *x, const char *path, struct sw_node *node);
/* One value by its row: also for defaults and flags. False: it complained. */
bool sw_schema__value(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n);
/* Complaints with the node's place; marks it bad. */
void sw_schema__bad(struct sw_config_ctx *x, struct sw_node *n, const char *fmt, ...)
    SW_PRINTF(3, 4);
/* "`idle` needs a duration, this is a list" when it is no text. */
bool sw_schema__want(struct sw_config_ctx *x, const struct sw_key_row *row, struct sw_node *n,
                     enum sw_node_kind kind, const char *needs);
/* A copy in the snapshot, NUL behind it. */
struct sw_slice sw_schema__keep(struct sw_config_ctx *x, struct sw_slice s);
/* The last part of a path: "idle". */
const char *sw_schema__leaf(const char *path);

/* ---- set.c -------------------------------------------------------------------------------------
 */

sw_key_set_fn sw_set__listen, sw_set__listen_address, sw_set__trusted, sw_set__admin,
    sw_set__admin_address, sw_set__store, sw_set__workers, sw_set__apps, sw_set__command,
    sw_set__environment, sw_set__replicas, sw_set__servers, sw_set__server_address, sw_set__routes,
    sw_set__host, sw_set__path, sw_set__methods, sw_set__headers, sw_set__app, sw_set__key,
    sw_set__expose, sw_set__side_address, sw_set__idempotency, sw_set__principal, sw_set__rotate;
sw_key_check_fn sw_set__check_path, sw_set__check_secret, sw_set__check_url_path,
    sw_set__check_strip, sw_set__check_cookie_name, sw_set__check_cookie_path;

/* RFC 9110, 5.6.2. */
bool sw_set__is_token(struct sw_slice s);
bool sw_set__has_control(struct sw_slice s);

/* set_token.c */
sw_key_set_fn sw_set__token_from, sw_set__token_keys, sw_set__token_audience, sw_set__token_scope,
    sw_set__token_claims, sw_set__token_headers;
sw_key_check_fn sw_set__check_issuer, sw_set__check_type;

/* Shared with the flags of the command line. who: "`address`" or "--listen". False: complained. */
bool sw_set__addr(struct sw_config_ctx *x, struct sw_node *n, const char *who, struct sw_slice text,
                  bool names, struct sw_addr *ret_addr);
bool sw_set__store_text(struct sw_config_ctx *x, struct sw_node *n, const char *who,
                        struct sw_slice text);

/* ---- check.c -----------------------------------------------------------------------------------
 */

/* What the flags say, what follows from other keys, and what contradicts. */
void sw_check__all(struct sw_config_ctx *x, const struct sw_config_override *override);

/* ---- config.c ----------------------------------------------------------------------------------
 */

SW_MUST enum sw_err sw_config__parse(struct sw_slice text, struct sw_slice name,
                                     const struct sw_config_override *override,
                                     const struct sw_config_world *world,
                                     struct sw_config **ret_config,
                                     struct sw_config_errors *errors);

#endif
