/* cli/check.c - `stateway check`: a configuration's faults, and which route a request would take.
 */
#include "cli/cli_priv.h"

#include "http/http.h"
#include "route/route.h"

#define HEAD_BYTES    16384
#define EXPLAIN_BYTES ((size_t)64 * 1024)
#define FIELDS_MAX    8

/* "http://shop.example:8080/cart?x=1#y", or "/cart" on any host: as a request's head. */
static bool head_text(struct sw_out *out, const char *method, const char *url)
{
    struct sw_slice u = sw_slice_cstr(url), host = SW_S("localhost");
    size_t end;

    if (sw_slice_starts_nocase(u, SW_S("http://")) || sw_slice_starts_nocase(u, SW_S("https://"))) {
        u = sw_slice_tail(u, sw_slice_find_slice(u, SW_S("://")) + 3);
        end = SW_MIN(sw_slice_find(u, '/'), SW_MIN(sw_slice_find(u, '?'), sw_slice_find(u, '#')));
        host = sw_slice_head(u, end);
        u = sw_slice_tail(u, end);
    } else if (!sw_slice_starts(u, SW_S("/"))) {
        return false;
    }
    u = sw_slice_head(u, sw_slice_find(u, '#')); /* a fragment never leaves the browser */
    sw_out_printf(out, "%s %s%.*s HTTP/1.1\r\nHost: %.*s\r\n\r\n", method,
                  sw_slice_starts(u, SW_S("/")) ? "" : "/", SW_SARG(u), SW_SARG(host));
    return !out->overflowed && host.len > 0;
}

static int explain(const struct sw_config *config, const char *method, const char *url)
{
    static const struct sw_h1_limits limits = {HEAD_BYTES, HEAD_BYTES};
    char *block = (char *)malloc(HEAD_BYTES + EXPLAIN_BYTES);
    struct sw_field fields[FIELDS_MAX];
    struct sw_head head = {.fields = fields, .field_max = FIELDS_MAX};
    struct sw_routes *routes = sw_routes_new(config);
    struct sw_out text, out;
    struct sw_parsed parsed;
    size_t scanned = 0;
    int code = SW_EXIT_FAILED;

    if (block == NULL || routes == NULL) {
        fprintf(stderr, "stateway: no memory\n");
        goto out;
    }
    text = sw_out_init(block, HEAD_BYTES);
    if (!head_text(&text, method, url)) {
        fprintf(stderr, "stateway check: \"%s\" is no URL: http://HOST/PATH or /PATH\n", url);
        code = SW_EXIT_USAGE;
        goto out;
    }
    parsed = sw_h1_request(sw_out_done(&text), &scanned, &limits, &head);
    if (parsed.step != SW_STEP_DONE) {
        fprintf(stderr, "stateway check: no client may ask for %s %s: %s\n", method, url,
                sw_err_text(parsed.step == SW_STEP_FAIL ? parsed.err : SW_E_SYNTAX));
        goto out;
    }
    out = sw_out_init(block + HEAD_BYTES, EXPLAIN_BYTES);
    sw_route_explain(routes, &head, &out);
    fwrite(out.ptr, 1, out.len, stdout);
    if (out.len > 0 && out.ptr[out.len - 1] != '\n') {
        printf("\n");
    }
    code = SW_EXIT_OK;
out:
    sw_routes_free(routes);
    free(block);
    return code;
}

int sw_cli__check(const struct sw_cli_args *args)
{
    bool wants_explain = sw_cli__has(args, FLAG_EXPLAIN);
    struct sw_cli_args a = *args;
    struct sw_loaded l;
    int code;

    if (wants_explain && (args->word_count < 1 || args->word_count > 2)) {
        return sw_cli__usage_error(args->command, "--explain takes [METHOD] URL");
    }
    if (!wants_explain && args->word_count == 1 && !sw_cli__has(args, FLAG_CONFIG)) {
        a.values[FLAG_CONFIG] = args->words[0]; /* `check FILE`: what else could it be */
    } else if (!wants_explain && args->word_count > 0) {
        return sw_cli__usage_error(args->command, "\"%s\" stands alone; a file goes behind -c",
                                   args->words[0]);
    }
    code = sw_cli__load(&a, &l);
    if (code != SW_EXIT_OK) {
        return code;
    }
    if (sw_cli__has(args, FLAG_PRINT)) {
        sw_cli__print_config(l.config);
    }
    if (wants_explain) {
        bool has_method = args->word_count == 2;

        code =
            explain(l.config, has_method ? args->words[0] : "GET", args->words[has_method ? 1 : 0]);
    } else if (!sw_cli__has(args, FLAG_PRINT)) {
        printf("%s: in order; %zu app%s, %zu route%s\n", l.name, l.config->app_count,
               l.config->app_count == 1 ? "" : "s", l.config->route_count,
               l.config->route_count == 1 ? "" : "s");
    }
    sw_cli__loaded_fini(&l);
    return code;
}
