"""The pc board as a whole, on small guests: interrupts, idling, resets, disks, firmware; recorded and replayed."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.machine.pc_guests import BOOT_SECTOR, assemble, kernel
from tests.linux.harness import Terminal, assert_same, build, record, replay
from tests.peers import need, need_file
from timevm.engine.machine.boards import SEABIOS, board_for
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import GIB, MIB, DeviceOption, Drive, MachineSpec
from timevm.engine.replay.gate import NEVER
from timevm.errors import UserError

LIMIT = 200_000_000
DISK_DEVICES = ("ide-hd", "virtio-blk-pci")


def pc(path: Path | None = None, **changes: object) -> MachineSpec:
    spec = MachineSpec(
        architecture="x86_64",
        machine="pc",
        cpu="qemu64",
        ram_bytes=32 * MIB,
        kernel=path,
        shift=2,
        sleep=False,
        seed=1,
        rtc_base=1_700_000_000,
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def recorded(spec: MachineSpec, folder: Path) -> MachineSpec:
    return replace(spec, mode="record", rrfile=folder / "pc.rr")


def console_of(spec: MachineSpec) -> bytes:
    """Of a run to power-off."""
    terminal = Terminal()
    machine = build(spec, terminal)
    try:
        result = machine.run(LIMIT)
        assert result.end is RunEnd.POWERED_OFF, (result, bytes(terminal.console))
        return bytes(terminal.console)
    finally:
        machine.finish("shutdown")
        machine.close()


HELLO = 'print text\njmp off\ntext: db "hello", 0\n'


def test_a_kernel_prints_and_switches_off(tmp_path: Path) -> None:
    assert console_of(pc(kernel(HELLO, tmp_path / "k"))) == b"hello"
    assert console_of(pc(kernel(HELLO, tmp_path / "k"), architecture="i386", cpu="qemu32")) == b"hello"


@pytest.mark.parametrize(
    "how",
    [
        "mov al, 0xFE\nout 0x64, al",
        "mov al, 3\nout 0x92, al",
        "mov dx, 0xCF9\nmov al, 6\nout dx, al",
        "lidt [nothing]\nint3\nnothing: dw 0\ndd 0",
    ],
    ids=["keyboard controller", "port 92h", "port CF9h", "triple fault"],
)
def test_resets(how: str, tmp_path: Path) -> None:
    terminal = Terminal()
    body = f'print text\n{how}\nhlt\ntext: db "R", 0\n'
    machine = build(pc(kernel(body, tmp_path / "k")), terminal)
    for _ in range(3):
        result = machine.run(LIMIT)
        assert result.end is RunEnd.RESET, result
        machine.reset()
    assert terminal.console == b"RRR"
    machine.close()


TICKS = """
    call interrupts
    mov al, 0x34            ; 100 Hz
    out 0x43, al
    mov al, 11932 & 0xFF
    out 0x40, al
    mov al, 11932 >> 8
    out 0x40, al
    sti
.wait:
    hlt
    cmp dword [ticks], 20
    jb .wait
    print text
    jmp off
text: db "ticks", 0
ticks: dd 0
"""
ON_TIMER = """
on_timer:
    inc dword [ticks]
    push eax
    mov al, 0x20
    out 0x20, al
    pop eax
    iret
"""


def test_timer_interrupts_wake_an_idle_machine(tmp_path: Path) -> None:
    terminal = Terminal()
    machine = build(pc(kernel(TICKS, tmp_path / "k", ON_TIMER + "on_serial: iret\n")), terminal)
    assert machine.run(LIMIT).end is RunEnd.POWERED_OFF
    assert terminal.console == b"ticks"
    assert abs(machine.now_ns() - 190_000_000) < 1_000_000, "19 periods of 10 ms: OUT rises with the control word too"
    machine.close()


ECHO = """
    call interrupts
    mov dx, 0x3FA           ; FIFOs on, trigger at one byte
    mov al, 7
    out dx, al
    mov dx, 0x3F9
    mov al, 1
    out dx, al
    sti
    print text
.wait:
    hlt
    cmp byte [last], 'q'
    jne .wait
    jmp off
text: db "type", 13, 10, 0
last: db 0
"""
ON_SERIAL = """
on_serial:
    push eax
    push edx
.next:
    mov dx, 0x3FD
    in al, dx
    test al, 1
    jz .done
    mov dx, 0x3F8
    in al, dx
    mov [last], al
    out dx, al
    jmp .next
.done:
    mov al, 0x20
    out 0x20, al
    pop edx
    pop eax
    iret
"""


def test_typing_is_recorded_and_replayed(tmp_path: Path) -> None:
    spec = recorded(pc(kernel(ECHO, tmp_path / "k", "on_timer: iret\n" + ON_SERIAL)), tmp_path)
    outcome = record(spec, [(b"type", b"hello"), (b"hello", b" world q")])
    assert outcome.console == b"type\r\nhello world q"
    for limits in ((NEVER,), range(1, outcome.icount, 7)):
        assert_same(outcome, replay(spec, limits))


def with_disk(spec: MachineSpec, image: Path, driver: str) -> MachineSpec:
    drives = (
        Drive("direct", image, format="raw", snapshot=True),
        Drive("disk", driver="blkreplay", image="direct"),
    )
    return replace(spec, drives=drives, devices=(DeviceOption(driver, None, (("drive", "disk"),)),))


def firmware() -> Path:
    return need_file(str(SEABIOS))


@pytest.mark.parametrize("driver", DISK_DEVICES)
@pytest.mark.parametrize("architecture", ["x86_64", "i386"])
def test_seabios_boots_a_disk_recorded_and_replayed(architecture: str, driver: str, tmp_path: Path) -> None:
    """The sector is read and written through the firmware's driver of that controller."""
    firmware()
    image = assemble(BOOT_SECTOR, tmp_path / "disk.img")
    cpu = "qemu64" if architecture == "x86_64" else "qemu32"
    spec = recorded(with_disk(pc(architecture=architecture, cpu=cpu), image, driver), tmp_path)
    outcome = record(spec)
    assert b"SeaBIOS (version" in outcome.console
    assert outcome.console.endswith(b"second sector\r\n") and b"boot sector\r\n" in outcome.console
    assert_same(outcome, replay(spec))
    assert_same(outcome, replay(spec, range(10_000, outcome.icount, 99_991)))


def test_a_machine_is_restored_in_the_middle_of_its_firmware(tmp_path: Path) -> None:
    """State taken at places all over the run, devices and RAM put into a fresh machine: it ends the same."""
    firmware()
    image = assemble(BOOT_SECTOR, tmp_path / "disk.img")
    spec = recorded(with_disk(pc(), image, "ide-hd"), tmp_path)
    outcome = record(spec)
    terminal = Terminal()
    original = build(replace(spec, mode="play"), terminal)
    for numerator in range(1, 8):
        at = outcome.icount * numerator // 8
        while original.run(at).end is RunEnd.KICKED:
            pass
        state = original.state()
        assert original.state() == state, "looking changes nothing"
        before = original.digest()
        original.restore(state)
        assert original.digest() == before
    while original.run(NEVER).end is RunEnd.KICKED:
        pass
    assert original.digest() == outcome.digest and bytes(terminal.console) == outcome.console
    original.close()


def test_the_exit_port_and_the_debug_console(tmp_path: Path) -> None:
    body = "mov al, 'd'\nout 0xE9, al\nmov al, 1\nout 0xF4, al\nhlt\n"
    devices = (
        DeviceOption("isa-debugcon", None, ()),
        DeviceOption("isa-debug-exit", None, (("iobase", "0xf4"), ("iosize", "4"))),
    )
    seen: list[tuple[int, bytes]] = []
    machine = build_machine(
        pc(kernel(body, tmp_path / "k"), devices=devices), lambda port, data: seen.append((port, data))
    )
    assert machine.run(LIMIT).end is RunEnd.POWERED_OFF and seen == [(1, b"d")]
    machine.close()


def test_four_serial_ports(tmp_path: Path) -> None:
    body = "".join(
        f"mov dx, {port:#x}\nmov al, '{number}'\nout dx, al\n"
        for number, port in enumerate((0x3F8, 0x2F8, 0x3E8, 0x2E8))
    )
    seen: list[tuple[int, bytes]] = []
    machine = build_machine(
        pc(kernel(body + "jmp off\n", tmp_path / "k"), serial_ports=4), lambda port, data: seen.append((port, data))
    )
    assert machine.run(LIMIT).end is RunEnd.POWERED_OFF
    machine.close()
    assert sorted(seen) == [(number, b"%d" % number) for number in range(4)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ram_bytes": 4 * GIB}, "at most 3584M"),
        ({"serial_ports": 5}, "has 4 serial ports"),
        ({"bios": Path("/dev/null")}, "starts a kernel without firmware"),
        ({"devices": (DeviceOption("virtio-rng-pci", None, (("addr", "1"),)),)}, "slot 1 function 0 not available"),
        ({"devices": (DeviceOption("virtio-rng-pci", None, (("addr", "20"),)),)}, "expects a slot"),
        ({"devices": (DeviceOption("virtio-rng-pci", None, (("bus", "pci.1"),)),)}, "Bus 'pci.1' not found"),
        ({"devices": (DeviceOption("isa-debugcon", None, (("iobase", "x"),)),)}, "number of a port"),
        ({"dtb": Path("/dev/null")}, "no device tree"),
    ],
)
def test_machines_that_cannot_be(changes: dict[str, object], why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        build_machine(pc(kernel(HELLO, tmp_path / "k"), **changes), lambda port, data: None)


def test_places_of_ide_drives(tmp_path: Path) -> None:
    images = [tmp_path / f"{number}.img" for number in range(5)]
    for image in images:
        image.write_bytes(bytes(1 << 20))

    def spec(*devices: tuple[tuple[str, str], ...]) -> MachineSpec:
        drives = tuple(Drive(f"d{number}", image, format="raw") for number, image in enumerate(images[: len(devices)]))
        options = tuple(
            DeviceOption("ide-hd", None, (("drive", f"d{number}"), *properties))
            for number, properties in enumerate(devices)
        )
        return pc(kernel(HELLO, tmp_path / "k"), drives=drives, devices=options)

    machine = build_machine(spec((), (("bus", "ide.1"),), ()), lambda port, data: None)
    channels = machine.device_states()["ide"]["channels"]
    assert [[drive is not None for drive in channel["drives"]] for channel in channels] == [[True, True], [True, False]]
    machine.close()
    for devices, why in (
        (((),) * 5, "no free place"),
        (((("bus", "ide.1"), ("unit", "0")),) * 2, "no free place"),
        (((("bus", "ide.2"),),), "Bus 'ide.2' not found"),
        (((("unit", "2"),),), "supports only 2 units"),
        (((("serial", "x" * 21),),), "at most 20 characters"),
        (((("colour", "red"),),), "Property 'ide-hd.colour' not found"),
    ):
        with pytest.raises(UserError, match=why):
            build_machine(spec(*devices), lambda port, data: None)


def test_without_firmware_and_kernel_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = replace(board_for("x86_64", "pc"), firmware=tmp_path / "none")
    with pytest.raises(UserError, match="apt-get install seabios"):
        board.with_firmware(pc())
    assert board.with_firmware(pc(tmp_path / "k")).bios is None


GRUB = """serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
menuentry guest {
    multiboot /kernel one two
    module /module
}
"""


@pytest.mark.linux  # GRUB polls the timer for 55 ms of virtual time, 4.6 million times: seconds
def test_seabios_and_grub_start_a_kernel_from_a_cd(tmp_path: Path) -> None:
    """El Torito, packet commands, multiboot: from an ISO image that grub-mkrescue made; recorded and replayed."""
    firmware()
    body = """
    mov esi, [ebx + 16]     ; the command line, in the multiboot information
    call put
    mov esi, [ebx + 24]     ; the first module's first byte
    mov esi, [esi]
    call put
    jmp off
    """
    tree = tmp_path / "tree"
    (tree / "boot" / "grub").mkdir(parents=True)
    (tree / "boot" / "grub" / "grub.cfg").write_text(GRUB)
    kernel(body, tmp_path / "k").rename(tree / "kernel")
    (tree / "module").write_bytes(b"; the module\0")
    image = tmp_path / "cd.iso"
    need("xorriso")
    need_file("/usr/lib/grub/i386-pc/boot.img")
    subprocess.run([need("grub-mkrescue"), "-o", image, tree], check=True, capture_output=True, timeout=120)
    outcome = record(recorded(with_disk(pc(), image, "ide-cd"), tmp_path))
    assert outcome.console.endswith(b"one two; the module"), outcome.console[-200:]
    assert_same(outcome, replay(recorded(with_disk(pc(), image, "ide-cd"), tmp_path)))


def test_drives_by_interface(tmp_path: Path) -> None:
    """``-drive if=ide`` with index or media, ``if=virtio``: as QEMU places them."""
    images = [tmp_path / f"{number}.img" for number in range(3)]
    for image in images:
        image.write_bytes(bytes(1 << 20))
    drives = (
        Drive("a", images[0], format="raw", interface="virtio"),
        Drive("b", images[1], format="raw", interface="ide", properties=(("media", "cdrom"),)),
        Drive("c", images[2], format="raw", interface="ide", properties=(("index", "3"),)),
    )
    machine = build_machine(pc(kernel(HELLO, tmp_path / "k"), drives=drives), lambda port, data: None)
    states = machine.device_states()
    places = [[drive and "sense_key" in drive for drive in channel["drives"]] for channel in states["ide"]["channels"]]
    assert places == [[True, None], [None, False]], "a CD-ROM drive first, a disk at index 3"
    assert any(name.startswith("virtio-blk") for name in states)
    machine.close()
