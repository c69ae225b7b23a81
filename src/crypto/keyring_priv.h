/* crypto/keyring_priv.h - what the files of the key ring share. */
#ifndef SW_KEYRING_PRIV_H
#define SW_KEYRING_PRIV_H

#include "crypto/crypto.h"

#define SW_KEYRING_BYTES_MAX 8192 /* of the text: 16 keys of about 160 bytes, and white space */

/* Text for people, valid until this thread's next failure. Returns err. */
enum sw_err sw_keyring__refuse(enum sw_err err, const char **ret_why, const char *fmt, ...)
    SW_PRINTF(3, 4);
/* The keys that are made of the secret. */
void sw_keyring__derive(struct sw_key *key);

#endif
