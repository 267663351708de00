"""Badge counts never drift: kept up to date, counted anew and worked out on paper they are the same.

A random history is played to a server on which one person reads.  What the server tells
them (incrementally, from memory) is compared with what the same server would tell after a
restart, with the list of notifications, and with a few lines of Python that know the rules.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.push.badge import Badges
from homeserver.rooms.receipts import READ, READ_PRIVATE
from homeserver.storage import open_database
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.sync.notifications import parse_token
from tests.sync.server import SyncServer
from tests.world import SERVER, WorldRoom

ALICE, BOB, CAROL = (f"@{name}:{SERVER}" for name in ("alice", "bob", "carol"))

Step = tuple[Any, ...]

RULES: dict[str, dict[str, Any]] = {
    "predefined": {},
    "silent": {"override": [{"rule_id": ".m.rule.master", "enabled": True, "actions": []}]},
    # Not in rooms of two.
    "mentions": {"underride": [{"rule_id": ".m.rule.message", "enabled": True, "actions": []}]},
    "word": {
        "content": [
            {
                "rule_id": "word",
                "default": False,
                "enabled": True,
                "pattern": "loud",
                "actions": ["notify", {"set_tweak": "highlight"}],
            }
        ]
    },
}

INDEX = st.integers(0, 30)
SEND = st.tuples(
    st.just("send"),
    st.sampled_from((ALICE, ALICE, CAROL, BOB)),
    st.sampled_from((None, None, 0, 1)),
    st.sampled_from(("plain", "plain", "loud", "mention", "notice")),
)
STEPS = st.lists(
    st.one_of(
        SEND,
        SEND,
        SEND,
        st.tuples(st.just("redact"), INDEX),
        st.tuples(st.just("read"), st.sampled_from((READ, READ_PRIVATE)), INDEX, st.booleans()),
        st.tuples(st.just("rules"), st.sampled_from(sorted(RULES))),
        st.tuples(st.just("membership"), st.sampled_from((BOB, CAROL))),
        st.tuples(st.just("rename")),
        st.tuples(st.just("ignore"), st.booleans()),
        st.tuples(st.just("restart")),
        st.tuples(st.just("look")),
    ),
    max_size=40,
)


@dataclass
class Message:
    stored: StoredEvent
    sender: str
    thread: str
    kind: str
    members: int
    redacted: bool = False

    def notifies(self, rules: str) -> tuple[bool, bool]:
        """Whether it notifies Bob, and highlights."""
        if rules == "silent" or self.kind == "notice":
            return False, False
        if self.kind == "mention":
            return True, True
        if rules == "word" and self.kind == "loud":
            return True, True
        return rules != "mentions" or self.members == 2, False


@dataclass
class Story:
    """The server, and what ought to be so."""

    server: SyncServer
    room: WorldRoom
    messages: list[Message] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    rules: str = "predefined"
    ignoring: bool = False
    members: set[str] = field(default_factory=lambda: {ALICE})
    joined_pos: int = 0
    #: What Bob has read up to, by thread; "" for all of them.
    receipts: dict[str, int] = field(default_factory=dict)
    badges: Badges = field(init=False)

    def __post_init__(self) -> None:
        self.badges = badges_of(self.server)

    async def play(self, step: Step) -> None:
        name, *rest = step
        await getattr(self, name)(*rest)

    async def send(self, sender: str, root: int | None, kind: str) -> None:
        if sender not in self.members:
            return
        content: dict[str, Any] = {"msgtype": "m.notice" if kind == "notice" else "m.text", "body": kind}
        if kind == "mention":
            content["m.mentions"] = {"user_ids": [BOB]}
        thread = "main"
        if root is not None and root < len(self.roots):
            thread = self.roots[root]
            content["m.relates_to"] = {"rel_type": "m.thread", "event_id": thread}
        stored = await self.room.send_event(sender, "m.room.message", content)
        if thread == "main":
            self.roots.append(stored.id)
        self.messages.append(Message(stored, sender, thread, kind, len(self.members)))

    async def redact(self, index: int) -> None:
        if index < len(self.messages):
            message = self.messages[index]
            await self.room.redact(ALICE, message.stored.id)
            message.redacted = True

    async def read(self, receipt_type: str, index: int, threaded: bool) -> None:
        if BOB not in self.members or index >= len(self.messages):
            return
        message = self.messages[index]
        # What is left of a redacted event is in no thread.
        thread = "main" if message.redacted else message.thread
        await self.server.receipts.read(
            BOB, self.room.room_id, receipt_type, message.stored.id, thread if threaded else None
        )
        key = thread if threaded else ""
        self.receipts[key] = max(self.receipts.get(key, 0), message.stored.pos or 0)

    async def rules_set(self, name: str) -> None:
        await self.server.account_data.set_content(BOB, "m.push_rules", {"global": RULES[name]})
        self.rules = name

    async def membership(self, user_id: str) -> None:
        if user_id in self.members:
            await self.room.leave(user_id)
            self.members.discard(user_id)
            return
        await self.room.join(user_id)
        self.members.add(user_id)
        if user_id == BOB:
            self.joined_pos = (await self.room.live()).last_pos

    async def rename(self) -> None:
        if BOB in self.members:
            self.server.world.profiles.names[BOB] = f"Bob {len(self.messages)}"
            await self.room.set_state(
                BOB, "m.room.member", {"membership": "join", "displayname": "Bobby"}, state_key=BOB
            )

    async def ignore(self, yes: bool) -> None:
        content = {"ignored_users": {CAROL: {}} if yes else {}}
        await self.server.account_data.set_content(BOB, "m.ignored_user_list", content)
        self.ignoring = yes

    async def restart(self) -> None:
        self.server = await SyncServer.open(self.server.world.db)
        self.room = WorldRoom(self.server.world, self.room.room_id)
        self.badges = badges_of(self.server)

    async def look(self) -> None:
        if BOB not in self.members:
            return
        fresh = await SyncServer.open(self.server.world.db)
        told = await counts_of(self.server, self.room.room_id)
        assert told == await counts_of(fresh, self.room.room_id)
        assert told == self.expected()
        total = sum(count for count, _ in told.values())
        assert total == len(await unread_notifications(self.server))
        assert total == await self.badges.of(BOB)
        assert total == await badges_of(fresh).of(BOB)

    def expected(self) -> dict[str, tuple[int, int]]:
        """Counts of notifications and highlights by thread."""
        own: dict[str, int] = {}
        for message in self.messages:
            if message.sender == BOB and not message.redacted:
                own[message.thread] = message.stored.pos or 0
        counts: dict[str, tuple[int, int]] = {}
        for message in self.messages:
            pos = message.stored.pos or 0
            read = max(
                *(self.receipts.get(key, 0) for key in ("", message.thread)), own.get(message.thread, 0)
            )
            ignored = self.ignoring and message.sender == CAROL
            notifies, highlights = message.notifies(self.rules)
            if message.redacted or message.sender == BOB or ignored or not notifies:
                continue
            if pos > read and pos > self.joined_pos:
                before = counts.get(message.thread, (0, 0))
                counts[message.thread] = (before[0] + 1, before[1] + highlights)
        return counts


# ``rules`` is the name of a field; the step of that name is another method.
STEP_METHODS = {"rules": "rules_set"}


async def counts_of(server: SyncServer, room_id: str) -> dict[str, tuple[int, int]]:
    room = await server.world.rooms.get(room_id)
    counts = await server.reading.unread.counts(room, BOB, server.notifier.position)
    by_thread = {"main": counts.main, **counts.threads}
    return {
        thread: (count.notifications, count.highlights)
        for thread, count in by_thread.items()
        if count.notifications
    }


async def unread_notifications(server: SyncServer) -> list[str]:
    """What the list of notifications says is unread, page by page."""
    before: int | None = None
    found: list[str] = []
    while True:
        page = await server.reading.notifications.page(BOB, None, before=before, limit=3, highlights=False)
        found += [each["room_id"] for each in page.notifications if not each["read"]]
        if page.next_token is None:
            return found
        before = parse_token(page.next_token)


def badges_of(server: SyncServer) -> Badges:
    """What pushers would be told, brought up to date as their reader does it."""
    badges = Badges(
        db=server.world.db,
        rooms=server.world.rooms,
        memberships=server.reading.memberships,
        unread=server.reading.unread,
        invite_permissions=server.reading.invite_permissions,
        notifier=server.notifier,
    )

    def some_changed(users: Iterable[str]) -> None:
        for user_id in users:
            badges.changed(user_id)

    server.notifier.listeners.append(lambda news: badges.changed(BOB, news.room.nid))
    server.notifier.user_listeners.append(some_changed)
    server.receipts.listeners.append(lambda room_nid, user_id: badges.changed(user_id, room_nid))
    return badges


async def tell(db: Database, steps: list[Step]) -> None:
    server = await SyncServer.open(db)
    story = Story(server, await server.world.public_room(ALICE))
    await story.membership(CAROL)
    await story.membership(BOB)
    for name, *rest in steps:
        await story.play((STEP_METHODS.get(name, name), *rest))
    await story.look()


async def tell_in(path: Path, steps: list[Step]) -> None:
    db = await open_database(str(path))
    try:
        await tell(db, steps)
    finally:
        await db.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_counts_never_drift(sqlite_template: Path, steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copy(sqlite_template, Path(folder) / "inglenook.db"))
        assert asyncio.run(tell_in(path, steps)) is None
