/* A request head, whole and in pieces. */
#include "fuzz_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_head(data, size, false, SW_METHOD_OTHER);
    return 0;
}
