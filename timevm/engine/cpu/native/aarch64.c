#include "aarch64.h"

#include <stddef.h>
#include <string.h>

#define WORD 2 /* an instruction is 1 << WORD bytes */

/* Unicorn's exception numbers (QEMU's EXCP_*) */
enum { UNDEFINED = 1, SUPERVISOR_CALL = 2, PREFETCH_ABORT = 3, DATA_ABORT = 4, IRQ = 5, FIQ = 6, BREAK = 7,
       HYPERVISOR_CALL = 11, SECURE_MONITOR_CALL = 13 };

enum { LINE_IRQ = 1, LINE_FIQ = 2 };

#define DAIF_F (1u << 6)
#define DAIF_I (1u << 7)
#define NEVER (((int64_t)1 << 62) - 1)

#define NS_PER_COUNT 16 /* 62.5 MHz, as QEMU's virt */
#define TIMER_ENABLE 1u
#define TIMER_MASK 2u
#define TIMER_STATUS 4u

/* ---- time ---- */

static uint64_t counter_at(const struct aarch64 *cpu, int64_t icount)
{
    return (((uint64_t)icount << cpu->time_shift) + (uint64_t)cpu->warp_ns) / NS_PER_COUNT;
}

static int condition_met(const struct aarch64 *cpu, const struct generic_timer *timer, int64_t icount)
{
    return (timer->control & TIMER_ENABLE) && counter_at(cpu, icount) >= timer->compare;
}

/* first icount >= now at which the timer's condition is met; NEVER if it is off, masked or met already */
static int64_t timer_deadline(const struct aarch64 *cpu, const struct generic_timer *timer, int64_t icount)
{
    uint64_t ns, unit = (uint64_t)1 << cpu->time_shift;

    if ((timer->control & (TIMER_ENABLE | TIMER_MASK)) != TIMER_ENABLE || condition_met(cpu, timer, icount))
        return NEVER;
    if (timer->compare >= (uint64_t)NEVER / NS_PER_COUNT)
        return NEVER;
    ns = timer->compare * NS_PER_COUNT - (uint64_t)cpu->warp_ns; /* not met yet: later than the warp */
    return (int64_t)((ns + unit - 1) >> cpu->time_shift);
}

/* drive the timers' lines as virtual time at `icount` wants them; Python is called only where one changes */
static void evaluate_timers(struct aarch64 *cpu, int64_t icount)
{
    int64_t deadline = NEVER;

    for (uint32_t i = 0; i < 2; i++) {
        struct generic_timer *timer = &cpu->timer[i];
        uint32_t level = condition_met(cpu, timer, icount) && !(timer->control & TIMER_MASK);
        int64_t next = timer_deadline(cpu, timer, icount);

        if (next < deadline)
            deadline = next;
        if (level != timer->level) {
            timer->level = level;
            cpu->timer_line(i, level);
        }
    }
    cpu->engine.deadline = deadline;
}

/* for Python: between runs */
EXPORT void timevm_evaluate_timers(struct aarch64 *cpu, int64_t icount)
{
    evaluate_timers(cpu, icount);
}

EXPORT int64_t timevm_next_timer_ns(const struct aarch64 *cpu, int64_t icount)
{
    int64_t earliest = -1;

    for (uint32_t i = 0; i < 2; i++)
        if (timer_deadline(cpu, &cpu->timer[i], icount) != NEVER) {
            int64_t ns = (int64_t)(cpu->timer[i].compare * NS_PER_COUNT);
            if (earliest < 0 || ns < earliest)
                earliest = ns;
        }
    return earliest;
}

/* ---- exceptions ---- */

static void enter_exception(struct aarch64 *cpu, int number)
{
    *cpu->engine.exception_index = number;
    cpu->engine.call.take_exception(cpu->engine.cpu_state);
    *cpu->engine.exception_index = -1;
}

static void enter_undefined(struct aarch64 *cpu)
{
    *cpu->syndrome = 1u << 25; /* EC 0, IL */
    *cpu->target_level = 1;
    enter_exception(cpu, UNDEFINED);
}

/* a physical address that nothing answers: synchronous external abort (Arm ARM D17.2.37), FAR not valid */
static void enter_external_abort(struct aarch64 *cpu, int is_fetch, int is_write)
{
    uint32_t class = (is_fetch ? 0x20u : 0x24u) | ((*cpu->pstate & 0xc) != 0);

    *cpu->syndrome = class << 26 | 1u << 25 | 1u << 10 | (is_write ? 1u << 6 : 0) | 0x10;
    *cpu->fault_address = 0;
    *cpu->target_level = 1;
    enter_exception(cpu, is_fetch ? PREFETCH_ABORT : DATA_ABORT);
}

/* for Python: an instruction was to be fetched from nowhere; the CPU stands at it */
EXPORT void timevm_fetch_abort(struct aarch64 *cpu)
{
    enter_external_abort(cpu, 1, 0);
    cpu->engine.block_end = *cpu->engine.pc;
}

/* for Python: this HVC or SMC is not known; the CPU stands behind it */
EXPORT void timevm_undefined(struct aarch64 *cpu)
{
    *cpu->engine.pc -= 1 << WORD;
    enter_undefined(cpu);
    cpu->engine.block_end = *cpu->engine.pc;
}

/* an interrupt that is active and not masked is taken; 1 if there was one */
static int take_interrupt(struct aarch64 *cpu)
{
    uint32_t lines = cpu->engine.lines;
    int number;

    if ((lines & LINE_FIQ) && !(*cpu->daif & DAIF_F))
        number = FIQ;
    else if ((lines & LINE_IRQ) && !(*cpu->daif & DAIF_I))
        number = IRQ;
    else
        return 0;
    *cpu->target_level = 1;
    enter_exception(cpu, number);
    return 1;
}

/* UC_HOOK_INTR: an instruction raised a synchronous exception.  It counts once for each attempt; a fetch does not. */
EXPORT void timevm_exception(void *unicorn, uint32_t number, struct aarch64 *cpu)
{
    struct engine *engine = &cpu->engine;

    (void)unicorn;
    switch (number) {
    case SUPERVISOR_CALL:
        end_block_at(engine, *engine->pc, WORD);
        break;
    case HYPERVISOR_CALL:
    case SECURE_MONITOR_CALL:
        end_block_at(engine, *engine->pc, WORD);
        engine->stop = STOP_FIRMWARE_CALL;
        engine->call.emu_stop(engine->unicorn);
        return;
    case PREFETCH_ABORT:
        break;
    default:
        end_block_at(engine, *engine->pc + (1 << WORD), WORD);
        break;
    }
    if (*cpu->target_level != 1) { /* what would go to EL2 or EL3, which this machine does not have */
        *cpu->target_level = 1;
        if (number == UNDEFINED)
            *cpu->syndrome = 1u << 25;
    }
    enter_exception(cpu, (int)number);
    engine->block_end = *engine->pc;
}

/* ---- blocks ---- */

/* The rare side of the block hook, at a block start with `count` instructions to come.  Costs about 50 ns, once every
   CHUNK instructions and at deadlines, interrupts and limits. */
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
static void touch_mapping(struct aarch64 *cpu)
{
    if (cpu->watched_pages) {
        cpu->mapping_touched = 1;
        look_soon(&cpu->engine);
    }
}

static __attribute__((noinline)) void slow_block(struct aarch64 *cpu, uint64_t pc, int64_t count)
{
    struct engine *engine = &cpu->engine;
    int64_t now = engine->horizon - engine->budget, bound;

    engine->block_end = pc;
    engine->slow_blocks++;
    look_soon(engine);
    drain_windows(engine);
    if (engine->stop)
        stop_here(engine, engine->stop);
    if (now >= engine->limit)
        stop_here(engine, STOP_LIMIT);
    if (__atomic_load_n(&engine->kick, __ATOMIC_ACQUIRE) && now != engine->entered)
        stop_here(engine, STOP_KICK);
    if (cpu->mapping_touched) {
        cpu->mapping_touched = 0;
        if (timevm_watched_pages_moved(cpu))
            stop_here(engine, STOP_KICK); /* the hooks are put where they belong before it goes on */
    }
    if (engine->translations_stale) {
        engine->translations_stale = 0;
        engine->call.flush_translations(engine->cpu_state);
        restart_block(engine, 0);
    }
    if (now >= engine->deadline) {
        evaluate_timers(cpu, now);
        if (engine->stop)
            stop_here(engine, engine->stop);
    }
    if (engine->lines && take_interrupt(cpu)) {
        look_soon(engine);
        restart_block(engine, 0);
    }
    if (now == engine->settle_at)
        stop_here(engine, STOP_SETTLED);
    bound = engine->limit < engine->deadline ? engine->limit : engine->deadline;
    if (count > bound - now) { /* split exactly at the bound */
        engine->horizon = bound;
        engine->budget = bound - now;
        restart_block(engine, (uint32_t)(bound - now));
    }
    /* an interrupt that is active but masked: look at every block start, that is where it gets unmasked */
    if (engine->lines)
        engine->horizon = now + count;
    else
        engine->horizon = bound - now > CHUNK ? now + CHUNK : bound;
    engine->budget = engine->horizon - now;
}

#define GRANULE_SHIFT 6
#define GRANULES_MASK ((1u << 19) - 1)

/* For who wants to know where not to look for a breakpoint: a mark for each 64 bytes of code.  What is 32 MiB apart is
   laid elsewhere, so that kernel and modules do not meet.  A block never leaves its page. */
static inline void note_executed(uint8_t *executed, uint64_t pc, uint32_t size)
{
    uint64_t granule = pc >> GRANULE_SHIFT;
    uint8_t *mark = executed + ((granule ^ granule >> 19 << 16) & GRANULES_MASK);
    uint32_t further = ((uint32_t)pc % (1 << GRANULE_SHIFT) + size - 1) >> GRANULE_SHIFT;

    mark[0] = 1;
    mark[further] = 1;
    if (__builtin_expect(further > 1, 0))
        while (--further)
            mark[further] = 1;
}

/* UC_HOOK_BLOCK: a block of `size` bytes is about to run; about 2 ns */
EXPORT void timevm_block(void *unicorn, uint64_t pc, uint32_t size, struct aarch64 *cpu)
{
    struct engine *engine = &cpu->engine;
    int64_t count = size >> WORD;

    (void)unicorn;
    if (__builtin_expect(engine->budget < count, 0))
        slow_block(cpu, pc, count);
    engine->budget -= count;
    engine->block_end = pc + size;
    if (cpu->executed)
        note_executed(cpu->executed, pc, size);
}

/* UC_HOOK_CODE on one address: a breakpoint */
EXPORT void timevm_breakpoint(void *unicorn, uint64_t pc, uint32_t size, struct aarch64 *cpu)
{
    (void)unicorn;
    (void)size;
    meet_stop(&cpu->engine, STOP_BREAKPOINT, pc, pc, 0, WORD);
}

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

/* UC_HOOK_MEM_READ, _WRITE while somebody watches.  Unicorn tells the physical address: a watched page is looked up in
   the guest's tables of this moment, but only if the place in the page fits. */
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

EXPORT void timevm_access(void *unicorn, int type, uint64_t physical, int size, int64_t value, struct aarch64 *cpu)
{
    int64_t icount = icount_at(&cpu->engine, *cpu->engine.pc, WORD);
    int is_write = type == 17; /* UC_MEM_WRITE */

    (void)unicorn, (void)value;
    look_at_access(cpu, physical, (uint32_t)size, is_write, icount);
    if (is_write && !cpu->engine.collect)
        note_store(cpu, physical, (uint32_t)size, icount);
}

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
static void set_mmu(struct aarch64 *cpu, int on)
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

/* ---- system registers ---- */

#define SYSTEM_REGISTER(op0, op1, crn, crm, op2) \
    ((uint32_t)(op0) << 14 | (uint32_t)(op1) << 11 | (uint32_t)(crn) << 7 | (uint32_t)(crm) << 3 | (uint32_t)(op2))

enum {
    ID_AA64PFR0_EL1 = SYSTEM_REGISTER(3, 0, 0, 4, 0),
    ID_AA64DFR0_EL1 = SYSTEM_REGISTER(3, 0, 0, 5, 0),
    ID_AA64ISAR0_EL1 = SYSTEM_REGISTER(3, 0, 0, 6, 0),
    SCTLR_EL1 = SYSTEM_REGISTER(3, 0, 1, 0, 0),
    CNTKCTL_EL1 = SYSTEM_REGISTER(3, 0, 14, 1, 0),
    RNDR = SYSTEM_REGISTER(3, 3, 2, 4, 0),
    RNDRRS = SYSTEM_REGISTER(3, 3, 2, 4, 1),
    PMCCNTR_EL0 = SYSTEM_REGISTER(3, 3, 9, 13, 0),
    CNTPCT_EL0 = SYSTEM_REGISTER(3, 3, 14, 0, 1),
    CNTVCT_EL0 = SYSTEM_REGISTER(3, 3, 14, 0, 2),
    CNTP_TVAL_EL0 = SYSTEM_REGISTER(3, 3, 14, 2, 0),
    CNTP_CTL_EL0 = SYSTEM_REGISTER(3, 3, 14, 2, 1),
    CNTP_CVAL_EL0 = SYSTEM_REGISTER(3, 3, 14, 2, 2),
    CNTV_TVAL_EL0 = SYSTEM_REGISTER(3, 3, 14, 3, 0),
    CNTV_CTL_EL0 = SYSTEM_REGISTER(3, 3, 14, 3, 1),
    CNTV_CVAL_EL0 = SYSTEM_REGISTER(3, 3, 14, 3, 2)
};

static uint32_t register_key(const struct coprocessor_register *reg)
{
    return SYSTEM_REGISTER(reg->op0, reg->op1, reg->crn, reg->crm, reg->op2);
}

/* Unicorn numbers x0..x28 from 199, x29 and x30 are 1 and 2: take the number from the instruction instead */
static uint32_t transfer_register(const struct aarch64 *cpu, uint32_t name)
{
    (void)cpu;
    return name == 1 ? 29 : name == 2 ? 30 : name >= 199 && name <= 227 ? name - 199 : 31;
}

static int at_el0(const struct aarch64 *cpu)
{
    return (*cpu->pstate & 0xc) == 0;
}

/* may the timer register be used here?  If not Unicorn's own check raises the exception. */
static int timer_allowed(const struct aarch64 *cpu, uint32_t key)
{
    unsigned bit;

    if (!at_el0(cpu))
        return 1;
    switch (key) {
    case CNTPCT_EL0: bit = 0; break;
    case CNTVCT_EL0: bit = 1; break;
    case CNTV_TVAL_EL0: case CNTV_CTL_EL0: case CNTV_CVAL_EL0: bit = 8; break;
    default: bit = 9; break;
    }
    return cpu->counter_access >> bit & 1;
}

static int is_performance_monitor(const struct coprocessor_register *reg)
{
    return reg->op0 == 3 && reg->op1 == 3 &&
           ((reg->crn == 9 && reg->crm >= 12 && reg->crm <= 14) || (reg->crn == 14 && reg->crm >= 8));
}

/* splitmix64: a value for each moment of a recording */
static uint64_t random_at(uint64_t seed, int64_t icount)
{
    uint64_t z = seed + (uint64_t)icount * 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* UC_ARM64_INS_MRS; 1: done here.  Every MRS comes by (2 M in a Linux boot, about 3 ns each). */
EXPORT uint32_t timevm_system_read(void *unicorn, uint32_t name, const struct coprocessor_register *reg,
                                   struct aarch64 *cpu)
{
    struct engine *engine = &cpu->engine;
    uint32_t key, target;
    const struct generic_timer *timer;
    uint64_t value;
    int64_t icount;

    (void)unicorn;
    if (reg->crn != 14 && reg->crn != 0 && reg->crn != 9 && reg->crn != 2)
        return 0;
    key = register_key(reg);
    icount = icount_at(engine, *engine->pc, WORD);
    timer = &cpu->timer[reg->crm == 2];
    switch (key) {
    case ID_AA64PFR0_EL1: case ID_AA64DFR0_EL1: case ID_AA64ISAR0_EL1:
        if (at_el0(cpu))
            return 0;
        value = key == ID_AA64PFR0_EL1   ? cpu->features_processor
                : key == ID_AA64DFR0_EL1 ? cpu->features_debug
                                         : cpu->features_isa;
        break;
    case CNTPCT_EL0: case CNTVCT_EL0:
        value = counter_at(cpu, icount);
        break;
    case CNTP_TVAL_EL0: case CNTV_TVAL_EL0:
        value = (uint32_t)(timer->compare - counter_at(cpu, icount));
        break;
    case CNTP_CTL_EL0: case CNTV_CTL_EL0:
        value = timer->control | (condition_met(cpu, timer, icount) ? TIMER_STATUS : 0);
        break;
    case CNTP_CVAL_EL0: case CNTV_CVAL_EL0:
        value = timer->compare;
        break;
    case RNDR: case RNDRRS:
        value = random_at(cpu->seed, icount);
        *cpu->carry = *cpu->overflow = *cpu->negative = 0;
        *cpu->zero = 1;
        break;
    default:
        if (!is_performance_monitor(reg) || at_el0(cpu))
            return 0;
        value = key == PMCCNTR_EL0 ? (uint64_t)icount : 0;
        break;
    }
    if (reg->crn == 14 && !is_performance_monitor(reg) && !timer_allowed(cpu, key))
        return 0;
    target = transfer_register(cpu, name);
    if (target < 31)
        cpu->x[target] = value;
    return 1;
}

/* UC_ARM64_INS_MSR; 1: done here, the block ends behind it */
EXPORT uint32_t timevm_system_write(void *unicorn, uint32_t name, const struct coprocessor_register *reg,
                                    struct aarch64 *cpu)
{
    struct engine *engine = &cpu->engine;
    uint32_t key;
    struct generic_timer *timer;
    int64_t icount;

    (void)unicorn;
    (void)name;
    if (reg->crn == 1 || reg->crn == 2) /* SCTLR_EL1; TTBR0_EL1, TTBR1_EL1, TCR_EL1 */
        touch_mapping(cpu);
    if (reg->crn != 14 && reg->crn != 9 && reg->crn != 1)
        return 0;
    if (is_performance_monitor(reg))
        return !at_el0(cpu); /* no counter runs: writes are ignored */
    key = register_key(reg);
    timer = &cpu->timer[reg->crm == 2];
    icount = icount_at(engine, *engine->pc, WORD);
    switch (key) {
    case SCTLR_EL1:
        if (!at_el0(cpu)) /* Unicorn's own write flushes the TLB */
            set_mmu(cpu, reg->value & 1);
        return 0;
    case CNTKCTL_EL1:
        if (!at_el0(cpu))
            cpu->counter_access = reg->value;
        return 0;
    case CNTP_TVAL_EL0: case CNTV_TVAL_EL0:
        if (!timer_allowed(cpu, key))
            return 0;
        timer->compare = counter_at(cpu, icount) + (uint64_t)(int64_t)(int32_t)reg->value;
        break;
    case CNTP_CTL_EL0: case CNTV_CTL_EL0:
        if (!timer_allowed(cpu, key))
            return 0;
        timer->control = reg->value & (TIMER_ENABLE | TIMER_MASK);
        break;
    case CNTP_CVAL_EL0: case CNTV_CVAL_EL0:
        if (!timer_allowed(cpu, key))
            return 0;
        timer->compare = reg->value;
        break;
    default:
        return 0;
    }
    engine->deadline = 0; /* have the lines looked at before the next instruction */
    look_soon(engine);
    return 1;
}

#define CACHE_LINE 64

/* UC_ARM64_INS_SYS: instruction cache maintenance drops translations, for Unicorn does not see code that is written
   through another mapping (Linux patches its text so).  0: Unicorn goes on with the instruction. */
EXPORT uint32_t timevm_system_instruction(void *unicorn, uint32_t name, const struct coprocessor_register *reg,
                                          struct aarch64 *cpu)
{
    struct engine *engine = &cpu->engine;
    uint64_t attributes[4] = {0}, address;

    (void)name;
    if (reg->crn == 8) /* TLBI */
        touch_mapping(cpu);
    if (reg->crn != 7)
        return 0;
    if (engine->watch_count && reg->op1 == 3 && reg->crm == 4 && reg->op2 == 1) { /* DC ZVA clears a line */
        look_at_watches(cpu, reg->value & ~(uint64_t)(CACHE_LINE - 1), CACHE_LINE, 1);
        address = engine->call.translate(engine->cpu_state, reg->value & ~(uint64_t)4095, attributes);
        for (uint32_t i = 0; i < engine->watch_count; i++)
            if ((engine->watches[i].kind & WATCH_PHYSICAL) && address != ~(uint64_t)0)
                look_at_physical(cpu, &engine->watches[i], address | (reg->value & 4095 & ~(uint64_t)(CACHE_LINE - 1)),
                                 CACHE_LINE, icount_at(engine, *engine->pc, WORD));
    }
    if (reg->op1 == 3 && reg->crm == 5 && reg->op2 == 1) { /* IC IVAU */
        address = engine->call.translate(engine->cpu_state, reg->value & ~(uint64_t)4095, attributes);
        if (address == ~(uint64_t)0)
            return 0;
        address += reg->value & 4095 & ~(uint64_t)(CACHE_LINE - 1);
        if (address >= cpu->ram_base && address + CACHE_LINE <= cpu->ram_end) {
            address += cpu->ram_offset - cpu->ram_base;
            engine->call.invalidate_range(unicorn, address, address + CACHE_LINE);
        }
    } else if (reg->op1 == 0 && (reg->crm == 5 || reg->crm == 1) && reg->op2 == 0) { /* IC IALLU, IALLUIS */
        engine->translations_stale = 1;
        look_soon(engine);
    }
    return 0;
}

/* ---- translation ---- */

/* Unicorn's tcg_gen_callN, which emits the call of a helper, and its helper that looks for a stop before each block */
typedef void generate_call(void *context, void *helper, void *result, int count, void **arguments);

static generate_call *original_generate_call;
static void *block_check;
/* whose code is being translated on this thread */
static _Thread_local struct aarch64 *running;

/* In place of tcg_gen_callN: the check at the start of each block is left out.  Whatever ends a run here leaves the block
   by itself (stop_here, an exception, WFI), and the block hook sees kicks; the check costs 7 % of a Linux boot. */
EXPORT void timevm_generate_call(void *context, void *helper, void *result, int count, void **arguments)
{
    if (helper == block_check && running && !running->block_checks)
        return;
    original_generate_call(context, helper, result, count, arguments);
}

/* for Python, once in a process */
EXPORT void timevm_leave_out_block_checks(generate_call *original, void *check)
{
    original_generate_call = original;
    block_check = check;
}

/* for Python: emulate until something stops it; Unicorn's error code */
EXPORT int timevm_run(struct aarch64 *cpu)
{
    struct aarch64 *outer = running;
    int error;

    running = cpu;
    error = cpu->emu_start(cpu->engine.unicorn, *cpu->engine.pc, 0, 0, 0);
    running = outer;
    return error;
}

/* ---- layout, checked by Python ---- */

EXPORT void timevm_aarch64_layout(uint64_t sizes[3])
{
    sizes[0] = sizeof(struct window);
    sizes[1] = sizeof(struct engine);
    sizes[2] = sizeof(struct aarch64);
}
