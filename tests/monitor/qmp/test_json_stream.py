"""Splitting and parsing: whole, byte by byte, garbage, and what is too much."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.monitor.qmp.json_stream import MAX_REQUEST, JsonFailure, JsonStream, JsonText
from timevm.monitor.qmp.json_value import JsonError, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


@given(st.lists(VALUES, max_size=5), st.booleans(), st.sampled_from(["", " ", "\n", "\r\n"]))
def test_values_come_out_as_they_went_in(values: list[Any], ascii_only: bool, between: str) -> None:
    # two scalars outside of brackets need something between them
    texts = [json.dumps([value], ensure_ascii=ascii_only) for value in values]
    data = between.join(texts).encode("utf-8", "surrogatepass")
    for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
        stream = JsonStream()
        items = [item for piece in pieces for item in stream.feed(piece)]
        parsed = []
        for item in items:
            assert isinstance(item, JsonText)
            parsed.append(parse_json(item.data))
        assert parsed == [[value] for value in values]


@given(st.binary(max_size=200))
def test_garbage_gives_failures_only_and_the_same_byte_by_byte(garbage: bytes) -> None:
    whole = JsonStream().feed(garbage)
    stream = JsonStream()
    single = [item for index in range(len(garbage)) for item in stream.feed(garbage[index : index + 1])]
    assert single == whole
    for item in whole:
        if isinstance(item, JsonText):
            try:
                parse_json(item.data)
            except JsonError as failure:
                assert str(failure).startswith("JSON parse error, ")


@given(st.binary(max_size=100).map(lambda data: data.translate(None, b"{}[]\"'")))
def test_in_step_again_after_a_line_without_brackets(garbage: bytes) -> None:
    stream = JsonStream()
    stream.feed(garbage + b"\n")
    assert stream.feed(b'{"a":1}') == [JsonText(b'{"a":1}')]


def test_a_long_line_is_answered_once_and_forgotten() -> None:
    stream = JsonStream()
    stream.feed(b'{"execute":"')
    failures = []
    for _ in range(128):
        failures += stream.feed(b"a" * (1 << 16))
        assert len(stream._buffer) <= MAX_REQUEST + (1 << 16)
    assert failures == [JsonFailure("JSON token size limit exceeded")]
    assert stream.feed(b'"}\n{"a":1}') == [JsonText(b'{"a":1}')]


def test_deep_nesting_is_answered_once() -> None:
    stream = JsonStream()
    assert stream.feed(b"[" * 100_000) == [JsonFailure("JSON nesting depth limit exceeded")]
    assert stream.feed(b"\n[1]") == [JsonText(b"[1]")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"hello", "invalid keyword 'hello'"),
        (b'{"a":nul}', "invalid keyword 'nul'"),
        (b'{"a":1,"a":2}', "duplicate key"),
        (b'{"a":1,}', "expecting value"),
        (b'{"a" 1}', "missing : in object pair"),
        (b'{"a":1]', "expected separator in dict"),
        (b"{1:2}", "key is not a string in object"),
        (b"[1 2]", "expected separator in list"),
        (b"[1,]", "expecting value"),
        (b"]", "expecting value"),
        (b"01", "stray '01'"),
        (b"-", "stray '-'"),
        (b"1e400", "number out of range '1e400'"),
        (b'"\\ud800"', "invalid unicode escape sequence in string"),
        (b'"\\q"', "invalid escape sequence '\\q' in string"),
        (b'"\xc3"', "invalid UTF-8 sequence in string"),
    ],
)
def test_sentences(text: bytes, what: str) -> None:
    with pytest.raises(JsonError) as caught:
        parse_json(text)
    assert str(caught.value) == f"JSON parse error, {what}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{'a': 'b\\'c'}", {"a": "b'c"}),
        (b"10000000000000000000000", 1e22),
        (b"18446744073709551615", 18446744073709551615),
        (b'"\\u00e9\\ud83d\\ude00\\u0000"', "é😀\0"),
        (b"1.50", 1.5),
        (b"-0", 0),
        (b" true ", True),
    ],
)
def test_liberties(text: bytes, value: Any) -> None:
    assert parse_json(text) == value
