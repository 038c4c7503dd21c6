/* RISC-V 64: where blocks end, traps and interrupts, counters, devices, translated code.

   Unicorn's own functions are met at three kinds of places: its public hooks (block, exception, unmapped memory), its
   exported functions, and a few slots of its linkage table and of its table of control registers into which Python has
   written functions of ours (riscv64_interposed.py). */
#ifndef TIMEVM_RISCV64_H
#define TIMEVM_RISCV64_H

#include "common.h"

#include <stddef.h>

/* ---- Unicorn's structures as far as they are used; riscv64_private.py proves them at start-up ---- */

/* TranslationBlock: one piece of translated code */
struct translation_block {
    uint64_t pc;
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

#define BLOCK_LIMIT 0x7fffu /* in cflags: it was to have at most so many instructions */

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

/* riscv_csr_operations: what an access to a control register does; < 0: illegal instruction */
struct register_calls {
    int (*allowed)(void *env, int number);
    int (*read)(void *env, int number, uint64_t *value);
    int (*write)(void *env, int number, uint64_t value);
    int (*modify)(void *env, int number, uint64_t *old, uint64_t value, uint64_t mask);
};

struct riscv64_calls {
    int (*emu_start)(void *unicorn, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    uint64_t (*code_page)(void *env, uint64_t address, void **host); /* RAM offset of code */
    void (*watch_writes)(void *cpu_state, uint64_t host, uint64_t length); /* tlb_reset_dirty */
    void (*flush_tlb)(void *cpu_state);
};

/* ---- the CPU ---- */

#define PAGE ((uint64_t)4096)
#define PAGE_MASK (~(PAGE - 1))
#define NOWHERE (~(uint64_t)0)

#define MAX_RAM_RANGES 4

struct ram_range {
    uint64_t base, end;
    uint64_t offset; /* what Unicorn calls its first byte */
    uint8_t *host;
};

/* one page of RAM that holds translated code */
struct code_page {
    uint32_t writes; /* stores to it that took the slow path */
    uint16_t has_code;
    uint16_t patience; /* log4 of how many of them make its translations be dropped */
};

enum { MODE_USER = 0, MODE_SUPERVISOR = 1, MODE_MACHINE = 3 };

struct riscv64 {
    struct engine engine;
    struct riscv64_calls call;
    void *env;
    /* fields of Unicorn's CPU state */
    uint64_t *x; /* x0..x31 */
    uint64_t *bad_address;
    uint64_t *mode;
    uint64_t *status, *pending, *enabled, *delegated; /* mstatus, mip, mie, mideleg */
    uint64_t *translation;                            /* satp */
    uint64_t *counters_supervisor, *counters_user;    /* mcounteren, scounteren */
    int32_t *error;                                   /* of the engine: left behind by EBREAK */

    struct hook_record *block_hook;
    struct translation_block *block; /* paid for last; NULL: nothing of it is left to run */
    int64_t in_access;               /* instructions paid for that a device access under way is still to do */
    int64_t fetch_failed_at;         /* the icount at which a kick found that nothing could be fetched */
    int64_t warp_ns;
    uint32_t time_shift; /* virtual ns = (icount << time_shift) + warp_ns */
    uint32_t has_firmware; /* ECALL in S-mode is for Python; there is an stimecmp */
    uint64_t timer_compare; /* stimecmp */
    uint32_t timer_is_ours; /* the guest has written it since it last asked its firmware for a timer */
    uint32_t timer_line;    /* the firmware's timer interrupt, as the board drives it */
    uint32_t store_meets_code;
    uint32_t tlb_stale;
    uint32_t longest_block; /* blocks have so many instructions at most, by limits at run time; 0: as many as come */
    uint32_t breakpoint_count;
    const uint64_t *breakpoints; /* ascending */
    uint64_t unaligned_store;    /* its address, between the two calls that Unicorn makes for it; 0: none */

    struct translator_calls translator; /* Unicorn's own, but for `instruction` */
    void (*translate_instruction)(struct translating *translation, void *cpu_state);
    const uint8_t *code; /* host address of the page that is being translated */

    struct code_page *code_pages; /* by RAM offset */
    uint64_t code_page_count;
    struct ram_range ram[MAX_RAM_RANGES];
    uint32_t ram_count;
    uint32_t block_checks; /* leave in Unicorn's check for a stop at the start of each block */
    uint8_t *executed; /* marks of the code that ran (timevm/engine/cpu/code_trace.py); NULL: nobody asks */
};

/* what stood in the slots before */
struct originals {
    void (*translate)(const struct translator_calls *calls, struct translating *translation, void *cpu_state,
                      struct translation_block *block, int limit);
    void (*watch_by_address)(void *cpu_state, uint64_t address, uint64_t length);
    void (*store_to_watched)(void *unicorn, void *pages, uint64_t offset, int size, uintptr_t host_pc);
    void (*stop_watching)(void *cpu_state, uint64_t address);
    void (*fill)(void *cpu_state, uint64_t address, uint64_t physical, int protection, int mode, uint64_t size);
    int (*is_data_watched)(void *cpu_state, uint64_t address, uint64_t length);
    void (*watched_access)(void *cpu_state, uint64_t address, uint64_t length, uint32_t attributes, int kind,
                           uintptr_t host_pc);
    uint32_t (*update_pending)(void *cpu_state, uint32_t mask, uint32_t value);
    void (*generate_call)(void *context, void *helper, void *result, int count, void **arguments);
    void *block_check; /* the helper that looks for a stop before each block */
    struct register_calls counter, time, enabled, supervisor_enabled, translation, timer_compare, inhibited;
};

extern struct originals original;

/* the CPU that this thread runs */
extern _Thread_local struct riscv64 *running __attribute__((tls_model("initial-exec")));

static inline int is_running(const void *cpu_state)
{
    return running && running->engine.cpu_state == cpu_state;
}

unsigned place_in_block(const struct translation_block *block, uint64_t address);
int has_breakpoint(const struct riscv64 *cpu, uint64_t address);
int take_interrupt(struct riscv64 *cpu);
void evaluate_timer(struct riscv64 *cpu, int64_t icount);
uint8_t *host_of(const struct riscv64 *cpu, uint64_t physical, uint64_t size);
void timevm_riscv64_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block);
void timevm_riscv64_marked_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block);

/* interrupts that are pending and enabled; they may still be masked as a whole */
static inline uint64_t active_interrupts(const struct riscv64 *cpu)
{
    return *cpu->pending & *cpu->enabled;
}

/* the block that runs ends before its instruction number `place`: give back what was paid for the rest */
static inline void leave_block_at(struct riscv64 *cpu, unsigned place)
{
    cpu->engine.budget += cpu->block->icount - (int64_t)place;
    cpu->block = 0;
}

/* run `instructions` at most before the next block start; 0: as many as come.  Does not return. */
_Noreturn static inline void start_block(struct riscv64 *cpu, uint32_t instructions)
{
    cpu->block = 0;
    restart_block(&cpu->engine, instructions);
}

#endif
