"""From a server name to where it is, step by step, with DNS and hosts that a test makes up."""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate
from pathlib import Path
from random import Random

import pycares
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from federation.discovery import Destination, Discovery, NoService
from federation.srv import SrvRecord, in_order_of_trial
from federation.srv_lookup import read_srv
from federation.well_known import WellKnownResponse, cache_seconds, fetch_well_known
from homeserver.addresses import address_policy
from homeserver.clock import FakeClock
from homeserver.egress import open_session, tls_context
from tests.federation.peer import Answer, Asked, running_peer

HOUR = 3600.0


class World:
    """Hosts' ``.well-known`` answers and DNS records; counts what it is asked."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.well_known: dict[str, WellKnownResponse] = {}
        self.srv: dict[str, list[SrvRecord]] = {}
        self.dns_fails = False
        self.fetched: list[str] = []
        self.looked_up: list[str] = []
        self.discovery = Discovery(
            fetch_well_known=self.fetch, look_up_srv=self.look_up, clock=self.clock, random=Random(1)
        )

    def delegate(self, host: str, to: str, cache_control: str = "") -> None:
        body = json.dumps({"m.server": to}).encode()
        self.well_known[host] = WellKnownResponse(200, {"cache-control": cache_control}, body)

    def answer(self, host: str, body: bytes, status: int = 200) -> None:
        self.well_known[host] = WellKnownResponse(status, {}, body)

    def record(self, name: str, target: str, port: int = 4443, priority: int = 0, ttl: int = 300) -> None:
        self.srv.setdefault(name, []).append(SrvRecord(priority, 1, port, target, ttl))

    async def fetch(self, hostname: str) -> WellKnownResponse:
        self.fetched.append(hostname)
        await asyncio.sleep(0)
        if hostname not in self.well_known:
            raise OSError("unreachable")
        return self.well_known[hostname]

    async def look_up(self, name: str) -> list[SrvRecord]:
        self.looked_up.append(name)
        if self.dns_fails:
            raise OSError("DNS is down")
        return self.srv.get(name, [])

    async def find(self, server_name: str) -> list[Destination]:
        return await self.discovery.destinations(server_name)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("server_name", "destination"),
    [
        ("1.2.3.4", Destination("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4")),
        ("1.2.3.4:99", Destination("1.2.3.4", 99, "1.2.3.4:99", "1.2.3.4")),
        ("[2001:db8::1]", Destination("2001:db8::1", 8448, "[2001:db8::1]", "2001:db8::1")),
        ("[2001:db8::1]:99", Destination("2001:db8::1", 99, "[2001:db8::1]:99", "2001:db8::1")),
        ("example.org:80", Destination("example.org", 80, "example.org:80", "example.org")),
    ],
)
async def test_steps_1_and_2_ask_nobody(world: World, server_name: str, destination: Destination) -> None:
    assert await world.find(server_name) == [destination]
    assert not world.fetched
    assert not world.looked_up


@pytest.mark.parametrize(
    ("delegate", "destination"),
    [
        ("5.6.7.8", Destination("5.6.7.8", 8448, "5.6.7.8", "5.6.7.8")),
        ("5.6.7.8:99", Destination("5.6.7.8", 99, "5.6.7.8:99", "5.6.7.8")),
        ("[2001:db8::1]:99", Destination("2001:db8::1", 99, "[2001:db8::1]:99", "2001:db8::1")),
        ("m.example.org:443", Destination("m.example.org", 443, "m.example.org:443", "m.example.org")),
    ],
)
async def test_steps_3_1_and_3_2(world: World, delegate: str, destination: Destination) -> None:
    world.delegate("example.org", delegate)
    assert await world.find("example.org") == [destination]
    assert not world.looked_up


async def test_step_3_3_srv_of_the_delegate(world: World) -> None:
    world.delegate("example.org", "m.example.org")
    world.record("_matrix-fed._tcp.m.example.org", "host.example.net")
    world.record("_matrix._tcp.m.example.org", "old.example.net")
    expected = Destination("host.example.net", 4443, "m.example.org", "m.example.org")
    assert await world.find("example.org") == [expected]


async def test_step_3_4_deprecated_srv_of_the_delegate(world: World) -> None:
    world.delegate("example.org", "m.example.org")
    world.record("_matrix._tcp.m.example.org", "old.example.net")
    expected = Destination("old.example.net", 4443, "m.example.org", "m.example.org")
    assert await world.find("example.org") == [expected]


async def test_step_3_5_the_delegate_itself(world: World) -> None:
    world.delegate("example.org", "m.example.org")
    expected = Destination("m.example.org", 8448, "m.example.org", "m.example.org")
    assert await world.find("example.org") == [expected]


async def test_steps_4_5_and_6_without_delegation(world: World) -> None:
    itself = Destination("example.org", 8448, "example.org", "example.org")
    assert await world.find("example.org") == [itself]
    world.record("_matrix._tcp.example.com", "old.example.net")
    assert await world.find("example.com") == [
        Destination("old.example.net", 4443, "example.com", "example.com")
    ]
    world.record("_matrix-fed._tcp.example.net", "host.example.net")
    assert await world.find("example.net") == [
        Destination("host.example.net", 4443, "example.net", "example.net")
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 200),
        (b"[]", 200),
        (b"{}", 200),
        (b'{"m.server": 1}', 200),
        (b'{"m.server": "not a name"}', 200),
        (b'{"m.server": "host:99999"}', 200),
        (b'{"m.server": "m.example.org:443"}', 404),
        (b'{"m.server": "m.example.org:443"}', 503),
    ],
)
async def test_an_invalid_answer_is_no_delegation(world: World, body: bytes, status: int) -> None:
    world.answer("example.org", body, status)
    assert (await world.find("example.org"))[0].host == "example.org"


async def test_several_records_are_tried_by_priority(world: World) -> None:
    world.record("_matrix-fed._tcp.example.org", "second.example.net", priority=20)
    world.record("_matrix-fed._tcp.example.org", "first.example.net", priority=10)
    assert [d.host for d in await world.find("example.org")] == ["first.example.net", "second.example.net"]


async def test_a_record_for_the_root_says_that_there_is_no_service(world: World) -> None:
    world.record("_matrix-fed._tcp.example.org", "")
    with pytest.raises(NoService):
        await world.find("example.org")


async def test_failing_dns_counts_as_no_records_until_it_works(world: World) -> None:
    world.record("_matrix-fed._tcp.example.org", "host.example.net")
    world.dns_fails = True
    assert (await world.find("example.org"))[0].host == "example.org"
    world.dns_fails = False
    assert (await world.find("example.org"))[0].host == "host.example.net"


async def test_what_is_no_server_name_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="server name"):
        await world.find("not a name")


async def test_askers_at_the_same_time_share_one_fetch(world: World) -> None:
    world.delegate("example.org", "m.example.org:443")
    found = await asyncio.gather(*(world.find("example.org") for _ in range(10)))
    assert {d.host for ways in found for d in ways} == {"m.example.org"}
    assert world.fetched == ["example.org"]


async def test_an_answer_is_remembered_as_long_as_it_says(world: World) -> None:
    world.delegate("example.org", "old.example.org:443", cache_control="public, max-age=7200")
    await world.find("example.org")
    world.delegate("example.org", "new.example.org:443")
    world.clock.advance(2 * HOUR - 1)
    assert (await world.find("example.org"))[0].host == "old.example.org"
    world.clock.advance(2)
    assert (await world.find("example.org"))[0].host == "new.example.org"


async def test_failures_are_remembered_longer_each_time_but_no_longer_than_an_hour(world: World) -> None:
    waits = []
    for count in range(1, 9):
        await world.find("example.org")
        assert len(world.fetched) == count
        waited = 0
        while len(world.fetched) == count:
            world.clock.advance(60)
            waited += 60
            await world.find("example.org")
        waits.append(waited)
    assert waits == [120, 240, 480, 960, 1920, 3600, 3600, 3600]


async def test_a_known_delegation_outlives_failures_for_at_most_48_hours(world: World) -> None:
    world.delegate("example.org", "m.example.org:443", cache_control="max-age=3600")
    await world.find("example.org")
    del world.well_known["example.org"]
    world.clock.advance(47 * HOUR)
    assert (await world.find("example.org"))[0].host == "m.example.org"
    world.clock.advance(HOUR + 1)
    assert (await world.find("example.org"))[0].host == "example.org"


async def test_a_withdrawn_delegation_is_forgotten(world: World) -> None:
    world.delegate("example.org", "m.example.org:443", cache_control="max-age=3600")
    await world.find("example.org")
    world.answer("example.org", b"", 404)
    world.clock.advance(HOUR + 1)
    assert (await world.find("example.org"))[0].host == "example.org"


async def test_records_are_remembered_for_their_ttl(world: World) -> None:
    world.record("_matrix-fed._tcp.example.org", "host.example.net", ttl=600)
    await world.find("example.org")
    await world.find("example.org")
    assert world.looked_up == ["_matrix-fed._tcp.example.org"]
    world.clock.advance(601)
    await world.find("example.org")
    assert len(world.looked_up) == 2


NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 24 * HOUR),
        ({"cache-control": "max-age=7200"}, 2 * HOUR),
        ({"cache-control": 'private, MAX-AGE="7200"'}, 2 * HOUR),
        ({"cache-control": "max-age=999999999"}, 48 * HOUR),
        ({"cache-control": "max-age=0"}, 300),
        ({"cache-control": "no-store"}, 300),
        ({"cache-control": "no-cache, max-age=7200"}, 300),
        ({"cache-control": "public"}, 24 * HOUR),
        ({"expires": formatdate(NOW_MS / 1000 + 7200, usegmt=True)}, 2 * HOUR),
        ({"expires": formatdate(NOW_MS / 1000 - 7200, usegmt=True)}, 300),
        ({"expires": "0"}, 300),
        ({"cache-control": "max-age=7200", "expires": "0"}, 2 * HOUR),
    ],
)
def test_cache_headers(headers: dict[str, str], seconds: float) -> None:
    assert cache_seconds(headers, NOW_MS) == seconds


@given(
    st.lists(
        st.builds(
            SrvRecord,
            st.integers(0, 3),
            st.integers(0, 10),
            st.integers(1, 65535),
            st.just("a"),
            st.just(1),
        )
    ),
    st.integers(),
)
def test_srv_order_is_by_priority_and_loses_nothing(records: list[SrvRecord], seed: int) -> None:
    ordered = in_order_of_trial(records, Random(seed))
    assert sorted(map(repr, ordered)) == sorted(map(repr, records))
    assert [r.priority for r in ordered] == sorted(r.priority for r in records)


def test_srv_weights_are_shares() -> None:
    heavy, light = SrvRecord(0, 90, 1, "heavy", 1), SrvRecord(0, 10, 1, "light", 1)
    random = Random(7)
    first = [in_order_of_trial([heavy, light], random)[0].target for _ in range(1000)]
    assert 850 < first.count("heavy") < 950


def test_srv_targets_that_are_no_host_names_are_dropped() -> None:
    def record(target: str) -> pycares.DNSRecord:
        data = pycares.SRVRecordData(priority=1, weight=2, port=3, target=target)
        return pycares.DNSRecord(name="n", type=33, record_class=1, ttl=4, data=data)

    targets = ["host.example.", ".", "user@host", "host/path", "a b", "[::1]"]
    answer = pycares.DNSResult(answer=[record(t) for t in targets], authority=[], additional=[])
    assert read_srv(answer) == [SrvRecord(1, 2, 3, "host.example", 4), SrvRecord(1, 2, 3, "", 4)]


class TestFetching:
    """``fetch_well_known`` against a real host, at a port, since tests may not have 443."""

    async def fetch(self, tmp_path: Path, *answers: Answer) -> tuple[WellKnownResponse, list[Asked]]:
        authority = trustme.CA()
        ca_file = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        policy = address_policy(allowed=["127.0.0.0/8"])
        async with (
            running_peer(authority, "127.0.0.1") as peer,
            open_session(policy, tls_context(ca_file)) as session,
        ):
            peer.answers(*answers)
            return await fetch_well_known(session, f"127.0.0.1:{peer.port}"), peer.asked

    async def test_redirects_are_followed(self, tmp_path: Path) -> None:
        redirect = Answer(302, b"", {"Location": "/elsewhere?a=b"})
        final = Answer(200, {"m.server": "m.example.org"}, {"Cache-Control": "max-age=5"})
        response, asked = await self.fetch(tmp_path, redirect, final)
        assert response.status == 200
        assert json.loads(response.body) == {"m.server": "m.example.org"}
        assert response.headers["cache-control"] == "max-age=5"
        assert [request.raw_path for request in asked] == ["/.well-known/matrix/server", "/elsewhere?a=b"]

    async def test_redirects_end(self, tmp_path: Path) -> None:
        loop = [Answer(302, b"", {"Location": "/.well-known/matrix/server"})] * 10
        with pytest.raises(OSError, match="too often"):
            await self.fetch(tmp_path, *loop)

    async def test_redirects_stay_with_https(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="HTTPS"):
            await self.fetch(tmp_path, Answer(302, b"", {"Location": "http://127.0.0.1/"}))

    async def test_redirects_cannot_lead_inside(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="may not be contacted"):
            await self.fetch(tmp_path, Answer(302, b"", {"Location": "https://10.0.0.1/secret"}))

    async def test_size_is_bounded(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="too large"):
            await self.fetch(tmp_path, Answer(200, b" " * 65_537))
