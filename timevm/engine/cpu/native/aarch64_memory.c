/* Devices, addresses that nothing answers, and translation while the MMU is off. */
#include "aarch64.h"

/* ---- devices ---- */

/* The access is executed as the only instruction of a block.  Returns with the pc known when it is. */
static void isolate_access(struct engine *engine)
{
    uint64_t pc;

    engine->call.restore_state(engine->cpu_state, *engine->access_host_pc, 1);
    pc = *engine->pc;
    if (pc + (1 << WORD) == engine->block_end)
        return;
    end_block_at(engine, pc, WORD);
    restart_block(engine, 1);
}

EXPORT uint64_t timevm_device_read(void *unicorn, uint64_t offset, uint32_t size, struct window *window)
{
    (void)unicorn;
    if ((int64_t)offset == window->constant_offset)
        return window->constant_value;
    isolate_access(window->engine);
    return window->engine->device_read(window->number, offset, size);
}

EXPORT void timevm_device_write(void *unicorn, uint64_t offset, uint32_t size, uint64_t value, struct window *window)
{
    (void)unicorn;
    if ((int64_t)offset == window->output_offset && window->output_used < OUTPUT_BYTES) {
        window->output[window->output_used++] = (uint8_t)value;
        return;
    }
    isolate_access(window->engine);
    window->engine->device_write(window->number, offset, size, value);
}

/* UC_HOOK_MEM_READ_UNMAPPED, _WRITE_UNMAPPED: nothing answers at this physical address */
EXPORT int timevm_unmapped(void *unicorn, int type, uint64_t address, int size, int64_t value, struct aarch64 *cpu)
{
    struct engine *engine = &cpu->engine;

    (void)unicorn, (void)address, (void)size, (void)value;
    end_block_at(engine, *engine->pc + (1 << WORD), WORD);
    enter_external_abort(cpu, 0, type == 20 /* UC_MEM_WRITE_UNMAPPED */);
    engine->block_end = *engine->pc;
    restart_block(engine, 0);
}

/* ---- translation while the MMU is off ---- */

enum { UNICORN_TLB_CPU = 0, UNICORN_TLB_VIRTUAL = 1 };
enum { READ = 1, WRITE = 2, EXECUTE = 4 };         /* UC_PROT_* */
enum { ACCESS_READ = 16, ACCESS_WRITE = 17, ACCESS_FETCH = 18 }; /* UC_MEM_* */
enum { PAGE_WRITTEN = 1, PAGE_EXECUTED = 2 };
#define PAGE_SHIFT 12

/* UC_HOOK_TLB_FILL.  Unicorn makes every page executable while the MMU is off, and a store to a page that is executable
   never leaves its slow path (23 ns against 2).  So a page is writable or executable by what is done with it; one that
   is both gets all rights, and with them the slow path, which drops translations of what is overwritten. */
EXPORT int timevm_flat_translation(void *unicorn, uint64_t address, int type, struct translation *result,
                                   struct aarch64 *cpu)
{
    uint8_t *page, before;

    (void)unicorn;
    result->physical = address;
    if (address < cpu->ram_base || address >= cpu->ram_end) {
        result->permissions = READ | WRITE | (type == ACCESS_FETCH ? EXECUTE : 0);
        return 1;
    }
    page = &cpu->pages[(address - cpu->ram_base) >> PAGE_SHIFT];
    before = *page;
    if (type == ACCESS_FETCH)
        *page |= PAGE_EXECUTED;
    else if (type == ACCESS_WRITE)
        *page |= PAGE_WRITTEN;
    switch (*page) {
    case PAGE_WRITTEN | PAGE_EXECUTED:
        if (before != *page) /* no translation with fewer rights may stay behind */
            cpu->engine.call.flush_tlb_page(cpu->engine.cpu_state, address);
        result->permissions = READ | WRITE | EXECUTE;
        break;
    case PAGE_EXECUTED:
        result->permissions = READ | EXECUTE;
        break;
    case PAGE_WRITTEN:
        result->permissions = READ | WRITE;
        break;
    default:
        result->permissions = READ;
    }
    return 1;
}

/* The guest switches its MMU on or off; the caller has the TLB flushed.  Translations made under the MMU say nothing
   about which pages were executed, so they are dropped when it is switched off. */
void set_mmu(struct aarch64 *cpu, int on)
{
    struct engine *engine = &cpu->engine;

    if (!cpu->translation_request || cpu->mmu_is_off == !on)
        return;
    cpu->mmu_is_off = !on;
    engine->call.control(engine->unicorn, (int)cpu->translation_request, on ? UNICORN_TLB_CPU : UNICORN_TLB_VIRTUAL);
    if (!on) {
        __builtin_memset(cpu->pages, 0, (cpu->ram_end - cpu->ram_base) >> PAGE_SHIFT);
        engine->translations_stale = 1;
        look_soon(engine);
    }
}

/* for Python: after a reset or a restore */
EXPORT void timevm_set_mmu(struct aarch64 *cpu, int on)
{
    set_mmu(cpu, on);
}
