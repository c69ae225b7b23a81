/* The contract of stores, kept by the journal (src/store/journal_*.c). */
#include "test_journal.h"

int main(void)
{
    return contract_run(&maker_journal);
}
