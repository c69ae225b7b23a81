/* base/log.h - lines for people, on one file descriptor.
 *
 * Used by gateway/, admin/, super/ and cli/ only: rooms below return errors and do not log.
 * Each line leaves in one write, so lines of threads and processes do not mix. No ids, no secrets.
 */
#ifndef SW_LOG_H
#define SW_LOG_H

#include "base/base.h"

enum sw_log_level { SW_LOG_ERROR, SW_LOG_WARN, SW_LOG_INFO, SW_LOG_DEBUG };

/* At start, before threads. fd is borrowed. tag: "supervisor", "gateway"; json: one object a line.
 */
void sw_log_setup(int fd, enum sw_log_level level, bool json, const char *tag);
enum sw_log_level sw_log_level(void);
/* A full pipe drops the line rather than stop a worker. */
void sw_log(enum sw_log_level level, const char *fmt, ...) SW_PRINTF(2, 3);

#endif
