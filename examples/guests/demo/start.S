// Entry, exception vectors and the switch to C.  -M virt starts an ELF here, at EL1, interrupts masked, MMU off.

    .section .text.start, "ax"
    .globl _start
    .type _start, %function
_start:
    adrp x0, stack_top
    add x0, x0, :lo12:stack_top
    mov sp, x0
    adrp x0, vectors
    add x0, x0, :lo12:vectors
    msr vbar_el1, x0
    adrp x0, bss_start
    add x0, x0, :lo12:bss_start
    adrp x1, bss_end
    add x1, x1, :lo12:bss_end
1:  cmp x0, x1
    b.hs 2f
    str xzr, [x0], #8
    b 1b
2:
#ifdef WITH_MMU
    bl turn_mmu_on
#endif
    isb
    bl main
    bl power_off
3:  wfi
    b 3b
    .size _start, . - _start

#ifdef WITH_MMU
// A flat map of 1 GiB blocks (4 KiB granule, 39 bits, level 1): 0 = device, 1 = RAM, write-back, executable.
    .type turn_mmu_on, %function
turn_mmu_on:
    adrp x0, level1
    add x0, x0, :lo12:level1
    mov x1, #0x401                      // block, AF, attribute 0; execute-never for devices
    orr x1, x1, #(1 << 54)
    str x1, [x0]
    mov x1, #0x705                      // block, AF, inner shareable, attribute 1
    movk x1, #0x4000, lsl #16
    str x1, [x0, #8]
    mov x1, #0xff00                     // attribute 0: Device-nGnRnE, 1: Normal write-back
    msr mair_el1, x1
    mov x1, #0x3519                     // T0SZ=25, inner and outer write-back, inner shareable
    movk x1, #0x0080, lsl #16           // EPD1: no walks for the upper half
    msr tcr_el1, x1
    msr ttbr0_el1, x0
    isb
    tlbi vmalle1
    dsb nsh
    isb
    mrs x1, sctlr_el1
    mov x2, #0x1005                     // M, C, I
    orr x1, x1, x2
    msr sctlr_el1, x1
    isb
    ret
    .size turn_mmu_on, . - turn_mmu_on
#endif

    .macro vector target
    .balign 128
    b \target
    .endm

    .text
    .balign 2048
vectors:
    .rept 4                             // EL1 with SP_EL0: never used
    vector unexpected
    .endr
    vector unexpected                   // EL1: synchronous
    vector interrupt                    // EL1: IRQ
    vector unexpected
    vector unexpected
    .rept 8                             // EL0: never used
    vector unexpected
    .endr

    .type interrupt, %function
interrupt:
    stp x0, x1, [sp, #-160]!
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x30, [sp, #144]
    bl on_interrupt
    ldp x18, x30, [sp, #144]
    ldp x16, x17, [sp, #128]
    ldp x14, x15, [sp, #112]
    ldp x12, x13, [sp, #96]
    ldp x10, x11, [sp, #80]
    ldp x8, x9, [sp, #64]
    ldp x6, x7, [sp, #48]
    ldp x4, x5, [sp, #32]
    ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp], #160
    eret
    .size interrupt, . - interrupt

    .type unexpected, %function
unexpected:
    mrs x0, esr_el1
    mrs x1, elr_el1
    mrs x2, far_el1
    b on_exception
    .size unexpected, . - unexpected

// void power_off(void): PSCI 0.2 SYSTEM_OFF by HVC; does not come back
    .globl power_off
    .type power_off, %function
power_off:
    movz w0, #0x8400, lsl #16
    movk w0, #0x0008
    hvc #0
4:  wfi
    b 4b
    .size power_off, . - power_off

    .bss
#ifdef WITH_MMU
    .balign 4096
level1:
    .skip 4096
#endif
    .balign 16
    .skip 16384
stack_top:
