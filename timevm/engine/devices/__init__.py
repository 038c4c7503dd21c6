"""Devices: constructor ports, read/write by offset, a plain state record (floor L1).  No address, thread or clock."""
