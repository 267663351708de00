"""Fixtures for tests of what hot paths cost."""

from tests.federation.conftest import here, network, start, story, there

__all__ = ["here", "network", "start", "story", "there"]
