/* base/json.c behind a pipe, for the vectors in tests/e2e/test_vectors_json.py.
 *
 * json_probe check | compact | merge
 * stdin: texts, each as a 4-byte little-endian length and its bytes; merge takes two at a time
 *        (target, patch). stdout: for each a byte (0: done, 1: refused), a length and the bytes of
 *        the result, or of the reason.
 */
#include "base/arena.h"
#include "base/json.h"

static char *take(size_t *ret_len)
{
    unsigned char head[4];
    char *text;
    size_t len;

    if (fread(head, 1, sizeof(head), stdin) != sizeof(head)) {
        return NULL;
    }
    len = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    text = malloc(len + 1); /* + 1: malloc(0) may be NULL */
    if (text == NULL || fread(text, 1, len, stdin) != len) {
        exit(2);
    }
    *ret_len = len;
    return text;
}

static void give(bool refused, struct sw_slice text)
{
    unsigned char head[5] = {refused, (unsigned char)text.len, (unsigned char)(text.len >> 8),
                             (unsigned char)(text.len >> 16), (unsigned char)(text.len >> 24)};

    fwrite(head, 1, sizeof(head), stdout);
    if (text.len > 0) {
        fwrite(text.ptr, 1, text.len, stdout);
    }
    fflush(stdout);
}

static void refuse(struct sw_json_checked checked)
{
    char text[128];
    int n = snprintf(text, sizeof(text), "%s at %zu", checked.why, checked.offset);

    give(true, sw_slice_of(text, (size_t)n));
}

static void answer(const char *mode, struct sw_slice text, struct sw_slice patch)
{
    size_t cap = 6 * (text.len + patch.len) + 16, scratch_bytes = 64 * (patch.len + 64);
    char *room = malloc(cap), *scratch = malloc(scratch_bytes);
    struct sw_out out = sw_out_init(room, cap);
    struct sw_json_checked checked = sw_json_check(text);
    struct sw_arena arena;
    enum sw_err err = SW_OK;

    if (room == NULL || scratch == NULL) {
        exit(2);
    }
    sw_arena_init(&arena, scratch, scratch_bytes);
    if (strcmp(mode, "merge") == 0 && text.len == 0) {
        checked.err = SW_OK; /* no state */
    }
    if (checked.err != SW_OK) {
        refuse(checked);
    } else if (strcmp(mode, "check") == 0) {
        give(false, SW_S(""));
    } else if (strcmp(mode, "compact") == 0) {
        err = sw_json_compact(text, &out) ? SW_OK : SW_E_LIMIT;
        give(err != SW_OK, err == SW_OK ? sw_out_done(&out) : sw_slice_cstr(sw_err_name(err)));
    } else {
        checked = sw_json_check(patch);
        if (checked.err != SW_OK) {
            refuse(checked);
        } else {
            err = sw_json_merge(text, patch, &out, &arena);
            give(err != SW_OK, err == SW_OK ? sw_out_done(&out) : sw_slice_cstr(sw_err_name(err)));
        }
    }
    free(room);
    free(scratch);
}

int main(int argc, char **argv)
{
    size_t len = 0, patch_len = 0;
    char *text, *patch;

    if (argc != 2) {
        return 2;
    }
    while ((text = take(&len)) != NULL) {
        patch = NULL;
        patch_len = 0;
        if (strcmp(argv[1], "merge") == 0) {
            patch = take(&patch_len);
            if (patch == NULL) {
                exit(2);
            }
        }
        answer(argv[1], sw_slice_of(text, len), sw_slice_of(patch, patch_len));
        free(text);
        free(patch);
    }
    return 0;
}
