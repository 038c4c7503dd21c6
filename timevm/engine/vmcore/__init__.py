"""The guest's memory and registers as an ELF core file (floor L1)."""
