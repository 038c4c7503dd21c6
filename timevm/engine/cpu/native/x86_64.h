/* x86-64: where blocks end, exceptions and interrupts, SYSCALL, port and memory-mapped devices, translated code.

   Unicorn's own functions are met at three kinds of places: its public hooks (block, exception, IN/OUT, RDTSC, ...), its
   exported functions, and a few slots of its linkage table into which Python has written functions of
   x86_64_translation.c (timevm/engine/cpu/linkage.py says how and why). */
#ifndef TIMEVM_X86_64_H
#define TIMEVM_X86_64_H

#include "counted.h"

#define BLOCK_CLOBBERS (1u << 20)    /* ours, in bits of cflags that Unicorn leaves alone: see CLOBBERS below */
#define BLOCK_SHOWS (1u << 21)       /* ours too: see SHOWS */
#define MODE_32 (1u << 4)            /* in flags */
#define MODE_64 (1u << 15)

struct segment {
    uint32_t selector;
    uint64_t base;
    uint32_t limit, flags;
};

enum segment_name { SEGMENT_ES, SEGMENT_CS, SEGMENT_SS, SEGMENT_DS, SEGMENT_FS, SEGMENT_GS };

struct x86_64_calls {
    void (*take_interrupt)(void *env, int vector, int is_hardware);
    uint32_t (*compute_flags)(void *env, int operation); /* C, P, A, Z, S, O */
    void (*update_hidden_flags)(void *env);
    void (*raise_exception)(void *env, int number, int error_code); /* does not return */
    uint32_t (*code_byte)(void *env, uint64_t address);
    void (*check_port[3])(void *env, uint32_t port); /* 1, 2, 4 bytes: #GP unless the task may use the port */
};

/* ---- the CPU ---- */

#define NO_WINDOW 0xff
#define PORTS 65536

#define MAX_STORED 64 /* stores of one instruction: FXSAVE, PUSHA, 16 bytes in halves */

/* a store near something watched that has happened */
struct noted_store {
    uint8_t *host;
    uint64_t before;
    uint64_t size;
    uintptr_t host_pc;
};

struct x86_64 {
    struct counted common;
    struct x86_64_calls call;
    /* fields of Unicorn's CPU state */
    uint64_t *regs; /* rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8..r15 */
    uint64_t *eflags, *cc_source;
    uint64_t *lazy_flags; /* the three operands that flags are computed from, cc_source among them */
    uint32_t *cc_operation;
    int32_t *direction; /* 1 or -1 */
    uint32_t *hidden_flags, *hidden_flags2;
    struct segment *segments;
    uint64_t *control; /* cr0..cr4, cr8 */
    int32_t *a20; /* mask of physical addresses */
    uint64_t *efer, *star, *lstar, *cstar, *fmask;
    uint32_t *sysenter_cs;
    uint64_t *sysenter_sp, *sysenter_ip;
    uint64_t *tsc_aux;
    int32_t *is_software_interrupt;
    uint64_t *after_software_interrupt;
    int32_t *exception_in_flight;
    uint64_t *debug;         /* dr0..dr7 */
    uint64_t *access_return; /* where in translated code the last page walk came from; 0: from an instruction fetch */

    struct noted_store stored[MAX_STORED];
    uint64_t stored_count;
    int64_t stored_in;      /* the icount that was paid for when they happened: names the block's run */
    uint64_t kept_flags[3]; /* lazy_flags and cc_operation at the start of a block that CLOBBERS */
    uint32_t kept_operation;
    uint32_t bytes_left;    /* of a store that is done byte by byte */
    uint64_t next_byte;     /* where it goes on */
    uintptr_t bytes_from;   /* the place in translated code that it comes from */
    uint32_t delivering;    /* an exception or interrupt is being delivered */

    uint32_t nmi, nmi_line;
    uint32_t data_breaks; /* debug registers whose data was accessed by the instruction that runs */
    uint64_t interrupts;  /* statistics */

    int64_t (*acknowledge)(void); /* into Python: the vector of the interrupt that is taken; negative: none */
    uint16_t port_base[64]; /* by window */
    uint8_t ports[PORTS];   /* window of each port */
};

/* what stood in the slots before */
struct originals {
    struct counted_originals common;
    void (*translate)(const struct translator_calls *calls, struct translating *translation, void *cpu_state,
                      struct translation_block *block, int limit);
    void (*fill)(void *cpu_state, uint64_t address, uint64_t physical, uint32_t attributes, int protection, int mode,
                 uint64_t size);
    void (*store_byte)(void *env, uint64_t address, uint8_t value, uint32_t operation, uintptr_t host_pc);
    int (*new_data_break)(void *cpu_state, uint64_t address, uint64_t length, int kind, void **record);
    int (*is_data_watched)(void *cpu_state, uint64_t address, uint64_t length);
    void (*watched_access)(void *cpu_state, uint64_t address, uint64_t length, uint32_t attributes, int kind,
                           uintptr_t host_pc);
};

extern struct originals original;

/* the CPU that this thread runs; its code is ours */
static inline struct x86_64 *running_cpu(void)
{
    return (struct x86_64 *)running;
}

enum { LINE_INTR = 1 };

/* how an instruction may stand in a block */
enum instruction_kind {
    PLAIN = 0,
    FIRST = 1,    /* only as the first of its block */
    LAST = 2,     /* only as the last */
    CLOBBERS = 4, /* changes Unicorn's lazy flags before the store that may fault */
    SHOWS = 8,    /* stores MXCSR */
};

_Noreturn void take_data_breaks(struct x86_64 *cpu);
void keep_flags(struct x86_64 *cpu);
void show_exceptions(void *env);
void repair_flags(struct x86_64 *cpu, const struct translation_block *block, unsigned place);
int take_interrupt(struct x86_64 *cpu);
void note_tables(struct x86_64 *cpu, uint64_t address);
void check_port(struct x86_64 *cpu, uint32_t port, int size);
_Noreturn void undefined_here(struct x86_64 *cpu);
void timevm_x86_marked_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block);

static inline int64_t icount_now(const struct x86_64 *cpu)
{
    return cpu->common.engine.horizon - cpu->common.engine.budget - cpu->common.in_access;
}

#endif
