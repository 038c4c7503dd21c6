"""What image files can be wrong about."""

from __future__ import annotations

from timevm.errors import UserError


class ImageError(UserError):
    """An image is damaged, of another format, or uses what timevm cannot carry out.  Nothing was changed in it."""


class SnapshotNotFoundError(UserError):
    """The image has no snapshot of that id or tag."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        super().__init__(f"there is no snapshot '{tag}' in the image")
