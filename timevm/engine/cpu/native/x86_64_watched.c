/* Watched data: a debugger's watchpoints on stores, and the data breakpoints of the debug registers (Intel SDM 3B,
   17.2.4).

   Unicorn has the frame of both only: a TLB entry can say that its page is watched, and then a function is called before
   each access that is empty.  Ours are in its place.  Only accesses to such pages are slow, whoever maps them. */
#include "x86_64.h"

enum { BREAK_ON_WRITE = 1, BREAK_ON_ACCESS = 3 };

/* the debug registers that watch any of `length` bytes at `address` for an access of this kind, one bit each */
static uint32_t data_breaks_at(const struct x86_64 *cpu, uint64_t address, uint64_t length, int kind)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    uint64_t control = cpu->debug[7];
    uint32_t found = 0;

    for (unsigned i = 0; i < 4; i++) {
        unsigned type = control >> (16 + 4 * i) & 3, size = lengths[control >> (18 + 4 * i) & 3];
        uint64_t begin = cpu->debug[i] & ~(uint64_t)(size - 1);

        if ((control >> 2 * i & 3) && (type == BREAK_ON_ACCESS || (type == BREAK_ON_WRITE && (kind & ACCESS_WRITE))) &&
            address < begin + size && begin < address + length)
            found |= 1u << i;
    }
    return found;
}

/* in the place of cpu_watchpoint_insert: a debug register has been set; pages that it watches are to be slow */
EXPORT int timevm_x86_new_data_break(void *cpu_state, uint64_t address, uint64_t length, int kind, void **record)
{
    if (!is_running(cpu_state))
        return original.new_data_break(cpu_state, address, length, kind, record);
    empty_tlb(&running->engine);
    return 0;
}

/* in the place of cpu_watchpoint_address_matches: for which accesses is this page watched? */
EXPORT int timevm_x86_is_data_watched(void *cpu_state, uint64_t address, uint64_t length)
{
    uint64_t begin;

    if (!is_running(cpu_state))
        return original.is_data_watched(cpu_state, address, length);
    return (data_breaks_at(running_cpu(), address, length, ACCESS_READ) ? ACCESS_READ : 0) |
           (data_breaks_at(running_cpu(), address, length, ACCESS_WRITE) || watch_at(&running->engine, address, length, &begin)
                ? ACCESS_WRITE
                : 0);
}

#define NEAR 512 /* bytes between the stores of one instruction */

/* A store is about to happen that meets nothing; another one of its instruction may: keep what it overwrites. */
static void note_store(struct x86_64 *cpu, uint64_t address, uint64_t size, uintptr_t host_pc)
{
    uint64_t attributes[4] = {0}, physical;
    int64_t paid = cpu->common.engine.horizon - cpu->common.engine.budget;

    if (cpu->stored_in != paid)
        cpu->stored_count = 0;
    cpu->stored_in = paid;
    if (cpu->stored_count == MAX_STORED || size > 8 || (address & (PAGE - 1)) + size > PAGE)
        return;
    physical = cpu->common.engine.call.translate(cpu->common.engine.cpu_state, address & PAGE_MASK, attributes);
    if (physical == ~(uint64_t)0)
        return;
    physical |= address & (PAGE - 1);
    for (uint32_t i = 0; i < cpu->common.engine.memory.ram_count; i++)
        if (physical >= cpu->common.engine.memory.ram[i].base && physical < cpu->common.engine.memory.ram[i].end) {
            struct noted_store *store = &cpu->stored[cpu->stored_count++];

            *store = (struct noted_store){cpu->common.engine.memory.ram[i].host + (physical - cpu->common.engine.memory.ram[i].base), 0, size, host_pc};
            __builtin_memcpy(&store->before, store->host, size);
        }
}

/* The instruction at `pc` is not to happen yet: take back what it has stored. */
static void take_back_stores(struct x86_64 *cpu, uint64_t pc)
{
    struct engine *engine = &cpu->common.engine;

    if (cpu->stored_in != engine->horizon - engine->budget)
        return;
    while (cpu->stored_count) {
        const struct noted_store *store = &cpu->stored[--cpu->stored_count];

        if (engine->call.restore_state(engine->cpu_state, store->host_pc, 1) &&
            cpu->common.block->cs_base + *engine->pc == pc)
            __builtin_memcpy(store->host, &store->before, store->size);
    }
}

/* a store is about to happen: is a watchpoint met? */
static void look_at_watches(struct x86_64 *cpu, uint64_t address, uint64_t length, uintptr_t host_pc)
{
    struct engine *engine = &cpu->common.engine;
    const struct translation_block *block = cpu->common.block;
    uint64_t pc, begin, near;
    const struct watch *watch = watch_at(engine, address, length, &begin);
    unsigned place;

    if (!block || !host_pc)
        return;
    if (!watch) {
        if (watch_at(engine, address - NEAR, length + 2 * NEAR, &near))
            note_store(cpu, address, length, host_pc);
        return;
    }
    if (!engine->call.restore_state(engine->cpu_state, host_pc, 1))
        return;
    pc = block->cs_base + *engine->pc;
    place = place_in_block(block, pc);
    if (place == block->icount)
        return;
    engine->block_end = pc + block->icount - place;
    if (!engine->collect && icount_at(engine, pc, 0) != engine->skip_watchpoint_at) {
        take_back_stores(cpu, pc); /* the instruction will begin again */
        engine->call.restore_state(engine->cpu_state, host_pc, 1);
        repair_flags(cpu, block, place);
    }
    meet_stop(engine, STOP_WATCHPOINT, pc, watch->address > begin ? watch->address : begin, 1, 0);
}

/* in the place of cpu_check_watchpoint: an access to a page that is watched.  A debug register's trap comes behind the
   instruction.

   A store that is not aligned is announced before its first byte, page by page; but of one that stays in its page first
   a length of "minus its place in the page" is told, then the page's beginning up to the end of the store.  After that
   come its bytes one by one. */
EXPORT void timevm_x86_watched_access(void *cpu_state, uint64_t address, uint64_t length, uint32_t attributes, int kind,
                                      uintptr_t host_pc)
{
    struct x86_64 *cpu = running_cpu();
    uint32_t found;

    if (!is_running(cpu_state)) {
        original.watched_access(cpu_state, address, length, attributes, kind, host_pc);
        return;
    }
    if (is_announcement(&cpu->common, &address, &length))
        return;
    if (kind == ACCESS_WRITE && cpu->common.engine.watch_count)
        look_at_watches(cpu, address, length, host_pc);
    found = data_breaks_at(cpu, address, length, kind);
    if (!found)
        return;
    run_alone(&cpu->common, host_pc);
    cpu->data_breaks |= found;
    look_soon(&cpu->common.engine);
}
