/* config/yaml_tree.c - YAML text -> a small tree with places. The only file that includes libyaml.
 *
 * Events and not libyaml's own documents: so aliases are refused before they can grow, and depth
 * and nodes are bounded. The memory is one block, sized from the text: a node takes one byte of
 * text at the least ("[?,?]" holds two maps with one empty pair each), and an escape at most
 * doubles what it writes.
 */
#include "config/config_priv.h"

#include <yaml.h>

struct builder {
    yaml_parser_t parser;
    struct sw_config_errors *errors;
    struct sw_slice input;
    struct sw_arena arena;
    struct sw_tree *tree;
    struct sw_node *open[SW_CONFIG_DEPTH_MAX]; /* lists and maps that are not closed yet */
    unsigned depth;
    /* of the map on top: the key that waits for its value */
    bool has_key[SW_CONFIG_DEPTH_MAX];
    struct sw_node key[SW_CONFIG_DEPTH_MAX];
    bool failed;
};

static void parser_delete(yaml_parser_t **parser)
{
    yaml_parser_delete(*parser);
}

static void event_delete(yaml_event_t **event)
{
    yaml_event_delete(*event);
}

static uint32_t place(size_t at)
{
    return at >= UINT32_MAX ? UINT32_MAX : (uint32_t)at + 1;
}

#define FAIL(b, mark, ...)                                                                         \
    do {                                                                                           \
        (b)->failed = true;                                                                        \
        sw_config__error((b)->errors, place((mark).line), place((mark).column), __VA_ARGS__);      \
    } while (0)

/* ---- syntax errors, with a remedy --------------------------------------------------------------
 */

static struct sw_slice line_of(struct sw_slice input, size_t line)
{
    struct sw_slice head = {NULL, 0};

    for (size_t i = 0; i <= line; i++) {
        (void)sw_slice_cut(input, '\n', &head, &input);
    }
    return head;
}

static bool has(struct sw_slice s, struct sw_slice needle)
{
    return sw_slice_find_slice(s, needle) < s.len;
}

/* What people write most often when libyaml stumbles. */
static const char *remedy(struct sw_slice line, const char *problem, const char *context)
{
    struct sw_slice p = sw_slice_cstr(problem), doing = sw_slice_cstr(context);

    if (has(doing, SW_S("alias"))) {
        return "; a text that begins with * needs quotes";
    }
    if (has(doing, SW_S("anchor"))) {
        return "; a text that begins with & needs quotes";
    }
    if (has(line, SW_S("${"))) {
        return "; inside { } and [ ] put ${...} in quotes";
    }
    if (has(p, SW_S("cannot start any token"))) {
        return sw_slice_find(line, '\t') < line.len
                   ? "; YAML indents with blanks, not with tabs"
                   : "; a text that begins with @, ` or % needs quotes";
    }
    if (has(p, SW_S("mapping values are not allowed"))) {
        return "; is the line indented as its neighbours? A text that holds `: ` needs quotes";
    }
    if (has(line, SW_S("{")) || has(line, SW_S("["))) {
        return "; inside { } and [ ] a text that holds one of { } [ ] , needs quotes";
    }
    return "; is the line indented as its neighbours?";
}

static void syntax_error(struct builder *b)
{
    const yaml_parser_t *p = &b->parser;
    const char *problem = p->problem != NULL ? p->problem : "it cannot be read";

    b->failed = true;
    if (p->error == YAML_MEMORY_ERROR) {
        sw_config__error(b->errors, 0, 0, "no memory");
    } else if (p->error == YAML_READER_ERROR) {
        size_t offset = SW_MIN(p->problem_offset, b->input.len), line = 0, column = 0;

        for (size_t i = 0; i < offset; i++) {
            column = b->input.ptr[i] == '\n' ? 0 : column + 1;
            line += b->input.ptr[i] == '\n' ? 1 : 0;
        }
        sw_config__error(b->errors, place(line), place(column),
                         "this is not readable text: %s; the file must be UTF-8 without control "
                         "characters",
                         problem);
    } else {
        sw_config__error(b->errors, place(p->problem_mark.line), place(p->problem_mark.column),
                         "this is not YAML: %s%s", problem,
                         remedy(line_of(b->input, p->problem_mark.line), problem, p->context));
    }
}

/* ---- the tree ----------------------------------------------------------------------------------
 */

static struct sw_slice keep(struct builder *b, const void *ptr, size_t len)
{
    char *text = sw_arena_cstr(&b->arena, sw_slice_of(ptr, len));

    SW_ASSERT(text != NULL); /* the block was sized for it */
    b->tree->text_bytes += len + 1;
    return sw_slice_of(text, len);
}

static void add_child(struct builder *b, struct sw_node *parent, struct sw_node *n)
{
    if (parent->kind == SW_NODE_MAP) {
        const struct sw_node *key = &b->key[b->depth - 1];

        n->key = key->text;
        n->key_line = key->line;
        n->key_column = key->column;
        b->has_key[b->depth - 1] = false;
    }
    if (parent->last == NULL) {
        parent->first = n;
    } else {
        parent->last->next = n;
    }
    parent->last = n;
    parent->count++;
}

/* A new node in its place; NULL: a limit, complained. */
static struct sw_node *add(struct builder *b, enum sw_node_kind kind, yaml_mark_t mark)
{
    struct sw_node *parent = b->depth > 0 ? b->open[b->depth - 1] : NULL, *n;

    if (b->tree->node_count >= SW_CONFIG_NODES_MAX) {
        FAIL(b, mark, "the file has more than %u values", SW_CONFIG_NODES_MAX);
        return NULL;
    }
    if (parent != NULL && parent->count >= SW_CONFIG_CHILDREN_MAX) {
        FAIL(b, mark, "there are more than %u values in one list or map", SW_CONFIG_CHILDREN_MAX);
        return NULL;
    }
    n = sw_arena_new(&b->arena, struct sw_node);
    SW_ASSERT(n != NULL);
    b->tree->node_count++;
    n->kind = kind;
    n->line = place(mark.line);
    n->column = place(mark.column);
    if (parent == NULL) {
        b->tree->root = n;
    } else {
        add_child(b, parent, n);
    }
    return n;
}

static bool key_wanted(const struct builder *b)
{
    return b->depth > 0 && b->open[b->depth - 1]->kind == SW_NODE_MAP && !b->has_key[b->depth - 1];
}

static void key_set(struct builder *b, const yaml_event_t *e)
{
    struct sw_node *map = b->open[b->depth - 1], *key = &b->key[b->depth - 1];
    struct sw_slice text = keep(b, e->data.scalar.value, e->data.scalar.length);

    for (const struct sw_node *n = map->first; n != NULL; n = n->next) {
        if (sw_slice_eq(n->key, text)) {
            /* The tree goes on with both: what else is wrong is still found. */
            sw_config__error(b->errors, place(e->start_mark.line), place(e->start_mark.column),
                             "`%.*s` is here twice (first in line %u); take one out", SW_QARG(text),
                             n->key_line);
            break;
        }
    }
    *key = (struct sw_node){
        .line = place(e->start_mark.line), .column = place(e->start_mark.column), .text = text};
    b->has_key[b->depth - 1] = true;
}

static void on_scalar(struct builder *b, const yaml_event_t *e)
{
    struct sw_node *n;

    if (e->data.scalar.length > 0 &&
        memchr(e->data.scalar.value, '\0', e->data.scalar.length) != NULL) {
        FAIL(b, e->start_mark, "a text holds a NUL byte");
        return;
    }
    if (key_wanted(b)) {
        key_set(b, e);
        return;
    }
    n = add(b, SW_NODE_TEXT, e->start_mark);
    if (n != NULL) {
        n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        n->raw = keep(b, e->data.scalar.value, e->data.scalar.length);
        n->text = n->raw;
    }
}

static void on_open(struct builder *b, enum sw_node_kind kind, yaml_mark_t mark)
{
    struct sw_node *n;

    if (key_wanted(b)) {
        FAIL(b, mark, "a key must be a text; if { } or [ ] belong to a text, put it in quotes");
        return;
    }
    if (b->depth >= SW_CONFIG_DEPTH_MAX) {
        FAIL(b, mark, "lists and maps are nested more than %u deep", SW_CONFIG_DEPTH_MAX);
        return;
    }
    n = add(b, kind, mark);
    if (n != NULL) {
        b->has_key[b->depth] = false;
        b->open[b->depth++] = n;
    }
}

static void refuse_decoration(struct builder *b, const yaml_event_t *e, const void *anchor,
                              const void *tag)
{
    if (anchor != NULL) {
        FAIL(b, e->start_mark, "anchors (&name) are not read here; write the value out");
    }
    if (tag != NULL) {
        FAIL(b, e->start_mark, "tags (!name) are not read here; take it out");
    }
}

static void on_event(struct builder *b, const yaml_event_t *e, unsigned *documents)
{
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++*documents > 1) {
            FAIL(b, e->start_mark, "a second document begins here; a configuration is one");
        }
        return;
    case YAML_ALIAS_EVENT:
        FAIL(b, e->start_mark,
             "`*%.*s` is an alias in YAML, and they are not read here; put a text that begins with "
             "* in quotes",
             SW_QARG(sw_slice_cstr((const char *)e->data.alias.anchor)));
        return;
    case YAML_SCALAR_EVENT:
        refuse_decoration(b, e, e->data.scalar.anchor, e->data.scalar.tag);
        on_scalar(b, e);
        return;
    case YAML_SEQUENCE_START_EVENT:
        refuse_decoration(b, e, e->data.sequence_start.anchor, e->data.sequence_start.tag);
        on_open(b, SW_NODE_LIST, e->start_mark);
        return;
    case YAML_MAPPING_START_EVENT:
        refuse_decoration(b, e, e->data.mapping_start.anchor, e->data.mapping_start.tag);
        on_open(b, SW_NODE_MAP, e->start_mark);
        return;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        SW_ASSERT(b->depth > 0);
        b->depth--;
        return;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return;
    }
}

static void read_events(struct builder *b)
{
    unsigned documents = 0;
    bool end = false;

    while (!b->failed && !end) {
        yaml_event_t event;
        SW_CLEANUP(event_delete) yaml_event_t *guard = &event;

        memset(&event, 0, sizeof(event));
        if (yaml_parser_parse(&b->parser, &event) == 0) {
            syntax_error(b);
            return;
        }
        end = event.type == YAML_STREAM_END_EVENT;
        on_event(b, guard, &documents);
    }
    if (!b->failed && b->tree->root == NULL) {
        b->failed = true;
        sw_config__error(b->errors, 0, 0,
                         "the file is empty; the shortest useful one has `apps` and `routes`");
    }
}

enum sw_err sw_tree__parse(struct sw_slice text, struct sw_config_errors *errors,
                           struct sw_tree *ret_tree)
{
    struct builder b = {.errors = errors, .input = text, .tree = ret_tree};
    SW_CLEANUP(parser_delete) yaml_parser_t *guard = &b.parser;
    size_t nodes = SW_MIN(text.len + 8, (size_t)SW_CONFIG_NODES_MAX);
    size_t bytes = nodes * (sizeof(struct sw_node) + 16) + text.len * 3 + 64;

    *ret_tree = (struct sw_tree){0};
    if (yaml_parser_initialize(guard) == 0) {
        sw_config__error(errors, 0, 0, "no memory");
        return SW_E_NO_MEMORY;
    }
    if (text.len > SW_CONFIG_TEXT_BYTES_MAX) {
        sw_config__error(errors, 0, 0, "the file is larger than %u bytes",
                         SW_CONFIG_TEXT_BYTES_MAX);
        return SW_E_SYNTAX;
    }
    ret_tree->memory = malloc(bytes);
    if (ret_tree->memory == NULL) {
        sw_config__error(errors, 0, 0, "no memory");
        return SW_E_NO_MEMORY;
    }
    sw_arena_init(&b.arena, ret_tree->memory, bytes);
    yaml_parser_set_encoding(guard, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(guard, (const unsigned char *)(text.len > 0 ? text.ptr : ""),
                                 text.len);
    read_events(&b);
    if (b.failed) {
        sw_tree__fini(ret_tree);
        return SW_E_SYNTAX;
    }
    return SW_OK;
}

void sw_tree__fini(struct sw_tree *tree)
{
    free(tree->memory);
    *tree = (struct sw_tree){0};
}

/* ---- looking -----------------------------------------------------------------------------------
 */

struct sw_node *sw_node__get(const struct sw_node *node, const char *key)
{
    if (node == NULL || node->kind != SW_NODE_MAP) {
        return NULL;
    }
    for (struct sw_node *n = node->first; n != NULL; n = n->next) {
        if (sw_slice_eq(n->key, sw_slice_cstr(key))) {
            return n;
        }
    }
    return NULL;
}

bool sw_node__empty(const struct sw_node *node)
{
    return node->kind == SW_NODE_TEXT && node->plain &&
           (node->raw.len == 0 || sw_slice_eq(node->raw, SW_S("~")) ||
            sw_slice_eq(node->raw, SW_S("null")));
}

const char *sw_node__what(const struct sw_node *node)
{
    uint64_t ignored;

    switch (node->kind) {
    case SW_NODE_LIST:
        return "a list";
    case SW_NODE_MAP:
        return "a map";
    case SW_NODE_TEXT:
        if (sw_node__empty(node)) {
            return "empty";
        }
        return sw_slice_u64(node->text, &ignored) ? "a number" : "a text";
    }
    SW_UNREACHABLE();
}
