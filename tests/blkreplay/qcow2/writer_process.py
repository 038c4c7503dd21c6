"""A process that works on an image until it is killed, and says what it does: ``python writer_process.py IMAGE SEED``.

Each line of its output is a promise: ``saved TAG NUMBER`` (disk and VM state are those of ``NUMBER``), ``deleted TAG``,
``flushed``; or says what begins: ``replacing TAG``, ``deleting TAG``.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.image import Qcow2Image

SIZE = 16 << 20
STATE_BYTES = 3 << 20
#: places of the disk that a snapshot's number is written to
MARKS = 64


def mark(number: int) -> bytes:
    """What the disk holds at each marked place when snapshot ``number`` is saved."""
    return number.to_bytes(8, "big") * 512


def state(number: int) -> bytes:
    """VM state of snapshot ``number``."""
    return random.Random(number).randbytes(STATE_BYTES)


def main(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    image = open_image(path, "qcow2")
    assert isinstance(image, Qcow2Image)
    number = seed << 20
    while True:
        number += 1
        for place in range(MARKS):
            image.write(place * (SIZE // MARKS), mark(number))
        for _ in range(rng.randrange(20)):
            offset = rng.randrange(SIZE // MARKS - 8192) + 4096 + rng.randrange(MARKS - 1) * (SIZE // MARKS)
            length = min(rng.choice((512, 4096, 65536)), SIZE // MARKS - 4096 - offset % (SIZE // MARKS))
            if length > 0:
                image.write(offset, rng.randbytes(length))
        tag = rng.choice("abcd")
        records = {record.tag for record in image.snapshots()}
        if tag in records and rng.random() < 0.4:
            print("deleting", tag, flush=True)
            image.delete_snapshot(tag)
            print("deleted", tag, flush=True)
        elif rng.random() < 0.1:
            image.flush()
            print("flushed", flush=True)
        else:
            print("replacing", tag, flush=True)
            share = rng.choice(sorted(records)) if records and rng.random() < 0.5 else None
            image.save_snapshot(tag, state(number), icount=number, share_with=share)
            print("saved", tag, number, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
