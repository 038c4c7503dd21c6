// Loop guest for -M virt (arm64): 1001 M instructions of loads, stores and arithmetic, "S" before and "E" behind them.
// The labels p0, p1, p10, ... p1001 say how many millions of the loop are done.  The loop, the labels and the data are on
// pages of their own; hotcold is an address in the loop's page that is never executed.  With WITH_MMU the MMU is on first.
    .macro phase label, rounds
    .globl \label
\label:
    ldr x0, =\rounds
    bl loop
    nop
    .endm

    .globl _start
_start:
#ifdef WITH_MMU
    // flat: 1 GiB of devices, 1 GiB of RAM that is code, and the same RAM again at 2 GiB, not executable, for the data
    ldr x0, =level1
    ldr x1, =0x0060000000000401         // block, AF, attribute 0 (device), never executed
    str x1, [x0]
    ldr x1, =0x0000000040000705         // block, AF, inner shareable, attribute 1
    str x1, [x0, #8]
    ldr x1, =0x0060000040000705
    str x1, [x0, #16]
    mov x1, #0xff00
    msr mair_el1, x1
    ldr x1, =0x803519                   // 39 bits, 4 KiB, write-back, no upper half
    msr tcr_el1, x1
    msr ttbr0_el1, x0
    isb
    mrs x1, sctlr_el1
    mov x2, #0x1005                     // M, C, I
    orr x1, x1, x2
    msr sctlr_el1, x1
    isb
#endif
    ldr x9, =0x09000000
    mov w10, #'S'
    str w10, [x9]
    ldr x1, =buf
#ifdef WITH_MMU
    mov x2, #0x40000000
    add x1, x1, x2
#endif
    mov x2, #7
    mov x4, #0
    phase p0, 100000
    phase p1, 900000
    phase p10, 9000000
    phase p100, 80000000
    phase p900, 9000000
    phase p990, 900000
    phase p999, 100000
    phase p1000, 100000
    .globl p1001
p1001:
    ldr x9, =0x09000000
    mov w10, #'E'
    str w10, [x9]
    mov w10, #'\n'
    str w10, [x9]
    ldr x0, =0x84000008                 // PSCI SYSTEM_OFF
    hvc #0
1:  wfi
    b 1b
    .ltorg

    .balign 4096
    .globl loop
loop:
    ldr x3, [x1]
    add x3, x3, x2
    eor x4, x4, x3
    str x3, [x1]
    ldr x5, [x1, #8]
    add x5, x5, #1
    str x5, [x1, #8]
    lsr x6, x4, #3
    subs x0, x0, #1
    b.ne loop
    ret
    .globl hotcold
hotcold:
    nop

    .balign 4096
    .globl buf
buf:
    .quad 0, 0
#ifdef WITH_MMU
    .balign 4096
level1:
    .skip 4096
#endif
