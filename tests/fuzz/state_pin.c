/* fuzz/state_pin.c - a pin that a client brings: any bytes, and never one we did not make. */
#include "placement/placement.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sw_keyring ring;
    struct sw_pin pin;

    if (ring.count == 0) {
        sw_keyring_make(1760000000, &ring);
    }
    /* made with a key that no input knows: whatever is accepted was forged */
    SW_ASSERT(sw_pin_read(sw_slice_of(data, size), &ring, SW_S("pin"), 1760000000, 3600, 86400,
                          &pin) != SW_OK);
    return 0;
}
