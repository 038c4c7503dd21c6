/* A debugger's watchpoints on stores.

   A TLB entry of Unicorn can say that its page is watched, and a function is called before each access to it; in Unicorn
   that function and the one that is asked for the pages are empty.  Ours are in their place: only accesses to such pages
   are slow, whoever maps them.  No instruction here makes two stores, so one that is stopped has changed nothing. */
#include "riscv64.h"

/* in the place of cpu_watchpoint_address_matches: for which accesses is this page watched? */
EXPORT int timevm_riscv64_is_data_watched(void *cpu_state, uint64_t address, uint64_t length)
{
    uint64_t begin;

    if (!is_running(cpu_state))
        return original.is_data_watched(cpu_state, address, length);
    return watch_at(&running->engine, address, length, &begin) ? ACCESS_WRITE : 0;
}

/* In the place of cpu_check_watchpoint: an access to a page that is watched.

   A store that is not aligned is announced before its first byte, page by page; but of one that stays in its page first
   a length of "minus its place in the page" is told, then the page's beginning up to the end of the store.  After that
   come its bytes one by one. */
EXPORT void timevm_riscv64_watched_access(void *cpu_state, uint64_t address, uint64_t length, uint32_t attributes,
                                          int kind, uintptr_t host_pc)
{
    struct riscv64 *cpu = running_cpu();
    struct engine *engine;
    const struct watch *watch;
    uint64_t begin;
    unsigned place;

    if (!is_running(cpu_state)) {
        original.watched_access(cpu_state, address, length, attributes, kind, host_pc);
        return;
    }
    if (is_announcement(&cpu->common, &address, &length))
        return;
    engine = &cpu->common.engine;
    watch = kind == ACCESS_WRITE ? watch_at(engine, address, length, &begin) : 0;
    if (!watch || !cpu->common.block || !host_pc || !engine->call.restore_state(engine->cpu_state, host_pc, 1))
        return;
    place = place_in_block(cpu->common.block, *engine->pc);
    if (place == cpu->common.block->icount)
        return;
    engine->block_end = *engine->pc + cpu->common.block->icount - place;
    meet_stop(engine, STOP_WATCHPOINT, *engine->pc, watch->address > begin ? watch->address : begin, 1, 0);
}
