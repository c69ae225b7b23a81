/* The contract of stores, kept by store_mem.c. */
#include "contract.h"

int main(void)
{
    return contract_run(&maker_mem);
}
