"""What monitors look at now and then: page tables, core files.  Imported by those who do, not at the start."""

from __future__ import annotations

from timevm.engine.cpu.mappings import Mappings
from timevm.engine.vmcore.core_dump import CoreDump, DumpRequest

__all__ = ["CoreDump", "DumpRequest", "Mappings"]
