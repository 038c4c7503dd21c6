"""Real gdb and raw packets on replays of Debian: ``start_kernel`` and back, hot kernel pages, processes, any place."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gdb.replays import gdb, in_order, replaying
from tests.gdb.test_qemu_functional import PC, step_forward
from tests.linux.harness import linux, record
from tests.linux.test_pc_debian import linux_pc
from timevm.engine.machine.spec import MachineSpec
from timevm.gdb.kernel_symbols import symbol_file

pytestmark = pytest.mark.linux

ASSEMBLER = "aarch64-linux-gnu-gcc"
#: instructions of start_kernel that get lines
LINES = 64
X86_PC = 0x10
HEADER = re.compile(r"syms ([0-9a-f]{16}) (\w+)")


@dataclass(frozen=True, slots=True)
class Boot:
    """A recorded boot; ``symbols`` are the kernel's, as the guest printed them."""

    spec: MachineSpec
    icount: int
    symbols: dict[str, int]


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Boot:
    spec = linux("syms,off", tmp_path_factory.mktemp("boot") / "boot.rr")
    outcome = record(spec)
    symbols = {name: int(address, 16) for address, name in HEADER.findall(outcome.console.decode(errors="replace"))}
    assert {"start_kernel", "schedule", "panic", "do_sys_openat2"} <= symbols.keys()
    return Boot(spec, outcome.icount, symbols)


def file_with_lines(folder: Path, boot: Boot, code: bytes) -> Path:
    """The kernel's symbols, and a line for each instruction of ``start_kernel``, whose ``code`` is given."""
    if shutil.which(ASSEMBLER) is None:
        pytest.skip(f"{ASSEMBLER} is not installed")
    words = [int.from_bytes(code[at : at + 4], "little") for at in range(0, len(code), 4)]
    others = {name: address for name, address in boot.symbols.items() if name != "start_kernel"}
    source = folder / "start_kernel.S"
    source.write_text(
        ".globl start_kernel\n.type start_kernel, %function\nstart_kernel:\n"
        + "".join(f".inst {word:#010x}\n" for word in words)
        + ".size start_kernel, . - start_kernel\n"
        + "".join(f".globl {name}\n.set {name}, {address:#x}\n" for name, address in others.items())
    )
    target = folder / "kernel-symbols"
    place = f"-Wl,-Ttext={boot.symbols['start_kernel']:#x},--build-id=none,-e,start_kernel"
    subprocess.run([ASSEMBLER, "-g", "-nostdlib", "-static", place, "-o", target, source], check=True, timeout=60)
    return target


async def test_start_kernel_next_next_next_and_back(boot: Boot, tmp_path: Path) -> None:
    async with replaying(boot.spec) as session:
        client = await session.server.connect()
        start = boot.symbols["start_kernel"]
        assert await client.ask(b"Z1,%x,4" % start) == b"OK"
        assert await client.ask(b"c") == b"T05thread:01;"
        code = bytes.fromhex((await client.ask(b"m%x,%x" % (start, LINES * 4))).decode())
        client.close()
        await session.vm.seek(0)
        symbols = file_with_lines(tmp_path, boot, code)
        begin = time.monotonic()
        output = await gdb(
            session,
            [
                *("break start_kernel", "continue", "next", "next", "next", "reverse-continue", "x/i $pc"),
                *("next", "reverse-next", "stepi", "reverse-stepi", "info symbol $pc", "delete", "reverse-continue"),
            ],
            symbols,
        )
        seconds = time.monotonic() - begin
    in_order(
        output,
        *("Breakpoint 1, start_kernel ()", "5\t", "6\t", "7\t", "Breakpoint 1, start_kernel ()", "=> "),
        *("start_kernel in section .text", "No more reverse-execution history"),
    )
    assert seconds < 5, f"it took {seconds:.1f} s"


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
async def test_the_steps_of_qemu_anywhere(boot: Boot, share: float) -> None:
    async with replaying(boot.spec) as session:
        await session.vm.seek(int(boot.icount * share))
        client = await session.server.connect()
        steps = await step_forward(client)
        for pc in reversed(steps):
            assert await client.ask(b"bs") == b"T05thread:01;"
            assert await client.register(PC) == pc
        for pc in steps:
            assert await client.register(PC) == pc
            assert await client.ask(b"s") == b"T05thread:01;"
        for pc in steps:
            assert await client.ask(b"Z1,%x,1" % pc) == b"OK"
        here = (await session.vm.replay_info()).icount
        assert await client.ask(b"bc") == b"T05thread:01;"
        assert await client.register(PC) == steps[-1]
        assert (await session.vm.replay_info()).icount == here - 1
        client.close()
        output = await gdb(
            session, ["stepi 10", "reverse-stepi 10", "p/x $pc", "python print('ok')"], Path("/dev/null")
        )
        in_order(output, f"$1 = {steps[-1]:#x}", "ok")


async def test_a_hot_kernel_function_both_ways(boot: Boot) -> None:
    """The same hits in both directions; hits near by are at hand at once."""
    async with replaying(boot.spec) as session:
        await session.vm.seek(boot.icount // 2)
        client = await session.server.connect()
        assert await client.ask(b"Z0,%x,4" % boot.symbols["schedule"]) == b"OK"
        forward = []
        for _ in range(10):
            assert await client.ask(b"c") == b"T05thread:01;"
            forward.append((await session.vm.replay_info()).icount)
        backward, seconds = [], []
        for _ in range(9):
            begin = time.perf_counter()
            assert await client.ask(b"bc") == b"T05thread:01;"
            seconds.append(time.perf_counter() - begin)
            backward.append((await session.vm.replay_info()).icount)
        assert backward == forward[-2::-1]
        assert max(seconds) < 2, seconds
        client.close()


async def test_user_processes(boot: Boot) -> None:
    """From the kernel's system call to the process behind it, and back."""
    async with replaying(boot.spec) as session:
        await session.vm.seek(boot.icount * 9 // 10)
        output = await gdb(
            session,
            [
                *(f"break *{boot.symbols['do_sys_openat2']:#x}", "continue", "p $cpsr", "break *$ELR_EL1"),
                *("continue", "p $cpsr", "x/i $pc", "stepi", "reverse-stepi", "reverse-continue", "p $pc"),
                *("continue", "p $cpsr"),
            ],
            Path("/dev/null"),
        )
    in_order(
        output,
        *("Breakpoint 1, ", "EL=1", "Breakpoint 2", "Breakpoint 2, ", "EL=0", "=> ", "Breakpoint 1, "),
        *(f"{boot.symbols['do_sys_openat2']:#x}", "Breakpoint 2, ", "EL=0"),
    )


async def test_from_the_end_back_to_the_start(boot: Boot) -> None:
    async with replaying(boot.spec) as session:
        client = await session.server.connect()
        await session.vm.seek(boot.icount)
        answers = await client.ask_all(b"c", lambda answer: answer[:1] == b"T")
        assert answers[-1] == b"T05replaylog:end;thread:01;"
        assert await client.ask(b"bs") == b"T05thread:01;"
        assert await client.ask(b"Z0,%x,4" % boot.symbols["start_kernel"]) == b"OK"
        async with asyncio.timeout(60):
            client.send(b"bc")
            assert await client.receive() == b"T05thread:01;"
        assert await client.register(PC) == boot.symbols["start_kernel"]
        assert await client.ask(b"bc") == b"T05replaylog:begin;thread:01;"
        client.close()


async def test_the_pc_and_debian_amd64(tmp_path: Path) -> None:
    """One boot for all of it: start_kernel and back with gdb, a hot function, QEMU's steps, both ends."""
    spec = linux_pc("syms,off", tmp_path / "boot.rr")
    outcome = record(spec)
    found = HEADER.findall(outcome.console.decode(errors="replace"))
    addresses = {name: int(address, 16) for address, name in found}
    symbols = tmp_path / "kernel.elf"
    symbols.write_bytes(symbol_file(sorted((at, name, True) for name, at in addresses.items()), "x86_64"))
    async with replaying(spec) as session:
        commands = ["break start_kernel", "continue", "nexti", "nexti", "nexti", "reverse-continue", "p $pc", "nexti 3"]
        output = await gdb(session, [*commands, "reverse-stepi 3", "p $pc", "delete", "reverse-continue"], symbols)
        place = f"{addresses['start_kernel']:#x} <start_kernel>"
        in_order(output, "Breakpoint 1, ", "Breakpoint 1, ", place, place, "No more reverse-execution history")
        await session.vm.seek(outcome.icount // 2)
        client = await session.server.connect()
        assert await client.ask(b"Z0,%x,1" % addresses["schedule"]) == b"OK"
        forward = []
        for _ in range(5):
            assert await client.ask(b"c") == b"T05thread:01;"
            forward.append((await session.vm.replay_info()).icount)
        for icount in forward[-2::-1]:
            assert await client.ask(b"bc") == b"T05thread:01;"
            assert (await session.vm.replay_info()).icount == icount
        for share in (0.02, 0.5, 0.97):
            await session.vm.seek(int(outcome.icount * share))
            assert await client.ask(b"z0,%x,1" % addresses["schedule"]) == b"OK"
            steps = await step_forward(client, X86_PC)
            for pc in reversed(steps):
                assert await client.ask(b"bs") == b"T05thread:01;"
                assert await client.register(X86_PC) == pc
        client.close()


async def test_the_last_write_to_a_word_of_the_kernels_stack(boot: Boot) -> None:
    """Back to it, and forward again: between it and the place where one came from there is no other."""
    sp = 31
    async with replaying(boot.spec) as session:
        await session.vm.seek(boot.icount * 2 // 3)
        client = await session.server.connect()
        stop = b"0,%x,4" % boot.symbols["schedule"]
        assert await client.ask(b"Z" + stop) == b"OK"
        assert await client.ask(b"c") == b"T05thread:01;"
        came_from = (await session.vm.replay_info()).icount
        watch = b"2,%x,8" % await client.register(sp)
        assert await client.ask(b"z" + stop) == b"OK"
        assert await client.ask(b"Z" + watch) == b"OK"
        begin = time.perf_counter()
        assert (await client.ask(b"bc")).startswith(b"T05watch:")
        assert time.perf_counter() - begin < 10
        written_at = (await session.vm.replay_info()).icount
        assert written_at < came_from
        assert await client.ask(b"Z" + stop) == b"OK"
        assert (await client.ask(b"c")).startswith(b"T05watch:")
        assert (await session.vm.replay_info()).icount == written_at
        assert await client.ask(b"c") == b"T05thread:01;"
        assert (await session.vm.replay_info()).icount == came_from
        client.close()
