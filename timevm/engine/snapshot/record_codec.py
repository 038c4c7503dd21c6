"""A plain record ↔ bytes: JSON, compressed; bytes values become base64 in an object of their own.

A record's values are of ``devices.base.Stateful``: str keys; int, bool, None, bytes, str, and lists or dicts of those.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import zstandard

from timevm.errors import InternalError, UserError

#: marks an object that stands for bytes; no part of a record is called so
BYTES = "\0bytes"
#: bytes of JSON at most: a machine whose disks have all that they may have in flight
LARGEST = 512 << 20


class MalformedRecord(UserError):
    """Bytes that no record was written as."""


def encode(record: dict[str, Any]) -> bytes:
    """Raises InternalError for a value that is not plain."""
    text = json.dumps(record, default=_bytes_as_object, separators=(",", ":"), ensure_ascii=False)
    return zstandard.ZstdCompressor(level=1).compress(text.encode("utf-8", "surrogatepass"))


def _bytes_as_object(value: object) -> dict[str, str]:
    if isinstance(value, bytes | bytearray):
        return {BYTES: base64.b64encode(value).decode()}
    raise InternalError(f"a state record holds a {type(value).__name__}: correct the device that it is of")


def decode(data: bytes) -> dict[str, Any]:
    """Raises MalformedRecord for whatever ``encode`` does not write."""
    try:
        text = _decompress(data).decode("utf-8", "surrogatepass")
        record = json.loads(text, object_hook=_object_as_bytes)
    except (ValueError, RecursionError, zstandard.ZstdError, binascii.Error) as error:
        raise MalformedRecord(f"a state record cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise MalformedRecord("a state record cannot be read: it is no object")
    return record


def _decompress(data: bytes) -> bytes:
    size = zstandard.frame_content_size(data)
    if not 0 <= size <= LARGEST:
        raise ValueError(f"its size is {size} bytes")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=LARGEST)


def _object_as_bytes(value: dict[str, Any]) -> Any:
    if value.keys() == {BYTES}:
        text = value[BYTES]
        if not isinstance(text, str):
            raise ValueError("bytes that are no text")
        return base64.b64decode(text, validate=True)
    return value
