"""The drives of the pc board's IDE channels, as the command line has them."""

from __future__ import annotations

from timevm.engine.devices.ata_disk import AtaDisk
from timevm.engine.devices.ata_identify import DiskNames
from timevm.engine.devices.atapi_cdrom import AtapiCdrom
from timevm.engine.devices.piix_ide import PiixIde
from timevm.engine.machine.disks import Disk, Disks
from timevm.engine.machine.spec import DeviceOption
from timevm.errors import UserError

CHANNELS, UNITS = 2, 2
#: properties of QEMU's that change nothing here
_IGNORED = (
    "drive", "bootindex", "rerror", "werror", "share-rw", "write-cache", "logical_block_size", "physical_block_size",
    "min_io_size", "opt_io_size", "discard_granularity", "ver", "wwn", "account-invalid", "account-failed",
)  # fmt: skip
_KNOWN = ("bus", "unit", "serial", "model")
SERIAL_MOST, MODEL_MOST = 20, 40
#: driver -> the model that the drive says it is
MODELS = {"ide-hd": "QEMU HARDDISK", "ide-cd": "QEMU DVD-ROM"}


def fill_channels(ide: PiixIde, disks: Disks) -> None:
    """Drives go where their options say, else to the first free place.  Raises UserError."""
    free = [(channel, unit) for channel in range(CHANNELS) for unit in range(UNITS)]
    wanted = [(disk, _place_of(disk.plan.device)) for disk in disks.disks if disk.plan.device.driver in MODELS]
    for disk, (channel, unit) in sorted(wanted, key=lambda item: item[1][1] is None):
        fitting = [place for place in free if channel in (None, place[0]) and unit in (None, place[1])]
        if not fitting:
            raise _refusal(disk.plan.device, "there is no free place for it: the two IDE channels take two drives each")
        free.remove(fitting[0])
        _plug(ide, disk, *fitting[0])


def _plug(ide: PiixIde, disk: Disk, channel: int, unit: int) -> None:
    option = disk.plan.device
    given = dict(option.properties)
    for key in given:
        if key not in (*_KNOWN, *_IGNORED):
            raise _refusal(option, f"Property '{option.driver}.{key}' not found")
    number = channel * UNITS + unit
    serial = given.get("serial", disk.plan.image.serial) or f"QM{number + 1:05}"
    model = given.get("model", MODELS[option.driver])
    if len(serial) > SERIAL_MOST or len(model) > MODEL_MOST:
        raise _refusal(option, f"serial has at most {SERIAL_MOST} characters, model {MODEL_MOST}")
    cable = ide.channels[channel]
    kind = AtaDisk if option.driver == "ide-hd" else AtapiCdrom
    cable.plug(unit, kind(f"ide{channel}-{unit}", cable, disk.drive, DiskNames(serial, model)))


def _place_of(option: DeviceOption) -> tuple[int | None, int | None]:
    """Channel and unit, None where the option leaves it open.  Raises UserError."""
    given = dict(option.properties)
    channel: int | None = None
    bus = given.get("bus")
    if bus is not None:
        if bus not in ("ide.0", "ide.1"):
            raise _refusal(option, f"Bus '{bus}' not found (known: ide.0, ide.1)")
        channel = int(bus[-1])
    unit = given.get("unit")
    if unit not in (None, "0", "1"):
        raise _refusal(option, f"Can't create IDE unit {unit}, bus supports only 2 units")
    return channel, None if unit is None else int(unit)


def _refusal(option: DeviceOption, why: str) -> UserError:
    return UserError(f"-device {option.driver}: {why}")
