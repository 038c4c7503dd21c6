#include "board.h"

/* PL011 (Arm DDI 0183) at 0x09000000, shared interrupt 1; GICv2 (Arm IHI 0048) at 0x08000000. */
#define UART(offset) (*(volatile uint32_t *)(0x09000000ul + (offset)))
#define GICD(offset) (*(volatile uint32_t *)(0x08000000ul + (offset)))
#define GICC(offset) (*(volatile uint32_t *)(0x08010000ul + (offset)))

enum { DR = 0x00, FR = 0x18, LCR_H = 0x2c, CR = 0x30, IMSC = 0x38, ICR = 0x44 };
enum { FR_RXFE = 1 << 4, FR_TXFF = 1 << 5, INT_RX = 1 << 4, INT_RT = 1 << 6 };
enum { GICD_CTLR = 0x000, GICD_ISENABLER1 = 0x104, GICD_ITARGETSR8 = 0x820 };
enum { GICC_CTLR = 0x00, GICC_PMR = 0x04, GICC_IAR = 0x0c, GICC_EOIR = 0x10 };
enum { UART_INTERRUPT = 33, FIRST_SPECIAL_INTERRUPT = 1020 };

/* What has been typed and not yet read; filled by the interrupt handler, emptied by read_line. */
static volatile uint8_t typed[256];
static volatile uint32_t typed_in, typed_out;

void board_start(void)
{
    GICD(GICD_CTLR) = 1;
    GICD(GICD_ITARGETSR8) = 0x0100; /* interrupt 33 to CPU 0 */
    GICD(GICD_ISENABLER1) = 1u << (UART_INTERRUPT - 32);
    GICC(GICC_PMR) = 0xff;
    GICC(GICC_CTLR) = 1;
    UART(LCR_H) = 0x70; /* 8 bits, FIFOs on */
    UART(ICR) = 0x7ff;
    UART(CR) = 0x301; /* enabled, both directions */
    UART(IMSC) = INT_RX | INT_RT;
    __asm__ volatile("msr daifclr, #2" ::: "memory");
}

void on_interrupt(void)
{
    uint32_t acknowledged = GICC(GICC_IAR);
    uint32_t interrupt = acknowledged & 0x3ff;

    if (interrupt >= FIRST_SPECIAL_INTERRUPT)
        return; /* spurious */
    if (interrupt == UART_INTERRUPT) {
        UART(ICR) = INT_RX | INT_RT; /* first: a byte that comes while the FIFO is emptied raises it again */
        while (!(UART(FR) & FR_RXFE)) {
            uint8_t byte = (uint8_t)UART(DR);

            if (typed_in - typed_out < sizeof typed)
                typed[typed_in++ % sizeof typed] = byte;
        }
    }
    GICC(GICC_EOIR) = acknowledged;
}

void on_exception(uint64_t syndrome, uint64_t pc, uint64_t address)
{
    put_text("\nunexpected exception: ESR ");
    put_hex(syndrome);
    put_text(" at ");
    put_hex(pc);
    put_text(", FAR ");
    put_hex(address);
    put_char('\n');
    power_off();
}

static char next_typed(void)
{
    char character;

    /* Masked, a pending interrupt still ends WFI: nothing can slip in between the look and the wait. */
    __asm__ volatile("msr daifset, #2" ::: "memory");
    while (typed_in == typed_out) {
        __asm__ volatile("wfi\n\tmsr daifclr, #2\n\tisb\n\tmsr daifset, #2" ::: "memory");
    }
    character = (char)typed[typed_out++ % sizeof typed];
    __asm__ volatile("msr daifclr, #2" ::: "memory");
    return character;
}

size_t read_line(char *line, size_t size)
{
    size_t length = 0;

    for (;;) {
        char character = next_typed();

        if (character == '\r' || character == '\n')
            break;
        if ((character == '\b' || character == 0x7f) && length > 0) {
            length--;
            put_text("\b \b");
        } else if (character >= ' ' && character < 0x7f && length + 1 < size) {
            line[length++] = character;
            put_char(character);
        }
    }
    line[length] = '\0';
    put_char('\n');
    return length;
}

static void put_byte(uint8_t byte)
{
    while (UART(FR) & FR_TXFF)
        ;
    UART(DR) = byte;
}

void put_char(char character)
{
    if (character == '\n')
        put_byte('\r');
    put_byte((uint8_t)character);
}

void put_text(const char *text)
{
    while (*text)
        put_char(*text++);
}

void put_number(int64_t number)
{
    char digits[20];
    int count = 0;
    uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;

    if (number < 0)
        put_char('-');
    do {
        digits[count++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    while (count)
        put_char(digits[--count]);
}

void put_hex(uint64_t number)
{
    int shift = 60;

    put_text("0x");
    while (shift > 0 && !(number >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        put_char("0123456789abcdef"[number >> shift & 15]);
}

uint64_t microseconds(void)
{
    uint64_t counter, frequency;

    __asm__ volatile("isb\n\tmrs %0, cntvct_el0\n\tmrs %1, cntfrq_el0" : "=r"(counter), "=r"(frequency));
    return counter / (frequency / 1000000);
}
