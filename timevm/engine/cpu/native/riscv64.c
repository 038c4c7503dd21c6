/* Blocks, stops, devices. */
#include "riscv64.h"

/* ---- blocks ---- */

/* The rare side of the block hook, at a block start with `count` instructions to come.  Costs about 50 ns, once every
   CHUNK instructions and at interrupts, deadlines and limits. */
void slow_block(struct counted *counted, int64_t count)
{
    struct riscv64 *cpu = (struct riscv64 *)counted;
    struct engine *engine = &cpu->common.engine;
    int64_t now = engine->horizon - engine->budget, bound;

    cpu->common.block = 0;
    engine->slow_blocks++;
    look_soon(engine);
    drain_windows(engine);
    if (engine->stop)
        stop_here(engine, engine->stop);
    if (now >= engine->limit)
        stop_here(engine, STOP_LIMIT);
    if (__atomic_load_n(&engine->kick, __ATOMIC_ACQUIRE) && now != engine->entered)
        stop_here(engine, STOP_KICK);
    if (cpu->common.engine.memory.tlb_stale) {
        cpu->common.engine.memory.tlb_stale = 0;
        empty_tlb(engine);
        start_block(&cpu->common, 0); /* which may be another one */
    }
    if (now >= engine->deadline)
        evaluate_timer(cpu, now);
    if (active_interrupts(cpu) && take_interrupt(cpu)) {
        look_soon(engine);
        start_block(&cpu->common, 0);
    }
    if (now == engine->settle_at)
        stop_here(engine, STOP_SETTLED);
    bound = engine->limit < engine->deadline ? engine->limit : engine->deadline;
    if (cpu->common.longest_block && bound - now > cpu->common.longest_block) /* the reference: see Riscv64Cpu.limit_blocks */
        bound = now + cpu->common.longest_block;
    if (count > bound - now) { /* split exactly at the bound */
        engine->horizon = bound;
        engine->budget = bound - now;
        start_block(&cpu->common, (uint32_t)(bound - now));
    }
    /* an interrupt that is active but masked: look at every block start, that is where it gets unmasked */
    if (active_interrupts(cpu))
        engine->horizon = now + count;
    else
        engine->horizon = bound - now > CHUNK ? now + CHUNK : bound;
    engine->budget = engine->horizon - now;
}

/* the same for a block that begins at a breakpoint */
EXPORT void timevm_riscv64_marked_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block)
{
    struct riscv64 *cpu = running_cpu();

    (void)unicorn, (void)size;
    if (cpu->common.engine.budget < block->icount)
        slow_block(&cpu->common, block->icount);
    cpu->common.block = 0;
    if (has_breakpoint(&cpu->common, pc)) {
        cpu->common.engine.block_end = pc;
        meet_stop(&cpu->common.engine, STOP_BREAKPOINT, pc, pc, 0, 0);
    }
    begin_block(&cpu->common, block);
}

/* for Python: run until something stops it; Unicorn's error code */
EXPORT int timevm_riscv64_run(struct riscv64 *cpu)
{
    return run_counted(&cpu->common);
}

/* ---- layout, checked by Python ---- */

EXPORT void timevm_riscv64_layout(uint64_t sizes[5])
{
    sizes[0] = sizeof(struct window);
    sizes[1] = sizeof(struct engine);
    sizes[2] = sizeof(struct riscv64);
    sizes[3] = sizeof(struct ram_page);
    sizes[4] = sizeof(struct originals);
}
