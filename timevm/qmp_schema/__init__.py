"""pydantic models named as in QEMU's QAPI, and the command registry (floor L0)."""
