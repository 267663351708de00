"""The errors a request can be answered with, and whose fault each one is.

``MatrixError`` is the client's (or peer's) fault, or a refusal, and carries the
errcode and status it is answered with; it may be raised anywhere and is answered
in ``web.py``.  ``RemoteError`` is another server's fault.  Anything else that
reaches ``web.py`` is a bug of ours.  Specification: "Standard error response".
"""

from __future__ import annotations

from typing import Any


class MatrixError(Exception):
    """A request that cannot be served, with the reply that says so.

    ``fields`` are added to the reply's body beside ``errcode`` and ``error``.
    """

    def __init__(self, status: int, errcode: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.errcode = errcode
        self.message = message
        self.fields = fields

    def body(self) -> dict[str, Any]:
        """The reply's JSON body."""
        return {"errcode": self.errcode, "error": self.message, **self.fields}


def forbidden(message: str, **fields: Any) -> MatrixError:
    """403 ``M_FORBIDDEN``."""
    return MatrixError(403, "M_FORBIDDEN", message, **fields)


def guest_access_forbidden(message: str) -> MatrixError:
    """403 ``M_GUEST_ACCESS_FORBIDDEN``."""
    return MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", message)


def user_locked() -> MatrixError:
    """401 ``M_USER_LOCKED``: nothing but logging out is possible (spec: "Account locking")."""
    return MatrixError(401, "M_USER_LOCKED", "This account has been locked", soft_logout=True)


def user_suspended() -> MatrixError:
    """403 ``M_USER_SUSPENDED`` (spec: "Account suspension")."""
    return MatrixError(403, "M_USER_SUSPENDED", "You cannot do this while your account is suspended")


def not_found(message: str) -> MatrixError:
    """404 ``M_NOT_FOUND``."""
    return MatrixError(404, "M_NOT_FOUND", message)


def bad_json(message: str) -> MatrixError:
    """400 ``M_BAD_JSON``: valid JSON of the wrong shape."""
    return MatrixError(400, "M_BAD_JSON", message)


def invalid_param(message: str) -> MatrixError:
    """400 ``M_INVALID_PARAM``."""
    return MatrixError(400, "M_INVALID_PARAM", message)


def missing_param(message: str) -> MatrixError:
    """400 ``M_MISSING_PARAM``."""
    return MatrixError(400, "M_MISSING_PARAM", message)


def limit_exceeded(retry_after_ms: int) -> MatrixError:
    """429 ``M_LIMIT_EXCEEDED``; ``web.py`` adds the ``Retry-After`` header."""
    return MatrixError(429, "M_LIMIT_EXCEEDED", "Too many requests", retry_after_ms=retry_after_ms)


class RemoteError(Exception):
    """Another server did not do what was asked of it.

    ``reachable`` says whether it answered at all, ``transient`` whether asking
    again later could help; ``errcode``, ``status`` and ``retry_after_ms`` are the peer's
    own when it gave a Matrix error.
    """

    def __init__(
        self,
        server_name: str,
        message: str,
        *,
        reachable: bool,
        transient: bool,
        status: int | None = None,
        errcode: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(f"{server_name}: {message}")
        self.server_name = server_name
        self.message = message
        self.reachable = reachable
        self.retry_after_ms = retry_after_ms
        self.transient = transient
        self.status = status
        self.errcode = errcode
