/* crypto/jose_priv.h - what the files jose_*.c share. */
#ifndef SW_JOSE_PRIV_H
#define SW_JOSE_PRIV_H

#define OPENSSL_SUPPRESS_DEPRECATED /* hashes on plain structs: see hash.c */
#include "crypto/jose.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdatomic.h>

#define JOSE_HASH_BYTES_MAX  64
#define JOSE_BLOCK_BYTES_MAX 128
#define JOSE_SIG_BYTES_MAX   (SW_JWK_RSA_BITS_MAX / 8)
#define JOSE_PARTS_MAX       4

enum jose_hash { JOSE_SHA256, JOSE_SHA384, JOSE_SHA512, JOSE_HASH_COUNT };

/* A hash under way. */
struct jose_state {
    union {
        SHA256_CTX sha256;
        SHA512_CTX sha512; /* of SHA-384 too */
    } as;
};

/* What signs. An algorithm belongs to one of them, a key too. */
enum jose_kind { JOSE_OCT, JOSE_RSA, JOSE_RSA_PSS, JOSE_EC, JOSE_OKP };

struct jose_alg {
    const char *name;
    enum jose_kind kind;
    enum jose_hash hash;
    const char *curve;       /* as JWK names it; NULL: none */
    const char *group;       /* as OpenSSL names it */
    size_t coordinate_bytes; /* of the curve; an ECDSA signature has two of them */
};
extern const struct jose_alg sw_jose__algs[SW_JOSE_ALG_COUNT];

struct sw_jwk {
    enum sw_jose_alg alg;
    bool verifies, signs;
    bool legacy;      /* its "alg" says EdDSA, and so do the headers it signs */
    bool kept;        /* of an earlier set: for tokens that name it only */
    uint32_t ring_id; /* made from that key of the ring; 0: of none */
    size_t kid_len;
    char kid[SW_JWK_KID_BYTES_MAX];
    /* A public key's members as RFC 7638 orders them, without braces; NULL of a secret. */
    char *text;
    size_t text_len;
    uint8_t thumb[32];
    size_t sig_bytes; /* of each signature by this key */
    /* Set up once and copied for each use: one of the two pairs, or none. */
    EVP_PKEY_CTX *verify, *sign;     /* RSA, EC */
    EVP_MD_CTX *ed_verify, *ed_sign; /* Ed25519 takes the message and not its hash */
    struct jose_state inner, outer;  /* HMAC (RFC 2104): after the block of the key and its pad */
};

struct sw_jwks {
    uint32_t magic;
    atomic_uint refs;
    uint64_t generation; /* random: no two sets have one */
    size_t count;
    size_t signer; /* index; count: none */
    struct sw_jwk keys[SW_JWKS_KEYS_MAX];
};
#define JWKS_MAGIC 0x4a574b53u

/* Of the concatenation of parts. Allocates nothing. Returns the length, 32, 48 or 64. */
size_t sw_jose__hash(enum jose_hash hash, const struct sw_slice *parts, size_t count,
                     uint8_t out[JOSE_HASH_BYTES_MAX]);
size_t sw_jose__hash_bytes(enum jose_hash hash);

/* Make a key whose alg is set ready. The EVP_PKEY stays the caller's; it holds a private key if
 * key->signs. SW_E_NO_MEMORY. */
void sw_jose__ready_secret(struct sw_jwk *key, struct sw_slice secret);
SW_MUST enum sw_err sw_jose__ready_pkey(struct sw_jwk *key, EVP_PKEY *pkey);
void sw_jose__key_fini(struct sw_jwk *key);
/* A copy that verifies and does not sign, into a zeroed key. SW_E_NO_MEMORY; also then the caller
 * ends it with sw_jose__key_fini. */
SW_MUST enum sw_err sw_jose__key_copy(const struct sw_jwk *from, struct sw_jwk *key);

/* SW_E_TOKEN_SIGNATURE, SW_E_NO_MEMORY. The key verifies. */
SW_MUST enum sw_err sw_jose__verify(const struct sw_jwk *key, struct sw_slice input,
                                    struct sw_slice sig);
/* key->sig_bytes of signature. The key signs. SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_jose__sign(const struct sw_jwk *key, struct sw_slice input,
                                  uint8_t sig[JOSE_SIG_BYTES_MAX]);

/* Read a JWK (a value of checked JSON) into a zeroed key. SW_E_JWK_*, SW_E_NO_MEMORY; also then the
 * caller ends it with sw_jose__key_fini. */
SW_MUST enum sw_err sw_jose__jwk_read(struct sw_slice text, const struct sw_jwks_rules *rules,
                                      struct sw_jwk *key);
/* A key of SW_JOSE_SIGNING from a seed; alg, signs and verifies are set. SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_jose__jwk_seed(struct sw_jwk *key, const uint8_t seed[64]);

/* The key that may verify a token with this kid (the inside of a JSON string; ptr NULL: none) and
 * algorithm. SW_E_TOKEN_KID, SW_E_TOKEN_ALG. */
SW_MUST enum sw_err sw_jose__find(const struct sw_jwks *set, struct sw_slice kid,
                                  enum sw_jose_alg alg, const struct sw_jwk **ret_key);

/* The inside of a JSON string; false: the value is none. */
SW_MUST bool sw_jose__string(struct sw_slice value, struct sw_slice *ret_inside);

/* sw_claims_check of a payload that was found to be one JSON object before. */
SW_MUST enum sw_err sw_jose__claims(struct sw_slice payload, const struct sw_claims_rules *rules,
                                    int64_t now_unix_s, struct sw_arena *arena,
                                    struct sw_claims *ret_claims);

#endif
