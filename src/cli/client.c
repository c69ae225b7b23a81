/* cli/client.c - a small blocking client of the admin API; status, roll, drain, undrain, kill. */
#include "cli/cli_priv.h"

#include "http/http.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <sys/time.h>
#include <unistd.h>

#define ADMIN_DEFAULT      "127.0.0.1:9000"
#define ANSWER_BYTES ((size_t)72 * 1024 * 1024) /* above the largest state; mostly untouched */
#define HEAD_BYTES         ((size_t)64 * 1024)
#define PIECE_BYTES        ((size_t)64 * 1024)
#define FIELDS_MAX         64
#define TIMEOUT_S          10
#define TRANSFER_TIMEOUT_S 60 /* the store may take its time for a batch */

/* ---- where it is ----------------------------------------------------------------------------- */

static bool target_set(struct sw_cli_target *t, const struct sw_cli_args *a, struct sw_slice text)
{
    if (text.len >= sizeof(t->text) || sw_addr_parse(text, true, &t->addr) != SW_OK) {
        (void)sw_cli__usage_error(a->command, "\"%.*s\" is no address: HOST:PORT or unix:PATH",
                                  SW_SARG(text));
        return false;
    }
    snprintf(t->text, sizeof(t->text), "%.*s", SW_SARG(text));
    return true;
}

static void token_set(struct sw_cli_target *t, struct sw_slice token)
{
    snprintf(t->token, sizeof(t->token), "%.*s", SW_SARG(token));
}

int sw_cli__target_find(const struct sw_cli_args *a, struct sw_cli_target *t)
{
    struct sw_slice text = SW_S(ADMIN_DEFAULT);
    const char *from_env = getenv("STATEWAY_ADMIN_TOKEN");
    struct sw_cli_args file_args = {.command = a->command};
    struct sw_loaded l = {.config = NULL};
    int code = SW_EXIT_OK;

    t->token[0] = '\0';
    if (sw_cli__has(a, FLAG_CONFIG)) {
        file_args.values[FLAG_CONFIG] = a->values[FLAG_CONFIG];
        code = sw_cli__load(&file_args, &l);
        if (code != SW_EXIT_OK) {
            return code;
        }
        if (l.config->admin_addr.len > 0) {
            text = l.config->admin_text;
            token_set(t, l.config->admin_token);
        }
    }
    if (sw_cli__has(a, FLAG_ADMIN)) {
        text = sw_slice_cstr(a->values[FLAG_ADMIN]);
    }
    if (sw_cli__has(a, FLAG_TOKEN) || from_env != NULL) {
        token_set(t, sw_slice_cstr(sw_cli__has(a, FLAG_TOKEN) ? a->values[FLAG_TOKEN] : from_env));
    }
    code = target_set(t, a, text) ? SW_EXIT_OK : SW_EXIT_USAGE;
    if (l.config != NULL) {
        sw_cli__loaded_fini(&l);
    }
    return code;
}

/* ---- one exchange ---------------------------------------------------------------------------- */

static int target_connect(const struct sw_cli_target *t, bool transfer)
{
    struct timeval limit = {.tv_sec = transfer ? TRANSFER_TIMEOUT_S : TIMEOUT_S};
    int fd = socket(t->addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
        if (connect(fd, &t->addr.sa, t->addr.len) == 0) {
            return fd;
        }
    }
    fprintf(stderr,
            "stateway: nobody answers on %s: %s; is stateway running, and is this its "
            "admin address? (--admin ADDRESS)\n",
            t->text, strerror(errno));
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

static bool send_all(int fd, struct sw_slice s)
{
    while (s.len > 0) {
        ssize_t n = send(fd, s.ptr, s.len, MSG_NOSIGNAL);

        if (n <= 0) {
            return false;
        }
        s = sw_slice_tail(s, (size_t)n);
    }
    return true;
}

static bool send_head(int fd, const struct sw_cli_target *t, const struct sw_cli_call *call)
{
    char request[4096];
    struct sw_out out = sw_out_init(request, sizeof(request));

    sw_out_printf(&out,
                  "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nStateway-Admin: 1\r\n",
                  call->method, call->path);
    if (call->body != NULL) {
        sw_out_printf(&out, "Content-Type: %s\r\nTransfer-Encoding: chunked\r\n", call->body_type);
    } else if (strcmp(call->method, "GET") != 0) {
        sw_out_lit(&out, "Content-Length: 0\r\n");
    }
    if (t->token[0] != '\0') {
        sw_out_printf(&out, "Authorization: Bearer %s\r\n", t->token);
    }
    sw_out_lit(&out, "\r\n");
    return !out.overflowed && send_all(fd, sw_out_done(&out));
}

/* An answer that comes before the body is sent is a refusal: it is read instead. */
static bool answers_already(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

/* False: the file could not be read. What the other side does not take, its answer will explain. */
static bool send_body(int fd, FILE *body)
{
    char piece[PIECE_BYTES], head[18];
    size_t n;

    while (!answers_already(fd) && (n = fread(piece, 1, sizeof(piece), body)) > 0) {
        if (!send_all(fd, sw_slice_of(head, sw_chunk_head(head, n))) ||
            !send_all(fd, sw_slice_of(piece, n)) || !send_all(fd, SW_S("\r\n"))) {
            return true;
        }
    }
    if (ferror(body)) {
        fprintf(stderr, "stateway: cannot read: %s\n", strerror(errno));
        return false;
    }
    if (feof(body)) {
        (void)send_all(fd, SW_S("0\r\n\r\n"));
    }
    return true;
}

/* What an answer's body goes through. */
struct receiving {
    struct sw_cli_call *call;
    struct sw_body body;
    bool done, stopped;
};

static bool body_piece(struct receiving *x, struct sw_slice data)
{
    struct sw_cli_call *call = x->call;

    if (data.len == 0) {
        return true;
    }
    if (call->sink != NULL && call->status == 200) {
        x->stopped = !call->sink(call->arg, data);
        return !x->stopped;
    }
    if (data.len > ANSWER_BYTES - call->answer.len) {
        return false;
    }
    memcpy(call->block + call->answer.len, data.ptr, data.len);
    call->answer.len += data.len;
    return true;
}

/* False: the framing is broken, or nobody wants more. */
static bool body_bytes(struct receiving *x, struct sw_slice in)
{
    while (!x->done) {
        struct sw_body_fed fed = sw_body_feed(&x->body, in);

        if (fed.step == SW_STEP_FAIL || !body_piece(x, fed.data)) {
            return false;
        }
        in = sw_slice_tail(in, fed.consumed);
        x->done = fed.step == SW_STEP_DONE;
        if (fed.consumed == 0) {
            break;
        }
    }
    return true;
}

/* Reads the head into buf; what came behind it is *ret_rest. */
static bool receive_head(int fd, char *buf, struct sw_head *head, struct sw_slice *ret_rest)
{
    static const struct sw_h1_limits limits = {HEAD_BYTES, HEAD_BYTES};
    size_t len = 0, scanned = 0;

    while (len < HEAD_BYTES) {
        ssize_t n = recv(fd, buf + len, HEAD_BYTES - len, 0);
        struct sw_parsed parsed;

        if (n <= 0) {
            return false;
        }
        len += (size_t)n;
        parsed = sw_h1_response(sw_slice_of(buf, len), &scanned, &limits, SW_METHOD_GET, head);
        if (parsed.step == SW_STEP_FAIL) {
            return false;
        }
        if (parsed.step == SW_STEP_DONE) {
            *ret_rest = sw_slice_of(buf + parsed.consumed, len - parsed.consumed);
            return true;
        }
    }
    return false;
}

static bool receive(int fd, struct sw_cli_call *call, bool *ret_stopped)
{
    struct sw_field fields[FIELDS_MAX];
    struct sw_head head = {.fields = fields, .field_max = FIELDS_MAX};
    struct receiving x = {.call = call};
    char buf[HEAD_BYTES];
    struct sw_slice rest;
    bool ok;

    *ret_stopped = false;
    if (!receive_head(fd, buf, &head, &rest)) {
        return false;
    }
    call->status = head.status;
    sw_body_init(&x.body, &head, UINT64_MAX, true, NULL);
    ok = body_bytes(&x, rest);
    while (ok && !x.done) {
        ssize_t n = recv(fd, buf, sizeof(buf), 0);

        if (n <= 0) {
            ok = n == 0 && sw_body_end(&x.body) == SW_OK;
            break;
        }
        ok = body_bytes(&x, sw_slice_of(buf, (size_t)n));
    }
    *ret_stopped = x.stopped;
    return ok;
}

bool sw_cli__call(const struct sw_cli_target *t, struct sw_cli_call *call)
{
    bool transfer = call->body != NULL || call->sink != NULL, ok = false, stopped = false;
    int fd = target_connect(t, transfer);

    if (fd < 0) {
        return false;
    }
    call->status = 0;
    call->block = (char *)malloc(ANSWER_BYTES);
    call->answer = (struct sw_slice){call->block, 0};
    if (call->block != NULL && send_head(fd, t, call)) {
        if (call->body != NULL && !send_body(fd, call->body)) {
            stopped = true;
        } else {
            ok = receive(fd, call, &stopped);
        }
    }
    close(fd);
    if (!ok && !stopped) { /* who stopped it has said why */
        fprintf(stderr,
                call->status == 200 ? "stateway: %s broke off its answer\n"
                                    : "stateway: %s does not answer as the admin API does\n",
                t->text);
    }
    if (!ok) {
        free(call->block);
    }
    return ok;
}

/* ---- commands -------------------------------------------------------------------------------- */

/* What a refusal says: {"error": "..."} or plain text. */
int sw_cli__refused(const struct sw_cli_call *r)
{
    json_t *root = json_loadb(r->answer.ptr, r->answer.len, 0, NULL);
    const char *text = json_string_value(json_object_get(root, "error"));

    if (r->status == 401) {
        text = "the admin API asks for a token: --token, or STATEWAY_ADMIN_TOKEN";
    }
    if (text != NULL) {
        fprintf(stderr, "stateway: %s\n", text);
    } else {
        fprintf(stderr, "stateway: refused with status %u: %.*s\n", r->status, SW_SARG(r->answer));
    }
    json_decref(root);
    return SW_EXIT_FAILED;
}

/* Names come from the command line into a request's head. */
static bool name_ok(const char *name, bool with_number)
{
    size_t slashes = 0;

    for (const char *p = name; *p != '\0'; p++) {
        bool ok = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '-';

        slashes += *p == '/';
        if (!ok && *p != '/') {
            return false;
        }
    }
    return name[0] != '\0' && strlen(name) <= 80 && slashes == (with_number ? 1 : 0);
}

static int command_post(const struct sw_cli_args *a, bool is_instance, const char *verb,
                        const char *said)
{
    struct sw_cli_target t;
    struct sw_cli_call r = {.method = "POST"};
    char path[256];
    int code;

    if (a->word_count != 1 || !name_ok(a->words[0], is_instance)) {
        return sw_cli__usage_error(a->command, "it takes one name: %s",
                                   is_instance ? "APP/N, as `stateway status` shows it" : "APP");
    }
    code = sw_cli__target_find(a, &t);
    if (code != SW_EXIT_OK) {
        return code;
    }
    snprintf(path, sizeof(path), "/v1/%s/%s/%s", is_instance ? "instances" : "apps", a->words[0],
             verb);
    r.path = path;
    if (!sw_cli__call(&t, &r)) {
        return SW_EXIT_FAILED;
    }
    if (r.status < 200 || r.status > 299) {
        code = sw_cli__refused(&r);
    } else {
        printf("%s: %s\n", a->words[0], said);
    }
    free(r.block);
    return code;
}

int sw_cli__roll(const struct sw_cli_args *args)
{
    return command_post(args, false, "roll", "rolling; `stateway status` shows how far it is");
}

int sw_cli__drain(const struct sw_cli_args *args)
{
    return command_post(args, true, "drain", "draining: its visitors stay, new ones go elsewhere");
}

int sw_cli__undrain(const struct sw_cli_args *args)
{
    return command_post(args, true, "undrain", "takes new visitors again");
}

int sw_cli__kill(const struct sw_cli_args *args)
{
    return command_post(args, true, "kill", "killed");
}

/* ---- status ---------------------------------------------------------------------------------- */

static long long number(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s != NULL ? s : "-";
}

static void status_app(const json_t *app)
{
    const json_t *instances = json_object_get(app, "instances");
    const json_t *one;
    size_t i;

    json_array_foreach(instances, i, one)
    {
        char pid[24] = "-";

        if (number(one, "pid") > 0) {
            snprintf(pid, sizeof(pid), "%lld", number(one, "pid"));
        }
        printf("%-20s %-10s %8s  %-24s %8lld %8lld %10lld\n", text(one, "name"), text(one, "state"),
               pid, text(one, "address"), number(one, "sessions"), number(one, "in_flight"),
               number(one, "answered"));
    }
}

static int status_print(const struct sw_cli_args *a, const struct sw_cli_call *r)
{
    json_t *root = json_loadb(r->answer.ptr, r->answer.len, 0, NULL);
    const json_t *apps = json_is_array(root) ? root : json_object_get(root, "apps");
    const json_t *app;
    bool any = false;
    size_t i;

    if (!json_is_array(apps)) {
        json_decref(root);
        fprintf(stderr, "stateway: the admin API's answer is not understood; is it of the same "
                        "version?\n");
        return SW_EXIT_FAILED;
    }
    printf("%-20s %-10s %8s  %-24s %8s %8s %10s\n", "INSTANCE", "STATE", "PID", "ADDRESS",
           "SESSIONS", "RUNNING", "ANSWERED");
    json_array_foreach(apps, i, app)
    {
        if (a->word_count == 0 || strcmp(text(app, "name"), a->words[0]) == 0) {
            status_app(app);
            any = true;
        }
    }
    json_decref(root);
    if (!any && a->word_count > 0) {
        fprintf(stderr, "stateway: there is no app \"%s\"\n", a->words[0]);
        return SW_EXIT_FAILED;
    }
    return SW_EXIT_OK;
}

int sw_cli__status(const struct sw_cli_args *args)
{
    struct sw_cli_target t;
    struct sw_cli_call r = {.method = "GET", .path = "/v1/apps"};
    int code;

    if (args->word_count > 1) {
        return sw_cli__usage_error(args->command, "it takes one app, or none");
    }
    code = sw_cli__target_find(args, &t);
    if (code != SW_EXIT_OK) {
        return code;
    }
    if (!sw_cli__call(&t, &r)) {
        return SW_EXIT_FAILED;
    }
    code = r.status == 200 ? status_print(args, &r) : sw_cli__refused(&r);
    free(r.block);
    return code;
}
