/* base/err.h - every cause of failure, from one table (errors.def). */
#ifndef SW_ERR_H
#define SW_ERR_H

#include "base/log.h"

enum sw_err {
#define SW_ERR(name, status, level, label, text) SW_E_##name,
#include "base/errors.def"
#undef SW_ERR
    SW_E_COUNT,
    SW_OK = 0, /* the table's first row is OK */
};

/* "SW_E_CHUNK_SIZE" */
const char *sw_err_name(enum sw_err err);
/* HTTP status the client gets when an exchange ends by it; 0: the connection is closed. */
unsigned sw_err_status(enum sw_err err);
enum sw_log_level sw_err_level(enum sw_err err);
/* "chunk-size": the value of the metric label, of Stateway-Error and of the access log. */
const char *sw_err_label(enum sw_err err);
/* One sentence for people. */
const char *sw_err_text(enum sw_err err);

#endif
