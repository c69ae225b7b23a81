/* crypto/jose_claims.c - what a verified token says (RFC 7519, 4.1; RFC 9068).
 *
 * Times are read from their text, to the second and whether there is more: a double would round,
 * and 1e400 is a number of JSON too. Order: shape, who and for whom, when, what for.
 */
#include "crypto/jose_priv.h"

#include "base/json.h"

/* NumericDate: seconds, rounded down. */
struct when {
    bool there;
    int64_t s;
    bool more; /* and a fraction of a second */
};

/* A claim that is a string: the value as it stands in the payload; ptr NULL: not there. */
struct read {
    struct sw_slice iss, sub, jti, aud, scope;
    struct when exp, nbf, iat;
};

/* ---- times -------------------------------------------------------------------------------------
 */

struct decimal {
    struct sw_slice whole, fraction; /* digits */
    int64_t exponent;
};

#define EXPONENT_MAX 10000 /* a token's number has fewer digits than that */
_Static_assert(SW_TOKEN_BYTES_MAX < EXPONENT_MAX, "no number of a token outgrows the exponent");

/* Splits a number that the JSON check has let pass. Exponents beyond EXPONENT_MAX become that. */
static struct decimal decimal_split(struct sw_slice text)
{
    struct decimal d = {{NULL, 0}, {NULL, 0}, 0};
    size_t e = SW_MIN(sw_slice_find(text, 'e'), sw_slice_find(text, 'E'));
    struct sw_slice mantissa = sw_slice_head(text, e), digits = sw_slice_tail(text, e + 1);
    bool negative = digits.len > 0 && digits.ptr[0] == '-';

    (void)sw_slice_cut(mantissa, '.', &d.whole, &d.fraction);
    if (digits.len > 0 && (digits.ptr[0] == '-' || digits.ptr[0] == '+')) {
        digits = sw_slice_tail(digits, 1);
    }
    for (size_t i = 0; i < digits.len; i++) {
        d.exponent = SW_MIN(10 * d.exponent + (digits.ptr[i] - '0'), EXPONENT_MAX);
    }
    d.exponent = negative ? -d.exponent : d.exponent;
    return d;
}

/* False: no number, below zero, or above SW_CLAIM_TIME_MAX. */
static bool when_read(struct sw_slice text, struct when *when)
{
    struct decimal d;
    size_t count;
    int64_t whole_digits;

    *when = (struct when){true, 0, false};
    if (sw_json_type_of(text) != SW_JSON_NUMBER) {
        return false;
    }
    d = decimal_split(text.ptr[0] == '-' ? sw_slice_tail(text, 1) : text);
    count = d.whole.len + d.fraction.len;
    whole_digits = (int64_t)d.whole.len + d.exponent;
    for (size_t i = 0; i < count; i++) {
        char digit = i < d.whole.len ? d.whole.ptr[i] : d.fraction.ptr[i - d.whole.len];

        if ((int64_t)i >= whole_digits) {
            when->more = when->more || digit != '0';
            continue;
        }
        when->s = 10 * when->s + (digit - '0');
        if (when->s > SW_CLAIM_TIME_MAX) {
            return false;
        }
    }
    for (int64_t i = (int64_t)count; i < whole_digits && when->s > 0; i++) {
        when->s *= 10;
        if (when->s > SW_CLAIM_TIME_MAX) {
            return false;
        }
    }
    if (when->s == SW_CLAIM_TIME_MAX && when->more) {
        return false;
    }
    return text.ptr[0] != '-' || (when->s == 0 && !when->more);
}

/* Is `now`, in whole seconds, at that time or after it? */
static bool reached(struct when when, int64_t now)
{
    return when.more ? now > when.s : now >= when.s;
}

static enum sw_err times_check(const struct read *c, const struct sw_claims_rules *rules,
                               int64_t now)
{
    SW_ASSERT(c->exp.there);
    if (reached(c->exp, now - rules->skew_s)) {
        return SW_E_TOKEN_EXPIRED;
    }
    if ((c->nbf.there && !reached(c->nbf, now + rules->skew_s)) ||
        (c->iat.there && !reached(c->iat, now + rules->skew_s))) {
        return SW_E_TOKEN_EARLY;
    }
    if (rules->age_s_max > 0 && now - rules->skew_s - rules->age_s_max > c->iat.s) {
        return SW_E_TOKEN_OLD;
    }
    return SW_OK;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static bool is_string(struct sw_slice value)
{
    return sw_json_type_of(value) == SW_JSON_STRING;
}

static bool is_strings(struct sw_slice value)
{
    struct sw_json_iter it = sw_json_iter(value);
    struct sw_slice name, item;

    if (sw_json_type_of(value) != SW_JSON_ARRAY) {
        return is_string(value);
    }
    while (sw_json_next(&it, &name, &item)) {
        if (!is_string(item)) {
            return false;
        }
    }
    return true;
}

static bool claims_read(struct sw_slice payload, struct read *c)
{
    const struct {
        struct sw_slice name;
        struct sw_slice *text;
        struct when *when;
        bool list; /* or a list of strings */
    } known[] = {
        {SW_S("iss"), &c->iss, NULL, false},    {SW_S("sub"), &c->sub, NULL, false},
        {SW_S("jti"), &c->jti, NULL, false},    {SW_S("aud"), &c->aud, NULL, true},
        {SW_S("scope"), &c->scope, NULL, true}, {SW_S("exp"), NULL, &c->exp, false},
        {SW_S("nbf"), NULL, &c->nbf, false},    {SW_S("iat"), NULL, &c->iat, false},
    };
    struct sw_json_iter it = sw_json_iter(payload);
    struct sw_slice name, value;

    while (sw_json_next(&it, &name, &value)) {
        bool plain = name.len == 0 || memchr(name.ptr, '\\', name.len) == NULL;

        for (size_t i = 0; i < SW_COUNTOF(known); i++) {
            /* most names are of other claims, and their length tells */
            if (plain ? !sw_slice_eq(name, known[i].name) : !sw_json_name_is(name, known[i].name)) {
                continue;
            }
            if (known[i].when != NULL ? !when_read(value, known[i].when)
                : known[i].list       ? !is_strings(value)
                                      : !is_string(value)) {
                return false;
            }
            if (known[i].text != NULL) {
                *known[i].text = value;
            }
            break;
        }
    }
    return true;
}

/* The characters of a string: in place, or in the arena if it was written with escapes. False: no
 * room. */
static bool text_get(struct sw_slice value, struct sw_arena *arena, struct sw_slice *ret_text)
{
    struct sw_slice inside;
    struct sw_out out;
    char *room;

    if (!sw_jose__string(value, &inside)) {
        *ret_text = (struct sw_slice){NULL, 0};
        return true;
    }
    if (inside.len == 0 || memchr(inside.ptr, '\\', inside.len) == NULL) {
        *ret_text = inside;
        return true;
    }
    room = sw_arena_bytes(arena, inside.len); /* no escape is shorter than its character */
    if (room == NULL) {
        return false;
    }
    out = sw_out_init(room, inside.len);
    if (!sw_json_unquote(value, &out)) {
        return false;
    }
    *ret_text = sw_out_done(&out);
    return true;
}

/* ---- who, for whom, what for -------------------------------------------------------------------
 */

/* The string is the value, or one of the list. */
static bool holds(struct sw_slice claim, struct sw_slice value)
{
    struct sw_json_iter it = sw_json_iter(claim);
    struct sw_slice name, item, inside;

    if (sw_jose__string(claim, &inside)) {
        return sw_json_name_is(inside, value);
    }
    while (sw_json_type_of(claim) == SW_JSON_ARRAY && sw_json_next(&it, &name, &item)) {
        if (sw_jose__string(item, &inside) && sw_json_name_is(inside, value)) {
            return true;
        }
    }
    return false;
}

static enum sw_err audience_check(struct sw_slice aud, const struct sw_claims_rules *rules)
{
    if (aud.ptr == NULL) {
        SW_ASSERT(rules->audience_count == 0); /* missing_check */
        return SW_OK;
    }
    for (size_t i = 0; i < rules->audience_count; i++) {
        if (holds(aud, rules->audiences[i])) {
            return SW_OK;
        }
    }
    return SW_E_TOKEN_AUDIENCE;
}

static bool word_in(struct sw_slice text, struct sw_slice word)
{
    struct sw_slice head;

    while (text.len > 0) {
        (void)sw_slice_cut(text, ' ', &head, &text);
        if (sw_slice_eq(head, word)) {
            return true;
        }
    }
    return false;
}

/* Words between blanks (RFC 8693, 4.2), or a list. */
static enum sw_err scopes_check(struct sw_slice scope, const struct sw_claims_rules *rules,
                                struct sw_arena *arena)
{
    struct sw_slice words = {NULL, 0};

    if (rules->scope_count == 0) {
        return SW_OK;
    }
    if (scope.ptr == NULL) {
        return SW_E_TOKEN_SCOPE;
    }
    if (is_string(scope) && !text_get(scope, arena, &words)) {
        return SW_E_NO_MEMORY;
    }
    for (size_t i = 0; i < rules->scope_count; i++) {
        if (is_string(scope) ? !word_in(words, rules->scopes[i])
                             : !holds(scope, rules->scopes[i])) {
            return SW_E_TOKEN_SCOPE;
        }
    }
    return SW_OK;
}

static bool rule_holds(struct sw_slice payload, const struct sw_claim_rule *rule)
{
    struct sw_slice value;

    if (!sw_json_get(payload, rule->name, &value)) {
        return false;
    }
    switch (sw_json_type_of(value)) {
    case SW_JSON_STRING:
    case SW_JSON_ARRAY:
        return holds(value, rule->value);
    case SW_JSON_NUMBER: /* by their spelling: 1 is not 1.0, and nothing is rounded */
    case SW_JSON_BOOL:
    case SW_JSON_NULL:
        return sw_slice_eq(value, rule->value);
    case SW_JSON_OBJECT:
        return false;
    }
    SW_UNREACHABLE();
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static bool empty(struct sw_slice string)
{
    return string.ptr == NULL || sw_slice_eq(string, SW_S("\"\""));
}

static enum sw_err missing_check(const struct read *c, const struct sw_claims_rules *rules)
{
    bool missing = !c->exp.there || (rules->age_s_max > 0 && !c->iat.there) ||
                   (rules->sub && empty(c->sub)) || (rules->jti && empty(c->jti)) ||
                   (rules->issuer.len > 0 && c->iss.ptr == NULL) ||
                   (rules->audience_count > 0 && c->aud.ptr == NULL);

    return missing ? SW_E_TOKEN_MISSING : SW_OK;
}

static enum sw_err who_check(const struct read *c, const struct sw_claims_rules *rules)
{
    if (rules->issuer.len > 0 && !holds(c->iss, rules->issuer)) {
        return SW_E_TOKEN_ISSUER;
    }
    return audience_check(c->aud, rules);
}

enum sw_err sw_jose__claims(struct sw_slice payload, const struct sw_claims_rules *rules,
                            int64_t now_unix_s, struct sw_arena *arena,
                            struct sw_claims *ret_claims)
{
    struct sw_claims claims = {.payload = payload};
    size_t mark = sw_arena_mark(arena);
    struct read c = {0};
    enum sw_err err;

    SW_ASSERT(now_unix_s >= 0 && now_unix_s <= SW_CLAIM_TIME_MAX);
    SW_ASSERT(rules->skew_s >= 0 && rules->skew_s <= SW_SKEW_S_MAX);
    SW_ASSERT(rules->age_s_max >= 0 && rules->age_s_max <= SW_CLAIM_TIME_MAX);
    if (!claims_read(payload, &c)) {
        return SW_E_TOKEN_CLAIMS;
    }
    err = missing_check(&c, rules);
    if (err == SW_OK) {
        err = who_check(&c, rules);
    }
    if (err == SW_OK) {
        err = times_check(&c, rules, now_unix_s);
    }
    if (err == SW_OK) {
        err = scopes_check(c.scope, rules, arena);
    }
    for (size_t i = 0; i < rules->claim_count && err == SW_OK; i++) {
        err = rule_holds(payload, &rules->claims[i]) ? SW_OK : SW_E_TOKEN_REQUIRED;
    }
    if (err == SW_OK &&
        (!text_get(c.iss, arena, &claims.iss) || !text_get(c.sub, arena, &claims.sub) ||
         !text_get(c.jti, arena, &claims.jti))) {
        err = SW_E_NO_MEMORY;
    }
    if (err != SW_OK) {
        sw_arena_reset(arena, mark);
        return err;
    }
    claims.exp_unix_s = c.exp.s;
    claims.iat_unix_s = c.iat.s;
    *ret_claims = claims;
    return SW_OK;
}

enum sw_err sw_claims_check(struct sw_slice payload, const struct sw_claims_rules *rules,
                            int64_t now_unix_s, struct sw_arena *arena,
                            struct sw_claims *ret_claims)
{
    struct sw_json_checked checked;

    /* longer ones cannot come out of a token, and the numbers' limits rest on it */
    if (payload.len > SW_TOKEN_BYTES_MAX) {
        return SW_E_TOKEN_CLAIMS;
    }
    checked = sw_json_check(payload);
    if (checked.err != SW_OK || checked.type != SW_JSON_OBJECT) {
        return SW_E_TOKEN_CLAIMS;
    }
    return sw_jose__claims(payload, rules, now_unix_s, arena, ret_claims);
}
