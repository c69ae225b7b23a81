/* http/cookie.c - cookies as browsers have them (draft-ietf-httpbis-rfc6265bis, 5.7 and 4.1).
 *
 * Room       http/. Reads Cookie, writes Set-Cookie. Quotes mean nothing, names are case-sensitive.
 */
#include "http/http_priv.h"

struct sw_cookie_found sw_cookie_find(const struct sw_head *h, struct sw_slice name)
{
    struct sw_cookie_found found = {{NULL, 0}, 0};

    for (uint32_t i = 0; i < h->field_count; i++) {
        struct sw_slice rest = h->fields[i].value, pair;

        if (h->fields[i].id != SW_FIELD_COOKIE) {
            continue;
        }
        while (rest.len > 0) {
            struct sw_slice pair_name, value;

            (void)sw_slice_cut(rest, ';', &pair, &rest);
            if (!sw_slice_cut(pair, '=', &pair_name, &value) ||
                !sw_slice_eq(sw_slice_trim(pair_name), name)) {
                continue;
            }
            if (found.count++ == 0) {
                found.value = sw_slice_trim(value);
            }
        }
    }
    return found;
}

bool sw_set_cookie_put(struct sw_out *out, const struct sw_set_cookie *c)
{
    static const char *const same_site[] = {
        [SW_SAME_SITE_LAX] = "; SameSite=Lax",
        [SW_SAME_SITE_STRICT] = "; SameSite=Strict",
        [SW_SAME_SITE_NONE] = "; SameSite=None",
    };

    SW_ASSERT((size_t)c->same_site < SW_COUNTOF(same_site));
    /* rfc6265bis, 5.6 (5): longer ones are ignored by browsers, and that is a lost state. */
    if (c->name.len > 4096 || c->value.len > 4096 - c->name.len) {
        return false;
    }
    sw_out_slice(out, c->name);
    sw_out_char(out, '=');
    sw_out_slice(out, c->value);
    if (c->path.len > 0) {
        sw_out_lit(out, "; Path=");
        sw_out_slice(out, c->path);
    }
    sw_out_lit(out, "; HttpOnly");
    sw_out_cstr(out, same_site[c->same_site]);
    if (c->secure) {
        sw_out_lit(out, "; Secure");
    }
    if (c->max_age_s >= 0) {
        sw_out_lit(out, "; Max-Age=");
        sw_out_i64(out, c->max_age_s);
    }
    return !out->overflowed;
}
