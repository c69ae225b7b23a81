/* placement/pin.c - the bytes of a pin: which incarnation holds a visitor's state.
 *
 *   at  len  field
 *    0    1  format: 1
 *    1    4  key id            big endian, as all below
 *    5    4  epoch             one more at each re-pin
 *    9    8  pin id            random: the visitor in the ledger
 *   17    8  incarnation
 *   25    8  issued            unix seconds: the absolute limit counts from here
 *   33    8  seen              unix seconds: the idle limit counts from here
 *   41   16  MAC               HMAC-SHA-256, first half, over "stateway pin 1", service, 0..40
 *
 * The text is base64url without padding. Times are wall times under the MAC, so that several
 * gateways agree and a browser cannot keep a pin alive.
 */
#include "placement/placement_priv.h"

#define PIN_FORMAT 1
#define PIN_FIELDS 41
#define PIN_MAC    16
#define SKEW_S     60 /* clocks of two gateways may differ by this much */

_Static_assert(PIN_FIELDS + PIN_MAC == SW_PIN_BYTES, "the table above");

static void put_be(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    }
}

static uint64_t get_be(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;

    for (size_t i = 0; i < bytes; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

static void pin_mac(const struct sw_key *key, struct sw_slice service, const uint8_t *fields,
                    uint8_t out[32])
{
    uint8_t length[4] = {0};
    struct sw_slice parts[] = {
        SW_S("stateway pin 1"),
        sw_slice_of(length, sizeof(length)),
        service,
        sw_slice_of(fields, PIN_FIELDS),
    };

    put_be(length, service.len, sizeof(length));
    sw_hmac_sha256(&key->pin, parts, SW_COUNTOF(parts), out);
}

bool sw_pin_put(struct sw_out *out, const struct sw_keyring *keys, struct sw_slice service,
                const struct sw_pin *pin)
{
    const struct sw_key *key = &keys->keys[keys->active];
    uint8_t bytes[SW_PIN_BYTES], mac[32];

    SW_ASSERT(pin->incarnation != 0);
    bytes[0] = PIN_FORMAT;
    put_be(bytes + 1, key->id, 4);
    put_be(bytes + 5, pin->epoch, 4);
    put_be(bytes + 9, pin->id, 8);
    put_be(bytes + 17, pin->incarnation, 8);
    put_be(bytes + 25, (uint64_t)pin->issued_unix_s, 8);
    put_be(bytes + 33, (uint64_t)pin->seen_unix_s, 8);
    pin_mac(key, service, bytes, mac);
    memcpy(bytes + PIN_FIELDS, mac, PIN_MAC);
    sw_b64url_put(out, bytes, sizeof(bytes));
    sw_keyring_used(keys, key->id, SW_KEY_MADE, pin->seen_unix_s);
    return !out->overflowed;
}

uint64_t sw_pin_id(const uint8_t bytes[SW_PIN_BYTES])
{
    return get_be(bytes + 9, 8);
}

enum sw_err sw_pin_read(struct sw_slice text, const struct sw_keyring *keys,
                        struct sw_slice service, int64_t now_unix_s, int64_t idle_s,
                        int64_t absolute_s, struct sw_pin *ret_pin)
{
    uint8_t bytes[SW_PIN_BYTES], mac[32];
    const struct sw_key *key;
    struct sw_pin pin;

    if (sw_b64url_exact(text, bytes, sizeof(bytes)) != SW_OK || bytes[0] != PIN_FORMAT) {
        return SW_E_PIN_FORGED;
    }
    key = sw_keyring_find(keys, (uint32_t)get_be(bytes + 1, 4));
    if (key == NULL) {
        return SW_E_PIN_FORGED;
    }
    pin_mac(key, service, bytes, mac);
    if (!sw_slice_eq_secret(sw_slice_of(mac, PIN_MAC), sw_slice_of(bytes + PIN_FIELDS, PIN_MAC))) {
        return SW_E_PIN_FORGED;
    }
    sw_keyring_used(keys, key->id, SW_KEY_OPENED, now_unix_s);
    pin = (struct sw_pin){
        .key_id = key->id,
        .epoch = (uint32_t)get_be(bytes + 5, 4),
        .id = get_be(bytes + 9, 8),
        .incarnation = get_be(bytes + 17, 8),
        .issued_unix_s = (int64_t)get_be(bytes + 25, 8),
        .seen_unix_s = (int64_t)get_be(bytes + 33, 8),
    };
    if (pin.seen_unix_s > now_unix_s + SKEW_S || now_unix_s - pin.seen_unix_s > idle_s ||
        now_unix_s - pin.issued_unix_s > absolute_s) {
        return SW_E_PIN_EXPIRED;
    }
    *ret_pin = pin;
    return SW_OK;
}
