/* F2XM1, FYL2X, FYL2XP1 and FPATAN with the x87's own precision (Intel SDM 1, chapter 8, and the tables of 2).

   Unicorn computes them in double precision: 2^x - 1 and log2(1 + x) of a small x lose most of their digits, which is what
   these instructions are there to prevent; and what has no logarithm stays on the stack.  Here a result has 64 bits and
   is rounded as the control word says.  Operands for which the SDM promises nothing are left to Unicorn's helpers. */
#include "common.h"
#include "x87_pairs.h"

#define BIAS 16383
#define EXPONENT_FIELD 0x7fff
#define WHOLE ((uint64_t)1 << 63) /* the mantissa's bit before the point */
#define QUIET ((uint64_t)1 << 62) /* of what is no number */
#define TINY (-70) /* below 2^TINY a series is its first term */

/* exceptions in the status and control word */
enum { INVALID = 0x01, DENORMAL = 0x02, ZERO_DIVIDE = 0x04, OVERFLOWN = 0x08, UNDERFLOWN = 0x10, INEXACT = 0x20 };
#define STATUS_UNMASKED 0x8080u /* one that is not masked is pending: ES, B */

enum rounding { NEAREST, DOWN, UP, TOWARDS_ZERO };

typedef void helper(void *env);

/* what Unicorn has, and where in the CPU's structure the x87's registers are */
static struct x87_helpers {
    helper *f2xm1, *fyl2x, *fyl2xp1, *fpatan;
    uint64_t top, status, control, tags, registers;
} unicorns;

EXPORT void timevm_x87_set_helpers(const struct x87_helpers *given)
{
    unicorns = *given;
}

/* a register */
struct extended {
    uint64_t mantissa;
    uint16_t sign_exponent;
    uint16_t padding[3];
};

enum kind { ZERO, FINITE, INFINITE, NO_NUMBER, UNSUPPORTED };

/* the value of one: FINITE is mantissa * 2^exponent with 1 <= mantissa < 2 */
struct number {
    enum kind kind;
    struct pair mantissa;
    int exponent;
    int is_negative, is_denormal;
};

static struct extended *stack(void *env, unsigned number)
{
    uint32_t top = *(uint32_t *)((uint8_t *)env + unicorns.top);

    return (struct extended *)((uint8_t *)env + unicorns.registers) + ((top + number) & 7);
}

static void pop(void *env)
{
    uint32_t *top = (uint32_t *)((uint8_t *)env + unicorns.top);

    ((uint8_t *)env + unicorns.tags)[*top] = 1;
    *top = (*top + 1) & 7;
}

static uint16_t control_of(const void *env)
{
    return *(const uint16_t *)((const uint8_t *)env + unicorns.control);
}

static void raise(void *env, unsigned exceptions)
{
    uint16_t *status = (uint16_t *)((uint8_t *)env + unicorns.status);

    *status |= (uint16_t)exceptions;
    if (exceptions & ~(unsigned)control_of(env))
        *status |= STATUS_UNMASKED;
}

static struct number number_of(const struct extended *operand)
{
    struct number number = {FINITE, {0, 0}, operand->sign_exponent & EXPONENT_FIELD, operand->sign_exponent >> 15, 0};
    uint64_t mantissa = operand->mantissa;

    if (number.exponent == EXPONENT_FIELD) {
        number.kind = !(mantissa & WHOLE) ? UNSUPPORTED : mantissa == WHOLE ? INFINITE : NO_NUMBER;
        return number;
    }
    if (number.exponent == 0) {
        if (!mantissa) {
            number.kind = ZERO;
            return number;
        }
        number.is_denormal = 1;
        number.exponent = 1 - __builtin_clzll(mantissa);
        mantissa <<= __builtin_clzll(mantissa);
    } else if (!(mantissa & WHOLE)) {
        number.kind = UNSUPPORTED;
        return number;
    }
    number.exponent -= BIAS;
    number.mantissa = ordered_sum((double)(mantissa >> 11) * 0x1p-52, (double)(mantissa & 0x7ff) * 0x1p-63);
    return number;
}

/* for exponents that doubles have */
static struct pair pair_of(struct number number)
{
    struct pair size = scaled(number.mantissa, power_of_two(number.exponent));

    return number.is_negative ? negative(size) : size;
}

/* ---- results ---- */

static void put(struct extended *target, int is_negative, unsigned exponent, uint64_t mantissa)
{
    target->mantissa = mantissa;
    target->sign_exponent = (uint16_t)((unsigned)is_negative << 15 | exponent);
}

static void put_invalid(void *env, struct extended *target)
{
    put(target, 1, EXPONENT_FIELD, WHOLE | QUIET);
    raise(env, INVALID);
}

/* beyond the greatest number: what is nearest in the direction of rounding */
static void put_overflow(void *env, struct extended *target, int is_negative, enum rounding rounding)
{
    if (rounding == TOWARDS_ZERO || rounding == (is_negative ? UP : DOWN))
        put(target, is_negative, EXPONENT_FIELD - 1, ~(uint64_t)0);
    else
        put(target, is_negative, EXPONENT_FIELD, WHOLE);
    raise(env, OVERFLOWN | INEXACT);
}

static int goes_up(enum rounding rounding, int is_negative, int is_odd, unsigned __int128 dropped,
                   unsigned __int128 half, int is_more)
{
    switch (rounding) {
    case NEAREST:
        return dropped > half || (dropped == half && (is_more || is_odd));
    case DOWN:
        return is_negative && (dropped || is_more);
    case UP:
        return !is_negative && (dropped || is_more);
    default:
        return 0;
    }
}

/* The register becomes value * 2^exponent.  `value` is not 0, and neither it nor 2^-105 of it leaves the range of
   doubles. */
static void put_rounded(void *env, struct extended *target, struct pair value, int exponent)
{
    enum rounding rounding = control_of(env) >> 10 & 3;
    int is_negative = value.high < 0, place, drop, is_more, is_tiny;
    struct pair size = is_negative ? negative(value) : value;
    double first = mantissa_of(size.high, &place), rest = size.low * power_of_two(105 - place);
    int64_t second = (int64_t)rest;
    unsigned __int128 bits, dropped;
    uint64_t mantissa;

    if ((double)second > rest)
        second--;
    is_more = (double)second != rest;
    bits = ((unsigned __int128)(uint64_t)(first * 0x1p52) << 53) + (unsigned __int128)(__int128)second;
    drop = 64 - __builtin_clzll((uint64_t)(bits >> 64)); /* bits behind the 64 that stay */
    exponent += BIAS + place + drop + 63 - 105;
    is_tiny = exponent < 1;
    if (is_tiny) {
        drop += 1 - exponent;
        exponent = 1;
        if (drop > 120) { /* nothing stays but that it is not 0 */
            bits = 1;
            drop = 120;
        }
    }
    mantissa = (uint64_t)(bits >> drop);
    dropped = bits & (((unsigned __int128)1 << drop) - 1);
    if (goes_up(rounding, is_negative, mantissa & 1, dropped, (unsigned __int128)1 << (drop - 1), is_more) &&
        !++mantissa) {
        mantissa = WHOLE;
        exponent++;
    }
    if (exponent >= EXPONENT_FIELD) {
        put_overflow(env, target, is_negative, rounding);
        return;
    }
    put(target, is_negative, mantissa & WHOLE ? (unsigned)exponent : 0, mantissa);
    if (dropped || is_more)
        raise(env, is_tiny ? INEXACT | UNDERFLOWN : INEXACT);
}

/* ST(1) becomes what follows from operands one of which is no number; 0: both are */
static int put_no_number(void *env, struct number x, struct number y)
{
    struct extended *first = stack(env, 0), *second = stack(env, 1), *chosen = second;

    if (x.kind == UNSUPPORTED || y.kind == UNSUPPORTED) {
        put_invalid(env, second);
        return 1;
    }
    if (x.kind != NO_NUMBER && y.kind != NO_NUMBER)
        return 0;
    if ((x.kind == NO_NUMBER && !(first->mantissa & QUIET)) || (y.kind == NO_NUMBER && !(second->mantissa & QUIET)))
        raise(env, INVALID);
    if (y.kind != NO_NUMBER || (x.kind == NO_NUMBER && (first->mantissa | QUIET) > (second->mantissa | QUIET)))
        chosen = first;
    put(second, chosen->sign_exponent >> 15, EXPONENT_FIELD, chosen->mantissa | QUIET);
    return 1;
}

static void note_denormals(void *env, struct number x, struct number y)
{
    if (x.is_denormal || y.is_denormal)
        raise(env, DENORMAL);
}

/* a logarithm, FINITE: mantissa * 2^exponent, of any size */
static void put_product(void *env, struct number y, struct number logarithm)
{
    struct extended *target = stack(env, 1);
    int is_negative = y.is_negative ^ logarithm.is_negative;

    if ((y.kind == ZERO && logarithm.kind == INFINITE) || (y.kind == INFINITE && logarithm.kind == ZERO)) {
        put_invalid(env, target);
    } else if (y.kind == ZERO || logarithm.kind == ZERO) {
        put(target, is_negative, 0, 0);
    } else if (y.kind == INFINITE || logarithm.kind == INFINITE) {
        put(target, is_negative, EXPONENT_FIELD, WHOLE);
    } else {
        struct pair product = multiply(y.mantissa, logarithm.mantissa);

        put_rounded(env, target, is_negative ? negative(product) : product, y.exponent + logarithm.exponent);
    }
}

static struct number logarithm_of(struct pair value, int exponent)
{
    int is_negative = value.high < 0;

    return (struct number){value.high == 0 ? ZERO : FINITE, is_negative ? negative(value) : value, exponent, is_negative,
                           0};
}

/* ---- instructions ---- */

/* 2^x - 1 of ST(0), |x| <= 1 */
EXPORT void timevm_x87_f2xm1(void *env)
{
    struct extended *operand = stack(env, 0);
    struct number x = number_of(operand);

    if (x.kind == ZERO)
        return;
    if (x.kind != FINITE || x.exponent >= 0) {
        unicorns.f2xm1(env);
        return;
    }
    note_denormals(env, x, x);
    if (x.exponent < TINY) {
        struct pair result = multiply(x.mantissa, LOG_2);

        put_rounded(env, operand, x.is_negative ? negative(result) : result, x.exponent);
    } else {
        put_rounded(env, operand, x87_exponential_less_1(multiply(pair_of(x), LOG_2)), 0);
    }
}

static struct number binary_logarithm(struct number x)
{
    struct pair minus_1 = {-1, 0}, plus_1 = {1, 0}, logarithm;

    if (x.kind == INFINITE)
        return x;
    if (x.kind == ZERO)
        return (struct number){INFINITE, {0, 0}, 0, 1, 0};
    if (x.mantissa.high > ROOT_2) { /* the series is for numbers near 1 */
        x.mantissa = scaled(x.mantissa, 0.5);
        x.exponent++;
    }
    logarithm = x87_half_logarithm(divide(add(x.mantissa, minus_1), add(x.mantissa, plus_1)));
    return logarithm_of(add((struct pair){x.exponent, 0}, multiply(logarithm, TWO_OVER_LOG_2)), 0);
}

/* y * log2(x) of x = ST(0), y = ST(1) */
EXPORT void timevm_x87_fyl2x(void *env)
{
    struct number x = number_of(stack(env, 0)), y = number_of(stack(env, 1));

    if (!put_no_number(env, x, y)) {
        if (x.is_negative && x.kind != ZERO) {
            put_invalid(env, stack(env, 1));
        } else {
            note_denormals(env, x, y);
            if (x.kind == ZERO && y.kind == FINITE)
                raise(env, ZERO_DIVIDE);
            put_product(env, y, binary_logarithm(x));
        }
    }
    pop(env);
}

/* y * log2(1 + x) of x = ST(0), y = ST(1), |x| <= 1 - sqrt(1/2) */
EXPORT void timevm_x87_fyl2xp1(void *env)
{
    struct number x = number_of(stack(env, 0)), y = number_of(stack(env, 1)), logarithm = x;

    if (!put_no_number(env, x, y)) {
        if (x.kind == INFINITE || (x.kind == FINITE && x.exponent > -2) ||
            (x.kind == FINITE && x.exponent == -2 && x.mantissa.high > 4 - 2 * ROOT_2)) {
            unicorns.fyl2xp1(env);
            return;
        }
        note_denormals(env, x, y);
        if (x.kind == FINITE && x.exponent < TINY) {
            logarithm.mantissa = multiply(x.mantissa, scaled(TWO_OVER_LOG_2, 0.5));
        } else if (x.kind == FINITE) {
            struct pair part = pair_of(x), half = x87_half_logarithm(divide(part, add((struct pair){2, 0}, part)));

            logarithm = logarithm_of(multiply(half, TWO_OVER_LOG_2), 0);
        }
        put_product(env, y, logarithm);
    }
    pop(env);
}

/* the angle of two FINITE ones, seen from the first quadrant, is the result * 2^*exponent */
static struct pair finite_angle(struct number x, struct number y, int *exponent)
{
    int apart = y.exponent - x.exponent;
    struct pair low;

    if (apart > -TINY)
        return HALF_PI;
    if (apart < TINY) {
        *exponent = apart;
        low = divide(y.mantissa, x.mantissa);
        low.low -= low.high * 0x1p-104; /* the angle is smaller than its tangent, if by less than can be said */
        return low;
    }
    low = scaled(y.mantissa, power_of_two(apart));
    return is_less(x.mantissa, low) ? add(HALF_PI, negative(x87_angle_of(x.mantissa, low)))
                                    : x87_angle_of(low, x.mantissa);
}

/* the angle of x = ST(0), y = ST(1) */
EXPORT void timevm_x87_fpatan(void *env)
{
    struct number x = number_of(stack(env, 0)), y = number_of(stack(env, 1));
    struct pair angle = {0, 0};
    int exponent = 0;

    if (!put_no_number(env, x, y)) {
        note_denormals(env, x, y);
        if (x.kind == FINITE && y.kind == FINITE)
            angle = finite_angle(x, y, &exponent);
        else if (x.kind == INFINITE && y.kind == INFINITE)
            angle = scaled(HALF_PI, 0.5);
        else if (y.kind == INFINITE || (x.kind == ZERO && y.kind != ZERO))
            angle = HALF_PI;
        if (x.is_negative) {
            angle = exponent ? PI : add(PI, negative(angle));
            exponent = 0;
        }
        if (angle.high == 0)
            put(stack(env, 1), y.is_negative, 0, 0);
        else
            put_rounded(env, stack(env, 1), y.is_negative ? negative(angle) : angle, exponent);
    }
    pop(env);
}
