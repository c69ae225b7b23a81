/* base/log.c - see log.h. */
#include "base/log.h"

#include "base/json.h"

#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX 2048

/* Set once before threads start, then only read. */
static struct {
    int fd;
    enum sw_log_level level;
    bool json;
    const char *tag;
} logger = {STDERR_FILENO, SW_LOG_INFO, false, "stateway"};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void sw_log_setup(int fd, enum sw_log_level level, bool json, const char *tag)
{
    SW_ASSERT(fd >= 0);
    SW_ASSERT(tag != NULL);
    logger.fd = fd;
    logger.level = level;
    logger.json = json;
    logger.tag = tag;
}

enum sw_log_level sw_log_level(void)
{
    return logger.level;
}

void sw_log(enum sw_log_level level, const char *fmt, ...)
{
    char text[LINE_BYTES_MAX], line[LINE_BYTES_MAX + 256], when[32];
    struct sw_out out = sw_out_init(line, sizeof(line) - 1);
    struct timespec ts;
    struct tm tm;
    va_list ap;
    ssize_t ignored;
    int n;

    if (level > logger.level) {
        return;
    }
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    SW_ASSERT(n >= 0);
    n = (int)SW_MIN((size_t)n, sizeof(text) - 1);
    for (int i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            text[i] = ' '; /* a peer's bytes must not forge a line */
        }
    }
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
    if (logger.json) {
        sw_out_printf(&out,
                      "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"from\":\"%s\",\"text\":", when,
                      ts.tv_nsec / 1000000, level_names[level], logger.tag);
        sw_json_quote(&out, sw_slice_of(text, (size_t)n));
        sw_out_lit(&out, "}");
    } else {
        sw_out_printf(&out, "%s.%03ldZ %-5s %s: %.*s", when, ts.tv_nsec / 1000000,
                      level_names[level], logger.tag, n, text);
    }
    line[out.len] = '\n'; /* one byte is kept free for it */
    ignored = write(logger.fd, line, out.len + 1);
    (void)ignored;
}
