"""The cache of access tokens: what it forgets, and when."""

from __future__ import annotations

from homeserver.clock import FakeClock
from homeserver.users.requester import Requester
from homeserver.users.token_cache import MAX_AGE_MS, TokenCache

ALICE = Requester("@alice:a.org", "A")
BOB = Requester("@bob:a.org", "B")


def test_it_holds_the_most_recently_used() -> None:
    cache = TokenCache(FakeClock(), 2)
    cache.put(b"1", ALICE, None, cache.generation)
    cache.put(b"2", BOB, None, cache.generation)
    assert cache.get(b"1") == ALICE
    cache.put(b"3", BOB, None, cache.generation)
    assert [cache.get(each) for each in (b"1", b"2", b"3")] == [ALICE, None, BOB]
    assert len(cache) == 2


def test_entries_are_believed_for_a_while_and_never_past_their_expiry() -> None:
    clock = FakeClock()
    cache = TokenCache(clock, 10)
    cache.put(b"1", ALICE, None, cache.generation)
    cache.put(b"2", BOB, clock.now_ms() + 1000, cache.generation)
    clock.advance(1)
    assert (cache.get(b"1"), cache.get(b"2")) == (ALICE, None)
    clock.advance(MAX_AGE_MS / 1000)
    assert cache.get(b"1") is None
    assert len(cache) == 0


def test_a_device_or_a_user_is_forgotten() -> None:
    cache = TokenCache(FakeClock(), 10)
    for token, requester in ((b"1", ALICE), (b"2", Requester("@alice:a.org", "C")), (b"3", BOB)):
        cache.put(token, requester, None, cache.generation)
    cache.forget_device("@alice:a.org", "A")
    assert [cache.get(each) is None for each in (b"1", b"2", b"3")] == [True, False, False]
    cache.forget_user("@alice:a.org")
    assert [cache.get(each) is None for each in (b"2", b"3")] == [True, False]


def test_what_was_looked_up_before_tokens_ended_is_not_kept() -> None:
    cache = TokenCache(FakeClock(), 10)
    begun_at = cache.generation
    cache.forget_device("@alice:a.org", "A")
    cache.put(b"1", ALICE, None, begun_at)
    assert cache.get(b"1") is None
