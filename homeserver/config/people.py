"""What people may learn of each other, and may say of themselves: sections of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from homeserver.config.reader import Rule
from homeserver.protocol.profile_fields import is_field_name


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDirectory:
    """Who finds whom."""

    enabled: bool = True
    #: Find users that the searcher shares no room with.
    search_all_users: bool = False


def _field_name(text: str, _folder: Path) -> str:
    if not is_field_name(text):
        raise ValueError
    return text


FieldName: TypeAlias = Annotated[
    str, Rule("displayname, avatar_url or a name such as m.tz or org.example.pronouns", _field_name)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """Who sees profiles, and what people may change of theirs."""

    #: Show them to users of this server only (of requests by clients).
    require_auth: bool = False
    #: Show them only to those who may know of the user anyway, from a room they share or that is public.
    limit_to_shared_rooms: bool = False
    #: Let other servers ask for them.
    over_federation: bool = True
    #: Whether people may change their profile at all, and which fields: all but some, or only some.
    changes: bool = True
    allowed_fields: tuple[FieldName, ...] | None = None
    disallowed_fields: tuple[FieldName, ...] = ()

    def may_change(self, field: str) -> bool:
        """Whether people may set or remove a field of their own profile."""
        if self.allowed_fields is not None:
            return self.changes and field in self.allowed_fields
        return self.changes and field not in self.disallowed_fields
