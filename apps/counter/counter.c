/* apps/counter/counter.c - the smallest app with a state: it counts.
 *
 *     ANY  /         adds one and answers the new number, as text
 *     GET  /read     answers the number and changes nothing
 *     GET  /healthz  answers ok
 *
 * The number is in the memory of this process, one for everybody; unless the gateway hands a state
 * over. Then it is the visitor's own number, {"n":N}, and the answer carries the new one back: the
 * few lines in count_handed() are all an app needs to be stateless.
 */
#include "../frame.h"

#include <jansson.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct counter {
    atomic_llong n;
};

static void count_handed(struct app_answer *answer, const char *text, bool add)
{
    json_error_t error;
    json_t *state = json_loads(text, 0, &error);
    json_t *n = json_object_get(state, "n");
    long long count = (long long)json_integer_value(n);

    if (!json_is_integer(n) || count == LLONG_MAX) {
        /* An update now would destroy what somebody else has written there. */
        app_answer_text(answer, 500, "the state handed over is not a counter's\n");
    } else if (add) {
        char update[64];

        snprintf(update, sizeof(update), "{\"n\":%lld}", count + 1);
        app_answer_text(answer, 200, "%lld\n", count + 1);
        app_answer_header(answer, "Stateway-Set", update);
    } else {
        app_answer_text(answer, 200, "%lld\n", count);
    }
    json_decref(state);
}

static void count_in_memory(struct counter *counter, struct app_answer *answer, bool add)
{
    app_answer_text(answer, 200, "%lld\n",
                    add ? atomic_fetch_add(&counter->n, 1) + 1 : atomic_load(&counter->n));
}

static void count(void *context, const struct app_request *request, struct app_answer *answer)
{
    bool add = strcmp(request->path, "/") == 0;
    const char *state = "{\"n\":0}"; /* what a new visitor has */

    if (strcmp(request->path, "/healthz") == 0) {
        app_answer_text(answer, 200, "ok\n");
    } else if (!add && strcmp(request->path, "/read") != 0) {
        app_answer_text(answer, 404, "there is /, /read and /healthz\n");
    } else if (!add && strcmp(request->method, "GET") != 0) {
        app_answer_text(answer, 405, "/read is for GET\n");
        app_answer_header(answer, "Allow", "GET, HEAD");
    } else {
        switch (app_handed(request, &state)) {
        case APP_HANDED_NOTHING:
            count_in_memory(context, answer, add);
            break;
        case APP_HANDED_REF:
            app_answer_text(answer, 500, "the state is too large to be a counter's\n");
            break;
        case APP_HANDED_ABSENT:
        case APP_HANDED_STATE:
            count_handed(answer, state, add);
            break;
        }
    }
    app_answer_header(answer, "Cache-Control", "no-store");
}

int main(int argc, char **argv)
{
    struct counter counter = {.n = 0};
    struct app_options options;

    if (!app_options_init(&options, "counter", 3000)) {
        return EXIT_FAILURE;
    }
    for (int i = 1; i < argc;) {
        int used = app_options_take(&options, argc, argv, i);

        if (used <= 0) {
            fputs("usage: counter [--port N | --socket PATH]   (or PORT in the environment)\n",
                  stderr);
            return EXIT_FAILURE;
        }
        i += used;
    }
    return app_serve(&options, count, &counter);
}
