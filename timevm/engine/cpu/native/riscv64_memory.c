/* The guest's page tables, read without a trace (priv 4.3 to 4.5): Unicorn's own look marks pages as accessed. */
#include "riscv64.h"

enum { VALID = 1, READ = 2, WRITE = 4, EXECUTE = 8 };

#define ENTRY_BITS 9
#define PAGE_BITS 12
#define ENTRY_NUMBER(entry) ((entry) >> 10 & (((uint64_t)1 << 44) - 1))

/* 0: addresses are physical */
static unsigned levels_of(uint64_t translation)
{
    switch (translation >> 60) {
    case 8: return 3; /* Sv39 */
    case 9: return 4;
    case 10: return 5;
    default: return 0;
    }
}

/* Physical page of a virtual one, NOWHERE if it is not mapped; rights are not asked for.  About 20 ns. */
EXPORT uint64_t timevm_riscv64_page(const struct riscv64 *cpu, uint64_t address)
{
    uint64_t base = (*cpu->translation & (((uint64_t)1 << 44) - 1)) << PAGE_BITS, entry;
    unsigned levels = levels_of(*cpu->translation), shift = PAGE_BITS + ENTRY_BITS * levels;
    int64_t above = (int64_t)address >> (shift - 1);

    if (*cpu->mode == MODE_MACHINE || !levels)
        return address & PAGE_MASK;
    if (above != 0 && above != -1)
        return NOWHERE;
    while (levels--) {
        const uint8_t *host;
        uint64_t rest;

        shift -= ENTRY_BITS;
        host = host_of(&cpu->common, base + ((address >> shift) & ((1 << ENTRY_BITS) - 1)) * sizeof entry, sizeof entry);
        if (!host)
            return NOWHERE;
        __builtin_memcpy(&entry, host, sizeof entry);
        if (!(entry & VALID) || ((entry & WRITE) && !(entry & READ)))
            return NOWHERE;
        base = ENTRY_NUMBER(entry) << PAGE_BITS;
        if (!(entry & (READ | WRITE | EXECUTE)))
            continue;
        rest = ((uint64_t)1 << shift) - 1;
        return base & rest ? NOWHERE : (base | (address & rest)) & PAGE_MASK;
    }
    return NOWHERE;
}

/* as struct unicorn_calls wants it */
EXPORT uint64_t timevm_riscv64_translate_page(void *cpu_state, uint64_t address, void *attributes)
{
    (void)attributes;
    return is_running(cpu_state) ? timevm_riscv64_page(running_cpu(), address) : NOWHERE;
}
