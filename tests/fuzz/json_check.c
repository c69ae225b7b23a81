/* check -> compact -> check: what was accepted stays accepted and unchanged, in header-safe bytes;
 * the walk through its members visits what check saw. */
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void visit(struct sw_slice value, size_t depth)
{
    struct sw_json_iter it = sw_json_iter(value);
    struct sw_slice name, inner;
    size_t count = 0;

    SW_ASSERT(depth <= SW_JSON_DEPTH_MAX);
    while (sw_json_next(&it, &name, &inner)) {
        struct sw_json_checked c = sw_json_check(inner);

        SW_ASSERT(c.err == SW_OK);
        SW_ASSERT(c.type == sw_json_type_of(inner));
        if (count++ < 4) {
            visit(inner, depth + 1);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t cap = 6 * size + 2;
    char *in = malloc(size + (size == 0)), *once = malloc(cap), *twice = malloc(cap);
    struct sw_slice text;
    struct sw_out a = sw_out_init(once, cap), b = sw_out_init(twice, cap), q = a;
    struct sw_json_checked c;

    SW_ASSERT(in != NULL && once != NULL && twice != NULL);
    if (size > 0) {
        memcpy(in, data, size); /* an exact-size block: one byte too far is seen */
    }
    text = sw_slice_of(in, size);
    sw_json_quote(&q, text);
    SW_ASSERT(sw_json_check(sw_out_done(&q)).err == SW_OK);
    c = sw_json_check(text);
    SW_ASSERT(c.offset <= size);
    if (c.err == SW_OK) {
        struct sw_json_checked again;

        SW_ASSERT(sw_json_compact(text, &a));
        again = sw_json_check(sw_out_done(&a));
        SW_ASSERT(again.err == SW_OK);
        SW_ASSERT(again.type == c.type);
        for (size_t i = 0; i < a.len; i++) {
            SW_ASSERT(once[i] >= 0x20 && once[i] <= 0x7e);
        }
        SW_ASSERT(sw_json_compact(sw_out_done(&a), &b));
        SW_ASSERT(sw_slice_eq(sw_out_done(&a), sw_out_done(&b)));
        visit(text, 1);
    } else {
        /* Not allowed, but it must not read outside. */
        (void)!sw_json_compact(text, &a);
    }
    free(in);
    free(once);
    free(twice);
    return 0;
}
