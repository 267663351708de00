"""Rendezvous sessions: who may write, how many there may be, and for how long."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.clock import FakeClock
from homeserver.errors import MatrixError
from homeserver.users.rendezvous import ConcurrentWrite, RendezvousSessions

#: Spec, appendices: "Opaque Identifiers".
_OPAQUE = re.compile(r"[0-9A-Za-z._~-]{1,255}")


@given(st.lists(st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=5), max_size=10))
def test_of_those_who_have_seen_the_same_one_writes(rounds: list[list[bytes]]) -> None:
    sessions = RendezvousSessions(FakeClock(), lifetime=60)
    session = sessions.create(b"begin")
    tokens = [session.token]
    for writers in rounds:
        seen, won, refused = tokens[-1], [], []
        for payload in writers:
            try:
                won.append(sessions.replace(session.id, seen, payload))
            except ConcurrentWrite as refusal:
                refused.append(refusal.session)
        assert refused == won * (len(writers) - 1)
        assert [one.payload for one in won] == [writers[0]]
        assert sessions.session(session.id) == won[0]
        tokens.append(won[0].token)
    assert len({*tokens}) == len(tokens), "no two payloads have the same token"
    assert all(_OPAQUE.fullmatch(text) for text in (session.id, *tokens))
    assert sessions.session(session.id).expires_ts == session.expires_ts


def test_there_are_only_so_many_and_those_under_way_stay() -> None:
    clock = FakeClock()
    sessions = RendezvousSessions(clock, lifetime=60, max_sessions=2)
    first = sessions.create(b"")
    clock.advance(10)
    sessions.create(b"")
    with pytest.raises(MatrixError) as refusal:
        sessions.create(b"")
    assert (refusal.value.status, refusal.value.errcode) == (429, "M_LIMIT_EXCEEDED")
    assert refusal.value.fields == {"retry_after_ms": 50_000}
    assert sessions.session(first.id) == first
    clock.advance(50)
    sessions.create(b"")
    with pytest.raises(MatrixError):
        sessions.session(first.id)


def test_a_session_that_is_ended_makes_room() -> None:
    sessions = RendezvousSessions(FakeClock(), lifetime=60, max_sessions=1)
    sessions.remove(sessions.create(b"").id)
    assert sessions.create(b"x").payload == b"x"
