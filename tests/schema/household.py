"""Somebody who asks, with rooms, events and devices that invented requests can be about."""

from __future__ import annotations

import itertools
from random import Random
from types import TracebackType
from typing import Any

import requests

from tests.processes import Server

_PASSWORD = "correct horse battery staple"
_CLIENT = "/_matrix/client/v3"
_numbers = itertools.count()


class Household:
    """People of a server and what is theirs; somebody new moves in when a session has ended."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._http = requests.Session()
        self._token = ""
        self._names: dict[str, list[str]] = {}

    def __enter__(self) -> Household:
        self._move_in()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def base_url(self, operation: Any) -> str:
        """Where the operation's file says it is, on this server."""
        variables = operation.schema.raw_schema["servers"][0].get("variables", {})
        return str(self.server.client_url) + str(variables.get("basePath", {}).get("default", ""))

    def make_real(self, case: Any, random: Random) -> None:
        """Let a request be about things there are, mostly, and come from somebody who is logged in."""
        if not self._logged_in():
            self._move_in()
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {self._token}"}
        case.query = {
            name: value
            for name, value in (case.query or {}).items()
            if name not in ("access_token", "timeout")
        }
        for name in case.path_parameters or {}:
            known = self._names.get(name)
            if known and random.random() < 0.8:
                case.path_parameters[name] = random.choice(known)
        if isinstance(case.body, dict):
            case.body.pop("auth", None)

    def _logged_in(self) -> bool:
        return bool(self._token) and self._ask("GET", "/account/whoami").status_code == 200

    def _move_in(self) -> None:
        name = f"alice-{next(_numbers)}"
        body = {"username": name, "password": _PASSWORD, "auth": {"type": "m.login.dummy"}}
        self._token = ""
        account = self._ask("POST", "/register", body).json()
        self._token = account["access_token"]
        for field, value in (
            ("displayname", "Alice"),
            ("avatar_url", f"mxc://{self.server.server_name}/face"),
        ):
            self._ask("PUT", f"/profile/{account['user_id']}/{field}", {field: value})
        alias = f"#{name}:{self.server.server_name}"
        made = {"preset": "public_chat", "room_alias_name": name, "name": "House", "visibility": "public"}
        room = self._ask("POST", "/createRoom", made).json()["room_id"]
        text = {"msgtype": "m.text", "body": "hello"}
        event = self._ask("PUT", f"/rooms/{room}/send/m.room.message/1", text).json()["event_id"]
        relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": event}}
        self._ask("PUT", f"/rooms/{room}/send/m.room.message/2", {**text, **relation})
        self._ask("PUT", f"/rooms/{room}/receipt/m.read/{event}", {})
        filter_id = self._ask("POST", f"/user/{account['user_id']}/filter", {}).json()["filter_id"]
        self._names = {
            "userId": [account["user_id"]],
            "roomId": [room],
            "roomIdOrAlias": [room, alias],
            "roomAlias": [alias],
            "eventId": [event],
            "deviceId": [account["device_id"]],
            "filterId": [filter_id],
            "eventType": ["m.room.message", "m.room.name", "m.room.topic"],
            "stateKey": [""],
            "receiptType": ["m.read", "m.read.private", "m.fully_read"],
            "relType": ["m.thread", "m.annotation"],
            "keyName": ["displayname", "avatar_url", "m.tz"],
            "kind": ["override", "room", "sender", "content", "underride"],
            "ruleId": [".m.rule.master", ".m.rule.message", "mine"],
            "type": ["m.direct", "org.example.note"],
            "tag": ["m.favourite", "u.home"],
        }

    def _ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return self._http.request(
            method, f"{self.server.client_url}{_CLIENT}{path}", json=body, headers=headers, timeout=20
        )
