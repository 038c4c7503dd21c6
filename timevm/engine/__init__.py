"""The machine and its time: everything between a protocol's request and the CPU (floors L1 and L2)."""
