"""Any JSON at all, for properties that must hold whatever a content says."""

from __future__ import annotations

from hypothesis import strategies as st

_words = st.just("") | st.sampled_from(
    [
        "join",
        "invite",
        "leave",
        "ban",
        "knock",
        "public",
        "restricted",
        "signed",
        "mxid",
        "token",
        "@alice:here",
        "@bob:there",
        "@",
        "50",
        "+7",
        "9999999999999999999",
        "m.room.topic",
        "room",
        "ed25519:1",
    ]
)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _words
    | st.text(max_size=5)
)

json_values = st.recursive(
    _scalars,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(_words, values, max_size=3),
    max_leaves=8,
)
