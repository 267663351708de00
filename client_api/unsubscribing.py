"""The web page that ends notifications by email: the link in each of those mails leads to it."""

from __future__ import annotations

from client_api.pages import page, refusal_page
from homeserver.errors import MatrixError, not_found
from homeserver.push.unsubscribing import Unsubscribing
from homeserver.replies import Reply
from homeserver.web import Request


class UnsubscribingApi:
    """The page, and what its button does; ``None`` where no such mail is sent."""

    def __init__(self, unsubscribing: Unsubscribing | None) -> None:
        self._unsubscribing = unsubscribing

    async def show(self, request: Request) -> Reply:
        """``GET``: asks only, since programs that look through mail follow every link."""
        return await self._answer(request, done=False)

    async def submit(self, request: Request) -> Reply:
        """``POST``: the button of the page, or that of a mail program (RFC 8058)."""
        return await self._answer(request, done=True)

    async def _answer(self, request: Request, *, done: bool) -> Reply:
        token = request.query.get("token", "")
        try:
            if self._unsubscribing is None:
                raise not_found("No notifications are sent by email here")
            user_id, _, address = self._unsubscribing.pusher(token)
            if done:
                await self._unsubscribing.unsubscribe(token)
        except MatrixError as error:
            return refusal_page(error)
        values = {"user_id": user_id, "address": address, "token": token, "done": done}
        return page("unsubscribe.html", values)
