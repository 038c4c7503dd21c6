"""``-M …,dumpdtb=FILE``: what the guest would be told about its machine, for ``dtc`` and people."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from timevm.config import Config
from timevm.engine.machine.builder import device_tree_of
from timevm.errors import HostError


def dump_device_tree(config: Config, path: Path) -> int:
    """The exit code.  Raises UserError, HostError."""
    with _quiet():
        blob = device_tree_of(config.machine)
    try:
        path.write_bytes(blob)
    except OSError as error:
        raise HostError(f"failed to save the device tree to '{path}': {error.strerror}") from error
    print(f"{config.program}: info: dtb dumped to {path}. Exiting.", file=sys.stderr)
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing runs: that a machine has nothing to execute, and whatever else it warns of, is not of interest."""
    logger = logging.getLogger("timevm")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
