"""QAPI module ``char``: the ends where bytes go in and out (QEMU: ``qapi/char.json``)."""

from __future__ import annotations

from timevm.qmp_schema.base import Bool, Command, Example, QapiModel, Str


class ChardevInfo(QapiModel):
    """``filename`` describes the backend as QEMU does: ``unix:/tmp/qmp,server=on``, ``disconnected:…``, ``null``."""

    label: Str
    filename: Str
    frontend_open: Bool


COMMANDS = (
    Command(
        name="query-chardev",
        documentation="The character devices: monitors, serial ports.",
        result=list[ChardevInfo],
        example=Example(
            None,
            [{"label": "compat_monitor0", "filename": "unix:/tmp/qmp,server=on", "frontend-open": True}],
        ),
        allow_preconfig=True,
        hmp="info chardev",
    ),
)
