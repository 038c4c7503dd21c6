"""Run states, the CPU thread, and the async Vm facade (floor L2)."""
