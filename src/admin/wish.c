/* admin/wish.c - what a request about sessions wants: its path, query and conditions, copied out.
 *
 * Room       admin/. Pure.
 * Flow       conn.c hands in the head while it is there; sessions.c acts on the wish later.
 *
 * Strict, because an `end` that meant something else cannot be taken back: a parameter that is not
 * known here, or that is there twice, is refused.
 */
#include "admin/admin_priv.h"

/* ---- text ------------------------------------------------------------------------------------ */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* plus: '+' is a blank, as browsers write queries. False: malformed, or no room. */
static bool decode(struct sw_slice in, bool plus, struct sw_out *out)
{
    for (size_t i = 0; i < in.len; i++) {
        char c = in.ptr[i];

        if (c == '%') {
            int high = i + 2 < in.len ? hex_digit(in.ptr[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(in.ptr[i + 2]) : -1;

            if (low < 0) {
                return false;
            }
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        sw_out_char(out, c);
    }
    return !out->overflowed;
}

static const char *subject_set(struct sw_admin_wish *w, struct sw_slice text, bool plus)
{
    struct sw_out out = sw_out_init(w->subject, sizeof(w->subject));

    if (!decode(text, plus, &out)) {
        return out.overflowed ? "a subject has at most 255 bytes"
                              : "the subject is not properly percent-encoded";
    }
    if (out.len == 0) {
        return "a subject has at least one byte";
    }
    w->has_subject = true;
    w->subject_len = out.len;
    return NULL;
}

/* ---- parameters ------------------------------------------------------------------------------ */

static const char *param_subject(struct sw_admin_wish *w, struct sw_slice value)
{
    return subject_set(w, value, true);
}

/* An issuer or a jti. */
static const char *name_set(struct sw_slice value, char text[ADMIN_NAME_MAX], size_t *ret_len)
{
    struct sw_out out = sw_out_init(text, ADMIN_NAME_MAX);

    if (!decode(value, true, &out) || out.len == 0) {
        return "`issuer` and `jti` are 1 to 1024 bytes, percent-encoded";
    }
    *ret_len = out.len;
    return NULL;
}

static const char *param_issuer(struct sw_admin_wish *w, struct sw_slice value)
{
    return name_set(value, w->issuer, &w->issuer_len);
}

static const char *param_jti(struct sw_admin_wish *w, struct sw_slice value)
{
    return name_set(value, w->jti, &w->jti_len);
}

/* HANDLE, or NAME.HANDLE, or NAME. alone: a subject may be kept under several names. */
static const char *param_after(struct sw_admin_wish *w, struct sw_slice value)
{
    static const char why[] = "`after` stands here as the page before told it";
    struct sw_slice name, handle = value;
    uint64_t n = 0;

    if (sw_slice_find(value, '.') < value.len) {
        (void)sw_slice_cut(value, '.', &name, &handle);
        if (!sw_slice_u64(name, &n) || n > SW_KEYS_MAX) {
            return why;
        }
        w->after_name = (size_t)n;
        if (handle.len == 0) {
            return NULL;
        }
    }
    w->has_after = sw_admin__handle_read(handle, &w->after);
    return w->has_after ? NULL : why;
}

static const char *param_limit(struct sw_admin_wish *w, struct sw_slice value)
{
    uint64_t n;

    if (!sw_slice_u64(value, &n) || n == 0 || n > ADMIN_LIST_MAX) {
        return "`limit` is a number from 1 to 1000";
    }
    w->limit = (size_t)n;
    return NULL;
}

static const char *param_mode(struct sw_admin_wish *w, struct sw_slice value)
{
    w->replace = sw_slice_eq(value, SW_S("replace"));
    return w->replace || sw_slice_eq(value, SW_S("create")) ? NULL : "`mode` is create or replace";
}

static const char *param_entity(struct sw_admin_wish *w, struct sw_slice value)
{
    w->entity = sw_slice_eq(value, SW_S("yes"));
    return w->entity || sw_slice_eq(value, SW_S("no")) ? NULL : "`entity` is yes or no";
}

static const struct param {
    struct sw_slice name;
    const char *(*set)(struct sw_admin_wish *w, struct sw_slice value);
    uint32_t endpoints, methods;
} params[] = {
#define READ (SW_BIT(SW_METHOD_GET) | SW_BIT(SW_METHOD_HEAD))
    {SW_S("subject"), param_subject, SW_BIT(ADMIN_SESSIONS) | SW_BIT(ADMIN_SUBJECT), ~0u},
    {SW_S("issuer"), param_issuer, SW_BIT(ADMIN_TOKEN), ~0u},
    {SW_S("jti"), param_jti, SW_BIT(ADMIN_TOKEN), ~0u},
    {SW_S("after"), param_after, SW_BIT(ADMIN_SESSIONS) | SW_BIT(ADMIN_EXPORT), READ},
    {SW_S("limit"), param_limit, SW_BIT(ADMIN_SESSIONS), READ},
    {SW_S("mode"), param_mode, SW_BIT(ADMIN_IMPORT), ~0u},
    {SW_S("entity"), param_entity, SW_BIT(ADMIN_SESSION), SW_BIT(SW_METHOD_DELETE)},
#undef READ
};
_Static_assert(ADMIN_ENDPOINT_COUNT <= 32, "endpoints are bits of one word");

static const char *query_read(struct sw_slice query, enum sw_admin_endpoint endpoint,
                              struct sw_admin_wish *w)
{
    uint32_t seen = 0;

    while (query.len > 0) {
        const char *why = "there is no such parameter here; docs/admin.md lists what there is";
        struct sw_slice one, name, value;

        (void)sw_slice_cut(query, '&', &one, &query);
        (void)sw_slice_cut(one, '=', &name, &value);
        for (size_t i = 0; i < SW_COUNTOF(params) && one.len > 0; i++) {
            if (!sw_slice_eq(name, params[i].name) ||
                (params[i].endpoints & SW_BIT(endpoint)) == 0 ||
                (params[i].methods & SW_BIT(w->method)) == 0) {
                continue;
            }
            why = (seen & SW_BIT(i)) != 0 ? "a parameter is there twice" : params[i].set(w, value);
            seen |= SW_BIT(i);
        }
        if (one.len > 0 && why != NULL) {
            return why;
        }
    }
    return NULL;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static enum sw_admin_media media_of(const struct sw_head *h)
{
    const struct sw_field *f = sw_head_find(h, SW_FIELD_CONTENT_TYPE);
    struct sw_slice type, more;

    if (f == NULL) {
        return MEDIA_NONE;
    }
    (void)sw_slice_cut(f->value, ';', &type, &more);
    type = sw_slice_trim(type);
    if (sw_slice_eq_nocase(type, SW_S("application/json"))) {
        return MEDIA_JSON;
    }
    return sw_slice_eq_nocase(type, SW_S("application/x-ndjson")) ? MEDIA_LINES : MEDIA_OTHER;
}

static const char *conditions_read(const struct sw_head *h, struct sw_admin_wish *w)
{
    for (uint32_t i = 0; i < h->field_count; i++) {
        const struct sw_field *f = &h->fields[i];

        if (sw_slice_eq_nocase(f->name, SW_S("If-None-Match"))) {
            if (w->has_none_match || !sw_slice_eq(f->value, SW_S("*"))) {
                return "If-None-Match is taken as * only";
            }
            w->has_none_match = true;
        } else if (sw_slice_eq_nocase(f->name, SW_S("If-Match"))) {
            if (w->has_match || f->value.len == 0 || f->value.len > sizeof(w->match)) {
                return "If-Match is taken once, with at most 256 bytes";
            }
            w->has_match = true;
            w->match_len = f->value.len;
            memcpy(w->match, f->value.ptr, f->value.len);
        }
    }
    return w->has_match && w->has_none_match ? "If-Match and If-None-Match contradict each other"
                                             : NULL;
}

bool sw_admin__wish_matches(const struct sw_admin_wish *w, struct sw_version version)
{
    struct sw_slice list = {w->match, w->match_len}, one;
    char text[SW_VERSION_TEXT_MAX];
    struct sw_out out = sw_out_init(text, sizeof(text));

    SW_ASSERT(w->has_match);
    if (sw_slice_eq(list, SW_S("*"))) {
        return true;
    }
    sw_version_put(&out, version);
    SW_ASSERT(!out.overflowed);
    while (list.len > 0) { /* our tags have no comma; a weak one never matches */
        (void)sw_slice_cut(list, ',', &one, &list);
        if (sw_slice_eq(sw_slice_trim(one), sw_out_done(&out))) {
            return true;
        }
    }
    return false;
}

const char *sw_admin__wish_read(const struct sw_head *h, struct sw_admin_routed routed,
                                struct sw_admin_wish *ret_wish)
{
    struct sw_admin_wish w = {.method = h->method, .limit = ADMIN_LIST};
    const char *why;

    SW_ASSERT(sw_admin__personal(routed.endpoint));
    w.media = media_of(h);
    if (routed.endpoint == ADMIN_SESSION) {
        w.has_key = sw_admin__handle_read(routed.name, &w.key);
        SW_ASSERT(w.has_key); /* it was routed by that */
    }
    if (routed.endpoint == ADMIN_SEALED) {
        bool read = sw_b64url_exact(routed.name, w.sealed_id, sizeof(w.sealed_id)) == SW_OK;

        SW_ASSERT(read); /* likewise */
    }
    if (routed.endpoint == ADMIN_PIN) {
        bool read = sw_admin__pin_read(routed.name, &w.pin_id);

        SW_ASSERT(read);
    }
    if (routed.endpoint == ADMIN_SUBJECT && routed.name.len > 0) {
        why = subject_set(&w, routed.name, false);
        if (why != NULL) {
            return why;
        }
        if (h->query.len > 0) {
            return "the path names the subject; there is no parameter here";
        }
    }
    why = query_read(h->query, routed.endpoint, &w);
    if (why == NULL && routed.endpoint == ADMIN_SUBJECT && !w.has_subject) {
        why = "which subject? /v1/subjects/NAME, or /v1/subjects?subject=NAME";
    }
    if (why == NULL && routed.endpoint == ADMIN_TOKEN && (w.issuer_len == 0 || w.jti_len == 0)) {
        why = "which token? /v1/tokens?issuer=ISSUER&jti=JTI: a jti means something beside its "
              "issuer only";
    }
    if (why == NULL) {
        why = conditions_read(h, &w);
    }
    *ret_wish = w;
    return why;
}
