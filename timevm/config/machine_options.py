"""Options that say what the machine is: ``-M``, ``-m``, ``-icount``, ``-rtc``, ``-device``, ``-drive`` …

Each function takes the text behind the option and answers plain data of ``timevm.engine.machine.spec``.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from timevm.config.architectures import Vocabulary
from timevm.config.chardevs import file_path
from timevm.config.keyvalue import OFF, ON, OptionValue, hint, parse_number
from timevm.engine.machine.spec import (
    RAM_LEAST,
    Blockdev,
    DeviceOption,
    Drive,
    Loader,
    LoaderData,
    ObjectOption,
    Properties,
    SnapshotInterval,
)
from timevm.errors import UserError

SHIFT_MOST = 10
#: drivers that need a drive
DISK_DEVICES = ("virtio-blk-device", "virtio-blk-pci", "ide-hd")
#: kinds of ``-object`` and their properties
OBJECTS: dict[str, tuple[str, ...]] = {
    "rng-builtin": (),
    "rng-random": ("filename",),
    "filter-replay": ("netdev", "queue", "status", "position", "insert"),
}
#: a PC's short forms of ``-drive``
SHORT_DRIVES = {
    **{f"hd{letter}": f"if=ide,index={number}" for number, letter in enumerate("abcd")},
    "cdrom": "if=ide,index=2,media=cdrom",
}
NO_MACHINE = "No machine specified, and there is no default\nUse -machine help to list supported machines"
_DRIVE_KEYS = (
    "file", "if", "id", "format", "snapshot", "readonly", "read-only", "driver", "image", "cache", "aio", "discard",
    "detect-zeroes", "media", "index", "bus", "unit", "werror", "rerror", "cache.direct", "cache.no-flush",
    "cache.writeback", "node-name", "copy-on-read", "serial", "force-share", "locking", "file.filename", "file.driver",
)  # fmt: skip


def parse_machine(text: str, vocabulary: Vocabulary) -> tuple[str, str | None, Path | None]:
    """``-M``: the machine, the prompt it chose (``prompt=qemu``), where its device tree is dumped (``dumpdtb=``)."""
    value = OptionValue("-machine", text, known=None, implied="type")
    name = value.text_of("type") or vocabulary.default_machine
    if name is None:
        raise UserError(NO_MACHINE)
    board = vocabulary.board(name)
    if board is None:
        known = [each for _, each, _ in vocabulary.machines]
        raise UserError(
            f"unsupported machine type '{name}'{hint(name, known)}\nUse -machine help to list supported machines"
        )
    prompt: str | None = None
    dump: Path | None = None
    properties = vocabulary.properties
    for key, given in value.rest("type"):
        if key == "prompt":
            prompts = {"qemu": "(qemu) ", "timevm": "(timevm) "}
            prompt = prompts[value.choice("prompt", prompts, "timevm")]
        elif key == "dumpdtb":
            dump = Path(given)
        elif key not in properties:
            value.fail(f"Property '{name}-machine.{key}' not found{hint(key, (*properties, 'prompt', 'dumpdtb'))}")
        elif given not in properties[key] and not (given in ON | OFF and {"on", "off"} <= {*properties[key]}):
            value.fail(f"'{key}={given}' is not part of this version: it takes {' or '.join(properties[key])}")
    return board, prompt, dump


def parse_cpu(text: str, vocabulary: Vocabulary) -> str:
    name, comma, _ = text.partition(",")
    if name == "host":
        raise UserError("-cpu host needs KVM, which cannot count instructions: leave -cpu out, or use -cpu max")
    if name not in vocabulary.processors:
        raise UserError(
            f"unable to find CPU model '{name}'{hint(name, vocabulary.processors)}\n"
            "Use -cpu help to list supported models"
        )
    if comma:
        raise UserError(f"-cpu {text}: properties of the CPU are not part of this version: use -cpu {name}")
    return name


def parse_memory(text: str, vocabulary: Vocabulary) -> int | None:
    """``-m`` in bytes; None for an empty value, which means the default as in QEMU."""
    value = OptionValue("-m", text, known=("size", "slots", "maxmem"), implied="size")
    if "slots" in value or "maxmem" in value:
        value.fail("memory cannot be added later in this version: leave out slots and maxmem")
    if not value.text_of("size"):
        return None
    size = value.size("size", "M") or 0
    if not RAM_LEAST <= size <= vocabulary.ram_most:
        value.fail(f"this machine takes 16M to {vocabulary.ram_most >> 20}M of RAM, not {size} bytes")
    return (size + 8191) // 8192 * 8192


def check_smp(text: str) -> None:
    value = OptionValue(
        "-smp", text, known=("cpus", "maxcpus", "sockets", "dies", "clusters", "cores", "threads"), implied="cpus"
    )
    for key, _ in value.pairs:
        if value.number(key) != 1:
            value.fail(f"'{key}={value.text_of(key)}': timevm has one processor, as record/replay needs it: use -smp 1")


def check_accelerator(text: str) -> None:
    value = OptionValue(
        "-accel", text, known=("accel", "thread", "tb-size", "one-insn-per-tb", "split-wx"), implied="accel"
    )
    name = value.text_of("accel") or "tcg"
    if name in ("kvm", "hvf", "whpx", "xen", "nvmm"):
        value.fail(f"timevm counts every instruction, which {name} cannot: leave it out, or use -accel tcg")
    if name != "tcg":
        value.fail(f"invalid accelerator {name}")
    if value.choice("thread", ("single", "multi"), "single") == "multi":
        value.fail("one processor has one thread: use thread=single")


def parse_rtc(text: str) -> int | None:
    """Seconds since 1970 at reset; None: UTC now.  ``clock=`` is accepted: the clock always follows virtual time."""
    value = OptionValue("-rtc", text, known=("base", "clock", "driftfix"))
    clock = value.text_of("clock")
    if clock not in (None, "host", "rt", "vm"):
        value.fail(f"invalid option value '{clock}'")
    value.choice("driftfix", ("none", "slew"), "none")
    base = value.text_of("base")
    if base in (None, "utc"):
        return None
    if base == "localtime":
        now = int(time.time())
        return now + (time.localtime(now).tm_gmtoff or 0)
    for layout in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"):
        try:
            moment = datetime.strptime(base or "", layout).replace(tzinfo=UTC)
        except ValueError:
            continue
        return int(moment.timestamp())
    raise UserError(f"-rtc {text}: invalid datetime format\nvalid formats: '2006-06-17T16:01:21' or '2006-06-17'")


@dataclass(frozen=True, slots=True)
class Icount:
    """``-icount``.  ``enabled`` is false without ``shift``, as in QEMU; ``shift`` None is ``auto``."""

    enabled: bool = False
    shift: int | None = None
    sleep: bool = True
    mode: Literal["none", "record", "play"] = "none"
    rrfile: Path | None = None
    rrsnapshot: str | None = None
    rrinterval: SnapshotInterval | None = None
    rrmem: int | None = None


_ICOUNT_KEYS = ("shift", "align", "sleep", "rr", "rrfile", "rrsnapshot", "rrinterval", "rrmem")


def parse_icount(text: str) -> Icount:
    """Error texts and their order are those of QEMU's ``replay/replay.c`` and ``softmmu/icount.c``."""
    value = OptionValue("-icount", text, known=_ICOUNT_KEYS, implied="shift")
    mode: Literal["none", "record", "play"] = "none"
    rrfile: Path | None = None
    rr = value.text_of("rr")
    if rr is not None:
        if rr not in ("record", "replay"):
            value.fail(f"Invalid icount rr option: {rr}")
        mode = "record" if rr == "record" else "play"
        if not value.text_of("rrfile"):
            value.fail("File name not specified for replay")
        rrfile = file_path(value, value.needed("rrfile"))
    elif "rrfile" in value or "rrsnapshot" in value or "rrinterval" in value:
        value.fail("rrfile, rrsnapshot and rrinterval need rr=record or rr=replay")
    shift_text = value.text_of("shift")
    align, sleep = value.switch("align", False), value.switch("sleep", True)
    if shift_text is None and align:
        value.fail("Please specify shift option when using align")
    if align and not sleep:
        value.fail("align=on and sleep=off are incompatible")
    shift = None
    if shift_text not in (None, "auto"):
        shift = parse_number(shift_text or "x")
        if shift is None or not 0 <= shift <= SHIFT_MOST:
            value.fail("icount: Invalid shift value")
    elif align and shift_text == "auto":
        value.fail("shift=auto and align=on are incompatible")
    if align:
        value.fail("align=on is known, but not part of this version: leave it out")
    snapshot = value.text_of("rrsnapshot")
    if snapshot == "":
        value.fail("rrsnapshot needs the name of a snapshot")
    return Icount(
        enabled=shift_text is not None,
        shift=shift,
        sleep=sleep,
        mode=mode,
        rrfile=rrfile,
        rrsnapshot=snapshot,
        rrinterval=_interval(value),
        rrmem=value.size("rrmem"),
    )


def _interval(value: OptionValue) -> SnapshotInterval | None:
    text = value.text_of("rrinterval")
    if text is None:
        return None
    instructions = re.fullmatch(r"([0-9]{1,15})([kMG]?)i", text)
    seconds = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", text)
    interval = None
    if instructions:
        factor = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[instructions[2]]
        interval = SnapshotInterval(instructions=int(instructions[1]) * factor)
    elif seconds:
        interval = SnapshotInterval(seconds=float(seconds[1]))
    if interval is None or not (interval.instructions or interval.seconds):
        value.fail(f"Invalid rrinterval '{text}': give instructions (500ki, 100Mi, 2Gi) or seconds (10s)")
    return interval


def parse_loader(text: str) -> Loader | LoaderData:
    """``-device loader,…`` (QEMU's ``docs/system/generic-loader.rst``)."""
    keys = ("driver", "file", "addr", "cpu-num", "force-raw", "data", "data-len", "data-be", "id")
    value = OptionValue("-device", text, known=None, implied="driver")
    for key, _ in value.pairs:
        if key not in keys:
            value.fail(f"Property 'loader.{key}' not found{hint(key, keys)}")
    address = value.number("addr")
    if address is not None and not 0 <= address < 1 << 64:
        value.fail("Parameter 'addr' expects a non-negative number")
    processor = value.number("cpu-num")
    if processor not in (None, 0):
        value.fail(f"Specified boot CPU#{processor} is nonexistent")
    if "data" in value:
        data, length = value.number("data"), value.number("data-len")
        if "file" in value:
            value.fail("Specifying a file is not supported when loading memory values")
        if address is None or data is None or length is None or not 1 <= length <= 8:
            value.fail("loading a value needs addr=, data= and data-len=1…8")
        order: Literal["little", "big"] = "big" if value.switch("data-be", False) else "little"
        return LoaderData((data & ((1 << 8 * length) - 1)).to_bytes(length, order), address)
    if not value.text_of("file"):
        if address is None:
            value.fail("please include valid arguments")
        if processor is None:
            value.fail("cpu-num must be specified when setting a program counter")
        return LoaderData(b"", address, sets_pc=True)
    return Loader(
        file_path(value, value.needed("file")),
        address,
        sets_pc=processor == 0,
        raw=value.switch("force-raw", False),
    )


def parse_device(text: str, vocabulary: Vocabulary) -> DeviceOption | Loader | LoaderData:
    value = OptionValue("-device", text, known=None, implied="driver")
    driver = value.text_of("driver") or ""
    if driver == "loader":
        return parse_loader(text)
    if driver not in vocabulary.devices:
        for pattern, reason in vocabulary.absent:
            if re.fullmatch(pattern, driver):
                value.fail(f"'{driver}' is known, but {reason}")
        value.fail(f"'{driver}' is not a valid device model name{hint(driver, vocabulary.devices)}")
    if value.text_of("help") is not None:
        value.fail("properties are not listed in this version: docs/disks.md and docs/network.md name them")
    if driver in DISK_DEVICES and not value.text_of("drive"):
        value.fail("drive property not set")
    return DeviceOption(driver, value.identifier(), value.rest("driver", "id"))


def parse_object(text: str) -> ObjectOption:
    value = OptionValue("-object", text, known=None, implied="qom-type")
    kind = value.text_of("qom-type") or ""
    if kind not in OBJECTS:
        value.fail(f"Parameter 'qom-type' does not accept value '{kind}'{hint(kind, OBJECTS)}")
    identifier = value.identifier()
    if identifier is None:
        value.fail("Parameter 'id' is missing")
    for key, _ in value.rest("qom-type", "id"):
        if key not in OBJECTS[kind]:
            value.fail(f"Property '{kind}.{key}' not found")
    if kind == "filter-replay" and not value.text_of("netdev"):
        value.fail("Parameter 'netdev' is missing")
    return ObjectOption(kind, identifier, value.rest("qom-type", "id"))


def parse_drive(text: str, vocabulary: Vocabulary) -> Drive:
    value = OptionValue("-drive", text, known=_DRIVE_KEYS)
    interface = value.text_of("if") or vocabulary.interfaces[0]
    if interface not in vocabulary.interfaces:
        if interface in ("ide", "scsi", "floppy", "pflash", "mtd", "sd", "xen"):
            value.fail(f"this machine has no '{interface}' bus: use {vocabulary.disk_example}")
        value.fail(f"unsupported bus type '{interface}'{hint(interface, vocabulary.interfaces)}")
    driver, image_format = value.text_of("driver"), value.text_of("format")
    if driver == "blkreplay":
        if not value.text_of("image"):
            value.fail("Parameter 'image' is missing")
    elif driver in ("qcow2", "raw") and image_format in (None, driver):
        driver, image_format = None, driver
    elif driver is not None:
        value.fail(f"Unknown driver '{driver}'{hint(driver, ('blkreplay', 'qcow2', 'raw'))}")
    if image_format not in (None, "qcow2", "raw"):
        value.fail(f"Unknown driver '{image_format}'{hint(image_format or '', ('qcow2', 'raw'))}")
    file = value.text_of("file") or value.text_of("file.filename")
    if file is None and driver is None:
        value.fail("a drive needs file=FILE")
    is_cdrom = value.choice("media", ("disk", "cdrom"), "disk") == "cdrom"
    if is_cdrom and "ide-cd" not in vocabulary.devices:
        value.fail("this machine has no CD-ROM drive")
    read_only = is_cdrom or value.switch("readonly", False) or value.switch("read-only", False)
    taken = (
        "file",
        "file.filename",
        "if",
        "id",
        "format",
        "snapshot",
        "readonly",
        "read-only",
        "driver",
        "image",
        "media",
    )
    return Drive(
        identifier=value.identifier(),
        file=None if file is None else file_path(value, file),
        format=image_format,
        interface=interface,
        snapshot=value.switch("snapshot", False),
        readonly=read_only,
        driver=driver,
        image=value.text_of("image"),
        properties=value.rest(*taken) + ((("media", "cdrom"),) if is_cdrom else ()),
    )


def parse_blockdev(text: str) -> Blockdev:
    value = OptionValue("-blockdev", text, known=None, implied="driver")
    if text.startswith("{"):
        raise UserError(f"-blockdev {text}: JSON is not part of this version: write driver=…,node-name=…")
    driver = value.needed("driver")
    known = ("blkreplay", "file", "qcow2", "raw", "null-co")
    if driver not in known:
        value.fail(f"Parameter 'driver' does not accept value '{driver}'{hint(driver, known)}")
    node_name = value.identifier("node-name")
    if node_name is None:
        value.fail("'node-name' must be specified for the root node")
    if driver == "blkreplay" and not value.text_of("image"):
        value.fail("Parameter 'image' is missing")
    return Blockdev(driver, node_name, value.rest("driver", "node-name"))


def parse_global(text: str) -> Properties:
    """``-global``: the one default of a device that there is to change; nothing if it stays."""
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"-global {text}: Invalid parameter: write DRIVER.PROPERTY=VALUE")
    if key != "virtio-mmio.force-legacy":
        raise UserError(
            f"-global {text}: '{key}' is not part of this version{hint(key, ('virtio-mmio.force-legacy',))}"
        )
    if value not in ON | OFF:
        raise UserError(f"-global {text}: Parameter 'force-legacy' expects 'on' or 'off'")
    return () if value in ON else ((key, "off"),)
