"""The auth rules of ``m.room.member`` events: rule 5, one function for each membership.

Numbered as in v12.  Until v10 some numbers were lower by one, and a rule a version lacks
is skipped by its flag.  Signatures of servers are not checked here (rule 5.2): see
``signing.required_signers``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from homeserver.protocol import canonical_json, ids
from homeserver.protocol.auth_state import (
    NotAllowed,
    StateLookup,
    content_of,
    join_rule_of,
    membership_of,
)
from homeserver.protocol.events import Event
from homeserver.protocol.power_levels import power_levels_from
from homeserver.protocol.room_versions import RoomVersion

#: The most pairs of a key and a signature tried for one invite (about 0.1 s of work): an event
#: has room for some hundred thousand pairs, and real ones have one to four.
MOST_INVITE_SIGNATURES = 1000


def check_membership(rules: RoomVersion, event: Event, state: StateLookup) -> None:
    """Rule 5: may this ``m.room.member`` event be added to this state?

    1. It has a ``state_key`` and a ``membership``.
    2. ``join_authorised_via_users_server`` names a user, whose server has signed (since v8).
    3. ``join``  4. ``invite``  5. ``leave``  6. ``ban``  7. ``knock`` (since v7)
    8. No other membership is allowed.

    Raises ``NotAllowed``.
    """
    content = content_of(event)
    # 5.1
    if event.state_key is None:
        raise NotAllowed("A membership event needs a state key.")
    if "membership" not in content:
        raise NotAllowed("A membership event needs a membership.")
    # 5.2
    if rules.restricted_joins and "join_authorised_via_users_server" in content:
        authoriser = content["join_authorised_via_users_server"]
        if not isinstance(authoriser, str) or not ids.is_user_id(authoriser):
            raise NotAllowed("join_authorised_via_users_server does not name a user.")
    membership, target = content["membership"], event.state_key
    if membership == "join":
        _check_join(rules, event, target, content, state)  # 5.3
    elif membership == "invite":
        _check_invite(rules, event, target, content, state)  # 5.4
    elif membership == "leave":
        _check_leave(rules, event, target, state)  # 5.5
    elif membership == "ban":
        _check_ban(rules, event, target, state)  # 5.6
    elif membership == "knock" and rules.knocking:
        _check_knock(rules, event, target, state)  # 5.7
    else:
        raise NotAllowed("The membership is unknown.")  # 5.8


def _check_join(
    rules: RoomVersion, event: Event, target: str, content: dict[str, Any], state: StateLookup
) -> None:
    """Rule 5.3.

    1. The creator's first join, right after the create event, is allowed.
    2. Nobody joins for somebody else.
    3. A banned user does not join.
    4. ``invite``, ``knock`` (since v7): only those invited or already joined.
    5. ``restricted`` (since v8), ``knock_restricted`` (since v10): those, and whom a member
       vouches for that may invite.
    6. ``public``: everybody.
    7. Under any other join rule nobody joins.
    """
    # 5.3.1
    create = state("m.room.create", "")
    if create is not None and event.prev_events == (create.event_id,) and target == _founder(rules, create):
        return
    # 5.3.2
    if event.sender != target:
        raise NotAllowed("Nobody can join a room for somebody else.")
    # 5.3.3
    membership = membership_of(state, target)
    if membership == "ban":
        raise NotAllowed(f"{target} is banned from the room.")
    # 5.3.4
    join_rule = join_rule_of(state)
    if join_rule == "invite" or (join_rule == "knock" and rules.knocking):
        if membership not in ("invite", "join"):
            raise NotAllowed(f"{target} is not invited to the room.")
        return
    # 5.3.5
    if _is_restricted(rules, join_rule):
        if membership not in ("invite", "join"):
            _check_vouched_for(rules, content, state)
        return
    # 5.3.6, 5.3.7
    if join_rule != "public":
        raise NotAllowed("The room's join rule lets nobody join.")


def _founder(rules: RoomVersion, create: Event) -> object:
    """The one creator rule 5.3.1 speaks of: the create event's sender (until v10 what it names)."""
    return create.sender if rules.implicit_room_creator else content_of(create).get("creator")


def _is_restricted(rules: RoomVersion, join_rule: str | None) -> bool:
    return (join_rule == "restricted" and rules.restricted_joins) or (
        join_rule == "knock_restricted" and rules.knock_restricted_joins
    )


def _check_vouched_for(rules: RoomVersion, content: dict[str, Any], state: StateLookup) -> None:
    """Rule 5.3.5.2."""
    authoriser = content.get("join_authorised_via_users_server")
    if not isinstance(authoriser, str):
        raise NotAllowed("Joining needs an invitation, or a member who vouches for the user.")
    if membership_of(state, authoriser) != "join":
        raise NotAllowed(f"{authoriser} vouches for the user but is not in the room.")
    levels = power_levels_from(state, rules)
    if levels.of_user(authoriser) < levels.invite:
        raise NotAllowed(f"{authoriser} vouches for the user but may not invite.")


def _check_invite(
    rules: RoomVersion, event: Event, target: str, content: dict[str, Any], state: StateLookup
) -> None:
    """Rule 5.4.

    1. An invitation that came by a third party has rules of its own.
    2. The sender is in the room.
    3. The target is neither in it nor banned.
    4. The sender has the *invite level*; 5. otherwise it is refused.
    """
    # 5.4.1
    if "third_party_invite" in content:
        _check_third_party_invite(event, target, content["third_party_invite"], state)
        return
    # 5.4.2
    _check_sender_joined(event, state)
    # 5.4.3
    membership = membership_of(state, target)
    if membership in ("join", "ban"):
        raise NotAllowed(f"{target} is {'already in' if membership == 'join' else 'banned from'} the room.")
    # 5.4.4, 5.4.5
    levels = power_levels_from(state, rules)
    if levels.of_user(event.sender) < levels.invite:
        raise NotAllowed(f"{event.sender} may not invite.")


def _check_leave(rules: RoomVersion, event: Event, target: str, state: StateLookup) -> None:
    """Rule 5.5.

    1. Users leave by themselves when invited, joined or knocking (since v7).
    2. Who sends somebody else away is in the room.
    3. Lifting a ban needs the *ban level*.
    4. It needs the *kick level*, and more power than the target; 5. otherwise it is refused.
    """
    # 5.5.1
    membership = membership_of(state, target)
    if event.sender == target:
        if membership in ("invite", "join") or (membership == "knock" and rules.knocking):
            return
        raise NotAllowed(f"{target} is not in the room.")
    # 5.5.2
    _check_sender_joined(event, state)
    # 5.5.3
    levels = power_levels_from(state, rules)
    power = levels.of_user(event.sender)
    if membership == "ban" and power < levels.ban:
        raise NotAllowed(f"{event.sender} may not lift bans.")
    # 5.5.4, 5.5.5
    if power < levels.kick or levels.of_user(target) >= power:
        raise NotAllowed(f"{event.sender} may not remove {target} from the room.")


def _check_ban(rules: RoomVersion, event: Event, target: str, state: StateLookup) -> None:
    """Rule 5.6.

    1. The sender is in the room.
    2. The sender has the *ban level* and more power than the target; 3. otherwise it is refused.
    """
    # 5.6.1
    _check_sender_joined(event, state)
    # 5.6.2, 5.6.3
    levels = power_levels_from(state, rules)
    power = levels.of_user(event.sender)
    if power < levels.ban or levels.of_user(target) >= power:
        raise NotAllowed(f"{event.sender} may not ban {target}.")


def _check_knock(rules: RoomVersion, event: Event, target: str, state: StateLookup) -> None:
    """Rule 5.7 (since v7).

    1. The join rule is ``knock`` or (since v10) ``knock_restricted``.
    2. Nobody knocks for somebody else.
    3. The user is neither banned, invited nor joined; 4. otherwise it is refused.
    """
    # 5.7.1
    join_rule = join_rule_of(state)
    if join_rule != "knock" and not (join_rule == "knock_restricted" and rules.knock_restricted_joins):
        raise NotAllowed("The room's join rule does not allow knocking.")
    # 5.7.2
    if event.sender != target:
        raise NotAllowed("Nobody can knock for somebody else.")
    # 5.7.3, 5.7.4
    if membership_of(state, target) in ("ban", "invite", "join"):
        raise NotAllowed(f"{target} is invited to, joined to or banned from the room.")


def _check_sender_joined(event: Event, state: StateLookup) -> None:
    if membership_of(state, event.sender) != "join":
        raise NotAllowed(f"{event.sender} is not in the room.")


def _check_third_party_invite(event: Event, target: str, invite: Any, state: StateLookup) -> None:
    """Rule 5.4.1: an invitation redeemed by whoever shows the signature of the third party.

    1. The target is not banned.
    2. It has ``signed``, 3. which has ``mxid`` and ``token``, 4. and is made out to the target.
    5. The room has the ``m.room.third_party_invite`` of that token, 6. from the same sender.
    7. One of the keys in that event signed it; 8. otherwise it is refused.
    """
    # 5.4.1.1
    if membership_of(state, target) == "ban":
        raise NotAllowed(f"{target} is banned from the room.")
    # 5.4.1.2, 5.4.1.3
    signed = invite.get("signed") if isinstance(invite, dict) else None
    if not isinstance(signed, dict):
        raise NotAllowed("The third-party invite is not signed.")
    token = signed.get("token")
    if "mxid" not in signed or not isinstance(token, str):
        raise NotAllowed("The third-party invite names no user or has no token.")
    # 5.4.1.4
    if signed["mxid"] != target:
        raise NotAllowed("The third-party invite is for somebody else.")
    # 5.4.1.5
    issued = state("m.room.third_party_invite", token)
    if issued is None:
        raise NotAllowed("The room issued no third-party invite with this token.")
    # 5.4.1.6
    if issued.sender != event.sender:
        raise NotAllowed("The third-party invite was issued by somebody else.")
    # 5.4.1.7, 5.4.1.8
    if not _is_signed_by_any(signed, _public_keys(content_of(issued))):
        raise NotAllowed("The third-party invite is not signed by a key the room knows.")


def third_party_signers(signed: dict[str, Any], issued: dict[str, Any]) -> list[dict[str, Any]]:
    """Where an ``m.room.third_party_invite``'s content names a key that signed a statement (rule 5.4.1.7).

    Each has the ``public_key`` and perhaps a ``key_validity_url``.  Raises ``NotAllowed``
    for a statement that cannot be verified at all.
    """
    entries = {key: entry for entry, key in _keys_named(issued)}
    if not _is_signed_by_any(signed, entries):  # refuses what would take too long to verify
        return []
    return [entry for key, entry in entries.items() if _is_signed_by_any(signed, [key])]


def _public_keys(content: dict[str, Any]) -> Iterator[bytes]:
    """The keys of an ``m.room.third_party_invite``; what is no Ed25519 key is left out."""
    return (key for _, key in _keys_named(content))


def _keys_named(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bytes]]:
    others = content.get("public_keys")
    entries = [content, *(others if isinstance(others, list) else ())]
    for entry in entries:
        key = _unpadded_base64(entry.get("public_key")) if isinstance(entry, dict) else None
        if key is not None and len(key) == 32:
            yield entry, key


def _ed25519_signatures(signed: dict[str, Any]) -> Iterator[bytes]:
    servers = signed.get("signatures")
    for signatures in servers.values() if isinstance(servers, dict) else ():
        for key_id, value in signatures.items() if isinstance(signatures, dict) else ():
            signature = _unpadded_base64(value) if key_id.startswith("ed25519:") else None
            if signature is not None and len(signature) == 64:
                yield signature


def _is_signed_by_any(signed: dict[str, Any], public_keys: Iterable[bytes]) -> bool:
    keys, signatures = set(public_keys), set(_ed25519_signatures(signed))
    if len(keys) * len(signatures) > MOST_INVITE_SIGNATURES:
        raise NotAllowed("The third-party invite has too many signatures.")
    payload = {name: value for name, value in signed.items() if name not in ("signatures", "unsigned")}
    try:
        message = canonical_json.encode(payload)
    except (ValueError, TypeError, RecursionError) as error:
        raise NotAllowed("The third-party invite is not canonical JSON.") from error
    return any(_verifies(key, message, signature) for key in keys for signature in signatures)


def _verifies(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        VerifyKey(key).verify(message, signature)
    except (CryptoError, ValueError):
        return False
    return True


def _unpadded_base64(value: Any) -> bytes | None:
    """Decode unpadded base64 in either alphabet; ``None`` for what is not."""
    if not isinstance(value, str):
        return None
    try:
        text = value.translate(_STANDARD_ALPHABET).encode("ascii")
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None


_STANDARD_ALPHABET = str.maketrans("-_", "+/")
