/* test_http.h - includes of the tests of http/, and the limits they share. */
#ifndef TEST_HTTP_H
#define TEST_HTTP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../guard.h"
#include "http/http.h"

#define FIELDS_MAX 16

static const struct sw_h1_limits test_limits = {.head_bytes_max = 1024, .target_bytes_max = 128};

/* Parses with the input cut in two at `cut`; drip: then byte by byte. */
#define TEST_CUT_ALL SIZE_MAX

static inline struct sw_parsed test_parse(struct guard *g, struct sw_slice in, size_t cut,
                                          bool drip, bool response, enum sw_method method,
                                          struct sw_head *head, struct sw_field *fields)
{
    struct sw_parsed step = {.step = SW_STEP_MORE};
    size_t scanned = 0;

    for (size_t len = SW_MIN(cut, in.len);; len = drip ? len + 1 : in.len) {
        struct sw_slice input = guard_put(g, sw_slice_head(in, len));

        *head = (struct sw_head){.fields = fields, .field_max = FIELDS_MAX};
        step = response ? sw_h1_response(input, &scanned, &test_limits, method, head)
                        : sw_h1_request(input, &scanned, &test_limits, head);
        if (step.step != SW_STEP_MORE || len >= in.len) {
            return step;
        }
    }
}

#define assert_slice(a, b)                                                                         \
    do {                                                                                           \
        struct sw_slice slice_a_ = (a), slice_b_ = (b);                                            \
        if (!sw_slice_eq(slice_a_, slice_b_)) {                                                    \
            fail_msg("\"%.*s\" is not \"%.*s\"", SW_SARG(slice_a_), SW_SARG(slice_b_));            \
        }                                                                                          \
    } while (0)

#endif
