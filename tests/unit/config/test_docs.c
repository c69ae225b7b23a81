/* docs/configuration.md against the table the program reads: every key, its type and its default,
 * both ways; the list of what is not in this version; and every example is accepted. */
#include "world.h"

static char doc[262144];

static void doc_load(void)
{
    FILE *f = fopen(SW_CONFIGURATION_MD, "r");
    size_t len;

    assert_non_null(f);
    len = fread(doc, 1, sizeof(doc) - 1, f);
    assert_true(len < sizeof(doc) - 1);
    doc[len] = '\0';
    (void)fclose(f);
}

/* The next cell of a table row, without blanks, backquotes at both ends and escapes. */
static struct sw_slice cell(struct sw_slice *line, char *buf)
{
    size_t len = 0, i = 1;
    struct sw_slice s;

    for (; i < line->len && line->ptr[i] != '|'; i++) {
        if (line->ptr[i] == '\\' && i + 1 < line->len) {
            i++;
        }
        buf[len++] = line->ptr[i];
    }
    *line = sw_slice_tail(*line, i);
    s = sw_slice_trim(sw_slice_of(buf, len));
    if (s.len >= 2 && s.ptr[0] == '`' && s.ptr[s.len - 1] == '`') {
        s = sw_slice_of(s.ptr + 1, s.len - 2);
    }
    return s;
}

static const struct sw_config_key_doc *find(struct sw_slice path)
{
    const struct sw_config_key_doc *docs;
    size_t count = sw_config_key_docs(&docs);

    for (size_t i = 0; i < count; i++) {
        if (sw_slice_eq(sw_slice_cstr(docs[i].path), path)) {
            return &docs[i];
        }
    }
    return NULL;
}

static void tables_are_the_schema(void **state)
{
    const struct sw_config_key_doc *docs;
    size_t count = sw_config_key_docs(&docs);
    static bool seen[512];
    struct sw_slice rest = sw_slice_cstr(doc), line;
    bool in_keys = false;

    (void)state;
    while (rest.len > 0) {
        char a[512], b[512], c[512];
        struct sw_slice path, type, dflt;
        const struct sw_config_key_doc *d;

        (void)sw_slice_cut(rest, '\n', &line, &rest);
        if (sw_slice_starts(line, SW_S("| key |"))) {
            in_keys = true;
        } else if (line.len == 0) {
            in_keys = false;
        }
        if (!in_keys || !sw_slice_starts(line, SW_S("| `"))) {
            continue;
        }
        assert_true(line.len < 4096);
        path = cell(&line, a);
        type = cell(&line, b);
        dflt = cell(&line, c);
        d = find(path);
        if (d == NULL) {
            fail_msg("docs/configuration.md has `%.*s`, and the schema has not", SW_SARG(path));
            return;
        }
        if (seen[d - docs]) {
            fail_msg("`%s` is there twice", d->path);
        }
        seen[d - docs] = true;
        if (!sw_slice_eq(type, sw_slice_cstr(d->type)) ||
            !sw_slice_eq(dflt, sw_slice_cstr(d->dflt))) {
            fail_msg("`%s`: the schema says %s, default %s", d->path, d->type,
                     d->dflt != NULL ? d->dflt : "");
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (!seen[i]) {
            fail_msg("docs/configuration.md has no row for `%s`", docs[i].path);
        }
    }
}

static void later_keys_are_listed(void **state)
{
    const char *section = strstr(doc, "## Not in this version");
    size_t count;
    const struct sw_key_row *key = sw_schema__rows(&count);

    (void)state;
    assert_non_null(section);
    for (size_t i = 0; i < count; i++) {
        char text[128];

        (void)snprintf(text, sizeof(text), "`%s`", key[i].path);
        if (key[i].kind == SW_KIND_LATER && strstr(section, text) == NULL) {
            fail_msg("%s", text);
        }
    }
}

static const char *example_env(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return "some-example";
}

static enum sw_err example_file(void *arg, const char *path, char *buf, size_t cap, size_t *ret_len)
{
    (void)arg;
    (void)path;
    assert_true(cap > 12);
    memcpy(buf, "some-example", 12);
    *ret_len = 12;
    return SW_OK;
}

/* A piece of top-level keys is completed with the shortest file. */
static void examples_are_accepted(void **state)
{
    const struct sw_config_world examples = {example_env, example_file, NULL, false};
    struct sw_slice rest = sw_slice_cstr(doc);
    unsigned count = 0;

    (void)state;
    for (;;) {
        static const struct sw_slice fence = SW_S("```yaml\n");
        char text[8192];
        struct sw_out out = sw_out_init(text, sizeof(text));
        struct sw_config_errors e;
        struct sw_config *c = NULL;
        size_t at = sw_slice_find_slice(rest, fence);
        struct sw_slice example;

        if (at == rest.len) {
            break;
        }
        rest = sw_slice_tail(rest, at + fence.len);
        example = sw_slice_head(rest, sw_slice_find_slice(rest, SW_S("```")));
        sw_out_slice(&out, example);
        if (sw_slice_find_slice(example, SW_S("apps:")) == example.len) {
            sw_out_lit(&out, "\napps: { a: { command: [x] } }\nroutes: [ { path: /*, app: a } ]\n");
        }
        if (sw_config__parse(sw_out_done(&out), SW_S("example"), NULL, &examples, &c, &e) !=
            SW_OK) {
            print_errors(&e);
            fail_msg("%.*s", SW_SARG(example));
        }
        sw_config_errors_fini(&e);
        sw_config_free(c);
        count++;
    }
    assert_true(count >= 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_the_schema),
        cmocka_unit_test(later_keys_are_listed),
        cmocka_unit_test(examples_are_accepted),
    };

    doc_load();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
