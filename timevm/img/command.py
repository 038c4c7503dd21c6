"""``timevm img``: qemu-img's syntax and output for the images that timevm carries out (raw and qcow2)."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from timevm.blkreplay.extents import extents
from timevm.blkreplay.host_file import HostFile
from timevm.blkreplay.image_errors import SnapshotNotFoundError
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.opening import FORMATS, GuessedRawWarning, backing_path, open_image
from timevm.blkreplay.qcow2.check import CheckResult, check, repair
from timevm.blkreplay.qcow2.create import create_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.qcow2.resize import resize
from timevm.blkreplay.raw import RawImage
from timevm.config.keyvalue import hint
from timevm.errors import HostError, TimevmError, UserError
from timevm.img.arguments import HelpWanted, Options, UsageError, one_file, open_named, parse_options
from timevm.img.convert import SPARSE_BYTES, copy, copy_compressed, progress_bar
from timevm.img.help import ELSEWHERE, HELP
from timevm.img.options import NewImage, check_late, formatting_line, option_lines, parse_new_image
from timevm.img.text import (
    as_json,
    check_fields,
    check_lines,
    info_fields,
    info_lines,
    map_json,
    map_lines,
    parse_size,
    printable,
    snapshot_lines,
)

FAILED, CORRUPT, LEAKS, NO_CHECKS, INTERRUPTED, PIPE_BROKEN = 1, 2, 3, 63, 130, 141


def run_img(argv: Sequence[str]) -> int:
    """``argv``: what follows ``timevm img``.  The exit status; errors are one sentence on stderr."""
    warnings.simplefilter("always", GuessedRawWarning)
    shown, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(HELP, end="")
            return 0 if argv else FAILED
        command = _COMMANDS.get(argv[0])
        if command is None:
            elsewhere = " (qemu-img has it)" if argv[0] in ELSEWHERE else hint(argv[0], _COMMANDS)
            raise UsageError(f"Command not found: {argv[0]}{elsewhere}")
        status = command(list(argv[1:]))
        sys.stdout.flush()
        return status
    except HelpWanted:
        print(HELP, end="")
        return 0
    except TimevmError as error:
        sys.stdout.flush()
        advice = "\nTry 'timevm img --help' for more information" if isinstance(error, UsageError) else ""
        text = "\n".join(map(printable, str(error).split("\n")))
        print(f"timevm img: {text}{advice}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the interpreter flushes once more when it ends: that must not fail again
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        return PIPE_BROKEN
    finally:
        warnings.showwarning = shown


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    print(f"WARNING: {message}" if category is GuessedRawWarning else f"timevm img: {message}", file=sys.stderr)


# -- create


def _create(argv: list[str]) -> int:
    options, rest = parse_options(argv, "F:b:f:o:qu")
    if not rest and options.get("o") not in ("help", "?"):
        raise UsageError("Expecting image file name")
    if len(rest) > 2:
        raise UsageError(f"Unexpected argument: {rest[2]}")
    if options.get("o") in ("help", "?"):
        print("\n".join(option_lines(options.get("f", "raw"))))
        return 0
    name = rest[0]
    size = parse_size(rest[1]) if len(rest) > 1 else None
    new = parse_new_image(name, options.get("f", "raw"), options.get("o", ""), options.get("b"), options.get("F"))
    size = new.size if size is None else size
    if new.backing_file is not None and ("u" not in options or (size is None and new.format == "raw")):
        size = _check_backing(name, new, size)
    if size is None:
        raise UserError(f"{name}: Image creation needs a size parameter")
    if "q" not in options:
        print(formatting_line(name, new, size))
        sys.stdout.flush()
    create_new(name, new, size)
    return 0


def _check_backing(name: str, new: NewImage, size: int | None) -> int:
    """The backing file can be opened; the size, its own by default."""
    assert new.backing_file is not None
    path = backing_path(Path(name), new.backing_file)
    try:
        backing = open_image(path, new.backing_format, read_only=True)
    except UserError as error:
        raise UserError(f"{name}: {error}\nCould not open backing image.") from error
    try:
        if new.backing_format is None:
            kind = "qcow2" if isinstance(backing, Qcow2Image) else "raw"
            raise UserError(f"{name}: Backing file specified without backing format\nDetected format of {kind}.")
        return backing.size if size is None else size
    finally:
        backing.close()


def create_new(name: str, new: NewImage, size: int) -> None:
    """Raises UserError, HostError with the file's name in front."""
    check_late(name, new)
    try:
        if new.format == "raw":
            file = HostFile(name, read_only=False, create=True)
            try:
                file.truncate(0)
                file.truncate(size + -size % 512)
            finally:
                file.close()
        else:
            create_image(name, new.qcow2_options(size))
    except UserError as error:
        text = str(error).replace("Could not open", "Could not create", 1)
        raise UserError(f"{name}: {text}") from error


# -- info, map


def _info(argv: list[str]) -> int:
    options, rest = parse_options(argv, "f:U", ["output=", "backing-chain"])
    name = one_file(rest)
    chain = "backing-chain" in options
    image: BlockNode | None = open_named(name, options, backing=chain)
    top = image
    shown = []
    try:
        while isinstance(image, (RawImage, Qcow2Image)):
            shown.append((image, name))
            image = image.backing if isinstance(image, Qcow2Image) and chain else None
            name = str(image.path) if isinstance(image, (RawImage, Qcow2Image)) else ""
        if options.get("output") == "json":
            fields = [info_fields(*pair) for pair in shown]
            print(as_json(fields if chain else fields[0]))
        else:
            print("\n\n".join("\n".join(info_lines(*pair)) for pair in shown))
    finally:
        if top is not None:
            top.close()
    return 0


def _map(argv: list[str]) -> int:
    options, rest = parse_options(argv, "f:U", ["output=", "start-offset=", "max-length="])
    image = open_named(one_file(rest), options)
    try:
        start = parse_size(options.get("start-offset", "0"))
        end = start + parse_size(options["max-length"]) if "max-length" in options else None
        found = extents(image, min(start, image.size), end)
        if options.get("output") == "json":
            lines = list(map_json(found))
            print(",\n".join(lines) + "]" if lines else "[]")
        else:
            for line in map_lines(found):
                print(line)
    finally:
        image.close()
    return 0


# -- check


def _check(argv: list[str]) -> int:
    options, rest = parse_options(argv, "f:r:qUT:", ["output=", "repair="])
    name = one_file(rest)
    wanted = options.get("r", options.get("repair"))
    if wanted not in (None, "leaks", "all"):
        raise UsageError(f"Unknown option value for -r (expecting 'leaks' or 'all'): {wanted}")
    image = open_named(name, options | ({"r": wanted} if wanted else {}), read_only=wanted is None, backing=False)
    try:
        if not isinstance(image, Qcow2Image):
            print("timevm img: This image format does not support checks", file=sys.stderr)
            return NO_CHECKS
        fixed = {"leaks": 0, "corruptions": 0}
        quiet = "q" in options
        if wanted is not None:
            fixed = _repair(image, wanted, quiet or options.get("output") == "json")
        result = check(image)
    finally:
        image.close()
    for line in result.messages:
        print(line, file=sys.stderr)
    if not quiet:
        json_wanted = options.get("output") == "json"
        print(as_json(check_fields(result, name, fixed)) if json_wanted else "\n".join(check_lines(result)))
    return CORRUPT if result.corruptions else LEAKS if result.leaks else 0


def _repair(image: Qcow2Image, wanted: str, quiet: bool) -> dict[str, int]:
    before: CheckResult = repair(image, everything=wanted == "all")
    if before.corruptions and wanted == "leaks":
        return {"leaks": 0, "corruptions": 0}
    fixed = {"leaks": before.leaks, "corruptions": before.corruptions}
    if any(fixed.values()) and not quiet:
        for line in before.messages:
            print(f"Repairing: {line}", file=sys.stderr)
        print(
            "The following inconsistencies were found and repaired:\n\n"
            f"    {fixed['leaks']} leaked clusters\n    {fixed['corruptions']} corruptions\n\n"
            "Double checking the fixed image now..."
        )
    return fixed


# -- snapshot


def _snapshot(argv: list[str]) -> int:
    options, rest = parse_options(argv, "la:c:d:qUf:")
    name = one_file(rest)
    actions = [action for action in "lacd" if action in options]
    if len(actions) > 1:
        raise UsageError("Cannot mix '-l', '-a', '-c', '-d'")
    if not actions:
        return 0
    action = actions[0]
    image = open_named(name, options, read_only=action == "l", backing=action != "l")
    try:
        if action == "l":
            if isinstance(image, Qcow2Image) and image.records:
                print("\n".join(["Snapshot list:", *snapshot_lines(image.records)]))
        else:
            _change_snapshots(image, action, options[action])
    finally:
        image.close()
    return 0


def _change_snapshots(image: RawImage | Qcow2Image, action: str, tag: str) -> None:
    words = {
        "a": f"Could not apply snapshot '{printable(tag)}'",
        "c": f"Could not create snapshot '{printable(tag)}'",
        "d": f"Could not delete snapshot '{printable(tag)}'",
    }[action]
    if isinstance(image, RawImage):
        why = {
            "a": "Block driver does not support snapshots",
            "c": "-95 (Operation not supported)",
            "d": "snapshot not found",
        }[action]
        raise UserError(f"{words}: {why}")
    try:
        if action == "c":
            seconds, nanoseconds = divmod(time.time_ns(), 10**9)
            image.save_snapshot(tag, b"", (seconds, nanoseconds // 1000 * 1000), replace_tag=False)
        elif action == "a":
            image.apply_snapshot(tag)
        else:
            image.delete_snapshot(tag)
    except SnapshotNotFoundError as error:
        why = {"a": "Failed to load snapshot: No such file or directory", "d": "snapshot not found"}[action]
        raise UserError(f"{words}: {why}") from error
    except (UserError, HostError) as error:
        raise type(error)(f"{words}: {error}") from error


# -- convert, resize


def _convert(argv: list[str]) -> int:
    options, rest = parse_options(argv, "f:O:o:l:S:m:t:T:pqUnWc")
    if len(rest) < 2:
        raise UserError("Must specify image file name")
    if len(rest) > 2:
        raise UserError("timevm img converts one image at a time")
    wanted = options.get("O", "raw")
    if wanted not in FORMATS:
        raise UserError(f"Unknown file format '{wanted}'")
    if "c" in options and wanted != "qcow2":
        raise UserError("Compression not supported for this file format")
    sparse = parse_size(options["S"]) if "S" in options else SPARSE_BYTES
    if sparse % 512:
        raise UserError(
            f"Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to {1 << 31}."
        )
    source = open_named(rest[0], options)
    try:
        node: BlockNode = source
        if "l" in options:
            if not isinstance(source, Qcow2Image):
                raise UserError("Failed to load snapshot: the image has none")
            node = source.snapshot_reader(options["l"].removeprefix("snapshot.name=").removeprefix("snapshot.id="))
        _copy_to(rest[1], wanted, node, options, sparse)
    finally:
        source.close()
    return 0


def _copy_to(name: str, wanted: str, source: BlockNode, options: Options, sparse: int) -> None:
    fresh = "n" not in options
    if fresh:
        new = parse_new_image(name, wanted, options.get("o", ""), None, None)
        if "c" in options and new.preallocation not in (None, "off"):
            raise UserError("Compression and preallocation not supported at the same time")
        create_new(name, new, source.size)
    target = open_image(name, wanted, durable=False)
    try:
        with progress_bar("p" in options, source.size) as progress:
            if "c" in options and isinstance(target, Qcow2Image):
                copy_compressed(source, target, sparse=bool(sparse), target_is_zero=fresh, progress=progress)
            else:
                copy(source, target, sparse=sparse, target_is_zero=fresh, progress=progress)
    finally:
        target.close()


def _resize(argv: list[str]) -> int:
    options, rest = parse_options(argv, "f:q", ["shrink"])
    if len(rest) != 2:
        raise UsageError("Expecting image file name and size")
    name, text = rest
    sign = {"+": 1, "-": -1}.get(text[:1], 0)
    number = parse_size(text.lstrip("+-") if sign else text)
    image = open_named(name, options, read_only=False)
    try:
        size = image.size + sign * number if sign else number
        if size <= 0:
            raise UserError("New image size must be positive")
        if size < image.size and "shrink" not in options:
            raise UserError(
                "Use the --shrink option to perform a shrink operation. It deletes all data behind the new end: "
                "make sure that nothing of it is needed"
            )
        if isinstance(image, Qcow2Image):
            resize(image, size)
        else:
            image.file.truncate(size)
    finally:
        image.close()
    if "q" not in options:
        print("Image resized.")
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "create": _create,
    "info": _info,
    "check": _check,
    "snapshot": _snapshot,
    "map": _map,
    "convert": _convert,
    "resize": _resize,
}
