"""The log: what was written is read, whatever the file went through."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
from pathlib import Path

import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.replay.test_codec import events
from tests.engine.replay.toys import IDENTITY, identity
from timevm.engine.replay import log_format as layout
from timevm.engine.replay.codec import Entry
from timevm.engine.replay.events import Digest, End, Event, Idle, SerialInput
from timevm.engine.replay.log_format import FrameKind
from timevm.engine.replay.log_reader import LogReader
from timevm.engine.replay.opening import check_same_machine, create_recording, open_recording
from timevm.errors import InternalError, RecordingError

ENTRIES = [
    Entry(0, Digest(1, 2, 3)),
    Entry(10, SerialInput(0, b"ls -l\r")),
    Entry(10, Idle(12345)),
    Entry(5000, SerialInput(0, b"x" * 100)),
    Entry(70_000, Idle(1)),
    Entry(70_000, Idle(2)),
    Entry(1_000_000, Digest(4, 5, 6)),
    Entry(1_000_000, End("shutdown")),
]


def write(path: Path, frames: list[list[Entry]], close: bool = True) -> bytes:
    writer = create_recording(path, IDENTITY)
    for frame in frames:
        for entry in frame:
            writer.append(entry.icount, entry.event)
        writer.flush()
    if close:
        writer.close()
        writer.close()
    else:
        writer.abandon()
    return path.read_bytes()


@pytest.fixture
def sample(tmp_path: Path) -> tuple[Path, bytes]:
    path = tmp_path / "sample"
    return path, write(path, [ENTRIES[:3], ENTRIES[3:5], ENTRIES[5:]])


def frame_ends(path: Path) -> list[tuple[int, int]]:
    """(offset behind it, number of events up to there) of every frame, and of the header."""
    reader = open_recording(path)
    ends = [(reader.header_size, 0)]
    for frame in reader.frames():
        ends.append((frame.offset + frame.stored, ends[-1][1] + frame.events))
    reader.close()
    return ends


def check_prefix(reader: LogReader, at_least: int) -> None:
    """What a damaged recording still gives is a prefix of what was written, and it says where it ends, and why."""
    got = list(reader.entries())
    assert got == ENTRIES[: len(got)]
    assert len(got) >= at_least
    assert reader.event_count == len(got)
    assert reader.end_icount == (got[-1].icount if got else 0)
    assert f"instruction {reader.end_icount}" in reader.ending
    assert "\n" not in reader.ending


def test_what_was_written_is_read(sample: tuple[Path, bytes]) -> None:
    for check_at_once in (0, 1 << 30):
        reader = LogReader(sample[0], check_at_once=check_at_once)
        assert reader.identity == IDENTITY
        assert list(reader.entries()) == ENTRIES
        assert [reader.entry(number) for number in reversed(range(8))] == ENTRIES[::-1]
        assert reader.entry(8) is None
        assert reader.end_icount == 1_000_000
        assert reader.end == End("shutdown")
        assert reader.damage is None and reader.is_closed_in_order and reader.index_agrees()
        assert reader.ending == "the recording ends at instruction 1000000: the guest switched itself off"
        assert [reader.number_at(icount) for icount in (0, 1, 10, 11, 70_000, 70_001, 1_000_001)] == [
            0,
            1,
            1,
            3,
            4,
            6,
            8,
        ]
        reader.close()
        reader.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 1 << 40), events), min_size=1, max_size=5), max_size=5), st.booleans()
)
def test_any_events_in_any_frames(
    tmp_path_factory: pytest.TempPathFactory, frames: list[list[tuple[int, Event]]], by_index: bool
) -> None:
    icount, entries = 0, []
    for frame in frames:
        entries.append([Entry(icount := icount + delta, event) for delta, event in frame])
    path = tmp_path_factory.mktemp("log") / "log"
    write(path, entries)
    reader = LogReader(path, check_at_once=0 if by_index else 1 << 30)
    assert list(reader.entries()) == [entry for frame in entries for entry in frame]
    assert reader.damage is None and reader.index_agrees()
    reader.close()


def test_truncated_anywhere(sample: tuple[Path, bytes]) -> None:
    """At every byte of the file: a header cut short is refused, otherwise all whole frames are there."""
    path, whole = sample
    ends = frame_ends(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length < ends[0][0]:
            with pytest.raises(RecordingError, match=r"header is cut short|is empty"):
                open_recording(path)
            continue
        reader = open_recording(path)
        expected = max(events for end, events in ends if end <= length)
        check_prefix(reader, expected)
        assert reader.event_count == expected
        assert reader.damage is not None or not reader.is_closed_in_order, f"{length} of {len(whole)} bytes look whole"
        assert ("damaged" in reader.ending) == (length not in [end for end, _ in ends] and reader.damage is not None)
        reader.close()


@pytest.mark.parametrize("check_at_once", [0, 1 << 30], ids=["by index", "walk"])
def test_a_bit_flipped_anywhere(sample: tuple[Path, bytes], check_at_once: int) -> None:
    """In every byte of the file, one random bit."""
    path, whole = sample
    ends = frame_ends(path)
    for offset in range(len(whole)):
        data = bytearray(whole)
        data[offset] ^= 1 << random.Random(offset).randrange(8)
        path.write_bytes(data)
        if offset < ends[0][0]:
            with pytest.raises(RecordingError) as caught:
                open_recording(path)
            assert 1 <= len(str(caught.value).splitlines()) <= 3
            continue
        reader = LogReader(path, check_at_once=check_at_once)
        check_prefix(reader, max(events for end, events in ends if end <= offset))
        assert reader.damage is not None or not reader.index_agrees()
        if offset < ends[-1][0]:
            assert reader.damage is not None
            assert reader.damage.offset == max(end for end, _ in ends if end <= offset)
        reader.close()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Pieces cut out, doubled, overwritten: a prefix or a refusal."""
    path = tmp_path_factory.mktemp("log") / "log"
    whole = write(path, [[entry] for entry in ENTRIES])
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    piece = data.draw(st.one_of(st.binary(max_size=100), st.just(whole[start:stop] * 2), st.just(bytes(stop - start))))
    path.write_bytes(whole[:start] + piece + whole[stop:])
    try:
        reader = LogReader(path, check_at_once=data.draw(st.sampled_from([0, 1 << 30])))
    except RecordingError as error:
        assert len(str(error).splitlines()) <= 3
    else:
        check_prefix(reader, 0)
        reader.close()


def test_frames_of_another_recording_and_in_another_order_are_refused(sample: tuple[Path, bytes]) -> None:
    path, whole = sample
    (head, _), (one, _), (two, _), *_ = frame_ends(path)
    path.write_bytes(whole[:head] + whole[one:two] + whole[head:one] + whole[two:])
    reader = open_recording(path)
    assert reader.event_count == 0
    reader.close()
    writer = create_recording(path, identity(seed=bytes(32)))
    writer.close()
    other = path.read_bytes()
    path.write_bytes(other[: frame_ends(path)[0][0]] + whole[head:])
    reader = open_recording(path)
    assert reader.event_count == 0 and reader.damage is not None
    reader.close()


def test_the_message_says_how_much_is_lost(sample: tuple[Path, bytes]) -> None:
    path, whole = sample
    data = bytearray(whole)
    ends = frame_ends(path)
    data[ends[1][0] + 40] ^= 1
    path.write_bytes(data)
    reader = open_recording(path)
    assert reader.ending == (
        f"the recording {path} is damaged: it replays up to instruction 10 only (byte {ends[1][0]}: the checksum of "
        "the frame is wrong; lost are 5 events up to instruction 1000000)"
    )
    reader.close()


def test_bytes_behind_the_end_mark_are_noticed(sample: tuple[Path, bytes]) -> None:
    path, whole = sample
    path.write_bytes(whole + b"more")
    reader = open_recording(path)
    check_prefix(reader, len(ENTRIES))
    assert reader.damage is not None and "4 bytes of something else" in reader.damage.reason
    reader.close()


def test_a_file_that_rots_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "log"
    frames = [[Entry(number, SerialInput(0, b"ab"))] for number in range(30)]
    write(path, frames)
    reader = open_recording(path)
    infos = list(reader.frames())
    assert reader.entry(2) is not None
    with path.open("r+b") as file:
        file.truncate(infos[20].offset + 3)
    assert [entry.icount for entry in reader.entries()] == list(range(20))
    assert reader.end_icount == 19 and reader.event_count == 20 and reader.entry(29) is None
    assert "damaged" in reader.ending
    with path.open("r+b") as file:
        file.truncate(0)
    assert len(list(reader.entries())) <= 20
    reader.close()


def test_a_closed_reader_says_so(sample: tuple[Path, bytes]) -> None:
    reader = open_recording(sample[0])
    reader.close()
    with pytest.raises(InternalError, match="after it was closed"):
        reader.entry(0)


def forge(path: Path, payload: bytes, events: int = 1, plain: int | None = None, flags: int = 0, last: int = 0) -> None:
    """A recording with one frame that has a right checksum and wrong contents."""
    writer = create_recording(path, IDENTITY)
    writer.abandon()
    reader = open_recording(path)
    checksum = layout.HEADER.unpack(path.read_bytes()[: layout.HEADER.size])[3]
    reader.close()
    plain = len(payload) if plain is None else plain
    fields = layout.FRAME.pack(FrameKind.EVENTS, flags, events, len(payload), plain, 0, last, 0)[:-4]
    seed = layout.frame_seed(checksum, 0)
    frame = fields + struct.pack("<I", xxhash.xxh32_intdigest(fields + payload, seed)) + payload
    with path.open("ab") as file:
        file.write(frame)


@pytest.mark.parametrize(
    ("payload", "arguments"),
    [
        (b"\x00\xc8", {}),
        (b"\x00\x02\x00", {}),
        (b"\x00\x02\x01" * 1000, {}),
        (b"\x00\x02\x01", {"events": 2}),
        (b"\x00\x02\x01", {"last": 7}),
        (b"\x00\x02\x01", {"last": 1 << 63}),
        (b"\x00\x02\x01", {"plain": 100}),
        (b"\x00\x03\x63", {}),
        (b"\x00\x05\x01\xff", {}),
        (b"", {"events": 0}),
        (b"garbage", {"flags": 1, "plain": 7}),
        (zstandard.compress(bytes(1 << 30)), {"flags": 1, "plain": 16 << 20}),
        (zstandard.compress(b"\x00\x02\x01" * 5_000_000), {"flags": 1, "plain": 15_000_000}),
    ],
)
def test_a_liar_gets_nowhere(tmp_path: Path, payload: bytes, arguments: dict[str, int]) -> None:
    forge(tmp_path / "log", payload, **arguments)
    tracemalloc.start()
    reader = open_recording(tmp_path / "log")
    assert list(reader.entries()) == []
    assert reader.damage is not None and reader.end_icount == 0
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    reader.close()


@pytest.mark.parametrize("check_at_once", [0, 1 << 30])
@given(noise=st.binary(max_size=300))
def test_garbage_behind_a_header(tmp_path_factory: pytest.TempPathFactory, noise: bytes, check_at_once: int) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    header = write(path, [], close=False)
    path.write_bytes(header + noise)
    reader = LogReader(path, check_at_once=check_at_once)
    assert reader.event_count == 0
    reader.close()


def test_files_that_are_no_recordings(tmp_path: Path) -> None:
    missing = tmp_path / "X"
    with pytest.raises(RecordingError, match=rf"^Replay: open {missing}: No such file or directory$"):
        open_recording(missing)
    with pytest.raises(RecordingError, match="Is a directory"):
        open_recording(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RecordingError, match="not a regular file"):
        open_recording(tmp_path / "fifo")
    (tmp_path / "text").write_text("#!/bin/sh\n" * 100)
    with pytest.raises(RecordingError, match="not a recording of timevm"):
        open_recording(tmp_path / "text")
    (tmp_path / "empty").touch()
    with pytest.raises(RecordingError, match="is empty"):
        open_recording(tmp_path / "empty")


def test_another_format_version_is_named(sample: tuple[Path, bytes]) -> None:
    path, whole = sample
    path.write_bytes(whole[:8] + struct.pack("<I", 7) + whole[12:])
    with pytest.raises(RecordingError, match="has format version 7, this timevm reads 1"):
        open_recording(path)


def test_the_machine_is_checked_before_the_first_instruction(sample: tuple[Path, bytes]) -> None:
    reader = open_recording(sample[0])
    check_same_machine(reader, IDENTITY)
    with pytest.raises(RecordingError) as caught:
        check_same_machine(reader, identity(ram_bytes=64 << 20, cpu="max"))
    assert str(caught.value).splitlines()[1:] == [
        "  CPU model: recorded with cortex-a57, now max",
        "  RAM size: recorded with 512 MiB, now 64 MiB",
    ]
    reader.close()


def test_a_recording_is_small(tmp_path: Path) -> None:
    """As many events as a Linux boot to a prompt and some typing brings."""
    chance = random.Random(1)
    entries, icount = [], 0
    for number in range(1500):
        icount += chance.randrange(1_000_000)
        typed = SerialInput(0, bytes([chance.randrange(32, 127)]))
        entries.append(Entry(icount, typed if number % 10 == 0 else Idle(chance.randrange(4_000_000))))
    assert len(write(tmp_path / "log", [entries])) < 16_000


def test_the_layout_is_that_of_the_document(sample: tuple[Path, bytes]) -> None:
    """docs/recording-format.md, read by hand."""
    whole = sample[1]
    assert whole[:8] == b"\x89TVMREC\n"
    version, length, checksum = struct.unpack_from("<IIQ", whole, 8)
    assert version == 1 and whole[24 : 24 + length] == IDENTITY.to_json()
    assert checksum == xxhash.xxh64_intdigest(whole[:16] + whole[24 : 24 + length])
    offset, kinds = 24 + length, list[int]()
    while offset < len(whole):
        kind, flags, events, stored, plain, first, last, check = struct.unpack_from("<BBHIIQQI", whole, offset)
        number = len(kinds) if kind == 1 else 0
        seed = (checksum ^ (checksum >> 32) ^ number) & 0xFFFFFFFF
        payload = whole[offset + 32 : offset + 32 + stored]
        assert check == xxhash.xxh32_intdigest(whole[offset : offset + 28] + payload, seed)
        text = zstandard.decompress(payload) if flags else payload
        assert len(text) == plain
        kinds.append(kind)
        if kind == 1:
            assert text[0] == 0 and last >= first and events > 0
        elif kind == 2:
            index_offset = offset
        offset += 32 + stored
    assert kinds == [1, 1, 1, 2, 3]
    assert struct.unpack("<QQQ", whole[-24:]) == (3, len(ENTRIES), index_offset)
    assert len(whole) - index_offset > 56 and text == whole[-24:]
