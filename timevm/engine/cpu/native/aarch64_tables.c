/* The guest's page tables: which entries translations of addresses come from, and what changes them (tables.c).

   Functions that stand in slots of Unicorn's linkage table.  Those of other engines are called on. */
#include "aarch64.h"

#define HALF 55 /* the bit of an address that says by which of the two tables it is translated */
#define ROOT (((uint64_t)1 << 48) - PAGE)
#define PAGES_BITS 21 /* of a last table with entries of one page each */

/* what stood in the slots before, in the order of aarch64_interposed.py */
static struct originals {
    void (*store_to_watched)(void *unicorn, void *pages, uint64_t offset, int size, uintptr_t host_pc);
    void (*stop_watching)(void *cpu_state, uint64_t address);
    void (*fill)(void *cpu_state, uint64_t address, uint64_t physical, uint32_t attributes, int protection, int mode,
                 uint64_t size);
    void (*flush_modes)(void *cpu_state, uint16_t modes);
    void (*flush_modes_everywhere)(void *cpu_state, uint16_t modes);
    uint8_t (*translate)(void *env, uint64_t address, int kind, int mode, uint64_t *physical, void *attributes,
                         int *protection, uint64_t *size, void *fault, void *cache);
    uint64_t (*read_little)(void *unicorn, void *space, uint64_t address, uint32_t attributes, uint32_t *result);
    uint64_t (*read_big)(void *unicorn, void *space, uint64_t address, uint32_t attributes, uint32_t *result);
} original;

EXPORT void timevm_set_originals(const struct originals *given)
{
    original = *given;
}

static int is_running(const void *cpu_state)
{
    return running && running->engine.cpu_state == cpu_state;
}

/* ---- what is read ---- */

/* in the place of get_phys_addr: a walk begins */
EXPORT uint8_t timevm_translate(void *env, uint64_t address, int kind, int mode, uint64_t *physical, void *attributes,
                                int *protection, uint64_t *size, void *fault, void *cache)
{
    if (running)
        running->walked_count = 0;
    return original.translate(env, address, kind, mode, physical, attributes, protection, size, fault, cache);
}

static void note_read(const void *unicorn, uint64_t address)
{
    if (running && running->engine.unicorn == unicorn && running->walked_count < MAX_WALKED)
        running->walked[running->walked_count++] = address;
}

/* in the places of address_space_ldq_le and _be, by which the walk reads entries */
EXPORT uint64_t timevm_read_little(void *unicorn, void *space, uint64_t address, uint32_t attributes, uint32_t *result)
{
    note_read(unicorn, address);
    return original.read_little(unicorn, space, address, attributes, result);
}

EXPORT uint64_t timevm_read_big(void *unicorn, void *space, uint64_t address, uint32_t attributes, uint32_t *result)
{
    note_read(unicorn, address);
    return original.read_big(unicorn, space, address, attributes, result);
}

/* in the place of tlb_set_page_with_attrs: the walk has found a page of `size` bytes, which is kept */
EXPORT void timevm_fill(void *cpu_state, uint64_t address, uint64_t physical, uint32_t attributes, int protection, int mode,
                        uint64_t size)
{
    struct aarch64 *cpu = running;

    original.fill(cpu_state, address, physical, attributes, protection, mode, size);
    if (!is_running(cpu_state))
        return;
    cpu->modes_filled |= 1u << mode;
    if (cpu->walked_count)
        cpu->roots[address >> HALF & 1] = cpu->walked[0] & PAGE_MASK;
    for (uint32_t i = 0; i < cpu->walked_count; i++) {
        int is_of_pages = i + 1 == cpu->walked_count && size == PAGE &&
                          cpu->walked[i] % PAGE / sizeof(uint64_t) == address / PAGE % (PAGE / sizeof(uint64_t));

        note_entry(&cpu->engine, cpu->walked[i], sizeof(uint64_t),
                   is_of_pages ? address >> PAGES_BITS << PAGES_BITS : NOWHERE);
    }
    cpu->walked_count = 0;
}

/* In the places of tlb_flush_by_mmuidx and the same for all processors, which are one: if nothing is left in the TLB, what
   was noted is void. */
static void modes_flushed(const void *cpu_state, uint16_t modes)
{
    if (!is_running(cpu_state))
        return;
    running->modes_filled &= ~(uint32_t)modes;
    if (running->modes_filled)
        return;
    running->engine.memory.flushes++;
    running->roots[0] = running->roots[1] = 0;
}

EXPORT void timevm_flush_modes(void *cpu_state, uint16_t modes)
{
    modes_flushed(cpu_state, modes);
    original.flush_modes(cpu_state, modes);
}

EXPORT void timevm_flush_modes_everywhere(void *cpu_state, uint16_t modes)
{
    modes_flushed(cpu_state, modes);
    original.flush_modes_everywhere(cpu_state, modes);
}

/* Unicorn empties the TLB only if the number of the address space changes. */
void change_root(struct aarch64 *cpu, unsigned half, uint64_t value)
{
    if (!cpu->roots[half] || cpu->roots[half] == (value & ROOT))
        return;
    cpu->engine.memory.tlb_stale = 1;
    look_soon(&cpu->engine);
}

/* ---- what is written ---- */

/* RAM at this offset is about to be changed by the instruction that runs, in a page that tables were read from.  It begins
   once more without what was read from there; what it reads itself is forgotten behind it. */
static void change_entries(struct aarch64 *cpu, uint64_t offset, uint64_t size, uintptr_t host_pc)
{
    struct engine *engine = &cpu->engine;
    uint64_t pc;

    if (!are_entries_used(engine, offset, size))
        return;
    if (host_pc && engine->call.restore_state(engine->cpu_state, host_pc, 1)) {
        pc = *engine->pc;
        if (icount_at(engine, pc, WORD) != engine->memory.begun_anew_at) {
            engine->memory.begun_anew_at = icount_at(engine, pc, WORD);
            forget_entries(engine, offset, size);
            end_block_at(engine, pc, WORD);
            restart_block(engine, 0);
        }
        if (pc + (1 << WORD) != engine->block_end) {
            end_block_at(engine, pc, WORD);
            restart_block(engine, 1);
        }
    }
    engine->memory.tlb_stale = 1;
    look_soon(engine);
}

/* in the place of tb_invalidate_phys_page_fast: a store to a page whose stores are looked at */
EXPORT void timevm_store_to_watched(void *unicorn, void *pages, uint64_t offset, int size, uintptr_t host_pc)
{
    struct aarch64 *cpu = running;

    if (cpu && cpu->engine.unicorn == unicorn && offset / PAGE < cpu->engine.memory.page_count) {
        struct ram_page *page = &cpu->engine.memory.pages[offset / PAGE];

        if (is_table(&cpu->engine, page))
            change_entries(cpu, offset, looked_at(offset, (uint64_t)size), host_pc);
        cpu->store_is_watched = page->table && stays_slow(&cpu->engine, page);
        if (!cpu->store_is_watched)
            page->filled = cpu->engine.memory.flushes;
    }
    original.store_to_watched(unicorn, pages, offset, size, host_pc);
}

/* in the place of tlb_set_dirty: Unicorn wants the entry to be fast from now on */
EXPORT void timevm_stop_watching(void *cpu_state, uint64_t address)
{
    if (!is_running(cpu_state) || !running->store_is_watched)
        original.stop_watching(cpu_state, address);
}

/* for Python: RAM was written by someone else than the CPU */
EXPORT void timevm_memory_changed(struct aarch64 *cpu, uint64_t base, uint64_t size)
{
    uint64_t end = base + size, next;

    for (; base < end; base = next) {
        uint64_t offset = ram_offset(&cpu->engine, base);

        next = (base & PAGE_MASK) + PAGE < end ? (base & PAGE_MASK) + PAGE : end;
        if (offset / PAGE < cpu->engine.memory.page_count)
            entries_changed(&cpu->engine, offset, next - base);
    }
}
