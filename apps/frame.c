/* apps/frame.c - options, listener, threads and the clean end of an example app (frame.h). */
#include "frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define STACK_BYTES   (size_t)(256 * 1024)
#define HEAD_BYTES    (size_t)(64 * 1024) /* heads of a request and its answer together */
#define IDLE_S        120u                /* longer than a gateway keeps an idle connection */
#define STOP_LIMIT_S  25                  /* a request that hangs must not keep the app for ever */
#define GRACE_NS      50000000L
#define COUNTOF(list) (sizeof(list) / sizeof((list)[0]))

/* The running app: what the connection threads share with main(). */
struct frame {
    app_fn *fn;
    void *context;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    size_t in_flight;
    bool stopping;
};

/* A request while its body arrives. */
struct call {
    struct frame *frame;
    size_t body_bytes;
    bool body_too_large;
    char body[APP_BODY_BYTES_MAX + 1];
};

void *app_need(void *memory)
{
    if (memory == NULL) {
        fputs("out of memory\n", stderr);
        abort();
    }
    return memory;
}

char *app_format(const char *format, ...)
{
    va_list arguments;
    char *text = NULL;

    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0) {
        text = NULL;
    }
    va_end(arguments);
    return app_need(text);
}

/* ---- options ---- */

static bool port_read(const char *text, unsigned *ret_port)
{
    char *end = NULL;
    unsigned long port;

    errno = 0;
    port = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || port > 65535) {
        return false;
    }
    *ret_port = (unsigned)port;
    return true;
}

bool app_options_init(struct app_options *options, const char *name, unsigned port_default)
{
    const char *port = getenv("PORT");

    *options = (struct app_options){.name = name, .port = port_default};
    if (port != NULL && port[0] != '\0' && !port_read(port, &options->port)) {
        fprintf(stderr, "%s: PORT is \"%s\", which is not a port number\n", name, port);
        return false;
    }
    return true;
}

int app_options_take(struct app_options *options, int argc, char **argv, int at)
{
    bool is_port = strcmp(argv[at], "--port") == 0;

    if (!is_port && strcmp(argv[at], "--socket") != 0) {
        return 0;
    }
    if (at + 1 >= argc) {
        fprintf(stderr, "%s: %s needs a value\n", options->name, argv[at]);
        return -1;
    }
    if (!is_port) {
        options->socket_path = argv[at + 1];
        return 2;
    }
    if (!port_read(argv[at + 1], &options->port)) {
        fprintf(stderr, "%s: \"%s\" is not a port number\n", options->name, argv[at + 1]);
        return -1;
    }
    return 2;
}

/* ---- the listener ---- */

static int listen_tcp(const struct app_options *options)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof(address);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)options->port);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, SOMAXCONN) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        fprintf(stderr, "%s: 127.0.0.1:%u: %s\n", options->name, options->port, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    fprintf(stderr, "%s: listening on http://127.0.0.1:%u\n", options->name,
            (unsigned)ntohs(address.sin_port));
    return fd;
}

static int listen_unix(const struct app_options *options)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat there;
    int fd;

    if (strlen(options->socket_path) >= sizeof(address.sun_path)) {
        fprintf(stderr, "%s: socket path is longer than %zu bytes\n", options->name,
                sizeof(address.sun_path) - 1);
        return -1;
    }
    /* What a killed process left behind goes; a file that is no socket is somebody's data. */
    if (lstat(options->socket_path, &there) == 0 && S_ISSOCK(there.st_mode)) {
        unlink(options->socket_path);
    }
    memcpy(address.sun_path, options->socket_path, strlen(options->socket_path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(fd, SOMAXCONN) != 0) {
        fprintf(stderr, "%s: %s: %s\n", options->name, options->socket_path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    fprintf(stderr, "%s: listening on unix:%s\n", options->name, options->socket_path);
    return fd;
}

/* ---- requests and answers ---- */

const char *app_header(const struct app_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

const char *app_query(const struct app_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

bool app_query_has(const struct app_request *request, const char *name)
{
    const char *value = NULL;
    size_t bytes = 0;

    return MHD_lookup_connection_value_n(request->connection, MHD_GET_ARGUMENT_KIND, name,
                                         strlen(name), &value, &bytes) == MHD_YES;
}

bool app_cookie(const struct app_request *request, const char *name, char *ret_value, size_t bytes)
{
    const char *value = MHD_lookup_connection_value(request->connection, MHD_COOKIE_KIND, name);

    if (value == NULL || strlen(value) >= bytes) {
        return false;
    }
    memcpy(ret_value, value, strlen(value) + 1);
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One form value: + is a space, %XX a byte; NUL and broken escapes are refused. */
static bool form_decode(const char *from, size_t from_bytes, char *ret_value, size_t bytes)
{
    size_t out = 0;

    for (size_t i = 0; i < from_bytes; i++) {
        char c = from[i];

        if (c == '+') {
            c = ' ';
        } else if (c == '%') {
            int high = i + 2 < from_bytes ? hex_value(from[i + 1]) : -1;
            int low = high >= 0 ? hex_value(from[i + 2]) : -1;

            if (low < 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (c == '\0' || out + 1 >= bytes) {
            return false;
        }
        ret_value[out++] = c;
    }
    ret_value[out] = '\0';
    return true;
}

bool app_form(const struct app_request *request, const char *name, char *ret_value, size_t bytes)
{
    const char *at = request->body;
    size_t name_bytes = strlen(name);

    while (*at != '\0') {
        size_t pair_bytes = strcspn(at, "&");

        if (pair_bytes > name_bytes && at[name_bytes] == '=' && memcmp(at, name, name_bytes) == 0) {
            return form_decode(at + name_bytes + 1, pair_bytes - name_bytes - 1, ret_value, bytes);
        }
        at += pair_bytes;
        at += *at == '&';
    }
    return false;
}

enum app_handed app_handed(const struct app_request *request, const char **ret_json)
{
    const char *info = app_header(request, "Stateway-State-Info");
    const char *state = app_header(request, "Stateway-State");

    if (info == NULL) {
        return APP_HANDED_NOTHING;
    }
    if (strncmp(info, "ref", 3) == 0) {
        return APP_HANDED_REF;
    }
    if (state == NULL) {
        return APP_HANDED_ABSENT;
    }
    *ret_json = state;
    return APP_HANDED_STATE;
}

void app_answer_header(struct app_answer *answer, const char *name, const char *value)
{
    if (answer->header_count >= COUNTOF(answer->headers)) {
        abort(); /* ours to get right: no answer of an app has as many */
    }
    answer->headers[answer->header_count].name = name;
    answer->headers[answer->header_count].value = app_need(strdup(value));
    answer->header_count++;
}

void app_answer_text(struct app_answer *answer, unsigned status, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&answer->body_owned, format, arguments) < 0) {
        answer->body_owned = app_need(NULL);
    }
    va_end(arguments);
    answer->body_bytes = strlen(answer->body_owned);
    answer->status = status;
    answer->type = "text/plain; charset=utf-8";
}

const char *app_instance(const struct app_request *request)
{
    const char *name = getenv("STATEWAY_INSTANCE");

    if (name == NULL || name[0] == '\0') {
        name = app_header(request, "Stateway-Instance");
    }
    return name != NULL ? name : "local";
}

static enum MHD_Result answer_send(struct frame *frame, struct MHD_Connection *connection,
                                   struct app_answer *answer)
{
    struct MHD_Response *response;
    enum MHD_Result result = MHD_YES;
    bool stopping;

    /* libmicrohttpd frees an owned body itself, but wants a pointer that is not const for both. */
    if (answer->body_owned != NULL) {
        response = MHD_create_response_from_buffer(answer->body_bytes, answer->body_owned,
                                                   MHD_RESPMEM_MUST_FREE);
    } else {
        response = MHD_create_response_from_buffer(
            answer->body_bytes, (void *)(uintptr_t)answer->body_shared, MHD_RESPMEM_PERSISTENT);
    }
    app_need(response);
    pthread_mutex_lock(&frame->lock);
    stopping = frame->stopping;
    pthread_mutex_unlock(&frame->lock);
    if (stopping) { /* so that the peer opens its next connection to somebody else */
        result = MHD_add_response_header(response, "Connection", "close");
    }
    if (result == MHD_YES && answer->type != NULL) {
        result = MHD_add_response_header(response, "Content-Type", answer->type);
    }
    for (size_t i = 0; i < answer->header_count; i++) {
        if (result == MHD_YES) {
            result = MHD_add_response_header(response, answer->headers[i].name,
                                             answer->headers[i].value);
        }
        free(answer->headers[i].value);
    }
    if (result == MHD_YES) {
        result = MHD_queue_response(connection, answer->status, response);
    }
    MHD_destroy_response(response);
    return result; /* MHD_NO closes the connection: better no answer than one without its update */
}

/* libmicrohttpd calls this once with the head, once for each piece of body, and once at the end. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **ret_call)
{
    struct frame *frame = context;
    struct call *call = *ret_call;
    struct app_request request = {.connection = connection, .method = method, .path = url};
    struct app_answer answer = {.status = 0};

    (void)version;
    if (call == NULL) {
        call = app_need(calloc(1, sizeof(*call)));
        call->frame = frame;
        *ret_call = call;
        pthread_mutex_lock(&frame->lock);
        frame->in_flight++;
        pthread_mutex_unlock(&frame->lock);
        return MHD_YES;
    }
    if (*upload_bytes > 0) {
        if (call->body_too_large || *upload_bytes > APP_BODY_BYTES_MAX - call->body_bytes) {
            call->body_too_large = true; /* read on and forget, so that the answer can be read */
            call->body_bytes = 0;
            call->body[0] = '\0';
        } else {
            memcpy(call->body + call->body_bytes, upload, *upload_bytes);
            call->body_bytes += *upload_bytes;
            call->body[call->body_bytes] = '\0';
        }
        *upload_bytes = 0;
        return MHD_YES;
    }
    if (strcmp(method, "HEAD") == 0) {
        request.method = "GET";
    }
    request.body = call->body;
    request.body_bytes = call->body_bytes;
    request.body_too_large = call->body_too_large;
    frame->fn(frame->context, &request, &answer);
    return answer_send(frame, connection, &answer);
}

/* The answer is with the kernel, or the client is gone. */
static void on_completed(void *context, struct MHD_Connection *connection, void **call,
                         enum MHD_RequestTerminationCode code)
{
    struct frame *frame = context;

    (void)connection;
    (void)code;
    if (*call == NULL) {
        return; /* closed before a head had come */
    }
    free(*call);
    *call = NULL;
    pthread_mutex_lock(&frame->lock);
    frame->in_flight--;
    if (frame->in_flight == 0) {
        pthread_cond_signal(&frame->idle);
    }
    pthread_mutex_unlock(&frame->lock);
}

/* ---- the life of the program ---- */

static void wait_for_signal(const sigset_t *signals)
{
    int number = 0;

    while (sigwait(signals, &number) != 0) {
    }
}

/* First no new connections, then the running requests to their end, then the rest. */
static void finish(struct frame *frame, struct MHD_Daemon *daemon)
{
    struct timespec grace = {.tv_nsec = GRACE_NS};
    struct timespec limit;
    MHD_socket fd = MHD_quiesce_daemon(daemon);

    pthread_mutex_lock(&frame->lock);
    frame->stopping = true;
    pthread_mutex_unlock(&frame->lock);
    nanosleep(&grace, NULL); /* what has arrived but is not read yet becomes a running request */
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += STOP_LIMIT_S;
    pthread_mutex_lock(&frame->lock);
    while (frame->in_flight > 0 &&
           pthread_cond_timedwait(&frame->idle, &frame->lock, &limit) != ETIMEDOUT) {
    }
    pthread_mutex_unlock(&frame->lock);
    if (fd != MHD_INVALID_SOCKET) {
        close(fd);
    }
    MHD_stop_daemon(daemon);
}

int app_serve(const struct app_options *options, app_fn *fn, void *context)
{
    struct frame frame = {.fn = fn, .context = context};
    struct stat bound = {.st_ino = 0};
    struct stat there;
    struct MHD_Daemon *daemon;
    sigset_t signals;
    int fd;

    /* Blocked before the first thread is made, so that main() is the one that gets them. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    pthread_mutex_init(&frame.lock, NULL);
    pthread_cond_init(&frame.idle, NULL);

    fd = options->socket_path != NULL ? listen_unix(options) : listen_tcp(options);
    if (fd < 0) {
        return EXIT_FAILURE;
    }
    if (options->socket_path != NULL && lstat(options->socket_path, &bound) != 0) {
        bound.st_ino = 0;
    }
    daemon =
        MHD_start_daemon(MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_THREAD_PER_CONNECTION |
                             MHD_USE_ITC | MHD_USE_ERROR_LOG,
                         0, NULL, NULL, on_request, &frame, MHD_OPTION_LISTEN_SOCKET, fd,
                         MHD_OPTION_NOTIFY_COMPLETED, on_completed, &frame,
                         MHD_OPTION_CONNECTION_LIMIT, APP_CONNECTIONS_MAX,
                         MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                         HEAD_BYTES, MHD_OPTION_THREAD_STACK_SIZE, STACK_BYTES, MHD_OPTION_END);
    if (daemon == NULL) {
        fprintf(stderr, "%s: the server could not be started: %s\n", options->name,
                strerror(errno));
        close(fd);
        return EXIT_FAILURE;
    }
    wait_for_signal(&signals);
    finish(&frame, daemon);
    /* Only our own socket: a successor may already listen under the same name. */
    if (bound.st_ino != 0 && lstat(options->socket_path, &there) == 0 &&
        there.st_ino == bound.st_ino && there.st_dev == bound.st_dev) {
        unlink(options->socket_path);
    }
    pthread_cond_destroy(&frame.idle);
    pthread_mutex_destroy(&frame.lock);
    return EXIT_SUCCESS;
}
