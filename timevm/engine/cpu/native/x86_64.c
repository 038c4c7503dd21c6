/* Blocks, stops, devices and time. */
#include "x86_64.h"

#include <stddef.h>

#define ALL_ONES (~(uint64_t)0)

/* ---- blocks ---- */

/* The rare side of the block hook, at a block start with `count` instructions to come.  Costs about 50 ns, once every
   CHUNK instructions and at interrupts and limits. */
void slow_block(struct counted *counted, int64_t count)
{
    struct x86_64 *cpu = (struct x86_64 *)counted;
    struct engine *engine = &cpu->common.engine;
    int64_t now = engine->horizon - engine->budget, bound = engine->limit;

    if (cpu->common.longest_block && bound - now > cpu->common.longest_block) /* the reference: see X86Cpu.limit_blocks */
        bound = now + cpu->common.longest_block;
    cpu->common.block = 0;
    engine->slow_blocks++;
    look_soon(engine);
    drain_windows(engine);
    if (engine->stop)
        stop_here(engine, engine->stop);
    if (cpu->data_breaks) /* before the limit, as single-step traps: where a run stops they have been taken */
        take_data_breaks(cpu);
    if (now >= engine->limit)
        stop_here(engine, STOP_LIMIT);
    if (__atomic_load_n(&engine->kick, __ATOMIC_ACQUIRE) && now != engine->entered)
        stop_here(engine, STOP_KICK);
    if (cpu->common.engine.memory.tlb_stale) {
        cpu->common.engine.memory.tlb_stale = 0;
        empty_tlb(engine);
        start_block(&cpu->common, 0); /* which may be another one */
    }
    if (engine->translations_stale) {
        engine->translations_stale = 0;
        engine->call.flush_translations(engine->cpu_state);
        start_block(&cpu->common, 0);
    }
    if (engine->lines || cpu->nmi) {
        int taken = take_interrupt(cpu);

        if (engine->stop)
            stop_here(engine, engine->stop);
        if (taken) {
            look_soon(engine);
            start_block(&cpu->common, 0);
        }
    }
    if (now == engine->settle_at)
        stop_here(engine, STOP_SETTLED);
    if (count > bound - now) { /* split exactly at the bound */
        engine->horizon = bound;
        engine->budget = bound - now;
        start_block(&cpu->common, (uint32_t)(bound - now));
    }
    /* an interrupt that is active but masked: look at every block start, that is where it gets unmasked */
    if (engine->lines || cpu->nmi)
        engine->horizon = now + count;
    else
        engine->horizon = bound - now > CHUNK ? now + CHUNK : bound;
    engine->budget = engine->horizon - now;
}

/* the same for a block whose length was limited, that has a breakpoint, or that may begin with what CLOBBERS */
EXPORT void timevm_x86_marked_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block)
{
    struct x86_64 *cpu = running_cpu();
    struct engine *engine = &cpu->common.engine;

    (void)unicorn, (void)size;
    if (block->cflags & BLOCK_LIMIT) {
        /* A limit that is not ours: Unicorn left the block before a store into it, to do that store alone. */
        if (!cpu->common.limit_requested && cpu->common.block) {
            const struct translation_block *left = cpu->common.block;
            unsigned place = place_in_block(left, pc);

            repair_flags(cpu, left, place);
            if (place < left->icount)
                leave_block_at(&cpu->common, place);
        }
        cpu->common.limit_requested = 0;
        cpu->common.is_prepared = 0;
    }
    if (engine->budget < block->icount)
        slow_block(&cpu->common, block->icount);
    cpu->common.block = 0;
    if (has_breakpoint(&cpu->common, pc)) {
        engine->block_end = pc;
        meet_stop(engine, STOP_BREAKPOINT, pc, pc, 0, 0);
    }
    if (block->cflags & BLOCK_CLOBBERS)
        keep_flags(cpu);
    if (block->cflags & BLOCK_SHOWS)
        show_exceptions(cpu->common.env);
    begin_block(&cpu->common, block);
}

/* for Python: run until something stops it */
EXPORT int timevm_x86_run(struct x86_64 *cpu)
{
    cpu->delivering = 0;
    return run_counted(&cpu->common);
}

/* ---- devices ---- */

static uint64_t read_device(struct x86_64 *cpu, struct window *window, uint64_t offset, uint32_t size)
{
    uint64_t value = cpu->common.engine.device_read(window->number, offset, size);

    cpu->common.in_access = 0;
    return value;
}

static void write_device(struct x86_64 *cpu, struct window *window, uint64_t offset, uint32_t size, uint64_t value)
{
    cpu->common.engine.device_write(window->number, offset, size, value);
    cpu->common.in_access = 0;
}

static int is_output(struct window *window, uint64_t offset, uint64_t value)
{
    if ((int64_t)offset != window->output_offset || window->output_used == OUTPUT_BYTES)
        return 0;
    window->output[window->output_used++] = (uint8_t)value;
    return 1;
}

/* physical addresses that nothing answers */
EXPORT uint64_t timevm_x86_void_read(void *unicorn, uint64_t offset, uint32_t size, void *nothing)
{
    (void)unicorn, (void)offset, (void)size, (void)nothing;
    return ALL_ONES;
}

EXPORT void timevm_x86_void_write(void *unicorn, uint64_t offset, uint32_t size, uint64_t value, void *nothing)
{
    (void)unicorn, (void)offset, (void)size, (void)value, (void)nothing;
}

/* UC_X86_INS_IN: always the last instruction of its block */
EXPORT uint32_t timevm_x86_in(void *unicorn, uint32_t port, int size, struct x86_64 *cpu)
{
    uint8_t number = cpu->ports[port & (PORTS - 1)];
    struct window *window;
    uint32_t offset;

    (void)unicorn;
    check_port(cpu, port & (PORTS - 1), size);
    if (number == NO_WINDOW)
        return ~0u;
    window = cpu->common.engine.windows[number];
    offset = (port & (PORTS - 1)) - cpu->port_base[number];
    if ((int64_t)offset == window->constant_offset)
        return (uint32_t)window->constant_value;
    cpu->common.in_access = 1;
    return (uint32_t)read_device(cpu, window, offset, (uint32_t)size);
}

/* UC_X86_INS_OUT */
EXPORT void timevm_x86_out(void *unicorn, uint32_t port, int size, uint32_t value, struct x86_64 *cpu)
{
    uint8_t number = cpu->ports[port & (PORTS - 1)];
    struct window *window;
    uint32_t offset;

    (void)unicorn;
    check_port(cpu, port & (PORTS - 1), size);
    if (number == NO_WINDOW)
        return;
    window = cpu->common.engine.windows[number];
    offset = (port & (PORTS - 1)) - cpu->port_base[number];
    if (is_output(window, offset, value))
        return;
    cpu->common.in_access = 1;
    write_device(cpu, window, offset, (uint32_t)size, value);
}

/* ---- time ---- */

/* UC_X86_INS_RDTSC, always the last of its block: virtual nanoseconds */
EXPORT int timevm_x86_read_tsc(void *unicorn, struct x86_64 *cpu)
{
    int64_t icount = cpu->common.engine.horizon - cpu->common.engine.budget - 1;
    uint64_t now = ((uint64_t)icount << cpu->common.time_shift) + (uint64_t)cpu->common.warp_ns;

    (void)unicorn;
    cpu->regs[0] = (uint32_t)now;
    cpu->regs[2] = now >> 32;
    return 1;
}

/* UC_X86_INS_RDTSCP */
EXPORT int timevm_x86_read_tsc_and_processor(void *unicorn, struct x86_64 *cpu)
{
    cpu->regs[1] = (uint32_t)*cpu->tsc_aux;
    return timevm_x86_read_tsc(unicorn, cpu);
}

/* ---- layout, checked by Python ---- */

EXPORT void timevm_x86_layout(uint64_t sizes[4])
{
    sizes[0] = sizeof(struct window);
    sizes[1] = sizeof(struct engine);
    sizes[2] = sizeof(struct x86_64);
    sizes[3] = sizeof(struct ram_page);
}
