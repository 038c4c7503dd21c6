/* A debugger's watchpoints on stores.

   A TLB entry of Unicorn can say that its page is watched, and a function is called before each access to it; in Unicorn
   that function and the one that is asked for the pages are empty.  Ours are in their place: only accesses to such pages
   are slow, whoever maps them.  No instruction here makes two stores, so one that is stopped has changed nothing. */
#include "riscv64.h"

enum { ACCESS_WRITE = 2 }; /* QEMU's BP_MEM_WRITE, and a bit of struct watch's kind */
#define WIDEST 8           /* bytes of an access */

/* the first watchpoint that a store touches, and where in its kind of addresses the store begins; NULL: none */
static const struct watch *watch_at(const struct engine *engine, uint64_t address, uint64_t length, uint64_t *begin)
{
    uint64_t attributes[4] = {0}, physical = NOWHERE;
    int looked_up = 0;

    for (uint32_t i = 0; i < engine->watch_count; i++) {
        const struct watch *watch = &engine->watches[i];

        *begin = address;
        if (watch->kind & WATCH_PHYSICAL) {
            if (!looked_up)
                physical = engine->call.translate(engine->cpu_state, address & PAGE_MASK, attributes);
            looked_up = 1;
            if (physical == NOWHERE)
                continue;
            *begin = physical | (address & (PAGE - 1));
        }
        if ((watch->kind & ACCESS_WRITE) && *begin < watch->address + watch->length &&
            watch->address < *begin + length)
            return watch;
    }
    return 0;
}

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
    struct riscv64 *cpu = running;
    struct engine *engine;
    const struct watch *watch;
    uint64_t begin;
    unsigned place;

    if (!is_running(cpu_state)) {
        original.watched_access(cpu_state, address, length, attributes, kind, host_pc);
        return;
    }
    if (length > WIDEST && (int64_t)length < 0) {
        cpu->unaligned_store = address;
        return;
    }
    if (cpu->unaligned_store && address == (cpu->unaligned_store & PAGE_MASK)) {
        length = address + length - cpu->unaligned_store;
        address = cpu->unaligned_store;
    }
    cpu->unaligned_store = 0;
    engine = &cpu->engine;
    watch = kind == ACCESS_WRITE ? watch_at(engine, address, length, &begin) : 0;
    if (!watch || !cpu->block || !host_pc || !engine->call.restore_state(engine->cpu_state, host_pc, 1))
        return;
    place = place_in_block(cpu->block, *engine->pc);
    if (place == cpu->block->icount)
        return;
    engine->block_end = *engine->pc + cpu->block->icount - place;
    meet_stop(engine, STOP_WATCHPOINT, *engine->pc, watch->address > begin ? watch->address : begin, 1, 0);
}
