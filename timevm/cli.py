"""Command line entry points."""

from __future__ import annotations

from timevm import __version__


def main() -> int:
    """Entry point of ``timevm``."""
    print(f"timevm {__version__}")
    return 0


def main_system_aarch64() -> int:
    """Entry point of ``timevm-system-aarch64``."""
    return main()
