/* The functions that Unicorn's x87 helpers take from the host's libm (FSIN, FCOS, FSINCOS, FPTAN: sin, cos, sincos, tan;
   FPATAN: atan2; FYL2X, FYL2XP1: log; F2XM1, FPREM: pow), of our own, so that a recording replays on every host: glibc's
   results depend on its version and on whether the processor has FMA.

   All is computed in pairs of doubles, about 104 bits, by series, and rounded once (twice if it is denormal): results are
   within 0.5001 units in the last place, so they would hardly change if a series did.  0.1 to 0.3 us a call
   more than glibc.  IEEE 754's four operations are all that is used; the compiler must not contract them
   (-ffp-contract=off).  What of the instructions x87_extended.c computes does not come here. */
#include "common.h"
#include "x87_pairs.h"

#include <math.h>

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

/* Taylor's series from the far end, for |angle| < 0.8; its small terms need no pairs */
void x87_sine_and_cosine(struct pair angle, struct pair *sine, struct pair *cosine)
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

    x87_sine_and_cosine(angle, sine, cosine);
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

/* A guess within 0.005, and the angle that is left: of the point turned back by the guess. */
struct pair x87_angle_of(struct pair low, struct pair high)
{
    double quotient = low.high / high.high, guess = quotient / (1 + 0.28 * quotient * quotient), square;
    struct pair sine, cosine, rest;

    x87_sine_and_cosine((struct pair){guess, 0}, &sine, &cosine);
    rest = divide(add(multiply(cosine, low), negative(multiply(sine, high))),
                  add(multiply(cosine, high), multiply(sine, low)));
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
        return x87_angle_of((struct pair){y_mantissa, 0}, (struct pair){x_mantissa, 0});
    return add(HALF_PI, negative(x87_angle_of((struct pair){x_mantissa, 0}, (struct pair){y_mantissa, 0})));
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

struct pair x87_half_logarithm(struct pair r)
{
    struct pair square = multiply(r, r), series;
    double small = 0;

    for (int n = 33; n > 9; n -= 2)
        small = 1.0 / n + square.high * small;
    series = (struct pair){small, 0};
    for (int n = 9; n > 0; n -= 2)
        series = add(over((struct pair){1, 0}, n), multiply(square, series));
    return multiply(r, series);
}

EXPORT double timevm_x87_log(double x)
{
    int exponent;
    double mantissa;
    struct pair ratio;

    if (x != x)
        return quiet(x);
    if (x == 0)
        return -HUGE_VAL;
    if (x < 0)
        return undefined();
    if (isinf(x))
        return x;
    mantissa = mantissa_of(x, &exponent);
    if (mantissa > ROOT_2) { /* the series is for numbers near 1 */
        mantissa /= 2;
        exponent++;
    }
    ratio = divide((struct pair){mantissa - 1, 0}, exact_sum(mantissa, 1));
    return rounded(add(times(LOG_2, exponent), scaled(x87_half_logarithm(ratio), 2)));
}

/* t (1 + t/2 (1 + t/3 (...))) */
struct pair x87_exponential_less_1(struct pair t)
{
    struct pair series;
    double small = 1;

    for (int n = 24; n > 10; n--)
        small = 1 + t.high * small / n;
    series = (struct pair){small, 0};
    for (int n = 10; n > 1; n--)
        series = one_minus(negative(over(multiply(t, series), n)));
    return multiply(t, series);
}

static double power_of_two_real(double x)
{
    int whole;
    struct pair power;

    if (x != x)
        return quiet(x);
    if (x >= 1024)
        return HUGE_VAL;
    if (x <= -1076)
        return 0;
    whole = (int)(x + (x < 0 ? -0.5 : 0.5));
    power = add((struct pair){1, 0}, x87_exponential_less_1(times(LOG_2, x - whole)));
    return rounded(power) * power_of_two(whole / 2) * power_of_two(whole - whole / 2);
}

/* the helpers raise 2 only */
EXPORT double timevm_x87_pow(double base, double x)
{
    return base == 2 ? power_of_two_real(x) : pow(base, x);
}
