/* placement/revoke.c - what was ended before its time: the keys of the notes that say so.
 *
 * A note is a tombstone under a hash. For pins there is a mark besides: when the last one was
 * ended. It is a cut-off of a subject that nobody has, so it is durable with the note, known to the
 * store from its start on, and goes away with the last note.
 */
#include "placement/placement_priv.h"

/* A hash of kind and length-prefixed parts: two kinds never meet in one record. */
static void note_key(const char *kind, struct sw_slice a, struct sw_slice b,
                     struct sw_store_key *ret_key)
{
    char text[2 * SW_TOKEN_BYTES_MAX + 128];
    struct sw_out out = sw_out_init(text, sizeof(text));

    sw_out_printf(&out, "ended %s %zu:", kind, a.len);
    sw_out_slice(&out, a);
    sw_out_printf(&out, " %zu:", b.len);
    sw_out_slice(&out, b);
    SW_ASSERT(!out.overflowed); /* both are parts of one token */
    sw_sha256(sw_out_done(&out), ret_key->bytes);
}

void sw_revoke_token_key(struct sw_slice issuer, struct sw_slice jti, struct sw_store_key *ret_key)
{
    note_key("token", issuer, jti, ret_key);
}

void sw_revoke_sealed_key(const uint8_t id[SW_SEALED_ID_BYTES], struct sw_store_key *ret_key)
{
    note_key("sealed", sw_slice_of(id, SW_SEALED_ID_BYTES), SW_S(""), ret_key);
}

void sw_revoke_pin_key(uint64_t pin_id, struct sw_store_key *ret_key)
{
    note_key("pin", sw_slice_of(&pin_id, sizeof(pin_id)), SW_S(""), ret_key);
}

/* No subject of an app: it holds a control character. */
static const struct sw_slice pins_mark = SW_S("\001stateway pins");

void sw_revoke_pins_mark(int64_t now_unix_ms, int64_t expires_unix_s, struct sw_write *ret_write)
{
    *ret_write = (struct sw_write){
        .kind = SW_WRITE_CUTOFF,
        .subject = pins_mark,
        .not_before_unix_ms = now_unix_ms + SW_REVOKE_SKEW_MS,
        .expires_unix_s = expires_unix_s,
    };
}

bool sw_revoke_pin_asked(const struct sw_place_env *env, const struct sw_pin *pin)
{
    return env->store != NULL &&
           pin->issued_unix_s * 1000 <= sw_store_cutoff_unix_ms(env->store, pins_mark);
}

void sw_revoke_write(const struct sw_store_key *key, int64_t expires_unix_s,
                     struct sw_write *ret_write)
{
    *ret_write = (struct sw_write){
        .kind = SW_WRITE_DELETE,
        .key = *key,
        .expect = SW_EXPECT_ANY,
        .expires_unix_s = expires_unix_s,
    };
}

bool sw_revoke_cut_off(const struct sw_place_env *env, struct sw_slice subject,
                       int64_t issued_unix_ms)
{
    struct sw_subject_names names;

    if (env->store == NULL || subject.len == 0 || subject.len > SW_SUBJECT_BYTES_MAX) {
        return false;
    }
    sw_place_subject_names(env->keys, subject, &names);
    for (size_t i = 0; i < names.count; i++) {
        int64_t cut_unix_ms = sw_store_cutoff_unix_ms(env->store, names.list[i]);

        if (cut_unix_ms > 0 && issued_unix_ms <= cut_unix_ms) {
            return true;
        }
    }
    return false;
}
