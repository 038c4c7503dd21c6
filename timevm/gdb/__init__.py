"""The GDB remote protocol stub (floor L4)."""
