/* The little of Unicorn that the hooks see.  Callback shapes follow Unicorn's public header (unicorn.h, 2.1.4).

   Everything private is reached through addresses that Python has found, proved by provocation and written into
   struct engine: no offset into Unicorn's structures stands in this C code. */
#ifndef TIMEVM_UNICORN_API_H
#define TIMEVM_UNICORN_API_H

#include <stdint.h>

/* a coprocessor register as Unicorn hands it to an MRS/MSR/SYS hook (uc_arm64_cp_reg) */
struct coprocessor_register {
    uint32_t crn, crm, op0, op1, op2;
    uint64_t value;
};

/* what a UC_HOOK_TLB_FILL hook answers (uc_tlb_entry); permissions as UC_PROT_* */
struct translation {
    uint64_t physical;
    uint32_t permissions;
};

/* functions exported by the Unicorn library, resolved by Python */
struct unicorn_calls {
    int (*emu_stop)(void *unicorn);
    void (*leave_block)(void *cpu_state); /* cpu_loop_exit_noexc: back to the main loop, next block at env's pc */
    int (*restore_state)(void *cpu_state, uintptr_t host_pc, int will_exit); /* guest pc of a point in a block */
    void (*flush_translations)(void *cpu_state);
    void (*invalidate_range)(void *unicorn, uint64_t start, uint64_t end); /* by RAM offset */
    void (*take_exception)(void *cpu_state); /* arm_cpu_do_interrupt */
    void (*flush_tlb_page)(void *cpu_state, uint64_t address);
    int (*control)(void *unicorn, int request, ...); /* uc_ctl */
    uint64_t (*translate)(void *cpu_state, uint64_t address, void *attributes); /* no side effects; -1: unmapped */
};

#endif
