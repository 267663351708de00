"""Whatever comes over a WebSocket is a request, or is refused in the specification's words."""

from __future__ import annotations

import json
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_api.live.upstream import Call, Misunderstood, read_call

ALICE = "@alice:a.org"
METHODS = ("ping", "send", "state", "typing", "receipt", "read_markers", "presence", "fly")
NAMES = ("room_id", "event_type", "state_key", "content", "event_id", "receipt_type", "m.read", "typing")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
frames = st.fixed_dictionaries(
    {"id": st.text(max_size=3) | values, "method": st.sampled_from(METHODS) | values},
    optional={
        "param": st.dictionaries(st.sampled_from(NAMES), values) | values,
        "params": st.dictionaries(st.sampled_from(NAMES), st.text(max_size=3) | values) | values,
    },
)


def read(text: str) -> Call | Misunderstood:
    try:
        return read_call(text, ALICE)
    except Misunderstood as error:
        return error


@given(frames)
def test_every_message_is_a_request_or_is_refused_by_its_id(frame: dict[str, object]) -> None:
    found = read(json.dumps(frame))
    if isinstance(found, Call):
        assert found.id == frame["id"]
        assert found.path is None or found.path.startswith("/_matrix/client/v3/")
    else:
        assert found.refusal.errcode in {"M_BAD_JSON", "M_MISSING_PARAM", "M_INVALID_PARAM", "M_UNRECOGNIZED"}
        assert found.call_id in {None, frame["id"] if isinstance(frame["id"], str) else None}


@given(st.text())
def test_text_that_is_not_json_is_refused(text: str) -> None:
    assert isinstance(read(text + "!"), Misunderstood)


@pytest.mark.parametrize("text", ['{"id": "\\ud800", "method": "ping"}', '{"id":' * 2000, "[" * 100_000])
def test_what_python_could_stumble_over_is_refused(text: str) -> None:
    found = read(text)
    assert isinstance(found, Misunderstood)
    assert found.refusal.status == 400


@given(room=st.text(min_size=1), txn=st.text(min_size=1, max_size=60))
def test_parameters_stay_in_their_place_in_the_path(room: str, txn: str) -> None:
    param = {"room_id": room, "event_type": "m/x?", "content": {}}
    found = read(json.dumps({"id": txn, "method": "send", "param": param}))
    assert isinstance(found, Call)
    assert found.path is not None
    assert [unquote(segment) for segment in found.path.split("/")[5:]] == [room, "send", "m/x?", txn]
    assert "?" not in found.path
