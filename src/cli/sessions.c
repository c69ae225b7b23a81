/* cli/sessions.c - `stateway sessions`: the admin API's sessions and subjects, for people.
 *
 * What comes is read as text (base/json.h) and not through a DOM: a state is shown as it was
 * written, digit by digit.
 */
#include "cli/cli_priv.h"

#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE_ENTRIES  1000u
#define LIST_DEFAULT  100u
#define LIST_MAX      100000000u
#define HANDLE_CHARS  43u
#define TIME_CHARS    32u
#define SUBJECT_CHARS 24
#define PART_SUFFIX   ".part"

bool sw_cli__is_handle(const char *arg)
{
    size_t n = 0;

    for (; arg[n] != '\0'; n++) {
        char c = arg[n];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_')) {
            return false;
        }
    }
    return n == HANDLE_CHARS;
}

/* ---- reading an answer ----------------------------------------------------------------------- */

static int not_understood(void)
{
    fprintf(stderr, "stateway: the admin API's answer is not understood; is it of the same "
                    "version?\n");
    return SW_EXIT_FAILED;
}

struct sw_slice sw_cli__member(struct sw_slice object, const char *name)
{
    struct sw_slice value;

    if (!sw_json_get(object, sw_slice_cstr(name), &value) ||
        sw_json_type_of(value) == SW_JSON_NULL) {
        return (struct sw_slice){NULL, 0};
    }
    return value;
}

/* The inside of a string that has no escapes: a handle, a version. */
static struct sw_slice inside(struct sw_slice value)
{
    return value.len < 2 ? (struct sw_slice){NULL, 0}
                         : (struct sw_slice){value.ptr + 1, value.len - 2};
}

static int64_t number(struct sw_slice object, const char *name)
{
    uint64_t n = 0;

    return sw_slice_u64(sw_cli__member(object, name), &n) && n <= INT64_MAX ? (int64_t)n : 0;
}

/* For a terminal: what an app chose as a name must not move its cursor. */
static void printable(char *text)
{
    for (char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || (unsigned char)*p == 0x7f) {
            *p = '?';
        }
    }
}

static void subject_text(struct sw_slice object, char *text, size_t size)
{
    struct sw_out out = sw_out_init(text, size - 1);
    struct sw_slice subject = sw_cli__member(object, "subject");

    if (subject.len == 0) {
        sw_out_char(&out, '-');
    } else if (!sw_json_unquote(subject, &out)) {
        out.len = 0;
        out.cap = size - 1;
        sw_out_char(&out, '?');
    }
    text[out.len] = '\0';
    printable(text);
}

/* "5m ago", "in 29m", "never": which side the sign is on says the rest. */
static const char *when(int64_t unix_s, int64_t now_s, char text[TIME_CHARS])
{
    static const struct {
        int64_t seconds;
        const char *unit;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}};
    int64_t distance = unix_s > now_s ? unix_s - now_s : now_s - unix_s;
    size_t u = 0;

    if (unix_s == 0) {
        return "never";
    }
    while (u + 1 < SW_COUNTOF(units) && distance < 2 * units[u].seconds) {
        u++;
    }
    snprintf(text, TIME_CHARS, unix_s > now_s ? "in %lld%s" : "%lld%s ago",
             (long long)(distance / units[u].seconds), units[u].unit);
    return text;
}

/* ---- requests -------------------------------------------------------------------------------- */

void sw_cli__query_put(struct sw_out *out, const char *name, const char *value)
{
    sw_out_printf(out, "%s=", name);
    for (const char *p = value; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
            sw_out_char(out, *p);
        } else {
            sw_out_char(out, '%');
            sw_out_char(out, "0123456789ABCDEF"[c >> 4]);
            sw_out_char(out, "0123456789ABCDEF"[c & 15]);
        }
    }
}

/* A 200; on success free(call->block). An enum sw_exit. */
static int ask(const struct sw_cli_target *t, struct sw_cli_call *call)
{
    int code;

    if (!sw_cli__call(t, call)) {
        return SW_EXIT_FAILED;
    }
    if (call->status == 200) {
        return SW_EXIT_OK;
    }
    code = sw_cli__refused(call);
    free(call->block);
    return code;
}

static bool is_object(const struct sw_cli_call *call)
{
    struct sw_json_checked checked = sw_json_check(call->answer);

    return checked.err == SW_OK && checked.type == SW_JSON_OBJECT;
}

int sw_cli__ask_object(const struct sw_cli_target *t, struct sw_cli_call *call)
{
    int code = ask(t, call);

    if (code == SW_EXIT_OK && !is_object(call)) {
        code = not_understood();
        free(call->block);
    }
    return code;
}

/* ---- list ------------------------------------------------------------------------------------ */

struct listing {
    const struct sw_cli_args *args;
    uint64_t limit, count;
    bool more;
    char after[64]; /* as the last page told it */
};

static void entry_print(const struct listing *l, struct sw_slice entry)
{
    char subject[512], touched[TIME_CHARS], expires[TIME_CHARS], alarm[TIME_CHARS];
    struct sw_slice handle = inside(sw_cli__member(entry, "handle"));
    int64_t now = (int64_t)time(NULL), due = number(entry, "due_ms");

    if (sw_cli__has(l->args, FLAG_JSON)) {
        printf("%.*s\n", SW_SARG(entry));
        return;
    }
    subject_text(entry, subject, sizeof(subject));
    printf("%-43.*s  %-*s %8lld%c %9s %9s  %s\n", SW_SARG(handle), SUBJECT_CHARS, subject,
           (long long)number(entry, "size"),
           sw_slice_eq(sw_cli__member(entry, "sealed"), SW_S("true")) ? '*' : ' ',
           when(number(entry, "touched"), now, touched),
           when(number(entry, "expires"), now, expires),
           due == 0 ? "-" : when(due / 1000, now, alarm));
}

static int list_page(const struct sw_cli_target *t, struct listing *l)
{
    char path[1024];
    struct sw_out out = sw_out_init(path, sizeof(path) - 1);
    struct sw_cli_call call = {.method = "GET", .path = path};
    struct sw_slice list, entry, name, after;
    struct sw_json_iter it;
    int code;

    sw_out_printf(&out, "/v1/sessions?limit=%" PRIu64,
                  (uint64_t)SW_MIN(l->limit - l->count, (uint64_t)PAGE_ENTRIES));
    if (sw_cli__has(l->args, FLAG_SUBJECT)) {
        sw_out_char(&out, '&');
        sw_cli__query_put(&out, "subject", l->args->values[FLAG_SUBJECT]);
    }
    if (l->after[0] != '\0') {
        sw_out_printf(&out, "&after=%s", l->after);
    }
    SW_ASSERT(!out.overflowed); /* a subject of 255 bytes, checked */
    path[out.len] = '\0';
    code = sw_cli__ask_object(t, &call);
    if (code != SW_EXIT_OK) {
        return code;
    }
    list = sw_cli__member(call.answer, "sessions");
    after = inside(sw_cli__member(call.answer, "after"));
    it = sw_json_iter(list);
    while (sw_json_next(&it, &name, &entry)) {
        entry_print(l, entry);
        l->count++;
    }
    l->more = after.len > 0 && after.len < sizeof(l->after);
    snprintf(l->after, sizeof(l->after), "%.*s", SW_SARG(after));
    free(call.block);
    return SW_EXIT_OK;
}

static int sessions_list(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    struct listing l = {.args = a, .limit = LIST_DEFAULT};
    int code;

    if (sw_cli__has(a, FLAG_LIMIT) &&
        (!sw_slice_u64(sw_slice_cstr(a->values[FLAG_LIMIT]), &l.limit) || l.limit == 0 ||
         l.limit > LIST_MAX)) {
        return sw_cli__usage_error(a->command, "--limit takes a number from 1 to %u, not \"%s\"",
                                   LIST_MAX, a->values[FLAG_LIMIT]);
    }
    if (!sw_cli__has(a, FLAG_JSON)) {
        printf("%-43s  %-*s %8s  %9s %9s  %s\n", "HANDLE", SUBJECT_CHARS, "SUBJECT", "BYTES",
               "TOUCHED", "EXPIRES", "ALARM");
    }
    do {
        code = list_page(t, &l);
    } while (code == SW_EXIT_OK && l.more && l.count < l.limit);
    if (code == SW_EXIT_OK && l.more) {
        fprintf(stderr, "stateway: there are more than %" PRIu64 "; --limit N lists them\n",
                l.limit);
    }
    return code;
}

/* ---- show ------------------------------------------------------------------------------------ */

static void show_time(const char *label, int64_t unix_s)
{
    char text[TIME_CHARS], stamp[40];
    time_t t = (time_t)unix_s;
    struct tm tm;

    if (unix_s == 0 || gmtime_r(&t, &tm) == NULL) {
        printf("%-9s never\n", label);
        return;
    }
    strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%SZ", &tm);
    printf("%-9s %s (%s)\n", label, stamp, when(unix_s, (int64_t)time(NULL), text));
}

static void show_print(struct sw_slice r)
{
    struct sw_slice value = sw_cli__member(r, "value");
    char subject[512];

    subject_text(r, subject, sizeof(subject));
    printf("handle    %.*s\n", SW_SARG(inside(sw_cli__member(r, "handle"))));
    printf("subject   %s\n", subject);
    printf("version   %.*s\n", SW_SARG(inside(sw_cli__member(r, "version"))));
    show_time("created", number(r, "created"));
    show_time("touched", number(r, "touched"));
    show_time("expires", number(r, "expires"));
    show_time("absolute", number(r, "absolute"));
    printf("alarms    %lld\n", (long long)number(r, "alarms"));
    if (number(r, "due_ms") > 0) {
        show_time("next", number(r, "due_ms") / 1000);
    }
    printf("bytes     %lld\n", (long long)number(r, "size"));
    if (value.len > 0) {
        printf("value     %.*s\n", SW_SARG(value));
    } else {
        printf("value     encrypted for its visitor (encrypt: on)\n");
    }
}

static int one_handle(const struct sw_cli_args *a, char path[128], const char *more)
{
    if (a->word_count != 2 || !sw_cli__is_handle(a->words[1])) {
        return sw_cli__usage_error(a->command,
                                   "%s takes one HANDLE: 43 characters, as `stateway sessions "
                                   "list` shows them",
                                   a->words[0]);
    }
    snprintf(path, 128, "/v1/sessions/%s%s", a->words[1], more);
    return SW_EXIT_OK;
}

static int sessions_show(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    char path[128];
    struct sw_cli_call call = {.method = "GET", .path = path};
    int code = one_handle(a, path, "");

    if (code == SW_EXIT_OK) {
        code = ask(t, &call);
    }
    if (code != SW_EXIT_OK) {
        return code;
    }
    /* A value as deep as can be is one level too deep inside of the answer: shown as it came. */
    if (sw_cli__has(a, FLAG_JSON) || !is_object(&call)) {
        printf("%.*s", SW_SARG(call.answer));
    } else {
        show_print(call.answer);
    }
    free(call.block);
    return SW_EXIT_OK;
}

/* ---- end ------------------------------------------------------------------------------------- */

static int end_subject(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    char path[1024], subject[512];
    struct sw_out out = sw_out_init(path, sizeof(path) - 1);
    struct sw_cli_call call = {.method = "DELETE", .path = path};
    long long ended;
    int code;

    sw_out_lit(&out, "/v1/subjects?");
    sw_cli__query_put(&out, "subject", a->values[FLAG_SUBJECT]);
    SW_ASSERT(!out.overflowed);
    path[out.len] = '\0';
    code = sw_cli__ask_object(t, &call);
    if (code != SW_EXIT_OK) {
        return code;
    }
    ended = (long long)number(call.answer, "ended");
    subject_text(call.answer, subject, sizeof(subject));
    if (sw_cli__has(a, FLAG_JSON)) {
        printf("%.*s", SW_SARG(call.answer));
    } else {
        printf("%s: ended %lld%s session%s\n", subject, ended,
               sw_slice_eq(sw_cli__member(call.answer, "more"), SW_S("true")) ? " or more" : "",
               ended == 1 ? "" : "s");
    }
    free(call.block);
    return SW_EXIT_OK;
}

static int sessions_end(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    char path[128];
    struct sw_cli_call call = {.method = "DELETE", .path = path};
    int code;

    if (sw_cli__has(a, FLAG_SUBJECT)) {
        if (a->word_count != 1 || sw_cli__has(a, FLAG_ENTITY)) {
            return sw_cli__usage_error(a->command, "end takes a HANDLE, or --subject NAME");
        }
        return end_subject(a, t);
    }
    code = one_handle(a, path, sw_cli__has(a, FLAG_ENTITY) ? "?entity=yes" : "");
    if (code != SW_EXIT_OK) {
        return code;
    }
    if (!sw_cli__call(t, &call)) {
        return SW_EXIT_FAILED;
    }
    if (call.status != 204) {
        code = sw_cli__refused(&call);
    } else if (sw_cli__has(a, FLAG_JSON)) {
        printf("{\"ended\":\"%s\"}\n", a->words[1]);
    } else {
        printf("%s: ended\n", a->words[1]);
    }
    free(call.block);
    return code;
}

/* ---- export, import -------------------------------------------------------------------------- */

struct exporting {
    FILE *to;
    uint64_t lines;
};

static bool export_piece(void *arg, struct sw_slice piece)
{
    struct exporting *x = arg;

    for (size_t i = 0; i < piece.len; i++) {
        x->lines += piece.ptr[i] == '\n';
    }
    if (fwrite(piece.ptr, 1, piece.len, x->to) != piece.len) {
        fprintf(stderr, "stateway: cannot write: %s\n", strerror(errno));
        return false;
    }
    return true;
}

/* Beside the file, and renamed when it is whole: a part is never taken for all. Only for its owner:
 * it holds what visitors left. */
static FILE *part_open(const char *path, char part[PATH_MAX])
{
    int fd = -1;
    FILE *file = NULL;

    if (snprintf(part, PATH_MAX, "%s" PART_SUFFIX, path) < PATH_MAX) {
        fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    } else {
        errno = ENAMETOOLONG;
    }
    if (fd >= 0) {
        file = fdopen(fd, "w");
    }
    if (file == NULL) {
        fprintf(stderr, "stateway: %s: %s\n", path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
    }
    return file;
}

static bool part_finish(FILE *file, const char *part, const char *path)
{
    bool ok = fflush(file) == 0 && fsync(fileno(file)) == 0;

    ok = fclose(file) == 0 && ok;
    if (ok && rename(part, path) == 0) {
        return true;
    }
    fprintf(stderr, "stateway: %s: %s\n", path, strerror(errno));
    (void)unlink(part);
    return false;
}

static int sessions_export(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    const char *path = a->values[FLAG_OUTPUT];
    struct exporting x = {.to = stdout};
    struct sw_cli_call call = {
        .method = "GET", .path = "/v1/sessions/export", .sink = export_piece, .arg = &x};
    char part[PATH_MAX];
    int code;

    if (a->word_count != 1) {
        return sw_cli__usage_error(a->command, "export takes no name; -o FILE says where to");
    }
    if (path != NULL) {
        x.to = part_open(path, part);
        if (x.to == NULL) {
            return SW_EXIT_FAILED;
        }
    }
    code = ask(t, &call);
    if (path != NULL && code != SW_EXIT_OK) {
        fclose(x.to);
        (void)unlink(part);
    } else if (path != NULL && !part_finish(x.to, part, path)) {
        free(call.block);
        return SW_EXIT_FAILED;
    }
    if (code != SW_EXIT_OK) {
        return code;
    }
    free(call.block);
    fprintf(stderr, "stateway: %" PRIu64 " record%s\n", x.lines, x.lines == 1 ? "" : "s");
    return SW_EXIT_OK;
}

/* 200, or a store that failed on the way: both tell how far it came. */
static int import_print(const struct sw_cli_args *a, const struct sw_cli_call *call,
                        const char *name)
{
    struct sw_slice errors = sw_cli__member(call->answer, "errors"), one, key;
    struct sw_json_iter it = sw_json_iter(errors);
    long long failed = (long long)number(call->answer, "failed"), told = 0;
    char text[512];

    if (sw_cli__has(a, FLAG_JSON)) {
        printf("%.*s", SW_SARG(call->answer));
        return failed > 0 || call->status != 200 ? SW_EXIT_FAILED : SW_EXIT_OK;
    }
    while (sw_json_next(&it, &key, &one)) {
        struct sw_out out = sw_out_init(text, sizeof(text) - 1);

        if (!sw_json_unquote(sw_cli__member(one, "error"), &out)) {
            out.len = 0;
        }
        text[out.len] = '\0';
        fprintf(stderr, "%s:%lld: %s\n", name, (long long)number(one, "line"), text);
        told++;
    }
    if (failed > told) {
        fprintf(stderr, "%s: and %lld more like these\n", name, failed - told);
    }
    printf("%lld made, %lld replaced, %lld skipped (their time was up, or they were ended here), "
           "%lld refused\n",
           (long long)number(call->answer, "created"), (long long)number(call->answer, "replaced"),
           (long long)number(call->answer, "skipped"), failed);
    if (call->status != 200) {
        fprintf(stderr, "stateway: the store failed, and the rest was not tried\n");
    }
    return failed > 0 || call->status != 200 ? SW_EXIT_FAILED : SW_EXIT_OK;
}

static int sessions_import(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    struct sw_cli_call call = {.method = "POST",
                               .path = sw_cli__has(a, FLAG_REPLACE)
                                           ? "/v1/sessions/import?mode=replace"
                                           : "/v1/sessions/import",
                               .body_type = "application/x-ndjson"};
    int code = SW_EXIT_FAILED;
    bool from_stdin;

    if (a->word_count != 2) {
        return sw_cli__usage_error(a->command, "import takes one FILE, or - for stdin");
    }
    from_stdin = strcmp(a->words[1], "-") == 0;
    call.body = from_stdin ? stdin : fopen(a->words[1], "re");
    if (call.body == NULL) {
        fprintf(stderr, "stateway: %s: %s\n", a->words[1], strerror(errno));
        return SW_EXIT_FAILED;
    }
    if (sw_cli__call(t, &call)) {
        if (is_object(&call) && sw_cli__member(call.answer, "created").len > 0) {
            code = import_print(a, &call, from_stdin ? "stdin" : a->words[1]);
        } else {
            code = call.status == 200 ? not_understood() : sw_cli__refused(&call);
        }
        free(call.block);
    }
    if (!from_stdin) {
        fclose(call.body);
    }
    return code;
}

/* ---- which ----------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*run)(const struct sw_cli_args *a, const struct sw_cli_target *t);
    uint64_t flags; /* besides those that all take */
} verbs[] = {
    {"list", sessions_list, SW_FLAG(FLAG_SUBJECT) | SW_FLAG(FLAG_LIMIT)},
    {"show", sessions_show, 0},
    {"end", sessions_end, SW_FLAG(FLAG_SUBJECT) | SW_FLAG(FLAG_ENTITY)},
    {"export", sessions_export, SW_FLAG(FLAG_OUTPUT)},
    {"import", sessions_import, SW_FLAG(FLAG_REPLACE)},
};

/* The index in verbs; SW_COUNTOF(verbs): a complaint was printed. */
static size_t verb_find(const struct sw_cli_args *a)
{
    const char *names[SW_COUNTOF(verbs)], *near = NULL;

    for (size_t i = 0; i < SW_COUNTOF(verbs); i++) {
        names[i] = verbs[i].name;
        if (a->word_count > 0 && strcmp(a->words[0], verbs[i].name) == 0) {
            return i;
        }
    }
    if (a->word_count > 0) {
        near = sw_cli__nearest(a->words[0], names, SW_COUNTOF(names));
    }
    if (near != NULL) {
        (void)sw_cli__usage_error(a->command, "there is no \"%s\"; did you mean \"%s\"?",
                                  a->words[0], near);
    } else {
        (void)sw_cli__usage_error(a->command, "what about them? list, show, end, export or import");
    }
    return SW_COUNTOF(verbs);
}

static bool flags_fit(const struct sw_cli_args *a, size_t verb)
{
    static const uint64_t own = SW_FLAG(FLAG_SUBJECT) | SW_FLAG(FLAG_LIMIT) | SW_FLAG(FLAG_OUTPUT) |
                                SW_FLAG(FLAG_REPLACE) | SW_FLAG(FLAG_ENTITY);

    for (size_t id = 0; id < FLAG_COUNT; id++) {
        if (a->values[id] != NULL && (own & ~verbs[verb].flags & SW_FLAG(id)) != 0) {
            (void)sw_cli__usage_error(a->command, "--%s does not go with %s",
                                      sw_cli__flags[id].name, verbs[verb].name);
            return false;
        }
    }
    if (sw_cli__has(a, FLAG_SUBJECT)) {
        size_t len = strlen(a->values[FLAG_SUBJECT]);

        if (len == 0 || len > 255) {
            (void)sw_cli__usage_error(a->command, "a subject has 1 to 255 bytes");
            return false;
        }
    }
    return true;
}

int sw_cli__sessions(const struct sw_cli_args *args)
{
    struct sw_cli_target t;
    size_t verb = verb_find(args);
    int code;

    if (verb == SW_COUNTOF(verbs) || !flags_fit(args, verb)) {
        return SW_EXIT_USAGE;
    }
    if (args->rest != NULL) {
        return sw_cli__usage_error(args->command, "nothing goes behind --");
    }
    code = sw_cli__target_find(args, &t);
    return code == SW_EXIT_OK ? verbs[verb].run(args, &t) : code;
}
