/* Blocks and runs. */
#include "aarch64.h"

/* ---- blocks ---- */

/* The rare side of the block hook, at a block start with `count` instructions to come.  Costs about 50 ns, once every
   CHUNK instructions and at deadlines, interrupts and limits. */
static __attribute__((noinline)) void slow_block(struct aarch64 *cpu, uint64_t pc, int64_t count)
{
    struct engine *engine = &cpu->engine;
    int64_t now = engine->horizon - engine->budget, bound;

    engine->block_end = pc;
    engine->slow_blocks++;
    look_soon(engine);
    drain_windows(engine);
    if (engine->stop)
        stop_here(engine, engine->stop);
    if (now >= engine->limit)
        stop_here(engine, STOP_LIMIT);
    if (__atomic_load_n(&engine->kick, __ATOMIC_ACQUIRE) && now != engine->entered)
        stop_here(engine, STOP_KICK);
    if (cpu->mapping_touched) {
        cpu->mapping_touched = 0;
        if (timevm_watched_pages_moved(cpu))
            stop_here(engine, STOP_KICK); /* the hooks are put where they belong before it goes on */
    }
    if (engine->memory.tlb_stale) {
        engine->memory.tlb_stale = 0;
        empty_tlb(engine);
        restart_block(engine, 0); /* which may be another one */
    }
    if (engine->translations_stale) {
        engine->translations_stale = 0;
        engine->call.flush_translations(engine->cpu_state);
        restart_block(engine, 0);
    }
    if (now >= engine->deadline) {
        evaluate_timers(cpu, now);
        if (engine->stop)
            stop_here(engine, engine->stop);
    }
    if (engine->lines && take_interrupt(cpu)) {
        look_soon(engine);
        restart_block(engine, 0);
    }
    if (now == engine->settle_at)
        stop_here(engine, STOP_SETTLED);
    bound = engine->limit < engine->deadline ? engine->limit : engine->deadline;
    if (count > bound - now) { /* split exactly at the bound */
        engine->horizon = bound;
        engine->budget = bound - now;
        restart_block(engine, (uint32_t)(bound - now));
    }
    /* an interrupt that is active but masked: look at every block start, that is where it gets unmasked */
    if (engine->lines)
        engine->horizon = now + count;
    else
        engine->horizon = bound - now > CHUNK ? now + CHUNK : bound;
    engine->budget = engine->horizon - now;
}

/* UC_HOOK_BLOCK where the budget is used up: a block of `size` bytes is about to run, and was paid for */
EXPORT void timevm_block(void *unicorn, uint64_t pc, uint32_t size, struct aarch64 *cpu)
{
    struct engine *engine = &cpu->engine;
    int64_t count = size >> WORD;

    (void)unicorn;
    engine->budget += count;
    slow_block(cpu, pc, count);
    engine->budget -= count;
    engine->block_end = pc + size;
}

/* UC_HOOK_CODE on one address: a breakpoint */
EXPORT void timevm_breakpoint(void *unicorn, uint64_t pc, uint32_t size, struct aarch64 *cpu)
{
    (void)unicorn;
    (void)size;
    meet_stop(&cpu->engine, STOP_BREAKPOINT, pc, pc, 0, WORD);
}

/* ---- runs ---- */

_Thread_local struct aarch64 *running __attribute__((tls_model("initial-exec")));

/* In place of tcg_gen_callN.  Instead of the block hook, the count itself.  The check at the start of each block is left
   out: whatever ends a run here leaves the block by itself (stop_here, an exception, WFI), and the block hook sees kicks;
   the check costs 7 % of a Linux boot. */
EXPORT void timevm_generate_call(void *context, void *helper, void *result, int count, void **arguments)
{
    if (running && helper == generator.block_check && !running->block_checks)
        return;
    if (running && helper == (void *)timevm_block)
        inline_count(context, helper, (uintptr_t)running, &running->engine.budget, &running->engine.block_end,
                     running->trace);
    else
        generator.call(context, helper, result, count, arguments);
}

/* in place of tcg_gen_code */
EXPORT int timevm_generate_code(void *context, struct translation_block *block)
{
    complete_block(context, block, block->size >> WORD, block->pc + block->size);
    return generator.code(context, block);
}

/* for Python: emulate until something stops it; Unicorn's error code */
EXPORT int timevm_run(struct aarch64 *cpu)
{
    struct aarch64 *outer = running;
    int error;

    running = cpu;
    cpu->engine.memory.begun_anew_at = -1;
    error = cpu->emu_start(cpu->engine.unicorn, *cpu->engine.pc, 0, 0, 0);
    running = outer;
    return error;
}

/* ---- layout, checked by Python ---- */

EXPORT void timevm_aarch64_layout(uint64_t sizes[3])
{
    sizes[0] = sizeof(struct window);
    sizes[1] = sizeof(struct engine);
    sizes[2] = sizeof(struct aarch64);
}
