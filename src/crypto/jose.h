/* crypto/jose.h - signed and encrypted tokens: keys (JWK), signatures (JWS), claims (JWT), seals
 * (JWE).
 *
 * Room       Bytes + keys + wall time -> claims, or a named refusal. Pure but for sw_random.
 * May touch  base/, OpenSSL.
 * Flow       A key set is read once and never changes; any thread verifies with it. A worker asks
 *            sw_token_check, which looks into the worker's cache first.
 * Source     RFC 7515 to 7519, 7638, 8037, 8725, 9068, 9864.
 *
 * What a token says about its own verification is believed only as far as the keys agree: the
 * algorithm is the key's, keys come from the set and from nowhere else (jku, x5u, jwk, x5c are
 * never looked at), and there is one spelling of each token: strict base64url, no padding, no loose
 * bits, no name twice.
 */
#ifndef SW_JOSE_H
#define SW_JOSE_H

#include "crypto/crypto.h"

/* ---- algorithms ------------------------------------------------------------------------------ */

/* In the order in which a key without "alg" takes the first one that it can and may. */
enum sw_jose_alg {
    SW_JOSE_HS256,
    SW_JOSE_HS384,
    SW_JOSE_HS512,
    SW_JOSE_RS256,
    SW_JOSE_RS384,
    SW_JOSE_RS512,
    SW_JOSE_PS256,
    SW_JOSE_PS384,
    SW_JOSE_PS512,
    SW_JOSE_ES256,
    SW_JOSE_ES384,
    SW_JOSE_ES512,
    SW_JOSE_ED25519, /* also read under its legacy name EdDSA (RFC 9864, 2.2) */
    SW_JOSE_ALG_COUNT,
};
#define SW_JOSE_SECRETS (SW_BIT(SW_JOSE_HS256) | SW_BIT(SW_JOSE_HS384) | SW_BIT(SW_JOSE_HS512))
#define SW_JOSE_PUBLIC  ((SW_BIT(SW_JOSE_ALG_COUNT) - 1) & ~SW_JOSE_SECRETS)
/* Those we sign with ourselves. */
#define SW_JOSE_SIGNING (SW_BIT(SW_JOSE_HS256) | SW_BIT(SW_JOSE_ES256) | SW_BIT(SW_JOSE_ED25519))

/* "ES256" */
const char *sw_jose_alg_name(enum sw_jose_alg alg);
/* Case counts. False: not one of ours; "none" is none of ours. */
SW_MUST bool sw_jose_alg_find(struct sw_slice name, enum sw_jose_alg *ret_alg);

/* ---- keys ------------------------------------------------------------------------------------ */

#define SW_JWKS_BYTES_MAX    (256u * 1024) /* a set's text; longer: SW_E_JWKS_LARGE */
#define SW_JWKS_KEYS_MAX     64u           /* usable or not; more: SW_E_JWKS_LARGE */
#define SW_JWK_KID_BYTES_MAX 256u          /* longer: SW_E_JWK_SYNTAX */
#define SW_JWK_OCT_BYTES_MAX 512u          /* a shared secret; longer: SW_E_JWK_WEAK */
#define SW_JWK_RSA_BITS_MIN  2048u         /* RFC 7518, 3.3; shorter: SW_E_JWK_WEAK */
#define SW_JWK_RSA_BITS_MAX  8192u         /* a verification must end; longer: SW_E_JWK_WEAK */
#define SW_JWK_THUMB_CHARS   43u           /* SHA-256 as base64url */

/* A key for one algorithm, ready to use. Belongs to its set, never changes; any thread. */
struct sw_jwk;
/* Keys that were read together. Never changes; any thread. */
struct sw_jwks;

struct sw_jwks_rules {
    uint32_t algs; /* SW_BIT(SW_JOSE_...): a key for another algorithm is not used */
    bool signs;    /* private members are read, and keys may sign */
};

/* What was left out, for logs: nothing of a key but its place. */
struct sw_jwks_report {
    size_t skipped;         /* keys of the set that are not used (RFC 7517, 5) */
    size_t skipped_first;   /* index of the first of them */
    enum sw_err skipped_by; /* and why: SW_E_JWK_... */
};

/* Read a key set ({"keys":[...]}), or a single JWK as a set of one.
 *
 * text     JSON, up to SW_JWKS_BYTES_MAX.
 * Keys     oct, RSA, EC (P-256, P-384, P-521), OKP (Ed25519). A key is used for one algorithm: its
 *          "alg", or without one the first of rules->algs that its type and curve can do. One
 *          without "kid" gets its thumbprint (RFC 7638), shared secrets excepted.
 * Refused  Secrets shorter than the hash, RSA outside of the limits above, with an exponent that is
 *          even or one, or with the ROCA fingerprint; points outside of their curve or of small
 *          order; `use` and `key_ops` for something else. Numbers have no leading zeros, points
 *          their full length (RFC 7518, 6). In a set such a key is skipped and reported; of a
 *          single JWK it is the error.
 * Errors   SW_E_JWKS_*, SW_E_JWK_* (a single JWK), SW_E_NO_MEMORY. A set is refused whole when a
 *          usable key shares its id with another one, be that broken, and when secrets stand beside
 *          public keys.
 * Owner    The caller holds one reference. ret_report may be NULL. Allocates.
 */
SW_MUST enum sw_err sw_jwks_new(struct sw_slice text, const struct sw_jwks_rules *rules,
                                struct sw_jwks **ret_set, struct sw_jwks_report *ret_report);

/* Keys to mint tokens, made from the key ring: one of each secret, which verifies; that of the
 * active one signs. The same ring gives the same keys. The thumbprint is the id; of HS256 it is
 * "ring-1" with the ring's id. alg: one of SW_JOSE_SIGNING. Allocates. SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_jwks_derive(const struct sw_keyring *ring, enum sw_jose_alg alg,
                                   struct sw_jwks **ret_set);

/* A copy of set that also verifies with keys which are not in it any more.
 *
 * kept     Keys of other sets, the newest first: for tokens that name them by kid and no others,
 *          since without a kid there must be one key to take. They are not published. Left out are
 *          those without an id, or whose id the set has (its own key is meant then) or another one
 *          in front; secrets beside public keys, public keys beside secrets; and what is beyond
 *          SW_JWKS_KEYS_MAX.
 * Owner    The caller holds one reference; the others may be freed. No key of it signs. Allocates.
 * Errors   SW_E_NO_MEMORY.
 */
SW_MUST enum sw_err sw_jwks_merge(const struct sw_jwks *set, const struct sw_jwk *const *kept,
                                  size_t count, struct sw_jwks **ret_set);

/* Any thread. Whoever verifies while another thread may replace the set holds a reference. */
struct sw_jwks *sw_jwks_ref(struct sw_jwks *set);
/* The last one frees it and wipes its secrets. NULL is allowed. */
void sw_jwks_unref(struct sw_jwks *set);

size_t sw_jwks_count(const struct sw_jwks *set);
const struct sw_jwk *sw_jwks_at(const struct sw_jwks *set, size_t index);
/* The key that signs: of a derived set the active one's, else the first that may. NULL: none. */
const struct sw_jwk *sw_jwks_signer(const struct sw_jwks *set);
/* Public keys only, as {"keys":[...]} for /.well-known/jwks.json; a secret is never written. False:
 * no room. */
SW_MUST bool sw_jwks_put_public(struct sw_out *out, const struct sw_jwks *set);

enum sw_jose_alg sw_jwk_alg(const struct sw_jwk *key);
/* Empty: a shared secret without "kid". Lives as long as the set. */
struct sw_slice sw_jwk_kid(const struct sw_jwk *key);
/* RFC 7638, SHA-256, as base64url. Of a shared secret too: who knows it can test guesses. */
void sw_jwk_thumbprint(const struct sw_jwk *key, char out[SW_JWK_THUMB_CHARS]);

/* ---- signatures (JWS, compact) ----------------------------------------------------------------
 */

#define SW_TOKEN_BYTES_MAX        8192u /* the whole token; longer: SW_E_TOKEN_LARGE */
#define SW_JWS_HEADER_BYTES_MAX   2048u /* decoded; longer: SW_E_TOKEN_HEADER */
#define SW_JWS_HEADER_MEMBERS_MAX 16u   /* more: SW_E_TOKEN_HEADER */

struct sw_jws {
    const struct sw_jwk *key; /* that verified it */
    struct sw_slice payload;  /* decoded, in the arena; any bytes */
};

/* Verify a token.
 *
 * typ      "at+jwt", "JWT": the header's typ must be that, with or without "application/", in any
 *          case (RFC 7515, 4.1.9). Empty: not looked at. At most 128 bytes.
 * Key      The one of the token's kid. Without kid the only one of the token's algorithm.
 * arena    Takes the payload; given back when it fails.
 * Errors   SW_E_TOKEN_LARGE, _SYNTAX, _HEADER, _ALG, _KID (of use to whoever may fetch keys again),
 *          _TYP, _SIGNATURE; SW_E_NO_MEMORY: the arena is full.
 * Thread   Any. Refuses what is cheap to refuse first; OpenSSL allocates and frees while it runs.
 */
SW_MUST enum sw_err sw_jws_verify(const struct sw_jwks *set, struct sw_slice token,
                                  struct sw_slice typ, struct sw_arena *arena,
                                  struct sw_jws *ret_jws);

/* Sign: the compact token is appended to out. typ may be empty.
 * SW_E_JWK_USE: the key does not sign. SW_E_TOKEN_LARGE: longer than SW_TOKEN_BYTES_MAX.
 * SW_E_LIMIT: no room in out. */
SW_MUST enum sw_err sw_jws_sign(const struct sw_jwk *key, struct sw_slice typ,
                                struct sw_slice payload, struct sw_out *out);

/* ---- claims (JWT) ----------------------------------------------------------------------------
 */

/* No time is later (9999-12-31T23:59:59Z): a time in milliseconds is an error and not forever. */
#define SW_CLAIM_TIME_MAX 253402300799ll
#define SW_SKEW_S_MAX     300 /* RFC 7519, 4.1.4: "no more than a few minutes" */

struct sw_claim_rule {
    struct sw_slice name;
    /* The claim is this string, or a list that holds it; or true, false, null or a number spelled
     * like it. */
    struct sw_slice value;
};

struct sw_claims_rules {
    struct sw_slice issuer; /* the same characters; empty: not looked at */
    /* One of them must be in aud. None: a token with aud is refused (RFC 7519, 4.1.3). */
    const struct sw_slice *audiences;
    size_t audience_count;
    const struct sw_slice *scopes; /* each must be in scope */
    size_t scope_count;
    const struct sw_claim_rule *claims; /* each must hold */
    size_t claim_count;
    int64_t skew_s;    /* 0..SW_SKEW_S_MAX: clocks may differ by it */
    int64_t age_s_max; /* since iat, which is then required; 0: any */
    bool jti, sub;     /* required, and not empty */
};

/* Text is as characters, in the payload or the arena; empty: not there. */
struct sw_claims {
    struct sw_slice payload; /* one JSON object */
    struct sw_slice iss, sub, jti;
    int64_t exp_unix_s; /* rounded down */
    int64_t iat_unix_s; /* rounded down; 0: not there */
    uint32_t ring_id;   /* of sw_token_check: signed with what was made from that key; 0: of none */
};

/* Look at a verified payload.
 *
 * arena       For strings that were written with escapes.
 * now_unix_s  0..SW_CLAIM_TIME_MAX. Refused at exp and after (exp is required), before nbf, before
 *             iat; each by more than the skew. Times may have fractions and exponents; they are
 *             compared exactly.
 * Errors      SW_E_TOKEN_CLAIMS (no object, a name twice, a wrong type, a time out of range),
 *             _MISSING, _ISSUER, _AUDIENCE, _EXPIRED, _EARLY, _OLD, _SCOPE, _REQUIRED, the first
 *             of them where several are true; SW_E_NO_MEMORY: the arena is full.
 */
SW_MUST enum sw_err sw_claims_check(struct sw_slice payload, const struct sw_claims_rules *rules,
                                    int64_t now_unix_s, struct sw_arena *arena,
                                    struct sw_claims *ret_claims);

/* ---- tokens that were verified before --------------------------------------------------------
 *
 * A worker's own: no locks. Takes its memory when it is made. A token is known by SHA-256 over the
 * key set, the wanted type and all its bytes, so a copy with one bit changed is another token, and
 * a new key set knows none. Only the signature is remembered; the claims are looked at each time,
 * since routes and times differ. An entry ends with exp. A denylist must go by (iss, jti) and never
 * by the token: signatures of ECDSA can be rewritten.
 */
#define SW_TOKEN_CACHE_ENTRIES      1024u
#define SW_TOKEN_CACHE_WAYS         8u /* places for one token; then the longest unused one goes */
#define SW_TOKEN_CACHE_CLAIMS_BYTES 1024u /* a longer payload is verified each time */

struct sw_token_cache;
struct sw_token_cache_stats {
    uint64_t hits, misses;
    uint64_t evictions; /* entries that had to go before their exp */
    uint64_t too_long;  /* payloads above SW_TOKEN_CACHE_CLAIMS_BYTES */
};
/* About 1.1 MB. NULL: no memory. */
struct sw_token_cache *sw_token_cache_new(void);
void sw_token_cache_free(struct sw_token_cache *cache);
/* Any thread: relaxed reads. */
struct sw_token_cache_stats sw_token_cache_stats(const struct sw_token_cache *cache);

/* All of the above: size, cache, signature, claims. cache: this worker's, or NULL. Errors as of
 * sw_jws_verify and sw_claims_check. The result lies in the arena. */
SW_MUST enum sw_err sw_token_check(struct sw_token_cache *cache, const struct sw_jwks *set,
                                   struct sw_slice typ, const struct sw_claims_rules *rules,
                                   struct sw_slice token, int64_t now_unix_s,
                                   struct sw_arena *arena, struct sw_claims *ret_claims);

/* ---- encryption (JWE, compact) ----------------------------------------------------------------
 *
 * Direct use of a 256-bit key with A256GCM and nothing else; a header with anything but alg, enc,
 * kid, typ and cty is refused, so there is no zip, no crit, no key of the sender's choice.
 */

/* Opens in the arena. SW_E_SEALED whatever is wrong; SW_E_NO_MEMORY: the arena is full. */
SW_MUST enum sw_err sw_jwe_open(const uint8_t key[32], struct sw_slice token,
                                struct sw_arena *arena, struct sw_slice *ret_plain);
/* kid: empty, or characters that need no escape in JSON. SW_E_TOKEN_LARGE: longer than
 * SW_TOKEN_BYTES_MAX. SW_E_LIMIT: no room in out. The nonce is random: at most 2^32 with one key.
 */
SW_MUST enum sw_err sw_jwe_seal(const uint8_t key[32], struct sw_slice kid, struct sw_slice plain,
                                struct sw_out *out);

/* ---- sealed states: a JWE in a cookie ----------------------------------------------------------
 *
 * Header, exactly so, and as AAD under the tag:
 *   {"alg":"dir","enc":"A256GCM","typ":"stateway1","kid":"1","iat":N,"exp":N,"jti":"<id>"}
 *    typ  format and version        kid  of the key ring, decimal
 *    iat  when it was sealed        exp  absolute end, unix seconds      jti  32 random bytes
 * Key: HKDF-SHA-256(ring secret, "stateway sealed v1" len service len cookie id), each len 4 bytes,
 * big endian. So every id has its own key: nonces cannot run out in a fleet, and what was sealed
 * for another service or cookie does not open.
 */
#define SW_SEALED_ID_BYTES   32u
#define SW_SEALED_BYTES_MAX  4096u /* name and value of the cookie (draft rfc6265bis, 5.6) */
#define SW_SEALED_SKEW_S     60    /* clocks of two gateways may differ by this much */
#define SW_SEALED_HEADER_MAX 192u

struct sw_sealed_place {
    struct sw_slice service; /* route or app: states of one do not open for another */
    struct sw_slice cookie;  /* its name */
};
struct sw_sealed {
    uint8_t id[SW_SEALED_ID_BYTES]; /* of the state through all its versions: for lists of ended
                                     * ones and replay guards */
    int64_t issued_unix_s;          /* of this version; an idle limit counts from here */
    int64_t expires_unix_s;         /* absolute; stays the same through all versions */
    uint32_t key_id; /* out of sw_sealed_open; another than the active one: seal anew */
};
/* How long the cookie's value will be for so many bytes of state (largest numbers assumed). */
size_t sw_sealed_size(size_t plain_bytes);
/* Append the cookie's value to out, sealed with the ring's active key. s->key_id is not looked at.
 * A new state gets its id from sw_random. SW_E_SEALED_LARGE: name and value exceed
 * SW_SEALED_BYTES_MAX. SW_E_LIMIT: no room in out. */
SW_MUST enum sw_err sw_sealed_put(struct sw_out *out, const struct sw_keyring *ring,
                                  const struct sw_sealed_place *place, const struct sw_sealed *s,
                                  struct sw_slice plain);
/* Open what a client brought, in the arena.
 *
 * now_unix_s  0..SW_CLAIM_TIME_MAX.
 * Errors      SW_E_SEALED: one answer for all of: malformed, unknown key, another place, changed,
 *             from the future. SW_E_SEALED_EXPIRED: ours, and past its end. SW_E_NO_MEMORY: the
 *             arena is full.
 */
SW_MUST enum sw_err sw_sealed_open(struct sw_slice text, const struct sw_keyring *ring,
                                   const struct sw_sealed_place *place, int64_t now_unix_s,
                                   struct sw_arena *arena, struct sw_sealed *ret_sealed,
                                   struct sw_slice *ret_plain);

#endif
