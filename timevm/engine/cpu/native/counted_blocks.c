/* Blocks, where in them something happens, and accesses to devices. */
#include "counted.h"

_Thread_local struct counted *running __attribute__((tls_model("initial-exec")));

/* UC_HOOK_BLOCK where the budget is used up: `block` is about to run, and was paid for */
EXPORT void timevm_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block)
{
    struct counted *cpu = running;

    (void)unicorn, (void)pc, (void)size;
    cpu->engine.budget += block->icount;
    slow_block(cpu, block->icount);
    cpu->engine.budget -= block->icount;
    cpu->block = block;
}

/* In place of tcg_gen_callN.  Instead of the block hook, the count itself.  The check at the start of each block is left
   out: whatever ends a run here leaves the block by itself (stop_here, an exception, a halt), and the block hook sees
   kicks. */
EXPORT void timevm_generate_call(void *context, void *helper, void *result, int count, void **arguments)
{
    struct counted *cpu = running;

    if (cpu && helper == generator.block_check && !cpu->block_checks)
        return;
    if (cpu && helper == (void *)timevm_block)
        inline_count(context, helper, (uintptr_t)cpu->block_hook->user, &cpu->engine.budget, (uint64_t *)&cpu->block,
                     cpu->trace);
    else if (cpu && helper == cpu->block_hook->callback)
        inline_call(context, helper, arguments, cpu->trace);
    else
        generator.call(context, helper, result, count, arguments);
}

/* in place of tcg_gen_code */
EXPORT int timevm_generate_code(void *context, struct translation_block *block)
{
    complete_block(context, block, block->icount, (uintptr_t)block);
    return generator.code(context, block);
}

/* what translated code does by itself for most blocks */
void begin_block(struct counted *cpu, struct translation_block *block)
{
    cpu->engine.budget -= block->icount;
    cpu->block = block;
}

/* run until something stops it; Unicorn's error code */
int run_counted(struct counted *cpu)
{
    struct counted *outer = running;
    int error;

    running = cpu;
    cpu->block = 0;
    cpu->in_access = 0;
    cpu->limit_requested = 0;
    cpu->engine.memory.begun_anew_at = -1;
    cpu->is_prepared = 0;
    error = cpu->emu_start(cpu->engine.unicorn, *cpu->engine.pc, 0, 0, 0);
    cpu->block = 0;
    running = outer;
    return error;
}

/* ---- where in a block ---- */

/* one number of the table behind translated code: signed, little-endian groups of seven bits */
int64_t next_number(const uint8_t **at)
{
    uint64_t value = 0;
    unsigned shift = 0;
    uint8_t byte;

    do {
        byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        shift += 7;
    } while (byte & 0x80);
    if (shift < 64 && (byte & 0x40))
        value |= ~(uint64_t)0 << shift;
    return (int64_t)value;
}

/* number of the instruction at `address`; block->icount if none begins there.  About 2 ns an instruction. */
unsigned place_in_block(const struct translation_block *block, uint64_t address)
{
    const uint8_t *at = block->code + block->code_size;
    uint64_t pc = block->pc;
    unsigned place;

    for (place = 0; place < block->icount; place++) {
        pc += (uint64_t)next_number(&at); /* the first is relative to block->pc */
        if (pc == address)
            break;
        for (unsigned i = 0; i < numbers_behind_address; i++)
            next_number(&at);
    }
    return place;
}

int has_breakpoint(const struct counted *cpu, uint64_t address)
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

/* `block` is about to be translated: each instruction by `instruction`, from `cpu->code` if that is not NULL */
void begin_translation(struct counted *cpu, const struct translator_calls *calls, const struct translation_block *block,
                       void (*instruction)(struct translating *translation, void *cpu_state))
{
    void *host = 0;
    uint64_t offset;

    cpu->translator = *calls;
    cpu->translate_instruction = calls->instruction;
    cpu->translator.instruction = instruction;
    offset = cpu->code_page(cpu->env, block->pc, &host);
    cpu->code = host ? (const uint8_t *)((uintptr_t)host & PAGE_MASK) : 0;
    if (host)
        watch_page(cpu, offset, host);
}

/* ---- devices ---- */

/* The access is executed as the only or last instruction of a block. */
void isolate_access(struct counted *cpu)
{
    struct engine *engine = &cpu->engine;
    struct translation_block *block = cpu->block;
    unsigned place;

    if (!block || !engine->call.restore_state(engine->cpu_state, *engine->access_host_pc, 1))
        return; /* not by an instruction: a page walk, an exception's stack */
    place = place_in_block(block, block->cs_base + *engine->pc);
    if (place + 1 < block->icount) {
        make_restartable(cpu, block, place);
        leave_block_at(cpu, place);
        start_block(cpu, 1);
    }
    cpu->in_access = 1;
}

EXPORT uint64_t timevm_device_read(void *unicorn, uint64_t offset, uint32_t size, struct window *window)
{
    struct counted *cpu = (struct counted *)window->engine;
    uint64_t value;

    (void)unicorn;
    if ((int64_t)offset == window->constant_offset)
        return window->constant_value;
    isolate_access(cpu);
    value = cpu->engine.device_read(window->number, offset, size);
    cpu->in_access = 0;
    return value;
}

EXPORT void timevm_device_write(void *unicorn, uint64_t offset, uint32_t size, uint64_t value, struct window *window)
{
    struct counted *cpu = (struct counted *)window->engine;

    (void)unicorn;
    if ((int64_t)offset == window->output_offset && window->output_used < OUTPUT_BYTES) {
        window->output[window->output_used++] = (uint8_t)value;
        return;
    }
    isolate_access(cpu);
    cpu->engine.device_write(window->number, offset, size, value);
    cpu->in_access = 0;
}
