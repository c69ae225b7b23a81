/* http/h1_response.c - a response head (RFC 9112, 4).
 *
 * Room       http/. An instance is ours, but not trusted to frame: its bytes go to a client.
 */
#include "http/http_priv.h"

/* "HTTP/1.x SSS[ reason]" CRLF. DONE: the line's bytes. */
static struct sw_parsed status_line(const char *p, const char *end, struct sw_head *h)
{
    static const char shape[] = "HTTP/1.v 000"; /* v: 0 or 1; 0: a digit */
    const char *const line = p, *start;
    struct sw_parsed eol;

    for (size_t i = 0; i < sizeof(shape) - 1; i++, p++) {
        bool fits;

        if (p == end) {
            return sw_h1__more();
        }
        switch (shape[i]) {
        case 'v':
            fits = *p == '0' || *p == '1';
            break;
        case '0':
            fits = sw_http__is(*p, SW_CC_DIGIT) != 0;
            break;
        default:
            fits = *p == shape[i];
            break;
        }
        if (!fits) {
            return sw_h1__fail(SW_E_APP_HEAD); /* RFC 9112, 4 */
        }
    }
    h->minor = (uint8_t)(line[7] - '0');
    h->status = (uint16_t)((line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0'));
    if (h->status < 100 || h->status > 599) {
        return sw_h1__fail(SW_E_APP_HEAD); /* RFC 9110, 15 */
    }
    start = p;
    if (p < end && *p == ' ') {
        start = ++p;
        p = sw_http__value_end(p, end);
    }
    eol = sw_h1__eol(p, end, SW_E_APP_HEAD);
    h->reason = sw_slice_of(start, (size_t)(p - start));
    eol.consumed += (size_t)(p - line);
    return eol;
}

/* RFC 9112, 6.3 */
static enum sw_err response_frame(struct sw_head *h, enum sw_method request_method)
{
    enum sw_err err = sw_h1__frame(h);

    if (err != SW_OK) {
        return err;
    }
    if (request_method == SW_METHOD_HEAD || h->status < 200 || h->status == 204 ||
        h->status == 304) {
        h->framing = SW_FRAMING_NONE;
    } else if (h->framing == SW_FRAMING_NONE) {
        h->framing = SW_FRAMING_CLOSE;
        h->keep_alive = false;
    }
    return SW_OK;
}

struct sw_parsed sw_h1_response(struct sw_slice input, size_t *scanned,
                                const struct sw_h1_limits *limits, enum sw_method request_method,
                                struct sw_head *ret_head)
{
    const bool full = input.len >= limits->head_bytes_max;
    const char *p = input.ptr, *const end = p + (full ? limits->head_bytes_max : input.len);
    struct sw_head h = {.fields = ret_head->fields, .field_max = ret_head->field_max};
    struct sw_parsed step;

    if (!full && sw_h1__wait(input, *scanned, 16)) {
        *scanned = input.len;
        return sw_h1__more();
    }

    step = status_line(p, end, &h);
    if (step.step == SW_STEP_DONE) {
        struct sw_h1__lines lines = {.p = p + step.consumed, .end = end};

        step = sw_h1__fields(&lines, &h);
        if (step.step == SW_STEP_DONE) {
            if (response_frame(&h, request_method) != SW_OK) {
                return sw_h1__fail(SW_E_APP_HEAD);
            }
            *ret_head = h;
            step.consumed = (size_t)(lines.p - input.ptr);
            return step;
        }
    }
    if (step.step == SW_STEP_FAIL) {
        return sw_h1__fail(step.err == SW_E_FIELDS_MANY ? SW_E_APP_HEAD_LARGE : SW_E_APP_HEAD);
    }
    if (full) {
        return sw_h1__fail(SW_E_APP_HEAD_LARGE);
    }
    *scanned = input.len;
    return sw_h1__more();
}
