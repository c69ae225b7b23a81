/* gateway/respond.c - heads composed: the request for the instance, the answer for the client, and
 * answers of our own.
 */
#include "gateway/gateway_priv.h"

#define OWN_BODY_BYTES   512u
#define LINES_BYTES      1024u /* names and short values of our own lines */
#define ALARM_LINE_BYTES (SW_ALARM_ID_BYTES_MAX + 2 * SW_ALARM_DATA_BYTES_MAX + 64)
#define HEAD_SLACK_BYTES 1024u /* status or request line, Via, Forwarded, Date, framing */

/* A buffer that holds what another head held, and our lines. */
static struct sw_buf *head_buf(struct sw_exchange *x, const struct sw_head *head, size_t extra)
{
    size_t bytes = HEAD_SLACK_BYTES + extra + head->target.len + head->reason.len;

    for (uint32_t i = 0; i < head->field_count; i++) {
        bytes += head->fields[i].name.len + head->fields[i].value.len + 4;
    }
    return sw_buf_get(x->worker->loop, SW_MAX(bytes, SW_BUF_BYTES));
}

/* What only we say to an app of this route. */
static size_t names_stripped(const struct sw_config_route *route,
                             struct sw_slice names[SW_TOKEN_HEADERS_MAX + 1])
{
    size_t count = 0;

    if (route->token.on) {
        SW_ASSERT(route->token.header_count <= SW_TOKEN_HEADERS_MAX);
        for (size_t i = 0; i < route->token.header_count; i++) {
            names[count++] = route->token.headers[i].name;
        }
    }
    if (sw_place_has_phantom(route)) {
        names[count++] = SW_S("Authorization");
    }
    return count;
}

enum sw_err sw_request__head(struct sw_exchange *x)
{
    const struct sw_config_route *route = x->routed.route;
    const struct sw_field *host = sw_head_find(&x->request, SW_FIELD_HOST);
    size_t mark = sw_arena_mark(&x->arena);
    struct sw_slice phantom;
    enum sw_err err = sw_place_phantom(&x->ask, &phantom);
    size_t cap = (x->ask.state.ptr == NULL ? 0 : x->ask.state.len) + x->ask.key_text.len +
                 route->strip.len + x->ask.ref_url.len + x->ask.trace.len +
                 x->ask.token.lines.len + phantom.len +
                 (x->ask.alarm == NULL ? 0 : ALARM_LINE_BYTES) + LINES_BYTES;
    char *text = sw_arena_bytes(&x->arena, cap);
    struct sw_out lines = sw_out_init(text, cap), out;
    struct sw_slice own[SW_OWN_COOKIES_MAX], names[SW_TOKEN_HEADERS_MAX + 1];
    char own_text[SW_OWN_COOKIES_TEXT];
    struct sw_forward_request f = {
        .head = &x->request,
        /* an alarm's path is the app's own already */
        .strip =
            x->alarms != NULL ? (struct sw_slice){NULL, 0} : sw_route_strip(route, x->request.path),
        .peer = x->peer,
        .proto = x->ask.secure ? SW_S("https") : SW_S("http"),
        .peer_trusted = x->ask.trusted,
        .cookies_stripped = own,
        .cookies_stripped_count = sw_place_own_cookies(route, own, own_text),
        .names_stripped = names,
        .names_stripped_count = names_stripped(route, names),
        .framing = x->request.framing,
        .length = x->request.length,
        .keep_upgrade = x->request.upgrade.len > 0,
    };
    uint64_t now = sw_loop_now_ns(x->worker->loop);
    struct sw_buf *buf;

    if (err != SW_OK) {
        return err;
    }
    if (x->ask.state_present &&
        x->ask.state.len > sw_app_inline_bytes(x->worker->apps, route->app)) {
        x->ask.by_ref = true; /* its server was found not to take so long a header */
    }
    if (x->ask.state_present && (x->ask.by_ref || x->ask.state.ptr == NULL)) {
        if (x->ask.ref_url.len == 0) {
            return SW_E_STATE_LARGE; /* never a part of it */
        }
        sw_count(&x->worker->stats->by_ref, 1);
    }
    if (text == NULL ||
        !sw_handoff_put(
            &lines, &x->ask,
            (SW_MIN(x->deadline_ns, now + x->worker->config->timeouts.response_ns) - now) /
                SW_NS_PER_MS)) {
        return SW_E_NO_MEMORY;
    }
    if (route->strip.len > 0 && x->alarms == NULL) {
        sw_out_lit(&lines, "X-Forwarded-Prefix: ");
        sw_out_slice(&lines, route->strip);
        sw_out_lit(&lines, "\r\n");
    }
    if (x->request.expect_continue && !x->body_in_done && x->held_bytes == 0) {
        sw_out_lit(&lines, "Expect: 100-continue\r\n"); /* RFC 9110, 10.1.1: the app decides */
    }
    sw_out_slice(&lines, phantom);
    if (lines.overflowed) {
        return SW_E_NO_MEMORY;
    }
    f.extra = sw_out_done(&lines);
    buf = head_buf(x, &x->request,
                   f.extra.len + 2 * (host == NULL ? 0 : host->value.len) + 2 * x->peer.len);
    if (buf == NULL) {
        return SW_E_NO_BUFFERS;
    }
    out = sw_out_init(buf->data, buf->cap);
    err = sw_forward_request_put(&out, &f) ? sw_stream_send(x->upstream, buf, sw_out_done(&out))
                                           : SW_E_NO_BUFFERS;
    sw_buf_unref(buf);
    sw_arena_reset(&x->arena, mark);
    return err;
}

/* How the answer's body goes on to this client. */
static enum sw_framing answer_framing(const struct sw_exchange *x)
{
    if (x->gathering && !x->gather.full && x->answer->framing != SW_FRAMING_NONE) {
        return SW_FRAMING_LENGTH; /* all of it is here */
    }
    switch (x->answer->framing) {
    case SW_FRAMING_NONE:
    case SW_FRAMING_LENGTH:
        return x->answer->framing;
    case SW_FRAMING_CHUNKED:
    case SW_FRAMING_CLOSE:
        return x->request.minor >= 1 ? SW_FRAMING_CHUNKED : SW_FRAMING_CLOSE;
    }
    SW_UNREACHABLE();
}

/* Lines that only some answers have: cookies of ours, and what the route exposes. */
static bool client_lines(struct sw_exchange *x, struct sw_slice *ret_lines)
{
    const struct sw_config_route *route = x->routed.route;
    size_t cap = x->ask.client_lines.len + 256;
    struct sw_out out;
    char *text;

    *ret_lines = x->ask.client_lines;
    if (route == NULL || (!route->expose_verdict && !route->expose_instance)) {
        return true;
    }
    text = sw_arena_bytes(&x->arena, cap);
    if (text == NULL) {
        return false;
    }
    out = sw_out_init(text, cap);
    sw_out_slice(&out, x->ask.client_lines);
    if (route->expose_verdict) {
        sw_out_lit(&out, "Stateway-Verdict: ");
        sw_out_cstr(&out, sw_verdict_name(x->ask.verdict));
        sw_out_lit(&out, "\r\n");
    }
    if (route->expose_instance && x->ask.instance != NULL) {
        sw_out_lit(&out, "Stateway-Instance: ");
        sw_out_cstr(&out, x->ask.instance->name);
        sw_out_lit(&out, "\r\n");
    }
    *ret_lines = sw_out_done(&out);
    return !out.overflowed;
}

static enum sw_err send_head(struct sw_exchange *x, const struct sw_forward_response *f)
{
    struct sw_buf *buf = head_buf(x, f->head, f->extra.len);
    struct sw_out out;
    enum sw_err err;

    if (buf == NULL) {
        return SW_E_NO_BUFFERS;
    }
    out = sw_out_init(buf->data, buf->cap);
    err = sw_forward_response_put(&out, f, sw_worker__date(x->worker))
              ? sw_stream_send(x->conn->stream, buf, sw_out_done(&out))
              : SW_E_NO_BUFFERS;
    sw_buf_unref(buf);
    return err;
}

/* Trailers of the answer are gathered only where they can go on. */
static struct sw_out *trailer_out(struct sw_exchange *x)
{
    if (x->answer_framing != SW_FRAMING_CHUNKED || x->answer->framing != SW_FRAMING_CHUNKED) {
        return NULL;
    }
    x->trailer_text = sw_arena_bytes(&x->arena, SW_TRAILER_BYTES_MAX);
    if (x->trailer_text == NULL) {
        return NULL;
    }
    x->trailers = sw_out_init(x->trailer_text, SW_TRAILER_BYTES_MAX);
    return &x->trailers;
}

enum sw_err sw_respond__head(struct sw_exchange *x)
{
    const struct sw_head *answer = x->answer;
    struct sw_forward_response f = {.head = answer};

    x->answer_framing = answer_framing(x);
    x->keep_alive = x->keep_alive && x->body_in_done && x->answer_framing != SW_FRAMING_CLOSE &&
                    !x->worker->stopping;
    if (!client_lines(x, &f.extra)) {
        return SW_E_NO_MEMORY;
    }
    f.private_cache = x->ask.sets_cookie;
    f.framing = x->answer_framing;
    f.length = x->gathering && !x->gather.full ? x->gather.len : answer->length;
    f.keep_alive = x->keep_alive;
    f.client_minor = x->request.minor;
    f.keep_upgrade = x->upgraded;
    f.head_request = x->request.method == SW_METHOD_HEAD || answer->status == 304;
    x->status = answer->status;
    if (!x->gathering) {
        sw_body_init(&x->response_body, answer, UINT64_MAX, true, trailer_out(x));
        x->answer_done = answer->framing == SW_FRAMING_NONE ||
                         (answer->framing == SW_FRAMING_LENGTH && answer->length == 0);
    }
    return send_head(x, &f);
}

enum sw_err sw_respond__interim(struct sw_exchange *x)
{
    struct sw_forward_response f = {
        .head = &x->response,
        .framing = SW_FRAMING_NONE,
        .keep_alive = true,
        .client_minor = x->request.minor,
    };

    if (x->response.status == 100 && !x->request.expect_continue) {
        return SW_OK; /* nobody waits for it */
    }
    return send_head(x, &f);
}

enum sw_err sw_respond__continue(struct sw_exchange *x)
{
    x->request.expect_continue = false; /* it is answered: the app need not */
    if (x->request.minor == 0) {
        return SW_OK; /* RFC 9110, 10.1.1 */
    }
    return sw_stream_send(x->conn->stream, NULL, SW_S("HTTP/1.1 100 Continue\r\n\r\n"));
}

enum sw_err sw_respond__whole(struct sw_exchange *x, unsigned status, struct sw_slice reason,
                              struct sw_slice lines, struct sw_buf *body_buf, struct sw_slice body)
{
    struct sw_slice date = sw_worker__date(x->worker);
    bool bare = status == 204 || status == 304;
    struct sw_buf *buf = sw_buf_get(
        x->worker->loop, SW_MAX(lines.len + reason.len + x->ask.client_lines.len + HEAD_SLACK_BYTES,
                                (size_t)SW_BUF_BYTES));
    struct sw_out out;
    enum sw_err err;

    if (buf == NULL) {
        return SW_E_NO_BUFFERS;
    }
    x->own_answer = true;
    x->keep_alive = x->keep_alive && x->body_in_done && !x->worker->stopping;
    x->status = status;
    reason = reason.len > 0 ? reason : sw_http_reason(status);
    out = sw_out_init(buf->data, buf->cap);
    sw_out_printf(&out, "HTTP/1.1 %u %.*s\r\nDate: %.*s\r\n", status, SW_SARG(reason),
                  SW_SARG(date));
    if (!bare) {
        sw_out_printf(&out, "Content-Length: %zu\r\n", body.len);
    }
    sw_out_cstr(&out, x->keep_alive ? (x->request.minor == 0 ? "Connection: keep-alive\r\n" : "")
                                    : "Connection: close\r\n");
    sw_out_slice(&out, lines);
    sw_out_slice(&out, x->ask.client_lines);
    sw_out_lit(&out, "\r\n");
    err =
        out.overflowed ? SW_E_NO_BUFFERS : sw_stream_send(x->conn->stream, buf, sw_out_done(&out));
    if (err == SW_OK && !bare && body.len > 0 && x->request.method != SW_METHOD_HEAD) {
        err = sw_stream_send(x->conn->stream, body_buf, body);
        x->bytes_out += body.len;
    }
    sw_buf_unref(buf);
    x->answer_head_sent = true;
    x->answer_done = true;
    return err;
}

enum sw_ex_next sw_respond__jwks(struct sw_exchange *x)
{
    static const struct sw_slice lines =
        SW_S("Content-Type: application/jwk-set+json\r\nCache-Control: public, max-age=300\r\n"
             "Access-Control-Allow-Origin: *\r\nX-Content-Type-Options: nosniff\r\n");
    char text[SW_JWKS_TEXT_BYTES];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_slice body;
    enum sw_err err;

    if (x->request.method != SW_METHOD_GET && x->request.method != SW_METHOD_HEAD) {
        x->extra_lines = SW_S("Allow: GET, HEAD\r\n");
        return sw_ex__fail(x, SW_E_NO_METHOD);
    }
    err = sw_mint_put_public(&out, x->worker->env.mint) ? SW_OK : SW_E_NO_MEMORY;
    body = sw_out_done(&out);
    if (err == SW_OK) {
        err = sw_gather__begin(&x->gather, x->worker, body.len, body.len);
    }
    for (size_t at = 0; err == SW_OK && at < body.len; at += SW_BUF_BYTES) {
        err = sw_gather__add(&x->gather, x->worker,
                             sw_slice_head(sw_slice_tail(body, at), SW_BUF_BYTES));
    }
    if (err != SW_OK) {
        return sw_ex__fail(x, err);
    }
    sw_ex__to(x, EX_SEND);
    err = sw_respond__whole(x, 200, SW_S(""), lines, sw_gather__buf(&x->gather),
                            sw_gather__bytes(&x->gather));
    return sw_ex__finish(x, x->keep_alive && err == SW_OK, err == SW_OK);
}

/* Which of our answers may be tried again, and when. */
static const char *retry_after(unsigned status, enum sw_err err)
{
    return status == 503 || err == SW_E_IDEM_RUNNING ? "Retry-After: 1\r\n" : "";
}

/* The errors of Idempotency-Key are problem documents (RFC 9457), as its draft asks. */
static bool is_problem(enum sw_err err)
{
    switch (err) {
    case SW_E_IDEM_MISSING:
    case SW_E_IDEM_SYNTAX:
    case SW_E_IDEM_PRINCIPAL:
    case SW_E_IDEM_RUNNING:
    case SW_E_IDEM_UNKNOWN:
    case SW_E_IDEM_REUSED:
    case SW_E_IDEM_TOO_LARGE:
    case SW_E_IDEM_STORE:
        return true;
    default:
        return false;
    }
}

#define PROBLEM_TYPE "https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/#"

static void put_problem(struct sw_out *out, enum sw_err err, unsigned status)
{
    sw_out_printf(out, "{\"type\":\"" PROBLEM_TYPE "%s\",\"title\":\"%s\",\"status\":%u%s}\n",
                  sw_err_label(err), sw_err_text(err), status,
                  err == SW_E_IDEM_UNKNOWN ? ",\"state\":\"unknown\"" : "");
}

enum sw_err sw_respond__own(struct sw_exchange *x, enum sw_err err)
{
    unsigned status = x->status_instead != 0 ? x->status_instead : sw_err_status(err);
    struct sw_slice lines = x->ask.client_lines;
    struct sw_slice reason = sw_http_reason(status), date = sw_worker__date(x->worker);
    struct sw_buf *buf = sw_buf_get(x->worker->loop, SW_BUF_BYTES);
    bool problem = is_problem(err);
    char text[OWN_BODY_BYTES];
    struct sw_out out, body = sw_out_init(text, sizeof(text));
    enum sw_err sent;

    SW_ASSERT(status >= 400);
    if (buf == NULL) {
        return SW_E_NO_BUFFERS;
    }
    if (problem) {
        put_problem(&body, err, status);
    } else {
        sw_out_printf(&body, "stateway: %s.\n", sw_err_text(err));
    }
    x->keep_alive = x->keep_alive && x->body_in_done && !x->worker->stopping;
    x->status = status;
    out = sw_out_init(buf->data, buf->cap);
    sw_out_printf(&out,
                  "HTTP/1.1 %u %.*s\r\nDate: %.*s\r\nContent-Type: %s\r\n"
                  "Content-Length: %zu\r\nCache-Control: no-store\r\nStateway-Error: %s\r\n%s%s",
                  status, SW_SARG(reason), SW_SARG(date),
                  problem ? "application/problem+json\r\nContent-Language: en"
                          : "text/plain; charset=utf-8",
                  body.len, sw_err_label(err), retry_after(status, err),
                  x->keep_alive ? (x->request.minor == 0 ? "Connection: keep-alive\r\n" : "")
                                : "Connection: close\r\n");
    sw_out_slice(&out, x->extra_lines);
    sw_out_slice(&out,
                 lines); /* a dropped pin; or an id that is new already, though its answer failed */
    sw_out_lit(&out, "\r\n");
    if (x->request.method != SW_METHOD_HEAD) {
        sw_out_slice(&out, sw_out_done(&body));
        x->bytes_out += body.len;
    }
    sent = out.overflowed || body.overflowed
               ? SW_E_NO_BUFFERS
               : sw_stream_send(x->conn->stream, buf, sw_out_done(&out));
    sw_buf_unref(buf);
    x->answer_head_sent = true;
    x->answer_done = true;
    return sent;
}
