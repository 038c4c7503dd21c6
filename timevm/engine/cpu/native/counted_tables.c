/* The TLB follows the guest's page tables, so that nobody can tell how long an entry lives (decision 0170).

   Translations of addresses are kept until the guest invalidates them; but a stop and a restore, which may come anywhere,
   empty Unicorn's TLB.  A guest that changes tables without an invalidation could see that.  So it is noted, for each
   eight bytes of RAM, whether a translation that is kept was read from there, and stores to such a page are looked at as
   those to code are.  One that is about to change an entry in use has what was read from it forgotten first.  That is also
   the case where the TLB was empty, so both go on alike.

   What is noted is void by itself when the TLB has been emptied, as the guest does at each change of address space. */
#include "counted.h"

#define SLOT sizeof(uint64_t)
#define MANY NOWHERE

/* Tables are in RAM at a physical address: an entry of `size` bytes was read.  Where it is; NULL: that is no RAM.
   `first` is the virtual address that the table begins with if this is one of its last level, MANY if it is not.  About
   5 ns. */
const uint8_t *note_entry(struct counted *cpu, uint64_t physical, unsigned size, uint64_t first)
{
    for (uint32_t i = 0; i < cpu->ram_count; i++) {
        const struct ram_range *ram = &cpu->ram[i];
        uint64_t number, slot;
        const uint8_t *host;
        struct code_page *page;
        struct table *table;

        if (physical < ram->base || physical >= ram->end)
            continue;
        number = (physical - ram->base + ram->offset) / PAGE;
        slot = physical % PAGE / SLOT;
        host = ram->host + (physical - ram->base);
        page = &cpu->code_pages[number];
        table = &cpu->tables[number];
        if (!is_table(cpu, page)) {
            *table = (struct table){.first = first, .entry_size = size};
            page->table = cpu->flushes;
            watch_entries(cpu, page, host);
        } else if (table->first != first || table->entry_size != size) {
            table->first = MANY;
        }
        table->read[slot / 64] |= (uint64_t)1 << slot % 64;
        return host;
    }
    return 0;
}

/* slots of a page that `size` bytes are in, and whether they are in use */
static int is_read(const struct table *table, uint64_t first, uint64_t last)
{
    for (uint64_t slot = first; slot <= last; slot++)
        if (table->read[slot / 64] >> slot % 64 & 1)
            return 1;
    return 0;
}

/* nothing is kept any longer that was read from these slots */
static void forget_entries(struct counted *cpu, struct table *table, uint64_t first, uint64_t last)
{
    unsigned pages = SLOT / table->entry_size;

    if (table->first == MANY) {
        empty_tlb(cpu);
        return;
    }
    for (uint64_t slot = first; slot <= last; slot++) {
        if (!(table->read[slot / 64] >> slot % 64 & 1))
            continue;
        table->read[slot / 64] &= ~((uint64_t)1 << slot % 64);
        for (unsigned i = 0; i < pages; i++)
            cpu->engine.call.flush_tlb_page(cpu->engine.cpu_state, table->first + (slot * pages + i) * PAGE);
    }
}

/* RAM at this offset is about to be changed by the instruction that runs, in a page that tables were read from.

   If translations that are kept came from there, it begins once more without them.  Those that it makes itself are
   forgotten behind it: it runs alone then. */
void change_entries(struct counted *cpu, uint64_t offset, int size, uintptr_t host_pc)
{
    struct translation_block *block = cpu->block;
    struct table *table = &cpu->tables[offset / PAGE];
    uint64_t first = offset % PAGE, last = first + (uint64_t)size - 1;
    unsigned place;

    first /= SLOT;
    last = (last < PAGE ? last : PAGE - 1) / SLOT;
    if (!is_read(table, first, last))
        return;
    if (block && host_pc && cpu->engine.call.restore_state(cpu->engine.cpu_state, host_pc, 1)) {
        place = place_in_block(block, block->cs_base + *cpu->engine.pc);
        if (place < block->icount) {
            int64_t now = cpu->engine.horizon - cpu->engine.budget - (block->icount - (int64_t)place);

            if (now != cpu->begun_anew_at) {
                cpu->begun_anew_at = now;
                forget_entries(cpu, table, first, last);
                make_restartable(cpu, block, place);
                leave_block_at(cpu, place);
                start_block(cpu, 0);
            }
            run_alone(cpu, host_pc);
        }
    }
    cpu->tlb_stale = 1;
    look_soon(&cpu->engine);
}

/* RAM was written by someone else than the CPU; the range is in one page */
void entries_changed(struct counted *cpu, uint64_t offset, uint64_t size)
{
    if (!is_table(cpu, &cpu->code_pages[offset / PAGE]) ||
        !is_read(&cpu->tables[offset / PAGE], offset % PAGE / SLOT, (offset % PAGE + size - 1) / SLOT))
        return;
    cpu->tlb_stale = 1;
    look_soon(&cpu->engine);
}

/* in the place of tlb_flush: all that was noted is void */
EXPORT void timevm_flush_tlb(void *cpu_state)
{
    if (is_running(cpu_state))
        running->flushes++;
    replaced.flush_tlb(cpu_state);
}
