/* admin/wish.c: queries, subjects, conditions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "admin/admin_priv.h"

#define HANDLE "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

struct asked {
    struct sw_field fields[8];
    struct sw_head head;
    struct sw_admin_wish wish;
};

/* Why it was refused; NULL: it was not. */
static const char *ask(struct asked *a, const char *request)
{
    static const struct sw_h1_limits limits = {ADMIN_HEAD_BYTES_MAX, ADMIN_TARGET_BYTES_MAX};
    struct sw_admin_routed routed;
    struct sw_parsed p;
    size_t scanned = 0;

    memset(a, 0, sizeof(*a));
    a->head.fields = a->fields;
    a->head.field_max = SW_COUNTOF(a->fields);
    p = sw_h1_request(sw_slice_cstr(request), &scanned, &limits, &a->head);
    if (p.step != SW_STEP_DONE) {
        fail_msg("%s: %s", request, sw_err_name(p.err));
    }
    routed = sw_admin__route(a->head.path);
    if (!sw_admin__personal(routed.endpoint)) {
        fail_msg("%s leads nowhere", request);
    }
    return sw_admin__wish_read(&a->head, routed, &a->wish);
}

#define R(method, target)        method " " target " HTTP/1.1\r\nHost: x\r\n\r\n"
#define F(method, target, lines) method " " target " HTTP/1.1\r\nHost: x\r\n" lines "\r\n"

static const struct {
    const char *request, *why; /* a part of the refusal; NULL: none */
} rows[] = {
    {R("GET", "/v1/sessions"), NULL},
    {R("GET", "/v1/sessions?"), NULL},
    {R("GET", "/v1/sessions?limit=1000&subject=a&after=" HANDLE), NULL},
    {R("GET", "/v1/sessions?&&limit=1&"), NULL},
    {R("GET", "/v1/sessions?limit=1001"), "`limit`"},
    {R("GET", "/v1/sessions?limit=0"), "`limit`"},
    {R("GET", "/v1/sessions?limit=-1"), "`limit`"},
    {R("GET", "/v1/sessions?limit="), "`limit`"},
    {R("GET", "/v1/sessions?limit"), "`limit`"},
    {R("GET", "/v1/sessions?limit=99999999999999999999"), "`limit`"},
    {R("GET", "/v1/sessions?limit=1&limit=1"), "twice"},
    {R("GET", "/v1/sessions?Limit=1"), "no such parameter"},
    {R("GET", "/v1/sessions?subjct=alice"), "no such parameter"},
    {R("GET", "/v1/sessions?after=x"), "`after`"},
    {R("GET", "/v1/sessions?after="), "`after`"},
    {R("GET", "/v1/sessions?after=."), "`after`"},
    {R("GET", "/v1/sessions?after=1."), NULL},
    {R("GET", "/v1/sessions?after=16." HANDLE), NULL},
    {R("GET", "/v1/sessions?after=17." HANDLE), "`after`"},
    {R("GET", "/v1/sessions?after=-1." HANDLE), "`after`"},
    {R("GET", "/v1/sessions?after=1.1." HANDLE), "`after`"},
    {R("GET", "/v1/sessions?subject="), "at least one byte"},
    {R("GET", "/v1/sessions?subject=a%zz"), "percent-encoded"},
    {R("GET", "/v1/sessions?subject=a%2"), "percent-encoded"},
    {R("GET", "/v1/sessions?mode=create"), "no such parameter"},
    {R("GET", "/v1/sessions/export?after=" HANDLE), NULL},
    {R("GET", "/v1/sessions/export?limit=3"), "no such parameter"},
    {R("POST", "/v1/sessions/import?mode=create"), NULL},
    {R("POST", "/v1/sessions/import?mode=replace"), NULL},
    {R("POST", "/v1/sessions/import?mode=Replace"), "`mode`"},
    {R("POST", "/v1/sessions/import?mode="), "`mode`"},
    {R("DELETE", "/v1/sessions/" HANDLE), NULL},
    {R("DELETE", "/v1/sessions/" HANDLE "?entity=yes"), NULL},
    {R("DELETE", "/v1/sessions/" HANDLE "?entity"), "`entity`"},
    {R("GET", "/v1/sessions/" HANDLE "?entity=yes"), "no such parameter"},
    {R("DELETE", "/v1/tokens?issuer=https%3A%2F%2Fa&jti=b"), NULL},
    {R("GET", "/v1/tokens?jti=b&issuer=a"), NULL},
    {R("DELETE", "/v1/tokens"), "which token"},
    {R("DELETE", "/v1/tokens?issuer=a"), "which token"},
    {R("DELETE", "/v1/tokens?jti=a"), "which token"},
    {R("DELETE", "/v1/tokens?issuer=a&jti="), "1 to 1024 bytes"},
    {R("DELETE", "/v1/tokens?issuer=a&jti=%"), "percent-encoded"},
    {R("DELETE", "/v1/tokens?issuer=a&issuer=a&jti=b"), "twice"},
    {R("DELETE", "/v1/tokens?subject=a"), "no such parameter"},
    {R("DELETE", "/v1/pins/0123456789abcdef?x=1"), "no such parameter"},
    {R("DELETE", "/v1/pins/0123456789abcdef"), NULL},
    {R("DELETE", "/v1/subjects"), "which subject"},
    {R("DELETE", "/v1/subjects?limit=1"), "no such parameter"},
    {R("DELETE", "/v1/subjects/a?subject=b"), "the path names"},
    {R("DELETE", "/v1/subjects?subject=b"), NULL},
    {F("PUT", "/v1/sessions/" HANDLE, "If-Match: \"1-1\"\r\n"), NULL},
    {F("PUT", "/v1/sessions/" HANDLE, "if-none-match: *\r\n"), NULL},
    {F("PUT", "/v1/sessions/" HANDLE, "If-None-Match: \"1-1\"\r\n"), "If-None-Match"},
    {F("PUT", "/v1/sessions/" HANDLE, "If-Match: \"1-1\"\r\nIf-Match: \"1-2\"\r\n"), "once"},
    {F("PUT", "/v1/sessions/" HANDLE, "If-Match:\r\n"), "once"},
    {F("PUT", "/v1/sessions/" HANDLE, "If-Match: *\r\nIf-None-Match: *\r\n"), "contradict"},
};

static void refusals(void **state)
{
    struct asked a;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        const char *why = ask(&a, rows[i].request);

        if ((why == NULL) != (rows[i].why == NULL) ||
            (why != NULL && strstr(why, rows[i].why) == NULL)) {
            fail_msg("%s: %s", rows[i].request, why == NULL ? "taken" : why);
        }
    }
}

static const struct {
    const char *request;
    struct sw_slice subject;
} subjects[] = {
    {R("GET", "/v1/subjects/alice"), SW_S("alice")},
    {R("GET", "/v1/subjects/a+b"), SW_S("a+b")}, /* a path */
    {R("GET", "/v1/subjects?subject=a+b"), SW_S("a b")},
    {R("GET", "/v1/subjects?subject=a%2Bb"), SW_S("a+b")},
    {R("GET", "/v1/subjects/a%2fb%3F%26%3D%25"), SW_S("a/b?&=%")},
    {R("GET", "/v1/subjects?subject=%00%ff%0D%0A=x"), SW_S("\0\xff\r\n=x")},
    {R("GET", "/v1/subjects?subject=.."), SW_S("..")}, /* no path says this one */
    {R("GET", "/v1/subjects?subject=zo%C3%AB"), SW_S("zo\xc3\xab")},
};

static void subject_names(void **state)
{
    struct asked a;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(subjects); i++) {
        const char *why = ask(&a, subjects[i].request);
        struct sw_slice got = {a.wish.subject, a.wish.subject_len};

        if (why != NULL || !a.wish.has_subject || !sw_slice_eq(got, subjects[i].subject)) {
            fail_msg("%s: %s, %.*s", subjects[i].request, why, SW_SARG(got));
        }
    }
}

/* Every byte, and one byte more than there is room for. */
static void long_subjects(void **state)
{
    static const struct {
        const char *before, *behind;
    } forms[] = {
        {"GET /v1/subjects?subject=", " HTTP/1.1\r\nHost: x\r\n\r\n"},
        {"GET /v1/sessions?limit=3&subject=", "&after=" HANDLE " HTTP/1.1\r\nHost: x\r\n\r\n"},
    };
    struct asked a;

    (void)state;
    for (size_t f = 0; f < SW_COUNTOF(forms); f++) {
        for (size_t n = 254; n <= 257; n++) {
            char request[2048];
            struct sw_out out = sw_out_init(request, sizeof(request) - 1);
            const char *why;

            sw_out_cstr(&out, forms[f].before);
            for (size_t i = 0; i < n; i++) {
                sw_out_printf(&out, "%%%02x", (unsigned)(i & 0xff));
            }
            sw_out_cstr(&out, forms[f].behind);
            assert_false(out.overflowed);
            request[out.len] = '\0';
            why = ask(&a, request);
            if (n > SW_SUBJECT_BYTES_MAX) {
                assert_non_null(why);
                assert_non_null(strstr(why, "255"));
                continue;
            }
            assert_null(why);
            assert_int_equal(a.wish.subject_len, n);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal((unsigned char)a.wish.subject[i], i & 0xff);
            }
        }
    }
}

static void conditions(void **state)
{
    static const struct {
        const char *list;
        bool matches;
    } lists[] = {
        {"\"3f2-17\"", true},
        {"*", true},
        {"\"1-1\", \"3f2-17\"", true},
        {"\"3f2-17\",\"1-1\"", true},
        {"\"3f2-18\"", false},
        {"W/\"3f2-17\"", false},
        {"3f2-17", false},
        {"\"3f2-17", false},
        {"\"03f2-17\"", false},
        {"\"3F2-17\"", false},
        {",,", false},
        {"\"*\"", false},
    };
    struct asked a;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(lists); i++) {
        char request[512];

        (void)snprintf(request, sizeof(request),
                       "PUT /v1/sessions/" HANDLE " HTTP/1.1\r\nHost: x\r\nIf-Match: %s\r\n\r\n",
                       lists[i].list);
        assert_null(ask(&a, request));
        assert_true(a.wish.has_match);
        if (sw_admin__wish_matches(&a.wish, (struct sw_version){0x3f2, 17}) != lists[i].matches) {
            fail_msg("%s", lists[i].list);
        }
    }
}

static void media(void **state)
{
    static const struct {
        const char *lines;
        enum sw_admin_media media;
    } types[] = {
        {"", MEDIA_NONE},
        {"Content-Type: application/json\r\n", MEDIA_JSON},
        {"Content-Type: Application/JSON ; charset=utf-8\r\n", MEDIA_JSON},
        {"Content-Type: application/x-ndjson\r\n", MEDIA_LINES},
        {"Content-Type: text/plain\r\n", MEDIA_OTHER},
        {"Content-Type: application/json-patch+json\r\n", MEDIA_OTHER},
    };
    struct asked a;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(types); i++) {
        char request[512];

        (void)snprintf(request, sizeof(request),
                       "PUT /v1/sessions/" HANDLE " HTTP/1.1\r\nHost: x\r\n%s\r\n", types[i].lines);
        assert_null(ask(&a, request));
        assert_int_equal(a.wish.media, types[i].media);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals),      cmocka_unit_test(subject_names),
        cmocka_unit_test(long_subjects), cmocka_unit_test(conditions),
        cmocka_unit_test(media),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
