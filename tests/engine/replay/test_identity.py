"""What makes a recording another machine's is named, every bit of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.replay.toys import IDENTITY, identity
from timevm.engine.replay.build import Build, build_differences
from timevm.engine.replay.identity import Identity
from timevm.errors import RecordingError

digests = st.none() | st.text("0123456789abcdef", min_size=16, max_size=64)
pairs = st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple)
identities = st.builds(
    Identity,
    machine=st.text(),
    cpu=st.text(),
    ram_bytes=st.integers(1, 1 << 40),
    shift=st.integers(0, 10),
    rtc_base_seconds=st.integers(-(1 << 40), 1 << 40),
    seed=st.binary(min_size=32, max_size=32),
    kernel=digests,
    initrd=digests,
    dtb=digests,
    append=st.text(),
    disks=pairs,
    loaders=pairs,
    devices=st.lists(st.text(), max_size=3).map(tuple),
    start_icount=st.integers(0, 1 << 60),
    start_snapshot=st.none() | st.text(),
    build=pairs,
)


@given(identities)
def test_it_survives_json(one: Identity) -> None:
    assert Identity.from_json(one.to_json()) == one


@given(identities, identities)
def test_differences_are_named_and_only_they(one: Identity, other: Identity) -> None:
    lines = one.differences(other)
    compared = [name for name in one.__dataclass_fields__ if name not in ("start_icount", "start_snapshot", "build")]
    differ = any(getattr(one, name) != getattr(other, name) for name in compared)
    assert bool(lines) == (differ or bool(build_differences(one.build, other.build)))
    assert one.differences(one) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"ram_bytes": 256 << 20}, "RAM size: recorded with 512 MiB, now 256 MiB"),
        ({"machine": "raspi3b"}, "machine: recorded with virt, now raspi3b"),
        ({"cpu": "max"}, "CPU model: recorded with cortex-a57, now max"),
        ({"kernel": None}, "kernel: recorded with the one with digest abababababababab, now none"),
        ({"append": "quiet"}, "-append: recorded with \"console=ttyAMA0 'quoted' ünïcode\", now 'quiet'"),
        ({"shift": 0}, "icount shift: recorded with 3, now 0"),
        ({"rtc_base_seconds": 0}, "RTC base: recorded with 2023-11-14T22:13:20, now 1970-01-01T00:00:00"),
        ({"disks": ()}, "disk 'hd0': recorded with the one with digest cdcdcdcdcdcdcdcd, now none"),
        ({"loaders": (("a.bin", "12"),)}, "loaded file 'a.bin': recorded with none, now the one with digest 12"),
        (
            {"devices": ("virtio-rng-device", "rtl8139")},
            "devices: recorded with none, now virtio-rng-device and rtl8139",
        ),
        ({"timevm_version": "9"}, f"timevm: recorded with {IDENTITY.timevm_version}, now 9"),
    ],
)
def test_a_difference_in_words(changes: dict[str, object], line: str) -> None:
    assert IDENTITY.differences(identity(**changes)) == [line]


def test_every_difference_is_named() -> None:
    lines = IDENTITY.differences(identity(ram_bytes=1, cpu="max", append="", disks=(("hd0", "x"), ("hd1", "y"))))
    assert [line.split(":")[0] for line in lines] == ["CPU model", "RAM size", "-append", "disk 'hd0'", "disk 'hd1'"]


def test_a_replay_takes_the_choices_of_the_recording() -> None:
    now = identity(shift=0, rtc_base_seconds=5, seed=bytes(32), start_icount=7)
    assert IDENTITY.differences(now.replaying(IDENTITY)) == []
    assert now.replaying(IDENTITY) == IDENTITY
    assert len(IDENTITY.differences(now.replaying(IDENTITY, keep_shift=True, keep_rtc_base=True))) == 2


@given(
    st.binary(max_size=100)
    | st.text().map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from([*IDENTITY.__dataclass_fields__, "other"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(RecordingError, match="recorded machine"):
        Identity.from_json(data)


@pytest.mark.parametrize(
    "changes", [{"shift": 11}, {"shift": -1}, {"ram_bytes": 0}, {"seed": b""}, {"start_icount": 1 << 62}]
)
def test_impossible_numbers_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RecordingError, match="out of range"):
        Identity.from_json(identity(**changes).to_json())


BUILD = (("memory map", "1"), ("device uart0", "2"), ("device rtc", "3"), ("event IDLE", "4"))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (BUILD, ""),
        ((), ""),
        ((*BUILD, ("event NEW", "5")), ""),
        ((("memory map", "9"), *BUILD[1:]), "another memory map"),
        ((("memory map", "9"), ("device uart0", "8"), *BUILD[2:]), "another memory map and device uart0"),
        (BUILD[:2] + BUILD[3:], "no device rtc"),
        (BUILD[:3], "no event IDLE"),
        ((*BUILD, ("device one", "5"), ("device two", "6")), "a new device one and device two"),
        ((BUILD[0], BUILD[2], BUILD[1], BUILD[3]), "its devices in another order"),
        ((BUILD[0], ("device uart0", "8"), ("device new", "3"), BUILD[3]),
         "another device uart0, no device rtc, a new device new"),
    ],
)  # fmt: skip
def test_another_build_in_words(now: Build, words: str) -> None:
    assert build_differences(BUILD, now) == words
    lines = identity(build=BUILD).differences(identity(build=now))
    assert lines == ([f"build: this timevm makes {words}"] if words else [])


def test_what_an_older_timevm_recorded_says_nothing_of_its_build() -> None:
    assert b"build" not in IDENTITY.to_json() and b"build" in identity(build=BUILD).to_json()
    assert build_differences((), BUILD) == ""
