"""Email addresses in one form, whatever form they come in."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homeserver.protocol.third_party_ids import canonical_address, canonical_email


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("bob@Example.com", "bob@example.com"),
        ("Bob.B+tag@Example.COM", "bob.b+tag@example.com"),
        ("Strauß@Example.com", "strauss@example.com"),
        ("e\u0301va@example.com", "\u00e9va@example.com"),
        ("o'neill@a-b.example.org", "o'neill@a-b.example.org"),
    ],
)
def test_an_address_has_one_form(text: str, address: str) -> None:
    assert canonical_email(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "bob", "bob@", "@example.com", "bob@example", "bob@.com", "bob@example..com"),
        *("a@b@example.com", "Bob <bob@example.com>", "mailto:bob@example.com", "bob@example.com, x@a.org"),
        *("bob@example.com\r\nBcc: eve@a.org", "bob\n@example.com", "bob@exam ple.com", "bob@-a.com"),
        *('"bob b"@example.com', "bob@[127.0.0.1]", ".bob@example.com", "bob.@example.com"),
        *("b\u202eob@example.com", "b\u00a0ob@example.com", "b\ud800b@example.com", "bob@example.com\x00"),
        *("x" * 65 + "@example.com", "bob@" + "x" * 64 + ".com", "b@" + ("x" * 60 + ".") * 5 + "com"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an email address"):
        canonical_email(text)


@pytest.mark.parametrize(("medium", "text"), [("msisdn", "+491"), ("msisdn", "0049"), ("pigeon", "a@b.org")])
def test_other_media_have_their_own_rules(medium: str, text: str) -> None:
    assert canonical_address("msisdn", "4915112345") == "4915112345"
    assert canonical_address("email", "A@B.org") == "a@b.org"
    with pytest.raises(ValueError, match="not an address"):
        canonical_address(medium, text)


_WORDS = st.text(min_size=1, max_size=12)


@given(local=_WORDS, domain=_WORDS, top=_WORDS)
@example(local="\u0345\u0300a", domain="\u1e9e", top="\u0130")
def test_whatever_is_taken_is_stable_and_safe_in_a_header(local: str, domain: str, top: str) -> None:
    try:
        address = canonical_email(f"{local}@{domain}.{top}")
    except ValueError:
        return
    assert canonical_email(address) == address
    assert canonical_email(address.upper()) == canonical_email(address.upper().lower())
    assert address.count("@") == 1
    assert not any(character in ' \r\n\t\x00<>(),;:"[]\\' for character in address)
    assert all(unicodedata.category(character)[0] not in "CZ" for character in address)


@given(address=st.emails())
def test_common_addresses_are_taken_in_any_case(address: str) -> None:
    try:
        canonical = canonical_email(address)
    except ValueError:
        return
    assert canonical == canonical_email(address.upper()) == address.lower()
