"""The QMP protocol (floor L4)."""
