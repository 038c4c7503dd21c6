"""QAPI module ``pci``: what is on the PCI bus (QEMU: ``qapi/pci.json``)."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from timevm.qmp_schema.base import Bool, Command, Example, Int, QapiModel, Str

_UNDERSCORES = ConfigDict(alias_generator=lambda name: name.removesuffix("_"))


class PciMemoryRegion(QapiModel):
    """A base address register.  ``address``: -1 where nothing answers now."""

    model_config = _UNDERSCORES

    bar: Int
    type: Str
    address: Int
    size: Int
    prefetch: Bool | None = None
    mem_type_64: Bool | None = None


class PciDeviceClass(QapiModel):
    """``desc``: in words, where QEMU has some for the class."""

    model_config = _UNDERSCORES

    desc: Str | None = None
    class_: Int


class PciDeviceId(QapiModel):
    model_config = _UNDERSCORES

    device: Int
    vendor: Int
    subsystem: Int | None = None
    subsystem_vendor: Annotated[Int | None, Field(alias="subsystem-vendor")] = None


class PciDeviceInfo(QapiModel):
    """``irq``: what the firmware wrote into the function's interrupt line register; there if it has a pin (1 is A)."""

    model_config = _UNDERSCORES

    bus: Int
    slot: Int
    function: Int
    class_info: PciDeviceClass
    id: PciDeviceId
    irq: Int | None = None
    irq_pin: Int
    qdev_id: Str
    regions: list[PciMemoryRegion]


class PciInfo(QapiModel):
    bus: Int
    devices: list[PciDeviceInfo]


COMMANDS = (
    Command(
        name="query-pci",
        documentation="The PCI functions of the machine by slot, with what firmware or the guest has set up in them.  "
        "Empty where there is no PCI bus.",
        result=list[PciInfo],
        example=Example(
            None,
            [
                {
                    "bus": 0,
                    "devices": [
                        {
                            "bus": 0,
                            "slot": 1,
                            "function": 1,
                            "class_info": {"desc": "IDE controller", "class": 257},
                            "id": {"device": 28688, "vendor": 32902, "subsystem": 4352, "subsystem-vendor": 6900},
                            "irq_pin": 0,
                            "qdev_id": "",
                            "regions": [{"bar": 4, "type": "io", "address": 49312, "size": 16}],
                        }
                    ],
                }
            ],
        ),
        hmp="info pci",
    ),
)
