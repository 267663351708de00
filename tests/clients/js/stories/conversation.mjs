import { EventType, ReceiptType, RelationType } from "matrix-js-sdk";
import { until } from "../town.mjs";

async function pair(town, options = {}) {
    const [alice, bob] = [await town.person("alice", options), await town.person("bob", options)];
    return { alice, bob, room: await town.sharedRoom([alice, bob]) };
}

function edit(person, room, eventId, body) {
    const content = { msgtype: "m.text", body };
    const relation = { rel_type: RelationType.Replace, event_id: eventId };
    return person.say(room, `* ${body}`, { "m.new_content": content, "m.relates_to": relation });
}

export async function edits(town) {
    const { alice, bob, room } = await pair(town);
    const said = await alice.say(room, "Helo");
    await bob.text(room, said);
    await edit(alice, room, said, "Hello");
    await edit(alice, room, said, "Hello!");
    const seen = await bob.event(room, said);
    await until("Bob sees the second edit", () => seen.getContent().body === "Hello!");
    const late = await town.device(bob);
    const fetched = await late.client.fetchRoomEvent(room, said);
    return {
        original: seen.getOriginalContent().body,
        late: await late.text(room, said),
        bundled: fetched.unsigned["m.relations"]?.["m.replace"]?.content["m.new_content"].body ?? null,
    };
}

export async function reactions(town) {
    const { alice, bob, room } = await pair(town);
    const said = await alice.say(room, "Cake?");
    const react = async (person, key) =>
        (
            await person.client.sendEvent(room, EventType.Reaction, {
                "m.relates_to": { rel_type: RelationType.Annotation, event_id: said, key },
            })
        ).event_id;
    await bob.event(room, said);
    const bobs = await react(bob, "👍");
    await react(alice, "👍");
    await react(alice, "🍰");
    const aliceRoom = await alice.room(room);
    const counts = () => {
        const found = aliceRoom.relations.getChildEventsForEvent(said, RelationType.Annotation, EventType.Reaction);
        return Object.fromEntries(
            (found?.getSortedAnnotationsByKey() ?? []).map(([key, events]) => [key, events.size]).filter(([, n]) => n),
        );
    };
    const all = await until("three reactions", () => counts()["👍"] === 2 && counts()["🍰"] && counts());
    await bob.client.redactEvent(room, bobs);
    const left = await until("Bob's is gone", () => counts()["👍"] === 1 && counts());
    return { all, left };
}

export async function redactions(town) {
    const { alice, bob, room } = await pair(town);
    const said = await alice.say(room, "a secret");
    const seen = await bob.event(room, said);
    const before = seen.getContent().body;
    await alice.client.redactEvent(room, said, undefined, { reason: "too much" });
    await until("Bob sees it gone", () => seen.isRedacted());
    const late = await town.device(bob);
    const again = await late.event(room, said);
    return {
        before,
        after: Object.keys(seen.getContent()),
        late: again.isRedacted(),
        because: again.getRedactionEvent()?.content?.reason ?? null,
    };
}

export async function receipts(town) {
    const { alice, bob, room } = await pair(town);
    const [first, second] = [await alice.say(room, "one"), await alice.say(room, "two")];
    const bobsRoom = await bob.room(room);
    await bob.event(room, second);
    const unread = await until("two unread", () => bobsRoom.getUnreadNotificationCount() >= 2 && true);
    await bob.client.sendReadReceipt(await bob.event(room, first));
    const aliceRoom = await alice.room(room);
    const upto = (eventId) => until(`Bob has read ${eventId}`, () => aliceRoom.getEventReadUpTo(bob.id) === eventId);
    await upto(first);
    await bob.client.setRoomReadMarkers(room, second, await bob.event(room, second));
    await upto(second);
    const read = await until("none unread", () => bobsRoom.getUnreadNotificationCount() === 0 && true);
    const marker = await until("the marker", () => bobsRoom.getAccountData("m.fully_read")?.getContent().event_id);
    const third = await alice.say(room, "three");
    await bob.client.sendReceipt(await bob.event(room, third), ReceiptType.ReadPrivate, {});
    await until("read in private", () => bobsRoom.getUnreadNotificationCount() === 0);
    const afterwards = await alice.say(room, "four");
    await alice.event(room, afterwards);
    return { unread, read, marker: marker === second, hidden: aliceRoom.getEventReadUpTo(bob.id) === second };
}

export async function typing(town) {
    const { alice, bob, room } = await pair(town);
    const seen = (await alice.room(room)).getMember(bob.id);
    await bob.client.sendTyping(room, true, 20_000);
    const started = await until("Bob types", () => seen.typing);
    await bob.client.sendTyping(room, false, 0);
    const stopped = await until("Bob stops", () => !seen.typing);
    return { started, stopped };
}

export async function presence(town) {
    const { alice, bob } = await pair(town);
    await bob.client.setSyncPresence("unavailable");
    await bob.client.setPresence({ presence: "unavailable", status_msg: "at lunch" });
    const user = await until("Alice sees that Bob is away", () => {
        const known = alice.client.getUser(bob.id);
        return known?.presence === "unavailable" && known;
    });
    return { presence: user.presence, status: user.presenceStatusMsg };
}

export async function threads(town) {
    const { alice, bob, room } = await pair(town);
    const root = await alice.say(room, "Where do we meet?");
    await bob.event(room, root);
    const answers = [];
    for (const body of ["In the park", "At the lake"]) {
        answers.push((await bob.client.sendMessage(room, root, { msgtype: "m.text", body })).event_id);
    }
    const aliceRoom = await alice.room(room);
    const thread = await until("the thread", () => aliceRoom.getThread(root));
    await until("both answers", () => thread.length === 2);
    const unread = await until("two unread in the thread", () => aliceRoom.getThreadUnreadNotificationCount(root) === 2);
    await alice.client.sendReadReceipt(await until("the last answer", () => thread.findEventById(answers[1])));
    const read = await until("none unread", () => aliceRoom.getThreadUnreadNotificationCount(root) === 0);

    const late = await town.device(alice);
    const lateRoom = await late.room(room);
    await lateRoom.createThreadsTimelineSets();
    await lateRoom.fetchRoomThreads();
    const [listed] = lateRoom.getThreads();
    await until("the thread's messages are there", () => listed.events.length === 3);
    return {
        unread,
        read,
        listed: listed.id === root,
        length: listed.length,
        texts: listed.events.map((event) => event.getContent().body),
        latest: listed.replyToEvent.getContent().body,
        inTimeline: lateRoom.getLiveTimeline().getEvents().some((event) => answers.includes(event.getId())),
    };
}
