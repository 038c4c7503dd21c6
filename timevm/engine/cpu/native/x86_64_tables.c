/* The guest's page tables as the processor reads them (Intel SDM 3A, 4.3 to 4.5). */
#include "x86_64.h"

enum { PRESENT = 1, LARGE = 1 << 7 };

#define CR0_PAGING (1u << 31)
#define CR4_LARGE (1u << 4)
#define CR4_EXTENDED (1u << 5) /* PAE: entries of eight bytes */
#define CR4_FIVE_LEVELS (1u << 12)
#define EFER_LONG (1u << 10)
#define EFER_NO_EXECUTE (1u << 11)
#define ADDRESS (((uint64_t)1 << 52) - PAGE)

/* entries of eight bytes: 512 in a table, but four in the first of three levels */
static void note_extended(struct x86_64 *cpu, uint64_t address)
{
    int is_long = (*cpu->efer & EFER_LONG) != 0;
    unsigned shift = !is_long ? 30 : cpu->control[4] & CR4_FIVE_LEVELS ? 48 : 39;
    uint64_t base = cpu->control[3] & (is_long ? ADDRESS : 0xffffffe0), index = address >> shift & (is_long ? 511 : 3);

    for (;;) {
        const uint8_t *host = note_entry(&cpu->common.engine, (base + index * 8) & (uint64_t)(int64_t)*cpu->a20, 8,
                                         shift == 12 ? address & ~(((uint64_t)1 << 21) - 1) : NOWHERE);
        uint64_t entry;

        if (!host || shift == 12)
            return;
        __builtin_memcpy(&entry, host, sizeof entry);
        if (!(entry & PRESENT) || ((entry & LARGE) && (shift == 21 || is_long)))
            return;
        base = entry & ADDRESS;
        shift -= 9;
        index = address >> shift & 511;
    }
}

/* An address has been translated: which entries were read for it?  About 20 ns. */
void note_tables(struct x86_64 *cpu, uint64_t address)
{
    uint64_t mask = (uint64_t)(int64_t)*cpu->a20;
    const uint8_t *host;
    uint32_t entry;

    if (!(cpu->control[0] & CR0_PAGING))
        return;
    if (cpu->control[4] & CR4_EXTENDED) {
        note_extended(cpu, address);
        return;
    }
    host = note_entry(&cpu->common.engine, ((cpu->control[3] & PAGE_MASK) + (address >> 20 & 0xffc)) & mask, 4, NOWHERE);
    if (!host)
        return;
    __builtin_memcpy(&entry, host, sizeof entry);
    if (!(entry & PRESENT) || ((entry & LARGE) && (cpu->control[4] & CR4_LARGE)))
        return;
    note_entry(&cpu->common.engine, ((entry & PAGE_MASK) + (address >> 10 & 0xffc)) & mask, 4,
               address & ~(((uint64_t)1 << 22) - 1));
}

/* In the place of helper_wrmsr, whose instruction ends its block: whether an entry may forbid execution is in EFER. */
static void (*write_register)(void *env);

EXPORT void timevm_x86_set_write_register(void (*unicorns)(void *env))
{
    write_register = unicorns;
}

EXPORT void timevm_x86_wrmsr(void *env)
{
    struct x86_64 *cpu = running_cpu();
    uint64_t before;

    if (!cpu || cpu->common.env != env) {
        write_register(env);
        return;
    }
    before = *cpu->efer;
    write_register(env);
    if ((before ^ *cpu->efer) & EFER_NO_EXECUTE) {
        cpu->common.engine.memory.tlb_stale = 1;
        look_soon(&cpu->common.engine);
    }
}
