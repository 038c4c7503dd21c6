"""The guest that timevm ships; its sources are in ``examples/guests/demo``."""

from __future__ import annotations

from pathlib import Path

#: bare metal for ``-M virt``, with its debugging information
DEMO_AARCH64 = Path(__file__).with_name("demo-aarch64.elf")
#: what it was built from, for debuggers: links to ``examples/guests/demo``, copies in an installed package
DEMO_SOURCES = Path(__file__).with_name("sources")
