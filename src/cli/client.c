/* cli/client.c - status, roll, drain, undrain, kill: a small blocking client of the admin API. */
#include "cli/cli_priv.h"

#include "http/http.h"

#include <errno.h>
#include <jansson.h>
#include <sys/time.h>
#include <unistd.h>

#define ADMIN_DEFAULT "127.0.0.1:9000"
#define ANSWER_BYTES  ((size_t)4 * 1024 * 1024)
#define FIELDS_MAX    64
#define TIMEOUT_S     10

struct answer {
    unsigned status;
    struct sw_slice body; /* in block */
    char *block;
};

struct target {
    struct sw_addr addr;
    char text[SW_ADDR_TEXT_MAX];
    char token[1024]; /* "": none */
};

/* ---- where it is ----------------------------------------------------------------------------- */

static bool target_set(struct target *t, const struct sw_cli_args *a, struct sw_slice text)
{
    if (text.len >= sizeof(t->text) || sw_addr_parse(text, true, &t->addr) != SW_OK) {
        (void)sw_cli__usage_error(a->command, "\"%.*s\" is no address: HOST:PORT or unix:PATH",
                                  SW_SARG(text));
        return false;
    }
    snprintf(t->text, sizeof(t->text), "%.*s", SW_SARG(text));
    return true;
}

static void token_set(struct target *t, struct sw_slice token)
{
    snprintf(t->token, sizeof(t->token), "%.*s", SW_SARG(token));
}

/* --admin and --token, else what the file behind -c says, else the default. */
static int target_find(const struct sw_cli_args *a, struct target *t)
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

static int target_connect(const struct target *t)
{
    struct timeval limit = {.tv_sec = TIMEOUT_S};
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

/* The body's pieces are moved to the front of the block, over the head. */
static bool body_gather(struct answer *r, const struct sw_head *head, struct sw_slice in)
{
    struct sw_body body;
    size_t len = 0;

    sw_body_init(&body, head, ANSWER_BYTES, true, NULL);
    for (;;) {
        struct sw_body_fed fed = sw_body_feed(&body, in);

        if (fed.step == SW_STEP_FAIL) {
            return false;
        }
        if (fed.data.len > 0) {
            memmove(r->block + len, fed.data.ptr, fed.data.len);
            len += fed.data.len;
        }
        in = sw_slice_tail(in, fed.consumed);
        if (fed.step == SW_STEP_DONE) {
            break;
        }
        if (fed.consumed == 0) { /* all was read until the end of the connection */
            if (sw_body_end(&body) != SW_OK) {
                return false;
            }
            break;
        }
    }
    r->body = sw_slice_of(r->block, len);
    return true;
}

static bool answer_parse(struct answer *r, size_t len)
{
    static const struct sw_h1_limits limits = {64 * 1024, 64 * 1024};
    struct sw_field fields[FIELDS_MAX];
    struct sw_head head = {.fields = fields, .field_max = FIELDS_MAX};
    struct sw_slice in = sw_slice_of(r->block, len);
    struct sw_parsed parsed;
    size_t scanned = 0;

    parsed = sw_h1_response(in, &scanned, &limits, SW_METHOD_GET, &head);
    if (parsed.step != SW_STEP_DONE) {
        return false;
    }
    r->status = head.status;
    return body_gather(r, &head, sw_slice_tail(in, parsed.consumed));
}

/* False: a complaint was printed. On success free(ret->block). */
static bool exchange(const struct target *t, const char *method, const char *path,
                     struct answer *ret)
{
    char request[2048];
    struct sw_out out = sw_out_init(request, sizeof(request));
    size_t len = 0;
    bool ok = false;
    int fd = target_connect(t);

    if (fd < 0) {
        return false;
    }
    ret->block = (char *)malloc(ANSWER_BYTES);
    sw_out_printf(&out,
                  "%s %s HTTP/1.1\r\nHost: stateway\r\nConnection: close\r\n"
                  "Stateway-Admin: 1\r\nContent-Length: 0\r\n",
                  method, path);
    if (t->token[0] != '\0') {
        sw_out_printf(&out, "Authorization: Bearer %s\r\n", t->token);
    }
    sw_out_lit(&out, "\r\n");
    if (ret->block != NULL && !out.overflowed && send_all(fd, sw_out_done(&out))) {
        ssize_t n;

        while ((n = recv(fd, ret->block + len, ANSWER_BYTES - len, 0)) > 0) {
            len += (size_t)n;
        }
        ok = n == 0 && answer_parse(ret, len);
    }
    close(fd);
    if (!ok) {
        fprintf(stderr, "stateway: %s does not answer as the admin API does\n", t->text);
        free(ret->block);
    }
    return ok;
}

/* ---- commands -------------------------------------------------------------------------------- */

/* What a refusal says: {"error": "..."} or plain text. */
static int refused(const struct answer *r)
{
    json_t *root = json_loadb(r->body.ptr, r->body.len, 0, NULL);
    const char *text = json_string_value(json_object_get(root, "error"));

    if (r->status == 401) {
        text = "the admin API asks for a token: --token, or STATEWAY_ADMIN_TOKEN";
    }
    if (text != NULL) {
        fprintf(stderr, "stateway: %s\n", text);
    } else {
        fprintf(stderr, "stateway: refused with status %u: %.*s\n", r->status, SW_SARG(r->body));
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
    struct target t;
    struct answer r;
    char path[256];
    int code;

    if (a->word_count != 1 || !name_ok(a->words[0], is_instance)) {
        return sw_cli__usage_error(a->command, "it takes one name: %s",
                                   is_instance ? "APP/N, as `stateway status` shows it" : "APP");
    }
    code = target_find(a, &t);
    if (code != SW_EXIT_OK) {
        return code;
    }
    snprintf(path, sizeof(path), "/v1/%s/%s/%s", is_instance ? "instances" : "apps", a->words[0],
             verb);
    if (!exchange(&t, "POST", path, &r)) {
        return SW_EXIT_FAILED;
    }
    if (r.status < 200 || r.status > 299) {
        code = refused(&r);
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

static int status_print(const struct sw_cli_args *a, const struct answer *r)
{
    json_t *root = json_loadb(r->body.ptr, r->body.len, 0, NULL);
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
    struct target t;
    struct answer r;
    int code;

    if (args->word_count > 1) {
        return sw_cli__usage_error(args->command, "it takes one app, or none");
    }
    code = target_find(args, &t);
    if (code != SW_EXIT_OK) {
        return code;
    }
    if (!exchange(&t, "GET", "/v1/apps", &r)) {
        return SW_EXIT_FAILED;
    }
    code = r.status == 200 ? status_print(args, &r) : refused(&r);
    free(r.block);
    return code;
}
