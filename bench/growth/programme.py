"""What the load generator does for the growth curves: makes points of an axis, and measures there."""

from __future__ import annotations

from typing import Any

from bench.generator.meter import Meter
from bench.generator.prepared import Prepared
from bench.generator.site import Site
from bench.growth.members import Members
from bench.growth.operations import EVERYWHERE
from bench.growth.others import Destinations, Events, Rooms, Waiting
from bench.growth.scene import Scene
from bench.scenarios.scenario import Round, as_round

_AXES = {
    "members": Members,
    "rooms": Rooms,
    "events": Events,
    "waiting": Waiting,
    "destinations": Destinations,
}


class Programme:
    """Made for one axis; the orders are its methods."""

    def __init__(self, prepared: Prepared, axis: str) -> None:
        self._prepared = prepared
        self._axis: Any = _AXES[axis](prepared)
        self._scene: Scene | None = None

    async def do(self, what: str, *arguments: Any) -> Any:
        """The name of a method, and what it takes."""
        return await getattr(self, what)(*arguments)

    async def prepare(self, point: int) -> tuple[str, str]:
        """Make a point; its room, and who speaks there."""
        self._scene = await self._axis.scene(point)
        return self._scene.room, self._scene.speaker.user_id

    async def wait(self) -> int:
        """Have the clients of the axis wait; how many there are."""
        waiting: int = await self._axis.wait()
        return waiting

    async def talk(self, messages: int) -> None:
        """Fill the room of the axis the way clients can."""
        await self._axis.talk(messages)

    async def moved(self, site: Site) -> None:
        """The server was started again."""
        self._prepared.site = site

    async def measure(self, operation: str, count: int) -> Round:
        """One round of an operation, done so many times."""
        scene, meter = self._scene, Meter(self._prepared.site)
        assert scene is not None
        if operation in scene.own:
            return as_round(await scene.own[operation](count, meter), meter)
        if scene.before_common is not None:
            await scene.before_common()
            scene.before_common = None
        return as_round(await EVERYWHERE[operation](scene, count, meter), meter)
