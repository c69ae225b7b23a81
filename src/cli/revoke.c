/* cli/revoke.c - `stateway revoke`: what clients carry, ended before its time, by the admin API.
 *
 * Cookies and tokens are secrets: they are read from stdin, taken apart here, and only what names
 * them goes on (a hash, an id).
 */
#include "cli/cli_priv.h"

#include "base/json.h"
#include "placement/placement.h"

#define SECRET_BYTES_MAX 16384u
#define PATH_BYTES       4000u /* the admin listener takes 4096 */
#define NAME_BYTES_MAX   1024u /* of an issuer or an id: the admin API takes no longer one */
#define PIN_ID_CHARS     16u

/* ---- what was given ---------------------------------------------------------------------------
 */

/* The value, or what stdin holds when that is "-". Of a cookie with its name, the value. */
static bool given(const struct sw_cli_args *a, enum sw_flag_id id, char buf[SECRET_BYTES_MAX],
                  struct sw_slice *ret_value)
{
    struct sw_slice text = sw_slice_cstr(a->values[id]), name, value;

    if (sw_slice_eq(text, SW_S("-"))) {
        text = sw_slice_of(buf, fread(buf, 1, SECRET_BYTES_MAX, stdin));
        if (ferror(stdin) || text.len == SECRET_BYTES_MAX) {
            fprintf(stderr, "stateway: stdin cannot be read, or holds 16 KiB and more\n");
            return false;
        }
    }
    while (text.len > 0 && strchr(" \t\r\n", text.ptr[text.len - 1]) != NULL) {
        text.len--;
    }
    while (text.len > 0 && strchr(" \t\r\n", text.ptr[0]) != NULL) {
        text = sw_slice_tail(text, 1);
    }
    if (sw_slice_cut(text, '=', &name, &value)) { /* no value of ours has one */
        (void)sw_slice_cut(value, ';', &text, &name);
    }
    *ret_value = sw_slice_trim(text);
    return true;
}

static int not_one(const struct sw_cli_args *a, enum sw_flag_id id, const char *what)
{
    return sw_cli__usage_error(a->command, "what --%s got is no %s", sw_cli__flags[id].name, what);
}

/* The first or second part of a token, decoded: a JSON object. */
static bool token_part(struct sw_slice token, unsigned part, char *buf, size_t size,
                       struct sw_slice *ret_object)
{
    struct sw_slice one, rest = token;
    struct sw_json_checked checked;
    size_t len = 0;

    for (unsigned i = 0; i <= part; i++) {
        if (!sw_slice_cut(rest, '.', &one, &rest)) {
            return false; /* each has another one behind it */
        }
    }
    if (sw_b64url(one, buf, size, &len) != SW_OK) {
        return false;
    }
    *ret_object = sw_slice_of(buf, len);
    checked = sw_json_check(*ret_object);
    return checked.err == SW_OK && checked.type == SW_JSON_OBJECT;
}

/* A string member as text, NUL behind it. */
static bool text_of(struct sw_slice object, const char *name, char *buf, size_t size)
{
    struct sw_slice value = sw_cli__member(object, name);
    struct sw_out out = sw_out_init(buf, size - 1);

    if (sw_json_type_of(value) != SW_JSON_STRING || !sw_json_unquote(value, &out) || out.len == 0 ||
        memchr(buf, '\0', out.len) != NULL) {
        return false;
    }
    buf[out.len] = '\0';
    return true;
}

/* ---- asking -----------------------------------------------------------------------------------
 */

static int ended(const struct sw_cli_args *a, const struct sw_cli_target *t, const char *path,
                 const char *said)
{
    struct sw_cli_call call = {.method = "DELETE", .path = path};
    int code = sw_cli__ask_object(t, &call);

    if (code != SW_EXIT_OK) {
        return code;
    }
    if (sw_cli__has(a, FLAG_JSON)) {
        printf("%.*s", SW_SARG(call.answer));
    } else {
        printf("%s\n", said);
    }
    free(call.block);
    return SW_EXIT_OK;
}

static int by_subject(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    char path[PATH_BYTES];
    struct sw_out out = sw_out_init(path, sizeof(path) - 1);
    size_t len = strlen(a->values[FLAG_SUBJECT]);

    if (len == 0 || len > SW_SUBJECT_BYTES_MAX) {
        return sw_cli__usage_error(a->command, "a subject has 1 to %d bytes", SW_SUBJECT_BYTES_MAX);
    }
    sw_out_lit(&out, "/v1/subjects?");
    sw_cli__query_put(&out, "subject", a->values[FLAG_SUBJECT]);
    SW_ASSERT(!out.overflowed);
    path[out.len] = '\0';
    return ended(a, t, path,
                 "ended: sessions, tokens and sealed states of this subject that were made until "
                 "now");
}

static int by_token(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    static char secret[SECRET_BYTES_MAX], decoded[SECRET_BYTES_MAX];
    static char issuer[NAME_BYTES_MAX + 1], jti[NAME_BYTES_MAX + 1];
    bool whole = strcmp(a->values[FLAG_JTI], "-") == 0;
    char path[PATH_BYTES];
    struct sw_out out = sw_out_init(path, sizeof(path) - 1);
    struct sw_slice token, claims;

    if (whole == sw_cli__has(a, FLAG_ISSUER)) {
        return sw_cli__usage_error(a->command,
                                   whole ? "a whole token names its issuer: leave out --issuer"
                                         : "--jti needs --issuer: an id means something beside "
                                           "its issuer only");
    }
    if (whole) {
        if (!given(a, FLAG_JTI, secret, &token)) {
            return SW_EXIT_FAILED;
        }
        if (!token_part(token, 1, decoded, sizeof(decoded), &claims) ||
            !text_of(claims, "iss", issuer, sizeof(issuer)) ||
            !text_of(claims, "jti", jti, sizeof(jti))) {
            return not_one(a, FLAG_JTI, "token with the claims iss and jti");
        }
    }
    sw_out_lit(&out, "/v1/tokens?");
    sw_cli__query_put(&out, "issuer", whole ? issuer : a->values[FLAG_ISSUER]);
    sw_out_char(&out, '&');
    sw_cli__query_put(&out, "jti", whole ? jti : a->values[FLAG_JTI]);
    if (out.overflowed) {
        return sw_cli__usage_error(a->command, "the issuer and the id are too long");
    }
    path[out.len] = '\0';
    return ended(a, t, path, "ended: this token, and what it is renewed to");
}

/* A handle and a cookie look alike, 43 characters: what is meant is what there is. The cookie's
 * hash is asked for first, so that the cookie itself is not sent. */
static int by_session(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    static char secret[SECRET_BYTES_MAX];
    char path[128];
    struct sw_cli_call call = {.method = "DELETE", .path = path};
    struct sw_slice value;
    uint8_t id[32], hash[32];
    int code = SW_EXIT_FAILED;

    if (!given(a, FLAG_SESSION, secret, &value)) {
        return SW_EXIT_FAILED;
    }
    if (sw_b64url_exact(value, id, sizeof(id)) != SW_OK) {
        return not_one(a, FLAG_SESSION, "handle, and no cookie of a session");
    }
    sw_sha256(sw_slice_of(id, sizeof(id)), hash);
    for (unsigned i = 0; i < 2; i++) {
        struct sw_out out = sw_out_init(path, sizeof(path) - 1);

        sw_out_lit(&out, "/v1/sessions/");
        sw_b64url_put(&out, i == 0 ? hash : id, sizeof(id));
        path[out.len] = '\0';
        if (!sw_cli__call(t, &call)) {
            return SW_EXIT_FAILED;
        }
        if (call.status == 204) {
            printf("%s\n",
                   sw_cli__has(a, FLAG_JSON) ? "{\"session\":\"ended\"}" : "ended: this session");
            code = SW_EXIT_OK;
        } else if (call.status != 404 || i == 1) {
            code = sw_cli__refused(&call);
        }
        free(call.block);
        if (call.status != 404) {
            break;
        }
    }
    return code;
}

static int by_sealed(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    static char secret[SECRET_BYTES_MAX], decoded[SECRET_BYTES_MAX];
    char path[128], id[64];
    struct sw_slice value, header;
    uint8_t bytes[SW_SEALED_ID_BYTES];

    if (!given(a, FLAG_SEALED, secret, &value)) {
        return SW_EXIT_FAILED;
    }
    if (token_part(value, 0, decoded, sizeof(decoded), &header)) {
        value = text_of(header, "jti", id, sizeof(id)) ? sw_slice_cstr(id) : SW_S("");
    }
    if (sw_b64url_exact(value, bytes, sizeof(bytes)) != SW_OK) {
        return not_one(a, FLAG_SEALED, "id, and no cookie of a sealed state");
    }
    snprintf(path, sizeof(path), "/v1/sealed/%.*s", SW_SARG(value));
    return ended(a, t, path, "ended: this sealed state, in all its versions");
}

static int by_pin(const struct sw_cli_args *a, const struct sw_cli_target *t)
{
    static char secret[SECRET_BYTES_MAX];
    uint8_t bytes[SW_PIN_BYTES];
    char path[128];
    struct sw_slice value;
    uint64_t id;

    if (!given(a, FLAG_PIN, secret, &value)) {
        return SW_EXIT_FAILED;
    }
    if (value.len != PIN_ID_CHARS || !sw_slice_hex_u64(value, &id)) {
        if (sw_b64url_exact(value, bytes, sizeof(bytes)) != SW_OK) {
            return not_one(a, FLAG_PIN, "id, and no cookie with a pin");
        }
        id = sw_pin_id(bytes);
    }
    snprintf(path, sizeof(path), "/v1/pins/%016llx", (unsigned long long)id);
    return ended(a, t, path, "ended: this pin; its visitor begins anew");
}

/* ---- which ------------------------------------------------------------------------------------
 */

int sw_cli__revoke(const struct sw_cli_args *args)
{
    static const struct {
        enum sw_flag_id id;
        int (*run)(const struct sw_cli_args *a, const struct sw_cli_target *t);
    } kinds[] = {
        {FLAG_SUBJECT, by_subject}, {FLAG_JTI, by_token}, {FLAG_SESSION, by_session},
        {FLAG_SEALED, by_sealed},   {FLAG_PIN, by_pin},
    };
    struct sw_cli_target t;
    size_t which = 0, count = 0;
    int code;

    for (size_t i = 0; i < SW_COUNTOF(kinds); i++) {
        if (sw_cli__has(args, kinds[i].id)) {
            which = i;
            count++;
        }
    }
    if (count != 1 || args->word_count > 0 || args->rest != NULL) {
        return sw_cli__usage_error(args->command,
                                   "one of --subject, --jti, --session, --sealed and --pin says "
                                   "what is to be ended");
    }
    if (sw_cli__has(args, FLAG_ISSUER) && !sw_cli__has(args, FLAG_JTI)) {
        return sw_cli__usage_error(args->command, "--issuer goes with --jti");
    }
    code = sw_cli__target_find(args, &t);
    return code == SW_EXIT_OK ? kinds[which].run(args, &t) : code;
}
