// Power guest for -M virt (arm64, GICv2, PL061): counts its boots in memory that no reset clears, and ends as it is told.
// Byte 'r': PSCI SYSTEM_RESET, 'q': SYSTEM_OFF, any other: echoed.  The power button (GPIO line 3): SYSTEM_OFF.
    .equ GICD, 0x08000000
    .equ GICC, 0x08010000
    .equ UART, 0x09000000
    .equ GPIO, 0x09030000
    .equ BOOTS, 0x40400000      // not part of the program: nobody loads it anew
    .equ INT_UART, 33           // SPI 1
    .equ INT_GPIO, 39           // SPI 7
    .equ KEY, 1 << 3

    .text
    .globl _start
_start:
    ldr x0, =stack_top
    mov sp, x0
    ldr x0, =vectors
    msr vbar_el1, x0
    isb
    ldr x19, =UART
    ldr x20, =GICC
    ldr x21, =GPIO
    // distributor, the two interrupts, CPU interface
    ldr x1, =GICD
    mov w0, #1
    str w0, [x1]
    mov w0, #(1 << (INT_UART - 32) | 1 << (INT_GPIO - 32))
    str w0, [x1, #0x104]                // GICD_ISENABLER1
    mov w0, #0x0100
    str w0, [x1, #0x820]                // GICD_ITARGETSR8: 33 -> CPU 0
    mov w0, #0x01000000
    str w0, [x1, #0x824]                // GICD_ITARGETSR9: 39 -> CPU 0
    mov w0, #0xff
    str w0, [x20, #4]                   // GICC_PMR
    mov w0, #1
    str w0, [x20]                       // GICC_CTLR
    // UART: 8 bits, no FIFO, receive interrupt
    mov w0, #0x60
    str w0, [x19, #0x2c]
    mov w0, #0x301
    str w0, [x19, #0x30]
    mov w0, #0x50
    str w0, [x19, #0x38]
    // GPIO: rising edge of the power key
    mov w0, #KEY
    str w0, [x21, #0x40c]
    str w0, [x21, #0x410]
    // how often was that?
    ldr x2, =BOOTS
    ldr w3, [x2]
    add w3, w3, #1
    str w3, [x2]
    ldr x1, =m_boot
    bl puts
    mov w4, #12
1:  lsr w0, w3, w4
    and w0, w0, #15
    add w0, w0, #'0'
    cmp w0, #'9'
    b.ls 2f
    add w0, w0, #('a' - '9' - 1)
2:  str w0, [x19]
    subs w4, w4, #4
    b.pl 1b
    mov w0, #'\n'
    str w0, [x19]
    msr daifclr, #2
    .globl idle
idle:
    wfi
    b idle

puts:                                   // x1: zero-terminated
    ldrb w0, [x1], #1
    cbz w0, 9f
    str w0, [x19]
    b puts
9:  ret

    .globl irq
irq:
    ldr w14, [x20, #0x0c]               // GICC_IAR
    and w0, w14, #0x3ff
    cmp w0, #INT_GPIO
    b.eq on_key
    cmp w0, #INT_UART
    b.ne out
    ldr w0, [x19]
    and w0, w0, #0xff
    cmp w0, #'r'
    b.eq on_reset
    cmp w0, #'q'
    b.eq on_quit
    str w0, [x19]
    str w14, [x20, #0x10]               // GICC_EOIR
out:
    eret
on_key:
    ldr w0, [x21, #0x418]               // GPIOMIS
    str w0, [x21, #0x41c]               // GPIOIC
    ldr x1, =m_key
    bl puts
    b off
on_quit:
    ldr x1, =m_off
    bl puts
    .globl off
off:
    ldr x0, =0x84000008                 // PSCI SYSTEM_OFF
    hvc #0
1:  wfi
    b 1b
on_reset:
    ldr x1, =m_reset
    bl puts
    ldr x0, =0x84000009                 // PSCI SYSTEM_RESET
    hvc #0
1:  wfi
    b 1b

bad:                                    // any other exception
    mov w0, #'!'
    str w0, [x19]
1:  wfi
    b 1b

    .macro vec target
    .balign 128
    b \target
    .endm
    .balign 2048
vectors:
    vec bad                             // EL1t
    vec bad
    vec bad
    vec bad
    vec bad                             // EL1h: sync
    vec irq
    vec bad
    vec bad
    vec bad                             // lower EL
    vec bad
    vec bad
    vec bad
    vec bad
    vec bad
    vec bad
    vec bad
    .balign 8
    .ltorg
m_boot:  .asciz "boot "
m_key:   .asciz "power button\n"
m_off:   .asciz "off\n"
m_reset: .asciz "reset\n"
    .balign 4096
stack: .skip 4096
stack_top:
