"""Command line entry points.  Everything costly is imported by the command that needs it."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable, Sequence

from timevm import __version__
from timevm.errors import TimevmError

#: ``system-NAME``: the architectures of the daemon
ARCHITECTURES = ("aarch64", "x86_64", "i386", "riscv64")
SHELLS = ("bash", "zsh", "fish")
_INTERRUPTED = 130
#: what a full disk says
_FULL = (errno.ENOSPC, errno.EDQUOT)

_USAGE = """\
usage: timevm COMMAND …

  system-aarch64 …    the virtual machine, with QEMU's options: system-aarch64 -h lists them
  system-x86_64 …     the same for a PC, and system-i386
  system-riscv64 …    the same for QEMU's RISC-V board
                      (each is a program of its own, too: timevm-system-aarch64 …)
  img …               disk images, with qemu-img's syntax: create, info, check, snapshot, map, convert, resize
  log …               look into a recording: dump, verify, stat
  demo                record a small guest with a bug, replay it, and find who damaged its memory
  completion SHELL    completion for bash, zsh or fish, to be sourced

  -h, --help          this text
  --version           the version

Examples
  timevm system-aarch64 -M virt -nographic -kernel Image -icount shift=auto,rr=record,rrfile=run.tvm
  timevm log stat run.tvm
  source <(timevm completion bash)
"""

_COMPLETION_USAGE = """\
usage: timevm completion bash|zsh|fish

Prints the completion of timevm and timevm-system-* for a shell.  For this session, or in the shell's start-up file:

  bash, zsh    source <(timevm completion bash)
  fish         timevm completion fish | source
"""


def main() -> int:
    """Entry point of ``timevm``."""
    return _guarded("timevm", lambda: _command(sys.argv[1:]))


def main_system_aarch64() -> int:
    return _guarded("timevm-system-aarch64", lambda: run_system("timevm-system-aarch64", "aarch64", sys.argv[1:]))


def main_system_x86_64() -> int:
    return _guarded("timevm-system-x86_64", lambda: run_system("timevm-system-x86_64", "x86_64", sys.argv[1:]))


def main_system_i386() -> int:
    return _guarded("timevm-system-i386", lambda: run_system("timevm-system-i386", "i386", sys.argv[1:]))


def main_system_riscv64() -> int:
    return _guarded("timevm-system-riscv64", lambda: run_system("timevm-system-riscv64", "riscv64", sys.argv[1:]))


def _guarded(program: str, work: Callable[[], int]) -> int:
    """Whatever happens, the user sees sentences and no traceback."""
    return _write_out(program, _outcome(program, work))


def _outcome(program: str, work: Callable[[], int]) -> int:
    try:
        return work()
    except TimevmError as error:
        _complain(program, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            _complain(program, f"cannot write the output: {error.strerror}")
            return 1
        if os.environ.get("TIMEVM_DEBUG"):
            raise
        _complain(
            program, f"a bug in timevm ({type(error).__name__}: {error}); TIMEVM_DEBUG=1 shows where, please report it"
        )
        return 1


def _write_out(program: str, code: int) -> int:
    """What waits in buffers is written now: at its exit the interpreter would fail in its own words, with code 120."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        _drop_output()
        if code == 0:
            _complain(program, f"cannot write the output: {error.strerror}")
            return 1
    return code


def _drop_output() -> None:
    """Whoever read our output has gone; the interpreter must not complain about that once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(program: str, text: str) -> None:
    """The first line names the program; further ones are part of the same message."""
    print(f"{program}: {text}", file=sys.stderr)


def run_system(program: str, architecture: str, arguments: Sequence[str]) -> int:
    """``timevm-system-ARCHITECTURE ARGUMENTS``."""
    # numpy's linear algebra, which nobody here uses, would start a thread for each processor that spins for a while
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # pydantic looks through all installed packages for plugins of its own (20 ms)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()  # what is imported stays; the machine switches it on again (a tenth of the start-up)
    try:
        return _run_system(program, architecture, arguments)
    finally:
        gc.enable()


def _run_system(program: str, architecture: str, arguments: Sequence[str]) -> int:
    from timevm.config import Information, parse_command_line

    config = parse_command_line(program, arguments, architecture)
    if isinstance(config, Information):
        print(config.text)
        return 0
    if config.dump_device_tree is not None:
        from timevm.system.device_tree_dump import dump_device_tree

        return dump_device_tree(config, config.dump_device_tree)
    if config.start_paused and not config.has_control:
        _complain(program, "warning: -S waits for ever: there is no monitor or debugger (-monitor, -qmp, -gdb, -s)")
    from timevm.system.app import run

    return run(config)


def _command(arguments: Sequence[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help", "help"):
        print(_USAGE, end="")
        return 0
    if name in ("--version", "-version", "version"):
        print(f"timevm {__version__}")
        return 0
    architecture = name.removeprefix("system-")
    if architecture != name and architecture in ARCHITECTURES:
        return run_system(f"timevm-{name}", architecture, rest)
    command = _COMMANDS.get(name)
    if command is None:
        from timevm.config.keyvalue import hint

        known = [*_COMMANDS, *(f"system-{each}" for each in ARCHITECTURES)]
        _complain("timevm", f"there is no command '{name}'{hint(name, known)}; timevm --help lists them")
        return 1
    return command(rest)


def _image(arguments: Sequence[str]) -> int:
    from timevm.img.command import run_img

    return run_img(arguments)


def _log(arguments: Sequence[str]) -> int:
    from timevm.log_command import log_parser, run

    return run(log_parser().parse_args(arguments))


def _demo(arguments: Sequence[str]) -> int:
    from timevm.demo import run_demo

    return run_demo(arguments)


def _completion(arguments: Sequence[str]) -> int:
    from timevm.config.completion import completion

    if list(arguments) in (["-h"], ["--help"]):
        print(_COMPLETION_USAGE, end="")
        return 0
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        _complain("timevm", f"completion: name a shell: {', '.join(SHELLS)}")
        return 1
    print(completion(arguments[0]), end="")
    return 0


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "img": _image,
    "log": _log,
    "demo": _demo,
    "completion": _completion,
}
