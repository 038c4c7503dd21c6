"""What ``query-machines`` lists."""

from __future__ import annotations

from timevm.engine.machine.boards import BOARDS
from timevm.engine.machine.spec import CPU_MODELS
from timevm.qmp_schema.machine import MachineInfo


def machine_list(architecture: str) -> list[MachineInfo]:
    """The boards that there are for ``architecture``; record/replay has one processor."""
    return [
        MachineInfo(
            name=board.name,
            cpu_max=1,
            hotpluggable_cpus=False,
            numa_mem_supported=False,
            deprecated=False,
            default_cpu_type=f"{CPU_MODELS[0]}-arm-cpu" if architecture == "aarch64" else None,
        )
        for board in BOARDS
        if board.architecture == architecture
    ]
