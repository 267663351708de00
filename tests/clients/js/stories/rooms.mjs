import { Filter } from "matrix-js-sdk";
import { RoomHierarchy } from "matrix-js-sdk/lib/room-hierarchy.js";
import { until } from "../town.mjs";

export async function upgrade(town) {
    const [alice, bob] = [await town.person("alice"), await town.person("bob")];
    const old = await town.sharedRoom([alice, bob], { preset: "public_chat", name: "Tea", room_version: "10" });
    const { replacement_room: next } = await alice.client.upgradeRoom(old, "11");
    const bobsOld = await bob.room(old);
    const tombstone = await until("Bob sees the tombstone", () =>
        bobsOld.getLiveTimeline().getState("f").getStateEvents("m.room.tombstone", ""),
    );
    await bob.client.joinRoom(tombstone.getContent().replacement_room);
    const room = await bob.room(next);
    await until("the name has come over", () => room.name === "Tea");
    return {
        version: room.getVersion(),
        predecessor: room.findPredecessor().roomId === old,
        same: tombstone.getContent().replacement_room === next,
        visible: bob.client.getVisibleRooms().map((each) => each.roomId === next),
    };
}

export async function spaces(town) {
    const [alice, bob] = [await town.person("alice"), await town.person("bob")];
    const make = async (name, type) =>
        (await alice.client.createRoom({ preset: "public_chat", name, creation_content: type ? { type } : {} })).room_id;
    const [house, kitchen, garden] = [await make("House", "m.space"), await make("Kitchen"), await make("Garden", "m.space")];
    const bed = await make("Flower bed");
    const via = [alice.id.split(/:(.*)/)[1]];
    for (const [parent, child] of [[house, kitchen], [house, garden], [garden, bed]]) {
        await alice.client.sendStateEvent(parent, "m.space.child", { via, suggested: child === garden }, child);
    }
    await bob.client.joinRoom(house);
    const hierarchy = new RoomHierarchy(await bob.room(house), 2);
    while (hierarchy.canLoadMore) await hierarchy.load();
    return {
        names: hierarchy.rooms.map((room) => room.name).sort(),
        suggested: [garden, kitchen].map((child) => Boolean(hierarchy.isSuggested(house, child))),
        nested: hierarchy.getRelation(garden, bed)?.state_key === bed,
        isSpace: (await bob.room(house)).isSpaceRoom(),
    };
}

export async function lazyLoading(town) {
    const names = ["alice", "bob", "carol", "dan"];
    const people = [];
    for (const name of names) people.push(await town.person(name));
    const [alice, bob, carol] = people;
    const roomId = await town.sharedRoom(people, { name: "Many" });
    for (const number of Array(25).keys()) await carol.say(roomId, `message ${number}`);
    const late = await town.device(alice, { lazyLoadMembers: true, initialSyncLimit: 5 });
    const room = await late.room(roomId);
    const known = () => room.currentState.getMembers().filter((member) => member.membership === "join").length;
    const before = known();
    await room.loadMembersIfNeeded();
    const after = known();
    const texts = () => room.getLiveTimeline().getEvents().map((event) => event.getContent().body);
    const window = texts().filter(Boolean).length;
    await late.client.scrollback(room, 30);
    return {
        before: before < 4,
        after,
        counted: room.getJoinedMemberCount(),
        window,
        oldest: texts().find((body) => body === "message 0") ?? null,
        sender: room.getMember(carol.id).membership,
        unheard: room.getMember(bob.id).membership,
    };
}

export async function filters(town) {
    const [alice, bob] = [await town.person("alice"), await town.person("bob")];
    const roomId = await town.sharedRoom([alice, bob]);
    const last = await bob.say(roomId, "visible");
    const definition = { room: { timeline: { limit: 20, types: ["m.room.message"] }, ephemeral: { types: [] } } };
    const late = await town.device(alice, { filter: Filter.fromJson(alice.id, "", definition) });
    await late.event(roomId, last);
    const room = await late.room(roomId);
    const kept = await alice.client.getFilter(alice.id, await late.client.getOrCreateFilter("mine", new Filter(alice.id)), false);
    return {
        types: [...new Set(room.getLiveTimeline().getEvents().map((event) => event.getType()))],
        kept: kept.getDefinition() !== undefined,
    };
}

export async function directory(town) {
    const [alice, bob] = [await town.person("alice"), await town.person("bob")];
    const alias = `tea-${town.name}`;
    const { room_id: roomId } = await alice.client.createRoom({
        preset: "public_chat",
        visibility: "public",
        room_alias_name: alias,
        name: `Tea of ${town.name}`,
        topic: "Green",
    });
    const { chunk } = await bob.client.publicRooms({ filter: { generic_search_term: town.name } });
    const joined = await bob.client.joinRoom(`#${alias}:${alice.id.split(/:(.*)/)[1]}`);
    await alice.client.setDisplayName("Alice of the tea");
    const room = await bob.room(roomId);
    await until("Bob sees the new name", () => room.getMember(alice.id)?.name === "Alice of the tea");
    await alice.client.kick(roomId, bob.id, "closing time");
    await until("Bob is out", () => room.getMyMembership() === "leave");
    return {
        found: chunk.map((each) => [each.room_id === roomId, each.topic, each.num_joined_members]),
        joined: joined.roomId === roomId,
        because: room.getMember(bob.id).events.member.getContent().reason,
    };
}
