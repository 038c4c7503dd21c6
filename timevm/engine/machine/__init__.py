"""RAM, bus, boards as data, loaders, device tree, and the Machine that runs to an icount (floor L1)."""
