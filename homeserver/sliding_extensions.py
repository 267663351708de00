"""The extensions of sliding sync, wired."""

from __future__ import annotations

from homeserver.core import Core
from homeserver.encryption import Encryption
from homeserver.ephemeral import Ephemeral
from homeserver.people import People
from homeserver.reading import Reading
from homeserver.sync.sliding.extension import Extension
from homeserver.sync.sliding.extensions.account_data import AccountDataExtension
from homeserver.sync.sliding.extensions.e2ee import EncryptionExtension
from homeserver.sync.sliding.extensions.receipts import ReceiptsExtension
from homeserver.sync.sliding.extensions.thread_subscriptions import ThreadSubscriptionsExtension
from homeserver.sync.sliding.extensions.threads import ThreadsExtension
from homeserver.sync.sliding.extensions.to_device import ToDeviceExtension
from homeserver.sync.sliding.extensions.typing import TypingExtension
from homeserver.sync.sliding.profiles import ProfilesExtension
from homeserver.sync.thread_updates import ThreadUpdateWriter


def wire_extensions(
    core: Core, ephemeral: Ephemeral, reading: Reading, people: People, encryption: Encryption
) -> tuple[Extension, ...]:
    """Everything that clients may be told beside the events of rooms."""
    return (
        ToDeviceExtension(ephemeral.to_device),
        EncryptionExtension(reading.sync, encryption.counts),
        AccountDataExtension(core.db, core.rooms, people.push_rules),
        ReceiptsExtension(core.db, core.rooms, ephemeral.receipts.newest),
        TypingExtension(ephemeral.typing, core.rooms),
        ThreadsExtension(reading.updated_threads, ThreadUpdateWriter(reading.client_events)),
        ThreadSubscriptionsExtension(reading.thread_subscriptions),
        ProfilesExtension(core.db, core.rooms, reading.sync, core.server_name),
    )
