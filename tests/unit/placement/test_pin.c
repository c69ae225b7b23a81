/* unit/placement/test_pin.c - pins: what is bound into them, and what is refused. */
#include "placement/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define NOW 1760000000

static struct sw_keyring ring;

static struct sw_slice make(char text[SW_PIN_TEXT_MAX], const struct sw_pin *pin)
{
    struct sw_out out = sw_out_init(text, SW_PIN_TEXT_MAX);

    assert_true(sw_pin_put(&out, &ring, SW_S("pin-shop"), pin));
    return sw_out_done(&out);
}

static const struct sw_pin pin0 = {.epoch = 7,
                                   .id = 0x1122334455667788u,
                                   .incarnation = 0x99aabbccddeeff01u,
                                   .issued_unix_s = NOW - 100,
                                   .seen_unix_s = NOW - 10};

static enum sw_err read_at(struct sw_slice text, struct sw_slice service, int64_t now,
                           struct sw_pin *ret_pin)
{
    return sw_pin_read(text, &ring, service, now, 3600, 86400, ret_pin);
}

static void round_trip(void **state)
{
    char text[SW_PIN_TEXT_MAX];
    struct sw_slice s = make(text, &pin0);
    struct sw_pin pin = {0};

    (void)state;
    assert_int_equal(read_at(s, SW_S("pin-shop"), NOW, &pin), SW_OK);
    assert_int_equal(pin.epoch, pin0.epoch);
    assert_true(pin.id == pin0.id);
    assert_true(pin.incarnation == pin0.incarnation);
    assert_true(pin.issued_unix_s == pin0.issued_unix_s);
    assert_true(pin.seen_unix_s == pin0.seen_unix_s);
}

/* No bit of a pin can be changed, and nothing shorter or longer is one. */
static void every_change_is_forged(void **state)
{
    char text[SW_PIN_TEXT_MAX + 1];
    struct sw_slice s = make(text, &pin0);
    struct sw_pin pin;

    (void)state;
    for (size_t i = 0; i < s.len; i++) {
        char was = text[i];

        for (int c = 0; c < 256; c++) {
            if ((char)c == was) {
                continue;
            }
            text[i] = (char)c;
            assert_int_equal(read_at(s, SW_S("pin-shop"), NOW, &pin), SW_E_PIN_FORGED);
        }
        text[i] = was;
    }
    for (size_t len = 0; len < s.len; len++) {
        assert_int_equal(read_at(sw_slice_head(s, len), SW_S("pin-shop"), NOW, &pin),
                         SW_E_PIN_FORGED);
    }
    text[s.len] = 'A';
    assert_int_equal(read_at(sw_slice_of(text, s.len + 1), SW_S("pin-shop"), NOW, &pin),
                     SW_E_PIN_FORGED);
}

static void bound_to_its_service(void **state)
{
    char text[SW_PIN_TEXT_MAX];
    struct sw_slice s = make(text, &pin0);
    struct sw_pin pin;

    (void)state;
    assert_int_equal(read_at(s, SW_S("pin-other"), NOW, &pin), SW_E_PIN_FORGED);
    assert_int_equal(read_at(s, SW_S(""), NOW, &pin), SW_E_PIN_FORGED);
}

static void times(void **state)
{
    static const struct {
        const char *name;
        int64_t now;
        enum sw_err err;
    } rows[] = {
        {"just in time (idle)", NOW - 10 + 3600, SW_OK},
        {"a second late (idle)", NOW - 10 + 3601, SW_E_PIN_EXPIRED},
        {"a clock that is 60 s behind", NOW - 10 - 60, SW_OK},
        {"a clock that is 61 s behind", NOW - 10 - 61, SW_E_PIN_EXPIRED},
    };
    char text[SW_PIN_TEXT_MAX];
    struct sw_slice s = make(text, &pin0);
    struct sw_pin pin, old = pin0;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        if (read_at(s, SW_S("pin-shop"), rows[i].now, &pin) != rows[i].err) {
            fail_msg("%s", rows[i].name);
        }
    }
    old.issued_unix_s = NOW - 86400;
    assert_int_equal(read_at(make(text, &old), SW_S("pin-shop"), NOW, &pin), SW_OK);
    old.issued_unix_s--;
    assert_int_equal(read_at(make(text, &old), SW_S("pin-shop"), NOW, &pin), SW_E_PIN_EXPIRED);
}

/* A pin of a key that is still in the ring is good; of one that is gone it is forged. */
static void rotation(void **state)
{
    char text[SW_PIN_TEXT_MAX];
    struct sw_slice s = make(text, &pin0);
    struct sw_keyring before = ring, other;
    struct sw_pin pin;

    (void)state;
    sw_keyring_make(NOW, &other);
    ring.keys[1] = other.keys[0];
    ring.keys[1].id = 2;
    ring.keys[0].state = SW_KEY_RETIRED;
    ring.active = 1;
    ring.count = 2;
    assert_int_equal(read_at(s, SW_S("pin-shop"), NOW, &pin), SW_OK);
    ring = other;
    assert_int_equal(read_at(s, SW_S("pin-shop"), NOW, &pin), SW_E_PIN_FORGED);
    ring = before;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_change_is_forged),
        cmocka_unit_test(bound_to_its_service),
        cmocka_unit_test(times),
        cmocka_unit_test(rotation),
    };

    sw_keyring_make(NOW, &ring);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
