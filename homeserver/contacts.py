"""What people have to do with each other, wired: finding, reporting, seeing each other's profiles."""

from __future__ import annotations

import msgspec

from homeserver.config.people import Profiles, UserDirectory
from homeserver.core import Core
from homeserver.people import People
from homeserver.reading import Reading
from homeserver.room_actions import RoomActions
from homeserver.rooms.reports import Reports
from homeserver.users import directory
from homeserver.users.carry_over import CarryOver
from homeserver.users.directory_reader import DirectoryReader
from homeserver.users.profile_access import ProfileAccess


class ContactSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says of it."""

    user_directory: UserDirectory = msgspec.field(default_factory=UserDirectory)
    profiles: Profiles = msgspec.field(default_factory=Profiles)


class Contacts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts; ``directory`` is ``None`` where it is switched off."""

    settings: ContactSettings
    directory: directory.UserDirectory | None
    directory_reader: DirectoryReader
    profile_access: ProfileAccess
    reports: Reports


def wire_contacts(
    core: Core,
    people: People,
    actions: RoomActions,
    reading: Reading,
    settings: ContactSettings | None = None,
) -> Contacts:
    """Wire them; the directory is brought up to date in the background once ``start_contacts`` is called."""
    settings = settings or ContactSettings()
    reader = DirectoryReader(core.db, core.rooms, core.server_name)
    core.notifier.listeners.append(reader.new_events)
    people.profiles.listeners.append(reader.user_changed)
    people.accounts.listeners.append(reader.user_changed)
    carry_over = CarryOver(core.db, core.rooms, people.account_data, people.push_rules, core.background)
    core.notifier.state_listeners.append(carry_over.new_events)
    actions.membership.joining.settings = actions.upgrade.settings = carry_over
    users = directory.UserDirectory(
        db=core.db,
        reader=reader,
        ignored=reading.ignored,
        server_name=core.server_name,
        search_all_users=settings.user_directory.search_all_users,
    )
    return Contacts(
        settings=settings,
        directory=users if settings.user_directory.enabled else None,
        directory_reader=reader,
        profile_access=ProfileAccess(core.db, settings.profiles, reader),
        reports=Reports(
            db=core.db,
            rooms=core.rooms,
            history=reading.history,
            clock=core.clock,
            server_name=core.server_name,
        ),
    )


def start_contacts(core: Core, contacts: Contacts) -> None:
    """Bring the directory up to date from now on.

    Also where nobody may search it: which rooms are public decides whose profiles may be seen.
    """
    core.background.start(contacts.directory_reader.run(), "user directory")
