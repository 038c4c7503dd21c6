/* RISC-V 64: where blocks end, traps and interrupts, counters, devices, translated code.

   Unicorn's own functions are met at three kinds of places: its public hooks (block, exception, unmapped memory), its
   exported functions, and a few slots of its linkage table and of its table of control registers into which Python has
   written functions of ours (riscv64_interposed.py). */
#ifndef TIMEVM_RISCV64_H
#define TIMEVM_RISCV64_H

#include "counted.h"

/* riscv_csr_operations: what an access to a control register does; < 0: illegal instruction */
struct register_calls {
    int (*allowed)(void *env, int number);
    int (*read)(void *env, int number, uint64_t *value);
    int (*write)(void *env, int number, uint64_t value);
    int (*modify)(void *env, int number, uint64_t *old, uint64_t value, uint64_t mask);
};

/* ---- the CPU ---- */

#define STATUS_MPRV (1u << 17) /* M-mode's loads and stores are those of the mode that it came from */

enum { MODE_USER = 0, MODE_SUPERVISOR = 1, MODE_MACHINE = 3 };

struct riscv64 {
    struct counted common;
    /* fields of Unicorn's CPU state */
    uint64_t *x; /* x0..x31 */
    uint64_t *bad_address;
    uint64_t *mode;
    uint64_t *status, *pending, *enabled, *delegated; /* mstatus, mip, mie, mideleg */
    uint64_t *translation;                            /* satp */
    uint64_t *counters_supervisor, *counters_user;    /* mcounteren, scounteren */
    int32_t *error;                                   /* of the engine: left behind by EBREAK */

    int64_t fetch_failed_at; /* the icount at which a kick found that nothing could be fetched */
    uint32_t has_firmware; /* ECALL in S-mode is for Python; there is an stimecmp */
    uint64_t timer_compare; /* stimecmp */
    uint32_t timer_is_ours; /* the guest has written it since it last asked its firmware for a timer */
    uint32_t timer_line;    /* the firmware's timer interrupt, as the board drives it */
};

/* what stood in the slots before */
struct originals {
    struct counted_originals common;
    void (*translate)(const struct translator_calls *calls, struct translating *translation, void *cpu_state,
                      struct translation_block *block, int limit);
    void (*fill)(void *cpu_state, uint64_t address, uint64_t physical, int protection, int mode, uint64_t size);
    int (*is_data_watched)(void *cpu_state, uint64_t address, uint64_t length);
    void (*watched_access)(void *cpu_state, uint64_t address, uint64_t length, uint32_t attributes, int kind,
                           uintptr_t host_pc);
    uint32_t (*update_pending)(void *cpu_state, uint32_t mask, uint32_t value);
    struct register_calls counter, time, enabled, supervisor_enabled, translation, timer_compare, inhibited;
    struct register_calls protection, protected_address;
};

extern struct originals original;

/* the CPU that this thread runs; its code is ours */
static inline struct riscv64 *running_cpu(void)
{
    return (struct riscv64 *)running;
}

int take_interrupt(struct riscv64 *cpu);
void note_tables(struct riscv64 *cpu, uint64_t address);
void previous_mode_changed(struct riscv64 *cpu);
void evaluate_timer(struct riscv64 *cpu, int64_t icount);
void timevm_riscv64_marked_block(void *unicorn, uint64_t pc, uint32_t size, struct translation_block *block);

/* interrupts that are pending and enabled; they may still be masked as a whole */
static inline uint64_t active_interrupts(const struct riscv64 *cpu)
{
    return *cpu->pending & *cpu->enabled;
}

#endif
