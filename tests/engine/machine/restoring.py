"""A machine's whole state in a file; ``python -m tests.engine.machine.restoring FILE``: a fresh process goes on.

The file is a pickle of (specification, state, numbers of the pages that are not zero, those pages); what the run from
there ends with is pickled to standard output.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.linux.harness import Outcome, Terminal, build
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.gate import NEVER


def save(machine: Machine, spec: MachineSpec, path: Path) -> None:
    """``spec`` is that of the replay."""
    numbers = np.flatnonzero(machine.ram.pages.any(axis=1))
    with path.open("wb") as file:
        pickle.dump((spec, machine.state(), numbers, machine.ram.pages[numbers]), file, protocol=5)


def load(path: Path, terminal: Terminal) -> Machine:
    """A machine that has run nothing, in that state."""
    spec, state, numbers, pages = pickle.loads(path.read_bytes())
    machine = build(replace(spec, mode="play"), terminal)
    machine.ram.clear(machine.ram.base, machine.ram.size)
    machine.ram.pages[numbers] = pages
    machine.cpu.code_changed(machine.ram.base, machine.ram.size)
    machine.restore(state)
    return machine


def run_to_end(machine: Machine, terminal: Terminal) -> Outcome:
    """Also over resets."""
    while (result := machine.run(NEVER)).end in (RunEnd.RESET, RunEnd.KICKED):
        if result.end is RunEnd.RESET:
            machine.reset()
    assert result.end in (RunEnd.POWERED_OFF, RunEnd.RECORDING_ENDED), result
    outcome = Outcome(bytes(terminal.console), machine.icount, machine.now_ns(), machine.digest())
    machine.finish("shutdown")
    return outcome


def rest_of_the_run(path: Path) -> Outcome:
    """In a fresh process; its console begins where the state was saved."""
    command = [sys.executable, "-m", "tests.engine.machine.restoring", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr.decode()
    outcome: Outcome = pickle.loads(done.stdout)
    return outcome


if __name__ == "__main__":
    listener = Terminal()
    sys.stdout.buffer.write(pickle.dumps(run_to_end(load(Path(sys.argv[1]), listener), listener)))
