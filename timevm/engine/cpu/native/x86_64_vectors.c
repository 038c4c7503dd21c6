/* Two kinds of vector instructions that Unicorn's helpers get wrong, and what becomes of MXCSR; these stand in their place.
   What is right in the helpers is left to them. */
#include "x86_64.h"

#include <string.h>

#define XMM_BYTES 16 /* an MMX register has as many with what surrounds it */

typedef void pairwise_function(void *env, void *target, void *source);
typedef void compare_function(void *env, void *target, void *source, uint32_t control);

static struct vector_helpers {
    pairwise_function *pairwise[12];
    compare_function *compare[4];
    void (*update_mxcsr)(void *env);
    uint64_t xmm0, mxcsr, sse_status, x87_status; /* where they stand in the CPU's structure */
} unicorns;

EXPORT void timevm_x86_set_vector_helpers(const struct vector_helpers *given)
{
    unicorns = *given;
}

/* ---- PHADD, PHSUB: of a register with itself the half of the result that is written first would be read again ---- */

static void call_pairwise(unsigned number, void *env, void *target, void *source)
{
    uint64_t copy[XMM_BYTES / 8];

    if (target == source)
        source = memcpy(copy, source, XMM_BYTES);
    unicorns.pairwise[number](env, target, source);
}

#define PAIRWISE(number, name)                                                                                           \
    EXPORT void timevm_x86_##name(void *env, void *target, void *source)                                                 \
    {                                                                                                                    \
        call_pairwise(number, env, target, source);                                                                      \
    }

PAIRWISE(0, phaddw_mmx)
PAIRWISE(1, phaddd_mmx)
PAIRWISE(2, phaddsw_mmx)
PAIRWISE(3, phsubw_mmx)
PAIRWISE(4, phsubd_mmx)
PAIRWISE(5, phsubsw_mmx)
PAIRWISE(6, phaddw_xmm)
PAIRWISE(7, phaddd_xmm)
PAIRWISE(8, phaddsw_xmm)
PAIRWISE(9, phsubw_xmm)
PAIRWISE(10, phsubd_xmm)
PAIRWISE(11, phsubsw_xmm)

/* ---- PCMPxSTRx, "equal ordered" (Intel SDM 2, 4.1): a beginning of the substring at the end of a string that is not
   over counts as found ---- */

/* fields of the control byte, and behind it: the lengths have 64 bits */
#define CONTROL_WORDS 0x01u
#define CONTROL_AGGREGATION 0x0cu
#define AGGREGATION_ORDERED 0x0cu
#define CONTROL_NEGATIVE 0x10u
#define CONTROL_MASKED 0x20u /* negative for what is part of the string only */
#define CONTROL_FROM_TOP 0x40u /* the highest index, not the lowest; a mask of elements, not of bits */
#define CONTROL_LONG_LENGTHS 0x100u

#define FLAG_CARRY 0x1u
#define FLAG_ZERO 0x40u
#define FLAG_SIGN 0x80u
#define FLAG_OVERFLOW 0x800u

enum { RAX, RCX, RDX };

/* one operand */
struct string {
    uint16_t elements[XMM_BYTES];
    unsigned length; /* of it in elements: what is behind does not count */
};

static struct string string_of(const uint8_t *bytes, uint32_t control)
{
    struct string string = {{0}, 0};
    unsigned count = control & CONTROL_WORDS ? 8 : 16;

    for (unsigned i = 0; i < count; i++)
        string.elements[i] = control & CONTROL_WORDS ? (uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8) : bytes[i];
    while (string.length < count && string.elements[string.length])
        string.length++;
    return string;
}

/* a length that a register tells: its sign does not count */
static unsigned told_length(uint64_t value, uint32_t control)
{
    unsigned count = control & CONTROL_WORDS ? 8 : 16;
    int64_t length = control & CONTROL_LONG_LENGTHS ? (int64_t)value : (int32_t)value;
    uint64_t size = length < 0 ? 0 - (uint64_t)length : (uint64_t)length;

    return size > count ? count : (unsigned)size;
}

/* one bit for each place of `string` where `part` is, or begins */
static uint32_t places_of(const struct string *part, const struct string *string, uint32_t control)
{
    unsigned count = control & CONTROL_WORDS ? 8 : 16;
    uint32_t all = (1u << count) - 1, found = 0;

    for (unsigned place = 0; place < count; place++) {
        unsigned i = 0;

        while (i < part->length && place + i < string->length && part->elements[i] == string->elements[place + i])
            i++;
        if (i == part->length || place + i == count)
            found |= 1u << place;
    }
    if (control & CONTROL_NEGATIVE)
        found ^= control & CONTROL_MASKED ? (1u << string->length) - 1 : all;
    return found;
}

static void write_index(struct x86_64 *cpu, uint32_t found, uint32_t control)
{
    if (!found)
        cpu->regs[RCX] = control & CONTROL_WORDS ? 8 : 16;
    else
        cpu->regs[RCX] = (uint64_t)(control & CONTROL_FROM_TOP ? 31 - __builtin_clz(found) : __builtin_ctz(found));
}

static void write_mask(struct x86_64 *cpu, uint32_t found, uint32_t control)
{
    uint8_t mask[XMM_BYTES] = {(uint8_t)found, (uint8_t)(found >> 8)};

    if (control & CONTROL_FROM_TOP)
        for (unsigned i = 0; i < XMM_BYTES; i++)
            mask[i] = found >> (control & CONTROL_WORDS ? i / 2 : i) & 1 ? 0xff : 0;
    memcpy((uint8_t *)cpu->common.env + unicorns.xmm0, mask, XMM_BYTES);
}

/* `number`: the helper's in `unicorns`, whose bits say: lengths are told, the result is a mask */
static void compare(unsigned number, void *env, void *target, void *source, uint32_t control)
{
    struct x86_64 *cpu = running_cpu();
    unsigned count = control & CONTROL_WORDS ? 8 : 16;
    struct string part, string;
    uint32_t found;

    if (!cpu || cpu->common.env != env || (control & CONTROL_AGGREGATION) != AGGREGATION_ORDERED) {
        unicorns.compare[number](env, target, source, control);
        return;
    }
    part = string_of(target, control);
    string = string_of(source, control);
    if (number & 2) {
        part.length = told_length(cpu->regs[RAX], control);
        string.length = told_length(cpu->regs[RDX], control);
    }
    found = places_of(&part, &string, control);
    *cpu->cc_source = (found ? FLAG_CARRY : 0) | (string.length < count ? FLAG_ZERO : 0) |
                      (part.length < count ? FLAG_SIGN : 0) | (found & 1 ? FLAG_OVERFLOW : 0);
    if (number & 1)
        write_mask(cpu, found, control);
    else
        write_index(cpu, found, control);
}

#define COMPARE(number, name)                                                                                            \
    EXPORT void timevm_x86_##name(void *env, void *target, void *source, uint32_t control)                               \
    {                                                                                                                    \
        compare(number, env, target, source, control);                                                                   \
    }

COMPARE(0, pcmpistri_xmm)
COMPARE(1, pcmpistrm_xmm)
COMPARE(2, pcmpestri_xmm)
COMPARE(3, pcmpestrm_xmm)

/* ---- MXCSR (Intel SDM 1, 10.2.3): Unicorn notes exceptions in a status of its arithmetic's own, and flushes the x87's
   small results to zero when it is told to flush SSE's ---- */

#define MXCSR_FLUSH_SHIFT 15
#define MXCSR_FLUSHED 0x30u /* underflow, inexact */
/* exceptions have the same bits there, but for that of denormal operands, which is none; and one for what was flushed */
#define NOTED 0x3du
#define NOTED_FLUSHED 0x80u
enum status { NOTED_EXCEPTIONS = 2, FLUSHES_RESULTS = 4 }; /* bytes of QEMU's float_status */

/* MXCSR is going to be stored: it has all exceptions there were */
void show_exceptions(void *env)
{
    unsigned noted = ((uint8_t *)env + unicorns.sse_status)[NOTED_EXCEPTIONS];

    *(uint32_t *)((uint8_t *)env + unicorns.mxcsr) |= (noted & NOTED) | (noted & NOTED_FLUSHED ? MXCSR_FLUSHED : 0);
}

/* in the place of update_mxcsr_status: MXCSR was loaded */
EXPORT void timevm_x86_update_mxcsr(void *env)
{
    uint32_t mxcsr = *(uint32_t *)((uint8_t *)env + unicorns.mxcsr);
    uint8_t *sse = (uint8_t *)env + unicorns.sse_status, *x87 = (uint8_t *)env + unicorns.x87_status;

    unicorns.update_mxcsr(env);
    sse[NOTED_EXCEPTIONS] = mxcsr & NOTED;
    sse[FLUSHES_RESULTS] = mxcsr >> MXCSR_FLUSH_SHIFT & 1;
    x87[FLUSHES_RESULTS] = 0;
}
