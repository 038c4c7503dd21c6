/* x86-64: where blocks end, exceptions and interrupts, SYSCALL, port and memory-mapped devices, translated code.

   Unicorn's own functions are met at three kinds of places: its public hooks (block, exception, IN/OUT, RDTSC, ...), its
   exported functions, and a few slots of its linkage table into which Python has written functions of
   x86_64_translation.c (timevm/engine/cpu/linkage.py says how and why). */
#ifndef TIMEVM_X86_64_H
#define TIMEVM_X86_64_H

#include "common.h"

/* ---- Unicorn's structures as far as they are used; x86_64_private.py proves them at start-up ---- */

/* TranslationBlock: one piece of translated code */
struct translation_block {
    uint64_t pc; /* linear: cs_base + eip */
    uint64_t cs_base;
    uint32_t flags;
    uint16_t size, icount; /* guest bytes, instructions */
    uint32_t cflags;
    uint32_t trace;
    uint8_t *code; /* what it was translated to; behind it, where each instruction begins (sleb128) */
    uint64_t code_size;
    void *original, *next_in_page[2];
    uint64_t page[2]; /* RAM offsets of the pages it comes from */
};

#define BLOCK_LIMIT 0x7fffu          /* in cflags: it was to have at most so many instructions */
#define BLOCK_CLOBBERS (1u << 20)    /* ours, in bits of cflags that Unicorn leaves alone: see CLOBBERS below */
#define BLOCK_SHOWS (1u << 21)       /* ours too: see SHOWS */
#define MODE_32 (1u << 4)            /* in flags */
#define MODE_64 (1u << 15)

/* DisasContextBase: a translation under way */
struct translating {
    struct translation_block *block;
    uint64_t pc_first, pc_next;
    int32_t end; /* 0: goes on; 1: ends behind what has been translated; more: ended by itself */
    int32_t instructions, limit;
};

enum { GOES_ON = 0, ENDS_HERE = 1 };

/* TranslatorOps */
struct translator_calls {
    void *begin, *block_start, *instruction_start, *breakpoint_check;
    void (*instruction)(struct translating *translation, void *cpu_state);
    void *block_stop, *sync_pc;
};

/* struct hook, which a uc_hook handle points to; its last two fields are read whenever a block is translated */
struct hook_record {
    int32_t type, instruction, references, op, op_flags;
    uint8_t deleted;
    uint64_t begin, end;
    void *callback, *user;
};

struct segment {
    uint32_t selector;
    uint64_t base;
    uint32_t limit, flags;
};

enum segment_name { SEGMENT_ES, SEGMENT_CS, SEGMENT_SS, SEGMENT_DS, SEGMENT_FS, SEGMENT_GS };

struct x86_64_calls {
    int (*emu_start)(void *unicorn, uint64_t begin, uint64_t until, uint64_t timeout, uint64_t count);
    void (*take_interrupt)(void *env, int vector, int is_hardware);
    uint32_t (*compute_flags)(void *env, int operation); /* C, P, A, Z, S, O */
    void (*update_hidden_flags)(void *env);
    void (*raise_exception)(void *env, int number, int error_code); /* does not return */
    uint64_t (*code_page)(void *env, uint64_t address, void **host); /* RAM offset of code */
    void (*watch_writes)(void *cpu_state, uint64_t host, uint64_t length); /* tlb_reset_dirty */
    void (*flush_tlb)(void *cpu_state);
    uint32_t (*code_byte)(void *env, uint64_t address);
    void (*check_port[3])(void *env, uint32_t port); /* 1, 2, 4 bytes: #GP unless the task may use the port */
};

/* ---- the CPU ---- */

#define PAGE ((uint64_t)4096)
#define PAGE_MASK (~(PAGE - 1))

#define MAX_RAM_RANGES 8
#define NO_WINDOW 0xff
#define PORTS 65536

struct ram_range {
    uint64_t base, end;
    uint64_t offset; /* what Unicorn calls its first byte */
    uint8_t *host;
};

#define MAX_STORED 64 /* stores of one instruction: FXSAVE, PUSHA, 16 bytes in halves */

/* a store near something watched that has happened */
struct noted_store {
    uint8_t *host;
    uint64_t before;
    uint64_t size;
    uintptr_t host_pc;
};

/* one page of RAM that holds translated code */
struct code_page {
    uint32_t writes; /* stores to it that took the slow path */
    uint16_t has_code;
    uint16_t patience; /* log4 of how many of them make its translations be dropped */
};

struct x86_64 {
    struct engine engine;
    struct x86_64_calls call;
    void *env;
    /* fields of Unicorn's CPU state */
    uint64_t *regs; /* rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8..r15 */
    uint64_t *eflags, *cc_source;
    uint64_t *lazy_flags; /* the three operands that flags are computed from, cc_source among them */
    uint32_t *cc_operation;
    int32_t *direction; /* 1 or -1 */
    uint32_t *hidden_flags, *hidden_flags2;
    struct segment *segments;
    uint64_t *control; /* cr0..cr4, cr8 */
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
    int64_t stored_in;        /* the icount that was paid for when they happened: names the block's run */
    uint64_t unaligned_store; /* its address, between the two calls that Unicorn makes for it; 0: none */
    struct hook_record *block_hook;
    struct translation_block *block; /* paid for last; NULL: nothing of it is left to run */
    int64_t pending;                 /* instructions paid for that a device access under way is still to do */
    uint64_t kept_flags[3];          /* lazy_flags and cc_operation at the start of a block that CLOBBERS */
    uint32_t kept_operation;
    uint32_t padding;
    uint32_t delivering;             /* an exception or interrupt is being delivered */
    uint32_t limit_requested;        /* the next limited block is ours */
    int64_t warp_ns;
    uint32_t time_shift; /* virtual ns = (icount << time_shift) + warp_ns */
    uint32_t store_meets_code;
    uint32_t tlb_stale;
    uint32_t breakpoint_count;
    const uint64_t *breakpoints; /* linear addresses, ascending */

    struct translator_calls translator; /* Unicorn's own, but for `instruction` */
    void (*translate_instruction)(struct translating *translation, void *cpu_state);
    const uint8_t *code; /* host address of the page that is being translated */

    struct code_page *code_pages; /* by RAM offset */
    uint64_t code_page_count;
    struct ram_range ram[MAX_RAM_RANGES];
    uint32_t ram_count;
    uint32_t nmi, nmi_line;
    uint32_t data_breaks; /* debug registers whose data was accessed by the instruction that runs */
    uint32_t longest_block; /* blocks have so many instructions at most, by limits at run time; 0: as many as come */
    uint64_t interrupts;    /* statistics */

    int64_t (*acknowledge)(void); /* into Python: the vector of the interrupt that is taken; negative: none */
    uint8_t *executed; /* marks of the code that ran (timevm/engine/cpu/code_trace.py); NULL: nobody asks */
    uint16_t port_base[64]; /* by window */
    uint8_t ports[PORTS];   /* window of each port */
};

/* what stood in the slots before */
struct originals {
    void (*translate)(const struct translator_calls *calls, struct translating *translation, void *cpu_state,
                      struct translation_block *block, int limit);
    void (*watch_by_address)(void *cpu_state, uint64_t address, uint64_t length);
    void (*store_to_watched)(void *unicorn, void *pages, uint64_t offset, int size, uintptr_t host_pc);
    void (*stop_watching)(void *cpu_state, uint64_t address);
    void (*fill)(void *cpu_state, uint64_t address, uint64_t physical, uint32_t attributes, int protection, int mode,
                 uint64_t size);
    int (*new_data_break)(void *cpu_state, uint64_t address, uint64_t length, int kind, void **record);
    int (*is_data_watched)(void *cpu_state, uint64_t address, uint64_t length);
    void (*watched_access)(void *cpu_state, uint64_t address, uint64_t length, uint32_t attributes, int kind,
                           uintptr_t host_pc);
};

extern struct originals original;

/* the CPU that this thread runs */
extern _Thread_local struct x86_64 *running __attribute__((tls_model("initial-exec")));

static inline int is_running(const void *cpu_state)
{
    return running && running->engine.cpu_state == cpu_state;
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

void run_alone(struct x86_64 *cpu, uintptr_t host_pc);
unsigned place_in_block(const struct translation_block *block, uint64_t address);
_Noreturn void take_data_breaks(struct x86_64 *cpu);
void keep_flags(struct x86_64 *cpu);
void show_exceptions(void *env);
void repair_flags(struct x86_64 *cpu, const struct translation_block *block, unsigned place);
int has_breakpoint(const struct x86_64 *cpu, uint64_t address);
int take_interrupt(struct x86_64 *cpu);
void check_port(struct x86_64 *cpu, uint32_t port, int size);
_Noreturn void undefined_here(struct x86_64 *cpu);
void timevm_x86_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block);
void timevm_x86_marked_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block);

static inline int64_t icount_now(const struct x86_64 *cpu)
{
    return cpu->engine.horizon - cpu->engine.budget - cpu->pending;
}

/* the block that runs ends before its instruction number `place`: give back what was paid for the rest */
static inline void leave_block_at(struct x86_64 *cpu, unsigned place)
{
    cpu->engine.budget += cpu->block->icount - (int64_t)place;
    cpu->block = 0;
}

/* run `instructions` at most before the next block start; 0: as many as come.  Does not return. */
_Noreturn static inline void start_block(struct x86_64 *cpu, uint32_t instructions)
{
    cpu->block = 0;
    cpu->limit_requested = instructions != 0;
    restart_block(&cpu->engine, instructions);
}

#endif
