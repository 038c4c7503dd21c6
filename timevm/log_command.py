"""``timevm log dump|verify|stat FILE``: looks into a recording with the very codec that replays it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from timevm.engine.replay.codec import Entry, EventKind, encoded_size, kind_of
from timevm.engine.replay.events import BlockCompletion, Digest, End, Event, Idle, NetworkInput, Request, SerialInput
from timevm.engine.replay.log_reader import LogReader
from timevm.engine.replay.opening import open_recording
from timevm.errors import TimevmError

INTERRUPTED, PIPE_BROKEN = 130, 141


def log_parser() -> argparse.ArgumentParser:
    """Of what follows ``timevm log``; ``run`` carries it out."""
    parser = argparse.ArgumentParser(
        prog="timevm log", description="Look into a recording.", usage="timevm log dump|verify|stat [options] FILE"
    )
    # "usage: timevm log stat …" must not begin with the usage above
    actions = parser.add_subparsers(dest="log_action", required=True, metavar="dump|verify|stat", prog="timevm log")
    dump = actions.add_parser("dump", help="every event with its icount")
    verify = actions.add_parser("verify", help="is it whole? exit status 0 if so, 1 with the reason if not")
    stat = actions.add_parser("stat", help="counts and bytes by kind of event, and of which machine it is")
    for action in (dump, verify, stat):
        action.add_argument("file", metavar="FILE", type=Path, help="the recording")
        action.add_argument("--json", action="store_true", help="for programs: JSON, one object a line")
    dump.add_argument(
        "--from", dest="first", metavar="ICOUNT", type=_icount, default=0, help="from this instruction on"
    )
    dump.add_argument("--to", dest="last", metavar="ICOUNT", type=_icount, help="up to this instruction, included")
    names = [_kind_name(kind) for kind in EventKind]
    dump.add_argument(
        "--kind",
        metavar="KIND",
        choices=names,
        action="append",
        help=f"this kind of event only; may be repeated: {', '.join(names)}",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Exit status: 0, 1 for a recording that is damaged or none, 130 after Ctrl-C, 141 after a broken pipe."""
    actions = {"dump": _dump, "verify": _verify, "stat": _stat}
    try:
        reader = open_recording(args.file)
        try:
            status = actions[args.log_action](reader, args)
            sys.stdout.flush()
        finally:
            reader.close()
    except TimevmError as error:
        print(f"timevm: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the interpreter flushes once more when it ends: that must not fail again
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        return PIPE_BROKEN
    return status


def _icount(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of instructions")
    return value


def _kind_name(kind: EventKind) -> str:
    return kind.name.lower().replace("_", "-")


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case SerialInput(port, data):
            return {"port": port, "data": data.hex()}
        case Idle(ns):
            return {"ns": ns}
        case Request(kind):
            return {"request": kind.name.lower()}
        case BlockCompletion(drive, request, failed):
            return {"drive": drive, "request": request, "failed": failed}
        case NetworkInput(card, frame):
            return {"card": card, "frame": frame.hex()}
        case Digest(cpu, ram, devices):
            return {"cpu": f"{cpu:016x}", "ram": f"{ram:016x}", "devices": f"{devices:016x}"}
        case End(reason):
            return {"reason": reason}


def _words(event: Event) -> str:
    match event:
        case SerialInput(port, data):
            return f"port {port}: {data!r}"
        case Idle(ns):
            return f"{ns} ns"
        case BlockCompletion(drive, request, failed):
            return f"drive {drive}: request {request}{' failed' if failed else ''}"
        case NetworkInput(card, frame):
            return f"card {card}: {len(frame)} bytes from {frame[6:12].hex(':')} to {frame[:6].hex(':')}"
        case End(reason):
            return ascii(reason)
        case _:
            return " ".join(f"{name} {value}" for name, value in _fields(event).items())


def _selected(reader: LogReader, args: argparse.Namespace) -> Iterator[tuple[int, Entry]]:
    for number, entry in enumerate(reader.entries(start := reader.number_at(args.first)), start):
        if args.last is not None and entry.icount > args.last:
            return
        if args.kind is None or _kind_name(kind_of(entry.event)) in args.kind:
            yield number, entry


def _dump(reader: LogReader, args: argparse.Namespace) -> int:
    """Lines, not a table: a recording may be long, and its first event should not wait for its last."""
    if not args.json:
        print(f"{'event':>9}  {'icount':>15}  {'kind':<16}  what")
    for number, entry in _selected(reader, args):
        kind = _kind_name(kind_of(entry.event))
        if args.json:
            print(json.dumps({"event": number, "icount": entry.icount, "kind": kind, **_fields(entry.event)}))
        else:
            print(f"{number:>9}  {entry.icount:>15}  {kind:<16}  {_words(entry.event)}")
    sys.stdout.flush()
    if reader.damage is None:
        return 0
    print(f"timevm: {reader.ending}", file=sys.stderr)
    return 1


def _verify(reader: LogReader, args: argparse.Namespace) -> int:
    frames = sum(1 for _ in reader.frames())
    events = sum(1 for _ in reader.entries())
    whole = reader.damage is None and reader.is_closed_in_order
    reason = reader.ending
    if whole and not reader.index_agrees():
        whole, reason = False, "the index contradicts the frames: all events are sound, but jumping may fail"
    if args.json:
        record: dict[str, Any] = {"sound": whole, "events": events, "frames": frames, "end_icount": reader.end_icount}
        record["reason"] = reason
        if reader.damage is not None:
            record["damage"] = asdict(reader.damage)
        print(json.dumps(record))
    elif whole:
        print(f"{reader.path} is sound: {events} events in {frames} frame{'s' * (frames != 1)}; {reason}")
    else:
        print(f"{reader.path} is not whole: {events} events in {frames} frame{'s' * (frames != 1)} are sound; {reason}")
    return 0 if whole else 1


def _stat(reader: LogReader, args: argparse.Namespace) -> int:
    kinds = {kind: {"count": 0, "bytes": 0, "first": 0, "last": 0} for kind in EventKind}
    frames = list(reader.frames())
    begins = set(accumulate((frame.events for frame in frames), initial=0))
    before = 0
    for number, entry in enumerate(reader.entries()):
        if number in begins:
            before = entry.icount  # in each frame, deltas begin anew
        kind = kinds[kind_of(entry.event)]
        if not kind["count"]:
            kind["first"] = entry.icount
        kind["count"] += 1
        kind["bytes"] += encoded_size(entry.icount - before, entry.event)
        kind["last"] = before = entry.icount
    instructions = reader.end_icount - reader.identity.start_icount
    total = {
        "file_bytes": reader.file_size,
        "header_bytes": reader.header_size,
        "frames": len(frames),
        "frame_bytes": sum(frame.stored for frame in frames),
        "plain_bytes": sum(frame.plain for frame in frames),
        "events": reader.event_count,
        "instructions": instructions,
        "bits_per_million_instructions": round(reader.file_size * 8e6 / instructions, 3) if instructions else None,
        "ending": reader.ending,
    }
    if args.json:
        machine = json.loads(reader.identity.to_json())
        print(json.dumps({"machine": machine, "kinds": {_kind_name(kind): kinds[kind] for kind in kinds}, **total}))
    else:
        _print_stat(reader, kinds, total)
    return 0 if reader.damage is None else 1


def _print_stat(reader: LogReader, kinds: dict[EventKind, dict[str, int]], total: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    identity = reader.identity
    shown = {
        "machine": f"{identity.machine!a}, {identity.cpu!a}, {identity.ram_bytes >> 20} MiB",
        "append": ascii(identity.append),
        "icount shift": str(identity.shift),
        "recorded with": f"timevm {identity.timevm_version!a}",
        "file": f"{total['file_bytes']:,} bytes, header {total['header_bytes']:,}",
        "frames": f"{total['frames']:,} of {total['frame_bytes']:,} bytes, unpacked events {total['plain_bytes']:,}",
        "instructions": f"{total['instructions']:,}",
        "size": f"{total['bits_per_million_instructions'] or '-'} bits for a million instructions",
        "ending": total["ending"],
    }
    facts = Table(show_header=False, box=None, pad_edge=False)
    for name, value in shown.items():
        facts.add_row(Text(name, style="bold"), Text(value))
    console.print(facts)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)  # 80 columns are enough
    table.add_column("kind", no_wrap=True)
    for title in ("events", "bytes", "bytes each", "first icount", "last icount"):
        table.add_column(title, justify="right")
    for kind, row in kinds.items():
        if row["count"]:
            each = f"{row['bytes'] / row['count']:.1f}"
            table.add_row(
                _kind_name(kind),
                f"{row['count']:,}",
                f"{row['bytes']:,}",
                each,
                f"{row['first']:,}",
                f"{row['last']:,}",
            )
    console.print(table)
