"""Errors as the replies that say what went wrong: whose fault it was decides the errcode and the status.

What is not known here is a bug of ours, which is for the caller to log.  Specification: "Standard error
response".
"""

from __future__ import annotations

from homeserver.errors import MatrixError, RemoteError, bad_json
from homeserver.protocol.auth_rules import NotAllowed, NotAllowedToAnybody


def refusal_of(error: BaseException) -> MatrixError | None:
    """What a request that raised this is answered with; ``None`` for a bug."""
    if isinstance(error, MatrixError):
        return error
    if isinstance(error, NotAllowedToAnybody):
        return bad_json(str(error))
    if isinstance(error, NotAllowed):
        return MatrixError(403, "M_FORBIDDEN", str(error))
    if isinstance(error, RemoteError):
        return _blaming_the_peer(error)
    return None


def internal_error() -> MatrixError:
    """The answer to a request that met a bug."""
    return MatrixError(500, "M_UNKNOWN", "Internal server error")


def _blaming_the_peer(error: RemoteError) -> MatrixError:
    """A peer's refusal is passed on; its failure is a bad gateway, its silence a timeout.

    A peer's 401 concerns our signature, and would log the client out if it were passed on.
    """
    refused = error.status is not None and 400 <= error.status < 500 and error.status != 401
    if refused and error.errcode and error.errcode != "M_UNRECOGNIZED":
        return MatrixError(error.status or 502, error.errcode, error.message)
    return MatrixError(502 if error.reachable or not error.transient else 504, "M_UNKNOWN", str(error))
