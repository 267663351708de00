"""Which fields a profile may have.  Specification: client-server API, "Profiles"."""

from __future__ import annotations

import re

DISPLAYNAME = "displayname"
AVATAR_URL = "avatar_url"

#: Bytes of a field's name.
MAX_NAME_BYTES = 255

#: Appendices, "Common Namespaced Identifier Grammar", in namespaced form.
_NAMESPACED = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")


def is_field_name(name: str) -> bool:
    """Whether a profile may have a field of this name, however long it is."""
    return name in (DISPLAYNAME, AVATAR_URL) or _NAMESPACED.fullmatch(name) is not None
