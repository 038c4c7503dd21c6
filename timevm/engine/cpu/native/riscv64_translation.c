/* Where blocks end, and which stores drop which translations: functions that stand in slots of Unicorn's linkage table.

   Blocks.  Some instructions must be the last of their block, so that nothing depends on where a run was stopped: see
   `is_last`.  And no block reaches into a second page but by its only instruction: a fetch that faults is always that of
   the next instruction.

   Stores.  The guest says by FENCE.I that it has changed code, but for all of it at once, and Linux does so for every new
   page of a program: dropping all translations each time would cost seconds of a boot.  So a page of RAM has translated
   code or not, and every TLB entry that writes to it follows that (as on x86, decision 0082): looked at while it has
   code, fast when it has not.  After 256, 1024, 4096, ... stores to a page all its translations are dropped to make it
   fast again. */
#include "riscv64.h"

#define LONGEST 4 /* bytes of an instruction */
#define PROTECTION_WRITE 2

_Thread_local struct riscv64 *running __attribute__((tls_model("initial-exec")));

struct originals original;

EXPORT void timevm_riscv64_set_originals(const struct originals *given)
{
    original = *given;
}

/* ---- blocks ---- */

int has_breakpoint(const struct riscv64 *cpu, uint64_t address)
{
    uint32_t low = 0, high = cpu->breakpoint_count;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (cpu->breakpoints[middle] == address)
            return 1;
        if (cpu->breakpoints[middle] < address)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* WFI halts, and what is behind it was paid for; SFENCE.VMA may change where the next instruction comes from.  (What
   reads or writes control registers, FENCE.I and returns from traps end their block in Unicorn.) */
static int is_last(uint32_t bits)
{
    return bits == 0x10500073 || (bits & 0xfe007fff) == 0x12000073;
}

static void watch_page(struct riscv64 *cpu, uint64_t offset, const void *host)
{
    uint64_t number = offset / PAGE;

    if (number >= cpu->code_page_count || cpu->code_pages[number].has_code)
        return;
    cpu->code_pages[number].has_code = 1;
    cpu->call.watch_writes(cpu->engine.cpu_state, (uintptr_t)host & PAGE_MASK, PAGE);
}

static void translate_instruction(struct translating *translation, void *cpu_state)
{
    struct riscv64 *cpu = running;
    uint64_t here = translation->pc_next, next;
    uint32_t bits = 0;

    cpu->translate_instruction(translation, cpu_state);
    if (translation->pc_next == here) /* what Unicorn does of an illegal instruction of two bytes; no block is empty */
        translation->pc_next += 2;
    next = translation->pc_next;
    if (((next - 1) ^ translation->pc_first) & PAGE_MASK) {
        void *host = 0;
        uint64_t offset = cpu->call.code_page(cpu->env, next - 1, &host);

        if (host)
            watch_page(cpu, offset, host);
    } else if (cpu->code && next - here == LONGEST) {
        __builtin_memcpy(&bits, cpu->code + (here & (PAGE - 1)), sizeof bits);
    }
    if (translation->end == GOES_ON && (((next + LONGEST - 1) ^ translation->pc_first) & PAGE_MASK || is_last(bits) ||
                                        has_breakpoint(cpu, next)))
        translation->end = ENDS_HERE;
}

/* in the place of translator_loop: about 1 us a block more than Unicorn's own 6 us */
EXPORT void timevm_riscv64_translate(const struct translator_calls *calls, struct translating *translation,
                                     void *cpu_state, struct translation_block *block, int limit)
{
    struct riscv64 *cpu = running;
    void *host = 0;
    uint64_t offset;

    if (!is_running(cpu_state)) {
        original.translate(calls, translation, cpu_state, block, limit);
        return;
    }
    cpu->translator = *calls;
    cpu->translate_instruction = calls->instruction;
    cpu->translator.instruction = translate_instruction;
    offset = cpu->call.code_page(cpu->env, block->pc, &host);
    cpu->code = host ? (const uint8_t *)((uintptr_t)host & PAGE_MASK) : 0;
    if (host)
        watch_page(cpu, offset, host);
    cpu->block_hook->user = block;
    cpu->block_hook->callback =
        has_breakpoint(cpu, block->pc) ? (void *)timevm_riscv64_marked_block : (void *)timevm_riscv64_block;
    original.translate(&cpu->translator, translation, cpu_state, block, limit);
}

/* In place of tcg_gen_callN: the check at the start of each block is left out.  Whatever ends a run here leaves the block
   by itself (stop_here, a trap, WFI), and the block hook sees kicks. */
EXPORT void timevm_riscv64_generate_call(void *context, void *helper, void *result, int count, void **arguments)
{
    if (helper == original.block_check && running && !running->block_checks)
        return;
    original.generate_call(context, helper, result, count, arguments);
}

/* ---- stores ---- */

/* RAM offset of a physical address; NOWHERE: no RAM */
static uint64_t ram_offset(const struct riscv64 *cpu, uint64_t physical)
{
    for (uint32_t i = 0; i < cpu->ram_count; i++)
        if (physical >= cpu->ram[i].base && physical < cpu->ram[i].end)
            return physical - cpu->ram[i].base + cpu->ram[i].offset;
    return NOWHERE;
}

/* in the place of tlb_set_page: a new entry for a page without code is fast at once */
EXPORT void timevm_riscv64_fill(void *cpu_state, uint64_t address, uint64_t physical, int protection, int mode,
                                uint64_t size)
{
    uint64_t number;

    original.fill(cpu_state, address, physical, protection, mode, size);
    if (!(protection & PROTECTION_WRITE) || !is_running(cpu_state))
        return;
    number = ram_offset(running, physical) / PAGE;
    if (number < running->code_page_count && !running->code_pages[number].has_code)
        original.stop_watching(cpu_state, address);
}

/* in the place of tlb_reset_dirty_by_vaddr: watch_page has done it, for all mappings */
EXPORT void timevm_riscv64_watch_by_address(void *cpu_state, uint64_t address, uint64_t length)
{
    if (!is_running(cpu_state))
        original.watch_by_address(cpu_state, address, length);
}

/* A store into the block that runs: leave it before that instruction, which is then done alone. */
static void leave_own_block(struct riscv64 *cpu, uint64_t offset, int size, uintptr_t host_pc)
{
    const struct translation_block *block = cpu->block;
    uint64_t begin;
    unsigned place;

    if (!block)
        return;
    begin = block->page[0] + (block->pc & (PAGE - 1));
    if (offset + (uint64_t)size <= begin || offset >= begin + block->size)
        return;
    if (!host_pc || block->icount == 1 || !cpu->engine.call.restore_state(cpu->engine.cpu_state, host_pc, 1))
        return;
    place = place_in_block(block, *cpu->engine.pc);
    if (place == block->icount)
        return;
    leave_block_at(cpu, place);
    start_block(cpu, 1);
}

/* in the place of tb_invalidate_phys_page_fast: a store to a page whose stores are looked at */
EXPORT void timevm_riscv64_store_to_watched(void *unicorn, void *pages, uint64_t offset, int size, uintptr_t host_pc)
{
    struct riscv64 *cpu = running;
    struct code_page *page;

    if (!cpu || cpu->engine.unicorn != unicorn || offset / PAGE >= cpu->code_page_count) {
        original.store_to_watched(unicorn, pages, offset, size, host_pc);
        return;
    }
    page = &cpu->code_pages[offset / PAGE];
    cpu->store_meets_code = page->has_code;
    if (!page->has_code)
        return;
    leave_own_block(cpu, offset, size, host_pc);
    page->writes++;
    original.store_to_watched(unicorn, pages, offset, size, host_pc);
    if (page->writes >= 256u << 2 * page->patience) {
        page->writes = 0;
        if (page->patience < 8)
            page->patience++;
        cpu->engine.call.invalidate_range(unicorn, offset & PAGE_MASK, (offset & PAGE_MASK) + PAGE);
        page->has_code = 0;
        cpu->store_meets_code = 0;
        cpu->tlb_stale = 1; /* entries that are also executable are made fast when they are filled again */
        look_soon(&cpu->engine);
    }
}

/* in the place of tlb_set_dirty: Unicorn wants the entry to be fast from now on */
EXPORT void timevm_riscv64_stop_watching(void *cpu_state, uint64_t address)
{
    if (!is_running(cpu_state) || !running->store_meets_code)
        original.stop_watching(cpu_state, address);
}

/* for Python: RAM was written by someone else than the CPU */
EXPORT void timevm_riscv64_code_changed(struct riscv64 *cpu, uint64_t base, uint64_t size)
{
    uint64_t end = base + size;

    while (base < end) {
        uint64_t next = (base & PAGE_MASK) + PAGE, offset = ram_offset(cpu, base);

        if (next > end)
            next = end;
        if (offset / PAGE < cpu->code_page_count && cpu->code_pages[offset / PAGE].has_code)
            cpu->engine.call.invalidate_range(cpu->engine.unicorn, offset, offset + (next - base));
        base = next;
    }
}
