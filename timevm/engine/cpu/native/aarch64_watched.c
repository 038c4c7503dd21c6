/* Watched data.  Unicorn's memory hooks cover the pages where the watched addresses are now (aarch64_watched.py), so
   that accesses to other pages stay fast; when the guest has changed its page tables, they are put where they belong. */
#include "aarch64.h"

#include <string.h>

/* ---- pages ---- */

/* The hooks of watchpoints do not cover any longer what they should; 0.1 us a page */
EXPORT int timevm_watched_pages_moved(struct aarch64 *cpu)
{
    uint64_t attributes[4] = {0};

    for (uint32_t i = 0; i < cpu->watched_pages; i++)
        if (cpu->engine.call.translate(cpu->engine.cpu_state, cpu->watched_page[i], attributes) != cpu->watched_place[i])
            return 1;
    return 0;
}

/* Page tables, or which of them count, are about to change. */
void touch_mapping(struct aarch64 *cpu)
{
    if (cpu->watched_pages) {
        cpu->mapping_touched = 1;
        look_soon(&cpu->engine);
    }
}

/* ---- accesses ---- */

/* An access to `size` bytes at virtual `address` is about to happen: is one of the watched ranges hit? */
static void look_at_watches(struct aarch64 *cpu, uint64_t address, uint64_t size, int is_write)
{
    struct engine *engine = &cpu->engine;

    for (uint32_t i = 0; i < engine->watch_count; i++) {
        const struct watch *watch = &engine->watches[i];

        if ((watch->kind >> is_write & 1) && !(watch->kind & WATCH_PHYSICAL) &&
            address < watch->address + watch->length && watch->address < address + size)
            meet_stop(engine, STOP_WATCHPOINT, *engine->pc, watch->address > address ? watch->address : address,
                      (uint32_t)is_write, WORD);
    }
}

/* The machine is about to be stopped before an access: its instruction (a pair, a vector) shall not have begun. */
static void take_back_stores(struct aarch64 *cpu, int64_t icount)
{
    if (cpu->stored_at == icount)
        while (cpu->stored_count) {
            const struct stored *last = &cpu->stored[--cpu->stored_count];

            memcpy(last->place, last->before, last->size);
        }
}

/* A store is about to be made, by an instruction that may make more of them. */
static void note_store(struct aarch64 *cpu, uint64_t physical, uint32_t size, int64_t icount)
{
    struct stored *next;

    if (cpu->stored_at != icount)
        cpu->stored_at = icount, cpu->stored_count = 0;
    if (cpu->stored_count == MAX_STORED || size > sizeof next->before || physical < cpu->ram_base ||
        physical + size > cpu->ram_end)
        return;
    next = &cpu->stored[cpu->stored_count++];
    next->place = cpu->ram_host + (physical - cpu->ram_base);
    next->size = size;
    memcpy(next->before, next->place, size);
}

/* The same for those who watch physical addresses.  1: one is hit. */
static int look_at_physical(struct aarch64 *cpu, const struct watch *watch, uint64_t physical, uint64_t size,
                            int64_t icount)
{
    struct engine *engine = &cpu->engine;

    if (physical >= watch->address + watch->length || watch->address >= physical + size)
        return 0;
    if (!engine->collect && icount != engine->skip_watchpoint_at)
        take_back_stores(cpu, icount);
    meet_stop(engine, STOP_WATCHPOINT, *engine->pc, watch->address > physical ? watch->address : physical, 1, WORD);
    return 1;
}

/* Unicorn tells the physical address of an access: a watched page is looked up in the guest's tables of this moment,
   but only if the place in the page fits. */
static void look_at_access(struct aarch64 *cpu, uint64_t physical, uint32_t size, int is_write, int64_t icount)
{
    struct engine *engine = &cpu->engine;
    uint64_t attributes[4] = {0};

    for (uint32_t i = 0; i < engine->watch_count; i++) {
        const struct watch *watch = &engine->watches[i];
        uint64_t first = watch->address < WATCH_REACH ? 0 : watch->address - WATCH_REACH; /* an access may begin before */
        uint64_t page = first & ~(uint64_t)4095, last = (watch->address + watch->length - 1) & ~(uint64_t)4095;

        if (!(watch->kind >> is_write & 1))
            continue;
        if (watch->kind & WATCH_PHYSICAL) {
            if (look_at_physical(cpu, watch, physical, size, icount))
                return;
            continue;
        }
        if (cpu->mmu_is_off) /* addresses are physical: one look for a range of any length */
            page = last = physical & ~(uint64_t)4095;
        for (;; page += 4096) {
            uint64_t at = page + (physical & 4095); /* where the access would be in this page */

            if (at < watch->address + watch->length && watch->address < at + size &&
                engine->call.translate(engine->cpu_state, page, attributes) == (physical & ~(uint64_t)4095)) {
                if (!engine->collect && icount != engine->skip_watchpoint_at)
                    take_back_stores(cpu, icount);
                look_at_watches(cpu, at, size, is_write);
                return;
            }
            if (page == last)
                break;
        }
    }
}

/* UC_HOOK_MEM_READ, _WRITE on what is watched, or on everything */
EXPORT void timevm_access(void *unicorn, int type, uint64_t physical, int size, int64_t value, struct aarch64 *cpu)
{
    int64_t icount = icount_at(&cpu->engine, *cpu->engine.pc, WORD);
    int is_write = type == 17; /* UC_MEM_WRITE */

    (void)unicorn, (void)value;
    look_at_access(cpu, physical, (uint32_t)size, is_write, icount);
    if (is_write && !cpu->engine.collect)
        note_store(cpu, physical, (uint32_t)size, icount);
}

/* `size` bytes at virtual `address`, all in one page, are about to be cleared by an instruction that no hook sees. */
void look_at_cleared(struct aarch64 *cpu, uint64_t address, uint64_t size)
{
    struct engine *engine = &cpu->engine;
    uint64_t attributes[4] = {0}, page;

    look_at_watches(cpu, address, size, 1);
    page = engine->call.translate(engine->cpu_state, address & ~(uint64_t)4095, attributes);
    for (uint32_t i = 0; i < engine->watch_count; i++)
        if ((engine->watches[i].kind & WATCH_PHYSICAL) && page != ~(uint64_t)0)
            look_at_physical(cpu, &engine->watches[i], page | (address & 4095), size,
                             icount_at(engine, *engine->pc, WORD));
}
