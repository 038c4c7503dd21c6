/* The functions that Unicorn's x87 helpers take from the host's libm (FSIN, FCOS, FSINCOS, FPTAN: sin, cos, sincos, tan;
   FPATAN: atan2; FYL2X, FYL2XP1: log; F2XM1, FPREM: pow), of our own, so that a recording replays on every host: glibc's
   results depend on its version and on whether the processor has FMA.

   All is computed in pairs of doubles, about 104 bits, by series, and rounded once (twice if it is denormal): results are
   within 0.5001 units in the last place, so they would hardly change if a series did.  0.1 to 0.3 us a call
   more than glibc.  IEEE 754's four operations
   are all that is used; the compiler must not contract them (-ffp-contract=off). */
#include "common.h"

#include <math.h>
#include <string.h>

/* a sum; low is at most half a unit in the last place of high */
struct pair {
    double high, low;
};

static const struct pair PI = {0x1.921fb54442d18p+1, 0x1.1a62633145c07p-53};
static const struct pair HALF_PI = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54};
static const struct pair LOG_2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};

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

/* of a number that is none: the same, quiet.  Of a result that is none: the processor's default */
static inline double quiet(double x)
{
    return x + x;
}

static inline double undefined(void)
{
    return of_bits(0x1fffull << 51);
}

/* ---- sine, cosine, tangent ---- */

/* The fraction of 2/pi, 256 bits, the lowest first */
static const uint64_t TWO_OVER_PI[4] = {0xfe5163abdebbc561, 0xdb6295993c439041, 0xfc2757d1f534ddc0,
                                        0xa2f9836e4e441529};

/* x = quadrant * pi/2 + rest, modulo a whole turn, |rest| <= pi/4; for pi/4 < x <= 2^63.  x * 2/pi is computed in whole
   numbers with 192 bits behind the point, of which at most 64 are zeroes at its start. */
static struct pair reduced(double x, unsigned *quadrant)
{
    int exponent;
    uint64_t mantissa = bits_of(mantissa_of(x, &exponent)) << 12 >> 12 | 1ull << 52;
    uint64_t product[6] = {0}, carry = 0, shifted[4];
    unsigned shift = (unsigned)(64 - (exponent - 52)), words = shift / 64, bits = shift % 64; /* 53 to 117 */
    struct pair fraction = {0, 0};
    double weight = 0x1p-32;
    int is_negative;

    for (unsigned i = 0; i < 4; i++) {
        unsigned __int128 part = (unsigned __int128)mantissa * TWO_OVER_PI[i] + carry;

        product[i] = (uint64_t)part;
        carry = (uint64_t)(part >> 64);
    }
    product[4] = carry;
    for (unsigned i = 0; i < 4; i++)
        shifted[i] = bits ? product[i + words] >> bits | product[i + words + 1] << (64 - bits) : product[i + words];
    is_negative = shifted[2] >> 63;
    *quadrant = (unsigned)(shifted[3] + (uint64_t)is_negative) & 3;
    if (is_negative) { /* count back from the next quadrant */
        carry = 1;
        for (unsigned i = 0; i < 3; i++) {
            shifted[i] = ~shifted[i] + carry;
            carry = carry && !shifted[i];
        }
    }
    for (unsigned i = 3; i-- > 0;) { /* halves of 32 bits are doubles */
        fraction = add(fraction, (struct pair){(double)(shifted[i] >> 32) * weight, 0});
        fraction = add(fraction, (struct pair){(double)(shifted[i] & 0xffffffff) * (weight * 0x1p-32), 0});
        weight *= 0x1p-64;
    }
    return multiply(is_negative ? negative(fraction) : fraction, HALF_PI);
}

static inline struct pair one_minus(struct pair a)
{
    struct pair sum = ordered_sum(1, -a.high);

    return ordered_sum(sum.high, sum.low - a.low);
}

/* Taylor's series from the far end, for |angle| < 0.8; its small terms need no pairs */
static void sine_and_cosine(struct pair angle, struct pair *sine, struct pair *cosine)
{
    struct pair square = multiply(angle, angle);
    double small_sine = 1, small_cosine = 1;

    for (int n = 26; n > 10; n -= 2) {
        small_sine = 1 - square.high * small_sine / (n * (n + 1));
        small_cosine = 1 - square.high * small_cosine / (n * (n - 1));
    }
    *sine = (struct pair){small_sine, 0};
    *cosine = (struct pair){small_cosine, 0};
    for (int n = 10; n > 0; n -= 2) {
        *sine = one_minus(over(multiply(square, *sine), n * (n + 1)));
        *cosine = one_minus(over(multiply(square, *cosine), n * (n - 1)));
    }
    *sine = multiply(angle, *sine);
}

/* of x, finite, |x| <= 2^63; the four quarters of a turn are the same but for names and signs */
static void circle(double x, struct pair *sine, struct pair *cosine)
{
    unsigned quadrant = 0;
    double size = fabs(x);
    struct pair angle = size <= 0.78 ? (struct pair){size, 0} : reduced(size, &quadrant), swap;

    sine_and_cosine(angle, sine, cosine);
    if (quadrant & 1) {
        swap = *sine;
        *sine = *cosine;
        *cosine = negative(swap);
    }
    if (quadrant & 2) {
        *sine = negative(*sine);
        *cosine = negative(*cosine);
    }
    if (x < 0)
        *sine = negative(*sine);
}

#define SMALL 0x1p-27 /* below it the sine and the tangent are their angle, the cosine is 1 */
#define FARTHEST 0x1p63 /* the x87 takes no greater angles */

/* is x an angle of which nothing need be computed, but for `*result`? */
static int is_special_angle(double x, double *result)
{
    if (x != x)
        *result = quiet(x);
    else if (fabs(x) > FARTHEST)
        *result = undefined();
    else
        return 0;
    return 1;
}

EXPORT void timevm_x87_sincos(double x, double *sine, double *cosine)
{
    struct pair exact_sine, exact_cosine;

    if (is_special_angle(x, sine)) {
        *cosine = *sine;
    } else if (fabs(x) < SMALL) {
        *sine = x;
        *cosine = 1;
    } else {
        circle(x, &exact_sine, &exact_cosine);
        *sine = rounded(exact_sine);
        *cosine = rounded(exact_cosine);
    }
}

EXPORT double timevm_x87_sin(double x)
{
    double sine, cosine;

    timevm_x87_sincos(x, &sine, &cosine);
    return sine;
}

EXPORT double timevm_x87_cos(double x)
{
    double sine, cosine;

    timevm_x87_sincos(x, &sine, &cosine);
    return cosine;
}

EXPORT double timevm_x87_tan(double x)
{
    struct pair sine, cosine;
    double result;

    if (is_special_angle(x, &result))
        return result;
    if (fabs(x) < SMALL)
        return x;
    circle(x, &sine, &cosine);
    return rounded(divide(sine, cosine));
}

/* ---- arc tangent ---- */

/* Of low / high, both positive, their quotient from 2^-64 to 1.  A guess within 0.005, and the angle that is left: of the
   point turned back by the guess. */
static struct pair angle_of(double low, double high)
{
    double quotient = low / high, guess = quotient / (1 + 0.28 * quotient * quotient), square;
    struct pair sine, cosine, rest;

    sine_and_cosine((struct pair){guess, 0}, &sine, &cosine);
    rest = divide(add(times(cosine, low), negative(times(sine, high))), add(times(cosine, high), times(sine, low)));
    square = rest.high * rest.high;
    rest.low -= rest.high * square * (1.0 / 3 - square * (1.0 / 5 - square * (1.0 / 7 - square * (1.0 / 9))));
    return add((struct pair){guess, 0}, rest);
}

/* the angle of (x, y), both finite and positive */
static struct pair quarter_angle(double y, double x)
{
    int y_exponent, x_exponent, apart;
    double y_mantissa = mantissa_of(y, &y_exponent), x_mantissa = mantissa_of(x, &x_exponent);

    apart = y_exponent - x_exponent;
    if (apart < -64)
        return (struct pair){y / x, 0};
    if (apart > 64)
        return HALF_PI;
    y_mantissa *= power_of_two(apart);
    if (y_mantissa <= x_mantissa)
        return angle_of(y_mantissa, x_mantissa);
    return add(HALF_PI, negative(angle_of(x_mantissa, y_mantissa)));
}

/* the same with 0 and infinity (ISO C, F.9.1.4) */
static struct pair positive_angle(double y, double x)
{
    if (y == 0 || (isinf(x) && !isinf(y)))
        return (struct pair){0, 0};
    if (x == 0 || (isinf(y) && !isinf(x)))
        return HALF_PI;
    if (isinf(y))
        return (struct pair){HALF_PI.high / 2, HALF_PI.low / 2};
    return quarter_angle(y, x);
}

EXPORT double timevm_x87_atan2(double y, double x)
{
    struct pair angle;

    if (y != y || x != x)
        return quiet(y != y ? y : x);
    angle = positive_angle(fabs(y), fabs(x));
    if (signbit(x))
        angle = add(PI, negative(angle));
    return copysign(rounded(angle), y);
}

/* ---- logarithm and power ---- */

EXPORT double timevm_x87_log(double x)
{
    int exponent;
    double mantissa, small = 0;
    struct pair ratio, square, series;

    if (x != x)
        return quiet(x);
    if (x == 0)
        return -HUGE_VAL;
    if (x < 0)
        return undefined();
    if (isinf(x))
        return x;
    mantissa = mantissa_of(x, &exponent);
    if (mantissa > 0x1.6a09e667f3bcdp+0) { /* the square root of 2: the series is for numbers near 1 */
        mantissa /= 2;
        exponent++;
    }
    /* log m = 2 artanh r = 2 (r + r^3/3 + r^5/5 + ...) with r = (m - 1) / (m + 1), |r| < 0.172 */
    ratio = divide((struct pair){mantissa - 1, 0}, exact_sum(mantissa, 1));
    square = multiply(ratio, ratio);
    for (int n = 33; n > 9; n -= 2)
        small = 1.0 / n + square.high * small;
    series = (struct pair){small, 0};
    for (int n = 9; n > 0; n -= 2)
        series = add(over((struct pair){1, 0}, n), multiply(square, series));
    series = multiply(ratio, series);
    return rounded(add(times(LOG_2, exponent), (struct pair){2 * series.high, 2 * series.low}));
}

static double power_of_two_real(double x)
{
    int whole;
    struct pair exponent, series;
    double small = 1;

    if (x != x)
        return quiet(x);
    if (x >= 1024)
        return HUGE_VAL;
    if (x <= -1076)
        return 0;
    whole = (int)(x + (x < 0 ? -0.5 : 0.5));
    exponent = times(LOG_2, x - whole);
    /* e^t = 1 + t (1 + t/2 (1 + t/3 (...))), |t| < 0.35 */
    for (int n = 19; n > 8; n--)
        small = 1 + exponent.high * small / n;
    series = (struct pair){small, 0};
    for (int n = 8; n > 0; n--)
        series = one_minus(negative(over(multiply(exponent, series), n)));
    return rounded(series) * power_of_two(whole / 2) * power_of_two(whole - whole / 2);
}

/* the helpers raise 2 only */
EXPORT double timevm_x87_pow(double base, double x)
{
    return base == 2 ? power_of_two_real(x) : pow(base, x);
}
