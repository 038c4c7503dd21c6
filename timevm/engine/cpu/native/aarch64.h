/* AArch64: exception entry, generic timers, system registers, cache maintenance, device access. */
#ifndef TIMEVM_AARCH64_H
#define TIMEVM_AARCH64_H

#include "inlined.h"

#include <stddef.h>

#define WORD 2 /* an instruction is 1 << WORD bytes */

/* one EL1 generic timer (Arm ARM D11): [0] virtual, [1] physical */
struct generic_timer {
    uint64_t compare;
    uint32_t control; /* bit 0 ENABLE, bit 1 IMASK */
    uint32_t level;   /* the line as last reported to Python */
};

#define MAX_WATCHED_PAGES 64
#define WATCH_REACH 63 /* bytes before a watched one where an instruction that accesses it may begin to */
#define MAX_WALKED 8 /* four levels */
#define MAX_STORED 64 /* of one instruction: ST4 of bytes */

struct stored {
    uint8_t *place;
    uint64_t size;
    uint8_t before[16];
};

struct aarch64 {
    struct engine engine;
    /* fields of Unicorn's CPU state */
    uint64_t *x; /* x0..x30 */
    uint32_t *pstate;
    uint64_t *daif;
    uint32_t *carry, *overflow, *negative, *zero; /* flags as Unicorn keeps them: V and N in bit 31, Z when 0 */
    uint32_t *syndrome;
    uint64_t *fault_address;
    uint32_t *target_level;

    struct generic_timer timer[2];
    uint64_t counter_access; /* CNTKCTL_EL1 as last written */
    uint64_t seed;           /* RNDR */
    int64_t warp_ns;
    uint32_t time_shift; /* virtual ns = (icount << time_shift) + warp_ns */
    uint32_t mmu_is_off;   /* addresses are translated by timevm_flat_translation */
    uint32_t translation_request; /* uc_ctl's number for UC_CTL_TLB_TYPE; 0: leave translation to Unicorn always */
    uint32_t padding;
    uint8_t *pages; /* one for each page of RAM: PAGE_WRITTEN, PAGE_EXECUTED while the MMU was off */
    uint64_t ram_base, ram_end, ram_offset; /* guest physical range; offset: what Unicorn calls its first byte */
    uint64_t features_processor;            /* ID_AA64PFR0_EL1 as the guest sees it */
    uint64_t features_debug;                /* ID_AA64DFR0_EL1 */
    uint64_t features_isa;                  /* ID_AA64ISAR0_EL1 */

    void (*timer_line)(uint32_t timer, uint32_t level); /* into Python */

    int (*emu_start)(void *unicorn, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    uint32_t block_checks; /* leave in Unicorn's check for a stop at the start of each block */
    uint32_t padding2;

    struct code_trace *trace; /* of the code that runs; NULL: nobody asks */

    /* where the watched pages are, so long as the memory hooks cover no more than these; 0: they cover everything */
    uint32_t watched_pages;
    uint32_t mapping_touched; /* what may have moved them was done: look at the next block */
    uint64_t watched_page[MAX_WATCHED_PAGES], watched_place[MAX_WATCHED_PAGES]; /* virtual, physical (-1: nowhere) */

    uint8_t *ram_host; /* the guest's RAM in this process */
    /* what the instruction under way has stored into looked-at pages, to be taken back should it be stopped half-way */
    int64_t stored_at; /* its icount */
    uint64_t stored_count;
    struct stored stored[MAX_STORED];

    /* page tables (aarch64_tables.c) */
    uint64_t walked[MAX_WALKED]; /* physical addresses of the entries that were read since a walk began */
    uint64_t roots[2]; /* by half of the address space: the page where walks began since the TLB was empty; 0: none did */
    uint32_t walked_count;
    uint32_t modes_filled;     /* of which Unicorn's TLB may have entries, one bit each */
    uint32_t store_is_watched; /* the page that is written stays slow */
    uint32_t padding3;
};

/* the CPU that this thread runs */
extern _Thread_local struct aarch64 *running __attribute__((tls_model("initial-exec")));

/* None of these is called for each block or access: what is, stands in the file of its hook. */

/* an interrupt that is active and not masked is taken; 1 if there was one */
int take_interrupt(struct aarch64 *cpu);
/* a physical address that nothing answers */
void enter_external_abort(struct aarch64 *cpu, int is_fetch, int is_write);
/* drive the timers' lines as virtual time at `icount` wants them */
void evaluate_timers(struct aarch64 *cpu, int64_t icount);
/* the guest switches its MMU on or off */
void set_mmu(struct aarch64 *cpu, int on);
/* page tables, or which of them count, are about to change */
void touch_mapping(struct aarch64 *cpu);
/* TTBR0_EL1 or TTBR1_EL1 is about to be written, in an instruction that ends its block */
void change_root(struct aarch64 *cpu, unsigned half, uint64_t value);
/* the hooks of watchpoints do not cover any longer what they should */
int timevm_watched_pages_moved(struct aarch64 *cpu);
/* bytes of one page are about to be cleared by an instruction that no hook sees: are they watched? */
void look_at_cleared(struct aarch64 *cpu, uint64_t address, uint64_t size);

#endif
