"""Small programs for the PC, in nasm's language: kernels with a multiboot header, boot sectors."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.peers import need

#: where the kernels are loaded and begin; 32-bit code, flat segments
LOAD = 0x20_0000

KERNEL = """
bits 32
org 0x200000
    dd 0x1BADB002, 0x00010000, -(0x1BADB002 + 0x00010000)
    dd 0x200000, 0x200000, 0, 0, start
stack: times 256 db 0
%macro print 1
    mov esi, %1
    call put
%endmacro
put:                        ; the text at esi, to the first serial port
    mov dx, 0x3F8
.next:
    lodsb
    test al, al
    jz .done
    out dx, al
    jmp .next
.done:
    ret
off:                        ; ACPI: sleep type 0, sleep
    mov dx, 0x604
    mov ax, 0x2000
    out dx, ax
    hlt
align 8
gdt: dq 0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF
gdt_pointer: dw 31
    dd gdt
idt_pointer: dw 0x7FF
    dd 0x210000
interrupts:                 ; handlers for vectors 20h (timer) and 24h (serial) at `on_timer`, `on_serial`
    lgdt [gdt_pointer]
    mov eax, on_timer
    mov edi, 0x210000 + 0x20 * 8
    call gate
    mov eax, on_serial
    mov edi, 0x210000 + 0x24 * 8
    call gate
    lidt [idt_pointer]
    mov al, 0x11            ; both controllers: vectors 20h and 28h
    out 0x20, al
    out 0xA0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xA1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xA1, al
    mov al, 1
    out 0x21, al
    out 0xA1, al
    mov al, 0xEE            ; timer and serial
    out 0x21, al
    mov al, 0xFF
    out 0xA1, al
    ret
gate:
    mov [edi], ax
    mov word [edi + 2], 0x10
    mov word [edi + 4], 0x8E00
    shr eax, 16
    mov [edi + 6], ax
    ret
"""


def assemble(source: str, path: Path) -> Path:
    """The flat binary of ``source``, at ``path``."""
    text = path.with_suffix(".asm")
    text.write_text(source)
    done = subprocess.run(
        [need("nasm"), "-f", "bin", "-o", str(path), str(text)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return path


def kernel(body: str, path: Path, handlers: str = "on_timer: iret\non_serial: iret\n") -> Path:
    """A multiboot kernel that begins with ``body`` at ``start``."""
    return assemble(f"{KERNEL}\n{handlers}\nstart:\n    mov esp, stack + 256\n{body}", path)


BOOT_SECTOR = """
bits 16
org 0x7C00
    cli
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7C00
    sti
    mov [drive], dl
    mov si, hello
    call put
    mov ah, 0x42            ; extended read: sectors 1 to 8 to 8000h
    mov dl, [drive]
    mov si, packet
    int 0x13
    jc failed
    mov si, 0x8000
    call put
    mov ah, 0x43            ; and write the first of them to sector 100
    mov al, 0
    mov dl, [drive]
    mov word [packet + 2], 1
    mov dword [packet + 8], 100
    mov si, packet
    int 0x13
    jc failed
off:
    mov dx, 0x604
    mov ax, 0x2000
    out dx, ax
    hlt
failed:
    mov si, bad
    call put
    jmp off
put:
    mov dx, 0x3F8
.next:
    lodsb
    test al, al
    jz .done
    out dx, al
    jmp .next
.done:
    ret
drive: db 0
hello: db "boot sector", 13, 10, 0
bad: db "disk error", 13, 10, 0
align 4
packet: db 16, 0
    dw 8, 0x8000, 0
    dq 1
times 510 - ($ - $$) db 0
    dw 0xAA55
    db "second sector", 13, 10, 0
times 1024 * 1024 - ($ - $$) db 0
"""
