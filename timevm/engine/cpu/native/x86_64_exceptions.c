/* Exceptions, interrupts and fast system calls: counting what was done before them, and their delivery.

   Unicorn raises exceptions but delivers none; its own delivery (privilege changes, stacks, double and triple faults)
   is exported and called here.  A fault while one is being delivered leaves these functions by a long jump and comes
   back through `timevm_x86_exception`, with `delivering` still set. */
#include "x86_64.h"

#define LONGEST 15

/* vectors (Intel SDM 3A, 6.3.1) */
enum { DEBUG = 1, NMI = 2, UNDEFINED_OPCODE = 6, STACK_FAULT = 12, GENERAL_PROTECTION = 13, PAGE_FAULT = 14,
       ALIGNMENT_CHECK = 17 };

/* RFLAGS */
#define FLAGS_CONDITION 0x8d5u /* O, S, Z, A, P, C */
#define FLAG_FIXED 0x2u
#define FLAG_TRAP (1u << 8)
#define FLAG_INTERRUPT (1u << 9)
#define FLAG_DIRECTION (1u << 10)
#define FLAG_PRIVILEGE_SHIFT 12 /* IOPL */
#define FLAG_RESUME (1u << 16)
#define FLAG_VIRTUAL_8086 (1u << 17)

/* Unicorn's lazy flags: cc_source holds them all */
#define OPERATION_ALL 1u

/* hidden_flags, hidden_flags2 */
#define HIDDEN_PRIVILEGE 3u
#define HIDDEN_SHADOW (1u << 3) /* the instruction behind STI or MOV SS */
#define HIDDEN_LONG_MODE (1u << 14)
#define HIDDEN_CODE_64 (1u << 15)
#define HIDDEN2_INTERRUPTS_ON (1u << 0) /* SVM's global interrupt flag */
#define HIDDEN2_NMI_MASKED (1u << 2)

/* segment attributes as in the upper half of a descriptor (SDM 3A, 3.4.5) */
#define ATTRIBUTES_CODE (1u << 23 | 1u << 15 | 1u << 12 | 1u << 11 | 1u << 9 | 1u << 8) /* 4 GiB, present, readable */
#define ATTRIBUTES_DATA (1u << 23 | 1u << 22 | 1u << 15 | 1u << 12 | 1u << 9 | 1u << 8)
#define ATTRIBUTE_32 (1u << 22)
#define ATTRIBUTE_64 (1u << 21)

#define EFER_SYSCALL 1u
#define CR0_PROTECTED 1u

/* ---- where in a block ---- */

const unsigned numbers_behind_address = 2; /* what Unicorn knew of the flags; where its translation ends */

/* number and address of the last instruction that begins before `address` */
static unsigned last_before(const struct translation_block *block, uint64_t address, uint64_t *begins)
{
    const uint8_t *at = block->code + block->code_size;
    uint64_t pc = block->pc;
    unsigned found = 0;

    *begins = block->pc;
    for (unsigned place = 0; place < block->icount; place++) {
        pc += (uint64_t)next_number(&at);
        next_number(&at);
        next_number(&at);
        if (pc >= address)
            break;
        found = place;
        *begins = pc;
    }
    return found;
}

/* SETcc, RCL and RCR on memory change the flags' lazy form before they store.  When the store does not come about (a
   fault, a store into its own block) Unicorn goes back to what it knew of the flags, but their operands are gone.  These
   instructions are always the first of their block, where all that makes up the flags can be kept. */
void keep_flags(struct x86_64 *cpu)
{
    for (unsigned i = 0; i < 3; i++)
        cpu->kept_flags[i] = cpu->lazy_flags[i];
    cpu->kept_operation = *cpu->cc_operation;
}

void repair_flags(struct x86_64 *cpu, const struct translation_block *block, unsigned place)
{
    if (place || !(block->cflags & BLOCK_CLOBBERS))
        return;
    for (unsigned i = 0; i < 3; i++)
        cpu->lazy_flags[i] = cpu->kept_flags[i];
    *cpu->cc_operation = cpu->kept_operation;
}

/* ---- delivery ---- */

static uint64_t linear_pc(const struct x86_64 *cpu)
{
    return cpu->segments[SEGMENT_CS].base + *cpu->common.engine.pc;
}

static void deliver(struct x86_64 *cpu, int number)
{
    *cpu->common.engine.exception_index = number;
    cpu->delivering = 1;
    cpu->common.engine.call.take_exception(cpu->common.engine.cpu_state);
    cpu->delivering = 0;
    *cpu->common.engine.exception_index = -1;
}

/* was the exception raised before an instruction began?  Only a fetch can: of its first byte or across a page. */
static int is_fetch_fault(const struct x86_64 *cpu, uint32_t number, uint64_t pc)
{
    if (number == PAGE_FAULT)
        return *cpu->access_return == 0 &&
               (cpu->control[2] == pc || cpu->control[2] == ((pc + LONGEST - 1) & PAGE_MASK));
    return number == GENERAL_PROTECTION && (*cpu->hidden_flags & HIDDEN_CODE_64) && (int64_t)pc >> 47 != 0 &&
           (int64_t)pc >> 47 != -1;
}

/* give back what was paid for the rest of the block; the instruction counts once for each attempt */
static void count_exception(struct x86_64 *cpu, uint32_t number)
{
    const struct translation_block *block = cpu->common.block;
    uint64_t pc = linear_pc(cpu), begins;
    unsigned place;

    if (*cpu->is_software_interrupt) { /* INT n, INT3, INTO: Unicorn has moved pc behind it */
        place = last_before(block, block->cs_base + *cpu->after_software_interrupt, &begins);
        *cpu->common.engine.pc = begins - block->cs_base;
    } else {
        if (is_fetch_fault(cpu, number, pc))
            return;
        place = place_in_block(block, pc);
        if (number == STACK_FAULT || number == GENERAL_PROTECTION || number == PAGE_FAULT || number == ALIGNMENT_CHECK)
            repair_flags(cpu, block, place);
    }
    if (place < block->icount)
        leave_block_at(&cpu->common, place + 1);
}

/* UC_HOOK_INTR */
EXPORT void timevm_x86_exception(void *unicorn, uint32_t number, struct x86_64 *cpu)
{
    (void)unicorn;
    cpu->common.limit_requested = cpu->common.is_prepared = 0;
    cpu->data_breaks = 0; /* an instruction that faults has not accessed its data */
    if (cpu->common.block && !cpu->delivering)
        count_exception(cpu, number);
    cpu->common.block = 0;
    deliver(cpu, (int)number);
}

/* UC_HOOK_INSN_INVALID: Unicorn takes #UD for its own; 1: go on */
EXPORT int timevm_x86_undefined(void *unicorn, struct x86_64 *cpu)
{
    timevm_x86_exception(unicorn, UNDEFINED_OPCODE, cpu);
    return 1;
}

/* The instruction before has accessed data that debug registers watch: a trap behind it (Intel SDM 3B, 17.2). */
_Noreturn void take_data_breaks(struct x86_64 *cpu)
{
    cpu->debug[6] = (cpu->debug[6] & ~(uint64_t)15) | cpu->data_breaks;
    cpu->data_breaks = 0;
    cpu->common.block = 0;
    cpu->call.raise_exception(cpu->common.env, DEBUG, 0);
    __builtin_unreachable();
}

/* The next instruction cannot even be translated: #UD.  Like all faults of a fetch it does not count. */
_Noreturn void undefined_here(struct x86_64 *cpu)
{
    cpu->common.block = 0;
    cpu->call.raise_exception(cpu->common.env, UNDEFINED_OPCODE, 0);
    __builtin_unreachable();
}

/* UC_HOOK_MEM_FETCH_PROT: an instruction was to be fetched from a device or from nowhere.  There a PC's bus reads ones,
   which are no instruction.  Does not return. */
EXPORT int timevm_x86_fetch_from_device(void *unicorn, int type, uint64_t address, int size, int64_t value,
                                        struct x86_64 *cpu)
{
    (void)unicorn, (void)type, (void)address, (void)size, (void)value;
    undefined_here(cpu);
}

/* an interrupt that is active and not masked is taken; 1 if there was one */
int take_interrupt(struct x86_64 *cpu)
{
    int64_t vector;

    if (!(*cpu->hidden_flags2 & HIDDEN2_INTERRUPTS_ON))
        return 0;
    if (cpu->nmi && !(*cpu->hidden_flags2 & HIDDEN2_NMI_MASKED)) {
        cpu->nmi = 0;
        *cpu->hidden_flags2 |= HIDDEN2_NMI_MASKED;
        vector = NMI;
    } else if ((cpu->common.engine.lines & LINE_INTR) && (*cpu->eflags & FLAG_INTERRUPT) &&
               !(*cpu->hidden_flags & HIDDEN_SHADOW)) {
        vector = cpu->acknowledge();
        if (vector < 0)
            return 0;
    } else {
        return 0;
    }
    cpu->common.block = 0;
    cpu->interrupts++;
    cpu->delivering = 1;
    cpu->call.take_interrupt(cpu->common.env, (int)vector, 1);
    cpu->delivering = 0;
    return 1;
}

/* May the program use the port (Intel SDM 1, 19.5)?  Unicorn lets everybody.  Does not return if not. */
void check_port(struct x86_64 *cpu, uint32_t port, int size)
{
    uint64_t flags = *cpu->eflags;

    if ((cpu->control[0] & CR0_PROTECTED) &&
        ((*cpu->hidden_flags & HIDDEN_PRIVILEGE) > (flags >> FLAG_PRIVILEGE_SHIFT & 3) || (flags & FLAG_VIRTUAL_8086)))
        cpu->call.check_port[size == 4 ? 2 : size - 1](cpu->common.env, port);
}

/* ---- SYSCALL, SYSENTER ---- */

static uint64_t all_flags(struct x86_64 *cpu)
{
    uint32_t condition = cpu->call.compute_flags(cpu->common.env, (int)*cpu->cc_operation);

    return (*cpu->eflags & ~(uint64_t)(FLAGS_CONDITION | FLAG_DIRECTION)) | condition |
           (*cpu->direction < 0 ? FLAG_DIRECTION : 0) | FLAG_FIXED;
}

static void set_flags(struct x86_64 *cpu, uint64_t flags)
{
    *cpu->cc_source = flags & FLAGS_CONDITION;
    *cpu->cc_operation = OPERATION_ALL;
    *cpu->direction = flags & FLAG_DIRECTION ? -1 : 1;
    *cpu->eflags = (flags & ~(uint64_t)(FLAGS_CONDITION | FLAG_DIRECTION)) | FLAG_FIXED;
}

static void load_segment(struct x86_64 *cpu, enum segment_name name, uint32_t selector, uint32_t attributes)
{
    cpu->segments[name] = (struct segment){selector, 0, 0xffffffff, attributes};
}

/* the instruction behind this one; it is the last of its block */
static uint64_t next_pc(const struct x86_64 *cpu)
{
    const struct translation_block *block = cpu->common.block;

    return block->pc + block->size - block->cs_base;
}

/* Unicorn will add the instruction's length to pc */
static void go_to(struct x86_64 *cpu, uint64_t target, uint64_t next)
{
    *cpu->common.engine.pc = target - (next - *cpu->common.engine.pc);
    cpu->call.update_hidden_flags(cpu->common.env);
}

/* UC_X86_INS_SYSCALL (Intel SDM 2B; AMD APM 3 for legacy mode) */
EXPORT void timevm_x86_syscall(void *unicorn, struct x86_64 *cpu)
{
    uint64_t next = next_pc(cpu), flags = all_flags(cpu), target;
    uint32_t selector = (uint32_t)(*cpu->star >> 32) & 0xfffc;

    (void)unicorn;
    if (!(*cpu->efer & EFER_SYSCALL))
        cpu->call.raise_exception(cpu->common.env, UNDEFINED_OPCODE, 0);
    if (*cpu->hidden_flags & HIDDEN_LONG_MODE) {
        cpu->regs[1] = next;
        cpu->regs[11] = flags & ~(uint64_t)FLAG_RESUME;
        target = *cpu->hidden_flags & HIDDEN_CODE_64 ? *cpu->lstar : *cpu->cstar;
        set_flags(cpu, flags & ~(*cpu->fmask | FLAG_RESUME));
        load_segment(cpu, SEGMENT_CS, selector, ATTRIBUTES_CODE | ATTRIBUTE_64);
    } else {
        cpu->regs[1] = (uint32_t)next;
        target = (uint32_t)*cpu->star;
        set_flags(cpu, flags & ~(uint64_t)(FLAG_INTERRUPT | FLAG_RESUME | FLAG_VIRTUAL_8086));
        load_segment(cpu, SEGMENT_CS, selector, ATTRIBUTES_CODE | ATTRIBUTE_32);
    }
    load_segment(cpu, SEGMENT_SS, selector + 8, ATTRIBUTES_DATA);
    go_to(cpu, target, next);
}

/* UC_X86_INS_SYSENTER */
EXPORT void timevm_x86_sysenter(void *unicorn, struct x86_64 *cpu)
{
    uint64_t next = next_pc(cpu);
    uint32_t selector = *cpu->sysenter_cs & 0xfffc;
    int is_long = (*cpu->hidden_flags & HIDDEN_LONG_MODE) != 0;

    (void)unicorn;
    if (!selector)
        cpu->call.raise_exception(cpu->common.env, GENERAL_PROTECTION, 0);
    *cpu->eflags &= ~(uint64_t)(FLAG_VIRTUAL_8086 | FLAG_INTERRUPT | FLAG_RESUME);
    load_segment(cpu, SEGMENT_CS, selector, ATTRIBUTES_CODE | (is_long ? ATTRIBUTE_64 : ATTRIBUTE_32));
    load_segment(cpu, SEGMENT_SS, selector + 8, ATTRIBUTES_DATA);
    cpu->regs[4] = is_long ? *cpu->sysenter_sp : (uint32_t)*cpu->sysenter_sp;
    go_to(cpu, is_long ? *cpu->sysenter_ip : (uint32_t)*cpu->sysenter_ip, next);
}

void make_restartable(struct counted *cpu, const struct translation_block *block, unsigned place)
{
    repair_flags((struct x86_64 *)cpu, block, place);
}
