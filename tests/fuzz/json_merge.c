/* RFC 7396 on two texts, separated by the first 0xff byte: the result is valid, applying the patch
 * twice is applying it once, and no null of the patch is left in its objects. */
#include "base/arena.h"
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *copy(const uint8_t *data, size_t size)
{
    char *p = malloc(size + (size == 0));

    SW_ASSERT(p != NULL);
    if (size > 0) {
        memcpy(p, data, size);
    }
    return p;
}

static void patched(struct sw_slice result, struct sw_slice patch)
{
    struct sw_json_iter it = sw_json_iter(patch);
    struct sw_slice name, want, have;

    if (!it.object) {
        return;
    }
    while (sw_json_next(&it, &name, &want)) {
        char *plain = malloc(name.len + 2), *quoted = malloc(name.len + 2);
        struct sw_out out = sw_out_init(plain, name.len + 2);
        bool found;

        SW_ASSERT(plain != NULL && quoted != NULL);
        quoted[0] = '"';
        if (name.len > 0) {
            memcpy(quoted + 1, name.ptr, name.len);
        }
        quoted[name.len + 1] = '"';
        SW_ASSERT(sw_json_unquote(sw_slice_of(quoted, name.len + 2), &out));
        found = sw_json_get(result, sw_out_done(&out), &have);
        SW_ASSERT(found == (sw_json_type_of(want) != SW_JSON_NULL));
        if (found) {
            SW_ASSERT(sw_json_type_of(want) == sw_json_type_of(have));
            patched(have, want);
        }
        free(plain);
        free(quoted);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *cut = size > 0 ? memchr(data, 0xff, size) : NULL;
    size_t left = cut == NULL ? 0 : (size_t)(cut - data);
    size_t right = cut == NULL ? size : size - left - 1;
    size_t cap = 6 * size + 16, scratch_bytes = 64 * size + 4096;
    char *t = copy(data, left), *p = copy(cut == NULL ? data : cut + 1, right);
    char *once = malloc(cap), *twice = malloc(cap), *block = malloc(scratch_bytes);
    struct sw_slice target = sw_slice_of(t, left), patch = sw_slice_of(p, right);
    struct sw_out a = sw_out_init(once, cap), b = sw_out_init(twice, cap);
    struct sw_arena scratch;

    SW_ASSERT(once != NULL && twice != NULL && block != NULL);
    sw_arena_init(&scratch, block, scratch_bytes);
    if ((left == 0 || sw_json_check(target).err == SW_OK) && sw_json_check(patch).err == SW_OK) {
        enum sw_err err = sw_json_merge(target, patch, &a, &scratch);

        SW_ASSERT(scratch.used == 0);
        SW_ASSERT(err == SW_OK || err == SW_E_LIMIT);
        if (err == SW_OK) {
            SW_ASSERT(sw_json_check(sw_out_done(&a)).err == SW_OK);
            SW_ASSERT(sw_json_merge(sw_out_done(&a), patch, &b, &scratch) == SW_OK);
            SW_ASSERT(sw_slice_eq(sw_out_done(&a), sw_out_done(&b)));
            patched(sw_out_done(&a), patch);
        }
    }
    free(t);
    free(p);
    free(once);
    free(twice);
    free(block);
    return 0;
}
