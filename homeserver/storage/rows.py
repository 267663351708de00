"""Works that are nothing but rows: neighbours in the queue are stored by the same few statements.

What one statement costs besides its rows (a hand-over between threads on SQLite, a round trip on
PostgreSQL) is shared so by all messages that are stored together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

from homeserver.storage.database import Transaction

Work: TypeAlias = Callable[[Transaction], Awaitable[Any]]


class Rows(NamedTuple):
    """One statement, an INSERT with VALUES, an UPDATE or a DELETE, for each of some rows of arguments."""

    sql: str
    rows: Sequence[Sequence[Any]]
    #: Each row has to change something, else nothing of the transaction is stored.
    each_changes: bool = False


class RowsWork(ABC):
    """A work that may be carried out as rows, in the same few statements as its neighbours in the queue.

    It does the same by itself when it is called, which is what happens where the rows of
    several fail: then each is told what was wrong with it.
    """

    __slots__ = ()

    @abstractmethod
    async def __call__(self, tx: Transaction) -> None: ...

    @abstractmethod
    def is_rows(self) -> bool:
        """Whether rows are all there is to it."""

    @classmethod
    @abstractmethod
    def rows_of(cls, works: Sequence[Any]) -> list[Rows] | None:
        """What works of this class come to together; ``None`` where they do not fit each other.

        No statement may depend on what another one changes.
        """


class Step(NamedTuple):
    """Works to be carried out as rows; or one that is to be run, without any."""

    works: list[Work]
    rows: list[Rows] | None


def steps(works: Sequence[Work], *, as_rows: bool = True) -> Iterator[Step]:
    """Works in their order, neighbours that are rows together unless ``as_rows`` is false."""
    for kind, alike in groupby(works, _kind if as_rows else lambda _: None):
        group = list(alike)
        rows = None if kind is None else kind.rows_of(group)
        if rows is not None:
            yield Step(group, rows)
        else:
            yield from (Step([work], None) for work in group)


def _kind(work: Work) -> type[RowsWork] | None:
    return type(work) if isinstance(work, RowsWork) and work.is_rows() else None
