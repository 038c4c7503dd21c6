"""Drives as the PC's command line has them: the IDE bus by default, CD-ROMs by ``media=cdrom``."""

from __future__ import annotations

import pytest

from timevm.config.architectures import vocabulary_of
from timevm.config.machine_options import parse_device, parse_drive
from timevm.engine.machine.spec import DeviceOption
from timevm.errors import UserError


@pytest.mark.parametrize("architecture", ["x86_64", "i386"])
def test_a_cd_is_read_only_and_says_what_it_is(architecture: str) -> None:
    drive = parse_drive("file=cd.iso,media=cdrom", vocabulary_of(architecture))
    assert drive.interface == "ide" and drive.readonly and ("media", "cdrom") in drive.properties
    disk = parse_drive("file=disk.img,media=disk", vocabulary_of(architecture))
    assert not disk.readonly and not disk.properties


def test_the_virt_machine_has_no_cd() -> None:
    with pytest.raises(UserError, match="no CD-ROM drive"):
        parse_drive("file=cd.iso,media=cdrom", vocabulary_of("aarch64"))


@pytest.mark.parametrize("text", ["ide-cd,drive=d", "ide-hd,drive=d,bus=ide.1,unit=0", "isa-debug-exit,iobase=0xf4"])
def test_devices_of_the_pc(text: str) -> None:
    option = parse_device(text, vocabulary_of("x86_64"))
    assert isinstance(option, DeviceOption) and option.driver == text.split(",")[0]
    with pytest.raises(UserError):
        parse_device(text, vocabulary_of("aarch64"))
