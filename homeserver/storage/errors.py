"""What can go wrong with a database as a whole, in sentences for the person who runs the server.

Errors of single statements (a broken constraint, bad SQL) are not wrapped: they
are the driver's own and reach the caller of ``write`` as they are.
"""

from __future__ import annotations


class StorageError(Exception):
    """The database cannot do what was asked of it."""


class DatabaseInUse(StorageError):
    """Another process has the SQLite file open."""


class DatabaseClosed(StorageError):
    """A write was asked for after ``close()``."""


class SuspendedInTransaction(StorageError):
    """A work awaited something other than its transaction; nothing of it was stored."""


class ErrorPassedOver(StorageError):
    """A work caught an SQL error and went on (PostgreSQL ends the transaction); nothing of it was stored."""


class NotStored(StorageError):
    """The transaction as a whole failed: nothing of any work in it was stored."""


class OutcomeUnknown(StorageError):
    """The connection broke while committing: the work may or may not have been stored."""


class SchemaRefused(StorageError):
    """The database's schema does not fit this program's migrations."""
