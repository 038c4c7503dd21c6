/* Blocks, stops, devices. */
#include "riscv64.h"

#include "code_trace.h"

#define LONGEST_ACCESS 8

/* ---- blocks ---- */

/* The rare side of the block hook, at a block start with `count` instructions to come.  Costs about 50 ns, once every
   CHUNK instructions and at interrupts, deadlines and limits. */
static __attribute__((noinline)) void slow_block(struct riscv64 *cpu, int64_t count)
{
    struct engine *engine = &cpu->engine;
    int64_t now = engine->horizon - engine->budget, bound;

    cpu->block = 0;
    engine->slow_blocks++;
    look_soon(engine);
    drain_windows(engine);
    if (engine->stop)
        stop_here(engine, engine->stop);
    if (now >= engine->limit)
        stop_here(engine, STOP_LIMIT);
    if (__atomic_load_n(&engine->kick, __ATOMIC_ACQUIRE) && now != engine->entered)
        stop_here(engine, STOP_KICK);
    if (cpu->tlb_stale) {
        cpu->tlb_stale = 0;
        cpu->call.flush_tlb(engine->cpu_state);
    }
    if (now >= engine->deadline)
        evaluate_timer(cpu, now);
    if (active_interrupts(cpu) && take_interrupt(cpu)) {
        look_soon(engine);
        start_block(cpu, 0);
    }
    if (now == engine->settle_at)
        stop_here(engine, STOP_SETTLED);
    bound = engine->limit < engine->deadline ? engine->limit : engine->deadline;
    if (cpu->longest_block && bound - now > cpu->longest_block) /* the reference: see Riscv64Cpu.limit_blocks */
        bound = now + cpu->longest_block;
    if (count > bound - now) { /* split exactly at the bound */
        engine->horizon = bound;
        engine->budget = bound - now;
        start_block(cpu, (uint32_t)(bound - now));
    }
    /* an interrupt that is active but masked: look at every block start, that is where it gets unmasked */
    if (active_interrupts(cpu))
        engine->horizon = now + count;
    else
        engine->horizon = bound - now > CHUNK ? now + CHUNK : bound;
    engine->budget = engine->horizon - now;
}

/* UC_HOOK_BLOCK: `block` is about to run; about 2 ns */
EXPORT void timevm_riscv64_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block)
{
    struct riscv64 *cpu = running;
    int64_t count = block->icount;

    (void)unicorn;
    if (__builtin_expect(cpu->engine.budget < count, 0))
        slow_block(cpu, count);
    if (cpu->executed)
        trace_block(cpu->executed, pc, size);
    cpu->engine.budget -= count;
    cpu->block = block;
}

/* the same for a block that begins at a breakpoint */
EXPORT void timevm_riscv64_marked_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block)
{
    struct riscv64 *cpu = running;

    if (cpu->engine.budget < block->icount)
        slow_block(cpu, block->icount);
    cpu->block = 0;
    if (has_breakpoint(cpu, pc)) {
        cpu->engine.block_end = pc;
        meet_stop(&cpu->engine, STOP_BREAKPOINT, pc, pc, 0, 0);
    }
    timevm_riscv64_block(unicorn, pc, size, block);
}

/* for Python: run until something stops it; Unicorn's error code */
EXPORT int timevm_riscv64_run(struct riscv64 *cpu)
{
    struct riscv64 *outer = running;
    int error;

    running = cpu;
    cpu->block = 0;
    cpu->in_access = 0;
    error = cpu->call.emu_start(cpu->engine.unicorn, *cpu->engine.pc, 0, 0, 0);
    cpu->block = 0;
    running = outer;
    return error;
}

/* ---- watchpoints on loads (those on stores: riscv64_watched.c) ---- */

/* UC_HOOK_MEM_READ while somebody watches loads.  Unicorn tells the physical address: a watched page is looked up in the
   guest's tables of this moment, but only if the place in the page fits. */
EXPORT void timevm_riscv64_access(void *unicorn, int type, uint64_t physical, int size, int64_t value,
                                  struct riscv64 *cpu)
{
    struct engine *engine = &cpu->engine;
    uint64_t attributes[4] = {0};

    (void)unicorn, (void)type, (void)value;
    if (!cpu->block)
        return;
    for (uint32_t i = 0; i < engine->watch_count; i++) {
        const struct watch *watch = &engine->watches[i];
        uint64_t first = watch->address < LONGEST_ACCESS ? 0 : watch->address - LONGEST_ACCESS; /* it may begin before */
        uint64_t page = first & PAGE_MASK, last = (watch->address + watch->length - 1) & PAGE_MASK;

        if (!(watch->kind & 1))
            continue;
        for (;; page += PAGE) {
            uint64_t at = page + (physical & (PAGE - 1)); /* where the access would be in this page */

            if (at < watch->address + watch->length && watch->address < at + (uint64_t)size &&
                engine->call.translate(engine->cpu_state, page, attributes) == (physical & PAGE_MASK)) {
                uint64_t pc = *engine->pc;
                unsigned place = place_in_block(cpu->block, pc);

                if (place == cpu->block->icount)
                    return;
                engine->block_end = pc + cpu->block->icount - place;
                meet_stop(engine, STOP_WATCHPOINT, pc, watch->address > at ? watch->address : at, 0, 0);
                return;
            }
            if (page == last)
                break;
        }
    }
}

/* ---- devices ---- */

/* The access is executed as the only or last instruction of a block. */
static void isolate_access(struct riscv64 *cpu)
{
    struct engine *engine = &cpu->engine;
    struct translation_block *block = cpu->block;
    unsigned place;

    if (!block || !engine->call.restore_state(engine->cpu_state, *engine->access_host_pc, 1))
        return; /* not by an instruction: a page walk */
    place = place_in_block(block, *engine->pc);
    if (place + 1 < block->icount) {
        leave_block_at(cpu, place);
        start_block(cpu, 1);
    }
    cpu->in_access = 1;
}

EXPORT uint64_t timevm_riscv64_device_read(void *unicorn, uint64_t offset, uint32_t size, struct window *window)
{
    struct riscv64 *cpu = (struct riscv64 *)window->engine;
    uint64_t value;

    (void)unicorn;
    if ((int64_t)offset == window->constant_offset)
        return window->constant_value;
    isolate_access(cpu);
    value = cpu->engine.device_read(window->number, offset, size);
    cpu->in_access = 0;
    return value;
}

EXPORT void timevm_riscv64_device_write(void *unicorn, uint64_t offset, uint32_t size, uint64_t value,
                                        struct window *window)
{
    struct riscv64 *cpu = (struct riscv64 *)window->engine;

    (void)unicorn;
    if ((int64_t)offset == window->output_offset && window->output_used < OUTPUT_BYTES) {
        window->output[window->output_used++] = (uint8_t)value;
        return;
    }
    isolate_access(cpu);
    cpu->engine.device_write(window->number, offset, size, value);
    cpu->in_access = 0;
}

/* ---- layout, checked by Python ---- */

EXPORT void timevm_riscv64_layout(uint64_t sizes[5])
{
    sizes[0] = sizeof(struct window);
    sizes[1] = sizeof(struct engine);
    sizes[2] = sizeof(struct riscv64);
    sizes[3] = sizeof(struct code_page);
    sizes[4] = sizeof(struct originals);
}
