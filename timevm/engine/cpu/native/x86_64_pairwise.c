/* PHADD and PHSUB of a register with itself: Unicorn's helpers write the lower half of the result before they read the
   operand that makes up the upper one.  Given a copy of it they are right. */
#include "common.h"

#include <string.h>

#define REGISTER_BYTES 16 /* of XMM; an MMX register has as many with what surrounds it */

typedef void pairwise_function(void *env, void *target, void *source);

static pairwise_function *original[12];

EXPORT void timevm_x86_set_pairwise(pairwise_function *const given[12])
{
    memcpy(original, given, sizeof original);
}

static void call(unsigned number, void *env, void *target, void *source)
{
    uint64_t copy[REGISTER_BYTES / 8];

    if (target != source) {
        original[number](env, target, source);
        return;
    }
    memcpy(copy, source, REGISTER_BYTES);
    original[number](env, target, copy);
}

#define PAIRWISE(number, name)                                                                                            \
    EXPORT void timevm_x86_##name(void *env, void *target, void *source)                                                  \
    {                                                                                                                     \
        call(number, env, target, source);                                                                                \
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
