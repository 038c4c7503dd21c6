"""What ``query-machines`` lists."""

from __future__ import annotations

from timevm.config.architectures import vocabulary_of
from timevm.engine.machine.boards import BOARDS
from timevm.qmp_schema.machine import MachineInfo

_CPU_SUFFIX = {"aarch64": "arm-cpu", "x86_64": "x86_64-cpu", "i386": "i386-cpu", "riscv64": "riscv-cpu"}


def machine_list(architecture: str) -> list[MachineInfo]:
    """The boards that there are for ``architecture``; record/replay has one processor."""
    vocabulary = vocabulary_of(architecture)
    return [
        MachineInfo(
            name=board.name,
            cpu_max=1,
            hotpluggable_cpus=False,
            numa_mem_supported=False,
            deprecated=False,
            is_default=True if board.name == vocabulary.default_machine else None,
            default_cpu_type=f"{vocabulary.processors[0]}-{_CPU_SUFFIX[architecture]}",
        )
        for board in BOARDS
        if board.architecture == architecture
    ]
