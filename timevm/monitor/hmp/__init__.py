"""The human monitor (floor L4)."""
