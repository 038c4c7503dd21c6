// Loop guest for -M virt (arm64): 1001 M instructions of loads, stores and arithmetic, "S" before and "E" behind them.
// The labels p0, p1, p10, ... p1001 say how many millions of the loop are done.  The loop, the labels and the data are on
// pages of their own; hotcold is an address in the loop's page that is never executed.
    .macro phase label, rounds
    .globl \label
\label:
    ldr x0, =\rounds
    bl loop
    nop
    .endm

    .globl _start
_start:
    ldr x9, =0x09000000
    mov w10, #'S'
    str w10, [x9]
    ldr x1, =buf
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
