"""People's keys for end-to-end encryption, as their clients would make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from homeserver.protocol.signing import SigningKey, generate_signing_key, sign_json


@dataclass
class Device:
    """A device with keys of its own."""

    user_id: str
    device_id: str
    signing_key: SigningKey = field(init=False)

    def __post_init__(self) -> None:
        self.signing_key = SigningKey(f"ed25519:{self.device_id}", generate_signing_key("x").seed)

    def keys(self, **also: Any) -> dict[str, Any]:
        """``device_keys`` of an upload."""
        return self.sign(
            {
                "user_id": self.user_id,
                "device_id": self.device_id,
                "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
                "keys": {
                    f"curve25519:{self.device_id}": "curve" + self.signing_key.verify_key_base64[:20],
                    f"ed25519:{self.device_id}": self.signing_key.verify_key_base64,
                },
                **also,
            }
        )

    def one_time_keys(self, *numbers: int) -> dict[str, Any]:
        """``one_time_keys`` of an upload."""
        return {
            f"signed_curve25519:KEY{number}": self.sign({"key": f"{self.device_id}-{number}"})
            for number in numbers
        }

    def fallback_key(self, number: int) -> dict[str, Any]:
        """``fallback_keys`` of an upload."""
        key = self.sign({"key": f"{self.device_id}-fallback-{number}", "fallback": True})
        return {f"signed_curve25519:FALLBACK{number}": key}

    def sign(self, thing: dict[str, Any]) -> dict[str, Any]:
        """An object signed by the device."""
        return sign_json(thing, self.user_id, self.signing_key)


@dataclass
class Identity:
    """A user's three cross-signing keys."""

    user_id: str
    keys: dict[str, SigningKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for usage in ("master", "self_signing", "user_signing"):
            self.renew(usage)

    def renew(self, usage: str) -> None:
        """Make another key."""
        seed = generate_signing_key("x").seed
        public_key = SigningKey("ed25519:x", seed).verify_key_base64
        self.keys[usage] = SigningKey(f"ed25519:{public_key}", seed)

    def public_key(self, usage: str) -> str:
        return self.keys[usage].verify_key_base64

    def key(self, usage: str) -> dict[str, Any]:
        """A key as it is uploaded, signed by the master key unless it is that."""
        content = {
            "user_id": self.user_id,
            "usage": [usage],
            "keys": {f"ed25519:{self.public_key(usage)}": self.public_key(usage)},
        }
        return content if usage == "master" else self.sign(content, "master")

    def upload(self) -> dict[str, Any]:
        """The body of an upload of all keys."""
        return {f"{usage}_key": self.key(usage) for usage in self.keys}

    def sign(self, thing: dict[str, Any], usage: str) -> dict[str, Any]:
        """An object with the signature of one of the keys added."""
        return sign_json(thing, self.user_id, self.keys[usage])


def only_new_signatures(thing: dict[str, Any], signed: dict[str, Any], user_id: str) -> dict[str, Any]:
    """What a client uploads of an object it signed: nothing but its own signature."""
    old = thing.get("signatures", {}).get(user_id, {})
    new = {key: value for key, value in signed["signatures"][user_id].items() if key not in old}
    return {**signed, "signatures": {user_id: new}}
