"""Why signing on did not work out, in words for the person in front of the browser."""

from __future__ import annotations


class SignOnFailed(Exception):
    """Nobody is signed on.

    The message is shown to the person, ``status`` is that of the page; ``detail`` is for the log alone.
    Neither holds a secret.
    """

    def __init__(self, message: str, *, status: int = 403, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.detail = detail
