#include "common.h"

_Noreturn void stop_here(struct engine *engine, enum stop_reason reason)
{
    engine->stop = reason;
    engine->call.emu_stop(engine->unicorn);
    engine->call.leave_block(engine->cpu_state);
    __builtin_unreachable();
}

_Noreturn void restart_block(struct engine *engine, uint32_t instructions)
{
    if (instructions)
        *engine->next_block_flags = instructions;
    engine->call.leave_block(engine->cpu_state);
    __builtin_unreachable();
}

void drain_windows(struct engine *engine)
{
    for (uint32_t i = 0; i < engine->window_count; i++)
        if (engine->windows[i]->output_used)
            engine->drain_output(i);
}

void meet_stop(struct engine *engine, enum stop_reason reason, uint64_t pc, uint64_t address, uint32_t is_write,
               unsigned shift)
{
    int64_t icount = icount_at(engine, pc, shift);

    if (reason == STOP_WATCHPOINT
            ? icount == engine->skip_watchpoint_at
            : icount == engine->skip_breakpoint_at && pc == engine->skip_breakpoint_pc)
        return;
    if (engine->collect) {
        struct passed_stop *last = &engine->passed[(engine->passed_count - 1) % MAX_PASSED];

        /* of one instruction keep the last: in reverse it is the first that is met */
        if (!engine->passed_count || last->icount != icount)
            last = &engine->passed[engine->passed_count++ % MAX_PASSED];
        last->icount = icount;
        last->pc = pc;
        last->address = address;
        last->is_write = is_write;
        last->is_watchpoint = reason == STOP_WATCHPOINT;
        return;
    }
    end_block_at(engine, pc, shift);
    engine->stop_address = address;
    engine->stop_is_write = is_write;
    stop_here(engine, reason);
}

/* UC_HOOK_MEM_WRITE_PROT on read-only memory; 1: go on, Unicorn drops the write */
EXPORT int timevm_drop_write(void *unicorn, int type, uint64_t address, int size, int64_t value, void *nothing)
{
    (void)unicorn, (void)type, (void)address, (void)size, (void)value, (void)nothing;
    return 1;
}

/* In place of gettimeofday in Unicorn, which asks at each flush of its TLB for nothing but whether a window of 100 ms has
   passed, to make a TLB smaller of which little was used in it.  The host's time says nothing of that: here 2 ms pass from
   flush to flush. */
EXPORT int timevm_time_of_day(int64_t *seconds_and_microseconds, void *zone)
{
    static int64_t looks;
    int64_t microseconds = __atomic_add_fetch(&looks, 1, __ATOMIC_RELAXED) * 2000;

    (void)zone;
    seconds_and_microseconds[0] = microseconds / 1000000;
    seconds_and_microseconds[1] = microseconds % 1000000;
    return 0;
}
