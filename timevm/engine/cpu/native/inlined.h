/* The count of a block, written into its translation.

   Unicorn's translator emits the call of a block hook at the start of each block.  In its place stand the operations
   that the hook would do for nearly all blocks: pay for the instructions, note which block it is, mark its code.  The
   hook itself is called where the budget is used up, behind all that.

   The translator is reached through slots of Unicorn's linkage table: tcg_gen_callN, which emits calls of helpers, and
   tcg_gen_code, where the block is complete.  Its operations are emitted by its own functions; their numbers
   (QEMU's include/tcg/tcg-opc.h) are looked up by timevm/engine/cpu/generator.py. */
#ifndef TIMEVM_INLINED_H
#define TIMEVM_INLINED_H

#include "code_trace.h"
#include "common.h"

/* TranslationBlock: one piece of translated code; x86_64_private.py and riscv64_private.py prove it */
struct translation_block {
    uint64_t pc; /* linear: cs_base + eip on x86 */
    uint64_t cs_base; /* 0 elsewhere */
    uint32_t flags;
    uint16_t size, icount; /* guest bytes, instructions */
    uint32_t cflags;
    uint32_t trace;
    uint8_t *code; /* what it was translated to; behind it, where each instruction begins (sleb128) */
    uint64_t code_size;
    void *original, *next_in_page[2];
    uint64_t page[2]; /* RAM offsets of the pages it comes from */
};

/* TCGOp: one operation; `arguments` are variables (TCGTemp *) and constants */
struct operation {
    uint8_t number, parameters[7];
    void *next, **previous;
    uint64_t arguments[12];
};

/* Unicorn's functions that emit operations into the translation of `context` */
struct generator {
    void (*call)(void *context, void *helper, void *result, int count, void **arguments);
    int (*code)(void *context, struct translation_block *block); /* all operations to code of the host */
    struct operation *(*emit)(void *context, unsigned number);
    struct operation *(*emit_after)(void *context, struct operation *before, unsigned number);
    void *(*new_variable)(void *context, int type, int outlives_branches);
    void (*free_variable)(void *context, void *variable);
    void *(*new_label)(void *context);
    void (*branch)(void *context, int condition, uint64_t variable, int64_t constant, void *label);
    void *block_check; /* the helper that looks for a stop before each block */
};

extern struct generator generator;

/* Emit what counts a block and marks it in `trace` (unless that is NULL), in place of the call of `hook`.  `*budget` and
   `*block` are in one structure.  `hook(0, pc, size, user)` is called when `*budget` has become negative, with the block
   paid for and noted.  All of that costs about 1 ns a block. */
void inline_count(void *context, void *hook, uint64_t user, int64_t *budget, uint64_t *block, struct code_trace *trace);
/* the call of `hook`, which counts the block itself, with the mark behind it */
void inline_call(void *context, void *hook, void **arguments, struct code_trace *trace);
/* the block that was begun so costs `count` instructions and is noted in `*block` as `note` */
void complete_block(void *context, const struct translation_block *translated, uint64_t count, uint64_t note);

#endif
