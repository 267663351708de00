"""Addresses of users, and validations of addresses, on both engines."""

from __future__ import annotations

from functools import partial

import msgspec

from homeserver.storage import address_validations, third_party_ids
from homeserver.storage.address_validations import Validation
from homeserver.storage.database import Database
from homeserver.storage.third_party_ids import Binding, ThirdPartyId

ALICE, BOB = "@alice:a.org", "@bob:a.org"
FIRST, SECOND = ThirdPartyId("email", "z@a.org", 1, 2), ThirdPartyId("email", "a@a.org", 3, 4)
VALIDATION = Validation("sid1", "registration", "email", "a@a.org", b"secret", b"token", 1, None, 1000, None)


async def test_an_address_has_one_owner(database: Database) -> None:
    assert await database.write(partial(third_party_ids.add, user_id=ALICE, added=SECOND))
    assert await database.write(partial(third_party_ids.add, user_id=ALICE, added=FIRST))
    assert not await database.write(partial(third_party_ids.add, user_id=BOB, added=FIRST))
    assert await third_party_ids.of_user(database.read, ALICE) == [FIRST, SECOND]
    assert await third_party_ids.of_user(database.read, BOB) == []
    assert await third_party_ids.owner(database.read, "email", "z@a.org") == ALICE
    assert await third_party_ids.owner(database.read, "msisdn", "z@a.org") is None


async def test_ones_own_address_is_validated_anew(database: Database) -> None:
    await database.write(partial(third_party_ids.add, user_id=ALICE, added=FIRST))
    again = msgspec.structs.replace(FIRST, validated_at=8, added_at=9)
    assert await database.write(partial(third_party_ids.add, user_id=ALICE, added=again))
    assert await third_party_ids.of_user(database.read, ALICE) == [ThirdPartyId("email", "z@a.org", 8, 2)]


async def test_addresses_are_taken_away(database: Database) -> None:
    for added in (FIRST, SECOND, ThirdPartyId("msisdn", "4912345", 5, 6)):
        await database.write(partial(third_party_ids.add, user_id=ALICE, added=added))
    remove = partial(third_party_ids.remove, medium="email", address="a@a.org")
    assert not await database.write(lambda tx: remove(tx, BOB))
    assert await database.write(lambda tx: remove(tx, ALICE))
    assert len(await third_party_ids.of_user(database.read, ALICE)) == 2
    await database.write(lambda tx: third_party_ids.remove_all(tx, ALICE))
    assert await third_party_ids.of_user(database.read, ALICE) == []


async def test_bindings_are_remembered_until_they_are_undone(database: Database) -> None:
    one, two = Binding("email", "a@a.org", "id.one"), Binding("email", "a@a.org", "id.two")
    for binding in (two, one, one):
        await database.write(partial(third_party_ids.bind, user_id=ALICE, binding=binding))
    assert await third_party_ids.bindings(database.read, ALICE) == [one, two]
    await database.write(partial(third_party_ids.unbind, user_id=ALICE, binding=one))
    assert await third_party_ids.bindings(database.read, ALICE) == [two]
    assert await third_party_ids.bindings(database.read, BOB) == []


async def test_a_validation_is_found_by_its_id_and_by_its_secret(database: Database) -> None:
    await database.write(partial(address_validations.put, validation=VALIDATION))
    other = msgspec.structs.replace(VALIDATION, sid="sid2", purpose="password", token=None, next_link="x")
    await database.write(partial(address_validations.put, validation=other))
    assert await address_validations.by_sid(database.read, "sid1") == VALIDATION
    assert await address_validations.by_sid(database.read, "sid3") is None
    found = partial(address_validations.by_secret, database.read)
    assert await found("registration", "email", "a@a.org", b"secret") == VALIDATION
    assert await found("password", "email", "a@a.org", b"secret") == other
    assert await found("registration", "email", "a@a.org", b"wrong") is None


async def test_a_validation_takes_the_place_of_the_last_one_of_its_secret(database: Database) -> None:
    await database.write(partial(address_validations.put, validation=VALIDATION))
    newer = msgspec.structs.replace(VALIDATION, sid="sid2", send_attempt=2)
    await database.write(partial(address_validations.put, validation=newer))
    assert await address_validations.by_sid(database.read, "sid1") is None
    assert await address_validations.by_sid(database.read, "sid2") == newer


async def test_validations_succeed_end_and_expire(database: Database) -> None:
    later = msgspec.structs.replace(VALIDATION, sid="sid2", client_secret=b"other")
    for validation in (VALIDATION, later):
        await database.write(partial(address_validations.put, validation=validation))
    await database.write(partial(address_validations.validated, sid="sid2", at=500, expires_at=1500))
    await database.write(lambda tx: address_validations.remove_expired(tx, 1000))
    assert await address_validations.by_sid(database.read, "sid1") is None
    kept = await address_validations.by_sid(database.read, "sid2")
    assert kept is not None
    assert (kept.validated_at, kept.expires_at) == (500, 1500)
    assert await database.write(lambda tx: address_validations.remove(tx, "sid2"))
    assert not await database.write(lambda tx: address_validations.remove(tx, "sid2"))
