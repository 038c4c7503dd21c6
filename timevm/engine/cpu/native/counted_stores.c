/* Which stores drop which translations.  A page of RAM has translated code or not, and every TLB entry that writes to it
   follows that: looked at while it has code, fast when it has not.  After 256, 1024, 4096, ... stores to a page all its
   translations are dropped to make it fast again (decision 0082). */
#include "counted.h"

struct counted_originals replaced;

void watch_page(struct counted *cpu, uint64_t offset, const void *host)
{
    uint64_t number = offset / PAGE;

    if (number >= cpu->engine.memory.page_count || cpu->engine.memory.pages[number].has_code)
        return;
    cpu->engine.memory.pages[number].has_code = 1;
    watch_entries(&cpu->engine, &cpu->engine.memory.pages[number], host);
}

/* a TLB entry has been made: for a page without code or tables it is fast at once */
void entry_filled(void *cpu_state, uint64_t address, uint64_t physical, int protection)
{
    struct ram_page *page;
    uint64_t number;

    if (!(protection & PROTECTION_WRITE) || !is_running(cpu_state))
        return;
    number = ram_offset(&running->engine, physical) / PAGE;
    if (number >= running->engine.memory.page_count)
        return;
    page = &running->engine.memory.pages[number];
    if (page->has_code || page->table)
        return;
    page->filled = running->engine.memory.flushes;
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
    const struct ram_page *page = &cpu->engine.memory.pages[offset / PAGE];

    if (page->has_code)
        leave_own_block(cpu, offset, size, host_pc);
    if (is_table(&cpu->engine, page))
        change_entries(cpu, offset, size, host_pc);
}

/* in the place of tb_invalidate_phys_page_fast: a store to a page whose stores are looked at */
EXPORT void timevm_store_to_watched(void *unicorn, void *pages, uint64_t offset, int size, uintptr_t host_pc)
{
    struct counted *cpu = running;
    struct ram_page *page;

    if (!cpu || cpu->engine.unicorn != unicorn || offset / PAGE >= cpu->engine.memory.page_count) {
        replaced.store_to_watched(unicorn, pages, offset, size, host_pc);
        return;
    }
    page = &cpu->engine.memory.pages[offset / PAGE];
    cpu->store_is_watched = page->has_code || page->table;
    if (!cpu->store_is_watched) {
        page->filled = cpu->engine.memory.flushes;
        return;
    }
    if (!cpu->is_prepared)
        prepare_store(cpu, offset, size, host_pc);
    if (!page->has_code) {
        cpu->store_is_watched = stays_slow(&cpu->engine, page);
        if (!cpu->store_is_watched)
            page->filled = cpu->engine.memory.flushes;
        return;
    }
    page->writes++;
    replaced.store_to_watched(unicorn, pages, offset, size, host_pc);
    if (page->writes >= 256u << 2 * page->patience) {
        page->writes = 0;
        if (page->patience < 8)
            page->patience++;
        cpu->engine.call.invalidate_range(unicorn, offset & PAGE_MASK, (offset & PAGE_MASK) + PAGE);
        page->has_code = 0;
        cpu->engine.memory.tlb_stale = 1; /* entries that are also executable are made fast when they are filled again */
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
        uint64_t next = (base & PAGE_MASK) + PAGE, offset = ram_offset(&cpu->engine, base);

        if (next > end)
            next = end;
        if (offset / PAGE < cpu->engine.memory.page_count) {
            if (cpu->engine.memory.pages[offset / PAGE].has_code)
                cpu->engine.call.invalidate_range(cpu->engine.unicorn, offset, offset + (next - base));
            entries_changed(&cpu->engine, offset, next - base);
        }
        base = next;
    }
}
