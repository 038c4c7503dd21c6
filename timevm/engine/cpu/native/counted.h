/* What x86-64 and RISC-V share: blocks that are counted by what Unicorn's translator says of them, and translated code
   that follows the guest's stores whatever they come through.

   Functions are given `struct counted`, with which the architecture's own structure begins.  What they need of the
   architecture are the functions at the end. */
#ifndef TIMEVM_COUNTED_H
#define TIMEVM_COUNTED_H

#include "inlined.h"

#include <stddef.h>

/* ---- Unicorn's structures as far as they are used; x86_64_private.py and riscv64_private.py prove them ---- */

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

/* ---- the CPU ---- */

#define PROTECTION_WRITE 2

struct counted {
    struct engine engine;
    void *env;
    int (*emu_start)(void *unicorn, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    uint64_t (*code_page)(void *env, uint64_t address, void **host);                   /* RAM offset of code */

    struct hook_record *block_hook;
    struct translation_block *block; /* paid for last; NULL: nothing of it is left to run */
    int64_t in_access;               /* instructions paid for that a device access under way is still to do */
    int64_t warp_ns;
    uint32_t time_shift; /* virtual ns = (icount << time_shift) + warp_ns */
    uint32_t limit_requested; /* the next limited block is ours */
    uint32_t store_is_watched; /* the page that is written stays slow */
    uint32_t is_prepared;      /* prepare_store was called for the store that is under way */
    uint32_t longest_block; /* blocks have so many instructions at most, by limits at run time; 0: as many as come */
    uint32_t breakpoint_count;
    const uint64_t *breakpoints; /* linear addresses, ascending */
    uint64_t unaligned_store;    /* its address, between the two calls that Unicorn makes for it; 0: none */

    struct translator_calls translator; /* Unicorn's own, but for `instruction` */
    void (*translate_instruction)(struct translating *translation, void *cpu_state);
    const uint8_t *code; /* host address of the page that is being translated */

    uint32_t padding;
    uint32_t block_checks; /* leave in Unicorn's check for a stop at the start of each block */
    struct code_trace *trace; /* of the code that runs; NULL: nobody asks */
};

/* what stood in the slots of Unicorn's linkage table before */
struct counted_originals {
    void (*watch_by_address)(void *cpu_state, uint64_t address, uint64_t length);
    void (*store_to_watched)(void *unicorn, void *pages, uint64_t offset, int size, uintptr_t host_pc);
    void (*stop_watching)(void *cpu_state, uint64_t address);
    void (*flush_tlb)(void *cpu_state);
};

extern struct counted_originals replaced;

/* the CPU that this thread runs */
extern _Thread_local struct counted *running __attribute__((tls_model("initial-exec")));

static inline int is_running(const void *cpu_state)
{
    return running && running->engine.cpu_state == cpu_state;
}

/* ---- counted_blocks.c ---- */

void timevm_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block);
int run_counted(struct counted *cpu);
void begin_block(struct counted *cpu, struct translation_block *block);
int64_t next_number(const uint8_t **at);
unsigned place_in_block(const struct translation_block *block, uint64_t address);
int has_breakpoint(const struct counted *cpu, uint64_t address);
void begin_translation(struct counted *cpu, const struct translator_calls *calls, const struct translation_block *block,
                       void (*instruction)(struct translating *translation, void *cpu_state));
void isolate_access(struct counted *cpu);

/* the block that runs ends before its instruction number `place`: give back what was paid for the rest */
static inline void leave_block_at(struct counted *cpu, unsigned place)
{
    cpu->engine.budget += cpu->block->icount - (int64_t)place;
    cpu->block = 0;
}

/* run `instructions` at most before the next block start; 0: as many as come.  Does not return. */
_Noreturn static inline void start_block(struct counted *cpu, uint32_t instructions)
{
    cpu->block = 0;
    cpu->is_prepared = 0;
    cpu->limit_requested = instructions != 0;
    restart_block(&cpu->engine, instructions);
}

/* ---- counted_stores.c ---- */

void watch_page(struct counted *cpu, uint64_t offset, const void *host);
void entry_filled(void *cpu_state, uint64_t address, uint64_t physical, int protection);
void run_alone(struct counted *cpu, uintptr_t host_pc);
void prepare_store(struct counted *cpu, uint64_t offset, int size, uintptr_t host_pc);

/* ---- counted_tables.c ---- */

void change_entries(struct counted *cpu, uint64_t offset, int size, uintptr_t host_pc);

/* ---- counted_watched.c ---- */

enum { ACCESS_READ = 1, ACCESS_WRITE = 2 }; /* QEMU's BP_MEM_*, and bits of struct watch's kind */

const struct watch *watch_at(const struct engine *engine, uint64_t address, uint64_t length, uint64_t *begin);
int is_announcement(struct counted *cpu, uint64_t *address, uint64_t *length);

/* ---- what an architecture does its own way ---- */

/* the rare side of the block hook, at a block start with `count` instructions to come */
void slow_block(struct counted *cpu, int64_t count);
/* numbers in the table behind translated code that follow an instruction's address */
extern const unsigned numbers_behind_address;
/* instruction number `place` of `block` will begin again: have what it changed already as it was */
void make_restartable(struct counted *cpu, const struct translation_block *block, unsigned place);
/* a store into the block that runs: leave it before that instruction, which is then done alone */
void leave_own_block(struct counted *cpu, uint64_t offset, int size, uintptr_t host_pc);

#endif
