"""Searching messages: the ``search`` section."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Whether texts are indexed and may be searched."""

    enabled: bool = True
