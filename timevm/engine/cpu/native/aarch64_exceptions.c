/* Exceptions and interrupts: counting what was done before them, and their entry.

   Unicorn raises exceptions but enters none; its own entry is exported and called here. */
#include "aarch64.h"

/* Unicorn's exception numbers (QEMU's EXCP_*) */
enum { UNDEFINED = 1, SUPERVISOR_CALL = 2, PREFETCH_ABORT = 3, DATA_ABORT = 4, IRQ = 5, FIQ = 6, BREAK = 7,
       HYPERVISOR_CALL = 11, SECURE_MONITOR_CALL = 13 };

enum { LINE_IRQ = 1, LINE_FIQ = 2 };

#define DAIF_F (1u << 6)
#define DAIF_I (1u << 7)

static void enter_exception(struct aarch64 *cpu, int number)
{
    *cpu->engine.exception_index = number;
    cpu->engine.call.take_exception(cpu->engine.cpu_state);
    *cpu->engine.exception_index = -1;
}

static void enter_undefined(struct aarch64 *cpu)
{
    *cpu->syndrome = 1u << 25; /* EC 0, IL */
    *cpu->target_level = 1;
    enter_exception(cpu, UNDEFINED);
}

/* a physical address that nothing answers: synchronous external abort (Arm ARM D17.2.37), FAR not valid */
void enter_external_abort(struct aarch64 *cpu, int is_fetch, int is_write)
{
    uint32_t class = (is_fetch ? 0x20u : 0x24u) | ((*cpu->pstate & 0xc) != 0);

    *cpu->syndrome = class << 26 | 1u << 25 | 1u << 10 | (is_write ? 1u << 6 : 0) | 0x10;
    *cpu->fault_address = 0;
    *cpu->target_level = 1;
    enter_exception(cpu, is_fetch ? PREFETCH_ABORT : DATA_ABORT);
}

/* for Python: an instruction was to be fetched from nowhere; the CPU stands at it */
EXPORT void timevm_fetch_abort(struct aarch64 *cpu)
{
    enter_external_abort(cpu, 1, 0);
    cpu->engine.block_end = *cpu->engine.pc;
}

/* for Python: this HVC or SMC is not known; the CPU stands behind it */
EXPORT void timevm_undefined(struct aarch64 *cpu)
{
    *cpu->engine.pc -= 1 << WORD;
    enter_undefined(cpu);
    cpu->engine.block_end = *cpu->engine.pc;
}

/* an interrupt that is active and not masked is taken; 1 if there was one */
int take_interrupt(struct aarch64 *cpu)
{
    uint32_t lines = cpu->engine.lines;
    int number;

    if ((lines & LINE_FIQ) && !(*cpu->daif & DAIF_F))
        number = FIQ;
    else if ((lines & LINE_IRQ) && !(*cpu->daif & DAIF_I))
        number = IRQ;
    else
        return 0;
    *cpu->target_level = 1;
    enter_exception(cpu, number);
    return 1;
}

/* UC_HOOK_INTR: an instruction raised a synchronous exception.  It counts once for each attempt; a fetch does not. */
EXPORT void timevm_exception(void *unicorn, uint32_t number, struct aarch64 *cpu)
{
    struct engine *engine = &cpu->engine;

    (void)unicorn;
    switch (number) {
    case SUPERVISOR_CALL:
        end_block_at(engine, *engine->pc, WORD);
        break;
    case HYPERVISOR_CALL:
    case SECURE_MONITOR_CALL:
        end_block_at(engine, *engine->pc, WORD);
        engine->stop = STOP_FIRMWARE_CALL;
        engine->call.emu_stop(engine->unicorn);
        return;
    case PREFETCH_ABORT:
        break;
    default:
        end_block_at(engine, *engine->pc + (1 << WORD), WORD);
        break;
    }
    if (*cpu->target_level != 1) { /* what would go to EL2 or EL3, which this machine does not have */
        *cpu->target_level = 1;
        if (number == UNDEFINED)
            *cpu->syndrome = 1u << 25;
    }
    enter_exception(cpu, (int)number);
    engine->block_end = *engine->pc;
}
