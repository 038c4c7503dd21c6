"""Machine state to bytes and back (floor L1)."""
