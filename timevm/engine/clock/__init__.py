"""Virtual time: icount to nanoseconds, timers, idle warp (floor L1)."""
