"""Push rules: does an event notify a user, and how.

The evaluator.  It reads rules leniently: what it does not understand matches nothing, so
a stored rule can never fail an event.  The rules every user starts with are in
``default_push_rules``; storing, ordering and checking the rules a user writes is not
done here.  Specification: client-server API, "Push notifications"; MSC4306 for threads
that are subscribed to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from homeserver.protocol.globs import glob_found_in_words, glob_matches, phrase_found_in_words
from homeserver.protocol.property_paths import ABSENT, look_up, parse_property_path

Rule: TypeAlias = dict[str, Any]
#: The rules of each kind, highest priority first: the ``global`` object of the push rules API.
Ruleset: TypeAlias = dict[str, list[Rule]]

#: The kinds of rule, in the order they are tried.
KINDS: Final = ("override", "content", "postcontent", "room", "sender", "underride")

#: The kind of MSC4306, which users make no rules of.
POSTCONTENT: Final = "postcontent"

#: The condition of MSC4306: whether the event is in a thread that the user is, or is not, subscribed to.
THREAD_SUBSCRIPTION: Final = "io.element.msc4306.thread_subscription"

#: Rules of rulesets older than v1.17, which look for mentions in the body.  An event
#: that has ``m.mentions`` says whom it mentions, and these do not apply to it.
LEGACY_MENTION_RULES: Final = frozenset(
    (".m.rule.contains_display_name", ".m.rule.contains_user_name", ".m.rule.roomnotif")
)

_MENTIONS: Final = ("content", "m.mentions")
_BODY: Final = ("content", "body")
_RELATION: Final = ("content", "m.relates_to")
_MAX_INTEGER: Final = 2**53 - 1
_MEMBER_COUNT = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,15})", re.ASCII)


class Notice(msgspec.Struct, frozen=True):
    """What the first matching rule says of an event; ``SILENT`` when none matched.

    ``actions`` are the rule's own, without the historical ones that mean nothing.
    """

    notify: bool = False
    highlight: bool = False
    tweaks: Mapping[str, Any] = msgspec.field(default_factory=dict)
    actions: tuple[Any, ...] = ()


SILENT: Final = Notice()


class PushEvent:
    """An event with what rules ask about it; made once and evaluated for every user.

    ``event`` is in client format.  ``sender_level`` is the sender's power level,
    ``notification_level`` gives the level a kind of notification needs
    (``PowerLevels.notifications``).
    """

    __slots__ = (
        "_folded",
        "event",
        "has_mentions",
        "member_count",
        "notification_level",
        "sender_level",
        "thread",
    )

    def __init__(
        self,
        event: Mapping[str, Any],
        *,
        member_count: int,
        sender_level: int,
        notification_level: Callable[[str], int],
    ) -> None:
        self.event = event
        self.member_count = member_count
        self.sender_level = sender_level
        self.notification_level = notification_level
        self.has_mentions = look_up(event, _MENTIONS) is not ABSENT
        #: The root of the thread the event is in, if it says that it is in one.
        self.thread = _thread(event)
        self._folded: dict[tuple[str, ...], str | None] = {}

    def value(self, path: tuple[str, ...]) -> Any:
        """The property at ``path``, or ``ABSENT``."""
        return look_up(self.event, path)

    def folded_text(self, path: tuple[str, ...]) -> str | None:
        """The string at ``path`` without case, or ``None`` when there is no string."""
        if path not in self._folded:
            value = self.value(path)
            self._folded[path] = value.lower() if isinstance(value, str) else None
        return self._folded[path]


class _Owner(msgspec.Struct, frozen=True):
    """Whose rules are evaluated; ``display_name`` is the one they have in the room.

    ``subscribed`` says whether they are to the thread the event is in, if it is in one.
    """

    user_id: str
    display_name: str | None
    subscribed: bool


def evaluate(
    ruleset: Mapping[str, Sequence[Rule]],
    event: PushEvent,
    *,
    user_id: str,
    display_name: str | None,
    subscribed: bool = False,
) -> Notice:
    """What the user's rules say of the event: the actions of the first rule that matches.

    ``subscribed`` says whether the user is subscribed to ``event.thread``.  Users are never
    notified of what they sent themselves.
    """
    if event.event.get("sender") == user_id:
        return SILENT
    owner = _Owner(user_id, display_name, subscribed)
    for kind in KINDS:
        for rule in ruleset.get(kind, ()):
            if rule.get("enabled") is not False and _rule_matches(kind, rule, event, owner):
                return notice_of(rule.get("actions", ()))
    return SILENT


def notice_of(actions: Sequence[Any]) -> Notice:
    """What a list of actions comes to ("Actions"); ``dont_notify`` and ``coalesce`` mean nothing."""
    kept = tuple(action for action in actions if action == "notify" or _is_tweak(action))
    tweaks = {
        action["set_tweak"]: action.get("value", True if action["set_tweak"] == "highlight" else None)
        for action in kept
        if action != "notify"
    }
    notify = "notify" in kept
    return Notice(notify, notify and tweaks.get("highlight") is True, tweaks, kept)


def _is_tweak(action: Any) -> bool:
    return isinstance(action, dict) and isinstance(action.get("set_tweak"), str)


def _rule_matches(kind: str, rule: Rule, event: PushEvent, owner: _Owner) -> bool:
    rule_id = rule.get("rule_id")
    if event.has_mentions and rule_id in LEGACY_MENTION_RULES:
        return False
    if kind == "room":
        return event.event.get("room_id") == rule_id
    if kind == "sender":
        return event.event.get("sender") == rule_id
    if kind == "content":
        return _text_matches(_BODY, rule.get("pattern"), event)
    conditions = rule.get("conditions") or []
    return isinstance(conditions, list) and all(
        _condition_holds(condition, event, owner) for condition in conditions
    )


def _condition_holds(condition: Any, event: PushEvent, owner: _Owner) -> bool:
    """One condition of an override or underride rule; an unrecognised one never holds."""
    kind = condition.get("kind") if isinstance(condition, dict) else None
    check = _CONDITIONS.get(kind) if isinstance(kind, str) else None
    return check is not None and check(condition, event, owner)


def _event_match(condition: Mapping[str, Any], event: PushEvent, _owner: _Owner) -> bool:
    path = _path(condition)
    return path is not None and _text_matches(path, condition.get("pattern"), event)


def _text_matches(path: tuple[str, ...], pattern: Any, event: PushEvent) -> bool:
    """A glob over a whole property, or over the words of ``content.body``; without case."""
    text = event.folded_text(path)
    if text is None or not isinstance(pattern, str):
        return False
    match = glob_found_in_words if path == _BODY else glob_matches
    return match(pattern.lower(), text)


def _event_property_is(condition: Mapping[str, Any], event: PushEvent, _owner: _Owner) -> bool:
    path = _path(condition)
    return path is not None and _same_scalar(event.value(path), condition.get("value", ABSENT))


def _event_property_contains(condition: Mapping[str, Any], event: PushEvent, _owner: _Owner) -> bool:
    path = _path(condition)
    values = event.value(path) if path is not None else None
    wanted = condition.get("value", ABSENT)
    return isinstance(values, list) and any(_same_scalar(value, wanted) for value in values)


def _same_scalar(value: Any, wanted: Any) -> bool:
    """Equality without casts, of values that are not compound: ``True`` is not ``1``."""
    if type(value) is not type(wanted):
        return False
    if isinstance(value, int):
        return value == wanted and abs(value) <= _MAX_INTEGER
    return (value is None or isinstance(value, str)) and value == wanted


def _contains_display_name(_condition: Mapping[str, Any], event: PushEvent, owner: _Owner) -> bool:
    """The display name as a literal phrase of the body; it is no pattern."""
    body = event.folded_text(_BODY)
    if body is None or not owner.display_name:
        return False
    return phrase_found_in_words(owner.display_name.lower(), body)


def _room_member_count(condition: Mapping[str, Any], event: PushEvent, _owner: _Owner) -> bool:
    stated = condition.get("is")
    parsed = _MEMBER_COUNT.fullmatch(stated) if isinstance(stated, str) else None
    if parsed is None:
        return False
    operator, number = parsed[1] or "==", int(parsed[2])
    return _COMPARISONS[operator](event.member_count, number)


def _sender_notification_permission(condition: Mapping[str, Any], event: PushEvent, _owner: _Owner) -> bool:
    key = condition.get("key")
    return isinstance(key, str) and event.sender_level >= event.notification_level(key)


def _thread(event: Mapping[str, Any]) -> str | None:
    relation = look_up(event, _RELATION)
    if not isinstance(relation, dict) or relation.get("rel_type") != "m.thread":
        return None
    root = relation.get("event_id")
    return root if isinstance(root, str) else None


def _path(condition: Mapping[str, Any]) -> tuple[str, ...] | None:
    key = condition.get("key")
    return parse_property_path(key) if isinstance(key, str) else None


def _thread_subscription(condition: Mapping[str, Any], event: PushEvent, owner: _Owner) -> bool:
    return event.thread is not None and condition.get("subscribed") is owner.subscribed


_COMPARISONS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": lambda count, number: count == number,
    "<": lambda count, number: count < number,
    ">": lambda count, number: count > number,
    "<=": lambda count, number: count <= number,
    ">=": lambda count, number: count >= number,
}

_CONDITIONS: Final[Mapping[str, Callable[[Mapping[str, Any], PushEvent, _Owner], bool]]] = {
    "event_match": _event_match,
    "event_property_is": _event_property_is,
    "event_property_contains": _event_property_contains,
    "contains_display_name": _contains_display_name,
    "room_member_count": _room_member_count,
    "sender_notification_permission": _sender_notification_permission,
    THREAD_SUBSCRIPTION: _thread_subscription,
}
