/* config/errors.c - complaints: collected, sorted by place, safe to print. */
#include "config/config_priv.h"

#include <stdarg.h>

#define MEMORY_BYTES ((size_t)SW_CONFIG_ERRORS_MAX * SW_CONFIG_ERROR_BYTES_MAX)

void sw_config__error(struct sw_config_errors *e, uint32_t line, uint32_t column, const char *fmt,
                      ...)
{
    char buf[SW_CONFIG_ERROR_BYTES_MAX];
    size_t len;
    va_list ap;
    char *at;
    int n;

    if (e->count >= SW_CONFIG_ERRORS_MAX) {
        e->count++;
        return;
    }
    va_start(ap, fmt);
    n = vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    SW_ASSERT(n >= 0);
    len = SW_MIN((size_t)n, sizeof(buf) - 1);
    /* The file's own bytes are in there: nothing may move the reader's cursor. */
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)buf[i] < 0x20 || buf[i] == 0x7f) {
            buf[i] = ' ';
        }
    }
    if (e->memory == NULL) {
        e->memory = malloc(MEMORY_BYTES);
    }
    if (e->memory == NULL) {
        e->list[e->count++] = (struct sw_config_error){line, column, SW_S("no memory")};
        return;
    }
    SW_ASSERT(len <= MEMORY_BYTES - e->memory_used);
    at = (char *)e->memory + e->memory_used;
    memcpy(at, buf, len);
    e->memory_used += len;
    e->list[e->count++] = (struct sw_config_error){line, column, sw_slice_of(at, len)};
}

void sw_config_errors_fini(struct sw_config_errors *errors)
{
    free(errors->memory);
    *errors = (struct sw_config_errors){0};
}

static bool before(const struct sw_config_error *a, const struct sw_config_error *b)
{
    return a->line != b->line ? a->line < b->line : a->column < b->column;
}

/* Stable: two complaints about one place stay in the order they were found. */
void sw_config__errors_sort(struct sw_config_errors *e)
{
    size_t count = SW_MIN(e->count, (size_t)SW_CONFIG_ERRORS_MAX);

    for (size_t i = 1; i < count; i++) {
        struct sw_config_error it = e->list[i];
        size_t at = i;

        while (at > 0 && before(&it, &e->list[at - 1])) {
            e->list[at] = e->list[at - 1];
            at--;
        }
        e->list[at] = it;
    }
}

struct sw_slice sw_config__short(struct sw_slice s)
{
    size_t len = 60;

    if (s.len <= len) {
        return s;
    }
    while (len > 0 && ((unsigned char)s.ptr[len] & 0xc0) == 0x80) {
        len--; /* not inside a UTF-8 character */
    }
    return sw_slice_head(s, len);
}

struct sw_slice sw_config__said(const struct sw_node *n)
{
    return sw_config__short(n->secret ? n->raw : n->text);
}

static char fold(char c)
{
    if (c == '_') {
        return '-';
    }
    return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

/* Optimal string alignment: Levenshtein, and two neighbours swapped count as one slip. */
unsigned sw_config__distance(struct sw_slice a, struct sw_slice b, unsigned max)
{
    enum { LEN_MAX = 64 };
    unsigned rows[3][LEN_MAX + 1];
    unsigned *two = rows[0], *one = rows[1], *now = rows[2], *spare;

    if (a.len > LEN_MAX || b.len > LEN_MAX || a.len > b.len + max || b.len > a.len + max) {
        return max + 1;
    }
    for (size_t j = 0; j <= b.len; j++) {
        one[j] = (unsigned)j;
    }
    for (size_t i = 1; i <= a.len; i++) {
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= b.len; j++) {
            unsigned change = fold(a.ptr[i - 1]) == fold(b.ptr[j - 1]) ? 0 : 1;
            unsigned best = SW_MIN(one[j], now[j - 1]) + 1;

            best = SW_MIN(best, one[j - 1] + change);
            if (i > 1 && j > 1 && fold(a.ptr[i - 1]) == fold(b.ptr[j - 2]) &&
                fold(a.ptr[i - 2]) == fold(b.ptr[j - 1])) {
                best = SW_MIN(best, two[j - 2] + 1);
            }
            now[j] = best;
        }
        spare = two;
        two = one;
        one = now;
        now = spare;
    }
    return SW_MIN(one[b.len], max + 1);
}

unsigned sw_config__slip(struct sw_slice word)
{
    if (word.len <= 2) {
        return 1;
    }
    return word.len <= 5 ? 2 : 3;
}
