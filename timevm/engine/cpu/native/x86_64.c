/* Blocks, stops, devices and time. */
#include "code_trace.h"
#include "x86_64.h"

#include <stddef.h>

#define ALL_ONES (~(uint64_t)0)
#define LONGEST_ACCESS 16

/* ---- blocks ---- */

/* The rare side of the block hook, at a block start with `count` instructions to come.  Costs about 50 ns, once every
   CHUNK instructions and at interrupts and limits. */
static __attribute__((noinline)) void slow_block(struct x86_64 *cpu, int64_t count)
{
    struct engine *engine = &cpu->engine;
    int64_t now = engine->horizon - engine->budget, bound = engine->limit;

    if (cpu->longest_block && bound - now > cpu->longest_block) /* the reference: see X86Cpu.limit_blocks */
        bound = now + cpu->longest_block;
    cpu->block = 0;
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
    if (cpu->tlb_stale) {
        cpu->tlb_stale = 0;
        cpu->call.flush_tlb(engine->cpu_state);
    }
    if (engine->translations_stale) {
        engine->translations_stale = 0;
        engine->call.flush_translations(engine->cpu_state);
        start_block(cpu, 0);
    }
    if (engine->lines || cpu->nmi) {
        int taken = take_interrupt(cpu);

        if (engine->stop)
            stop_here(engine, engine->stop);
        if (taken) {
            look_soon(engine);
            start_block(cpu, 0);
        }
    }
    if (now == engine->settle_at)
        stop_here(engine, STOP_SETTLED);
    if (count > bound - now) { /* split exactly at the bound */
        engine->horizon = bound;
        engine->budget = bound - now;
        start_block(cpu, (uint32_t)(bound - now));
    }
    /* an interrupt that is active but masked: look at every block start, that is where it gets unmasked */
    if (engine->lines || cpu->nmi)
        engine->horizon = now + count;
    else
        engine->horizon = bound - now > CHUNK ? now + CHUNK : bound;
    engine->budget = engine->horizon - now;
}

/* UC_HOOK_BLOCK: `block` is about to run; about 2 ns */
EXPORT void timevm_x86_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block)
{
    struct x86_64 *cpu = running;
    int64_t count = block->icount;

    (void)unicorn;
    if (__builtin_expect(cpu->engine.budget < count, 0))
        slow_block(cpu, count);
    if (cpu->executed)
        trace_block(cpu->executed, pc, size);
    cpu->engine.budget -= count;
    cpu->block = block;
}

/* the same for a block whose length was limited, that has a breakpoint, or that may begin with what CLOBBERS */
EXPORT void timevm_x86_marked_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block)
{
    struct x86_64 *cpu = running;
    struct engine *engine = &cpu->engine;

    (void)unicorn;
    if (block->cflags & BLOCK_LIMIT) {
        /* A limit that is not ours: Unicorn left the block before a store into it, to do that store alone. */
        if (!cpu->limit_requested && cpu->block) {
            const struct translation_block *left = cpu->block;
            unsigned place = place_in_block(left, pc);

            repair_flags(cpu, left, place);
            if (place < left->icount)
                leave_block_at(cpu, place);
        }
        cpu->limit_requested = 0;
    }
    if (engine->budget < block->icount)
        slow_block(cpu, block->icount);
    cpu->block = 0;
    if (has_breakpoint(cpu, pc)) {
        engine->block_end = pc;
        meet_stop(engine, STOP_BREAKPOINT, pc, pc, 0, 0);
    }
    if (block->cflags & BLOCK_CLOBBERS)
        keep_flags(cpu);
    if (block->cflags & BLOCK_SHOWS)
        show_exceptions(cpu->env);
    if (cpu->executed)
        trace_block(cpu->executed, pc, size);
    engine->budget -= block->icount;
    cpu->block = block;
}

/* for Python: run from `begin` (an offset into CS) until something stops it */
EXPORT int timevm_x86_run(struct x86_64 *cpu, uint64_t begin)
{
    struct x86_64 *outer = running;
    int error;

    running = cpu;
    cpu->block = 0;
    cpu->pending = 0;
    cpu->limit_requested = 0;
    cpu->delivering = 0;
    error = cpu->call.emu_start(cpu->engine.unicorn, begin, 0, 0, 0);
    cpu->block = 0;
    running = outer;
    return error;
}

/* ---- watchpoints on loads (those on stores: x86_64_translation.c) ---- */

/* UC_HOOK_MEM_READ while somebody watches loads.  Unicorn tells the physical address: a watched page is looked up in the
   guest's tables of this moment, but only if the place in the page fits. */
EXPORT void timevm_x86_access(void *unicorn, int type, uint64_t physical, int size, int64_t value, struct x86_64 *cpu)
{
    struct engine *engine = &cpu->engine;
    uint64_t attributes[4] = {0};

    (void)unicorn, (void)type, (void)value;
    if (!cpu->block)
        return;
    for (uint32_t i = 0; i < engine->watch_count; i++) {
        const struct watch *watch = &engine->watches[i];
        uint64_t first = watch->address < LONGEST_ACCESS ? 0 : watch->address - LONGEST_ACCESS; /* it may begin before */
        uint64_t page = first & ~(PAGE - 1), last = (watch->address + watch->length - 1) & ~(PAGE - 1);

        if (!(watch->kind & 1))
            continue;
        for (;; page += PAGE) {
            uint64_t at = page + (physical & (PAGE - 1)); /* where the access would be in this page */

            if (at < watch->address + watch->length && watch->address < at + (uint64_t)size &&
                engine->call.translate(engine->cpu_state, page, attributes) == (physical & ~(PAGE - 1))) {
                uint64_t pc = cpu->block->cs_base + *engine->pc;
                unsigned place = place_in_block(cpu->block, pc);

                if (place == cpu->block->icount)
                    return;
                engine->block_end = pc + cpu->block->icount - place;
                if (!engine->collect && icount_at(engine, pc, 0) != engine->skip_watchpoint_at)
                    repair_flags(cpu, cpu->block, place); /* the instruction will begin again */
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
static void isolate_access(struct x86_64 *cpu)
{
    struct engine *engine = &cpu->engine;
    struct translation_block *block = cpu->block;
    unsigned place;

    if (!block || !engine->call.restore_state(engine->cpu_state, *engine->access_host_pc, 1))
        return; /* not by an instruction: a page walk, an exception's stack */
    place = place_in_block(block, block->cs_base + *engine->pc);
    if (place + 1 < block->icount) {
        repair_flags(cpu, block, place);
        leave_block_at(cpu, place);
        start_block(cpu, 1);
    }
    cpu->pending = 1;
}

static uint64_t read_device(struct x86_64 *cpu, struct window *window, uint64_t offset, uint32_t size)
{
    uint64_t value = cpu->engine.device_read(window->number, offset, size);

    cpu->pending = 0;
    return value;
}

static void write_device(struct x86_64 *cpu, struct window *window, uint64_t offset, uint32_t size, uint64_t value)
{
    cpu->engine.device_write(window->number, offset, size, value);
    cpu->pending = 0;
}

static int is_output(struct window *window, uint64_t offset, uint64_t value)
{
    if ((int64_t)offset != window->output_offset || window->output_used == OUTPUT_BYTES)
        return 0;
    window->output[window->output_used++] = (uint8_t)value;
    return 1;
}

EXPORT uint64_t timevm_x86_device_read(void *unicorn, uint64_t offset, uint32_t size, struct window *window)
{
    struct x86_64 *cpu = (struct x86_64 *)window->engine;

    (void)unicorn;
    if ((int64_t)offset == window->constant_offset)
        return window->constant_value;
    isolate_access(cpu);
    return read_device(cpu, window, offset, size);
}

EXPORT void timevm_x86_device_write(void *unicorn, uint64_t offset, uint32_t size, uint64_t value,
                                    struct window *window)
{
    struct x86_64 *cpu = (struct x86_64 *)window->engine;

    (void)unicorn;
    if (is_output(window, offset, value))
        return;
    isolate_access(cpu);
    write_device(cpu, window, offset, size, value);
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
    window = cpu->engine.windows[number];
    offset = (port & (PORTS - 1)) - cpu->port_base[number];
    if ((int64_t)offset == window->constant_offset)
        return (uint32_t)window->constant_value;
    cpu->pending = 1;
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
    window = cpu->engine.windows[number];
    offset = (port & (PORTS - 1)) - cpu->port_base[number];
    if (is_output(window, offset, value))
        return;
    cpu->pending = 1;
    write_device(cpu, window, offset, (uint32_t)size, value);
}

/* ---- time ---- */

/* UC_X86_INS_RDTSC, always the last of its block: virtual nanoseconds */
EXPORT int timevm_x86_read_tsc(void *unicorn, struct x86_64 *cpu)
{
    int64_t icount = cpu->engine.horizon - cpu->engine.budget - 1;
    uint64_t now = ((uint64_t)icount << cpu->time_shift) + (uint64_t)cpu->warp_ns;

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
    sizes[3] = sizeof(struct code_page);
}
