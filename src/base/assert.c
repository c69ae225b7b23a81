/* base/assert.c - what a failed assertion leaves behind. */
#include "base/base.h"

#include <unistd.h>

static struct {
    sw_panic_fn *fn;
    void *arg;
} panics[SW_PANIC_MAX]; /* filled at start, before threads; read once, at the end */
static size_t panic_count;

void sw_panic_add(sw_panic_fn *fn, void *arg)
{
    SW_ASSERT(fn != NULL);
    SW_ASSERT(panic_count < SW_PANIC_MAX);
    panics[panic_count].fn = fn;
    panics[panic_count].arg = arg;
    panic_count++;
}

void sw_assert_failed(const char *cond, const char *file, int line, const char *func)
{
    char text[512];
    int n = snprintf(text, sizeof(text), "stateway: assertion failed: %s, in %s (%s:%d)\n", cond,
                     func, file, line);

    if (n > 0) {
        ssize_t ignored = write(STDERR_FILENO, text, SW_MIN((size_t)n, sizeof(text) - 1));
        (void)ignored;
    }
    for (size_t i = 0; i < panic_count; i++) {
        panics[i].fn(panics[i].arg, STDERR_FILENO);
    }
    abort();
}
