"""Receipts as the events that clients are told of them by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from homeserver.rooms.receipts import READ_PRIVATE
from homeserver.rooms.threads import MAIN
from homeserver.storage.receipts import UNTHREADED, Receipt


def only_shown(receipts: Iterable[Receipt], user_id: str, ignored: Collection[str]) -> list[Receipt]:
    """Those that a user is told of: no private ones of others, and none of people they ignore."""
    return [
        receipt
        for receipt in receipts
        if (receipt.type != READ_PRIVATE or receipt.user_id == user_id) and receipt.user_id not in ignored
    ]


def receipt_events(receipts: Iterable[Receipt]) -> list[dict[str, Any]]:
    """``m.receipt`` events, one for each thread."""
    by_thread: defaultdict[str, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        by_thread[receipt.thread_id].append(receipt)
    return [_event(of_thread) for of_thread in by_thread.values()]


def one_receipt_event(receipts: Iterable[Receipt]) -> dict[str, Any]:
    """One ``m.receipt`` event for all threads.

    It has place for one receipt of a user at an event: of several that for no thread is told,
    which says most, then that for the main timeline.
    """
    return _event(sorted(receipts, key=_says_least_first))


def _event(receipts: Iterable[Receipt]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for receipt in receipts:
        data: dict[str, Any] = {"ts": receipt.ts}
        if receipt.thread_id != UNTHREADED:
            data["thread_id"] = receipt.thread_id
        content.setdefault(receipt.event_id, {}).setdefault(receipt.type, {})[receipt.user_id] = data
    return {"type": "m.receipt", "content": content}


def _says_least_first(receipt: Receipt) -> int:
    return {MAIN: 1, UNTHREADED: 2}.get(receipt.thread_id, 0)
