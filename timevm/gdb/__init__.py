"""The gdb remote protocol: packets, requests, target descriptions, the session and its server (floor L4)."""
