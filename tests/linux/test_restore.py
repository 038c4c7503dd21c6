"""Debian restored at mid-boot in a fresh process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.machine.test_restore import check_moment
from tests.linux.harness import linux, record

pytestmark = [pytest.mark.linux, pytest.mark.timeout(600)]


def test_debian_goes_on_from_mid_boot(tmp_path: Path) -> None:
    spec = linux("basic,off", tmp_path / "boot.rr", sleep=False)
    recorded = record(spec)
    for tenths in (3, 7):
        check_moment(spec, recorded, recorded.icount * tenths // 10, tmp_path / "state", fresh=True)
