/* The contract of stores, kept by the embedded store (lmdb_*.c). */
#include "contract.h"

int main(void)
{
    return contract_run(&maker_lmdb);
}
