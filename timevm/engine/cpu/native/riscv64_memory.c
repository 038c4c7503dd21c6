/* The guest's page tables, read without a trace (priv 4.3 to 4.5): Unicorn's own look marks pages as accessed. */
#include "riscv64.h"

enum { VALID = 1, READ = 2, WRITE = 4, EXECUTE = 8 };

#define ENTRY_BITS 9
#define PAGE_BITS 12
#define FIRST_PROTECTED 0x3b0 /* pmpaddr0 */
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
        host = host_of(&cpu->common.engine, base + ((address >> shift) & ((1 << ENTRY_BITS) - 1)) * sizeof entry, sizeof entry);
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

/* An address has been translated: which entries were read for it?  About 20 ns. */
void note_tables(struct riscv64 *cpu, uint64_t address)
{
    uint64_t base = (*cpu->translation & (((uint64_t)1 << 44) - 1)) << PAGE_BITS, entry;
    unsigned levels = levels_of(*cpu->translation), shift = PAGE_BITS + ENTRY_BITS * levels;

    if (*cpu->mode == MODE_MACHINE && !(*cpu->status & STATUS_MPRV))
        return;
    while (levels--) {
        const uint8_t *host;

        shift -= ENTRY_BITS;
        host = note_entry(&cpu->common.engine, base + ((address >> shift) & ((1 << ENTRY_BITS) - 1)) * sizeof entry,
                          sizeof entry, levels ? NOWHERE : address & ~(((uint64_t)PAGE << ENTRY_BITS) - 1));
        if (!host)
            return;
        __builtin_memcpy(&entry, host, sizeof entry);
        if (!(entry & VALID) || (entry & (READ | WRITE | EXECUTE)))
            return;
        base = ENTRY_NUMBER(entry) << PAGE_BITS;
    }
}

/* ---- what else says how an address is translated: in the place of Unicorn's functions, which wait for a fence ---- */

/* pmpcfg and pmpaddr, in instructions that end their block */
EXPORT int timevm_riscv64_write_protection(void *env, int number, uint64_t value)
{
    const struct register_calls *calls = number < FIRST_PROTECTED ? &original.protection : &original.protected_address;
    int result = calls->write(env, number, value);

    if (running && running->env == env)
        empty_tlb(&running->engine);
    return result;
}

/* The mode that M-mode came from is another one: with MPRV its loads and stores are those of that mode. */
void previous_mode_changed(struct riscv64 *cpu)
{
    if (!(*cpu->status & STATUS_MPRV))
        return;
    cpu->common.engine.memory.tlb_stale = 1;
    look_soon(&cpu->common.engine);
}

static uint64_t (*return_from_machine)(void *env, uint64_t pc);

EXPORT void timevm_riscv64_set_return(uint64_t (*unicorns)(void *env, uint64_t pc))
{
    return_from_machine = unicorns;
}

/* in the place of helper_mret */
EXPORT uint64_t timevm_riscv64_mret(void *env, uint64_t pc)
{
    uint64_t target = return_from_machine(env, pc);

    if (running && running->env == env)
        previous_mode_changed(running_cpu());
    return target;
}

/* as struct unicorn_calls wants it */
EXPORT uint64_t timevm_riscv64_translate_page(void *cpu_state, uint64_t address, void *attributes)
{
    (void)attributes;
    return is_running(cpu_state) ? timevm_riscv64_page(running_cpu(), address) : NOWHERE;
}
