"""A recorder to be killed: ``python -m tests.engine.replay.recorder_process FILE``; each line says what is recorded.

It prints ``number seconds`` (of the host's monotonic clock) before event ``number`` is appended at that icount.
"""

from __future__ import annotations

import random
import sys
import time

from tests.engine.replay.toys import IDENTITY
from timevm.engine.replay.events import SerialInput
from timevm.engine.replay.opening import create_recording


def main() -> None:
    writer = create_recording(sys.argv[1], IDENTITY)
    chance = random.Random(sys.argv[2])
    number = 0
    while True:
        for _ in range(chance.choice((1, 1, 1, 10, 3000))):
            sys.stdout.write(f"{number} {time.monotonic()}\n")
            writer.append(number, SerialInput(0, number.to_bytes(8, "little")))
            number += 1
        sys.stdout.flush()
        # the pace of a guest, which is what this process plays
        time.sleep(chance.random() * 0.02)


if __name__ == "__main__":
    main()
