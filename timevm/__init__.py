"""timevm: a virtual machine that records itself, replays bit for bit and runs backwards."""

__version__ = "0.1.0"
