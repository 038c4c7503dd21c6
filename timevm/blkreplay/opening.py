"""Opening an image with all it stands on: format by name or by looking, backing chains."""

from __future__ import annotations

import warnings
from pathlib import Path

from timevm.blkreplay.host_file import HostFile
from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.null import NullNode
from timevm.blkreplay.qcow2.check import repair
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.qcow2.layout import MAGIC
from timevm.blkreplay.raw import RawImage
from timevm.errors import UserError

FORMATS = ("raw", "qcow2")
#: a chain of backing files longer than this is taken for a loop
LONGEST_CHAIN = 200


class GuessedRawWarning(UserWarning):
    """A raw image was opened for writing without a word about its format.

    A guest that writes a qcow2 header into its first block would have it taken for qcow2 the next time.
    """


def probe_format(path: Path | str) -> str:
    """``qcow2`` where the file begins like one, else ``raw``.  Raises UserError when it cannot be read."""
    file = HostFile(path, read_only=True, share=True)
    try:
        return "qcow2" if file.read(0, 4) == MAGIC else "raw"
    finally:
        file.close()


def open_image(
    path: Path | str,
    format: str | None = None,
    read_only: bool = False,
    *,
    share: bool = False,
    backing: bool = True,
    durable: bool = True,
    repair_dirty: bool = True,
) -> RawImage | Qcow2Image:
    """The image with its backing files, locked as QEMU locks (``share``: not at all, to look at one in use).

    ``format``: None looks at the first bytes, and warns (GuessedRawWarning, in QEMU's words) where that makes it raw
    and writable.  ``backing=False``: without the backing files; only tables may then be looked at.
    ``durable=False``: no fsync, for images that need not outlive a loss of power (a kill does not harm them).
    ``repair_dirty``: counts that another program has postponed (lazy refcounts) are made true before the first write.
    Raises UserError (no such file, in use, damaged, not carried out), HostError.
    """
    return _open(Path(path), format, read_only, share, backing, durable, 0, repair_dirty)


def open_null(size: int) -> NullNode:
    """A disk without a file."""
    return NullNode(size)


def _open(
    path: Path,
    name: str | None,
    read_only: bool,
    share: bool,
    backing: bool,
    durable: bool,
    depth: int,
    repair_dirty: bool = False,
) -> RawImage | Qcow2Image:
    if name is not None and name not in FORMATS:
        raise UserError(f"Could not open '{path}': Unknown driver '{name}'")
    file = HostFile(path, read_only=read_only, share=share)
    try:
        if name is None:
            name = "qcow2" if file.read(0, 4) == MAGIC else "raw"
            if name == "raw" and not read_only:
                warnings.warn(
                    f"Image format was not specified for '{path}' and probing guessed raw.\n"
                    "         Automatically detecting the format is dangerous for raw images, "
                    "write operations on block 0 will be restricted.\n"
                    "         Specify the 'raw' format explicitly to remove the restrictions.",
                    GuessedRawWarning,
                    stacklevel=4,
                )
        if name == "raw":
            return RawImage(file, durable=durable)
        image = Qcow2Image(file, durable=durable)
    except BaseException:
        file.close()
        raise
    try:
        if backing and image.header.backing_file is not None:
            image.backing = _open_backing(image, share, depth)
        if image.header.is_dirty and not read_only and repair_dirty:
            repair(image, everything=True)
        return image
    except BaseException:
        image.abandon()
        raise


def backing_path(path: Path, backing_file: str) -> Path:
    """A relative name is relative to the image that names it."""
    return path.parent / backing_file.removeprefix("file:")


def _open_backing(image: Qcow2Image, share: bool, depth: int) -> BlockNode:
    assert image.header.backing_file is not None
    if depth >= LONGEST_CHAIN:
        raise ImageError(f"Could not open '{image.path}': more than {LONGEST_CHAIN} backing files, or a loop of them")
    name = image.header.backing_file
    if name.startswith("json:"):
        raise ImageError(f"Could not open '{image.path}': its backing file is '{name}', but timevm knows files only")
    path = backing_path(image.path, name)
    try:
        return _open(path, image.header.backing_format, True, share, True, image.durable, depth + 1)
    except UserError as error:
        raise ImageError(f"Could not open '{image.path}': Could not open backing file: {error}") from error
