/* Arithmetic with 104 bits, and the three series that the x87's functions are made of: see x87_functions.c. */
#ifndef TIMEVM_X87_PAIRS_H
#define TIMEVM_X87_PAIRS_H

#include <stdint.h>
#include <string.h>

/* a sum; low is at most half a unit in the last place of high */
struct pair {
    double high, low;
};

static const struct pair PI = {0x1.921fb54442d18p+1, 0x1.1a62633145c07p-53};
static const struct pair HALF_PI = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54};
static const struct pair LOG_2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
static const struct pair TWO_OVER_LOG_2 = {0x1.71547652b82fep+1, 0x1.777d0ffda0d24p-55};
#define ROOT_2 0x1.6a09e667f3bcdp+0

/* ---- arithmetic of pairs (T. J. Dekker, A floating-point technique for extending the available precision, 1971) ---- */

/* |a| >= |b| */
static inline struct pair ordered_sum(double a, double b)
{
    double sum = a + b;

    return (struct pair){sum, b - (sum - a)};
}

static inline struct pair exact_sum(double a, double b)
{
    double sum = a + b, part = sum - a;

    return (struct pair){sum, (a - (sum - part)) + (b - part)};
}

/* both below 2^995 */
static inline struct pair exact_product(double a, double b)
{
    const double split = 0x1p27 + 1;
    double product = a * b, over_a = split * a, over_b = split * b;
    double a_high = over_a - (over_a - a), a_low = a - a_high;
    double b_high = over_b - (over_b - b), b_low = b - b_high;

    return (struct pair){product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low};
}

static inline struct pair negative(struct pair a)
{
    return (struct pair){-a.high, -a.low};
}

static inline struct pair add(struct pair a, struct pair b)
{
    struct pair high = exact_sum(a.high, b.high), low = exact_sum(a.low, b.low);

    high = ordered_sum(high.high, high.low + low.high);
    return ordered_sum(high.high, high.low + low.low);
}

static inline struct pair multiply(struct pair a, struct pair b)
{
    struct pair product = exact_product(a.high, b.high);

    return ordered_sum(product.high, product.low + (a.high * b.low + a.low * b.high));
}

static inline struct pair times(struct pair a, double b)
{
    struct pair product = exact_product(a.high, b);

    return ordered_sum(product.high, product.low + a.low * b);
}

static inline struct pair divide(struct pair a, struct pair b)
{
    double first = a.high / b.high, second;
    struct pair rest = add(a, negative(times(b, first)));

    second = rest.high / b.high;
    rest = add(rest, negative(times(b, second)));
    return add(ordered_sum(first, second), (struct pair){rest.high / b.high, 0});
}

static inline struct pair over(struct pair a, double b)
{
    double first = a.high / b;
    struct pair product = exact_product(first, b);

    return ordered_sum(first, ((a.high - product.high) - product.low + a.low) / b);
}

static inline double rounded(struct pair a)
{
    return a.high + a.low;
}

static inline int is_less(struct pair a, struct pair b)
{
    return a.high < b.high || (a.high == b.high && a.low < b.low);
}

/* by a power of two: exact */
static inline struct pair scaled(struct pair a, double by)
{
    return (struct pair){a.high * by, a.low * by};
}

static inline struct pair one_minus(struct pair a)
{
    struct pair sum = ordered_sum(1, -a.high);

    return ordered_sum(sum.high, sum.low - a.low);
}

/* ---- bits of a double ---- */

static inline uint64_t bits_of(double x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline double of_bits(uint64_t bits)
{
    double x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

/* 2^exponent, from -1022 to 1023 */
static inline double power_of_two(int exponent)
{
    return of_bits((uint64_t)(exponent + 1023) << 52);
}

/* x, positive and finite, is its mantissa, in [1, 2), by 2^exponent */
static double mantissa_of(double x, int *exponent)
{
    int below = 0;

    if (x < 0x1p-1022) {
        x *= 0x1p54;
        below = 54;
    }
    *exponent = (int)(bits_of(x) >> 52) - 1023 - below;
    return of_bits((bits_of(x) & ~(0x7ffull << 52)) | 1023ull << 52);
}

/* ---- series, exact to about 75 bits ---- */

/* for |angle| < 0.8 */
void x87_sine_and_cosine(struct pair angle, struct pair *sine, struct pair *cosine);
/* the angle whose tangent is low / high, both positive, their quotient from 2^-70 to 1 */
struct pair x87_angle_of(struct pair low, struct pair high);
/* r + r^3/3 + r^5/5 + ..., for |r| < 0.172: half of log((1 + r) / (1 - r)) */
struct pair x87_half_logarithm(struct pair r);
/* e^t - 1, for |t| < 0.7 */
struct pair x87_exponential_less_1(struct pair t);

#endif
