"""Stories told by matrix-js-sdk in one process of node: a line of JSON for each, and one back."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

JS = Path(__file__).parent / "js"
_PATIENCE_S = 60.0
_LONGEST_LINE = 1_000_000


class StoryFailed(AssertionError):
    """A story did not come to its end; the message is what the library said."""


class Storyteller:
    """A running process of node that knows the stories of ``js/stories``."""

    def __init__(self, process: asyncio.subprocess.Process, server_url: str, log: Path) -> None:
        self._process = process
        self._server_url = server_url
        self._log = log
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, node: str, server_url: str, log: Path) -> Storyteller:
        """Start the process; what the library logs goes to ``log``."""
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(node, "tell.mjs"),
                cwd=JS,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=_LONGEST_LINE,
            )
        return cls(process, server_url, log)

    async def tell(self, story: str) -> dict[str, Any]:
        """Let a story happen; what came of it.  Raises ``StoryFailed``."""
        if self._listening.done():
            raise StoryFailed(f"node ended\n{self._said()}")
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        request = {"id": number, "story": story, "server": self._server_url}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        try:
            reply = await asyncio.wait_for(self._waiting[number], _PATIENCE_S)
        except TimeoutError:
            raise StoryFailed(f"{story} did not end\n{self._said()}") from None
        if "error" in reply:
            raise StoryFailed(f"{story}: {reply['error']}\n{self._said()}")
        outcome: dict[str, Any] = reply["outcome"]
        return outcome

    async def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            reply = json.loads(line)
            self._waiting.pop(reply["id"]).set_result(reply)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(StoryFailed(f"node ended\n{self._said()}"))

    def _said(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(line[:300] for line in lines[-30:])
