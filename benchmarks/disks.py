"""A Linux guest reads a disk behind blkreplay from one end to the other, and writes it, while it is recorded."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from benchmarks.programs import Side, run
from tests.guests import linux_arm64
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.create import CreateOptions, create_image

MEBIBYTES = 64


def throughput(side: Side, folder: Path) -> dict[str, float]:
    """MiB a second of each, on an image of allocated clusters with random content.  Raises BenchFailed."""
    image = folder / f"{side.name}-disk.qcow2"
    image.unlink(missing_ok=True)
    create_image(image, CreateOptions(MEBIBYTES << 20))
    with closing(open_image(image, "qcow2")) as node:
        for offset in range(0, MEBIBYTES << 20, 1 << 20):
            node.write(offset, os.urandom(1 << 20))
    guest = linux_arm64()
    options = ["-M", "virt", "-cpu", "cortex-a57", "-nographic", "-nodefaults", "-nic", "none", "-m", "512"]
    options += ["-serial", "stdio", "-monitor", "none", "-kernel", str(guest.kernel), "-initrd", str(guest.initrd)]
    options += ["-append", f"console=ttyAMA0 quiet nokaslr tvm=sequential={MEBIBYTES},off"]
    options += ["-drive", f"file={image},if=none,format=qcow2,id=image"]
    options += ["-drive", "driver=blkreplay,if=none,image=image,id=disk", "-device", "virtio-blk-device,drive=disk"]
    options += ["-icount", f"shift=auto,rr=record,rrfile={folder / f'{side.name}-disk.rr'}"]
    done = run(side, options)
    return {
        f"{what} MiB/s": MEBIBYTES / (done.moment(f"{what} ends".encode()) - done.moment(f"{what} begins".encode()))
        for what in ("read", "write")
    }
