"""What no single option shows to be wrong: names that nobody has, one chardev for two users."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

from timevm.config.model import NO_UUID, Chardev, Monitor, Null, Stdio
from timevm.engine.machine.spec import Blockdev, DeviceOption, Drive, ObjectOption
from timevm.errors import UserError

#: of one multiplexed chardev (QEMU's ``MAX_MUX``)
MOST_FRONT_ENDS = 4


def check_block_graph(
    drives: Sequence[Drive],
    blockdevs: Sequence[Blockdev],
    devices: Sequence[DeviceOption],
    objects: Sequence[ObjectOption],
) -> None:
    """Every ``drive=``, ``image=`` and ``rng=`` names something, and no name is there twice."""
    nodes = [drive.identifier for drive in drives if drive.identifier]
    nodes += [blockdev.node_name for blockdev in blockdevs]
    for node in nodes:
        if nodes.count(node) > 1:
            raise UserError(f"-drive id={node}: Duplicate ID '{node}' for drive")
    for drive in drives:
        if drive.driver == "blkreplay" and drive.image not in nodes:
            shown = f"-drive driver=blkreplay,image={drive.image}"
            raise UserError(f"{shown}: Cannot find device='{drive.image}' nor node-name='{drive.image}'")
    sources = [source.identifier for source in objects if source.kind.startswith("rng-")]
    for device in devices:
        properties = dict(device.properties)
        if "drive" in properties and properties["drive"] not in nodes:
            raise UserError(
                f"-device {device.driver},drive={properties['drive']}: "
                f"Property '{device.driver}.drive' can't find value '{properties['drive']}'"
            )
        if "rng" in properties and properties["rng"] not in sources:
            raise UserError(f"-device {device.driver},rng={properties['rng']}: Device '{properties['rng']}' not found")


def uuid_of(text: str | None) -> UUID:
    """``-uuid``; zeroes if there is none."""
    if text is None:
        return NO_UUID
    if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text) is None:
        raise UserError(f"-uuid {text}: failed to parse UUID string: wrong format")
    return UUID(text)


def check_networks(netdevs: Sequence[str], devices: Sequence[DeviceOption], objects: Sequence[ObjectOption]) -> None:
    """Every ``netdev=`` names one, each has one card, and no name is there twice."""
    for name in netdevs:
        if netdevs.count(name) > 1:
            raise UserError(f"-netdev id={name}: Duplicate ID '{name}' for netdev")
    taken: set[str] = set()
    for device in devices:
        wanted = dict(device.properties).get("netdev")
        if wanted is None:
            continue
        shown = f"-device {device.driver},netdev={wanted}: Property '{device.driver}.netdev'"
        if wanted not in netdevs:
            raise UserError(f"{shown} can't find value '{wanted}'")
        if wanted in taken:
            raise UserError(f"{shown} can't take value '{wanted}', it's in use")
        taken.add(wanted)
    for each in objects:
        if each.kind == "filter-replay" and dict(each.properties)["netdev"] not in netdevs:
            raise UserError(
                f"-object filter-replay,id={each.identifier}: Parameter 'netdev' expects a network backend id"
            )


def check_chardevs(
    chardevs: Sequence[Chardev],
    serial: Sequence[str | None],
    monitors: Sequence[tuple[str, Monitor]],
    gdb: str | None,
    most_serial_ports: int,
) -> None:
    """Every chardev that is used exists, and has one user unless it is multiplexed."""
    if len(serial) > most_serial_ports:
        raise UserError(
            f"-serial: this machine has {most_serial_ports} serial port{'s' if most_serial_ports > 1 else ''}, "
            f"{len(serial)} were asked for"
        )
    known = {chardev.identifier: chardev for chardev in chardevs}
    terminals = [chardev for chardev in chardevs if isinstance(chardev.backend, Stdio)]
    if len(terminals) > 1:
        raise UserError(f"{terminals[1].option}: cannot use stdio by multiple character devices")
    uses = [(f"-serial chardev:{name}", name) for name in serial if name is not None]
    uses += [(option, monitor.chardev) for option, monitor in monitors]
    uses += [(f"-gdb chardev:{gdb}", gdb)] if gdb is not None else []
    users: dict[str, list[str]] = {}
    for option, name in uses:
        if name not in known:
            raise UserError(f'{option}: chardev "{name}" not found')
        users.setdefault(name, []).append(option)
    for name, options in users.items():
        shareable = known[name].mux or isinstance(known[name].backend, Null)
        if len(options) > 1 and not shareable:
            raise UserError(f"{options[1]}: Device '{name}' is in use: give mux=on to its -chardev to share it")
        if len(options) > MOST_FRONT_ENDS:
            raise UserError(f"{options[-1]}: chardev '{name}' has {MOST_FRONT_ENDS} users already")
