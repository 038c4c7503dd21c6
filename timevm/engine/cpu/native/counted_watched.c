/* A debugger's watchpoints: which of them an access meets. */
#include "counted.h"

#define LONGEST_ACCESS 16

/* the first watchpoint that a store touches, and where in its kind of addresses the store begins; NULL: none */
const struct watch *watch_at(const struct engine *engine, uint64_t address, uint64_t length, uint64_t *begin)
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

/* What cpu_check_watchpoint is told.  A store that is not aligned is announced before its first byte, page by page; but
   of one that stays in its page first a length of "minus its place in the page" is told, then the page's beginning up to
   the end of the store.  After that come its bytes one by one.  1: no access yet; 0: address and length are put right. */
int is_announcement(struct counted *cpu, uint64_t *address, uint64_t *length)
{
    if ((int64_t)*length < 0) {
        cpu->unaligned_store = *address;
        return 1;
    }
    if (cpu->unaligned_store && *address == (cpu->unaligned_store & PAGE_MASK)) {
        *length = *address + *length - cpu->unaligned_store;
        *address = cpu->unaligned_store;
    }
    cpu->unaligned_store = 0;
    return 0;
}

/* UC_HOOK_MEM_READ while somebody watches loads.  Unicorn tells the physical address: a watched page is looked up in the
   guest's tables of this moment, but only if the place in the page fits. */
EXPORT void timevm_access(void *unicorn, int type, uint64_t physical, int size, int64_t value, struct counted *cpu)
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

        if (!(watch->kind & ACCESS_READ))
            continue;
        for (;; page += PAGE) {
            uint64_t at = page + (physical & (PAGE - 1)); /* where the access would be in this page */

            if (at < watch->address + watch->length && watch->address < at + (uint64_t)size &&
                engine->call.translate(engine->cpu_state, page, attributes) == (physical & PAGE_MASK)) {
                uint64_t pc = cpu->block->cs_base + *engine->pc;
                unsigned place = place_in_block(cpu->block, pc);

                if (place == cpu->block->icount)
                    return;
                engine->block_end = pc + cpu->block->icount - place;
                if (!engine->collect && icount_at(engine, pc, 0) != engine->skip_watchpoint_at)
                    make_restartable(cpu, cpu->block, place); /* the instruction will begin again */
                meet_stop(engine, STOP_WATCHPOINT, pc, watch->address > at ? watch->address : at, 0, 0);
                return;
            }
            if (page == last)
                break;
        }
    }
}
