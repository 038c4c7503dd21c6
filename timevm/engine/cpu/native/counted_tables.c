/* Changes of page tables on processors that are counted by block; tables.c says what it is about. */
#include "counted.h"

/* RAM at this offset is about to be changed by the instruction that runs, in a page that tables were read from.

   If translations that are kept came from there, it begins once more without them.  Those that it makes itself are
   forgotten behind it: it runs alone then. */
void change_entries(struct counted *cpu, uint64_t offset, int store_size, uintptr_t host_pc)
{
    uint64_t size = looked_at(offset, (uint64_t)store_size);
    struct translation_block *block = cpu->block;
    struct engine *engine = &cpu->engine;
    unsigned place;

    if (!are_entries_used(engine, offset, size))
        return;
    if (block && host_pc && engine->call.restore_state(engine->cpu_state, host_pc, 1)) {
        place = place_in_block(block, block->cs_base + *engine->pc);
        if (place < block->icount) {
            int64_t now = engine->horizon - engine->budget - (block->icount - (int64_t)place);

            if (now != engine->memory.begun_anew_at) {
                engine->memory.begun_anew_at = now;
                forget_entries(engine, offset, size);
                make_restartable(cpu, block, place);
                leave_block_at(cpu, place);
                start_block(cpu, 0);
            }
            run_alone(cpu, host_pc);
        }
    }
    engine->memory.tlb_stale = 1;
    look_soon(engine);
}

/* in the place of tlb_flush: all that was noted is void */
EXPORT void timevm_flush_tlb(void *cpu_state)
{
    if (is_running(cpu_state))
        running->engine.memory.flushes++;
    replaced.flush_tlb(cpu_state);
}
