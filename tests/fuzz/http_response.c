/* A response head to GET and to HEAD, whole and in pieces. */
#include "fuzz_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_head(data, size, true, SW_METHOD_GET);
    fuzz_head(data, size, true, SW_METHOD_HEAD);
    return 0;
}
