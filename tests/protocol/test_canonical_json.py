import json
import math
from typing import Any

import canonicaljson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.canonical_json import (
    MAX_DEPTH,
    InvalidJSON,
    NotCanonical,
    decode,
    decode_strict,
    encode,
    encode_strict,
)

text = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
safe_integers = st.integers(-(2**53) + 1, 2**53 - 1)


def trees(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | text | numbers,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=20,
    )


canonical = trees(safe_integers)
any_json = trees(st.integers() | st.floats(allow_nan=False, allow_infinity=False))


@pytest.mark.parametrize(
    ("given_json", "expected"),
    [
        ("{}", "{}"),
        ('{"one": 1, "two": "Two"}', '{"one":1,"two":"Two"}'),
        ('{"b": "2", "a": "1"}', '{"a":"1","b":"2"}'),
        (
            '{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {'
            '"display_name": "John Doe", "three_pids": ['
            '{"medium": "email", "address": "john.doe@example.org"},'
            '{"medium": "msisdn", "address": "123456789"}]}}}',
            '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":['
            '{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},'
            '"success":true}}',
        ),
        ('{"a": "日本語"}', '{"a":"日本語"}'),
        ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
        ('{"a": "\\u65E5"}', '{"a":"日"}'),
        ('{"a": null}', '{"a":null}'),
        ('{"a": -0}', '{"a":0}'),
    ],
)
def test_vectors_of_the_specification(given_json: str, expected: str) -> None:
    value = decode_strict(given_json.encode())
    assert encode(value) == encode_strict(value) == expected.encode()


@given(canonical)
def test_agrees_with_the_reference_encoder_and_comes_back(value: Any) -> None:
    encoded = encode(value)
    assert encoded == encode_strict(value) == canonicaljson.encode_canonical_json(value)
    assert decode_strict(encoded) == value


@given(any_json)
def test_agrees_with_the_reference_encoder_on_floats_and_huge_integers(value: Any) -> None:
    assert encode(value) == canonicaljson.encode_canonical_json(value)
    assert decode(encode(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False), text)
def test_a_float_is_found_wherever_it_stands(number: float, key: str) -> None:
    for value in (number, [number], {key: number}, {key: ["1.5", {key: [key, number]}]}):
        assert encode(value) == canonicaljson.encode_canonical_json(value)
        with pytest.raises(NotCanonical):
            encode_strict(value)
        with pytest.raises(NotCanonical):
            decode_strict(json.dumps(value).encode())


def test_every_character_is_escaped_like_the_reference() -> None:
    characters = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    assert encode(characters) == canonicaljson.encode_canonical_json(characters)


def test_keys_are_sorted_by_code_point() -> None:
    keys = {"\U0001f600": 1, "\uffff": 2, "\ue000": 3, "z": 4, "": 5, "é": 6}
    assert list(decode(encode(keys))) == ["", "z", "é", "\ue000", "\uffff", "\U0001f600"]


def test_text_that_looks_like_floats_is_text() -> None:
    value = {"1.5": "0e0 1.2.3.4 null", "version": ["1.2"], "nothing": None}
    assert encode_strict(value) == canonicaljson.encode_canonical_json(value)


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**63, 2**64, -(2**100)])
def test_integers_beyond_2_53_are_kept_before_v6_and_refused_since(number: int) -> None:
    data = b'{"n":%d}' % number
    assert encode(decode(data)) == data
    with pytest.raises(NotCanonical):
        decode_strict(data)


@pytest.mark.parametrize("number", [2**53 - 1, -(2**53) + 1, 0])
def test_the_largest_integers_are_allowed(number: int) -> None:
    assert decode_strict(b"[%d]" % number) == [number]


@pytest.mark.parametrize("data", [b"1.0", b"1e10", b"-0.0", b"[1E2]"])
def test_numbers_written_as_floats_are_refused_since_v6(data: bytes) -> None:
    decode(data)
    with pytest.raises(NotCanonical):
        decode_strict(data)


def test_the_last_of_duplicate_keys_counts() -> None:
    assert decode_strict(b'{"a":1,"b":0,"a":2}') == {"a": 2, "b": 0}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{} x",
        b"{'a':1}",
        b"[01]",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e400",
        b"1" * 5000,
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\x00"',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
)
@pytest.mark.parametrize("decoder", [decode, decode_strict])
def test_what_is_no_json_is_refused(decoder: Any, data: bytes) -> None:
    with pytest.raises(InvalidJSON):
        decoder(data)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, [-math.inf], "\ud800", {"\udfff": 1}, b"bytes", {"a": object()}]
)
@pytest.mark.parametrize("encoder", [encode, encode_strict])
def test_what_has_no_json_form_is_refused(encoder: Any, value: Any) -> None:
    with pytest.raises((InvalidJSON, NotCanonical)):
        encoder(value)


def nested(depth: int, inside: Any) -> Any:
    value = inside
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize("inside", ["text", 2**70, 0.5])
def test_nesting_is_bounded_alike_on_the_fast_and_the_slow_path(inside: Any) -> None:
    deepest = nested(MAX_DEPTH, inside)
    assert encode(deepest) == canonicaljson.encode_canonical_json(deepest)
    for depth in (MAX_DEPTH + 1, 5000):
        with pytest.raises(InvalidJSON):
            encode(nested(depth, inside))
        with pytest.raises(InvalidJSON):
            encode_strict(nested(depth, inside))


@given(st.binary() | st.text().map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        value = decode(data)
    except InvalidJSON:
        return
    assert decode(encode(value)) == value
