/* Traps, interrupts and counters: counting what was done before them, and their delivery (Privileged specification,
   "priv").

   Unicorn raises exceptions but delivers none; its own delivery is exported and called here.  It never sees a pending
   interrupt: mip is changed by functions of ours only, and the block hook takes interrupts. */
#include "riscv64.h"

/* causes (priv 3.1.15); Unicorn raises all ECALLs as the one of U-mode */
enum { FETCH_ACCESS = 1, BREAKPOINT = 3, LOAD_MISALIGNED = 4, LOAD_ACCESS = 5, STORE_ACCESS = 7, CALL = 8,
       FETCH_PAGE = 12, LOAD_PAGE = 13 };
/* a load's cause and the store's of the same kind */
#define AS_STORE 2
#define INTERRUPT 0x80000000u /* Unicorn's mark of an interrupt's number */

/* the order in which interrupts are taken (priv 3.1.9): external, software, timer, those of M-mode first */
static const uint8_t by_priority[] = {11, 3, 7, 9, 1, 5};

#define STATUS_SIE (1u << 1)
#define STATUS_MIE (1u << 3)

#define NS_PER_TICK 100 /* 10 MHz, as QEMU's virt */
#define NEVER (((int64_t)1 << 62) - 1)
#define SUPERVISOR_TIMER (1u << 5) /* in mip */
#define TIME_COUNTER (1u << 1)     /* in mcounteren */

/* ---- where in a block ---- */

const unsigned numbers_behind_address = 1; /* where its translation ends */

/* nothing is changed before the access that may stop an instruction */
void make_restartable(struct counted *cpu, const struct translation_block *block, unsigned place)
{
    (void)cpu, (void)block, (void)place;
}

/* ---- what an instruction accesses ---- */

/* its bits, by the tables of this moment; 0 if they are nowhere */
static uint32_t instruction_at(const struct riscv64 *cpu, uint64_t pc)
{
    uint64_t attributes[4] = {0};
    uint32_t bits = 0;

    for (unsigned half = 0; half < 2; half++) {
        uint64_t at = pc + 2 * half;
        uint64_t page = cpu->common.engine.call.translate(cpu->common.engine.cpu_state, at & PAGE_MASK, attributes);
        const uint8_t *host = page == NOWHERE ? 0 : host_of(&cpu->common.engine, page | (at & (PAGE - 1)), 2);

        if (!host)
            return 0;
        bits |= (uint32_t)(host[0] | host[1] << 8) << 16 * half;
        if ((bits & 3) != 3)
            break;
    }
    return bits;
}

static uint32_t field(uint32_t bits, unsigned low, unsigned count)
{
    return bits >> low & ((1u << count) - 1);
}

/* AMO or SC: Unicorn begins them with a load, whose faults are to be those of a store (Unprivileged spec. 8) */
static int is_atomic_store(uint32_t bits)
{
    return field(bits, 0, 7) == 0x2f && field(bits, 27, 5) != 2 /* LR */;
}

/* The virtual address that a load or store accesses (Unprivileged spec. 27: formats I, S; 16: CL, CS, CI, CSS). */
static uint64_t address_of_access(const struct riscv64 *cpu, uint32_t bits)
{
    uint32_t words = field(bits, 6, 1) << 2 | field(bits, 10, 3) << 3 | field(bits, 5, 1) << 6;
    uint32_t doubles = field(bits, 10, 3) << 3 | field(bits, 5, 2) << 6;
    uint32_t kind = field(bits, 13, 3); /* 1: FLD, 2: LW, 3: LD, 5: FSD, 6: SW, 7: SD */
    int is_word = (kind & 3) == 2;

    if ((bits & 3) == 0)
        return cpu->x[8 + field(bits, 7, 3)] + (is_word ? words : doubles);
    if ((bits & 3) == 2) {
        if (kind >= 4)
            return cpu->x[2] + (is_word ? field(bits, 9, 4) << 2 | field(bits, 7, 2) << 6
                                        : field(bits, 10, 3) << 3 | field(bits, 7, 3) << 6);
        return cpu->x[2] + (is_word ? field(bits, 4, 3) << 2 | field(bits, 12, 1) << 5 | field(bits, 2, 2) << 6
                                    : field(bits, 5, 2) << 3 | field(bits, 12, 1) << 5 | field(bits, 2, 3) << 6);
    }
    switch (field(bits, 0, 7)) {
    case 0x03: case 0x07:
        return cpu->x[field(bits, 15, 5)] + (uint64_t)(int64_t)((int32_t)bits >> 20);
    case 0x23: case 0x27:
        return cpu->x[field(bits, 15, 5)] +
               (uint64_t)(int64_t)(((int32_t)bits >> 25) * 32 + (int32_t)field(bits, 7, 5));
    default:
        return cpu->x[field(bits, 15, 5)];
    }
}

/* ---- traps ---- */

static void deliver(struct riscv64 *cpu, uint32_t number)
{
    *cpu->common.engine.exception_index = (int32_t)number;
    cpu->common.engine.call.take_exception(cpu->common.engine.cpu_state);
    previous_mode_changed(cpu);
    *cpu->common.engine.exception_index = -1;
}

/* The instruction at pc raised an exception: it counts once for each attempt, a fetch does not. */
static void count_exception(struct riscv64 *cpu, uint32_t number)
{
    unsigned place;

    if (cpu->common.block && number != FETCH_ACCESS && number != FETCH_PAGE) {
        place = place_in_block(cpu->common.block, *cpu->common.engine.pc);
        if (place < cpu->common.block->icount)
            leave_block_at(&cpu->common, place + 1);
    }
    cpu->common.block = 0;
}

/* A kick is seen where blocks begin.  A guest whose trap handler cannot be fetched has none any longer. */
static void stop_if_nothing_runs(struct riscv64 *cpu)
{
    int64_t now = cpu->common.engine.horizon - cpu->common.engine.budget;

    if (now == cpu->fetch_failed_at) {
        cpu->common.engine.stop = STOP_KICK;
        cpu->common.engine.call.emu_stop(cpu->common.engine.unicorn);
    }
    cpu->fetch_failed_at = now;
}

/* UC_HOOK_INTR; Unicorn has added 4 to pc */
EXPORT void timevm_riscv64_exception(void *unicorn, uint32_t number, struct riscv64 *cpu)
{
    (void)unicorn;
    *cpu->common.engine.pc -= 4;
    count_exception(cpu, number);
    if (number == CALL && *cpu->mode == MODE_SUPERVISOR && cpu->has_firmware) {
        *cpu->common.engine.pc += 4;
        cpu->common.engine.stop = STOP_FIRMWARE_CALL;
        cpu->common.engine.call.emu_stop(cpu->common.engine.unicorn);
        return;
    }
    if ((number == LOAD_PAGE || number == LOAD_ACCESS || number == LOAD_MISALIGNED) &&
        is_atomic_store(instruction_at(cpu, *cpu->common.engine.pc)))
        number += AS_STORE;
    deliver(cpu, number);
    if (number == FETCH_PAGE && __atomic_load_n(&cpu->common.engine.kick, __ATOMIC_ACQUIRE))
        stop_if_nothing_runs(cpu);
}

/* UC_HOOK_INSN_INVALID: Unicorn takes EBREAK for its own, and for an error of the engine; 1: go on */
EXPORT int timevm_riscv64_break(void *unicorn, struct riscv64 *cpu)
{
    (void)unicorn;
    *cpu->error = 0;
    count_exception(cpu, BREAKPOINT);
    deliver(cpu, BREAKPOINT);
    return 1;
}

/* UC_HOOK_MEM_READ_UNMAPPED, _WRITE_UNMAPPED: nothing answers at this physical address.  Does not return. */
EXPORT int timevm_riscv64_unmapped(void *unicorn, int type, uint64_t address, int size, int64_t value,
                                   struct riscv64 *cpu)
{
    uint32_t bits = instruction_at(cpu, *cpu->common.engine.pc);
    int is_write = type == 20 /* UC_MEM_WRITE_UNMAPPED */ || is_atomic_store(bits);

    (void)unicorn, (void)address, (void)size, (void)value;
    *cpu->bad_address = address_of_access(cpu, bits);
    count_exception(cpu, LOAD_ACCESS);
    deliver(cpu, is_write ? STORE_ACCESS : LOAD_ACCESS);
    start_block(&cpu->common, 0);
}

/* for Python: an instruction was to be fetched from nowhere; the CPU stands at it */
EXPORT void timevm_riscv64_fetch_fault(struct riscv64 *cpu)
{
    *cpu->bad_address = *cpu->common.engine.pc;
    deliver(cpu, FETCH_ACCESS);
}

/* an interrupt that is active and not masked is taken; 1 if there was one */
int take_interrupt(struct riscv64 *cpu)
{
    uint64_t active = active_interrupts(cpu), mode = *cpu->mode, allowed = 0;

    if (mode < MODE_MACHINE || (*cpu->status & STATUS_MIE))
        allowed |= ~*cpu->delegated;
    if (mode < MODE_SUPERVISOR || (mode == MODE_SUPERVISOR && (*cpu->status & STATUS_SIE)))
        allowed |= *cpu->delegated;
    active &= allowed;
    /* those that go to M-mode come before those that go to S-mode, whatever they are */
    if (active & ~*cpu->delegated)
        active &= ~*cpu->delegated;
    for (unsigned i = 0; i < sizeof by_priority; i++)
        if (active >> by_priority[i] & 1) {
            cpu->common.block = 0;
            deliver(cpu, INTERRUPT | by_priority[i]);
            return 1;
        }
    return 0;
}

/* ---- time ---- */

static uint64_t time_at(const struct riscv64 *cpu, int64_t icount)
{
    return (((uint64_t)icount << cpu->common.time_shift) + (uint64_t)cpu->common.warp_ns) / NS_PER_TICK;
}

/* first icount >= now at which stimecmp is reached; NEVER if nobody uses it or it has been reached */
static int64_t timer_deadline(const struct riscv64 *cpu, int64_t icount)
{
    uint64_t ns, unit = (uint64_t)1 << cpu->common.time_shift;

    if (!cpu->timer_is_ours || cpu->timer_compare >= (uint64_t)NEVER / NS_PER_TICK ||
        time_at(cpu, icount) >= cpu->timer_compare)
        return NEVER;
    ns = cpu->timer_compare * NS_PER_TICK - (uint64_t)cpu->common.warp_ns; /* not reached yet: later than the warp */
    return (int64_t)((ns + unit - 1) >> cpu->common.time_shift);
}

/* drive the supervisor's timer interrupt as virtual time at `icount` wants it */
void evaluate_timer(struct riscv64 *cpu, int64_t icount)
{
    int level = cpu->timer_is_ours && time_at(cpu, icount) >= cpu->timer_compare;

    cpu->common.engine.deadline = timer_deadline(cpu, icount);
    if (cpu->timer_is_ours)
        *cpu->pending = (*cpu->pending & ~(uint64_t)SUPERVISOR_TIMER) | (level ? SUPERVISOR_TIMER : 0);
}

/* for Python: between runs */
EXPORT void timevm_riscv64_evaluate_timer(struct riscv64 *cpu, int64_t icount)
{
    evaluate_timer(cpu, icount);
}

EXPORT int64_t timevm_riscv64_next_timer_ns(const struct riscv64 *cpu, int64_t icount)
{
    return timer_deadline(cpu, icount) == NEVER ? -1 : (int64_t)(cpu->timer_compare * NS_PER_TICK);
}

/* in the place of riscv_cpu_update_mip, by which Unicorn's writes to mip and sip go */
EXPORT uint32_t timevm_riscv64_update_pending(void *cpu_state, uint32_t mask, uint32_t value)
{
    uint32_t old;

    if (!is_running(cpu_state))
        return original.update_pending(cpu_state, mask, value);
    old = (uint32_t)*running_cpu()->pending;
    *running_cpu()->pending = (old & ~mask) | (value & mask);
    look_soon(&running->engine);
    return old;
}

/* ---- control registers: in the place of Unicorn's functions ---- */

static int is_ours(const void *env)
{
    return running && running->env == env;
}

/* May the counter be read (priv 3.1.11)?  Unicorn lets everybody. */
EXPORT int timevm_riscv64_counter_allowed(void *env, int number)
{
    struct riscv64 *cpu = running_cpu();
    uint64_t bit = (uint64_t)1 << (number & 31);

    if (!is_ours(env) || *cpu->mode == MODE_MACHINE)
        return 0;
    if (!(*cpu->counters_supervisor & bit) || (*cpu->mode == MODE_USER && !(*cpu->counters_user & bit)))
        return -1;
    return 0;
}

/* icount before the instruction that reads a control register, which is always the last of its block */
static int64_t icount_before(const struct riscv64 *cpu)
{
    return cpu->common.engine.horizon - cpu->common.engine.budget - 1;
}

/* cycle, instret, mcycle, minstret: Unicorn's would be the host's time */
EXPORT int timevm_riscv64_read_counter(void *env, int number, uint64_t *value)
{
    if (!is_ours(env))
        return original.counter.read(env, number, value);
    *value = (uint64_t)icount_before(running_cpu());
    return 0;
}

/* mcountinhibit: no counter can be stopped.  Unicorn takes it for mcounteren. */
EXPORT int timevm_riscv64_read_inhibited(void *env, int number, uint64_t *value)
{
    if (!is_ours(env))
        return original.inhibited.read(env, number, value);
    *value = 0;
    return 0;
}

EXPORT int timevm_riscv64_write_inhibited(void *env, int number, uint64_t value)
{
    return is_ours(env) ? 0 : original.inhibited.write(env, number, value);
}

EXPORT int timevm_riscv64_read_time(void *env, int number, uint64_t *value)
{
    if (!is_ours(env))
        return original.time.read(env, number, value);
    *value = time_at(running_cpu(), icount_before(running_cpu()));
    return 0;
}

/* stimecmp, with which a supervisor needs no firmware for its timer (Sstc) */
EXPORT int timevm_riscv64_timer_compare_allowed(void *env, int number)
{
    (void)number;
    if (!is_ours(env) || !running_cpu()->has_firmware)
        return -1;
    return *running_cpu()->mode == MODE_MACHINE || (*running_cpu()->counters_supervisor & TIME_COUNTER) ? 0 : -1;
}

EXPORT int timevm_riscv64_read_timer_compare(void *env, int number, uint64_t *value)
{
    (void)env, (void)number;
    *value = running_cpu()->timer_compare;
    return 0;
}

EXPORT int timevm_riscv64_write_timer_compare(void *env, int number, uint64_t value)
{
    (void)env, (void)number;
    running_cpu()->timer_compare = value;
    running_cpu()->timer_is_ours = 1;
    running->engine.deadline = 0; /* have the line looked at before the next instruction */
    look_soon(&running->engine);
    return 0;
}

/* an interrupt that is pending already may be enabled now */
EXPORT int timevm_riscv64_write_enabled(void *env, int number, uint64_t value)
{
    if (is_ours(env))
        look_soon(&running->engine);
    return original.enabled.write(env, number, value);
}

/* Addresses are translated anew from the next instruction on (priv 4.1.11 asks for it where paging begins or ends);
   Unicorn would go on with what it knows unless the address space's number changes. */
EXPORT int timevm_riscv64_write_translation(void *env, int number, uint64_t value)
{
    int result;

    if (!is_ours(env))
        return original.translation.write(env, number, value);
    result = original.translation.write(env, number, value);
    empty_tlb(&running->engine);
    return result;
}

EXPORT int timevm_riscv64_write_supervisor_enabled(void *env, int number, uint64_t value)
{
    if (is_ours(env))
        look_soon(&running->engine);
    return original.supervisor_enabled.write(env, number, value);
}
