"""Modules that whoever needs them first has loaded, without holding up the event loop."""

from __future__ import annotations

import asyncio
from importlib import import_module

_loaded: set[str] = set()


async def have_loaded(module: str) -> None:
    """Return when a module is there, so that ``import`` costs nothing.

    Large ones take a tenth of a second to load; a thread does that, and the loop's gets its turns.
    """
    if module not in _loaded:
        await asyncio.to_thread(import_module, module)
        _loaded.add(module)
