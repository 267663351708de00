"""Media between our server and a real Synapse, and between two of ours, in both directions."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from tests.interop.client import Client, Refused
from tests.interop.conftest import Pair
from tests.interop.synapse import why_no_synapse
from tests.media.pictures import opened, picture
from tests.processes import Server

# One group: every test of the module uses the same three servers.
pytestmark = pytest.mark.xdist_group("interop-media")

_with_synapse = pytest.mark.skipif(why_no_synapse() is not None, reason=str(why_no_synapse()))


@pytest.fixture(
    params=[
        "two of ours",
        pytest.param("Synapse fetches", marks=_with_synapse),
        pytest.param("Synapse is asked", marks=_with_synapse),
    ]
)
def pair(request: pytest.FixtureRequest, ours: Server) -> Pair:
    """The host is where Alice uploads, the guest where Bob looks."""
    if request.param == "two of ours":
        return Pair(ours, request.getfixturevalue("another"))
    theirs: Server = request.getfixturevalue("theirs")
    return Pair(ours, theirs) if request.param == "Synapse fetches" else Pair(theirs, ours)


async def test_a_file_arrives_as_it_was_sent(alice: Client, bob: Client) -> None:
    content = bytes(range(256)) * 8_000 + b"\r\n--almost a boundary\r\n"
    mxc = await alice.upload(content, "application/octet-stream", "minutes of the meeting.bin")
    body, headers = await bob.download(mxc)

    assert body == content
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"].startswith("attachment")
    assert "minutes of the meeting.bin" in unquote(headers["Content-Disposition"])


async def test_a_name_in_another_script_arrives(alice: Client, bob: Client) -> None:
    mxc = await alice.upload(b"text", "text/plain", "☕ und Kuchen.txt")
    _, headers = await bob.download(mxc)

    assert "filename*=utf-8''%E2%98%95%20und%20Kuchen.txt" in headers["Content-Disposition"]


@pytest.mark.parametrize("method", ["scale", "crop"])
async def test_a_picture_has_a_thumbnail_elsewhere(alice: Client, bob: Client, method: str) -> None:
    mxc = await alice.upload(picture(1280, 960), "image/png", "picture.png")
    body, headers = await bob.download(mxc, of="thumbnail", width=96, height=96, method=method)

    assert headers["Content-Type"] in ("image/png", "image/jpeg")
    assert min(opened(body).size) >= 32
    assert max(opened(body).size) < 1280


async def test_a_profile_leads_to_its_picture(alice: Client, bob: Client) -> None:
    content = picture(64, 64)
    mxc = await alice.upload(content, "image/png")
    await alice.request("PUT", f"/profile/{alice.user_id}/avatar_url", {"avatar_url": mxc})

    found = await bob.profile(alice.user_id)
    assert (await bob.download(found["avatar_url"]))[0] == content


async def test_what_was_never_uploaded_is_not_found_elsewhere(alice: Client, bob: Client) -> None:
    mxc = await alice.upload(b"x", "text/plain")
    with pytest.raises(Refused) as refused:
        await bob.download(mxc[:-4] + "none")

    assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")
