#include "contract.h"

int main(void)
{
    return contract_run(&maker_mem);
}
