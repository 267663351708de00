"""How many times better than Synapse each figure shall be."""

from __future__ import annotations

#: By the key of a reading; of sizes, "at most half of Synapse's" is twice as good.
TARGETS: dict[str, float] = {
    "send_1": 25,
    "send_32_rooms": 50,
    "send_one_room": 40,
    "send_to_sync_p50": 10,
    "send_to_sync_p95": 10,
    "initial_sync": 15,
    "initial_sync_many": 15,
    "empty_sync": 8,
    "one_message_sync": 15,
    "messages_page": 10,
    "create_room": 15,
    "local_join": 15,
    "fan_out": 10,
    "pdus_in": 25,
    "remote_join_usable": 5,
    "remote_join_complete": 5,
    "sliding_few": 10,
    "sliding_few_next": 10,
    "sliding_many": 10,
    "sliding_many_next": 10,
    "memory_idle": 2,
    "memory_after": 2,
    "disk_message": 2.5,
    "disk_membership_state": 100,
}
