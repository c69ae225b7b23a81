/* placement/claim.c - idempotency keys: whose they are, what is kept about one, what it means.
 *
 * A claim is kept in the store before the app is asked, and becomes the answer with the commit, so
 * that a request with the same key is never done twice unknowingly. The value of its record,
 * numbers big endian:
 *
 *   at  len  field
 *    0    1  format: 1
 *    1    1  state            enum sw_claim_state
 *    2    1  flags            1: the body was too large and is not here
 *    3    4  attempt          1, 2 ...
 *    7   32  fingerprint
 *   only of a claim that is DONE
 *   39    2  status           100 to 599
 *   41    4  length of reason
 *   45    4  length of headers
 *   49    4  length of body   0 when the flag is set
 *   53       reason, headers (lines "Name: value\r\n"), body
 *
 * When the record lives, and what may write it, is the gateway's: here are only the rules (RFC
 * 9651, 3.3.3 for the key's text; draft-ietf-httpapi-idempotency-key-header-07).
 */
#include "placement/placement_priv.h"

#include "placement/wire.h"

#define CLAIM_FORMAT   1
#define FLAG_TOO_LARGE 1

_Static_assert(sizeof(((struct sw_claim *)0)->fingerprint) == 32, "the table above");

/* ---- the key --------------------------------------------------------------------------------- */

/* Parameters are checked for what would make it two keys, and ignored. RFC 9651, 3.1.2. */
static bool params_fine(struct sw_slice s)
{
    bool quoted = false, name_next = false;

    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (c < 0x20 || c > 0x7e) {
            return false;
        }
        if (quoted) {
            if (c == '\\') {
                i++;
                if (i == s.len || (s.ptr[i] != '"' && s.ptr[i] != '\\')) {
                    return false;
                }
            } else {
                quoted = c != '"';
            }
        } else if (c == ',') {
            return false; /* a list of two: somebody joined two lines */
        } else if (name_next && c != ' ') {
            if (!((c >= 'a' && c <= 'z') || c == '*')) {
                return false;
            }
            name_next = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == ';') {
            name_next = true;
        }
    }
    return !quoted && !name_next && (s.len == 0 || s.ptr[0] == ';');
}

/* The string at the beginning of value, unescaped; *ret_rest is what stands behind it. */
static bool key_quoted(struct sw_slice value, struct sw_out *out, struct sw_slice *ret_rest)
{
    for (size_t i = 1; i < value.len; i++) {
        char c = value.ptr[i];

        if (c == '"') {
            *ret_rest = sw_slice_tail(value, i + 1);
            return true;
        }
        if (c == '\\') {
            i++;
            if (i == value.len || (value.ptr[i] != '"' && value.ptr[i] != '\\')) {
                return false;
            }
            c = value.ptr[i];
        }
        if (c < 0x20 || c > 0x7e) {
            return false;
        }
        sw_out_char(out, c);
    }
    return false; /* no quote at its end */
}

/* What everybody but the draft sends: the value as it is. */
static bool key_bare(struct sw_slice value, struct sw_out *out)
{
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];

        if (c < '!' || c > '~' || c == ',' || c == ';' || c == '"') {
            return false;
        }
    }
    sw_out_slice(out, value);
    return true;
}

enum sw_err sw_claim_key_read(const struct sw_head *request, char text[SW_CLAIM_KEY_BYTES_MAX],
                              struct sw_slice *ret_key)
{
    struct sw_out out = sw_out_init(text, SW_CLAIM_KEY_BYTES_MAX);
    const struct sw_field *found = NULL;
    struct sw_slice value, rest = {NULL, 0};
    bool fine;

    for (uint32_t i = 0; i < request->field_count; i++) {
        if (request->fields[i].id != SW_FIELD_IDEMPOTENCY_KEY) {
            continue;
        }
        if (found != NULL) {
            return SW_E_IDEM_SYNTAX;
        }
        found = &request->fields[i];
    }
    if (found == NULL) {
        return SW_E_IDEM_MISSING;
    }
    value = sw_slice_trim(found->value);
    fine = value.len > 0 && value.ptr[0] == '"'
               ? key_quoted(value, &out, &rest) && params_fine(rest)
               : key_bare(value, &out);
    if (!fine || out.overflowed || out.len == 0) {
        return SW_E_IDEM_SYNTAX;
    }
    *ret_key = sw_out_done(&out);
    return SW_OK;
}

/* ---- whose it is ----------------------------------------------------------------------------- */

/* For an app that reads them as CGI variables these are one name. */
static bool same_name(struct sw_slice a, struct sw_slice b)
{
    for (size_t i = 0; i < a.len && a.len == b.len; i++) {
        char one = a.ptr[i] == '_' ? '-' : a.ptr[i], other = b.ptr[i] == '_' ? '-' : b.ptr[i];

        if (!sw_slice_eq_nocase(sw_slice_of(&one, 1), sw_slice_of(&other, 1))) {
            return false;
        }
    }
    return a.len == b.len;
}

/* The field's value; empty when there are two: nobody knows which one the app believes. */
static struct sw_slice header_value(const struct sw_head *h, struct sw_slice name)
{
    struct sw_slice found = {NULL, 0};
    unsigned count = 0;

    for (uint32_t i = 0; i < h->field_count; i++) {
        if (same_name(h->fields[i].name, name)) {
            found = h->fields[i].value;
            count++;
        }
    }
    return count == 1 ? found : (struct sw_slice){NULL, 0};
}

/* An address and nothing else: "unix" is no client, it is all of them. */
static bool read_ip(struct sw_slice text, struct sw_addr *ret_addr)
{
    bool v6 = sw_slice_find(text, ':') < text.len;
    char copy[64];
    struct sw_out out = sw_out_init(copy, sizeof(copy));

    sw_out_printf(&out, v6 ? "[%.*s]:1" : "%.*s:1", SW_SARG(text));
    return !out.overflowed && sw_addr_parse(sw_out_done(&out), false, ret_addr) == SW_OK &&
           ret_addr->sa.sa_family != AF_UNIX;
}

/* Who sent the request, as far as somebody believed says so: the peer; or what the nearest proxy
 * that is believed saw, and so on (X-Forwarded-For, from its end). Empty: nobody knows, and the
 * proxy's own address would be that of all its clients. */
struct sw_slice sw_place_client_address(const struct sw_ask *ask, struct sw_slice peer)
{
    const struct sw_head *h = ask->request;
    struct sw_slice nobody = {NULL, 0}, last = nobody;
    struct sw_addr addr;

    if (!ask->trusted) {
        return read_ip(peer, &addr) ? peer : nobody;
    }
    for (uint32_t i = h->field_count; i-- > 0;) {
        struct sw_slice rest = h->fields[i].value;

        while (h->fields[i].id == SW_FIELD_X_FORWARDED_FOR && rest.len > 0) {
            size_t comma = rest.len;

            while (comma > 0 && rest.ptr[comma - 1] != ',') {
                comma--;
            }
            last = sw_slice_trim(sw_slice_tail(rest, comma));
            rest.len = comma > 0 ? comma - 1 : 0;
            if (!read_ip(last, &addr)) {
                return nobody;
            }
            if (!sw_config_trusted(ask->env->config, &addr)) {
                return last;
            }
        }
    }
    return last; /* all of them are believed: the first of them asks */
}

enum sw_err sw_claim_principal(const struct sw_ask *ask, struct sw_slice peer,
                               struct sw_slice *ret_principal)
{
    const struct sw_config_route *route = ask->routed->route;
    struct sw_slice who = {NULL, 0};

    switch (route->idempotency.principal) {
    case SW_IDEM_PRINCIPAL_VISITOR:
        if (ask->has_key && ask->session.from_cookie) {
            who = sw_slice_of(ask->session.id, sizeof(ask->session.id));
        } else if (ask->sealed.valid) {
            who = sw_slice_of(ask->sealed.seal.id, sizeof(ask->sealed.seal.id));
        }
        break;
    case SW_IDEM_PRINCIPAL_HEADER:
        who = header_value(ask->request, route->idempotency.principal_header);
        break;
    case SW_IDEM_PRINCIPAL_SUBJECT:
        if (ask->token.valid) {
            who = ask->token.claims.sub;
        }
        break;
    case SW_IDEM_PRINCIPAL_ADDRESS:
        who = sw_place_client_address(ask, peer);
        break;
    }
    if (who.len == 0) {
        return SW_E_IDEM_PRINCIPAL; /* a common name for all of them would mix their answers */
    }
    *ret_principal = who;
    return SW_OK;
}

/* ---- hashes ---------------------------------------------------------------------------------- */

#define HASH_PARTS_MAX  8
#define MEDIA_BYTES_MAX 255 /* RFC 6838, 4.2: 127, a slash, 127 */

/* Hashes what has several parts so that no two lists of parts meet: each has its length in front.
 * HMAC with a public key is here SHA-256 with a name; nothing of it is secret. */
static void hash(const struct sw_mac_key *name, const struct sw_slice *parts, size_t count,
                 uint8_t out[32])
{
    struct sw_slice list[2 * HASH_PARTS_MAX];
    char lengths[HASH_PARTS_MAX][8];

    SW_ASSERT(count <= HASH_PARTS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct sw_out length = sw_out_init(lengths[i], sizeof(lengths[i]));

        /* a query that is not there is none of length 0 */
        sw_wire__put(&length, parts[i].ptr == NULL ? UINT64_MAX : parts[i].len, 8);
        list[2 * i] = sw_out_done(&length);
        list[2 * i + 1] = parts[i];
    }
    sw_hmac_sha256(name, list, 2 * count, out);
}

void sw_claim_store_key(const struct sw_config_route *route, struct sw_slice principal,
                        struct sw_slice key, struct sw_store_key *ret_key)
{
    static const struct sw_mac_key name = {"stateway idempotency key 1"};
    char ident[9];
    struct sw_out out = sw_out_init(ident, sizeof(ident));
    struct sw_slice parts[4];

    SW_ASSERT(principal.len > 0);
    SW_ASSERT(key.len > 0);
    sw_wire__put(&out, route->ident, 8);
    /* an address and the same text in a header are two: after a change of the configuration */
    sw_wire__put(&out, (uint64_t)route->idempotency.principal, 1);
    parts[0] = sw_out_done(&out);
    parts[1] = (struct sw_slice){NULL, 0};
    if (route->idempotency.principal == SW_IDEM_PRINCIPAL_HEADER) {
        parts[1] = route->idempotency.principal_header;
    } else if (route->idempotency.principal == SW_IDEM_PRINCIPAL_SUBJECT) {
        parts[1] = route->token.issuer; /* two issuers may give one name to two */
    }
    parts[2] = principal;
    parts[3] = key;
    hash(&name, parts, SW_COUNTOF(parts), ret_key->bytes);
}

/* In lower case: it may be written in any (RFC 9110, 8.3.1). What is longer than any media type
 * that can be registered is none, and stays as it is. */
static struct sw_slice media_lower(struct sw_slice media, char text[MEDIA_BYTES_MAX])
{
    if (media.len > MEDIA_BYTES_MAX) {
        return media;
    }
    for (size_t i = 0; i < media.len; i++) {
        char c = media.ptr[i];

        text[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    return sw_slice_of(text, media.len);
}

void sw_claim_fingerprint(const struct sw_head *request, struct sw_slice body, uint8_t out[32])
{
    static const struct sw_mac_key name = {"stateway fingerprint 1"};
    const struct sw_field *type = sw_head_find(request, SW_FIELD_CONTENT_TYPE);
    struct sw_slice media = {NULL, 0}, params;
    struct sw_slice parts[6];
    char lower[MEDIA_BYTES_MAX];

    if (type != NULL) { /* without parameters: a multipart boundary is new each time it is made */
        (void)sw_slice_cut(type->value, ';', &media, &params);
        media = media_lower(sw_slice_trim(media), lower);
    }
    parts[0] = request->method_name;
    parts[1] = request->host;
    parts[2] = request->path;
    parts[3] = request->query;
    parts[4] = media;
    parts[5] = sw_slice_of(body.len > 0 ? body.ptr : "", body.len);
    hash(&name, parts, SW_COUNTOF(parts), out);
}

/* ---- the record ------------------------------------------------------------------------------ */

bool sw_claim_put(struct sw_out *out, const struct sw_claim *c)
{
    SW_ASSERT(c->attempt > 0);
    SW_ASSERT(c->state == SW_CLAIM_RUNNING || c->state == SW_CLAIM_DONE ||
              c->state == SW_CLAIM_UNKNOWN);
    SW_ASSERT(!c->too_large || (c->state == SW_CLAIM_DONE && c->body.len == 0));
    sw_wire__put(out, CLAIM_FORMAT, 1);
    sw_wire__put(out, (uint64_t)c->state, 1);
    sw_wire__put(out, c->too_large ? FLAG_TOO_LARGE : 0, 1);
    sw_wire__put(out, c->attempt, 4);
    sw_out_put(out, c->fingerprint, sizeof(c->fingerprint));
    if (c->state == SW_CLAIM_DONE) {
        SW_ASSERT(c->status >= 100 && c->status <= 599);
        SW_ASSERT(c->reason.len <= UINT32_MAX);
        SW_ASSERT(c->headers.len <= UINT32_MAX);
        SW_ASSERT(c->body.len <= UINT32_MAX);
        sw_wire__put(out, c->status, 2);
        sw_wire__put(out, c->reason.len, 4);
        sw_wire__put(out, c->headers.len, 4);
        sw_wire__put(out, c->body.len, 4);
        sw_out_slice(out, c->reason);
        sw_out_slice(out, c->headers);
        sw_out_slice(out, c->body);
    }
    return !out->overflowed;
}

static bool no_controls(struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

/* They go to a client as they are: a damaged file must not end a head early. */
static bool lines_fine(struct sw_slice rest)
{
    while (rest.len > 0) {
        size_t end = sw_slice_find_slice(rest, SW_S("\r\n"));
        struct sw_slice line = sw_slice_head(rest, end), name, value;

        if (end == rest.len || !sw_slice_cut(line, ':', &name, &value) || name.len == 0 ||
            !no_controls(line) || sw_slice_find(name, ' ') < name.len ||
            sw_slice_find(name, '\t') < name.len) {
            return false;
        }
        rest = sw_slice_tail(rest, end + 2);
    }
    return true;
}

enum sw_err sw_claim_read(struct sw_slice value, struct sw_claim *ret_claim)
{
    struct sw_wire w = {value, false};
    struct sw_claim c = {.state = 0};
    uint64_t format = sw_wire__number(&w, 1), state = sw_wire__number(&w, 1);
    uint64_t flags = sw_wire__number(&w, 1);
    struct sw_slice fingerprint;

    c.attempt = (uint32_t)sw_wire__number(&w, 4);
    fingerprint = sw_wire__take(&w, sizeof(c.fingerprint));
    if (w.bad || format != CLAIM_FORMAT || state < SW_CLAIM_RUNNING || state > SW_CLAIM_UNKNOWN ||
        c.attempt == 0 || (flags & ~(uint64_t)FLAG_TOO_LARGE) != 0) {
        return SW_E_STORE_CORRUPT;
    }
    memcpy(c.fingerprint, fingerprint.ptr, sizeof(c.fingerprint));
    c.state = (enum sw_claim_state)state;
    c.too_large = flags == FLAG_TOO_LARGE;
    if (c.state == SW_CLAIM_DONE) {
        uint64_t status = sw_wire__number(&w, 2), reason = sw_wire__number(&w, 4);
        uint64_t headers = sw_wire__number(&w, 4), body = sw_wire__number(&w, 4);

        c.status = (unsigned)status;
        c.reason = sw_wire__take(&w, reason);
        c.headers = sw_wire__take(&w, headers);
        c.body = sw_wire__take(&w, body);
        if (w.bad || status < 100 || status > 599 || !no_controls(c.reason) ||
            !lines_fine(c.headers)) {
            return SW_E_STORE_CORRUPT;
        }
    }
    if (!sw_wire__whole(&w) || (c.too_large && (c.state != SW_CLAIM_DONE || c.body.len > 0))) {
        return SW_E_STORE_CORRUPT;
    }
    *ret_claim = c;
    return SW_OK;
}

/* ---- decisions ------------------------------------------------------------------------------- */

struct sw_claim_decision sw_claim_decide(const struct sw_config_route *route,
                                         const struct sw_claim *found,
                                         const uint8_t fingerprint[32])
{
    struct sw_claim_decision d = {SW_OK, false, 1};

    if (found == NULL) {
        return d;
    }
    d.attempt = found->attempt;
    if (memcmp(found->fingerprint, fingerprint, sizeof(found->fingerprint)) != 0) {
        d.err = SW_E_IDEM_REUSED; /* whatever became of the other one */
        return d;
    }
    switch (found->state) {
    case SW_CLAIM_DONE:
        /* a switch of protocols cannot be repeated either */
        d.replay = !found->too_large && found->status >= 200;
        d.err = d.replay ? SW_OK : SW_E_IDEM_TOO_LARGE;
        return d;
    case SW_CLAIM_RUNNING: /* nobody runs it: who did has ended, and nobody knows how far it came */
    case SW_CLAIM_UNKNOWN:
        if (route->idempotency.unknown == SW_IDEM_UNKNOWN_REJECT) {
            d.err = SW_E_IDEM_UNKNOWN;
            return d;
        }
        d.attempt = found->attempt < UINT32_MAX ? found->attempt + 1 : UINT32_MAX;
        return d;
    }
    SW_UNREACHABLE();
}

enum sw_claim_end sw_claim_end_of(const struct sw_config_route *route,
                                  const struct sw_update *update, unsigned status)
{
    switch (update->idempotency) {
    case SW_IDEM_STORE: /* the app knows better */
        return SW_CLAIM_KEEP;
    case SW_IDEM_RELEASE:
        return SW_CLAIM_RELEASE;
    case SW_IDEM_BY_STATUS:
        break;
    }
    switch (status) {
    case 408: /* these say "not now": a later try may succeed, and nothing was done */
    case 409:
    case 423:
    case 425:
    case 429:
        return SW_CLAIM_RELEASE;
    default:
        break;
    }
    if (status >= 500) {
        switch (route->idempotency.failed) {
        case SW_IDEM_FAILED_UNKNOWN:
            return SW_CLAIM_DOUBT;
        case SW_IDEM_FAILED_STORE:
            return SW_CLAIM_KEEP;
        case SW_IDEM_FAILED_RELEASE:
            return SW_CLAIM_RELEASE;
        }
    }
    return SW_CLAIM_KEEP;
}

/* ---- the stored headers ---------------------------------------------------------------------- */

/* By name and not by id, so that fields of an envelope can be asked about too. */
static bool kept(struct sw_slice name)
{
    static const struct sw_slice names[] = {
        /* framing and hop-by-hop: RFC 9112, 6; RFC 9110, 7.6.1 */
        SW_S("connection"),
        SW_S("content-length"),
        SW_S("http2-settings"),
        SW_S("keep-alive"),
        SW_S("proxy-authenticate"),
        SW_S("proxy-authentication-info"),
        SW_S("proxy-connection"),
        SW_S("te"),
        SW_S("trailer"),
        SW_S("transfer-encoding"),
        SW_S("upgrade"),
        /* of this one answer */
        SW_S("date"),
        SW_S("set-cookie"),
        SW_S("idempotent-replayed"), /* a replay says it, and says it once */
        /* traces */
        SW_S("b3"),
        SW_S("baggage"),
        SW_S("traceparent"),
        SW_S("traceresponse"),
        SW_S("tracestate"),
        SW_S("uber-trace-id"),
        SW_S("x-amzn-trace-id"),
        SW_S("x-cloud-trace-context"),
    };
    static const struct sw_slice prefixes[] = {
        SW_S("stateway-"),
        SW_S("grip-"),
        SW_S("x-b3-"),
        SW_S("x-datadog-"),
    };

    for (size_t i = 0; i < SW_COUNTOF(names); i++) {
        if (same_name(name, names[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < SW_COUNTOF(prefixes); i++) {
        if (same_name(sw_slice_head(name, prefixes[i].len), prefixes[i])) {
            return false;
        }
    }
    return true;
}

bool sw_claim_headers_put(struct sw_out *out, const struct sw_head *response)
{
    for (uint32_t i = 0; i < response->field_count; i++) {
        const struct sw_field *field = &response->fields[i];

        if (!kept(field->name) || sw_head_lists(response, SW_FIELD_CONNECTION, field->name)) {
            continue;
        }
        sw_out_slice(out, field->name);
        sw_out_lit(out, ": ");
        sw_out_slice(out, field->value);
        sw_out_lit(out, "\r\n");
    }
    return !out->overflowed;
}
