/* base/err.c - lookups into the one table of failures. */
#include "base/err.h"

static const struct {
    const char *name, *label, *text;
    uint16_t status;
    uint8_t level;
} errors[SW_E_COUNT] = {
#define SW_ERR(n, s, l, lab, t)                                                                    \
    [SW_E_##n] = {.name = "SW_E_" #n, .label = lab, .text = t, .status = s, .level = SW_LOG_##l},
#include "base/errors.def"
#undef SW_ERR
};

const char *sw_err_name(enum sw_err err)
{
    SW_ASSERT(err < SW_E_COUNT);
    return err == SW_OK ? "SW_OK" : errors[err].name;
}

unsigned sw_err_status(enum sw_err err)
{
    SW_ASSERT(err < SW_E_COUNT);
    return errors[err].status;
}

enum sw_log_level sw_err_level(enum sw_err err)
{
    SW_ASSERT(err < SW_E_COUNT);
    return errors[err].level;
}

const char *sw_err_label(enum sw_err err)
{
    SW_ASSERT(err < SW_E_COUNT);
    return errors[err].label;
}

const char *sw_err_text(enum sw_err err)
{
    SW_ASSERT(err < SW_E_COUNT);
    return errors[err].text;
}
