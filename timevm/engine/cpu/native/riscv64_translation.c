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

struct originals original;

EXPORT void timevm_riscv64_set_originals(const struct originals *given)
{
    original = *given;
    replaced = given->common;
}

/* ---- blocks ---- */

/* WFI halts, and what is behind it was paid for; SFENCE.VMA may change where the next instruction comes from.  (What
   reads or writes control registers, FENCE.I and returns from traps end their block in Unicorn.) */
static int is_last(uint32_t bits)
{
    return bits == 0x10500073 || (bits & 0xfe007fff) == 0x12000073;
}

static void translate_instruction(struct translating *translation, void *cpu_state)
{
    struct riscv64 *cpu = running_cpu();
    uint64_t here = translation->pc_next, next;
    uint32_t bits = 0;

    cpu->common.translate_instruction(translation, cpu_state);
    if (translation->pc_next == here) /* what Unicorn does of an illegal instruction of two bytes; no block is empty */
        translation->pc_next += 2;
    next = translation->pc_next;
    if (((next - 1) ^ translation->pc_first) & PAGE_MASK) {
        void *host = 0;
        uint64_t offset = cpu->common.code_page(cpu->common.env, next - 1, &host);

        if (host)
            watch_page(&cpu->common, offset, host);
    } else if (cpu->common.code && next - here == LONGEST) {
        __builtin_memcpy(&bits, cpu->common.code + (here & (PAGE - 1)), sizeof bits);
    }
    if (translation->end == GOES_ON && (((next + LONGEST - 1) ^ translation->pc_first) & PAGE_MASK || is_last(bits) ||
                                        has_breakpoint(&cpu->common, next)))
        translation->end = ENDS_HERE;
}

/* in the place of translator_loop: about 1 us a block more than Unicorn's own 6 us */
EXPORT void timevm_riscv64_translate(const struct translator_calls *calls, struct translating *translation,
                                     void *cpu_state, struct translation_block *block, int limit)
{
    struct riscv64 *cpu = running_cpu();

    if (!is_running(cpu_state)) {
        original.translate(calls, translation, cpu_state, block, limit);
        return;
    }
    begin_translation(&cpu->common, calls, block, translate_instruction);
    cpu->common.block_hook->user = block;
    cpu->common.block_hook->callback =
        has_breakpoint(&cpu->common, block->pc) ? (void *)timevm_riscv64_marked_block : (void *)timevm_block;
    original.translate(&cpu->common.translator, translation, cpu_state, block, limit);
}

/* ---- stores ---- */

/* in the place of tlb_set_page: where did the entry come from, and is it fast? */
EXPORT void timevm_riscv64_fill(void *cpu_state, uint64_t address, uint64_t physical, int protection, int mode,
                                uint64_t size)
{
    original.fill(cpu_state, address, physical, protection, mode, size);
    if (is_running(cpu_state))
        note_tables(running_cpu(), address);
    entry_filled(cpu_state, address, physical, protection);
}

/* A store into the block that runs: leave it before that instruction, which is then done alone. */
void leave_own_block(struct counted *cpu, uint64_t offset, int size, uintptr_t host_pc)
{
    const struct translation_block *block = cpu->block;
    uint64_t begin;

    if (!block)
        return;
    begin = block->page[0] + (block->pc & (PAGE - 1));
    if (offset + (uint64_t)size <= begin || offset >= begin + block->size)
        return;
    if (block->icount != 1)
        run_alone(cpu, host_pc);
}
