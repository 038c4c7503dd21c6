"""Each monitor command exists once, here (floor L3)."""
