/* Which stores drop which translations.  A page of RAM has translated code or not, and every TLB entry that writes to it
   follows that: looked at while it has code, fast when it has not.  After 256, 1024, 4096, ... stores to a page all its
   translations are dropped to make it fast again (decision 0082). */
#include "counted.h"

struct counted_originals replaced;

/* RAM offset of a physical address; NOWHERE: no RAM */
uint64_t ram_offset(const struct counted *cpu, uint64_t physical)
{
    for (uint32_t i = 0; i < cpu->ram_count; i++)
        if (physical >= cpu->ram[i].base && physical < cpu->ram[i].end)
            return physical - cpu->ram[i].base + cpu->ram[i].offset;
    return NOWHERE;
}

/* where RAM at a physical address is in this process; NULL: no RAM */
uint8_t *host_of(const struct counted *cpu, uint64_t physical, uint64_t size)
{
    for (uint32_t i = 0; i < cpu->ram_count; i++)
        if (physical >= cpu->ram[i].base && physical < cpu->ram[i].end && size <= cpu->ram[i].end - physical)
            return cpu->ram[i].host + (physical - cpu->ram[i].base);
    return 0;
}

/* TLB entries that write to this page are to be slow; those that come are not made fast.  Some microseconds if there may
   be any. */
void watch_entries(struct counted *cpu, struct code_page *page, const void *host)
{
    if (page->filled != cpu->flushes)
        return;
    page->filled = 0;
    cpu->watch_writes(cpu->engine.cpu_state, (uintptr_t)host & PAGE_MASK, PAGE);
}

void watch_page(struct counted *cpu, uint64_t offset, const void *host)
{
    uint64_t number = offset / PAGE;

    if (number >= cpu->code_page_count || cpu->code_pages[number].has_code)
        return;
    cpu->code_pages[number].has_code = 1;
    watch_entries(cpu, &cpu->code_pages[number], host);
}

/* a TLB entry has been made: for a page without code or tables it is fast at once */
void entry_filled(void *cpu_state, uint64_t address, uint64_t physical, int protection)
{
    struct code_page *page;
    uint64_t number;

    if (!(protection & PROTECTION_WRITE) || !is_running(cpu_state))
        return;
    number = ram_offset(running, physical) / PAGE;
    if (number >= running->code_page_count)
        return;
    page = &running->code_pages[number];
    if (page->has_code || is_table(running, page))
        return;
    page->filled = running->flushes;
    replaced.stop_watching(cpu_state, address);
}

/* in the place of tlb_reset_dirty_by_vaddr: watch_page has done it, for all mappings */
EXPORT void timevm_watch_by_address(void *cpu_state, uint64_t address, uint64_t length)
{
    if (!is_running(cpu_state))
        replaced.watch_by_address(cpu_state, address, length);
}

/* The instruction that translated code at `host_pc` belongs to is to run alone: leave its block before it, if it has
   more than that one.  Returns if it runs alone already. */
void run_alone(struct counted *cpu, uintptr_t host_pc)
{
    struct translation_block *block = cpu->block;
    unsigned place;

    if (!block || !host_pc || (block->cflags & BLOCK_LIMIT) == 1 ||
        !cpu->engine.call.restore_state(cpu->engine.cpu_state, host_pc, 1))
        return;
    place = place_in_block(block, block->cs_base + *cpu->engine.pc);
    if (place == block->icount)
        return;
    make_restartable(cpu, block, place);
    leave_block_at(cpu, place);
    start_block(cpu, 1);
}

/* A store is about to happen to a page that stays slow.  Does not return if its instruction has to begin anew. */
void prepare_store(struct counted *cpu, uint64_t offset, int size, uintptr_t host_pc)
{
    const struct code_page *page = &cpu->code_pages[offset / PAGE];

    if (page->has_code)
        leave_own_block(cpu, offset, size, host_pc);
    if (is_table(cpu, page))
        change_entries(cpu, offset, size, host_pc);
}

/* in the place of tb_invalidate_phys_page_fast: a store to a page whose stores are looked at */
EXPORT void timevm_store_to_watched(void *unicorn, void *pages, uint64_t offset, int size, uintptr_t host_pc)
{
    struct counted *cpu = running;
    struct code_page *page;

    if (!cpu || cpu->engine.unicorn != unicorn || offset / PAGE >= cpu->code_page_count) {
        replaced.store_to_watched(unicorn, pages, offset, size, host_pc);
        return;
    }
    page = &cpu->code_pages[offset / PAGE];
    cpu->store_is_watched = page->has_code || is_table(cpu, page);
    if (!cpu->store_is_watched) {
        page->filled = cpu->flushes;
        return;
    }
    if (!cpu->is_prepared)
        prepare_store(cpu, offset, size, host_pc);
    page->writes++;
    if (page->has_code)
        replaced.store_to_watched(unicorn, pages, offset, size, host_pc);
    if (page->writes >= 256u << 2 * page->patience) {
        page->writes = 0;
        if (page->patience < 8)
            page->patience++;
        if (page->has_code)
            cpu->engine.call.invalidate_range(unicorn, offset & PAGE_MASK, (offset & PAGE_MASK) + PAGE);
        page->has_code = 0;
        cpu->tlb_stale = 1; /* entries that are also executable are made fast when they are filled again */
        look_soon(&cpu->engine);
    }
}

/* in the place of tlb_set_dirty: Unicorn wants the entry to be fast from now on */
EXPORT void timevm_stop_watching(void *cpu_state, uint64_t address)
{
    if (!is_running(cpu_state) || !running->store_is_watched)
        replaced.stop_watching(cpu_state, address);
}

/* for Python: RAM was written by someone else than the CPU */
EXPORT void timevm_code_changed(struct counted *cpu, uint64_t base, uint64_t size)
{
    uint64_t end = base + size;

    while (base < end) {
        uint64_t next = (base & PAGE_MASK) + PAGE, offset = ram_offset(cpu, base);

        if (next > end)
            next = end;
        if (offset / PAGE < cpu->code_page_count) {
            if (cpu->code_pages[offset / PAGE].has_code)
                cpu->engine.call.invalidate_range(cpu->engine.unicorn, offset, offset + (next - base));
            entries_changed(cpu, offset, next - base);
        }
        base = next;
    }
}
