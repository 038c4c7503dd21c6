"""The completion files in the shells that they are for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import need
from tests.tmux import Tmux
from timevm.config.completion import completion
from timevm.config.table import BY_NAME

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def typist(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tmux]:
    """A shell with the completion in force, in a folder with a file ``Image``."""
    shell: str = request.param
    (tmp_path / "Image").write_text("")
    (tmp_path / "completion").write_text(completion(shell))
    start = {
        "bash": "bash --norc --noprofile",
        "zsh": "env ZDOTDIR=/nonexistent zsh -f",
        "fish": f"env XDG_CONFIG_HOME={tmp_path} XDG_DATA_HOME={tmp_path} fish --no-config",
    }[shell]
    need(shell)
    terminal = Tmux(f"cd {tmp_path} && PS1='> ' TERM=xterm {start}", rows=40)
    if shell == "zsh":
        terminal.type("autoload -Uz compinit && compinit -D; PS1='> '", "Enter")
    terminal.type("source ./completion; echo re''ady", "Enter")
    yield terminal
    terminal.close()


@pytest.mark.parametrize("typist", SHELLS, indirect=True)
async def test_a_shell_completes(typist: Tmux) -> None:
    await typist.shows("(?m)^ready")
    typist.type("timevm-system-aarch64 -M vi", "Tab")
    await typist.shows(r"(?m)-M virt$")
    typist.type("-nogra", "Tab")
    await typist.shows(r"(?m)-nographic$")
    typist.type("-kernel Im", "Tab")
    await typist.shows(r"(?m)-kernel Image$")
    typist.type("-cpu cortex-a72", "Tab")
    await typist.shows(r"(?m)-cpu cortex-a72$")
    typist.type("-serial mon", "Tab")
    await typist.shows(r"(?m)-serial mon:stdio$")
    typist.type("C-u")
    typist.type("timevm system-x86_64 -M p", "Tab")
    await typist.shows(r"(?m)system-x86_64 -M pc$")
    typist.type("-device virtio-bl", "Tab")
    await typist.shows(r"(?m)-device virtio-blk-pci$")
    typist.type("C-u")
    typist.type("timevm-system-riscv64 -bios no", "Tab")
    await typist.shows(r"(?m)-bios none$")
    typist.type("-bios Im", "Tab")
    await typist.shows(r"(?m)-bios Image$")
    typist.type("C-u")
    typist.type("timevm completion fi", "Tab")
    await typist.shows(r"(?m)completion fish$")
    typist.type("C-u")
    typist.type("timevm img conv", "Tab")
    await typist.shows(r"(?m)img convert$")
    typist.type("Im", "Tab")
    await typist.shows(r"(?m)img convert Image$")
    typist.type("C-u")
    typist.type("timevm log sta", "Tab")
    await typist.shows(r"(?m)log stat$")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_file_is_sound_and_whole(shell: str, tmp_path: Path) -> None:
    text = completion(shell)
    (tmp_path / "file").write_text(text)
    subprocess.run([need(shell), "-n", str(tmp_path / "file")], check=True, timeout=20)
    for name in BY_NAME:
        assert f"-{name}" in text or f"-o {name} " in text
