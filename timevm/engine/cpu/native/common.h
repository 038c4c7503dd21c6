/* Counting, stopping and device access: the part of the hooks that no architecture changes.

   Instructions are counted by block.  `budget` is what may still run before the slow path must look; `horizon` is the
   icount at which it would be used up, so at a block start   icount = horizon - budget.   A block is paid for when it
   begins; whoever looks in its middle subtracts what of it is still to come (block_end - pc).

   Invariance under slicing rests on three rules kept here and in the architecture's file:
   - a block that would cross a bound (limit, timer deadline) is split exactly there;
   - a device access is always the last instruction of its block (it is executed alone if need be), so what it raises
     is seen before the very next instruction;
   - interrupts are looked at where blocks begin, and everything that can unmask one ends its block. */
#ifndef TIMEVM_COMMON_H
#define TIMEVM_COMMON_H

#include "tables.h"
#include "unicorn_api.h"

#define EXPORT __attribute__((visibility("default")))

/* a kick from another thread is seen after at most this many instructions (about half a millisecond) */
#define CHUNK (1 << 18)

enum stop_reason {
    STOP_NONE = 0,
    STOP_LIMIT = 1,
    STOP_KICK = 2,
    STOP_BREAKPOINT = 3,
    STOP_WATCHPOINT = 4,
    STOP_FIRMWARE_CALL = 5, /* HVC or SMC: Python answers it */
    STOP_CALLBACK_FAILED = 6, /* a Python callback raised; Python holds the exception */
    STOP_SETTLED = 7 /* at settle_at: what is due has happened, the next instruction has not begun */
};

#define OUTPUT_BYTES 4096

/* one window of device registers; Python fills it in and keeps it alive */
struct window {
    struct engine *engine;
    uint32_t number;
    int32_t constant_offset; /* a read here returns constant_value and changes nothing; -1: none */
    uint64_t constant_value;
    int32_t output_offset; /* a write here only appends a byte to `output`; -1: none */
    uint32_t output_used;
    uint8_t output[OUTPUT_BYTES];
};

#define MAX_WATCHES 64
#define WATCH_PHYSICAL 4

/* a range of guest virtual addresses that somebody watches */
struct watch {
    uint64_t address, length;
    uint32_t kind; /* bit 0: reads, bit 1: writes, bit 2: the addresses are physical */
    uint32_t padding;
};

#define MAX_PASSED 256

/* a stop that was passed by while `collect` is set */
struct passed_stop {
    int64_t icount;
    uint64_t pc;
    uint64_t address;
    uint32_t is_write;
    uint32_t is_watchpoint;
};

struct engine {
    struct unicorn_calls call;
    void *unicorn, *cpu_state;
    /* fields of Unicorn's structures */
    uint64_t *pc;
    uint32_t *next_block_flags; /* the coming block's length limit, -1: none */
    int32_t *exception_index;
    uintptr_t *access_host_pc; /* where in the translated code a device access comes from */

    int64_t budget, horizon;
    int64_t limit;    /* stop exactly here */
    int64_t deadline; /* the CPU's own timers want to be looked at here */
    int64_t entered;  /* icount at which this run began: a kick is honoured only after that */
    uint64_t block_end;
    /* stops that have been reported already, by their icount; -1: none.  An interrupt may change pc at one icount */
    int64_t skip_breakpoint_at, skip_watchpoint_at;
    uint64_t skip_breakpoint_pc;
    int64_t settle_at; /* stop at this icount when interrupts have been taken, before an instruction; -1: do not */
    int32_t kick;          /* written by any thread */
    int32_t translations_stale;
    uint32_t stop; /* enum stop_reason */
    uint32_t lines; /* interrupt inputs that are active, one bit each */
    uint64_t stop_address;
    uint32_t stop_is_write;
    uint32_t collect; /* remember stops in `passed` instead of stopping */
    uint64_t passed_count; /* with those that were overwritten: the ring holds the last MAX_PASSED */
    struct passed_stop passed[MAX_PASSED];
    uint64_t slow_blocks; /* statistics: how often the slow path ran */

    /* into Python; each may set `stop` to STOP_CALLBACK_FAILED */
    uint64_t (*device_read)(uint32_t window, uint64_t offset, uint32_t size);
    void (*device_write)(uint32_t window, uint64_t offset, uint32_t size, uint64_t value);
    void (*drain_output)(uint32_t window);
    struct window *windows[64];
    uint32_t window_count;
    uint32_t watch_count;
    struct watch watches[MAX_WATCHES]; /* in order of address */
    struct memory memory;
};

static inline int is_table(const struct engine *engine, const struct ram_page *page)
{
    return page->table == engine->memory.flushes;
}

/* icount at `pc` inside the block that was paid for last; O(1) */
static inline int64_t icount_at(const struct engine *engine, uint64_t pc, unsigned shift)
{
    return engine->horizon - engine->budget - (int64_t)((engine->block_end - pc) >> shift);
}

/* the block ends at `pc` after all: give back what was paid for the rest */
static inline void end_block_at(struct engine *engine, uint64_t pc, unsigned shift)
{
    engine->budget += (int64_t)((engine->block_end - pc) >> shift);
    engine->block_end = pc;
}

/* make the next block start take the slow path; icount stays what it is */
static inline void look_soon(struct engine *engine)
{
    engine->horizon -= engine->budget;
    engine->budget = 0;
}

/* between two instructions: end the run.  Does not return. */
_Noreturn void stop_here(struct engine *engine, enum stop_reason reason);
/* back to the main loop with the next block limited to `instructions` (0: not limited).  Does not return. */
_Noreturn void restart_block(struct engine *engine, uint32_t instructions);
/* hand the collected serial output to Python */
void drain_windows(struct engine *engine);
/* a break- or watchpoint was met before the instruction at `pc`: remember it or stop */
void meet_stop(struct engine *engine, enum stop_reason reason, uint64_t pc, uint64_t address, uint32_t is_write,
               unsigned shift);

#endif
