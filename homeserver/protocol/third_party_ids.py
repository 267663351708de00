"""Third-party identifiers: email addresses and telephone numbers, in the one form each is kept in.

Two texts that may mean the same mailbox become the same address, and mail goes only
to that form: what somebody proves to own is what is compared.
Specification: appendices, "3PID Types".
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

EMAIL: Final = "email"
MSISDN: Final = "msisdn"

#: RFC 5321, 4.5.3.1, of which the whole is what fits into a path.
_MAX_BYTES: Final = 254
_MAX_LOCAL_BYTES: Final = 64
#: RFC 5322's dot-atom, and the characters beyond ASCII that RFC 6531 adds; nothing that would need quotes.
_LOCAL: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00a1-\U0010ffff-]+"
    r"(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00a1-\U0010ffff-]+)*"
)
_LABEL: Final = r"(?!-)[A-Za-z0-9\u00a1-\U0010ffff-]{1,63}(?<!-)"
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
#: E.164 has at most fifteen digits.
_NUMBER: Final = re.compile(r"[1-9][0-9]{3,14}", re.ASCII)
#: Letters, marks, numbers, punctuation and symbols; no spaces, controls, surrogates or unassigned ones.
_VISIBLE: Final = frozenset("LMNPS")


def canonical_email(text: str) -> str:
    """The address that ``text`` means, case folded; ``ValueError`` for what is not an email address."""
    address = _folded(text)
    local, at, domain = address.rpartition("@")
    if (
        not at
        or len(address.encode(errors="replace")) > _MAX_BYTES
        or len(local.encode(errors="replace")) > _MAX_LOCAL_BYTES
        or not _LOCAL.fullmatch(local)
        or not _DOMAIN.fullmatch(domain)
        or any(unicodedata.category(character)[0] not in _VISIBLE for character in address)
    ):
        raise ValueError("That is not an email address")
    return address


def canonical_address(medium: str, text: str) -> str:
    """The address that ``text`` means in a medium; ``ValueError`` for what is no address there."""
    if medium == EMAIL:
        return canonical_email(text)
    if medium == MSISDN and _NUMBER.fullmatch(text):
        return text
    raise ValueError("That is not an address of a medium that is known here")


def _folded(text: str) -> str:
    """Unicode's canonical caseless form, composed; a compatibility character stays itself."""
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFC", folded)
