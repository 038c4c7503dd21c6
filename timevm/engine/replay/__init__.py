"""Typed events, their codec, the log, and the gate through which everything from outside enters (floor L1)."""
