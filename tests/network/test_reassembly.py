"""Fragments in any order, doubled, overlapping, of many packets at once; and those that fit nowhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from timevm.network.packets import Fragment, Packet
from timevm.network.reassembly import MOST_PACKETS, PATIENCE, Reassembly


def fragments(payload: bytes, number: int = 1) -> list[Fragment]:
    found = [Fragment.read(part) for part in Packet(b"abcd", b"efgh", 17, payload).write(number)]
    assert None not in found
    return [each for each in found if each is not None]


@given(st.binary(max_size=8000), st.binary(min_size=1500, max_size=5000), st.data())
def test_packets_come_together_whatever_the_order(one: bytes, other: bytes, data: st.DataObject) -> None:
    parts = [*fragments(one, 1), *fragments(other, 2)]
    parts += data.draw(st.lists(st.sampled_from(parts), max_size=3))
    reassembly = Reassembly()
    whole = [reassembly.take(each, 0.0) for each in data.draw(st.permutations(parts))]
    payloads = [each.payload for each in whole if each is not None]
    assert one in payloads and other in payloads
    heads = [each.head for each in whole if each is not None and each.payload == other]
    assert all(len(head) == 28 and head[20:] == other[:8] for head in heads)


def test_what_is_never_whole_is_forgotten() -> None:
    reassembly = Reassembly()
    first, *rest = fragments(bytes(4000))
    assert reassembly.take(first, 0.0) is None
    assert [reassembly.take(each, PATIENCE + 1) for each in rest] == [None] * len(rest)
    for number in range(1000):
        reassembly.take(fragments(bytes(4000), number)[0], 0.0)
    assert len(reassembly._incomplete) <= MOST_PACKETS


@given(
    st.lists(
        st.builds(
            Fragment,
            st.builds(Packet, st.just(b"abcd"), st.just(b"efgh"), st.just(17), st.binary(max_size=40)),
            st.integers(0, 2),
            st.integers(0, 12).map(lambda place: 8 * place),
            st.booleans(),
        )
    )
)
def test_any_fragments_do_no_harm(parts: list[Fragment]) -> None:
    reassembly = Reassembly()
    for number, part in enumerate(parts):
        packet = reassembly.take(part, float(number))
        assert packet is None or len(packet.payload) <= 200
