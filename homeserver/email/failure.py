"""What those who send email learn when it could not be sent."""

from __future__ import annotations

from homeserver.errors import MatrixError


class EmailNotSent(MatrixError):
    """The mail server did not take a message: 502 ``M_EMAIL_SEND_ERROR``.

    ``permanent`` when sending it again would not help; ``reason`` is not for clients.
    """

    def __init__(self, reason: str, *, permanent: bool) -> None:
        super().__init__(502, "M_EMAIL_SEND_ERROR", "The email could not be sent")
        self.reason = reason
        self.permanent = permanent
