/* config/units.c - durations, sizes, percents: a whole number and one unit, nothing else. */
#include "config/config_priv.h"

struct unit {
    const char *text;
    uint64_t factor;
};

static const struct unit durations[] = {
    {"ms", SW_NS_PER_MS},      {"s", SW_NS_PER_S},         {"m", 60 * SW_NS_PER_S},
    {"h", 3600 * SW_NS_PER_S}, {"d", 86400 * SW_NS_PER_S},
};

static const struct unit sizes[] = {
    {"", 1}, {"B", 1}, {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30},
};

/* The number in front, and what follows it. */
static const char *split(struct sw_slice s, uint64_t *ret_value, struct sw_slice *ret_unit)
{
    size_t digits = 0;

    while (digits < s.len && s.ptr[digits] >= '0' && s.ptr[digits] <= '9') {
        digits++;
    }
    if (digits == 0) {
        return "a whole number comes first";
    }
    if (!sw_slice_u64(sw_slice_head(s, digits), ret_value)) {
        return "the number is too large";
    }
    *ret_unit = sw_slice_tail(s, digits);
    return NULL;
}

const char *sw_units__duration(struct sw_slice s, uint64_t *ret_ns)
{
    struct sw_slice unit;
    uint64_t value;
    const char *why = split(s, &value, &unit);

    if (why != NULL) {
        return why;
    }
    for (size_t i = 0; i < SW_COUNTOF(durations); i++) {
        if (sw_slice_eq(unit, sw_slice_cstr(durations[i].text))) {
            uint64_t ns;

            if (__builtin_mul_overflow(value, durations[i].factor, &ns) || ns > INT64_MAX) {
                return "the number is too large";
            }
            *ret_ns = ns;
            return NULL;
        }
    }
    if (unit.len == 0) {
        return "the unit is missing";
    }
    return unit.ptr[0] == '.' ? "write a whole number of a smaller unit"
                              : "there is one unit: ms, s, m, h or d";
}

const char *sw_units__size(struct sw_slice s, uint64_t *ret_bytes)
{
    struct sw_slice unit;
    uint64_t value;
    const char *why = split(s, &value, &unit);

    if (why != NULL) {
        return why;
    }
    for (size_t i = 0; i < SW_COUNTOF(sizes); i++) {
        if (sw_slice_eq(unit, sw_slice_cstr(sizes[i].text))) {
            uint64_t bytes;

            if (__builtin_mul_overflow(value, sizes[i].factor, &bytes) || bytes > INT64_MAX) {
                return "the number is too large";
            }
            *ret_bytes = bytes;
            return NULL;
        }
    }
    return "the units are KiB, MiB and GiB (powers of 1024), or none for bytes";
}

const char *sw_units__percent(struct sw_slice s, uint64_t *ret_percent)
{
    uint64_t value;

    if (s.len == 0 || s.ptr[s.len - 1] != '%') {
        return "the percent sign is missing";
    }
    s.len--;
    if (!sw_slice_u64(s, &value)) {
        return "a whole number stands before the sign";
    }
    *ret_percent = value;
    return NULL;
}

const char *sw_units__count(struct sw_slice s, uint64_t *ret_count)
{
    return sw_slice_u64(s, ret_count) ? NULL : "digits only";
}

static const char *spell(uint64_t value, const struct unit *units, size_t count,
                         char buf[SW_UNITS_TEXT_MAX])
{
    size_t best = 0;

    for (size_t i = 0; i < count; i++) {
        if (value > 0 && value % units[i].factor == 0) {
            best = i;
        }
    }
    (void)snprintf(buf, SW_UNITS_TEXT_MAX, "%llu%s",
                   (unsigned long long)(value / units[best].factor), units[best].text);
    return buf;
}

const char *sw_units__duration_text(uint64_t ns, char buf[SW_UNITS_TEXT_MAX])
{
    return spell(ns, durations, SW_COUNTOF(durations), buf);
}

const char *sw_units__size_text(uint64_t bytes, char buf[SW_UNITS_TEXT_MAX])
{
    return spell(bytes, sizes, SW_COUNTOF(sizes), buf);
}
