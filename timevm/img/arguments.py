"""The arguments of one ``timevm img`` command, in getopt's manner as qemu-img takes them."""

from __future__ import annotations

import getopt
from collections.abc import Sequence

from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.raw import RawImage
from timevm.errors import UserError

#: by name without dashes
Options = dict[str, str]


class UsageError(UserError):
    """Answered with a hint at the help, as qemu-img does."""


class HelpWanted(Exception):
    """An option asked for the help."""


def parse_options(argv: list[str], short: str, long: Sequence[str] = ()) -> tuple[Options, list[str]]:
    """Options by name without dashes (the last one counts, ``o`` are joined), and what is left."""
    try:
        pairs, rest = getopt.gnu_getopt(argv, short + "h", [*long, "help"])
    except getopt.GetoptError as error:
        if "not recognized" in error.msg:
            dashes = "-" if len(error.opt) == 1 else "--"
            raise UsageError(f"unrecognized option '{dashes}{error.opt}'") from None
        raise UsageError(error.msg) from None
    options: Options = {}
    for name, value in pairs:
        key = name.lstrip("-")
        options[key] = f"{options[key]},{value}" if key == "o" and key in options else value
    if "h" in options or "help" in options:
        raise HelpWanted
    if options.get("output", "human") not in ("human", "json"):
        raise UserError("--output must be used with human or json as argument.")
    return options, rest


def one_file(rest: list[str]) -> str:
    if len(rest) != 1:
        raise UsageError("Expecting one image file name")
    return rest[0]


def open_named(name: str, options: Options, *, read_only: bool = True, backing: bool = True) -> RawImage | Qcow2Image:
    """Raises UserError, in qemu-img's words where a file is not there."""
    try:
        return open_image(
            name,
            options.get("f"),
            read_only,
            share="U" in options,
            backing=backing,
            repair_dirty=read_only or "r" not in options,
        )
    except UserError as error:
        text = str(error)
        if text.startswith("Failed to get"):
            raise UserError(f"Could not open '{name}': {text}") from error
        if isinstance(error.__cause__, OSError):
            raise UserError(f"Could not open '{name}': {text}") from error
        raise
