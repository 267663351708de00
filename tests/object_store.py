"""An S3 store in memory, as fixtures for the folders of tests that want it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from homeserver.config.media import S3


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of a store."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(object_store: str) -> S3:
    """A new bucket in it."""
    name = f"bucket-{uuid.uuid4().hex}"
    with urlopen(Request(f"{object_store}/{name}", method="PUT"), timeout=30) as made:
        assert made.status == 200
    return S3(
        bucket=name, endpoint=object_store, access_key="somebody", secret_key="a-secret", prefix="ours/"
    )
