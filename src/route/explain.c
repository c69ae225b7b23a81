/* route/explain.c - which route a request takes, and why, in words. For people at a terminal. */
#include "route/route_priv.h"

#define OTHERS_MAX 20u

static const char *placement_name(enum sw_placement_kind kind)
{
    switch (kind) {
    case SW_PLACE_NONE:
        return "none";
    case SW_PLACE_STICKY:
        return "sticky";
    case SW_PLACE_SESSION:
        return "session";
    case SW_PLACE_TOKEN:
        return "token";
    case SW_PLACE_SEALED:
        return "sealed";
    case SW_PLACE_COUNT:
        break;
    }
    SW_UNREACHABLE();
}

/* The request's bytes may move the reader's cursor: only what is visible is shown. */
static void shown(struct sw_out *out, struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        sw_out_char(out, (unsigned char)s.ptr[i] > 0x20 && s.ptr[i] != 0x7f ? s.ptr[i] : '?');
    }
}

static void title(struct sw_out *out, const struct sw_config_route *c)
{
    sw_out_printf(out, "  line %u: ", c->line);
    if (c->host.len > 0) {
        sw_out_slice(out, c->host);
        sw_out_char(out, ' ');
    }
    sw_out_slice(out, c->path);
    for (size_t i = 0; i < c->method_count; i++) {
        sw_out_cstr(out, i == 0 ? " [" : ", ");
        sw_out_slice(out, c->methods[i]);
    }
    sw_out_cstr(out, c->method_count > 0 ? "]" : "");
    for (size_t i = 0; i < c->header_count; i++) {
        sw_out_printf(out, " %.*s: %.*s", SW_SARG(c->headers[i].name),
                      SW_SARG(c->headers[i].value));
    }
}

static void why_match(struct sw_out *out, const struct sw_one *one)
{
    switch (one->host_kind) {
    case SW_HOST_EXACT:
        sw_out_lit(out, "this very host");
        break;
    case SW_HOST_WILD:
        sw_out_lit(out, "the host by wildcard");
        break;
    case SW_HOST_ANY:
        sw_out_lit(out, "any host");
        break;
    }
    switch (one->path_kind) {
    case SW_PATH_EXACT:
        sw_out_lit(out, ", this very path");
        break;
    case SW_PATH_TEMPLATE:
        sw_out_printf(out, ", the path by template (%u of %u segments literal)", one->literals,
                      one->segment_count);
        break;
    case SW_PATH_STAR:
        if (one->segment_count == 0) {
            sw_out_lit(out, ", any path");
        } else {
            sw_out_printf(out, ", the path by its first %u segment%s", one->segment_count,
                          one->segment_count == 1 ? "" : "s");
        }
        break;
    }
    sw_out_cstr(out, one->config->method_count > 0 ? ", the method is listed" : ", any method");
    sw_out_cstr(out, one->config->header_count > 0 ? ", the headers are there" : "");
}

static void candidate(struct sw_out *out, const struct sw_one *one, const struct sw_head *head,
                      const struct sw_one *winner)
{
    title(out, one->config);
    if (!sw_pattern__headers_match(one->config, head)) {
        sw_out_lit(out, "\n    no: a header it wants is missing or has another value\n");
    } else if (!sw_pattern__method_matches(one->config, head->method_name)) {
        sw_out_lit(out, "\n    no: its methods do not include ");
        shown(out, head->method_name);
        sw_out_char(out, '\n');
    } else {
        sw_out_cstr(out,
                    one == winner ? "\n    chosen: " : "\n    matches, but is less specific: ");
        why_match(out, one);
        sw_out_char(out, '\n');
    }
}

static void candidates(struct sw_out *out, const struct sw_routes *r, const struct sw_head *head,
                       struct sw_slice host, const struct sw_one *winner)
{
    uint32_t others = 0, told = 0;

    for (uint32_t i = 0; i < r->one_count; i++) {
        const struct sw_one *one = &r->ones[i];

        if (sw_pattern__host_matches(one, host) && sw_pattern__path_matches(one, head->path)) {
            candidate(out, one, head, winner);
        } else {
            others++;
        }
    }
    for (uint32_t i = 0; i < r->one_count && told < OTHERS_MAX; i++) {
        const struct sw_one *one = &r->ones[i];
        bool host_fits = sw_pattern__host_matches(one, host);

        if (!host_fits || !sw_pattern__path_matches(one, head->path)) {
            title(out, one->config);
            sw_out_cstr(out, host_fits ? "\n    no: another path\n" : "\n    no: another host\n");
            told++;
        }
    }
    if (others > told) {
        sw_out_printf(out, "  and %u more for other hosts or paths\n", others - told);
    }
}

static void answer(struct sw_out *out, const struct sw_routed *routed,
                   const struct sw_config_app *apps, const struct sw_head *head)
{
    const struct sw_config_route *c = routed->route;
    struct sw_slice cut = sw_route_strip(c, head->path), rest = sw_slice_tail(head->path, cut.len);

    sw_out_printf(out, "app %.*s, state %s", SW_SARG(apps[c->app].name),
                  placement_name(c->placement));
    if (c->token.on) {
        sw_out_printf(out, ", %s of %.*s", c->token.required ? "with a token" : "perhaps a token",
                      SW_SARG(c->token.issuer));
    }
    if (c->strip.len > 0) {
        sw_out_printf(out, ", %.*s is cut off", SW_SARG(c->strip));
    }
    for (uint32_t i = 0; i < routed->capture_count; i++) {
        sw_out_printf(out, ", %.*s = ", SW_SARG(routed->captures[i].name));
        shown(out, routed->captures[i].value);
    }
    sw_out_lit(out, "\nthe app sees ");
    shown(out, head->method_name);
    sw_out_cstr(out, rest.len == 0 ? " /" : " ");
    shown(out, rest);
    if (head->query.ptr != NULL) {
        sw_out_char(out, '?');
        shown(out, head->query);
    }
    sw_out_char(out, '\n');
}

void sw_route_explain(const struct sw_routes *r, const struct sw_head *head, struct sw_out *out)
{
    struct sw_routed routed = sw_route_match(r, head);
    const struct sw_one *winner = NULL;
    char buf[SW_HOST_BYTES_MAX];

    for (uint32_t i = 0; i < r->one_count && routed.err == SW_OK; i++) {
        winner = r->ones[i].config == routed.route ? &r->ones[i] : winner;
    }
    shown(out, head->method_name);
    sw_out_char(out, ' ');
    shown(out, head->host);
    shown(out, head->path);
    sw_out_char(out, '\n');
    candidates(out, r, head, sw_pattern__host(head->host, buf), winner);
    if (routed.err == SW_OK) {
        answer(out, &routed, r->config->apps, head);
    } else if (routed.err == SW_E_NO_METHOD) {
        sw_out_printf(out, "nobody answers: 405, Allow: %.*s\n", SW_SARG(routed.allow));
    } else {
        sw_out_lit(out, "nobody answers: 404\n");
    }
}
