"""Token buckets: bursts, refilling, separation of keys and names, bounded memory."""

from __future__ import annotations

import pytest

from homeserver.clock import FakeClock
from homeserver.errors import MatrixError
from homeserver.ratelimit import Limit, RateLimiter


def limiter(clock: FakeClock, max_keys: int = 100) -> RateLimiter:
    limits = {"message": Limit(per_second=2, burst=3), "login": Limit(per_second=0.1, burst=1)}
    return RateLimiter(limits, clock, max_keys=max_keys)


def refusal(rate_limiter: RateLimiter, name: str, key: str) -> MatrixError:
    with pytest.raises(MatrixError) as caught:
        rate_limiter.check(name, key)
    return caught.value


def test_a_burst_passes_and_the_next_is_told_when_to_come_back() -> None:
    rate_limiter = limiter(FakeClock())
    for _ in range(3):
        rate_limiter.check("message", "@a:x")
    error = refusal(rate_limiter, "message", "@a:x")
    assert (error.status, error.errcode, error.fields) == (429, "M_LIMIT_EXCEEDED", {"retry_after_ms": 500})


def test_coming_back_when_told_succeeds_exactly_once() -> None:
    clock = FakeClock()
    rate_limiter = limiter(clock)
    rate_limiter.check("login", "1.2.3.4")
    retry_after_ms = refusal(rate_limiter, "login", "1.2.3.4").fields["retry_after_ms"]
    clock.advance(retry_after_ms / 1000)
    rate_limiter.check("login", "1.2.3.4")
    refusal(rate_limiter, "login", "1.2.3.4")


def test_a_long_rest_fills_the_bucket_no_further_than_the_burst() -> None:
    clock = FakeClock()
    rate_limiter = limiter(clock)
    rate_limiter.check("message", "@a:x")
    clock.advance(1000)
    for _ in range(3):
        rate_limiter.check("message", "@a:x")
    refusal(rate_limiter, "message", "@a:x")


def test_keys_and_names_have_buckets_of_their_own() -> None:
    rate_limiter = limiter(FakeClock())
    rate_limiter.check("login", "a")
    rate_limiter.check("login", "b")
    rate_limiter.check("message", "a")
    refusal(rate_limiter, "login", "a")


def test_the_bucket_unused_for_longest_is_forgotten_first() -> None:
    rate_limiter = limiter(FakeClock(), max_keys=2)
    for key in ("a", "b"):
        rate_limiter.check("login", key)
    refusal(rate_limiter, "login", "a")
    rate_limiter.check("login", "c")  # no room for b
    refusal(rate_limiter, "login", "a")
    rate_limiter.check("login", "b")


def test_switched_off_it_lets_everything_pass() -> None:
    rate_limiter = RateLimiter({}, FakeClock(), enabled=False)
    assert "login" in rate_limiter
    for _ in range(100):
        rate_limiter.check("login", "a")


def test_an_unknown_limit_is_a_mistake_of_ours() -> None:
    rate_limiter = limiter(FakeClock())
    assert "logn" not in rate_limiter
    with pytest.raises(KeyError):
        rate_limiter.check("logn", "a")


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_limit_that_lets_nothing_pass_is_refused(per_second: float, burst: int) -> None:
    with pytest.raises(ValueError, match="positive rate"):
        Limit(per_second, burst)
