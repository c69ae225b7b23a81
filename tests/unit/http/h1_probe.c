/* h1_probe - what the reader makes of given bytes, for tests/e2e/test_vectors_http.py.
 *
 * stdin    any number of: "Q LENGTH\n" bytes (a client's bytes) or
 *                         "R METHOD LENGTH\n" bytes (an instance's, until it closed)
 * stdout   one line of JSON for each:
 *          {"end": "done" | "more" | "fail", "err": "SW_E_...", "rest": N,
 *           "messages": [{"method", "path", "host": hex, "status", "framing", "length",
 *                         "body": hex, "keep_alive", "forward": hex}, ...]}
 *          end tells how the last message went; messages holds the complete heads; "more" with a
 *          message more than there are bodies means that its body is incomplete.
 */
#include "http/http.h"

#define INPUT_MAX (1u << 20)
static const struct sw_h1_limits limits = {.head_bytes_max = 16384, .target_bytes_max = 8192};

static char *input;
static struct sw_field fields[128];

static void hex(const char *key, struct sw_slice s)
{
    printf("\"%s\": \"", key);
    for (size_t i = 0; i < s.len; i++) {
        printf("%02x", (unsigned)(unsigned char)s.ptr[i]);
    }
    printf("\", ");
}

static void forward(const struct sw_head *h, bool response)
{
    static char buf[65536];
    struct sw_out out = sw_out_init(buf, sizeof(buf));
    struct sw_forward_request q = {
        .head = h,
        .peer = SW_S("192.0.2.1"),
        .proto = SW_S("http"),
        .framing = h->framing,
        .length = h->length,
        .keep_upgrade = true,
    };
    struct sw_forward_response r = {
        .head = h,
        .framing = h->framing,
        .length = h->length,
        .keep_alive = h->keep_alive,
        .client_minor = 1,
        .keep_upgrade = h->status == 101,
    };
    bool ok = response ? sw_forward_response_put(&out, &r, SW_S("Thu, 01 Jan 1970 00:00:00 GMT"))
                       : sw_forward_request_put(&out, &q);

    hex("forward", ok ? sw_out_done(&out) : SW_S(""));
}

/* One message; true when it was complete and another may follow. */
static bool message(struct sw_slice *in, bool response, enum sw_method method, bool first)
{
    static const char *const framings[] = {"none", "length", "chunked", "close"};
    struct sw_head h = {.fields = fields, .field_max = SW_COUNTOF(fields)};
    size_t scanned = 0;
    struct sw_parsed step = response ? sw_h1_response(*in, &scanned, &limits, method, &h)
                                     : sw_h1_request(*in, &scanned, &limits, &h);
    enum sw_err err = step.err;
    enum sw_step end = step.step;
    struct sw_body_fed fed = {.step = SW_STEP_MORE};
    struct sw_body body;

    if (step.step == SW_STEP_DONE) {
        *in = sw_slice_tail(*in, step.consumed);
        printf("%s{", first ? "" : ", ");
        hex("method", h.method_name);
        hex("path", h.path);
        hex("host", h.host);
        printf("\"status\": %u, \"framing\": \"%s\", \"length\": %llu, \"keep_alive\": %s, ",
               h.status, framings[h.framing], (unsigned long long)h.length,
               h.keep_alive ? "true" : "false");
        forward(&h, response);
        printf("\"body\": \"");
        sw_body_init(&body, &h, UINT64_MAX, response, NULL);
        do {
            fed = sw_body_feed(&body, *in);
            for (size_t i = 0; fed.step != SW_STEP_FAIL && i < fed.data.len; i++) {
                printf("%02x", (unsigned)(unsigned char)fed.data.ptr[i]);
            }
            *in = sw_slice_tail(*in, fed.consumed);
        } while (fed.step == SW_STEP_MORE && in->len > 0 && fed.consumed > 0);
        printf("\"}");
        end = fed.step;
        err = fed.err;
        if (end == SW_STEP_MORE && response && sw_body_end(&body) == SW_OK) {
            end = SW_STEP_DONE;
        }
    }
    if (end == SW_STEP_DONE && in->len > 0) {
        return true;
    }
    printf("], \"end\": \"%s\", \"err\": \"%s\", \"rest\": %zu}\n",
           end == SW_STEP_DONE   ? "done"
           : end == SW_STEP_MORE ? "more"
                                 : "fail",
           sw_err_name(err), in->len);
    return false;
}

int main(void)
{
    char line[64];

    input = malloc(INPUT_MAX);
    SW_ASSERT(input != NULL);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        struct sw_slice rest = sw_slice_trim(sw_slice_cstr(line)), kind, name = {NULL, 0}, in;
        bool response, first = true;
        uint64_t len;

        if (rest.len > 0 && rest.ptr[rest.len - 1] == '\n') {
            rest.len--;
        }
        (void)sw_slice_cut(rest, ' ', &kind, &rest);
        response = sw_slice_eq(kind, SW_S("R"));
        if (response) {
            (void)sw_slice_cut(rest, ' ', &name, &rest);
        }
        if (!sw_slice_u64(rest, &len) || len > INPUT_MAX ||
            fread(input, 1, (size_t)len, stdin) != len) {
            fputs("h1_probe: malformed input\n", stderr);
            free(input);
            return 1;
        }
        in = sw_slice_of(input, (size_t)len);
        printf("{\"messages\": [");
        while (message(&in, response,
                       sw_slice_eq(name, SW_S("HEAD")) ? SW_METHOD_HEAD : SW_METHOD_GET, first)) {
            first = false;
        }
    }
    free(input);
    return 0;
}
