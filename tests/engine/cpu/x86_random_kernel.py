"""The small kernel under random x86 programs: it logs each fault and goes on at the next chunk (``x86_random``)."""

from __future__ import annotations

from tests.engine.cpu.x86_board import LONG_MODE

WITH_ERROR_CODE = (8, 10, 11, 12, 13, 14, 17)
STUBS = "\n".join(
    f".balign 16\nstub{vector}: {'nop; nop' if vector in WITH_ERROR_CODE else 'push 0'}\n push {vector}\n jmp common"
    for vector in range(32)
)
KERNEL = (
    LONG_MODE.replace(
        "    .quad 0\ntss:", "    .quad 0\n    .quad 0x0000fb200000ffff, 0x0000f3280000ffff\ntss:"
    ).replace(
        "mov [edi], eax\n    add eax, 0x200000",
        "mov [edi], eax\n    add eax, 0x200000\n    cmp edi, 0x6008\n    jbe 2f\n    xor eax, eax\n2:",
    )
    + """
    mov dword ptr [0x6000], 0x83
    mov dword ptr [0x6008], 0x9007
    mov edi, 0x9000
    mov eax, 0x200007
6:  mov [rdi], eax
    add eax, 0x1000
    add edi, 8
    cmp edi, 0xa000
    jne 6b
    mov dword ptr [0x9000 + 8 * 0x84], 0x284005
    mov dword ptr [0x9000 + 8 * 0x83], 0x283005
    mov dword ptr [0x9000 + 8 * 0x8f], 0x9007
    mov rax, cr3
    mov cr3, rax
    mov ebx, 0x8000
    lea rcx, [rip + stub0]
    lea rdx, [rip + stub1]
    sub rdx, rcx
    xor edi, edi
3:  mov rax, rcx
    mov [rbx], ax
    mov word ptr [rbx + 2], 8
    mov word ptr [rbx + 4], 0x8e00
    cmp edi, 3
    je 5f
    cmp edi, 4
    jne 4f
5:  mov word ptr [rbx + 4], 0xee00
4:  shr rax, 16
    mov [rbx + 6], ax
    mov dword ptr [rbx + 8], 0
    mov dword ptr [rbx + 12], 0
    add ebx, 16
    add rcx, rdx
    inc edi
    cmp edi, 32
    jne 3b
    lea rax, [rip + irq]
    mov ebx, 0x8400
    mov [rbx], ax
    mov word ptr [rbx + 2], 8
    mov word ptr [rbx + 4], 0x8e00
    shr rax, 16
    mov [rbx + 6], ax
    mov dword ptr [rbx + 8], 0
    mov rax, 0x600
    mov rcx, cr4
    or rax, rcx
    mov cr4, rax
    jmp start
.balign 16
"""
    + STUBS
    + """
common:
    push rax
    push rbx
    mov rbx, [chunk + 8]
    mov rax, [rsp + 16]
    mov [rbx], rax
    mov rax, [rsp + 24]
    mov [rbx + 8], rax
    mov rax, [rsp + 32]
    mov [rbx + 16], rax
    mov rax, [rsp + 48]
    mov [rbx + 24], rax
    mov rax, cr2
    mov [rbx + 32], rax
    mov rax, [rsp]
    xor rax, [rsp + 8]
    xor rax, rcx
    add rax, rdx
    xor rax, rsi
    add rax, rdi
    xor rax, rbp
    add rax, [rsp + 56]
    xor rax, r8
    add rax, r9
    xor rax, r10
    add rax, r15
    mov [rbx + 40], rax
    fninit
    add ebx, 64
    and ebx, 0x1fffff
    or ebx, 0x180000
    mov [chunk + 8], rbx
    mov rax, [chunk]
    inc eax
    and eax, 15
    mov [chunk], rax
    shl eax, 6
    add eax, [place_of_code]
    mov [rsp + 32], rax
    mov eax, [selector]
    mov [rsp + 40], rax
    mov dword ptr [rsp + 48], 0x202
    mov eax, [end_of_stack]
    mov [rsp + 56], rax
    mov eax, [data_selector]
    mov [rsp + 64], rax
    mov ds, eax
    mov es, eax
    pop rbx
    pop rax
    mov ebx, [place_of_data]
    lea esi, [rbx + 0x1000]
    lea edi, [rbx + 0x2000]
    lea ebp, [rbx + 0x3000]
    lea ebx, [rbx + 0x4000]
    add rsp, 16
    iretq
irq:
    push rax
    mov rax, [rsp + 8]
    add rax, [rsp + 24]
    xor [interrupted], rax
    rol qword ptr [interrupted], 7
    pop rax
    iretq
.balign 16
interrupted: .quad 0
chunk: .quad 0, 0x180000
selector: .quad 0
data_selector: .quad 0
place_of_code: .quad 0
place_of_data: .quad 0
end_of_stack: .quad 0
start:
    mov eax, [data_selector]
    mov ds, eax
    mov es, eax
    push rax
    mov eax, [end_of_stack]
    push rax
    push 0x202
    mov eax, [selector]
    push rax
    mov eax, [place_of_code]
    push rax
    fninit
    mov ebx, [place_of_data]
    lea esi, [rbx + 0x1000]
    lea edi, [rbx + 0x2000]
    lea ebp, [rbx + 0x3000]
    lea ebx, [rbx + 0x4000]
    iretq
"""
)
for name in ("chunk", "interrupted", "selector", "data_selector", "place_of_code", "place_of_data", "end_of_stack"):
    KERNEL = KERNEL.replace(f"[{name}", f"[rip + {name}")
