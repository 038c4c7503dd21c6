"""The ``-o`` options of a new image, checked in qemu-img's words."""

from __future__ import annotations

from dataclasses import dataclass

from timevm.blkreplay.opening import FORMATS
from timevm.blkreplay.qcow2.create import CreateOptions
from timevm.blkreplay.qcow2.layout import Compression
from timevm.errors import UserError
from timevm.img.text import parse_size

_VERSIONS = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}
_COMPRESSIONS = {"zlib": Compression.ZLIB, "zstd": Compression.ZSTD}
#: what qcow2 takes → how -o help describes it; the last one is known so that it can be refused by name
_QCOW2_OPTIONS = {
    "backing_file": "backing_file=<str>     - File name of a base image",
    "backing_fmt": "backing_fmt=<str>      - Image format of the base image",
    "cluster_size": "cluster_size=<size>    - qcow2 cluster size",
    "compression_type": "compression_type=<str> - Method of compressed clusters (zlib or zstd)",
    "compat": "compat=<str>           - Compatibility level (v2 [0.10] or v3 [1.1])",
    "lazy_refcounts": "lazy_refcounts=<bool (on/off)> - Mark for QEMU: it may postpone refcount updates",
    "preallocation": "preallocation=<str>    - Preallocation mode (allowed values: off, metadata)",
    "refcount_bits": "refcount_bits=<num>    - Width of a reference count entry in bits",
    "size": "size=<size>            - Virtual disk size",
    "extended_l2": "",
}
_RAW_OPTIONS = {"size": _QCOW2_OPTIONS["size"], "preallocation": ""}


@dataclass(frozen=True, slots=True)
class NewImage:
    """What was asked for; ``compat`` as it was written, None if it was not."""

    format: str
    size: int | None = None
    compat: str | None = None
    cluster_size: int = 65536
    lazy_refcounts: bool = False
    refcount_bits: int = 16
    preallocation: str | None = None
    backing_file: str | None = None
    backing_format: str | None = None
    compression_type: str = "zlib"

    def qcow2_options(self, size: int) -> CreateOptions:
        """Raises nothing: ``parse_new_image`` has checked, ``create_image`` will check the rest."""
        return CreateOptions(
            size=size,
            version=_VERSIONS[self.compat or "v3"],
            cluster_size=self.cluster_size,
            refcount_bits=self.refcount_bits,
            lazy_refcounts=self.lazy_refcounts,
            backing_file=self.backing_file,
            backing_format=self.backing_format,
            compression=_COMPRESSIONS[self.compression_type],
            preallocate_metadata=self.preallocation == "metadata",
        )


def parse_new_image(name: str, kind: str, text: str, backing_file: str | None, backing_format: str | None) -> NewImage:
    """``text``: what -o said.  Raises UserError."""
    if kind not in FORMATS:
        raise UserError(f"{name}: Unknown file format '{kind}'")
    known = _QCOW2_OPTIONS if kind == "qcow2" else _RAW_OPTIONS
    options: dict[str, str] = {}
    for part in _split(text):
        key, separator, value = part.partition("=")
        if key not in known:
            raise UserError(f"{name}: Invalid parameter '{key}'")
        options[key] = value if separator else "on"
    if (backing_file is not None or options.get("backing_file")) and kind == "raw":
        raise UserError(f"{name}: Backing file not supported for file format '{kind}'")
    backing_format = backing_format if backing_format is not None else options.get("backing_fmt")
    if backing_format is not None and backing_format not in FORMATS:
        raise UserError(f"{name}: Unknown backing format '{backing_format}'")
    if _switch(name, "extended_l2", options.get("extended_l2", "off")):
        raise UserError(f"{name}: timevm does not carry out extended L2 entries: leave extended_l2 out")
    return NewImage(
        format=kind,
        size=parse_size(options["size"]) if "size" in options else None,
        compat=options.get("compat"),
        cluster_size=parse_size(options.get("cluster_size", "65536")),
        lazy_refcounts=_switch(name, "lazy_refcounts", options.get("lazy_refcounts", "off")),
        refcount_bits=_number(name, "refcount_bits", options.get("refcount_bits", "16")),
        preallocation=options.get("preallocation"),
        backing_file=backing_file if backing_file is not None else options.get("backing_file"),
        backing_format=backing_format,
        compression_type=options.get("compression_type", "zlib"),
    )


def option_lines(kind: str) -> list[str]:
    """``-o help``."""
    known = _QCOW2_OPTIONS if kind == "qcow2" else _RAW_OPTIONS
    return [f"Supported {kind} options:", *(f"  {text}" for text in known.values() if text)]


def check_late(name: str, new: NewImage) -> None:
    """What qemu-img notices only after it has said what it is about to do.  Raises UserError."""
    if new.compat is not None and new.compat not in _VERSIONS:
        raise UserError(f"{name}: Parameter 'version' does not accept value '{new.compat}'")
    if new.compression_type not in _COMPRESSIONS:
        raise UserError(f"{name}: Parameter 'compression-type' does not accept value '{new.compression_type}'")
    if new.preallocation not in (None, "off", "metadata"):
        if new.preallocation in ("falloc", "full"):
            raise UserError(f"{name}: timevm knows preallocation=off and metadata, not '{new.preallocation}'")
        raise UserError(f"{name}: Parameter 'preallocation' does not accept value '{new.preallocation}'")


def formatting_line(name: str, new: NewImage, size: int) -> str:
    """What qemu-img prints before it creates an image."""
    parts = [f"fmt={new.format}"]
    if new.format == "raw":
        parts.append(f"size={size}")
        if new.preallocation is not None:
            parts.append(f"preallocation={new.preallocation}")
        return f"Formatting '{name}', {' '.join(parts)}"
    parts += [f"cluster_size={new.cluster_size}", "extended_l2=off"]
    if new.preallocation is not None:
        parts.append(f"preallocation={new.preallocation}")
    parts += [f"compression_type={new.compression_type}", f"size={size}"]
    if new.compat is not None:
        parts.append(f"compat={new.compat}")
    if new.backing_file is not None:
        parts.append(f"backing_file={new.backing_file}")
    if new.backing_format is not None:
        parts.append(f"backing_fmt={new.backing_format}")
    parts += [f"lazy_refcounts={'on' if new.lazy_refcounts else 'off'}", f"refcount_bits={new.refcount_bits}"]
    return f"Formatting '{name}', {' '.join(parts)}"


def _split(text: str) -> list[str]:
    """At commas; two commas stand for one."""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",") if part]


def _switch(name: str, key: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise UserError(f"{name}: Parameter '{key}' expects 'on' or 'off'")
    return value == "on"


def _number(name: str, key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise UserError(f"{name}: Parameter '{key}' expects a number")
    return int(value)
