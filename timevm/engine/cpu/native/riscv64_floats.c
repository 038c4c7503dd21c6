/* Floating point that Unicorn's helpers do as older specifications had it; these stand in their place and call them.

   A result of single precision fills the upper half of its register with ones (Unprivileged specification, 21.2: NaN
   boxing).  The smaller or larger of a signaling NaN and a number is the number (20.6: IEEE 754-2019's minimumNumber). */
#include "riscv64.h"

#define BOX 0xffffffff00000000u

/* Unicorn's own, in the order of riscv64_interposed.py */
static struct float_helpers {
    uint64_t (*fadd_s)(void *, uint64_t, uint64_t);
    uint64_t (*fsub_s)(void *, uint64_t, uint64_t);
    uint64_t (*fmul_s)(void *, uint64_t, uint64_t);
    uint64_t (*fdiv_s)(void *, uint64_t, uint64_t);
    uint64_t (*fmin_s)(void *, uint64_t, uint64_t);
    uint64_t (*fmax_s)(void *, uint64_t, uint64_t);
    uint64_t (*fmin_d)(void *, uint64_t, uint64_t);
    uint64_t (*fmax_d)(void *, uint64_t, uint64_t);
    uint64_t (*fmadd_s)(void *, uint64_t, uint64_t, uint64_t);
    uint64_t (*fmsub_s)(void *, uint64_t, uint64_t, uint64_t);
    uint64_t (*fnmsub_s)(void *, uint64_t, uint64_t, uint64_t);
    uint64_t (*fnmadd_s)(void *, uint64_t, uint64_t, uint64_t);
    uint64_t (*fsqrt_s)(void *, uint64_t);
    uint64_t (*fcvt_s_d)(void *, uint64_t);
    uint64_t (*fcvt_s_w)(void *, uint64_t);
    uint64_t (*fcvt_s_wu)(void *, uint64_t);
    uint64_t (*fcvt_s_l)(void *, uint64_t);
    uint64_t (*fcvt_s_lu)(void *, uint64_t);
} unicorns;

EXPORT void timevm_riscv64_set_float_helpers(const struct float_helpers *given)
{
    unicorns = *given;
}

static int is_nan_s(uint64_t value)
{
    return (value & 0x7fffffff) > 0x7f800000;
}

static int is_nan_d(uint64_t value)
{
    return (value & ~((uint64_t)1 << 63)) > (uint64_t)0x7ff << 52;
}

/* Unicorn's result is a NaN if one operand is a signaling one; the flags are right */
#define SELECTION(name, is_nan, box)                                                                                   \
    EXPORT uint64_t timevm_riscv64_##name(void *env, uint64_t left, uint64_t right)                                    \
    {                                                                                                                  \
        uint64_t result = unicorns.name(env, left, right);                                                             \
                                                                                                                       \
        if (is_nan(result) && is_nan(left) != is_nan(right))                                                           \
            result = is_nan(left) ? right : left;                                                                      \
        return result | (box);                                                                                         \
    }

#define OF_ONE(name)                                                                                                   \
    EXPORT uint64_t timevm_riscv64_##name(void *env, uint64_t value)                                                   \
    {                                                                                                                  \
        return unicorns.name(env, value) | BOX;                                                                        \
    }

#define OF_TWO(name)                                                                                                   \
    EXPORT uint64_t timevm_riscv64_##name(void *env, uint64_t left, uint64_t right)                                    \
    {                                                                                                                  \
        return unicorns.name(env, left, right) | BOX;                                                                  \
    }

#define OF_THREE(name)                                                                                                 \
    EXPORT uint64_t timevm_riscv64_##name(void *env, uint64_t one, uint64_t two, uint64_t three)                       \
    {                                                                                                                  \
        return unicorns.name(env, one, two, three) | BOX;                                                              \
    }

SELECTION(fmin_s, is_nan_s, BOX)
SELECTION(fmax_s, is_nan_s, BOX)
SELECTION(fmin_d, is_nan_d, 0)
SELECTION(fmax_d, is_nan_d, 0)
OF_TWO(fadd_s)
OF_TWO(fsub_s)
OF_TWO(fmul_s)
OF_TWO(fdiv_s)
OF_THREE(fmadd_s)
OF_THREE(fmsub_s)
OF_THREE(fnmsub_s)
OF_THREE(fnmadd_s)
OF_ONE(fsqrt_s)
OF_ONE(fcvt_s_d)
OF_ONE(fcvt_s_w)
OF_ONE(fcvt_s_wu)
OF_ONE(fcvt_s_l)
OF_ONE(fcvt_s_lu)
