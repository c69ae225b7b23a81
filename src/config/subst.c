/* config/subst.c - ${NAME}, ${file:PATH} and $$ in the texts of the tree.
 *
 * Once and not again in what was filled in. Keys are left alone. Whatever came from outside the
 * file is marked secret, so that no complaint prints it.
 */
#include "config/config_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *world_env(void *arg, const char *name)
{
    (void)arg;
    return getenv(name);
}

static void fd_close(const int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
}

static enum sw_err world_file(void *arg, const char *path, char *buf, size_t cap, size_t *ret_len)
{
    SW_CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    size_t len = 0;

    (void)arg;
    if (fd < 0) {
        return errno == ENOENT ? SW_E_NOT_FOUND : errno == EACCES ? SW_E_PERMISSION : SW_E_SYSTEM;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return SW_E_UNSUPPORTED; /* a pipe or a terminal would keep us waiting */
    }
    for (;;) {
        ssize_t n = read(fd, buf + len, cap - len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return SW_E_SYSTEM;
        }
        if (n == 0) {
            *ret_len = len;
            return SW_OK;
        }
        len += (size_t)n;
        if (len == cap) {
            return SW_E_LIMIT;
        }
    }
}

const struct sw_config_world sw_config__world = {world_env, world_file, NULL, true};

struct subst {
    const struct sw_config_world *world;
    struct sw_config_errors *errors;
    struct sw_arena arena;
    char *file; /* a buffer of SW_CONFIG_SUBST_BYTES_MAX + 1 */
    struct sw_node *n;
};

#define COMPLAIN(s, ...)                                                                           \
    do {                                                                                           \
        (s)->n->bad = true;                                                                        \
        sw_config__error((s)->errors, (s)->n->line, (s)->n->column, __VA_ARGS__);                  \
    } while (0)

static bool name_ok(struct sw_slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';

        if (!letter && !(i > 0 && c >= '0' && c <= '9')) {
            return false;
        }
    }
    return name.len > 0;
}

static void put_env(struct subst *s, struct sw_slice name, struct sw_out *out)
{
    char text[256];
    const char *value;

    if (!name_ok(name) || name.len >= sizeof(text)) {
        COMPLAIN(s, "`${%.*s}` is no name of a variable; a dollar and a brace as they are: $${",
                 SW_QARG(name));
        return;
    }
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    value = s->world->env != NULL ? s->world->env(s->world->arg, text) : NULL;
    if (value == NULL) {
        COMPLAIN(
            s, "the environment has no variable `%s`; set it, or write $${%s} for the text itself",
            text, text);
        return;
    }
    if (strnlen(value, SW_CONFIG_SUBST_BYTES_MAX + 1) > SW_CONFIG_SUBST_BYTES_MAX) {
        COMPLAIN(s, "the variable `%s` is longer than %u bytes", text, SW_CONFIG_SUBST_BYTES_MAX);
        return;
    }
    sw_out_cstr(out, value);
}

static const char *file_why(enum sw_err err)
{
    switch (err) {
    case SW_E_NOT_FOUND:
        return "there is no such file (a relative path begins where stateway was started)";
    case SW_E_PERMISSION:
        return "this user may not read it";
    case SW_E_LIMIT:
        return "it is larger than 64 KiB";
    case SW_E_UNSUPPORTED:
        return "it is no regular file";
    default:
        return "reading it failed";
    }
}

static void put_file(struct subst *s, struct sw_slice path, struct sw_out *out)
{
    char text[1024];
    size_t len = 0;
    enum sw_err err;

    if (path.len == 0 || path.len >= sizeof(text)) {
        COMPLAIN(s, "`${file:}` needs a path of at most %zu bytes", sizeof(text) - 1);
        return;
    }
    memcpy(text, path.ptr, path.len);
    text[path.len] = '\0';
    err = s->world->file == NULL
              ? SW_E_PERMISSION
              : s->world->file(s->world->arg, text, s->file, SW_CONFIG_SUBST_BYTES_MAX + 1, &len);
    if (err != SW_OK) {
        COMPLAIN(s, "`${file:%.*s}`: %s", SW_QARG(path), file_why(err));
        return;
    }
    SW_ASSERT(len <= SW_CONFIG_SUBST_BYTES_MAX);
    /* Editors and echo end a file with a line end that nobody means. */
    if (len > 0 && s->file[len - 1] == '\n') {
        len--;
    }
    if (len > 0 && s->file[len - 1] == '\r') {
        len--;
    }
    if (len > 0 && memchr(s->file, '\0', len) != NULL) {
        COMPLAIN(s, "`${file:%.*s}` holds a NUL byte: it is no text", SW_QARG(path));
        return;
    }
    sw_out_put(out, s->file, len);
}

/* What stands behind a dollar. Returns how many bytes of it were taken. */
static size_t one(struct subst *s, struct sw_slice rest, struct sw_out *out)
{
    size_t end;
    struct sw_slice inner;

    if (rest.len > 0 && rest.ptr[0] == '$') {
        sw_out_char(out, '$');
        return 1;
    }
    if (rest.len == 0 || rest.ptr[0] != '{') {
        COMPLAIN(
            s,
            "a single $ in `%.*s`: write ${NAME} for a variable of the environment, or $$ for a "
            "dollar",
            SW_QARG(s->n->raw));
        return 0;
    }
    end = sw_slice_find(rest, '}');
    if (end == rest.len) {
        COMPLAIN(s, "`${` without `}` in `%.*s`", SW_QARG(s->n->raw));
        return rest.len;
    }
    inner = sw_slice_of(rest.ptr + 1, end - 1);
    s->n->secret = true;
    if (sw_slice_starts(inner, SW_S("file:"))) {
        put_file(s, sw_slice_tail(inner, 5), out);
    } else {
        put_env(s, inner, out);
    }
    return end + 1;
}

static void fill(struct subst *s)
{
    struct sw_slice rest = s->n->raw;
    char *at = s->arena.base + s->arena.used;
    struct sw_out out = sw_out_init(at, s->arena.size - s->arena.used);

    while (rest.len > 0 && !s->n->bad) {
        size_t plain = sw_slice_find(rest, '$');

        sw_out_put(&out, rest.ptr, plain);
        rest = sw_slice_tail(rest, plain);
        if (rest.len > 0) {
            rest = sw_slice_tail(rest, 1);
            rest = sw_slice_tail(rest, one(s, rest, &out));
        }
    }
    sw_out_char(&out, '\0');
    if (s->n->bad) {
        return;
    }
    if (out.overflowed) {
        COMPLAIN(s, "all that ${...} fills in is larger than %u bytes", SW_CONFIG_SUBST_TOTAL_MAX);
        return;
    }
    (void)sw_arena_bytes(&s->arena, out.len);
    s->n->text = sw_slice_of(at, out.len - 1);
}

/* Depth is bounded by the tree's. */
static void visit(struct subst *s, struct sw_node *n)
{
    if (n->kind == SW_NODE_TEXT) {
        if (sw_slice_find(n->raw, '$') < n->raw.len) {
            s->n = n;
            fill(s);
        }
        return;
    }
    for (struct sw_node *child = n->first; child != NULL; child = child->next) {
        visit(s, child);
    }
}

static bool any_dollar(const struct sw_node *n)
{
    if (n->kind == SW_NODE_TEXT) {
        return sw_slice_find(n->raw, '$') < n->raw.len;
    }
    for (const struct sw_node *child = n->first; child != NULL; child = child->next) {
        if (any_dollar(child)) {
            return true;
        }
    }
    return false;
}

bool sw_subst__tree(struct sw_tree *tree, const struct sw_config_world *world,
                    struct sw_config_errors *errors, void **ret_memory)
{
    struct subst s = {.world = world, .errors = errors};
    char *block;

    *ret_memory = NULL;
    if (!any_dollar(tree->root)) {
        return true;
    }
    block = malloc(SW_CONFIG_SUBST_TOTAL_MAX + SW_CONFIG_SUBST_BYTES_MAX + 1);
    if (block == NULL) {
        return false;
    }
    s.file = block + SW_CONFIG_SUBST_TOTAL_MAX;
    sw_arena_init(&s.arena, block, SW_CONFIG_SUBST_TOTAL_MAX);
    visit(&s, tree->root);
    tree->text_bytes += s.arena.used;
    *ret_memory = block;
    return true;
}
