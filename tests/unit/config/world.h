/* The environment and the files of the tests: no test depends on where it runs. */
#ifndef TEST_CONFIG_WORLD_H
#define TEST_CONFIG_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/config_priv.h"

static const char *world_env(void *arg, const char *name)
{
    (void)arg;
    if (strcmp(name, "ADMIN_TOKEN") == 0) {
        return "correct-horse";
    }
    if (strcmp(name, "N") == 0) {
        return "7";
    }
    if (strcmp(name, "DOLLAR") == 0) {
        return "${N}$$";
    }
    return strcmp(name, "EMPTY") == 0 ? "" : NULL;
}

static enum sw_err world_file(void *arg, const char *path, char *buf, size_t cap, size_t *ret_len)
{
    (void)arg;
    if (strcmp(path, "large.txt") == 0) {
        return SW_E_LIMIT;
    }
    if (strcmp(path, "max.txt") == 0) {
        memset(buf, 'x', cap - 1);
        *ret_len = cap - 1;
        return SW_OK;
    }
    if (strcmp(path, "nul.txt") == 0) {
        memcpy(buf, "a\0b", 3);
        *ret_len = 3;
        return SW_OK;
    }
    if (strcmp(path, "secret.txt") == 0) {
        memcpy(buf, "hunter22\r\n", 10);
        *ret_len = 10;
        return SW_OK;
    }
    return SW_E_NOT_FOUND;
}

static const struct sw_config_world world = {world_env, world_file, NULL, false};

static inline enum sw_err parse(struct sw_slice text, const struct sw_config_override *override,
                                struct sw_config **ret_config, struct sw_config_errors *errors)
{
    enum sw_err err;
    char *exact = malloc(text.len > 0 ? text.len : 1); /* the sanitizer sees a byte too many */

    assert_non_null(exact);
    if (text.len > 0) {
        memcpy(exact, text.ptr, text.len);
    }
    err = sw_config__parse(sw_slice_of(exact, text.len), SW_S("t.yaml"), override, &world,
                           ret_config, errors);
    free(exact);
    return err;
}

static inline void print_errors(const struct sw_config_errors *e)
{
    for (size_t i = 0; i < e->count && i < SW_CONFIG_ERRORS_MAX; i++) {
        print_message("  t.yaml:%u:%u: %.*s\n", e->list[i].line, e->list[i].column,
                      SW_SARG(e->list[i].text));
    }
}

#endif
