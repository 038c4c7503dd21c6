/* System registers, the generic timers among them, and cache maintenance: what Unicorn has not or does its own way. */
#include "aarch64.h"

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
void evaluate_timers(struct aarch64 *cpu, int64_t icount)
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
    if (reg->crn == 2 && reg->crm == 0 && reg->op2 < 2 && reg->op1 == 0)
        change_root(cpu, reg->op2, reg->value);
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
    if (engine->watch_count && reg->op1 == 3 && reg->crm == 4 && reg->op2 == 1) /* DC ZVA clears a line */
        look_at_cleared(cpu, reg->value & ~(uint64_t)(CACHE_LINE - 1), CACHE_LINE);
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
