/* crypto/: signed tokens: what verifies, and everything that somebody may try instead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/err.h>
#include <pthread.h>
#include <cmocka.h>

#include "crypto/jose_priv.h"

static char arena_room[1 << 15];
static struct sw_keyring ring;
/* Of the same ring: one for each algorithm that signs. */
static struct sw_jwks *secrets, *curves, *edwards;

static const struct sw_slice any_typ = {NULL, 0};

static int setup(void **state)
{
    (void)state;
    ring.count = 2;
    ring.active = 0;
    for (size_t i = 0; i < ring.count; i++) {
        ring.keys[i].id = (uint32_t)i + 1;
        memset(ring.keys[i].secret, (int)(0x51 + i), 32);
    }
    return sw_jwks_derive(&ring, SW_JOSE_HS256, &secrets) != SW_OK ||
           sw_jwks_derive(&ring, SW_JOSE_ES256, &curves) != SW_OK ||
           sw_jwks_derive(&ring, SW_JOSE_ED25519, &edwards) != SW_OK;
}

static int teardown(void **state)
{
    (void)state;
    sw_jwks_unref(secrets);
    sw_jwks_unref(curves);
    sw_jwks_unref(edwards);
    return 0;
}

/* A token of these very bytes, signed with the key whatever the header says. */
static struct sw_slice forge(const struct sw_jwk *key, struct sw_slice header,
                             struct sw_slice payload, struct sw_out *out)
{
    uint8_t sig[JOSE_SIG_BYTES_MAX];
    size_t from = out->len;

    sw_b64url_put(out, header.ptr, header.len);
    sw_out_char(out, '.');
    sw_b64url_put(out, payload.ptr, payload.len);
    if (key != NULL) {
        assert_int_equal(sw_jose__sign(key, sw_slice_of(out->ptr + from, out->len - from), sig),
                         SW_OK);
    }
    sw_out_char(out, '.');
    if (key != NULL) {
        sw_b64url_put(out, sig, key->sig_bytes);
    }
    assert_false(out->overflowed);
    return sw_slice_of(out->ptr + from, out->len - from);
}

/* The token flush against the end of its memory; the arena is untouched by a refusal. */
static enum sw_err verify(const struct sw_jwks *set, struct sw_slice token, struct sw_slice typ)
{
    char *exact = malloc(token.len + (token.len == 0));
    struct sw_arena arena;
    struct sw_jws jws;
    enum sw_err err;

    memcpy(exact, token.ptr, token.len);
    sw_arena_init(&arena, arena_room, sizeof(arena_room));
    err = sw_jws_verify(set, sw_slice_of(exact, token.len), typ, &arena, &jws);
    free(exact);
    assert_true(err == SW_OK || arena.used == 0);
    assert_int_equal(ERR_peek_error(), 0); /* TLS on this thread reads that queue */
    return err;
}

/* ---- headers -----------------------------------------------------------------------------------
 */

#define H(more) "{\"alg\":\"HS256\",\"kid\":\"ring-1\"" more "}"

static const struct {
    const char *name;
    struct sw_slice header;
    enum sw_err err;
    const char *typ; /* wanted; NULL: any */
} header_rows[] = {
    {"plain", SW_S(H("")), SW_OK, NULL},
    {"without kid", SW_S("{\"alg\":\"HS256\"}"), SW_E_TOKEN_KID, NULL}, /* two keys could be it */
    {"white space", SW_S(" {\n\"alg\" : \"HS256\" ,\t\"kid\":\"ring-1\" }\r\n"), SW_OK, NULL},
    {"names escaped", SW_S("{\"\\u0061lg\":\"HS\\u003256\",\"kid\":\"ring\\u002d1\"}"), SW_OK,
     NULL},
    /* alg */
    {"none", SW_S("{\"alg\":\"none\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"None", SW_S("{\"alg\":\"None\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"NONE", SW_S("{\"alg\":\"NONE\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"nOnE", SW_S("{\"alg\":\"nOnE\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"none, escaped", SW_S("{\"alg\":\"\\u006eone\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"none, no kid", SW_S("{\"alg\":\"none\"}"), SW_E_TOKEN_ALG, NULL},
    {"no alg", SW_S("{\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"alg empty", SW_S("{\"alg\":\"\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"alg with a blank", SW_S("{\"alg\":\"HS256 \",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"alg with a NUL", SW_S("{\"alg\":\"HS256\\u0000\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"alg small", SW_S("{\"alg\":\"hs256\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"alg long", SW_S("{\"alg\":\"HS256HS256HS256HS256\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG,
     NULL},
    {"alg null", SW_S("{\"alg\":null,\"kid\":\"ring-1\"}"), SW_E_TOKEN_HEADER, NULL},
    {"alg a list", SW_S("{\"alg\":[\"HS256\"],\"kid\":\"ring-1\"}"), SW_E_TOKEN_HEADER, NULL},
    {"alg twice", SW_S("{\"alg\":\"HS256\",\"alg\":\"none\",\"kid\":\"ring-1\"}"),
     SW_E_TOKEN_SYNTAX, NULL},
    {"alg twice, escaped", SW_S("{\"alg\":\"HS256\",\"al\\u0067\":\"none\",\"kid\":\"ring-1\"}"),
     SW_E_TOKEN_SYNTAX, NULL},
    {"Alg beside alg", SW_S(H(",\"Alg\":\"none\"")), SW_OK, NULL}, /* another name, ignored */
    {"another HMAC", SW_S("{\"alg\":\"HS384\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"RS256", SW_S("{\"alg\":\"RS256\",\"kid\":\"ring-1\"}"), SW_E_TOKEN_ALG, NULL},
    {"A256GCM", SW_S("{\"alg\":\"dir\",\"enc\":\"A256GCM\"}"), SW_E_TOKEN_ALG, NULL},
    /* kid */
    {"another kid", SW_S("{\"alg\":\"HS256\",\"kid\":\"ring-2\"}"), SW_E_TOKEN_SIGNATURE, NULL},
    {"unknown kid", SW_S("{\"alg\":\"HS256\",\"kid\":\"ring-3\"}"), SW_E_TOKEN_KID, NULL},
    {"kid empty", SW_S("{\"alg\":\"HS256\",\"kid\":\"\"}"), SW_E_TOKEN_KID, NULL},
    {"kid a number", SW_S("{\"alg\":\"HS256\",\"kid\":1}"), SW_E_TOKEN_HEADER, NULL},
    {"kid a list", SW_S("{\"alg\":\"HS256\",\"kid\":[\"ring-1\"]}"), SW_E_TOKEN_HEADER, NULL},
    {"kid a path", SW_S("{\"alg\":\"HS256\",\"kid\":\"../../../../dev/null\"}"), SW_E_TOKEN_KID,
     NULL},
    {"kid for SQL", SW_S("{\"alg\":\"HS256\",\"kid\":\"x' UNION SELECT 'k'--\"}"), SW_E_TOKEN_KID,
     NULL},
    {"kid for a shell", SW_S("{\"alg\":\"HS256\",\"kid\":\"ring-1|id\"}"), SW_E_TOKEN_KID, NULL},
    {"kid cut by a NUL", SW_S("{\"alg\":\"HS256\",\"kid\":\"ring-1\\u0000\"}"), SW_E_TOKEN_KID,
     NULL},
    {"kid in capitals", SW_S("{\"alg\":\"HS256\",\"kid\":\"RING-1\"}"), SW_E_TOKEN_KID, NULL},
    /* what must be understood */
    {"crit", SW_S(H(",\"crit\":[\"exp\"],\"exp\":1")), SW_E_TOKEN_HEADER, NULL},
    {"crit with b64", SW_S(H(",\"b64\":false,\"crit\":[\"b64\"]")), SW_E_TOKEN_HEADER, NULL},
    {"crit empty", SW_S(H(",\"crit\":[]")), SW_E_TOKEN_HEADER, NULL},
    {"crit null", SW_S(H(",\"crit\":null")), SW_E_TOKEN_HEADER, NULL},
    {"crit escaped", SW_S(H(",\"cr\\u0069t\":[\"x\"]")), SW_E_TOKEN_HEADER, NULL},
    {"b64 false", SW_S(H(",\"b64\":false")), SW_E_TOKEN_HEADER, NULL},
    {"b64 as text", SW_S(H(",\"b64\":\"false\"")), SW_E_TOKEN_HEADER, NULL},
    {"b64 true", SW_S(H(",\"b64\":true")), SW_OK, NULL},
    /* keys of the sender's choice: not looked at, so the signature decides */
    {"jku", SW_S(H(",\"jku\":\"https://evil.example/jwks.json\"")), SW_OK, NULL},
    {"x5u", SW_S(H(",\"x5u\":\"https://evil.example/\",\"x5c\":[\"MII\"]")), SW_OK, NULL},
    {"jwk", SW_S(H(",\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"}")), SW_OK, NULL},
    /* typ */
    {"typ", SW_S(H(",\"typ\":\"at+jwt\"")), SW_OK, "at+jwt"},
    {"typ in capitals", SW_S(H(",\"typ\":\"AT+JWT\"")), SW_OK, "at+jwt"},
    {"typ with its prefix", SW_S(H(",\"typ\":\"application/at+jwt\"")), SW_OK, "at+jwt"},
    {"typ with another prefix", SW_S(H(",\"typ\":\"text/at+jwt\"")), SW_E_TOKEN_TYP, "at+jwt"},
    {"another typ", SW_S(H(",\"typ\":\"JWT\"")), SW_E_TOKEN_TYP, "at+jwt"},
    {"no typ", SW_S(H("")), SW_E_TOKEN_TYP, "at+jwt"},
    {"typ empty", SW_S(H(",\"typ\":\"\"")), SW_E_TOKEN_TYP, "JWT"},
    {"typ null", SW_S(H(",\"typ\":null")), SW_E_TOKEN_HEADER, "JWT"},
    {"typ null, not wanted", SW_S(H(",\"typ\":null")), SW_E_TOKEN_HEADER, NULL},
    {"any typ", SW_S(H(",\"typ\":\"logout+jwt\"")), SW_OK, NULL},
    /* shape */
    {"a list", SW_S("[\"alg\",\"HS256\"]"), SW_E_TOKEN_SYNTAX, NULL},
    {"a string", SW_S("\"alg\""), SW_E_TOKEN_SYNTAX, NULL},
    {"null", SW_S("null"), SW_E_TOKEN_SYNTAX, NULL},
    {"nothing", SW_S(""), SW_E_TOKEN_SYNTAX, NULL},
    {"text behind", SW_S(H("") "{}"), SW_E_TOKEN_SYNTAX, NULL},
    {"a NUL behind", SW_S(H("") "\0"), SW_E_TOKEN_SYNTAX, NULL},
    {"a BOM in front", SW_S("\xef\xbb\xbf" H("")), SW_E_TOKEN_SYNTAX, NULL},
    {"no UTF-8", SW_S(H(",\"x\":\"\xff\"")), SW_E_TOKEN_SYNTAX, NULL},
    {"a comma too many", SW_S(H(",")), SW_E_TOKEN_SYNTAX, NULL},
    {"sixteen members",
     SW_S(
         H(",\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,\"k\":"
           "1,\"l\":1,\"m\":1,\"n\":1")),
     SW_OK, NULL},
    {"seventeen members",
     SW_S(
         H(",\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,\"k\":"
           "1,\"l\":1,\"m\":1,\"n\":1,\"o\":1")),
     SW_E_TOKEN_HEADER, NULL},
};

/* Each header comes rightly signed: what refuses it is not the signature. */
static void headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(header_rows); i++) {
        char room[4096];
        struct sw_out out = sw_out_init(room, sizeof(room));
        struct sw_slice token =
            forge(sw_jwks_at(secrets, 0), header_rows[i].header, SW_S("{}"), &out);
        enum sw_err err = verify(secrets, token, sw_slice_cstr(header_rows[i].typ));

        if (err != header_rows[i].err) {
            fail_msg("%s: %s", header_rows[i].name, sw_err_name(err));
        }
        /* nor does it help to leave the signature out */
        assert_int_not_equal(verify(secrets, sw_slice_head(token, token.len - 43), any_typ), SW_OK);
    }
}

static void header_sizes(void **state)
{
    (void)state;
    for (size_t len = SW_JWS_HEADER_BYTES_MAX - 1; len <= SW_JWS_HEADER_BYTES_MAX + 1; len++) {
        char room[4096], header[SW_JWS_HEADER_BYTES_MAX + 2];
        struct sw_out out = sw_out_init(room, sizeof(room));

        memset(header, ' ', sizeof(header));
        memcpy(header, H(""), strlen(H("")));
        assert_int_equal(
            verify(secrets,
                   forge(sw_jwks_at(secrets, 0), sw_slice_of(header, len), SW_S("{}"), &out),
                   any_typ),
            len <= SW_JWS_HEADER_BYTES_MAX ? SW_OK : SW_E_TOKEN_HEADER);
    }
    /* nested as deep as fits: the reader does not recurse */
    for (size_t depth = 62; depth <= 600; depth += 269) {
        char room[4096], header[2048];
        struct sw_out out = sw_out_init(room, sizeof(room)),
                      h = sw_out_init(header, sizeof(header));

        sw_out_lit(&h, "{\"alg\":\"HS256\",\"kid\":\"ring-1\",\"x\":");
        for (size_t i = 0; i < depth; i++) {
            sw_out_char(&h, '[');
        }
        for (size_t i = 0; i < depth; i++) {
            sw_out_char(&h, ']');
        }
        sw_out_char(&h, '}');
        assert_int_equal(verify(secrets,
                                forge(sw_jwks_at(secrets, 0), sw_out_done(&h), SW_S("{}"), &out),
                                any_typ),
                         depth <= 63 ? SW_OK : SW_E_TOKEN_SYNTAX);
    }
}

/* ---- the three parts ---------------------------------------------------------------------------
 */

static void shapes(void **state)
{
    static const struct {
        const char *text;
        enum sw_err err;
    } rows[] = {
        {"", SW_E_TOKEN_SYNTAX},
        {".", SW_E_TOKEN_SYNTAX},
        {"..", SW_E_TOKEN_SYNTAX},
        {"...", SW_E_TOKEN_SYNTAX},
        {"a.b.c", SW_E_TOKEN_SYNTAX},
        {"e30.e30.", SW_E_TOKEN_ALG},
        {"e30..", SW_E_TOKEN_ALG},
        {"{\"payload\":\"e30\",\"protected\":\"e30\",\"signature\":\"\"}", SW_E_TOKEN_SYNTAX},
        {"eyJhbGciOiJub25lIn0.e30.", SW_E_TOKEN_ALG},
        {"eyJhbGciOiJIUzI1NiIsImtpZCI6InJpbmctMSJ9.e30.", SW_E_TOKEN_SIGNATURE},
        {"eyJhbGciOiJIUzI1NiIsImtpZCI6InJpbmctMSJ9.e30.e30.e30", SW_E_TOKEN_SYNTAX},
        {"eyJhbGciOiJIUzI1NiIsImtpZCI6InJpbmctMSJ9.e30", SW_E_TOKEN_SYNTAX},
        {"eyJhbGciOiJIUzI1NiIsImtpZCI6InJpbmctMSJ9", SW_E_TOKEN_SYNTAX},
        {"eyJhbGciOiJIUzI1NiIsImtpZCI6InJpbmctMSJ9.e30.AA", SW_E_TOKEN_SIGNATURE},
        {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6InJpbmctMSJ9.e30.AA", SW_E_TOKEN_SYNTAX},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        enum sw_err err = verify(secrets, sw_slice_cstr(rows[i].text), any_typ);

        if (err != rows[i].err) {
            fail_msg("%s: %s", rows[i].text, sw_err_name(err));
        }
    }
}

/* Cut at every byte, and every byte replaced by each other one: no token but the one verifies. */
static void every_byte(void **state)
{
    struct sw_jwks *const sets[] = {secrets, curves, edwards};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(sets); i++) {
        char room[1024];
        struct sw_out out = sw_out_init(room, sizeof(room));

        assert_int_equal(sw_jws_sign(sw_jwks_signer(sets[i]), SW_S(""), SW_S("{\"a\":1}"), &out),
                         SW_OK);
        assert_int_equal(verify(sets[i], sw_out_done(&out), any_typ), SW_OK);
        for (size_t cut = 0; cut < out.len; cut++) {
            assert_int_not_equal(verify(sets[i], sw_slice_of(room, cut), any_typ), SW_OK);
        }
        for (size_t at = 0; at < out.len; at++) {
            char was = room[at];

            /* all 256 with the cheap algorithm, some with the others */
            for (unsigned byte = 0; byte < 256; byte += i == 0 ? 1 : 37) {
                if ((char)byte == was) {
                    continue;
                }
                room[at] = (char)byte;
                if (verify(sets[i], sw_out_done(&out), any_typ) == SW_OK) {
                    fail_msg("%s: byte %zu may be %02x",
                             sw_jose_alg_name(sw_jwk_alg(sw_jwks_at(sets[i], 0))), at, byte);
                }
            }
            room[at] = was;
        }
        /* and one more of anything, at the end and in front */
        for (unsigned byte = 0; byte < 256; byte++) {
            room[out.len] = (char)byte;
            assert_int_not_equal(verify(sets[i], sw_slice_of(room, out.len + 1), any_typ), SW_OK);
        }
    }
}

/* A payload that was signed in a loose spelling, with a padded signature, and so on. */
static void loose_base64url(void **state)
{
    static const struct sw_slice payloads[] = {
        SW_S("e31"),   SW_S("e30="), SW_S("e30 "), SW_S(" e30"), SW_S("e3\n0"),    SW_S("e"),
        SW_S("e30+/"), SW_S("e30%"), SW_S("e\0"),  SW_S("e30."), SW_S("\xc3\xa9"),
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(payloads); i++) {
        char room[1024];
        struct sw_out out = sw_out_init(room, sizeof(room));
        uint8_t sig[JOSE_SIG_BYTES_MAX];

        sw_out_lit(&out, "eyJhbGciOiJIUzI1NiIsImtpZCI6InJpbmctMSJ9.");
        sw_out_slice(&out, payloads[i]);
        assert_int_equal(sw_jose__sign(sw_jwks_at(secrets, 0), sw_out_done(&out), sig), SW_OK);
        sw_out_char(&out, '.');
        sw_b64url_put(&out, sig, 32);
        assert_int_equal(verify(secrets, sw_out_done(&out), any_typ), SW_E_TOKEN_SYNTAX);
    }
}

static void sizes(void **state)
{
    char *room = malloc(2u << 20);

    (void)state;
    memset(room, 'A', 2u << 20);
    assert_int_equal(verify(secrets, sw_slice_of(room, 1u << 20), any_typ), SW_E_TOKEN_LARGE);
    assert_int_equal(verify(secrets, sw_slice_of(room, SW_TOKEN_BYTES_MAX + 1), any_typ),
                     SW_E_TOKEN_LARGE);
    assert_int_equal(verify(secrets, sw_slice_of(room, SW_TOKEN_BYTES_MAX), any_typ),
                     SW_E_TOKEN_SYNTAX);
    /* the longest token that we make is one that we take */
    for (size_t len = 6000; len < 6150; len++) {
        char token[SW_TOKEN_BYTES_MAX];
        struct sw_out out = sw_out_init(token, sizeof(token));
        enum sw_err err =
            sw_jws_sign(sw_jwks_signer(secrets), SW_S("JWT"), sw_slice_of(room, len), &out);

        if (err != SW_OK) {
            assert_int_equal(err, SW_E_TOKEN_LARGE);
            assert_in_range(len, 6010, 6149);
            break;
        }
        assert_int_equal(verify(secrets, sw_out_done(&out), SW_S("JWT")), SW_OK);
        assert_int_not_equal(len, 6149);
    }
    free(room);
}

/* An arena one byte too small says so, and gives back what it gave. */
static void arena_full(void **state)
{
    char token[1024], payload[300];
    struct sw_out out = sw_out_init(token, sizeof(token));
    bool fits = false;

    (void)state;
    memset(payload, 'x', sizeof(payload));
    assert_int_equal(
        sw_jws_sign(sw_jwks_signer(secrets), SW_S(""), sw_slice_of(payload, sizeof(payload)), &out),
        SW_OK);
    for (size_t cap = 0; cap < 320; cap++) {
        struct sw_arena arena;
        struct sw_jws jws;
        enum sw_err err;

        sw_arena_init(&arena, arena_room, cap);
        err = sw_jws_verify(secrets, sw_out_done(&out), any_typ, &arena, &jws);
        assert_int_equal(err == SW_OK, cap >= 303);
        assert_true(err == SW_OK || err == SW_E_NO_MEMORY);
        fits = err == SW_OK;
    }
    assert_true(fits);
}

/* ---- keys against each other -------------------------------------------------------------------
 */

/* The classic: the public key's text as the secret of an HMAC (RFC 8725, 2.1). */
static void hmac_confusion(void **state)
{
    struct sw_slice forms[8];
    char room[8192], published[4096], jwk[4096];
    struct sw_out out = sw_out_init(published, sizeof(published)), text;
    const struct sw_jwk *target = sw_jwks_at(curves, 0);
    const struct sw_jwks_rules rules = {SW_JOSE_SECRETS, true};
    size_t count = 0;

    (void)state;
    assert_true(sw_jwks_put_public(&out, curves));
    forms[count++] = sw_out_done(&out);
    forms[count++] = sw_slice_of(target->text, target->text_len);
    forms[count++] = sw_slice_of(target->thumb, 32);
    forms[count++] = sw_slice_of(target->text + target->text_len - 44, 43); /* y */
    for (size_t i = 0; i < count; i++) {
        struct sw_out header = sw_out_init(room, sizeof(room)), token;
        struct sw_jwks *evil;
        size_t len;

        text = sw_out_init(jwk, sizeof(jwk));
        sw_out_lit(&text, "{\"kty\":\"oct\",\"k\":\"");
        sw_b64url_put(&text, forms[i].ptr, SW_MIN(forms[i].len, SW_JWK_OCT_BYTES_MAX));
        sw_out_lit(&text, "\"}");
        assert_int_equal(sw_jwks_new(sw_out_done(&text), &rules, &evil, NULL), SW_OK);
        sw_out_lit(&header, "{\"alg\":\"HS256\",\"kid\":\"");
        sw_out_slice(&header, sw_jwk_kid(target));
        sw_out_lit(&header, "\"}");
        len = header.len;
        token = sw_out_init(room + len, sizeof(room) - len);
        assert_int_equal(
            verify(curves, forge(sw_jwks_at(evil, 0), sw_slice_of(room, len), SW_S("{}"), &token),
                   any_typ),
            SW_E_TOKEN_ALG);
        sw_jwks_unref(evil);
    }
}

/* A token of one set and every other set; and one whose header lies about its kind. */
static void other_sets(void **state)
{
    struct sw_jwks *const sets[] = {secrets, curves, edwards};
    static const char *const algs[] = {"HS256", "HS384", "RS256", "PS256",  "ES256",
                                       "ES384", "ES512", "EdDSA", "Ed25519"};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(sets); i++) {
        char room[1024];
        struct sw_out out = sw_out_init(room, sizeof(room));

        assert_int_equal(sw_jws_sign(sw_jwks_signer(sets[i]), SW_S(""), SW_S("{}"), &out), SW_OK);
        for (size_t j = 0; j < SW_COUNTOF(sets); j++) {
            assert_int_equal(verify(sets[j], sw_out_done(&out), any_typ),
                             i == j ? SW_OK : SW_E_TOKEN_KID);
        }
        for (size_t a = 0; a < SW_COUNTOF(algs); a++) {
            char header[512], token[1024];
            struct sw_out h = sw_out_init(header, sizeof(header)),
                          t = sw_out_init(token, sizeof(token));
            const struct sw_jwk *key = sw_jwks_signer(sets[i]);
            enum sw_jose_alg alg;

            assert_true(sw_jose_alg_find(sw_slice_cstr(algs[a]), &alg));
            sw_out_printf(&h, "{\"alg\":\"%s\",\"kid\":\"%.*s\"}", algs[a],
                          SW_SARG(sw_jwk_kid(key)));
            assert_int_equal(verify(sets[i], forge(key, sw_out_done(&h), SW_S("{}"), &t), any_typ),
                             alg == sw_jwk_alg(key) ? SW_OK : SW_E_TOKEN_ALG);
        }
    }
}

/* Without kid: the one key of that algorithm, or none. */
static void no_kid(void **state)
{
    static const char ec[] = "{\"kty\":\"EC\",\"crv\":\"P-256\","
                             "\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\","
                             "\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\","
                             "\"d\":\"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE\"}";
    static const char ed[] = "{\"kty\":\"OKP\",\"crv\":\"Ed25519\","
                             "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\","
                             "\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\"}";
    const struct sw_jwks_rules rules = {SW_JOSE_PUBLIC, true};
    char text[1024], room[1024];
    struct sw_out out = sw_out_init(room, sizeof(room));
    struct sw_slice by_ec, by_ed, by_none;
    struct sw_jwks *set;

    (void)state;
    (void)snprintf(text, sizeof(text), "{\"keys\":[%s,%s]}", ec, ed);
    assert_int_equal(sw_jwks_new(sw_slice_cstr(text), &rules, &set, NULL), SW_OK);
    by_ec = forge(sw_jwks_at(set, 0), SW_S("{\"alg\":\"ES256\"}"), SW_S("{}"), &out);
    by_ed = forge(sw_jwks_at(set, 1), SW_S("{\"alg\":\"EdDSA\"}"), SW_S("{}"), &out);
    by_none = forge(sw_jwks_at(set, 1), SW_S("{\"alg\":\"RS256\"}"), SW_S("{}"), &out);
    assert_int_equal(verify(set, by_ec, any_typ), SW_OK);
    assert_int_equal(verify(set, by_ed, any_typ), SW_OK);
    assert_int_equal(verify(set, by_none, any_typ), SW_E_TOKEN_ALG);
    sw_jwks_unref(set);
}

/* A key that may only sign does not verify, not even what it signed. */
static void sign_only(void **state)
{
    static const char *const keys[] = {
        "{\"kty\":\"oct\",\"k\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"kid\":\"k\","
        "\"key_ops\":[\"sign\"]}",
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"k\",\"key_ops\":[\"sign\"],"
        "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\","
        "\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\"}",
    };
    const struct sw_jwks_rules rules = {SW_JOSE_SECRETS | SW_JOSE_PUBLIC, true};

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(keys); i++) {
        char room[512];
        struct sw_out out = sw_out_init(room, sizeof(room));
        struct sw_jwks *set;

        assert_int_equal(sw_jwks_new(sw_slice_cstr(keys[i]), &rules, &set, NULL), SW_OK);
        assert_int_equal(sw_jws_sign(sw_jwks_signer(set), SW_S(""), SW_S("{}"), &out), SW_OK);
        assert_int_equal(verify(set, sw_out_done(&out), any_typ), SW_E_TOKEN_KID);
        sw_jwks_unref(set);
    }
}

/* r and s of ECDSA: fixed length, in range; the mirrored s verifies too, so a token has no one
 * spelling, and lists of ended tokens must not go by it. */
static void ecdsa_forms(void **state)
{
    /* n of P-256, big endian */
    static const uint8_t order[32] = {0xff, 0xff, 0xff, 0xff, 0,    0,    0,    0,
                                      0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                      0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84,
                                      0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51};
    const struct sw_jwk *key = sw_jwks_at(curves, 0);
    struct sw_slice input = SW_S("any input");
    uint8_t sig[JOSE_SIG_BYTES_MAX], changed[65];
    unsigned borrow = 0;

    (void)state;
    assert_int_equal(sw_jose__sign(key, input, sig), SW_OK);
    assert_int_equal(sw_jose__verify(key, input, sw_slice_of(sig, 64)), SW_OK);
    memcpy(changed, sig, 64);
    for (size_t i = 32; i-- > 0;) {
        unsigned d = order[i] - sig[32 + i] - borrow;

        changed[32 + i] = (uint8_t)d;
        borrow = d >> 31;
    }
    assert_int_equal(sw_jose__verify(key, input, sw_slice_of(changed, 64)), SW_OK);
    /* a zero in front, behind, and one byte less */
    changed[0] = 0;
    memcpy(changed + 1, sig, 64);
    assert_int_equal(sw_jose__verify(key, input, sw_slice_of(changed, 65)), SW_E_TOKEN_SIGNATURE);
    memcpy(changed, sig, 64);
    changed[64] = 0;
    assert_int_equal(sw_jose__verify(key, input, sw_slice_of(changed, 65)), SW_E_TOKEN_SIGNATURE);
    assert_int_equal(sw_jose__verify(key, input, sw_slice_of(sig, 63)), SW_E_TOKEN_SIGNATURE);
    assert_int_equal(sw_jose__verify(key, input, sw_slice_of(sig, 0)), SW_E_TOKEN_SIGNATURE);
    memset(changed, 0, sizeof(changed));
    assert_int_equal(sw_jose__verify(key, input, sw_slice_of(changed, 64)), SW_E_TOKEN_SIGNATURE);
    memcpy(changed, order, 32);
    memcpy(changed + 32, order, 32);
    assert_int_equal(sw_jose__verify(key, input, sw_slice_of(changed, 64)), SW_E_TOKEN_SIGNATURE);
}

/* Often enough that r and s have leading zeros, and lengths of DER differ. */
static void many_signatures(void **state)
{
    size_t short_ones = 0;

    (void)state;
    for (size_t i = 0; i < 600; i++) {
        struct sw_slice input = sw_slice_of(&i, sizeof(i));
        uint8_t sig[JOSE_SIG_BYTES_MAX];

        assert_int_equal(sw_jose__sign(sw_jwks_at(curves, 0), input, sig), SW_OK);
        assert_int_equal(sw_jose__verify(sw_jwks_at(curves, 0), input, sw_slice_of(sig, 64)),
                         SW_OK);
        short_ones += sig[0] == 0 || sig[32] == 0 ? 1 : 0;
    }
    assert_in_range(short_ones, 0, 30);
}

/* ---- signing ------------------------------------------------------------------------------------
 */

static void signing(void **state)
{
    /* RFC 7515, A.1: its key has no name, so the header is ours, but the MAC is a MAC */
    const struct sw_jwks_rules rules = {SW_JOSE_SECRETS | SW_JOSE_PUBLIC, true};
    char room[2048];
    struct sw_out out = sw_out_init(room, sizeof(room));
    struct sw_jwks *set;
    struct sw_slice token, want;

    (void)state;
    assert_int_equal(sw_jwks_new(SW_S("{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-"
                                      "EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"}"),
                                 &rules, &set, NULL),
                     SW_OK);
    token = SW_S("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
                 "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19y"
                 "b290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    assert_int_equal(verify(set, token, SW_S("JWT")), SW_OK);
    /* our own spelling of a header, in this order */
    assert_int_equal(sw_jws_sign(sw_jwks_at(set, 0), SW_S("JWT"), SW_S("{}"), &out), SW_OK);
    want = SW_S("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30."); /* {"alg":"HS256","typ":"JWT"} */
    assert_true(sw_slice_starts(sw_out_done(&out), want));
    assert_int_equal(verify(set, sw_out_done(&out), SW_S("JWT")), SW_OK);
    /* no room: nothing half written is taken for a token */
    for (size_t cap = 0; cap < out.len; cap++) {
        char small[256];
        struct sw_out o = sw_out_init(small, cap);

        assert_int_equal(sw_jws_sign(sw_jwks_at(set, 0), SW_S("JWT"), SW_S("{}"), &o), SW_E_LIMIT);
    }
    sw_jwks_unref(set);
    /* a key that only verifies; the old name of Ed25519 stays where the key has it */
    assert_int_equal(
        sw_jwks_new(SW_S("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"EdDSA\",\"kid\":\"\\\"\","
                         "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\","
                         "\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\"}"),
                    &rules, &set, NULL),
        SW_OK);
    out = sw_out_init(room, sizeof(room));
    assert_int_equal(sw_jws_sign(sw_jwks_at(set, 0), SW_S(""), SW_S(""), &out), SW_OK);
    want = SW_S("eyJhbGciOiJFZERTQSIsImtpZCI6IlwiIn0.."); /* {"alg":"EdDSA","kid":"\""} */
    assert_true(sw_slice_starts(sw_out_done(&out), want));
    assert_int_equal(verify(set, sw_out_done(&out), any_typ), SW_OK);
    sw_jwks_unref(set);
    assert_int_equal(sw_jwks_new(SW_S("{\"kty\":\"OKP\",\"crv\":\"Ed25519\","
                                      "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}"),
                                 &rules, &set, NULL),
                     SW_OK);
    assert_int_equal(sw_jws_sign(sw_jwks_at(set, 0), SW_S(""), SW_S(""), &out), SW_E_JWK_USE);
    sw_jwks_unref(set);
}

/* ---- threads ------------------------------------------------------------------------------------
 */

struct thread {
    pthread_t id;
    struct sw_slice tokens[3];
    bool ok;
};

static void *many(void *arg)
{
    struct sw_jwks *const sets[] = {secrets, curves, edwards};
    struct thread *t = arg;

    t->ok = true;
    for (size_t i = 0; i < 150; i++) {
        char room[256];
        struct sw_arena arena;
        struct sw_jws jws;

        for (size_t s = 0; s < SW_COUNTOF(sets); s++) {
            sw_arena_init(&arena, room, sizeof(room));
            t->ok = t->ok && sw_jws_verify(sets[s], t->tokens[s], any_typ, &arena, &jws) == SW_OK;
            t->ok = t->ok && sw_jws_verify(sets[s], t->tokens[(s + 1) % 3], any_typ, &arena,
                                           &jws) == SW_E_TOKEN_KID;
        }
    }
    return NULL;
}

static void threads_apart(void **state)
{
    struct sw_jwks *const sets[] = {secrets, curves, edwards};
    struct thread threads[4];
    char room[2048];
    struct sw_out out = sw_out_init(room, sizeof(room));

    (void)state;
    for (size_t s = 0; s < SW_COUNTOF(sets); s++) {
        size_t from = out.len;

        assert_int_equal(sw_jws_sign(sw_jwks_signer(sets[s]), SW_S(""), SW_S("{}"), &out), SW_OK);
        threads[0].tokens[s] = sw_slice_of(room + from, out.len - from);
    }
    for (size_t i = 0; i < SW_COUNTOF(threads); i++) {
        memcpy(threads[i].tokens, threads[0].tokens, sizeof(threads[0].tokens));
        assert_int_equal(pthread_create(&threads[i].id, NULL, many, &threads[i]), 0);
    }
    for (size_t i = 0; i < SW_COUNTOF(threads); i++) {
        assert_int_equal(pthread_join(threads[i].id, NULL), 0);
        assert_true(threads[i].ok);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),         cmocka_unit_test(header_sizes),
        cmocka_unit_test(shapes),          cmocka_unit_test(every_byte),
        cmocka_unit_test(sizes),           cmocka_unit_test(loose_base64url),
        cmocka_unit_test(arena_full),      cmocka_unit_test(hmac_confusion),
        cmocka_unit_test(other_sets),      cmocka_unit_test(no_kid),
        cmocka_unit_test(sign_only),       cmocka_unit_test(ecdsa_forms),
        cmocka_unit_test(many_signatures), cmocka_unit_test(signing),
        cmocka_unit_test(threads_apart),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
