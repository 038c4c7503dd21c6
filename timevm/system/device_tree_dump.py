"""``-M …,dumpdtb=FILE``: what the guest would be told about its machine, for ``dtc`` and people."""

from __future__ import annotations

import sys
from pathlib import Path

from timevm.config import Config
from timevm.engine.machine.builder import device_tree_of
from timevm.errors import HostError


def dump_device_tree(config: Config, path: Path) -> int:
    """The exit code.  Raises UserError, HostError."""
    blob = device_tree_of(config.machine)
    try:
        path.write_bytes(blob)
    except OSError as error:
        raise HostError(f"failed to save the device tree to '{path}': {error.strerror}") from error
    print(f"{config.program}: info: dtb dumped to {path}. Exiting.", file=sys.stderr)
    return 0
