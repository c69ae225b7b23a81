/* apps/frame.h - what the example apps share: options, a listener, threads, and a clean end.
 *
 * An example app is one function, app_fn: a whole request in, a whole answer out. This file turns
 * that into a program: it reads PORT or the flags, serves HTTP with libmicrohttpd, one thread a
 * connection, and at SIGTERM or SIGINT finishes the requests that are running before it ends.
 *
 * Two functions here know of stateway, app_handed() and app_instance(): they read two headers and
 * an environment variable. An app in another language needs no more than that either; see
 * examples/.
 */
#ifndef APPS_FRAME_H
#define APPS_FRAME_H

#include <stdbool.h>
#include <stddef.h>

#define APP_BODY_BYTES_MAX  8192u
#define APP_HEADERS_MAX     8u
#define APP_CONNECTIONS_MAX 2000u

struct MHD_Connection;

/* One whole request. Everything in it is borrowed, and valid until the app has answered. */
struct app_request {
    struct MHD_Connection *connection;
    const char *method; /* HEAD is shown as GET: the frame leaves the body out of the answer */
    const char *path;   /* decoded, without the query */
    const char *body;   /* NUL-terminated */
    size_t body_bytes;
    bool body_too_large; /* more than APP_BODY_BYTES_MAX came; body is empty then */
};

/* One whole answer, zeroed when the app gets it. The body is the app's by default (body_shared) or
 * handed over to be freed (body_owned). */
struct app_answer {
    unsigned status;
    const char *type;
    char *body_owned;
    const char *body_shared;
    size_t body_bytes;
    size_t header_count;
    struct {
        const char *name;
        char *value;
    } headers[APP_HEADERS_MAX];
};

/* Called by many threads at once; may block. */
typedef void app_fn(void *context, const struct app_request *request, struct app_answer *answer);

struct app_options {
    const char *name; /* for messages */
    const char *socket_path;
    unsigned port; /* on 127.0.0.1; 0: any free one. Not used when socket_path is set */
};

/* Read PORT; app_options_take() then takes --port N and --socket PATH out of the arguments.
 *
 * app_options_take answers how many arguments it used at `at`: 0 for one that is not its own, and
 * -1 (after a message) for one that is wrong.
 */
bool app_options_init(struct app_options *options, const char *name, unsigned port_default);
int app_options_take(struct app_options *options, int argc, char **argv, int at);

/* Serve until SIGTERM or SIGINT. The answer is the exit code of the program. Blocks the two signals
 * for all threads started later, so it belongs in main(). */
int app_serve(const struct app_options *options, app_fn *fn, void *context);

const char *app_header(const struct app_request *request, const char *name);
const char *app_query(const struct app_request *request, const char *name);
bool app_query_has(const struct app_request *request, const char *name);

/* Copy a cookie's value. False when there is none, or it does not fit in `bytes` with its NUL. */
bool app_cookie(const struct app_request *request, const char *name, char *ret_value, size_t bytes);

/* Copy a form field of an application/x-www-form-urlencoded body, decoded; the same answer. */
bool app_form(const struct app_request *request, const char *name, char *ret_value, size_t bytes);

/* What the gateway handed over with this request.
 *
 * APP_HANDED_STATE    *ret_json is the state, as JSON.
 * APP_HANDED_ABSENT   The gateway keeps state for this visitor, and there is none yet.
 * APP_HANDED_REF      There is a state, too large for a header. It is behind Stateway-Ref, which
 *                     these apps have no need to read; taking it for absent would destroy it.
 * APP_HANDED_NOTHING  Nobody keeps state for this app: it has to remember by itself.
 */
enum app_handed { APP_HANDED_NOTHING, APP_HANDED_ABSENT, APP_HANDED_STATE, APP_HANDED_REF };
enum app_handed app_handed(const struct app_request *request, const char **ret_json);

/* Build the answer. `name` must live as long as the program; the value is copied. */
void app_answer_header(struct app_answer *answer, const char *name, const char *value);
void app_answer_text(struct app_answer *answer, unsigned status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Who answers: STATEWAY_INSTANCE, else what the gateway calls us in this request, else "local". */
const char *app_instance(const struct app_request *request);

/* What an app without memory does: it ends, and another is started in its place. */
void *app_need(void *memory);
char *app_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
