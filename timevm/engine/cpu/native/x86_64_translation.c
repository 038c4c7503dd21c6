/* Where blocks end, and which stores drop which translations: functions that stand in slots of Unicorn's linkage table.

   Blocks.  Some instructions must be the first or the last of their block, so that nothing depends on where a run was
   stopped: see `kind_of`.  And no block reaches into a second page but by its only instruction: a fetch that faults is
   always that of the next instruction.

   Stores.  Unicorn looks at stores to a page only until the first one came through the same virtual address, whatever
   code is translated from it later or through another mapping.  Here a page of RAM has translated code or not, and
   every TLB entry that writes to it follows that: looked at while it has code, fast when it has not.  Pages that are
   written and executed stay exact and slow (about 40 ns a store); after 256, 1024, 4096, ... stores all translations of
   the page are dropped to make it fast again. */
#include "x86_64.h"

#define LONGEST 15 /* bytes of an instruction */
#define LOOKED_AT 20 /* bytes that kind_of may look at: prefixes, and a few behind them */

struct originals original;

EXPORT void timevm_x86_set_originals(const struct originals *given)
{
    original = *given;
    replaced = given->common;
}

/* ---- blocks ---- */

static int is_prefix(uint8_t byte, int is_64)
{
    switch (byte) {
    case 0x66: case 0x67: case 0xf0: case 0xf2: case 0xf3: case 0x2e: case 0x36: case 0x3e: case 0x26: case 0x64:
    case 0x65:
        return 1;
    default:
        return is_64 && (byte & 0xf0) == 0x40;
    }
}

/* an instruction of the map behind 0F; see kind_of */
static unsigned kind_of_two_bytes(const uint8_t *bytes)
{
    unsigned modrm = bytes[1], reg = modrm >> 3 & 7;

    switch (bytes[0]) {
    case 0x01:
        return modrm == 0xf9 ? LAST : PLAIN;
    case 0x30: case 0x31:
        return LAST;
    case 0xa3: case 0xab: case 0xb3: case 0xbb:
        return FIRST;
    case 0xae:
        return (reg == 0 || reg == 3) && modrm < 0xc0 ? FIRST | SHOWS : PLAIN;
    case 0xba:
        return reg >= 4 ? FIRST : PLAIN;
    case 0xc7:
        return reg == 1 && modrm < 0xc0 ? FIRST : PLAIN;
    case 0x90: case 0x91: case 0x94: case 0x95: case 0x96: case 0x97: case 0x98: case 0x99: case 0x9a: case 0x9b:
    case 0x9c: case 0x9d: case 0x9e: case 0x9f:
        return modrm < 0xc0 ? FIRST | CLOBBERS : PLAIN;
    case 0x92: case 0x93: /* carry alone is computed without a trace */
        return modrm < 0xc0 ? FIRST : PLAIN;
    default:
        return PLAIN;
    }
}

/* How the instruction in `bytes` (LOOKED_AT of them, zeros behind the end) may stand in a block (encodings: Intel SDM 2).

   FIRST, because Unicorn's translation of them depends on what it knows of the flags, which it forgets at a block start:
     BT, BTS, BTR, BTC     their undefined flags differ
     CMPXCHG8B/16B         reads flags that were not written back
     LOOPE, LOOPNE         leave flags that were not written back when the count ends them
     STMXCSR, FXSAVE       store exceptions that Unicorn keeps elsewhere (SHOWS, see show_exceptions)
     SETcc, RCL, RCR       on memory: compute flags before the store; CLOBBERS if that leaves no trace (see repair_flags)
   LAST, because they meet the world outside: IN, OUT, INS, OUTS, RDTSC, RDTSCP, or
   change how addresses are translated: WRMSR. */
static unsigned kind_of(const uint8_t *bytes, int is_64)
{
    unsigned at = 0, modrm, reg;

    while (at < LONGEST && is_prefix(bytes[at], is_64))
        at++;
    /* VEX: Unicorn takes it before any instruction of the map that it names (in 16 bits the bytes are LES and LDS, which
       are PLAIN, and the same bytes are not) */
    if (bytes[at] == 0xc5 && (is_64 || bytes[at + 1] >= 0xc0))
        return kind_of_two_bytes(bytes + at + 2);
    if (bytes[at] == 0xc4 && (is_64 || bytes[at + 1] >= 0xc0))
        return (bytes[at + 1] & 0x1f) == 1 ? kind_of_two_bytes(bytes + at + 3) : PLAIN;
    modrm = bytes[at + 1];
    reg = modrm >> 3 & 7;
    switch (bytes[at]) {
    case 0x6c: case 0x6d: case 0x6e: case 0x6f:
    case 0xe4: case 0xe5: case 0xe6: case 0xe7:
    case 0xec: case 0xed: case 0xee: case 0xef:
        return LAST;
    case 0xe0: case 0xe1:
        return FIRST;
    case 0xc0: case 0xc1: case 0xd0: case 0xd1: case 0xd2: case 0xd3:
        return modrm < 0xc0 && (reg == 2 || reg == 3) ? FIRST | CLOBBERS : PLAIN;
    case 0x0f:
        return kind_of_two_bytes(bytes + at + 1);
    default:
        return PLAIN;
    }
}

/* the instruction at `address`, whose `length` bytes (or the rest of whose page) can be fetched without a fault */
static unsigned kind_at(struct x86_64 *cpu, const struct translation_block *block, uint64_t address, unsigned length)
{
    int is_64 = (block->flags & MODE_64) != 0;
    uint64_t place = address & (PAGE - 1);
    uint8_t bytes[LOOKED_AT] = {0};

    if (cpu->common.code && place + LOOKED_AT <= PAGE && ((address ^ block->pc) & PAGE_MASK) == 0)
        return kind_of(cpu->common.code + place, is_64);
    for (unsigned i = 0; i < length && i < LONGEST; i++)
        bytes[i] = (uint8_t)cpu->call.code_byte(cpu->common.env, address + i);
    return kind_of(bytes, is_64);
}

static uint8_t code_byte(struct x86_64 *cpu, uint64_t address, uint64_t page)
{
    if (cpu->common.code && (address & PAGE_MASK) == page)
        return cpu->common.code[address & (PAGE - 1)];
    return (uint8_t)cpu->call.code_byte(cpu->common.env, address);
}

/* Is the block's first instruction BT, BTS, BTR or BTC of a register with a LOCK prefix?  That is undefined, and Unicorn's
   translator ends the process over it.  They are FIRST, so here is where one is met.  Reads no byte behind it. */
static int is_untranslatable(struct x86_64 *cpu, const struct translation_block *block)
{
    uint64_t at = block->pc, page = at & PAGE_MASK;
    int is_64 = (block->flags & MODE_64) != 0, is_locked = 0;
    uint8_t byte;

    for (;; at++) {
        byte = code_byte(cpu, at, page);
        if (!is_prefix(byte, is_64) || at - block->pc >= LONGEST - 3)
            break;
        is_locked |= byte == 0xf0;
    }
    if (!is_locked || byte != 0x0f)
        return 0;
    byte = code_byte(cpu, at + 1, page);
    if (byte == 0xba)
        return code_byte(cpu, at + 2, page) >= 0xe0;
    return (byte == 0xa3 || byte == 0xab || byte == 0xb3 || byte == 0xbb) && code_byte(cpu, at + 2, page) >= 0xc0;
}

static void translate_instruction(struct translating *translation, void *cpu_state)
{
    struct x86_64 *cpu = running_cpu();
    uint64_t here = translation->pc_next, next;
    unsigned kind;

    cpu->common.translate_instruction(translation, cpu_state);
    next = translation->pc_next;
    kind = kind_at(cpu, translation->block, here, (unsigned)(next - here));
    if (here == translation->pc_first && (kind & CLOBBERS))
        translation->block->cflags |= BLOCK_CLOBBERS;
    if (here == translation->pc_first && (kind & SHOWS))
        translation->block->cflags |= BLOCK_SHOWS;
    if (((next - 1) ^ translation->pc_first) & PAGE_MASK) {
        void *host = 0;
        uint64_t offset = cpu->common.code_page(cpu->common.env, next - 1, &host);

        if (host)
            watch_page(&cpu->common, offset, host);
    }
    if (translation->end != GOES_ON)
        return;
    if (((next + LONGEST - 1) ^ translation->pc_first) & PAGE_MASK || (kind & LAST) ||
        (kind_at(cpu, translation->block, next, LONGEST) & FIRST) || has_breakpoint(&cpu->common, next))
        translation->end = ENDS_HERE;
}

/* does the block need more at its start than to be counted?  Yes too if its first instruction may be cut by a page. */
static int is_marked(struct x86_64 *cpu, const struct translation_block *block)
{
    return (block->cflags & BLOCK_LIMIT) || has_breakpoint(&cpu->common, block->pc) || !cpu->common.code ||
           (block->pc & (PAGE - 1)) + LOOKED_AT > PAGE || (kind_at(cpu, block, block->pc, 0) & (CLOBBERS | SHOWS));
}

/* in the place of translator_loop: about 1 us a block more than Unicorn's own 6 us */
EXPORT void timevm_x86_translate(const struct translator_calls *calls, struct translating *translation, void *cpu_state,
                                 struct translation_block *block, int limit)
{
    struct x86_64 *cpu = running_cpu();

    if (!is_running(cpu_state)) {
        original.translate(calls, translation, cpu_state, block, limit);
        return;
    }
    begin_translation(&cpu->common, calls, block, translate_instruction);
    if (is_untranslatable(cpu, block))
        undefined_here(cpu);
    cpu->common.block_hook->user = block;
    cpu->common.block_hook->callback = is_marked(cpu, block) ? (void *)timevm_x86_marked_block
                                                                   : (void *)timevm_block;
    original.translate(&cpu->common.translator, translation, cpu_state, block, limit);
}

/* ---- stores ---- */

/* in the place of tlb_set_page_with_attrs: where did the entry come from, and is it fast? */
EXPORT void timevm_x86_fill(void *cpu_state, uint64_t address, uint64_t physical, uint32_t attributes, int protection,
                            int mode, uint64_t size)
{
    original.fill(cpu_state, address, physical, attributes, protection, mode, size);
    if (is_running(cpu_state))
        note_tables(running_cpu(), address);
    entry_filled(cpu_state, address, physical, protection);
}

/* A store of `size` bytes that is not aligned is about to happen: what its pages need is done before its first byte. */
static void prepare_bytes(struct counted *cpu, uint64_t address, uint64_t size, uintptr_t host_pc)
{
    while (size) {
        uint64_t attributes[4] = {0}, here = PAGE - address % PAGE < size ? PAGE - address % PAGE : size;
        uint64_t physical = cpu->engine.call.translate(cpu->engine.cpu_state, address & PAGE_MASK, attributes), offset;

        offset = physical == NOWHERE ? NOWHERE : ram_offset(&cpu->engine, physical | address % PAGE);
        if (offset / PAGE < cpu->engine.memory.page_count)
            prepare_store(cpu, offset, (int)here, host_pc);
        address += here;
        size -= here;
    }
}

/* In the place of helper_ret_stb_mmu, by which Unicorn does the bytes of a store that is not aligned, one by one.  What
   reads its operand before writing it must not begin anew when some are written. */
EXPORT void timevm_x86_store_byte(void *env, uint64_t address, uint8_t value, uint32_t operation, uintptr_t host_pc)
{
    struct x86_64 *cpu = running_cpu();

    if (!cpu || cpu->common.env != env) {
        original.store_byte(env, address, value, operation, host_pc);
        return;
    }
    if (!cpu->bytes_left || cpu->next_byte != address || cpu->bytes_from != host_pc) {
        uint32_t size = 1u << (operation >> 4 & 3);

        prepare_bytes(&cpu->common, address, size, host_pc);
        cpu->bytes_left = size;
        cpu->bytes_from = host_pc;
    }
    cpu->bytes_left--;
    cpu->next_byte = address + 1;
    cpu->common.is_prepared = 1;
    original.store_byte(env, address, value, operation, host_pc);
    cpu->common.is_prepared = 0;
}

/* A store into the block that runs: leave it before that instruction, which is then done alone, and changes the code only
   when all of its bytes are written.  Unicorn would do so too, but after the first bytes of a store that is not aligned
   and begins before the block: what reads its operand before writing it would do so twice. */
void leave_own_block(struct counted *cpu, uint64_t offset, int size, uintptr_t host_pc)
{
    const struct translation_block *block = cpu->block;
    uint64_t begin;

    if (!block)
        return;
    begin = block->page[0] + (block->pc & (PAGE - 1));
    if (offset + (uint64_t)size + LONGEST >= begin && offset < begin + block->size)
        run_alone(cpu, host_pc);
}
