/* placement/subject.c - whose state it is: as the app says it, or, where states are sealed, as a
 * name that says the same and reveals nobody.
 *
 * A route with `encrypt: on` keeps "~" and 16 bytes of HMAC-SHA-256 of the subject, base64url. Its
 * key is made of a key of the ring, and that is the oldest one which is no seed: so the name stays
 * when another key is promoted. When the oldest is taken out of the ring, new names are made with
 * the next one; what was kept under the old name cannot be listed or cut off by its subject any
 * more, so a key stays in the ring, retired, for as long as a session may live. Who looks for a
 * subject asks for the names under all keys of the ring, and for the plain one: the route may have
 * changed its mind.
 */
#include "placement/placement_priv.h"

static void hidden_put(const struct sw_key *key, struct sw_slice subject,
                       char ret_text[SW_SUBJECT_NAME_BYTES])
{
    struct sw_out out = sw_out_init(ret_text, SW_SUBJECT_NAME_BYTES);
    struct sw_mac_key secret;
    uint8_t mac[32];

    sw_hkdf(key->secret, SW_S("stateway subject at rest 1"), secret.bytes);
    sw_hmac_sha256(&secret, &subject, 1, mac);
    explicit_bzero(&secret, sizeof(secret));
    sw_out_char(&out, '~');
    sw_b64url_put(&out, mac, 16);
    SW_ASSERT(out.len == SW_SUBJECT_NAME_BYTES);
}

static bool hidden(struct sw_slice subject)
{
    uint8_t mac[16];

    return subject.len == SW_SUBJECT_NAME_BYTES && subject.ptr[0] == '~' &&
           sw_b64url_exact(sw_slice_tail(subject, 1), mac, sizeof(mac)) == SW_OK;
}

void sw_place_subject_names(const struct sw_keyring *keys, struct sw_slice subject,
                            struct sw_subject_names *ret_names)
{
    ret_names->list[0] = subject;
    ret_names->count = 1;
    for (size_t i = 0; i < keys->count; i++) {
        hidden_put(&keys->keys[i], subject, ret_names->text[i]);
        ret_names->list[ret_names->count++] =
            sw_slice_of(ret_names->text[i], SW_SUBJECT_NAME_BYTES);
    }
}

static bool named(const struct sw_keyring *keys, struct sw_slice name, struct sw_slice subject)
{
    struct sw_subject_names names;

    if (!hidden(name)) {
        return false;
    }
    sw_place_subject_names(keys, subject, &names);
    for (size_t i = 1; i < names.count; i++) {
        if (sw_slice_eq(names.list[i], name)) {
            return true;
        }
    }
    return false;
}

bool sw_place__same_subject(const struct sw_keyring *keys, struct sw_slice a, struct sw_slice b)
{
    return sw_slice_eq(a, b) || named(keys, a, b) || named(keys, b, a);
}

const struct sw_key *sw_place__oldest_key(const struct sw_keyring *keys)
{
    return sw_keyring_oldest(keys);
}

enum sw_err sw_place__hide_subject(struct sw_ask *ask, struct sw_slice subject,
                                   struct sw_slice *ret_hidden)
{
    char *text;

    if (subject.len == 0 || hidden(subject)) {
        *ret_hidden = subject;
        return SW_OK;
    }
    text = sw_arena_bytes(ask->arena, SW_SUBJECT_NAME_BYTES);
    if (text == NULL) {
        return SW_E_NO_MEMORY;
    }
    hidden_put(sw_keyring_oldest(ask->env->keys), subject, text);
    *ret_hidden = sw_slice_of(text, SW_SUBJECT_NAME_BYTES);
    return SW_OK;
}
